//! Secrets and small files in memory: read without copies left behind, and overwritten when they are dropped.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use weighbridge_formats::{Error, Result};
use zeroize::Zeroizing;

/// The longest file of keys or certificates.
pub(super) const KEY_FILE: usize = 1 << 20;
/// The longest password.
const PASSWORD: usize = 1 << 12;

/// A password. It is overwritten when it is dropped and never shown.
pub struct Password {
    bytes: Zeroizing<Vec<u8>>,
    /// It is there in case a key is encrypted, not because one is.
    pub(super) in_case: bool,
}

impl Password {
    /// A password from its bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: Zeroizing::new(bytes.into()), in_case: false }
    }

    /// The value of an environment variable, if it is set and not empty. A key that is not encrypted is then no error.
    pub fn from_environment(name: &str) -> Option<Self> {
        let value = std::env::var_os(name).filter(|v| !v.is_empty())?;
        Some(Self { bytes: Zeroizing::new(value.into_encoded_bytes()), in_case: true })
    }

    /// The first line of a file, without its end of line.
    ///
    /// # Errors
    /// `Io` and `NotFound` as the system says; `InvalidOptions` for an empty or overlong line.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path, PASSWORD, "password")?;
        let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(
                Error::invalid_options("the first line, which is the password, is empty").with_path(path)
            );
        }
        Ok(Self::new(line))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A whole file, no longer than `most`. Pipes can be read too, so that a key may come from another program; the
/// buffer has its size from the beginning, since one that grew would leave copies.
pub(super) fn read_bounded(path: &Path, most: usize, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let fail = |e| Error::io(format!("reading the {what}"), e).with_path(path);
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Zeroizing::new(vec![0; most + 1]);
    let (mut reader, mut filled) = (file, 0);
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(fail(e)),
        }
    }
    if filled > most {
        return Err(Error::limit(format!("the {what} is longer than {most} bytes")).with_path(path));
    }
    bytes.truncate(filled);
    Ok(bytes)
}
