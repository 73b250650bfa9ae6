//! `cargo xtask roundtrip [--formats A,B,…]`: every pair of formats over the golden files, there and back.
//!
//! The work is done by a program of the crate `weighbridge-testkit`, on the library itself, so that xtask builds
//! without the library.

use crate::Outcome;
use crate::command::{cargo, done, root, run as run_command, take_value};

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let formats = take_value(&mut arguments, "--formats")?;
    done(&arguments)?;
    let mut program = cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "weighbridge-testkit",
        "--bin",
        "roundtrip",
        "--",
    ]);
    program.arg(root().join("tests/golden"));
    if let Some(formats) = formats {
        program.args(["--formats", &formats]);
    }
    run_command(program)
}
