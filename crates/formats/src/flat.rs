//! What a flat list of named tensors cannot say: values around them, and who shares whose bytes.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::archive::Archive;
use crate::tensor::TensorInfo;
use crate::value::{DictKind, Value, ValueId, Values};

/// How many names a note lists.
const NAMED: usize = 5;

/// The first few of many names.
pub(crate) fn listed(names: impl IntoIterator<Item = String>) -> String {
    let mut names = names.into_iter();
    let mut out: Vec<String> = names.by_ref().take(NAMED).collect();
    if names.next().is_some() {
        out.push("…".into());
    }
    out.join(", ")
}

/// How many values are no tensors, in words.
pub(crate) fn others(count: usize) -> String {
    match count {
        1 => "1 value that is no tensor".into(),
        n => format!("{n} values that are no tensors"),
    }
}

/// Whether values are nothing but a dict of all tensors by their names, which the tensors say themselves.
pub(crate) fn is_plain(values: &Values, tensors: &[TensorInfo]) -> bool {
    let Some(root) = values.root() else { return true };
    let Some(dict) = values.dict(root) else { return false };
    let by_its_name = |&(key, value): &(ValueId, ValueId)| match values.get(value) {
        Value::Tensor(i) => {
            values.str(key).is_some_and(|key| tensors.get(*i as usize).is_some_and(|t| t.name() == key))
        }
        _ => false,
    };
    dict.kind != DictKind::Counter
        && dict.attributes.is_none()
        && dict.entries.len() == tensors.len()
        && dict.entries.iter().all(by_its_name)
}

/// The values that are left when only tensors remain: how many, and the dotted paths of the first few.
pub(crate) struct LeftOut {
    pub(crate) count: usize,
    pub(crate) paths: Vec<String>,
}

/// Walks the values. An object counts once, whatever it holds; an empty container counts, a full one does not.
pub(crate) fn left_out(values: &Values) -> LeftOut {
    let mut out = LeftOut { count: 0, paths: Vec::new() };
    let Some(root) = values.root() else { return out };
    // Each step knows the one it came from, so that a path is only spelled out where it is shown.
    enum Label {
        Key(ValueId),
        Index(usize),
        Attributes,
    }
    let mut steps: Vec<(usize, Label)> = vec![(0, Label::Attributes)];
    let mut seen = vec![false; values.len()];
    let mut stack = vec![(root, 0)];
    while let Some((id, step)) = stack.pop() {
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        let before = stack.len();
        let mut push = |part, label| {
            steps.push((step, label));
            stack.push((part, steps.len() - 1));
        };
        match values.get(id) {
            Value::Tensor(_) => continue,
            Value::List(ids) | Value::Tuple(ids) | Value::Set(ids) | Value::FrozenSet(ids) => {
                ids.iter().enumerate().for_each(|(i, &part)| push(part, Label::Index(i)));
            }
            Value::Dict(dict) => {
                dict.entries.iter().for_each(|&(k, v)| push(v, Label::Key(k)));
                dict.attributes.into_iter().for_each(|a| push(a, Label::Attributes));
            }
            _ => {}
        }
        // In the order of the file, not of the stack.
        stack[before..].reverse();
        if stack.len() > before {
            continue;
        }
        out.count += 1;
        if out.paths.len() < NAMED {
            let mut labels = Vec::new();
            let mut at = step;
            while at != 0 && labels.len() < 64 {
                let label = match steps[at].1 {
                    Label::Key(key) => match values.get(key) {
                        Value::Str(s) => s.chars().take(80).collect(),
                        Value::Int(i) => i.to_string(),
                        _ => "?".into(),
                    },
                    Label::Index(i) => i.to_string(),
                    Label::Attributes => "(attributes)".into(),
                };
                labels.push(label);
                at = steps[at].0;
            }
            labels.reverse();
            out.paths.push(if labels.is_empty() { "the root".into() } else { labels.join(".") });
        }
    }
    out
}

/// A line on tensors that share storage, which a format without sharing stores in full each; `None` if none do.
pub(crate) fn stored_twice(archive: &dyn Archive) -> Option<String> {
    let tensors = archive.tensors();
    let mut groups: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut order = Vec::new();
    for (i, view) in tensors.iter().enumerate().filter_map(|(i, t)| Some((i, t.view()?))) {
        let group = groups.entry(view.storage).or_insert_with(|| {
            order.push(view.storage);
            Vec::new()
        });
        group.push(i);
    }
    let shared = order.iter().filter_map(|s| groups.get(s)).filter(|g| g.len() > 1);
    let (mut count, mut bytes, mut text) = (0usize, 0u64, String::new());
    for group in shared {
        count += 1;
        let full: u64 = group.iter().fold(0, |n, &i| n.saturating_add(tensors[i].bytes()));
        bytes = bytes.saturating_add(full.saturating_sub(covered(tensors, group)));
        if count <= 3 {
            let names = listed(group.iter().map(|&i| tensors[i].name().to_owned()));
            let _ = write!(text, "{}{names}", if count > 1 { "; " } else { "" });
        }
    }
    if count > 3 {
        text.push_str("; …");
    }
    (count > 0).then(|| {
        format!(
            "{count} {}, and each tensor is written in full, {bytes} bytes twice: {text}",
            if count == 1 { "storage is shared" } else { "storages are shared" }
        )
    })
}

