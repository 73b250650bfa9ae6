//! Encoding and decoding, by the `tokenizers` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use weighbridge_formats::{Error, Result};

use super::{Tokenizer, canonical};

/// Builds the crate's tokenizer. Truncation and padding are left out: they are settings of a call, and
/// transformers too ignores what a file says of them unless it is asked.
pub(super) fn encoder(definition: &Value) -> Result<tokenizers::Tokenizer> {
    check_merges(definition)?;
    let json = serde_json::to_vec(definition).map_err(|e| Error::malformed(e.to_string()))?;
    guarded(|| {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json)?;
        tokenizer.with_truncation(None)?;
        tokenizer.with_padding(None);
        Ok(tokenizer)
    })
}

/// Holds the merges of byte-pair encoding against the vocabulary. The crate takes them apart unchecked: a right side
/// shorter than the prefix of continuing pieces makes it panic, or cut a character in two.
fn check_merges(definition: &Value) -> Result<()> {
    let model = &definition["model"];
    let Some(vocab) = model["vocab"].as_object().filter(|_| model["merges"].is_array()) else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for (rank, (left, right)) in canonical::merges(definition)?.iter().enumerate() {
        let wrong =
            |what: String| Error::malformed(format!("merge {} of {left:?} and {right:?}: {what}", rank + 1));
        let Some(rest) = right.strip_prefix(prefix) else {
            return Err(wrong(format!("the second does not begin with {prefix:?}")));
        };
        let both = format!("{left}{rest}");
        if let Some(missing) = [left, right, &both].into_iter().find(|token| !vocab.contains_key(*token)) {
            return Err(wrong(format!("{missing:?} is no token")));
        }
    }
    Ok(())
}

/// Runs a call into the crate. A panic in there, which a definition that contradicts itself can cause, becomes
/// an error wherever panics unwind.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(Error::malformed(format!("the tokenizer's definition: {e}"))),
        Err(_) => Err(Error::malformed("the tokenizer's definition contradicts itself")),
    }
}

impl Tokenizer {
    /// The ids of a text, with the special tokens around it or without. Nothing is truncated or padded.
    ///
    /// # Errors
    /// `Malformed` where the definition cannot encode it: no token for the unknown, say.
    pub fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>> {
        guarded(|| Ok(self.encoder.encode_fast(text, special_tokens)?.get_ids().to_vec()))
    }

    /// The ids of two texts in one sequence, and to which of the two each belongs (token type ids).
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        guarded(|| {
            let encoding = self.encoder.encode_fast((first, second), true)?;
            Ok((encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec()))
        })
    }

    /// The text of ids, with the special tokens in it or without.
    ///
    /// # Errors
    /// `Malformed` where the definition's decoder fails.
    pub fn decode(&self, ids: &[u32], special_tokens: bool) -> Result<String> {
        guarded(|| self.encoder.decode(ids, !special_tokens))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_that_cannot_be_is_an_error() {
        for model in [
            json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}),
            json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]], "continuing_subword_prefix": "##"}),
            json!({"type": "BPE", "vocab": {"a": 0, "é": 1}, "merges": [["a", "é"]], "continuing_subword_prefix": "\u{1}"}),
            json!({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 5}),
            json!({"type": "Nothing", "vocab": {}}),
            json!({"type": "WordPiece", "vocab": {"a": 0}}),
        ] {
            let json = json!({"version": "1.0", "model": model, "added_tokens": []}).to_string();
            assert!(Tokenizer::from_json(json).is_err(), "{model}");
        }
    }
}
