//! Archives for tests: of any dtype and shape, with shared storages, with random values around them.

use std::collections::HashSet;

use weighbridge_formats::value::{Dict, DictKind};
use weighbridge_formats::{
    Archive, DType, Data, Error, MemoryArchive, Result, Shape, StorageInfo, Tensor, TensorInfo, Value,
    ValueId, Values, View, contiguous_strides,
};

use crate::random::Random;

/// Bytes that are valid elements of a dtype: any bits, but 0 or 1 for bools.
pub fn elements(dtype: DType, bytes: u64, random: &mut Random) -> Vec<u8> {
    let mut out = random.bytes(bytes as usize);
    if dtype == DType::Bool {
        out.iter_mut().for_each(|b| *b &= 1);
    }
    out
}

/// A tensor of random elements.
///
/// # Panics
/// If the shape's elements do not fill whole bytes.
pub fn tensor(name: &str, dtype: DType, shape: &[u64], random: &mut Random) -> Tensor<'static> {
    let info = TensorInfo::new(name, dtype, Shape::from_slice(shape)).expect("a shape of whole bytes");
    let data = Data::Owned(elements(dtype, info.bytes(), random).into());
    Tensor { info, data }
}

/// An archive of these tensors.
///
/// # Panics
/// If two have the same name.
pub fn of(tensors: impl IntoIterator<Item = Tensor<'static>>) -> MemoryArchive<'static> {
    MemoryArchive::new(tensors).expect("names that differ")
}

/// One F32 tensor of each name.
pub fn named(names: &[String]) -> MemoryArchive<'static> {
    let mut random = Random::new(names.len() as u64);
    of(names.iter().map(|n| tensor(n, DType::F32, &[2], &mut random)))
}

/// An archive whose tensors are views of storages. It gathers a view's elements one by one, which is slow and
/// shares no code with what it tests.
#[derive(Default)]
pub struct Shared {
    storages: Vec<Vec<u8>>,
    storage_infos: Vec<StorageInfo>,
    tensors: Vec<TensorInfo>,
    values: Option<Values>,
}

impl Shared {
    /// An archive without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a storage; returns its number.
    pub fn storage(&mut self, dtype: Option<DType>, bytes: Vec<u8>) -> u32 {
        self.storage_infos.push(StorageInfo { dtype, bytes: bytes.len() as u64 });
        self.storages.push(bytes);
        self.storages.len() as u32 - 1
    }

    /// Adds a view of a storage: shape, strides and offset count elements.
    ///
    /// # Panics
    /// If the elements do not fill whole bytes.
    pub fn view(
        &mut self,
        name: &str,
        dtype: DType,
        storage: u32,
        shape: &[u64],
        strides: &[u64],
        offset: u64,
    ) {
        let row_major = contiguous_strides(shape);
        let empty = shape.contains(&0);
        let same = shape.iter().zip(strides.iter().zip(&row_major)).all(|(&d, (a, b))| d == 1 || a == b);
        let strides = (!empty && !same).then(|| Shape::from_slice(strides));
        let info = TensorInfo::new(name, dtype, Shape::from_slice(shape)).expect("whole bytes");
        self.tensors.push(info.with_view(View { storage, offset, strides }));
    }

    /// Adds values, whose tensors are numbered in the order of adding.
    pub fn with_values(mut self, values: Values) -> Self {
        self.values = Some(values);
        self
    }

    fn gather(&self, info: &TensorInfo, view: &View) -> Option<Vec<u8>> {
        let storage = self.storages.get(view.storage as usize)?;
        let size = info.dtype().size()?;
        let strides = view.strides.clone().unwrap_or_else(|| contiguous_strides(info.shape()));
        let mut out = Vec::with_capacity(info.bytes() as usize);
        for element in 0..info.elements() {
            let (mut rest, mut at) = (element, view.offset);
            for (&dim, &stride) in info.shape().iter().zip(&strides).rev() {
                at += rest % dim * stride;
                rest /= dim;
            }
            let start = (at * size) as usize;
            out.extend_from_slice(storage.get(start..start + size as usize)?);
        }
        Some(out)
    }
}

impl Archive for Shared {
    fn format(&self) -> &'static str {
        "memory"
    }

    fn variety(&self) -> String {
        "views of storages in memory".into()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let info = self.tensors.get(index).ok_or_else(|| Error::not_found("no such tensor"))?;
        let bytes = info.view().and_then(|view| self.gather(info, view));
        bytes
            .map(|b| Data::Owned(b.into()))
            .ok_or_else(|| Error::malformed("a view past the end of its storage"))
    }

    fn storages(&self) -> &[StorageInfo] {
        &self.storage_infos
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        self.storages.get(index).map(|s| Data::Borrowed(s)).ok_or_else(|| Error::not_found("no such storage"))
    }

    fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }
}

/// The dtypes that random archives are made of: what every format in common use holds.
const COMMON: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U8,
    DType::Bool,
];

