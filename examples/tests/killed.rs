//! The training example killed at random moments, and on disks that are full.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use weighbridge::ReadOptions;
use weighbridge::checkpoint::{Checkpoint, Found, list};
use weighbridge_testkit::random::Random;

const TRAIN: &str = env!("CARGO_BIN_EXE_train");
const SEED: u64 = 20_260_714;
const KILLS: usize = 200;
/// 262 kB of weights, and twice that of moments.
const HIDDEN: &str = "16384";

/// How the saves of a round are made; the same folder goes through all of them.
const MODES: &[&[&str]] = &[
    &["--no-fsync"],
    &["--no-fsync", "--background"],
    &["--no-fsync", "--incremental"],
    &["--no-fsync", "--incremental", "--background"],
    &[],
    &["--background"],
];

fn train(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(TRAIN);
    command.arg(folder).args(["--hidden", HIDDEN]).args(arguments).stdin(Stdio::null());
    command
}

/// What a training said before it ended or was killed.
#[derive(Default)]
struct Told {
    resumed: Option<u64>,
    saved: Vec<u64>,
    /// The last save that began and was not acknowledged.
    pending: Option<u64>,
    skipped: Vec<String>,
}

impl Told {
    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let step = || rest.parse::<u64>().unwrap_or_else(|e| panic!("{line}: {e}"));
        match word {
            "resumed" => self.resumed = Some(step()),
            "saving" => self.pending = Some(step()),
            "saved" => {
                self.saved.push(step());
                self.pending = self.pending.filter(|p| *p != step());
            }
            "skipped" => self.skipped.push(rest.to_owned()),
            "done" => {}
            _ => panic!("{line:?} is no line of the training"),
        }
    }
}

/// Every checkpoint in the folder, each verified: nothing that is visible may be damaged.
fn visible(folder: &Path, context: &str) -> Vec<Found> {
    let found = list(folder, &ReadOptions::default()).unwrap();
    for f in &found {
        assert_eq!(f.damage, None, "{context}: {}", f.path.display());
        let verified = Checkpoint::open(&f.path).and_then(|c| c.verify());
        verified.unwrap_or_else(|e| panic!("{context}: {}: {e}", f.path.display()));
    }
    found
}

/// Where a kill landed, by what it left.
fn place(folder: &Path, told: &Told) -> &'static str {
    let hidden = |end: &str| {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        names.filter(|p| p.to_string_lossy().ends_with(end)).collect::<Vec<_>>()
    };
    if let Some(temporary) = hidden(".tmp").first() {
        return match temporary.join("checkpoint.json").exists() {
            true => "complete, before its rename",
            false => "while its files were written",
        };
    }
    if !hidden(".trash").is_empty() {
        return "while an old one was deleted";
    }
    if told.pending.is_some() { "elsewhere in a save" } else { "between saves" }
}

/// All tensors of weights and optimizer, and the random state.
fn content(checkpoint: &Checkpoint) -> (BTreeMap<String, Vec<u8>>, String) {
    let mut tensors = BTreeMap::new();
    let optimizer = checkpoint.optimizer().unwrap().expect("an optimizer");
    for (part, archive) in [("model", checkpoint.weights().unwrap()), ("optimizer", optimizer)] {
        for (i, info) in archive.tensors().iter().enumerate() {
            tensors.insert(format!("{part}.{}", info.name()), archive.data(i).unwrap().read_all().unwrap());
        }
    }
    (tensors, checkpoint.random().unwrap().expect("a random state").to_string())
}

