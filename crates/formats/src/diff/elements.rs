//! Comparing runs of elements, each side in its own dtype.

use crate::dtype::{DType, FloatLayout, Kind, Special};

/// How the elements of two tensors differ.
///
/// Numbers are compared as numbers: NaN equals NaN, and the two zeros are equal.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueDiff {
    /// Elements that differ by more than the tolerance.
    pub differing: u64,
    /// Elements that are NaN on one side only; counted in `differing` too.
    pub nan_on_one_side: u64,
    /// Elements of one dtype that are equal as numbers and differ as bits: -0 and 0, two NaNs.
    pub other_bits: u64,
    /// The largest absolute difference of any two elements, within the tolerance or not; of complex numbers, the
    /// modulus. `None` for opaque bits.
    pub max_absolute: Option<f64>,
    /// The largest difference in proportion to the larger of the two magnitudes.
    pub max_relative: Option<f64>,
    /// The first element that differs by more than the tolerance, counted in row-major order.
    pub first: Option<u64>,
    /// The element with the largest absolute difference.
    pub worst: Option<u64>,
}

impl ValueDiff {
    /// Takes in what another run of the same tensor has.
    pub(super) fn merge(&mut self, other: &Self) {
        self.differing += other.differing;
        self.nan_on_one_side += other.nan_on_one_side;
        self.other_bits += other.other_bits;
        self.first = [self.first, other.first].into_iter().flatten().min();
        let (ours, theirs) = (self.max_absolute.unwrap_or(-1.0), other.max_absolute.unwrap_or(-1.0));
        if theirs > ours || (theirs == ours && other.worst < self.worst) {
            (self.max_absolute, self.worst) = (other.max_absolute, other.worst);
        }
        self.max_relative = [self.max_relative, other.max_relative].into_iter().flatten().reduce(f64::max);
    }

    /// Whether nothing differs beyond the tolerance.
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }

    fn add(&mut self, index: u64, differs: bool, absolute: f64, magnitude: f64) {
        if differs {
            self.differing += 1;
            self.first.get_or_insert(index);
        }
        if self.max_absolute.is_none_or(|max| absolute > max) {
            (self.max_absolute, self.worst) = (Some(absolute), Some(index));
        }
        // An infinity in the numerator has one in the denominator: as wrong as can be.
        let relative = if absolute.is_infinite() { f64::INFINITY } else { absolute / magnitude };
        if self.max_relative.is_none_or(|max| relative > max) {
            self.max_relative = Some(relative);
        }
    }
}

