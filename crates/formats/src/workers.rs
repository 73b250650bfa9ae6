//! Threads that work side by side on one task.

use crate::error::Result;

/// How many threads work where the caller asked for so many, or left it open: as many as there are processors, at
/// most four, and one without the feature `parallel`.
pub fn worker_count(asked: Option<usize>) -> usize {
    match (cfg!(feature = "parallel"), asked) {
        (false, _) => 1,
        (true, Some(n)) => n.clamp(1, 256),
        (true, None) => std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
    }
}

/// Runs `work` in so many threads, this one among them, until all have ended. The work divides itself, by a counter
/// that the threads share; so a system that gives no more threads gives slower work, and not a failure.
///
/// # Errors
/// The first of this thread's and the others' errors, in the order in which they were started. A thread that panics
/// makes this one panic.
pub fn on_workers(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, &work).ok();
        let others: Vec<_> = (1..threads.max(1)).map_while(start).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(result) => done = done.and(result),
                Err(fault) => std::panic::resume_unwind(fault),
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_worker_runs_and_an_error_of_any_is_told() {
        let ran = AtomicUsize::new(0);
        on_workers(3, || {
            ran.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(ran.into_inner(), 3);
        let number = AtomicUsize::new(0);
        let error = on_workers(3, || match number.fetch_add(1, Ordering::Relaxed) {
            1 => Err(Error::malformed("one of them")),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().message(), "one of them");
        on_workers(0, || Ok(())).unwrap();
    }
}
