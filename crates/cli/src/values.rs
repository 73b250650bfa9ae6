//! The values that are no tensors, as an indented tree for people and as JSON for programs.
//!
//! A file decides how deep and how wide its values are, and shared parts make ten bytes stand for a billion
//! lines. So both forms stop at a depth, a number of entries for each container and a total, and say where.

use std::cell::Cell;
use std::fmt::Write as _;

use weighbridge::value::{Dict, DictKind, Object};
use weighbridge::{Archive, Value, ValueId, Values};

use crate::output::{count, grouped, push_array, push_json_str, push_u64, shortened};

/// How much is shown.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Levels of nesting.
    pub(crate) depth: usize,
    /// Entries of one container.
    pub(crate) entries: usize,
    /// Values in all.
    pub(crate) total: usize,
    /// Whether containers of nothing but tensors are opened.
    pub(crate) tensors: bool,
}

impl Bounds {
    /// Every value, as far as a finite output can hold it.
    pub(crate) const ALL: Self = Self { depth: 64, entries: usize::MAX, total: 10_000_000, tensors: true };
}

/// A walk over the values of an archive.
pub(crate) struct Tree<'a> {
    archive: &'a dyn Archive,
    values: &'a Values,
    bounds: Bounds,
    left: usize,
    /// How many more entries may be looked at to say what a container holds: a file can refer to one large
    /// container from a thousand places.
    looks: Cell<usize>,
    /// The containers around the current value: one of them again is a cycle.
    path: Vec<ValueId>,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(archive: &'a dyn Archive, values: &'a Values, bounds: Bounds) -> Self {
        Self { archive, values, bounds, left: bounds.total, looks: Cell::new(20_000_000), path: Vec::new() }
    }

    /// Adds the tree as indented lines.
    pub(crate) fn push_text(&mut self, out: &mut String) {
        if let Some(root) = self.values.root() {
            let _ = writeln!(out, "  {}", self.headline(root));
            self.text_parts(out, root, 2);
        }
    }

    fn text_parts(&mut self, out: &mut String, id: ValueId, level: usize) {
        let len = self.len(id);
        if len == 0 || self.inline(id).is_some() {
            return;
        }
        let indent = level * 2;
        if self.path.contains(&id) || self.path.len() >= self.bounds.depth {
            let _ = writeln!(out, "{:indent$}…", "");
            return;
        }
        let parts = self.labelled_parts(id, self.shown(len));
        let is_tensor = |(_, v): &(String, ValueId)| matches!(self.values.get(*v), Value::Tensor(_));
        if !self.bounds.tensors && !parts.is_empty() && parts.iter().all(is_tensor) {
            return;
        }
        self.path.push(id);
        let mut shown = 0;
        for (label, part) in &parts {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            shown += 1;
            let _ = writeln!(out, "{:indent$}{label}: {}", "", self.headline(*part));
            self.text_parts(out, *part, level + 1);
        }
        if shown < len {
            let _ = writeln!(out, "{:indent$}… {} more", "", grouped((len - shown) as u64));
        }
        self.path.pop();
    }

    /// How many parts a tree shows below a value.
    fn len(&self, id: ValueId) -> usize {
        match self.values.get(id) {
            Value::List(p) | Value::Tuple(p) | Value::Set(p) | Value::FrozenSet(p) => p.len(),
            Value::Dict(d) => d.entries.len(),
            Value::Object(o) => {
                let named = usize::from(self.has_args(o)) + o.kwargs.iter().chain(&o.state).count();
                named + o.items.len() + o.entries.len()
            }
            _ => 0,
        }
    }

    fn has_args(&self, object: &Object) -> bool {
        self.values.sequence(object.args).is_none_or(|args| !args.is_empty())
    }

    /// The first parts below a value, each with its label.
    fn labelled_parts(&self, id: ValueId, limit: usize) -> Vec<(String, ValueId)> {
        let mut parts = Vec::new();
        let numbered = |parts: &mut Vec<_>, items: &[ValueId]| {
            let room = limit.saturating_sub(parts.len());
            parts.extend(items.iter().take(room).enumerate().map(|(i, v)| (i.to_string(), *v)));
        };
        let keyed = |parts: &mut Vec<_>, entries: &[(ValueId, ValueId)]| {
            let room = limit.saturating_sub(parts.len());
            parts.extend(entries.iter().take(room).map(|(k, v)| (self.key(*k), *v)));
        };
        match self.values.get(id) {
            Value::List(p) | Value::Tuple(p) | Value::Set(p) | Value::FrozenSet(p) => numbered(&mut parts, p),
            Value::Dict(d) => keyed(&mut parts, &d.entries),
            Value::Object(o) => {
                let args = self.has_args(o).then_some(o.args);
                let named = [("args", args), ("kwargs", o.kwargs), ("state", o.state)];
                let named = named.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
                parts.extend(named.take(limit));
                numbered(&mut parts, &o.items);
                keyed(&mut parts, &o.entries);
            }
            _ => {}
        }
        parts
    }

    /// A key as a label: text bare, all else as it is written in Python.
    fn key(&self, id: ValueId) -> String {
        match self.values.get(id) {
            Value::Str(s) => shortened(s, 200),
            _ => self.inline(id).unwrap_or_else(|| self.headline(id)),
        }
    }

    /// A value in one line: itself if it is small, else what and how much it is.
    fn headline(&self, id: ValueId) -> String {
        if let Some(inline) = self.inline(id) {
            return inline;
        }
        let is_tensor = |id: ValueId| matches!(self.values.get(id), Value::Tensor(_));
        let many = |what: &str, mut parts: Box<dyn ExactSizeIterator<Item = ValueId> + '_>| {
            let len = parts.len();
            let looks = self.looks.get().checked_sub(len);
            self.looks.set(looks.unwrap_or(0));
            match len {
                0 => format!("empty {what}"),
                _ if looks.is_some() && parts.all(is_tensor) => {
                    format!("{what} of {}", count(len as u64, "tensor"))
                }
                1 => format!("{what} of 1 entry"),
                n => format!("{what} of {} entries", grouped(n as u64)),
            }
        };
        match self.values.get(id) {
            Value::List(p) => many("list", Box::new(p.iter().copied())),
            Value::Tuple(p) => many("tuple", Box::new(p.iter().copied())),
            Value::Set(p) => many("set", Box::new(p.iter().copied())),
            Value::FrozenSet(p) => many("frozenset", Box::new(p.iter().copied())),
            Value::Dict(d) => many(mapping(d), Box::new(d.entries.iter().map(|(_, v)| *v))),
            Value::Object(o) => format!("{} (object, kept as it is described)", self.class(o)),
            _ => "?".into(),
        }
    }

    fn class(&self, object: &Object) -> String {
        match self.values.global(object.class) {
            Some(class) => shortened(&class.to_string(), 200),
            None => "?".into(),
        }
    }

    /// A value that fits a line as Python writes it.
    fn inline(&self, id: ValueId) -> Option<String> {
        Some(match self.values.get(id) {
            Value::None => "None".into(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Int(i) => i.to_string(),
            Value::BigInt(bytes) => big_int(bytes),
            Value::Float(f) => format!("{f:?}"),
            Value::Complex(re, im) => format!("({re:?}{im:+?}j)"),
            Value::Str(s) => format!("\"{}\"", shortened(s, 200)),
            Value::Bytes(b) => count(b.len() as u64, "byte"),
            Value::ByteArray(b) => format!("bytearray of {}", count(b.len() as u64, "byte")),
            Value::Global(g) => shortened(&g.to_string(), 200),
            Value::Persistent(_) => "persistent id".into(),
            Value::Tensor(index) => match self.archive.tensors().get(*index as usize) {
                Some(t) => format!("{} {:?}", t.dtype(), t.shape()),
                None => "tensor".into(),
            },
            Value::List(p) | Value::Tuple(p) if p.len() <= 8 => {
                let scalar = |v: &Value| {
                    matches!(v, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_))
                        || matches!(v, Value::Str(s) if s.len() <= 40)
                };
                if !p.iter().all(|v| scalar(self.values.get(*v))) {
                    return None;
                }
                let items: Vec<_> = p.iter().filter_map(|v| self.inline(*v)).collect();
                match (self.values.get(id), &items[..]) {
                    (Value::List(_), _) => format!("[{}]", items.join(", ")),
                    (_, [one]) => format!("({one},)"),
                    _ => format!("({})", items.join(", ")),
                }
            }
            _ => return None,
        })
    }

    /// Adds the tree as JSON. Lists and tuples are arrays, mappings with text keys are objects; anything else
    /// is an object with one key that begins with `$`.
    pub(crate) fn push_json(&mut self, out: &mut Vec<u8>) {
        match self.values.root() {
            Some(root) => self.json(out, root),
            None => out.extend_from_slice(b"null"),
        }
    }

    fn json(&mut self, out: &mut Vec<u8>, id: ValueId) {
        self.left = self.left.saturating_sub(1);
        match self.values.get(id) {
            Value::None => out.extend_from_slice(b"null"),
            Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
            Value::Int(i) => {
                if *i < 0 {
                    out.push(b'-');
                }
                push_u64(out, i.unsigned_abs());
            }
            Value::BigInt(bytes) => tagged(out, "$int", |out| push_json_str(out, &big_int(bytes))),
            Value::Float(f) if f.is_finite() => out.extend_from_slice(format!("{f:?}").as_bytes()),
            Value::Float(f) => tagged(out, "$float", |out| push_json_str(out, &f.to_string())),
            Value::Complex(..) | Value::Persistent(_) => {
                let text = self.inline(id).unwrap_or_default();
                tagged(out, "$value", |out| push_json_str(out, &text));
            }
            Value::Str(s) => push_json_str(out, s),
            Value::Bytes(b) | Value::ByteArray(b) => {
                tagged(out, "$bytes", |out| push_u64(out, b.len() as u64));
            }
            Value::Global(g) => tagged(out, "$global", |out| push_json_str(out, &g.to_string())),
            Value::Tensor(index) => {
                let name = self.archive.tensors().get(*index as usize).map_or("", |t| t.name());
                tagged(out, "$tensor", |out| push_json_str(out, name));
            }
            container => self.json_container(out, id, container),
        }
    }

    fn json_container(&mut self, out: &mut Vec<u8>, id: ValueId, container: &'a Value) {
        if self.path.contains(&id) || self.path.len() >= self.bounds.depth || self.left == 0 {
            let all = self.len(id) as u64;
            return tagged(out, "$elided", |out| push_u64(out, all));
        }
        self.path.push(id);
        match container {
            Value::List(p) | Value::Tuple(p) => self.json_items(out, p),
            Value::Set(p) | Value::FrozenSet(p) => tagged(out, "$set", |out| self.json_items(out, p)),
            Value::Dict(d) => self.json_entries(out, &d.entries),
            Value::Object(o) => {
                let class = self.class(o);
                out.extend_from_slice(b"{\"$object\":");
                push_json_str(out, &class);
                out.extend_from_slice(b",\"args\":");
                self.json(out, o.args);
                for (name, part) in [("kwargs", o.kwargs), ("state", o.state)] {
                    if let Some(part) = part {
                        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                        self.json(out, part);
                    }
                }
                if !o.items.is_empty() {
                    out.extend_from_slice(b",\"items\":");
                    self.json_items(out, &o.items);
                }
                if !o.entries.is_empty() {
                    out.extend_from_slice(b",\"entries\":");
                    self.json_entries(out, &o.entries);
                }
                out.push(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
        self.path.pop();
    }

    /// How many entries of a container are shown.
    fn shown(&self, len: usize) -> usize {
        len.min(self.bounds.entries).min(self.left)
    }

    fn json_items(&mut self, out: &mut Vec<u8>, items: &'a [ValueId]) {
        let shown = self.shown(items.len());
        out.push(b'[');
        for (i, item) in items[..shown].iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            self.json(out, *item);
        }
        if shown < items.len() {
            if shown > 0 {
                out.push(b',');
            }
            tagged(out, "$elided", |out| push_u64(out, (items.len() - shown) as u64));
        }
        out.push(b']');
    }

    fn json_entries(&mut self, out: &mut Vec<u8>, entries: &'a [(ValueId, ValueId)]) {
        // A key with the first character of the tags would read as one.
        let plain = |k: &ValueId| self.values.str(*k).is_some_and(|k| !k.starts_with('$'));
        let shown = self.shown(entries.len());
        if !entries[..shown].iter().all(|(k, _)| plain(k)) {
            return tagged(out, "$dict", |out| {
                push_array(out, &entries[..shown], |out, (k, v)| {
                    out.push(b'[');
                    self.json(out, *k);
                    out.push(b',');
                    self.json(out, *v);
                    out.push(b']');
                });
                if shown < entries.len() {
                    out.extend_from_slice(b",\"$elided\":");
                    push_u64(out, (entries.len() - shown) as u64);
                }
            });
        }
        out.push(b'{');
        for (i, (k, v)) in entries[..shown].iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_json_str(out, self.values.str(*k).unwrap_or_default());
            out.push(b':');
            self.json(out, *v);
        }
        if shown < entries.len() {
            if shown > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"\"$elided\":");
            push_u64(out, (entries.len() - shown) as u64);
        }
        out.push(b'}');
    }
}

