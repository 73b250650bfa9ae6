//! A file that is mapped into memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use super::{FileSpan, ReadAt};
use crate::error::{Error, Result};

/// A map and the file under it, which the kernel can copy from.
pub(super) struct MappedFile {
    file: File,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// # Safety
    /// Nobody may truncate or change the file while the map lives.
    pub(super) unsafe fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("opening the file", e))?;
        super::file::refuse_special(&meta)?;
        let file = File::open(path).map_err(|e| Error::io("opening the file", e))?;
        // SAFETY: the caller promises that the file stays as it is.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("mapping the file", e))?;
        Ok(Self { file, map })
    }
}

impl ReadAt for MappedFile {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.map[..].read_at(offset, buf)
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        (offset.checked_add(len)? <= self.len()).then_some(FileSpan { file: &self.file, offset, len })
    }
}
