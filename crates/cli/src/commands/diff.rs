//! `weighbridge diff`: two model files compared, tensor by tensor.

use std::fmt::Write as _;
use std::path::PathBuf;

use weighbridge::{DiffOptions, DiffReport, Result, TensorDiff, ValueDiff};

use super::keys::Keys;
use crate::exit::Exit;
use crate::output::{self, count, grouped, one_line, shortened};
use crate::progress::Progress;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge diff pytorch_model.bin model.safetensors
  weighbridge diff model.safetensors model-bf16.safetensors --tolerance 0.01 --ignore-dtype
  weighbridge diff epoch-1.pt epoch-2.pt --values --json
  weighbridge diff model.safetensors model.safetensors.age -i key.txt

Exit codes: 0 equal, 1 different, 2 error.")]
pub(crate) struct Args {
    /// The first file
    a: PathBuf,
    /// The second file
    b: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How far two numbers may lie apart and still count as equal
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    tolerance: f64,
    /// Tensors of different dtypes are equal if their numbers are
    #[arg(long)]
    ignore_dtype: bool,
    /// Metadata and other values that differ make the files different; else they are only reported
    #[arg(long)]
    values: bool,
    /// Threads that compare
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Shorten nothing
    #[arg(long)]
    all: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    keys: Keys,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let a = args.keys.open(&args.a)?;
    let b = args.keys.open(&args.b)?;
    let progress = Progress::new(args.quiet || args.json);
    let mut options = DiffOptions::default();
    options.tolerance = args.tolerance;
    options.ignore_dtype = args.ignore_dtype;
    options.values = args.values;
    options.threads = args.threads.map(usize::from);
    options.observer = Some(&progress);
    let report = weighbridge::diff(&*a, &*b, &options)?;
    drop(progress);
    if args.json {
        output::emit(format!("{}\n", json(&report)).as_bytes())?;
    } else {
        output::emit(text(&report, args).as_bytes())?;
    }
    Ok(if report.equal { Exit::Success } else { Exit::Different })
}

fn json(report: &DiffReport) -> serde_json::Value {
    let tensors = |list: &[TensorDiff]| -> serde_json::Value { list.iter().map(tensor_json).collect() };
    let pair =
        |path: &str, sides: &[String; 2]| serde_json::json!({ "path": path, "a": sides[0], "b": sides[1] });
    let other = &report.other;
    serde_json::json!({
        "equal": report.equal,
        "compared": report.compared,
        "only_in_a": report.only_in_a,
        "only_in_b": report.only_in_b,
        "different": tensors(&report.different),
        "nearly_equal": tensors(&report.nearly_equal),
        "metadata": other.metadata.iter()
            .map(|(key, sides)| serde_json::json!({ "key": key, "a": sides[0], "b": sides[1] }))
            .collect::<serde_json::Value>(),
        "values": other.values.iter().map(|(path, sides)| pair(path, sides)).collect::<serde_json::Value>(),
        "more_values": other.more_values,
    })
}

fn tensor_json(tensor: &TensorDiff) -> serde_json::Value {
    // JSON has no infinity: such a difference is the string "inf".
    let number = |x: Option<f64>| match x {
        Some(x) if !x.is_finite() => serde_json::json!(x.to_string()),
        other => serde_json::json!(other),
    };
    let values = tensor.values.as_ref().map(|v| {
        serde_json::json!({
            "differing": v.differing,
            "nan_on_one_side": v.nan_on_one_side,
            "other_bits": v.other_bits,
            "max_absolute": number(v.max_absolute),
            "max_relative": number(v.max_relative),
            "first": v.first,
            "worst": v.worst,
        })
    });
    serde_json::json!({
        "name": tensor.name,
        "dtypes": tensor.dtypes.map(|d| d.name()),
        "shapes": [&tensor.shapes[0][..], &tensor.shapes[1][..]],
        "values": values,
    })
}

