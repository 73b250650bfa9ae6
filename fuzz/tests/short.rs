//! Every target over its corpus and a number of mutations, on a stable compiler and without the fuzzer.
//!
//! The mutations are the same in each run: bits flipped, bytes set, parts cut, doubled, and taken from another seed.
//! WEIGHBRIDGE_FUZZ_RUNS sets how many there are for each target.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use weighbridge_fuzz::targets::TARGETS;

const RUNS: usize = 600;
/// What one input may take: a fuzzer's limit, and this is not a machine of its own.
const SLOWEST: Duration = Duration::from_secs(10);

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const ODD: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'.', b'"', b'{'];
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(4) {
        if input.is_empty() {
            input.push(0);
        }
        let at = random.below(input.len());
        let len = 1 + random.below((input.len() - at).min(64));
        match random.below(7) {
            0 | 1 => input[at] ^= 1 << random.below(8),
            2 => input[at] = ODD[random.below(ODD.len())],
            3 => input.truncate(at),
            4 => drop(input.drain(at..at + len)),
            5 => {
                let part = input[at..at + len].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                if !other.is_empty() {
                    let from = random.below(other.len());
                    let to = (from + len).min(other.len());
                    input.splice(at..at + len, other[from..to].iter().copied());
                }
            }
        }
    }
    input
}

/// Runs one target; an input that fails or is slow is named by what makes it again.
fn run(name: &'static str, target: fn(&[u8])) {
    let runs = std::env::var("WEIGHBRIDGE_FUZZ_RUNS").map_or(RUNS, |n| n.parse().expect("a number"));
    let seeds = corpus(name);
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ name.len() as u64);
    let (sender, receiver) = mpsc::channel();
    // In a thread of its own, so that one input that never ends is a failure and no hang.
    let worker = std::thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        for n in 0..seeds.len() + runs {
            let input = if n < seeds.len() { seeds[n].clone() } else { mutated(&seeds, &mut random) };
            let _ = sender.send(input.clone());
            let began = Instant::now();
            target(&input);
            slowest = slowest.max(began.elapsed());
        }
        (seeds.len(), slowest)
    });
    let mut last = Vec::new();
    loop {
        match receiver.recv_timeout(SLOWEST) {
            Ok(input) => last = input,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: {SLOWEST:?} is too little for {last:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    match worker.join() {
        Ok((seeds, slowest)) => {
            println!("{name}: {seeds} seeds and {runs} mutations, the slowest {slowest:?}");
        }
        Err(panic) => {
            eprintln!("{name}: the input is {last:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let name = stringify!($name);
                let (_, target) = TARGETS.iter().find(|(n, _)| *n == name).expect("a target");
                run(name, *target);
            }
        )*

        #[test]
        fn every_target_is_run_and_is_a_program() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let manifest = include_str!("../Cargo.toml");
            for name in &names {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
            assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        }
    };
}

targets! {
    archives
    bertopic
    bundle
    checkpoint
    config
    configs
    encrypted
    evaluate
    hdf5
    joblib
    manifest
    onnx
    open
    pickle
    rewrite
    safetensors
    scan
    shard_index
    sniff
    tokenizer
    torch
    values_json
    versions
    write_plan
}
