//! A model's `config.json`: read leniently, changed in place.
//!
//! What a program changes is one value; all else of the text stays as it is, byte for byte: keys that nobody here
//! knows, their order, the spelling of numbers, and the `NaN` and `Infinity` that Python writes and JSON lacks.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use weighbridge_formats::{DType, Error, Limits, Result, Source};

/// The longest config that is read. The largest in use name twenty thousand classes, twice, in 2 MB.
const MOST_BYTES: u64 = 8 << 20;

/// How to raise the limit.
const RAISE: &str =
    "if you trust the file, allow more: `--memory 2GiB` of the command, Limits::memory of the library";

/// A JSON object with its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    text: String,
    value: Map<String, Value>,
}

impl Config {
    /// Parses a JSON object. Python's `NaN`, `Infinity` and `-Infinity` count as null.
    ///
    /// # Errors
    /// `Malformed` for what is no JSON object.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let value = match serde_json::from_str(&strict(&text)) {
            Ok(Value::Object(value)) => value,
            Ok(_) => return Err(Error::malformed("this is JSON, and no object")),
            Err(e) => {
                let (line, column) = (e.line(), e.column());
                let what = format!("this is no JSON: line {line}, column {column}");
                return Err(Error::malformed(what).with_source(e));
            }
        };
        Ok(Self { text, value })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`Config::parse`]; `LimitExceeded` for a file that is too large for a config; what the system says.
    pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        let read = || {
            let source = Source::open(path)?;
            let limits = Limits {
                header_bytes: limits.header_bytes.min(MOST_BYTES.max(limits.memory / 6)),
                ..limits.clone()
            };
            let bytes = source.read_vec(0, source.len(), &limits).map_err(|e| e.with_hint(RAISE))?;
            // Parsed, a number of one digit takes thirty times what it takes in the file, and an empty object a hundred.
            let mut taken = 3 * bytes.len() as u64;
            for byte in &bytes {
                taken += match byte {
                    b',' => 160,
                    b'[' => 96,
                    b'{' => 400,
                    _ => 0,
                };
            }
            if taken > limits.memory {
                let what =
                    format!("the config would take {taken} bytes of memory; the limit is {}", limits.memory);
                return Err(Error::limit(what).with_hint(RAISE));
            }
            let text = String::from_utf8(bytes).map_err(|e| {
                Error::malformed("this is no UTF-8").at_offset(e.utf8_error().valid_up_to() as u64)
            })?;
            // Some editors begin a file with a byte order mark, which Python's reader would refuse.
            Self::parse(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        };
        read().map_err(|e| e.with_path(path))
    }

    /// The config of any type that serde can write as a JSON object, indented by two spaces.
    ///
    /// # Errors
    /// `InvalidOptions` if it is no object, or serde refuses it.
    pub fn from_value(config: &impl Serialize) -> Result<Self> {
        let refused = |e: serde_json::Error| {
            Error::invalid_options("the config cannot be written as JSON").with_source(e)
        };
        match serde_json::to_value(config).map_err(refused)? {
            Value::Object(value) => {
                let mut text = serde_json::to_string_pretty(&value).map_err(refused)?;
                text.push('\n');
                Ok(Self { text, value })
            }
            _ => Err(Error::invalid_options("a config must be an object, with named fields")),
        }
    }

    /// The config as a type of the caller's own.
    ///
    /// # Errors
    /// `Mismatch` if the fields are not that type's.
    pub fn to_type<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(Value::Object(self.value.clone()))
            .map_err(|e| Error::mismatch(format!("the config has other fields: {e}")))
    }

    /// The text, as it was read and changed since.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The keys and values, in order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.value
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key)
    }

    /// A text.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// A number that is no less than 0.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The names of the classes that the model was saved from, such as `BertForMaskedLM`.
    pub fn architectures(&self) -> Vec<&str> {
        let list = self.get("architectures").and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// The family, such as `bert`.
    pub fn model_type(&self) -> Option<&str> {
        self.str("model_type")
    }

    /// The dtype that the config states, under the key of newer or of older versions of transformers.
    pub fn dtype(&self) -> Option<DType> {
        let text = self.str("dtype").or_else(|| self.str("torch_dtype"))?;
        DType::parse(text.strip_prefix("torch.").unwrap_or(text))
    }

    /// Changes a value, or adds it at the end.
    ///
    /// # Errors
    /// `InvalidOptions` if serde refuses the value.
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let spelled = value.to_string();
        let object = object_start(&self.text);
        match find(&self.text, object, key) {
            Some(range) => self.text.replace_range(range, &spelled),
            None => insert(&mut self.text, object, key, &spelled),
        }
        self.value.insert(key.to_owned(), value);
        Ok(())
    }

    /// States the dtype of the weights: under the keys that are there, in the configs of parts (`text_config`) too;
    /// where there is none, under `torch_dtype`, which every version reads, and `dtype` if the config was written
    /// by a transformers that has it (4.56 or later).
    ///
    /// # Errors
    /// `Unsupported` for a dtype that torch has no name for.
    pub fn set_dtype(&mut self, dtype: DType) -> Result<()> {
        let name = dtype.torch_name();
        if name.is_empty() {
            return Err(Error::unsupported(format!("a config cannot state the dtype {dtype}")));
        }
        let mut found = false;
        for key in ["dtype", "torch_dtype"] {
            if self.value.contains_key(key) {
                self.set(key, name.into())?;
                found = true;
            }
        }
        let parts = self.value.iter().filter(|(k, v)| k.ends_with("_config") && v.is_object());
        let parts: Vec<String> = parts.map(|(k, _)| k.clone()).collect();
        for part in parts {
            found |= self.set_in_part(&part, name);
        }
        if !found {
            self.set("torch_dtype", name.into())?;
            if self.str("transformers_version").is_some_and(|v| version(v) >= (4, 56)) {
                self.set("dtype", name.into())?;
            }
        }
        Ok(())
    }

    /// Changes the dtype that the config of a part states; returns whether it states one.
    fn set_in_part(&mut self, part: &str, name: &str) -> bool {
        let mut found = false;
        for key in ["dtype", "torch_dtype"] {
            let Some(Value::Object(fields)) = self.value.get_mut(part) else { continue };
            let Some(value) = fields.get_mut(key).filter(|v| v.is_string()) else { continue };
            *value = name.into();
            found = true;
            if let Some(outer) = find(&self.text, object_start(&self.text), part)
                && let Some(range) = find(&self.text, outer.start, key)
            {
                self.text.replace_range(range, &format!("{name:?}"));
            }
        }
        found
    }
}

