//! A folder that is empty at the beginning of each input.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

/// One folder a target, made when it is first used.
pub struct Folder(OnceLock<Mutex<TempDir>>);

impl Folder {
    /// A folder that is not made yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Calls `f` with the folder, which nobody else has meanwhile, and empties it.
    pub fn with<T>(&self, f: impl FnOnce(&Path) -> T) -> T {
        let made = self.0.get_or_init(|| Mutex::new(new()));
        let mut dir = made.lock().unwrap_or_else(PoisonError::into_inner);
        let out = f(dir.path());
        let mut entries = std::fs::read_dir(dir.path()).expect("a folder");
        if entries.next().is_some() {
            *dir = new();
        }
        out
    }
}

fn new() -> TempDir {
    // In memory where there is such a place: a fuzzer makes thousands of folders a second.
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().expect("a folder"))
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
