//! The reader: a pickle's values, with its NumPy arrays as tensors that are read where they lie.

use std::collections::HashMap;
use std::ops::Range;

use super::archive::{Parts, PickleArchive};
use super::numpy::{Found, explain};
use super::{ID, INFO};
use crate::archive::{Archive, Note};
use crate::error::Result;
#[cfg(not(feature = "joblib"))]
use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::pickle;
use crate::probe::{Confidence, Probe};
use crate::source::Source;
use crate::traits::{Deserializer, FormatInfo, ReadOptions};
use crate::value::{Global, Value, ValueId, Values};

/// Bytes of at least this length stay in the file until it is known whether they are an array's.
pub(super) const LEFT_IN_FILE: usize = 1024;

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
pub(in crate::backends) fn begins_text_pickle(head: &[u8]) -> bool {
    matches!(head, [b'(' | b']' | b'}' | b'c' | b'I' | b'L' | b'F' | b'V' | b'S' | b'K' | b'X', ..])
}

fn open(source: Source, limits: &Limits) -> Result<PickleArchive> {
    // Raw arrays make a file large that the machine does not take whole.
    #[cfg(feature = "joblib")]
    if source.len() > limits.header_bytes {
        return crate::backends::joblib::open_as(&INFO, source, limits);
    }
    let bytes = source.read_vec(0, source.len(), limits)?;
    let Some((decoded, spans)) = pickle::decode_in_place(&bytes, limits, LEFT_IN_FILE, is_joblib)? else {
        drop(bytes);
        return joblib(source, limits);
    };
    let mut notes = Vec::new();
    let behind = bytes.len() as u64 - decoded.consumed;
    if behind > 0 {
        notes.push(Note::warning(format!(
            "{behind} bytes stand behind the pickle and are not read; they may be another pickle"
        )));
    }
    let variety = format!("protocol {}", decoded.protocol);
    let mut values = decoded.values;
    let mut found = Found::default();
    explain(&mut values, &spans, &mut found)?;
    fill(&mut values, &spans, &bytes);
    drop(bytes);
    let files = source.path().map(ToOwned::to_owned).into_iter().collect();
    Parts { info: &INFO, variety, source, files, values, found, notes }.assemble(limits)
}

/// Whether a class is one of joblib's for arrays, whose bytes stand raw in the stream.
pub(super) fn is_joblib(class: &Global) -> bool {
    &*class.name == "NumpyArrayWrapper" && class.module.ends_with("joblib.numpy_pickle")
}

/// Opens what turned out to be a joblib dump.
#[cfg(feature = "joblib")]
fn joblib(source: Source, limits: &Limits) -> Result<PickleArchive> {
    crate::backends::joblib::open_as(&INFO, source, limits)
}

/// Says that this is a joblib dump, which this build does not read.
#[cfg(not(feature = "joblib"))]
fn joblib(_: Source, _: &Limits) -> Result<PickleArchive> {
    Err(Error::new(
        ErrorKind::FormatDisabled,
        "this is a joblib dump, with raw arrays between the parts of its pickle",
    )
    .with_hint("enable the feature `joblib`"))
}

/// Takes the bytes that are no array's out of the file.
pub(super) fn fill(values: &mut Values, spans: &HashMap<ValueId, Range<usize>>, bytes: &[u8]) {
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
