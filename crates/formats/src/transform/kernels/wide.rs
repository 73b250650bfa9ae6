//! Encoding from f32 and from f64: the same loops, once for each width.

use super::CastStats;
use super::simd::{self, Isa};

/// What a block's magnitudes say: the largest, as bits, and the smallest that is not zero, less one. Bits of
/// floats without their sign order as the floats do, NaNs above infinity; less one, zero wraps to the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extremes<T> {
    pub(super) largest: T,
    pub(super) smallest: T,
}

macro_rules! wide {
    ($float:ident, $bits:ident, $size:literal, $mantissa:literal, $bias:literal) => {
        pub(in super::super) mod $float {
            use super::super::special::{Rare, code};
            use super::super::{CastKernel, CastStats, Refused, Target, simd};
            use super::Extremes;
            use crate::dtype::DType;

            const SIGN: $bits = 1 << ($size * 8 - 1);
            const INFINITY: $bits = ::core::primitive::$float::INFINITY.to_bits();

            /// The bits of 2 to the power of `exponent`, subnormals included.
            const fn power(exponent: i32) -> $bits {
                let field = exponent + $bias;
                if field > 0 { (field as $bits) << $mantissa } else { 1 << ($mantissa - 1 + field) }
            }

            /// The smallest magnitude that rounds past the largest number: half a step above it, where a tie goes
            /// to the even code.
            fn first_overflow(target: &Target) -> $bits {
                let (m, bias) = (u32::from(target.layout.mantissa), i32::from(target.layout.bias));
                let exponent = (target.max >> m) as i32 - bias;
                let mantissa = target.max as $bits & ((1 << m) - 1);
                let half_above = mantissa << ($mantissa - m) | 1 << ($mantissa - m - 1);
                // E8M0 has no even code to tie to: torch rounds half a step up.
                let tie_stays = target.max % 2 == 0 && m > 0;
                (((exponent + $bias) as $bits) << $mantissa | half_above) + $bits::from(tie_stays)
            }

            /// The largest magnitude that rounds to zero: half the smallest step, where a tie goes to zero.
            fn last_underflow(target: &Target) -> $bits {
                power(-i32::from(target.layout.bias) - i32::from(target.layout.mantissa))
            }

            /// The code of a value in the target's range, by rounding to nearest, ties to even. Other values give
            /// anything.
            #[inline(always)]
            fn encode<const E: u32, const M: u32, const BIAS: i32, const FNUZ: bool>(bits: $bits) -> $bits {
                let shift = const { $mantissa - M };
                let magnitude = bits & !SIGN;
                let odd = magnitude >> shift & 1;
                let rounded = (magnitude + (const { (1 << ($mantissa - M - 1)) - 1 }) + odd) >> shift;
                let normal = rounded.wrapping_sub(const { (($bias - BIAS) as $bits) << M });
                let code = if const { BIAS == $bias } {
                    normal // The same exponents: subnormals round like the others.
                } else {
                    // The step of the sum is the target's smallest step, so the addition rounds as it should.
                    let magic = const { $float::from_bits(power(1 - BIAS - M as i32 + $mantissa)) };
                    let sum = $float::from_bits(magnitude) + magic;
                    let subnormal = sum.to_bits().wrapping_sub(magic.to_bits());
                    if magnitude < const { power(1 - BIAS) } { subnormal } else { normal }
                };
                let sign = bits >> ($size * 8 - 1) << (E + M);
                if FNUZ && code == 0 { 0 } else { code | sign }
            }

            /// Encodes a block.
            #[inline(always)]
            pub(in super::super) fn block<
                const E: u32,
                const M: u32,
                const BIAS: i32,
                const FNUZ: bool,
                const B: usize,
            >(
                from: &[[u8; $size]],
                to: &mut [[u8; B]],
            ) -> Extremes<$bits> {
                let (mut largest, mut smallest) = (0, $bits::MAX);
                for (from, to) in from.iter().zip(to) {
                    let bits = $bits::from_le_bytes(*from);
                    let magnitude = bits & !SIGN;
                    largest = largest.max(magnitude);
                    smallest = smallest.min(magnitude.wrapping_sub(1));
                    let code = encode::<E, M, BIAS, FNUZ>(bits);
                    // Stores of a known width; the others are compiled away.
                    match B {
                        1 => to[0] = code as u8,
                        2 => to.copy_from_slice(&(code as u16).to_le_bytes()),
                        _ => to.copy_from_slice(&(code as u32).to_le_bytes()),
                    }
                }
                Extremes { largest, smallest }
            }

            /// The extremes of a block.
            #[inline(always)]
            pub(in super::super) fn extremes(from: &[[u8; $size]]) -> Extremes<$bits> {
                let (mut largest, mut smallest) = (0, $bits::MAX);
                for from in from {
                    let magnitude = $bits::from_le_bytes(*from) & !SIGN;
                    largest = largest.max(magnitude);
                    smallest = smallest.min(magnitude.wrapping_sub(1));
                }
                Extremes { largest, smallest }
            }

            /// Casts a block to a type of whole bytes, or to codes in a byte each.
            pub(in super::super) fn cast(
                kernel: &CastKernel,
                from: &[[u8; $size]],
                to: &mut [u8],
                stats: &mut CastStats,
            ) -> Result<(), Refused> {
                let isa = kernel.isa;
                let extremes = match kernel.to {
                    DType::F4 => simd::$float::run::<2, 1, 1, false, 1>(isa, from, to.as_chunks_mut().0),
                    DType::F6E2M3 => simd::$float::run::<2, 3, 1, false, 1>(isa, from, to.as_chunks_mut().0),
                    DType::F6E3M2 => simd::$float::run::<3, 2, 3, false, 1>(isa, from, to.as_chunks_mut().0),
                    DType::F8E4M3 => simd::$float::run::<4, 3, 7, false, 1>(isa, from, to.as_chunks_mut().0),
                    DType::F8E5M2 => simd::$float::run::<5, 2, 15, false, 1>(isa, from, to.as_chunks_mut().0),
                    DType::F8E4M3Fnuz => {
                        simd::$float::run::<4, 3, 8, true, 1>(isa, from, to.as_chunks_mut().0)
                    }
                    DType::F8E5M2Fnuz => {
                        simd::$float::run::<5, 2, 16, true, 1>(isa, from, to.as_chunks_mut().0)
                    }
                    DType::F16 => simd::$float::to_f16(isa, from, to.as_chunks_mut().0),
                    DType::Bf16 => simd::$float::run::<8, 7, 127, false, 2>(isa, from, to.as_chunks_mut().0),
                    DType::F8E8M0 => return cast_to_scale(kernel, from, to, stats),
                    _ => simd::$float::to_other(isa, from, to),
                };
                settle(kernel, from, to, extremes, stats)
            }

            /// Counts a block by its extremes, and mends what the fast loop could not say.
            fn settle(
                kernel: &CastKernel,
                from: &[[u8; $size]],
                to: &mut [u8],
                extremes: Extremes<$bits>,
                stats: &mut CastStats,
            ) -> Result<(), Refused> {
                stats.elements += from.len() as u64;
                let target = &kernel.target;
                let (over, under) = if target.dtype == DType::F64 {
                    (INFINITY, 0)
                } else {
                    (first_overflow(target), last_underflow(target))
                };
                if extremes.smallest < under {
                    let small =
                        |b: &&[u8; $size]| ($bits::from_le_bytes(**b) & !SIGN).wrapping_sub(1) < under;
                    stats.underflow += from.iter().filter(small).count() as u64;
                }
                if extremes.largest < over {
                    stats.max_abs = stats.max_abs.max($float::from_bits(extremes.largest).into());
                    return Ok(());
                }
                let width = to.len() / from.len();
                for (i, from) in from.iter().enumerate() {
                    let bits = $bits::from_le_bytes(*from);
                    let magnitude = bits & !SIGN;
                    if magnitude < INFINITY {
                        stats.max_abs = stats.max_abs.max($float::from_bits(magnitude).into());
                    }
                    if magnitude >= over {
                        let rare = rare(magnitude);
                        let code = code(target, kernel.overflow, rare, bits != magnitude, stats)
                            .ok_or_else(|| refused(i, bits))?;
                        to[i * width..(i + 1) * width].copy_from_slice(&code.to_le_bytes()[..width]);
                    }
                }
                Ok(())
            }

            /// Casts to E8M0: powers of two from 2^-127 to 2^127 and NaN, without sign or zero. Half-way values
            /// round up, as torch has it.
            fn cast_to_scale(
                kernel: &CastKernel,
                from: &[[u8; $size]],
                to: &mut [u8],
                stats: &mut CastStats,
            ) -> Result<(), Refused> {
                let over = first_overflow(&kernel.target);
                let smallest = power(-127);
                let half_above = smallest + smallest / 2; // Subnormal in f32: there half the bits are half the value.
                let half_above = if $mantissa == 23 { half_above } else { smallest | 1 << ($mantissa - 1) };
                stats.elements += from.len() as u64;
                for (i, (from, to)) in from.iter().zip(to).enumerate() {
                    let bits = $bits::from_le_bytes(*from);
                    let magnitude = bits & !SIGN;
                    if magnitude < INFINITY {
                        stats.max_abs = stats.max_abs.max($float::from_bits(magnitude).into());
                    }
                    let negative = bits != magnitude && magnitude != 0;
                    *to = if magnitude >= over || negative {
                        let code = code(&kernel.target, kernel.overflow, rare(magnitude), negative, stats);
                        code.ok_or_else(|| refused(i, bits))? as u8
                    } else {
                        stats.underflow += u64::from(magnitude < smallest);
                        if magnitude < half_above {
                            0
                        } else {
                            (((magnitude + (1 << ($mantissa - 1))) >> $mantissa) - ($bias - 127)) as u8
                        }
                    };
                }
                Ok(())
            }

            /// Which kind of value a magnitude beyond the target's range is.
            fn rare(magnitude: $bits) -> Rare {
                if magnitude < INFINITY {
                    Rare::Overflow
                } else if magnitude == INFINITY {
                    Rare::Infinite
                } else {
                    Rare::Nan(u64::from(magnitude & !INFINITY) << (52 - $mantissa))
                }
            }

            #[cold]
            fn refused(index: usize, bits: $bits) -> Refused {
                Refused { index: index as u64, value: $float::from_bits(bits).into() }
            }
        }
    };
}

wide!(f32, u32, 4, 23, 127);
wide!(f64, u64, 8, 52, 1023);

/// Counts a block that was widened to f32, so that nothing can be lost.
pub(super) fn scan(isa: Isa, from: &[[u8; 4]], stats: &mut CastStats) {
    const INFINITY: u32 = ::core::primitive::f32::INFINITY.to_bits();
    let mut finite = |bits: u32| {
        stats.max_abs = stats.max_abs.max(::core::primitive::f32::from_bits(bits).into());
    };
    stats.elements += from.len() as u64;
    let extremes = simd::f32::extremes(isa, from);
    if extremes.largest < INFINITY {
        finite(extremes.largest);
        return;
    }
    for from in from {
        match u32::from_le_bytes(*from) & i32::MAX as u32 {
            INFINITY => stats.inf += 1,
            magnitude if magnitude > INFINITY => stats.nan += 1,
            magnitude => finite(magnitude),
        }
    }
}