/// Adds `{"tag":…}`.
fn tagged(out: &mut Vec<u8>, tag: &str, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'{');
    push_json_str(out, tag);
    out.push(b':');
    content(out);
    out.push(b'}');
}

fn mapping(dict: &Dict) -> &'static str {
    match dict.kind {
        DictKind::Dict => "dict",
        DictKind::Ordered => "OrderedDict",
        DictKind::Counter => "Counter",
    }
}

/// An integer that 64 bits do not hold: in decimal up to 128 bits, beyond that in hexadecimal, shortened.
fn big_int(bytes: &[u8]) -> String {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    if bytes.len() <= 16 {
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        return i128::from_le_bytes(wide).to_string();
    }
    let mut out = format!("integer of {} bytes, the lowest 0x", bytes.len());
    for byte in bytes[..8].iter().rev() {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge::MemoryArchive;

    /// A list that holds itself and a thousand times a tuple of 100,000 numbers.
    fn hostile() -> MemoryArchive<'static> {
        let mut values = Values::new();
        let number = values.push(Value::Int(7)).unwrap();
        let wide = values.push(Value::Tuple(vec![number; 100_000])).unwrap();
        let root = values.push(Value::List(vec![])).unwrap();
        let mut deep = root;
        for _ in 0..10_000 {
            deep = values.push(Value::Tuple(vec![deep])).unwrap();
        }
        let mut items = vec![wide; 1000];
        items[0] = deep;
        *values.get_mut(root) = Value::List(items);
        values.set_root(root);
        MemoryArchive::new([]).unwrap().with_values(values)
    }

    #[test]
    fn depth_width_and_cycles_are_bounded() {
        let archive = hostile();
        let values = weighbridge::Archive::values(&archive).unwrap();
        let bounds = Bounds { depth: 16, entries: 24, total: 200, tensors: false };
        let mut text = String::new();
        Tree::new(&archive, values, bounds).push_text(&mut text);
        assert!(text.lines().count() < 300 && text.contains("… 991 more"), "{text}");
        let mut json = Vec::new();
        Tree::new(&archive, values, Bounds { total: 10_000, entries: 256, ..bounds }).push_json(&mut json);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json.as_array().unwrap().last().unwrap()["$elided"], 744);
    }
}
