//! The writing half's low level: an [`Encoder`] appends opcodes of a protocol, and remembers the globals and
//! strings that it has written, so that each is written once.

use std::hash::{BuildHasher, RandomState};

use super::opcodes::*;
use crate::{Error, Result};

/// The size at which Python's pickler closes a frame, in bytes.
const FRAME_TARGET: usize = 64 << 10;

/// Bytes of a pickle that are not in memory: a payload that somebody copies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Where in [`Encoded::bytes`] the payload is to be inserted.
    pub at: usize,
    /// Its length in bytes.
    pub length: u64,
    /// What the caller of [`Encoder::payload`] named it by.
    pub tag: u32,
}

/// A pickle, with gaps for the payloads that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The pickle without its payloads.
    pub bytes: Vec<u8>,
    /// The payloads, in the order of their places.
    pub payloads: Vec<Payload>,
}

/// Appends opcodes to a pickle.
///
/// The methods do not check that the whole makes sense (a MARK without its TUPLE): who calls them knows what
/// [`pickletools`](https://docs.python.org/3/library/pickletools.html) says of each opcode.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    protocol: u8,
    memo: u32,
    /// Where the body of the open frame begins.
    frame: Option<usize>,
    payloads: Vec<Payload>,
    strings: Strings,
    globals: Vec<Known>,
}

/// A global that was written, with its place in the memo.
#[derive(Debug)]
struct Known {
    module: Box<str>,
    name: Box<str>,
    memo: u32,
}

/// Globals are found by a walk over the last ones used: a pickle of tensors has a handful.
const RECENT_GLOBALS: usize = 32;

impl Encoder {
    /// An encoder that has written the protocol.
    ///
    /// # Errors
    /// `InvalidOptions` for a protocol outside 2 to 5.
    pub fn new(protocol: u8) -> Result<Self> {
        if !(2..=5).contains(&protocol) {
            return Err(Error::invalid_options(format!("pickle protocol {protocol} cannot be written"))
                .with_format("pickle")
                .with_hint("choose a protocol from 2 to 5"));
        }
        let mut new = Self {
            out: vec![PROTO, protocol],
            protocol,
            memo: 0,
            frame: None,
            payloads: Vec::new(),
            strings: Strings::default(),
            globals: Vec::new(),
        };
        new.open_frame();
        Ok(new)
    }

    /// The protocol.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Writes STOP and closes the pickle.
    pub fn finish(mut self) -> Encoded {
        self.op(STOP);
        self.close_frame();
        Encoded { bytes: self.out, payloads: self.payloads }
    }

    fn open_frame(&mut self) {
        if self.protocol >= 4 {
            self.out.push(FRAME);
            self.out.extend([0; 8]);
            self.frame = Some(self.out.len());
        }
    }

    /// States the length of the open frame; an empty one is taken back.
    fn close_frame(&mut self) {
        let Some(begin) = self.frame.take() else { return };
        let length = self.out.len() - begin;
        match length {
            0 => self.out.truncate(begin - 9),
            _ => self.out[begin - 8..begin].copy_from_slice(&(length as u64).to_le_bytes()),
        }
    }

    /// Between two opcodes: begins a new frame when the open one is large enough.
    #[inline(always)]
    pub(super) fn boundary(&mut self) {
        if self.frame.is_some_and(|begin| self.out.len() - begin >= FRAME_TARGET) {
            self.close_frame();
            self.open_frame();
        }
    }

    /// Writes what is too large for a frame: its header and bytes stand between frames.
    fn unframed(&mut self, length: u64, write: impl FnOnce(&mut Self)) {
        if length < FRAME_TARGET as u64 {
            return write(self);
        }
        self.close_frame();
        write(self);
        self.open_frame();
    }

    #[inline(always)]
    pub(super) fn op(&mut self, opcode: u8) {
        self.out.push(opcode);
    }

    fn op_u8(&mut self, opcode: u8, n: u8) {
        self.out.extend([opcode, n]);
    }

    fn op_u32(&mut self, opcode: u8, n: u32) {
        let [a, b, c, d] = n.to_le_bytes();
        self.out.extend([opcode, a, b, c, d]);
    }

