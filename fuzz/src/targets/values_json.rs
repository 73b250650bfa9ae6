//! Any bytes as the text in which a safetensors file keeps values that are no tensors.

use crate::{exhaust, open};

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut header = String::from("{\"__metadata__\":{\"weighbridge.values\":\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => header.extend(['\\', c]),
            '\0'..='\x1f' => header.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => header.push(c),
        }
    }
    header.push_str("\"},\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}");
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[1, 2]].concat();
    // Values that cannot be restored are left out with a note; the tensor is there in any case.
    let archive = open(Some("safetensors"), &file).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(archive.tensors().len(), 1);
    exhaust(&*archive);
}
