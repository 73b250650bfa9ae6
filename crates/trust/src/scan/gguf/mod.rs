//! GGUF files: a header that is held against itself and the file, and the templates in it.
//!
//! After the GGUF specification of ggml, versions 1 to 3 and both byte orders. Values are passed over, not kept; what is
//! kept are names, of which there is a bound.

use std::collections::HashSet;

use weighbridge_formats::{Error, Result, Source};

use super::report::Verdict;
use super::subject::{Role, Sink, Subject};
use super::template;

/// How much of the file is looked at at once.
const WINDOW: u64 = 64 << 10;
/// The most bytes of keys and names together.
const MOST_NAMES: usize = 16 << 20;
/// The most values and strings that are passed over.
const MOST_STEPS: u64 = 30_000_000;
/// The longest header that is read.
const MOST_HEADER: u64 = 512 << 20;
/// The most findings of one file.
const MOST_LIES: usize = 50;
/// The most dimensions of a tensor.
const MOST_DIMS: u32 = 4;

/// Element types: how many elements a block has, and how many bytes it takes.
const TYPES: &[(u32, u64, u64)] = &[
    (0, 1, 4),
    (1, 1, 2),
    (2, 32, 18),
    (3, 32, 20),
    (6, 32, 22),
    (7, 32, 24),
    (8, 32, 34),
    (9, 32, 36),
    (10, 256, 84),
    (11, 256, 110),
    (12, 256, 144),
    (13, 256, 176),
    (14, 256, 210),
    (15, 256, 292),
    (16, 256, 66),
    (17, 256, 74),
    (18, 256, 98),
    (19, 256, 50),
    (20, 32, 18),
    (21, 256, 110),
    (22, 256, 82),
    (23, 256, 136),
    (24, 1, 1),
    (25, 1, 2),
    (26, 1, 4),
    (27, 1, 8),
    (28, 1, 8),
    (29, 256, 56),
    (30, 1, 2),
    (31, 32, 18),
    (32, 32, 18),
    (33, 32, 18),
    (34, 256, 54),
    (35, 256, 66),
    (39, 32, 17),
];

/// Whether a subject has GGUF's mark.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    subject.role == Role::Anything && (subject.head.starts_with(b"GGUF") || subject.head.starts_with(b"FUGG"))
}

/// Looks at a file.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut header = Header {
        source: subject.source,
        window: Vec::new(),
        from: 0,
        at: 4,
        big: false,
        wide: true,
        steps: 0,
    };
    let mut file = Gguf { subject, sink, lies: 0, alignment: 32, names: 0 };
    match file.read(&mut header) {
        // What a header breaks off with is a lie of its own: its counts promised more.
        Err(error) if error.kind() == weighbridge_formats::ErrorKind::Malformed => {
            file.lie(error.offset().unwrap_or(header.at), error.message().to_owned());
            Ok(())
        }
        other => other,
    }
}

/// A place in the header.
struct Header<'a> {
    source: &'a Source,
    window: Vec<u8>,
    from: u64,
    at: u64,
    /// Whether numbers are big-endian.
    big: bool,
    /// Whether counts and lengths have eight bytes; in version 1 they have four.
    wide: bool,
    steps: u64,
}

impl Header<'_> {
    fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.at)
    }

    fn take(&mut self, len: u64) -> Result<&[u8]> {
        if len > self.left() {
            let what = format!("{len} bytes are promised, and {} are left of the file", self.left());
            return Err(Error::malformed(what).at_offset(self.at));
        }
        if self.at > MOST_HEADER || len > WINDOW {
            return Err(Error::limit(format!("a header of more than {MOST_HEADER} bytes")).at_offset(self.at));
        }
        let end = self.from + self.window.len() as u64;
        if self.at < self.from || self.at + len > end {
            let span = self.left().min(WINDOW);
            self.window.resize(span as usize, 0);
            self.from = self.at;
            self.source.reader().read_at(self.at, &mut self.window)?;
        }
        let start = (self.at - self.from) as usize;
        self.at += len;
        Ok(self.window.get(start..start + len as usize).unwrap_or_default())
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        if len > self.left() {
            let what = format!("{len} bytes are promised, and {} are left of the file", self.left());
            return Err(Error::malformed(what).at_offset(self.at));
        }
        self.at += len;
        Ok(())
    }

    fn number(&mut self, len: u64) -> Result<u64> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(Error::limit(format!("a header of more than {MOST_STEPS} values")).at_offset(self.at));
        }
        let big = self.big;
        let bytes = self.take(len)?;
        let add = |n: u64, &b: &u8| n << 8 | u64::from(b);
        Ok(if big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.number(4)? as u32)
    }

    /// A count or length.
    fn count(&mut self) -> Result<u64> {
        self.number(if self.wide { 8 } else { 4 })
    }

    /// A key or name, which is never long.
    fn name(&mut self) -> Result<String> {
        let (at, len) = (self.at, self.count()?);
        if len > WINDOW - 1 {
            let what = format!("a name of {len} bytes, where at most {} are allowed", WINDOW - 1);
            return Err(Error::malformed(what).at_offset(at));
        }
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }
}

