//! safetensors against its reference implementation: what one writes the other reads, and what the reference
//! refuses is refused.
#![cfg(feature = "safetensors")]

use std::collections::HashMap;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as TheirDtype, TensorView};
use weighbridge_formats::value::{Dict, DictKind};
use weighbridge_formats::write::{Content, WritePlan};
use weighbridge_formats::{
    Archive, DType, Data, ErrorKind, MemoryArchive, NoteKind, ReadAt, ReadOptions, Registry, Result, Source,
    Tensor, TensorInfo, Value, ValueId, Values, ValuesPolicy, View, WriteOptions,
};

/// The bytes of a planned file without late segments.
fn render(plan: WritePlan<'_>) -> Vec<(String, Vec<u8>)> {
    let file = |f: weighbridge_formats::write::FilePlan<'_>| {
        let mut out = Vec::new();
        let name = f.name.clone();
        for segment in f.into_segments() {
            match segment.content {
                Content::Fixed(bytes) => out.extend(bytes),
                Content::Data { data, .. } => out.extend(data.read_all().unwrap()),
                Content::Late(_) => panic!("safetensors has no late segments"),
            }
        }
        (name, out)
    };
    plan.files.into_iter().map(file).collect()
}

fn options(name: &str) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.file_name = name.into();
    options
}

fn write(archive: &dyn Archive, options: &WriteOptions) -> Result<Vec<u8>> {
    let registry = Registry::builtin();
    let mut files = render(registry.serializer("safetensors")?.plan(archive, options)?);
    assert_eq!(files.len(), 1);
    Ok(files.remove(0).1)
}

fn open(bytes: &[u8]) -> Result<Box<dyn Archive>> {
    Registry::builtin().deserializer("safetensors")?.open(Source::from_bytes(bytes), &ReadOptions::default())
}

/// A file of this header, without padding, and this much data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend((0..data).map(|i| i as u8));
    out
}

/// A small generator of its own, so that every run makes the same cases.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn supported() -> Vec<DType> {
    DType::ALL.iter().copied().filter(|d| d.in_safetensors()).collect()
}

fn theirs(dtype: DType) -> TheirDtype {
    serde_json::from_value(dtype.name().into()).unwrap()
}

/// Tensors of every dtype and many shapes, with odd names.
fn samples(random: &mut Random, count: usize) -> Vec<(String, DType, Vec<u64>, Vec<u8>)> {
    let dtypes = supported();
    let shapes: &[&[u64]] = &[&[], &[0], &[8], &[2, 4], &[4, 0, 3], &[1, 1, 1, 1, 1, 8], &[16, 2, 2]];
    let odd = ["", "ünï.ço∂e", "tab\t\"quote\"\\", "日本語", "a\u{0}b", "😀"];
    let mut out = Vec::new();
    for i in 0..count {
        let dtype = dtypes[i % dtypes.len()];
        let mut shape = shapes[random.below(shapes.len())].to_vec();
        if dtype.bytes(shape.iter().product()).is_none() {
            shape = vec![4];
        }
        let bytes = dtype.bytes(shape.iter().product()).unwrap();
        let name = match odd.get(i) {
            Some(name) => (*name).to_owned(),
            None if random.below(20) == 0 => format!("{}{i}", "long.".repeat(2000)),
            None => format!("layer.{}.{i}", random.below(7)),
        };
        out.push((name, dtype, shape, (0..bytes).map(|_| random.below(256) as u8).collect()));
    }
    out
}

#[test]
fn what_is_written_is_the_reference_s_file_to_the_byte() {
    let mut random = Random(42);
    for round in 0..60 {
        let samples = samples(&mut random, round);
        let tensors = samples.iter().map(|(name, dtype, shape, bytes)| {
            Tensor::new(name.as_str(), *dtype, &shape[..], Data::Borrowed(bytes)).unwrap()
        });
        let mut archive = MemoryArchive::new(tensors).unwrap();
        let mut info = None;
        if round % 2 == 1 {
            archive = archive.with_metadata(vec![("kéy\n".into(), "val\"ue".into())]);
            info = Some(HashMap::from([("kéy\n".to_owned(), "val\"ue".to_owned())]));
        }
        let ours = write(&archive, &options("x.safetensors")).unwrap();
        let shapes: Vec<Vec<usize>> =
            samples.iter().map(|s| s.2.iter().map(|&d| d as usize).collect()).collect();
        let views = samples.iter().zip(&shapes).map(|((name, dtype, _, bytes), shape)| {
            (name.clone(), TensorView::new(theirs(*dtype), shape.clone(), bytes).unwrap())
        });
        assert_eq!(ours, safetensors::serialize(views, info).unwrap(), "round {round}");

        let reference = SafeTensors::deserialize(&ours).unwrap();
        let read = open(&ours).unwrap();
        assert_eq!(read.tensors().len(), samples.len());
        for (name, dtype, shape, bytes) in &samples {
            let mine = read.tensor(name).unwrap();
            assert_eq!((mine.info.dtype(), mine.info.shape()), (*dtype, &shape[..]));
            assert_eq!(&mine.data.read_all().unwrap(), bytes);
            let other = reference.tensor(name).unwrap();
            assert_eq!((other.dtype(), other.data()), (theirs(*dtype), &bytes[..]));
        }
        assert_eq!(write(&*read, &options("y.safetensors")).unwrap(), ours, "rewriting changes nothing");
    }
}

