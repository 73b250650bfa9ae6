//! A stored member whose CRC-32 is checked as a side effect of reading it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;

use crate::error::{Error, Result};
use crate::source::{FileSpan, ReadAt, Slice};

/// Bytes with a CRC-32 over all of them. Chunks may be read in any order by any thread: their checksums are
/// combined, and when they cover everything the result is compared. So a conversion that reads each byte once
/// checks each byte, and no byte is read twice for it.
pub(crate) struct Checked {
    slice: Slice,
    crc32: u32,
    label: Box<str>,
    verified: AtomicBool,
    /// Disjoint ranges that have been read, by their first byte: the byte after the last, and the checksum.
    read: Mutex<BTreeMap<u64, (u64, Hasher)>>,
}

/// How much is read at a time where only the checksum is wanted.
const STEP: u64 = 1 << 20;

impl Checked {
    pub(crate) fn new(slice: Slice, crc32: u32, label: &str) -> Self {
        Self { slice, crc32, label: label.into(), verified: AtomicBool::new(false), read: Mutex::default() }
    }

    fn note(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() && self.slice.len() > 0 {
            return Ok(());
        }
        let end = offset + bytes.len() as u64;
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = read.range(..=offset).next_back().map(|(&s, &(e, _))| (s, e));
        let after = read.range(offset..).next().map(|(&s, &(e, _))| (s, e));
        if before.is_some_and(|(_, e)| e > offset) || after.is_some_and(|(s, _)| s < end) {
            return Ok(()); // Part of it has been read before; `finish` reads what nobody else does.
        }
        let (mut start, mut stop) = (offset, end);
        if let Some((s, e)) = before.filter(|&(_, e)| e == offset)
            && let Some((_, mut left)) = read.remove(&s)
        {
            debug_assert_eq!(e, offset);
            left.combine(&hasher);
            (start, hasher) = (s, left);
        }
        if let Some((s, e)) = after.filter(|&(s, _)| s == end)
            && let Some((_, right)) = read.remove(&s)
        {
            hasher.combine(&right);
            stop = e;
        }
        if start > 0 || stop < self.slice.len() {
            read.insert(start, (stop, hasher));
            return Ok(());
        }
        read.clear();
        drop(read);
        let found = hasher.finalize();
        if found != self.crc32 {
            let what =
                format!("the CRC-32 of {:?} is {found:08x}, and should be {:08x}", self.label, self.crc32);
            return Err(Error::mismatch(what).at_offset(self.slice.offset()).with_hint(
                "the file is damaged: compare its checksum with the publisher's, and fetch it again",
            ));
        }
        self.verified.store(true, Ordering::Release);
        Ok(())
    }
}

impl ReadAt for Checked {
    fn len(&self) -> u64 {
        self.slice.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.slice.read_at(offset, buf)?;
        if self.verified.load(Ordering::Acquire) { Ok(()) } else { self.note(offset, buf) }
    }

    fn place(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        self.slice.place(offset, len)
    }

    fn finish(&self) -> Result<()> {
        let mut buf = Vec::new();
        while !self.verified.load(Ordering::Acquire) {
            let (start, stop) = {
                let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
                let start = match read.first_key_value() {
                    Some((0, &(e, _))) => e,
                    _ => 0,
                };
                let stop = read.range(start.max(1)..).next().map_or(self.slice.len(), |(&s, _)| s);
                (start, stop)
            };
            // The first gap begins behind the run at 0, or at 0; reading it makes that run longer.
            buf.resize((stop - start).min(STEP) as usize, 0);
            self.slice.read_at(start, &mut buf)?;
            self.note(start, &buf)?;
            if self.slice.len() == 0 {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn checked(bytes: &[u8], crc32: u32) -> Checked {
        let source = Source::from_bytes(bytes);
        Checked::new(source.slice(0, bytes.len() as u64).unwrap(), crc32, "data/0")
    }

    #[test]
    fn any_order_of_chunks_is_checked() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
        let good = crc32fast::hash(&bytes);
        for (crc, ok) in [(good, true), (good ^ 1, false)] {
            let c = checked(&bytes, crc);
            let mut results = Vec::new();
            for start in [3000u64, 0, 9000, 6000, 1000, 2000, 5000, 4000, 8000, 7000] {
                results.push(c.read_at(start, &mut [0; 1000]));
            }
            assert_eq!(results.iter().all(Result::is_ok), ok);
            assert_eq!(c.finish().is_ok(), ok);
        }
    }

    #[test]
    fn what_nobody_read_is_checked_at_the_end() {
        let bytes = vec![1u8; 3 << 20];
        let good = crc32fast::hash(&bytes);
        for (crc, ok) in [(good, true), (good ^ 1, false)] {
            let c = checked(&bytes, crc);
            c.read_at(100, &mut [0; 50]).unwrap();
            c.read_at(120, &mut [0; 50]).unwrap(); // Overlaps, so it counts for nothing.
            c.read_at(2 << 20, &mut [0; 50]).unwrap();
            assert_eq!(c.finish().is_ok(), ok);
        }
        assert!(checked(&[], 0).finish().is_ok());
        assert!(checked(&[], 5).finish().is_err());
    }
}
