//! Opening a whole model: weights, configs, tokenizer and what else is in its folder.

use std::path::{Path, PathBuf};

use weighbridge_formats::transform::{Retie, Select, Tie, recorded_ties, tied};
use weighbridge_formats::value::Value;
use weighbridge_formats::{
    Archive, Error, ErrorKind, Note, ReadOptions, Registry, Result, Source, TensorInfo,
};
use weighbridge_trust::manifest::{Checked, Recorded, VerifyOptions, verify};

use crate::architecture::{Architecture, architecture};
use crate::config::Config;
use crate::files::{self, ModelFile, Role, role};
use crate::names::unwrapped;
use crate::report::{Expected, LoadReport, compare};
use crate::tokenizer::{FileKind, Finding, Tokenizer, TokenizerFiles};

/// The parts of a training checkpoint that are a model's weights, the usual ones first.
const PARTS: &[&str] = &["model_state_dict", "state_dict", "model"];

/// What to do where the weights are not what is expected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Strict,
    Lenient,
    Report,
}

/// When a model is held against its manifest.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// All files, before anything is opened.
    Whole,
    /// All files but the weights, before anything is opened; each tensor when it is first read, before a byte of it is
    /// given. Metadata and values in the files of weights are not covered.
    AsRead,
}

/// How to open a model.
///
/// ```no_run
/// use weighbridge_model::ModelLoader;
///
/// let model = ModelLoader::new("bert-base").load()?;
/// println!("{} parameters", model.weights().parameters());
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
pub struct ModelLoader {
    path: PathBuf,
    weights: Option<PathBuf>,
    config: Option<PathBuf>,
    generation_config: Option<PathBuf>,
    tokenizer: Vec<PathBuf>,
    select: Option<String>,
    registry: Registry,
    read: ReadOptions,
    expected: Option<Expected>,
    check: Check,
    ties: bool,
    unwrap: bool,
    demand: Option<Demand>,
}

