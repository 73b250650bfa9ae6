//! Datatypes, dataspaces and attributes, as far as text and sizes go.

use weighbridge_formats::{Error, Result};

use super::file::{Cursor, File};
use super::heap::GlobalHeap;

/// The most bytes of an attribute's text that are looked at.
const MOST_TEXT: usize = 8 << 20;
/// The most texts of one attribute.
const MOST_TEXTS: u64 = 100_000;

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Numbers, times, bit fields, enumerations.
    Plain,
    /// Text of a fixed length.
    Text,
    /// Text of any length, in a global heap.
    VariableText,
    /// A sequence of any length, in a global heap.
    Sequence,
    Opaque,
    Reference,
    Compound,
    Array,
    Unknown(u8),
}

/// A datatype: its class and the bytes of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datatype {
    pub(super) class: Class,
    pub(super) size: u32,
    /// The bytes of an element of a sequence.
    pub(super) base: u32,
}

/// Reads a datatype message.
pub(super) fn datatype(body: &[u8]) -> Result<Datatype> {
    let mut c = Cursor::new(body, 0);
    let class = c.u8()? & 15;
    let bits = c.number(3)?;
    let size = c.u32()?;
    let (class, mut base) = match class {
        0 | 1 | 2 | 4 | 8 | 11 => (Class::Plain, 0),
        3 => (Class::Text, 0),
        5 => (Class::Opaque, 0),
        6 => (Class::Compound, 0),
        7 => (Class::Reference, 0),
        9 if bits & 15 == 1 => (Class::VariableText, 1),
        9 => (Class::Sequence, 0),
        10 => (Class::Array, 0),
        other => (Class::Unknown(other), 0),
    };
    if class == Class::Sequence {
        c.skip(4)?;
        base = c.u32()?;
    }
    Ok(Datatype { class, size, base })
}

/// The dimensions of a dataspace message; none for a scalar, `None` for the empty space.
pub(super) fn dataspace(body: &[u8], length_size: usize) -> Result<Option<Vec<u64>>> {
    let mut c = Cursor::new(body, 0);
    let (version, rank) = (c.u8()?, c.u8()?);
    c.skip(1)?;
    match version {
        1 => c.skip(5)?,
        2 => {
            if c.u8()? == 2 {
                return Ok(None);
            }
        }
        other => return Err(Error::unsupported(format!("a dataspace of version {other}"))),
    }
    (0..rank).map(|_| c.number(length_size)).collect::<Result<_>>().map(Some)
}

/// The elements of a dataspace, if that is a number.
pub(super) fn elements(dims: &[u64]) -> Option<u64> {
    // Zero wins over an overflow: such a space is empty.
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
}

/// An attribute.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) class: Class,
    /// What it says, where that is text or opaque bytes: one for each element.
    pub(super) texts: Vec<Vec<u8>>,
}

/// Reads an attribute message. `resolve` finds a datatype that is kept elsewhere.
pub(super) fn attribute(
    file: &mut File<'_>,
    heap: &mut GlobalHeap,
    body: &[u8],
    at: u64,
) -> Result<Attribute> {
    let mut c = Cursor::new(body, at);
    let (version, flags) = (c.u8()?, c.u8()?);
    let (name_len, type_len, space_len) = (c.u16()?, c.u16()?, c.u16()?);
    match version {
        1 | 2 => {}
        3 => c.skip(1)?,
        other => return Err(Error::unsupported(format!("an attribute of version {other}")).at_offset(at)),
    }
    let padded = |n: u16| if version == 1 { usize::from(n).next_multiple_of(8) } else { usize::from(n) };
    let name = c.take(padded(name_len))?;
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let (kind, space) = (c.take(padded(type_len))?, c.take(padded(space_len))?);
    let kind = if version > 1 && flags & 1 != 0 { shared_datatype(file, kind, at)? } else { datatype(kind)? };
    if version > 1 && flags & 2 != 0 {
        return Err(Error::unsupported("an attribute whose dataspace is kept elsewhere").at_offset(at));
    }
    let mut out = Attribute { name, class: kind.class, texts: Vec::new() };
    let Some(dims) = dataspace(space, file.length_size)? else { return Ok(out) };
    let count = elements(&dims)
        .ok_or_else(|| Error::malformed("an attribute's elements pass 64 bits").at_offset(at))?;
    match kind.class {
        Class::Text | Class::Opaque if kind.size > 0 => {
            let data = c.take(c.left())?;
            let fits = (data.len() / kind.size as usize) as u64;
            if count > fits {
                let what = format!(
                    "an attribute of {count} elements of {} bytes, and {} bytes",
                    kind.size,
                    data.len()
                );
                return Err(Error::malformed(what).at_offset(at));
            }
            // An array of texts is looked at as the one run of bytes that it is where it has too many of them.
            let each = if count > MOST_TEXTS { data.len() } else { kind.size as usize };
            let used = data.get(..(count * u64::from(kind.size)) as usize).unwrap_or(data);
            out.texts = used.chunks(each.max(1)).map(<[u8]>::to_vec).collect();
        }
        Class::VariableText | Class::Sequence => {
            let each = 8 + file.offset_size;
            if count > MOST_TEXTS || count as usize > c.left() / each {
                let what = format!("an attribute of {count} texts, and {} bytes for them", c.left());
                return Err(Error::malformed(what).at_offset(at));
            }
            let mut left = MOST_TEXT;
            for _ in 0..count {
                let len = c.u32()? as usize;
                let (address, index) = (c.number(file.offset_size)?, c.u32()?);
                if len == 0 || address == 0 || file.is_undefined(address) {
                    out.texts.push(Vec::new());
                    continue;
                }
                let mut text = heap.object(file, address, index)?;
                let wanted = len.saturating_mul(kind.base.max(1) as usize);
                text.truncate(wanted);
                left = left.checked_sub(text.len()).ok_or_else(|| {
                    Error::limit(format!("an attribute with more than {MOST_TEXT} bytes of text"))
                        .at_offset(at)
                })?;
                out.texts.push(text);
            }
        }
        _ => {}
    }
    Ok(out)
}

/// A datatype that is a message of another object.
pub(super) fn shared_datatype(file: &mut File<'_>, body: &[u8], at: u64) -> Result<Datatype> {
    let mut c = Cursor::new(body, at);
    let (version, how) = (c.u8()?, c.u8()?);
    match version {
        1 => c.skip(6)?,
        2 => {}
        3 if how == 2 => {}
        _ => {
            return Err(Error::unsupported("a datatype in the file's table of shared messages").at_offset(at));
        }
    }
    let address = c.number(file.offset_size)?;
    let messages = super::header::messages(file, address)?;
    let found = messages.iter().find(|m| m.kind == super::header::kind::DATATYPE && !m.shared);
    datatype(
        &found.ok_or_else(|| Error::malformed("a committed datatype without one").at_offset(address))?.body,
    )
}
