//! The project's own tasks, run as `cargo xtask <task>`.
//!
//! Each task is a module with one `run`; a task that finds a fault returns `Err` with the whole text of what is
//! wrong, and the process exits with 1. Nothing here is needed to build or use the crates.

mod age;
mod bench;
mod command;
mod deny;
mod feature;
mod fixtures;
mod interop;
mod large;
mod native;
mod roundtrip;
mod scanners;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

/// What a task returns: nothing, or what is to be said about why it failed.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
cargo xtask <task>

  setup                      make the Python environment and fetch the models that tests and demo use
  test                       everything that CI checks, in order, up to the first failure
  demo                       a real PyTorch checkpoint to safetensors, and the proof that nothing changed
  roundtrip [--formats A,B]  every pair of formats over the golden files, there and back
  interop                    the real models, converted both ways and compared by torch and safetensors
  large [--gib N] [--release]
                             a sparse file of 20 GiB cast, and 1.5 GiB there and back, in 128 MiB of memory
  fixtures [--write]         make the golden files anew and compare; --write replaces the committed ones
  scanners [--only A,B] [--minutes N] [--json OUT]
                             the corpus of hostile and benign files by our scanner and the others from PyPI, in one
                             table; not part of CI, since it fetches 600 MB and takes hours the first time
  features                   each feature alone, none and all of them through clippy
  tidy                       the rules that no compiler checks
  deny                       licences, sources and advisories of what the workspace depends on
  bench [--runs N] [--gib G] [--work DIR] [--json OUT] [--only TEXT] [--peers] [--export | --trust]
                             Weighbridge beside cp and its Python (and, with --peers, Rust) peers
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match arguments.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", &[] as &[String]),
    };
    let outcome = match task {
        "tidy" => tidy::run(rest),
        "test" => test::run(rest),
        "roundtrip" => roundtrip::run(rest),
        "scanners" => scanners::run(rest),
        "setup" => setup::run(rest),
        "bench" => bench::run(rest),
        "deny" => deny::run(rest),
        "features" => feature::run(rest),
        "demo" => interop::demo(rest),
        "interop" => interop::run(rest),
        "large" => large::run(rest),
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
