//! Convolutions of any number of dimensions, by unrolling windows into a matrix.

use weighbridge_formats::{Error, Result};

use super::matmul::{Matrix, centred, integer_product, product};
use crate::eval::elem::Elem;
use crate::eval::node::{Call, small};
use crate::eval::tensor::{Cx, Data, Tensor, count};
use crate::eval::walk::strides;

/// Sizes, steps and margins of windows that slide over some dimensions.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) input: Vec<usize>,
    pub(super) kernel: Vec<usize>,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    /// Before and behind each dimension.
    pub(super) pads: Vec<(usize, usize)>,
    pub(super) output: Vec<usize>,
}

impl Windows {
    /// From a node's attributes. `ceil` rounds the number of windows up.
    pub(super) fn of(call: &Call<'_>, input: &[usize], kernel: Vec<usize>, ceil: bool) -> Result<Self> {
        let n = input.len();
        let stride = call.sizes("strides", n, 1, 1)?;
        let dilation = call.sizes("dilations", n, 1, 1)?;
        let auto = call.text("auto_pad", "NOTSET")?;
        let given = call.sizes("pads", 2 * n, 0, 0)?;
        let (mut pads, mut output) = (Vec::new(), Vec::new());
        for d in 0..n {
            let span = (kernel[d] - 1).saturating_mul(dilation[d]).saturating_add(1);
            let (before, behind) = match auto {
                "NOTSET" | "" => (given[d], given[d + n]),
                "VALID" => (0, 0),
                "SAME_UPPER" | "SAME_LOWER" => {
                    let windows = input[d].div_ceil(stride[d]);
                    let covered = windows.saturating_sub(1).saturating_mul(stride[d]).saturating_add(span);
                    let all = covered.saturating_sub(input[d]);
                    let half = all / 2;
                    if auto == "SAME_UPPER" { (half, all - half) } else { (all - half, half) }
                }
                other => return Err(Error::unsupported(format!("auto_pad {other:?}"))),
            };
            let padded = input[d].saturating_add(before).saturating_add(behind);
            let Some(room) = padded.checked_sub(span) else {
                return Err(Error::malformed(format!("a window of {span} in {padded} elements")));
            };
            let mut windows = room / stride[d] + 1;
            if ceil && room % stride[d] != 0 {
                // A window that begins in the margin behind the input is left out.
                if windows * stride[d] < input[d] + before {
                    windows += 1;
                }
            }
            pads.push((before, behind));
            output.push(windows);
        }
        count(&output)?;
        count(&kernel)?;
        Ok(Self { input: input.to_vec(), kernel, stride, dilation, pads, output })
    }

    /// For window `o` and place `k` in it: which element of the input, if it is not in the margin.
    pub(super) fn source(&self, o: &[usize], k: &[usize]) -> Option<usize> {
        let mut at = 0;
        for d in 0..o.len() {
            let i = (o[d] * self.stride[d] + k[d] * self.dilation[d]).checked_sub(self.pads[d].0)?;
            if i >= self.input[d] {
                return None;
            }
            at = at * self.input[d] + i;
        }
        Some(at)
    }
}

