//! Any bytes under the names that the scanner's inspectors of configurations, graphs and headers go by.

use weighbridge_formats::Source;
use weighbridge_trust::scan::{ScanOptions, scan_source};

/// A file for each inspector.
const NAMES: &[&str] = &[
    "config.json",
    "model_index.json",
    "modules.json",
    "saved_model.pb",
    "keras_metadata.pb",
    "graph.pbtxt",
    "model.onnx",
    "model.gguf",
    "model.tflite",
    "model.safetensors",
    "chat_template.jinja",
];

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let name = NAMES[usize::from(*first) % NAMES.len()];
    let report = scan_source(name, Source::from_bytes(rest), &ScanOptions::default());
    assert!(report.findings.iter().all(|f| f.verdict <= report.verdict));
}
