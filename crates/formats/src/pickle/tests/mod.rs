//! Tests of the machine and the encoder. [`show`] writes a value as text, so that tests can say what they expect.

mod encoding;
mod hostile;
mod opcodes;
mod samples;
mod speed;

use std::fmt::Write;

use super::decode;
use crate::value::{Construct, DictKind};
use crate::{Error, ErrorKind, Limits, Value, ValueId, Values};

/// What a pickle holds, as text; it must take all of `bytes`.
fn read(bytes: &[u8]) -> String {
    let decoded = decode(bytes, &Limits::default()).unwrap_or_else(|e| panic!("{bytes:02x?}: {e}"));
    assert_eq!(decoded.consumed, bytes.len() as u64);
    show(&decoded.values)
}

/// The error of a pickle that must not be read.
#[track_caller]
fn refused(bytes: &[u8]) -> Error {
    match decode(bytes, &Limits::default()) {
        Ok(decoded) => panic!("read as {}", show(&decoded.values)),
        Err(error) => {
            assert_eq!(error.format(), Some("pickle"));
            error
        }
    }
}

/// A `Malformed` whose text holds `part`.
#[track_caller]
fn malformed(bytes: &[u8], part: &str) {
    let error = refused(bytes);
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

/// The root as text. Recursive: for small values only.
fn show(values: &Values) -> String {
    let mut out = String::new();
    write(values, values.root().unwrap(), &mut Vec::new(), &mut out);
    out
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\u{fffd}' | '\0'..'\x20' | '\x7f' => write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap(),
            c => out.push(c),
        }
    }
    out + "\""
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn write(values: &Values, id: ValueId, open: &mut Vec<ValueId>, out: &mut String) {
    if let Some(up) = open.iter().rev().position(|o| *o == id) {
        write!(out, "<up {up}>").unwrap();
        return;
    }
    open.push(id);
    let mut list = |ids: &[ValueId], begin: &str, end: &str, out: &mut String| {
        out.push_str(begin);
        for (i, id) in ids.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write(values, *id, open, out);
        }
        out.push_str(end);
    };
    match values.get(id) {
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(i) => write!(out, "{i}").unwrap(),
        Value::BigInt(bytes) => write!(out, "big:{}", hex(bytes)).unwrap(),
        Value::Float(x) => write!(out, "f:{:016x}", x.to_bits()).unwrap(),
        Value::Complex(re, im) => {
            write!(out, "complex(f:{:016x}, f:{:016x})", re.to_bits(), im.to_bits()).unwrap();
        }
        Value::Str(text) => out.push_str(&quote(text)),
        Value::Bytes(bytes) => write!(out, "b:{}", hex(bytes)).unwrap(),
        Value::ByteArray(bytes) => write!(out, "bytearray:{}", hex(bytes)).unwrap(),
        Value::List(ids) => list(ids, "[", "]", out),
        Value::Tuple(ids) => list(ids, "(", if ids.is_empty() { ")" } else { ",)" }, out),
        Value::Set(ids) => list(ids, "set[", "]", out),
        Value::FrozenSet(ids) => list(ids, "frozenset[", "]", out),
        Value::Dict(dict) => {
            out.push_str(match dict.kind {
                DictKind::Dict => "{",
                DictKind::Ordered => "ordered{",
                DictKind::Counter => "counter{",
            });
            for (i, (k, v)) in dict.entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                list(&[*k], "", ": ", out);
                list(&[*v], "", "", out);
            }
            out.push('}');
            if let Some(attributes) = dict.attributes {
                list(&[attributes], "@", "", out);
            }
        }
        Value::Tensor(i) => write!(out, "tensor {i}").unwrap(),
        Value::Global(global) => write!(out, "{global}").unwrap(),
        Value::Persistent(id) => list(&[*id], "persistent ", "", out),
        Value::Object(object) => {
            let how = match object.construct {
                Construct::Call => "call ",
                Construct::New => "new ",
                Construct::NewEx => "newex ",
                Construct::Extension => "extension ",
            };
            list(&[object.class, object.args], how, "", out);
            list(object.kwargs.as_slice(), if object.kwargs.is_some() { " kwargs " } else { "" }, "", out);
            list(object.state.as_slice(), if object.state.is_some() { " state " } else { "" }, "", out);
            list(&object.items, " items[", "]", out);
            for (k, v) in &object.entries {
                list(&[*k, *v], " {", "}", out);
            }
        }
    }
    open.pop();
}

#[test]
fn what_python_wrote_in_every_protocol() {
    assert!(samples::SAMPLES.len() > 15);
    for (expression, value, pickles) in samples::SAMPLES {
        for (protocol, pickle) in pickles.iter().enumerate() {
            assert_eq!(read(pickle), *value, "{expression}, protocol {protocol}");
            let declared = decode(pickle, &Limits::default()).unwrap().protocol;
            assert_eq!(usize::from(declared), if protocol < 2 { 0 } else { protocol });
        }
    }
}

#[test]
fn sharing_survives() {
    // a = [1]; pickle.dumps([a, a], 2)
    let decoded = decode(b"\x80\x02]q\x00(]q\x01K\x01ah\x01e.", &Limits::default()).unwrap();
    let parts = decoded.values.sequence(decoded.values.root().unwrap()).unwrap();
    assert_eq!(parts[0], parts[1]);
}
