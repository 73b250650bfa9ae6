//! A deflated member, read from front to back.

use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Error, Result};
use crate::source::{Access, ReadAt, Slice, check_range};

/// A deflated member. Reading on costs what it should; going back starts over at the first byte.
pub(crate) struct Inflate {
    slice: Slice,
    size: u64,
    crc32: u32,
    label: Box<str>,
    state: Mutex<Option<State>>,
}

struct State {
    decoder: Decompress,
    /// Compressed bytes fetched and not yet used.
    input: Vec<u8>,
    used: usize,
    /// The next compressed byte to fetch.
    next: u64,
    /// The next byte of content.
    position: u64,
    hasher: Hasher,
}

/// How much compressed data is fetched at a time.
const FETCH: u64 = 64 << 10;

impl Inflate {
    pub(crate) fn new(slice: Slice, size: u64, crc32: u32, label: &str) -> Self {
        Self { slice, size, crc32, label: label.into(), state: Mutex::new(None) }
    }

    fn bad(&self, what: &str) -> Error {
        Error::malformed(format!("member {:?}: {what}", self.label)).at_offset(self.slice.offset())
    }

    /// Inflates exactly `out.len()` bytes.
    fn fill(&self, state: &mut State, out: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < out.len() {
            if state.used == state.input.len() && state.next < self.slice.len() {
                state.input.resize((self.slice.len() - state.next).min(FETCH) as usize, 0);
                self.slice.read_at(state.next, &mut state.input)?;
                state.next += state.input.len() as u64;
                state.used = 0;
            }
            let (in_before, out_before) = (state.decoder.total_in(), state.decoder.total_out());
            let status = state
                .decoder
                .decompress(&state.input[state.used..], &mut out[done..], FlushDecompress::None)
                .map_err(|e| self.bad("its deflated data are damaged").with_source(e))?;
            let taken = (state.decoder.total_in() - in_before) as usize;
            let made = (state.decoder.total_out() - out_before) as usize;
            state.used += taken;
            done += made;
            let stuck = taken == 0 && made == 0;
            if done < out.len() && (status == Status::StreamEnd || (stuck && state.next >= self.slice.len()))
            {
                return Err(self.bad("it inflates to fewer bytes than declared"));
            }
        }
        state.hasher.update(out);
        state.position += out.len() as u64;
        if state.position == self.size {
            let found = state.hasher.clone().finalize();
            if found != self.crc32 {
                let what = format!(
                    "the CRC-32 of {:?} is {found:08x}, and should be {:08x}",
                    self.label, self.crc32
                );
                return Err(Error::mismatch(what).at_offset(self.slice.offset()));
            }
        }
        Ok(())
    }

    fn advance(&self, state: &mut State, to: u64) -> Result<()> {
        let mut skipped = [0; 8192];
        while state.position < to {
            let step = (to - state.position).min(skipped.len() as u64) as usize;
            self.fill(state, &mut skipped[..step])?;
        }
        Ok(())
    }

    fn at<'s>(&self, state: &'s mut Option<State>, offset: u64) -> Result<&'s mut State> {
        if state.as_ref().is_some_and(|s| s.position > offset) {
            *state = None;
        }
        let state = state.get_or_insert_with(|| State {
            decoder: Decompress::new(false),
            input: Vec::new(),
            used: 0,
            next: 0,
            position: 0,
            hasher: Hasher::new(),
        });
        self.advance(state, offset)?;
        Ok(state)
    }
}

impl ReadAt for Inflate {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.size)?;
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.at(&mut guard, offset).and_then(|state| self.fill(state, buf));
        if result.is_err() {
            *guard = None; // A decoder that failed halfway has no position any more.
        }
        result
    }

    fn access(&self) -> Access {
        Access::Sequential
    }

    fn finish(&self) -> Result<()> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let position = guard.as_ref().map_or(0, |s| s.position);
        let result = self.at(&mut guard, position).and_then(|state| self.advance(state, self.size));
        if result.is_err() {
            *guard = None;
        }
        result
    }
}
