//! An opened torch file of any container: tensors as views of storages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::dtypes::StorageClass;
use super::lazy::FlipSigns;
use super::rebuild::{Lazy, RawTensor, Rebuilt, rebuild};
use crate::account::{Account, RAISE, TENSOR, block};
use crate::archive::{Archive, Note, StorageInfo, no_such_tensor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::naming::{Named, name_tensors};
use crate::source::{ReadAt, Source};
use crate::tensor::{Data, TensorInfo, View};
use crate::transform::{Strided, SwapBytes, Window};
use crate::value::Values;

/// What a named tensor is charged: less than [`TENSOR`], since its values and its storage were charged too, and a conversion
/// that plans for it needs less than all of them. 23,000 tensors of a small file fit the account, and take 50 MiB.
const NAMED: u64 = TENSOR - 256;

/// Where a container keeps the bytes of its storages.
pub(super) trait Storages: Send + Sync {
    /// The bytes of a storage, by its number in the order of the pickle, as they lie in the file.
    fn reader(&self, index: usize) -> Result<Arc<dyn ReadAt>>;
}

/// An opened torch file.
pub(super) struct TorchArchive {
    variety: String,
    source: Source,
    tensors: Vec<TensorInfo>,
    /// The view and the treatment of tensors that are not stored as they are, by their number. They have no
    /// view in `tensors`: no writer could store them as part of their storage.
    lazy: BTreeMap<usize, (View, Lazy)>,
    storages: Vec<StorageInfo>,
    keys: Vec<Arc<str>>,
    /// The unit in bytes to swap, per storage, of a big-endian file.
    swap: Option<Vec<u64>>,
    readers: Vec<OnceLock<Data<'static>>>,
    bytes: Box<dyn Storages>,
    values: Values,
    notes: Vec<Note>,
    expanded_limit: u64,
    /// Why tensors are lost; whether that is no error, nor a storage that is too short for some of its tensors.
    faults: Vec<String>,
    lenient: bool,
}

/// How the storages of a file are found, once the pickle has named them: keys and the bytes each must have.
pub(super) type Locate<'a> = dyn FnOnce(&[(&str, u64)]) -> Result<Box<dyn Storages>> + 'a;

impl TorchArchive {
    /// Makes an archive of a decoded pickle. `locate` finds the storages that the pickle names.
    pub(super) fn new(
        source: Source,
        variety: String,
        values: Values,
        big_endian: bool,
        notes: Vec<Note>,
        (limits, account): (&Limits, Account),
        locate: Box<Locate<'_>>,
    ) -> Result<Self> {
        Self::open(source, variety, values, big_endian, notes, (limits, account), locate, false)
    }

    /// As [`TorchArchive::new`], and where `lenient` a tensor that cannot be read is an error when it is asked for.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn open(
        source: Source,
        variety: String,
        values: Values,
        big_endian: bool,
        mut notes: Vec<Note>,
        (limits, account): (&Limits, Account),
        locate: Box<Locate<'_>>,
        lenient: bool,
    ) -> Result<Self> {
        let Rebuilt { mut values, storages, tensors: raw, notes: found, mut faults, mut account } =
            rebuild(values, limits, account, lenient)?;
        notes.extend(found);
        let (mut named, numbered) = name_tensors(&mut values, limits, &mut account)?;
        if numbered {
            notes.push(Note::warning("several paths read the same; a number tells their tensors apart"));
        }
        if lenient {
            named.extend(unreached(&raw, &named));
        }
        if named.len() as u64 > limits.entries {
            return Err(Error::limit(format!("more than {} tensors", limits.entries)));
        }
        account.charge((named.len() as u64).saturating_mul(NAMED))?;
        let wanted: Vec<(&str, u64)> = storages.iter().map(|s| (&*s.key, s.bytes)).collect();
        let bytes = locate(&wanted)?;
        let (mut tensors, mut lazy) = (Vec::with_capacity(named.len()), BTreeMap::new());
        for name in named {
            let raw = &raw[name.raw as usize];
            let spilled = raw.shape.spilled() || raw.strides.as_ref().is_some_and(|s| s.spilled());
            account.charge(if spilled { 2 * block(raw.shape.len() * 8) } else { 0 })?;
            let view =
                View { storage: raw.storage, offset: raw.offset, strides: raw.strides.as_deref().cloned() };
            let info = TensorInfo::new(name.name, raw.dtype, raw.shape.clone())?;
            let info = info.with_flags(raw.requires_grad, raw.parameter);
            if raw.lazy == Lazy::None {
                tensors.push(info.with_view(view));
            } else {
                lazy.insert(tensors.len(), (view, raw.lazy));
                tensors.push(info);
            }
        }
        let infos: Vec<StorageInfo> =
            storages.iter().map(|s| StorageInfo { dtype: typed(s.class), bytes: s.bytes }).collect();
        if lenient {
            lose_expanded(&mut tensors, &mut lazy, &infos, limits, &mut faults)?;
        } else {
            check_expansion(&tensors, &infos, limits)?;
        }
        let swap = if big_endian { Some(swap_units(&tensors, &infos)?) } else { None };
        let mut readers = Vec::new();
        readers.resize_with(infos.len(), OnceLock::new);
        Ok(Self {
            variety,
            source,
            tensors,
            lazy,
            storages: infos,
            keys: storages.into_iter().map(|s| s.key).collect(),
            swap,
            readers,
            bytes,
            values,
            notes,
            expanded_limit: limits.expanded_bytes,
            faults,
            lenient,
        })
    }

    fn storage(&self, index: usize) -> Result<Data<'_>> {
        let Some(slot) = self.readers.get(index) else {
            return Err(Error::not_found(format!("there is no storage number {index}")));
        };
        if let Some(data) = slot.get() {
            return Ok(data.clone());
        }
        let at = |e: Error| self.place(e);
        let reader = self.bytes.reader(index).map_err(at)?;
        let (have, want) = (reader.len(), self.storages[index].bytes);
        if have < want && !self.lenient {
            let what =
                format!("storage {:?} holds {have} bytes, and the pickle says {want}", self.keys[index]);
            return Err(at(Error::malformed(what)));
        }
        let mut data = Data::Lazy(reader);
        if have > want {
            data = Data::lazy(Window::new(data, 0, want)?);
        }
        if let Some(unit) = self.swap.as_ref().map(|s| s[index]).filter(|&u| u > 1) {
            data = Data::lazy(SwapBytes::new(data, unit)?);
        }
        Ok(slot.get_or_init(|| data).clone())
    }

    fn tensor_data(&self, index: usize, info: &TensorInfo) -> Result<Data<'_>> {
        match (info.view(), self.lazy.get(&index)) {
            (Some(view), _) => self.view_data(info, view),
            (None, Some((_, Lazy::Meta))) => {
                Err(Error::unsupported("a tensor on the meta device: the file has no data for it")
                    .with_hint("leave it out with --drop, or save the model after its weights were loaded"))
            }
            (None, Some((_, Lazy::Lost(fault)))) => {
                let why = self.faults.get(*fault as usize).map_or("it cannot be read", String::as_str);
                Err(Error::malformed(why.to_owned()))
            }
            (None, Some((view, Lazy::Flip { negative, conjugate }))) => {
                let data = self.view_data(info, view)?;
                Ok(Data::lazy(FlipSigns::new(data, info.dtype(), *negative, *conjugate)?))
            }
            (None, _) => Err(no_such_tensor(index)),
        }
    }

    /// A tensor's bytes, as the part of its storage that its view says.
    fn view_data<'a>(&'a self, info: &TensorInfo, view: &View) -> Result<Data<'a>> {
        let storage = self.storage(view.storage as usize)?;
        if let Some(strides) = &view.strides {
            if info.bytes() > storage.len().saturating_add(self.expanded_limit) {
                return Err(Error::limit(format!("a tensor that expands to {} bytes", info.bytes())));
            }
            let Some(size) = info.dtype().size() else {
                return Err(Error::unsupported(format!("a strided tensor of {}", info.dtype())));
            };
            return Ok(Data::lazy(Strided::new(storage, size, info.shape(), strides, view.offset)?));
        }
        if info.bytes() == storage.len() {
            return Ok(storage);
        }
        let offset = view.offset.checked_mul(info.dtype().bits()).map(|bits| bits / 8);
        let offset = offset.ok_or_else(|| Error::malformed("a tensor's offset overflows"))?;
        // An empty tensor may name any place; it has no bytes to look for there.
        let offset = if info.bytes() == 0 { 0 } else { offset };
        Ok(Data::lazy(Window::new(storage, offset, info.bytes())?))
    }

    fn place(&self, error: Error) -> Error {
        let error = error.with_format(super::ID);
        match self.source.path() {
            Some(path) => error.with_path(path),
            None => error,
        }
    }
}

