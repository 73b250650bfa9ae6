//! Objects of other people's classes, written by `plan_objects` and loaded by Python.

use std::process::Command;

use tempfile::tempdir;
use weighbridge::value::{Dict, Global};
use weighbridge::write::{ExecuteOptions, execute};
use weighbridge::{
    DType, Data, ErrorKind, MemoryArchive, Result, Tensor, Value, ValueId, Values, WriteOptions,
};
use weighbridge_formats::backends::pickle::{NUMPY_GLOBALS, new_object, numpy_scalar, plan_objects};
use weighbridge_tests::{python, workspace};

const ALLOWED: [(&str, &str); 3] = [
    ("scipy.sparse._csr", "csr_matrix"),
    ("sklearn.feature_extraction.text", "CountVectorizer"),
    ("numpy", "int64"),
];

fn allow(global: &Global) -> bool {
    ALLOWED.iter().chain(&NUMPY_GLOBALS).any(|(module, name)| global.is(module, name))
}

fn put(values: &mut Values, value: Value) -> ValueId {
    values.push(value).unwrap()
}

fn text(values: &mut Values, text: &str) -> ValueId {
    put(values, Value::Str(text.into()))
}

fn dict(values: &mut Values, entries: &[(&str, ValueId)]) -> ValueId {
    let entries = entries.iter().map(|&(key, value)| (text(values, key), value)).collect();
    put(values, Value::Dict(Box::new(Dict { entries, ..Dict::default() })))
}

/// A fitted vectorizer, a sparse matrix and a scalar, as a light topic model has them.
fn archive() -> Result<MemoryArchive<'static>> {
    let mut values = Values::new();
    let v = &mut values;
    let one = put(v, Value::Int(1));
    let pair = put(v, Value::Tuple(vec![one, one]));
    let int64 = put(v, Value::Global(Box::new(Global::new("numpy", "int64"))));
    let words: Vec<(&str, ValueId)> =
        ["apple", "pear", "plum"].into_iter().zip(0..).map(|(w, i)| (w, put(v, Value::Int(i)))).collect();
    let words = dict(v, &words);
    let (none, no, yes) = (put(v, Value::None), put(v, Value::Bool(false)), put(v, Value::Bool(true)));
    let whole = put(v, Value::Float(1.0));
    let said: Vec<ValueId> =
        ["content", "utf-8", "strict", "word", r"(?u)\b\w\w+\b"].iter().map(|t| text(v, t)).collect();
    let vectorizer = dict(
        v,
        &[
            ("input", said[0]),
            ("encoding", said[1]),
            ("decode_error", said[2]),
            ("strip_accents", none),
            ("preprocessor", none),
            ("tokenizer", none),
            ("analyzer", said[3]),
            ("lowercase", yes),
            ("token_pattern", said[4]),
            ("stop_words", none),
            ("max_df", whole),
            ("min_df", one),
            ("max_features", none),
            ("ngram_range", pair),
            ("vocabulary", none),
            ("binary", no),
            ("dtype", int64),
            ("fixed_vocabulary_", no),
            ("vocabulary_", words),
        ],
    );
    let vectorizer =
        new_object(v, Global::new("sklearn.feature_extraction.text", "CountVectorizer"), Some(vectorizer))?;
    let sizes = [put(v, Value::Int(2)), put(v, Value::Int(3))];
    let shape = put(v, Value::Tuple(sizes.to_vec()));
    let print = put(v, Value::Int(50));
    let parts = [0, 1, 2].map(|i| put(v, Value::Tensor(i)));
    let matrix = dict(
        v,
        &[
            ("_shape", shape),
            ("maxprint", print),
            ("indptr", parts[0]),
            ("indices", parts[1]),
            ("data", parts[2]),
        ],
    );
    let matrix = new_object(v, Global::new("scipy.sparse._csr", "csr_matrix"), Some(matrix))?;
    let score = numpy_scalar(v, DType::F32, &1.5f32.to_le_bytes())?;
    let topic = numpy_scalar(v, DType::I64, &(-1i64).to_le_bytes())?;
    let scores = put(v, Value::List(vec![score, topic]));
    let root = dict(v, &[("vectorizer", vectorizer), ("ctfidf", matrix), ("scores", scores)]);
    v.set_root(root);
    let ints = |list: &[i32]| -> Vec<u8> { list.iter().flat_map(|i| i.to_le_bytes()).collect() };
    let tensor = |name: &'static str, dtype, bytes: Vec<u8>| {
        let length = bytes.len() as u64 * 8 / DType::bits(dtype);
        Tensor::new(name, dtype, [length].as_slice(), Data::Owned(bytes.into()))
    };
    let data = [0.5f64, 0.25, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(MemoryArchive::new([
        tensor("indptr", DType::I32, ints(&[0, 1, 3]))?,
        tensor("indices", DType::I32, ints(&[2, 0, 1]))?,
        tensor("data", DType::F64, data)?,
    ])?
    .with_values(values))
}

#[test]
fn python_loads_objects_of_allowed_classes() {
    let folder = tempdir().unwrap();
    let archive = archive().unwrap();
    for protocol in 2..=5 {
        let mut options = WriteOptions::default();
        options.file_name = format!("{protocol}.pkl");
        options.pickle_protocol = Some(protocol);
        let plan = plan_objects(&archive, &options, &allow).unwrap();
        execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
    }
    let script = workspace().join("tests/interop/pickles.py");
    let out = Command::new(python()).arg(script).arg("objects").arg(folder.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8(out.stdout).unwrap().trim(), "4 files are as they should be");
}

#[test]
fn a_class_that_nobody_allowed_is_refused_by_name() {
    let archive = archive().unwrap();
    let mut options = WriteOptions::default();
    options.file_name = "x.pkl".into();
    for (module, name) in ALLOWED.into_iter().chain(NUMPY_GLOBALS) {
        let without = |global: &Global| allow(global) && !global.is(module, name);
        let error = plan_objects(&archive, &options, &without).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnsafeContent);
        assert!(error.message().contains(&format!("{module}.{name}")), "{error}");
    }
}
