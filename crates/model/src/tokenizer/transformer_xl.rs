//! Transformer-XL's vocabulary of whole words, as lines or as the pickle of its class's attributes.
//!
//! The pickle is read as data: the words are taken from its `idx2sym`, else its `sym2idx`, and nothing in it is
//! run. A file of `torch.save` with the same dictionary (`vocab.bin`) is read the same way.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use weighbridge_formats::pickle::{EncodeOptions, NoTensors, encode};
use weighbridge_formats::value::{Dict, DictKind};
use weighbridge_formats::{
    Error, Note, ReadOptions, Registry, Result, Source, Value as Item, ValueId, Values,
};

use super::added::{Added, Role};
use super::build::{definition, flag, vocab_value};
use super::files::{FileKind, Parts};
use super::malformed;
use super::vocab::Ids;

/// The definition: words between white space, lowercased if the config says so.
pub(super) fn build(
    parts: &Parts,
    config: &Map<String, Value>,
    added: &Added,
    notes: &mut Vec<Note>,
) -> Result<Value> {
    let words = match parts.files.get(&FileKind::VocabPickle) {
        Some(bytes) => from_pickle(bytes)?,
        None => from_lines(parts.required(FileKind::VocabTxt)?)?,
    };
    let has = |word: &str| words.iter().any(|w| w == word);
    let stated = added.role(Role::Unk).map_or("<unk>", |t| t.content.as_str());
    let unk = [stated, "<unk>", "<UNK>"].into_iter().find(|u| has(u)).ok_or_else(|| {
        let kind = FileKind::VocabTxt;
        malformed(kind, "there is neither <unk> nor <UNK> in Transformer-XL's vocabulary")
    })?;
    notes.push(Note::info(
        "Transformer-XL's class splits raw text by Moses' rules first; here words are what stands between white \
         space, as in the corpora that it is trained on",
    ));
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let normalizer = if flag(config, "lower_case", false)? {
        json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, strip]})
    } else {
        strip
    };
    let ids: Ids = words.iter().cloned().zip(0..).collect();
    Ok(definition(
        normalizer,
        json!({"type": "WhitespaceSplit"}),
        Value::Null,
        json!({"type": "WordLevel", "vocab": vocab_value(ids), "unk_token": unk}),
    ))
}

/// The first word of each line; a word that was there before takes no id.
pub(super) fn from_lines(bytes: &[u8]) -> Result<Vec<String>> {
    let kind = FileKind::VocabTxt;
    let text = std::str::from_utf8(bytes).map_err(|e| malformed(kind, format!("no UTF-8: {e}")))?;
    let mut seen = HashSet::new();
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let word = line.split_whitespace().next();
        let word = word.ok_or_else(|| malformed(kind, format!("line {} has no word", number + 1)))?;
        if seen.insert(word) {
            words.push(word.to_owned());
        }
    }
    Ok(words)
}

/// The words of a pickled or torch-saved dictionary of attributes, by id.
pub(super) fn from_pickle(bytes: &[u8]) -> Result<Vec<String>> {
    let broken = |what: &str| malformed(FileKind::VocabPickle, what);
    let archive = Registry::builtin().open(Source::from_bytes(bytes), &ReadOptions::default())?;
    let values = archive.values().ok_or_else(|| broken("there is no dictionary in it"))?;
    let root = values.root().ok_or_else(|| broken("there is no value in it"))?;
    let word = |id: ValueId| values.str(id).map(str::to_owned);
    if let Some(list) = values.entry(root, "idx2sym").and_then(|id| values.sequence(id)) {
        let words: Option<Vec<String>> = list.iter().map(|id| word(*id)).collect();
        let words = words.ok_or_else(|| broken("idx2sym holds something that is no word"))?;
        let distinct: HashSet<&String> = words.iter().collect();
        if distinct.len() != words.len() {
            return Err(broken("idx2sym has a word twice"));
        }
        return Ok(words);
    }
    let dict = values.entry(root, "sym2idx").and_then(|id| values.dict(id));
    let dict = dict.ok_or_else(|| broken("there is neither a list idx2sym nor a dictionary sym2idx"))?;
    let pair = |&(key, id): &(ValueId, ValueId)| Some((values.int(id)?, word(key)?));
    let pairs: Option<Vec<(i64, String)>> = dict.entries.iter().map(pair).collect();
    let mut pairs = pairs.ok_or_else(|| broken("sym2idx holds something other than words and numbers"))?;
    pairs.sort();
    if pairs.iter().zip(0..).any(|((id, _), place)| *id != place) {
        return Err(broken("the ids of sym2idx are not 0, 1, 2 and so on"));
    }
    Ok(pairs.into_iter().map(|(_, word)| word).collect())
}

