//! From a pickle's description to tensors: which objects of torch stand for a tensor, and of which storage.
//!
//! Source: torch 2.13, `torch/_utils.py` (`_rebuild_*`), `torch/_tensor.py`, `torch/serialization.py`
//! (`persistent_load`), and files that torch wrote.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::dtypes::{StorageClass, dtype_named, storage_class};
use crate::account::{Account, block};
use crate::archive::Note;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::tensor::{Shape, contiguous_strides, element_count};
use crate::value::{Object, Value, ValueId, Values};

/// A storage that the pickle names.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub key: Arc<str>,
    /// `None` once two references give it different classes.
    pub class: Option<StorageClass>,
    /// Its bytes by what the references say.
    pub bytes: u64,
}

/// A tensor as the pickle describes it. Sizes, strides and offsets count elements of `dtype`.
#[derive(Clone, Debug)]
pub(super) struct RawTensor {
    pub storage: u32,
    pub offset: u64,
    pub shape: Shape,
    /// `None` if contiguous.
    pub strides: Option<Box<Shape>>,
    pub dtype: DType,
    pub requires_grad: bool,
    pub parameter: bool,
    /// What must be done to the stored elements.
    pub lazy: Lazy,
}

/// What torch puts off until a tensor is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lazy {
    /// Nothing: the elements are stored as they are.
    #[default]
    None,
    /// Some signs are to be flipped: of all numbers (a negative view), of imaginary parts (a conjugate view).
    Flip {
        /// All numbers.
        negative: bool,
        /// Imaginary parts.
        conjugate: bool,
    },
    /// A tensor on the meta device: it has no elements, and `storage` means nothing.
    Meta,
    /// What is described as a tensor and cannot be one: the number of the fault that says why. It has no elements.
    Lost(u32),
}

/// What a pickle of torch comes to: its values, in which tensors stand by their index in `tensors`.
pub(super) struct Rebuilt {
    pub values: Values,
    pub storages: Vec<Storage>,
    pub tensors: Vec<RawTensor>,
    pub notes: Vec<Note>,
    /// Why what is described as tensors cannot be such, where that is no error.
    pub faults: Vec<String>,
    /// What is left of it.
    pub account: Account,
}

/// The arguments of a call, copied out of the arena without an allocation.
type Args = SmallVec<[ValueId; 8]>;

/// A reference to a storage: which, and from which element on (views of storages in old files).
#[derive(Clone, Copy)]
struct StorageAt {
    storage: u32,
    base: u64,
    class: StorageClass,
}

struct Rebuilder<'l> {
    values: Values,
    storages: Vec<Storage>,
    /// Storages by their keys, where these are not what torch writes today: the numbers from 0 on.
    by_key: HashMap<Arc<str>, u32>,
    /// Storages by these numbers.
    by_number: Vec<u32>,
    tensors: Vec<RawTensor>,
    /// Per value, the storage reference that a persistent id is, as an index into `references` plus 1.
    reference_of: Vec<u32>,
    references: Vec<StorageAt>,
    elsewhere: BTreeMap<Box<str>, u64>,
    meta: u64,
    packed: u64,
    limits: &'l Limits,
    /// Where to keep what is wrong with one tensor; an error of the whole file without.
    faults: Option<Vec<String>>,
    account: Account,
}

/// What a storage takes here and in an archive, in bytes, beside its key.
const STORAGE: u64 = 320;
/// The most dimensions of a tensor, as torch has it.
const MAX_DIMS: usize = 64;

/// The module of most rebuild functions.
const UTILS: &str = "torch._utils";

