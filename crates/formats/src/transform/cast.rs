//! An archive whose float tensors have another dtype.

use std::sync::{Arc, Mutex, PoisonError};

use super::kernels::{CastKernel, CastStats, Overflow};
use super::layer::{Layer, archive_of_layer};
use super::measure::Measure;
use crate::archive::{Archive, Note};
use crate::dtype::{DType, Kind};
use crate::error::{Error, Result};
use crate::source::{Access, ReadAt, check_range};
use crate::tensor::{Data, TensorInfo, zeroed};

/// Which tensors, by description.
pub type TensorFilter = Arc<dyn Fn(&TensorInfo) -> bool + Send + Sync>;

/// Choices for a [`Cast`].
#[non_exhaustive]
#[derive(Clone, Default)]
pub struct CastOptions {
    /// What becomes of values beyond the target's range.
    pub overflow: Overflow,
    /// Which tensors are cast; all floats where it is `None`.
    pub filter: Option<TensorFilter>,
    /// Whether [`CastStats::max_relative`] is measured, which decodes what was cast once more.
    pub measure: bool,
}

impl CastOptions {
    /// Casts every float tensor, with this choice for values beyond the range.
    pub fn new(overflow: Overflow) -> Self {
        Self { overflow, ..Self::default() }
    }

    /// Casts only tensors that `filter` says yes to.
    pub fn with_filter(mut self, filter: impl Fn(&TensorInfo) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }
}

/// One line of a cast's report.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorCast {
    /// The tensor. Where a whole storage was cast, the first tensor that views it.
    pub name: Arc<str>,
    /// Its dtype before.
    pub from: DType,
    /// Its dtype after.
    pub to: DType,
    /// What the cast met in the bytes read so far; reading a byte again counts it again.
    pub stats: CastStats,
}

/// An archive whose float tensors are cast to a dtype while they are read; integers, booleans and complex numbers
/// stay as they are, and so do tensors that have the dtype already.
///
/// Tensors that share a storage still share it if all that view it are cast from one dtype: then the storage is
/// cast as a whole. Otherwise those that are cast get bytes of their own, and a note says so.
///
/// ```
/// use weighbridge_formats::transform::{Cast, CastOptions, Overflow};
/// use weighbridge_formats::{Archive, DType, Data, MemoryArchive, Tensor};
///
/// let bytes: Vec<u8> = [1.0f32, 1e9].iter().flat_map(|x| x.to_le_bytes()).collect();
/// let tensor = Tensor::new("w", DType::F32, [2].as_slice(), Data::Borrowed(&bytes))?;
/// let archive = Box::new(MemoryArchive::new([tensor])?);
///
/// let cast = Cast::new(archive, DType::F16, CastOptions::new(Overflow::Saturate))?;
/// assert_eq!(cast.tensors()[0].dtype(), DType::F16);
/// assert_eq!(cast.data(0)?.read_all()?, [0x00, 0x3c, 0xff, 0x7b]); // 1 and 65504
/// assert_eq!(cast.report()[0].stats.overflow, 1);
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
pub struct Cast<'a> {
    layer: Layer<'a>,
    /// For each tensor and each storage how it is cast, where it is.
    tensors: Vec<Option<Arc<Job>>>,
    storages: Vec<Option<Arc<Job>>>,
}

/// How a tensor or storage is cast, and what was met so far.
struct Job {
    name: Arc<str>,
    from: DType,
    to: DType,
    whole_storage: bool,
    kernel: CastKernel,
    measure: Option<Measure>,
    stats: Mutex<CastStats>,
}

impl Job {
    fn new(
        info: &TensorInfo,
        to: DType,
        overflow: Overflow,
        measure: bool,
        whole_storage: bool,
    ) -> Option<Arc<Self>> {
        let (name, from) = (info.shared_name(), info.dtype());
        let kernel = CastKernel::new(from, to, overflow)?;
        let measure = measure.then(|| Measure::new(from, to));
        Some(Arc::new(Self { name, from, to, whole_storage, kernel, measure, stats: Mutex::default() }))
    }
}

impl<'a> Cast<'a> {
    /// Casts the float tensors of `inner` to `target`.
    ///
    /// # Errors
    /// `InvalidOptions` if `target` is no float, or if a tensor does not fill whole bytes in it. Reading the
    /// tensors fails with `InvalidOptions` for a value that [`Overflow::Error`] refuses.
    pub fn new(inner: Box<dyn Archive + 'a>, target: DType, options: CastOptions) -> Result<Self> {
        if target.kind() != Kind::Float {
            return Err(Error::invalid_options(format!("a cast needs a float dtype, and {target} is none")));
        }
        let CastOptions { overflow, filter, measure } = options;
        let filter = |t: &TensorInfo| filter.as_ref().is_none_or(|f| f(t)).then_some(target);
        Self::by(inner, filter, overflow, measure)
    }

