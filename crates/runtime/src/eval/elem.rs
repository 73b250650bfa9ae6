//! The element types of ONNX, and rounding to the narrow floats among them.
//!
//! Source of the facts: `TensorProto.DataType` in onnx.proto, and the float layouts of the table in `formats`.

use weighbridge_formats::{DType, Error, Result};

/// An element type. Floats of 16 bits and fewer are held as f32 values that are exact in their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elem {
    F32,
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
    Bool,
    F16,
    F64,
    U32,
    U64,
    Bf16,
    F8E4M3,
    F8E4M3Fnuz,
    F8E5M2,
    F8E5M2Fnuz,
    U4,
    I4,
}

/// Number in onnx.proto, type, name there, dtype.
const TABLE: &[(i32, Elem, &str, Option<DType>)] = &[
    (1, Elem::F32, "float", Some(DType::F32)),
    (2, Elem::U8, "uint8", Some(DType::U8)),
    (3, Elem::I8, "int8", Some(DType::I8)),
    (4, Elem::U16, "uint16", Some(DType::U16)),
    (5, Elem::I16, "int16", Some(DType::I16)),
    (6, Elem::I32, "int32", Some(DType::I32)),
    (7, Elem::I64, "int64", Some(DType::I64)),
    (9, Elem::Bool, "bool", Some(DType::Bool)),
    (10, Elem::F16, "float16", Some(DType::F16)),
    (11, Elem::F64, "double", Some(DType::F64)),
    (12, Elem::U32, "uint32", Some(DType::U32)),
    (13, Elem::U64, "uint64", Some(DType::U64)),
    (16, Elem::Bf16, "bfloat16", Some(DType::Bf16)),
    (17, Elem::F8E4M3, "float8e4m3fn", Some(DType::F8E4M3)),
    (18, Elem::F8E4M3Fnuz, "float8e4m3fnuz", Some(DType::F8E4M3Fnuz)),
    (19, Elem::F8E5M2, "float8e5m2", Some(DType::F8E5M2)),
    (20, Elem::F8E5M2Fnuz, "float8e5m2fnuz", Some(DType::F8E5M2Fnuz)),
    (21, Elem::U4, "uint4", Some(DType::U4)),
    (22, Elem::I4, "int4", Some(DType::I4)),
];

impl Elem {
    /// The type of a number in a file.
    ///
    /// # Errors
    /// `Unsupported` for text, complex numbers, and what is newer than the table.
    pub(crate) fn from_onnx(number: i64) -> Result<Self> {
        let row = TABLE.iter().find(|(n, ..)| i64::from(*n) == number);
        row.map(|(_, elem, ..)| *elem).ok_or_else(|| {
            let name = match number {
                8 => "text",
                14 | 15 => "complex numbers",
                _ => return Error::unsupported(format!("element type {number} is not computed with here")),
            };
            Error::unsupported(format!("{name} (element type {number}) are not computed with here"))
        })
    }

    pub(crate) fn name(self) -> &'static str {
        TABLE.iter().find(|(_, e, ..)| *e == self).map_or("unknown", |(_, _, name, _)| name)
    }

    /// The dtype; `None` for packed integers.
    pub(crate) fn dtype(self) -> Option<DType> {
        TABLE.iter().find(|(_, e, ..)| *e == self).and_then(|(.., dtype)| *dtype)
    }

    pub(crate) fn from_dtype(dtype: DType) -> Result<Self> {
        let row = TABLE.iter().find(|(.., d)| *d == Some(dtype));
        row.map(|(_, elem, ..)| *elem)
            .ok_or_else(|| Error::unsupported(format!("arrays of {dtype} are not computed with here")))
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64) || self.is_narrow()
    }

    /// Whether values are held as f32 and rounded to this type.
    pub(crate) fn is_narrow(self) -> bool {
        matches!(
            self,
            Self::F16 | Self::Bf16 | Self::F8E4M3 | Self::F8E4M3Fnuz | Self::F8E5M2 | Self::F8E5M2Fnuz
        )
    }

    /// The value of this narrow type that is nearest, ties to even. A value past the largest becomes the largest
    /// where `saturate` is set and the type is one of 8 bits, else infinity, or NaN where the type has none.
    pub(crate) fn round(self, x: f32, saturate: bool) -> f32 {
        match self {
            Self::F16 => half::f16::from_f32(x).to_f32(),
            Self::Bf16 => half::bf16::from_f32(x).to_f32(),
            Self::F8E4M3 => round_to(x, 3, -6, 448.0, false, saturate),
            Self::F8E4M3Fnuz => round_to(x, 3, -7, 240.0, false, saturate),
            Self::F8E5M2 => round_to(x, 2, -14, 57344.0, true, saturate),
            Self::F8E5M2Fnuz => round_to(x, 2, -15, 57344.0, false, saturate),
            _ => x,
        }
    }

    /// The smallest and the largest value of an integer type.
    pub(crate) fn range(self) -> Option<(i64, i64)> {
        Some(match self {
            Self::U8 => (0, 255),
            Self::I8 => (-128, 127),
            Self::U16 => (0, 65535),
            Self::I16 => (-32768, 32767),
            Self::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Self::U32 => (0, i64::from(u32::MAX)),
            Self::I64 => (i64::MIN, i64::MAX),
            Self::U64 => (0, i64::MAX),
            Self::U4 => (0, 15),
            Self::I4 => (-8, 7),
            Self::Bool => (0, 1),
            _ => return None,
        })
    }
}

/// Rounds to a float with so many explicit bits of mantissa, whose least normal exponent and largest value are given.
fn round_to(x: f32, mantissa: i32, least: i32, largest: f64, infinite: bool, saturate: bool) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    let wide = f64::from(x);
    let past = || match (saturate, infinite) {
        (true, _) => largest.copysign(wide) as f32,
        (false, true) => f32::INFINITY.copysign(x),
        (false, false) => f32::NAN,
    };
    if x.is_infinite() {
        return past();
    }
    if x == 0.0 {
        return x;
    }
    let exponent = libm::ilogb(wide).max(least);
    let step = libm::ldexp(1.0, exponent - mantissa);
    let rounded = libm::rint(wide / step) * step;
    if rounded.abs() > largest { past() } else { rounded as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_floats_are_rounded_to_the_nearest() {
        let e4m3 = |x| Elem::F8E4M3.round(x, true);
        assert_eq!((e4m3(0.3), e4m3(500.0), e4m3(-1e9), e4m3(17.0)), (0.3125, 448.0, -448.0, 16.0));
        // The least value is 2⁻⁹; half of it rounds to even, which is zero.
        assert_eq!((e4m3(0.001_953_125), e4m3(0.000_976_562_5)), (0.001_953_125, 0.0));
        assert!(Elem::F8E4M3.round(1e9, false).is_nan());
        assert_eq!(Elem::F8E5M2.round(1e9, false), f32::INFINITY);
        assert_eq!(Elem::F16.round(1.0 / 3.0, true), 0.333_251_95);
        assert_eq!(Elem::F16.round(70000.0, true), f32::INFINITY);
        assert_eq!(Elem::Bf16.round(1.0 / 3.0, true), 0.333_984_38);
    }

    #[test]
    fn every_number_of_the_table_is_a_type_and_others_are_refused() {
        for (number, elem, name, dtype) in TABLE {
            assert_eq!(Elem::from_onnx(i64::from(*number)).unwrap(), *elem);
            assert_eq!((elem.name(), elem.dtype()), (*name, *dtype));
        }
        assert!(Elem::from_onnx(8).unwrap_err().message().contains("text"));
        assert!(Elem::from_onnx(99).is_err());
    }
}
