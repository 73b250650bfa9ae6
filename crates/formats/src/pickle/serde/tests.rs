//! Round trips, what Python's forms are read as, and errors that say where.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, from_slice, from_values, to_values, to_vec};
use crate::value::Dict;
use crate::{ErrorKind, Value, Values};

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Everything {
    flag: bool,
    small: i8,
    large: u64,
    widest: (i128, u128),
    float: f32,
    letter: char,
    text: String,
    none: Option<u8>,
    some: Option<String>,
    unit: (),
    list: Vec<Kind>,
    array: [u16; 3],
    by_text: BTreeMap<String, f64>,
    by_number: BTreeMap<i64, Wrapped>,
    by_pair: BTreeMap<(u8, String), bool>,
    by_list: BTreeMap<Vec<u8>, u8>,
    set: BTreeSet<u32>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Wrapped(f64);

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
enum Kind {
    Unit,
    Newtype(Option<i32>),
    Tuple(i32, String),
    Struct { a: Vec<u8>, b: Box<Kind> },
}

fn everything() -> Everything {
    let inner = Kind::Struct { a: vec![1, 2], b: Box::new(Kind::Tuple(-1, "x".into())) };
    Everything {
        flag: true,
        small: -128,
        large: u64::MAX,
        widest: (i128::MIN, u128::MAX),
        float: 0.1,
        letter: '模',
        text: "line\nbreak \"quoted\" \u{1f3cb}".into(),
        none: None,
        some: Some(String::new()),
        unit: (),
        list: vec![Kind::Unit, Kind::Newtype(Some(7)), Kind::Newtype(None), inner],
        array: [0, 255, 65535],
        by_text: [("a".into(), 1.5), ("b c".into(), f64::INFINITY)].into(),
        by_number: [(-1, Wrapped(0.0)), (i64::MAX, Wrapped(-0.0))].into(),
        by_pair: [((1, "x".into()), true)].into(),
        by_list: [(vec![], 0), (vec![1, 2], 3)].into(),
        set: [3, 1, 2].into(),
    }
}

/// Bytes as bytes, without a crate for them.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    assert_eq!(&from_slice::<T>(&to_vec(value).unwrap()).unwrap(), value);
    assert_eq!(&from_values::<T>(&to_values(value).unwrap()).unwrap(), value);
}

#[test]
fn what_is_written_is_read_again() {
    same(&everything());
    same(&Raw(vec![0, 255, 10]));
    same(&Raw(Vec::new()));
    for n in
        [0, 1, -1, 127, 128, -128, -129, i128::from(i64::MAX), i128::from(i64::MIN) - 1, i128::MAX, i128::MIN]
    {
        same(&n);
    }
    for n in [0, 1 << 63, 1 << 64, (1 << 127) - 1, 1 << 127, u128::MAX] {
        same(&n);
    }
    same(&u64::MAX);
    for x in [0.0, -0.0, f64::MIN_POSITIVE, f64::MAX, f64::NEG_INFINITY] {
        same(&x);
    }
    same(&f32::MAX);
    assert!(from_slice::<f64>(&to_vec(&f64::NAN).unwrap()).unwrap().is_nan());
    same(&HashMap::from([(Some(true), "a".to_owned()), (None, "b".into())]));
    // An option in an option has no form of its own.
    assert_eq!(from_slice::<Option<Option<u8>>>(&to_vec(&Some(None::<u8>)).unwrap()).unwrap(), None);
    // Text may be borrowed.
    let values = to_values("borrowed").unwrap();
    assert_eq!(from_values::<&str>(&values).unwrap(), "borrowed");
    // A type that describes itself takes anything plain.
    let json: serde_json::Value = from_slice(&to_vec(&everything().list).unwrap()).unwrap();
    assert_eq!(json[3]["Struct"]["b"]["Tuple"][1], "x");
}

#[test]
fn pythons_other_forms_are_read() {
    // (1, 2), {1, 2}, frozenset({1, 2}), in protocol 4.
    assert_eq!(from_slice::<Vec<u8>>(b"\x80\x04K\x01K\x02\x86.").unwrap(), [1, 2]);
    assert_eq!(from_slice::<BTreeSet<u8>>(b"\x80\x04\x8f(K\x01K\x02\x90.").unwrap(), [1, 2].into());
    assert_eq!(from_slice::<BTreeSet<u8>>(b"\x80\x04(K\x01K\x02\x91.").unwrap(), [1, 2].into());
    // bytearray(b'ab') in protocol 5, complex(1, -2), and a float where an integer stands.
    assert_eq!(from_slice::<Raw>(b"\x80\x05\x96\x02\0\0\0\0\0\0\0ab.").unwrap(), Raw(b"ab".to_vec()));
    let complex = b"cbuiltins\ncomplex\n(F1\nF-2\ntR.";
    assert_eq!(from_slice::<(f64, f64)>(complex).unwrap(), (1.0, -2.0));
    assert_eq!(from_slice::<f64>(b"K\x03.").unwrap(), 3.0);
    // What a struct does not ask for is passed over, an object too.
    #[derive(Deserialize, Debug, PartialEq)]
    struct One {
        a: u8,
    }
    let extra = b"}(Va\nK\x01Vb\ncos\nsystem\n(Vls\ntRu.";
    assert_eq!(from_slice::<One>(extra).unwrap(), One { a: 1 });
}

