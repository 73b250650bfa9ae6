//! A dataset's messages: what it declares, where its bytes are, and in which other files.

use weighbridge_formats::{Error, Result};

use super::file::{Cursor, File};
use super::header::{Message, kind};
use super::heap::{GlobalHeap, LocalHeap};
use super::value::{Datatype, dataspace, datatype, shared_datatype};

/// The most sources of one virtual dataset that are listed.
const MOST_SOURCES: u64 = 100_000;

/// How a dataset is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In its object header: so many bytes.
    Compact(u64),
    /// In one run, at an address if it has one, of so many bytes.
    Contiguous(Option<u64>, u64),
    /// In pieces.
    Chunked,
    /// In other datasets, by the files and paths of these.
    Virtual(Vec<(String, String)>),
}

/// A dataset.
#[derive(Clone, Debug)]
pub(super) struct Dataset {
    /// Its dimensions; none if it is a scalar.
    pub(super) dims: Vec<u64>,
    pub(super) datatype: Datatype,
    pub(super) layout: Layout,
    /// The numbers of its filters.
    pub(super) filters: Vec<u16>,
    /// The files that its bytes are in.
    pub(super) external: Vec<String>,
}

/// The dataset that an object's messages describe, if it is one.
pub(super) fn dataset(
    file: &mut File<'_>,
    heap: &mut GlobalHeap,
    messages: &[Message],
) -> Result<Option<Dataset>> {
    let find = |kind: u16| messages.iter().find(|m| m.kind == kind);
    let (Some(space), Some(layout)) = (find(kind::DATASPACE), find(kind::LAYOUT)) else { return Ok(None) };
    let Some(kind_of) = find(kind::DATATYPE) else { return Ok(None) };
    let datatype = match kind_of.shared {
        true => shared_datatype(file, &kind_of.body, kind_of.address)?,
        false => datatype(&kind_of.body)?,
    };
    if space.shared {
        return Err(
            Error::unsupported("a dataspace in the file's table of shared messages").at_offset(space.address)
        );
    }
    let dims = dataspace(&space.body, file.length_size)?.unwrap_or_else(|| vec![0]);
    let mut external = Vec::new();
    if let Some(message) = find(kind::EXTERNAL_FILES) {
        external = external_files(file, message)?;
    }
    let filters = find(kind::FILTERS).map(|m| filters(&m.body, m.address)).transpose()?.unwrap_or_default();
    Ok(Some(Dataset { dims, datatype, layout: read_layout(file, heap, layout)?, filters, external }))
}

fn read_layout(file: &mut File<'_>, heap: &mut GlobalHeap, message: &Message) -> Result<Layout> {
    let mut c = Cursor::new(&message.body, message.address);
    let (o, l) = (file.offset_size, file.length_size);
    let version = c.u8()?;
    let class = match version {
        1 | 2 => {
            c.skip(1)?;
            let class = c.u8()?;
            c.skip(5)?;
            class
        }
        3..=5 => c.u8()?,
        other => {
            return Err(Error::unsupported(format!("a layout of version {other}")).at_offset(message.address));
        }
    };
    Ok(match (class, version) {
        (0, 1 | 2) => Layout::Compact(message.body.len() as u64),
        (0, _) => Layout::Compact(c.u16()?.into()),
        (1, 1 | 2) => {
            let address = c.number(o)?;
            // The size is that of the dimensions, which those versions do not repeat.
            Layout::Contiguous((!file.is_undefined(address)).then_some(address), u64::MAX)
        }
        (1, _) => {
            let (address, size) = (c.number(o)?, c.number(l)?);
            Layout::Contiguous((!file.is_undefined(address)).then_some(address), size)
        }
        (2, _) => Layout::Chunked,
        (3, 4..) => {
            let (address, index) = (c.number(o)?, c.u32()?);
            if file.is_undefined(address) || address == 0 {
                return Ok(Layout::Virtual(Vec::new()));
            }
            Layout::Virtual(sources(&heap.object(file, address, index)?, l, address)?)
        }
        (other, _) => {
            return Err(Error::unsupported(format!("a layout of class {other}")).at_offset(message.address));
        }
    })
}

