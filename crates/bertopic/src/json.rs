//! JSON as Python's `json` module reads and writes it.
//!
//! Python writes floats by their shortest text, `NaN` and `Infinity` where it must, and everything beyond ASCII as
//! escapes; it takes the last of two equal keys. What is read here and written again is the same to the byte.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;

use weighbridge_formats::{Error, Limits, Result};

/// How deep values may nest: the files of a model need five levels.
const DEPTH: u32 = 32;

/// A number as Python has it: scores that some representation models give are integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An `int` that fits 64 bits.
    Int(i64),
    /// A `float`.
    Float(f64),
}

impl Number {
    /// The number as a float.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(x) => x,
        }
    }
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}

/// A JSON value whose objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Str(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; no key stands twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer of a number that is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Number(Number::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(Number::Int(_)) => "an integer",
            Self::Number(Number::Float(_)) => "a float",
            Self::Str(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// What JSON proper can hold: a float that is not finite becomes null.
impl From<Json> for serde_json::Value {
    fn from(value: Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(b) => b.into(),
            Json::Number(Number::Int(n)) => n.into(),
            Json::Number(Number::Float(x)) => x.into(),
            Json::Str(text) => text.into(),
            Json::Array(items) => items.into_iter().map(Self::from).collect(),
            Json::Object(entries) => {
                entries.into_iter().map(|(key, value)| (key, Self::from(value))).collect()
            }
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<i64> for Json {
    fn from(n: i64) -> Self {
        Self::Number(Number::Int(n))
    }
}

/// Entries as a Python dict has them: a key that is given twice stands at its first place with its last value.
pub(crate) fn last_wins<K: Hash + Eq + Clone, V>(entries: Vec<(K, V)>) -> Vec<(K, V)> {
    let mut places = HashMap::with_capacity(entries.len());
    let mut out: Vec<(K, V)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match places.get(&key).and_then(|&at: &usize| out.get_mut(at)) {
            Some(entry) => entry.1 = value,
            None => {
                places.insert(key.clone(), out.len());
                out.push((key, value));
            }
        }
    }
    out
}

/// A position in a JSON text, with a bound on the values that are still allowed.
pub(crate) struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    values: u64,
}

impl<'a> Parser<'a> {
    /// Starts at the beginning of a text.
    ///
    /// # Errors
    /// `Malformed` if it is no UTF-8.
    pub(crate) fn new(bytes: &'a [u8], limits: &Limits) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::malformed("the JSON text is not UTF-8").at_offset(e.valid_up_to() as u64))?;
        Ok(Self { text, at: 0, depth: 0, values: limits.values })
    }

    /// `what` at the current position.
    #[cold]
    pub(crate) fn error(&self, what: impl Into<Cow<'static, str>>) -> Error {
        Error::malformed(what).at_offset(self.at as u64)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, not taken.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8, name: &str) -> Result<()> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected(name)) }
    }

    #[cold]
    fn unexpected(&mut self, wanted: &str) -> Error {
        match self.peek() {
            None => self.error(format!("the JSON text ends where {wanted} is wanted")),
            Some(_) => {
                let found = self.rest().chars().next().unwrap_or('?');
                self.error(format!("{found:?} stands where {wanted} is wanted"))
            }
        }
    }

    /// Takes a word if it is next.
    pub(crate) fn literal(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn count(&mut self) -> Result<()> {
        self.values = self
            .values
            .checked_sub(1)
            .ok_or_else(|| Error::limit("the JSON text holds more values than the limits allow"))?;
        Ok(())
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error(format!("values nest deeper than {DEPTH} levels")));
        }
        self.count()
    }

    /// Takes an array, `each` taking every item.
    pub(crate) fn array(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[', "an array")?;
        self.deeper()?;
        if !self.take(b']') {
            loop {
                each(self)?;
                if self.take(b']') {
                    break;
                }
                self.expect(b',', "',' or ']'")?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Takes an object, `each` taking every value, whose key it is given.
    pub(crate) fn object(&mut self, mut each: impl FnMut(&mut Self, String) -> Result<()>) -> Result<()> {
        self.expect(b'{', "an object")?;
        self.deeper()?;
        if !self.take(b'}') {
            loop {
                let key = self.string()?;
                self.expect(b':', "':'")?;
                each(self, key)?;
                if self.take(b'}') {
                    break;
                }
                self.expect(b',', "',' or '}'")?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Takes a string.
    pub(crate) fn string(&mut self) -> Result<String> {
        self.expect(b'"', "a string")?;
        self.count()?;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let plain = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
            out.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    out.push(c);
                }
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("the JSON text ends in a string")),
            }
        }
    }

    /// Behind a backslash.
    fn escape(&mut self) -> Result<char> {
        let known = match self.byte() {
            Some(b @ (b'"' | b'\\' | b'/')) => b as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        Ok(known)
    }

    /// Behind `\u`: a code point of four digits, or of two surrogates.
    fn unicode(&mut self) -> Result<char> {
        let high = self.hex4()?;
        let code = if (0xD800..0xDC00).contains(&high) && self.rest().starts_with("\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if !(0xDC00..0xE000).contains(&low) {
                return Err(self.error("a surrogate without its other half"));
            }
            0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)
        } else {
            high
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

    /// Takes an integer that fits 64 bits.
    pub(crate) fn int(&mut self) -> Result<i64> {
        match self.number()? {
            Number::Int(n) => Ok(n),
            Number::Float(x) => Err(self.error(format!("{x} stands where an integer is wanted"))),
        }
    }

    /// Takes a number, `NaN` and the infinities included.
    pub(crate) fn number(&mut self) -> Result<Number> {
        self.count()?;
        let words = [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];
        for (word, x) in words {
            if self.literal(word) {
                return Ok(Number::Float(x));
            }
        }
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        let whole = self.at;
        let mut fine = self.digits();
        fine &= self.at == whole + 1 || self.text.as_bytes().get(whole) != Some(&b'0');
        let integer_end = self.at;
        if self.byte() == Some(b'.') {
            self.at += 1;
            fine &= self.digits();
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            fine &= self.digits();
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if !fine {
            self.at = start;
            return Err(self.unexpected("a number"));
        }
        if self.at == integer_end {
            return text.parse().map(Number::Int).map_err(|_| self.error("an integer beyond 64 bits"));
        }
        text.parse().map(Number::Float).map_err(|_| self.error("a number that is none"))
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > start
    }

    /// Takes `true` or `false`.
    pub(crate) fn bool(&mut self) -> Result<bool> {
        self.count()?;
        match (self.literal("true"), self.literal("false")) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            _ => Err(self.unexpected("true or false")),
        }
    }

    /// Takes any value. It calls itself at most as deep as arrays and objects may nest.
    pub(crate) fn value(&mut self) -> Result<Json> {
        Ok(match self.peek() {
            Some(b'{') => {
                let mut entries = Vec::new();
                self.object(|p, key| {
                    entries.push((key, p.value()?));
                    Ok(())
                })?;
                Json::Object(last_wins(entries))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.array(|p| {
                    items.push(p.value()?);
                    Ok(())
                })?;
                Json::Array(items)
            }
            Some(b'"') => Json::Str(self.string()?),
            Some(b't' | b'f') => Json::Bool(self.bool()?),
            Some(b'n') if self.literal("null") => {
                self.count()?;
                Json::Null
            }
            _ => Json::Number(self.number()?),
        })
    }

    /// Checks that nothing follows.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("text behind the end of the JSON value")),
        }
    }
}

/// Writes as `json.dump(…, indent=2)` does.
#[derive(Default)]
pub(crate) struct Writer {
    out: String,
    /// For each open bracket, whether something stands in it already.
    open: Vec<bool>,
}

impl Writer {
    /// Begins an item: the comma, the line and its indentation.
    fn item(&mut self) {
        if let Some(any) = self.open.last_mut() {
            self.out.push_str(if std::mem::replace(any, true) { ",\n" } else { "\n" });
            self.out.extend(std::iter::repeat_n("  ", self.open.len()));
        }
    }

    fn close(&mut self, bracket: char) {
        if self.open.pop() == Some(true) {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n("  ", self.open.len()));
        }
        self.out.push(bracket);
    }

    /// Writes an array, whose items `each` writes.
    pub(crate) fn array<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.out.push('[');
        self.open.push(false);
        for item in items {
            self.item();
            each(self, item);
        }
        self.close(']');
    }

    /// Writes an object; `fill` calls [`Writer::entry`].
    pub(crate) fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.out.push('{');
        self.open.push(false);
        fill(self);
        self.close('}');
    }

    /// Writes a key and, by `value`, what belongs to it.
    pub(crate) fn entry(&mut self, key: &str, value: impl FnOnce(&mut Self)) {
        self.item();
        self.string(key);
        self.out.push_str(": ");
        value(self);
    }

    /// Writes a string in ASCII.
    pub(crate) fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                ' '..='~' => self.out.push(c),
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.out.push('"');
    }

    /// Writes an integer.
    pub(crate) fn int(&mut self, n: impl Into<i128>) {
        self.out.push_str(&n.into().to_string());
    }

    /// Writes a boolean.
    pub(crate) fn bool(&mut self, b: bool) {
        self.out.push_str(if b { "true" } else { "false" });
    }

    /// Writes a number.
    pub(crate) fn number(&mut self, number: Number) {
        match number {
            Number::Int(n) => self.int(n),
            Number::Float(x) => self.out.push_str(&float(x)),
        }
    }

    /// Writes any value. It calls itself as deep as the value nests.
    pub(crate) fn value(&mut self, value: &Json) {
        match value {
            Json::Null => self.out.push_str("null"),
            Json::Bool(b) => self.bool(*b),
            Json::Number(n) => self.number(*n),
            Json::Str(text) => self.string(text),
            Json::Array(items) => self.array(items, Self::value),
            Json::Object(entries) => self.object(|w| {
                for (key, value) in entries {
                    w.entry(key, |w| w.value(value));
                }
            }),
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out.into_bytes()
    }
}

