//! Compressed streams and members, unpacked as they are read: what is small in memory, the rest from front to back.

use std::io::{BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use weighbridge_formats::source::Access;
use weighbridge_formats::{Error, ReadAt, Result, Source};

use super::subject::Allowance;

/// How a part is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Deflate,
    Zlib,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Lz4,
    Zstd,
}

/// What unpacks to no more than this is kept in memory while it is looked at.
pub(crate) const SMALL: usize = 4 << 20;
/// The dictionary that a stream of LZMA may ask for, in KiB, and the window that one of zstd may, in bytes.
const DICTIONARY_KIB: u32 = 33 << 10;
/// How much is unpacked at once where it is passed over.
const STEP: usize = 64 << 10;

impl Packing {
    /// The compression that the first bytes of a file are the mark of. Those of zlib and LZMA are weak: what they stand
    /// for must unpack.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x5d, 0, 0, _, _, ..] => Self::Lzma,
            [0x78, flags, ..] if flags & 0x20 == 0 && (0x7800 + u16::from(*flags)).is_multiple_of(31) => {
                Self::Zlib
            }
            _ => return None,
        })
    }

    /// Whether the mark could be there by chance.
    pub(crate) fn is_weak(self) -> bool {
        matches!(self, Self::Zlib | Self::Lzma | Self::Deflate)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bz2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    fn decoder(self, reader: &Arc<dyn ReadAt>) -> std::io::Result<Box<dyn Read + Send>> {
        let input = BufReader::with_capacity(STEP, Input { reader: reader.clone(), at: 0 });
        Ok(match self {
            Self::Deflate => Box::new(flate2::bufread::DeflateDecoder::new(input)),
            Self::Zlib => Box::new(flate2::bufread::ZlibDecoder::new(input)),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, DICTIONARY_KIB)),
            Self::Lzma => Box::new(lzma_rust2::LzmaReader::new_mem_limit(input, DICTIONARY_KIB, None)?),
            Self::Zstd => Box::new(
                ruzstd::decoding::StreamingDecoder::new(input)
                    .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()))?,
            ),
        })
    }
}

/// What a stream unpacked to.
pub(crate) struct Unpacked {
    pub(crate) source: Source,
    /// Why that is not all of it.
    pub(crate) fault: Option<Fault>,
}

/// Why a stream was not unpacked to its end.
pub(crate) enum Fault {
    /// It breaks off or is malformed, or asks for too much memory.
    Broken(String),
    /// The allowance was used up.
    Bomb,
}

/// Unpacks a stream: into memory if it has at most `keep` bytes, else to find out how long it is.
pub(crate) fn unpack(packed: &Source, packing: Packing, allowance: &Arc<Allowance>, keep: usize) -> Unpacked {
    let mut kept = Vec::new();
    let (mut length, mut small) = (0u64, true);
    let fault = match packing.decoder(packed.reader()) {
        Err(error) => Some(Fault::Broken(error.to_string())),
        Ok(mut decoder) => {
            let mut piece = vec![0; STEP];
            loop {
                match decoder.read(&mut piece) {
                    Ok(0) => break None,
                    Ok(n) => {
                        if !allowance.take(n as u64) {
                            break Some(Fault::Bomb);
                        }
                        length += n as u64;
                        if small && kept.len() + n <= keep {
                            kept.extend_from_slice(&piece[..n]);
                        } else {
                            (small, kept) = (false, Vec::new());
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => break Some(Fault::Broken(error.to_string())),
                }
            }
        }
    };
    let source = if small {
        Source::from_bytes(kept)
    } else {
        let state = Mutex::new(State { decoder: None, at: 0 });
        let allowance = allowance.clone();
        Source::from_reader(Arc::new(Streamed { packed: packed.clone(), packing, length, allowance, state }))
    };
    Unpacked { source, fault }
}

/// A source from front to back.
struct Input {
    reader: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = self.reader.len().saturating_sub(self.at);
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.reader.read_at(self.at, &mut buf[..n]).map_err(std::io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A stream that is unpacked while it is read. Going back starts it over, which the allowance pays for.
struct Streamed {
    packed: Source,
    packing: Packing,
    length: u64,
    allowance: Arc<Allowance>,
    state: Mutex<State>,
}

struct State {
    decoder: Option<Box<dyn Read + Send>>,
    at: u64,
}

impl ReadAt for Streamed {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.length) {
            return Err(
                Error::malformed(format!("{} bytes at {offset} pass the end", buf.len())).at_offset(offset)
            );
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.decoder.is_none() || offset < state.at {
            let decoder = self.packing.decoder(self.packed.reader());
            state.decoder = Some(decoder.map_err(|e| Error::io("unpacking", e))?);
            state.at = 0;
        }
        let bomb = || Error::limit("unpacking it took more than its size allows");
        let mut passed = [0; 4096];
        let result = (|| {
            while state.at < offset {
                let step = (offset - state.at).min(passed.len() as u64) as usize;
                self.allowance.take(step as u64).then_some(()).ok_or_else(bomb)?;
                state.fill(&mut passed[..step])?;
            }
            self.allowance.take(buf.len() as u64).then_some(()).ok_or_else(bomb)?;
            state.fill(buf)
        })();
        if result.is_err() {
            state.decoder = None;
        }
        result
    }

    fn access(&self) -> Access {
        Access::Sequential
    }
}

impl State {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let Some(decoder) = &mut self.decoder else { return Err(Error::malformed("the stream is broken")) };
        decoder.read_exact(buf).map_err(|e| Error::io("unpacking", e))?;
        self.at += buf.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::subject::Bounds;
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Source {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        Source::from_bytes(out.finish().unwrap())
    }

    #[test]
    fn a_large_stream_is_read_in_any_order_in_little_memory() {
        let bytes: Vec<u8> = (0..12_000_000u32).map(|n| (n / 1000) as u8).collect();
        let packed = gzip(&bytes);
        let allowance = Allowance::new(&Bounds::default(), packed.len());
        let unpacked = unpack(&packed, Packing::Gzip, &allowance, SMALL);
        assert!(unpacked.fault.is_none());
        assert_eq!(unpacked.source.len(), bytes.len() as u64);
        for at in [11_000_000, 5, 7_000_000] {
            let mut piece = [0; 100];
            unpacked.source.reader().read_at(at, &mut piece).unwrap();
            assert_eq!(piece, bytes[at as usize..at as usize + 100]);
        }
    }

    #[test]
    fn bombs_and_broken_streams_give_what_came_before() {
        let packed = gzip(&vec![0; 50_000_000]);
        let bounds = Bounds { unpacked: 10_000_000, unpacked_per_byte: 1, ..Bounds::default() };
        let unpacked = unpack(&packed, Packing::Gzip, &Allowance::new(&bounds, packed.len()), SMALL);
        assert!(matches!(unpacked.fault, Some(Fault::Bomb)));
        let mut cut = vec![0; packed.len() as usize / 2];
        packed.reader().read_at(0, &mut cut).unwrap();
        let allowance = Allowance::new(&Bounds::default(), packed.len());
        let unpacked = unpack(&Source::from_bytes(cut), Packing::Gzip, &allowance, SMALL);
        assert!(matches!(unpacked.fault, Some(Fault::Broken(_))) && unpacked.source.len() > 1_000_000);
    }
}
