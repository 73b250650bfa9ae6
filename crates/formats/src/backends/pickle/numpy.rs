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

use super::dtypes::{Described, Element, Field, MAX_DIMS, describe, number_of};
use crate::account::Account;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::pickle::Spans;
use crate::tensor::{Shape, contiguous_strides, element_count};
use crate::value::{Construct, Object, Value, ValueId, Values};

/// Where an array's bytes are.
#[derive(Clone)]
pub(in crate::backends) enum Buffer {
    /// At this place of the file.
    File(Range<u64>),
    /// In memory: what stood otherwise in the file.
    Memory(Arc<[u8]>),
}

/// How the elements of an array lie in its buffer.
pub(in crate::backends) enum Layout {
    /// One after another, the last dimension first.
    Rows,
    /// At distances in elements.
    Strides(Shape),
    /// At distances in bytes, from a byte on: a field of records.
    Bytes { strides: Shape, offset: u64 },
}

/// An array of a pickle.
pub(in crate::backends) struct Array {
    pub(in crate::backends) dtype: DType,
    pub(in crate::backends) shape: Shape,
    pub(in crate::backends) layout: Layout,
    /// Whether it is big-endian.
    pub(in crate::backends) swap: bool,
    pub(in crate::backends) buffer: Buffer,
}

/// What was found.
#[derive(Default)]
pub(in crate::backends) struct Found {
    /// The arrays, by the numbers that stand in their places now.
    pub(in crate::backends) arrays: Vec<Array>,
    /// How many scalars became plain numbers.
    pub(in crate::backends) scalars: u64,
    /// How many arrays hold what no tensor holds, and stay objects.
    pub(in crate::backends) foreign: u64,
    /// How many arrays of records have tensors for their fields.
    pub(in crate::backends) records: u64,
    /// How many matrices, masked arrays and the like have tensors for their elements.
    pub(in crate::backends) subclasses: u64,
    /// How many fields of records are no tensors.
    pub(in crate::backends) fields_left: u64,
    /// Dtypes of records that were met.
    described: HashMap<ValueId, Option<Described>>,
    /// How many tensors fields have become.
    fields: usize,
    /// The memory of shapes, strides and dtypes that lie outside of the list of arrays.
    parts: u64,
}

/// How many tensors the fields of all records may become, beside one for each value of the file.
const FREE_FIELDS: usize = 1 << 16;

impl Found {
    /// What a dtype is. Arrays of one file share their dtypes, and a record's is looked through once.
    pub(in crate::backends) fn describe(&mut self, values: &Values, dtype: ValueId) -> Option<Described> {
        if let Some(known) = self.described.get(&dtype) {
            return known.clone();
        }
        let described = describe(values, dtype);
        let fields = match described.as_ref().map(|d| &d.element) {
            Some(Element::Record(fields, _)) => fields.len(),
            _ => 0,
        };
        self.parts += 64 + (fields * size_of::<Field>()) as u64;
        self.described.insert(dtype, described.clone());
        described
    }

    /// What it takes in memory, in bytes.
    pub(in crate::backends) fn memory(&self) -> u64 {
        self.parts + (self.arrays.len() * size_of::<Array>()) as u64
    }

    /// Counts an array.
    ///
    /// # Errors
    /// `LimitExceeded` past 2³² - 1 arrays.
    pub(in crate::backends) fn push(&mut self, array: Array) -> Result<Value> {
        let index = u32::try_from(self.arrays.len())
            .map_err(|_| Error::limit("more than 4,294,967,295 arrays in one file"))?;
        let dims = if array.shape.spilled() { 2 * array.shape.len() } else { 0 };
        self.parts += dims as u64 * 8;
        self.arrays.push(array);
        Ok(Value::Tensor(index))
    }

    /// Makes each field of an array of records a tensor: the entries that an object gets. A field that no tensor
    /// holds is counted.
    ///
    /// # Errors
    /// `LimitExceeded` if records that are used again and again would make too many tensors.
    pub(in crate::backends) fn record(
        &mut self,
        values: &mut Values,
        (fields, others): (&[Field], usize),
        (shape, fortran, size): (&Shape, bool, u64),
        buffer: &Buffer,
    ) -> Result<Vec<(ValueId, ValueId)>> {
        // Each field is a value too, which must not count as one that the file has.
        let given = values.len().saturating_sub(self.fields);
        self.fields += fields.len();
        if self.fields > FREE_FIELDS + given {
            return Err(Error::limit("the fields of the file's records make too many tensors"));
        }
        let outer = if fortran { column_strides(shape) } else { contiguous_strides(shape) };
        let mut entries = Vec::with_capacity(fields.len());
        for field in fields {
            let own = field.dtype.size().unwrap_or(1);
            let inner = contiguous_strides(&field.shape).into_iter().map(|s| s.saturating_mul(own));
            let array = Array {
                dtype: field.dtype,
                shape: shape.iter().chain(&field.shape).copied().collect(),
                layout: Layout::Bytes {
                    strides: outer.iter().map(|s| s.saturating_mul(size)).chain(inner).collect(),
                    offset: field.offset,
                },
                swap: field.swap,
                buffer: buffer.clone(),
            };
            let tensor = self.push(array)?;
            entries.push((field.name, values.push(tensor)?));
        }
        self.records += 1;
        self.fields_left += others as u64;
        Ok(entries)
    }
}

