//! Plaintext as the bytes of an age file, in the order in which they are written.
//!
//! Sealing is the work, so as many threads as there are processors do it: each claims a block of chunks, and whoever writes
//! the file takes the blocks in their order, and seals like the others while the one he wants is not ready. No chunk is sealed
//! twice: a source that changes meanwhile gives no two texts under one nonce. Memory is two blocks a thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weighbridge_formats::{Access, Error, ReadAt, Result, worker_count};

use super::payload::{Payload, chunks_of, len_of};
use super::{CHUNK, HEADER_BYTES, HEADER_LINES, Recipients, TAG, armor};

/// The chunks that a thread seals at a time.
const BLOCK: u64 = 8;
/// The characters of a line of armor, and the bytes that they stand for.
const COLUMNS: u64 = 64;
const LINE: usize = 48;

/// An age file to be, read once from front to back.
pub(super) struct Sealed {
    len: u64,
    state: Mutex<State>,
}

enum State {
    Ready(Box<Running>),
    Running(Box<Running>),
    Failed,
}

/// The file while it is made.
struct Running {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
    /// What was made last, and how much of it was taken.
    block: Vec<u8>,
    used: usize,
    /// How much was taken of all.
    at: u64,
    /// The block that is next.
    next: u64,
    armor: Option<Armor>,
    ended: bool,
}

/// What the threads share.
struct Work {
    plain: Arc<dyn ReadAt>,
    payload: Payload,
    chunks: u64,
    blocks: u64,
    threads: u64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// The block that nobody has begun.
    claim: u64,
    /// How many were taken.
    taken: u64,
    ready: BTreeMap<u64, Result<Vec<u8>>>,
    spare: Vec<Vec<u8>>,
    stop: bool,
}

impl Sealed {
    /// Makes a new key for the file, and knows its length from now on.
    pub(super) fn new(
        plain: Arc<dyn ReadAt>,
        recipients: &Recipients,
        armor: bool,
        threads: Option<usize>,
    ) -> Result<Self> {
        let (head, payload) = recipients.begin()?;
        let lines = head.iter().filter(|&&b| b == b'\n').count();
        if head.len() > HEADER_BYTES || lines > HEADER_LINES {
            return Err(Error::limit("these are more recipients than the header of a file may have")
                .with_hint("encrypt to a key that they share"));
        }
        let chunks = chunks_of(plain.len());
        let sealed = chunks.checked_mul(TAG);
        let sealed = sealed.and_then(|tags| tags.checked_add(plain.len())?.checked_add(head.len() as u64));
        let len = sealed.and_then(|n| if armor { armored_len(n) } else { Some(n) });
        let len = len.ok_or_else(|| Error::limit("the file would be longer than 64 bits count"))?;
        let work = Work {
            plain,
            payload,
            chunks,
            blocks: chunks.div_ceil(BLOCK),
            threads: worker_count(threads) as u64,
            queue: Mutex::new(Queue {
                claim: 0,
                taken: 0,
                ready: BTreeMap::new(),
                spare: Vec::new(),
                stop: false,
            }),
            changed: Condvar::new(),
        };
        let mut armor = armor.then(Armor::default);
        let block = match &mut armor {
            Some(armor) => armor.begin(&head),
            None => head,
        };
        let running = Running {
            work: Arc::new(work),
            threads: Vec::new(),
            block,
            used: 0,
            at: 0,
            next: 0,
            armor,
            ended: false,
        };
        Ok(Self { len, state: Mutex::new(State::Ready(Box::new(running))) })
    }
}

/// The bytes of armor around so many.
fn armored_len(bytes: u64) -> Option<u64> {
    let text = bytes.div_ceil(3).checked_mul(4)?;
    let ends = (armor::BEGIN.len() + armor::END.len() + 2) as u64;
    text.checked_add(text.div_ceil(COLUMNS))?.checked_add(ends)
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals block after block, as long as they are wanted.
    fn run(&self) {
        let _guard = StopOnPanic(self);
        let mut queue = self.lock();
        while !queue.stop && queue.claim < self.blocks {
            queue = match self.wanted(&queue) {
                true => self.seal_next(queue),
                false => self.wait(queue),
            };
        }
    }

    /// The block of this number; `spare` is what another one was in. While others seal it, the caller seals one of those
    /// behind it: to wait and to be woken takes as long as a block does.
    fn take(&self, block: u64, spare: Vec<u8>) -> Result<Vec<u8>> {
        let mut queue = self.lock();
        queue.spare.push(spare);
        loop {
            if let Some(sealed) = queue.ready.remove(&block) {
                queue.taken = block + 1;
                drop(queue);
                self.changed.notify_all();
                return sealed;
            }
            if queue.stop {
                let failed = queue.ready.iter().find(|(_, sealed)| sealed.is_err()).map(|(&at, _)| at);
                return match failed.and_then(|at| queue.ready.remove(&at)) {
                    Some(failed) => failed,
                    None => Err(Error::invalid_options("a thread that encrypts has failed")),
                };
            }
            queue = match self.wanted(&queue) {
                true => self.seal_next(queue),
                false => self.wait(queue),
            };
        }
    }

    /// Whether there is a block that nobody has begun, and room for it.
    fn wanted(&self, queue: &Queue) -> bool {
        !queue.stop && queue.claim < self.blocks && queue.claim < queue.taken + 2 * self.threads
    }

    /// Seals the block that nobody has begun.
    fn seal_next<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let block = queue.claim;
        queue.claim += 1;
        let out = queue.spare.pop().unwrap_or_default();
        drop(queue);
        let sealed = self.seal(block, out);
        queue = self.lock();
        // What comes after an error is wanted by nobody.
        queue.stop |= sealed.is_err();
        queue.ready.insert(block, sealed);
        self.changed.notify_all();
        queue
    }

    /// Reads and seals the chunks of a block.
    fn seal(&self, block: u64, mut out: Vec<u8>) -> Result<Vec<u8>> {
        let first = block * BLOCK;
        let len = |chunk| len_of(chunk, self.plain.len());
        let chunks = first..self.chunks.min(first + BLOCK);
        let total: usize = chunks.clone().map(|chunk| len(chunk) + TAG as usize).sum();
        // Every byte is written below, so what a buffer had before is not cleared.
        out.resize(total, 0);
        let mut rest = &mut out[..];
        for chunk in chunks {
            let (bytes, after) = std::mem::take(&mut rest).split_at_mut(len(chunk));
            let (tag, after) = after.split_at_mut(TAG as usize);
            self.plain.read_at(chunk * CHUNK, bytes)?;
            let sealed = self.payload.seal(chunk, chunk + 1 == self.chunks, bytes);
            tag.copy_from_slice(
                &sealed.ok_or_else(|| Error::invalid_options("a chunk could not be sealed"))?,
            );
            rest = after;
        }
        Ok(out)
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }
}

