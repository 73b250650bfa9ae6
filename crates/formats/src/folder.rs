//! Which file of a folder holds the model's weights.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::archive::{Archive, Companion, Note, StorageInfo};
use crate::error::{Error, Result};
use crate::flat::listed;
use crate::registry::Registry;
use crate::source::Files;
use crate::tensor::{Data, TensorInfo};
use crate::value::Values;

/// The most entries of a folder that are looked at.
const ENTRIES: usize = 100_000;

/// In the order of preference: a file of this name, or the only one with one of these endings.
const PREFERENCE: &[(&str, &[&str])] = &[
    ("model.safetensors.index.json", &[]),
    ("model.safetensors", &[]),
    ("", &[".safetensors.index.json"]),
    ("", &[".safetensors"]),
    ("pytorch_model.bin.index.json", &[]),
    ("pytorch_model.bin", &[]),
    ("", &[".bin.index.json"]),
    ("", &[".bin", ".pt", ".pth"]),
];

/// What trainers leave beside the weights, and vocabularies that old tokenizers keep as pickles.
const NO_WEIGHTS: &[&str] =
    &["training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states", "vocab"];

/// The file to open, and a line on the choice where there was one.
///
/// # Errors
/// `NotFound` where nothing fits, with what is there; `InvalidOptions` where several files fit equally, with their
/// names.
pub(crate) fn choose(registry: &Registry, folder: &Path) -> Result<(PathBuf, Option<Note>)> {
    let fail = |e| Error::io("listing the folder", e).with_path(folder);
    let mut names = BTreeSet::new();
    for entry in crate::write::uninterrupted(|| std::fs::read_dir(folder)).map_err(fail)?.take(ENTRIES) {
        let entry = entry.map_err(fail)?;
        if entry.path().is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    pick(registry, &names).map(|(name, note)| (folder.join(name), note)).map_err(|e| e.with_path(folder))
}

/// As [`choose`], among the files of a container that are in no folder of it.
///
/// # Errors
/// As [`choose`].
pub(crate) fn choose_of(registry: &Registry, files: &dyn Files) -> Result<(String, Option<Note>)> {
    let names = files.names().into_iter().filter(|n| !n.contains('/')).take(ENTRIES);
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    let picked = pick(registry, &names).map(|(name, note)| (name.to_owned(), note));
    picked.map_err(|e| e.with_path(files.container()))
}

fn pick<'n>(registry: &Registry, names: &'n BTreeSet<String>) -> Result<(&'n str, Option<Note>)> {
    let weights = |name: &&String| is_weights_name(registry, name) && !is_shard(&name.to_lowercase());
    let candidates: Vec<&String> = names.iter().filter(weights).collect();
    let mut tied: Vec<&String> = Vec::new();
    let mut chosen = None;
    for (exact, endings) in PREFERENCE {
        let fits: Vec<&String> = match *exact {
            "" => candidates
                .iter()
                .copied()
                .filter(|n| endings.iter().any(|e| n.to_lowercase().ends_with(e)))
                .collect(),
            exact => candidates.iter().copied().filter(|n| *n == exact).collect(),
        };
        match fits[..] {
            [] => {}
            [one] => {
                chosen = Some(one);
                break;
            }
            _ => tied.extend(fits),
        }
    }
    // A format that the list above does not know may be the only one here.
    let chosen = chosen.or(if candidates.len() == 1 { candidates.first().copied() } else { None });
    if let Some(chosen) = chosen {
        let others = candidates.iter().filter(|n| **n != chosen).map(|n| n.to_string());
        let note = (candidates.len() > 1)
            .then(|| Note::info(format!("of the folder, {chosen} is read, and not {}", listed(others))));
        return Ok((chosen, note));
    }
    if !tied.is_empty() {
        let what =
            format!("several files of the folder could be meant: {}", listed(tied.into_iter().cloned()));
        return Err(Error::invalid_options(what).with_hint("name one of them"));
    }
    if names.contains(".metadata") && names.iter().any(|n| n.ends_with(".distcp")) {
        return Err(Error::unsupported(
            "this is a PyTorch distributed checkpoint, which this version does not read",
        ));
    }
    if names.contains("saved_model.pb") {
        return Err(Error::unsupported("this is a TensorFlow SavedModel, which this version does not read"));
    }
    let there = if names.is_empty() { "no file".into() } else { listed(names.iter().cloned()) };
    Err(Error::not_found(format!("no weights are in the folder; there is {there}"))
        .with_hint("name the file, if it is one of them"))
}