    /// `None`.
    pub fn none(&mut self) {
        self.op(NONE);
    }

    /// `True` or `False`.
    pub fn bool(&mut self, value: bool) {
        self.op(if value { NEWTRUE } else { NEWFALSE });
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, value: i64) {
        if let Ok(n) = u8::try_from(value) {
            self.op_u8(BININT1, n);
        } else if let Ok(n) = u16::try_from(value) {
            let [a, b] = n.to_le_bytes();
            self.out.extend([BININT2, a, b]);
        } else if let Ok(n) = i32::try_from(value) {
            self.op_u32(BININT, n as u32);
        } else {
            let bytes = value.to_le_bytes();
            // The shortest form: a byte that repeats the sign of the one below says nothing.
            let sign = if value < 0 { 0xff } else { 0 };
            let mut n = 8;
            while n > 1 && bytes[n - 1] == sign && (bytes[n - 2] ^ sign) < 0x80 {
                n -= 1;
            }
            self.op_u8(LONG1, n as u8);
            self.out.extend(&bytes[..n]);
        }
    }

    /// An integer of any size: two's complement, little-endian.
    ///
    /// # Errors
    /// `Unsupported` past 2 GiB.
    pub fn big_int(&mut self, bytes: &[u8]) -> Result<()> {
        match u8::try_from(bytes.len()) {
            Ok(n) => self.op_u8(LONG1, n),
            Err(_) => {
                let n =
                    i32::try_from(bytes.len()).map_err(|_| too_large("an integer", bytes.len() as u64))?;
                self.op_u32(LONG4, n as u32);
            }
        }
        self.out.extend(bytes);
        Ok(())
    }

    /// A float.
    pub fn float(&mut self, value: f64) {
        self.op(BINFLOAT);
        self.out.extend(value.to_be_bytes());
    }

    /// Text; the second time, a reference to the first. Returns its place in the memo.
    ///
    /// # Errors
    /// `Unsupported` past 4 GiB below protocol 4.
    pub fn string(&mut self, text: &str) -> Result<u32> {
        let hash = match self.strings.find(text, &self.out) {
            Ok(memo) => {
                self.get(memo);
                return Ok(memo);
            }
            Err(hash) => hash,
        };
        let length = text.len() as u64;
        let header = self.sized(
            length,
            [(self.protocol >= 4).then_some(SHORT_BINUNICODE), Some(BINUNICODE), self.eight(BINUNICODE8)],
            "a string",
        )?;
        let mut begin = 0;
        self.unframed(length, |e| {
            e.out.extend(&header);
            begin = e.out.len();
            e.out.extend(text.as_bytes());
        });
        let memo = self.put()?;
        self.strings.insert(Written { hash, begin, length: text.len(), memo });
        Ok(memo)
    }

