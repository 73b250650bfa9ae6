//! Memory for a long listing.
//!
//! A header of many megabytes becomes tens of megabytes of small values, all of which live until the process ends.
//! By default the allocator takes that memory from the kernel in small steps, gives buffers back in between and
//! takes fresh ones, and each 4 KiB page costs a fault: a quarter of the time to list 20,000 tensors. So for a
//! large file it is told to take large steps, to keep what is freed, and to use large pages where there are any.
#![allow(unsafe_code)]

/// From this size of a file on, in bytes.
const LARGE: u64 = 4 << 20;

/// Prepares the heap for the listing of a file, if it is large.
pub(crate) fn prepare(path: &std::path::Path) {
    if let Ok(meta) = std::fs::metadata(path)
        && meta.len() >= LARGE
    {
        // A listing takes some five times the header's length, and no header is longer than its file.
        take_large_steps(meta.len().saturating_mul(5));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
fn take_large_steps(wanted: u64) {
    const HUGE: usize = 2 << 20;
    const MOST_MAPPED: i32 = 4 << 20;
    // What the allocator has at hand it cuts large buffers from too, and what those leave behind when they grow is lost:
    // no more than may be wasted.
    let step = wanted.clamp(4 << 20, 8 << 20) as i32;
    // SAFETY: getrlimit writes one rlimit, which is plain integers. mallopt sets parameters of the allocator, before any other thread runs. The block is freed where it
    // was taken. sbrk(0) only asks where the heap ends; the range below it is the heap's own, since the block's
    // allocation has just extended it by a step, and MADV_HUGEPAGE changes no content. Failures change nothing.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        for resource in [libc::RLIMIT_DATA, libc::RLIMIT_AS] {
            if libc::getrlimit(resource, &mut limit) != 0 || limit.rlim_cur != libc::RLIM_INFINITY {
                return;
            }
        }
        libc::mallopt(libc::M_MMAP_THRESHOLD, MOST_MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, step);
        let block = libc::malloc(1 << 18);
        if block.is_null() {
            return;
        }
        let (start, end) = ((block as usize).next_multiple_of(HUGE), libc::sbrk(0) as usize);
        if end > start && end - start <= 2 * step as usize {
            libc::madvise(start as *mut libc::c_void, (end - start) / HUGE * HUGE, libc::MADV_HUGEPAGE);
        }
        libc::free(block);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
fn take_large_steps(_: u64) {}
