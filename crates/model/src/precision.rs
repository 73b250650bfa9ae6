//! Precision as a policy: which tensors get which dtype, and what becomes of numbers that do not fit.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use weighbridge_formats::transform::{Cast, CastKernel, CastStats, Overflow, glob};
use weighbridge_formats::{Archive, DType, Error, ReadAt, Result, TensorInfo};

/// What becomes of a number beyond the range of the dtype that its tensor is to have.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOverflow {
    /// Nothing is saved, and the error names the tensor and the element.
    #[default]
    Error,
    /// The largest finite number of the same sign.
    Saturate,
    /// Infinity, as torch casts.
    Infinity,
    /// Its tensor keeps the dtype that it has. The tensors to be cast are read once more, to find it.
    KeepWide,
}

/// Which dtype each floating-point tensor gets. Integers, booleans and complex numbers stay as they are.
///
/// ```
/// use weighbridge_model::{OnOverflow, Precision};
/// use weighbridge_formats::DType;
///
/// // Half precision, but norms and embeddings stay in f32, and so does what does not fit.
/// let precision = Precision::to(DType::F16)
///     .rule("*norm*", Some(DType::F32))
///     .rule("*embed*", Some(DType::F32))
///     .on_overflow(OnOverflow::KeepWide);
/// # let _ = precision;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Precision {
    dtype: Option<DType>,
    rules: Vec<(String, Option<DType>)>,
    overflow: OnOverflow,
}

impl Precision {
    /// Every tensor as it is.
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// A dtype for all tensors that no rule speaks of.
    pub fn to(dtype: DType) -> Self {
        Self { dtype: Some(dtype), ..Self::default() }
    }

    /// A dtype for the tensors whose names fit a pattern, in which `*` stands for any characters and `?` for one,
    /// upper and lower case alike; `None` keeps the dtype that they have. Of several rules that fit, the first
    /// counts.
    pub fn rule(mut self, pattern: impl Into<String>, dtype: Option<DType>) -> Self {
        self.rules.push((pattern.into(), dtype));
        self
    }

    /// What becomes of numbers that do not fit.
    pub fn on_overflow(mut self, choice: OnOverflow) -> Self {
        self.overflow = choice;
        self
    }

    /// Whether nothing is to be changed.
    pub fn is_unchanged(&self) -> bool {
        self.dtype.is_none() && self.rules.iter().all(|(_, d)| d.is_none())
    }

    /// The dtype for all tensors that no rule speaks of.
    pub fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    /// Wraps an archive in the casts of this policy; with it come the tensors that keep their dtype after all.
    ///
    /// # Errors
    /// `InvalidOptions` for a dtype that is no float and a pattern that is none; where tensors that do not fit are
    /// kept, what reading them says.
    pub(crate) fn apply<'a>(
        &self,
        archive: Box<dyn Archive + 'a>,
        threads: usize,
    ) -> Result<(Cast<'a>, Vec<KeptWide>)> {
        let mut rules = Vec::with_capacity(self.rules.len());
        for (pattern, dtype) in &self.rules {
            rules.push((glob(&pattern.to_lowercase())?, *dtype));
        }
        let mut wanted: Vec<Option<DType>> = Vec::with_capacity(archive.tensors().len());
        for info in archive.tensors() {
            let name = info.name().to_lowercase();
            let rule = rules.iter().find(|(pattern, _)| pattern.is_match(&name));
            wanted.push(rule.map_or(self.dtype, |(_, dtype)| *dtype).filter(|&d| d != info.dtype()));
        }
        let overflow = match self.overflow {
            OnOverflow::Error | OnOverflow::KeepWide => Overflow::Error,
            OnOverflow::Saturate => Overflow::Saturate,
            OnOverflow::Infinity => Overflow::Infinity,
        };
        let mut kept = Vec::new();
        if self.overflow == OnOverflow::KeepWide {
            for (i, stats) in too_wide(&*archive, &wanted, threads)? {
                wanted[i] = None;
                kept.push(KeptWide {
                    name: archive.tensors()[i].name().to_owned(),
                    dtype: archive.tensors()[i].dtype(),
                    overflow: stats.overflow + stats.nan_lost + stats.inf_lost,
                    max_abs: stats.max_abs,
                });
            }
        }
        let chosen = archive.tensors().iter().zip(&wanted);
        let by_name: HashMap<_, DType> =
            chosen.filter_map(|(info, dtype)| Some((info.shared_name(), (*dtype)?))).collect();
        let choose = |info: &TensorInfo| by_name.get(info.name()).copied();
        Ok((Cast::by(archive, choose, overflow, true)?, kept))
    }
}

