//! libtorch's tensors and variable stores, through the crate `tch`.
//!
//! What tch itself reads of `.pt` files is little; here a `VarStore` takes any archive, so that an ordinary
//! `torch.save(model.state_dict())` is loaded. Numbers are set in place, whatever shares the variable. [`tensors`]
//! makes tensors of an archive where there is no store yet.
//!
//! Bytes are copied in small chunks, never as a second whole tensor, and no tensor lies over a file's bytes: a handle of libtorch's can be
//! cloned and written to by whoever has it, so nothing in Rust could tie it to a map, or keep a `&[u8]` of its memory
//! unchanged. For the same reason an archive of a store reads the variables when its bytes are asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ::tch::nn::VarStore;
use ::tch::{Device, Kind, TchError, Tensor as Native, no_grad};
use weighbridge_formats::{Archive, DType, Data, Error, ReadAt, Result, Shape, Tensor, TensorInfo};

use super::element::check_len;
use super::owned::buffer;
use super::{StateDict, TensorSource, join};

/// How many elements are on their way at a time: they stay in the processor's cache, and libtorch copies them in this
/// thread. More would go to its pool, whose threads wait for each other longer than the copy takes: half a gigabyte in
/// chunks of 262,144 took ten times as long.
const CHUNK: u64 = 32_768;

/// The kinds that the crate tch has, and their dtypes. libtorch has more (`uint16`, `float8_e8m0fnu`, …), which tch
/// cannot name.
const KINDS: &[(Kind, DType)] = &[
    (Kind::Uint8, DType::U8),
    (Kind::Int8, DType::I8),
    (Kind::Int16, DType::I16),
    (Kind::Int, DType::I32),
    (Kind::Int64, DType::I64),
    (Kind::Half, DType::F16),
    (Kind::BFloat16, DType::Bf16),
    (Kind::Float, DType::F32),
    (Kind::Double, DType::F64),
    (Kind::ComplexHalf, DType::C32),
    (Kind::ComplexFloat, DType::C64),
    (Kind::ComplexDouble, DType::C128),
    (Kind::Bool, DType::Bool),
    (Kind::Float8e5m2, DType::F8E5M2),
    (Kind::Float8e4m3fn, DType::F8E4M3),
    (Kind::Float8e5m2fnuz, DType::F8E5M2Fnuz),
    (Kind::Float8e4m3fnuz, DType::F8E4M3Fnuz),
];

/// The kind of a dtype; `None` where the crate tch has none.
pub fn kind_of(dtype: DType) -> Option<Kind> {
    KINDS.iter().find(|(_, d)| *d == dtype).map(|(kind, _)| *kind)
}

/// Every tensor of an archive in memory of libtorch's, by name.
///
/// Names of one tensor are one tensor again: those that are the same part of the same storage share their memory.
/// No gradient is asked for.
///
/// # Errors
/// `Unsupported` for dtypes that the crate tch has no kind for, with the names of the tensors; `Malformed` if two
/// tensors have the same name; those of the archive and of libtorch.
pub fn tensors(archive: &dyn Archive, device: Device) -> Result<BTreeMap<String, Native>> {
    let infos = archive.tensors();
    let foreign: Vec<String> = infos
        .iter()
        .filter(|info| kind_of(info.dtype()).is_none())
        .map(|info| format!("{} ({})", info.name(), info.dtype()))
        .collect();
    if !foreign.is_empty() {
        let more = foreign.len().saturating_sub(LISTED);
        let mut list = foreign[..foreign.len().min(LISTED)].join(", ");
        if more > 0 {
            list.push_str(&format!(", … {more} more"));
        }
        return Err(Error::unsupported(format!("the crate tch has no kind for {list}"))
            .with_hint("cast them to another dtype, or leave them out (transform::Cast, transform::Drop)"));
    }
    let mut out = BTreeMap::new();
    let mut known: HashMap<(u32, u64, Option<Shape>, DType, Shape), String> = HashMap::new();
    for (index, info) in infos.iter().enumerate() {
        let at = |e: Error| e.with_tensor(info.name());
        let part = info.view().map(|view| {
            (view.storage, view.offset, view.strides.clone(), info.dtype(), Shape::from(info.shape()))
        });
        let first = part.as_ref().and_then(|part| known.get(part)).and_then(|name| out.get(name));
        let tensor = match first {
            Some(first) => Native::shallow_clone(first),
            None => made(info, &archive.data(index).map_err(at)?, device).map_err(at)?,
        };
        if out.insert(info.name().to_owned(), tensor).is_some() {
            return Err(at(Error::malformed("two tensors of the archive have the same name")));
        }
        if let Some(part) = part {
            known.entry(part).or_insert_with(|| info.name().to_owned());
        }
    }
    Ok(out)
}

