//! Normalizations: over the last dimensions, over channels, over groups; and LRN and MeanVarianceNormalization.
//!
//! Means and variances are taken in f64, whatever the stash type says.

use weighbridge_formats::{Error, Result};

use super::binary::two;
use crate::eval::elem::Elem;
use crate::eval::node::{Call, axis, small};
use crate::eval::tensor::{Cx, Data, Tensor};
use crate::eval::walk::{broadcast, expand};

/// The mean of a line, and the mean of the squared distances to it.
fn moments(line: &[f32]) -> (f64, f64) {
    let n = line.len().max(1) as f64;
    let mean = line.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = line.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance)
}

fn from_f32(cx: &Cx, elem: Elem, shape: Vec<usize>, values: Vec<f32>) -> Result<Tensor> {
    let data = match elem {
        Elem::F64 => Data::F64(values.into_iter().map(f64::from).collect()),
        _ => Data::F32(values),
    };
    Tensor::new(cx, elem, shape, data)
}

/// A scale or bias stretched over the dimensions that are normalized.
fn stretched(cx: &Cx, t: &Tensor, shape: &[usize]) -> Result<Vec<f32>> {
    if broadcast(&[t.shape(), shape])? != shape {
        return Err(Error::malformed(format!("a scale of {:?} for {shape:?}", t.shape())));
    }
    expand(cx, &t.floats()?, t.shape(), shape)
}

/// LayerNormalization, RMSNormalization (23), and com.microsoft's SimplifiedLayerNormalization.
pub(super) fn layer(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    normalized(cx, call, x, call.input(1)?, call.optional(2))
}

fn normalized(
    cx: &Cx,
    call: &Call<'_>,
    x: &Tensor,
    scale: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Vec<Tensor>> {
    let centred =
        matches!(&*call.node.op, "LayerNormalization" | "SkipLayerNormalization" | "EmbedLayerNormalization");
    let from = axis(call.int("axis", -1)?, x.rank())?;
    let default = if call.node.domain == "com.microsoft" { 1e-12 } else { 1e-5 };
    let epsilon = f64::from(call.float("epsilon", default)?);
    let inner = &x.shape()[from..];
    // A scale may be stretched over all of the input, though it is rarely more than one line.
    let line: usize = inner.iter().product();
    let (scales, whole) = match broadcast(&[scale.shape(), inner])? {
        s if s == inner => (stretched(cx, scale, inner)?, false),
        _ => (stretched(cx, scale, x.shape())?, true),
    };
    let biases = match bias {
        Some(b) if whole => Some(stretched(cx, b, x.shape())?),
        Some(b) => Some(stretched(cx, b, inner)?),
        None => None,
    };
    cx.work(x.len().saturating_mul(4))?;
    let mut out = x.floats()?.into_owned();
    let count = out.len().checked_div(line).unwrap_or(0);
    let (mut means, mut inverses) = (cx.reserved(count)?, cx.reserved(count)?);
    for (i, part) in out.chunks_exact_mut(line.max(1)).enumerate() {
        let (mean, spread) = if centred {
            moments(part)
        } else {
            (0.0, part.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / line.max(1) as f64)
        };
        let inverse = 1.0 / (spread + epsilon).sqrt();
        let at = if whole { i * line } else { 0 };
        for (j, x) in part.iter_mut().enumerate() {
            let unit = ((f64::from(*x) - mean) * inverse) as f32;
            *x = unit * scales[at + j] + biases.as_ref().map_or(0.0, |b| b[at + j]);
        }
        means.push(mean as f32);
        inverses.push(inverse as f32);
    }
    let mut folded = x.shape().to_vec();
    folded[from..].fill(1);
    let y = from_f32(cx, x.elem(), x.shape().to_vec(), out)?;
    if folded.iter().product::<usize>() != means.len() {
        return Ok(vec![y]);
    }
    Ok(vec![y, Tensor::of(cx, folded.clone(), means)?, Tensor::of(cx, folded, inverses)?])
}

/// com.microsoft SkipLayerNormalization and SkipSimplifiedLayerNormalization: a sum, normalized.
pub(super) fn skip_layer(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let simplified = call.node.op == "SkipSimplifiedLayerNormalization";
    let mut sum = two(cx, "Add", false, call.input(0)?, call.input(1)?)?;
    let (bias, extra) =
        if simplified { (None, call.optional(3)) } else { (call.optional(3), call.optional(4)) };
    if let Some(extra) = extra {
        sum = two(cx, "Add", false, &sum, extra)?;
    }
    let mut out = normalized(cx, call, &sum, call.input(2)?, bias)?;
    out.truncate(1);
    // Outputs: the normalized sum, mean, inverse deviation (neither is kept here), and the sum itself.
    if call.node.outputs.len() > 3 {
        let none = Tensor::of(cx, vec![0], Vec::<f32>::new())?;
        out.extend([none.clone(), none, sum]);
    }
    Ok(out)
}

/// A list of one number for each channel.
fn channels<'t>(t: &'t Tensor, n: usize, what: &str) -> Result<std::borrow::Cow<'t, [f32]>> {
    if t.len() != n {
        return Err(Error::malformed(format!("{} numbers of {what} for {n} channels", t.len())));
    }
    t.floats()
}

