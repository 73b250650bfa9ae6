//! `cargo xtask scanners`: Weighbridge's scanner and the others from PyPI on the corpus of `tests/corpus`, in one table.
//!
//! The others live in an environment of their own, pinned in `xtask/scanners.txt`. Each is run on each file, as its
//! command or as a library, offline, with a bound on time; nothing is loaded by anything else. What they said is kept below
//! `target/scanners`, by version and content, since one of them takes seconds a file: each is asked for `--minutes` at most,
//! half an hour where none are given, and goes on the next time.

use std::path::PathBuf;

use crate::Outcome;
use crate::command::{build, command, done, root, run as run_command, take_value, target};
use crate::setup;

/// The scanners by the names that `tests/corpus/scanners.py` has for them.
const OTHERS: &[&str] = &["picklescan", "picklescan-strict", "modelscan", "fickling", "modelaudit"];

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let json = take_value(&mut arguments, "--json")?;
    let json = json.map_or_else(|| target().join("scanners/table.json"), PathBuf::from);
    let minutes = take_value(&mut arguments, "--minutes")?.unwrap_or_else(|| "30".into());
    if !minutes.parse::<f64>().is_ok_and(|m| m > 0.0) {
        return Err(format!("--minutes takes a number, and {minutes:?} is none").into());
    }
    let only = take_value(&mut arguments, "--only")?;
    let only: Option<Vec<String>> = only.map(|o| o.split(',').map(str::to_owned).collect());
    done(&arguments)?;
    if let Some(unknown) = only.iter().flatten().find(|o| !OTHERS.contains(&o.as_str())) {
        return Err(format!("there is no scanner `{unknown}`; there are {}", OTHERS.join(", ")).into());
    }
    let environment = setup::ensure()?;
    let python = setup::scanners()?;
    let folder = target().join("scanners");
    let (corpus, kept) = (folder.join("corpus"), folder.join("kept"));
    if corpus.exists() {
        std::fs::remove_dir_all(&corpus)?;
    }
    std::fs::create_dir_all(&kept)?;
    let scripts = root().join("tests/corpus");
    let mut make = command(&environment.python, &[]);
    make.arg(scripts.join("make.py")).arg(&corpus).env("WEIGHBRIDGE_CORPUS_ALL", "1");
    run_command(make)?;
    let ours = build("weighbridge-cli", "weighbridge", true)?;
    let tools = OTHERS.iter().filter(|t| only.as_ref().is_none_or(|o| o.iter().any(|o| o == *t)));
    for tool in std::iter::once(&"weighbridge").chain(tools) {
        let mut scan = command(&python, &[]);
        scan.arg(scripts.join("scanners.py"))
            .arg(tool)
            .arg(&corpus)
            .arg(kept.join(format!("{tool}.jsonl")))
            .arg(&minutes);
        if *tool == "weighbridge" {
            scan.arg(&ours);
        }
        run_command(scan)?;
    }
    let mut table = command(&python, &[]);
    table.arg(scripts.join("table.py")).arg(&corpus).arg(&kept).arg(&json);
    run_command(table)?;
    println!("\nAll that each missed: {}", json.display());
    Ok(())
}
