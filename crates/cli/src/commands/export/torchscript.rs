//! `weighbridge export torchscript`: a program that Python's `torch.jit.load` runs.

use std::path::PathBuf;

use weighbridge::Result;

use super::Common;
use crate::exit::Exit;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge export torchscript bert-base bert.pt
  weighbridge export torchscript gpt2 gpt2.pt --task text-generation --dtype bf16

The program takes batches and texts of any length, and holds the weights as parameters under the checkpoint's names. It \
needs a build with libtorch: cargo install weighbridge-cli --features tch.")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// The file to write
    out: PathBuf,
}

#[cfg(not(feature = "tch"))]
pub(super) fn run(args: &Args) -> Result<Exit> {
    let missing = weighbridge::Error::new(
        weighbridge::ErrorKind::FormatDisabled,
        "this build has no libtorch, which traces TorchScript programs",
    );
    let hint =
        "build the command with its feature `tch` and libtorch 2.13 in LIBTORCH; `export onnx` needs neither";
    Err(missing.with_path(&args.out).with_hint(hint))
}

#[cfg(feature = "tch")]
pub(super) fn run(args: &Args) -> Result<Exit> {
    use std::fmt::Write as _;
    use std::time::Instant;

    use weighbridge::export::torchscript::{TorchScriptOptions, export};
    use weighbridge::model::ModelLoader;

    use crate::commands::convert::grave;
    use crate::output::{self, one_line};

    let (start, common) = (Instant::now(), &args.common);
    let mut options = TorchScriptOptions::default();
    options.task = common.task;
    options.dtype = common.dtype.unwrap_or(options.dtype);
    options.compute = common.compute;
    options.f32_io = common.f32_io;
    options.on_overflow = common.overflow.into();
    options.metadata.clone_from(&common.metadata);
    common.writing.apply(&mut options.execute);
    // The bar clears itself when the write is over, and the process ends soon after.
    options.execute.observer = Some(Box::leak(Box::new(common.writing.progress())));
    let model = ModelLoader::new(&common.model).read_options(crate::limits::read_options()).load()?;
    let report = export(&model, &options, &args.out)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut out = String::new();
    if common.writing.json {
        let json = serde_json::json!({
            "task": report.task.as_str(),
            "inputs": report.inputs,
            "outputs": report.outputs,
            "tensors": report.weights,
            "files": [{ "path": report.path.to_string_lossy(), "bytes": report.bytes }],
            "bytes": report.bytes,
            "notes": output::notes_json(&report.notes),
            "seconds": seconds,
        });
        output::emit(format!("{json}\n").as_bytes())?;
    } else if common.writing.quiet {
        output::push_notes(&mut out, &grave(&report.notes));
        eprint!("{out}");
    } else {
        let (inputs, outputs) = (report.inputs.join(", "), report.outputs.join(", "));
        let _ = writeln!(
            out,
            "program {}: forward({}) gives {}",
            report.task,
            one_line(&inputs),
            one_line(&outputs)
        );
        let (path, bytes) = (report.path.to_string_lossy(), weighbridge::words::size(report.bytes));
        let _ = writeln!(
            out,
            "wrote   {}: {} weights, {bytes} in {seconds:.2} s",
            one_line(&path),
            report.weights
        );
        output::push_notes(&mut out, &report.notes);
        output::emit(out.as_bytes())?;
    }
    Ok(Exit::Success)
}