/// BatchNormalization as it is when a model is used.
pub(super) fn batch(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let trained = call.version() < 7 && call.int("is_test", 0)? == 0 && call.node.outputs.len() > 1;
    if call.flag("training_mode", false)? || trained {
        return Err(Error::unsupported("BatchNormalization in training mode"));
    }
    let n = x.shape().get(1).copied().unwrap_or(1);
    let (scale, bias) = (channels(call.input(1)?, n, "scale")?, channels(call.input(2)?, n, "bias")?);
    let (mean, variance) = (channels(call.input(3)?, n, "mean")?, channels(call.input(4)?, n, "variance")?);
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let inner: usize = x.shape().iter().skip(2).product();
    cx.work(x.len())?;
    let mut out = x.floats()?.into_owned();
    for (i, part) in out.chunks_exact_mut(inner.max(1)).enumerate() {
        let c = i % n.max(1);
        let factor = f64::from(scale[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        for x in part {
            *x = ((f64::from(*x) - f64::from(mean[c])) * factor + f64::from(bias[c])) as f32;
        }
    }
    Ok(vec![from_f32(cx, x.elem(), x.shape().to_vec(), out)?])
}

/// InstanceNormalization and GroupNormalization: each channel or group of channels of each sample by itself.
pub(super) fn group(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let &[samples, n, ..] = x.shape() else { return Err(Error::malformed("channels are wanted")) };
    let groups = match &*call.node.op {
        "InstanceNormalization" => n,
        _ => small(call.int("num_groups", 0)?, 1, "num_groups")?,
    };
    if groups == 0 || n % groups != 0 {
        return Err(Error::malformed(format!("{n} channels in {groups} groups")));
    }
    // Before version 21 a group has one scale.
    let scales = call.input(1)?;
    let by_group = call.node.op == "GroupNormalization" && call.version() < 21 && scales.len() == groups;
    let wanted = if by_group { groups } else { n };
    let (scale, bias) = (channels(scales, wanted, "scale")?, channels(call.input(2)?, wanted, "bias")?);
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let inner: usize = x.shape()[2..].iter().product();
    let size = n / groups * inner;
    cx.work(x.len().saturating_mul(4))?;
    let _ = samples;
    let mut out = x.floats()?.into_owned();
    for (i, part) in out.chunks_exact_mut(size.max(1)).enumerate() {
        let (mean, variance) = moments(part);
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for (j, x) in part.iter_mut().enumerate() {
            let g = i % groups;
            let c = if by_group { g } else { g * (n / groups) + j / inner.max(1) };
            *x = ((f64::from(*x) - mean) * inverse * f64::from(scale[c]) + f64::from(bias[c])) as f32;
        }
    }
    Ok(vec![from_f32(cx, x.elem(), x.shape().to_vec(), out)?])
}

/// Local response normalization, across channels.
pub(super) fn local_response(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let &[_, n, ..] = x.shape() else { return Err(Error::malformed("channels are wanted")) };
    let size = small(call.int("size", 0)?, 1, "size")?;
    let (alpha, beta) = (f64::from(call.float("alpha", 1e-4)?), f64::from(call.float("beta", 0.75)?));
    let bias = f64::from(call.float("bias", 1.0)?);
    let inner: usize = x.shape()[2..].iter().product();
    cx.work(x.len().saturating_mul(size.min(n)))?;
    let v = x.floats()?;
    let mut out = cx.reserved(v.len())?;
    for (i, &value) in v.iter().enumerate() {
        let c = i / inner.max(1) % n;
        let first = c.saturating_sub((size - 1) / 2);
        let last = (c + size / 2).min(n - 1);
        let at = |k: usize| f64::from(v[i - c * inner + k * inner]);
        let sum: f64 = (first..=last).map(|k| at(k).powi(2)).sum();
        out.push((f64::from(value) / (bias + alpha / size as f64 * sum).powf(beta)) as f32);
    }
    Ok(vec![from_f32(cx, x.elem(), x.shape().to_vec(), out)?])
}

/// LpNormalization: each line along an axis by its norm.
pub(super) fn lp(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", -1)?, x.rank())?;
    let p = call.int("p", 2)?;
    let (before, size, behind) = crate::eval::walk::around(x.shape(), along);
    cx.work(x.len().saturating_mul(2))?;
    let mut out = x.floats()?.into_owned();
    for i in 0..before {
        for j in 0..behind {
            let at = |k: usize| (i * size + k) * behind + j;
            let sum: f64 =
                (0..size).map(|k| f64::from(out[at(k)])).map(|x| if p == 1 { x.abs() } else { x * x }).sum();
            let norm = if p == 1 { sum } else { sum.sqrt() };
            // A line of zeros stays one.
            for k in (0..size).filter(|_| norm != 0.0) {
                out[at(k)] = (f64::from(out[at(k)]) / norm) as f32;
            }
        }
    }
    Ok(vec![from_f32(cx, x.elem(), x.shape().to_vec(), out)?])
}
