//! What is no tensor: the tree (in truth a graph) of values around the tensors of a file.
//!
//! Python objects share parts and contain themselves, and a hostile file nests a million levels deep or makes
//! ten bytes stand for a billion elements. So values live in an arena, [`Values`], and refer to each other by
//! [`ValueId`]: a shared part is stored once, a cycle is no leak, and dropping or walking needs no recursion.

use std::fmt;

use crate::error::{Error, Result};

/// A value of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    /// The value of an index in the arena.
    #[cfg(feature = "pickle")]
    pub(crate) fn at(index: u32) -> Self {
        Self(index)
    }

    /// The index in the arena.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One value. Containers hold the ids of their parts.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// Any other integer: two's complement, little-endian, as Python's pickles have it.
    BigInt(Box<[u8]>),
    /// A float.
    Float(f64),
    /// Text. Lone surrogates, which Python strings may hold, stand as U+FFFD.
    Str(Box<str>),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// Mutable bytes.
    ByteArray(Box<[u8]>),
    /// A complex number: real and imaginary part.
    Complex(f64, f64),
    /// A list.
    List(Vec<ValueId>),
    /// A tuple.
    Tuple(Vec<ValueId>),
    /// A set, in the order of the file.
    Set(Vec<ValueId>),
    /// A frozen set, in the order of the file.
    FrozenSet(Vec<ValueId>),
    /// A mapping with any keys, in order.
    Dict(Box<Dict>),
    /// A tensor, by its index in the archive.
    Tensor(u32),
    /// A name from a Python module, as a class or function stands in a pickle. It is never looked up.
    Global(Box<Global>),
    /// A pickle's persistent id: something that the file's own format explains.
    Persistent(ValueId),
    /// What only Python could build: kept as it was described, never built.
    Object(Box<Object>),
}

/// A mapping: entries in order, which mapping type of Python it is, and the attributes set on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    /// The type.
    pub kind: DictKind,
    /// Keys and values in the order of the file. A key given twice stands once, with its last value.
    pub entries: Vec<(ValueId, ValueId)>,
    /// Attributes of the object itself, such as `_metadata` of a module's state dict.
    pub attributes: Option<ValueId>,
}

/// Which of Python's mapping types a [`Dict`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DictKind {
    /// `dict`.
    #[default]
    Dict,
    /// `collections.OrderedDict`.
    Ordered,
    /// `collections.Counter`.
    Counter,
}

/// A dotted name in a Python module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Global {
    /// The module, `torch._utils`.
    pub module: Box<str>,
    /// The name in it, `_rebuild_tensor_v2`; may be dotted.
    pub name: Box<str>,
}

impl Global {
    /// `module.name`.
    pub fn new(module: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { module: module.into(), name: name.into() }
    }

    /// Whether this is `name` of `module`.
    pub fn is(&self, module: &str, name: &str) -> bool {
        &*self.module == module && &*self.name == name
    }
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// How a pickle says that an object comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Construct {
    /// `callable(*args)`: REDUCE, and INST and OBJ, which call a class.
    Call,
    /// `cls.__new__(cls, *args)`: NEWOBJ.
    New,
    /// `cls.__new__(cls, *args, **kwargs)`: NEWOBJ_EX.
    NewEx,
    /// A registered extension code: EXT1, EXT2, EXT4; `args` is its number.
    Extension,
}

/// An object as its file describes it, never built.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// How it would be built.
    pub construct: Construct,
    /// What would be called or instantiated: a [`Value::Global`] in every honest file.
    pub class: ValueId,
    /// The arguments: a [`Value::Tuple`] in every honest file.
    pub args: ValueId,
    /// Keyword arguments of [`Construct::NewEx`].
    pub kwargs: Option<ValueId>,
    /// The state that BUILD would set.
    pub state: Option<ValueId>,
    /// What APPEND(S) or ADDITEMS would add.
    pub items: Vec<ValueId>,
    /// What SETITEM(S) would set.
    pub entries: Vec<(ValueId, ValueId)>,
}

/// An arena of values with a root.
#[derive(Clone, Debug, Default)]
pub struct Values {
    nodes: Vec<Value>,
    root: Option<ValueId>,
}

impl Values {
    /// An empty arena.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty arena with room for some values.
    pub fn with_capacity(values: usize) -> Self {
        Self { nodes: Vec::with_capacity(values), root: None }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// `LimitExceeded` past 2³² - 1 values.
    pub fn push(&mut self, value: Value) -> Result<ValueId> {
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| Error::limit("more than 4,294,967,295 values in one file"))?;
        self.nodes.push(value);
        Ok(ValueId(id))
    }

