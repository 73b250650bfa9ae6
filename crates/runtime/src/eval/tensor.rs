//! The evaluator's values: shared, contiguous, and counted against a bound on memory while they live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weighbridge_formats::{DType, Error, Result};

use super::elem::Elem;
use crate::array::{Array, decode};

/// What a run may use, and what it uses now.
#[derive(Debug)]
pub(crate) struct Budget {
    live: AtomicU64,
    peak: AtomicU64,
    bytes: u64,
    steps: AtomicU64,
    work: AtomicU64,
}

impl Budget {
    pub(crate) fn new(bytes: u64, steps: u64, work: u64) -> Self {
        Self {
            live: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            bytes,
            steps: AtomicU64::new(steps),
            work: AtomicU64::new(work),
        }
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// What operators run in: the bounds, and how many threads.
#[derive(Clone, Debug)]
pub(crate) struct Cx {
    pub(crate) budget: Arc<Budget>,
    pub(crate) threads: usize,
}

impl Cx {
    /// Refuses memory that would pass the bound together with what lives.
    pub(crate) fn room(&self, elements: usize, width: usize) -> Result<()> {
        let live = self.budget.live.load(Ordering::Relaxed);
        let wanted = (elements as u64).checked_mul(width as u64).and_then(|b| b.checked_add(live));
        if wanted.is_none_or(|w| w > self.budget.bytes) {
            let bytes = self.budget.bytes;
            let what = format!(
                "{elements} elements of {width} bytes beside the {live} bytes that live pass the bound of {bytes}"
            );
            return Err(Error::limit(what).with_hint("raise the evaluator's bound on memory"));
        }
        Ok(())
    }

    /// A vector of so many elements.
    pub(crate) fn filled<T: Clone>(&self, n: usize, value: T) -> Result<Vec<T>> {
        let mut out = self.reserved(n)?;
        out.resize(n, value);
        Ok(out)
    }

    /// An empty vector with room for so many elements.
    pub(crate) fn reserved<T>(&self, n: usize) -> Result<Vec<T>> {
        self.room(n, size_of::<T>())?;
        let mut out = Vec::new();
        out.try_reserve_exact(n).map_err(|_| Error::limit(format!("{n} elements do not fit in memory")))?;
        Ok(out)
    }

    /// Counts elementary operations against the bound.
    pub(crate) fn work(&self, operations: usize) -> Result<()> {
        let n = operations as u64;
        let left =
            self.budget.work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(n));
        if left.is_err() {
            return Err(Error::limit("the run takes more arithmetic than its bound allows")
                .with_hint("raise the evaluator's bound on operations"));
        }
        Ok(())
    }

    /// Counts one node that is run.
    pub(crate) fn step(&self) -> Result<()> {
        let left =
            self.budget.steps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| Error::limit("the run takes more steps than its bound allows"))
    }
}

/// Elements, by the type that holds them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
}

/// Runs an expression on the vector inside, whichever it is.
macro_rules! each {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::eval::tensor::Data::F32($v) => $body,
            $crate::eval::tensor::Data::F64($v) => $body,
            $crate::eval::tensor::Data::I8($v) => $body,
            $crate::eval::tensor::Data::I16($v) => $body,
            $crate::eval::tensor::Data::I32($v) => $body,
            $crate::eval::tensor::Data::I64($v) => $body,
            $crate::eval::tensor::Data::U8($v) => $body,
            $crate::eval::tensor::Data::U16($v) => $body,
            $crate::eval::tensor::Data::U32($v) => $body,
            $crate::eval::tensor::Data::U64($v) => $body,
            $crate::eval::tensor::Data::Bool($v) => $body,
        }
    };
}

/// As `each`, for an expression that makes a vector of the same type: the result is data again.
macro_rules! same {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::eval::tensor::Data::F32($v) => $crate::eval::tensor::Data::F32($body),
            $crate::eval::tensor::Data::F64($v) => $crate::eval::tensor::Data::F64($body),
            $crate::eval::tensor::Data::I8($v) => $crate::eval::tensor::Data::I8($body),
            $crate::eval::tensor::Data::I16($v) => $crate::eval::tensor::Data::I16($body),
            $crate::eval::tensor::Data::I32($v) => $crate::eval::tensor::Data::I32($body),
            $crate::eval::tensor::Data::I64($v) => $crate::eval::tensor::Data::I64($body),
            $crate::eval::tensor::Data::U8($v) => $crate::eval::tensor::Data::U8($body),
            $crate::eval::tensor::Data::U16($v) => $crate::eval::tensor::Data::U16($body),
            $crate::eval::tensor::Data::U32($v) => $crate::eval::tensor::Data::U32($body),
            $crate::eval::tensor::Data::U64($v) => $crate::eval::tensor::Data::U64($body),
            $crate::eval::tensor::Data::Bool($v) => $crate::eval::tensor::Data::Bool($body),
        }
    };
}

