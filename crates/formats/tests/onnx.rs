//! ONNX files that break a rule, external data that would leave its folder, and tensors put into a model.
#![cfg(feature = "onnx")]

use std::path::Path;

use prost::Message as _;
use weighbridge_formats::backends::onnx::proto::{
    DataLocation, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};
use weighbridge_formats::backends::onnx::{plan_into, plan_model, read_model};
use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{
    Archive, ConvertOptions, DType, Data, Error, ErrorKind, MemoryArchive, NoteKind, ReadAt, ReadOptions,
    Registry, Result, Source, Tensor, WriteOptions, convert,
};

fn opset() -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }
}

fn model(initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto { name: Some("g".into()), initializer, ..GraphProto::default() };
    ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset()],
        ..ModelProto::default()
    }
}

fn tensor(name: &str, data_type: DataType, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(data_type as i32),
        dims: dims.to_vec(),
        ..TensorProto::default()
    }
}

fn raw(name: &str, data_type: DataType, dims: &[i64], bytes: &[u8]) -> TensorProto {
    TensorProto { raw_data: Some(bytes.to_vec()), ..tensor(name, data_type, dims) }
}

fn open(bytes: Vec<u8>) -> Result<Box<dyn Archive>> {
    Registry::builtin().deserializer("onnx")?.open(Source::from_bytes(bytes), &ReadOptions::default())
}

fn bytes_of(archive: &dyn Archive, name: &str) -> Vec<u8> {
    archive.tensor(name).unwrap().data.read_all().unwrap()
}

/// The error of a model with these initializers, in opening or in reading.
#[track_caller]
fn refused(initializers: Vec<TensorProto>, kind: ErrorKind, words: &str) {
    told(open(model(initializers).encode_to_vec()), kind, words);
}

#[track_caller]
fn told(opened: Result<Box<dyn Archive>>, kind: ErrorKind, words: &str) {
    let error = match opened {
        Err(error) => error,
        Ok(archive) => {
            let read = (0..archive.tensors().len()).map(|i| archive.data(i).and_then(|d| d.read_all()));
            read.filter_map(Result::err).next().unwrap_or_else(|| panic!("{archive:?} was read in full"))
        }
    };
    assert!(error.kind() == kind && error.to_string().contains(words), "{error:?}: not {words:?}");
}

#[test]
fn what_breaks_a_rule_is_malformed() {
    use DataType::{Float, Int4, Int32, Int64, Uint8};
    let bad = |t: TensorProto, words: &str| refused(vec![t], ErrorKind::Malformed, words);
    bad(raw("x", Float, &[-1], &[]), "negative");
    bad(raw("x", Float, &[i64::MAX, i64::MAX], &[]), "64 bits");
    bad(raw("x", Float, &[2], &[0; 7]), "7 bytes");
    bad(raw("x", Int4, &[3], &[0; 3]), "3 bytes");
    bad(raw("", Float, &[0], &[]), "no name");
    bad(raw("x", DataType::Undefined, &[0], &[]), "no data type");
    bad(tensor("x", Float, &[1]), "0 bytes");
    bad(TensorProto { int32_data: vec![1], ..tensor("x", Float, &[1]) }, "belong into `float_data`");
    bad(TensorProto { float_data: vec![1.0; 2], ..tensor("x", Float, &[1]) }, "8 bytes");
    bad(TensorProto { int32_data: vec![256], ..tensor("x", Uint8, &[1]) }, "256 is no element");
    bad(TensorProto { int32_data: vec![-129], ..tensor("x", Uint8, &[1]) }, "-129 is no element");
    bad(TensorProto { int64_data: vec![1, 2], ..tensor("x", Int64, &[1]) }, "more numbers");
    bad(TensorProto { int64_data: vec![1], ..tensor("x", Int64, &[2]) }, "8 bytes");
    bad(TensorProto { int64_data: vec![1], ..tensor("x", Int64, &[1 << 40]) }, "cannot be");
    bad(TensorProto { int32_data: vec![1], raw_data: Some(vec![0; 4]), ..tensor("x", Int32, &[1]) }, "and");
    bad(TensorProto { int32_data: vec![1], float_data: vec![1.0], ..tensor("x", Int32, &[1]) }, "and");
    bad(TensorProto { data_location: Some(7), ..tensor("x", Float, &[0]) }, "location 7");
    bad(TensorProto { string_data: vec![vec![]], ..tensor("x", DataType::String, &[2]) }, "1 strings");
    bad(raw("x", DataType::String, &[1], b"x"), "nowhere else");
    let twice = vec![raw("x", Float, &[0], &[]), raw("x", Float, &[0], &[])];
    refused(twice, ErrorKind::Malformed, "two initializers");
    let unknown = TensorProto { data_type: Some(99), ..tensor("x", Float, &[0]) };
    refused(vec![unknown], ErrorKind::Unsupported, "data type 99");
    let segment = TensorProto { segment: Some(Default::default()), ..tensor("x", Float, &[0]) };
    refused(vec![segment], ErrorKind::Unsupported, "segment");
    refused(vec![raw("x", Float, &[1; 1025], &[0; 4])], ErrorKind::LimitExceeded, "dimensions");
}

