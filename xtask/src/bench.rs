//! `cargo xtask bench [--runs N] [--gib G] [--work DIR] [--json OUT] [--only TEXT] [--peers]
//! [--export | --trust]`: Weighbridge beside `cp` and beside its peers, over the same files, on memory rather than a disk where the
//! system has such a folder. `--export` measures exports to ONNX and how they run instead of conversions, `--trust`
//! scans, hashes, manifests, signatures and encryption.

use crate::Outcome;
use crate::command::{
    build, cargo, command, done, output, root, run as run_command, take_flag, take_value, target,
};
use crate::setup;
use std::fs;
use std::path::{Path, PathBuf};

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let runs = number(take_value(&mut arguments, "--runs")?, "5")?;
    let gib = number(take_value(&mut arguments, "--gib")?, "1.5")?;
    let work = take_value(&mut arguments, "--work")?.map(PathBuf::from);
    let json = take_value(&mut arguments, "--json")?;
    let only = take_value(&mut arguments, "--only")?.unwrap_or_default();
    let peers = take_flag(&mut arguments, "--peers");
    let export = take_flag(&mut arguments, "--export");
    let trust = take_flag(&mut arguments, "--trust");
    done(&arguments)?;
    if export && trust {
        return Err("--export and --trust are two benchmarks: one at a time".into());
    }

    let python = setup::ensure()?.python;
    println!("bench: building the command and the library's program (release)");
    let weighbridge = build("weighbridge-cli", "weighbridge", true)?;
    let memory = Path::new("/dev/shm");
    let own = if memory.is_dir() { memory.join("weighbridge-bench") } else { target().join("bench") };
    let work = std::path::absolute(work.as_deref().unwrap_or(&own))?;
    fs::create_dir_all(&work)?;
    println!("bench: {runs} runs over {gib} GiB in {}", work.display());

    let mut script = command(&python, &["-B"]);
    let which = match (export, trust) {
        (true, _) => "benches/export.py",
        (_, true) => "benches/trust.py",
        _ => "benches/sidebyside.py",
    };
    script.arg(root().join(which));
    script.arg("--work").arg(&work).arg("--bin").arg(&weighbridge).args(["--runs", &runs, "--gib", &gib]);
    if export {
        script.arg("--optimum").arg(setup::optimum()?);
    } else if trust {
        script.arg("--age").arg(target().join("native/age"));
        script.arg("--signing").arg(setup::signer());
        script.arg("--scanners").arg(setup::scanners()?);
    } else {
        script.arg("--library").arg(build("weighbridge-benches", "library", true)?);
    }
    if !only.is_empty() {
        script.args(["--only", &only]);
    }
    if let Some(json) = json {
        script.args(["--json", &json]);
    }
    let mut outcome = run_command(script);
    if outcome.is_ok() && !export && !trust {
        outcome = background_save(&work, &gib, &runs);
    }
    if outcome.is_ok() && peers {
        outcome = rust_peers(&work, &runs);
    }
    // Gigabytes in memory are not left behind; a folder that the caller named is the caller's.
    if work == own {
        fs::remove_dir_all(&work)?;
    }
    outcome
}

/// For how long a background save of a training's state keeps its caller waiting, beside a `memcpy` of that state.
fn background_save(work: &Path, gib: &str, runs: &str) -> Outcome {
    println!("\nA background save of a checkpoint");
    let blocking = build("weighbridge-examples", "blocking", true)?;
    let mib = (gib.parse::<f64>()? * 1024.0).ceil().to_string();
    let mut measure = command(blocking, &[]);
    measure.arg(work.join("checkpoints")).args([&mib, runs]);
    run_command(measure)
}

/// Builds the peers in their own workspace and runs them over the files that the Python script made.
fn rust_peers(work: &Path, runs: &str) -> Outcome {
    println!("\nRust peers (timed without their start-up)");
    let manifest = root().join("benches/peers/Cargo.toml");
    let mut build = cargo(&["build", "--quiet", "--release", "--manifest-path"]);
    // Their own target folder, wherever the workspace's is, so that the program is found.
    let folder = target().join("peers");
    build.arg(&manifest).arg("--target-dir").arg(&folder);
    run_command(build)?;
    let mut peers = command(folder.join("release/peers"), &["all"]);
    peers.arg(work).arg(runs);
    print!("{}", output(peers)?);
    Ok(())
}

/// A number as the caller wrote it, checked to be one and above zero.
fn number(given: Option<String>, default: &str) -> Outcome<String> {
    let text = given.unwrap_or_else(|| default.to_owned());
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(text),
        _ => Err(format!("`{text}` is no number above zero").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked() {
        assert_eq!(number(None, "5").unwrap(), "5");
        assert_eq!(number(Some("0.25".into()), "5").unwrap(), "0.25");
        for bad in ["", "x", "0", "-1", "inf", "NaN"] {
            assert!(number(Some(bad.into()), "5").is_err(), "{bad}");
        }
    }
}
