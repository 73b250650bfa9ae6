//! Digests of files: SHA-256 and BLAKE3 of many files, each read once.
//!
//! BLAKE3 is a tree, so any thread hashes any chunk of a file; SHA-256 takes the chunks in their order. So each file that
//! is being read belongs to one worker, which takes the chunks in order for SHA-256, and workers that have no file of
//! their own read ahead for it, and hash what they read for BLAKE3. A folder of many files has all workers on files of
//! their own, and a single large one is as fast as SHA-256 is alone. Memory is at most eight chunks of 256 KiB for each
//! worker, whatever the sizes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use weighbridge_formats::logical::{Digest, Joiner, Piece};
use weighbridge_formats::write::{Digesting, InOrder, Observer};
use weighbridge_formats::{Error, ErrorKind, Result, Source, on_workers, worker_count};

pub use super::cache::Cache;

/// What a worker reads at a time: little enough to stay in its cache while it is hashed twice.
const CHUNK: u64 = 256 << 10;
/// How many chunks of a file may be read before SHA-256 has come to them.
const AHEAD: u64 = 8;

/// The size and the digests of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its BLAKE3.
    pub blake3: [u8; 32],
}

/// The digests that a manifest needs of files, made by the write engine in the pass that writes them
/// ([`ExecuteOptions::digests`](weighbridge_formats::write::ExecuteOptions::digests)).
pub const IN_PASS: Digesting = Digesting { in_order: || Box::new(InPass(Sha256::new())) };

struct InPass(Sha256);

impl InOrder for InPass {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> Digest {
        self.0.finalize().into()
    }
}

/// Choices for hashing files.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct DigestOptions<'a> {
    /// How many threads; `None`: as many as there are processors, at most four.
    pub threads: Option<usize>,
    /// Who is told of the bytes that are done, and may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// Digests of files that have not changed since they were hashed before. `None`: every byte is read.
    pub cache: Option<&'a Cache>,
}

impl<'a> DigestOptions<'a> {
    /// With an observer.
    pub fn observer(mut self, observer: Option<&'a dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// With so many threads.
    pub fn threads(mut self, threads: Option<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// With a cache.
    pub fn cache(mut self, cache: Option<&'a Cache>) -> Self {
        self.cache = cache;
        self
    }
}

/// The digests of files, in their order.
///
/// # Errors
/// The first error of a file, with its path: what the system says, `UnsafeContent` for what is no regular file,
/// `Mismatch` for a file that changed while it was read; `Cancelled`.
pub fn digest_files<P: AsRef<Path>>(paths: &[P], options: &DigestOptions<'_>) -> Result<Vec<FileDigest>> {
    digest_each(paths, options)?.into_iter().collect()
}

/// The digests of files, in their order, each with an error of its own.
///
/// # Errors
/// `Cancelled`.
pub fn digest_each<P: AsRef<Path>>(
    paths: &[P],
    options: &DigestOptions<'_>,
) -> Result<Vec<Result<FileDigest>>> {
    let jobs = paths.iter().map(|p| Job::new(p.as_ref(), Wanted::BOTH)).collect();
    let done = run(jobs, options)?;
    Ok(done.into_iter().map(|d| d.and_then(|d| d.both())).collect())
}

/// Which digests of a file are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) sha256: bool,
    pub(crate) blake3: bool,
}

impl Wanted {
    pub(crate) const BOTH: Self = Self { sha256: true, blake3: true };
}

/// A file that is to be hashed.
pub(crate) struct Job {
    path: PathBuf,
    wanted: Wanted,
    /// Parts of which the BLAKE3 is wanted too: offset and length, in their order, none over another.
    parts: Vec<(u64, u64)>,
}

/// What hashing a file gave.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) size: u64,
    pub(crate) sha256: Option<Digest>,
    pub(crate) blake3: Option<Digest>,
    /// The BLAKE3 of each part.
    pub(crate) parts: Vec<Digest>,
}

impl Job {
    pub(crate) fn new(path: &Path, wanted: Wanted) -> Self {
        Self { path: path.to_owned(), wanted, parts: Vec::new() }
    }

    /// Asks for the BLAKE3 of parts of the file, in their order, none over another and none empty.
    pub(crate) fn parts(mut self, parts: Vec<(u64, u64)>) -> Self {
        self.parts = parts;
        self
    }
}

