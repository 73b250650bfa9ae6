//! BERT (Devlin et al., 2018), and RoBERTa, XLM-R and CamemBERT, which share its layers.

use weighbridge_formats::{DType, Result};

use super::Context;
use super::mask::padding;
use super::parts::{Activation, Heads, encoder_attention};
use crate::graph::{GraphBuilder, Value};
use crate::settings::Settings;
use crate::task::Task;

/// The numbers of a config.
struct Bert {
    hidden: u64,
    inner: u64,
    layers: u64,
    heads: Heads,
    vocabulary: u64,
    positions: u64,
    types: u64,
    epsilon: f32,
    activation: Activation,
    /// RoBERTa's: positions count tokens that are no padding, from behind this id.
    padding: Option<u64>,
}

impl Bert {
    fn read(settings: &Settings<'_>, roberta: bool) -> Result<Self> {
        settings.word("position_embedding_type", "absolute", &["absolute"])?;
        settings.never("add_cross_attention")?;
        settings.never("is_decoder")?;
        let hidden = settings.size("hidden_size")?;
        let pad = settings.index_if("pad_token_id")?.unwrap_or(1);
        Ok(Self {
            hidden,
            inner: settings.size("intermediate_size")?,
            layers: settings.layers("num_hidden_layers")?,
            heads: Heads::of(hidden, settings.size("num_attention_heads")?)?,
            vocabulary: settings.size("vocab_size")?,
            positions: settings.size("max_position_embeddings")?,
            types: settings.size_or("type_vocab_size", 2)?,
            epsilon: settings.float_or("layer_norm_eps", 1e-12)? as f32,
            activation: Activation::of(settings.text_if("hidden_act")?.unwrap_or("gelu"))?,
            padding: roberta.then_some(pad),
        })
    }

    /// Word, type and position embeddings, summed and normalised.
    fn embeddings(
        &self,
        g: &mut GraphBuilder<'_>,
        at: &str,
        ids: &Value,
        types: Option<&Value>,
    ) -> Result<Value> {
        let name = |part: &str| format!("{at}embeddings.{part}");
        let words = g.embedding(ids, &name("word_embeddings.weight"), self.vocabulary, self.hidden)?;
        let types = match types {
            Some(types) => {
                g.embedding(types, &name("token_type_embeddings.weight"), self.types, self.hidden)?
            }
            // Without the input every token is of type 0.
            None => {
                let zero = g.int(0);
                g.embedding(&zero, &name("token_type_embeddings.weight"), self.types, self.hidden)?
            }
        };
        let positions = match self.padding {
            None => positions(g, ids)?,
            Some(padding) => positions_behind(g, ids, padding)?,
        };
        let table = name("position_embeddings.weight");
        let positions = g.embedding(&positions, &table, self.positions, self.hidden)?;
        let sum = g.add(&words, &types)?;
        let sum = g.add(&sum, &positions)?;
        g.layer_norm(&sum, &name("LayerNorm"), self.epsilon)
    }

    /// Self-attention, a feed-forward part, and a norm behind each.
    fn layer(&self, g: &mut GraphBuilder<'_>, at: &str, x: &Value, mask: &Value) -> Result<Value> {
        let (hidden, epsilon) = (self.hidden, self.epsilon);
        let linear = |g: &mut GraphBuilder<'_>, x: &Value, name: &str, out: u64| {
            let (weight, bias) = (format!("{at}.{name}.weight"), format!("{at}.{name}.bias"));
            g.scoped(name.rsplit('.').next().unwrap_or(name), |g| g.linear(x, &weight, Some(&bias), out))
        };
        let attended = g.scoped("attention", |g| {
            let query = linear(g, x, "attention.self.query", hidden)?;
            let key = linear(g, x, "attention.self.key", hidden)?;
            let value = linear(g, x, "attention.self.value", hidden)?;
            let context = encoder_attention(g, self.heads, [&query, &key, &value], mask)?;
            let out = linear(g, &context, "attention.output.dense", hidden)?;
            let sum = g.add(&out, x)?;
            g.layer_norm(&sum, &format!("{at}.attention.output.LayerNorm"), epsilon)
        })?;
        let inner = g.scoped("intermediate", |g| {
            let inner = linear(g, &attended, "intermediate.dense", self.inner)?;
            self.activation.apply(g, &inner)
        })?;
        g.scoped("output", |g| {
            let out = linear(g, &inner, "output.dense", hidden)?;
            let sum = g.add(&out, &attended)?;
            g.layer_norm(&sum, &format!("{at}.output.LayerNorm"), epsilon)
        })
    }

    /// The hidden states behind the last layer.
    fn encode(&self, cx: &mut Context<'_, '_>, at: &str, tokens: &Tokens) -> Result<Value> {
        let g = &mut cx.graph;
        let mask = g.scoped("mask", |g| padding(g, &tokens.mask))?;
        let mut x = g.scoped("embeddings", |g| self.embeddings(g, at, &tokens.ids, tokens.types.as_ref()))?;
        for i in 0..self.layers {
            x = g.scoped("encoder", |g| {
                g.scoped(format!("layer.{i}"), |g| {
                    self.layer(g, &format!("{at}encoder.layer.{i}"), &x, &mask)
                })
            })?;
        }
        Ok(x)
    }

    /// The first token's state behind a linear layer and a hyperbolic tangent.
    fn pooled(&self, cx: &mut Context<'_, '_>, at: &str, x: &Value) -> Result<Value> {
        cx.graph.scoped("pooler", |g| {
            let first = g.pick(x, 1, 0)?;
            let (weight, bias) = (format!("{at}pooler.dense.weight"), format!("{at}pooler.dense.bias"));
            let dense = g.linear(&first, &weight, Some(&bias), self.hidden)?;
            g.tanh(&dense)
        })
    }

    /// The hidden states as output, and what the pooler makes of them where there is one.
    fn features(&self, cx: &mut Context<'_, '_>, at: &str, x: &Value) -> Result<()> {
        cx.float_output("last_hidden_state", x)?;
        if cx.graph.has_weight(&format!("{at}pooler.dense.weight")) {
            let pooled = self.pooled(cx, at, x)?;
            cx.float_output("pooler_output", &pooled)?;
        }
        Ok(())
    }

    /// A linear layer, activation and norm, then the vocabulary's scores by a table that is tied to the embeddings.
    fn language_head(
        &self,
        cx: &mut Context<'_, '_>,
        at: &str,
        x: &Value,
        [dense, norm, decoder, bias]: [&str; 4],
        activation: Activation,
    ) -> Result<()> {
        let x = cx.linear(x, dense, self.hidden)?;
        let x = activation.apply(&mut cx.graph, &x)?;
        let x = cx.graph.layer_norm(&x, norm, self.epsilon)?;
        let table = format!("{at}embeddings.word_embeddings.weight");
        let weight = cx.tied(&format!("{decoder}.weight"), &table, true)?;
        // A bias that is tied to the decoder's goes by the head's name, else it is the decoder's own.
        let own = format!("{decoder}.bias");
        let tied = cx.settings.flag_or("tie_word_embeddings", true)?;
        let first_is_own = !tied && cx.graph.has_weight(&own);
        let bias = if first_is_own || !cx.graph.has_weight(bias) { &own } else { bias };
        let scores = cx.graph.scoped("decoder", |g| g.linear(&x, &weight, Some(bias), self.vocabulary))?;
        cx.float_output("logits", &scores)
    }
}

