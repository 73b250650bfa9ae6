//! The folders under which checkpoints are written and deleted, and who may remove them.
//!
//! Who writes a checkpoint holds a lock on the folder it is written in (an advisory lock, which the system gives up
//! when the process ends, however it ends). So a leftover is a folder whose lock can be had: no process number is
//! looked at, which another process or another machine may have too. Between making a folder and locking it, and
//! while leftovers are looked for, the lock of the root is held.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

use weighbridge_formats::write::uninterrupted;
use weighbridge_formats::{Error, Result};

use crate::layout::{LOCK, TEMPORARY, TRASH};

/// The lock of a root, until it is dropped.
pub(crate) struct RootLock(#[allow(dead_code)] File);

impl RootLock {
    /// Waits for the lock. It is never held for longer than a few names take to change.
    pub(crate) fn take(root: &Path) -> Result<Self> {
        let path = root.join(LOCK);
        let fail = |e| Error::io("locking the folder of the checkpoints", e).with_path(&path);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
        uninterrupted(|| file.lock()).map_err(fail)?;
        Ok(Self(file))
    }
}

fn hidden(name: &str, end: &str) -> String {
    let random = RandomState::new().build_hasher().finish();
    format!(".{name}.{random:016x}{end}")
}

/// A folder in which a checkpoint is written. It is removed unless it is put in place.
pub(crate) struct Staging {
    path: PathBuf,
    /// Keeps the lock. On systems where folders cannot be opened there is none.
    lock: Option<File>,
    placed: bool,
}

impl Staging {
    /// Makes the folder for the checkpoint `name` of `root`.
    pub(crate) fn new(root: &Path, name: &str) -> Result<Self> {
        let _root = RootLock::take(root)?;
        let path = root.join(hidden(name, TEMPORARY));
        uninterrupted(|| std::fs::create_dir(&path))
            .map_err(|e| Error::io("creating a folder for the checkpoint", e).with_path(&path))?;
        let mut staging = Self { path, lock: None, placed: false };
        if let Ok(folder) = File::open(&staging.path) {
            // A file system without locks: then nobody can have the lock, and leftovers stay.
            if folder.try_lock().is_ok() {
                staging.lock = Some(folder);
            }
        }
        Ok(staging)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name in `root`, which no other has.
    ///
    /// A name that is taken gets `_r2`, `_r3`, … after it: a checkpoint that is there is never replaced.
    pub(crate) fn place(mut self, root: &Path, name: &str, fsync: bool) -> Result<PathBuf> {
        let lock = RootLock::take(root)?;
        let target = (1u32..)
            .map(|n| root.join(if n == 1 { name.to_owned() } else { format!("{name}_r{n}") }))
            .find(|path| std::fs::symlink_metadata(path).is_err())
            .unwrap_or_else(|| root.join(name));
        uninterrupted(|| std::fs::rename(&self.path, &target))
            .map_err(|e| Error::io("renaming the complete checkpoint to its name", e).with_path(&target))?;
        self.placed = true;
        self.lock = None;
        drop(lock);
        if fsync {
            sync(root)?;
        }
        Ok(target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.placed {
            // Nobody is left to tell of a failure here; the next clean-up finds what stays.
            let _ = uninterrupted(|| std::fs::remove_dir_all(&self.path));
        }
    }
}

/// Makes the names in a folder last.
pub(crate) fn sync(folder: &Path) -> Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some file systems have nothing to synchronise in a folder, and say so in this way.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(|e| Error::io("synchronising the folder", e).with_path(folder)),
    }
}

/// Deletes checkpoints so that at no moment a part of one is visible: they are renamed aside, the names are made
/// to last, and then the files go. A killed process leaves trash, which the next clean-up removes.
pub(crate) fn delete(root: &Path, checkpoints: &[PathBuf], fsync: bool) -> Result<()> {
    let mut aside = Vec::with_capacity(checkpoints.len());
    {
        let _root = RootLock::take(root)?;
        for path in checkpoints {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let to = root.join(hidden(name, TRASH));
            match uninterrupted(|| std::fs::rename(path, &to)) {
                Ok(()) => aside.push(to),
                // Somebody else deleted it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(Error::io("renaming a checkpoint to delete it", e).with_path(path));
                }
            }
        }
    }
    if aside.is_empty() {
        return Ok(());
    }
    if fsync {
        sync(root)?;
    }
    aside.iter().try_for_each(|path| remove(path))
}

fn remove(path: &Path) -> Result<()> {
    let meta = std::fs::symlink_metadata(path);
    let removed = match meta {
        Ok(meta) if meta.is_dir() => uninterrupted(|| std::fs::remove_dir_all(path)),
        Ok(_) => uninterrupted(|| std::fs::remove_file(path)),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("removing a deleted checkpoint", e).with_path(path))
        }
        _ => Ok(()),
    }
}

/// Removes what processes that are gone left in `root`: checkpoints that were being written, and trash. Returns
/// what was removed.
///
/// # Errors
/// `Io` if the folder cannot be listed. What cannot be removed stays, and is met again the next time.
pub fn clean(root: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let mut kept_locks = Vec::new();
    {
        let _root = RootLock::take(root)?;
        let fail = |e| Error::io("listing the folder of the checkpoints", e).with_path(root);
        for entry in uninterrupted(|| std::fs::read_dir(root)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| n.starts_with('.')) else { continue };
            let path = entry.path();
            if name.ends_with(TRASH) && is_ours(name, TRASH) {
                removed.push(path);
            } else if name.ends_with(TEMPORARY) && is_ours(name, TEMPORARY) {
                let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
                let Ok(folder) = File::open(&path) else { continue };
                if is_folder && folder.try_lock().is_ok() {
                    // Held until the folder is gone, so that two clean-ups do not meet in it.
                    kept_locks.push(folder);
                    removed.push(path);
                }
            }
        }
    }
    removed.retain(|path| remove(path).is_ok());
    drop(kept_locks);
    Ok(removed)
}

/// Whether a hidden name is of the form that [`hidden`] makes, and so was made here.
fn is_ours(name: &str, end: &str) -> bool {
    let Some(rest) = name.strip_suffix(end).and_then(|n| n.strip_prefix('.')) else { return false };
    let Some((name, random)) = rest.rsplit_once('.') else { return false };
    !name.is_empty() && random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_what_is_being_written_stays() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let live = Staging::new(root, "a").unwrap();
        let dead = Staging::new(root, "b").unwrap();
        let dead_path = dead.path().to_owned();
        // What a killed process leaves: the folder, and no lock.
        let mut dead = dead;
        dead.placed = true;
        drop(dead);
        std::fs::write(dead_path.join("model.safetensors"), "half").unwrap();
        let trash = root.join(hidden("c", TRASH));
        std::fs::create_dir(&trash).unwrap();
        for foreign in [".x.tmp", ".cache.0123.tmp", ".git"] {
            std::fs::create_dir(root.join(foreign)).unwrap();
        }
        let mut removed = clean(root).unwrap();
        removed.sort();
        let mut wanted = vec![dead_path, trash];
        wanted.sort();
        assert_eq!(removed, wanted);
        assert!(live.path().is_dir() && root.join(".x.tmp").is_dir() && root.join(".git").is_dir());
        assert!(clean(root).unwrap().is_empty());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn a_taken_name_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let place = || Staging::new(root, "a").unwrap().place(root, "a", true).unwrap();
        assert_eq!([place(), place(), place()], [root.join("a"), root.join("a_r2"), root.join("a_r3")]);
        delete(root, &[root.join("a"), root.join("gone")], true).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOCK, "a_r2", "a_r3"]);
    }
}
