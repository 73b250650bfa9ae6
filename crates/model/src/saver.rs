//! Saving a whole model: weights, configs, tokenizer and assets, all of it or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use weighbridge_formats::transform::{CastStats, KeptWide, Precision, TensorCast, Tie, Untie, tied};
use weighbridge_formats::write::{
    ExecuteOptions, FileDigests, FilePlan, Observer, WritePlan, execute_folder, replace_folder,
};
use weighbridge_formats::{
    Archive, DType, Data, Error, ErrorKind, Note, NoteKind, Registry, Result, Source, ValuesPolicy,
    WriteOptions,
};
use weighbridge_trust::manifest::{HashOptions, IN_PASS, NAME, Provenance, hash, hash_files};

use crate::architecture::architecture;
use crate::config::Config;
use crate::files::{ModelFile, Role, role};
use crate::loader::Model;
use crate::names::{rank, unwrapped};
use crate::tokenizer::{Layout, Tokenizer};

/// Assets up to this size are read when the write is planned, so that thousands of them take no descriptors.
const SMALL: u64 = 1 << 20;

/// A file to be saved beside the weights.
enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// How to save a model.
///
/// ```
/// use weighbridge_formats::{DType, Data, MemoryArchive, Tensor};
/// use weighbridge_model::{Config, ModelLoader, ModelSaver, Precision};
///
/// # let folder = std::env::temp_dir().join(format!("weighbridge-saver-{}", std::process::id()));
/// let bytes: Vec<u8> = [0.5f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
/// let tensor = Tensor::new("module.w", DType::F32, [2].as_slice(), Data::Borrowed(&bytes))?;
/// let weights = MemoryArchive::new([tensor])?;
///
/// let report = ModelSaver::new(&weights)
///     .config(Config::parse(r#"{"model_type": "mine", "torch_dtype": "float32"}"#)?)
///     .precision(Precision::to(DType::F16))
///     .save(&folder)?;
/// assert_eq!((report.bytes_before, report.bytes_after), (8, 4));
///
/// let model = ModelLoader::new(&folder).load()?;
/// assert_eq!(model.weights().tensors()[0].name(), "w");
/// assert_eq!(model.config().and_then(|c| c.dtype()), Some(DType::F16));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
pub struct ModelSaver<'a> {
    weights: &'a dyn Archive,
    config: Option<Config>,
    files: BTreeMap<String, Content>,
    ties: Vec<Tie>,
    format: String,
    file_name: Option<String>,
    precision: Precision,
    max_shard_size: Option<u64>,
    metadata: Vec<(String, String)>,
    notes: Vec<Note>,
    allow_loss: bool,
    unwrap: bool,
    fsync: bool,
    threads: Option<usize>,
    overwrite: bool,
    mode: Option<u32>,
    observer: Option<&'a dyn Observer>,
    registry: Registry,
    manifest: bool,
    provenance: Option<Provenance>,
}

impl<'a> ModelSaver<'a> {
    /// Saves these weights, as safetensors unless another format is chosen.
    pub fn new(weights: &'a dyn Archive) -> Self {
        Self {
            weights,
            config: None,
            files: BTreeMap::new(),
            ties: Vec::new(),
            format: "safetensors".into(),
            file_name: None,
            precision: Precision::unchanged(),
            max_shard_size: None,
            metadata: Vec::new(),
            notes: Vec::new(),
            allow_loss: false,
            unwrap: true,
            fsync: true,
            threads: None,
            overwrite: false,
            mode: None,
            observer: None,
            registry: Registry::builtin(),
            manifest: true,
            provenance: None,
        }
    }

    /// These weights in the place of those that were given first.
    pub fn weights(mut self, weights: &'a dyn Archive) -> Self {
        self.weights = weights;
        self
    }

    /// Saves a model that was loaded, with its configs, tokenizer and assets. Weights in other formats, and what a
    /// trainer left to resume from, are not carried over.
    ///
    /// # Errors
    /// `InvalidOptions` for a file whose name could not be written.
    pub fn of(model: &'a Model) -> Result<Self> {
        let mut saver = Self::new(model.weights());
        saver.config = model.config().cloned();
        saver.ties = model.architecture().map(|a| a.ties.clone()).unwrap_or_default();
        for file in model.files() {
            if matches!(file.role, Role::Tokenizer | Role::GenerationConfig | Role::Asset | Role::Code) {
                saver = saver.file(&file.name, &file.path)?;
            }
        }
        Ok(saver)
    }

    /// The config, saved as `config.json` with the dtype of the precision in it.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// The config of any type that serde can write as a JSON object.
    ///
    /// # Errors
    /// As [`Config::from_value`].
    pub fn config_of(self, config: &impl Serialize) -> Result<Self> {
        Ok(self.config(Config::from_value(config)?))
    }