/// Replaces NumPy's arrays by [`Value::Tensor`]s that count them, and its scalars by plain numbers. `spans` are
/// the bytes that were left in the file.
pub(in crate::backends) fn explain(
    values: &mut Values,
    spans: &Spans,
    found: &mut Found,
    account: &mut Account,
) -> Result<()> {
    explain_each(values, spans, found, account, &mut |_, error| Err(error))
}

/// As [`explain`], with what to do about an array that cannot be: it stays an object where that is no error.
pub(in crate::backends) fn explain_each(
    values: &mut Values,
    spans: &Spans,
    found: &mut Found,
    account: &mut Account,
    fault: &mut dyn FnMut(ValueId, Error) -> Result<()>,
) -> Result<()> {
    let mut buffers = Buffers { spans, copies: HashMap::new(), copied: 0 };
    let mut met = 0;
    for id in values.ids() {
        // Of arrays there are none, or thousands: what they came to is charged one array late.
        let taken = buffers.copied + found.memory();
        account.charge(taken.saturating_sub(met))?;
        met = taken.max(met);
        if let Err(error) = explain_one(values, id, &mut buffers, found) {
            fault(id, error)?;
        }
    }
    // What arrays alone held is theirs now.
    if let Some(root) = values.root() {
        let reachable = values.reachable(root);
        for id in buffers.copies.into_keys().filter(|id| !reachable[id.index()]) {
            *values.get_mut(id) = Value::None;
        }
    }
    Ok(())
}

