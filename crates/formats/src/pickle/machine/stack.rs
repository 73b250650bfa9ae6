//! The stack, the memo, and what moves values between them.

use std::ops::Range;

use super::super::text;
use super::recent::Recent;
use super::{Machine, Singles};
use crate::value::{Construct, Dict, Object};
use crate::{ErrorKind, Result, Value, ValueId};

impl<'a> Machine<'a> {
    /// Stands guard before `n` values go to the arena.
    #[inline(always)]
    pub(in crate::pickle) fn room(&self, n: u64) -> Result<()> {
        if self.values.len() as u64 + n > self.max_values {
            let text = format!("the pickle holds more than {} values", self.max_values);
            return Err(self.fail(ErrorKind::LimitExceeded, text).with_hint("raise Limits::values"));
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: Value) -> Result<ValueId> {
        self.room(1)?;
        let id = self.values.push(value)?;
        self.stack.push(id);
        Ok(id)
    }

    /// Pushes what may be a dict or set that is full already.
    pub(super) fn push_built(&mut self, value: Value) -> Result<()> {
        let full = match &value {
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Set(items) | Value::FrozenSet(items) => !items.is_empty(),
            _ => false,
        };
        let id = self.push(value)?;
        if full {
            self.keyed.push(id);
        }
        if let Some(span) = self.left.take() {
            self.spans.insert(id, span);
        }
        Ok(())
    }

    pub(super) fn push_single(
        &mut self,
        value: Value,
        slot: fn(&mut Singles) -> &mut Option<ValueId>,
    ) -> Result<()> {
        match *slot(&mut self.singles) {
            Some(id) => self.stack.push(id),
            None => *slot(&mut self.singles) = Some(self.push(value)?),
        }
        Ok(())
    }

    pub(super) fn push_tuple(&mut self, items: Vec<ValueId>) -> Result<()> {
        // There is one empty tuple, in Python too.
        if items.is_empty() {
            return self.push_single(Value::Tuple(items), |s| &mut s.unit);
        }
        self.take_ids(items.len())?;
        self.push(Value::Tuple(items))?;
        Ok(())
    }

    pub(super) fn push_dict(&mut self, entries: Vec<(ValueId, ValueId)>) -> Result<()> {
        self.take_part(size_of::<Dict>())?;
        if !entries.is_empty() {
            self.take_ids(2 * entries.len())?;
        }
        self.push_built(Value::Dict(Box::new(Dict { entries, ..Dict::default() })))
    }

    pub(super) fn push_object(
        &mut self,
        construct: Construct,
        class: ValueId,
        args: ValueId,
        kwargs: Option<ValueId>,
    ) -> Result<()> {
        self.take_part(size_of::<Object>())?;
        let object = Self::object(construct, class, args, kwargs);
        self.push(object)?;
        Ok(())
    }

    pub(in crate::pickle) fn object(
        construct: Construct,
        class: ValueId,
        args: ValueId,
        kwargs: Option<ValueId>,
    ) -> Value {
        Value::Object(Box::new(Object {
            construct,
            class,
            args,
            kwargs,
            state: None,
            items: Vec::new(),
            entries: Vec::new(),
        }))
    }

    /// INST and OBJ: the arguments stood on the stack.
    pub(super) fn push_called(&mut self, class: ValueId, items: Vec<ValueId>) -> Result<()> {
        self.room(2)?;
        self.take_ids(items.len())?;
        let args = self.values.push(Value::Tuple(items))?;
        self.push_object(Construct::Call, class, args, None)
    }

    pub(super) fn push_bytes(&mut self, n: u64, make: fn(Box<[u8]>) -> Value) -> Result<()> {
        if n < self.least as u64 {
            let bytes = self.take(n)?;
            self.take_part(bytes.len())?;
            self.push(make(bytes.into()))?;
            return Ok(());
        }
        // They stay where they are, and are not even looked at.
        let at = self.offset();
        let here = usize::try_from(n).ok().and_then(|n| self.pos.checked_add(n));
        let (Some(pos), Some(end)) = (here, at.checked_add(n).filter(|end| *end <= self.end)) else {
            return Err(self.short(n));
        };
        let id = self.push(make(Box::default()))?;
        self.spans.insert(id, at..end);
        self.pos = pos;
        Ok(())
    }

    /// Bytes, or where they are if they stayed in the stream.
    pub(in crate::pickle) fn bytes_of(&self, id: ValueId) -> Option<std::result::Result<&[u8], Range<u64>>> {
        match (self.spans.get(&id), self.values.get(id)) {
            (Some(span), _) => Some(Err(span.clone())),
            (None, Value::Bytes(bytes)) => Some(Ok(bytes)),
            _ => None,
        }
    }

    /// An integer of bytes in two's complement.
    pub(super) fn push_number(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > 8 {
            self.take_part(bytes.len())?;
        }
        self.push(text::long(bytes))?;
        Ok(())
    }

    /// A Python 2 `str`: text if it is UTF-8.
    pub(super) fn push_py2_str(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.take_part(bytes.len())?;
        let value = match String::from_utf8(bytes) {
            Ok(text) => Value::Str(text.into()),
            Err(e) => Value::Bytes(e.into_bytes().into()),
        };
        self.push(value)?;
        Ok(())
    }

    #[inline(always)]
    pub(super) fn unicode(&mut self, n: u64) -> Result<()> {
        let bytes = self.take(n)?;
        self.take_part(bytes.len())?;
        let text = text::utf8(bytes).ok_or_else(|| self.bad("is not UTF-8"))?;
        self.push(Value::Str(text))?;
        Ok(())
    }

    /// The height below which the current opcode may not reach: the last open mark.
    #[inline(always)]
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// The index of the `n`th item from the top.
    #[inline(always)]
    pub(super) fn below(&self, n: usize) -> Result<usize> {
        match self.stack.len().checked_sub(n) {
            Some(at) if at >= self.floor() => Ok(at),
            _ => Err(self.bad("needs more items than are on the stack")),
        }
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Result<ValueId> {
        let at = self.below(1)?;
        let top = self.stack[at];
        self.stack.truncate(at);
        Ok(top)
    }

    #[inline(always)]
    pub(super) fn pop_two(&mut self) -> Result<(ValueId, ValueId)> {
        let at = self.below(2)?;
        let two = (self.stack[at], self.stack[at + 1]);
        self.stack.truncate(at);
        Ok(two)
    }

    #[inline(always)]
    pub(super) fn top(&self) -> Result<ValueId> {
        Ok(self.stack[self.below(1)?])
    }

    /// Closes the last mark and says where it stood.
    #[inline(always)]
    pub(super) fn pop_mark(&mut self) -> Result<usize> {
        self.marks.pop().ok_or_else(|| self.bad("finds no MARK"))
    }

    pub(super) fn popped_to_mark(&mut self) -> Result<Vec<ValueId>> {
        let at = self.pop_mark()?;
        self.take_ids(self.stack.len() - at)?;
        let items = self.stack[at..].to_vec();
        self.stack.truncate(at);
        Ok(items)
    }

    pub(super) fn tuple_of(&mut self, n: usize) -> Result<()> {
        let at = self.below(n)?;
        self.tuple_from(at)
    }

    /// Makes a tuple of the stack above `at`, or finds one of the same integers.
    pub(super) fn tuple_from(&mut self, at: usize) -> Result<()> {
        let items = &self.stack[at..];
        if let Some(known) = self.recent.tuple(&self.values, items) {
            self.stack.truncate(at);
            self.stack.push(known);
            return Ok(());
        }
        let items = items.to_vec();
        self.stack.truncate(at);
        let slot = self.recent.slot_of(&self.values, &items);
        self.push_tuple(items)?;
        self.recent.keep(slot, self.top()?);
        Ok(())
    }

    /// Pushes an integer, or one of the same number that is there already.
    pub(super) fn push_int(&mut self, n: i64) -> Result<()> {
        if let Some(known) = self.recent.int(&self.values, n) {
            self.stack.push(known);
            return Ok(());
        }
        let id = self.push(Value::Int(n))?;
        self.recent.keep(Some(Recent::slot_of_int(n)), id);
        Ok(())
    }

    /// Takes keys and values from the stack above `at`.
    pub(super) fn pairs_from(&mut self, at: usize) -> Result<Vec<(ValueId, ValueId)>> {
        let pairs = self.stack[at..].chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.bad("finds a key without a value"));
        }
        let entries = pairs.map(|p| (p[0], p[1])).collect();
        self.stack.truncate(at);
        Ok(entries)
    }

