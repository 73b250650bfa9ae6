//! Holding files against a manifest: what is missing, added or changed, and in a changed file of weights, which tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use weighbridge_formats::logical::{Digest, hash_tensors};
use weighbridge_formats::write::Observer;
use weighbridge_formats::{Archive, Error, ErrorKind, ReadAt, ReadOptions, Registry, Result};

use super::files::{DigestOptions, Job, Wanted, run};
use super::hashes::{Quiet, split};
use super::listing;
use super::record::{Covers, FileEntry, Manifest, ModelEntry, NAME, SUFFIX, TensorEntry};
use crate::look::{is_folder, is_there};

/// Choices for verifying.
#[derive(Clone)]
#[non_exhaustive]
pub struct VerifyOptions<'a> {
    /// The formats to open changed weights with.
    pub registry: Registry,
    /// How to open them.
    pub read: ReadOptions,
    /// How many threads; `None`: as many as there are processors, at most four.
    pub threads: Option<usize>,
    /// Who is told of progress and may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// Names and sizes alone: no file is read.
    pub quick: bool,
    /// The SHA-256 of every file too. BLAKE3 alone finds as much, several times faster.
    pub sha256: bool,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        Self {
            registry: Registry::builtin(),
            read: ReadOptions::default(),
            threads: None,
            observer: None,
            quick: false,
            sha256: false,
        }
    }
}

/// A manifest with what it is held against.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// The manifest.
    pub manifest: Manifest,
    /// Its file.
    pub path: PathBuf,
    /// The folder that its paths are below.
    pub folder: PathBuf,
    /// The files that are asked for; `None` for all.
    pub only: Option<BTreeSet<String>>,
}

impl Recorded {
    /// Finds and reads the manifest of a folder (`weighbridge.json` in it) or of a file (`FILE.weighbridge.json` beside it,
    /// or else the folder's, of which then only the file and what belongs to it counts). `path` may be the manifest
    /// itself; `manifest` names one that lies elsewhere.
    ///
    /// # Errors
    /// `NotFound` if there is none, or it does not have the file; as [`Manifest::read`].
    pub fn find(path: &Path, manifest: Option<&Path>) -> Result<Self> {
        if is_folder(path)? {
            let file = manifest.map_or_else(|| path.join(NAME), Path::to_owned);
            if manifest.is_none() && !is_there(&file)? {
                return Err(no_manifest(path));
            }
            let manifest = Manifest::read(&file)?;
            return Ok(Self { manifest, path: file, folder: path.to_owned(), only: None });
        }
        let (folder, name) = split(path)?;
        if manifest.is_none() && (name == NAME || name.ends_with(SUFFIX)) {
            return Ok(Self { manifest: Manifest::read(path)?, path: path.to_owned(), folder, only: None });
        }
        let own = folder.join(format!("{name}{SUFFIX}"));
        let file = match manifest {
            Some(chosen) => chosen.to_owned(),
            None if is_there(&own)? => own,
            None if is_there(&folder.join(NAME))? => folder.join(NAME),
            None if !is_there(path)? => {
                return Err(Error::not_found("there is no such file or folder").with_path(path));
            }
            None => return Err(no_manifest(path)),
        };
        let manifest = Manifest::read(&file)?;
        if manifest.file(&name).is_none() {
            let what = format!("the manifest has no file {name:?}");
            return Err(Error::not_found(what).with_path(file).with_hint(
                "for the same tensors in a file of another name or format, compare tensors only",
            ));
        }
        let of_model = |m: &&ModelEntry| m.path == name;
        let mut only = BTreeSet::from([name.clone()]);
        only.extend(manifest.models.iter().filter(of_model).flat_map(|m| m.files.iter().cloned()));
        Ok(Self { manifest, path: file, folder, only: Some(only) })
    }

