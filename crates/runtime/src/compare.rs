//! How far two arrays are apart.

use weighbridge_formats::{DType, Error, Result};

use crate::array::Array;

/// What difference is allowed: an element may differ by `absolute` plus `relative` times the largest number of the
/// reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// In the unit of the output.
    pub absolute: f64,
    /// As a part of the largest magnitude in the reference.
    pub relative: f64,
}

impl Tolerance {
    /// What rounding explains in a deep network of this dtype.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self { absolute: 1e-6, relative: 1e-6 },
            DType::F32 => Self { absolute: 1e-5, relative: 1e-4 },
            DType::F16 => Self { absolute: 1e-3, relative: 2e-2 },
            DType::Bf16 => Self { absolute: 1e-2, relative: 5e-2 },
            _ => Self { absolute: 0.0, relative: 0.0 },
        }
    }
}

/// The difference of two arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The largest difference of two elements. Infinite where one is NaN and the other is not.
    pub absolute: f64,
    /// The same over the largest magnitude in the reference.
    pub relative: f64,
    /// The cosine of the angle between both as vectors; 1 where both are zero.
    pub cosine: f64,
    /// Whether it is within the tolerance.
    pub within: bool,
}

/// Compares an array with a reference.
///
/// # Errors
/// `Mismatch` for another dtype or shape; `Unsupported` for types that are not computed with.
pub fn compare(got: &Array, wanted: &Array, tolerance: Tolerance) -> Result<Difference> {
    if got.dtype != wanted.dtype || got.shape != wanted.shape {
        let what =
            format!("{} {:?} is compared with {} {:?}", got.dtype, got.shape, wanted.dtype, wanted.shape);
        return Err(Error::mismatch(what));
    }
    let (a, b) = (got.to_f64()?, wanted.to_f64()?);
    let (mut absolute, mut largest) = (0f64, 0f64);
    let (mut dot, mut aa, mut bb) = (0f64, 0f64, 0f64);
    for (&x, &y) in a.iter().zip(&b) {
        let apart = if x == y || x.is_nan() && y.is_nan() { 0.0 } else { (x - y).abs() };
        absolute = absolute.max(if apart.is_nan() { f64::INFINITY } else { apart });
        if y.is_finite() {
            largest = largest.max(y.abs());
        }
        if x.is_finite() && y.is_finite() {
            dot += x * y;
            aa += x * x;
            bb += y * y;
        }
    }
    let relative = if absolute == 0.0 { 0.0 } else { absolute / largest };
    let cosine = if aa == 0.0 && bb == 0.0 { 1.0 } else { dot / (aa.sqrt() * bb.sqrt()) };
    let within = absolute <= tolerance.absolute + tolerance.relative * largest;
    Ok(Difference { absolute, relative, cosine: if cosine.is_nan() { 0.0 } else { cosine }, within })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(a: &[f32], b: &[f32]) -> Difference {
        let array = |v: &[f32]| Array::of([v.len() as u64], v).unwrap();
        compare(&array(a), &array(b), Tolerance::of(DType::F32)).unwrap()
    }

    #[test]
    fn differences_are_measured() {
        let same = difference(&[1.0, -2.0], &[1.0, -2.0]);
        assert_eq!((same.absolute, same.relative, same.within), (0.0, 0.0, true));
        assert!((same.cosine - 1.0).abs() < 1e-12);
        let off = difference(&[1.0, -2.5], &[1.0, -2.0]);
        assert_eq!((off.absolute, off.relative, off.within), (0.5, 0.25, false));
        assert!(difference(&[1.000_01], &[1.0]).within);
        let nan = difference(&[f32::NAN], &[1.0]);
        assert_eq!((nan.absolute, nan.within), (f64::INFINITY, false));
        assert!(difference(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY]).within);
        assert!(!difference(&[f32::INFINITY], &[1.0]).within);
        assert_eq!(difference(&[], &[]).cosine, 1.0);
    }

    #[test]
    fn other_shapes_are_no_comparison() {
        let (a, b) = (Array::of([1], &[1f32]).unwrap(), Array::of([1, 1], &[1f32]).unwrap());
        assert!(compare(&a, &b, Tolerance::of(DType::F32)).is_err());
    }
}
