//! What a file may say to lead the walk astray: circles, counts and places that are not there. Sound files and hostile
//! ones that h5py wrote are in `tests/golden/hdf5`.

use std::time::{Duration, Instant};

use weighbridge_formats::Source;

use super::*;
use crate::scan::{FileReport, ScanOptions, scan_source};

fn golden(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hdf5").join(name);
    std::fs::read(path).unwrap()
}

fn look(bytes: &[u8]) -> FileReport {
    scan_source("model.h5", Source::from_bytes(bytes), &ScanOptions::default())
}

#[test]
fn a_cut_file_is_never_clean_and_no_byte_makes_it_panic() {
    for name in ["old.h5", "new.h5"] {
        let whole = golden(name);
        for len in (16..whole.len() / 2).step_by(97) {
            assert_ne!(look(&whole[..len]).verdict, Verdict::Clean, "{len} bytes of {name}");
        }
        let mut broken = whole.clone();
        for at in (0..whole.len()).step_by(211) {
            for value in [0, 0xff] {
                broken[at] = value;
                let started = Instant::now();
                look(&broken);
                assert!(started.elapsed() < Duration::from_secs(1), "{name} with {value} at {at}");
            }
            broken[at] = whole[at];
        }
    }
}

#[test]
fn superblocks_are_looked_for_behind_user_blocks_and_judged() {
    let plain = golden("old.h5");
    for block in [512, 2048] {
        let moved = [vec![0; block], plain.clone()].concat();
        let report = look(&moved);
        assert_eq!(report.verdict, Verdict::Clean, "{:#?}", report.findings);
        assert!(report.kinds.iter().any(|k| k == "keras"));
    }
    for (at, value) in [(8, 9), (13, 3), (14, 16)] {
        let mut bad = plain.clone();
        bad[at] = value;
        assert_eq!(look(&bad).verdict, Verdict::Unknown, "{at}");
    }
}

/// A version 2 file whose root header has these messages: their kinds and bodies.
fn file(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = SIGNATURE_BLOCK.to_vec();
    let body: Vec<u8> = messages
        .iter()
        .flat_map(|(kind, body)| [&[*kind][..], &(body.len() as u16).to_le_bytes(), &[0], body].concat())
        .collect();
    out.extend(b"OHDR\x02\x02");
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out.extend([0; 4]);
    out
}

/// A superblock of version 3 with the root group behind it, at 48.
const SIGNATURE_BLOCK: &[u8] = &[
    0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n', 3, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn hard_link(name: &str, address: u64) -> Vec<u8> {
    [&[1, 0, name.len() as u8][..], name.as_bytes(), &address.to_le_bytes()].concat()
}

#[test]
fn circles_and_impossible_numbers_end() {
    let root = 48u64.to_le_bytes();
    let far = (1u64 << 60).to_le_bytes();
    let none = u64::MAX.to_le_bytes();
    assert_eq!(look(&file(&[(6, hard_link("self", 48))])).verdict, Verdict::Clean, "visited once");
    let faulty: Vec<(u8, Vec<u8>)> = vec![
        (0x10, [root, 64u64.to_le_bytes()].concat()),
        (0x10, [far, far].concat()),
        (0x10, [none, none].concat()),
        (0x06, hard_link("far", 1 << 60)),
        (0x06, vec![1, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (0x11, [root, root].concat()),
        (0x02, [&[0, 0][..], &root, &root].concat()),
        (0x15, [&[0, 0][..], &far, &far].concat()),
        (0x0C, vec![3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]),
        (0x0C, vec![9; 40]),
    ];
    for (kind, body) in faulty {
        let report = look(&file(&[(kind, body.clone())]));
        assert_eq!(report.verdict, Verdict::Unknown, "{kind:#x} {body:?}: {:#?}", report.findings);
    }
}

#[test]
fn declared_sizes_are_held_against_the_file() {
    let space = |dims: &[u64]| {
        let mut out = vec![2, dims.len() as u8, 0, 1];
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out
    };
    let float = vec![0x11, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let contiguous =
        |address: u64, size: u64| [&[3, 1][..], &address.to_le_bytes(), &size.to_le_bytes()].concat();
    let judge = |dims: &[u64], layout: Vec<u8>| {
        let report = look(&file(&[(1, space(dims)), (3, float.clone()), (8, layout)]));
        (report.verdict, report.findings.first().map(|f| f.what.clone()).unwrap_or_default())
    };
    assert_eq!(judge(&[4], contiguous(48, 16)).0, Verdict::Clean);
    assert_eq!(judge(&[0, 1 << 60], contiguous(u64::MAX, 0)).0, Verdict::Clean, "empty");
    for (dims, layout, words) in [
        (vec![u64::MAX, 2], contiguous(48, 16), "past 64 bits"),
        (vec![1 << 62], contiguous(48, 16), "past 64 bits"),
        (vec![8], contiguous(48, 16), "16 bytes are stored"),
        (vec![1 << 20], contiguous(48, 4 << 20), "the file at"),
        (vec![1 << 40], contiguous(u64::MAX, 0), "in a file of"),
        (vec![8], vec![3, 0, 16, 0], "16 bytes are stored"),
    ] {
        let (verdict, what) = judge(&dims, layout);
        assert_eq!(verdict, Verdict::Dangerous, "{dims:?}: {what}");
        assert!(what.contains(words), "{dims:?}: {what}");
    }
}

#[test]
fn pickles_are_told_from_text() {
    for text in [
        &b"\x80\x04K\x01."[..],
        b"cos\nsystem\n(S'x'\ntR.",
        b"(lp0\ncposix\nsystem\n.",
        b"(ios\nsystem\n.",
        b"\x8c\x02os\x94.",
    ] {
        assert!(may_be_pickle(text), "{text:?}");
    }
    for text in [
        &b""[..],
        b".",
        b"A sentence.",
        b"A sentence\nand another one.",
        b"{\"a\": 1}",
        b"kernel:0",
        b"3.14.",
        "ü.".as_bytes(),
    ] {
        assert!(!may_be_pickle(text), "{}", String::from_utf8_lossy(text));
    }
}
