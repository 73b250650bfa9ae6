//! Tests of selecting.

use super::*;
use crate::transform::testing::Tree::{Int, List, None as Nil, Tensor};
use crate::transform::testing::{Tree, archive, contents, dict, names};
use crate::value::{Construct, Dict, Global, Object, Values};
use crate::{ErrorKind, NoteKind};

/// A checkpoint: the model's tensors, the optimizer's, and numbers.
fn checkpoint() -> Box<dyn Archive> {
    let tree = dict([
        ("epoch", Int(3)),
        ("model", dict([("a.w", Tensor(0)), ("a.b", Tensor(1)), ("scale", Int(7))])),
        ("optimizer", dict([("state", dict([(0, dict([("exp_avg", Tensor(2))]))]))])),
        ("ema", List(vec![Tensor(3), Tensor(4)])),
    ]);
    let names = ["model.a.w", "model.a.b", "optimizer.state.0.exp_avg", "ema.0", "ema.1"];
    archive(&names, tree.values())
}

#[test]
fn a_part_takes_the_tree_below_it() {
    let part = Select::new(checkpoint(), "model").unwrap();
    assert_eq!(names(&part), ["a.w", "a.b"]);
    assert_eq!(Tree::of(&part), dict([("a.w", Tensor(0)), ("a.b", Tensor(1)), ("scale", Int(7))]));

    let part = Select::new(checkpoint(), "optimizer.state").unwrap();
    assert_eq!(contents(&part), [("0.exp_avg".to_owned(), vec![2])]);
    assert_eq!(Tree::of(&part), dict([(0, dict([("exp_avg", Tensor(0))]))]));

    let part = Select::new(checkpoint(), "ema").unwrap();
    assert_eq!(Tree::of(&part), List(vec![Tensor(0), Tensor(1)]));
    assert!(part.notes().iter().all(|n| n.kind == NoteKind::Changed));
}

#[test]
fn a_part_without_a_node_is_a_flat_dict() {
    // "model.a" is a beginning of names, and no value.
    let part = Select::new(checkpoint(), "model.a").unwrap();
    assert_eq!(Tree::of(&part), dict([("w", Tensor(0)), ("b", Tensor(1))]));
    let one = Select::new(checkpoint(), "ema.1").unwrap();
    assert_eq!(contents(&one), [("1".to_owned(), vec![4])]);
    assert_eq!(Tree::of(&one), dict([("1", Tensor(0))]));
    let plain = Select::new(checkpoint(), "epoch").unwrap();
    assert!(plain.tensors().is_empty());
    assert_eq!(Tree::of(&plain), Int(3));
}

#[test]
fn patterns_keep_names_and_the_values_around() {
    let part = Select::new(checkpoint(), "*.?").unwrap();
    assert_eq!(names(&part), ["model.a.w", "model.a.b", "ema.0", "ema.1"]);
    let part = Select::new(checkpoint(), "ema.1*").unwrap();
    let expected = dict([
        ("epoch", Int(3)),
        ("model", dict([("scale", Int(7))])),
        ("optimizer", dict([("state", dict([(0, dict::<&str>([]))]))])),
        ("ema", List(vec![Nil, Tensor(0)])),
    ]);
    assert_eq!(Tree::of(&part), expected);
    assert!(part.notes().iter().any(|n| n.text.starts_with("1 items")));

    let rest = Drop::new(checkpoint(), "optimizer.*").unwrap();
    assert_eq!(contents(&rest).iter().map(|c| c.1[0]).collect::<Vec<_>>(), [0, 1, 3, 4]);
    assert!(rest.notes().iter().any(|n| n.text.starts_with("1 tensors are left out")));
    // A dot is a dot, and no pattern of its own.
    assert!(Select::new(checkpoint(), "model?a?w.*").is_err());
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    for path in ["mode", "model.a.", "ema.2", "ema.01", "nothing*", "model.a.w.x", ""] {
        let error = Select::new(checkpoint(), path).err().unwrap_or_else(|| panic!("{path:?} is there"));
        assert_eq!(error.kind(), ErrorKind::NotFound, "{path}");
        assert!(error.hint().unwrap().contains("at the top: ema, epoch, model, optimizer"), "{error:?}");
    }
    assert_eq!(Drop::new(checkpoint(), "x*").err().unwrap().kind(), ErrorKind::NotFound);
    let near = Select::new(checkpoint(), "state.exp_avg").err().unwrap();
    assert!(near.hint().unwrap().starts_with("near it: optimizer.state.0.exp_avg;"));
}

#[test]
fn keys_with_dots_are_tried_longest_first() {
    let tree = dict([
        ("a", dict([("b", dict([("x", Tensor(0))])), ("b.c", dict([("y", Tensor(1))]))])),
        ("a.b", dict([("c", dict([("z", Tensor(2))]))])),
    ]);
    let at = |path| Tree::of(&Select::new(archive(&["p", "q", "r"], tree.values()), path).unwrap());
    assert_eq!(at("a.b"), dict([("c", dict([("z", Tensor(0))]))]));
    assert_eq!(at("a.b.c"), dict([("z", Tensor(0))]));
    assert_eq!(at("a.b.c.y"), dict([("y", Tensor(0))]));
    assert_eq!(at("a.b.x"), dict([("x", Tensor(0))]));
}

