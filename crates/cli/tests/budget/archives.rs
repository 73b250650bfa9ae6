//! Containers and binary formats whose directories, counts and lengths cost or lie.

use std::path::Path;

use super::packed::{crc, deflated};
use super::{Case, numbered, read, refused, scanned, times, write};

/// A member of a zip: its name, how it is packed, its CRC-32, its length and the pieces of its content.
struct Member {
    name: String,
    method: u16,
    crc: u32,
    size: u64,
    piece: Vec<u8>,
    pieces: usize,
    tail: &'static [u8],
}

fn stored(name: &str, content: &[u8]) -> Member {
    Member {
        name: name.into(),
        method: 0,
        crc: crc32fast::hash(content),
        size: content.len() as u64,
        piece: content.to_vec(),
        pieces: 1,
        tail: b"",
    }
}

/// A deflated member of so many mebibytes of a pattern.
fn bomb(name: &str, pattern: &[u8], mebibytes: usize) -> Member {
    Member {
        name: name.into(),
        method: 8,
        crc: crc(pattern, mebibytes),
        size: (mebibytes as u64) << 20,
        piece: deflated(pattern),
        pieces: mebibytes,
        tail: &[3, 0],
    }
}

impl Member {
    fn packed(&self) -> u64 {
        (self.piece.len() * self.pieces + self.tail.len()) as u64
    }

    /// The fields that the local header and the directory share.
    fn shared(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in [20, 0, self.method, 0, 0] {
            out.extend_from_slice(&u16::to_le_bytes(field));
        }
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&(self.packed() as u32).to_le_bytes());
        out.extend_from_slice(&(self.size as u32).to_le_bytes());
        out.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out
    }
}

fn zip(path: &Path, members: impl IntoIterator<Item = Member>) {
    let mut directory = Vec::new();
    let (mut at, mut count) = (0u64, 0u64);
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).expect("a file"));
    use std::io::Write as _;
    for member in members {
        let shared = member.shared();
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&shared);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&(at as u32).to_le_bytes());
        directory.extend_from_slice(member.name.as_bytes());
        out.write_all(b"PK\x03\x04").expect("written");
        out.write_all(&shared).expect("written");
        out.write_all(member.name.as_bytes()).expect("written");
        (0..member.pieces).for_each(|_| out.write_all(&member.piece).expect("written"));
        out.write_all(member.tail).expect("written");
        at += 4 + shared.len() as u64 + member.name.len() as u64 + member.packed();
        count += 1;
    }
    out.write_all(&directory).expect("written");
    let (length, wide) = (directory.len() as u64, at + directory.len() as u64);
    if count > 0xfffe {
        out.write_all(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0").expect("written");
        for field in [count, count, length, at] {
            out.write_all(&field.to_le_bytes()).expect("written");
        }
        out.write_all(b"PK\x06\x07\0\0\0\0").expect("written");
        out.write_all(&wide.to_le_bytes()).expect("written");
        out.write_all(&1u32.to_le_bytes()).expect("written");
    }
    out.write_all(b"PK\x05\x06\0\0\0\0").expect("written");
    for _ in 0..2 {
        out.write_all(&(count.min(0xffff) as u16).to_le_bytes()).expect("written");
    }
    out.write_all(&(length as u32).to_le_bytes()).expect("written");
    out.write_all(&(at as u32).to_le_bytes()).expect("written");
    out.write_all(&[0, 0]).expect("written");
    out.flush().expect("written");
}

