//! Checkpoints of torch, of transformers' Trainer and of Lightning are read, and torch resumes from what is written:
//! the losses after it are those of a training without a pause.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};
use weighbridge::checkpoint::{
    Checkpoint, CheckpointManager, Kind, OptimizerState, OptimizerView, State, TorchKeys, list, write_torch,
};
use weighbridge::{DType, Data, MemoryArchive, ReadOptions, Tensor};
use weighbridge_tests::{python, workspace};

/// Runs `tests/interop/checkpoint_judge.py`; returns what it checked.
fn judge(task: &str, folder: &Path) -> Vec<String> {
    let script = workspace().join("tests/interop/checkpoint_judge.py");
    let output = Command::new(python()).arg(script).arg(task).arg(folder).output().expect("python starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{task}: {out}\n{err}");
    let last: Json = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    last["checked"].as_array().expect("a list").iter().map(|c| c.as_str().unwrap().to_owned()).collect()
}

/// Saves a checkpoint of others as one of ours, and opens that.
fn through_ours(checkpoint: &Checkpoint, root: &Path) -> Checkpoint {
    checkpoint.verify().unwrap();
    let mut manager = CheckpointManager::builder(root).fsync(false).incremental_by(600).build().unwrap();
    let (weights, optimizer) = (checkpoint.weights().unwrap(), checkpoint.optimizer().unwrap().unwrap());
    let scheduler = checkpoint.scheduler().unwrap().expect("a scheduler");
    let mut state = State::new(&*weights)
        .at(checkpoint.epoch().unwrap() as u64, checkpoint.step().unwrap())
        .optimizer(&*optimizer)
        .scheduler(&scheduler);
    state.metrics = checkpoint.metrics().to_vec();
    let saved = manager.save(&state).unwrap().unwrap();
    let ours = Checkpoint::open(&saved.path).unwrap();
    ours.verify().unwrap();
    assert_eq!(ours.kind(), Kind::Native);
    ours
}

#[test]
fn training_goes_on_from_checkpoints_of_torch_trainer_and_lightning() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let made = judge("make", folder);
    assert_eq!(made, ["adam", "adamw", "sgd", "trainer", "lightning"]);
    let losses: Json = serde_json::from_slice(&std::fs::read(folder.join("losses.json")).unwrap()).unwrap();
    let out = folder.join("out");
    std::fs::create_dir_all(out.join("trainer/checkpoint-3")).unwrap();

    for name in ["adam", "adamw", "sgd"] {
        let checkpoint = Checkpoint::open(folder.join("torch").join(format!("{name}.pt"))).unwrap();
        assert_eq!((checkpoint.kind(), checkpoint.step()), (Kind::Torch, Some(3)));
        assert_eq!(checkpoint.epoch(), Some(1.0));
        assert_eq!(checkpoint.metric("loss"), losses[name][2].as_f64());
        let optimizer = checkpoint.optimizer().unwrap().unwrap();
        let view = OptimizerView::new(&*optimizer).unwrap();
        // Two layers and a batch norm, a weight and a bias each.
        assert_eq!((view.params.len(), view.groups.len()), (6, 2), "{name}");
        assert_eq!(view.params[0].step, (name != "sgd").then_some(3.0));
        let ours = through_ours(&checkpoint, &out.join(format!("ours-{name}")));
        ours.write_torch(&out.join(format!("{name}.pt")), &TorchKeys::default(), false).unwrap();
    }
    let listed = list(&folder.join("torch"), &ReadOptions::default()).unwrap();
    assert_eq!(listed.len(), 3);

    let trainer = Checkpoint::open(folder.join("trainer/checkpoint-3")).unwrap();
    assert_eq!((trainer.kind(), trainer.step()), (Kind::Trainer, Some(3)));
    assert_eq!(trainer.metric("loss"), losses["trainer"][2].as_f64());
    assert!(trainer.scheduler().unwrap().unwrap()["last_epoch"] == 3);
    let random = trainer.random().unwrap().expect("a random state");
    for key in ["python", "numpy", "cpu"] {
        assert!(!random[key].is_null(), "{key} is not in {random}");
    }
    assert!(random["cpu"]["$tensor"]["bytes"].is_string(), "the state of torch's generator");
    assert_eq!(trainer.extra().unwrap().unwrap()["global_step"], 3);
    let ours = through_ours(&trainer, &out.join("ours-trainer"));
    let target = out.join("trainer/checkpoint-3");
    weighbridge::save(target.join("model.safetensors"), &*ours.weights().unwrap()).unwrap();
    weighbridge::save(target.join("optimizer.pt"), &*ours.optimizer().unwrap().unwrap()).unwrap();
    let listed = list(&folder.join("trainer"), &ReadOptions::default()).unwrap();
    let told: Vec<_> = listed.iter().map(|f| (f.name(), f.kind, f.step, f.damage.clone())).collect();
    let whole = |step| (format!("checkpoint-{step}"), Kind::Trainer, Some(step), None);
    assert_eq!(told, [whole(3), whole(6)]);

    let listed = list(&folder.join("lightning"), &ReadOptions::default()).unwrap();
    assert_eq!(
        listed.iter().map(|f| (f.kind, f.step)).collect::<Vec<_>>(),
        [(Kind::Lightning, Some(3)), (Kind::Lightning, Some(6))]
    );
    let lightning = Checkpoint::open(&listed[0].path).unwrap();
    assert_eq!(lightning.weights().unwrap().tensor("net.0.weight").unwrap().info.shape(), [8, 4]);
    let extra = lightning.extra().unwrap().unwrap();
    assert_eq!(extra["hyper_parameters"]["width"], 8);
    assert!(extra["callbacks"].is_object() && extra["loops"].is_object(), "{extra}");
    let ours = through_ours(&lightning, &out.join("ours-lightning"));
    ours.write_torch(&out.join("lightning.pt"), &TorchKeys::default(), false).unwrap();

    assert_eq!(judge("resume", folder), made);
}

