//! Copying one file's segments into place, by several workers.

use std::fs::File;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::{Buffer, PAGE, is_zero};
use super::digest::{Digesting, FileDigests, Follower, StopOnPanic as StopFollower};
use super::execute::{ExecuteOptions, KernelCopy, Observer};
use super::kernel::FileSystem;
use super::plan::{Content, Digests, FilePlan, Fill, Sums};
use super::stage::refused;
use super::{kernel, position};
use crate::error::{Error, Result};
use crate::logical::{Piece, join};
use crate::source::{Access, ReadAt};
use crate::tensor::Data;

/// Spans shorter than this are read and written with what surrounds them, in one call.
const KERNEL_SPAN: u64 = 128 << 10;

/// Writes shorter than this are not worth a map.
const MAPPED: usize = 64 << 10;

/// How many readers a worker asks for their last checks at a time.
const FINISH: u64 = 64;

/// The workers' state, kept from file to file.
pub(super) struct Copier<'o> {
    workers: Vec<Worker>,
    chunk: u64,
    kernel: AtomicBool,
    /// Whether a worker that finds another one writing goes through a map.
    map: bool,
    observer: Option<&'o dyn Observer>,
    digests: Option<Digesting>,
    /// The checksums of the files that are written, in their order.
    sums: Vec<Vec<Sums>>,
}

/// What one thread has to itself.
struct Worker {
    buffer: Buffer,
    parts: Vec<Part>,
}

/// The checksums of a part of a data segment.
struct Part {
    segment: usize,
    offset: u64,
    len: u64,
    crc32: Option<u32>,
    blake3: Option<Piece>,
}

/// A segment without what is only used once.
struct Span<'a> {
    offset: u64,
    end: u64,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Fixed(Vec<u8>),
    Data { data: Data<'a>, label: Arc<str>, wanted: Wanted, sequential: bool },
    Late,
}

/// Which checksums of a segment are asked for.
#[derive(Clone, Copy)]
struct Wanted {
    crc32: bool,
    blake3: bool,
}

impl Wanted {
    fn any(self) -> bool {
        self.crc32 || self.blake3
    }
}

/// A late segment's number, and what makes its bytes.
type Late<'a> = (usize, Fill<'a>);

/// One file while it is written.
struct Job<'j, 'a> {
    pieces: &'j [Span<'a>],
    file: &'j File,
    target: &'j Path,
    needed: u64,
    chunk: u64,
    kernel: &'j AtomicBool,
    map: bool,
    /// Whether a worker is writing at a position, which on a file system in memory keeps the others waiting.
    writing: AtomicBool,
    observer: Option<&'j dyn Observer>,
    follower: Option<&'j Follower<'j>>,
}

impl<'o> Copier<'o> {
    pub(super) fn new(options: &ExecuteOptions<'o>, system: FileSystem) -> Result<Self> {
        let threads = crate::workers::worker_count(options.threads);
        let chunk = options.chunk_bytes.max(1);
        let worker = |_| Ok(Worker { buffer: Buffer::new(chunk)?, parts: Vec::new() });
        let kernel = match options.kernel_copy {
            KernelCopy::Auto => system.copies_itself,
            KernelCopy::Always => true,
            KernelCopy::Never => false,
        };
        Ok(Self {
            workers: (0..threads).map(worker).collect::<Result<_>>()?,
            chunk: chunk as u64,
            kernel: AtomicBool::new(kernel),
            map: system.in_memory && threads > 1,
            observer: options.observer,
            digests: options.digests,
            sums: Vec::new(),
        })
    }

