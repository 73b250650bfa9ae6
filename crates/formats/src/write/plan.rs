//! The exact layout of the files to be, known before a byte is written.

use crate::archive::Note;
use crate::error::{Error, Result};
use crate::logical::Digest;
use crate::source::ReadAt;
use crate::tensor::Data;

/// The files of one write, which appear together or not at all.
#[derive(Default)]
pub struct WritePlan<'a> {
    /// The files, in the order in which they are put in place: an index that makes the others visible is last.
    pub files: Vec<FilePlan<'a>>,
    /// What is written otherwise than it was, and what is lost.
    pub notes: Vec<Note>,
}

/// One file: its segments, from the first byte to the last.
#[derive(Default)]
pub struct FilePlan<'a> {
    /// The name, without a folder.
    pub name: String,
    segments: Vec<Segment<'a>>,
    len: u64,
}

/// A run of bytes in a file to be.
pub struct Segment<'a> {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What it holds.
    pub content: Content<'a>,
}

/// What a segment holds.
pub enum Content<'a> {
    /// Bytes that are known.
    Fixed(Vec<u8>),
    /// A tensor's or storage's bytes.
    Data {
        /// The bytes.
        data: Data<'a>,
        /// Its name, for errors.
        label: std::sync::Arc<str>,
        /// Whether a late segment of the same file wants their CRC-32.
        crc32: bool,
        /// Whether a late segment of this or a later file wants their BLAKE3.
        blake3: bool,
    },
    /// Bytes that depend on the checksums of data segments, and are filled in after them.
    Late(Fill<'a>),
}

/// Makes the bytes of a late segment, exactly as many as planned.
pub type Fill<'a> = Box<dyn FnOnce(&Digests<'_>) -> Result<Vec<u8>> + Send + 'a>;

/// The checksums that late segments are made of.
pub struct Digests<'a> {
    /// Of the files before this one, and of this one.
    pub(super) files: &'a [Vec<Sums>],
}

/// The checksums of one segment.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) crc32: Option<u32>,
    pub(super) blake3: Option<Digest>,
}

impl Digests<'_> {
    /// The CRC-32 of the data segment with this number (see [`FilePlan::push_data`]).
    ///
    /// # Errors
    /// `InvalidOptions` if that segment was planned without one.
    pub fn crc32(&self, segment: usize) -> Result<u32> {
        let known = self.files.last().and_then(|f| f.get(segment)?.crc32);
        known.ok_or_else(|| Error::invalid_options(format!("segment {segment} was planned without a CRC-32")))
    }

    /// The BLAKE3 of a data segment of this file or one before it in the plan, by their numbers.
    ///
    /// # Errors
    /// `InvalidOptions` if there is no such segment yet, or it was planned without one.
    pub fn blake3(&self, file: usize, segment: usize) -> Result<Digest> {
        let known = self.files.get(file).and_then(|f| f.get(segment)?.blake3);
        known.ok_or_else(|| {
            Error::invalid_options(format!("segment {segment} of file {file} was planned without a BLAKE3"))
        })
    }
}

impl<'a> FilePlan<'a> {
    /// An empty file.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), segments: Vec::new(), len: 0 }
    }

    /// Adds a segment at the end; returns its number.
    fn push(&mut self, len: u64, content: Content<'a>) -> Result<usize> {
        let end = self.len.checked_add(len).filter(|&end| end <= i64::MAX as u64);
        let Some(end) = end else {
            return Err(Error::invalid_options(format!(
                "{:?} would be longer than any file can be",
                self.name
            )));
        };
        self.segments.push(Segment { offset: self.len, len, content });
        self.len = end;
        Ok(self.segments.len() - 1)
    }

    /// Adds bytes that are known.
    ///
    /// # Errors
    /// `InvalidOptions` if the file would pass 2⁶³ - 1 bytes; so for the other two.
    pub fn push_fixed(&mut self, bytes: Vec<u8>) -> Result<usize> {
        self.push(bytes.len() as u64, Content::Fixed(bytes))
    }

    /// Adds a tensor's or storage's bytes; returns the segment's number.
    pub fn push_data(
        &mut self,
        data: Data<'a>,
        label: impl Into<std::sync::Arc<str>>,
        crc32: bool,
    ) -> Result<usize> {
        self.push(data.len(), Content::Data { data, label: label.into(), crc32, blake3: false })
    }

    /// Adds bytes that depend on checksums.
    pub fn push_late(&mut self, len: u64, fill: Fill<'a>) -> Result<usize> {
        self.push(len, Content::Late(fill))
    }

    /// The length so far.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The segments, in order, without gaps.
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// The segments, to ask for more checksums of them.
    pub(crate) fn segments_mut(&mut self) -> &mut [Segment<'a>] {
        &mut self.segments
    }

    /// Holds the segments against the lengths that they were planned with: data that has become shorter or
    /// longer since would shift everything behind it.
    pub(super) fn check(&self) -> Result<()> {
        let mut at = 0;
        for segment in &self.segments {
            let len = match &segment.content {
                Content::Fixed(bytes) => bytes.len() as u64,
                Content::Data { data, .. } => data.len(),
                Content::Late(_) => segment.len,
            };
            if segment.offset != at || segment.len != len {
                let (name, planned) = (&self.name, segment.len);
                let what =
                    format!("{name:?}: a segment was planned with {planned} bytes at {at} and has {len}");
                return Err(Error::invalid_options(what).at_offset(segment.offset));
            }
            at += len;
        }
        if at == self.len {
            Ok(())
        } else {
            Err(Error::invalid_options("the plan is longer than its segments"))
        }
    }

    /// Takes the segments out.
    pub fn into_segments(self) -> Vec<Segment<'a>> {
        self.segments
    }
}

impl WritePlan<'_> {
    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |n, f| n.saturating_add(f.len()))
    }
}
