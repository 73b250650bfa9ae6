//! Headers made by hand: sound ones of each version and byte order, and each kind of lie.

use weighbridge_formats::Source;

use crate::scan::{FileReport, ScanOptions, Verdict, scan_source};

/// A header that is put together.
struct Made {
    bytes: Vec<u8>,
    big: bool,
    wide: bool,
}

impl Made {
    fn new(version: u32, big: bool, tensors: u64, keys: u64) -> Self {
        let mut made = Self { bytes: b"GGUF".to_vec(), big, wide: version > 1 };
        made.u32(version);
        made.count(tensors);
        made.count(keys);
        made
    }

    fn put(&mut self, number: u64, len: usize) {
        let little = number.to_le_bytes();
        let mut bytes = little[..len].to_vec();
        if self.big {
            bytes.reverse();
        }
        self.bytes.extend(bytes);
    }

    fn u32(&mut self, number: u32) {
        self.put(number.into(), 4);
    }

    fn count(&mut self, number: u64) {
        self.put(number, if self.wide { 8 } else { 4 });
    }

    fn text(&mut self, text: &str) {
        self.count(text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.text(key);
        self.u32(kind);
    }

    fn tensor(&mut self, name: &str, dims: &[u64], kind: u32, offset: u64) {
        self.text(name);
        self.u32(dims.len() as u32);
        dims.iter().for_each(|&d| self.count(d));
        self.u32(kind);
        self.put(offset, 8);
    }

    fn data(mut self, len: usize) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(32) + len, 0);
        self.bytes
    }
}

fn look(bytes: Vec<u8>) -> FileReport {
    scan_source("model.gguf", Source::from_bytes(bytes), &ScanOptions::default())
}

fn sound(version: u32, big: bool) -> Made {
    let mut made = Made::new(version, big, 2, 4);
    made.key("general.architecture", 8);
    made.text("llama");
    made.key("general.alignment", 4);
    made.u32(32);
    made.key("tokenizer.ggml.tokens", 9);
    made.u32(8);
    made.count(2);
    made.text("a");
    made.text("bc");
    made.key("numbers", 9);
    made.u32(6);
    made.count(3);
    (0..3).for_each(|_| made.u32(0));
    made.tensor("a", &[4, 2], 0, 0);
    made.tensor("b", &[32, 2], 8, 32);
    made
}

#[test]
fn sound_files_of_every_version_are_clean() {
    for (version, big) in [(1, false), (2, false), (3, false), (3, true)] {
        let report = look(sound(version, big).data(32 + 68));
        assert_eq!((report.verdict, report.findings.len()), (Verdict::Clean, 0), "{:#?}", report.findings);
        assert_eq!(report.kinds, ["gguf"]);
    }
}

#[test]
fn every_lie_is_found() {
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut case = |words, tensors, keys, make: &dyn Fn(&mut Made)| {
        let mut made = Made::new(3, false, tensors, keys);
        make(&mut made);
        cases.push((words, made.data(4096)));
    };
    case("counts", u64::MAX, 0, &|_| {});
    case("counts", 0, u64::MAX / 13, &|_| {});
    case("counts", 1 << 40, 1 << 40, &|_| {});
    case("is no name", 0, 1, &|m| {
        m.key("", 4);
        m.u32(1);
    });
    case("there twice", 0, 2, &|m| {
        for _ in 0..2 {
            m.key("a", 4);
            m.u32(1);
        }
    });
    for alignment in [0, 7, 33, 4, 1 << 31] {
        case("an alignment of", 0, 1, &|m| {
            m.key("general.alignment", 4);
            m.u32(alignment);
        });
    }
    case("array of arrays", 0, 1, &|m| {
        m.key("a", 9);
        m.u32(9);
        m.count(1);
    });
    case("past 64 bits", 0, 1, &|m| {
        m.key("a", 9);
        m.u32(4);
        m.count(u64::MAX / 2);
    });
    case("texts in", 0, 1, &|m| {
        m.key("a", 9);
        m.u32(8);
        m.count(1 << 50);
    });
    case("are promised", 0, 1, &|m| {
        m.key("a", 8);
        m.count(1 << 62);
    });
    case("is of type 13", 0, 1, &|m| m.key("a", 13));
    case("a name of", 0, 1, &|m| m.count(1 << 40));
    case("5 dimensions", 1, 0, &|m| m.tensor("a", &[1; 5], 0, 0));
    case("dimension of 0", 1, 0, &|m| m.tensor("a", &[4, 0], 0, 0));
    case("pass 63 bits", 1, 0, &|m| m.tensor("a", &[1 << 33, 1 << 33], 0, 0));
    case("pass 63 bits", 1, 0, &|m| m.tensor("a", &[u64::MAX, 2], 0, 0));
    case("no whole blocks", 1, 0, &|m| m.tensor("a", &[33], 8, 0));
    case("passes the file's end", 1, 0, &|m| m.tensor("a", &[1 << 20], 0, 0));
    case("passes the file's end", 1, 0, &|m| m.tensor("a", &[8], 0, u64::MAX - 31));
    case("no multiple of the alignment", 1, 0, &|m| m.tensor("a", &[4], 0, 4));
    case("begins before", 2, 0, &|m| {
        m.tensor("a", &[16], 0, 0);
        m.tensor("b", &[16], 0, 32);
    });
    case("there twice", 2, 0, &|m| {
        m.tensor("a", &[8], 0, 0);
        m.tensor("a", &[8], 0, 32);
    });
    assert!(cases.len() > 20);
    for (words, bytes) in cases {
        let report = look(bytes);
        assert_eq!(report.verdict, Verdict::Dangerous, "{words}: {:#?}", report.findings);
        let told = report.findings.iter().any(|f| f.rule == "gguf-lies" && f.what.contains(words));
        assert!(told, "{words}: {:#?}", report.findings);
    }
}

#[test]
fn a_header_that_ends_anywhere_is_never_clean() {
    let whole = sound(3, false).bytes;
    for len in 4..whole.len() {
        let report = look(whole[..len].to_vec());
        assert_ne!(report.verdict, Verdict::Clean, "{len} of {}", whole.len());
    }
}

#[test]
fn what_is_not_known_is_unknown_and_templates_are_looked_at() {
    let mut made = Made::new(3, false, 1, 0);
    made.tensor("a", &[256], 77, 0);
    assert_eq!(look(made.data(4096)).verdict, Verdict::Unknown);
    assert_eq!(look(Made::new(9, false, 0, 0).data(0)).verdict, Verdict::Unknown);
    let mut made = Made::new(3, false, 0, 1);
    made.key("tokenizer.chat_template", 8);
    made.text("{{ ().__class__.__base__.__subclasses__() }}");
    let report = look(made.data(0));
    assert_eq!((report.verdict, report.findings[0].rule), (Verdict::Dangerous, "template"));
}