    /// The generation config, saved as `generation_config.json`.
    pub fn generation_config(mut self, config: &Config) -> Self {
        let bytes = config.text().as_bytes().to_vec();
        self.files.insert("generation_config.json".into(), Content::Bytes(bytes));
        self
    }

    /// Files of a tokenizer, copied as they are under their own names.
    ///
    /// # Errors
    /// `InvalidOptions` for a name that could not be written.
    pub fn tokenizer_files<'f>(mut self, files: impl IntoIterator<Item = &'f ModelFile>) -> Result<Self> {
        for file in files {
            self = self.file(&file.name, &file.path)?;
        }
        Ok(self)
    }

    /// A tokenizer, in a layout that can hold it. Files of another layout that were given before stay.
    ///
    /// # Errors
    /// As [`Tokenizer::files`].
    pub fn tokenizer_as(mut self, tokenizer: &Tokenizer, layout: Layout) -> Result<Self> {
        let saved = tokenizer.files(layout, self.allow_loss)?;
        self.files.extend(saved.files.into_iter().map(|(name, bytes)| (name, Content::Bytes(bytes))));
        self.notes.extend(saved.notes);
        Ok(self)
    }

    /// An asset: a file that is copied to this name below the folder, with `/` between subfolders.
    ///
    /// # Errors
    /// `InvalidOptions` for a name that leaves the folder, or that is the config's.
    pub fn file(mut self, name: &str, path: impl Into<PathBuf>) -> Result<Self> {
        check_name(name)?;
        self.files.insert(name.to_owned(), Content::File(path.into()));
        Ok(self)
    }

    /// An asset of these bytes.
    ///
    /// # Errors
    /// As [`ModelSaver::file`].
    pub fn bytes(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Result<Self> {
        check_name(name)?;
        self.files.insert(name.to_owned(), Content::Bytes(bytes.into()));
        Ok(self)
    }

    /// The format of the weights, by its id: `safetensors`, `torch`.
    pub fn format(mut self, id: impl Into<String>) -> Self {
        self.format = id.into();
        self
    }

    /// The name of the weights' file; by default that by which the field finds them, `model.safetensors` or
    /// `pytorch_model.bin`.
    pub fn file_name(mut self, name: impl Into<String>) -> Self {
        self.file_name = Some(name.into());
        self
    }

    /// Which tensors get which dtype. The config states the policy's dtype then.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The most bytes of a file of weights; more make a sharded set.
    pub fn max_shard_size(mut self, bytes: u64) -> Self {
        self.max_shard_size = Some(bytes);
        self
    }

    /// Text for the metadata of the weights' file, where the format has such.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Names that stand for another tensor in the architecture: of tied names, the tensor's is the one stored.
    pub fn ties(mut self, ties: impl IntoIterator<Item = Tie>) -> Self {
        self.ties.extend(ties);
        self
    }

    /// Leave to lose what the format cannot hold; each loss is a note all the same.
    pub fn allow_loss(mut self, allow: bool) -> Self {
        self.allow_loss = allow;
        self
    }

    /// Whether what training wraps around a model (`module.`, `_orig_mod.`, FSDP's prefix) is taken off the names.
    /// Default: yes.
    pub fn unwrap_names(mut self, unwrap: bool) -> Self {
        self.unwrap = unwrap;
        self
    }

    /// Whether to wait until everything is on the disk. Default: yes.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// How many threads copy and cast; by default as many as there are processors, at most four.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The permissions of all files, less the umask, such as `0o600` for files that are the owner's alone; the folder
    /// can be entered by whom they let read. By default those that the umask leaves.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Leave to replace a folder that exists. Its weights, in whatever format, give way to the new ones; files that
    /// are not saved anew stay. Default: no.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Who is told of progress and may cancel.
    pub fn observer(mut self, observer: &'a dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The formats to write with.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Whether `weighbridge.json` is written, the record of all files and tensors of the folder, which
    /// [`ModelLoader::require_manifest`](crate::ModelLoader::require_manifest) and `weighbridge verify` hold it against.
    /// The hashes in it are made in the pass that writes. Default: yes.
    pub fn manifest(mut self, write: bool) -> Self {
        self.manifest = write;
        self
    }

    /// What the manifest says the model was made from.
    pub fn provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = Some(provenance);
        self
    }

    /// Writes the folder. Everything is in it when it appears, or nothing; a folder that is replaced is exchanged in
    /// one step. The model's own folder may be the target.
    ///
    /// # Errors
    /// Before anything is written: `InvalidOptions` for a folder that exists without leave, a loss without leave, a
    /// policy that does not fit. While writing: `InvalidOptions` for a number that the policy refuses, `Io` for what
    /// the system says. The folder is then as it was.
    pub fn save(mut self, folder: impl AsRef<Path>) -> Result<SaveReport> {
        let start = Instant::now();
        let folder = folder.as_ref();
        let serializer = self.registry.serializer(&self.format)?;
        let info = serializer.info();
        let Some(file_name) = self.file_name.take().or_else(|| info.default_name.map(str::to_owned)) else {
            let what = format!("{} has no usual file name", info.name);
            return Err(Error::invalid_options(what).with_hint("choose one with `file_name`"));
        };
        let mut archive: Box<dyn Archive + '_> = Box::new(self.weights);
        if self.unwrap {
            archive = unwrapped(archive)?;
        }
        let bytes_before = archive.bytes();
        if let Some(known) = self.config.as_ref().and_then(architecture) {
            self.ties.extend(known.ties);
        }
        let mut write = WriteOptions::default();
        let mut ties = Vec::new();
        if info.holds_sharing {
            let name = |i: usize| archive.tensors()[i].name().to_owned();
            for group in tied(&*archive) {
                ties.extend(group[1..].iter().map(|&i| Tie { alias: name(i), tensor: name(group[0]) }));
            }
        } else {
            let untied = Untie::new(archive, |name| rank(name, &self.ties))?;
            ties = untied.ties().to_vec();
            // transformers asks for the first; safetensors' own `load_model` and this crate read the ties.
            write.metadata.push(("format".into(), "pt".into()));
            write.metadata.extend(ties.iter().map(|t| (t.alias.clone(), t.tensor.clone())));
            archive = Box::new(untied);
        }
        let (cast, kept_wide) = self.precision.clone().measure(true).apply(archive, self.threads)?;
        write.file_name = file_name;
        write.max_shard_size = self.max_shard_size;
        write.values = ValuesPolicy::Drop;
        write.allow_loss = self.allow_loss;
        write.metadata.append(&mut self.metadata);
        let mut plan =
            serializer.plan(&cast, &write).map_err(|e| e.with_format(info.id).with_path(folder))?;
        let mut notes: Vec<Note> = cast.notes().to_vec();
        notes.append(&mut plan.notes);
        notes.append(&mut self.notes);
        notes.sort_by_key(|n| n.kind);
        if let Some(lost) = notes.iter().find(|n| n.kind == NoteKind::Lost).filter(|_| !self.allow_loss) {
            return Err(Error::invalid_options(format!("this would be lost: {}", lost.text)));
        }
        let mut dtype = None;
        if let Some(config) = &mut self.config {
            dtype = self.precision.dtype();
            if let Some(dtype) = dtype {
                config.set_dtype(dtype)?;
            }
            let bytes = config.text().as_bytes().to_vec();
            self.files.insert("config.json".into(), Content::Bytes(bytes));
        }
        let (tensors, parameters, bytes_after) = (
            cast.tensors().len() as u64,
            (&cast as &dyn Archive).parameters(),
            (&cast as &dyn Archive).bytes(),
        );
        for (name, content) in std::mem::take(&mut self.files) {
            if plan.files.iter().any(|f| f.name.eq_ignore_ascii_case(&name)) {
                let what = format!("{name:?} is both a file of the weights and an asset");
                return Err(Error::invalid_options(what).with_path(folder));
            }
            plan.files.push(content.plan(&name)?);
        }
        let sizes: Vec<u64> = plan.files.iter().map(FilePlan::len).collect();
        let (written, said) = self.execute(plan, folder)?;
        notes.extend(said);
        // The manifest is the one file that was not planned.
        let recorded = written.get(sizes.len()).and_then(|p| p.metadata().ok()).map(|m| m.len());
        let sizes = sizes.into_iter().chain(recorded);
        let casts = cast.report();
        let mut total = CastStats::default();
        casts.iter().for_each(|c| total.merge(&c.stats));
        Ok(SaveReport {
            format: info.id,
            files: written.into_iter().zip(sizes).collect(),
            tensors,
            parameters,
            bytes_before,
            bytes_after,
            ties,
            casts,
            cast_total: total,
            kept_wide,
            config_dtype: dtype,
            notes,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn execute(&self, plan: WritePlan<'_>, folder: &Path) -> Result<(Vec<PathBuf>, Vec<Note>)> {
        let mut options = ExecuteOptions::default();
        options.fsync = self.fsync;
        options.threads = self.threads;
        options.overwrite = self.overwrite;
        options.mode = self.mode;
        options.observer = self.observer;
        let planned: Vec<String> = plan.files.iter().map(|f| f.name.clone()).collect();
        let said = Mutex::new(Vec::new());
        let complete = |staged: &Path, digests: &[FileDigests]| {
            let (text, notes) = self.record(staged, &planned, digests)?;
            said.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
            Ok(text.map(|text| (NAME.to_owned(), text.into_bytes())).into_iter().collect())
        };
        if self.manifest {
            options.complete = Some(&complete);
            options.digests = Some(IN_PASS);
        }
        let source = |e: Error| match self.weights.files().first() {
            // What is wrong with a tensor is wrong in the source.
            Some(file) if e.tensor().is_some() => e.with_path(file),
            _ => e,
        };
        let written = if self.overwrite {
            // Weights that are not written anew would be those of another model, and so would be their manifest.
            let stays = |name: &str| {
                !matches!(role(&self.registry, name), Role::Weights | Role::OtherWeights | Role::Manifest)
            };
            replace_folder(plan, folder, &stays, &options)
        } else {
            execute_folder(plan, folder, &options)
        };
        let files = written.map_err(source)?.files;
        Ok((files, said.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The manifest of a folder that is complete but for it, and what there is to say.
    fn record(
        &self,
        staged: &Path,
        planned: &[String],
        written: &[FileDigests],
    ) -> Result<(Option<String>, Vec<Note>)> {
        let cancel = self.observer.map(OnlyCancel);
        let mut options = HashOptions::default();
        options.registry = self.registry.clone();
        options.threads = self.threads;
        options.observer = cancel.as_ref().map(|c| c as &dyn Observer);
        options.written = written;
        let mut notes = Vec::new();
        let hashes = match hash(staged, &options) {
            Err(e) if e.kind() != ErrorKind::Cancelled => {
                // What stayed from the old folder may be what no manifest of a folder can have.
                let what =
                    format!("the manifest has the files that were written, and not all of the folder: {e}");
                notes.push(Note::warning(what));
                hash_files(staged, planned, &options)?
            }
            hashes => hashes?,
        };
        let manifest = hashes.into_manifest()?.with_provenance(self.provenance.clone());
        match manifest.to_text() {
            Ok(text) => Ok((Some(text), notes)),
            Err(e) if e.kind() == ErrorKind::LimitExceeded => {
                notes.push(Note::warning(format!("no manifest was written: {}", e.message())));
                Ok((None, notes))
            }
            Err(e) => Err(e),
        }
    }
}

/// An observer that was told of all bytes already, and may cancel.
struct OnlyCancel<'a>(&'a dyn Observer);

impl Observer for OnlyCancel<'_> {
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

impl Content {
    fn plan(self, name: &str) -> Result<FilePlan<'static>> {
        let mut file = FilePlan::new(name);
        match self {
            Self::Bytes(bytes) => file.push_fixed(bytes)?,
            Self::File(path) => {
                let source = Source::open(&path)?;
                let slice = source.slice(0, source.len())?;
                let data = Data::lazy(slice);
                match source.len() {
                    0..=SMALL => file.push_fixed(data.read_all().map_err(|e| e.with_path(&path))?)?,
                    _ => file.push_data(data, name, false)?,
                }
            }
        };
        Ok(file)
    }
}

fn check_name(name: &str) -> Result<()> {
    if !weighbridge_formats::source::is_plain_relative(name) {
        return Err(Error::invalid_options(format!("{name:?} is no name of a file below the folder")));
    }
    if name.eq_ignore_ascii_case("config.json") {
        return Err(Error::invalid_options("config.json is written from the config that is given"));
    }
    Ok(())
}

/// What a save did.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct SaveReport {
    /// The id of the format of the weights.
    pub format: &'static str,
    /// The files that were written, each with its length in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// How many tensors are stored.
    pub tensors: u64,
    /// Their elements.
    pub parameters: u64,
    /// The bytes of all tensors before, tied names counted each.
    pub bytes_before: u64,
    /// The bytes of the tensors that are stored.
    pub bytes_after: u64,
    /// The names that stand for another tensor.
    pub ties: Vec<Tie>,
    /// What each cast met, by tensor.
    pub casts: Vec<TensorCast>,
    /// What all casts met together.
    pub cast_total: CastStats,
    /// The tensors that kept their dtype, since it alone holds their numbers.
    pub kept_wide: Vec<KeptWide>,
    /// The dtype that the config states now, where it was changed.
    pub config_dtype: Option<DType>,
    /// What the reader, the transforms and the writer have to say, from information to loss.
    pub notes: Vec<Note>,
    /// How long it took.
    pub seconds: f64,
}
