//! Operators that move elements or look at shapes alone: Reshape, Transpose, Slice, Concat, Pad and their kin.

use weighbridge_formats::{Error, Result};

use crate::eval::node::{Attribute, Call, axes, axis, small};
use crate::eval::tensor::{Cx, Data, Held, Tensor, count, same};
use crate::eval::walk::{around, broadcast, expand as stretch, gather, signed, strides};

/// A shape out of a tensor of integers.
pub(super) fn sizes_of(t: &Tensor) -> Result<Vec<usize>> {
    if t.rank() > 1 {
        return Err(Error::malformed(format!("a shape of {} dimensions", t.rank())));
    }
    let sizes: Vec<usize> = t.integers()?.iter().map(|&d| small(d, 0, "size")).collect::<Result<_>>()?;
    count(&sizes)?;
    Ok(sizes)
}

pub(super) fn reshape(_: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let wanted = call.listed("shape", 1)?.ok_or_else(|| Error::malformed("a shape is missing"))?;
    let zeros = call.flag("allowzero", false)?;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &d) in wanted.iter().enumerate() {
        shape.push(match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !zeros => {
                *x.shape().get(i).ok_or_else(|| Error::malformed("a size of 0 past the input's"))?
            }
            d => small(d, 0, "size")?,
        });
    }
    if let Some(i) = open {
        let rest = count(&shape)?;
        if rest == 0 || x.len() % rest != 0 {
            return Err(Error::malformed(format!("{} elements do not make {wanted:?}", x.len())));
        }
        shape[i] = x.len() / rest;
    }
    Ok(vec![x.reshaped(shape)?])
}

pub(super) fn flatten(_: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let a = call.int("axis", 1)?;
    let a = if a == x.rank() as i64 { x.rank() } else { axis(a, x.rank())? };
    let (before, behind) = (x.shape()[..a].iter().product(), x.shape()[a..].iter().product());
    Ok(vec![x.reshaped(vec![before, behind])?])
}

pub(super) fn transpose(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let order = match call.ints("perm")? {
        Some(list) if list.len() == x.rank() => axes(list, x.rank())?,
        Some(list) => return Err(Error::malformed(format!("{} dimensions permuted by {list:?}", x.rank()))),
        None => (0..x.rank()).rev().collect(),
    };
    Ok(vec![permuted(cx, x, &order)?])
}

pub(super) fn permuted(cx: &Cx, x: &Tensor, order: &[usize]) -> Result<Tensor> {
    let own = signed(&strides(x.shape()));
    let shape: Vec<usize> = order.iter().map(|&a| x.shape()[a]).collect();
    let steps: Vec<isize> = order.iter().map(|&a| own[a]).collect();
    let data = match (order, x.data()) {
        // The matrices of linear layers: by blocks, so that both sides stay in the cache.
        ([1, 0], Data::F32(v)) => Data::F32(turned(cx, v, x.shape()[0], x.shape()[1])?),
        _ => same!(x.data(), v => gather(cx, v, 0, &shape, &steps)?),
    };
    Tensor::exact(cx, x.elem(), shape, data)
}

fn turned(cx: &Cx, v: &[f32], rows: usize, columns: usize) -> Result<Vec<f32>> {
    const BLOCK: usize = 32;
    cx.work(v.len())?;
    let mut out = cx.filled(v.len(), 0f32)?;
    for r in (0..rows).step_by(BLOCK) {
        for c in (0..columns).step_by(BLOCK) {
            for r in r..(r + BLOCK).min(rows) {
                for c in c..(c + BLOCK).min(columns) {
                    out[c * rows + r] = v[r * columns + c];
                }
            }
        }
    }
    Ok(out)
}

pub(super) fn squeeze(_: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let gone = match call.listed("axes", 1)? {
        Some(list) => axes(&list, x.rank())?,
        None => (0..x.rank()).filter(|&a| x.shape()[a] == 1).collect(),
    };
    if let Some(&a) = gone.iter().find(|&&a| x.shape()[a] != 1) {
        return Err(Error::malformed(format!("dimension {a} of {:?} cannot be squeezed", x.shape())));
    }
    let shape = (0..x.rank()).filter(|a| !gone.contains(a)).map(|a| x.shape()[a]).collect();
    Ok(vec![x.reshaped(shape)?])
}

