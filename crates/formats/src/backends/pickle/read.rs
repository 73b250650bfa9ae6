//! The reader: a pickle's values, with its NumPy arrays as tensors that are read where they lie.

use super::archive::{Parts, PickleArchive};
use super::numpy::{Found, explain};
use super::{ID, INFO};
use crate::account::Account;
use crate::archive::{Archive, Note};
#[cfg(not(feature = "joblib"))]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory::zeroed_box;
use crate::pickle::{self, Spans, Stream};
use crate::probe::{Confidence, Probe};
use crate::source::Source;
use crate::traits::{Deserializer, FormatInfo, ReadOptions};
use crate::value::{Global, Value, Values};

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
    // Of joblib's dumps, whose raw arrays stand between the parts of the pickle, another reader knows more.
    let mut is_dump = false;
    let stream = Stream { least: LEFT_IN_FILE, ..Stream::new(&**source.reader(), limits) };
    let decoded = pickle::decode_stream(stream, is_joblib, &mut |_, _, _, _| {
        is_dump = true;
        Err(Error::unsupported("this is a joblib dump"))
    });
    if is_dump {
        return joblib(source, limits);
    }
    let (decoded, spans, mut account) = decoded?;
    let mut notes = Vec::new();
    let behind = source.len() - decoded.consumed;
    if behind > 0 {
        notes.push(Note::warning(format!(
            "{behind} bytes stand behind the pickle and are not read; they may be another pickle"
        )));
    }
    let variety = format!("protocol {}", decoded.protocol);
    let mut values = decoded.values;
    let mut found = Found::default();
    explain(&mut values, &spans, &mut found, &mut account)?;
    fill(&mut values, &spans, &source, &mut account)?;
    let files = source.path().map(ToOwned::to_owned).into_iter().collect();
    Parts { info: &INFO, variety, source, files, values, found, notes }.assemble(limits, account)
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
pub(super) fn fill(values: &mut Values, spans: &Spans, source: &Source, account: &mut Account) -> Result<()> {
    let Some(root) = values.root().filter(|_| !spans.is_empty()) else { return Ok(()) };
    let reachable = values.reachable(root);
    let mut wanted: Vec<_> = spans.iter().filter(|(id, _)| reachable[id.index()]).collect();
    wanted.sort_unstable_by_key(|(id, _)| **id);
    for (id, span) in wanted {
        let (Value::Bytes(slot) | Value::ByteArray(slot)) = values.get_mut(*id) else { continue };
        let len = span.end.saturating_sub(span.start);
        account.charge(len.saturating_add(32)).map_err(|e| e.at_offset(span.start))?;
        let mut bytes = zeroed_box(len)?;
        source.reader().read_at(span.start, &mut bytes)?;
        *slot = bytes;
    }
    Ok(())
}
