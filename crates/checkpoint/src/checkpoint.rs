//! A checkpoint that is opened: of this crate, of torch, of transformers' Trainer, or of Lightning.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use weighbridge_formats::{Archive, Error, Limits, ReadOptions, Registry, Result, Source};

use crate::foreign::{self, TorchParts};
use crate::layout::{EXTRA, LOG, MANIFEST, RANDOM, SCHEDULER};
use crate::manifest::Manifest;
use crate::state::{State, TorchKeys, write_torch};
use crate::verify;

/// Who wrote a checkpoint.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This crate: a folder with a manifest.
    Native,
    /// transformers' Trainer: a folder such as `checkpoint-500`.
    Trainer,
    /// Lightning: one torch file, `.ckpt`.
    Lightning,
    /// One torch file with the state dicts of model and optimizer.
    Torch,
}

impl Kind {
    /// The word for it: `weighbridge`, `trainer`, `lightning`, `torch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "weighbridge",
            Self::Trainer => "trainer",
            Self::Lightning => "lightning",
            Self::Torch => "torch",
        }
    }
}

/// A checkpoint. Opening it reads no tensor; its archives are lazy.
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) step: Option<u64>,
    pub(crate) epoch: Option<f64>,
    pub(crate) metrics: Vec<(String, f64)>,
    pub(crate) manifest: Option<Manifest>,
    /// Where the parts of a torch file are.
    pub(crate) parts: TorchParts,
    pub(crate) options: ReadOptions,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Checkpoint");
        out.field("path", &self.path).field("kind", &self.kind).field("step", &self.step).finish()
    }
}

