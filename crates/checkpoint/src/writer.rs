//! Saving and rotating, in whichever thread it happens.

use std::path::PathBuf;

use weighbridge_formats::{Error, ErrorKind, ReadOptions, Result};

use crate::layout::checkpoint_name;
use crate::list::list;
use crate::manifest::Manifest;
use crate::retention::{Retention, decide};
use crate::save::{Draft, Known, SaveOptions, Saved, save};
use crate::stage;
use crate::state::State;
use crate::verify;

/// What of a manager writes.
pub(crate) struct Writer {
    pub(crate) root: PathBuf,
    pub(crate) prefix: String,
    pub(crate) options: SaveOptions,
    pub(crate) rules: Retention,
    /// The number of the next save.
    pub(crate) number: u64,
    /// The training log so far.
    pub(crate) log: Vec<u8>,
    known: Known,
}

impl Writer {
    pub(crate) fn new(root: PathBuf, prefix: String, options: SaveOptions, rules: Retention) -> Self {
        Self { root, prefix, options, rules, number: 1, log: Vec::new(), known: Known::default() }
    }

    /// Takes a checkpoint's files for ones that may be linked.
    pub(crate) fn know(&mut self, folder: &std::path::Path, manifest: &Manifest) {
        if self.options.incremental.is_some() {
            self.known = Known::new(folder, manifest);
        }
    }

    /// Saves, and then deletes what no rule wants, if the new checkpoint verifies.
    pub(crate) fn save(&mut self, state: &State<'_>) -> Result<Saved> {
        let name = checkpoint_name(&self.prefix, state.epoch, state.step);
        let draft = Draft {
            root: &self.root,
            name: &name,
            number: self.number,
            log: &self.log,
            known: &self.known,
            options: &self.options,
        };
        let saved = save(&draft, state)?;
        self.number += 1;
        self.know(&saved.path, &saved.manifest);
        self.rotate(&saved)?;
        Ok(saved)
    }

    fn rotate(&self, saved: &Saved) -> Result<()> {
        if self.rules.keeps_all() {
            return Ok(());
        }
        let found = list(&self.root, &ReadOptions::default())?;
        let (_, deleted) = decide(&self.rules, &found, &saved.path, &[]);
        if deleted.is_empty() {
            return Ok(());
        }
        // The new checkpoint is read back from the disk before an older one goes.
        let whole = Manifest::read(&saved.path).and_then(|manifest| {
            // As text, since a metric that is NaN equals nothing.
            if manifest.render() != saved.manifest.render() {
                return Err(Error::mismatch("the manifest is not the one that was written"));
            }
            verify::all(&saved.path, &manifest)
        });
        whole.map_err(|e| {
            let what =
                format!("the checkpoint just saved does not verify, so none is deleted: {}", e.message());
            Error::new(ErrorKind::Mismatch, what).with_path(&saved.path).with_source(e)
        })?;
        stage::delete(&self.root, &deleted, self.options.fsync)
    }
}
