//! From a tokenizer's files to its definition, as the classes of transformers build it.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use weighbridge_formats::{Error, Note, Result};

use super::added::{Added, AddedToken, Role};
use super::canonical;
use super::files::{FileKind, Layout, Parts};
use super::{malformed, transformer_xl, vocab};

/// What the files say, put together.
pub(super) struct Built {
    pub(super) layout: Layout,
    pub(super) definition: Value,
    pub(super) config: Map<String, Value>,
    pub(super) specials: Vec<(Role, AddedToken)>,
    pub(super) notes: Vec<Note>,
}

/// Builds the definition of whichever layout the files are.
pub(super) fn build(parts: &Parts) -> Result<Built> {
    let layout = parts.layout.ok_or_else(|| {
        let class = parts.class.as_deref().map(|c| format!(" (its class is {c})")).unwrap_or_default();
        Error::unsupported(format!("this vocabulary's layout is not known{class}"))
            .with_hint("state tokenizer_class in tokenizer_config.json, or save it as tokenizer.json first")
    })?;
    let config = parts.object(FileKind::Config)?;
    let class = match layout {
        Layout::TokenizerJson => parts.class.as_deref().and_then(Layout::of_class),
        other => Some(other),
    };
    let added = Added::read(parts, &config, class)?;
    let mut notes = Vec::new();
    let mut definition = match layout {
        Layout::TokenizerJson => from_json(parts, &config, class)?,
        Layout::WordPiece => word_piece(parts, &config, &added, &mut notes)?,
        Layout::Gpt => gpt(parts, &added)?,
        Layout::Gpt2 | Layout::Roberta => byte_level(parts, &config)?,
        Layout::TransformerXl => transformer_xl::build(parts, &config, &added, &mut notes)?,
        Layout::SentencePiece => {
            let error = Error::unsupported("a SentencePiece model is carried as a file and not read");
            return Err(error.with_hint("save it from transformers once, which writes a tokenizer.json"));
        }
    };
    add_tokens(&mut definition, &added, &mut notes)?;
    if layout != Layout::TokenizerJson {
        definition["post_processor"] = post_processor(layout, &definition, &config, &added)?;
    }
    let specials = added.roles;
    Ok(Built { layout, definition, config, specials, notes })
}

/// The definition in `tokenizer.json`, with what the class takes from the config in spite of it.
fn from_json(parts: &Parts, config: &Map<String, Value>, class: Option<Layout>) -> Result<Value> {
    let kind = FileKind::TokenizerJson;
    let mut map = super::files::object(kind, parts.required(kind)?)?;
    if !map.get("model").is_some_and(Value::is_object) {
        return Err(malformed(kind, "there is no model in it"));
    }
    if class == Some(Layout::WordPiece)
        && let Some(normalizer) = map.get_mut("normalizer").and_then(Value::as_object_mut)
        && normalizer.get("type").and_then(Value::as_str) == Some("BertNormalizer")
    {
        for (key, field) in BERT_OPTIONS {
            if let Some(value @ (Value::Bool(_) | Value::Null)) = config.get(*key)
                && (*field == "strip_accents" || value.is_boolean())
            {
                normalizer.insert((*field).to_owned(), value.clone());
            }
        }
    }
    if matches!(class, Some(Layout::Gpt2 | Layout::Roberta))
        && let Some(value @ Value::Bool(_)) = config.get("add_prefix_space")
        && let Some(splitter) = map.get_mut("pre_tokenizer").and_then(Value::as_object_mut)
        && splitter.get("type").and_then(Value::as_str) == Some("ByteLevel")
    {
        splitter.insert("add_prefix_space".to_owned(), value.clone());
    }
    Ok(Value::Object(map))
}

/// Options of `tokenizer_config.json` and the fields of BERT's normalizer that they set.
pub(super) const BERT_OPTIONS: &[(&str, &str)] = &[
    ("tokenize_chinese_chars", "handle_chinese_chars"),
    ("strip_accents", "strip_accents"),
    ("do_lower_case", "lowercase"),
];

