//! The stream of pickles that torch wrote before 1.6, and still writes when asked to.
//!
//! Source: torch 2.13, `torch/serialization.py` (`_legacy_load`, `_legacy_save`): four pickles (a magic number,
//! the protocol version, facts of the system, the object), a pickle of the storages' keys, then for each key an
//! i64 count of elements and the elements.

use std::sync::Arc;

use super::archive::{Storages, TorchArchive};
use crate::account::{Account, block};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Decoded, Stream};
use crate::source::{ReadAt, Slice, Source, TRUNCATED};
use crate::value::Value;

/// The magic number 0x1950a86a20f9469cfc6c as LONG1 in a pickle: ten bytes, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only protocol version there is.
const PROTOCOL: i64 = 1001;

/// Whether a file begins with the pickled magic number.
pub(super) fn sniff(head: &[u8]) -> bool {
    // PROTO n, LONG1 10, the number, STOP; protocol 0 and 1 have it as text.
    let binary =
        head.first() == Some(&0x80) && head.get(2..4) == Some(&[0x8a, 10]) && head.get(4..14) == Some(&MAGIC);
    let framed = head.first() == Some(&0x80)
        && head.get(2) == Some(&0x95)
        && head.get(11..13) == Some(&[0x8a, 10])
        && head.get(13..23) == Some(&MAGIC);
    binary || framed || head.starts_with(b"L119547037146038801333356L\n.")
}

/// The pickles in sequence.
struct Pickles<'a> {
    source: &'a Source,
    limits: &'a Limits,
    at: u64,
}

impl Pickles<'_> {
    /// The next one, and what it leaves of an account.
    fn next(&mut self, account: Account) -> Result<(Decoded, Account)> {
        let (at, new) = (self.at, Stream::new(&**self.source.reader(), self.limits));
        let (decoded, _, account) = Stream { at, account, ..new }.decode().map_err(|e| match e.offset() {
            Some(offset) => e.at_offset(at.saturating_add(offset)),
            None => e.at_offset(at),
        })?;
        self.at += decoded.consumed;
        Ok((decoded, account))
    }

    /// One of those before the object, of which nothing is kept.
    fn small(&mut self) -> Result<Decoded> {
        Ok(self.next(Account::new(self.limits))?.0)
    }
}

/// Storages at places of the file.
pub(super) struct Placed(pub(super) Vec<Slice>);

impl Storages for Placed {
    fn reader(&self, index: usize) -> Result<Arc<dyn ReadAt>> {
        match self.0.get(index) {
            Some(slice) => Ok(Arc::new(slice.clone())),
            None => Err(Error::not_found(format!("there is no storage number {index}"))),
        }
    }
}

/// Opens a legacy stream.
pub(super) fn open(source: Source, limits: &Limits) -> Result<TorchArchive> {
    open_as(source, limits, false)
}

/// Opens a legacy stream; where `lenient`, whatever makes its magic number, and what is wrong with one tensor is an
/// error when that is asked for.
pub(super) fn open_as(source: Source, limits: &Limits, lenient: bool) -> Result<TorchArchive> {
    let mut pickles = Pickles { source: &source, limits, at: 0 };
    let bad = |what: &str| Error::malformed(what.to_owned());
    let root = |d: &Decoded| d.values.root().map(|r| d.values.get(r).clone());
    let magic = pickles.small()?;
    if !lenient && !matches!(root(&magic), Some(Value::BigInt(b)) if b[..] == MAGIC) {
        return Err(bad("the magic number is not torch's"));
    }
    match root(&pickles.small()?) {
        Some(Value::Int(PROTOCOL)) => {}
        other => {
            return Err(Error::unsupported(format!(
                "protocol version {other:?}; the only one known is {PROTOCOL}"
            )));
        }
    }
    // The facts of the system that wrote it. Its byte order is not among those that matter: torch writes the
    // numbers of this format in little-endian order on every machine, and does not look at the flag either.
    pickles.small()?;
    let (object, account) = pickles.next(Account::of(limits, source.len()))?;
    let (keys, mut account) = pickles.next(account)?;
    let data_at = pickles.at;
    let Some(list) = keys.values.root().and_then(|r| keys.values.sequence(r)) else {
        return Err(bad("the list of storage keys is no list").at_offset(data_at));
    };
    let mut named: Vec<Box<str>> = Vec::new();
    for &key in list {
        let key = match keys.values.get(key) {
            Value::Str(s) => s.clone(),
            Value::Int(i) => i.to_string().into(),
            _ => return Err(bad("a storage's key is no text").at_offset(data_at)),
        };
        account.charge(2 * size_of::<Box<str>>() as u64 + block(key.len()))?;
        named.push(key);
    }
    let keys = named;
    let variety = format!("legacy stream, pickle protocol {}", object.protocol);
    let file = source.clone();
    TorchArchive::open(
        source,
        variety,
        object.values,
        false,
        Vec::new(),
        (limits, account),
        Box::new(move |wanted| {
            let mut slices = vec![None; wanted.len()];
            match place(&file, data_at, &keys, wanted, &mut slices) {
                Err(_) if lenient => {}
                other => other?,
            }
            let whole = |slice: Option<Slice>| match slice {
                Some(slice) => Ok(slice),
                None => file.slice(0, 0),
            };
            Ok(Box::new(Placed(slices.into_iter().map(whole).collect::<Result<_>>()?)))
        }),
        lenient,
    )
}

/// Finds each storage, for `slices`, behind the pickles. A storage's length is counted in elements, whose width only the
/// object's pickle says; so a key that it does not mention cannot be passed over.
fn place(
    source: &Source,
    mut at: u64,
    keys: &[Box<str>],
    wanted: &[(&str, u64)],
    slices: &mut [Option<Slice>],
) -> Result<()> {
    let by_key: std::collections::HashMap<&str, usize> =
        wanted.iter().enumerate().map(|(i, &(k, _))| (k, i)).collect();
    for key in keys {
        let Some(&index) = by_key.get(&**key) else {
            return Err(Error::malformed(format!("storage {key:?} is stored, and no tensor refers to it"))
                .at_offset(at));
        };
        let mut count = [0; 8];
        source.reader().read_at(at, &mut count).map_err(|e| e.with_hint(TRUNCATED))?;
        let count = u64::from_le_bytes(count);
        let bytes = wanted[index].1;
        // The count is of elements, one to eight (or sixteen) bytes each: it must divide the bytes.
        if count > bytes
            || (count == 0) != (bytes == 0)
            || (count > 0 && !(bytes.is_multiple_of(count) && bytes / count <= 16))
        {
            let what = format!("storage {key:?} counts {count} elements, and the pickle says {bytes} bytes");
            return Err(Error::malformed(what).at_offset(at));
        }
        if slices[index].is_some() {
            return Err(Error::malformed(format!("storage {key:?} is stored twice")).at_offset(at));
        }
        let whole = source.slice(at + 8, bytes);
        if whole.is_err() {
            // What a file that was cut off still has of it.
            slices[index] = source.slice(at + 8, source.len().saturating_sub(at + 8)).ok();
        }
        slices[index] = Some(whole?);
        at += 8 + bytes;
    }
    let missing = |i: usize| {
        Error::malformed(format!("storage {:?} is not in the file", wanted[i].0)).with_hint(TRUNCATED)
    };
    match slices.iter().position(Option::is_none) {
        Some(i) => Err(missing(i)),
        None => Ok(()),
    }
}
