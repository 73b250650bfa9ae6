//! Casts between float dtypes: round to nearest, ties to even, once, from the source's own precision.
//!
//! A block of elements is brought to f32 (f64 sources stay f64), which holds every narrower type exactly, and
//! encoded from there. The loop over a block computes codes that are right for every value in the target's range,
//! and the block's extremes beside them; only a block whose extremes show an overflow, an infinity, a NaN or an
//! underflow is looked at again, element by element.
//!
//! Facts used: the 8-bit types are those of the OCP "8-bit Floating Point Specification" and, for the FNUZ forms,
//! of torch's `c10/util/Float8_*.h`, whose results for out-of-range values [`Overflow::Infinity`] gives. The 4-
//! and 6-bit types are those of the OCP "Microscaling Formats Specification". Neither that specification nor
//! safetensors (whose crate only counts bits: `Dtype::bitsize`) says in which order elements lie in a byte; here
//! the first element takes the low bits, as in torch's `float4_e2m1fn_x2`, and 6-bit elements run on across bytes
//! the same way. A NaN becomes the largest number of a type without NaN, as CUDA's conversions have it.

mod decode;
mod layout;
mod simd;
mod special;
#[cfg(test)]
mod tests;
mod wide;

use crate::dtype::{DType, Kind};
use layout::Target;
use simd::Isa;

/// What becomes of a value beyond the target's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// It is an error, as is an infinity or a NaN that the target cannot say.
    #[default]
    Error,
    /// The largest finite number of the same sign. An infinity stays one where the target has it.
    Saturate,
    /// What `.to()` of torch 2.13 gives: infinity where the target has it, else NaN; but the largest finite number
    /// in E4M3 and in types without NaN.
    Infinity,
}

/// What a cast met.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CastStats {
    /// Elements cast.
    pub elements: u64,
    /// Finite values beyond the target's range; for the unsigned E8M0, negative ones too.
    pub overflow: u64,
    /// Values that are not zero and became zero; for E8M0, which has no zero, values below its smallest number,
    /// zero included, which became that number.
    pub underflow: u64,
    /// NaNs in the source.
    pub nan: u64,
    /// NaNs in the source that are none in the target, which has none.
    pub nan_lost: u64,
    /// Infinities in the source.
    pub inf: u64,
    /// Infinities in the source that are none in the target, which has none.
    pub inf_lost: u64,
    /// The largest magnitude of a finite value in the source.
    pub max_abs: f64,
    /// The largest relative error, `|new - old| / |old|`, of an element that stayed finite and did not become zero.
    /// 0 where it was not measured (see [`CastOptions::measure`](crate::transform::CastOptions::measure)).
    pub max_relative: f64,
}

impl CastStats {
    /// Adds what another part of the same tensor met.
    pub fn merge(&mut self, other: &Self) {
        self.elements += other.elements;
        self.overflow += other.overflow;
        self.underflow += other.underflow;
        self.nan += other.nan;
        self.nan_lost += other.nan_lost;
        self.inf += other.inf;
        self.inf_lost += other.inf_lost;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_relative = self.max_relative.max(other.max_relative);
    }

    /// Whether nothing but rounding happened.
    pub fn is_clean(&self) -> bool {
        self.overflow == 0 && self.underflow == 0 && self.nan_lost == 0 && self.inf_lost == 0
    }
}

/// The first value that [`Overflow::Error`] refuses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    /// The element's index in what was to be cast.
    pub index: u64,
    /// Its value.
    pub value: f64,
}

/// A cast from one float dtype to another.
#[derive(Clone, Copy, Debug)]
pub struct CastKernel {
    from: DType,
    to: DType,
    target: Target,
    overflow: Overflow,
    isa: Isa,
}

/// Elements of a block: a multiple of every group of narrow elements that fills whole bytes.
const BLOCK: usize = 1024;

impl CastKernel {
    /// The cast from `from` to `to`; `None` unless both are floats, and different.
    pub fn new(from: DType, to: DType, overflow: Overflow) -> Option<Self> {
        if from == to || from.kind() != Kind::Float {
            return None;
        }
        Some(Self { from, to, target: Target::new(to)?, overflow, isa: Isa::detect() })
    }

    /// Casts whole elements, as many as fill `from`; returns the first that is refused. `to` then holds
    /// anything.
    ///
    /// # Panics
    /// If the two slices do not hold the same number of elements.
    pub fn cast(&self, from: &[u8], to: &mut [u8], stats: &mut CastStats) -> Result<(), Refused> {
        let bits = |d: DType| d.bits() as usize;
        let elements = from.len() * 8 / bits(self.from);
        assert_eq!(elements * bits(self.to), to.len() * 8, "source and target hold as many elements");
        let mut codes = [0u8; BLOCK];
        let mut floats = [[0u8; 4]; BLOCK];
        let from_blocks = from.chunks(BLOCK * bits(self.from) / 8);
        let to_blocks = to.chunks_mut(BLOCK * bits(self.to) / 8);
        for (i, (from, to)) in from_blocks.zip(to_blocks).enumerate() {
            let n = from.len() * 8 / bits(self.from);
            let packed = bits(self.to) < 8;
            let out = if packed { &mut codes[..n] } else { &mut *to };
            let done = match (self.from, self.to) {
                (DType::F64, _) => wide::f64::cast(self, from.as_chunks().0, out, stats),
                (DType::F32, _) => wide::f32::cast(self, from.as_chunks().0, out, stats),
                (_, DType::F32) => {
                    let out = out.as_chunks_mut().0;
                    decode::decode(self.isa, self.from, from, out);
                    wide::scan(self.isa, out, stats);
                    Ok(())
                }
                _ => {
                    decode::decode(self.isa, self.from, from, &mut floats[..n]);
                    wide::f32::cast(self, &floats[..n], out, stats)
                }
            };
            done.map_err(|r| Refused { index: (i * BLOCK) as u64 + r.index, ..r })?;
            match bits(self.to) {
                4 => pack::<2, 1, 4>(&codes[..n], to),
                6 => pack::<4, 3, 6>(&codes[..n], to),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Packs `N` codes of `BITS` bits into `B` bytes, the first in the lowest bits.
fn pack<const N: usize, const B: usize, const BITS: usize>(codes: &[u8], to: &mut [u8]) {
    for (codes, to) in codes.as_chunks::<N>().0.iter().zip(to.as_chunks_mut::<B>().0) {
        let word = codes.iter().rev().fold(0u32, |word, &code| word << BITS | u32::from(code));
        to.copy_from_slice(&word.to_le_bytes()[..B]);
    }
}
