//! A bounded look at an input: enough for every format to say whether it is its own.

use std::path::Path;
use std::sync::OnceLock;

use crate::source::Source;

/// How sure a reader is that an input is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It is not.
    No,
    /// Only the name speaks for it.
    Name,
    /// The content fits, and would fit other formats too.
    Likely,
    /// A magic number or structure that no other format has.
    Certain,
}

/// The head and the tail of an input, and the names in it if it is a zip.
pub struct Probe<'a> {
    source: &'a Source,
    head: Vec<u8>,
    zip: OnceLock<Option<Vec<String>>>,
}

/// How much of the head is shown.
const HEAD: u64 = 4096;
/// How much of a zip's end is searched for its directory, comment included.
const TAIL: u64 = 66_000;
/// How much of a zip's directory is read for names.
const DIRECTORY: u64 = 128 << 10;

impl<'a> Probe<'a> {
    /// Reads the head. An input that cannot be read shows an empty one; opening it will say why.
    pub fn new(source: &'a Source) -> Self {
        let mut head = vec![0; source.len().min(HEAD) as usize];
        if source.reader().read_at(0, &mut head).is_err() {
            head.clear();
        }
        Self { source, head, zip: OnceLock::new() }
    }

    /// The first bytes, at most 4096.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The input, for a look that a bounded decoder takes behind the head.
    pub(crate) fn source(&self) -> &Source {
        self.source
    }

    /// The length of the input in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.source.len()
    }

    /// The path, if the input has one.
    pub fn path(&self) -> Option<&Path> {
        self.source.path()
    }

    /// The file's name in lower case, empty without a path.
    pub fn file_name(&self) -> String {
        let name = self.path().and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().to_lowercase()
    }

    /// Whether the name ends in one of these extensions.
    pub fn has_extension(&self, extensions: &[&str]) -> bool {
        let name = self.file_name();
        extensions.iter().any(|e| name.strip_suffix(e).is_some_and(|rest| rest.ends_with('.')))
    }

    /// The first member names of a zip, by its central directory; `None` if the input is no zip. At most some
    /// hundred names: those in the first 128 KiB of the directory.
    pub fn zip_names(&self) -> Option<&[String]> {
        self.zip.get_or_init(|| self.read_zip_names()).as_deref()
    }

    fn read_zip_names(&self) -> Option<Vec<String>> {
        if !self.head.starts_with(b"PK\x03\x04") && !self.head.starts_with(b"PK\x05\x06") {
            return None;
        }
        let len = self.len();
        let mut tail = vec![0; len.min(TAIL) as usize];
        let tail_at = len - tail.len() as u64;
        self.source.reader().read_at(tail_at, &mut tail).ok()?;
        let end = (0..tail.len().checked_sub(21)?).rev().find(|&i| tail[i..].starts_with(b"PK\x05\x06"))?;
        let mut directory_at = u64::from(u32_at(&tail, end + 16)?);
        if directory_at == u64::from(u32::MAX) {
            let locator = end.checked_sub(20).filter(|&l| tail[l..].starts_with(b"PK\x06\x07"))?;
            let mut record = [0; 56];
            self.source.reader().read_at(u64_at(&tail, locator + 8)?, &mut record).ok()?;
            directory_at = u64_at(&record, 48)?;
        }
        let mut directory = vec![0; len.checked_sub(directory_at)?.min(DIRECTORY) as usize];
        self.source.reader().read_at(directory_at, &mut directory).ok()?;
        let (mut names, mut rest) = (Vec::new(), &directory[..]);
        while rest.starts_with(b"PK\x01\x02") {
            let field = |at| Some(usize::from(u16::from_le_bytes(rest.get(at..at + 2)?.try_into().ok()?)));
            let (Some(name), Some(extra), Some(comment)) = (field(28), field(30), field(32)) else { break };
            let Some(bytes) = rest.get(46..46 + name) else { break };
            names.push(String::from_utf8_lossy(bytes).into_owned());
            let Some(next) = rest.get(46 + name + extra + comment..) else { break };
            rest = next;
        }
        Some(names)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
