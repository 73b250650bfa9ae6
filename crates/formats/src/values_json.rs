//! Values as JSON, for formats that hold tensors and text alone.
//!
//! `{"version":1,"root":i,"nodes":[…]}`: one node a value, in the order of the arena, only those that the root
//! reaches. Nodes refer to nodes by index, so shared parts stay shared, cycles are possible and the text nests no
//! deeper whatever the values do. `null`, `true`, `false`, integers and strings stand for themselves; any other
//! value is a list that begins with a tag:
//!
//! | node | value |
//! |---|---|
//! | `["t",name]` | a tensor, by name |
//! | `["f",1.5]`, `["c",1.5,0.0]` | a float; a complex number. What is not finite is its 16 hexadecimal digits, `"7ff8000000000000"` |
//! | `["i",hex]` | an integer beyond 64 bits: two's complement, little-endian, in hexadecimal |
//! | `["b",text]`, `["a",text]` | bytes; a bytearray; in base64 |
//! | `["l",…]`, `["u",…]`, `["s",…]`, `["z",…]` | a list, tuple, set, frozen set of nodes |
//! | `["d",attributes,k,v,…]`, `["o",…]`, `["n",…]` | a dict, OrderedDict, Counter; attributes may be `null` |
//! | `["g",module,name]` | a name from a Python module, never looked up |
//! | `["p",node]` | a persistent id |
//! | `["x",how,class,args,kwargs,state,[items],[k,v,…]]` | an object as its pickle described it; `how` is `call`, `new`, `newex` or `ext`; kwargs and state may be `null` |

use std::fmt::Write as _;

use crate::account::{Account, parts_of};
use crate::error::{Error, Result};
use crate::json::{Lexer, push_string};
use crate::limits::Limits;
use crate::value::{Construct, Dict, DictKind, Global, Object, Value, ValueId, Values};

/// The version of the form.
const VERSION: u64 = 1;

/// Writes the values that the root reaches; `None` if that takes more than `max_bytes`, or there is no root.
///
/// `name` gives a tensor's name. A tensor without one was left out of the file, and `None` takes its place.
pub(crate) fn encode<'n>(
    values: &Values,
    name: impl Fn(u32) -> Option<&'n str>,
    max_bytes: usize,
) -> Option<String> {
    let root = values.root()?;
    let reachable = values.reachable(root);
    let mut number = vec![0u32; reachable.len()];
    for (count, (number, _)) in (0..).zip(number.iter_mut().zip(&reachable).filter(|(_, r)| **r)) {
        *number = count;
    }
    let index = |id: ValueId| number[id.index()];
    let mut out = format!("{{\"version\":{VERSION},\"root\":{},\"nodes\":[", index(root));
    for (_, value) in values.iter().filter(|(id, _)| reachable[id.index()]) {
        push_node(&mut out, value, &index, &name);
        out.push(',');
        if out.len() > max_bytes {
            return None;
        }
    }
    out.pop();
    out.push_str("]}");
    Some(out)
}

