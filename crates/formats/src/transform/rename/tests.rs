//! Tests of renaming.

use super::*;
use crate::transform::testing::Tree::{Int, List, None as Nil, Tensor};
use crate::transform::testing::{Tree, archive, contents, dict, names};
use crate::value::Value;
use crate::{ErrorKind, NoteKind};

fn rules(rules: &[(&str, &str)]) -> Vec<(Regex, String)> {
    rules.iter().map(|(from, to)| (Regex::new(from).unwrap(), (*to).to_owned())).collect()
}

fn plain() -> Box<dyn Archive> {
    let tree = dict([("module.a.w", Tensor(0)), ("module.b.w", Tensor(1)), ("step", Int(1))]);
    archive(&["module.a.w", "module.b.w"], tree.values())
}

#[test]
fn keys_follow_names_in_place() {
    let renamed = Rename::new(plain(), rules(&[("^module[.](.)", "m.$1$1"), ("w$", "weight")])).unwrap();
    assert_eq!(names(&renamed), ["m.aa.weight", "m.bb.weight"]);
    let expected = dict([("m.aa.weight", Tensor(0)), ("m.bb.weight", Tensor(1)), ("step", Int(1))]);
    assert_eq!(Tree::of(&renamed), expected);
    let stripped = StripPrefix::new(plain(), "module.").unwrap();
    assert_eq!(Tree::of(&stripped), dict([("a.w", Tensor(0)), ("b.w", Tensor(1)), ("step", Int(1))]));
    let swapped = rules(&[(".a.", ".c."), (".b.", ".a."), (".c.", ".b.")]);
    let swapped = Rename::new(plain(), swapped).unwrap();
    let expected = dict([("module.b.w", Tensor(0)), ("module.a.w", Tensor(1)), ("step", Int(1))]);
    assert_eq!(Tree::of(&swapped), expected);
    assert_eq!(contents(&swapped)[0], ("module.b.w".to_owned(), vec![0]));
}

#[test]
fn a_tensor_in_a_part_stays_there_while_the_name_before_its_key_does() {
    let tree = dict([
        ("model", dict([("a.w", Tensor(0)), ("a.b", Tensor(1))])),
        ("ids", dict([(0, dict([(5, Tensor(2))]))])),
        ("list", List(vec![Tensor(3), Int(9)])),
    ]);
    let names = ["model.a.w", "model.a.b", "ids.0.5", "list.0"];
    let rename = |rule: (&str, &str)| {
        let renamed = Rename::new(archive(&names, tree.values()), rules(&[rule])).unwrap();
        (Tree::of(&renamed), renamed.notes().to_vec())
    };
    let Tree::Dict(parts) = rename(("a[.]w", "x.y.w")).0 else { panic!() };
    assert_eq!(parts[0].1, dict([("x.y.w", Tensor(0)), ("a.b", Tensor(1))]));
    let Tree::Dict(parts) = rename(("0.5", "0.6")).0 else { panic!() };
    assert_eq!(parts[1].1, dict([(0, dict([(6, Tensor(2))]))]), "a number stays one");
    // Elsewhere: to the root.
    let (tree, notes) = rename(("model", "net"));
    let Tree::Dict(parts) = tree else { panic!() };
    assert_eq!(parts[0].1, dict::<&str>([]));
    assert_eq!(parts[3..], [("net.a.w".into(), Tensor(0)), ("net.a.b".into(), Tensor(1))]);
    assert!(notes.iter().any(|n| n.text.starts_with("2 renamed tensors moved")));
    let (tree, notes) = rename(("list.0", "list.first"));
    let Tree::Dict(parts) = tree else { panic!() };
    assert_eq!(parts[2].1, List(vec![Nil, Int(9)]));
    assert_eq!(parts[3], ("list.first".into(), Tensor(3)));
    assert!(notes.iter().any(|n| n.text.starts_with("1 items")));
}

#[test]
fn only_the_entry_that_gives_the_name_follows_it() {
    // The same tensor object stands in two dicts under the same key; it is named by the second.
    let mut values = dict([("ema", dict([("w", Tensor(0))])), ("model", dict([("w", Tensor(0))]))]).values();
    let root = values.root().unwrap();
    let at = |values: &crate::Values, key: &str| values.entry(root, key).unwrap();
    let tensor = values.entry(at(&values, "model"), "w").unwrap();
    let ema = at(&values, "ema");
    if let Value::Dict(ema) = values.get_mut(ema) {
        ema.entries[0].1 = tensor;
    }
    let renamed = Rename::new(archive(&["model.w"], values), rules(&[("w$", "v")])).unwrap();
    let expected = dict([("ema", dict([("w", Tensor(0))])), ("model", dict([("v", Tensor(0))]))]);
    assert_eq!(Tree::of(&renamed), expected);
}

#[test]
fn a_root_that_is_no_dict_becomes_one() {
    let list = List(vec![Tensor(0), Tensor(1)]).values();
    let renamed = Rename::new(archive(&["0", "1"], list), rules(&[("1", "one")])).unwrap();
    assert_eq!(Tree::of(&renamed), dict([("0", Tensor(0)), ("one", Tensor(1))]));
    assert!(renamed.notes().iter().all(|n| n.kind == NoteKind::Changed));
    let list = List(vec![Tensor(0), Int(5)]).values();
    let renamed = Rename::new(archive(&["0"], list), rules(&[("0", "zero")])).unwrap();
    assert!(renamed.notes().iter().any(|n| n.kind == NoteKind::Lost));
}

#[test]
fn names_that_collide_are_refused() {
    let error = Rename::new(plain(), rules(&[("[ab]", "x")])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(error.message().contains("\"module.a.w\" and \"module.b.w\""), "{error}");
    let error = Rename::new(plain(), rules(&[("module.a.w", "step")])).err().unwrap();
    assert!(error.message().contains("\"step\""), "a key of the dict that is no tensor: {error}");
    assert!(Rename::new(plain(), rules(&[("^.*$", "")])).is_err());
    assert_eq!(StripPrefix::new(plain(), "model.").err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn nothing_to_rename_changes_nothing() {
    let same = Rename::new(plain(), rules(&[("nothing", "x")])).unwrap();
    assert!(same.notes().is_empty());
    assert_eq!(Tree::of(&same), Tree::of(&*plain()));
}

#[test]
fn cycles_and_depth_cost_no_stack() {
    let mut values = dict([("w", Tensor(0)), ("deep", Nil)]).values();
    let root = values.root().unwrap();
    let mut inner = root;
    for _ in 0..300_000 {
        inner = values.push(Value::List(vec![inner])).unwrap();
    }
    let tensor = values.push(Value::Tensor(1)).unwrap();
    for _ in 0..300_000 {
        inner = values.push(Value::List(vec![inner, tensor])).unwrap();
    }
    if let Value::Dict(dict) = values.get_mut(root) {
        dict.entries[1].1 = inner;
    }
    let renamed = Rename::new(archive(&["w", "deep.1"], values), rules(&[("$", "2")])).unwrap();
    assert_eq!(names(&renamed), ["w2", "deep.12"]);
    let values = renamed.values().unwrap();
    assert!(values.entry(values.root().unwrap(), "w2").is_some());
}
