//! `Deserialize` out of values.

use std::cell::Cell;

use serde::de::{self, Deserialize, DeserializeSeed, Visitor};

use super::MAX_DEPTH;
use super::failure::Failure;
use crate::{Error, ErrorKind, Result, Value, ValueId, Values};

/// How many times what the values take may be made of them, where they share their parts, and how many bytes at least.
const MOST_COPIES: u64 = 64;
const FREE: u64 = 1 << 20;

/// Reads the root.
pub(super) fn read<'de, T: Deserialize<'de>>(values: &'de Values) -> Result<T, Error> {
    let root = values.root().ok_or_else(|| Error::invalid_options("the values have no root"))?;
    let held = values.iter().fold(0u64, |sum, (_, value)| sum.saturating_add(cost(value)));
    let budget = Cell::new(held.saturating_mul(MOST_COPIES).saturating_add(FREE));
    let reader = Reader { values, id: root, depth: 0, budget: &budget };
    T::deserialize(reader).map_err(Failure::into_error)
}

/// About the bytes that a value takes without its parts.
fn cost(value: &Value) -> u64 {
    16 + match value {
        Value::Str(text) => text.len() as u64,
        Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::BigInt(bytes) => bytes.len() as u64,
        _ => 0,
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader<'de, 'b> {
    values: &'de Values,
    id: ValueId,
    depth: u32,
    budget: &'b Cell<u64>,
}

impl<'de, 'b> Reader<'de, 'b> {
    /// The value, which is charged to what may be read in all.
    fn take(&self) -> Result<&'de Value, Failure> {
        let value = self.values.get(self.id);
        let left = self.budget.get().checked_sub(cost(value)).ok_or_else(|| {
            let text =
                format!("values that share their parts make more than {MOST_COPIES} times what they take");
            Failure::new(ErrorKind::LimitExceeded, text)
        })?;
        self.budget.set(left);
        Ok(value)
    }

    /// A part, one level further down.
    fn part(&self, id: ValueId) -> Result<Self, Failure> {
        if self.depth >= MAX_DEPTH {
            let text = format!("values nest more than {MAX_DEPTH} levels deep");
            return Err(Failure::new(ErrorKind::LimitExceeded, text));
        }
        Ok(Self { id, depth: self.depth + 1, ..*self })
    }

    fn sequence<V: Visitor<'de>>(&self, parts: &'de [ValueId], visitor: V) -> Result<V::Value, Failure> {
        let mut items = Items { reader: *self, parts, at: 0 };
        let value = visitor.visit_seq(&mut items)?;
        if items.at < parts.len() {
            let text = format!("there are {} elements where {} are expected", parts.len(), items.at);
            return Err(Failure::new(ErrorKind::Mismatch, text));
        }
        Ok(value)
    }

    fn any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.take()? {
            Value::None => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(n) => visitor.visit_i64(*n),
            Value::BigInt(bytes) => wide(bytes, visitor),
            Value::Float(x) => visitor.visit_f64(*x),
            Value::Str(text) => visitor.visit_borrowed_str(text),
            Value::Bytes(bytes) | Value::ByteArray(bytes) => visitor.visit_borrowed_bytes(bytes),
            Value::Complex(re, im) => {
                visitor.visit_seq(de::value::SeqDeserializer::new([*re, *im].into_iter()))
            }
            Value::List(parts) | Value::Tuple(parts) | Value::Set(parts) | Value::FrozenSet(parts) => {
                self.sequence(parts, visitor)
            }
            Value::Dict(dict) if dict.attributes.is_some() => {
                Err(Failure::new(ErrorKind::Mismatch, "a dict with attributes, which no map has"))
            }
            Value::Dict(dict) => {
                let mut entries = Entries { reader: self, entries: &dict.entries, at: 0 };
                let value = visitor.visit_map(&mut entries)?;
                if entries.at < dict.entries.len() {
                    let text =
                        format!("there are {} entries where {} are expected", dict.entries.len(), entries.at);
                    return Err(Failure::new(ErrorKind::Mismatch, text));
                }
                Ok(value)
            }
            other => {
                Err(Failure::new(ErrorKind::Mismatch, format!("{} is no plain value", self.described(other))))
            }
        }
    }

    /// What is no plain value, in words.
    fn described(&self, value: &Value) -> String {
        match value {
            Value::Object(object) => match self.values.global(object.class) {
                Some(class) => format!("an object of {class}"),
                None => "an object".into(),
            },
            Value::Global(global) => format!("the name {global}"),
            Value::Persistent(_) => "a persistent id".into(),
            Value::Tensor(_) => "a tensor".into(),
            _ => "this".into(),
        }
    }
}

