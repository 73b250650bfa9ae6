//! Llama (Touvron et al., 2023), and Mistral and Qwen2, which differ from it in biases and sliding windows.

use weighbridge_formats::{Error, Note, Result};

use super::Context;
use super::decoder::Decoder;
use super::parts::{Activation, attend};
use super::rope::{Angles, Rope};
use crate::graph::{GraphBuilder, Value};
use crate::settings::Settings;
use crate::task::Task;

/// Which of the family a config is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Llama,
    Mistral,
    Qwen2,
}

/// The numbers of a config.
struct Llama {
    hidden: u64,
    inner: u64,
    heads: u64,
    /// Heads of keys and values, each of which serves a group of queries.
    shared: u64,
    size: u64,
    vocabulary: u64,
    epsilon: f32,
    activation: Activation,
    query_bias: bool,
    out_bias: bool,
    inner_bias: bool,
    rope: Rope,
    /// For each layer, the most tokens that one looks back on, itself included.
    windows: Vec<Option<u64>>,
}

impl Llama {
    fn read(settings: &Settings<'_>, member: Member) -> Result<Self> {
        let (hidden, heads) = (settings.size("hidden_size")?, settings.size("num_attention_heads")?);
        let silent = match member {
            Member::Mistral if !settings.has("num_key_value_heads") => 8,
            Member::Qwen2 if !settings.has("num_key_value_heads") => 32,
            _ => heads,
        };
        let shared = settings.size_or("num_key_value_heads", silent)?;
        if !heads.is_multiple_of(shared) {
            return Err(Error::malformed(format!("{shared} heads of keys do not divide {heads} of queries")));
        }
        let size = match settings.size_if("head_dim")? {
            Some(size) => size,
            None => hidden / heads,
        };
        let limit = match member {
            Member::Llama => 2048,
            Member::Mistral => 4096 * 32,
            Member::Qwen2 => 32_768,
        };
        let positions = settings.size_or("max_position_embeddings", limit)?;
        let bias = member == Member::Llama && settings.flag_or("attention_bias", false)?;
        Ok(Self {
            hidden,
            inner: settings.size("intermediate_size")?,
            heads,
            shared,
            size,
            vocabulary: settings.size("vocab_size")?,
            epsilon: settings.float_or("rms_norm_eps", 1e-6)? as f32,
            activation: Activation::of(settings.text_if("hidden_act")?.unwrap_or("silu"))?,
            query_bias: bias || member == Member::Qwen2,
            out_bias: bias,
            inner_bias: member == Member::Llama && settings.flag_or("mlp_bias", false)?,
            rope: Rope::read(settings, size, positions)?,
            windows: windows(settings, member)?,
        })
    }

    /// A linear layer of a module of this name.
    fn linear(&self, g: &mut GraphBuilder<'_>, x: &Value, name: &str, out: u64, bias: bool) -> Result<Value> {
        let (weight, bias) = (format!("{name}.weight"), bias.then(|| format!("{name}.bias")));
        g.scoped(name.rsplit('.').next().unwrap_or(name), |g| g.linear(x, &weight, bias.as_deref(), out))
    }

