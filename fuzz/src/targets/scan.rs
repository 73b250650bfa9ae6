//! Any bytes through the scanner, under a name that the bytes choose: it ends, and says something of what it met.

use weighbridge_formats::Source;
use weighbridge_trust::scan::{Bounds, ScanOptions, scan_source};

const NAMES: &[&str] =
    &["x.bin", "x.pkl", "config.json", "x.onnx", "x.gguf", "x.safetensors", "x.keras", "x.h5"];

/// The first byte chooses the name.
pub fn run(bytes: &[u8]) {
    let Some((choice, content)) = bytes.split_first() else { return };
    let mut options = ScanOptions::default();
    options.limits = crate::options().limits;
    options.bounds = Bounds { unpacked: 4 << 20, unpacked_per_byte: 4, parts: 10_000, ..Bounds::default() };
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    let report = scan_source(name, Source::from_bytes(content), &options);
    let worst = report.findings.iter().map(|f| f.verdict).max().unwrap_or_default();
    assert_eq!(report.verdict, worst);
    assert!(report.findings.len() <= options.bounds.findings + 1);
}
