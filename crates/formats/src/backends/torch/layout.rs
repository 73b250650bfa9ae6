//! The zip that torch writes, to the byte.
//!
//! torch may compute where a storage lies instead of reading it (`.format_version` 1 and later), so a file that
//! is laid out otherwise would be read wrongly. Source: files that torch 2.13 wrote, below and above 4 GiB, and
//! `_get_offset` in its `torch/serialization.py`. Each member has
//!
//! - a local header without checksum and sizes, flags 0x0808 (a descriptor follows, the name is UTF-8), or
//!   0x0800 if the member is empty and no descriptor follows;
//! - a zip64 field with the size, if that needs 64 bits, and the header's offset, if that does;
//! - a field "FB" of `Z` that brings the payload to a multiple of 64;
//! - the payload, and a descriptor with its CRC-32 and sizes: 64-bit sizes if there is a zip64 field.
//!
//! The end has 64-bit and 32-bit records both, whatever the size.

use crc32fast::Hasher;

use crate::error::Result;
use crate::tensor::Data;
use crate::write::{Digests, FilePlan};
use crate::zip::{CENTRAL, DESCRIPTOR, END, END64, LOCAL, LOCAL_LEN, LOCATOR64};

/// What payloads are aligned to, in bytes.
const ALIGNMENT: u64 = 64;
/// From here on, a size or offset goes to the zip64 fields.
const WIDE: u64 = 0xffff_ffff;
/// The length of a serialization id.
const ID_LEN: u64 = 40;

/// A member's checksum, or where it will come from.
#[derive(Clone, Copy)]
enum Crc {
    Known(u32),
    /// That of the segment with this number.
    Segment(usize),
    /// That of the serialization id, which is made of the others.
    Id,
}

struct Member {
    name: String,
    size: u64,
    header: u64,
    crc: Crc,
}

/// A torch zip in the making.
pub(super) struct Layout<'a> {
    root: String,
    file: FilePlan<'a>,
    members: Vec<Member>,
}

impl<'a> Layout<'a> {
    /// An empty zip whose members lie below `root`.
    pub(super) fn new(file_name: &str, root: &str) -> Self {
        Self { root: root.to_owned(), file: FilePlan::new(file_name), members: Vec::new() }
    }

    /// Adds a member whose content is known.
    pub(super) fn fixed(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let crc = crc32fast::hash(content);
        let (size, mut head) = self.begin(name, content.len() as u64, Crc::Known(crc));
        let wide = self.is_wide();
        head.extend_from_slice(content);
        if size > 0 {
            head.extend_from_slice(&descriptor(crc, size, wide));
        }
        self.file.push_fixed(head)?;
        Ok(())
    }

    /// Adds a member whose content is read when it is written.
    pub(super) fn data(&mut self, name: &str, data: Data<'a>) -> Result<()> {
        use crate::source::ReadAt;
        let segment = self.file.segments().len() + 1; // Behind the header.
        let (size, head) = self.begin(name, data.len(), Crc::Segment(segment));
        let wide = self.is_wide();
        self.file.push_fixed(head)?;
        if size == 0 {
            if let Some(member) = self.members.last_mut() {
                member.crc = Crc::Known(0);
            }
            return Ok(());
        }
        let segment = self.file.push_data(data, name, true)?;
        let len = descriptor(0, size, wide).len() as u64;
        self.file
            .push_late(len, Box::new(move |digests| Ok(descriptor(digests.crc32(segment)?, size, wide))))?;
        Ok(())
    }

    /// Adds the id of the content and the directory.
    pub(super) fn finish(mut self) -> Result<FilePlan<'a>> {
        let (_, head) = self.begin(".data/serialization_id", ID_LEN, Crc::Id);
        let wide = self.is_wide();
        self.file.push_fixed(head)?;
        let crcs: Vec<Crc> = self.members.iter().map(|m| m.crc).collect();
        let for_text = crcs.clone();
        self.file.push_late(ID_LEN, Box::new(move |d| serialization_id(&for_text, d)))?;
        let len = descriptor(0, ID_LEN, wide).len() as u64;
        self.file.push_late(
            len,
            Box::new(move |d| Ok(descriptor(crc32fast::hash(&serialization_id(&crcs, d)?), ID_LEN, wide))),
        )?;
        let (offset, members) = (self.file.len(), self.members);
        let directory_len: u64 = members.iter().map(|m| central(m, 0).len() as u64).sum();
        let fill = move |digests: &Digests<'_>| {
            let crcs: Vec<Crc> = members.iter().map(|m| m.crc).collect();
            let mut out = Vec::with_capacity(directory_len as usize);
            for member in &members {
                let crc = match member.crc {
                    Crc::Known(crc) => crc,
                    Crc::Segment(segment) => digests.crc32(segment)?,
                    Crc::Id => crc32fast::hash(&serialization_id(&crcs, digests)?),
                };
                out.extend_from_slice(&central(member, crc));
            }
            let count = members.len() as u64;
            out.extend_from_slice(&end_records(count, directory_len, offset));
            Ok(out)
        };
        self.file.push_late(directory_len + end_records(0, 0, 0).len() as u64, Box::new(fill))?;
        Ok(self.file)
    }

    /// Notes the next member; returns its size and everything before its payload.
    fn begin(&mut self, name: &str, size: u64, crc: Crc) -> (u64, Vec<u8>) {
        let name = format!("{}/{name}", self.root);
        let header = self.file.len();
        let flags: u16 = if size > 0 { 0x0808 } else { 0x0800 };
        // torch leaves the compressed size at 0 here: it is not known yet when it writes this.
        let wide = zip64_field(size, 0, header);
        let start = header + LOCAL_LEN + name.len() as u64 + wide.len() as u64 + 4;
        let padding = start.next_multiple_of(ALIGNMENT) - start;
        let extra_len = wide.len() as u64 + 4 + padding;
        let mut out = Vec::with_capacity((start + padding - header) as usize);
        out.extend_from_slice(&LOCAL.to_le_bytes());
        for field in [0u16, flags, 0, 0, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(extra_len as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&wide);
        out.extend_from_slice(b"FB");
        out.extend_from_slice(&(padding as u16).to_le_bytes());
        out.resize(out.len() + padding as usize, b'Z');
        self.members.push(Member { name, size, header, crc });
        (size, out)
    }

    /// Whether the member that was begun last has a zip64 field.
    fn is_wide(&self) -> bool {
        self.members.last().is_some_and(|m| !zip64_field(m.size, m.size, m.header).is_empty())
    }
}

