//! Reading a sharded set as one archive.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ShardIndex;
use crate::account::{Account, TENSOR, block, parts_of};
use crate::archive::{Archive, Metadata, Note, StorageInfo, no_such_tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::flat;
use crate::registry::Registry;
use crate::source::Source;
use crate::tensor::{Data, TensorInfo};
use crate::traits::ReadOptions;
use crate::value::{Value, Values};
use crate::values_json;

/// Several opened files, as one.
struct ShardedArchive {
    index: Option<PathBuf>,
    shards: Vec<Box<dyn Archive>>,
    format: &'static str,
    tensors: Vec<TensorInfo>,
    /// Each tensor's shard and its number there.
    places: Vec<(u32, u32)>,
    storages: Vec<StorageInfo>,
    /// The number of each shard's first storage among all.
    first_storage: Vec<usize>,
    metadata: Metadata,
    values: Option<Values>,
    notes: Vec<Note>,
}

/// Opens the set of an index.
///
/// # Errors
/// `Malformed` for a broken index, `UnsafeContent` for one that leaves its folder, `NotFound` with all shards that
/// are missing, `Mismatch` for tensors that are not where the index says; what the shards' reader says.
pub(crate) fn open(registry: &Registry, source: &Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
    // The index says what there will be before there is any of it: an index of promises is held to the least.
    let mut account = Account::new(&options.limits);
    let index = ShardIndex::read(source, &options.limits, &mut account)?;
    let parts = sources(source, &index)?;
    let length = parts.iter().fold(0u64, |n, p| n.saturating_add(p.len()));
    let mut account = account.longer(length);
    let mut shards: Vec<Box<dyn Archive>> = Vec::with_capacity(index.files.len());
    for part in parts {
        let mut own = options.clone();
        own.limits.memory = options.limits.memory.min(account.left());
        let shard = registry.open_file(part, &own)?;
        // What it took, and what it takes again as a part of the set.
        account.charge(taken(&*shard))?;
        shards.push(shard);
    }
    let Some(format) = shards.first().map(|s| s.format()) else {
        return Err(Error::malformed("the index lists no tensor"));
    };
    if let Some(other) = shards.iter().position(|s| s.format() != format) {
        let what = format!(
            "the shards are of several formats: {:?} is {format} and {:?} is {}",
            index.files[0],
            index.files[other],
            shards[other].format()
        );
        return Err(Error::malformed(what));
    }
    let mut set = ShardedArchive {
        index: source.path().map(Path::to_owned),
        shards,
        format,
        tensors: Vec::new(),
        places: Vec::new(),
        storages: Vec::new(),
        first_storage: Vec::new(),
        metadata: Metadata::new(),
        values: None,
        notes: Vec::new(),
    };
    set.gather(&index)?;
    set.restore_values(&index, options, &mut account);
    Ok(Box::new(set))
}

/// What an archive takes in memory, in bytes.
fn taken(shard: &dyn Archive) -> u64 {
    let names = shard.tensors().iter().map(|t| TENSOR + block(16 + t.name().len())).sum::<u64>();
    let values = shard.values().map_or(0, |values| {
        values.iter().map(|(_, value)| size_of::<Value>() as u64 + parts_of(value)).sum::<u64>()
    });
    let metadata = shard.metadata().iter().map(|(k, v)| 2 * (block(k.len()) + block(v.len()))).sum::<u64>();
    names + values + metadata
}

/// The shards' files; an error names all that are missing.
fn sources(source: &Source, index: &ShardIndex) -> Result<Vec<Source>> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &index.files {
        match source.sibling(name) {
            Ok(part) => found.push(part),
            Err(e) if e.kind() == ErrorKind::NotFound => missing.push(name.clone()),
            Err(e) => return Err(e),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let what =
        format!("{} of {} shards are missing: {}", missing.len(), index.files.len(), missing.join(", "));
    Err(Error::not_found(what).with_hint("fetch them into the folder of the index"))
}

impl ShardedArchive {
    /// Takes the shards' tensors, storages, metadata and notes, and holds them against the index.
    fn gather(&mut self, index: &ShardIndex) -> Result<()> {
        let mut where_found: HashSet<Arc<str>> = HashSet::new();
        let (mut unlisted, mut twice) = (Vec::new(), Vec::new());
        for (number, shard) in self.shards.iter().enumerate() {
            let first_storage = self.storages.len();
            self.first_storage.push(first_storage);
            self.storages.extend_from_slice(shard.storages());
            for (i, info) in shard.tensors().iter().enumerate() {
                let listed = index.weight_map.get(info.name());
                let elsewhere = listed.is_some_and(|&file| file as usize != number);
                if elsewhere || where_found.contains(info.name()) {
                    twice.push(format!("{} in {}", info.name(), index.files[number]));
                    continue;
                }
                if listed.is_none() {
                    unlisted.push(info.name().to_owned());
                }
                where_found.insert(info.shared_name());
                self.tensors.push(moved(info, first_storage)?);
                self.places.push((number as u32, i as u32));
            }
            for (key, value) in shard.metadata() {
                if !self.metadata.iter().any(|(known, _)| known == key) {
                    self.metadata.push((key.clone(), value.clone()));
                }
            }
            let file = &index.files[number];
            self.notes.extend(
                shard.notes().iter().map(|n| Note { kind: n.kind, text: format!("{file}: {}", n.text) }),
            );
            if let Some(values) = shard.values().filter(|v| !flat::is_plain(v, shard.tensors())) {
                let left = flat::left_out(values);
                if left.count > 0 {
                    let named = flat::listed(left.paths);
                    self.notes.push(Note::warning(format!(
                        "{file}: {} and so no part of the set: {named}",
                        flat::others(left.count)
                    )));
                }
            }
        }
        let mut absent: Vec<_> =
            index.weight_map.iter().filter(|(name, _)| !where_found.contains(name.as_str())).collect();
        if !absent.is_empty() {
            absent.sort();
            let named =
                absent.iter().map(|(name, file)| format!("{name} in {}", index.files[**file as usize]));
            let what = format!("the index lists {} tensors that are not there: ", absent.len());
            return Err(Error::mismatch(what + &flat::listed(named))
                .with_hint("index and shards are of different versions: fetch them again together"));
        }
        if !unlisted.is_empty() {
            let what = format!("{} tensors are in shards and not in the index: ", unlisted.len());
            self.notes.push(Note::warning(what + &flat::listed(unlisted)));
        }
        if !twice.is_empty() {
            let what =
                format!("{} tensors are left out, which the index has in another shard: ", twice.len());
            self.notes.push(Note::warning(what + &flat::listed(twice)));
        }
        let bytes = self.tensors.iter().fold(0u64, |n, t| n.saturating_add(t.bytes()));
        if let Some(stated) = index.total_size.filter(|&n| n != bytes) {
            self.notes
                .push(Note::info(format!("the index states {stated} bytes, and the tensors have {bytes}")));
        }
        Ok(())
    }

    /// Restores values that the index keeps.
    fn restore_values(&mut self, index: &ShardIndex, options: &ReadOptions, account: &mut Account) {
        let Some(text) = &index.values else { return };
        let numbers: HashMap<&str, u32> = self.tensors.iter().map(TensorInfo::name).zip(0..).collect();
        match values_json::decode(text, |name| numbers.get(name).copied(), &options.limits, account) {
            Ok(values) => self.values = Some(values),
            Err(e) => self.notes.push(Note::warning(format!(
                "the values that the index keeps cannot be restored, and are left out: {e}"
            ))),
        }
    }
}

/// A shard's tensor, whose storage has another number among those of all shards.
fn moved(info: &TensorInfo, first_storage: usize) -> Result<TensorInfo> {
    let Some(view) = info.view() else { return Ok(info.clone()) };
    let storage = u32::try_from(first_storage).ok().and_then(|first| view.storage.checked_add(first));
    let storage = storage.ok_or_else(|| Error::limit("more than 4,294,967,295 storages in one set"))?;
    let mut view = view.clone();
    view.storage = storage;
    Ok(info.clone().with_view(view))
}

impl Archive for ShardedArchive {
    fn format(&self) -> &'static str {
        self.format
    }

    fn variety(&self) -> String {
        let first = self.shards.first().map(|s| s.variety()).unwrap_or_default();
        format!("{} shards, the first: {first}", self.shards.len())
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let &(shard, i) = self.places.get(index).ok_or_else(|| no_such_tensor(index))?;
        self.shards.get(shard as usize).ok_or_else(|| no_such_tensor(index))?.data(i as usize)
    }

    fn storages(&self) -> &[StorageInfo] {
        &self.storages
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        let shard = self.first_storage.partition_point(|&first| first <= index).checked_sub(1);
        let found = shard.and_then(|s| Some((self.shards.get(s)?, *self.first_storage.get(s)?)));
        match found {
            Some((shard, first)) if index < self.storages.len() => shard.storage_data(index - first),
            _ => Err(Error::not_found(format!("there is no storage number {index}"))),
        }
    }

    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.index.iter().cloned().chain(self.shards.iter().flat_map(|s| s.files())).collect()
    }
}
