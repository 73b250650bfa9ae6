//! candle's tensors and variables: `Tensor`, `Var`, `VarMap`, and maps of them.
//!
//! A tensor's memory stays behind candle's lock, so it is copied from there in the chunks that a writer asks for;
//! only what is not contiguous, or not in the processor's memory, is copied whole.

use std::sync::Arc;

use candle_core::{CpuStorage, DType as CandleType, Device, Storage, Tensor as CandleTensor, Var};
use candle_nn::VarMap;
use weighbridge_formats::{DType, Data, Error, ReadAt, Result, Shape, Tensor, TensorInfo};

use super::element::Element;
use super::{StateDict, TensorSource, join};

/// One tensor. Assigning puts a new tensor on the same device in its place.
impl StateDict for CandleTensor {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        visit(lazy(prefix, self)?)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        if let Some(new) = read(prefix, self, source)? {
            *self = new;
        }
        Ok(())
    }
}

/// One variable. Assigning sets its numbers, which every tensor that shares it sees.
impl StateDict for Var {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        visit(lazy(prefix, self.as_tensor())?)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        set(prefix, self, source)
    }
}

/// The variables of a model, in the order of their names.
impl StateDict for VarMap {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        sorted(self)?.iter().try_for_each(|(name, var)| visit(lazy(&join(prefix, name), var.as_tensor())?))
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        sorted(self)?.iter().try_for_each(|(name, var)| set(&join(prefix, name), var, source))
    }
}

/// The variables by name. A clone shares the variable.
fn sorted(map: &VarMap) -> Result<Vec<(String, Var)>> {
    let data = map
        .data()
        .lock()
        .map_err(|_| Error::invalid_options("a thread panicked while it changed the VarMap"))?;
    let mut vars: Vec<(String, Var)> = data.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(vars)
}

fn set(name: &str, var: &Var, source: &dyn TensorSource) -> Result<()> {
    let Some(new) = read(name, var.as_tensor(), source)? else { return Ok(()) };
    var.set(&new).map_err(|e| failed(name, "setting the variable", &e))
}

/// An error of candle's.
fn failed(name: &str, doing: &str, error: &candle_core::Error) -> Error {
    Error::unsupported(format!("candle: {doing}: {error}")).with_tensor(name)
}

/// The dtype, of those whose elements candle computes with.
fn dtype(name: &str, dtype: CandleType) -> Result<DType> {
    Ok(match dtype {
        CandleType::U8 => DType::U8,
        CandleType::U32 => DType::U32,
        CandleType::I16 => DType::I16,
        CandleType::I32 => DType::I32,
        CandleType::I64 => DType::I64,
        CandleType::BF16 => DType::Bf16,
        CandleType::F16 => DType::F16,
        CandleType::F32 => DType::F32,
        CandleType::F64 => DType::F64,
        other => {
            let what = format!("candle's tensors of {} are not read", other.as_str());
            return Err(Error::unsupported(what).with_tensor(name));
        }
    })
}

fn info(name: &str, tensor: &CandleTensor) -> Result<TensorInfo> {
    let shape: Shape = tensor.dims().iter().map(|&n| n as u64).collect();
    TensorInfo::new(name, dtype(name, tensor.dtype())?, shape)
}

/// A tensor whose bytes are copied out when they are asked for.
fn lazy(name: &str, tensor: &CandleTensor) -> Result<Tensor<'static>> {
    let info = info(name, tensor)?;
    let local = tensor.to_device(&Device::Cpu).and_then(|t| t.contiguous());
    let tensor = local.map_err(|e| failed(name, "making the tensor contiguous", &e))?;
    let reader = Reader { tensor, bytes: info.bytes() };
    Ok(Tensor { info, data: Data::Lazy(Arc::new(reader)) })
}

/// The bytes of a contiguous tensor in the processor's memory.
struct Reader {
    tensor: CandleTensor,
    bytes: u64,
}

impl ReadAt for Reader {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (storage, layout) = self.tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Err(Error::unsupported("the tensor is not in the processor's memory"));
        };
        let (first, count) = (layout.start_offset(), layout.shape().elem_count());
        let bytes = match storage {
            CpuStorage::U8(v) => bytes(v, first, count),
            CpuStorage::U32(v) => bytes(v, first, count),
            CpuStorage::I16(v) => bytes(v, first, count),
            CpuStorage::I32(v) => bytes(v, first, count),
            CpuStorage::I64(v) => bytes(v, first, count),
            CpuStorage::BF16(v) => bytes(v, first, count),
            CpuStorage::F16(v) => bytes(v, first, count),
            CpuStorage::F32(v) => bytes(v, first, count),
            CpuStorage::F64(v) => bytes(v, first, count),
            _ => None,
        };
        let bytes =
            bytes.ok_or_else(|| Error::unsupported("the tensor's storage is not as its layout says"))?;
        Data::Borrowed(&bytes).read_at(offset, buf)
    }
}

fn bytes<E: Element>(storage: &[E], first: usize, count: usize) -> Option<std::borrow::Cow<'_, [u8]>> {
    Some(E::to_bytes(storage.get(first..first.checked_add(count)?)?))
}