fn push_node<'n>(
    out: &mut String,
    value: &Value,
    index: &impl Fn(ValueId) -> u32,
    name: &impl Fn(u32) -> Option<&'n str>,
) {
    let push_ids = |out: &mut String, ids: &[ValueId]| {
        for &id in ids {
            let _ = write!(out, ",{}", index(id));
        }
    };
    let push_pairs = |out: &mut String, pairs: &[(ValueId, ValueId)]| {
        for &(k, v) in pairs {
            let _ = write!(out, ",{},{}", index(k), index(v));
        }
    };
    let push_option = |out: &mut String, id: Option<ValueId>| match id {
        Some(id) => {
            let _ = write!(out, ",{}", index(id));
        }
        None => out.push_str(",null"),
    };
    let mut sequence = |tag: char, ids: &[ValueId]| {
        let _ = write!(out, "[\"{tag}\"");
        push_ids(out, ids);
        out.push(']');
    };
    match value {
        Value::List(ids) => return sequence('l', ids),
        Value::Tuple(ids) => return sequence('u', ids),
        Value::Set(ids) => return sequence('s', ids),
        Value::FrozenSet(ids) => return sequence('z', ids),
        _ => {}
    }
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => {
            let _ = write!(out, "{i}");
        }
        Value::Str(s) => push_string(out, s),
        Value::Tensor(i) => match name(*i) {
            Some(name) => {
                out.push_str("[\"t\",");
                push_string(out, name);
                out.push(']');
            }
            None => out.push_str("null"),
        },
        Value::Float(x) => {
            out.push_str("[\"f\",");
            push_float(out, *x);
            out.push(']');
        }
        Value::Complex(re, im) => {
            out.push_str("[\"c\",");
            push_float(out, *re);
            out.push(',');
            push_float(out, *im);
            out.push(']');
        }
        Value::BigInt(bytes) => {
            out.push_str("[\"i\",\"");
            for b in bytes {
                let _ = write!(out, "{b:02x}");
            }
            out.push_str("\"]");
        }
        Value::Bytes(bytes) | Value::ByteArray(bytes) => {
            out.push_str(if matches!(value, Value::Bytes(_)) { "[\"b\",\"" } else { "[\"a\",\"" });
            base64::push(out, bytes);
            out.push_str("\"]");
        }
        Value::Dict(dict) => {
            out.push_str(match dict.kind {
                DictKind::Dict => "[\"d\"",
                DictKind::Ordered => "[\"o\"",
                DictKind::Counter => "[\"n\"",
            });
            push_option(out, dict.attributes);
            push_pairs(out, &dict.entries);
            out.push(']');
        }
        Value::Global(global) => {
            out.push_str("[\"g\",");
            push_string(out, &global.module);
            out.push(',');
            push_string(out, &global.name);
            out.push(']');
        }
        Value::Persistent(id) => {
            let _ = write!(out, "[\"p\",{}]", index(*id));
        }
        Value::Object(object) => {
            let how = match object.construct {
                Construct::Call => "call",
                Construct::New => "new",
                Construct::NewEx => "newex",
                Construct::Extension => "ext",
            };
            let _ = write!(out, "[\"x\",\"{how}\",{},{}", index(object.class), index(object.args));
            push_option(out, object.kwargs);
            push_option(out, object.state);
            // A list's first comma is one too many.
            for part in [true, false] {
                out.push_str(",[");
                let start = out.len();
                if part {
                    push_ids(out, &object.items);
                } else {
                    push_pairs(out, &object.entries);
                }
                if out.len() > start {
                    out.remove(start);
                }
                out.push(']');
            }
            out.push(']');
        }
        Value::List(_) | Value::Tuple(_) | Value::Set(_) | Value::FrozenSet(_) => {}
    }
}

fn push_float(out: &mut String, x: f64) {
    // Rust's shortest form reads back to the same bits, the sign of zero included.
    let _ = if x.is_finite() { write!(out, "{x:?}") } else { write!(out, "\"{:016x}\"", x.to_bits()) };
}