#[test]
fn a_tensor_with_its_name_from_elsewhere_is_taken_too() {
    // One tensor object under two keys, named by the first.
    let mut values = Values::new();
    let tensor = values.push(Value::Tensor(0)).unwrap();
    let entry = |values: &mut Values, key: &str, value| {
        let entries = vec![(values.push(Value::Str(key.into())).unwrap(), value)];
        values.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() }))).unwrap()
    };
    let ema = entry(&mut values, "w", tensor);
    let model = entry(&mut values, "layer.w", tensor);
    let keys = ["ema", "model"].map(|k| values.push(Value::Str(k.into())).unwrap());
    let entries = vec![(keys[0], ema), (keys[1], model)];
    let root = values.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() }))).unwrap();
    values.set_root(root);
    let part = Select::new(archive(&["ema.w"], values), "model").unwrap();
    assert_eq!(names(&part), ["layer.w"]);
    assert_eq!(Tree::of(&part), dict([("layer.w", Tensor(0))]));
}

#[test]
fn an_object_becomes_a_dict_of_its_tensors() {
    // A whole module: its tensors are named by the module's structure, not by keys.
    let mut values = Values::new();
    let tensor = values.push(Value::Tensor(0)).unwrap();
    let parameters = values.push(Value::Str("_parameters".into())).unwrap();
    let weight = values.push(Value::Str("weight".into())).unwrap();
    let dict_of = |entries| Value::Dict(Box::new(Dict { entries, ..Dict::default() }));
    let inner = values.push(dict_of(vec![(weight, tensor)])).unwrap();
    let state = values.push(dict_of(vec![(parameters, inner)])).unwrap();
    let class = values.push(Value::Global(Box::new(Global::new("m", "Net")))).unwrap();
    let args = values.push(Value::Tuple(vec![])).unwrap();
    let object = Object {
        construct: Construct::New,
        class,
        args,
        kwargs: None,
        state: Some(state),
        items: vec![],
        entries: vec![],
    };
    let object = values.push(Value::Object(Box::new(object))).unwrap();
    let key = values.push(Value::Str("net".into())).unwrap();
    let root = values.push(dict_of(vec![(key, object)])).unwrap();
    values.set_root(root);
    let part = Select::new(archive(&["net.weight"], values.clone()), "net").unwrap();
    assert_eq!(Tree::of(&part), dict([("weight", Tensor(0))]));
    assert!(part.notes().iter().any(|n| n.text.contains("the object at \"net\"")));
    let part = Select::new(archive(&["net.weight"], values), "net._parameters").unwrap();
    assert_eq!(Tree::of(&part), dict([("weight", Tensor(0))]));
}

#[test]
fn cycles_end() {
    let mut values = dict([("a", dict([("w", Tensor(0))])), ("b", List(vec![]))]).values();
    let root = values.root().unwrap();
    let list = values.entry(root, "b").unwrap();
    *values.get_mut(list) = Value::List(vec![list, root]);
    let part = Select::new(archive(&["a.w"], values.clone()), "b.0.0.1.a").unwrap();
    assert_eq!(Tree::of(&part), dict([("w", Tensor(0))]));
    assert!(Select::new(archive(&["a.w"], values.clone()), "b.0.0.0.1.b.1.x").is_err());
    assert_eq!(names(&Drop::new(archive(&["a.w"], values), "a*").unwrap()).len(), 0);
}

#[test]
fn a_million_entries_take_linear_time() {
    let n = 1_000_000u32;
    let mut values = Values::new();
    let mut entries = Vec::new();
    for i in 0..n {
        let key = values.push(Value::Str(format!("layer.{i}.w").into())).unwrap();
        entries.push((key, values.push(Value::Tensor(i)).unwrap()));
    }
    let root = values.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() }))).unwrap();
    values.set_root(root);
    let tensors = (0..n).map(|i| {
        let name = format!("layer.{i}.w");
        crate::Tensor::new(name, crate::DType::U8, [1].as_slice(), Data::Borrowed(&[0])).unwrap()
    });
    let big = crate::MemoryArchive::new(tensors).unwrap().with_values(values);
    let start = std::time::Instant::now();
    let rest = Drop::new(Box::new(big), "layer.9*").unwrap();
    let part = Select::new(Box::new(rest), "layer").unwrap();
    let renamed = crate::transform::Rename::new(
        Box::new(part),
        [(Regex::new("^(.*)[.]w$").unwrap(), "x.$1".to_owned())],
    )
    .unwrap();
    assert_eq!(renamed.tensors().len(), 888_889);
    assert_eq!(renamed.tensors()[5].name(), "x.5");
    let values = renamed.values().unwrap();
    assert_eq!(values.dict(values.root().unwrap()).unwrap().entries.len(), 888_889);
    // Quadratic time would be hours.
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}
