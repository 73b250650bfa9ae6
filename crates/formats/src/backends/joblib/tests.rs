//! Dumps that lie, bombs, and what is recognised; the dumps that joblib wrote are in `tests/golden/joblib`.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::JoblibReader;
use crate::{
    Archive, Deserializer, ErrorKind, Limits, NoteKind, ReadAt, ReadOptions, Registry, Result, Source, Value,
};

/// A dtype of protocol 0: `f4`, `U2`, …
fn dtype(code: &str) -> String {
    format!("cnumpy\ndtype\n(V{code}\nI00\nI01\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb")
}

/// A dtype of records of so many bytes: names, and `name: (dtype, offset)`.
fn record(size: u32, fields: &[(&str, &str, u32)]) -> String {
    let names: String = fields.iter().map(|(name, ..)| format!("V{name}\n")).collect();
    let places: String =
        fields.iter().map(|(name, code, at)| format!("V{name}\n({}I{at}\nt", dtype(code))).collect();
    format!("cnumpy\ndtype\n(VV{size}\nI00\nI01\ntR(I3\nV|\nN({names}t(d({places}uI{size}\nI1\nI16\ntb")
        .replace("(d(", "}(")
}

/// The object before an array, from NEWOBJ to BUILD, in opcodes of text.
fn wrapper(shape: &str, dtype: &str, order: &str, aligned: bool) -> Vec<u8> {
    let alignment = if aligned { "Vnumpy_array_alignment_bytes\nI16\n" } else { "" };
    format!(
        "cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\u{1}}}(Vsubclass\ncnumpy\nndarray\nVshape\n{shape}Vorder\n\
         V{order}\nVdtype\n{dtype}Vallow_mmap\nI01\n{alignment}ub"
    )
    .into_bytes()
    .into_iter()
    // NEWOBJ is no character of text.
    .map(|b| if b == 1 { 0x81 } else { b })
    .collect()
}

fn file(parts: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02".as_slice()].iter().chain(parts).flat_map(|p| p.iter().copied()).collect()
}

fn open_within(bytes: &[u8], limits: Limits) -> Result<Box<dyn Archive>> {
    JoblibReader.open(Source::from_bytes(bytes), &ReadOptions { limits })
}

fn open(bytes: &[u8]) -> Result<Box<dyn Archive>> {
    open_within(bytes, Limits::default())
}

fn refused(bytes: &[u8]) -> (ErrorKind, String) {
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned();
    let error = open(bytes).err().unwrap_or_else(|| panic!("{:?} is read", shown()));
    (error.kind(), error.to_string())
}

fn read(archive: &dyn Archive, name: &str) -> Vec<u8> {
    let at = archive.position(name).unwrap_or_else(|| panic!("no {name}"));
    archive.data(at).unwrap().read_all().unwrap()
}

#[test]
fn an_array_between_the_parts_of_a_pickle() {
    let plain = wrapper("(I3\nt", &dtype("u1"), "C", false);
    let padded = wrapper("(I2\nt", &dtype("u1"), "C", true);
    let whole = file(&[b"}(Va\n", &plain, b"xyz", b"Vb\n", &padded, b"\x02\xff\xffpqVc\nI7\nu."]);
    let archive = open(&whole).unwrap();
    assert_eq!((archive.format(), archive.tensors().len()), ("joblib", 2));
    assert_eq!((read(&*archive, "a"), read(&*archive, "b")), (b"xyz".to_vec(), b"pq".to_vec()));
    let values = archive.values().unwrap();
    let seven = values.entry(values.root().unwrap(), "c").unwrap();
    assert_eq!(values.get(seven), &Value::Int(7));
    // Every cut is an error, and none is an array that the file does not have.
    for length in 0..whole.len() {
        assert_eq!(refused(&whole[..length]).0, ErrorKind::Malformed, "{length}");
    }
}

