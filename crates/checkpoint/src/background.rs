//! Saving in a thread of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use weighbridge_formats::{Error, ErrorKind, Result};

use crate::save::Saved;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::writer::Writer;

/// What a save does while as many copies are in flight as there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits until one of them is written.
    #[default]
    Wait,
    /// Is an error of kind `LimitExceeded`, and the training goes on.
    Error,
}

/// How to save in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Background {
    /// The most copies of the state at a time, those being written included. Each takes the memory of the state, and
    /// keeps it for the next.
    pub in_flight: usize,
    /// What happens when there are as many.
    pub when_full: WhenFull,
}

impl Default for Background {
    fn default() -> Self {
        Self { in_flight: 1, when_full: WhenFull::Wait }
    }
}

/// The thread that writes, and what it shares with the caller.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    options: Background,
    threads: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Copies that nobody uses at the moment, whose memory is there.
    idle: Vec<Snapshot>,
    in_flight: usize,
    errors: VecDeque<Error>,
    done: Vec<Saved>,
    closed: bool,
}

struct Job {
    snapshot: Snapshot,
    /// What was logged since the save before.
    log: Vec<u8>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    pub(crate) fn start(writer: Writer, options: Background, threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let options = Background { in_flight: options.in_flight.max(1), ..options };
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || work(&theirs, writer))
            .map_err(|e| Error::io("starting the thread that saves", e))?;
        Ok(Self { shared, thread: Some(thread), options, threads })
    }

    /// Makes the memory of the copies, so that the first saves are as fast as the later ones.
    pub(crate) fn reserve(&self, state: &State<'_>) -> Result<()> {
        let missing = {
            let queue = self.shared.lock();
            self.options.in_flight.saturating_sub(queue.in_flight)
        };
        let mut made = std::mem::take(&mut self.shared.lock().idle);
        made.resize_with(missing.max(made.len()), Snapshot::default);
        let outcome = made.iter_mut().try_for_each(|snapshot| snapshot.take(state, self.threads));
        self.shared.lock().idle.append(&mut made);
        outcome
    }

    /// Copies the state and hands the copy over.
    pub(crate) fn save(&self, state: &State<'_>, log: &mut Vec<u8>) -> Result<()> {
        let mut snapshot = {
            let mut queue = self.shared.lock();
            loop {
                if let Some(error) = queue.errors.pop_front() {
                    return Err(error);
                }
                if queue.in_flight < self.options.in_flight {
                    break;
                }
                if self.options.when_full == WhenFull::Error {
                    let what = format!("{} background saves are not finished yet", queue.in_flight);
                    return Err(Error::new(ErrorKind::LimitExceeded, what)
                        .with_hint("save less often, or allow more copies in flight"));
                }
                queue = self.shared.wait(queue);
            }
            queue.in_flight += 1;
            queue.idle.pop().unwrap_or_default()
        };
        let copied = snapshot.take(state, self.threads);
        let mut queue = self.shared.lock();
        match copied {
            Ok(()) => queue.jobs.push_back(Job { snapshot, log: std::mem::take(log) }),
            Err(e) => {
                queue.in_flight -= 1;
                queue.idle.push(snapshot);
                drop(queue);
                self.shared.changed.notify_all();
                return Err(e);
            }
        }
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// The saves that were finished since this was last asked.
    pub(crate) fn take_done(&self) -> Vec<Saved> {
        std::mem::take(&mut self.shared.lock().done)
    }

    /// The first error that nobody was told of.
    pub(crate) fn take_error(&self) -> Result<()> {
        self.shared.lock().errors.pop_front().map_or(Ok(()), Err)
    }

    /// Waits until nothing is in flight.
    pub(crate) fn wait(&self) {
        let mut queue = self.shared.lock();
        while queue.in_flight > 0 {
            queue = self.shared.wait(queue);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        // What is in flight is written before the thread ends. A panic there was told by its hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the thread does.
fn work(shared: &Shared, mut writer: Writer) {
    loop {
        let mut job = {
            let mut queue = shared.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                queue = shared.wait(queue);
            }
        };
        writer.log.append(&mut job.log);
        // A panic must not leave the caller waiting for ever.
        let saved =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.save(&job.snapshot.state())))
                .unwrap_or_else(|_| Err(Error::invalid_options("the thread that saves panicked")));
        let mut queue = shared.lock();
        match saved {
            Ok(saved) => queue.done.push(saved),
            Err(e) => queue.errors.push_back(e),
        }
        queue.in_flight -= 1;
        queue.idle.push(job.snapshot);
        drop(queue);
        shared.changed.notify_all();
    }
}
