//! Files that torch wrote, each against the dump of what torch reads from it.
#![cfg(feature = "torch")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use weighbridge_formats::backends::torch::{TorchReader, TorchWriter};
use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{
    Archive, Deserializer, ReadOptions, Serializer, Source, ValuesPolicy, WriteOptions,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/torch")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What is wrong with an archive, given the dump of what it must hold.
fn compare(archive: &dyn Archive, dump: &serde_json::Value) -> Vec<String> {
    let (mut wrong, mut storages) = (Vec::new(), HashMap::new());
    let dump = dump.as_object().expect("a dump is an object");
    for name in dump.keys().filter(|k| archive.position(k).is_none()) {
        wrong.push(format!("{name:?} is missing"));
    }
    for (i, info) in archive.tensors().iter().enumerate() {
        let Some(want) = dump.get(info.name()) else {
            wrong.push(format!("{:?} ({}, {:?}) is not expected", info.name(), info.dtype(), info.shape()));
            continue;
        };
        let shape: Vec<u64> = want["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        if want["dtype"].as_str() != Some(info.dtype().name()) || shape != info.shape() {
            wrong.push(format!(
                "{:?} is {} {:?}, not {} {shape:?}",
                info.name(),
                info.dtype(),
                info.shape(),
                want["dtype"]
            ));
            continue;
        }
        if want["requires_grad"].as_bool().unwrap_or(false) != info.requires_grad() {
            wrong.push(format!("{:?}: requires_grad is {}", info.name(), info.requires_grad()));
        }
        if let Some(shared) = want["storage"].as_u64() {
            // A lazily conjugated tensor is no plain view: it has none here.
            let ours = info.view().map(|v| v.storage);
            if ours.is_some() && *storages.entry(shared).or_insert(ours) != ours {
                wrong.push(format!("{:?} does not share the storage that it should", info.name()));
            }
        }
        if want["meta"] == true {
            let refused = archive.data(i).is_err_and(|e| e.message().contains("meta"));
            wrong.extend((!refused).then(|| format!("{:?} has no data, and gave some", info.name())));
            continue;
        }
        match archive.data(i).and_then(|d| d.read_all()) {
            Ok(bytes) if want["sha256"].as_str() == Some(&hex(&Sha256::digest(&bytes))) => {}
            Ok(bytes) => {
                wrong.push(format!("{:?} reads {} and not {}", info.name(), hex(&bytes), want["hex"]));
            }
            Err(e) => wrong.push(format!("{:?} cannot be read: {e}", info.name())),
        }
    }
    wrong
}

/// The golden files with their dumps.
fn files() -> Vec<(PathBuf, serde_json::Value)> {
    let mut files: Vec<_> = std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let with_dump = files.into_iter().filter_map(|path| {
        let dump = std::fs::read(format!("{}.json", path.display())).ok()?;
        Some((path, serde_json::from_slice(&dump).unwrap()))
    });
    let found: Vec<_> = with_dump.collect();
    assert!(found.len() >= 60, "only {} golden files were found", found.len());
    found
}

fn open(path: &Path) -> weighbridge_formats::Result<Box<dyn Archive>> {
    TorchReader.open(Source::open(path)?, &ReadOptions::default())
}

#[test]
fn every_golden_file_reads_as_torch_reads_it() {
    let mut wrong = Vec::new();
    for (path, dump) in files() {
        let name = path.file_name().unwrap().display();
        match open(&path) {
            Ok(archive) => {
                wrong.extend(compare(&*archive, &dump).into_iter().map(|w| format!("{name}: {w}")));
            }
            Err(e) => wrong.push(format!("{e:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files whose objects no `torch.load(weights_only=True)` would build: they are written as flat tensors.
const FLATTENED: &[&str] = &[
    "legacy_module_custom.pt",
    "module_custom.pt",
    "module_sequential.pt",
    "scripted.pt",
    "scripted_nested.pt",
    "subclass.pt",
    "wrapper.pt",
];

#[test]
fn what_is_written_reads_as_the_original() {
    let (mut wrong, mut flattened) = (Vec::new(), Vec::new());
    let folder = tempfile::tempdir().unwrap();
    for (path, dump) in files() {
        let name = path.file_name().unwrap().display().to_string();
        if dump.as_object().unwrap().values().any(|t| t["meta"] == true) {
            let archive = open(&path).unwrap();
            let refused = TorchWriter.plan(&*archive, &WriteOptions::default());
            assert!(refused.is_err_and(|e| e.hint().is_some_and(|h| h.contains("--drop"))), "{name}");
            continue;
        }
        let archive = open(&path).unwrap();
        let mut options = WriteOptions::default();
        options.file_name = format!("{name}.bin");
        let plan = TorchWriter.plan(&*archive, &options).or_else(|e| {
            flattened.push(name.clone());
            assert!(e.hint().is_some_and(|h| h.contains("--values drop")), "{e:?}");
            options.values = ValuesPolicy::Drop;
            TorchWriter.plan(&*archive, &options)
        });
        let plan = plan.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        execute(plan, folder.path(), &ExecuteOptions::default()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        match open(&folder.path().join(&options.file_name)) {
            // Here the signs that torch flips on use are flipped in what is stored, so a view becomes a copy.
            Ok(written) if name == "lazy_bits.pt" => {
                let mut own = dump.clone();
                own.as_object_mut()
                    .unwrap()
                    .values_mut()
                    .for_each(|t| drop(t.as_object_mut().unwrap().remove("storage")));
                wrong.extend(compare(&*written, &own));
            }
            Ok(written) => {
                wrong.extend(compare(&*written, &dump).into_iter().map(|w| format!("{name}: {w}")));
                let bytes = |a: &dyn Archive| a.storages().iter().map(|s| s.bytes).sum::<u64>();
                if written.storages().len() > archive.storages().len() {
                    wrong.push(format!("{name}: a storage was stored twice ({} bytes)", bytes(&*written)));
                }
            }
            Err(e) => wrong.push(format!("{e:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(flattened, FLATTENED);
}
