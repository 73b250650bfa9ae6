//! `cargo xtask deny`: licences, sources, doubled versions and advisories of everything in `Cargo.lock`.
//!
//! The check of our own reads `deny.toml` (licences, crates of which one version may be there) and
//! `xtask/advisories.json`, and needs no network once the packages are fetched. cargo-deny, which knows the whole
//! advisory database, runs after it where it is installed. The output says which of the two ran. Neither finds
//! yanked versions offline; `cargo update --dry-run` tells of those.

use crate::Outcome;
use crate::command::{cargo, done, output, root, run as run_command};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

const ADVISORIES: &str = "xtask/advisories.json";

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    done(arguments)?;
    let policy = fs::read_to_string(root().join("deny.toml"))?;
    let allowed = list(&policy, "licenses", "allow")?;
    let single = list(&policy, "bans", "deny-multiple-versions")?;
    let advisories: Value = serde_json::from_str(&fs::read_to_string(root().join(ADVISORIES))?)?;
    let packages = packages()?;

    let mut faults = licences(&packages, &allowed);
    faults.extend(sources(&packages));
    faults.extend(doubled(&packages, &single, &list(&policy, "bans", "skip")?));
    faults.extend(accepted(advised(&packages, &advisories)?, &list(&policy, "advisories", "ignore")?));
    if !faults.is_empty() {
        return Err(faults.join("\n").into());
    }
    let known = advisories["advisories"].as_array().map_or(0, Vec::len);
    println!(
        "deny: our own check of {} packages: licences, sources, doubled versions, and the {known} advisories of \
         {ADVISORIES} (as of {})",
        packages.len(),
        advisories["checked"].as_str().unwrap_or("no date")
    );
    let installed = cargo(&["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if installed.is_ok_and(|status| status.success()) {
        println!("deny: cargo-deny");
        run_command(cargo(&["deny", "--all-features", "check"]))
    } else {
        println!("deny: cargo-deny is not installed: the whole advisory database was not asked");
        Ok(())
    }
}

/// A package of the resolved graph.
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    /// Where it comes from; a member of the workspace has no source.
    source: Option<String>,
}

impl Package {
    fn new(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(String::from);
        Self {
            name: text("name").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            licence: text("license"),
            source: text("source"),
        }
    }
}

/// Every package for every platform, as Cargo resolved it. What is not on this machine yet is fetched once.
fn packages() -> Outcome<Vec<Package>> {
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"];
    let there = cargo(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
    if !there {
        println!("deny: fetching the packages of other platforms");
        run_command(cargo(&["fetch", "--quiet", "--locked"]))?;
    }
    let metadata: Value = serde_json::from_str(&output(cargo(&arguments))?)?;
    let packages: Vec<Package> = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata names no packages")?
        .iter()
        .map(Package::new)
        .collect();
    if packages.is_empty() { Err("cargo metadata names no packages".into()) } else { Ok(packages) }
}

fn licences(packages: &[Package], allowed: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let named = format!("{} {}", package.name, package.version);
        match &package.licence {
            None => faults.push(format!("{named}: Cargo.toml states no licence")),
            Some(text) => match permits(text, allowed) {
                Ok(true) => {}
                Ok(false) => {
                    faults.push(format!("{named}: its licence `{text}` is not in the list of deny.toml"));
                }
                Err(why) => faults.push(format!("{named}: licence `{text}`: {why}")),
            },
        }
    }
    faults
}

fn sources(packages: &[Package]) -> Vec<String> {
    let foreign = |p: &&Package| p.source.as_ref().is_some_and(|s| !s.starts_with("registry+"));
    let told =
        |p: &Package| format!("{} {}: comes from {}", p.name, p.version, p.source.as_deref().unwrap_or(""));
    packages.iter().filter(foreign).map(told).collect()
}

