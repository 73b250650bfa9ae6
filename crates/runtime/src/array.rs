//! An array in memory, as models take and give them.

use weighbridge_formats::{DType, Error, Result, TensorInfo};

/// Numbers in memory: a dtype, the sizes of the dimensions, and the elements in row-major order, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// The type of the elements.
    pub dtype: DType,
    /// The sizes of the dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// The elements, as many bytes as dtype and shape say.
    pub bytes: Vec<u8>,
}

/// A Rust type that is the element of a dtype.
pub trait Element: bytemuck::Pod {
    /// The dtype.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty = $dtype:ident;)*) => { $(impl Element for $type { const DTYPE: DType = DType::$dtype; })* };
}

elements! {
    u8 = U8; i8 = I8; u16 = U16; i16 = I16; u32 = U32; i32 = I32; u64 = U64; i64 = I64;
    half::f16 = F16; half::bf16 = Bf16; f32 = F32; f64 = F64;
}

impl Array {
    /// An array of these bytes.
    ///
    /// # Errors
    /// `Mismatch` if the bytes are not as many as dtype and shape say; `Malformed` if those overflow.
    pub fn new(dtype: DType, shape: impl Into<Vec<u64>>, bytes: Vec<u8>) -> Result<Self> {
        let array = Self { dtype, shape: shape.into(), bytes };
        array.elements()?;
        Ok(array)
    }

    /// An array of these elements.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn of<T: Element>(shape: impl Into<Vec<u64>>, elements: &[T]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(std::mem::size_of_val(elements));
        bytes.extend_from_slice(bytemuck::cast_slice(elements));
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
        }
        Self::new(T::DTYPE, shape, bytes)
    }

    /// The number of elements, held against the bytes: the fields are public, and may contradict each other.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn elements(&self) -> Result<u64> {
        let info = TensorInfo::new("array", self.dtype, self.shape.as_slice())?;
        if info.bytes() != self.bytes.len() as u64 {
            let (shape, dtype, given) = (&self.shape, self.dtype, self.bytes.len());
            let what =
                format!("shape {shape:?} of {dtype} takes {} bytes, and {given} are here", info.bytes());
            return Err(Error::mismatch(what));
        }
        Ok(info.elements())
    }

    /// The elements as they are.
    ///
    /// # Errors
    /// `Mismatch` if the dtype is another, or the bytes are not as many as they must be.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.elements()?;
        if self.dtype != T::DTYPE {
            return Err(Error::mismatch(format!("an array of {}, asked for as {}", self.dtype, T::DTYPE)));
        }
        if cfg!(target_endian = "big") {
            let mut bytes = self.bytes.clone();
            bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
            return Ok(bytemuck::pod_collect_to_vec(&bytes));
        }
        Ok(bytemuck::pod_collect_to_vec(&self.bytes))
    }

    /// The elements of any number type as f64: exact for all but integers beyond 2⁵³.
    ///
    /// # Errors
    /// `Unsupported` for complex numbers and packed types; else as [`Array::to_vec`].
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        macro_rules! widened {
            ($type:ty) => {
                self.to_vec::<$type>()?.into_iter().map(|x| x as f64).collect()
            };
        }
        Ok(match self.dtype {
            DType::Bool => {
                self.elements()?;
                self.bytes.iter().map(|&b| f64::from(u8::from(b != 0))).collect()
            }
            DType::U8 => widened!(u8),
            DType::I8 => widened!(i8),
            DType::U16 => widened!(u16),
            DType::I16 => widened!(i16),
            DType::U32 => widened!(u32),
            DType::I32 => widened!(i32),
            DType::U64 => widened!(u64),
            DType::I64 => widened!(i64),
            DType::F16 => self.to_vec::<half::f16>()?.into_iter().map(f64::from).collect(),
            DType::Bf16 => self.to_vec::<half::bf16>()?.into_iter().map(f64::from).collect(),
            DType::F32 => widened!(f32),
            DType::F64 => self.to_vec()?,
            narrow @ (DType::F8E4M3 | DType::F8E4M3Fnuz | DType::F8E5M2 | DType::F8E5M2Fnuz) => {
                self.elements()?;
                self.bytes.iter().map(|&b| f64::from(decode(narrow, b))).collect()
            }
            other => {
                return Err(Error::unsupported(format!("numbers of {other} are not computed with here")));
            }
        })
    }
}

/// The value of an 8-bit float, by its layout.
pub(crate) fn decode(dtype: DType, code: u8) -> f32 {
    let (mantissa_bits, bias, fnuz) = match dtype {
        DType::F8E4M3 => (3, 7, false),
        DType::F8E4M3Fnuz => (3, 8, true),
        DType::F8E5M2 => (2, 15, false),
        DType::F8E5M2Fnuz => (2, 16, true),
        _ => return f32::NAN,
    };
    let (sign, rest) = (code >> 7, i32::from(code & 0x7f));
    let (exponent, mantissa) = (rest >> mantissa_bits, rest & ((1 << mantissa_bits) - 1));
    let special = match (fnuz, dtype) {
        (true, _) if code == 0x80 => Some(f32::NAN),
        (false, DType::F8E4M3) if rest == 0x7f => Some(f32::NAN),
        (false, DType::F8E5M2) if exponent == 31 => {
            Some(if mantissa == 0 { f32::INFINITY } else { f32::NAN })
        }
        _ => None,
    };
    let value = special.unwrap_or_else(|| {
        let scale = f64::from(mantissa) / f64::from(1 << mantissa_bits);
        let value = if exponent == 0 {
            libm::ldexp(scale, 1 - bias)
        } else {
            libm::ldexp(1.0 + scale, exponent - bias)
        };
        value as f32
    });
    if sign == 1 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_and_other_types_are_refused() {
        let array = Array::of([2, 2], &[1.5f32, -2.0, 0.0, 7.25]).unwrap();
        assert_eq!((array.dtype, array.bytes.len()), (DType::F32, 16));
        assert_eq!(array.to_vec::<f32>().unwrap(), [1.5, -2.0, 0.0, 7.25]);
        assert_eq!(array.to_f64().unwrap(), [1.5, -2.0, 0.0, 7.25]);
        assert!(array.to_vec::<i32>().unwrap_err().message().contains("asked for as I32"));
        let half = Array::of([1], &[half::f16::from_f32(0.5)]).unwrap();
        assert_eq!(half.to_f64().unwrap(), [0.5]);
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        assert!(Array::new(DType::F32, [3], vec![0; 8]).is_err());
        assert!(Array::new(DType::F32, [u64::MAX, 4], vec![]).is_err());
        let array = Array { dtype: DType::I64, shape: vec![2], bytes: vec![0; 9] };
        assert!(array.to_vec::<i64>().is_err() && array.to_f64().is_err());
    }
}
