//! libtorch beside this library, without Python: files that Python's torch wrote fill variable stores and maps; what
//! the torch writer writes is read by libtorch, and what libtorch writes is read here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};
use weighbridge_formats::backends::torch::script::{Program, attribute, plan};
use weighbridge_formats::transform::{Drop, Select};
use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{
    Archive, ConvertOptions, DType, ErrorKind, MemoryArchive, ReadOptions, Registry, WriteOptions, save,
};
use weighbridge_model::state_dict::tch::{kind_of, tensors};
use weighbridge_model::state_dict::{LoadOptions, archive, load};
use weighbridge_model::{ModelLoader, ModelSaver, Precision};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn open(path: impl AsRef<Path>) -> Box<dyn Archive> {
    Registry::builtin().open_path(path, &ReadOptions::default()).unwrap()
}

/// Leave to replace what is there.
fn over() -> ConvertOptions<'static> {
    let mut options = ConvertOptions::default();
    options.overwrite = true;
    options
}

/// An archive without the tensors of these names.
fn without<'a>(archive: Box<dyn Archive + 'a>, names: &[impl AsRef<str>]) -> Box<dyn Archive + 'a> {
    names.iter().fold(archive, |archive, name| Box::new(Drop::new(archive, name.as_ref()).unwrap()))
}

/// Name, dtype, shape and bytes of every tensor, by name.
fn content(archive: &dyn Archive) -> BTreeMap<String, (DType, Vec<u64>, Vec<u8>)> {
    let read = |(i, t): (usize, &weighbridge_formats::TensorInfo)| {
        (t.name().to_owned(), (t.dtype(), t.shape().to_vec(), archive.data(i).unwrap().read_all().unwrap()))
    };
    archive.tensors().iter().enumerate().map(read).collect()
}

/// A map of libtorch's tensors as an archive has the same content as the file; returns how many there are.
fn fills_a_map(file: &dyn Archive) -> usize {
    let map = tensors(file, Device::Cpu).unwrap();
    assert_eq!(content(&archive(&map).unwrap()), content(file));
    // Loading into tensors that are there gives the same, whatever stood in them.
    let mut other: BTreeMap<String, Tensor> = map.iter().map(|(name, t)| (name.clone(), ones(t))).collect();
    let report = load(&mut other, file, &LoadOptions::default()).unwrap();
    assert!(report.is_clean() && report.matched.len() == map.len());
    assert_eq!(content(&archive(&other).unwrap()), content(file));
    map.len()
}

/// A tensor like another whose bytes are all 1.
fn ones(like: &Tensor) -> Tensor {
    let bytes = vec![1u8; like.numel() * like.kind().elt_size_in_bytes()];
    Tensor::from_data_size(&bytes, &like.size(), like.kind())
}

#[test]
fn files_that_python_wrote_fill_maps_of_tensors() {
    // Ordinary and legacy state dicts, the tar, shared and strided storages, whole checkpoints, shards, safetensors.
    for (name, least) in [
        ("torch/state_dict.pt", 4),
        ("torch/legacy_state_dict.pt", 4),
        ("torch/legacy_protocol_5.pt", 1),
        ("torch/tar.pt", 1),
        ("torch/views.pt", 4),
        ("torch/legacy_views.pt", 4),
        ("torch/parameters.pt", 1),
        ("torch/checkpoint.pt", 4),
        ("torch/legacy_checkpoint.pt", 4),
        ("torch/big_endian.pt", 4),
        ("torch/deflated.pt", 1),
        ("torch/scripted.pt", 1),
        ("torch/sharded/pytorch_model.bin.index.json", 3),
        ("torch/trainer/pytorch_model.bin", 1),
    ] {
        let count = fills_a_map(&*open(golden(name)));
        assert!(count >= least, "{name}: {count} tensors");
    }
}

#[test]
fn every_dtype_of_a_python_file_is_taken_or_named() {
    assert!(fills_a_map(&*open(golden("torch/legacy_dtypes.pt"))) >= 10);
    let file = open(golden("torch/dtypes.pt"));
    let foreign: Vec<String> =
        file.tensors().iter().filter(|t| kind_of(t.dtype()).is_none()).map(|t| t.name().to_owned()).collect();
    let error = tensors(&*file, Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for name in &foreign {
        assert!(error.message().contains(name.as_str()), "{name}: {error}");
    }
    let own = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "bfloat16", "complex32"];
    assert!(own.iter().all(|name| !foreign.iter().any(|f| f == name)), "{foreign:?}");
    let rest = without(file, &foreign);
    assert!(fills_a_map(&*rest) >= 15);
    let map = tensors(&*rest, Device::Cpu).unwrap();
    assert_eq!(map["float8_e4m3fn"].kind(), Kind::Float8e4m3fn);
    // libtorch reads the bytes as the numbers that they are.
    let wide = map["float8_e4m3fn"].to_kind(Kind::Float);
    assert_eq!((wide.double_value(&[0x38]), wide.double_value(&[0xb8])), (1.0, -1.0));
}

