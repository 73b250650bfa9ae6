//! Decoding in pieces: stopping where raw bytes stand behind a BUILD, going on in other bytes, and pickles that
//! are nested in the stream.

use super::Machine;
use super::memo::Memo;
use crate::account::Account;
use crate::value::Global;
use crate::{Error, Limits, Result, Value, ValueId};

/// Why the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pickle) enum Stop {
    /// At STOP.
    End,
    /// Behind the BUILD of this value.
    Built(ValueId),
}

/// A pickle that waits while another one, which stands in the middle of it, is decoded.
pub(super) struct Outer {
    pub(super) stack: Vec<ValueId>,
    pub(super) marks: Vec<usize>,
    memo: Memo,
    protocol: u8,
}

impl Outer {
    /// The memory that it takes, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memo.memory() + (self.stack.capacity() * 4 + self.marks.capacity() * 8) as u64
    }
}

impl<'a> Machine<'a> {
    /// A machine for a stream of a length that is given piece by piece. It stops at the BUILD of these classes.
    /// Bytes objects of at least `least` bytes stay where they are.
    pub(in crate::pickle) fn in_pieces(
        (limits, account): (&Limits, Account),
        end: u64,
        least: usize,
        stop_at: fn(&Global) -> bool,
    ) -> Self {
        let machine = Self { end, account, ..Self::new(&[], limits, least) };
        machine.stopping_at(stop_at)
    }

    /// The same machine, which stops at the BUILD of these classes.
    pub(in crate::pickle) fn stopping_at(mut self, stop_at: fn(&Global) -> bool) -> Self {
        self.stop_at = Some(stop_at);
        self
    }

    /// Where in the stream the machine stands.
    pub(in crate::pickle) fn offset(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// Where in the stream its last opcode began.
    pub(in crate::pickle) fn opcode_offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Whether the bytes ended within the opcode that it stands at, which can be carried out when there are more.
    pub(in crate::pickle) fn is_starved(&self) -> bool {
        self.starved.get()
    }

    /// How many bytes that opcode takes, if that is known.
    pub(in crate::pickle) fn needs(&self) -> u64 {
        self.needs.get()
    }

    /// How many bytes of the open frame are ahead.
    pub(in crate::pickle) fn frame_left(&self) -> u64 {
        self.frame_end.map_or(0, |end| end.saturating_sub(self.pos) as u64)
    }

    /// Goes on at an offset of the stream, from which on these are its bytes. The offset is that of the opcode
    /// that starved, or lies behind everything that was taken, outside of frames.
    pub(in crate::pickle) fn resume<'b>(self, bytes: &'b [u8], at: u64) -> Machine<'b> {
        // A frame's end may lie in bytes that were taken before; it is counted from the new beginning.
        let frame_end = self.frame_end.and_then(|end| {
            let end = (self.base + end as u64).checked_sub(at)?;
            usize::try_from(end).ok()
        });
        Machine {
            bytes,
            base: at,
            cut: false,
            starved: false.into(),
            needs: 0.into(),
            pos: 0,
            start: 0,
            frame_end,
            frameless: self.frameless,
            stop_at: self.stop_at,
            outer: self.outer,
            inner_from: self.inner_from,
            max_values: self.max_values,
            end: self.end,
            least: self.least,
            spans: self.spans,
            left: self.left,
            account: self.account,
            parts: self.parts,
            charged: self.charged,
            ticks: self.ticks,
            most_open: self.most_open,
            steps: self.steps,
            protocol: self.protocol,
            values: self.values,
            stack: self.stack,
            marks: self.marks,
            memo: self.memo,
            keyed: self.keyed,
            copied: self.copied,
            singles: self.singles,
            small: self.small,
            recent: self.recent,
            lines: self.lines,
            pairs: self.pairs,
        }
    }

    /// Whether the caller wants to know of a BUILD. What is nested in the stream is a plain pickle.
    pub(super) fn stops_at(&self, built: ValueId) -> bool {
        let Some(wanted) = self.stop_at.filter(|_| self.outer.is_none()) else { return false };
        match self.values.get(built) {
            Value::Object(object) => self.values.global(object.class).is_some_and(wanted),
            _ => false,
        }
    }

    /// Begins a pickle of its own in the stream, whose value will take the place of what is on top of the stack.
    pub(in crate::pickle) fn nest(&mut self) -> Result<()> {
        if self.outer.is_some() {
            return Err(self.bad("begins a nested pickle in a nested pickle"));
        }
        self.pop()?;
        self.outer = Some(Outer {
            stack: std::mem::take(&mut self.stack),
            marks: std::mem::take(&mut self.marks),
            memo: std::mem::take(&mut self.memo),
            protocol: self.protocol,
        });
        // A nested pickle pays for its own memo, not the file for every nested one's.
        self.inner_from = self.values.len();
        self.frame_end = None;
        Ok(())
    }

    /// Whether a nested pickle is being decoded.
    pub(in crate::pickle) fn is_nested(&self) -> bool {
        self.outer.is_some()
    }

    /// Ends a nested pickle at its STOP, and goes on with the one around it. Returns its value.
    pub(in crate::pickle) fn unnest(&mut self) -> Result<ValueId> {
        let root = self.pop()?;
        let outer = self.outer.take().ok_or_else(|| Error::malformed("no pickle is nested here"))?;
        self.stack = outer.stack;
        self.marks = outer.marks;
        self.memo = outer.memo;
        self.protocol = outer.protocol;
        self.inner_from = 0;
        self.frame_end = None;
        self.stack.push(root);
        Ok(root)
    }
}
