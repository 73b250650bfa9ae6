//! Large buffers that the system hands out in large pages.
#![allow(unsafe_code)]

use crate::error::{Error, Result};

/// From here on, large pages are asked for: twice their usual size, so that one fits whatever the address.
const LARGE: usize = 4 << 20;

/// Zeroed memory whose pages come when they are written, and whose allocation may fail without ending the process.
///
/// Where the system has large pages for those who ask, they are asked for: filling 1.5 GiB then takes 768 page
/// faults and not 393,216.
pub(crate) fn zeroed_box(len: u64) -> Result<Box<[u8]>> {
    let too_large = || Error::limit(format!("{len} bytes do not fit in memory"));
    let len = usize::try_from(len).map_err(|_| too_large())?;
    let mut bytes = bytemuck::allocation::try_zeroed_slice_box(len).map_err(|()| too_large())?;
    if len >= LARGE {
        advise_large_pages(&mut bytes);
    }
    Ok(bytes)
}

#[cfg(target_os = "linux")]
fn advise_large_pages(bytes: &mut [u8]) {
    const PAGE: usize = 4096;
    let skip = bytes.as_ptr().align_offset(PAGE);
    let Some(whole) = bytes.get_mut(skip..) else { return };
    let len = whole.len() / PAGE * PAGE;
    // SAFETY: the range is whole pages of memory that this process owns and nobody else refers to; the advice
    // changes no content. A refusal (an old kernel, other page sizes) leaves everything as it was.
    unsafe { libc::madvise(whole.as_mut_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_: &mut [u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_every_size_is_zero_and_can_be_written() {
        for len in [0, 1, LARGE - 1, LARGE, LARGE + 4097, 3 * LARGE] {
            let mut bytes = zeroed_box(len as u64).unwrap();
            assert!(bytes.len() == len && bytes.iter().all(|&b| b == 0));
            bytes.fill(7);
            assert!(bytes.iter().all(|&b| b == 7));
        }
        assert_eq!(zeroed_box(1 << 62).unwrap_err().kind(), crate::ErrorKind::LimitExceeded);
        assert!(zeroed_box(u64::MAX).is_err());
    }
}
