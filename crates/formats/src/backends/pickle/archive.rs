//! What a pickle with NumPy arrays opens to: tensors by their paths, and the values around them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::numpy::{Array, Buffer, Found, Layout};
use crate::account::{Account, RAISE, TENSOR, block};
use crate::archive::{Archive, Note, no_such_tensor};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::naming::{Named, name_tensors};
use crate::source::Source;
use crate::tensor::{Data, Shape, TensorInfo};
use crate::traits::FormatInfo;
use crate::transform::{Strided, SwapBytes};
use crate::value::{Global, Value, Values};

/// What an archive is made of.
pub(in crate::backends) struct Parts {
    pub(in crate::backends) info: &'static FormatInfo,
    pub(in crate::backends) variety: String,
    /// What the arrays' places are places in.
    pub(in crate::backends) source: Source,
    pub(in crate::backends) files: Vec<PathBuf>,
    pub(in crate::backends) values: Values,
    pub(in crate::backends) found: Found,
    pub(in crate::backends) notes: Vec<Note>,
}

impl Parts {
    /// Names the arrays.
    ///
    /// # Errors
    /// `LimitExceeded` for too many tensors, bytes that they declare, or steps to name them.
    pub(in crate::backends) fn assemble(self, limits: &Limits, account: Account) -> Result<PickleArchive> {
        self.assemble_with(limits, account, false)
    }

    /// As [`Parts::assemble`], with the arrays that no path from the root leads to.
    #[cfg(feature = "joblib")]
    pub(in crate::backends) fn assemble_all(
        self,
        limits: &Limits,
        account: Account,
    ) -> Result<PickleArchive> {
        self.assemble_with(limits, account, true)
    }

    fn assemble_with(self, limits: &Limits, mut account: Account, unreached: bool) -> Result<PickleArchive> {
        let Self { info, variety, source, files, mut values, found, mut notes } = self;
        notes.extend(told(&values, &found));
        let (mut named, numbered) = name_tensors(&mut values, limits, &mut account)?;
        if unreached {
            let mut known = vec![false; found.arrays.len()];
            named.iter().for_each(|n| known[n.raw as usize] = true);
            let left = known.iter().enumerate().filter(|(_, known)| !**known).map(|(at, _)| at as u32);
            let left: Vec<Named> = left
                .enumerate()
                .map(|(n, raw)| Named { name: format!("unreached.{n}").into(), raw })
                .collect();
            named.extend(left);
        }
        if numbered {
            notes.push(Note::warning("several paths read the same; a number tells their tensors apart"));
        }
        if named.len() as u64 > limits.entries {
            return Err(Error::limit(format!("more than {} tensors", limits.entries)));
        }
        account.charge((named.len() as u64).saturating_mul(TENSOR))?;
        let (mut tensors, mut raw) = (Vec::with_capacity(named.len()), Vec::with_capacity(named.len()));
        let mut declared = 0u64;
        for name in named {
            let array = &found.arrays[name.raw as usize];
            account.charge(if array.shape.spilled() { block(array.shape.len() * 8) } else { 0 })?;
            let info = TensorInfo::new(name.name, array.dtype, array.shape.clone())?;
            declared = declared.saturating_add(info.bytes());
            if declared > limits.declared_bytes || !limits.allows_sharing(declared, source.len()) {
                let what =
                    format!("the tensors would take {declared} bytes, of {} in the file", source.len());
                return Err(Error::limit(what).with_tensor(info.name()).with_hint(RAISE));
            }
            tensors.push(info);
            raw.push(name.raw);
        }
        Ok(PickleArchive { info, variety, source, files, tensors, raw, arrays: found.arrays, values, notes })
    }
}

/// What a reader of the values should know.
fn told(values: &Values, found: &Found) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut told = |n: u64, make: fn(String) -> Note, one: &str, many: &str| {
        if n > 0 {
            notes.push(make(format!("{n} {}", if n == 1 { one } else { many })));
        }
    };
    told(
        found.scalars,
        Note::info,
        "NumPy scalar is read as a plain number",
        "NumPy scalars are read as plain numbers",
    );
    told(
        found.foreign,
        Note::warning,
        "NumPy array is kept as an object: no tensor holds strings, dates or objects",
        "NumPy arrays are kept as objects: no tensor holds strings, dates or objects",
    );
    told(
        found.records,
        Note::info,
        "NumPy array of records is kept as an object, with a tensor for each field of numbers",
        "NumPy arrays of records are kept as objects, with a tensor for each field of numbers",
    );
    told(
        found.fields_left,
        Note::info,
        "field of records holds no numbers and stays in the object",
        "fields of records hold no numbers and stay in the objects",
    );
    told(
        found.subclasses,
        Note::info,
        "matrix or masked array is kept as an object, with its elements as the tensor `data`",
        "matrices or masked arrays are kept as objects, with their elements as the tensors `data`",
    );
    let Some(root) = values.root() else { return notes };
    let reachable = values.reachable(root);
    let names: BTreeSet<&Global> = values
        .iter()
        .filter(|(id, _)| reachable[id.index()])
        .filter_map(|(_, value)| match value {
            Value::Global(global) => Some(&**global),
            _ => None,
        })
        .collect();
    if !names.is_empty() {
        let shown: Vec<String> = names.iter().take(5).map(ToString::to_string).collect();
        let more = if names.len() > 5 { ", …" } else { "" };
        notes.push(Note::info(format!(
            "what only Python could build is kept as it is described, of {} names: {}{more}",
            names.len(),
            shown.join(", ")
        )));
    }
    notes
}

/// An opened pickle.
pub(in crate::backends) struct PickleArchive {
    info: &'static FormatInfo,
    variety: String,
    source: Source,
    files: Vec<PathBuf>,
    tensors: Vec<TensorInfo>,
    /// The array of each tensor.
    raw: Vec<u32>,
    arrays: Vec<Array>,
    values: Values,
    notes: Vec<Note>,
}

impl PickleArchive {
    fn tensor_data(&self, index: usize) -> Result<Data<'_>> {
        let array = &self.arrays[self.raw[index] as usize];
        let mut data = match &array.buffer {
            Buffer::File(span) => {
                Data::lazy(self.source.slice(span.start, span.end.saturating_sub(span.start))?)
            }
            Buffer::Memory(bytes) => Data::Owned(bytes.clone()),
        };
        let size = array.dtype.size().unwrap_or(1);
        // A field's bytes are an innermost dimension of their own.
        if let Layout::Bytes { strides, offset } = &array.layout {
            let shape: Shape = array.shape.iter().copied().chain([size]).collect();
            let strides: Shape = strides.iter().copied().chain([1]).collect();
            data = Data::lazy(Strided::new(data, 1, &shape, &strides, *offset)?);
        }
        if array.swap && array.dtype.swap_unit() > 1 {
            data = Data::lazy(SwapBytes::new(data, array.dtype.swap_unit())?);
        }
        if let Layout::Strides(strides) = &array.layout {
            data = Data::lazy(Strided::new(data, size, &array.shape, strides, 0)?);
        }
        Ok(data)
    }
}

impl Archive for PickleArchive {
    fn format(&self) -> &'static str {
        self.info.id
    }

    fn variety(&self) -> String {
        self.variety.clone()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let info = self.tensors.get(index).ok_or_else(|| no_such_tensor(index))?;
        self.tensor_data(index).map_err(|e| e.with_format(self.info.id).with_tensor(info.name()))
    }

    fn values(&self) -> Option<&Values> {
        Some(&self.values)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}
