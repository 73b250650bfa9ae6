//! The codes of a target type that no rounding reaches: its largest number, infinity and NaN.

use crate::dtype::{DType, FloatLayout, Special};

/// A float layout with its special codes, in the low bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) dtype: DType,
    pub(super) layout: FloatLayout,
    /// The code of the largest finite number.
    pub(super) max: u64,
    /// The bit of the sign, 0 for an unsigned type.
    pub(super) sign: u64,
}

impl Target {
    pub(super) const fn new(dtype: DType) -> Option<Self> {
        let Some(layout) = dtype.float_layout() else { return None };
        let magnitude = layout.exponent + layout.mantissa;
        let all = (1u64 << magnitude) - 1;
        let max = match layout.special {
            Special::Ieee => (((1 << layout.exponent) - 1) << layout.mantissa) - 1,
            Special::AllOnesNan => all - 1,
            Special::NegativeZeroNan | Special::Finite => all,
        };
        let sign = if layout.signed { 1 << magnitude } else { 0 };
        Some(Self { dtype, layout, max, sign })
    }

    /// Whether it has infinities.
    pub(super) fn has_infinity(&self) -> bool {
        self.layout.special == Special::Ieee
    }

    /// Whether it has NaNs.
    pub(super) fn has_nan(&self) -> bool {
        self.layout.special != Special::Finite
    }

    /// The code of infinity, with the sign.
    pub(super) fn infinity(&self, negative: bool) -> Option<u64> {
        self.has_infinity().then_some((self.max + 1) | self.sign_bit(negative))
    }

    /// The code of a NaN. Its sign and what fits of its payload (given in the upper 52 bits' order of an f64)
    /// are kept by the 16-bit and wider types; it is always quiet.
    pub(super) fn nan(&self, negative: bool, payload: u64) -> Option<u64> {
        let mantissa = self.layout.mantissa;
        Some(match self.layout.special {
            // torch sets every bit of an E5M2 NaN.
            Special::Ieee if mantissa < 3 => (self.max + 1) | ((1 << mantissa) - 1) | self.sign_bit(negative),
            Special::Ieee => {
                let quiet = 1 << (mantissa - 1);
                (self.max + 1) | quiet | (payload >> (52 - mantissa)) | self.sign_bit(negative)
            }
            Special::AllOnesNan => (self.max + 1) | self.sign_bit(negative),
            Special::NegativeZeroNan => self.sign,
            Special::Finite => return None,
        })
    }

    /// The code of the largest finite number of that sign; the smallest number for a negative one if the type
    /// has no sign.
    pub(super) fn largest(&self, negative: bool) -> u64 {
        if negative && self.sign == 0 { 0 } else { self.max | self.sign_bit(negative) }
    }

    fn sign_bit(&self, negative: bool) -> u64 {
        if negative { self.sign } else { 0 }
    }
}
