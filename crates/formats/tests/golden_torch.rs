//! Files that torch wrote, each against the dump of what torch reads from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use weighbridge_formats::{Archive, Deserializer, ReadOptions, Source, backends::torch::TorchReader};

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
                wrong.push(format!("{:?} reads {} and not {}", info.name(), hex(&bytes), want["hex"]))
            }
            Err(e) => wrong.push(format!("{:?} cannot be read: {e}", info.name())),
        }
    }
    wrong
}

#[test]
fn every_golden_file_reads_as_torch_reads_it() {
    let (mut read, mut wrong) = (0, Vec::new());
    let mut files: Vec<_> = std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for path in files {
        let dump = PathBuf::from(format!("{}.json", path.display()));
        if !dump.is_file() {
            continue;
        }
        let dump = serde_json::from_slice(&std::fs::read(dump).unwrap()).unwrap();
        match TorchReader.open(Source::open(&path).unwrap(), &ReadOptions::default()) {
            Ok(archive) => {
                let found = compare(&*archive, &dump);
                wrong.extend(
                    found.into_iter().map(|w| format!("{}: {w}", path.file_name().unwrap().display())),
                );
            }
            Err(e) => wrong.push(format!("{e:?}")),
        }
        read += 1;
    }
    assert!(read >= 40, "only {read} golden files were found");
    assert!(wrong.is_empty(), "of {read} files:\n{}", wrong.join("\n"));
}
