//! NumPy's pickles read, ours read by NumPy, and what must be refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PickleReader, PickleWriter};
use crate::write::{Content, WritePlan};
use crate::{
    Archive, Confidence, DType, Data, Deserializer, ErrorKind, Limits, MemoryArchive, NoteKind, Probe,
    ReadOptions, Result, Serializer, Source, Tensor, Value, Values, ValuesPolicy, WriteOptions,
};

/// NumPy's side of a test: its standard output.
fn peer(arguments: &[&Path]) -> String {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let python = std::env::var_os("WEIGHBRIDGE_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is not there: run `cargo xtask setup`", python.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backends/pickle/numpy_peer.py");
    let output = Command::new(python).args(["-X", "utf8", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn open(bytes: &[u8]) -> Result<Box<dyn Archive>> {
    PickleReader.open(Source::from_bytes(bytes), &ReadOptions::default())
}

fn write_options(protocol: u8) -> WriteOptions {
    WriteOptions { file_name: "x.pkl".into(), pickle_protocol: Some(protocol), ..WriteOptions::default() }
}

/// The bytes of a plan's only file.
fn bytes_of(plan: WritePlan<'_>) -> Vec<u8> {
    let [file] = <[_; 1]>::try_from(plan.files).ok().unwrap();
    let mut out = Vec::new();
    for segment in file.into_segments() {
        assert_eq!(segment.offset, out.len() as u64);
        match segment.content {
            Content::Fixed(bytes) => out.extend(bytes),
            Content::Data { data, .. } => out.extend(data.read_all().unwrap()),
            Content::Late(_) => panic!("a pickle has no late segments"),
        }
    }
    out
}

#[test]
fn arrays_that_numpy_wrote() {
    let folder = tempfile::tempdir().unwrap();
    peer(&[Path::new("write"), folder.path()]);
    let expected = std::fs::read(folder.path().join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let expected = expected.as_object().unwrap();
    assert!(expected.len() > 20);
    for protocol in 0..=5 {
        let path = folder.path().join(format!("{protocol}.pkl"));
        let archive = PickleReader.open(Source::open(&path).unwrap(), &ReadOptions::default()).unwrap();
        for (name, want) in expected {
            let index = archive.position(name).unwrap_or_else(|| panic!("{name} in protocol {protocol}"));
            let info = &archive.tensors()[index];
            let code = info.dtype().numpy_code().unwrap();
            let shape: Vec<u64> = want[1].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            assert_eq!((code, info.shape()), (want[0].as_str().unwrap(), &shape[..]), "{name}");
            let data = archive.data(index).unwrap().read_all().unwrap();
            assert_eq!(hex(&data), want[2].as_str().unwrap(), "{name} in protocol {protocol}");
        }
        // One array in two places is a tensor with two names.
        assert_eq!(archive.tensors().len(), expected.len() + 1);
        assert!(archive.position("again.0").is_some());
        let values = archive.values().unwrap();
        let root = values.root().unwrap();
        let scalars = values.sequence(values.entry(root, "scalars").unwrap()).unwrap();
        let scalars: Vec<&Value> = scalars.iter().map(|id| values.get(*id)).collect();
        assert_eq!(
            scalars,
            [
                &Value::Float(1.5),
                &Value::Int(-3),
                &Value::Bool(true),
                &Value::BigInt([255, 255, 255, 255, 255, 255, 255, 255, 0].into()),
                &Value::Complex(1.0, -2.0),
                &Value::Float(0.5),
            ]
        );
        for foreign in ["text", "objects", "dates"] {
            assert!(matches!(values.get(values.entry(root, foreign).unwrap()), Value::Object(_)));
        }
        let bytes = values.get(values.entry(root, "bytes").unwrap());
        assert_eq!(bytes, &Value::Bytes(vec![b'x'; 3000].into()));
        assert_eq!(values.dict(values.entry(root, "keys").unwrap()).unwrap().entries.len(), 2);
        let notes: Vec<NoteKind> = archive.notes().iter().map(|n| n.kind).collect();
        assert_eq!(notes, [NoteKind::Info, NoteKind::Warning, NoteKind::Info]);
    }
}

/// An archive of every dtype that NumPy has, among other values.
fn mixed() -> (MemoryArchive<'static>, usize) {
    let dtypes: Vec<DType> = DType::ALL.iter().copied().filter(|d| d.numpy_code().is_some()).collect();
    let tensors = dtypes.iter().map(|&dtype| {
        let bytes: Vec<u8> = (0..6 * dtype.size().unwrap()).map(|i| (i % 2) as u8).collect();
        let shape: [u64; 2] = [2, 3];
        Tensor::new(dtype.name(), dtype, shape.as_slice(), Data::Owned(bytes.into())).unwrap()
    });
    let scalar =
        Tensor::new("scalar", DType::F32, [].as_slice(), Data::Owned([0, 0, 128, 63].into())).unwrap();
    let mut values = Values::new();
    let items = (0..=dtypes.len() as u32).map(|i| values.push(Value::Tensor(i)).unwrap()).collect();
    let list = values.push(Value::List(items)).unwrap();
    let key = values.push(Value::Str("list".into())).unwrap();
    let other = values.push(Value::Int(7)).unwrap();
    let pair = values.push(Value::Float(0.5)).unwrap();
    let dict = crate::value::Dict { entries: vec![(key, list), (other, pair)], ..Default::default() };
    let root = values.push(Value::Dict(Box::new(dict))).unwrap();
    values.set_root(root);
    let archive = MemoryArchive::new(tensors.chain([scalar])).unwrap().with_values(values);
    (archive, dtypes.len() + 1)
}

#[test]
fn numpy_reads_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, count) = mixed();
    assert_eq!(count, 15);
    let mut texts = Vec::new();
    for protocol in 2..=5 {
        let path = folder.path().join(format!("{protocol}.pkl"));
        let written = bytes_of(PickleWriter.plan(&archive, &write_options(protocol)).unwrap());
        std::fs::write(&path, &written).unwrap();
        let text = peer(&[Path::new("read"), &path]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), count + 1);
        for (i, (line, info)) in lines.iter().zip(archive.tensors()).enumerate() {
            let code = info.dtype().numpy_code().unwrap();
            let order = if info.dtype().size() == Some(1) { '|' } else { '<' };
            let shape = if info.shape().is_empty() { "[]" } else { "[2, 3]" };
            let data = hex(&archive.data(i).unwrap().read_all().unwrap());
            assert_eq!(*line, format!(".list.{i} {order}{code} {shape} {data}"));
        }
        assert_eq!(lines[count], ".7 0.5");
        texts.push(text);

        let back = open(&written).unwrap();
        assert_eq!(back.variety(), format!("protocol {protocol}"));
        for (i, info) in archive.tensors().iter().enumerate() {
            let read = &back.tensors()[i];
            assert_eq!((read.name(), read.dtype()), (&*format!("list.{i}"), info.dtype()));
            assert_eq!(
                back.data(i).unwrap().read_all().unwrap(),
                archive.data(i).unwrap().read_all().unwrap()
            );
        }
        // What was written and read is written the same again.
        assert_eq!(bytes_of(PickleWriter.plan(&*back, &write_options(protocol)).unwrap()), written);
    }
    assert!(texts.windows(2).all(|t| t[0] == t[1]));
}

#[test]
fn tensors_without_values_stand_by_name() {
    let tensor =
        |name: &'static str| Tensor::new(name, DType::U8, [1].as_slice(), Data::Borrowed(b"a")).unwrap();
    let archive = MemoryArchive::new([tensor("a.b"), tensor("c")]).unwrap();
    let plan = PickleWriter.plan(&archive, &WriteOptions::default()).unwrap();
    assert!(plan.notes.is_empty());
    let back = open(&bytes_of(plan)).unwrap();
    assert_eq!(back.tensors().iter().map(|t| t.name()).collect::<Vec<_>>(), ["a.b", "c"]);
    let mut trained = tensor("a");
    trained.info = trained.info.with_flags(true, true);
    let trained = MemoryArchive::new([trained]).unwrap();
    assert_eq!(PickleWriter.plan(&trained, &write_options(4)).unwrap().notes[0].kind, NoteKind::Info);
    let (mixed, count) = mixed();
    let options = WriteOptions { values: ValuesPolicy::Drop, ..write_options(4) };
    let plan = PickleWriter.plan(&mixed, &options).unwrap();
    assert_eq!(plan.notes.len(), 1);
    let back = open(&bytes_of(plan)).unwrap();
    assert_eq!((back.tensors().len(), back.tensors()[0].name()), (count, "BOOL"));
}

#[test]
fn losses_need_leave() {
    let tensor = || Tensor::new("a", DType::Bf16, [1].as_slice(), Data::Borrowed(b"ab")).unwrap();
    let refused = |archive: &MemoryArchive<'_>, options: &WriteOptions| {
        PickleWriter.plan(archive, options).err().map(|e| e.kind()).unwrap()
    };
    let bf16 = MemoryArchive::new([tensor()]).unwrap();
    assert_eq!(refused(&bf16, &write_options(4)), ErrorKind::Unsupported);
    let empty = || MemoryArchive::new([]).unwrap();
    let metadata = empty().with_metadata(vec![("license".into(), "mit".into())]);
    assert_eq!(refused(&metadata, &write_options(4)), ErrorKind::InvalidOptions);
    let leave = WriteOptions { allow_loss: true, ..write_options(4) };
    assert_eq!(PickleWriter.plan(&metadata, &leave).unwrap().notes[0].kind, NoteKind::Lost);
    let format = empty().with_metadata(vec![("format".into(), "pt".into())]);
    assert!(PickleWriter.plan(&format, &write_options(4)).unwrap().notes.is_empty());
    // Values that do not lead to a tensor.
    let mut values = Values::new();
    let root = values.push(Value::None).unwrap();
    values.set_root(root);
    let lost = MemoryArchive::new([tensor()]).unwrap().with_values(values);
    assert_eq!(refused(&lost, &write_options(4)), ErrorKind::InvalidOptions);
    assert_eq!(PickleWriter.plan(&lost, &leave).unwrap().notes[0].kind, NoteKind::Lost);
    let sharded = WriteOptions { max_shard_size: Some(1), ..write_options(4) };
    assert_eq!(refused(&bf16, &sharded), ErrorKind::InvalidOptions);
    assert_eq!(refused(&empty(), &write_options(6)), ErrorKind::InvalidOptions);
    // Objects that would run code.
    let evil = open(b"cos\nsystem\n(X\x02\x00\x00\x00lstR.").unwrap();
    let error = PickleWriter.plan(&*evil, &write_options(4)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::UnsafeContent);
    assert!(error.message().contains("os.system"));
}

#[test]
fn what_arrays_must_not_be() {
    // np.zeros(3, "f4") in protocol 2, with parts to replace
    let array = |shape: &str, dtype: &str, data: &str| {
        format!(
            "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n{shape}\
             cnumpy\ndtype\n(V{dtype}\nI00\nI01\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntbI00\nV{data}\ntb."
        )
    };
    let good = open(array("(I3\nt", "f4", "abcdefghijkl").as_bytes()).unwrap();
    assert_eq!((good.tensors()[0].name(), good.tensors()[0].shape()), ("tensor", &[3][..]));
    for shape in ["(I4\nt", "(I-3\nt", "(I9223372036854775807\nI9223372036854775807\nt", "I3\n", "(Va\nt"] {
        let error =
            open(array(shape, "f4", "abcdefghijkl").as_bytes()).err().unwrap_or_else(|| panic!("{shape}"));
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }
    // A dtype that no tensor has leaves an object.
    let records = open(array("(I3\nt", "V4", "abcdefghijkl").as_bytes()).unwrap();
    assert!(records.tensors().is_empty() && records.notes().len() == 2);
    // A subclass is more than its elements: it stays an object, and they are a tensor in it.
    let matrix = array("(I3\nt", "f4", "abcdefghijkl").replace("numpy\nndarray", "numpy\nmatrix");
    let matrix = open(matrix.as_bytes()).unwrap();
    assert_eq!((matrix.tensors()[0].name(), matrix.tensors()[0].shape()), ("data", &[3][..]));
    assert_eq!(matrix.data(0).unwrap().read_all().unwrap(), b"abcdefghijkl");
    let values = matrix.values().unwrap();
    assert!(matches!(values.get(values.root().unwrap()), Value::Object(_)));
    let limits = Limits { declared_bytes: 11, ..Limits::default() };
    let options = ReadOptions { limits };
    let bytes = array("(I3\nt", "f4", "abcdefghijkl").into_bytes();
    let error = PickleReader.open(Source::from_bytes(bytes), &options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn what_stands_behind_is_said() {
    let two = open(b"\x80\x02K\x01.\x80\x02K\x02.").unwrap();
    assert_eq!(two.notes()[0].kind, NoteKind::Warning);
    assert!(two.notes()[0].text.starts_with("5 bytes"));
    assert_eq!(open(b"\x80\x04\xff").err().unwrap().kind(), ErrorKind::Malformed);
}

#[test]
fn sniffing() {
    let folder = tempfile::tempdir().unwrap();
    let sniff = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        PickleReader.sniff(&Probe::new(&Source::open(&path).unwrap()))
    };
    assert_eq!(sniff("a", b"\x80\x04K\x01."), Confidence::Likely);
    assert_eq!(sniff("a.pkl", b"(I1\nt."), Confidence::Likely);
    assert_eq!(sniff("a.txt", b"(I1\nt."), Confidence::Name);
    assert_eq!(sniff("a.pkl", b"not a pickle"), Confidence::No);
    assert_eq!(
        sniff("a.pkl", &[b"(".to_vec(), b"I1\n".repeat(5000), b"t.".to_vec()].concat()),
        Confidence::Name
    );
    assert_eq!(sniff("a.bin", b"\x80\x06"), Confidence::No);
    assert_eq!(sniff("a.pkl", b""), Confidence::No);
}