/// The inputs.
struct Tokens {
    ids: Value,
    mask: Value,
    types: Option<Value>,
}

/// `BertModel` and its heads.
pub(super) fn bert(cx: &mut Context<'_, '_>) -> Result<()> {
    let bert = Bert::read(cx.settings, false)?;
    let at = cx.prefix("bert", "embeddings.word_embeddings.weight");
    let tokens = Tokens {
        ids: cx.token_input("input_ids")?,
        mask: cx.token_input("attention_mask")?,
        types: Some(cx.token_input("token_type_ids")?),
    };
    let x = bert.encode(cx, &at, &tokens)?;
    match cx.task {
        Task::FeatureExtraction => bert.features(cx, &at, &x),
        Task::SentenceEmbeddings => cx.sentence(&x, &tokens.mask),
        Task::FillMask => {
            let head = "cls.predictions";
            let names = [
                &format!("{head}.transform.dense"),
                &format!("{head}.transform.LayerNorm"),
                &format!("{head}.decoder"),
                &format!("{head}.bias"),
            ];
            bert.language_head(cx, &at, &x, names.map(|n| n.as_str()), bert.activation)
        }
        Task::TextClassification => {
            let pooled = bert.pooled(cx, &at, &x)?;
            cx.token_head(&pooled, "classifier")
        }
        Task::TokenClassification => cx.token_head(&x, "classifier"),
        Task::QuestionAnswering => cx.answer_head(&x, "qa_outputs"),
        _ => Err(cx.no_head()),
    }
}

/// `RobertaModel`, `XLMRobertaModel`, `CamembertModel` and their heads.
pub(super) fn roberta(cx: &mut Context<'_, '_>) -> Result<()> {
    let bert = Bert::read(cx.settings, true)?;
    let at = cx.prefix("roberta", "embeddings.word_embeddings.weight");
    let ids = cx.token_input("input_ids")?;
    let mask = cx.token_input("attention_mask")?;
    // Of most models there is one type only, and tokenizers make no input of it.
    let types = if bert.types > 1 { Some(cx.token_input("token_type_ids")?) } else { None };
    let tokens = Tokens { ids, mask, types };
    let x = bert.encode(cx, &at, &tokens)?;
    match cx.task {
        Task::FeatureExtraction => bert.features(cx, &at, &x),
        Task::SentenceEmbeddings => cx.sentence(&x, &tokens.mask),
        Task::FillMask => {
            let names = ["lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"];
            bert.language_head(cx, &at, &x, names, Activation::Gelu)
        }
        Task::TextClassification => {
            let first = cx.graph.pick(&x, 1, 0)?;
            let dense = cx.linear(&first, "classifier.dense", bert.hidden)?;
            let dense = cx.graph.tanh(&dense)?;
            cx.token_head(&dense, "classifier.out_proj")
        }
        Task::TokenClassification => cx.token_head(&x, "classifier"),
        Task::QuestionAnswering => cx.answer_head(&x, "qa_outputs"),
        _ => Err(cx.no_head()),
    }
}

/// The places 0, 1, … of tokens: `[1, sequence]`.
pub(super) fn positions(g: &mut GraphBuilder<'_>, ids: &Value) -> Result<Value> {
    let (size, from) = (g.size(ids, 1)?, g.int(0));
    let to = g.squeeze(&size, 0)?;
    let places = g.range(&from, &to, ids.shape()[1].clone())?;
    g.unsqueeze(&places, &[0])
}

/// RoBERTa's places: tokens that are no padding are counted from behind the padding's id, which padding itself gets.
fn positions_behind(g: &mut GraphBuilder<'_>, ids: &Value, padding: u64) -> Result<Value> {
    let padding = g.int(padding as i64);
    let same = g.equal(ids, &padding)?;
    let counts = g.not(&same)?;
    let counts = g.cast(&counts, DType::I64)?;
    let places = g.cumsum(&counts, 1)?;
    let places = g.mul(&places, &counts)?;
    g.add(&places, &padding)
}