impl ModelLoader {
    /// A model's folder, the index of a sharded set, or a file of weights. Beside a file the configs and tokenizer
    /// of the same folder are taken, where they have their usual names.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            weights: None,
            config: None,
            generation_config: None,
            tokenizer: Vec::new(),
            select: None,
            registry: Registry::builtin(),
            read: ReadOptions::default(),
            expected: None,
            check: Check::Strict,
            ties: true,
            unwrap: true,
            demand: None,
        }
    }

    /// These weights, and not those that the folder has under the usual names.
    pub fn weights(mut self, path: impl Into<PathBuf>) -> Self {
        self.weights = Some(path.into());
        self
    }

    /// This config.
    pub fn config(mut self, path: impl Into<PathBuf>) -> Self {
        self.config = Some(path.into());
        self
    }

    /// This generation config.
    pub fn generation_config(mut self, path: impl Into<PathBuf>) -> Self {
        self.generation_config = Some(path.into());
        self
    }

    /// One more file of the tokenizer; if any is given, the folder's own are not taken.
    pub fn tokenizer_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tokenizer.push(path.into());
        self
    }

    /// The part of a training checkpoint that is the model. By default the first of `model_state_dict`,
    /// `state_dict` and `model` that a nested file has; an empty text takes the whole file.
    pub fn select(mut self, part: impl Into<String>) -> Self {
        self.select = Some(part.into());
        self
    }

    /// The formats to open with.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Choices for opening files.
    pub fn read_options(mut self, options: ReadOptions) -> Self {
        self.read = options;
        self
    }

    /// What the weights must be. By default what a known architecture's config says.
    pub fn expect(mut self, expected: Expected) -> Self {
        self.expected = Some(expected);
        self
    }

    /// Whether missing and unexpected tensors and other dtypes are an error. Default: yes. Without it they stand in
    /// [`Model::report`]; another shape is an error always.
    pub fn strict(mut self, strict: bool) -> Self {
        self.check = if strict { Check::Strict } else { Check::Lenient };
        self
    }

    /// Leaves every difference to [`Model::report`], other shapes too: for looking at a model, not for using it.
    pub fn report_only(mut self) -> Self {
        self.check = Check::Report;
        self
    }

    /// Whether tied names that the file does not store are restored. Default: yes.
    pub fn restore_ties(mut self, restore: bool) -> Self {
        self.ties = restore;
        self
    }

    /// Whether what training wraps around a model (`module.`, `_orig_mod.`, FSDP's prefix) is taken off the names.
    /// Default: yes.
    pub fn unwrap_names(mut self, unwrap: bool) -> Self {
        self.unwrap = unwrap;
        self
    }

    /// Demands that the model is as its manifest records it: `weighbridge.json` of the folder, or that of the file. The
    /// default asks for none. Files that were chosen by path are held against the manifest of their own folder.
    pub fn require_manifest(mut self, demand: Demand) -> Self {
        self.demand = Some(demand);
        self
    }

    /// Opens the model. No tensor is read before it is asked for.
    ///
    /// # Errors
    /// Where a manifest is demanded, `NotFound` without one, and `Mismatch` with what differs. What opening the weights says; `Malformed` for a config that is none; `Mismatch` with the names where the
    /// weights are not what is expected.
    pub fn load(self) -> Result<Model> {
        let mut notes = Vec::new();
        let is_folder = self.path.is_dir();
        let folder = if is_folder { self.path.clone() } else { parent(&self.path) };
        let path = self.weights.as_ref().unwrap_or(&self.path);
        let recorded = self.demand.map(|demand| self.verified(path, demand)).transpose()?;
        let mut archive = self.registry.open_path(path, &self.read)?;
        if let (Some(Demand::AsRead), Some(recorded)) = (self.demand, &recorded) {
            let model = archive.files().iter().find_map(|file| recorded.model_of(file));
            let model = model.ok_or_else(|| {
                Error::mismatch("the manifest records no tensors of these weights").with_path(path)
            })?;
            archive = Box::new(Checked::new(archive, model).map_err(|e| e.with_path(path))?);
        }
        let mut found =
            if is_folder { files::list(&self.registry, &folder, &mut notes)? } else { Vec::new() };
        if let Some(first) = archive.files().first() {
            if is_folder {
                files::inside_only(&mut found, &folder, &Source::open(first)?, &mut notes);
            } else {
                found = companions(&self.registry, &Source::open(first)?, &folder);
            }
        }
        self.choose_files(&mut found)?;
        let read = |role: Role| {
            let file = found.iter().find(|f| f.role == role);
            file.map(|f| Config::read(&f.path, &self.read.limits)).transpose()
        };
        let (config, generation_config) = (read(Role::Config)?, read(Role::GenerationConfig)?);
        let architecture = config.as_ref().and_then(architecture);
        let (weights, ties) = self.arrange(archive, architecture.as_ref(), &mut notes)?;
        let expected = self.expected.as_ref().or(architecture.as_ref().map(|a| &a.expected));
        let report = match expected {
            Some(expected) => {
                let report = compare(expected, &*weights);
                Some(match self.check {
                    Check::Report => report,
                    check => {
                        report.into_result(check == Check::Strict).map_err(|e| e.with_path(&self.path))?
                    }
                })
            }
            None => None,
        };
        Ok(Model {
            folder,
            path: self.path,
            weights,
            config,
            generation_config,
            files: found,
            architecture,
            ties,
            report,
            notes,
        })
    }

    /// The manifest that the model is as, as far as files are to be read for that now.
    fn verified(&self, weights: &Path, demand: Demand) -> Result<Recorded> {
        let mut options = VerifyOptions::default();
        options.registry = self.registry.clone();
        options.read = self.read.clone();
        let chosen = [&self.config, &self.generation_config].into_iter().flatten().chain(&self.tokenizer);
        for path in chosen.filter(|p| p.parent() != Some(&self.path)) {
            verify(&Recorded::find(path, None)?, &options)?.into_result().map_err(|e| e.with_path(path))?;
        }
        let mut recorded = Recorded::find(&self.path, None)?;
        if weights != self.path && !weights.starts_with(&recorded.folder) {
            let own = Recorded::find(weights, None)?;
            verify(&recorded, &options)?.into_result().map_err(|e| e.with_path(&self.path))?;
            recorded = own;
        }
        let located = |e: Error| e.with_path(&recorded.folder);
        if demand == Demand::Whole {
            verify(&recorded, &options)?.into_result().map_err(located)?;
            return Ok(recorded);
        }
        options.quick = true;
        verify(&recorded, &options)?.into_result().map_err(located)?;
        let models = recorded.manifest.models.iter().flat_map(|m| &m.files);
        let models: std::collections::HashSet<&String> = models.collect();
        let asked = |path: &String| recorded.only.as_ref().is_none_or(|only| only.contains(path));
        let rest = recorded.manifest.files.iter().map(|f| &f.path);
        let rest = rest.filter(|p| asked(p) && !models.contains(p)).cloned().collect();
        let mut others = recorded.clone();
        others.only = Some(rest);
        options.quick = false;
        verify(&others, &options)?.into_result().map_err(located)?;
        Ok(recorded)
    }

    /// Puts the files that were chosen by path in the place of those that were found.
    fn choose_files(&self, found: &mut Vec<ModelFile>) -> Result<()> {
        let mut replace = |role: Role, paths: &[&PathBuf], name: Option<&str>| {
            if paths.is_empty() {
                return Ok(());
            }
            found.retain(|f| f.role != role);
            for path in paths {
                let source = Source::open(path)?;
                let own = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let name = name.unwrap_or(own).to_owned();
                found.push(ModelFile { name, role, path: (*path).clone(), bytes: source.len() });
            }
            Ok::<(), Error>(())
        };
        let config: Vec<&PathBuf> = self.config.iter().collect();
        let generation: Vec<&PathBuf> = self.generation_config.iter().collect();
        replace(Role::Config, &config, Some("config.json"))?;
        replace(Role::GenerationConfig, &generation, Some("generation_config.json"))?;
        replace(Role::Tokenizer, &self.tokenizer.iter().collect::<Vec<_>>(), None)
    }

    /// The weights proper of what was opened: the part that is the model, under its own names, tied as it was.
    fn arrange(
        &self,
        mut archive: Box<dyn Archive>,
        architecture: Option<&Architecture>,
        notes: &mut Vec<Note>,
    ) -> Result<(Box<dyn Archive>, Vec<Tie>)> {
        let part = match &self.select {
            Some(part) if part.is_empty() => None,
            Some(part) => Some(part.clone()),
            None => usual_part(&*archive).map(str::to_owned),
        };
        if let Some(part) = part {
            if self.select.is_none() {
                notes.push(Note::info(format!("of the checkpoint, {part:?} is the model")));
            }
            archive = Box::new(Select::new(archive, &part)?);
        }
        if self.unwrap {
            archive = unwrapped(archive)?;
        }
        let mut ties: Vec<Tie> = Vec::new();
        if self.ties {
            let names: std::collections::HashSet<&str> =
                archive.tensors().iter().map(TensorInfo::name).collect();
            let metadata = archive.metadata().to_vec();
            ties = recorded_ties(archive.tensors(), &metadata);
            for tie in architecture.iter().flat_map(|a| &a.ties) {
                let known = names.contains(&*tie.alias) || ties.iter().any(|t| t.alias == tie.alias);
                if !known && names.contains(&*tie.tensor) {
                    ties.push(tie.clone());
                }
            }
            if !ties.is_empty() {
                archive = Box::new(Retie::new(archive, &ties)?);
            }
        }
        let name = |i: usize| archive.tensors()[i].name().to_owned();
        for group in tied(&*archive) {
            let restored: Vec<bool> =
                group.iter().map(|&i| ties.iter().any(|t| t.alias == archive.tensors()[i].name())).collect();
            let Some(first) = restored.iter().position(|r| !r).map(|at| group[at]) else { continue };
            for (&i, restored) in group.iter().zip(&restored) {
                if i != first && !restored {
                    ties.push(Tie { alias: name(i), tensor: name(first) });
                }
            }
        }
        Ok((archive, ties))
    }
}

