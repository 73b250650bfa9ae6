//! One suite that every backend passes. [`run`] takes a format of the registry that is read and written; a new
//! backend is covered by being there.
//!
//! What a format need not hold is refused with an error that names what it is about, or told in a note; what it says
//! that it holds comes back to the byte. The checks are functions of their own, so that a test can name them.

use std::path::Path;

use weighbridge_formats::write::Content;
use weighbridge_formats::{
    Archive, DType, Data, ErrorKind, MemoryArchive, NoteKind, ReadAt, ReadOptions, Registry, Source, Tensor,
    TensorInfo,
};

use crate::archives::{self, Shared, named, tensor};
use crate::compare::{assert_same_tensors, assert_same_values, bytes_of};
use crate::damage::{self, Opened};
use crate::random::Random;
use crate::readers::Sparse;
use crate::write::{options, reopen, save, save_any};

/// A check of a format, by its id; it may use the folder, which is empty.
pub type Check = fn(&Registry, &str, &Path);

/// Every check with its name.
pub const CHECKS: &[(&str, Check)] = &[
    ("dtypes", dtypes),
    ("shapes", shapes),
    ("names", names),
    ("ten_thousand_tensors", ten_thousand_tensors),
    ("no_tensors", no_tensors),
    ("over_four_gib", over_four_gib),
    ("shared_storage", shared_storage),
    ("nested_values", nested_values),
    ("chunked_reads", chunked_reads),
    ("byte_stable_rewrite", byte_stable_rewrite),
    ("truncation", truncation),
    ("flipped_bits", flipped_bits),
];

/// The formats that the suite is for: those of the registry that this build reads and writes.
pub fn formats(registry: &Registry) -> Vec<&'static str> {
    registry.formats().iter().filter(|f| f.reads() && f.writes()).map(|f| f.info.id).collect()
}

/// Runs one check on every format.
///
/// # Panics
/// If a backend fails it, and if there is no format or no such check.
pub fn run(name: &str) {
    let registry = Registry::builtin();
    let formats = formats(&registry);
    assert!(formats.len() >= 2, "formats that are read and written: {formats:?}");
    let (_, check) = CHECKS.iter().find(|(n, _)| *n == name).expect("a check of this name");
    for format in formats {
        let folder = tempfile::tempdir().expect("a temporary folder");
        check(&registry, format, folder.path());
    }
}

/// Writes, reads and compares the tensors.
fn there_and_back(registry: &Registry, format: &str, archive: &dyn Archive, folder: &Path, what: &str) {
    let what = format!("{format}: {what}");
    let saved = save(registry, format, archive, folder, "model").unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let lost: Vec<_> = saved.notes.iter().filter(|n| n.kind == NoteKind::Lost).collect();
    assert!(lost.is_empty(), "{what}: {lost:?}");
    let read = reopen(registry, format, &saved.path).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert_same_tensors(archive, &*read, &what);
}

/// The dtypes that a format holds; each comes back, and the others are refused by name.
fn held_dtypes(registry: &Registry, format: &str, folder: &Path) -> Vec<DType> {
    let mut held = Vec::new();
    for &dtype in DType::ALL {
        let mut random = Random::new(dtype.bits());
        let archive = archives::of([tensor("some.weight", dtype, &[3, 8], &mut random)]);
        match save(registry, format, &archive, folder, "model") {
            Ok(saved) => {
                let read = reopen(registry, format, &saved.path)
                    .unwrap_or_else(|e| panic!("{format}, {dtype}: {e:?}"));
                assert_same_tensors(&archive, &*read, &format!("{format}, {dtype}"));
                held.push(dtype);
            }
            Err(e) => {
                let text = format!("{e} {e:?}");
                let kind = matches!(e.kind(), ErrorKind::InvalidOptions | ErrorKind::Unsupported);
                assert!(kind && text.contains(dtype.name()), "{format}, {dtype}: {text}");
                assert!(text.contains("some.weight"), "{format}, {dtype}: which tensor? {text}");
            }
        }
    }
    held
}

