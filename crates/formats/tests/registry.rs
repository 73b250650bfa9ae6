//! The registry: which format an input is, sharded sets, folders, and what is no model.
#![cfg(feature = "safetensors")]

use std::path::Path;
use std::sync::Arc;

use weighbridge_formats::write::Content;
use weighbridge_formats::{
    Archive, Confidence, DType, Data, Deserializer, ErrorKind, FormatInfo, MemoryArchive, NoteKind, Probe,
    ReadOptions, Registry, Result, Source, Tensor, Value, Values, WriteOptions,
};

/// Writes an archive as safetensors into a folder; the names of the files and their lengths.
fn save(archive: &dyn Archive, folder: &Path, max: Option<u64>) -> Result<Vec<(String, u64)>> {
    let registry = Registry::builtin();
    let mut options = WriteOptions::default();
    options.file_name = "model.safetensors".into();
    options.max_shard_size = max;
    let mut out = Vec::new();
    for file in registry.serializer("safetensors")?.plan(archive, &options)?.files {
        let (name, len) = (file.name.clone(), file.len());
        let mut bytes = Vec::new();
        for segment in file.into_segments() {
            match segment.content {
                Content::Fixed(fixed) => bytes.extend(fixed),
                Content::Data { data, .. } => bytes.extend(data.read_all()?),
                Content::Late(_) => panic!("safetensors has no late segments"),
            }
        }
        assert_eq!(bytes.len() as u64, len);
        std::fs::write(folder.join(&name), bytes).unwrap();
        out.push((name, len));
    }
    Ok(out)
}

fn numbered(count: usize, bytes: usize) -> MemoryArchive<'static> {
    let tensor = |i: usize| {
        let data = Data::Owned(vec![i as u8; bytes].into());
        Tensor::new(format!("layer.{i}.weight"), DType::U8, &[bytes as u64][..], data).unwrap()
    };
    MemoryArchive::new((0..count).map(tensor)).unwrap()
}

fn open(path: &Path) -> Result<Box<dyn Archive>> {
    Registry::builtin().open_path(path, &ReadOptions::default())
}

