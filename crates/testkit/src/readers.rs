//! Readers that count how they are used, or that are larger than any test could afford to write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weighbridge_formats::{ReadAt, Result, Source};

/// Bytes in memory with a count of the calls and of the bytes asked for.
#[derive(Clone)]
pub struct Counted(Arc<Counts>);

struct Counts {
    bytes: Vec<u8>,
    calls: AtomicU64,
    read: AtomicU64,
}

impl Counted {
    /// Counts the reading of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Counts { bytes, calls: AtomicU64::new(0), read: AtomicU64::new(0) }))
    }

    /// The source to hand to a reader.
    pub fn source(&self) -> Source {
        Source::from_reader(Arc::new(self.clone()))
    }

    /// How many reads there were, and of how many bytes together, since this was asked last.
    pub fn take(&self) -> (u64, u64) {
        (self.0.calls.swap(0, Ordering::Relaxed), self.0.read.swap(0, Ordering::Relaxed))
    }
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.0.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.bytes.read_at(offset, buf)
    }
}

/// Zeros with a few marked bytes, as long as wanted: what a sparse file is, without the file.
#[derive(Clone, Debug)]
pub struct Sparse {
    /// The length in bytes.
    pub len: u64,
    /// Where the reader says something other than zero.
    pub marks: Vec<(u64, u8)>,
}

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        assert!(offset + buf.len() as u64 <= self.len, "a read past the end of a sparse reader");
        buf.fill(0);
        for &(at, byte) in &self.marks {
            if let Some(slot) = at.checked_sub(offset).and_then(|i| buf.get_mut(i as usize)) {
                *slot = byte;
            }
        }
        Ok(())
    }
}
