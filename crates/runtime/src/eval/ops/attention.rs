//! Attention and rotary embeddings, as opset 23 has them.
//!
//! Source of the facts: the operators' specifications and their reference implementation in onnx 1.23. A mask is
//! aligned with the last key, so that with a cache the first query sees all of it.

use weighbridge_formats::{Error, Result};

use super::matmul::{Matrix, product};
use super::reduce::normalize;
use super::shape::{joined, permuted};
use crate::eval::elem::Elem;
use crate::eval::node::{Call, small};
use crate::eval::tensor::{Cx, Data, Tensor, count};
use crate::eval::walk::{broadcast, expand};

/// (batch, heads, length, size) out of (batch, length, heads × size).
fn by_heads(cx: &Cx, x: &Tensor, heads: usize) -> Result<Tensor> {
    match *x.shape() {
        [_, _, _, _] => Ok(x.clone()),
        [batch, length, hidden] if heads > 0 && hidden % heads == 0 => {
            permuted(cx, &x.reshaped(vec![batch, length, heads, hidden / heads])?, &[0, 2, 1, 3])
        }
        ref other => Err(Error::malformed(format!("{other:?} in {heads} heads"))),
    }
}

/// What is added to scores: `None` where nothing is, else as large as the scores of all batches and heads.
fn mask_of(cx: &Cx, mask: &Tensor, shape: &[usize]) -> Result<Vec<f32>> {
    let mut own = mask.shape().to_vec();
    let keys = shape[3];
    let values: Vec<f32> = match mask.data() {
        Data::Bool(v) => {
            cx.room(v.len(), 4)?;
            v.iter().map(|&b| if b { 0.0 } else { f32::NEG_INFINITY }).collect()
        }
        _ => mask.floats()?.into_owned(),
    };
    // A mask may be shorter than the keys; what it does not reach is masked.
    let width = own.last().copied().unwrap_or(1);
    let values = if width < keys && width != 1 {
        let lines = values.len().checked_div(width).unwrap_or(0);
        let mut wide = cx.filled(lines.saturating_mul(keys), f32::NEG_INFINITY)?;
        for (to, from) in wide.chunks_exact_mut(keys).zip(values.chunks_exact(width.max(1))) {
            to[..width].copy_from_slice(from);
        }
        if let Some(last) = own.last_mut() {
            *last = keys;
        }
        wide
    } else {
        values
    };
    if broadcast(&[&own, shape])? != shape {
        return Err(Error::malformed(format!("a mask of {own:?} for scores of {shape:?}")));
    }
    expand(cx, &values, &own, shape)
}

pub(super) fn attention(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let flat = call.input(0)?.rank() == 3;
    let heads = |name: &str| small(call.int(name, 0)?, 0, name);
    let q = by_heads(cx, call.input(0)?, heads("q_num_heads")?)?;
    let mut k = by_heads(cx, call.input(1)?, heads("kv_num_heads")?)?;
    let mut v = by_heads(cx, call.input(2)?, heads("kv_num_heads")?)?;
    let mut past = 0;
    match (call.optional(4), call.optional(5)) {
        (Some(pk), Some(pv)) => {
            past = pk.shape().get(2).copied().unwrap_or(0);
            if pk.rank() != 4 || pv.rank() != 4 {
                return Err(Error::malformed("a cache that has not four dimensions"));
            }
            k = joined(cx, &[pk, &k], 2)?;
            v = joined(cx, &[pv, &v], 2)?;
        }
        (None, None) => {}
        _ => return Err(Error::malformed("past keys and values are given together")),
    }
    let (&[batch, q_heads, queries, size], &[kb, kv_heads, keys, k_size]) = (q.shape(), k.shape()) else {
        return Err(Error::malformed("queries and keys that have not four dimensions"));
    };
    let &[vb, v_heads, v_keys, v_size] = v.shape() else { return Err(Error::malformed("values")) };
    if (kb, vb, k_size, v_heads, v_keys) != (batch, batch, size, kv_heads, keys)
        || kv_heads == 0
        || q_heads % kv_heads != 0
    {
        return Err(Error::malformed(format!("attention of {q:?}, {k:?} and {v:?}")));
    }
    let default = 1.0 / (size.max(1) as f32).sqrt();
    let scale = call.float("scale", default)?;
    let softcap = call.float("softcap", 0.0)?;
    let causal = call.flag("is_causal", false)?;
    let (left, right) = (call.int("left_window_size", -1)?, call.int("right_window_size", -1)?);
    let lengths = call.optional(6).map(Tensor::integers).transpose()?;
    if lengths.as_ref().is_some_and(|l| l.len() != batch) {
        return Err(Error::malformed("as many key lengths as batches are wanted"));
    }
    let score_shape = vec![batch, q_heads, queries, keys];
    let n = count(&score_shape)?;
    let mut bias = match call.optional(3) {
        Some(mask) => mask_of(cx, mask, &score_shape)?,
        None => cx.filled(n, 0f32)?,
    };
    cx.work(n)?;
    for (i, b) in bias.iter_mut().enumerate() {
        let (key, query) = ((i % keys) as i64, (i / keys % queries) as i64);
        let batch = i / (q_heads * queries * keys);
        let length = lengths.as_ref().map(|l| l[batch]);
        let offset = length.map_or(past as i64, |l| l.saturating_sub(queries as i64));
        let ahead = key.saturating_sub(query).saturating_sub(offset);
        let masked = (causal && ahead > 0)
            || (left >= 0 && ahead < -left)
            || (right >= 0 && ahead > right)
            || length.is_some_and(|l| key >= l);
        if masked {
            *b = f32::NEG_INFINITY;
        }
    }
    let mode = call.int("qk_matmul_output_mode", 0)?;
    let mut shown = cx.filled(n, 0f32)?;
    let mut out = cx.filled(count(&[batch, q_heads, queries, v_size])?, 0f32)?;
    let mut scores = cx.filled(count(&[queries, keys])?, 0f32)?;
    let (qv, kv, vv) = (q.floats()?, k.floats()?, v.floats()?);
    let group = q_heads / kv_heads;
    for pair in 0..batch * q_heads {
        let (b, h) = (pair / q_heads, pair % q_heads / group);
        let line = b * kv_heads + h;
        let (queries_of, keys_of) =
            (&qv[pair * queries * size..][..queries * size], &kv[line * keys * size..][..keys * size]);
        let sizes = (queries, size, keys);
        product(cx, Matrix(queries_of, size.max(1), 1), Matrix(keys_of, 1, size.max(1)), sizes, &mut scores)?;
        let at = pair * queries * keys;
        let shown = &mut shown[at..at + queries * keys];
        scores.iter_mut().for_each(|s| *s *= scale);
        if mode == 0 {
            shown.copy_from_slice(&scores);
        }
        // The cap comes before the mask, so that what is masked stays at -∞.
        if softcap > 0.0 {
            scores.iter_mut().for_each(|s| *s = softcap * (*s / softcap).tanh());
        }
        if mode == 1 {
            shown.copy_from_slice(&scores);
        }
        scores.iter_mut().zip(&bias[at..at + queries * keys]).for_each(|(s, b)| *s += b);
        if mode == 2 {
            shown.copy_from_slice(&scores);
        }
        for line in scores.chunks_exact_mut(keys.max(1)) {
            // A query that sees no key has no output.
            if line.iter().all(|s| *s == f32::NEG_INFINITY) {
                line.fill(0.0);
            } else {
                normalize(line);
            }
        }
        if mode == 3 {
            shown.copy_from_slice(&scores);
        }
        let values_of = &vv[line * keys * v_size..][..keys * v_size];
        let to = &mut out[pair * queries * v_size..][..queries * v_size];
        let sizes = (queries, keys, v_size);
        product(cx, Matrix(&scores, keys.max(1), 1), Matrix(values_of, v_size.max(1), 1), sizes, to)?;
    }
    if q.elem() == Elem::F64 {
        return Err(Error::unsupported("attention of doubles"));
    }
    let mut y = Tensor::new(cx, q.elem(), vec![batch, q_heads, queries, v_size], Data::F32(out))?;
    if flat {
        y = permuted(cx, &y, &[0, 2, 1, 3])?.reshaped(vec![batch, queries, q_heads * v_size])?;
    }
    let shown = Tensor::new(cx, q.elem(), score_shape, Data::F32(shown))?;
    Ok(vec![y, k, v, shown])
}

