//! What NumPy's arrays, dtypes and scalars look like in a pickle, with nothing imported.
//!
//! - `numpy._core.multiarray._reconstruct(numpy.ndarray, (0,), b'b')` and a state `(1, shape, dtype, fortran,
//!   bytes)`: an array, up to protocol 4; `numpy.core` before NumPy 2.
//! - `numpy._core.numeric._frombuffer(bytes, dtype, shape, order[, axes])`: a contiguous array in protocol 5.
//! - `numpy._core.multiarray.scalar(dtype, bytes)`: a scalar.
//! - `numpy.dtype('f4', False, True)` and a state `(3, '<', None, None, None, -1, -1, 0)`: a dtype.
//!
//! Source of the facts: pickles that NumPy 2.4 wrote, and `_frombuffer` in its `numeric.py`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Shape, contiguous_strides, element_count};
use crate::value::{Construct, Object, Value, ValueId, Values};

/// Where an array's bytes are.
#[derive(Clone)]
pub(super) enum Buffer {
    /// At this place of the file.
    File(Range<usize>),
    /// In memory: what stood otherwise in the file.
    Memory(Arc<[u8]>),
}

/// An array of a pickle.
pub(super) struct Array {
    pub(super) dtype: DType,
    pub(super) shape: Shape,
    /// In elements; `None` in row-major order.
    pub(super) strides: Option<Shape>,
    /// Whether it is big-endian.
    pub(super) swap: bool,
    pub(super) buffer: Buffer,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// The arrays, by the numbers that stand in their places now.
    pub(super) arrays: Vec<Array>,
    /// How many scalars became plain numbers.
    pub(super) scalars: u64,
    /// How many arrays hold what no tensor holds, and stay objects.
    pub(super) foreign: u64,
}

/// Replaces NumPy's arrays by [`Value::Tensor`]s that count them, and its scalars by plain numbers. `spans` are
/// the bytes that were left in the file.
pub(super) fn explain(values: &mut Values, spans: &HashMap<ValueId, Range<usize>>) -> Result<Found> {
    let mut found = Found::default();
    let mut buffers = Buffers { spans, copies: HashMap::new() };
    for id in values.ids() {
        let Value::Object(object) = values.get(id) else { continue };
        if object.construct != Construct::Call || !object.items.is_empty() || !object.entries.is_empty() {
            continue;
        }
        let Some(class) = values.global(object.class) else { continue };
        let new = match (&*class.module, &*class.name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                array(values, object, &mut buffers)
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => {
                from_buffer(values, object, &mut buffers)
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => {
                if let Some(plain) = scalar(values, object) {
                    *values.get_mut(id) = plain;
                    found.scalars += 1;
                }
                continue;
            }
            _ => continue,
        };
        match new? {
            Some(array) => {
                let index = u32::try_from(found.arrays.len())
                    .map_err(|_| Error::limit("more than 4,294,967,295 arrays in one file"))?;
                found.arrays.push(array);
                *values.get_mut(id) = Value::Tensor(index);
            }
            None => found.foreign += 1,
        }
    }
    // What arrays alone held is theirs now.
    if let Some(root) = values.root() {
        let reachable = values.reachable(root);
        for id in buffers.copies.into_keys().filter(|id| !reachable[id.index()]) {
            *values.get_mut(id) = Value::None;
        }
    }
    Ok(found)
}

/// The bytes of arrays, each copied once however many arrays have it.
struct Buffers<'a> {
    spans: &'a HashMap<ValueId, Range<usize>>,
    copies: HashMap<ValueId, Arc<[u8]>>,
}

impl Buffers<'_> {
    fn of(&mut self, values: &Values, id: ValueId) -> Option<(Buffer, u64)> {
        if let Some(span) = self.spans.get(&id) {
            return Some((Buffer::File(span.clone()), span.len() as u64));
        }
        let bytes = raw(values, id)?;
        let copy = self.copies.entry(id).or_insert_with(|| bytes.into());
        Some((Buffer::Memory(copy.clone()), bytes.len() as u64))
    }
}