/// Every dtype comes back or is refused by name; what every model is made of is held.
pub fn dtypes(registry: &Registry, format: &str, folder: &Path) {
    let held = held_dtypes(registry, format, folder);
    for wanted in [DType::F32, DType::F16, DType::F64, DType::I64, DType::I32, DType::U8, DType::Bool] {
        assert!(held.contains(&wanted), "{format} does not hold {wanted}");
    }
    let expected: Option<Vec<DType>> = match format {
        "safetensors" => Some(DType::ALL.iter().copied().filter(|d| d.in_safetensors()).collect()),
        "torch" => Some(DType::ALL.iter().copied().filter(|d| !d.torch_name().is_empty()).collect()),
        _ => None,
    };
    assert!(expected.is_none_or(|e| e == held), "{format} holds {held:?}");
}

/// Scalars, empty tensors, sizes of 0 and 1, many dimensions.
pub fn shapes(registry: &Registry, format: &str, folder: &Path) {
    let shapes: &[&[u64]] = &[
        &[],
        &[0],
        &[1],
        &[0, 5],
        &[5, 0, 3],
        &[0, 0],
        &[1, 1, 1],
        &[1_000_000_007, 0],
        &[2, 3, 4, 5],
        &[1, 2, 1, 2, 1, 2, 1, 2],
        &[7],
        &[65_537],
    ];
    let mut random = Random::new(7);
    for dtype in [DType::F32, DType::Bool, DType::I64] {
        let tensors = shapes.iter().enumerate().map(|(i, s)| tensor(&format!("t{i}"), dtype, s, &mut random));
        let archive = archives::of(tensors.collect::<Vec<_>>());
        there_and_back(registry, format, &archive, folder, "shapes");
    }
}

/// Names of any script and length, with characters that formats use for themselves.
pub fn names(registry: &Registry, format: &str, folder: &Path) {
    let long = "x".repeat(10 << 10);
    let wide = "größe".repeat(2000);
    let list = [
        "plain",
        "a.b.c",
        "a..b",
        ".",
        "..",
        "../../etc/x",
        "/absolute",
        "with space",
        " leading",
        "quote\"inside",
        "apostrophe'inside",
        "back\\slash",
        "line\nbreak",
        "tab\tand\rreturn",
        "nul\0inside",
        "bell\u{7}",
        "delete\u{7f}",
        "größe",
        "重み.層",
        "ключ",
        "👩‍🔬.weight",
        "e\u{301}",
        "\u{e9}",
        "\u{feff}bom",
        "\u{2028}separator",
        "{\"json\":1}",
        "None",
        "0",
        "-1",
        "data.pkl",
        "UPPER",
        "upper",
        long.as_str(),
        wide.as_str(),
    ];
    let names: Vec<String> = list.iter().map(|&n| n.to_owned()).collect();
    there_and_back(registry, format, &named(&names), folder, "names");
}

/// Ten thousand small tensors, in order.
pub fn ten_thousand_tensors(registry: &Registry, format: &str, folder: &Path) {
    let names: Vec<String> = (0..10_000).map(|i| format!("model.layers.{i}.weight")).collect();
    there_and_back(registry, format, &named(&names), folder, "10,000 tensors");
}

/// An archive without tensors is one, too.
pub fn no_tensors(registry: &Registry, format: &str, folder: &Path) {
    there_and_back(registry, format, &archives::of([]), folder, "no tensors");
}

