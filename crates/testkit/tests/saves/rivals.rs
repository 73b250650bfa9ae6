//! Several writers of one target: one of them wins, whole.

use std::collections::BTreeMap;
use std::process::Stdio;

use crate::{command, folder, leftovers, model, replacing, save, scenario, weights};
use weighbridge_formats::Registry;

/// What a file or folder is when only this one writes it.
fn alone(name: &str, write: &dyn Fn(&std::path::Path)) -> String {
    let dir = folder(false);
    write(dir.path());
    (scenario(name).state)(dir.path()).unwrap()
}

/// Threads that write different models to one target.
#[test]
fn threads_write_one_file_and_one_folder() {
    const WRITERS: u64 = 4;
    const ROUNDS: usize = 60;
    let mut winners: BTreeMap<String, usize> = BTreeMap::new();
    for (name, write) in [
        ("safetensors", (|f, seed| save(f, "m.safetensors", seed, None)) as fn(&std::path::Path, u64) -> _),
        ("folder", model),
    ] {
        let states: Vec<String> =
            (1..=WRITERS).map(|seed| alone(name, &|f| write(f, seed).unwrap())).collect();
        let dir = folder(false);
        let at = dir.path();
        for round in 0..ROUNDS {
            std::thread::scope(|scope| {
                let writers: Vec<_> =
                    (1..=WRITERS).map(|seed| scope.spawn(move || write(at, seed))).collect();
                let done: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
                // A folder that is gone from under another's exchange is an error of that one.
                assert!(done.iter().any(Result::is_ok), "{name} {round}: {done:?}");
                if name == "safetensors" {
                    assert!(done.iter().all(Result::is_ok), "{name} {round}: {done:?}");
                }
            });
            let state = (scenario(name).state)(dir.path()).unwrap();
            let winner = states.iter().position(|s| *s == state);
            let winner = winner.unwrap_or_else(|| panic!("{name} {round}: nobody's: {state}"));
            *winners.entry(format!("{name} {winner}")).or_default() += 1;
            assert_eq!(leftovers(dir.path()), [""; 0].map(std::path::PathBuf::from), "{name} {round}");
        }
    }
    println!("{winners:?}");
    assert!(winners.len() > 2, "the same one won each time: {winners:?}");
}

/// Without leave to replace, one writer makes the file and the others are told that it is there.
#[test]
fn one_of_several_makes_a_new_file() {
    for round in 0..60 {
        let dir = folder(false);
        let made: Vec<bool> = std::thread::scope(|scope| {
            let write = |seed| {
                let mut options = replacing();
                options.overwrite = false;
                let path = dir.path().join("m.safetensors");
                weighbridge_formats::save(&Registry::builtin(), &weights(seed), &path, &options).is_ok()
            };
            let writers: Vec<_> = (1..=4).map(|seed| scope.spawn(move || write(seed))).collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let winner = made.iter().position(|m| *m).unwrap_or_else(|| panic!("{round}: nobody made it"));
        assert_eq!(made.iter().filter(|m| **m).count(), 1, "{round}: {made:?}");
        let state = (scenario("safetensors").state)(dir.path()).unwrap();
        assert_eq!(
            state,
            alone("safetensors", &|f| save(f, "m.safetensors", winner as u64 + 1, None).unwrap())
        );
    }
}

/// Processes that run the same scenario in one folder.
#[test]
fn processes_write_one_target() {
    for name in
        ["safetensors", "torch", "folder", "in_place", "shards", "checkpoint", "sign", "encrypt", "decrypt"]
    {
        let scenario = scenario(name);
        for round in 0..8 {
            let dir = folder(false);
            (scenario.before)(dir.path()).unwrap();
            let whole = folder(false);
            crate::copy_folder(dir.path(), whole.path());
            (scenario.save)(whole.path()).unwrap();
            let new = (scenario.state)(whole.path()).unwrap();
            let start = |_| {
                let mut child = command(scenario, "once", dir.path());
                child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            };
            let children: Vec<_> = (0..3).map(start).collect();
            for mut child in children {
                assert!(child.wait().unwrap().success(), "{name} {round}");
            }
            assert_eq!((scenario.state)(dir.path()).as_ref(), Ok(&new), "{name} {round}");
            assert!(leftovers(dir.path()).is_empty(), "{name} {round}: {:?}", leftovers(dir.path()));
        }
    }
}
