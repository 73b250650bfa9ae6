//! What an exported graph computes, by the names of transformers' pipelines.

use std::fmt;

use weighbridge_formats::{Error, Result};
use weighbridge_model::Model;

/// What a graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// The last hidden states, and BERT's pooled output where the model has one.
    FeatureExtraction,
    /// One vector a sentence, pooled and normalised as sentence-transformers does.
    SentenceEmbeddings,
    /// Scores of the vocabulary at each place.
    FillMask,
    /// Scores of labels for the whole text.
    TextClassification,
    /// Scores of labels for each token.
    TokenClassification,
    /// Scores of each token to be the first or last of an answer.
    QuestionAnswering,
    /// Scores of the next token.
    TextGeneration,
    /// Scores of the next token, from a cache of keys and values that the graph takes and gives.
    TextGenerationWithPast,
}

impl Task {
    /// Every task.
    pub const ALL: &'static [Self] = &[
        Self::FeatureExtraction,
        Self::SentenceEmbeddings,
        Self::FillMask,
        Self::TextClassification,
        Self::TokenClassification,
        Self::QuestionAnswering,
        Self::TextGeneration,
        Self::TextGenerationWithPast,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FeatureExtraction => "feature-extraction",
            Self::SentenceEmbeddings => "sentence-embeddings",
            Self::FillMask => "fill-mask",
            Self::TextClassification => "text-classification",
            Self::TokenClassification => "token-classification",
            Self::QuestionAnswering => "question-answering",
            Self::TextGeneration => "text-generation",
            Self::TextGenerationWithPast => "text-generation-with-past",
        }
    }

    /// The task of a name.
    ///
    /// # Errors
    /// `InvalidOptions` for a name that is not known, with those that are.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|t| t.as_str() == name).ok_or_else(|| {
            Error::invalid_options(format!("the task {name:?} is not known: known are {}", names(Self::ALL)))
        })
    }

    /// The task of a model: of a sentence-transformers folder sentence-embeddings, else by the class that its config
    /// names, else the hidden states.
    ///
    /// # Errors
    /// `Unsupported` for a class whose head is not known.
    pub fn of(model: &Model) -> Result<Self> {
        if model.files().iter().any(|f| f.name == "modules.json") {
            return Ok(Self::SentenceEmbeddings);
        }
        let Some(config) = model.config() else { return Ok(Self::FeatureExtraction) };
        let Some(class) = config.architectures().first().copied() else { return Ok(Self::FeatureExtraction) };
        const HEADS: &[(&str, Task)] = &[
            ("ForMaskedLM", Task::FillMask),
            ("ForPreTraining", Task::FillMask),
            ("ForSequenceClassification", Task::TextClassification),
            ("ForTokenClassification", Task::TokenClassification),
            ("ForQuestionAnswering", Task::QuestionAnswering),
            ("ForCausalLM", Task::TextGeneration),
            ("LMHeadModel", Task::TextGeneration),
            ("Model", Task::FeatureExtraction),
        ];
        HEADS.iter().find(|(end, _)| class.ends_with(end)).map(|(_, task)| *task).ok_or_else(|| {
            let what = format!("the class {class:?} has a head that is not known");
            Error::unsupported(what).with_hint(format!("choose a task: {}", names(Self::ALL)))
        })
    }
}

/// The names of tasks as a list.
pub(crate) fn names(tasks: &[Task]) -> String {
    tasks.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
