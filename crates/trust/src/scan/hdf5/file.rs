//! An HDF5 file as bytes at addresses: its superblock, a cursor over what was read, and what one walk may read at most.
//!
//! After the HDF5 File Format Specification, version 3.0. Numbers are little-endian; addresses and lengths have as many
//! bytes as the superblock says, and count from its base address.

use weighbridge_formats::{Error, Limits, Result, Source};

/// The eight bytes that a superblock begins with, at 0 or at 512 and its doublings.
pub(super) const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
/// The furthest place that a superblock is looked for.
const LAST_SIGNATURE: u64 = 1 << 26;
/// The most bytes of metadata that one walk reads.
const MOST_BYTES: u64 = 32 << 20;
/// The most structures that one walk reads.
const MOST_READS: u64 = 400_000;
/// The most bytes that are read at once.
const MOST_AT_ONCE: u64 = 8 << 20;

/// An opened file.
pub(super) struct File<'a> {
    source: &'a Source,
    /// Where address zero is.
    pub(super) base: u64,
    /// The bytes of an address.
    pub(super) offset_size: usize,
    /// The bytes of a length.
    pub(super) length_size: usize,
    /// The address of the root group's object header.
    pub(super) root: u64,
    bytes_left: u64,
    reads_left: u64,
}

/// Where the superblock is, if the file has one.
pub(super) fn signature(source: &Source) -> Option<u64> {
    let mut at = 0;
    while at + 8 <= source.len() && at <= LAST_SIGNATURE {
        let mut mark = [0; 8];
        if source.reader().read_at(at, &mut mark).is_ok() && mark == SIGNATURE {
            return Some(at);
        }
        at = if at == 0 { 512 } else { at * 2 };
    }
    None
}

impl<'a> File<'a> {
    /// Reads the superblock.
    pub(super) fn open(source: &'a Source) -> Result<Self> {
        let at = signature(source).ok_or_else(|| Error::malformed("no HDF5 superblock"))?;
        let mut file = Self {
            source,
            base: 0,
            offset_size: 8,
            length_size: 8,
            root: 0,
            bytes_left: MOST_BYTES,
            reads_left: MOST_READS,
        };
        let block = file.read(at, 128.min(source.len() - at))?;
        let mut c = Cursor::new(&block, at);
        c.skip(8)?;
        let version = c.u8()?;
        let (offset_size, length_size) = match version {
            0 | 1 => {
                c.skip(4)?;
                (c.u8()?, c.u8()?)
            }
            2 | 3 => (c.u8()?, c.u8()?),
            other => {
                return Err(
                    Error::unsupported(format!("an HDF5 superblock of version {other}")).at_offset(at)
                );
            }
        };
        if ![2, 4, 8].contains(&offset_size) || ![2, 4, 8].contains(&length_size) {
            let what = format!("addresses of {offset_size} bytes and lengths of {length_size}");
            return Err(Error::unsupported(what).at_offset(at));
        }
        (file.offset_size, file.length_size) = (offset_size.into(), length_size.into());
        let o = file.offset_size;
        match version {
            0 | 1 => {
                c.skip(if version == 0 { 9 } else { 13 })?;
                file.base = c.number(o)?;
                c.skip(3 * o + o)?; // Free space, end of file, driver information; then the root link's name.
                file.root = c.number(o)?;
            }
            _ => {
                c.skip(1)?;
                file.base = c.number(o)?;
                c.skip(2 * o)?; // The extension and the end of the file.
                file.root = c.number(o)?;
            }
        }
        // A user block that was put before a finished file moves everything without changing the base.
        if file.base == 0 && at > 0 {
            file.base = at;
        }
        Ok(file)
    }

    /// The source.
    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// Reads `len` bytes at an address.
    pub(super) fn read(&mut self, address: u64, len: u64) -> Result<Vec<u8>> {
        let spent = self.bytes_left.checked_sub(len).zip(self.reads_left.checked_sub(1));
        let Some((bytes, reads)) = spent.filter(|_| len <= MOST_AT_ONCE) else {
            return Err(Error::limit(format!(
                "its structures take more than {MOST_BYTES} bytes or {MOST_READS} reads"
            )));
        };
        let at = self.base.checked_add(address).ok_or_else(|| Error::malformed("an address past 64 bits"))?;
        let out = self.source.read_vec(at, len, &Limits::default())?;
        (self.bytes_left, self.reads_left) = (bytes, reads);
        Ok(out)
    }

    /// As [`File::read`], with fewer bytes where the file ends before.
    pub(super) fn read_up_to(&mut self, address: u64, len: u64) -> Result<Vec<u8>> {
        let rest = self.source.len().saturating_sub(self.base.saturating_add(address));
        self.read(address, len.min(rest))
    }

    /// Whether an address is the one that stands for none.
    pub(super) fn is_undefined(&self, address: u64) -> bool {
        address >= u64::MAX >> (64 - 8 * self.offset_size)
    }
}

/// A place in bytes that were read.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    base: u64,
}

impl<'a> Cursor<'a> {
    /// A cursor over bytes that begin at `base` in the file, for errors.
    pub(super) fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, at: 0, base }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The next bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let Some(found) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            let what = format!("{len} bytes are wanted, and {} are left of the structure", self.left());
            return Err(Error::malformed(what).at_offset(self.base.saturating_add(self.at as u64)));
        };
        self.at += len;
        Ok(found)
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, len: usize) -> Result<()> {
        self.take(len).map(drop)
    }

    /// A little-endian number of up to eight bytes.
    pub(super) fn number(&mut self, len: usize) -> Result<u64> {
        Ok(self.take(len)?.iter().take(8).rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.number(1)? as u8)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(self.number(2)? as u16)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(self.number(4)? as u32)
    }

    /// Insists on a signature of four bytes.
    pub(super) fn mark(&mut self, mark: &[u8; 4]) -> Result<()> {
        let at = self.base;
        if self.take(4)? == mark {
            return Ok(());
        }
        Err(Error::malformed(format!("no {:?} where one is pointed to", String::from_utf8_lossy(mark)))
            .at_offset(at))
    }

    /// Text up to a NUL, which is passed over.
    pub(super) fn c_string(&mut self) -> Result<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&b| b == 0);
        let len = len.ok_or_else(|| Error::malformed("a name without its end").at_offset(self.base))?;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.skip(1)?;
        Ok(text)
    }
}
