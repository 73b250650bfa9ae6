//! `ModelSaver` writes a manifest, and `ModelLoader` demands it.

use std::fs;
use std::path::Path;

use weighbridge_formats::{Archive, DType, Data, ErrorKind, MemoryArchive, Tensor};
use weighbridge_model::manifest::{Manifest, Provenance, Recorded, VerifyOptions, verify};
use weighbridge_model::{Config, Demand, Model, ModelLoader, ModelSaver};

const LEN: usize = 400_000;

fn weights() -> MemoryArchive<'static> {
    let tensor = |name: &str, len: usize, salt: usize| {
        let bytes: Vec<u8> = (0..len * 4).map(|i| (i * 31 + salt) as u8).collect();
        Tensor::new(name, DType::U32, [len as u64].as_slice(), Data::Owned(bytes.into())).unwrap()
    };
    MemoryArchive::new([tensor("a", LEN, 1), tensor("b", LEN, 2), tensor("c", 3, 3)]).unwrap()
}

fn saver(weights: &dyn Archive) -> ModelSaver<'_> {
    let config = Config::parse(r#"{"model_type": "mine"}"#).unwrap();
    ModelSaver::new(weights).config(config).fsync(false).bytes("assets/x.txt", "x").unwrap()
}

fn same(folder: &Path) -> bool {
    verify(&Recorded::find(folder, None).unwrap(), &VerifyOptions::default()).unwrap().is_same()
}

fn load(folder: &Path, demand: Demand) -> weighbridge_formats::Result<Model> {
    ModelLoader::new(folder).require_manifest(demand).load()
}

/// Flips a bit of a tensor: the tensors lie at the end of the file in the order of their names.
fn flip(folder: &Path, from_end: usize) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_saved_folder_is_as_its_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let weights = weights();
    for format in ["safetensors", "torch"] {
        let folder = dir.path().join(format);
        let report =
            saver(&weights).format(format).provenance(Provenance::new("source")).save(&folder).unwrap();
        assert!(same(&folder));
        let (path, bytes) = report.files.last().unwrap();
        assert_eq!((path, *bytes), (&folder.join("weighbridge.json"), path.metadata().unwrap().len()));
        let manifest = Manifest::read(path).unwrap();
        assert_eq!(manifest.models[0].tensors.len(), 3);
        assert_eq!(manifest.provenance.as_ref().unwrap().source, "source");
        let paths: Vec<_> = manifest.files.iter().map(|f| &*f.path).collect();
        let file = if format == "torch" { "pytorch_model.bin" } else { "model.safetensors" };
        assert_eq!(
            paths.iter().filter(|p| **p == file || **p == "config.json" || **p == "assets/x.txt").count(),
            3
        );
        // Equal saves have equal manifests.
        let again = dir.path().join(format!("{format}-again"));
        saver(&weights).format(format).provenance(Provenance::new("source")).save(&again).unwrap();
        assert_eq!(fs::read(again.join("weighbridge.json")).unwrap(), fs::read(path).unwrap());
    }
}

