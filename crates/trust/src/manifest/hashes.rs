//! Hashing what is on disk: files, and the tensors in them, read once where that is possible.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use weighbridge_formats::logical::{Digest, hash_tensors, model_hash, tensor_hash};
use weighbridge_formats::source::FileSpan;
use weighbridge_formats::write::{FileDigests, Observer};
use weighbridge_formats::{
    Access, Archive, Data, Error, ErrorKind, Note, ReadAt, ReadOptions, Registry, Result,
};

use super::files::{Cache, DigestOptions, Job, Wanted, run};
use super::listing;
use super::record::{Covers, FileEntry, Manifest, ModelEntry, TensorEntry};
use crate::look::is_folder;

/// Choices for hashing a model.
#[derive(Clone)]
#[non_exhaustive]
pub struct HashOptions<'a> {
    /// The formats to open weights with.
    pub registry: Registry,
    /// How to open them.
    pub read: ReadOptions,
    /// How many threads; `None`: as many as there are processors, at most four.
    pub threads: Option<usize>,
    /// Who is told of progress and may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// Digests of files that have not changed since they were hashed before; tensors are read all the same.
    pub cache: Option<&'a Cache>,
    /// Whether the SHA-256 of files is wanted. Default: yes.
    pub sha256: bool,
    /// Whether the BLAKE3 of files is wanted. Default: yes.
    pub blake3: bool,
    /// Whether the tensors' and the models' logical hashes are wanted. Default: yes.
    pub logical: bool,
    /// What the write engine found of files that it wrote just now, by [`IN_PASS`](super::IN_PASS): they are not read again,
    /// nor are their tensors where each is a data segment of its own. Names are paths below the folder.
    pub written: &'a [FileDigests],
}

impl Default for HashOptions<'_> {
    fn default() -> Self {
        Self {
            registry: Registry::builtin(),
            read: ReadOptions::default(),
            threads: None,
            observer: None,
            cache: None,
            sha256: true,
            blake3: true,
            logical: true,
            written: &[],
        }
    }
}

/// The hashes of a file or folder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hashes {
    /// Whether it was a folder.
    pub covers: Covers,
    /// The files, in the order of their paths.
    pub files: Vec<FileHashes>,
    /// The models in them, in the order of their paths; empty if logical hashes were not wanted.
    pub models: Vec<ModelEntry>,
    /// What could not be read as a model, and the readers' warnings.
    pub notes: Vec<Note>,
}

/// The digests of a file that were wanted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileHashes {
    /// Its path below the folder, or its name.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Option<Digest>,
    /// Its BLAKE3.
    pub blake3: Option<Digest>,
}

impl Hashes {
    /// The logical hash, where there is one model.
    pub fn logical(&self) -> Option<Digest> {
        match &self.models[..] {
            [one] => Some(one.logical),
            _ => None,
        }
    }

    /// The manifest of what was hashed.
    ///
    /// # Errors
    /// `InvalidOptions` if a digest of a file was not wanted.
    pub fn into_manifest(self) -> Result<Manifest> {
        let entry = |f: FileHashes| match (f.sha256, f.blake3) {
            (Some(sha256), Some(blake3)) => Ok(FileEntry { path: f.path, size: f.size, sha256, blake3 }),
            _ => Err(Error::invalid_options("a manifest has SHA-256 and BLAKE3 of every file")),
        };
        let files = self.files.into_iter().map(entry).collect::<Result<_>>()?;
        Ok(Manifest::new(self.covers, files, self.models))
    }
}

/// Hashes a model's folder with all its files, or a file with those that belong to it: the shards of an index, the external
/// data of an ONNX model.
///
/// # Errors
/// What the system says, with the path; for a single file that is a broken model what its reader says; `Cancelled`.
pub fn hash(path: &Path, options: &HashOptions<'_>) -> Result<Hashes> {
    if is_folder(path)? {
        let files = listing::list(path)?;
        return Work::new(path, files, options)?.hash(Covers::Folder);
    }
    let (folder, name) = split(path)?;
    let mut files = BTreeMap::from([(name, path.to_owned())]);
    // What belongs to the file is known when it is opened.
    match options.registry.open_path(path, &options.read) {
        Ok(archive) => {
            for file in archive.files() {
                let below = file.strip_prefix(&folder).ok().and_then(|p| p.to_str());
                if let Some(below) = below {
                    files.insert(below.to_owned(), file);
                }
            }
        }
        Err(e) if options.logical && is_broken(&e) => return Err(e),
        Err(_) => {}
    }
    Work::new(&folder, files, options)?.hash(Covers::Files)
}

