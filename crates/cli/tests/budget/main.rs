//! What a hostile file costs: each expensive file that is known is made here, and the built command reads it as a child
//! process, whose memory and processor time are what the system says of it (`wait4`). None may take more than 64 MiB
//! of resident memory, the program's own pages included, or more than a second of processor time; a file of more than
//! 100 MB may take another second for each gigabyte, since a scan may have to read it.
//!
//! A build without optimisation takes longer: there the bound on time is [`SLOWER`] times as long. The memory is the
//! same in every build. `WEIGHBRIDGE_COSTS=1` prints what each took, and `WEIGHBRIDGE_BINARY=target/release/weighbridge`
//! measures that build, by the bound without a factor.
#![cfg(target_os = "linux")]

mod archives;
mod headers;
mod packed;
mod pickles;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// The most memory, in KiB.
const MEMORY: i64 = 64 << 10;
/// The most processor time of a build with optimisation, in milliseconds.
const TIME: i64 = 1000;
/// The length of a file, in bytes, from which each further million may take a millisecond more.
const LARGE: u64 = 100_000_000;
/// How many times as long a build without it may take: most crates of the workspace are built with little of it then,
/// and the standard library's generic code with none.
const SLOWER: i64 = if cfg!(debug_assertions) { 4 } else { 1 };
/// The variable that names another build of the command, one with optimisation.
const BINARY: &str = "WEIGHBRIDGE_BINARY";
/// The variable that has this program measure one command, in a process of its own.
const MEASURE: &str = "WEIGHBRIDGE_MEASURE";

/// A file or folder that costs more than it looks.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Its name, by which the manifest knows it.
    pub(crate) path: &'static str,
    /// Writes it at a path.
    pub(crate) make: fn(&Path),
    /// Whether it is refused, or read within the bounds.
    pub(crate) refused: Option<bool>,
}

/// A case that is refused, one that is read, and one that only the scanner knows.
pub(crate) const fn refused(name: &'static str, path: &'static str, make: fn(&Path)) -> Case {
    Case { name, path, make, refused: Some(true) }
}
pub(crate) const fn read(name: &'static str, path: &'static str, make: fn(&Path)) -> Case {
    Case { name, path, make, refused: Some(false) }
}
pub(crate) const fn scanned(name: &'static str, path: &'static str, make: fn(&Path)) -> Case {
    Case { name, path, make, refused: None }
}

/// What a command took.
struct Cost {
    kib: i64,
    milliseconds: i64,
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the command in a process that has no other child, and asks what its children took.
fn measure(args: &[&std::ffi::OsStr]) -> Cost {
    let this = std::env::current_exe().expect("this program");
    let mut helper = Command::new(this);
    helper.env(MEASURE, "1").args(["--exact", "measured", "--nocapture", "--include-ignored", "-q"]);
    let joined: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let out = helper.env("WEIGHBRIDGE_ARGUMENTS", joined.join("\n")).output().expect("it starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find_map(|l| l.split_once("COST ").map(|(_, rest)| rest));
    let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&out.stderr)));
    let mut numbers = line.split(' ').map(|n| n.parse::<i64>().expect("a number"));
    let mut next = || numbers.next().expect("four numbers");
    let (kib, milliseconds, code) = (next(), next(), next() as i32);
    let (_, rest) = text.split_once("OUT\n").unwrap_or_default();
    let (out, err) = rest.split_once("\nERR\n").unwrap_or_default();
    Cost { kib, milliseconds, code: (code >= 0).then_some(code), out: out.into(), err: err.into() }
}

