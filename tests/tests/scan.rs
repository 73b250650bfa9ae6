//! The scanner, judged by a corpus of hostile and benign files that `tests/corpus` builds with the real tools.
//!
//! Of the hostile files none may be called clean, those that run code are dangerous by a finding that names what is
//! called and where, and none costs more than 64 MiB or a second. Of the benign files none is dangerous, and unknown
//! are only those of which the corpus says why. What fails is listed all at once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use weighbridge::trust::scan::{Finding, Report, ScanOptions, Verdict, scan};
use weighbridge_testkit::alloc::{Counting, peak_of};
use weighbridge_tests::{python, workspace};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that a hostile file may cost.
const MEMORY: u64 = 64 << 20;
/// In the tests' build, too, which is optimised little.
const TIME: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Expected {
    path: PathBuf,
    group: String,
    half: String,
    expect: String,
    #[serde(default)]
    about: String,
    callable: Option<String>,
}

#[derive(Deserialize)]
struct Corpus {
    files: Vec<Expected>,
}

/// Builds half of the corpus into a folder of its own.
fn build(half: &str) -> (tempfile::TempDir, Vec<Expected>) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(python())
        .arg(workspace().join("tests/corpus/make.py"))
        .arg(folder.path())
        .arg(half)
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read(folder.path().join("expected.json")).expect("a list of what must hold");
    let corpus: Corpus = serde_json::from_slice(&text).expect("a list");
    (folder, corpus.files)
}

/// The time that this thread has had a processor, which a busy machine does not stretch; where the system does not
/// tell, the time that passed.
fn clock(started: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|t| t.split(' ').next().and_then(|n| n.parse().ok()));
    nanoseconds.map_or_else(|| started.elapsed(), Duration::from_nanos)
}

/// Scans a file or folder on this thread: the report, the most memory that was held, and the time it took.
fn measured(path: &Path) -> (weighbridge::Result<Report>, u64, Duration) {
    let started = Instant::now();
    let mut options = ScanOptions::default();
    options.threads = Some(1);
    let before = clock(started);
    let (report, peak) = peak_of(|| scan(&[path.to_owned()], &options));
    (report, peak, clock(started).saturating_sub(before))
}

/// What a report says, in a line.
fn said(report: &Report) -> String {
    let line = |f: &Finding| {
        format!(
            "{} {:?} {} at {:?} {:?}: {}",
            f.rule,
            f.verdict,
            f.callable.as_deref().unwrap_or("-"),
            f.place.members,
            f.place.offset,
            f.what
        )
    };
    let lines: Vec<String> = report.findings().take(3).map(line).collect();
    format!("{:?}; {}", report.verdict, lines.join("; "))
}

/// Whether a finding tells what is called and where: the offset is that of the opcode which it names.
fn tells_where(finding: &Finding, file: &[u8]) -> bool {
    let Some(offset) = finding.place.offset else { return false };
    let byte = match finding.opcode {
        Some("GLOBAL") => b'c',
        Some("STACK_GLOBAL") => 0x93,
        Some("REDUCE") => b'R',
        Some("INST") => b'i',
        Some("OBJ") => b'o',
        Some("NEWOBJ") => 0x81,
        Some("NEWOBJ_EX") => 0x92,
        _ => return false,
    };
    !finding.place.members.is_empty() || usize::try_from(offset).is_ok_and(|o| file.get(o) == Some(&byte))
}

fn judge_hostile(file: &Expected, report: &Report, path: &Path) -> Option<String> {
    if report.verdict == Verdict::Clean {
        return Some("called clean".to_owned());
    }
    if file.expect == "dangerous" && report.verdict != Verdict::Dangerous {
        return Some(format!("not called dangerous: {}", said(report)));
    }
    let Some(callable) = &file.callable else { return None };
    let named: Vec<&Finding> = report
        .findings()
        .filter(|f| f.callable.as_deref() == Some(callable) && f.verdict != Verdict::Clean)
        .collect();
    if named.is_empty() {
        return Some(format!("nothing names {callable}: {}", said(report)));
    }
    if file.group.starts_with("call-") {
        let bytes = std::fs::read(path).expect("a file");
        if !named.iter().any(|f| tells_where(f, &bytes)) {
            return Some(format!("nothing says where {callable} is called: {}", said(report)));
        }
    }
    None
}

