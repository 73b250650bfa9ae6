//! A definition's parts in one form, whichever way they are written, so that two definitions can be compared.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use weighbridge_formats::{Error, Result};

use super::added::AddedToken;
use super::files::FileKind;
use super::malformed;
use super::vocab::id_of;

fn broken(what: impl Into<String>) -> Error {
    malformed(FileKind::TokenizerJson, what)
}

/// The vocabulary of the model, without added tokens.
pub(super) fn model_ids(definition: &Value) -> Result<HashMap<String, u32>> {
    match &definition["model"]["vocab"] {
        Value::Object(map) => {
            map.iter().map(|(token, id)| id_of(token, id).map(|id| (token.clone(), id))).collect()
        }
        // A Unigram model: pairs of a piece and its score.
        Value::Array(list) => {
            let piece = |(at, pair): (usize, &Value)| {
                let token = pair.get(0).and_then(Value::as_str);
                let token =
                    token.ok_or_else(|| broken(format!("entry {at} of the vocabulary is no piece")))?;
                Ok((token.to_owned(), id_of(token, &json!(at))?))
            };
            list.iter().enumerate().map(piece).collect()
        }
        _ => Err(broken("the model has no vocabulary")),
    }
}

/// The added tokens with their ids, as they are stated.
pub(super) fn added(definition: &Value) -> Result<Vec<(u32, AddedToken)>> {
    let list = match &definition["added_tokens"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(broken("added_tokens is no list")),
    };
    let token = |entry: &Value| {
        let token = AddedToken::parse(entry, false)?;
        Ok((id_of(&token.content, &entry["id"])?, token))
    };
    list.iter().map(token).collect()
}

/// Every token with its id.
pub(super) fn ids(definition: &Value) -> Result<HashMap<String, u32>> {
    let mut ids = model_ids(definition)?;
    for (id, token) in added(definition)? {
        ids.entry(token.content).or_insert(id);
    }
    Ok(ids)
}

/// The first part in which two definitions encode differently, in words; `None` where they are the same.
///
/// Truncation, padding and the decoder change nothing that encoding gives and are not compared.
pub(super) fn first_difference(a: &Value, b: &Value) -> Result<Option<String>> {
    if model_ids(a)? != model_ids(b)? {
        return Ok(Some("the vocabulary".into()));
    }
    if merges(a)? != merges(b)? {
        return Ok(Some("the merges".into()));
    }
    if model_options(a) != model_options(b) {
        return Ok(Some("the model's options".into()));
    }
    for (key, what) in [("normalizer", "the normalizer"), ("pre_tokenizer", "the pre-tokenizer")] {
        if component(&a[key]) != component(&b[key]) {
            return Ok(Some(format!("{what} ({})", name(&a[key]))));
        }
    }
    if around(&a["post_processor"])? != around(&b["post_processor"])? {
        return Ok(Some(format!("the post-processor ({})", name(&a["post_processor"]))));
    }
    let tokens = |d: &Value| -> Result<BTreeMap<String, (u32, AddedToken)>> {
        Ok(added(d)?.into_iter().map(|(id, t)| (t.content.clone(), (id, t))).collect())
    };
    let (left, right) = (tokens(a)?, tokens(b)?);
    let differs = left.iter().find(|(t, v)| right.get(*t) != Some(v)).map(|(t, _)| t);
    let differs = differs.or_else(|| right.keys().find(|t| !left.contains_key(*t)));
    Ok(differs.map(|token| format!("the added token {token:?}")))
}

/// The merges as pairs: the crate writes pairs, older ones a string with a space.
pub(super) fn merges(definition: &Value) -> Result<Vec<(String, String)>> {
    let list = match &definition["model"]["merges"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(broken("merges is no list")),
    };
    let pair = |(rank, merge): (usize, &Value)| {
        let two = match merge {
            Value::String(s) => s.split_once(' ').map(|(l, r)| (l.to_owned(), r.to_owned())),
            other => other[0].as_str().zip(other[1].as_str()).map(|(l, r)| (l.to_owned(), r.to_owned())),
        };
        two.ok_or_else(|| broken(format!("merge {} is no pair", rank + 1)))
    };
    list.iter().enumerate().map(pair).collect()
}