    /// Queries, keys and values, rotated: queries `[batch, shared, group, sequence, size]` where a group shares keys,
    /// else `[batch, heads, sequence, size]`, as keys and values are.
    fn project(&self, g: &mut GraphBuilder<'_>, at: &str, x: &Value, turn: &Turn) -> Result<[Value; 3]> {
        let (size, shared) = (self.size as i64, self.shared as i64);
        let of = |part: &str| format!("{at}.self_attn.{part}");
        let query = self.linear(g, x, &of("q_proj"), self.heads * self.size, self.query_bias)?;
        let key = self.linear(g, x, &of("k_proj"), self.shared * self.size, self.query_bias)?;
        let value = self.linear(g, x, &of("v_proj"), self.shared * self.size, self.query_bias)?;
        let query = if self.grouped() {
            let query = g.reshape(&query, &[0, 0, shared, (self.heads / self.shared) as i64, size])?;
            g.transpose(&query, &[0, 2, 3, 1, 4])?
        } else {
            let query = g.reshape(&query, &[0, 0, shared, size])?;
            g.transpose(&query, &[0, 2, 1, 3])?
        };
        let query = turn.queries.rotate(g, &query)?;
        // Scaled before the product, f16 holds what would leave its range.
        let query = g.scale(&query, 1.0 / (self.size as f64).sqrt())?;
        let divide = |g: &mut GraphBuilder<'_>, x: &Value| {
            let x = g.reshape(x, &[0, 0, shared, size])?;
            g.transpose(&x, &[0, 2, 1, 3])
        };
        let key = divide(g, &key)?;
        let key = turn.keys.rotate(g, &key)?;
        let value = divide(g, &value)?;
        Ok([query, key, value])
    }

    /// Whether several heads of queries share one of keys.
    fn grouped(&self) -> bool {
        self.heads != self.shared
    }

    /// Attention of queries to keys and values, merged to `[batch, sequence, heads · size]`.
    fn attend(
        &self,
        g: &mut GraphBuilder<'_>,
        query: &Value,
        key: &Value,
        value: &Value,
        mask: &Value,
    ) -> Result<Value> {
        let merged = [0, 0, (self.heads * self.size) as i64];
        if !self.grouped() {
            let keys = g.transpose(key, &[0, 1, 3, 2])?;
            let scores = g.matmul(query, &keys)?;
            let context = attend(g, &scores, Some(mask), value)?;
            let context = g.transpose(&context, &[0, 2, 1, 3])?;
            return g.reshape(&context, &merged);
        }
        // Keys and values broadcast over the group, so that nobody copies them.
        let keys = g.transpose(key, &[0, 1, 3, 2])?;
        let keys = g.unsqueeze(&keys, &[2])?;
        let values = g.unsqueeze(value, &[2])?;
        let scores = g.matmul(query, &keys)?;
        let context = attend(g, &scores, Some(mask), &values)?;
        let context = g.transpose(&context, &[0, 3, 1, 2, 4])?;
        g.reshape(&context, &merged)
    }

    /// A norm before self-attention and before the gated feed-forward part.
    fn layer(
        &self,
        cx: &mut Context<'_, '_>,
        at: &str,
        i: u64,
        x: &Value,
        rest: &Shared<'_>,
    ) -> Result<Value> {
        let g = &mut cx.graph;
        let normal =
            g.scoped("input_layernorm", |g| g.rms_norm(x, &format!("{at}.input_layernorm"), self.epsilon))?;
        let [query, key, value] = g.scoped("self_attn", |g| self.project(g, at, &normal, &rest.turn))?;
        let [key, value] = rest.decoder.remember(cx, i, [key, value])?;
        let mask =
            rest.mask(self.windows[i as usize]).ok_or_else(|| cx.graph.error("a layer without mask"))?;
        let g = &mut cx.graph;
        let attended = g.scoped("self_attn", |g| {
            let context = self.attend(g, &query, &key, &value, mask)?;
            self.linear(g, &context, &format!("{at}.self_attn.o_proj"), self.hidden, self.out_bias)
        })?;
        let x = g.add(x, &attended)?;
        let name = "post_attention_layernorm";
        let normal = g.scoped(name, |g| g.rms_norm(&x, &format!("{at}.{name}"), self.epsilon))?;
        let out = g.scoped("mlp", |g| {
            let gate =
                self.linear(g, &normal, &format!("{at}.mlp.gate_proj"), self.inner, self.inner_bias)?;
            let gate = self.activation.apply(g, &gate)?;
            let up = self.linear(g, &normal, &format!("{at}.mlp.up_proj"), self.inner, self.inner_bias)?;
            let inner = g.mul(&gate, &up)?;
            self.linear(g, &inner, &format!("{at}.mlp.down_proj"), self.hidden, self.inner_bias)
        })?;
        g.add(&x, &out)
    }

    /// The hidden states behind the last norm.
    fn decode(&self, cx: &mut Context<'_, '_>, at: &str, decoder: &Decoder) -> Result<Value> {
        let g = &mut cx.graph;
        let angles = g.scoped("rotary_emb", |g| self.rope.angles(g, &decoder.positions))?;
        let keys = g.scoped("rotary_emb", |g| angles.at(g, &[1]))?;
        let places: &[usize] = if self.grouped() { &[1, 2] } else { &[1] };
        let turn = Turn { queries: g.scoped("rotary_emb", |g| angles.at(g, places))?, keys };
        let mut masks: Vec<(Option<u64>, Value)> = Vec::new();
        for window in &self.windows {
            if !masks.iter().any(|(w, _)| w == window) {
                let mut mask = g.scoped("mask", |g| decoder.causal(g, *window))?;
                if self.grouped() {
                    mask = g.unsqueeze(&mask, &[1])?;
                }
                masks.push((*window, mask));
            }
        }
        let mut x =
            g.embedding(&decoder.ids, &format!("{at}embed_tokens.weight"), self.vocabulary, self.hidden)?;
        let rest = Shared { turn, masks, decoder };
        for i in 0..self.windows.len() as u64 {
            let name = format!("{at}layers.{i}");
            x = cx.scoped(format!("layers.{i}"), |cx| self.layer(cx, &name, i, &x, &rest))?;
        }
        cx.graph.scoped("norm", |g| g.rms_norm(&x, &format!("{at}norm"), self.epsilon))
    }
}

