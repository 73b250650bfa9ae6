//! NumPy's dtypes as a pickle describes them: what an element is, how many bytes it takes, whether it is an object.
//!
//! `numpy.dtype('f4', False, True)` with the state `(3, '<', None, None, None, -1, -1, 0)`, or for a record
//! `numpy.dtype('V12', False, True)` with `(3, '|', None, names, {name: (dtype, offset)}, 12, 1, 16)`, or for an
//! element that is itself an array a base dtype and a shape in the place of the subarray.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dtype::DType;
use crate::tensor::Shape;
use crate::value::{Construct, Value, ValueId, Values};

/// A dtype.
#[derive(Clone, Debug)]
pub(in crate::backends) struct Described {
    /// The bytes of an element.
    pub(in crate::backends) size: u64,
    /// Whether its elements are references to Python objects, or have such in them.
    pub(in crate::backends) objects: bool,
    /// What an element is.
    pub(in crate::backends) element: Element,
}

/// What an element is.
#[derive(Clone, Debug)]
pub(in crate::backends) enum Element {
    /// A number that a tensor holds, and whether it is big-endian.
    Number(DType, bool),
    /// A record: the fields that tensors hold, and how many others there are.
    Record(Arc<[Field]>, usize),
    /// A string, a date, anything else.
    Other,
}

/// A field of a record.
#[derive(Clone, Debug)]
pub(in crate::backends) struct Field {
    pub(in crate::backends) name: ValueId,
    /// Where in the record it stands, in bytes.
    pub(in crate::backends) offset: u64,
    pub(in crate::backends) dtype: DType,
    pub(in crate::backends) swap: bool,
    /// The shape of one element's part; empty for a plain number.
    pub(in crate::backends) shape: Shape,
}

/// The most fields of a record, and dimensions of an array; NumPy has 64 of the latter.
const MAX_FIELDS: usize = 1 << 16;
pub(in crate::backends) const MAX_DIMS: usize = 64;

/// A dtype that a tensor holds, and whether it is big-endian.
pub(super) fn number_of(values: &Values, id: ValueId) -> Option<(DType, bool)> {
    let parts = Parts::of(values, id)?;
    if parts.subarray.is_some() || parts.fields.is_some() {
        return None;
    }
    Some((DType::from_numpy_code(parts.code)?, parts.swap?))
}

/// What a dtype is; `None` for what is no dtype that is known here.
pub(in crate::backends) fn describe(values: &Values, id: ValueId) -> Option<Described> {
    if let Value::Object(object) = values.get(id)
        && values.global(object.class).is_some_and(|g| g.is("numpy.dtypes", "StringDType"))
    {
        return Some(Described { size: 16, objects: true, element: Element::Other });
    }
    if let Some((dtype, swap)) = number_of(values, id) {
        let size = dtype.size()?;
        return Some(Described { size, objects: false, element: Element::Number(dtype, swap) });
    }
    let parts = Parts::of(values, id)?;
    let size = parts.size()?;
    // The lowest flag says that a record has references in it.
    let objects = parts.code.starts_with('O') || parts.flags.is_some_and(|flags| flags & 1 == 1);
    let element = match parts.fields {
        Some((names, fields)) if !objects => record(values, names, fields, size)?,
        _ => Element::Other,
    };
    Some(Described { size, objects, element })
}

/// The parts of a dtype's description.
struct Parts<'a> {
    code: &'a str,
    /// Whether it is big-endian, where the order is known.
    swap: Option<bool>,
    /// A base dtype and a shape.
    subarray: Option<ValueId>,
    names: Option<ValueId>,
    /// The names and the fields.
    fields: Option<(ValueId, ValueId)>,
    size: Option<u64>,
    flags: Option<i64>,
}

impl<'a> Parts<'a> {
    fn of(values: &'a Values, id: ValueId) -> Option<Self> {
        let Value::Object(object) = values.get(id) else { return None };
        if object.construct != Construct::Call || !values.global(object.class)?.is("numpy", "dtype") {
            return None;
        }
        let &[code, ..] = values.sequence(object.args)? else { return None };
        let code = values.str(code)?;
        // (version, byte order, subarray, names, fields, item size, alignment, flags)
        let state = match object.state {
            Some(state) => values.sequence(state)?,
            // An opaque dtype has no need of a state.
            None => return None,
        };
        let &[_, order, subarray, names, fields, ref rest @ ..] = state else { return None };
        let given = |id: ValueId| (values.get(id) != &Value::None).then_some(id);
        Some(Self {
            code,
            swap: match values.str(order)? {
                "<" | "|" | "=" => Some(false),
                ">" => Some(true),
                _ => None,
            },
            subarray: given(subarray),
            names: given(names),
            fields: given(names).zip(given(fields)),
            size: rest.first().and_then(|s| u64::try_from(values.int(*s)?).ok()),
            flags: rest.get(2).and_then(|f| values.int(*f)),
        })
    }

    /// The bytes of an element: `U5` has five characters of four bytes, everything else counts bytes.
    fn size(&self) -> Option<u64> {
        let (kind, digits) = self.code.split_at_checked(1)?;
        let stated: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        let size = stated.checked_mul(if kind == "U" { 4 } else { 1 })?;
        // The state repeats it where the code does not fix it.
        let agrees = self.size.is_none_or(|said| said == size);
        (agrees && (self.names.is_none() || self.fields.is_some())).then_some(size)
    }
}

/// The fields of a record that tensors hold.
fn record(values: &Values, names: ValueId, fields: ValueId, size: u64) -> Option<Element> {
    let names = values.sequence(names)?;
    let dict = values.dict(fields)?;
    if names.len() > MAX_FIELDS || dict.entries.len() > 2 * MAX_FIELDS {
        return None;
    }
    let places: HashMap<&str, ValueId> =
        dict.entries.iter().filter_map(|(key, place)| Some((values.str(*key)?, *place))).collect();
    let mut found = Vec::new();
    for &name in names {
        let place = *places.get(values.str(name)?)?;
        // (dtype, offset), and a title where it has one.
        let &[dtype, offset, ..] = values.sequence(place)? else { return None };
        let offset = u64::try_from(values.int(offset)?).ok()?;
        let Some((number, swap, shape)) = field(values, dtype) else { continue };
        let count = crate::tensor::element_count(&shape)?;
        let end = number.size()?.checked_mul(count)?.checked_add(offset)?;
        if end > size {
            return None;
        }
        found.push(Field { name, offset, dtype: number, swap, shape });
    }
    let others = names.len() - found.len();
    Some(Element::Record(found.into(), others))
}

/// A field's number, and the shape of its part.
fn field(values: &Values, dtype: ValueId) -> Option<(DType, bool, Shape)> {
    if let Some((number, swap)) = number_of(values, dtype) {
        return Some((number, swap, Shape::new()));
    }
    let &[base, shape] = values.sequence(Parts::of(values, dtype)?.subarray?)? else { return None };
    let (number, swap) = number_of(values, base)?;
    let dims = values.sequence(shape)?;
    if dims.len() > MAX_DIMS {
        return None;
    }
    let shape = dims.iter().map(|d| u64::try_from(values.int(*d)?).ok()).collect::<Option<_>>()?;
    Some((number, swap, shape))
}
