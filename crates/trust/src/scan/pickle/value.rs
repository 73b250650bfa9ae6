//! What the trace knows of a value: a word. Text stays in the file, of containers the first items are kept, and of a
//! long pickle only the containers that were made last.

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Something of which nothing more is known.
    Opaque,
    /// Where MARK was.
    Mark,
    /// None, a boolean, a float or a long number.
    Plain,
    /// None itself.
    Nothing,
    Int(i64),
    /// Text, by the offset of its opcode.
    Text(u64),
    /// Bytes, by the offset of their opcode.
    Bytes(u64),
    /// A name, by its number in the trace's table.
    Global(u32),
    /// A container or object, by its number.
    Node(u64),
}

/// A value in a word, as the stack and the memo hold it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot(u64);

const TAG: u32 = 60;
const LOAD: u64 = (1 << TAG) - 1;

impl Slot {
    /// No value: a place of the memo that was never filled.
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    pub(super) fn is_mark(self) -> bool {
        self.0 >> TAG == 2
    }

    pub(super) fn value(self) -> Value {
        let load = self.0 & LOAD;
        match self.0 >> TAG {
            2 => Value::Mark,
            3 => Value::Plain,
            4 => Value::Nothing,
            5 => Value::Int(((load << 4) as i64) >> 4),
            6 => Value::Text(load),
            7 => Value::Bytes(load),
            8 => Value::Global(load as u32),
            9 => Value::Node(load),
            _ => Value::Opaque,
        }
    }
}

impl From<Value> for Slot {
    fn from(value: Value) -> Self {
        let (tag, load) = match value {
            Value::Opaque => (1, 0),
            Value::Mark => (2, 0),
            Value::Plain => (3, 0),
            Value::Nothing => (4, 0),
            // A number past 60 bits is no size or offset that anything here asks for.
            Value::Int(n) if (n << 4) >> 4 == n => (5, n as u64 & LOAD),
            Value::Int(_) => (3, 0),
            Value::Text(at) => (6, at & LOAD),
            Value::Bytes(at) => (7, at & LOAD),
            Value::Global(n) => (8, n.into()),
            Value::Node(n) => (9, n & LOAD),
        };
        Self(tag << TAG | load)
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tuple,
    List,
    Dict,
    Set,
    /// Made by a class or function that is known, or at least no code: `class` made it of `args`.
    Object,
    /// The result of a call of something that is not known.
    Called,
    /// An attribute that was looked up: `class` is what it was looked up in.
    Attribute,
    /// What a persistent id stands for.
    Persistent,
}

/// How many items of a container are kept.
pub(super) const ITEMS: usize = 12;

/// A container or object.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) class: Slot,
    pub(super) args: Slot,
    pub(super) state: Slot,
    /// All items, of which the first are kept. A dict's are keys and values in turn.
    pub(super) count: u32,
    items: [Slot; ITEMS],
}

impl Node {
    pub(super) fn new(kind: Kind) -> Self {
        let none = Slot::from(Value::Nothing);
        Self { kind, class: none, args: none, state: none, count: 0, items: [none; ITEMS] }
    }

    pub(super) fn of(kind: Kind, items: &[Slot]) -> Self {
        let mut node = Self::new(kind);
        node.extend(items);
        node
    }

    pub(super) fn extend(&mut self, items: &[Slot]) {
        let from = (self.count as usize).min(ITEMS);
        for (place, item) in self.items[from..].iter_mut().zip(items) {
            *place = *item;
        }
        self.count = self.count.saturating_add(u32::try_from(items.len()).unwrap_or(u32::MAX));
    }

    /// The items that are kept.
    pub(super) fn items(&self) -> &[Slot] {
        &self.items[..(self.count as usize).min(ITEMS)]
    }

    /// All items, if all are kept.
    pub(super) fn all(&self) -> Option<&[Slot]> {
        (self.count as usize <= ITEMS).then(|| self.items())
    }

    /// The value of a text key of a dict, by a comparison of the caller's.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Slot, Slot)> + '_ {
        self.items().chunks_exact(2).map(|pair| (pair[0], pair[1]))
    }
}

/// How many nodes are kept.
const NODES: usize = 1 << 15;

/// The nodes that were made last.
#[derive(Default)]
pub(super) struct Nodes {
    ring: Vec<Node>,
    made: u64,
    /// Which nodes were attributes, up to a bound past which every lost one may have been.
    attributes: std::collections::HashSet<u64>,
}

/// How many attributes are remembered.
const ATTRIBUTES: usize = 1 << 16;

impl Nodes {
    pub(super) fn push(&mut self, node: Node) -> Value {
        let number = self.made;
        self.made += 1;
        if node.kind == Kind::Attribute && self.attributes.len() < ATTRIBUTES {
            self.attributes.insert(number);
        }
        match self.ring.get_mut(number as usize % NODES) {
            Some(place) => *place = node,
            None => self.ring.push(node),
        }
        Value::Node(number)
    }

    pub(super) fn get(&self, value: Value) -> Option<&Node> {
        let Value::Node(number) = value else { return None };
        (number < self.made && self.made - number <= NODES as u64)
            .then(|| self.ring.get(number as usize % NODES))
            .flatten()
    }

    /// Whether a node that is not kept any more was, or may have been, an attribute.
    pub(super) fn was_attribute(&self, value: Value) -> bool {
        let Value::Node(number) = value else { return false };
        self.attributes.contains(&number) || self.attributes.len() >= ATTRIBUTES
    }

    pub(super) fn get_mut(&mut self, value: Value) -> Option<&mut Node> {
        let Value::Node(number) = value else { return None };
        (number < self.made && self.made - number <= NODES as u64)
            .then(|| self.ring.get_mut(number as usize % NODES))
            .flatten()
    }
}