    /// Writes a file's bytes, and has them synchronised to the disk by `sync`; returns their digests if they are wanted.
    ///
    /// `target` is for errors.
    pub(super) fn copy(
        &mut self,
        plan: FilePlan<'_>,
        file: &File,
        target: &Path,
        sync: &(dyn Fn() -> Result<()> + Sync),
    ) -> Result<Option<FileDigests>> {
        let (len, name) = (plan.len(), self.digests.map(|_| plan.name.clone()));
        let (pieces, late) = split(plan, self.digests.is_some());
        let Self { workers, chunk, kernel, map, observer, digests: digesting, sums } = self;
        let open = pieces.iter().find(|p| p.is_open()).map(|p| p.offset);
        let follower = digesting.map(|d| Follower::new(d, file, len, *chunk, open));
        let job = Job {
            pieces: &pieces,
            file,
            target,
            needed: len,
            chunk: *chunk,
            kernel,
            map: *map,
            writing: AtomicBool::new(false),
            observer: *observer,
            follower: follower.as_ref(),
        };
        // The first task is the data that is read from front to back: one worker takes them all, since two
        // tensors of one compressed member, read in turn, would start it over again and again.
        let tasks = 1 + len.div_ceil(job.chunk);
        run(workers, tasks, |worker, task| {
            job.followed(|| {
                job.check_cancelled()?;
                match task.checked_sub(1) {
                    None => job.sequential(worker),
                    Some(n) => job.chunk(worker, n),
                }
            })
        })?;
        run(workers, (pieces.len() as u64).div_ceil(FINISH), |_, task| {
            let first = (task * FINISH) as usize;
            pieces[first..].iter().take(FINISH as usize).try_for_each(Span::finish)
        })?;
        let parts = workers.iter_mut().flat_map(|w| std::mem::take(&mut w.parts)).collect();
        sums.push(digests(&pieces, parts)?);
        job.fill_late(late, sums)?;
        job.finish_digests(workers, sync)?;
        let (Some(follower), Some(name)) = (follower, name) else { return Ok(None) };
        let (blake3, in_order) = follower.finish()?;
        let data = pieces.iter().zip(sums.last().into_iter().flatten());
        let data = data.filter(|(p, _)| p.end > p.offset);
        let data = data.filter_map(|(p, s)| Some((p.offset, p.end - p.offset, s.blake3?))).collect();
        Ok(Some(FileDigests { name, size: len, blake3, in_order, data }))
    }
}

/// Parts a plan into what workers share and what is used once, at the end. `digested` asks for the BLAKE3 of all data.
fn split(plan: FilePlan<'_>, digested: bool) -> (Vec<Span<'_>>, Vec<Late<'_>>) {
    let mut late = Vec::new();
    let pieces = plan.into_segments().into_iter().enumerate().map(|(i, segment)| Span {
        offset: segment.offset,
        end: segment.offset + segment.len,
        bytes: match segment.content {
            Content::Fixed(bytes) => Bytes::Fixed(bytes),
            Content::Data { data, label, crc32, blake3 } => {
                let sequential = data.access() == Access::Sequential;
                Bytes::Data { data, label, wanted: Wanted { crc32, blake3: blake3 || digested }, sequential }
            }
            Content::Late(fill) => {
                late.push((i, fill));
                Bytes::Late
            }
        },
    });
    (pieces.collect(), late)
}

impl Span<'_> {
    /// Whether its bytes are not in the chunk of a worker.
    fn is_open(&self) -> bool {
        self.end > self.offset && matches!(&self.bytes, Bytes::Late | Bytes::Data { sequential: true, .. })
    }

    fn finish(&self) -> Result<()> {
        match &self.bytes {
            Bytes::Data { data, label, .. } => data.finish().map_err(|e| e.with_tensor(&**label)),
            _ => Ok(()),
        }
    }
}

