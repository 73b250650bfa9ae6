//! Manifests judged by Python, which has hashes of its own: the snippets of the manual, and BLAKE3 written out from its paper.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weighbridge::trust::manifest::{HashOptions, Recorded, VerifyOptions, hash, manifest_path, verify};
use weighbridge::{DType, Data, MemoryArchive, Tensor, logical};
use weighbridge_model::{Config, ModelSaver};
use weighbridge_tests::{lines_of, workspace};

/// Sizes around those of chunks and blocks: what a tree of hashes can get wrong.
const SIZES: [usize; 8] = [0, 1, 63, 1024, 1025, 2048, 5000, 9217];

fn save(folder: &Path, format: &str, shard: Option<u64>) {
    let tensor = |(i, &len): (usize, &usize)| {
        let bytes: Vec<u8> = (0..len).map(|k| (k * 7 + i) as u8).collect();
        let name = format!("layer.{i}.é");
        Tensor::new(name, DType::U8, [len as u64].as_slice(), Data::Owned(bytes.into())).unwrap()
    };
    let weights = MemoryArchive::new(SIZES.iter().enumerate().map(tensor)).unwrap();
    let mut saver = ModelSaver::new(&weights)
        .format(format)
        .config(Config::parse(r#"{"model_type": "x"}"#).unwrap())
        .bytes("1_Pooling/config.json", "{}")
        .unwrap();
    if let Some(shard) = shard {
        saver = saver.max_shard_size(shard);
    }
    saver.fsync(false).save(folder).unwrap();
}

fn judged(mode: &str, page: &str, path: &Path) -> Value {
    let task = json!({ "docs": workspace().join("docs").join(page), "path": path });
    lines_of("manifest.py", mode, &[task]).pop().expect("a line a task")
}

#[test]
fn python_finds_every_manifest_as_its_files_are() {
    let dir = tempfile::tempdir().unwrap();
    for (name, format, shard) in
        [("a", "safetensors", None), ("b", "torch", None), ("c", "safetensors", Some(8000))]
    {
        let folder = dir.path().join(name);
        save(&folder, format, shard);
        let path = folder.join("weighbridge.json");
        assert_eq!(judged("docs", "manifest.md", &path), json!({ "different": [] }), "{name}");
        // Python and verify find the same.
        let last = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        let weights =
            last.filter(|p| p.extension().is_some_and(|e| e == "safetensors" || e == "bin")).max().unwrap();
        let mut bytes = fs::read(&weights).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(&weights, &bytes).unwrap();
        fs::remove_file(folder.join("1_Pooling/config.json")).unwrap();
        let found = verify(&Recorded::find(&folder, None).unwrap(), &VerifyOptions::default()).unwrap();
        let ours: Vec<_> = found.differences.iter().map(|d| d.path.clone()).collect();
        assert_eq!(ours.len(), 2);
        assert_eq!(judged("docs", "manifest.md", &path), json!({ "different": ours }), "{name}");
        let mut text = fs::read(&path).unwrap();
        text[100] ^= 1;
        fs::write(&path, text).unwrap();
        assert!(judged("docs", "manifest.md", &path)["error"].is_string());
    }
}

#[test]
fn python_computes_the_same_tensor_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m");
    save(&folder, "safetensors", None);
    let file = folder.join("model.safetensors");
    let hashes = hash(&file, &HashOptions::default()).unwrap();
    let found = judged("hashes", "logical-hash.md", &file);
    assert_eq!(found["logical"], logical::hex(&hashes.logical().unwrap()));
    assert_eq!(found["tensors"].as_object().map(serde_json::Map::len), Some(SIZES.len()));
    for tensor in &hashes.models[0].tensors {
        assert_eq!(found["tensors"][&tensor.name], logical::hex(&tensor.hash), "{}", tensor.name);
    }
    assert_eq!(manifest_path(&folder), folder.join("weighbridge.json"));
    assert_eq!(weighbridge::open(&file).unwrap().parameters(), SIZES.iter().sum::<usize>() as u64);
}
