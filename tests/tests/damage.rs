//! Every golden file, cut short at every length and with single bits flipped: an error or a correct read, no panic,
//! and no more memory than a small multiple of the file.
//!
//! Files of up to 6 KB are damaged at every byte, larger ones at every seventh; of the smallest every bit is flipped,
//! of the others one bit of the byte, each time another. With WEIGHBRIDGE_EVERY_BIT set, it is every bit of every file,
//! which takes many minutes. In a zip a flipped bit must never
//! change a tensor without an error: CRC-32 covers every member's content, and the directory is held against the
//! members' headers. What no checksum covers there (times, versions, attributes, alignment, the second copy of sizes
//! in headers and descriptors) is not used, so that reading is the same. safetensors, pickles, legacy streams and tars
//! have no checksum: a flipped bit in a tensor's bytes is another tensor, and only panics and memory are at stake.

use std::path::{Path, PathBuf};

use weighbridge::{ErrorKind, ReadOptions, Registry};
use weighbridge_testkit::alloc::{Counting, peak_of};
use weighbridge_testkit::damage::{self, Opened, flip, in_parallel, truncate};
use weighbridge_tests::workspace;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Files up to this length are damaged at every byte.
const SMALL: usize = 6 << 10;
/// Of larger files, every so many bytes.
const STEP: usize = 7;
/// Of files up to this length, every bit is flipped.
const TINY: usize = 1800;

struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    fn is_zip(&self) -> bool {
        self.bytes.starts_with(b"PK")
    }

    fn step(&self) -> usize {
        if self.bytes.len() <= SMALL || every_bit() { 1 } else { STEP }
    }

    /// The bits to flip.
    fn bits(&self) -> Vec<usize> {
        let all = self.bytes.len() <= TINY || every_bit();
        let of_byte = |at: usize| if all { at * 8..at * 8 + 8 } else { at * 8 + at % 8..at * 8 + at % 8 + 1 };
        (0..self.bytes.len()).step_by(self.step()).flat_map(of_byte).collect()
    }
}

fn every_bit() -> bool {
    std::env::var_os("WEIGHBRIDGE_EVERY_BIT").is_some()
}

/// The golden files below a folder that have a dump.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if Path::new(&format!("{}.json", path.display())).is_file() {
            found.push(path);
        }
    }
}

/// Golden files of a format, but indices, which need the files beside them.
fn golden(format: &str) -> Vec<Golden> {
    let folder = workspace().join("tests/golden").join(format);
    let mut found = Vec::new();
    files_below(&folder, &mut found);
    found.sort();
    let files = found.into_iter().filter(|p| !p.display().to_string().ends_with(".index.json"));
    files
        .map(|path| Golden {
            name: path.strip_prefix(&folder).unwrap().display().to_string(),
            bytes: std::fs::read(&path).unwrap(),
        })
        .collect()
}

/// Cuts and flips every file, opened by its content and by its format's own reader.
fn damage(format: &str, files: &[Golden], at_least: usize) {
    assert!(files.len() >= at_least, "only {} golden files of {format}", files.len());
    in_parallel(files, |file| {
        let registry = Registry::builtin();
        let (what, step) = (format!("{format}/{}", file.name), file.step());
        // By the reader itself, which a broken mark at the beginning does not save from the rest; and by content,
        // where it shows the format: pickles of the first two protocols have no mark.
        let mut ways = vec![Opened::As(format)];
        match damage::read(&registry, Opened::ByContent, &file.bytes) {
            Ok(_) => ways.push(Opened::ByContent),
            Err(e) => assert!(
                matches!(format, "pickle" | "joblib") && e.kind() == ErrorKind::UnknownFormat,
                "{what}: {e:?}"
            ),
        }
        let bits = file.bits();
        for how in ways {
            let cut = truncate(&registry, how, &file.bytes, step, &what);
            assert_eq!(cut.all(), file.bytes.len().div_ceil(step), "{what}");
            assert!(cut.refused > 0, "{what}: {cut:?}");
            let flipped = flip(&registry, how, &file.bytes, bits.iter().copied(), file.is_zip(), &what);
            assert_eq!(flipped.all(), bits.len(), "{what}");
            assert!(flipped.refused > 0, "{what}: {flipped:?}");
        }
    });
}

#[test]
fn torch_zips() {
    let files: Vec<Golden> = golden("torch").into_iter().filter(Golden::is_zip).collect();
    damage("torch", &files, 40);
}

#[test]
fn torch_legacy_streams_and_tars() {
    let files: Vec<Golden> = golden("torch").into_iter().filter(|f| !f.is_zip()).collect();
    damage("torch", &files, 15);
}

#[test]
fn safetensors() {
    damage("safetensors", &golden("safetensors"), 10);
}

#[test]
fn pickles() {
    damage("pickle", &golden("pickle"), 30);
}

/// Files of several blocks of their compression are no different from those of one, so the small ones will do.
#[test]
fn joblib_dumps() {
    damage("joblib", &golden("joblib"), 25);
}

/// But those whose tensors are in files beside them.
#[test]
fn onnx_models() {
    let files: Vec<Golden> = golden("onnx").into_iter().filter(|f| !f.name.starts_with("external")).collect();
    damage("onnx", &files, 7);
}

#[test]
fn shard_indices() {
    let mut done = 0;
    for (format, folder, index) in [
        ("safetensors", "safetensors/sharded", "model.safetensors.index.json"),
        ("torch", "torch/sharded", "pytorch_model.bin.index.json"),
    ] {
        let golden = workspace().join("tests/golden").join(folder);
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("model");
        std::fs::create_dir(&inner).unwrap();
        for entry in std::fs::read_dir(&golden).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, inner.join(path.file_name().unwrap())).unwrap();
        }
        // What a damaged name must not lead to.
        std::fs::write(outer.path().join("secret"), "outside").unwrap();
        let path = inner.join(index);
        let whole = std::fs::read(&path).unwrap();
        let registry = Registry::builtin();
        let mut options = ReadOptions::default();
        options.limits = damage::limits();
        let mut check = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            let (opened, peak) = peak_of(|| registry.open_path(&path, &options));
            assert!(peak <= damage::FIXED, "{what}: {peak} bytes of memory");
            done += 1;
            match opened {
                Ok(archive) => {
                    assert_eq!(archive.format(), format, "{what}");
                    for (i, _) in archive.tensors().iter().enumerate() {
                        archive
                            .data(i)
                            .and_then(|d| d.read_all())
                            .unwrap_or_else(|e| panic!("{what}: {e:?}"));
                    }
                    let inside = archive.files().iter().all(|f| f.starts_with(&inner));
                    assert!(inside, "{what}: {:?}", archive.files());
                }
                Err(e) => assert_ne!(e.kind(), ErrorKind::Io, "{what}: {e:?}"),
            }
        };
        check(&whole, "whole");
        for len in 0..whole.len() {
            check(&whole[..len], &format!("{index}, cut to {len} bytes"));
        }
        let mut flipped = whole.clone();
        for bit in 0..whole.len() * 8 {
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, &format!("{index}, bit {bit} flipped"));
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert!(done > 2000, "{done} damaged indices");
}
