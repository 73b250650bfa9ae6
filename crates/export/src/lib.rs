//! ONNX graphs built from a model's `config.json` and weights: no Python, no tracing, and no weights in memory.
//!
//! [`export`] reads the config of an opened model, builds the graph of its architecture for a [`Task`] with the
//! [`GraphBuilder`](graph::GraphBuilder), and hands out the model and an archive of the weights that it refers to, cast
//! while they are read. [`Export::plan`] lays out the files, which the write engine streams.
//!
//! ```no_run
//! use weighbridge_export::{ExportOptions, export};
//! use weighbridge_formats::{WriteOptions, write::ExecuteOptions};
//! use weighbridge_model::ModelLoader;
//!
//! let model = ModelLoader::new("bert-base").load()?;
//! let export = export(&model, &ExportOptions::default())?;
//! export.write("model.onnx".as_ref(), WriteOptions::default(), &ExecuteOptions::default())?;
//! # Ok::<(), weighbridge_formats::Error>(())
//! ```

mod architecture;
pub mod graph;
mod network;
mod options;
mod quantize;
mod settings;
mod task;
#[cfg(feature = "tch")]
pub mod torchscript;
mod used;

use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use serde_json::Map;
use weighbridge_formats::backends::onnx::plan_model;
use weighbridge_formats::backends::onnx::proto::{ModelProto, StringStringEntryProto};
use weighbridge_formats::transform::{Cast, KeptWide, OnOverflow, Precision, TensorCast};
use weighbridge_formats::write::{ExecuteOptions, WritePlan, Written, execute};
use weighbridge_formats::{Archive, DType, Error, Note, Result, TensorInfo, WriteOptions, logical};
use weighbridge_model::Model;

pub use network::known_layers;
pub use options::ExportOptions;
use quantize::Derived;
pub use quantize::Quantization;
pub use task::Task;

use architecture::Context;
use graph::{GraphBuilder, Value};
use settings::Settings;
use used::Used;

/// The key of the weights' logical hash in the model's metadata.
pub const HASH: &str = "weighbridge.logical_hash";

/// A graph and the weights that it refers to.
pub struct Export<'a> {
    /// The model, whose initializers are constants of the graph; the weights are not among them.
    pub model: ModelProto,
    /// The weights that the graph refers to, under the names that it has them by, cast while they are read.
    pub weights: Box<dyn Archive + 'a>,
    /// What the graph takes, in order.
    pub inputs: Vec<Value>,
    /// What it gives, in order.
    pub outputs: Vec<Value>,
    /// What was decided, and what the result cannot do.
    pub notes: Vec<Note>,
    /// What the graph computes.
    pub task: Task,
    /// The weights that kept their dtype, since they have numbers that do not fit the one that was asked for.
    pub kept_wide: Vec<KeptWide>,
    casts: Arc<Cast<'a>>,
}

impl Export<'_> {
    /// The files to be, laid out to the byte: the model alone where it stays small, else with its weights beside it. The
    /// logical hash of the weights is made in the pass that writes them, and put into the metadata.
    ///
    /// # Errors
    /// As [`plan_model`].
    pub fn plan(&self, options: &WriteOptions) -> Result<WritePlan<'_>> {
        let mut plan = plan_model(&self.model, &*self.weights, options)?;
        // A field at the end of a message joins those of its kind that stand before it.
        let entry = |hash: &logical::Digest| {
            let entry = StringStringEntryProto { key: Some(HASH.into()), value: Some(logical::hex(hash)) };
            ModelProto { metadata_props: vec![entry], ..ModelProto::default() }.encode_to_vec()
        };
        let len = entry(&[0; 32]).len() as u64;
        logical::push_logical_hash(&mut plan, &*self.weights, len, entry)?;
        Ok(plan)
    }

    /// Writes the model to a file, or as `model.onnx` into a folder that is there, complete or not at all.
    ///
    /// # Errors
    /// `InvalidOptions` for a path without a file name; as [`Export::plan`] and [`execute`].
    pub fn write(&self, path: &Path, mut options: WriteOptions, how: &ExecuteOptions<'_>) -> Result<Written> {
        let whole = if path.is_dir() { path.join("model.onnx") } else { path.to_owned() };
        let Some(name) = whole.file_name().and_then(|n| n.to_str()) else {
            return Err(Error::invalid_options("the target's name is no text").with_path(path));
        };
        name.clone_into(&mut options.file_name);
        execute(self.plan(&options)?, whole.parent().unwrap_or(Path::new("")), how)
    }

    /// What the casts met so far: complete when a plan has been executed.
    pub fn cast_report(&self) -> Vec<TensorCast> {
        self.casts.report()
    }
}

/// Builds the graph of a model for a task.
///
/// # Errors
/// `Unsupported` for an architecture, task or option of the config that is not known, with those that are; `NotFound`
/// and `Mismatch` where a weight is missing or has another shape than the config says; `InvalidOptions` for options
/// that contradict each other.
pub fn export<'a>(model: &'a Model, options: &ExportOptions) -> Result<Export<'a>> {
    let config = model.config().ok_or_else(|| {
        let missing = Error::not_found("a graph is built from the config, and there is no config.json");
        missing.with_path(model.path()).with_hint("export a model's folder, with its config.json")
    })?;
    let settings = Settings::new(config.fields());
    let task = match options.task {
        Some(task) => task,
        None => Task::of(model)?,
    };
    options.check(task)?;
    let name = config.model_type().unwrap_or("model");
    if name == network::MODEL_TYPE {
        return export_layers(model.weights(), config.fields(), options);
    }
    assemble(model.weights(), name, options, task, |mut graph, notes| {
        for tie in model.ties() {
            graph.alias(&*tie.alias, &*tie.tensor);
        }
        let mut context = Context { graph, settings: &settings, options, task, notes, model };
        context.state_metadata()?;
        architecture::build(&mut context)?;
        Ok((context.graph, context.notes))
    })
}

