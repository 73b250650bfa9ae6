//! Precision as a policy: which tensors get which dtype, and what becomes of numbers that do not fit.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cast::Cast;
use super::kernels::{CastKernel, CastStats, Overflow};
use super::select::glob;
use crate::archive::Archive;
use crate::dtype::{DType, Kind};
use crate::error::{Error, Result};
use crate::source::ReadAt;
use crate::tensor::TensorInfo;
use crate::workers::{on_workers, worker_count};

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
/// use weighbridge_formats::DType;
/// use weighbridge_formats::transform::{OnOverflow, Precision};
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
    measure: bool,
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

    /// How a cast treats numbers that do not fit; [`OnOverflow::KeepWide`] is for the policy to see to, and an error
    /// where a cast is fixed.
    pub fn overflow(&self) -> Overflow {
        match self.overflow {
            OnOverflow::Error | OnOverflow::KeepWide => Overflow::Error,
            OnOverflow::Saturate => Overflow::Saturate,
            OnOverflow::Infinity => Overflow::Infinity,
        }
    }

    /// Whether the worst relative error of each cast is measured, which decodes what was cast once more.
    pub fn measure(mut self, measure: bool) -> Self {
        self.measure = measure;
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
    /// `threads` read the tensors where those that do not fit are to be found; `None` leaves it to the engine.
    ///
    /// # Errors
    /// `InvalidOptions` for a dtype that is no float and a pattern that is none; where tensors that do not fit are
    /// kept, what reading them says.
    pub fn apply<'a>(
        &self,
        archive: Box<dyn Archive + 'a>,
        threads: Option<usize>,
    ) -> Result<(Cast<'a>, Vec<KeptWide>)> {
        let mut rules = Vec::with_capacity(self.rules.len());
        for (pattern, dtype) in &self.rules {
            rules.push((glob(&pattern.to_lowercase())?, *dtype));
        }
        let mut wanted: Vec<Option<DType>> = Vec::with_capacity(archive.tensors().len());
        for info in archive.tensors() {
            let name = info.name().to_lowercase();
            let rule = rules.iter().find(|(pattern, _)| pattern.is_match(&name));
            let dtype = rule.map_or(self.dtype, |(_, dtype)| *dtype);
            let float = info.dtype().kind() == Kind::Float;
            wanted.push(dtype.filter(|&d| float && d != info.dtype()));
        }
        let overflow = match self.overflow {
            OnOverflow::Error | OnOverflow::KeepWide => Overflow::Error,
            OnOverflow::Saturate => Overflow::Saturate,
            OnOverflow::Infinity => Overflow::Infinity,
        };
        let mut kept = Vec::new();
        if self.overflow == OnOverflow::KeepWide {
            for (i, stats) in too_wide(&*archive, &wanted, worker_count(threads))? {
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
        Ok((Cast::by(archive, choose, overflow, self.measure)?, kept))
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
    on_workers(threads, work)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, MemoryArchive, Tensor};

    fn floats(name: &str, x: &[f32]) -> Tensor<'static> {
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new(name, DType::F32, [x.len() as u64].as_slice(), Data::Owned(bytes.into())).unwrap()
    }

    fn archive() -> Box<MemoryArchive<'static>> {
        let ints = Tensor::new("ids", DType::I64, [1].as_slice(), Data::Borrowed(&[0; 8])).unwrap();
        let tensors = [
            floats("a.weight", &[1.0, 1.0 / 3.0]),
            floats("LayerNorm.weight", &[2.0]),
            floats("big", &[1e9]),
            ints,
        ];
        Box::new(MemoryArchive::new(tensors).unwrap())
    }

    fn dtypes(cast: &Cast<'_>) -> Vec<DType> {
        cast.tensors().iter().map(TensorInfo::dtype).collect()
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_integers_stay() {
        let precision =
            Precision::to(DType::Bf16).rule("*layernorm*", None).rule("*.weight", Some(DType::F16));
        let (cast, kept) = precision.apply(archive(), None).unwrap();
        assert_eq!(dtypes(&cast), [DType::F16, DType::F32, DType::Bf16, DType::I64]);
        assert!(kept.is_empty() && !precision.is_unchanged());
        assert!(Precision::unchanged().rule("*", None).is_unchanged());
        assert!(Precision::to(DType::I64).apply(archive(), None).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_saturated_or_kept() {
        let read = |overflow| {
            let (cast, kept) =
                Precision::to(DType::F16).on_overflow(overflow).measure(true).apply(archive(), Some(2))?;
            let numbers = cast.data(2)?.read_all()?;
            cast.data(0)?.read_all()?;
            Ok::<_, Error>((dtypes(&cast)[2], numbers, kept, cast.report()))
        };
        assert_eq!(read(OnOverflow::Error).unwrap_err().tensor(), Some("big"));
        let (dtype, numbers, _, report) = read(OnOverflow::Saturate).unwrap();
        assert_eq!((dtype, numbers), (DType::F16, vec![0xff, 0x7b]));
        assert!(report[0].stats.max_relative > 1e-5 && report[0].stats.max_relative < 1e-3);
        assert_eq!(read(OnOverflow::Infinity).unwrap().1, [0x00, 0x7c]);
        let (dtype, numbers, kept, _) = read(OnOverflow::KeepWide).unwrap();
        assert_eq!((dtype, numbers), (DType::F32, 1e9f32.to_le_bytes().to_vec()));
        assert_eq!(kept, [KeptWide { name: "big".into(), dtype: DType::F32, overflow: 1, max_abs: 1e9 }]);
    }
}
