//! Element types: one table says for each its width, its names in every format, and its kind.

use std::fmt;

/// What a number of a dtype is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// true or false, one byte each.
    Bool,
    /// A signed integer in two's complement.
    Signed,
    /// An unsigned integer.
    Unsigned,
    /// A float; its layout is in [`FloatLayout`].
    Float,
    /// A pair of floats, real part first.
    Complex,
    /// Opaque bits that no arithmetic here understands.
    Bits,
}

/// The bits of a float type: sign, exponent and mantissa, and what it can say beside numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatLayout {
    /// Whether there is a sign bit.
    pub signed: bool,
    /// Exponent bits.
    pub exponent: u8,
    /// Explicit mantissa bits.
    pub mantissa: u8,
    /// The exponent's bias.
    pub bias: i16,
    /// Which codes are infinities and NaNs.
    pub special: Special,
}

/// Which codes of a float type are no finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// As IEEE 754 has it: the largest exponent is infinity (mantissa 0) or NaN.
    Ieee,
    /// No infinity; only all ones (either sign) is NaN: `E4M3FN`, `E8M0`.
    AllOnesNan,
    /// No infinity, no negative zero; its code (sign alone) is NaN: the FNUZ types.
    NegativeZeroNan,
    /// Every code is a finite number: the 4- and 6-bit types.
    Finite,
}

macro_rules! dtypes {
    ($($variant:ident $name:literal $torch:literal $bits:literal $kind:ident $in_safetensors:literal $doc:literal;)*) => {
        /// The type of a tensor's elements.
        #[non_exhaustive]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $(#[doc = $doc] $variant,)*
        }

        impl DType {
            /// Every dtype, in the order of the table.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// The name as safetensors spells it (`F32`, `BF16`, `F8_E4M3`); types it lacks follow its manner.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The name as torch spells it (`float32`), empty where torch has no such type.
            pub const fn torch_name(self) -> &'static str {
                match self { $(Self::$variant => $torch,)* }
            }

            /// The width of an element in bits.
            pub const fn bits(self) -> u64 {
                match self { $(Self::$variant => $bits,)* }
            }

            /// What an element is.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// Whether safetensors 0.8 can hold it.
            pub const fn in_safetensors(self) -> bool {
                match self { $(Self::$variant => $in_safetensors,)* }
            }

            /// The dtype that safetensors spells so, letter case included.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    // variant  name      torch          bits  kind  in safetensors  doc
    Bool "BOOL" "bool" 8 Bool true "One byte, 0 or 1.";
    U8 "U8" "uint8" 8 Unsigned true "An unsigned 8-bit integer.";
    I8 "I8" "int8" 8 Signed true "A signed 8-bit integer.";
    U16 "U16" "uint16" 16 Unsigned true "An unsigned 16-bit integer.";
    I16 "I16" "int16" 16 Signed true "A signed 16-bit integer.";
    U32 "U32" "uint32" 32 Unsigned true "An unsigned 32-bit integer.";
    I32 "I32" "int32" 32 Signed true "A signed 32-bit integer.";
    U64 "U64" "uint64" 64 Unsigned true "An unsigned 64-bit integer.";
    I64 "I64" "int64" 64 Signed true "A signed 64-bit integer.";
    F4 "F4" "float4_e2m1fn_x2" 4 Float true "E2M1, two to a byte (OCP MX); shapes count single elements.";
    F6E2M3 "F6_E2M3" "" 6 Float true "E2M3, packed (OCP MX).";
    F6E3M2 "F6_E3M2" "" 6 Float true "E3M2, packed (OCP MX).";
    F8E4M3 "F8_E4M3" "float8_e4m3fn" 8 Float true "E4M3 without infinities (OCP).";
    F8E5M2 "F8_E5M2" "float8_e5m2" 8 Float true "E5M2 (OCP).";
    F8E8M0 "F8_E8M0" "float8_e8m0fnu" 8 Float true "An exponent alone (OCP MX scales): a power of two.";
    F8E4M3Fnuz "F8_E4M3FNUZ" "float8_e4m3fnuz" 8 Float true "E4M3, bias 8, no infinities, no negative zero.";
    F8E5M2Fnuz "F8_E5M2FNUZ" "float8_e5m2fnuz" 8 Float true "E5M2, bias 16, no infinities, no negative zero.";
    F16 "F16" "float16" 16 Float true "IEEE 754 half precision.";
    Bf16 "BF16" "bfloat16" 16 Float true "The upper half of an f32.";
    F32 "F32" "float32" 32 Float true "IEEE 754 single precision.";
    F64 "F64" "float64" 64 Float true "IEEE 754 double precision.";
    C32 "C32" "complex32" 32 Complex false "A pair of f16.";
    C64 "C64" "complex64" 64 Complex true "A pair of f32.";
    C128 "C128" "complex128" 128 Complex false "A pair of f64.";
    U4 "U4" "" 4 Unsigned false "An unsigned 4-bit integer (ONNX), two to a byte, the first in the low bits.";
    I4 "I4" "" 4 Signed false "A signed 4-bit integer (ONNX), two to a byte, the first in the low bits.";
    U2 "U2" "" 2 Unsigned false "An unsigned 2-bit integer (ONNX), four to a byte, the first in the low bits.";
    I2 "I2" "" 2 Signed false "A signed 2-bit integer (ONNX), four to a byte, the first in the low bits.";
    Bits8 "BITS8" "bits8" 8 Bits false "Eight opaque bits (torch).";
    Bits16 "BITS16" "bits16" 16 Bits false "Sixteen opaque bits (torch).";
}

