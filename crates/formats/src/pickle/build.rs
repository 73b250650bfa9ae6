//! What honest pickles call to build plain values, so that those values are plain here too.
//!
//! Each form is one that Python's own pickler writes for the type. Anything else, of the same names too, stays an
//! inert object: the list decides how a value is shown, never whether something is run.

use super::machine::{ITEM, Machine};
use crate::value::{Construct, Dict, DictKind, Object};
use crate::{Result, Value, ValueId, Values};

/// What a call of a known name with these arguments stands for.
#[derive(Clone, Copy)]
enum Plain {
    Mapping(DictKind, Option<ValueId>),
    Set(ValueId),
    FrozenSet(ValueId),
    EmptyBytes,
    EmptyByteArray,
    ByteArray(ValueId),
    /// Latin-1 text that stands for bytes.
    Encoded(ValueId),
    EncodedArray(ValueId),
    Complex(f64, f64),
    /// A plain object of a class.
    Bare(ValueId),
    /// An object of the first argument, a class, with the others.
    New,
    NewEx(ValueId, ValueId, ValueId),
}

impl Machine<'_> {
    /// REDUCE.
    pub(super) fn call(&mut self, class: ValueId, args: ValueId) -> Result<Value> {
        let plain = match plain(&self.values, class, args) {
            Some(plain) => self.make(plain, args)?,
            None => None,
        };
        if plain.is_none() {
            self.take_part(size_of::<Object>())?;
        }
        Ok(plain.unwrap_or_else(|| Self::object(Construct::Call, class, args, None)))
    }

    /// NEWOBJ.
    pub(super) fn instantiate(&mut self, class: ValueId, args: ValueId) -> Result<Value> {
        let ordered = self.values.global(class).is_some_and(|g| g.is("collections", "OrderedDict"));
        if ordered && matches!(self.values.sequence(args), Some([])) {
            self.take_part(size_of::<Dict>())?;
            return Ok(mapping(DictKind::Ordered, Vec::new()));
        }
        self.take_part(size_of::<Object>())?;
        Ok(Self::object(Construct::New, class, args, None))
    }

    fn make(&mut self, plain: Plain, args: ValueId) -> Result<Option<Value>> {
        Ok(match plain {
            Plain::Mapping(kind, None) => {
                self.take_part(size_of::<Dict>())?;
                Some(mapping(kind, Vec::new()))
            }
            Plain::Mapping(kind, Some(from)) => {
                let count = match self.values.get(from) {
                    Value::Dict(dict) => dict.entries.len(),
                    Value::List(pairs) => pairs.len(),
                    _ => return Ok(None),
                };
                self.charge(count.saturating_mul(ITEM))?;
                self.take_part(size_of::<Dict>() + count.saturating_mul(8))?;
                entries(&self.values, from).map(|e| mapping(kind, e))
            }
            Plain::Set(list) => self.copied(list)?.map(Value::Set),
            Plain::FrozenSet(list) => self.copied(list)?.map(Value::FrozenSet),
            Plain::EmptyBytes => Some(Value::Bytes(Box::default())),
            Plain::EmptyByteArray => Some(Value::ByteArray(Box::default())),
            Plain::ByteArray(bytes) => {
                let Some(bytes) = self.bytes_of(bytes) else { return Ok(None) };
                match bytes {
                    Ok(bytes) => {
                        let count = bytes.len();
                        let copy = bytes.into();
                        self.charge(count)?;
                        self.take_part(count)?;
                        Some(Value::ByteArray(copy))
                    }
                    // Both are the same bytes of the stream.
                    Err(span) => {
                        self.left = Some(span);
                        Some(Value::ByteArray(Box::default()))
                    }
                }
            }
            Plain::Encoded(text) => self.encoded(text)?.map(Value::Bytes),
            Plain::EncodedArray(text) => self.encoded(text)?.map(Value::ByteArray),
            Plain::Complex(re, im) => Some(Value::Complex(re, im)),
            Plain::Bare(class) => {
                self.room(2)?;
                let none = self.values.push(Value::Tuple(Vec::new()))?;
                Some(self.instantiate(class, none)?)
            }
            Plain::New => {
                let Some([class, rest @ ..]) = self.values.sequence(args) else { return Ok(None) };
                let (class, rest) = (*class, rest.to_vec());
                self.charge(rest.len().saturating_mul(ITEM))?;
                self.take_part(rest.len() * 4)?;
                self.room(2)?;
                let rest = self.values.push(Value::Tuple(rest))?;
                Some(self.instantiate(class, rest)?)
            }
            Plain::NewEx(class, args, kwargs) => {
                self.take_part(size_of::<Object>())?;
                Some(Self::object(Construct::NewEx, class, args, Some(kwargs)))
            }
        })
    }

    fn copied(&mut self, list: ValueId) -> Result<Option<Vec<ValueId>>> {
        let Value::List(items) = self.values.get(list) else { return Ok(None) };
        let count = items.len();
        self.charge(count.saturating_mul(ITEM))?;
        self.take_part(count.saturating_mul(4))?;
        Ok(self.values.sequence(list).map(<[ValueId]>::to_vec))
    }

    /// The bytes that Latin-1 text stands for.
    fn encoded(&mut self, id: ValueId) -> Result<Option<Box<[u8]>>> {
        let Some(text) = self.values.str(id) else { return Ok(None) };
        let count = text.len();
        self.take_part(count)?;
        let Some(text) = self.values.str(id) else { return Ok(None) };
        let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        self.charge(count)?;
        Ok(bytes)
    }
}