#[test]
fn safetensors_fill_maps_too_and_ties_stay_ties() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(golden("torch/state_dict.pt"));
    let path = folder.path().join("model.safetensors");
    save(&Registry::builtin(), &*file, &path, &ConvertOptions::default()).unwrap();
    assert_eq!(fills_a_map(&*open(&path)), file.tensors().len());

    let one = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
    let twice = HashMap::from([("a".to_owned(), one.shallow_clone()), ("b".to_owned(), one.copy())]);
    save(&Registry::builtin(), &archive(&twice).unwrap(), &path, &over()).unwrap();
    let map = tensors(&*open(&path), Device::Cpu).unwrap();
    assert_ne!(map["a"].data_ptr(), map["b"].data_ptr(), "equal numbers are no tie");
}

/// A small network whose variables are named as torch names them.
fn network() -> (VarStore, nn::Linear, nn::Linear) {
    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    let first = nn::linear(&root / "layers" / "0", 5, 7, nn::LinearConfig::default());
    let second = nn::linear(&root / "layers" / "1", 7, 300_000, nn::LinearConfig::default());
    (store, first, second)
}

#[test]
fn a_store_goes_through_every_format_and_comes_back() {
    let (saved, _, big) = network();
    assert!(big.ws.numel() > 2_000_000, "more than a chunk");
    let folder = tempfile::tempdir().unwrap();
    let source = archive(&saved).unwrap();
    for name in ["m.safetensors", "m.pt", "m.pkl"] {
        let path = folder.path().join(name);
        if let Err(error) = save(&Registry::builtin(), &source, &path, &ConvertOptions::default()) {
            assert_eq!((name, error.kind()), ("m.pkl", ErrorKind::NotFound), "{error}");
            continue;
        }
        let (mut loaded, ..) = network();
        let report = load(&mut loaded, &*open(&path), &LoadOptions::default()).unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.matched.len(), 4);
        assert_eq!(content(&archive(&loaded).unwrap()), content(&source), "{name}");
    }
    // As a model's folder, in shards, narrowed; the store takes it back by a cast.
    ModelSaver::new(&source)
        .precision(Precision::to(DType::Bf16))
        .max_shard_size(2_000_000)
        .save(folder.path().join("model"))
        .unwrap();
    let model = ModelLoader::new(folder.path().join("model")).load().unwrap();
    let (mut loaded, ..) = network();
    assert!(load(&mut loaded, model.weights(), &LoadOptions::default()).is_err());
    let report = load(&mut loaded, model.weights(), &LoadOptions::default().with_cast()).unwrap();
    assert!(report.is_clean());
    let near = |name: &str| {
        let (a, b) = (&saved.variables()[name], &loaded.variables()[name]);
        (a - b).abs().max().double_value(&[]) < 0.01
    };
    assert!(report.matched.iter().all(|name| near(name)));
}

#[test]
fn the_part_of_a_nested_checkpoint_fills_a_store() {
    let (saved, ..) = network();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.pt");
    let names: Vec<(String, Tensor)> =
        saved.variables().into_iter().map(|(name, t)| (format!("model_state_dict.{name}"), t)).collect();
    let map: BTreeMap<String, Tensor> = names.into_iter().collect();
    save(&Registry::builtin(), &archive(&map).unwrap(), &path, &ConvertOptions::default()).unwrap();
    let (mut loaded, ..) = network();
    let part = Select::new(open(&path), "model_state_dict").unwrap();
    assert!(load(&mut loaded, &part, &LoadOptions::default()).unwrap().is_clean());
    assert_eq!(content(&archive(&loaded).unwrap()), content(&archive(&saved).unwrap()));

    // What Python wrote nested: the part is chosen by its name, and the report says what is not there.
    let model = ModelLoader::new(golden("torch/checkpoint.pt")).load().unwrap();
    let (mut other, ..) = network();
    let report = load(&mut other, model.weights(), &LoadOptions::lenient());
    let text = match report {
        Ok(report) => report.to_string(),
        Err(error) => error.to_string(),
    };
    assert!(text.contains("layers.0"), "{text}");
}