/// The same dictionary of plain values, as the class's `pretrained_vocab_file` takes it.
pub(super) fn to_pickle(words: &[String], unk: &str, lower_case: bool) -> Result<Vec<u8>> {
    let mut values = Values::new();
    let mut entries = Vec::new();
    let mut set = |values: &mut Values, key: &str, value: ValueId| -> Result<()> {
        entries.push((values.push(Item::Str(key.into()))?, value));
        Ok(())
    };
    let ids: Vec<ValueId> =
        words.iter().map(|w| values.push(Item::Str(w.as_str().into()))).collect::<Result<_>>()?;
    let mut sym2idx = Vec::with_capacity(ids.len());
    for (place, id) in ids.iter().enumerate() {
        sym2idx.push((*id, values.push(Item::Int(place as i64))?));
    }
    let sym2idx = Dict { kind: DictKind::Ordered, entries: sym2idx, attributes: None };
    let sym2idx = values.push(Item::Dict(Box::new(sym2idx)))?;
    let idx2sym = values.push(Item::List(ids))?;
    let position = words.iter().position(|w| w == unk);
    let position = position.ok_or_else(|| Error::invalid_options(format!("{unk:?} is no word")))?;
    let unk_idx = values.push(Item::Int(position as i64))?;
    let lower_case = values.push(Item::Bool(lower_case))?;
    set(&mut values, "idx2sym", idx2sym)?;
    set(&mut values, "sym2idx", sym2idx)?;
    set(&mut values, "unk_idx", unk_idx)?;
    set(&mut values, "lower_case", lower_case)?;
    let root = values.push(Item::Dict(Box::new(Dict { entries, ..Dict::default() })))?;
    values.set_root(root);
    let options = EncodeOptions { protocol: 2, ..EncodeOptions::default() };
    encode(&values, root, &options, &mut NoTensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_each_line_counts_once() {
        assert_eq!(
            from_lines(b"<eos> 12\n the 7\n<unk>\nthe\nof\n").unwrap(),
            ["<eos>", "the", "<unk>", "of"]
        );
        assert!(from_lines(b"a\n\nb").is_err());
    }

    #[test]
    fn the_pickle_is_read_back() {
        let words: Vec<String> = ["<eos>", "the", "<unk>", "ü"].map(String::from).to_vec();
        let bytes = to_pickle(&words, "<unk>", true).unwrap();
        assert_eq!(from_pickle(&bytes).unwrap(), words);
        assert!(to_pickle(&words, "<UNK>", true).is_err());
    }

    #[test]
    fn ids_with_holes_and_wrong_types_are_refused() {
        let pickle = |entries: &[(&str, Item)]| {
            let mut values = Values::new();
            let mut inner = Vec::new();
            for (word, id) in entries {
                let key = values.push(Item::Str((*word).into())).unwrap();
                inner.push((key, values.push(id.clone()).unwrap()));
            }
            let dict = values.push(Item::Dict(Box::new(Dict { entries: inner, ..Dict::default() }))).unwrap();
            let key = values.push(Item::Str("sym2idx".into())).unwrap();
            let outer = Dict { entries: vec![(key, dict)], ..Dict::default() };
            let root = values.push(Item::Dict(Box::new(outer))).unwrap();
            values.set_root(root);
            encode(&values, root, &EncodeOptions::default(), &mut NoTensors).unwrap()
        };
        assert_eq!(from_pickle(&pickle(&[("b", Item::Int(1)), ("a", Item::Int(0))])).unwrap(), ["a", "b"]);
        assert!(from_pickle(&pickle(&[("b", Item::Int(2)), ("a", Item::Int(0))])).is_err());
        assert!(from_pickle(&pickle(&[("b", Item::Int(i64::MIN))])).is_err());
        assert!(from_pickle(&pickle(&[("b", Item::None)])).is_err());
        assert!(from_pickle(b"\x80\x02K\x01.").is_err());
    }
}
