//! What a pickle that cannot be followed to its end had built.

use std::ops::Range;

use super::{Done, Machine};
use crate::value::Dict;
use crate::{Result, Value, ValueId};

impl Machine<'_> {
    /// The same machine, which passes over frames: a frame that lies hides nothing.
    pub(in crate::pickle) fn without_frames(mut self) -> Self {
        self.frameless = true;
        self
    }

    /// What there is where the machine stands. What waits on the stack goes where the opcodes that are missing would
    /// have put it: items into the container below them, that one into the next, down to the bottom.
    pub(in crate::pickle) fn rest(
        mut self,
        read: &mut dyn FnMut(Range<u64>) -> Result<Vec<u8>>,
    ) -> Result<Done> {
        loop {
            while let Some(at) = self.marks.pop() {
                let items = self.stack.split_off(at.min(self.stack.len()));
                self.settle(items)?;
            }
            let left = self.folded()?;
            match self.outer.take() {
                Some(outer) => {
                    (self.stack, self.marks) = (outer.stack, outer.marks);
                    self.stack.extend(left);
                }
                None => {
                    let root = match left[..] {
                        [one] => one,
                        _ => self.values.push(Value::Tuple(left))?,
                    };
                    self.stack.push(root);
                    return self.stop(read);
                }
            }
        }
    }

    /// Puts items that stood above a mark into what stands below it, as far as that takes them.
    fn settle(&mut self, items: Vec<ValueId>) -> Result<()> {
        let Some(&below) = self.stack.last() else {
            self.stack.extend(items);
            return Ok(());
        };
        let pairs = || items.chunks_exact(2).map(|p| (p[0], p[1]));
        match self.values.get_mut(below) {
            Value::Dict(dict) => {
                dict.entries.extend(pairs());
                self.keyed.push(below);
            }
            Value::List(list) => list.extend_from_slice(&items),
            Value::Object(object) => object.entries.extend(pairs()),
            _ => {
                // Arguments of a call that never came: kept for what whole containers are among them.
                let whole = |id: &ValueId| !matches!(self.values.get(*id), Value::Persistent(_));
                let kept: Vec<ValueId> = items.into_iter().filter(whole).collect();
                let kept = self.values.push(Value::Tuple(kept))?;
                self.stack.push(kept);
            }
        }
        Ok(())
    }

    /// The stack with single items put into the containers below them: `[dict, key, value]`, `[list, item]`.
    fn folded(&mut self) -> Result<Vec<ValueId>> {
        let mut stack = std::mem::take(&mut self.stack);
        loop {
            let (last, below, base) = match stack[..] {
                [.., base, below, last] => (last, below, Some(base)),
                [below, last] => (last, below, None),
                _ => return Ok(stack),
            };
            let keyed = matches!(self.values.get(below), Value::Str(_) | Value::Int(_) | Value::Bytes(_));
            if let Some(base) = base.filter(|_| keyed)
                && let Value::Dict(dict) = self.values.get_mut(base)
            {
                let dict: &mut Dict = dict;
                dict.entries.push((below, last));
                self.keyed.push(base);
                stack.truncate(stack.len() - 2);
            } else if let Value::List(list) = self.values.get_mut(below) {
                list.push(last);
                stack.truncate(stack.len() - 1);
            } else {
                return Ok(stack);
            }
        }
    }
}
