//! Models of a program's own, by the derive macro, through files of both formats.

#![cfg(feature = "derive")]

use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{Archive, ErrorKind, ReadOptions, Registry, Result, TensorInfo, WriteOptions};
use weighbridge_model::state_dict::{LoadOptions, OwnedTensor, StateDict, archive, expected, load};

#[derive(Clone, Debug, PartialEq, StateDict)]
struct Linear {
    weight: OwnedTensor,
    bias: Option<OwnedTensor>,
}

#[derive(Clone, Debug, PartialEq, StateDict)]
struct Pair(Linear, Linear);

#[derive(Clone, Debug, PartialEq, StateDict)]
struct Head<T> {
    #[state_dict(rename = "type")]
    kind: T,
}

#[derive(Clone, Debug, PartialEq, StateDict)]
#[state_dict(crate = "weighbridge_model")]
struct Model {
    embedding: OwnedTensor,
    layers: Vec<Pair>,
    #[state_dict(flatten)]
    head: Head<OwnedTensor>,
    #[state_dict(skip)]
    step: u64,
}

fn model(start: f32) -> Model {
    let mut next = start;
    let mut tensor = |shape: &[u64]| {
        let elements: u64 = shape.iter().product();
        let values: Vec<f32> = (0..elements).map(|i| next + i as f32).collect();
        next += 100.0;
        OwnedTensor::from_slice(shape, &values).unwrap()
    };
    let mut linear = |bias: bool| Linear { weight: tensor(&[2, 3]), bias: bias.then(|| tensor(&[2])) };
    let layers = vec![Pair(linear(true), linear(false)), Pair(linear(false), linear(true))];
    Model { embedding: tensor(&[4, 3]), layers, head: Head { kind: tensor(&[]) }, step: 7 }
}

const NAMES: [&str; 8] = [
    "embedding",
    "layers.0.0.weight",
    "layers.0.0.bias",
    "layers.0.1.weight",
    "layers.1.0.weight",
    "layers.1.1.weight",
    "layers.1.1.bias",
    "type",
];

#[test]
fn names_follow_the_fields() {
    let model = model(1.0);
    let archive = archive(&model).unwrap();
    assert_eq!(archive.tensors().iter().map(TensorInfo::name).collect::<Vec<_>>(), NAMES);
    assert_eq!(expected(&model).unwrap().len(), NAMES.len());
}

#[test]
fn a_model_goes_through_files_of_both_formats() -> Result<()> {
    let saved = model(1.0);
    let registry = Registry::builtin();
    let folder = tempfile::tempdir().unwrap();
    for (format, name) in [("safetensors", "model.safetensors"), ("torch", "pytorch_model.bin")] {
        let source = archive(&saved)?;
        let mut options = WriteOptions::default();
        options.file_name = name.into();
        let plan = registry.serializer(format)?.plan(&source, &options)?;
        execute(plan, folder.path(), &ExecuteOptions::default())?;
        let file = registry.open_path(folder.path().join(name), &ReadOptions::default())?;
        let mut loaded = Model { step: 9, ..model(5000.0) };
        assert!(load(&mut loaded, &*file, &LoadOptions::default())?.is_clean(), "{format}");
        assert_eq!(loaded, Model { step: 9, ..saved.clone() }, "{format}");
    }
    Ok(())
}

#[test]
fn another_model_is_refused_and_left_alone() {
    let saved = model(1.0);
    let mut other = model(5000.0);
    other.layers.push(other.layers[0].clone());
    let before = other.clone();
    let error = load(&mut other, &archive(&saved).unwrap(), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.message().contains("3 missing: layers.2.0.bias, layers.2.0.weight"), "{error}");
    assert_eq!(other, before);
    let report = load(&mut other, &archive(&saved).unwrap(), &LoadOptions::lenient()).unwrap();
    assert_eq!((report.missing.len(), report.matched.len()), (3, NAMES.len()));
    assert_eq!((&other.layers[..2], &other.layers[2]), (&saved.layers[..], &before.layers[2]));
}

#[test]
fn a_wrapped_model_is_recognised_by_its_prefix() {
    let saved = std::collections::BTreeMap::from([("module".to_owned(), model(1.0))]);
    let error = load(&mut model(2.0), &archive(&saved).unwrap(), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.hint(), Some("the file's names begin with \"module.\": strip that prefix"));
}
