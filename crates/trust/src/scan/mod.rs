//! What a file would do if something loaded it: decided by what its streams construct, never by running them.
//!
//! There is no list of what is bad. What is known to be harmless is `clean`; what calls, names or holds code is
//! `dangerous`; what is neither is `unknown`, with the name that makes it so.

// Until every inspector is in the table.
#![allow(dead_code)]

mod engine;
mod inspectors;
mod json;
mod pickle;
mod policy;
mod report;
mod rules;
mod sarif;
mod subject;
mod walk;

pub use engine::{ScanOptions, scan, scan_source};
pub use json::JSON_VERSION;
pub use policy::Policy;
pub use report::{FileReport, Finding, Place, Report, Severity, Verdict};
pub use rules::{RULES, Rule, rule};
pub use subject::Bounds;
