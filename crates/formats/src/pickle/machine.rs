//! The machine: one loop over the opcodes, a stack and a memo of value ids, an arena that the values go to.
//!
//! Every opcode costs time and memory in proportion to its own bytes and to the stack items that it takes away,
//! so the whole is linear. What copies from memoised values (a set from a list, the text of a global) could
//! break that; it is charged to an allowance that grows with the bytes read, see [`Machine::charge`].

mod account;
mod input;
mod memo;
mod nest;
mod objects;
mod recent;
mod rest;
mod stack;

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use memo::Memo;
use nest::Outer;
pub(super) use nest::Stop;

use super::opcodes::{self as op, *};
use super::{Decoded, Spans, keys, text};
use crate::account::Account;
use crate::value::{Construct, Global};
use crate::{Error, ErrorKind, Limits, Result, Value, ValueId, Values};

/// The longest module or attribute name of a global, in bytes.
const MAX_NAME: usize = 4096;

/// Bytes of copies that every pickle may make, and how many more for each byte of it. An honest pickle copies
/// about as much as it holds; the factor lets the names of globals share their memoised modules.
const FREE_COPIES: u64 = 1 << 16;
const COPIES_PER_BYTE: u64 = 16;

/// How many bytes of a pickle make a value, and a memo entry: torch's have 12 and 19. A guess that saves moving
/// what grows, up to a bound: who knows what stands behind the pickle.
const BYTES_PER_VALUE: usize = 12;
const BYTES_PER_MEMO: usize = 16;
const MOST_RESERVED: usize = 1 << 20;

/// What the copy of one item of a container is charged: one item for each byte read.
pub(super) const ITEM: usize = COPIES_PER_BYTE as usize;

/// What a pickle came to: its values, where bytes objects are that stayed in the stream, and what is left of the account.
pub(super) type Done = (Decoded, Spans, Account);

/// Parts of bytes in memory.
pub(super) fn part_of(bytes: &[u8]) -> impl FnMut(Range<u64>) -> Result<Vec<u8>> + '_ {
    |span| {
        let span = usize::try_from(span.start).ok().zip(usize::try_from(span.end).ok());
        Ok(span.and_then(|(from, to)| bytes.get(from..to)).unwrap_or_default().to_vec())
    }
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// How many bytes of the stream stand before `bytes`.
    base: u64,
    /// Whether `bytes` was cut to the limit.
    cut: bool,
    /// Whether the bytes ended within an opcode, of which nothing was done yet.
    starved: Cell<bool>,
    /// How many bytes it needs in all, where that is known.
    needs: Cell<u64>,
    /// Whether frames are passed over, whatever they say.
    frameless: bool,
    /// The classes at whose BUILD the machine stops, for its caller to take what stands raw behind it.
    stop_at: Option<fn(&Global) -> bool>,
    /// The pickle in which this one is nested, and how many values there were when it began.
    outer: Option<Outer>,
    inner_from: usize,
    max_values: u64,
    /// Where the stream ends.
    end: u64,
    /// Bytes objects of this length stay where they are; their values are empty.
    least: usize,
    spans: Spans,
    /// Where the bytes are of a value that is about to be pushed, if they stay where they are.
    pub(super) left: Option<Range<u64>>,
    /// What the values may take, what the parts of values take that lie outside of the arena, and how much of both
    /// was charged to the account so far.
    account: Account,
    parts: u64,
    charged: u64,
    /// How many opcodes there are to the next look at the account, and how many more may come after it.
    ticks: u32,
    /// The most marks that may be open.
    most_open: usize,
    steps: u64,
    pos: usize,
    /// Where the current opcode stands.
    start: usize,
    frame_end: Option<usize>,
    protocol: u8,
    pub(super) values: Values,
    stack: Vec<ValueId>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: Memo,
    /// Dicts and sets with contents, in which a key may stand twice.
    keyed: Vec<ValueId>,
    copied: u64,
    singles: Singles,
    small: [Option<ValueId>; 256],
    /// Integers and tuples of integers that were met, by a hash: a model's shapes repeat.
    recent: Recent,
    /// GLOBAL's lines, both with their ends, as they stand in the file.
    lines: HashMap<Box<[u8]>, ValueId>,
    /// STACK_GLOBAL's operands.
    pairs: HashMap<(ValueId, ValueId), ValueId>,
}

use recent::Recent;

