//! Values that the fast loops leave alone: overflows, infinities and NaNs.

use super::layout::Target;
use super::{CastStats, Overflow};
use crate::dtype::DType;

/// A value that has no plain code in the target.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rare {
    /// Finite, and beyond the range.
    Overflow,
    /// An infinity.
    Infinite,
    /// A NaN with its mantissa, left-aligned in 52 bits.
    Nan(u64),
}

/// Counts the value and gives its code; `None` if it is refused.
pub(super) fn code(
    target: &Target,
    overflow: Overflow,
    rare: Rare,
    negative: bool,
    stats: &mut CastStats,
) -> Option<u64> {
    let lost = match rare {
        Rare::Overflow => {
            stats.overflow += 1;
            true
        }
        Rare::Infinite => {
            stats.inf += 1;
            let lost = !target.has_infinity();
            stats.inf_lost += u64::from(lost);
            lost
        }
        Rare::Nan(_) => {
            stats.nan += 1;
            let lost = !target.has_nan();
            stats.nan_lost += u64::from(lost);
            lost
        }
    };
    if lost && overflow == Overflow::Error {
        return None;
    }
    let largest = target.largest(negative);
    Some(match rare {
        Rare::Nan(payload) => target.nan(negative, payload).unwrap_or(target.max),
        Rare::Infinite if !lost => target.infinity(negative).unwrap_or(largest),
        // torch saturates E4M3 since 2.13 (its `Float8_e4m3fn.h`); earlier versions gave NaN.
        _ if overflow == Overflow::Saturate || target.dtype == DType::F8E4M3 => largest,
        _ => target.infinity(negative).or_else(|| target.nan(negative, 0)).unwrap_or(largest),
    })
}
