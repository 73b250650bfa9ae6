//! A file that is read by position.

use std::fs::File;
use std::path::Path;

use super::{FileSpan, ReadAt, TRUNCATED, check_range};
use crate::error::{Error, Result};

/// An open file and its length when it was opened.
pub(super) struct PositionedFile {
    file: File,
    len: u64,
}

impl PositionedFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Opening a FIFO would wait for a writer, so what is no regular file is refused before it is opened.
        let meta = std::fs::metadata(path).map_err(|e| Error::io("opening the file", e))?;
        refuse_special(&meta)?;
        let file = File::open(path).map_err(|e| Error::io("opening the file", e))?;
        let meta = file.metadata().map_err(|e| Error::io("asking for the file's length", e))?;
        refuse_special(&meta)?;
        Ok(Self { file, len: meta.len() })
    }
}

/// Refuses folders, devices, pipes and sockets.
pub(super) fn refuse_special(meta: &std::fs::Metadata) -> Result<()> {
    if meta.is_file() {
        Ok(())
    } else if meta.is_dir() {
        Err(Error::invalid_options("this is a folder, and a file is wanted"))
    } else {
        Err(Error::unsafe_content("this is a device, pipe or socket, not a regular file"))
    }
}

impl ReadAt for PositionedFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        read_exact_at(&self.file, offset, buf).map_err(|e| {
            if e.kind() == std::io::ErrorKind::UnexpectedEof {
                return Error::malformed("the file became shorter while it was read")
                    .at_offset(offset)
                    .with_hint(TRUNCATED);
            }
            Error::io("reading", e).at_offset(offset)
        })
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        (offset.checked_add(len)? <= self.len).then_some(FileSpan { file: &self.file, offset, len })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buf: &mut [u8]) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                offset += n as u64;
                buf = &mut buf[n..];
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
