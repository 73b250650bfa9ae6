//! Which files of a folder are the tokenizer's, and which layout they make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weighbridge_formats::{Error, Limits, Result, Source};

use super::{malformed, vocab};

/// The longest file that is read, in bytes: several times the longest known, and little enough that a text of
/// nothing but small values fits in memory.
const MOST_BYTES: u64 = 128 << 20;

/// What a file of a tokenizer is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The whole tokenizer, as the `tokenizers` crate writes it.
    TokenizerJson,
    /// The class, its options and the special tokens.
    Config,
    /// Special tokens by role; older than their place in the config.
    SpecialTokensMap,
    /// Tokens added to the vocabulary, with their ids; older than their place in the config.
    AddedTokens,
    /// A vocabulary, a token a line.
    VocabTxt,
    /// A vocabulary as an object of ids.
    VocabJson,
    /// Merges of byte-pair encoding, a pair a line.
    Merges,
    /// Transformer-XL's vocabulary as a pickle, or as a torch file.
    VocabPickle,
    /// The template of a chat.
    ChatTemplate,
    /// A SentencePiece model.
    SentencePiece,
}

impl FileKind {
    /// Every kind.
    pub const ALL: &'static [FileKind] = &[
        Self::TokenizerJson,
        Self::Config,
        Self::SpecialTokensMap,
        Self::AddedTokens,
        Self::VocabTxt,
        Self::VocabJson,
        Self::Merges,
        Self::VocabPickle,
        Self::ChatTemplate,
        Self::SentencePiece,
    ];

    /// The names that a folder has it under, the usual one first.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::TokenizerJson => &["tokenizer.json"],
            Self::Config => &["tokenizer_config.json"],
            Self::SpecialTokensMap => &["special_tokens_map.json"],
            Self::AddedTokens => &["added_tokens.json"],
            Self::VocabTxt => &["vocab.txt"],
            Self::VocabJson => &["vocab.json"],
            Self::Merges => &["merges.txt"],
            Self::VocabPickle => &["vocab.pkl", "vocab.bin"],
            Self::ChatTemplate => &["chat_template.jinja"],
            Self::SentencePiece => &["spiece.model", "sentencepiece.bpe.model", "tokenizer.model"],
        }
    }

    /// The usual name.
    pub fn default_name(self) -> &'static str {
        self.names()[0]
    }
}

/// How a tokenizer lies in its folder.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `tokenizer.json`: any tokenizer.
    TokenizerJson,
    /// BERT's `vocab.txt`.
    WordPiece,
    /// OpenAI GPT's `vocab.json` and `merges.txt`, whose words end in `</w>`.
    Gpt,
    /// GPT-2's `vocab.json` and `merges.txt` over bytes.
    Gpt2,
    /// The same files with RoBERTa's special tokens around a text.
    Roberta,
    /// Transformer-XL's `vocab.txt` or `vocab.pkl`: whole words.
    TransformerXl,
    /// A SentencePiece model: carried along, not understood.
    SentencePiece,
}

impl Layout {
    /// Every layout.
    pub const ALL: &'static [Layout] = &[
        Self::TokenizerJson,
        Self::WordPiece,
        Self::Gpt,
        Self::Gpt2,
        Self::Roberta,
        Self::TransformerXl,
        Self::SentencePiece,
    ];

    /// The layout in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenizerJson => "tokenizer.json",
            Self::WordPiece => "BERT WordPiece (vocab.txt)",
            Self::Gpt => "OpenAI GPT (vocab.json, merges.txt)",
            Self::Gpt2 => "GPT-2 byte-level BPE (vocab.json, merges.txt)",
            Self::Roberta => "RoBERTa byte-level BPE (vocab.json, merges.txt)",
            Self::TransformerXl => "Transformer-XL (vocab.txt, vocab.pkl)",
            Self::SentencePiece => "SentencePiece model",
        }
    }

    /// The layout that a class of transformers reads, named with or without `Fast`.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Some(match class.strip_suffix("Fast").unwrap_or(class) {
            "BertTokenizer"
            | "DistilBertTokenizer"
            | "ElectraTokenizer"
            | "MobileBertTokenizer"
            | "ConvBertTokenizer"
            | "SqueezeBertTokenizer"
            | "RetriBertTokenizer"
            | "LayoutLMTokenizer"
            | "DPRQuestionEncoderTokenizer"
            | "DPRContextEncoderTokenizer" => Self::WordPiece,
            "OpenAIGPTTokenizer" => Self::Gpt,
            "GPT2Tokenizer" => Self::Gpt2,
            "RobertaTokenizer" | "LongformerTokenizer" | "BartTokenizer" | "LEDTokenizer" => Self::Roberta,
            "TransfoXLTokenizer" => Self::TransformerXl,
            _ => return None,
        })
    }

    /// The layout that models of a type come with, from `config.json`.
    fn of_model_type(model_type: &str) -> Option<Self> {
        Some(match model_type {
            "bert" | "distilbert" | "electra" | "mobilebert" | "convbert" | "squeezebert" | "retribert"
            | "layoutlm" | "dpr" => Self::WordPiece,
            "openai-gpt" => Self::Gpt,
            "gpt2" | "gpt_neo" => Self::Gpt2,
            "roberta" | "longformer" | "bart" | "led" => Self::Roberta,
            "transfo-xl" => Self::TransformerXl,
            _ => return None,
        })
    }

    /// The class of transformers that reads the layout.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::WordPiece => "BertTokenizer",
            Self::Gpt => "OpenAIGPTTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::TransformerXl => "TransfoXLTokenizer",
            Self::TokenizerJson | Self::SentencePiece => "PreTrainedTokenizerFast",
        }
    }
}

