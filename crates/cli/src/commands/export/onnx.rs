//! `weighbridge export onnx`: a graph built from a model's config and weights.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use weighbridge::export::graph::{Dim, Value};
use weighbridge::export::{Export, ExportOptions, Quantization, Task};
use weighbridge::model::{Model, ModelLoader};
use weighbridge::runtime::{CheckOptions, CheckReport, Graph, check, check_narrowed};
use weighbridge::write::ExecuteOptions;
use weighbridge::{CastStats, DType, Error, Note, Result, WriteOptions};

use super::Common;
use crate::commands::check::{report_json, report_text};
use crate::commands::convert::{cast_json, grave, kept_json, push_casts, push_written, stats_json};
use crate::exit::Exit;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge export onnx bert-base model.onnx
  weighbridge export onnx all-MiniLM-L6-v2 embed.onnx --task sentence-embeddings --dtype f16 \\
    --f32-io
  weighbridge export onnx gpt2 decoder.onnx --task text-generation-with-past --quantize int8
  weighbridge export onnx llama llama.onnx --quantize int4 --external-data always
  weighbridge export onnx bert-base fixed.onnx --batch-size 1 --sequence-length 128 --check

The graph is built from config.json and the names and shapes of the weights; an architecture, a task or an option of \
the config that is not known is an error, and nothing is guessed.")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// The file to write; or a folder that is there, for model.onnx in it
    out: PathBuf,
    /// The operator set, 17 to the newest
    #[arg(long, value_name = "N")]
    opset: Option<u32>,
    /// Quantize the weights of linear layers: int8 (inputs too, while it runs), int8-weights, int4, or int4:BLOCK
    #[arg(long, value_name = "FORM")]
    quantize: Option<Quantization>,
    /// The axes whose sizes are open until the graph runs; those left out need a size
    #[arg(long, value_name = "AXES", value_enum, value_delimiter = ',', num_args = 0..)]
    dynamic: Option<Vec<Axis>>,
    /// A fixed number of sequences in a batch
    #[arg(long, value_name = "N")]
    batch_size: Option<u64>,
    /// A fixed number of tokens in a sequence
    #[arg(long, value_name = "N")]
    sequence_length: Option<u64>,
    /// A fixed number of tokens in the cache
    #[arg(long, value_name = "N")]
    past_sequence_length: Option<u64>,
    /// Whether the weights are in a file of their own beside the model
    #[arg(long, value_enum, default_value_t = External::Auto)]
    external_data: External,
    /// Run what was written in ONNX Runtime, and hold it against our own evaluation of the graph; where weights were
    /// narrowed, against the graph in F32 too
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Axis {
    Batch,
    Sequence,
    Past,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum External {
    /// Where they are too large to stand inside
    Auto,
    Always,
    Never,
}

impl Args {
    fn options(&self) -> Result<ExportOptions> {
        let mut options = ExportOptions::default();
        options.task = self.common.task;
        if let Some(opset) = self.opset {
            options.opset = opset;
        }
        options.dtype = self.common.dtype.unwrap_or(options.dtype);
        options.compute = self.common.compute;
        options.f32_io = self.common.f32_io;
        options.on_overflow = self.common.overflow.into();
        options.quantize = self.quantize;
        let sizes = [
            (Axis::Batch, "batch", self.batch_size),
            (Axis::Sequence, "sequence", self.sequence_length),
            (Axis::Past, "past-sequence", self.past_sequence_length),
        ];
        if let Some(open) = &self.dynamic {
            for (axis, name, size) in sizes {
                let option = if axis == Axis::Batch { "--batch-size" } else { "--*-length" };
                if open.contains(&axis) && size.is_some() {
                    let what = format!("the axis {name} is dynamic, and has a fixed size");
                    return Err(Error::invalid_options(what));
                }
                let past = self.common.task == Some(Task::TextGenerationWithPast);
                if !open.contains(&axis) && size.is_none() && (axis != Axis::Past || past) {
                    let what = format!("the axis {name} is not dynamic, and has no size");
                    return Err(Error::invalid_options(what).with_hint(format!("give its size ({option})")));
                }
            }
        }
        options.batch_size = self.batch_size;
        options.sequence_length = self.sequence_length;
        options.past_sequence_length = self.past_sequence_length;
        options.metadata.clone_from(&self.common.metadata);
        Ok(options)
    }
}

pub(super) fn run(args: &Args) -> Result<Exit> {
    let start = Instant::now();
    if args.check {
        // Without the runtime nothing could be checked, which is better known before gigabytes are written.
        weighbridge::runtime::load(None)?;
    }
    let progress = args.common.writing.progress();
    let model = ModelLoader::new(&args.common.model).read_options(crate::limits::read_options()).load()?;
    let export = weighbridge::export::export(&model, &args.options()?).map_err(|e| match e.path() {
        Some(_) => e,
        None => e.with_path(&args.common.model),
    })?;
    let mut write = WriteOptions::default();
    write.external_data = match args.external_data {
        External::Auto => None,
        External::Always => Some(true),
        External::Never => Some(false),
    };
    let mut how = ExecuteOptions::default();
    args.common.writing.apply(&mut how);
    how.observer = Some(&progress);
    let written = export.write(&args.out, write, &how)?;
    drop(progress);
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
    let files: Vec<_> = written.files.iter().map(|p| (p.clone(), length(p))).collect();
    let seconds = start.elapsed().as_secs_f64();
    let checks = match (args.check, written.files.last()) {
        (true, Some(path)) => Some(Checks::run(&model, &export, &args.options()?, path)?),
        _ => None,
    };
    let exit = if checks.as_ref().is_none_or(|c| c.own.passed()) { Exit::Success } else { Exit::Different };
    let report = Report { export: &export, files, bytes: written.bytes, seconds, checks };
    if args.common.writing.json {
        output::emit(format!("{}\n", report.json()).as_bytes())?;
    } else if args.common.writing.quiet {
        let mut out = String::new();
        output::push_notes(&mut out, &grave(&export.notes));
        if exit != Exit::Success {
            report.push_checks(&mut out);
        }
        eprint!("{out}");
    } else {
        output::emit(report.text().as_bytes())?;
    }
    Ok(exit)
}

/// What ONNX Runtime makes of an export.
struct Checks {
    /// Beside the evaluator, on the same file.
    own: CheckReport,
    /// Beside the evaluator on the graph in F32, where weights were narrowed.
    wide: Option<CheckReport>,
}

impl Checks {
    fn run(model: &Model, export: &Export<'_>, options: &ExportOptions, path: &Path) -> Result<Self> {
        let choices = CheckOptions::default();
        let own = check(path, &choices)?;
        let graph = export.model.graph.as_ref();
        let narrow = |t: &weighbridge::TensorInfo| t.dtype() != DType::F32;
        if graph.is_none() || !export.weights.tensors().iter().any(narrow) {
            return Ok(Self { own, wide: None });
        }
        let mut options = options.clone();
        (options.dtype, options.compute, options.quantize) = (DType::F32, None, None);
        let wide = weighbridge::export::export(model, &options)?;
        let graph = Graph::new(&wide.model, wide.weights)?;
        Ok(Self { own, wide: Some(check_narrowed(path, &graph, &choices)?) })
    }
}

/// What was written, and how.
struct Report<'r> {
    export: &'r Export<'r>,
    files: Vec<(PathBuf, u64)>,
    bytes: u64,
    seconds: f64,
    checks: Option<Checks>,
}

