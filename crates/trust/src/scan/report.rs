//! What a scan says: verdicts, findings, and the report of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a file is called; the worst of its findings decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything in it is known, and harmless.
    #[default]
    Clean,
    /// Something in it is neither known to be harmless nor code; it could not be looked at in full, say, or it names a
    /// class that nobody vouched for.
    Unknown,
    /// Something that loads it in the usual way runs code, leaves the model's folder or is misled.
    Dangerous,
}

/// How much harm a finding can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; the file stays clean.
    Info,
    /// Harm needs more than loading the file.
    Low,
    /// Something that is not known, or a file that lies about itself.
    Medium,
    /// Reads or writes what it should not, or asks a loader to run code that comes with it.
    High,
    /// Loading it runs code of the file's choice.
    Critical,
}

/// Where something stands: a file, the members of containers that lead to it, and the offset in the innermost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, as it was given or found below the folder that was.
    pub file: PathBuf,
    /// The members that lead to it, outermost first: a zip's member, `pickle 2` in it, bytes in that.
    pub members: Vec<String>,
    /// The offset in the innermost of them, in bytes.
    pub offset: Option<u64>,
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The rule that found it: a short name that stays the same, such as `pickle-call`.
    pub rule: &'static str,
    /// What it makes of the file.
    pub verdict: Verdict,
    /// How much harm it can do.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// The opcode, where it is one of a pickle or of a program.
    pub opcode: Option<&'static str>,
    /// The callable, class or operator, as the file names it: `os.system`.
    pub callable: Option<String>,
    /// Its arguments as text, cut where they are long.
    pub arguments: Option<String>,
    /// What was found, in one sentence.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do, usually a command.
    pub fix: String,
}

/// What was found in one file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The worst of its findings.
    pub verdict: Verdict,
    /// What it is made of, outermost first: `zip`, `torch`, `pickle`.
    pub kinds: Vec<String>,
    /// What was found, in the order of the file.
    pub findings: Vec<Finding>,
}

/// What was found in everything that was scanned.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The worst of the files.
    pub verdict: Verdict,
    /// The files in the order of their paths.
    pub files: Vec<FileReport>,
    /// The bytes of the files together.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// All findings, file by file.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.files.iter().flat_map(|f| &f.findings)
    }
}