/// What queries and keys are rotated by.
struct Turn {
    queries: Angles,
    keys: Angles,
}

/// What all layers use.
struct Shared<'d> {
    turn: Turn,
    masks: Vec<(Option<u64>, Value)>,
    decoder: &'d Decoder,
}

impl Shared<'_> {
    fn mask(&self, window: Option<u64>) -> Option<&Value> {
        self.masks.iter().find(|(w, _)| *w == window).map(|(_, mask)| mask)
    }
}

/// The windows of the layers.
fn windows(settings: &Settings<'_>, member: Member) -> Result<Vec<Option<u64>>> {
    let layers = settings.layers("num_hidden_layers")?;
    // Silence is the default of transformers' class, null is none.
    let stated = |default: u64| {
        let window = settings.size_if("sliding_window")?;
        Ok::<_, Error>(if settings.has("sliding_window") { window } else { Some(default) })
    };
    match member {
        Member::Llama => Ok(vec![None; layers as usize]),
        Member::Mistral => Ok(vec![stated(4096)?; layers as usize]),
        Member::Qwen2 => {
            let window = if settings.flag_or("use_sliding_window", false)? { stated(4096)? } else { None };
            let from = settings.index_if("max_window_layers")?.unwrap_or(28);
            let Some(kinds) = settings.texts_if("layer_types")? else {
                return Ok((0..layers).map(|i| window.filter(|_| i >= from)).collect());
            };
            if kinds.len() as u64 != layers {
                return Err(Error::malformed(format!("{} layer_types for {layers} layers", kinds.len())));
            }
            let of = |kind: &&str| match (*kind, window) {
                ("full_attention", _) => Ok(None),
                ("sliding_attention", Some(window)) => Ok(Some(window)),
                ("sliding_attention", None) => {
                    Err(Error::malformed("a layer of sliding_attention, and no sliding_window in use"))
                }
                (other, _) => Err(Error::unsupported(format!(
                    "the layer type {other:?}: known are full_attention and sliding_attention"
                ))),
            };
            kinds.iter().map(of).collect()
        }
    }
}

fn build(cx: &mut Context<'_, '_>, member: Member) -> Result<()> {
    let llama = Llama::read(cx.settings, member)?;
    let mut at = cx.prefix("model", "embed_tokens.weight");
    if at.is_empty() {
        // The class for question answering has another name for the same.
        at = cx.prefix("transformer", "embed_tokens.weight");
    }
    if llama.rope.by_length() && cx.task == Task::TextGenerationWithPast {
        let what = "positions are scaled by the length of the text: keys in the cache keep the scale that they were made with";
        cx.notes.push(Note::info(what));
    }
    let decoder = Decoder::new(cx, llama.windows.len() as u64, llama.shared, llama.size)?;
    let x = llama.decode(cx, &at, &decoder)?;
    match cx.task {
        Task::FeatureExtraction => cx.float_output("last_hidden_state", &x),
        Task::SentenceEmbeddings => cx.sentence(&x, &decoder.tokens),
        Task::TextClassification => cx.last_token_head(&x, &decoder.ids, "score"),
        Task::TokenClassification => cx.token_head(&x, "score"),
        Task::QuestionAnswering => cx.answer_head(&x, "qa_outputs"),
        Task::TextGeneration | Task::TextGenerationWithPast => {
            cx.vocabulary_head(&x, &format!("{at}embed_tokens.weight"), false, llama.vocabulary)
        }
        _ => Err(cx.no_head()),
    }
}

/// `LlamaModel` and its heads.
pub(super) fn llama(cx: &mut Context<'_, '_>) -> Result<()> {
    build(cx, Member::Llama)
}

/// `MistralModel` and its heads.
pub(super) fn mistral(cx: &mut Context<'_, '_>) -> Result<()> {
    build(cx, Member::Mistral)
}

/// `Qwen2Model` and its heads.
pub(super) fn qwen2(cx: &mut Context<'_, '_>) -> Result<()> {
    build(cx, Member::Qwen2)
}
