//! The manager from outside: names, triggers, rotation, resume, damage, background and incremental saves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use weighbridge_checkpoint::{
    Background, Checkpoint, CheckpointManager, Goal, OptimizerState, OptimizerView, Retention, Saved, State,
    WhenFull, clean, list, prune, resume,
};
use weighbridge_formats::{
    DType, Data, Error, ErrorKind, MemoryArchive, ReadAt, ReadOptions, Result, Tensor,
};

fn tensor<'a>(name: &str, bytes: &'a [u8]) -> Tensor<'a> {
    Tensor::new(name, DType::U8, [bytes.len() as u64].as_slice(), Data::Borrowed(bytes)).unwrap()
}

fn weights(bytes: &[u8]) -> MemoryArchive<'_> {
    MemoryArchive::new([tensor("a", bytes), tensor("b", &bytes[..bytes.len() / 2])]).unwrap()
}

fn save(manager: &mut CheckpointManager, step: u64, loss: f64) -> Option<Saved> {
    let bytes = vec![step as u8; 1000];
    let weights = weights(&bytes);
    manager.save(&State::new(&weights).at(step / 10, step).metric("loss", loss)).unwrap()
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n != ".weighbridge.lock");
    names.sort();
    names
}

fn first_byte(checkpoint: &Checkpoint) -> u8 {
    checkpoint.weights().unwrap().tensor("a").unwrap().data.read_all().unwrap()[0]
}

#[test]
fn everything_of_a_state_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let mut manager = CheckpointManager::builder(root.path()).build().unwrap();
    assert!(manager.resume().unwrap().checkpoint.is_none());
    let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let weights = weights(&bytes);
    let moment = || Tensor::new("", DType::F32, [1024].as_slice(), Data::Borrowed(&bytes)).unwrap();
    let optimizer = OptimizerState::adam(0.1)
        .param("a", 1000, [("exp_avg", moment()), ("exp_avg_sq", moment())])
        .build()
        .unwrap();
    let (scheduler, random) = (json!({"last_epoch": 9, "lrs": [0.1]}), json!({"seed": u64::MAX}));
    let extra = json!(["anything"]);
    manager.log("step 1000: loss 0.25");
    let state = State::new(&weights)
        .at(10, 1000)
        .optimizer(&optimizer)
        .scheduler(&scheduler)
        .random(&random)
        .extra(&extra)
        .metric("loss", 0.012_904_376_722_872_257)
        .metric("best", f64::INFINITY);
    let saved = manager.save(&state).unwrap().unwrap();
    assert_eq!(saved.path, root.path().join("checkpoint_epoch10_step1000"));
    let wanted = [
        "checkpoint.json",
        "extra.json",
        "model.safetensors",
        "optimizer.safetensors",
        "random.json",
        "scheduler.json",
        "training.log",
    ];
    assert_eq!(names(&saved.path), wanted);
    // A second program goes on: the log too.
    let mut manager = CheckpointManager::builder(root.path()).build().unwrap();
    let found = manager.resume().unwrap();
    assert!(found.skipped.is_empty());
    let checkpoint = found.checkpoint.unwrap();
    assert_eq!((checkpoint.step(), checkpoint.epoch()), (Some(1000), Some(10.0)));
    assert_eq!(
        checkpoint.metrics(),
        [("loss".to_owned(), 0.012_904_376_722_872_257), ("best".to_owned(), f64::INFINITY)]
    );
    let read = checkpoint.weights().unwrap();
    assert_eq!(read.tensor("a").unwrap().data.read_all().unwrap(), bytes);
    let optimizer = checkpoint.optimizer().unwrap().unwrap();
    let view = OptimizerView::new(&*optimizer).unwrap();
    let param = view.param("a").unwrap();
    assert_eq!((param.step, view.groups[0]["lr"].as_f64()), (Some(1000.0), Some(0.1)));
    assert_eq!(optimizer.data(param.tensors[0].1).unwrap().read_all().unwrap(), bytes);
    assert_eq!(checkpoint.scheduler().unwrap(), Some(scheduler));
    assert_eq!(checkpoint.random().unwrap(), Some(random));
    assert_eq!(checkpoint.extra().unwrap(), Some(extra));
    manager.log("step 1001: loss 0.125");
    let saved = save(&mut manager, 1001, 0.125).unwrap();
    assert_eq!(saved.manifest.number, 2);
    let log = Checkpoint::open(&saved.path).unwrap().log().unwrap().unwrap();
    assert_eq!(String::from_utf8(log).unwrap(), "step 1000: loss 0.25\nstep 1001: loss 0.125\n");
}