/// Hashes these files of a folder, by their paths below it.
///
/// # Errors
/// As [`hash`].
pub fn hash_files(folder: &Path, paths: &[String], options: &HashOptions<'_>) -> Result<Hashes> {
    let real = listing::real(folder)?;
    let mut files = BTreeMap::new();
    for path in paths {
        super::record::check_path(path)?;
        files.insert(path.clone(), listing::inside(&real, &folder.join(path))?);
    }
    Work::new(folder, files, options)?.hash(Covers::Files)
}

/// The folder of a file, and its name.
pub(super) fn split(path: &Path) -> Result<(PathBuf, String)> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Err(Error::invalid_options("the file's name is no text").with_path(path));
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((folder, name.to_owned()))
}

/// The digests of a file that was written just now, if it still has its length.
fn written<'w>(options: &HashOptions<'w>, name: &str, path: &Path) -> Option<&'w FileDigests> {
    let found = options.written.iter().find(|f| f.name == name)?;
    std::fs::metadata(path).is_ok_and(|m| m.len() == found.size).then_some(found)
}

/// Whether an error says that this is a model, and a broken one.
fn is_broken(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::UnknownFormat | ErrorKind::Unsupported | ErrorKind::FormatDisabled)
}

struct Work<'w, 'o> {
    folder: &'w Path,
    files: BTreeMap<String, PathBuf>,
    /// The names of files by where their bytes are.
    names: HashMap<PathBuf, String>,
    options: &'w HashOptions<'o>,
    notes: Vec<Note>,
}

/// A model that is opened, with what is known of its tensors.
struct Opened {
    path: String,
    files: Vec<String>,
    archive: Box<dyn Archive>,
    /// Which of the files each tensor is in, where the model is a sharded set.
    shards: HashMap<String, u32>,
    /// The hashes that are known.
    hashes: Vec<Option<Digest>>,
}

/// A part of a file that is one tensor or several: its offset and length, and which models and tensors.
type Part = ((u64, u64), Vec<(usize, usize)>);
/// The parts of a file in their order.
type Parts = BTreeMap<(u64, u64), Vec<(usize, usize)>>;

/// A model, a tensor of it, and the digest of its bytes that was made when they were written.
type Made = (usize, usize, Digest);

impl<'w, 'o> Work<'w, 'o> {
    fn new(folder: &'w Path, files: BTreeMap<String, PathBuf>, options: &'w HashOptions<'o>) -> Result<Self> {
        let mut names = HashMap::with_capacity(files.len());
        for (name, path) in &files {
            names.insert(listing::real(path)?, name.clone());
        }
        Ok(Self { folder, files, names, options, notes: Vec::new() })
    }

