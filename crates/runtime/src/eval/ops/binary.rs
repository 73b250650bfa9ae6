//! Operators of two and more inputs that treat elements one by one, broadcast: arithmetic, comparison, logic, choice.

use weighbridge_formats::{Error, Result};

use crate::eval::elem::Elem;
use crate::eval::node::{Call, axis};
use crate::eval::tensor::{Cx, Data, Held, Tensor};
use crate::eval::walk::{broadcast, expand, zip};

/// The second input in a shape that broadcasts: before version 7 an attribute said where it begins.
fn aligned(call: &Call<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if call.version() >= 7 || call.int("broadcast", 0)? == 0 || call.attribute("axis").is_none() {
        return Ok(b.clone());
    }
    let start = axis(call.int("axis", 0)?, a.rank())?;
    let mut shape = b.shape().to_vec();
    let behind = a.rank().saturating_sub(start + shape.len());
    shape.extend(std::iter::repeat_n(1, behind));
    b.reshaped(shape)
}

/// What each number type can do, with integers as the runtime has them: they wrap, and divide towards zero.
trait Number: Held {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// The remainder with the sign of the divisor, as Python's `%`.
    fn modulo(self, other: Self) -> Self;
    /// The remainder with the sign of the dividend, as C's `fmod`.
    fn rem(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    fn power(self, exponent: f64) -> Self;
    const INTEGER: bool;
    fn is_zero(self) -> bool;
}

macro_rules! integers {
    ($($type:ty)*) => { $(
        impl Number for $type {
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn div(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_div(other) } }
            #[allow(unused_comparisons)]
            fn modulo(self, other: Self) -> Self {
                let r = self.rem(other);
                if r != 0 && (r < 0) != (other < 0) { r.wrapping_add(other) } else { r }
            }
            fn rem(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_rem(other) } }
            fn larger(self, other: Self) -> Self { self.max(other) }
            fn smaller(self, other: Self) -> Self { self.min(other) }
            #[allow(clippy::cast_lossless)]
            fn power(self, exponent: f64) -> Self {
                if exponent >= 0.0 && exponent.fract() == 0.0 && exponent <= u32::MAX as f64 {
                    self.wrapping_pow(exponent as u32)
                } else {
                    (self as f64).powf(exponent) as Self
                }
            }
            const INTEGER: bool = true;
            fn is_zero(self) -> bool { self == 0 }
        }
    )* };
}

