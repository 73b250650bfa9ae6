//! What the machine takes from the stream, and its errors, which say where in the stream they are.

use super::super::{opcodes as op, text};
use super::Machine;
use crate::{Error, ErrorKind, Result, Value};

impl<'a> Machine<'a> {
    #[cold]
    pub(super) fn fail(&self, kind: ErrorKind, text: String) -> Error {
        Error::new(kind, text).at_offset(self.base + self.start as u64).with_format("pickle")
    }

    /// A `Malformed` that begins with the opcode's name.
    #[cold]
    pub(in crate::pickle) fn bad(&self, what: &str) -> Error {
        let name = self.bytes.get(self.start).and_then(|b| op::name(*b)).unwrap_or("an opcode");
        self.fail(ErrorKind::Malformed, format!("{name} {what}"))
    }

    #[cold]
    pub(super) fn truncated(&self) -> Error {
        if self.cut {
            let text = format!("the pickle is larger than the limit of {} bytes", self.bytes.len());
            return self.fail(ErrorKind::LimitExceeded, text).with_hint("raise Limits::header_bytes");
        }
        self.starved.set(true);
        match self.bytes.get(self.start) {
            Some(_) => self.bad("needs more bytes than are left"),
            None => self.fail(ErrorKind::Malformed, "the pickle ends without STOP".into()),
        }
    }

    // Arguments in the file.

    #[inline(always)]
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.pos..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.pos += taken.len();
                Ok(taken)
            }
            None => Err(self.short(n)),
        }
    }

    /// The error where `n` more bytes are wanted than there are.
    #[cold]
    pub(super) fn short(&self, n: u64) -> Error {
        self.needs.set(n.saturating_add((self.pos - self.start) as u64));
        self.truncated()
    }

    #[inline(always)]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes[self.pos..].first_chunk::<N>() {
            Some(taken) => {
                self.pos += N;
                Ok(*taken)
            }
            None => Err(self.truncated()),
        }
    }

    #[inline(always)]
    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline(always)]
    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length that the format holds as a signed number.
    pub(super) fn length32(&mut self) -> Result<u64> {
        let n = i32::from_le_bytes(self.array()?);
        u64::try_from(n).map_err(|_| self.bad("has a negative length"))
    }

    /// The bytes up to the next line feed.
    pub(super) fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.pos..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else { return Err(self.truncated()) };
        self.pos += end + 1;
        Ok(&rest[..end])
    }

    pub(super) fn memo_line(&mut self) -> Result<u64> {
        let line = self.line()?;
        let number =
            line.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(line).ok()?.parse().ok());
        number.flatten().ok_or_else(|| self.bad("has no memo index"))
    }

    pub(super) fn decimal(&self, digits: &[u8]) -> Result<Value> {
        text::integer(digits).ok_or_else(|| {
            if digits.len() > text::MAX_DIGITS {
                let text = format!("an integer of more than {} digits", text::MAX_DIGITS);
                return self.fail(ErrorKind::LimitExceeded, text);
            }
            self.bad("is no decimal integer")
        })
    }

    pub(super) fn frame(&mut self) -> Result<()> {
        let n = u64::from_le_bytes(self.array()?);
        if self.frameless {
            return Ok(());
        }
        if self.frame_end.is_some() {
            return Err(self.bad("begins inside another frame"));
        }
        // What is in the frame comes piece by piece; that all of it is there can be seen now.
        let left = self.end.saturating_sub(self.offset());
        match usize::try_from(n).ok().filter(|_| n <= left).and_then(|n| self.pos.checked_add(n)) {
            Some(end) => self.frame_end = Some(end),
            None => return Err(self.short(n)),
        }
        Ok(())
    }
}