/// All indices of a shape, in row-major order.
pub(super) fn each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0usize; shape.len()];
    loop {
        f(&index);
        let mut d = shape.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// The table from (place in the window, window) to the input's element; `usize::MAX` is the margin.
fn table(cx: &Cx, w: &Windows) -> Result<Vec<usize>> {
    let (kernels, windows) = (count(&w.kernel)?, count(&w.output)?);
    let n = kernels.checked_mul(windows).ok_or_else(|| Error::limit("a convolution beyond memory"))?;
    cx.work(n)?;
    let mut out = cx.reserved(n)?;
    each_index(&w.kernel, |k| each_index(&w.output, |o| out.push(w.source(o, k).unwrap_or(usize::MAX))));
    Ok(out)
}

/// What a convolution's inputs say together.
struct Sizes {
    samples: usize,
    channels: usize,
    filters: usize,
    groups: usize,
    windows: Windows,
}

fn sizes(call: &Call<'_>, x: &Tensor, w: &Tensor) -> Result<Sizes> {
    let wrong = || Error::malformed(format!("a convolution of {:?} by {:?}", x.shape(), w.shape()));
    let ([samples, channels, space @ ..], [filters, per_group, kernel @ ..]) = (x.shape(), w.shape()) else {
        return Err(wrong());
    };
    let groups = small(call.int("group", 1)?, 1, "group")?;
    let fits = per_group.checked_mul(groups) == Some(*channels) && filters % groups == 0;
    if !fits || space.len() != kernel.len() || kernel.contains(&0) {
        return Err(wrong());
    }
    if call.ints("kernel_shape")?.is_some() && call.sizes("kernel_shape", kernel.len(), 0, 1)? != kernel {
        return Err(wrong());
    }
    let windows = Windows::of(call, space, kernel.to_vec(), false)?;
    Ok(Sizes { samples: *samples, channels: *channels, filters: *filters, groups, windows })
}

/// Unrolls and multiplies; `multiply` takes filters (m × k), the unrolled windows (k × n) and where the result goes.
fn convolve<O: Clone + Default>(
    cx: &Cx,
    s: &Sizes,
    x: &[f32],
    w: &[f32],
    multiply: impl Fn(Matrix<'_, f32>, Matrix<'_, f32>, (usize, usize, usize), &mut [O]) -> Result<()>,
) -> Result<(Vec<usize>, Vec<O>)> {
    let (windows, area) = (count(&s.windows.output)?, count(&s.windows.input)?);
    let mut shape = vec![s.samples, s.filters];
    shape.extend_from_slice(&s.windows.output);
    let mut out = cx.filled(count(&shape)?, O::default())?;
    let (per_group, filters) = (s.channels / s.groups, s.filters / s.groups);
    let places = table(cx, &s.windows)?;
    let depth = places.len().checked_div(windows).unwrap_or(0).saturating_mul(per_group);
    let rolled = depth.checked_mul(windows).ok_or_else(|| Error::limit("a convolution beyond memory"))?;
    let mut unrolled = cx.filled(rolled, 0f32)?;
    for sample in 0..s.samples {
        for group in 0..s.groups {
            cx.work(rolled)?;
            for c in 0..per_group {
                let from = (sample * s.channels + group * per_group + c) * area;
                let to = &mut unrolled[c * places.len()..(c + 1) * places.len()];
                for (u, &p) in to.iter_mut().zip(&places) {
                    *u = if p == usize::MAX { 0.0 } else { x[from + p] };
                }
            }
            let filter = group * filters;
            let weights = &w[filter * depth..(filter + filters) * depth];
            let at = (sample * s.filters + filter) * windows;
            let part = &mut out[at..at + filters * windows];
            let (a, b) = (Matrix(weights, depth.max(1), 1), Matrix(&unrolled, windows.max(1), 1));
            multiply(a, b, (filters, depth, windows), part)?;
        }
    }
    Ok((shape, out))
}

/// Adds a number to each channel.
fn add_bias(out: &mut [f32], bias: Option<&Tensor>, filters: usize, area: usize) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    if bias.len() != filters {
        return Err(Error::malformed(format!("{} biases for {filters} filters", bias.len())));
    }
    let bias = bias.floats()?;
    for (i, part) in out.chunks_exact_mut(area.max(1)).enumerate() {
        part.iter_mut().for_each(|x| *x += bias[i % filters.max(1)]);
    }
    Ok(())
}

pub(super) fn conv(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let s = sizes(call, x, w)?;
    let multiply =
        |a: Matrix<'_, f32>, b: Matrix<'_, f32>, sizes, out: &mut [f32]| product(cx, a, b, sizes, out);
    let (shape, mut out) = convolve(cx, &s, &x.floats()?, &w.floats()?, multiply)?;
    add_bias(&mut out, call.optional(2), s.filters, count(&s.windows.output)?)?;
    let data = if x.elem() == Elem::F64 {
        Data::F64(out.into_iter().map(f64::from).collect())
    } else {
        Data::F32(out)
    };
    Ok(vec![Tensor::new(cx, x.elem(), shape, data)?])
}

pub(super) fn conv_integer(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let s = sizes(call, x, w)?;
    // A zero point of the weights may be one for each filter: the first dimension.
    let (a, b) = (centred(cx, x, call.optional(2), x.rank())?, centred(cx, w, call.optional(3), w.rank())?);
    let multiply = |a: Matrix<'_, f32>, b: Matrix<'_, f32>, sizes, out: &mut [i32]| {
        integer_product(cx, a, b, sizes, out)
    };
    let (shape, out) = convolve(cx, &s, &a, &b, multiply)?;
    Ok(vec![Tensor::of(cx, shape, out)?])
}

