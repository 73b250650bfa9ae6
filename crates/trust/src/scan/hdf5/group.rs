//! The links of a group: symbol tables of old files, link messages, and links kept in a fractal heap.

use weighbridge_formats::{Error, Result};

use super::file::{Cursor, File};
use super::header::{Message, kind};
use super::heap::{FractalHeap, LocalHeap};
use super::tree;

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To an object, by the address of its header.
    Hard(u64),
    /// To a path of the same file.
    Soft(String),
    /// To a path of another file.
    External { file: String, path: String },
    /// To what a program that knows this type makes of it.
    Other(u8),
}

/// A link of a group.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) target: Target,
}

/// The links that an object's messages say it has; none if it is no group.
pub(super) fn links(file: &mut File<'_>, messages: &[Message]) -> Result<Vec<Link>> {
    let mut out = Vec::new();
    for message in messages {
        let mut c = Cursor::new(&message.body, message.address);
        match message.kind {
            kind::LINK => out.push(link(file, &message.body, message.address)?),
            kind::SYMBOL_TABLE => {
                let (tree, heap) = (c.number(file.offset_size)?, c.number(file.offset_size)?);
                symbols(file, tree, heap, &mut out)?;
            }
            kind::LINK_INFO => {
                c.skip(1)?;
                let flags = c.u8()?;
                c.skip(if flags & 1 != 0 { 8 } else { 0 })?;
                let (heap, names) = (c.number(file.offset_size)?, c.number(file.offset_size)?);
                if !file.is_undefined(heap) {
                    dense(file, heap, names, &mut out)?;
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

/// The records of a tree by name, each a hash and a heap id.
fn dense(file: &mut File<'_>, heap: u64, names: u64, out: &mut Vec<Link>) -> Result<()> {
    let records = tree::records(file, names)?;
    let mut heap = FractalHeap::open(file, heap)?;
    for record in records {
        let id = record.get(4..).ok_or_else(|| Error::malformed("a link's record is too short"))?;
        let (at, body) = heap.object(file, id)?;
        out.push(link(file, &body, at)?);
    }
    Ok(())
}

/// Reads a link message.
fn link(file: &File<'_>, body: &[u8], at: u64) -> Result<Link> {
    let mut c = Cursor::new(body, at);
    let (version, flags) = (c.u8()?, c.u8()?);
    if version != 1 {
        return Err(Error::unsupported(format!("a link of version {version}")).at_offset(at));
    }
    let kind = if flags & 8 != 0 { c.u8()? } else { 0 };
    c.skip(if flags & 4 != 0 { 8 } else { 0 })?;
    c.skip(if flags & 16 != 0 { 1 } else { 0 })?;
    let len = c.number(1 << (flags & 3))?;
    let name = c.take(usize::try_from(len).unwrap_or(usize::MAX))?;
    let name = String::from_utf8_lossy(name).into_owned();
    let target = match kind {
        0 => Target::Hard(c.number(file.offset_size)?),
        1 => {
            let len = c.u16()?.into();
            Target::Soft(String::from_utf8_lossy(c.take(len)?).into_owned())
        }
        64 => {
            let len = c.u16()?.into();
            let value = c.take(len)?;
            let mut v = Cursor::new(value, at);
            v.skip(1)?;
            let file = v.c_string()?;
            let rest = value.get(v.at..).unwrap_or_default();
            let path = rest.split(|&b| b == 0).next().unwrap_or_default();
            Target::External { file, path: String::from_utf8_lossy(path).into_owned() }
        }
        other => Target::Other(other),
    };
    Ok(Link { name, target })
}

/// The links of a group of the old kind.
fn symbols(file: &mut File<'_>, tree: u64, heap: u64, out: &mut Vec<Link>) -> Result<()> {
    let heap = LocalHeap::open(file, heap)?;
    let entry = 2 * file.offset_size as u64 + 24;
    for node in tree::symbol_nodes(file, tree)? {
        let head = file.read(node, 8)?;
        let mut c = Cursor::new(&head, node);
        c.mark(b"SNOD")?;
        c.skip(2)?;
        let count = u64::from(c.u16()?);
        let body = file.read(node, 8 + count * entry)?;
        let mut c = Cursor::new(&body, node);
        c.skip(8)?;
        for _ in 0..count {
            let (name, object) = (c.number(file.offset_size)?, c.number(file.offset_size)?);
            let cached = c.u32()?;
            c.skip(4)?;
            let value = u64::from(c.u32()?);
            c.skip(12)?;
            let target = if cached == 2 { Target::Soft(heap.text(value)?) } else { Target::Hard(object) };
            out.push(Link { name: heap.text(name)?, target });
        }
    }
    Ok(())
}
