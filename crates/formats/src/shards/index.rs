//! The index of a sharded set: a JSON object that says in which file each tensor is, as transformers writes it.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};
use crate::json::{Lexer, push_string};
use crate::limits::Limits;
use crate::probe::Probe;
use crate::source::{Source, is_plain_relative};

/// What an index says.
#[derive(Debug, Default)]
pub(crate) struct ShardIndex {
    /// The shards' names, sorted.
    pub(crate) files: Vec<String>,
    /// Each tensor's name and the number of its file.
    pub(crate) weight_map: HashMap<String, usize>,
    /// The bytes of all tensors, where the index states them.
    pub(crate) total_size: Option<u64>,
    /// Values that are no tensors, where they were kept.
    pub(crate) values: Option<String>,
}

/// Whether an input is an index: by its name, or by its content.
pub(crate) fn is_index(probe: &Probe<'_>) -> bool {
    let head = probe.head();
    let object = head.trim_ascii_start().first() == Some(&b'{');
    let mapped = || head.windows(12).any(|w| w == b"\"weight_map\"");
    object && (probe.file_name().ends_with(".index.json") || mapped())
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// `Malformed` for what is no index, a tensor given twice included; `UnsafeContent` for a shard's name that
    /// is no plain relative one; `LimitExceeded`.
    pub(crate) fn read(source: &Source, limits: &Limits) -> Result<Self> {
        let bytes = source.read_vec(0, source.len(), limits)?;
        let mut lexer = Lexer::from_bytes(&bytes, 0)?;
        let mut out = Self::default();
        let mut map = None;
        if lexer.open(b'{', b'}')? {
            loop {
                match &*lexer.key()? {
                    "weight_map" if map.is_some() => return Err(lexer.error("weight_map is given twice")),
                    "weight_map" => map = Some(weight_map(&mut lexer, limits)?),
                    "metadata" if lexer.peek() == Some(b'{') => out.metadata(&mut lexer)?,
                    _ => lexer.skip()?,
                }
                if !lexer.more(b'}')? {
                    break;
                }
            }
        }
        if lexer.peek().is_some() {
            return Err(lexer.error("something follows the index"));
        }
        let Some(map) = map else {
            return Err(Error::malformed("the index has no weight_map"));
        };
        // Numbered in the order of their names, which is the order of the shards.
        let names: BTreeMap<&str, ()> = map.values().map(|f| (f.as_str(), ())).collect();
        out.files = names.into_keys().map(str::to_owned).collect();
        let number: HashMap<String, usize> = out.files.iter().cloned().zip(0..).collect();
        out.weight_map = map.into_iter().map(|(name, file)| (name, number[&file])).collect();
        Ok(out)
    }

    /// Takes what is known of the metadata; other entries are of no meaning here.
    fn metadata(&mut self, lexer: &mut Lexer<'_>) -> Result<()> {
        if !lexer.open(b'{', b'}')? {
            return Ok(());
        }
        loop {
            let key = lexer.key()?;
            match (&*key, lexer.peek()) {
                // Some writers state a float.
                ("total_size", Some(b'0'..=b'9')) => self.total_size = lexer.number()?.parse().ok(),
                (super::VALUES_KEY, Some(b'"')) => self.values = Some(lexer.string()?.into_owned()),
                _ => lexer.skip()?,
            }
            if !lexer.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// The text of an index, as transformers lays it out.
    pub(crate) fn render(weight_map: &BTreeMap<&str, &str>, total_size: u64, values: Option<&str>) -> String {
        let mut out = format!("{{\n  \"metadata\": {{\n    \"total_size\": {total_size}");
        if let Some(values) = values {
            out.push_str(",\n    ");
            push_string(&mut out, super::VALUES_KEY);
            out.push_str(": ");
            push_string(&mut out, values);
        }
        out.push_str("\n  },\n  \"weight_map\": {");
        for (i, (name, file)) in weight_map.iter().enumerate() {
            out.push_str(if i == 0 { "\n    " } else { ",\n    " });
            push_string(&mut out, name);
            out.push_str(": ");
            push_string(&mut out, file);
        }
        out.push_str(if weight_map.is_empty() { "}\n}\n" } else { "\n  }\n}\n" });
        out
    }
}

fn weight_map(lexer: &mut Lexer<'_>, limits: &Limits) -> Result<HashMap<String, String>> {
    let mut out = HashMap::new();
    if lexer.open(b'{', b'}')? {
        loop {
            let at = lexer.offset();
            let name = lexer.key()?.into_owned();
            let file = lexer.string()?.into_owned();
            if !is_plain_relative(&file) {
                let what = format!("the index names {file:?}, which is no plain name in its own folder");
                return Err(Error::unsafe_content(what)
                    .with_tensor(name)
                    .at_offset(at)
                    .with_hint("a model's parts must lie in its own folder; do not trust this file"));
            }
            if out.len() as u64 >= limits.entries {
                return Err(Error::limit(format!("more than {} tensors", limits.entries)).at_offset(at));
            }
            if out.contains_key(&name) {
                let what = "the index lists a tensor twice";
                return Err(Error::malformed(what).with_tensor(name).at_offset(at));
            }
            out.insert(name, file);
            if !lexer.more(b'}')? {
                break;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read(text: &str) -> Result<ShardIndex> {
        ShardIndex::read(&Source::from_bytes(text), &Limits::default())
    }

    #[test]
    fn an_index_reads_back_and_looks_as_transformers_writes_it() {
        let map =
            BTreeMap::from([("b", "m-2.safetensors"), ("a", "m-1.safetensors"), ("ü", "m-1.safetensors")]);
        let text = ShardIndex::render(&map, 12, None);
        let wanted = "{\n  \"metadata\": {\n    \"total_size\": 12\n  },\n  \"weight_map\": {\n    \
                      \"a\": \"m-1.safetensors\",\n    \"b\": \"m-2.safetensors\",\n    \"ü\": \"m-1.safetensors\"\n  }\n}\n";
        assert_eq!(text, wanted);
        let index = read(&text).unwrap();
        assert_eq!(index.files, ["m-1.safetensors", "m-2.safetensors"]);
        assert_eq!((index.weight_map["b"], index.weight_map["ü"], index.total_size), (1, 0, Some(12)));
        let kept = read(&ShardIndex::render(&map, 1, Some("{\"x\":1}"))).unwrap();
        assert_eq!(kept.values.as_deref(), Some("{\"x\":1}"));
        assert!(read(&ShardIndex::render(&BTreeMap::new(), 0, None)).unwrap().files.is_empty());
    }

    #[test]
    fn odd_indices_are_read_or_refused() {
        assert_eq!(
            read(r#"{"metadata":{"total_size":1.5e3,"x":[1]},"weight_map":{},"y":{}}"#).unwrap().total_size,
            None
        );
        assert!(read(r#"{"metadata":null,"weight_map":{}}"#).is_ok());
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{}} x"#,
            r#"{"weight_map":{"a":"x","a":"x"}}"#,
            r#"{"weight_map":{},"weight_map":{}}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().kind(), ErrorKind::Malformed, "{bad}");
        }
        for escape in ["../x", "/etc/passwd", "a/../../b", "C:\\\\x", "a\\u0000b", ""] {
            let text = format!("{{\"weight_map\":{{\"a\":\"{escape}\"}}}}");
            assert_eq!(read(&text).unwrap_err().kind(), ErrorKind::UnsafeContent, "{escape}");
        }
    }
}
