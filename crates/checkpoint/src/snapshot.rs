//! A copy of a state in buffers that are used again.
//!
//! The copy is all that a background save keeps its caller waiting for. The buffers keep their memory from save to
//! save, so that after the first one no page is made anew; and every thread copies one long run, so that each call
//! copies as much as it can.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use serde_json::Value as Json;
use weighbridge_formats::{Access, Archive, Data, Error, ReadAt, Result, TensorInfo, Values, on_workers};

use crate::state::State;

/// A state that is the snapshot's own.
#[derive(Default)]
pub(crate) struct Snapshot {
    step: u64,
    epoch: u64,
    weights: Copied,
    optimizer: Option<Copied>,
    /// The optimizer's buffer, while a state without one is saved.
    spare: Option<Copied>,
    scheduler: Option<Json>,
    random: Option<Json>,
    extra: Option<Json>,
    metrics: Vec<(String, f64)>,
}

/// The tensors of an archive, one after another in one buffer.
#[derive(Default)]
struct Copied {
    infos: Vec<TensorInfo>,
    spans: Vec<Range<usize>>,
    metadata: Vec<(String, String)>,
    values: Option<Values>,
    bytes: Vec<u8>,
}

impl Snapshot {
    /// Copies a state over what is here.
    ///
    /// # Errors
    /// What reading the tensors says; `LimitExceeded` if the memory is not to be had.
    pub(crate) fn take(&mut self, state: &State<'_>, threads: usize) -> Result<()> {
        (self.step, self.epoch) = (state.step, state.epoch);
        self.scheduler = state.scheduler.cloned();
        self.random = state.random.cloned();
        self.extra = state.extra.cloned();
        self.metrics.clone_from(&state.metrics);
        if state.optimizer.is_none() {
            self.spare = self.optimizer.take().or(self.spare.take());
        } else if self.optimizer.is_none() {
            self.optimizer = Some(self.spare.take().unwrap_or_default());
        }
        let mut jobs = Vec::new();
        self.weights.plan(state.weights, &mut jobs)?;
        if let (Some(copied), Some(optimizer)) = (&mut self.optimizer, state.optimizer) {
            copied.plan(optimizer, &mut jobs)?;
        }
        run(jobs, threads)
    }

    /// The state as it was.
    pub(crate) fn state(&self) -> State<'_> {
        let mut state = State::new(&self.weights).at(self.epoch, self.step);
        state.optimizer = self.optimizer.as_ref().map(|o| o as &dyn Archive);
        state.scheduler = self.scheduler.as_ref();
        state.random = self.random.as_ref();
        state.extra = self.extra.as_ref();
        state.metrics.clone_from(&self.metrics);
        state
    }
}

/// Bytes to be copied to a place.
struct Job<'a> {
    info: TensorInfo,
    from: Data<'a>,
    offset: u64,
    to: &'a mut [u8],
}

impl Copied {
    /// Lays out the buffer, and adds what is to be copied into it.
    fn plan<'a>(&'a mut self, archive: &'a dyn Archive, jobs: &mut Vec<Job<'a>>) -> Result<()> {
        self.infos.clear();
        self.spans.clear();
        self.metadata = archive.metadata().to_vec();
        self.values = archive.values().cloned();
        let mut at = 0usize;
        for info in archive.tensors() {
            let len = usize::try_from(info.bytes()).ok();
            let end = len.and_then(|len| at.checked_add(len));
            let end = end.ok_or_else(|| Error::limit("the state does not fit in memory"))?;
            self.infos.push(info.clone().without_view());
            self.spans.push(at..end);
            // Every tensor begins on a cache line.
            at = end
                .checked_next_multiple_of(64)
                .ok_or_else(|| Error::limit("the state does not fit in memory"))?;
        }
        if self.bytes.len() < at {
            let more = at - self.bytes.len();
            let refused = |_| Error::limit(format!("{at} bytes for a copy of the state are not to be had"));
            self.bytes.try_reserve_exact(more).map_err(refused)?;
            self.bytes.resize(at, 0);
        }
        let (mut rest, mut begin) = (self.bytes.as_mut_slice(), 0);
        for (i, (info, span)) in self.infos.iter().zip(&self.spans).enumerate() {
            let (_, tail) = rest.split_at_mut(span.start - begin);
            let (to, tail) = tail.split_at_mut(span.len());
            (rest, begin) = (tail, span.end);
            let from = archive.data(i).map_err(|e| e.with_tensor(info.name()))?;
            if from.len() != info.bytes() {
                let what =
                    format!("{} bytes are given where dtype and shape take {}", from.len(), info.bytes());
                return Err(Error::mismatch(what).with_tensor(info.name()));
            }
            jobs.push(Job { info: info.clone(), from, offset: 0, to });
        }
        Ok(())
    }
}

