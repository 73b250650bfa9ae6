//! Operators of one input that treat each element by itself: functions, activations, casts.

use weighbridge_formats::{Error, Result};

use crate::eval::elem::Elem;
use crate::eval::node::Call;
use crate::eval::tensor::{Cx, Data, Held, Tensor, each};

/// A function of real numbers on floats of any width, computed in f64.
fn real(cx: &Cx, x: &Tensor, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>> {
    cx.work(x.len())?;
    let data = match x.data() {
        Data::F32(v) => {
            let mut out = cx.reserved(v.len())?;
            out.extend(v.iter().map(|&x| f(f64::from(x)) as f32));
            Data::F32(out)
        }
        Data::F64(v) => {
            let mut out = cx.reserved(v.len())?;
            out.extend(v.iter().map(|&x| f(x)));
            Data::F64(out)
        }
        _ => {
            return Err(Error::malformed(format!(
                "a tensor of {} stands where floats are wanted",
                x.elem().name()
            )));
        }
    };
    Ok(vec![Tensor::new(cx, x.elem(), x.shape().to_vec(), data)?])
}

/// Operators that are one function without a parameter.
pub(super) fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "Acos" => f64::acos,
        "Acosh" => f64::acosh,
        "Asin" => f64::asin,
        "Asinh" => f64::asinh,
        "Atan" => f64::atan,
        "Atanh" => f64::atanh,
        "Ceil" => f64::ceil,
        "Cos" => f64::cos,
        "Cosh" => f64::cosh,
        "Erf" => libm::erf,
        "Exp" => f64::exp,
        "Floor" => f64::floor,
        "HardSwish" => |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        "Log" => f64::ln,
        "Mish" => |x| x * softplus(x).tanh(),
        "Reciprocal" => |x| 1.0 / x,
        "Round" => libm::rint,
        "Sigmoid" => sigmoid,
        "Sin" => f64::sin,
        "Sinh" => f64::sinh,
        "Softplus" => softplus,
        "Softsign" => |x| x / (1.0 + x.abs()),
        "Sqrt" => f64::sqrt,
        "Tan" => f64::tan,
        "Tanh" => f64::tanh,
        _ => return None,
    })
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub(super) fn plain(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    match function(&call.node.op) {
        Some(f) => real(cx, call.input(0)?, f),
        None => Err(Error::unsupported("no function of this name")),
    }
}

/// Activations with parameters.
pub(super) fn activation(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let parameter = |name: &str, default: f32| call.float(name, default).map(f64::from);
    match &*call.node.op {
        "Celu" => {
            let a = parameter("alpha", 1.0)?;
            real(cx, x, |x| x.max(0.0) + (a * ((x / a).exp() - 1.0)).min(0.0))
        }
        "Elu" => {
            let a = parameter("alpha", 1.0)?;
            real(cx, x, |x| if x < 0.0 { a * (x.exp() - 1.0) } else { x })
        }
        "HardSigmoid" => {
            let (a, b) = (parameter("alpha", 0.2)?, parameter("beta", 0.5)?);
            real(cx, x, |x| (a * x + b).clamp(0.0, 1.0))
        }
        "LeakyRelu" => {
            let a = parameter("alpha", 0.01)?;
            real(cx, x, |x| if x < 0.0 { a * x } else { x })
        }
        "Selu" => {
            let a = parameter("alpha", 1.673_263_2)?;
            let gamma = parameter("gamma", 1.050_701)?;
            real(cx, x, |x| gamma * if x > 0.0 { x } else { a * x.exp() - a })
        }
        "Shrink" => {
            let (bias, lambda) = (parameter("bias", 0.0)?, parameter("lambd", 0.5)?);
            let f = |x: f64| {
                if x < -lambda {
                    x + bias
                } else if x > lambda {
                    x - bias
                } else {
                    0.0
                }
            };
            match x.data() {
                Data::F32(_) | Data::F64(_) => real(cx, x, f),
                _ => Err(Error::unsupported("Shrink of integers")),
            }
        }
        "ThresholdedRelu" => {
            let a = parameter("alpha", 1.0)?;
            real(cx, x, |x| if x > a { x } else { 0.0 })
        }
        "Swish" => {
            let a = parameter("alpha", 1.0)?;
            real(cx, x, |x| x * sigmoid(a * x))
        }
        "QuickGelu" => {
            let a = parameter("alpha", 1.702)?;
            real(cx, x, |x| x * sigmoid(a * x))
        }
        "Gelu" => match call.text("approximate", "none")? {
            "none" => real(cx, x, gelu),
            "tanh" => real(cx, x, gelu_tanh),
            other => Err(Error::unsupported(format!("Gelu approximated by {other:?}"))),
        },
        _ => Err(Error::unsupported("no activation of this name")),
    }
}

pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

pub(super) fn gelu_tanh(x: f64) -> f64 {
    const SCALE: f64 = 0.797_884_560_802_865_4; // √(2/π)
    0.5 * x * (1.0 + (SCALE * (x + 0.044_715 * x * x * x)).tanh())
}

