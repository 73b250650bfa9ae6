//! Comparing what is no tensor: text metadata and the graphs of values.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::archive::Archive;
use crate::value::{Value, ValueId, Values};

/// What differs beside the tensors.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherDiff {
    /// Metadata whose text differs: the key, and the text on each side, `None` where the key is not there.
    pub metadata: Vec<(String, [Option<String>; 2])>,
    /// Places in the values, such as `optimizer.param_groups[0].lr`, each with what stands there on each side. At
    /// most 1000.
    pub values: Vec<(String, [String; 2])>,
    /// Whether there are more places than `values` holds.
    pub more_values: bool,
}

impl OtherDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.values.is_empty()
    }
}

/// The most places that are reported.
const PLACES: usize = 1000;
/// The most pairs of values that are compared: shared parts on both sides could pair up quadratically.
const STEPS: usize = 20_000_000;

pub(super) fn compare(a: &dyn Archive, b: &dyn Archive) -> OtherDiff {
    let mut diff = OtherDiff::default();
    let map =
        |archive: &dyn Archive| -> BTreeMap<String, String> { archive.metadata().iter().cloned().collect() };
    let (ma, mb) = (map(a), map(b));
    for key in ma.keys().chain(mb.keys()).collect::<BTreeSet<_>>() {
        let texts = [ma.get(key), mb.get(key)];
        if texts[0] != texts[1] {
            diff.metadata.push((key.clone(), texts.map(Option::<&String>::cloned)));
        }
    }
    companions(a, b, &mut diff);
    match (beyond_tensors(a), beyond_tensors(b)) {
        (None, None) => {}
        (Some((values, root)), None) => {
            diff.values.push((String::new(), [describe(a, values, root), "only tensors".into()]));
        }
        (None, Some((values, root))) => {
            diff.values.push((String::new(), ["only tensors".into(), describe(b, values, root)]));
        }
        (Some(va), Some(vb)) => Walk { archives: [a, b], values: [va.0, vb.0] }.run([va.1, vb.1], &mut diff),
    }
    diff
}

/// Compares what two files of one format have beside tensors: by the facts about them that differ. Where the formats
/// are not the same, only one of them has a place for it.
fn companions(a: &dyn Archive, b: &dyn Archive, diff: &mut OtherDiff) {
    let (Some(x), Some(y)) = (a.companion(), b.companion()) else { return };
    if x.format() != y.format() || x.same_as(y) {
        return;
    }
    let before = diff.values.len();
    let (x_details, y_details) = (x.details(), y.details());
    let of = |details: &[(String, String)], name: &str| -> Vec<String> {
        details.iter().filter(|(n, _)| n == name).map(|(_, text)| text.clone()).collect()
    };
    let mut seen = BTreeSet::new();
    for (name, _) in x_details.iter().chain(&y_details).filter(|(name, _)| seen.insert(name)) {
        let texts = [of(&x_details, name), of(&y_details, name)];
        if texts[0] != texts[1] {
            diff.values.push((name.clone(), texts.map(|t| t.join("; "))));
        }
    }
    if diff.values.len() == before {
        // Nothing that the facts show: an attribute, a name in between.
        diff.values.push((String::new(), [x.summary(), format!("{} that is another", y.summary())]));
    }
}

/// The values of an archive and their root, unless they are a mapping from names to tensors and so say nothing
/// that the tensors do not.
fn beyond_tensors(archive: &dyn Archive) -> Option<(&Values, ValueId)> {
    let values = archive.values()?;
    let root = values.root()?;
    let plain = values.dict(root).is_some_and(|d| {
        d.attributes.is_none()
            && d.entries.iter().all(|(k, v)| match values.get(*v) {
                Value::Tensor(t) => values.str(*k) == archive.tensors().get(*t as usize).map(|t| t.name()),
                _ => false,
            })
    });
    (!plain).then_some((values, root))
}

