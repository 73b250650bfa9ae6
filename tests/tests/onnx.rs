//! The `onnx` package reads what is written as ONNX: its own conformance models, rewritten in several ways, the golden
//! files, and models that got other weights.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weighbridge::write::{ExecuteOptions, execute};
use weighbridge::{Archive, ConvertOptions, DType, MemoryArchive, Registry, Source, WriteOptions};
use weighbridge_formats::backends::onnx::{plan_model, read_model};
use weighbridge_testkit::archives::tensor;
use weighbridge_testkit::random::Random;
use weighbridge_tests::{faults, lines_of, workspace};

/// The models that the package onnx 1.16.0 ships: nodes alone, converted PyTorch modules, and light versions of known
/// networks.
fn models() -> Vec<PathBuf> {
    let root = workspace().join("target/fixtures/onnx");
    assert!(root.is_dir(), "{} is missing: run `cargo xtask setup`", root.display());
    let (mut pending, mut found) = (vec![root], Vec::new());
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() >= 1400, "{} models", found.len());
    found
}

fn quick() -> ExecuteOptions<'static> {
    let mut how = ExecuteOptions::default();
    how.fsync = false;
    how
}

/// Judges pairs; returns how many of the originals the checker accepts.
fn judged(mode: &str, tasks: &[Value]) -> usize {
    let lines = lines_of("onnx_judge.py", mode, tasks);
    assert_eq!(lines.len(), tasks.len());
    let found = faults(&lines);
    assert!(found.is_empty(), "{} of {}\n{}", found.len(), tasks.len(), found.join("\n"));
    lines.iter().filter(|l| l["checked"] == true).count()
}

/// Rewrites each model by a function into a folder of its own.
fn rewritten(models: &[PathBuf], folder: &Path, rewrite: impl Fn(&Path, &Path)) -> Vec<Value> {
    let one = |(i, model): (usize, &PathBuf)| {
        let out = folder.join(i.to_string());
        std::fs::create_dir(&out).unwrap();
        let out = out.join("m.onnx");
        rewrite(model, &out);
        json!({"a": model, "b": out})
    };
    models.iter().enumerate().map(one).collect()
}

#[test]
fn every_conformance_model_is_written_as_it_was() {
    let (models, folder) = (models(), tempfile::tempdir().unwrap());
    let mut options = ConvertOptions::default();
    options.fsync = false;
    let tasks = rewritten(&models, folder.path(), |from, to| {
        let report = weighbridge::convert_with(from, to, &options).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((report.source_format, report.target_format), ("onnx", "onnx"));
        assert!(std::fs::read(from).unwrap() == std::fs::read(to).unwrap(), "{}", from.display());
    });
    let accepted = judged("same", &tasks);
    assert!(accepted > 1300, "the checker accepts {accepted} of the originals");
}

/// Through the message types: the model is decoded without its tensors, encoded, and the tensors streamed into it.
#[test]
fn every_conformance_model_is_put_together_from_messages_and_tensors() {
    let (models, folder) = (models(), tempfile::tempdir().unwrap());
    let tasks = rewritten(&models, folder.path(), |from, to| {
        let source = Source::open(from).unwrap();
        let (model, weights) = read_model(&source, &Default::default()).unwrap_or_else(|e| panic!("{e:?}"));
        let mut options = WriteOptions::default();
        options.file_name = "m.onnx".into();
        let plan = plan_model(&model, &*weights, &options).unwrap_or_else(|e| panic!("{e:?}"));
        execute(plan, to.parent().unwrap(), &quick()).unwrap();
    });
    assert!(judged("apart", &tasks) > 1300);
}

/// The initializers moved into external data, and back into the model.
#[test]
fn tensors_move_out_and_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let (mut moved, mut back, mut beside) = (Vec::new(), Vec::new(), 0);
    let large = |a: &dyn Archive| a.tensors().iter().any(|t| t.bytes() >= 1024);
    for (i, model) in models().into_iter().enumerate() {
        let archive = registry.open_path(&model, &Default::default()).unwrap();
        if !large(&*archive) {
            continue;
        }
        let write = |archive: &dyn Archive, name: &str, external: bool| {
            let mut options = WriteOptions::default();
            options.file_name = format!("{i}.{name}.onnx");
            options.external_data = Some(external);
            let plan = registry.serializer("onnx").unwrap().plan(archive, &options).unwrap();
            execute(plan, folder.path(), &quick()).unwrap();
            folder.path().join(&options.file_name)
        };
        let out = write(&*archive, "out", true);
        beside += usize::from(folder.path().join(format!("{i}.out.onnx.data")).is_file());
        let again = write(&*registry.open_path(&out, &Default::default()).unwrap(), "in", false);
        moved.push(json!({"a": model, "b": out}));
        back.push(json!({"a": model, "b": again}));
    }
    assert!(moved.len() >= 4 && beside == moved.len(), "{beside} of {}", moved.len());
    judged("apart", &moved);
    judged("apart", &back);
}

