//! Vocabularies as files: a token a line, an object of ids, merges, and the pieces of a SentencePiece model.

use std::collections::HashMap;

use serde_json::Value;
use weighbridge_formats::{Error, Result};

use super::files::{FileKind, Layout, object as parse};
use super::malformed;

/// Tokens with their ids, in the order of the file.
pub(super) type Ids = Vec<(String, u32)>;

/// A vocabulary of lines.
pub(super) struct Lines {
    /// Each token once, with its last line's number.
    pub(super) tokens: Ids,
    /// The first token that stands on two lines.
    pub(super) twice: Option<String>,
}

/// A token a line; its id is the line's number. White space at the end of a line is no part of it, and of a token
/// on two lines the last counts, as in the `tokenizers` crate.
pub(super) fn lines(bytes: &[u8]) -> Result<Lines> {
    let text = utf8(FileKind::VocabTxt, bytes)?;
    let mut out = Lines { tokens: Vec::new(), twice: None };
    let mut at: HashMap<&str, usize> = HashMap::new();
    for (id, line) in text.lines().enumerate() {
        let id = u32::try_from(id).map_err(|_| malformed(FileKind::VocabTxt, "more than 2³² lines"))?;
        let token = line.trim_end();
        if let Some(&first) = at.get(token) {
            out.tokens[first].1 = id;
            out.twice.get_or_insert_with(|| token.to_owned());
        } else {
            at.insert(token, out.tokens.len());
            out.tokens.push((token.to_owned(), id));
        }
    }
    Ok(out)
}

/// An object of ids.
pub(super) fn object(bytes: &[u8]) -> Result<Ids> {
    let map = parse(FileKind::VocabJson, bytes)?;
    map.into_iter().map(|(token, id)| id_of(&token, &id).map(|id| (token, id))).collect()
}

/// The id that JSON gives a token.
pub(super) fn id_of(token: &str, id: &Value) -> Result<u32> {
    let number = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id < u32::MAX);
    number.ok_or_else(|| Error::malformed(format!("the id of the token {token:?} is {id}, no 32-bit number")))
}

/// Merges: two tokens a line, in the order of their rank. A line that begins with `#version` is none.
pub(super) fn merges(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let text = utf8(FileKind::Merges, bytes)?;
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("#version") {
            continue;
        }
        let mut parts = line.split(' ');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(left), Some(right), None) => out.push((left.to_owned(), right.to_owned())),
            _ => {
                let what = format!("line {} is no pair of tokens with one space between", number + 1);
                return Err(malformed(FileKind::Merges, what));
            }
        }
    }
    Ok(out)
}

/// Which of the layouts with `vocab.json` and `merges.txt` a vocabulary is of, by its tokens.
pub(super) fn bpe_layout(ids: &Ids) -> Option<Layout> {
    let has = |token: &str| ids.iter().any(|(t, _)| t == token);
    let words_end = ids.iter().any(|(t, _)| t.len() > 4 && t.ends_with("</w>"));
    // A space as byte-level BPE writes it.
    let bytes = ids.iter().any(|(t, _)| t.starts_with('\u{120}'));
    match (words_end, bytes) {
        (true, false) if has("<unk>") => Some(Layout::Gpt),
        (false, true) if has("<s>") && has("</s>") && has("<mask>") => Some(Layout::Roberta),
        (false, true) => Some(Layout::Gpt2),
        _ => None,
    }
}

/// Which of the layouts with `vocab.txt` a vocabulary is of, by its tokens.
pub(super) fn lines_layout(lines: &Lines) -> Option<Layout> {
    let has = |token: &str| lines.tokens.iter().any(|(t, _)| t == token);
    if has("[UNK]") && has("[CLS]") && has("[SEP]") {
        Some(Layout::WordPiece)
    } else if (has("<unk>") || has("<UNK>")) && has("<eos>") {
        Some(Layout::TransformerXl)
    } else {
        None
    }
}