/// Whether a file is weights, by its name.
pub(crate) fn is_weights_name(registry: &Registry, name: &str) -> bool {
    let lower = name.to_lowercase();
    let beside = NO_WEIGHTS.iter().any(|n| lower.starts_with(n));
    !beside && (registry.for_extension(name).is_some() || is_known(name))
}

/// An extension that a folder is searched for even where its backend is off, to say so.
fn is_known(name: &str) -> bool {
    let lower = name.to_lowercase();
    PREFERENCE.iter().any(|(_, endings)| endings.iter().any(|e| lower.ends_with(e)))
}

/// Whether a name is that of one shard of many: `…-00001-of-00002.…`.
fn is_shard(name: &str) -> bool {
    let Some((before, after)) = name.rsplit_once("-of-") else { return false };
    let digits = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_digit());
    digits(before.bytes().last()) && digits(after.bytes().next()) && !name.ends_with(".index.json")
}

/// An archive with one more line to say.
pub(crate) struct Noted {
    inner: Box<dyn Archive>,
    notes: Vec<Note>,
}

impl Noted {
    pub(crate) fn new(inner: Box<dyn Archive>, note: Note) -> Self {
        let notes = std::iter::once(note).chain(inner.notes().iter().cloned()).collect();
        Self { inner, notes }
    }
}

impl Archive for Noted {
    fn format(&self) -> &'static str {
        self.inner.format()
    }
    fn variety(&self) -> String {
        self.inner.variety()
    }
    fn tensors(&self) -> &[TensorInfo] {
        self.inner.tensors()
    }
    fn data(&self, index: usize) -> Result<Data<'_>> {
        self.inner.data(index)
    }
    fn storages(&self) -> &[StorageInfo] {
        self.inner.storages()
    }
    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        self.inner.storage_data(index)
    }
    fn metadata(&self) -> &[(String, String)] {
        self.inner.metadata()
    }
    fn values(&self) -> Option<&Values> {
        self.inner.values()
    }
    fn notes(&self) -> &[Note] {
        &self.notes
    }
    fn companion(&self) -> Option<&dyn Companion> {
        self.inner.companion()
    }
    fn files(&self) -> Vec<PathBuf> {
        self.inner.files()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn picked(names: &[&str]) -> Result<(String, bool)> {
        let names = names.iter().map(|n| n.to_string()).collect();
        pick(&Registry::builtin(), &names).map(|(name, note)| (name.to_owned(), note.is_some()))
    }

    #[test]
    fn weights_are_chosen_by_the_stated_preference() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["config.json", "model.safetensors", "pytorch_model.bin"], "model.safetensors", true),
            (
                &[
                    "model.safetensors.index.json",
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                ],
                "model.safetensors.index.json",
                false,
            ),
            (&["adapter_model.safetensors", "training_args.bin"], "adapter_model.safetensors", false),
            (&["a.safetensors", "b.safetensors", "pytorch_model.bin"], "pytorch_model.bin", true),
            (&["x.safetensors.index.json", "a.safetensors"], "x.safetensors.index.json", true),
            (&["pytorch_model.bin.index.json", "pytorch_model.bin"], "pytorch_model.bin.index.json", true),
            (&["weights.pth", "optimizer.pt", "rng_state_0.pth", "vocab.txt"], "weights.pth", false),
        ];
        for (names, wanted, noted) in cases {
            assert_eq!(picked(names).unwrap(), (wanted.to_string(), *noted), "{names:?}");
        }
    }

    #[test]
    fn where_nothing_fits_the_error_says_what_is_there() {
        let error = picked(&["a.pt", "b.pt"]).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidOptions && error.message().contains("a.pt, b.pt"));
        let error = picked(&["README.md"]).unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.message().contains("README.md"));
        assert!(picked(&[]).unwrap_err().message().contains("no file"));
        assert_eq!(picked(&[".metadata", "__0_0.distcp"]).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(picked(&["saved_model.pb"]).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