/// The size of a vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VocabSize {
    /// How many tokens there are, added ones included.
    pub tokens: u64,
    /// How many rows an embedding needs for them: the largest id and one.
    pub rows: u64,
}

/// The files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// What each is and where it lies, in the order of [`FileKind::ALL`].
    pub files: Vec<(FileKind, PathBuf)>,
    layout: Option<Layout>,
    class: Option<String>,
}

impl TokenizerFiles {
    /// Finds the files of a folder by their usual names, with paths of the caller's own in place of some.
    ///
    /// The class is taken from `tokenizer_config.json`, else the model's type from the folder's `config.json`;
    /// where neither says, the vocabulary shows the layout. A folder without a tokenizer gives no files.
    ///
    /// # Errors
    /// `NotFound` for a path of the caller's that is no file; `Malformed` for a config that is no JSON object.
    pub fn find(folder: impl AsRef<Path>, overrides: &[(FileKind, PathBuf)]) -> Result<Self> {
        let folder = folder.as_ref();
        let mut files = Vec::new();
        for &kind in FileKind::ALL {
            if let Some((_, path)) = overrides.iter().rev().find(|(k, _)| *k == kind) {
                if !path.is_file() {
                    let what = format!("there is no file to read as the tokenizer's {}", kind.default_name());
                    return Err(Error::not_found(what).with_path(path));
                }
                files.push((kind, path.clone()));
                continue;
            }
            let found = kind.names().iter().map(|name| folder.join(name)).find(|path| path.is_file());
            files.extend(found.map(|path| (kind, path)));
        }
        let mut out = Self { files, layout: None, class: None };
        let config =
            out.path(FileKind::Config).map(|path| read_object(path, FileKind::Config)).transpose()?;
        let class = config.as_ref().and_then(|c| c.get("tokenizer_class")).and_then(Value::as_str);
        out.class = class.map(|c| c.strip_suffix("Fast").unwrap_or(c).to_owned());
        let model = folder.join("config.json");
        let model = if model.is_file() { read_object(&model, FileKind::Config).ok() } else { None };
        let model_type = model.as_ref().and_then(|c| c.get("model_type")).and_then(Value::as_str);
        let stated = out.class.as_deref().and_then(Layout::of_class);
        let stated = stated.or_else(|| model_type.and_then(Layout::of_model_type));
        out.layout = out.find_layout(stated)?;
        if out.class.is_none() {
            out.class = model_type.and_then(Layout::of_model_type).map(|l| l.class().to_owned());
        }
        Ok(out)
    }

    /// The path of a kind of file.
    pub fn path(&self, kind: FileKind) -> Option<&Path> {
        self.files.iter().find(|(k, _)| *k == kind).map(|(_, path)| path.as_path())
    }

    /// The layout that [`Tokenizer::load`](super::Tokenizer::load) takes; `None` where there is no tokenizer, or
    /// a vocabulary whose layout neither a config nor its tokens show.
    pub fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// The class in transformers, where the files name one.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// Whether there is no file that holds a vocabulary.
    pub fn is_empty(&self) -> bool {
        use FileKind::{SentencePiece, TokenizerJson, VocabJson, VocabPickle, VocabTxt};
        [TokenizerJson, VocabTxt, VocabJson, VocabPickle, SentencePiece]
            .iter()
            .all(|k| self.path(*k).is_none())
    }

    /// The size of the vocabulary, by reading the file that holds it and no other but that of added tokens.
    /// For Transformer-XL's pickle and for a folder without a vocabulary it is `None`.
    ///
    /// # Errors
    /// `Malformed` where a file is not what its name says.
    pub fn vocab_size(&self) -> Result<Option<VocabSize>> {
        let Some(layout) = self.layout else { return Ok(None) };
        let kind = match layout {
            Layout::TokenizerJson => FileKind::TokenizerJson,
            Layout::WordPiece | Layout::TransformerXl => FileKind::VocabTxt,
            Layout::Gpt | Layout::Gpt2 | Layout::Roberta => FileKind::VocabJson,
            Layout::SentencePiece => FileKind::SentencePiece,
        };
        let Some(path) = self.path(kind) else { return Ok(None) };
        let bytes = read(path)?;
        let ids = match kind {
            FileKind::TokenizerJson => super::canonical::ids(&object(kind, &bytes).map(Value::Object)?),
            FileKind::VocabTxt => Ok(vocab::lines(&bytes)?.tokens.into_iter().collect()),
            FileKind::VocabJson => Ok(vocab::object(&bytes)?.into_iter().collect()),
            _ => {
                let pieces = vocab::sentence_pieces(&bytes)?;
                return Ok(Some(VocabSize { tokens: pieces, rows: pieces }));
            }
        };
        let mut ids = ids.map_err(|e| e.with_path(path))?;
        if layout != Layout::TokenizerJson
            && let Some(added) = self.path(FileKind::AddedTokens)
        {
            ids.extend(vocab::object(&read(added)?)?);
        }
        let rows = ids.values().max().map_or(0, |&id| u64::from(id) + 1);
        Ok(Some(VocabSize { tokens: ids.len() as u64, rows }))
    }

