//! Pickles that are damaged, that lie, or that stand for more than they hold.

use std::path::{Path, PathBuf};

use weighbridge_bertopic::{LoadOptions, SaveOptions, Serialization, is_pickle, load, load_archive, save};
use weighbridge_formats::backends::pickle::{new_object, plan_objects};
use weighbridge_formats::value::{Construct, Dict, Global, Object};
use weighbridge_formats::write::execute;
use weighbridge_formats::{
    DType, Data, ErrorKind, MemoryArchive, Registry, Source, Tensor, Value, ValueId, Values, WriteOptions,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bertopic/kmeans/safetensors")
}

/// The bytes of a light model's pickle.
fn light() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pickle");
    let model = load(golden(), &LoadOptions::default()).unwrap().model;
    let mut options = SaveOptions::default();
    options.serialization = Serialization::Pickle;
    save(&model, &path, &options).unwrap();
    std::fs::read(path).unwrap()
}

fn open(bytes: Vec<u8>) -> weighbridge_formats::Result<weighbridge_bertopic::Loaded> {
    let archive = Registry::builtin().open(Source::from_bytes(bytes), &Default::default())?;
    load_archive(&*archive, &LoadOptions::default())
}

/// Replaces the text of a string of the pickle by another of the same length.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let wanted: Vec<u8> = [&[from.len() as u8], from.as_bytes()].concat();
    let at = bytes.windows(wanted.len()).position(|w| w == wanted).unwrap_or_else(|| panic!("no {from:?}"));
    let mut out = bytes.to_vec();
    out[at + 1..at + wanted.len()].copy_from_slice(to.as_bytes());
    out
}

#[test]
fn what_a_fitted_model_has_is_asked_for_by_name() {
    let bytes = light();
    open(bytes.clone()).unwrap();
    let cases = [
        ("topics_", "topicz_", ErrorKind::NotFound, "no `topics_`"),
        ("topic_sizes_", "topic_sizez_", ErrorKind::NotFound, "no `topic_sizes_`"),
        ("topic_representations_", "topic_representationz_", ErrorKind::NotFound, "topic_representations_"),
        ("topic_mapper_", "topic_mapped_", ErrorKind::NotFound, "no `topic_mapper_`"),
        ("mappings_", "mapping__", ErrorKind::NotFound, "no `mappings_`"),
        ("topic_embeddings_", "topic_embeddingz_", ErrorKind::NotFound, "no topic embeddings"),
        ("vocabulary_", "vocabularie", ErrorKind::NotFound, "no `vocabulary_`"),
        ("_idf_diag", "_idf_dial", ErrorKind::NotFound, "no `_idf_diag`"),
        ("csr_matrix", "csc_matrix", ErrorKind::Unsupported, "compressed sparse rows"),
        ("bm25_weighting", "bm26_weighting", ErrorKind::Malformed, "`bm25_weighting`"),
        ("BERTopic", "BERTopik", ErrorKind::InvalidOptions, "bertopic._bertopic.BERTopik"),
    ];
    for (from, to, kind, words) in cases {
        let error = open(renamed(&bytes, from, to)).unwrap_err();
        assert_eq!(error.kind(), kind, "{from}: {error}");
        assert!(error.to_string().contains(words), "{from}: {error}");
    }
}

#[test]
fn a_damaged_pickle_is_an_error_or_another_model_and_nothing_else() {
    let bytes = light();
    let (mut read, mut refused) = (0, 0);
    for at in (0..bytes.len()).step_by(7) {
        for damage in [0x00, 0xff, bytes[at] ^ 1] {
            let mut damaged = bytes.clone();
            damaged[at] = damage;
            match open(damaged) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(open(bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
    assert!(read > 40 && refused > 400, "{read} read, {refused} refused");
}

#[test]
fn damaged_directories_are_errors_or_other_models_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    save(&load(golden(), &LoadOptions::default()).unwrap().model, &target, &SaveOptions::default()).unwrap();
    let (mut read, mut refused) = (0, 0);
    for name in [
        "topics.json",
        "config.json",
        "ctfidf_config.json",
        "ctfidf.safetensors",
        "topic_embeddings.safetensors",
    ] {
        let path = target.join(name);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(11) {
            let mut damaged = good.clone();
            damaged[at] = if at % 2 == 0 { b'"' } else { good[at] ^ 8 };
            std::fs::write(&path, &damaged).unwrap();
            match load(&target, &LoadOptions::default()) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        std::fs::write(&path, good).unwrap();
    }
    assert!(read > 20 && refused > 100, "{read} read, {refused} refused");
}

/// A BERTopic object in the making.
struct Build {
    values: Values,
    state: Vec<(ValueId, ValueId)>,
}

impl Build {
    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value).unwrap()
    }

    fn text(&mut self, text: &str) -> ValueId {
        self.push(Value::Str(text.into()))
    }

    fn dict(&mut self, entries: Vec<(ValueId, ValueId)>) -> ValueId {
        self.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() })))
    }

    fn set(&mut self, name: &str, value: ValueId) {
        let name = self.text(name);
        self.state.push((name, value));
    }

    /// A model of one topic, `words` being what stands at it.
    fn new(words: impl FnOnce(&mut Self) -> ValueId) -> Self {
        let mut this = Self { values: Values::new(), state: Vec::new() };
        let (zero, one) = (this.push(Value::Int(0)), this.push(Value::Int(1)));
        let topics = this.push(Value::List(vec![zero]));
        this.set("topics_", topics);
        let sizes = this.dict(vec![(zero, one)]);
        this.set("topic_sizes_", sizes);
        let words = words(&mut this);
        this.set("topic_representations_", words);
        let row = this.push(Value::Tuple(vec![zero, zero]));
        let rows = this.push(Value::List(vec![row]));
        let name = this.text("mappings_");
        let state = this.dict(vec![(name, rows)]);
        let mapper =
            new_object(&mut this.values, Global::new("bertopic._bertopic", "TopicMapper"), Some(state));
        this.set("topic_mapper_", mapper.unwrap());
        let embeddings = this.push(Value::Tensor(0));
        this.set("topic_embeddings_", embeddings);
        this
    }

    /// One word with its score.
    fn words(&mut self, word: ValueId) -> ValueId {
        let score = self.push(Value::Float(0.5));
        let pair = self.push(Value::Tuple(vec![word, score]));
        self.push(Value::List(vec![pair]))
    }

    fn write(mut self, path: &Path, protocol_1: bool) {
        let state = std::mem::take(&mut self.state);
        let state = self.dict(state);
        let class = Global::new("bertopic._bertopic", "BERTopic");
        let root = if protocol_1 {
            // As protocols 0 and 1 describe an object: a call of `copyreg._reconstructor` with its class.
            let class = self.push(Value::Global(Box::new(class)));
            let base = self.push(Value::Global(Box::new(Global::new("builtins", "object"))));
            let none = self.push(Value::None);
            let args = self.push(Value::Tuple(vec![class, base, none]));
            let call = self.push(Value::Global(Box::new(Global::new("copyreg", "_reconstructor"))));
            let state = Some(state);
            self.push(Value::Object(Box::new(Object {
                construct: Construct::Call,
                class: call,
                args,
                kwargs: None,
                state,
                items: vec![],
                entries: vec![],
            })))
        } else {
            new_object(&mut self.values, class, Some(state)).unwrap()
        };
        self.values.set_root(root);
        let data = Data::Owned(1.0f32.to_le_bytes().to_vec().into());
        let tensor = Tensor::new("embeddings", DType::F32, [1, 1].as_slice(), data).unwrap();
        let archive = MemoryArchive::new([tensor]).unwrap().with_values(self.values);
        let mut options = WriteOptions::default();
        options.file_name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let plan = plan_objects(&archive, &options, &|_| true).unwrap();
        execute(plan, path.parent().unwrap(), &Default::default()).unwrap();
    }
}