#[test]
fn every_other_byte_is_the_same_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let weights = weights();
    let (with, without) = (dir.path().join("with"), dir.path().join("without"));
    saver(&weights).save(&with).unwrap();
    let report = saver(&weights).manifest(false).save(&without).unwrap();
    assert!(!without.join("weighbridge.json").exists() && report.files.len() == 3);
    for name in ["model.safetensors", "config.json", "assets/x.txt"] {
        assert_eq!(fs::read(with.join(name)).unwrap(), fs::read(without.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_folder_that_is_replaced_gets_a_manifest_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let weights = weights();
    saver(&weights).save(&folder).unwrap();
    let old = fs::read(folder.join("weighbridge.json")).unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    fs::hard_link(folder.join("weighbridge.json"), dir.path().join("linked")).unwrap();
    // A file that stays is recorded, and the old manifest is not written into.
    saver(&weights).overwrite(true).save(&folder).unwrap();
    assert!(same(&folder));
    let manifest = Manifest::read(&folder.join("weighbridge.json")).unwrap();
    assert!(manifest.file("notes.txt").is_some());
    assert_eq!(fs::read(dir.path().join("linked")).unwrap(), old);
    // Loaded and saved, the old manifest does not go along.
    let model = load(&folder, Demand::Whole).unwrap();
    let copy = dir.path().join("copy");
    ModelSaver::of(&model).unwrap().fsync(false).manifest(false).save(&copy).unwrap();
    assert!(copy.join("notes.txt").exists() && !copy.join("weighbridge.json").exists());
    // And without one, the folder keeps none that is another model's.
    saver(&weights).overwrite(true).manifest(false).save(&folder).unwrap();
    assert!(!folder.join("weighbridge.json").exists());
    assert_eq!(load(&folder, Demand::Whole).err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn a_demanded_manifest_finds_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    saver(&weights()).save(&folder).unwrap();
    for demand in [Demand::Whole, Demand::AsRead] {
        load(&folder, demand).unwrap().read_all().unwrap();
        let refused = |what: &str| {
            let error =
                load(&folder, demand).err().unwrap_or_else(|| panic!("{demand:?}: {what} was not found"));
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{demand:?}: {error}");
            assert!(error.to_string().contains(what), "{demand:?}: {error}");
        };
        fs::write(folder.join("config.json"), r#"{"model_type": "evil"}"#).unwrap();
        refused("config.json");
        fs::write(folder.join("config.json"), r#"{"model_type": "mine"}"#).unwrap();
        fs::write(folder.join("modeling_evil.py"), "x").unwrap();
        refused("modeling_evil.py");
        fs::remove_file(folder.join("modeling_evil.py")).unwrap();
        load(&folder, demand).unwrap();
    }
}

#[test]
fn tensors_are_checked_before_a_byte_of_them_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let weights = weights();
    saver(&weights).save(&folder).unwrap();
    // The last byte of `b`, which the first read does not touch.
    flip(&folder, 12 + 1);
    assert!(load(&folder, Demand::Whole).is_err());
    let model = load(&folder, Demand::AsRead).unwrap();
    let archive = model.weights();
    for (name, good) in [("a", true), ("b", false), ("c", true)] {
        let index = archive.tensors().iter().position(|t| t.name() == name).unwrap();
        let expected = (&weights as &dyn Archive).tensor(name).unwrap().data.read_all().unwrap();
        let data = archive.data(index).unwrap();
        use weighbridge_formats::ReadAt;
        let mut part = [0xaa; 8];
        let read = data.read_at(0, &mut part);
        assert_eq!(read.is_ok(), good, "{name}");
        match read {
            Ok(()) => assert_eq!(part[..], expected[..8]),
            Err(e) => assert_eq!((e.kind(), e.tensor(), part), (ErrorKind::Mismatch, Some(name), [0xaa; 8])),
        }
        let mut all = vec![0; expected.len()];
        let read = archive.data(index).unwrap().read_at(0, &mut all);
        assert_eq!((read.is_ok(), all == expected), (good, good), "{name}");
    }
    assert_eq!(model.read_all().unwrap_err().kind(), ErrorKind::Mismatch);
    // Other tensors than those that are recorded are found before any is read.
    let other = dir.path().join("other");
    let part = |name: &str| (&weights as &dyn Archive).tensor(name).unwrap();
    let less = MemoryArchive::new([part("a"), part("b")]).unwrap();
    saver(&less).save(&other).unwrap();
    fs::copy(other.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    assert_eq!(load(&folder, Demand::AsRead).err().unwrap().kind(), ErrorKind::Mismatch);
}

#[test]
fn torch_files_are_checked_by_their_storages_too() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().join("model"), dir.path().join("out"));
    let weights = weights();
    saver(&weights).format("torch").save(&folder).unwrap();
    let model = load(&folder, Demand::AsRead).unwrap();
    // The writer of torch's files asks for storages.
    ModelSaver::of(&model).unwrap().format("torch").fsync(false).save(&out).unwrap();
    let name = "pytorch_model.bin";
    assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(folder.join(name)).unwrap());
    // A manifest of other weights, as good as its file may be.
    let other = dir.path().join("other");
    let tensor = |name: &str, len: usize| {
        let bytes = vec![7; len * 4];
        Tensor::new(name, DType::U32, [len as u64].as_slice(), Data::Owned(bytes.into())).unwrap()
    };
    let changed = MemoryArchive::new([tensor("a", LEN), tensor("b", LEN), tensor("c", 3)]).unwrap();
    saver(&changed).format("torch").save(&other).unwrap();
    fs::copy(other.join(name), folder.join(name)).unwrap();
    let model = load(&folder, Demand::AsRead).unwrap();
    assert!(model.weights().storage_data(0).is_err());
}
