//! Whatever opens is written in every format, read again, and must be the same: tensors to the byte.

use crate::{digest, is_refusal, open, options};
use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{Archive, Registry, Source, ValuesPolicy, WriteOptions};

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok(archive) = open(None, bytes) else { return };
    if archive.tensors().len() > 200 {
        return;
    }
    // A model that is copied as it is may have a tensor that cannot be read, before and after.
    let readable = |i| archive.data(i).and_then(|d| digest(&d)).is_ok();
    if !(0..archive.tensors().len()).all(readable) {
        return;
    }
    let registry = Registry::builtin();
    for format in registry.formats().iter().filter(|f| f.reads() && f.writes()) {
        let writer = registry.serializer(format.info.id).expect("a writer");
        for values in [ValuesPolicy::Keep, ValuesPolicy::Drop] {
            let mut choices = WriteOptions::default();
            choices.file_name = format!("x.{}", format.info.extensions[0]);
            choices.values = values;
            let plan = match writer.plan(&*archive, &choices) {
                Ok(plan) => plan,
                Err(e) => {
                    assert!(is_refusal(e.kind()), "{e:?}");
                    continue;
                }
            };
            let folder = tempfile::tempdir().expect("a folder");
            let mut how = ExecuteOptions::default();
            how.fsync = false;
            how.threads = Some(1);
            let written = match execute(plan, folder.path(), &how) {
                Ok(written) => written,
                // A checksum that does not agree is met when the bytes are read.
                Err(e) => {
                    assert!(is_refusal(e.kind()), "{e:?}");
                    continue;
                }
            };
            // By its own reader: a pickle of torch's magic number and nothing else shows the content of a torch file.
            let read = Source::open(&written.files[0])
                .and_then(|source| registry.deserializer(format.info.id)?.open(source, &options()));
            let read =
                read.unwrap_or_else(|e| panic!("{} was written and is not read: {e:?}", format.info.id));
            compare(&*archive, &*read, format.info.id, values);
        }
    }
}

/// With the values dropped, tensors have the names that they had; with them kept, torch and pickle name them by their
/// paths, so only what they are is compared.
fn compare(a: &dyn Archive, b: &dyn Archive, format: &str, values: ValuesPolicy) {
    let describe = |archive: &dyn Archive| {
        let mut all: Vec<_> = archive
            .tensors()
            .iter()
            .enumerate()
            .map(|(i, info)| {
                let sum = archive.data(i).and_then(|d| digest(&d));
                let sum = sum.unwrap_or_else(|e| panic!("{format}: {e:?}"));
                let name = if values == ValuesPolicy::Drop { info.name() } else { "" };
                (name.to_owned(), info.dtype(), info.shape().to_vec(), sum)
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(describe(a), describe(b), "{format}");
}
