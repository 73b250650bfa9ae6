//! JSON as a flat list of nodes: one pass, no recursion, memory in proportion to the text.
//!
//! A tree of maps takes a hundred times the memory of `[{"":0},{"":0}]`, so that a small file costs a lot. Here a node is
//! sixteen bytes and strings stay in the text until they are asked for. What Python's `json` takes is taken: `NaN` and
//! `Infinity` too, and of two equal keys the last one counts.

use std::borrow::Cow;

use weighbridge_formats::{Error, Result};

/// The longest text that is looked at, in bytes.
pub(super) const MOST_TEXT: u64 = 16 << 20;
/// The most values in it.
const MOST_NODES: usize = 1 << 20;
/// How deep they may nest: Python's own reader gives up near a thousand.
const MOST_DEPTH: usize = 500;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A value: where it stands in the text, and where its parts end in the list.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    /// The first byte of a string's content, or of anything else.
    start: u32,
    /// Behind the last byte of that.
    end: u32,
    /// The number of the first node that is no part of it.
    after: u32,
}

/// A document.
pub(super) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// A value of a document.
#[derive(Clone, Copy)]
pub(super) struct Json<'a> {
    document: &'a Document<'a>,
    node: u32,
}

impl<'a> Document<'a> {
    /// Reads a text, a byte-order mark before it allowed.
    ///
    /// # Errors
    /// `Malformed` for what is no JSON, `LimitExceeded` for what nests deeper or is more than a configuration can be.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() as u64 > MOST_TEXT {
            return Err(Error::limit(format!(
                "a JSON text of {} bytes; {MOST_TEXT} are looked at",
                bytes.len()
            )));
        }
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::malformed("the JSON text is not UTF-8").at_offset(e.valid_up_to() as u64))?;
        let mut parser = Parser { bytes, at: 0, nodes: Vec::new() };
        parser.run()?;
        let nodes = parser.nodes;
        Ok(Self { text, nodes })
    }

    /// The outermost value.
    pub(super) fn root(&'a self) -> Json<'a> {
        Json { document: self, node: 0 }
    }

    /// Every value, from the front.
    pub(super) fn all(&'a self) -> impl Iterator<Item = Json<'a>> {
        (0..self.nodes.len() as u32).map(|node| Json { document: self, node })
    }
}

impl<'a> Json<'a> {
    fn raw(&self) -> Node {
        let none = Node { kind: Kind::Null, start: 0, end: 0, after: u32::MAX };
        self.document.nodes.get(self.node as usize).copied().unwrap_or(none)
    }

    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        self.raw().kind
    }

    /// Where it stands in the text, in bytes.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.raw().start)
    }

    /// Its text as the document has it: of a string without quotes, its escapes not resolved.
    pub(super) fn source(&self) -> &'a str {
        let node = self.raw();
        self.document.text.get(node.start as usize..node.end as usize).unwrap_or_default()
    }

    /// A string's content.
    pub(super) fn string(&self) -> Option<Cow<'a, str>> {
        (self.kind() == Kind::String).then(|| unescape(self.source()))
    }

    /// A number, where it is a whole one that fits.
    #[cfg(test)]
    pub(super) fn integer(&self) -> Option<i64> {
        (self.kind() == Kind::Number).then(|| self.source().parse().ok())?
    }

    /// Whether it is `true`.
    pub(super) fn is_true(&self) -> bool {
        self.kind() == Kind::Bool && self.source() == "true"
    }

    /// Whether it is `null`.
    pub(super) fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    /// The values of an array, or the keys and values of an object by turns.
    fn parts(&self) -> impl Iterator<Item = Json<'a>> + use<'a> {
        let node = self.raw();
        let document = self.document;
        let end = if matches!(node.kind, Kind::Array | Kind::Object) { node.after } else { 0 };
        let mut next = self.node + 1;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let part = Json { document, node: next };
            next = part.raw().after.max(next + 1);
            Some(part)
        })
    }

    /// The values of an array; none of anything else.
    pub(super) fn items(&self) -> impl Iterator<Item = Json<'a>> + use<'a> {
        let wanted = self.kind() == Kind::Array;
        self.parts().filter(move |_| wanted)
    }

    /// The keys and values of an object; none of anything else.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Cow<'a, str>, Json<'a>)> + use<'a> {
        let mut parts = (self.kind() == Kind::Object).then(|| self.parts());
        std::iter::from_fn(move || {
            let parts = parts.as_mut()?;
            let key = parts.next()?;
            Some((unescape(key.source()), parts.next()?))
        })
    }

    /// The value of a key; of several the last, as Python has it.
    pub(super) fn get(&self, key: &str) -> Option<Json<'a>> {
        self.entries().filter(|(k, _)| k == key).map(|(_, v)| v).last()
    }

    /// The string of a key.
    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key)?.string()
    }

    /// A key that is there twice.
    pub(super) fn twice(&self) -> Option<String> {
        // Few keys are the rule; a list of them that is sorted costs less than a set.
        let mut keys: Vec<_> = self.entries().map(|(k, _)| k).collect();
        keys.sort_unstable();
        keys.windows(2).find_map(|w| match w {
            [a, b] if a == b => Some(a.to_string()),
            _ => None,
        })
    }
}

