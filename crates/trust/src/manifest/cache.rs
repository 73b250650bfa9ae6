//! Digests of files on disk, so that what has not changed is not read again.
//!
//! A file is taken for unchanged if its path, size, modification time, change time, inode and device are what they were.
//! A file that changed as its digests were recorded, or shortly before, could change again without a new time, since
//! clocks of file systems have a coarse tick; so it is not recorded (git's index takes such entries for racy as well). What
//! rots on a disk changes no time, so a check that is to find rot must not use a cache. Systems without inodes and change
//! times have no cache.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use weighbridge_formats::{Error, Result};

use super::files::FileDigest;
use super::text::{from_hex, hex};

/// The largest cache that is read.
const LONGEST: u64 = 64 << 20;
/// The most files that are remembered.
const MOST: usize = 50_000;
/// How long a file must have been as it is when it is recorded: no clock of a file system ticks slower (FAT's: 2 s).
const SETTLED: u128 = 2_500_000_000;
/// The first line, before the BLAKE3 of the rest.
const HEAD: &str = "weighbridge digests 1 ";

/// Digests of files that were hashed before.
///
/// Nothing is written before [`Cache::save`]. Threads may share it; of two programs that save at once the later wins, and
/// what the other one knew is hashed again.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    known: HashMap<PathBuf, (Stamp, FileDigest)>,
    changed: bool,
}

/// When and where a file was: everything that tells whether it is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    modified: i128,
    changed: i128,
    inode: u64,
    device: u64,
    /// When the stamp was taken, which is no part of the file.
    taken: u128,
}

impl Stamp {
    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        // The clock is asked first: a change between the two is then one that comes after.
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
        let meta = std::fs::metadata(path).ok()?;
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Some(Self {
            size: meta.len(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
            taken,
        })
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &Path) -> Option<Self> {
        let _ = SystemTime::now().duration_since(UNIX_EPOCH);
        None
    }

    fn same(&self, other: &Self) -> bool {
        Self { taken: 0, ..*self } == Self { taken: 0, ..*other }
    }

    /// Whether a change after this moment would show in the times.
    fn settled(&self) -> bool {
        let Ok(settled) = i128::try_from(self.taken.saturating_sub(SETTLED)) else { return false };
        self.modified < settled && self.changed < settled
    }
}

impl Cache {
    /// The user's cache: `weighbridge/digests` in `$XDG_CACHE_HOME`, or in `~/.cache`. `None` if neither is known, or
    /// `WEIGHBRIDGE_NO_CACHE` is set in the environment.
    pub fn user() -> Option<Self> {
        if std::env::var_os("WEIGHBRIDGE_NO_CACHE").is_some_and(|v| !v.is_empty()) {
            return None;
        }
        // The specification has relative paths ignored.
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(Self::open(base.join("weighbridge").join("digests")))
    }

    /// The cache in a file. One that is broken, is not there, or that others may write to is taken for empty.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let known = read(&path).unwrap_or_default();
        Self { path, entries: Mutex::new(Entries { known, changed: false }) }
    }

    /// How many files are known.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).known.len()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digests of a file, if they are known and the file is what it was.
    pub fn get(&self, path: &Path) -> Option<FileDigest> {
        let path = std::fs::canonicalize(path).ok()?;
        let now = Stamp::of(&path)?;
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, digest) = entries.known.get(&path)?;
        (now.same(then) && then.settled()).then_some(*digest)
    }

    /// Remembers what was read after `before` was taken, if nothing has changed since, and nothing had just then.
    pub(super) fn put(&self, path: &Path, before: Option<Stamp>, digest: FileDigest) {
        let Some((before, path)) = before.zip(std::fs::canonicalize(path).ok()) else { return };
        let same = Stamp::of(&path).is_some_and(|after| after.same(&before) && after.size == digest.size);
        if same && before.settled() {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.known.insert(path, (before, digest));
            entries.changed = true;
        }
    }

    /// Writes what is new, readable by the user alone. The oldest entries are left out where there are too many.
    ///
    /// # Errors
    /// What the system says. A caller may pass over it: a cache that is not saved costs time, later.
    pub fn save(&self) -> Result<()> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if !entries.changed {
            return Ok(());
        }
        let mut all: Vec<_> = entries.known.iter().collect();
        all.sort_by(|a, b| (b.1.0.taken, a.0).cmp(&(a.1.0.taken, b.0)));
        all.truncate(MOST);
        let mut body = String::new();
        for (path, (stamp, digest)) in all {
            // A path that is no text is hashed each time.
            let Some(path) = path.to_str() else { continue };
            let Stamp { size, modified, changed, inode, device, taken } = stamp;
            let (sha256, blake3) = (hex(&digest.sha256), hex(&digest.blake3));
            let path = serde_json::Value::from(path);
            body +=
                &format!("{size} {modified} {changed} {inode} {device} {taken} {sha256} {blake3} {path}\n");
        }
        let text = format!("{HEAD}{}\n{body}", blake3::hash(body.as_bytes()).to_hex());
        write_private(&self.path, text.as_bytes())?;
        entries.changed = false;
        Ok(())
    }
}