/// Major and minor number of a version; zeros where it has none.
fn version(text: &str) -> (u64, u64) {
    let mut parts = text.split('.').map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The text with what JSON lacks replaced by null.
fn strict(text: &str) -> Cow<'_, str> {
    const FOREIGN: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !FOREIGN.iter().any(|f| text.contains(f)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '-', 'I', 'N']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let taken = if from.starts_with('"') {
            let end = string_end(from, 0);
            out.push_str(&from[..end]);
            end
        } else if let Some(word) = FOREIGN.iter().find(|f| from.starts_with(**f)) {
            out.push_str("null");
            word.len()
        } else {
            out.push_str(&from[..1]);
            1
        };
        rest = &from[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The end of the string that begins at `at`, behind its closing quote.
fn string_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut i = at + 1;
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    text.len()
}

/// Where the object begins.
fn object_start(text: &str) -> usize {
    text.find('{').unwrap_or(0)
}

/// The bytes of the value of a key, in the object that begins at `start`. The text has been parsed, so its form is
/// known to be right; of a key that stands twice, the last counts, as it does for the parser.
fn find(text: &str, start: usize, key: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0usize, start);
    let (mut current, mut value_at): (Option<String>, Option<usize>) = (None, None);
    let mut found = None;
    let mut close = |current: &mut Option<String>, value_at: &mut Option<usize>, end: usize| {
        if let (Some(name), Some(from)) = (current.take(), value_at.take())
            && name == key
        {
            let trimmed = text.get(from..end).unwrap_or_default();
            let from = from + trimmed.len() - trimmed.trim_start().len();
            found = Some(from..from + trimmed.trim().len());
        }
    };
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'"' => {
                let end = string_end(text, i);
                if depth == 1 && value_at.is_none() {
                    current = text.get(i..end).and_then(|literal| serde_json::from_str(literal).ok());
                }
                i = end;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    close(&mut current, &mut value_at, i);
                    break;
                }
            }
            b':' if depth == 1 => value_at = Some(i + 1),
            b',' if depth == 1 => close(&mut current, &mut value_at, i),
            _ => {}
        }
        i += 1;
    }
    found
}