#[test]
fn broken_wire_is_malformed() {
    let whole = model(vec![raw("x", DataType::Uint8, &[2], &[1, 2])]).encode_to_vec();
    let with = |tail: &[u8]| [&whole, tail].concat();
    let bad = |bytes: Vec<u8>, words: &str| told(open(bytes), ErrorKind::Malformed, words);
    bad(with(&[0x80]), "ends within a number");
    bad(with(&[0xff; 12]), "ten bytes");
    bad(with(&[0x0b]), "group");
    bad(with(&[0x0c]), "group");
    bad(with(&[0x0e]), "wire type");
    bad(with(&[0x00, 0x00]), "no number of a protobuf field");
    bad(with(&[0x12, 0x7f]), "127 bytes");
    bad(with(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), "are left");
    bad(with(&[0x3a, 0x00]), "two graphs");
    bad(with(&[0x38, 0x00]), "`graph` is written as Varint");
    bad(with(&[0x12, 0x02, 0xff, 0xfe]), "decoded");
    bad(vec![0x08, 0x08], "no graph");
    bad(vec![0x08, 0x08, 0x3a, 0x00], "no operator sets");
    // An unknown field is none of this.
    assert_eq!(bytes_of(&*open(with(&[0xfa, 0x7f, 0x01, 0x00])).unwrap(), "x"), [1, 2]);
}

