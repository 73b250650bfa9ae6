//! A policy: what a team vouches for, what it will not have, and the severity from which on a scan fails.
//!
//! ```toml
//! version = 1
//! fail-at = "medium"
//!
//! [[allow]]
//! name = "mycompany.nets.*"
//! reason = "our own modules, reviewed"
//!
//! [[deny]]
//! name = "pandas.*"
//! reason = "no frames in models"
//! ```
//!
//! Names are those of findings (`callable`): of classes, functions, operators. In patterns `*` stands for any characters
//! and `?` for one; a pattern is for the whole name. Something that nobody knows is all that an allowance covers; to let
//! code pass it must say so (`dangerous = true`).

use std::path::Path;

use regex::Regex;
use serde::Deserialize;
use weighbridge_formats::transform::glob;
use weighbridge_formats::{Error, Result};

use super::report::{Finding, Report, Severity, Verdict};
use super::rules::RULES;

/// The longest policy file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a team vouches for and what it will not have.
#[derive(Clone, Debug)]
pub struct Policy {
    fail_at: Severity,
    allow: Vec<Entry>,
    deny: Vec<Entry>,
}

/// An allowance or a refusal. What it leaves open fits everything.
#[derive(Clone, Debug)]
struct Entry {
    name: Option<Regex>,
    rule: Option<String>,
    file: Option<Regex>,
    dangerous: bool,
    reason: String,
}

impl Default for Policy {
    /// Nothing is allowed or refused beyond what a scan decides; everything that is more than information fails.
    fn default() -> Self {
        Self { fail_at: Severity::Low, allow: Vec::new(), deny: Vec::new() }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    version: u32,
    fail_at: Option<Severity>,
    #[serde(default)]
    allow: Vec<WrittenEntry>,
    #[serde(default)]
    deny: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenEntry {
    name: Option<String>,
    rule: Option<String>,
    file: Option<String>,
    #[serde(default)]
    dangerous: bool,
    reason: String,
}

impl Policy {
    /// Reads a policy from a file.
    ///
    /// # Errors
    /// `NotFound`, `Io`; as [`Policy::parse`], with the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let source = weighbridge_formats::Source::open(path)?;
        if source.len() > LONGEST {
            let text = format!("a policy of {} bytes; at most {LONGEST} are read", source.len());
            return Err(Error::invalid_options(text).with_path(path));
        }
        let mut bytes = vec![0; usize::try_from(source.len()).unwrap_or_default()];
        source.reader().read_at(0, &mut bytes).map_err(|e| e.with_path(path))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::invalid_options("the policy is no UTF-8").with_path(path))?;
        Self::parse(&text).map_err(|e| e.with_path(path))
    }

    /// Reads a policy from its text.
    ///
    /// # Errors
    /// `InvalidOptions` for what is no TOML, for keys that a policy does not have, versions other than 1, rules that no
    /// scan has, and entries that fit everything.
    pub fn parse(text: &str) -> Result<Self> {
        let hint = "docs/scan.md has an example";
        let written: Written = toml::from_str(text).map_err(|e| {
            let place = e.span().map(|s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            let line = place.map(|l| format!("line {l}: ")).unwrap_or_default();
            Error::invalid_options(format!("{line}{}", e.message().trim())).with_hint(hint)
        })?;
        if written.version != 1 {
            let text = format!("version {} of policies is not known; version 1 is", written.version);
            return Err(Error::invalid_options(text).with_hint(hint));
        }
        let entries = |list: Vec<WrittenEntry>| list.into_iter().map(Entry::new).collect::<Result<Vec<_>>>();
        Ok(Self {
            fail_at: written.fail_at.unwrap_or(Severity::Low),
            allow: entries(written.allow)?,
            deny: entries(written.deny)?,
        })
    }

    /// The severity from which on a finding fails a scan.
    pub fn fail_at(&self) -> Severity {
        self.fail_at
    }

    /// Sets the severity from which on a finding fails a scan.
    #[must_use]
    pub fn failing_at(mut self, severity: Severity) -> Self {
        self.fail_at = severity;
        self
    }

    /// Why a name is refused, if it is, wherever it stands; for names that are harmless otherwise.
    pub fn denies(&self, name: &str, file: &Path) -> Option<&str> {
        let fits = |e: &&Entry| e.rule.is_none() && e.name.is_some() && e.fits(None, Some(name), file);
        self.deny.iter().find(fits).map(|e| e.reason.as_str())
    }

    /// Changes findings by the entries, and the verdicts after them. What is allowed stays in the report as
    /// information.
    pub fn apply(&self, report: &mut Report) {
        for file in &mut report.files {
            for finding in &mut file.findings {
                self.judge(finding);
            }
            file.verdict = file.findings.iter().map(|f| f.verdict).max().unwrap_or_default();
        }
        report.verdict = report.files.iter().map(|f| f.verdict).max().unwrap_or_default();
    }

    /// The worst verdict among the findings that fail a scan.
    pub fn outcome(&self, report: &Report) -> Verdict {
        let failing = report.findings().filter(|f| f.severity >= self.fail_at);
        failing.map(|f| f.verdict).max().unwrap_or_default()
    }

    fn judge(&self, finding: &mut Finding) {
        let fits = |e: &&Entry| e.fits(Some(finding.rule), finding.callable.as_deref(), &finding.place.file);
        if let Some(entry) = self.deny.iter().find(fits) {
            finding.why = format!("refused by the policy: {}", entry.reason);
            finding.verdict = Verdict::Dangerous;
            finding.severity = finding.severity.max(Severity::High);
            return;
        }
        let may = |e: &&Entry| e.dangerous || finding.verdict < Verdict::Dangerous;
        if let Some(entry) = self.allow.iter().filter(may).find(fits) {
            finding.why = format!("allowed by the policy: {}", entry.reason);
            finding.verdict = Verdict::Clean;
            finding.severity = Severity::Info;
        }
    }
}

impl Entry {
    fn new(written: WrittenEntry) -> Result<Self> {
        if written.name.is_none() && written.rule.is_none() && written.file.is_none() {
            let text = format!("an entry ({:?}) that names nothing fits everything", written.reason);
            return Err(Error::invalid_options(text).with_hint("give it a `name`, `rule` or `file`"));
        }
        if let Some(unknown) = written.rule.as_deref().filter(|r| RULES.iter().all(|known| known.id != *r)) {
            let text = format!("there is no rule {unknown:?}");
            return Err(Error::invalid_options(text).with_hint("docs/scan.md lists the rules"));
        }
        let pattern = |text: Option<String>| text.as_deref().map(glob).transpose();
        Ok(Self {
            name: pattern(written.name)?,
            rule: written.rule,
            file: pattern(written.file)?,
            dangerous: written.dangerous,
            reason: written.reason,
        })
    }

