//! The logical hash of an archive that is opened.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Digest, Piece, join, model_hash, tensor_hash};
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::source::{Access, ReadAt};
use crate::workers::{on_workers, worker_count};
use crate::write::Observer;

/// What a thread reads at a time: little enough to stay in its cache between reading and hashing.
const CHUNK: u64 = 256 << 10;

/// The logical hash of an archive, and the hash of each of its tensors in their order. Reads every byte once, with
/// `threads` threads (`None`: as many as the write engine takes) and 256 KiB of memory each.
///
/// # Errors
/// What the archive and its source say, with the tensor's name.
pub fn hash_archive(archive: &dyn Archive, threads: Option<usize>) -> Result<(Digest, Vec<Digest>)> {
    let infos = archive.tensors();
    let all: Vec<usize> = (0..infos.len()).collect();
    let hashes = hash_tensors(archive, &all, threads, None)?;
    let names = infos.iter().map(|t| t.name());
    Ok((model_hash(names.zip(hashes.iter().copied())), hashes))
}

/// The hashes of the tensors with these numbers, in their order. Threads and memory as [`hash_archive`]; the observer is
/// told of the bytes that are read, and may cancel.
///
/// # Errors
/// As [`hash_archive`]; `Cancelled`.
pub fn hash_tensors(
    archive: &dyn Archive,
    which: &[usize],
    threads: Option<usize>,
    observer: Option<&dyn Observer>,
) -> Result<Vec<Digest>> {
    let infos = &which.iter().map(|&i| &archive.tensors()[i]).collect::<Vec<_>>();
    let named =
        |i: usize| move |e: Error| if e.tensor().is_some() { e } else { e.with_tensor(infos[i].name()) };
    let data = which.iter().enumerate().map(|(at, &i)| archive.data(i).map_err(named(at)));
    let data = data.collect::<Result<Vec<_>>>()?;
    // A task is a chunk, or all of a tensor that can only be read from front to back.
    let mut tasks = Vec::new();
    for (i, data) in data.iter().enumerate() {
        let step = if data.access() == Access::Sequential { u64::MAX } else { CHUNK };
        let mut at: u64 = 0;
        loop {
            let end = at.saturating_add(step).min(data.len());
            tasks.push((i, at, end));
            if end == data.len() {
                break;
            }
            at = end;
        }
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let pieces: Vec<Mutex<Vec<Piece>>> = infos.iter().map(|_| Mutex::default()).collect();
    let work = || -> Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        while !failed.load(Ordering::Relaxed) {
            let Some(&(tensor, start, end)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            if observer.is_some_and(|o| o.cancelled()) {
                failed.store(true, Ordering::Relaxed);
                return Err(Error::cancelled("hashing was cancelled"));
            }
            let hashed = piece(&data[tensor], start, end, &mut buffer).map_err(|e| {
                failed.store(true, Ordering::Relaxed);
                named(tensor)(e)
            })?;
            if let Ok(mut pieces) = pieces[tensor].lock() {
                pieces.push(hashed);
            }
            if let Some(observer) = observer {
                observer.advanced(end - start);
            }
        }
        Ok(())
    };
    on_workers(worker_count(threads).min(tasks.len().max(1)), work)?;
    let mut hashes = Vec::with_capacity(infos.len());
    for (i, pieces) in pieces.into_iter().enumerate() {
        data[i].finish().map_err(named(i))?;
        let mut pieces = pieces.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        pieces.sort_unstable_by_key(|p| p.offset);
        let digest = join(pieces, data[i].len());
        let digest = digest.ok_or_else(|| named(i)(Error::invalid_options("not every byte was read")))?;
        hashes.push(tensor_hash(infos[i], &digest));
    }
    Ok(hashes)
}

fn piece(data: &crate::tensor::Data<'_>, start: u64, end: u64, buffer: &mut [u8]) -> Result<Piece> {
    if end - start <= CHUNK {
        let part = &mut buffer[..(end - start) as usize];
        data.read_at(start, part)?;
        return Ok(Piece::new(start, part, data.len()));
    }
    let (mut hasher, mut at) = (blake3::Hasher::new(), start);
    while at < end {
        let part = &mut buffer[..(end - at).min(CHUNK) as usize];
        data.read_at(at, part)?;
        hasher.update(part);
        at += part.len() as u64;
    }
    Ok(Piece::whole(end, hasher.finalize().into()))
}