pub(super) fn transposed(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let wrong =
        || Error::malformed(format!("a transposed convolution of {:?} by {:?}", x.shape(), w.shape()));
    let (&[samples, channels, ref space @ ..], &[from, per_group, ref kernel @ ..]) = (x.shape(), w.shape())
    else {
        return Err(wrong());
    };
    let groups = small(call.int("group", 1)?, 1, "group")?;
    if from != channels || channels % groups != 0 || space.len() != kernel.len() || kernel.contains(&0) {
        return Err(wrong());
    }
    let n = space.len();
    let (stride, dilation) = (call.sizes("strides", n, 1, 1)?, call.sizes("dilations", n, 1, 1)?);
    let extra = call.sizes("output_padding", n, 0, 0)?;
    let given = call.sizes("pads", 2 * n, 0, 0)?;
    let wanted = match call.ints("output_shape")? {
        Some(list) if list.len() >= n => {
            let list = &list[list.len() - n..];
            Some(list.iter().map(|&d| small(d, 0, "output_shape")).collect::<Result<Vec<_>>>()?)
        }
        Some(_) => return Err(wrong()),
        None => None,
    };
    let auto = call.text("auto_pad", "NOTSET")?;
    let (mut output, mut before) = (Vec::new(), Vec::new());
    for d in 0..n {
        let span = (kernel[d] - 1).saturating_mul(dilation[d]).saturating_add(1);
        let full = space[d]
            .saturating_sub(1)
            .saturating_mul(stride[d])
            .saturating_add(span)
            .saturating_add(extra[d]);
        let same = auto.starts_with("SAME");
        let size = match &wanted {
            Some(sizes) => sizes[d],
            None if same => space[d].saturating_mul(stride[d]),
            None if auto == "VALID" => full,
            None => full.checked_sub(given[d].saturating_add(given[d + n])).ok_or_else(wrong)?,
        };
        let pad = if wanted.is_some() || same {
            let all = full.saturating_sub(size);
            if auto == "SAME_UPPER" { all / 2 } else { all - all / 2 }
        } else if auto == "VALID" {
            0
        } else {
            given[d]
        };
        output.push(size);
        before.push(pad);
    }
    let filters = per_group.checked_mul(groups).ok_or_else(wrong)?;
    let mut shape = vec![samples, filters];
    shape.extend_from_slice(&output);
    let mut out = cx.filled(count(&shape)?, 0f32)?;
    let (area_in, area_out) = (count(space)?, count(&output)?);
    let kernels = count(kernel)?;
    cx.work(x.len().saturating_mul(per_group).saturating_mul(kernels))?;
    let (v, weights) = (x.floats()?, w.floats()?);
    // For each element of the input and place in the window: where it adds to.
    let n_places = area_in.checked_mul(kernels).ok_or_else(wrong)?;
    let mut places: Vec<usize> = cx.reserved(n_places)?;
    let steps = strides(&output);
    each_index(space, |i| {
        each_index(kernel, |k| {
            let mut at = 0;
            for d in 0..n {
                match (i[d] * stride[d] + k[d] * dilation[d]).checked_sub(before[d]) {
                    Some(o) if o < output[d] => at += o * steps[d],
                    _ => return places.push(usize::MAX),
                }
            }
            places.push(at);
        });
    });
    let in_group = channels / groups;
    for sample in 0..samples {
        for c in 0..channels {
            let values = &v[(sample * channels + c) * area_in..][..area_in];
            for f in 0..per_group {
                let filter = c / in_group * per_group + f;
                let weights = &weights[(c * per_group + f) * kernels..][..kernels];
                let to = &mut out[(sample * filters + filter) * area_out..][..area_out];
                for (i, x) in values.iter().enumerate() {
                    for (w, &p) in weights.iter().zip(&places[i * kernels..]) {
                        if p != usize::MAX {
                            to[p] += x * w;
                        }
                    }
                }
            }
        }
    }
    add_bias(&mut out, call.optional(2), filters, area_out)?;
    let data = if x.elem() == Elem::F64 {
        Data::F64(out.into_iter().map(f64::from).collect())
    } else {
        Data::F32(out)
    };
    Ok(vec![Tensor::new(cx, x.elem(), shape, data)?])
}
