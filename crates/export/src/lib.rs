//! ONNX graphs built from a model's `config.json` and weights: no Python, no tracing, and no weights in memory.
//!
//! [`export`] reads the config of an opened model, builds the graph of its architecture for a [`Task`] with the
//! [`GraphBuilder`](graph::GraphBuilder), and hands out the model and an archive of the weights that it refers to, cast
//! while they are read. [`Export::plan`] lays out the files, which the write engine streams.
//!
//! ```no_run
//! use weighbridge_export::{ExportOptions, export};
//! use weighbridge_formats::{WriteOptions, write};
//! use weighbridge_model::ModelLoader;
//!
//! let model = ModelLoader::new("bert-base").load()?;
//! let export = export(&model, &ExportOptions::default())?;
//! let mut options = WriteOptions::default();
//! options.file_name = "model.onnx".into();
//! write::execute(export.plan(&options)?, std::path::Path::new("."), &write::ExecuteOptions::default())?;
//! # Ok::<(), weighbridge_formats::Error>(())
//! ```

mod architecture;
pub mod graph;
mod options;
mod settings;
mod task;
mod used;

use std::sync::Arc;

use weighbridge_formats::backends::onnx::{plan_model, proto::ModelProto};
use weighbridge_formats::transform::{Cast, KeptWide, OnOverflow, Precision, TensorCast};
use weighbridge_formats::write::WritePlan;
use weighbridge_formats::{Archive, DType, Error, Note, Result, WriteOptions};
use weighbridge_model::Model;

pub use options::ExportOptions;
pub use task::Task;

use architecture::Context;
use graph::GraphBuilder;
use settings::Settings;
use used::Used;

/// A graph and the weights that it refers to.
pub struct Export<'a> {
    /// The model, whose initializers are constants of the graph; the weights are not among them.
    pub model: ModelProto,
    /// The weights that the graph refers to, under the names that it has them by, cast while they are read.
    pub weights: Box<dyn Archive + 'a>,
    /// What was decided, and what the result cannot do.
    pub notes: Vec<Note>,
    /// What the graph computes.
    pub task: Task,
    /// The weights that kept their dtype, since they have numbers that do not fit the one that was asked for.
    pub kept_wide: Vec<KeptWide>,
    casts: Arc<Cast<'a>>,
}

impl Export<'_> {
    /// The files to be, laid out to the byte: the model alone where it stays small, else with its weights beside it.
    ///
    /// # Errors
    /// As [`plan_model`].
    pub fn plan(&self, options: &WriteOptions) -> Result<WritePlan<'_>> {
        plan_model(&self.model, &*self.weights, options)
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
    let precision = Precision::to(options.dtype).on_overflow(options.on_overflow);
    let (casts, kept_wide) = precision.apply(Box::new(model.weights()), None)?;
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
    for tie in model.ties() {
        graph.alias(&*tie.alias, &*tie.tensor);
    }
    let mut context = Context { graph, settings: &settings, options, task, notes, model };
    context.state_metadata()?;
    architecture::build(&mut context)?;
    let Context { graph, notes, .. } = context;
    let used: Vec<usize> = graph.used_weights().collect();
    let name = config.model_type().unwrap_or("model").to_owned();
    let model = graph.finish(&name)?;
    let weights = Box::new(Used::new(casts.clone(), used));
    Ok(Export { model, weights, notes, task, kept_wide, casts })
}

/// The values of `model_type` that are known.
pub fn known_architectures() -> impl Iterator<Item = &'static str> {
    architecture::KNOWN.iter().map(|k| k.0)
}
