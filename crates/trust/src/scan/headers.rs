//! The members of a zip whose directory is missing: by the header before each, from front to back.

use std::sync::Arc;

use weighbridge_formats::{Result, Source};

use super::zip::{Member, packing_of, u16_at, u32_at, u64_at};

const LOCAL: &[u8] = b"PK\x03\x04";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";

/// How much is searched at first and at most at once, and how much of it again with what follows.
const FIRST: u64 = 4 << 10;
const WINDOW: u64 = 1 << 20;
const OVERLAP: u64 = 4;
/// The most members.
const MOST: usize = 100_000;

/// Every member that a header begins, in the order of the file. A member whose header does not say how long it is ends at
/// the record behind it that does, or before the next header.
pub(super) fn walk(source: &Source) -> Result<Vec<Member>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while found.len() < MOST {
        let Some(header) = find(source, at, |mark| mark == LOCAL)? else { break };
        at = header + 4;
        let mut local = [0; 30];
        if header + 30 > source.len() {
            break;
        }
        source.reader().read_at(header, &mut local)?;
        let name_length = u64::from(u16_at(&local, 26));
        let content = header + 30 + name_length + u64::from(u16_at(&local, 28));
        if content > source.len() {
            continue;
        }
        let mut name = vec![0; name_length as usize];
        source.reader().read_at(header + 30, &mut name)?;
        let Ok(name) = String::from_utf8(name) else { continue };
        let (flags, stated) = (u16_at(&local, 6), u64::from(u32_at(&local, 18)));
        let available = source.len() - content;
        let (length, crc32) = if flags & 8 == 0 && stated != u64::from(u32::MAX) {
            (stated.min(available), Some(u32_at(&local, 14)))
        } else {
            end_of(source, content)?
        };
        let packed = Source::from_reader(Arc::new(source.slice(content, length)?));
        found.push(Member { name, packed, packing: packing_of(u16_at(&local, 8)), crc32 });
        at = content + length;
    }
    Ok(found)
}

/// How long a member is whose header does not say, and its checksum where a record behind it has one.
fn end_of(source: &Source, content: u64) -> Result<(u64, Option<u32>)> {
    let mut at = content;
    loop {
        let mark = find(source, at, |mark| matches!(mark, LOCAL | DIRECTORY | DESCRIPTOR))?;
        let Some(mark) = mark else { return Ok((source.len() - content, None)) };
        let mut record = [0; 24];
        let there = (source.len() - mark).min(24) as usize;
        source.reader().read_at(mark, &mut record[..there])?;
        if !record.starts_with(DESCRIPTOR) {
            return Ok((mark - content, None));
        }
        let length = mark - content;
        if u64::from(u32_at(&record, 8)) == length || u64_at(&record, 8) == length {
            return Ok((length, Some(u32_at(&record, 4))));
        }
        at = mark + 4;
    }
}

/// The first mark of a record from a place on.
fn find(source: &Source, from: u64, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<u64>> {
    let (mut at, mut most) = (from, FIRST);
    let mut window = Vec::new();
    while at + 4 <= source.len() {
        let length = (source.len() - at).min(most);
        most = (most * 4).min(WINDOW);
        window.resize(length as usize, 0);
        source.reader().read_at(at, &mut window)?;
        let hit = memchr::memmem::find_iter(&window, b"PK")
            .find(|hit| window.get(*hit..hit + 4).is_some_and(&wanted));
        if let Some(hit) = hit {
            return Ok(Some(at + hit as u64));
        }
        if at + length >= source.len() {
            break;
        }
        at += length - OVERLAP;
    }
    Ok(None)
}