/// A plan beyond 4 GiB: its layout is laid out and held against what it will be read as, without the disk that the
/// file would take. The file is put together as a reader, zeros included.
pub fn over_four_gib(registry: &Registry, format: &str, _folder: &Path) {
    // The first tensor alone passes 4 GiB; the second begins behind that, and ends in a mark.
    let big = (4u64 << 30) + 4096;
    let zeros = |name: &str, len: u64, marks: Vec<(u64, u8)>| Tensor {
        info: TensorInfo::new(name, DType::F32, [len / 4].as_slice()).expect("a shape"),
        data: Data::lazy(Sparse { len, marks }),
    };
    let marks = vec![(0, 1), (big - 1, 2)];
    let tensors = [zeros("a", big, marks), zeros("b", 64, vec![(0, 3), (63, 4)])];
    let archive = MemoryArchive::new(tensors).expect("two names");
    let writer = registry.serializer(format).expect("a writer");
    let plan = match writer.plan(&archive, &options(writer.info(), "model")) {
        Ok(plan) => plan,
        Err(e) => {
            let told = matches!(e.kind(), ErrorKind::LimitExceeded | ErrorKind::Unsupported);
            assert!(told && !format!("{e}").is_empty(), "{format}: {e:?}");
            return;
        }
    };
    if format == "onnx" {
        // No parser takes so large a model, so the tensors are in a file of their own, which the model names.
        let lens: Vec<u64> = plan.files.iter().map(|f| f.len()).collect();
        assert!(lens.len() == 2 && lens[0] == big && lens[1] < 4096, "{format}: {lens:?}");
        return;
    }
    assert_eq!(plan.files.len(), 1, "{format}: one file unless shards are asked for");
    let file = plan.files.into_iter().next().expect("one file");
    let len = file.len();
    assert!(len > big + 64, "{format}: {len} bytes");
    let (mut at, mut parts) = (0, Vec::new());
    for segment in file.segments() {
        assert_eq!(segment.offset, at, "{format}: a gap or an overlap");
        at += segment.len;
        match &segment.content {
            Content::Fixed(bytes) => parts.push((segment.offset, bytes.len() as u64)),
            Content::Data { data, .. } => assert_eq!(data.len(), segment.len, "{format}"),
            Content::Late(_) => {}
        }
    }
    assert_eq!(at, len, "{format}: the segments end elsewhere than the file");
    assert!(!parts.is_empty(), "{format}: no header");
    if file.segments().iter().any(|s| matches!(s.content, Content::Late(_))) {
        // Checksums of 4 GiB take their time; the conversion of a large sparse file covers them.
        return;
    }
    let source = Source::from_reader(std::sync::Arc::new(Assembled::new(file.into_segments(), len)));
    let opened = registry.open(source, &ReadOptions::default());
    let read = opened.unwrap_or_else(|e| panic!("{format}: {e:?}"));
    let a = read.data(read.position("a").expect("a")).expect("data");
    let b = read.data(read.position("b").expect("b")).expect("data");
    assert_eq!((a.len(), b.len()), (big, 64), "{format}");
    for (data, at, byte) in [(&a, 0, 1), (&a, big - 1, 2), (&b, 0, 3), (&b, 63, 4), (&a, 1 << 32, 0)] {
        let mut one = [9];
        data.read_at(at, &mut one).unwrap_or_else(|e| panic!("{format}: {e:?}"));
        assert_eq!(one, [byte], "{format}: byte {at}");
    }
}

