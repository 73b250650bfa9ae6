//! Every golden file is read as its dump says: tensors by name, with dtype, shape, bytes, and what they share.
//!
//! The dumps are written by the real tools, from what these read; see `tests/golden/dump.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use weighbridge_formats::{Archive, ReadOptions, Registry};

/// The files below `tests/golden/<format>` that have a dump beside them.
fn golden(format: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(format);
    let mut pending = vec![root];
    let mut files = BTreeSet::new();
    while let Some(folder) = pending.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    let found: Vec<PathBuf> = files.iter().filter(|path| files.contains(&dump_of(path))).cloned().collect();
    assert!(!found.is_empty(), "tests/golden/{format} holds no file with a dump");
    found
}

fn dump_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// What differs between a dump and what was read.
fn differences(archive: &dyn Archive, dump: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    let names: BTreeSet<&str> = archive.tensors().iter().map(|t| t.name()).collect();
    if names.len() != archive.tensors().len() {
        found.push("two tensors have one name".into());
    }
    found.extend(dump.keys().filter(|n| !names.contains(n.as_str())).map(|n| format!("{n:?} is missing")));
    for (at, tensor) in archive.tensors().iter().enumerate() {
        let name = tensor.name();
        let Some(want) = dump.get(name) else {
            found.push(format!("{name:?} is too many"));
            continue;
        };
        if tensor.dtype().name() != want["dtype"] {
            found.push(format!("{name}: dtype {} for {}", tensor.dtype().name(), want["dtype"]));
        }
        if Value::from(tensor.shape()) != want["shape"] {
            found.push(format!("{name}: shape {:?} for {}", tensor.shape(), want["shape"]));
        }
        let data = archive.data(at).and_then(|data| data.read_all());
        match data {
            Ok(bytes) if want["meta"] != true => {
                let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                if want["sha256"] != digest {
                    let start: String = bytes.iter().take(64).map(|b| format!("{b:02x}")).collect();
                    found.push(format!("{name}: bytes {start}… for {}", want["hex"]));
                }
            }
            Ok(_) => found.push(format!("{name}: a tensor on the meta device has bytes")),
            Err(_) if want["meta"] == true => {}
            Err(error) => found.push(format!("{name}: {error}")),
        }
        if want["requires_grad"] == true && !tensor.requires_grad() {
            found.push(format!("{name}: requires_grad is gone"));
        }
    }
    found
}

/// The groups of tensors that share a storage, as the dump numbers them and as they were read.
fn sharing<'a>(archive: &'a dyn Archive, dump: &'a Map<String, Value>) -> [BTreeSet<BTreeSet<&'a str>>; 2] {
    let mut want: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for (name, entry) in dump {
        if let Some(number) = entry["storage"].as_u64() {
            want.entry(number).or_default().insert(name);
        }
    }
    let mut read: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for tensor in archive.tensors() {
        if let Some(view) = tensor.view() {
            read.entry(u64::from(view.storage)).or_default().insert(tensor.name());
        }
    }
    [want, read].map(|groups| groups.into_values().filter(|names| names.len() > 1).collect())
}

/// Reads every golden file of a format; returns all that differs.
fn check(format: &str) -> Vec<String> {
    let registry = Registry::builtin();
    let mut faults = Vec::new();
    let mut tensors = 0;
    for path in golden(format) {
        let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dump: Map<String, Value> =
            serde_json::from_slice(&std::fs::read(dump_of(&path)).unwrap()).unwrap();
        match registry.open_path(&path, &ReadOptions::default()) {
            Ok(archive) => {
                if archive.format() != format {
                    faults.push(format!("{shown}: read as {}", archive.format()));
                }
                tensors += archive.tensors().len();
                faults.extend(differences(&*archive, &dump).into_iter().map(|d| format!("{shown}: {d}")));
                let [want, read] = sharing(&*archive, &dump);
                if want != read {
                    faults.push(format!("{shown}: shared storages {read:?} for {want:?}"));
                }
            }
            Err(error) => faults.push(format!("{shown}: {error}")),
        }
    }
    if tensors == 0 && format != "pickle" {
        faults.push("no tensor was read".into());
    }
    faults
}

/// Every format that is compiled in and read has golden files; a new one is checked without a line here.
#[test]
fn golden_files_are_read_as_the_real_tools_read_them() {
    let registry = Registry::builtin();
    let formats: Vec<&str> =
        registry.formats().iter().filter(|f| f.compiled && f.reads()).map(|f| f.info.id).collect();
    assert!(!formats.is_empty());
    let mut faults = Vec::new();
    for format in formats {
        faults.extend(check(format).into_iter().map(|fault| format!("{format}: {fault}")));
    }
    assert!(faults.is_empty(), "{} differences\n{}", faults.len(), faults.join("\n"));
}

/// The check itself finds what is wrong.
#[test]
fn a_wrong_dump_is_told() {
    let path = golden("safetensors").into_iter().find(|p| p.ends_with("shapes.safetensors")).unwrap();
    let archive = Registry::builtin().open_path(&path, &ReadOptions::default()).unwrap();
    let right: Map<String, Value> = serde_json::from_slice(&std::fs::read(dump_of(&path)).unwrap()).unwrap();
    assert_eq!(differences(&*archive, &right), Vec::<String>::new());
    for (key, wrong) in
        [("dtype", Value::from("F16")), ("shape", Value::from(vec![7])), ("sha256", Value::from("00"))]
    {
        let mut dump = right.clone();
        dump["scalar"][key] = wrong;
        assert_eq!(differences(&*archive, &dump).len(), 1, "{key}");
    }
    let mut dump = right.clone();
    dump.remove("scalar");
    dump.insert("other".into(), right["scalar"].clone());
    assert_eq!(differences(&*archive, &dump), ["\"other\" is missing", "\"scalar\" is too many"]);
}
