//! The pickle that torch reads: tensors as calls of its rebuild functions on storages by persistent ids.

use std::borrow::Cow;
use std::collections::HashMap;

use super::dtypes::class_of;
use crate::archive::Archive;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::pickle::{self, EncodeOptions, Encoder, TensorEncoder};
use crate::source::ReadAt;
use crate::tensor::{Data, Shape, TensorInfo, contiguous_strides};
use crate::value::{Dict, DictKind, Global, Value, ValueId, Values};

/// Which storages go into the file, in the order in which the pickle first names them.
pub(super) struct StorageTable<'a> {
    archive: &'a dyn Archive,
    /// Per storage of the archive, the dtype that all tensors in it agree on; `None` where they do not.
    common: Vec<Option<DType>>,
    by_storage: HashMap<u32, u32>,
    by_tensor: HashMap<u32, u32>,
    contents: Vec<Data<'a>>,
}

/// A tensor's storage in the file to be.
#[derive(Clone, Copy)]
struct Place {
    key: u32,
    bytes: u64,
    /// Whether the storage has the tensor's dtype, and so can be written with its class.
    typed: bool,
}

impl<'a> StorageTable<'a> {
    pub(super) fn new(archive: &'a dyn Archive) -> Result<Self> {
        let count = archive.storages().len();
        let mut seen: Vec<Option<Option<DType>>> = vec![None; count];
        for info in archive.tensors() {
            if let Some(slot) = info.view().and_then(|v| seen.get_mut(v.storage as usize)) {
                *slot = match *slot {
                    None => Some(Some(info.dtype())),
                    Some(d) if d == Some(info.dtype()) => Some(d),
                    Some(_) => Some(None),
                };
            }
        }
        let common = seen.into_iter().map(Option::flatten).collect();
        Ok(Self {
            archive,
            common,
            by_storage: HashMap::new(),
            by_tensor: HashMap::new(),
            contents: Vec::new(),
        })
    }

    /// The contents in the order of their keys, `0` first.
    pub(super) fn into_contents(self) -> Vec<Data<'a>> {
        self.contents
    }

    fn place(&mut self, tensor: u32, info: &TensorInfo) -> Result<Place> {
        let next = self.contents.len() as u32;
        let size = info.dtype().size();
        let fits = |bytes: u64| size.is_some_and(|s| bytes.is_multiple_of(s));
        let Some(view) = info.view() else {
            let key = *self.by_tensor.entry(tensor).or_insert(next);
            if key == next {
                self.contents.push(self.archive.data(tensor as usize)?);
            }
            return Ok(Place { key, bytes: info.bytes(), typed: size.is_some() });
        };
        let key = *self.by_storage.entry(view.storage).or_insert(next);
        if key == next {
            self.contents.push(self.archive.storage_data(view.storage as usize)?);
        }
        let bytes = self.contents[key as usize].len();
        let common = self.common.get(view.storage as usize).copied().flatten();
        Ok(Place { key, bytes, typed: common == Some(info.dtype()) && fits(bytes) })
    }
}

/// Writes tensors into a pickle.
pub(super) struct Emit<'t, 'a> {
    archive: &'a dyn Archive,
    table: &'t mut StorageTable<'a>,
}

impl<'t, 'a> Emit<'t, 'a> {
    pub(super) fn new(archive: &'a dyn Archive, table: &'t mut StorageTable<'a>) -> Self {
        Self { archive, table }
    }

