//! A tokenizer's files in any layout that can hold it, proven by reading them back before they are written.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};
use weighbridge_formats::write::{ExecuteOptions, FilePlan, WritePlan, Written, execute};
use weighbridge_formats::{Error, Note, NoteKind, Result};

use super::added::{AddedToken, Role, default_token};
use super::build::{BERT_OPTIONS, build};
use super::files::{FileKind, Layout, Parts};
use super::{Tokenizer, canonical, transformer_xl};

/// The files of a tokenizer, in memory.
#[derive(Clone, Debug, Default)]
pub struct SavedFiles {
    /// Names and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What is written otherwise, and what is lost.
    pub notes: Vec<Note>,
}

impl SavedFiles {
    /// The files as a plan for the write engine, alone or beside a model's other files.
    ///
    /// # Errors
    /// As [`FilePlan::push_fixed`].
    pub fn plan(self) -> Result<WritePlan<'static>> {
        let mut plan = WritePlan { files: Vec::new(), notes: self.notes };
        for (name, bytes) in self.files {
            let mut file = FilePlan::new(name);
            file.push_fixed(bytes)?;
            plan.files.push(file);
        }
        Ok(plan)
    }
}

impl Tokenizer {
    /// The files of a layout.
    ///
    /// Truncation, padding and a decoder of its own are lost in any layout but `tokenizer.json`; that takes
    /// `allow_loss`. Whatever would encode a text otherwise is refused with or without it.
    ///
    /// # Errors
    /// `InvalidOptions` where the layout cannot hold this tokenizer, with the part that it cannot hold.
    pub fn files(&self, layout: Layout, allow_loss: bool) -> Result<SavedFiles> {
        let refused = |what: String| {
            Error::invalid_options(format!("{} cannot hold this tokenizer: {what}", layout.as_str()))
                .with_hint("save it as tokenizer.json, which holds any")
        };
        let mut files: BTreeMap<FileKind, Vec<u8>> = match layout {
            Layout::TokenizerJson => BTreeMap::from([(FileKind::TokenizerJson, pretty(&self.definition)?)]),
            Layout::WordPiece => BTreeMap::from([(FileKind::VocabTxt, self.lines().map_err(refused)?)]),
            Layout::Gpt | Layout::Gpt2 | Layout::Roberta => BTreeMap::from([
                (FileKind::VocabJson, self.vocab_json()?),
                (FileKind::Merges, self.merges()?),
            ]),
            Layout::TransformerXl => {
                let words = self.words().map_err(refused)?;
                let unk = self.definition["model"]["unk_token"].as_str().unwrap_or("<unk>");
                let pickle = transformer_xl::to_pickle(&words, unk, self.lowercases())?;
                let lines = self.lines().map_err(refused)?;
                if transformer_xl::from_lines(&lines)? != words {
                    return Err(refused("a token with white space in it, or a token twice".into()));
                }
                BTreeMap::from([(FileKind::VocabTxt, lines), (FileKind::VocabPickle, pickle)])
            }
            Layout::SentencePiece => return Err(refused("it is carried as a file, never made".into())),
        };
        let config = self.config_for(layout)?;
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        let class = class.map(|c| c.strip_suffix("Fast").unwrap_or(c).to_owned());
        files.insert(FileKind::Config, pretty(&Value::Object(config))?);
        let map = self.special_tokens_map();
        if !map.is_empty() {
            files.insert(FileKind::SpecialTokensMap, pretty(&Value::Object(map))?);
        }
        if let Some(template) = &self.chat_template {
            files.insert(FileKind::ChatTemplate, template.clone().into_bytes());
        }
        let mut notes = Vec::new();
        if layout != Layout::TokenizerJson {
            let outside = self.outside()?;
            if !outside.is_empty() {
                files.insert(FileKind::AddedTokens, pretty(&Value::Object(outside))?);
            }
            for part in ["truncation", "padding"] {
                if !self.definition[part].is_null() {
                    notes.push(Note::lost(format!("the tokenizer's setting of {part}")));
                }
            }
        }
        let parts = Parts { files, layout: Some(layout), class };
        let back = build(&parts).map_err(|e| refused(format!("reading it back fails: {e}")))?;
        if let Some(part) = canonical::first_difference(&self.definition, &back.definition)? {
            return Err(refused(format!("{part} would not be the same")));
        }
        if decoder(&self.definition) != decoder(&back.definition) {
            notes.push(Note::lost("the tokenizer's decoder: ids give another text"));
        }
        if !allow_loss && let Some(lost) = notes.iter().find(|n| n.kind == NoteKind::Lost) {
            let what = format!("{} would lose {}", layout.as_str(), lost.text);
            return Err(
                Error::invalid_options(what).with_hint("allow the loss, or save it as tokenizer.json")
            );
        }
        let named = |(kind, bytes): (FileKind, Vec<u8>)| (kind.default_name().to_owned(), bytes);
        Ok(SavedFiles { files: parts.files.into_iter().map(named).collect(), notes })
    }

