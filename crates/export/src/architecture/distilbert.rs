//! DistilBERT (Sanh et al., 2019): BERT's layers under other names, without types and pooler.

use weighbridge_formats::Result;

use super::Context;
use super::bert::positions;
use super::mask::padding;
use super::parts::{Activation, Heads, encoder_attention};
use crate::graph::{GraphBuilder, Value};
use crate::settings::Settings;
use crate::task::Task;

/// The epsilon of every norm, which configs do not state.
const EPSILON: f32 = 1e-12;

/// The numbers of a config.
struct DistilBert {
    dim: u64,
    inner: u64,
    layers: u64,
    heads: Heads,
    vocabulary: u64,
    positions: u64,
    activation: Activation,
}

impl DistilBert {
    fn read(settings: &Settings<'_>) -> Result<Self> {
        let dim = settings.size_or("dim", 768)?;
        let activation = settings.text_if("activation")?.unwrap_or("gelu");
        Ok(Self {
            dim,
            inner: settings.size_or("hidden_dim", 4 * dim)?,
            layers: settings.layers("n_layers")?,
            heads: Heads::of(dim, settings.size("n_heads")?)?,
            vocabulary: settings.size("vocab_size")?,
            positions: settings.size_or("max_position_embeddings", 512)?,
            activation: Activation::of(activation)?,
        })
    }

    fn embeddings(&self, g: &mut GraphBuilder<'_>, at: &str, ids: &Value) -> Result<Value> {
        let name = |part: &str| format!("{at}embeddings.{part}");
        let words = g.embedding(ids, &name("word_embeddings.weight"), self.vocabulary, self.dim)?;
        let places = positions(g, ids)?;
        let places = g.embedding(&places, &name("position_embeddings.weight"), self.positions, self.dim)?;
        let sum = g.add(&words, &places)?;
        g.layer_norm(&sum, &name("LayerNorm"), EPSILON)
    }

    fn layer(&self, g: &mut GraphBuilder<'_>, at: &str, x: &Value, mask: &Value) -> Result<Value> {
        let linear = |g: &mut GraphBuilder<'_>, x: &Value, name: &str, out: u64| {
            let (weight, bias) = (format!("{at}.{name}.weight"), format!("{at}.{name}.bias"));
            g.scoped(name.rsplit('.').next().unwrap_or(name), |g| g.linear(x, &weight, Some(&bias), out))
        };
        let attended = g.scoped("attention", |g| {
            let query = linear(g, x, "attention.q_lin", self.dim)?;
            let key = linear(g, x, "attention.k_lin", self.dim)?;
            let value = linear(g, x, "attention.v_lin", self.dim)?;
            let context = encoder_attention(g, self.heads, [&query, &key, &value], mask)?;
            linear(g, &context, "attention.out_lin", self.dim)
        })?;
        let sum = g.add(&attended, x)?;
        let attended = g.layer_norm(&sum, &format!("{at}.sa_layer_norm"), EPSILON)?;
        let inner = g.scoped("ffn", |g| {
            let inner = linear(g, &attended, "ffn.lin1", self.inner)?;
            let inner = self.activation.apply(g, &inner)?;
            linear(g, &inner, "ffn.lin2", self.dim)
        })?;
        let sum = g.add(&inner, &attended)?;
        g.layer_norm(&sum, &format!("{at}.output_layer_norm"), EPSILON)
    }

    /// The hidden states behind the last layer.
    fn encode(&self, g: &mut GraphBuilder<'_>, at: &str, ids: &Value, tokens: &Value) -> Result<Value> {
        let mask = g.scoped("mask", |g| padding(g, tokens))?;
        let mut x = g.scoped("embeddings", |g| self.embeddings(g, at, ids))?;
        for i in 0..self.layers {
            x = g.scoped("transformer", |g| {
                let name = format!("{at}transformer.layer.{i}");
                g.scoped(format!("layer.{i}"), |g| self.layer(g, &name, &x, &mask))
            })?;
        }
        Ok(x)
    }
}

/// `DistilBertModel` and its heads.
pub(super) fn distilbert(cx: &mut Context<'_, '_>) -> Result<()> {
    let distil = DistilBert::read(cx.settings)?;
    let at = cx.prefix("distilbert", "embeddings.word_embeddings.weight");
    let ids = cx.token_input("input_ids")?;
    let tokens = cx.token_input("attention_mask")?;
    let x = distil.encode(&mut cx.graph, &at, &ids, &tokens)?;
    match cx.task {
        Task::FeatureExtraction => cx.float_output("last_hidden_state", &x),
        Task::SentenceEmbeddings => cx.sentence(&x, &tokens),
        Task::FillMask => {
            let x = cx.linear(&x, "vocab_transform", distil.dim)?;
            let x = distil.activation.apply(&mut cx.graph, &x)?;
            let x = cx.graph.layer_norm(&x, "vocab_layer_norm", EPSILON)?;
            let table = format!("{at}embeddings.word_embeddings.weight");
            let (weight, bias) = (cx.tied("vocab_projector.weight", &table, true)?, "vocab_projector.bias");
            let size = distil.vocabulary;
            let scores = cx.graph.scoped("vocab_projector", |g| g.linear(&x, &weight, Some(bias), size))?;
            cx.float_output("logits", &scores)
        }
        Task::TextClassification => {
            let first = cx.graph.pick(&x, 1, 0)?;
            let dense = cx.linear(&first, "pre_classifier", distil.dim)?;
            let dense = cx.graph.relu(&dense)?;
            cx.token_head(&dense, "classifier")
        }
        Task::TokenClassification => cx.token_head(&x, "classifier"),
        Task::QuestionAnswering => cx.answer_head(&x, "qa_outputs"),
        _ => Err(cx.no_head()),
    }
}
