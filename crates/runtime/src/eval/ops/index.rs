//! Operators that read and write elements by index: Gather, Scatter and their kin.

use weighbridge_formats::{Error, Result};

use crate::eval::node::{Call, axis, small};
use crate::eval::tensor::{Cx, Data, Held, Tensor, count, each, same};
use crate::eval::walk::{around, strides};

/// An index, counted from the back where it is negative.
fn place(i: i64, size: usize) -> Result<usize> {
    let from_front = if i < 0 { i.checked_add(size as i64) } else { Some(i) };
    from_front
        .and_then(|i| usize::try_from(i).ok())
        .filter(|&i| i < size)
        .ok_or_else(|| Error::malformed(format!("index {i} of {size} elements")))
}

fn places(t: &Tensor, size: usize) -> Result<Vec<usize>> {
    t.integers()?.iter().map(|&i| place(i, size)).collect()
}

pub(super) fn gather(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let along = axis(call.int("axis", 0)?, x.rank())?;
    cx.room(indices.len(), 16)?;
    let list = places(indices, x.shape()[along])?;
    let mut shape = x.shape()[..along].to_vec();
    shape.extend_from_slice(indices.shape());
    shape.extend_from_slice(&x.shape()[along + 1..]);
    Ok(vec![picked(cx, x, along, &list, shape)?])
}

/// The slices of an axis at these places, which lie inside it, one after the other: `shape` has so many elements.
fn picked(cx: &Cx, x: &Tensor, along: usize, list: &[usize], shape: Vec<usize>) -> Result<Tensor> {
    let (before, size, behind) = around(x.shape(), along);
    let n = count(&shape)?;
    cx.work(n)?;
    let data = same!(x.data(), v => {
        let mut out = cx.reserved(n)?;
        for i in 0..before {
            for &p in list {
                let at = (i * size + p) * behind;
                out.extend_from_slice(&v[at..at + behind]);
            }
        }
        out
    });
    Tensor::exact(cx, x.elem(), shape, data)
}

/// For each element of the indices of GatherElements and ScatterElements: where it points into the data.
fn element_places(cx: &Cx, x: &Tensor, indices: &Tensor, along: usize) -> Result<Vec<usize>> {
    if indices.rank() != x.rank() {
        return Err(Error::malformed(format!("indices of {:?} into {:?}", indices.shape(), x.shape())));
    }
    let fits = |a: usize| a == along || indices.shape()[a] <= x.shape()[a];
    if !(0..x.rank()).all(fits) {
        return Err(Error::malformed(format!("indices of {:?} into {:?}", indices.shape(), x.shape())));
    }
    cx.room(indices.len(), 24)?;
    cx.work(indices.len())?;
    let list = places(indices, x.shape()[along])?;
    let own = strides(x.shape());
    let mut index = vec![0usize; x.rank()];
    let mut out = Vec::with_capacity(list.len());
    for p in list {
        let at = (0..x.rank()).map(|a| own[a] * if a == along { p } else { index[a] }).sum();
        out.push(at);
        for a in (0..x.rank()).rev() {
            index[a] += 1;
            if index[a] < indices.shape()[a] {
                break;
            }
            index[a] = 0;
        }
    }
    Ok(out)
}

pub(super) fn gather_elements(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let along = axis(call.int("axis", 0)?, x.rank())?;
    let list = element_places(cx, x, indices, along)?;
    let data = same!(x.data(), v => list.iter().map(|&p| v[p]).collect());
    Ok(vec![Tensor::exact(cx, x.elem(), indices.shape().to_vec(), data)?])
}

/// How a scattered element meets the one that is there.
fn combine<T: Held>(how: &str, old: T, new: T, sum: fn(T, T) -> T, product: fn(T, T) -> T) -> T {
    match how {
        "add" => sum(old, new),
        "mul" => product(old, new),
        "max" => {
            if old > new {
                old
            } else {
                new
            }
        }
        "min" => {
            if old < new {
                old
            } else {
                new
            }
        }
        _ => new,
    }
}

