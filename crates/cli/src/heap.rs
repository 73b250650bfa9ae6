//! Memory for a long listing.
//!
//! A header of many megabytes becomes tens of megabytes of small values, all of which live until the process ends.
//! By default the allocator takes that memory from the kernel in small steps, gives buffers back in between and
//! takes fresh ones, and each 4 KiB page costs a fault: a quarter of the time to list 20,000 tensors. So for a
//! large file it is told to take large steps, to keep what is freed, and to use large pages where there are any.
#![allow(unsafe_code)]

/// From this size of a file on, in bytes.
const LARGE: u64 = 4 << 20;
/// The step in which memory is taken, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
const STEP: i32 = 32 << 20;

/// Prepares the heap for the listing of a file, if it is large.
pub(crate) fn prepare(path: &std::path::Path) {
    if std::fs::metadata(path).is_ok_and(|m| m.len() >= LARGE) {
        take_large_steps();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
fn take_large_steps() {
    const HUGE: usize = 2 << 20;
    // SAFETY: mallopt sets parameters of the allocator, before any other thread runs. The block is freed where it
    // was taken. sbrk(0) only asks where the heap ends; the range below it is the heap's own, since the block's
    // allocation has just extended it by a step, and MADV_HUGEPAGE changes no content. Failures change nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, STEP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, STEP);
        let block = libc::malloc(1 << 18);
        if block.is_null() {
            return;
        }
        let (start, end) = ((block as usize).next_multiple_of(HUGE), libc::sbrk(0) as usize);
        if end > start && end - start <= 2 * STEP as usize {
            libc::madvise(start as *mut libc::c_void, (end - start) / HUGE * HUGE, libc::MADV_HUGEPAGE);
        }
        libc::free(block);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
fn take_large_steps() {}