#[test]
fn a_sharded_set_is_written_below_its_limit_and_read_as_one() {
    let mut values = Values::new();
    let parts = vec![values.push(Value::Tensor(3)).unwrap(), values.push(Value::Int(5)).unwrap()];
    let root = values.push(Value::List(parts)).unwrap();
    values.set_root(root);
    let archive = numbered(25, 1000).with_metadata(vec![("k".into(), "v".into())]).with_values(values);
    for max in [700, 1200, 2500, 10_000, 26_000] {
        let dir = tempfile::tempdir().unwrap();
        let files = save(&archive, dir.path(), Some(max)).unwrap();
        let (index, shards) = files.split_last().unwrap();
        assert_eq!(index.0, "model.safetensors.index.json");
        assert!(shards.iter().all(|(_, len)| *len <= max || max < 1200), "{max}: {shards:?}");
        assert!(shards.len() <= 1 + 25 / (max as usize / 1300).max(1), "{max}: {shards:?}");
        for (i, (name, _)) in shards.iter().enumerate() {
            assert_eq!(*name, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
        }
        for path in [dir.path().join(&index.0), dir.path().to_owned()] {
            let read = open(&path).unwrap();
            assert_eq!((read.format(), read.tensors().len()), ("safetensors", 25));
            assert_eq!(read.files().len(), files.len());
            assert_eq!(read.metadata(), [("k".to_owned(), "v".to_owned())]);
            assert!(read.notes().is_empty(), "{:?}", read.notes());
            for info in archive.tensors() {
                let wanted = (&archive as &dyn Archive).tensor(info.name()).unwrap().data.read_all().unwrap();
                assert_eq!(read.tensor(info.name()).unwrap().data.read_all().unwrap(), wanted);
            }
            let values = read.values().unwrap();
            let parts = values.sequence(values.root().unwrap()).unwrap();
            assert_eq!(values.int(parts[1]), Some(5));
            let Value::Tensor(third) = *values.get(parts[0]) else { panic!("no tensor") };
            assert_eq!(read.tensors()[third as usize].name(), "layer.3.weight");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(save(&archive, dir.path(), Some(40_000)).unwrap().len(), 1, "one file needs no index");
    let alone = save(&numbered(1, 1000), dir.path(), Some(10)).unwrap();
    assert_eq!(alone[0].0, "model.safetensors", "a lone tensor over the limit is a plain file");
    let exact = save(&numbered(9, 1000), dir.path(), None).unwrap()[0].1;
    assert_eq!(save(&numbered(9, 1000), dir.path(), Some(exact)).unwrap().len(), 1);
    assert!(save(&numbered(9, 1000), dir.path(), Some(exact - 1)).unwrap().len() > 2);
    assert_eq!(save(&archive, dir.path(), Some(0)).unwrap_err().kind(), ErrorKind::InvalidOptions);
}

#[test]
fn index_and_shards_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    save(&numbered(4, 1000), dir.path(), Some(2500)).unwrap();
    let (index, one) = (path("model.safetensors.index.json"), path("model-00001-of-00002.safetensors"));
    let two = path("model-00002-of-00002.safetensors");
    let text = std::fs::read_to_string(&index).unwrap();
    let reopened = |text: &str| {
        std::fs::write(&index, text).unwrap();
        open(&index)
    };
    let warned = |archive: Box<dyn Archive>, words: &str| {
        let found = archive.notes().iter().any(|n| n.kind == NoteKind::Warning && n.text.contains(words));
        assert!(found, "{:?}", archive.notes());
        archive.tensors().len()
    };

    // A tensor that no shard has; one that another shard has.
    let error = reopened(&text.replace("layer.0.", "other.0.")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.message().contains("other.0.weight in model-00001-of-00002.safetensors"));
    assert_eq!(error.path(), Some(&*index));
    let swapped = text.replacen("00001-of", "00003-of", 1).replacen("00002-of", "00001-of", 1);
    assert_eq!(
        reopened(&swapped.replacen("00003-of", "00002-of", 1)).unwrap_err().kind(),
        ErrorKind::Mismatch
    );

    // A tensor that the index does not list is read all the same.
    let fewer: String = text.lines().filter(|l| !l.contains("layer.0.")).map(|l| format!("{l}\n")).collect();
    assert_eq!(warned(reopened(&fewer).unwrap(), "layer.0.weight"), 4);

    // A wrong total is worth a word.
    let read = reopened(&text.replace("4000", "4001")).unwrap();
    assert!(read.notes().iter().any(|n| n.text.contains("states 4001")));

    // A tensor in both shards: the index decides.
    let bytes = std::fs::read(&one).unwrap();
    std::fs::copy(&two, &one).unwrap();
    assert_eq!(reopened(&text).unwrap_err().kind(), ErrorKind::Mismatch);
    std::fs::write(&one, &bytes).unwrap();
    let copied = dir.path().join("copy");
    std::fs::create_dir(&copied).unwrap();
    save(&numbered(4, 1000), &copied, None).unwrap();
    std::fs::copy(copied.join("model.safetensors"), &one).unwrap();
    assert_eq!(warned(reopened(&text).unwrap(), "another shard"), 4);

    // All missing shards are named at once.
    std::fs::remove_file(&one).unwrap();
    std::fs::remove_file(&two).unwrap();
    let error = reopened(&text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("2 of 2") && error.message().contains("model-00002-of-00002"));
    assert_eq!(reopened("{\"weight_map\":{}}").unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(reopened("{\"weight_map\":{\"a\":\"../x\"}}").unwrap_err().kind(), ErrorKind::UnsafeContent);
    let in_itself = "{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}";
    assert_eq!(reopened(in_itself).unwrap_err().kind(), ErrorKind::UnknownFormat);
}

#[test]
fn a_folder_opens_its_weights_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).unwrap_err().kind(), ErrorKind::NotFound);
    save(&numbered(2, 10), dir.path(), None).unwrap();
    assert!(open(dir.path()).unwrap().notes().is_empty());
    std::fs::write(dir.path().join("other.safetensors"), "").unwrap();
    let read = open(dir.path()).unwrap();
    assert!(read.notes()[0].text.contains("model.safetensors is read, and not other.safetensors"));
    assert_eq!(read.tensor("layer.1.weight").unwrap().data.read_all().unwrap(), [1; 10]);
}