/// A random archive of a few tensors: mixed dtypes, scalars and dimensions of size 0, storages that several tensors
/// view with strides and offsets. With `nested`, values of every plain kind stand around the tensors.
pub fn random(random: &mut Random, nested: bool) -> Shared {
    let mut archive = Shared::new();
    let mut names = HashSet::new();
    for _ in 0..1 + random.below(6) {
        let dtype = *random.one_of(COMMON);
        let size = dtype.bits() / 8;
        let count = 1 + random.below(40);
        let bytes = elements(dtype, count * size, random);
        let storage = archive.storage(Some(dtype), bytes);
        for _ in 0..1 + random.below(3) {
            let mut name = random_name(random);
            while !names.insert(name.clone()) {
                name.push('x');
            }
            let (shape, strides, offset) = random_view(count, random);
            archive.view(&name, dtype, storage, &shape, &strides, offset);
        }
    }
    if nested {
        let values = random_values(archive.tensors.len() as u32, random);
        return archive.with_values(values);
    }
    archive
}

/// A shape, strides and an offset that stay within `count` elements.
fn random_view(count: u64, random: &mut Random) -> (Vec<u64>, Vec<u64>, u64) {
    let offset = random.below(count);
    let mut left = count - offset;
    let (mut shape, mut strides) = (Vec::new(), Vec::new());
    for _ in 0..random.below(4) {
        // The last element of this dimension must be one that is left; stride 0 repeats what is there.
        let dim = random.below(5);
        let stride = random.below(4);
        let reach = dim.saturating_sub(1) * stride;
        if reach < left {
            left -= reach;
            shape.push(dim);
            strides.push(stride);
        }
    }
    if random.below(2) == 0 {
        // Half of all views are contiguous, as most tensors are.
        strides = contiguous_strides(&shape).to_vec();
        let elements: u64 = shape.iter().product();
        return (shape, strides, offset.min(count - elements.min(count))).fitting(count);
    }
    (shape, strides, offset)
}

trait Fitting {
    fn fitting(self, count: u64) -> Self;
}

impl Fitting for (Vec<u64>, Vec<u64>, u64) {
    /// A scalar in place of what is larger than its storage.
    fn fitting(self, count: u64) -> Self {
        let elements: u64 = self.0.iter().product();
        if elements + self.2 <= count { self } else { (Vec::new(), Vec::new(), 0) }
    }
}

fn random_name(random: &mut Random) -> String {
    const PARTS: &[&str] =
        &["model", "layers", "0", "11", "weight", "bias", "größe", "名前", "a b", "q\"uote", "x'y", "é"];
    let parts: Vec<&str> = (0..1 + random.below(4)).map(|_| *random.one_of(PARTS)).collect();
    parts.join(".")
}

/// A tree of values in which each of `tensors` tensors stands once.
fn random_values(tensors: u32, random: &mut Random) -> Values {
    let mut values = Values::new();
    let push = |values: &mut Values, value| values.push(value).expect("a few values");
    let mut heap: Vec<ValueId> = (0..tensors).map(|i| push(&mut values, Value::Tensor(i))).collect();
    for _ in 0..random.below(20) {
        let leaf = random_leaf(random);
        heap.push(push(&mut values, leaf));
    }
    // Containers take parts from the heap until one is left.
    let mut keys = 0u64;
    while heap.len() > 1 {
        let take = (1 + random.index(5)).min(heap.len());
        let mut parts: Vec<ValueId> = (0..take).map(|_| heap.swap_remove(random.index(heap.len()))).collect();
        if random.below(8) == 0 {
            // One value in two places, where that can be seen.
            let list = push(&mut values, Value::List(Vec::new()));
            parts.extend([list, list]);
        }
        let value = match random.below(4) {
            0 => Value::List(parts),
            1 => Value::Tuple(parts),
            kind => {
                let entries = parts
                    .into_iter()
                    .map(|part| {
                        keys += 1;
                        let key = match random.below(4) {
                            0 => Value::Int(keys as i64),
                            _ => Value::Str(format!("{}{keys}", random_name(random)).into()),
                        };
                        (push(&mut values, key), part)
                    })
                    .collect();
                let kind = if kind == 2 { DictKind::Dict } else { DictKind::Ordered };
                Value::Dict(Box::new(Dict { kind, entries, attributes: None }))
            }
        };
        heap.push(push(&mut values, value));
    }
    // A root that is a container, so that every format has a place for names.
    let key = push(&mut values, Value::Str("root".into()));
    let entries = heap.into_iter().map(|value| (key, value)).collect();
    let dict = Dict { kind: DictKind::Dict, entries, attributes: None };
    let root = push(&mut values, Value::Dict(Box::new(dict)));
    values.set_root(root);
    values
}

fn random_leaf(random: &mut Random) -> Value {
    match random.below(11) {
        0 => Value::None,
        1 => Value::Bool(random.below(2) == 0),
        2 => Value::Int(random.bits() as i64 >> random.below(64)),
        3 => Value::Float(f64::from_bits(random.bits())),
        4 => Value::Float(*random.one_of(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e-3])),
        5 => Value::Str(random_name(random).into()),
        6 => {
            let len = random.index(300);
            Value::Bytes(random.bytes(len).into())
        }
        7 => Value::Str("line\nbreak \u{0} \u{1f600}".into()),
        8 => Value::Complex(f64::from_bits(random.bits() >> 2), -1.5),
        9 => Value::BigInt([random.bytes(9), vec![1]].concat().into()),
        _ => Value::List(Vec::new()),
    }
}