/// Writes runs of `run` elements of `updates` at the places in `list`.
fn scatter(cx: &Cx, x: &Tensor, updates: &Tensor, list: &[usize], run: usize, how: &str) -> Result<Tensor> {
    if !["none", "add", "mul", "max", "min"].contains(&how) {
        return Err(Error::unsupported(format!("reduction {how:?}")));
    }
    if x.elem() != updates.elem() {
        return Err(Error::malformed(format!("updates of {} to {}", updates.elem().name(), x.elem().name())));
    }
    cx.work(updates.len())?;
    cx.room(x.len(), 8)?;
    macro_rules! scattered {
        ($($variant:ident $sum:expr, $product:expr;)*) => {
            match (x.data(), updates.data()) {
                $((Data::$variant(v), Data::$variant(u)) => {
                    let mut out = v.clone();
                    for (i, &p) in list.iter().enumerate() {
                        for j in 0..run {
                            out[p + j] = combine(how, out[p + j], u[i * run + j], $sum, $product);
                        }
                    }
                    Data::$variant(out)
                })*
                _ => return Err(Error::malformed("updates of another type")),
            }
        };
    }
    let data = scattered! {
        F32 |a, b| a + b, |a, b| a * b; F64 |a, b| a + b, |a, b| a * b;
        I8 i8::wrapping_add, i8::wrapping_mul; I16 i16::wrapping_add, i16::wrapping_mul;
        I32 i32::wrapping_add, i32::wrapping_mul; I64 i64::wrapping_add, i64::wrapping_mul;
        U8 u8::wrapping_add, u8::wrapping_mul; U16 u16::wrapping_add, u16::wrapping_mul;
        U32 u32::wrapping_add, u32::wrapping_mul; U64 u64::wrapping_add, u64::wrapping_mul;
        Bool |a, b| a | b, |a, b| a & b;
    };
    Tensor::new(cx, x.elem(), x.shape().to_vec(), data)
}

pub(super) fn scatter_elements(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let along = axis(call.int("axis", 0)?, x.rank())?;
    if indices.shape() != updates.shape() {
        return Err(Error::malformed("indices and updates of different shapes"));
    }
    let list = element_places(cx, x, indices, along)?;
    Ok(vec![scatter(cx, x, updates, &list, 1, call.text("reduction", "none")?)?])
}

/// For each index vector in the last dimension of `indices`: where it points, behind `batch` shared dimensions, and how
/// many elements each one means.
fn nd_places(cx: &Cx, x: &Tensor, indices: &Tensor, batch: usize) -> Result<(Vec<usize>, usize)> {
    let wrong = || Error::malformed(format!("indices of {:?} into {:?}", indices.shape(), x.shape()));
    let Some((&depth, lead)) = indices.shape().split_last() else { return Err(wrong()) };
    if batch > lead.len() || batch + depth > x.rank() || lead[..batch] != x.shape()[..batch] {
        return Err(wrong());
    }
    let run = x.shape()[batch + depth..].iter().product();
    let own = strides(x.shape());
    let tuples: usize = lead.iter().product();
    let per_batch: usize = lead[batch..].iter().product();
    let block: usize = x.shape()[batch..].iter().product();
    cx.room(tuples, 16)?;
    cx.work(tuples)?;
    let values = indices.integers()?;
    let mut out = Vec::with_capacity(tuples);
    for i in 0..tuples {
        let mut at = i / per_batch.max(1) * block;
        for d in 0..depth {
            at += place(values[i * depth + d], x.shape()[batch + d])? * own[batch + d];
        }
        // A shape with a zero in it has no element to point to.
        if at + run > x.len() {
            return Err(wrong());
        }
        out.push(at);
    }
    Ok((out, run))
}

pub(super) fn gather_nd(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch = small(call.int("batch_dims", 0)?, 0, "batch_dims")?;
    let (list, run) = nd_places(cx, x, indices, batch)?;
    let depth = indices.shape().last().copied().unwrap_or(0);
    let mut shape = indices.shape()[..indices.rank() - 1].to_vec();
    shape.extend_from_slice(&x.shape()[batch + depth..]);
    let n = count(&shape)?;
    cx.work(n)?;
    let data = same!(x.data(), v => {
        let mut out = cx.reserved(n)?;
        list.iter().for_each(|&p| out.extend_from_slice(&v[p..p + run]));
        out
    });
    Ok(vec![Tensor::exact(cx, x.elem(), shape, data)?])
}

