//! Any bytes as an HDF5 file, looked at by the scanner.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weighbridge_formats::Source;
use weighbridge_trust::scan::{ScanOptions, scan_source};

fuzz_target!(|bytes: &[u8]| {
    let report = scan_source("model.h5", Source::from_bytes(bytes), &ScanOptions::default());
    assert!(report.findings.iter().all(|f| f.verdict <= report.verdict));
});
