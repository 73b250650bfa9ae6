//! Changes to the values around tensors: taking tensors out, finding a part, following new names.
//!
//! Everything here walks the arena with a stack of its own, once, in time linear in its size.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use crate::value::{Dict, DictKind, Value, ValueId, Values};

/// How deep a tensor may lie to be named by its place.
const MAX_DEPTH: usize = 256;

/// How a key stands in a dotted name: text as it is, integers in decimals.
pub(super) fn key_text(values: &Values, key: ValueId) -> Option<Cow<'_, str>> {
    match values.get(key) {
        Value::Str(text) => Some(Cow::Borrowed(text)),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// A copy under `root` in which tensors have the indices of `new_index`; those without one are taken out: their
/// dict entries and set items vanish, and wherever else they stood is `None`. Returns how often the latter is so.
pub(super) fn remap(values: &Values, root: Option<ValueId>, new_index: &[Option<u32>]) -> (Values, u64) {
    let mut out = values.clone();
    root.into_iter().for_each(|root| out.set_root(root));
    let mut gone = vec![false; out.len()];
    for id in values.ids() {
        if let Value::Tensor(old) = values.get(id) {
            let new = new_index.get(*old as usize).copied().flatten();
            gone[id.index()] = new.is_none();
            *out.get_mut(id) = new.map_or(Value::None, Value::Tensor);
        }
    }
    if !gone.contains(&true) {
        return (out, 0);
    }
    let reachable = root.map(|root| values.reachable(root)).unwrap_or_default();
    let stays = |id: &ValueId| !gone[id.index()];
    let mut blanks = 0;
    for id in values.ids() {
        let in_dicts = match out.get_mut(id) {
            Value::Dict(dict) => {
                dict.entries.retain(|(k, v)| stays(k) && stays(v));
                true
            }
            Value::Set(items) | Value::FrozenSet(items) => {
                items.retain(stays);
                true
            }
            _ => false,
        };
        if !in_dicts && reachable.get(id.index()) == Some(&true) {
            values.parts(id, |part| blanks += u64::from(!stays(&part)));
        }
    }
    (out, blanks)
}

/// The part at a dotted path: keys of dicts, indices of sequences, attributes of objects. Keys may hold dots
/// themselves: the longest that fits is tried first.
pub(super) fn find(values: &Values, path: &str) -> Option<ValueId> {
    let mut seen = HashSet::new();
    let mut stack = vec![(values.root()?, Some(path))];
    while let Some((id, rest)) = stack.pop() {
        let Some(rest) = rest else { return Some(id) };
        // A part with the same rest of the path leads to the same end, so cycles and shared parts end here.
        if !seen.insert((id, rest.len())) {
            continue;
        }
        match values.get(id) {
            Value::Dict(dict) => {
                stack.extend(dict.attributes.map(|a| (a, Some(rest))));
                push_entries(values, &dict.entries, rest, &mut stack);
            }
            Value::List(items) | Value::Tuple(items) => push_item(items, rest, &mut stack),
            Value::Object(object) => {
                // A state with slots is the pair of both kinds of attributes.
                let state = object.state.iter().flat_map(|state| match values.get(*state) {
                    Value::Tuple(parts) => parts.as_slice(),
                    _ => std::slice::from_ref(state),
                });
                stack.extend(state.map(|part| (*part, Some(rest))));
                push_item(&object.items, rest, &mut stack);
                push_entries(values, &object.entries, rest, &mut stack);
            }
            _ => {}
        }
    }
    None
}

/// Pushes the values of the keys that `rest` begins with, the longest last.
fn push_entries<'p>(
    values: &Values,
    entries: &[(ValueId, ValueId)],
    rest: &'p str,
    stack: &mut Vec<(ValueId, Option<&'p str>)>,
) {
    let first = stack.len();
    for &(key, value) in entries {
        if let Some(after) = key_text(values, key).and_then(|key| rest.strip_prefix(&*key)) {
            match after.strip_prefix('.') {
                Some(after) => stack.push((value, Some(after))),
                None if after.is_empty() => stack.push((value, None)),
                None => {}
            }
        }
    }
    stack[first..].sort_by_key(|(_, rest)| std::cmp::Reverse(rest.map(str::len)));
}

/// Pushes the item that `rest` begins with the index of.
fn push_item<'p>(items: &[ValueId], rest: &'p str, stack: &mut Vec<(ValueId, Option<&'p str>)>) {
    let (index, rest) = rest.split_once('.').map_or((rest, None), |(index, rest)| (index, Some(rest)));
    let canonical = index == "0" || !index.starts_with(['0', '+']);
    if let Some(item) = index.parse::<usize>().ok().filter(|_| canonical).and_then(|i| items.get(i)) {
        stack.push((*item, rest));
    }
}

/// An ordered dict of the tensors under their names, and nothing else.
pub(super) fn flat(infos: &[TensorInfo]) -> Result<Values> {
    let mut values = Values::new();
    let mut entries = Vec::with_capacity(infos.len());
    for (i, info) in infos.iter().enumerate() {
        let number = u32::try_from(i).map_err(|_| Error::limit("more than 4,294,967,295 tensors"))?;
        let key = values.push(Value::Str(info.name().into()))?;
        entries.push((key, values.push(Value::Tensor(number))?));
    }
    let dict = Dict { kind: DictKind::Ordered, entries, attributes: None };
    let root = values.push(Value::Dict(Box::new(dict)))?;
    values.set_root(root);
    Ok(values)
}

/// The names of tensors under `root`, relative to it, by the first way to reach each; of those that `wanted` says.
pub(super) fn relative_names(
    values: &Values,
    root: ValueId,
    wanted: impl Fn(u32) -> bool,
) -> Vec<(u32, String)> {
    let links = Links::new(values, root);
    let mut named = HashSet::new();
    let mut out = Vec::new();
    for id in values.ids() {
        match values.get(id) {
            Value::Tensor(i) if links.reached[id.index()] && wanted(*i) && named.insert(*i) => {
                out.extend(links.name(values, id).map(|name| (*i, name)));
            }
            _ => {}
        }
    }
    out
}

/// How each value was reached first from a root.
struct Links {
    reached: Vec<bool>,
    parents: Vec<Option<(ValueId, Link)>>,
}

/// What a container calls a part.
#[derive(Clone, Copy)]
enum Link {
    Key(ValueId),
    Index(usize),
    /// Nothing: an object's state, a dict's attributes.
    Transparent,
}

impl Links {
    fn new(values: &Values, root: ValueId) -> Self {
        let mut reached = vec![false; values.len()];
        let mut parents = vec![None; values.len()];
        reached[root.index()] = true;
        let mut queue = std::collections::VecDeque::from([root]);
        while let Some(id) = queue.pop_front() {
            let mut visit = |part: ValueId, link| {
                if !std::mem::replace(&mut reached[part.index()], true) {
                    parents[part.index()] = Some((id, link));
                    queue.push_back(part);
                }
            };
            match values.get(id) {
                Value::Dict(dict) => {
                    dict.entries.iter().for_each(|&(k, v)| visit(v, Link::Key(k)));
                    dict.attributes.into_iter().for_each(|a| visit(a, Link::Transparent));
                }
                Value::List(items) | Value::Tuple(items) => {
                    items.iter().enumerate().for_each(|(i, &item)| visit(item, Link::Index(i)));
                }
                _ => values.parts(id, |part| visit(part, Link::Transparent)),
            }
        }
        Self { reached, parents }
    }

    /// The text of a link, if it has one.
    fn text<'v>(values: &'v Values, link: Link) -> Option<Cow<'v, str>> {
        match link {
            Link::Key(key) => Some(key_text(values, key).unwrap_or(Cow::Borrowed("?"))),
            Link::Index(index) => Some(Cow::Owned(index.to_string())),
            Link::Transparent => None,
        }
    }

    /// The dotted name of a value; `None` if it lies deeper than any model does, so that a hostile tree with
    /// many tensors at its bottom costs no more than it is large.
    fn name(&self, values: &Values, mut id: ValueId) -> Option<String> {
        let mut parts = Vec::new();
        let mut depth = 0;
        while let Some((parent, link)) = self.parents[id.index()] {
            parts.extend(Self::text(values, link));
            id = parent;
            depth += 1;
            if depth > MAX_DEPTH {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join("."))
    }

    /// Whether the dotted name of a container is `name` (which for the root is empty). Compares from the end, so
    /// that it costs no more than the name is long, however deep the container lies.
    fn is_named(&self, values: &Values, mut id: ValueId, mut name: &str) -> bool {
        let mut first = true;
        let mut transparent = 0;
        while let Some((parent, link)) = self.parents[id.index()] {
            match Self::text(values, link) {
                Some(text) => {
                    if !std::mem::take(&mut first) {
                        let Some(rest) = name.strip_suffix('.') else { return false };
                        name = rest;
                    }
                    let Some(rest) = name.strip_suffix(&*text) else { return false };
                    name = rest;
                }
                None if transparent < MAX_DEPTH => transparent += 1,
                None => return false,
            }
            id = parent;
        }
        name.is_empty()
    }
}

