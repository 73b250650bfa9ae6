//! Checksums of whole files in the pass that writes them.
//!
//! The write engine computes the CRC-32 of data segments and hands them to late segments of the same file. A late
//! segment of no bytes at the end joins them, with those of what is fixed, to the CRC-32 of the file. So every byte
//! is checksummed while it is in the processor's cache, and nothing is read twice.

use std::sync::{Arc, OnceLock};

use crc32fast::Hasher;
use weighbridge_formats::write::{Content, FilePlan};
use weighbridge_formats::{Error, ReadAt, Result};

/// The CRC-32 of a file, which is there once the file is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum(Arc<OnceLock<u32>>);

impl Sum {
    /// The checksum.
    ///
    /// # Errors
    /// `InvalidOptions` before the file is written.
    pub(crate) fn get(&self) -> Result<u32> {
        self.0.get().copied().ok_or_else(|| Error::invalid_options("the file has no checksum yet"))
    }
}

/// A part of a file, as its checksum is made.
enum Part {
    Known(Hasher),
    Data { segment: usize, len: u64 },
    Late { bytes: Arc<OnceLock<Hasher>> },
}

/// The same file, whose checksum is in the sum after it was written.
///
/// # Errors
/// As [`FilePlan::push_data`].
pub(crate) fn watched(plan: FilePlan<'_>) -> Result<(FilePlan<'_>, Sum)> {
    let mut out = FilePlan::new(plan.name.clone());
    let mut parts = Vec::new();
    for segment in plan.into_segments() {
        match segment.content {
            Content::Fixed(bytes) => {
                let mut hasher = Hasher::new();
                hasher.update(&bytes);
                parts.push(Part::Known(hasher));
                out.push_fixed(bytes)?;
            }
            Content::Data { data, label, .. } => {
                let len = data.len();
                parts.push(Part::Data { segment: out.push_data(data, label, true)?, len });
            }
            Content::Late(fill) => {
                let bytes = Arc::new(OnceLock::new());
                parts.push(Part::Late { bytes: bytes.clone() });
                out.push_late(
                    segment.len,
                    Box::new(move |digests| {
                        let made = fill(digests)?;
                        let mut hasher = Hasher::new();
                        hasher.update(&made);
                        let _ = bytes.set(hasher);
                        Ok(made)
                    }),
                )?;
            }
        }
    }
    let sum = Sum::default();
    let made = sum.clone();
    out.push_late(
        0,
        Box::new(move |digests| {
            let mut whole = Hasher::new();
            for part in &parts {
                match part {
                    Part::Known(hasher) => whole.combine(hasher),
                    Part::Data { segment, len } => {
                        whole.combine(&Hasher::new_with_initial_len(digests.crc32(*segment)?, *len));
                    }
                    // The engine fills late segments in their order, so this one is filled already.
                    Part::Late { bytes } => {
                        let late = bytes.get();
                        whole.combine(late.ok_or_else(|| {
                            Error::invalid_options("a late segment was filled out of order")
                        })?);
                    }
                }
            }
            let _ = made.0.set(whole.finalize());
            Ok(Vec::new())
        }),
    )?;
    Ok((out, sum))
}

/// The BLAKE3 hash of what a file will be, in hexadecimal.
///
/// # Errors
/// What reading the data says; `InvalidOptions` for a file with late segments, which has no content yet.
pub(crate) fn content_hash(plan: &FilePlan<'_>) -> Result<String> {
    const CHUNK: usize = 1 << 20;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    for segment in plan.segments() {
        match &segment.content {
            Content::Fixed(bytes) => _ = hasher.update(bytes),
            Content::Data { data, label, .. } => {
                if let Some(bytes) = data.as_slice() {
                    hasher.update(bytes);
                    continue;
                }
                buffer.resize(CHUNK, 0);
                let (mut at, len) = (0, data.len());
                while at < len {
                    let part = (len - at).min(CHUNK as u64);
                    let part = &mut buffer[..part as usize];
                    data.read_at(at, part).map_err(|e| e.with_tensor(&**label))?;
                    hasher.update(part);
                    at += part.len() as u64;
                }
            }
            Content::Late(_) => {
                return Err(Error::invalid_options(
                    "a file with late segments has no hash before it is written",
                ));
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::write::{ExecuteOptions, WritePlan, execute};
    use weighbridge_formats::{Data, MemoryArchive, Registry, Tensor, WriteOptions};

    #[test]
    fn the_sum_is_that_of_the_file_in_every_format() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
        let tensor = |name: &str, n: u64| {
            let data = Data::Borrowed(&bytes[..n as usize * 4]);
            Tensor::new(name, weighbridge_formats::DType::F32, [n].as_slice(), data).unwrap()
        };
        let archive =
            MemoryArchive::new([tensor("large", 700_000), tensor("none", 0), tensor("b", 3)]).unwrap();
        for (format, name) in [("safetensors", "a.safetensors"), ("torch", "a.pt")] {
            let mut options = WriteOptions::default();
            options.file_name = name.into();
            let mut plan = Registry::builtin().serializer(format).unwrap().plan(&archive, &options).unwrap();
            let hash = content_hash(&plan.files[0]);
            let (file, sum) = watched(plan.files.remove(0)).unwrap();
            assert!(sum.get().is_err());
            let plan = WritePlan { files: vec![file], notes: Vec::new() };
            execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
            let written = std::fs::read(folder.path().join(name)).unwrap();
            assert_eq!(sum.get().unwrap(), crc32fast::hash(&written), "{format}");
            if format == "safetensors" {
                assert_eq!(hash.unwrap(), blake3::hash(&written).to_hex().to_string());
            } else {
                assert!(hash.is_err(), "a zip has late segments");
            }
        }
    }
}
