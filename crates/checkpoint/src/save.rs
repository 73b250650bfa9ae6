//! Writing one checkpoint.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;
use weighbridge_formats::write::{ExecuteOptions, FilePlan, WritePlan, execute, uninterrupted};
use weighbridge_formats::{Archive, Error, ErrorKind, Note, Registry, Result, WriteOptions, on_workers};

use crate::layout::{EXTRA, LOG, MANIFEST, OPTIMIZER, RANDOM, SCHEDULER, WEIGHTS};
use crate::manifest::{FileEntry, Manifest};
use crate::stage::{Staging, sync};
use crate::state::State;
use crate::sums::{Sum, content_hash, watched};
use crate::verify;

/// How a checkpoint is written.
#[derive(Clone, Debug)]
pub(crate) struct SaveOptions {
    pub(crate) fsync: bool,
    pub(crate) threads: Option<usize>,
    /// The bytes of tensors in one file of an incremental checkpoint; `None` writes everything each time.
    pub(crate) incremental: Option<u64>,
}

/// A checkpoint that is in place.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// The bytes that were written.
    pub written: u64,
    /// The bytes of files that were linked and not written, since they have not changed.
    pub linked: u64,
    /// What is stored otherwise than it was given, such as tensors that shared their storage.
    pub notes: Vec<Note>,
}

/// Where the files of an earlier checkpoint are, by the hash of their content.
#[derive(Default)]
pub(crate) struct Known {
    folder: PathBuf,
    files: HashMap<String, FileEntry>,
}

impl Known {
    pub(crate) fn new(folder: &Path, manifest: &Manifest) -> Self {
        let hashed = manifest.files.iter().filter_map(|f| Some((f.blake3.clone()?, f.clone())));
        Self { folder: folder.to_owned(), files: hashed.collect() }
    }
}

/// Everything of a checkpoint but its state.
pub(crate) struct Draft<'a> {
    pub(crate) root: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) number: u64,
    pub(crate) log: &'a [u8],
    pub(crate) known: &'a Known,
    pub(crate) options: &'a SaveOptions,
}

/// A file that is to be, with what the manifest will say of it.
struct Planned<'a> {
    plan: FilePlan<'a>,
    blake3: Option<String>,
}

/// Writes a checkpoint: all files and the manifest into a folder of another name, then the rename.
pub(crate) fn save(draft: &Draft<'_>, state: &State<'_>) -> Result<Saved> {
    let (mut planned, mut notes) = (Vec::new(), Vec::new());
    let mut archive =
        |archive, name, planned: &mut _| plan_archive(archive, name, draft.options, planned, &mut notes);
    let weights = archive(state.weights, WEIGHTS, &mut planned)?;
    let optimizer = state.optimizer.map(|o| archive(o, OPTIMIZER, &mut planned)).transpose()?;
    for (name, json) in [(SCHEDULER, state.scheduler), (RANDOM, state.random), (EXTRA, state.extra)] {
        if let Some(json) = json {
            planned.push(fixed(name, json_text(json))?);
        }
    }
    if !draft.log.is_empty() {
        planned.push(fixed(LOG, draft.log.to_vec())?);
    }
    let staging = Staging::new(draft.root, draft.name)?;
    let mut manifest = Manifest {
        number: draft.number,
        step: state.step,
        epoch: state.epoch,
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        metrics: state.metrics.clone(),
        weights,
        optimizer,
        files: Vec::new(),
    };
    let (mut plan, mut sums, mut linked) = (WritePlan::default(), Vec::new(), 0);
    for file in planned {
        let entry =
            FileEntry { name: file.plan.name.clone(), bytes: file.plan.len(), crc32: 0, blake3: file.blake3 };
        if let Some(entry) = link(draft.known, &entry, staging.path()) {
            linked += entry.bytes;
            manifest.files.push(entry);
            continue;
        }
        let (watched, sum) = watched(file.plan)?;
        sums.push((manifest.files.len(), sum));
        manifest.files.push(entry);
        plan.files.push(watched);
    }
    plan.files.push(manifest_file(&manifest, sums.clone())?);
    let mut how = ExecuteOptions::default();
    (how.fsync, how.threads) = (draft.options.fsync, draft.options.threads);
    let written = execute(plan, staging.path(), &how).map_err(|e| explain(e, draft.root))?.bytes;
    if linked > 0 && draft.options.fsync {
        sync(staging.path())?;
    }
    for (i, sum) in &sums {
        manifest.files[*i].crc32 = sum.get()?;
    }
    let path = staging.place(draft.root, draft.name, draft.options.fsync)?;
    Ok(Saved { path, manifest, written, linked, notes })
}

/// Says of a refused write what that means for the checkpoints that are there.
fn explain(error: Error, root: &Path) -> Error {
    if error.kind() != ErrorKind::Io {
        return error;
    }
    let hint = error.hint().map(str::to_owned).unwrap_or_default();
    let what = "the checkpoint was not saved, and the earlier ones are whole";
    error.with_path(root).with_better_hint(if hint.is_empty() {
        what.into()
    } else {
        format!("{what}; {hint}")
    })
}

