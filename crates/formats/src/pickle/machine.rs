//! The machine: one loop over the opcodes, a stack and a memo of value ids, an arena that the values go to.
//!
//! Every opcode costs time and memory in proportion to its own bytes and to the stack items that it takes away,
//! so the whole is linear. What copies from memoised values (a set from a list, the text of a global) could
//! break that; it is charged to an allowance that grows with the bytes read, see [`Machine::charge`].

use std::collections::HashMap;

use super::opcodes::{self as op, *};
use super::{Decoded, Spans, keys, text};
use crate::value::{Construct, Dict, Global, Object};
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

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Whether `bytes` was cut to the limit.
    cut: bool,
    max_values: u64,
    /// Bytes objects of this length stay where they are; their values are empty.
    least: usize,
    spans: Spans,
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
    /// GLOBAL's lines, both with their ends, as they stand in the file.
    lines: HashMap<&'a [u8], ValueId>,
    /// STACK_GLOBAL's operands.
    pairs: HashMap<(ValueId, ValueId), ValueId>,
}

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
            cut: bytes.len() > most,
            max_values: limits.values,
            least,
            spans: Spans::new(),
            pos: 0,
            start: 0,
            frame_end: None,
            protocol: 0,
            values: Values::with_capacity(reserved(BYTES_PER_VALUE)),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo { dense: Vec::with_capacity(reserved(BYTES_PER_MEMO)), ..Memo::default() },
            keyed: Vec::new(),
            copied: 0,
            singles: Singles::default(),
            small: [None; 256],
            lines: HashMap::new(),
            pairs: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<(Decoded, Spans)> {
        loop {
            if let Some(end) = self.frame_end.filter(|end| self.pos >= *end) {
                if self.pos > end {
                    return Err(self.bad("crosses the end of its frame"));
                }
                self.frame_end = None;
            }
            self.start = self.pos;
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
                    self.push(Value::Int(n.into()))?;
                }
                BININT => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                MARK => self.marks.push(self.stack.len()),
                TUPLE => {
                    let items = self.popped_to_mark()?;
                    self.push_tuple(items)?;
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
                BUILD => self.build()?,
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
                STOP => return self.stop(),
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
                    self.push(text::long(bytes))?;
                }
                LONG4 => {
                    let n = self.length32()?;
                    let bytes = self.take(n)?;
                    self.push(text::long(bytes))?;
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
                    digits => self.decimal(digits)?,
                };
                self.push(value)?;
            }
            LONG => {
                let line = self.line()?;
                let value = self.decimal(line.strip_suffix(b"L").unwrap_or(line))?;
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
                self.push(Value::Str(text.into()))?;
            }
            PERSID => {
                let line = self.line()?;
                let text = text::utf8(line).ok_or_else(|| self.bad("is not UTF-8"))?;
                self.room(2)?;
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

    // Errors.

    #[cold]
    fn fail(&self, kind: ErrorKind, text: String) -> Error {
        Error::new(kind, text).at_offset(self.start as u64).with_format("pickle")
    }

    /// A `Malformed` that begins with the opcode's name.
    #[cold]
    pub(super) fn bad(&self, what: &str) -> Error {
        let name = self.bytes.get(self.start).and_then(|b| op::name(*b)).unwrap_or("an opcode");
        self.fail(ErrorKind::Malformed, format!("{name} {what}"))
    }

    #[cold]
    fn truncated(&self) -> Error {
        if self.cut {
            let text = format!("the pickle is larger than the limit of {} bytes", self.bytes.len());
            return self.fail(ErrorKind::LimitExceeded, text).with_hint("raise Limits::header_bytes");
        }
        match self.bytes.get(self.start) {
            Some(_) => self.bad("needs more bytes than are left"),
            None => self.fail(ErrorKind::Malformed, "the pickle ends without STOP".into()),
        }
    }

    // Arguments in the file.

    #[inline(always)]
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.pos..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.pos += taken.len();
                Ok(taken)
            }
            None => Err(self.truncated()),
        }
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes[self.pos..].first_chunk::<N>() {
            Some(taken) => {
                self.pos += N;
                Ok(*taken)
            }
            None => Err(self.truncated()),
        }
    }

    #[inline(always)]
    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline(always)]
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length that the format holds as a signed number.
    fn length32(&mut self) -> Result<u64> {
        let n = i32::from_le_bytes(self.array()?);
        u64::try_from(n).map_err(|_| self.bad("has a negative length"))
    }

    /// The bytes up to the next line feed.
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.pos..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else { return Err(self.truncated()) };
        self.pos += end + 1;
        Ok(&rest[..end])
    }

    fn memo_line(&mut self) -> Result<u64> {
        let line = self.line()?;
        let number =
            line.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(line).ok()?.parse().ok());
        number.flatten().ok_or_else(|| self.bad("has no memo index"))
    }

    fn decimal(&self, digits: &[u8]) -> Result<Value> {
        text::integer(digits).ok_or_else(|| {
            if digits.len() > text::MAX_DIGITS {
                let text = format!("an integer of more than {} digits", text::MAX_DIGITS);
                return self.fail(ErrorKind::LimitExceeded, text);
            }
            self.bad("is no decimal integer")
        })
    }

    fn frame(&mut self) -> Result<()> {
        let n = u64::from_le_bytes(self.array()?);
        if self.frame_end.is_some() {
            return Err(self.bad("begins inside another frame"));
        }
        let left = self.bytes.len() - self.pos;
        match usize::try_from(n).ok().filter(|n| *n <= left) {
            Some(n) => self.frame_end = Some(self.pos + n),
            None => return Err(self.truncated()),
        }
        Ok(())
    }

    // The stack.

    /// Stands guard before `n` values go to the arena.
    #[inline(always)]
    pub(super) fn room(&self, n: u64) -> Result<()> {
        if self.values.len() as u64 + n > self.max_values {
            let text = format!("the pickle holds more than {} values", self.max_values);
            return Err(self.fail(ErrorKind::LimitExceeded, text).with_hint("raise Limits::values"));
        }
        Ok(())
    }

    #[inline(always)]
    fn push(&mut self, value: Value) -> Result<ValueId> {
        self.room(1)?;
        let id = self.values.push(value)?;
        self.stack.push(id);
        Ok(id)
    }

    /// Pushes what may be a dict or set that is full already.
    fn push_built(&mut self, value: Value) -> Result<()> {
        let full = match &value {
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Set(items) | Value::FrozenSet(items) => !items.is_empty(),
            _ => false,
        };
        let id = self.push(value)?;
        if full {
            self.keyed.push(id);
        }
        Ok(())
    }

    fn push_single(&mut self, value: Value, slot: fn(&mut Singles) -> &mut Option<ValueId>) -> Result<()> {
        match *slot(&mut self.singles) {
            Some(id) => self.stack.push(id),
            None => *slot(&mut self.singles) = Some(self.push(value)?),
        }
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<ValueId>) -> Result<()> {
        // There is one empty tuple, in Python too.
        if items.is_empty() {
            return self.push_single(Value::Tuple(items), |s| &mut s.unit);
        }
        self.push(Value::Tuple(items))?;
        Ok(())
    }

    fn push_dict(&mut self, entries: Vec<(ValueId, ValueId)>) -> Result<()> {
        self.push_built(Value::Dict(Box::new(Dict { entries, ..Dict::default() })))
    }

    fn push_object(
        &mut self,
        construct: Construct,
        class: ValueId,
        args: ValueId,
        kwargs: Option<ValueId>,
    ) -> Result<()> {
        let object = Self::object(construct, class, args, kwargs);
        self.push(object)?;
        Ok(())
    }

    pub(super) fn object(
        construct: Construct,
        class: ValueId,
        args: ValueId,
        kwargs: Option<ValueId>,
    ) -> Value {
        Value::Object(Box::new(Object {
            construct,
            class,
            args,
            kwargs,
            state: None,
            items: Vec::new(),
            entries: Vec::new(),
        }))
    }

    /// INST and OBJ: the arguments stood on the stack.
    fn push_called(&mut self, class: ValueId, items: Vec<ValueId>) -> Result<()> {
        self.room(2)?;
        let args = self.values.push(Value::Tuple(items))?;
        self.push_object(Construct::Call, class, args, None)
    }

    fn push_bytes(&mut self, n: u64, make: fn(Box<[u8]>) -> Value) -> Result<()> {
        let bytes = self.take(n)?;
        if bytes.len() < self.least {
            self.push(make(bytes.into()))?;
            return Ok(());
        }
        let id = self.push(make(Box::default()))?;
        self.spans.insert(id, self.pos - bytes.len()..self.pos);
        Ok(())
    }

    /// The bytes of a bytes object, wherever they are.
    pub(super) fn bytes_of(&self, id: ValueId) -> Option<&[u8]> {
        match (self.spans.get(&id), self.values.get(id)) {
            (Some(span), _) => self.bytes.get(span.clone()),
            (None, Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// A Python 2 `str`: text if it is UTF-8.
    fn push_py2_str(&mut self, bytes: Vec<u8>) -> Result<()> {
        let value = match String::from_utf8(bytes) {
            Ok(text) => Value::Str(text.into()),
            Err(e) => Value::Bytes(e.into_bytes().into()),
        };
        self.push(value)?;
        Ok(())
    }

    #[inline(always)]
    fn unicode(&mut self, n: u64) -> Result<()> {
        let bytes = self.take(n)?;
        let text = text::utf8(bytes).ok_or_else(|| self.bad("is not UTF-8"))?;
        self.push(Value::Str(text))?;
        Ok(())
    }

    /// The height below which the current opcode may not reach: the last open mark.
    #[inline(always)]
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// The index of the `n`th item from the top.
    #[inline(always)]
    fn below(&self, n: usize) -> Result<usize> {
        match self.stack.len().checked_sub(n) {
            Some(at) if at >= self.floor() => Ok(at),
            _ => Err(self.bad("needs more items than are on the stack")),
        }
    }

    #[inline(always)]
    fn pop(&mut self) -> Result<ValueId> {
        let at = self.below(1)?;
        let top = self.stack[at];
        self.stack.truncate(at);
        Ok(top)
    }

    #[inline(always)]
    fn pop_two(&mut self) -> Result<(ValueId, ValueId)> {
        let at = self.below(2)?;
        let two = (self.stack[at], self.stack[at + 1]);
        self.stack.truncate(at);
        Ok(two)
    }

    #[inline(always)]
    fn top(&self) -> Result<ValueId> {
        Ok(self.stack[self.below(1)?])
    }

    /// Closes the last mark and says where it stood.
    #[inline(always)]
    fn pop_mark(&mut self) -> Result<usize> {
        self.marks.pop().ok_or_else(|| self.bad("finds no MARK"))
    }

    fn popped_to_mark(&mut self) -> Result<Vec<ValueId>> {
        let at = self.pop_mark()?;
        let items = self.stack[at..].to_vec();
        self.stack.truncate(at);
        Ok(items)
    }

    fn tuple_of(&mut self, n: usize) -> Result<()> {
        let at = self.below(n)?;
        let items = self.stack[at..].to_vec();
        self.stack.truncate(at);
        self.push_tuple(items)
    }

    /// Takes keys and values from the stack above `at`.
    fn pairs_from(&mut self, at: usize) -> Result<Vec<(ValueId, ValueId)>> {
        let pairs = self.stack[at..].chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.bad("finds a key without a value"));
        }
        let entries = pairs.map(|p| (p[0], p[1])).collect();
        self.stack.truncate(at);
        Ok(entries)
    }

    // The memo.

    #[inline(always)]
    fn put(&mut self, at: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.put(at, top, self.values.len());
        Ok(())
    }

    #[inline(always)]
    fn get(&mut self, at: u64) -> Result<()> {
        let Some(id) = self.memo.get(at) else {
            return Err(self.bad(&format!("asks for memo entry {at}, which was never put")));
        };
        self.stack.push(id);
        Ok(())
    }

    // Containers.

    /// What stands right below the items that begin at `at`.
    fn container(&self, at: usize) -> Result<ValueId> {
        match at.checked_sub(1) {
            Some(below) if below >= self.floor() => Ok(self.stack[below]),
            _ => Err(self.bad("finds no container below its items")),
        }
    }

    fn append(&mut self, at: usize) -> Result<()> {
        let target = self.container(at)?;
        match self.values.get_mut(target) {
            Value::List(items) => items.extend_from_slice(&self.stack[at..]),
            Value::Object(object) => object.items.extend_from_slice(&self.stack[at..]),
            _ => return Err(self.bad("adds to what is neither a list nor an object")),
        }
        self.stack.truncate(at);
        Ok(())
    }

    fn add_items(&mut self) -> Result<()> {
        let at = self.pop_mark()?;
        let target = self.container(at)?;
        match self.values.get_mut(target) {
            Value::Set(items) => {
                if items.is_empty() && at < self.stack.len() {
                    self.keyed.push(target);
                }
                items.extend_from_slice(&self.stack[at..]);
            }
            Value::Object(object) => object.items.extend_from_slice(&self.stack[at..]),
            _ => return Err(self.bad("adds to what is neither a set nor an object")),
        }
        self.stack.truncate(at);
        Ok(())
    }

    fn set_items(&mut self, at: usize) -> Result<()> {
        let target = self.container(at)?;
        let pairs = self.stack[at..].chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.bad("finds a key without a value"));
        }
        let pairs = pairs.map(|p| (p[0], p[1]));
        match self.values.get_mut(target) {
            Value::Dict(dict) => {
                if dict.entries.is_empty() && at < self.stack.len() {
                    self.keyed.push(target);
                }
                dict.entries.extend(pairs);
            }
            Value::Object(object) => object.entries.extend(pairs),
            _ => return Err(self.bad("sets items of what is neither a dict nor an object")),
        }
        self.stack.truncate(at);
        Ok(())
    }

    // Objects.

    /// Charges copies of what the file holds once, in bytes.
    pub(super) fn charge(&mut self, n: usize) -> Result<()> {
        self.copied = self.copied.saturating_add(n as u64);
        if self.copied > FREE_COPIES + COPIES_PER_BYTE * self.pos as u64 {
            return Err(self
                .fail(ErrorKind::LimitExceeded, "the pickle copies the same values again and again".into()));
        }
        Ok(())
    }

    fn named(&self, module: &str, name: &str) -> Result<Value> {
        if module.is_empty() || name.is_empty() {
            return Err(self.bad("has an empty name"));
        }
        if module.len() > MAX_NAME || name.len() > MAX_NAME {
            return Err(
                self.fail(ErrorKind::LimitExceeded, format!("a global's name exceeds {MAX_NAME} bytes"))
            );
        }
        if module.bytes().chain(name.bytes()).any(|b| b == 0) {
            return Err(self.bad("has a NUL in its name"));
        }
        Ok(Value::Global(Box::new(Global::new(module, name))))
    }

    /// The two lines of GLOBAL and INST as a value, the same for the same lines.
    fn global_lines(&mut self) -> Result<ValueId> {
        let from = self.pos;
        let module = self.line()?;
        let name = self.line()?;
        let both = &self.bytes[from..self.pos];
        if let Some(id) = self.lines.get(both) {
            return Ok(*id);
        }
        let (Ok(module), Ok(name)) = (std::str::from_utf8(module), std::str::from_utf8(name)) else {
            return Err(self.bad("has a name that is not UTF-8"));
        };
        let global = self.named(module, name)?;
        self.room(1)?;
        let id = self.values.push(global)?;
        self.lines.insert(both, id);
        Ok(id)
    }

    fn stack_global(&mut self) -> Result<()> {
        let pair = self.pop_two()?;
        let id = match self.pairs.get(&pair) {
            Some(id) => *id,
            None => {
                let (Some(module), Some(name)) = (self.values.str(pair.0), self.values.str(pair.1)) else {
                    return Err(self.bad("has a module or name that is no string"));
                };
                let global = self.named(module, name)?;
                let copied = module.len() + name.len();
                self.charge(copied)?;
                self.room(1)?;
                let id = self.values.push(global)?;
                self.pairs.insert(pair, id);
                id
            }
        };
        self.stack.push(id);
        Ok(())
    }

    fn extension(&mut self, code: i32) -> Result<()> {
        if code <= 0 {
            return Err(self.bad("has a code that is not positive"));
        }
        self.room(3)?;
        let none = self.values.push(Value::None)?;
        let code = self.values.push(Value::Int(code.into()))?;
        self.push_object(Construct::Extension, none, code, None)
    }

    fn build(&mut self) -> Result<()> {
        let (target, state) = self.pop_two()?;
        self.stack.push(target);
        let before = match self.values.get(target) {
            Value::Dict(dict) => dict.attributes,
            Value::Object(object) => object.state,
            _ => return Err(self.bad("sets the state of what is neither an object nor a dict")),
        };
        let state = match before {
            None => state,
            Some(before) => {
                self.room(1)?;
                self.values.push(Value::List(vec![before, state]))?
            }
        };
        match self.values.get_mut(target) {
            Value::Dict(dict) => dict.attributes = Some(state),
            Value::Object(object) => object.state = Some(state),
            _ => {}
        }
        Ok(())
    }

    fn stop(mut self) -> Result<(Decoded, Spans)> {
        let root = self.pop()?;
        self.values.set_root(root);
        keys::unite(&mut self.values, &self.keyed, |id| self.bytes.get(self.spans.get(&id)?.clone()));
        let decoded = Decoded { values: self.values, consumed: self.pos as u64, protocol: self.protocol };
        Ok((decoded, self.spans))
    }
}