/// A pickle of tensors, each of which is a storage of its own or shares one.
fn tensors(storages: &[&str], bytes: u64, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (number, i) in storages.iter().enumerate() {
        out.extend_from_slice(format!("X\x04\0\0\0{number:04}").as_bytes());
        out.extend_from_slice(
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nByteStorage\n",
        );
        out.extend_from_slice(format!("X\x01\0\0\0{i}X\x03\0\0\0cpu").as_bytes());
        out.extend_from_slice(&[b"\x8a\x08", &bytes.to_le_bytes()[..], b"tQK\0"].concat());
        out.extend_from_slice(shape);
        out.extend_from_slice(strides);
        out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend_from_slice(b"u.");
    out
}

fn version() -> Member {
    stored("a/version", b"3\n")
}

/// Two storages of 2.5 GiB each, deflated.
fn storages(path: &Path) {
    let bytes: u64 = 2560 << 20;
    let shape = [b"\x8a\x08", &bytes.to_le_bytes()[..], b"\x85"].concat();
    let pickle = tensors(&["0", "1"], bytes, &shape, b"K\x01\x85");
    let members = [
        stored("a/data.pkl", &pickle),
        version(),
        bomb("a/data/0", &[0], 2560),
        bomb("a/data/1", &[0], 2560),
    ];
    zip(path, members);
}

/// A tensor each of whose elements is the same byte.
fn expanded(path: &Path, shape: &[u8]) {
    let pickle = tensors(&["0"], 1, shape, b"K\0K\0\x86");
    zip(path, [stored("a/data.pkl", &pickle), version(), stored("a/data/0", b"x")]);
}

/// One storage that a thousand tensors are the whole of.
fn shared(path: &Path) {
    let bytes = vec![1; 10_000_000];
    let shape = [b"J", &10_000_000u32.to_le_bytes()[..], b"\x85"].concat();
    let pickle = tensors(&["0"; 1000], 10_000_000, &shape, b"K\x01\x85");
    zip(path, [stored("a/data.pkl", &pickle), version(), stored("a/data/0", &bytes)]);
}

fn torch_pickle(path: &Path, pattern: &[u8], mebibytes: usize) {
    zip(path, [bomb("a/data.pkl", pattern, mebibytes), version()]);
}

/// Zips of zips of zeros, sixteen of each in the one around.
fn nested(path: &Path) {
    zip(path, (0..16).map(|i| bomb(&format!("{i}.bin"), &[0], 64)));
    for _ in 0..3 {
        let inner = std::fs::read(path).expect("the zip inside");
        zip(
            path,
            (0..16).map(|i| {
                let mut member = stored(&format!("{i}.zip"), &inner);
                let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
                std::io::Write::write_all(&mut packer, &inner).expect("packed");
                member.piece = packer.finish().expect("packed");
                member.method = 8;
                member
            }),
        );
    }
}

fn tar(path: &Path, names: [&str; 2], n: u32) {
    let header = |name: &str| {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(b"00000000000\0");
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block.to_vec()
    };
    let first = names.into_iter().map(header).collect::<Vec<_>>();
    // The sum of each header is that of the first one and of its digits.
    let template = header("member0000000");
    let sum: u32 =
        template.iter().zip(0..).map(|(b, i)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    let each = (0..n).map(move |i| {
        let (mut block, mut left, mut sum) = (template.clone(), i, sum);
        for at in (6..13).rev() {
            block[at] += (left % 10) as u8;
            sum += left % 10;
            left /= 10;
        }
        for at in (148..154).rev() {
            block[at] = b'0' + (sum % 8) as u8;
            sum /= 8;
        }
        block
    });
    write(path, first.into_iter().chain(each).chain([vec![0; 1024]]));
}

fn varint(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// An ONNX model of one opset and a graph of these pieces.
fn onnx(path: &Path, pieces: impl Iterator<Item = Vec<u8>> + Clone) {
    let mut head = b"\x08\x09\x42\x04\x0a\0\x10\x11\x3a".to_vec();
    varint(pieces.clone().map(|p| p.len()).sum(), &mut head);
    write(path, std::iter::once(head).chain(pieces));
}

/// An array file whose header says more than there is.
fn npy(path: &Path, shape: &str, dtype: &str) {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut out = b"\x93NUMPY\x01\0".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    std::fs::write(path, out).expect("a file");
}

fn gguf(path: &Path, tensors: u64, entries: u64, piece: &[u8], n: usize) {
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    head.extend_from_slice(&tensors.to_le_bytes());
    head.extend_from_slice(&entries.to_le_bytes());
    write(path, std::iter::once(head).chain(times(piece, n)));
}

pub(crate) const CASES: &[Case] = &[
    refused("torch, 5 GB of storages deflated to 5 MB", "f.pt", storages),
    refused("torch, a byte that stands for 900 MB", "f.pt", |p| expanded(p, b"J\0\0\x0e\0J\x0e\x03\0\0\x86")),
    read("torch, a byte that stands for 200 MB", "f.pt", |p| expanded(p, b"J\0\0\x10\0J\xc8\0\0\0\x86")),
    refused("torch, 10 MB that 1000 tensors share", "f.pt", shared),
    refused("torch, a pickle of 2.3 GiB deflated", "f.pt", |p| torch_pickle(p, b"]]", 2300)),
    refused("torch, a pickle of 60 MiB of lists deflated", "f.pt", |p| torch_pickle(p, b"]]", 60)),
    refused("torch, a pickle of 60 MiB of nothing deflated", "f.pt", |p| torch_pickle(p, b"N0", 60)),
    refused("zip of 600000 members", "f.pt", |p| {
        let first = [stored("a/data.pkl", b"\x80\x02}."), version()];
        zip(p, first.into_iter().chain((0..600_000).map(|i| stored(&format!("a/{i}"), b""))));
    }),
    refused("zip of 600000 storages", "f.pt", |p| {
        let first = [stored("a/data.pkl", b"\x80\x02}."), version()];
        zip(p, first.into_iter().chain((0..600_000).map(|i| stored(&format!("a/data/{i}"), b""))));
    }),
    scanned("zips in zips in zips", "f.zip", nested),
    scanned("zip of 5 GB of zeros", "f.zip", |p| {
        zip(p, [bomb("a.bin", &[0], 2560), bomb("b.bin", &[0], 2560)]);
    }),
    scanned("zip of 5 GB of a pickle", "f.zip", |p| {
        zip(p, [bomb("a.pkl", b"N0", 2560), bomb("b.pkl", b"]]", 2560)]);
    }),
    scanned("npz of 5 GB", "f.npz", |p| zip(p, [bomb("a.npy", &[0], 2560), bomb("b.npy", b"N0", 2560)])),
    refused("tar of a million members", "f.tar", |p| tar(p, ["sys_info", "pickle"], 1_000_000)),
    refused("onnx, 20000000 nodes", "f.onnx", |p| onnx(p, times(b"\x0a\x03\x22\x01a", 20_000_000))),
    refused("onnx, 50000000 empty nodes", "f.onnx", |p| onnx(p, times(b"\x0a\0", 50_000_000))),
    refused("onnx, 3000000 initializers", "f.onnx", |p| {
        onnx(p, numbered(b"\x2a\x0f\x08\0\x10\x01\x42\x07#######\x4a\0", 3_000_000));
    }),
    refused("onnx, 10000000 initializers without data", "f.onnx", |p| onnx(p, times(b"\x2a\0", 10_000_000))),
    refused("onnx, 100000000 dimensions", "f.onnx", |p| {
        let (mut dims, mut head) = (vec![0x0a], vec![0x2a]);
        varint(100_000_000, &mut dims);
        varint(100_000_000 + dims.len(), &mut head);
        onnx(p, [head, dims].into_iter().chain(times(b"\x01", 100_000_000)));
    }),
    scanned("npy, a shape of 2^60", "f.npy", |p| npy(p, "(1152921504606846976,)", "<f4")),
    scanned("npy, 5000 dimensions", "f.npy", |p| npy(p, &format!("({})", "1, ".repeat(5000)), "|O")),
    scanned("gguf, 2^60 tensors", "f.gguf", |p| gguf(p, 1 << 60, 1 << 60, b"\0", 100)),
    scanned("gguf, 10000000 entries", "f.gguf", |p| {
        gguf(p, 0, 10_000_000, b"\x01\0\0\0\0\0\0\0a\0\0\0\0\0", 5_000_000);
    }),
    scanned("hdf5 of 100 MB of a signature", "f.h5", |p| {
        write(
            p,
            std::iter::once(b"\x89HDF\r\n\x1a\n".to_vec()).chain(times(b"TREE\0\0\xff\xff", 12_000_000)),
        );
    }),
    scanned("tflite of 100 MB of nothing", "f.tflite", |p| {
        write(
            p,
            std::iter::once(b"\x10\0\0\0TFL3".to_vec()).chain(times(b"\x01\0\0\0\x04\0\0\0", 12_000_000)),
        );
    }),
];