fn mapping(kind: DictKind, entries: Vec<(ValueId, ValueId)>) -> Value {
    Value::Dict(Box::new(Dict { kind, entries, attributes: None }))
}

fn plain(values: &Values, class: ValueId, args: ValueId) -> Option<Plain> {
    let class = values.global(class)?;
    let Value::Tuple(args) = values.get(args) else { return None };
    let args = args.as_slice();
    let latin1 = |id| matches!(values.str(id), Some("latin1" | "latin-1"));
    Some(match &*class.module {
        "collections" => match (&*class.name, args) {
            ("OrderedDict", []) => Plain::Mapping(DictKind::Ordered, None),
            // Python 2 writes a list of [key, value] lists.
            ("OrderedDict", &[pairs]) if matches!(values.get(pairs), Value::List(_)) => {
                Plain::Mapping(DictKind::Ordered, Some(pairs))
            }
            ("Counter", []) => Plain::Mapping(DictKind::Counter, None),
            ("Counter", &[dict]) if matches!(values.get(dict), Value::Dict(_)) => {
                Plain::Mapping(DictKind::Counter, Some(dict))
            }
            _ => return None,
        },
        "_codecs" => match (&*class.name, args) {
            ("encode", &[text, encoding]) if latin1(encoding) => Plain::Encoded(text),
            _ => return None,
        },
        "builtins" | "__builtin__" => match (&*class.name, args) {
            ("set", &[list]) => Plain::Set(list),
            ("frozenset", &[list]) => Plain::FrozenSet(list),
            ("bytes", []) => Plain::EmptyBytes,
            ("bytearray", []) => Plain::EmptyByteArray,
            ("bytearray", &[bytes]) => Plain::ByteArray(bytes),
            ("bytearray", &[text, encoding]) if latin1(encoding) => Plain::EncodedArray(text),
            ("complex", &[re, im]) => match (values.get(re), values.get(im)) {
                (Value::Float(re), Value::Float(im)) => Plain::Complex(*re, *im),
                _ => return None,
            },
            _ => return None,
        },
        "copyreg" | "copy_reg" => match (&*class.name, args) {
            // How the protocols 0 and 1 write an object without a constructor.
            ("_reconstructor", &[class, base, none])
                if values.get(none) == &Value::None
                    && values
                        .global(base)
                        .is_some_and(|g| g.is("builtins", "object") || g.is("__builtin__", "object")) =>
            {
                Plain::Bare(class)
            }
            ("__newobj__", [_, ..]) => Plain::New,
            ("__newobj_ex__", &[class, args, kwargs]) => Plain::NewEx(class, args, kwargs),
            _ => return None,
        },
        _ => return None,
    })
}

/// The entries of a dict, or of a list of pairs.
fn entries(values: &Values, from: ValueId) -> Option<Vec<(ValueId, ValueId)>> {
    match values.get(from) {
        Value::Dict(dict) => Some(dict.entries.clone()),
        Value::List(pairs) => pairs
            .iter()
            .map(|pair| match values.sequence(*pair) {
                Some(&[key, value]) => Some((key, value)),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}
