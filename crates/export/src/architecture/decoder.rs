//! What decoders share: inputs with or without a cache, causal masks, and heads over the last token.

use weighbridge_formats::{DType, Error, Note, Result};

use super::Context;
use super::mask::masked;
use crate::graph::{AttentionHeads, Dim, GraphBuilder, Value};
use crate::task::Task;

/// The tasks of decoders.
pub(super) const TASKS: &[Task] = &[
    Task::FeatureExtraction,
    Task::SentenceEmbeddings,
    Task::TextClassification,
    Task::TokenClassification,
    Task::QuestionAnswering,
    Task::TextGeneration,
    Task::TextGenerationWithPast,
];

/// The inputs of a decoder.
pub(super) struct Decoder {
    /// New tokens: `[batch, sequence]`.
    pub(super) ids: Value,
    /// Which tokens count, those of the cache first: `[batch, past + sequence]`.
    pub(super) tokens: Value,
    /// The places of the new tokens: `[batch, sequence]`, or `[1, sequence]` where they are the same for each row.
    pub(super) positions: Value,
    /// Keys and values of earlier tokens, by layer: `[batch, heads, past, size]`.
    past: Vec<[Value; 2]>,
    /// The indices of the new tokens and of all, for masks: `[sequence, 1]` and `[past + sequence]`.
    indices: [Value; 2],
    /// Whether each token counts: `[batch, 1, 1, past + sequence]`.
    counts: Value,
}

impl Decoder {
    /// The inputs of a task, for keys and values of so many layers and heads.
    pub(super) fn new(cx: &mut Context<'_, '_>, layers: u64, heads: u64, size: u64) -> Result<Self> {
        let (batch, sequence) = (cx.options.batch(), cx.options.sequence());
        let with_past = cx.task == Task::TextGenerationWithPast;
        let total = if with_past { cx.options.past().plus(&sequence) } else { sequence.clone() };
        let ids = cx.token_input("input_ids")?;
        let tokens = cx.graph.input("attention_mask", DType::I64, &[batch.clone(), total.clone()])?;
        let given = matches!(cx.task, Task::TextGeneration | Task::TextGenerationWithPast);
        let positions = if given { Some(cx.token_input("position_ids")?) } else { None };
        let mut past = Vec::new();
        if with_past {
            let shape = [batch, heads.into(), cx.options.past(), size.into()];
            for i in 0..layers {
                let key = cx.graph.input(&format!("past_key_values.{i}.key"), cx.options.io(), &shape)?;
                let value = cx.graph.input(&format!("past_key_values.{i}.value"), cx.options.io(), &shape)?;
                past.push([key, value]);
            }
        }
        let g = &mut cx.graph;
        let (queries, keys, counts) = g.scoped("mask", |g| {
            let all = g.size(&tokens, 1)?;
            let all = g.squeeze(&all, 0)?;
            let zero = g.int(0);
            let keys = g.range(&zero, &all, total.clone())?;
            let queries = if with_past {
                let new = g.size(&ids, 1)?;
                let new = g.squeeze(&new, 0)?;
                let from = g.sub(&all, &new)?;
                g.range(&from, &all, sequence.clone())?
            } else {
                keys.clone()
            };
            let counts = g.cast(&tokens, DType::Bool)?;
            let counts = g.unsqueeze(&counts, &[1, 2])?;
            Ok((queries, keys, counts))
        })?;
        let positions = match positions {
            Some(positions) => positions,
            None if !g.has_attention() => g.unsqueeze(&queries, &[0])?,
            // The same for each row, and rotary embeddings as an operator want them for each.
            None => {
                let places = g.unsqueeze(&queries, &[0])?;
                let (rows, columns) = (g.size(&ids, 0)?, g.size(&ids, 1)?);
                let shape = g.concat(&[&rows, &columns], 0)?;
                g.expand(&places, &shape, ids.shape())?
            }
        };
        let queries = g.unsqueeze(&queries, &[1])?;
        Ok(Self { ids, tokens, positions, past, indices: [queries, keys], counts })
    }

    /// What is added to scores, `[batch, 1, sequence, past + sequence]`: a token sees itself and those before it, no
    /// more than `window` of them, and no padding.
    pub(super) fn causal(&self, g: &mut GraphBuilder<'_>, window: Option<u64>) -> Result<Value> {
        let [queries, keys] = &self.indices;
        let mut seen = g.less_or_equal(keys, queries)?;
        if let Some(window) = window {
            let window = g.int(i64::try_from(window).unwrap_or(i64::MAX));
            let first = g.sub(queries, &window)?;
            let near = g.greater(keys, &first)?;
            seen = g.and(&seen, &near)?;
        }
        let seen = g.and(&self.counts, &seen)?;
        let dtype = g.compute();
        let (yes, no) = (g.float(dtype, 0.0)?, g.float(dtype, masked(dtype))?);
        g.select(&seen, &yes, &no)
    }