struct Walk<'a> {
    archives: [&'a dyn Archive; 2],
    values: [&'a Values; 2],
}

impl Walk<'_> {
    /// Walks both graphs in step. A pair that was met before is not entered again, so cycles end.
    fn run(&self, roots: [ValueId; 2], diff: &mut OtherDiff) {
        let mut seen = HashSet::new();
        // The path of each pair is a link to its parent's, so that a deep graph costs no deep texts.
        let mut paths: Vec<(usize, String)> = vec![(0, String::new())];
        let mut stack = vec![(roots, 0)];
        let mut steps = 0;
        while let Some((pair, path)) = stack.pop() {
            steps += 1;
            if diff.values.len() >= PLACES || steps > STEPS {
                diff.more_values = true;
                break;
            }
            if !seen.insert(pair) {
                continue;
            }
            match self.parts(pair) {
                Some(parts) => {
                    for (label, sides) in parts.into_iter().rev() {
                        match sides {
                            [Some(a), Some(b)] => {
                                paths.push((path, label));
                                stack.push(([a, b], paths.len() - 1));
                            }
                            [a, b] => {
                                let side = |i: usize, id: Option<ValueId>| {
                                    id.map_or("absent".into(), |v| self.describe(i, v))
                                };
                                diff.values.push((full_path(&paths, path, &label), [side(0, a), side(1, b)]));
                            }
                        }
                    }
                }
                None if self.equal_leaves(pair) => {}
                None => {
                    let sides = [self.describe(0, pair[0]), self.describe(1, pair[1])];
                    diff.values.push((full_path(&paths, path, ""), sides));
                }
            }
        }
        diff.values.sort();
    }

    fn describe(&self, side: usize, id: ValueId) -> String {
        describe(self.archives[side], self.values[side], id)
    }

    /// The parts of two containers of the same kind, matched; `None` if they are no such containers.
    #[allow(clippy::type_complexity)]
    fn parts(&self, pair: [ValueId; 2]) -> Option<Vec<(String, [Option<ValueId>; 2])>> {
        let [a, b] = [self.values[0].get(pair[0]), self.values[1].get(pair[1])];
        let mut parts = Vec::new();
        match (a, b) {
            (Value::List(a), Value::List(b))
            | (Value::Tuple(a), Value::Tuple(b))
            | (Value::Set(a), Value::Set(b))
            | (Value::FrozenSet(a), Value::FrozenSet(b)) => self.items(a, b, &mut parts),
            (Value::Dict(a), Value::Dict(b)) => {
                self.entries(&a.entries, &b.entries, &mut parts);
                if a.attributes.is_some() || b.attributes.is_some() {
                    parts.push((".(attributes)".into(), [a.attributes, b.attributes]));
                }
            }
            (Value::Persistent(a), Value::Persistent(b)) => parts.push((".id".into(), [Some(*a), Some(*b)])),
            (Value::Object(a), Value::Object(b)) => {
                parts.push((".(class)".into(), [Some(a.class), Some(b.class)]));
                parts.push((".(args)".into(), [Some(a.args), Some(b.args)]));
                parts.push((".(kwargs)".into(), [a.kwargs, b.kwargs]));
                parts.push((".(state)".into(), [a.state, b.state]));
                parts.retain(|(_, sides)| sides.iter().any(Option::is_some));
                self.items(&a.items, &b.items, &mut parts);
                self.entries(&a.entries, &b.entries, &mut parts);
            }
            _ => return None,
        }
        Some(parts)
    }

    fn items(&self, a: &[ValueId], b: &[ValueId], parts: &mut Vec<(String, [Option<ValueId>; 2])>) {
        for i in 0..a.len().max(b.len()) {
            parts.push((format!("[{i}]"), [a.get(i).copied(), b.get(i).copied()]));
        }
    }

    fn entries(
        &self,
        a: &[(ValueId, ValueId)],
        b: &[(ValueId, ValueId)],
        parts: &mut Vec<(String, [Option<ValueId>; 2])>,
    ) {
        let mut right: HashMap<String, ValueId> = b.iter().map(|(k, v)| (self.label(1, *k), *v)).collect();
        for (key, value) in a {
            let label = self.label(0, *key);
            let other = right.remove(&label);
            parts.push((label, [Some(*value), other]));
        }
        let mut rest: Vec<_> = right.into_iter().collect();
        rest.sort();
        parts.extend(rest.into_iter().map(|(label, value)| (label, [None, Some(value)])));
    }

    /// A key as a step of a path: `.name`, or `[3]` for what is no text.
    fn label(&self, side: usize, key: ValueId) -> String {
        match self.values[side].get(key) {
            Value::Str(s) => format!(".{s}"),
            _ => format!("[{}]", self.describe(side, key)),
        }
    }

    fn equal_leaves(&self, pair: [ValueId; 2]) -> bool {
        match (self.values[0].get(pair[0]), self.values[1].get(pair[1])) {
            (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Value::Tensor(a), Value::Tensor(b)) => {
                let name = |side: usize, index: u32| {
                    self.archives[side].tensors().get(index as usize).map(|t| t.name())
                };
                name(0, *a) == name(1, *b)
            }
            (a, b) => a == b,
        }
    }
}

/// The longest path that is reported, in bytes.
const PATH: usize = 1000;