#[test]
fn two_hundred_kills_lose_nothing_and_change_nothing() {
    println!("seed {SEED}");
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut random = Random::new(SEED);
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut acknowledged = Vec::new();
    let mut newest = 0;
    for round in 0..KILLS {
        let context = format!("seed {SEED}, round {round}");
        let mode = MODES[round % MODES.len()];
        let mut arguments = vec!["--steps", "1000000", "--save-every", "1"];
        arguments.extend_from_slice(mode);
        let mut child = train(&folder, &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = Told::default();
        while told.resumed.is_none() {
            told.line(
                &lines.next().unwrap_or_else(|| panic!("{context}: it ended before it began")).unwrap(),
            );
        }
        // Somewhere in the first saves; a save with fsync takes longer.
        let most = if mode.contains(&"--no-fsync") { 50_000 } else { 150_000 };
        std::thread::sleep(Duration::from_micros(random.below(most)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.code().is_none(), "{context}: it ended by itself, {status}");
        lines.for_each(|line| told.line(&line.unwrap()));
        *places.entry(place(&folder, &told)).or_default() += 1;

        assert_eq!(told.resumed, Some(newest), "{context}: it did not go on from the newest");
        assert_eq!(told.skipped, [""; 0], "{context}");
        acknowledged.extend(&told.saved);
        let found = visible(&folder, &context);
        let steps: Vec<u64> = found.iter().filter_map(|f| f.step).collect();
        newest = steps.iter().copied().max().unwrap_or(0);
        for step in &acknowledged {
            // Three are kept beside the best, so one that is gone has three after it.
            let rotated = steps.iter().filter(|s| *s > step).count() >= 3;
            assert!(
                rotated || steps.contains(step),
                "{context}: {step} was acknowledged; there are {steps:?}"
            );
        }
    }
    println!("{KILLS} kills, {} saves acknowledged, step {newest}: {places:?}", acknowledged.len());
    let in_saves: usize = places.iter().filter(|(p, _)| **p != "between saves").map(|(_, n)| n).sum();
    assert!(in_saves >= KILLS / 2, "too few kills landed in saves: {places:?}");
    for wanted in ["while its files were written", "while an old one was deleted"] {
        assert!(places.contains_key(wanted), "no kill landed {wanted}: {places:?}");
    }

    // To the end without a kill, and the same without any.
    let last = (newest + 3).to_string();
    let ends = |folder: &Path, arguments: &[&str]| {
        let output = train(folder, arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let found = visible(folder, "at the end");
        let checkpoint = Checkpoint::open(&found.last().unwrap().path).unwrap();
        assert_eq!(checkpoint.step(), last.parse().ok());
        checkpoint
    };
    let interrupted = ends(&folder, &["--steps", &last, "--save-every", "1"]);
    let whole = ends(&dir.path().join("whole"), &["--steps", &last, "--save-every", &last]);
    let (a, b) = (content(&interrupted), content(&whole));
    assert_eq!(a.0.len(), 4 + 3 * 4, "four parameters, with a step and two moments each");
    assert_eq!(a.0.keys().collect::<Vec<_>>(), b.0.keys().collect::<Vec<_>>());
    assert!(a == b, "the weights differ from those of a training that was not interrupted");
    let lines = |c: &Checkpoint| String::from_utf8(c.log().unwrap().unwrap()).unwrap();
    assert_eq!(lines(&interrupted), lines(&whole), "the training log was carried on");
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.retain(|n| n.to_string_lossy().starts_with('.'));
    assert_eq!(left, [".weighbridge.lock"], "what the kills left was cleaned away");
}

/// Asserts that a training failed with these words, and that the checkpoints in `folder` are whole and of these steps.
fn failed_whole(output: &Output, words: &[&str], folder: &Path, steps: &[u64]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for words in words {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(text.contains("the earlier ones are whole"), "{text}");
    let found = visible(folder, &text);
    assert_eq!(found.iter().filter_map(|f| f.step).collect::<Vec<_>>(), steps, "{text}");
    let hidden = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
    let hidden: Vec<_> = hidden.filter(|n| n.to_string_lossy().ends_with(".tmp")).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn a_file_size_limit_leaves_the_old_checkpoints_whole() {
    for mode in [&["--no-fsync"][..], &["--background"], &["--incremental"]] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let begin = train(&folder, &["--steps", "2", "--save-every", "1"]).output().unwrap();
        assert!(begin.status.success(), "{begin:?}");
        // 512 bytes a block: the limit is below every file with tensors.
        let script = r#"trap "" XFSZ; ulimit -f 16; exec "$0" "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, TRAIN]).arg(&folder).args(["--hidden", HIDDEN, "--steps", "9"]);
        let output = command.args(["--save-every", "1"]).args(mode).output().unwrap();
        let words = ["larger than the system or its limits allow", "ulimit -f"];
        failed_whole(&output, &words, &folder, &[1, 2]);
        // With room again it goes on.
        let end = train(&folder, &["--steps", "5", "--save-every", "1"]).args(mode).output().unwrap();
        assert!(String::from_utf8_lossy(&end.stdout).starts_with("resumed 2\n"), "{end:?}");
    }
}

/// A small file system needs a mount, in a namespace of its own so that nothing is left behind.
fn may_mount() -> bool {
    let probe = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    probe.is_ok_and(|o| o.status.success())
}

#[test]
fn a_full_disk_leaves_the_old_checkpoints_whole() {
    let unable = std::env::var_os("WEIGHBRIDGE_NO_NAMESPACES").is_some();
    assert!(
        may_mount() || unable,
        "this test mounts a small tmpfs in a namespace of its own, which this system does not allow; \
         set WEIGHBRIDGE_NO_NAMESPACES=1 to go without it"
    );
    if unable {
        eprintln!("NOT TESTED: a full disk");
        return;
    }
    for mode in ["--no-fsync", "--background"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mount = dir.path().join("disk");
        std::fs::create_dir(&mount).unwrap();
        // Room for two checkpoints of 0.8 MB, and not for a third. What is on the small disk is copied out of the
        // namespace, which ends with the script.
        let script = r#"mount -t tmpfs -o size=2m none "$1" || exit 99
            "$0" "$1" --hidden "$3" --steps 9 --save-every 1 "$4"
            code=$?
            cp -a "$1" "$2"
            exit $code"#;
        let begin = Instant::now();
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, TRAIN]).arg(&mount).arg(&out).args([HIDDEN, mode]);
        let output = command.output().unwrap();
        assert_ne!(output.status.code(), Some(99), "{output:?}");
        failed_whole(&output, &["the disk is full", "make room"], &out, &[1, 2]);
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}
