//! What only Linux offers, each beside a twin for every other system: copying within the kernel, writing through
//! a map, renaming without replacing, and what kind of file system a folder is on.
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
    /// Whether files live in memory, and writing through a map is worth it (see [`write_mapped`]).
    pub(super) in_memory: bool,
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

    pub(in super::super) fn write_mapped(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let at = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        // A store beyond the end would be a signal and not an error, so the end is asked for.
        if bytes.is_empty() || offset.saturating_add(bytes.len() as u64) > file.metadata()?.len() {
            return Err(invalid());
        }
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new map at an address of the kernel's choice touches no memory that is in use; the
        // descriptor is open as long as the borrow of the file lives. A wrong offset is an error.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), bytes.len(), access, libc::MAP_SHARED, fd, at) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the map that was just made.
        let populated = unsafe { libc::madvise(map, bytes.len(), libc::MADV_POPULATE_WRITE) };
        let error = io::Error::last_os_error();
        if populated == 0 {
            // SAFETY: the map is writable, as long as `bytes`, and known to nobody else, so the two do not
            // overlap. All of it lies within the file, and its pages are there: no store meets a full disk.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>(), bytes.len()) };
        }
        // SAFETY: the range is that map, and nothing points into it from here on.
        unsafe { libc::munmap(map, bytes.len()) };
        if populated == 0 { Ok(()) } else { Err(error) }
    }

    pub(in super::super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        rename(from, to, libc::RENAME_NOREPLACE, super::portable::rename_new)
    }

    pub(in super::super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
        rename(a, b, libc::RENAME_EXCHANGE, super::portable::exchange)
    }

    /// Renames with a flag, or by the twin where the file system or the kernel does not know it.
    fn rename(
        from: &Path,
        to: &Path,
        flag: libc::c_uint,
        twin: fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let c = |p: &Path| CString::new(p.as_os_str().as_bytes());
        let (c_from, c_to) = (c(from)?, c(to)?);
        let here = libc::AT_FDCWD;
        // SAFETY: both paths are C strings that outlive the call; the kernel reads nothing else.
        let done =
            unsafe { libc::syscall(libc::SYS_renameat2, here, c_from.as_ptr(), here, c_to.as_ptr(), flag) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS) => twin(from, to),
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
            in_memory: kind == TMPFS,
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

    /// Nothing is written, so the caller writes at a position.
    #[cfg(any(test, not(target_os = "linux")))]
    pub(in super::super) fn write_mapped(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _ = (file, bytes, offset);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The old one aside, the new one in, the old one to the new one's name: with a moment in which neither is in
    /// place. If the second step fails, the first is undone.
    pub(in super::super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
        let mut aside = a.as_os_str().to_owned();
        aside.push(".old");
        let aside = std::path::PathBuf::from(aside);
        std::fs::rename(b, &aside)?;
        if let Err(e) = std::fs::rename(a, b) {
            std::fs::rename(&aside, b)?;
            return Err(e);
        }
        std::fs::rename(&aside, a)
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

/// Writes into a file's pages through a map, within the file's length. `offset` is a multiple of the page size.
///
/// For files in memory only. There, writing at a position takes the file's lock for as long as pages are
/// allocated and filled, so that a second thread waits; filling a map needs no such lock. It is the slower way
/// otherwise, and the way for whoever finds the lock taken.
///
/// The file must be this process's own: another process that truncates it meanwhile ends this one by a signal.
///
/// # Errors
/// Whatever the system says; every error means no more than that the caller has to write at a position.
pub(super) fn write_mapped(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    system::write_mapped(file, bytes, offset)
}

/// Renames, and fails with `AlreadyExists` if the new name is taken.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    system::rename_new(from, to)
}

/// Gives each of two files or folders the other's name.
pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    system::exchange(a, b)
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
    fn an_exchange_swaps_two_folders() {
        for exchange in [exchange as Rename, portable::exchange] {
            let dir = tempfile::tempdir().unwrap();
            let at = |n: &str| dir.path().join(n);
            for name in ["a", "b"] {
                std::fs::create_dir(at(name)).unwrap();
                std::fs::write(at(name).join("x"), name).unwrap();
            }
            exchange(&at("a"), &at("b")).unwrap();
            assert_eq!(std::fs::read(at("a/x")).unwrap(), b"b");
            assert_eq!(std::fs::read(at("b/x")).unwrap(), b"a");
            assert!(exchange(&at("missing"), &at("b")).is_err());
            assert_eq!(std::fs::read(at("b/x")).unwrap(), b"a", "a failure changes nothing");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn writing_through_a_map_writes_or_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let len = 3 * 4096 + 100;
        for (offset, n) in [(0, 1), (0, 4096), (4096, 4097), (8192, 4196), (12288, 100), (0, len)] {
            std::fs::write(&path, vec![1; len]).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut expected = vec![1; len];
            assert!(portable::write_mapped(&file, &vec![2; n], offset as u64).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), expected);
            if write_mapped(&file, &vec![2; n], offset as u64).is_ok() {
                expected[offset..offset + n].fill(2);
            }
            assert_eq!(std::fs::read(&path).unwrap(), expected);
            assert!(write_mapped(&file, &vec![2; len + 1 - offset], offset as u64).is_err(), "past the end");
            assert!(write_mapped(&file, &[2], 1).is_err(), "not at a page");
            assert_eq!(std::fs::read(&path).unwrap(), expected);
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
