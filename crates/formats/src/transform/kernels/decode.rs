//! From narrow types to f32, which holds every value of them exactly.

use super::simd::{self, Isa};
use crate::dtype::{DType, Special};

/// Decodes the elements of `from`, as many as `to` has. F32 and F64 are not decoded here.
pub(super) fn decode(isa: Isa, dtype: DType, from: &[u8], to: &mut [[u8; 4]]) {
    match dtype {
        DType::F16 => simd::f16_to_f32(isa, from.as_chunks().0, to),
        DType::Bf16 => simd::bf16_to_f32(isa, from.as_chunks().0, to),
        DType::F8E4M3 => look_up(const { &table(DType::F8E4M3) }, from, to),
        DType::F8E5M2 => look_up(const { &table(DType::F8E5M2) }, from, to),
        DType::F8E4M3Fnuz => look_up(const { &table(DType::F8E4M3Fnuz) }, from, to),
        DType::F8E5M2Fnuz => look_up(const { &table(DType::F8E5M2Fnuz) }, from, to),
        DType::F8E8M0 => look_up(const { &table(DType::F8E8M0) }, from, to),
        DType::F4 => unpack::<2, 1, 4>(const { &table(DType::F4) }, from, to),
        DType::F6E2M3 => unpack::<4, 3, 6>(const { &table(DType::F6E2M3) }, from, to),
        DType::F6E3M2 => unpack::<4, 3, 6>(const { &table(DType::F6E3M2) }, from, to),
        other => unreachable!("{other} is no narrow float"),
    }
}

fn look_up(table: &[[u8; 4]; 256], from: &[u8], to: &mut [[u8; 4]]) {
    for (from, to) in from.iter().zip(to) {
        *to = table[usize::from(*from)];
    }
}

/// Takes `N` codes of `BITS` bits out of each `B` bytes, the first from the lowest bits.
fn unpack<const N: usize, const B: usize, const BITS: usize>(
    table: &[[u8; 4]; 256],
    from: &[u8],
    to: &mut [[u8; 4]],
) {
    for (from, to) in from.as_chunks::<B>().0.iter().zip(to.as_chunks_mut::<N>().0) {
        let mut word = from.iter().rev().fold(0u32, |word, &byte| word << 8 | u32::from(byte));
        for to in to {
            *to = table[(word & ((1 << BITS) - 1)) as usize];
            word >>= BITS;
        }
    }
}

/// The f32 of every code of a type of at most 8 bits, as bytes. Codes past its width repeat.
const fn table(dtype: DType) -> [[u8; 4]; 256] {
    let mut out = [[0; 4]; 256];
    let mut code = 0;
    while code < 256 {
        out[code as usize] = value(dtype, code).to_le_bytes();
        code += 1;
    }
    out
}

/// The bits of the f32 of a code.
const fn value(dtype: DType, code: u32) -> u32 {
    const QUIET: u32 = 0x7fc0_0000;
    let Some(layout) = dtype.float_layout() else { return QUIET };
    let (e, m) = (layout.exponent as u32, layout.mantissa as u32);
    let magnitude = code & ((1 << (e + m)) - 1);
    let negative = layout.signed && code >> (e + m) & 1 == 1;
    let sign = (negative as u32) << 31;
    let (exponent, mantissa) = (magnitude >> m, magnitude & ((1 << m) - 1));
    match layout.special {
        Special::Ieee if exponent == (1 << e) - 1 => {
            return sign | if mantissa == 0 { 0x7f80_0000 } else { QUIET };
        }
        Special::AllOnesNan if magnitude == (1 << (e + m)) - 1 => return sign | QUIET,
        Special::NegativeZeroNan if negative && magnitude == 0 => return QUIET,
        _ => {}
    }
    if m == 0 {
        // E8M0: 2^(exponent - 127); the first is an f32 subnormal.
        return if exponent == 0 { 1 << 22 } else { exponent << 23 };
    }
    let bias = 127 - layout.bias as u32;
    if exponent > 0 {
        return sign | (exponent + bias) << 23 | mantissa << (23 - m);
    }
    if mantissa == 0 {
        return sign;
    }
    // A subnormal: its highest bit becomes the hidden one.
    let top = 31 - mantissa.leading_zeros();
    sign | (bias + 1 + top - m) << 23 | (mantissa << (23 - top) & 0x7f_ffff)
}
