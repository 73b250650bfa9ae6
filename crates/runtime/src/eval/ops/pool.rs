//! Pooling: the largest, the mean or the norm of windows, or of everything.

use weighbridge_formats::{Error, Result};

use super::conv::{Windows, each_index};
use crate::eval::elem::Elem;
use crate::eval::node::Call;
use crate::eval::tensor::{Cx, Data, Held, Tensor, count};

fn windows(call: &Call<'_>, x: &Tensor) -> Result<Windows> {
    let Some(space) = x.shape().get(2..).filter(|s| !s.is_empty()) else {
        return Err(Error::malformed(format!("windows over {:?}", x.shape())));
    };
    let kernel = call.sizes("kernel_shape", space.len(), 1, 1)?;
    Windows::of(call, space, kernel, call.flag("ceil_mode", false)?)
}

fn output(cx: &Cx, x: &Tensor, space: &[usize], values: Vec<f64>) -> Result<Tensor> {
    let mut shape = x.shape()[..2].to_vec();
    shape.extend_from_slice(space);
    let data = match x.elem() {
        Elem::F64 => Data::F64(values),
        _ => Data::F32(values.into_iter().map(|x| x as f32).collect()),
    };
    Tensor::new(cx, x.elem(), shape, data)
}

/// How many windows' places are visited in all.
fn visits(cx: &Cx, x: &Tensor, w: &Windows) -> Result<usize> {
    let planes = x.shape()[0].saturating_mul(x.shape()[1]);
    let n = planes.saturating_mul(count(&w.output)?);
    cx.work(n.saturating_mul(count(&w.kernel)?).saturating_mul(2))?;
    Ok(n)
}

pub(super) fn max(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let w = windows(call, x)?;
    let n = visits(cx, x, &w)?;
    let column_major = call.flag("storage_order", false)?;
    fn of<T: Held>(
        cx: &Cx,
        v: &[T],
        w: &Windows,
        n: usize,
        least: T,
        places: &mut Vec<i64>,
    ) -> Result<Vec<T>> {
        let area = count(&w.input)?;
        let mut out = cx.reserved(n)?;
        for (plane, v) in v.chunks_exact(area.max(1)).enumerate() {
            each_index(&w.output, |o| {
                let (mut best, mut place) = (least, None);
                each_index(&w.kernel, |k| {
                    if let Some(i) = w.source(o, k)
                        && (v[i] > best || place.is_none())
                    {
                        (best, place) = (v[i], Some(i));
                    }
                });
                out.push(best);
                places.push((plane * area + place.unwrap_or(0)) as i64);
            });
        }
        Ok(out)
    }
    let mut places = cx.reserved(n)?;
    let data = match x.data() {
        Data::F32(v) => Data::F32(of(cx, v, &w, n, f32::NEG_INFINITY, &mut places)?),
        Data::F64(v) => Data::F64(of(cx, v, &w, n, f64::NEG_INFINITY, &mut places)?),
        Data::I8(v) => Data::I8(of(cx, v, &w, n, i8::MIN, &mut places)?),
        Data::U8(v) => Data::U8(of(cx, v, &w, n, 0, &mut places)?),
        _ => return Err(Error::unsupported(format!("MaxPool of {}", x.elem().name()))),
    };
    if column_major && let &[h, width] = &w.input[..] {
        let area = (h * width).max(1) as i64;
        for p in &mut places {
            let (plane, at) = (*p / area, *p % area);
            *p = plane * area + at % width.max(1) as i64 * h as i64 + at / width.max(1) as i64;
        }
    }
    let mut shape = x.shape()[..2].to_vec();
    shape.extend_from_slice(&w.output);
    Ok(vec![Tensor::exact(cx, x.elem(), shape.clone(), data)?, Tensor::of(cx, shape, places)?])
}

pub(super) fn average(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let w = windows(call, x)?;
    let n = visits(cx, x, &w)?;
    let margins = call.flag("count_include_pad", false)?;
    let lp = call.node.op == "LpPool";
    let p = call.int("p", 2)? as f64;
    let area = count(&w.input)?;
    let v = x.floats()?;
    let mut out = cx.reserved(n)?;
    for v in v.chunks_exact(area.max(1)) {
        each_index(&w.output, |o| {
            let (mut sum, mut counted) = (0f64, 0usize);
            each_index(&w.kernel, |k| {
                if let Some(i) = w.source(o, k) {
                    let x = f64::from(v[i]);
                    sum += if lp { x.abs().powf(p) } else { x };
                    counted += 1;
                } else if margins {
                    // A window may reach past the margin where their number is rounded up: that does not count.
                    let inside = (0..o.len()).all(|d| {
                        o[d] * w.stride[d] + k[d] * w.dilation[d] < w.input[d] + w.pads[d].0 + w.pads[d].1
                    });
                    counted += usize::from(inside);
                }
            });
            out.push(if lp { sum.powf(1.0 / p) } else { sum / counted.max(1) as f64 });
        });
    }
    Ok(vec![output(cx, x, &w.output, out)?])
}

/// GlobalAveragePool, GlobalMaxPool and GlobalLpPool.
pub(super) fn global(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let Some(space) = x.shape().get(2..) else { return Err(Error::malformed("channels are wanted")) };
    let area: usize = space.iter().product();
    let p = call.int("p", 2)? as f64;
    cx.work(x.len())?;
    let v = x.floats()?;
    let values = v
        .chunks_exact(area.max(1))
        .map(|v| {
            let wide = v.iter().map(|&x| f64::from(x));
            match &*call.node.op {
                "GlobalMaxPool" => wide.fold(f64::NEG_INFINITY, f64::max),
                "GlobalLpPool" => wide.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p),
                _ => wide.sum::<f64>() / area as f64,
            }
        })
        .collect();
    Ok(vec![output(cx, x, &vec![1; space.len()], values)?])
}