/// The folder that a file is in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The configs and the tokenizer beside a file of weights. Other files of its folder may be anything.
fn companions(registry: &Registry, anchor: &Source, folder: &Path) -> Vec<ModelFile> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().take(100_000);
    let mut found: Vec<ModelFile> = names
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let role = role(registry, &name);
            let wanted = matches!(role, Role::Config | Role::GenerationConfig | Role::Tokenizer);
            let source = wanted.then(|| anchor.sibling(&name).ok())??;
            Some(ModelFile { name, role, path: entry.path(), bytes: source.len() })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The part of a nested checkpoint that is the model.
fn usual_part(archive: &dyn Archive) -> Option<&'static str> {
    let values = archive.values()?;
    let root = values.root()?;
    let container = |part: &&&str| {
        values.entry(root, part).is_some_and(|id| matches!(values.get(id), Value::Dict(_) | Value::Object(_)))
    };
    PARTS.iter().find(container).copied()
}

/// An opened model.
pub struct Model {
    folder: PathBuf,
    path: PathBuf,
    weights: Box<dyn Archive>,
    config: Option<Config>,
    generation_config: Option<Config>,
    files: Vec<ModelFile>,
    architecture: Option<Architecture>,
    ties: Vec<Tie>,
    report: Option<LoadReport>,
    notes: Vec<Note>,
}