pub(super) fn scatter_nd(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (list, run) = nd_places(cx, x, indices, 0)?;
    if list.len().checked_mul(run) != Some(updates.len()) {
        return Err(Error::malformed(format!("updates of {:?}", updates.shape())));
    }
    Ok(vec![scatter(cx, x, updates, &list, run, call.text("reduction", "none")?)?])
}

pub(super) fn one_hot(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (indices, depth, values) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let depth = small(depth.number()? as i64, 0, "depth")?;
    let along = axis(call.int("axis", -1)?, indices.rank() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(along, depth);
    let n = count(&shape)?;
    cx.work(n)?;
    cx.room(indices.len(), 16)?;
    let list: Vec<i64> = each!(indices.data(), v => v.iter().map(|x| Held::to_f64(*x) as i64).collect());
    let (before, _, behind) = around(&shape, along);
    let data = same!(values.data(), v => {
        let [off, on] = v[..] else { return Err(Error::malformed("two values are wanted")) };
        let mut out = cx.filled(n, off)?;
        for i in 0..before {
            for j in 0..behind {
                // An index out of range leaves its line as it is.
                if let Ok(p) = place(list[i * behind + j], depth) {
                    out[(i * depth + p) * behind + j] = on;
                }
            }
        }
        out
    });
    Ok(vec![Tensor::exact(cx, values.elem(), shape, data)?])
}

pub(super) fn non_zero(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    cx.work(x.len())?;
    cx.room(x.len(), 8 * (x.rank() + 1))?;
    let found: Vec<usize> = each!(x.data(), v => {
        v.iter().enumerate().filter(|(_, x)| Held::to_f64(**x) != 0.0).map(|(i, _)| i).collect()
    });
    let own = strides(x.shape());
    let mut out = Vec::with_capacity(found.len() * x.rank());
    for (a, s) in own.iter().enumerate() {
        out.extend(found.iter().map(|i| (i / s % x.shape()[a]) as i64));
    }
    Ok(vec![Tensor::of(cx, vec![x.rank(), found.len()], out)?])
}

pub(super) fn compress(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, condition) = (call.input(0)?, call.input(1)?);
    let chosen: Vec<i64> =
        condition.values::<bool>()?.iter().enumerate().filter(|(_, c)| **c).map(|(i, _)| i as i64).collect();
    let (x, along) = match call.attribute("axis") {
        Some(_) => (x.clone(), axis(call.int("axis", 0)?, x.rank())?),
        None => (x.reshaped(vec![x.len()])?, 0),
    };
    let size = x.shape()[along];
    let list: Vec<usize> = chosen.iter().map(|&i| place(i, size)).collect::<Result<_>>()?;
    let mut shape = x.shape().to_vec();
    shape[along] = list.len();
    Ok(vec![picked(cx, &x, along, &list, shape)?])
}

pub(super) fn reverse_sequence(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, lengths) = (call.input(0)?, call.input(1)?.integers()?);
    let (batch, time) = (call.int("batch_axis", 1)?, call.int("time_axis", 0)?);
    let (batch, time) = (axis(batch, x.rank())?, axis(time, x.rank())?);
    if batch == time || lengths.len() != x.shape()[batch] {
        return Err(Error::malformed("sequence lengths that do not fit"));
    }
    let own = strides(x.shape());
    cx.work(x.len())?;
    cx.room(x.len(), 8)?;
    let mut list = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        let (b, t) = (i / own[batch] % x.shape()[batch], i / own[time] % x.shape()[time]);
        let n = small(lengths[b], 0, "sequence length")?.min(x.shape()[time]);
        list.push(if t < n { i - t * own[time] + (n - 1 - t) * own[time] } else { i });
    }
    let data = same!(x.data(), v => list.iter().map(|&p| v[p]).collect());
    Ok(vec![Tensor::exact(cx, x.elem(), x.shape().to_vec(), data)?])
}
