//! From an arena of values to a pickle, without recursion: a stack of tasks walks the graph.
//!
//! A container that several others hold, or that holds itself, is put in the memo and referred to afterwards; a
//! list or dict before its contents, so that cycles close. What can be built only after its contents (a tuple, a
//! call) may, in a cycle, turn up again while it is being written; as in Python's pickler the inner one is then
//! the one that counts, and the outer copy is thrown away.

use super::encoder::{Encoded, Encoder};
use super::opcodes::*;
use crate::value::{Construct, Dict, DictKind, Global, Object};
use crate::{Error, Result, Value, ValueId, Values};

/// How many items Python's pickler puts between a MARK and its APPENDS or SETITEMS.
const BATCH: usize = 1000;

/// How to encode.
#[derive(Clone, Copy)]
pub struct EncodeOptions<'a> {
    /// The protocol, 2 to 5. Readers with an allow list of opcodes (`torch.load(weights_only=True)`) take 2.
    pub protocol: u8,
    /// Which globals [`Value::Global`] and [`Value::Object`] may name. By default [`is_harmless`].
    pub allow_global: &'a dyn Fn(&Global) -> bool,
    /// Whether [`Value::Persistent`] may be written: only where the reader knows the ids.
    pub allow_persistent: bool,
}

impl Default for EncodeOptions<'_> {
    fn default() -> Self {
        Self { protocol: 4, allow_global: &is_harmless, allow_persistent: false }
    }
}

/// Whether a global is a plain type of Python's own library, so that to name it or to call it runs nothing else.
pub fn is_harmless(global: &Global) -> bool {
    match &*global.module {
        "builtins" | "__builtin__" => matches!(
            &*global.name,
            "bool"
                | "complex"
                | "dict"
                | "float"
                | "frozenset"
                | "int"
                | "list"
                | "object"
                | "range"
                | "set"
                | "slice"
                | "str"
                | "tuple"
                | "xrange"
        ),
        "collections" => matches!(&*global.name, "Counter" | "OrderedDict" | "defaultdict" | "deque"),
        "datetime" => matches!(&*global.name, "date" | "datetime" | "time" | "timedelta" | "timezone"),
        "decimal" => &*global.name == "Decimal",
        "fractions" => &*global.name == "Fraction",
        _ => false,
    }
}

/// Says how a [`Value::Tensor`] stands in a pickle.
pub trait TensorEncoder {
    /// Writes the tensor of an index: what it writes must push one item.
    ///
    /// # Errors
    /// Whatever keeps the tensor from being written.
    fn encode(&mut self, tensor: u32, out: &mut Encoder) -> Result<()>;
}

impl<F: FnMut(u32, &mut Encoder) -> Result<()>> TensorEncoder for F {
    fn encode(&mut self, tensor: u32, out: &mut Encoder) -> Result<()> {
        self(tensor, out)
    }
}

/// For values without tensors: each is an error.
#[derive(Clone, Copy, Debug)]
pub struct NoTensors;

impl TensorEncoder for NoTensors {
    fn encode(&mut self, tensor: u32, _: &mut Encoder) -> Result<()> {
        Err(Error::unsupported(format!("tensor {tensor} has no form in a plain pickle"))
            .with_format("pickle"))
    }
}

/// Encodes `root` and what it holds as one pickle.
///
/// Shared parts and cycles survive. Time and space are linear in the values reached.
///
/// # Errors
/// `UnsafeContent` for a global that the options do not allow, for a call of what is no global, for a persistent
/// id without leave; `Unsupported` for what the protocol cannot hold: attributes of a plain dict, extension
/// codes, keyword arguments of a class below protocol 4, cycles without a list or dict in them; `InvalidOptions`
/// for the protocol; and whatever `tensors` returns.
///
/// # Panics
/// If `root` is no id of `values`.
pub fn encode(
    values: &Values,
    root: ValueId,
    options: &EncodeOptions<'_>,
    tensors: &mut dyn TensorEncoder,
) -> Result<Vec<u8>> {
    let encoded = encode_with_payloads(values, root, options, tensors)?;
    if !encoded.payloads.is_empty() {
        return Err(Error::invalid_options("payloads were left out where the whole pickle is wanted")
            .with_format("pickle"));
    }
    Ok(encoded.bytes)
}

/// As [`encode`], where `tensors` leaves payloads out by [`Encoder::payload`].
///
/// # Errors
/// As [`encode`].
///
/// # Panics
/// As [`encode`].
pub fn encode_with_payloads(
    values: &Values,
    root: ValueId,
    options: &EncodeOptions<'_>,
    tensors: &mut dyn TensorEncoder,
) -> Result<Encoded> {
    let out = Encoder::new(options.protocol)?;
    let (shared, edges) = count(values, root);
    let mut walk = Walk {
        values,
        options,
        tensors,
        out,
        memo: vec![0; values.len()],
        shared,
        tasks: vec![Task::Save(root)],
        // In a graph without cycles each edge is followed once. Cycles through tuples cost more; those that
        // cost this much have no end.
        steps: edges.saturating_mul(16).saturating_add(1024),
    };
    walk.run().map_err(|e| e.with_format("pickle"))?;
    Ok(walk.out.finish())
}

