//! An encrypted file as bytes at any offset: only the chunks that are asked for are decrypted.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weighbridge_formats::{Error, ErrorKind, ReadAt, Result};

use super::armor::Armored;
use super::key::Remembered;
use super::payload::{NONCE, Payload, chunks_of, len_of};
use super::{CHUNK, HEADER_BYTES, HEADER_LINES, Identities, TAG, refused};

/// How many chunks that were read in part are kept: what lies around headers and small tensors.
const CACHED: usize = 8;

/// The plaintext of an age file. Any thread may read it, and opens the chunks that it asks for.
pub(super) struct Reader {
    source: Arc<dyn ReadAt>,
    payload: Payload,
    /// Where the first chunk begins.
    begin: u64,
    len: u64,
    cache: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
    fetched: Arc<AtomicU64>,
}

impl Reader {
    /// Opens a file: its header is checked, a key is found, and the last chunk is decrypted, so that a file that was
    /// cut short is no file.
    pub(super) fn open(
        source: Arc<dyn ReadAt>,
        identities: impl std::borrow::Borrow<Identities>,
    ) -> Result<Self> {
        let fetched: Arc<AtomicU64> = Arc::default();
        let source: Arc<dyn ReadAt> = Arc::new(Counted { source, fetched: fetched.clone() });
        let source = match super::container::is_armored(&head_of(&*source)?) {
            true => Arc::new(Armored::new(source)?),
            false => source,
        };
        let (begin, sealed) = chunks(&*source)?;
        let len = plain_len(sealed)?;
        let payload = unlock(&source, begin, identities.borrow())?;
        let reader = Self { source, payload, begin, len, cache: Mutex::default(), fetched };
        let last = chunks_of(len) - 1;
        let mut end = vec![0; len_of(last, len)];
        reader.decrypt(last, &mut end).map_err(|e| match e.kind() {
            ErrorKind::Mismatch => cut_short(),
            _ => e,
        })?;
        Ok(reader)
    }

    /// The bytes of the file that were read so far, in all threads.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Decrypts a chunk into a buffer of its length.
    fn decrypt(&self, chunk: u64, out: &mut [u8]) -> Result<()> {
        let at = self.begin + chunk * (CHUNK + TAG);
        let mut tag = [0; TAG as usize];
        self.source.read_at(at, out)?;
        self.source.read_at(at + out.len() as u64, &mut tag)?;
        if self.payload.open(chunk, chunk + 1 == chunks_of(self.len), out, &tag) {
            return Ok(());
        }
        let what = format!("chunk {chunk} of the encrypted file is not what was written");
        Err(Error::mismatch(what)
            .at_offset(chunk * CHUNK)
            .with_hint("bytes were changed or moved; take another copy of the file"))
    }

    fn chunk_len(&self, chunk: u64) -> usize {
        len_of(chunk, self.len)
    }

    /// A chunk of which a part is wanted.
    fn cached(&self, chunk: u64) -> Result<Arc<[u8]>> {
        if let Some((_, bytes)) = lock(&self.cache).iter().find(|(c, _)| *c == chunk) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; self.chunk_len(chunk)];
        self.decrypt(chunk, &mut bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        let mut cache = lock(&self.cache);
        cache.push_front((chunk, bytes.clone()));
        cache.truncate(CACHED);
        Ok(bytes)
    }
}

impl ReadAt for Reader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            let what = format!("{} bytes at {offset} pass the end at {}", buf.len(), self.len);
            return Err(Error::malformed(what).at_offset(offset));
        }
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (chunk, within) = (at / CHUNK, (at % CHUNK) as usize);
            let len = self.chunk_len(chunk);
            let count = (len - within).min(rest.len());
            let (part, after) = rest.split_at_mut(count);
            if count == len {
                self.decrypt(chunk, part)?;
            } else {
                part.copy_from_slice(&self.cached(chunk)?[within..within + count]);
            }
            at += count as u64;
            rest = after;
        }
        Ok(())
    }
}