pub(super) fn unsqueeze(_: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let list = call.listed("axes", 1)?.ok_or_else(|| Error::malformed("axes are missing"))?;
    let rank = x.rank() + list.len();
    let new = axes(&list, rank)?;
    let mut old = x.shape().iter();
    let mut is_new = vec![false; rank];
    new.iter().for_each(|&a| is_new[a] = true);
    let shape = is_new.iter().map(|n| if *n { 1 } else { old.next().copied().unwrap_or(1) }).collect();
    Ok(vec![x.reshaped(shape)?])
}

pub(super) fn expand(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let shape = broadcast(&[x.shape(), &sizes_of(call.input(1)?)?])?;
    let data = same!(x.data(), v => stretch(cx, v, x.shape(), &shape)?);
    Ok(vec![Tensor::exact(cx, x.elem(), shape, data)?])
}

pub(super) fn tile(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let times = sizes_of_any(call.input(1)?)?;
    if times.len() != x.rank() {
        return Err(Error::malformed(format!("{} repeats of {} dimensions", times.len(), x.rank())));
    }
    // Each dimension becomes two: the repeats, which are not moved along, and its own.
    let mut view = Vec::new();
    let mut steps = Vec::new();
    let mut shape = Vec::new();
    for ((&d, &n), s) in x.shape().iter().zip(&times).zip(strides(x.shape())) {
        view.extend([n, d]);
        steps.extend([0, s as isize]);
        shape.push(d.checked_mul(n).ok_or_else(|| Error::limit("a tile beyond memory"))?);
    }
    count(&shape)?;
    let data = same!(x.data(), v => gather(cx, v, 0, &view, &steps)?);
    Ok(vec![Tensor::exact(cx, x.elem(), shape, data)?])
}

fn sizes_of_any(t: &Tensor) -> Result<Vec<usize>> {
    t.integers()?.iter().map(|&d| small(d, 0, "size")).collect()
}

pub(super) fn concat(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let first = call.input(0)?;
    let along = axis(call.int("axis", 1)?, first.rank())?;
    let parts: Vec<&Tensor> = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Result<_>>()?;
    Ok(vec![joined(cx, &parts, along)?])
}

pub(super) fn joined(cx: &Cx, parts: &[&Tensor], along: usize) -> Result<Tensor> {
    let Some(first) = parts.first() else { return Err(Error::malformed("nothing is joined")) };
    let mut shape = first.shape().to_vec();
    shape[along] = 0;
    for part in parts {
        let fits = part.elem() == first.elem()
            && part.rank() == shape.len()
            && (0..shape.len()).all(|a| a == along || part.shape()[a] == shape[a]);
        if !fits {
            return Err(Error::malformed(format!("{first:?} and {part:?} are joined along axis {along}")));
        }
        shape[along] = shape[along].saturating_add(part.shape()[along]);
    }
    let n = count(&shape)?;
    cx.work(n)?;
    let before = around(&shape, along).0;
    let data = same!(first.data(), v => {
        let mut out = cx.reserved(n)?;
        let _ = v;
        append(&mut out, parts, along, before)?;
        out
    });
    Tensor::exact(cx, first.elem(), shape, data)
}

fn append<T: Held>(out: &mut Vec<T>, parts: &[&Tensor], along: usize, before: usize) -> Result<()> {
    let mut slices = Vec::with_capacity(parts.len());
    for part in parts {
        let (_, size, behind) = around(part.shape(), along);
        slices.push((part.values::<T>()?, size * behind));
    }
    for i in 0..before {
        for (values, run) in &slices {
            out.extend_from_slice(&values[i * run..(i + 1) * run]);
        }
    }
    Ok(())
}

