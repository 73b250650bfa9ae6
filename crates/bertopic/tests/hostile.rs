//! What files must not get away with: each rule of a model is broken once.

use std::path::{Path, PathBuf};

use weighbridge_bertopic::{
    Aspect, AspectValue, Asset, Csr, Ctfidf, Documents, Embeddings, Json, LoadOptions, Number, SaveOptions,
    Serialization, Term, TopicModel, Vectorizer, is_directory, load, model_card, save,
};
use weighbridge_formats::{DType, Data, ErrorKind, MemoryArchive, NoteKind, Registry, Tensor, WriteOptions};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bertopic/kmeans/safetensors")
}

/// A copy of a golden directory, to damage.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    std::fs::create_dir(&target).unwrap();
    for name in [
        "topics.json",
        "config.json",
        "ctfidf_config.json",
        "ctfidf.safetensors",
        "topic_embeddings.safetensors",
    ] {
        std::fs::copy(golden().join(name), target.join(name)).unwrap();
    }
    (folder, target)
}

fn edit(folder: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from:?}");
    std::fs::write(folder.join(name), text.replacen(from, to, 1)).unwrap();
}

#[track_caller]
fn refused(folder: &Path, kind: ErrorKind, words: &str) {
    let error = load(folder, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.path().is_some(), "{error}");
}

#[test]
fn text_that_breaks_a_rule_is_refused_with_its_place() {
    let cases = [
        ("topics.json", "\"topics\":", "\"themes\":", ErrorKind::Malformed, "`topics` is missing"),
        ("topics.json", "\"custom_labels\":", "\"c\":", ErrorKind::Malformed, "`custom_labels` is missing"),
        ("topics.json", "\"0\": [", "\"zero\": [", ErrorKind::Malformed, "the number of no topic"),
        ("topics.json", "\"0\": 8", "\"0\": -8", ErrorKind::Malformed, "a topic of -8 documents"),
        ("topics.json", "\"0\": 8", "\"0\": 8.5", ErrorKind::Malformed, "an integer is wanted"),
        ("topics.json", "\"topics\": [\n    0", "\"topics\": [\n    7", ErrorKind::Mismatch, "the topic 7"),
        (
            "topics.json",
            "\"topic_mapper\": [\n    [",
            "\"topic_mapper\": [[1], [",
            ErrorKind::Mismatch,
            "row 1",
        ),
        ("topics.json", "\"2\": [\n      [", "\"-1\": [\n      [", ErrorKind::Mismatch, "no representation"),
        (
            "topics.json",
            "\"topic_sizes\": {",
            "\"topic_sizes\": {\"-1\": 1,",
            ErrorKind::Mismatch,
            "off by one",
        ),
        ("topics.json", "{", "[", ErrorKind::Malformed, "an object"),
        ("config.json", "\"n_gram_range\"", "\"range\"", ErrorKind::Malformed, "`n_gram_range` is missing"),
        (
            "config.json",
            "\"verbose\": false",
            "\"verbose\": 0",
            ErrorKind::Malformed,
            "`verbose` is an integer",
        ),
        ("ctfidf_config.json", "\"vocab\"", "\"words\"", ErrorKind::Malformed, "`vocab`"),
        ("ctfidf_config.json", "\"ngram_range\"", "\"range\"", ErrorKind::Malformed, "`ngram_range`"),
        ("ctfidf_config.json", "\"katze\": ", "\"katze\": 9", ErrorKind::Mismatch, "column"),
        ("ctfidf_config.json", "\"katze\": ", "\"katze\": -1", ErrorKind::Malformed, "column -1"),
        ("ctfidf_config.json", "\"katze\": ", "\"katzen\": 0, \"katze\": ", ErrorKind::Mismatch, "terms"),
    ];
    for (name, from, to, kind, words) in cases {
        let (_keep, folder) = copy();
        edit(&folder, name, from, to);
        refused(&folder, kind, words);
    }
}