    /// Casts each float tensor of `inner` to the dtype that `choose` gives it; `None` leaves it as it is. With
    /// `measure`, [`CastStats::max_relative`] is measured.
    ///
    /// # Errors
    /// As [`Cast::new`].
    pub fn by(
        inner: Box<dyn Archive + 'a>,
        choose: impl Fn(&TensorInfo) -> Option<DType>,
        overflow: Overflow,
        measure: bool,
    ) -> Result<Self> {
        let (mut infos, sources) = Layer::all(&*inner);
        let mut targets = Vec::with_capacity(infos.len());
        for info in &infos {
            let float = info.dtype().kind() == Kind::Float;
            let target = if float { choose(info).filter(|&d| d != info.dtype()) } else { None };
            if let Some(other) = target.filter(|d| d.kind() != Kind::Float) {
                let what = format!("a cast needs a float dtype, and {other} is none");
                return Err(Error::invalid_options(what).with_tensor(info.name()));
            }
            targets.push(target);
        }
        let whole = castable_storages(&*inner, &targets);
        let mut tensors = Vec::with_capacity(infos.len());
        let mut alone = 0u64;
        for (info, target) in infos.iter_mut().zip(targets) {
            let Some(target) = target else {
                tensors.push(None);
                continue;
            };
            let job = Job::new(info, target, overflow, measure, false);
            let mut cast = info.with_dtype(target).map_err(|_| {
                let shape = info.shape();
                let what = format!("elements of shape {shape:?} do not fill whole bytes as {target}");
                Error::invalid_options(what).with_tensor(info.name())
            })?;
            let keeps = |v: &crate::View| whole.get(v.storage as usize).copied().flatten().is_some();
            if cast.view().is_some_and(|v| !keeps(v)) {
                cast = cast.without_view();
                alone += 1;
            }
            tensors.push(job);
            *info = cast;
        }
        let mut layer = Layer::new(inner, infos, sources);
        let mut storages: Vec<Option<Arc<Job>>> = vec![None; layer.storages.len()];
        for (info, old) in layer.infos.iter().zip(&layer.sources) {
            let Some(view) = info.view() else { continue };
            let number = view.storage as usize;
            let (Some(slot), Some(storage)) = (storages.get_mut(number), layer.storages.get_mut(number))
            else {
                continue;
            };
            let source = &layer.inner.tensors()[*old];
            let target = layer.storage_sources.get(number).and_then(|&old| *whole.get(old)?);
            if slot.is_none()
                && let Some(target) = target
                && let (Some(from), Some(to)) = (source.dtype().size(), target.size())
            {
                storage.bytes = storage.bytes / from * to;
                storage.dtype = storage.dtype.map(|_| target);
                *slot = Job::new(source, target, overflow, measure, true);
            }
        }
        if alone > 0 {
            let text = format!(
                "{alone} tensors share storage with tensors that are not cast from the same dtype, and have bytes of their own"
            );
            layer.notes.push(Note::changed(text));
        }
        let mut counts: Vec<((DType, DType), u64)> = Vec::new();
        for job in tensors.iter().flatten() {
            match counts.iter_mut().find(|(pair, _)| *pair == (job.from, job.to)) {
                Some((_, n)) => *n += 1,
                None => counts.push(((job.from, job.to), 1)),
            }
        }
        for ((from, to), n) in counts {
            layer.notes.push(Note::changed(format!("{n} tensors cast from {from} to {to}")));
        }
        Ok(Self { layer, tensors, storages })
    }

    /// What was met so far in each tensor and storage that is cast and of which something was read, in order.
    pub fn report(&self) -> Vec<TensorCast> {
        let jobs = self.tensors.iter().chain(&self.storages).flatten();
        let lines = jobs.map(|job| TensorCast {
            name: job.name.clone(),
            from: job.from,
            to: job.to,
            stats: *job.stats.lock().unwrap_or_else(PoisonError::into_inner),
        });
        lines.filter(|line| line.stats.elements > 0).collect()
    }
}

/// The dtype that each storage is cast to as a whole: where every tensor that views it is cast to that one, from
/// one dtype of whole bytes that is the storage's own if it says one, and the storage is whole elements.
fn castable_storages(archive: &dyn Archive, targets: &[Option<DType>]) -> Vec<Option<DType>> {
    let mut dtypes: Vec<Option<DType>> = archive.storages().iter().map(|s| s.dtype).collect();
    // What the tensors that were seen so far agree on; `Some(None)` where they do not.
    let mut whole: Vec<Option<Option<DType>>> = vec![None; dtypes.len()];
    for (info, &target) in archive.tensors().iter().zip(targets) {
        let Some(number) = info.view().map(|v| v.storage as usize) else { continue };
        let (Some(dtype), Some(whole)) = (dtypes.get_mut(number), whole.get_mut(number)) else { continue };
        let bytes = archive.storages()[number].bytes;
        let fits = info.dtype().size().is_some_and(|size| bytes.is_multiple_of(size))
            && *dtype.get_or_insert(info.dtype()) == info.dtype();
        let target = target.filter(|t| fits && t.size().is_some());
        *whole = Some(if whole.is_none_or(|known| known == target) { target } else { None });
    }
    whole.into_iter().map(Option::flatten).collect()
}

