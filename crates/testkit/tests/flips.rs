//! Single bits flipped in files of every format: each flip is found by `verify`, and without a manifest each gives an error
//! or a correct read of what is there, never a panic, within the memory that a file of its size may take.
//!
//! The files are the golden ones, which the real tools wrote, and what every writer makes of the same small model. Each
//! file gets the same share of the flips; a small one gets all of its bits before a larger one gets more.
//! WEIGHBRIDGE_FLIPS sets how many there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use weighbridge::trust::manifest::{HashOptions, Recorded, VerifyOptions, hash, verify};
use weighbridge_formats::{Registry, ValuesPolicy};
use weighbridge_testkit::alloc::Counting;
use weighbridge_testkit::archives;
use weighbridge_testkit::damage::{self, Opened, in_parallel, read_bounded};
use weighbridge_testkit::random::Random;
use weighbridge_testkit::write::{options, save_with};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Enough to meet every field of every format, few enough for every run of the tests.
const FLIPS: usize = 30_000;
/// Larger files show no more than smaller ones of their format.
const LARGEST: u64 = 64 << 10;

struct Subject {
    name: String,
    format: String,
    bytes: Vec<u8>,
    bits: Vec<usize>,
}

/// Golden files that open by themselves, but indices and what they refer to.
fn golden(found: &mut Vec<(String, String, Vec<u8>)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    for format in ["safetensors", "torch", "pickle", "joblib", "onnx"] {
        let mut todo = vec![root.join(format)];
        while let Some(at) = todo.pop() {
            let mut entries: Vec<PathBuf> =
                std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                let dumped = Path::new(&format!("{}.json", path.display())).is_file();
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                if path.is_dir() {
                    todo.push(path);
                } else if dumped && path.metadata().unwrap().len() <= LARGEST && !name.ends_with(".json") {
                    let bytes = std::fs::read(&path).unwrap();
                    // A tensor without data has no hash, and a file with one no manifest of tensors.
                    let whole = !name.contains("meta.pt");
                    if whole && damage::read(&Registry::builtin(), Opened::As(format), &bytes).is_ok() {
                        found.push((name, format.to_owned(), bytes));
                    }
                }
            }
        }
    }
}

/// What every writer makes of a model.
fn written(found: &mut Vec<(String, String, Vec<u8>)>) {
    let registry = Registry::builtin();
    let dir = tempfile::tempdir().unwrap();
    for format in registry.formats().iter().filter(|f| f.reads() && f.writes()) {
        for seed in 0..3 {
            let archive = archives::random(&mut Random::new(seed), false);
            let mut choices = options(format.info, &format!("seed{seed}"));
            choices.values = ValuesPolicy::Drop;
            choices.allow_loss = true;
            let Ok(saved) = save_with(&registry, format.info.id, &archive, dir.path(), &choices) else {
                continue;
            };
            let bytes = std::fs::read(&saved.path).unwrap();
            found.push((format!("written {} {seed}", format.info.id), format.info.id.to_owned(), bytes));
        }
    }
}

/// Divides the flips among the files, and spreads each one's share over its bits.
fn subjects(flips: usize) -> Vec<Subject> {
    let mut found = Vec::new();
    golden(&mut found);
    written(&mut found);
    let formats: std::collections::BTreeSet<&str> = found.iter().map(|(_, f, _)| &**f).collect();
    assert_eq!(formats.len(), 5, "{formats:?}");
    assert!(found.len() > 100, "only {} files", found.len());
    found.sort_by_key(|(name, _, bytes)| (bytes.len(), name.clone()));
    let (mut left, count) = (flips, found.len());
    let mut random = Random::new(flips as u64);
    let mut all = Vec::new();
    for (at, (name, format, bytes)) in found.into_iter().enumerate() {
        let (bits, share) = (bytes.len() * 8, left / (count - at));
        let share = share.min(bits);
        left -= share;
        // One at random out of each of so many stretches: none is flipped twice.
        let stretch = |n: usize| n * bits / share;
        let bits = (0..share)
            .map(|n| stretch(n) + random.index(stretch(n + 1) - stretch(n)))
            .collect::<Vec<usize>>();
        all.push(Subject { name, format, bytes, bits });
    }
    all
}

#[derive(Default)]
struct Tally {
    flips: usize,
    refused: usize,
    same: usize,
    other: usize,
    verified: usize,
}

#[test]
fn every_flipped_bit_is_found() {
    let flips = std::env::var("WEIGHBRIDGE_FLIPS").map_or(FLIPS, |n| n.parse().expect("a number"));
    let subjects = subjects(flips);
    let tally: Mutex<BTreeMap<String, Tally>> = Mutex::default();
    in_parallel(&subjects, |subject| {
        let one = flip(subject);
        let mut tally = tally.lock().unwrap();
        let sum = tally.entry(subject.format.clone()).or_default();
        sum.flips += one.flips;
        sum.refused += one.refused;
        sum.same += one.same;
        sum.other += one.other;
        sum.verified += one.verified;
    });
    let tally = tally.into_inner().unwrap();
    let mut all = 0;
    for (format, t) in &tally {
        println!(
            "{format}: {} flips, all found by verify; opened without: {} refused, {} read as before, {} read as it stands",
            t.flips, t.refused, t.same, t.other
        );
        assert_eq!(t.verified, t.flips, "{format}");
        assert!(t.refused > 0 && t.refused + t.same + t.other == t.flips, "{format}");
        all += t.flips;
    }
    println!("{all} flips in {} files", subjects.len());
    let bits: usize = subjects.iter().map(|s| s.bytes.len() * 8).sum();
    assert!(all == flips || all == bits, "{all} of {flips}, in files of {bits} bits");
}

fn flip(subject: &Subject) -> Tally {
    let Subject { name, format, bytes, bits } = subject;
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, bytes).unwrap();
    let manifest = hash(&path, &HashOptions::default()).and_then(|h| h.into_manifest());
    let manifest = manifest.unwrap_or_else(|e| panic!("{name}: {e:?}"));
    manifest.write(&weighbridge::trust::manifest::manifest_path(&path), false).unwrap();
    let recorded = Recorded::find(&path, None).unwrap();
    let options = VerifyOptions::default();
    let same = |what: &str| match verify(&recorded, &options) {
        Ok(found) => found.is_same(),
        Err(e) => panic!("{name}, {what}: {e:?}"),
    };
    assert!(same("whole"), "{name}");

    let registry = Registry::builtin();
    let whole = damage::read(&registry, Opened::As(format), bytes).unwrap();
    let mut tally = Tally::default();
    let mut damaged = bytes.clone();
    for &bit in bits {
        let what = format!("{name}, bit {} of byte {}", bit % 8, bit / 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        tally.flips += 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(!same(&what), "{what}: not found");
        tally.verified += 1;
        match read_bounded(&registry, Opened::As(format), &damaged, &what) {
            Err(_) => tally.refused += 1,
            Ok(read) if read == whole => tally.same += 1,
            Ok(_) => {
                // A zip has a checksum over everything that is read.
                assert!(!bytes.starts_with(b"PK"), "{what}: read as something else");
                tally.other += 1;
            }
        }
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    tally
}
