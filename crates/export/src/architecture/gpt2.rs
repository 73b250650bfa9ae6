//! GPT-2 (Radford et al., 2019).

use weighbridge_formats::{DType, Result};

use super::Context;
use super::decoder::Decoder;
use super::parts::{Activation, Heads, attend};
use crate::graph::{AttentionHeads, GraphBuilder, Layout, Value};
use crate::settings::Settings;
use crate::task::Task;

/// The numbers of a config.
struct Gpt2 {
    hidden: u64,
    inner: u64,
    layers: u64,
    heads: Heads,
    vocabulary: u64,
    positions: u64,
    epsilon: f32,
    activation: Activation,
    scale: bool,
    scale_by_layer: bool,
    upcast: bool,
}

impl Gpt2 {
    fn read(settings: &Settings<'_>) -> Result<Self> {
        settings.never("add_cross_attention")?;
        let hidden = settings.size_or("n_embd", 768)?;
        Ok(Self {
            hidden,
            inner: settings.size_or("n_inner", 4 * hidden)?,
            layers: settings.layers("n_layer")?,
            heads: Heads::of(hidden, settings.size("n_head")?)?,
            vocabulary: settings.size("vocab_size")?,
            positions: settings.size_or("n_positions", 1024)?,
            epsilon: settings.float_or("layer_norm_epsilon", 1e-5)? as f32,
            activation: Activation::of(settings.text_if("activation_function")?.unwrap_or("gelu_new"))?,
            scale: settings.flag_or("scale_attn_weights", true)?,
            scale_by_layer: settings.flag_or("scale_attn_by_inverse_layer_idx", false)?,
            upcast: settings.flag_or("reorder_and_upcast_attn", false)?,
        })
    }

    /// A layer of GPT-2's own kind of linear, whose weights are `[in, out]`.
    fn conv(&self, g: &mut GraphBuilder<'_>, x: &Value, name: &str, out: u64) -> Result<Value> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        g.scoped(name.rsplit('.').next().unwrap_or(name), |g| {
            g.linear_of(x, &weight, Some(&bias), out, Layout::InOut)
        })
    }

    /// What the scores of a layer are multiplied by.
    fn factor(&self, layer: u64) -> f64 {
        let by_size = if self.scale { (self.heads.size as f64).sqrt() } else { 1.0 };
        let by_layer = if self.scale_by_layer { (layer + 1) as f64 } else { 1.0 };
        1.0 / (by_size * by_layer)
    }

    /// The scores of queries against keys.
    fn scores(&self, g: &mut GraphBuilder<'_>, layer: u64, query: &Value, keys: &Value) -> Result<Value> {
        let (dtype, factor) = (query.dtype(), self.factor(layer));
        // Scaled before the product, f16 holds what would leave its range.
        let query = if factor == 1.0 { query.clone() } else { g.scale(query, factor)? };
        if self.upcast && dtype != DType::F32 {
            let (query, keys) = (g.cast(&query, DType::F32)?, g.cast(keys, DType::F32)?);
            let scores = g.matmul(&query, &keys)?;
            return g.cast(&scores, dtype);
        }
        g.matmul(&query, keys)
    }

    /// Attention of projected parts `[batch, sequence, hidden]`.
    fn attend(
        &self,
        cx: &mut Context<'_, '_>,
        layer: u64,
        [query, key, value]: [&Value; 3],
        decoder: &Decoder,
        mask: &Value,
    ) -> Result<Value> {
        let heads = self.heads;
        if cx.graph.has_attention() {
            let (count, size, scale) = (heads.count, heads.size, self.factor(layer));
            let heads = AttentionHeads { queries: count, shared: count, size, scale };
            return decoder.attention(cx, layer, [query, key, value], mask, &heads);
        }
        let g = &mut cx.graph;
        let query = heads.divide(g, query)?;
        let (key, value) = (heads.divide(g, key)?, heads.divide(g, value)?);
        let [key, value] = decoder.remember(cx, layer, [key, value])?;
        let g = &mut cx.graph;
        let keys = g.transpose(&key, &[0, 1, 3, 2])?;
        let scores = self.scores(g, layer, &query, &keys)?;
        let context = attend(g, &scores, Some(mask), &value)?;
        heads.merge(g, &context)
    }

    /// A norm before self-attention and before the feed-forward part.
    fn layer(
        &self,
        cx: &mut Context<'_, '_>,
        (at, layer): (&str, u64),
        x: &Value,
        decoder: &Decoder,
        mask: &Value,
    ) -> Result<Value> {
        let normal = cx.graph.layer_norm(x, &format!("{at}.ln_1"), self.epsilon)?;
        let attended = cx.scoped("attn", |cx| {
            let g = &mut cx.graph;
            let joined = self.conv(g, &normal, &format!("{at}.attn.c_attn"), 3 * self.hidden)?;
            let parts = g.split(&joined, &[self.hidden; 3], 2)?;
            let [query, key, value] = &parts[..] else { return Err(g.error("three parts")) };
            let context = self.attend(cx, layer, [query, key, value], decoder, mask)?;
            self.conv(&mut cx.graph, &context, &format!("{at}.attn.c_proj"), self.hidden)
        })?;
        let g = &mut cx.graph;
        let x = g.add(&attended, x)?;
        let normal = g.layer_norm(&x, &format!("{at}.ln_2"), self.epsilon)?;
        let out = g.scoped("mlp", |g| {
            let inner = self.conv(g, &normal, &format!("{at}.mlp.c_fc"), self.inner)?;
            let inner = self.activation.apply(g, &inner)?;
            self.conv(g, &inner, &format!("{at}.mlp.c_proj"), self.hidden)
        })?;
        g.add(&x, &out)
    }

    /// The hidden states behind the last norm.
    fn decode(&self, cx: &mut Context<'_, '_>, at: &str, decoder: &Decoder) -> Result<Value> {
        let g = &mut cx.graph;
        let mask = g.scoped("mask", |g| decoder.causal(g, None))?;
        let words = g.embedding(&decoder.ids, &format!("{at}wte.weight"), self.vocabulary, self.hidden)?;
        let table = format!("{at}wpe.weight");
        let places = g.embedding(&decoder.positions, &table, self.positions, self.hidden)?;
        let mut x = g.add(&words, &places)?;
        for i in 0..self.layers {
            x = cx.scoped(format!("h.{i}"), |cx| {
                self.layer(cx, (&format!("{at}h.{i}"), i), &x, decoder, &mask)
            })?;
        }
        cx.graph.layer_norm(&x, &format!("{at}ln_f"), self.epsilon)
    }
}

/// `GPT2Model` and its heads.
pub(super) fn gpt2(cx: &mut Context<'_, '_>) -> Result<()> {
    let gpt = Gpt2::read(cx.settings)?;
    let at = cx.prefix("transformer", "wte.weight");
    let decoder = Decoder::new(cx, gpt.layers, gpt.heads.count, gpt.heads.size)?;
    let x = gpt.decode(cx, &at, &decoder)?;
    match cx.task {
        Task::FeatureExtraction => cx.float_output("last_hidden_state", &x),
        Task::SentenceEmbeddings => cx.sentence(&x, &decoder.tokens),
        Task::TextClassification => cx.last_token_head(&x, &decoder.ids, "score"),
        Task::TokenClassification => cx.token_head(&x, "classifier"),
        Task::QuestionAnswering => cx.answer_head(&x, "qa_outputs"),
        Task::TextGeneration | Task::TextGenerationWithPast => {
            cx.vocabulary_head(&x, &format!("{at}wte.weight"), true, gpt.vocabulary)
        }
        _ => Err(cx.no_head()),
    }
}
