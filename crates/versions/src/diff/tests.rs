//! Tests of comparing whole models, and of the bump that is suggested.

use std::fs;

use super::*;
use crate::testing::{bert, safetensors};

struct Pair(tempfile::TempDir);

impl Pair {
    /// Two folders with the same model.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for side in ["a", "b"] {
            bert(&dir.path().join(side), 0.5);
        }
        Self(dir)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join(name)).unwrap();
    }

    fn diff(&self) -> ModelDiff {
        let [a, b] = ["a", "b"].map(|side| self.0.path().join(side));
        ModelDiff::between(&a, &b, &ModelDiffOptions::default()).unwrap()
    }
}

#[test]
fn equal_models_are_equal_however_their_json_is_spelled() {
    let pair = Pair::new();
    assert!(pair.diff().is_equal());
    pair.write("a/config.json", r#"{"x": 1, "y": [1.0]}"#);
    pair.write("b/config.json", "{\"y\":[1],\n\"x\":1.0}");
    let diff = pair.diff();
    assert!(diff.is_equal() && diff.bump().is_none() && diff.weights.compared == 2);
}

#[test]
fn the_suggested_bump_is_that_of_what_weighs_most() {
    let cases: &[(&str, &[u8], Option<Bump>)] = &[
        ("b/README.md", b"x", Some(Bump::Patch)),
        ("b/training_args.bin", b"x", Some(Bump::Minor)),
        ("b/modeling.py", b"pass", Some(Bump::Minor)),
        ("b/generation_config.json", br#"{"num_beams": 4}"#, Some(Bump::Minor)),
        ("b/tokenizer_config.json", br#"{"tokenizer_class": "BertTokenizer"}"#, Some(Bump::Minor)),
        ("b/chat_template.jinja", b"{{ x }}", Some(Bump::Minor)),
        ("b/vocab.txt", b"[PAD]\n[UNK]\nb\n", Some(Bump::Major)),
        ("b/spiece.model", b"x", Some(Bump::Minor)),
        ("b/config.json", br#"{"hidden_size": 3}"#, Some(Bump::Major)),
        ("b/1_Pooling/config.json", br#"{"mode": "cls"}"#, Some(Bump::Minor)),
        ("b/.hidden", b"x", None),
    ];
    for (name, bytes, wanted) in cases {
        let pair = Pair::new();
        pair.write(name, bytes);
        let diff = pair.diff();
        // A file that only looks like weights is added, and changes no tensor.
        let wanted = if *name == "b/training_args.bin" { Some(Bump::Patch) } else { *wanted };
        assert_eq!(diff.bump(), wanted, "{name}: {:?}", diff.reasons);
    }
}

#[test]
fn remarks_in_a_config_are_a_patch() {
    let pair = Pair::new();
    pair.write(
        "a/config.json",
        r#"{"hidden_size": 2, "transformers_version": "4.0", "torch_dtype": "float32"}"#,
    );
    pair.write("b/config.json", r#"{"hidden_size": 2, "transformers_version": "5.0", "dtype": "float32"}"#);
    let diff = pair.diff();
    assert_eq!((diff.bump(), diff.reasons.len()), (Some(Bump::Patch), 1), "{:?}", diff.reasons);
    assert!(diff.reasons[0].text.starts_with("config.json: dtype and 2 more"), "{:?}", diff.reasons);
}

#[test]
fn the_same_tensors_in_other_files_are_the_same_model() {
    let pair = Pair::new();
    fs::rename(pair.0.path().join("b/model.safetensors"), pair.0.path().join("b/part.safetensors")).unwrap();
    let index = r#"{"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "part.safetensors",
        "pooler.dense.bias": "part.safetensors"}}"#;
    pair.write("b/model.safetensors.index.json", index);
    let diff = pair.diff();
    assert!(diff.weights.added.is_empty() && diff.weights.changed.is_empty(), "{:?}", diff.weights);
    assert_eq!(diff.bump(), Some(Bump::Patch), "{:?}", diff.reasons);
    assert_eq!(diff.files.removed, ["model.safetensors"]);
}

#[test]
fn folders_with_weights_of_several_purposes_are_compared_file_by_file() {
    let pair = Pair::new();
    for side in ["a", "b"] {
        pair.remove(&format!("{side}/model.safetensors"));
        pair.write(&format!("{side}/topics.safetensors"), safetensors(&[("t", &[1], &[1.0])]));
    }
    pair.write("a/ctfidf.safetensors", safetensors(&[("c", &[1], &[1.0])]));
    pair.write("b/ctfidf.safetensors", safetensors(&[("c", &[1], &[2.0])]));
    let diff = pair.diff();
    assert_eq!(diff.weights.changed.len(), 1);
    assert_eq!(diff.weights.changed[0].name, "ctfidf.safetensors/c");
    pair.write("b/more.safetensors", safetensors(&[("m", &[1], &[2.0])]));
    assert_eq!(pair.diff().weights.added, ["more.safetensors/m"]);
    pair.remove("b/topics.safetensors");
    assert_eq!(pair.diff().weights.removed, ["topics.safetensors/t"]);
}

#[test]
fn weights_that_cannot_be_read_are_compared_by_their_bytes() {
    let pair = Pair::new();
    for side in ["a", "b"] {
        pair.remove(&format!("{side}/model.safetensors"));
        pair.write(&format!("{side}/model.gguf"), b"GGUF\x03\0\0\0");
    }
    let same = pair.diff();
    assert!(same.weights.not_compared.is_some() && same.is_equal(), "{:?}", same.reasons);
    pair.write("b/model.gguf", b"GGUF\x03\0\0\x01");
    assert_eq!(pair.diff().bump(), Some(Bump::Minor));
}

#[test]
fn dtypes_are_counted_and_the_largest_change_is_first() {
    let pair = Pair::new();
    pair.write(
        "a/model.safetensors",
        safetensors(&[("x", &[2], &[1.0, 2.0]), ("y", &[1], &[1.0]), ("n", &[1], &[1.0])]),
    );
    pair.write(
        "b/model.safetensors",
        safetensors(&[("x", &[2], &[1.0, 1.0]), ("y", &[1], &[1.01]), ("n", &[1], &[f32::NAN])]),
    );
    let weights = pair.diff().weights;
    let order: Vec<_> = weights.largest().into_iter().map(|(t, change)| (t.name.clone(), change)).collect();
    assert_eq!(order[0], ("n".into(), f64::INFINITY));
    assert_eq!(order[1], ("x".into(), 0.5));
    assert!(weights.recast().is_empty());
    // One byte a letter: the same file with the second dtype of the same width.
    let mut file = safetensors(&[("y", &[1], &[1.0])]);
    let at = file.windows(3).position(|w| w == b"F32").unwrap();
    file[at..at + 3].copy_from_slice(b"I32");
    pair.write("b/model.safetensors", file);
    let weights = pair.diff().weights;
    assert_eq!(weights.recast().into_iter().collect::<Vec<_>>(), [(("F32", "I32"), 1)]);
    assert_eq!(weights.removed, ["x", "n"]);
}

#[test]
fn a_huge_or_broken_tokenizer_is_compared_by_its_bytes() {
    let pair = Pair::new();
    for side in ["a", "b"] {
        pair.write(&format!("{side}/tokenizer.json"), format!(r#"{{"model": {}"#, "[".repeat(100_000)));
    }
    let same = pair.diff();
    assert!(
        same.is_equal() && same.notes.iter().any(|n| n.text.contains("by its bytes only")),
        "{:?}",
        same.notes
    );
    pair.write("b/tokenizer.json", "[");
    assert_eq!(pair.diff().tokenizer.files.changed, ["tokenizer.json"]);
}
