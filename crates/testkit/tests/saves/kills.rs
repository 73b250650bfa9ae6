//! Saves that are killed at random moments: never torn, never lost, and cleaned up by the next.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use weighbridge_testkit::random::Random;

use crate::{LARGE, SCENARIOS, Scenario, command, copy_folder, folder, leftovers};

const SEED: u64 = 20_260_902;
/// The saves that replace several files of a folder, one after another.
const SETS: [&str; 2] = ["shards", "onnx"];
/// Kills, over all scenarios; WEIGHBRIDGE_EVERY_FAULT multiplies them.
const KILLS: usize = 500;

#[test]
fn five_hundred_kills_tear_nothing() {
    let every = std::env::var_os("WEIGHBRIDGE_EVERY_FAULT").is_some();
    let kills = if every { KILLS * 4 } else { KILLS };
    let mut random = Random::new(SEED);
    let mut total: BTreeMap<&str, usize> = BTreeMap::new();
    let all: Vec<&Scenario> = SCENARIOS.iter().chain([&LARGE]).collect();
    for (at, scenario) in all.iter().enumerate() {
        let share = kills / all.len() + usize::from(at < kills % all.len());
        // A disk and memory, turn by turn: one is slow where the other is quick.
        for (what, count) in kill(scenario, share, at % 2 == 0, &mut random) {
            *total.entry(what).or_default() += count;
        }
    }
    println!("seed {SEED}: {kills} kills: {total:?}");
    assert_eq!(total.values().sum::<usize>(), kills);
    let count = |what| total.get(what).copied().unwrap_or(0);
    assert!(
        count("old, with temporaries") >= kills / 50,
        "few kills came while something was written: {total:?}"
    );
    assert!(count("files of both sets") <= kills / 50, "renames take longer than they should: {total:?}");
    assert!(count("new") > 0 && count("old") > 0, "all kills came at the same moment: {total:?}");
}

/// Whether each file of a state is that of one state or of another.
fn each_is_of(state: &str, one: &str, other: &str) -> bool {
    state.trim_matches(['{', '}']).split("), ").all(|file| one.contains(file) || other.contains(file))
}

fn kill(
    scenario: &Scenario,
    kills: usize,
    on_disk: bool,
    random: &mut Random,
) -> BTreeMap<&'static str, usize> {
    let template = folder(on_disk);
    (scenario.before)(template.path()).unwrap();
    let old = (scenario.state)(template.path()).unwrap();
    // Once to the end: what is new, and how long a process takes before and with its save.
    let whole = folder(on_disk);
    copy_folder(template.path(), whole.path());
    let mut child = command(scenario, "once", whole.path());
    let (began, status) =
        (Instant::now(), child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap());
    assert!(status.success(), "{}", scenario.name);
    let mut duration = began.elapsed();
    let new = (scenario.state)(whole.path()).unwrap();
    assert_ne!(old, new);

    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..kills {
        let context = format!("seed {SEED}, {} {round}", scenario.name);
        let work = folder(on_disk);
        copy_folder(template.path(), work.path());
        let mut command = command(scenario, "once", work.path());
        let begin = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Starting the process is the first part of it, in which there is nothing to see.
        let most = duration.as_micros() as u64 * 5 / 4;
        std::thread::sleep(Duration::from_micros(most / 8 + random.below(most * 7 / 8)));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if ended {
            duration = (duration + begin.elapsed().min(duration)) / 2;
        }
        let state = (scenario.state)(work.path()).unwrap_or_else(|e| panic!("{context}: torn: {e}"));
        let left = leftovers(work.path());
        let place = match (state == old, state == new, left.is_empty(), ended) {
            (true, _, true, _) => "old",
            (true, _, false, _) => "old, with temporaries",
            (_, true, true, true) => "new, and it had ended",
            (_, true, true, false) => "new",
            (_, true, false, _) => "new, with temporaries",
            // So with a set of several files, of which each is whole.
            _ if SETS.contains(&scenario.name) && each_is_of(&state, &old, &new) => "files of both sets",
            // Two names take two renames, and whoever verifies is told that the two do not fit.
            _ if state == crate::trust::BETWEEN => "a new file beside its old manifest",
            _ => panic!("{context}: neither the old nor the new: {state}\n{old}\n{new}"),
        };
        *places.entry(place).or_default() += 1;
        // The next save removes what was left, and works.
        let again = (scenario.save)(work.path());
        let still = leftovers(work.path());
        assert!(still.is_empty(), "{context}: {still:?} after {again:?}");
        let after = (scenario.state)(work.path()).unwrap_or_else(|e| panic!("{context}: torn: {e}"));
        match again {
            Ok(()) => assert_eq!(after, new, "{context}"),
            // A version that is there is not added again, and a file is not replaced without leave.
            Err(e) => assert!(state == new && after == new, "{context}: {e:?}"),
        }
    }
    println!("{}: {places:?}", scenario.name);
    places
}
