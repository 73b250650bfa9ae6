//! An encrypted file as bytes at any offset: only the chunks that are asked for are decrypted.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use age::stream::StreamReader;
use weighbridge_formats::{Error, ReadAt, Result};

use super::armor::Armored;
use super::key::Remembered;
use super::{CHUNK, HEADER_BYTES, HEADER_LINES, Identities, TAG, refused};

/// How many chunks that were read in part are kept: what lies around headers and small tensors.
const CACHED: usize = 8;

/// The plaintext of an age file. Any thread may read it; each has a stream of its own, whose key was unwrapped once.
pub(super) struct Reader {
    source: Arc<dyn ReadAt>,
    key: Remembered,
    len: u64,
    idle: Mutex<Vec<Stream>>,
    cache: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
    fetched: Arc<AtomicU64>,
}

/// One position in the payload.
struct Stream {
    reader: StreamReader<Input>,
    /// The chunk that is read without a seek.
    next: u64,
}

/// A small buffer serves the header; chunks are larger and pass it.
type Input = BufReader<Cursor>;

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
        let mut reader = Self {
            source,
            key: Remembered::default(),
            len: 0,
            idle: Mutex::default(),
            cache: Mutex::default(),
            fetched,
        };
        let payload = reader.payload()?;
        reader.len = plain_len(payload)?;
        let stream = reader.stream(identities.borrow())?;
        lock(&reader.idle).push(stream);
        Ok(reader)
    }

    /// The bytes of the file that were read so far, in all threads.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn input(&self) -> Input {
        BufReader::new(Cursor { source: self.source.clone(), at: 0 })
    }

    /// Bounds the header before it is parsed; returns the bytes of all sealed chunks.
    fn payload(&self) -> Result<u64> {
        let mut head = vec![0; self.source.len().min(HEADER_BYTES as u64) as usize];
        self.source.read_at(0, &mut head)?;
        let Some(mac) = head.windows(5).position(|w| w == b"\n--- ") else {
            let what = if head.len() < HEADER_BYTES {
                Error::malformed("the file ends within its header")
                    .with_hint("it was cut short: fetch it again")
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
        // The nonce of 16 bytes, then the chunks.
        let begin = (mac + 1 + end + 1 + 16) as u64;
        self.source.len().checked_sub(begin).ok_or_else(cut_short)
    }

    /// A stream at the first chunk, whose end is known to be authentic.
    fn stream(&self, identities: &Identities) -> Result<Stream> {
        let decryptor = age::Decryptor::new_buffered(self.input()).map_err(header_error)?;
        let key = self.key.with(identities);
        let mut reader =
            decryptor.decrypt(std::iter::once(&key as &dyn age::Identity)).map_err(header_error)?;
        let len = reader.seek(SeekFrom::End(0)).map_err(|e| {
            if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return unwrapped(e, "reading");
            }
            cut_short()
        })?;
        if len != self.len {
            return Err(cut_short());
        }
        Ok(Stream { reader, next: u64::MAX })
    }

    /// A stream that can read a chunk; one that is there already if possible.
    fn take(&self, chunk: u64) -> Result<Stream> {
        let mut idle = lock(&self.idle);
        let at = idle.iter().position(|s| s.next == chunk).or(idle.len().checked_sub(1));
        let found = at.map(|i| idle.swap_remove(i));
        drop(idle);
        found.map_or_else(|| self.stream(&Identities::new()), Ok)
    }

    /// Decrypts a chunk into a buffer of its length.
    fn decrypt(&self, chunk: u64, out: &mut [u8]) -> Result<()> {
        let mut stream = self.take(chunk)?;
        let changed = |e: io::Error| {
            if e.kind() == io::ErrorKind::InvalidData || e.kind() == io::ErrorKind::UnexpectedEof {
                let what = format!("chunk {chunk} of the encrypted file is not what was written");
                return Error::mismatch(what)
                    .at_offset(chunk * CHUNK)
                    .with_hint("bytes were changed or moved; take another copy of the file");
            }
            unwrapped(e, "reading the encrypted file").at_offset(chunk * CHUNK)
        };
        if stream.next != chunk {
            stream.restart(chunk).map_err(changed)?;
        }
        stream.reader.read_exact(out).map_err(changed)?;
        stream.next = chunk + 1;
        // After an error a stream is not used again.
        lock(&self.idle).push(stream);
        Ok(())
    }

    fn chunk_len(&self, chunk: u64) -> usize {
        self.len.saturating_sub(chunk * CHUNK).min(CHUNK) as usize
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

impl Stream {
    /// Goes to the beginning of a chunk. Within the chunk that it is in a stream does not begin anew, and after the last
    /// it is finished; so it goes past the chunk first.
    fn restart(&mut self, chunk: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start((chunk + 1) * CHUNK))?;
        self.reader.seek(SeekFrom::Start(chunk * CHUNK)).map(|_| ())
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

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.source.len().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
