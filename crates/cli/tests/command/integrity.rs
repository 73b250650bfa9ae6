//! `weighbridge hash` and `weighbridge verify`.

use super::*;

/// A model's folder with two tensors and a config.
fn model(folder: &Folder, name: &str) -> String {
    let path = folder.path(name);
    std::fs::create_dir(&path).expect("a folder");
    let big: Vec<u8> = (0..400_000u32).flat_map(|i| (i * 7).to_le_bytes()).collect();
    let tensors = [("a", "F32", &[2][..], &f32s(&[1.0, 2.0])[..]), ("b", "U32", &[400_000], &big)];
    folder.write(&format!("{name}/model.safetensors"), safetensors(&tensors, &[("format", "pt")]));
    folder.write(&format!("{name}/config.json"), "{\"model_type\": \"x\"}");
    path
}

fn flip(path: &str, from_end: usize) {
    let mut bytes = std::fs::read(path).expect("the file");
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("a file is written");
}

#[test]
fn the_hash_of_a_model_is_the_same_in_every_format() {
    let folder = Folder::new();
    let path = model(&folder, "m");
    let file = format!("{path}/model.safetensors");
    let json = run(&["hash", &file, "--json"]).expect(0).json();
    let logical = json["logical"].as_str().expect("a hash").to_owned();
    assert_eq!(logical.len(), 64);
    assert_eq!(json["tensors"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["tensors"][0]["name"], "a");
    assert_eq!(json["files"][0]["path"], "model.safetensors");
    for name in ["x.pt", "y.onnx"] {
        let other = folder.path(name);
        run(&["convert", &file, &other, "--quiet", "--values", "drop"]).expect(0);
        assert_eq!(run(&["hash", &other, "--json"]).expect(0).json()["logical"], logical, "{name}");
    }
    let text = run(&["hash", &path, "--tensors"]).expect(0).stdout;
    assert!(text.contains(&format!("logical  {logical}  model.safetensors")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("tensor ") && l.ends_with("b  U32 [400000]")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("sha256 ") && l.ends_with("config.json")), "{text}");
    let one = run(&["hash", &path, "--algorithm", "sha256", "--json"]).expect(0).json();
    assert!(one["logical"].is_null() && one["files"][0]["blake3"].is_null());
    assert_eq!(one["files"][0]["sha256"].as_str().map(str::len), Some(64));
    run(&["hash", &folder.path("nothing")]).expect(2);
}

#[test]
fn a_model_is_held_against_its_manifest() {
    let folder = Folder::new();
    let path = model(&folder, "m");
    let missing = run(&["verify", &path]).expect(2);
    assert!(
        missing.stderr.contains("no manifest") && missing.stderr.contains("--write"),
        "{}",
        missing.stderr
    );
    let written = run(&["hash", &path, "--write"]).expect(0);
    assert!(written.stdout.contains("weighbridge.json"), "{}", written.stdout);
    let again = run(&["hash", &path, "--write"]).expect(2);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    run(&["hash", &path, "--write", "--force"]).expect(0);
    let ok = run(&["verify", &path]).expect(0);
    assert!(ok.stdout.starts_with("ok") && ok.stdout.contains("2 files"), "{}", ok.stdout);
    let file = format!("{path}/model.safetensors");
    run(&["verify", &file, "--sha256"]).expect(0);
    flip(&file, 3);
    let bad = run(&["verify", &path]).expect(1);
    assert!(bad.stdout.contains("changed    model.safetensors"), "{}", bad.stdout);
    assert!(bad.stdout.contains("tensor b changed, bytes "), "{}", bad.stdout);
    assert!(bad.stdout.contains("1 tensor as recorded"), "{}", bad.stdout);
    folder.write("m/extra.py", "x");
    std::fs::remove_file(format!("{path}/config.json")).expect("removed");
    let json = run(&["verify", &path, "--json"]).expect(1).json();
    assert_eq!((json["same"].clone(), json["intact"].clone()), (false.into(), 0.into()));
    let changes: Vec<_> =
        json["differences"].as_array().expect("a list").iter().map(|d| &d["change"]).collect();
    assert_eq!(changes, ["missing", "added", "content"]);
    assert_eq!(json["differences"][2]["tensors"]["changed"][0]["name"], "b");
    // Of the size that it had, a quick look sees nothing.
    let quick = run(&["verify", &path, "--quick", "--json"]).expect(1).json();
    assert_eq!(quick["differences"].as_array().map(Vec::len), Some(2));
    // A manifest that was changed is none.
    flip(&format!("{path}/weighbridge.json"), 200);
    let changed = run(&["verify", &path]).expect(2);
    assert!(changed.stderr.contains("its own digest"), "{}", changed.stderr);
}

#[test]
fn a_repair_takes_only_what_differs() {
    let folder = Folder::new();
    let (path, good) = (model(&folder, "m"), model(&folder, "good"));
    run(&["hash", &path, "--write"]).expect(0);
    flip(&format!("{path}/model.safetensors"), 1_600_000 + 4);
    std::fs::remove_file(format!("{path}/config.json")).expect("removed");
    let json = run(&["verify", &path, "--repair", &good, "--json"]).expect(0).json();
    assert_eq!(json["same"], true);
    assert_eq!(json["repair"]["repaired"].as_array().map(Vec::len), Some(2));
    let taken = json["repair"]["taken"].as_u64().expect("a number");
    assert!(taken > 0 && taken < 1000, "{taken} bytes were taken");
    assert_eq!(json["repair"]["before"].as_array().map(Vec::len), Some(2));
    let same = |name: &str| {
        let read = |folder: &str| std::fs::read(format!("{folder}/{name}")).expect("the file");
        read(&path) == read(&good)
    };
    assert!(same("model.safetensors") && same("config.json"));
    // A copy that is damaged too repairs nothing.
    flip(&format!("{path}/model.safetensors"), 1);
    flip(&format!("{good}/model.safetensors"), 1);
    let failed = run(&["verify", &path, "--repair", &good]).expect(1);
    assert!(failed.stdout.contains("failed     model.safetensors"), "{}", failed.stdout);
}

#[test]
fn tensors_are_held_against_a_manifest_in_another_format() {
    let folder = Folder::new();
    let path = model(&folder, "m");
    run(&["hash", &path, "--write"]).expect(0);
    let (file, other) = (format!("{path}/model.safetensors"), folder.path("other.pt"));
    let manifest = format!("{path}/weighbridge.json");
    run(&["convert", &file, &other, "--quiet", "--values", "drop"]).expect(0);
    let ask = ["verify", &other, "--manifest", &manifest, "--tensors-only"];
    let same = run(&ask).expect(0);
    assert!(same.stdout.contains("2 tensors as recorded"), "{}", same.stdout);
    run(&["convert", &file, &other, "--quiet", "--force", "--dtype", "f16"]).expect(0);
    let json = run(&[&ask[..], &["--json"]].concat()).expect(1).json();
    assert_eq!(json["tensors"]["changed"][0]["name"], "a");
    assert_eq!(json["tensors"]["intact"], 1);
    run(&["verify", &other, "--tensors-only"]).expect(2);
}

#[test]
fn a_conversion_writes_its_manifest_beside_the_result() {
    let folder = Folder::new();
    let path = model(&folder, "m");
    let (file, out) = (format!("{path}/model.safetensors"), folder.path("out.pt"));
    let source = run(&["hash", &file, "--json"]).expect(0).json();
    let args = ["convert", &file, &out, "--values", "drop", "--manifest"];
    let report = run(&[&args[..], &["--json"]].concat()).expect(0).json();
    let manifest = folder.path("out.pt.weighbridge.json");
    assert!(report["target"]["files"].as_array().expect("files").iter().any(|f| f["path"] == manifest));
    run(&["verify", &out]).expect(0);
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["provenance"]["source"], "model.safetensors");
    assert_eq!(value["provenance"]["logical"], source["logical"]);
    assert_eq!(value["provenance"]["files"][0]["sha256"], source["files"][0]["sha256"]);
    assert_eq!(value["provenance"]["options"], serde_json::json!([["values", "drop"]]));
    assert_eq!(value["models"][0]["logical"], source["logical"]);
    // Nothing is replaced without leave, and the same conversion has the same manifest.
    std::fs::remove_file(&out).expect("removed");
    assert!(run(&args).expect(2).stderr.contains("--force"));
    assert!(!Path::new(&out).exists());
    run(&[&args[..], &["--force"]].concat()).expect(0);
    assert_eq!(std::fs::read_to_string(&manifest).expect("a manifest"), text);
    // A set is found by its index, and a folder by its name.
    let set = folder.path("set.safetensors");
    run(&["convert", &file, &set, "--max-shard-size", "1MB", "--manifest"]).expect(0);
    run(&["verify", &folder.path("set.safetensors.index.json")]).expect(0);
    let into = folder.path("into/");
    run(&["convert", &file, &into, "--to", "safetensors", "--manifest"]).expect(0);
    run(&["verify", &into]).expect(0);
    folder.write("into/other.txt", "x");
    run(&["verify", &into]).expect(0);
}