/// RotaryEmbedding of opset 23, and of com.microsoft, whose inputs stand in another order.
pub(super) fn rotary(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let contrib = call.node.domain == "com.microsoft";
    let (positions, cos, sin) = if contrib {
        (call.optional(1), call.input(2)?, call.input(3)?)
    } else {
        (call.optional(3), call.input(1)?, call.input(2)?)
    };
    let mut heads = small(call.int("num_heads", 0)?, 0, "num_heads")?;
    let dims = small(call.int("rotary_embedding_dim", 0)?, 0, "rotary_embedding_dim")?;
    let half = cos.shape().last().copied().unwrap_or(0);
    if heads == 0 && contrib && x.rank() == 3 && half > 0 {
        heads = x.shape()[2] / (2 * half);
    }
    let split = by_heads(cx, x, heads)?;
    let &[batch, heads, length, size] = split.shape() else {
        return Err(Error::malformed("four dimensions"));
    };
    let dims = if dims == 0 { size } else { dims };
    if dims > size || dims % 2 != 0 || half < dims / 2 || cos.shape() != sin.shape() {
        return Err(Error::malformed(format!(
            "{dims} of {size} numbers turned by tables of {:?}",
            cos.shape()
        )));
    }
    let (cosines, sines) = (cos.floats()?, sin.floats()?);
    let lines = cosines.len() / half.max(1);
    let positions = positions.map(Tensor::integers).transpose()?;
    let line_of = |b: usize, t: usize| -> Result<usize> {
        let line = match positions.as_deref() {
            None => b * length + t,
            Some([first]) if contrib => usize::try_from(*first).unwrap_or(usize::MAX).saturating_add(t),
            Some(list) => {
                let p = list.get(b * length + t).copied().unwrap_or(-1);
                usize::try_from(p).unwrap_or(usize::MAX)
            }
        };
        if line < lines {
            Ok(line)
        } else {
            Err(Error::malformed(format!("a position past the {lines} of the tables")))
        }
    };
    let interleaved = call.flag("interleaved", false)?;
    cx.work(split.len())?;
    let mut out = split.floats()?.into_owned();
    for b in 0..batch {
        for h in 0..heads {
            for t in 0..length {
                let line = line_of(b, t)? * half;
                let part = &mut out[((b * heads + h) * length + t) * size..][..size];
                for i in 0..dims / 2 {
                    let (p, q) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + dims / 2) };
                    let (c, s, x, y) = (cosines[line + i], sines[line + i], part[p], part[q]);
                    part[p] = x * c - y * s;
                    part[q] = x * s + y * c;
                }
            }
        }
    }
    let mut y = Tensor::new(cx, x.elem(), split.shape().to_vec(), Data::F32(out))?;
    if x.rank() == 3 {
        y = permuted(cx, &y, &[0, 2, 1, 3])?.reshaped(x.shape().to_vec())?;
    }
    Ok(vec![y])
}