/// The bytes of a storage that a group of tensors covers together; more where strides leave bytes out.
fn covered(tensors: &[TensorInfo], group: &[usize]) -> u64 {
    let mut spans: Vec<(u64, u64)> = group
        .iter()
        .filter_map(|&i| {
            let (info, view) = (&tensors[i], tensors[i].view()?);
            let last = |strides: &[u64]| {
                let steps = info.shape().iter().zip(strides);
                steps.fold(0u64, |n, (&d, &s)| n.saturating_add(d.saturating_sub(1).saturating_mul(s)))
            };
            let elements = match &view.strides {
                _ if info.elements() == 0 => 0,
                Some(strides) => last(strides).saturating_add(1),
                None => info.elements(),
            };
            let at = |n: u64| n.saturating_mul(info.dtype().bits()) / 8;
            Some((at(view.offset), at(view.offset.saturating_add(elements))))
        })
        .collect();
    spans.sort_unstable();
    let (mut bytes, mut done) = (0u64, 0);
    for (begin, end) in spans {
        let begin = begin.max(done);
        bytes = bytes.saturating_add(end.saturating_sub(begin));
        done = done.max(end);
    }
    bytes
}

/// A line on flags that only training reads; `None` if none is set.
pub(crate) fn flags_left_out(tensors: &[TensorInfo]) -> Option<String> {
    let gradient = tensors.iter().filter(|t| t.requires_grad()).count();
    let parameter = tensors.iter().filter(|t| t.is_parameter()).count();
    (gradient + parameter > 0).then(|| {
        format!(
            "requires_grad (set on {gradient} tensors) and being a parameter ({parameter}) are not written; \
             loading into a module sets them again"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::tensor::View;
    use crate::value::Dict;

    fn dict(values: &mut Values, entries: &[(&str, ValueId)], attributes: Option<ValueId>) -> ValueId {
        let entries = entries.iter().map(|&(k, v)| (values.push(Value::Str(k.into())).unwrap(), v)).collect();
        values.push(Value::Dict(Box::new(Dict { kind: DictKind::Ordered, entries, attributes }))).unwrap()
    }

    fn tensors() -> Vec<TensorInfo> {
        ["a", "b"].iter().map(|n| TensorInfo::new(*n, DType::F32, &[4][..]).unwrap()).collect()
    }

    #[test]
    fn a_flat_state_dict_is_plain_and_nothing_else() {
        let mut values = Values::new();
        let (a, b) = (values.push(Value::Tensor(0)).unwrap(), values.push(Value::Tensor(1)).unwrap());
        let one = values.push(Value::Int(1)).unwrap();
        let cases = [
            (dict(&mut values, &[("a", a), ("b", b)], None), true),
            (dict(&mut values, &[("b", b), ("a", a)], None), true),
            (dict(&mut values, &[("a", b), ("b", a)], None), false),
            (dict(&mut values, &[("a", a)], None), false),
            (dict(&mut values, &[("a", a), ("b", one)], None), false),
            (dict(&mut values, &[("a", a), ("b", b)], Some(one)), false),
            (a, false),
        ];
        for (root, plain) in cases {
            values.set_root(root);
            assert_eq!(is_plain(&values, &tensors()), plain);
        }
        assert!(is_plain(&Values::new(), &tensors()));
    }

    #[test]
    fn what_is_left_out_is_counted_and_named() {
        let mut values = Values::new();
        let a = values.push(Value::Tensor(0)).unwrap();
        let one = values.push(Value::Int(1)).unwrap();
        let two = values.push(Value::Int(2)).unwrap();
        let list = values.push(Value::List(vec![a, two])).unwrap();
        let inner = dict(&mut values, &[("lr", one), ("t", a)], None);
        let root = dict(&mut values, &[("epoch", one), ("state", list), ("opt", inner)], Some(inner));
        values.set_root(root);
        let left = left_out(&values);
        // `lr` is the same value as `epoch`, and counts once.
        assert_eq!((left.count, left.paths), (2, vec!["epoch".to_owned(), "state.1".into()]));
    }

    #[test]
    fn bytes_stored_twice_are_those_that_overlap() {
        let at = |offset, strides| View { storage: 0, offset, strides };
        let [a, b] = <[TensorInfo; 2]>::try_from(tensors()).unwrap();
        let line = |views: [View; 2]| {
            let [va, vb] = views;
            let infos = [a.clone().with_view(va), b.clone().with_view(vb)];
            let data = [0u8; 16];
            let tensors = infos.map(|info| crate::Tensor { info, data: crate::Data::Borrowed(&data) });
            let archive = crate::MemoryArchive::new(tensors).unwrap();
            stored_twice(&archive).unwrap()
        };
        assert!(line([at(0, None), at(0, None)]).contains(" 16 bytes twice: a, b"));
        assert!(line([at(0, None), at(4, None)]).contains(" 0 bytes twice"));
        assert!(line([at(0, None), at(2, None)]).contains(" 8 bytes twice"));
        // Four elements two apart span seven; with stride 0 they are one.
        assert!(line([at(0, Some([2].into_iter().collect())), at(3, None)]).contains(" 4 bytes twice"));
        assert!(line([at(0, Some([0].into_iter().collect())), at(1, None)]).contains(" 12 bytes twice"));
    }
}