impl DType {
    /// The bytes of an element, where it is whole bytes wide.
    pub const fn size(self) -> Option<u64> {
        if self.bits().is_multiple_of(8) { Some(self.bits() / 8) } else { None }
    }

    /// Whether the last byte of a tensor may be filled up: ONNX's narrow integers come in any number, with zero bits
    /// behind the last. The narrow floats fill whole bytes, as safetensors has it.
    pub const fn is_padded(self) -> bool {
        matches!(self, Self::U4 | Self::I4 | Self::U2 | Self::I2)
    }

    /// The bytes that `elements` take together; `None` if they do not fill whole bytes (but see
    /// [`DType::is_padded`]), or overflow.
    pub const fn bytes(self, elements: u64) -> Option<u64> {
        match elements.checked_mul(self.bits()) {
            Some(bits) if bits.is_multiple_of(8) || self.is_padded() => Some(bits.div_ceil(8)),
            _ => None,
        }
    }

    /// The dtype a person means: safetensors' or torch's name or a common short form, in any letter case.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_prefix("torch.").unwrap_or(&lower);
        let alias = match lower {
            "half" | "fp16" => Self::F16,
            "bfloat" | "bfp16" => Self::Bf16,
            "float" | "fp32" | "single" => Self::F32,
            "double" | "fp64" => Self::F64,
            "long" => Self::I64,
            "int" => Self::I32,
            "short" => Self::I16,
            "byte" => Self::U8,
            "char" => Self::I8,
            "f8" | "fp8" | "f8e4m3" | "float8" => Self::F8E4M3,
            "f8e5m2" => Self::F8E5M2,
            _ => {
                let same = |d: &&DType| d.name().eq_ignore_ascii_case(lower) || d.torch_name() == lower;
                return Self::ALL.iter().find(same).copied();
            }
        };
        Some(alias)
    }

    /// How a float is laid out; `None` for what is no (single) float.
    pub const fn float_layout(self) -> Option<FloatLayout> {
        const fn layout(
            signed: bool,
            exponent: u8,
            mantissa: u8,
            bias: i16,
            special: Special,
        ) -> FloatLayout {
            FloatLayout { signed, exponent, mantissa, bias, special }
        }
        Some(match self {
            Self::F4 => layout(true, 2, 1, 1, Special::Finite),
            Self::F6E2M3 => layout(true, 2, 3, 1, Special::Finite),
            Self::F6E3M2 => layout(true, 3, 2, 3, Special::Finite),
            Self::F8E4M3 => layout(true, 4, 3, 7, Special::AllOnesNan),
            Self::F8E5M2 => layout(true, 5, 2, 15, Special::Ieee),
            Self::F8E8M0 => layout(false, 8, 0, 127, Special::AllOnesNan),
            Self::F8E4M3Fnuz => layout(true, 4, 3, 8, Special::NegativeZeroNan),
            Self::F8E5M2Fnuz => layout(true, 5, 2, 16, Special::NegativeZeroNan),
            Self::F16 => layout(true, 5, 10, 15, Special::Ieee),
            Self::Bf16 => layout(true, 8, 7, 127, Special::Ieee),
            Self::F32 => layout(true, 8, 23, 127, Special::Ieee),
            Self::F64 => layout(true, 11, 52, 1023, Special::Ieee),
            _ => return None,
        })
    }

    /// Whether every value of `self` is a value of `to`, so that a cast there loses nothing.
    pub fn widens_to(self, to: Self) -> bool {
        if self == to {
            return true;
        }
        match (self.kind(), to.kind()) {
            (Kind::Float, Kind::Float) => match (self.float_layout(), to.float_layout()) {
                (Some(a), Some(b)) => {
                    // The smallest and the largest number of `a` must exist in `b`.
                    let low = |l: FloatLayout| {
                        i32::from(l.mantissa > 0) - i32::from(l.bias) - i32::from(l.mantissa)
                    };
                    let top = |l: FloatLayout| i32::from(l.special == Special::Ieee || l.mantissa == 0);
                    let high = |l: FloatLayout| (1 << l.exponent) - 1 - top(l) - i32::from(l.bias);
                    let has_nan = |l: FloatLayout| l.special != Special::Finite;
                    b.mantissa >= a.mantissa
                        && low(b) <= low(a)
                        && high(b) >= high(a)
                        && (!a.signed || b.signed)
                        && (!has_nan(a) || has_nan(b))
                        && (a.special != Special::Ieee || b.special == Special::Ieee)
                }
                _ => false,
            },
            (Kind::Unsigned | Kind::Bool, Kind::Unsigned) | (Kind::Signed, Kind::Signed) => {
                self.bits() <= to.bits()
            }
            (Kind::Unsigned | Kind::Bool, Kind::Signed) => self.bits() < to.bits(),
            (Kind::Complex, Kind::Complex) => self.bits() <= to.bits(),
            _ => false,
        }
    }

    /// The width of the unit whose bytes swap between byte orders: half of a complex number, else the element.
    pub const fn swap_unit(self) -> u64 {
        match self.kind() {
            Kind::Complex => self.bits() / 16,
            _ => self.bits() / 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The dtypes that NumPy has, by its kinds and widths without the byte order.
const NUMPY: [(&str, DType); 14] = [
    ("b1", DType::Bool),
    ("u1", DType::U8),
    ("i1", DType::I8),
    ("u2", DType::U16),
    ("i2", DType::I16),
    ("u4", DType::U32),
    ("i4", DType::I32),
    ("u8", DType::U64),
    ("i8", DType::I64),
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

impl DType {
    /// What NumPy calls it, without the byte order (`f4`); `None` where NumPy has no such type.
    pub fn numpy_code(self) -> Option<&'static str> {
        NUMPY.iter().find(|(_, d)| *d == self).map(|(code, _)| *code)
    }

    /// The dtype that NumPy calls so, without the byte order.
    pub fn from_numpy_code(code: &str) -> Option<Self> {
        NUMPY.iter().find(|(c, _)| *c == code).map(|(_, dtype)| *dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for &dtype in DType::ALL {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
            assert_eq!(DType::parse(&dtype.name().to_lowercase()), Some(dtype));
            if !dtype.torch_name().is_empty() {
                assert_eq!(DType::parse(dtype.torch_name()), Some(dtype));
            }
        }
        assert_eq!(DType::from_name("f32"), None, "safetensors' spelling is upper case");
    }

    #[test]
    fn widening_is_exact() {
        assert!(DType::F16.widens_to(DType::F32) && DType::Bf16.widens_to(DType::F32));
        assert!(!DType::F16.widens_to(DType::Bf16) && !DType::Bf16.widens_to(DType::F16));
        assert!(DType::F8E4M3.widens_to(DType::F16) && DType::F8E5M2.widens_to(DType::F16));
        assert!(DType::F8E8M0.widens_to(DType::F32) && !DType::F8E8M0.widens_to(DType::F16));
        assert!(!DType::F32.widens_to(DType::F16) && DType::F32.widens_to(DType::F64));
        assert!(DType::U8.widens_to(DType::I16) && !DType::U8.widens_to(DType::I8));
    }

    #[test]
    fn odd_counts_of_narrow_elements_are_no_bytes() {
        assert_eq!(DType::F4.bytes(2), Some(1));
        assert_eq!(DType::F4.bytes(3), None);
        assert_eq!(DType::F64.bytes(u64::MAX), None);
        assert_eq!((DType::I4.bytes(3), DType::U2.bytes(5), DType::I2.bytes(0)), (Some(2), Some(2), Some(0)));
    }
}