impl Done {
    fn both(self) -> Result<FileDigest> {
        match (self.sha256, self.blake3) {
            (Some(sha256), Some(blake3)) => Ok(FileDigest { size: self.size, sha256, blake3 }),
            _ => Err(Error::invalid_options("a digest was not asked for")),
        }
    }
}

/// Hashes files; the cache answers for those that want no parts.
pub(crate) fn run(jobs: Vec<Job>, options: &DigestOptions<'_>) -> Result<Vec<Result<Done>>> {
    let mut sizes = vec![0; jobs.len()];
    let mut total = 0u64;
    for (size, job) in sizes.iter_mut().zip(&jobs) {
        *size = std::fs::metadata(&job.path).map_or(0, |m| m.len());
        total = total.saturating_add(*size);
    }
    if let Some(observer) = options.observer {
        observer.started(total);
    }
    // Where one worker takes the largest files last, the others wait for it at the end.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sizes[i]));
    let shared = Shared {
        jobs,
        order,
        options: *options,
        state: Mutex::new(State {
            next: 0,
            owned: 0,
            active: BTreeMap::new(),
            results: Vec::new(),
            stop: false,
        }),
        changed: Condvar::new(),
    };
    shared.lock().results.resize_with(shared.jobs.len(), || None);
    let threads = worker_count(options.threads).min(total.div_ceil(CHUNK).max(1) as usize);
    on_workers(threads, || shared.work())?;
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(observer) = options.observer {
        observer.finished();
    }
    let missing = || Err(Error::invalid_options("a file was not hashed"));
    Ok(state.results.into_iter().map(|r| r.unwrap_or_else(missing)).collect())
}

struct Shared<'a> {
    jobs: Vec<Job>,
    /// The jobs, the largest first.
    order: Vec<usize>,
    options: DigestOptions<'a>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// How many jobs of the order have an owner or had one.
    next: usize,
    /// How many owners are at work.
    owned: usize,
    /// The files of more than one chunk that are being read, by job.
    active: BTreeMap<usize, Active>,
    results: Vec<Option<Result<Done>>>,
    /// Everybody is to stop: cancelled, or a worker panics.
    stop: bool,
}

/// A file that is being read.
struct Active {
    file: Arc<Open>,
    /// The chunk that is read next.
    claim: u64,
    /// The chunk that is taken next, by the owner.
    take: u64,
    ready: BTreeMap<u64, Result<Chunk>>,
}

struct Open {
    source: Source,
    len: u64,
    chunks: u64,
    wanted: Wanted,
    parts: Vec<(u64, u64)>,
}

/// A chunk of a file after it was read.
struct Chunk {
    bytes: Vec<u8>,
    piece: Option<Piece>,
    /// The pieces of parts that lie in it, by the part's number.
    parts: Vec<(usize, Piece)>,
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancelled(&self) -> bool {
        self.options.observer.is_some_and(|o| o.cancelled())
    }

