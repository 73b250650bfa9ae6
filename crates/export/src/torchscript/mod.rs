//! TorchScript programs of known architectures, which Python's `torch.jit.load` runs.
//!
//! The architectures are those of the crate, built once: libtorch runs their graph operator by operator under a trace,
//! and its text becomes the program's `forward`. The weights are not in libtorch's hands: they are streamed from the
//! model into the file, as parameters under the names that the checkpoint has for them, so that
//! `torch.jit.load(path).state_dict()` has the checkpoint's keys. A program takes batches and texts of any length.
//!
//! ```no_run
//! use weighbridge_export::torchscript::{TorchScriptOptions, export};
//! use weighbridge_model::ModelLoader;
//!
//! let model = ModelLoader::new("bert-base").load()?;
//! let report = export(&model, &TorchScriptOptions::default(), "bert.pt")?;
//! println!("{} takes {}", report.task, report.inputs.join(", "));
//! # Ok::<(), weighbridge_formats::Error>(())
//! ```

mod run;
mod trace;
mod values;

use std::path::{Path, PathBuf};

use tch::{CModule, IValue, Tensor};
use weighbridge_formats::backends::torch::script;
use weighbridge_formats::transform::OnOverflow;
use weighbridge_formats::write::{ExecuteOptions, WritePlan, execute};
use weighbridge_formats::{Archive, DType, Error, MemoryArchive, Note, Result, WriteOptions};
use weighbridge_model::Model;

use crate::{Export, ExportOptions, Task};

/// Choices for an [`export`].
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TorchScriptOptions {
    /// What the program computes. By default what the class in the config's `architectures` does.
    pub task: Option<Task>,
    /// The dtype of the weights: F32, F16 or BF16.
    pub dtype: DType,
    /// The dtype that the program computes in; by default that of the weights.
    pub compute: Option<DType>,
    /// Whether inputs and outputs that are floats stay F32 whatever the program computes in.
    pub f32_io: bool,
    /// What becomes of weights that do not fit the dtype.
    pub on_overflow: OnOverflow,
    /// Entries for the file `weighbridge.json` in the program, beside those that every export has.
    pub metadata: Vec<(String, String)>,
    /// How the file is written, and whether one that is there may be replaced.
    pub execute: ExecuteOptions<'static>,
}

impl Default for TorchScriptOptions {
    fn default() -> Self {
        Self {
            task: None,
            dtype: DType::F32,
            compute: None,
            f32_io: false,
            on_overflow: OnOverflow::Error,
            metadata: Vec::new(),
            execute: ExecuteOptions::default(),
        }
    }
}

/// What was written.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TorchScriptReport {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What the program computes.
    pub task: Task,
    /// The names of the arguments of `forward`, in order.
    pub inputs: Vec<String>,
    /// What the tensors stand for that it returns: one as it is, more as a tuple.
    pub outputs: Vec<String>,
    /// How many weights the program has.
    pub weights: usize,
    /// What was decided, and what the result cannot do.
    pub notes: Vec<Note>,
}

/// A program over the weights of an export.
pub struct TorchScript<'e> {
    program: script::Program,
    weights: &'e dyn Archive,
    constants: MemoryArchive<'static>,
    /// What its results stand for.
    pub outputs: Vec<String>,
}

impl<'e> TorchScript<'e> {
    /// Traces the graph of an export, which may also be one of the caller's own. `class` is the name of the program's
    /// class.
    ///
    /// # Errors
    /// `Unsupported` for operators that are not known here (graphs of quantized weights have such) and what libtorch
    /// says; `InvalidOptions` for weights whose names no program can have.
    pub fn trace(export: &'e Export<'_>, class: &str) -> Result<Self> {
        let traced = trace::trace(export, class)?;
        let mut program = traced.program;
        let entries = export.model.metadata_props.iter();
        let metadata: serde_json::Map<String, serde_json::Value> = entries
            .filter_map(|entry| Some((entry.key.clone()?, entry.value.clone().unwrap_or_default().into())))
            .collect();
        let about = serde_json::json!({
            "task": export.task.as_str(),
            "inputs": traced.inputs,
            "outputs": traced.outputs,
            "metadata": metadata,
        });
        program.extra.push(("weighbridge.json".into(), about.to_string().into_bytes()));
        Ok(Self { program, weights: &*export.weights, constants: traced.constants, outputs: traced.outputs })
    }

