//! A report as SARIF 2.1.0, which code scanning services and editors read.
//!
//! Offsets in model files are in bytes. Code scanning shows a result only where it has a line, so each has line 1 as
//! well; the members that lead to it are logical locations.

use serde_json::{Value, json};

use super::report::{Finding, Report, Severity, Verdict};
use super::rules::{RULES, Rule};

impl Report {
    /// The report as a SARIF 2.1.0 log with one run.
    ///
    /// What a policy allowed, and what is only information, is a `note`. Paths are relative to where they were
    /// scanned from, as they were given; an absolute one is a `file:` URI.
    pub fn to_sarif(&self) -> Value {
        json!({
            "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "Weighbridge",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": RULES.iter().map(rule).collect::<Value>(),
                }},
                "artifacts": self.files.iter().map(|f| json!({
                    "location": { "uri": uri(&f.path.to_string_lossy()) },
                    "length": f.bytes,
                })).collect::<Value>(),
                "results": self.files.iter().enumerate()
                    .flat_map(|(at, f)| f.findings.iter().map(move |finding| result(finding, at)))
                    .collect::<Value>(),
                "invocations": [{ "executionSuccessful": true }],
                "properties": { "verdict": self.verdict },
            }],
        })
    }
}

fn rule(rule: &Rule) -> Value {
    let mut out = json!({
        "id": rule.id,
        "shortDescription": { "text": sentence(rule.short) },
        "fullDescription": { "text": sentence(rule.why) },
        "help": { "text": sentence(rule.help) },
        "defaultConfiguration": { "level": level(rule.severity) },
        "properties": { "tags": ["security"], "security-severity": score(rule.severity) },
    });
    // A name that differs in case alone would say nothing more.
    if rule.id.contains('-') {
        out["name"] = json!(pascal_case(rule.id));
    }
    out
}

fn result(finding: &Finding, artifact: usize) -> Value {
    let place = &finding.place;
    let uri = uri(&place.file.to_string_lossy());
    let mut region = json!({ "startLine": 1 });
    // An offset in a member is none in the file.
    if let (Some(offset), true) = (place.offset, place.members.is_empty()) {
        region = json!({ "startLine": 1, "byteOffset": offset });
    }
    let mut location = json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri, "index": artifact },
        "region": region,
    }});
    if !place.members.is_empty() {
        let name = place.members.join("/");
        location["logicalLocations"] = json!([{ "fullyQualifiedName": name, "kind": "member" }]);
    }
    let index = RULES.iter().position(|r| r.id == finding.rule);
    let at = place.offset.map(|o| format!(" at byte {o}")).unwrap_or_default();
    let within = if place.members.is_empty() {
        String::new()
    } else {
        format!(" (in {}{at})", place.members.join(" / "))
    };
    let text = format!(
        "{}{within}. {} {}",
        finding.what.trim_end_matches('.'),
        sentence(&finding.why),
        sentence(&finding.fix)
    );
    let mut out = json!({
        "ruleId": finding.rule,
        "level": if finding.verdict == Verdict::Clean { "note" } else { level(finding.severity) },
        "message": { "text": text.trim() },
        "locations": [location],
        // The same finding in the same place stays the same alert when the file is written again around it.
        "partialFingerprints": { "finding/v1": fingerprint(finding) },
        "properties": {
            "verdict": finding.verdict,
            "severity": finding.severity,
            "security-severity": score(finding.severity),
            "members": place.members,
            "offset": place.offset,
            "opcode": finding.opcode,
            "callable": finding.callable,
            "arguments": finding.arguments,
        },
    });
    if let Some(index) = index {
        out["ruleIndex"] = json!(index);
    }
    out
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "note",
        Severity::Low | Severity::Medium => "warning",
        Severity::High | Severity::Critical => "error",
    }
}

/// The number from 0 to 10 by which code scanning ranks results; its bounds are 4, 7 and 9.
fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "0.0",
        Severity::Low => "3.0",
        Severity::Medium => "5.5",
        Severity::High => "8.0",
        Severity::Critical => "9.8",
    }
}

fn fingerprint(finding: &Finding) -> String {
    let mut hasher = blake3::Hasher::new();
    let parts = [finding.rule, finding.callable.as_deref().unwrap_or_default(), &finding.what];
    for part in parts.into_iter().chain(finding.place.members.iter().map(String::as_str)) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// A path as a URI reference: each byte that may not stand in one is escaped.
fn uri(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `pickle-call` as `PickleCall`.
fn pascal_case(id: &str) -> String {
    id.split('-')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

/// Text with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim().chars();
    let mut out: String = letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
    if !out.is_empty() && !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("models/a b#1.pkl"), "models/a%20b%231.pkl");
        assert_eq!(uri("/srv/ü.bin"), "file:///srv/%C3%BC.bin");
        assert_eq!(uri("./a.bin"), "a.bin");
        assert_eq!(pascal_case("pickle-call"), "PickleCall");
        assert_eq!(sentence("it runs code"), "It runs code.");
    }
}
