//! What killed writers left in a folder, and who may remove it.
//!
//! Whoever writes into a folder holds a shared lock on it (an advisory one, which the system gives up when the process
//! ends, however it ends). So if an exclusive lock can be had, nobody is writing there, and what looks like a temporary
//! is a leftover. No process number is looked at, which another process or another machine may have too. Where folders
//! cannot be locked, leftovers stay.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a writer waits for one who removes leftovers, which takes as long as removing a few files.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder that is being written into, until it is dropped.
pub(super) struct Claim(#[allow(dead_code)] Option<File>);

/// Calls again what a signal interrupted. The standard library does so for reading and writing, and not for names.
///
/// # Errors
/// What the call says.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Claim {
    /// Removes what killed writers left in a folder, and says that this process writes there now.
    ///
    /// Nothing here is worth failing a write for: what is refused is left as it is.
    pub(super) fn take(folder: &Path) -> Self {
        // A folder with a temporary name is its maker's own, and goes or stays with all that is in it.
        if cfg!(not(unix)) || folder.iter().any(|part| part.to_str().is_some_and(looks_temporary)) {
            return Self(None);
        }
        let Ok(file) = File::open(folder) else { return Self(None) };
        // Listed before the lock is had: whoever made one of these and is alive has the lock, and what is made later
        // is not in the list.
        let found = leftovers(folder);
        if !found.is_empty() && file.try_lock().is_ok() {
            found.iter().for_each(|path| remove(path));
            let _ = file.unlock();
        }
        let began = Instant::now();
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Self(Some(file)),
                Err(fs::TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(fs::TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Self(None),
            }
        }
    }
}

fn looks_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Whether a name is one that [`super::stage`] makes: `.NAME.PID-RANDOM.tmp`.
fn is_temporary(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".tmp")) else { return false };
    let Some((_, unique)) = rest.rsplit_once('.') else { return false };
    let Some((pid, random)) = unique.split_once('-') else { return false };
    let digits = |text: &str, fits: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|b| fits(&b));
    digits(pid, u8::is_ascii_digit) && random.len() == 16 && digits(random, u8::is_ascii_hexdigit)
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let ours = |name: &std::ffi::OsStr| name.to_str().is_some_and(is_temporary);
    // The first error ends the list, so that one that repeats does not keep this busy.
    entries.map_while(io::Result::ok).filter(|e| ours(&e.file_name())).map(|e| e.path()).collect()
}

/// Removes a file or a folder. What cannot be removed is met again by the next writer.
pub(super) fn remove(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let _ = uninterrupted(|| if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) });
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_unless_somebody_writes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let names = || {
            let entries = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let foreign = [".a.1-0123.tmp", ".x.tmp", "a.1-0123456789abcdef.tmp", "model"];
        foreign.iter().for_each(|name| fs::write(at(name), "").unwrap());
        let leave = || {
            fs::write(at(".model.12-0123456789abcdef.tmp"), "half").unwrap();
            fs::create_dir_all(at(".model.12-fedcba9876543210.tmp/sub")).unwrap();
        };
        leave();
        let first = Claim::take(dir.path());
        assert_eq!(names(), foreign);
        leave();
        let second = Claim::take(dir.path());
        assert_eq!(names().len(), 6, "the first may have made them");
        drop((first, second));
        drop(Claim::take(dir.path()));
        assert_eq!(names(), foreign);
    }

    #[test]
    fn what_is_interrupted_is_called_again() {
        let mut left = 3;
        let mut call = || -> io::Result<()> {
            left -= 1;
            Err(if left > 0 { io::ErrorKind::Interrupted.into() } else { io::ErrorKind::NotFound.into() })
        };
        let outcome = uninterrupted(&mut call);
        assert!(outcome.is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
        assert_eq!(left, 0);
        assert_eq!(uninterrupted(|| Ok(7)).unwrap(), 7);
    }
}
