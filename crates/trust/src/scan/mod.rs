//! What a file would do if something loaded it: decided by what its streams construct, never by running them.
//!
//! There is no list of what is bad. What is known to be harmless is `clean`; what calls, names or holds code is
//! `dangerous`; what is neither is `unknown`, with the name that makes it so.

mod base64;
mod containers;
mod engine;
mod gguf;
mod hdf5;
mod headers;
mod huggingface;
mod inspectors;
mod json;
mod jsontree;
mod keras;
mod modules;
mod onnx;
mod others;
mod pickle;
mod policy;
mod protobuf;
mod report;
mod rescue;
mod rules;
mod safetensors;
mod sarif;
mod script;
mod settings;
mod subject;
mod template;
mod tensorflow;
mod unpack;
mod walk;
mod xml;
mod zip;

pub use engine::{Opener, ScanOptions, scan, scan_source};
pub use json::JSON_VERSION;
pub use policy::Policy;
pub use report::{FileReport, Finding, Place, Report, Severity, Verdict};
pub use rescue::{RescueOptions, Rescued, rescue};
pub use rules::{RULES, Rule, rule};
pub use subject::Bounds;