fn typed(class: Option<StorageClass>) -> Option<DType> {
    match class {
        Some(StorageClass::Typed(dtype)) => Some(dtype),
        _ => None,
    }
}

/// A tensor with a stride of 0, or whose elements overlap, takes more bytes written out than its storage has.
/// 1.5 KB can stand for terabytes; so the excess over the storages is bounded.
fn check_expansion(tensors: &[TensorInfo], storages: &[StorageInfo], limits: &Limits) -> Result<()> {
    let (mut total, mut excess) = (0u64, 0u64);
    let stored_in_all = storages.iter().fold(0u64, |n, s| n.saturating_add(s.bytes));
    for tensor in tensors {
        total = total.saturating_add(tensor.bytes());
        if let Some(view) = tensor.view().filter(|v| v.strides.is_some()) {
            let stored = storages.get(view.storage as usize).map_or(0, |s| s.bytes);
            excess = excess.saturating_add(tensor.bytes().saturating_sub(stored));
        }
        let shared = limits.allows_sharing(total, stored_in_all);
        if total > limits.declared_bytes || excess > limits.expanded_bytes || !shared {
            let what = format!(
                "the tensors would take {total} bytes written out of {stored_in_all} that are stored, {excess} of them for strides \
                 that repeat elements; the limits are {} and {}",
                limits.declared_bytes, limits.expanded_bytes
            );
            return Err(Error::limit(what).with_tensor(tensor.name()).with_hint(RAISE));
        }
    }
    Ok(())
}