    /// Bytes. Protocol 2 has none: there they are text that is encoded as Latin-1, as Python writes them.
    ///
    /// # Errors
    /// `Unsupported` past 4 GiB below protocol 4.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if self.protocol == 2 {
            return self.latin1(bytes);
        }
        let header = self.bytes_header(bytes.len() as u64)?;
        self.unframed(bytes.len() as u64, |e| {
            e.out.extend(&header);
            e.out.extend(bytes);
        });
        Ok(())
    }

    fn latin1(&mut self, bytes: &[u8]) -> Result<()> {
        self.global("_codecs", "encode")?;
        let text: String = bytes.iter().copied().map(char::from).collect();
        // Past the strings' memo: such text is long, and hardly ever stands twice.
        let header = self.sized(text.len() as u64, [None, Some(BINUNICODE), None], "bytes")?;
        self.out.extend(&header);
        self.out.extend(text.as_bytes());
        self.string("latin1")?;
        self.op(TUPLE2);
        self.op(REDUCE);
        Ok(())
    }

    /// Bytes that are not here: the pickle gets their length, and [`Encoded::payloads`] their place.
    ///
    /// # Errors
    /// `InvalidOptions` in protocol 2, whose bytes are text; `Unsupported` past 4 GiB in protocol 3.
    pub fn payload(&mut self, length: u64, tag: u32) -> Result<()> {
        if self.protocol == 2 {
            return Err(Error::invalid_options("protocol 2 cannot hold bytes as they are")
                .with_format("pickle")
                .with_hint("choose protocol 3 or later"));
        }
        let header = self.bytes_header(length)?;
        // Always between frames, whose lengths count what is here.
        self.close_frame();
        self.out.extend(&header);
        self.payloads.push(Payload { at: self.out.len(), length, tag });
        self.open_frame();
        Ok(())
    }

    fn bytes_header(&self, length: u64) -> Result<Vec<u8>> {
        self.sized(length, [Some(SHORT_BINBYTES), Some(BINBYTES), self.eight(BINBYTES8)], "bytes")
    }

    fn eight(&self, opcode: u8) -> Option<u8> {
        (self.protocol >= 4).then_some(opcode)
    }

    /// The opcode and length of something long, with the first of three opcodes (of 1, 4 and 8 bytes of length)
    /// that there is and that suffices.
    fn sized(&self, length: u64, [one, four, eight]: [Option<u8>; 3], what: &str) -> Result<Vec<u8>> {
        let mut header = Vec::with_capacity(9);
        if let (Some(op), Ok(n)) = (one, u8::try_from(length)) {
            header.extend([op, n]);
        } else if let (Some(op), Ok(n)) = (four, u32::try_from(length)) {
            header.push(op);
            header.extend(n.to_le_bytes());
        } else if let Some(op) = eight {
            header.push(op);
            header.extend(length.to_le_bytes());
        } else {
            return Err(too_large(what, length));
        }
        Ok(header)
    }

    /// A `bytearray`.
    ///
    /// # Errors
    /// As [`Encoder::bytes`].
    pub fn byte_array(&mut self, bytes: &[u8]) -> Result<()> {
        if self.protocol >= 5 {
            self.unframed(bytes.len() as u64, |e| {
                e.op(BYTEARRAY8);
                e.out.extend((bytes.len() as u64).to_le_bytes());
                e.out.extend(bytes);
            });
            return Ok(());
        }
        self.global("builtins", "bytearray")?;
        self.bytes(bytes)?;
        self.op(TUPLE1);
        self.op(REDUCE);
        Ok(())
    }

    /// A complex number.
    ///
    /// # Errors
    /// As [`Encoder::global`].
    pub fn complex(&mut self, re: f64, im: f64) -> Result<()> {
        self.global("builtins", "complex")?;
        self.float(re);
        self.float(im);
        self.op(TUPLE2);
        self.op(REDUCE);
        Ok(())
    }

    /// A name of a module; the second time, a reference to the first. The caller answers for its harmlessness.
    /// Returns its place in the memo.
    ///
    /// # Errors
    /// `Unsupported` for a name that a pickle cannot hold: empty, with a line feed or a NUL.
    pub fn global(&mut self, module: &str, name: &str) -> Result<u32> {
        let mut recent = self.globals.iter().rev().take(RECENT_GLOBALS);
        if let Some(known) = recent.find(|g| *g.name == *name && *g.module == *module) {
            let memo = known.memo;
            self.get(memo);
            return Ok(memo);
        }
        if [module, name].iter().any(|n| n.is_empty() || n.contains(['\n', '\0'])) {
            return Err(Error::unsupported(format!("no pickle can hold the global {module:?} {name:?}"))
                .with_format("pickle"));
        }
        if self.protocol >= 4 {
            self.string(module)?;
            self.string(name)?;
            self.op(STACK_GLOBAL);
        } else {
            self.op(GLOBAL);
            self.out.extend(module.as_bytes());
            self.out.push(b'\n');
            self.out.extend(name.as_bytes());
            self.out.push(b'\n');
        }
        let memo = self.put()?;
        self.globals.push(Known { module: module.into(), name: name.into(), memo });
        Ok(memo)
    }

    /// An empty `collections.OrderedDict`, to be filled by [`Encoder::set_items`].
    ///
    /// # Errors
    /// As [`Encoder::global`].
    pub fn empty_ordered_dict(&mut self) -> Result<()> {
        self.global("collections", "OrderedDict")?;
        self.op(EMPTY_TUPLE);
        self.op(REDUCE);
        Ok(())
    }

    /// Gives what is on top of the stack the next place in the memo.
    ///
    /// # Errors
    /// `Unsupported` past 2³² places.
    #[inline]
    pub fn put(&mut self) -> Result<u32> {
        let memo = self.memo;
        self.memo = memo.checked_add(1).ok_or_else(|| too_large("the memo", 1 << 32))?;
        if self.protocol >= 4 {
            self.op(MEMOIZE);
        } else if let Ok(n) = u8::try_from(memo) {
            self.op_u8(BINPUT, n);
        } else {
            self.op_u32(LONG_BINPUT, memo);
        }
        Ok(memo)
    }

    /// Pushes what [`Encoder::put`] gave this place.
    #[inline]
    pub fn get(&mut self, memo: u32) {
        match u8::try_from(memo) {
            Ok(n) => self.op_u8(BINGET, n),
            Err(_) => self.op_u32(LONG_BINGET, memo),
        }
    }
}