/// What became of the values when tensors were renamed.
pub(super) struct Renamed {
    pub(super) values: Values,
    /// Tensors that moved to the root's dict.
    pub(super) moved: u64,
    /// Items of lists and tuples that are `None` now.
    pub(super) blanks: u64,
    /// Whether the tree became a flat dict of the tensors, and whether more than structure went with it.
    pub(super) flattened: Option<bool>,
}

/// Follows new names: `old` and `new` describe the same tensors in the same order.
///
/// A tensor's key in the dict that holds it changes if the name before that key stays; else its entry moves to
/// the root's dict, under the whole new name.
pub(super) fn rename(values: &Values, old: &[TensorInfo], new: &[TensorInfo]) -> Result<Renamed> {
    let mut done = Renamed { values: values.clone(), moved: 0, blanks: 0, flattened: None };
    let Some(root) = values.root() else { return Ok(done) };
    let links = Links::new(values, root);
    let places = Places::new(values, &links, old, new);
    let mut edits = Edits::default();
    for (i, (old, new)) in old.iter().zip(new).enumerate().filter(|(_, (o, n))| o.name() != n.name()) {
        let here = places.of(i);
        if here.is_empty() {
            continue;
        }
        let homes = homes(values, &links, here, old.name());
        let follows = |(container, entry): &(ValueId, usize)| {
            let key = values.dict(*container).and_then(|d| key_text(values, d.entries.get(*entry)?.0))?;
            let before = old.name().strip_suffix(&*key)?;
            new.name().strip_prefix(before).filter(|k| !k.is_empty()).map(str::to_owned)
        };
        let keys: Option<Vec<String>> = homes.iter().map(follows).collect();
        match keys {
            Some(keys) if !keys.is_empty() => {
                edits.keys.extend(homes.into_iter().zip(keys).map(|(home, key)| (home, key, i)));
            }
            _ => {
                let leave: Vec<Place> = if homes.is_empty() {
                    here.iter().map(|h| h.1).collect()
                } else {
                    homes.iter().map(|&(container, entry)| Place::Entry(container, entry)).collect()
                };
                edits.moves.push((here[0].2, i, leave));
            }
        }
    }
    if !edits.moves.is_empty() && values.dict(root).is_none() {
        done.flattened = Some(says_more_than_tensors(values, &links));
        done.values = flat(new)?;
        return Ok(done);
    }
    edits.apply(&mut done, root, new)?;
    Ok(done)
}