    fn hash(mut self, covers: Covers) -> Result<Hashes> {
        let mut models = if self.options.logical { self.open_models(covers)? } else { Vec::new() };
        let wanted = Wanted { sha256: self.options.sha256, blake3: self.options.blake3 };
        let any = wanted.sha256 || wanted.blake3;
        let known = self.files.iter().filter_map(|(n, p)| Some((&**n, written(self.options, n, p)?)));
        let known: HashMap<&str, &FileDigests> = known.collect();
        let (mut parts, made) = if any { self.parts(&models, &known) } else { Default::default() };
        for (m, t, digest) in &made {
            let model = &mut models[*m];
            model.hashes[*t] = Some(tensor_hash(&model.archive.tensors()[*t], digest));
        }
        let paths: Vec<(String, PathBuf)> = self.files.iter().map(|(n, p)| (n.clone(), p.clone())).collect();
        let sizes = paths.iter().map(|(_, p)| std::fs::metadata(p).map_or(0, |m| m.len()));
        let sizes: Vec<u64> = sizes.collect();
        let covered: HashSet<(usize, usize)> =
            parts.values().flatten().flat_map(|(_, tensors)| tensors.iter().copied()).collect();
        let made: HashSet<(usize, usize)> = made.into_iter().map(|(m, t, _)| (m, t)).collect();
        let rest = |models: &[Opened]| -> Vec<(usize, Vec<usize>)> {
            let left = |(m, model): (usize, &Opened)| {
                let tensors = 0..model.archive.tensors().len();
                let apart = |t: &usize| !covered.contains(&(m, *t)) && !made.contains(&(m, *t));
                (m, tensors.filter(apart).collect())
            };
            models.iter().enumerate().map(left).collect()
        };
        let rest = rest(&models);
        let apart = rest.iter().flat_map(|(m, tensors)| {
            let infos = models[*m].archive.tensors();
            tensors.iter().map(|&t| infos[t].bytes())
        });
        let unread = paths.iter().zip(&sizes).filter(|((n, _), _)| any && !known.contains_key(&**n));
        let total = apart.chain(unread.map(|(_, size)| *size)).fold(0u64, u64::saturating_add);
        let quiet = self.options.observer.map(Quiet);
        let observer = quiet.as_ref().map(|q| q as &dyn Observer);
        if let Some(observer) = self.options.observer {
            observer.started(total);
        }
        let mut files = Vec::with_capacity(paths.len());
        if any {
            let mut places = Vec::new();
            let mut jobs = Vec::new();
            for (name, path) in &paths {
                if known.contains_key(&**name) {
                    continue;
                }
                let found: Vec<Part> = parts.remove(name).unwrap_or_default();
                jobs.push(Job::new(path, wanted).parts(found.iter().map(|p| p.0).collect()));
                places.push(found);
            }
            let mut options = DigestOptions::default().threads(self.options.threads).observer(observer);
            options.cache = self.options.cache;
            let mut done = run(jobs, &options)?.into_iter().zip(places);
            for (name, _) in &paths {
                if let Some(known) = known.get(&**name) {
                    let (sha256, blake3) =
                        (wanted.sha256.then_some(known.in_order), wanted.blake3.then_some(known.blake3));
                    files.push(FileHashes { path: name.clone(), size: known.size, sha256, blake3 });
                    continue;
                }
                let Some((done, found)) = done.next() else {
                    return Err(Error::invalid_options("a file was not hashed"));
                };
                let done = done?;
                for (digest, (_, tensors)) in done.parts.iter().zip(found) {
                    for (m, t) in tensors {
                        let model = &mut models[m];
                        model.hashes[t] = Some(tensor_hash(&model.archive.tensors()[t], digest));
                    }
                }
                let (sha256, blake3) = (done.sha256, done.blake3);
                files.push(FileHashes { path: name.clone(), size: done.size, sha256, blake3 });
            }
        } else {
            let file = |((path, _), size): (&(String, PathBuf), &u64)| FileHashes {
                path: path.clone(),
                size: *size,
                sha256: None,
                blake3: None,
            };
            files.extend(paths.iter().zip(&sizes).map(file));
        }
        for (m, tensors) in rest {
            let model = &mut models[m];
            match hash_tensors(&*model.archive, &tensors, self.options.threads, observer) {
                Ok(hashes) => tensors.iter().zip(hashes).for_each(|(&t, hash)| model.hashes[t] = Some(hash)),
                Err(e) if covers == Covers::Files || e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => self.notes.push(not_read(&model.path, &e)),
            }
        }
        if let Some(observer) = self.options.observer {
            observer.finished();
        }
        let models = models.into_iter().filter_map(Opened::entry).collect();
        Ok(Hashes { covers, files, models, notes: self.notes })
    }

    /// Opens every model among the files: sets by their indices first, then what no set has.
    fn open_models(&mut self, covers: Covers) -> Result<Vec<Opened>> {
        let base = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        let candidate =
            |name: &&String| covers == Covers::Files || self.options.registry.is_weights_name(&base(name));
        let mut names: Vec<String> = self.files.keys().filter(candidate).cloned().collect();
        names.sort_by_key(|name| !name.ends_with(".index.json"));
        let mut taken: HashSet<String> = HashSet::new();
        let mut models = Vec::new();
        for name in names {
            if taken.contains(&name) {
                continue;
            }
            match self.open(&name) {
                Ok(model) => {
                    taken.extend(model.files.iter().cloned());
                    models.push(model);
                }
                // Who cannot read a model does not know that it is none.
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                // A text is no model, and nobody expects one.
                Err(e)
                    if e.kind() == ErrorKind::UnknownFormat
                        && !self.options.registry.is_weights_name(&name) => {}
                Err(e) => self.notes.push(not_read(&name, &e)),
            }
        }
        Ok(models)
    }

    fn open(&self, name: &str) -> Result<Opened> {
        // By its own name, beside which its shards are, whatever it links to.
        let archive = self.options.registry.open_path(self.folder.join(name), &self.options.read)?;
        let mut files: Vec<String> = Vec::new();
        for file in archive.files() {
            let below = file.strip_prefix(self.folder).ok().and_then(|p| p.to_str());
            let known = below.filter(|b| self.files.contains_key(*b)).map(str::to_owned);
            let known = known.or_else(|| self.names.get(&std::fs::canonicalize(&file).ok()?).cloned());
            files.push(known.ok_or_else(|| {
                Error::unsupported("a part of the model is none of the files that are hashed").with_path(file)
            })?);
        }
        if files.is_empty() {
            files.push(name.to_owned());
        }
        files.sort();
        files.dedup();
        let mut shards = HashMap::new();
        if name.ends_with(".index.json") && files.len() > 2 {
            for (number, file) in (0..).zip(&files).filter(|(_, f)| *f != name) {
                let shard = self.options.registry.open_path(self.folder.join(file), &self.options.read)?;
                shards.extend(shard.tensors().iter().map(|t| (t.name().to_owned(), number)));
            }
        }
        let hashes = vec![None; archive.tensors().len()];
        Ok(Opened { path: name.to_owned(), files, archive, shards, hashes })
    }

