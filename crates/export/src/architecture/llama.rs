//! Llama (Touvron et al., 2023), and Mistral and Qwen2, which differ from it in biases and sliding windows.

use weighbridge_formats::{Error, Note, Result};

use super::Context;
use super::decoder::Decoder;
use super::parts::{Activation, attend};
use super::rope::{Angles, Rope};
use crate::graph::{AttentionHeads, GraphBuilder, Value};
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

    /// Attention of projected queries, keys and values, merged to `[batch, sequence, heads · size]`: by the operators of
    /// the opset, or by their parts.
    fn attend(
        &self,
        cx: &mut Context<'_, '_>,
        layer: u64,
        [query, key, value]: [&Value; 3],
        rest: &Shared<'_>,
    ) -> Result<Value> {
        let scale = 1.0 / (self.size as f64).sqrt();
        let window = self.windows.get(layer as usize).copied().flatten();
        let mask = rest.mask(window).ok_or_else(|| cx.graph.error("a layer without mask"))?;
        let g = &mut cx.graph;
        if g.has_attention() {
            let query = rest.turn.queries.rotate_heads(g, query, self.heads)?;
            let key = rest.turn.keys.rotate_heads(g, key, self.shared)?;
            let heads = AttentionHeads { queries: self.heads, shared: self.shared, size: self.size, scale };
            return rest.decoder.attention(cx, layer, [&query, &key, value], mask, &heads);
        }
        let (shared, group) = (self.shared as i64, (self.heads / self.shared) as i64);
        let size = self.size as i64;
        let divide = |g: &mut GraphBuilder<'_>, x: &Value| {
            let x = g.reshape(x, &[0, 0, shared, size])?;
            g.transpose(&x, &[0, 2, 1, 3])
        };
        let query = if self.grouped() {
            let query = g.reshape(query, &[0, 0, shared, group, size])?;
            g.transpose(&query, &[0, 2, 3, 1, 4])?
        } else {
            divide(g, query)?
        };
        let query = rest.turn.queries.rotate(g, &query)?;
        // Scaled before the product, f16 holds what would leave its range.
        let query = g.scale(&query, scale)?;
        let key = divide(g, key)?;
        let key = rest.turn.keys.rotate(g, &key)?;
        let value = divide(g, value)?;
        let [key, value] = rest.decoder.remember(cx, layer, [key, value])?;
        let g = &mut cx.graph;
        let keys = g.transpose(&key, &[0, 1, 3, 2])?;
        // Keys and values broadcast over the group that shares them, so that nobody copies them.
        let (keys, values, order) = if self.grouped() {
            (g.unsqueeze(&keys, &[2])?, g.unsqueeze(&value, &[2])?, &[0, 3, 1, 2, 4][..])
        } else {
            (keys, value, &[0, 2, 1, 3][..])
        };
        let scores = g.matmul(&query, &keys)?;
        let context = attend(g, &scores, Some(mask), &values)?;
        let context = g.transpose(&context, order)?;
        g.reshape(&context, &[0, 0, (self.heads * self.size) as i64])
    }

    /// Whether several heads of queries share one of keys.
    fn grouped(&self) -> bool {
        self.heads != self.shared
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
        let attended = cx.scoped("self_attn", |cx| {
            let of = |part: &str| format!("{at}.self_attn.{part}");
            let (queries, keys, bias) = (self.heads * self.size, self.shared * self.size, self.query_bias);
            let g = &mut cx.graph;
            let query = self.linear(g, &normal, &of("q_proj"), queries, bias)?;
            let key = self.linear(g, &normal, &of("k_proj"), keys, bias)?;
            let value = self.linear(g, &normal, &of("v_proj"), keys, bias)?;
            let context = self.attend(cx, i, [&query, &key, &value], rest)?;
            self.linear(&mut cx.graph, &context, &of("o_proj"), self.hidden, self.out_bias)
        })?;
        let g = &mut cx.graph;
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
        let whole = g.has_attention();
        let turn = if whole {
            Turn { queries: angles.clone(), keys: angles }
        } else {
            let places: &[usize] = if self.grouped() { &[1, 2] } else { &[1] };
            let queries = g.scoped("rotary_emb", |g| angles.at(g, places))?;
            Turn { queries, keys: g.scoped("rotary_emb", |g| angles.at(g, &[1]))? }
        };
        let mut masks: Vec<(Option<u64>, Value)> = Vec::new();
        for window in &self.windows {
            if !masks.iter().any(|(w, _)| w == window) {
                let mut mask = g.scoped("mask", |g| decoder.causal(g, *window))?;
                if self.grouped() && !whole {
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
