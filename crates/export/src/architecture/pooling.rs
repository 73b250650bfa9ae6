//! From token vectors to one vector a sentence, as a sentence-transformers folder says.

use serde_json::Value as Json;
use weighbridge_formats::{DType, Error, Limits, Note, Result, Source};

use super::Context;
use super::decoder::last_place;
use crate::graph::{GraphBuilder, Value};

/// How token vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Cls,
    Max,
    Mean,
    MeanSqrtLength,
    WeightedMean,
    LastToken,
}

/// Modes by their keys in `1_Pooling/config.json` and their names in newer files, in the order in which several are
/// joined.
const MODES: &[(&str, &str, Mode)] = &[
    ("pooling_mode_cls_token", "cls", Mode::Cls),
    ("pooling_mode_max_tokens", "max", Mode::Max),
    ("pooling_mode_mean_tokens", "mean", Mode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Mode::MeanSqrtLength),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Mode::WeightedMean),
    ("pooling_mode_lasttoken", "lasttoken", Mode::LastToken),
];

/// What follows the encoder.
struct Pooling {
    modes: Vec<Mode>,
    normalize: bool,
}

impl Context<'_, '_> {
    /// Outputs `token_embeddings` and `sentence_embedding`.
    pub(super) fn sentence(&mut self, hidden: &Value, mask: &Value) -> Result<()> {
        let pooling = self.pooling()?;
        self.float_output("token_embeddings", hidden)?;
        let sentence = self.graph.scoped("pooling", |g| pooling.build(g, hidden, mask))?;
        self.float_output("sentence_embedding", &sentence)
    }

    /// What the folder's `modules.json` says.
    fn pooling(&mut self) -> Result<Pooling> {
        let Some(modules) = self.json("modules.json")? else {
            let what =
                "there is no modules.json: the sentence embedding is the mean over tokens, not normalised";
            self.notes.push(Note::info(what));
            return Ok(Pooling { modes: vec![Mode::Mean], normalize: false });
        };
        let modules = modules.as_array().ok_or_else(|| Error::malformed("modules.json is no list"))?;
        let mut pooling = Pooling { modes: Vec::new(), normalize: false };
        for module in modules {
            let class = module["type"].as_str().unwrap_or_default();
            match class.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => pooling.modes = self.modes(module["path"].as_str().unwrap_or("1_Pooling"))?,
                "Normalize" => pooling.normalize = true,
                _ => {
                    let what = format!("the module {class:?}: known are Transformer, Pooling and Normalize");
                    return Err(Error::unsupported(what));
                }
            }
        }
        if pooling.modes.is_empty() {
            return Err(Error::malformed("modules.json names no pooling"));
        }
        Ok(pooling)
    }

    /// The modes of a pooling module.
    fn modes(&self, folder: &str) -> Result<Vec<Mode>> {
        let name = format!("{folder}/config.json");
        let Some(config) = self.json(&name)? else {
            return Err(Error::not_found(format!("modules.json names {name}, which is not there")));
        };
        let fields = config.as_object().ok_or_else(|| Error::malformed(format!("{name} is no object")))?;
        let named: Vec<&str> = match fields.get("pooling_mode") {
            Some(Json::String(mode)) => vec![mode],
            Some(Json::Array(modes)) => modes.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        let keys = fields.iter().filter(|(k, v)| k.starts_with("pooling_mode_") && v.as_bool() == Some(true));
        let keys: Vec<&str> = keys.map(|(k, _)| k.as_str()).collect();
        for word in named.iter().chain(&keys) {
            if !MODES.iter().any(|(key, name, _)| key == word || name == word) {
                let known: Vec<&str> = MODES.iter().map(|(_, name, _)| *name).collect();
                let what = format!("{name}: the pooling {word:?}: known are {}", known.join(", "));
                return Err(Error::unsupported(what));
            }
        }
        let chosen = MODES.iter().filter(|(key, name, _)| keys.contains(key) || named.contains(name));
        Ok(chosen.map(|(_, _, mode)| *mode).collect())
    }

    /// A JSON file of the model's folder.
    fn json(&self, name: &str) -> Result<Option<Json>> {
        let Some(file) = self.model.files().iter().find(|f| f.name == name) else { return Ok(None) };
        let read = || {
            let source = Source::open(&file.path)?;
            let bytes = source.read_vec(0, source.len(), &Limits::default())?;
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::malformed(format!("this is no JSON: line {}", e.line())).with_source(e))
        };
        read().map(Some).map_err(|e| e.with_path(&file.path))
    }
}

impl Pooling {
    /// The vectors of sentences, computed in f32 whatever the graph computes in: sums over tokens leave f16's range.
    fn build(&self, g: &mut GraphBuilder<'_>, hidden: &Value, tokens: &Value) -> Result<Value> {
        let x = g.cast(hidden, DType::F32)?;
        let mask = g.cast(tokens, DType::F32)?;
        let mask = g.unsqueeze(&mask, &[2])?;
        let mut parts = Vec::with_capacity(self.modes.len());
        for mode in &self.modes {
            parts.push(pool(g, *mode, &x, &mask, tokens)?);
        }
        let mut sentence = match &parts[..] {
            [only] => only.clone(),
            several => g.concat(&several.iter().collect::<Vec<_>>(), 1)?,
        };
        if self.normalize {
            let two = g.float(DType::F32, 2.0)?;
            let squares = g.pow(&sentence, &two)?;
            let sum = g.reduce_sum(&squares, &[1], true)?;
            let length = g.sqrt(&sum)?;
            let length = g.clip_below(&length, 1e-12)?;
            sentence = g.div(&sentence, &length)?;
        }
        g.cast(&sentence, hidden.dtype())
    }
}

/// One mode: `x` is `[batch, sequence, size]`, `mask` `[batch, sequence, 1]` with 1 for tokens that count.
fn pool(g: &mut GraphBuilder<'_>, mode: Mode, x: &Value, mask: &Value, tokens: &Value) -> Result<Value> {
    let mean = |g: &mut GraphBuilder<'_>, weights: &Value, root: bool| {
        let product = g.mul(x, weights)?;
        let sum = g.reduce_sum(&product, &[1], false)?;
        let count = g.reduce_sum(weights, &[1], false)?;
        let count = g.clip_below(&count, 1e-9)?;
        let count = if root { g.sqrt(&count)? } else { count };
        g.div(&sum, &count)
    };
    match mode {
        Mode::Cls => g.pick(x, 1, 0),
        Mode::Mean => mean(g, mask, false),
        Mode::MeanSqrtLength => mean(g, mask, true),
        Mode::Max => {
            let zero = g.float(DType::F32, 0.0)?;
            let counts = g.greater(mask, &zero)?;
            let low = g.float(DType::F32, -1e9)?;
            let x = g.select(&counts, x, &low)?;
            g.reduce_max(&x, &[1], false)
        }
        Mode::WeightedMean => {
            let (size, from) = (g.size(x, 1)?, g.int(1));
            let (one, size) = (g.ints(&[1]), size);
            let to = g.add(&size, &one)?;
            let to = g.squeeze(&to, 0)?;
            let places = g.range(&from, &to, x.shape()[1].clone())?;
            let places = g.cast(&places, DType::F32)?;
            let places = g.unsqueeze(&places, &[0, 2])?;
            let weights = g.mul(mask, &places)?;
            mean(g, &weights, false)
        }
        Mode::LastToken => {
            let last = last_place(g, tokens)?;
            g.pick_by_row(x, &last)
        }
    }
}
