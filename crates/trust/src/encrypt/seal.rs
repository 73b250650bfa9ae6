//! Plaintext as the bytes of an age file, in the order in which they are written.
//!
//! Sealing is the work, so it has a thread to itself, and whoever writes the file takes its blocks from a channel.
//! Chunks could be sealed by several threads; the crate's writer counts them itself and can be told no number, so one
//! file has one sealer.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use age::armor::{ArmoredWriter, Format};
use age::stream::StreamWriter;
use weighbridge_formats::{Access, Error, ReadAt, Result};

use super::{CHUNK, HEADER_BYTES, HEADER_LINES, Recipients, TAG};

/// The bytes of a block that goes through the channel.
const BLOCK: usize = 256 << 10;
/// How many blocks may wait.
const WAITING: usize = 4;
/// The characters of armor's first line, its last, and those between; each ends as the system's lines do.
const BEGIN: u64 = 34;
const END: u64 = 32;
const COLUMNS: u64 = 64;
const LINE_END: u64 = if cfg!(windows) { 2 } else { 1 };

/// An age file to be, read once from front to back.
pub(super) struct Sealed {
    len: u64,
    state: Mutex<State>,
}

enum State {
    Ready(Box<Sealer>),
    Running(Running),
    Failed,
}

struct Sealer {
    plain: Arc<dyn ReadAt>,
    writer: StreamWriter<Counted>,
    blocks: Receiver<Vec<u8>>,
}

struct Running {
    blocks: Option<Receiver<Vec<u8>>>,
    block: Vec<u8>,
    used: usize,
    at: u64,
    sealer: Option<JoinHandle<Result<()>>>,
}

impl Sealed {
    /// Makes a new key for the file, and knows its length from now on.
    pub(super) fn new(plain: Arc<dyn ReadAt>, recipients: &Recipients, armor: bool) -> Result<Self> {
        let (send, blocks) = sync_channel(WAITING);
        let sink = Blocks { block: Vec::new(), send };
        let fail = |e| Error::io("preparing the header", e);
        let out = match armor {
            true => {
                Out::Armored(Box::new(ArmoredWriter::wrap_output(sink, Format::AsciiArmor).map_err(fail)?))
            }
            false => Out::Plain(sink),
        };
        let count = Arc::new(AtomicU64::new(0));
        let lines = Arc::new(AtomicU64::new(0));
        let counted = Counted { out, count: count.clone(), lines: lines.clone() };
        let writer = recipients.encryptor()?.wrap_output(counted).map_err(fail)?;
        // So far the header and the nonce were written.
        let header = count.load(Ordering::Relaxed);
        if header > HEADER_BYTES as u64 || lines.load(Ordering::Relaxed) > HEADER_LINES as u64 {
            return Err(Error::limit("these are more recipients than the header of a file may have")
                .with_hint("encrypt to a key that they share"));
        }
        let chunks = plain.len().div_ceil(CHUNK).max(1);
        let sealed =
            chunks.checked_mul(TAG).and_then(|tags| tags.checked_add(plain.len())?.checked_add(header));
        let len = sealed.and_then(|n| if armor { armored_len(n) } else { Some(n) });
        let len = len.ok_or_else(|| Error::limit("the file would be longer than 64 bits count"))?;
        let sealer = Sealer { plain, writer, blocks };
        Ok(Self { len, state: Mutex::new(State::Ready(Box::new(sealer))) })
    }
}

/// The bytes of armor around so many.
fn armored_len(bytes: u64) -> Option<u64> {
    let text = bytes.div_ceil(3).checked_mul(4)?;
    let lines = text.div_ceil(COLUMNS) + 2;
    text.checked_add(lines.checked_mul(LINE_END)?)?.checked_add(BEGIN + END)
}

impl Sealer {
    fn start(self) -> Result<Running> {
        let Self { plain, writer, blocks } = self;
        let work = move || seal(&*plain, writer);
        let thread = std::thread::Builder::new().name("seal".into()).spawn(work);
        let sealer = thread.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Running { blocks: Some(blocks), block: Vec::new(), used: 0, at: 0, sealer: Some(sealer) })
    }
}

/// Reads, seals and sends everything.
fn seal(plain: &dyn ReadAt, mut writer: StreamWriter<Counted>) -> Result<()> {
    let fail = |e| Error::io("sealing", e);
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while at < plain.len() {
        let count = (plain.len() - at).min(BLOCK as u64) as usize;
        plain.read_at(at, &mut buffer[..count])?;
        writer.write_all(&buffer[..count]).map_err(fail)?;
        at += count as u64;
    }
    plain.finish()?;
    let mut sink = match writer.finish().map_err(fail)?.out {
        Out::Plain(sink) => sink,
        Out::Armored(armor) => armor.finish().map_err(fail)?,
    };
    sink.send_block().map_err(fail)
}

impl Running {
    fn read(&mut self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        if offset != self.at {
            return Err(Error::invalid_options("an encrypted file is made once, from front to back"));
        }
        self.at += buf.len() as u64;
        while !buf.is_empty() {
            if self.used == self.block.len() {
                let Some(block) = self.blocks.as_ref().and_then(|b| b.recv().ok()) else {
                    return Err(self.ended());
                };
                (self.block, self.used) = (block, 0);
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

    /// Why there are no more blocks.
    fn ended(&mut self) -> Error {
        match self.sealer.take().map(JoinHandle::join) {
            Some(Ok(Err(e))) => e,
            _ => Error::invalid_options("the encrypted file came out shorter than was computed"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without a receiver the sealer's next block fails, and it ends.
        self.blocks = None;
        if let Some(sealer) = self.sealer.take() {
            let _ = sealer.join();
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
            && let State::Ready(sealer) = std::mem::replace(&mut *state, State::Failed)
        {
            *state = State::Running(sealer.start()?);
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
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Running(running) = &mut *state else { return Ok(()) };
        let more = running.used < running.block.len()
            || running.blocks.as_ref().is_some_and(|b| b.recv().is_ok_and(|block| !block.is_empty()));
        if more || running.at != self.len {
            return Err(Error::invalid_options("the encrypted file came out longer than was computed"));
        }
        match running.sealer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::invalid_options("the thread that encrypts has failed")),
            None => Ok(()),
        }
    }
}

/// Gathers bytes to blocks, and sends them.
struct Blocks {
    block: Vec<u8>,
    send: SyncSender<Vec<u8>>,
}

impl Blocks {
    fn send_block(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.send.send(block).map_err(|_| io::Error::other("nobody takes the encrypted bytes"))
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() + bytes.len() > BLOCK && !self.block.is_empty() {
            self.send_block()?;
        }
        self.block.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Out {
    Plain(Blocks),
    Armored(Box<ArmoredWriter<Blocks>>),
}

/// Counts what the crate writes before armor.
struct Counted {
    out: Out,
    count: Arc<AtomicU64>,
    lines: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.out {
            Out::Plain(out) => out.write(bytes),
            Out::Armored(out) => out.write(bytes),
        }?;
        // Chunks are not searched for lines: the header is written before the first of them.
        if self.count.fetch_add(written as u64, Ordering::Relaxed) < HEADER_BYTES as u64 {
            let lines = bytes.iter().take(written).filter(|&&b| b == b'\n').count();
            self.lines.fetch_add(lines as u64, Ordering::Relaxed);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Plain(out) => out.flush(),
            Out::Armored(out) => out.flush(),
        }
    }
}
