//! Architectures: a family a file, from the config's numbers to a graph. What they share is in `parts`, `mask` and
//! `heads`.

mod bert;
mod decoder;
mod distilbert;
mod gpt2;
mod heads;
mod llama;
mod mask;
mod parts;
mod pooling;
mod rope;

pub(crate) use parts::Activation;

use weighbridge_formats::{DType, Error, Note, Result};
use weighbridge_model::Model;

use crate::graph::{GraphBuilder, Value};
use crate::options::ExportOptions;
use crate::settings::Settings;
use crate::task::{Task, names};

/// What an architecture is built by.
type Build = fn(&mut Context<'_, '_>) -> Result<()>;

const ENCODER: &[Task] = &[
    Task::FeatureExtraction,
    Task::SentenceEmbeddings,
    Task::FillMask,
    Task::TextClassification,
    Task::TokenClassification,
    Task::QuestionAnswering,
];

/// Every value of `model_type` that is known, with its tasks.
pub(crate) const KNOWN: &[(&str, &[Task], Build)] = &[
    ("bert", ENCODER, bert::bert),
    ("roberta", ENCODER, bert::roberta),
    ("xlm-roberta", ENCODER, bert::roberta),
    ("camembert", ENCODER, bert::roberta),
    ("distilbert", ENCODER, distilbert::distilbert),
    ("gpt2", decoder::TASKS, gpt2::gpt2),
    ("llama", decoder::TASKS, llama::llama),
    ("mistral", decoder::TASKS, llama::mistral),
    ("qwen2", decoder::TASKS, llama::qwen2),
];

/// An export in the making.
pub(crate) struct Context<'a, 'c> {
    pub(crate) graph: GraphBuilder<'a>,
    pub(crate) settings: &'c Settings<'c>,
    pub(crate) options: &'c ExportOptions,
    pub(crate) task: Task,
    pub(crate) notes: Vec<Note>,
    pub(crate) model: &'c Model,
}

impl Context<'_, '_> {
    /// The metadata that every export has.
    pub(crate) fn state_metadata(&mut self) -> Result<()> {
        let family = self.settings.text_if("model_type")?.unwrap_or_default().to_owned();
        let source = self.model.path().file_name().map(|n| n.to_string_lossy().into_owned());
        self.graph.metadata("weighbridge.version", env!("CARGO_PKG_VERSION"));
        self.graph.metadata("weighbridge.model_type", family);
        if let Some(class) = self.settings.texts_if("architectures")?.and_then(|c| c.first().copied()) {
            self.graph.metadata("weighbridge.architecture", class);
        }
        self.graph.metadata("weighbridge.task", self.task.as_str());
        self.graph.metadata("weighbridge.source", source.unwrap_or_default());
        self.graph.metadata("weighbridge.source_format", self.model.weights().format());
        for (key, value) in &self.options.metadata {
            self.graph.metadata(key, value);
        }
        Ok(())
    }

    /// Builds a part under a name, as [`GraphBuilder::scoped`] does.
    pub(crate) fn scoped<T>(
        &mut self,
        name: impl Into<String>,
        part: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.graph.enter(name);
        let result = part(self);
        self.graph.leave();
        result
    }

    /// The prefix of the encoder's or decoder's weights: a class with a head has them below a name of their own, the
    /// bare model has not. `probe` is a weight that every model of the family has.
    pub(crate) fn prefix(&self, name: &str, probe: &str) -> String {
        let nested = format!("{name}.");
        if self.graph.has_weight(&format!("{nested}{probe}")) { nested } else { String::new() }
    }

    /// An input of token ids or the like: `[batch, sequence]` of I64.
    pub(crate) fn token_input(&mut self, name: &str) -> Result<Value> {
        let shape = [self.options.batch(), self.options.sequence()];
        self.graph.input(name, DType::I64, &shape)
    }

    /// Makes a value an output, in the dtype that outputs have.
    pub(crate) fn float_output(&mut self, name: &str, value: &Value) -> Result<()> {
        let value = self.graph.cast(value, self.options.io())?;
        self.graph.output(name, &value)
    }

    /// The error for a task that an architecture has no head for.
    pub(crate) fn no_head(&self) -> Error {
        let family = self.settings.text_if("model_type").ok().flatten().unwrap_or_default();
        Error::unsupported(format!("{family} has no head for {}", self.task))
    }
}

/// Builds the graph of the config's architecture.
pub(crate) fn build(context: &mut Context<'_, '_>) -> Result<()> {
    let known = || KNOWN.iter().map(|k| k.0).collect::<Vec<_>>().join(", ");
    let Some(family) = context.settings.text_if("model_type")? else {
        return Err(Error::malformed(format!("the config has no \"model_type\"; known are {}", known())));
    };
    let Some((_, tasks, build)) = KNOWN.iter().find(|k| k.0 == family) else {
        return Err(Error::unsupported(format!(
            "the architecture {family:?} is not known: known are {}",
            known()
        )));
    };
    if !tasks.contains(&context.task) {
        let what = format!("{family} has no head for {}: known are {}", context.task, names(tasks));
        return Err(Error::unsupported(what));
    }
    build(context)
}