    /// The tensors that are plain parts of a file, by file, in their order, none over another; and the digests of those that
    /// were made when their file was written.
    fn parts(
        &self,
        models: &[Opened],
        known: &HashMap<&str, &FileDigests>,
    ) -> (HashMap<String, Vec<Part>>, Vec<Made>) {
        let names: HashMap<Identity, &String> = self
            .files
            .iter()
            .filter_map(|(name, path)| Some((identity(&std::fs::metadata(path).ok()?)?, name)))
            .collect();
        let mut found: HashMap<&String, Parts> = HashMap::new();
        let mut made = Vec::new();
        for (m, model) in models.iter().enumerate() {
            if !known.is_empty() {
                for (t, (offset, len, id)) in places(&*model.archive) {
                    let Some(file) = names.get(&id).and_then(|name| known.get(name.as_str())) else {
                        continue;
                    };
                    let at = file.data.binary_search_by_key(&offset, |(offset, ..)| *offset);
                    if let Some((_, size, digest)) = at.ok().and_then(|at| file.data.get(at))
                        && *size == len
                    {
                        made.push((m, t, *digest));
                    }
                }
            }
            for (t, (offset, len, id)) in spans(&*model.archive) {
                if let Some(name) = names.get(&id).filter(|name| !known.contains_key(name.as_str())) {
                    found.entry(name).or_default().entry((offset, len)).or_default().push((m, t));
                }
            }
        }
        let apart = |(name, parts): (&String, Parts)| {
            let mut end = 0;
            let free = parts.into_iter().filter(|((offset, len), _)| {
                let free = *offset >= end;
                end = if free { offset + len } else { end };
                free
            });
            (name.clone(), free.collect())
        };
        (found.into_iter().map(apart).collect(), made)
    }
}

/// Which file an open file is, whatever its name.
pub(super) type Identity = (u64, u64);

#[cfg(unix)]
pub(super) fn identity(meta: &std::fs::Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
pub(super) fn identity(_: &std::fs::Metadata) -> Option<Identity> {
    None
}

/// The tensors of an archive that are plain parts of a file: the tensor's number, offset, length and file.
pub(super) fn spans(archive: &dyn Archive) -> Vec<(usize, (u64, u64, Identity))> {
    located(archive, |data, len| data.span(0, len))
}

/// As [`spans`], with those that have a checksum too.
fn places(archive: &dyn Archive) -> Vec<(usize, (u64, u64, Identity))> {
    located(archive, |data, len| data.place(0, len))
}

fn located(
    archive: &dyn Archive,
    place: impl for<'d> Fn(&'d Data<'_>, u64) -> Option<FileSpan<'d>>,
) -> Vec<(usize, (u64, u64, Identity))> {
    let one = |t: usize| {
        let data = archive.data(t).ok()?;
        let len = data.len();
        if len == 0 || data.access() == Access::Sequential {
            return None;
        }
        let span = place(&data, len).filter(|s| s.len == len)?;
        Some((t, (span.offset, len, identity(&span.file.metadata().ok()?)?)))
    };
    (0..archive.tensors().len()).filter_map(one).collect()
}

fn not_read(name: &str, error: &Error) -> Note {
    Note::warning(format!("{name} is not read as a model: {error}"))
}

impl Opened {
    /// `None` if a tensor could not be read.
    fn entry(self) -> Option<ModelEntry> {
        let infos = self.archive.tensors();
        let mut tensors = Vec::with_capacity(infos.len());
        for (info, hash) in infos.iter().zip(self.hashes) {
            tensors.push(TensorEntry {
                name: info.name().to_owned(),
                dtype: info.dtype(),
                shape: info.shape().to_vec(),
                hash: hash?,
                file: self.shards.get(info.name()).copied(),
            });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let logical = model_hash(tensors.iter().map(|t| (&*t.name, t.hash)));
        Some(ModelEntry {
            path: self.path,
            files: self.files,
            format: self.archive.format().to_owned(),
            variety: self.archive.variety(),
            logical,
            tensors,
        })
    }
}

/// An observer that was told the total by somebody else.
pub(super) struct Quiet<'a>(pub(super) &'a dyn Observer);

impl Observer for Quiet<'_> {
    fn advanced(&self, bytes: u64) {
        self.0.advanced(bytes);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
