//! Digests of files, and of the data in them, in the pass that writes them.
//!
//! BLAKE3 is a tree: each worker hashes the chunk that it has at hand, and the pieces are joined. A digest that takes the
//! bytes in their order (SHA-256) follows behind: whoever finishes the chunk that is next takes it, and after it those that
//! wait, while the others go on writing. A chunk that is early waits with its buffer where one is to be had, and is else
//! read back from the pages that were just written; nobody gets further ahead than [`AHEAD`] chunks, so that these pages
//! are still in memory.
//!
//! What is filled in late (checksums behind their data) and what is read from front to back is not in a worker's chunk.
//! From the first such chunk on, the order is kept up only when all is written: while the file is synchronised.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use super::position;
use crate::error::{Error, Result};
use crate::logical::{Digest, Joiner, Piece};

/// How many chunks a worker may be ahead of the one that is next.
const AHEAD: u64 = 64;
/// How many buffers may wait beside those of the workers.
const BUFFERS: usize = 8;

/// A digest that takes the bytes of a file in their order, such as SHA-256.
pub trait InOrder: Send {
    /// Takes the bytes behind those that it has.
    fn update(&mut self, bytes: &[u8]);
    /// The digest of all of them.
    fn finish(self: Box<Self>) -> Digest;
}

/// Which digests a write makes of its files. BLAKE3 is always one of them.
#[derive(Clone, Copy)]
pub struct Digesting {
    /// Begins the digest of a file that takes the bytes in their order.
    pub in_order: fn() -> Box<dyn InOrder>,
}

/// The digests of a file, made while it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigests {
    /// The file's name in the plan.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// The BLAKE3 of all its bytes.
    pub blake3: Digest,
    /// The digest by [`Digesting::in_order`].
    pub in_order: Digest,
    /// Each data segment that is not empty: its offset, its length, and the BLAKE3 of its bytes, in their order.
    pub data: Vec<(u64, u64, Digest)>,
}

/// The digests of one file while it is written.
pub(super) struct Follower<'f> {
    file: &'f File,
    len: u64,
    chunk: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The chunk that the digests take next.
    next: u64,
    /// The first chunk that is not in any worker's buffer.
    hold: u64,
    ready: BTreeMap<u64, Ready>,
    /// What takes the bytes in their order; out while somebody has it.
    hashers: Option<Hashers>,
    spare: Vec<Buffer>,
    buffers: usize,
    stop: bool,
}

/// A chunk that waits for its turn.
struct Ready {
    piece: Piece,
    buffer: Option<Buffer>,
}

struct Hashers {
    tree: Joiner,
    in_order: Box<dyn InOrder>,
}

