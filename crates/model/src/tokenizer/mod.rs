//! Tokenizers: which files of a folder they are, what those say, and writing them in any layout that can hold them.
//!
//! A tokenizer is read into one *definition*, the content of a `tokenizer.json`, whichever layout it comes from,
//! with the rules of transformers for what `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json` add. Writing goes the other way, and is proven by reading back what is about to be
//! written. Neither needs the `tokenizers` crate; encoding does (feature `tokenizers`).
//!
//! Source of the facts: the tokenizer classes of transformers 5.23 and 4.35 (for Transformer-XL), and the
//! serialization of tokenizers 0.23.

mod added;
mod build;
mod canonical;
mod check;
#[cfg(feature = "tokenizers")]
mod encode;
mod files;
#[cfg(feature = "tokenizers")]
mod prove;
mod save;
mod transformer_xl;
mod vocab;

pub use added::{AddedToken, Role};
pub use check::{Finding, FindingKind, Severity};
pub use files::{FileKind, Layout, TokenizerFiles, VocabSize};
#[cfg(feature = "tokenizers")]
pub use prove::{CORPUS, Difference};
pub use save::SavedFiles;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};
use weighbridge_formats::{Error, Note, Result};

use files::Parts;

/// A tokenizer, with what its files say beside the vocabulary.
pub struct Tokenizer {
    layout: Layout,
    /// What `tokenizer.json` says, or would say.
    definition: Value,
    /// `tokenizer_config.json`, as it was.
    config: Map<String, Value>,
    /// `special_tokens_map.json`, as it was.
    special_map: Map<String, Value>,
    /// The class in transformers, where the files name one.
    class: Option<String>,
    specials: Vec<(Role, AddedToken)>,
    chat_template: Option<String>,
    ids: HashMap<String, u32>,
    notes: Vec<Note>,
    #[cfg(feature = "tokenizers")]
    encoder: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Loads the tokenizer of a folder by the usual names.
    ///
    /// # Errors
    /// `NotFound` where there is none; else as [`Tokenizer::load`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::load(&TokenizerFiles::find(folder, &[])?)
    }

    /// Loads a tokenizer from its files.
    ///
    /// # Errors
    /// `NotFound` where there are none, `Malformed` for what they say, `Unsupported` for a SentencePiece model
    /// without a `tokenizer.json`, or a layout whose class is not known.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        Self::from_parts(&files.read()?)
    }

    /// Takes the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// `Malformed` for what it says.
    pub fn from_json(json: impl Into<Vec<u8>>) -> Result<Self> {
        Self::from_parts(&Parts::of(FileKind::TokenizerJson, json.into()))
    }

    fn from_parts(parts: &Parts) -> Result<Self> {
        let built = build::build(parts)?;
        let ids = canonical::ids(&built.definition)?;
        Ok(Self {
            #[cfg(feature = "tokenizers")]
            encoder: encode::encoder(&built.definition)?,
            layout: built.layout,
            definition: built.definition,
            config: built.config,
            special_map: parts.object(FileKind::SpecialTokensMap)?,
            class: parts.class.clone(),
            specials: built.specials,
            chat_template: parts.text(FileKind::ChatTemplate)?,
            ids,
            notes: built.notes,
        })
    }

    /// The layout that it was loaded from.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The class in transformers that its files name, without `Fast`.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// What `tokenizer.json` says of it.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// How many tokens there are, and how many embedding rows they need.
    pub fn vocab_size(&self) -> VocabSize {
        let rows = self.ids.values().max().map_or(0, |&id| u64::from(id) + 1);
        VocabSize { tokens: self.ids.len() as u64, rows }
    }

    /// The id of a token, added ones included.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The special token of a role, with its id where the vocabulary has it.
    pub fn special(&self, role: Role) -> Option<(&AddedToken, Option<u32>)> {
        let token = &self.specials.iter().find(|(r, _)| *r == role)?.1;
        Some((token, self.token_to_id(&token.content)))
    }

    /// What the reader has to say.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({}, {} tokens)", self.layout.as_str(), self.ids.len())
    }
}

/// An error of a tokenizer's file.
fn malformed(kind: FileKind, what: impl Into<String>) -> Error {
    Error::malformed(format!("{}: {}", kind.default_name(), what.into()))
}