/// What `all-formats` and `default` turn on, out of the manifest.
fn features_of(list: &str) -> Vec<&'static str> {
    let manifest = include_str!("../Cargo.toml");
    let line = manifest.lines().find_map(|l| l.strip_prefix(list)?.trim().strip_prefix("= [")).unwrap();
    line.trim_end_matches(']').split(',').map(|f| f.trim().trim_matches('"')).collect()
}

#[test]
fn all_formats_is_every_backend_there_is() {
    let mut ours: Vec<_> = Registry::builtin().formats().iter().map(|f| f.info.feature).collect();
    ours.sort_unstable();
    let mut listed = features_of("all-formats");
    listed.sort_unstable();
    assert_eq!(ours, listed);
}

#[cfg(feature = "torch")]
mod torch {
    use super::*;
    use weighbridge_formats::TensorInfo;
    use weighbridge_formats::value::{Dict, DictKind};
    use weighbridge_formats::write::{ExecuteOptions, execute};

    /// Writes a file of any format.
    fn write(archive: &dyn Archive, folder: &Path, name: &str) {
        let registry = Registry::builtin();
        let mut options = WriteOptions::default();
        options.file_name = name.into();
        let format = registry.for_extension(name).unwrap().info.id;
        let plan = registry.serializer(format).unwrap().plan(archive, &options).unwrap();
        execute(plan, folder, &ExecuteOptions::default()).unwrap();
    }