/// How many tensors an error lists before it only counts.
const LISTED: usize = 8;

fn made(info: &TensorInfo, data: &Data<'_>, device: Device) -> Result<Native> {
    let Some(kind) = kind_of(info.dtype()) else {
        return Err(Error::unsupported(format!("the crate tch has no kind for {}", info.dtype())));
    };
    let size: Option<Vec<i64>> = info.shape().iter().map(|&n| i64::try_from(n).ok()).collect();
    let Some(size) = size else {
        return Err(Error::limit(format!("shape {:?} does not fit 63 bits", info.shape())));
    };
    check_len(data, info.bytes())?;
    let tensor = Native::f_empty(&size[..], (kind, device));
    let mut tensor = tensor.map_err(|e| failed(info.name(), "making a tensor", &e))?;
    fill(info, &mut tensor, data)?;
    Ok(tensor)
}

/// Reads a tensor's bytes into the memory that it has, a chunk at a time. libtorch copies each from a tensor of its
/// own; writing behind its back into memory that other handles may share would be unsound.
fn fill(info: &TensorInfo, tensor: &mut Native, data: &Data<'_>) -> Result<()> {
    let at = |doing: &'static str| move |e: TchError| failed(info.name(), doing, &e);
    let size = info.dtype().size().unwrap_or(1);
    if info.elements() <= CHUNK || !tensor.is_contiguous() {
        let mut room = Vec::new();
        let bytes = whole(data, &mut room, info.bytes())?;
        data.finish()?;
        let new = Native::f_from_data_size(bytes, &tensor.size(), tensor.kind());
        return no_grad(|| tensor.f_copy_(&new?)).map_err(at("setting the tensor"));
    }
    let flat = tensor.f_detach().and_then(|t| t.f_view([-1])).map_err(at("making the tensor flat"))?;
    let mut room = buffer(if data.as_slice().is_some() { 0 } else { CHUNK * size })?;
    for first in (0..info.elements()).step_by(CHUNK as usize) {
        let count = CHUNK.min(info.elements() - first);
        let (from, len) = (first * size, (count * size) as usize);
        let bytes = match data.as_slice() {
            Some(all) => all.get(from as usize..from as usize + len),
            None => room.get_mut(..len).map(|part| data.read_at(from, part).map(|()| &*part)).transpose()?,
        };
        let Some(bytes) = bytes else { return Err(Error::mismatch("fewer bytes than the tensor takes")) };
        let new = Native::f_from_data_size(bytes, &[count as i64], tensor.kind());
        let mut part = flat.f_narrow(0, first as i64, count as i64).map_err(at("taking a part"))?;
        no_grad(|| part.f_copy_(&new?)).map_err(at("setting the tensor"))?;
    }
    data.finish()
}

/// All bytes of some data: its own where they are in memory, else read into `room`.
fn whole<'a>(data: &'a Data<'_>, room: &'a mut Vec<u8>, len: u64) -> Result<&'a [u8]> {
    if let Some(bytes) = data.as_slice() {
        return Ok(bytes);
    }
    *room = buffer(len)?;
    data.read_at(0, room)?;
    Ok(room)
}

/// One tensor. Assigning sets its numbers in place.
impl StateDict for Native {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        visit(lazy(prefix, self)?)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        set(prefix, self, source)
    }
}

