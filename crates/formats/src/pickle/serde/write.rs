//! `Serialize` into values.

use serde::ser::{self, Serialize};

use super::MAX_DEPTH;
use super::failure::Failure;
use crate::value::Dict;
use crate::{Error, ErrorKind, Result, Value, ValueId, Values};

/// Adds a value and its parts.
pub(super) fn write<T: Serialize + ?Sized>(values: &mut Values, value: &T) -> Result<ValueId, Error> {
    value.serialize(Writer { values, depth: 0, key: false }).map_err(Failure::into_error)
}

type Written = Result<ValueId, Failure>;

/// Writes one value.
struct Writer<'a> {
    values: &'a mut Values,
    depth: u32,
    /// Whether it is a key, or a part of one: Python's dicts take no lists or dicts for keys.
    key: bool,
}

impl<'a> Writer<'a> {
    fn push(self, value: Value) -> Written {
        Ok(self.values.push(value)?)
    }

    /// One level further down.
    fn deeper(self) -> Result<Self, Failure> {
        if self.depth >= MAX_DEPTH {
            let text = format!("values nest more than {MAX_DEPTH} levels deep");
            return Err(Failure::new(ErrorKind::Unsupported, text));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn sequence(
        self,
        length: Option<usize>,
        tuple: bool,
        tag: Option<&'static str>,
    ) -> Result<Items<'a>, Failure> {
        let tuple = tuple || self.key;
        let below = if tag.is_some() { self.map_level()? } else { self };
        let Self { values, depth, key } = below.deeper()?;
        // The length is the type's word; memory is taken as items come.
        let items = Vec::with_capacity(length.unwrap_or(0).min(1024));
        Ok(Items { values, depth, key, items, tuple, tag })
    }

    fn map(self, tag: Option<&'static str>) -> Result<Entries<'a>, Failure> {
        let mut below = self.map_level()?;
        if tag.is_some() {
            below = below.deeper()?;
        }
        Ok(Entries { values: below.values, depth: below.depth, entries: Vec::new(), key: None, tag })
    }

    /// The level of a dict, which is no key.
    fn map_level(self) -> Result<Self, Failure> {
        if self.key {
            return Err(Failure::new(ErrorKind::Unsupported, "a dict cannot be a key of a dict in Python"));
        }
        self.deeper()
    }

    /// The dict of a variant with contents.
    fn tagged(values: &mut Values, tag: &'static str, content: ValueId) -> Written {
        let tag = values.push(Value::Str(tag.into()))?;
        Ok(values.push(Value::Dict(Box::new(Dict { entries: vec![(tag, content)], ..Dict::default() })))?)
    }

    fn wide(self, bytes: [u8; 17]) -> Written {
        // The shortest two's complement: a last byte that only repeats the sign below it goes.
        let sign = if bytes[16] & 0x80 == 0 { 0 } else { 0xff };
        let mut length = bytes.len();
        while length > 1 && bytes[length - 1] == sign && (bytes[length - 2] ^ sign) & 0x80 == 0 {
            length -= 1;
        }
        self.push(Value::BigInt(bytes[..length].into()))
    }
}

macro_rules! integers {
    ($($method:ident $t:ty),*) => {
        $(fn $method(self, n: $t) -> Written { self.push(Value::Int(n.into())) })*
    };
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ValueId;
    type Error = Failure;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Entries<'a>;
    type SerializeStructVariant = Entries<'a>;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_u8 u8,
        serialize_u16 u16, serialize_u32 u32);

    fn serialize_u64(self, n: u64) -> Written {
        self.serialize_i128(n.into())
    }

    fn serialize_i128(self, n: i128) -> Written {
        match i64::try_from(n) {
            Ok(n) => self.push(Value::Int(n)),
            Err(_) => {
                let mut bytes = [if n < 0 { 0xff } else { 0 }; 17];
                bytes[..16].copy_from_slice(&n.to_le_bytes());
                self.wide(bytes)
            }
        }
    }

    fn serialize_u128(self, n: u128) -> Written {
        match i128::try_from(n) {
            Ok(n) => self.serialize_i128(n),
            Err(_) => {
                let mut bytes = [0; 17];
                bytes[..16].copy_from_slice(&n.to_le_bytes());
                self.wide(bytes)
            }
        }
    }

    fn serialize_bool(self, b: bool) -> Written {
        self.push(Value::Bool(b))
    }

    fn serialize_f32(self, x: f32) -> Written {
        self.push(Value::Float(x.into()))
    }

    fn serialize_f64(self, x: f64) -> Written {
        self.push(Value::Float(x))
    }

    fn serialize_char(self, c: char) -> Written {
        self.push(Value::Str(c.to_string().into()))
    }

    fn serialize_str(self, text: &str) -> Written {
        self.push(Value::Str(text.into()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Written {
        self.push(Value::Bytes(bytes.into()))
    }

    fn serialize_none(self) -> Written {
        self.push(Value::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        self.push(Value::None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.push(Value::None)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.push(Value::Str(variant.into()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let Self { values, depth, key } = self.map_level()?;
        let inner =
            value.serialize(Writer { values: &mut *values, depth, key }).map_err(|e| e.at_key(variant))?;
        Self::tagged(values, variant, inner)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'a>, Failure> {
        self.sequence(length, false, None)
    }

    fn serialize_tuple(self, length: usize) -> Result<Items<'a>, Failure> {
        self.sequence(Some(length), true, None)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items<'a>, Failure> {
        self.sequence(Some(length), true, None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items<'a>, Failure> {
        self.sequence(Some(length), true, Some(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'a>, Failure> {
        self.map(None)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries<'a>, Failure> {
        self.map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries<'a>, Failure> {
        self.map(Some(variant))
    }
}

/// A list or tuple that is being written.
struct Items<'a> {
    values: &'a mut Values,
    depth: u32,
    key: bool,
    items: Vec<ValueId>,
    tuple: bool,
    tag: Option<&'static str>,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        let writer = Writer { values: &mut *self.values, depth: self.depth, key: self.key };
        let at = self.items.len();
        let item = value.serialize(writer).map_err(|e| match self.tag {
            Some(tag) => e.at_index(at).at_key(tag),
            None => e.at_index(at),
        })?;
        self.items.push(item);
        Ok(())
    }

    fn done(self) -> Written {
        let made = if self.tuple { Value::Tuple(self.items) } else { Value::List(self.items) };
        let made = self.values.push(made)?;
        match self.tag {
            Some(tag) => Writer::tagged(self.values, tag, made),
            None => Ok(made),
        }
    }
}

macro_rules! items {
    ($($trait:ident $method:ident),*) => {
        $(impl ser::$trait for Items<'_> {
            type Ok = ValueId;
            type Error = Failure;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
                self.item(value)
            }

            fn end(self) -> Written {
                self.done()
            }
        })*
    };
}

items!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field);

/// A dict that is being written.
struct Entries<'a> {
    values: &'a mut Values,
    depth: u32,
    entries: Vec<(ValueId, ValueId)>,
    key: Option<ValueId>,
    tag: Option<&'static str>,
}

impl Entries<'_> {
    fn value<T: Serialize + ?Sized>(&mut self, key: ValueId, value: &T) -> Result<(), Failure> {
        let written = value.serialize(Writer { values: &mut *self.values, depth: self.depth, key: false });
        let written = written.map_err(|e| {
            let e = match self.values.get(key) {
                Value::Str(text) => e.at_key(text),
                Value::Int(n) => e.at_key(&n.to_string()),
                _ => e.at_key("…"),
            };
            match self.tag {
                Some(tag) => e.at_key(tag),
                None => e,
            }
        })?;
        self.entries.push((key, written));
        Ok(())
    }

    fn named<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Failure> {
        let key = self.values.push(Value::Str(key.into()))?;
        self.value(key, value)
    }

    fn done(self) -> Written {
        let made = Value::Dict(Box::new(Dict { entries: self.entries, ..Dict::default() }));
        let made = self.values.push(made)?;
        match self.tag {
            Some(tag) => Writer::tagged(self.values, tag, made),
            None => Ok(made),
        }
    }
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ValueId;
    type Error = Failure;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failure> {
        self.key = Some(key.serialize(Writer { values: &mut *self.values, depth: self.depth, key: true })?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        match self.key.take() {
            Some(key) => self.value(key, value),
            None => Err(Failure::new(ErrorKind::Unsupported, "a map's value has no key")),
        }
    }

    fn end(self) -> Written {
        self.done()
    }
}

macro_rules! entries {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Entries<'_> {
            type Ok = ValueId;
            type Error = Failure;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Failure> {
                self.named(key, value)
            }

            fn end(self) -> Written {
                self.done()
            }
        })*
    };
}

entries!(SerializeStruct, SerializeStructVariant);