impl Report<'_> {
    fn push_checks(&self, out: &mut String) {
        let Some(checks) = &self.checks else { return };
        let _ = writeln!(out, "check   ONNX Runtime beside our evaluation of the graph");
        out.push_str(&report_text(&checks.own));
        for o in checks.wide.iter().flat_map(CheckReport::outputs) {
            let (name, d) = (output::one_line(&o.name), &o.difference);
            let apart = format!("differs by {:.1e} at most, cosine {:.6}", d.absolute, d.cosine);
            let _ = writeln!(out, "narrow  {name} {:?} beside the graph in F32: {apart}", o.shape);
        }
    }

    fn notes(&self) -> Vec<Note> {
        let mut notes = self.export.notes.clone();
        notes.sort_by_key(|n| n.kind);
        notes
    }

    /// The casts, and what they met together.
    fn casts(&self) -> (Vec<weighbridge::TensorCast>, CastStats) {
        let (casts, mut total) = (self.export.cast_report(), CastStats::default());
        casts.iter().for_each(|c| total.merge(&c.stats));
        (casts, total)
    }

    fn json(&self) -> serde_json::Value {
        let model = &self.export.model;
        let graph = model.graph.as_ref();
        let (casts, total) = self.casts();
        let opsets: serde_json::Map<String, serde_json::Value> = model
            .opset_import
            .iter()
            .map(|o| (o.domain.clone().unwrap_or_default(), o.version.unwrap_or_default().into()))
            .collect();
        serde_json::json!({
            "task": self.export.task.as_str(),
            "opsets": opsets,
            "nodes": graph.map_or(0, |g| g.node.len()),
            "inputs": self.export.inputs.iter().map(value_json).collect::<Vec<_>>(),
            "outputs": self.export.outputs.iter().map(value_json).collect::<Vec<_>>(),
            "tensors": self.export.weights.tensors().len(),
            "parameters": self.export.weights.parameters(),
            "files": self.files.iter()
                .map(|(p, bytes)| serde_json::json!({ "path": p.to_string_lossy(), "bytes": bytes }))
                .collect::<Vec<_>>(),
            "bytes": self.bytes,
            "casts": casts.iter().filter(|c| !c.stats.is_clean()).map(cast_json).collect::<Vec<_>>(),
            "cast_total": stats_json(&total),
            "kept_wide": kept_json(&self.export.kept_wide),
            "notes": output::notes_json(&self.notes()),
            "check": self.checks.as_ref().map(|c| report_json(&c.own)),
            "beside_f32": self.checks.as_ref().and_then(|c| c.wide.as_ref()).map(report_json),
            "seconds": self.seconds,
        })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let graph = self.export.model.graph.as_ref();
        let nodes = weighbridge::words::count(graph.map_or(0, |g| g.node.len() as u64), "node");
        let _ = writeln!(out, "graph   {}: {nodes}", self.export.task);
        for (word, values) in [("in", &self.export.inputs), ("out", &self.export.outputs)] {
            for value in values {
                let _ = writeln!(out, "  {word:3} {}  {}", output::one_line(value.name()), value.describe());
            }
        }
        let weights = &self.export.weights;
        let numbers = (weights.tensors().len() as u64, weights.parameters(), self.bytes);
        push_written(&mut out, "onnx", numbers, self.seconds, &self.files);
        let (casts, total) = self.casts();
        push_casts(&mut out, &casts, &total, &self.export.kept_wide);
        self.push_checks(&mut out);
        output::push_notes(&mut out, &self.notes());
        out
    }
}

/// A size that is open is a text.
fn value_json(value: &Value) -> serde_json::Value {
    let dim = |d: &Dim| d.fixed().map_or_else(|| d.to_string().into(), serde_json::Value::from);
    serde_json::json!({
        "name": value.name(),
        "dtype": value.dtype().name(),
        "shape": value.shape().iter().map(dim).collect::<Vec<_>>(),
    })
}