/// How many pieces a SentencePiece model has: its messages of field 1, which are counted and not decoded.
pub(super) fn sentence_pieces(bytes: &[u8]) -> Result<u64> {
    let broken = |at: usize| malformed(FileKind::SentencePiece, "no protobuf message").at_offset(at as u64);
    let (mut at, mut pieces) = (0, 0);
    while at < bytes.len() {
        let start = at;
        let key = varint(bytes, &mut at).ok_or_else(|| broken(start))?;
        let len = match key & 7 {
            0 => varint(bytes, &mut at).map(|_| 0),
            1 => Some(8),
            2 => varint(bytes, &mut at),
            5 => Some(4),
            _ => None,
        };
        let end = len.and_then(|n| usize::try_from(n).ok()).and_then(|n| at.checked_add(n));
        at = end.filter(|&end| end <= bytes.len()).ok_or_else(|| broken(start))?;
        pieces += u64::from(key == (1 << 3 | 2));
    }
    Ok(pieces)
}

/// A protobuf varint of at most ten bytes.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        out |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(out);
        }
    }
    None
}

fn utf8(kind: FileKind, bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| malformed(kind, "no UTF-8 text").at_offset(e.valid_up_to() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_crate_does() {
        let read = lines(b"a\r\nb \na\n\nc").unwrap();
        let pairs: Vec<_> = read.tokens.iter().map(|(t, i)| (t.as_str(), *i)).collect();
        assert_eq!(pairs, [("a", 2), ("b", 1), ("", 3), ("c", 4)]);
        assert_eq!(read.twice.as_deref(), Some("a"));
        assert!(lines(b"\xff\n").is_err());
    }

    #[test]
    fn merges_are_pairs() {
        let read = merges(b"#version: 0.2\na b\nab c</w>\n").unwrap();
        assert_eq!(read, [("a".into(), "b".into()), ("ab".into(), "c</w>".into())]);
        for bad in ["a", "a b c", "\n", "a  b"] {
            assert!(merges(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_small_numbers() {
        assert_eq!(object(br#"{"b": 1, "a": 0}"#).unwrap(), [("b".into(), 1), ("a".into(), 0)]);
        for bad in [r#"{"a": -1}"#, r#"{"a": 4294967296}"#, r#"{"a": "0"}"#, r#"{"a": 0.5}"#, "[]", "{"] {
            assert!(object(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn pieces_are_counted_and_broken_messages_refused() {
        // Two pieces (field 1), a number (field 3), a message (field 2).
        let good = b"\x0a\x02\x0a\x00\x0a\x00\x18\x96\x01\x12\x01x";
        assert_eq!(sentence_pieces(good).unwrap(), 2);
        for cut in [1, 3, 8] {
            assert!(sentence_pieces(&good[..cut]).is_err(), "{cut}");
        }
        assert!(
            sentence_pieces(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err()
        );
        assert!(sentence_pieces(&[0xff; 12]).is_err());
    }

    #[test]
    fn vocabularies_show_their_layout() {
        let ids = |tokens: &[&str]| -> Ids { tokens.iter().map(|t| ((*t).to_owned(), 0)).collect() };
        assert_eq!(bpe_layout(&ids(&["<unk>", "the</w>"])), Some(Layout::Gpt));
        assert_eq!(bpe_layout(&ids(&["Ġthe"])), Some(Layout::Gpt2));
        assert_eq!(bpe_layout(&ids(&["Ġthe", "<s>", "</s>", "<mask>"])), Some(Layout::Roberta));
        assert_eq!(bpe_layout(&ids(&["the</w>", "<|startoftext|>"])), None, "CLIP's is none of these");
        assert_eq!(lines_layout(&lines(b"[UNK]\n[CLS]\n[SEP]").unwrap()), Some(Layout::WordPiece));
        assert_eq!(lines_layout(&lines(b"<eos>\n<unk>\n").unwrap()), Some(Layout::TransformerXl));
        assert_eq!(lines_layout(&lines(b"a\nb\n").unwrap()), None);
    }
}
