//! torch, safetensors and Python's zipfile read what is written from every golden file.

use std::path::Path;

use serde_json::json;
use weighbridge::write::{ExecuteOptions, execute};
use weighbridge::{ErrorKind, ReadOptions, Registry, Source, ValuesPolicy, WriteOptions};
use weighbridge_tests::{faults, golden, judge, workspace};

/// What `weights_only` refuses in the original too: ranges and slices.
const TRUSTED: &[&str] = &["values.pt"];
/// The file has no data for some of its tensors.
const META: &[&str] = &["meta.pt"];
/// They have elements that safetensors cannot hold: complex numbers of f64 or f16, and bare bits.
const NOT_SAFETENSORS: &[&str] = &[
    "big_endian.pt",
    "big_endian_legacy.pt",
    "dtypes.pt",
    "legacy_dtypes.pt",
    "legacy_untyped.pt",
    "opaque.pt",
];

fn convert(from: &Path, format: &str, to: &Path) -> weighbridge::Result<()> {
    let registry = Registry::builtin();
    let archive = registry.open(Source::open(from)?, &ReadOptions::default())?;
    let mut options = WriteOptions::default();
    options.file_name = to.file_name().unwrap().to_str().unwrap().to_owned();
    let writer = registry.serializer(format)?;
    let plan = writer.plan(&*archive, &options).or_else(|_| {
        options.values = ValuesPolicy::Drop;
        writer.plan(&*archive, &options)
    })?;
    let mut how = ExecuteOptions::default();
    how.fsync = false;
    execute(plan, to.parent().unwrap(), &how).map(drop)
}

fn convert_and_judge(format: &str, extension: &str, refused: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut tasks, mut failed) = (Vec::new(), Vec::new());
    for (file, dump) in golden("torch") {
        let name = file.file_name().unwrap().to_str().unwrap();
        if META.contains(&name) {
            continue;
        }
        let out = folder.path().join(format!("{name}.{extension}"));
        match convert(&file, format, &out) {
            Ok(()) => tasks.push(json!({"dump": dump, "files": [out], "trusted": TRUSTED.contains(&name)})),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::InvalidOptions, "{name}: {e}");
                failed.push(name.to_owned());
            }
        }
    }
    assert_eq!(failed, refused);
    let lines = judge(&tasks);
    assert_eq!(lines.len(), tasks.len());
    let found = faults(&lines);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn torch_reads_what_is_written_as_torch() {
    convert_and_judge("torch", "bin", &[]);
}

#[test]
fn safetensors_reads_what_is_written_as_safetensors() {
    convert_and_judge("safetensors", "safetensors", NOT_SAFETENSORS);
}

#[test]
fn shards_are_read_through_their_index_and_keep_the_limit() {
    let registry = Registry::builtin();
    let source = workspace().join("tests/golden/torch/state_dict.pt");
    let dump = workspace().join("tests/golden/torch/state_dict.pt.json");
    let folder = tempfile::tempdir().unwrap();
    let mut tasks = Vec::new();
    for (format, file, limit) in
        [("torch", "pytorch_model.bin", 6000), ("safetensors", "model.safetensors", 900)]
    {
        let archive = registry.open_path(&source, &ReadOptions::default()).unwrap();
        let mut options = WriteOptions::default();
        options.file_name = file.to_owned();
        options.max_shard_size = Some(limit);
        options.values = ValuesPolicy::Drop;
        let plan = registry.serializer(format).unwrap().plan(&*archive, &options).unwrap();
        assert!(plan.files.len() > 2, "{format}: {} files", plan.files.len());
        for file in plan.files.iter().filter(|f| !f.name.ends_with(".json")) {
            assert!(file.len() <= limit, "{} has {} bytes", file.name, file.len());
        }
        execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
        let index = folder.path().join(format!("{file}.index.json"));
        let again = registry.open_path(&index, &ReadOptions::default()).unwrap();
        assert_eq!(again.tensors().len(), archive.tensors().len());
        tasks.push(json!({"dump": dump, "files": [index]}));
    }
    let lines = judge(&tasks);
    assert_eq!(lines.len(), 2);
    assert_eq!(faults(&lines), [""; 0]);
}
