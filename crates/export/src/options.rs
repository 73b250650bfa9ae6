//! Choices for an export.

use weighbridge_formats::transform::OnOverflow;
use weighbridge_formats::{DType, Error, Note, Result};

use crate::graph::Dim;
use crate::quantize::Quantization;
use crate::task::Task;

/// Choices for an [`export`](crate::export()).
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// What the graph computes. By default what the class in the config's `architectures` does.
    pub task: Option<Task>,
    /// The operator set: 17 to 26.
    pub opset: u32,
    /// The dtype of the weights: F32, F16 or BF16.
    pub dtype: DType,
    /// The dtype that the graph computes in; by default that of the weights. With F32 and narrower weights the file is
    /// small, and the runtime widens them when it loads it.
    pub compute: Option<DType>,
    /// Whether inputs and outputs that are floats stay F32 whatever the graph computes in.
    pub f32_io: bool,
    /// What becomes of weights that do not fit the dtype.
    pub on_overflow: OnOverflow,
    /// How the weights of linear layers are quantized; not at all where it is `None`.
    pub quantize: Option<Quantization>,
    /// A fixed number of sequences in a batch; any where it is `None`.
    pub batch_size: Option<u64>,
    /// A fixed number of tokens in a sequence; any where it is `None`.
    pub sequence_length: Option<u64>,
    /// A fixed number of tokens in the cache; any where it is `None`.
    pub past_sequence_length: Option<u64>,
    /// Entries for the model's metadata, beside those that every export has.
    pub metadata: Vec<(String, String)>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            task: None,
            opset: 20,
            dtype: DType::F32,
            compute: None,
            f32_io: false,
            on_overflow: OnOverflow::Error,
            quantize: None,
            batch_size: None,
            sequence_length: None,
            past_sequence_length: None,
            metadata: Vec::new(),
        }
    }
}

impl ExportOptions {
    /// The dtype that the graph computes in.
    pub fn compute(&self) -> DType {
        self.compute.unwrap_or(self.dtype)
    }

    /// The dtype of inputs and outputs that are floats.
    pub(crate) fn io(&self) -> DType {
        if self.f32_io { DType::F32 } else { self.compute() }
    }

    /// The size of the batch.
    pub(crate) fn batch(&self) -> Dim {
        self.batch_size.map_or("batch_size".into(), Dim::Fixed)
    }

    /// The number of new tokens.
    pub(crate) fn sequence(&self) -> Dim {
        self.sequence_length.map_or("sequence_length".into(), Dim::Fixed)
    }

    /// The number of tokens in the cache.
    pub(crate) fn past(&self) -> Dim {
        self.past_sequence_length.map_or("past_sequence_length".into(), Dim::Fixed)
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self, task: Task) -> Result<()> {
        for (name, dtype) in [("weights", self.dtype), ("computation", self.compute())] {
            if !matches!(dtype, DType::F32 | DType::F16 | DType::Bf16) {
                let what = format!("{dtype} for the {name}: known are F32, F16 and BF16");
                return Err(Error::invalid_options(what));
            }
        }
        for (name, size) in [("batch size", self.batch_size), ("sequence length", self.sequence_length)] {
            if size == Some(0) {
                return Err(Error::invalid_options(format!("a fixed {name} of 0")));
            }
        }
        if self.past_sequence_length.is_some() && task != Task::TextGenerationWithPast {
            let what = format!("a fixed length of the cache, and {task} has none");
            return Err(Error::invalid_options(what));
        }
        Ok(())
    }

    /// What is worth knowing of these choices.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.compute() == DType::Bf16 {
            let what = "the graph computes in BF16, which ONNX Runtime's CPU provider (1.31) has no matrix product for";
            notes.push(Note::warning(what));
        }
        notes
    }
}