    fn part(names: &[&str]) -> MemoryArchive<'static> {
        let tensor = |n: &&str| {
            Tensor::new(*n, DType::U8, &[n.len() as u64][..], Data::Owned(n.as_bytes().into())).unwrap()
        };
        MemoryArchive::new(names.iter().map(tensor)).unwrap()
    }

    #[test]
    fn a_sharded_set_of_torch_files_keeps_its_storages_apart() {
        let dir = tempfile::tempdir().unwrap();
        write(&part(&["a.w", "b.w"]), dir.path(), "pytorch_model-00001-of-00002.bin");
        write(&part(&["c.w"]), dir.path(), "pytorch_model-00002-of-00002.bin");
        let index = r#"{"metadata":{"total_size":9},"weight_map":{
            "a.w":"pytorch_model-00001-of-00002.bin","b.w":"pytorch_model-00001-of-00002.bin",
            "c.w":"pytorch_model-00002-of-00002.bin"}}"#;
        std::fs::write(dir.path().join("pytorch_model.bin.index.json"), index).unwrap();
        let read = open(dir.path()).unwrap();
        assert_eq!((read.format(), read.tensors().len()), ("torch", 3));
        for info in read.tensors() {
            let view = info.view().unwrap();
            let bytes = read.tensor(info.name()).unwrap().data.read_all().unwrap();
            assert_eq!(bytes, info.name().as_bytes());
            let storage = read.storage_data(view.storage as usize).unwrap().read_all().unwrap();
            assert!(storage.starts_with(&bytes), "{}", info.name());
        }
        let storages: std::collections::BTreeSet<_> =
            read.tensors().iter().filter_map(TensorInfo::view).map(|v| v.storage).collect();
        assert_eq!((storages.len(), read.storages().len()), (3, 3));
        assert!(read.storage_data(3).is_err() && read.data(3).is_err());
        assert!(!read.notes().iter().any(|n| n.kind == NoteKind::Warning), "{:?}", read.notes());

        let safetensors = tempfile::tempdir().unwrap();
        write(&*read, safetensors.path(), "model.safetensors");
        let same = open(safetensors.path()).unwrap();
        assert_eq!(same.metadata(), [("format".to_owned(), "pt".to_owned())]);
        assert!(same.values().is_none(), "a flat state dict needs no values");
        assert_eq!(same.tensor("c.w").unwrap().data.read_all().unwrap(), b"c.w");
    }

    #[test]
    fn a_checkpoint_comes_back_from_safetensors_as_it_was() {
        let mut values = Values::new();
        let mut push = |value| values.push(value).unwrap();
        let keys = ["model", "epoch", "a.w", "_metadata"].map(|k| push(Value::Str(k.into())));
        let (tensor, epoch) = (push(Value::Tensor(0)), push(Value::Int(3)));
        let attributes =
            push(Value::Dict(Box::new(Dict { entries: vec![(keys[3], epoch)], ..Dict::default() })));
        let model = push(Value::Dict(Box::new(Dict {
            kind: DictKind::Ordered,
            entries: vec![(keys[2], tensor)],
            attributes: Some(attributes),
        })));
        let root = push(Value::Dict(Box::new(Dict {
            entries: vec![(keys[0], model), (keys[1], epoch)],
            ..Dict::default()
        })));
        values.set_root(root);
        let dir = tempfile::tempdir().unwrap();
        write(&part(&["model.a.w"]).with_values(values), dir.path(), "one.pt");
        let there = open(&dir.path().join("one.pt")).unwrap();
        write(&*there, dir.path(), "one.safetensors");
        let between = open(&dir.path().join("one.safetensors")).unwrap();
        write(&*between, dir.path(), "two.pt");
        let back = open(&dir.path().join("two.pt")).unwrap();
        for archive in [&there, &between, &back] {
            let values = archive.values().unwrap();
            let root = values.root().unwrap();
            assert_eq!(values.entry(root, "epoch").and_then(|e| values.int(e)), Some(3));
            let model = values.entry(root, "model").unwrap();
            let dict = values.dict(model).unwrap();
            assert_eq!((dict.kind, dict.entries.len()), (DictKind::Ordered, 1));
            assert!(values.entry(dict.attributes.unwrap(), "_metadata").is_some());
            assert_eq!(archive.tensors()[0].name(), "model.a.w");
        }
    }

    #[test]
    fn a_truncated_torch_file_is_called_a_truncated_download() {
        let dir = tempfile::tempdir().unwrap();
        write(&part(&["a.w"]), dir.path(), "x.pt");
        let bytes = std::fs::read(dir.path().join("x.pt")).unwrap();
        let path = dir.path().join("cut.pt");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.message().contains(&format!("{} bytes are there", bytes.len() / 2)), "{error}");
        assert!(error.hint().is_some_and(|h| h.contains("fetch it again")));
    }
}

/// A build without a backend still knows the format's name.
#[cfg(not(feature = "torch"))]
#[test]
fn a_format_that_is_off_is_named_with_its_feature() {
    let stream = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let registry = Registry::builtin();
    let error = registry.open(Source::from_bytes(&stream[..]), &ReadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FormatDisabled);
    assert_eq!(error.hint(), Some("enable the feature `torch`"));
    assert!(registry.serializer("torch").map(|_| ()).unwrap_err().kind() == ErrorKind::FormatDisabled);
}

#[test]
fn what_is_no_model_is_an_error_with_a_way_out() {
    let registry = Registry::builtin();
    let error = |bytes: &[u8]| registry.open(Source::from_bytes(bytes), &ReadOptions::default()).unwrap_err();
    let cases: &[(&[u8], ErrorKind, &str)] = &[
        (b"", ErrorKind::Malformed, "empty"),
        (&[0; 100], ErrorKind::Malformed, "zeros"),
        (b"PK\x03\x04 and the rest is missing", ErrorKind::Malformed, "28 bytes are there"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 12\n", ErrorKind::UnknownFormat, "12 bytes"),
        (b"<html>", ErrorKind::UnknownFormat, "HTML"),
        (b"GGUF\x03\0\0\0", ErrorKind::Unsupported, "GGUF"),
        (b"\x89HDF\r\n\x1a\n", ErrorKind::Unsupported, "HDF5"),
        (b"\x1c\0\0\0TFL3", ErrorKind::Unsupported, "TensorFlow Lite"),
        (b"\x01\x02\x03\xfe\xff", ErrorKind::UnknownFormat, "01 02 03 fe ff"),
        (
            b"\xff\0\0\0\0\0\0\0{\"a\":{\"dtype\"",
            ErrorKind::Malformed,
            "claims 255 bytes, and only 13 follow",
        ),
    ];
    for (bytes, kind, words) in cases {
        let error = error(bytes);
        assert_eq!(error.kind(), *kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().is_some() || *kind == ErrorKind::Unsupported, "{error}");
    }
    // The name of a file does not outweigh what is in it.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    for (bytes, kind, words) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.path() == Some(&*path), "{error}");
        if *kind != ErrorKind::UnknownFormat || !words.starts_with("01") {
            assert!(error.kind() == *kind && error.to_string().contains(words), "{error}");
        }
    }
}

