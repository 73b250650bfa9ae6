//! Tests of strided gathers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// A reader that is no memory, and counts what is asked of it.
struct Counting {
    bytes: Vec<u8>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    finished: AtomicU64,
}

impl Counting {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self { bytes, reads: zero(), read_bytes: zero(), finished: zero() })
    }
}

impl ReadAt for Counting {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.bytes.as_slice().read_at(offset, buf)
    }

    fn finish(&self) -> Result<()> {
        self.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// xorshift64*: enough to choose shapes.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n.max(1)
    }
}

/// The view element by element.
fn naive(storage: &[u8], size: u64, shape: &[u64], strides: &[u64], offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..element_count(shape).unwrap() {
        let (mut rest, mut at) = (i, offset);
        for (&count, &stride) in shape.iter().zip(strides).rev() {
            at += rest % count * stride;
            rest /= count;
        }
        out.extend_from_slice(&storage[(at * size) as usize..((at + 1) * size) as usize]);
    }
    out
}

fn bytes(n: u64) -> Vec<u8> {
    (0..n).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

/// Checks a view from memory and from a reader, whole and in pieces.
fn check(size: u64, shape: &[u64], strides: &[u64], offset: u64, random: &mut Random) {
    let reach: u64 = shape.iter().zip(strides).map(|(&n, &s)| n.saturating_sub(1) * s).sum();
    let storage = bytes((offset + reach + 1) * size);
    let expected = naive(&storage, size, shape, strides, offset);
    let lazy = Data::Lazy(Counting::new(storage.clone()) as Arc<dyn ReadAt>);
    for source in [Data::Borrowed(&storage[..]), lazy] {
        let view = Strided::new(source, size, shape, strides, offset).unwrap();
        assert_eq!(view.len(), expected.len() as u64);
        let mut whole = vec![0; expected.len()];
        view.read_at(0, &mut whole).unwrap();
        assert!(whole == expected, "{size} bytes, {shape:?}, {strides:?}, {offset}");
        for _ in 0..if view.len() > 100_000 { 4 } else { 20 } {
            let start = random.below(view.len() + 1);
            let mut part = vec![0; random.below(view.len() - start + 1) as usize];
            view.read_at(start, &mut part).unwrap();
            let right = &expected[start as usize..start as usize + part.len()];
            assert!(part == right, "{size} bytes, {shape:?}, {strides:?}, {offset}: {start}, {}", part.len());
        }
    }
}

#[test]
fn random_views_are_those_of_the_naive_walk() {
    let mut random = Random(7);
    for _ in 0..2000 {
        let rank = random.below(6) as usize;
        let shape: Vec<u64> = (0..rank).map(|_| random.below(8)).collect();
        let mut strides = vec![0; rank];
        if random.below(2) == 0 {
            // A permuted and thinned contiguous tensor.
            let mut order: Vec<usize> = (0..rank).collect();
            for i in (1..rank).rev() {
                order.swap(i, random.below(i as u64 + 1) as usize);
            }
            let mut stride = 1;
            for &dim in &order {
                strides[dim] = stride;
                stride *= shape[dim].max(1) + random.below(2);
            }
        } else {
            // Anything: expanded, overlapping.
            strides.iter_mut().for_each(|s| *s = random.below(30));
        }
        let size = [1, 2, 3, 4, 8, 16][random.below(6) as usize];
        check(size, &shape, &strides, random.below(5), &mut random);
    }
}

#[test]
fn large_views_take_every_way_of_reading() {
    let mut random = Random(11);
    // Transposes with runs of every length, gaps on either side of `GAP`, rows on either side of `WINDOW`.
    for (rows, columns, pad) in [(200, 300, 0), (3, 90_000, 0), (90_000, 3, 0), (8, 5000, 3000)] {
        check(4, &[columns, rows], &[1, columns + pad], 5, &mut random);
        check(2, &[rows, columns], &[columns + pad, 1], 0, &mut random);
        check(1, &[rows, columns / 2 + 1], &[columns + pad, 2], 1, &mut random);
    }
    // Three dimensions in every order.
    let (a, b, c) = (20, 100, 50);
    for (shape, strides) in [
        ([a, c, b], [b * c, 1, c]),
        ([b, a, c], [c, b * c, 1]),
        ([c, b, a], [1, c, b * c]),
        ([c, a, b], [1, b * c, c]),
        ([b, c, a], [c, 1, b * c]),
    ] {
        check(4, &shape, &strides, 0, &mut random);
    }
    check(4, &[100, 1000, 3], &[0, 1, 0], 0, &mut random);
    // Units of more than a window, repeated and apart.
    check(8, &[3, 150_000], &[0, 1], 1, &mut random);
    check(8, &[3, 150_000], &[150_001, 1], 1, &mut random);
}

#[test]
fn tiles_serve_chunks_in_any_order_and_from_many_threads() {
    // Three tiles, the last one short.
    let (rows, columns) = (750u64, 768u64);
    let storage = bytes(rows * columns * 4);
    let expected = naive(&storage, 4, &[columns, rows], &[1, columns], 0);
    let source = Counting::new(storage);
    let mut view = Strided::new(Data::Lazy(source.clone()), 4, &[columns, rows], &[1, columns], 0).unwrap();
    assert!(!view.direct && view.tile.is_multiple_of(rows * 4) && view.tile <= TILE);
    view.tile = 300 * rows * 4;
    let chunk = 60_003; // Begins and ends inside elements and rows.
    let chunks = expected.len().div_ceil(chunk);
    let check = |i: usize| {
        let range = i * chunk..expected.len().min((i + 1) * chunk);
        let mut buf = vec![0; range.len()];
        view.read_at(range.start as u64, &mut buf).unwrap();
        assert!(buf == expected[range], "chunk {i}");
    };
    let left = || lock(&view.tiles).iter().flatten().filter(|t| lock(&t.content).bytes.is_some()).count();
    // Neighbours in the wrong order, as two workers may come: no tile is made twice.
    for i in (0..chunks).step_by(2) {
        if i + 1 < chunks {
            check(i + 1);
        }
        check(i);
    }
    let (reads, read) = (source.reads.load(Ordering::Relaxed), source.read_bytes.load(Ordering::Relaxed));
    // The gaps between the runs are small enough to be read through: one pass over the source for each tile.
    assert!(reads <= 3 * view.len.div_ceil(WINDOW), "{reads} reads");
    assert!(read <= 3 * view.len, "{read} bytes");
    assert_eq!(left(), 0, "tiles that were handed out are dropped");
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let i = next.fetch_add(1, Ordering::Relaxed) as usize
                    && i < chunks
                {
                    check(i);
                }
            });
        }
    });
    // Backwards is slower and equal.
    (0..chunks).rev().step_by(9).for_each(check);
    assert!(left() > 0);
    view.finish().unwrap();
    assert_eq!(source.finished.load(Ordering::Relaxed), 1);
    assert!(lock(&view.tiles).iter().all(Option::is_none));
}

