//! `checkpoint`: list, show, prune, resume and verify, with their exit codes.

use std::path::{Path, PathBuf};

use weighbridge::checkpoint::{CheckpointManager, OptimizerState, State};
use weighbridge::{DType, Data, MemoryArchive, Tensor};

use crate::{Folder, run, safetensors};

/// Saves checkpoints at steps 1, 2, … with these losses.
fn save(root: &Path, losses: &[f64]) -> Vec<PathBuf> {
    let mut manager = CheckpointManager::builder(root).fsync(false).build().unwrap();
    let bytes = [0u8; 16];
    let tensor = |name: &str| Tensor::new(name, DType::F32, [4].as_slice(), Data::Borrowed(&bytes)).unwrap();
    let weights = MemoryArchive::new([tensor("w")]).unwrap();
    let optimizer = OptimizerState::adam(0.125)
        .param("w", 7, [("exp_avg", tensor("")), ("exp_avg_sq", tensor(""))])
        .build()
        .unwrap();
    let mut paths = Vec::new();
    for (loss, step) in losses.iter().zip(1..) {
        manager.log(&format!("step {step}\u{1b}[2J"));
        let state = State::new(&weights).at(0, step).optimizer(&optimizer).metric("loss", *loss);
        paths.push(manager.save(&state).unwrap().unwrap().path);
    }
    paths
}

