//! Values that describe objects of a library's classes, for [`plan_objects`](super::plan_objects) to write.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::value::{Construct, Global, Object, Value, ValueId, Values};

/// The globals that [`numpy_dtype`] and [`numpy_scalar`] name.
pub const NUMPY_GLOBALS: [(&str, &str); 2] = [("numpy", "dtype"), ("numpy.core.multiarray", "scalar")];

/// An object as Python's pickler describes one of a plain class: `cls.__new__(cls)`, and a state (its `__dict__`)
/// where one is given.
///
/// # Errors
/// `LimitExceeded` past 2³² - 1 values.
pub fn new_object(values: &mut Values, class: Global, state: Option<ValueId>) -> Result<ValueId> {
    let args = values.push(Value::Tuple(Vec::new()))?;
    object(values, Construct::New, class, args, state)
}

/// A dtype as NumPy pickles it, little-endian.
///
/// # Errors
/// `Unsupported` for a dtype that NumPy lacks, `LimitExceeded` past 2³² - 1 values.
pub fn numpy_dtype(values: &mut Values, dtype: DType) -> Result<ValueId> {
    let code = dtype.numpy_code().ok_or_else(|| Error::unsupported(format!("NumPy has no dtype {dtype}")))?;
    let args = tuple(values, [Value::Str(code.into()), Value::Bool(false), Value::Bool(true)])?;
    let order = if dtype.size() == Some(1) { "|" } else { "<" };
    // (version, byte order, subarray, names, fields, item size, alignment, flags)
    let state = [
        Value::Int(3),
        Value::Str(order.into()),
        Value::None,
        Value::None,
        Value::None,
        Value::Int(-1),
        Value::Int(-1),
        Value::Int(0),
    ];
    let state = tuple(values, state)?;
    object(values, Construct::Call, global(NUMPY_GLOBALS[0]), args, Some(state))
}

/// A NumPy scalar of these bytes, little-endian.
///
/// # Errors
/// As [`numpy_dtype`]; `Mismatch` if the bytes are not one element of the dtype.
pub fn numpy_scalar(values: &mut Values, dtype: DType, bytes: &[u8]) -> Result<ValueId> {
    if dtype.size() != Some(bytes.len() as u64) {
        return Err(Error::mismatch(format!("{} bytes are given for one {dtype}", bytes.len())));
    }
    let dtype = numpy_dtype(values, dtype)?;
    let bytes = values.push(Value::Bytes(bytes.into()))?;
    let args = values.push(Value::Tuple(vec![dtype, bytes]))?;
    object(values, Construct::Call, global(NUMPY_GLOBALS[1]), args, None)
}

fn global((module, name): (&str, &str)) -> Global {
    Global::new(module, name)
}

fn tuple<const N: usize>(values: &mut Values, items: [Value; N]) -> Result<ValueId> {
    let ids = items.into_iter().map(|item| values.push(item)).collect::<Result<_>>()?;
    values.push(Value::Tuple(ids))
}

fn object(
    values: &mut Values,
    construct: Construct,
    class: Global,
    args: ValueId,
    state: Option<ValueId>,
) -> Result<ValueId> {
    let class = values.push(Value::Global(Box::new(class)))?;
    values.push(Value::Object(Box::new(Object {
        construct,
        class,
        args,
        kwargs: None,
        state,
        items: Vec::new(),
        entries: Vec::new(),
    })))
}
