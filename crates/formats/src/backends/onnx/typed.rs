//! Elements in one of the typed fields (`float_data`, `int32_data`, …), read as the bytes they stand for.
//!
//! Floats and doubles in one packed run are the bytes already. All others are decoded from front to back: numbers are
//! varints of any length, and a field may be in several runs, packed or a number at a time.

use std::sync::{Mutex, PoisonError};

use super::cursor::{Cursor, Field};
use super::wire::{Wire, split_key, varint};
use crate::account::{Account, block};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::source::{Access, ReadAt, Source, check_range};

/// The typed fields, by number.
pub(super) const FLOAT_DATA: u32 = 4;
pub(super) const INT32_DATA: u32 = 5;
pub(super) const STRING_DATA: u32 = 6;
pub(super) const INT64_DATA: u32 = 7;
pub(super) const RAW_DATA: u32 = 9;
pub(super) const DOUBLE_DATA: u32 = 10;
pub(super) const UINT64_DATA: u32 = 11;

/// The typed field that holds elements of a dtype, by the schema's comments on the fields.
pub(super) fn field_of(dtype: DType) -> u32 {
    match dtype {
        DType::F32 | DType::C64 => FLOAT_DATA,
        DType::F64 | DType::C128 => DOUBLE_DATA,
        DType::I64 => INT64_DATA,
        DType::U64 | DType::U32 => UINT64_DATA,
        _ => INT32_DATA,
    }
}

/// The name of a data field.
pub(super) fn name_of(field: u32) -> &'static str {
    match field {
        FLOAT_DATA => "float_data",
        INT32_DATA => "int32_data",
        STRING_DATA => "string_data",
        INT64_DATA => "int64_data",
        RAW_DATA => "raw_data",
        DOUBLE_DATA => "double_data",
        _ => "uint64_data",
    }
}

/// Where the numbers of a typed field are: the part of the tensor's message from its first run to its last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) field: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The content of the only run, if there is one alone and it is packed.
    pub(super) packed: Option<(u64, u64)>,
}

impl Numbers {
    /// The numbers of which this is the first run.
    pub(super) fn new(run: &Field) -> Self {
        let packed = (run.wire == Wire::Bytes).then_some((run.content, run.len()));
        Self { field: run.number, start: run.start, end: run.end, packed }
    }

    /// Takes in another run.
    pub(super) fn extend(&mut self, run: &Field) {
        self.end = run.end;
        self.packed = None;
    }

    /// How many bits of a tensor a number gives: 4-bit and 2-bit elements come a byte a number.
    fn bits(dtype: DType) -> u64 {
        match dtype {
            DType::F6E2M3 | DType::F6E3M2 => 6,
            DType::C64 => 32,
            DType::C128 => 64,
            _ => dtype.bits().max(8),
        }
    }

    /// The span of the file that is the elements themselves, where that is so.
    pub(super) fn plain(&self) -> Option<(u64, u64)> {
        self.packed.filter(|_| matches!(self.field, FLOAT_DATA | DOUBLE_DATA))
    }
}

/// The elements as bytes.
pub(super) struct Typed {
    source: Source,
    numbers: Numbers,
    dtype: DType,
    bytes: u64,
    state: Mutex<State>,
}

/// Where the decoder is.
struct State {
    /// The next byte of the file that is fetched.
    at: u64,
    /// What has been fetched and not used.
    input: Vec<u8>,
    used: usize,
    /// What is left of a packed run, in bytes; 0 between runs.
    run: u64,
    /// The next byte of the tensor.
    position: u64,
    /// Bits of the tensor that do not fill a byte yet, or bytes that were not asked for yet, the lowest first.
    carry: u128,
    carry_bits: u32,
}

const FETCH: u64 = 64 << 10;

impl Typed {
    /// `bytes` is what dtype and shape take.
    pub(super) fn new(source: &Source, numbers: Numbers, dtype: DType, bytes: u64) -> Self {
        let state = Mutex::new(State::new(&numbers));
        Self { source: source.clone(), numbers, dtype, bytes, state }
    }

    fn bad(&self, what: impl Into<String>, at: u64) -> Error {
        Error::malformed(format!("`{}`: {}", name_of(self.numbers.field), what.into())).at_offset(at)
    }

    /// Makes at least ten bytes of input available, or all that are left.
    fn fetch(&self, state: &mut State) -> Result<()> {
        if state.input.len() - state.used >= 16 || state.at >= self.numbers.end {
            return Ok(());
        }
        state.input.drain(..state.used);
        state.used = 0;
        let (old, more) = (state.input.len(), (self.numbers.end - state.at).min(FETCH));
        state.input.resize(old + more as usize, 0);
        self.source.reader().read_at(state.at, &mut state.input[old..])?;
        state.at += more;
        Ok(())
    }