macro_rules! plain_opcodes {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        impl Encoder {
            $($(#[$doc])* #[inline] pub fn $name(&mut self) { self.op($op); })*
        }
    };
}

plain_opcodes! {
    /// MARK: what follows, up to `tuple`, `appends` or `set_items`, belongs together.
    mark = MARK;
    /// TUPLE of everything above the mark.
    tuple = TUPLE;
    /// A tuple of the top item.
    tuple1 = TUPLE1;
    /// A tuple of the top two items.
    tuple2 = TUPLE2;
    /// A tuple of the top three items.
    tuple3 = TUPLE3;
    /// `()`.
    empty_tuple = EMPTY_TUPLE;
    /// `[]`.
    empty_list = EMPTY_LIST;
    /// `{}`.
    empty_dict = EMPTY_DICT;
    /// APPENDS everything above the mark to the list below it.
    appends = APPENDS;
    /// SETITEMS: keys and values above the mark go to the dict below it.
    set_items = SETITEMS;
    /// REDUCE: calls a callable with the tuple above it.
    reduce = REDUCE;
    /// NEWOBJ: makes an object of a class with the tuple above it.
    newobj = NEWOBJ;
    /// BUILD: sets the state of the object below the top.
    build = BUILD;
    /// BINPERSID: the top item is a persistent id.
    binpersid = BINPERSID;
}

#[cold]
fn too_large(what: &str, length: u64) -> Error {
    Error::unsupported(format!("{what} of {length} bytes does not fit this protocol"))
        .with_format("pickle")
        .with_hint("choose protocol 4 or later")
}

/// Where a string stands in the output.
#[derive(Clone, Copy, Debug)]
struct Written {
    hash: u64,
    begin: usize,
    length: usize,
    memo: u32,
}

/// The strings that were written, found by content. They are not kept twice: the output holds them.
#[derive(Debug, Default)]
struct Strings {
    written: Vec<Written>,
    /// Open addressing, a power of two long, at most half full: indices into `written`, plus one.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Strings {
    /// The memo place of `text`, or its hash where it is new.
    fn find(&self, text: &str, out: &[u8]) -> Result<u32, u64> {
        let hash = self.hasher.hash_one(text);
        let Some(mask) = self.slots.len().checked_sub(1) else { return Err(hash) };
        let mut at = hash as usize & mask;
        loop {
            match (self.slots[at] as usize).checked_sub(1) {
                None => return Err(hash),
                Some(i) => {
                    let w = &self.written[i];
                    if w.hash == hash && out.get(w.begin..w.begin + w.length) == Some(text.as_bytes()) {
                        return Ok(w.memo);
                    }
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, new: Written) {
        self.written.push(new);
        if self.written.len() * 2 > self.slots.len() {
            self.slots = vec![0; (self.slots.len() * 2).max(64)];
            for i in 0..self.written.len() {
                self.place(i);
            }
        } else {
            self.place(self.written.len() - 1);
        }
    }

    fn place(&mut self, i: usize) {
        let mask = self.slots.len() - 1;
        let mut at = self.written[i].hash as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        // Each string takes a memo place, and those are counted in 32 bits.
        self.slots[at] = i as u32 + 1;
    }
}