/// Tensors that no path from the root leads to, each that is no other's double: what a pickle made and threw away.
fn unreached(raw: &[RawTensor], named: &[Named]) -> Vec<Named> {
    let place = |t: &RawTensor| (t.storage, t.offset, t.shape.clone(), t.dtype, t.lazy != Lazy::None);
    let mut known: std::collections::HashSet<_> =
        named.iter().filter_map(|n| raw.get(n.raw as usize)).map(place).collect();
    let fresh = |(_, t): &(usize, &RawTensor)| !matches!(t.lazy, Lazy::Lost(_)) && known.insert(place(t));
    let found: Vec<usize> = raw.iter().enumerate().filter(fresh).map(|(at, _)| at).collect();
    found
        .into_iter()
        .enumerate()
        .map(|(n, at)| Named { name: format!("unreached.{n}").into(), raw: at as u32 })
        .collect()
}

/// As [`check_expansion`], and makes those that pass the bounds lost.
fn lose_expanded(
    tensors: &mut [TensorInfo],
    lazy: &mut BTreeMap<usize, (View, Lazy)>,
    storages: &[StorageInfo],
    limits: &Limits,
    faults: &mut Vec<String>,
) -> Result<()> {
    let (mut total, mut excess) = (0u64, 0u64);
    for (index, tensor) in tensors.iter_mut().enumerate() {
        let Some(view) = tensor.view().cloned() else { continue };
        let stored = storages.get(view.storage as usize).map_or(0, |s| s.bytes);
        let own = if view.strides.is_some() { tensor.bytes().saturating_sub(stored) } else { 0 };
        let sum = (total.saturating_add(tensor.bytes()), excess.saturating_add(own));
        if sum.0 <= limits.declared_bytes && sum.1 <= limits.expanded_bytes {
            (total, excess) = sum;
            continue;
        }
        let what = format!("it would take {} bytes written out, of {stored} that are stored", tensor.bytes());
        *tensor = TensorInfo::new(tensor.shared_name(), DType::U8, crate::tensor::Shape::from_slice(&[0]))?;
        lazy.insert(index, (view, Lazy::Lost(faults.len() as u32)));
        faults.push(what);
    }
    Ok(())
}

/// The unit to swap in each storage: that of its dtype, or of all tensors that view it.
fn swap_units(tensors: &[TensorInfo], storages: &[StorageInfo]) -> Result<Vec<u64>> {
    let mut units: Vec<u64> = storages.iter().map(|s| s.dtype.map_or(0, DType::swap_unit)).collect();
    for tensor in tensors {
        let Some(unit) = tensor.view().and_then(|v| units.get_mut(v.storage as usize)) else { continue };
        let wanted = tensor.dtype().swap_unit();
        if *unit == 0 {
            *unit = wanted;
        } else if *unit != wanted {
            let what = "a big-endian storage that tensors view as elements of different widths";
            return Err(Error::unsupported(what).with_tensor(tensor.name()));
        }
    }
    Ok(units)
}

impl Archive for TorchArchive {
    fn format(&self) -> &'static str {
        super::ID
    }

    fn variety(&self) -> String {
        self.variety.clone()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let info = self.tensors.get(index).ok_or_else(|| no_such_tensor(index))?;
        self.tensor_data(index, info).map_err(|e| self.place(e).with_tensor(info.name()))
    }

    fn storages(&self) -> &[StorageInfo] {
        &self.storages
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        self.storage(index)
    }

    fn values(&self) -> Option<&Values> {
        Some(&self.values)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.path().map(ToOwned::to_owned).into_iter().collect()
    }
}