#[test]
fn shapes_that_lie() {
    let of = |shape: &str, code: &str| file(&[&wrapper(shape, &dtype(code), "C", false), b"abcd."]);
    assert_eq!(open(&of("(I4\nt", "u1")).unwrap().tensors()[0].name(), "tensor");
    for shape in [
        "(I5\nt".to_owned(),
        "(I6\nt".into(),
        "(I-1\nt".into(),
        "(I9223372036854775807\nI9223372036854775807\nt".into(),
        "(I9223372036854775807\nt".into(),
        "I4\n".into(),
        "(Va\nt".into(),
        format!("({}t", "I1\n".repeat(65)),
    ] {
        assert_eq!(refused(&of(&shape, "u1")).0, ErrorKind::Malformed, "{shape}");
    }
    // Fewer bytes than there are: the rest is no opcode.
    assert_eq!(refused(&of("(I3\nt", "u1")).0, ErrorKind::Malformed);
    // Sizes of elements are no more to be trusted.
    for code in ["V99999999999999999999", "U4611686018427387905", "U-1", "V", ""] {
        let (kind, text) = refused(&of("(I4\nt", code));
        assert!(matches!(kind, ErrorKind::Unsupported | ErrorKind::Malformed), "{code}: {text}");
    }
    let order = file(&[&wrapper("(I4\nt", &dtype("u1"), "K", false), b"abcd."]);
    assert!(refused(&order).1.contains("order"));
    let no_state = file(&[b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81Nb."]);
    assert!(refused(&no_state).1.contains("no state"));
    // The second BUILD of one wrapper finds an array in its place.
    let twice = file(&[&wrapper("(I1\nt", &dtype("u1"), "C", false), b"a}b."]);
    assert_eq!(refused(&twice).0, ErrorKind::Malformed);
}

#[test]
fn raw_bytes_never_begin_in_a_frame() {
    let inner = wrapper("(I1\nt", &dtype("u1"), "C", false);
    let framed = |length: usize| {
        let mut bytes = b"\x80\x04\x95".to_vec();
        bytes.extend((length as u64).to_le_bytes());
        bytes.extend(&inner);
        bytes.extend(b"a.");
        bytes
    };
    assert_eq!(open(&framed(inner.len())).unwrap().tensors().len(), 1);
    for length in [inner.len() + 1, inner.len() + 2] {
        assert!(refused(&framed(length)).1.contains("frame"), "{length}");
    }
}

#[test]
fn records_become_a_tensor_for_each_field() {
    let fields = [("n", "u1", 0), ("x", "u2", 1), ("tag", "S1", 3)];
    let whole = file(&[&wrapper("(I2\nt", &record(4, &fields), "C", false), b"\x01\x02\x03a\x04\x05\x06b."]);
    let archive = open(&whole).unwrap();
    let names: Vec<&str> = archive.tensors().iter().map(|t| t.name()).collect();
    assert_eq!(names, ["n", "x"]);
    assert_eq!((read(&*archive, "n"), read(&*archive, "x")), (vec![1, 4], vec![2, 3, 5, 6]));
    assert!(archive.notes().iter().any(|n| n.text.contains("records")), "{:?}", archive.notes());
    // A field past the end of its record is no field; nothing says then what the records are, so they stay bytes.
    for outside in [4, 3, u32::MAX] {
        let fields = [("n", "u1", 0), ("x", "u2", outside)];
        let whole = file(&[&wrapper("(I2\nt", &record(4, &fields), "C", false), b"01234567."]);
        assert_eq!(refused(&whole).0, ErrorKind::Unsupported, "{outside}");
    }
}

#[test]
fn records_that_are_used_again_and_again_have_an_end() {
    // A dtype of a thousand fields in the memo, and arrays of no bytes that all have it.
    let names: Vec<String> = (0..1000).map(|i| format!("f{i}")).collect();
    let fields: Vec<(&str, &str, u32)> = names.iter().map(|n| (n.as_str(), "u1", 0)).collect();
    let first = wrapper("(I0\nt", &format!("{}p7\n", record(1, &fields)), "C", false);
    let again = wrapper("(I0\nt", "g7\n", "C", false);
    let mut whole = file(&[b"](", &first]);
    whole.extend(again.repeat(2000));
    whole.extend(b"e.");
    let (kind, text) = refused(&whole);
    assert_eq!(kind, ErrorKind::LimitExceeded, "{text}");
}

#[test]
fn a_nested_pickle_is_a_value_and_nests_no_further() {
    let objects = wrapper("(I2\nt", &dtype("O8"), "C", false);
    // Its memo is its own: index 1 means another value inside and outside.
    let nested = b"\x80\x02](I1\np1\nVinner\ne.";
    let whole = file(&[b"](Vouter\np1\n", &objects, nested, b"g1\ne."]);
    let archive = open(&whole).unwrap();
    let values = archive.values().unwrap();
    let items = values.sequence(values.root().unwrap()).unwrap();
    assert_eq!(values.str(items[0]), Some("outer"));
    assert_eq!(values.sequence(items[1]).map(<[_]>::len), Some(2));
    assert_eq!(values.str(items[2]), Some("outer"));
    // In a nested pickle a wrapper is an object like any other, as joblib has it.
    let inner = wrapper("(I9\nt", &dtype("u1"), "C", false);
    let whole = file(&[&objects, b"\x80\x02", &inner, b".."]);
    let archive = open(&whole).unwrap();
    let values = archive.values().unwrap();
    assert!(archive.tensors().is_empty());
    assert!(matches!(values.get(values.root().unwrap()), Value::Object(_)));
    // What it leaves on its stack is gone, and it reaches nothing outside: neither stack nor marks nor memo.
    for reach in [&b"0."[..], b"t.", b"g1\n.", b"e.", b"1."] {
        let whole = file(&[b"](Vouter\np1\n", &objects, reach, b"e."]);
        assert_eq!(refused(&whole).0, ErrorKind::Malformed, "{reach:?}");
    }
    // A thousand of them, each with a large index in its memo, cost no more than their bytes.
    let mut whole = file(&[b"](", &b"I5\n".repeat(60_000)]);
    for _ in 0..1000 {
        whole.extend(&objects);
        whole.extend(b"\x80\x02Nr\x50\xc3\0\0.");
    }
    whole.extend(b"e.");
    assert!(open(&whole).is_ok());
}

#[test]
fn compressed_bombs_meet_the_limit() {
    let zeros = vec![0u8; 32 << 20];
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&zeros).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&zeros).unwrap();
    let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    bz2.write_all(&zeros).unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&zeros).unwrap();
    let streams = [
        ("zlib", zlib.finish().unwrap()),
        ("gzip", gzip.finish().unwrap()),
        ("bz2", bz2.finish().unwrap()),
        ("lz4", lz4.finish().unwrap()),
    ];
    for (name, stream) in streams {
        assert!(stream.len() < zeros.len() / 100, "{name}");
        let limits = Limits { unpacked_bytes: 1 << 20, ..Limits::default() };
        let error = open_within(&stream, limits).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{name}");
        assert!(error.message().contains(name) && error.hint().is_some(), "{error}");
        // Just enough is enough, and then it is no pickle.
        let limits = Limits { unpacked_bytes: 32 << 20, ..Limits::default() };
        assert_eq!(open_within(&stream, limits).err().unwrap().kind(), ErrorKind::Malformed, "{name}");
    }
}