    fn work(&self) -> Result<()> {
        let _guard = StopOnPanic(self);
        let mut state = self.lock();
        let mut spare = Vec::new();
        loop {
            if state.stop {
                return Ok(());
            }
            if self.cancelled() {
                state.stop = true;
                self.changed.notify_all();
                return Err(Error::cancelled("hashing was cancelled"));
            }
            if let Some(&job) = self.order.get(state.next) {
                state.next += 1;
                state.owned += 1;
                drop(state);
                let done = self.own(job, &mut spare);
                state = self.lock();
                state.owned -= 1;
                state.active.remove(&job);
                let path = &self.jobs[job].path;
                state.results[job] = done.map(|d| d.map_err(|e| e.with_path(path)));
                self.changed.notify_all();
                continue;
            }
            if let Some((job, file, chunk)) = state.claim() {
                drop(state);
                let read = file.read(chunk, std::mem::take(&mut spare));
                state = self.lock();
                if let Some(active) = state.active.get_mut(&job) {
                    active.ready.insert(chunk, read);
                    self.changed.notify_all();
                }
                continue;
            }
            if state.owned == 0 {
                return Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hashes a file; `None` if everybody is to stop.
    fn own(&self, job: usize, spare: &mut Vec<u8>) -> Option<Result<Done>> {
        let Job { path, wanted, parts } = &self.jobs[job];
        let cache = self.options.cache.filter(|_| parts.is_empty());
        if let Some(known) = cache.and_then(|c| c.get(path)) {
            self.advanced(known.size);
            let FileDigest { size, sha256, blake3 } = known;
            return Some(Ok(Done { size, sha256: Some(sha256), blake3: Some(blake3), parts: Vec::new() }));
        }
        let stamp = cache.and_then(|_| super::cache::Stamp::of(path));
        let open = match Source::open(path) {
            Ok(source) => {
                let len = source.len();
                let chunks = len.div_ceil(CHUNK);
                Arc::new(Open { source, len, chunks, wanted: *wanted, parts: parts.clone() })
            }
            Err(e) => return Some(Err(e)),
        };
        let done = self.digest(job, &open, spare)?;
        let done = done.and_then(|done| match std::fs::metadata(path) {
            // What was read may be half of one file and half of another.
            Ok(meta) if meta.len() != done.size => {
                let what = format!("the file had {} bytes, and {} after it was read", done.size, meta.len());
                Err(Error::mismatch(what).with_hint("another program is writing it: wait until it is done"))
            }
            _ => Ok(done),
        });
        if let (Ok(Done { size, sha256: Some(sha256), blake3: Some(blake3), .. }), Some(cache)) =
            (&done, cache)
        {
            cache.put(path, stamp, FileDigest { size: *size, sha256: *sha256, blake3: *blake3 });
        }
        Some(done)
    }

    fn advanced(&self, bytes: u64) {
        if let Some(observer) = self.options.observer {
            observer.advanced(bytes);
        }
    }

    fn digest(&self, job: usize, file: &Arc<Open>, spare: &mut Vec<u8>) -> Option<Result<Done>> {
        let mut taker = match Taker::new(file) {
            Ok(taker) => taker,
            Err(e) => return Some(Err(e)),
        };
        if file.chunks > 1 {
            let active = Active { file: file.clone(), claim: 0, take: 0, ready: BTreeMap::new() };
            self.lock().active.insert(job, active);
            self.changed.notify_all();
        }
        for chunk in 0..file.chunks {
            let read = match self.next_chunk(job, file, chunk, spare)? {
                Ok(read) => read,
                Err(e) => return Some(Err(e)),
            };
            let len = taker.take(read, spare);
            self.advanced(len);
            if file.chunks > 1 {
                let mut state = self.lock();
                if state.stop {
                    return None;
                }
                if let Some(active) = state.active.get_mut(&job) {
                    active.take = chunk + 1;
                }
                drop(state);
                self.changed.notify_all();
            }
        }
        Some(taker.finish())
    }

    /// The next chunk in order: read ahead by somebody, or by the owner himself. `None` if everybody is to stop.
    fn next_chunk(
        &self,
        job: usize,
        file: &Arc<Open>,
        chunk: u64,
        spare: &mut Vec<u8>,
    ) -> Option<Result<Chunk>> {
        if self.cancelled() || file.chunks == 1 {
            // The loop of the worker says that it was cancelled.
            return (!self.cancelled()).then(|| file.read(chunk, std::mem::take(spare)));
        }
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let active = state.active.get_mut(&job)?;
            if let Some(read) = active.ready.remove(&chunk) {
                return Some(read);
            }
            if active.claim < (chunk + AHEAD).min(file.chunks) {
                let mine = active.claim;
                active.claim += 1;
                drop(state);
                let read = file.read(mine, std::mem::take(spare));
                if mine == chunk {
                    return Some(read);
                }
                state = self.lock();
                state.active.get_mut(&job)?.ready.insert(mine, read);
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// A chunk that may be read ahead for its owner.
    fn claim(&mut self) -> Option<(usize, Arc<Open>, u64)> {
        self.active.iter_mut().find_map(|(job, active)| {
            let chunk = active.claim;
            (chunk < (active.take + AHEAD).min(active.file.chunks)).then(|| {
                active.claim += 1;
                (*job, active.file.clone(), chunk)
            })
        })
    }
}

impl Open {
    /// Reads a chunk and hashes it for BLAKE3.
    fn read(&self, chunk: u64, mut bytes: Vec<u8>) -> Result<Chunk> {
        let start = chunk * CHUNK;
        let end = (start + CHUNK).min(self.len);
        bytes.resize((end - start) as usize, 0);
        self.source.reader().read_at(start, &mut bytes)?;
        let piece = self.wanted.blake3.then(|| Piece::new(start, &bytes, self.len));
        let first = self.parts.partition_point(|(offset, len)| offset + len <= start);
        let mut parts = Vec::new();
        for (i, &(offset, len)) in self.parts.iter().enumerate().skip(first) {
            if offset >= end {
                break;
            }
            let (from, to) = (offset.max(start), (offset + len).min(end));
            let part = &bytes[(from - start) as usize..(to - start) as usize];
            parts.push((i, Piece::new(from - offset, part, len)));
        }
        Ok(Chunk { bytes, piece, parts })
    }
}

/// Takes the chunks of a file in their order.
struct Taker {
    len: u64,
    sha256: Option<Sha256>,
    blake3: Option<Joiner>,
    parts: Vec<Option<Digest>>,
    lengths: Vec<u64>,
    /// The part that is not complete.
    open: Option<(usize, Joiner)>,
}

impl Taker {
    fn new(file: &Open) -> Result<Self> {
        let mut at = 0;
        for &(offset, len) in &file.parts {
            let end = offset.checked_add(len).filter(|&end| offset >= at && len > 0 && end <= file.len);
            at = end.ok_or_else(|| {
                Error::malformed(format!("{len} bytes at {offset} are no part of {} bytes", file.len))
            })?;
        }
        Ok(Self {
            len: file.len,
            sha256: file.wanted.sha256.then(Sha256::new),
            blake3: file.wanted.blake3.then(|| Joiner::new(file.len)),
            parts: vec![None; file.parts.len()],
            lengths: file.parts.iter().map(|p| p.1).collect(),
            open: None,
        })
    }

    /// Adds a chunk; its buffer is kept for the next. Returns its length.
    fn take(&mut self, chunk: Chunk, spare: &mut Vec<u8>) -> u64 {
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(&chunk.bytes);
        }
        if let (Some(joiner), Some(piece)) = (&mut self.blake3, chunk.piece) {
            joiner.push(piece);
        }
        for (part, piece) in chunk.parts {
            if self.open.as_ref().is_none_or(|(open, _)| *open != part) {
                self.close();
                self.open = Some((part, Joiner::new(self.lengths[part])));
            }
            if let Some((_, joiner)) = &mut self.open {
                joiner.push(piece);
            }
        }
        let len = chunk.bytes.len() as u64;
        *spare = chunk.bytes;
        len
    }

    fn close(&mut self) {
        if let Some((part, joiner)) = self.open.take() {
            self.parts[part] = joiner.finish();
        }
    }

    fn finish(mut self) -> Result<Done> {
        self.close();
        let incomplete = || Error::new(ErrorKind::Mismatch, "not every byte was read exactly once");
        let blake3 = match self.blake3 {
            Some(_) if self.len == 0 => Some(blake3::hash(&[]).into()),
            Some(joiner) => Some(joiner.finish().ok_or_else(incomplete)?),
            None => None,
        };
        Ok(Done {
            size: self.len,
            sha256: self.sha256.map(|hasher| hasher.finalize().into()),
            blake3,
            parts: self.parts.into_iter().map(|p| p.ok_or_else(incomplete)).collect::<Result<_>>()?,
        })
    }
}

/// Ends the other workers when one panics: they would wait for its chunk.
struct StopOnPanic<'a, 's>(&'a Shared<'s>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().stop = true;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| ((i + seed) * 31 + i / 251) as u8).collect()
    }

    fn expected(bytes: &[u8]) -> FileDigest {
        FileDigest {
            size: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
            blake3: blake3::hash(bytes).into(),
        }
    }

    #[test]
    fn files_of_every_size_have_the_digests_that_the_crates_give_them() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = CHUNK as usize;
        let sizes = [0, 1, 1024, 1025, chunk - 1, chunk, chunk + 1, 3 * chunk, 11 * chunk + 77, 20 * chunk];
        for threads in [1, 2, 3, 8] {
            for subset in [&sizes[..], &sizes[9..], &sizes[4..6]] {
                let mut paths = Vec::new();
                let mut wanted = Vec::new();
                for (i, &size) in subset.iter().enumerate() {
                    let path = dir.path().join(format!("{i}"));
                    let content = bytes(size, i);
                    std::fs::write(&path, &content).unwrap();
                    wanted.push(expected(&content));
                    paths.push(path);
                }
                let options = DigestOptions::default().threads(Some(threads));
                assert_eq!(digest_files(&paths, &options).unwrap(), wanted, "{threads} threads");
            }
        }
    }

    #[test]
    fn parts_are_hashed_in_the_same_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content = bytes(5 * CHUNK as usize + 333, 5);
        std::fs::write(&path, &content).unwrap();
        let len = content.len() as u64;
        let parts = vec![(3, 1), (4, 1023), (2000, CHUNK), (CHUNK + 2000, 2 * CHUNK + 5), (len - 10, 10)];
        for (threads, wanted) in
            [(1, Wanted::BOTH), (3, Wanted { sha256: false, blake3: true }), (3, Wanted::BOTH)]
        {
            let job = Job::new(&path, wanted).parts(parts.clone());
            let options = DigestOptions::default().threads(Some(threads));
            let done = run(vec![job], &options).unwrap().pop().unwrap().unwrap();
            assert_eq!(done.blake3, Some(blake3::hash(&content).into()));
            assert_eq!(done.sha256.is_some(), wanted.sha256);
            for (part, found) in parts.iter().zip(&done.parts) {
                let slice = &content[part.0 as usize..(part.0 + part.1) as usize];
                assert_eq!(*found, Digest::from(blake3::hash(slice)), "{part:?}");
            }
        }
        for bad in [vec![(0, 0)], vec![(5, 5), (9, 2)], vec![(len, 1)], vec![(u64::MAX, 2)]] {
            let job = Job::new(&path, Wanted::BOTH).parts(bad);
            assert!(run(vec![job], &DigestOptions::default()).unwrap().pop().unwrap().is_err());
        }
    }

