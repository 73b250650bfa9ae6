//! Added and special tokens: what the files around a vocabulary say of them, with transformers' precedence.
//!
//! `added_tokens_decoder` in the config, where it is, settles everything; else `special_tokens_map.json` goes
//! before the config, and `added_tokens.json` adds tokens. What no file says, the class says.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use weighbridge_formats::{Error, Result};

use super::files::{FileKind, Layout, Parts};
use super::vocab;

/// What a special token is for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The beginning of a sequence.
    Bos,
    /// The end of a sequence.
    Eos,
    /// What stands for anything unknown.
    Unk,
    /// Between two sequences.
    Sep,
    /// Fills a batch up.
    Pad,
    /// What a classifier looks at.
    Cls,
    /// What a masked model predicts.
    Mask,
}

impl Role {
    /// Every role, in the order in which transformers adds the tokens to a vocabulary.
    pub const ALL: &'static [Role] =
        &[Self::Bos, Self::Eos, Self::Unk, Self::Sep, Self::Pad, Self::Cls, Self::Mask];

    /// The role's short name, `bos`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bos => "bos",
            Self::Eos => "eos",
            Self::Unk => "unk",
            Self::Sep => "sep",
            Self::Pad => "pad",
            Self::Cls => "cls",
            Self::Mask => "mask",
        }
    }

    /// The key of `tokenizer_config.json`, `bos_token`.
    pub(super) fn key(self) -> String {
        format!("{}_token", self.as_str())
    }
}

/// A token that is found in a text as it is, before the model splits what is between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// The text.
    pub content: String,
    /// Only where no letter or digit adjoins.
    pub single_word: bool,
    /// Takes the white space before it along.
    pub lstrip: bool,
    /// Takes the white space behind it along.
    pub rstrip: bool,
    /// Looked for in the text after normalization.
    pub normalized: bool,
    /// Left out when decoding without special tokens.
    pub special: bool,
}

impl AddedToken {
    /// A special token.
    pub fn special(content: impl Into<String>) -> Self {
        let content = content.into();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
    }

    /// Reads a token: its text, or an object of its properties. `special` is what it is if that is not said.
    pub(super) fn parse(value: &Value, special: bool) -> Result<Self> {
        let wrong = || Error::malformed(format!("{value} is no token: a string or an object with content"));
        let object = match value {
            Value::String(content) => {
                return Ok(Self { special, normalized: !special, ..Self::special(content.as_str()) });
            }
            Value::Object(object) => object,
            _ => return Err(wrong()),
        };
        let content = object.get("content").and_then(Value::as_str).ok_or_else(wrong)?;
        let flag = |key: &str, default: bool| match object.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(wrong()),
        };
        let special = flag("special", special)?;
        Ok(Self {
            content: content.to_owned(),
            single_word: flag("single_word", false)?,
            lstrip: flag("lstrip", false)?,
            rstrip: flag("rstrip", false)?,
            normalized: flag("normalized", !special)?,
            special,
        })
    }

    /// As an entry of `added_tokens_decoder`.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "content": self.content,
            "lstrip": self.lstrip,
            "normalized": self.normalized,
            "rstrip": self.rstrip,
            "single_word": self.single_word,
            "special": self.special,
        })
    }

    /// As an entry of `added_tokens` in `tokenizer.json`.
    pub(super) fn to_definition(&self, id: u32) -> Value {
        json!({
            "id": id,
            "content": self.content,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        })
    }
}

/// What the files around a vocabulary say.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// The special tokens by role, in the order of [`Role::ALL`].
    pub(super) roles: Vec<(Role, AddedToken)>,
    /// Further special tokens, without a role of their own here.
    pub(super) extra: Vec<AddedToken>,
    /// Tokens with the ids that they are said to have, by id.
    pub(super) stated: Vec<(u32, AddedToken)>,
    /// Whether that is from `added_tokens_decoder`, which goes before what the definition says.
    pub(super) decisive: bool,
}

