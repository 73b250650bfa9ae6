//! The loops compiled for what the machine has: the portable loops once more with AVX2 and AVX-512, where the
//! compiler vectorises them wider, and half precision by the instructions for it (F16C, AVX-512).
//!
//! Which one runs is decided when the program runs. Each gives the same bits as its portable twin.
#![allow(unsafe_code)]

use super::wide;
use super::wide::Extremes;

/// What the machine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// What every machine of the target can.
    Portable,
    /// AVX2 and F16C; only [`Isa::available`] makes it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL, with all that AVX2 has; only [`Isa::available`] makes it.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// Every level that this machine has, the best first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let better = {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            [avx512.then_some(Self::Avx512), avx2.then_some(Self::Avx2)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let better = [None::<Self>; 2];
        better.into_iter().flatten().chain([Self::Portable])
    }

    /// The best level of this machine.
    pub(super) fn detect() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }
}

/// Defines a function that runs one of three bodies, each compiled for its level.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $name:ident [$($generics:tt)*] [$($arguments:tt)*]
        ($($arg:ident: $ty:ty),*) -> $ret:ty = $portable:expr, $avx2:expr, $avx512:expr) => {
        $(#[$doc])*
        pub(in crate::transform::kernels) fn $name<$($generics)*>(isa: Isa, $($arg: $ty),*) -> $ret {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,f16c")]
            fn avx2<$($generics)*>($($arg: $ty),*) -> $ret {
                $avx2($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512<$($generics)*>($($arg: $ty),*) -> $ret {
                $avx512($($arg),*)
            }
            match isa {
                Isa::Portable => $portable($($arg),*),
                // SAFETY: `Isa::available` makes this value only where the machine has these features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2::<$($arguments)*>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512::<$($arguments)*>($($arg),*) },
            }
        }
    };
    ($(#[$doc:meta])* $name:ident [$($generics:tt)*] [$($arguments:tt)*]
        ($($arg:ident: $ty:ty),*) -> $ret:ty = $portable:expr) => {
        for_each_isa!($(#[$doc])* $name [$($generics)*] [$($arguments)*]
            ($($arg: $ty),*) -> $ret = $portable, $portable, $portable);
    };
}

for_each_isa!(
    /// Decodes halves.
    f16_to_f32 [] [] (from: &[[u8; 2]], to: &mut [[u8; 4]]) -> () = portable::f16_to_f32,
    x86::f16_to_f32,
    x86::f16_to_f32
);

for_each_isa!(
    /// Decodes bfloats.
    bf16_to_f32 [] [] (from: &[[u8; 2]], to: &mut [[u8; 4]]) -> () = portable::bf16_to_f32
);

/// Encoding from f32.
pub(super) mod f32 {
    use super::*;

    for_each_isa!(
        /// Encodes a block in the layout of the constants.
        run [const E: u32, const M: u32, const BIAS: i32, const FNUZ: bool, const B: usize] [E, M, BIAS, FNUZ, B]
        (from: &[[u8; 4]], to: &mut [[u8; B]]) -> Extremes<u32> = wide::f32::block::<E, M, BIAS, FNUZ, B>
    );

    for_each_isa!(
        /// Encodes a block as F16.
        to_f16 [] [] (from: &[[u8; 4]], to: &mut [[u8; 2]]) -> Extremes<u32> =
        wide::f32::block::<5, 10, 15, false, 2>,
        x86::f32_to_f16,
        x86::f32_to_f16_wide
    );

    for_each_isa!(
        /// Widens a block to f64.
        to_f64 [] [] (from: &[[u8; 4]], to: &mut [[u8; 8]]) -> Extremes<u32> = portable::f32_to_f64
    );

    for_each_isa!(
        /// The extremes of a block.
        extremes [] [] (from: &[[u8; 4]]) -> Extremes<u32> = wide::f32::extremes
    );

    /// Encodes in the one other type that is as wide.
    pub(in super::super) fn to_other(isa: Isa, from: &[[u8; 4]], to: &mut [u8]) -> Extremes<u32> {
        to_f64(isa, from, to.as_chunks_mut().0)
    }
}

/// Encoding from f64.
pub(super) mod f64 {
    use super::*;

    for_each_isa!(
        /// Encodes a block in the layout of the constants.
        run [const E: u32, const M: u32, const BIAS: i32, const FNUZ: bool, const B: usize] [E, M, BIAS, FNUZ, B]
        (from: &[[u8; 8]], to: &mut [[u8; B]]) -> Extremes<u64> = wide::f64::block::<E, M, BIAS, FNUZ, B>
    );

    for_each_isa!(
        /// Rounds a block to f32.
        to_f32 [] [] (from: &[[u8; 8]], to: &mut [[u8; 4]]) -> Extremes<u64> = portable::f64_to_f32
    );

    /// Encodes a block as F16. F16C would round twice.
    pub(in super::super) fn to_f16(isa: Isa, from: &[[u8; 8]], to: &mut [[u8; 2]]) -> Extremes<u64> {
        run::<5, 10, 15, false, 2>(isa, from, to)
    }

    /// Encodes in the one other type that is as wide.
    pub(in super::super) fn to_other(isa: Isa, from: &[[u8; 8]], to: &mut [u8]) -> Extremes<u64> {
        to_f32(isa, from, to.as_chunks_mut().0)
    }
}

/// Loops that the compiler vectorises for any machine.
mod portable {
    use super::*;

    #[inline(always)]
    pub(super) fn f16_to_f32(from: &[[u8; 2]], to: &mut [[u8; 4]]) {
        // An f16's exponent and mantissa, shifted into an f32's place, are the number times 2^-112. The product
        // is exact, for subnormals too.
        const SCALE: f32 = f32::from_bits((112 + 127) << 23);
        for (from, to) in from.iter().zip(to) {
            let half = u32::from(u16::from_le_bytes(*from));
            let magnitude = half & 0x7fff;
            let finite = (f32::from_bits(magnitude << 13) * SCALE).to_bits();
            // Infinities keep their mantissa of 0; NaNs keep theirs and become quiet.
            let quiet = if magnitude > 0x7c00 { 0x40_0000 } else { 0 };
            let special = magnitude << 13 | 0x7f80_0000 | quiet;
            let bits = if magnitude >= 0x7c00 { special } else { finite };
            *to = (bits | (half & 0x8000) << 16).to_le_bytes();
        }
    }

    #[inline(always)]
    pub(super) fn bf16_to_f32(from: &[[u8; 2]], to: &mut [[u8; 4]]) {
        for (from, to) in from.iter().zip(to) {
            *to = (u32::from(u16::from_le_bytes(*from)) << 16).to_le_bytes();
        }
    }

    #[inline(always)]
    pub(super) fn f32_to_f64(from: &[[u8; 4]], to: &mut [[u8; 8]]) -> Extremes<u32> {
        for (from, to) in from.iter().zip(to) {
            *to = ::core::primitive::f64::from(::core::primitive::f32::from_le_bytes(*from)).to_le_bytes();
        }
        wide::f32::extremes(from)
    }

    #[inline(always)]
    pub(super) fn f64_to_f32(from: &[[u8; 8]], to: &mut [[u8; 4]]) -> Extremes<u64> {
        for (from, to) in from.iter().zip(to) {
            *to = (::core::primitive::f64::from_le_bytes(*from) as ::core::primitive::f32).to_le_bytes();
        }
        wide::f64::extremes(from)
    }
}

/// What has an instruction of its own.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Extremes, portable, wide};

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn f16_to_f32(from: &[[u8; 2]], to: &mut [[u8; 4]]) {
        let (from_blocks, from_rest) = from.as_chunks::<8>();
        let (to_blocks, to_rest) = to.as_chunks_mut::<8>();
        for (from, to) in from_blocks.iter().zip(to_blocks) {
            // SAFETY: `from` is 16 bytes and `to` 32; neither instruction wants alignment.
            unsafe {
                let halves = _mm_loadu_si128(from.as_ptr().cast());
                _mm256_storeu_ps(to.as_mut_ptr().cast(), _mm256_cvtph_ps(halves));
            }
        }
        portable::f16_to_f32(from_rest, to_rest);
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn f32_to_f16(from: &[[u8; 4]], to: &mut [[u8; 2]]) -> Extremes<u32> {
        let (from_blocks, from_rest) = from.as_chunks::<8>();
        let (to_blocks, to_rest) = to.as_chunks_mut::<8>();
        let (mask, one) = (_mm256_set1_epi32(i32::MAX), _mm256_set1_epi32(1));
        let (mut largest, mut smallest) = (_mm256_setzero_si256(), _mm256_set1_epi32(-1));
        for (from, to) in from_blocks.iter().zip(to_blocks) {
            // SAFETY: `from` is 32 bytes and `to` 16; neither instruction wants alignment.
            unsafe {
                let floats = _mm256_loadu_ps(from.as_ptr().cast());
                let magnitude = _mm256_and_si256(_mm256_castps_si256(floats), mask);
                largest = _mm256_max_epu32(largest, magnitude);
                smallest = _mm256_min_epu32(smallest, _mm256_sub_epi32(magnitude, one));
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats);
                _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
            }
        }
        let rest = wide::f32::block::<5, 10, 15, false, 2>(from_rest, to_rest);
        let lanes = |vector: __m256i| {
            let mut lanes = [0u32; 8];
            // SAFETY: `lanes` is 32 bytes; the instruction wants no alignment.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
            lanes
        };
        Extremes {
            largest: lanes(largest).into_iter().fold(rest.largest, u32::max),
            smallest: lanes(smallest).into_iter().fold(rest.smallest, u32::min),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn f32_to_f16_wide(from: &[[u8; 4]], to: &mut [[u8; 2]]) -> Extremes<u32> {
        let (from_blocks, from_rest) = from.as_chunks::<16>();
        let (to_blocks, to_rest) = to.as_chunks_mut::<16>();
        let (mask, one) = (_mm512_set1_epi32(i32::MAX), _mm512_set1_epi32(1));
        let (mut largest, mut smallest) = (_mm512_setzero_si512(), _mm512_set1_epi32(-1));
        for (from, to) in from_blocks.iter().zip(to_blocks) {
            // SAFETY: `from` is 64 bytes and `to` 32; neither instruction wants alignment.
            unsafe {
                let floats = _mm512_loadu_ps(from.as_ptr().cast());
                let magnitude = _mm512_and_si512(_mm512_castps_si512(floats), mask);
                largest = _mm512_max_epu32(largest, magnitude);
                smallest = _mm512_min_epu32(smallest, _mm512_sub_epi32(magnitude, one));
                let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
            }
        }
        let rest = wide::f32::block::<5, 10, 15, false, 2>(from_rest, to_rest);
        Extremes {
            largest: rest.largest.max(_mm512_reduce_max_epu32(largest)),
            smallest: rest.smallest.min(_mm512_reduce_min_epu32(smallest)),
        }
    }
}
