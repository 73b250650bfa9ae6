//! Compression of a dump as a whole: zlib, gzip, bzip2, xz, lzma (the format of LZMA alone) and lz4's frames.
//!
//! A stream is unpacked into memory up to a limit, for its arrays are read in any order. Every checksum that the
//! stream has is checked on the way.

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::sync::Arc;

use super::xz;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::source::{ReadAt, Source};

/// The memory that a decoder may take for its dictionary, in KiB. `xz -9` takes 64 MiB.
pub(super) const DICTIONARY_KIB: u32 = 256 << 10;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Zlib,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Lz4,
}

impl Packing {
    /// The compression that a file's first bytes are the mark of. LZMA's mark, and zlib's, are weak.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0x5d, 0, 0, _, _, ..] => Self::Lzma,
            // 32 KiB of window, deflate, no preset dictionary, and a check.
            [0x78, flags, ..] if flags & 0x20 == 0 && (0x7800 + u16::from(*flags)).is_multiple_of(31) => {
                Self::Zlib
            }
            _ => return None,
        })
    }

    /// The name that joblib's `compress` has for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bz2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
        }
    }

    /// Unpacks into `out` until the end, or until `out` has `most` bytes and more would come. Whether the end was
    /// reached.
    fn run(self, input: Input, out: &mut Vec<u8>, most: u64) -> io::Result<bool> {
        let input = BufReader::with_capacity(64 << 10, input);
        let mut sink = Sink { out, most };
        match self {
            Self::Zlib => sink.fill(flate2::bufread::ZlibDecoder::new(input)),
            Self::Gzip => sink.fill(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Bzip2 => sink.fill(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Lz4 => sink.fill(lz4_flex::frame::FrameDecoder::new(input)),
            Self::Lzma => sink.fill(lzma_rust2::LzmaReader::new_mem_limit(input, DICTIONARY_KIB, None)?),
            Self::Xz => xz::unpack(input, &mut sink),
        }
    }
}

/// Where unpacked bytes go, up to a limit.
pub(super) struct Sink<'a> {
    out: &'a mut Vec<u8>,
    most: u64,
}

impl Sink<'_> {
    /// Takes everything from a decoder; whether that was within the limit.
    pub(super) fn fill(&mut self, mut from: impl Read) -> io::Result<bool> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let n = match from.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let left = self.most.saturating_sub(self.out.len() as u64);
            let taken = &piece[..n.min(usize::try_from(left).unwrap_or(usize::MAX))];
            self.out.try_reserve(taken.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            self.out.extend_from_slice(taken);
            if taken.len() < n {
                return Ok(false);
            }
        }
    }

    /// What has been taken so far.
    pub(super) fn taken(&self) -> &[u8] {
        self.out
    }
}

/// A source from front to back. An error of its own is kept, for what a decoder makes of it says less.
struct Input {
    reader: Arc<dyn ReadAt>,
    at: u64,
    failed: Rc<RefCell<Option<Error>>>,
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.len().saturating_sub(self.at);
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if let Err(error) = self.reader.read_at(self.at, &mut buf[..n]) {
            *self.failed.borrow_mut() = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// The first bytes of what a stream unpacks to: at most `most`, fewer if it breaks off.
pub(super) fn begin(source: &Source, packing: Packing, most: u64) -> Vec<u8> {
    let input = Input { reader: source.reader().clone(), at: 0, failed: Rc::default() };
    let mut out = Vec::new();
    // What cannot be unpacked further has shown what it can.
    let _ = packing.run(input, &mut out, most);
    out
}

/// How many bytes one compressed byte may stand for, where that is more than [`ALWAYS`]. Weights are packed to a half or a
/// tenth; a file of hundreds of bytes that unpacks to a gigabyte holds no model.
const MOST_TIMES: u64 = 200;
/// What any file may unpack to, whatever its length.
const ALWAYS: u64 = 64 << 20;

/// Unpacks a whole stream into memory.
///
/// # Errors
/// `LimitExceeded` past [`Limits::unpacked_bytes`] or what [`Limits::memory`] leaves for what is made of them, or [`MOST_TIMES`] as many as there are; `Malformed` for a stream that breaks off or fails its checksum.
pub(super) fn unpack(source: &Source, packing: Packing, limits: &Limits) -> Result<Vec<u8>> {
    let failed = Rc::new(RefCell::new(None));
    let input = Input { reader: source.reader().clone(), at: 0, failed: failed.clone() };
    let mut out = Vec::new();
    let times = source.len().saturating_mul(MOST_TIMES).max(ALWAYS);
    // What was unpacked stands in the dictionary too, where there is one.
    let memory = match packing {
        Packing::Xz | Packing::Lzma => limits.memory / 2,
        // A block of bzip2, or of lz4.
        _ => limits.memory - limits.memory / 8,
    };
    let most = limits.unpacked_bytes.min(memory).min(times);
    match packing.run(input, &mut out, most) {
        Ok(true) => {
            out.shrink_to_fit();
            Ok(out)
        }
        Ok(false) => Err(Error::limit(format!(
            "{} bytes of {} unpack to more than the limit of {most} bytes",
            source.len(),
            packing.name()
        ))
        .with_hint(
            "unpack the file to disk, where arrays are read as they are wanted; or, if you trust it, allow more: \
                    `--memory 2GiB` of the command, Limits::memory and Limits::unpacked_bytes of the library",
        )),
        Err(cause) => Err(match failed.take() {
            Some(error) => error,
            None if cause.kind() == io::ErrorKind::OutOfMemory => Error::limit(format!(
                "the {} stream asks for more memory than there is, or for a dictionary of more than {} MiB",
                packing.name(),
                DICTIONARY_KIB >> 10
            )),
            None => Error::malformed(format!(
                "the {} stream is broken after {} unpacked bytes",
                packing.name(),
                out.len()
            ))
            .with_hint(crate::source::TRUNCATED)
            .with_source(cause),
        }),
    }
}