    fn fits(&self, rule: Option<&str>, name: Option<&str>, file: &Path) -> bool {
        self.rule.as_deref().is_none_or(|r| rule == Some(r))
            && self.name.as_ref().is_none_or(|p| name.is_some_and(|n| p.is_match(n)))
            && self.file.as_ref().is_none_or(|p| p.is_match(&file.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{FileReport, Place};

    fn report() -> Report {
        let finding = |rule, verdict, severity, name: &str| Finding {
            rule,
            verdict,
            severity,
            place: Place { file: "models/a.pkl".into(), ..Place::default() },
            opcode: None,
            callable: Some(name.to_owned()),
            arguments: None,
            what: String::new(),
            why: "why".to_owned(),
            fix: String::new(),
        };
        let findings = vec![
            finding("pickle-unknown-class", Verdict::Unknown, Severity::Medium, "ours.Net"),
            finding("pickle-call", Verdict::Dangerous, Severity::Critical, "os.system"),
        ];
        let file = FileReport {
            path: "models/a.pkl".into(),
            bytes: 10,
            verdict: Verdict::Dangerous,
            kinds: Vec::new(),
            findings,
        };
        Report { verdict: Verdict::Dangerous, files: vec![file], ..Report::default() }
    }

    fn verdicts(policy: &str) -> Vec<Verdict> {
        let mut report = report();
        Policy::parse(policy).unwrap().apply(&mut report);
        report.findings().map(|f| f.verdict).collect()
    }

    #[test]
    fn an_allowance_covers_what_is_unknown_and_code_only_where_it_says_so() {
        use Verdict::{Clean, Dangerous, Unknown};
        let entry = |rest: &str| format!("version = 1\n[[allow]]\nreason = 'r'\n{rest}");
        assert_eq!(verdicts("version = 1"), [Unknown, Dangerous]);
        assert_eq!(verdicts(&entry("name = 'ours.*'")), [Clean, Dangerous]);
        assert_eq!(verdicts(&entry("file = 'models/*'")), [Clean, Dangerous]);
        assert_eq!(verdicts(&entry("file = 'models/*'\ndangerous = true")), [Clean, Clean]);
        assert_eq!(verdicts(&entry("name = 'ours'")), [Unknown, Dangerous]);
        assert_eq!(verdicts(&entry("rule = 'pickle-call'\nname = 'ours.*'")), [Unknown, Dangerous]);
        let denied =
            "version = 1\n[[deny]]\nname = 'ours.*'\nreason = 'no'\n[[allow]]\nname='ours.*'\nreason='yes'";
        assert_eq!(verdicts(denied), [Dangerous, Dangerous]);
        let policy = Policy::parse(denied).unwrap();
        assert_eq!(policy.denies("ours.Net", Path::new("x")), Some("no"));
        assert_eq!(policy.denies("numpy.ndarray", Path::new("x")), None);
    }

    #[test]
    fn a_scan_fails_from_the_severity_on_that_is_asked_for() {
        let outcome = |text: &str| Policy::parse(text).unwrap().outcome(&report());
        assert_eq!(outcome("version = 1"), Verdict::Dangerous);
        assert_eq!(Policy::default().outcome(&report()), Verdict::Dangerous);
        let mut unknown = report();
        unknown.files[0].findings.pop();
        let policy = Policy::parse("version = 1\nfail-at = 'high'").unwrap();
        assert_eq!(policy.outcome(&unknown), Verdict::Clean);
        assert_eq!(Policy::default().outcome(&unknown), Verdict::Unknown);
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_line() {
        for (text, words) in [
            ("", "version"),
            ("version = 2", "version 2"),
            ("version = 1\nalow = []", "line 2"),
            ("version = 1\n[[allow]]\nname = 'x'", "reason"),
            ("version = 1\n[[allow]]\nreason = 'x'", "fits everything"),
            ("version = 1\n[[allow]]\nreason = 'x'\nrule = 'pickle'", "no rule"),
            ("version = 1\nfail-at = 'never'", "never"),
        ] {
            let error = Policy::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
