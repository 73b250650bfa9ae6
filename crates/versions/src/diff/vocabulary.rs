//! What changed in a tokenizer: its vocabulary, and the parts of `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};
use weighbridge_formats::{Note, Result};

use crate::folder::ModelFolder;

/// The longest tokenizer file that is read; those of today's largest vocabularies have 35 MB.
const FILE_BYTES: u64 = 128 << 20;
/// The most tokens of a vocabulary; today's largest has a quarter of a million.
const TOKENS: usize = 4_000_000;
/// How many tokens are named.
const NAMED: usize = 20;

/// What changed in a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VocabularyDiff {
    /// How many tokens there are, before and after, added tokens included.
    pub sizes: [u64; 2],
    /// How many tokens only the newer version has, and the first 20 by id.
    pub added: (u64, Vec<String>),
    /// How many tokens only the older version has, and the first 20 by id.
    pub removed: (u64, Vec<String>),
    /// How many tokens have another id, and the first 20 by their older id.
    pub moved: (u64, Vec<String>),
}

impl VocabularyDiff {
    /// Whether every token has its id on both sides.
    pub fn is_equal(&self) -> bool {
        self.added.0 == 0 && self.removed.0 == 0 && self.moved.0 == 0
    }
}

/// A tokenizer as far as versions are compared by it.
#[derive(Default)]
pub(crate) struct Tokenizer {
    /// Tokens with their ids.
    pub(crate) vocabulary: Option<HashMap<String, u64>>,
    /// The file that the vocabulary is from.
    pub(crate) source: Option<&'static str>,
    /// The other parts of `tokenizer.json`, and a digest of the merges.
    parts: BTreeMap<String, Value>,
}

impl Tokenizer {
    /// Reads what a folder has: `tokenizer.json`, else `vocab.json`, else `vocab.txt`. What cannot be read gives a
    /// note, and the file counts by its bytes alone.
    pub(crate) fn read(folder: &ModelFolder, notes: &mut Vec<Note>) -> Result<Self> {
        type Parse = fn(&[u8]) -> std::result::Result<Tokenizer, String>;
        let sources: [(&'static str, Parse); 3] = [
            ("tokenizer.json", parse_json),
            ("vocab.json", parse_vocab_json),
            ("vocab.txt", parse_vocab_txt),
        ];
        for (name, parse) in sources {
            if !folder.has(name) {
                continue;
            }
            let read = match folder.read(name, FILE_BYTES) {
                Ok(bytes) => parse(&bytes.unwrap_or_default()),
                Err(e) => Err(e.to_string()),
            };
            match read {
                Ok(mut tokenizer) => {
                    tokenizer.source = Some(name);
                    return Ok(tokenizer);
                }
                Err(why) => notes.push(Note::warning(format!("{name} is compared by its bytes only: {why}"))),
            }
        }
        Ok(Self::default())
    }

    /// How many tokens there are.
    pub(crate) fn size(&self) -> Option<u64> {
        self.vocabulary.as_ref().map(|v| v.len() as u64)
    }
}

/// The vocabulary's changes, and the names of the parts that differ; `None` where neither side has a vocabulary.
pub(super) fn compare(a: &Tokenizer, b: &Tokenizer) -> (Option<VocabularyDiff>, Vec<String>) {
    let mut parts = Vec::new();
    // Parts are compared where both sides have them to compare.
    if a.source == b.source {
        let names: std::collections::BTreeSet<_> = a.parts.keys().chain(b.parts.keys()).collect();
        parts.extend(names.into_iter().filter(|n| a.parts.get(*n) != b.parts.get(*n)).cloned());
    }
    if a.vocabulary.is_none() && b.vocabulary.is_none() {
        return (None, parts);
    }
    let empty = HashMap::new();
    let (old, new) = (a.vocabulary.as_ref().unwrap_or(&empty), b.vocabulary.as_ref().unwrap_or(&empty));
    let only = |of: &HashMap<String, u64>, other: &HashMap<String, u64>| {
        named(of.iter().filter(|(token, _)| !other.contains_key(*token)))
    };
    let moved = old.iter().filter(|(token, id)| new.get(*token).is_some_and(|other| other != *id));
    let vocabulary = VocabularyDiff {
        sizes: [old.len() as u64, new.len() as u64],
        added: only(new, old),
        removed: only(old, new),
        moved: named(moved),
    };
    (Some(vocabulary), parts)
}

/// How many, and the first by id.
fn named<'t>(tokens: impl Iterator<Item = (&'t String, &'t u64)>) -> (u64, Vec<String>) {
    let mut all: Vec<_> = tokens.map(|(token, id)| (*id, token)).collect();
    all.sort_unstable();
    (all.len() as u64, all.iter().take(NAMED).map(|(_, token)| (*token).clone()).collect())
}