    fn info(&self, tensor: u32) -> Result<&'a TensorInfo> {
        self.archive.tensors().get(tensor as usize).ok_or_else(|| {
            Error::invalid_options(format!(
                "the values name tensor {tensor}, and there are {}",
                self.archive.tensors().len()
            ))
        })
    }

    /// Pushes the storage of a tensor.
    fn storage(&self, class: (&str, &str), key: u32, numel: u64, out: &mut Encoder) -> Result<()> {
        out.mark();
        out.string("storage")?;
        out.global(class.0, class.1)?;
        out.string(&key.to_string())?;
        out.string("cpu")?;
        out.int(signed(numel)?);
        out.tuple();
        out.binpersid();
        Ok(())
    }

    /// Pushes a tensor, described by `info`.
    pub(super) fn tensor(&mut self, tensor: u32, info: &TensorInfo, out: &mut Encoder) -> Result<()> {
        let place = self.table.place(tensor, info)?;
        let geometry = Geometry::of(info)?;
        let class = class_of(info.dtype()).filter(|_| place.typed);
        if let Some(class) = class {
            let width = info.dtype().size().unwrap_or(1);
            out.global("torch._utils", "_rebuild_tensor_v2")?;
            out.mark();
            self.storage(("torch", class), place.key, place.bytes / width, out)?;
        } else {
            out.global("torch._utils", "_rebuild_tensor_v3")?;
            out.mark();
            self.storage(("torch.storage", "UntypedStorage"), place.key, place.bytes, out)?;
        }
        out.int(signed(geometry.offset)?);
        dims(&geometry.shape, out)?;
        dims(&geometry.strides, out)?;
        // A parameter says itself whether it wants a gradient; the tensor in it does not.
        out.bool(info.requires_grad() && !info.is_parameter());
        out.empty_ordered_dict()?;
        if class.is_none() {
            out.global("torch", info.dtype().torch_name())?;
        }
        out.tuple();
        out.reduce();
        Ok(())
    }
}

impl TensorEncoder for Emit<'_, '_> {
    fn encode(&mut self, tensor: u32, out: &mut Encoder) -> Result<()> {
        let info = self.info(tensor)?;
        if info.is_parameter() {
            out.global("torch._utils", "_rebuild_parameter")?;
            out.mark();
        }
        self.tensor(tensor, info, out).map_err(|e| e.with_tensor(info.name()))?;
        if info.is_parameter() {
            out.bool(info.requires_grad());
            out.empty_ordered_dict()?;
            out.tuple();
            out.reduce();
        }
        Ok(())
    }
}

/// A tensor's sizes as torch counts them: in elements, but in pairs for its 4-bit floats.
struct Geometry<'i> {
    shape: Cow<'i, [u64]>,
    strides: Shape,
    offset: u64,
}

impl<'i> Geometry<'i> {
    fn of(info: &'i TensorInfo) -> Result<Self> {
        let strides = match info.view().and_then(|v| v.strides.as_ref()) {
            Some(strides) => strides.clone(),
            None => contiguous_strides(info.shape()),
        };
        let offset = info.view().map_or(0, |v| v.offset);
        let mut geometry = Self { shape: Cow::Borrowed(info.shape()), strides, offset };
        if info.dtype() == DType::F4 {
            let odd = || Error::unsupported("torch holds 4-bit floats in pairs, and the last size is odd");
            let shape = geometry.shape.to_mut();
            let last = shape.last_mut().filter(|d| d.is_multiple_of(2)).ok_or_else(odd)?;
            *last /= 2;
            if !info.is_contiguous() || !offset.is_multiple_of(2) {
                return Err(odd());
            }
            geometry.strides = contiguous_strides(&geometry.shape);
            geometry.offset /= 2;
        }
        Ok(geometry)
    }
}

fn signed(n: u64) -> Result<i64> {
    i64::try_from(n).map_err(|_| Error::unsupported(format!("{n} does not fit torch's 64-bit integers")))
}

fn dims(dims: &[u64], out: &mut Encoder) -> Result<()> {
    match dims {
        [] => out.empty_tuple(),
        [a] => {
            out.int(signed(*a)?);
            out.tuple1();
        }
        [a, b] => {
            out.int(signed(*a)?);
            out.int(signed(*b)?);
            out.tuple2();
        }
        _ => {
            out.mark();
            for &d in dims {
                out.int(signed(d)?);
            }
            out.tuple();
        }
    }
    Ok(())
}

