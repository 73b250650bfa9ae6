//! Any bytes as a torch file, and as the pickle in a torch file whose zip is sound and has two storages.

use crate::{exhaust, open, options};
use weighbridge_formats::Source;
use weighbridge_formats::backends::torch::script::Script;

/// The target.
pub fn run(bytes: &[u8]) {
    if let Ok(archive) = open(Some("torch"), bytes) {
        exhaust(&*archive);
    }
    // As a program: its text, and its module's pickle.
    list(bytes);
    list(&zip(&[("a/data.pkl", bytes), ("a/constants.pkl", b"\x80\x02).")]));
    list(&zip(&[
        ("a/data.pkl", b"\x80\x02c__torch__\nM\n)\x81}b."),
        ("a/constants.pkl", b"\x80\x02)."),
        ("a/code/__torch__.py", bytes),
    ]));
    let file =
        zip(&[("a/data.pkl", bytes), ("a/data/0", &[1; 64]), ("a/data/1", &[2; 8]), ("a/version", b"3")]);
    if let Ok(archive) = open(Some("torch"), &file) {
        exhaust(&*archive);
    }
}

fn list(file: &[u8]) {
    if let Ok(Some(script)) = Script::open(Source::from_bytes(file), &options()) {
        exhaust(script.constants());
    }
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// A zip of stored members.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in members {
        let at = out.len() as u32;
        let mut common = vec![0; 8];
        for field in [crc32(content), content.len() as u32, content.len() as u32, name.len() as u32] {
            common.extend(field.to_le_bytes());
        }
        out.extend(b"PK\x03\x04\x14\0");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(*content);
        directory.extend(b"PK\x01\x02\x14\0\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, count) = (out.len() as u32, members.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0; 2]);
    out
}