    /// The model of the manifest that a file is read for, by where the file is.
    pub fn model_of(&self, file: &Path) -> Option<&ModelEntry> {
        let below = file.strip_prefix(&self.folder).ok()?.to_str()?;
        self.manifest.models.iter().find(|m| m.files.iter().any(|f| f == below))
    }

    fn asked(&self, path: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(path))
    }
}

fn no_manifest(path: &Path) -> Error {
    let hint = if path.join("checkpoint.json").is_file() {
        "this is a checkpoint, which has a record of its own: `weighbridge checkpoint verify`"
    } else {
        "make one of a model that is known to be good: `weighbridge hash PATH --write`"
    };
    Error::not_found("there is no manifest for it").with_path(path).with_hint(hint)
}

/// What verifying found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// How many files are as recorded.
    pub intact: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// The files that are not as recorded, in the order of their paths.
    pub differences: Vec<Difference>,
}

impl Verification {
    /// Whether everything is as recorded.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }

    /// The differences as an error, if there are any.
    ///
    /// # Errors
    /// `Mismatch` with the first few.
    pub fn into_result(self) -> Result<()> {
        if self.is_same() {
            return Ok(());
        }
        let mut told: Vec<String> =
            self.differences.iter().take(5).map(|d| format!("{} ({})", d.path, d.change.as_str())).collect();
        if self.differences.len() > told.len() {
            told.push(format!("{} more", self.differences.len() - told.len()));
        }
        Err(Error::mismatch(format!("not as the manifest records it: {}", told.join(", ")))
            .with_hint("see what changed (`weighbridge verify`), and fetch the model again or repair it"))
    }

    /// Whether a file could not be read, so that nobody knows whether it is as recorded.
    pub fn is_unreadable(&self) -> bool {
        self.differences.iter().any(|d| matches!(d.change, Change::Unreadable(_)))
    }
}

/// A file that is not as recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Difference {
    /// Its path below the folder.
    pub path: String,
    /// What is different.
    pub change: Change,
    /// For a changed file of weights: which tensors are not as recorded.
    pub tensors: Option<TensorChanges>,
}

/// What is different with a file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// It is not there.
    Missing,
    /// It is there, and not recorded.
    Added,
    /// It has another length.
    Size {
        /// As recorded.
        recorded: u64,
        /// As it is.
        found: u64,
    },
    /// It has the length that is recorded, and other bytes.
    Content {
        /// Which digest.
        algorithm: &'static str,
        /// As recorded.
        recorded: Digest,
        /// As it is.
        found: Digest,
    },
    /// It could not be read, or leads out of the folder.
    Unreadable(String),
}

impl Change {
    /// One word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Added => "added",
            Self::Size { .. } => "size",
            Self::Content { .. } => "content",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// How the tensors of a model differ from what is recorded of them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TensorChanges {
    /// How many are as recorded.
    pub intact: u64,
    /// Those whose values, dtype or shape are others.
    pub changed: Vec<ChangedTensor>,
    /// Those that are recorded and not there.
    pub missing: Vec<String>,
    /// Those that are there and not recorded.
    pub added: Vec<String>,
    /// Why the model could not be opened; nothing is known of its tensors then.
    pub unreadable: Option<String>,
}

impl TensorChanges {
    /// Whether all tensors are as recorded, and no other is there.
    pub fn is_same(&self) -> bool {
        self.changed.is_empty()
            && self.missing.is_empty()
            && self.added.is_empty()
            && self.unreadable.is_none()
    }
}

/// A tensor that is not as recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangedTensor {
    /// Its name.
    pub name: String,
    /// Where its bytes are in the file, as offset and length, where the format lets one say.
    pub place: Option<(u64, u64)>,
    /// What is different: dtype and shape in words, or why it could not be read; `None` for the values alone.
    pub why: Option<String>,
}

