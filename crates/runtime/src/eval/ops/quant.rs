//! Quantization: to integers and back, by tensor, axis or block, and products of what is quantized.
//!
//! Source of the facts: the operators' specifications in ONNX, and of com.microsoft in ONNX Runtime's ContribOperators.

use weighbridge_formats::{Error, Result};

use super::binary::two;
use super::matmul::{Matrix, integer_matmul, product};
use crate::eval::elem::Elem;
use crate::eval::node::{Call, axis, small};
use crate::eval::tensor::{Cx, Data, Held, Tensor, each};
use crate::eval::walk::{around, strides};

/// For each element of a tensor: which scale and zero point are its own.
struct Groups {
    behind: usize,
    size: usize,
    block: usize,
    kind: Kind,
}

enum Kind {
    Whole,
    Axis,
    Blocks,
}

impl Groups {
    fn of(call: &Call<'_>, x: &Tensor, scale: &Tensor) -> Result<Self> {
        let block = small(call.int("block_size", 0)?, 0, "block_size")?;
        if scale.len() == 1 && block == 0 {
            return Ok(Self { behind: 1, size: 1, block: 1, kind: Kind::Whole });
        }
        let along = axis(call.int("axis", 1)?, x.rank())?;
        let (_, size, behind) = around(x.shape(), along);
        let wrong = || Error::malformed(format!("scales of {:?} for {:?}", scale.shape(), x.shape()));
        if block == 0 {
            return if scale.len() == size {
                Ok(Self { behind, size, block: 1, kind: Kind::Axis })
            } else {
                Err(wrong())
            };
        }
        let mut shape = x.shape().to_vec();
        shape[along] = size.div_ceil(block);
        if scale.shape() != shape {
            return Err(wrong());
        }
        Ok(Self { behind, size, block, kind: Kind::Blocks })
    }

    fn at(&self, i: usize) -> usize {
        match self.kind {
            Kind::Whole => 0,
            Kind::Axis => i / self.behind % self.size,
            Kind::Blocks => {
                let (lead, along) = (i / self.behind / self.size, i / self.behind % self.size);
                (lead * self.size.div_ceil(self.block) + along / self.block) * self.behind + i % self.behind
            }
        }
    }
}

/// Numbers of any type as f64.
fn wide(cx: &Cx, t: &Tensor) -> Result<Vec<f64>> {
    cx.room(t.len(), 8)?;
    Ok(each!(t.data(), v => v.iter().map(|x| Held::to_f64(*x)).collect()))
}

fn zero_points(cx: &Cx, zero: Option<&Tensor>, scale: &Tensor) -> Result<Option<Vec<f64>>> {
    match zero {
        None => Ok(None),
        Some(z) if z.len() == scale.len() => Ok(Some(wide(cx, z)?)),
        Some(z) => {
            Err(Error::malformed(format!("zero points of {:?} for scales of {:?}", z.shape(), scale.shape())))
        }
    }
}

/// Rounds numbers to an integer type or narrow float.
fn quantized(cx: &Cx, to: Elem, shape: &[usize], values: Vec<f64>, saturate: bool) -> Result<Tensor> {
    if to.is_float() {
        let values = values.into_iter().map(|x| to.round(x as f32, saturate)).collect();
        return Tensor::exact(cx, to, shape.to_vec(), Data::F32(values));
    }
    let Some((low, high)) = to.range() else { return Err(Error::unsupported("a type to quantize to")) };
    let clamp = |x: f64| libm::rint(x).clamp(low as f64, high as f64) as i64;
    macro_rules! to {
        ($variant:ident, $type:ty) => {
            Data::$variant(values.into_iter().map(|x| clamp(x) as $type).collect())
        };
    }
    let data = match to {
        Elem::U8 | Elem::U4 => to!(U8, u8),
        Elem::I8 | Elem::I4 => to!(I8, i8),
        Elem::U16 => to!(U16, u16),
        Elem::I16 => to!(I16, i16),
        Elem::I32 => to!(I32, i32),
        _ => return Err(Error::unsupported(format!("quantizing to {}", to.name()))),
    };
    Tensor::exact(cx, to, shape.to_vec(), data)
}

pub(super) fn quantize(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, scale, zero) = (call.input(0)?, call.input(1)?, call.optional(2));
    let groups = Groups::of(call, x, scale)?;
    let to = match (zero, call.int("output_dtype", 0)?) {
        (Some(z), _) => z.elem(),
        (None, 0) => Elem::U8,
        (None, number) => Elem::from_onnx(number)?,
    };
    let (scales, zeros) = (wide(cx, scale)?, zero_points(cx, zero, scale)?);
    cx.work(x.len())?;
    let mut values = wide(cx, x)?;
    for (i, x) in values.iter_mut().enumerate() {
        let g = groups.at(i);
        // The quotient is one of f32, as the runtimes have it, and rounded before the zero point is added.
        let quotient = f64::from((*x as f32) / (scales[g] as f32));
        let rounded = if to.is_float() { quotient } else { libm::rint(quotient) };
        *x = rounded + zeros.as_ref().map_or(0.0, |z| z[g]);
    }
    Ok(vec![quantized(cx, to, x.shape(), values, call.flag("saturate", true)?)?])
}

