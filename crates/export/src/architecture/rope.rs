//! Rotary position embeddings (Su et al., 2021) and the ways to stretch them over longer texts, by the names and
//! formulas of transformers' configs.

use weighbridge_formats::{DType, Error, Result};

use crate::graph::{GraphBuilder, Value};
use crate::settings::Settings;

/// The kinds that are known, by the name in a config.
const KNOWN: &[&str] = &["default", "linear", "dynamic", "yarn", "longrope", "llama3"];

/// The largest head: a config's word decides how many frequencies are computed.
const MAX_SIZE: u64 = 1 << 16;

/// The frequencies that angles are computed with, one for each pair of elements.
enum Frequencies {
    /// The same for every text.
    Fixed(Vec<f64>),
    /// Short ones, and long ones for texts that are longer than this many tokens.
    ByLength { short: Vec<f64>, long: Vec<f64>, limit: u64 },
    /// Of a base that grows with texts that are longer than the model was trained for (NTK).
    Growing { base: f64, factor: f64, limit: u64 },
}

/// What a config says of rotary embeddings.
pub(super) struct Rope {
    frequencies: Frequencies,
    /// What sines and cosines are multiplied by.
    scale: f64,
    /// The elements of a head.
    size: u64,
}

/// Cosines and sines of the places of tokens: `[batch, sequence, size / 2]` for the operator, else
/// `[batch, sequence, size]`, where the first half of the sines is negative, which spares a negation in each layer.
#[derive(Clone)]
pub(super) struct Angles {
    cos: Value,
    sin: Value,
}

impl Rope {
    /// Reads the config's keys, of transformers 4 and 5, for heads of `size` elements.
    pub(super) fn read(settings: &Settings<'_>, size: u64, max_positions: u64) -> Result<Self> {
        if !size.is_multiple_of(2) || !(2..=MAX_SIZE).contains(&size) {
            let what = format!("heads of {size} elements: rotated are pairs, up to {MAX_SIZE} elements");
            return Err(Error::malformed(what));
        }
        let scaling = match settings.object_if("rope_scaling")?.filter(|s| !s.is_empty()) {
            Some(scaling) => Some(scaling),
            None => settings.object_if("rope_parameters")?,
        };
        let nothing = serde_json::Map::new();
        let rope = scaling.unwrap_or(Settings::new(&nothing));
        if let Some(key) = rope.nested() {
            let what =
                format!("rotary embeddings of their own for {key:?}: known is one kind for all layers");
            return Err(Error::unsupported(what));
        }
        let kind = match rope.text_if("rope_type")? {
            Some(kind) => kind,
            None => rope.text_if("type")?.unwrap_or("default"),
        };
        if !KNOWN.contains(&kind) {
            let what = format!("the rope_type {kind:?}: known are {}", KNOWN.join(", "));
            return Err(Error::unsupported(what));
        }
        let base = match rope.float_if("rope_theta")? {
            Some(base) => base,
            None => settings.float_or("rope_theta", 10_000.0)?,
        };
        if base <= 1.0 {
            return Err(Error::malformed(format!("a rope_theta of {base}")));
        }
        let partial = match rope.float_if("partial_rotary_factor")? {
            Some(partial) => partial,
            None => settings.float_or("partial_rotary_factor", 1.0)?,
        };
        if partial != 1.0 && kind != "default" {
            let what = format!("a partial_rotary_factor of {partial}: known is 1");
            return Err(Error::unsupported(what));
        }
        let original = match settings.size_if("original_max_position_embeddings")? {
            Some(original) => original,
            None => rope.size_or("original_max_position_embeddings", max_positions)?,
        };
        let need = |key: &str| {
            rope.float_if(key)?.ok_or_else(|| {
                Error::malformed(format!("rope_type {kind:?} needs {key:?}, which is not there"))
            })
        };
        let plain = frequencies(base, size);
        let mut scale = 1.0;
        let frequencies = match kind {
            "linear" => {
                let factor = positive("factor", need("factor")?)?;
                Frequencies::Fixed(plain.iter().map(|f| f / factor).collect())
            }
            "dynamic" => {
                if size <= 2 {
                    return Err(Error::malformed(
                        "dynamic rotary embeddings need heads of more than 2 elements",
                    ));
                }
                Frequencies::Growing {
                    base,
                    factor: positive("factor", need("factor")?)?,
                    limit: max_positions,
                }
            }
            "llama3" => {
                let factor = positive("factor", need("factor")?)?;
                let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
                let (low, high) = (positive("low_freq_factor", low)?, positive("high_freq_factor", high)?);
                if low == high {
                    return Err(Error::malformed("low_freq_factor and high_freq_factor are the same"));
                }
                let stretch = |f: &f64| llama3(*f, factor, low, high, original as f64);
                Frequencies::Fixed(plain.iter().map(stretch).collect())
            }
            "yarn" => {
                let factor = match rope.float_if("factor")? {
                    Some(factor) => positive("factor", factor)?,
                    None => max_positions as f64 / original as f64,
                };
                scale = match rope.float_if("attention_factor")? {
                    Some(scale) => scale,
                    None => yarn_scale(&rope, factor)?,
                };
                Frequencies::Fixed(yarn(&rope, base, size, factor, original as f64)?)
            }
            "longrope" => {
                let factor = match rope.float_if("factor")? {
                    Some(factor) => positive("factor", factor)?,
                    None => max_positions as f64 / original as f64,
                };
                scale = match rope.float_if("attention_factor")? {
                    Some(scale) => scale,
                    None if factor <= 1.0 => 1.0,
                    None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
                };
                let stretched = |key: &str| {
                    let factors = rope.floats_if(key)?.filter(|f| f.len() == plain.len());
                    let factors = factors.ok_or_else(|| {
                        Error::malformed(format!("longrope needs {key:?}, a list of {} numbers", plain.len()))
                    })?;
                    Ok::<_, Error>(plain.iter().zip(&factors).map(|(f, by)| f / by).collect())
                };
                Frequencies::ByLength {
                    short: stretched("short_factor")?,
                    long: stretched("long_factor")?,
                    limit: original,
                }
            }
            _ => Frequencies::Fixed(plain),
        };
        Ok(Self { frequencies, scale, size })
    }