/// Finds every tensor that the values describe. With `keep`, what is wrong with one tensor stands in its place
/// ([`Lazy::Lost`]) and is no error.
pub(super) fn rebuild(values: Values, limits: &Limits, mut account: Account, keep: bool) -> Result<Rebuilt> {
    account.charge_items::<u32>(values.len())?;
    let reference_of = vec![0; values.len()];
    // A tensor's description takes some eleven values, so this many storages can be expected.
    let expected = values.len() / 10;
    let mut r = Rebuilder {
        values,
        storages: Vec::with_capacity(expected),
        by_key: HashMap::new(),
        by_number: Vec::with_capacity(expected),
        tensors: Vec::with_capacity(expected),
        reference_of,
        references: Vec::with_capacity(expected),
        elsewhere: BTreeMap::new(),
        meta: 0,
        packed: 0,
        limits,
        faults: keep.then(Vec::new),
        account,
    };
    for id in r.values.ids() {
        if let Value::Persistent(pid) = *r.values.get(id) {
            match r.persistent(id, pid) {
                // What stands on it says so again, by its name.
                Err(_) if keep => {}
                other => other?,
            }
        }
    }
    // What an object is built from stands before it in a pickle, so one pass in order suffices.
    for id in r.values.ids() {
        if let Err(error) = r.object(id) {
            r.lose(id, error)?;
        }
    }
    r.bare_storages()?;
    let mut notes = Vec::new();
    for (location, count) in &r.elsewhere {
        notes.push(Note::info(format!(
            "{count} storage(s) were saved from {location}; they are read as on the CPU"
        )));
    }
    if r.meta > 0 {
        let what =
            format!("{} tensor(s) are on the meta device: the file holds their shape and no data", r.meta);
        notes.push(Note::warning(what));
    }
    if r.packed > 0 {
        let what = format!(
            "{} tensor(s) hold quantized elements of 4 or 2 bits: they are given as the packed bytes",
            r.packed
        );
        notes.push(Note::warning(what));
    }
    let faults = r.faults.unwrap_or_default();
    let (values, storages, tensors) = (r.values, r.storages, r.tensors);
    Ok(Rebuilt { values, storages, tensors, notes, faults, account: r.account })
}

fn bad(what: impl Into<String>) -> Error {
    Error::malformed(what.into())
}