#[test]
fn steps_and_time_say_when_to_save() {
    let root = tempfile::tempdir().unwrap();
    let mut manager = CheckpointManager::builder(root.path()).every_steps(10).build().unwrap();
    let mut saved = Vec::new();
    for step in 1..=35 {
        if manager.should_save(step) {
            save(&mut manager, step, 0.0);
            saved.push(step);
        }
    }
    assert_eq!(saved, [10, 20, 30]);
    // A step that was jumped over is made up for.
    assert!(manager.should_save(41) && !manager.should_save(30));
    let mut manager = CheckpointManager::builder(root.path()).every_steps(10).build().unwrap();
    manager.resume().unwrap();
    assert!(!manager.should_save(39) && manager.should_save(40));
    let manager = CheckpointManager::builder(root.path()).every(Duration::from_millis(20)).build().unwrap();
    assert!(!manager.should_save(1));
    std::thread::sleep(Duration::from_millis(25));
    assert!(manager.should_save(1));
    let never = CheckpointManager::builder(root.path()).build().unwrap();
    assert!(!never.should_save(1_000_000));
    for bad in [
        CheckpointManager::builder(root.path()).every_steps(0),
        CheckpointManager::builder(root.path()).keep_last(0),
        CheckpointManager::builder(root.path()).keep_every(0),
        CheckpointManager::builder(root.path()).prefix("../x"),
    ] {
        assert_eq!(bad.build().unwrap_err().kind(), ErrorKind::InvalidOptions);
    }
}

#[test]
fn rotation_keeps_the_last_the_best_and_every_third() {
    let root = tempfile::tempdir().unwrap();
    let mut manager = CheckpointManager::builder(root.path())
        .keep_last(2)
        .keep_best("loss", Goal::Min, 1)
        .keep_every(3)
        .build()
        .unwrap();
    for (step, loss) in
        [(1, 0.5), (2, 0.1), (3, 0.4), (4, f64::NAN), (5, 0.1 + 0.2), (6, 0.8), (7, 0.7), (8, 0.6)]
    {
        save(&mut manager, step, loss);
    }
    let steps: Vec<_> = list(root.path(), &ReadOptions::default()).unwrap().iter().map(|f| f.step).collect();
    assert_eq!(steps, [Some(2), Some(3), Some(6), Some(7), Some(8)]);
    assert_eq!(names(root.path()).len(), 5, "no trash stays");
}

/// Damages a checkpoint in a way.
type Damage = fn(&Path);

const DAMAGES: &[(&str, Damage)] = &[
    ("CRC-32", |folder| {
        let path = folder.join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    }),
    ("bytes, and the manifest states", |folder| {
        let file = std::fs::File::options().write(true).open(folder.join("model.safetensors")).unwrap();
        file.set_len(100).unwrap();
    }),
    ("model.safetensors", |folder| std::fs::remove_file(folder.join("model.safetensors")).unwrap()),
    ("checkpoint.json is missing", |folder| std::fs::remove_file(folder.join("checkpoint.json")).unwrap()),
    ("manifest", |folder| {
        let path = folder.join("checkpoint.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"step\": 2", "\"step\": 9")).unwrap();
    }),
    #[cfg(unix)]
    ("regular file", |folder| {
        let path = folder.join("model.safetensors");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", path).unwrap();
    }),
];