/// Bytes, as any Python wrote them: a Python 2 `str` that is UTF-8 was taken for text.
fn raw(values: &Values, id: ValueId) -> Option<&[u8]> {
    match values.get(id) {
        Value::Bytes(bytes) | Value::ByteArray(bytes) => Some(bytes),
        Value::Str(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn array(values: &Values, object: &Object, buffers: &mut Buffers<'_>) -> Result<Option<Array>> {
    // Subclasses (matrix, recarray, masked arrays) mean more than their elements, and stay objects.
    let plain = match values.sequence(object.args) {
        Some(&[class, ..]) => values.global(class).is_some_and(|g| g.is("numpy", "ndarray")),
        _ => false,
    };
    let state = object.state.and_then(|s| values.sequence(s)).unwrap_or_default();
    let (&[_, shape, dtype, fortran, data], true) = (state, plain) else { return Ok(None) };
    let (Some((dtype, swap)), Value::Bool(fortran)) = (dtype_of(values, dtype), values.get(fortran)) else {
        return Ok(None);
    };
    let Some((buffer, length)) = buffers.of(values, data) else { return Ok(None) };
    let shape = shape_of(values, shape)?;
    check(dtype, &shape, length)?;
    let strides = if *fortran { fortran_strides(&shape) } else { None };
    Ok(Some(Array { dtype, shape, strides, swap, buffer }))
}

fn from_buffer(values: &Values, object: &Object, buffers: &mut Buffers<'_>) -> Result<Option<Array>> {
    let args = values.sequence(object.args).unwrap_or_default();
    let (&[data, dtype, shape, order, ..], None) = (args, object.state) else { return Ok(None) };
    let Some((dtype, swap)) = dtype_of(values, dtype) else { return Ok(None) };
    let Some((buffer, length)) = buffers.of(values, data) else { return Ok(None) };
    let mut shape = shape_of(values, shape)?;
    check(dtype, &shape, length)?;
    let strides = match (values.str(order), args.get(4).filter(|a| values.get(**a) != &Value::None)) {
        (Some("C"), None) => None,
        (Some("F"), None) => fortran_strides(&shape),
        // The bytes have the axes in this order: `reshape(shape).transpose(axes)`.
        (Some("K"), Some(axes)) => {
            let Some(axes) = permutation(values, *axes, shape.len()) else {
                return Err(Error::malformed("an array's axes are no permutation"));
            };
            let strides = contiguous_strides(&shape);
            let given = shape.clone();
            shape = axes.iter().map(|&a| given[a]).collect();
            Some(axes.iter().map(|&a| strides[a]).collect())
        }
        _ => return Ok(None),
    };
    Ok(Some(Array { dtype, shape, strides, swap, buffer }))
}

/// The axes of a transposition, each below `rank` and there once.
fn permutation(values: &Values, axes: ValueId, rank: usize) -> Option<Vec<usize>> {
    let axes: Vec<usize> = values
        .sequence(axes)?
        .iter()
        .map(|a| values.int(*a).and_then(|a| usize::try_from(a).ok()))
        .collect::<Option<_>>()?;
    let mut seen = vec![false; rank];
    let once = axes.iter().all(|&a| seen.get_mut(a).is_some_and(|s| !std::mem::replace(s, true)));
    (once && axes.len() == rank).then_some(axes)
}

fn shape_of(values: &Values, id: ValueId) -> Result<Shape> {
    let dims = values.sequence(id).map(|dims| {
        dims.iter().map(|d| values.int(*d).and_then(|d| u64::try_from(d).ok())).collect::<Option<Shape>>()
    });
    dims.flatten().ok_or_else(|| Error::malformed("an array's shape is no tuple of sizes"))
}

fn check(dtype: DType, shape: &[u64], length: u64) -> Result<()> {
    let wanted = element_count(shape).and_then(|n| dtype.bytes(n));
    if wanted == Some(length) {
        return Ok(());
    }
    let what = format!("an array of shape {shape:?} and dtype {dtype} has {length} bytes");
    Err(Error::malformed(what))
}

/// Column-major strides, where they differ from row-major ones.
fn fortran_strides(shape: &[u64]) -> Option<Shape> {
    if shape.iter().filter(|d| **d > 1).count() < 2 {
        return None;
    }
    let mut next = 1u64;
    Some(
        shape
            .iter()
            .map(|&d| {
                let stride = next;
                next = next.saturating_mul(d.max(1));
                stride
            })
            .collect(),
    )
}

/// A dtype, and whether it is big-endian. `None` for what no tensor holds: strings, dates, records, objects.
fn dtype_of(values: &Values, id: ValueId) -> Option<(DType, bool)> {
    let Value::Object(object) = values.get(id) else { return None };
    if object.construct != Construct::Call || !values.global(object.class)?.is("numpy", "dtype") {
        return None;
    }
    let &[code, ..] = values.sequence(object.args)? else { return None };
    let dtype = dtype_of_code(values.str(code)?)?;
    // (version, byte order, subarray, names, fields, …)
    let &[_, order, subarray, names, fields, ..] = values.sequence(object.state?)? else { return None };
    if [subarray, names, fields].iter().any(|v| values.get(*v) != &Value::None) {
        return None;
    }
    match values.str(order)? {
        "<" | "|" | "=" => Some((dtype, false)),
        ">" => Some((dtype, true)),
        _ => None,
    }
}

/// The dtypes that NumPy has, and what it calls them.
const CODES: [(&str, DType); 14] = [
    ("b1", DType::Bool),
    ("u1", DType::U8),
    ("i1", DType::I8),
    ("u2", DType::U16),
    ("i2", DType::I16),
    ("u4", DType::U32),
    ("i4", DType::I32),
    ("u8", DType::U64),
    ("i8", DType::I64),
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

fn dtype_of_code(code: &str) -> Option<DType> {
    CODES.iter().find(|(c, _)| *c == code).map(|(_, dtype)| *dtype)
}

/// What NumPy calls a dtype, if it has it.
pub(super) fn code_of(dtype: DType) -> Option<&'static str> {
    CODES.iter().find(|(_, d)| *d == dtype).map(|(code, _)| *code)
}

/// A scalar as the plain number that it is.
fn scalar(values: &Values, object: &Object) -> Option<Value> {
    let &[dtype, bytes] = values.sequence(object.args)? else { return None };
    let (dtype, swap) = dtype_of(values, dtype)?;
    let mut bytes = raw(values, bytes)?.to_vec();
    if dtype.size() != Some(bytes.len() as u64) {
        return None;
    }
    if swap {
        bytes.chunks_mut(dtype.swap_unit() as usize).for_each(<[u8]>::reverse);
    }
    number(dtype, &bytes)
}

fn number(dtype: DType, bytes: &[u8]) -> Option<Value> {
    macro_rules! of {
        ($t:ty) => {
            <$t>::from_le_bytes(bytes.try_into().ok()?)
        };
    }
    macro_rules! half {
        ($t:ty, $half:expr) => {{
            let (re, im) = bytes.split_at_checked($half)?;
            let of = |b: &[u8]| Some(f64::from(<$t>::from_le_bytes(b.try_into().ok()?)));
            Value::Complex(of(re)?, of(im)?)
        }};
    }
    Some(match dtype {
        DType::Bool => Value::Bool(of!(u8) != 0),
        DType::U8 => Value::Int(of!(u8).into()),
        DType::I8 => Value::Int(of!(i8).into()),
        DType::U16 => Value::Int(of!(u16).into()),
        DType::I16 => Value::Int(of!(i16).into()),
        DType::U32 => Value::Int(of!(u32).into()),
        DType::I32 => Value::Int(of!(i32).into()),
        DType::I64 => Value::Int(of!(i64)),
        DType::U64 => match i64::try_from(of!(u64)) {
            Ok(n) => Value::Int(n),
            Err(_) => Value::BigInt([bytes, &[0]].concat().into()),
        },
        DType::F16 => Value::Float(half::f16::from_bits(of!(u16)).to_f64()),
        DType::F32 => Value::Float(of!(f32).into()),
        DType::F64 => Value::Float(of!(f64)),
        DType::C64 => half!(f32, 4),
        DType::C128 => half!(f64, 8),
        _ => return None,
    })
}
