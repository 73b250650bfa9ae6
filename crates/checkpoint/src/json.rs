//! Between values and JSON: the small states around the tensors (scheduler, random state, callbacks).
//!
//! JSON has no tuples, bytes, tensors or NaN. Tuples become arrays; what else it lacks becomes an object with one
//! `$` key, so that it is not taken for a dict of the file: `{"$float": "NaN"}`, `{"$bytes": hex}`,
//! `{"$tensor": {"dtype", "shape", "bytes": hex}}`, `{"$global": name}`, `{"$object": …}`.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};
use weighbridge_formats::value::{Dict, DictKind};
use weighbridge_formats::{Archive, Data, Error, ReadAt, Result, Value, ValueId, Values};

/// How deep values may nest; what lies deeper is cut off with `{"$deeper": true}`.
const DEPTH: u32 = 64;
/// The most values that one part may take as JSON, shared ones counted each time.
const VALUES: u32 = 500_000;
/// The most bytes of a tensor that stand in JSON.
const TENSOR_BYTES: u64 = 64 << 10;

/// The values of an archive as JSON, its small tensors included; an archive without values is an object of its
/// tensors.
///
/// # Errors
/// `LimitExceeded` for more than half a million values; what reading a tensor says.
pub(crate) fn archive_to_json(archive: &dyn Archive) -> Result<Json> {
    match archive.values().and_then(|v| Some((v, v.root()?))) {
        Some((values, root)) => values_to_json(archive, values, root, &[]),
        None => {
            let mut map = Map::new();
            for (i, info) in archive.tensors().iter().enumerate() {
                map.insert(info.name().to_owned(), tensor(archive, i)?);
            }
            Ok(map.into())
        }
    }
}

/// A value as JSON; of a dict at the root, without the keys `skip`.
pub(crate) fn values_to_json(
    archive: &dyn Archive,
    values: &Values,
    root: ValueId,
    skip: &[&str],
) -> Result<Json> {
    Walk { archive, values, left: VALUES, skip }.value(root, 0)
}

struct Walk<'a> {
    archive: &'a dyn Archive,
    values: &'a Values,
    left: u32,
    skip: &'a [&'a str],
}

impl Walk<'_> {
    fn value(&mut self, id: ValueId, depth: u32) -> Result<Json> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::limit(format!(
                "a part of the checkpoint has more than {VALUES} values that are no tensors"
            ))
        })?;
        if depth > DEPTH {
            return Ok(json!({"$deeper": true}));
        }
        let values = self.values;
        Ok(match values.get(id) {
            Value::None => Json::Null,
            Value::Bool(b) => json!(b),
            Value::Int(i) => json!(i),
            Value::Float(x) => float(*x),
            Value::Str(s) => json!(s),
            Value::BigInt(b) => json!({"$integer": hex(b)}),
            Value::Bytes(b) | Value::ByteArray(b) => json!({"$bytes": hex(b)}),
            Value::Complex(re, im) => json!({"$complex": [float(*re), float(*im)]}),
            Value::List(p) | Value::Tuple(p) | Value::Set(p) | Value::FrozenSet(p) => {
                p.iter().map(|&id| self.value(id, depth + 1)).collect::<Result<Vec<_>>>()?.into()
            }
            Value::Dict(dict) => self.entries(&dict.entries, depth)?.into(),
            Value::Tensor(i) => tensor(self.archive, *i as usize)?,
            Value::Global(g) => json!({"$global": g.to_string()}),
            Value::Persistent(id) => json!({"$persistent": self.value(*id, depth + 1)?}),
            Value::Object(object) => {
                let class = match values.global(object.class) {
                    Some(global) => json!(global.to_string()),
                    None => self.value(object.class, depth + 1)?,
                };
                let mut map = Map::new();
                map.insert("class".into(), class);
                map.insert("args".into(), self.value(object.args, depth + 1)?);
                if let Some(state) = object.state {
                    map.insert("state".into(), self.value(state, depth + 1)?);
                }
                if !object.items.is_empty() {
                    let items = object.items.iter().map(|&id| self.value(id, depth + 1));
                    map.insert("items".into(), items.collect::<Result<Vec<_>>>()?.into());
                }
                if !object.entries.is_empty() {
                    map.insert("entries".into(), self.entries(&object.entries, depth)?.into());
                }
                json!({"$object": map})
            }
            _ => json!({"$unknown": true}),
        })
    }

    fn entries(&mut self, entries: &[(ValueId, ValueId)], depth: u32) -> Result<Map<String, Json>> {
        let mut map = Map::new();
        for &(key, value) in entries {
            let key = match self.values.str(key) {
                Some(key) if depth == 0 && self.skip.contains(&key) => continue,
                Some(key) => key.to_owned(),
                None => match self.value(key, depth + 1)? {
                    Json::String(text) => text,
                    other => other.to_string(),
                },
            };
            map.insert(key, self.value(value, depth + 1)?);
        }
        Ok(map)
    }
}