integers!(i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! floats {
    ($($type:ty)*) => { $(
        impl Number for $type {
            fn add(self, other: Self) -> Self { self + other }
            fn sub(self, other: Self) -> Self { self - other }
            fn mul(self, other: Self) -> Self { self * other }
            fn div(self, other: Self) -> Self { self / other }
            fn modulo(self, other: Self) -> Self {
                let r = self % other;
                if r != 0.0 && (r < 0.0) != (other < 0.0) { r + other } else { r }
            }
            fn rem(self, other: Self) -> Self { self % other }
            // NaN wins, as in NumPy.
            fn larger(self, other: Self) -> Self {
                if self.is_nan() || self > other { self } else { other }
            }
            fn smaller(self, other: Self) -> Self {
                if self.is_nan() || self < other { self } else { other }
            }
            #[allow(clippy::cast_lossless)]
            fn power(self, exponent: f64) -> Self { (self as f64).powf(exponent) as Self }
            const INTEGER: bool = false;
            fn is_zero(self) -> bool { self == 0.0 }
        }
    )* };
}

floats!(f32 f64);

/// Runs a generic function on two tensors of one number type.
macro_rules! numbers {
    ($a:expr, $b:expr, $f:expr) => {
        match ($a.data(), $b.data()) {
            (Data::F32(a), Data::F32(b)) => Data::F32($f(a, b)?),
            (Data::F64(a), Data::F64(b)) => Data::F64($f(a, b)?),
            (Data::I8(a), Data::I8(b)) => Data::I8($f(a, b)?),
            (Data::I16(a), Data::I16(b)) => Data::I16($f(a, b)?),
            (Data::I32(a), Data::I32(b)) => Data::I32($f(a, b)?),
            (Data::I64(a), Data::I64(b)) => Data::I64($f(a, b)?),
            (Data::U8(a), Data::U8(b)) => Data::U8($f(a, b)?),
            (Data::U16(a), Data::U16(b)) => Data::U16($f(a, b)?),
            (Data::U32(a), Data::U32(b)) => Data::U32($f(a, b)?),
            (Data::U64(a), Data::U64(b)) => Data::U64($f(a, b)?),
            _ => return Err(differing($a, $b)),
        }
    };
}

fn differing(a: &Tensor, b: &Tensor) -> Error {
    Error::malformed(format!("inputs of {} and {}", a.elem().name(), b.elem().name()))
}

/// Add, Sub, Mul, Div, Mod; Max, Min, Sum and Mean of two.
fn pair<T: Number>(
    cx: &Cx,
    op: &str,
    fmod: bool,
    a: (&[T], &[usize]),
    b: (&[T], &[usize]),
    out: &[usize],
) -> Result<Vec<T>> {
    if T::INTEGER && matches!(op, "Div" | "Mod") && b.0.iter().any(|x| x.is_zero()) {
        return Err(Error::malformed("an integer is divided by zero"));
    }
    match op {
        "Add" | "Sum" | "Mean" => zip(cx, a, b, out, T::add),
        "Sub" => zip(cx, a, b, out, T::sub),
        "Mul" => zip(cx, a, b, out, T::mul),
        "Div" => zip(cx, a, b, out, T::div),
        "Mod" if fmod => zip(cx, a, b, out, T::rem),
        "Mod" => zip(cx, a, b, out, T::modulo),
        "Max" => zip(cx, a, b, out, T::larger),
        "Min" => zip(cx, a, b, out, T::smaller),
        _ => Err(Error::unsupported("no arithmetic of this name")),
    }
}

pub(super) fn two(cx: &Cx, op: &str, fmod: bool, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = broadcast(&[a.shape(), b.shape()])?;
    if a.elem() != b.elem() {
        return Err(differing(a, b));
    }
    let data = numbers!(a, b, |x, y| pair(cx, op, fmod, (x, a.shape()), (y, b.shape()), &shape));
    Tensor::new(cx, a.elem(), shape, data)
}

pub(super) fn arithmetic(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let a = call.input(0)?;
    let b = aligned(call, a, call.input(1)?)?;
    Ok(vec![two(cx, &call.node.op, call.flag("fmod", false)?, a, &b)?])
}

/// Max, Min, Sum and Mean of any number of inputs.
pub(super) fn many(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let mut result = call.input(0)?.clone();
    for i in 1..call.inputs.len() {
        result = two(cx, &call.node.op, false, &result, call.input(i)?)?;
    }
    if call.node.op == "Mean" {
        let n = call.inputs.len() as f64;
        let data = match result.data() {
            Data::F32(v) => Data::F32(v.iter().map(|x| x / n as f32).collect()),
            Data::F64(v) => Data::F64(v.iter().map(|x| x / n).collect()),
            _ => return Err(Error::malformed("Mean of integers")),
        };
        result = Tensor::new(cx, result.elem(), result.shape().to_vec(), data)?;
    }
    Ok(vec![result])
}

pub(super) fn pow(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let a = call.input(0)?;
    let b = aligned(call, a, call.input(1)?)?;
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let exponents: Vec<f64> = crate::eval::tensor::each!(b.data(), v => {
        cx.room(v.len(), 8)?;
        v.iter().map(|x| Held::to_f64(*x)).collect()
    });
    macro_rules! powers {
        ($($variant:ident)*) => {
            match a.data() {
                $(Data::$variant(v) => {
                    Data::$variant(zip(cx, (v, a.shape()), (&exponents, b.shape()), &shape, |x, e| x.power(e))?)
                })*
                Data::Bool(_) => return Err(Error::malformed("powers of booleans")),
            }
        };
    }
    let data = powers!(F32 F64 I8 I16 I32 I64 U8 U16 U32 U64);
    Ok(vec![Tensor::new(cx, a.elem(), shape, data)?])
}

/// Equal, Greater, GreaterOrEqual, Less, LessOrEqual.
pub(super) fn compare(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    fn by<T: Held>(
        cx: &Cx,
        op: &str,
        a: (&[T], &[usize]),
        b: (&[T], &[usize]),
        out: &[usize],
    ) -> Result<Vec<bool>> {
        match op {
            "Equal" => zip(cx, a, b, out, |a, b| a == b),
            "Greater" => zip(cx, a, b, out, |a, b| a > b),
            "GreaterOrEqual" => zip(cx, a, b, out, |a, b| a >= b),
            "Less" => zip(cx, a, b, out, |a, b| a < b),
            "LessOrEqual" => zip(cx, a, b, out, |a, b| a <= b),
            _ => Err(Error::unsupported("no comparison of this name")),
        }
    }
    let a = call.input(0)?;
    let b = &aligned(call, a, call.input(1)?)?;
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let op = &*call.node.op;
    macro_rules! compared {
        ($($variant:ident)*) => {
            match (a.data(), b.data()) {
                $((Data::$variant(x), Data::$variant(y)) => by(cx, op, (x, a.shape()), (y, b.shape()), &shape)?,)*
                _ => return Err(differing(a, b)),
            }
        };
    }
    let values = compared!(F32 F64 I8 I16 I32 I64 U8 U16 U32 U64 Bool);
    Ok(vec![Tensor::of(cx, shape, values)?])
}

/// And, Or, Xor.
pub(super) fn logic(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let a = call.input(0)?;
    let b = aligned(call, a, call.input(1)?)?;
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let f: fn(bool, bool) -> bool = match &*call.node.op {
        "And" => |a, b| a & b,
        "Or" => |a, b| a | b,
        _ => |a, b| a ^ b,
    };
    let values = zip(cx, (a.values::<bool>()?, a.shape()), (b.values::<bool>()?, b.shape()), &shape, f)?;
    Ok(vec![Tensor::of(cx, shape, values)?])
}

/// BitwiseAnd, BitwiseOr, BitwiseXor, BitShift.
pub(super) fn bits(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let op = match (&*call.node.op, call.text("direction", "")?) {
        ("BitShift", "LEFT") => "left",
        ("BitShift", "RIGHT") => "right",
        ("BitShift", other) => return Err(Error::malformed(format!("a shift in direction {other:?}"))),
        (name, _) => name,
    };
    macro_rules! bits {
        ($($variant:ident)*) => {
            match (a.data(), b.data()) {
                $((Data::$variant(x), Data::$variant(y)) => {
                    let (x, y) = ((&x[..], a.shape()), (&y[..], b.shape()));
                    Data::$variant(match op {
                        "BitwiseAnd" => zip(cx, x, y, &shape, |a, b| a & b)?,
                        "BitwiseOr" => zip(cx, x, y, &shape, |a, b| a | b)?,
                        "BitwiseXor" => zip(cx, x, y, &shape, |a, b| a ^ b)?,
                        "left" => zip(cx, x, y, &shape, |a, b| u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0))?,
                        _ => zip(cx, x, y, &shape, |a, b| u32::try_from(b).ok().and_then(|b| a.checked_shr(b)).unwrap_or(0))?,
                    })
                })*
                _ => return Err(differing(a, b)),
            }
        };
    }
    let data = bits!(I8 I16 I32 I64 U8 U16 U32 U64);
    Ok(vec![Tensor::exact(cx, a.elem(), shape, data)?])
}