/// The bytes of a value of a fixed size.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

struct Gguf<'a, 's, 'k> {
    subject: &'a Subject<'s>,
    sink: &'a mut Sink<'k>,
    lies: usize,
    alignment: u64,
    /// The bytes of names that are kept.
    names: usize,
}

impl Gguf<'_, '_, '_> {
    fn lie(&mut self, at: u64, what: String) {
        self.lies += 1;
        if self.lies <= MOST_LIES {
            self.sink.finding(self.subject.finding("gguf-lies", Verdict::Dangerous, what).at(at));
        }
    }

    fn keep(&mut self, kept: &mut HashSet<String>, name: String, what: &str, at: u64) -> Result<()> {
        if name.is_empty() || name.contains('\0') {
            self.lie(at, format!("the {what} {name:?} is no name"));
        }
        self.names += name.len() + 32;
        if self.names > MOST_NAMES {
            return Err(Error::limit(format!("names of more than {MOST_NAMES} bytes")).at_offset(at));
        }
        if let Some(twice) = kept.replace(name) {
            self.lie(at, format!("the {what} {twice:?} is there twice"));
        }
        Ok(())
    }

    fn read(&mut self, h: &mut Header<'_>) -> Result<()> {
        h.big = self.subject.head.starts_with(b"FUGG");
        let mut version = h.u32()?;
        if version > 0xFFFF && !h.big {
            (h.big, version) = (true, version.swap_bytes());
        }
        if !(1..=3).contains(&version) {
            return Err(Error::unsupported(format!("version {version} of GGUF")).at_offset(4));
        }
        h.wide = version > 1;
        let (tensors, keys) = (h.count()?, h.count()?);
        // A key takes at least its length, a type and a byte; a tensor its length, four numbers and a name.
        let least = if h.wide { (32, 13) } else { (20, 9) };
        let needed =
            tensors.checked_mul(least.0).zip(keys.checked_mul(least.1)).and_then(|(t, k)| t.checked_add(k));
        if needed.is_none_or(|n| n > h.left()) {
            let what = format!("it counts {tensors} tensors and {keys} keys in {} bytes", h.left());
            return Err(Error::malformed(what).at_offset(8));
        }
        let mut known = HashSet::new();
        for _ in 0..keys {
            let at = h.at;
            let key = h.name()?;
            let kind = h.u32()?;
            self.value(h, &key, kind)?;
            self.keep(&mut known, key, "key", at)?;
        }
        let mut known = HashSet::new();
        let mut spans = Vec::new();
        for _ in 0..tensors {
            let at = h.at;
            let name = h.name()?;
            let span = self.tensor(h, &name, at)?;
            spans.extend(span.map(|(start, len)| (start, len, at)));
            self.keep(&mut known, name, "tensor", at)?;
            if spans.len() > 1 << 20 {
                return Err(Error::limit("more than a million tensors").at_offset(at));
            }
        }
        let data = h.at.checked_next_multiple_of(self.alignment.max(1)).unwrap_or(u64::MAX);
        self.spans(spans, data);
        Ok(())
    }

    fn value(&mut self, h: &mut Header<'_>, key: &str, kind: u32) -> Result<()> {
        let at = h.at;
        match kind {
            8 => {
                let len = h.count()?;
                if key.starts_with("tokenizer.chat_template") && len <= h.left() {
                    let text = self.subject.source.read_vec(h.at, len.min(2 << 20), self.sink.limits)?;
                    let place = self.subject.inside(format!("key {key}"));
                    template::inspect(&String::from_utf8_lossy(&text), &place, 0, self.sink);
                }
                h.skip(len)
            }
            9 => {
                let (inner, count) = (h.u32()?, h.count()?);
                match inner {
                    9 => {
                        Err(Error::malformed(format!("the key {key:?} is an array of arrays")).at_offset(at))
                    }
                    8 => {
                        let least = if h.wide { 8 } else { 4 };
                        if count.checked_mul(least).is_none_or(|n| n > h.left()) {
                            let what = format!("the key {key:?} counts {count} texts in {} bytes", h.left());
                            return Err(Error::malformed(what).at_offset(at));
                        }
                        for _ in 0..count {
                            let len = h.count()?;
                            h.skip(len)?;
                        }
                        Ok(())
                    }
                    other => match width(other).map(|w| count.checked_mul(w)) {
                        Some(Some(bytes)) => h.skip(bytes),
                        Some(None) => {
                            let what = format!("the key {key:?} counts {count} values, past 64 bits");
                            Err(Error::malformed(what).at_offset(at))
                        }
                        None => Err(Error::malformed(format!("the key {key:?} is an array of type {other}"))
                            .at_offset(at)),
                    },
                }
            }
            _ => {
                let Some(width) = width(kind) else {
                    return Err(Error::malformed(format!("the key {key:?} is of type {kind}")).at_offset(at));
                };
                let value = h.number(width)?;
                if key == "general.alignment" {
                    if kind != 4 || !value.is_power_of_two() || !(8..=1 << 20).contains(&value) {
                        self.lie(at, format!("an alignment of {value}"));
                    } else {
                        self.alignment = value;
                    }
                }
                Ok(())
            }
        }
    }

    /// A tensor's place in the data and its length.
    fn tensor(&mut self, h: &mut Header<'_>, name: &str, at: u64) -> Result<Option<(u64, u64)>> {
        let rank = h.u32()?;
        if rank > MOST_DIMS {
            let what =
                format!("the tensor {name:?} has {rank} dimensions, where at most {MOST_DIMS} are allowed");
            return Err(Error::malformed(what).at_offset(at));
        }
        let mut elements = Some(1u64);
        let mut first = 1;
        for i in 0..rank {
            let dim = h.count()?;
            if i == 0 {
                first = dim;
            }
            if dim == 0 {
                self.lie(at, format!("the tensor {name:?} has a dimension of 0"));
            }
            elements = elements.and_then(|n| n.checked_mul(dim)).filter(|&n| n <= i64::MAX as u64);
        }
        let (kind, offset) = (h.u32()?, h.number(8)?);
        let Some(elements) = elements else {
            self.lie(at, format!("the elements of the tensor {name:?} pass 63 bits"));
            return Ok(None);
        };
        let Some((_, block, bytes)) = TYPES.iter().find(|t| t.0 == kind) else {
            let what = format!("the tensor {name:?} is of the unknown type {kind}");
            self.sink.finding(self.subject.finding("unreadable", Verdict::Unknown, what).at(at));
            return Ok(None);
        };
        if first % block != 0 {
            self.lie(
                at,
                format!("the tensor {name:?} has rows of {first}, which are no whole blocks of {block}"),
            );
            return Ok(None);
        }
        let Some(len) = (elements / block).checked_mul(*bytes) else {
            self.lie(at, format!("the bytes of the tensor {name:?} pass 64 bits"));
            return Ok(None);
        };
        Ok(Some((offset, len)))
    }

    /// Where tensors are, against the file and each other.
    fn spans(&mut self, mut spans: Vec<(u64, u64, u64)>, data: u64) {
        spans.sort_unstable();
        let length = self.subject.source.len();
        let mut before = 0;
        for (start, len, at) in spans {
            if start % self.alignment != 0 {
                self.lie(
                    at,
                    format!("a tensor at {start}, which is no multiple of the alignment {}", self.alignment),
                );
            }
            if start < before && len > 0 {
                self.lie(
                    at,
                    format!("a tensor at {start} begins before the one before it ends, at {before}"),
                );
            }
            let end = data.checked_add(start).and_then(|s| s.checked_add(len));
            if end.is_none_or(|e| e > length) {
                self.lie(
                    at,
                    format!(
                        "a tensor of {len} bytes at {start} of the data passes the file's end at {length}"
                    ),
                );
            }
            before = before.max(start.saturating_add(len));
        }
    }
}

#[cfg(test)]
mod tests;