#[test]
fn missing_files_and_c_tf_idf_without_its_other_half_are_refused() {
    for name in ["topics.json", "config.json", "topic_embeddings.safetensors", "ctfidf_config.json"] {
        let (_keep, folder) = copy();
        std::fs::remove_file(folder.join(name)).unwrap();
        let error = load(&folder, &LoadOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
    }
    let (_keep, folder) = copy();
    std::fs::remove_file(folder.join("ctfidf.safetensors")).unwrap();
    let loaded = load(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.model.ctfidf, None);
    assert_eq!(loaded.notes[0].kind, NoteKind::Warning);
    assert!(is_directory(&folder) && !is_directory(&folder.join("..")));
}

#[test]
fn what_is_deep_huge_or_no_json_costs_an_error_and_nothing_else() {
    let (_keep, folder) = copy();
    for text in [
        "[".repeat(1_000_000),
        "{\"topics\": ".repeat(100_000),
        format!("{{\"topics\": [{}", "0,".repeat(1_000_000)),
        "{\"topics\": [1e999, 99999999999999999999]}".into(),
        "\u{0}".repeat(64),
    ] {
        std::fs::write(folder.join("topics.json"), text).unwrap();
        refused(&folder, ErrorKind::Malformed, "topics.json");
    }
    let (_keep, folder) = copy();
    let mut options = LoadOptions::default();
    options.read.limits.values = 50;
    assert_eq!(load(&folder, &options).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let mut options = LoadOptions::default();
    options.read.limits.header_bytes = 1000;
    assert_eq!(load(&folder, &options).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// Replaces the tensors of a file.
fn write_tensors(path: &Path, tensors: Vec<Tensor<'static>>) {
    let archive = MemoryArchive::new(tensors).unwrap();
    let mut options = WriteOptions::default();
    options.file_name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let registry = Registry::builtin();
    let plan = registry.serializer("safetensors").unwrap().plan(&archive, &options).unwrap();
    std::fs::remove_file(path).unwrap();
    weighbridge_formats::write::execute(plan, path.parent().unwrap(), &Default::default()).unwrap();
}

fn tensor(name: &str, dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Tensor<'static> {
    Tensor::new(name, dtype, shape, Data::Owned(bytes.into())).unwrap()
}

#[test]
fn embeddings_that_are_no_row_for_each_topic_are_refused() {
    let cases = [
        ("topic_embeddings", DType::F32, &[2, 4][..], ErrorKind::Mismatch, "2 topic embeddings for 3 topics"),
        ("topic_embeddings", DType::F32, &[12], ErrorKind::Mismatch, "a matrix is wanted"),
        ("topic_embeddings", DType::F32, &[0, 4], ErrorKind::Mismatch, "0 topic embeddings"),
        ("topic_embeddings", DType::F32, &[3, 0], ErrorKind::Mismatch, "0 topic embeddings"),
        ("topic_embeddings", DType::I32, &[3, 4], ErrorKind::Unsupported, "floats"),
        ("embeddings", DType::F32, &[3, 4], ErrorKind::NotFound, "topic_embeddings"),
    ];
    for (name, dtype, shape, kind, words) in cases {
        let (_keep, folder) = copy();
        let bytes = vec![0; shape.iter().product::<u64>() as usize * 4];
        write_tensors(&folder.join("topic_embeddings.safetensors"), vec![tensor(name, dtype, shape, bytes)]);
        refused(&folder, kind, words);
    }
    // BERTopic would have written 32 bits.
    let (_keep, folder) = copy();
    let bytes = (0..12).flat_map(|i| (f64::from(i) + 0.1).to_le_bytes()).collect();
    let wide = tensor("topic_embeddings", DType::F64, &[3, 4], bytes);
    write_tensors(&folder.join("topic_embeddings.safetensors"), vec![wide]);
    let loaded = load(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.model.embeddings.data()[1], 1.1);
    assert_eq!(loaded.notes[0].kind, NoteKind::Changed);
}

/// c-TF-IDF's tensors, by which a lie is told.
fn ctfidf(data: usize, indices: &[i32], indptr: &[i64], shape: &[i64], diag: usize) -> Vec<Tensor<'static>> {
    let f64s = |n: usize| vec![0u8; n * 8];
    vec![
        tensor("data", DType::F64, &[data as u64], f64s(data)),
        tensor(
            "indices",
            DType::I32,
            &[indices.len() as u64],
            indices.iter().flat_map(|i| i.to_le_bytes()).collect(),
        ),
        tensor(
            "indptr",
            DType::I64,
            &[indptr.len() as u64],
            indptr.iter().flat_map(|i| i.to_le_bytes()).collect(),
        ),
        tensor(
            "shape",
            DType::I64,
            &[shape.len() as u64],
            shape.iter().flat_map(|i| i.to_le_bytes()).collect(),
        ),
        tensor("diag", DType::F64, &[diag as u64], f64s(diag)),
    ]
}

#[test]
fn a_matrix_that_lies_is_refused() {
    let model = load(golden(), &LoadOptions::default()).unwrap().model;
    let v = model.ctfidf.unwrap().vectorizer.vocabulary.len();
    let n = v as i64;
    let good = || ctfidf(2, &[0, 1], &[0, 1, 1, 2], &[3, n], v);
    let cases = [
        (ctfidf(2, &[0, 1], &[0, 1, 2], &[3, n], v), "3 row pointers for 3 rows"),
        (ctfidf(2, &[0], &[0, 1, 1, 2], &[3, n], v), "1 columns for 2 values"),
        (ctfidf(2, &[0, 1], &[0, 2, 1, 2], &[3, n], v), "row 1 ends before it begins"),
        (ctfidf(2, &[0, 1], &[1, 1, 1, 2], &[3, n], v), "rows from"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, 9], &[3, n], v), "rows from"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, -2], &[3, n], v), "a row at -2"),
        (ctfidf(2, &[0, v as i32], &[0, 1, 1, 2], &[3, n], v), "a value in column"),
        (ctfidf(2, &[0, -1], &[0, 1, 1, 2], &[3, n], v), "a column of -1"),
        (ctfidf(2, &[0, 1], &[0, 1, 2], &[2, n], v), "2 rows for 3 topics"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, 2], &[3, n + 1], v), "for a vocabulary of"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, 2], &[3, n], v - 1), "weights for"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, 2], &[3, n, 1], v), "two sizes"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, 2], &[i64::MAX, i64::MAX], v), "row pointers"),
        (ctfidf(2, &[0, 1], &[0, 1, 1, 2], &[-3, n], v), "a size of -3"),
        (good()[1..].to_vec(), "no tensor \"data\""),
    ];
    let (_keep, folder) = copy();
    let path = folder.join("ctfidf.safetensors");
    write_tensors(&path, good());
    load(&folder, &LoadOptions::default()).unwrap();
    for (tensors, words) in cases {
        write_tensors(&path, tensors);
        let error = load(&folder, &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // Asked to leave c-TF-IDF alone, nothing of it is read.
    let mut without = LoadOptions::default();
    without.ctfidf = false;
    assert_eq!(load(&folder, &without).unwrap().model.ctfidf, None);
}

#[test]
fn parameters_that_bertopic_refuses_are_told_and_not_written() {
    let (keep, folder) = copy();
    edit(&folder, "config.json", "{", "{\"umap_neighbours\": 15,");
    let loaded = load(&folder, &LoadOptions::default()).unwrap();
    assert!(loaded.notes[0].text.contains("umap_neighbours"), "{:?}", loaded.notes);
    assert_eq!(loaded.model.config.unknown, [("umap_neighbours".to_owned(), Json::from(15))]);
    for way in [Serialization::Safetensors, Serialization::Pickle] {
        let target = keep.path().join(way.as_str());
        let mut options = SaveOptions::default();
        options.serialization = way;
        let error = save(&loaded.model, &target, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
        assert!(error.to_string().contains("umap_neighbours") && !target.exists(), "{error}");
        options.allow_loss = true;
        let saved = save(&loaded.model, &target, &options).unwrap();
        assert_eq!(saved.notes.iter().filter(|n| n.kind == NoteKind::Lost).count(), 1);
        assert_eq!(load(&target, &LoadOptions::default()).unwrap().notes, []);
    }
    let (_keep, folder) = copy();
    edit(&folder, "ctfidf_config.json", "\"binary\"", "\"decay\": 0.1, \"binary\"");
    let loaded = load(&folder, &LoadOptions::default()).unwrap();
    let error = save(&loaded.model, keep.path().join("again"), &SaveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("\"decay\""), "{error}");
}

/// A model of two topics and outliers, by hand.
fn model() -> TopicModel {
    let terms = |words: &[&str]| -> Vec<Term> {
        words.iter().map(|w| Term { word: (*w).to_owned(), score: Number::Float(0.5) }).collect()
    };
    TopicModel {
        topics: vec![0, 1, -1, 0],
        representations: vec![
            (-1, terms(&["und", "oder"])),
            (0, terms(&["haus", "dach|first"])),
            (1, terms(&["see", "boot"])),
        ],
        sizes: vec![(0, 2), (1, 1), (-1, 1)],
        mapper: vec![vec![-1, -1], vec![0, 0], vec![1, 1]],
        embeddings: Embeddings::new(2, vec![0.0, 0.0, 1.0, 0.0, 1.0, 0.0]).unwrap(),
        ..TopicModel::default()
    }
}

#[test]
fn images_belong_to_topics_and_stay_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut pictured = model();
    for id in [-1, 0, 1] {
        let path = folder.path().join(format!("{id}.png"));
        std::fs::write(&path, format!("picture {id}")).unwrap();
        pictured.images.push((id, Asset::file(&path).unwrap()));
    }
    // Images without an aspect that says so, one too few, and one that has changed since.
    let target = folder.path().join("model");
    let options = SaveOptions::default();
    assert_eq!(save(&pictured, &target, &options).unwrap_err().kind(), ErrorKind::Mismatch);
    pictured.aspects.push(("Visual_Aspect".into(), Aspect::Images));
    let last = pictured.images.pop().unwrap();
    assert_eq!(save(&pictured, &target, &options).unwrap_err().kind(), ErrorKind::Mismatch);
    pictured.images.push(last);
    let mut as_pickle = SaveOptions::default();
    as_pickle.serialization = Serialization::Pickle;
    let error = save(&pictured, folder.path().join("model.pickle"), &as_pickle).unwrap_err();
    assert!(error.to_string().contains("3 images"), "{error}");
    save(&pictured, &target, &options).unwrap();
    std::fs::write(folder.path().join("0.png"), "another length").unwrap();
    let error = save(&pictured, folder.path().join("other"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert!(!folder.path().join("other").exists());

    let again = load(&target, &LoadOptions::default()).unwrap();
    assert_eq!(again.model.images.len(), 3);
    assert_eq!(std::fs::read(target.join("images/-1.jpg")).unwrap(), b"picture -1");
    // BERTopic fails on a topic without its image once that of topic 0 is there, and looks at none without it.
    std::fs::remove_file(target.join("images/1.jpg")).unwrap();
    refused(&target, ErrorKind::NotFound, "1.jpg");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/etc/hostname", target.join("images/1.jpg")).unwrap();
        refused(&target, ErrorKind::UnsafeContent, "leads out");
    }
    std::fs::remove_file(target.join("images/0.jpg")).unwrap();
    let without = load(&target, &LoadOptions::default()).unwrap();
    assert!(without.model.images.is_empty() && !without.notes.is_empty());
}

#[test]
fn replacing_a_model_leaves_no_file_of_the_old_one_and_every_other_file() {
    let (keep, folder) = copy();
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    std::fs::write(folder.join("README.md"), "a person's").unwrap();
    let loaded = load(&folder, &LoadOptions::default()).unwrap().model;
    let mut options = SaveOptions::default();
    options.serialization = Serialization::Pytorch;
    options.model_card = Some("me/model".into());
    let error = save(&loaded, &folder, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    options.overwrite = true;
    save(&loaded, &folder, &options).unwrap();
    // With the safetensors file still there BERTopic would load that one.
    assert!(
        !folder.join("topic_embeddings.safetensors").exists() && !folder.join("ctfidf.safetensors").exists()
    );
    assert_eq!(std::fs::read(folder.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(std::fs::read(folder.join("README.md")).unwrap(), b"a person's");
    assert_eq!(load(&folder, &LoadOptions::default()).unwrap().serialization, Serialization::Pytorch);
    // An empty folder needs no leave.
    let empty = keep.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    options.overwrite = false;
    save(&loaded, &empty, &options).unwrap();
    assert!(is_directory(&empty));
}

#[test]
fn what_looks_wrong_and_hinders_nobody_is_a_note() {
    type Change = fn(&mut TopicModel);
    let cases: [(Change, &str); 8] = [
        (|m| m.sizes[0].1 = 9, "add up to 11"),
        (|m| m.custom_labels = Some(vec!["one".into()]), "1 custom labels for 3 topics"),
        (|m| m.mapper.clear(), "the topic mapper is empty"),
        (|m| m.mapper[0][1] = 8, "leads to the topic 8"),
        (|m| m.representations[1].1.clear(), "topic 0 has no word"),
        (|m| m.sizes.push((5, 0)), "topic 5 has a size"),
        (|m| m.aspects.push(("A".into(), Aspect::Topics(vec![]))), "\"A\" has no topic"),
        (
            |m| {
                let value = AspectValue::Other(Json::Null);
                m.aspects.push(("A".into(), Aspect::Topics(vec![(0, value)])));
            },
            "lacks 2 of the topics",
        ),
    ];
    assert_eq!(model().check().unwrap(), []);
    for (change, words) in cases {
        let mut changed = model();
        change(&mut changed);
        let notes = changed.check().unwrap();
        assert!(notes.iter().any(|n| n.text.contains(words)), "{words}: {notes:?}");
    }
    assert_eq!(TopicModel::default().check().unwrap_err().kind(), ErrorKind::Mismatch);
    let mut gap = model();
    gap.representations[2].0 = 4;
    gap.topics[1] = 4;
    gap.sizes[1].0 = 4;
    assert!(gap.check().unwrap().iter().any(|n| n.text.contains("without gaps")));
    assert!(gap.transform(Documents::F32(&[1.0, 0.0]), 2).is_err());
}

#[test]
fn documents_are_assigned_as_numpy_would() {
    let mut model = model();
    // The first of two equal topics wins; zero rows have the cosine 0 to everything; -1 is a topic too.
    let found = model.transform(Documents::F32(&[3.0, 4.0, -1.0, 0.0, 0.0, 0.0]), 2).unwrap();
    assert_eq!(found.topics, [0, -1, -1]);
    assert_eq!(found.probabilities, [f64::from(0.6f32), 0.0, 0.0]);
    assert!(found.similarities.is_empty());
    model.config.calculate_probabilities = true;
    let found = model.transform(Documents::F64(&[3.0, 4.0]), 2).unwrap();
    assert_eq!((found.topics, found.similarities), (vec![0], vec![0.0, 0.6, 0.6]));
    assert!(model.transform(Documents::F32(&[]), 2).unwrap().topics.is_empty());
    for (numbers, dim) in
        [(&[1.0f32, 2.0, 3.0][..], 2), (&[1.0, 2.0, 3.0], 3), (&[f32::NAN, 0.0], 2), (&[], 0)]
    {
        assert_eq!(model.transform(Documents::F32(numbers), dim).unwrap_err().kind(), ErrorKind::Mismatch);
    }
}

#[test]
fn a_model_card_counts_by_topic_and_not_by_place() {
    let mut model = model();
    model.custom_labels = Some(vec!["none".into(), "a\nhouse".into(), "a lake".into()]);
    let card = model_card(&model, "me/my \"topics\"");
    assert!(card.starts_with(
        "---\ntags:\n- bertopic\nlibrary_name: bertopic\npipeline_tag: text-classification\n---\n"
    ));
    assert!(card.contains("\n# my \"topics\"\n"), "{card}");
    assert!(card.contains("BERTopic.load(\"me/my \\\"topics\\\"\")"), "{card}");
    assert!(card.contains("| -1 | und - oder | 1 | none |\n"), "{card}");
    assert!(card.contains("| 0 | haus - dach\\|first | 2 | a house |\n"), "{card}");
    assert!(card.contains("| 1 | see - boot | 1 | a lake |\n"), "{card}");
    assert!(card.contains("* Number of topics: 3\n* Number of training documents: 4\n"), "{card}");
    assert!(card.contains("* zeroshot_topic_list: None\n"), "{card}");
}

#[test]
fn a_model_made_by_hand_comes_back_in_all_three_ways() {
    let mut model = model();
    model.ctfidf = Some(Ctfidf {
        matrix: Csr { data: vec![0.5], indices: vec![1], indptr: vec![0, 0, 1, 1], rows: 3, columns: 2 },
        diag: vec![1.0, f64::NAN],
        vectorizer: Vectorizer {
            params: vec![("ngram_range".into(), Json::Array(vec![1.into(), 2.into()]))],
            vocabulary: vec![("dach".into(), 1), ("haus".into(), 0)],
        },
        ..Ctfidf::default()
    });
    model.representations[2].1[0].score = Number::Int(1);
    model.aspects.push(("Odd".into(), Aspect::Topics(vec![(0, AspectValue::Other(Json::from("text")))])));
    let folder = tempfile::tempdir().unwrap();
    for way in [Serialization::Safetensors, Serialization::Pytorch, Serialization::Pickle] {
        let target = folder.path().join(way.as_str());
        let mut options = SaveOptions::default();
        options.serialization = way;
        save(&model, &target, &options).unwrap();
        let again = load(&target, &LoadOptions::default()).unwrap().model;
        assert_eq!(again.representations, model.representations);
        assert_eq!(again.aspects, model.aspects);
        assert_eq!(again.mapper, model.mapper);
        assert_eq!(again.embeddings, model.embeddings);
        let (ours, theirs) = (again.ctfidf.unwrap(), model.ctfidf.as_ref().unwrap());
        assert_eq!(ours.matrix, theirs.matrix);
        assert_eq!(ours.vectorizer.vocabulary, theirs.vectorizer.vocabulary);
        assert!(ours.diag[1].is_nan() && ours.diag[0] == 1.0);
        assert_eq!(ours.vectorizer.param("ngram_range"), theirs.vectorizer.param("ngram_range"));
    }
}