    /// Attention as one operator, from projected queries, keys and values `[batch, sequence, heads · size]`.
    pub(super) fn attention(
        &self,
        cx: &mut Context<'_, '_>,
        layer: u64,
        parts: [&Value; 3],
        mask: &Value,
        heads: &AttentionHeads,
    ) -> Result<Value> {
        let compute = cx.graph.compute();
        let past = match self.past.get(layer as usize) {
            Some([key, value]) => Some([cx.graph.cast(key, compute)?, cx.graph.cast(value, compute)?]),
            None => None,
        };
        let (context, present) = cx.graph.attention(parts, mask, past.as_ref(), heads)?;
        if let Some([key, value]) = present {
            cx.float_output(&format!("present.{layer}.key"), &key)?;
            cx.float_output(&format!("present.{layer}.value"), &value)?;
        }
        Ok(context)
    }

    /// Keys and values with those of the cache before them, which also become outputs. All are
    /// `[batch, heads, tokens, size]`.
    pub(super) fn remember(
        &self,
        cx: &mut Context<'_, '_>,
        layer: u64,
        [key, value]: [Value; 2],
    ) -> Result<[Value; 2]> {
        let Some([past_key, past_value]) = self.past.get(layer as usize) else { return Ok([key, value]) };
        let compute = cx.graph.compute();
        let mut whole = Vec::with_capacity(2);
        for (name, past, new) in [("key", past_key, &key), ("value", past_value, &value)] {
            let past = cx.graph.cast(past, compute)?;
            let joined = cx.graph.concat(&[&past, new], 2)?;
            cx.float_output(&format!("present.{layer}.{name}"), &joined)?;
            whole.push(joined);
        }
        match <[Value; 2]>::try_from(whole) {
            Ok(whole) => Ok(whole),
            Err(_) => Err(cx.graph.error("a cache without keys or values")),
        }
    }
}

impl Context<'_, '_> {
    /// Scores of labels for the last token that is no padding, by a layer without bias.
    pub(super) fn last_token_head(&mut self, hidden: &Value, ids: &Value, name: &str) -> Result<()> {
        let labels = self.settings.labels()?;
        let last = match self.settings.index_if("pad_token_id")? {
            Some(padding) => {
                let g = &mut self.graph;
                let padding = g.int(padding as i64);
                let same = g.equal(ids, &padding)?;
                let counts = g.not(&same)?;
                let last = last_place(g, &counts)?;
                g.pick_by_row(hidden, &last)?
            }
            None => {
                let what =
                    "the config has no pad_token_id: the last token of each row is classified, padded or not";
                self.notes.push(Note::warning(what));
                self.graph.pick(hidden, 1, -1)?
            }
        };
        let weight = format!("{name}.weight");
        let logits = self.graph.scoped(name, |g| g.linear(&last, &weight, None, labels))?;
        self.float_output("logits", &logits)
    }

    /// Scores of the vocabulary by `lm_head`, or by the embeddings where the config ties them.
    pub(super) fn vocabulary_head(
        &mut self,
        hidden: &Value,
        embeddings: &str,
        tied: bool,
        vocabulary: u64,
    ) -> Result<()> {
        let weight = self.tied("lm_head.weight", embeddings, tied)?;
        let logits = self.graph.scoped("lm_head", |g| g.linear(hidden, &weight, None, vocabulary))?;
        self.float_output("logits", &logits)
    }

    /// The name of a weight that may stand under another's.
    pub(super) fn tied(&self, name: &str, tensor: &str, default: bool) -> Result<String> {
        if self.graph.has_weight(name) {
            return Ok(name.to_owned());
        }
        if self.settings.flag_or("tie_word_embeddings", default)? {
            return Ok(tensor.to_owned());
        }
        let what = format!("the weights have no tensor of this name, which {} needs", self.task);
        Err(Error::not_found(what).with_tensor(name))
    }
}

/// The index of the last place that is true in each row, 0 where none is: from `[batch, sequence]` to `[batch, 1]`.
pub(super) fn last_place(g: &mut GraphBuilder<'_>, counts: &Value) -> Result<Value> {
    let counts = g.cast(counts, DType::I64)?;
    let (size, from) = (g.size(&counts, 1)?, g.int(0));
    let to = g.squeeze(&size, 0)?;
    let sequence: Dim = counts.shape()[1].clone();
    let places = g.range(&from, &to, sequence)?;
    let places = g.mul(&counts, &places)?;
    g.reduce_max(&places, &[1], true)
}