/// The files and datasets that a virtual dataset is put together from.
fn sources(block: &[u8], length_size: usize, at: u64) -> Result<Vec<(String, String)>> {
    let mut c = Cursor::new(block, at);
    let version = c.u8()?;
    let count = c.number(length_size)?;
    if count > MOST_SOURCES {
        return Err(Error::limit(format!("a virtual dataset of {count} sources")).at_offset(at));
    }
    let mut out: Vec<(String, String)> = Vec::new();
    for _ in 0..count {
        // From version 1 on a name may be one that came before, or the file itself.
        let flags = if version > 0 { c.u8()? } else { 0 };
        let file = match flags {
            f if f & 4 != 0 => ".".to_owned(),
            f if f & 1 != 0 => earlier(&mut c, length_size, &out, |s| &s.0)?,
            _ => c.c_string()?,
        };
        let path = if flags & 2 != 0 { earlier(&mut c, length_size, &out, |s| &s.1)? } else { c.c_string()? };
        out.push((file, path));
        selection(&mut c, at)?;
        selection(&mut c, at)?;
    }
    Ok(out)
}

fn earlier(
    c: &mut Cursor<'_>,
    length_size: usize,
    known: &[(String, String)],
    part: impl Fn(&(String, String)) -> &String,
) -> Result<String> {
    let index = c.number(length_size)?;
    let found = usize::try_from(index).ok().and_then(|i| known.get(i)).map(|s| part(s).clone());
    found
        .ok_or_else(|| Error::malformed(format!("a virtual dataset names source {index} before it is there")))
}

/// Passes over a selection of elements.
fn selection(c: &mut Cursor<'_>, at: u64) -> Result<()> {
    let unknown = |what: String| Err(Error::unsupported(what).at_offset(at));
    let (kind, version) = (c.u32()?, c.u32()?);
    let product = |parts: &[u64]| parts.iter().try_fold(1u64, |n, &p| n.checked_mul(p));
    let len = match (kind, version) {
        (0 | 3, _) => Some(8),
        (1 | 2, 1) => {
            c.skip(4)?;
            Some(u64::from(c.u32()?))
        }
        (2, 2) => {
            c.skip(1)?;
            Some(u64::from(c.u32()?))
        }
        (2, 3) => {
            let (flags, width, rank) = (c.u8()?, u64::from(c.u8()?), u64::from(c.u32()?));
            if flags & 1 != 0 {
                product(&[rank, 4, width])
            } else {
                let blocks = c.number(width.min(8) as usize)?;
                product(&[blocks, 2, rank, width])
            }
        }
        (1, 2) => {
            let (width, rank) = (u64::from(c.u8()?), u64::from(c.u32()?));
            let points = c.number(width.min(8) as usize)?;
            product(&[points, rank, width])
        }
        _ => return unknown(format!("a selection of kind {kind}, version {version}")),
    };
    c.skip(len.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX))
}

/// The names of the files that hold a dataset's bytes.
fn external_files(file: &mut File<'_>, message: &Message) -> Result<Vec<String>> {
    let mut c = Cursor::new(&message.body, message.address);
    c.skip(6)?;
    let used = c.u16()?;
    let heap = LocalHeap::open(file, c.number(file.offset_size)?)?;
    let mut names = Vec::new();
    for _ in 0..used {
        names.push(heap.text(c.number(file.length_size)?)?);
        c.skip(2 * file.length_size)?;
    }
    Ok(names)
}

/// The numbers of the filters of a pipeline.
fn filters(body: &[u8], at: u64) -> Result<Vec<u16>> {
    let mut c = Cursor::new(body, at);
    let (version, count) = (c.u8()?, c.u8()?);
    c.skip(if version == 1 { 6 } else { 0 })?;
    let mut out = Vec::new();
    for _ in 0..count {
        let id = c.u16()?;
        let name = if version == 1 || id >= 256 { usize::from(c.u16()?) } else { 0 };
        c.skip(2)?;
        let values = usize::from(c.u16()?);
        c.skip(if version == 1 { name.next_multiple_of(8) } else { name })?;
        c.skip(4 * values + if version == 1 && values % 2 == 1 { 4 } else { 0 })?;
        out.push(id);
    }
    Ok(out)
}
