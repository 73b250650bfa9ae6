//! Reading: the header is checked when a file is opened; a tensor's bytes are a span of the file.

use std::path::{Path, PathBuf};

use super::header::Header;
use super::{INFO, MAX_HEADER};
use crate::archive::{Archive, Metadata, Note, no_such_tensor};
use crate::error::Result;
use crate::kept_values;
use crate::probe::{Confidence, Probe};
use crate::source::Source;
use crate::tensor::{Data, TensorInfo};
use crate::traits::{Deserializer, FormatInfo, ReadOptions};
use crate::value::Values;

/// Reads safetensors files.
#[derive(Clone, Copy, Debug, Default)]
pub struct SafetensorsReader;

impl Deserializer for SafetensorsReader {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn sniff(&self, probe: &Probe<'_>) -> Confidence {
        let head = probe.head();
        let header_len = head.first_chunk().map(|n| u64::from_le_bytes(*n));
        let plausible = header_len.is_some_and(|n| (2..=MAX_HEADER).contains(&n));
        // The header is an object whose first key follows, or an empty one.
        let object = head.get(8) == Some(&b'{') && matches!(head.get(9), Some(b'"' | b'}' | b' ' | b'\n'));
        if plausible && object {
            Confidence::Certain
        } else if probe.has_extension(INFO.extensions) {
            Confidence::Name
        } else {
            Confidence::No
        }
    }

    fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        match SafetensorsArchive::open(&source, options) {
            Ok(archive) => Ok(Box::new(archive)),
            Err(e) => {
                let e = e.with_format(INFO.id);
                Err(match source.path() {
                    Some(path) => e.with_path(path),
                    None => e,
                })
            }
        }
    }
}

/// An opened file.
struct SafetensorsArchive {
    source: Source,
    header: Header,
    metadata: Metadata,
    values: Option<Values>,
    notes: Vec<Note>,
}

impl SafetensorsArchive {
    fn open(source: &Source, options: &ReadOptions) -> Result<Self> {
        let mut header = Header::read(source, &options.limits)?;
        let mut metadata = std::mem::take(&mut header.metadata);
        let mut notes = Vec::new();
        let misaligned = header.tensors.iter().zip(&header.offsets).filter(|(info, offset)| {
            info.dtype().size().is_some_and(|size| !(header.data_at + **offset).is_multiple_of(size))
        });
        let misaligned = misaligned.count();
        if misaligned > 0 {
            notes.push(Note::info(format!(
                "{misaligned} tensors do not begin at a multiple of their element's size; a program that maps \
                 the file must copy them"
            )));
        }
        let bounds = (&options.limits, &mut header.account);
        let values = kept_values::from_text(&header.tensors, &mut metadata, bounds, &mut notes);
        Ok(Self { source: source.clone(), header, metadata, values, notes })
    }
}

impl Archive for SafetensorsArchive {
    fn format(&self) -> &'static str {
        INFO.id
    }

    fn variety(&self) -> String {
        format!("header of {} bytes", self.header.data_at - 8)
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let (Some(info), Some(offset)) = (self.header.tensors.get(index), self.header.offsets.get(index))
        else {
            return Err(no_such_tensor(index));
        };
        Ok(Data::lazy(self.source.slice(self.header.data_at + offset, info.bytes())?))
    }

    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.path().map(Path::to_owned).into_iter().collect()
    }
}