/// Holds files against a manifest. All are read, but with [`VerifyOptions::quick`].
///
/// # Errors
/// `Cancelled`, and what listing the folder says; what is wrong with single files is in the result.
pub fn verify(recorded: &Recorded, options: &VerifyOptions<'_>) -> Result<Verification> {
    let Recorded { manifest, folder, .. } = recorded;
    let mut out = Verification::default();
    let mut there: BTreeMap<&str, (&FileEntry, PathBuf)> = BTreeMap::new();
    let root = listing::real(folder)?;
    let mut differ = |path: &str, change| {
        out.differences.push(Difference { path: path.to_owned(), change, tensors: None });
    };
    for entry in manifest.files.iter().filter(|f| recorded.asked(&f.path)) {
        let path = folder.join(&entry.path);
        match listing::inside(&root, &path) {
            Ok(path) => _ = there.insert(&entry.path, (entry, path)),
            Err(e) if e.kind() == ErrorKind::NotFound => differ(&entry.path, Change::Missing),
            Err(e) => differ(&entry.path, Change::Unreadable(e.to_string())),
        }
    }
    if manifest.covers == Covers::Folder && recorded.only.is_none() {
        for path in listing::list(folder)?.into_keys().filter(|p| manifest.file(p).is_none()) {
            differ(&path, Change::Added);
        }
    }
    let mut jobs = Vec::new();
    let mut entries = Vec::new();
    for (path, (entry, place)) in &there {
        let size = std::fs::metadata(place).map(|m| m.len());
        match size {
            Ok(found) if found != entry.size => differ(path, Change::Size { recorded: entry.size, found }),
            Ok(_) if options.quick => out.intact += 1,
            Ok(_) => {
                jobs.push(Job::new(place, Wanted { sha256: options.sha256, blake3: true }));
                entries.push(*entry);
            }
            Err(e) => differ(path, Change::Unreadable(e.to_string())),
        }
    }
    let digests = DigestOptions::default().threads(options.threads).observer(options.observer);
    for (done, entry) in run(jobs, &digests)?.into_iter().zip(entries) {
        let change = match done {
            Ok(done) => {
                out.bytes = out.bytes.saturating_add(done.size);
                let wrong = [("blake3", done.blake3, entry.blake3), ("sha256", done.sha256, entry.sha256)];
                let wrong = wrong.into_iter().find_map(|(algorithm, found, recorded)| {
                    let found = found.filter(|f| *f != recorded)?;
                    Some(Change::Content { algorithm, recorded, found })
                });
                match wrong {
                    None if done.size == entry.size => {
                        out.intact += 1;
                        continue;
                    }
                    None => Change::Size { recorded: entry.size, found: done.size },
                    Some(change) => change,
                }
            }
            Err(e) => Change::Unreadable(e.to_string()),
        };
        out.differences.push(Difference { path: entry.path.clone(), change, tensors: None });
    }
    out.differences.sort_by(|a, b| a.path.cmp(&b.path));
    if !options.quick {
        for difference in &mut out.differences {
            if matches!(difference.change, Change::Size { .. } | Change::Content { .. }) {
                difference.tensors = tensors_of(recorded, &difference.path, options)?;
            }
        }
    }
    Ok(out)
}

/// How the tensors of a changed file differ; `None` if it holds none. Of a sharded set the tensors of this shard.
fn tensors_of(recorded: &Recorded, path: &str, options: &VerifyOptions<'_>) -> Result<Option<TensorChanges>> {
    let of_file = |m: &&ModelEntry| m.files.iter().any(|f| f == path);
    let Some(model) = recorded.manifest.models.iter().find(of_file) else { return Ok(None) };
    let in_file = |t: &TensorEntry| model.file_of(t).is_none_or(|f| f == path);
    let shard = model.tensors.iter().any(|t| model.file_of(t) == Some(path));
    // An index has no tensors of its own, and a shard is opened by itself, whatever became of the others.
    if !shard && model.tensors.iter().any(|t| t.file.is_some()) {
        return Ok(None);
    }
    let open = recorded.folder.join(if shard { path } else { &model.path });
    match options.registry.open_path(&open, &options.read) {
        Ok(archive) => compare(&*archive, model, &in_file, options).map(Some),
        Err(e) => Ok(Some(TensorChanges { unreadable: Some(e.to_string()), ..TensorChanges::default() })),
    }
}