fn word_piece(
    parts: &Parts,
    config: &Map<String, Value>,
    added: &Added,
    notes: &mut Vec<Note>,
) -> Result<Value> {
    let lines = vocab::lines(parts.required(FileKind::VocabTxt)?)?;
    if let Some(twice) = &lines.twice {
        notes.push(Note::warning(format!("vocab.txt has {twice:?} on two lines; the last one counts")));
    }
    let mut normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": true,
        "strip_accents": null,
        "lowercase": true,
    });
    for (key, field) in BERT_OPTIONS {
        if let Some(value) = config.get(*key) {
            match value {
                Value::Bool(_) => normalizer[*field] = value.clone(),
                Value::Null if *field == "strip_accents" => {}
                other => {
                    return Err(malformed(FileKind::Config, format!("{key} is {other}, not true or false")));
                }
            }
        }
    }
    let unk = added.role(Role::Unk).map_or("[UNK]", |t| t.content.as_str());
    Ok(definition(
        normalizer,
        json!({"type": "BertPreTokenizer"}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab_value(lines.tokens),
        }),
    ))
}

fn gpt(parts: &Parts, added: &Added) -> Result<Value> {
    let unk = added.role(Role::Unk).map_or("<unk>", |t| t.content.as_str());
    let model = bpe(parts, Some(unk), "</w>")?;
    Ok(definition(
        json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": null,
            "lowercase": true,
        }),
        json!({"type": "BertPreTokenizer"}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        model,
    ))
}

fn byte_level(parts: &Parts, config: &Map<String, Value>) -> Result<Value> {
    let prefix = flag(config, "add_prefix_space", false)?;
    let level = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    Ok(definition(Value::Null, level(prefix), level(true), bpe(parts, None, "")?))
}

fn bpe(parts: &Parts, unk: Option<&str>, suffix: &str) -> Result<Value> {
    let ids = vocab::object(parts.required(FileKind::VocabJson)?)?;
    let merges = vocab::merges(parts.required(FileKind::Merges)?)?;
    let known: HashSet<&str> = ids.iter().map(|(t, _)| t.as_str()).collect();
    for (rank, (left, right)) in merges.iter().enumerate() {
        let both = format!("{left}{right}");
        if let Some(missing) = [left.as_str(), right, &both].into_iter().find(|t| !known.contains(t)) {
            let what = format!("merge {} of {left:?} and {right:?}: {missing:?} is no token", rank + 1);
            return Err(malformed(FileKind::Merges, what)
                .with_hint("vocab.json and merges.txt must be of the same tokenizer"));
        }
    }
    let mut ids = ids;
    ids.sort_by_key(|(_, id)| *id);
    let merges: Vec<Value> = merges.into_iter().map(|(l, r)| json!([l, r])).collect();
    Ok(json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unk,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": suffix,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": vocab_value(ids),
        "merges": merges,
    }))
}

/// A definition without added tokens.
pub(super) fn definition(normalizer: Value, splitter: Value, decoder: Value, model: Value) -> Value {
    let parts = [
        ("version", "1.0".into()),
        ("truncation", Value::Null),
        ("padding", Value::Null),
        ("added_tokens", Value::Array(Vec::new())),
        ("normalizer", normalizer),
        ("pre_tokenizer", splitter),
        ("post_processor", Value::Null),
        ("decoder", decoder),
        ("model", model),
    ];
    Value::Object(parts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

pub(super) fn vocab_value(ids: vocab::Ids) -> Value {
    Value::Object(ids.into_iter().map(|(token, id)| (token, id.into())).collect())
}

/// A boolean option of the config.
pub(super) fn flag(config: &Map<String, Value>, key: &str, default: bool) -> Result<bool> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => Err(malformed(FileKind::Config, format!("{key} is {other}, not true or false"))),
    }
}