fn damage(checkpoint: &Path) {
    let path = checkpoint.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A folder as Trainer leaves it: without the state it was not finished.
fn trainer(root: &Path, step: u64, state: bool) {
    let folder = root.join(format!("checkpoint-{step}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), safetensors(&[("w", "U8", &[2], &[1, 2])], &[]))
        .unwrap();
    if state {
        let text = format!(
            r#"{{"global_step": {step}, "epoch": 0.5, "log_history": [{{"loss": 0.75, "step": {step}, "epoch": 0.5}}]}}"#
        );
        std::fs::write(folder.join("trainer_state.json"), text).unwrap();
    }
}

#[test]
fn list_tells_what_is_complete_and_what_is_not() {
    let folder = Folder::new();
    let root = folder.0.join("runs");
    let paths = save(&root, &[0.5, f64::NAN]);
    std::fs::remove_file(paths[1].join("checkpoint.json")).unwrap();
    trainer(&root, 500, true);
    trainer(&root, 600, false);
    std::fs::write(root.join("notes.txt"), "no checkpoint").unwrap();
    let path = root.to_str().unwrap();
    let json = run(&["checkpoint", "list", path, "--json"]).expect(0).json();
    let rows = json.as_array().unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|r| (r["name"].as_str().unwrap(), r["kind"].as_str().unwrap(), r["complete"].as_bool().unwrap()))
        .collect();
    let wanted = [
        ("checkpoint_epoch0_step1", "weighbridge", true),
        ("checkpoint_epoch0_step2", "weighbridge", false),
        ("checkpoint-500", "trainer", true),
        ("checkpoint-600", "trainer", false),
    ];
    assert_eq!(told, wanted);
    assert_eq!((&rows[0]["metrics"]["loss"], &rows[0]["step"]), (&0.5.into(), &1.into()));
    assert_eq!((&rows[2]["metrics"]["loss"], &rows[2]["epoch"]), (&0.75.into(), &0.5.into()));
    assert!(rows[1]["reason"].as_str().unwrap().contains("checkpoint.json is missing"), "{}", rows[1]);
    assert!(rows[3]["reason"].as_str().unwrap().contains("trainer_state.json is missing"), "{}", rows[3]);
    let text = run(&["checkpoint", "list", path]).expect(0).stdout;
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("NOT COMPLETE: not marked complete") && text.contains("loss=0.5"), "{text}");
    let empty = Folder::new();
    let told = run(&["checkpoint", "list", empty.0.to_str().unwrap()]).expect(0).stdout;
    assert!(told.starts_with("no checkpoint is in"), "{told}");
    run(&["checkpoint", "list", &folder.path("absent")]).expect(2);
}

#[test]
fn show_tells_the_parts() {
    let folder = Folder::new();
    let paths = save(&folder.0.join("runs"), &[0.5]);
    let path = paths[0].to_str().unwrap();
    let text = run(&["checkpoint", "show", path]).expect(0).stdout;
    for wanted in [
        "step        1",
        "loss=0.5",
        "weights     1 tensor, 4 numbers, 16 B",
        "lr=0.125",
        "log         1 line",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }
    assert!(!text.contains('\u{1b}'), "what a file says does not drive the terminal");
    let json = run(&["checkpoint", "show", path, "--json"]).expect(0).json();
    assert_eq!((&json["weights"]["tensors"], &json["optimizer"]["params"]), (&1.into(), &1.into()));
    assert_eq!(json["optimizer"]["groups"][0]["lr"], 0.125);
    run(&["checkpoint", "show", &folder.path("runs")]).expect(2);
}

#[test]
fn resume_prints_the_newest_that_verifies() {
    let folder = Folder::new();
    let root = folder.0.join("runs");
    let paths = save(&root, &[0.5, 0.4, 0.3]);
    damage(&paths[2]);
    let path = root.to_str().unwrap();
    let told = run(&["checkpoint", "resume", path]).expect(0);
    assert_eq!(told.stdout.trim_end(), paths[1].to_str().unwrap());
    assert!(told.stderr.contains("skipped") && told.stderr.contains("CRC-32"), "{}", told.stderr);
    let json = run(&["checkpoint", "resume", path, "--json"]).expect(0).json();
    assert_eq!((json["path"].as_str(), &json["step"]), (paths[1].to_str(), &2.into()));
    assert_eq!(json["skipped"].as_array().unwrap().len(), 1);
    damage(&paths[0]);
    damage(&paths[1]);
    let none = run(&["checkpoint", "resume", path]).expect(1);
    assert!(none.stdout.is_empty() && none.stderr.contains("verifies"), "{}", none.stderr);
    assert!(run(&["checkpoint", "resume", path, "--json"]).expect(1).json()["path"].is_null());
}

#[test]
fn verify_reads_one_or_all() {
    let folder = Folder::new();
    let root = folder.0.join("runs");
    let paths = save(&root, &[0.5, 0.4]);
    let path = root.to_str().unwrap();
    let text = run(&["checkpoint", "verify", path]).expect(0).stdout;
    assert!(text.ends_with("2 checkpoints verified, 0 damaged\n"), "{text}");
    damage(&paths[0]);
    let text = run(&["checkpoint", "verify", path]).expect(1).stdout;
    assert!(text.contains("DAMAGED") && text.contains("1 checkpoint verified, 1 damaged"), "{text}");
    run(&["checkpoint", "verify", paths[1].to_str().unwrap()]).expect(0);
    let json = run(&["checkpoint", "verify", paths[0].to_str().unwrap(), "--json"]).expect(1).json();
    assert_eq!(json[0]["verified"], false);
    std::fs::write(paths[1].join("checkpoint.json"), "{}").unwrap();
    run(&["checkpoint", "verify", paths[1].to_str().unwrap()]).expect(1);
    run(&["checkpoint", "verify", &folder.path("absent")]).expect(2);
}

#[test]
fn prune_deletes_what_no_rule_keeps() {
    let folder = Folder::new();
    let root = folder.0.join("runs");
    let paths = save(&root, &[0.1, 0.5, 0.4, 0.3]);
    let path = root.to_str().unwrap();
    run(&["checkpoint", "prune", path]).expect(2);
    run(&["checkpoint", "prune", path, "--keep-best", "loss"]).expect(2);
    run(&["checkpoint", "prune", path, "--keep-last", "0"]).expect(2);
    let rules = ["--keep-last", "1", "--keep-best", "loss:min"];
    let dry = [&["checkpoint", "prune", path, "--dry-run", "--json"][..], &rules].concat();
    let json = run(&dry).expect(0).json();
    let wanted: Vec<_> = paths[1..3].iter().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(json["deleted"], serde_json::json!(wanted));
    assert!(paths.iter().all(|p| p.is_dir()));
    let text = run(&[&["checkpoint", "prune", path][..], &rules].concat()).expect(0).stdout;
    assert!(text.ends_with("2 kept, 2 deleted\n"), "{text}");
    assert_eq!(paths.iter().map(|p| p.is_dir()).collect::<Vec<_>>(), [true, false, false, true]);
    damage(&paths[0]);
    damage(&paths[3]);
    let error = run(&["checkpoint", "prune", path, "--keep-last", "1"]).expect(2).stderr;
    assert!(error.contains("none of the 2 checkpoints verifies"), "{error}");
}
