//! `export`: graphs from the command line.

use crate::{Folder, run};

/// A network of two linear layers, 16 × 16 and 3 × 16, as a folder.
fn network(layers: &str) -> (Folder, String) {
    let folder = Folder::new();
    folder.write(
        "config.json",
        format!(
            r#"{{"model_type":"layers","inputs":[{{"name":"x","shape":["batch",16]}}],"layers":[{layers}]}}"#
        ),
    );
    let header = r#"{"a.weight":{"dtype":"F32","shape":[16,16],"data_offsets":[0,1024]},
        "b.weight":{"dtype":"F32","shape":[3,16],"data_offsets":[1024,1216]}}"#;
    let numbers = (0..304u32).flat_map(|i| (i as f32 / 100.0 - 1.5).to_le_bytes());
    let file: Vec<u8> =
        (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(numbers).collect();
    folder.write("model.safetensors", file);
    let path = folder.path("");
    (folder, path)
}

const LAYERS: &str = r#"{"type":"Linear","name":"a"},{"type":"ReLU"},{"type":"Linear","name":"b"}"#;

#[test]
fn a_graph_is_written_and_described() {
    let (folder, path) = network(LAYERS);
    let out = folder.path("net.onnx");
    let text = run(&["export", "onnx", &path, &out]).expect(0).stdout;
    for part in [
        "in  x  [batch, 16] of F32",
        "out output  [batch, 3] of F32",
        "wrote   onnx: 2 tensors, 304 parameters",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let there = run(&["export", "onnx", &path, &out]).expect(2).stderr;
    assert!(there.contains("exists"), "{there}");
    let first = std::fs::read(&out).unwrap();
    let json = run(&["export", "onnx", &path, &out, "--force", "--json"]).expect(0).json();
    assert_eq!(std::fs::read(&out).unwrap(), first, "the same choices give the same bytes");
    assert_eq!(json["inputs"][0], serde_json::json!({ "name": "x", "dtype": "F32", "shape": ["batch", 16] }));
    assert_eq!((&json["tensors"], &json["parameters"]), (&2.into(), &304.into()));
    assert_eq!(json["files"][0]["bytes"], first.len());
    // The weights are those of the source, and the hash of them is in the file.
    let same = run(&["diff", &folder.path("model.safetensors"), &out, "--json"]).expect(0).json();
    assert_eq!(same["equal"], true, "{same}");
    let hash = "weighbridge.logical_hash".as_bytes();
    assert!(first.windows(hash.len()).any(|w| w == hash));
}

#[test]
fn weights_can_stand_beside_and_be_narrower() {
    let (folder, path) = network(LAYERS);
    let out = folder.path("net.onnx");
    let json = run(&["export", "onnx", &path, &out, "--external-data", "always", "--json"]).expect(0).json();
    let names: Vec<&str> =
        json["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2, "{json}");
    assert!(names.iter().any(|n| n.ends_with("net.onnx.data")), "{json}");
    let half = run(&["export", "onnx", &path, &folder.path("half.onnx"), "--dtype", "f16", "--json"])
        .expect(0)
        .json();
    assert_eq!((&half["outputs"][0]["dtype"], &half["cast_total"]["elements"]), (&"F16".into(), &304.into()));
    let (small, text) = (folder.path("small.onnx"), "1 weights of linear layers are int8");
    let run = run(&["export", "onnx", &path, &small, "--quantize", "int8"]).expect(0).stdout;
    assert!(run.contains(text), "{run}");
}

#[test]
fn what_is_not_known_is_an_error_that_names_what_is() {
    let (folder, path) = network(r#"{"type":"Transformer"}"#);
    let out = folder.path("net.onnx");
    let export = |more: &[&str]| run(&[&["export", "onnx", &path, &out], more].concat()).expect(2).stderr;
    let error = export(&[]);
    assert!(error.contains("layer 0 (Transformer)") && error.contains("LayerNorm"), "{error}");
    for (more, part) in [
        (&["--task", "poetry"][..], "fill-mask"),
        (&["--quantize", "int2"], "int4"),
        (&["--opset", "99"], "17 to"),
        (&["--dtype", "f64"], "bf16"),
        (&["--dynamic", "batch"], "sequence is not dynamic"),
        (&["--dynamic", "batch", "--batch-size", "2"], "batch is dynamic"),
    ] {
        let error = export(more);
        assert!(error.contains(part), "{more:?}: {error}");
    }
    // What a config says decides no allocation.
    folder.write(
        "config.json",
        r#"{"model_type":"layers","inputs":[{"name":"x","shape":["b",2147483648,"n"]}],
            "layers":[{"type":"InstanceNorm1d","name":"i"}]}"#,
    );
    let error = export(&[]);
    assert!(error.contains("layer 0 (InstanceNorm1d)") && error.contains("2147483648 channels"), "{error}");
    folder.write("config.json", r#"{"model_type":"mamba"}"#);
    let error = export(&[]);
    assert!(error.contains("mamba") && error.contains("bert") && error.contains("llama"), "{error}");
    std::fs::remove_file(folder.path("config.json")).unwrap();
    let error = export(&[]);
    assert!(error.contains("config.json"), "{error}");
    assert!(!std::path::Path::new(&out).exists());
}

#[test]
#[cfg(not(feature = "tch"))]
fn a_program_for_torch_needs_a_build_with_libtorch() {
    let (folder, path) = network(LAYERS);
    let out = folder.path("net.pt");
    let error = run(&["export", "torchscript", &path, &out, "--json"]).expect(2).stderr;
    assert!(error.contains("format_disabled") && error.contains("feature `tch`"), "{error}");
    assert!(!std::path::Path::new(&out).exists());
}

#[test]
fn a_check_without_the_runtime_is_refused_before_anything_is_written() {
    let (folder, path) = network(LAYERS);
    let out = folder.path("net.onnx");
    let mut export = crate::command(&["export", "onnx", &path, &out, "--check"]);
    let done = export.env("ORT_DYLIB_PATH", folder.path("absent.so")).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{error}");
    assert!(error.contains("ORT_DYLIB_PATH") && error.contains("hint"), "{error}");
    assert!(!std::path::Path::new(&out).exists());
}