pub(crate) use {each, same};

/// A Rust type that holds elements.
pub(crate) trait Held: Copy + Default + PartialOrd + Send + Sync + 'static {
    /// The vector inside, if it is of this type.
    fn of(data: &Data) -> Option<&[Self]>;
    fn wrap(values: Vec<Self>) -> Data;
    fn to_f64(self) -> f64;
}

macro_rules! held {
    ($($type:ty, $variant:ident, $x:ident => $widen:expr;)*) => { $(
        impl Held for $type {
            fn of(data: &Data) -> Option<&[Self]> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn wrap(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
            #[allow(clippy::cast_lossless)]
            fn to_f64(self) -> f64 {
                let $x = self;
                $widen
            }
        }
    )* };
}

held! {
    f32, F32, x => f64::from(x); f64, F64, x => x;
    i8, I8, x => f64::from(x); i16, I16, x => f64::from(x); i32, I32, x => f64::from(x); i64, I64, x => x as f64;
    u8, U8, x => f64::from(x); u16, U16, x => f64::from(x); u32, U32, x => f64::from(x); u64, U64, x => x as f64;
    bool, Bool, x => f64::from(u8::from(x));
}

impl Data {
    pub(crate) fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    fn width(&self) -> usize {
        fn of<T>(_: &[T]) -> usize {
            size_of::<T>()
        }
        each!(self, v => of(v))
    }

    /// The type of plain values held so.
    pub(crate) fn plain(&self) -> Elem {
        match self {
            Self::F32(_) => Elem::F32,
            Self::F64(_) => Elem::F64,
            Self::I8(_) => Elem::I8,
            Self::I16(_) => Elem::I16,
            Self::I32(_) => Elem::I32,
            Self::I64(_) => Elem::I64,
            Self::U8(_) => Elem::U8,
            Self::U16(_) => Elem::U16,
            Self::U32(_) => Elem::U32,
            Self::U64(_) => Elem::U64,
            Self::Bool(_) => Elem::Bool,
        }
    }
}

/// How each type is held.
fn holds(elem: Elem, data: &Data) -> bool {
    match elem {
        Elem::I4 => matches!(data, Data::I8(_)),
        Elem::U4 => matches!(data, Data::U8(_)),
        e if e.is_narrow() => matches!(data, Data::F32(_)),
        e => data.plain() == e,
    }
}

/// Elements that are counted while they live.
struct Buffer {
    data: Data,
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.live.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A value: an element type, sizes, and elements in row-major order.
#[derive(Clone)]
pub(crate) struct Tensor {
    elem: Elem,
    shape: Vec<usize>,
    buffer: Arc<Buffer>,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.elem.name(), self.shape)
    }
}

/// The product of a shape.
///
/// # Errors
/// `LimitExceeded` if the sizes that are not zero multiply to more than any memory holds, so that every product of some
/// of them can be formed without a check.
pub(crate) fn count(shape: &[usize]) -> Result<usize> {
    let product = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    match product.filter(|&n| n <= isize::MAX as usize / 16) {
        Some(n) => Ok(if shape.contains(&0) { 0 } else { n }),
        None => Err(Error::limit(format!("shape {shape:?} has more elements than memory holds"))),
    }
}

impl Tensor {
    /// A value; narrow floats are rounded to their type here.
    pub(crate) fn new(cx: &Cx, elem: Elem, shape: Vec<usize>, mut data: Data) -> Result<Self> {
        if elem.is_narrow()
            && let Data::F32(values) = &mut data
        {
            values.iter_mut().for_each(|x| *x = elem.round(*x, true));
        }
        Self::exact(cx, elem, shape, data)
    }

    /// A value whose elements are exact in their type already.
    pub(crate) fn exact(cx: &Cx, elem: Elem, shape: Vec<usize>, data: Data) -> Result<Self> {
        if count(&shape)? != data.len() || !holds(elem, &data) {
            let (len, held) = (data.len(), data.plain().name());
            let what = format!("{len} elements held as {held} do not make {shape:?} of {}", elem.name());
            return Err(Error::malformed(what));
        }
        let bytes = (data.len() * data.width()) as u64;
        let live = cx.budget.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        cx.budget.peak.fetch_max(live, Ordering::Relaxed);
        let buffer = Buffer { data, budget: cx.budget.clone(), bytes };
        Ok(Self { elem, shape, buffer: Arc::new(buffer) })
    }

    /// A value of the type that plainly holds these elements.
    pub(crate) fn of<T: Held>(cx: &Cx, shape: Vec<usize>, values: Vec<T>) -> Result<Self> {
        let data = T::wrap(values);
        Self::exact(cx, data.plain(), shape, data)
    }

