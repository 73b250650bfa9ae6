//! Random archives through every pair of formats: tensors come back to the byte, and values where they are held.
//!
//! A failure names the seed, which makes the archive again.

use std::path::Path;

use weighbridge::{Archive, ErrorKind, Registry};
use weighbridge_testkit::compare::{assert_same_tensors, assert_same_values};
use weighbridge_testkit::random::Random;
use weighbridge_testkit::write::{reopen, save};
use weighbridge_testkit::{archives, conformance};

/// How many archives go through each pair.
const SEEDS: u64 = 60;

/// Writes and reads; `None` if the format said beforehand that it would lose something.
fn through(
    registry: &Registry,
    format: &str,
    archive: &dyn Archive,
    folder: &Path,
    what: &str,
) -> Option<Box<dyn Archive>> {
    match save(registry, format, archive, folder, "model") {
        Ok(saved) => Some(reopen(registry, format, &saved.path).unwrap_or_else(|e| panic!("{what}: {e:?}"))),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::InvalidOptions, "{what}: {e:?}");
            None
        }
    }
}

fn every_pair(nested: bool) {
    let registry = Registry::builtin();
    let formats = conformance::formats(&registry);
    let mut done = 0;
    for from in &formats {
        for to in &formats {
            for seed in 0..SEEDS {
                let what = format!("{from} to {to}, seed {seed}, nested {nested}");
                let original = archives::random(&mut Random::new(seed), nested);
                let folder = tempfile::tempdir().unwrap();
                let same = |a: &dyn Archive, b: &dyn Archive| {
                    // Nested tensors are named by their paths, flat ones by their names.
                    if nested { assert_same_values(a, b, &what) } else { assert_same_tensors(a, b, &what) }
                };
                let Some(first) = through(&registry, from, &original, folder.path(), &what) else { continue };
                same(&original, &*first);
                let second = tempfile::tempdir().unwrap();
                let Some(there) = through(&registry, to, &*first, second.path(), &what) else { continue };
                same(&*first, &*there);
                let third = tempfile::tempdir().unwrap();
                let Some(back) = through(&registry, from, &*there, third.path(), &what) else { continue };
                same(&original, &*back);
                done += 1;
            }
        }
    }
    let all = formats.len() * formats.len() * SEEDS as usize;
    assert_eq!(done, all, "of {all} ways there and back, the others were refused");
}

#[test]
fn flat_archives_come_back() {
    every_pair(false);
}

#[test]
fn nested_archives_come_back() {
    every_pair(true);
}