fn fixed<'a>(name: &str, bytes: Vec<u8>) -> Result<Planned<'a>> {
    let mut plan = FilePlan::new(name);
    plan.push_fixed(bytes)?;
    Ok(Planned { plan, blake3: None })
}

fn json_text(json: &Json) -> Vec<u8> {
    let mut text = format!("{json:#}").into_bytes();
    text.push(b'\n');
    text
}

/// The manifest, whose checksums are filled in when all other files are written.
fn manifest_file<'a>(manifest: &Manifest, sums: Vec<(usize, Sum)>) -> Result<FilePlan<'a>> {
    let mut file = FilePlan::new(MANIFEST);
    let mut manifest = manifest.clone();
    let len = manifest.render().len() as u64;
    file.push_late(
        len,
        Box::new(move |_| {
            for (i, sum) in &sums {
                manifest.files[*i].crc32 = sum.get()?;
            }
            Ok(manifest.render().into_bytes())
        }),
    )?;
    Ok(file)
}

/// Plans the files of an archive; returns the name of the one that it is opened by.
fn plan_archive<'a>(
    archive: &'a dyn Archive,
    name: &str,
    options: &SaveOptions,
    planned: &mut Vec<Planned<'a>>,
    notes: &mut Vec<Note>,
) -> Result<String> {
    let mut write = WriteOptions::default();
    write.file_name = name.to_owned();
    write.max_shard_size = options.incremental;
    let plan = Registry::builtin().serializer("safetensors")?.plan(archive, &write)?;
    notes.extend(plan.notes);
    if options.incremental.is_none() {
        planned.extend(plan.files.into_iter().map(|plan| Planned { plan, blake3: None }));
        return Ok(name.to_owned());
    }
    let mut files = plan.files;
    if files.len() == 1 {
        // Small enough for one file, which has no index and keeps its name.
        for plan in files {
            let blake3 = Some(content_hash(&plan)?);
            planned.push(Planned { plan, blake3 });
        }
        return Ok(name.to_owned());
    }
    let index = files.pop();
    let hashes = hash_all(&mut files)?;
    let stem = name.strip_suffix(".safetensors").unwrap_or(name);
    let mut renamed = HashMap::new();
    for (mut plan, hash) in files.into_iter().zip(hashes) {
        let new = format!("{stem}-{}.safetensors", hash.get(..32).unwrap_or(&hash));
        renamed.insert(std::mem::replace(&mut plan.name, new.clone()), new);
        // The names of its tensors are part of a file, so no two shards are the same.
        planned.push(Planned { plan, blake3: Some(hash) });
    }
    let Some(index) = index else { return Ok(name.to_owned()) };
    let index_name = index.name.clone();
    planned.push(fixed(&index_name, rename_shards(&index, &renamed)?)?);
    Ok(index_name)
}

/// The text of a shard index with other names of its files.
fn rename_shards(index: &FilePlan<'_>, renamed: &HashMap<String, String>) -> Result<Vec<u8>> {
    let broken = || Error::invalid_options("the shard index of the plan is no index");
    let mut text = Vec::new();
    for segment in index.segments() {
        match &segment.content {
            weighbridge_formats::write::Content::Fixed(bytes) => text.extend_from_slice(bytes),
            _ => return Err(broken()),
        }
    }
    let mut json: Json = serde_json::from_slice(&text).map_err(|e| broken().with_source(e))?;
    for file in json["weight_map"].as_object_mut().ok_or_else(broken)?.values_mut() {
        let new = file.as_str().and_then(|old| renamed.get(old)).ok_or_else(broken)?;
        *file = new.as_str().into();
    }
    Ok(json_text(&json))
}

/// Hashes the content of files to be, several at a time.
fn hash_all(files: &mut [FilePlan<'_>]) -> Result<Vec<String>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4)).min(files.len()).max(1);
    let (results, tasks) = (Mutex::new(Vec::with_capacity(files.len())), files.iter_mut().enumerate());
    let tasks = Mutex::new(tasks);
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
    on_workers(threads, || {
        while let Some((at, file)) = next() {
            let hash = content_hash(file);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, hash));
        }
        Ok(())
    })?;
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, hash)| hash).collect()
}

/// Links an unchanged file of an earlier checkpoint into a new one, after its content was checked; `None` where
/// there is no such file, it is damaged, or the file system has no links: then it is written.
fn link(known: &Known, wanted: &FileEntry, folder: &Path) -> Option<FileEntry> {
    let old = known.files.get(wanted.blake3.as_ref()?)?;
    if old.bytes != wanted.bytes {
        return None;
    }
    verify::content(&known.folder, old).ok()?;
    let (from, to) = (known.folder.join(&old.name), folder.join(&wanted.name));
    uninterrupted(|| std::fs::hard_link(&from, &to)).ok()?;
    Some(FileEntry { name: wanted.name.clone(), ..old.clone() })
}