fn float(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!({"$float": x.to_string()}) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn tensor(archive: &dyn Archive, index: usize) -> Result<Json> {
    let Some(info) = archive.tensors().get(index) else { return Ok(json!({"$tensor": null})) };
    let mut map = Map::new();
    map.insert("dtype".into(), info.dtype().name().into());
    map.insert("shape".into(), info.shape().into());
    if info.bytes() <= TENSOR_BYTES {
        let data: Data<'_> = archive.data(index)?;
        let mut bytes = vec![0; info.bytes() as usize];
        data.read_at(0, &mut bytes).map_err(|e| e.with_tensor(info.name()))?;
        map.insert("bytes".into(), hex(&bytes).into());
    }
    Ok(json!({"$tensor": map}))
}

/// Adds JSON to an arena; objects become dicts.
///
/// # Errors
/// `LimitExceeded` past 2³² values.
pub(crate) fn push_json(values: &mut Values, json: &Json) -> Result<ValueId> {
    // serde_json parses to a depth of 128 and no further, and what a program builds is its own affair.
    let value = match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => Value::Int(i),
            // Two's complement needs a byte more for its sign.
            (None, Some(u), _) => Value::BigInt(u.to_le_bytes().into_iter().chain([0]).collect()),
            (None, None, x) => Value::Float(x.unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::Str(s.as_str().into()),
        Json::Array(items) => {
            Value::List(items.iter().map(|item| push_json(values, item)).collect::<Result<_>>()?)
        }
        Json::Object(map) => {
            let mut dict = Dict { kind: DictKind::Dict, ..Dict::default() };
            for (key, value) in map {
                let key = values.push(Value::Str(key.as_str().into()))?;
                dict.entries.push((key, push_json(values, value)?));
            }
            Value::Dict(Box::new(dict))
        }
    };
    values.push(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::{DType, MemoryArchive, Tensor};

    #[test]
    fn json_goes_through_values_and_back() {
        let json = json!({"a": [1, 2.5, null, true, "x"], "b": {"c": -7}});
        let mut values = Values::new();
        let root = push_json(&mut values, &json).unwrap();
        values.set_root(root);
        let archive = MemoryArchive::new([]).unwrap().with_values(values);
        assert_eq!(archive_to_json(&archive).unwrap(), json);
    }

    #[test]
    fn depth_and_sharing_are_bounded() {
        let mut values = Values::new();
        let mut id = values.push(Value::List(vec![])).unwrap();
        for _ in 0..100_000 {
            id = values.push(Value::List(vec![id])).unwrap();
        }
        values.set_root(id);
        let archive = MemoryArchive::new([]).unwrap().with_values(values);
        assert!(archive_to_json(&archive).unwrap().to_string().contains("$deeper"));
        let mut values = Values::new();
        let mut id = values.push(Value::List(vec![])).unwrap();
        for _ in 0..40 {
            id = values.push(Value::List(vec![id; 8])).unwrap();
        }
        values.set_root(id);
        let archive = MemoryArchive::new([]).unwrap().with_values(values);
        assert!(archive_to_json(&archive).unwrap_err().message().contains("more than 500000 values"));
    }

    #[test]
    fn what_json_lacks_is_marked() {
        let mut values = Values::new();
        let nan = values.push(Value::Float(f64::NAN)).unwrap();
        let tensor = values.push(Value::Tensor(0)).unwrap();
        let root = values.push(Value::Tuple(vec![nan, tensor])).unwrap();
        values.set_root(root);
        let data = Tensor::new("t", DType::U8, [2].as_slice(), Data::Borrowed(&[1, 255])).unwrap();
        let archive = MemoryArchive::new([data]).unwrap().with_values(values);
        let wanted = json!([{"$float": "NaN"}, {"$tensor": {"dtype": "U8", "shape": [2], "bytes": "01ff"}}]);
        assert_eq!(archive_to_json(&archive).unwrap(), wanted);
    }
}
