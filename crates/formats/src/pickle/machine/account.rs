//! What the values of a pickle take in memory, held against the account of the file.
//!
//! What lies outside of the arena (texts, the parts of containers) is counted when it is made; the arena, stack, memo and
//! marks are measured every so many opcodes, in which they cannot grow by much.

use super::Machine;
use crate::account::block;
use crate::{ErrorKind, Result, Value, ValueId};

/// How many opcodes are carried out between two looks.
pub(super) const EVERY: u32 = 1024;
/// How many marks may be open for each level of [`Limits::depth`](crate::Limits): what lies that deep cannot be walked.
/// Python's own pickler stops at a thousand levels.
pub(super) const OPEN_PER_LEVEL: usize = 4;
/// A part of this length is looked at before it is made.
const LARGE: u64 = 4096;

impl Machine<'_> {
    /// Counts an allocation of a value's part.
    #[inline(always)]
    pub(in crate::pickle) fn take_part(&mut self, bytes: usize) -> Result<()> {
        let taken = block(bytes);
        self.parts += taken;
        if taken >= LARGE { self.balance() } else { Ok(()) }
    }

    /// Counts an integer of so many digits, which takes half as many bytes if it is no small one.
    pub(super) fn take_digits(&mut self, digits: usize) -> Result<()> {
        if digits > 18 { self.take_part(digits / 2) } else { Ok(()) }
    }

    /// Counts what a list of ids grew by, or an allocation of ids.
    #[inline(always)]
    pub(super) fn take_ids(&mut self, ids: usize) -> Result<()> {
        self.take_part(ids.saturating_mul(size_of::<ValueId>()))
    }

    /// Looks at how many opcodes there were, how deep they nest, and at the account.
    #[cold]
    pub(super) fn audit(&mut self) -> Result<()> {
        self.ticks = EVERY;
        self.steps = match self.steps.checked_sub(EVERY.into()) {
            Some(left) => left,
            None => {
                let text = "the pickle has more opcodes than four for each value of the limit".to_owned();
                return Err(self.fail(ErrorKind::LimitExceeded, text).with_hint(crate::account::RAISE));
            }
        };
        if self.marks.len() > self.most_open {
            let text = format!("the values nest deeper than {} levels", self.most_open);
            return Err(self.fail(ErrorKind::LimitExceeded, text).with_hint("raise Limits::depth"));
        }
        self.balance()
    }

    /// Charges what there is more than at the last look, or gives back.
    pub(super) fn balance(&mut self) -> Result<()> {
        let ids = self.stack.capacity() + self.keyed.capacity() + 2 * self.marks.capacity();
        let places = self.lines.capacity() * 25 + self.pairs.capacity() * 13 + self.spans.capacity() * 25;
        let now = self.parts
            + (self.values.len() * size_of::<Value>() + ids * size_of::<ValueId>() + places) as u64
            + self.memo.memory()
            + self.outer.as_ref().map_or(0, super::nest::Outer::memory);
        if now < self.charged {
            self.account.refund(self.charged - now);
        } else if let Err(error) = self.account.charge(now - self.charged) {
            return Err(error.at_offset(self.base + self.start as u64).with_format("pickle"));
        }
        self.charged = now;
        Ok(())
    }

    /// What is left of the account, to charge what callers keep.
    pub(in crate::pickle) fn account_mut(&mut self) -> (&mut crate::Values, &mut crate::account::Account) {
        (&mut self.values, &mut self.account)
    }
}