/// Reads what [`encode`] wrote. `tensor` gives the index of a tensor's name.
///
/// # Errors
/// `Malformed` for anything that [`encode`] would not write, unknown tensors included; `LimitExceeded` past
/// `limits.values`, or of the account.
pub(crate) fn decode(
    text: &str,
    tensor: impl Fn(&str) -> Option<u32>,
    limits: &Limits,
    account: &mut Account,
) -> Result<Values> {
    let mut lexer = Lexer::new(text, 0);
    lexer.expect(b'{')?;
    named(&mut lexer, "version")?;
    let version = lexer.unsigned()?;
    if version != VERSION {
        return Err(Error::unsupported(format!("values in version {version} of their form")));
    }
    lexer.expect(b',')?;
    named(&mut lexer, "root")?;
    let root = lexer.unsigned()?;
    lexer.expect(b',')?;
    named(&mut lexer, "nodes")?;

    // Nodes refer to later nodes, so they are counted before the first is read.
    let mut values = Values::new();
    let mut counting = lexer.clone();
    if counting.open(b'[', b']')? {
        loop {
            if values.len() as u64 >= limits.values {
                return Err(Error::limit(format!("more than {} values", limits.values)));
            }
            counting.skip()?;
            account.charge_items::<(Value, ValueId)>(1)?;
            values.push(Value::None)?;
            if !counting.more(b']')? {
                break;
            }
        }
    }
    counting.expect(b'}')?;
    if counting.peek().is_some() {
        return Err(counting.error("something follows the values"));
    }
    let ids: Vec<ValueId> = values.ids().collect();
    let find = |index: u64| usize::try_from(index).ok().and_then(|i| ids.get(i)).copied();
    let root = find(root).ok_or_else(|| Error::malformed("the root is no node"))?;
    values.set_root(root);

    lexer.expect(b'[')?;
    for &id in &ids {
        let node = Reader { lexer: &mut lexer, find: &find, tensor: &tensor }.node()?;
        account.charge(parts_of(&node))?;
        *values.get_mut(id) = node;
        lexer.more(b']')?;
    }
    Ok(values)
}

/// Takes a key, which must be this one.
fn named(lexer: &mut Lexer<'_>, wanted: &str) -> Result<()> {
    if lexer.key()? == wanted { Ok(()) } else { Err(lexer.error(format!("the key {wanted:?} is wanted"))) }
}

struct Reader<'l, 'a, F, T> {
    lexer: &'l mut Lexer<'a>,
    find: &'l F,
    tensor: &'l T,
}

impl<F: Fn(u64) -> Option<ValueId>, T: Fn(&str) -> Option<u32>> Reader<'_, '_, F, T> {
    fn node(&mut self) -> Result<Value> {
        match self.lexer.peek() {
            Some(b'[') => self.tagged(),
            Some(b'"') => Ok(Value::Str(self.lexer.string()?.into())),
            Some(b'-' | b'0'..=b'9') => {
                let text = self.lexer.number()?;
                let int = text.parse().map_err(|_| self.lexer.error("an integer of 64 bits is wanted"))?;
                Ok(Value::Int(int))
            }
            _ if self.lexer.literal("null") => Ok(Value::None),
            _ if self.lexer.literal("true") => Ok(Value::Bool(true)),
            _ if self.lexer.literal("false") => Ok(Value::Bool(false)),
            _ => Err(self.lexer.error("no node that is known")),
        }
    }

    fn tagged(&mut self) -> Result<Value> {
        self.lexer.expect(b'[')?;
        let tag = self.lexer.string()?;
        let value = match &*tag {
            "l" => return Ok(Value::List(self.ids()?)),
            "u" => return Ok(Value::Tuple(self.ids()?)),
            "s" => return Ok(Value::Set(self.ids()?)),
            "z" => return Ok(Value::FrozenSet(self.ids()?)),
            "d" | "o" | "n" => {
                let kind = match &*tag {
                    "d" => DictKind::Dict,
                    "o" => DictKind::Ordered,
                    _ => DictKind::Counter,
                };
                let attributes = self.option()?;
                let entries = pairs(&self.ids()?).ok_or_else(|| self.lexer.error("a key without a value"))?;
                return Ok(Value::Dict(Box::new(Dict { kind, entries, attributes })));
            }
            "t" => {
                let name = self.text()?;
                let index = (self.tensor)(&name);
                Value::Tensor(index.ok_or_else(|| {
                    self.lexer.error("a value names a tensor that is not in the file").with_tensor(&*name)
                })?)
            }
            "f" => Value::Float(self.float()?),
            "c" => Value::Complex(self.float()?, self.float()?),
            "i" => {
                let text = self.text()?;
                Value::BigInt(hex(&text).ok_or_else(|| self.lexer.error("no hexadecimal bytes"))?.into())
            }
            "b" | "a" => {
                let text = self.text()?;
                let bytes = base64::decode(&text).ok_or_else(|| self.lexer.error("no base64"))?.into();
                if tag == "b" { Value::Bytes(bytes) } else { Value::ByteArray(bytes) }
            }
            "g" => {
                let module = self.text()?;
                Value::Global(Box::new(Global::new(&*module, &*self.text()?)))
            }
            "p" => Value::Persistent(self.id()?),
            "x" => Value::Object(Box::new(self.object()?)),
            _ => return Err(self.lexer.error("no tag that is known")),
        };
        self.lexer.expect(b']')?;
        Ok(value)
    }