    /// Reads every file but a SentencePiece model.
    pub(super) fn read(&self) -> Result<Parts> {
        if self.is_empty() {
            let folder = self.files.first().and_then(|(_, p)| p.parent()).unwrap_or(Path::new("."));
            return Err(Error::not_found("there is no tokenizer's vocabulary here").with_path(folder));
        }
        let mut parts = Parts { files: BTreeMap::new(), layout: self.layout, class: self.class.clone() };
        for (kind, path) in &self.files {
            if *kind != FileKind::SentencePiece {
                parts.files.insert(*kind, read(path)?);
            }
        }
        Ok(parts)
    }

    fn find_layout(&self, stated: Option<Layout>) -> Result<Option<Layout>> {
        use FileKind::{Merges, SentencePiece, TokenizerJson, VocabJson, VocabPickle, VocabTxt};
        let has = |kind| self.path(kind).is_some();
        if has(TokenizerJson) {
            return Ok(Some(Layout::TokenizerJson));
        }
        let bpe = has(VocabJson) && has(Merges);
        if let Some(layout) = stated {
            let there = match layout {
                Layout::Gpt | Layout::Gpt2 | Layout::Roberta => bpe,
                Layout::WordPiece => has(VocabTxt),
                Layout::TransformerXl => has(VocabTxt) || has(VocabPickle),
                _ => false,
            };
            if there {
                return Ok(Some(layout));
            }
        }
        // A class that is known by name and not here is not read as another.
        let foreign = self.class.as_deref().is_some_and(|c| {
            Layout::of_class(c).is_none() && !["PreTrainedTokenizer", "TokenizersBackend"].contains(&c)
        });
        if !foreign
            && bpe
            && let Some(path) = self.path(VocabJson)
        {
            return Ok(vocab::bpe_layout(&vocab::object(&read(path)?)?));
        }
        if !foreign && let Some(path) = self.path(VocabTxt) {
            return Ok(vocab::lines_layout(&vocab::lines(&read(path)?)?));
        }
        if !foreign && has(VocabPickle) {
            return Ok(Some(Layout::TransformerXl));
        }
        Ok(has(SentencePiece).then_some(Layout::SentencePiece))
    }
}

/// The content of a tokenizer's files, from a folder or about to be written.
pub(super) struct Parts {
    pub(super) files: BTreeMap<FileKind, Vec<u8>>,
    pub(super) layout: Option<Layout>,
    pub(super) class: Option<String>,
}

impl Parts {
    pub(super) fn of(kind: FileKind, bytes: Vec<u8>) -> Self {
        Self { files: BTreeMap::from([(kind, bytes)]), layout: Some(Layout::TokenizerJson), class: None }
    }

    /// A file as a JSON object; an empty one where there is no such file.
    pub(super) fn object(&self, kind: FileKind) -> Result<Map<String, Value>> {
        self.files.get(&kind).map_or_else(|| Ok(Map::new()), |bytes| object(kind, bytes))
    }

    /// A file that must be there.
    pub(super) fn required(&self, kind: FileKind) -> Result<&[u8]> {
        let bytes = self.files.get(&kind);
        bytes
            .map(Vec::as_slice)
            .ok_or_else(|| Error::not_found(format!("{} is missing", kind.default_name())))
    }

    /// A file as text.
    pub(super) fn text(&self, kind: FileKind) -> Result<Option<String>> {
        let Some(bytes) = self.files.get(&kind) else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        text.map(|t| Some(t.to_owned())).map_err(|e| malformed(kind, format!("no UTF-8: {e}")))
    }
}

/// Reads a file that is not too long.
fn read(path: &Path) -> Result<Vec<u8>> {
    let source = Source::open(path)?;
    let limits = Limits { header_bytes: MOST_BYTES, ..Limits::default() };
    source.read_vec(0, source.len(), &limits).map_err(|e| e.with_path(path))
}

fn read_object(path: &Path, kind: FileKind) -> Result<Map<String, Value>> {
    object(kind, &read(path)?).map_err(|e| e.with_path(path))
}

/// Parses a JSON object.
pub(super) fn object(kind: FileKind, bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(malformed(kind, "no JSON object")),
        Err(e) => Err(malformed(kind, format!("no JSON: {e}"))),
    }
}