/// Where a reference to a tensor stands.
#[derive(Clone, Copy)]
enum Place {
    /// An entry of a dict.
    Entry(ValueId, usize),
    /// An item of a list or tuple.
    Item(ValueId, usize),
}

/// Every reference to a renamed tensor from a dict, list or tuple: tensor, place, and the tensor's value; by
/// tensor.
struct Places(Vec<(usize, Place, ValueId)>);

impl Places {
    fn new(values: &Values, links: &Links, old: &[TensorInfo], new: &[TensorInfo]) -> Self {
        let renamed = |id: ValueId| match values.get(id) {
            Value::Tensor(i) => {
                let i = *i as usize;
                let (old, new) = (old.get(i)?, new.get(i)?);
                (old.name() != new.name()).then_some(i)
            }
            _ => None,
        };
        let mut places = Vec::new();
        for (id, value) in values.iter().filter(|(id, _)| links.reached[id.index()]) {
            match value {
                Value::Dict(dict) => places.extend(
                    dict.entries
                        .iter()
                        .enumerate()
                        .filter_map(|(entry, &(_, v))| Some((renamed(v)?, Place::Entry(id, entry), v))),
                ),
                Value::List(items) | Value::Tuple(items) => places.extend(
                    items
                        .iter()
                        .enumerate()
                        .filter_map(|(item, &v)| Some((renamed(v)?, Place::Item(id, item), v))),
                ),
                _ => {}
            }
        }
        places.sort_by_key(|(tensor, ..)| *tensor);
        Self(places)
    }

