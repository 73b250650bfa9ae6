//! Where bytes come from: files by position, memory, maps, and whatever implements [`ReadAt`].

mod file;
mod files;
#[cfg(feature = "mmap")]
mod map;
mod path;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::tensor::zeroed;

pub use files::Files;
pub use path::{fold, is_device, is_plain_relative};

/// How a reader likes to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Any order, from any thread, at the same cost.
    #[default]
    Random,
    /// From front to back by one thread at a time: going back starts over (a compressed member).
    Sequential,
}

/// A span of an open file: what lets the kernel copy without a detour through this process.
#[derive(Clone, Copy, Debug)]
pub struct FileSpan<'a> {
    /// The file.
    pub file: &'a File,
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

/// Bytes of a known length that can be read at any offset.
///
/// Reading is pure: callable from many threads in any order, with the same answer each time.
#[allow(clippy::len_without_is_empty)] // An empty reader is nothing special to anybody.
pub trait ReadAt: Send + Sync {
    /// The length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `Malformed` if the range passes the end, `Io` if the system refuses, `Mismatch` if a checksum over what
    /// has now been read completely does not agree.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// The same bytes as a span of an open file, if they are that and need no check or change.
    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        let _ = (offset, len);
        None
    }

    /// Where the same bytes stand in an open file, though reading them may check more than that. For those who know the
    /// bytes by other means.
    fn place(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        self.span(offset, len)
    }

    /// In which order to read.
    fn access(&self) -> Access {
        Access::Random
    }

    /// Called when the caller has read all it wants: checks a checksum that covers more than was read, by
    /// reading the rest.
    ///
    /// # Errors
    /// `Mismatch` if the checksum does not agree.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Checks a range against a length.
pub(crate) fn check_range(offset: u64, len: usize, end: u64) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(last) if last <= end => Ok(()),
        _ => {
            Err(Error::malformed(format!("{len} bytes at {offset} pass the end at {end}")).at_offset(offset))
        }
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), <[u8]>::len(self) as u64)?;
        let start = offset as usize;
        buf.copy_from_slice(&self[start..start + buf.len()]);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.as_slice().read_at(offset, buf)
    }
}

/// An input: a file, memory, a map or a reader of the caller's own, with the path it came from if any.
#[derive(Clone)]
pub struct Source {
    path: Option<PathBuf>,
    reader: Arc<dyn ReadAt>,
    inside: Option<files::Inside>,
}

impl Source {
    /// Opens a file for reading by position. Nothing is mapped, so another program that truncates the file
    /// causes an error and not a signal.
    ///
    /// # Errors
    /// `NotFound`, `Io`, or `InvalidOptions` for a folder or anything else that is no regular file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let reader = file::PositionedFile::open(path).map_err(|e| e.with_path(path))?;
        Ok(Self { path: Some(path.to_owned()), reader: Arc::new(reader), inside: None })
    }

    /// Maps a file into memory.
    ///
    /// # Safety
    /// As long as the source or anything opened from it lives, no program may truncate the file (reading then
    /// ends this process by a signal) or change its bytes.
    ///
    /// # Errors
    /// As [`Source::open`].
    #[cfg(feature = "mmap")]
    #[allow(unsafe_code)]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // SAFETY: the caller promises what this function's documentation asks for.
        let reader = unsafe { map::MappedFile::open(path) }.map_err(|e| e.with_path(path))?;
        Ok(Self { path: Some(path.to_owned()), reader: Arc::new(reader), inside: None })
    }

    /// Takes bytes in memory.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: None, reader: Arc::new(bytes.into()), inside: None }
    }

    /// Takes a reader of the caller's own, such as ranges of an object store.
    pub fn from_reader(reader: Arc<dyn ReadAt>) -> Self {
        Self { path: None, reader, inside: None }
    }

    /// The path, where the source has one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The whole as a reader.
    pub fn reader(&self) -> &Arc<dyn ReadAt> {
        &self.reader
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.reader.len()
    }

    /// Reads a range into memory.
    ///
    /// # Errors
    /// `LimitExceeded` if it is longer than `limits.header_bytes`, `Malformed` if it passes the end.
    pub fn read_vec(&self, offset: u64, len: u64, limits: &Limits) -> Result<Vec<u8>> {
        if len > limits.header_bytes {
            let what = format!("{len} bytes would be read at once; the limit is {}", limits.header_bytes);
            return Err(Error::limit(what).at_offset(offset));
        }
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            let what = format!("{len} bytes at {offset} pass the end of the file at {}", self.len());
            return Err(Error::malformed(what).at_offset(offset).with_hint(TRUNCATED));
        }
        let mut out = zeroed(len)?;
        self.reader.read_at(offset, &mut out)?;
        Ok(out)
    }

    /// A range as a reader that the kernel can copy from.
    ///
    /// # Errors
    /// `Malformed` if it passes the end.
    pub fn slice(&self, offset: u64, len: u64) -> Result<Slice> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(Slice { reader: self.reader.clone(), offset, len }),
            _ => {
                let what = format!("{len} bytes at {offset} pass the end of the file at {}", self.len());
                Err(Error::malformed(what).at_offset(offset).with_hint(TRUNCATED))
            }
        }
    }

    /// Opens a file beside this one, which the content of this one names.
    ///
    /// # Errors
    /// `UnsafeContent` if the name is absolute, has `..`, or leads out of the folder by a link;
    /// `InvalidOptions` if this source has no path. In a container only its own files are looked at.
    pub fn sibling(&self, name: &str) -> Result<Source> {
        if let Some(inside) = &self.inside {
            return inside.sibling(name);
        }
        let Some(path) = &self.path else {
            return Err(Error::invalid_options("a source in memory has no files beside it"));
        };
        Source::open(path::resolve_sibling(path, name)?)
    }
}

/// What to do about a file that ends early.
pub(crate) const TRUNCATED: &str =
    "the download may have been cut off: compare its size or checksum, and fetch it again";

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("path", &self.path).field("len", &self.len()).finish()
    }
}

/// A range of a source.
#[derive(Clone)]
pub struct Slice {
    reader: Arc<dyn ReadAt>,
    offset: u64,
    len: u64,
}

impl Slice {
    /// Where it begins in its source.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl ReadAt for Slice {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.reader.read_at(self.offset + offset, buf)
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        self.reader.span(self.offset + offset, len)
    }

    fn place(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        self.reader.place(self.offset + offset, len)
    }

    fn access(&self) -> Access {
        self.reader.access()
    }
}
