//! A JSON lexer for headers and indices: one pass, no tree, no recursion, no allocation but for escaped strings.
//!
//! It accepts RFC 8259 and nothing more. Where JSON leaves room it is as strict as serde_json: lone surrogates,
//! numbers beyond an f64 and deep nesting are refused.

mod feed;

use std::borrow::Cow;

use crate::error::{Error, Result};

pub(crate) use feed::Feed;

/// How deep a value that is skipped may nest. serde_json stops at 127.
const DEPTH: usize = 64;

/// A position in a JSON text.
#[derive(Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Where the text begins in its file, for errors.
    base: u64,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, base: u64) -> Self {
        Self { text, at: 0, base }
    }

    /// `what` at the current position.
    #[cold]
    pub(crate) fn error(&self, what: impl Into<Cow<'static, str>>) -> Error {
        Error::malformed(what).at_offset(self.offset())
    }

    /// The offset in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, not taken.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b) = self.byte() {
            if !matches!(b, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(b);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `wanted` if it is next.
    #[inline]
    pub(crate) fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Takes `wanted`, which must be next.
    #[inline]
    pub(crate) fn expect(&mut self, wanted: u8) -> Result<()> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected(&format!("{:?}", wanted as char))) }
    }

    #[cold]
    fn unexpected(&mut self, wanted: &str) -> Error {
        match self.peek() {
            None => self.error(format!("the JSON text ends where {wanted} is wanted")),
            Some(_) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let found = rest.chars().next().unwrap_or('?');
                self.error(format!("{found:?} stands where {wanted} is wanted"))
            }
        }
    }

    /// After a part of a list or object: whether another one follows. Takes the comma or the closing bracket.
    #[inline]
    pub(crate) fn more(&mut self, close: u8) -> Result<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.unexpected(if close == b'}' { "',' or '}'" } else { "',' or ']'" })),
        }
    }

    /// Takes an opening bracket; whether a first part follows. Takes the closing bracket if not.
    #[inline]
    pub(crate) fn open(&mut self, open: u8, close: u8) -> Result<bool> {
        self.expect(open)?;
        Ok(!self.take(close))
    }

    /// Takes a string and the colon behind it.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Cow<'a, str>> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Takes a string.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.at + 1;
        self.at = self.plain(start);
        if self.byte() != Some(b'"') {
            return self.escaped(start).map(Cow::Owned);
        }
        let text = self.slice(start, self.at);
        self.at += 1;
        Ok(Cow::Borrowed(text))
    }

    /// A part of the text between two ASCII bytes.
    #[inline]
    fn slice(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// The first byte from `at` on that ends a run of plain characters: a quote, a backslash, a control
    /// character, or the end.
    #[inline]
    fn plain(&self, mut at: usize) -> usize {
        // Eight bytes at a time. Subtracting from each byte sets its top bit where it was smaller; a borrow can
        // only disturb bytes behind the first one that is found, so the lowest bit set is always right.
        const ONES: u64 = 0x0101_0101_0101_0101;
        const TOPS: u64 = 0x8080_8080_8080_8080;
        let bytes = self.text.as_bytes();
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let x = u64::from_le_bytes(*chunk);
            let below = |y: u64, limit: u64| y.wrapping_sub(ONES * limit) & !y & TOPS;
            let quote = below(x ^ (ONES * u64::from(b'"')), 1);
            let slash = below(x ^ (ONES * u64::from(b'\\')), 1);
            let found = below(x, 0x20) | quote | slash;
            if found != 0 {
                return at + (found.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        while bytes.get(at).is_some_and(|&b| b >= 0x20 && b != b'"' && b != b'\\') {
            at += 1;
        }
        at
    }

    /// The rest of a string with escapes, which began at `start`; the position is at its first special byte.
    fn escaped(&mut self, start: usize) -> Result<String> {
        let mut out = self.slice(start, self.at).to_owned();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let plain = match self.byte() {
                        Some(b @ (b'"' | b'\\' | b'/')) => b as char,
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => {
                            self.at += 1;
                            out.push(self.unicode()?);
                            continue;
                        }
                        _ => return Err(self.error("an escape that JSON does not have")),
                    };
                    out.push(plain);
                    self.at += 1;
                }
                Some(b) if b < 0x20 => return Err(self.error("a control character in a string")),
                Some(_) => {
                    let end = self.plain(self.at);
                    out.push_str(self.slice(self.at, end));
                    self.at = end;
                }
                None => return Err(self.error("the JSON text ends in a string")),
            }
        }
    }

    /// Behind `\u`: a code point of four digits, or of two surrogates.
    fn unicode(&mut self) -> Result<char> {
        let high = self.hex4()?;
        let code = match high {
            0xD800..0xDC00 => {
                if !self.rest().starts_with(b"\\u") {
                    return Err(self.error("a surrogate without its other half"));
                }
                self.at += 2;
                match self.hex4()? {
                    low @ 0xDC00..0xE000 => 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    _ => return Err(self.error("a surrogate without its other half")),
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.error("a surrogate without its other half"))
    }

    fn hex4(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|b| (b as char).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.error("four hexadecimal digits are wanted"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Takes an integer that is not negative: digits without sign, point, exponent or leading zero.
    #[inline]
    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        self.peek();
        let start = self.at;
        let mut number = 0u64;
        while let Some(digit) = self.byte().map(|b| b.wrapping_sub(b'0')).filter(|&d| d < 10) {
            let next = number.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit)));
            number = next.ok_or_else(|| self.error("an integer beyond 64 bits"))?;
            self.at += 1;
        }
        let digits = self.at - start;
        let leading_zero = digits > 1 && self.text.as_bytes().get(start) == Some(&b'0');
        if digits == 0 || leading_zero || matches!(self.byte(), Some(b'.' | b'e' | b'E')) {
            self.at = start;
            return Err(self.unexpected("an integer that is not negative"));
        }
        Ok(number)
    }

    /// Takes exactly this text, white space included, if it is next.
    #[inline]
    pub(crate) fn take_text(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text.as_bytes());
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Takes an integer of at most 19 digits that is next without white space. What it leaves is for
    /// [`Lexer::unsigned`] to judge.
    #[inline]
    pub(crate) fn take_digits(&mut self) -> Option<u64> {
        let mut number = 0u64;
        let mut digits = 0;
        for digit in self.rest().iter().map(|b| b.wrapping_sub(b'0')).take_while(|&d| d < 10).take(20) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits += 1;
        }
        let leading_zero = digits > 1 && self.byte() == Some(b'0');
        if digits == 0 || digits > 19 || leading_zero {
            return None;
        }
        self.at += digits;
        Some(number)
    }

    /// Takes the bytes before the next quote, and the quote, if it is near.
    #[inline]
    pub(crate) fn take_word(&mut self) -> Option<&'a str> {
        let len = self.rest().iter().take(24).position(|&b| b == b'"')?;
        let word = self.text.get(self.at..self.at + len)?;
        self.at += len + 1;
        Some(word)
    }

    /// Takes a number, as its text.
    pub(crate) fn number(&mut self) -> Result<&'a str> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        let whole = self.at;
        let mut fine = self.digits();
        fine &= self.at == whole + 1 || self.text.as_bytes().get(whole) != Some(&b'0');
        if self.byte() == Some(b'.') {
            self.at += 1;
            fine &= self.digits();
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            fine &= self.digits();
        }
        let text = self.slice(start, self.at);
        if fine && text.parse().is_ok_and(f64::is_finite) {
            return Ok(text);
        }
        self.at = start;
        Err(if fine { self.error("a number beyond an f64") } else { self.unexpected("a number") })
    }

    /// Takes digits; whether there was one.
    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > start
    }

    /// Takes `null`, `true` or `false` if it is next.
    pub(crate) fn literal(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Takes any value and checks that it is JSON.
    pub(crate) fn skip(&mut self) -> Result<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(b @ (b'{' | b'[')) => {
                    let close = b + 2; // In ASCII each closing bracket stands two behind its opening one.
                    self.at += 1;
                    if !self.take(close) {
                        if open.len() == DEPTH {
                            return Err(self.error(format!("values nest deeper than {DEPTH} levels")));
                        }
                        open.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => drop(self.string()?),
                Some(b'-' | b'0'..=b'9') => drop(self.number()?),
                _ => {
                    if !["null", "true", "false"].iter().any(|word| self.literal(word)) {
                        return Err(self.unexpected("a value"));
                    }
                }
            }
            loop {
                let Some(&close) = open.last() else { return Ok(()) };
                if self.more(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }
}

/// Adds a JSON string with quotes and the escapes that JSON demands.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut done = 0;
    for (i, b) in text.bytes().enumerate() {
        let short = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0C => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[done..i]);
        out.push_str(short);
        if short.is_empty() {
            out.push_str(&format!("\\u{b:04x}"));
        }
        done = i + 1;
    }
    out.push_str(&text[done..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip_all(text: &str) -> bool {
        let mut lexer = Lexer::new(text, 0);
        lexer.skip().is_ok() && lexer.peek().is_none()
    }

    #[test]
    fn agrees_with_serde_json_on_what_is_json() {
        let texts = [
            "null",
            "true",
            "falsey",
            "nul",
            "0",
            "-0",
            "01",
            "-",
            "1.",
            "1.5",
            ".5",
            "1e5",
            "1e",
            "1E+5",
            "1e-",
            "1e999",
            "-1e999",
            "18446744073709551616",
            "\"\"",
            "\"a",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\ud83d\\u0041\"",
            "\"\\x\"",
            "\"\t\"",
            "\"\u{7f}é\"",
            "[]",
            "[1,]",
            "[,1]",
            "[1,2]",
            "[1 2]",
            "{}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":[{}, {\"b\":[[]]}]}",
            "[1}",
            "{\"a\":1]",
            "",
            " ",
            "\u{feff}1",
            "1 1",
            "\"\\u12\"",
            "[\"abcdefghijk\\n\"]",
            "NaN",
            "+1",
        ];
        for text in texts {
            let theirs = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(skip_all(text), theirs, "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_costs_no_stack() {
        assert!(skip_all(&("[".repeat(DEPTH) + &"]".repeat(DEPTH))));
        assert!(!skip_all(&"[".repeat(1_000_000)));
        assert!(!skip_all(&"{\"\":".repeat(1_000_000)));
    }

    #[test]
    fn strings_come_back_as_they_were() {
        let mut every: String = (0..0x300).filter_map(char::from_u32).collect();
        every.push_str("\u{1F600}\u{FFFF}\"\\/end of a longer run without anything special in it");
        for skip in 0..every.chars().count() {
            let text: String = every.chars().skip(skip).collect();
            let mut json = String::new();
            push_string(&mut json, &text);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
            assert_eq!(Lexer::new(&json, 0).string().unwrap(), text);
        }
    }

    #[test]
    fn only_plain_integers_are_unsigned() {
        let read = |text| Lexer::new(text, 0).unsigned().ok();
        assert_eq!(read(" 0"), Some(0));
        assert_eq!(read("18446744073709551615]"), Some(u64::MAX));
        let digits = |text| Lexer::new(text, 0).take_digits();
        assert_eq!(
            (digits("0]"), digits("9999999999999999999,")),
            (Some(0), Some(9_999_999_999_999_999_999))
        );
        for left in ["", " 1", "01", "00", "10000000000000000000", "-1", "x"] {
            assert_eq!(digits(left), None, "{left:?}");
        }
        for bad in ["18446744073709551616", "-1", "-0", "01", "1.0", "1e2", "", "\"1\"", "+1"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