fn text(report: &DiffReport, args: &Args) -> String {
    let limit = if args.all || !output::for_people() { usize::MAX } else { 40 };
    let mut out = String::new();
    let mut list = |lines: &mut dyn Iterator<Item = String>, len: usize| {
        for line in lines.take(limit) {
            let _ = writeln!(out, "{line}");
        }
        if len > limit {
            let _ = writeln!(out, "  … {} more (--all shows them)", grouped((len - limit) as u64));
        }
    };
    for (side, names) in [("first", &report.only_in_a), ("second", &report.only_in_b)] {
        let mut lines = names.iter().map(|n| format!("only in the {side}: {}", one_line(n)));
        list(&mut lines, names.len());
    }
    list(&mut report.different.iter().map(|t| tensor_line(t, "different")), report.different.len());
    list(&mut report.nearly_equal.iter().map(|t| tensor_line(t, "nearly equal")), report.nearly_equal.len());
    let side = |text: &Option<String>| {
        text.as_deref().map_or("absent".into(), |t| format!("{:?}", shortened(t, 80)))
    };
    let metadata = &report.other.metadata;
    let mut lines = metadata
        .iter()
        .map(|(key, [a, b])| format!("metadata {}: {} -> {}", shortened(key, 200), side(a), side(b)));
    list(&mut lines, metadata.len());
    let values = &report.other.values;
    let mut lines = values.iter().map(|(path, [a, b])| {
        let path = if path.is_empty() { String::new() } else { format!(" {}", shortened(path, 200)) };
        format!("value{path}: {} -> {}", shortened(a, 80), shortened(b, 80))
    });
    list(&mut lines, values.len());
    if report.other.more_values {
        out.push_str("  … and more values\n");
    }
    push_verdict(&mut out, report, args);
    out
}

fn push_verdict(out: &mut String, report: &DiffReport, args: &Args) {
    let only = report.only_in_a.len() + report.only_in_b.len();
    let compared = count(report.compared, "tensor");
    let _ = if report.equal {
        let within = if args.tolerance > 0.0 { " within the tolerance" } else { "" };
        writeln!(out, "equal: {compared} compared{within}")
    } else {
        let different = grouped(report.different.len() as u64);
        let only = grouped(only as u64);
        let other = if args.values && !report.other.is_empty() { ", metadata or values differ" } else { "" };
        writeln!(
            out,
            "different: {compared} compared, {different} of them differ, {only} on one side only{other}"
        )
    };
    if !report.other.is_empty() && !args.values {
        out.push_str("note: what is no tensor differs, and does not count without --values\n");
    }
}

fn tensor_line(tensor: &TensorDiff, word: &str) -> String {
    let mut parts = Vec::new();
    let [a, b] = &tensor.shapes;
    if a != b {
        parts.push(format!("shape {:?} -> {:?}", &a[..], &b[..]));
    }
    let [a, b] = tensor.dtypes;
    if a != b {
        parts.push(format!("dtype {a} -> {b}"));
    }
    if let Some(values) = &tensor.values {
        let elements = tensor.shapes[0].iter().product();
        push_values(&mut parts, values, elements);
    }
    format!("{word}: {}: {}", one_line(&tensor.name), parts.join("; "))
}

fn push_values(parts: &mut Vec<String>, values: &ValueDiff, elements: u64) {
    if values.differing > 0 {
        parts.push(format!("{} of {} differ", grouped(values.differing), count(elements, "element")));
    }
    if values.nan_on_one_side > 0 {
        parts.push(format!("{} NaN on one side only", grouped(values.nan_on_one_side)));
    }
    if let (Some(absolute), Some(relative)) = (values.max_absolute, values.max_relative) {
        parts.push(format!("largest difference {absolute:.6e} ({relative:.3e} relative)"));
    }
    if let Some(first) = values.first {
        parts.push(format!("first at element {}", grouped(first)));
    }
    if values.differing == 0 && values.max_absolute.is_none() && values.other_bits > 0 {
        parts.push(format!("equal as numbers, {} with other bits", count(values.other_bits, "element")));
    }
    if values == &ValueDiff::default() {
        parts.push("equal as numbers".into());
    }
}