/// The tensor that the source has for this one, on the same device; `None` where it has none.
fn read(name: &str, tensor: &CandleTensor, source: &dyn TensorSource) -> Result<Option<CandleTensor>> {
    let info = info(name, tensor)?;
    let Some(data) = source.find(&info)? else { return Ok(None) };
    let new = match info.dtype() {
        DType::U8 => filled::<u8>(tensor, &data)?,
        DType::U32 => filled::<u32>(tensor, &data)?,
        DType::I16 => filled::<i16>(tensor, &data)?,
        DType::I32 => filled::<i32>(tensor, &data)?,
        DType::I64 => filled::<i64>(tensor, &data)?,
        DType::Bf16 => filled::<half::bf16>(tensor, &data)?,
        DType::F16 => filled::<half::f16>(tensor, &data)?,
        DType::F32 => filled::<f32>(tensor, &data)?,
        _ => filled::<f64>(tensor, &data)?,
    };
    new.map(Some).map_err(|e| failed(name, "making a tensor", &e))
}

fn filled<E: Element + candle_core::WithDType>(
    like: &CandleTensor,
    data: &Data<'_>,
) -> Result<candle_core::Result<CandleTensor>> {
    let mut elements = vec![E::default(); like.elem_count()];
    E::fill(&mut elements, data)?;
    Ok(CandleTensor::from_vec(elements, like.shape(), like.device()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_nn::{Init, VarBuilder};
    use weighbridge_formats::Archive;

    use super::super::{LoadOptions, OwnedTensor, archive, load};
    use super::*;

    fn tensor(values: &[f32], shape: (usize, usize)) -> CandleTensor {
        CandleTensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_var_map_is_saved_and_loaded_in_place() {
        let model = |bias: f64| {
            let map = VarMap::new();
            let vars = VarBuilder::from_varmap(&map, CandleType::F32, &Device::Cpu);
            let linear = candle_nn::linear(3, 2, vars.pp("layer")).unwrap();
            map.get(2, "norm", Init::Const(bias), CandleType::F32, &Device::Cpu).unwrap();
            (map, linear)
        };
        let ((saved, a), (mut loaded, b)) = (model(0.5), model(0.25));
        let out = archive(&saved).unwrap();
        let names: Vec<&str> = out.tensors().iter().map(TensorInfo::name).collect();
        assert_eq!(names, ["layer.bias", "layer.weight", "norm"]);
        let numbers = |t: &CandleTensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_ne!(numbers(a.weight()), numbers(b.weight()));
        assert!(load(&mut loaded, &out, &LoadOptions::default()).unwrap().is_clean());
        // The layer that was built from the map computes with what was loaded.
        assert_eq!(numbers(a.weight()), numbers(b.weight()));
        assert_eq!(numbers(a.bias().unwrap()), numbers(b.bias().unwrap()));
    }

    #[test]
    fn tensors_that_are_not_contiguous_are_gathered() {
        let whole = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3));
        let parts = HashMap::from([
            ("t".to_owned(), whole.t().unwrap()),
            ("row".to_owned(), whole.narrow(0, 1, 1).unwrap()),
        ]);
        let out = archive(&parts).unwrap();
        let numbers = |at: usize| out.data(at).unwrap().read_all().unwrap();
        assert_eq!(numbers(0), f32::to_bytes(&[4.0, 5.0, 6.0]).to_vec());
        assert_eq!(numbers(1), f32::to_bytes(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]).to_vec());
        let mut two = [0; 8];
        out.data(0).unwrap().read_at(4, &mut two).unwrap();
        assert_eq!(two, *f32::to_bytes(&[5.0, 6.0]));
        assert!(out.data(0).unwrap().read_at(5, &mut two).is_err());
    }

    #[test]
    fn every_dtype_comes_back_and_others_are_refused() {
        let source = tensor(&[0.0, 1.0, 2.0, 3.0], (2, 2));
        for dtype in [
            CandleType::U8,
            CandleType::U32,
            CandleType::I16,
            CandleType::I32,
            CandleType::I64,
            CandleType::BF16,
            CandleType::F16,
            CandleType::F32,
            CandleType::F64,
        ] {
            let saved = HashMap::from([("t".to_owned(), source.to_dtype(dtype).unwrap())]);
            let zeros = CandleTensor::zeros((2, 2), dtype, &Device::Cpu).unwrap();
            let mut loaded = HashMap::from([("t".to_owned(), zeros)]);
            load(&mut loaded, &archive(&saved).unwrap(), &LoadOptions::default()).unwrap();
            let back = loaded["t"].to_dtype(CandleType::F32).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(back, [[0.0, 1.0], [2.0, 3.0]], "{}", dtype.as_str());
        }
        let narrow = source.to_dtype(CandleType::F8E4M3).unwrap();
        assert!(archive(&narrow).is_err());
    }

    #[test]
    fn strict_loading_leaves_a_var_map_alone() {
        let mut map = VarMap::new();
        map.get(2, "a", Init::Const(1.0), CandleType::F32, &Device::Cpu).unwrap();
        let file = HashMap::from([
            ("a".to_owned(), OwnedTensor::from_slice([2], &[5f32, 6.0]).unwrap()),
            ("b".to_owned(), OwnedTensor::from_slice([1], &[7f32]).unwrap()),
        ]);
        assert!(load(&mut map, &archive(&file).unwrap(), &LoadOptions::default()).is_err());
        let a = |map: &VarMap| map.all_vars()[0].to_vec1::<f32>().unwrap();
        assert_eq!(a(&map), [1.0, 1.0]);
        let report = load(&mut map, &archive(&file).unwrap(), &LoadOptions::lenient()).unwrap();
        assert_eq!((a(&map), report.unexpected), (vec![5.0, 6.0], vec!["b".to_owned()]));
    }
}
