//! Object headers of both versions: the messages of an object, through all their continuations.

use std::collections::HashSet;

use weighbridge_formats::{Error, Result};

use super::file::{Cursor, File};

/// The most messages of one object.
const MOST_MESSAGES: usize = 70_000;

/// The kinds of message that are looked at.
pub(super) mod kind {
    pub(in super::super) const DATASPACE: u16 = 0x01;
    pub(in super::super) const LINK_INFO: u16 = 0x02;
    pub(in super::super) const DATATYPE: u16 = 0x03;
    pub(in super::super) const LINK: u16 = 0x06;
    pub(in super::super) const EXTERNAL_FILES: u16 = 0x07;
    pub(in super::super) const LAYOUT: u16 = 0x08;
    pub(in super::super) const FILTERS: u16 = 0x0B;
    pub(in super::super) const ATTRIBUTE: u16 = 0x0C;
    pub(super) const CONTINUATION: u16 = 0x10;
    pub(in super::super) const SYMBOL_TABLE: u16 = 0x11;
    pub(in super::super) const ATTRIBUTE_INFO: u16 = 0x15;
}

/// A message of an object header.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    /// Where its body begins, as an address.
    pub(super) address: u64,
    pub(super) body: Vec<u8>,
    /// Whether the body says where the message is instead of being it.
    pub(super) shared: bool,
}

/// The messages of the object at an address.
pub(super) fn messages(file: &mut File<'_>, address: u64) -> Result<Vec<Message>> {
    let head = file.read_up_to(address, 64)?;
    if head.starts_with(b"OHDR") { version_2(file, address, &head) } else { version_1(file, address, &head) }
}

/// A block of messages that is still to be read: its address and length.
type Block = (u64, u64);

fn version_1(file: &mut File<'_>, address: u64, head: &[u8]) -> Result<Vec<Message>> {
    let mut c = Cursor::new(head, address);
    let version = c.u8()?;
    if version != 1 {
        let what = format!("no object header: it begins with {version}");
        return Err(Error::malformed(what).at_offset(address));
    }
    c.skip(7)?;
    let size = u64::from(c.u32()?);
    let start = address.saturating_add(16);
    read_blocks(file, (start, size), |block, at, found, more| {
        let mut c = Cursor::new(block, at);
        while c.left() >= 8 {
            let kind = c.u16()?;
            let len = c.u16()?;
            let flags = c.u8()?;
            c.skip(3)?;
            push(&mut c, (kind, len, flags), at, found, more)?;
        }
        Ok(())
    })
}

fn version_2(file: &mut File<'_>, address: u64, head: &[u8]) -> Result<Vec<Message>> {
    let mut c = Cursor::new(head, address);
    c.mark(b"OHDR")?;
    let (version, flags) = (c.u8()?, c.u8()?);
    if version != 2 {
        return Err(Error::malformed(format!("an object header of version {version}")).at_offset(address));
    }
    c.skip(if flags & 0x20 != 0 { 16 } else { 0 })?;
    c.skip(if flags & 0x10 != 0 { 4 } else { 0 })?;
    let size = c.number(1 << (flags & 3))?;
    let order = if flags & 4 != 0 { 2 } else { 0 };
    let first = (address.saturating_add(c.at as u64), size);
    read_blocks(file, first, |block, at, found, more| {
        // A continuation has a signature before its messages, and every block a checksum behind them.
        let continued = at != first.0;
        let body =
            if continued { block.get(..block.len().saturating_sub(4)).unwrap_or_default() } else { block };
        let mut c = Cursor::new(body, at);
        if continued {
            c.mark(b"OCHK")?;
        }
        while c.left() >= 4 + order {
            let kind = u16::from(c.u8()?);
            let len = c.u16()?;
            let flags = c.u8()?;
            c.skip(order)?;
            push(&mut c, (kind, len, flags), at, found, more)?;
        }
        Ok(())
    })
}

/// What reads the messages of one block: its bytes, its address, the messages, and the continuations' bodies.
type ReadBlock<'f> = dyn FnMut(&[u8], u64, &mut Vec<Message>, &mut Vec<Vec<u8>>) -> Result<()> + 'f;

fn read_blocks(
    file: &mut File<'_>,
    first: Block,
    mut read: impl FnMut(&[u8], u64, &mut Vec<Message>, &mut Vec<Vec<u8>>) -> Result<()>,
) -> Result<Vec<Message>> {
    let read: &mut ReadBlock<'_> = &mut read;
    let (mut found, mut blocks, mut seen) = (Vec::new(), vec![first], HashSet::new());
    while let Some((address, len)) = blocks.pop() {
        if !seen.insert(address) {
            return Err(Error::malformed("an object header continues in itself").at_offset(address));
        }
        let block = file.read(address, len)?;
        let mut more = Vec::new();
        read(&block, address, &mut found, &mut more)?;
        for body in more {
            let mut c = Cursor::new(&body, address);
            blocks.push((c.number(file.offset_size)?, c.number(file.length_size)?));
        }
    }
    Ok(found)
}

fn push(
    c: &mut Cursor<'_>,
    (kind, len, flags): (u16, u16, u8),
    block: u64,
    found: &mut Vec<Message>,
    more: &mut Vec<Vec<u8>>,
) -> Result<()> {
    let address = block.saturating_add(c.at as u64);
    let body = c.take(len.into())?;
    if kind == kind::CONTINUATION {
        more.push(body.to_vec());
        return Ok(());
    }
    if kind == 0 {
        return Ok(());
    }
    if found.len() >= MOST_MESSAGES {
        return Err(Error::limit(format!("an object of more than {MOST_MESSAGES} messages")).at_offset(block));
    }
    found.push(Message { kind, address, body: body.to_vec(), shared: flags & 2 != 0 });
    Ok(())
}
