//! Any bytes as an HDF5 file, looked at by the scanner.

use weighbridge_formats::Source;
use weighbridge_trust::scan::{ScanOptions, scan_source};

/// The target.
pub fn run(bytes: &[u8]) {
    let report = scan_source("model.h5", Source::from_bytes(bytes), &ScanOptions::default());
    assert!(report.findings.iter().all(|f| f.verdict <= report.verdict));
}
