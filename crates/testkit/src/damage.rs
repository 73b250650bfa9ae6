//! Damaged files: every truncation, every flipped bit. Each must give an error or a correct read, never a panic, and
//! never cost more memory than a small multiple of the file.

use std::sync::atomic::{AtomicUsize, Ordering};

use weighbridge_formats::{Archive, Limits, ReadOptions, Registry, Result, Source};

use crate::alloc::peak_of;
use crate::compare::{Summary, summary};

/// The memory that opening and reading any small file may take, besides [`PER_BYTE`].
pub const FIXED: u64 = 64 << 20;
/// The memory that each byte of a file may cause.
pub const PER_BYTE: u64 = 16;

/// How the damaged file is opened: by what its content shows, or by a named reader, for which a broken mark is no
/// way out.
#[derive(Clone, Copy, Debug)]
pub enum Opened<'a> {
    /// As [`Registry::open`] does.
    ByContent,
    /// By this format's reader.
    As(&'a str),
}

/// Limits under which a damaged shape cannot keep a test busy with a gibibyte of repeated elements.
pub fn limits() -> Limits {
    Limits { expanded_bytes: 4 << 20, ..Limits::default() }
}

/// Opens bytes and reads all tensors, values and notes.
///
/// # Errors
/// What opening and reading say.
pub fn read(registry: &Registry, how: Opened<'_>, bytes: &[u8]) -> Result<Vec<Summary>> {
    let mut options = ReadOptions::default();
    options.limits = limits();
    let source = Source::from_bytes(bytes);
    let archive: Box<dyn Archive> = match how {
        Opened::ByContent => registry.open(source, &options)?,
        Opened::As(format) => registry.deserializer(format)?.open(source, &options)?,
    };
    if let Some((values, root)) = archive.values().and_then(|v| Some((v, v.root()?))) {
        std::hint::black_box(values.reachable(root));
    }
    std::hint::black_box((archive.variety(), archive.notes().len(), archive.metadata().len()));
    summary(&*archive)
}

/// As [`read`], with the bound on memory.
///
/// # Panics
/// If more memory is held than [`FIXED`] and [`PER_BYTE`] allow; if the reader panics.
pub fn read_bounded(registry: &Registry, how: Opened<'_>, bytes: &[u8], what: &str) -> Result<Vec<Summary>> {
    let (outcome, peak) = peak_of(|| read(registry, how, bytes));
    let most = FIXED + PER_BYTE * bytes.len() as u64;
    assert!(peak <= most, "{what}: {peak} bytes of memory for a file of {}", bytes.len());
    outcome
}

/// What became of many damaged files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Refused with an error.
    pub refused: usize,
    /// Read as if nothing had happened.
    pub same: usize,
    /// Read as something else: only where no checksum covers the bytes.
    pub other: usize,
}

impl Outcomes {
    /// How many files there were.
    pub fn all(&self) -> usize {
        self.refused + self.same + self.other
    }

    fn count(&mut self, outcome: &Result<Vec<Summary>>, whole: &[Summary]) {
        match outcome {
            Err(_) => self.refused += 1,
            Ok(read) if read == whole => self.same += 1,
            Ok(_) => self.other += 1,
        }
    }
}

/// Cuts a file at every `step`th length, short of its whole.
///
/// # Panics
/// If a part is read as something else than the whole; as [`read_bounded`].
pub fn truncate(registry: &Registry, how: Opened<'_>, file: &[u8], step: usize, what: &str) -> Outcomes {
    let whole = read(registry, how, file).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let mut outcomes = Outcomes::default();
    for len in (0..file.len()).step_by(step) {
        let what = format!("{what}, cut to {len} bytes");
        let outcome = read_bounded(registry, how, &file[..len], &what);
        outcomes.count(&outcome, &whole);
        assert_eq!(outcomes.other, 0, "{what}: read as something else: {outcome:?}");
    }
    outcomes
}

/// Flips one bit at a time. `at` says which of all bits are flipped.
///
/// # Panics
/// As [`read_bounded`]; and if `covered` and a flip changes what is read without an error.
pub fn flip(
    registry: &Registry,
    how: Opened<'_>,
    file: &[u8],
    bits: impl IntoIterator<Item = usize>,
    covered: bool,
    what: &str,
) -> Outcomes {
    let whole = read(registry, how, file).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let mut outcomes = Outcomes::default();
    let mut damaged = file.to_vec();
    for bit in bits {
        damaged[bit / 8] ^= 1 << (bit % 8);
        let what = format!("{what}, bit {} of byte {} flipped", bit % 8, bit / 8);
        let outcome = read_bounded(registry, how, &damaged, &what);
        outcomes.count(&outcome, &whole);
        assert!(!covered || outcomes.other == 0, "{what}: read as something else");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    outcomes
}

/// Runs `work` on each item, on as many threads as there are processors.
///
/// # Panics
/// If `work` does.
pub fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}