#[test]
fn a_converted_model_has_a_manifest_unless_none_is_wanted() {
    let folder = Folder::new();
    let path = model(&folder, "m");
    let (with, without, hashed) = (folder.path("with"), folder.path("without"), folder.path("hashed"));
    run(&["convert", &path, &with]).expect(0);
    run(&["verify", &with]).expect(0);
    run(&["convert", &path, &without, "--no-manifest"]).expect(0);
    assert!(!Path::new(&format!("{without}/weighbridge.json")).exists());
    run(&["convert", &path, &hashed, "--manifest", "--dtype", "f16"]).expect(0);
    let read = |folder: &str| -> serde_json::Value {
        let text = std::fs::read(format!("{folder}/weighbridge.json")).expect("a manifest");
        serde_json::from_slice(&text).expect("JSON")
    };
    assert_eq!(read(&with)["provenance"]["logical"], serde_json::Value::Null);
    assert_eq!(read(&with)["provenance"]["source"], "m");
    assert_eq!(read(&hashed)["provenance"]["options"], serde_json::json!([["dtype", "F16"]]));
    assert_eq!(
        read(&hashed)["provenance"]["logical"],
        run(&["hash", &path, "--json"]).expect(0).json()["logical"]
    );
    // Weights that are swapped are found by the tensor.
    std::fs::copy(format!("{with}/model.safetensors"), format!("{hashed}/model.safetensors"))
        .expect("a copy");
    let json = run(&["verify", &hashed, "--json"]).expect(1).json();
    assert_eq!(json["differences"][0]["tensors"]["changed"][0]["name"], "a");
}