/// An integer past 64 bits.
fn wide<'de, V: Visitor<'de>>(bytes: &[u8], visitor: V) -> Result<V::Value, Failure> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 17];
    let Some(low) = whole.get_mut(..bytes.len()) else {
        let text = format!("an integer of {} bytes is too large for every integer of Rust's", bytes.len());
        return Err(Failure::new(ErrorKind::Mismatch, text));
    };
    low.copy_from_slice(bytes);
    let mut first = [0; 16];
    first.copy_from_slice(&whole[..16]);
    let (signed, unsigned) = (i128::from_le_bytes(first), u128::from_le_bytes(first));
    match (whole[16], signed < 0) {
        (0, false) => match u64::try_from(unsigned) {
            Ok(n) => visitor.visit_u64(n),
            Err(_) => visitor.visit_i128(signed),
        },
        (0, true) => visitor.visit_u128(unsigned),
        (0xff, true) => match i64::try_from(signed) {
            Ok(n) => visitor.visit_i64(n),
            Err(_) => visitor.visit_i128(signed),
        },
        _ => Err(Failure::new(ErrorKind::Mismatch, "an integer is too large for every integer of Rust's")),
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.values.get(self.id) {
            Value::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.take()? {
            Value::Str(_) => visitor.visit_enum(Variant { tag: self, content: None }),
            Value::Dict(dict) => match dict.entries[..] {
                [(tag, content)] => {
                    visitor.visit_enum(Variant { tag: self.part(tag)?, content: Some(self.part(content)?) })
                }
                _ => {
                    let text = format!("an enum is a dict of one entry, and here are {}", dict.entries.len());
                    Err(Failure::new(ErrorKind::Mismatch, text))
                }
            },
            _ => {
                Err(Failure::new(ErrorKind::Mismatch, "an enum is a variant's name, or a dict of one entry"))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        // What is passed over may be an object, and as deep as it likes.
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

struct Items<'de, 'b> {
    reader: Reader<'de, 'b>,
    parts: &'de [ValueId],
    at: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Items<'de, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(&part) = self.parts.get(self.at) else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        let read = self.reader.part(part).and_then(|reader| seed.deserialize(reader));
        read.map(Some).map_err(|e| e.at_index(at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.parts.len() - self.at)
    }
}

struct Entries<'de, 'b> {
    reader: Reader<'de, 'b>,
    entries: &'de [(ValueId, ValueId)],
    /// How many keys were read.
    at: usize,
}

impl Entries<'_, '_> {
    /// Says under which key an error was.
    fn located(&self, error: Failure, key: ValueId) -> Failure {
        match self.reader.values.get(key) {
            Value::Str(text) => error.at_key(text),
            Value::Int(n) => error.at_key(&n.to_string()),
            _ => error.at_index(self.at.saturating_sub(1)),
        }
    }
}

impl<'de> de::MapAccess<'de> for &mut Entries<'de, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some(&(key, _)) = self.entries.get(self.at) else { return Ok(None) };
        self.at += 1;
        let read = self.reader.part(key).and_then(|reader| seed.deserialize(reader));
        read.map(Some).map_err(|e| self.located(e, key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Some(&(key, value)) = self.at.checked_sub(1).and_then(|at| self.entries.get(at)) else {
            return Err(Failure::new(ErrorKind::Mismatch, "a value is asked for before its key"));
        };
        let read = self.reader.part(value).and_then(|reader| seed.deserialize(reader));
        read.map_err(|e| self.located(e, key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len() - self.at)
    }
}

/// A variant of an enum, by its name and what it holds.
struct Variant<'de, 'b> {
    tag: Reader<'de, 'b>,
    content: Option<Reader<'de, 'b>>,
}

impl<'de, 'b> de::EnumAccess<'de> for Variant<'de, 'b> {
    type Error = Failure;
    type Variant = Content<'de, 'b>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'de, 'b>), Failure> {
        let content =
            Content { name: self.tag.values.str(self.tag.id).unwrap_or_default(), content: self.content };
        Ok((seed.deserialize(self.tag)?, content))
    }
}

struct Content<'de, 'b> {
    name: &'de str,
    content: Option<Reader<'de, 'b>>,
}

impl<'de, 'b> Content<'de, 'b> {
    fn content(&self) -> Result<Reader<'de, 'b>, Failure> {
        self.content.ok_or_else(|| {
            let text = format!("the variant {:?} holds nothing here, and should", self.name);
            Failure::new(ErrorKind::Mismatch, text)
        })
    }
}

impl<'de> de::VariantAccess<'de> for Content<'de, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.content {
            None => Ok(()),
            Some(reader) if reader.values.get(reader.id) == &Value::None => Ok(()),
            Some(_) => {
                let text = format!("the variant {:?} holds something here, and should not", self.name);
                Err(Failure::new(ErrorKind::Mismatch, text))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        seed.deserialize(self.content()?).map_err(|e| e.at_key(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.content()?.any(visitor).map_err(|e| e.at_key(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.content()?.any(visitor).map_err(|e| e.at_key(self.name))
    }
}
