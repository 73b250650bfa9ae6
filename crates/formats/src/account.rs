//! The memory that what is read of a file takes: an account that a reader charges before it keeps something.

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::value::{Dict, Object, Value};

/// What is left of [`Limits::memory`].
#[derive(Clone, Debug)]
pub(crate) struct Account {
    left: u64,
    most: u64,
}

impl Account {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { left: limits.memory, most: limits.memory }
    }

    /// The account of a file, or of the files of a set together, of so many bytes: weights of a terabyte may have more
    /// tensors than a megabyte of promises.
    pub(crate) fn of(limits: &Limits, length: u64) -> Self {
        let most = limits.memory.saturating_add(length / Limits::LENGTH_PER_BYTE);
        Self { left: most, most }
    }

    /// The same account once it is known that there are so many bytes.
    pub(crate) fn longer(&self, length: u64) -> Self {
        let more = length / Limits::LENGTH_PER_BYTE;
        Self { left: self.left.saturating_add(more), most: self.most.saturating_add(more) }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// `LimitExceeded` if fewer are left.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.exceeded()),
        }
    }

    /// Takes the memory of so many items in a list that doubles when it is full.
    ///
    /// # Errors
    /// As [`Account::charge`].
    pub(crate) fn charge_items<T>(&mut self, items: usize) -> Result<()> {
        self.charge((items as u64).saturating_mul(size_of::<T>() as u64))
    }

    /// Gives back what is no longer kept.
    pub(crate) fn refund(&mut self, bytes: u64) {
        self.left = self.left.saturating_add(bytes).min(self.most);
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    #[cold]
    pub(crate) fn exceeded(&self) -> Error {
        exceeded(self.most)
    }
}

/// What the parts of a value take outside of the arena, in bytes.
pub(crate) fn parts_of(value: &Value) -> u64 {
    match value {
        Value::Str(text) => block(text.len()),
        Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::BigInt(bytes) => block(bytes.len()),
        Value::List(p) | Value::Tuple(p) | Value::Set(p) | Value::FrozenSet(p) => block(p.len() * 4),
        Value::Dict(dict) => block(size_of::<Dict>()) + block(dict.entries.len() * 8),
        Value::Global(g) => 32 + block(g.module.len()) + block(g.name.len()),
        Value::Object(o) => {
            block(size_of::<Object>()) + block(o.items.len() * 4) + block(o.entries.len() * 8)
        }
        _ => 0,
    }
}

/// The error of a file that takes more memory than it may.
#[cold]
pub(crate) fn exceeded(most: u64) -> Error {
    let what = format!("what is read of the file into memory takes more than the limit of {most} bytes");
    Error::limit(what).with_hint(RAISE)
}

/// What a tensor takes in all, beside its name in the archive: its description there and in what wraps the archive, its
/// place in the plan of a conversion, its line of the output. Measured with conversions of many empty tensors.
pub(crate) const TENSOR: u64 = 768;

/// How to raise the limit.
pub(crate) const RAISE: &str =
    "if you trust the file, allow more: `--memory 2GiB` of the command, Limits::memory of the library";

/// What the allocator takes for so many bytes: its own word, and whole steps of sixteen.
pub(crate) const fn block(bytes: usize) -> u64 {
    let all = (bytes as u64).saturating_add(8 + 15) & !15;
    if all < 32 { 32 } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_account_gives_what_it_has_and_no_more() {
        let mut account = Account::new(&Limits { memory: 100, ..Limits::default() });
        account.charge(60).unwrap();
        let error = account.charge(41).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("100 bytes"), "{error}");
        account.charge(40).unwrap();
        account.refund(1000);
        assert_eq!(account.left(), 100);
        assert!(account.charge(u64::MAX).is_err());
        assert_eq!([block(0), block(24), block(25), block(100)], [32, 32, 48, 112]);
    }
}
