//! External data: elements in files that a model names. Such a name is the file's word, so it may lead nowhere but to
//! a regular file of the model's own folder.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sha1::{Digest, Sha1};

use crate::error::{Error, Result};
use crate::source::{FileSpan, ReadAt, Slice, Source, TRUNCATED, is_plain_relative};
use crate::tensor::Data;

/// The files that a model's external data are in, each opened once.
pub(super) struct Files {
    model: Source,
    files: HashMap<String, Arc<File>>,
}

/// The most files that the external data of one model may be in: each is open while the model is.
const FILES: usize = 4096;

/// One of them.
pub(super) struct File {
    source: Source,
    location: String,
    /// The SHA-1 that the model states, and whether the file has been held against it.
    checksum: Option<[u8; 20]>,
    checked: Mutex<bool>,
}

impl Files {
    pub(super) fn new(model: &Source) -> Self {
        Self { model: model.clone(), files: HashMap::new() }
    }

    /// The paths, in order.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            self.files.values().filter_map(|f| f.source.path().map(PathBuf::from)).collect();
        paths.sort();
        paths
    }

    /// A span of a file that the model names.
    pub(super) fn span(
        &mut self,
        location: &str,
        offset: u64,
        len: u64,
        checksum: Option<&str>,
    ) -> Result<External> {
        let checksum = checksum.map(|text| {
            digest_of(text).ok_or_else(|| {
                Error::malformed(format!("the checksum {text:?} of {location:?} is no SHA-1 in hexadecimal"))
            })
        });
        let checksum = checksum.transpose()?;
        let file = match self.files.get(location) {
            Some(file) if checksum.is_none() || file.checksum == checksum => file.clone(),
            Some(file) if file.checksum.is_some() => {
                let what = format!("two tensors state different checksums of {location:?}");
                return Err(Error::malformed(what));
            }
            known => {
                if known.is_none() && self.files.len() >= FILES {
                    return Err(Error::limit(format!("the external data are in more than {FILES} files")));
                }
                let source = match known {
                    Some(known) => known.source.clone(),
                    None => open(&self.model, location)?,
                };
                let file = Arc::new(File {
                    source,
                    location: location.to_owned(),
                    checksum,
                    checked: Mutex::new(false),
                });
                self.files.insert(location.to_owned(), file.clone());
                file
            }
        };
        if offset.checked_add(len).is_none_or(|end| end > file.source.len()) {
            let what =
                format!("{len} bytes at {offset} of {location:?} pass its end at {}", file.source.len());
            return Err(Error::malformed(what).with_hint(TRUNCATED));
        }
        let slice = file.source.slice(offset, len)?;
        Ok(External { file, slice })
    }
}

/// Opens a file that a model names.
fn open(model: &Source, location: &str) -> Result<Source> {
    let refuse = |why: &str| {
        Err(Error::unsafe_content(format!("the external data's location {location:?} {why}"))
            .with_hint("external data must lie in the model's own folder; do not trust this file"))
    };
    if location.starts_with("*/") {
        return refuse("names memory of the process that wrote it");
    }
    if !is_plain_relative(location) {
        return refuse("is no plain relative name");
    }
    let source = model.sibling(location)?;
    // Another name of the file may be anywhere, and a program that writes the model would write there too.
    #[cfg(unix)]
    if let Some(span) = source.reader().span(0, 0) {
        use std::os::unix::fs::MetadataExt;
        let meta = span.file.metadata().map_err(|e| Error::io("looking at the external data", e))?;
        if meta.nlink() > 1 {
            return Err(Error::unsafe_content(format!(
                "the external data's location {location:?} is a hard link: the file has {} names",
                meta.nlink()
            ))
            .with_hint("if you trust it, copy the model with its data to a folder of its own"));
        }
    }
    Ok(source)
}

/// Forty hexadecimal digits.
fn digest_of(text: &str) -> Option<[u8; 20]> {
    let text = text.as_bytes();
    if text.len() != 40 {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = [0; 20];
    for (byte, pair) in out.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

impl File {
    /// Holds the file against its checksum, once, before any byte of it is used.
    fn check(&self) -> Result<()> {
        let Some(wanted) = self.checksum else { return Ok(()) };
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if *checked {
            return Ok(());
        }
        let (mut hasher, mut at, mut buffer) = (Sha1::new(), 0, vec![0; 1 << 20]);
        while at < self.source.len() {
            let len = (self.source.len() - at).min(buffer.len() as u64) as usize;
            self.source.reader().read_at(at, &mut buffer[..len])?;
            hasher.update(&buffer[..len]);
            at += len as u64;
        }
        let found: [u8; 20] = hasher.finalize().into();
        if found != wanted {
            let hex = |d: [u8; 20]| d.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let what = format!(
                "the SHA-1 of {:?} is {}, and the model states {}",
                self.location,
                hex(found),
                hex(wanted)
            );
            return Err(Error::mismatch(what));
        }
        *checked = true;
        Ok(())
    }
}

/// Bytes of a file beside the model.
#[derive(Clone)]
pub(super) struct External {
    file: Arc<File>,
    slice: Slice,
}

impl External {
    pub(super) fn location(&self) -> &str {
        &self.file.location
    }

    pub(super) fn has_checksum(&self) -> bool {
        self.file.checksum.is_some()
    }

    pub(super) fn data(&self) -> Data<'static> {
        if self.has_checksum() { Data::lazy(self.clone()) } else { Data::lazy(self.slice.clone()) }
    }
}

impl ReadAt for External {
    fn len(&self) -> u64 {
        self.slice.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.check()?;
        self.slice.read_at(offset, buf)
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        // What does not agree is told by reading.
        self.file.check().ok()?;
        self.slice.span(offset, len)
    }

    fn finish(&self) -> Result<()> {
        self.file.check()
    }
}
