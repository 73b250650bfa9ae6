//! The element types of Rust that have a dtype.

use std::borrow::Cow;

use weighbridge_formats::{DType, Data, Error, ReadAt, Result};

mod sealed {
    pub trait Sealed {}
}

/// A type of elements with a dtype of its own: Rust's integers and floats, `bool`, and `half`'s two floats.
pub trait Element: Copy + Default + Send + Sync + sealed::Sealed + 'static {
    /// The dtype.
    const DTYPE: DType;

    /// Elements as little-endian bytes: the same memory where the machine is little-endian.
    fn to_bytes(elements: &[Self]) -> Cow<'_, [u8]>;

    /// Fills elements with the bytes of a tensor.
    ///
    /// # Errors
    /// Those of the data; `Mismatch` if they are not as many bytes; `Malformed` for a `bool` that is neither 0
    /// nor 1.
    fn fill(elements: &mut [Self], data: &Data<'_>) -> Result<()>;
}

/// Checks that data has as many bytes as elements take.
pub(super) fn check_len(data: &Data<'_>, bytes: u64) -> Result<()> {
    if data.len() == bytes {
        Ok(())
    } else {
        Err(Error::mismatch(format!("{} bytes are given where {bytes} are taken", data.len())))
    }
}

macro_rules! numbers {
    ($($element:ty, $dtype:ident;)*) => {$(
        impl sealed::Sealed for $element {}

        impl Element for $element {
            const DTYPE: DType = DType::$dtype;

            fn to_bytes(elements: &[Self]) -> Cow<'_, [u8]> {
                if cfg!(target_endian = "little") {
                    Cow::Borrowed(bytemuck::cast_slice(elements))
                } else {
                    Cow::Owned(elements.iter().flat_map(|x| x.to_le_bytes()).collect())
                }
            }

            fn fill(elements: &mut [Self], data: &Data<'_>) -> Result<()> {
                check_len(data, size_of_val(elements) as u64)?;
                data.read_at(0, bytemuck::cast_slice_mut(elements))?;
                data.finish()?;
                if cfg!(target_endian = "big") {
                    elements.iter_mut().for_each(|x| *x = Self::from_le_bytes(x.to_ne_bytes()));
                }
                Ok(())
            }
        }
    )*};
}

numbers! {
    f64, F64;
    f32, F32;
    half::f16, F16;
    half::bf16, Bf16;
    i64, I64;
    i32, I32;
    i16, I16;
    i8, I8;
    u64, U64;
    u32, U32;
    u16, U16;
    u8, U8;
}

impl sealed::Sealed for bool {}

impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn to_bytes(elements: &[Self]) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(elements))
    }

    fn fill(elements: &mut [Self], data: &Data<'_>) -> Result<()> {
        check_len(data, elements.len() as u64)?;
        let mut chunk = [0; 4096];
        let mut at = 0;
        for part in elements.chunks_mut(chunk.len()) {
            let bytes = &mut chunk[..part.len()];
            data.read_at(at, bytes)?;
            for (element, byte) in part.iter_mut().zip(bytes) {
                *element = match byte {
                    0 => false,
                    1 => true,
                    other => return Err(Error::malformed(format!("a bool is {other}, neither 0 nor 1"))),
                };
            }
            at += part.len() as u64;
        }
        data.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<E: Element + PartialEq + std::fmt::Debug>(elements: &[E]) {
        let bytes = E::to_bytes(elements);
        assert_eq!(bytes.len() as u64, E::DTYPE.bytes(elements.len() as u64).unwrap());
        let mut out = vec![E::default(); elements.len()];
        E::fill(&mut out, &Data::Borrowed(&bytes)).unwrap();
        assert_eq!(out, elements);
        assert!(E::fill(&mut out[1..], &Data::Borrowed(&bytes)).is_err());
    }

    #[test]
    fn every_type_goes_to_bytes_and_back() {
        back(&[1.5f64, -0.0, f64::MAX]);
        back(&[1.5f32, f32::MIN_POSITIVE]);
        back(&[half::f16::from_f32(1.5), half::f16::MAX]);
        back(&[half::bf16::from_f32(1.5), half::bf16::MAX]);
        back(&[i64::MIN, 7]);
        back(&[i32::MIN, 7]);
        back(&[i16::MIN, 7]);
        back(&[i8::MIN, 7]);
        back(&[u64::MAX, 7]);
        back(&[u32::MAX, 7]);
        back(&[u16::MAX, 7]);
        back(&[u8::MAX, 7]);
        back(&[true, false, true]);
        assert_eq!(&*u16::to_bytes(&[0x0102]), [2, 1]);
    }

    #[test]
    fn a_bool_is_0_or_1() {
        assert!(bool::fill(&mut [false; 2], &Data::Borrowed(&[1, 2])).is_err());
        let many = vec![1u8; 10_000];
        let mut out = vec![false; many.len()];
        bool::fill(&mut out, &Data::Borrowed(&many)).unwrap();
        assert!(out.iter().all(|&b| b));
    }
}