/// The process in the middle: no test of its own.
#[test]
#[ignore = "the other test runs it"]
fn measured() {
    assert!(std::env::var_os(MEASURE).is_some(), "only the other test runs this");
    let args = std::env::var("WEIGHBRIDGE_ARGUMENTS").expect("arguments");
    let built = std::env::var_os(BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_weighbridge").into());
    let mut command = Command::new(built);
    command.args(args.split('\n')).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    let out = command.output().expect("the command starts");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let time = (usage.user_time() + usage.system_time()).num_milliseconds();
    let code = out.status.code().unwrap_or(-1);
    println!("\nCOST {} {time} {code}", usage.max_rss());
    let cut = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    println!("OUT\n{}\nERR\n{}", cut(&out.stdout), cut(&out.stderr));
}

/// What is wrong with what a command did.
fn faults(case: &Case, length: u64, verb: &str, cost: &Cost) -> Vec<String> {
    let mut faults = Vec::new();
    if cost.kib > MEMORY {
        faults.push(format!("{} KiB of memory", cost.kib));
    }
    let slower = if std::env::var_os(BINARY).is_some() { 1 } else { SLOWER };
    let more = (length.saturating_sub(LARGE) / 1_000_000) as i64;
    if cost.milliseconds > (TIME + more) * slower {
        faults.push(format!("{} ms of processor time", cost.milliseconds));
    }
    match (verb, cost.code) {
        (_, None) => faults.push(format!("ended by a signal: {}", cost.err)),
        // What it calls clean it has seen whole.
        ("scan", Some(0)) if cost.out.contains("stopped") => faults.push("called clean".into()),
        ("scan", Some(0..=2)) => {}
        ("inspect", Some(code)) if case.refused.is_some_and(|refused| refused == (code == 0)) => {
            faults.push(format!("exit {code}: {}", cost.err));
        }
        (_, Some(_)) => {}
    }
    if cost.err.contains("fault in weighbridge") || cost.err.contains("memory allocation") {
        faults.push(cost.err.clone());
    }
    // An error of a limit says how to raise it.
    if cost.err.contains("limit") && !cost.err.contains("hint") && verb != "scan" {
        faults.push(format!("no hint: {}", cost.err));
    }
    faults
}

/// A small model, for the manifest that the hostile file is then held against.
fn benign(path: &Path) {
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  "#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&[0; 4]);
    std::fs::write(path, bytes).expect("a file");
}

fn run(case: &Case, folder: &Path) -> Vec<String> {
    let show = std::env::var_os("WEIGHBRIDGE_COSTS").is_some();
    let folder = folder.join(case.name.replace([' ', ',', '.'], "-"));
    std::fs::create_dir(&folder).expect("a folder");
    let path = folder.join(case.path);
    let model = path.extension().is_none();
    // The manifest of something else of the same name: verify then looks for what changed.
    let stand_in = if model {
        std::fs::create_dir(&path).expect("a folder");
        path.join("model.safetensors")
    } else {
        path.clone()
    };
    benign(&stand_in);
    let os = |p: &Path| p.as_os_str().to_owned();
    let (target, out) = (os(&path), os(&folder.join("out.safetensors")));
    let written = measure(&["hash".as_ref(), &target, "--write".as_ref()]);
    assert_eq!(written.code, Some(0), "{}: {}", case.name, written.err);
    std::fs::remove_file(&stand_in).expect("removed");
    let began = std::time::Instant::now();
    (case.make)(&path);
    let made = began.elapsed();
    let length = if model { 0 } else { std::fs::metadata(&path).expect("it is there").len() };
    let folder_out = os(&folder.join("out"));
    let commands: [(&str, Vec<&std::ffi::OsStr>); 5] = [
        ("inspect", vec!["inspect".as_ref(), &target]),
        ("scan", vec!["scan".as_ref(), &target]),
        (
            "convert",
            vec![
                "convert".as_ref(),
                &target,
                if model { &folder_out } else { &out },
                "--to".as_ref(),
                "safetensors".as_ref(),
            ],
        ),
        ("hash", vec!["hash".as_ref(), &target]),
        ("verify", vec!["verify".as_ref(), &target]),
    ];
    let mut faults = Vec::new();
    let mut line = format!("{:<44} made {:>5} ms", case.name, made.as_millis());
    for (verb, args) in commands {
        let cost = measure(&args);
        let code = cost.code.map_or("signal".into(), |c| c.to_string());
        line += &format!(" | {verb} {:>5} ms {:>3} MiB ({code})", cost.milliseconds, cost.kib >> 10);
        if show && std::env::var("WEIGHBRIDGE_COSTS").is_ok_and(|v| v == "2") {
            line += &format!(
                "\n    {}",
                cost.err.lines().chain(cost.out.lines()).take(6).collect::<Vec<_>>().join("\n    ")
            );
        }
        let found = self::faults(case, length, verb, &cost);
        faults.extend(found.into_iter().map(|f| format!("{}: {verb}: {f}", case.name)));
    }
    if show {
        println!("{line}");
    }
    std::fs::remove_dir_all(&folder).expect("removed");
    faults
}

#[test]
fn no_hostile_file_costs_more_than_64_mib_and_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let only = std::env::var("WEIGHBRIDGE_CASE").ok();
    let all = [pickles::CASES, headers::CASES, packed::CASES, archives::CASES].concat_cases();
    let cases: Vec<&Case> =
        all.into_iter().filter(|c| only.as_ref().is_none_or(|o| c.name.contains(o.as_str()))).collect();
    assert!(!cases.is_empty());
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = run(case, folder.path());
                    faults.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

trait Concat {
    fn concat_cases(self) -> Vec<&'static Case>;
}

impl<const N: usize> Concat for [&'static [Case]; N] {
    fn concat_cases(self) -> Vec<&'static Case> {
        self.into_iter().flatten().collect()
    }
}

/// Writes pieces to a file, without holding them.
pub(crate) fn write(path: &Path, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    use std::io::Write as _;
    let file = std::fs::File::create(path).expect("a file");
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    for piece in pieces {
        out.write_all(piece.as_ref()).expect("written");
    }
    out.flush().expect("written");
}

/// A piece for each number below `n`, whose digits stand where it has `#`.
pub(crate) fn numbered(piece: &'static [u8], n: u32) -> impl Iterator<Item = Vec<u8>> + Clone {
    let places: Vec<usize> = (0..piece.len()).filter(|at| piece[*at] == b'#').collect();
    (0..n).step_by(4096).map(move |from| {
        let mut block = piece.repeat((n - from).min(4096) as usize);
        for (number, copy) in (from..).zip(block.chunks_exact_mut(piece.len())) {
            let (mut left, mut behind) = (number, usize::MAX);
            for &at in places.iter().rev() {
                // Another run of places has the same number.
                if behind != at + 1 {
                    left = number;
                }
                copy[at] = b'0' + (left % 10) as u8;
                (left, behind) = (left / 10, at);
            }
        }
        block
    })
}

/// Pieces between a beginning and an end.
pub(crate) fn around(
    before: Vec<u8>,
    pieces: impl Iterator<Item = Vec<u8>>,
    after: &[u8],
) -> impl Iterator<Item = Vec<u8>> {
    std::iter::once(before).chain(pieces).chain([after.to_vec()])
}

/// A piece so many times.
pub(crate) fn times(piece: &[u8], n: usize) -> impl Iterator<Item = Vec<u8>> + Clone {
    let each = (1 << 16) / piece.len().max(1);
    let (whole, rest) = (n / each.max(1), n % each.max(1));
    let (large, last) = (piece.repeat(each.max(1)), piece.repeat(rest));
    std::iter::repeat_n(large, whole).chain([last])
}

pub(crate) fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}