pub(super) fn dequantize(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let groups = Groups::of(call, x, scale)?;
    let (scales, zeros) = (wide(cx, scale)?, zero_points(cx, call.optional(2), scale)?);
    cx.work(x.len())?;
    let mut out = cx.reserved(x.len())?;
    each!(x.data(), v => {
        for (i, x) in v.iter().enumerate() {
            let g = groups.at(i);
            let zero = zeros.as_ref().map_or(0.0, |z| z[g]);
            out.push(((Held::to_f64(*x) - zero) * scales[g]) as f32);
        }
    });
    let to = match call.int("output_dtype", 0)? {
        0 => scale.elem(),
        number => Elem::from_onnx(number)?,
    };
    if to == Elem::F64 {
        return Err(Error::unsupported("dequantizing to doubles"));
    }
    Ok(vec![Tensor::new(cx, to, x.shape().to_vec(), Data::F32(out))?])
}

/// To 8 bits by the range of the values: the integers, their scale, and their zero point.
fn dynamic(cx: &Cx, x: &Tensor) -> Result<(Tensor, f32, u8)> {
    let v = x.floats()?;
    cx.work(v.len().saturating_mul(2))?;
    let low = v.iter().copied().fold(0f32, f32::min);
    let high = v.iter().copied().fold(0f32, f32::max);
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    let zero = libm::rintf((0.0 - low) / scale).clamp(0.0, 255.0);
    let mut out = cx.reserved(v.len())?;
    out.extend(v.iter().map(|&x| (libm::rintf(x / scale) + zero).clamp(0.0, 255.0) as u8));
    Ok((Tensor::of(cx, x.shape().to_vec(), out)?, scale, zero as u8))
}

pub(super) fn dynamic_quantize(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (y, scale, zero) = dynamic(cx, call.input(0)?)?;
    Ok(vec![y, Tensor::scalar(cx, scale)?, Tensor::scalar(cx, zero)?])
}

/// i32 sums times scales, plus a bias.
fn scaled(cx: &Cx, sums: &Tensor, scales: &[&Tensor], bias: Option<&Tensor>) -> Result<Tensor> {
    let mut out = super::unary::cast_to(cx, sums, Elem::F32, true)?;
    for scale in scales {
        out = two(cx, "Mul", false, &out, &super::unary::cast_to(cx, scale, Elem::F32, true)?)?;
    }
    if let Some(bias) = bias {
        out = two(cx, "Add", false, &out, bias)?;
    }
    Ok(out)
}

/// com.microsoft MatMulIntegerToFloat: A, B, their scales, their zero points, a bias.
pub(super) fn integer_to_float(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let sums = integer_matmul(cx, call.input(0)?, call.optional(4), call.input(1)?, call.optional(5))?;
    Ok(vec![scaled(cx, &sums, &[call.input(2)?, call.input(3)?], call.optional(6))?])
}

/// com.microsoft DynamicQuantizeMatMul: A in f32, B, its scale, its zero point, a bias.
pub(super) fn dynamic_matmul(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (a, scale, zero) = dynamic(cx, call.input(0)?)?;
    let zero = Tensor::scalar(cx, zero)?;
    let sums = integer_matmul(cx, &a, Some(&zero), call.input(1)?, call.optional(3))?;
    let scale = Tensor::scalar(cx, scale)?;
    Ok(vec![scaled(cx, &sums, &[&scale, call.input(2)?], call.optional(4))?])
}

/// Sums by the ratio of scales, as integers again. Scales of B are one, or one for each `channel`.
fn requantized(
    cx: &Cx,
    sums: &Tensor,
    (a, b, y): (&Tensor, &Tensor, &Tensor),
    zero: &Tensor,
    channel: Option<usize>,
) -> Result<Tensor> {
    let (a, y, zero_point) = (a.number()?, y.number()?, zero.number()?);
    let scales = wide(cx, b)?;
    let wrong = || Error::malformed("scales that do not fit");
    let along = channel.unwrap_or(sums.rank().saturating_sub(1));
    let (step, size) = match sums.shape().get(along) {
        Some(&size) => (strides(sums.shape())[along], size),
        None => (1, 1),
    };
    if scales.len() != 1 && scales.len() != size {
        return Err(wrong());
    }
    let values = sums.values::<i32>()?.iter().enumerate().map(|(i, &sum)| {
        let b = if scales.len() == 1 { scales[0] } else { scales[i / step % size.max(1)] };
        libm::rint(f64::from(sum) * (a * b / y)) + zero_point
    });
    quantized(cx, zero.elem(), sums.shape(), values.collect(), true)
}