fn doubled(packages: &[Package], single: &[String], skip: &[String]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let skipped = |p: &Package| skip.iter().any(|s| *s == format!("{}@{}", p.name, p.version));
    for package in packages.iter().filter(|p| !skipped(p)) {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let mut faults = Vec::new();
    for (name, versions) in versions {
        if versions.len() > 1 && single.iter().any(|s| s == name) {
            faults.push(format!("{name}: more than one version: {}", versions.join(", ")));
        }
    }
    faults
}

fn advised(packages: &[Package], advisories: &Value) -> Outcome<Vec<String>> {
    let mut faults = Vec::new();
    for advisory in advisories["advisories"].as_array().ok_or("no list of advisories")? {
        let text = |key: &str| advisory[key].as_str().unwrap_or_default();
        let ranges =
            ["patched", "unaffected"].map(|key| advisory[key].as_array().cloned().unwrap_or_default());
        for package in packages.iter().filter(|p| p.name == text("crate")) {
            let mut safe = false;
            for range in ranges.iter().flatten() {
                safe |= within(&package.version, range.as_str().ok_or("a range is no text")?)?;
            }
            if !safe {
                faults.push(format!(
                    "{} {}: {}: {}",
                    package.name,
                    package.version,
                    text("id"),
                    text("about")
                ));
            }
        }
    }
    Ok(faults)
}

/// Leaves out the advisories that `deny.toml` accepts, and tells of accepted ones that no longer apply.
fn accepted(faults: Vec<String>, ids: &[String]) -> Vec<String> {
    let names = |fault: &str, id: &String| fault.contains(&format!(": {id}: "));
    let stale = ids.iter().filter(|id| !faults.iter().any(|f| names(f, id)));
    let stale: Vec<String> =
        stale.map(|id| format!("deny.toml accepts {id}, and no package has it")).collect();
    faults.into_iter().filter(|f| !ids.iter().any(|id| names(f, id))).chain(stale).collect()
}

/// Whether a version lies in a range such as `>=0.6.14, <1.0.0`. Pre-release parts are not looked at.
fn within(version: &str, range: &str) -> Outcome<bool> {
    let numbers = |text: &str| -> Outcome<[u64; 3]> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = [0; 3];
        for (at, part) in plain.split('.').enumerate() {
            let slot = parts.get_mut(at).ok_or_else(|| format!("`{text}` is no version"))?;
            *slot = part.trim().parse().map_err(|_| format!("`{text}` is no version"))?;
        }
        Ok(parts)
    };
    let version = numbers(version)?;
    for bound in range.split(',').map(str::trim) {
        let digits =
            bound.find(|c: char| c.is_ascii_digit()).ok_or_else(|| format!("`{bound}` is no bound"))?;
        let (sign, other) = bound.split_at(digits);
        let other = numbers(other)?;
        let holds = match sign.trim() {
            ">=" => version >= other,
            ">" => version > other,
            "<=" => version <= other,
            "<" => version < other,
            "=" => version == other,
            sign => return Err(format!("`{sign}` is no comparison").into()),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an SPDX expression can be met with the allowed licences. An exception (`WITH …`) only adds permissions,
/// so it counts as the licence that it stands behind. A slash is the old way to write OR.
fn permits(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0, allowed };
    let met = parser.alternatives()?;
    if parser.at == words.len() { Ok(met) } else { Err(format!("unexpected `{}`", words[parser.at])) }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a [String],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let is = self.words.get(self.at).is_some_and(|w| w.eq_ignore_ascii_case(word));
        self.at += usize::from(is);
        is
    }

    fn alternatives(&mut self) -> Result<bool, String> {
        let mut met = self.conjunction()?;
        while self.take("OR") {
            met |= self.conjunction()?;
        }
        Ok(met)
    }

    fn conjunction(&mut self) -> Result<bool, String> {
        let mut met = self.licence()?;
        while self.take("AND") {
            met &= self.licence()?;
        }
        Ok(met)
    }

    fn licence(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let met = self.alternatives()?;
            return if self.take(")") { Ok(met) } else { Err("a bracket is not closed".into()) };
        }
        let name = *self.words.get(self.at).ok_or("it ends too early")?;
        if ["AND", "OR", "WITH", ")"].iter().any(|w| name.eq_ignore_ascii_case(w)) {
            return Err(format!("unexpected `{name}`"));
        }
        self.at += 1;
        if self.take("WITH") {
            self.at += 1;
        }
        Ok(self.allowed.iter().any(|a| a == name))
    }
}

