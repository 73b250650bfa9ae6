//! A tokenizer held against its model: the vocabulary's size, and the ids of special tokens.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use super::Tokenizer;
use super::added::Role;

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Usual enough, and worth knowing.
    Info,
    /// Looks wrong.
    Warning,
    /// Some text gives an id that the model has no row for, or the files contradict each other.
    Error,
}

impl Severity {
    /// The word that a line begins with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "note",
        }
    }
}

/// What is wrong between a tokenizer and its model.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// There are ids past the rows of the embedding.
    IdsPastRows {
        /// The rows that the tokenizer needs.
        needed: u64,
        /// The rows that there are.
        rows: u64,
    },
    /// There are ids past `vocab_size` of the config.
    IdsPastVocabSize {
        /// The rows that the tokenizer needs.
        needed: u64,
        /// What the config says.
        vocab_size: u64,
    },
    /// The config's `vocab_size` is not the number of embedding rows.
    VocabSizeIsNotRows {
        /// What the config says.
        vocab_size: u64,
        /// The rows that there are.
        rows: u64,
    },
    /// The model has room for more ids than there are tokens, as models that round up do.
    SpareRows {
        /// The rows that the tokenizer needs.
        needed: u64,
        /// The rows that there are, or that the config says.
        rows: u64,
    },
    /// Some ids below the largest have no token.
    Holes {
        /// How many.
        ids: u64,
        /// The first.
        first: u32,
    },
    /// Two tokens have one id.
    SharedId {
        /// The id.
        id: u32,
        /// The tokens, in order.
        tokens: [String; 2],
    },
    /// A special token that the files name is in no vocabulary.
    NoSuchToken {
        /// Its role.
        role: Role,
        /// The token.
        token: String,
    },
    /// The config gives a role another id than the tokenizer.
    OtherSpecialId {
        /// The role.
        role: Role,
        /// The ids that the config has for it.
        config: Vec<u64>,
        /// The tokenizer's token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// The config has a special id that the model has no row for.
    SpecialIdPastRows {
        /// The config's key.
        key: String,
        /// The id.
        id: u64,
        /// The rows.
        rows: u64,
    },
    /// The config has a special id that is no number.
    SpecialIdIsNoId {
        /// The config's key.
        key: String,
        /// What stands there.
        value: String,
    },
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is.
    pub kind: FindingKind,
}

/// Special ids of a config beside those of the roles.
const OTHER_IDS: &[&str] = &["decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"];

impl Tokenizer {
    /// Holds the tokenizer against its model: `config` is `config.json`, `embedding_rows` the first dimension of
    /// the input embedding. What is not given is not compared. The gravest findings come first.
    ///
    /// A config of a model with several parts has the vocabulary's keys in `text_config`; they are looked for
    /// there too.
    pub fn check(&self, config: Option<&Value>, embedding_rows: Option<u64>) -> Vec<Finding> {
        let mut out = Vec::new();
        let mut add = |severity, kind| out.push(Finding { severity, kind });
        let get = |key: &str| {
            let config = config?;
            config.get(key).or_else(|| config.get("text_config")?.get(key)).filter(|v| !v.is_null())
        };
        let needed = self.vocab_size().rows;
        let vocab_size = get("vocab_size").and_then(Value::as_u64);
        if let Some(rows) = embedding_rows
            && needed > rows
        {
            add(Severity::Error, FindingKind::IdsPastRows { needed, rows });
        } else if let Some(vocab_size) = vocab_size
            && needed > vocab_size
        {
            add(Severity::Error, FindingKind::IdsPastVocabSize { needed, vocab_size });
        }
        if let (Some(vocab_size), Some(rows)) = (vocab_size, embedding_rows)
            && vocab_size != rows
        {
            add(Severity::Error, FindingKind::VocabSizeIsNotRows { vocab_size, rows });
        }
        let rows = embedding_rows.or(vocab_size);
        if let Some(rows) = rows.filter(|&rows| rows > needed) {
            add(Severity::Info, FindingKind::SpareRows { needed, rows });
        }
        for kind in self.ids_findings() {
            add(Severity::Warning, kind);
        }
        for (role, token) in &self.specials {
            let key = format!("{}_id", role.key());
            let stated = get(&key);
            let Some(id) = self.token_to_id(&token.content) else {
                let (role, token) = (*role, token.content.clone());
                add(Severity::Warning, FindingKind::NoSuchToken { role, token });
                continue;
            };
            // What is no id is told below, for every key.
            let config = stated.map(|v| numbers(v).0).unwrap_or_default();
            if !config.is_empty() && !config.contains(&u64::from(id)) {
                let (role, token) = (*role, token.content.clone());
                add(Severity::Warning, FindingKind::OtherSpecialId { role, config, token, id });
            }
        }
        let keys = Role::ALL.iter().map(|r| format!("{}_id", r.key()));
        for key in keys.chain(OTHER_IDS.iter().map(|k| (*k).to_owned())) {
            let Some(value) = get(&key) else { continue };
            let (ids, odd) = numbers(value);
            if let Some(value) = odd {
                add(Severity::Warning, FindingKind::SpecialIdIsNoId { key: key.clone(), value });
            }
            if let Some((id, rows)) = rows.and_then(|rows| Some((*ids.iter().find(|id| **id >= rows)?, rows)))
            {
                add(Severity::Error, FindingKind::SpecialIdPastRows { key, id, rows });
            }
        }
        out.sort_by_key(|f| std::cmp::Reverse(f.severity));
        out
    }