#[test]
fn resume_skips_what_is_damaged_and_says_why() {
    for (reason, damage) in DAMAGES {
        let root = tempfile::tempdir().unwrap();
        let mut manager = CheckpointManager::builder(root.path()).build().unwrap();
        save(&mut manager, 1, 0.5);
        let newer = save(&mut manager, 2, 0.5).unwrap();
        damage(&newer.path);
        let found = resume(root.path(), &ReadOptions::default()).unwrap();
        assert_eq!(found.checkpoint.as_ref().and_then(Checkpoint::step), Some(1), "{reason}");
        assert_eq!(first_byte(&found.checkpoint.unwrap()), 1);
        assert_eq!(found.skipped.len(), 1);
        assert_eq!(found.skipped[0].path, newer.path);
        assert!(found.skipped[0].reason.contains(reason), "{reason}: {}", found.skipped[0].reason);
        // The training reaches that step again: the damaged folder stays where it is.
        let mut manager = CheckpointManager::builder(root.path()).keep_last(1).build().unwrap();
        manager.resume().unwrap();
        let again = save(&mut manager, 2, 0.5).unwrap();
        assert_eq!(again.path, root.path().join("checkpoint_epoch0_step2_r2"));
        let found = resume(root.path(), &ReadOptions::default()).unwrap();
        assert_eq!(found.checkpoint.unwrap().path(), again.path);
    }
}

#[test]
fn pruning_never_takes_the_last_good_one() {
    let root = tempfile::tempdir().unwrap();
    let mut manager = CheckpointManager::builder(root.path()).build().unwrap();
    let saved: Vec<PathBuf> = (1..=4).map(|step| save(&mut manager, step, 0.5).unwrap().path).collect();
    DAMAGES[0].1(&saved[3]);
    let rules = Retention { last: Some(1), ..Retention::default() };
    let dry = prune(root.path(), &rules, true).unwrap();
    assert_eq!(dry.deleted, saved[..2]);
    assert_eq!(names(root.path()).len(), 4, "a dry run deletes nothing");
    // What a killed process leaves: no lock is on it.
    let leftover = root.path().join(".checkpoint_epoch0_step5.0123456789abcdef.tmp");
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("model.safetensors"), "half").unwrap();
    let done = prune(root.path(), &rules, false).unwrap();
    assert_eq!((&done.deleted[..], &done.cleaned[..]), (&saved[..2], &[leftover][..]));
    assert_eq!(done.skipped.len(), 1);
    assert_eq!(names(root.path()), ["checkpoint_epoch0_step3", "checkpoint_epoch0_step4"]);
    // With none that verifies nothing goes.
    DAMAGES[0].1(&saved[2]);
    let error = prune(root.path(), &rules, false).unwrap_err();
    assert!(error.message().contains("none of the 2 checkpoints verifies"), "{error}");
    assert_eq!(names(root.path()).len(), 2);
}

#[test]
fn an_incremental_save_links_what_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let mut manager =
        CheckpointManager::builder(root.path()).incremental_by(2000).keep_last(1).build().unwrap();
    let mut tensors: Vec<Vec<u8>> = (0..8u8).map(|i| vec![i; 1500]).collect();
    let save = |tensors: &[Vec<u8>], manager: &mut CheckpointManager, step| {
        let archive =
            MemoryArchive::new(tensors.iter().enumerate().map(|(i, t)| tensor(&format!("t{i}"), t))).unwrap();
        manager.save(&State::new(&archive).at(0, step)).unwrap().unwrap()
    };
    let first = save(&tensors, &mut manager, 1);
    assert_eq!(first.linked, 0);
    tensors[3][7] = 99;
    let second = save(&tensors, &mut manager, 2);
    assert!(second.linked > 7 * 1500 && second.written < 6000, "{second:?}");
    assert_eq!(
        names(root.path()),
        ["checkpoint_epoch0_step2"],
        "the first is gone, and what it shared stays"
    );
    // Another process links to what is there.
    let mut manager = CheckpointManager::builder(root.path()).incremental_by(2000).build().unwrap();
    let checkpoint = manager.resume().unwrap().checkpoint.unwrap();
    let read = checkpoint.weights().unwrap();
    for (i, t) in tensors.iter().enumerate() {
        assert_eq!(&read.tensor(&format!("t{i}")).unwrap().data.read_all().unwrap(), t);
    }
    let third = save(&tensors, &mut manager, 3);
    assert!(third.linked > 8 * 1500, "{third:?}");
    // A shared file that is damaged is written anew, and not linked.
    let shard = third.manifest.files.iter().find(|f| f.blake3.is_some()).unwrap();
    let path = third.path.join(&shard.name);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let fourth = save(&tensors, &mut manager, 4);
    assert!(fourth.linked < third.linked);
    Checkpoint::open(&fourth.path).unwrap().verify().unwrap();
    assert!(Checkpoint::open(&third.path).unwrap().verify().is_err());
}