/// Names that `torch.load(weights_only=True)` takes, or that NumPy's arrays and scalars are made of.
fn is_allowed(global: &Global) -> bool {
    let name = &*global.name;
    match &*global.module {
        "torch" => {
            matches!(name, "Size" | "Tensor" | "device" | "qscheme")
                || name.ends_with("Storage")
                || name.starts_with("per_")
                || super::dtypes::dtype_named(name).is_some()
        }
        "torch.storage" => matches!(name, "UntypedStorage" | "TypedStorage"),
        "torch._utils" => matches!(
            name,
            "_rebuild_meta_tensor_no_storage"
                | "_rebuild_nested_tensor"
                | "_rebuild_parameter"
                | "_rebuild_parameter_with_state"
                | "_rebuild_qtensor"
                | "_rebuild_sparse_tensor"
                | "_rebuild_tensor_v2"
                | "_rebuild_tensor_v3"
                | "_rebuild_wrapper_subclass"
        ),
        "torch._tensor" => name == "_rebuild_from_type_v2",
        "torch.nn.parameter" => name == "Parameter",
        "torch.serialization" => name == "_get_layout",
        "_codecs" => name == "encode",
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "_reconstruct" | "scalar"),
        "numpy" => matches!(name, "ndarray" | "dtype"),
        _ => pickle::is_harmless(global),
    }
}

/// Encodes a value tree for torch.
pub(super) fn emit_values(values: &Values, protocol: u8, emit: &mut Emit<'_, '_>) -> Result<Vec<u8>> {
    let root = values.root().ok_or_else(|| Error::invalid_options("there are no values to write"))?;
    refuse_persistent(values, root)?;
    let restored = restore(values, emit)?;
    let values = restored.as_ref().unwrap_or(values);
    let options = EncodeOptions { protocol, allow_global: &is_allowed, allow_persistent: true };
    const HINT: &str = "--values drop writes the tensors alone, under their dotted names; safetensors keeps such \
                        values as inert data";
    pickle::encode(values, root, &options, emit).map_err(|e| match e.kind() {
        ErrorKind::UnsafeContent => e.with_better_hint(HINT),
        ErrorKind::Unsupported => e.with_hint(HINT),
        _ => e,
    })
}

/// Persistent ids are for the storages that this writer names; one that came from elsewhere would name another's.
fn refuse_persistent(values: &Values, root: ValueId) -> Result<()> {
    if !values.iter().any(|(_, v)| matches!(v, Value::Persistent(_))) {
        return Ok(());
    }
    let reachable = values.reachable(root);
    match values.iter().find(|(id, v)| reachable[id.index()] && matches!(v, Value::Persistent(_))) {
        Some(_) => Err(Error::unsafe_content("the values hold a persistent id that stands for no tensor")),
        None => Ok(()),
    }
}

/// The reader puts the tensor itself into the objects of quantized tensors and tensor subclasses. Here they get
/// back the arguments that torch's functions take. `None` if there are no such objects.
fn restore(values: &Values, emit: &mut Emit<'_, '_>) -> Result<Option<Values>> {
    let wants = |v: &Values, id: ValueId| -> Option<(bool, ValueId, ValueId, ValueId)> {
        let Value::Object(object) = v.get(id) else { return None };
        let class = v.global(object.class)?;
        let quantized = class.is("torch._utils", "_rebuild_qtensor");
        let &[tensor, a, b] = v.sequence(object.args)? else { return None };
        let known = quantized || class.is("torch._tensor", "_rebuild_from_type_v2");
        (known && matches!(v.get(tensor), Value::Tensor(_))).then_some((quantized, tensor, a, b))
    };
    let ids: Vec<ValueId> = values.ids().filter(|&id| wants(values, id).is_some()).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let mut out = values.clone();
    for id in ids {
        let Some((quantized, tensor, a, b)) = wants(&out, id) else { continue };
        let Value::Tensor(tensor) = *out.get(tensor) else { continue };
        let info = emit.info(tensor)?;
        let built = if quantized {
            quantized_args(&mut out, emit, tensor, info, a, b)
        } else {
            subclass_args(&mut out, emit, tensor, info, a, b)
        };
        let args = built.map_err(|e| e.with_tensor(info.name()))?;
        if let Value::Object(object) = out.get_mut(id) {
            object.args = args;
        }
    }
    Ok(Some(out))
}

