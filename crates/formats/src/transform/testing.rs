//! Archives and trees for the tests of the transforms.

use super::Strided;
use crate::archive::{Archive, MemoryArchive, StorageInfo, no_such_tensor};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{Data, Tensor, TensorInfo, View, contiguous_strides};
use crate::value::{Dict, Value, ValueId, Values};

/// Tensors that view storages, as a torch file has them.
pub(super) struct SharedArchive {
    infos: Vec<TensorInfo>,
    storages: Vec<StorageInfo>,
    bytes: Vec<Vec<u8>>,
}

/// Name, dtype, shape, offset and strides of a view.
pub(super) type ViewOf<'s> = (&'s str, DType, &'s [u64], u64, Option<&'s [u64]>);

impl SharedArchive {
    /// Views of the first storage; a name may say another as `name@1`.
    pub(super) fn new(storages: &[(Option<DType>, Vec<u8>)], views: &[ViewOf<'_>]) -> Self {
        let infos = views.iter().map(|&(name, dtype, shape, offset, strides)| {
            let (name, storage) = name.split_once('@').unwrap_or((name, "0"));
            let storage = storage.parse().unwrap();
            let view = View { storage, offset, strides: strides.map(Into::into) };
            TensorInfo::new(name, dtype, shape).unwrap().with_view(view)
        });
        let (infos, bytes) = (infos.collect(), storages.iter().map(|s| s.1.clone()).collect());
        let storages =
            storages.iter().map(|(dtype, b)| StorageInfo { dtype: *dtype, bytes: b.len() as u64 }).collect();
        Self { infos, storages, bytes }
    }
}

impl Archive for SharedArchive {
    fn format(&self) -> &'static str {
        "test"
    }

    fn variety(&self) -> String {
        "shared".into()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let info = self.infos.get(index).ok_or_else(|| no_such_tensor(index))?;
        let view = info.view().unwrap();
        let strides = view.strides.clone().unwrap_or_else(|| contiguous_strides(info.shape()));
        let storage = self.storage_data(view.storage as usize)?;
        let size = info.dtype().size().unwrap();
        Ok(Data::lazy(Strided::new(storage, size, info.shape(), &strides, view.offset)?))
    }

    fn storages(&self) -> &[StorageInfo] {
        &self.storages
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        Ok(Data::Borrowed(&self.bytes[index]))
    }
}

/// Every tensor's name and bytes.
pub(super) fn contents(archive: &dyn Archive) -> Vec<(String, Vec<u8>)> {
    let bytes = |i| archive.data(i).unwrap().read_all().unwrap();
    archive.tensors().iter().enumerate().map(|(i, t)| (t.name().to_owned(), bytes(i))).collect()
}

/// The tensors' names.
pub(super) fn names(archive: &dyn Archive) -> Vec<&str> {
    archive.tensors().iter().map(TensorInfo::name).collect()
}

/// An archive of one-byte tensors with these names and values; each tensor's byte is its number.
pub(super) fn archive(names: &[&str], values: Values) -> Box<dyn Archive> {
    let tensors = names.iter().enumerate().map(|(i, name)| {
        let bytes = vec![i as u8].into();
        Tensor::new(*name, DType::U8, [1].as_slice(), Data::Owned(bytes)).unwrap()
    });
    Box::new(MemoryArchive::new(tensors).unwrap().with_values(values))
}

/// A tree to build, and to compare with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    None,
    Int(i64),
    Tensor(u32),
    List(Vec<Tree>),
    Dict(Vec<(Key, Tree)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    Str(String),
    Int(i64),
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Self::Str(key.into())
    }
}

impl From<i64> for Key {
    fn from(key: i64) -> Self {
        Self::Int(key)
    }
}

/// A dict of a tree.
pub(super) fn dict<K: Into<Key>>(entries: impl IntoIterator<Item = (K, Tree)>) -> Tree {
    Tree::Dict(entries.into_iter().map(|(k, v)| (k.into(), v)).collect())
}

impl Tree {
    pub(super) fn values(&self) -> Values {
        let mut values = Values::new();
        let root = self.push(&mut values);
        values.set_root(root);
        values
    }

    fn push(&self, values: &mut Values) -> ValueId {
        let value = match self {
            Self::None => Value::None,
            Self::Int(i) => Value::Int(*i),
            Self::Tensor(i) => Value::Tensor(*i),
            Self::List(items) => Value::List(items.iter().map(|t| t.push(values)).collect()),
            Self::Dict(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    let key = match key {
                        Key::Str(s) => Value::Str(s.as_str().into()),
                        Key::Int(i) => Value::Int(*i),
                    };
                    (values.push(key).unwrap(), value.push(values))
                });
                let entries = entries.collect();
                Value::Dict(Box::new(Dict { entries, ..Dict::default() }))
            }
        };
        values.push(value).unwrap()
    }

    /// The tree under the root of an archive's values.
    pub(super) fn of(archive: &dyn Archive) -> Self {
        let values = archive.values().unwrap();
        Self::at(values, values.root().unwrap())
    }

    fn at(values: &Values, id: ValueId) -> Self {
        match values.get(id) {
            Value::None => Self::None,
            Value::Int(i) => Self::Int(*i),
            Value::Tensor(i) => Self::Tensor(*i),
            Value::List(items) => Self::List(items.iter().map(|&item| Self::at(values, item)).collect()),
            Value::Dict(dict) => dict
                .entries
                .iter()
                .map(|&(key, value)| {
                    let key = match values.get(key) {
                        Value::Str(s) => Key::Str(s.to_string()),
                        Value::Int(i) => Key::Int(*i),
                        other => panic!("a key {other:?}"),
                    };
                    (key, Self::at(values, value))
                })
                .collect::<Vec<_>>()
                .into(),
            other => panic!("a value {other:?}"),
        }
    }
}

impl From<Vec<(Key, Tree)>> for Tree {
    fn from(entries: Vec<(Key, Tree)>) -> Self {
        Self::Dict(entries)
    }
}