/// The variables, in the order of their names.
impl StateDict for VarStore {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        sorted(self).iter().try_for_each(|(name, var)| visit(lazy(&join(prefix, name), var)?))
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        sorted(self).iter_mut().try_for_each(|(name, var)| set(&join(prefix, name), var, source))
    }
}

/// The variables by name, each sharing its storage with the store's.
fn sorted(store: &VarStore) -> Vec<(String, Native)> {
    let mut vars: Vec<(String, Native)> = store.variables().into_iter().collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    vars
}

/// An error of libtorch's.
fn failed(name: &str, doing: &str, error: &TchError) -> Error {
    Error::unsupported(format!("libtorch: {doing}: {error}")).with_tensor(name)
}

fn dtype(name: &str, kind: Kind) -> Result<DType> {
    KINDS.iter().find(|(k, _)| *k == kind).map(|(_, dtype)| *dtype).ok_or_else(|| {
        let what = format!("libtorch's quantized tensors ({kind:?}) have scales beside their numbers");
        Error::unsupported(what).with_tensor(name)
    })
}

fn info(name: &str, tensor: &Native) -> Result<TensorInfo> {
    let kind = tensor.f_kind().map_err(|e| failed(name, "asking for the kind", &e))?;
    let shape: Shape = tensor.size().into_iter().map(|n| u64::try_from(n).unwrap_or(0)).collect();
    Ok(TensorInfo::new(name, dtype(name, kind)?, shape)?.with_flags(tensor.requires_grad(), false))
}

/// A tensor whose bytes are copied out when they are asked for.
fn lazy(name: &str, tensor: &Native) -> Result<Tensor<'static>> {
    let info = info(name, tensor)?;
    let flat = tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)).and_then(|t| t.f_contiguous());
    let flat = flat.and_then(|t| t.f_view([-1])).map_err(|e| failed(name, "making the tensor flat", &e))?;
    let size = info.dtype().size().unwrap_or(1);
    let reader = Reader { tensor: Mutex::new(flat), size, bytes: info.bytes() };
    Ok(Tensor { info, data: Data::Lazy(Arc::new(reader)) })
}

/// The bytes of a tensor of one dimension. libtorch's handle may be used by one thread at a time.
struct Reader {
    tensor: Mutex<Native>,
    /// The bytes of an element.
    size: u64,
    bytes: u64,
}

impl ReadAt for Reader {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.bytes);
        let Some(end) = end else {
            let what = format!("{} bytes at {offset} pass the end at {}", buf.len(), self.bytes);
            return Err(Error::malformed(what));
        };
        // Whole elements are copied; a chunk may begin or end within one.
        let (first, last) = (offset / self.size, end.div_ceil(self.size));
        let mut around = Vec::new();
        let whole = (last - first) * self.size == buf.len() as u64;
        let out = if whole {
            &mut *buf
        } else {
            around = buffer((last - first) * self.size)?;
            &mut around
        };
        let tensor = self.tensor.lock().unwrap_or_else(PoisonError::into_inner);
        let part = tensor.f_narrow(0, first as i64, (last - first) as i64);
        let copied = part.and_then(|t| t.f_copy_data_u8(out, (last - first) as usize));
        copied.map_err(|e| Error::unsupported(format!("libtorch: copying elements: {e}")))?;
        if !whole {
            let skip = (offset - first * self.size) as usize;
            buf.copy_from_slice(&around[skip..skip + buf.len()]);
        }
        Ok(())
    }
}

fn set(name: &str, tensor: &mut Native, source: &dyn TensorSource) -> Result<()> {
    let info = info(name, tensor)?;
    let Some(data) = source.find(&info)? else { return Ok(()) };
    check_len(&data, info.bytes())?;
    fill(&info, tensor, &data)
}

#[cfg(test)]
mod tests {
    use ::tch::nn::{self, Module};
    use weighbridge_formats::write::{ExecuteOptions, execute};
    use weighbridge_formats::{ReadOptions, Registry, WriteOptions};

    use super::super::{LoadOptions, OwnedTensor, archive, load};
    use super::*;

    fn model() -> (VarStore, nn::Linear) {
        let store = VarStore::new(Device::Cpu);
        let linear = nn::linear(store.root() / "layer", 3, 2, nn::LinearConfig::default());
        (store, linear)
    }