    pub(crate) fn scalar<T: Held>(cx: &Cx, value: T) -> Result<Self> {
        Self::of(cx, Vec::new(), vec![value])
    }

    /// The same elements in another shape.
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Result<Self> {
        if count(&shape)? != self.len() {
            let what = format!("{} elements do not make shape {shape:?}", self.len());
            return Err(Error::malformed(what));
        }
        Ok(Self { elem: self.elem, shape, buffer: self.buffer.clone() })
    }

    pub(crate) fn elem(&self) -> Elem {
        self.elem
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.data.len()
    }

    pub(crate) fn data(&self) -> &Data {
        &self.buffer.data
    }

    /// The elements, which must be held as `T`.
    pub(crate) fn values<T: Held>(&self) -> Result<&[T]> {
        T::of(self.data()).ok_or_else(|| {
            let wanted = T::wrap(Vec::new()).plain().name();
            Error::malformed(format!("a tensor of {} stands where {wanted} is wanted", self.elem.name()))
        })
    }

    /// The elements as f32 where they are floats of 32 bits and fewer; converted from f64.
    pub(crate) fn floats(&self) -> Result<std::borrow::Cow<'_, [f32]>> {
        match self.data() {
            Data::F32(v) => Ok(v.into()),
            Data::F64(v) => Ok(v.iter().map(|&x| x as f32).collect::<Vec<_>>().into()),
            _ => Err(Error::malformed(format!(
                "a tensor of {} stands where floats are wanted",
                self.elem.name()
            ))),
        }
    }

    /// The elements of an integer type as i64.
    pub(crate) fn integers(&self) -> Result<Vec<i64>> {
        Ok(match self.data() {
            Data::I64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U64(v) => v.iter().map(|&x| i64::try_from(x).unwrap_or(i64::MAX)).collect(),
            _ => {
                let what = format!("a tensor of {} stands where integers are wanted", self.elem.name());
                return Err(Error::malformed(what));
            }
        })
    }

    /// The one integer in it.
    pub(crate) fn integer(&self) -> Result<i64> {
        match self.integers()?[..] {
            [one] => Ok(one),
            ref many => Err(Error::malformed(format!("{} integers stand where one is wanted", many.len()))),
        }
    }

    /// The one number in it, as f64.
    pub(crate) fn number(&self) -> Result<f64> {
        each!(self.data(), v => match v[..] {
            [one] => Ok(Held::to_f64(one)),
            _ => Err(Error::malformed(format!("{} numbers stand where one is wanted", v.len()))),
        })
    }

    /// The one truth value in it.
    pub(crate) fn truth(&self) -> Result<bool> {
        match self.values::<bool>()? {
            [one] => Ok(*one),
            many => Err(Error::malformed(format!("{} booleans stand where one is wanted", many.len()))),
        }
    }

    /// From an array of the caller's, or an initializer.
    pub(crate) fn from_array(cx: &Cx, array: &Array) -> Result<Self> {
        array.elements()?;
        let elem = Elem::from_dtype(array.dtype)?;
        let shape = array
            .shape
            .iter()
            .map(|&d| usize::try_from(d).map_err(|_| Error::limit(format!("a size of {d}"))));
        let shape: Vec<usize> = shape.collect::<Result<_>>()?;
        cx.room(array.bytes.len(), 2)?;
        let data = match array.dtype {
            DType::F32 => Data::F32(array.to_vec()?),
            DType::F64 => Data::F64(array.to_vec()?),
            DType::I8 => Data::I8(array.to_vec()?),
            DType::I16 => Data::I16(array.to_vec()?),
            DType::I32 => Data::I32(array.to_vec()?),
            DType::I64 => Data::I64(array.to_vec()?),
            DType::U8 => Data::U8(array.to_vec()?),
            DType::U16 => Data::U16(array.to_vec()?),
            DType::U32 => Data::U32(array.to_vec()?),
            DType::U64 => Data::U64(array.to_vec()?),
            DType::Bool => Data::Bool(array.bytes.iter().map(|&b| b != 0).collect()),
            DType::F16 => Data::F32(array.to_vec::<half::f16>()?.into_iter().map(f32::from).collect()),
            DType::Bf16 => Data::F32(array.to_vec::<half::bf16>()?.into_iter().map(f32::from).collect()),
            DType::U4 | DType::I4 => {
                let n = count(&shape)?;
                let bits = array.bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(n);
                match array.dtype {
                    DType::U4 => Data::U8(bits.collect()),
                    _ => Data::I8(bits.map(|b| ((b << 4) as i8) >> 4).collect()),
                }
            }
            narrow => Data::F32(array.bytes.iter().map(|&b| decode(narrow, b)).collect()),
        };
        Self::exact(cx, elem, shape, data)
    }

    /// To an array for the caller.
    pub(crate) fn to_array(&self) -> Result<Array> {
        let Some(dtype) = self.elem.dtype() else {
            return Err(Error::unsupported(format!("an output of {}", self.elem.name())));
        };
        let shape: Vec<u64> = self.shape.iter().map(|&d| d as u64).collect();
        match (self.data(), dtype) {
            (Data::F32(v), DType::F16) => {
                Array::of(shape, &v.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>())
            }
            (Data::F32(v), DType::Bf16) => {
                Array::of(shape, &v.iter().map(|&x| half::bf16::from_f32(x)).collect::<Vec<_>>())
            }
            (Data::F32(v), DType::F32) => Array::of(shape, v),
            (Data::F32(v), narrow) => {
                // Each value is exact in its type, so that it is one of the 256 codes.
                let codes: Vec<(u8, f32)> = (0..=255).map(|code| (code, decode(narrow, code))).collect();
                let code_of = |x: f32| {
                    let same = |c: &&(u8, f32)| c.1.to_bits() == x.to_bits() || (c.1.is_nan() && x.is_nan());
                    let near = |c: &&(u8, f32)| c.1 == x;
                    codes.iter().find(same).or_else(|| codes.iter().find(near)).map_or(0, |c| c.0)
                };
                Array::new(dtype, shape, v.iter().map(|&x| code_of(x)).collect())
            }
            (Data::F64(v), _) => Array::of(shape, v),
            (Data::U8(v), DType::U4) => Array::new(dtype, shape, halves(v.iter().copied())),
            (Data::I8(v), DType::I4) => Array::new(dtype, shape, halves(v.iter().map(|&x| x as u8))),
            (Data::I8(v), _) => Array::of(shape, v),
            (Data::I16(v), _) => Array::of(shape, v),
            (Data::I32(v), _) => Array::of(shape, v),
            (Data::I64(v), _) => Array::of(shape, v),
            (Data::U8(v), _) => Array::of(shape, v),
            (Data::U16(v), _) => Array::of(shape, v),
            (Data::U32(v), _) => Array::of(shape, v),
            (Data::U64(v), _) => Array::of(shape, v),
            (Data::Bool(v), _) => Array::new(DType::Bool, shape, v.iter().map(|&b| u8::from(b)).collect()),
        }
    }
}