    /// The names of the arguments.
    pub fn inputs(&self) -> &[String] {
        &self.program.arguments
    }

    /// The file to be, laid out to the byte.
    ///
    /// # Errors
    /// As [`script::plan`].
    pub fn plan(&self, options: &WriteOptions) -> Result<WritePlan<'_>> {
        script::plan(&self.program, self.weights, &self.constants, options)
    }
}

/// Writes a model as a TorchScript program. The file is there complete or not at all, and the same each time.
///
/// # Errors
/// As [`crate::export()`] and [`TorchScript::trace`]; `InvalidOptions` for a file that is there without leave to replace
/// it; those of writing.
pub fn export(
    model: &Model,
    options: &TorchScriptOptions,
    path: impl AsRef<Path>,
) -> Result<TorchScriptReport> {
    let path = path.as_ref();
    let name = path.file_name().and_then(|n| n.to_str());
    let name =
        name.ok_or_else(|| Error::invalid_options("the target is no name of a file").with_path(path))?;
    if !options.execute.overwrite && path.symlink_metadata().is_ok() {
        let there = Error::invalid_options("the file is there already").with_path(path);
        return Err(there.with_hint("give leave to replace it, or choose another name"));
    }
    let choices = ExportOptions {
        task: options.task,
        // Later ones have operators for whole layers, which would have to be taken apart again.
        opset: 20,
        dtype: options.dtype,
        compute: options.compute,
        f32_io: options.f32_io,
        on_overflow: options.on_overflow,
        metadata: options.metadata.clone(),
        ..ExportOptions::default()
    };
    let export = crate::export(model, &choices)?;
    let class = model.config().and_then(|c| c.architectures().first().map(|class| (*class).to_owned()));
    let class = class
        .filter(|class| class.bytes().all(|b| b.is_ascii_alphanumeric()))
        .unwrap_or_else(|| "Model".into());
    let traced = TorchScript::trace(&export, &class)?;
    let mut write = WriteOptions::default();
    write.file_name = name.to_owned();
    let plan = traced.plan(&write)?;
    let bytes = plan.files.iter().map(|file| file.len()).sum();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    execute(plan, folder, &options.execute)?;
    // What is said of the other runtime's abilities is no news of this one.
    let notes = export.notes.iter().filter(|note| !note.text.contains("ONNX Runtime")).cloned().collect();
    Ok(TorchScriptReport {
        path: path.to_owned(),
        bytes,
        task: export.task,
        inputs: traced.inputs().to_vec(),
        outputs: traced.outputs.clone(),
        weights: export.weights.tensors().len(),
        notes,
    })
}

/// Loads a TorchScript file **and runs the code in it** on inputs in the order of `forward`'s arguments; returns its
/// tensors.
///
/// libtorch compiles whatever program the file holds, here and now: call this for files that you made, or whose author
/// you trust as you trust the author of a program that you start. Nothing else of this library does so: opening,
/// converting and inspecting a TorchScript file read its weights and its text.
///
/// # Errors
/// `Unsupported` with what libtorch says, and for results that are no tensors or tuples of them.
pub fn load_and_run(path: impl AsRef<Path>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let path = path.as_ref();
    let inputs: Vec<IValue> = inputs.iter().map(|t| IValue::Tensor(t.shallow_clone())).collect();
    let run = CModule::load(path).and_then(|module| tch::no_grad(|| module.forward_is(&inputs)));
    let result = run.map_err(|e| trace::failed("running the program", &e).with_path(path))?;
    let tensors = match result {
        IValue::Tensor(tensor) => vec![IValue::Tensor(tensor)],
        IValue::Tuple(parts) => parts,
        IValue::TensorList(tensors) => tensors.into_iter().map(IValue::Tensor).collect(),
        _ => Vec::new(),
    };
    let count = tensors.len();
    let tensors: Vec<Tensor> =
        tensors.into_iter().filter_map(|v| if let IValue::Tensor(t) = v { Some(t) } else { None }).collect();
    if tensors.is_empty() || tensors.len() != count {
        return Err(Error::unsupported("the program returns something else than tensors").with_path(path));
    }
    Ok(tensors)
}
