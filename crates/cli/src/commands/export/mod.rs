//! `weighbridge export`: a graph or a program built from a model's config and weights.

mod onnx;
mod torchscript;

use std::path::PathBuf;

use weighbridge::export::Task;
use weighbridge::{DType, Result};

use super::convert::{Overflow, parse_pair};
use crate::exit::Exit;
use crate::writing::Writing;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge export onnx bert-base model.onnx
  weighbridge export onnx --help")]
pub(crate) struct Args {
    #[command(subcommand)]
    target: Target,
}

#[derive(clap::Subcommand)]
enum Target {
    /// An ONNX graph, built without Python or tracing; weights are streamed
    Onnx(Box<onnx::Args>),
    /// A TorchScript program for torch.jit.load, in builds with libtorch (the feature `tch`)
    Torchscript(Box<torchscript::Args>),
}

impl Args {
    pub(crate) fn json(&self) -> bool {
        match &self.target {
            Target::Onnx(args) => args.common.writing.json,
            Target::Torchscript(args) => args.common.writing.json,
        }
    }
}

/// What every target has.
#[derive(clap::Args)]
struct Common {
    /// A model's folder, with its config.json
    model: PathBuf,
    /// What it computes, as transformers calls its pipelines; else what the config's class does
    #[arg(long, value_name = "TASK", value_parser = Task::parse)]
    task: Option<Task>,
    /// The dtype of the weights, which is computed in: f32, f16 or bf16
    #[arg(long, value_name = "DTYPE", value_parser = parse_dtype)]
    dtype: Option<DType>,
    /// The dtype to compute in, where it is not that of the weights
    #[arg(long, value_name = "DTYPE", value_parser = parse_dtype)]
    compute: Option<DType>,
    /// Keep inputs and outputs f32 whatever is computed in
    #[arg(long)]
    f32_io: bool,
    /// What becomes of weights too large for the dtype
    #[arg(long, value_enum, default_value_t = Overflow::Error)]
    overflow: Overflow,
    /// Add an entry to the metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    writing: Writing,
}

fn parse_dtype(text: &str) -> std::result::Result<DType, String> {
    let known = [DType::F32, DType::F16, DType::Bf16];
    DType::parse(text).filter(|d| known.contains(d)).ok_or_else(|| "the dtypes are f32, f16, bf16".into())
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    match &args.target {
        Target::Onnx(args) => onnx::run(args),
        Target::Torchscript(args) => torchscript::run(args),
    }
}
