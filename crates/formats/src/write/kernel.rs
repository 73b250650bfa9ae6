//! What only Linux offers, each beside a twin for every other system: copying within the kernel, renaming
//! without replacing, and what kind of file system a folder is on.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use crate::source::FileSpan;

/// What the engine wants to know about a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Whether it can share blocks between files or copy on a server.
    pub(super) copies_itself: bool,
    /// How many bytes can be written at the very most, where that is certain.
    pub(super) free: Option<u64>,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CString;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    pub(in super::super) fn copy_range(from: FileSpan<'_>, to: &File, at: u64) -> io::Result<u64> {
        let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut from_offset = libc::off64_t::try_from(from.offset).map_err(too_far)?;
        let mut to_offset = libc::off64_t::try_from(at).map_err(too_far)?;
        let len = usize::try_from(from.len).unwrap_or(usize::MAX).min(1 << 30);
        // SAFETY: both descriptors are open as long as the borrows of their files live, and both offsets are
        // valid pointers to locals for the length of the call.
        let copied = unsafe {
            libc::copy_file_range(
                from.file.as_raw_fd(),
                &mut from_offset,
                to.as_raw_fd(),
                &mut to_offset,
                len,
                0,
            )
        };
        u64::try_from(copied).map_err(|_| io::Error::last_os_error())
    }

    pub(in super::super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        let c = |p: &Path| CString::new(p.as_os_str().as_bytes());
        let (c_from, c_to) = (c(from)?, c(to)?);
        // SAFETY: both paths are C strings that outlive the call; the kernel reads nothing else.
        let done = unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                libc::AT_FDCWD,
                c_from.as_ptr(),
                libc::AT_FDCWD,
                c_to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The file system or the kernel does not know the flag.
            Some(libc::EINVAL | libc::ENOSYS) => super::portable::rename_new(from, to),
            _ => Err(error),
        }
    }

    /// From linux/magic.h and, for the last two, the file systems' own sources.
    const EXT: i64 = 0xEF53;
    const TMPFS: i64 = 0x0102_1994;
    const BTRFS: i64 = 0x9123_683E;
    const XFS: i64 = 0x5846_5342;
    const OCFS2: i64 = 0x7461_636f;
    const NFS: i64 = 0x6969;
    const SMB2: i64 = 0xFE53_4D42;
    const CIFS: i64 = 0xFF53_4D42;
    const BCACHEFS: i64 = 0xCA45_1A4E;
    const ZFS: i64 = 0x2FC1_2FC1;

    pub(in super::super) fn file_system(folder: &Path) -> FileSystem {
        let Ok(path) = CString::new(folder.as_os_str().as_bytes()) else { return FileSystem::default() };
        // SAFETY: all bytes zero is a value of this struct of integers.
        let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path is a C string that outlives the call, and the struct is one that the kernel fills.
        if unsafe { libc::statfs(path.as_ptr(), &mut answer) } != 0 {
            return FileSystem::default();
        }
        #[allow(clippy::unnecessary_cast)] // The fields' types differ between targets.
        let (kind, blocks, free) = (answer.f_type as i64, answer.f_blocks as u64, answer.f_bfree as u64);
        #[allow(clippy::unnecessary_cast)]
        let block = answer.f_bsize as u64;
        // A file system that compresses or shares blocks takes more than it says, so only the others are
        // believed; blocks reserved for root count as free, since this process may be root.
        let plain = matches!(kind, EXT | TMPFS) && blocks != 0;
        FileSystem {
            copies_itself: matches!(kind, BTRFS | XFS | OCFS2 | NFS | SMB2 | CIFS | BCACHEFS | ZFS),
            free: plain.then(|| free.saturating_mul(block)),
        }
    }
}

/// The twins; tested on every system, used where there is nothing better.
mod portable {
    use super::*;

    /// Nothing is copied, so the caller reads and writes.
    #[cfg(any(test, not(target_os = "linux")))]
    pub(in super::super) fn copy_range(from: FileSpan<'_>, to: &File, at: u64) -> io::Result<u64> {
        let _ = (from, to, at);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A hard link fails if the name is taken, in one step. Folders, and file systems without hard links, get a
    /// look first and then the rename, with a moment between the two.
    pub(in super::super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        match std::fs::hard_link(from, to) {
            Ok(()) => std::fs::remove_file(from),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
            Err(_) if std::fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => std::fs::rename(from, to),
        }
    }

    #[cfg(any(test, not(target_os = "linux")))]
    pub(in super::super) fn file_system(folder: &Path) -> FileSystem {
        let _ = folder;
        FileSystem::default()
    }
}

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use portable as system;

/// Copies up to `from.len` bytes to `at` within the kernel; returns how many.
///
/// # Errors
/// Whatever the system says; every error means no more than that the caller has to read and write.
pub(super) fn copy_range(from: FileSpan<'_>, to: &File, at: u64) -> io::Result<u64> {
    system::copy_range(from, to, at)
}

/// Renames, and fails with `AlreadyExists` if the new name is taken.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    system::rename_new(from, to)
}

/// What is known about the file system that a folder is on.
pub(super) fn file_system(folder: &Path) -> FileSystem {
    system::file_system(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rename = fn(&Path, &Path) -> io::Result<()>;

    #[test]
    fn a_rename_to_a_new_name_never_replaces() {
        for rename in [rename_new as Rename, portable::rename_new] {
            let dir = tempfile::tempdir().unwrap();
            let at = |n: &str| dir.path().join(n);
            std::fs::write(at("a"), "a").unwrap();
            std::fs::write(at("b"), "b").unwrap();
            let refused = rename(&at("a"), &at("b")).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(at("b")).unwrap(), b"b");
            rename(&at("a"), &at("c")).unwrap();
            assert_eq!(std::fs::read(at("c")).unwrap(), b"a");
            assert!(!at("a").exists());
            std::fs::create_dir(at("d")).unwrap();
            rename(&at("d"), &at("e")).unwrap();
            assert!(at("e").is_dir() && !at("d").exists());
            std::fs::create_dir(at("f")).unwrap();
            let refused = rename(&at("f"), &at("e")).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn copying_a_range_copies_it_or_says_that_it_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, b"0123456789").unwrap();
        let (source, target) = (File::open(&from).unwrap(), File::create(dir.path().join("to")).unwrap());
        let span = FileSpan { file: &source, offset: 2, len: 5 };
        assert!(portable::copy_range(span, &target, 0).is_err());
        if let Ok(n) = copy_range(span, &target, 1) {
            let copied = std::fs::read(dir.path().join("to")).unwrap();
            assert!(n > 0 && copied == b"\x0023456"[..1 + n as usize], "{copied:?}");
        } else {
            assert_eq!(target.metadata().unwrap().len(), 0, "a refusal changes nothing");
        }
        assert_eq!(portable::file_system(dir.path()), FileSystem::default());
    }
}
