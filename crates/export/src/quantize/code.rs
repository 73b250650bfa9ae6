//! What becomes of a row of floats: codes of eight or four bits, and their scales.
//!
//! - Eight bits: the scale of a row is its largest magnitude over 127, a code is the nearest of -127 to 127.
//! - Four bits: the scale of a block is its number of the largest magnitude over -8, so that this number is coded exactly;
//!   a code is the nearest of 0 to 15, of which 8 is zero. Two to a byte, the first in the low bits; a row's last block is
//!   filled with zeros. Source: ONNX Runtime's description of the operator `MatMulNBits`.
//!
//! Halves go to the even code.

use weighbridge_formats::{DType, Error, ReadAt, Result};

use super::rows::Rows;

/// What is made of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A signed byte for each element.
    Int8,
    /// A scale for each row, in this dtype.
    Int8Scale(DType),
    /// Half a byte for each element.
    Int4 {
        /// Elements that share a scale.
        block: u64,
    },
    /// A scale for each block.
    Int4Scale {
        /// Elements that share a scale.
        block: u64,
        /// The dtype of the scales.
        scale: DType,
    },
}

/// Adding and subtracting it rounds a float of less than 2²² to the nearest whole number, halves to even, with two
/// instructions that every processor does for several numbers at once.
const ROUND: f32 = 12_582_912.0;

/// The largest block.
const MOST: usize = 256;

fn nearest(x: f32) -> f32 {
    (x + ROUND) - ROUND
}

impl Code {
    /// The bytes of a row.
    fn row_bytes(self, columns: u64) -> u64 {
        match self {
            Self::Int8 => columns,
            Self::Int8Scale(scale) => scale.bits() / 8,
            Self::Int4 { block } => columns.div_ceil(block) * (block / 2),
            Self::Int4Scale { block, scale } => columns.div_ceil(block) * (scale.bits() / 8),
        }
    }

    /// Fills the bytes of a row. `NaN` and infinities have been refused.
    fn encode(self, row: &[f32], out: &mut [u8]) {
        match self {
            Self::Int8 => {
                let by = inverse(int8_scale(row));
                for (out, &x) in out.iter_mut().zip(row) {
                    *out = nearest(x * by).clamp(-127.0, 127.0) as i32 as u8;
                }
            }
            Self::Int8Scale(dtype) => put(dtype, int8_scale(row), out),
            Self::Int4 { block } => {
                let block = block as usize;
                let mut codes = [8; MOST];
                for (out, row) in out.chunks_exact_mut(block / 2).zip(row.chunks(block)) {
                    let by = inverse(int4_scale(row));
                    codes[row.len()..block].fill(8);
                    for (code, &x) in codes.iter_mut().zip(row) {
                        *code = (nearest(x * by) + 8.0).clamp(0.0, 15.0) as i32 as u8;
                    }
                    for (out, [low, high]) in out.iter_mut().zip(codes.as_chunks().0) {
                        *out = low | high << 4;
                    }
                }
            }
            Self::Int4Scale { block, scale } => {
                let width = (scale.bits() / 8) as usize;
                for (out, row) in out.chunks_exact_mut(width).zip(row.chunks(block as usize)) {
                    put(scale, int4_scale(row), out);
                }
            }
        }
    }
}

/// The bits of the largest magnitude. Those of a float without its sign are ordered as the numbers are, with infinities
/// and NaNs above them all; and whole numbers are compared several at once, which floats in their order are not.
fn largest(row: &[f32]) -> u32 {
    row.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
}

fn int8_scale(row: &[f32]) -> f32 {
    f32::from_bits(largest(row)) / 127.0
}

fn int4_scale(block: &[f32]) -> f32 {
    let most = f32::from_bits(largest(block));
    if block.contains(&most) { most / -8.0 } else { most / 8.0 }
}

/// What numbers are multiplied by to become codes; a scale of zero has only zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn put(dtype: DType, scale: f32, out: &mut [u8]) {
    match dtype {
        DType::F16 => out.copy_from_slice(&half::f16::from_f32(scale).to_le_bytes()),
        DType::Bf16 => out.copy_from_slice(&half::bf16::from_f32(scale).to_le_bytes()),
        _ => out.copy_from_slice(&scale.to_le_bytes()),
    }
}

/// The codes or scales of a matrix, made when they are read.
pub(crate) struct Coded<'a> {
    rows: Rows<'a>,
    code: Code,
    len: u64,
}

impl<'a> Coded<'a> {
    pub(crate) fn new(rows: Rows<'a>, code: Code, len: u64) -> Self {
        Self { rows, code, len }
    }
}

impl ReadAt for Coded<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let width = self.code.row_bytes(self.rows.columns);
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.len);
        let Some(end) = end.filter(|_| width.checked_mul(self.rows.count) == Some(self.len)) else {
            let what = format!("{} bytes at {offset} of {} codes", buf.len(), self.len);
            return Err(Error::invalid_options(what));
        };
        if buf.is_empty() {
            return Ok(());
        }
        let mut whole = vec![0; width as usize];
        self.rows.each(offset / width, end.div_ceil(width), |row, floats| {
            if largest(floats) >= f32::INFINITY.to_bits() {
                let at = floats.iter().position(|x| !x.is_finite()).unwrap_or_default();
                let what = format!("row {row} has {} at column {at}, which has no scale", floats[at]);
                return Err(Error::unsupported(what).with_hint("export without quantization"));
            }
            let start = row * width;
            let (from, to) = (offset.max(start), end.min(start + width));
            let out = &mut buf[(from - offset) as usize..(to - offset) as usize];
            if out.len() as u64 == width {
                self.code.encode(floats, out);
            } else {
                self.code.encode(floats, &mut whole);
                out.copy_from_slice(&whole[(from - start) as usize..(to - start) as usize]);
            }
            Ok(())
        })
    }

    fn finish(&self) -> Result<()> {
        self.rows.finish()
    }
}
