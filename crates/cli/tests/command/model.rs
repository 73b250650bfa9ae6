//! `inspect` and `convert` of whole models.

use super::*;

const CONFIG: &str = "{\n  \"architectures\": [\"GPT2Model\"],\n  \"model_type\": \"gpt2\",\n  \"vocab_size\": 5,\n  \"n_embd\": 2,\n  \"n_layer\": 0,\n  \"n_positions\": 3,\n  \"mine\": [1e-5, Infinity],\n  \"torch_dtype\": \"float32\"\n}\n";

/// A model without layers, with a tokenizer's file, a picture in a subfolder, and weights of another library.
fn model(folder: &Folder) -> String {
    let path = folder.path("model");
    std::fs::create_dir_all(format!("{path}/images")).unwrap();
    let (wte, wpe, weight, bias) = (f32s(&[0.5; 10]), f32s(&[1e9; 6]), f32s(&[0.1; 2]), f32s(&[0.0; 2]));
    let tensors: &[Entry<'_>] = &[
        ("wte.weight", "F32", &[5, 2], &wte),
        ("wpe.weight", "F32", &[3, 2], &wpe),
        ("ln_f.weight", "F32", &[2], &weight),
        ("ln_f.bias", "F32", &[2], &bias),
    ];
    let weights = safetensors(tensors, &[("format", "pt")]);
    for (name, bytes) in [
        ("model.safetensors", &weights[..]),
        ("config.json", CONFIG.as_bytes()),
        ("vocab.json", b"{}"),
        ("images/a.png", b"png"),
        ("tf_model.h5", b"other"),
        ("README.md", b"mine"),
    ] {
        std::fs::write(format!("{path}/{name}"), bytes).unwrap();
    }
    path
}

fn read(path: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"))).into_owned()
}

#[test]
fn a_model_is_shown_whole() {
    let folder = Folder::new();
    let path = model(&folder);
    let shown = run(&["inspect", &path, "--json"]).expect(0).json();
    let whole = &shown["model"];
    assert_eq!((&whole["architecture"], &whole["known"]), (&"GPT2Model".into(), &true.into()));
    assert_eq!(whole["check"]["matched"], 4);
    assert_eq!(
        (&whole["tokenizer"]["files"], &whole["missing"]),
        (&["vocab.json"].into(), &serde_json::json!([]))
    );
    std::fs::remove_file(format!("{path}/vocab.json")).unwrap();
    std::fs::write(format!("{path}/config.json"), CONFIG.replace("\"n_positions\": 3", "\"n_positions\": 4"))
        .unwrap();
    let text = run(&["inspect", &path]).expect(0).stdout;
    for part in
        ["GPT2Model (gpt2)", "wpe.weight is [3, 2] where [4, 2] is expected", "missing     the tokenizer"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_model_is_converted_whole_or_not_at_all() {
    let folder = Folder::new();
    let (from, to) = (model(&folder), folder.path("half"));
    let refused = run(&["convert", &from, &to, "--dtype", "f16"]).expect(2).stderr;
    assert!(refused.contains("wpe.weight") && !std::path::Path::new(&to).exists(), "{refused}");
    let cast = ["--dtype", "f16", "--dtype-for", "ln_*=keep", "--overflow", "keep-wide"];
    let report = run(&[&["convert", &from, &to, "--json"], &cast[..]].concat()).expect(0).json();
    assert_eq!(report["kept_wide"][0]["name"], "wpe.weight");
    assert_eq!((&report["bytes_before"], &report["bytes_after"]), (&80.into(), &60.into()));
    assert_eq!(read(&format!("{to}/config.json")), CONFIG.replace("float32", "float16"));
    for (name, text) in [("vocab.json", "{}"), ("images/a.png", "png"), ("README.md", "mine")] {
        assert_eq!(read(&format!("{to}/{name}")), text);
    }
    assert!(!std::path::Path::new(&format!("{to}/tf_model.h5")).exists());
    let dtypes = run(&["inspect", &to, "--json"]).expect(0).json()["dtypes"].clone();
    assert_eq!((&dtypes["F16"]["tensors"], &dtypes["F32"]["tensors"]), (&1.into(), &3.into()));
}

#[test]
fn a_folder_is_replaced_with_leave_and_keeps_what_is_not_the_models() {
    let folder = Folder::new();
    let (from, to) = (model(&folder), folder.path("out"));
    run(&["convert", &from, &to]).expect(0);
    std::fs::write(format!("{to}/notes.txt"), "a person's").unwrap();
    let refused = run(&["convert", &from, &to, "--to", "torch"]).expect(2).stderr;
    assert!(refused.contains("--force"), "{refused}");
    run(&["convert", &from, &to, "--to", "torch", "--force"]).expect(0);
    let exists = |name: &str| std::path::Path::new(&format!("{to}/{name}")).exists();
    assert!(exists("pytorch_model.bin") && !exists("model.safetensors") && exists("notes.txt"));
    // Onto itself, from one format to the other.
    run(&["convert", &to, &to, "--force"]).expect(0);
    assert!(!exists("pytorch_model.bin") && exists("model.safetensors") && exists("notes.txt"));
    run(&["diff", &format!("{from}/model.safetensors"), &format!("{to}/model.safetensors")]).expect(0);
}
