//! Pickles that are long, deep, or hold much of what costs memory.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::{Case, around, numbered, read, refused, times, write};

const N: usize = 10_000_000;

fn repeated(path: &Path, before: &[u8], piece: &[u8], n: usize, after: &[u8]) {
    write(path, around(before.to_vec(), times(piece, n), after));
}

fn deep(path: &Path, opens: &[u8], closes: &[u8]) {
    let pieces = std::iter::once(b"\x80\x04".to_vec());
    write(path, pieces.chain(times(opens, N)).chain(times(closes, N - 1)).chain([b".".to_vec()]));
}

/// A file of a length that holds nothing but its beginning and its end.
fn sparse(path: &Path, begin: &[u8], length: u64, end: &[u8]) {
    let mut file = std::fs::File::create(path).expect("a file");
    file.write_all(begin).expect("written");
    file.seek(SeekFrom::Start(begin.len() as u64 + length)).expect("a place");
    file.write_all(end).expect("written");
}

/// Texts, each another.
const TEXT: &[u8] = b"X\x08\0\0\0########";

/// A number and its place in the memo for each below `n`, in four bytes behind an opcode.
fn counted(path: &Path, opcode: u8, n: u32, first: u32, step: u32, (before, after): (&[u8], &[u8])) {
    let blocks = (0..n).step_by(4096).map(move |from| {
        let mut block = Vec::with_capacity(5 << 12);
        for i in from..n.min(from + 4096) {
            block.push(opcode);
            block.extend_from_slice(&(i * step + first).to_le_bytes());
        }
        block
    });
    write(path, around(before.to_vec(), blocks, after));
}

fn texts(path: &Path, piece: &'static [u8], n: u32, (before, after): (&[u8], &[u8])) {
    write(path, around(before.to_vec(), numbered(piece, n), after));
}

pub(crate) const CASES: &[Case] = &[
    refused("lists 10000000 deep", "f.pkl", |p| deep(p, b"]", b"a")),
    refused("tuples 10000000 deep", "f.pkl", |p| repeated(p, b"\x80\x04)", b"\x85", N, b".")),
    refused("tuples by marks 10000000 deep", "f.pkl", |p| deep(p, b"(", b"t")),
    refused("dicts 10000000 deep", "f.pkl", |p| deep(p, b"}K\x01", b"s")),
    refused("objects 10000000 deep", "f.pkl", |p| repeated(p, b"\x80\x04cshop\nItem\n", b"\x85R", N, b".")),
    refused("10000000 numbers", "f.pkl", |p| counted(p, b'J', N as u32, 70_000, 1, (b"\x80\x02](", b"e."))),
    refused("10000000 texts", "f.pkl", |p| texts(p, TEXT, N as u32, (b"\x80\x02](", b"e."))),
    refused("10000000 empty lists", "f.pkl", |p| repeated(p, b"\x80\x02](", b"]", N, b"e.")),
    refused("10000000 empty dicts", "f.pkl", |p| repeated(p, b"\x80\x02](", b"}", N, b"e.")),
    refused("5000000 keys", "f.pkl", |p| {
        texts(p, b"X\x08\0\0\0########N", 5_000_000, (b"\x80\x02}(", b"u."));
    }),
    refused("5000000 floats in a set", "f.pkl", |p| {
        texts(p, b"G########", 5_000_000, (b"\x80\x04\x8f(", b"\x90."));
    }),
    refused("10000000 objects", "f.pkl", |p| repeated(p, b"\x80\x02](", b"cshop\nItem\n)R", N / 2, b"e.")),
    refused("10000000 objects with state", "f.pkl", |p| {
        repeated(p, b"\x80\x02cshop\nItem\nq\x000](", b"h\0)\x81}b", N / 2, b"e.");
    }),
    refused("2000000 names", "f.pkl", |p| {
        texts(p, b"cshop\nItem#######\n", 2_000_000, (b"\x80\x02](", b"e."));
    }),
    refused("20000000 puts", "f.pkl", |p| counted(p, b'r', 20_000_000, 0, 1, (b"\x80\x02N", b"."))),
    refused("10000000 puts at odd places", "f.pkl", |p| {
        counted(p, b'r', N as u32, 77, 400, (b"\x80\x02N", b"."));
    }),
    refused("100000000 values on the stack", "f.pkl", |p| repeated(p, b"\x80\x02N", b"2", 10 * N, b".")),
    refused("100000000 marks", "f.pkl", |p| repeated(p, b"\x80\x02", b"(", 10 * N, b".")),
    refused("400000000 opcodes", "f.pkl", |p| repeated(p, b"\x80\x02N", b"N0", 20 * N, b".")),
    refused("10000000 long numbers", "f.pkl", |p| {
        repeated(p, b"\x80\x02](", b"\x8a\x101234567890123456", N / 2, b"e.");
    }),
    refused("numbers of 4000 digits", "f.pkl", |p| {
        repeated(p, b"(", format!("I1{}\n", "7".repeat(4000)).as_bytes(), 10_000, b"l.");
    }),
    refused("a text of 5 GB", "f.pkl", |p| {
        let n: u64 = 5 << 30;
        sparse(p, &[b"\x80\x04\x8d", &n.to_le_bytes()[..]].concat(), n, b".");
    }),
    refused("bytes of 5 GB", "f.pkl", |p| {
        let n: u64 = 5 << 30;
        sparse(p, &[b"\x80\x04\x8e", &n.to_le_bytes()[..]].concat(), n, b".");
    }),
    refused("a frame of 2 GB", "f.pkl", |p| {
        let n: u64 = 2 << 30;
        sparse(p, &[b"\x80\x04\x95", &n.to_le_bytes()[..]].concat(), n, b".");
    }),
    refused("LONG4 of 2 GiB with 2 bytes behind it", "f.pkl", |p| {
        write(p, [b"\x80\x02\x8b\xff\xff\xff\x7fab."]);
    }),
    read("200 levels that hold the one below three times", "f.pkl", |p| {
        repeated(p, b"\x80\x02]q\0", b"](h\0h\0h\0eq\0", 200, b".");
    }),
    read("a vocabulary of 300000 words", "f.pkl", |p| {
        texts(p, b"\x8c\x0aword######\x94I7######\n", 300_000, (b"\x80\x04}(", b"u."));
    }),
    refused("a million names for one array", "f.pkl", many_names),
    refused("3000000 pairs of a text and its name", "f.pkl", |p| {
        texts(p, b"\x8c\x04shop\x8c\x07#######\x93", 3_000_000, (b"\x80\x04](", b"e."));
    }),
];

/// A NumPy array that a list of a list of a list holds again and again.
fn many_names(path: &Path) {
    let mut out =
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85"
            .to_vec();
    out.extend_from_slice(
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
    );
    out.extend_from_slice(b"\x89U\x04abcdtbq\0");
    for _ in 0..6 {
        out.extend_from_slice(b"0](");
        out.extend(b"h\0".repeat(30));
        out.extend_from_slice(b"eq\0");
    }
    out.push(b'.');
    std::fs::write(path, out).expect("a file");
}
