//! A walk over the fields of a protobuf message in a file: what is not looked at is not read.

use super::wire::{MAX_VARINT, Wire, split_key, varint};
use crate::error::{Error, Result};
use crate::source::{Source, TRUNCATED};

/// A field: where it is in the file, and its value if that is a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) wire: Wire,
    /// Where its key begins.
    pub(super) start: u64,
    /// Where its content begins: behind the length, where it has one.
    pub(super) content: u64,
    /// Where it ends.
    pub(super) end: u64,
    /// The number of a varint.
    pub(super) value: u64,
}

impl Field {
    /// The bytes of its content.
    pub(super) fn len(&self) -> u64 {
        self.end - self.content
    }

    /// Insists on a wire type.
    pub(super) fn expect(&self, wire: Wire, name: &str) -> Result<()> {
        if self.wire == wire {
            return Ok(());
        }
        let what = format!("`{name}` is written as {:?}, and is of {wire:?}", self.wire);
        Err(Error::malformed(what).at_offset(self.start))
    }
}

/// How much of the file is looked at at once.
const WINDOW: u64 = 32 << 10;

/// A window on a file.
pub(super) struct Cursor<'a> {
    source: &'a Source,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, window: Vec::new(), window_at: 0 }
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// The bytes from `at` on, at least `least` of them unless `end` comes before.
    fn peek(&mut self, at: u64, least: u64, end: u64) -> Result<&[u8]> {
        let wanted = end.min(self.source.len()).saturating_sub(at).min(least);
        let inside = at >= self.window_at && at + wanted <= self.window_at + self.window.len() as u64;
        if !inside {
            let len = (self.source.len() - at.min(self.source.len())).min(WINDOW);
            self.window.resize(len as usize, 0);
            self.window_at = at;
            self.source.reader().read_at(at, &mut self.window)?;
        }
        let from = (at - self.window_at) as usize;
        let to = self.window.len().min(from + end.saturating_sub(at).min(WINDOW) as usize);
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    /// A varint at `at` in a message that ends at `end`; and where it ends.
    pub(super) fn varint(&mut self, at: u64, end: u64) -> Result<(u64, u64)> {
        let bytes = self.peek(at, MAX_VARINT as u64, end)?;
        let short = bytes.len() < MAX_VARINT;
        match varint(bytes) {
            Some((number, len)) => Ok((number, at + len as u64)),
            None if short => Err(Error::malformed("a message ends within a number").at_offset(at)),
            None => Err(Error::malformed("a number does not end after ten bytes, or has more than 64 bits")
                .at_offset(at)),
        }
    }

    /// The field at `at` in a message that ends at `end`; `None` at its end.
    pub(super) fn field(&mut self, at: u64, end: u64) -> Result<Option<Field>> {
        if at >= end {
            return Ok(None);
        }
        let (key, behind) = self.varint(at, end)?;
        let (number, wire) = split_key(key).map_err(|e| e.at_offset(at))?;
        let mut field = Field { number, wire, start: at, content: behind, end: behind, value: 0 };
        let len = match wire {
            Wire::Varint => {
                (field.value, field.end) = self.varint(behind, end)?;
                return Ok(Some(field));
            }
            Wire::Fixed64 => 8,
            Wire::Fixed32 => 4,
            Wire::Bytes => {
                let (len, content) = self.varint(behind, end)?;
                field.content = content;
                len
            }
        };
        match field.content.checked_add(len).filter(|&e| e <= end) {
            Some(e) => field.end = e,
            None => {
                let rest = end.saturating_sub(field.content);
                let what = format!("field {number} has {len} bytes, and {rest} are left of what it is in");
                let error = Error::malformed(what).at_offset(at);
                let beyond = field.content.checked_add(len).is_none_or(|e| e > self.source.len());
                return Err(if beyond { error.with_hint(TRUNCATED) } else { error });
            }
        }
        Ok(Some(field))
    }

    /// The bytes of a span, at most `limit` of them.
    pub(super) fn bytes(&mut self, start: u64, end: u64, limit: u64) -> Result<Vec<u8>> {
        let len = end - start;
        if len > limit {
            let what =
                format!("{len} bytes beside the tensors would be read into memory; the limit leaves {limit}");
            return Err(Error::limit(what).at_offset(start));
        }
        if len <= WINDOW {
            let bytes = self.peek(start, len, end)?;
            if let Some(found) = bytes.get(..len as usize) {
                return Ok(found.to_vec());
            }
        }
        let mut out = crate::tensor::zeroed(len)?;
        self.source.reader().read_at(start, &mut out)?;
        Ok(out)
    }

    /// A string field's text.
    pub(super) fn text(&mut self, field: &Field, name: &str, limit: u64) -> Result<String> {
        field.expect(Wire::Bytes, name)?;
        let bytes = self.bytes(field.content, field.end, limit)?;
        String::from_utf8(bytes)
            .map_err(|_| Error::malformed(format!("`{name}` is no UTF-8")).at_offset(field.content))
    }
}
