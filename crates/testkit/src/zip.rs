//! Zips with any lie in them that a test wants to tell.

/// A member, with what its two headers say of it. By default everything is true.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// The name in the central directory.
    pub name: String,
    /// The name in the local header, where that is another.
    pub local_name: Option<String>,
    /// What stands in the file: compressed, if `method` says so.
    pub stored: Vec<u8>,
    /// 0 stored, 8 deflated.
    pub method: u16,
    /// Flag bits of both headers.
    pub flags: u16,
    /// The checksum that is claimed; `None` is that of `stored`.
    pub crc32: Option<u32>,
    /// The length of the content that is claimed; `None` is that of `stored`.
    pub size: Option<u32>,
    /// The length in the file that is claimed.
    pub compressed: Option<u32>,
    /// The offset of the local header that is claimed.
    pub header: Option<u32>,
    /// The central directory's extra field.
    pub extra: Vec<u8>,
    /// The external attributes: the mode of a file of Unix in the upper half.
    pub attributes: u32,
}

impl Member {
    /// A stored member.
    pub fn new(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), stored: content.into(), ..Self::default() }
    }
}

/// CRC-32 as zips have it, by the definition.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

fn push(out: &mut Vec<u8>, fields: &[(u64, usize)]) {
    for &(value, bytes) in fields {
        out.extend_from_slice(&value.to_le_bytes()[..bytes]);
    }
}

/// The end record that [`build`] writes: entries, length and offset of the directory.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// How many entries the directory has.
    pub entries: u16,
    /// Its length in bytes.
    pub size: u32,
    /// Where it begins.
    pub offset: u32,
}

/// A zip of these members.
pub fn build(members: &[Member]) -> Vec<u8> {
    build_with(members, &[], |end| end)
}

/// A zip of these members, with bytes (zip64 records, say) before an end record that the caller may change.
///
/// `before_end` is put between the directory and the end record as it is.
pub fn build_with(members: &[Member], before_end: &[u8], end: impl FnOnce(End) -> End) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for m in members {
        let header = m.header.unwrap_or(out.len() as u32);
        let local_name = m.local_name.as_ref().unwrap_or(&m.name);
        let crc = m.crc32.unwrap_or_else(|| crc32(&m.stored));
        let len = m.stored.len() as u32;
        let (size, compressed) = (m.size.unwrap_or(len), m.compressed.unwrap_or(len));
        let common = [
            (u64::from(m.flags), 2),
            (u64::from(m.method), 2),
            (0, 4),
            (u64::from(crc), 4),
            (u64::from(compressed), 4),
            (u64::from(size), 4),
        ];
        push(&mut out, &[(0x0403_4b50, 4), (20, 2)]);
        push(&mut out, &common);
        push(&mut out, &[(local_name.len() as u64, 2), (0, 2)]);
        out.extend_from_slice(local_name.as_bytes());
        out.extend_from_slice(&m.stored);
        push(&mut directory, &[(0x0201_4b50, 4), (0x0314, 2), (20, 2)]);
        push(&mut directory, &common);
        push(&mut directory, &[(m.name.len() as u64, 2), (m.extra.len() as u64, 2), (0, 2), (0, 2), (0, 2)]);
        push(&mut directory, &[(u64::from(m.attributes), 4), (u64::from(header), 4)]);
        directory.extend_from_slice(m.name.as_bytes());
        directory.extend_from_slice(&m.extra);
    }
    let truth = End { entries: members.len() as u16, size: directory.len() as u32, offset: out.len() as u32 };
    let end = end(truth);
    out.extend_from_slice(&directory);
    out.extend_from_slice(before_end);
    push(&mut out, &[(0x0605_4b50, 4), (0, 4), (end.entries.into(), 2), (end.entries.into(), 2)]);
    push(&mut out, &[(end.size.into(), 4), (end.offset.into(), 4), (0, 2)]);
    out
}

/// A zip64 end record and its locator, which say what the caller wants.
pub fn zip64(record_at: u64, entries: u64, size: u64, offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, &[(0x0606_4b50, 4), (44, 8), (45, 2), (45, 2), (0, 4), (0, 4)]);
    push(&mut out, &[(entries, 8), (entries, 8), (size, 8), (offset, 8)]);
    push(&mut out, &[(0x0706_4b50, 4), (0, 4), (record_at, 8), (1, 4)]);
    out
}

/// The members of a torch file: a pickle, and storages by key.
pub fn torch(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<Member> {
    let mut members = vec![Member::new("archive/data.pkl", pickle)];
    members.extend(storages.iter().map(|(key, bytes)| Member::new(&format!("archive/data/{key}"), *bytes)));
    members.push(Member::new("archive/version", "3\n"));
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_zips() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
