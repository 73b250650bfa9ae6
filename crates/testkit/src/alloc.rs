//! An allocator that counts, per thread, what is held and the most that was.
//!
//! A test binary names it as its global allocator and then asks [`peak_of`] what a call held at most. Each thread
//! counts for itself, so tests that run beside each other in one process do not disturb one another; what is freed
//! by another thread than the one that took it is counted where it happens.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Constants without destructors: reading them allocates nothing, at any time of a thread's life.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator with a count.
pub struct Counting;

fn add(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator unchanged, and so are its answers; counting touches no
// memory but two numbers of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may exist side by side for a moment, which is what a peak is about.
        add(size as isize);
        // SAFETY: as above.
        let new = unsafe { System.realloc(at, layout, size) };
        add(-(layout.size() as isize));
        new
    }
}

/// Runs `f`; its answer, and the most bytes that this thread held meanwhile beyond what it held before.
///
/// # Panics
/// If [`Counting`] is not the global allocator: then every answer would be 0 and every test of it would pass.
pub fn peak_of<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let probe = std::hint::black_box(vec![0u8; 4096]);
    assert!(PEAK.with(Cell::get) >= before + 4096, "the counting allocator is not in use");
    drop(probe);
    PEAK.with(|peak| peak.set(before));
    let out = f();
    let peak = PEAK.with(Cell::get) - before;
    (out, peak.max(0) as u64)
}