impl Rebuilder<'_> {
    /// Reads `('storage', class, key, location, numel[, view])` or `('module', class, file, source)`.
    fn persistent(&mut self, id: ValueId, pid: ValueId) -> Result<()> {
        let parts: Args = match self.values.get(pid) {
            Value::Tuple(parts) => Args::from_slice(parts),
            other => {
                return Err(Error::unsafe_content(format!(
                    "a persistent id that torch never writes: {}",
                    kind_of(other)
                )));
            }
        };
        match parts.first().and_then(|&p| self.values.str(p)) {
            Some("module") if parts.len() == 4 => {
                // Old files name a module's class so, beside its source text. The class is what counts.
                if let Some(global) = self.values.global(parts[1]).cloned() {
                    self.account.charge((global.module.len() + global.name.len()) as u64 + 112)?;
                    *self.values.get_mut(id) = Value::Global(Box::new(global));
                    return Ok(());
                }
                Err(bad("a persistent id of a module that names no class"))
            }
            Some("storage") if parts.len() == 5 || parts.len() == 6 => self.storage(id, &parts),
            _ => Err(Error::unsafe_content("a persistent id that torch never writes")
                .with_hint("only ('storage', …) and ('module', …) are known; do not trust this file")),
        }
    }

    fn storage(&mut self, id: ValueId, parts: &[ValueId]) -> Result<()> {
        let class = self.values.global(parts[1]).and_then(|g| storage_class(&g.module, &g.name));
        let Some(class) = class else {
            let name =
                self.values.global(parts[1]).map_or_else(|| "no class".to_owned(), ToString::to_string);
            return Err(Error::unsupported(format!("a storage of an unknown class: {name}")));
        };
        let key = self.key(parts[2])?;
        let numel = self.count(parts[4], "a storage's length")?;
        let bytes = match class {
            StorageClass::Typed(d) => d.bytes(numel),
            StorageClass::Untyped => Some(numel),
            StorageClass::Packed(n) => Some(numel.div_ceil(n)),
        };
        let bytes = bytes.ok_or_else(|| bad(format!("storage {key:?} of {numel} elements overflows")))?;
        // An old file's view of a storage: (key, offset, length), within the storage that is named before.
        let base = match parts.get(5).map(|&v| (v, self.values.get(v))) {
            None | Some((_, Value::None)) => 0,
            Some((view, _)) => {
                let view = self.values.sequence(view).map(<[ValueId]>::to_vec).unwrap_or_default();
                let &[_, offset, _] = &view[..] else { return Err(bad("a storage's view is no triple")) };
                self.count(offset, "a storage view's offset")?
            }
        };
        let location = match self.values.get(parts[3]) {
            Value::Str(s) if &**s != "cpu" => Some(s.clone()),
            _ => None,
        };
        let storage = match self.known(&key) {
            Some(known) => {
                let storage = &mut self.storages[known as usize];
                storage.bytes = storage.bytes.max(bytes);
                if storage.class != Some(class) {
                    storage.class = None;
                }
                known
            }
            None => {
                if self.storages.len() as u64 >= self.limits.entries {
                    return Err(Error::limit(format!("more than {} storages", self.limits.entries)));
                }
                self.account.charge(STORAGE + block(key.len() + 16))?;
                if let Some(location) = location {
                    self.account.charge(4 * block(location.len()))?;
                    *self.elsewhere.entry(location).or_default() += 1;
                }
                let index = self.storages.len() as u32;
                self.remember(&key, index);
                self.storages.push(Storage { key, class: Some(class), bytes });
                index
            }
        };
        self.account.charge_items::<StorageAt>(1)?;
        self.references.push(StorageAt { storage, base, class });
        self.reference_of[id.index()] = self.references.len() as u32;
        Ok(())
    }

    /// The storage of a key that has been met.
    fn known(&self, key: &str) -> Option<u32> {
        match small_number(key) {
            Some(n) if n < self.by_number.len() => Some(self.by_number[n]),
            _ => self.by_key.get(key).copied(),
        }
    }

    fn remember(&mut self, key: &Arc<str>, index: u32) {
        // torch numbers storages as it meets them, so most keys are the next number.
        if small_number(key) == Some(self.by_number.len()) {
            self.by_number.push(index);
        } else {
            self.by_key.insert(key.clone(), index);
        }
    }

    fn object(&mut self, id: ValueId) -> Result<()> {
        let Value::Object(object) = self.values.get(id) else { return Ok(()) };
        let (class, args) = (object.class, object.args);
        let Some(global) = self.values.global(class) else { return Ok(()) };
        let Value::Tuple(args) = self.values.get(args) else { return Ok(()) };
        match (&*global.module, &*global.name) {
            (UTILS, "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                let v3 = global.name.ends_with("v3");
                let args = Args::from_slice(args);
                let mut raw = self.tensor(&args, v3)?;
                raw.requires_grad = args.get(4).is_some_and(|&a| *self.values.get(a) == Value::Bool(true));
                self.put(id, raw)?;
            }
            (UTILS, "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch.nn.parameter", "Parameter") => {
                let args = Args::from_slice(args);
                self.parameter(id, &args)?;
            }
            (UTILS, "_rebuild_device_tensor_from_cpu_tensor") => {
                if let Some(&data) = args.first()
                    && let Value::Tensor(t) = *self.values.get(data)
                {
                    *self.values.get_mut(id) = Value::Tensor(t);
                }
            }
            (UTILS, "_rebuild_qtensor") => {
                let args = Args::from_slice(args);
                self.quantized(id, &args)?;
            }
            (UTILS, "_rebuild_meta_tensor_no_storage") => {
                let args = Args::from_slice(args);
                self.meta_tensor(id, &args)?;
            }
            ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => {
                let args = Args::from_slice(args);
                self.subclass(id, &args)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts a tensor without elements in the place of one that is none, if faults are kept.
    fn lose(&mut self, id: ValueId, error: Error) -> Result<()> {
        let Some(faults) = &mut self.faults else { return Err(error) };
        let number = faults.len() as u32;
        faults.push(error.message().to_owned());
        let raw = RawTensor {
            storage: 0,
            offset: 0,
            shape: Shape::from_slice(&[0]),
            strides: None,
            dtype: DType::U8,
            requires_grad: false,
            parameter: false,
            lazy: Lazy::Lost(number),
        };
        self.put(id, raw)
    }

    fn put(&mut self, id: ValueId, raw: RawTensor) -> Result<()> {
        self.add(raw)?;
        *self.values.get_mut(id) = Value::Tensor((self.tensors.len() - 1) as u32);
        Ok(())
    }

    fn add(&mut self, raw: RawTensor) -> Result<()> {
        self.account.charge_items::<RawTensor>(1)?;
        let outside = |shape: &Shape| if shape.spilled() { block(8 * shape.len()) } else { 0 };
        let strides = raw.strides.as_ref().map_or(0, |s| block(size_of::<Shape>()) + outside(s));
        self.account.charge(outside(&raw.shape) + strides)?;
        self.tensors.push(raw);
        Ok(())
    }

    /// `(dtype, size, stride, requires_grad)`.
    fn meta_tensor(&mut self, id: ValueId, args: &[ValueId]) -> Result<()> {
        let &[dtype, size, _, requires_grad] = args else {
            return Err(bad("a meta tensor with too few arguments"));
        };
        let (dtype, per) = self.named_dtype(Some(dtype))?;
        let mut shape = self.dims(size, "size")?;
        if let Some(last) = shape.last_mut() {
            *last = last.checked_mul(per).ok_or_else(|| bad("a tensor's size overflows"))?;
        }
        let requires_grad = *self.values.get(requires_grad) == Value::Bool(true);
        self.meta += 1;
        let strides = None;
        self.put(
            id,
            RawTensor {
                storage: 0,
                offset: 0,
                shape,
                strides,
                dtype,
                requires_grad,
                parameter: false,
                lazy: Lazy::Meta,
            },
        )
    }

    fn named_dtype(&self, dtype: Option<ValueId>) -> Result<(DType, u64)> {
        let name = dtype.and_then(|d| self.values.global(d)).filter(|g| &*g.module == "torch");
        let Some(name) = name else { return Err(bad("a tensor whose dtype is no name of torch")) };
        dtype_named(&name.name).ok_or_else(|| Error::unsupported(format!("dtype {name}")))
    }

    /// What the metadata of a tensor says is put off, `{"conj": True, "neg": True}`.
    fn lazy(&self, metadata: Option<ValueId>) -> Lazy {
        let set = |key| {
            metadata
                .and_then(|m| self.values.entry(m, key))
                .is_some_and(|v| *self.values.get(v) == Value::Bool(true))
        };
        match (set("neg"), set("conj")) {
            (false, false) => Lazy::None,
            (negative, conjugate) => Lazy::Flip { negative, conjugate },
        }
    }

    /// `(data, requires_grad, hooks[, state])`: the tensor itself, marked. With a state of its own it stays an
    /// object around the tensor.
    fn parameter(&mut self, id: ValueId, args: &[ValueId]) -> Result<()> {
        let Some(Value::Tensor(t)) = args.first().map(|&a| self.values.get(a)) else { return Ok(()) };
        let mut raw = self.tensors[*t as usize].clone();
        raw.parameter = true;
        raw.requires_grad = args.get(1).is_none_or(|&a| *self.values.get(a) != Value::Bool(false));
        let stateful = args.get(3).is_some_and(|&s| match self.values.get(s) {
            Value::None => false,
            Value::Dict(d) => !d.entries.is_empty(),
            _ => true,
        });
        if stateful {
            self.tensors[*t as usize] = raw;
            Ok(())
        } else {
            self.put(id, raw)
        }
    }

    /// `(storage, offset, size, stride, params, requires_grad, hooks)` becomes an object whose first argument is
    /// the tensor of integers, and whose second are the parameters.
    fn quantized(&mut self, id: ValueId, args: &[ValueId]) -> Result<()> {
        let raw = self.tensor(args, false)?;
        let Some(&params) = args.get(4) else { return Err(bad("a quantized tensor without parameters")) };
        let packed =
            matches!(self.reference(args[0]), Some(StorageAt { class: StorageClass::Packed(_), .. }));
        self.packed += u64::from(packed);
        let size = args[2];
        self.add(raw)?;
        let tensor = self.push(Value::Tensor((self.tensors.len() - 1) as u32))?;
        let args = self.push(Value::Tuple(vec![tensor, params, size]))?;
        if let Value::Object(object) = self.values.get_mut(id) {
            object.args = args;
        }
        Ok(())
    }

    /// `(function, type, args, state)`: with a function that rebuilds a plain tensor, the arguments become
    /// `(tensor, type, state)`, and the tensor alone if it has no state and torch's own type.
    fn subclass(&mut self, id: ValueId, args: &[ValueId]) -> Result<()> {
        let &[function, class, inner, state] = args else { return Ok(()) };
        let Some(function) = self.values.global(function) else { return Ok(()) };
        let v3 = match (&*function.module, &*function.name) {
            (UTILS, "_rebuild_tensor" | "_rebuild_tensor_v2") => false,
            (UTILS, "_rebuild_tensor_v3") => true,
            (UTILS, "_rebuild_parameter") => {
                let Some(&data) = self.values.sequence(inner).and_then(<[_]>::first) else { return Ok(()) };
                if matches!(self.values.get(data), Value::Tensor(_)) {
                    let args = self.push(Value::Tuple(vec![data, class, state]))?;
                    if let Value::Object(object) = self.values.get_mut(id) {
                        object.args = args;
                    }
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(inner) = self.values.sequence(inner).map(<[_]>::to_vec) else { return Ok(()) };
        let mut raw = self.tensor(&inner, v3)?;
        raw.requires_grad = inner.get(4).is_some_and(|&a| *self.values.get(a) == Value::Bool(true));
        let own = self
            .values
            .global(class)
            .is_some_and(|g| g.is("torch", "Tensor") || g.is("torch._tensor", "Tensor"));
        let parameter = self.values.global(class).is_some_and(|g| g.is("torch.nn.parameter", "Parameter"));
        raw.parameter = parameter;
        let stateless = match self.values.get(state) {
            Value::None => true,
            Value::Dict(d) => d.entries.is_empty(),
            Value::Tuple(t) => t.is_empty(),
            _ => false,
        };
        if stateless && (own || parameter) {
            return self.put(id, raw);
        }
        self.add(raw)?;
        let tensor = self.push(Value::Tensor((self.tensors.len() - 1) as u32))?;
        let args = self.push(Value::Tuple(vec![tensor, class, state]))?;
        if let Value::Object(object) = self.values.get_mut(id) {
            object.args = args;
        }
        Ok(())
    }

    /// A storage that stands for itself, outside of any tensor, is given as a tensor of one dimension.
    fn bare_storages(&mut self) -> Result<()> {
        let Some(root) = self.values.root() else { return Ok(()) };
        if self.references.is_empty() || self.tensors.len() >= self.references.len() {
            return Ok(()); // Each reference belongs to its tensor: nothing can be left over.
        }
        let reachable = self.values.reachable(root);
        for id in self.values.ids() {
            let Some(&StorageAt { storage, base, class }) =
                self.reference(id).filter(|_| reachable.get(id.index()) == Some(&true)).as_ref()
            else {
                continue;
            };
            let dtype = match class {
                StorageClass::Typed(d) => d,
                _ => DType::U8,
            };
            let Some(size) = dtype.size() else { continue };
            let elements = self.storages[storage as usize].bytes / size;
            let shape = Shape::from_slice(&[elements.saturating_sub(base)]);
            let raw = RawTensor {
                storage,
                offset: base,
                shape,
                strides: None,
                dtype,
                requires_grad: false,
                parameter: false,
                lazy: Lazy::None,
            };
            self.put(id, raw)?;
        }
        Ok(())
    }

    /// `(storage, offset, size, stride, requires_grad, hooks[, dtype])`.
    fn tensor(&self, args: &[ValueId], v3: bool) -> Result<RawTensor> {
        let &[storage, offset, size, stride, ..] = args else {
            return Err(bad("a tensor with too few arguments"));
        };
        let Some(at) = self.reference(storage) else {
            return Err(bad(format!("a tensor whose storage is {}", kind_of(self.values.get(storage)))));
        };
        let mut offset = self.count(offset, "a tensor's offset")?;
        let (mut shape, mut strides) = (self.dims(size, "size")?, self.dims(stride, "stride")?);
        if shape.len() != strides.len() {
            return Err(bad(format!(
                "a tensor of {} dimensions with {} strides",
                shape.len(),
                strides.len()
            )));
        }
        let (dtype, per) = match (v3, at.class) {
            (true, _) => self.named_dtype(args.get(6).copied())?,
            (false, StorageClass::Typed(d)) => (d, 1),
            (false, StorageClass::Untyped) => (DType::U8, 1),
            (false, StorageClass::Packed(_)) => {
                // Sizes count elements, and storages bytes: what is stored is given as it is.
                let bytes = self.storages[at.storage as usize].bytes;
                (shape, strides, offset) = (Shape::from_slice(&[bytes]), Shape::from_slice(&[1]), 0);
                (DType::U8, 1)
            }
        };
        offset = offset.checked_add(at.base).ok_or_else(|| bad("a tensor's offset overflows"))?;
        if per > 1 {
            // torch counts pairs; elements are counted here.
            if strides.last().is_some_and(|&s| s != 1) || shape.is_empty() {
                return Err(Error::unsupported(format!(
                    "a strided tensor of {dtype}, whose elements share bytes"
                )));
            }
            let overflow = || bad("a tensor's size overflows");
            let last = strides.len() - 1;
            for stride in &mut strides[..last] {
                *stride = stride.checked_mul(per).ok_or_else(overflow)?;
            }
            shape[last] = shape[last].checked_mul(per).ok_or_else(overflow)?;
            offset = offset.checked_mul(per).ok_or_else(overflow)?;
        }
        let strides = self.check(at.storage, dtype, offset, &shape, strides)?;
        let lazy = self.lazy(args.get(if v3 { 7 } else { 6 }).copied());
        let storage = at.storage;
        Ok(RawTensor { storage, offset, shape, strides, dtype, requires_grad: false, parameter: false, lazy })
    }

    /// Checks that the last element lies in the storage; returns the strides if the tensor is not contiguous.
    fn check(
        &self,
        storage: u32,
        dtype: DType,
        offset: u64,
        shape: &[u64],
        strides: Shape,
    ) -> Result<Option<Box<Shape>>> {
        let storage = &self.storages[storage as usize];
        let elements = element_count(shape).ok_or_else(|| bad(format!("shape {shape:?} overflows")))?;
        if elements == 0 {
            return Ok(None);
        }
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |at, (&d, &s)| at.checked_add((d - 1).checked_mul(s)?));
        let end = last.and_then(|l| l.checked_add(1)?.checked_mul(dtype.bits())).map(|bits| bits.div_ceil(8));
        if end.is_none_or(|e| e > storage.bytes) {
            let what = format!(
                "a tensor of {dtype} with shape {shape:?}, strides {:?} and offset {offset} reaches past its storage {:?} of {} bytes",
                &strides[..],
                storage.key,
                storage.bytes
            );
            return Err(bad(what));
        }
        let row_major = contiguous_strides(shape);
        let contiguous =
            shape.iter().zip(strides.iter().zip(&row_major)).all(|(&d, (a, b))| d == 1 || a == b);
        Ok(if contiguous { None } else { Some(Box::new(strides)) })
    }

    fn reference(&self, id: ValueId) -> Option<StorageAt> {
        let index = *self.reference_of.get(id.index())?;
        self.references.get((index as usize).checked_sub(1)?).copied()
    }

    fn push(&mut self, value: Value) -> Result<ValueId> {
        if self.values.len() as u64 >= self.limits.values {
            return Err(Error::limit(format!("more than {} values", self.limits.values)));
        }
        let parts = if let Value::Tuple(parts) = &value { block(parts.len() * 4) } else { 0 };
        self.account.charge(size_of::<Value>() as u64 + 4 + parts)?;
        self.reference_of.push(0);
        self.values.push(value)
    }

    fn key(&self, id: ValueId) -> Result<Arc<str>> {
        match self.values.get(id) {
            Value::Str(s) => Ok(Arc::from(&**s)),
            Value::Int(i) => Ok(i.to_string().into()),
            other => Err(bad(format!("a storage's key is {}", kind_of(other)))),
        }
    }

    fn count(&self, id: ValueId, what: &str) -> Result<u64> {
        match self.values.get(id) {
            Value::Int(i) => u64::try_from(*i).map_err(|_| bad(format!("{what} is negative: {i}"))),
            other => Err(bad(format!("{what} is {}", kind_of(other)))),
        }
    }

    fn dims(&self, id: ValueId, what: &str) -> Result<Shape> {
        let parts = match self.values.get(id) {
            Value::Tuple(parts) | Value::List(parts) => &parts[..],
            Value::Object(o) if self.is_size(o) => {
                let inner = self.values.sequence(o.args).and_then(|a| a.first()).copied();
                let Some(parts) = inner.and_then(|i| self.values.sequence(i)) else {
                    return Err(bad("a torch.Size of no tuple"));
                };
                parts
            }
            other => return Err(bad(format!("a tensor's {what} is {}", kind_of(other)))),
        };
        if parts.len() > MAX_DIMS {
            return Err(bad(format!("a tensor's {what} has more than {MAX_DIMS} dimensions")));
        }
        parts.iter().map(|&p| self.count(p, what)).collect()
    }

    fn is_size(&self, object: &Object) -> bool {
        self.values.global(object.class).is_some_and(|g| g.is("torch", "Size"))
    }
}

/// The number that a key is, if it is written as torch writes numbers.
fn small_number(key: &str) -> Option<usize> {
    let plain =
        key.len() <= 9 && key.bytes().all(|b| b.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
    if plain { key.parse().ok() } else { None }
}

/// What a value is, for an error.
fn kind_of(value: &Value) -> String {
    match value {
        Value::None => "None".into(),
        Value::Bool(_) => "a bool".into(),
        Value::Int(i) => format!("the integer {i}"),
        Value::BigInt(_) => "an integer of more than 64 bits".into(),
        Value::Float(f) => format!("the float {f}"),
        Value::Str(s) => format!("the string {:?}", s.chars().take(40).collect::<String>()),
        Value::Tensor(_) => "a tensor".into(),
        Value::Global(g) => format!("the name {g}"),
        Value::Object(_) => "an object".into(),
        Value::List(_) => "a list".into(),
        Value::Tuple(_) => "a tuple".into(),
        Value::Dict(_) => "a dict".into(),
        _ => "of another type".into(),
    }
}
