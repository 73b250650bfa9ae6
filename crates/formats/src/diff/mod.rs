//! Comparing two archives, tensor by tensor, whatever their formats.
//!
//! Both sides are read in chunks, so that memory stays bounded whatever the size; a chunk whose bytes are equal
//! costs a comparison of memory. What is no tensor is compared too, and reported in a section of its own: two
//! formats rarely hold the same, so it counts only where the caller says so.

mod elements;
mod values;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::archive::Archive;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Access, ReadAt};
use crate::tensor::{Data, Shape, TensorInfo};
use crate::workers::on_workers;
use crate::write::Observer;

pub use elements::ValueDiff;
pub use values::OtherDiff;

use elements::Runs;

/// Choices for a comparison.
#[non_exhaustive]
#[derive(Clone, Copy, Default)]
pub struct DiffOptions<'a> {
    /// How far two numbers may lie apart and still count as equal, absolute.
    pub tolerance: f64,
    /// Tensors of different dtypes may be equal, if their numbers are.
    pub ignore_dtype: bool,
    /// Differences in metadata and values make the archives different.
    pub values: bool,
    /// How many threads compare; `None` takes as many as there are processors, at most four. Without the feature
    /// `parallel` it is always one.
    pub threads: Option<usize>,
    /// Who is told of progress (bytes of both sides) and may cancel.
    pub observer: Option<&'a dyn Observer>,
}

/// One tensor that both archives have and that differs, or would without the tolerance.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct TensorDiff {
    /// Its name.
    pub name: String,
    /// Its dtype on each side.
    pub dtypes: [DType; 2],
    /// Its shape on each side.
    pub shapes: [Shape; 2],
    /// How the elements differ; `None` where the shapes do, so that no element has its counterpart.
    pub values: Option<ValueDiff>,
}

/// What a comparison found.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiffReport {
    /// The names that only the first archive has, in its order.
    pub only_in_a: Vec<String>,
    /// The names that only the second archive has, in its order.
    pub only_in_b: Vec<String>,
    /// The tensors that differ, in the order of the first archive.
    pub different: Vec<TensorDiff>,
    /// The tensors that differ as bits or within the tolerance only, and so count as equal.
    pub nearly_equal: Vec<TensorDiff>,
    /// How many tensors both archives have.
    pub compared: u64,
    /// What differs beside the tensors.
    pub other: OtherDiff,
    /// Whether the archives are equal, by the options that were given.
    pub equal: bool,
}

/// Compares two archives.
///
/// # Errors
/// What reading the data meets; `InvalidOptions` for a tolerance that is negative or NaN; `Cancelled` if the
/// observer said so.
pub fn diff(a: &dyn Archive, b: &dyn Archive, options: &DiffOptions<'_>) -> Result<DiffReport> {
    if options.tolerance.is_nan() || options.tolerance < 0.0 {
        return Err(Error::invalid_options("the tolerance must be a number of at least 0"));
    }
    let mut report = DiffReport::default();
    let by_name: HashMap<&str, usize> = b.tensors().iter().enumerate().map(|(i, t)| (t.name(), i)).collect();
    let mut in_a = vec![false; b.tensors().len()];
    let mut pairs = Vec::new();
    for (i, tensor) in a.tensors().iter().enumerate() {
        match by_name.get(tensor.name()) {
            Some(&j) => {
                in_a[j] = true;
                pairs.push(Pair { indices: [i, j], infos: [tensor, &b.tensors()[j]] });
            }
            None => report.only_in_a.push(tensor.name().to_owned()),
        }
    }
    let only_in_b = b.tensors().iter().zip(&in_a).filter(|(_, seen)| !**seen);
    report.only_in_b = only_in_b.map(|(t, _)| t.name().to_owned()).collect();
    report.compared = pairs.len() as u64;

    let comparison = Comparison::new([a, b], &pairs, options)?;
    for (pair, values) in pairs.iter().zip(comparison.run()?) {
        let [ta, tb] = pair.infos;
        let same_shape = ta.shape() == tb.shape();
        let same_dtype = ta.dtype() == tb.dtype() || options.ignore_dtype;
        let (equal, exact) = (values.is_equal(), values == ValueDiff::default());
        if same_shape && ta.dtype() == tb.dtype() && exact {
            continue;
        }
        let tensor = TensorDiff {
            name: ta.name().to_owned(),
            dtypes: [ta.dtype(), tb.dtype()],
            shapes: [ta.shape().into(), tb.shape().into()],
            values: same_shape.then_some(values),
        };
        if same_shape && same_dtype && equal {
            report.nearly_equal.push(tensor);
        } else {
            report.different.push(tensor);
        }
    }
    report.other = values::compare(a, b);
    let tensors = report.only_in_a.is_empty() && report.only_in_b.is_empty() && report.different.is_empty();
    report.equal = tensors && (!options.values || report.other.is_empty());
    Ok(report)
}

/// A tensor that both sides have.
struct Pair<'a> {
    indices: [usize; 2],
    infos: [&'a TensorInfo; 2],
}

