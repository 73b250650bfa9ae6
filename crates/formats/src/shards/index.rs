//! The index of a sharded set: a JSON object that says in which file each tensor is, as transformers writes it.

use std::collections::{BTreeMap, HashMap};

use crate::account::{Account, block};
use crate::error::{Error, Result};
use crate::json::{Feed, push_string};
use crate::limits::Limits;
use crate::probe::Probe;
use crate::source::{Source, is_plain_relative};

/// What an index says.
#[derive(Debug, Default)]
pub(crate) struct ShardIndex {
    /// The shards' names, sorted.
    pub(crate) files: Vec<String>,
    /// Each tensor's name and the number of its file.
    pub(crate) weight_map: HashMap<String, u32>,
    /// The bytes of all tensors, where the index states them.
    pub(crate) total_size: Option<u64>,
    /// Values that are no tensors, where they were kept.
    pub(crate) values: Option<String>,
}

/// The most shards of a set. The largest known has some hundreds.
const MOST_SHARDS: usize = 10_000;
/// What a shard, and what a tensor that is listed, takes in memory beside the texts, in bytes.
const SHARD: u64 = 2048;
const LISTED: u64 = 80;

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
    pub(crate) fn read(source: &Source, limits: &Limits, account: &mut Account) -> Result<Self> {
        if source.len() > limits.header_bytes {
            let what = format!("the index has {} bytes; the limit is {}", source.len(), limits.header_bytes);
            return Err(Error::limit(what).with_hint("raise Limits::header_bytes"));
        }
        let mut feed = Feed::new(&**source.reader(), 0, source.len(), limits.memory / 4);
        let mut out = Self::default();
        let mut mapped = false;
        let mut more = feed.open(b'{', b'}')?;
        while more {
            feed.blanks()?;
            let key = feed.step(|lexer| Ok(lexer.key()?.into_owned()))?;
            match (&*key, feed.blanks()?) {
                ("weight_map", _) if mapped => {
                    return Err(Error::malformed("weight_map is given twice").at_offset(feed.offset()));
                }
                ("weight_map", _) => {
                    mapped = true;
                    out.weight_map(&mut feed, limits, account)?;
                }
                ("metadata", Some(b'{')) => out.metadata(&mut feed, account)?,
                _ => feed.step(|lexer| lexer.skip())?,
            }
            more = feed.more(b'}')?;
        }
        if feed.blanks()?.is_some() {
            return Err(Error::malformed("something follows the index").at_offset(feed.offset()));
        }
        if !mapped {
            return Err(Error::malformed("the index has no weight_map"));
        }
        out.sort();
        Ok(out)
    }

    /// Numbers the shards in the order of their names, which is the order of the set.
    fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.files.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| self.files[a as usize].cmp(&self.files[b as usize]));
        let mut number = vec![0u32; order.len()];
        for (to, &from) in order.iter().enumerate() {
            number[from as usize] = to as u32;
        }
        self.files.sort_unstable();
        self.weight_map.values_mut().for_each(|file| *file = number[*file as usize]);
    }

    fn weight_map(&mut self, feed: &mut Feed<'_>, limits: &Limits, account: &mut Account) -> Result<()> {
        let mut number: HashMap<String, u32> = HashMap::new();
        let mut more = feed.open(b'{', b'}')?;
        while more {
            feed.blanks()?;
            let at = feed.offset();
            let (name, file) =
                feed.step(|lexer| Ok((lexer.key()?.into_owned(), lexer.string()?.into_owned())))?;
            if !is_plain_relative(&file) {
                let what = format!("the index names {file:?}, which is no plain name in its own folder");
                return Err(Error::unsafe_content(what)
                    .with_tensor(name)
                    .at_offset(at)
                    .with_hint("a model's parts must lie in its own folder; do not trust this file"));
            }
            if self.weight_map.len() as u64 >= limits.entries {
                return Err(Error::limit(format!("more than {} tensors", limits.entries)).at_offset(at));
            }
            let file = match number.get(&file) {
                Some(&known) => known,
                None => {
                    if self.files.len() >= MOST_SHARDS {
                        let what = format!("the index names more than {MOST_SHARDS} shards");
                        return Err(Error::limit(what)
                            .at_offset(at)
                            .with_hint("no model has so many; do not trust this file"));
                    }
                    let new = self.files.len() as u32;
                    account.charge(SHARD + 2 * block(file.len())).map_err(|e| e.at_offset(at))?;
                    self.files.push(file.clone());
                    number.insert(file, new);
                    new
                }
            };
            account.charge(LISTED + block(name.len())).map_err(|e| e.at_offset(at))?;
            if self.weight_map.contains_key(&name) {
                let what = "the index lists a tensor twice";
                return Err(Error::malformed(what).with_tensor(name).at_offset(at));
            }
            self.weight_map.insert(name, file);
            more = feed.more(b'}')?;
        }
        Ok(())
    }

    /// Takes what is known of the metadata; other entries are of no meaning here.
    fn metadata(&mut self, feed: &mut Feed<'_>, account: &mut Account) -> Result<()> {
        let mut more = feed.open(b'{', b'}')?;
        while more {
            feed.blanks()?;
            let key = feed.step(|lexer| Ok(lexer.key()?.into_owned()))?;
            match (&*key, feed.blanks()?) {
                // Some writers state a float.
                ("total_size", Some(b'0'..=b'9')) => {
                    self.total_size = feed.step(|lexer| Ok(lexer.number()?.parse().ok()))?;
                }
                (super::VALUES_KEY, Some(b'"')) => {
                    let text = feed.step(|lexer| Ok(lexer.string()?.into_owned()))?;
                    account.charge(block(text.len()))?;
                    self.values = Some(text);
                }
                _ => feed.step(|lexer| lexer.skip())?,
            }
            more = feed.more(b'}')?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read(text: &str) -> Result<ShardIndex> {
        let limits = Limits::default();
        ShardIndex::read(&Source::from_bytes(text), &limits, &mut Account::new(&limits))
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
