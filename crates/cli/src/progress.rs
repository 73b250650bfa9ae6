//! The progress bar, and Ctrl-C.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weighbridge::Observer;

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a signal to stop sets a flag, which the work asks for before each chunk. A second signal ends the
/// process at once.
pub(crate) fn catch_signals() {
    let stop = STOP.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first line acts on the flag that the second one has set at an earlier signal. Where a signal cannot
        // be caught it keeps its usual effect, which is to end the process.
        let _ = signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(crate::exit::Exit::Interrupted.code()),
            stop.clone(),
        );
        let _ = signal_hook::flag::register(signal, stop.clone());
    }
}

/// A bar with bytes per second on standard error, if that is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        catch_signals();
        if quiet || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let template = "{bar:30} {decimal_bytes:>9} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }
}

impl Observer for Progress {
    fn started(&self, total_bytes: u64) {
        self.bar.set_length(total_bytes);
        self.bar.reset_eta();
    }

    fn advanced(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn finished(&self) {
        self.bar.finish_and_clear();
    }

    fn cancelled(&self) -> bool {
        STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // After an error the bar would stand above the message for good.
        self.bar.finish_and_clear();
    }
}