    /// Writes the files of a layout into a folder that exists, all or none of them. Loses nothing.
    ///
    /// # Errors
    /// As [`Tokenizer::files`] and [`execute`].
    pub fn save(
        &self,
        folder: impl AsRef<Path>,
        layout: Layout,
        options: &ExecuteOptions<'_>,
    ) -> Result<Written> {
        execute(self.files(layout, false)?.plan()?, folder.as_ref(), options)
    }

    /// The first layout with files of its own that can hold the tokenizer, beside `tokenizer.json`.
    pub fn native_layout(&self) -> Option<Layout> {
        use Layout::{Gpt, Gpt2, Roberta, TransformerXl, WordPiece};
        let candidates: &[Layout] = match self.definition["model"]["type"].as_str() {
            Some("WordPiece") => &[WordPiece],
            Some("BPE") => &[Gpt, Gpt2, Roberta],
            Some("WordLevel") => &[TransformerXl],
            _ => &[],
        };
        candidates.iter().copied().find(|layout| self.files(*layout, true).is_ok())
    }

    /// The model's tokens by id, which must be 0, 1, 2 and so on.
    fn words(&self) -> std::result::Result<Vec<String>, String> {
        let ids = canonical::model_ids(&self.definition).map_err(|e| e.to_string())?;
        let mut words: Vec<(u32, String)> = ids.into_iter().map(|(t, id)| (id, t)).collect();
        words.sort();
        if let Some((place, (id, word))) =
            words.iter().enumerate().find(|(place, (id, _))| *id as usize != *place)
        {
            return Err(format!("the ids must be 0, 1, 2 and so on, and {word:?} at place {place} has {id}"));
        }
        let odd = |w: &&(u32, String)| w.1.is_empty() || w.1.contains(['\n', '\r']) || w.1.trim_end() != w.1;
        match words.iter().find(odd) {
            Some((_, word)) => Err(format!("{word:?} is no line of its own")),
            None => Ok(words.into_iter().map(|(_, w)| w).collect()),
        }
    }

    fn lines(&self) -> std::result::Result<Vec<u8>, String> {
        let mut text = self.words()?.join("\n");
        text.push('\n');
        Ok(text.into_bytes())
    }

    fn vocab_json(&self) -> Result<Vec<u8>> {
        let mut ids: Vec<(String, u32)> = canonical::model_ids(&self.definition)?.into_iter().collect();
        ids.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let map: Map<String, Value> = ids.into_iter().map(|(t, id)| (t, id.into())).collect();
        serde_json::to_vec(&map).map_err(|e| Error::malformed(e.to_string()))
    }

    fn merges(&self) -> Result<Vec<u8>> {
        let mut text = String::from("#version: 0.2\n");
        for (left, right) in canonical::merges(&self.definition)? {
            text.push_str(&format!("{left} {right}\n"));
        }
        Ok(text.into_bytes())
    }