fn full_path(paths: &[(usize, String)], mut at: usize, last: &str) -> String {
    let mut steps = vec![last];
    let mut len = last.len();
    while at != 0 && len < PATH {
        let (parent, label) = &paths[at];
        steps.push(label);
        len += label.len();
        at = *parent;
    }
    if at != 0 {
        steps.push("…");
    }
    steps.reverse();
    let path = steps.concat();
    path.strip_prefix('.').map(str::to_owned).unwrap_or(path)
}

/// A value in a few words; equal small values have equal words, and so can be keys.
fn describe(archive: &dyn Archive, values: &Values, id: ValueId) -> String {
    let many = |what: &str, n: usize| format!("{what} of {n}");
    match values.get(id) {
        Value::None => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Int(i) => i.to_string(),
        Value::BigInt(b) => format!("integer {b:02x?}"),
        Value::Float(f) => format!("{f:?}"),
        Value::Complex(re, im) => format!("({re:?}{im:+?}j)"),
        Value::Str(s) => match s.char_indices().nth(200) {
            Some((end, _)) => format!("{:?}…", &s[..end]),
            None => format!("{s:?}"),
        },
        Value::Bytes(b) => many("bytes", b.len()),
        Value::ByteArray(b) => many("bytearray", b.len()),
        // A tuple of small things, as keys are, is told in full.
        Value::Tuple(p) if p.len() <= 4 && p.iter().all(|v| is_small(values.get(*v))) => {
            let items: Vec<_> = p.iter().map(|v| describe(archive, values, *v)).collect();
            format!("({})", items.join(", "))
        }
        Value::List(p) => many("list", p.len()),
        Value::Tuple(p) => many("tuple", p.len()),
        Value::Set(p) => many("set", p.len()),
        Value::FrozenSet(p) => many("frozenset", p.len()),
        Value::Dict(d) => many("dict", d.entries.len()),
        Value::Tensor(t) => match archive.tensors().get(*t as usize) {
            Some(t) => format!("tensor {:?}", t.name()),
            None => "tensor".into(),
        },
        Value::Global(g) => g.to_string(),
        Value::Persistent(_) => "persistent id".into(),
        Value::Object(o) => match values.global(o.class) {
            Some(class) => format!("{class} object"),
            None => "object".into(),
        },
    }
}

fn is_small(value: &Value) -> bool {
    matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::MemoryArchive;
    use crate::value::Dict;

    fn archive(build: impl FnOnce(&mut Values) -> ValueId) -> MemoryArchive<'static> {
        let mut values = Values::new();
        let root = build(&mut values);
        values.set_root(root);
        MemoryArchive::new([]).unwrap().with_values(values)
    }

    fn dict(values: &mut Values, entries: &[(&str, ValueId)]) -> ValueId {
        let entries =
            entries.iter().map(|(k, v)| (values.push(Value::Str((*k).into())).unwrap(), *v)).collect();
        values.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() }))).unwrap()
    }

    #[test]
    fn places_are_named() {
        let build = |lr: f64, extra: bool| {
            archive(|v| {
                let lr = v.push(Value::Float(lr)).unwrap();
                let group = dict(v, &[("lr", lr)]);
                let groups = v.push(Value::List(vec![group])).unwrap();
                let mut entries = vec![("groups", groups)];
                if extra {
                    entries.push(("epoch", v.push(Value::Int(3)).unwrap()));
                }
                dict(v, &entries)
            })
        };
        assert!(compare(&build(f64::NAN, false), &build(f64::NAN, false)).is_empty());
        let found = compare(&build(0.1, false), &build(0.2, true)).values;
        let expected = [("epoch", ["absent", "3"]), ("groups[0].lr", ["0.1", "0.2"])];
        assert_eq!(found, expected.map(|(p, sides)| (p.to_owned(), sides.map(str::to_owned))));
    }

    #[test]
    fn cycles_and_depth_end() {
        let build = |leaf: i64| {
            archive(|v| {
                let list = v.push(Value::List(vec![])).unwrap();
                let leaf = v.push(Value::Int(leaf)).unwrap();
                let mut inner = v.push(Value::Tuple(vec![list, leaf])).unwrap();
                for _ in 0..100_000 {
                    inner = v.push(Value::Tuple(vec![inner])).unwrap();
                }
                *v.get_mut(list) = Value::List(vec![inner]);
                list
            })
        };
        assert!(compare(&build(1), &build(1)).is_empty());
        let found = compare(&build(1), &build(2)).values;
        assert_eq!(found.len(), 1);
        assert!(found[0].0.len() < 2 * PATH && found[0].0.ends_with("[1]"));
    }
}