/// A file to be, as a reader.
struct Assembled {
    parts: Vec<(u64, Data<'static>)>,
    len: u64,
}

impl Assembled {
    fn new(segments: Vec<weighbridge_formats::write::Segment<'_>>, len: u64) -> Self {
        let parts = segments.into_iter().map(|s| {
            let data = match s.content {
                Content::Fixed(bytes) => Data::Owned(bytes.into()),
                // The marks of this suite's own sparse readers, copied so that the reader outlives the plan.
                Content::Data { data, .. } => {
                    let len = data.len();
                    let mark = |at: u64| {
                        let mut one = [0];
                        data.read_at(at, &mut one).expect("a sparse reader");
                        (at, one[0])
                    };
                    Data::lazy(Sparse { len, marks: vec![mark(0), mark(len - 1)] })
                }
                Content::Late(_) => unreachable!("late segments are excluded before"),
            };
            (s.offset, data)
        });
        Self { parts: parts.collect(), len }
    }
}

impl ReadAt for Assembled {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> weighbridge_formats::Result<()> {
        for (start, data) in &self.parts {
            let from = offset.max(*start);
            let to = (offset + buf.len() as u64).min(start + data.len());
            if from < to {
                data.read_at(from - start, &mut buf[(from - offset) as usize..(to - offset) as usize])?;
            }
        }
        Ok(())
    }
}

/// Tensors that share a storage: kept where the format can, else written each in full, and that is said.
pub fn shared_storage(registry: &Registry, format: &str, folder: &Path) {
    let mut archive = Shared::new();
    let mut random = Random::new(3);
    let storage = archive.storage(Some(DType::F32), random.bytes(24 * 4));
    archive.view("whole", DType::F32, storage, &[24], &[1], 0);
    archive.view("tied", DType::F32, storage, &[4, 6], &[6, 1], 0);
    archive.view("transposed", DType::F32, storage, &[6, 4], &[1, 6], 0);
    archive.view("column", DType::F32, storage, &[4], &[6], 5);
    archive.view("expanded", DType::F32, storage, &[5, 2], &[0, 1], 3);
    archive.view("empty", DType::F32, storage, &[0, 2], &[2, 1], 7);
    let other = archive.storage(Some(DType::I64), random.bytes(16));
    archive.view("alone", DType::I64, other, &[2], &[1], 0);
    let saved =
        save(registry, format, &archive, folder, "shared").unwrap_or_else(|e| panic!("{format}: {e:?}"));
    let read = reopen(registry, format, &saved.path).unwrap_or_else(|e| panic!("{format}: {e:?}"));
    assert_same_tensors(&archive, &*read, format);
    let holds = registry.format(format).expect("a format").info.holds_sharing;
    let storage_of = |name: &str| {
        let at = read.position(name).expect("a tensor");
        read.tensors()[at].view().map(|v| v.storage)
    };
    if holds {
        let shared = storage_of("whole");
        assert!(shared.is_some(), "{format}");
        for name in ["tied", "transposed", "column", "expanded"] {
            assert_eq!(storage_of(name), shared, "{format}: {name}");
        }
        assert_ne!(storage_of("alone"), shared, "{format}");
        let stored: u64 = read.storages().iter().map(|s| s.bytes).sum();
        assert_eq!(stored, 24 * 4 + 16, "{format}: a storage was stored twice");
    } else {
        let told = saved.notes.iter().any(|n| n.kind >= NoteKind::Changed);
        assert!(told, "{format}: split without a word: {:?}", saved.notes);
    }
}

/// Values around the tensors come back where the format holds them; else they are kept as text, or refused.
pub fn nested_values(registry: &Registry, format: &str, folder: &Path) {
    let holds = registry.format(format).expect("a format").info.holds_values;
    let mut kept = 0;
    for seed in 0..20 {
        let archive = archives::random(&mut Random::new(seed), true);
        let what = format!("{format}, seed {seed}");
        match save(registry, format, &archive, folder, "values") {
            Ok(saved) => {
                let read = reopen(registry, format, &saved.path).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_same_values(&archive, &*read, &what);
                kept += 1;
            }
            Err(e) => {
                assert!(!holds, "{what}: {e:?}");
                assert_eq!(e.kind(), ErrorKind::InvalidOptions, "{what}: {e:?}");
            }
        }
    }
    assert!(kept == 20 || !holds, "{format}: {kept} of 20 kept");
}

/// Reading a tensor in pieces, anywhere and in any order, gives what reading it at once gives.
pub fn chunked_reads(registry: &Registry, format: &str, folder: &Path) {
    let mut random = Random::new(11);
    let mut archive = Shared::new();
    let storage = archive.storage(Some(DType::F32), random.bytes(40_000));
    archive.view("whole", DType::F32, storage, &[10_000], &[1], 0);
    archive.view("part", DType::F32, storage, &[50, 7], &[7, 1], 123);
    archive.view("transposed", DType::F32, storage, &[100, 100], &[1, 100], 0);
    archive.view("steps", DType::F32, storage, &[33, 5], &[200, 3], 9);
    let saved =
        save(registry, format, &archive, folder, "chunked").unwrap_or_else(|e| panic!("{format}: {e:?}"));
    let read = reopen(registry, format, &saved.path).unwrap_or_else(|e| panic!("{format}: {e:?}"));
    for (i, info) in read.tensors().iter().enumerate() {
        let data = read.data(i).expect("data");
        let whole = bytes_of(&data).unwrap_or_else(|e| panic!("{format}: {e:?}"));
        assert_eq!(whole.len() as u64, info.bytes());
        for _ in 0..300 {
            let start = random.index(whole.len() + 1);
            let len = random.index(whole.len() - start + 1).min(1 + random.index(5000));
            let mut piece = vec![0xa5; len];
            data.read_at(start as u64, &mut piece).unwrap_or_else(|e| panic!("{format}: {e:?}"));
            assert!(piece == whole[start..start + len], "{format}: {:?} at {start} + {len}", info.name());
        }
        for (offset, len) in [(info.bytes(), 1), (info.bytes() + 1, 0), (u64::MAX, 1), (1, whole.len())] {
            let past = data.read_at(offset, &mut vec![0; len]);
            assert!(past.is_err(), "{format}: {:?}: {len} bytes at {offset} were read", info.name());
        }
    }
}

/// Reading and writing again gives the same file, from the second time on at the latest.
pub fn byte_stable_rewrite(registry: &Registry, format: &str, folder: &Path) {
    let mut sources: Vec<(String, Box<dyn Archive>)> = Vec::new();
    for seed in 100..110 {
        let archive = archives::random(&mut Random::new(seed), seed % 2 == 0);
        sources.push((format!("seed {seed}"), Box::new(archive)));
    }
    sources.push(("names".into(), Box::new(named(&["b".into(), "a".into(), "ü".into()]))));
    for (what, source) in sources {
        let what = format!("{format}, {what}");
        let write = |archive: &dyn Archive, stem: &str| {
            // The stem may stand in the file, so both have the same name in folders of their own.
            let inner = folder.join(stem);
            std::fs::create_dir_all(&inner).expect("a folder");
            save_any(registry, format, archive, &inner, "model")
                .unwrap_or_else(|e| panic!("{what}: {e:?}"))
                .path
        };
        let open = |path: &Path| reopen(registry, format, path).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        let first = write(&*source, "first");
        let second = write(&*open(&first), "second");
        let third = write(&*open(&second), "third");
        let bytes = |path: &Path| std::fs::read(path).expect("a file");
        assert!(bytes(&second) == bytes(&third), "{what}: written again, the file is another");
        assert!(bytes(&first) == bytes(&second), "{what}: the first rewrite changed the file");
    }
}

/// A small file of every format for what damages it.
fn small(registry: &Registry, format: &str, folder: &Path) -> Vec<u8> {
    let mut random = Random::new(5);
    let tensors =
        [tensor("a", DType::F32, &[2, 2], &mut random), tensor("b.c", DType::I64, &[3], &mut random)];
    let saved = save(registry, format, &archives::of(tensors), folder, "small")
        .unwrap_or_else(|e| panic!("{format}: {e:?}"));
    std::fs::read(saved.path).expect("a file")
}

/// A file cut at any length is refused, or read in full.
pub fn truncation(registry: &Registry, format: &str, folder: &Path) {
    let file = small(registry, format, folder);
    for how in [Opened::ByContent, Opened::As(format)] {
        let outcomes = damage::truncate(registry, how, &file, 1, format);
        assert_eq!((outcomes.all(), outcomes.refused), (file.len(), file.len()), "{format}: {outcomes:?}");
    }
}

/// Any flipped bit gives an error or a read, in bounded memory.
pub fn flipped_bits(registry: &Registry, format: &str, folder: &Path) {
    let file = small(registry, format, folder);
    for how in [Opened::ByContent, Opened::As(format)] {
        let covered = format == "torch";
        let outcomes = damage::flip(registry, how, &file, 0..file.len() * 8, covered, format);
        assert_eq!(outcomes.all(), file.len() * 8);
        assert!(outcomes.refused > 0, "{format}: {outcomes:?}");
    }
}