    /// Added tokens that the model itself does not have.
    fn outside(&self) -> Result<Map<String, Value>> {
        let base = canonical::model_ids(&self.definition)?;
        let added = canonical::added(&self.definition)?;
        let outside = added.into_iter().filter(|(_, t)| !base.contains_key(&t.content));
        Ok(outside.map(|(id, t)| (t.content, id.into())).collect())
    }

    fn lowercases(&self) -> bool {
        let normalizer = &self.definition["normalizer"];
        let parts = normalizer["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
        parts.iter().chain([normalizer]).any(|n| n["type"] == "Lowercase")
    }

    /// `tokenizer_config.json`: what it was, with what this tokenizer in this layout is stated over it.
    fn config_for(&self, layout: Layout) -> Result<Map<String, Value>> {
        let mut config = self.config.clone();
        let known = config.get("tokenizer_class").and_then(Value::as_str);
        let class = match layout {
            Layout::TokenizerJson => match (known, &self.class) {
                (Some(class), _) => class.to_owned(),
                (None, Some(class)) => class.clone(),
                (None, None) => self.native_layout().unwrap_or(layout).class().to_owned(),
            },
            _ => match known {
                Some(class) if Layout::of_class(class) == Some(layout) => class.to_owned(),
                _ => layout.class().to_owned(),
            },
        };
        let family = Layout::of_class(&class);
        config.insert("tokenizer_class".into(), class.into());
        let normalizer = &self.definition["normalizer"];
        if family == Some(Layout::WordPiece) && normalizer["type"] == "BertNormalizer" {
            for (key, field) in BERT_OPTIONS {
                config.insert((*key).to_owned(), normalizer[*field].clone());
            }
        }
        if layout == Layout::TransformerXl {
            config.insert("lower_case".into(), self.lowercases().into());
        }
        let splitter = &self.definition["pre_tokenizer"];
        if matches!(family, Some(Layout::Gpt2 | Layout::Roberta)) && splitter["type"] == "ByteLevel" {
            config.insert("add_prefix_space".into(), splitter["add_prefix_space"].clone());
        }
        for &role in Role::ALL {
            match self.special(role) {
                Some((token, _)) => config.insert(role.key(), token.content.clone().into()),
                // The class would fill the role by itself. Where nothing says that the role is empty, it may,
                // with a token that is there; else it must be told.
                None => match family.and_then(|f| default_token(f, role)) {
                    Some(token) if config.contains_key(&role.key()) || !self.ids.contains_key(token) => {
                        config.insert(role.key(), Value::Null)
                    }
                    _ => None,
                },
            };
        }
        let added = canonical::added(&self.definition)?;
        let decoder: Map<String, Value> = added.iter().map(|(id, t)| (id.to_string(), t.to_json())).collect();
        config.insert("added_tokens_decoder".into(), Value::Object(decoder));
        Ok(config)
    }

    /// `special_tokens_map.json`: what it was, with the special tokens of the roles.
    fn special_tokens_map(&self) -> Map<String, Value> {
        let mut map = self.special_map.clone();
        for (role, token) in &self.specials {
            let plain = *token == AddedToken::special(token.content.as_str());
            let value = if plain { json!(token.content) } else { without_special(token) };
            map.insert(role.key(), value);
        }
        map
    }
}

/// A token's properties as `special_tokens_map.json` has them.
fn without_special(token: &AddedToken) -> Value {
    let mut value = token.to_json();
    if let Some(map) = value.as_object_mut() {
        map.remove("special");
    }
    value
}

/// The decoder without what is at its default.
fn decoder(definition: &Value) -> HashMap<&str, &Value> {
    let Some(map) = definition["decoder"].as_object() else { return HashMap::new() };
    let level = map.get("type").is_some_and(|t| t == "ByteLevel");
    map.iter()
        .filter(|(k, v)| !v.is_null() && (!level || *k == "type"))
        .map(|(k, v)| (k.as_str(), v))
        .collect()
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::malformed(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}
