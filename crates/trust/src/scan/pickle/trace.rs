//! The machine: every opcode in turn, on values of which next to nothing is known, with nothing kept that a file could
//! make large.
//!
//! Python's machine stops where it cannot go on; so does this one, and what was met before is judged. Where Python's
//! several machines differ (a frame that an opcode crosses, say) this one goes on. `decode` of the formats builds all
//! values and refuses what is odd; here the pickle may be of any size and no value is built.

use std::collections::HashMap;

use weighbridge_formats::{Result, Source};

use super::input::Input;
use super::judge::{Event, Name, Nested};
use super::opcode;
use super::value::{Kind, Memo, Node, Nodes, Slot, Stack, Underflow, Value};

/// How a trace is made.
#[derive(Clone, Copy, Default)]
pub(super) struct Mode {
    /// Raw arrays stand between the parts of the pickle, as joblib has them.
    pub(super) joblib: bool,
    /// The pickle belongs to a TorchScript program.
    pub(super) script: bool,
    /// The pickle is of a tar that torch wrote before it had a format of its own.
    pub(super) tar: bool,
    /// How many opcodes are looked at; all where it is zero.
    pub(super) opcodes: u64,
    /// How much work it may be, in units of about a nanosecond.
    pub(super) work: u64,
}

/// How a pickle ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By STOP.
    Stop,
    /// Python's machine would stop here with an error.
    Broken(String),
    /// The number of opcodes that were asked for.
    Enough,
    /// The work that was allowed is done.
    Weary,
}

/// What an opcode is of work, and one at which a name, call, object or change is judged.
const PLAIN: u64 = 8;
const JUDGED: u64 = 400;

fn is_judged(opcode: u8) -> bool {
    matches!(opcode, b'c' | 0x93 | b'i' | b'o' | b'R' | 0x81 | 0x92 | b'b' | b'P' | b'Q' | 0x82..=0x84)
}

/// A pickle that is looked at.
pub(super) struct Trace<'a> {
    pub(super) input: Input<'a>,
    pub(super) mode: Mode,
    pub(super) stack: Stack,
    pub(super) memo: Memo,
    pub(super) nodes: Nodes,
    /// The pickle around an array of objects in a dump of joblib's.
    outer: Option<(Stack, Memo)>,
    pub(super) names: Vec<Name>,
    pub(super) by_name: HashMap<(String, String), u32>,
    pub(super) pairs: HashMap<(Slot, Slot), Value>,
    pub(super) events: Vec<Event>,
    pub(super) seen: HashMap<(&'static str, String), usize>,
    pub(super) nested: Vec<Nested>,
    /// Where the current opcode stands, and which it is.
    pub(super) start: u64,
    pub(super) opcode: u8,
    pub(super) count: u64,
    /// The work that was done.
    pub(super) work: u64,
    /// Whether an array of joblib's was met.
    pub(super) wrappers: bool,
    /// Calls, objects and changes that were met, known ones too.
    pub(super) uses: u64,
    pub(super) protocol: Option<u8>,
    pub(super) root: Value,
}

impl<'a> Trace<'a> {
    pub(super) fn new(source: &'a Source, from: u64, mode: Mode) -> Self {
        Self {
            input: Input::new(source, from),
            mode,
            stack: Stack::default(),
            memo: Memo::default(),
            nodes: Nodes::default(),
            outer: None,
            names: Vec::new(),
            by_name: HashMap::new(),
            pairs: HashMap::new(),
            events: Vec::new(),
            seen: HashMap::new(),
            nested: Vec::new(),
            start: from,
            opcode: 0,
            count: 0,
            work: 0,
            wrappers: false,
            uses: 0,
            protocol: None,
            root: Value::Opaque,
        }
    }

