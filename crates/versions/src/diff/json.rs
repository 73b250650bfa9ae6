//! What changed between two JSON files: keys by their path.

use serde_json::{Map, Value};

/// The most differences of one file that are kept.
const KEPT: usize = 10_000;

/// What changed in one JSON file of a model.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct JsonDiff {
    /// The file's name.
    pub file: String,
    /// Keys of the newer version only, with their values. A path has dots: `vision_config.hidden_size`.
    pub added: Vec<(String, Value)>,
    /// Keys of the older version only, with their values.
    pub removed: Vec<(String, Value)>,
    /// Keys whose values differ, with the older and the newer. Lists are values as a whole.
    pub changed: Vec<(String, [Value; 2])>,
    /// Whether there are more than are kept.
    pub more: bool,
}

impl JsonDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// The paths of everything that differs.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let sides = self.added.iter().chain(&self.removed).map(|(path, _)| &**path);
        sides.chain(self.changed.iter().map(|(path, _)| &**path))
    }

    fn full(&mut self) -> bool {
        self.more |= self.added.len() + self.removed.len() + self.changed.len() >= KEPT;
        self.more
    }
}

/// Compares two trees. A side that is absent is an empty object.
///
/// The order of keys does not count, and how a number is written does not: 1 and 1.0 are equal.
pub(super) fn compare(file: &str, a: Option<&Value>, b: Option<&Value>) -> JsonDiff {
    let mut out = JsonDiff { file: file.to_owned(), ..JsonDiff::default() };
    let empty = Value::Object(Map::new());
    let mut waiting = vec![(String::new(), a.unwrap_or(&empty), b.unwrap_or(&empty))];
    while let Some((path, a, b)) = waiting.pop() {
        let (Value::Object(old), Value::Object(new)) = (a, b) else {
            if !same(a, b) && !out.full() {
                out.changed.push((path, [a.clone(), b.clone()]));
            }
            continue;
        };
        let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for (key, value) in old {
            match new.get(key) {
                Some(other) => waiting.push((at(key), value, other)),
                None if !out.full() => out.removed.push((at(key), value.clone())),
                None => {}
            }
        }
        for (key, value) in new {
            if !old.contains_key(key) && !out.full() {
                out.added.push((at(key), value.clone()));
            }
        }
    }
    // Taken from a stack, so in no order of the file; by name they are found again.
    out.added.sort_by(|x, y| x.0.cmp(&y.0));
    out.removed.sort_by(|x, y| x.0.cmp(&y.0));
    out.changed.sort_by(|x, y| x.0.cmp(&y.0));
    out
}

/// Equality of values that does not see how a number is spelled.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (!both_integers(x, y) && x.as_f64() == y.as_f64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

fn both_integers(x: &serde_json::Number, y: &serde_json::Number) -> bool {
    !x.is_f64() && !y.is_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_found_by_path_and_spelling_does_not_count() {
        let a = json!({"kept": 1, "gone": [1], "deep": {"x": 1, "y": {"z": 0}}, "type": {"a": 1}, "list": [1, {"k": 2}]});
        let b =
            json!({"list": [1.0, {"k": 2}], "deep": {"y": {"z": 0.5}, "new": null}, "type": 3, "kept": 1.0});
        let found = compare("config.json", Some(&a), Some(&b));
        assert_eq!(found.added, [("deep.new".to_owned(), json!(null))]);
        assert_eq!(found.removed, [("deep.x".to_owned(), json!(1)), ("gone".to_owned(), json!([1]))]);
        assert_eq!(
            found.changed,
            [
                ("deep.y.z".to_owned(), [json!(0), json!(0.5)]),
                ("type".to_owned(), [json!({"a": 1}), json!(3)])
            ]
        );
        assert!(compare("", Some(&a), Some(&a)).is_empty() && !found.is_empty());
        assert_eq!(found.paths().count(), 5);
    }

    #[test]
    fn what_is_kept_has_a_bound_and_an_absent_side_is_empty() {
        let many: Map<_, _> = (0..KEPT + 5).map(|i| (i.to_string(), json!(i))).collect();
        let found = compare("x", None, Some(&Value::Object(many)));
        assert!(found.more && found.added.len() == KEPT);
        let large = compare("x", Some(&json!(u64::MAX)), Some(&json!(u64::MAX - 1)));
        assert_eq!(large.changed.len(), 1);
    }
}
