//! Several archives and values under the keys of one dict: what a torch checkpoint file is.

use std::path::PathBuf;

use serde_json::Value as Json;
use weighbridge_formats::value::{Dict, DictKind, Object};
use weighbridge_formats::{
    Archive, Data, Error, Note, Result, StorageInfo, TensorInfo, Value, ValueId, Values, View,
};

use crate::json::push_json;

/// An archive whose root is a dict. Tensors that share storage in a part share it here.
pub(crate) struct Bundle<'a> {
    parts: Vec<Part<'a>>,
    infos: Vec<TensorInfo>,
    storages: Vec<StorageInfo>,
    notes: Vec<Note>,
    values: Values,
    root: Dict,
}

struct Part<'a> {
    archive: &'a dyn Archive,
    first_tensor: usize,
    first_storage: usize,
}

impl<'a> Bundle<'a> {
    pub(crate) fn new() -> Self {
        Self {
            parts: Vec::new(),
            infos: Vec::new(),
            storages: Vec::new(),
            notes: Vec::new(),
            values: Values::new(),
            root: Dict { kind: DictKind::Dict, ..Dict::default() },
        }
    }

    fn entry(&mut self, key: &str, value: ValueId) -> Result<()> {
        let key = self.values.push(Value::Str(key.into()))?;
        self.root.entries.push((key, value));
        Ok(())
    }

    /// Adds JSON under a key.
    pub(crate) fn push_json(&mut self, key: &str, json: &Json) -> Result<()> {
        let value = push_json(&mut self.values, json)?;
        self.entry(key, value)
    }

    /// Adds an archive under a key: its values as they are, or an `OrderedDict` of its tensors by name.
    pub(crate) fn push_archive(&mut self, key: &str, archive: &'a dyn Archive) -> Result<()> {
        let (first_tensor, first_storage) = (self.infos.len(), self.storages.len());
        let index = |i: usize| {
            u32::try_from(i).map_err(|_| Error::limit("more than 4,294,967,295 tensors or storages"))
        };
        for info in archive.tensors() {
            let mut info = info.clone().with_name(format!("{key}.{}", info.name()));
            if let Some(view) = info.view().cloned() {
                let storage = index(view.storage as usize + first_storage)?;
                info = info.with_view(View { storage, ..view });
            }
            self.infos.push(info);
        }
        index(self.infos.len())?;
        self.storages.extend_from_slice(archive.storages());
        self.notes.extend_from_slice(archive.notes());
        let root = match archive.values().and_then(|v| Some((v, v.root()?))) {
            Some((values, root)) => self.append(values, root, first_tensor as u32)?,
            None => {
                let mut dict = Dict { kind: DictKind::Ordered, ..Dict::default() };
                for (i, info) in archive.tensors().iter().enumerate() {
                    let key = self.values.push(Value::Str(info.name().into()))?;
                    let tensor = self.values.push(Value::Tensor((first_tensor + i) as u32))?;
                    dict.entries.push((key, tensor));
                }
                self.values.push(Value::Dict(Box::new(dict)))?
            }
        };
        self.parts.push(Part { archive, first_tensor, first_storage });
        self.entry(key, root)
    }

    /// Copies an arena to the end of this one; returns where its root is now.
    fn append(&mut self, from: &Values, root: ValueId, first_tensor: u32) -> Result<ValueId> {
        // Ids come in the order of pushing, so that those of the copies are known before they are filled.
        let mut ids = Vec::with_capacity(from.len());
        for _ in 0..from.len() {
            ids.push(self.values.push(Value::None)?);
        }
        let of = |id: &ValueId| ids[id.index()];
        let all = |list: &[ValueId]| list.iter().map(of).collect::<Vec<_>>();
        let pairs = |list: &[(ValueId, ValueId)]| list.iter().map(|(k, v)| (of(k), of(v))).collect();
        for (id, value) in from.iter() {
            let copy = match value {
                Value::List(p) => Value::List(all(p)),
                Value::Tuple(p) => Value::Tuple(all(p)),
                Value::Set(p) => Value::Set(all(p)),
                Value::FrozenSet(p) => Value::FrozenSet(all(p)),
                Value::Dict(d) => Value::Dict(Box::new(Dict {
                    kind: d.kind,
                    entries: pairs(&d.entries),
                    attributes: d.attributes.as_ref().map(of),
                })),
                Value::Tensor(i) => Value::Tensor(i.saturating_add(first_tensor)),
                Value::Persistent(p) => Value::Persistent(of(p)),
                Value::Object(o) => Value::Object(Box::new(Object {
                    construct: o.construct,
                    class: of(&o.class),
                    args: of(&o.args),
                    kwargs: o.kwargs.as_ref().map(of),
                    state: o.state.as_ref().map(of),
                    items: all(&o.items),
                    entries: pairs(&o.entries),
                })),
                plain => plain.clone(),
            };
            *self.values.get_mut(of(&id)) = copy;
        }
        Ok(of(&root))
    }

    /// Makes the dict the root.
    pub(crate) fn finish(mut self) -> Result<Self> {
        let dict = std::mem::take(&mut self.root);
        let root = self.values.push(Value::Dict(Box::new(dict)))?;
        self.values.set_root(root);
        Ok(self)
    }

    fn part(&self, index: usize, first: impl Fn(&Part<'a>) -> usize) -> Option<(&Part<'a>, usize)> {
        let at = self.parts.partition_point(|p| first(p) <= index).checked_sub(1)?;
        let part = self.parts.get(at)?;
        Some((part, index - first(part)))
    }
}

impl Archive for Bundle<'_> {
    fn format(&self) -> &'static str {
        "memory"
    }

    fn variety(&self) -> String {
        "a checkpoint in parts".into()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        match self.part(index, |p| p.first_tensor) {
            Some((part, index)) => part.archive.data(index),
            None => Err(Error::not_found(format!("there is no tensor number {index}"))),
        }
    }

    fn storages(&self) -> &[StorageInfo] {
        &self.storages
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        match self.part(index, |p| p.first_storage) {
            Some((part, index)) => part.archive.storage_data(index),
            None => Err(Error::not_found(format!("there is no storage number {index}"))),
        }
    }

    fn values(&self) -> Option<&Values> {
        Some(&self.values)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.parts.iter().flat_map(|p| p.archive.files()).collect()
    }
}