    /// Whether a text's length changes what its tokens are rotated by.
    pub(super) fn by_length(&self) -> bool {
        !matches!(self.frequencies, Frequencies::Fixed(_))
    }

    /// Sines and cosines for places `[batch, sequence]`, computed in f32 and rounded to what the graph computes in.
    pub(super) fn angles(&self, g: &mut GraphBuilder<'_>, positions: &Value) -> Result<Angles> {
        let half = self.size / 2;
        let frequencies = match &self.frequencies {
            Frequencies::Fixed(f) => g.floats(DType::F32, &[half], f)?,
            Frequencies::ByLength { short, long, limit } => {
                let last = g.reduce_max(positions, &[0, 1], false)?;
                let limit = g.int(*limit as i64);
                let longer = g.greater_or_equal(&last, &limit)?;
                let (short, long) =
                    (g.floats(DType::F32, &[half], short)?, g.floats(DType::F32, &[half], long)?);
                g.select(&longer, &long, &short)?
            }
            Frequencies::Growing { base, factor, limit } => {
                let last = g.reduce_max(positions, &[0, 1], false)?;
                let one = g.int(1);
                let length = g.add(&last, &one)?;
                let (least, size) = (g.int(*limit as i64), self.size as f64);
                let length = g.max(&length, &least)?;
                let length = g.cast(&length, DType::F32)?;
                let grown = g.scale(&length, factor / *limit as f64)?;
                let less = g.float(DType::F32, factor - 1.0)?;
                let grown = g.sub(&grown, &less)?;
                let power = g.float(DType::F32, size / (size - 2.0))?;
                let grown = g.pow(&grown, &power)?;
                let base = g.scale(&grown, *base)?;
                let powers: Vec<f64> = (0..half).map(|i| -2.0 * i as f64 / size).collect();
                let powers = g.floats(DType::F32, &[half], &powers)?;
                g.pow(&base, &powers)?
            }
        };
        let places = g.cast(positions, DType::F32)?;
        let places = g.unsqueeze(&places, &[2])?;
        let angles = g.mul(&places, &frequencies)?;
        let (cos, sin) = (g.cos(&angles)?, g.sin(&angles)?);
        let scaled = |g: &mut GraphBuilder<'_>, x: &Value, by: f64| {
            if by == 1.0 { Ok(x.clone()) } else { g.scale(x, by) }
        };
        let (cos, sin) = (scaled(g, &cos, self.scale)?, scaled(g, &sin, self.scale)?);
        // The operator takes one half, and the parts of a rotation take both.
        let (cos, sin) = if g.has_attention() {
            (cos, sin)
        } else {
            let negative = g.scale(&sin, -1.0)?;
            (g.concat(&[&cos, &cos], -1)?, g.concat(&[&negative, &sin], -1)?)
        };
        let compute = g.compute();
        Ok(Angles { cos: g.cast(&cos, compute)?, sin: g.cast(&sin, compute)? })
    }
}

impl Angles {
    /// The same for values that have dimensions of heads at these places.
    pub(super) fn at(&self, g: &mut GraphBuilder<'_>, places: &[usize]) -> Result<Self> {
        Ok(Self { cos: g.unsqueeze(&self.cos, places)?, sin: g.unsqueeze(&self.sin, places)? })
    }