/// A tensor that kept its dtype since it has numbers that do not fit the one that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptWide {
    /// Its name.
    pub name: String,
    /// The dtype that it kept.
    pub dtype: DType,
    /// How many of its elements do not fit.
    pub overflow: u64,
    /// Its largest magnitude.
    pub max_abs: f64,
}

/// The tensors that hold numbers which the dtype wanted cannot say, and with them all that share a storage with one.
fn too_wide(
    archive: &dyn Archive,
    wanted: &[Option<DType>],
    threads: usize,
) -> Result<Vec<(usize, CastStats)>> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, CastStats)>> = Mutex::default();
    let work = || -> Result<()> {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(wanted) = wanted.get(i) else { return Ok(()) };
            let info = &archive.tensors()[i];
            let Some(kernel) =
                wanted.and_then(|d| CastKernel::new(info.dtype(), d, Overflow::Saturate).map(|k| (k, d)))
            else {
                continue;
            };
            let stats = scan(archive, i, &kernel.0, kernel.1).map_err(|e| e.with_tensor(info.name()))?;
            if stats.overflow + stats.nan_lost + stats.inf_lost > 0
                && let Ok(mut found) = found.lock()
            {
                found.push((i, stats));
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(result) => done = done.and(result),
                Err(fault) => std::panic::resume_unwind(fault),
            }
        }
        done
    })?;
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let storage = |i: usize| archive.tensors()[i].view().map(|v| v.storage);
    let shared: HashSet<u32> = found.iter().filter_map(|(i, _)| storage(*i)).collect();
    let known: HashSet<usize> = found.iter().map(|(i, _)| *i).collect();
    let along = (0..wanted.len()).filter(|&i| {
        wanted[i].is_some() && !known.contains(&i) && storage(i).is_some_and(|s| shared.contains(&s))
    });
    found.extend(along.map(|i| (i, CastStats::default())));
    found.sort_by_key(|(i, _)| *i);
    Ok(found)
}

/// What a cast of a tensor would meet.
fn scan(archive: &dyn Archive, index: usize, kernel: &CastKernel, to: DType) -> Result<CastStats> {
    // A multiple of every group of narrow elements that fills whole bytes.
    const ELEMENTS: u64 = 64 << 10;
    let info = &archive.tensors()[index];
    let data = archive.data(index)?;
    let mut stats = CastStats::default();
    let bytes = |dtype: DType, elements: u64| -> Result<usize> {
        let bytes = dtype.bytes(elements).and_then(|b| usize::try_from(b).ok());
        bytes.ok_or_else(|| Error::invalid_options("its elements do not fill whole bytes"))
    };
    let mut source = vec![0; bytes(info.dtype(), ELEMENTS.min(info.elements()))?];
    let mut target = vec![0; bytes(to, ELEMENTS.min(info.elements()))?];
    let (mut at, mut left) = (0u64, info.elements());
    while left > 0 {
        let n = left.min(ELEMENTS);
        let (source, target) = (&mut source[..bytes(info.dtype(), n)?], &mut target[..bytes(to, n)?]);
        data.read_at(at, source)?;
        // Saturating refuses nothing.
        let _ = kernel.cast(source, target, &mut stats);
        at += source.len() as u64;
        left -= n;
    }
    Ok(stats)
}