/// Abs, Neg, Relu and Sign, which integers have too.
pub(super) fn signs(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    cx.work(x.len())?;
    cx.room(x.len(), 8)?;
    macro_rules! signed {
        ($v:expr, $zero:expr, $one:expr) => {
            match &*call.node.op {
                "Abs" => $v.iter().map(|x| x.wrapping_abs()).collect(),
                "Neg" => $v.iter().map(|x| x.wrapping_neg()).collect(),
                "Relu" => $v.iter().map(|&x| x.max($zero)).collect(),
                _ => $v.iter().map(|x| x.signum()).collect(),
            }
        };
    }
    macro_rules! unsigned {
        ($v:expr) => {
            match &*call.node.op {
                "Neg" => return Err(Error::malformed("Neg of unsigned integers")),
                "Sign" => $v.iter().map(|&x| x.min(1)).collect(),
                _ => $v.to_vec(),
            }
        };
    }
    macro_rules! float {
        ($v:expr) => {
            match &*call.node.op {
                "Abs" => $v.iter().map(|x| x.abs()).collect(),
                "Neg" => $v.iter().map(|x| -x).collect(),
                // A comparison, so that NaN stays NaN.
                "Relu" => $v.iter().map(|&x| if x < 0.0 { 0.0 } else { x }).collect(),
                _ => $v
                    .iter()
                    .map(|&x| {
                        if x > 0.0 {
                            1.0
                        } else if x < 0.0 {
                            -1.0
                        } else {
                            x
                        }
                    })
                    .collect(),
            }
        };
    }
    let data = match x.data() {
        Data::F32(v) => Data::F32(float!(v)),
        Data::F64(v) => Data::F64(float!(v)),
        Data::I8(v) => Data::I8(signed!(v, 0, 1)),
        Data::I16(v) => Data::I16(signed!(v, 0, 1)),
        Data::I32(v) => Data::I32(signed!(v, 0, 1)),
        Data::I64(v) => Data::I64(signed!(v, 0, 1)),
        Data::U8(v) => Data::U8(unsigned!(v)),
        Data::U16(v) => Data::U16(unsigned!(v)),
        Data::U32(v) => Data::U32(unsigned!(v)),
        Data::U64(v) => Data::U64(unsigned!(v)),
        Data::Bool(_) => return Err(Error::malformed("arithmetic on booleans")),
    };
    Ok(vec![Tensor::exact(cx, x.elem(), x.shape().to_vec(), data)?])
}

/// IsNaN, IsInf and Not.
pub(super) fn tests(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    cx.room(x.len(), 1)?;
    let values: Vec<bool> = match &*call.node.op {
        "Not" => x.values::<bool>()?.iter().map(|b| !b).collect(),
        "IsNaN" => each!(x.data(), v => v.iter().map(|x| Held::to_f64(*x).is_nan()).collect()),
        _ => {
            let (negative, positive) =
                (call.flag("detect_negative", true)?, call.flag("detect_positive", true)?);
            let is = |x: f64| x.is_infinite() && if x < 0.0 { negative } else { positive };
            each!(x.data(), v => v.iter().map(|x| is(Held::to_f64(*x))).collect())
        }
    };
    Ok(vec![Tensor::of(cx, x.shape().to_vec(), values)?])
}

pub(super) fn bitwise_not(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    cx.room(x.len(), 8)?;
    macro_rules! not {
        ($($variant:ident)*) => {
            match x.data() {
                $(Data::$variant(v) => Data::$variant(v.iter().map(|x| !x).collect()),)*
                _ => return Err(Error::malformed("bits of floats")),
            }
        };
    }
    let data = not!(I8 I16 I32 I64 U8 U16 U32 U64);
    Ok(vec![Tensor::exact(cx, x.elem(), x.shape().to_vec(), data)?])
}

pub(super) fn identity(_: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    Ok(vec![call.input(0)?.clone()])
}

/// Cast and CastLike.
pub(super) fn cast(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let to = match &*call.node.op {
        "CastLike" => call.input(1)?.elem(),
        _ => Elem::from_onnx(call.int("to", 0)?)?,
    };
    Ok(vec![cast_to(cx, call.input(0)?, to, call.flag("saturate", true)?)?])
}