/// Two runs of the same elements, each with its dtype, contiguous and little-endian.
pub(super) struct Runs<'a> {
    pub(super) a: (DType, &'a [u8]),
    pub(super) b: (DType, &'a [u8]),
    /// The index of the first element in its tensor.
    pub(super) first: u64,
    pub(super) count: usize,
}

/// Elements that are decoded at once: small enough for the fastest cache.
const BLOCK: usize = 512;

impl Runs<'_> {
    /// Adds what differs to `diff`.
    pub(super) fn compare(&self, tolerance: f64, diff: &mut ValueDiff) {
        let same_dtype = self.a.0 == self.b.0;
        if same_dtype && self.a.1 == self.b.1 {
            return;
        }
        let integers = |d: DType| matches!(d.kind(), Kind::Bool | Kind::Signed | Kind::Unsigned);
        if self.a.0.kind() == Kind::Bits || self.b.0.kind() == Kind::Bits {
            self.compare_bits(diff);
        } else if integers(self.a.0) && integers(self.b.0) {
            self.compare_integers(tolerance, diff);
        } else {
            self.compare_floats(tolerance, diff);
        }
        // Two tensors of one dtype whose bytes differ have elements with other bits, beside those that differ.
        if same_dtype && let Some(size) = self.a.0.size() {
            let (a, b) = (self.a.1.chunks_exact(size as usize), self.b.1.chunks_exact(size as usize));
            diff.other_bits += a.zip(b).filter(|(a, b)| a != b).count() as u64;
        }
    }

    /// Opaque bits are equal or not; two dtypes are never equal here.
    fn compare_bits(&self, diff: &mut ValueDiff) {
        let size = self.a.0.size().unwrap_or(1) as usize;
        let same = self.a.0 == self.b.0;
        for (i, (a, b)) in self.a.1.chunks_exact(size).zip(self.b.1.chunks_exact(size)).enumerate() {
            if !same || a != b {
                diff.differing += 1;
                diff.first.get_or_insert(self.first + i as u64);
            }
        }
    }

    fn compare_integers(&self, tolerance: f64, diff: &mut ValueDiff) {
        for i in 0..self.count {
            let (a, b) = (integer(self.a.0, self.a.1, i), integer(self.b.0, self.b.1, i));
            if a != b {
                let absolute = a.abs_diff(b) as f64;
                let magnitude = a.unsigned_abs().max(b.unsigned_abs()) as f64;
                diff.add(self.first + i as u64, absolute > tolerance, absolute, magnitude);
            }
        }
    }

    fn compare_floats(&self, tolerance: f64, diff: &mut ValueDiff) {
        let complex = |d: DType| d.kind() == Kind::Complex;
        // A real number beside a complex one is its real part.
        let parts = 1 + usize::from(complex(self.a.0) || complex(self.b.0));
        let (decode_a, decode_b) = (Decoder::new(self.a.0), Decoder::new(self.b.0));
        let mut a = vec![[0.0; 2]; BLOCK];
        let mut b = vec![[0.0; 2]; BLOCK];
        let mut start = 0;
        while start < self.count {
            let count = BLOCK.min(self.count - start);
            decode_a.decode(self.a.1, start, &mut a[..count]);
            decode_b.decode(self.b.1, start, &mut b[..count]);
            for (i, (a, b)) in a[..count].iter().zip(&b[..count]).enumerate() {
                if a == b {
                    continue;
                }
                let index = self.first + (start + i) as u64;
                let (a, b) = (&a[..parts], &b[..parts]);
                if a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())) {
                    continue;
                }
                if a.iter().any(|x| x.is_nan()) != b.iter().any(|x| x.is_nan()) {
                    diff.differing += 1;
                    diff.nan_on_one_side += 1;
                    diff.first.get_or_insert(index);
                    continue;
                }
                let distance = |i: usize| match (a[i], b.get(i).copied().unwrap_or(0.0)) {
                    (a, b) if a == b || (a.is_nan() && b.is_nan()) => 0.0,
                    (a, b) if a.is_nan() || b.is_nan() => f64::INFINITY,
                    (a, b) => (a - b).abs(),
                };
                let modulus = |x: &[f64]| x.iter().copied().filter(|x| !x.is_nan()).fold(0.0, f64::hypot);
                let absolute = (0..parts).map(distance).fold(0.0, f64::hypot);
                let magnitude = modulus(a).max(modulus(b));
                diff.add(index, absolute > tolerance, absolute, magnitude);
            }
            start += count;
        }
    }
}

/// The integer at an index; 0 past the end, which the callers' counts exclude.
fn integer(dtype: DType, bytes: &[u8], index: usize) -> i128 {
    let bits = dtype.bits() as usize;
    if bits < 8 {
        let byte = bytes.get(index * bits / 8).copied().unwrap_or(0);
        let code = byte >> (index * bits % 8) << (8 - bits);
        // Of a signed integer the topmost bit is its sign.
        return match dtype.kind() {
            Kind::Signed => i128::from(code as i8 >> (8 - bits)),
            _ => i128::from(code >> (8 - bits)),
        };
    }
    let size = bits / 8;
    let Some(element) = bytes.get(index * size..(index + 1) * size) else { return 0 };
    let mut wide = [0; 8];
    let Some(low) = wide.get_mut(..size) else { return 0 };
    low.copy_from_slice(element);
    let unsigned = u64::from_le_bytes(wide);
    match dtype.kind() {
        Kind::Bool => i128::from(unsigned != 0),
        Kind::Signed => {
            let unused = 64 - dtype.bits() as u32;
            i128::from(((unsigned << unused) as i64) >> unused)
        }
        _ => i128::from(unsigned),
    }
}

/// Decodes elements of a dtype to pairs of f64: real and imaginary part.
struct Decoder {
    dtype: DType,
    /// The number for each code of the types of at most 8 bits.
    table: Vec<f64>,
}

impl Decoder {
    fn new(dtype: DType) -> Self {
        let table = match dtype.float_layout() {
            Some(layout) if dtype.bits() <= 8 => {
                (0..1u32 << dtype.bits()).map(|code| small_float(layout, code)).collect()
            }
            _ => Vec::new(),
        };
        Self { dtype, table }
    }

