//! A worker's one buffer.

use crate::error::Result;
use crate::tensor::zeroed;

/// The alignment of a buffer, in bytes: a page, so that the kernel copies whole pages.
pub(super) const PAGE: usize = 4096;

/// A buffer that begins on a page.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn new(len: usize) -> Result<Self> {
        let bytes = zeroed((len as u64).saturating_add(PAGE as u64))?;
        // `align_offset` may answer usize::MAX in theory; an unaligned buffer is slower and otherwise as good.
        let skip = Some(bytes.as_ptr().align_offset(PAGE)).filter(|&n| n <= PAGE).unwrap_or(0);
        Ok(Self { bytes, skip, len })
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skip..self.skip + self.len]
    }
}

/// Whether all bytes are zero. For other data this looks at one block.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<128>();
    let zero = |b: &[u8]| b.iter().fold(0, |seen, &x| seen | x) == 0;
    blocks.iter().all(|b| zero(b)) && zero(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_on_a_page() {
        for len in [0, 1, 5, PAGE, 3 * PAGE + 1] {
            let mut buffer = Buffer::new(len).unwrap();
            assert_eq!(buffer.as_mut_slice().len(), len);
            assert_eq!(buffer.as_mut_slice().as_ptr().align_offset(PAGE), 0);
        }
    }

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        let mut bytes = vec![0; 300];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for i in 0..bytes.len() {
            bytes[i] = 1;
            assert!(!is_zero(&bytes), "{i}");
            bytes[i] = 0;
        }
    }
}
