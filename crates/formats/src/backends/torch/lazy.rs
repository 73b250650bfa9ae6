//! Negative and conjugate views: torch stores the original elements and a mark, and flips signs on use.

use crate::dtype::{DType, Kind};
use crate::error::{Error, Result};
use crate::source::{Access, ReadAt};
use crate::tensor::Data;

/// The elements of a tensor with signs flipped: of every number, of the imaginary parts, or of both, which
/// leaves imaginary parts as they are.
pub(super) struct FlipSigns<'a> {
    data: Data<'a>,
    /// The bytes of one number: an element, or half of a complex one.
    number: u64,
    even: bool,
    odd: bool,
}

impl<'a> FlipSigns<'a> {
    pub(super) fn new(data: Data<'a>, dtype: DType, negative: bool, conjugate: bool) -> Result<Self> {
        let number = match dtype.kind() {
            Kind::Complex => dtype.bits() / 16,
            Kind::Float if dtype.size().is_some() => dtype.bits() / 8,
            _ => return Err(Error::unsupported(format!("a negative or conjugate view of {dtype}"))),
        };
        // Every second number of a complex tensor is an imaginary part; a real tensor has none.
        let odd = if dtype.kind() == Kind::Complex { negative != conjugate } else { negative };
        Ok(Self { data, number, even: negative, odd })
    }
}

impl ReadAt for FlipSigns<'_> {
    fn len(&self) -> u64 {
        self.data.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.data.read_at(offset, buf)?;
        // The sign is the top bit of a number's last byte.
        for (i, byte) in (offset..).zip(buf) {
            let flips = if (i / self.number).is_multiple_of(2) { self.even } else { self.odd };
            if flips && i % self.number == self.number - 1 {
                *byte ^= 0x80;
            }
        }
        Ok(())
    }

    fn access(&self) -> Access {
        self.data.access()
    }

    fn finish(&self) -> Result<()> {
        self.data.finish()
    }
}