impl Checkpoint {
    /// Opens a checkpoint: a folder of this crate or of Trainer, or a torch file (`.pt`, Lightning's `.ckpt`).
    ///
    /// Of a folder of this crate the manifest and the sizes of all files are checked; [`Checkpoint::verify`] reads
    /// everything.
    ///
    /// # Errors
    /// `NotFound` for a path that holds none; `Malformed` and `Mismatch` for one that is damaged; what the readers
    /// say.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), &ReadOptions::default())
    }

    /// As [`Checkpoint::open`], with bounds on what the files may cause.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_with(path: &Path, options: &ReadOptions) -> Result<Self> {
        let meta = std::fs::metadata(path)
            .map_err(|e| Error::io("looking for the checkpoint", e).with_path(path))?;
        if !meta.is_dir() {
            return foreign::open_torch(path, options);
        }
        if std::fs::symlink_metadata(path.join(MANIFEST)).is_ok() {
            return Self::open_native(path, options);
        }
        if foreign::is_trainer(path) {
            return foreign::open_trainer(path, options);
        }
        Err(Error::not_found(
            "this folder is no checkpoint: it has no checkpoint.json, and no trainer_state.json",
        )
        .with_path(path)
        .with_hint("name the folder of one checkpoint; `checkpoint list` shows those in a folder"))
    }

    fn open_native(path: &Path, options: &ReadOptions) -> Result<Self> {
        let manifest = Manifest::read(path)?;
        verify::sizes(path, &manifest)?;
        Ok(Self {
            path: path.to_owned(),
            kind: Kind::Native,
            step: Some(manifest.step),
            epoch: Some(manifest.epoch as f64),
            metrics: manifest.metrics.clone(),
            manifest: Some(manifest),
            parts: TorchParts::default(),
            options: options.clone(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who wrote it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The training step, where it tells one.
    pub fn step(&self) -> Option<u64> {
        self.step
    }

    /// The epoch, where it tells one; Trainer counts fractions.
    pub fn epoch(&self) -> Option<f64> {
        self.epoch
    }

    /// The metrics, where it tells some.
    pub fn metrics(&self) -> &[(String, f64)] {
        &self.metrics
    }

    /// A metric by name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(n, _)| n == name).map(|(_, x)| *x)
    }

    /// The manifest, of a checkpoint of this crate.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The files that belong to it, with their sizes.
    ///
    /// # Errors
    /// `Io` if the folder cannot be listed.
    pub fn files(&self) -> Result<Vec<(PathBuf, u64)>> {
        match &self.manifest {
            Some(m) => Ok(m.files.iter().map(|f| (self.path.join(&f.name), f.bytes)).collect()),
            None if self.kind == Kind::Trainer => foreign::folder_files(&self.path),
            None => {
                let len = std::fs::metadata(&self.path).map_or(0, |m| m.len());
                Ok(vec![(self.path.clone(), len)])
            }
        }
    }

    fn open_file(&self, name: &str) -> Result<Box<dyn Archive>> {
        let source = Source::open(self.path.join(name))?;
        Registry::builtin().open(source, &self.options)
    }

    /// The model's tensors.
    ///
    /// # Errors
    /// `NotFound` for a torch file without a model; what the readers say.
    pub fn weights(&self) -> Result<Box<dyn Archive>> {
        match (&self.manifest, self.kind) {
            (Some(manifest), _) => self.open_file(&manifest.weights),
            (None, Kind::Trainer) => Registry::builtin().open_path(&self.path, &self.options),
            (None, _) if self.parts.bare => foreign::whole(self),
            (None, _) => foreign::part(self, self.parts.model.as_deref())?
                .ok_or_else(|| Error::not_found("no model is in this file").with_path(&self.path)),
        }
    }

    /// The optimizer's state, in torch's form if torch or [`OptimizerState`](crate::OptimizerState) made it.
    ///
    /// Of a Lightning checkpoint with several optimizers this is the list of them.
    ///
    /// # Errors
    /// What the readers say.
    pub fn optimizer(&self) -> Result<Option<Box<dyn Archive>>> {
        match (&self.manifest, self.kind) {
            (Some(manifest), _) => manifest.optimizer.as_ref().map(|name| self.open_file(name)).transpose(),
            (None, Kind::Trainer) => foreign::trainer_file(self, foreign::OPTIMIZER_FILES),
            (None, _) => foreign::part(self, self.parts.optimizer.as_deref()),
        }
    }

    /// The learning-rate scheduler's state.
    ///
    /// # Errors
    /// `Malformed` for what is no JSON; what the readers say.
    pub fn scheduler(&self) -> Result<Option<Json>> {
        match self.kind {
            Kind::Native => self.json_file(SCHEDULER),
            Kind::Trainer => foreign::json_of(foreign::trainer_file(self, &["scheduler.pt"])?),
            _ => foreign::json_of(foreign::part(self, self.parts.scheduler.as_deref())?),
        }
    }

    /// The random state. What torch and Python keep it in (tensors of bytes, tuples) stands in JSON.
    ///
    /// # Errors
    /// As [`Checkpoint::scheduler`].
    pub fn random(&self) -> Result<Option<Json>> {
        match self.kind {
            Kind::Native => self.json_file(RANDOM),
            Kind::Trainer => foreign::json_of(foreign::trainer_file(self, foreign::RANDOM_FILES)?),
            _ => foreign::json_of(foreign::part(self, self.parts.random.as_deref())?),
        }
    }

    /// What else the checkpoint holds: what the caller gave; the state of Trainer with its log of losses; of a torch
    /// file every entry that is none of the other parts (callbacks, loops, hyper-parameters).
    ///
    /// # Errors
    /// As [`Checkpoint::scheduler`].
    pub fn extra(&self) -> Result<Option<Json>> {
        match self.kind {
            Kind::Native => self.json_file(EXTRA),
            Kind::Trainer => foreign::trainer_state(&self.path, &self.options.limits).map(Some),
            _ => foreign::rest(self),
        }
    }

    /// The training log up to this checkpoint.
    ///
    /// # Errors
    /// `Io`, or `LimitExceeded` for one that is larger than the limit of what is read at once.
    pub fn log(&self) -> Result<Option<Vec<u8>>> {
        self.small_file(LOG)
    }

    fn small_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.manifest.as_ref().and_then(|m| m.file(name)) else { return Ok(None) };
        let path = self.path.join(&entry.name);
        let source = Source::open(&path)?;
        source.read_vec(0, source.len(), &self.options.limits).map(Some).map_err(|e| e.with_path(path))
    }

    fn json_file(&self, name: &str) -> Result<Option<Json>> {
        let Some(bytes) = self.small_file(name)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes).map_err(|e| {
            Error::malformed("the file is no JSON").with_path(self.path.join(name)).with_source(e)
        });
        parsed.map(Some)
    }

    /// Reads everything: of a checkpoint of this crate, every file against its checksum; of others, every tensor,
    /// with the checksums that their containers have, and every other part.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file.
    pub fn verify(&self) -> Result<()> {
        let (weights, optimizer) = (self.weights()?, self.optimizer()?);
        match &self.manifest {
            Some(manifest) => verify::all(&self.path, manifest)?,
            None => {
                read_all(&*weights)?;
                optimizer.as_deref().map(read_all).transpose()?;
            }
        }
        self.scheduler()?;
        self.random()?;
        self.extra()?;
        Ok(())
    }

    /// Writes it as one torch file with model and optimizer; see [`write_torch`].
    ///
    /// # Errors
    /// As [`write_torch`], and what opening the parts says.
    pub fn write_torch(&self, path: &Path, keys: &TorchKeys, overwrite: bool) -> Result<()> {
        let (weights, optimizer) = (self.weights()?, self.optimizer()?);
        let (scheduler, random, extra) = (self.scheduler()?, self.random()?, self.extra()?);
        let mut state = State::new(&*weights).at(self.epoch.unwrap_or(0.0) as u64, self.step.unwrap_or(0));
        state.optimizer = optimizer.as_deref();
        (state.scheduler, state.random, state.extra) = (scheduler.as_ref(), random.as_ref(), extra.as_ref());
        state.metrics.clone_from(&self.metrics);
        write_torch(path, &state, keys, overwrite).map(drop)
    }
}

/// Reads every tensor, so that every checksum over them is checked.
fn read_all(archive: &dyn Archive) -> Result<()> {
    use weighbridge_formats::ReadAt;
    let mut buffer = vec![0; 1 << 20];
    for (i, info) in archive.tensors().iter().enumerate() {
        let data = archive.data(i)?;
        let (mut at, len) = (0, data.len());
        while at < len {
            let part = (len - at).min(buffer.len() as u64) as usize;
            data.read_at(at, &mut buffer[..part]).map_err(|e| e.with_tensor(info.name()))?;
            at += part as u64;
        }
        data.finish().map_err(|e| e.with_tensor(info.name()))?;
    }
    Ok(())
}

/// A small text file as JSON.
pub(crate) fn read_json(path: &Path, limits: &Limits) -> Result<Json> {
    let source = Source::open(path)?;
    let bytes = source.read_vec(0, source.len(), limits).map_err(|e| e.with_path(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::malformed("the file is no JSON").with_path(path).with_source(e))
}
