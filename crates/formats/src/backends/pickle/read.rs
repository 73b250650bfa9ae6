//! The reader: a pickle's values, with its NumPy arrays as tensors that are read where they lie.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use super::numpy::{Array, Buffer, Found, explain};
use super::{ID, INFO};
use crate::archive::{Archive, Note, no_such_tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::naming::name_tensors;
use crate::pickle;
use crate::probe::{Confidence, Probe};
use crate::source::Source;
use crate::tensor::{Data, TensorInfo};
use crate::traits::{Deserializer, FormatInfo, ReadOptions};
use crate::transform::{Strided, SwapBytes};
use crate::value::{Value, ValueId, Values};

/// Bytes of at least this length stay in the file until it is known whether they are an array's.
const LEFT_IN_FILE: usize = 1024;

/// Reads plain pickles.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickleReader;

impl Deserializer for PickleReader {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn sniff(&self, probe: &Probe<'_>) -> Confidence {
        let head = probe.head();
        let named = probe.has_extension(INFO.extensions);
        if let [0x80, 2..=5, ..] = head {
            return Confidence::Likely;
        }
        // The protocols 0 and 1 have no mark. A small file can be read to its end; what is left is the name.
        let whole = head.len() as u64 == probe.len() && !head.is_empty();
        let limits = Limits { values: 10_000, ..Limits::default() };
        let reads =
            whole && pickle::decode(head, &limits).is_ok_and(|decoded| decoded.consumed == head.len() as u64);
        match (reads, named) {
            (true, true) => Confidence::Likely,
            (true, false) => Confidence::Name,
            (false, true) if !whole && begins_text_pickle(head) => Confidence::Name,
            _ => Confidence::No,
        }
    }

    fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        let path = source.path().map(ToOwned::to_owned);
        match open(source, &options.limits) {
            Ok(archive) => Ok(Box::new(archive)),
            Err(error) => {
                let error = error.with_format(ID);
                Err(match path {
                    Some(path) => error.with_path(path),
                    None => error,
                })
            }
        }
    }
}

/// Whether a pickle without PROTO may begin so: with a container, a global or a number.
fn begins_text_pickle(head: &[u8]) -> bool {
    matches!(head, [b'(' | b']' | b'}' | b'c' | b'I' | b'L' | b'F' | b'V' | b'S' | b'K' | b'X', ..])
}

fn open(source: Source, limits: &Limits) -> Result<PickleArchive> {
    let bytes = source.read_vec(0, source.len(), limits)?;
    let (decoded, spans) =
        pickle::decode_in_place(&bytes, limits, LEFT_IN_FILE).map_err(|e| explained(e, &bytes))?;
    let mut notes = Vec::new();
    let behind = bytes.len() as u64 - decoded.consumed;
    if behind > 0 {
        notes.push(Note::warning(format!(
            "{behind} bytes stand behind the pickle and are not read; they may be another pickle"
        )));
    }
    let variety = format!("protocol {}", decoded.protocol);
    let mut values = decoded.values;
    let found = explain(&mut values, &spans)?;
    fill(&mut values, &spans, &bytes);
    drop(bytes);
    notes.extend(told(&values, &found));
    let (named, numbered) = name_tensors(&mut values, limits)?;
    if numbered {
        notes.push(Note::warning("several paths read the same; a number tells their tensors apart"));
    }
    if named.len() as u64 > limits.entries {
        return Err(Error::limit(format!("more than {} tensors", limits.entries)));
    }
    let (mut tensors, mut raw) = (Vec::with_capacity(named.len()), Vec::with_capacity(named.len()));
    let mut declared = 0u64;
    for name in named {
        let array = &found.arrays[name.raw as usize];
        let info = TensorInfo::new(name.name, array.dtype, array.shape.clone())?;
        declared = declared.saturating_add(info.bytes());
        if declared > limits.declared_bytes {
            let what = format!("the tensors would take more than {} bytes", limits.declared_bytes);
            return Err(Error::limit(what).with_tensor(info.name()));
        }
        tensors.push(info);
        raw.push(name.raw);
    }
    Ok(PickleArchive { variety, source, tensors, raw, arrays: found.arrays, values, notes })
}

/// Says what may be behind a pickle that breaks off.
fn explained(error: Error, bytes: &[u8]) -> Error {
    let joblib = b"joblib.numpy_pickle";
    let head = &bytes[..bytes.len().min(1 << 16)];
    if error.kind() == ErrorKind::Malformed && head.windows(joblib.len()).any(|w| w == joblib) {
        return Error::unsupported("a joblib file, which holds raw arrays between the parts of its pickle")
            .with_hint("load it with joblib and save it with pickle.dump")
            .with_source(error);
    }
    error
}

/// Takes the bytes that are no array's out of the file.
fn fill(values: &mut Values, spans: &HashMap<ValueId, Range<usize>>, bytes: &[u8]) {
    let Some(root) = values.root().filter(|_| !spans.is_empty()) else { return };
    let reachable = values.reachable(root);
    for (id, span) in spans {
        let Some(held) = bytes.get(span.clone()).filter(|_| reachable[id.index()]) else { continue };
        match values.get_mut(*id) {
            Value::Bytes(slot) | Value::ByteArray(slot) => *slot = held.into(),
            _ => {}
        }
    }
}

/// What a reader of the values should know.
fn told(values: &Values, found: &Found) -> Vec<Note> {
    let mut notes = Vec::new();
    if found.scalars > 0 {
        notes.push(Note::info(format!("{} NumPy scalars are read as plain numbers", found.scalars)));
    }
    if found.foreign > 0 {
        notes.push(Note::warning(format!(
            "{} NumPy arrays are kept as objects: no tensor holds strings, dates, records, objects or subclasses",
            found.foreign
        )));
    }
    let Some(root) = values.root() else { return notes };
    let reachable = values.reachable(root);
    let names: BTreeSet<String> = values
        .iter()
        .filter(|(id, _)| reachable[id.index()])
        .filter_map(|(_, value)| match value {
            Value::Global(global) => Some(global.to_string()),
            _ => None,
        })
        .collect();
    if !names.is_empty() {
        let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
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
struct PickleArchive {
    variety: String,
    source: Source,
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
            Buffer::File(span) => Data::lazy(self.source.slice(span.start as u64, span.len() as u64)?),
            Buffer::Memory(bytes) => Data::Owned(bytes.clone()),
        };
        if array.swap && array.dtype.swap_unit() > 1 {
            data = Data::lazy(SwapBytes::new(data, array.dtype.swap_unit())?);
        }
        if let (Some(strides), Some(size)) = (&array.strides, array.dtype.size()) {
            data = Data::lazy(Strided::new(data, size, &array.shape, strides, 0)?);
        }
        Ok(data)
    }
}

impl Archive for PickleArchive {
    fn format(&self) -> &'static str {
        ID
    }

    fn variety(&self) -> String {
        self.variety.clone()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let info = self.tensors.get(index).ok_or_else(|| no_such_tensor(index))?;
        self.tensor_data(index).map_err(|e| e.with_format(ID).with_tensor(info.name()))
    }

    fn values(&self) -> Option<&Values> {
        Some(&self.values)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.path().map(ToOwned::to_owned).into_iter().collect()
    }
}