fn parse_vocab_txt(bytes: &[u8]) -> std::result::Result<Tokenizer, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut vocabulary = HashMap::new();
    for (id, line) in text.split('\n').enumerate() {
        bounded(vocabulary.len())?;
        vocabulary.insert(line.strip_suffix('\r').unwrap_or(line).to_owned(), id as u64);
    }
    Ok(Tokenizer { vocabulary: Some(vocabulary), ..Tokenizer::default() })
}

fn parse_vocab_json(bytes: &[u8]) -> std::result::Result<Tokenizer, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let vocabulary = Vocabulary.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    Ok(Tokenizer { vocabulary: Some(vocabulary.map_err(|e| e.to_string())?), ..Tokenizer::default() })
}

fn parse_json(bytes: &[u8]) -> std::result::Result<Tokenizer, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Document.deserialize(&mut reader).and_then(|t| reader.end().map(|()| t)).map_err(|e| e.to_string())
}

fn bounded(tokens: usize) -> std::result::Result<(), String> {
    if tokens < TOKENS { Ok(()) } else { Err(format!("the vocabulary has more than {TOKENS} tokens")) }
}

/// Reads the whole of `tokenizer.json`, without a tree of its vocabulary and merges.
struct Document;
/// Reads its `model`: the vocabulary, and the other parts.
struct Model;
/// Reads `{"token": id, …}`, or `[["token", score], …]` whose ids are their positions.
struct Vocabulary;
/// Reads `["a b", …]` or `[["a", "b"], …]` into one digest for either spelling.
struct Merges;

macro_rules! seed {
    ($name:ident -> $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $name {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<$value, D::Error> {
                from.deserialize_any(self)
            }
        }
    };
}

seed!(Document -> Tokenizer);
seed!(Model -> (Option<HashMap<String, u64>>, BTreeMap<String, Value>));
seed!(Vocabulary -> HashMap<String, u64>);
seed!(Merges -> Value);

impl<'de> Visitor<'de> for Document {
    type Value = Tokenizer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the object of a tokenizer.json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Tokenizer, A::Error> {
        let mut out = Tokenizer::default();
        let mut added = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "model" => {
                    let (vocabulary, parts) = map.next_value_seed(Model)?;
                    out.vocabulary = vocabulary;
                    out.parts.extend(parts.into_iter().map(|(k, v)| (format!("model.{k}"), v)));
                }
                "added_tokens" => {
                    let tokens: Value = map.next_value()?;
                    for token in tokens.as_array().into_iter().flatten() {
                        if let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) {
                            added.push((content.to_owned(), id));
                        }
                    }
                    out.parts.insert(key, tokens);
                }
                // That of the file's layout.
                "version" => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    out.parts.insert(key, map.next_value()?);
                }
            }
        }
        if let Some(vocabulary) = &mut out.vocabulary {
            for (token, id) in added {
                bounded(vocabulary.len()).map_err(A::Error::custom)?;
                vocabulary.insert(token, id);
            }
        }
        Ok(out)
    }
}

impl<'de> Visitor<'de> for Model {
    type Value = (Option<HashMap<String, u64>>, BTreeMap<String, Value>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the model of a tokenizer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let (mut vocabulary, mut parts) = (None, BTreeMap::new());
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "vocab" => vocabulary = Some(map.next_value_seed(Vocabulary)?),
                "merges" => {
                    parts.insert(key, map.next_value_seed(Merges)?);
                }
                _ => {
                    parts.insert(key, map.next_value()?);
                }
            }
        }
        Ok((vocabulary, parts))
    }
}