impl Added {
    /// Reads them; `class` is the layout whose defaults hold for roles that no file names.
    pub(super) fn read(parts: &Parts, config: &Map<String, Value>, class: Option<Layout>) -> Result<Self> {
        let mut named = config.clone();
        let mut stated = Vec::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            let wrong = || Error::malformed("added_tokens_decoder is no object of tokens by id");
            for (id, token) in decoder.as_object().ok_or_else(wrong)? {
                let id = id.parse::<u32>().map_err(|_| wrong())?;
                stated.push((id, AddedToken::parse(token, false)?));
            }
        } else {
            let map = parts.object(FileKind::SpecialTokensMap)?;
            named.extend(map.into_iter().filter(|(_, token)| !token.is_null()));
        }
        let mut roles: Vec<(Role, AddedToken)> = Vec::new();
        for &role in Role::ALL {
            let token = match named.get(&role.key()) {
                // A role that a file says is empty is so, whatever the class has.
                Some(Value::Null) => None,
                Some(value) => Some(special(value)?),
                None => class.and_then(|c| default_token(c, role)).map(AddedToken::special),
            };
            roles.extend(token.map(|t| (role, t)));
        }
        let mut extra: Vec<AddedToken> = Vec::new();
        let mut seen = HashSet::new();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let tokens: Vec<&Value> = match named.get(key) {
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(map)) => map.values().collect(),
                None | Some(Value::Null) => continue,
                Some(_) => return Err(Error::malformed(format!("{key} is no list of tokens"))),
            };
            for value in tokens {
                let token = special(value)?;
                if seen.insert(token.content.clone()) {
                    extra.push(token);
                }
            }
        }
        if !config.contains_key("added_tokens_decoder")
            && let Some(bytes) = parts.files.get(&FileKind::AddedTokens)
        {
            for (content, id) in vocab::object(bytes)? {
                let special = seen.contains(&content) || roles.iter().any(|(_, t)| t.content == content);
                let token = AddedToken { special, normalized: !special, ..AddedToken::special(content) };
                stated.push((id, token));
            }
        }
        stated.sort_by_key(|(id, _)| *id);
        // What is said of a token beside its id goes before what its role implies.
        for (_, token) in &mut roles {
            if let Some((_, known)) = stated.iter().find(|(_, t)| t.content == token.content) {
                *token = AddedToken { special: true, ..known.clone() };
            }
        }
        Ok(Self { roles, extra, stated, decisive: config.contains_key("added_tokens_decoder") })
    }

    /// The token of a role.
    pub(super) fn role(&self, role: Role) -> Option<&AddedToken> {
        self.roles.iter().find(|(r, _)| *r == role).map(|(_, t)| t)
    }

    /// All of them, in the order in which transformers adds them, each once.
    pub(super) fn in_order(&self) -> Vec<AddedToken> {
        let stated = self.stated.iter().map(|(_, t)| t);
        let mut out: Vec<AddedToken> = Vec::new();
        let mut at: HashMap<&str, usize> = HashMap::new();
        for token in stated.chain(self.roles.iter().map(|(_, t)| t)).chain(&self.extra) {
            match at.get(token.content.as_str()) {
                Some(&known) => out[known].special |= token.special,
                None => {
                    at.insert(&token.content, out.len());
                    out.push(token.clone());
                }
            }
        }
        out
    }
}

/// A token that is special whatever its object says.
fn special(value: &Value) -> Result<AddedToken> {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.remove("special");
    }
    AddedToken::parse(&value, true)
}

/// The token that a class has for a role if no file names one.
pub(super) fn default_token(class: Layout, role: Role) -> Option<&'static str> {
    Some(match (class, role) {
        (Layout::WordPiece, Role::Unk) => "[UNK]",
        (Layout::WordPiece, Role::Sep) => "[SEP]",
        (Layout::WordPiece, Role::Pad) => "[PAD]",
        (Layout::WordPiece, Role::Cls) => "[CLS]",
        (Layout::WordPiece, Role::Mask) => "[MASK]",
        (Layout::Gpt, Role::Unk) => "<unk>",
        (Layout::Gpt2, Role::Unk | Role::Bos | Role::Eos) => "<|endoftext|>",
        (Layout::Roberta, Role::Bos | Role::Cls) => "<s>",
        (Layout::Roberta, Role::Eos | Role::Sep) => "</s>",
        (Layout::Roberta, Role::Unk) => "<unk>",
        (Layout::Roberta, Role::Pad) => "<pad>",
        (Layout::Roberta, Role::Mask) => "<mask>",
        (Layout::TransformerXl, Role::Unk) => "<unk>",
        (Layout::TransformerXl, Role::Eos) => "<eos>",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(FileKind, &str)], class: Layout) -> Added {
        let mut parts = Parts::of(FileKind::Config, b"{}".to_vec());
        for (kind, text) in files {
            parts.files.insert(*kind, text.as_bytes().to_vec());
        }
        let config = parts.object(FileKind::Config).unwrap();
        Added::read(&parts, &config, Some(class)).unwrap()
    }

    #[test]
    fn the_map_goes_before_the_config_and_the_decoder_before_both() {
        let config = (FileKind::Config, r#"{"unk_token": "[U1]", "pad_token": null}"#);
        let map = (FileKind::SpecialTokensMap, r#"{"unk_token": {"content": "[U2]", "lstrip": true}}"#);
        let added = read(&[config, map], Layout::WordPiece);
        let unk = added.role(Role::Unk).unwrap();
        assert_eq!(
            (unk.content.as_str(), unk.lstrip, unk.special, unk.normalized),
            ("[U2]", true, true, false)
        );
        assert_eq!(added.role(Role::Pad), None);
        assert_eq!(added.role(Role::Cls).unwrap().content, "[CLS]");
        let decoder =
            r#"{"unk_token": "[U1]", "added_tokens_decoder": {"7": {"content": "[U1]", "rstrip": true}}}"#;
        let added = read(&[(FileKind::Config, decoder), map], Layout::WordPiece);
        let unk = added.role(Role::Unk).unwrap();
        assert_eq!((unk.content.as_str(), unk.rstrip, unk.special), ("[U1]", true, true));
        assert_eq!(added.stated[0].0, 7);
    }

    #[test]
    fn added_tokens_come_by_id_and_each_once() {
        let added = read(
            &[
                (FileKind::AddedTokens, r#"{"<b>": 12, "<a>": 11}"#),
                (FileKind::SpecialTokensMap, r#"{"additional_special_tokens": ["<b>", "<c>", "<c>"]}"#),
            ],
            Layout::Gpt2,
        );
        let order: Vec<_> = added.in_order().into_iter().map(|t| (t.content, t.special)).collect();
        let expected = [("<a>", false), ("<b>", true), ("<|endoftext|>", true), ("<c>", true)];
        assert_eq!(order, expected.map(|(t, s)| (t.to_owned(), s)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bad in [json!(1), json!({}), json!({"content": 1}), json!({"content": "a", "lstrip": "yes"})] {
            assert!(AddedToken::parse(&bad, true).is_err(), "{bad}");
        }
    }
}
