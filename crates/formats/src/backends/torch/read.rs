//! The reader: which container a file is, and the archive it opens to.

use super::{ID, INFO, container, legacy, tar};
use crate::archive::Archive;
use crate::error::Result;
use crate::probe::{Confidence, Probe};
use crate::source::Source;
use crate::traits::{Deserializer, FormatInfo, ReadOptions};

/// Reads PyTorch files.
#[derive(Clone, Copy, Debug, Default)]
pub struct TorchReader;

impl Deserializer for TorchReader {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn sniff(&self, probe: &Probe<'_>) -> Confidence {
        if let Some(names) = probe.zip_names() {
            return container::sniff(names);
        }
        if legacy::sniff(probe.head()) || tar::sniff(probe.head()) {
            return Confidence::Certain;
        }
        Confidence::No
    }

    fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        let path = source.path().map(ToOwned::to_owned);
        let mut head = vec![0; source.len().min(1024) as usize];
        source.reader().read_at(0, &mut head)?;
        let opened = if legacy::sniff(&head) {
            legacy::open(source, &options.limits)
        } else if tar::sniff(&head) {
            tar::open(source, &options.limits)
        } else {
            container::open(source, &options.limits)
        };
        match opened {
            Ok(archive) => Ok(Box::new(archive)),
            Err(error) => {
                let error = error.with_format(ID);
                Err(match path {
                    Some(path) => error.with_path(path),
                    None => error,
                })
            }
        }
    }
}