struct Own(&'static FormatInfo, Confidence);

impl Deserializer for Own {
    fn info(&self) -> &'static FormatInfo {
        self.0
    }
    fn sniff(&self, probe: &Probe<'_>) -> Confidence {
        if probe.head().starts_with(b"OWN") { self.1 } else { Confidence::No }
    }
    fn open(&self, _: Source, _: &ReadOptions) -> Result<Box<dyn Archive>> {
        Ok(Box::new(MemoryArchive::new([])?))
    }
}

static ONE: FormatInfo = const {
    let mut info = FormatInfo::new("one", "Format One");
    info.extensions = &["one"];
    info
};
static TWO: FormatInfo = FormatInfo::new("two", "Format Two");

#[test]
fn formats_of_the_users_own_take_part() {
    let mut registry = Registry::builtin();
    let source = || Source::from_bytes(&b"OWN format"[..]);
    assert_eq!(registry.detect(&source()).map(|_| ()).unwrap_err().kind(), ErrorKind::UnknownFormat);
    registry.register(&ONE, Some(Arc::new(Own(&ONE, Confidence::Likely))), None).unwrap();
    assert_eq!(registry.detect(&source()).unwrap().info().id, "one");
    assert_eq!(registry.for_extension("X.ONE").unwrap().info.id, "one");
    assert_eq!(registry.serializer("one").map(|_| ()).unwrap_err().kind(), ErrorKind::Unsupported);
    registry.register(&TWO, Some(Arc::new(Own(&TWO, Confidence::Likely))), None).unwrap();
    let error = registry.detect(&source()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AmbiguousFormat);
    assert!(error.message().contains("Format One") && error.message().contains("Format Two"));
    registry.register(&TWO, Some(Arc::new(Own(&TWO, Confidence::Certain))), None).unwrap();
    assert_eq!(registry.detect(&source()).unwrap().info().id, "two");
    assert!(registry.register(&ONE, Some(Arc::new(Own(&TWO, Confidence::No))), None).is_err());
    assert!(Registry::builtin().format("one").is_err(), "nothing is global");
}

#[test]
fn the_table_says_what_this_build_does() {
    let registry = Registry::builtin();
    for format in registry.formats() {
        assert_eq!(format.reads(), format.compiled && format.info.reads, "{}", format.info.id);
        assert_eq!(format.writes(), format.compiled && format.info.writes, "{}", format.info.id);
        let name = format!("Model.{}", format.info.extensions[0].to_uppercase());
        assert_eq!(registry.for_extension(&name).unwrap().info.id, format.info.id);
    }
    assert!(registry.for_extension("model.safetensors.index.json").is_some());
    for (name, id) in [("x.bin", "torch"), ("x.CKPT", "torch"), ("x.pkl", "pickle"), ("a.b.pth", "torch")] {
        assert_eq!(registry.for_extension(name).unwrap().info.id, id);
    }
    assert!(registry.for_extension("safetensors").is_none() && registry.for_extension("x.txt").is_none());
    let error = registry.deserializer("nosuch").map(|_| ()).unwrap_err();
    assert!(error.hint().is_some_and(|h| h.contains("safetensors")));
}