/// The zip64 extra field, empty where 32 bits suffice.
fn zip64_field(size: u64, compressed: u64, header: u64) -> Vec<u8> {
    let mut body = Vec::new();
    if size >= WIDE {
        body.extend_from_slice(&size.to_le_bytes());
        body.extend_from_slice(&compressed.to_le_bytes());
    }
    if header >= WIDE {
        body.extend_from_slice(&header.to_le_bytes());
    }
    if body.is_empty() {
        return body;
    }
    let mut out = vec![1, 0];
    out.extend_from_slice(&(body.len() as u16).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// What follows a member's payload.
fn descriptor(crc: u32, size: u64, wide: bool) -> Vec<u8> {
    let mut out = DESCRIPTOR.to_le_bytes().to_vec();
    out.extend_from_slice(&crc.to_le_bytes());
    for _ in 0..2 {
        if wide {
            out.extend_from_slice(&size.to_le_bytes());
        } else {
            out.extend_from_slice(&(size as u32).to_le_bytes());
        }
    }
    out
}

/// An entry of the central directory.
fn central(member: &Member, crc: u32) -> Vec<u8> {
    let narrow = |v: u64| (v.min(WIDE) as u32).to_le_bytes();
    let extra = zip64_field(member.size, member.size, member.header);
    let flags: u16 = if member.size > 0 { 0x0808 } else { 0x0800 };
    let mut out = CENTRAL.to_le_bytes().to_vec();
    for field in [0u16, 0, flags, 0, 0, 0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&narrow(member.size));
    out.extend_from_slice(&narrow(member.size));
    out.extend_from_slice(&(member.name.len() as u16).to_le_bytes());
    out.extend_from_slice(&(extra.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0; 10]); // Comment, disk, attributes.
    out.extend_from_slice(&narrow(member.header));
    out.extend_from_slice(member.name.as_bytes());
    out.extend_from_slice(&extra);
    out
}

/// The end of the central directory in 64 bits, its locator, and the end in 32 bits.
fn end_records(count: u64, len: u64, offset: u64) -> Vec<u8> {
    let mut out = END64.to_le_bytes().to_vec();
    out.extend_from_slice(&44u64.to_le_bytes());
    out.extend_from_slice(&[0x1e, 0x03, 0x2d, 0]); // Made by version 3.0 on Unix; needs 4.5.
    out.extend_from_slice(&[0; 8]);
    for field in [count, count, len, offset] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&LOCATOR64.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(offset + len).to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&END.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for _ in 0..2 {
        out.extend_from_slice(&(count.min(0xffff) as u16).to_le_bytes());
    }
    out.extend_from_slice(&(len.min(WIDE) as u32).to_le_bytes());
    out.extend_from_slice(&(offset.min(WIDE) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out
}

/// Forty digits that tell one content from another: twenty of how many members there are, twenty of their
/// checksums. torch's own use hashes that differ between its builds, and nothing reads them but its logs.
fn serialization_id(crcs: &[Crc], digests: &Digests<'_>) -> Result<Vec<u8>> {
    let mut all = Hasher::new();
    let mut mixed = 0xcbf2_9ce4_8422_2325u64;
    for crc in crcs {
        let crc = match *crc {
            Crc::Known(crc) => crc,
            Crc::Segment(segment) => digests.crc32(segment)?,
            Crc::Id => continue,
        };
        all.update(&crc.to_le_bytes());
        mixed = (mixed ^ u64::from(crc)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let first = (crcs.len() as u64) << 32 | u64::from(all.finalize());
    Ok(format!("{first:020}{mixed:020}").into_bytes())
}
