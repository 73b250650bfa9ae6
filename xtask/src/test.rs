//! `cargo xtask test [STEP…]`: everything that CI checks, in order, up to the first failure.
//!
//! The last line is `N passed, 0 failed`, summed over what the test runners printed; steps that are no test runner
//! (formatting, clippy, tidy, …) do not count. A run in which no test ran fails.

use crate::Outcome;
use crate::command::{cargo, run as run_command, spelled, watched};
use crate::{deny, feature, interop, large, native, roundtrip, setup, tidy};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What test runners counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

type Step = (&'static str, fn(&mut Count, &Path) -> Outcome);

const STEPS: &[Step] = &[
    ("fmt", |_, _| run_command(cargo(&["fmt", "--all", "--", "--check"]))),
    ("clippy", |_, _| {
        run_command(cargo(&[
            "clippy",
            "--quiet",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("features", |_, _| feature::run(&[])),
    ("tests", tests),
    ("tch", tch),
    ("ort", ort),
    ("doctests", |count, python| runner(cargo(&["test", "--doc", "--locked", "--workspace"]), python, count)),
    ("tidy", |_, _| tidy::run(&[])),
    ("deny", |_, _| deny::run(&[])),
    ("roundtrip", |_, _| roundtrip::run(&[])),
    ("interop", |_, _| interop::run(&[])),
    ("large", |_, _| large::run(&[])),
];

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let known = |name: &String| STEPS.iter().any(|(step, _)| step == name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no step `{unknown}`; the steps are {}", names.join(", ")).into());
    }
    let steps: Vec<&Step> = STEPS
        .iter()
        .filter(|(name, _)| arguments.is_empty() || arguments.iter().any(|a| a == name))
        .collect();
    let began = Instant::now();
    let python = setup::ensure()?.python;
    let mut count = Count::default();
    let mut times = Vec::new();
    for (at, (name, step)) in steps.iter().enumerate() {
        println!("\n==== {}/{} {name} ====", at + 1, steps.len());
        let start = Instant::now();
        let outcome = step(&mut count, &python);
        times.push(format!("{name} {:.0} s", start.elapsed().as_secs_f64()));
        if let Err(error) = outcome {
            println!("\n==== FAILED: {name} ====\n{error}");
            return Err(format!("the step `{name}` failed (after {})", times.join(", ")).into());
        }
    }
    println!("\n==== all of {} ==== {:.0} s", times.join(", "), began.elapsed().as_secs_f64());
    let ran_tests = steps.iter().any(|(name, _)| ["tests", "tch", "ort", "doctests"].contains(name));
    if ran_tests && count.passed == 0 {
        return Err("no test ran".into());
    }
    if ran_tests {
        if count.skipped > 0 {
            println!("{} tests are ignored by their own mark", count.skipped);
        }
        println!("{} passed, {} failed", count.passed, count.failed);
    }
    Ok(())
}

fn tests(count: &mut Count, python: &Path) -> Outcome {
    let nextest = cargo(&["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if nextest.is_ok_and(|status| status.success()) {
        return runner(
            cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]),
            python,
            count,
        );
    }
    println!(
        "!!!! cargo-nextest is not installed: plain `cargo test` runs the same tests, several to a process !!!!"
    );
    let tests =
        ["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"];
    runner(cargo(&tests), python, count)
}

/// The tests of the feature `tch`, which nothing else of the workspace is built with.
fn tch(count: &mut Count, python: &Path) -> Outcome {
    if !native::HERE {
        println!("!!!! tch is left out: no libtorch is laid out on this system !!!!");
        return Ok(());
    }
    let runs: [&[&str]; 4] =
        [&["--lib", "tch::"], &["--test", "tch"], &["--lib", "torchscript::"], &["--test", "torchscript"]];
    for run in runs {
        // Both packages each time, so that what they share is compiled once.
        let mut tests = cargo(&["test", "--locked", "--package", "weighbridge-model"]);
        tests.args(["--package", "weighbridge-export"]);
        tests.args(["--features", "weighbridge-model/tch,weighbridge-export/tch"]);
        tests.args(run).env("LD_LIBRARY_PATH", native::libraries());
        let before = count.passed;
        runner(tests, python, count)?;
        if count.passed == before {
            return Err(format!("no test of the feature tch ran ({})", run.join(" ")).into());
        }
    }
    Ok(())
}

/// The tests of the feature `ort`, by themselves: they run with the workspace's too, where the command asks for it.
fn ort(count: &mut Count, python: &Path) -> Outcome {
    let tests = [
        "test",
        "--locked",
        "--package",
        "weighbridge-runtime",
        "--features",
        "ort",
        "--test",
        "ort",
        "--test",
        "ort_absent",
    ];
    let before = count.passed;
    runner(cargo(&tests), python, count)?;
    if count.passed == before { Err("no test of the feature ort ran".into()) } else { Ok(()) }
}

/// Runs a test runner and adds up what it says of itself.
fn runner(mut command: Command, python: &Path, count: &mut Count) -> Outcome {
    command.env("WEIGHBRIDGE_PYTHON", python).env("CARGO_TERM_COLOR", "never");
    command.env("ORT_DYLIB_PATH", native::runtime());
    let shown = spelled(&command);
    let (ok, text) = watched(command)?;
    let found = summaries(&text).ok_or_else(|| format!("`{shown}` printed no summary"))?;
    count.passed += found.passed;
    count.failed += found.failed;
    count.skipped += found.skipped;
    if ok && found.failed == 0 {
        Ok(())
    } else {
        Err(format!("`{shown}`: {} passed, {} failed", found.passed, found.failed).into())
    }
}

/// The sum of the summary lines of nextest (`Summary [ 1.0s] 8 tests run: 7 passed, 1 failed, 0 skipped`) and of
/// `cargo test` (`test result: ok. 8 passed; 0 failed; 1 ignored; …`); `None` if there is no such line.
fn summaries(text: &str) -> Option<Count> {
    let mut sum = None;
    for line in text.lines() {
        // What a failed test had printed comes indented, and may hold a summary of its own.
        let counts = if line.starts_with("     Summary [") {
            line.split_once("run:").map(|(_, counts)| counts)
        } else if line.starts_with("test result: ") {
            line.split_once(". ").map(|(_, counts)| counts)
        } else {
            None
        };
        let Some(counts) = counts else { continue };
        let total: &mut Count = sum.get_or_insert_default();
        for part in counts.split([',', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => total.passed += number,
                "failed" | "timed" => total.failed += number,
                "skipped" | "ignored" => total.skipped += number,
                _ => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_summaries_are_added_up() {
        let text = "
     Summary [   0.109s] 22 tests run: 20 passed (1 slow), 1 failed, 1 timed out, 3 skipped
test result: ok. 8 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
    test result: FAILED. 0 passed; 1 failed; 0 ignored; as a failed test printed it
9 passed in a line that no runner prints";
        assert_eq!(summaries(text), Some(Count { passed: 29, failed: 6, skipped: 5 }));
        assert_eq!(summaries("nothing ran"), None);
    }

    #[test]
    fn a_runner_that_fails_or_says_nothing_is_a_failure() {
        let shell = |script: &str| crate::command::command("sh", &["-c", script]);
        let mut count = Count::default();
        let python = Path::new("python");
        let line = "test result: ok. 2 passed; 0 failed; 0 ignored";
        runner(shell(&format!("echo '{line}'")), python, &mut count).unwrap();
        assert_eq!(count, Count { passed: 2, failed: 0, skipped: 0 });
        assert!(runner(shell(&format!("echo '{line}'; exit 1")), python, &mut count).is_err());
        assert!(runner(shell("true"), python, &mut count).unwrap_err().to_string().contains("no summary"));
        let failed = "echo 'test result: ok. 2 passed; 1 failed; 0 ignored'";
        assert!(runner(shell(failed), python, &mut count).is_err());
    }

    #[test]
    fn an_unknown_step_is_refused() {
        assert!(run(&["nonsense".into()]).unwrap_err().to_string().contains("doctests"));
    }
}