pub(super) fn split(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", 0)?, x.rank())?;
    let size = x.shape()[along];
    let sizes: Vec<usize> = match call.listed("split", 1)? {
        Some(list) => list.iter().map(|&d| small(d, 0, "size")).collect::<Result<_>>()?,
        None => {
            let n = small(call.int("num_outputs", call.node.outputs.len() as i64)?, 1, "num_outputs")?;
            if n > call.node.outputs.len() {
                return Err(Error::malformed(format!("{n} parts for {} outputs", call.node.outputs.len())));
            }
            let each = size.div_ceil(n);
            (0..n).map(|i| each.min(size.saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().fold(0usize, |n, &d| n.saturating_add(d)) != size {
        return Err(Error::malformed(format!("{size} is split into {sizes:?}")));
    }
    let mut start = 0;
    let mut out = Vec::with_capacity(sizes.len());
    for n in sizes {
        out.push(part(cx, x, along, start, n)?);
        start += n;
    }
    Ok(out)
}

/// So many of a dimension, from `start` on.
pub(super) fn part(cx: &Cx, x: &Tensor, along: usize, start: usize, n: usize) -> Result<Tensor> {
    let (own, mut shape) = (strides(x.shape()), x.shape().to_vec());
    shape[along] = n;
    let from = start.saturating_mul(own[along]) as isize;
    let data = same!(x.data(), v => gather(cx, v, from, &shape, &signed(&own))?);
    Tensor::exact(cx, x.elem(), shape, data)
}

/// Slice: bounds are attributes before version 10, then inputs.
pub(super) fn slice(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let missing = || Error::malformed("bounds are missing");
    let starts = call.listed("starts", 1)?.ok_or_else(missing)?;
    let ends = call.listed("ends", 2)?.ok_or_else(missing)?;
    let over = match call.listed("axes", 3)? {
        Some(list) => axes(&list, x.rank())?,
        None => (0..starts.len().min(x.rank())).collect(),
    };
    let steps = call.optional(4).map(Tensor::integers).transpose()?.unwrap_or_else(|| vec![1; starts.len()]);
    if [starts.len(), ends.len(), steps.len()] != [over.len(); 3] {
        return Err(Error::malformed("starts, ends, axes and steps of different lengths"));
    }
    let own = signed(&strides(x.shape()));
    let (mut shape, mut moves, mut from) = (x.shape().to_vec(), own.clone(), 0isize);
    for (i, &a) in over.iter().enumerate() {
        let (size, step) = (x.shape()[a] as i64, steps[i]);
        if step == 0 {
            return Err(Error::malformed("a step of 0"));
        }
        let place = |p: i64| if p < 0 { p.saturating_add(size) } else { p };
        let (first, n) = if step > 0 {
            let (first, end) = (place(starts[i]).clamp(0, size), place(ends[i]).clamp(0, size));
            (
                first,
                (end - first).max(0).checked_add(step - 1).map_or(1, |n| n / step).min((end - first).max(0)),
            )
        } else {
            let (first, end) = (place(starts[i]).clamp(-1, size - 1), place(ends[i]).clamp(-1, size - 1));
            let back = step.checked_neg().unwrap_or(i64::MAX);
            (
                first,
                (first - end).max(0).checked_add(back - 1).map_or(1, |n| n / back).min((first - end).max(0)),
            )
        };
        shape[a] = n as usize;
        moves[a] = own[a].saturating_mul(if n > 1 { step as isize } else { 0 });
        from += own[a] * first.max(0) as isize;
    }
    let data = same!(x.data(), v => gather(cx, v, from, &shape, &moves)?);
    Ok(vec![Tensor::exact(cx, x.elem(), shape, data)?])
}

/// Pad: sizes are attributes before version 11, then inputs.
pub(super) fn pad(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let old = if call.attribute("paddings").is_some() { "paddings" } else { "pads" };
    let pads = call.listed(old, 1)?.ok_or_else(|| Error::malformed("pads are missing"))?;
    let over = match call.optional(3) {
        Some(list) => axes(&list.integers()?, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * over.len() {
        return Err(Error::malformed(format!("{} pads for {} dimensions", pads.len(), over.len())));
    }
    let mode = call.text("mode", "constant")?;
    // For each dimension: from which element of the input each element of the output comes.
    let mut shape = Vec::with_capacity(x.rank());
    let mut bounds = vec![(0i64, 0i64); x.rank()];
    for (i, &a) in over.iter().enumerate() {
        bounds[a] = (pads[i], pads[i + over.len()]);
    }
    for (&d, &(low, high)) in x.shape().iter().zip(&bounds) {
        let size = (d as i64).checked_add(low).and_then(|n| n.checked_add(high));
        shape.push(small(size.unwrap_or(-1), 0, "padded size")?);
    }
    let n = count(&shape)?;
    cx.work(n)?;
    let mut sources: Vec<Vec<Option<usize>>> = Vec::with_capacity(x.rank());
    for ((&d, &(low, _)), &size) in x.shape().iter().zip(&bounds).zip(&shape) {
        let d = d as i64;
        let mut list = cx.reserved(size)?;
        for i in 0..size as i64 {
            let at = i - low;
            let inside = (0..d).contains(&at);
            let from = match mode {
                _ if inside => Some(at),
                "constant" => None,
                _ if d == 0 => return Err(Error::malformed("an empty dimension is padded from itself")),
                "edge" => Some(at.clamp(0, d - 1)),
                "wrap" => Some(at.rem_euclid(d)),
                "reflect" => {
                    let period = (2 * (d - 1)).max(1);
                    let p = at.rem_euclid(period);
                    Some(if d == 1 { 0 } else { p.min(period - p) })
                }
                other => return Err(Error::unsupported(format!("padding by {other:?}"))),
            };
            list.push(from.map(|f| f as usize));
        }
        sources.push(list);
    }
    let own = strides(x.shape());
    let given = call.optional(2).filter(|v| v.len() > 0);
    let fill = match given {
        Some(v) => v.clone(),
        None => {
            let value = Tensor::scalar(cx, call.float("value", 0.0)?)?;
            super::unary::cast_to(cx, &value, x.elem(), true)?
        }
    };
    fn padded<T: Held>(
        cx: &Cx,
        v: &[T],
        fill: T,
        n: usize,
        shape: &[usize],
        own: &[usize],
        sources: &[Vec<Option<usize>>],
    ) -> Result<Vec<T>> {
        let mut out = cx.reserved(n)?;
        let mut index = vec![0usize; shape.len()];
        for _ in 0..n {
            let mut at = Some(0);
            for ((list, &i), &s) in sources.iter().zip(&index).zip(own) {
                at = at.and_then(|at| list[i].map(|from| at + from * s));
            }
            out.push(at.map_or(fill, |at| v[at]));
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        Ok(out)
    }
    let data = same!(x.data(), v => {
        let first = fill.values()?.first().copied().ok_or_else(|| Error::malformed("an empty value"))?;
        padded(cx, v, first, n, &shape, &own, &sources)?
    });
    Ok(vec![Tensor::exact(cx, x.elem(), shape, data)?])
}

pub(super) fn shape(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let rank = x.rank() as i64;
    let clamp = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
    let (start, end) = (clamp(call.int("start", 0)?), clamp(call.int("end", rank)?));
    let sizes: Vec<i64> = x.shape().get(start..end).unwrap_or_default().iter().map(|&d| d as i64).collect();
    Ok(vec![Tensor::of(cx, vec![sizes.len()], sizes)?])
}

pub(super) fn size(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    Ok(vec![Tensor::scalar(cx, call.input(0)?.len() as i64)?])
}

pub(super) fn depth_to_space(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let block = small(call.int("blocksize", 0)?, 1, "blocksize")?;
    let &[n, c, h, w] = x.shape() else { return Err(Error::malformed("four dimensions are wanted")) };
    let squared = block.saturating_mul(block);
    if call.node.op == "SpaceToDepth" {
        if h % block != 0 || w % block != 0 {
            return Err(Error::malformed(format!("blocks of {block} in {h} × {w}")));
        }
        let split = x.reshaped(vec![n, c, h / block, block, w / block, block])?;
        let moved = permuted(cx, &split, &[0, 3, 5, 1, 2, 4])?;
        return Ok(vec![moved.reshaped(vec![n, c.saturating_mul(squared), h / block, w / block])?]);
    }
    if c % squared != 0 {
        return Err(Error::malformed(format!("{c} channels in blocks of {block}")));
    }
    let c = c / squared;
    let moved = match call.text("mode", "DCR")? {
        "DCR" => permuted(cx, &x.reshaped(vec![n, block, block, c, h, w])?, &[0, 3, 4, 1, 5, 2])?,
        "CRD" => permuted(cx, &x.reshaped(vec![n, c, block, block, h, w])?, &[0, 1, 4, 2, 5, 3])?,
        other => return Err(Error::unsupported(format!("mode {other:?}"))),
    };
    Ok(vec![moved.reshaped(vec![n, c, h.saturating_mul(block), w.saturating_mul(block)])?])
}

pub(super) fn trilu(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let k = call.optional(1).map(Tensor::integer).transpose()?.unwrap_or(0);
    let upper = call.flag("upper", true)?;
    let [.., rows, columns] = *x.shape() else { return Err(Error::malformed("a matrix is wanted")) };
    cx.work(x.len())?;
    cx.room(x.len(), 8)?;
    let keep = |i: usize| {
        let (r, c) = ((i / columns % rows) as i64, (i % columns) as i64);
        let past = (c - r).cmp(&k);
        past.is_eq() || past.is_gt() == upper
    };
    let data = same!(x.data(), v => {
        v.iter().enumerate().map(|(i, &x)| if keep(i) { x } else { Default::default() }).collect()
    });
    Ok(vec![Tensor::exact(cx, x.elem(), x.shape().to_vec(), data)?])
}

/// Constant, in all the forms of its value.
pub(super) fn constant(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let named = ["value", "value_float", "value_int", "value_floats", "value_ints"];
    let found = named.iter().find_map(|n| call.attribute(n));
    Ok(vec![match found {
        Some(Attribute::Tensor(t)) => t.clone(),
        Some(Attribute::Float(x)) => Tensor::scalar(cx, *x)?,
        Some(Attribute::Int(i)) => Tensor::scalar(cx, *i)?,
        Some(Attribute::Floats(v)) => Tensor::of(cx, vec![v.len()], v.clone())?,
        Some(Attribute::Ints(v)) => Tensor::of(cx, vec![v.len()], v.clone())?,
        Some(Attribute::Other(what)) => return Err(Error::unsupported(format!("a constant of {what}"))),
        _ => return Err(Error::unsupported("a constant that is no tensor of numbers")),
    }])
}

pub(super) fn constant_of_shape(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let shape = sizes_of(call.input(0)?)?;
    let n = count(&shape)?;
    cx.work(n)?;
    let Some(Attribute::Tensor(value)) = call.attribute("value") else {
        return Ok(vec![Tensor::of(cx, shape, cx.filled(n, 0f32)?)?]);
    };
    let data = same!(value.data(), v => match v[..] {
        [one] => cx.filled(n, one)?,
        _ => return Err(Error::malformed("a value that is no scalar")),
    });
    Ok(vec![Tensor::exact(cx, value.elem(), shape, data)?])
}

pub(super) fn range(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (start, limit, delta) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if start.elem().is_float() {
        let (a, b, d) = (start.number()?, limit.number()?, delta.number()?);
        let n = ((b - a) / d).ceil().max(0.0);
        if !n.is_finite() || n > 1e15 {
            return Err(Error::limit(format!("a range of {n} numbers")));
        }
        let n = n as usize;
        let mut values = cx.reserved::<f64>(n)?;
        cx.work(n)?;
        values.extend((0..n).map(|i| a + d * i as f64));
        let t = Tensor::of(cx, vec![n], values)?;
        return Ok(vec![super::unary::cast_to(cx, &t, start.elem(), true)?]);
    }
    let (a, b, d) = (start.integer()?, limit.integer()?, delta.integer()?);
    if d == 0 {
        return Err(Error::malformed("a range in steps of 0"));
    }
    let (span, step) = ((i128::from(b) - i128::from(a)) * i128::from(d.signum()), i128::from(d).abs());
    let n = usize::try_from(((span + step - 1) / step).max(0)).map_err(|_| Error::limit("a long range"))?;
    let mut values = cx.reserved::<i64>(n)?;
    cx.work(n)?;
    values.extend((0..n as i64).map(|i| a.wrapping_add(d.wrapping_mul(i))));
    let t = Tensor::of(cx, vec![n], values)?;
    Ok(vec![super::unary::cast_to(cx, &t, start.elem(), true)?])
}

pub(super) fn eye_like(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let to = match call.attribute("dtype") {
        Some(_) => crate::eval::elem::Elem::from_onnx(call.int("dtype", 1)?)?,
        None => x.elem(),
    };
    let &[rows, columns] = x.shape() else { return Err(Error::malformed("a matrix is wanted")) };
    let k = call.int("k", 0)?;
    let mut out = cx.filled(x.len(), 0i64)?;
    for r in 0..rows {
        if let Some(c) =
            (r as i64).checked_add(k).and_then(|c| usize::try_from(c).ok()).filter(|&c| c < columns)
        {
            out[r * columns + c] = 1;
        }
    }
    let t = Tensor::of(cx, x.shape().to_vec(), out)?;
    Ok(vec![super::unary::cast_to(cx, &t, to, true)?])
}