#[test]
fn objects_are_known_by_every_protocol_and_words_by_numpy_too() {
    let folder = tempfile::tempdir().unwrap();
    for (name, old) in [("new.pickle", false), ("old.pickle", true)] {
        let path = folder.path().join(name);
        Build::new(|b| {
            let zero = b.push(Value::Int(0));
            // `numpy.str_("ab🦀")`: four bytes a character.
            let args = [Value::Str("U3".into()), Value::Bool(false), Value::Bool(true)].map(|v| b.push(v));
            let args = b.push(Value::Tuple(args.to_vec()));
            let class = b.push(Value::Global(Box::new(Global::new("numpy", "dtype"))));
            let order = b.text("<");
            let three = b.push(Value::Int(3));
            let none = b.push(Value::None);
            let state = b.push(Value::Tuple(vec![three, order, none, none, none, three, three, three]));
            let call = |class, args, state| {
                Value::Object(Box::new(Object {
                    construct: Construct::Call,
                    class,
                    args,
                    kwargs: None,
                    state,
                    items: vec![],
                    entries: vec![],
                }))
            };
            let dtype = b.push(call(class, args, Some(state)));
            let units: Vec<u8> = "ab🦀".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            let bytes = b.push(Value::Bytes(units.into()));
            let args = b.push(Value::Tuple(vec![dtype, bytes]));
            let class = b.push(Value::Global(Box::new(Global::new("numpy._core.multiarray", "scalar"))));
            let word = b.push(call(class, args, None));
            let words = b.words(word);
            b.dict(vec![(zero, words)])
        })
        .write(&path, old);
        let archive = Registry::builtin().open_path(&path, &Default::default()).unwrap();
        assert!(is_pickle(&*archive), "{name}");
        let model = load(&path, &LoadOptions::default()).unwrap().model;
        assert_eq!(model.representation(0).unwrap()[0].word, "ab🦀", "{name}");
    }
}

#[test]
fn sharing_does_not_multiply_without_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pickle");
    Build::new(|b| {
        let word = b.text("word");
        let score = b.push(Value::Float(0.5));
        let pair = b.push(Value::Tuple(vec![word, score]));
        let many = b.push(Value::List(vec![pair; 20_000]));
        let entries = (0..20_000).map(|i| (b.push(Value::Int(i)), many)).collect();
        b.dict(entries)
    })
    .write(&path, false);
    assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
    let mut options = LoadOptions::default();
    options.read.limits.values = 1_000_000;
    let error = load(&path, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    // A list that holds itself, where an aspect is wanted.
    let path = folder.path().join("cycle.pickle");
    let mut build = Build::new(|b| {
        let (zero, word) = (b.push(Value::Int(0)), b.text("word"));
        let words = b.words(word);
        b.dict(vec![(zero, words)])
    });
    let cycle = build.push(Value::List(vec![]));
    *build.values.get_mut(cycle) = Value::List(vec![cycle, cycle]);
    let (zero, name) = (build.push(Value::Int(0)), build.text("Odd"));
    let topics = build.dict(vec![(zero, cycle)]);
    let aspects = build.dict(vec![(name, topics)]);
    build.set("topic_aspects_", aspects);
    build.write(&path, false);
    let error = load(&path, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("nest deeper"), "{error}");
}