#[test]
fn more_than_64_mib_and_200_times_the_file_is_no_model() {
    let packed = |noise: u32, zeros: usize| {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut number = 1u32;
        let noise: Vec<u8> = (0..noise)
            .map(|_| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (number >> 24) as u8
            })
            .collect();
        out.write_all(&noise).unwrap();
        out.write_all(&vec![0; zeros]).unwrap();
        out.finish().unwrap()
    };
    let roomy = || Limits::within(1 << 30);
    let refused = open_within(&packed(0, 65 << 20), roomy()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert!(refused.message().contains("67108864"), "{refused}");
    // Of that many bytes, or of a file long enough, all are unpacked, and are no pickle.
    for (noise, zeros) in [(0, 63 << 20), (1 << 20, 65 << 20)] {
        assert_eq!(open_within(&packed(noise, zeros), roomy()).err().unwrap().kind(), ErrorKind::Malformed);
    }
    // By default memory ends before that.
    let refused = open_within(&packed(1 << 20, 50 << 20), Limits::default()).err().unwrap();
    assert!(
        refused.kind() == ErrorKind::LimitExceeded && refused.hint().is_some_and(|h| h.contains("--memory")),
        "{refused}"
    );
}

/// A golden file.
fn golden(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/joblib");
    std::fs::read(format!("{folder}/{name}")).unwrap()
}