    fn object(&mut self) -> Result<Object> {
        let construct = match &*self.text()? {
            "call" => Construct::Call,
            "new" => Construct::New,
            "newex" => Construct::NewEx,
            "ext" => Construct::Extension,
            _ => return Err(self.lexer.error("no way of construction that is known")),
        };
        let (class, args) = (self.id()?, self.id()?);
        let (kwargs, state) = (self.option()?, self.option()?);
        let items = self.list()?;
        let entries = pairs(&self.list()?).ok_or_else(|| self.lexer.error("a key without a value"))?;
        Ok(Object { construct, class, args, kwargs, state, items, entries })
    }

    /// A comma and a string.
    fn text(&mut self) -> Result<String> {
        self.lexer.expect(b',')?;
        Ok(self.lexer.string()?.into_owned())
    }

    /// A comma and a float.
    fn float(&mut self) -> Result<f64> {
        self.lexer.expect(b',')?;
        if self.lexer.peek() != Some(b'"') {
            let text = self.lexer.number()?;
            return text.parse().map_err(|_| self.lexer.error("no float"));
        }
        let digits = self.lexer.string()?;
        match u64::from_str_radix(&digits, 16) {
            Ok(bits) if digits.len() == 16 => Ok(f64::from_bits(bits)),
            _ => Err(self.lexer.error("16 hexadecimal digits are wanted")),
        }
    }

    fn known(&mut self) -> Result<ValueId> {
        let index = self.lexer.unsigned()?;
        (self.find)(index).ok_or_else(|| self.lexer.error(format!("{index} is no node")))
    }

    /// A comma and a node's index.
    fn id(&mut self) -> Result<ValueId> {
        self.lexer.expect(b',')?;
        self.known()
    }

    /// A comma and a node's index or `null`.
    fn option(&mut self) -> Result<Option<ValueId>> {
        self.lexer.expect(b',')?;
        if self.lexer.literal("null") { Ok(None) } else { self.known().map(Some) }
    }

    /// The rest of a list, each index behind a comma, and its closing bracket.
    fn ids(&mut self) -> Result<Vec<ValueId>> {
        let mut out = Vec::new();
        while self.lexer.more(b']')? {
            out.push(self.known()?);
        }
        Ok(out)
    }

    /// A comma and a list of indices of its own.
    fn list(&mut self) -> Result<Vec<ValueId>> {
        self.lexer.expect(b',')?;
        let mut out = Vec::new();
        if self.lexer.open(b'[', b']')? {
            out.push(self.known()?);
            out.extend(self.ids()?);
        }
        Ok(out)
    }
}

fn pairs(ids: &[ValueId]) -> Option<Vec<(ValueId, ValueId)>> {
    let (pairs, rest) = ids.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|&[k, v]| (k, v)).collect())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |b: u8| (b as char).to_digit(16);
    let byte = |&[a, b]: &[u8; 2]| Some((digit(a)? * 16 + digit(b)?) as u8);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Base64 as of RFC 4648, with padding.
mod base64 {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn push(out: &mut String, bytes: &[u8]) {
        for group in bytes.chunks(3) {
            let byte = |i| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for i in 0..4 {
                let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
                out.push(if i <= group.len() { letter as char } else { '=' });
            }
        }
    }