pub(super) fn choose(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (condition, a, b) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let shape = broadcast(&[condition.shape(), a.shape(), b.shape()])?;
    let yes = expand(cx, condition.values::<bool>()?, condition.shape(), &shape)?;
    macro_rules! chosen {
        ($($variant:ident)*) => {
            match (a.data(), b.data()) {
                $((Data::$variant(x), Data::$variant(y)) => {
                    let mut out = expand(cx, x, a.shape(), &shape)?;
                    let no = expand(cx, y, b.shape(), &shape)?;
                    for ((o, n), yes) in out.iter_mut().zip(no).zip(&yes) {
                        if !yes {
                            *o = n;
                        }
                    }
                    Data::$variant(out)
                })*
                _ => return Err(differing(a, b)),
            }
        };
    }
    let data = chosen!(F32 F64 I8 I16 I32 I64 U8 U16 U32 U64 Bool);
    Ok(vec![Tensor::exact(cx, a.elem(), shape, data)?])
}

pub(super) fn prelu(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    // Before version 7 the slopes are one for each channel.
    let slope = if call.version() < 7 && slope.rank() == 1 && x.rank() > 2 && slope.len() > 1 {
        let mut shape = vec![slope.len()];
        shape.extend(std::iter::repeat_n(1, x.rank() - 2));
        slope.reshaped(shape)?
    } else {
        slope.clone()
    };
    let shape = broadcast(&[x.shape(), slope.shape()])?;
    macro_rules! sloped {
        ($($variant:ident $zero:expr;)*) => {
            match (x.data(), slope.data()) {
                $((Data::$variant(a), Data::$variant(b)) => {
                    let f = |x: _, s: _| if x < $zero { Number::mul(s, x) } else { x };
                    Data::$variant(zip(cx, (a, x.shape()), (b, slope.shape()), &shape, f)?)
                })*
                _ => return Err(differing(x, &slope)),
            }
        };
    }
    let data = sloped!(F32 0.0; F64 0.0; I32 0; I64 0;);
    Ok(vec![Tensor::new(cx, x.elem(), shape, data)?])
}

/// com.microsoft FastGelu, BiasGelu: an optional bias, then the function.
pub(super) fn biased_gelu(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let mut x = call.input(0)?.clone();
    if let Some(bias) = call.optional(1) {
        x = two(cx, "Add", false, &x, bias)?;
    }
    let f = if call.node.op == "FastGelu" { super::unary::gelu_tanh } else { super::unary::gelu };
    let values: Vec<f32> = x.floats()?.iter().map(|&x| f(f64::from(x)) as f32).collect();
    if x.elem() == Elem::F64 {
        return Err(Error::unsupported("doubles"));
    }
    Ok(vec![Tensor::new(cx, x.elem(), x.shape().to_vec(), Data::F32(values))?])
}