/// Resolves the escapes of a string that has been checked; halves of surrogates become the replacement character.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        match chars.next() {
            Some('u') => {
                let unit = |s: &str| u32::from_str_radix(s.get(..4)?, 16).ok();
                let high = unit(chars.as_str()).unwrap_or(0xFFFD);
                let behind = chars.as_str().get(4..).unwrap_or_default();
                let low = behind.strip_prefix("\\u").and_then(unit).filter(|l| (0xDC00..0xE000).contains(l));
                match low {
                    Some(low) if (0xD800..0xDC00).contains(&high) => {
                        let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                        out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
                        rest = behind.get(6..).unwrap_or_default();
                    }
                    _ => {
                        out.push(char::from_u32(high).unwrap_or('\u{FFFD}'));
                        rest = behind;
                    }
                }
                continue;
            }
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Parser<'_> {
    fn error(&self, what: impl Into<Cow<'static, str>>) -> Error {
        Error::malformed(what).at_offset(self.at as u64)
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(&b) = self.bytes.get(self.at) {
            if !matches!(b, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(b);
            }
            self.at += 1;
        }
        None
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) -> Result<()> {
        if self.nodes.len() >= MOST_NODES {
            return Err(Error::limit(format!("the JSON text holds more than {MOST_NODES} values"))
                .at_offset(start as u64));
        }
        // The text is no longer than its limit, so positions fit.
        let after = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, after });
        Ok(())
    }

    fn string(&mut self) -> Result<()> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let digits = |from: usize| self.bytes.get(from..from + 4);
                    let fine = match self.bytes.get(at + 1) {
                        Some(b'u') => {
                            let fine = digits(at + 2).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
                            at += 4;
                            fine
                        }
                        Some(b) => b"\"\\/bfnrt".contains(b),
                        None => false,
                    };
                    if !fine {
                        self.at = at;
                        return Err(self.error("an escape that JSON does not have"));
                    }
                    at += 2;
                }
                Some(_) => at += 1,
                None => return Err(self.error("the JSON text ends in a string")),
            }
        }
        self.push(Kind::String, start, at)?;
        self.at = at + 1;
        Ok(())
    }

    /// A number or a word.
    fn word(&mut self) -> Result<()> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count();
        let word = std::str::from_utf8(rest.get(..len).unwrap_or_default()).unwrap_or_default();
        let kind = match word {
            "null" => Kind::Null,
            "true" | "false" => Kind::Bool,
            "NaN" | "Infinity" | "-Infinity" => Kind::Number,
            _ if word.starts_with(|c: char| c == '-' || c.is_ascii_digit())
                && word.parse::<f64>().is_ok() =>
            {
                Kind::Number
            }
            _ => return Err(self.error("something that is no JSON value")),
        };
        self.push(kind, self.at, self.at + len)?;
        self.at += len;
        Ok(())
    }

    fn key(&mut self) -> Result<()> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a key is wanted"));
        }
        self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.error("':' is wanted"));
        }
        self.at += 1;
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let mut open: Vec<u32> = Vec::new();
        loop {
            match self.peek() {
                Some(b @ (b'{' | b'[')) => {
                    let kind = if b == b'{' { Kind::Object } else { Kind::Array };
                    if open.len() == MOST_DEPTH {
                        let what = format!("values nest deeper than {MOST_DEPTH} levels");
                        return Err(Error::limit(what).at_offset(self.at as u64));
                    }
                    open.push(self.nodes.len() as u32);
                    self.push(kind, self.at, self.at)?;
                    self.at += 1;
                    if self.peek() != Some(b + 2) {
                        if b == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(_) => self.word()?,
                None => return Err(self.error("the JSON text ends where a value is wanted")),
            }
            // Behind a value: close what closes.
            loop {
                let Some(&top) = open.last() else {
                    if self.peek().is_some() {
                        return Err(self.error("something stands behind the JSON value"));
                    }
                    return Ok(());
                };
                let object = self.nodes.get(top as usize).is_some_and(|n| n.kind == Kind::Object);
                match (self.peek(), object) {
                    (Some(b','), _) => {
                        self.at += 1;
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        open.pop();
                        let after = self.nodes.len() as u32;
                        if let Some(node) = self.nodes.get_mut(top as usize) {
                            (node.end, node.after) = (self.at as u32, after);
                        }
                    }
                    _ => return Err(self.error("',' or a closing bracket is wanted")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_key_and_place() {
        let text = br#" {"a": [1, -2.5e3, "x\"\u00e9\ud83d\ude00\n"], "b": {"c": null}, "b": {"c": true}, "n": NaN} "#;
        let document = Document::parse(text).unwrap();
        let root = document.root();
        let items: Vec<_> = root.get("a").unwrap().items().collect();
        assert_eq!((items.len(), items[0].integer(), items[1].integer()), (3, Some(1), None));
        assert_eq!(items[2].string().unwrap(), "x\"é😀\n");
        assert!(root.get("b").unwrap().get("c").unwrap().is_true(), "the last of two counts");
        assert_eq!(root.twice().as_deref(), Some("b"));
        assert_eq!(root.get("n").unwrap().kind(), Kind::Number);
        assert_eq!(root.entries().count(), 4);
        assert!(root.get("missing").is_none() && root.get("n").unwrap().get("x").is_none());
        assert_eq!(document.all().count(), 16);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let bad: &[&[u8]] = &[
            b"",
            b"{",
            b"[1",
            b"[1,]",
            b"{\"a\"}",
            b"{\"a\":}",
            b"{1:2}",
            b"[1] 2",
            b"\"a",
            b"\"\\x\"",
            b"nul",
            b"[1}",
            b"\"\\u12\"",
            b"\xff",
            b"[",
            b"1-1",
        ];
        for text in bad {
            assert!(Document::parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        for text in [&b"1"[..], b"\xEF\xBB\xBF{}", b"[[],{}]", b"\"\\ud800\""] {
            assert!(Document::parse(text).is_ok(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn bombs_end_early() {
        for deep in ["[", "{\"a\":"] {
            let error = Document::parse(deep.repeat(1_000_000).as_bytes()).err().unwrap();
            assert!(error.message().contains("nest deeper"), "{error}");
        }
        let wide = format!("[{}0]", "0,".repeat(3 << 20));
        assert!(Document::parse(wide.as_bytes()).err().unwrap().message().contains("more than"));
        assert_eq!(size_of::<Node>(), 16);
    }
}
