//! ONNX models: what `inspect` shows of one, and what `convert` makes of it.

use crate::{Folder, f32s, run, safetensors};

/// The golden model: nodes of two operator sets, a subgraph, a function, and the initializer `weight`.
fn model(folder: &Folder) -> String {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/onnx/graph.onnx");
    folder.write("model.onnx", std::fs::read(golden).unwrap())
}

#[test]
fn the_graph_is_shown() {
    let folder = Folder::new();
    let text = run(&["inspect", &model(&folder)]).expect(0).stdout;
    for line in [
        "format      onnx, IR version 10, opsets: ai.onnx 21, own 1",
        "producer    golden",
        "input       x: F32 [batch, 2]",
        "output      out: F32 [batch, 3]",
        "nodes       6: Constant 1, Greater 1, If 1, MatMul 1, ReduceSum 1, own.Twice 1",
        "constants   2 tensors in attributes, subgraphs and functions",
        "function    own.Twice: 1: Add 1",
        "  key: value",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
    let json = run(&["inspect", &model(&folder), "--json"]).expect(0).json();
    assert_eq!(json["details"][0], serde_json::json!({ "name": "ir version", "text": "10" }));
}

#[test]
fn the_graph_stays_or_is_missed() {
    let folder = Folder::new();
    let (from, to) = (model(&folder), folder.path("out.onnx"));
    run(&["convert", &from, &to]).expect(0);
    assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
    let half = folder.path("half.onnx");
    let refused = run(&["convert", &from, &half, "--dtype", "f16"]).expect(2);
    assert!(refused.stderr.contains("weighbridge export"), "{}", refused.stderr);
    assert!(!std::path::Path::new(&half).exists());
    let tensors = run(&["convert", &from, &folder.path("out.safetensors")]).expect(0);
    assert!(tensors.stdout.contains("a graph of 6 nodes is not written"), "{}", tensors.stdout);
}

#[test]
fn tensors_are_put_into_a_model() {
    let folder = Folder::new();
    let base = model(&folder);
    let numbers = f32s(&[9.0; 6]);
    let weights = folder.write("w.safetensors", safetensors(&[("weight", "F32", &[2, 3], &numbers)], &[]));
    let out = folder.path("out.onnx");
    run(&["convert", &weights, &out, "--into", &base]).expect(0);
    let (old, new) = (std::fs::read(&base).unwrap(), std::fs::read(&out).unwrap());
    let at = new.windows(24).position(|w| w == numbers).expect("the numbers");
    assert!(old.len() == new.len() && old[..at] == new[..at] && old[at + 24..] == new[at + 24..]);
    let half = folder.path("half.safetensors");
    run(&["convert", &weights, &half, "--dtype", "f16"]).expect(0);
    let refused = run(&["convert", &half, &out, "--into", &base, "--force"]).expect(2);
    assert!(refused.stderr.contains("its dtype is F16, and F32 in the model"), "{}", refused.stderr);
    run(&["convert", &half, &out, "--into", &base, "--cast", "--force"]).expect(0);
    assert!(std::fs::read(&out).unwrap() == new);
    let elsewhere = folder.path("out.safetensors");
    run(&["convert", &weights, &elsewhere, "--into", &base]).expect(2);
}

#[test]
fn tensors_of_any_format_are_a_model_of_initializers() {
    let folder = Folder::new();
    let numbers = f32s(&[1.0; 600]);
    let from = folder.write("w.safetensors", safetensors(&[("w", "F32", &[600], &numbers)], &[("k", "v")]));
    let to = folder.path("out.onnx");
    run(&["convert", &from, &to, "--external-data", "always"]).expect(0);
    assert_eq!(std::fs::read(folder.path("out.onnx.data")).unwrap(), numbers);
    run(&["diff", &from, &to, "--values"]).expect(0);
    // A model without nodes is tensors and no more, so nothing is lost by a cast.
    run(&["convert", &to, &folder.path("half.onnx"), "--dtype", "f16"]).expect(0);
}