/// Gives every added token its id as the `tokenizers` crate does, whatever is stated: that which the model has
/// for it, or the next one past the model's count of tokens. First come those of the definition itself.
fn add_tokens(definition: &mut Value, added: &Added, notes: &mut Vec<Note>) -> Result<()> {
    let base = canonical::model_ids(definition)?;
    let own = canonical::added(definition)?;
    let stated: HashMap<&str, u32> = added.stated.iter().map(|(id, t)| (t.content.as_str(), *id)).collect();
    let around = added.in_order();
    let own_stated = own.iter().map(|(id, t)| (Some(*id), t));
    let all = own_stated.chain(around.iter().map(|t| (stated.get(t.content.as_str()).copied(), t)));
    let mut next = base.len() as u64;
    let mut tokens: Vec<(u32, AddedToken)> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for (wanted, token) in all {
        if token.content.is_empty() {
            continue;
        }
        if let Some(&known) = at.get(token.content.as_str()) {
            let (_, known) = &mut tokens[known];
            let special = known.special || token.special;
            if added.decisive && stated.contains_key(token.content.as_str()) {
                *known = token.clone();
            }
            known.special = special;
            continue;
        }
        let id = match base.get(&token.content) {
            Some(&id) => id,
            None => {
                let id = u32::try_from(next).map_err(|_| Error::malformed("more ids than 32 bits hold"))?;
                next += 1;
                id
            }
        };
        if let Some(wanted) = wanted.filter(|w| *w != id) {
            let text = format!("the added token {:?} is said to be {wanted} and gets {id}", token.content);
            notes.push(Note::warning(text));
        }
        at.insert(&token.content, tokens.len());
        tokens.push((id, token.clone()));
    }
    tokens.sort_by_key(|(id, _)| *id);
    definition["added_tokens"] = tokens.iter().map(|(id, t)| t.to_definition(*id)).collect();
    Ok(())
}

/// What a layout puts around a text.
fn post_processor(
    layout: Layout,
    definition: &Value,
    config: &Map<String, Value>,
    added: &Added,
) -> Result<Value> {
    let ids = canonical::ids(definition)?;
    let id = |role: Role| {
        let token = added.role(role)?;
        ids.get(&token.content).map(|id| (token.content.clone(), *id))
    };
    let piece = |token: &str, kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    let named = |tokens: &[(String, u32)]| {
        let entry = |(t, i): &(String, u32)| (t.clone(), json!({"id": t, "ids": [i], "tokens": [t]}));
        Value::Object(tokens.iter().map(entry).collect())
    };
    Ok(match layout {
        Layout::WordPiece => {
            let (Some(cls), Some(sep)) = (id(Role::Cls), id(Role::Sep)) else {
                return Err(malformed(FileKind::Config, "BERT needs a cls_token and a sep_token"));
            };
            let (c, s) = (&cls.0, &sep.0);
            json!({
                "type": "TemplateProcessing",
                "single": [piece(c, 0), text("A", 0), piece(s, 0)],
                "pair": [piece(c, 0), text("A", 0), piece(s, 0), text("B", 1), piece(s, 1)],
                "special_tokens": named(&[cls.clone(), sep.clone()]),
            })
        }
        Layout::Roberta => {
            let (Some(cls), Some(sep)) = (id(Role::Cls), id(Role::Sep)) else {
                return Err(malformed(FileKind::Config, "RoBERTa needs a cls_token and a sep_token"));
            };
            json!({
                "type": "RobertaProcessing",
                "sep": [sep.0, sep.1],
                "cls": [cls.0, cls.1],
                "trim_offsets": flag(config, "trim_offsets", true)?,
                "add_prefix_space": flag(config, "add_prefix_space", false)?,
            })
        }
        Layout::Gpt | Layout::Gpt2 => {
            let wanted = |key, role| Ok::<_, Error>(if flag(config, key, false)? { id(role) } else { None });
            let (bos, eos) = (wanted("add_bos_token", Role::Bos)?, wanted("add_eos_token", Role::Eos)?);
            let around = |name, kind| {
                let before = bos.as_ref().map(|(t, _)| piece(t, kind));
                let after = eos.as_ref().map(|(t, _)| piece(t, kind));
                before.into_iter().chain([text(name, kind)]).chain(after).collect::<Vec<Value>>()
            };
            let single = around("A", 0);
            let pair: Vec<Value> = single.iter().cloned().chain(around("B", 1)).collect();
            let tokens: Vec<(String, u32)> = bos.iter().chain(&eos).cloned().collect();
            json!({
                "type": "TemplateProcessing",
                "single": single,
                "pair": pair,
                "special_tokens": named(&tokens),
            })
        }
        _ => Value::Null,
    })
}