#[test]
fn libtorch_reads_what_the_torch_writer_writes() {
    // Of these torch itself has no storage class, and libtorch's loader of parameters reads no other.
    let untyped = ["uint16", "uint32", "uint64", "float8*", "float4*", "complex32"];
    let file = without(open(golden("torch/dtypes.pt")), &untyped);
    let mut written = tensors(&*file, Device::Cpu).unwrap();
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]);
    written.insert("strided".into(), base.transpose(0, 1));
    written.insert("scalar".into(), Tensor::from(2.5f32));
    written.insert("empty".into(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.pt");
    save(&Registry::builtin(), &archive(&written).unwrap(), &path, &ConvertOptions::default()).unwrap();
    let read: BTreeMap<String, Tensor> = Tensor::loadz_multi(&path).unwrap().into_iter().collect();
    assert_eq!(read.len(), written.len());
    assert_eq!(content(&archive(&read).unwrap()), content(&archive(&written).unwrap()));

    // Shared and strided storages of a file of Python's, written as they were found.
    let views = open(golden("torch/views.pt"));
    save(&Registry::builtin(), &*views, &path, &over()).unwrap();
    let read: BTreeMap<String, Tensor> = Tensor::loadz_multi(&path).unwrap().into_iter().collect();
    assert!(!read.is_empty());
    assert_eq!(content(&archive(&read).unwrap()), content(&*views));
}

#[test]
fn libtorch_loads_the_programs_that_are_written() {
    let foreign = ["uint16", "uint32", "uint64", "float8_e8m0fnu", "float4*"];
    let file = without(open(golden("torch/dtypes.pt")), &foreign);
    let floats: Vec<&str> = file
        .tensors()
        .iter()
        .filter(|t| t.dtype().torch_name().contains("float"))
        .map(|t| t.name())
        .collect();
    assert!(floats.len() >= 4, "{floats:?}");
    let other: Vec<&str> = file.tensors().iter().map(|t| t.name()).filter(|n| !floats.contains(n)).collect();
    let other: Vec<String> = other.into_iter().map(str::to_owned).collect();
    let typed = without(file, &other);
    // libtorch's loader knows no untyped storages, in which f8 is written.
    let typed = without(typed, &["float8*"]);
    let folder = tempfile::tempdir().unwrap();
    let program = Program {
        class: "Holder".into(),
        arguments: vec!["x".into()],
        outputs: 1,
        body: vec![format!("return torch.add(x, {})", attribute("float32").unwrap())],
        version: "3".into(),
        extra: Vec::new(),
    };
    let none = tensors_of_nothing();
    let mut options = WriteOptions::default();
    options.file_name = "holder.pt".into();
    let plan = plan(&program, &*typed, &none, &options).unwrap();
    execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
    let path = folder.path().join("holder.pt");
    let read: BTreeMap<String, Tensor> = Tensor::load_multi(&path).unwrap().into_iter().collect();
    assert_eq!(content(&archive(&read).unwrap()), content(&*typed));
    // It is a program too, and runs.
    let module = tch::CModule::load(&path).unwrap();
    let out = module.forward_ts(&[Tensor::from(1f32)]).unwrap();
    let wanted = &read["float32"] + 1.0;
    assert_eq!(content(&archive(&out).unwrap()), content(&archive(&wanted).unwrap()));
}

fn tensors_of_nothing() -> MemoryArchive<'static> {
    MemoryArchive::new([]).unwrap()
}

/// What the documentation says that tch cannot do by itself.
#[test]
fn tch_does_not_open_what_is_opened_here() {
    for name in
        ["state_dict.pt", "legacy_state_dict.pt", "checkpoint.pt", "tar.pt", "dtypes.pt", "module_custom.pt"]
    {
        let path = golden("torch").join(name);
        assert!(Tensor::loadz_multi(&path).is_err(), "{name}");
        assert!(Tensor::load_multi(&path).is_err(), "{name}");
        assert!(!open(&path).tensors().is_empty());
    }
}

#[test]
fn what_libtorch_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libtorch.pt");
    let source = Tensor::from_slice(&[0f32, 1.0, 2.5, -3.0]);
    let kinds =
        [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Float8e4m3fn, Kind::ComplexFloat];
    let mut written: Vec<(String, Tensor)> =
        kinds.iter().map(|&kind| (format!("{kind:?}"), source.to_kind(kind))).collect();
    written.push(("strided".into(), source.view([2, 2]).transpose(0, 1)));
    Tensor::save_multi(&written, &path).unwrap();
    let map: BTreeMap<String, Tensor> = written.into_iter().collect();
    assert_eq!(content(&*open(&path)), content(&archive(&map).unwrap()));

    let (store, ..) = network();
    store.save(&path).unwrap();
    let read = open(&path);
    assert!(read.variety().starts_with("TorchScript"), "{}", read.variety());
    // tch writes `|` for the dots of a name.
    let read: BTreeMap<String, _> =
        content(&*read).into_iter().map(|(name, t)| (name.replace('|', "."), t)).collect();
    assert_eq!(read, content(&archive(&store).unwrap()));
    let path = folder.path().join("libtorch.safetensors");
    store.save(&path).unwrap();
    assert_eq!(content(&*open(&path)), content(&archive(&store).unwrap()));
}