fn listed(faults: &[String]) {
    assert!(faults.is_empty(), "{} fail:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_hostile_file_is_called_clean() {
    let (folder, files) = build("hostile");
    let hostile = files.iter().filter(|f| f.half == "hostile").count();
    assert!(hostile > 900, "{hostile} hostile files");
    let (mut faults, mut most, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    for file in &files {
        let path = folder.path().join(&file.path);
        let (report, peak, took) = measured(&path);
        (most, slowest) = (most.max(peak), slowest.max(took));
        let mut fault =
            |what: String| faults.push(format!("{} ({}): {what}", file.path.display(), file.about));
        match report {
            Err(error) => fault(format!("an error: {error}")),
            Ok(report) if file.half == "hostile" => {
                if let Some(what) = judge_hostile(file, &report, &path) {
                    fault(what);
                }
            }
            Ok(_) => {}
        }
        if peak > MEMORY {
            fault(format!("{} MiB", peak >> 20));
        }
        if took > TIME {
            fault(format!("{:.1} s", took.as_secs_f64()));
        }
    }
    println!(
        "{hostile} hostile files and {} that are odd; at most {} MiB and {:.2} s a file",
        files.len() - hostile,
        most >> 20,
        slowest.as_secs_f64()
    );
    listed(&faults);
}

#[test]
fn no_benign_file_is_called_dangerous() {
    let (folder, files) = build("benign");
    assert!(files.len() > 700, "{} benign files", files.len());
    let (mut faults, mut unknown) = (Vec::new(), 0);
    for file in &files {
        // What lies outside of the folder has an absolute path, which `join` leaves as it is.
        let (report, _, _) = measured(&folder.path().join(&file.path));
        let mut fault = |what: String| faults.push(format!("{}: {what}", file.path.display()));
        match report {
            Err(error) => fault(format!("an error: {error}")),
            Ok(report) => {
                unknown += usize::from(report.verdict == Verdict::Unknown);
                if report.verdict == Verdict::Dangerous
                    || (file.expect == "clean" && report.verdict != Verdict::Clean)
                {
                    fault(said(&report));
                }
            }
        }
    }
    println!("{} benign files, {unknown} of them unknown", files.len());
    listed(&faults);
}

/// Whether a path fits a pattern in which `*` stands for any characters.
fn fits(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The text of every source file of Rust below a folder.
fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn every_file_and_test_of_the_table_is_there() {
    let (_folder, files) = build("hostile");
    let mut code = String::new();
    for folder in ["crates/formats", "crates/trust", "tests/tests"] {
        sources(&workspace().join(folder), &mut code);
    }
    let page = std::fs::read_to_string(workspace().join("docs/scan-corpus.md")).expect("the page");
    let (_, section) = page.split_once("\n## What each part stands for\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let (mut rows, mut missing) = (0, Vec::new());
    for row in section.lines().filter(|l| l.starts_with("| ") && l.contains('`')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let quoted =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let [_, patterns, tests] = cells[..] else { panic!("a row of {} cells: {row}", cells.len()) };
        rows += 1;
        for pattern in quoted(patterns) {
            let there = files.iter().any(|f| {
                let path = f.path.to_string_lossy();
                path.split_once('/').is_some_and(|(_, below)| fits(&pattern, below))
            });
            if !there {
                missing.push(pattern);
            }
        }
        let named = quoted(tests);
        assert!(!named.is_empty(), "no test in {row}");
        missing.extend(named.into_iter().filter(|test| !code.contains(&format!("fn {test}("))));
    }
    assert!(rows >= 25, "{rows} rows");
    listed(&missing);
}
