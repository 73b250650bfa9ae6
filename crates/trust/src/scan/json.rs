//! A report as JSON, in a form that stays the same: `docs/scan.schema.json` describes it.

use serde_json::{Value, json};

use super::report::{FileReport, Finding, Report};

/// The version of the form: it changes when a key is taken away or means something else.
pub const JSON_VERSION: u32 = 1;

impl Report {
    /// The report as JSON: `verdict`, `findings`, `files`, `bytes`, `seconds`.
    pub fn to_json(&self) -> Value {
        json!({
            "version": JSON_VERSION,
            "tool": { "name": "weighbridge", "version": env!("CARGO_PKG_VERSION") },
            "verdict": self.verdict,
            "findings": self.findings().map(Finding::to_json).collect::<Value>(),
            "files": self.files.iter().map(FileReport::to_json).collect::<Value>(),
            "bytes": self.bytes,
            "seconds": self.seconds,
        })
    }
}

impl Finding {
    fn to_json(&self) -> Value {
        json!({
            "rule": self.rule,
            "verdict": self.verdict,
            "severity": self.severity,
            "file": self.place.file.to_string_lossy(),
            "members": self.place.members,
            "offset": self.place.offset,
            "opcode": self.opcode,
            "callable": self.callable,
            "arguments": self.arguments,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        })
    }
}

impl FileReport {
    fn to_json(&self) -> Value {
        json!({
            "path": self.path.to_string_lossy(),
            "bytes": self.bytes,
            "verdict": self.verdict,
            "kinds": self.kinds,
            "findings": self.findings.len(),
        })
    }
}