    /// Decodes the elements from `start` on.
    fn decode(&self, bytes: &[u8], start: usize, out: &mut [[f64; 2]]) {
        fn each<const N: usize>(
            bytes: &[u8],
            start: usize,
            out: &mut [[f64; 2]],
            number: impl Fn([u8; N]) -> [f64; 2],
        ) {
            let (elements, _) = bytes.as_chunks::<N>();
            for (out, element) in out.iter_mut().zip(elements.iter().skip(start)) {
                *out = number(*element);
            }
        }
        let half = |b: [u8; 2]| half::f16::from_le_bytes(b).to_f64();
        match self.dtype {
            DType::F16 => each(bytes, start, out, |b: [u8; 2]| [half(b), 0.0]),
            DType::Bf16 => each(bytes, start, out, |b: [u8; 2]| [half::bf16::from_le_bytes(b).to_f64(), 0.0]),
            DType::F32 => each(bytes, start, out, |b: [u8; 4]| [f64::from(f32::from_le_bytes(b)), 0.0]),
            DType::F64 => each(bytes, start, out, |b: [u8; 8]| [f64::from_le_bytes(b), 0.0]),
            DType::C32 => each(bytes, start, out, |[a, b, c, d]: [u8; 4]| [half([a, b]), half([c, d])]),
            DType::C64 => each(bytes, start, out, |b: [u8; 8]| {
                let bits = u64::from_le_bytes(b);
                let part = |bits: u32| f64::from(f32::from_bits(bits));
                [part(bits as u32), part((bits >> 32) as u32)]
            }),
            DType::C128 => each(bytes, start, out, |b: [u8; 16]| {
                let bits = u128::from_le_bytes(b);
                [f64::from_bits(bits as u64), f64::from_bits((bits >> 64) as u64)]
            }),
            _ if !self.table.is_empty() => {
                let width = self.dtype.bits() as usize;
                for (i, out) in out.iter_mut().enumerate() {
                    let bit = (start + i) * width;
                    // A 6-bit code may lie in two bytes; the lower bits come first.
                    let at = |i: usize| u16::from(bytes.get(i).copied().unwrap_or(0));
                    let pair = at(bit / 8) | at(bit / 8 + 1) << 8;
                    let code = usize::from(pair >> (bit % 8)) & ((1 << width) - 1);
                    *out = [self.table.get(code).copied().unwrap_or(f64::NAN), 0.0];
                }
            }
            integer_type => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = [integer(integer_type, bytes, start + i) as f64, 0.0];
                }
            }
        }
    }
}