fn explain_one(values: &mut Values, id: ValueId, buffers: &mut Buffers<'_>, found: &mut Found) -> Result<()> {
    let Value::Object(object) = values.get(id) else { return Ok(()) };
    if object.construct != Construct::Call || !object.items.is_empty() || !object.entries.is_empty() {
        return Ok(());
    }
    let Some(class) = values.global(object.class) else { return Ok(()) };
    let new = match (&*class.module, &*class.name) {
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
            match array(values, object, buffers)? {
                None if rescue(values, id, buffers, found)? => return Ok(()),
                array => array,
            }
        }
        ("numpy.ma" | "numpy.ma.core", "_mareconstruct") => {
            if !rescue(values, id, buffers, found)? {
                found.foreign += 1;
            }
            return Ok(());
        }
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => {
            from_buffer(values, object, buffers)?
        }
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => {
            if let Some(plain) = scalar(values, object) {
                *values.get_mut(id) = plain;
                found.scalars += 1;
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    match new {
        Some(array) => *values.get_mut(id) = found.push(array)?,
        None => found.foreign += 1,
    }
    Ok(())
}

/// The bytes of arrays, each copied once however many arrays have it.
struct Buffers<'a> {
    spans: &'a Spans,
    copies: HashMap<ValueId, Arc<[u8]>>,
    /// The memory of the copies, in bytes.
    copied: u64,
}

impl Buffers<'_> {
    fn of(&mut self, values: &Values, id: ValueId) -> Option<(Buffer, u64)> {
        if let Some(span) = self.spans.get(&id) {
            return Some((Buffer::File(span.clone()), span.end.saturating_sub(span.start)));
        }
        let bytes = raw(values, id)?;
        let copied = &mut self.copied;
        let copy = self.copies.entry(id).or_insert_with(|| {
            *copied += bytes.len() as u64 + 96;
            bytes.into()
        });
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
    let Some([shape, dtype, fortran, data]) = plain_state(values, object) else { return Ok(None) };
    let (Some((dtype, swap)), Value::Bool(fortran)) = (number_of(values, dtype), values.get(fortran)) else {
        return Ok(None);
    };
    let Some((buffer, length)) = buffers.of(values, data) else { return Ok(None) };
    let shape = shape_of(values, shape)?;
    check(dtype, &shape, length)?;
    let layout = if *fortran { columns(&shape) } else { Layout::Rows };
    Ok(Some(Array { dtype, shape, layout, swap, buffer }))
}

/// Shape, dtype, order and bytes of a plain array. Subclasses (matrix, recarray, masked arrays) mean more than their
/// elements, and stay objects.
fn plain_state(values: &Values, object: &Object) -> Option<[ValueId; 4]> {
    let &[class, ..] = values.sequence(object.args)? else { return None };
    match (values.global(class)?.is("numpy", "ndarray"), values.sequence(object.state?)?) {
        (true, &[_, shape, dtype, fortran, data]) => Some([shape, dtype, fortran, data]),
        _ => None,
    }
}

/// Gives the object of an array that is more than a tensor (records, a subclass) what tensors can hold of it, as
/// entries: the fields of records, or `data`, and the `mask` of a masked array. Whether anything was. Bytes that are
/// wholly in tensors go out of the object's state.
fn rescue(values: &mut Values, id: ValueId, buffers: &mut Buffers<'_>, found: &mut Found) -> Result<bool> {
    let Value::Object(object) = values.get(id) else { return Ok(false) };
    let masked = values.global(object.class).is_some_and(|g| &*g.name == "_mareconstruct");
    let mut state = match object.state.and_then(|s| values.sequence(s)) {
        Some(state) if (5..=7).contains(&state.len()) => state.to_vec(),
        _ => return Ok(false),
    };
    let &[_, shape, dtype, fortran, data, ..] = &state[..] else { return Ok(false) };
    let (Some(described), Value::Bool(fortran)) = (found.describe(values, dtype), values.get(fortran)) else {
        return Ok(false);
    };
    let fortran = *fortran;
    let Some((buffer, length)) = buffers.of(values, data) else { return Ok(false) };
    let shape = shape_of(values, shape)?;
    let mut taken = Vec::new();
    let entries = match described.element {
        Element::Number(dtype, swap) => {
            check(dtype, &shape, length)?;
            taken.push(4);
            let layout = if fortran { columns(&shape) } else { Layout::Rows };
            let mut arrays = vec![("data", Array { dtype, shape: shape.clone(), layout, swap, buffer })];
            let mask = state.get(5).filter(|_| masked).and_then(|mask| buffers.of(values, *mask));
            if let Some((buffer, length)) = mask {
                check(DType::Bool, &shape, length)?;
                taken.push(5);
                let layout = if fortran { columns(&shape) } else { Layout::Rows };
                arrays.push(("mask", Array { dtype: DType::Bool, shape, layout, swap: false, buffer }));
            }
            let mut entries = Vec::new();
            for (name, array) in arrays {
                let tensor = found.push(array)?;
                entries.push((values.push(Value::Str(name.into()))?, values.push(tensor)?));
            }
            found.subclasses += 1;
            entries
        }
        Element::Record(fields, others) => {
            check_size(described.size, &shape, length)?;
            if others == 0 {
                taken.push(4);
            }
            found.record(values, (&fields, others), (&shape, fortran, described.size), &buffer)?
        }
        Element::Other => return Ok(false),
    };
    for at in taken {
        state[at] = values.push(Value::None)?;
    }
    let state = values.push(Value::Tuple(state))?;
    if let Value::Object(object) = values.get_mut(id) {
        object.entries = entries;
        object.state = Some(state);
    }
    Ok(true)
}

fn from_buffer(values: &Values, object: &Object, buffers: &mut Buffers<'_>) -> Result<Option<Array>> {
    let args = values.sequence(object.args).unwrap_or_default();
    let (&[data, dtype, shape, order, ..], None) = (args, object.state) else { return Ok(None) };
    let Some((dtype, swap)) = number_of(values, dtype) else { return Ok(None) };
    let Some((buffer, length)) = buffers.of(values, data) else { return Ok(None) };
    let mut shape = shape_of(values, shape)?;
    check(dtype, &shape, length)?;
    let layout = match (values.str(order), args.get(4).filter(|a| values.get(**a) != &Value::None)) {
        (Some("C"), None) => Layout::Rows,
        (Some("F"), None) => columns(&shape),
        // The bytes have the axes in this order: `reshape(shape).transpose(axes)`.
        (Some("K"), Some(axes)) => {
            let Some(axes) = permutation(values, *axes, shape.len()) else {
                return Err(Error::malformed("an array's axes are no permutation"));
            };
            let strides = contiguous_strides(&shape);
            let given = shape.clone();
            shape = axes.iter().map(|&a| given[a]).collect();
            Layout::Strides(axes.iter().map(|&a| strides[a]).collect())
        }
        _ => return Ok(None),
    };
    Ok(Some(Array { dtype, shape, layout, swap, buffer }))
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

pub(in crate::backends) fn shape_of(values: &Values, id: ValueId) -> Result<Shape> {
    if values.sequence(id).is_some_and(|dims| dims.len() > MAX_DIMS) {
        return Err(Error::malformed(format!("an array has more than {MAX_DIMS} dimensions")));
    }
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

/// Checks bytes against so many elements of a size.
fn check_size(size: u64, shape: &[u64], length: u64) -> Result<()> {
    if element_count(shape).and_then(|n| n.checked_mul(size)) == Some(length) {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "an array of shape {shape:?} and elements of {size} bytes has {length} bytes"
    )))
}

/// Column-major order, where it differs from row-major order.
pub(in crate::backends) fn columns(shape: &[u64]) -> Layout {
    match shape.iter().filter(|d| **d > 1).count() {
        0 | 1 => Layout::Rows,
        _ => Layout::Strides(column_strides(shape)),
    }
}

fn column_strides(shape: &[u64]) -> Shape {
    let mut next = 1u64;
    let strides = shape.iter().map(|&d| {
        let stride = next;
        next = next.saturating_mul(d.max(1));
        stride
    });
    strides.collect()
}

/// A scalar as the plain number that it is.
fn scalar(values: &Values, object: &Object) -> Option<Value> {
    let &[dtype, bytes] = values.sequence(object.args)? else { return None };
    let (dtype, swap) = number_of(values, dtype)?;
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