#[test]
fn every_dtype_that_the_reference_does_not_know_is_refused() {
    for &dtype in DType::ALL {
        let known = serde_json::from_value::<TheirDtype>(dtype.name().into()).is_ok();
        assert_eq!(dtype.in_safetensors(), known, "{dtype}");
        if known {
            continue;
        }
        let bytes = vec![0; dtype.bytes(8).unwrap() as usize];
        let odd = Tensor::new("odd", dtype, &[8][..], Data::Borrowed(&bytes)).unwrap();
        let fine = Tensor::new("fine", DType::U8, &[1][..], Data::Borrowed(&[7])).unwrap();
        let archive = MemoryArchive::new([odd, fine]).unwrap();
        let mut options = options("x.safetensors");
        let error = write(&archive, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
        assert!(error.message().contains("odd") && error.hint().is_some());
        options.allow_loss = true;
        let plan = Registry::builtin();
        let plan = plan.serializer("safetensors").unwrap().plan(&archive, &options).unwrap();
        assert!(plan.notes.iter().any(|n| n.kind.as_str() == "lost" && n.text.contains("odd")));
        let written = render(plan).remove(0).1;
        assert_eq!(open(&written).unwrap().tensors().len(), 1);
    }
}

/// Each rule with a file that breaks it, and words of the error.
#[test]
fn each_rule_is_enforced() {
    let one = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    assert!(open(&file(one, 2)).is_ok());
    let entry = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "begins with a length"),
        (vec![1, 0, 0, 0, 0, 0, 0], "begins with a length"),
        (100_000_001u64.to_le_bytes().to_vec(), "at most 100000000"),
        (u64::MAX.to_le_bytes().to_vec(), "at most 100000000"),
        (99u64.to_le_bytes().to_vec(), "only 0 follow"),
        (file("", 0), "does not begin with '{'"),
        (file(" {}", 0), "does not begin with '{'"),
        (file("\u{feff}{}", 0), "does not begin with '{'"),
        (file("[]", 0), "does not begin with '{'"),
        (file("{}\0", 0), "other than spaces"),
        (file("{}\n", 0), "other than spaces"),
        (file("{}x", 0), "other than spaces"),
        (file("{", 0), "ends where"),
        (file("{}", 1), "the file has"),
        (file(one, 1), "the file has"),
        (file(one, 3), "the file has"),
        (file(&entry(r#""shape":[2],"data_offsets":[0,2]"#), 2), "no dtype"),
        (file(&entry(r#""dtype":"U8","data_offsets":[0,2]"#), 2), "no shape"),
        (file(&entry(r#""dtype":"U8","shape":[2]"#), 2), "no data_offsets"),
        (file(&entry(r#""dtype":"u8","shape":[2],"data_offsets":[0,2]"#), 2), "unknown"),
        (file(&entry(r#""dtype":"C32","shape":[],"data_offsets":[0,4]"#), 4), "unknown"),
        (file(&entry(r#""dtype":"BITS8","shape":[2],"data_offsets":[0,2]"#), 2), "unknown"),
        (file(&entry(r#""dtype":{"U8":null},"shape":[2],"data_offsets":[0,2]"#), 2), "a string"),
        (file(&entry(r#""dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]"#), 2), "given twice"),
        (file(&entry(r#""dtype":"U8","shape":[-2],"data_offsets":[0,2]"#), 2), "not negative"),
        (file(&entry(r#""dtype":"U8","shape":[2.0],"data_offsets":[0,2]"#), 2), "not negative"),
        (file(&entry(r#""dtype":"U8","shape":[02],"data_offsets":[0,2]"#), 2), "not negative"),
        (file(&entry(r#""dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,2]"#), 2), "64 bits"),
        (
            file(&entry(r#""dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]"#), 0),
            "overflows",
        ),
        (file(&entry(r#""dtype":"U8","shape":[3],"data_offsets":[0,2]"#), 2), "do not fit shape"),
        (file(&entry(r#""dtype":"U16","shape":[2],"data_offsets":[0,2]"#), 2), "do not fit shape"),
        (file(&entry(r#""dtype":"F4","shape":[3],"data_offsets":[0,2]"#), 2), "whole number of bytes"),
        (file(&entry(r#""dtype":"U8","shape":[2],"data_offsets":[1,3]"#), 3), "leaves a hole"),
        (file(&entry(r#""dtype":"U8","shape":[0],"data_offsets":[2,0]"#), 0), "leaves a hole"),
        (file(&entry(r#""dtype":"U8","shape":[2],"data_offsets":[0,2,4]"#), 2), "']'"),
        (file(&entry(r#""dtype":"U8","shape":[2],"data_offsets":[0]"#), 2), "','"),
        (file(r#"{"__metadata__":[]}"#, 0), "'{'"),
        (file(r#"{"__metadata__":{"a":1}}"#, 0), "is no string"),
        (file(r#"{"__metadata__":{"a":null}}"#, 0), "is no string"),
        (file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), "given twice"),
        (file(r#"{"__metadata__":{"a":"","a":""}}"#, 0), "given twice"),
        (file(r#"{"a":["U8",[0],[0,0]]}"#, 0), "'{'"),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
                0,
            ),
            "have this name",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                3,
            ),
            "overlaps",
        ),
        (file("{\"\u{1}\":{}}", 0), "control character"),
        (file(r#"{"\ud800":{}}"#, 0), "surrogate"),
        ([&file("{\"  ", 0)[..], b""].concat(), "ends in a string"),
    ];
    for (bytes, words) in &cases {
        let shown = String::from_utf8_lossy(bytes);
        let error = open(bytes).map(|_| ()).expect_err(&shown);
        assert_eq!(error.kind(), ErrorKind::Malformed, "{shown}: {error}");
        assert!(error.to_string().contains(words), "{shown}: {error}");
        assert_eq!(error.format(), Some("safetensors"));
    }
    let mut bad_utf8 = file(one, 2);
    bad_utf8[10] = 0xFF;
    assert!(open(&bad_utf8).unwrap_err().message().contains("UTF-8"));
    let hole = open(&file(&entry(r#""dtype":"U8","shape":[2],"data_offsets":[1,3]"#), 3)).unwrap_err();
    assert_eq!((hole.tensor(), hole.offset()), (Some("a"), Some(8 + 53 + 1)));
}

#[test]
fn what_the_reference_tolerates_on_purpose_is_read() {
    for header in [
        r#"{"__metadata__":null}"#,
        r#"{"__metadata__":{}}   "#,
        "{ \"__metadata__\" :\t{ } \n}",
        r#"{"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        r#"{"a":{"data_offsets":[0,0],"later":{"x":[1,2.5e3,null,"\u00e9"]},"shape":[0],"dtype":"U8"}}"#,
    ] {
        let bytes = file(header, 0);
        assert!(SafeTensors::deserialize(&bytes).is_ok(), "{header}");
        open(&bytes).unwrap_or_else(|e| panic!("{header}: {e}"));
    }
    // In any order of entries, misaligned, with an escaped name.
    let header = concat!(
        r#"{"b\ud83d\ude00":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"#,
        r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#
    );
    let archive = open(&file(header, 5)).unwrap();
    assert_eq!(archive.tensors().iter().map(|t| t.name()).collect::<Vec<_>>(), ["a", "b😀"]);
    assert_eq!(archive.data(1).unwrap().read_all().unwrap(), [1, 2, 3, 4]);
    assert!(archive.notes().iter().any(|n| n.text.contains("do not begin at a multiple")));
    assert_eq!(archive.data(2).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn nothing_that_the_reference_refuses_is_read() {
    let base = concat!(
        r#"{"__metadata__":{"format":"pt","k\u00e9y":"v"},"a.b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"#,
        r#""c":{"dtype":"F4","shape":[4],"data_offsets":[8,10]},"d":{"dtype":"U8","shape":[],"data_offsets":[10,11]},"#,
        r#""e":{"dtype":"I64","shape":[0,7],"data_offsets":[11,11],"extra":[{"x":-1.5e3},"y",true,null]}}  "#
    );
    assert!(open(&file(base, 11)).is_ok());
    let pieces: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "0",
        "-",
        "1e",
        ".5",
        "1e999",
        "null",
        "true",
        "\\ud800",
        "\\u00e9",
        " ",
        "\n",
        "\0",
        "é",
        "\u{feff}",
        "__metadata__",
        "\"dtype\"",
        "\"a.b\":",
        "[[[[",
        "18446744073709551615",
        "F32",
        "f32",
        "F6_E2M3",
        "{}",
        "\"\":",
        "9223372036854775808",
    ];
    let mut random = Random(7);
    let (mut refused, mut read, mut stricter) = (0, 0, 0);
    // As known writers spell it, and with white space and another order of fields.
    let spaced = base.replace(":{\"dtype\"", " : { \"dtype\"").replace(",\"shape\"", ",\n\"shape\"");
    assert!(open(&file(&spaced, 11)).is_ok());
    for round in 0..30_000 {
        let mut header = [base, &spaced][round % 2].as_bytes().to_vec();
        for _ in 0..=random.below(2) {
            let at = random.below(header.len());
            match random.below(5) {
                0 => header[at] = random.below(256) as u8,
                1 => drop(header.remove(at)),
                2 => {
                    let piece = pieces[random.below(pieces.len())];
                    header.splice(at..at, piece.bytes());
                }
                3 => {
                    let piece = pieces[random.below(pieces.len())];
                    let end = (at + random.below(6)).min(header.len());
                    header.splice(at..end, piece.bytes());
                }
                _ => {
                    // A part of the header once more, somewhere.
                    let end = (at + random.below(60)).min(header.len());
                    let part = header[at..end].to_vec();
                    let to = random.below(header.len());
                    header.splice(to..to, part);
                }
            }
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(&header);
        bytes.extend([0; 11]);
        match (SafeTensors::deserialize(&bytes), open(&bytes)) {
            (Err(e), Ok(_)) => panic!("read, though refused ({e}): {}", String::from_utf8_lossy(&header)),
            (Ok(theirs), Ok(ours)) => {
                read += 1;
                assert_eq!(theirs.len(), ours.tensors().len());
                for (name, view) in theirs.iter() {
                    let tensor = ours.tensor(name).unwrap();
                    let shape: Vec<usize> = tensor.info.shape().iter().map(|&d| d as usize).collect();
                    assert_eq!((shape, tensor.data.len()), (view.shape().to_vec(), view.data().len() as u64));
                }
            }
            (Ok(_), Err(_)) => stricter += 1,
            (Err(_), Err(_)) => refused += 1,
        }
    }
    assert!(
        refused > 10_000 && read > 1_000,
        "{refused} refused, {read} read, {stricter} only by the reference"
    );
}

#[test]
fn a_name_given_twice_is_found_among_many() {
    let header = |twice: &str| {
        let entry = |name: &str| format!(r#""{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
        let mut entries: Vec<String> = (0..5000).map(|i| entry(&format!("t{i}"))).collect();
        entries.push(entry(twice));
        file(&format!("{{{}}}", entries.join(",")), 0)
    };
    assert_eq!(open(&header("t5000")).unwrap().tensors().len(), 5001);
    for twice in ["t0", "t4999", "t\\u0032345"] {
        let error = open(&header(twice)).unwrap_err();
        assert!(error.kind() == ErrorKind::Malformed && error.tensor().is_some(), "{error}");
    }
}

#[test]
fn a_broken_file_is_an_error_or_a_correct_read() {
    let floats: Vec<u8> = (0..32).collect();
    let archive = MemoryArchive::new([
        Tensor::new("weight", DType::F32, &[2, 4][..], Data::Borrowed(&floats)).unwrap(),
        Tensor::new("bias", DType::F16, &[3][..], Data::Borrowed(&floats[..6])).unwrap(),
        Tensor::new("ü", DType::Bool, &[][..], Data::Borrowed(&[1])).unwrap(),
    ])
    .unwrap()
    .with_metadata(vec![("format".into(), "pt".into())]);
    let bytes = write(&archive, &options("x.safetensors")).unwrap();
    let registry = Registry::builtin();
    for len in 0..bytes.len() {
        let error = open(&bytes[..len]).map(|_| ()).expect_err("a part is no file");
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(registry.open(Source::from_bytes(&bytes[..len]), &ReadOptions::default()).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = open(&flipped) {
            assert!(SafeTensors::deserialize(&flipped).is_ok(), "bit {bit}");
            for i in 0..read.tensors().len() {
                assert_eq!(read.data(i).unwrap().read_all().unwrap().len() as u64, read.tensors()[i].bytes());
            }
        }
    }
}

#[test]
fn limits_bound_what_a_header_may_cause() {
    let archive = MemoryArchive::new(
        (0..10).map(|i| Tensor::new(format!("t{i}"), DType::U8, &[1][..], Data::Borrowed(&[7])).unwrap()),
    )
    .unwrap();
    let bytes = write(&archive, &options("x.safetensors")).unwrap();
    let registry = Registry::builtin();
    let reader = registry.deserializer("safetensors").unwrap();
    let mut few = ReadOptions::default();
    few.limits.entries = 9;
    let mut short = ReadOptions::default();
    short.limits.header_bytes = 100;
    for options in [few, short] {
        let error = reader.open(Source::from_bytes(&bytes[..]), &options).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn names_that_a_header_cannot_hold_are_refused() {
    let tensor = |name: &'static str| Tensor::new(name, DType::U8, &[1][..], Data::Borrowed(&[7])).unwrap();
    let archive = MemoryArchive::new([tensor("__metadata__")]).unwrap();
    let error = write(&archive, &options("x.safetensors")).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::InvalidOptions, Some("__metadata__")));
}

#[test]
fn an_empty_shape_whose_product_overflows_is_refused() {
    let tensor = |shape: &[u64]| Tensor::new("w", DType::F32, shape, Data::Borrowed(&[])).unwrap();
    let archive = MemoryArchive::new([tensor(&[1 << 40, 1 << 40, 0])]).unwrap();
    let error = write(&archive, &options("x.safetensors")).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::InvalidOptions, Some("w")));
    write(&MemoryArchive::new([tensor(&[0, 1 << 40, 1 << 40])]).unwrap(), &options("x.safetensors")).unwrap();
}

/// A nested checkpoint: model, optimizer, epoch.
fn checkpoint(weights: &[u8]) -> MemoryArchive<'_> {
    let tensor =
        |name: &'static str| Tensor::new(name, DType::U8, &[4][..], Data::Borrowed(weights)).unwrap();
    let mut values = Values::new();
    let mut push = |value| values.push(value).unwrap();
    let (a, b) = (push(Value::Tensor(0)), push(Value::Tensor(1)));
    let text = ["w", "model", "epoch", "lr", "m", "optimizer"].map(|s| push(Value::Str(s.into())));
    let (epoch, lr) = (push(Value::Int(7)), push(Value::Float(1e-3)));
    let mut dict = |entries: Vec<(ValueId, ValueId)>| {
        push(Value::Dict(Box::new(Dict { kind: DictKind::Dict, entries, attributes: None })))
    };
    let model = dict(vec![(text[0], a)]);
    let optimizer = dict(vec![(text[3], lr), (text[4], b)]);
    let root = dict(vec![(text[1], model), (text[2], epoch), (text[5], optimizer)]);
    values.set_root(root);
    MemoryArchive::new([tensor("model.w"), tensor("optimizer.m")]).unwrap().with_values(values)
}

#[test]
fn values_around_the_tensors_are_kept_or_dropped_as_asked() {
    let weights = [1, 2, 3, 4];
    let archive = checkpoint(&weights);
    let bytes = write(&archive, &options("x.safetensors")).unwrap();
    assert!(SafeTensors::deserialize(&bytes).is_ok());
    let read = open(&bytes).unwrap();
    let values = read.values().unwrap();
    let root = values.root().unwrap();
    assert_eq!(values.entry(root, "epoch").and_then(|e| values.int(e)), Some(7));
    let moment = values.entry(values.entry(root, "optimizer").unwrap(), "m").unwrap();
    let Value::Tensor(index) = *values.get(moment) else { panic!("no tensor") };
    assert_eq!(read.tensors()[index as usize].name(), "optimizer.m");
    assert!(read.metadata().is_empty(), "the entry is no metadata once it is restored");
    assert_eq!(write(&*read, &options("x.safetensors")).unwrap(), bytes);

    let mut drop = options("x.safetensors");
    drop.values = ValuesPolicy::Drop;
    let registry = Registry::builtin();
    let plan = registry.serializer("safetensors").unwrap().plan(&archive, &drop).unwrap();
    let note = plan.notes.iter().find(|n| n.kind == NoteKind::Changed).unwrap();
    assert!(note.text.contains("2 values") && note.text.contains("epoch, optimizer.lr"), "{}", note.text);
    assert!(open(&render(plan).remove(0).1).unwrap().values().is_none());
}

#[test]
fn values_that_cannot_be_restored_stay_as_they_are() {
    for broken in [r#"{"version":1,"root":0,"nodes":[["t","gone"]]}"#, "[]", ""] {
        let archive =
            MemoryArchive::new([]).unwrap().with_metadata(vec![("weighbridge.values".into(), broken.into())]);
        let bytes = write(&archive, &options("x.safetensors")).unwrap();
        let read = open(&bytes).unwrap();
        assert!(read.values().is_none());
        assert_eq!(read.metadata()[0].1, broken);
        assert!(read.notes().iter().any(|n| n.kind == NoteKind::Warning));
        assert_eq!(write(&*read, &options("x.safetensors")).unwrap(), bytes);
    }
}

#[test]
fn values_without_room_are_an_error_or_a_stated_loss() {
    let mut values = Values::new();
    let root = values.push(Value::Str("x".repeat(33 << 20).into())).unwrap();
    values.set_root(root);
    let archive = MemoryArchive::new([]).unwrap().with_values(values);
    let mut options = options("x.safetensors");
    assert_eq!(write(&archive, &options).unwrap_err().kind(), ErrorKind::InvalidOptions);
    options.allow_loss = true;
    let registry = Registry::builtin();
    let plan = registry.serializer("safetensors").unwrap().plan(&archive, &options).unwrap();
    assert!(plan.notes.iter().any(|n| n.kind == NoteKind::Lost));
}

/// An archive that says it is from torch, with tensors that share a storage and carry flags.
struct FromTorch {
    inner: MemoryArchive<'static>,
    metadata: Vec<(String, String)>,
}

impl Archive for FromTorch {
    fn format(&self) -> &'static str {
        "torch"
    }
    fn variety(&self) -> String {
        String::new()
    }
    fn tensors(&self) -> &[TensorInfo] {
        self.inner.tensors()
    }
    fn data(&self, index: usize) -> Result<Data<'_>> {
        self.inner.data(index)
    }
    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }
}

#[test]
fn what_comes_from_torch_says_so_and_sharing_is_told() {
    let tied = |name: &str| {
        let view = View { storage: 0, offset: 0, strides: None };
        let info = TensorInfo::new(name, DType::U8, &[4][..]).unwrap().with_view(view).with_flags(true, true);
        Tensor { info, data: Data::Borrowed(b"abcd") }
    };
    let inner = MemoryArchive::new([tied("embed"), tied("head")]).unwrap();
    let mut archive = FromTorch { inner, metadata: vec![] };
    let registry = Registry::builtin();
    let writer = registry.serializer("safetensors").unwrap();
    let plan = writer.plan(&archive, &options("x.safetensors")).unwrap();
    let kinds: Vec<_> = plan.notes.iter().map(|n| n.kind).collect();
    assert_eq!(kinds, [NoteKind::Changed, NoteKind::Info]);
    assert!(plan.notes[0].text.contains("4 bytes twice: embed, head"), "{}", plan.notes[0].text);
    let read = open(&render(plan).remove(0).1).unwrap();
    assert_eq!(read.metadata(), [("format".to_owned(), "pt".to_owned())]);
    assert_eq!(read.tensor("head").unwrap().data.read_all().unwrap(), b"abcd");
    archive.metadata = vec![("format".into(), "np".into())];
    let mut more = options("x.safetensors");
    more.metadata = vec![("a".into(), "b".into())];
    let read = open(&write(&archive, &more).unwrap()).unwrap();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(read.metadata(), [pair("a", "b"), pair("format", "np")], "sorted, and nothing replaced");
}

#[test]
fn data_of_another_length_than_the_shape_is_refused() {
    struct Liar(MemoryArchive<'static>);
    impl Archive for Liar {
        fn format(&self) -> &'static str {
            "test"
        }
        fn variety(&self) -> String {
            String::new()
        }
        fn tensors(&self) -> &[TensorInfo] {
            self.0.tensors()
        }
        fn data(&self, _: usize) -> Result<Data<'_>> {
            Ok(Data::Borrowed(b"abc"))
        }
    }
    let tensor = Tensor::new("t", DType::U8, &[4][..], Data::Borrowed(b"abcd")).unwrap();
    let error = write(&Liar(MemoryArchive::new([tensor]).unwrap()), &options("x.safetensors")).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Mismatch, Some("t")));
}
