//! Loading and saving: a path in, a model out, and the other way round.

use std::path::{Path, PathBuf};

use weighbridge_formats::write::{ExecuteOptions, Observer, WritePlan, execute, replace_folder};
use weighbridge_formats::{Archive, Error, Note, NoteKind, ReadOptions, Result};

use crate::config::Config;
use crate::directory::{self, Layout};
use crate::model::TopicModel;
use crate::pickle;

/// How a model is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serialization {
    /// A directory with its tensors in safetensors.
    #[default]
    Safetensors,
    /// A directory with its tensors in torch files.
    Pytorch,
    /// One pickle.
    Pickle,
}

impl Serialization {
    /// What BERTopic calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pytorch => "pytorch",
            Self::Pickle => "pickle",
        }
    }

    /// The serialization of a name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Safetensors, Self::Pytorch, Self::Pickle].into_iter().find(|s| s.as_str() == name)
    }
}

/// Choices for loading.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The embedder to point to in place of the one that the model names.
    pub embedding_model: Option<String>,
    /// Whether to read c-TF-IDF, where the model has it. Default: yes.
    pub ctfidf: bool,
    /// How to read.
    pub read: ReadOptions,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { embedding_model: None, ctfidf: true, read: ReadOptions::default() }
    }
}

/// A model that was read.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub model: TopicModel,
    /// How it was kept.
    pub serialization: Serialization,
    /// What was changed, and what looks wrong.
    pub notes: Vec<Note>,
    /// The files that were read; images and the model card are read when they are written elsewhere.
    pub files: Vec<PathBuf>,
}

/// Reads a model: a directory in either serialization, or a pickle of a whole model, of which nothing is run.
///
/// # Errors
/// `NotFound` for a file that is missing; `Malformed` and `Unsupported` for what a file says; `Mismatch` where the
/// files contradict each other ([`TopicModel::check`]); `InvalidOptions` if a pickle is of something else.
pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Loaded> {
    let path = path.as_ref();
    let read = if path.is_dir() { directory::read(path, options) } else { pickle::read(path, options) };
    read.and_then(|read| checked(read, options)).map_err(|e| e.with_path(path))
}

/// As [`load`], of a pickle that is open already ([`is_pickle`](crate::is_pickle)).
///
/// # Errors
/// As [`load`].
pub fn load_archive(archive: &dyn Archive, options: &LoadOptions) -> Result<Loaded> {
    checked(pickle::from_archive(archive, options)?, options)
}

fn checked(read: directory::Read, options: &LoadOptions) -> Result<Loaded> {
    let directory::Read { mut model, mut notes, files, serialization } = read;
    notes.extend(model.check()?);
    if let Some(name) = &options.embedding_model {
        model.config.embedding_model = Some(name.clone());
    }
    Ok(Loaded { model, serialization, notes, files })
}

/// What a saved model says of its embedder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pointer {
    /// What the model says.
    #[default]
    Keep,
    /// Nothing.
    Leave,
    /// This name.
    Name(String),
}

/// Choices for saving.
#[non_exhaustive]
#[derive(Clone)]
pub struct SaveOptions<'a> {
    /// How to keep the model.
    pub serialization: Serialization,
    /// Whether to keep c-TF-IDF, where the model has it. Default: yes; BERTopic's own default is no.
    pub save_ctfidf: bool,
    /// What to say of the embedder.
    pub embedding_model: Pointer,
    /// The name of the model, or of its repository, for a model card that is written if there is none.
    pub model_card: Option<String>,
    /// The version of scikit-learn to name in a pickle; another one warns when it loads it.
    pub sklearn_version: String,
    /// Leave to lose what the target cannot hold; each loss is a note all the same.
    pub allow_loss: bool,
    /// Leave to replace what exists. Of a directory the model's own files are replaced, and others stay.
    pub overwrite: bool,
    /// Wait until the files are on the disk. Default: yes.
    pub fsync: bool,
    /// Who is told of progress and may cancel.
    pub observer: Option<&'a dyn Observer>,
}

impl Default for SaveOptions<'_> {
    fn default() -> Self {
        Self {
            serialization: Serialization::default(),
            save_ctfidf: true,
            embedding_model: Pointer::default(),
            model_card: None,
            sklearn_version: pickle::SKLEARN_VERSION.to_owned(),
            allow_loss: false,
            overwrite: false,
            fsync: true,
            observer: None,
        }
    }
}

impl SaveOptions<'_> {
    /// The model's parameters with the chosen pointer.
    pub(crate) fn config(&self, model: &TopicModel) -> Config {
        let mut config = model.config.clone();
        match &self.embedding_model {
            Pointer::Keep => {}
            Pointer::Leave => config.embedding_model = None,
            Pointer::Name(name) => config.embedding_model = Some(name.clone()),
        }
        config
    }

    fn execution(&self) -> ExecuteOptions<'_> {
        let mut how = ExecuteOptions::default();
        (how.fsync, how.overwrite, how.observer) = (self.fsync, self.overwrite, self.observer);
        how
    }
}

/// What saving made.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Saved {
    /// The files, each with its length in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// What was left out or changed.
    pub notes: Vec<Note>,
}

/// Writes a model: a directory, or one pickle. Everything is in place at the end, or nothing is.
///
/// # Errors
/// `Mismatch` for a model that contradicts itself; `InvalidOptions` for a target that exists without leave to
/// replace it, and for a loss without leave; `Io` for what the system says.
pub fn save(model: &TopicModel, path: impl AsRef<Path>, options: &SaveOptions<'_>) -> Result<Saved> {
    let path = path.as_ref();
    model.check()?;
    if options.serialization == Serialization::Pickle {
        let picture = pickle::Picture::new(model, options)?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            return Err(Error::invalid_options("the target's name is no text").with_path(path));
        };
        let plan = picture.plan(name)?;
        let saved = summary(&plan, &folder, options)?;
        execute(plan, &folder, &options.execution())?;
        return Ok(saved);
    }
    let layout = Layout::new(model, options)?;
    let plan = layout.plan()?;
    let saved = summary(&plan, path, options)?;
    let mut execution = options.execution();
    execution.overwrite |= is_empty(path);
    replace_folder(plan, path, &|name| !directory::is_own(name), &execution)?;
    Ok(saved)
}

/// Whether a folder is there with nothing in it.
fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The plan's files and notes, if nothing would be lost without leave.
fn summary(plan: &WritePlan<'_>, folder: &Path, options: &SaveOptions<'_>) -> Result<Saved> {
    if !options.allow_loss
        && let Some(lost) = plan.notes.iter().find(|n| n.kind == NoteKind::Lost)
    {
        return Err(
            Error::invalid_options(format!("this would be lost: {}", lost.text)).with_hint("allow the loss")
        );
    }
    let files = plan.files.iter().map(|f| (folder.join(&f.name), f.len())).collect();
    Ok(Saved { files, notes: plan.notes.clone() })
}
