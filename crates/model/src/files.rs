//! The files of a model's folder, and what each is for.

use std::path::{Path, PathBuf};

use weighbridge_formats::source::is_plain_relative;
use weighbridge_formats::{Error, Note, Registry, Result, Source};
use weighbridge_trust::manifest::{NAME, SUFFIX};

use crate::tokenizer::FileKind;

/// What a file of a model's folder is for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Weights that this build knows the format of: a file, a shard or an index.
    Weights,
    /// Weights of a format that is not converted: Keras, Flax, ONNX, GGUF and others.
    OtherWeights,
    /// `config.json`.
    Config,
    /// `generation_config.json`.
    GenerationConfig,
    /// A file of the tokenizer.
    Tokenizer,
    /// What a trainer leaves to resume from: optimizer, scheduler, random state.
    Training,
    /// Python code, which a model may bring and nothing here runs.
    Code,
    /// What this program recorded of the model: manifests, which are made anew for each save.
    Manifest,
    /// Anything else: model card, images, settings of other libraries.
    Asset,
}

/// A file of a model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name below the folder, with `/` between.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Names of tokenizers' files beside those that [`FileKind`] has: they are carried along, and not read.
const TOKENIZER: &[&str] = &["chat_template.json", "bpe.codes"];

/// The endings of weights that are not converted.
const OTHER_WEIGHTS: &[&str] = &[
    ".h5",
    ".keras",
    ".msgpack",
    ".onnx",
    ".onnx_data",
    ".gguf",
    ".ggml",
    ".ot",
    ".tflite",
    ".pb",
    ".npz",
    ".mlmodel",
    ".ckpt.index",
    ".distcp",
];

/// The beginnings of the names of a trainer's files.
const TRAINING: &[&str] =
    &["training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states", "trainer_state"];

/// The most entries of a folder that are looked at, and how deep.
const ENTRIES: usize = 10_000;
const DEPTH: usize = 6;

/// What a file is for, by its name below the folder.
pub fn role(registry: &Registry, name: &str) -> Role {
    let lower = name.to_lowercase();
    let (folder, base) =
        lower.rsplit_once('/').map_or((None, &*lower), |(folder, base)| (Some(folder), base));
    let ends = |endings: &[&str]| endings.iter().any(|e| base.ends_with(e));
    if base == NAME || base.ends_with(SUFFIX) {
        Role::Manifest
    } else if TRAINING.iter().any(|t| base.starts_with(t)) {
        Role::Training
    } else if ends(OTHER_WEIGHTS) {
        Role::OtherWeights
    } else if base.ends_with(".py") {
        Role::Code
    } else if folder.is_some() {
        // Parts of a pipeline lie below: each is carried as it is, a part's weights included.
        Role::Asset
    } else if is_tokenizer(base) {
        Role::Tokenizer
    } else if registry.is_weights_name(base) {
        Role::Weights
    } else {
        match base {
            "config.json" => Role::Config,
            "generation_config.json" => Role::GenerationConfig,
            _ => Role::Asset,
        }
    }
}

fn is_tokenizer(name: &str) -> bool {
    TOKENIZER.contains(&name) || FileKind::ALL.iter().any(|kind| kind.names().contains(&name))
}

/// The files of a folder and its subfolders, sorted by name; hidden ones are left out, and with a note those that
/// are links out of the folder.
///
/// # Errors
/// `LimitExceeded` for a folder with too many entries; what the system says.
pub(crate) fn list(registry: &Registry, folder: &Path, notes: &mut Vec<Note>) -> Result<Vec<ModelFile>> {
    let mut found = Vec::new();
    let mut todo = vec![(folder.to_owned(), String::new(), 0usize)];
    let mut seen = 0usize;
    while let Some((path, prefix, depth)) = todo.pop() {
        let fail = |e| Error::io("listing the folder", e).with_path(&path);
        for entry in weighbridge_formats::write::uninterrupted(|| std::fs::read_dir(&path)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            seen += 1;
            if seen > ENTRIES {
                let what = format!("the folder has more than {ENTRIES} entries, and so is no model's");
                return Err(Error::limit(what).with_path(folder));
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || !is_plain_relative(&name) {
                continue;
            }
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            // Through links: caches keep a model as a folder of links.
            let Ok(meta) = std::fs::metadata(&path) else {
                notes.push(Note::warning(format!("{name} is a link that leads nowhere, and is left out")));
                continue;
            };
            let is_link = entry.file_type().is_ok_and(|t| t.is_symlink());
            if meta.is_dir() {
                // A link to a folder could lead anywhere, or in a circle.
                if depth < DEPTH && !is_link {
                    todo.push((path, format!("{name}/"), depth + 1));
                }
            } else if meta.is_file() {
                found.push(ModelFile { role: role(registry, &name), name, path, bytes: meta.len() });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Leaves out the files that are links out of the folder, with a note. `anchor` is a file of the folder: where it is
/// a link into a cache's folder of contents, so may the others be.
pub(crate) fn inside_only(files: &mut Vec<ModelFile>, folder: &Path, anchor: &Source, notes: &mut Vec<Note>) {
    if anchor.path().is_none_or(|p| p.parent() != Some(folder)) {
        return;
    }
    files.retain(|file| match anchor.sibling(&file.name) {
        Ok(_) => true,
        Err(e) => {
            notes.push(Note::warning(format!("{} is left out: {}", file.name, e.message())));
            false
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_file_is_for() {
        let registry = Registry::builtin();
        for (name, expected) in [
            ("model.safetensors", Role::Weights),
            ("model-00001-of-00002.safetensors", Role::Weights),
            ("pytorch_model.bin.index.json", Role::Weights),
            ("tf_model.h5", Role::OtherWeights),
            ("onnx/model.onnx", Role::OtherWeights),
            ("config.json", Role::Config),
            ("1_Pooling/config.json", Role::Asset),
            ("2_Dense/model.safetensors", Role::Asset),
            ("generation_config.json", Role::GenerationConfig),
            ("vocab.txt", Role::Tokenizer),
            ("vocab.bin", Role::Tokenizer),
            ("training_args.bin", Role::Training),
            ("optimizer.pt", Role::Training),
            ("modeling_x.py", Role::Code),
            ("README.md", Role::Asset),
            ("weighbridge.json", Role::Manifest),
            ("model.safetensors.weighbridge.json", Role::Manifest),
        ] {
            assert_eq!(role(&registry, name), expected, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        for (name, text) in [("config.json", "{}"), ("sub/x.txt", "x"), (".hidden", "h")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("stolen.txt")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("dangling.txt")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
        let mut notes = Vec::new();
        let mut files = list(&Registry::builtin(), &folder, &mut notes).unwrap();
        let anchor = Source::open(folder.join("config.json")).unwrap();
        inside_only(&mut files, &folder, &anchor, &mut notes);
        let names: Vec<&str> = files.iter().map(|f| &*f.name).collect();
        assert_eq!(names, ["config.json", "sub/x.txt"]);
        assert_eq!(notes.len(), 2, "{notes:?}");
    }
}