/// Which values under `root` are held more than once, or would be met again in a cycle; and how many holds there
/// are.
fn count(values: &Values, root: ValueId) -> (Vec<bool>, u64) {
    let mut holds = vec![0u32; values.len()];
    let mut edges = 1;
    let mut reached = Vec::new();
    let mut stack = vec![root];
    holds[root.index()] = 1;
    while let Some(id) = stack.pop() {
        reached.push(id);
        values.parts(id, |part| {
            edges += 1;
            let held = &mut holds[part.index()];
            *held = held.saturating_add(1);
            if *held == 1 && !is_atom(values.get(part)) {
                stack.push(part);
            }
        });
    }
    let mut shared: Vec<bool> = holds.iter().map(|n| *n > 1).collect();
    // Take away what nothing holds any more, from the root down. What is left is in a cycle or below one: a
    // tuple there is written again inside itself, and its parts with it.
    holds[root.index()] -= 1;
    if holds[root.index()] == 0 {
        stack.push(root);
    }
    while let Some(id) = stack.pop() {
        values.parts(id, |part| {
            let held = &mut holds[part.index()];
            *held = held.saturating_sub(1);
            if *held == 0 && !is_atom(values.get(part)) {
                stack.push(part);
            }
        });
    }
    for id in reached.into_iter().filter(|id| holds[id.index()] > 0) {
        shared[id.index()] = true;
    }
    (shared, edges)
}

/// Whether a value has no parts and is written by a few opcodes.
fn is_atom(value: &Value) -> bool {
    matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))
}

#[derive(Clone, Copy)]
enum Task {
    Save(ValueId),
    /// The items of a tuple from an index on.
    Tuple(ValueId, usize),
    /// The items of a list, a set, or an object from an index on; the second number ends the batch.
    Items(ValueId, usize, usize),
    /// The entries of a dict or an object.
    Entries(ValueId, usize, usize),
    Op(u8),
    /// Puts the value, just built, in the memo.
    Built(ValueId),
    /// Items, entries and state of an object.
    Fill(ValueId),
}