/// Data that takes its time, or fails.
struct Slow(Duration, bool);

impl ReadAt for Slow {
    fn len(&self) -> u64 {
        1000
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<()> {
        std::thread::sleep(self.0);
        buf.fill(5);
        if self.1 { Err(Error::malformed("the reader fails")) } else { Ok(()) }
    }
}

#[test]
fn background_saves_are_acknowledged_in_order_and_hold_the_state_of_their_call() {
    let root = tempfile::tempdir().unwrap();
    let background = Background { in_flight: 2, when_full: WhenFull::Wait };
    let mut manager =
        CheckpointManager::builder(root.path()).background(background).keep_last(3).build().unwrap();
    let mut bytes = vec![0u8; 100_000];
    manager.reserve(&State::new(&weights(&bytes))).unwrap();
    let mut told = Vec::new();
    for step in 1..=10 {
        bytes.fill(step as u8);
        manager.log(&format!("step {step}"));
        assert!(manager.save(&State::new(&weights(&bytes)).at(0, step)).unwrap().is_none());
        // The training changes its weights at once.
        bytes.fill(0xee);
        told.extend(manager.take_saved());
    }
    told.extend(manager.finish().unwrap());
    let steps: Vec<u64> = told.iter().map(|s| s.manifest.step).collect();
    assert_eq!(steps, (1..=10).collect::<Vec<_>>());
    let found = list(root.path(), &ReadOptions::default()).unwrap();
    assert_eq!(found.len(), 3);
    for f in found {
        let checkpoint = Checkpoint::open(&f.path).unwrap();
        checkpoint.verify().unwrap();
        assert_eq!(u64::from(first_byte(&checkpoint)), f.step.unwrap());
        let log = String::from_utf8(checkpoint.log().unwrap().unwrap()).unwrap();
        assert_eq!(log.lines().count() as u64, f.step.unwrap());
    }
}

#[test]
fn errors_of_the_background_surface_on_the_next_call_and_at_the_end() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("gone");
    let mut manager = CheckpointManager::builder(&folder).background(Background::default()).build().unwrap();
    let bytes = vec![1u8; 100];
    std::fs::remove_dir_all(&folder).unwrap();
    manager.save(&State::new(&weights(&bytes)).at(0, 1)).unwrap();
    assert!(manager.wait().is_err());
    manager.save(&State::new(&weights(&bytes)).at(0, 2)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(manager.save(&State::new(&weights(&bytes)).at(0, 3)).unwrap_err().kind(), ErrorKind::NotFound);
    // Told once; with the folder back it goes on.
    std::fs::create_dir(&folder).unwrap();
    manager.save(&State::new(&weights(&bytes)).at(0, 4)).unwrap();
    assert_eq!(manager.finish().unwrap().len(), 1);
    assert_eq!(names(&folder), ["checkpoint_epoch0_step4"]);
}

#[test]
fn the_bound_on_copies_is_an_error_where_that_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let background = Background { in_flight: 1, when_full: WhenFull::Error };
    let mut manager = CheckpointManager::builder(root.path()).background(background).build().unwrap();
    // Large enough that its writing takes longer than the next call.
    let bytes = vec![1u8; 64 << 20];
    let weights = weights(&bytes);
    let mut refused = 0;
    for step in 1..=20 {
        match manager.save(&State::new(&weights).at(0, step)) {
            Ok(_) => {}
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    let told = manager.finish().unwrap();
    assert_eq!(told.len(), 20 - refused);
}

#[test]
fn a_state_that_cannot_be_read_is_an_error_at_once_and_leaves_nothing() {
    for background in [None, Some(Background::default())] {
        let root = tempfile::tempdir().unwrap();
        let mut builder = CheckpointManager::builder(root.path());
        if let Some(background) = background {
            builder = builder.background(background);
        }
        let mut manager = builder.build().unwrap();
        let broken = Tensor::new("w", DType::U8, [1000].as_slice(), Data::lazy(Slow(Duration::ZERO, true)));
        let archive = MemoryArchive::new([broken.unwrap()]).unwrap();
        let error = manager.save(&State::new(&archive).at(0, 1)).unwrap_err();
        assert!(error.message().contains("the reader fails"), "{error}");
        assert_eq!(error.tensor(), Some("w"));
        assert!(names(root.path()).is_empty());
        save(&mut manager, 2, 0.0);
        manager.finish().unwrap();
        assert_eq!(names(root.path()), ["checkpoint_epoch0_step2"]);
    }
}

#[test]
fn a_checkpoint_that_is_being_written_is_not_cleaned_away() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().to_owned();
    let slow = std::thread::spawn(move || {
        let mut manager = CheckpointManager::builder(&folder).build().unwrap();
        let slow = Tensor::new(
            "w",
            DType::U8,
            [1000].as_slice(),
            Data::lazy(Slow(Duration::from_millis(400), false)),
        );
        let archive = MemoryArchive::new([slow.unwrap()]).unwrap();
        manager.save(&State::new(&archive).at(0, 1)).unwrap();
    });
    let temporary = |names: &[String]| names.iter().any(|n| n.ends_with(".tmp"));
    while !temporary(&names(root.path())) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(clean(root.path()).unwrap().is_empty());
    assert!(list(root.path(), &ReadOptions::default()).unwrap().is_empty(), "it is not visible");
    slow.join().unwrap();
    assert_eq!(names(root.path()), ["checkpoint_epoch0_step1"]);
}

/// A torch file whose scheduler contains itself, many times over.
#[test]
fn a_state_that_contains_itself_is_an_error_and_no_overflow() {
    use weighbridge_formats::value::Dict;
    use weighbridge_formats::write::{ExecuteOptions, execute};
    use weighbridge_formats::{Registry, Value, Values, WriteOptions};
    let mut values = Values::new();
    let list = values.push(Value::List(Vec::new())).unwrap();
    *values.get_mut(list) = Value::List(vec![list; 3]);
    let mut dict = Dict::default();
    for (key, value) in [("model", Value::Dict(Box::default())), ("scheduler", Value::None)] {
        let key_id = values.push(Value::Str(key.into())).unwrap();
        let value = if key == "scheduler" { list } else { values.push(value).unwrap() };
        dict.entries.push((key_id, value));
    }
    let root = values.push(Value::Dict(Box::new(dict))).unwrap();
    values.set_root(root);
    let archive = MemoryArchive::new([]).unwrap().with_values(values);
    let folder = tempfile::tempdir().unwrap();
    let mut options = WriteOptions::default();
    options.file_name = "loop.pt".into();
    let plan = Registry::builtin().serializer("torch").unwrap().plan(&archive, &options).unwrap();
    execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
    let checkpoint = Checkpoint::open(folder.path().join("loop.pt")).unwrap();
    assert_eq!(checkpoint.scheduler().unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(checkpoint.verify().is_err());
}

/// Every byte of every file, changed or cut off: resume goes back to the checkpoint before, and nothing panics.
#[test]
fn no_damaged_byte_is_taken_for_a_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let mut manager = CheckpointManager::builder(root.path()).fsync(false).build().unwrap();
    let bytes = [7u8; 24];
    let weights = weights(&bytes);
    let random = json!({"seed": 1});
    for step in 1..=2 {
        manager.save(&State::new(&weights).at(0, step).random(&random).metric("loss", 0.5)).unwrap();
    }
    let newest = root.path().join("checkpoint_epoch0_step2");
    let mut tried = 0;
    for name in ["model.safetensors", "random.json", "checkpoint.json"] {
        let path = newest.join(name);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x11;
            for damaged in [&flipped[..], &whole[..at]] {
                std::fs::write(&path, damaged).unwrap();
                let found = resume(root.path(), &ReadOptions::default()).unwrap();
                assert_eq!(found.checkpoint.and_then(|c| c.step()), Some(1), "{name}, byte {at}");
                tried += 1;
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(tried > 1000, "{tried}");
    let found = resume(root.path(), &ReadOptions::default()).unwrap();
    assert_eq!(found.checkpoint.and_then(|c| c.step()), Some(2));
}