/// Adds a key at the end of the object that begins at `start`, indented as what stands before it.
fn insert(text: &mut String, start: usize, key: &str, value: &str) {
    let Some(close) = text.rfind('}').filter(|&c| c > start) else { return };
    let inner = &text[start + 1..close];
    let end = start + 1 + inner.trim_end().len();
    let entry = format!("{}: {value}", Value::String(key.to_owned()));
    let added = if inner.trim().is_empty() {
        format!("\n  {entry}\n")
    } else {
        let gap = &inner[..inner.len() - inner.trim_start().len()];
        format!(",{}{entry}", if gap.is_empty() { " " } else { gap })
    };
    text.replace_range(end..if inner.trim().is_empty() { close } else { end }, &added);
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    const TEXT: &str = "{\n  \"architectures\": [\n    \"BertModel\"\n  ],\n  \"eps\": 1e-12,\n  \"limit\": [0.0, Infinity],\n  \"torch_dtype\": \"float32\",\n  \"text_config\": {\"eps\": -Infinity, \"torch_dtype\": \"float32\", \"x\": {\"torch_dtype\": 1}},\n  \"say\": \"NaN, \\\"torch_dtype\\\": 1\"\n}\n";

    #[test]
    fn a_change_leaves_every_other_byte() {
        let mut config = Config::parse(TEXT).unwrap();
        assert_eq!((config.dtype(), config.architectures()), (Some(DType::F32), vec!["BertModel"]));
        config.set_dtype(DType::F16).unwrap();
        let expected = TEXT.replacen("\"torch_dtype\": \"float32\"", "\"torch_dtype\": \"float16\"", 2);
        assert_eq!(config.text(), expected);
        assert_eq!(config.dtype(), Some(DType::F16));
        assert_eq!(Config::parse(config.text()).unwrap(), config);
    }

    #[test]
    fn a_key_that_is_not_there_is_added() {
        for (text, expected) in [
            ("{}", "{\n  \"k\": 1\n}"),
            (" { } ", " {\n  \"k\": 1\n} "),
            ("{\"a\": 2}", "{\"a\": 2, \"k\": 1}"),
            ("{\n    \"a\": 2\n}\n", "{\n    \"a\": 2,\n    \"k\": 1\n}\n"),
        ] {
            let mut config = Config::parse(text).unwrap();
            config.set("k", 1.into()).unwrap();
            assert_eq!(config.text(), expected);
            assert_eq!(Config::parse(config.text()).unwrap(), config);
        }
        let mut config = Config::parse("{\"transformers_version\": \"4.57.1\"}").unwrap();
        config.set_dtype(DType::Bf16).unwrap();
        assert_eq!((config.str("dtype"), config.str("torch_dtype")), (Some("bfloat16"), Some("bfloat16")));
        let mut old = Config::parse("{\"transformers_version\": \"4.40.0\"}").unwrap();
        old.set_dtype(DType::Bf16).unwrap();
        assert_eq!(old.str("dtype"), None);
    }

    #[test]
    fn keys_are_found_where_they_are_and_nowhere_else() {
        let text = r#"{"a\"}": {"b": 1}, "b" : [1, "}", {"c": 2}] , "c":null, "u\u0041": 3, "c": 4}"#;
        let at = |key: &str| find(text, 0, key).map(|r| &text[r]);
        assert_eq!(at("b"), Some(r#"[1, "}", {"c": 2}]"#));
        assert_eq!(
            (at("c"), at("uA"), at("a\"}"), at("x")),
            (Some("4"), Some("3"), Some(r#"{"b": 1}"#), None)
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "{", "{\"a\": }", "nul", &"[".repeat(100_000)] {
            assert!(Config::parse(text).is_err(), "{text:.20}");
        }
        assert!(Config::from_value(&[1, 2]).is_err());
    }

    #[test]
    fn any_serde_type_is_a_config() {
        #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
        struct Mine {
            layers: u32,
            name: String,
        }
        let mine = Mine { layers: 3, name: "ü".into() };
        let config = Config::from_value(&mine).unwrap();
        assert_eq!(Config::parse(config.text()).unwrap(), config);
        assert_eq!(config.to_type::<Mine>().unwrap(), mine);
        assert!(Config::parse("{}").unwrap().to_type::<Mine>().is_err());
    }

    #[test]
    fn a_config_larger_than_any_is_refused_before_it_is_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = |values: usize| format!("{{\"x\": [{}1]}}", "1,".repeat(values));
        std::fs::write(&path, text(10_000)).unwrap();
        Config::read(&path, &Limits::default()).unwrap();
        std::fs::write(&path, text(300_000)).unwrap();
        let error = Config::read(&path, &Limits::default()).unwrap_err();
        assert!(
            error.kind() == ErrorKind::LimitExceeded && error.hint().is_some_and(|h| h.contains("--memory")),
            "{error}"
        );
        Config::read(&path, &Limits::within(1 << 30)).unwrap();
        std::fs::write(&path, format!("{{\"x\": [{}{{}}]}}", "{},".repeat(200_000))).unwrap();
        assert_eq!(Config::read(&path, &Limits::default()).unwrap_err().kind(), ErrorKind::LimitExceeded);
        std::fs::write(&path, format!("{{\"x\": \"{}\"}}", "a".repeat(MOST_BYTES as usize))).unwrap();
        assert_eq!(Config::read(&path, &Limits::default()).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