    // The memo.

    #[inline(always)]
    pub(super) fn put(&mut self, at: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.put(at, top, self.values.len() - self.inner_from);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn get(&mut self, at: u64) -> Result<()> {
        let Some(id) = self.memo.get(at) else {
            return Err(self.bad(&format!("asks for memo entry {at}, which was never put")));
        };
        self.stack.push(id);
        Ok(())
    }

    // Containers.

    /// What stands right below the items that begin at `at`.
    pub(super) fn container(&self, at: usize) -> Result<ValueId> {
        match at.checked_sub(1) {
            Some(below) if below >= self.floor() => Ok(self.stack[below]),
            _ => Err(self.bad("finds no container below its items")),
        }
    }

    pub(super) fn append(&mut self, at: usize) -> Result<()> {
        let target = self.container(at)?;
        let items = match self.values.get_mut(target) {
            Value::List(items) => items,
            Value::Object(object) => &mut object.items,
            _ => return Err(self.bad("adds to what is neither a list nor an object")),
        };
        let before = items.capacity();
        items.extend_from_slice(&self.stack[at..]);
        let grown = items.capacity() - before;
        self.stack.truncate(at);
        self.grew(grown)
    }

    pub(super) fn add_items(&mut self) -> Result<()> {
        let at = self.pop_mark()?;
        let target = self.container(at)?;
        let items = match self.values.get_mut(target) {
            Value::Set(items) => {
                if items.is_empty() && at < self.stack.len() {
                    self.keyed.push(target);
                }
                items
            }
            Value::Object(object) => &mut object.items,
            _ => return Err(self.bad("adds to what is neither a set nor an object")),
        };
        let before = items.capacity();
        items.extend_from_slice(&self.stack[at..]);
        let grown = items.capacity() - before;
        self.stack.truncate(at);
        self.grew(grown)
    }

    pub(super) fn set_items(&mut self, at: usize) -> Result<()> {
        let target = self.container(at)?;
        let pairs = self.stack[at..].chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.bad("finds a key without a value"));
        }
        let pairs = pairs.map(|p| (p[0], p[1]));
        let entries = match self.values.get_mut(target) {
            Value::Dict(dict) => {
                if dict.entries.is_empty() && at < self.stack.len() {
                    self.keyed.push(target);
                }
                &mut dict.entries
            }
            Value::Object(object) => &mut object.entries,
            _ => return Err(self.bad("sets items of what is neither a dict nor an object")),
        };
        let before = entries.capacity();
        entries.extend(pairs);
        let grown = 2 * (entries.capacity() - before);
        self.stack.truncate(at);
        self.grew(grown)
    }

    /// Counts the ids by which a container grew.
    #[inline(always)]
    fn grew(&mut self, ids: usize) -> Result<()> {
        if ids == 0 { Ok(()) } else { self.take_ids(ids) }
    }
}