#[test]
fn every_compression_has_its_limit_and_its_checks() {
    for name in ["zlib", "gzip", "bz2", "xz", "lzma", "lz4"] {
        let bytes = golden(&format!("{name}.joblib"));
        let whole = open(&bytes).unwrap();
        assert!(whole.variety().ends_with(&format!("compressed with {name}")), "{}", whole.variety());
        let limits = Limits { unpacked_bytes: 100, ..Limits::default() };
        assert_eq!(open_within(&bytes, limits).err().unwrap().kind(), ErrorKind::LimitExceeded, "{name}");
        // A bit that a checksum covers: LZMA alone has none, and a frame of lz4 need not have one.
        if !matches!(name, "lzma" | "lz4") {
            let mut damaged = bytes.clone();
            let at = damaged.len() / 2;
            damaged[at] ^= 4;
            assert_eq!(open(&damaged).err().unwrap().kind(), ErrorKind::Malformed, "{name}");
        }
    }
}

#[test]
fn a_dictionary_that_no_honest_writer_asks_for_is_refused() {
    // LZMA alone states the size of its dictionary in bytes 1 to 4.
    let mut lzma = golden("lzma.joblib");
    lzma[1..5].copy_from_slice(&0xF000_0000u32.to_le_bytes());
    let (kind, text) = refused(&lzma);
    assert!(kind == ErrorKind::LimitExceeded && text.contains("256 MiB"), "{kind:?} {text}");
    // In .xz the byte of the filter's property, under a checksum.
    let mut xz = golden("xz.joblib");
    let header = 12;
    let length = (usize::from(xz[header]) + 1) * 4;
    let property = (header + 1..header + length).find(|&i| xz[i..].starts_with(&[0x21, 1])).unwrap() + 2;
    xz[property] = 40;
    let crc = crc32fast::hash(&xz[header..header + length - 4]).to_le_bytes();
    xz[header + length - 4..header + length].copy_from_slice(&crc);
    assert_eq!(refused(&xz).0, ErrorKind::LimitExceeded);
}

#[test]
fn what_is_a_dump_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let detect = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        registry
            .detect(&Source::open(&path).unwrap())
            .map(|r| r.info().id)
            .map_err(|e| e.message().to_owned())
    };
    let dump = golden("nameless");
    for name in ["x", "x.joblib", "x.pkl", "x.bin", "x.pt"] {
        assert_eq!(detect(name, &dump).as_deref(), Ok("joblib"), "{name}");
        for method in ["zlib", "gzip", "bz2", "xz", "lzma", "lz4"] {
            assert_eq!(
                detect(name, &golden(&format!("{method}.joblib"))).as_deref(),
                Ok("joblib"),
                "{name} {method}"
            );
        }
    }
    // A plain pickle is a dump by its name only, and one without a mark too.
    let plain = golden("vectorizer.joblib");
    assert_eq!(detect("y", &plain).as_deref(), Ok("pickle"));
    assert_eq!(detect("y.pkl", &plain).as_deref(), Ok("pickle"));
    assert_eq!(detect("y.joblib", &plain).as_deref(), Ok("joblib"));
    assert_eq!(detect("y.joblib", b"(I1\nt.").as_deref(), Ok("joblib"));
    // Where the first array comes late, the pickle's reader finds out.
    let late = golden("late.pkl");
    assert_eq!(detect("late.pkl", &late).as_deref(), Ok("pickle"));
    let archive = registry.open(Source::from_bytes(late), &ReadOptions::default()).unwrap();
    assert_eq!((archive.format(), archive.tensors()[0].name()), ("joblib", "array"));
    // Compressed, but no pickle.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"a text, and nothing else").unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(detect("z.gz", &gzip).is_err_and(|text| text.contains("gzip")));
    // A legacy torch stream stays one, whatever its name.
    let torch = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    assert_eq!(detect("t.joblib", torch).as_deref(), Ok("torch"));
}

