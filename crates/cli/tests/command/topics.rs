//! BERTopic's models on the command line.

use std::path::{Path, PathBuf};

use crate::{Folder, f32s, golden, run, safetensors};

fn model(name: &str, way: &str) -> String {
    let path: PathBuf = golden("bertopic").join(name).join(way);
    path.to_str().unwrap().to_owned()
}

#[test]
fn inspect_shows_topics_with_sizes_and_words() {
    let shown = run(&["inspect", &model("outliers", "safetensors")]).expect(0).stdout;
    for part in [
        "BERTopic model (safetensors)",
        "3 topics",
        "28, 4 without a topic",
        "3 x 4 F32",
        "aspects     Backwards",
    ] {
        let part = part.replace("3 x 4", "4 x 4");
        assert!(shown.contains(&part), "{part}: {shown}");
    }
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden("bertopic").join("outliers/expected.json")).unwrap())
            .unwrap();
    let json = run(&["inspect", &model("outliers", "pytorch"), "--json"]).expect(0).json();
    assert_eq!((&json["format"], &json["serialization"]), (&"bertopic".into(), &"pytorch".into()));
    let of =
        |key: &str| json["topics"].as_array().unwrap().iter().map(|t| t[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("id"), *expected["topics"].as_array().unwrap());
    assert_eq!(of("documents"), *expected["counts"].as_array().unwrap());
    assert_eq!(of("label"), *expected["names"].as_array().unwrap());
    assert_eq!(json["config"]["calculate_probabilities"], true);
    assert_eq!(json["ctfidf"]["terms"], 24);
    // The tensors alone, as of any other folder or file.
    assert!(
        run(&["inspect", &model("outliers", "safetensors/ctfidf.safetensors")])
            .expect(0)
            .stdout
            .contains("indptr")
    );
}

#[test]
fn convert_goes_through_all_three_ways_and_back() {
    let folder = Folder::new();
    let original = model("kmeans", "safetensors");
    let steps = ["pytorch", "pickle", "safetensors"];
    let mut source = original.clone();
    for how in steps {
        let target = folder.path(how);
        let report = run(&["convert", &source, &target, "--serialization", how, "--json"]).expect(0).json();
        assert_eq!(report["target"]["serialization"], how);
        assert_eq!((&report["topics"], &report["documents"]), (&3.into(), &24.into()));
        let shown = run(&["inspect", &target]).expect(0).stdout;
        assert!(shown.contains("второе: typ, kiste, leihe"), "{shown}");
        source = target;
    }
    for name in ["topics.json", "config.json", "ctfidf.safetensors", "ctfidf_config.json"] {
        let same = std::fs::read(Path::new(&original).join(name)).unwrap();
        assert!(std::fs::read(Path::new(&source).join(name)).unwrap() == same, "{name}");
    }
    // A pickle's arrays are still shown on request.
    let pickle = folder.path("pickle");
    assert!(run(&["inspect", &pickle, "--tree"]).expect(0).stdout.contains("topic_embeddings_"));
}

#[test]
fn convert_takes_choices_and_refuses_others() {
    let folder = Folder::new();
    let (source, target) = (model("kmeans", "safetensors"), folder.path("out"));
    let options = [
        "--serialization",
        "safetensors",
        "--no-ctfidf",
        "--embedding-model",
        "",
        "--model-card",
        "me/topics",
    ];
    let run_with = |extra: &[&str]| run(&[&["convert", &*source, &*target], &options[..], extra].concat());
    let said = run_with(&[]).expect(0).stdout;
    assert!(said.contains("changed: c-TF-IDF is left out, as asked"), "{said}");
    let config = std::fs::read_to_string(Path::new(&target).join("config.json")).unwrap();
    assert!(!config.contains("embedding_model") && !Path::new(&target).join("ctfidf.safetensors").exists());
    assert!(std::fs::read_to_string(Path::new(&target).join("README.md")).unwrap().contains("# topics\n"));
    let again = run_with(&[]).expect(2);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    run_with(&["--force", "--quiet"]).expect(0);
    // Without a word of how, and with words that mean something else.
    let how = run(&["convert", &source, &target]).expect(2);
    assert!(how.stderr.contains("--serialization"), "{}", how.stderr);
    run(&["convert", &source, &target, "--serialization", "pickle", "--dtype", "f16"]).expect(2);
    run(&["convert", &source, &target, "--no-ctfidf"]).expect(2);
    let other = folder.write("other.safetensors", safetensors(&[("a", "F32", &[1], &f32s(&[1.0]))], &[]));
    let refused =
        run(&["convert", &other, &folder.path("x"), "--serialization", "pickle", "--json"]).expect(2);
    assert!(refused.stderr.contains("no pickle of a BERTopic model"), "{}", refused.stderr);
}

/// A `.npy` file of version 1.
fn npy(rows: usize, columns: usize, numbers: &[f32]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&f32s(numbers));
    file
}

#[test]
fn topics_assigns_documents_as_bertopic_did() {
    let home = golden("bertopic").join("kmeans");
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.join("expected.json")).unwrap()).unwrap();
    let documents = home.join("documents.safetensors");
    let documents = documents.to_str().unwrap();
    let model = model("kmeans", "safetensors");
    let json = run(&["topics", &model, "--embeddings", documents, "--json"]).expect(0).json();
    assert_eq!(json["topics"], expected["assigned"]);
    let text = run(&["topics", &model, "--embeddings", documents, "--tensor", "documents"]).expect(0).stdout;
    assert_eq!(text.lines().count(), 24);
    assert!(text.lines().any(|l| l.starts_with("1\t0.99") && l.ends_with("\tвторое")), "{text}");
    let folder = Folder::new();
    let good = npy(2, 4, &[0.0; 8]);
    let path = folder.write("good.npy", &good);
    let json = run(&["topics", &model, "--embeddings", &path, "--json"]).expect(0).json();
    assert_eq!((&json["topics"], &json["probabilities"]), (&[0, 0].into(), &[0.0, 0.0].into()));
    for bad in
        [npy(2, 3, &[0.0; 6]), npy(9, 9, &[0.0; 8]), npy(1 << 60, 1 << 60, &[]), good[..40].to_vec(), vec![]]
    {
        let path = folder.write("bad.npy", bad);
        assert!(run(&["topics", &model, "--embeddings", &path]).expect(2).stderr.starts_with("error: "));
    }
    run(&["topics", &model, "--embeddings", documents, "--tensor", "none"]).expect(2);
}