impl<'de> Visitor<'de> for Vocabulary {
    type Value = HashMap<String, u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary: an object of ids, or a list of tokens with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut tokens = HashMap::new();
        while let Some((token, id)) = map.next_entry::<String, u64>()? {
            bounded(tokens.len()).map_err(A::Error::custom)?;
            tokens.insert(token, id);
        }
        Ok(tokens)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        let mut tokens = HashMap::new();
        let mut id = 0;
        while let Some((token, _)) = seq.next_element::<(String, f64)>()? {
            bounded(tokens.len()).map_err(A::Error::custom)?;
            tokens.insert(token, id);
            id += 1;
        }
        Ok(tokens)
    }
}

impl<'de> Visitor<'de> for Merges {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Merge {
            Text(String),
            Pair(String, String),
        }
        let (mut digest, mut count) = (Sha256::new(), 0u64);
        while let Some(merge) = seq.next_element()? {
            let (a, b) = match &merge {
                Merge::Text(text) => text.split_once(' ').unwrap_or((text, "")),
                Merge::Pair(a, b) => (&**a, &**b),
            };
            for part in [a, b] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part.as_bytes());
            }
            count += 1;
        }
        Ok(serde_json::json!([count, format!("{:x}", digest.finalize())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Tokenizer {
        Tokenizer { source: Some("tokenizer.json"), ..parse_json(text.as_bytes()).unwrap() }
    }

    #[test]
    fn vocabularies_are_compared_by_token_and_id() {
        let a = json(
            r#"{"version":"1.0","added_tokens":[{"id":3,"content":"<s>"}],"normalizer":null,
                "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#,
        );
        let b = json(
            r#"{"version":"2","added_tokens":[{"id":3,"content":"<s>"}],"normalizer":{"type":"NFC"},
                "model":{"type":"BPE","vocab":{"a":0,"b":2,"c":1},"merges":[["a","b"]]}}"#,
        );
        let (vocabulary, parts) = compare(&a, &b);
        let vocabulary = vocabulary.unwrap();
        assert_eq!(vocabulary.sizes, [4, 4]);
        assert_eq!(
            (&vocabulary.added, &vocabulary.removed),
            (&(1, vec!["c".into()]), &(1, vec!["ab".into()]))
        );
        assert_eq!(vocabulary.moved, (1, vec!["b".into()]));
        assert_eq!(parts, ["normalizer"], "merges are equal in either spelling");
        let (same, parts) = compare(&a, &a);
        assert!(same.unwrap().is_equal() && parts.is_empty());
        let c = json(r#"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a c"]}}"#);
        assert!(compare(&a, &c).1.contains(&"model.merges".to_owned()));
    }

    #[test]
    fn the_layouts_of_vocabularies_agree() {
        let unigram =
            json(r#"{"model":{"type":"Unigram","vocab":[["a",-1.5],["b",0]]}}"#).vocabulary.unwrap();
        let object = parse_vocab_json(br#"{"b":1,"a":0}"#).unwrap().vocabulary.unwrap();
        let lines = parse_vocab_txt(b"a\r\nb\n").unwrap().vocabulary.unwrap();
        assert_eq!((&unigram, &unigram), (&object, &lines));
        assert_eq!(compare(&Tokenizer::default(), &Tokenizer::default()), (None, vec![]));
    }

    #[test]
    fn what_is_no_tokenizer_is_said_and_not_trusted() {
        for bad in ["", "[]", "{", r#"{"model":{"vocab":{"a":"x"}}}"#, r#"{"model":{"vocab":7}}"#, "{} x"] {
            assert!(parse_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_json(format!(r#"{{"model":{}"#, "[".repeat(100_000)).as_bytes()).is_err());
        assert!(parse_vocab_txt(b"\xff").is_err());
    }
}