/// Joins the checksums of parts to those of segments.
fn digests(pieces: &[Span<'_>], mut parts: Vec<Part>) -> Result<Vec<Sums>> {
    parts.sort_unstable_by_key(|p| (p.segment, p.offset));
    let mut parts = parts.into_iter().peekable();
    let mut sums = Vec::with_capacity(pieces.len());
    for (i, span) in pieces.iter().enumerate() {
        let Bytes::Data { wanted, .. } = &span.bytes else {
            sums.push(Sums::default());
            continue;
        };
        let (mut crc32, mut len, mut trees) = (crc32fast::Hasher::new(), 0, Vec::new());
        while let Some(part) = parts.next_if(|p| p.segment == i) {
            len += part.len;
            if let Some(sum) = part.crc32 {
                crc32.combine(&crc32fast::Hasher::new_with_initial_len(sum, part.len));
            }
            trees.extend(part.blake3);
        }
        let incomplete = || Error::invalid_options("a segment was not read exactly once");
        let total = span.end - span.offset;
        if wanted.any() && len != total {
            return Err(incomplete());
        }
        let blake3 = match wanted.blake3 {
            true if total == 0 => Some(blake3::hash(&[]).into()),
            true => Some(join(trees, total).ok_or_else(incomplete)?),
            false => None,
        };
        sums.push(Sums { crc32: wanted.crc32.then(|| crc32.finalize()), blake3 });
    }
    Ok(sums)
}

impl Job<'_, '_> {
    fn check_cancelled(&self) -> Result<()> {
        match self.observer {
            Some(observer) if observer.cancelled() => Err(Error::cancelled("the write was cancelled")),
            _ => Ok(()),
        }
    }

    fn advanced(&self, bytes: u64) {
        if let Some(observer) = self.observer {
            observer.advanced(bytes);
        }
    }

    /// Writes bytes; zeros stay the hole that setting the length made.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if is_zero(bytes) {
            return Ok(());
        }
        // Small writes are over before a map is made.
        if self.map && bytes.len() >= MAPPED && offset.is_multiple_of(PAGE as u64) {
            if self.writing.swap(true, Ordering::Acquire) {
                if kernel::write_mapped(self.file, bytes, offset).is_ok() {
                    return Ok(());
                }
            } else {
                let written = self.write_at(bytes, offset);
                self.writing.store(false, Ordering::Release);
                return written;
            }
        }
        self.write_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = position::write_all_at(self.file, bytes, offset);
        written.map_err(|e| refused("writing", e, self.target, self.needed).at_offset(offset))
    }

    /// Fills and writes the chunk of this number, but for what is late or sequential.
    fn chunk(&self, worker: &mut Worker, number: u64) -> Result<()> {
        let Worker { buffer: own, parts } = worker;
        let buffer = own.as_mut_slice();
        let start = number * self.chunk;
        let end = start.saturating_add(self.chunk).min(self.needed);
        let place = |offset: u64| (offset - start) as usize;
        let first = self.pieces.partition_point(|p| p.end <= start);
        // The bytes of the file from `run` to `at` are in the buffer, and not yet written.
        let (mut run, mut at, mut done, mut whole) = (start, start, 0, true);
        for (i, piece) in self.pieces.iter().enumerate().skip(first) {
            if at == end {
                break;
            }
            let (from, stop) = (at - piece.offset, piece.end.min(end));
            let len = stop - at;
            whole &= !piece.is_open();
            let part = &mut buffer[place(at)..place(stop)];
            match &piece.bytes {
                Bytes::Fixed(bytes) => part.copy_from_slice(&bytes[from as usize..][..len as usize]),
                Bytes::Late => part.fill(0),
                Bytes::Data { sequential: true, .. } => {
                    self.write(&buffer[place(run)..place(at)], run)?;
                    run = stop;
                }
                Bytes::Data { data, label, wanted, .. } => {
                    let by_kernel =
                        !wanted.crc32 && len >= KERNEL_SPAN && self.kernel.load(Ordering::Relaxed);
                    let copied = by_kernel && self.kernel_copy(data, from, at, len) == len;
                    // What the kernel copied is read for its digest alone.
                    if !copied || wanted.any() {
                        data.read_at(from, part).map_err(|e| e.with_tensor(&**label))?;
                    }
                    if wanted.any() {
                        let total = piece.end - piece.offset;
                        parts.push(Part {
                            segment: i,
                            offset: from,
                            len,
                            crc32: wanted.crc32.then(|| crc32fast::hash(part)),
                            blake3: wanted.blake3.then(|| Piece::new(from, part, total)),
                        });
                    }
                    if copied {
                        self.write(&buffer[place(run)..place(at)], run)?;
                        run = stop;
                    }
                }
            }
            if !matches!(&piece.bytes, Bytes::Late | Bytes::Data { sequential: true, .. }) {
                done += len;
            }
            at = stop;
        }
        self.write(&buffer[place(run)..place(at)], run)?;
        self.advanced(done);
        match self.follower {
            Some(follower) => follower.wrote(number, own, whole),
            None => Ok(()),
        }
    }

    /// Does a part of the work. If it fails, nobody waits for it.
    fn followed(&self, body: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(follower) = self.follower else { return body() };
        let _guard = StopFollower(follower);
        body().inspect_err(|_| follower.stop())
    }

    /// Takes what is left to the digests, while the file is synchronised.
    fn finish_digests(&self, workers: &mut [Worker], sync: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
        let Some(follower) = self.follower else { return sync() };
        let rest = follower.written();
        if rest.is_empty() {
            return sync();
        }
        let take = |workers: &mut [Worker]| {
            run(workers, rest.end - rest.start, |worker, task| {
                self.followed(|| {
                    self.check_cancelled()?;
                    follower.rest(rest.start + task, &mut worker.buffer)
                })
            })
        };
        std::thread::scope(|scope| {
            let beside =
                std::thread::Builder::new().name("weighbridge-sync".into()).spawn_scoped(scope, sync);
            let taken = take(workers);
            let synchronised = match beside.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(done)) => done,
                Ok(Err(panic)) => resume_unwind(panic),
                // The system gives no more threads.
                Err(_) => sync(),
            };
            taken.and(synchronised)
        })
    }

    /// Lets the kernel copy a part of a data segment; returns how much it copied. Less than asked for means that
    /// the caller reads and writes it all, which also finds out what is wrong.
    fn kernel_copy(&self, data: &Data<'_>, from: u64, to: u64, len: u64) -> u64 {
        let mut copied = 0;
        while copied < len {
            let Some(span) = data.span(from + copied, len - copied) else { break };
            match kernel::copy_range(span, self.file, to + copied) {
                Ok(0) => break,
                Ok(n) => copied += n.min(len - copied),
                Err(_) => {
                    // Most likely no pair of files here can do it, so it is not tried again.
                    self.kernel.store(false, Ordering::Relaxed);
                    break;
                }
            }
        }
        copied
    }

    /// Reads and writes all data that can only be read from front to back.
    fn sequential(&self, worker: &mut Worker) -> Result<()> {
        let buffer = worker.buffer.as_mut_slice();
        for (i, piece) in self.pieces.iter().enumerate() {
            let Bytes::Data { data, label, wanted, sequential: true } = &piece.bytes else { continue };
            let (mut crc32, mut tree, mut at) =
                (crc32fast::Hasher::new(), blake3::Hasher::new(), piece.offset);
            while at < piece.end {
                self.check_cancelled()?;
                let len = (piece.end - at).min(buffer.len() as u64);
                let part = &mut buffer[..len as usize];
                data.read_at(at - piece.offset, part).map_err(|e| e.with_tensor(&**label))?;
                if wanted.crc32 {
                    crc32.update(part);
                }
                if wanted.blake3 {
                    tree.update(part);
                }
                self.write(part, at)?;
                self.advanced(len);
                at += len;
            }
            if wanted.any() {
                let len = piece.end - piece.offset;
                worker.parts.push(Part {
                    segment: i,
                    offset: 0,
                    len,
                    crc32: wanted.crc32.then(|| crc32.finalize()),
                    blake3: wanted.blake3.then(|| Piece::whole(len, tree.finalize().into())),
                });
            }
        }
        Ok(())
    }

    fn fill_late(&self, late: Vec<Late<'_>>, files: &[Vec<Sums>]) -> Result<()> {
        let digests = Digests { files };
        for (i, fill) in late {
            let (piece, bytes) = (&self.pieces[i], fill(&digests)?);
            let (len, planned) = (bytes.len() as u64, piece.end - piece.offset);
            if len != planned {
                let what = format!("a late segment was planned with {planned} bytes and has {len}");
                return Err(Error::invalid_options(what).at_offset(piece.offset));
            }
            self.write(&bytes, piece.offset)?;
            self.advanced(len);
        }
        Ok(())
    }
}

/// Has the workers do tasks `0..tasks`, each claimed from a counter. The first error ends the rest; a panic ends
/// them too, and goes on in the caller's thread.
fn run(
    workers: &mut [Worker],
    tasks: u64,
    body: impl Fn(&mut Worker, u64) -> Result<()> + Sync,
) -> Result<()> {
    let (next, stop, failed) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
    let work = |worker: &mut Worker| {
        let _guard = StopOnPanic(&stop);
        while !stop.load(Ordering::Relaxed) {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            if let Err(error) = body(worker, task) {
                stop.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    let count = workers.len().min(usize::try_from(tasks).unwrap_or(usize::MAX));
    let Some((own, others)) = workers[..count].split_first_mut() else { return Ok(()) };
    std::thread::scope(|scope| {
        let mut handles = Vec::new();
        for worker in others {
            // A system that gives no more threads gives a slower write, not a failed one.
            match std::thread::Builder::new()
                .name("weighbridge-write".into())
                .spawn_scoped(scope, || work(worker))
            {
                Ok(handle) => handles.push(handle),
                Err(_) => break,
            }
        }
        work(own);
        for handle in handles {
            if let Err(panic) = handle.join() {
                resume_unwind(panic);
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Ends the other workers when one panics.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