    /// Rotates `[batch, sequence, heads · size]` by the operator.
    pub(super) fn rotate_heads(&self, g: &mut GraphBuilder<'_>, x: &Value, heads: u64) -> Result<Value> {
        g.rotary_embedding(x, &self.cos, &self.sin, heads)
    }

    /// Rotates each pair of an element and the one half a head further.
    pub(super) fn rotate(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let Some(size) = x.shape().last().and_then(crate::graph::Dim::fixed) else {
            return Err(g.error("heads of a size that is no number"));
        };
        let halves = g.split(x, &[size / 2, size / 2], -1)?;
        let [first, second] = &halves[..] else { return Err(g.error("two halves")) };
        let turned = g.concat(&[second, first], -1)?;
        let straight = g.mul(x, &self.cos)?;
        let turned = g.mul(&turned, &self.sin)?;
        g.add(&straight, &turned)
    }
}

/// The frequencies of the original: base^(-2i / size).
fn frequencies(base: f64, size: u64) -> Vec<f64> {
    (0..size / 2).map(|i| base.powf(-2.0 * i as f64 / size as f64)).collect()
}

/// Refuses a factor that divides by nothing.
fn positive(key: &str, x: f64) -> Result<f64> {
    if x > 0.0 { Ok(x) } else { Err(Error::malformed(format!("a {key} of {x} in the rope's parameters"))) }
}

/// Llama 3.1's: long waves are stretched, short ones stay, and those between are mixed.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wave = 2.0 * std::f64::consts::PI / frequency;
    if wave < original / high {
        frequency
    } else if wave > original / low {
        frequency / factor
    } else {
        let smooth = (original / wave - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

/// What YaRN multiplies sines and cosines by.
fn yarn_scale(rope: &Settings<'_>, factor: f64) -> Result<f64> {
    let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let by = |key: &str| Ok::<_, Error>(rope.float_if(key)?.filter(|&x| x != 0.0));
    Ok(match (by("mscale")?, by("mscale_all_dim")?) {
        (Some(one), Some(all)) => scale(one) / scale(all),
        _ => scale(1.0),
    })
}

/// YaRN's (Peng et al., 2023): pairs that turn often keep their frequency, those that turn seldom are stretched.
fn yarn(rope: &Settings<'_>, base: f64, size: u64, factor: f64, original: f64) -> Result<Vec<f64>> {
    let or = |key: &str, default: f64| {
        Ok::<_, Error>(rope.float_if(key)?.filter(|&x| x != 0.0).unwrap_or(default))
    };
    let (fast, slow) = (or("beta_fast", 32.0)?, or("beta_slow", 1.0)?);
    let dims = size as f64;
    let place =
        |turns: f64| dims * (original / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * base.ln());
    let (mut low, mut high) = (place(fast), place(slow));
    if rope.flag_or("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dims - 1.0));
    if low == high {
        high += 0.001;
    }
    let mix = |(i, f): (usize, f64)| {
        let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        f / factor * stretched + f * (1.0 - stretched)
    };
    Ok(frequencies(base, size).into_iter().enumerate().map(mix).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &serde_json::Value) -> Result<Rope> {
        Rope::read(&Settings::new(json.as_object().unwrap()), 8, 64)
    }

    #[test]
    fn keys_of_both_versions_are_read() {
        for json in [
            serde_json::json!({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}),
            serde_json::json!({"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}}),
        ] {
            let Frequencies::Fixed(f) = read(&json).unwrap().frequencies else { panic!("fixed") };
            assert_eq!(f[0], 0.5);
            assert!((f[1] - 500f64.powf(-0.25) / 2.0).abs() < 1e-12);
        }
        assert!(!read(&serde_json::json!({})).unwrap().by_length());
    }

    #[test]
    fn heads_that_no_model_has_are_refused_before_anything_is_computed() {
        let nothing = serde_json::Map::new();
        for size in [0, 7, 1 << 31] {
            assert!(Rope::read(&Settings::new(&nothing), size, 64).is_err(), "{size}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (json, part) in [
            (serde_json::json!({"rope_scaling": {"rope_type": "spiral"}}), "known are default, linear"),
            (serde_json::json!({"rope_scaling": {"rope_type": "linear"}}), "needs \"factor\""),
            (serde_json::json!({"rope_scaling": {"rope_type": "linear", "factor": 0}}), "a factor of 0"),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}),
                "a list of 4",
            ),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "partial_rotary_factor": 0.5}),
                "known is 1",
            ),
            (serde_json::json!({"rope_theta": "x"}), "should be a number"),
            (
                serde_json::json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
                "of their own for \"full_attention\"",
            ),
            (serde_json::json!({"rope_theta": 0.5}), "a rope_theta of 0.5"),
        ] {
            let error = read(&json).err().expect("an error").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