pub(super) fn qlinear_matmul(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let sums = integer_matmul(cx, call.input(0)?, call.optional(2), call.input(3)?, call.optional(5))?;
    let scales = (call.input(1)?, call.input(4)?, call.input(6)?);
    Ok(vec![requantized(cx, &sums, scales, call.input(7)?, None)?])
}

pub(super) fn qlinear_conv(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let inner = Call {
        node: call.node,
        inputs: [0, 3, 2, 5].iter().map(|&i| call.optional(i).cloned()).collect(),
        captured: Vec::new(),
    };
    let mut sums = super::conv::conv_integer(cx, &inner)?.remove(0);
    if let Some(bias) = call.optional(8) {
        let mut shape = vec![bias.len()];
        shape.extend(std::iter::repeat_n(1, sums.rank().saturating_sub(2)));
        sums = two(cx, "Add", false, &sums, &bias.reshaped(shape)?)?;
    }
    let scales = (call.input(1)?, call.input(4)?, call.input(6)?);
    Ok(vec![requantized(cx, &sums, scales, call.input(7)?, Some(1))?])
}

/// Number `i` of numbers of 2, 4 or 8 bits that lie one after another, the first in the low bits.
fn packed(bytes: &[u8], bits: usize, i: usize) -> Option<u8> {
    let each = 8 / bits;
    let byte = *bytes.get(i / each)?;
    Some((u32::from(byte) >> (i % each * bits) & ((1 << bits) - 1)) as u8)
}

/// com.microsoft MatMulNBits: A · Bᵀ, where each row of B is blocks of packed numbers with a scale each.
pub(super) fn matmul_nbits(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (a, b, scales) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (k, n) = (small(call.int("K", 0)?, 1, "K")?, small(call.int("N", 0)?, 1, "N")?);
    let block = small(call.int("block_size", 0)?, 1, "block_size")?;
    let bits = match call.int("bits", 4)? {
        b @ (2 | 4 | 8) => b as usize,
        other => return Err(Error::unsupported(format!("blocks of {other} bits"))),
    };
    if call.optional(4).is_some_and(|g| g.len() > 0) {
        return Err(Error::unsupported("MatMulNBits with g_idx"));
    }
    let blocks = k.div_ceil(block);
    let blob = (block * bits).div_ceil(8);
    let wrong =
        |what: &str, t: &Tensor| Error::malformed(format!("{what} of {:?} for K {k}, N {n}", t.shape()));
    if b.len() != n.saturating_mul(blocks).saturating_mul(blob) {
        return Err(wrong("packed weights", b));
    }
    if scales.len() != n.saturating_mul(blocks) {
        return Err(wrong("scales", scales));
    }
    if a.shape().last() != Some(&k) {
        return Err(wrong("an input", a));
    }
    let (bytes, factors) = (b.values::<u8>()?, scales.floats()?);
    let zero_row = (blocks * bits).div_ceil(8);
    let points = |row: usize, at: usize| -> Option<f32> {
        match call.optional(3).filter(|z| z.len() > 0) {
            None => Some((1u32 << (bits - 1)) as f32),
            Some(z) => match z.data() {
                Data::U8(v) => packed(v.get(row * zero_row..(row + 1) * zero_row)?, bits, at).map(f32::from),
                Data::F32(v) => v.get(row * blocks + at).copied(),
                _ => None,
            },
        }
    };
    cx.work(n.saturating_mul(k).saturating_mul(2))?;
    let mut weights = cx.reserved(n.checked_mul(k).ok_or_else(|| Error::limit("weights beyond memory"))?)?;
    for row in 0..n {
        for at in 0..blocks {
            let zero = points(row, at).ok_or_else(|| Error::malformed("zero points that do not fit"))?;
            let (scale, from) = (factors[row * blocks + at], (row * blocks + at) * blob);
            let bytes = &bytes[from..from + blob];
            for i in 0..block.min(k - at * block) {
                let q = packed(bytes, bits, i).ok_or_else(|| Error::malformed("a short block"))?;
                weights.push((f32::from(q) - zero) * scale);
            }
        }
    }
    let rows = a.len() / k;
    let mut out = cx.filled(rows.saturating_mul(n), 0f32)?;
    product(cx, Matrix(&a.floats()?, k, 1), Matrix(&weights, 1, k), (rows, k, n), &mut out)?;
    let mut shape = a.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    let mut y = Tensor::new(cx, a.elem(), shape, Data::F32(out))?;
    if let Some(bias) = call.optional(5) {
        y = two(cx, "Add", false, &y, bias)?;
    }
    Ok(vec![y])
}