/// A list of strings from a TOML file that is laid out as `deny.toml` is: `key = [`, a string a line, `]`.
fn list(toml: &str, section: &str, key: &str) -> Outcome<Vec<String>> {
    let header = format!("[{section}]");
    let body = toml.lines().skip_while(|l| l.trim() != header).skip(1).take_while(|l| !l.starts_with('['));
    let start = format!("{key} = [");
    let items = body.skip_while(|l| l.trim() != start).skip(1).take_while(|l| l.trim() != "]");
    let items: Vec<String> =
        items.map(|l| l.trim().trim_end_matches(',').trim_matches('"').to_owned()).collect();
    if items.is_empty() {
        Err(format!("deny.toml: no list `{key}` in [{section}]").into())
    } else {
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, version: &str, licence: &str, source: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            licence: Some(licence.into()),
            source: Some(source.into()),
        }
    }

    fn allowed() -> Vec<String> {
        list(&fs::read_to_string(root().join("deny.toml")).unwrap(), "licenses", "allow").unwrap()
    }

    #[test]
    fn expressions_are_read_as_spdx_says() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-3.0-only OR MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(permits(good, &allowed()), Ok(true), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "Proprietary",
        ] {
            assert_eq!(permits(bad, &allowed()), Ok(false), "{bad}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "OR MIT"] {
            assert!(permits(broken, &allowed()).is_err(), "{broken}");
        }
    }

    #[test]
    fn ranges_are_compared_by_number() {
        for (version, range, inside) in [
            ("1.10.0", ">=1.9.0", true),
            ("0.6.14", ">=0.6.14, <1.0.0", true),
            ("1.0.0", ">=0.6.14, <1.0.0", false),
            ("0.9.7", "=0.9.7", true),
            ("1.16.5-rc.1", ">1.16.4", true),
        ] {
            assert_eq!(within(version, range).unwrap(), inside, "{version} {range}");
        }
        assert!(within("1.0", "~1.0").is_err());
        assert!(within("one", ">=1.0").is_err());
    }

    #[test]
    fn a_bad_package_of_each_kind_is_told() {
        let registry = "registry+somewhere";
        let packages = [
            package("closed", "1.0.0", "Proprietary", registry),
            package("forked", "1.0.0", "MIT", "git+somewhere"),
            package("half", "1.8.0", "MIT", registry),
            package("half", "2.7.0", "MIT", registry),
            package("memmap2", "0.9.5", "MIT", registry),
            package("memmap2", "0.9.12", "MIT", registry),
            package("adler", "1.0.0", "MIT", registry),
            package("smallvec", "1.6.0", "MIT", registry),
            package("smallvec", "0.6.14", "MIT", registry),
        ];
        assert_eq!(licences(&packages, &allowed()).len(), 1);
        assert_eq!(sources(&packages), ["forked 1.0.0: comes from git+somewhere"]);
        assert_eq!(doubled(&packages, &["half".into()], &[]), ["half: more than one version: 1.8.0, 2.7.0"]);
        assert!(doubled(&packages, &["half".into()], &["half@1.8.0".into()]).is_empty());
        let text = fs::read_to_string(root().join(ADVISORIES)).unwrap();
        let found = advised(&packages, &serde_json::from_str(&text).unwrap()).unwrap();
        let ids: Vec<&str> = found.iter().filter_map(|f| f.split(": ").nth(1)).collect();
        assert_eq!(ids, ["RUSTSEC-2026-0186", "RUSTSEC-2021-0003", "RUSTSEC-2025-0056"]);
        assert!(advised(&packages, &json!({})).is_err());
    }

    #[test]
    fn accepted_advisories_are_left_out_and_must_still_apply() {
        let faults =
            vec!["paste 1.0.15: RUSTSEC-2024-0436: unmaintained".to_owned(), "x 1: R-2: bad".to_owned()];
        let ids = ["RUSTSEC-2024-0436".to_owned(), "R-3".to_owned()];
        assert_eq!(accepted(faults, &ids), ["x 1: R-2: bad", "deny.toml accepts R-3, and no package has it"]);
    }

    #[test]
    fn a_package_without_a_licence_is_told() {
        let packages = [Package { licence: None, ..package("x", "1.0.0", "", "registry+") }];
        assert_eq!(licences(&packages, &allowed()).len(), 1);
    }
}