/// Bounds the header before it is parsed; returns where the chunks begin, and the bytes of all of them.
fn chunks(source: &dyn ReadAt) -> Result<(u64, u64)> {
    let mut head = vec![0; source.len().min(HEADER_BYTES as u64) as usize];
    source.read_at(0, &mut head)?;
    let Some(mac) = head.windows(5).position(|w| w == b"\n--- ") else {
        let what = if head.len() < HEADER_BYTES {
            Error::malformed("the file ends within its header").with_hint("it was cut short: fetch it again")
        } else {
            Error::limit(format!("the header of this age file is longer than {HEADER_BYTES} bytes"))
        };
        return Err(what);
    };
    if head.iter().take(mac).filter(|&&b| b == b'\n').count() > HEADER_LINES {
        let what = format!("the header of this age file has more than {HEADER_LINES} lines");
        return Err(Error::limit(what));
    }
    let Some(end) = head.iter().skip(mac + 1).position(|&b| b == b'\n') else {
        return Err(Error::malformed("the file ends within its header"));
    };
    let begin = (mac + 1 + end + 1 + NONCE) as u64;
    let sealed = source.len().checked_sub(begin).ok_or_else(cut_short)?;
    Ok((begin, sealed))
}

/// Checks the header and finds the key, both by the crate; the chunks begin at `begin`, behind their nonce.
fn unlock(source: &Arc<dyn ReadAt>, begin: u64, identities: &Identities) -> Result<Payload> {
    let input = BufReader::new(Cursor { source: source.clone(), at: 0 });
    let decryptor = age::Decryptor::new_buffered(input).map_err(header_error)?;
    let file_key = Remembered::default();
    let key = file_key.with(identities);
    decryptor.decrypt(std::iter::once(&key as &dyn age::Identity)).map_err(header_error)?;
    let mut nonce = [0; NONCE];
    source.read_at(begin.saturating_sub(NONCE as u64), &mut nonce)?;
    file_key.payload(&nonce).ok_or_else(|| Error::invalid_options("no key opens this file"))
}

/// The bytes that are inside of sealed chunks.
fn plain_len(sealed: u64) -> Result<u64> {
    let chunks = sealed.div_ceil(CHUNK + TAG);
    let last = sealed.saturating_sub(chunks.saturating_sub(1) * (CHUNK + TAG));
    // An empty last chunk is right only where there is nothing at all.
    if last < TAG || last == TAG && chunks > 1 {
        return Err(cut_short());
    }
    Ok(sealed - chunks * TAG)
}

#[cold]
fn cut_short() -> Error {
    Error::mismatch("the end of the encrypted file is not what was written")
        .with_hint("the file was cut short or its end was changed: compare its size, and fetch it again")
}

fn header_error(error: age::DecryptError) -> Error {
    match error {
        age::DecryptError::Io(e) => unwrapped(e, "reading the header of the age file"),
        other => refused(&other),
    }
}

/// Our own error out of the reader below, or the system's.
fn unwrapped(error: io::Error, doing: &'static str) -> Error {
    if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::malformed(format!("this is no whole age file: {error}"));
    }
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(e) => Error::io(doing, e),
    }
}

/// The first bytes of a source.
pub(super) fn head_of(source: &dyn ReadAt) -> Result<Vec<u8>> {
    let mut head = vec![0; source.len().min(4096) as usize];
    source.read_at(0, &mut head)?;
    Ok(head)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done by a thread that panics while it holds one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A source that counts what is read of it.
struct Counted {
    source: Arc<dyn ReadAt>,
    fetched: Arc<AtomicU64>,
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.fetched.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.source.read_at(offset, buf)
    }
}

/// A source as a stream.
struct Cursor {
    source: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.source.len().saturating_sub(self.at).min(buf.len() as u64) as usize;
        let Some(buf) = buf.get_mut(..count) else { return Ok(0) };
        self.source.read_at(self.at, buf).map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}