/// Holds the tensors of a file of any format against those that a manifest records.
///
/// # Errors
/// What opening the file says; `InvalidOptions` if the manifest has no model, or several and none of the file's name;
/// `Cancelled`.
pub fn verify_tensors(
    path: &Path,
    manifest: &Manifest,
    options: &VerifyOptions<'_>,
) -> Result<TensorChanges> {
    let archive = options.registry.open_path(path, &options.read)?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let model = match &manifest.models[..] {
        [] => return Err(Error::invalid_options("the manifest records no tensors")),
        [one] => one,
        several => several.iter().find(|m| m.path == name).ok_or_else(|| {
            let names: Vec<_> = several.iter().map(|m| m.path.as_str()).collect();
            Error::invalid_options(format!("the manifest records several models: {}", names.join(", ")))
        })?,
    };
    if let Some(observer) = options.observer {
        observer.started((*archive).bytes());
    }
    let changes = compare(&*archive, model, &|_| true, options)?;
    if let Some(observer) = options.observer {
        observer.finished();
    }
    Ok(changes)
}

/// Compares an archive with the recorded tensors of which `counts` is true.
fn compare(
    archive: &dyn Archive,
    model: &ModelEntry,
    counts: &dyn Fn(&TensorEntry) -> bool,
    options: &VerifyOptions<'_>,
) -> Result<TensorChanges> {
    let mut out = TensorChanges::default();
    let mut which = Vec::new();
    let mut found = BTreeSet::new();
    for (i, info) in archive.tensors().iter().enumerate() {
        found.insert(info.name());
        match model.tensor(info.name()) {
            None => out.added.push(info.name().to_owned()),
            Some(t) if t.dtype == info.dtype() && t.shape == info.shape() => which.push((i, t.hash)),
            Some(t) => {
                let why = format!(
                    "{} {:?}, and {} {:?} is recorded",
                    info.dtype().name(),
                    info.shape(),
                    t.dtype,
                    t.shape
                );
                out.changed.push(ChangedTensor { name: info.name().to_owned(), place: None, why: Some(why) });
            }
        }
    }
    let recorded = model.tensors.iter().filter(|t| counts(t));
    out.missing.extend(recorded.filter(|t| !found.contains(&*t.name)).map(|t| t.name.clone()));
    let quiet = options.observer.map(Quiet);
    let observer = quiet.as_ref().map(|q| q as &dyn Observer);
    let numbers: Vec<usize> = which.iter().map(|(i, _)| *i).collect();
    let hashes: Vec<Result<Digest>> = match hash_tensors(archive, &numbers, options.threads, observer) {
        Ok(hashes) => hashes.into_iter().map(Ok).collect(),
        Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
        // One that cannot be read says nothing of the others.
        Err(_) => {
            let one = |&i: &usize| {
                hash_tensors(archive, &[i], options.threads, observer).and_then(|h| {
                    h.first().copied().ok_or_else(|| Error::invalid_options("the tensor was not hashed"))
                })
            };
            numbers.iter().map(one).collect()
        }
    };
    for ((i, recorded), hash) in which.into_iter().zip(hashes) {
        let why = match hash {
            Ok(hash) if hash == recorded => {
                out.intact += 1;
                continue;
            }
            Ok(_) => None,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => Some(e.message().to_owned()),
        };
        let data = archive.data(i).ok();
        let place = data.and_then(|d| d.span(0, d.len()).map(|s| (s.offset, s.len)));
        out.changed.push(ChangedTensor { name: archive.tensors()[i].name().to_owned(), place, why });
    }
    out.changed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}
