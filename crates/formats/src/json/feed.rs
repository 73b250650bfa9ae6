//! A long JSON text of a file, window by window: of a header of a hundred megabytes only what is made of it is kept.

use super::Lexer;
use crate::account::exceeded;
use crate::error::{Error, Result};
use crate::source::ReadAt;

/// The first window. Most headers fit.
const FIRST: usize = 256 << 10;

/// A text that is lexed in steps, each of which fits a window.
pub(crate) struct Feed<'a> {
    reader: &'a dyn ReadAt,
    /// Where the text begins in the reader, for errors; and the first byte that is not in the window yet, and the end.
    next: u64,
    end: u64,
    /// What is in the window, from `base` on, and how much of it was taken.
    text: String,
    base: u64,
    taken: usize,
    /// The first bytes of a character whose others are not in the window.
    cut: Vec<u8>,
    /// How much is read at once, and at most.
    size: usize,
    most: u64,
}

impl<'a> Feed<'a> {
    /// The text between two offsets of a reader, with windows of at most so many bytes.
    pub(crate) fn new(reader: &'a dyn ReadAt, start: u64, end: u64, most: u64) -> Self {
        let (text, cut) = (String::new(), Vec::new());
        Self { reader, next: start, end, text, base: start, taken: 0, cut, size: FIRST, most }
    }

    /// The offset of what comes next.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.taken as u64
    }

    /// Takes what `run` takes. It is run again with more of the text where it came to the window's end, so it must
    /// keep nothing but in its result.
    pub(crate) fn step<T>(&mut self, run: impl Fn(&mut Lexer<'_>) -> Result<T>) -> Result<T> {
        loop {
            let mut lexer = Lexer::new(self.text.get(self.taken..).unwrap_or_default(), self.offset());
            let result = run(&mut lexer);
            let last = self.next == self.end && self.cut.is_empty();
            // A token may go on behind the window.
            let cut_off = match &result {
                Ok(_) => lexer.rest().is_empty(),
                Err(_) => lexer.rest().iter().all(|b| b.is_ascii_alphanumeric() || b"+-.\\".contains(b)),
            };
            if last || !cut_off {
                self.taken = self.text.len() - lexer.rest().len();
                return result;
            }
            self.refill()?;
        }
    }

    /// Drops white space, however long.
    pub(crate) fn blanks(&mut self) -> Result<Option<u8>> {
        loop {
            let mut lexer = Lexer::new(self.text.get(self.taken..).unwrap_or_default(), self.offset());
            let next = lexer.peek();
            self.taken = self.text.len() - lexer.rest().len();
            if next.is_some() || (self.next == self.end && self.cut.is_empty()) {
                return Ok(next);
            }
            self.refill()?;
        }
    }

    /// Takes an opening bracket, and the closing one if it is next; whether a first part follows.
    pub(crate) fn open(&mut self, open: u8, close: u8) -> Result<bool> {
        self.blanks()?;
        self.step(|lexer| lexer.expect(open))?;
        if self.blanks()? != Some(close) {
            return Ok(true);
        }
        self.step(|lexer| lexer.expect(close))?;
        Ok(false)
    }

    /// After a part: whether another one follows. Takes the comma or the closing bracket.
    pub(crate) fn more(&mut self, close: u8) -> Result<bool> {
        self.blanks()?;
        self.step(|lexer| lexer.more(close))
    }

    /// Reads on. What was taken makes place; if that is little, the window grows.
    fn refill(&mut self) -> Result<()> {
        let rest = self.text.len() - self.taken;
        if rest.saturating_mul(2) > self.size {
            self.size = self.size.saturating_mul(2);
            if self.size as u64 > self.most.max(FIRST as u64) {
                return Err(exceeded(self.most).at_offset(self.offset()));
            }
        }
        self.base += self.taken as u64;
        self.text.drain(..self.taken);
        self.taken = 0;
        let room = (self.size - rest.min(self.size)).max(FIRST / 2);
        let more = usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(room);
        let mut bytes = std::mem::take(&mut self.cut);
        let known = bytes.len();
        bytes.resize(known + more, 0);
        self.reader.read_at(self.next, bytes.get_mut(known..).unwrap_or_default())?;
        self.next += more as u64;
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text.push_str(text),
            Err(e) => {
                let (valid, rest) = bytes.split_at(e.valid_up_to());
                // What is cut off may go on in the next window.
                if e.error_len().is_some() || self.next == self.end {
                    let at = self.base + (self.text.len() + valid.len()) as u64;
                    return Err(Error::malformed("the JSON text is not UTF-8").at_offset(at));
                }
                self.text.push_str(&String::from_utf8_lossy(valid));
                self.cut = rest.to_vec();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn numbers(text: &[u8], most: u64) -> Result<Vec<u64>> {
        let owned = text.to_vec();
        let mut feed = Feed::new(&owned, 0, text.len() as u64, most);
        let mut out = Vec::new();
        if feed.step(|l| l.open(b'[', b']'))? {
            loop {
                feed.blanks()?;
                out.push(feed.step(|l| l.unsigned())?);
                if !feed.step(|l| l.more(b']'))? {
                    break;
                }
            }
        }
        match feed.blanks()? {
            Some(_) => Err(Error::malformed("more")),
            None => Ok(out),
        }
    }

    #[test]
    fn windows_cut_nothing() {
        let wanted: Vec<u64> = (0..200_000).map(|n| n * 7919).collect();
        let text = format!("{wanted:?}");
        assert_eq!(numbers(text.as_bytes(), 1 << 20).unwrap(), wanted);
        let spaced = format!("[{}1,{}2]{}", " ".repeat(FIRST * 3 + 1), "\n".repeat(FIRST), " ".repeat(FIRST));
        assert_eq!(numbers(spaced.as_bytes(), 1 << 20).unwrap(), [1, 2]);
        assert!(numbers(b"[1,2", 1 << 20).is_err());
        assert!(numbers(format!("[1{}x]", ",1".repeat(FIRST)).as_bytes(), 1 << 20).is_err());
    }

    #[test]
    fn a_long_token_needs_a_large_window_and_a_cut_character_none() {
        let text = format!("\"{}\"", "ä€😀".repeat(FIRST)).into_bytes();
        let step = |most| Feed::new(&text, 0, text.len() as u64, most).step(|l| Ok(l.string()?.into_owned()));
        assert_eq!(step(64 << 20).unwrap().len(), text.len() - 2);
        assert_eq!(step(1 << 20).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let mut broken = text.clone();
        let at = broken.len() - 2;
        broken[at] = 0xff;
        let error =
            Feed::new(&broken, 0, broken.len() as u64, 64 << 20).step(|l| Ok(l.string()?.into_owned()));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Malformed);
    }
}
