//! `weighbridge check`: an ONNX model in ONNX Runtime, held against a reference.

use std::fmt::Write as _;
use std::path::PathBuf;

use weighbridge::Result;
use weighbridge::runtime::{CheckOptions, CheckReport, Tolerance, check};

use super::run::{brief, parse_file, parse_size, read_arrays};
use crate::exit::Exit;
use crate::output::{self, one_line};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge check model.onnx
  weighbridge check model.onnx --size batch_size=2 --size sequence_length=384
  weighbridge check model.onnx --input x=x.npy --expect y=y.npy --tolerance 1e-4

Without --expect the reference is weighbridge's own evaluator, and without --input the inputs are made up.")]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// An input from a .npy file, in place of those that are made up
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_file)]
    input: Vec<(String, PathBuf)>,
    /// What an output must be, in a .npy file
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_file, requires = "input")]
    expect: Vec<(String, PathBuf)>,
    /// The size of a named dimension; without any, three rounds of different sizes
    #[arg(long, value_name = "NAME=N", value_parser = parse_size, conflicts_with = "input")]
    size: Vec<(String, u64)>,
    /// How many tokens there are; else the rows of the embedding
    #[arg(long, value_name = "N")]
    vocabulary: Option<u64>,
    /// Where the row of random numbers begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The difference that is allowed, in parts of the largest number of an output; else by the model's dtype
    #[arg(long, value_name = "X", value_parser = parse_tolerance)]
    tolerance: Option<f64>,
    /// Threads that compute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// The file of ONNX Runtime's library
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_tolerance(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x >= 0.0 => Ok(x),
        _ => Err("a number from 0 on is wanted".into()),
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut options = CheckOptions::default();
    (options.seed, options.vocabulary) = (args.seed, args.vocabulary);
    if !args.size.is_empty() {
        options.rounds = vec![args.size.iter().cloned().collect()];
    }
    if !args.input.is_empty() {
        options.inputs = Some(read_arrays(&args.input)?);
    }
    if !args.expect.is_empty() {
        options.outputs = Some(read_arrays(&args.expect)?);
    }
    options.tolerance = args.tolerance.map(|x| Tolerance { absolute: x, relative: x });
    options.session.library.clone_from(&args.library);
    options.session.threads = args.threads.map(usize::from);
    options.evaluate.threads = args.threads.map(usize::from);
    let report = check(&args.model, &options)?;
    if args.json {
        output::emit(format!("{}\n", report_json(&report)).as_bytes())?;
    } else {
        output::emit(report_text(&report).as_bytes())?;
    }
    Ok(if report.passed() { Exit::Success } else { Exit::Different })
}

/// A check's report as JSON.
pub(super) fn report_json(report: &CheckReport) -> serde_json::Value {
    let rounds: Vec<_> = report
        .rounds
        .iter()
        .map(|round| {
            let inputs: serde_json::Map<_, _> =
                round.inputs.iter().map(|(n, shape)| (n.clone(), shape.clone().into())).collect();
            let outputs: Vec<_> = round
                .outputs
                .iter()
                .map(|o| {
                    serde_json::json!({
                        "name": o.name,
                        "dtype": o.dtype.name(),
                        "shape": o.shape,
                        "absolute": o.difference.absolute,
                        "relative": o.difference.relative,
                        "cosine": o.difference.cosine,
                        "within": o.difference.within,
                    })
                })
                .collect();
            serde_json::json!({
                "inputs": inputs,
                "outputs": outputs,
                "runtime_seconds": round.runtime_seconds,
                "evaluator_seconds": round.evaluator_seconds,
            })
        })
        .collect();
    serde_json::json!({
        "passed": report.passed(),
        "tolerance": { "absolute": report.tolerance.absolute, "relative": report.tolerance.relative },
        "rounds": rounds,
    })
}

/// A check's report as lines.
pub(super) fn report_text(report: &CheckReport) -> String {
    let mut out = String::new();
    for round in &report.rounds {
        let inputs: Vec<String> =
            round.inputs.iter().map(|(n, shape)| format!("{} {shape:?}", one_line(n))).collect();
        let brief_list = if inputs.len() > 4 {
            format!("{}, … {} more", inputs[..4].join(", "), inputs.len() - 4)
        } else {
            inputs.join(", ")
        };
        let _ = writeln!(out, "{brief_list}");
        for o in &round.outputs {
            let d = &o.difference;
            let verdict = if d.within { "ok" } else { "DIFFERS" };
            let (absolute, relative) = (brief(d.absolute), brief(d.relative));
            let _ = writeln!(
                out,
                "  {verdict}  {} {:?}: differs by {absolute} at most ({relative} of the largest), cosine {:.9}",
                one_line(&o.name),
                o.shape,
                d.cosine
            );
        }
    }
    let verdict = if report.passed() { "the same" } else { "NOT the same" };
    let (absolute, relative) = (brief(report.tolerance.absolute), brief(report.tolerance.relative));
    let _ = writeln!(out, "{verdict} within {absolute} and {relative} of the largest number");
    out
}