    fn of(&self, tensor: usize) -> &[(usize, Place, ValueId)] {
        let first = self.0.partition_point(|p| p.0 < tensor);
        let end = first + self.0[first..].partition_point(|p| p.0 == tensor);
        &self.0[first..end]
    }
}

/// The dict entries that give a tensor its name: those on the way that the name says, or, if none is, those whose
/// key the name ends with.
fn homes(
    values: &Values,
    links: &Links,
    places: &[(usize, Place, ValueId)],
    name: &str,
) -> Vec<(ValueId, usize)> {
    let mut exact = Vec::new();
    let mut near = Vec::new();
    for (_, place, _) in places {
        let Place::Entry(container, entry) = *place else { continue };
        let key = values.dict(container).and_then(|d| d.entries.get(entry)).map(|e| e.0);
        let Some(key) = key.and_then(|key| key_text(values, key)) else { continue };
        let Some(before) = name.strip_suffix(&*key) else { continue };
        let container_name = before.strip_suffix('.');
        if container_name.is_none() && !before.is_empty() {
            continue;
        }
        let at_root = before.is_empty() && links.parents[container.index()].is_none();
        if at_root || container_name.is_some_and(|n| links.is_named(values, container, n)) {
            exact.push((container, entry));
        } else {
            near.push((container, entry));
        }
    }
    if exact.is_empty() { near } else { exact }
}

/// Whether there is anything but tensors and what holds them.
fn says_more_than_tensors(values: &Values, links: &Links) -> bool {
    values.iter().filter(|(id, _)| links.reached[id.index()]).any(|(_, value)| {
        !matches!(value, Value::Tensor(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_))
    })
}

/// Changes to a tree, which are decided before any is made.
#[derive(Default)]
struct Edits {
    /// A dict's entry, its new key, and the tensor.
    keys: Vec<((ValueId, usize), String, usize)>,
    /// A tensor's value, its index, and the places that it leaves for the root.
    moves: Vec<(ValueId, usize, Vec<Place>)>,
}

impl Edits {
    fn apply(self, done: &mut Renamed, root: ValueId, new: &[TensorInfo]) -> Result<()> {
        let values = &mut done.values;
        let mut touched = HashSet::new();
        for ((container, entry), key, _) in self.keys {
            let was_int = values
                .dict(container)
                .and_then(|d| d.entries.get(entry))
                .is_some_and(|e| matches!(values.get(e.0), Value::Int(_)));
            let number = key.parse::<i64>().ok().filter(|n| was_int && n.to_string() == key);
            // A new value: the old key may be a part of other dicts too.
            let key = values.push(number.map_or_else(|| Value::Str(key.into()), Value::Int))?;
            if let Value::Dict(dict) = values.get_mut(container)
                && let Some(entry) = dict.entries.get_mut(entry)
            {
                entry.0 = key;
                touched.insert(container);
            }
        }
        let mut leaving: HashMap<ValueId, HashSet<usize>> = HashMap::new();
        let mut blank = None;
        for (_, _, places) in &self.moves {
            for place in places {
                match *place {
                    Place::Entry(container, entry) => {
                        leaving.entry(container).or_default().insert(entry);
                    }
                    Place::Item(container, item) => {
                        let none = match blank {
                            Some(none) => none,
                            None => *blank.insert(values.push(Value::None)?),
                        };
                        if let Value::List(items) | Value::Tuple(items) = values.get_mut(container)
                            && let Some(item) = items.get_mut(item)
                        {
                            *item = none;
                            done.blanks += 1;
                        }
                    }
                }
            }
        }
        for (container, entries) in leaving {
            if let Value::Dict(dict) = values.get_mut(container) {
                let mut number = 0..;
                dict.entries.retain(|_| number.next().is_none_or(|n| !entries.contains(&n)));
            }
        }
        for (value, tensor, _) in &self.moves {
            let key = values.push(Value::Str(new[*tensor].name().into()))?;
            if let Value::Dict(dict) = values.get_mut(root) {
                dict.entries.push((key, *value));
            }
            touched.insert(root);
            done.moved += 1;
        }
        for container in touched {
            let mut keys = HashSet::new();
            for (key, _) in values.dict(container).map_or(&[][..], |d| &d.entries) {
                if let Some(text) = key_text(values, *key)
                    && let Some(twice) = keys.replace(text)
                {
                    let what =
                        format!("a tensor's new name ends in {twice:?}, a key that its dict has already");
                    return Err(Error::invalid_options(what));
                }
            }
        }
        Ok(())
    }
}
