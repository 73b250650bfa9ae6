//! The scanner's trace of a pickle against the machine that builds values: what this one accepts the trace accepts, and every
//! name and object that it sees the trace has seen. A difference would be a way past the scanner.
//!
//! The streams are the golden pickles, the hostile ones of `tests/corpus`, and mutations of both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use weighbridge::trust::scan::{FileReport, Policy, ScanOptions, Verdict, scan_source};
use weighbridge_formats::value::Construct;
use weighbridge_formats::{Limits, Source, Value, pickle};
use weighbridge_tests::{python, workspace};

/// The longest stream that is mutated, and how many mutations each has.
const LONGEST: usize = 2048;
const MUTATIONS: usize = 60;

/// Opcodes that are put in.
const OPCODES: &[u8] = b"(.012NRb)]}tdlaesuqhjrpgcioQP\x81\x85\x86\x88\x93\x94\x95";

/// A generator of numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// What the scanner says, with every name denied so that it tells of each, and without.
struct Scanned {
    names: BTreeSet<String>,
    plain: FileReport,
}

fn scanned(bytes: &[u8], deny: &ScanOptions<'_>) -> Scanned {
    let all = scan_source("x.pkl", Source::from_bytes(bytes), deny);
    let names = all.findings.iter().filter(|f| f.why.contains("refused by the policy"));
    let names = names.filter_map(|f| f.callable.clone()).collect();
    Scanned { names, plain: scan_source("x.pkl", Source::from_bytes(bytes), &ScanOptions::default()) }
}

/// The verdict on an object of a class alone.
fn alone(module: &str, name: &str) -> Verdict {
    let stream = format!("\u{2}c{module}\n{name}\n)");
    let bytes = [&[0x80][..], stream.as_bytes(), b"\x81."].concat();
    scan_source("x.pkl", Source::from_bytes(bytes), &ScanOptions::default()).verdict
}

/// What the machine sees that the scanner does not, or `None` where the machine refuses the stream.
fn compare(bytes: &[u8], deny: &ScanOptions<'_>) -> Option<Vec<String>> {
    let limits = Limits { values: 200_000, header_bytes: 1 << 20, ..Limits::default() };
    let decoded = pickle::decode(bytes, &limits).ok()?;
    let scanned = scanned(bytes, deny);
    let mut faults = Vec::new();
    for finding in &scanned.plain.findings {
        let here = finding.place.members.is_empty() && finding.rule == "pickle-broken";
        // A frame past the end is told of, and does not end the trace.
        if here
            && finding.what.contains("the pickle breaks")
            && finding.place.offset < Some(decoded.consumed - 1)
        {
            faults.push(format!("the scanner stops: {}", finding.what));
        }
    }
    for (_, value) in decoded.values.iter() {
        match value {
            Value::Global(global) => {
                let name = format!("{}.{}", global.module, global.name);
                if !scanned.names.contains(&name) {
                    faults.push(format!("the name {name:?} was not seen"));
                }
            }
            Value::Object(object) => {
                let (what, least) = match decoded.values.global(object.class) {
                    _ if object.construct == Construct::Extension => ("an extension", Verdict::Unknown),
                    Some(global) => ("an object", alone(&global.module, &global.name)),
                    None if matches!(decoded.values.get(object.class), Value::Object(_)) => {
                        ("a call of what a call made", Verdict::Unknown)
                    }
                    None => continue,
                };
                if scanned.plain.verdict < least {
                    faults.push(format!("{what} of {:?} is {:?}", object.class, scanned.plain.verdict));
                }
            }
            Value::Persistent(id) => {
                let first = decoded.values.sequence(*id).and_then(|s| s.first().copied());
                let kind = first.and_then(|first| decoded.values.str(first));
                if !matches!(kind, Some("storage" | "module")) && scanned.plain.verdict == Verdict::Clean {
                    faults.push("a persistent id that nobody knows is clean".to_owned());
                }
            }
            _ => {}
        }
    }
    Some(faults)
}

/// A stream with something changed, taken away, put in or moved.
fn mutated(stream: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut out = stream.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(out.len());
        match numbers.below(6) {
            0 => out[at] ^= 1 << numbers.below(8),
            1 => out[at] = numbers.next() as u8,
            2 => out.insert(at, OPCODES[numbers.below(OPCODES.len())]),
            3 => drop(out.drain(at..(at + numbers.below(6)).min(out.len()))),
            4 => {
                let end = (at + numbers.below(24)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = numbers.below(out.len());
                out.splice(to..to, piece);
            }
            _ => {
                let from = numbers.below(other.len());
                let piece = &other[from..(from + numbers.below(24)).min(other.len())];
                out.splice(at..at, piece.iter().copied());
            }
        }
        if out.is_empty() {
            out.push(b'.');
        }
    }
    out
}

#[test]
fn the_scanner_sees_all_that_the_machine_sees() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(python())
        .arg(workspace().join("tests/corpus/make.py"))
        .arg(folder.path())
        .arg("hostile")
        .output()
        .expect("python starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut paths = Vec::new();
    files(&workspace().join("tests/golden/pickle"), &mut paths);
    files(&workspace().join("tests/golden/bertopic"), &mut paths);
    files(&folder.path().join("hostile"), &mut paths);
    let deny = folder.path().join("deny.toml");
    std::fs::write(&deny, "version = 1\n[[deny]]\nname = '*'\nreason = 'all'\n").expect("a policy");
    let mut options = ScanOptions::default();
    options.policy = Policy::open(&deny).expect("a policy");
    options.bounds.findings = 20_000;
    let mut streams: Vec<(String, Vec<u8>)> = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path).expect("a file");
        if (1..1 << 16).contains(&bytes.len()) {
            streams.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes));
        }
    }
    let (mut numbers, mut all, mut accepted) = (Numbers(0x9e37_79b9_7f4a_7c15), Vec::new(), 0u32);
    let mut judge = |name: String, bytes: &[u8], accepted: &mut u32| {
        // joblib's arrays stand raw behind their wrappers, which the plain machine takes for opcodes.
        if bytes.windows(17).any(|w| w == b"NumpyArrayWrapper") {
            return;
        }
        if let Some(faults) = compare(bytes, &options) {
            *accepted += 1;
            for fault in faults.into_iter().take(2) {
                all.push(format!("{name}: {fault}: {}", bytes[..bytes.len().min(300)].escape_ascii()));
            }
        }
    };
    let mut whole = 0;
    for (name, bytes) in &streams {
        judge(name.clone(), bytes, &mut whole);
    }
    assert!(whole > 400, "{whole} streams were decoded");
    let short: Vec<&(String, Vec<u8>)> = streams
        .iter()
        .filter(|(_, b)| b.len() <= LONGEST && pickle::decode(b, &Limits::default()).is_ok())
        .collect();
    for (name, bytes) in &short {
        for round in 0..MUTATIONS {
            let other = &short[numbers.below(short.len())].1;
            let stream = mutated(bytes, other, &mut numbers);
            judge(format!("{name}, mutation {round}"), &stream, &mut accepted);
        }
    }
    println!("{whole} streams and {accepted} of {} mutations were decoded", short.len() * MUTATIONS);
    assert!(accepted > 5000, "{accepted} mutations were decoded");
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all[..all.len().min(40)].join("\n"));
}

#[test]
fn what_the_scanner_would_not_see_is_told() {
    // Nothing is denied, so the scanner tells of no name.
    let faults = compare(b"\x80\x02cos\nsystem\n.", &ScanOptions::default()).expect("a pickle");
    assert!(faults.iter().any(|f| f.contains("os.system")), "{faults:?}");
}