impl Model {
    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The weights, lazily: tied names that the file does not store are there too.
    pub fn weights(&self) -> &dyn Archive {
        &*self.weights
    }

    /// The config, where there is one.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// The generation config, where there is one.
    pub fn generation_config(&self) -> Option<&Config> {
        self.generation_config.as_ref()
    }

    /// The files of the model, weights included, by name.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// The files of one role.
    pub fn files_of(&self, role: Role) -> impl Iterator<Item = &ModelFile> {
        self.files.iter().filter(move |f| f.role == role)
    }

    /// The files of the tokenizer, and which layout they are.
    ///
    /// # Errors
    /// `Malformed` for a tokenizer's config that is no JSON object.
    pub fn tokenizer_files(&self) -> Result<TokenizerFiles> {
        let mut chosen = Vec::new();
        for file in self.files_of(Role::Tokenizer) {
            let base = file.name.to_lowercase();
            let kind = FileKind::ALL.iter().find(|kind| kind.names().contains(&&*base));
            chosen.extend(kind.map(|kind| (*kind, file.path.clone())));
        }
        TokenizerFiles::find(&self.folder, &chosen)
    }

    /// The tokenizer; `None` where there is none.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let files = self.tokenizer_files()?;
        if files.is_empty() { Ok(None) } else { Tokenizer::load(&files).map(Some) }
    }

    /// Holds a tokenizer against the config and the rows of the input embedding.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Vec<Finding> {
        let config = self.config().map(|c| serde_json::Value::Object(c.fields().clone()));
        tokenizer.check(config.as_ref(), self.embedding_rows())
    }

    /// The rows of the input embedding, by the names that the known architectures give it.
    fn embedding_rows(&self) -> Option<u64> {
        const NAMES: &[&str] =
            &["word_embeddings.weight", "wte.weight", "embed_tokens.weight", "shared.weight"];
        let named = |t: &&TensorInfo| {
            let name = t.name();
            NAMES.iter().any(|n| name.strip_suffix(n).is_some_and(|at| at.is_empty() || at.ends_with('.')))
        };
        self.weights.tensors().iter().find(named)?.shape().first().copied()
    }

    /// What the config's architecture expects, where it is a known one.
    pub fn architecture(&self) -> Option<&Architecture> {
        self.architecture.as_ref()
    }

    /// The names that stand for another tensor: as stored, as recorded, and as the architecture has them.
    pub fn ties(&self) -> &[Tie] {
        &self.ties
    }

    /// How the weights differ from what was expected; `None` where nothing is known of them.
    pub fn report(&self) -> Option<&LoadReport> {
        self.report.as_ref()
    }

    /// What opening has to say, the reader's notes excepted.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Every tensor in memory, read by several threads, each with its name, dtype and shape.
    ///
    /// # Errors
    /// What the source says; `LimitExceeded` if it does not fit in memory.
    pub fn read_all(&self) -> Result<Vec<(TensorInfo, Box<[u8]>)>> {
        let bytes = weighbridge_formats::read_all(&*self.weights, None).map_err(|e| match e.kind() {
            ErrorKind::LimitExceeded => e.with_hint("read single tensors, or a model with fewer"),
            _ => e,
        })?;
        Ok(self.weights.tensors().iter().cloned().zip(bytes).collect())
    }
}
