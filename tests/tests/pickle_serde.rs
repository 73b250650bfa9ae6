//! Python loads what serde's types are written as, and what Python writes of the same is read back into them.

use std::collections::BTreeMap;
use std::process::Command;

use serde::{Deserialize, Serialize};
use weighbridge_formats::pickle::{from_slice, to_vec};
use weighbridge_tests::{python, workspace};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Run {
    name: String,
    epochs: u32,
    widest: (i128, u128),
    rate: f64,
    resumed: Option<String>,
    tags: Vec<String>,
    losses: BTreeMap<u64, f32>,
    spans: BTreeMap<(i8, i8), String>,
    schedule: Vec<Schedule>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Schedule {
    Constant,
    Linear(f64),
    Steps(u32, f64),
    Cosine { warmup: u32, floor: Option<f64> },
}

#[test]
fn python_loads_ours_and_we_read_pythons() {
    let run = Run {
        name: "naïve 模型 \u{1f3cb}\n".into(),
        epochs: 3,
        widest: (i128::MIN, u128::MAX),
        rate: 1e-3,
        resumed: None,
        tags: vec!["a".into(), String::new()],
        losses: [(0, 0.5), (u64::MAX, 0.25)].into(),
        spans: [((-1, 1), "x".into())].into(),
        schedule: vec![
            Schedule::Constant,
            Schedule::Linear(0.5),
            Schedule::Steps(10, 0.1),
            Schedule::Cosine { warmup: 5, floor: None },
        ],
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ours"), to_vec(&run).unwrap()).unwrap();
    let script = workspace().join("tests/interop/pickles.py");
    let out = Command::new(python()).arg(script).arg("serde").arg(folder.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for protocol in 0..=5 {
        let bytes = std::fs::read(folder.path().join(format!("theirs_{protocol}"))).unwrap();
        let back: Run = from_slice(&bytes).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
        assert_eq!(back, run, "protocol {protocol}");
    }
}
