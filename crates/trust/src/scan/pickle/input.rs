//! A pickle's bytes through a window: what an opcode carries is passed over where nobody asks for it.

use weighbridge_formats::{ReadAt, Result, Source};

/// The size of the window.
const WINDOW: usize = 64 << 10;

/// Bytes from front to back, some of them twice.
pub(super) struct Input<'a> {
    reader: &'a dyn ReadAt,
    end: u64,
    window: Vec<u8>,
    /// Where the window begins, and where in it the next byte is.
    base: u64,
    at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(source: &'a Source, from: u64) -> Self {
        Self { reader: &**source.reader(), end: source.len(), window: Vec::new(), base: from, at: 0 }
    }

    /// Reads from another place on.
    pub(super) fn seek(&mut self, to: u64) {
        match to
            .checked_sub(self.base)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= self.window.len())
        {
            Some(at) => self.at = at,
            None => {
                self.window.clear();
                (self.base, self.at) = (to.min(self.end), 0);
            }
        }
    }

    /// Where the next byte is.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What is in the window from the next byte on; empty only at the end.
    fn rest(&mut self) -> Result<&[u8]> {
        if self.at >= self.window.len() {
            let base = self.offset();
            let left = self.end.saturating_sub(base).min(WINDOW as u64) as usize;
            self.window.clear();
            self.window.resize(left, 0);
            (self.base, self.at) = (base, 0);
            if let Err(error) = self.reader.read_at(base, &mut self.window) {
                self.window.clear();
                return Err(error);
            }
        }
        Ok(self.window.get(self.at..).unwrap_or_default())
    }

    /// The next byte; `None` at the end.
    #[inline]
    pub(super) fn byte(&mut self) -> Result<Option<u8>> {
        if let Some(&byte) = self.window.get(self.at) {
            self.at += 1;
            return Ok(Some(byte));
        }
        let byte = self.rest()?.first().copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    /// The next bytes; `None` if fewer are left.
    pub(super) fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>> {
        let mut out = [0; N];
        for place in &mut out {
            let Some(byte) = self.byte()? else { return Ok(None) };
            *place = byte;
        }
        Ok(Some(out))
    }

    /// Passes over bytes; whether so many were left.
    pub(super) fn skip(&mut self, count: u64) -> bool {
        match self.offset().checked_add(count).filter(|to| *to <= self.end) {
            Some(to) => {
                self.seek(to);
                true
            }
            None => false,
        }
    }

    /// Passes over a line and its end: the length without that, or `None` if there is no end.
    pub(super) fn line(&mut self) -> Result<Option<u64>> {
        let mut length = 0;
        loop {
            let rest = self.rest()?;
            if rest.is_empty() {
                return Ok(None);
            }
            match rest.iter().position(|b| *b == b'\n') {
                Some(n) => {
                    self.at += n + 1;
                    return Ok(Some(length + n as u64));
                }
                None => {
                    let n = rest.len();
                    length += n as u64;
                    self.at += n;
                }
            }
        }
    }

    /// Bytes at any place, at most so many; fewer at the end or where reading fails. The place of the next byte stays.
    pub(super) fn peek(&self, at: u64, most: usize) -> Vec<u8> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX).min(most);
        let start = at.checked_sub(self.base).and_then(|n| usize::try_from(n).ok());
        if let Some(here) = start.and_then(|s| self.window.get(s..s.checked_add(left)?)) {
            return here.to_vec();
        }
        let mut out = vec![0; left];
        match self.reader.read_at(at, &mut out) {
            Ok(()) => out,
            Err(_) => Vec::new(),
        }
    }
}