/// Builds the graph of a program's own network: a plain list of layers with their weights.
///
/// The config has `inputs` (a name, a shape of numbers and names, and `"dtype": "int"` for indices), `layers`, and
/// `outputs` where they are not the last layer's alone, which is called `output`. Layers are torch's modules by their
/// names and arguments; a layer's `name` is that of its weights.
///
/// ```
/// use weighbridge_export::{ExportOptions, export_layers};
/// use weighbridge_formats::{DType, Data, MemoryArchive, Tensor};
///
/// let weight = Tensor::new("fc.weight", DType::F32, [3, 2].as_slice(), Data::Borrowed(&[0; 24]))?;
/// let bias = Tensor::new("fc.bias", DType::F32, [3].as_slice(), Data::Borrowed(&[0; 12]))?;
/// let weights = MemoryArchive::new([weight, bias])?;
/// let config = serde_json::json!({
///     "inputs": [{ "name": "x", "shape": ["batch", 2] }],
///     "layers": [{ "type": "Linear", "name": "fc" }, { "type": "ReLU" }, { "type": "Softmax", "dim": -1 }],
/// });
/// let export = export_layers(&weights, config.as_object().unwrap(), &ExportOptions::default())?;
/// assert_eq!(export.outputs[0].describe(), "[batch, 3] of F32");
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
///
/// # Errors
/// `Unsupported` for a layer or an argument that is not known, with those that are; `Malformed` for a config that is
/// wrong; as [`export`].
pub fn export_layers<'a>(
    weights: &'a dyn Archive,
    config: &Map<String, serde_json::Value>,
    options: &ExportOptions,
) -> Result<Export<'a>> {
    let settings = network::fields(config)?;
    let task = Task::FeatureExtraction;
    if options.task.is_some_and(|t| t != task)
        || options.batch_size.is_some()
        || options.sequence_length.is_some()
    {
        let what = "a list of layers has no task, and its sizes stand in its config";
        return Err(Error::invalid_options(what));
    }
    options.check(task)?;
    assemble(weights, network::MODEL_TYPE, options, task, |mut graph, notes| {
        graph.metadata("weighbridge.version", env!("CARGO_PKG_VERSION"));
        graph.metadata("weighbridge.model_type", network::MODEL_TYPE);
        for (key, value) in &options.metadata {
            graph.metadata(key, value);
        }
        network::build(&mut graph, &settings, options.io())?;
        Ok((graph, notes))
    })
}

/// Casts the weights, has a graph built over them, and puts together what is left of both.
fn assemble<'a>(
    weights: &'a dyn Archive,
    name: &str,
    options: &ExportOptions,
    task: Task,
    build: impl for<'g> FnOnce(GraphBuilder<'g>, Vec<Note>) -> Result<(GraphBuilder<'g>, Vec<Note>)>,
) -> Result<Export<'a>> {
    let precision = Precision::to(options.dtype).on_overflow(options.on_overflow);
    let (casts, kept_wide) = precision.apply(Box::new(weights), None)?;
    let casts = Arc::new(casts);
    let mut notes = options.notes();
    for kept in &kept_wide {
        let (name, dtype) = (&kept.name, kept.dtype);
        let what =
            format!("{name} stays {dtype}: {} of its numbers do not fit {}", kept.overflow, options.dtype);
        notes.push(Note::changed(what));
    }
    if options.on_overflow == OnOverflow::Error && options.dtype != DType::F32 {
        notes.push(Note::info("a weight that does not fit ends the export when it is reached"));
    }
    let mut graph = GraphBuilder::new(&*casts, options.opset, options.compute())?;
    if let Some(quantization) = options.quantize {
        graph.quantize(quantization)?;
        graph.metadata("weighbridge.quantization", quantization.to_string());
    }
    let (mut graph, mut notes) = build(graph, notes)?;
    if let Some(quantization) = options.quantize {
        let what = format!("{} weights of linear layers are {quantization}", graph.quantized());
        notes.push(Note::changed(what));
    }
    let derived = graph.take_derived();
    let used: Vec<usize> = graph.used_weights().collect();
    notes.extend(unused(weights, &graph, &derived));
    let (inputs, outputs) = graph.signature();
    let model = graph.finish(name)?;
    let weights = Box::new(Used::new(casts.clone(), used, derived));
    Ok(Export { model, weights, inputs, outputs, notes, task, kept_wide, casts })
}

/// What of the weights is not part of a graph: heads of other tasks, and buffers that the graph computes itself.
fn unused(weights: &dyn Archive, graph: &GraphBuilder<'_>, derived: &[Derived]) -> Option<Note> {
    const LISTED: usize = 4;
    let left = graph.unused_weights().filter(|i| derived.iter().all(|d| d.source != *i));
    let unused: Vec<&str> = left.filter_map(|i| weights.tensors().get(i)).map(TensorInfo::name).collect();
    let (first, count) = (unused.iter().take(LISTED).copied().collect::<Vec<_>>().join(", "), unused.len());
    let more = if count > LISTED { format!(" and {} more", count - LISTED) } else { String::new() };
    (count > 0).then(|| Note::info(format!("not part of this graph: {first}{more}")))
}

/// The values of `model_type` that are known.
pub fn known_architectures() -> impl Iterator<Item = &'static str> {
    architecture::KNOWN.iter().map(|k| k.0).chain([network::MODEL_TYPE])
}
