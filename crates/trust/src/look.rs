//! Looking at a path: what cannot be looked at is an error, and not a file or a name that is free.

use std::io;
use std::path::Path;

use weighbridge_formats::{Error, Result};

/// Whether a folder is there; a link to one is one.
///
/// # Errors
/// What the system says, unless there is nothing of that name.
pub(crate) fn is_folder(path: &Path) -> Result<bool> {
    known(std::fs::metadata(path).map(|meta| meta.is_dir()), path)
}

/// Whether anything is there, a link that leads nowhere too.
///
/// # Errors
/// As [`is_folder`].
#[cfg(feature = "manifest")]
pub(crate) fn is_there(path: &Path) -> Result<bool> {
    known(std::fs::symlink_metadata(path).map(|_| true), path)
}

fn known(looked: io::Result<bool>, path: &Path) -> Result<bool> {
    match looked {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        other => other.map_err(|e| Error::io("looking at the path", e).with_path(path)),
    }
}
