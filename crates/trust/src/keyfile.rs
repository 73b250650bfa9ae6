//! Files of new keys: for their owner alone, complete or not there, and never in another file's place.

use std::io::Write as _;
use std::path::Path;

use weighbridge_formats::{Error, Result};

/// Writes a key's text into a new file that nobody but its owner can read (mode 0600).
///
/// # Errors
/// `InvalidOptions` if there is a file of that name already; `Io` as the system says.
pub(crate) fn write_new(path: &Path, text: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::invalid_options("a file of this name exists already, and a key is never replaced")
                .with_path(path)
                .with_hint("choose another name")
        }
        _ => Error::io("creating the key file", e).with_path(path),
    })?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(|e| {
        // Half a key is worth nothing, and the name was ours.
        let _ = std::fs::remove_file(path);
        Error::io("writing the key file", e).with_path(path)
    })
}