/// The model but for vocabulary and merges, without what is at its default.
fn model_options(definition: &Value) -> BTreeMap<String, Value> {
    let Some(model) = definition["model"].as_object() else { return BTreeMap::new() };
    let plain = |v: &Value| v.is_null() || *v == json!(false) || *v == json!("");
    model
        .iter()
        .filter(|(k, v)| !["vocab", "merges"].contains(&k.as_str()) && !plain(v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// A normalizer or pre-tokenizer without what is at its default or changes offsets alone; a sequence of one
/// stands for its part.
fn component(value: &Value) -> Value {
    let Some(map) = value.as_object() else { return value.clone() };
    for key in ["normalizers", "pretokenizers"] {
        if let Some([only]) = map.get(key).and_then(Value::as_array).map(Vec::as_slice) {
            return component(only);
        }
    }
    let level = map.get("type").and_then(Value::as_str) == Some("ByteLevel");
    let plain = |k: &str, v: &Value| {
        v.is_null() || (level && (k == "trim_offsets" || (k == "use_regex" && *v == json!(true))))
    };
    let kept = map.iter().filter(|(k, v)| !plain(k, v)).map(|(k, v)| (k.clone(), v.clone()));
    let sorted: BTreeMap<String, Value> = kept.collect();
    Value::Object(sorted.into_iter().collect::<Map<_, _>>())
}

/// What stands around a text: the ids of special tokens, or a text by its name, each with its type id.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Ids(Vec<u64>, u64),
    Text(String, u64),
}

/// The pieces for one text and for two.
fn around(processor: &Value) -> Result<(Vec<Piece>, Vec<Piece>)> {
    let text = |name: &str, kind| Piece::Text(name.to_owned(), kind);
    let special = |key: &str, kind| {
        let id = processor[key][1].as_u64();
        id.map(|id| Piece::Ids(vec![id], kind))
            .ok_or_else(|| broken(format!("{key} of the post-processor has no id")))
    };
    Ok(match processor["type"].as_str() {
        None | Some("ByteLevel") => (vec![text("A", 0)], vec![text("A", 0), text("B", 1)]),
        Some("BertProcessing") => (
            vec![special("cls", 0)?, text("A", 0), special("sep", 0)?],
            vec![special("cls", 0)?, text("A", 0), special("sep", 0)?, text("B", 1), special("sep", 1)?],
        ),
        Some("RobertaProcessing") => (
            vec![special("cls", 0)?, text("A", 0), special("sep", 0)?],
            vec![
                special("cls", 0)?,
                text("A", 0),
                special("sep", 0)?,
                special("sep", 0)?,
                text("B", 0),
                special("sep", 0)?,
            ],
        ),
        Some("TemplateProcessing") => (template(processor, "single")?, template(processor, "pair")?),
        Some(other) => return Err(Error::unsupported(format!("post-processor {other}"))),
    })
}

fn template(processor: &Value, key: &str) -> Result<Vec<Piece>> {
    let wrong = || broken(format!("the post-processor's template for {key} is no list of pieces"));
    let piece = |value: &Value| {
        if let Some(text) = value.get("Sequence") {
            let name = text["id"].as_str().ok_or_else(wrong)?;
            return Ok(Piece::Text(name.to_owned(), text["type_id"].as_u64().unwrap_or(0)));
        }
        let token = &value["SpecialToken"];
        let name = token["id"].as_str().ok_or_else(wrong)?;
        let ids = processor["special_tokens"][name]["ids"].as_array().ok_or_else(wrong)?;
        let ids = ids.iter().map(|id| id.as_u64().ok_or_else(wrong)).collect::<Result<_>>()?;
        Ok(Piece::Ids(ids, token["type_id"].as_u64().unwrap_or(0)))
    };
    processor[key].as_array().ok_or_else(wrong)?.iter().map(piece).collect()
}

/// A component's type, for a message.
fn name(component: &Value) -> &str {
    component["type"].as_str().unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(processor: &Value) -> Value {
        json!({
            "added_tokens": [{"id": 1, "content": "[S]", "special": true, "normalized": false}],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
            "post_processor": processor,
            "model": {"type": "BPE", "vocab": {"a": 0, "[S]": 1, "b": 2, "ab": 3}, "merges": ["a b"]},
        })
    }

    #[test]
    fn what_is_written_otherwise_is_the_same() {
        let a = definition(&json!({"type": "BertProcessing", "cls": ["[S]", 1], "sep": ["[S]", 1]}));
        let s = |kind: u8| json!({"SpecialToken": {"id": "[S]", "type_id": kind}});
        let t = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
        let mut b = definition(&json!({
            "type": "TemplateProcessing",
            "single": [s(0), t("A", 0), s(0)],
            "pair": [s(0), t("A", 0), s(0), t("B", 1), s(1)],
            "special_tokens": {"[S]": {"id": "[S]", "ids": [1], "tokens": ["[S]"]}},
        }));
        b["normalizer"] = json!({"type": "NFC"});
        b["pre_tokenizer"]["use_regex"] = json!(true);
        b["model"]["merges"] = json!([["a", "b"]]);
        b["model"]["dropout"] = Value::Null;
        assert_eq!(first_difference(&a, &b).unwrap(), None);
    }

    #[test]
    fn each_part_that_differs_is_named() {
        let a = definition(&Value::Null);
        let with = |change: fn(&mut Value)| {
            let mut b = a.clone();
            change(&mut b);
            first_difference(&a, &b).unwrap().unwrap()
        };
        assert_eq!(with(|b| b["model"]["vocab"]["a"] = json!(7)), "the vocabulary");
        assert_eq!(with(|b| b["model"]["merges"] = json!([])), "the merges");
        assert_eq!(with(|b| b["model"]["byte_fallback"] = json!(true)), "the model's options");
        assert_eq!(with(|b| b["normalizer"] = Value::Null), "the normalizer (Sequence)");
        assert_eq!(
            with(|b| b["pre_tokenizer"]["add_prefix_space"] = json!(true)),
            "the pre-tokenizer (ByteLevel)"
        );
        assert_eq!(with(|b| b["added_tokens"][0]["lstrip"] = json!(true)), "the added token \"[S]\"");
        assert_eq!(with(|b| b["added_tokens"] = json!([])), "the added token \"[S]\"");
        let roberta = |b: &mut Value| {
            b["post_processor"] = json!({"type": "RobertaProcessing", "cls": ["[S]", 1], "sep": ["[S]", 1]});
        };
        assert_eq!(with(roberta), "the post-processor (none)");
    }

    #[test]
    fn broken_definitions_are_errors() {
        for bad in [
            json!({}),
            json!({"model": {"vocab": {"a": -1}}}),
            json!({"model": {"vocab": [["a"], [1]]}}),
            json!({"model": {"vocab": {}}, "added_tokens": {}}),
            json!({"model": {"vocab": {}}, "added_tokens": [{"content": "a"}]}),
        ] {
            assert!(ids(&bad).is_err(), "{bad}");
        }
    }
}
