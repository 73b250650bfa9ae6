//! What changed between two versions of a model: weights, configs, tokenizer, files; and what bump that suggests.

mod classify;
mod json;
mod vocabulary;
mod weights;

use std::path::Path;

use weighbridge_formats::write::Observer;
use weighbridge_formats::{Error, ErrorKind, Note, Result};

use crate::folder::{ModelFile, ModelFolder};
use crate::version::Bump;

pub use classify::Reason;
pub use json::JsonDiff;
pub(crate) use vocabulary::Tokenizer;
pub use vocabulary::VocabularyDiff;
pub(crate) use weights::Weights;
pub use weights::WeightsDiff;

/// The JSON files that are compared key by key.
const CONFIGS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model_index.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quantize_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Those of them that belong to the tokenizer.
const TOKENIZER_CONFIGS: &[&str] = &["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// Choices for comparing two versions.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct ModelDiffOptions<'a> {
    /// Links may lead out of the folders.
    pub follow_links: bool,
    /// Who is told of progress (bytes of both sides' weights) and may cancel.
    pub observer: Option<&'a dyn Observer>,
}

/// What changed between two versions of a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ModelDiff {
    /// The weights.
    pub weights: WeightsDiff,
    /// The configs that differ, those of the tokenizer not among them.
    pub configs: Vec<JsonDiff>,
    /// The tokenizer.
    pub tokenizer: TokenizerDiff,
    /// The other files: those that are compared in none of the above.
    pub files: FilesDiff,
    /// Why the suggested bump is what it is, what weighs most first; empty where nothing differs.
    pub reasons: Vec<Reason>,
    /// What else is to be said.
    pub notes: Vec<Note>,
}

/// What changed in a tokenizer.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TokenizerDiff {
    /// The vocabulary; `None` where neither version has one that can be read.
    pub vocabulary: Option<VocabularyDiff>,
    /// The parts of `tokenizer.json` that differ: `normalizer`, `model.merges`.
    pub parts: Vec<String>,
    /// The settings that differ.
    pub configs: Vec<JsonDiff>,
    /// The files that are compared by their bytes and differ: `spiece.model`, `merges.txt`.
    pub files: FilesDiff,
}

impl TokenizerDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let same = self.vocabulary.as_ref().is_none_or(VocabularyDiff::is_equal);
        same && self.parts.is_empty() && self.configs.is_empty() && self.files.is_empty()
    }
}

/// Files that differ, by their names in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilesDiff {
    /// Only the newer version has them.
    pub added: Vec<String>,
    /// Only the older version has them.
    pub removed: Vec<String>,
    /// Their bytes differ.
    pub changed: Vec<String>,
}

impl FilesDiff {
    /// Whether no file differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// The names of all that differ.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.added.iter().chain(&self.removed).chain(&self.changed).map(String::as_str)
    }
}

impl ModelDiff {
    /// Compares two folders, the older version first.
    ///
    /// # Errors
    /// What is wrong with a folder, its weights or its JSON files; `Cancelled` if the observer said so.
    pub fn between(older: &Path, newer: &Path, options: &ModelDiffOptions<'_>) -> Result<Self> {
        let scan = |path| ModelFolder::scan(path, options.follow_links);
        Self::between_folders(&scan(older)?, &scan(newer)?, options.observer)
    }

    pub(crate) fn between_folders(
        older: &ModelFolder,
        newer: &ModelFolder,
        observer: Option<&dyn Observer>,
    ) -> Result<Self> {
        let mut out = Self::default();
        let (old, new) = (Weights::open(older)?, Weights::open(newer)?);
        out.weights = weights::compare(&old, &new, observer)?;
        for notes in [&old.notes, &new.notes] {
            out.notes.extend(notes.iter().filter(|n| !out.notes.contains(n)).cloned().collect::<Vec<_>>());
        }
        for name in CONFIGS {
            let (a, b) = (older.json(name)?, newer.json(name)?);
            let found = json::compare(name, a.as_ref(), b.as_ref());
            let configs =
                if TOKENIZER_CONFIGS.contains(name) { &mut out.tokenizer.configs } else { &mut out.configs };
            configs.extend((!found.is_empty()).then_some(found));
        }
        let (a, b) = (Tokenizer::read(older, &mut out.notes)?, Tokenizer::read(newer, &mut out.notes)?);
        (out.tokenizer.vocabulary, out.tokenizer.parts) = vocabulary::compare(&a, &b);
        // Both sides may have the same to say.
        out.notes.dedup();

        // What has been compared by its content need not be compared by its bytes.
        let known = |name: &str| {
            let read = a.source == b.source && a.source == Some(name);
            let tensors =
                out.weights.not_compared.is_none() && old.files.contains(name) && new.files.contains(name);
            read || tensors || CONFIGS.contains(&name) || name == crate::RECORD
        };
        let is_weights = |name: &str| old.files.contains(name) || new.files.contains(name);
        let (mut files, mut tokenizer) = (FilesDiff::default(), FilesDiff::default());
        for file in newer.files.iter().filter(|f| !known(&f.name)) {
            let list = if is_tokenizer(&file.name) { &mut tokenizer } else { &mut files };
            match older.file(&file.name) {
                None => list.added.push(file.name.clone()),
                // An index changes with its shards, which are compared as tensors.
                Some(_) if is_weights(&file.name) && out.weights.not_compared.is_none() => {}
                Some(other) if same_bytes(other, file, observer)? => {}
                Some(_) => list.changed.push(file.name.clone()),
            }
        }
        for file in older.files.iter().filter(|f| !known(&f.name) && !newer.has(&f.name)) {
            let list = if is_tokenizer(&file.name) { &mut tokenizer } else { &mut files };
            list.removed.push(file.name.clone());
        }
        (out.files, out.tokenizer.files) = (files, tokenizer);
        out.reasons = classify::reasons(&out);
        Ok(out)
    }

    /// The bump that the changes suggest; `None` where nothing differs.
    pub fn bump(&self) -> Option<Bump> {
        self.reasons.iter().map(|r| r.bump).max()
    }

    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Whether a file belongs to a tokenizer, by its name.
fn is_tokenizer(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "tokenizer.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tekken.json",
        "vocab.bpe",
        "encoder.json",
        "chat_template.jinja",
        "chat_template.json",
    ];
    NAMES.contains(&name) || (name.ends_with(".model") && !name.contains('/'))
}

/// The bytes of each side that are compared at a time.
const CHUNK: u64 = 256 << 10;

fn same_bytes(a: &ModelFile, b: &ModelFile, observer: Option<&dyn Observer>) -> Result<bool> {
    if a.bytes != b.bytes {
        return Ok(false);
    }
    let (a, b) = (a.open()?, b.open()?);
    let mut buffers = [vec![0; CHUNK.min(a.len()) as usize], vec![0; CHUNK.min(a.len()) as usize]];
    let mut at = 0;
    while at < a.len() {
        if observer.is_some_and(Observer::cancelled) {
            return Err(Error::new(ErrorKind::Cancelled, "the comparison was stopped"));
        }
        let count = CHUNK.min(a.len() - at) as usize;
        for (source, buffer) in [&a, &b].into_iter().zip(&mut buffers) {
            let Some(buffer) = buffer.get_mut(..count) else { return Ok(false) };
            source.reader().read_at(at, buffer)?;
        }
        let [x, y] = &buffers;
        if x.get(..count) != y.get(..count) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