/// Copies, every thread one run of equal length.
fn run(jobs: Vec<Job<'_>>, threads: usize) -> Result<()> {
    let total: usize = jobs.iter().map(|j| j.to.len()).sum();
    // Below 4 MiB a thread, starting it takes longer than it saves.
    let threads = threads.clamp(1, 64).min(total >> 22).max(1);
    let runs = Mutex::new(share(jobs, total.div_ceil(threads)));
    let next = || runs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    on_workers(threads, || {
        while let Some(run) = next() {
            run.into_iter().try_for_each(Job::copy)?;
        }
        Ok(())
    })
}

/// Parts the jobs into runs of `share` bytes, cutting tensors that cross a border.
fn share(jobs: Vec<Job<'_>>, share: usize) -> Vec<Vec<Job<'_>>> {
    let (mut runs, mut run, mut room) = (Vec::new(), Vec::new(), share);
    for mut job in jobs {
        while job.to.len() > room && job.from.access() == Access::Random {
            let Job { info, from, offset, to } = job;
            let (first, rest) = to.split_at_mut(room);
            run.push(Job { info: info.clone(), from: from.clone(), offset, to: first });
            runs.push(std::mem::take(&mut run));
            job = Job { info, from, offset: offset + room as u64, to: rest };
            room = share;
        }
        room = room.saturating_sub(job.to.len());
        run.push(job);
    }
    runs.push(run);
    runs
}

impl Job<'_> {
    fn copy(self) -> Result<()> {
        let copied = self.from.read_at(self.offset, self.to).and_then(|()| self.from.finish());
        copied.map_err(|e| e.with_tensor(self.info.name()))
    }
}

impl Archive for Copied {
    fn format(&self) -> &'static str {
        "memory"
    }

    fn variety(&self) -> String {
        "a copy in memory".into()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let bytes = self.spans.get(index).and_then(|span| self.bytes.get(span.clone()));
        bytes
            .map(Data::Borrowed)
            .ok_or_else(|| Error::not_found(format!("there is no tensor number {index}")))
    }

    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::{DType, MemoryArchive, Tensor};

    #[test]
    fn copies_are_equal_whatever_the_threads_and_buffers_are_used_again() {
        let bytes: Vec<u8> =
            (0..10_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sizes = [0usize, 3, 9_000_001, 1, 900_000];
        let tensor = |(i, n): (usize, usize)| {
            let data = Data::Borrowed(&bytes[i..i + n]);
            Tensor::new(format!("t{i}"), DType::U8, [n as u64].as_slice(), data).unwrap()
        };
        let weights = MemoryArchive::new(sizes.into_iter().enumerate().map(tensor)).unwrap();
        let optimizer = MemoryArchive::new([tensor((7, 5_000_000))]).unwrap();
        let mut snapshot = Snapshot::default();
        let mut buffer: *const u8 = std::ptr::null();
        for threads in [1, 2, 3, 64] {
            let state = State::new(&weights).at(1, 2).optimizer(&optimizer).metric("loss", 0.5);
            snapshot.take(&state, threads).unwrap();
            let copy = snapshot.state();
            assert_eq!((copy.epoch, copy.step, &copy.metrics), (1, 2, &state.metrics));
            let pairs = [(state.weights, copy.weights), (&optimizer as _, copy.optimizer.unwrap())];
            for (a, b) in pairs {
                assert_eq!(a.tensors(), b.tensors());
                for i in 0..a.tensors().len() {
                    assert!(a.data(i).unwrap().read_all().unwrap() == b.data(i).unwrap().read_all().unwrap());
                }
            }
            let now = snapshot.weights.bytes.as_ptr();
            assert!(buffer.is_null() || buffer == now, "the buffer moved");
            buffer = now;
            // Without an optimizer its buffer is kept for the next time.
            snapshot.take(&State::new(&weights), threads).unwrap();
            assert!(snapshot.state().optimizer.is_none() && snapshot.spare.is_some());
        }
    }
}
