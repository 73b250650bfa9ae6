//! Holding files against a manifest.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use weighbridge_formats::write::uninterrupted;
use weighbridge_formats::{Error, Result};

use crate::manifest::{FileEntry, Manifest};

/// Refuses what is no regular file: a link in a checkpoint could lead anywhere.
///
/// # Errors
/// `NotFound`, `Io`, or `UnsafeContent`.
pub(crate) fn regular(path: &Path) -> Result<u64> {
    let meta = std::fs::symlink_metadata(path)
        .map_err(|e| Error::io("looking for a file of the checkpoint", e).with_path(path))?;
    if meta.file_type().is_file() {
        return Ok(meta.len());
    }
    Err(Error::unsafe_content("this is no regular file, and every file of a checkpoint is one")
        .with_path(path))
}

/// Checks that every file is there with its size, and reads none.
///
/// # Errors
/// `NotFound`, `Mismatch`, with the file.
pub(crate) fn sizes(folder: &Path, manifest: &Manifest) -> Result<()> {
    manifest.files.iter().try_for_each(|f| size(folder, f))
}

fn size(folder: &Path, entry: &FileEntry) -> Result<()> {
    let path = folder.join(&entry.name);
    let len = regular(&path)?;
    if len == entry.bytes {
        return Ok(());
    }
    Err(Error::mismatch(format!("the file has {len} bytes, and the manifest states {}", entry.bytes))
        .with_path(path))
}

/// Reads a file of a checkpoint and checks its size and CRC-32.
///
/// # Errors
/// As [`sizes`]; `Mismatch` for a checksum that does not agree.
pub(crate) fn content(folder: &Path, entry: &FileEntry) -> Result<()> {
    size(folder, entry)?;
    let path = folder.join(&entry.name);
    let mut file = File::open(&path).map_err(|e| Error::io("opening the file", e).with_path(&path))?;
    let mut hasher = crc32fast::Hasher::new();
    let (mut buffer, mut len) = (vec![0; 256 << 10], 0u64);
    loop {
        let read =
            uninterrupted(|| file.read(&mut buffer)).map_err(|e| Error::io("reading", e).with_path(&path))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        len += read as u64;
        if len > entry.bytes {
            return Err(Error::mismatch("the file grew while it was read").with_path(path));
        }
    }
    let found = hasher.finalize();
    if found == entry.crc32 && len == entry.bytes {
        return Ok(());
    }
    let what = format!("the file has the CRC-32 {found:08x}, and the manifest states {:08x}", entry.crc32);
    Err(Error::mismatch(what)
        .with_path(path)
        .with_hint("the file is damaged; resume from another checkpoint"))
}

/// Reads every file of a checkpoint and checks it.
///
/// # Errors
/// As [`content`].
pub(crate) fn all(folder: &Path, manifest: &Manifest) -> Result<()> {
    manifest.files.iter().try_for_each(|f| content(folder, f))
}