/// The stack. Only its top is kept: below, everything is opaque.
#[derive(Default)]
pub(super) struct Stack {
    slots: Vec<Slot>,
    /// Whether something of the bottom was let go.
    lost: bool,
}

/// How much of the stack is kept; half of it is let go when it is full.
const STACK: usize = 1 << 21;

/// Nothing, or only a mark, is left to take.
pub(super) struct Underflow;

impl Stack {
    pub(super) fn push(&mut self, value: Value) {
        if self.slots.len() >= STACK {
            self.slots.drain(..STACK / 2);
            self.lost = true;
        }
        self.slots.push(value.into());
    }

    pub(super) fn pop(&mut self) -> Result<Value, Underflow> {
        match self.slots.last() {
            Some(slot) if slot.is_mark() => Err(Underflow),
            Some(slot) => {
                let value = slot.value();
                self.slots.pop();
                Ok(value)
            }
            None if self.lost => Ok(Value::Opaque),
            None => Err(Underflow),
        }
    }

    /// Takes the top away, a mark too.
    pub(super) fn drop_top(&mut self) -> Result<(), Underflow> {
        if self.slots.pop().is_some() || self.lost { Ok(()) } else { Err(Underflow) }
    }

    pub(super) fn top(&self) -> Result<Value, Underflow> {
        match self.slots.last() {
            Some(slot) if slot.is_mark() => Err(Underflow),
            Some(slot) => Ok(slot.value()),
            None if self.lost => Ok(Value::Opaque),
            None => Err(Underflow),
        }
    }

    /// The items above the last mark, which `take` sees before they and the mark go.
    pub(super) fn take_to_mark<T>(&mut self, take: impl FnOnce(&[Slot]) -> T) -> Result<T, Underflow> {
        let at = match self.slots.iter().rposition(|slot| slot.is_mark()) {
            Some(at) => at + 1,
            None if self.lost => 0,
            None => return Err(Underflow),
        };
        let taken = take(&self.slots[at..]);
        self.slots.truncate(at.saturating_sub(1));
        Ok(taken)
    }
}

/// The memo. Entries of high numbers are kept as far as there is room.
#[derive(Default)]
pub(super) struct Memo {
    chunks: Vec<Option<Box<[Slot]>>>,
    sparse: std::collections::HashMap<u64, Slot>,
    /// How many entries there are, as MEMOIZE counts them.
    pub(super) count: u64,
    /// Whether an entry was not kept.
    pub(super) lost: bool,
}

const CHUNK: usize = 4096;
const CHUNKS: usize = 512;
const SPARSE: usize = 1 << 16;

impl Memo {
    pub(super) fn put(&mut self, key: u64, value: Value) {
        let slot = Slot::from(value);
        let place = usize::try_from(key).ok().filter(|k| *k < CHUNK * CHUNKS);
        let before = match place {
            Some(place) => {
                let (chunk, at) = (place / CHUNK, place % CHUNK);
                if self.chunks.len() <= chunk {
                    self.chunks.resize_with(chunk + 1, || None);
                }
                let chunk = self.chunks[chunk].get_or_insert_with(|| vec![Slot::EMPTY; CHUNK].into());
                std::mem::replace(&mut chunk[at], slot)
            }
            None if self.sparse.len() < SPARSE || self.sparse.contains_key(&key) => {
                self.sparse.insert(key, slot).unwrap_or(Slot::EMPTY)
            }
            None => {
                self.lost = true;
                Slot::EMPTY
            }
        };
        self.count += u64::from(before.is_empty());
    }

    pub(super) fn get(&self, key: u64) -> Option<Value> {
        let place = usize::try_from(key).ok().filter(|k| *k < CHUNK * CHUNKS);
        let slot = match place {
            Some(place) => {
                self.chunks.get(place / CHUNK).and_then(|c| c.as_ref()?.get(place % CHUNK)).copied()
            }
            None => self.sparse.get(&key).copied(),
        };
        match slot.filter(|slot| !slot.is_empty()) {
            Some(slot) => Some(slot.value()),
            None if self.lost => Some(Value::Opaque),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_what_they_are_in_a_word() {
        for value in [
            Value::Opaque,
            Value::Mark,
            Value::Plain,
            Value::Nothing,
            Value::Int(-5),
            Value::Int((1 << 59) - 1),
            Value::Text(1 << 40),
            Value::Bytes(7),
            Value::Global(u32::MAX),
            Value::Node(12),
        ] {
            assert_eq!(Slot::from(value).value(), value);
            assert!(!Slot::from(value).is_empty());
        }
        assert_eq!(Slot::from(Value::Int(i64::MAX)).value(), Value::Plain);
    }

    #[test]
    fn what_is_past_the_bounds_is_opaque_and_takes_no_memory() {
        let mut stack = Stack::default();
        for _ in 0..5_000_000 {
            stack.push(Value::Mark);
        }
        assert!(stack.slots.len() <= STACK);
        let mut memo = Memo::default();
        for n in 0..5_000_000u64 {
            memo.put(n, Value::Int(1));
        }
        assert_eq!(memo.get(1), Some(Value::Int(1)));
        assert_eq!(memo.get(4_999_999), Some(Value::Opaque));
        assert_eq!(memo.count, 5_000_000);
        let mut nodes = Nodes::default();
        let first = nodes.push(Node::new(Kind::List));
        assert!(nodes.get(first).is_some());
        for _ in 0..NODES {
            nodes.push(Node::new(Kind::List));
        }
        assert!(nodes.get(first).is_none() && nodes.ring.len() == NODES);
    }
}