impl<'f> Follower<'f> {
    /// For a file of chunks of one length, the last one shorter. `open` is where the first byte is that no worker has in
    /// its buffer, if there is one.
    pub(super) fn new(digesting: Digesting, file: &'f File, len: u64, chunk: u64, open: Option<u64>) -> Self {
        let hashers = Hashers { tree: Joiner::new(len), in_order: (digesting.in_order)() };
        let state = State {
            next: 0,
            hold: open.map_or(u64::MAX, |at| at / chunk),
            ready: BTreeMap::new(),
            hashers: Some(hashers),
            spare: Vec::new(),
            buffers: 0,
            stop: false,
        };
        Self { file, len, chunk, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The length of a chunk.
    fn len_of(&self, chunk: u64) -> usize {
        (self.len - chunk * self.chunk).min(self.chunk) as usize
    }

    /// Takes a chunk that is written. `whole` says that all of it is in the buffer, which may be exchanged for another.
    pub(super) fn wrote(&self, chunk: u64, buffer: &mut Buffer, whole: bool) -> Result<()> {
        if !whole {
            return Ok(());
        }
        let len = self.len_of(chunk);
        let piece = Piece::new(chunk * self.chunk, &buffer.as_mut_slice()[..len], self.len);
        self.push(chunk, piece, buffer)
    }

    fn push(&self, chunk: u64, piece: Piece, buffer: &mut Buffer) -> Result<()> {
        let mut state = self.lock();
        if chunk == state.next
            && chunk < state.hold
            && let Some(mut hashers) = state.hashers.take()
        {
            drop(state);
            hashers.in_order.update(&buffer.as_mut_slice()[..self.len_of(chunk)]);
            hashers.tree.push(piece);
            let mut state = self.lock();
            state.next += 1;
            return self.follow(state, hashers, buffer);
        }
        let mut waits = None;
        if chunk < state.hold {
            let capacity = buffer.as_mut_slice().len();
            let other = match state.spare.pop() {
                Some(spare) => Some(spare),
                None if state.buffers < BUFFERS => Buffer::new(capacity).ok().inspect(|_| state.buffers += 1),
                None => None,
            };
            waits = other.map(|other| std::mem::replace(buffer, other));
        }
        state.ready.insert(chunk, Ready { piece, buffer: waits });
        // Whoever has the hashers looks for the next chunk before he puts them back.
        while !state.stop && chunk < state.hold && chunk >= state.next.saturating_add(AHEAD) {
            state = self.wait(state);
        }
        Ok(())
    }

    /// Takes the chunks that wait and are next.
    fn follow<'g>(
        &'g self,
        mut state: MutexGuard<'g, State>,
        mut hashers: Hashers,
        spare: &mut Buffer,
    ) -> Result<()> {
        let mut outcome = Ok(());
        while outcome.is_ok() && !state.stop && state.next < state.hold {
            let chunk = state.next;
            let Some(Ready { piece, buffer }) = state.ready.remove(&chunk) else { break };
            drop(state);
            let len = self.len_of(chunk);
            let buffer = match buffer {
                Some(mut waited) => {
                    hashers.in_order.update(&waited.as_mut_slice()[..len]);
                    Some(waited)
                }
                None => {
                    let bytes = &mut spare.as_mut_slice()[..len];
                    outcome = self.read_back(chunk, bytes);
                    hashers.in_order.update(bytes);
                    None
                }
            };
            hashers.tree.push(piece);
            state = self.lock();
            state.spare.extend(buffer);
            state.next += 1;
            self.changed.notify_all();
        }
        state.stop |= outcome.is_err();
        state.hashers = Some(hashers);
        drop(state);
        self.changed.notify_all();
        outcome
    }

    fn read_back(&self, chunk: u64, bytes: &mut [u8]) -> Result<()> {
        let at = chunk * self.chunk;
        position::read_exact_at(self.file, bytes, at)
            .map_err(|e| Error::io("reading what was written, for its digest", e).at_offset(at))
    }

    /// All is written: the chunks that held the others up are no longer to be waited for. Returns the numbers of the
    /// chunks that [`Follower::rest`] is to be called for.
    pub(super) fn written(&self) -> std::ops::Range<u64> {
        let mut state = self.lock();
        state.hold = u64::MAX;
        state.next..self.len.div_ceil(self.chunk)
    }

    /// Takes a chunk that is on disk.
    pub(super) fn rest(&self, chunk: u64, buffer: &mut Buffer) -> Result<()> {
        let known = self.lock().ready.remove(&chunk);
        let bytes = &mut buffer.as_mut_slice()[..self.len_of(chunk)];
        self.read_back(chunk, bytes)?;
        let piece = match known {
            Some(Ready { piece, .. }) => piece,
            None => Piece::new(chunk * self.chunk, bytes, self.len),
        };
        self.push(chunk, piece, buffer)
    }

    /// Nobody is to wait any longer: a worker has failed.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// The BLAKE3 of the file and the other digest.
    pub(super) fn finish(self) -> Result<(Digest, Digest)> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let incomplete = || Error::invalid_options("a chunk was not hashed exactly once");
        let Hashers { tree, in_order } = state.hashers.ok_or_else(incomplete)?;
        let tree = match self.len {
            0 => blake3::hash(&[]).into(),
            _ => tree.finish().ok_or_else(incomplete)?,
        };
        Ok((tree, in_order.finish()))
    }
}

/// Lets nobody wait for a worker that panics.
pub(super) struct StopOnPanic<'a, 'f>(pub(super) &'a Follower<'f>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