    fn value(letter: u8) -> Option<u8> {
        Some(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let (groups, rest) = text.as_bytes().as_chunks::<4>();
        if !rest.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(groups.len() * 3);
        for (n, group) in groups.iter().enumerate() {
            let padding = group.iter().rev().take_while(|&&b| b == b'=').count();
            if padding > 2 || padding > 0 && n + 1 < groups.len() {
                return None;
            }
            let mut bits = 0u32;
            for &b in &group[..4 - padding] {
                bits = bits << 6 | u32::from(value(b)?);
            }
            bits <<= 6 * padding;
            let bytes = bits.to_be_bytes();
            out.extend_from_slice(&bytes[1..4 - padding]);
            // What the padding stands for must be zero: one text for one run of bytes.
            if bytes[4 - padding..].iter().any(|&b| b != 0) {
                return None;
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["a.weight", "ü\"", ""];

    fn read(text: &str) -> Result<Values> {
        let index = |name: &str| NAMES.iter().position(|n| *n == name).map(|i| i as u32);
        let roomy = Limits::within(1 << 30);
        decode(text, index, &roomy, &mut Account::new(&roomy))
    }

    fn write(values: &Values) -> String {
        encode(values, |i| NAMES.get(i as usize).copied(), usize::MAX).unwrap()
    }

    /// One of every kind of value, in a list, with a cycle and a shared part.
    fn every_kind() -> Values {
        let mut values = Values::new();
        let root = values.push(Value::None).unwrap();
        let unreachable = values.push(Value::Str("never".into())).unwrap();
        let mut parts = vec![root];
        let text = values.push(Value::Str("\u{1F600}\n".into())).unwrap();
        let mut add = |value| parts.push(values.push(value).unwrap());
        for x in [0.0, -0.0, 1.5, 1e-310, f64::MAX, 0.1, f64::INFINITY, f64::NEG_INFINITY, 1e22] {
            add(Value::Float(x));
        }
        add(Value::Float(f64::from_bits(0x7ff8_0000_0000_0001)));
        add(Value::Complex(f64::NAN, -1.0));
        for i in [0, -1, i64::MAX, i64::MIN] {
            add(Value::Int(i));
        }
        for n in 0..7u8 {
            add(Value::Bytes((0..n).map(|i| 200 - i * 30).collect()));
            add(Value::ByteArray((0..n).collect()));
            add(Value::BigInt((0..n).collect()));
        }
        add(Value::Bool(true));
        add(Value::Bool(false));
        for i in 0..3 {
            add(Value::Tensor(i));
        }
        add(Value::Global(Box::new(Global::new("torch._utils", "_rebuild\"x"))));
        add(Value::Persistent(text));
        for ids in [vec![], vec![text], vec![text, root]] {
            add(Value::List(ids.clone()));
            add(Value::Tuple(ids.clone()));
            add(Value::Set(ids.clone()));
            add(Value::FrozenSet(ids.clone()));
            for kind in [DictKind::Dict, DictKind::Ordered, DictKind::Counter] {
                let entries = ids.iter().map(|&id| (text, id)).collect();
                add(Value::Dict(Box::new(Dict { kind, entries, attributes: ids.first().copied() })));
            }
            for construct in [Construct::Call, Construct::New, Construct::NewEx, Construct::Extension] {
                add(Value::Object(Box::new(Object {
                    construct,
                    class: text,
                    args: root,
                    kwargs: ids.first().copied(),
                    state: ids.get(1).copied(),
                    items: ids.clone(),
                    entries: ids.iter().map(|&id| (id, text)).collect(),
                })));
            }
        }
        *values.get_mut(root) = Value::List(parts);
        values.set_root(root);
        assert!(!values.reachable(root)[unreachable.index()]);
        values
    }

    #[test]
    fn every_value_comes_back_exactly() {
        let values = every_kind();
        let text = write(&values);
        assert!(!text.contains("never"));
        let back = read(&text).unwrap();
        assert_eq!(back.len(), values.len() - 1);
        assert_eq!(write(&back), text, "the same text again");
        for (id, value) in back.iter() {
            // The one value that was not reachable stood second.
            let before = values.ids().nth(id.index() + usize::from(id.index() > 0)).unwrap();
            match (value, values.get(before)) {
                (Value::Float(a), Value::Float(b)) => assert_eq!(a.to_bits(), b.to_bits()),
                (Value::Complex(a, c), Value::Complex(b, d)) => {
                    assert_eq!((a.to_bits(), c.to_bits()), (b.to_bits(), d.to_bits()));
                }
                (a, b) => assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b)),
            }
        }
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn what_was_left_out_is_none_and_what_is_too_long_is_not_written() {
        let values = every_kind();
        let text = encode(&values, |_| None, usize::MAX).unwrap();
        assert!(!text.contains("[\"t\""));
        assert_eq!(encode(&values, |_| None, 100), None);
        assert_eq!(encode(&Values::new(), |_| None, 100), None);
    }

    #[test]
    fn a_million_levels_cost_no_stack() {
        let mut values = Values::new();
        let mut inner = values.push(Value::None).unwrap();
        for _ in 0..1_000_000 {
            inner = values.push(Value::Tuple(vec![inner])).unwrap();
        }
        values.set_root(inner);
        assert_eq!(read(&write(&values)).unwrap().len(), 1_000_001);
    }

    #[test]
    fn anything_else_is_malformed() {
        let nodes = |nodes: &str| format!("{{\"version\":1,\"root\":0,\"nodes\":[{nodes}]}}");
        assert!(read(&nodes("null")).is_ok());
        for bad in [
            "",
            "1.5",
            "[\"f\"]",
            "[\"f\",\"nan\"]",
            "[\"f\",\"7ff\"]",
            "[\"t\",\"unknown\"]",
            "[\"t\"]",
            "[\"l\",1]",
            "[\"l\",-1]",
            "[\"l\",0",
            "[\"d\"]",
            "[\"d\",0,0]",
            "[\"d\",null,0]",
            "[\"b\",\"A\"]",
            "[\"b\",\"AB=C\"]",
            "[\"b\",\"AA==AAAA\"]",
            "[\"b\",\"AB==\"]",
            "[\"i\",\"abc\"]",
            "[\"i\",\"+f\"]",
            "[\"q\"]",
            "[]",
            "{}",
            "9223372036854775808",
            "[\"x\",\"call\",0,0]",
            "[\"x\",\"go\",0,0,null,null,[],[]]",
            "[\"x\",\"call\",0,0,null,null,[],[0]]",
            "[\"p\",null]",
            "[\"t\",\"\",0]",
            "[[[]]]",
        ] {
            let error = read(&nodes(bad)).map(|_| ()).expect_err(bad);
            assert_eq!(error.kind(), crate::ErrorKind::Malformed, "{bad}: {error}");
        }
        for bad in [
            "",
            "{}",
            "[]",
            "{\"version\":1}",
            "{\"version\":2,\"root\":0,\"nodes\":[null]}",
            "{\"version\":1,\"root\":1,\"nodes\":[null]}",
            "{\"version\":1,\"root\":0,\"nodes\":[null]} x",
            "{\"root\":0,\"version\":1,\"nodes\":[null]}",
            "{\"version\":1,\"root\":0,\"nodes\":[null],\"x\":0}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let few = Limits { values: 1, ..Limits::default() };
        let error = decode(&nodes("0,0"), |_| None, &few, &mut Account::new(&few)).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::LimitExceeded);
    }

    #[test]
    fn a_broken_text_is_an_error_or_other_values() {
        let text = write(&every_kind());
        for len in 0..text.len() {
            if text.is_char_boundary(len) {
                assert!(read(&text[..len]).is_err());
            }
        }
        for at in 0..text.len() {
            for with in [b'0', b'"', b'[', b']', b',', b'9', b'x'] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = with;
                if let Ok(broken) = std::str::from_utf8(&bytes)
                    && let Ok(values) = read(broken)
                {
                    assert!(values.root().is_some());
                }
            }
        }
    }
}