#[test]
fn errors_say_where() {
    let wrong = |error: crate::Error, path: &str| {
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.message().starts_with(path), "{error} is not at {path}");
    };
    let mut json = serde_json::to_value(everything().list).unwrap();
    json[3]["Struct"]["a"][1] = "two".into();
    wrong(from_slice::<Vec<Kind>>(&to_vec(&json).unwrap()).unwrap_err(), "[3].Struct.a[1]: invalid type");
    wrong(from_slice::<Everything>(&to_vec(&BTreeMap::from([("flag", 1)])).unwrap()).unwrap_err(), "flag: ");
    wrong(
        from_slice::<Everything>(&to_vec(&BTreeMap::from([("flag", true)])).unwrap()).unwrap_err(),
        "missing",
    );
    wrong(from_slice::<u8>(&to_vec(&256).unwrap()).unwrap_err(), "invalid value");
    wrong(from_slice::<i128>(&to_vec(&u128::MAX).unwrap()).unwrap_err(), "");
    wrong(from_slice::<(u8, u8)>(&to_vec(&[1, 2, 3]).unwrap()).unwrap_err(), "there are 3 elements");
    wrong(from_slice::<(u8, u8)>(&to_vec(&[1]).unwrap()).unwrap_err(), "invalid length 1");
    wrong(from_slice::<Kind>(&to_vec("None").unwrap()).unwrap_err(), "unknown variant");
    wrong(from_slice::<Kind>(&to_vec("Tuple").unwrap()).unwrap_err(), "the variant \"Tuple\" holds nothing");
    wrong(from_slice::<Kind>(&to_vec(&BTreeMap::from([("Unit", 1)])).unwrap()).unwrap_err(), "the variant");
    wrong(
        from_slice::<Kind>(&to_vec(&BTreeMap::from([("a", 1), ("b", 2)])).unwrap()).unwrap_err(),
        "an enum is",
    );
    wrong(from_slice::<Kind>(&to_vec(&1).unwrap()).unwrap_err(), "an enum is");
    let keys = BTreeMap::from([(1, BTreeMap::from([("odd key", "x")]))]);
    type Numbers = BTreeMap<u8, BTreeMap<String, u8>>;
    wrong(from_slice::<Numbers>(&to_vec(&keys).unwrap()).unwrap_err(), "1[\"odd key\"]: invalid type");
    // A hundred thousand digits are no integer of Rust's.
    let mut long = b"\x80\x04\x8b\x20\0\0\0".to_vec();
    long.extend([1; 32]);
    long.push(b'.');
    wrong(from_slice::<u128>(&long).unwrap_err(), "an integer of 32 bytes");
    // Objects are named, and never built.
    let error = from_slice::<Vec<String>>(b"](cos\nsystem\n(Vls\ntRe.").unwrap_err();
    wrong(error, "[0]: an object of os.system");
    wrong(from_slice::<String>(b"cos\nsystem\n.").unwrap_err(), "the name os.system");
    assert_eq!(from_slice::<u8>(b"K").unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn what_python_has_no_form_for_is_refused() {
    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
    struct Named {
        a: u8,
    }
    let error = to_vec(&BTreeMap::from([("x", BTreeMap::from([(Named { a: 1 }, 2)]))])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().starts_with("x: a dict cannot be a key"), "{error}");
    let values = Values::new();
    assert_eq!(from_values::<u8>(&values).unwrap_err().kind(), ErrorKind::InvalidOptions);
}

/// A list that holds itself so many times.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Nested(Vec<Nested>);

#[test]
fn nesting_and_sharing_have_an_end() {
    let deep = |levels: u32| (1..levels).fold(Nested(vec![]), |inner, _| Nested(vec![inner]));
    same(&deep(MAX_DEPTH));
    assert_eq!(to_vec(&deep(MAX_DEPTH + 1)).unwrap_err().kind(), ErrorKind::Unsupported);
    let million = [b"]".repeat(1_000_000), b"a".repeat(999_999), b".".to_vec()].concat();
    assert_eq!(from_slice::<Nested>(&million).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(from_slice::<serde_json::Value>(&million).unwrap_err().kind(), ErrorKind::LimitExceeded);
    // A list of itself.
    assert_eq!(from_slice::<Nested>(b"]q\0h\0a.").unwrap_err().kind(), ErrorKind::LimitExceeded);
    // Thirty lists, each of the one before twice: a billion.
    let mut values = Values::new();
    let mut last = values.push(Value::List(vec![])).unwrap();
    for _ in 0..30 {
        last = values.push(Value::List(vec![last, last])).unwrap();
    }
    values.set_root(last);
    assert_eq!(from_values::<Nested>(&values).unwrap_err().kind(), ErrorKind::LimitExceeded);
    // A text of a mebibyte, a thousand times over.
    let mut values = Values::new();
    let text = values.push(Value::Str("x".repeat(1 << 20).into())).unwrap();
    let list = values.push(Value::List(vec![text; 1000])).unwrap();
    values.set_root(list);
    assert_eq!(from_values::<Vec<String>>(&values).unwrap_err().kind(), ErrorKind::LimitExceeded);
    // Sharing that is no attack is read.
    let list = values.push(Value::List(vec![text; 20])).unwrap();
    values.set_root(list);
    assert_eq!(from_values::<Vec<String>>(&values).unwrap().len(), 20);
    let dict = Dict { attributes: Some(text), ..Dict::default() };
    let dict = values.push(Value::Dict(Box::new(dict))).unwrap();
    values.set_root(dict);
    assert_eq!(from_values::<BTreeMap<u8, u8>>(&values).unwrap_err().kind(), ErrorKind::Mismatch);
}
