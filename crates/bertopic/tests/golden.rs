//! What BERTopic saved is read as it says itself, and written again to the byte.

use std::path::{Path, PathBuf};

use serde_json::Value;
use weighbridge_bertopic::{
    Documents, LoadOptions, Pointer, SaveOptions, Serialization, TopicModel, load, save,
};
use weighbridge_formats::{NoteKind, ReadOptions, Registry};

const MODELS: [&str; 3] = ["given", "kmeans", "outliers"];
const WAYS: [&str; 2] = ["safetensors", "pytorch"];

fn golden(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bertopic").join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn documents(name: &str) -> (Vec<f32>, usize) {
    let path = golden(name).join("documents.safetensors");
    let archive = Registry::builtin().open_path(&path, &ReadOptions::default()).unwrap();
    let bytes = archive.data(0).unwrap().read_all().unwrap();
    let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (numbers, archive.tensors()[0].shape()[1] as usize)
}

/// Holds a model against what BERTopic said of it.
fn check(model: &TopicModel, name: &str) {
    let expected = json(&golden(name).join("expected.json"));
    let ids = model.topic_ids();
    assert_eq!(Value::from(ids.clone()), expected["topics"], "{name}");
    let counts: Vec<u64> = ids.iter().map(|id| model.size(*id).unwrap()).collect();
    assert_eq!(Value::from(counts), expected["counts"], "{name}");
    let labels = model.topic_labels();
    let named: Vec<&str> =
        ids.iter().map(|id| &*labels.iter().find(|(topic, _)| topic == id).unwrap().1).collect();
    assert_eq!(Value::from(named), expected["names"], "{name}");
    assert_eq!(serde_json::json!(model.custom_labels), expected["custom_labels"], "{name}");
    for id in &ids {
        let words: Vec<&str> = model.representation(*id).unwrap().iter().map(|t| &*t.word).collect();
        assert_eq!(Value::from(words), expected["words"][id.to_string()], "{name}: {id}");
    }
    let (numbers, dim) = documents(name);
    let found = model.transform(Documents::F32(&numbers), dim).unwrap();
    assert_eq!(serde_json::json!(found.topics), expected["assigned"], "{name}");
    let all = model.config.calculate_probabilities;
    let found = if all { &found.similarities } else { &found.probabilities };
    let wanted: Vec<f64> = expected["probabilities"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>())
        .collect();
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1.1e-5, "{name}: {found} for {wanted}");
    }
}

/// Holds a directory that was written against the one that BERTopic wrote, file by file. Torch files differ in how
/// their containers are laid out; their tensors are compared.
fn same_files(written: &Path, original: &Path) {
    let mut compared = 0;
    for entry in std::fs::read_dir(original).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let [stem @ .., extension] = &*name.split('.').collect::<Vec<_>>() else { panic!("{name}") };
        if *extension == "json" && stem.len() > 1 {
            continue; // A dump.
        }
        let other = written.join(name);
        compared += 1;
        if *extension != "bin" {
            assert_eq!(std::fs::read(&other).unwrap(), std::fs::read(&path).unwrap(), "{name}");
            continue;
        }
        let open = |p: &Path| Registry::builtin().open_path(p, &ReadOptions::default()).unwrap();
        let (a, b) = (open(&other), open(&path));
        assert_eq!(a.tensors().len(), b.tensors().len(), "{name}");
        for (i, info) in a.tensors().iter().enumerate() {
            let twin = b.tensor(info.name()).unwrap();
            assert_eq!((info.dtype(), info.shape()), (twin.info.dtype(), twin.info.shape()), "{name}");
            assert_eq!(a.data(i).unwrap().read_all().unwrap(), twin.data.read_all().unwrap(), "{name}");
        }
    }
    assert!(compared >= 3, "{} files of {}", compared, original.display());
    let count = |p: &Path| std::fs::read_dir(p).unwrap().count();
    assert_eq!(count(written), compared, "{}", written.display());
}

#[test]
fn directories_are_read_and_written_again_as_they_were() {
    for name in MODELS {
        for way in WAYS {
            let original = golden(name).join(way);
            let loaded = load(&original, &LoadOptions::default()).unwrap();
            assert_eq!(loaded.notes, [], "{name}/{way}");
            assert_eq!(loaded.serialization.as_str(), way);
            check(&loaded.model, name);
            let folder = tempfile::tempdir().unwrap();
            for other in WAYS {
                let target = folder.path().join(other);
                let mut options = SaveOptions::default();
                options.serialization = Serialization::parse(other).unwrap();
                options.fsync = false;
                let saved = save(&loaded.model, &target, &options).unwrap();
                assert_eq!(saved.notes, [], "{name}/{way}");
                same_files(&target, &golden(name).join(other));
            }
        }
    }
}

#[test]
fn a_light_pickle_comes_back_as_the_directory_it_was_made_of() {
    for name in MODELS {
        let original = golden(name).join("safetensors");
        let model = load(&original, &LoadOptions::default()).unwrap().model;
        let folder = tempfile::tempdir().unwrap();
        let (pickle, target) = (folder.path().join("model.pickle"), folder.path().join("again"));
        let mut options = SaveOptions::default();
        options.fsync = false;
        options.serialization = Serialization::Pickle;
        save(&model, &pickle, &options).unwrap();
        let again = load(&pickle, &LoadOptions::default()).unwrap();
        assert_eq!(again.serialization, Serialization::Pickle);
        assert_eq!(again.notes, [], "{name}");
        check(&again.model, name);
        options.serialization = Serialization::Safetensors;
        save(&again.model, &target, &options).unwrap();
        same_files(&target, &original);
    }
}

#[test]
fn a_whole_pickle_becomes_the_directory_that_bertopic_makes_of_it() {
    for name in MODELS {
        for file in ["model.pickle", "model.pickle.gz"] {
            let loaded = load(golden(name).join(file), &LoadOptions::default()).unwrap();
            check(&loaded.model, name);
            // Reducing topics makes their embeddings wider than BERTopic saves them.
            let wide = loaded.notes.iter().filter(|n| n.text.contains("rounded from f64 to f32")).count();
            assert_eq!(loaded.notes.len(), 1 + wide, "{name}/{file}: {:?}", loaded.notes);
            assert!(loaded.notes.iter().all(|n| n.kind == NoteKind::Changed));
            let note = loaded.notes.last().expect("a note");
            let left = match name {
                "kmeans" => "umap_model (an object of sklearn.decomposition._pca.PCA), hdbscan_model",
                "outliers" => "representation_model (a dict)",
                _ => "a light model is without representative_docs_",
            };
            assert!(note.text.contains(left), "{name}: {}", note.text);
            let mut options = SaveOptions::default();
            options.fsync = false;
            options.save_ctfidf = name != "given";
            if name == "kmeans" {
                let pointer = "sentence-transformers/all-MiniLM-L6-v2";
                options.embedding_model = Pointer::Name(pointer.to_owned());
            }
            let folder = tempfile::tempdir().unwrap();
            for way in WAYS {
                options.serialization = Serialization::parse(way).unwrap();
                let target = folder.path().join(way);
                save(&loaded.model, &target, &options).unwrap();
                same_files(&target, &golden(name).join(way));
            }
        }
    }
}