    /// Holes and shared ids.
    fn ids_findings(&self) -> Vec<FindingKind> {
        let mut by_id: HashMap<u32, &str> = HashMap::with_capacity(self.ids.len());
        let mut shared: Option<(u32, [String; 2])> = None;
        for (token, &id) in &self.ids {
            if let Some(other) = by_id.insert(id, token)
                && shared.as_ref().is_none_or(|(known, _)| id < *known)
            {
                let mut tokens = [other.to_owned(), token.clone()];
                tokens.sort();
                shared = Some((id, tokens));
            }
        }
        let mut out: Vec<FindingKind> =
            shared.into_iter().map(|(id, tokens)| FindingKind::SharedId { id, tokens }).collect();
        let holes = self.vocab_size().rows - by_id.len() as u64;
        if holes > 0
            && let Some(first) = (0..=u32::MAX).find(|id| !by_id.contains_key(id))
        {
            out.push(FindingKind::Holes { ids: holes, first });
        }
        out
    }
}

/// The ids of a number or a list of them, and the first that is none. A negative number stands for no id.
fn numbers(value: &Value) -> (Vec<u64>, Option<String>) {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let none = |v: &Value| v.as_i64().is_some_and(|i| i < 0);
    let odd = list.iter().find(|v| v.as_u64().is_none() && !none(v)).map(ToString::to_string);
    (list.iter().filter_map(Value::as_u64).collect(), odd)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FindingKind::IdsPastRows { needed, rows } => {
                write!(f, "the tokenizer's ids need {needed} rows, and the embedding has {rows}")
            }
            FindingKind::IdsPastVocabSize { needed, vocab_size } => {
                write!(
                    f,
                    "the tokenizer's ids need {needed} rows, and config.json has vocab_size {vocab_size}"
                )
            }
            FindingKind::VocabSizeIsNotRows { vocab_size, rows } => {
                write!(f, "config.json has vocab_size {vocab_size}, and the embedding has {rows} rows")
            }
            FindingKind::SpareRows { needed, rows } => {
                write!(f, "{} of the model's {rows} rows are of no token", rows - needed)
            }
            FindingKind::Holes { ids, first } => {
                write!(f, "{ids} ids below the largest have no token, the first is {first}")
            }
            FindingKind::SharedId { id, tokens } => {
                write!(f, "the tokens {:?} and {:?} both have the id {id}", tokens[0], tokens[1])
            }
            FindingKind::NoSuchToken { role, token } => {
                write!(f, "the {} token {token:?} is not in the vocabulary", role.as_str())
            }
            FindingKind::OtherSpecialId { role, config, token, id } => {
                let config: Vec<String> = config.iter().map(ToString::to_string).collect();
                let (role, config) = (role.as_str(), config.join(", "));
                write!(f, "config.json has {role}_token_id {config}, and the tokenizer's {token:?} is {id}")
            }
            FindingKind::SpecialIdPastRows { key, id, rows } => {
                write!(f, "config.json has {key} {id}, and the model has {rows} rows")
            }
            FindingKind::SpecialIdIsNoId { key, value } => write!(f, "config.json has {key} {value}, no id"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(vocab: &Value) -> Tokenizer {
        let json = json!({
            "version": "1.0",
            "added_tokens": [],
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        });
        Tokenizer::from_json(json.to_string()).unwrap()
    }

    fn kinds(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|f| format!("{:?}: {f}", f.severity)).collect()
    }

    #[test]
    fn a_model_that_fits_has_no_findings() {
        let t = tokenizer(&json!({"<unk>": 0, "a": 1}));
        assert_eq!(t.check(Some(&json!({"vocab_size": 2, "pad_token_id": -1})), Some(2)), []);
        assert_eq!(t.check(None, None), []);
    }

    #[test]
    fn each_difference_is_found() {
        let mut t = tokenizer(&json!({"<unk>": 0, "a": 1, "b": 4, "c": 4}));
        t.specials = vec![
            (Role::Unk, crate::tokenizer::AddedToken::special("<unk>")),
            (Role::Pad, crate::tokenizer::AddedToken::special("<pad>")),
        ];
        let config = json!({
            "text_config": {"vocab_size": 4},
            "unk_token_id": 1,
            "eos_token_id": [1, 3],
            "decoder_start_token_id": 9,
            "sep_token_id": "x",
        });
        let found = kinds(&t.check(Some(&config), Some(3)));
        assert_eq!(
            found,
            [
                "Error: the tokenizer's ids need 5 rows, and the embedding has 3",
                "Error: config.json has vocab_size 4, and the embedding has 3 rows",
                "Error: config.json has eos_token_id 3, and the model has 3 rows",
                "Error: config.json has decoder_start_token_id 9, and the model has 3 rows",
                "Warning: the tokens \"b\" and \"c\" both have the id 4",
                "Warning: 2 ids below the largest have no token, the first is 2",
                "Warning: config.json has unk_token_id 1, and the tokenizer's \"<unk>\" is 0",
                "Warning: the pad token \"<pad>\" is not in the vocabulary",
                "Warning: config.json has sep_token_id \"x\", no id",
            ]
        );
        let found = kinds(&t.check(Some(&json!({"vocab_size": 4})), None));
        assert!(found[0].ends_with("config.json has vocab_size 4"), "{found:?}");
        let found = t.check(Some(&json!({"vocab_size": 64})), Some(64));
        assert!(found.iter().any(|f| f.kind == FindingKind::SpareRows { needed: 5, rows: 64 }), "{found:?}");
    }
}