/// Numbers of 4 bits, two to a byte, the first in the low bits.
fn halves(numbers: impl Iterator<Item = u8>) -> Vec<u8> {
    let all: Vec<u8> = numbers.collect();
    all.chunks(2).map(|pair| pair[0] & 15 | pair.get(1).map_or(0, |b| b << 4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn cx(bytes: u64) -> Cx {
        Cx { budget: Arc::new(Budget::new(bytes, 1000, 1 << 40)), threads: 1 }
    }

    #[test]
    fn memory_is_counted_while_it_lives() {
        let cx = cx(100);
        let a = Tensor::of(&cx, vec![10], vec![0.0f32; 10]).unwrap();
        let b = a.reshaped(vec![5, 2]).unwrap();
        assert!(cx.filled(16, 0.0f32).is_err());
        assert!(cx.filled(15, 0.0f32).is_ok());
        drop(a);
        assert!(cx.filled(16, 0.0f32).is_err(), "the reshaped value shares the elements");
        drop(b);
        assert!(cx.filled(25, 0.0f32).is_ok());
        assert_eq!(cx.budget.peak(), 40);
    }

    #[test]
    fn eight_bit_floats_have_the_values_that_rounding_keeps() {
        for dtype in [DType::F8E4M3, DType::F8E4M3Fnuz, DType::F8E5M2, DType::F8E5M2Fnuz] {
            let elem = Elem::from_dtype(dtype).unwrap();
            for code in 0..=255 {
                let x = decode(dtype, code);
                let again = elem.round(x, false);
                assert!(again == x || again.is_nan() && x.is_nan(), "{dtype} {code}: {x} {again}");
            }
        }
        assert_eq!((decode(DType::F8E4M3, 0x7e), decode(DType::F8E5M2, 0x7b)), (448.0, 57344.0));
        assert_eq!((decode(DType::F8E4M3Fnuz, 0x7f), decode(DType::F8E5M2Fnuz, 0x7f)), (240.0, 57344.0));
    }

    #[test]
    fn shapes_beyond_memory_are_refused() {
        assert!(count(&[usize::MAX, 2]).is_err());
        assert!(count(&[0, usize::MAX, 2]).is_err());
        assert_eq!(count(&[3, 0, 2]).unwrap(), 0);
        let cx = cx(1000);
        assert!(Tensor::of(&cx, vec![3], vec![1i64, 2]).is_err());
        assert!(Tensor::exact(&cx, Elem::I4, vec![1], Data::U8(vec![1])).is_err());
    }
}