    #[test]
    fn a_var_store_is_loaded_from_a_torch_file() {
        let ((saved, a), (mut loaded, b)) = (model(), model());
        let input = Native::from_slice2(&[[1f32, -2.0, 3.0]]);
        assert_ne!(a.forward(&input), b.forward(&input));
        let folder = tempfile::tempdir().unwrap();
        let mut options = WriteOptions::default();
        options.file_name = "pytorch_model.bin".into();
        let source = archive(&saved).unwrap();
        let registry = Registry::builtin();
        let plan = registry.serializer("torch").unwrap().plan(&source, &options).unwrap();
        execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
        let file =
            registry.open_path(folder.path().join("pytorch_model.bin"), &ReadOptions::default()).unwrap();
        let report = load(&mut loaded, &*file, &LoadOptions::default()).unwrap();
        assert_eq!(report.matched, ["layer.bias", "layer.weight"]);
        assert_eq!(a.forward(&input), b.forward(&input));
        assert!(b.ws.requires_grad(), "a loaded variable is trained on");
    }

    #[test]
    fn strided_tensors_are_gathered_and_any_range_is_read() {
        let whole = Native::from_slice2(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let out = HashMap::from([("t".to_owned(), whole.transpose(0, 1))]);
        let out = archive(&out).unwrap();
        assert_eq!(out.tensors()[0].shape(), [3, 2]);
        let want: Vec<u8> = [1f32, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let data = out.data(0).unwrap();
        assert_eq!(data.read_all().unwrap(), want);
        for (start, end) in [(0, 24), (1, 3), (3, 9), (4, 8), (23, 24), (5, 5), (24, 24)] {
            let mut part = vec![0; end - start];
            data.read_at(start as u64, &mut part).unwrap();
            assert_eq!(part, want[start..end], "{start}..{end}");
        }
        assert!(data.read_at(20, &mut [0; 5]).is_err());
    }

    #[test]
    fn every_kind_comes_back_and_quantized_ones_are_refused() {
        let source = Native::from_slice(&[0f32, 1.0, 2.0, 3.0]);
        use Kind::{
            BFloat16, Bool, ComplexDouble, ComplexFloat, Double, Float, Float8e4m3fn, Float8e5m2, Half, Int,
            Int8, Int16, Int64, Uint8,
        };
        for kind in [
            Uint8,
            Int8,
            Int16,
            Int,
            Int64,
            Half,
            BFloat16,
            Float,
            Double,
            ComplexFloat,
            ComplexDouble,
            Bool,
            Float8e4m3fn,
            Float8e5m2,
        ] {
            let saved = source.to_kind(kind);
            let mut loaded = Native::zeros([4], (kind, Device::Cpu));
            let out = archive(&saved).unwrap();
            assert!(load(&mut loaded, &out, &LoadOptions::default()).unwrap().is_clean());
            let again = archive(&loaded).unwrap();
            let bytes = |a: &dyn Archive| a.data(0).unwrap().read_all().unwrap();
            assert_eq!(bytes(&again), bytes(&out), "{kind:?}");
            assert!(bytes(&out).iter().any(|&b| b != 0));
        }
        let quantized = source.quantize_per_tensor(0.5, 0, Kind::QInt8);
        assert!(archive(&quantized).is_err());
    }

    #[test]
    fn strict_loading_leaves_a_var_store_alone() {
        let (mut store, linear) = model();
        let before = linear.ws.copy();
        let file = HashMap::from([
            ("layer.weight".to_owned(), OwnedTensor::from_slice([2, 3], &[9f32; 6]).unwrap()),
            ("layer.extra".to_owned(), OwnedTensor::from_slice([1], &[9f32]).unwrap()),
        ]);
        assert!(load(&mut store, &archive(&file).unwrap(), &LoadOptions::default()).is_err());
        assert_eq!(linear.ws, before);
        load(&mut store, &archive(&file).unwrap(), &LoadOptions::lenient()).unwrap();
        assert_eq!(linear.ws, before.full_like(9.0));
    }
}
