//! The reader: what is a dump, and what it opens to.

use std::collections::HashMap;
use std::sync::Arc;

use super::INFO;
use super::unpack::{self, Packing};
use super::wrapper::{Wrappers, is_wrapper};
use crate::account::Account;
use crate::archive::{Archive, Note};
use crate::backends::pickle::archive::{Parts, PickleArchive};
use crate::backends::pickle::numpy::Found;
use crate::backends::pickle::numpy::explain;
use crate::backends::pickle::read::begins_text_pickle;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Decoded, Stream, decode_stream, decode_stream_leniently};
use crate::probe::{Confidence, Probe};
use crate::sniff;
use crate::source::Source;
use crate::traits::{Deserializer, FormatInfo, ReadOptions};

/// How much of a compressed file is unpacked to see whether a pickle is in it. Its decoder reads a block for that:
/// 900,000 bytes of bzip2, 4 MiB of lz4.
const SEEN: u64 = 4096;

/// Reads joblib's dumps.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoblibReader;

impl Deserializer for JoblibReader {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn sniff(&self, probe: &Probe<'_>) -> Confidence {
        let named = probe.has_extension(INFO.extensions);
        if let Some(packing) = Packing::of(probe.head()) {
            let inside = unpack::begin(probe.source(), packing, SEEN);
            return match (sniff::is_joblib(&inside), sniff::begins_pickle(&inside), named) {
                (true, ..) | (_, true, true) => Confidence::Certain,
                (_, true, false) => Confidence::Likely,
                // The protocols 0 and 1 have no mark, so that the name must speak for them.
                (_, false, true) if !inside.is_empty() => Confidence::Likely,
                _ => Confidence::No,
            };
        }
        match (sniff::is_joblib(probe.head()), sniff::begins_pickle(probe.head())) {
            (true, _) => Confidence::Certain,
            // A dump without arrays is a plain pickle; one whose first array comes late is known by the pickle's
            // reader, which then opens it here.
            (false, true) if named => Confidence::Certain,
            (false, false) if named && begins_text_pickle(probe.head()) => Confidence::Likely,
            _ => Confidence::No,
        }
    }

    fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        let path = source.path().map(ToOwned::to_owned);
        match open_as(&INFO, source, &options.limits) {
            Ok(archive) => Ok(Box::new(archive)),
            Err(error) => {
                let error = error.with_format(INFO.id);
                Err(match path {
                    Some(path) => error.with_path(path),
                    None => error,
                })
            }
        }
    }
}

/// Opens a dump. One without arrays of joblib's kind is a pickle, and is of the format `plain`.
pub(in crate::backends) fn open_as(
    plain: &'static FormatInfo,
    source: Source,
    limits: &Limits,
) -> Result<PickleArchive> {
    let files = source.path().map(ToOwned::to_owned).into_iter().collect();
    let mut head = vec![0; source.len().min(16) as usize];
    source.reader().read_at(0, &mut head)?;
    if head.starts_with(b"ZF") {
        return Err(Error::unsupported(
            "a dump of joblib before 0.9.3, of which no more than its mark is known",
        )
        .with_hint("load it with that joblib and dump it again with a newer one"));
    }
    let mut account = Account::of(limits, source.len());
    let (source, how) = match Packing::of(&head) {
        Some(packing) => {
            let bytes = unpack::unpack(&source, packing, limits)?;
            account.charge(bytes.len() as u64)?;
            (Source::from_reader(Arc::new(bytes)), format!(", compressed with {}", packing.name()))
        }
        None => (source, String::new()),
    };
    let mut wrappers = Wrappers::new(&source);
    let stream = Stream { account, ..Stream::new(&**source.reader(), limits) };
    let (decoded, _, mut account) =
        decode_stream(stream, is_wrapper, &mut |values, account, object, here| {
            wrappers.behind(values, account, object, here)
        })?;
    let mut notes = Vec::new();
    let behind = source.len() - decoded.consumed;
    if behind > 0 {
        notes.push(Note::warning(format!(
            "{behind} bytes stand behind the pickle and are not read; they may be another pickle"
        )));
    }
    if wrappers.matrices > 0 {
        let what = if wrappers.matrices == 1 {
            "matrix is read as a plain array"
        } else {
            "matrices are read as plain arrays"
        };
        notes.push(Note::info(format!("{} {what}", wrappers.matrices)));
    }
    if wrappers.elsewhere > 0 {
        notes.push(Note::warning(format!(
            "{} arrays are in files of their own beside the dump, as joblib before 0.10 wrote them, and are not read",
            wrappers.elsewhere
        )));
    }
    let info = if wrappers.count + wrappers.elsewhere > 0 { &INFO } else { plain };
    let mut found = wrappers.found;
    let mut values = decoded.values;
    explain(&mut values, &HashMap::new(), &mut found, &mut account)?;
    let variety = format!("protocol {}{how}", decoded.protocol);
    Parts { info, variety, source, files, values, found, notes }.assemble(limits, account)
}

/// What there is of an unpacked dump that may break, with the arrays that were met, why it breaks, and what is left of
/// the account.
pub(in crate::backends) fn salvage(
    source: &Source,
    limits: &Limits,
) -> Result<(Decoded, Option<Error>, Found, Account)> {
    let mut wrappers = Wrappers::new(source);
    let stream = Stream::new(&**source.reader(), limits);
    let ((decoded, _, account), fault) =
        decode_stream_leniently(stream, is_wrapper, &mut |values, account, object, here| {
            wrappers.behind(values, account, object, here)
        })?;
    Ok((decoded, fault, wrappers.found, account))
}
