//! What a folder of checkpoints holds, which of them is the newest that verifies, and which may go.

use std::path::{Path, PathBuf};

use weighbridge_formats::{Error, ErrorKind, ReadOptions, Result};

use crate::checkpoint::{Checkpoint, Kind};
use crate::foreign;
use crate::layout::{LOCK, MANIFEST, epoch_of, step_of};
use crate::manifest::Manifest;

/// The most entries of a folder that are looked at.
const ENTRIES: usize = 100_000;

/// A checkpoint in a folder, whole or not.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Who wrote it.
    pub kind: Kind,
    /// Which save of its folder it was, where it tells.
    pub number: Option<u64>,
    /// The step; of a damaged one, what its name tells.
    pub step: Option<u64>,
    /// The epoch; of a damaged one, what its name tells.
    pub epoch: Option<f64>,
    /// The metrics.
    pub metrics: Vec<(String, f64)>,
    /// The bytes of its files.
    pub bytes: u64,
    /// Why it is not complete; `None` for one that is, as far as names and sizes tell.
    pub damage: Option<String>,
}

impl Found {
    /// Its name in the folder.
    pub fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// A metric by name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(n, _)| n == name).map(|(_, x)| *x)
    }
}

/// One that was passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The newest checkpoint that verifies.
#[derive(Debug)]
pub struct Resume {
    /// It; `None` where none verifies.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that do not verify, the newest first.
    pub skipped: Vec<Skipped>,
}

/// An error in one line, without the folder that is named beside it.
pub(crate) fn reason(error: &Error) -> String {
    let file = error.path().and_then(|p| p.file_name()).map(|n| format!("{}: ", n.to_string_lossy()));
    let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
    let tensor = error.tensor().map(|t| format!(" (tensor {t:?})")).unwrap_or_default();
    format!("{}{}{tensor}{cause}", file.unwrap_or_default(), error.message())
}

/// The checkpoints in a folder, the oldest first. Names and sizes are checked, and no tensor is read.
///
/// Folders of this crate and of Trainer are found, and torch files that are checkpoints; other names are passed over.
/// The order is that of saving, and of steps where that is not known.
///
/// # Errors
/// `Io` if the folder cannot be listed. A checkpoint that cannot be read is in the list, with what is wrong.
pub fn list(root: &Path, options: &ReadOptions) -> Result<Vec<Found>> {
    let fail = |e| Error::io("listing the folder of the checkpoints", e).with_path(root);
    let mut found = Vec::new();
    for entry in
        weighbridge_formats::write::uninterrupted(|| std::fs::read_dir(root)).map_err(fail)?.take(ENTRIES)
    {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') || name == LOCK {
            continue;
        }
        found.extend(look(&entry.path(), &name, options));
    }
    sort(&mut found);
    Ok(found)
}

/// One entry of the folder, if it is a checkpoint.
fn look(path: &Path, name: &str, options: &ReadOptions) -> Option<Found> {
    let meta = std::fs::metadata(path).ok()?;
    let kind = if meta.is_dir() {
        if path.join(MANIFEST).symlink_metadata().is_ok() {
            Kind::Native
        } else if foreign::is_trainer(path) {
            Kind::Trainer
        } else if step_of(name).is_some() && epoch_of(name).is_some() {
            // The name of a checkpoint without its manifest: copied in part, or deleted in part by other hands.
            Kind::Native
        } else {
            return None;
        }
    } else {
        let lower = name.to_lowercase();
        if !meta.is_file() || ![".pt", ".pth", ".ckpt"].iter().any(|e| lower.ends_with(e)) {
            return None;
        }
        Kind::Torch
    };
    let damaged = |e: &Error| Found {
        path: path.to_owned(),
        kind,
        number: Manifest::read(path).ok().map(|m| m.number),
        step: step_of(name),
        epoch: epoch_of(name).map(|e| e as f64),
        metrics: Vec::new(),
        bytes: foreign::folder_files(path).map_or(meta.len(), |f| f.iter().map(|(_, len)| len).sum()),
        damage: Some(match e.kind() {
            ErrorKind::NotFound if kind == Kind::Native && !path.join(MANIFEST).exists() => {
                "not marked complete: checkpoint.json is missing".into()
            }
            _ => reason(e),
        }),
    };
    match Checkpoint::open_with(path, options) {
        // A file of weights is no checkpoint.
        Ok(c) if c.parts.bare || kind == Kind::Torch && c.parts.optimizer.is_none() && c.step.is_none() => {
            None
        }
        Ok(c) => Some(Found {
            path: path.to_owned(),
            kind: c.kind,
            number: c.manifest().map(|m| m.number),
            step: c.step,
            epoch: c.epoch,
            bytes: c.files().map_or(0, |f| f.iter().map(|(_, len)| len).sum()),
            metrics: c.metrics,
            damage: None,
        }),
        Err(e) => Some(damaged(&e)),
    }
}

/// Sorts by the number of the save; what has none stands where its step does.
fn sort(found: &mut [Found]) {
    let numbered: Vec<(u64, u64)> =
        found.iter().filter_map(|f| Some((f.number?, f.step.unwrap_or(0)))).collect();
    found.sort_by_cached_key(|f| {
        let step = f.step.unwrap_or(0);
        let after = numbered.iter().filter(|(_, s)| *s <= step).map(|(n, _)| *n).max();
        (f.number.or(after).unwrap_or(0), f.number.is_none(), step, f.path.clone())
    });
}

/// The newest checkpoint of a folder that verifies, every byte of it read, and which newer ones do not.
///
/// # Errors
/// `Io` if the folder cannot be listed.
pub fn resume(root: &Path, options: &ReadOptions) -> Result<Resume> {
    let mut skipped = Vec::new();
    for found in list(root, options)?.into_iter().rev() {
        let opened = Checkpoint::open_with(&found.path, options);
        match opened.and_then(|c| c.verify().map(|()| c)) {
            Ok(checkpoint) => return Ok(Resume { checkpoint: Some(checkpoint), skipped }),
            Err(e) => {
                let reason = found.damage.unwrap_or_else(|| reason(&e));
                skipped.push(Skipped { path: found.path, reason });
            }
        }
    }
    Ok(Resume { checkpoint: None, skipped })
}
