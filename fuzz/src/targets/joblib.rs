//! Any bytes as a joblib dump: as they are, and behind the mark of each compression, which the fuzzer finds slowly by
//! itself.
use crate::{exhaust, open};

const MARKS: [&[u8]; 6] =
    [b"\x78\x9c", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x5d\0\0\x80\0", b"\x04\x22\x4d\x18"];

/// The target.
pub fn run(bytes: &[u8]) {
    if let Ok(archive) = open(Some("joblib"), bytes) {
        exhaust(&*archive);
    }
    // The first byte chooses one, so that an input is not read seven times.
    if let Some((&which, rest)) = bytes.split_first() {
        let marked = [MARKS[usize::from(which) % MARKS.len()], rest].concat();
        if let Ok(archive) = open(Some("joblib"), &marked) {
            exhaust(&*archive);
        }
    }
}