/// What PUT keeps. Every writer numbers from 0 without gaps, so that is a vector; an index out of line costs an
/// entry in a map, never the space up to it.
#[derive(Default)]
struct Memo {
    dense: Vec<Option<ValueId>>,
    sparse: HashMap<u64, ValueId>,
    /// How many entries there are: MEMOIZE's next index.
    count: u64,
}

impl Memo {
    #[inline(always)]
    fn put(&mut self, at: u64, id: ValueId, values: usize) {
        let next = self.dense.len();
        if at == next as u64 && self.sparse.is_empty() {
            self.dense.push(Some(id));
            self.count += 1;
        } else {
            self.put_out_of_line(at, id, values);
        }
    }

    fn put_out_of_line(&mut self, at: u64, id: ValueId, values: usize) {
        let before = match usize::try_from(at) {
            // An index is in one of the two: what once went to the map stays there.
            Ok(i) if i <= values.max(self.dense.len()) && !self.sparse.contains_key(&at) => {
                if i >= self.dense.len() {
                    self.dense.resize(i + 1, None);
                }
                self.dense[i].replace(id)
            }
            _ => self.sparse.insert(at, id),
        };
        self.count += u64::from(before.is_none());
    }

    #[inline(always)]
    fn get(&self, at: u64) -> Option<ValueId> {
        let dense = usize::try_from(at).ok().and_then(|i| self.dense.get(i).copied().flatten());
        dense.or_else(|| self.sparse.get(&at).copied())
    }
}
