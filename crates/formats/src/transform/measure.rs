//! How far a cast's numbers are from what they were.

use super::kernels::{CastKernel, CastStats, Overflow};
use crate::dtype::DType;

/// Elements that are looked at together: a multiple of every group of narrow elements that fills whole bytes.
const BLOCK: usize = 512;

/// Compares the elements before a cast with those after it.
pub(super) struct Measure {
    from: DType,
    to: DType,
    /// f64 where one of the two is, else f32, which holds every narrower type exactly.
    wide: DType,
}

impl Measure {
    pub(super) fn new(from: DType, to: DType) -> Self {
        let wide = if from == DType::F64 || to == DType::F64 { DType::F64 } else { DType::F32 };
        Self { from, to, wide }
    }

    /// The largest relative error of these elements: of those that are finite and not zero before and after.
    pub(super) fn worst(&self, before: &[u8], after: &[u8]) -> f64 {
        let bytes = |d: DType| BLOCK * d.bits() as usize / 8;
        let mut worst = 0f64;
        let (mut old, mut new) = ([0u8; BLOCK * 8], [0u8; BLOCK * 8]);
        for (before, after) in before.chunks(bytes(self.from)).zip(after.chunks(bytes(self.to))) {
            let n = before.len() * 8 / self.from.bits() as usize;
            let width = self.wide.bits() as usize / 8;
            let before = widen(self.from, self.wide, before, &mut old[..n * width]);
            let after = widen(self.to, self.wide, after, &mut new[..n * width]);
            worst = worst.max(match self.wide {
                DType::F64 => relative64(before, after),
                _ => relative32(before, after),
            });
        }
        worst
    }
}

/// The elements in a dtype that holds them exactly, as bytes.
fn widen<'a>(from: DType, wide: DType, bytes: &'a [u8], scratch: &'a mut [u8]) -> &'a [u8] {
    // Nothing overflows on the way to a wider dtype, so there is nothing to refuse.
    match CastKernel::new(from, wide, Overflow::Infinity) {
        Some(kernel) => {
            let _ = kernel.cast(bytes, scratch, &mut CastStats::default());
            scratch
        }
        None => bytes,
    }
}

fn relative64(before: &[u8], after: &[u8]) -> f64 {
    let pairs = before.as_chunks().0.iter().zip(after.as_chunks().0);
    pairs.fold(0f64, |worst, (&old, &new)| {
        let (old, new) = (f64::from_le_bytes(old), f64::from_le_bytes(new));
        let error = ((new - old) / old).abs();
        // A zero before, and what is not finite, gives NaN or infinity; a zero after is an underflow.
        if error.is_finite() && new != 0.0 && error > worst { error } else { worst }
    })
}

/// As [`relative64`], with a worst error for each of several lanes, which the compiler computes side by side.
fn relative32(before: &[u8], after: &[u8]) -> f64 {
    const LANES: usize = 8;
    let mut worst = [0f32; LANES];
    let (before, after) = (before.as_chunks::<4>().0, after.as_chunks::<4>().0);
    for (before, after) in before.chunks(LANES).zip(after.chunks(LANES)) {
        for ((worst, &old), &new) in worst.iter_mut().zip(before).zip(after) {
            let (old, new) = (f32::from_le_bytes(old), f32::from_le_bytes(new));
            let error = ((new - old) / old).abs();
            let counts = error < f32::INFINITY && new != 0.0;
            let error = if counts { error } else { 0.0 };
            *worst = worst.max(error);
        }
    }
    f64::from(worst.into_iter().fold(0f32, f32::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(from: DType, to: DType, before: &[u8]) -> f64 {
        let mut after = vec![0; before.len() * 8 / from.bits() as usize * to.bits() as usize / 8];
        let kernel = CastKernel::new(from, to, Overflow::Infinity).unwrap();
        kernel.cast(before, &mut after, &mut CastStats::default()).unwrap();
        Measure::new(from, to).worst(before, &after)
    }

    #[test]
    fn rounding_is_measured_and_what_is_counted_elsewhere_is_not() {
        let f32s = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let exact = f32s(&[0.0, -1.0, 0.5, f32::NAN, f32::INFINITY, 1e9, 1e-30]);
        assert_eq!(worst(DType::F32, DType::F16, &exact), 0.0);
        let third = 1.0f32 / 3.0;
        let expected = f64::from(((half::f16::from_f32(third).to_f32() - third) / third).abs());
        let mut many = vec![1.0f32; 3000];
        many[2999] = third;
        assert_eq!(worst(DType::F32, DType::F16, &f32s(&many)), expected);
        let f64s: Vec<u8> = [0.1f64, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(worst(DType::F64, DType::F32, &f64s), (f64::from(0.1f32) - 0.1) / 0.1);
        let halves: Vec<u8> = [0x3c01u16, 0x4000].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(worst(DType::F16, DType::Bf16, &halves) > 0.0009);
    }
}