    /// How many values there are, reachable or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The root, where one is set.
    pub fn root(&self) -> Option<ValueId> {
        self.root
    }

    /// Makes a value the root.
    pub fn set_root(&mut self, root: ValueId) {
        self.root = Some(root);
    }

    /// The value of an id.
    ///
    /// # Panics
    /// If the id is of another, larger arena: ids come from [`Values::push`], never from a file.
    pub fn get(&self, id: ValueId) -> &Value {
        &self.nodes[id.index()]
    }

    /// The value of an id, to change.
    ///
    /// # Panics
    /// As [`Values::get`].
    pub fn get_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.nodes[id.index()]
    }

    /// Every value with its id, in the order of pushing.
    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.nodes.iter().enumerate().map(|(i, v)| (ValueId(i as u32), v))
    }

    /// Every id, in the order of pushing; borrows nothing.
    pub fn ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.nodes.len() as u32).map(ValueId)
    }

    /// The text of a [`Value::Str`].
    pub fn str(&self, id: ValueId) -> Option<&str> {
        match self.get(id) {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The number of a [`Value::Int`].
    pub fn int(&self, id: ValueId) -> Option<i64> {
        match self.get(id) {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The parts of a list or tuple.
    pub fn sequence(&self, id: ValueId) -> Option<&[ValueId]> {
        match self.get(id) {
            Value::List(parts) | Value::Tuple(parts) => Some(parts),
            _ => None,
        }
    }

    /// The global of a [`Value::Global`].
    pub fn global(&self, id: ValueId) -> Option<&Global> {
        match self.get(id) {
            Value::Global(g) => Some(g),
            _ => None,
        }
    }

    /// The mapping of a [`Value::Dict`].
    pub fn dict(&self, id: ValueId) -> Option<&Dict> {
        match self.get(id) {
            Value::Dict(d) => Some(d),
            _ => None,
        }
    }

    /// The value under a string key of a [`Value::Dict`].
    pub fn entry(&self, dict: ValueId, key: &str) -> Option<ValueId> {
        let dict = self.dict(dict)?;
        dict.entries.iter().find(|(k, _)| self.str(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// Calls `visit` with each direct part of a value: items, keys, values, attributes, arguments, state.
    pub fn parts(&self, id: ValueId, mut visit: impl FnMut(ValueId)) {
        match self.get(id) {
            Value::List(p) | Value::Tuple(p) | Value::Set(p) | Value::FrozenSet(p) => {
                p.iter().copied().for_each(visit);
            }
            Value::Dict(d) => {
                for &(k, v) in &d.entries {
                    visit(k);
                    visit(v);
                }
                d.attributes.into_iter().for_each(visit);
            }
            Value::Persistent(p) => visit(*p),
            Value::Object(o) => {
                visit(o.class);
                visit(o.args);
                o.kwargs.into_iter().chain(o.state).for_each(&mut visit);
                o.items.iter().copied().for_each(&mut visit);
                for &(k, v) in &o.entries {
                    visit(k);
                    visit(v);
                }
            }
            _ => {}
        }
    }

    /// Which values can be reached from `start`, itself included; indexed by [`ValueId::index`].
    pub fn reachable(&self, start: ValueId) -> Vec<bool> {
        let mut seen = vec![false; self.nodes.len()];
        let mut stack = vec![start];
        seen[start.index()] = true;
        while let Some(id) = stack.pop() {
            self.parts(id, |part| {
                if !std::mem::replace(&mut seen[part.index()], true) {
                    stack.push(part);
                }
            });
        }
        seen
    }

    /// Whether every value at or under `root` is a plain one, with the first that is not: an object, a
    /// persistent id or a global, whose meaning only Python knows.
    pub fn first_object(&self, root: ValueId) -> Option<ValueId> {
        let seen = self.reachable(root);
        self.iter()
            .find(|(id, v)| {
                seen[id.index()] && matches!(v, Value::Object(_) | Value::Persistent(_) | Value::Global(_))
            })
            .map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_and_depth_cost_no_stack() {
        let mut values = Values::new();
        let list = values.push(Value::List(vec![])).unwrap();
        let mut inner = list;
        for _ in 0..1_000_000 {
            inner = values.push(Value::Tuple(vec![inner])).unwrap();
        }
        *values.get_mut(list) = Value::List(vec![inner]);
        assert!(values.reachable(list).iter().all(|&r| r));
        assert_eq!(values.first_object(list), None);
    }
}
