//! Every system call of a save fails in turn.
//!
//! A save runs once as it is, which numbers its system calls, and then once for each call and fault. Interrupted calls
//! and short transfers must not be noticed; any other fault is an error that says so, unless it did no harm, and then
//! the target is new.
//!
//! Without WEIGHBRIDGE_EVERY_FAULT a part of the faults of a long save is injected, spread evenly.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use weighbridge_testkit::damage::in_parallel;
use weighbridge_testkit::faults::{Call, Fault, Trace, run};

use crate::{Scenario, command, copy_folder, folder, leftovers};

/// About so many faults a scenario, where not all are injected.
const SOME: usize = 200;

fn outcome(trace: &Trace) -> Option<&str> {
    let at = trace.output.find("OUTCOME ")?;
    trace.output[at + "OUTCOME ".len()..].lines().next()
}

/// What became of the faults of a scenario.
#[derive(Default, Debug)]
struct Tally {
    injected: usize,
    unnoticed: usize,
    refused: usize,
    /// After an error the new one was there all the same.
    late: usize,
    /// The call was not reached: threads take turns as they like.
    missed: usize,
    cleaned_later: usize,
    wrong: Vec<String>,
}

fn test(scenario: &Scenario, on_disk: bool) {
    let template = folder(on_disk);
    (scenario.before)(template.path()).unwrap();
    let old = (scenario.state)(template.path()).unwrap();
    let reference = folder(on_disk);
    copy_folder(template.path(), reference.path());
    let whole = run(&mut command(scenario, "traced", reference.path()), None).unwrap();
    assert_eq!(outcome(&whole), Some("saved"), "{}", whole.output);
    let new = (scenario.state)(reference.path()).unwrap();
    assert_ne!(old, new);
    assert!(leftovers(reference.path()).is_empty(), "{:?}", leftovers(reference.path()));

    let mut all: Vec<(usize, Fault)> = Vec::new();
    for (index, call) in whole.calls.iter().enumerate() {
        all.extend(Fault::ALL.into_iter().filter(|f| call.can(*f)).map(|fault| (index, fault)));
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    whole.calls.iter().for_each(|c| *names.entry(c.name).or_default() += 1);
    let every = std::env::var_os("WEIGHBRIDGE_EVERY_FAULT").is_some();
    let step = if every { 1 } else { all.len().div_ceil(SOME) };
    let chosen: Vec<_> = all.iter().copied().skip(scenario.name.len() % step).step_by(step).collect();
    let tally = Mutex::new(Tally::default());
    in_parallel(&chosen, |&(index, fault)| {
        let work = folder(on_disk);
        copy_folder(template.path(), work.path());
        let trace = run(&mut command(scenario, "traced", work.path()), Some((index, fault))).unwrap();
        let judged = judge(scenario, &trace, fault, work.path(), (&old, &new));
        let mut tally = tally.lock().unwrap();
        let Some(call) = trace.injected else {
            tally.missed += 1;
            return;
        };
        tally.injected += 1;
        match judged {
            Ok(Judged { outcome, cleaned_later }) => {
                match outcome {
                    Outcome::Unnoticed => tally.unnoticed += 1,
                    Outcome::Refused => tally.refused += 1,
                    Outcome::Late => tally.late += 1,
                }
                tally.cleaned_later += usize::from(cleaned_later);
            }
            Err(what) => {
                let Call { name, count, .. } = call;
                let count = count.map(|n| format!("[{n}]")).unwrap_or_default();
                tally.wrong.push(format!("{fault:?} in call {index}, {name}{count}: {what}"));
            }
        }
    });
    let tally = tally.into_inner().unwrap();
    println!(
        "{}: {} calls ({names:?}), {} of {} faults injected: {} unnoticed, {} refused, {} refused after the rename, \
         {} missed, {} with temporaries for the next save",
        scenario.name,
        whole.calls.len(),
        tally.injected,
        all.len(),
        tally.unnoticed,
        tally.refused,
        tally.late,
        tally.missed,
        tally.cleaned_later,
    );
    assert!(tally.wrong.is_empty(), "{} faults:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(tally.injected >= chosen.len() * 3 / 4, "{tally:?}");
    assert!(tally.refused > 0 && tally.unnoticed > 0, "{tally:?}");
}

enum Outcome {
    Unnoticed,
    Refused,
    Late,
}

struct Judged {
    outcome: Outcome,
    cleaned_later: bool,
}

fn judge(
    scenario: &Scenario,
    trace: &Trace,
    fault: Fault,
    folder: &Path,
    (old, new): (&str, &str),
) -> std::result::Result<Judged, String> {
    let said = outcome(trace).ok_or_else(|| format!("it ended with {:?}: {}", trace.code, trace.output))?;
    let state = (scenario.state)(folder).map_err(|e| format!("{said}; torn: {e}"))?;
    let outcome = match (said, state) {
        ("saved", state) if state == new => Outcome::Unnoticed,
        ("saved", state) => return Err(format!("it says that it saved, and there is {state}")),
        (error, _) if fault.is_harmless() => return Err(format!("it failed: {error}")),
        (error, _) if !error.contains("os error") => return Err(format!("an unclear error: {error}")),
        (_, state) if state == old => Outcome::Refused,
        (_, state) if state == new => Outcome::Late,
        (error, state) => return Err(format!("{error}; torn: {state}")),
    };
    let left = leftovers(folder);
    if left.is_empty() {
        return Ok(Judged { outcome, cleaned_later: false });
    }
    let again = (scenario.save)(folder);
    let still = leftovers(folder);
    match (again, still.is_empty()) {
        (Err(e), _) if matches!(outcome, Outcome::Refused) => Err(format!("{said}; saving again: {e}")),
        (_, false) => Err(format!("{said}; left after the next save: {still:?}")),
        _ => Ok(Judged { outcome, cleaned_later: true }),
    }
}

macro_rules! every_call_of {
    ($($name:ident $on_disk:literal)*) => {
        mod every_call_of {
            $(
                #[test]
                fn $name() {
                    super::test(crate::scenario(stringify!($name)), $on_disk);
                }
            )*
        }
    };
}

every_call_of! {
    safetensors false
    new false
    torch true
    shards false
    onnx false
    in_place true
    kernel true
    folder false
    checkpoint false
    version false
    manifest true
    sign false
    encrypt false
    encrypt_folder true
    decrypt true
    decrypt_folder false
    repair false
}