/// Tensors that are mapped at pages, ones that are not, and ones that stay in the model: the same inside and beside.
#[test]
fn external_data_are_what_would_be_inside() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, mut random) = (Registry::builtin(), Random::new(1));
    let tensors = [
        tensor("small", DType::F32, &[10], &mut random),
        tensor("odd", DType::I4, &[3, 1333], &mut random),
        tensor("half", DType::F16, &[70_001], &mut random),
        tensor("bits", DType::U2, &[4097], &mut random),
        tensor("wide", DType::F32, &[300, 300], &mut random),
        tensor("narrow", DType::F8E4M3, &[2048], &mut random),
    ];
    let archive = MemoryArchive::new(tensors).unwrap();
    let write = |name: &str, external: bool| {
        let mut options = WriteOptions::default();
        options.file_name = format!("{name}.onnx");
        options.external_data = Some(external);
        let plan = registry.serializer("onnx").unwrap().plan(&archive, &options).unwrap();
        execute(plan, folder.path(), &quick()).unwrap();
        folder.path().join(&options.file_name)
    };
    let (inside, beside) = (write("inside", false), write("beside", true));
    assert!(!folder.path().join("inside.onnx.data").exists());
    assert!(folder.path().join("beside.onnx.data").metadata().unwrap().len() > 500_000);
    assert_eq!(judged("apart", &[json!({"a": inside, "b": beside})]), 1, "the checker accepts both");
}

#[test]
fn golden_files_are_read_back_by_the_package() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let mut tasks = Vec::new();
    for name in ["raw", "typed", "unpacked", "shapes", "strings", "graph", "sparse"] {
        let file = workspace().join("tests/golden/onnx").join(format!("{name}.onnx"));
        let archive = registry.open_path(&file, &Default::default()).unwrap();
        // As tensors alone: the way that any other format's are written.
        let tensors = archive
            .tensors()
            .iter()
            .enumerate()
            .map(|(i, t)| weighbridge::Tensor { info: t.clone(), data: archive.data(i).unwrap() });
        let plain = weighbridge::MemoryArchive::new(tensors).unwrap();
        for external in [false, true] {
            let mut options = WriteOptions::default();
            options.file_name = format!("{name}.{external}.onnx");
            options.external_data = Some(external);
            let plan = registry.serializer("onnx").unwrap().plan(&plain, &options).unwrap();
            execute(plan, folder.path(), &quick()).unwrap();
            let dump = format!("{}.json", file.display());
            tasks.push(json!({"file": folder.path().join(&options.file_name), "dump": dump}));
        }
    }
    assert_eq!(judged("dump", &tasks), 14);
}

/// `--into`: other numbers in a model's initializers, and all else as it was.
#[test]
fn models_with_other_weights_are_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let floats = |a: &dyn Archive| a.tensors().iter().any(|t| matches!(t.dtype(), DType::F32 | DType::I64));
    let chosen: Vec<PathBuf> = models()
        .into_iter()
        .filter(|m| floats(&*registry.open_path(m, &Default::default()).unwrap()))
        .collect();
    let fill: Vec<Value> = chosen
        .iter()
        .enumerate()
        .map(|(i, m)| json!({"file": m, "out": folder.path().join(format!("{i}.safetensors"))}))
        .collect();
    lines_of("onnx_judge.py", "fill", &fill)
        .iter()
        .for_each(|l| assert!(l["checked"].as_u64() > Some(0), "{l}"));
    let mut tasks = Vec::new();
    for (i, model) in chosen.iter().enumerate() {
        let (weights, out) =
            (folder.path().join(format!("{i}.safetensors")), folder.path().join(format!("{i}.onnx")));
        let mut options = ConvertOptions::default();
        options.fsync = false;
        options.into = Some(model.clone());
        weighbridge::convert_with(&weights, &out, &options).unwrap_or_else(|e| panic!("{e:?}"));
        tasks.push(json!({"a": model, "weights": weights, "b": out}));
    }
    assert!(tasks.len() >= 50, "{} models", tasks.len());
    judged("into", &tasks);
}
