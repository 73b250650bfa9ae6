//! Bombs: little that unpacks to much, in every compression that is read.

use std::io::Write as _;
use std::path::Path;

use super::{Case, refused, scanned, write};

/// A piece of a raw deflate stream that stands for a mebibyte of zeros or of a pattern, wherever it stands.
pub(crate) fn deflated(pattern: &[u8]) -> Vec<u8> {
    let plain = pattern.repeat((1 << 20) / pattern.len());
    let mut packer = flate2::Compress::new(flate2::Compression::best(), false);
    let mut out = Vec::with_capacity(1 << 16);
    packer.compress_vec(&plain, &mut out, flate2::FlushCompress::Full).expect("packed");
    assert!(packer.total_in() == plain.len() as u64 && out.ends_with(&[0, 0, 0xff, 0xff]));
    out
}

/// The CRC-32 of a mebibyte's pattern, so many times.
pub(crate) fn crc(pattern: &[u8], mebibytes: usize) -> u32 {
    let mut one = crc32fast::Hasher::new();
    one.update(&pattern.repeat((1 << 20) / pattern.len()));
    let mut all = crc32fast::Hasher::new();
    (0..mebibytes).for_each(|_| all.combine(&one));
    all.finalize()
}

/// A gzip stream of a pattern.
fn gzip(path: &Path, pattern: &[u8], mebibytes: usize) {
    let head = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut tail = vec![3, 0];
    tail.extend_from_slice(&crc(pattern, mebibytes).to_le_bytes());
    tail.extend_from_slice(&((mebibytes << 20) as u32).to_le_bytes());
    let piece = deflated(pattern);
    write(path, std::iter::once(head).chain(std::iter::repeat_n(piece, mebibytes)).chain([tail]));
}

/// A zlib stream of zeros, of which every length has a sum that is known.
fn zlib(path: &Path, mebibytes: usize) {
    let sum = (((mebibytes << 20) % 65521) as u32) << 16 | 1;
    let tail = [&[3, 0][..], &sum.to_be_bytes()].concat();
    let piece = deflated(&[0]);
    write(path, std::iter::once(vec![0x78, 0xda]).chain(std::iter::repeat_n(piece, mebibytes)).chain([tail]));
}

/// Many streams one after another, which every reader takes for one.
fn streams(path: &Path, one: &[u8], n: usize) {
    write(path, std::iter::repeat_n(one, n));
}

fn bzip2(pattern: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    out.write_all(&pattern.repeat((8 << 20) / pattern.len())).expect("packed");
    out.finish().expect("packed")
}

fn xz(pattern: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).expect("a writer");
    out.write_all(&pattern.repeat((8 << 20) / pattern.len())).expect("packed");
    out.finish().expect("packed")
}

/// The beginning of a pickle that never ends, then values.
const LISTS: &[u8] = b"]]]]]]]]]]]]]]]]";
/// What costs no memory and no end of time.
const NOTHING: &[u8] = b"N0N0N0N0N0N0N0N0";

/// Bytes that a compression leaves a fiftieth of.
fn tenth(path: &Path) {
    let mut out = flate2::write::ZlibEncoder::new(
        std::fs::File::create(path).expect("a file"),
        flate2::Compression::fast(),
    );
    let mut number = 1u32;
    for _ in 0..60_000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut block = [b']'; 1024];
        block[0] = b'K';
        block[1] = (number >> 24) as u8;
        for at in 1..5 {
            block[at * 2] = b'K';
            block[at * 2 + 1] = (number >> (at * 5)) as u8;
        }
        out.write_all(&block).expect("packed");
    }
    out.finish().expect("packed");
}

pub(crate) const CASES: &[Case] = &[
    refused("joblib, 5 GB of values in gzip", "f.joblib", |p| gzip(p, LISTS, 5 << 10)),
    refused("joblib, 5 GB of nothing in gzip", "f.joblib", |p| gzip(p, NOTHING, 5 << 10)),
    refused("joblib, 5 GB of zeros in zlib", "f.joblib", |p| zlib(p, 5 << 10)),
    refused("joblib, 63 MiB of values in gzip", "f.joblib", |p| gzip(p, LISTS, 63)),
    refused("joblib, 63 MiB of nothing in gzip", "f.joblib", |p| gzip(p, NOTHING, 63)),
    refused("joblib, 60 MB in 1 MB of zlib", "f.joblib", tenth),
    refused("joblib, 500 MiB of values in bzip2", "f.joblib", |p| streams(p, &bzip2(LISTS), 63)),
    refused("joblib, 56 MiB of values in bzip2", "f.joblib", |p| streams(p, &bzip2(LISTS), 7)),
    refused("joblib, 500 MiB of values in xz", "f.joblib", |p| streams(p, &xz(LISTS), 63)),
    refused("joblib, 56 MiB of values in xz", "f.joblib", |p| streams(p, &xz(LISTS), 7)),
    scanned("5 GB of zeros in gzip", "f.gz", |p| gzip(p, &[0], 5 << 10)),
    scanned("500 MiB of zeros in bzip2", "f.bz2", |p| streams(p, &bzip2(&[0]), 63)),
    scanned("5 GB of zeros in xz", "f.xz", |p| streams(p, &xz(&[0]), 640)),
];