impl Archive for Cast<'_> {
    fn data(&self, index: usize) -> Result<Data<'_>> {
        let data = self.layer.data(index)?;
        Ok(match self.tensors.get(index) {
            Some(Some(job)) => Data::lazy(CastReader { data, job: job.clone() }),
            _ => data,
        })
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        let data = self.layer.storage_data(index)?;
        Ok(match self.storages.get(index) {
            Some(Some(job)) => Data::lazy(CastReader { data, job: job.clone() }),
            _ => data,
        })
    }

    archive_of_layer!(@rest);
}

/// Bytes that are cast when they are read.
struct CastReader<'a> {
    data: Data<'a>,
    job: Arc<Job>,
}

/// Elements that are read and cast together; small enough that they stay in the second-level cache, and that the
/// scratch memory comes from the allocator and not from the system.
const PIECE: u64 = 8192;

impl CastReader<'_> {
    /// The bytes of the smallest group of elements that is whole bytes in both dtypes, before and after.
    fn group(&self) -> (u64, u64) {
        let (from, to) = (self.job.from.bits(), self.job.to.bits());
        let elements = [1, 2, 4].into_iter().find(|n| n * from % 8 == 0 && n * to % 8 == 0).unwrap_or(8);
        (elements * from / 8, elements * to / 8)
    }

    /// Casts whole groups from group number `first` on.
    fn cast_groups(&self, first: u64, out: &mut [u8], stats: &mut CastStats) -> Result<()> {
        let (from, to) = self.group();
        let mut at = first * from;
        let mut scratch = Vec::new();
        for out in out.chunks_mut((PIECE * to) as usize) {
            let len = out.len() as u64 / to * from;
            let source = match self.data.as_slice() {
                Some(bytes) => {
                    check_range(at, len as usize, bytes.len() as u64)?;
                    &bytes[at as usize..(at + len) as usize]
                }
                None => {
                    if scratch.is_empty() {
                        scratch = zeroed(len)?; // The first piece is the longest.
                    }
                    let scratch = &mut scratch[..len as usize];
                    self.data.read_at(at, scratch)?;
                    &*scratch
                }
            };
            let done = self.job.kernel.cast(source, out, stats);
            done.map_err(|refused| {
                self.refused(at * 8 / self.job.from.bits() + refused.index, refused.value)
            })?;
            if let Some(measure) = &self.job.measure {
                stats.max_relative = stats.max_relative.max(measure.worst(source, out));
            }
            at += len;
        }
        Ok(())
    }

    /// A part of one group, which a neighbouring read counts.
    fn cast_part(&self, group: u64, within: usize, out: &mut [u8], stats: &mut CastStats) -> Result<()> {
        let mut whole = [0; 8];
        let whole = &mut whole[..self.group().1 as usize];
        self.cast_groups(group, whole, stats)?;
        out.copy_from_slice(&whole[within..within + out.len()]);
        Ok(())
    }

    #[cold]
    fn refused(&self, index: u64, value: f64) -> Error {
        let Job { name, to, whole_storage, .. } = &*self.job;
        let place = if *whole_storage { " of its storage" } else { "" };
        Error::invalid_options(format!("element {index}{place} is {value:e}, which {to} cannot hold"))
            .with_tensor(&**name)
            .with_hint("give leave with --overflow saturate or --overflow infinity, or cast to a wider dtype")
    }
}

impl ReadAt for CastReader<'_> {
    fn len(&self) -> u64 {
        let (from, to) = self.group();
        self.data.len() / from * to
    }

    fn read_at(&self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len())?;
        let (_, to) = self.group();
        let mut stats = CastStats::default();
        let (mut group, within) = (offset / to, (offset % to) as usize);
        if within != 0 {
            let (head, rest) = buf.split_at_mut(buf.len().min(to as usize - within));
            // The read that began this group has counted it.
            self.cast_part(group, within, head, &mut CastStats::default())?;
            group += 1;
            buf = rest;
        }
        let (whole, tail) = buf.split_at_mut(buf.len() - buf.len() % to as usize);
        let done = self.cast_groups(group, whole, &mut stats).and_then(|()| {
            if tail.is_empty() {
                return Ok(());
            }
            self.cast_part(group + whole.len() as u64 / to, 0, tail, &mut stats)
        });
        self.job.stats.lock().unwrap_or_else(PoisonError::into_inner).merge(&stats);
        done
    }

    fn access(&self) -> Access {
        self.data.access()
    }

    fn finish(&self) -> Result<()> {
        self.data.finish()
    }
}

#[cfg(test)]
mod tests;
