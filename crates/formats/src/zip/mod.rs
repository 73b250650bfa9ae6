//! The zip container: its directory, its members as readers, and the layout of a new one.
//!
//! The facts are those of the ZIP application note (PKWARE APPNOTE 6.3): little-endian records, the central
//! directory at the end, zip64 fields where 32 bits do not suffice. The central directory is what counts; a
//! member's local header must agree with it in name and place. Members that share bytes, have the same name,
//! or are encrypted are refused: two readers could see two different files in them.

mod checked;
mod directory;
mod inflate;

pub(crate) use checked::Checked;
pub(crate) use directory::ZipArchive;

/// `PK\x03\x04`, before each member.
pub(crate) const LOCAL: u32 = 0x0403_4b50;
/// `PK\x01\x02`, before each entry of the central directory.
pub(crate) const CENTRAL: u32 = 0x0201_4b50;
/// `PK\x05\x06`, the end of the central directory.
pub(crate) const END: u32 = 0x0605_4b50;
/// `PK\x06\x06`, the same with 64-bit fields.
pub(crate) const END64: u32 = 0x0606_4b50;
/// `PK\x06\x07`, where to find that.
pub(crate) const LOCATOR64: u32 = 0x0706_4b50;
/// `PK\x07\x08`, before checksums that follow a member.
pub(crate) const DESCRIPTOR: u32 = 0x0807_4b50;

/// The fixed part of a local header.
pub(crate) const LOCAL_LEN: u64 = 30;
/// The fixed part of an entry of the central directory.
pub(crate) const CENTRAL_LEN: usize = 46;

/// A little-endian field of a record; zero past the end, which callers have excluded by the record's length.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// As [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
