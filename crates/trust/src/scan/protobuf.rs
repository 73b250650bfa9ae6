//! A walk over the fields of protobuf messages in a file: nothing is read but keys, lengths and what is asked for.

use weighbridge_formats::{Error, Result, Source};

/// How much of the file is looked at at once.
const WINDOW: u64 = 32 << 10;
/// The most fields of one file that are passed.
const MOST_FIELDS: u64 = 1_500_000;

/// A field: where its content is, and its value where it is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) value: u64,
    /// Whether it is text, bytes or a message.
    pub(super) is_bytes: bool,
}

/// A window on a file.
pub(super) struct Reader<'a> {
    source: &'a Source,
    window: Vec<u8>,
    at: u64,
    fields_left: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, window: Vec::new(), at: 0, fields_left: MOST_FIELDS }
    }

    /// The whole file as one message.
    pub(super) fn all(&self) -> Field {
        Field { number: 0, start: 0, end: self.source.len(), value: 0, is_bytes: true }
    }

    fn byte(&mut self, at: u64) -> Result<u8> {
        let inside = at.checked_sub(self.at).and_then(|i| self.window.get(i as usize)).copied();
        if let Some(byte) = inside {
            return Ok(byte);
        }
        let len = self.source.len().saturating_sub(at).min(WINDOW);
        self.window.resize(len as usize, 0);
        self.at = at;
        self.source.reader().read_at(at, &mut self.window)?;
        self.window.first().copied().ok_or_else(|| Error::malformed("the message ends early").at_offset(at))
    }

    fn varint(&mut self, at: &mut u64, end: u64) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            if *at >= end {
                return Err(Error::malformed("a message ends within a number").at_offset(*at));
            }
            let byte = self.byte(*at)?;
            *at += 1;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::malformed("a number of more than ten bytes").at_offset(*at))
    }

    /// The field at `at` of a message, and `at` moved behind it; `None` at the message's end.
    pub(super) fn next(&mut self, at: &mut u64, message: &Field) -> Result<Option<Field>> {
        if *at >= message.end {
            return Ok(None);
        }
        let from = *at;
        self.fields_left = self.fields_left.checked_sub(1).ok_or_else(|| {
            Error::limit(format!("the file has more than {MOST_FIELDS} fields")).at_offset(from)
        })?;
        let key = self.varint(at, message.end)?;
        let number = u32::try_from(key >> 3).unwrap_or_default();
        let mut field = Field { number, start: *at, end: *at, value: 0, is_bytes: false };
        let len = match key & 7 {
            0 => {
                field.value = self.varint(at, message.end)?;
                0
            }
            1 => 8,
            2 => {
                field.is_bytes = true;
                let len = self.varint(at, message.end)?;
                field.start = *at;
                len
            }
            5 => 4,
            other => return Err(Error::malformed(format!("a field of wire type {other}")).at_offset(from)),
        };
        field.end = at.checked_add(len).filter(|&e| e <= message.end).ok_or_else(|| {
            Error::malformed(format!("a field of {len} bytes passes the end of its message")).at_offset(from)
        })?;
        *at = field.end;
        Ok(Some(field))
    }

    /// Every field of a message, by its number, given to `take`.
    pub(super) fn each(
        &mut self,
        message: &Field,
        mut take: impl FnMut(&mut Self, Field) -> Result<()>,
    ) -> Result<()> {
        let mut at = message.start;
        while let Some(field) = self.next(&mut at, message)? {
            take(self, field)?;
        }
        Ok(())
    }

    /// The text of a field, at most `most` bytes of it.
    pub(super) fn text(&mut self, field: &Field, most: u64) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(field, most)?).into_owned())
    }

    /// The bytes of a field, at most `most` of them.
    pub(super) fn bytes(&mut self, field: &Field, most: u64) -> Result<Vec<u8>> {
        let len = (field.end - field.start).min(most) as usize;
        let from = field.start.checked_sub(self.at).map_or(usize::MAX, |i| i as usize);
        if let Some(found) = from.checked_add(len).and_then(|to| self.window.get(from..to)) {
            return Ok(found.to_vec());
        }
        let mut out = vec![0; len];
        self.source.reader().read_at(field.start, &mut out)?;
        Ok(out)
    }
}

/// Messages made by hand, for tests.
#[cfg(test)]
pub(super) mod make {
    pub(in super::super) fn number(field: u32, value: u64) -> Vec<u8> {
        let mut out = varint(u64::from(field) << 3);
        out.extend(varint(value));
        out
    }

    pub(in super::super) fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
        let mut out = varint(u64::from(field) << 3 | 2);
        out.extend(varint(content.len() as u64));
        out.extend_from_slice(content);
        out
    }

    pub(in super::super) fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field>> {
        let source = Source::from_bytes(bytes);
        let mut reader = Reader::new(&source);
        let mut found = Vec::new();
        let all = reader.all();
        reader.each(&all, |_, f| {
            found.push(f);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn fields_are_found_and_lies_are_errors() {
        let mut bytes = make::number(1, 300);
        bytes.extend(make::bytes(2, b"abc"));
        bytes.extend([5 << 3 | 5, 0, 0, 0, 0, 6 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let found = fields(&bytes).unwrap();
        assert_eq!(found.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 2, 5, 6]);
        assert_eq!((found[0].value, found[1].end - found[1].start), (300, 3));
        for bad in [
            &b"\x12\x05ab"[..],
            b"\x08",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b",
            b"\x09\0",
        ] {
            assert!(fields(bad).is_err(), "{bad:?}");
        }
        assert!(fields(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
    }
}