/// Bytes of numbers that count up.
fn floats(n: usize, from: f32) -> Vec<u8> {
    (0..n).flat_map(|i| (from + i as f32 * 0.125).to_le_bytes()).collect()
}

#[test]
fn torch_takes_a_state_that_was_built_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let (w, b, m) = (floats(6, -0.25), floats(2, 0.5), floats(6, 0.125));
    let tensor = |name: &str, shape: &[u64], bytes| {
        Tensor::new(name, DType::F32, shape, Data::Borrowed(bytes)).unwrap()
    };
    let weights = MemoryArchive::new([tensor("weight", &[2, 3], &w), tensor("bias", &[2], &b)]).unwrap();
    let moment = |shape: &[u64]| tensor("", shape, &m[..4 * shape.iter().product::<u64>() as usize]);
    for name in ["adam", "adamw", "sgd"] {
        let mut optimizer = match name {
            "adam" => OptimizerState::adam(0.25),
            "adamw" => OptimizerState::adamw(0.25),
            _ => OptimizerState::sgd(0.25, 0.9),
        };
        for (param, shape) in [("weight", &[2, 3][..]), ("bias", &[2])] {
            optimizer = match name {
                "sgd" => optimizer.param(param, 7, [("momentum_buffer", moment(shape))]),
                _ => optimizer.param(param, 7, [("exp_avg", moment(shape)), ("exp_avg_sq", moment(shape))]),
            };
        }
        let optimizer = optimizer.build().unwrap();
        let random = json!({"seed": u64::MAX, "python": [1, 2.5, null]});
        let state = State::new(&weights).at(1, 7).optimizer(&optimizer).random(&random).metric("loss", 0.5);
        let path: PathBuf = dir.path().join(format!("{name}.pt"));
        write_torch(&path, &state, &TorchKeys::default(), false).unwrap();
        let read = Checkpoint::open(&path).unwrap();
        assert_eq!((read.step(), read.epoch(), read.metric("loss")), (Some(7), Some(1.0), Some(0.5)));
    }
    assert_eq!(judge("built", dir.path()), ["adam", "adamw", "sgd"]);
}