/// Ends the others when a thread panics, and whoever waits for its block.
struct StopOnPanic<'w>(&'w Work);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl Running {
    /// Starts the threads beside this one. A system that gives none gives a slower encryption.
    fn start(&mut self) {
        let others = (self.work.threads - 1).min(self.work.blocks.saturating_sub(1));
        for _ in 0..others {
            let work = self.work.clone();
            match std::thread::Builder::new().name("seal".into()).spawn(move || work.run()) {
                Ok(thread) => self.threads.push(thread),
                Err(_) => break,
            }
        }
    }

    fn read(&mut self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        if offset != self.at {
            return Err(Error::invalid_options("an encrypted file is made once, from front to back"));
        }
        self.at += buf.len() as u64;
        while !buf.is_empty() {
            if self.used == self.block.len() {
                self.advance()?;
                continue;
            }
            let ready = &self.block[self.used..];
            let count = ready.len().min(buf.len());
            let (now, later) = buf.split_at_mut(count);
            now.copy_from_slice(&ready[..count]);
            self.used += count;
            buf = later;
        }
        Ok(())
    }

    /// Makes the next bytes.
    fn advance(&mut self) -> Result<()> {
        self.used = 0;
        let spare = std::mem::take(&mut self.block);
        if self.next < self.work.blocks {
            let sealed = self.work.take(self.next, spare)?;
            self.next += 1;
            self.block = match &mut self.armor {
                Some(armor) => armor.encode(&sealed),
                None => sealed,
            };
            return Ok(());
        }
        match self.armor.as_mut().filter(|_| !self.ended) {
            Some(armor) => {
                self.ended = true;
                self.block = armor.end();
                Ok(())
            }
            None => Err(Error::invalid_options("the encrypted file came out shorter than was computed")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.work.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl ReadAt for Sealed {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Ready(_) = &*state
            && let State::Ready(mut running) = std::mem::replace(&mut *state, State::Failed)
        {
            running.start();
            *state = State::Running(running);
        }
        match &mut *state {
            State::Running(running) => running.read(offset, buf),
            _ => Err(Error::invalid_options("the file could not be encrypted")),
        }
    }

    fn access(&self) -> Access {
        Access::Sequential
    }

    /// Checks that the file ends where it was said to end.
    fn finish(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(running) = &*state else { return Ok(()) };
        let open = running.armor.is_some() && !running.ended;
        let more = running.used < running.block.len() || running.next < running.work.blocks || open;
        if more || running.at != self.len {
            return Err(Error::invalid_options("the encrypted file came out longer than was computed"));
        }
        running.work.plain.finish()
    }
}

/// Text in place of bytes: base64 in lines of 64 characters between two marks.
#[derive(Default)]
struct Armor {
    /// The bytes that are no whole line yet.
    open: Vec<u8>,
}

impl Armor {
    fn begin(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = [armor::BEGIN, b"\n"].concat();
        out.append(&mut self.encode(bytes));
        out
    }

    /// The lines that are whole with these bytes.
    fn encode(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.open.extend_from_slice(bytes);
        let whole = self.open.len() - self.open.len() % LINE;
        let out = lines(&self.open[..whole]);
        self.open.drain(..whole);
        out
    }

    fn end(&mut self) -> Vec<u8> {
        let mut out = lines(&self.open);
        out.extend_from_slice(armor::END);
        out.push(b'\n');
        out
    }
}

fn lines(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(bytes.len() / LINE * (COLUMNS as usize + 1) + COLUMNS as usize + 1);
    for line in bytes.chunks(LINE) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.into_bytes()
}