/// `(storage, offset, size, stride, params, requires_grad, hooks)`.
fn quantized_args(
    values: &mut Values,
    emit: &mut Emit<'_, '_>,
    tensor: u32,
    info: &TensorInfo,
    params: ValueId,
    size: ValueId,
) -> Result<ValueId> {
    let same = values.sequence(size).is_some_and(|s| {
        s.len() == info.shape().len()
            && s.iter().zip(info.shape()).all(|(&s, &d)| values.int(s) == i64::try_from(d).ok())
    });
    let class = match info.dtype() {
        DType::I8 => "QInt8Storage",
        DType::U8 => "QUInt8Storage",
        DType::I32 => "QInt32Storage",
        _ => "",
    };
    if !same || class.is_empty() {
        return Err(Error::unsupported(format!(
            "a quantized tensor of {}, which torch's writer packs",
            info.dtype()
        )));
    }
    let mut args = storage_args(values, emit, tensor, info, class)?;
    args.push(params);
    args.push(values.push(Value::Bool(info.requires_grad()))?);
    args.push(empty_hooks(values)?);
    values.push(Value::Tuple(args))
}

/// `(_rebuild_tensor_v2, type, (storage, offset, size, stride, requires_grad, hooks), state)`.
fn subclass_args(
    values: &mut Values,
    emit: &mut Emit<'_, '_>,
    tensor: u32,
    info: &TensorInfo,
    class: ValueId,
    state: ValueId,
) -> Result<ValueId> {
    let Some(storage) = class_of(info.dtype()) else {
        return Err(Error::unsupported(format!(
            "a subclass of torch.Tensor with elements of {}",
            info.dtype()
        )));
    };
    let mut inner = storage_args(values, emit, tensor, info, storage)?;
    inner.push(values.push(Value::Bool(info.requires_grad()))?);
    inner.push(empty_hooks(values)?);
    let inner = values.push(Value::Tuple(inner))?;
    let function = values.push(Value::Global(Box::new(Global::new("torch._utils", "_rebuild_tensor_v2"))))?;
    values.push(Value::Tuple(vec![function, class, inner, state]))
}

/// Storage, offset, size and strides of a tensor, as values.
fn storage_args(
    values: &mut Values,
    emit: &mut Emit<'_, '_>,
    tensor: u32,
    info: &TensorInfo,
    class: &'static str,
) -> Result<Vec<ValueId>> {
    let place = emit.table.place(tensor, info)?;
    let geometry = Geometry::of(info)?;
    let numel = place.bytes / info.dtype().size().unwrap_or(1);
    let pid = [
        Value::Str("storage".into()),
        Value::Global(Box::new(Global::new("torch", class))),
        Value::Str(place.key.to_string().into()),
        Value::Str("cpu".into()),
        Value::Int(signed(numel)?),
    ];
    let pid = pid.into_iter().map(|v| values.push(v)).collect::<Result<_>>()?;
    let pid = values.push(Value::Tuple(pid))?;
    let storage = values.push(Value::Persistent(pid))?;
    let offset = values.push(Value::Int(signed(geometry.offset)?))?;
    let mut tuple = |dims: &[u64]| -> Result<ValueId> {
        let parts = dims.iter().map(|&d| values.push(Value::Int(signed(d)?))).collect::<Result<_>>()?;
        values.push(Value::Tuple(parts))
    };
    let (size, strides) = (tuple(&geometry.shape)?, tuple(&geometry.strides)?);
    Ok(vec![storage, offset, size, strides])
}

fn empty_hooks(values: &mut Values) -> Result<ValueId> {
    values.push(Value::Dict(Box::new(Dict { kind: DictKind::Ordered, ..Dict::default() })))
}
