//! The .xz container around LZMA2: header, blocks, index and footer, each with its CRC-32, and the blocks' checks.
//!
//! Read are streams whose only filter is LZMA2, as every writer of general data makes them, with no check, CRC-32 or
//! CRC-64. Source: "The .xz File Format", version 1.2.1.

use std::io::{self, Read};

use lzma_rust2::Lzma2Reader;

use super::unpack::{DICTIONARY_KIB, Sink};

const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// The filter LZMA2, whose property is the size of its dictionary.
const LZMA2: u64 = 0x21;

/// Unpacks every stream of a file; whether all of it was within the sink's limit.
pub(super) fn unpack(input: impl Read, sink: &mut Sink<'_>) -> io::Result<bool> {
    let mut input = Counted { input, taken: 0 };
    let mut first = true;
    loop {
        let mut byte = [0];
        // Between streams, and at the end, there may be zeros.
        match input.input.read(&mut byte)? {
            0 if first => return Err(broken("nothing is there")),
            0 => return Ok(true),
            _ if byte == [0] && !first => continue,
            _ => {}
        }
        let rest: [u8; 5] = input.array()?;
        if byte[0] != MAGIC[0] || rest != MAGIC[1..] {
            return Err(broken("a stream has another mark"));
        }
        if !stream(&mut input, sink)? {
            return Ok(false);
        }
        first = false;
    }
}

/// How a block's contents are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    None,
    Crc32,
    Crc64,
}

fn stream(input: &mut Counted<impl Read>, sink: &mut Sink<'_>) -> io::Result<bool> {
    let flags: [u8; 2] = input.array()?;
    if u32::from_le_bytes(input.array()?) != crc32fast::hash(&flags) {
        return Err(broken("the header fails its CRC-32"));
    }
    let check = match flags {
        [0, 0] => Check::None,
        [0, 1] => Check::Crc32,
        [0, 4] => Check::Crc64,
        _ => return Err(unsupported(&format!("a check of the kind {:#04x}", flags[1]))),
    };
    let mut blocks = Vec::new();
    loop {
        let [size] = input.array()?;
        if size == 0 {
            break;
        }
        let Some(block) = block(input, size, check, sink)? else { return Ok(false) };
        blocks.push(block);
    }
    let length = index(input, &blocks)?;
    let crc = u32::from_le_bytes(input.array()?);
    let footer: [u8; 6] = input.array()?;
    let [a, b, c, d, ..] = footer;
    let backward = (u64::from(u32::from_le_bytes([a, b, c, d])) + 1) * 4;
    let agrees = crc == crc32fast::hash(&footer) && footer[4..] == flags && backward == length;
    if !agrees || input.array()? != *b"YZ" {
        return Err(broken("the footer does not fit what stands before it"));
    }
    Ok(true)
}

/// Unpacks a block: its unpadded size and the bytes that came out, or nothing if the sink is full.
fn block(
    input: &mut Counted<impl Read>,
    size: u8,
    check: Check,
    sink: &mut Sink<'_>,
) -> io::Result<Option<(u64, u64)>> {
    let mut header = vec![size];
    let length = (usize::from(size) + 1) * 4;
    header.resize(length, 0);
    input.read_exact(&mut header[1..])?;
    let (body, crc) = header.split_at(length - 4);
    if crc != crc32fast::hash(body).to_le_bytes() {
        return Err(broken("a block's header fails its CRC-32"));
    }
    let mut rest = &body[1..];
    let [flags] = rest.array()?;
    if flags & 0x3f != 0 {
        return Err(unsupported("a block with several filters"));
    }
    let packed = if flags & 0x40 != 0 { Some(number(&mut rest)?) } else { None };
    let unpacked = if flags & 0x80 != 0 { Some(number(&mut rest)?) } else { None };
    let (filter, properties) = (number(&mut rest)?, number(&mut rest)?);
    if (filter, properties) != (LZMA2, 1) {
        return Err(unsupported(&format!("the filter {filter:#x}")));
    }
    let [dictionary] = rest.array()?;
    let dictionary = match dictionary {
        40 => u32::MAX,
        0..40 => (2 | u32::from(dictionary & 1)) << (dictionary / 2 + 11),
        _ => return Err(broken("a dictionary has no size")),
    };
    let before = sink.taken().len();
    input.taken = 0;
    if !sink.fill(Lzma2Reader::new_mem_limit(&mut *input, dictionary, DICTIONARY_KIB, None)?)? {
        return Ok(None);
    }
    let (took, came) = (input.taken, sink.taken().len() as u64 - before as u64);
    if packed.is_some_and(|n| n != took) || unpacked.is_some_and(|n| n != came) {
        return Err(broken("a block has another size than its header says"));
    }
    padding(input, took)?;
    let content = sink.taken().get(before..).unwrap_or_default();
    let (fits, check_length) = match check {
        Check::None => (true, 0),
        Check::Crc32 => (u32::from_le_bytes(input.array()?) == crc32fast::hash(content), 4),
        Check::Crc64 => (u64::from_le_bytes(input.array()?) == crc64(content), 8),
    };
    if !fits {
        return Err(broken("a block fails its check"));
    }
    Ok(Some((length as u64 + took + check_length, came)))
}

/// Reads the index, whose first byte was read, and holds it against the blocks. Returns its length.
fn index(input: &mut Counted<impl Read>, blocks: &[(u64, u64)]) -> io::Result<u64> {
    let mut seen = Hashed { input, crc: crc32fast::Hasher::new(), length: 1 };
    seen.crc.update(&[0]);
    let misfit = || broken("the index does not fit the blocks");
    if number(&mut seen)? != blocks.len() as u64 {
        return Err(misfit());
    }
    for block in blocks {
        if (number(&mut seen)?, number(&mut seen)?) != *block {
            return Err(misfit());
        }
    }
    let length = seen.length;
    padding(&mut seen, length)?;
    let (crc, length) = (seen.crc.clone().finalize(), seen.length);
    if u32::from_le_bytes(input.array()?) != crc {
        return Err(broken("the index fails its CRC-32"));
    }
    Ok(length + 4)
}

/// Zeros up to a multiple of four bytes.
fn padding(input: &mut impl Read, length: u64) -> io::Result<()> {
    for _ in 0..(4 - length % 4) % 4 {
        if input.array()? != [0] {
            return Err(broken("padding is not zero"));
        }
    }
    Ok(())
}

/// A number of seven bits a byte, the lowest first, of at most nine bytes.
fn number(input: &mut impl Read) -> io::Result<u64> {
    let mut n = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = input.array()?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(broken("a number has no end"))
}

/// Reading a few bytes.
trait Bytes: Read {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read> Bytes for R {}

/// Counts what is read.
struct Counted<R> {
    input: R,
    taken: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.taken += n as u64;
        Ok(n)
    }
}

/// Counts and hashes what is read.
struct Hashed<'a, R> {
    input: &'a mut R,
    crc: crc32fast::Hasher,
    length: u64,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.crc.update(&buf[..n]);
        self.length += n as u64;
        Ok(n)
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{what} is not read"))
}

/// CRC-64 of ECMA-182, reflected.
fn crc64(bytes: &[u8]) -> u64 {
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u64, 0);
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0xC96C_5795_D787_0F42 } else { 0 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_crc64() {
        // The catalogue of CRCs has this for CRC-64/XZ.
        assert_eq!(super::crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
    }
}