/// A run of elements of one pair, that one thread compares.
struct Job {
    pair: usize,
    first: u64,
    count: u64,
    /// Whether this is all of the tensor, so that its readers are asked for their verdict at once.
    whole: bool,
}

/// The bytes of the wider side that a thread holds at a time.
const CHUNK: u64 = 256 << 10;
/// The bytes of the wider side that make a job.
const JOB: u64 = 16 << 20;
/// Elements come in groups of this many, so that those narrower than a byte begin at whole bytes.
const GROUP: u64 = 8;

struct Comparison<'a> {
    archives: [&'a dyn Archive; 2],
    pairs: &'a [Pair<'a>],
    options: &'a DiffOptions<'a>,
    jobs: Vec<Job>,
    results: Mutex<Vec<ValueDiff>>,
    next: AtomicUsize,
    failed: AtomicBool,
}

impl<'a> Comparison<'a> {
    fn new(
        archives: [&'a dyn Archive; 2],
        pairs: &'a [Pair<'a>],
        options: &'a DiffOptions<'a>,
    ) -> Result<Self> {
        let mut jobs = Vec::new();
        for (pair, p) in pairs.iter().enumerate() {
            let [a, b] = p.infos;
            if a.shape() != b.shape() {
                continue;
            }
            let elements = a.elements();
            let mut step = elements.max(1);
            if a.bytes().max(b.bytes()) > JOB {
                // Going back in a sequential reader starts it over, so such a tensor is one job.
                let random = |side: usize| -> Result<bool> {
                    Ok(archives[side].data(p.indices[side])?.access() == Access::Random)
                };
                if random(0)? && random(1)? {
                    step = elements_in(JOB, a.dtype(), b.dtype());
                }
            }
            let whole = step >= elements;
            let mut first = 0;
            while first < elements {
                let count = step.min(elements - first);
                jobs.push(Job { pair, first, count, whole });
                first += count;
            }
        }
        let results = Mutex::new(vec![ValueDiff::default(); pairs.len()]);
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self { archives, pairs, options, jobs, results, next, failed })
    }

    /// What differs in each pair.
    fn run(self) -> Result<Vec<ValueDiff>> {
        let total = self.jobs.iter().fold(0u64, |n, j| n.saturating_add(self.job_bytes(j)));
        if let Some(observer) = self.options.observer {
            observer.started(total);
        }
        let threads = self.threads().clamp(1, self.jobs.len().max(1));
        on_workers(threads, || self.work())?;
        // A tensor in several jobs is checked when all of them are done.
        let mut checked = None;
        for job in self.jobs.iter().filter(|j| !j.whole) {
            if checked.replace(job.pair) != Some(job.pair) {
                for side in 0..2 {
                    self.data(job, side)?.finish().map_err(|e| self.place(e, job, side))?;
                }
            }
        }
        if let Some(observer) = self.options.observer {
            observer.finished();
        }
        Ok(self.results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn threads(&self) -> usize {
        crate::workers::worker_count(self.options.threads)
    }

    fn job_bytes(&self, job: &Job) -> u64 {
        let bytes = |side: usize| self.pairs[job.pair].infos[side].dtype().bytes(job.count).unwrap_or(0);
        bytes(0).saturating_add(bytes(1))
    }

    fn data(&self, job: &Job, side: usize) -> Result<Data<'_>> {
        let pair = &self.pairs[job.pair];
        self.archives[side].data(pair.indices[side]).map_err(|e| self.place(e, job, side))
    }

    fn place(&self, error: Error, job: &Job, side: usize) -> Error {
        let error = error.with_tensor(self.pairs[job.pair].infos[side].name());
        match self.archives[side].files().first() {
            Some(file) => error.with_path(file),
            None => error,
        }
    }

    fn work(&self) -> Result<()> {
        let mut buffers = [Vec::new(), Vec::new()];
        while !self.failed.load(Ordering::Relaxed) {
            let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            match self.compare(job, &mut buffers) {
                Ok(found) if found == ValueDiff::default() => {}
                Ok(found) => {
                    let mut results = self.results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results[job.pair].merge(&found);
                }
                Err(e) => {
                    self.failed.store(true, Ordering::Relaxed);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn compare(&self, job: &Job, buffers: &mut [Vec<u8>; 2]) -> Result<ValueDiff> {
        let mut found = ValueDiff::default();
        let dtypes = self.pairs[job.pair].infos.map(TensorInfo::dtype);
        let data = [self.data(job, 0)?, self.data(job, 1)?];
        let step = elements_in(CHUNK, dtypes[0], dtypes[1]);
        let mut done = 0;
        while done < job.count {
            if self.options.observer.is_some_and(Observer::cancelled) {
                return Err(Error::new(ErrorKind::Cancelled, "the comparison was stopped"));
            }
            let (first, count) = (job.first + done, step.min(job.count - done));
            let mut read = 0;
            for side in 0..2 {
                // The whole tensor is whole bytes that fit 64 bits, and every chunk begins at a whole byte.
                let bytes =
                    |n| dtypes[side].bytes(n).ok_or_else(|| Error::malformed("elements end amid a byte"));
                let (offset, len) = (bytes(first)?, bytes(count)?);
                buffers[side].resize(len as usize, 0);
                data[side].read_at(offset, &mut buffers[side]).map_err(|e| self.place(e, job, side))?;
                read += len;
            }
            let [a, b] = &*buffers;
            let runs = Runs { a: (dtypes[0], a), b: (dtypes[1], b), first, count: count as usize };
            runs.compare(self.options.tolerance, &mut found);
            if let Some(observer) = self.options.observer {
                observer.advanced(read);
            }
            done += count;
        }
        if job.whole {
            for (side, data) in data.iter().enumerate() {
                data.finish().map_err(|e| self.place(e, job, side))?;
            }
        }
        Ok(found)
    }
}

/// How many elements of the wider of two dtypes fit `bytes`, in whole groups.
fn elements_in(bytes: u64, a: DType, b: DType) -> u64 {
    (bytes * 8 / a.bits().max(b.bits()) / GROUP).max(1) * GROUP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::MemoryArchive;
    use crate::tensor::Tensor;

    fn tensor<'a>(name: &str, dtype: DType, shape: &[u64], bytes: &'a [u8]) -> Tensor<'a> {
        Tensor::new(name, dtype, Shape::from_slice(shape), Data::Borrowed(bytes)).unwrap()
    }

    fn archive<'a>(tensors: impl IntoIterator<Item = Tensor<'a>>) -> MemoryArchive<'a> {
        MemoryArchive::new(tensors).unwrap()
    }

    #[test]
    fn names_shapes_and_dtypes_are_told_apart() {
        let bytes = [0; 16];
        let a = archive([
            tensor("same", DType::F32, &[4], &bytes),
            tensor("gone", DType::F32, &[4], &bytes),
            tensor("shape", DType::F32, &[4], &bytes),
            tensor("dtype", DType::F32, &[4], &bytes),
        ]);
        let b = archive([
            tensor("dtype", DType::I32, &[4], &bytes),
            tensor("shape", DType::F32, &[2, 2], &bytes),
            tensor("same", DType::F32, &[4], &bytes),
            tensor("new", DType::F32, &[4], &bytes),
        ]);
        let report = diff(&a, &b, &DiffOptions::default()).unwrap();
        assert_eq!(
            (&report.only_in_a[..], &report.only_in_b[..]),
            (&["gone".to_owned()][..], &["new".to_owned()][..])
        );
        let names: Vec<_> = report.different.iter().map(|t| (&*t.name, t.values.is_some())).collect();
        assert_eq!(names, [("shape", false), ("dtype", true)]);
        assert!(!report.equal);
        assert!(diff(&a, &a, &DiffOptions::default()).unwrap().equal);
        for tolerance in [-1.0, f64::NAN] {
            let options = DiffOptions { tolerance, ..DiffOptions::default() };
            assert_eq!(diff(&a, &a, &options).unwrap_err().kind(), ErrorKind::InvalidOptions);
        }
    }

    /// Readers of many chunks and jobs: the count must not depend on where the cuts lie.
    #[test]
    fn a_large_tensor_is_compared_in_pieces() {
        let elements = (JOB / 4 * 2 + 1000) as usize;
        let a = vec![0u8; elements * 4];
        let mut b = a.clone();
        for element in [0, 65_535, 65_536, elements / 2, elements - 1] {
            b[element * 4..element * 4 + 4].copy_from_slice(&(element as f32 + 1.0).to_le_bytes());
        }
        let (a, b) = (
            archive([tensor("t", DType::F32, &[elements as u64], &a)]),
            archive([tensor("t", DType::F32, &[elements as u64], &b)]),
        );
        for threads in [1, 3] {
            let options = DiffOptions { threads: Some(threads), ..DiffOptions::default() };
            let report = diff(&a, &b, &options).unwrap();
            let values = report.different[0].values.clone().unwrap();
            assert_eq!((values.differing, values.first), (5, Some(0)));
            assert_eq!(values.worst, Some(elements as u64 - 1));
            assert_eq!(values.max_absolute, Some(f64::from(elements as f32)));
        }
    }

    #[test]
    fn tolerance_and_dtype_by_choice() {
        let f32 = 1.003_906_2f32.to_le_bytes();
        let bf16 = half::bf16::from_f32(1.0).to_le_bytes();
        let (a, b) = (
            archive([tensor("t", DType::F32, &[1], &f32)]),
            archive([tensor("t", DType::Bf16, &[1], &bf16)]),
        );
        let with = |tolerance, ignore_dtype| {
            let options = DiffOptions { tolerance, ignore_dtype, ..DiffOptions::default() };
            diff(&a, &b, &options).unwrap()
        };
        assert!(!with(0.01, false).equal && !with(0.0, true).equal);
        let near = with(0.01, true);
        assert!(near.equal);
        assert_eq!(near.nearly_equal.len(), 1);
    }
}
