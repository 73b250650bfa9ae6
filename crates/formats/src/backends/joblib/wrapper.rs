//! The objects that stand for arrays in a joblib dump, and what stands behind each in the stream.
//!
//! `joblib.numpy_pickle.NumpyArrayWrapper` with the state `{subclass, shape, order, dtype, allow_mmap}`, and since
//! joblib 1.2 `numpy_array_alignment_bytes`. Behind its BUILD stand
//!
//! - for a dtype with Python objects in it, a whole pickle of the array;
//! - otherwise the elements, in row-major order or, with `order` `'F'`, in column-major order. Where
//!   `numpy_array_alignment_bytes` is there and no None, one byte before them says how many bytes of padding follow
//!   it.
//!
//! Before joblib 0.10 there was an `NDArrayWrapper` that names a `.npy` file beside the dump.
//!
//! Source of the facts: `numpy_pickle.py` of joblib 1.6, and dumps that it wrote.

use crate::account::Account;
use crate::backends::pickle::dtypes::Element;
use crate::backends::pickle::numpy::{Array, Buffer, Found, Layout, columns, shape_of};
use crate::error::{Error, Result};
use crate::memory::zeroed_box;
use crate::pickle::Behind;
use crate::source::Source;
use crate::tensor::{Shape, element_count};
use crate::value::{Construct, Dict, Global, Object, Value, ValueId, Values};

/// The most entries of a wrapper's state. It has six.
const MAX_STATE: usize = 16;

/// Whether a class is one that the machine must stop at: joblib's own, or the copy that scikit-learn once had.
pub(super) fn is_wrapper(class: &Global) -> bool {
    let name = &*class.name;
    matches!(name, "NumpyArrayWrapper" | "NDArrayWrapper" | "ZNDArrayWrapper")
        && matches!(
            class.module.strip_prefix("sklearn.externals.").unwrap_or(&class.module),
            "joblib.numpy_pickle" | "joblib.numpy_pickle_compat"
        )
}

/// Takes the arrays out of a stream.
pub(super) struct Wrappers<'a> {
    pub(super) source: &'a Source,
    pub(super) found: Found,
    /// How many arrays were met.
    pub(super) count: u64,
    /// How many matrices are tensors now.
    pub(super) matrices: u64,
    /// How many arrays are in files of their own.
    pub(super) elsewhere: u64,
    names: Option<Names>,
}

/// What the description of every array names.
#[derive(Clone, Copy)]
struct Names {
    reconstruct: ValueId,
    unit: ValueId,
    code: ValueId,
    version: ValueId,
    none: ValueId,
}

/// A wrapper's state.
struct Described {
    subclass: ValueId,
    shape_id: ValueId,
    shape: Shape,
    fortran: bool,
    dtype: ValueId,
    padded: bool,
}