fn read(path: &Path) -> Option<HashMap<PathBuf, (Stamp, FileDigest)>> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    if !meta.is_file() || meta.len() > LONGEST || !is_private(&meta) {
        return None;
    }
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    let (sum, body) = text.strip_prefix(HEAD)?.split_once('\n')?;
    if blake3::hash(body.as_bytes()).to_hex().as_str() != sum {
        return None;
    }
    body.lines().map(entry).collect()
}

fn entry(line: &str) -> Option<(PathBuf, (Stamp, FileDigest))> {
    let mut fields = line.splitn(9, ' ');
    let mut next = || fields.next();
    let stamp = Stamp {
        size: next()?.parse().ok()?,
        modified: next()?.parse().ok()?,
        changed: next()?.parse().ok()?,
        inode: next()?.parse().ok()?,
        device: next()?.parse().ok()?,
        taken: next()?.parse().ok()?,
    };
    let digest = FileDigest { size: stamp.size, sha256: from_hex(next()?)?, blake3: from_hex(next()?)? };
    let path: String = serde_json::from_str(next()?).ok()?;
    Some((path.into(), (stamp, digest)))
}

/// Whether nobody but the owner may write to it: others could put digests of their own there.
#[cfg(unix)]
fn is_private(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    meta.mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn is_private(_: &std::fs::Metadata) -> bool {
    true
}

/// Writes a file of the user's own in a folder of the user's own, by a rename.
fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use weighbridge_formats::write::{ExecuteOptions, FilePlan, WritePlan, execute};
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Err(Error::invalid_options("this is no name for a cache").with_path(path));
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| Error::io("creating the cache's folder", e).with_path(folder))?;
    let mut file = FilePlan::new(name);
    file.push_fixed(bytes.to_vec())?;
    let mut options = ExecuteOptions::default();
    options.overwrite = true;
    // After a power cut it is broken, and then it is ignored.
    options.fsync = false;
    options.mode = Some(0o600);
    options.threads = Some(1);
    execute(WritePlan { files: vec![file], notes: Vec::new() }, folder, &options).map(drop)
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::files::{DigestOptions, digest_files};
    use super::*;
    use std::fs::{self, File, FileTimes};
    use std::time::Duration;

    /// A file that has been as it is for a minute, as far as its modification time goes; the change time is now.
    fn aged(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(old))
            .unwrap();
    }

    fn digest(byte: u8) -> FileDigest {
        FileDigest { size: 3, sha256: [byte; 32], blake3: [byte + 1; 32] }
    }

    /// What a file's stamp will be when its change time is a while ago.
    fn later(path: &Path) -> Stamp {
        let stamp = Stamp::of(path).unwrap();
        Stamp { taken: stamp.taken + 10_000_000_000, ..stamp }
    }

    #[test]
    fn what_was_recorded_is_found_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, store) = (dir.path().join("f"), dir.path().join("private/digests"));
        aged(&file, b"abc");
        let cache = Cache::open(&store);
        cache.put(&file, Some(later(&file)), digest(1));
        assert_eq!(cache.get(&file), Some(digest(1)));
        cache.save().unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Cache::open(&store);
        assert_eq!((again.len(), again.get(&file)), (1, Some(digest(1))));
        // Hashing takes the digests from there, right or wrong.
        let options = DigestOptions::default().cache(Some(&again));
        assert_eq!(digest_files(&[&file], &options).unwrap(), [digest(1)]);
        // The same size and the same modification time: the change time tells.
        std::thread::sleep(Duration::from_millis(20));
        aged(&file, b"abd");
        assert_eq!(again.get(&file), None);
        assert_ne!(digest_files(&[&file], &options).unwrap(), [digest(1)]);
    }

    #[test]
    fn a_file_that_just_changed_is_not_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        aged(&file, b"abc");
        let cache = Cache::open(dir.path().join("digests"));
        cache.put(&file, Stamp::of(&file), digest(1));
        assert!(cache.is_empty() && cache.get(&file).is_none());
        // Not even where hashing took the stamp itself.
        digest_files(&[&file], &DigestOptions::default().cache(Some(&cache))).unwrap();
        assert!(cache.is_empty());
        cache.save().unwrap();
        assert!(!dir.path().join("digests").exists());
    }

    #[test]
    fn a_broken_cache_and_one_that_others_write_to_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let (file, store) = (dir.path().join("f"), dir.path().join("digests"));
        aged(&file, b"abc");
        let cache = Cache::open(&store);
        cache.put(&file, Some(later(&file)), digest(1));
        cache.save().unwrap();
        let good = fs::read(&store).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            fs::write(&store, &bad).unwrap();
            assert!(Cache::open(&store).is_empty(), "byte {i}");
        }
        fs::write(&store, &good[..good.len() - 1]).unwrap();
        assert!(Cache::open(&store).is_empty());
        fs::write(&store, &good).unwrap();
        assert_eq!(Cache::open(&store).len(), 1);
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&store, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Cache::open(&store).is_empty());
    }
}