    #[test]
    fn each_file_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::write(&there, b"x").unwrap();
        let paths = [there, dir.path().join("missing"), dir.path().to_owned()];
        let each = digest_each(&paths, &DigestOptions::default()).unwrap();
        assert_eq!(*each[0].as_ref().unwrap(), expected(b"x"));
        let missing = each[1].as_ref().unwrap_err();
        assert_eq!((missing.kind(), missing.path()), (ErrorKind::NotFound, Some(&*paths[1])));
        assert_eq!(each[2].as_ref().unwrap_err().kind(), ErrorKind::InvalidOptions);
        assert_eq!(digest_files::<&Path>(&[], &DigestOptions::default()).unwrap(), []);
    }

    #[derive(Default)]
    struct Watch {
        total: AtomicU64,
        done: AtomicU64,
        stop_at: u64,
    }

    impl Observer for Watch {
        fn started(&self, total: u64) {
            self.total.store(total, Ordering::Relaxed);
        }

        fn advanced(&self, bytes: u64) {
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }

        fn cancelled(&self) -> bool {
            self.stop_at > 0 && self.done.load(Ordering::Relaxed) >= self.stop_at
        }
    }

    #[test]
    fn progress_adds_up_and_a_cancel_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..3).map(|i| dir.path().join(format!("{i}"))).collect();
        for path in &paths {
            std::fs::write(path, bytes(7 * CHUNK as usize, 0)).unwrap();
        }
        let watch = Watch::default();
        let options = DigestOptions::default().observer(Some(&watch)).threads(Some(2));
        digest_files(&paths, &options).unwrap();
        assert_eq!(watch.total.load(Ordering::Relaxed), 21 * CHUNK);
        assert_eq!(watch.done.load(Ordering::Relaxed), 21 * CHUNK);
        for threads in [1, 2, 5] {
            let watch = Watch { stop_at: 2 * CHUNK, ..Watch::default() };
            let options = DigestOptions::default().observer(Some(&watch)).threads(Some(threads));
            assert_eq!(digest_files(&paths, &options).unwrap_err().kind(), ErrorKind::Cancelled);
            assert!(watch.done.load(Ordering::Relaxed) < 21 * CHUNK);
        }
    }
}
