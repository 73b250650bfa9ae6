//! The memo: what PUT and MEMOIZE keep for GET.

use std::collections::HashMap;

use crate::ValueId;

/// What PUT keeps. Every writer numbers from 0 without gaps, so that is a vector; an index out of line costs an
/// entry in a map, never the space up to it.
#[derive(Default)]
pub(super) struct Memo {
    /// Indices of values, or `NONE`: half of what options would take.
    dense: Vec<u32>,
    sparse: HashMap<u64, ValueId>,
    /// How many entries there are: MEMOIZE's next index.
    pub(super) count: u64,
}

/// The mark of a place to which nothing was put. No value has this index: `Values` would be full before.
const NONE: u32 = u32::MAX;

impl Memo {
    /// The memory that it takes, in bytes; a table that grows stands beside the old one.
    pub(super) fn memory(&self) -> u64 {
        (self.dense.capacity() * 4 + self.sparse.capacity() * 60) as u64
    }

    /// Room for so many entries without a gap.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self { dense: Vec::with_capacity(entries), ..Self::default() }
    }

    #[inline(always)]
    pub(super) fn put(&mut self, at: u64, id: ValueId, values: usize) {
        let next = self.dense.len();
        if at == next as u64 && self.sparse.is_empty() {
            self.dense.push(id.index() as u32);
            self.count += 1;
        } else {
            self.put_out_of_line(at, id, values);
        }
    }

    pub(super) fn put_out_of_line(&mut self, at: u64, id: ValueId, values: usize) {
        let before = match usize::try_from(at) {
            // An index is in one of the two: what once went to the map stays there.
            Ok(i) if i <= values.max(self.dense.len()) && !self.sparse.contains_key(&at) => {
                if i >= self.dense.len() {
                    self.dense.resize(i + 1, NONE);
                }
                let before = std::mem::replace(&mut self.dense[i], id.index() as u32);
                (before != NONE).then_some(id)
            }
            _ => self.sparse.insert(at, id),
        };
        self.count += u64::from(before.is_none());
    }

    #[inline(always)]
    pub(super) fn get(&self, at: u64) -> Option<ValueId> {
        let dense = usize::try_from(at).ok().and_then(|i| self.dense.get(i).copied());
        let dense = dense.filter(|&index| index != NONE).map(ValueId::at);
        dense.or_else(|| self.sparse.get(&at).copied())
    }
}