/// Values that need to exist once only.
#[derive(Default)]
struct Singles {
    none: Option<ValueId>,
    no: Option<ValueId>,
    yes: Option<ValueId>,
    unit: Option<ValueId>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], limits: &Limits, least: usize) -> Self {
        let most = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
        let taken = &bytes[..bytes.len().min(most)];
        let reserved = |per: usize| (taken.len() / per).min(MOST_RESERVED);
        Self {
            bytes: taken,
            base: 0,
            cut: bytes.len() > most,
            starved: Cell::new(false),
            needs: Cell::new(0),
            frameless: false,
            stop_at: None,
            outer: None,
            inner_from: 0,
            max_values: limits.values,
            end: taken.len() as u64,
            least,
            spans: Spans::new(),
            left: None,
            account: Account::new(limits),
            parts: 0,
            charged: 0,
            ticks: account::EVERY,
            most_open: (limits.depth as usize).saturating_mul(account::OPEN_PER_LEVEL),
            steps: limits.values.saturating_mul(4),
            pos: 0,
            start: 0,
            frame_end: None,
            protocol: 0,
            values: Values::with_capacity(reserved(BYTES_PER_VALUE)),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::with_capacity(reserved(BYTES_PER_MEMO)),
            keyed: Vec::new(),
            copied: 0,
            singles: Singles::default(),
            small: [None; 256],
            recent: Recent::default(),
            lines: HashMap::new(),
            pairs: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Decoded> {
        self.proceed()?;
        let bytes = self.bytes;
        Ok(self.stop(&mut part_of(bytes))?.0)
    }

    /// Runs to STOP, or to a BUILD that the caller wants to know of.
    pub(super) fn proceed(&mut self) -> Result<Stop> {
        loop {
            if let Some(end) = self.frame_end.filter(|end| self.pos >= *end) {
                if self.pos > end {
                    return Err(self.bad("crosses the end of its frame"));
                }
                self.frame_end = None;
            }
            self.start = self.pos;
            self.ticks -= 1;
            if self.ticks == 0 {
                self.audit()?;
            }
            let Some(&opcode) = self.bytes.get(self.pos) else { return Err(self.truncated()) };
            self.pos += 1;
            match opcode {
                // The memo and the values that fill a tensor's arguments come first: they are most of any file.
                BINPUT => {
                    let at = self.u8()?;
                    self.put(at.into())?;
                }
                LONG_BINPUT => {
                    let at = self.u32()?;
                    self.put(at.into())?;
                }
                MEMOIZE => self.put(self.memo.count)?,
                BINGET => {
                    let at = self.u8()?;
                    self.get(at.into())?;
                }
                LONG_BINGET => {
                    let at = self.u32()?;
                    self.get(at.into())?;
                }
                BININT1 => {
                    let n = self.u8()?;
                    match self.small[usize::from(n)] {
                        Some(id) => self.stack.push(id),
                        None => self.small[usize::from(n)] = Some(self.push(Value::Int(n.into()))?),
                    }
                }
                BININT2 => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push_int(n.into())?;
                }
                BININT => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push_int(n.into())?;
                }
                MARK => self.marks.push(self.stack.len()),
                TUPLE => {
                    let at = self.pop_mark()?;
                    self.tuple_from(at)?;
                }
                EMPTY_TUPLE => self.push_tuple(Vec::new())?,
                TUPLE1 => self.tuple_of(1)?,
                TUPLE2 => self.tuple_of(2)?,
                TUPLE3 => self.tuple_of(3)?,
                BINUNICODE => {
                    let n = self.u32()?;
                    self.unicode(n.into())?;
                }
                SHORT_BINUNICODE => {
                    let n = self.u8()?;
                    self.unicode(n.into())?;
                }
                BINUNICODE8 => {
                    let n = u64::from_le_bytes(self.array()?);
                    self.unicode(n)?;
                }
                BINPERSID => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id))?;
                }
                REDUCE => {
                    let (class, args) = self.pop_two()?;
                    let built = self.call(class, args)?;
                    self.push_built(built)?;
                }
                NONE => self.push_single(Value::None, |s| &mut s.none)?,
                NEWTRUE => self.push_single(Value::Bool(true), |s| &mut s.yes)?,
                NEWFALSE => self.push_single(Value::Bool(false), |s| &mut s.no)?,
                SETITEMS => {
                    let at = self.pop_mark()?;
                    self.set_items(at)?;
                }
                SETITEM => {
                    let at = self.below(2)?;
                    self.set_items(at)?;
                }
                EMPTY_DICT => self.push_dict(Vec::new())?,
                EMPTY_LIST => {
                    self.push(Value::List(Vec::new()))?;
                }
                APPENDS => {
                    let at = self.pop_mark()?;
                    self.append(at)?;
                }
                APPEND => {
                    let at = self.below(1)?;
                    self.append(at)?;
                }
                ADDITEMS => self.add_items()?,
                BINFLOAT => {
                    let x = f64::from_be_bytes(self.array()?);
                    self.push(Value::Float(x))?;
                }
                GLOBAL => {
                    let id = self.global_lines()?;
                    self.stack.push(id);
                }
                STACK_GLOBAL => self.stack_global()?,
                BUILD => {
                    let target = self.build()?;
                    if self.stops_at(target) {
                        return Ok(Stop::Built(target));
                    }
                }
                NEWOBJ => {
                    let (class, args) = self.pop_two()?;
                    let built = self.instantiate(class, args)?;
                    self.push(built)?;
                }
                NEWOBJ_EX => {
                    let at = self.below(3)?;
                    let (class, args, kwargs) = (self.stack[at], self.stack[at + 1], self.stack[at + 2]);
                    self.stack.truncate(at);
                    self.push_object(Construct::NewEx, class, args, Some(kwargs))?;
                }
                PROTO => {
                    self.protocol = self.u8()?;
                    if self.protocol > 5 {
                        return Err(self.fail(
                            ErrorKind::Unsupported,
                            format!("PROTO names protocol {}; 5 is the last that is known", self.protocol),
                        ));
                    }
                }
                FRAME => self.frame()?,
                STOP => return Ok(Stop::End),
                SHORT_BINBYTES => {
                    let n = self.u8()?;
                    self.push_bytes(n.into(), Value::Bytes)?;
                }
                BINBYTES => {
                    let n = self.u32()?;
                    self.push_bytes(n.into(), Value::Bytes)?;
                }
                BINBYTES8 => {
                    let n = u64::from_le_bytes(self.array()?);
                    self.push_bytes(n, Value::Bytes)?;
                }
                BYTEARRAY8 => {
                    let n = u64::from_le_bytes(self.array()?);
                    self.push_bytes(n, Value::ByteArray)?;
                }
                SHORT_BINSTRING => {
                    let n = self.u8()?;
                    let bytes = self.take(n.into())?;
                    self.push_py2_str(bytes.to_vec())?;
                }
                BINSTRING => {
                    let n = self.length32()?;
                    let bytes = self.take(n)?;
                    self.push_py2_str(bytes.to_vec())?;
                }
                LONG1 => {
                    let n = self.u8()?;
                    let bytes = self.take(n.into())?;
                    self.push_number(bytes)?;
                }
                LONG4 => {
                    let n = self.length32()?;
                    let bytes = self.take(n)?;
                    self.push_number(bytes)?;
                }
                EMPTY_SET => {
                    self.push(Value::Set(Vec::new()))?;
                }
                FROZENSET => {
                    let items = self.popped_to_mark()?;
                    self.push_built(Value::FrozenSet(items))?;
                }
                LIST => {
                    let items = self.popped_to_mark()?;
                    self.push(Value::List(items))?;
                }
                DICT => {
                    let at = self.pop_mark()?;
                    let entries = self.pairs_from(at)?;
                    self.push_dict(entries)?;
                }
                POP => {
                    // On an open mark with nothing above it, Python takes the mark away.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                POP_MARK => {
                    let at = self.pop_mark()?;
                    self.stack.truncate(at);
                }
                DUP => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                EXT1 => {
                    let code = self.u8()?;
                    self.extension(code.into())?;
                }
                EXT2 => {
                    let code = u16::from_le_bytes(self.array()?);
                    self.extension(code.into())?;
                }
                EXT4 => {
                    let code = i32::from_le_bytes(self.array()?);
                    self.extension(code)?;
                }
                NEXT_BUFFER | READONLY_BUFFER => {
                    let text = format!(
                        "{} asks for an out-of-band buffer, which is not in the file",
                        op::name(opcode).unwrap_or_default()
                    );
                    return Err(self.fail(ErrorKind::Unsupported, text).with_hint(
                        "pickle it again without buffer_callback, so that buffers stay in the file",
                    ));
                }
                _ => self.protocol_0(opcode)?,
            }
        }
    }

    /// The opcodes whose arguments are lines of text, and those that only old pickles have.
    fn protocol_0(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            INT => {
                let value = match self.line()? {
                    b"00" => return self.push_single(Value::Bool(false), |s| &mut s.no),
                    b"01" => return self.push_single(Value::Bool(true), |s| &mut s.yes),
                    digits => {
                        self.take_digits(digits.len())?;
                        self.decimal(digits)?
                    }
                };
                self.push(value)?;
            }
            LONG => {
                let line = self.line()?;
                let value = self.decimal(line.strip_suffix(b"L").unwrap_or(line))?;
                self.take_digits(line.len())?;
                self.push(value)?;
            }
            FLOAT => {
                let x = text::float(self.line()?).ok_or_else(|| self.bad("is no float"))?;
                self.push(Value::Float(x))?;
            }
            STRING => {
                let line = self.line()?;
                let bytes = text::quoted(line).ok_or_else(|| self.bad("is not quoted as Python quotes"))?;
                self.push_py2_str(bytes)?;
            }
            UNICODE => {
                let line = self.line()?;
                let text =
                    text::raw_unicode_escape(line).ok_or_else(|| self.bad("has a broken Unicode escape"))?;
                self.take_part(text.len())?;
                self.push(Value::Str(text.into()))?;
            }
            PERSID => {
                let line = self.line()?;
                let text = text::utf8(line).ok_or_else(|| self.bad("is not UTF-8"))?;
                self.room(2)?;
                self.take_part(text.len())?;
                let id = self.values.push(Value::Str(text))?;
                self.push(Value::Persistent(id))?;
            }
            PUT => {
                let at = self.memo_line()?;
                self.put(at)?;
            }
            GET => {
                let at = self.memo_line()?;
                self.get(at)?;
            }
            INST => {
                let class = self.global_lines()?;
                let items = self.popped_to_mark()?;
                self.push_called(class, items)?;
            }
            OBJ => {
                let mut items = self.popped_to_mark()?;
                if items.is_empty() {
                    return Err(self.bad("has no class above its mark"));
                }
                let class = items.remove(0);
                self.push_called(class, items)?;
            }
            unknown => {
                return Err(Error::malformed(format!("0x{unknown:02x} is no pickle opcode"))
                    .at_offset(self.start as u64)
                    .with_format("pickle"));
            }
        }
        Ok(())
    }

    /// What the pickle describes, once STOP was met, and what is left of the account. `read` gives the bytes of a
    /// part of the stream: those of bytes objects that stayed there and are keys.
    pub(super) fn stop(mut self, read: &mut dyn FnMut(Range<u64>) -> Result<Vec<u8>>) -> Result<Done> {
        let root = self.pop()?;
        self.audit()?;
        let consumed = self.offset();
        self.values.set_root(root);
        // From here on only the values are needed.
        (self.memo, self.stack, self.lines, self.pairs) = Default::default();
        self.balance()?;
        let held = self.keys_left(read)?;
        let elsewhere = |id| held.get(&id).map(Vec::as_slice);
        keys::unite(&mut self.values, &self.keyed, elsewhere, &mut self.account)?;
        self.keyed = Vec::new();
        self.balance()?;
        let decoded = Decoded { values: self.values, consumed, protocol: self.protocol };
        Ok((decoded, self.spans, self.account))
    }

    /// The bytes of keys that stayed in the stream.
    fn keys_left(
        &mut self,
        read: &mut dyn FnMut(Range<u64>) -> Result<Vec<u8>>,
    ) -> Result<HashMap<ValueId, Vec<u8>>> {
        let mut held = HashMap::new();
        if self.spans.is_empty() {
            return Ok(held);
        }
        let mut wanted = Vec::new();
        for &id in &self.keyed {
            let mut take = |key: ValueId| match self.values.get(key) {
                Value::Tuple(parts) => wanted.extend(parts.iter().filter(|p| self.spans.contains_key(p))),
                _ if self.spans.contains_key(&key) => wanted.push(key),
                _ => {}
            };
            match self.values.get(id) {
                Value::Dict(dict) => dict.entries.iter().for_each(|e| take(e.0)),
                Value::Set(items) | Value::FrozenSet(items) => items.iter().for_each(|i| take(*i)),
                _ => {}
            }
            wanted.sort_unstable();
            wanted.dedup();
        }
        for id in wanted {
            if let Some(span) = self.spans.get(&id).cloned() {
                self.account.charge((span.end - span.start).saturating_add(64))?;
                held.insert(id, read(span)?);
            }
        }
        Ok(held)
    }
}