/// The number that a code of a small float type stands for.
fn small_float(layout: FloatLayout, code: u32) -> f64 {
    let FloatLayout { signed, exponent, mantissa, bias, special } = layout;
    let (exponent, mantissa) = (u32::from(exponent), u32::from(mantissa));
    let sign_bit = if signed { 1 << (exponent + mantissa) } else { 0 };
    let magnitude = code & ((1 << (exponent + mantissa)) - 1);
    let (e, m) = (magnitude >> mantissa, magnitude & ((1 << mantissa) - 1));
    let largest = (1 << exponent) - 1;
    let nan = match special {
        Special::Ieee if e == largest && m == 0 => {
            return if code & sign_bit != 0 { f64::NEG_INFINITY } else { f64::INFINITY };
        }
        Special::Ieee => e == largest,
        Special::AllOnesNan => magnitude == (1 << (exponent + mantissa)) - 1,
        Special::NegativeZeroNan => signed && code == sign_bit,
        Special::Finite => false,
    };
    if nan {
        return f64::NAN;
    }
    let power = |p: i32| 2f64.powi(p);
    let (e, bias) = (e as i32, i32::from(bias));
    let fraction = f64::from(m) * power(-(mantissa as i32));
    // E8M0 has neither zero nor subnormal numbers: its code 0 is a power of two like any other.
    let value =
        if e == 0 && mantissa > 0 { fraction * power(1 - bias) } else { (1.0 + fraction) * power(e - bias) };
    if code & sign_bit != 0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_integers_come_out_of_their_bytes() {
        let all = |dtype, bytes: &[u8], n| (0..n).map(|i| integer(dtype, bytes, i)).collect::<Vec<_>>();
        assert_eq!(all(DType::U4, &[0x81, 0x0f], 3), [1, 8, 15]);
        assert_eq!(all(DType::I4, &[0x81, 0x0f], 3), [1, -8, -1]);
        assert_eq!(all(DType::U2, &[0b11_10_01_00, 0b01], 5), [0, 1, 2, 3, 1]);
        assert_eq!(all(DType::I2, &[0b11_10_01_00, 0b01], 5), [0, 1, -2, -1, 1]);
    }

    fn compare(a: (DType, &[u8]), b: (DType, &[u8]), tolerance: f64) -> ValueDiff {
        let count = (a.1.len() as u64 * 8 / a.0.bits()) as usize;
        let mut diff = ValueDiff::default();
        Runs { a, b, first: 100, count }.compare(tolerance, &mut diff);
        diff
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn nan_equals_nan_and_zeros_are_equal() {
        let a = f32s(&[f32::NAN, 0.0, 1.0]);
        let b = f32s(&[-f32::NAN, -0.0, 1.0]);
        let diff = compare((DType::F32, &a), (DType::F32, &b), 0.0);
        assert!(diff.is_equal());
        assert_eq!((diff.other_bits, diff.max_absolute), (2, None));
    }

    #[test]
    fn differences_are_measured_and_placed() {
        let a = f32s(&[1.0, 2.0, f32::INFINITY, f32::NAN, 8.0]);
        let b = f32s(&[1.0, 2.5, f32::INFINITY, 1.0, 4.0]);
        let diff = compare((DType::F32, &a), (DType::F32, &b), 0.5);
        assert_eq!((diff.differing, diff.nan_on_one_side), (2, 1));
        assert_eq!((diff.first, diff.worst), (Some(103), Some(104)));
        assert_eq!((diff.max_absolute, diff.max_relative), (Some(4.0), Some(0.5)));
        let infinite = compare((DType::F32, &f32s(&[f32::INFINITY])), (DType::F32, &f32s(&[1.0])), 1e30);
        assert_eq!((infinite.differing, infinite.max_relative), (1, Some(f64::INFINITY)));
    }

    #[test]
    fn dtypes_compare_as_numbers() {
        let f32 = f32s(&[1.0, -2.0]);
        assert!(compare((DType::F32, &f32), (DType::Bf16, &[0x80, 0x3f, 0x00, 0xc0]), 0.0).is_equal());
        assert!(compare((DType::F32, &f32), (DType::F16, &[0x00, 0x3c, 0x00, 0xc0]), 0.0).is_equal());
        assert!(compare((DType::F32, &f32), (DType::I8, &[1, 0xfe]), 0.0).is_equal());
        assert!(compare((DType::F8E4M3, &[0x38, 0xc0]), (DType::F32, &f32), 0.0).is_equal());
        let c64 = f32s(&[1.0, 0.0, -2.0, 3.0]);
        let diff = compare((DType::C64, &c64), (DType::F32, &f32), 0.0);
        assert_eq!((diff.differing, diff.max_absolute), (1, Some(3.0)));
    }

    #[test]
    fn wide_integers_are_exact() {
        let (a, b) = (u64::MAX.to_le_bytes(), (u64::MAX - 1).to_le_bytes());
        let diff = compare((DType::U64, &a), (DType::U64, &b), 0.0);
        assert_eq!((diff.differing, diff.max_absolute), (1, Some(1.0)));
        assert!(compare((DType::I16, &[0xff, 0xff]), (DType::I64, &[0xff; 8]), 0.0).is_equal());
        assert!(!compare((DType::U16, &[0xff, 0xff]), (DType::I64, &[0xff; 8]), 0.0).is_equal());
    }

    #[test]
    fn small_floats_decode_as_their_specifications_say() {
        let of = |dtype: DType, code: u32| small_float(dtype.float_layout().unwrap(), code);
        assert_eq!(of(DType::F8E4M3, 0x7e), 448.0);
        assert!(of(DType::F8E4M3, 0x7f).is_nan() && of(DType::F8E4M3, 0xff).is_nan());
        assert_eq!(of(DType::F8E4M3, 0x01), 2f64.powi(-9));
        assert_eq!(of(DType::F8E5M2, 0x7b), 57344.0);
        assert_eq!(of(DType::F8E5M2, 0xfc), f64::NEG_INFINITY);
        assert!(of(DType::F8E4M3Fnuz, 0x80).is_nan());
        assert_eq!(of(DType::F8E4M3Fnuz, 0x7f), 240.0);
        assert_eq!(of(DType::F8E5M2Fnuz, 0x7f), 57344.0);
        assert_eq!((of(DType::F8E8M0, 0), of(DType::F8E8M0, 127)), (2f64.powi(-127), 1.0));
        assert!(of(DType::F8E8M0, 255).is_nan());
        assert_eq!((of(DType::F4, 7), of(DType::F4, 9)), (6.0, -0.5));
        assert_eq!((of(DType::F6E2M3, 31), of(DType::F6E3M2, 31)), (7.5, 28.0));
    }

    #[test]
    fn packed_elements_come_low_bits_first() {
        let decoded = |dtype, bytes: &[u8], count| {
            let mut out = vec![[0.0; 2]; count];
            Decoder::new(dtype).decode(bytes, 0, &mut out);
            out.into_iter().map(|[re, _]| re).collect::<Vec<_>>()
        };
        assert_eq!(decoded(DType::F4, &[0x92], 2), [1.0, -0.5]);
        // Codes 1, 2, 3, 31 in 24 bits.
        let bits: u32 = 1 | 2 << 6 | 3 << 12 | 31 << 18;
        assert_eq!(decoded(DType::F6E2M3, &bits.to_le_bytes()[..3], 4), [0.125, 0.25, 0.375, 7.5]);
    }
}
