//! Digests of a model's files as a statement has them: of whole files or of shards, by one of three hashes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::digest::Digest;
use weighbridge_formats::write::Observer;
use weighbridge_formats::{Error, Result, on_workers, worker_count};

use super::statement::{FileDigests, HashType, Serialization};
use super::tree::{Stamp, TreeFile};
use crate::manifest::files::{Cache, DigestOptions, FileDigest, Job, Wanted, digest_files, run};

/// What is read at a time.
const CHUNK: usize = 256 << 10;

/// Choices for hashing.
#[derive(Clone, Copy, Default)]
pub(super) struct Hashing<'a> {
    pub(super) threads: Option<usize>,
    pub(super) observer: Option<&'a dyn Observer>,
    /// What is known of files that have not changed since they were hashed before.
    pub(super) cache: Option<&'a Cache>,
}

/// The digests of files by their names, and how many bytes were read for them.
pub(super) fn digest(
    files: &[&TreeFile],
    serialization: &Serialization,
    hashing: &Hashing<'_>,
) -> Result<(BTreeMap<String, FileDigests>, u64)> {
    let (digests, read) = match (serialization.hash, serialization.shard_size) {
        (HashType::Sha256 | HashType::Blake3, None) => whole(files, serialization.hash, hashing)?,
        _ => parts(files, serialization, hashing)?,
    };
    Ok((files.iter().map(|f| f.name.clone()).zip(digests).collect(), read))
}

/// Whole files by the hashes that manifests have too, so that one cache serves both.
fn whole(files: &[&TreeFile], hash: HashType, hashing: &Hashing<'_>) -> Result<(Vec<FileDigests>, u64)> {
    let options =
        DigestOptions::default().threads(hashing.threads).observer(hashing.observer).cache(hashing.cache);
    let paths: Vec<_> = files.iter().map(|f| &f.path).collect();
    let pick = |sha256: [u8; 32], blake3: [u8; 32]| if hash == HashType::Sha256 { sha256 } else { blake3 };
    if let Some(cache) = hashing.cache {
        let known =
            paths.iter().filter_map(|path| cache.get(path)).map(|d| d.size).fold(0, u64::saturating_add);
        let done = digest_files(&paths, &options)?;
        let all = done.iter().map(|d| d.size).fold(0, u64::saturating_add);
        let digests = done.iter().map(|FileDigest { sha256, blake3, .. }| pick(*sha256, *blake3));
        return Ok((digests.map(one).collect(), all.saturating_sub(known)));
    }
    let wanted = Wanted { sha256: hash == HashType::Sha256, blake3: hash == HashType::Blake3 };
    let mut read = 0u64;
    let mut digests = Vec::with_capacity(files.len());
    for done in run(paths.iter().map(|path| Job::new(path, wanted)).collect(), &options)? {
        let done = done?;
        read = read.saturating_add(done.size);
        let digest =
            done.sha256.or(done.blake3).ok_or_else(|| Error::invalid_options("a file was not hashed"))?;
        digests.push(one(digest));
    }
    Ok((digests, read))
}

fn one(digest: [u8; 32]) -> FileDigests {
    FileDigests { size: None, digests: vec![digest.to_vec()] }
}

/// A file or a shard that a worker takes.
struct Part<'a> {
    file: usize,
    of: &'a TreeFile,
    start: u64,
    end: u64,
}

fn parts(
    files: &[&TreeFile],
    serialization: &Serialization,
    hashing: &Hashing<'_>,
) -> Result<(Vec<FileDigests>, u64)> {
    let total = files.iter().map(|f| f.stamp.size).fold(0, u64::saturating_add);
    if let Some(observer) = hashing.observer {
        observer.started(total);
    }
    let mut parts = Vec::new();
    for (file, of) in files.iter().enumerate() {
        let ends = match serialization.shard_size {
            None => vec![(0, of.stamp.size)],
            Some(size) => {
                if of.stamp.size / size > super::MAX_BUNDLE as u64 / 64 {
                    let what =
                        format!("a file of {} bytes in shards of {size} has too many of them", of.stamp.size);
                    return Err(Error::limit(what).with_path(&of.path));
                }
                serialization.shards(of.stamp.size)
            }
        };
        parts.extend(ends.into_iter().map(|(start, end)| Part { file, of, start, end }));
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<u8>)>> = Mutex::new(Vec::with_capacity(parts.len()));
    on_workers(worker_count(hashing.threads).min(parts.len().max(1)), || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(index) else { return Ok(()) };
            let digest = match serialization.hash {
                HashType::Sha256 => hash_part::<sha2::Sha256>(part, hashing),
                HashType::Blake2b => hash_part::<blake2::Blake2b512>(part, hashing),
                HashType::Blake3 => hash_part::<Blake3>(part, hashing),
            };
            let digest = digest.map_err(|e| e.with_path(&part.of.path))?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, digest));
        }
    })?;
    if let Some(observer) = hashing.observer {
        observer.finished();
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort();
    let sized = |f: &&TreeFile| serialization.shard_size.map(|_| f.stamp.size);
    let mut out: Vec<_> = files.iter().map(|f| FileDigests { size: sized(f), digests: Vec::new() }).collect();
    for (part, (_, digest)) in parts.iter().zip(done) {
        if let Some(file) = out.get_mut(part.file) {
            file.digests.push(digest);
        }
    }
    Ok((out, total))
}

/// A hash that takes bytes as they come.
trait Hasher: Default {
    fn take(&mut self, bytes: &[u8]);
    fn finish(self) -> Vec<u8>;
}

impl<D: Digest + Default> Hasher for D {
    fn take(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    fn finish(self) -> Vec<u8> {
        self.finalize().to_vec()
    }
}

/// BLAKE3, which has not the trait of the other hashes.
#[derive(Default)]
struct Blake3(blake3::Hasher);

impl Hasher for Blake3 {
    fn take(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Vec<u8> {
        self.0.finalize().as_bytes().to_vec()
    }
}

fn hash_part<H: Hasher>(part: &Part<'_>, hashing: &Hashing<'_>) -> Result<Vec<u8>> {
    let fail = |e| Error::io("reading the file", e);
    let mut file = open(part.of)?;
    file.seek(SeekFrom::Start(part.start)).map_err(fail)?;
    let (mut hasher, mut left) = (H::default(), part.end - part.start);
    let mut buffer = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
    while left > 0 {
        if hashing.observer.is_some_and(Observer::cancelled) {
            return Err(Error::cancelled("hashing was cancelled"));
        }
        let want = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
        let Some(chunk) = buffer.get_mut(..want) else { break };
        file.read_exact(chunk).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => super::changed_meanwhile(&part.of.path),
            _ => fail(e),
        })?;
        hasher.take(chunk);
        left -= want as u64;
        if let Some(observer) = hashing.observer {
            observer.advanced(want as u64);
        }
    }
    Ok(hasher.finish())
}

/// Opens a file without waiting for a pipe that has taken its place.
fn open(of: &TreeFile) -> Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let fail = |e| Error::io("opening the file", e);
    let file = options.open(&of.path).map_err(fail)?;
    if Stamp::of(&file.metadata().map_err(fail)?) == of.stamp {
        Ok(file)
    } else {
        Err(super::changed_meanwhile(&of.path))
    }
}
