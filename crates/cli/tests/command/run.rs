//! `run` and `check`: arrays in and out, times, and a runtime that is not there.

use std::path::Path;

use crate::{Folder, command, f32s, run};

/// One of the official models, which `cargo xtask setup` fetches.
fn model(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures/onnx/node").join(name);
    let path = path.join("model.onnx");
    assert!(path.is_file(), "{} is missing: run `cargo xtask setup`", path.display());
    path.to_str().unwrap().to_owned()
}

/// ONNX Runtime's library, which `cargo xtask setup` lays out.
fn library() -> String {
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/native").join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path.to_str().unwrap().to_owned()
}

fn npy(shape: &str, numbers: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&f32s(numbers));
    file
}

/// The input of `test_relu`, and the end of the file that its output is.
fn relu() -> (Vec<u8>, Vec<u8>) {
    let numbers: Vec<f32> = (0..60).map(|i| (i as f32 - 30.0) / 4.0).collect();
    let positive: Vec<f32> = numbers.iter().map(|x| x.max(0.0)).collect();
    (npy("(3, 4, 5)", &numbers), f32s(&positive))
}

#[test]
fn both_engines_run_a_model_and_write_what_it_gives() {
    let folder = Folder::new();
    let (model, library) = (model("test_relu"), library());
    let (input, wanted) = relu();
    let x = format!("x={}", folder.write("x.npy", input));
    for (engine, place) in [(vec!["--evaluator"], "a"), (vec!["--library", &library], "b")] {
        let y = format!("y={}", folder.path(&format!("{place}.npy")));
        let save = folder.path(place);
        let mut args =
            vec!["run", &model, "--input", &x, "--output", &y, "--save", &save, "--repeat", "3", "--json"];
        args.extend(&engine);
        let json = run(&args).expect(0).json();
        assert_eq!(json["engine"], if place == "a" { "evaluator" } else { "onnxruntime" });
        assert_eq!(json["outputs"][0]["shape"], serde_json::json!([3, 4, 5]));
        assert_eq!(json["outputs"][0]["statistics"]["max"], 7.25);
        assert_eq!(
            (&json["seconds"]["runs"], json["seconds"]["min"].as_f64() > Some(0.0)),
            (&3.into(), true)
        );
        assert_eq!(json["files"].as_array().unwrap().len(), 2);
        for file in [&y[2..], &format!("{save}/y.npy")] {
            let bytes = std::fs::read(file).unwrap();
            assert!(bytes.starts_with(b"\x93NUMPY") && bytes.ends_with(&wanted), "{file}");
        }
        // What is there is not replaced without leave.
        args.drain(6..8);
        let refused = run(&args).expect(2);
        assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
        args.push("--force");
        run(&args).expect(0);
    }
    let text = run(&["run", &model, "--input", &x, "--evaluator", "--repeat", "2"]).expect(0).stdout;
    assert!(text.starts_with("y  F32 [3, 4, 5]\n  min 0, max 7.25, mean "), "{text}");
    assert!(text.contains("2 runs: min "), "{text}");
}

#[test]
fn inputs_are_made_up_where_that_is_asked_for() {
    let model = model("test_relu");
    let missing = run(&["run", &model, "--evaluator"]).expect(2);
    assert!(
        missing.stderr.contains("x (F32 [3, 4, 5])") && missing.stderr.contains("--random"),
        "{}",
        missing.stderr
    );
    let first = run(&["run", &model, "--evaluator", "--random", "--json"]).expect(0).json();
    assert_eq!(first, run(&["run", &model, "--evaluator", "--random", "--json"]).expect(0).json());
    assert_ne!(
        first,
        run(&["run", &model, "--evaluator", "--random", "--seed", "7", "--json"]).expect(0).json()
    );
    let unknown = run(&["run", &model, "--evaluator", "--random", "--output", "z=z.npy"]).expect(2);
    assert!(unknown.stderr.contains("its outputs are: y"), "{}", unknown.stderr);
}

#[test]
fn a_runtime_that_is_not_there_is_told_with_what_to_do() {
    let folder = Folder::new();
    let absent = folder.path("libonnxruntime.so");
    let told =
        command(&["run", &model("test_relu"), "--random"]).env("ORT_DYLIB_PATH", &absent).output().unwrap();
    let text = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(2), "{text}");
    assert!(text.contains("ONNX Runtime is not here") && text.contains("is no file"), "{text}");
    assert!(text.contains("ORT_DYLIB_PATH") && text.contains("--evaluator"), "{text}");
}

#[test]
fn a_check_compares_the_runtime_with_the_evaluator_or_a_file() {
    let folder = Folder::new();
    let (library, model) = (library(), model("test_relu"));
    let same = run(&["check", &model, "--library", &library]).expect(0);
    assert!(
        same.stdout.contains("ok  y [3, 4, 5]") && same.stdout.contains("the same within"),
        "{}",
        same.stdout
    );
    let (input, wanted) = relu();
    let x = format!("x={}", folder.write("x.npy", input));
    let mut numbers: Vec<f32> = wanted.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let right = format!("y={}", folder.write("right.npy", npy("(3, 4, 5)", &numbers)));
    numbers[59] += 0.5;
    let wrong = format!("y={}", folder.write("wrong.npy", npy("(3, 4, 5)", &numbers)));
    let check = |expect: &str, more: &[&str]| {
        let mut args =
            vec!["check", &model, "--library", &library, "--input", &x, "--expect", expect, "--json"];
        args.extend(more);
        run(&args)
    };
    assert_eq!(check(&right, &[]).expect(0).json()["passed"], true);
    let json = check(&wrong, &[]).expect(1).json();
    assert_eq!((&json["passed"], &json["rounds"][0]["outputs"][0]["absolute"]), (&false.into(), &0.5.into()));
    check(&wrong, &["--tolerance", "0.1"]).expect(0);
    check(&wrong, &["--tolerance", "-1"]).expect(2);
    run(&["check", &model, "--library", &library, "--expect", &right]).expect(2);
}