#[test]
fn old_dumps_are_told() {
    let old = file(&[b"}(Va\ncjoblib.numpy_pickle\nNDArrayWrapper\n)\x81}(Vfilename\nVx_01.npy\nubu."]);
    let archive = open(&old).unwrap();
    assert!(archive.tensors().is_empty());
    let note = archive.notes().iter().find(|n| n.kind == NoteKind::Warning).unwrap();
    assert!(note.text.contains("files of their own"), "{}", note.text);
    assert_eq!(refused(b"ZF0x1               x\x9c").0, ErrorKind::Unsupported);
}

/// A dump whose only array has many gibibytes, and how much of it was read.
struct Large {
    head: Vec<u8>,
    array: u64,
    read: AtomicU64,
}

impl ReadAt for Large {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.array + 1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let last = self.len() - 1;
        for (byte, at) in buf.iter_mut().zip(offset..) {
            *byte = match self.head.get(at as usize) {
                Some(byte) => *byte,
                None if at == last => b'.',
                None => 7,
            };
        }
        Ok(())
    }
}

#[test]
fn arrays_stay_where_they_are() {
    let array = 9u64 << 30;
    let head = file(&[&wrapper(&format!("(I{array}\nt"), &dtype("u1"), "C", false)]);
    let large = Arc::new(Large { head, array, read: AtomicU64::new(0) });
    let archive =
        Registry::builtin().open(Source::from_reader(large.clone()), &ReadOptions::default()).unwrap();
    assert_eq!(archive.tensors()[0].shape(), [array]);
    let read = large.read.load(Ordering::Relaxed);
    assert!(read < 1 << 20, "{read} bytes were read");
    let mut last = [0];
    archive.data(0).unwrap().read_at(array - 1, &mut last).unwrap();
    assert_eq!(last, [7]);
}

#[test]
fn the_pickle_itself_has_a_limit() {
    let long = file(&[b"](", &b"I5\n".repeat(100_000), b"e."]);
    let limits = Limits { header_bytes: 200_000, ..Limits::default() };
    assert_eq!(open_within(&long, limits.clone()).err().unwrap().kind(), ErrorKind::LimitExceeded);
    // Arrays do not count.
    let array = vec![7; 500_000];
    let head = wrapper("(I500000\nt", &dtype("u1"), "C", false);
    let small = file(&[b"](", &head, &array, &head, &array, b"e."]);
    assert_eq!(open_within(&small, limits.clone()).unwrap().tensors().len(), 2);
    // What an opcode says that it needs is not read when it cannot be had.
    let mut claim = file(&[b"B\0\0\0\x40"]);
    claim.resize(300_000, 0);
    assert_eq!(refused(&claim).0, ErrorKind::Malformed);
    let claim = file(&[b"B\xe0\x93\x04\0", &vec![0; 300_000], b"."]);
    assert_eq!(open_within(&claim, limits).err().unwrap().kind(), ErrorKind::LimitExceeded);
    assert!(open(&claim).is_ok());
}