pub(super) fn cast_to(cx: &Cx, x: &Tensor, to: Elem, saturate: bool) -> Result<Tensor> {
    if x.elem() == to {
        return Ok(x.clone());
    }
    cx.work(x.len())?;
    cx.room(x.len(), 8)?;
    // `as` truncates towards zero and saturates floats; integers wrap.
    macro_rules! to {
        ($type:ty, $variant:ident) => {
            Data::$variant(match x.data() {
                Data::Bool(v) => v.iter().map(|&b| u8::from(b) as $type).collect(),
                Data::F32(v) => v.iter().map(|&x| x as $type).collect(),
                Data::F64(v) => v.iter().map(|&x| x as $type).collect(),
                Data::I8(v) => v.iter().map(|&x| x as $type).collect(),
                Data::I16(v) => v.iter().map(|&x| x as $type).collect(),
                Data::I32(v) => v.iter().map(|&x| x as $type).collect(),
                Data::I64(v) => v.iter().map(|&x| x as $type).collect(),
                Data::U8(v) => v.iter().map(|&x| x as $type).collect(),
                Data::U16(v) => v.iter().map(|&x| x as $type).collect(),
                Data::U32(v) => v.iter().map(|&x| x as $type).collect(),
                Data::U64(v) => v.iter().map(|&x| x as $type).collect(),
            })
        };
    }
    #[allow(clippy::cast_lossless, clippy::unnecessary_cast)]
    let data = match to {
        Elem::F64 => to!(f64, F64),
        Elem::I8 => to!(i8, I8),
        Elem::I16 => to!(i16, I16),
        Elem::I32 => to!(i32, I32),
        Elem::I64 => to!(i64, I64),
        Elem::U8 => to!(u8, U8),
        Elem::U16 => to!(u16, U16),
        Elem::U32 => to!(u32, U32),
        Elem::U64 => to!(u64, U64),
        Elem::Bool => Data::Bool(each!(x.data(), v => v.iter().map(|x| Held::to_f64(*x) != 0.0).collect())),
        // Of numbers past 4 bits the low ones stay, of floats as of integers.
        Elem::U4 | Elem::I4 => {
            let Data::I64(wide) = to!(i64, I64) else { return Err(Error::malformed("a cast")) };
            match to {
                Elem::U4 => Data::U8(wide.iter().map(|&x| (x & 15) as u8).collect()),
                _ => Data::I8(wide.iter().map(|&x| ((x as i8) << 4) >> 4).collect()),
            }
        }
        _ => {
            let Data::F32(mut values) = to!(f32, F32) else { return Err(Error::malformed("a cast")) };
            if to.is_narrow() {
                values.iter_mut().for_each(|x| *x = to.round(*x, saturate));
            }
            Data::F32(values)
        }
    };
    Tensor::exact(cx, to, x.shape().to_vec(), data)
}

/// Clip: bounds are attributes before version 11, then inputs.
pub(super) fn clip(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    cx.work(x.len())?;
    cx.room(x.len(), 8)?;
    macro_rules! clipped {
        ($v:expr, $type:ty, $low:expr, $high:expr) => {{
            let bound = |i: usize| -> Result<Option<$type>> {
                match call.optional(i) {
                    Some(t) if t.len() == 0 => Ok(None),
                    Some(t) => match t.values::<$type>()? {
                        [one] => Ok(Some(*one)),
                        _ => Err(Error::malformed("a bound that is no scalar")),
                    },
                    None => Ok(None),
                }
            };
            let low = bound(1)?.unwrap_or($low);
            let high = bound(2)?.unwrap_or($high);
            // As NumPy: the upper bound wins where they cross; NaN stays.
            let f = |x: $type| {
                let x = if x < low { low } else { x };
                if x > high { high } else { x }
            };
            $v.iter().map(|&x| f(x)).collect()
        }};
    }
    let (low, high) = (call.float("min", f32::MIN)?, call.float("max", f32::MAX)?);
    let old = call.version() < 11;
    let (low, high) = if old { (low, high) } else { (f32::NEG_INFINITY, f32::INFINITY) };
    let data = match x.data() {
        Data::F32(v) => Data::F32(clipped!(v, f32, low, high)),
        Data::F64(v) => Data::F64(clipped!(v, f64, f64::from(low), f64::from(high))),
        Data::I8(v) => Data::I8(clipped!(v, i8, i8::MIN, i8::MAX)),
        Data::I16(v) => Data::I16(clipped!(v, i16, i16::MIN, i16::MAX)),
        Data::I32(v) => Data::I32(clipped!(v, i32, i32::MIN, i32::MAX)),
        Data::I64(v) => Data::I64(clipped!(v, i64, i64::MIN, i64::MAX)),
        Data::U8(v) => Data::U8(clipped!(v, u8, u8::MIN, u8::MAX)),
        Data::U16(v) => Data::U16(clipped!(v, u16, u16::MIN, u16::MAX)),
        Data::U32(v) => Data::U32(clipped!(v, u32, u32::MIN, u32::MAX)),
        Data::U64(v) => Data::U64(clipped!(v, u64, u64::MIN, u64::MAX)),
        Data::Bool(_) => return Err(Error::malformed("Clip of booleans")),
    };
    Ok(vec![Tensor::exact(cx, x.elem(), x.shape().to_vec(), data)?])
}

/// Dropout as it is when a model is used: the input, and a mask of all that is kept. A model in training is refused.
pub(super) fn dropout(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let ratio = call.optional(1).map(Tensor::number).transpose()?.unwrap_or(0.5);
    if call.optional(2).map(Tensor::truth).transpose()?.unwrap_or(false) && ratio != 0.0 {
        return Err(Error::unsupported("Dropout in training mode, which is random"));
    }
    let mask = cx.filled(x.len(), true)?;
    let mask = if call.version() < 10 && x.elem().is_float() {
        let mask = Tensor::of(cx, x.shape().to_vec(), mask)?;
        cast_to(cx, &mask, x.elem(), true)?
    } else {
        Tensor::of(cx, x.shape().to_vec(), mask)?
    };
    Ok(vec![x.clone(), mask])
}