struct Walk<'a> {
    values: &'a Values,
    options: &'a EncodeOptions<'a>,
    tensors: &'a mut dyn TensorEncoder,
    out: Encoder,
    /// Memo places by value, plus one.
    memo: Vec<u32>,
    shared: Vec<bool>,
    tasks: Vec<Task>,
    steps: u64,
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<()> {
        while let Some(task) = self.tasks.pop() {
            self.out.boundary();
            match task {
                Task::Save(id) => self.save(id)?,
                Task::Tuple(id, at) => self.tuple(id, at)?,
                Task::Items(id, at, end) => self.items(id, at, end)?,
                Task::Entries(id, at, end) => self.entries(id, at, end)?,
                Task::Op(op) => self.out.op(op),
                Task::Built(id) => self.built(id)?,
                Task::Fill(id) => self.fill(id),
            }
        }
        Ok(())
    }

    /// Writes a value that has no parts; whether it was one.
    #[inline]
    fn atom(&mut self, id: ValueId) -> Result<bool> {
        match self.values.get(id) {
            Value::None => self.out.none(),
            Value::Bool(b) => self.out.bool(*b),
            Value::Int(i) => self.out.int(*i),
            Value::Float(x) => self.out.float(*x),
            Value::Str(text) => match self.memo[id.index()].checked_sub(1) {
                Some(memo) => self.out.get(memo),
                None => {
                    let memo = self.out.string(text)?;
                    self.memo[id.index()] = memo.saturating_add(1);
                }
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn save(&mut self, id: ValueId) -> Result<()> {
        if self.atom(id)? {
            return Ok(());
        }
        if let Some(memo) = self.memo[id.index()].checked_sub(1) {
            self.out.get(memo);
            return Ok(());
        }
        // Most values get here once; a tuple in a cycle does more often, and costs its length each time.
        let cost = match self.values.get(id) {
            Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => items.len() as u64,
            Value::Dict(dict) => dict.entries.len() as u64,
            _ => 0,
        };
        self.steps = self.steps.checked_sub(cost + 1).ok_or_else(|| {
            Error::unsupported("tuples or calls contain themselves in a way that no pickle can say")
        })?;
        match self.values.get(id) {
            Value::List(items) => {
                self.out.empty_list();
                self.remember(id)?;
                self.begin_items(id, items.len());
            }
            Value::Tuple(items) if items.is_empty() => self.out.empty_tuple(),
            Value::Tuple(items) => {
                if items.len() > 3 {
                    self.out.mark();
                }
                self.tasks.push(Task::Tuple(id, 0));
            }
            Value::Dict(dict) => self.dict(id, dict)?,
            Value::Set(items) if self.options.protocol >= 4 => {
                self.out.op(EMPTY_SET);
                self.remember(id)?;
                self.begin_items(id, items.len());
            }
            Value::Set(items) => self.set_call(id, "set", items.len())?,
            Value::FrozenSet(_) if self.options.protocol >= 4 => {
                self.out.mark();
                self.tasks.push(Task::Tuple(id, 0));
            }
            Value::FrozenSet(items) => self.set_call(id, "frozenset", items.len())?,
            Value::BigInt(bytes) => {
                self.out.big_int(bytes)?;
                self.remember(id)?;
            }
            Value::Bytes(bytes) => {
                self.out.bytes(bytes)?;
                self.remember(id)?;
            }
            Value::ByteArray(bytes) => {
                self.out.byte_array(bytes)?;
                self.remember(id)?;
            }
            Value::Complex(re, im) => {
                self.out.complex(*re, *im)?;
                self.remember(id)?;
            }
            Value::Tensor(index) => {
                self.tensors.encode(*index, &mut self.out)?;
                self.remember(id)?;
            }
            Value::Global(global) => self.global(id, global)?,
            Value::Persistent(name) => {
                if !self.options.allow_persistent {
                    return Err(Error::unsafe_content("a persistent id, which only its own format explains"));
                }
                self.tasks.extend([Task::Built(id), Task::Op(BINPERSID), Task::Save(*name)]);
            }
            Value::Object(object) => self.object(id, object)?,
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => {}
        }
        Ok(())
    }

    /// Puts what was just pushed in the memo, if anything refers to it again.
    fn remember(&mut self, id: ValueId) -> Result<()> {
        if self.shared[id.index()] {
            self.memo[id.index()] = self.out.put()?.saturating_add(1);
        }
        Ok(())
    }

    /// The same for what is complete only after its contents. If they brought it forth already, in a cycle, that
    /// one is the value, and this copy goes.
    fn built(&mut self, id: ValueId) -> Result<()> {
        match self.memo[id.index()].checked_sub(1) {
            Some(memo) => {
                self.out.op(POP);
                self.out.get(memo);
                Ok(())
            }
            None => self.remember(id),
        }
    }

    fn global(&mut self, id: ValueId, global: &Global) -> Result<()> {
        if !(self.options.allow_global)(global) {
            return Err(Error::unsafe_content(format!("the global {global} is not known to be harmless"))
                .with_hint("leave the value out, or choose a format without Python objects"));
        }
        self.memo[id.index()] = self.out.global(&global.module, &global.name)?.saturating_add(1);
        Ok(())
    }

    fn dict(&mut self, id: ValueId, dict: &Dict) -> Result<()> {
        if let Some(attributes) = dict.attributes {
            if dict.kind == DictKind::Dict {
                return Err(Error::unsupported("attributes of a plain dict, which Python's cannot have")
                    .with_hint("an OrderedDict can have attributes"));
            }
            self.tasks.extend([Task::Op(BUILD), Task::Save(attributes)]);
        }
        match dict.kind {
            DictKind::Dict => self.out.empty_dict(),
            DictKind::Ordered => self.out.empty_ordered_dict()?,
            DictKind::Counter => {
                // Python calls Counter with a dict of the counts.
                self.out.global("collections", "Counter")?;
                self.out.empty_dict();
                self.tasks.extend([Task::Built(id), Task::Op(REDUCE), Task::Op(TUPLE1)]);
                self.begin_entries(id, dict.entries.len());
                return Ok(());
            }
        }
        self.remember(id)?;
        self.begin_entries(id, dict.entries.len());
        Ok(())
    }

    /// A set below protocol 4: a call with a list.
    fn set_call(&mut self, id: ValueId, name: &str, count: usize) -> Result<()> {
        self.out.global("builtins", name)?;
        self.out.empty_list();
        self.tasks.extend([Task::Built(id), Task::Op(REDUCE), Task::Op(TUPLE1)]);
        self.begin_items(id, count);
        Ok(())
    }

    fn object(&mut self, id: ValueId, object: &Object) -> Result<()> {
        if self.values.global(object.class).is_none() {
            return Err(match object.construct {
                Construct::Extension => {
                    Error::unsupported("an extension code, whose meaning is not in the file")
                }
                _ => Error::unsafe_content("a call of what is not a global"),
            });
        }
        if self.values.sequence(object.args).is_none()
            || matches!(self.values.get(object.args), Value::List(_))
        {
            return Err(Error::unsupported("a call whose arguments are no tuple"));
        }
        self.tasks.extend([Task::Fill(id), Task::Built(id)]);
        let op = match (object.construct, object.kwargs) {
            (Construct::Call, None) => REDUCE,
            (Construct::New, None) => NEWOBJ,
            (Construct::NewEx, Some(kwargs)) if self.options.protocol >= 4 => {
                self.tasks.extend([Task::Op(NEWOBJ_EX), Task::Save(kwargs)]);
                self.tasks.extend([Task::Save(object.args), Task::Save(object.class)]);
                return Ok(());
            }
            (Construct::NewEx, Some(_)) => {
                return Err(Error::unsupported("keyword arguments of a class need protocol 4 or later"));
            }
            _ => return Err(Error::unsupported("an object that no opcode can build")),
        };
        self.tasks.extend([Task::Op(op), Task::Save(object.args), Task::Save(object.class)]);
        Ok(())
    }

    fn fill(&mut self, id: ValueId) {
        let Value::Object(object) = self.values.get(id) else { return };
        if let Some(state) = object.state {
            self.tasks.extend([Task::Op(BUILD), Task::Save(state)]);
        }
        self.begin_entries(id, object.entries.len());
        self.begin_items(id, object.items.len());
    }

    fn tuple(&mut self, id: ValueId, mut at: usize) -> Result<()> {
        let (items, frozen): (&'a [ValueId], bool) = match self.values.get(id) {
            Value::Tuple(items) => (items, false),
            Value::FrozenSet(items) => (items, true),
            _ => return Ok(()),
        };
        while let Some(item) = items.get(at) {
            at += 1;
            if !self.atom(*item)? {
                self.tasks.extend([Task::Tuple(id, at), Task::Save(*item)]);
                return Ok(());
            }
        }
        self.out.op(match items.len() {
            _ if frozen => FROZENSET,
            1 => TUPLE1,
            2 => TUPLE2,
            3 => TUPLE3,
            _ => TUPLE,
        });
        self.built(id)
    }

    fn begin_items(&mut self, id: ValueId, count: usize) {
        if count > 0 {
            self.tasks.push(Task::Items(id, 0, 0));
        }
    }

    fn begin_entries(&mut self, id: ValueId, count: usize) {
        if count > 0 {
            self.tasks.push(Task::Entries(id, 0, 0));
        }
    }

    /// Opens a batch at `at` and says where it ends. One of a single item has a mark too: a byte more, and one
    /// form less.
    fn begin_batch(&mut self, at: usize, count: usize) -> usize {
        self.out.mark();
        at + (count - at).min(BATCH)
    }

    fn items(&mut self, id: ValueId, mut at: usize, mut end: usize) -> Result<()> {
        let (items, close): (&'a [ValueId], u8) = match self.values.get(id) {
            Value::List(items) => (items, APPENDS),
            Value::Object(object) => (&object.items, APPENDS),
            Value::Set(items) if self.options.protocol >= 4 => (items, ADDITEMS),
            // Below protocol 4 the items go to the list that the set is called with.
            Value::Set(items) | Value::FrozenSet(items) => (items, APPENDS),
            _ => return Ok(()),
        };
        if end == 0 {
            end = self.begin_batch(at, items.len());
        }
        loop {
            while at < end {
                let item = items[at];
                at += 1;
                if !self.atom(item)? {
                    self.tasks.extend([Task::Items(id, at, end), Task::Save(item)]);
                    return Ok(());
                }
            }
            self.out.op(close);
            if at == items.len() {
                return Ok(());
            }
            self.out.boundary();
            end = self.begin_batch(at, items.len());
        }
    }

    fn entries(&mut self, id: ValueId, mut at: usize, mut end: usize) -> Result<()> {
        let entries: &'a [(ValueId, ValueId)] = match self.values.get(id) {
            Value::Dict(dict) => &dict.entries,
            Value::Object(object) => &object.entries,
            _ => return Ok(()),
        };
        if end == 0 {
            end = self.begin_batch(at, entries.len());
        }
        loop {
            while at < end {
                let (key, value) = entries[at];
                at += 1;
                if !self.atom(key)? {
                    self.tasks.extend([Task::Entries(id, at, end), Task::Save(value), Task::Save(key)]);
                    return Ok(());
                }
                if !self.atom(value)? {
                    self.tasks.extend([Task::Entries(id, at, end), Task::Save(value)]);
                    return Ok(());
                }
            }
            self.out.op(SETITEMS);
            if at == entries.len() {
                return Ok(());
            }
            self.out.boundary();
            end = self.begin_batch(at, entries.len());
        }
    }
}