/// A float as Python's `repr` writes it: the shortest digits that read back as the same number, with an exponent
/// below 1e-4 and from 1e16 on.
pub(crate) fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let exponent: i32 = scientific.rsplit('e').next().and_then(|e| e.parse().ok()).unwrap_or(0);
    if x == 0.0 || (-4..16).contains(&exponent) {
        return format!("{x:?}");
    }
    let mantissa = scientific.split('e').next().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json> {
        let mut parser = Parser::new(text.as_bytes(), &Limits::default())?;
        let value = parser.value()?;
        parser.end().map(|()| value)
    }

    #[test]
    fn floats_stand_as_python_writes_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (0.000_123_456_789, "0.000123456789"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (-1e300, "-1e+300"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (0.361_548_139_382_728_9, "0.3615481393827289"),
        ];
        for (x, text) in cases {
            assert_eq!(float(x), text);
        }
    }

    #[test]
    fn values_come_back_and_stand_as_python_indents_them() {
        let text = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    [\n      \"\\u00fc\\ud83e\\udd80\\\"\\\\\\n\",\n      1e-05\n    ]\n  ],\n  \"d\": null,\n  \"e\": true,\n  \"f\": -3,\n  \"g\": NaN\n}";
        let value = parse(text).unwrap();
        let mut writer = Writer::default();
        writer.value(&value);
        assert_eq!(String::from_utf8(writer.finish()).unwrap(), text);
    }

    #[test]
    fn the_last_of_equal_keys_wins_at_the_first_ones_place() {
        let value = parse("{\"a\": 1, \"b\": 2, \"a\": 3}").unwrap();
        assert_eq!(value, Json::Object(vec![("a".into(), 3.into()), ("b".into(), 2.into())]));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let bad = [
            "",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "+1",
            "1e",
            "nul",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\t\"",
            "1 1",
            "99999999999999999999",
            "'a'",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn depth_and_count_are_bounded() {
        assert!(parse(&("[".repeat(32) + &"]".repeat(32))).is_ok());
        assert!(parse(&("[".repeat(33) + &"]".repeat(33))).is_err());
        assert!(parse(&"[".repeat(1_000_000)).is_err());
        let limits = Limits { values: 10, ..Limits::default() };
        let mut parser = Parser::new(b"[1,2,3,4,5,6,7,8,9,10]", &limits).unwrap();
        assert_eq!(parser.value().unwrap_err().kind(), weighbridge_formats::ErrorKind::LimitExceeded);
    }
}
