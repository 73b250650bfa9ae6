//! Any bytes and any name, held against what the registry knows: what a file is, and what it is not.

use weighbridge_formats::{Registry, Source};

/// The first line is a file name, the rest the file.
pub fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(0);
    let (name, file) = bytes.split_at(end);
    let name = String::from_utf8_lossy(name);
    let registry = Registry::builtin();
    let _ = (registry.for_extension(&name).map(|f| f.info.id), registry.is_weights_name(&name));
    let source = Source::from_bytes(file);
    match registry.detect(&source) {
        Ok(reader) => assert!(registry.format(reader.info().id).is_ok()),
        Err(e) => {
            assert!(!e.to_string().is_empty() && e.to_string().len() < 10_000, "{}", e.to_string().len());
        }
    }
    // Without any format, what is left is what a file is if it is no model.
    if let Err(e) = Registry::empty().open(source, &crate::options()) {
        assert!(!e.to_string().is_empty());
    }
}