impl<'a> Wrappers<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, found: Found::default(), count: 0, matrices: 0, elsewhere: 0, names: None }
    }

    /// Puts the array in its wrapper's place, and says how many bytes behind `here` are its.
    pub(super) fn behind(
        &mut self,
        values: &mut Values,
        account: &mut Account,
        id: ValueId,
        here: u64,
    ) -> Result<Behind> {
        let before = self.found.memory();
        let behind = self.array(values, account, id, here)?;
        account.charge(self.found.memory() - before)?;
        Ok(behind)
    }

    fn array(
        &mut self,
        values: &mut Values,
        account: &mut Account,
        id: ValueId,
        here: u64,
    ) -> Result<Behind> {
        let Value::Object(object) = values.get(id) else { return Ok(Behind::Nothing) };
        if values.global(object.class).is_none_or(|class| &*class.name != "NumpyArrayWrapper") {
            self.elsewhere += 1;
            return Ok(Behind::Nothing);
        }
        let wrapper = described(values, object)?;
        let Some(dtype) = self.found.describe(values, wrapper.dtype) else {
            return Err(Error::unsupported(
                "the dtype of an array is not known, so nothing says where its bytes end",
            ));
        };
        self.count += 1;
        if dtype.objects {
            return Ok(Behind::Pickle);
        }
        let padding = if wrapper.padded { 1 + self.padding(here)? } else { 0 };
        let length = element_count(&wrapper.shape).and_then(|n| n.checked_mul(dtype.size));
        let start = here.checked_add(padding);
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        let (Some(start), Some(end)) = (start, end.filter(|end| *end <= self.source.len())) else {
            return Err(Error::malformed(format!(
                "an array of shape {:?} and elements of {} bytes passes the end of the {} bytes that there are",
                &wrapper.shape[..],
                dtype.size,
                self.source.len()
            ))
            .with_hint(crate::source::TRUNCATED));
        };
        let buffer = Buffer::File(start..end);
        match dtype.element {
            Element::Number(dtype, swap) => {
                let class = values.global(wrapper.subclass);
                self.matrices += u64::from(class.is_some_and(|g| &*g.name == "matrix"));
                let shape = wrapper.shape;
                let layout = if wrapper.fortran { columns(&shape) } else { Layout::Rows };
                let array = Array { dtype, shape, layout, swap, buffer };
                *values.get_mut(id) = self.found.push(array)?;
            }
            Element::Record(fields, others) => {
                let form = (&wrapper.shape, wrapper.fortran, dtype.size);
                let entries = self.found.record(values, (&fields, others), form, &buffer)?;
                let data = if others > 0 { Some(self.bytes(account, start, end - start)?) } else { None };
                *values.get_mut(id) = self.object(values, &wrapper, data, entries)?;
            }
            Element::Other => {
                let data = Some(self.bytes(account, start, end - start)?);
                *values.get_mut(id) = self.object(values, &wrapper, data, Vec::new())?;
            }
        }
        Ok(Behind::Raw(end - here))
    }

    /// The bytes of padding that the byte at `at` states.
    fn padding(&self, at: u64) -> Result<u64> {
        let mut byte = [0];
        if at >= self.source.len() {
            return Err(Error::malformed("an array begins at the end").with_hint(crate::source::TRUNCATED));
        }
        self.source.reader().read_at(at, &mut byte)?;
        Ok(byte[0].into())
    }

    /// Reads what no tensor holds: arrays of strings, dates and the like.
    fn bytes(&self, account: &mut Account, at: u64, length: u64) -> Result<Value> {
        account.charge(length.saturating_add(32))?;
        let mut bytes = zeroed_box(length)?;
        self.source.reader().read_at(at, &mut bytes)?;
        Ok(Value::Bytes(bytes))
    }

    /// The array as a plain pickle describes it.
    fn object(
        &mut self,
        values: &mut Values,
        wrapper: &Described,
        data: Option<Value>,
        entries: Vec<(ValueId, ValueId)>,
    ) -> Result<Value> {
        let names = self.names(values)?;
        let args = values.push(Value::Tuple(vec![wrapper.subclass, names.unit, names.code]))?;
        let fortran = values.push(Value::Bool(wrapper.fortran))?;
        let data = match data {
            Some(bytes) => values.push(bytes)?,
            None => names.none,
        };
        let state = vec![names.version, wrapper.shape_id, wrapper.dtype, fortran, data];
        let state = values.push(Value::Tuple(state))?;
        Ok(Value::Object(Box::new(Object {
            construct: Construct::Call,
            class: names.reconstruct,
            args,
            kwargs: None,
            state: Some(state),
            items: Vec::new(),
            entries,
        })))
    }

    fn names(&mut self, values: &mut Values) -> Result<Names> {
        if let Some(names) = self.names {
            return Ok(names);
        }
        let reconstruct = Global::new("numpy._core.multiarray", "_reconstruct");
        let reconstruct = values.push(Value::Global(Box::new(reconstruct)))?;
        let zero = values.push(Value::Int(0))?;
        let names = Names {
            reconstruct,
            unit: values.push(Value::Tuple(vec![zero]))?,
            code: values.push(Value::Bytes(b"b".as_slice().into()))?,
            version: values.push(Value::Int(1))?,
            none: values.push(Value::None)?,
        };
        Ok(*self.names.insert(names))
    }
}

/// A wrapper's state, checked.
fn described(values: &Values, object: &Object) -> Result<Described> {
    let state: Option<&Dict> = object.state.and_then(|state| values.dict(state));
    let Some(state) = state.filter(|state| state.entries.len() <= MAX_STATE) else {
        return Err(Error::malformed("an array's wrapper has no state that describes it"));
    };
    let entry = |name: &str| {
        state.entries.iter().rev().find(|(key, _)| values.str(*key) == Some(name)).map(|(_, value)| *value)
    };
    let missing = |name: &str| Error::malformed(format!("an array's wrapper has no {name}"));
    let shape_id = entry("shape").ok_or_else(|| missing("shape"))?;
    let order = entry("order").ok_or_else(|| missing("order"))?;
    let fortran = match values.str(order) {
        Some("C") => false,
        Some("F") => true,
        _ => return Err(Error::malformed("an array's order is neither 'C' nor 'F'")),
    };
    let padded = entry("numpy_array_alignment_bytes").is_some_and(|id| values.get(id) != &Value::None);
    Ok(Described {
        subclass: entry("subclass").ok_or_else(|| missing("subclass"))?,
        shape: shape_of(values, shape_id)?,
        shape_id,
        fortran,
        dtype: entry("dtype").ok_or_else(|| missing("dtype"))?,
        padded,
    })
}
