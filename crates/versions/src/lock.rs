//! One change of a model's folder at a time, and what a killed process left.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use weighbridge_formats::write::{Observer, uninterrupted};
use weighbridge_formats::{Error, ErrorKind, Result};

/// The file that is locked. It stays: removing it would let two processes lock two files of one name.
const LOCK: &str = ".lock";

/// The right to change a model's folder, until it is dropped or the process ends.
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Waits for the right to change a folder.
    ///
    /// # Errors
    /// `Cancelled` if the observer said so while another process had it; what the system says.
    pub(crate) fn acquire(folder: &Path, observer: Option<&dyn Observer>) -> Result<Self> {
        let path = folder.join(LOCK);
        if fs::symlink_metadata(&path).is_ok_and(|m| !m.is_file()) {
            return Err(
                Error::unsafe_content("this is no regular file, and cannot be the lock").with_path(path)
            );
        }
        let fail = |doing: &'static str| move |e| Error::io(doing, e);
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(fail("opening the lock")).map_err(|e| e.with_path(&path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(e)) => return Err(Error::io("locking", e).with_path(path)),
            }
            if observer.is_some_and(Observer::cancelled) {
                let what = "stopped while another process was adding to the same model";
                return Err(Error::new(ErrorKind::Cancelled, what).with_path(path));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a name is that of a temporary: `.NAME.PID-RANDOM.tmp`, as the write engine and the staging make them.
pub(crate) fn is_temporary(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".tmp")) else { return false };
    let Some((_, unique)) = rest.rsplit_once('.') else { return false };
    let Some((pid, random)) = unique.split_once('-') else { return false };
    let digits = |text: &str, fits: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(fits);
    digits(pid, u8::is_ascii_digit) && random.len() == 16 && digits(random, u8::is_ascii_hexdigit)
}

/// Removes the temporaries of processes that were killed. Whoever holds the lock knows that nobody uses them.
///
/// # Errors
/// What the system says.
pub(crate) fn remove_temporaries(folder: &Path, _lock: &Lock) -> Result<()> {
    let fail = |e| Error::io("listing the folder", e).with_path(folder);
    for entry in uninterrupted(|| fs::read_dir(folder)).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !entry.file_name().to_str().is_some_and(is_temporary) {
            continue;
        }
        let path = entry.path();
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        let removed =
            uninterrupted(|| if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
        removed.map_err(|e| Error::io("removing what a killed process left", e).with_path(&path))?;
    }
    Ok(())
}

/// Makes the names in a folder last.
///
/// # Errors
/// What the system says.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    if !cfg!(unix) {
        // Elsewhere folders cannot be opened, and their names are the file system's own affair.
        return Ok(());
    }
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some file systems have nothing to synchronise in a folder, and say so in this way.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(|e| Error::io("synchronising the folder", e).with_path(folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporaries_are_taken_for_temporaries() {
        assert!(is_temporary(".adding.123-0123456789abcdef.tmp"));
        assert!(is_temporary(".CHANGELOG.md.9-0123456789abcdef.tmp"));
        for other in [
            "v1.0.0",
            ".lock",
            ".adding.json",
            ".x.tmp",
            ".a.1-zz.tmp",
            "a.1-0123456789abcdef.tmp",
            ".a.-0123456789abcdef.tmp",
        ] {
            assert!(!is_temporary(other), "{other}");
        }
    }

    #[test]
    fn a_second_lock_waits_until_it_is_told_to_stop() {
        struct Stop;
        impl Observer for Stop {
            fn cancelled(&self) -> bool {
                true
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path(), None).unwrap();
        assert_eq!(Lock::acquire(dir.path(), Some(&Stop)).err().unwrap().kind(), ErrorKind::Cancelled);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(dir.path(), None).map(drop));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