    /// Runs to the end of one pickle.
    pub(super) fn run(&mut self) -> Result<End> {
        loop {
            self.start = self.input.offset();
            let Some(byte) = self.input.byte()? else {
                return Ok(End::Broken("it ends without STOP".to_owned()));
            };
            self.opcode = byte;
            self.count += 1;
            self.work += if is_judged(byte) { JUDGED } else { PLAIN };
            if self.work > self.mode.work {
                return Ok(End::Weary);
            }
            if self.mode.opcodes > 0 && self.count > self.mode.opcodes {
                return Ok(End::Enough);
            }
            match self.step(byte) {
                Ok(Step::Next) => {}
                Ok(Step::Stop) => match self.outer.take() {
                    // The array of objects ends, and the pickle around it goes on.
                    Some((stack, memo)) => (self.stack, self.memo) = (stack, memo),
                    None => return Ok(End::Stop),
                },
                Ok(Step::Objects) => {
                    self.outer = Some((std::mem::take(&mut self.stack), std::mem::take(&mut self.memo)));
                }
                Err(Fault::Broken(why)) => {
                    return Ok(End::Broken(format!("{} {why}", opcode::shown(byte))));
                }
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
    }

    fn step(&mut self, byte: u8) -> Result<Step, Fault> {
        match byte {
            b'q' => {
                let key = self.u8()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = self.u32()?;
                self.put(key.into())?;
            }
            0x94 => self.put(self.memo.count)?,
            b'p' => {
                let key = self.decimal()?;
                self.put(key)?;
            }
            b'h' => {
                let key = self.u8()?;
                self.get(key.into())?;
            }
            b'j' => {
                let key = self.u32()?;
                self.get(key.into())?;
            }
            b'g' => {
                let key = self.decimal()?;
                self.get(key)?;
            }
            b'K' => {
                let n = self.u8()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'(' => self.stack.push(Value::Mark),
            b't' => self.gathered(Kind::Tuple)?,
            b'l' => self.gathered(Kind::List)?,
            b'd' => self.gathered(Kind::Dict)?,
            0x91 => self.gathered(Kind::Set)?,
            b')' => self.made(Node::new(Kind::Tuple)),
            b']' => self.made(Node::new(Kind::List)),
            b'}' => self.made(Node::new(Kind::Dict)),
            0x8f => self.made(Node::new(Kind::Set)),
            0x85..=0x87 => {
                let count = usize::from(byte - 0x84);
                let mut items = [Slot::from(Value::Opaque); 3];
                for item in items[..count].iter_mut().rev() {
                    *item = self.stack.pop()?.into();
                }
                self.made(Node::of(Kind::Tuple, &items[..count]));
            }
            b'N' => self.stack.push(Value::Nothing),
            0x88 | 0x89 => self.stack.push(Value::Plain),
            b'G' => {
                self.skip(8)?;
                self.stack.push(Value::Plain);
            }
            b'F' => {
                self.line()?;
                self.stack.push(Value::Plain);
            }
            b'I' | b'L' => {
                let value = self.decimal_value()?;
                self.stack.push(value);
            }
            0x8a => {
                let n = self.u8()?;
                self.long(n.into())?;
            }
            0x8b => {
                let n = self.length32()?;
                self.long(n)?;
            }
            b'X' | 0x8c | 0x8d => {
                let n = match byte {
                    b'X' => self.u32()?.into(),
                    0x8c => self.u8()?.into(),
                    _ => u64::from_le_bytes(self.array()?),
                };
                self.skip(n)?;
                self.stack.push(Value::Text(self.start));
            }
            b'S' | b'V' => {
                self.line()?;
                self.stack.push(Value::Text(self.start));
            }
            b'U' | b'T' => {
                let n = if byte == b'U' { self.u8()?.into() } else { self.length32()? };
                self.held(n)?;
                self.stack.push(Value::Text(self.start));
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let n = match byte {
                    b'B' => self.u32()?.into(),
                    b'C' => self.u8()?.into(),
                    _ => u64::from_le_bytes(self.array()?),
                };
                self.held(n)?;
                self.stack.push(Value::Bytes(self.start));
            }
            b'a' => {
                let item = self.stack.pop()?;
                self.add_to_top(&[item.into()])?;
            }
            b's' => {
                let value = self.stack.pop()?;
                let key = self.stack.pop()?;
                self.add_to_top(&[key.into(), value.into()])?;
            }
            b'e' | b'u' | 0x90 => {
                let mut first = Node::new(Kind::Tuple);
                self.stack.take_to_mark(|items| first.extend(items))?;
                let items: Vec<Slot> = first.items().to_vec();
                let more = first.count.saturating_sub(items.len() as u32);
                if byte == b'u' && first.count % 2 == 1 {
                    return Err(broken("has a key without a value"));
                }
                self.add_to_top(&items)?;
                if let Some(node) = self.stack.top().ok().and_then(|top| self.nodes.get_mut(top)) {
                    node.count = node.count.saturating_add(more);
                }
            }
            b'0' => self.stack.drop_top()?,
            b'1' => self.stack.take_to_mark(|_| ())?,
            b'2' => {
                let top = self.stack.top()?;
                self.stack.push(top);
            }
            b'c' => {
                let value = self.global_lines()?;
                self.stack.push(value);
            }
            0x93 => {
                let name = self.stack.pop()?;
                let module = self.stack.pop()?;
                let value = self.stack_global(module, name);
                self.stack.push(value);
            }
            b'i' => {
                let class = self.global_lines()?;
                let mut args = Node::new(Kind::Tuple);
                self.stack.take_to_mark(|items| args.extend(items))?;
                let args = self.nodes.push(args);
                let value = self.instance(class, args);
                self.stack.push(value);
            }
            b'o' => {
                let (mut args, mut class) = (Node::new(Kind::Tuple), None);
                self.stack.take_to_mark(|items| {
                    if let Some((first, rest)) = items.split_first() {
                        class = Some(first.value());
                        args.extend(rest);
                    }
                })?;
                let Some(class) = class else { return Err(broken("has no class")) };
                let args = self.nodes.push(args);
                let value = self.instance(class, args);
                self.stack.push(value);
            }
            b'R' => {
                let args = self.stack.pop()?;
                let callable = self.stack.pop()?;
                let value = self.called(callable, args);
                self.stack.push(value);
            }
            0x81 => {
                let args = self.stack.pop()?;
                let class = self.stack.pop()?;
                let value = self.instantiated(class, args);
                self.stack.push(value);
            }
            0x92 => {
                self.stack.pop()?;
                let args = self.stack.pop()?;
                let class = self.stack.pop()?;
                let value = self.instantiated(class, args);
                self.stack.push(value);
            }
            b'b' => {
                let state = self.stack.pop()?;
                let target = self.stack.top()?;
                self.built(target, state);
                if self.mode.joblib && self.outer.is_none() {
                    return self.raw_array(target);
                }
            }
            b'P' => {
                self.line()?;
                let value = self.persistent(Value::Opaque);
                self.stack.push(value);
            }
            b'Q' => {
                let id = self.stack.pop()?;
                let value = self.persistent(id);
                self.stack.push(value);
            }
            0x82..=0x84 => {
                let code = match byte {
                    0x82 => self.u8()?.into(),
                    0x83 => u16::from_le_bytes(self.array()?).into(),
                    _ => i64::from(i32::from_le_bytes(self.array()?)),
                };
                let value = self.extension(code);
                self.stack.push(value);
            }
            0x80 => {
                let protocol = self.u8()?;
                if protocol > 5 {
                    return Err(broken(&format!("names protocol {protocol}; 5 is the last")));
                }
                self.protocol = Some(protocol);
            }
            // What the frame says of its length is for reading ahead; Python's machines differ in what they make of it.
            0x95 => self.skip_frame()?,
            0x97 => self.stack.push(Value::Opaque),
            0x98 => drop(self.stack.top()?),
            b'.' => {
                self.root = self.stack.pop()?;
                return Ok(Step::Stop);
            }
            _ => return Err(broken("is no opcode")),
        }
        Ok(Step::Next)
    }

    fn made(&mut self, node: Node) {
        let value = self.nodes.push(node);
        self.stack.push(value);
    }

    fn gathered(&mut self, kind: Kind) -> Result<(), Fault> {
        let mut node = Node::new(kind);
        self.stack.take_to_mark(|items| node.extend(items))?;
        self.made(node);
        Ok(())
    }

    /// What is added to the container on top, which `added` judges.
    fn add_to_top(&mut self, items: &[Slot]) -> Result<(), Fault> {
        let target = self.stack.top()?;
        if let Some(why) = self.added(target) {
            return Err(broken(why));
        }
        if let Some(node) = self.nodes.get_mut(target) {
            node.extend(items);
        }
        Ok(())
    }

    fn put(&mut self, key: u64) -> Result<(), Fault> {
        let top = self.stack.top()?;
        self.memo.put(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), Fault> {
        let value = self
            .memo
            .get(key)
            .ok_or_else(|| broken(&format!("asks for memo entry {key}, which is missing")))?;
        self.stack.push(value);
        Ok(())
    }

    fn long(&mut self, length: u64) -> Result<(), Fault> {
        let at = self.input.offset();
        self.skip(length)?;
        let mut value = Value::Plain;
        if (1..=8).contains(&length) {
            let bytes = self.input.peek(at, length as usize);
            let mut wide = [if bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 }; 8];
            wide[..bytes.len()].copy_from_slice(&bytes);
            value = Value::Int(i64::from_le_bytes(wide));
        }
        self.stack.push(value);
        Ok(())
    }

    /// Bytes that the pickle holds, in which something may stand that a loader loads in turn.
    fn held(&mut self, length: u64) -> Result<(), Fault> {
        let at = self.input.offset();
        if length > self.input.end().saturating_sub(at) {
            return Err(broken("is longer than what is left"));
        }
        self.look_inside(at, length);
        self.skip(length)
    }

    fn skip_frame(&mut self) -> Result<(), Fault> {
        let length = u64::from_le_bytes(self.array()?);
        let left = self.input.end().saturating_sub(self.input.offset());
        if length > left && self.mode.opcodes == 0 {
            let what = format!("a frame has {length} bytes, and {left} are left");
            self.event("pickle-broken", crate::scan::report::Verdict::Unknown, None, what);
        }
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), Fault> {
        if self.input.skip(length) { Ok(()) } else { Err(broken("is longer than what is left")) }
    }

    pub(super) fn line(&mut self) -> Result<u64, Fault> {
        let line = self.input.line().map_err(Fault::Failed)?;
        line.ok_or_else(|| broken("has a line without an end"))
    }

    /// A line's content, if it is short.
    pub(super) fn short_line(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let at = self.input.offset();
        let length = self.line()?;
        let most = super::literal::MOST;
        Ok((length <= most as u64).then(|| self.input.peek(at, length as usize)))
    }

    fn decimal(&mut self) -> Result<u64, Fault> {
        let line = self.short_line()?.unwrap_or_default();
        // Python reads `1_000`, too.
        let number = std::str::from_utf8(&line).ok().and_then(|l| l.trim().replace('_', "").parse().ok());
        number.ok_or_else(|| broken("has no number"))
    }

    fn decimal_value(&mut self) -> Result<Value, Fault> {
        let line = self.short_line()?.unwrap_or_default();
        let text = std::str::from_utf8(&line).unwrap_or_default().trim().trim_end_matches('L');
        Ok(match text {
            "00" | "01" => Value::Plain,
            _ => text.parse().map_or(Value::Plain, Value::Int),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.input.array().map_err(Fault::Failed)?.ok_or_else(|| broken("is cut off"))
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn length32(&mut self) -> Result<u64, Fault> {
        let n = i32::from_le_bytes(self.array()?);
        u64::try_from(n).map_err(|_| broken("has a negative length"))
    }
}

/// What an opcode leads to.
pub(super) enum Step {
    Next,
    Stop,
    /// A whole pickle follows, in place of an array's raw bytes.
    Objects,
}

/// Why the machine cannot go on.
pub(super) enum Fault {
    Broken(String),
    Failed(weighbridge_formats::Error),
}

#[cold]
pub(super) fn broken(why: &str) -> Fault {
    Fault::Broken(why.to_owned())
}

impl From<Underflow> for Fault {
    fn from(_: Underflow) -> Self {
        broken("takes more from the stack than there is")
    }
}
