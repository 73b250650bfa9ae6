//! Headers, indices and configs: text that is parsed before anything is known of a model.

use std::path::Path;

use super::{Case, around, numbered, path_of, read, refused, scanned, times, write};

const HUNDRED: usize = 100_000_000;

fn safetensors(path: &Path, length: usize, before: &str, piece: &str, after: &str) {
    let n = (length - before.len() - after.len()) / piece.len();
    let rest = length - before.len() - after.len() - n * piece.len();
    let head = [&(length as u64).to_le_bytes()[..], before.as_bytes()].concat();
    let tail = [after.as_bytes(), " ".repeat(rest).as_bytes()].concat();
    write(path, std::iter::once(head).chain(times(piece.as_bytes(), n)).chain([tail]));
}

/// A text, a piece for each number, a text.
fn counted(path: &Path, before: &'static str, n: u32, piece: &'static str, after: &'static str) {
    write(path, around(before.as_bytes().to_vec(), numbered(piece.as_bytes(), n), after.as_bytes()));
}

/// A header of that.
fn entries(path: &Path, before: &'static str, n: u32, piece: &'static str, after: &'static str) {
    let length = (before.len() + piece.len() * n as usize + after.len()) as u64;
    let head = [&length.to_le_bytes()[..], before.as_bytes()].concat();
    write(path, around(head, numbered(piece.as_bytes(), n), after.as_bytes()));
}

fn folder(path: &Path, name: &str, before: &[u8], piece: &[u8], n: usize, after: &[u8]) {
    super::benign(&path_of(path, "model.safetensors"));
    file(&path_of(path, name), before, piece, n, after);
}

fn file(path: &Path, before: &[u8], piece: &[u8], n: usize, after: &[u8]) {
    write(path, around(before.to_vec(), times(piece, n), after));
}

pub(crate) const CASES: &[Case] = &[
    read("safetensors, 100 MB of spaces", "f.safetensors", |p| safetensors(p, HUNDRED, "{", " ", "}")),
    refused("safetensors, 100 MB of brackets", "f.safetensors", |p| {
        safetensors(p, HUNDRED, "{\"a\":", "[", "");
    }),
    refused("safetensors, 100 MB of one text", "f.safetensors", |p| {
        safetensors(p, HUNDRED, "{\"__metadata__\":{\"a\":\"", "x", "\"}}");
    }),
    refused("safetensors, 100 MB of one name", "f.safetensors", |p| {
        safetensors(p, HUNDRED, "{\"", "x", "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    }),
    refused("safetensors, 7000000 keys of metadata", "f.safetensors", |p| {
        entries(p, "{\"__metadata__\":{\"\":\"\"", 7_000_000, ",\"#######\":\"\"", "}}");
    }),
    refused("safetensors, 7000000 empty keys", "f.safetensors", |p| {
        safetensors(p, HUNDRED, "{\"a\":{", "\"aaaaaaaa\":1,", "\"b\":1}}");
    }),
    refused("safetensors, 100 MB of dimensions", "f.safetensors", |p| {
        safetensors(p, HUNDRED, "{\"a\":{\"dtype\":\"U8\",\"shape\":[0", ",1", "],\"data_offsets\":[0,0]}}");
    }),
    refused("safetensors, 1600000 tensors", "f.safetensors", |p| {
        entries(
            p,
            "{\"__metadata__\":{}",
            1_600_000,
            ",\"#######\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
            "}",
        );
    }),
    read("safetensors, 45000 tensors", "f.safetensors", |p| {
        entries(
            p,
            "{\"__metadata__\":{}",
            45_000,
            ",\"model.layers.##.mlp.experts.#####.gate_proj.weight\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
            "}",
        );
    }),
    refused("an index of 100 MB of empty lists", "f.safetensors.index.json", |p| {
        file(p, b"{\"metadata\":[[]", b",[]", HUNDRED / 3, b"],\"weight_map\":{}}");
    }),
    refused("an index of a million shards", "f.safetensors.index.json", |p| {
        counted(p, "{\"weight_map\":{\"z\":\"z\"", 1_000_000, ",\"#######\":\"#######.safetensors\"", "}}");
    }),
    refused("an index of 2000000 tensors", "f.safetensors.index.json", |p| {
        counted(p, "{\"weight_map\":{\"z\":\"z\"", 2_000_000, ",\"tensor#######\":\"a.safetensors\"", "}}");
    }),
    refused("a config of 10000000 brackets", "model", |p| {
        folder(p, "config.json", b"{\"a\":", b"[", 10_000_000, b"");
    }),
    refused("a config of 49000000 numbers", "model", |p| {
        folder(p, "config.json", b"{\"a\":[1", b",1", 49_000_000, b"]}");
    }),
    read("a config of 200000 numbers", "model", |p| {
        folder(p, "config.json", b"{\"a\":[1", b",1", 200_000, b"]}");
    }),
    refused("a config of 600000 numbers", "model", |p| {
        folder(p, "config.json", b"{\"a\":[1", b",1", 600_000, b"]}");
    }),
    refused("a config of 9 MiB", "model", |p| folder(p, "config.json", b"{\"a\":\"", b"x", 9 << 20, b"\"}")),
    refused("a config of 400000 empty objects", "model", |p| {
        folder(p, "config.json", b"{\"a\":[{\"a\":{}}", b",{\"a\":{}}", 400_000, b"]}");
    }),
    scanned("a tokenizer of 100 MB", "model", |p| {
        folder(p, "tokenizer.json", b"{\"model\":{\"vocab\":[[]", b",[]", HUNDRED / 3, b"]}}");
    }),
    scanned("a tokenizer config of 100 MB", "model", |p| {
        folder(p, "tokenizer_config.json", b"{\"chat_template\":\"", b"{{ a }}", HUNDRED / 7, b"\"}");
    }),
    scanned("a manifest of 100 MB", "model", |p| {
        folder(
            p,
            "weighbridge.json",
            b"{\"weighbridge_manifest\":1,\"files\":[[]",
            b",[]",
            HUNDRED / 3,
            b"]}",
        );
    }),
];
