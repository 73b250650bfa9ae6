//! The project's own tasks, run as `cargo xtask <task>`.
//!
//! Each task is a module with one `run`; a task that finds a fault returns `Err` with the whole text of what is
//! wrong, and the process exits with 1. Nothing here is needed to build or use the crates.

#![allow(dead_code)]

mod command;
mod fixtures;
mod setup;

use std::process::ExitCode;

/// What a task returns: nothing, or what is to be said about why it failed.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
cargo xtask <task>

  setup                      make the Python environment and fetch the models that tests and demo use
  fixtures [--write]         make the golden files anew and compare; --write replaces the committed ones
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match arguments.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", &[] as &[String]),
    };
    let outcome = match task {
        "setup" => setup::run(rest),
        "fixtures" => fixtures::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("there is no task `{other}`\n\n{HELP}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {task}: {error}");
            ExitCode::FAILURE
        }
    }
}