#[test]
fn subgraphs_do_not_nest_without_end() {
    // Each graph has a node with an attribute that is a graph.
    let mut bytes = Vec::new();
    let wrap = |field: u8, inner: &[u8]| {
        let mut out = vec![field << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    for _ in 0..10_000 {
        bytes = wrap(1, &wrap(5, &wrap(6, &bytes)));
    }
    let file = [wrap(7, &bytes), wrap(8, &opset().encode_to_vec())].concat();
    told(open(file), ErrorKind::LimitExceeded, "nest deeper");
}

#[test]
fn sparse_tensors_are_held_against_their_shape() {
    let sparse = |dims: &[i64], indices: &[i64], shape: &[i64]| {
        let values =
            raw("s", DataType::Uint8, &[indices.len() as i64 / shape.get(1).map_or(1, |r| *r)], &[9, 8]);
        let indices = TensorProto { int64_data: indices.to_vec(), ..tensor("", DataType::Int64, shape) };
        let mut model = model(vec![]);
        model.graph.as_mut().unwrap().sparse_initializer =
            vec![SparseTensorProto { values: Some(values), indices: Some(indices), dims: dims.to_vec() }];
        open(model.encode_to_vec())
    };
    assert_eq!(bytes_of(&*sparse(&[2, 2], &[1, 2], &[2]).unwrap(), "s"), [0, 9, 8, 0]);
    assert_eq!(bytes_of(&*sparse(&[2, 2], &[0, 1, 1, 1], &[2, 2]).unwrap(), "s"), [0, 9, 0, 8]);
    told(sparse(&[2, 2], &[1, 4], &[2]), ErrorKind::Malformed, "is 4, and the size is 4");
    told(sparse(&[2, 2], &[-1, 0], &[2]), ErrorKind::Malformed, "is -1");
    told(sparse(&[2, 2], &[2, 1], &[2]), ErrorKind::Malformed, "not behind");
    told(sparse(&[2, 2], &[1, 1], &[2]), ErrorKind::Malformed, "not behind");
    told(sparse(&[2, 2], &[0, 2, 1, 0], &[2, 2]), ErrorKind::Malformed, "is 2, and the size is 2");
    told(sparse(&[2, 2, 2], &[0, 1, 1, 1], &[2, 2]), ErrorKind::Malformed, "fit no tensor");
    told(sparse(&[1 << 20, 1 << 20], &[0, 1], &[2]), ErrorKind::LimitExceeded, "beyond what is stored");
    told(sparse(&[1 << 40, 1 << 40], &[0, 1], &[2]), ErrorKind::Malformed, "64 bits");
}

/// Numbers that are too many to be decoded when a file is opened.
#[test]
fn long_typed_fields_are_read_in_any_order() {
    let numbers: Vec<i64> = (0..50_000i64).map(|i| i.wrapping_mul(i).wrapping_mul(-7_919)).collect();
    let narrow: Vec<i32> = (0..90_000).map(|i| (i % 256) - 128).collect();
    let int64 = TensorProto { int64_data: numbers.clone(), ..tensor("long", DataType::Int64, &[50_000]) };
    let int8 = TensorProto {
        int32_data: narrow.iter().map(|n| n / 2).collect(),
        ..tensor("narrow", DataType::Int8, &[90_000])
    };
    let archive = open(model(vec![int64, int8]).encode_to_vec()).unwrap();
    let wanted: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    assert!(bytes_of(&*archive, "long") == wanted);
    let data = archive.data(0).unwrap();
    for (at, len) in [(399_990, 10), (5, 3), (100_001, 70_000), (0, 1), (399_999, 1), (8, 0)] {
        let mut buffer = vec![0; len];
        data.read_at(at, &mut buffer).unwrap();
        assert!(buffer == wanted[at as usize..at as usize + len], "{len} at {at}");
    }
    assert!(data.read_at(400_000, &mut [0]).is_err());
    let wanted: Vec<u8> = narrow.iter().map(|n| (n / 2) as i8 as u8).collect();
    assert!(bytes_of(&*archive, "narrow") == wanted);
    // One number too many is found at the end, and by `finish` where the rest was not wanted.
    let more = TensorProto { int64_data: numbers, ..tensor("long", DataType::Int64, &[49_999]) };
    let archive = open(model(vec![more]).encode_to_vec()).unwrap();
    assert!(archive.data(0).unwrap().read_at(0, &mut [0; 8]).is_ok());
    assert_eq!(archive.data(0).unwrap().finish().unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(archive.data(0).unwrap().read_all().unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn odd_counts_of_narrow_floats_stay_with_the_graph() {
    let odd = raw("odd", DataType::Float4e2m1, &[3], &[1, 2]);
    let archive =
        open(model(vec![odd.clone(), raw("x", DataType::Uint8, &[1], &[1])]).encode_to_vec()).unwrap();
    assert_eq!(archive.tensors().len(), 1);
    assert!(archive.notes().iter().any(|n| n.kind == NoteKind::Warning && n.text.contains("odd")));
    let source = Source::from_bytes(model(vec![odd.clone()]).encode_to_vec());
    let (skeleton, _) = read_model(&source, &ReadOptions::default()).unwrap();
    assert_eq!(skeleton.graph.unwrap().initializer, [odd]);
}

// --- External data -----------------------------------------------------------------------------------

fn external(name: &str, len: i64, entries: &[(&str, &str)]) -> TensorProto {
    let entry =
        |(k, v): &(&str, &str)| StringStringEntryProto { key: Some((*k).into()), value: Some((*v).into()) };
    TensorProto {
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(entry).collect(),
        ..tensor(name, DataType::Uint8, &[len])
    }
}

fn beside(folder: &Path, tensors: Vec<TensorProto>) -> Result<Box<dyn Archive>> {
    let path = folder.join("m.onnx");
    std::fs::write(&path, model(tensors).encode_to_vec()).unwrap();
    Registry::builtin().open_path(&path, &ReadOptions::default())
}

#[test]
fn external_data_stay_in_the_folder_and_within_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(dir.path().join("secret"), b"secret").unwrap();
    std::fs::write(folder.join("data"), b"0123456789").unwrap();
    let at = |entries: &[(&str, &str)]| beside(&folder, vec![external("x", 4, entries)]);
    let archive = at(&[("location", "data"), ("offset", "2"), ("length", "4")]).unwrap();
    assert_eq!(bytes_of(&*archive, "x"), b"2345");
    assert_eq!(archive.files().len(), 2);
    for escape in
        ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:secret", "", "*/_ORT_MEM_ADDR_/*"]
    {
        told(at(&[("location", escape)]), ErrorKind::UnsafeContent, "");
    }
    told(at(&[]), ErrorKind::Malformed, "no location");
    told(at(&[("location", "nothing")]), ErrorKind::NotFound, "nothing");
    told(at(&[("location", "data"), ("offset", "7")]), ErrorKind::Malformed, "pass its end at 10");
    told(
        at(&[("location", "data"), ("offset", "18446744073709551615")]),
        ErrorKind::Malformed,
        "pass its end",
    );
    told(at(&[("location", "data"), ("offset", "-1")]), ErrorKind::Malformed, "no number");
    told(at(&[("location", "data"), ("offset", "+1")]), ErrorKind::Malformed, "no number");
    told(at(&[("location", "data"), ("length", "5")]), ErrorKind::Malformed, "5 bytes");
    told(at(&[("location", "data"), ("location", "data")]), ErrorKind::Malformed, "two entries");
    let digest = "87acec17cd9dcd20a716cc2cf67417b71c8a7016";
    let archive = at(&[("location", "data"), ("checksum", digest)]).unwrap();
    assert_eq!(bytes_of(&*archive, "x"), b"0123");
    let other = digest.replace('8', "9");
    told(at(&[("location", "data"), ("checksum", &other)]), ErrorKind::Mismatch, "SHA-1");
    told(at(&[("location", "data"), ("checksum", "abc")]), ErrorKind::Malformed, "no SHA-1");
    // In memory there is no folder.
    let bytes = model(vec![external("x", 4, &[("location", "data")])]).encode_to_vec();
    told(open(bytes), ErrorKind::InvalidOptions, "memory");
}

#[cfg(unix)]
#[test]
fn links_and_devices_are_no_external_data() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(dir.path().join("secret"), b"secret").unwrap();
    std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("device")).unwrap();
    std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
    std::fs::hard_link(dir.path().join("secret"), folder.join("hard")).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    let at = |location: &str| beside(&folder, vec![external("x", 4, &[("location", location)])]);
    for location in ["link", "device", "up/secret"] {
        told(at(location), ErrorKind::UnsafeContent, "leads out of");
    }
    told(at("hard"), ErrorKind::UnsafeContent, "hard link");
    told(at("folder"), ErrorKind::InvalidOptions, "folder");
    // A link to a file of the folder itself is fine.
    std::fs::write(folder.join("data"), b"0123").unwrap();
    std::os::unix::fs::symlink("data", folder.join("inner")).unwrap();
    assert_eq!(bytes_of(&*at("inner").unwrap(), "x"), b"0123");
}

// --- Writing -----------------------------------------------------------------------------------------

fn options(name: &str) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.file_name = name.into();
    options
}

/// Writes a plan; returns the model's bytes.
fn written(folder: &Path, plan: weighbridge_formats::write::WritePlan<'_>) -> Vec<u8> {
    let name = plan.files.last().unwrap().name.clone();
    let mut how = ExecuteOptions::default();
    how.overwrite = true;
    execute(plan, folder, &how).unwrap();
    std::fs::read(folder.join(name)).unwrap()
}

/// A model with a node, an unknown field, a long spelling of a length, and tensors of each storage.
fn base() -> (Vec<u8>, ModelProto) {
    let mut model = model(vec![
        raw("raw", DataType::Float, &[2], &[1; 8]),
        TensorProto {
            float_data: vec![1.0, 2.0],
            doc_string: Some("doc".into()),
            ..tensor("typed", DataType::Float, &[2])
        },
        TensorProto { int64_data: vec![-1; 3], ..tensor("axes", DataType::Int64, &[3]) },
        raw("large", DataType::Uint8, &[2000], &[3; 2000]),
    ]);
    let graph = model.graph.as_mut().unwrap();
    graph.node = vec![NodeProto { op_type: Some("Relu".into()), ..NodeProto::default() }];
    graph.output = vec![ValueInfoProto { name: Some("y".into()), ..ValueInfoProto::default() }];
    let graph = model.graph.take().unwrap().encode_to_vec();
    let mut bytes = vec![0x3a];
    // The length in five bytes where two would do.
    let len = graph.len() + 3;
    bytes.extend([len as u8 | 0x80, (len >> 7) as u8 | 0x80, 0x80, 0x80, 0]);
    bytes.extend(graph);
    bytes.extend([0xfa, 0x7f, 0x00]); // field 2047, of the graph's future
    bytes.extend(model.encode_to_vec());
    bytes.extend([0xfa, 0x7f, 0x01, b'?']);
    let read = ModelProto::decode(&*bytes).unwrap();
    (bytes, read)
}

fn weights<'a>(list: &[(&'static str, DType, &'a [u8])]) -> MemoryArchive<'a> {
    let tensors = list.iter().map(|&(name, dtype, bytes)| {
        let count = bytes.len() as u64 / dtype.size().unwrap();
        Tensor::new(name, dtype, [count].as_slice(), Data::Borrowed(bytes)).unwrap()
    });
    MemoryArchive::new(tensors.collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_model_is_written_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, _) = base();
    let archive = open(bytes.clone()).unwrap();
    let writer = Registry::builtin();
    let writer = writer.serializer("onnx").unwrap();
    assert!(written(dir.path(), writer.plan(&*archive, &options("m.onnx")).unwrap()) == bytes);
    // With one more entry of metadata there is that, behind the rest.
    let mut more = options("m.onnx");
    more.metadata = vec![("k".into(), "v".into())];
    let longer = written(dir.path(), writer.plan(&*archive, &more).unwrap());
    assert!(longer.starts_with(&bytes) && longer.len() == bytes.len() + 8);
    let again = open(longer.clone()).unwrap();
    assert_eq!(again.metadata(), [("k".to_owned(), "v".to_owned())]);
    more.metadata = vec![("k".into(), "w".into())];
    let changed = written(dir.path(), writer.plan(&*again, &more).unwrap());
    assert!(changed.len() == longer.len() && open(changed).unwrap().metadata()[0].1 == "w");
}

#[test]
fn moving_elements_out_and_in_again_changes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, read) = base();
    let archive = open(bytes).unwrap();
    let registry = Registry::builtin();
    let writer = registry.serializer("onnx").unwrap();
    let mut out = options("m.onnx");
    out.external_data = Some(true);
    let moved = written(dir.path(), writer.plan(&*archive, &out).unwrap());
    let outside = ModelProto::decode(&*moved).unwrap();
    let large = &outside.graph.as_ref().unwrap().initializer[3];
    assert!(large.raw_data.is_none() && large.data_location() == DataLocation::External);
    assert_eq!(std::fs::read(dir.path().join("m.onnx.data")).unwrap(), [3; 2000]);
    let path = dir.path().join("m.onnx");
    let second = registry.open_path(&path, &ReadOptions::default()).unwrap();
    assert_eq!(bytes_of(&*second, "large"), [3; 2000]);
    let mut inside = options("n.onnx");
    inside.external_data = Some(false);
    let back = written(dir.path(), writer.plan(&*second, &inside).unwrap());
    assert_eq!(ModelProto::decode(&*back).unwrap(), read);
    // Without a choice it stays outside, in a file of the new name.
    written(dir.path(), writer.plan(&*second, &options("o.onnx")).unwrap());
    assert_eq!(std::fs::read(dir.path().join("o.onnx.data")).unwrap(), [3; 2000]);
}

#[test]
fn tensors_are_put_into_a_model_and_all_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, read) = base();
    let archive = open(bytes.clone()).unwrap();
    let new = weights(&[("raw", DType::F32, &[9; 8]), ("large", DType::U8, &[8; 2000])]);
    let plan = plan_into(&*archive, &new, &options("m.onnx")).unwrap();
    assert!(plan.notes[0].text.contains("2 initializers are replaced, and 2 stay"));
    let put = written(dir.path(), plan);
    // Byte for byte: the elements differ, and nothing else does.
    assert_eq!(put.len(), bytes.len());
    let differing = put.iter().zip(&bytes).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 2008);
    // Numbers become raw bytes, in the place of the field.
    let new = weights(&[("typed", DType::F32, &[7; 8]), ("axes", DType::I64, &[6; 24])]);
    let put = written(dir.path(), plan_into(&*archive, &new, &options("m.onnx")).unwrap());
    assert!(put.ends_with(&[0xfa, 0x7f, 0x01, b'?']));
    let mut wanted = read;
    let initializers = &mut wanted.graph.as_mut().unwrap().initializer;
    (initializers[1].float_data, initializers[1].raw_data) = (vec![], Some(vec![7; 8]));
    (initializers[2].int64_data, initializers[2].raw_data) = (vec![], Some(vec![6; 24]));
    assert_eq!(ModelProto::decode(&*put).unwrap(), wanted);
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let (bytes, _) = base();
    let archive = open(bytes).unwrap();
    let error = |new: &MemoryArchive<'_>| -> Error {
        plan_into(&*archive, new, &options("m.onnx")).err().expect("an error")
    };
    let other_shape = error(&weights(&[("raw", DType::F32, &[9; 12])]));
    assert!(
        other_shape.kind() == ErrorKind::Mismatch && other_shape.tensor() == Some("raw"),
        "{other_shape}"
    );
    let other_dtype = error(&weights(&[("raw", DType::F16, &[9; 4])]));
    assert!(
        other_dtype.kind() == ErrorKind::Mismatch && other_dtype.message().contains("F16"),
        "{other_dtype}"
    );
    let nothing = error(&weights(&[("other", DType::F32, &[9; 8])]));
    assert!(nothing.kind() == ErrorKind::InvalidOptions && nothing.message().contains("other"), "{nothing}");
    let both = weights(&[("other", DType::F32, &[9; 8]), ("raw", DType::F32, &[9; 8])]);
    assert_eq!(error(&both).kind(), ErrorKind::InvalidOptions);
    let mut leave = options("m.onnx");
    leave.allow_loss = true;
    let plan = plan_into(&*archive, &both, &leave).unwrap();
    assert!(plan.notes.iter().any(|n| n.kind == NoteKind::Lost && n.text.contains("other")));
    let no_model = weights(&[("raw", DType::F32, &[9; 8])]);
    assert!(plan_into(&no_model, &both, &options("m.onnx")).is_err());
}

#[test]
fn a_conversion_keeps_the_graph_or_says_that_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (bytes, _) = base();
    std::fs::write(path("a.onnx"), &bytes).unwrap();
    let registry = Registry::builtin();
    let mut options = ConvertOptions::default();
    convert(&registry, &path("a.onnx"), &path("b.onnx"), &options).unwrap();
    assert!(std::fs::read(path("b.onnx")).unwrap() == bytes);
    // A cast, a rename or a choice would make the graph untrue.
    options.drop = vec!["axes".into()];
    let error = convert(&registry, &path("a.onnx"), &path("c.onnx"), &options).unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidOptions && error.message().contains("a graph of 1 node"),
        "{error}"
    );
    assert!(!path("c.onnx").exists());
    options.write.allow_loss = true;
    let report = convert(&registry, &path("a.onnx"), &path("c.onnx"), &options).unwrap();
    assert!(report.notes.iter().any(|n| n.kind == NoteKind::Lost && n.text.contains("graph")));
    // And of plain initializers nothing is lost.
    let mut options = ConvertOptions::default();
    options.precision = weighbridge_formats::transform::Precision::to(DType::F16);
    convert(&registry, &path("c.onnx"), &path("d.onnx"), &options).unwrap();
    let mut options = ConvertOptions::default();
    options.into = Some(path("a.onnx"));
    let wide = convert(&registry, &path("d.onnx"), &path("e.onnx"), &options).unwrap_err();
    assert!(wide.kind() == ErrorKind::Mismatch, "{wide}");
    options.cast_into = true;
    convert(&registry, &path("d.onnx"), &path("e.onnx"), &options).unwrap();
    let e = registry.open_path(path("e.onnx"), &ReadOptions::default()).unwrap();
    assert_eq!(bytes_of(&*e, "typed"), [0, 0, 128, 63, 0, 0, 0, 64]);
    assert_eq!(e.companion().unwrap().summary(), "a graph of 1 node");
}

#[test]
fn graphs_that_differ_are_told() {
    let (bytes, mut other) = base();
    let a = open(bytes).unwrap();
    let found = |other: &ModelProto| {
        let b = open(other.encode_to_vec()).unwrap();
        weighbridge_formats::diff(&*a, &*b, &Default::default()).unwrap().other.values
    };
    assert_eq!(found(&other), []);
    other.graph.as_mut().unwrap().node[0].name = Some("named".into());
    assert_eq!(
        found(&other),
        [(String::new(), ["a graph of 1 node".to_owned(), "a graph of 1 node that is another".to_owned()])]
    );
    other.graph.as_mut().unwrap().node[0].op_type = Some("Sigmoid".into());
    assert_eq!(found(&other), [("nodes".to_owned(), ["1: Relu 1".to_owned(), "1: Sigmoid 1".to_owned()])]);
}

#[test]
fn a_model_and_its_tensors_apart_are_the_model_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole =
        model(vec![raw("a", DataType::Float, &[1], &[1; 4]), raw("b", DataType::Int4, &[3], &[1, 2])]);
    whole.producer_name = Some("p".into());
    let source = Source::from_bytes(whole.encode_to_vec());
    let (skeleton, archive) = read_model(&source, &ReadOptions::default()).unwrap();
    assert!(skeleton.graph.as_ref().unwrap().initializer.is_empty());
    let again = written(dir.path(), plan_model(&skeleton, &*archive, &options("m.onnx")).unwrap());
    assert!(again == whole.encode_to_vec());
}