    /// The next number's bits, `None` behind the last.
    fn number(&self, state: &mut State) -> Result<Option<u64>> {
        let fixed = match self.numbers.field {
            FLOAT_DATA => Some((Wire::Fixed32, 4)),
            DOUBLE_DATA => Some((Wire::Fixed64, 8)),
            _ => None,
        };
        let mut single = false;
        while state.run == 0 && !single {
            self.fetch(state)?;
            let place = state.at - (state.input.len() - state.used) as u64;
            let short = || self.bad("a message ends within a number", place);
            if place >= self.numbers.end {
                return Ok(None);
            }
            let (key, len) = varint(&state.input[state.used..]).ok_or_else(short)?;
            state.used += len;
            let (field, wire) = split_key(key).map_err(|e| e.at_offset(place))?;
            let ours = field == self.numbers.field;
            // Other fields of the tensor may stand between two runs.
            let skip = match wire {
                Wire::Bytes => {
                    let (run, len) = varint(&state.input[state.used..]).ok_or_else(short)?;
                    state.used += len;
                    if ours {
                        state.run = run;
                        continue;
                    }
                    run
                }
                _ if ours => {
                    single = true;
                    if wire != fixed.map_or(Wire::Varint, |f| f.0) {
                        return Err(self.bad("a number has the wire type of another field", place));
                    }
                    continue;
                }
                Wire::Fixed32 => 4,
                Wire::Fixed64 => 8,
                Wire::Varint => varint(&state.input[state.used..]).ok_or_else(short)?.1 as u64,
            };
            let there = (state.input.len() - state.used) as u64;
            if skip <= there {
                state.used += skip as usize;
            } else {
                let to = state.at.checked_add(skip - there).filter(|&to| to <= self.numbers.end);
                state.at = to.ok_or_else(short)?;
                state.input.clear();
                state.used = 0;
            }
        }
        self.fetch(state)?;
        let place = state.at - (state.input.len() - state.used) as u64;
        let rest = &state.input[state.used..];
        let rest = if single { rest } else { &rest[..rest.len().min(state.run.min(FETCH) as usize)] };
        let (number, len) = match fixed {
            Some((_, 4)) => (rest.first_chunk().map(|b| u64::from(u32::from_le_bytes(*b))), 4),
            Some(_) => (rest.first_chunk().map(|b| u64::from_le_bytes(*b)), 8),
            None => varint(rest).map_or((None, 0), |(n, len)| (Some(n), len)),
        };
        let number = number.ok_or_else(|| self.bad("its run ends within a number", place))?;
        state.used += len;
        if !single {
            state.run -= len as u64;
        }
        Ok(Some(number))
    }

    /// The bits that a number stands for.
    fn element(&self, number: u64, bits: u64) -> Result<u64> {
        if bits == 64 || matches!(self.numbers.field, FLOAT_DATA | DOUBLE_DATA) {
            return Ok(number);
        }
        // An int32 is written as 64 bits, with its sign extended. Narrow elements are written by some as signed, by
        // some as unsigned numbers.
        let signed = number as i64;
        let (low, high) = (-(1i64 << (bits - 1)), (1i64 << bits) - 1);
        if !(low..=high).contains(&signed) {
            let what = format!("{signed} is no element of {}", self.dtype);
            return Err(self.bad(what, self.numbers.start));
        }
        Ok(number & ((1 << bits) - 1))
    }

    /// Decodes exactly `out.len()` bytes.
    fn fill(&self, state: &mut State, out: &mut [u8]) -> Result<()> {
        let bits = Numbers::bits(self.dtype);
        let mut done = 0;
        while done < out.len() {
            if state.carry_bits >= 8 {
                out[done] = state.carry as u8;
                state.carry >>= 8;
                state.carry_bits -= 8;
                done += 1;
                continue;
            }
            match self.number(state)? {
                Some(number) => {
                    state.carry |= u128::from(self.element(number, bits)?) << state.carry_bits;
                    state.carry_bits += bits as u32;
                }
                None => {
                    let what = format!(
                        "its numbers make {} bytes, and the tensor has {}",
                        state.position + done as u64,
                        self.bytes
                    );
                    return Err(self.bad(what, self.numbers.start));
                }
            }
        }
        state.position += out.len() as u64;
        if state.position == self.bytes
            && (state.carry_bits > 0 && self.bytes > 0 || self.number(state)?.is_some())
        {
            let what = format!("it has more numbers than the {} bytes of the tensor", self.bytes);
            return Err(self.bad(what, self.numbers.start));
        }
        Ok(())
    }

    fn advance(&self, state: &mut State, to: u64) -> Result<()> {
        let mut skipped = [0; 4096];
        while state.position < to {
            let step = (to - state.position).min(skipped.len() as u64) as usize;
            self.fill(state, &mut skipped[..step])?;
        }
        Ok(())
    }

    fn locked(&self, work: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        if result.is_err() {
            // A decoder that failed halfway has no position any more.
            *state = State::new(&self.numbers);
        }
        result
    }
}

impl State {
    fn new(numbers: &Numbers) -> Self {
        Self { at: numbers.start, input: Vec::new(), used: 0, run: 0, position: 0, carry: 0, carry_bits: 0 }
    }
}

impl ReadAt for Typed {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.bytes)?;
        if buf.is_empty() {
            return Ok(());
        }
        self.locked(|state| {
            if state.position > offset {
                *state = State::new(&self.numbers);
            }
            self.advance(state, offset)?;
            self.fill(state, buf)
        })
    }

    fn access(&self) -> Access {
        Access::Sequential
    }

    fn finish(&self) -> Result<()> {
        self.locked(|state| self.advance(state, self.bytes))
    }
}

/// Reads the strings of a tensor: the runs of `string_data` between two places of a message.
pub(super) fn strings(
    cursor: &mut Cursor<'_>,
    numbers: &Numbers,
    account: &mut Account,
) -> Result<Vec<Vec<u8>>> {
    let (mut out, mut at) = (Vec::new(), numbers.start);
    while let Some(field) = cursor.field(at, numbers.end)? {
        at = field.end;
        if field.number == STRING_DATA {
            field.expect(Wire::Bytes, "string_data")?;
            // A string takes memory even where it is empty; and once more as a value.
            account.charge(2 * (24 + block(field.len() as usize)) + 8).map_err(|e| e.at_offset(at))?;
            out.push(cursor.bytes(field.content, field.end, field.len())?);
        }
    }
    Ok(out)
}