#[test]
fn a_contiguous_view_is_one_read() {
    let source = Counting::new(bytes(1000));
    let view = Strided::new(Data::Lazy(source.clone()), 4, &[1, 10, 1, 20], &[7, 20, 3, 1], 50).unwrap();
    let mut buf = [0; 800];
    view.read_at(0, &mut buf).unwrap();
    assert_eq!(buf[..], source.bytes[200..]);
    assert_eq!(source.reads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_slice_of_columns_reads_through_small_gaps() {
    // 10,000 rows of 64 bytes, of which 32 are wanted.
    let source = Counting::new(bytes(640_000));
    let view = Strided::new(Data::Lazy(source.clone()), 4, &[10_000, 8], &[16, 1], 0).unwrap();
    let mut buf = vec![0; 320_000];
    view.read_at(0, &mut buf).unwrap();
    assert!(source.reads.load(Ordering::Relaxed) <= 2);
}

#[test]
fn views_outside_their_storage_are_refused() {
    let storage = [0u8; 40];
    let view = |shape: &[u64], strides: &[u64], offset| {
        Strided::new(Data::Borrowed(&storage), 4, shape, strides, offset).map(|v| v.len())
    };
    assert_eq!(view(&[10], &[1], 0).unwrap(), 40);
    assert_eq!(view(&[4], &[3], 0).unwrap(), 16);
    assert_eq!(view(&[], &[], 9).unwrap(), 4);
    assert_eq!(view(&[5, 0], &[1, 1], 1000).unwrap(), 0);
    assert_eq!(view(&[1 << 50], &[0], 9).unwrap(), 1 << 52);
    for (shape, strides, offset) in [
        (&[11][..], &[1][..], 0),
        (&[10], &[1], 1),
        (&[5], &[3], 0),
        (&[], &[], 10),
        (&[1 << 62, 4], &[0, 0], 0),
        (&[1 << 62], &[0], 0),
        (&[3], &[u64::MAX], 0),
        (&[2], &[u64::MAX / 2], 0),
        (&[1], &[1], u64::MAX),
        (&[2, 2], &[1], 0),
    ] {
        let error = view(shape, strides, offset).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Malformed, "{shape:?} {strides:?} {offset}");
    }
}

/// Not a test of speed, which depends on the machine, but its measure: GiB of output a second on one core, in
/// chunks of 4 MiB, from a file and from memory, beside a contiguous copy.
#[test]
#[ignore = "prints measurements; run in release with --nocapture"]
fn measure() {
    let (rows, columns) = (8192u64, 12288u64);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("matrix");
    let storage = vec![7u8; (rows * columns * 4) as usize];
    std::fs::write(&path, &storage).unwrap();
    let source = crate::Source::open(&path).unwrap();
    let mut buf = vec![0; 4 << 20];
    for (what, shape, strides) in [
        ("contiguous", [rows, columns], [columns, 1]),
        ("transposed", [columns, rows], [1, columns]),
        ("half of the columns", [rows, columns / 2], [columns, 1]),
        ("every second column", [rows, columns / 2], [columns, 2]),
    ] {
        let file = Data::Lazy(source.reader().clone());
        for (place, data) in [("file", file), ("memory", Data::Borrowed(&storage))] {
            let view = Strided::new(data, 4, &shape, &strides, 0).unwrap();
            let start = std::time::Instant::now();
            let mut at = 0;
            while at < view.len() {
                let n = (view.len() - at).min(buf.len() as u64) as usize;
                view.read_at(at, &mut buf[..n]).unwrap();
                at += n as u64;
            }
            let speed = view.len() as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 30);
            println!("{what}, {place}: {speed:.2}");
        }
    }
}
