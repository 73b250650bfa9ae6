//! The decision: what each name, call, object and change makes of the file.
//!
//! A name is known for a use, or it is not. Of what is not known:
//!
//! - A name of Python's standard library is code of the interpreter's own, whatever is done with it: dangerous.
//! - So is a name that is none, that leads through a module of the standard library, or that was computed.
//! - A *call* (REDUCE; INST and OBJ with arguments) of a function runs it while the file is loaded: dangerous. By the
//!   convention of all Python a name that begins in lower case is a function's.
//! - A call of what is no name (the result of another call, an attribute that was looked up) is dangerous.
//! - BUILD or SETITEM on what was imported changes the program: dangerous.
//! - A class of some other module, built or called, and a function that is only named: unknown. Whether its module and
//!   its `__setstate__` are harmless is not in the file.

use super::known::{Grant, Shape, is_identifier, known};
use super::stdlib;
use super::trace::{Fault, Trace};
use super::value::{Kind, Node, Slot, Value};
use crate::scan::report::Verdict;
use crate::scan::subject::Role;

/// A name that the pickle has.
pub(super) struct Name {
    pub(super) module: String,
    pub(super) name: String,
    /// Where it stood first, and by which opcode.
    pub(super) offset: u64,
    pub(super) opcode: u8,
    grant: Option<Grant>,
    /// Whether an event tells of it already.
    pub(super) told: bool,
    /// Whether an object was built or called of it.
    used: bool,
}

impl Name {
    pub(super) fn dotted(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }

    /// Whether it is, or leads through, a module of Python's own, or is no name at all.
    fn is_pythons(&self) -> bool {
        let odd = |s: &str| !s.split('.').all(is_identifier);
        stdlib::holds(&self.module)
            || odd(&self.module)
            || odd(&self.name)
            || self.name.split('.').any(stdlib::is_module)
    }

    /// Whether it is spelled as functions are.
    fn is_function(&self) -> bool {
        let last = self.name.rsplit('.').next().unwrap_or_default();
        !last.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase())
    }
}

/// What is done with a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Built,
    Called,
}

/// Something that counts, before it becomes a finding.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) rule: &'static str,
    pub(super) verdict: Verdict,
    pub(super) offset: u64,
    pub(super) opcode: u8,
    pub(super) callable: Option<String>,
    pub(super) arguments: Option<String>,
    pub(super) what: String,
    /// How often.
    pub(super) times: u64,
}

/// Bytes in the pickle that may be something that is loaded in turn.
pub(super) struct Nested {
    pub(super) label: String,
    pub(super) role: Role,
    pub(super) at: u64,
    pub(super) length: u64,
    /// The bytes, where they do not stand in the file as they are.
    pub(super) bytes: Option<Vec<u8>>,
}

/// The most names, and events, of one pickle.
const NAMES: usize = 4096;
const EVENTS: usize = 1000;
/// The most parts of one pickle that are looked at in turn.
const NESTED: usize = 100_000;
/// How deep a function may rebuild by a function.
const DEPTH: u32 = 4;
/// The most elements that a call may make of numbers alone.
const MOST_ELEMENTS: u64 = 1 << 30;
/// Libraries all of whose honest calls are in the table: another call of theirs, by REDUCE, is none that a writer made.
const CLOSED: &[&str] = &["torch", "numpy", "pandas", "scipy", "joblib"];

impl Trace<'_> {
    pub(super) fn event(
        &mut self,
        rule: &'static str,
        verdict: Verdict,
        callable: Option<String>,
        what: String,
    ) {
        self.event_with(rule, verdict, callable, None, what);
    }

    fn event_with(
        &mut self,
        rule: &'static str,
        verdict: Verdict,
        callable: Option<String>,
        arguments: Option<String>,
        what: String,
    ) {
        let key =
            format!("{} {}", callable.as_deref().unwrap_or(&what), arguments.as_deref().unwrap_or_default());
        if let Some(event) = self.seen.get(&(rule, key.clone())).and_then(|at| self.events.get_mut(*at)) {
            event.times += 1;
            return;
        }
        if self.events.len() >= EVENTS {
            // The last says that there were more, with the worst that was met.
            if let Some(last) = self.events.last_mut() {
                last.times += 1;
                last.verdict = last.verdict.max(verdict);
            }
            return;
        }
        self.seen.insert((rule, key), self.events.len());
        let (offset, opcode) = (self.start, self.opcode);
        self.events.push(Event { rule, verdict, offset, opcode, callable, arguments, what, times: 1 });
    }

    /// A name that the stream imports.
    pub(super) fn imported(&mut self, module: String, name: String) -> Value {
        if let Some(&n) = self.by_name.get(&(module.clone(), name.clone())) {
            return Value::Global(n);
        }
        if self.names.len() >= NAMES {
            let what = format!("it imports more than {NAMES} different names");
            self.event("pickle-global", Verdict::Dangerous, None, what);
            return Value::Opaque;
        }
        let n = self.names.len() as u32;
        let grant = known(&module, &name, self.mode.script);
        self.by_name.insert((module.clone(), name.clone()), n);
        let (offset, opcode) = (self.start, self.opcode);
        self.names.push(Name { module, name, offset, opcode, grant, told: false, used: false });
        Value::Global(n)
    }

    pub(super) fn global_lines(&mut self) -> Result<Value, Fault> {
        let module = self.short_line()?;
        let name = self.short_line()?;
        let (Some(module), Some(name)) = (module, name) else {
            let what = "it imports a name of more than 4096 bytes".to_owned();
            self.event("pickle-global", Verdict::Dangerous, None, what);
            return Ok(Value::Opaque);
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(self.imported(text(module), text(name)))
    }

    pub(super) fn stack_global(&mut self, module: Value, name: Value) -> Value {
        let key = (Slot::from(module), Slot::from(name));
        if let Some(value) = self.pairs.get(&key) {
            return *value;
        }
        let (Some(m), Some(n)) = (self.text(module), self.text(name)) else {
            let shown = format!("{} {}", self.render(module), self.render(name));
            let what = "it imports a name that is computed, or hidden, and not written out".to_owned();
            self.event_with("pickle-global", Verdict::Dangerous, None, Some(shown), what);
            return Value::Opaque;
        };
        let value = self.imported(m, n);
        if self.pairs.len() < NAMES {
            self.pairs.insert(key, value);
        }
        value
    }

    /// EXT: a name by its number in a table that only the loading program has.
    pub(super) fn extension(&mut self, code: i64) -> Value {
        let what = format!("it imports extension {code} of copyreg, which only the loading program can tell");
        self.event("pickle-global", Verdict::Unknown, Some(format!("extension {code}")), what);
        Value::Opaque
    }

    /// INST and OBJ: without arguments an object as NEWOBJ makes it, where the name is a class's.
    pub(super) fn instance(&mut self, class: Value, args: Value) -> Value {
        let bare = self.nodes.get(args).is_some_and(|args| args.count == 0);
        let function = match class {
            Value::Global(n) => self.names.get(n as usize).is_none_or(Name::is_function),
            _ => true,
        };
        // Without arguments a function is called all the same, whatever row its module has.
        if bare && !function { self.instantiated(class, args) } else { self.called(class, args) }
    }

    fn grant(&self, n: u32) -> Option<Grant> {
        self.names.get(n as usize).and_then(|name| name.grant)
    }

    /// REDUCE.
    pub(super) fn called(&mut self, callable: Value, args: Value) -> Value {
        self.uses += 1;
        match callable {
            Value::Global(n) => match self.call_of(n, args, DEPTH) {
                Some(value) => value,
                None => {
                    self.stranger(n, Use::Called, args);
                    self.node(Kind::Called, callable, args)
                }
            },
            Value::Text(_)
            | Value::Bytes(_)
            | Value::Int(_)
            | Value::Plain
            | Value::Nothing
            | Value::Mark => {
                let what = format!("it calls {}, which is nothing to call", self.render(callable));
                self.event("pickle-broken", Verdict::Unknown, None, what);
                Value::Opaque
            }
            Value::Node(_) | Value::Opaque => {
                let (name, shown) = (self.render(callable), self.render(args));
                let what = format!("it calls {name}, which is no name but the result of something else");
                self.event_with("pickle-call", Verdict::Dangerous, Some(name), Some(shown), what);
                self.node(Kind::Called, callable, args)
            }
        }
    }

    /// NEWOBJ.
    pub(super) fn instantiated(&mut self, class: Value, args: Value) -> Value {
        self.uses += 1;
        match class {
            Value::Global(n) => {
                if let Some(name) = self.names.get_mut(n as usize) {
                    name.used = true;
                }
                // `type` by NEWOBJ is no type of a constant: it makes a class.
                let makes = match self.grant(n) {
                    Some(Grant::Call(Shape::TypeOf)) | Some(Grant::Named) | None => false,
                    Some(Grant::Class | Grant::Value | Grant::Call(_)) => true,
                };
                if !makes {
                    self.stranger(n, Use::Built, args);
                }
            }
            Value::Node(_) | Value::Opaque => {
                let (name, shown) = (self.render(class), self.render(args));
                let what = format!(
                    "it builds an object of {name}, which is no name but the result of something else"
                );
                self.event_with("pickle-call", Verdict::Dangerous, Some(name), Some(shown), what);
            }
            _ => {
                let what = format!("it builds an object of {}, which is no class", self.render(class));
                self.event("pickle-broken", Verdict::Unknown, None, what);
            }
        }
        self.node(Kind::Object, class, args)
    }

    fn node(&mut self, kind: Kind, class: Value, args: Value) -> Value {
        let mut node = Node::new(kind);
        (node.class, node.args) = (class.into(), args.into());
        self.nodes.push(node)
    }

    /// What a call of a known name makes, or nothing if that is not known to be harmless.
    fn call_of(&mut self, n: u32, args: Value, depth: u32) -> Option<Value> {
        let callable = Value::Global(n);
        let shape = match self.grant(n)? {
            Grant::Value => {
                self.asks_for_much(n, args);
                self.walks(n, args);
                self.names.get_mut(n as usize)?.used = true;
                return Some(self.node(Kind::Object, callable, args));
            }
            Grant::Class | Grant::Named => return None,
            Grant::Call(shape) => shape,
        };
        let items: Vec<Value> = self.nodes.get(args)?.all()?.iter().map(|slot| slot.value()).collect();
        let plain = |v: &Value| {
            matches!(v, Value::Text(_) | Value::Int(_) | Value::Plain | Value::Nothing | Value::Bytes(_))
        };
        let made = match (shape, items.as_slice()) {
            (Shape::Reconstructor, [class @ Value::Global(_), Value::Global(base), _]) => {
                let plain_base = {
                    let base = self.names.get(*base as usize)?;
                    matches!(base.module.as_str(), "builtins" | "__builtin__")
                        && base.grant == Some(Grant::Value)
                };
                if !plain_base {
                    return None;
                }
                self.instantiated(*class, args)
            }
            (Shape::Instance, [class @ Value::Global(_), ..]) => {
                self.asks_for_much(n, args);
                self.instantiated(*class, args)
            }
            (Shape::Attribute, [Value::Global(class), name @ Value::Text(_)]) => {
                let name = self.text(*name)?;
                if name.starts_with('_') || !is_identifier(&name) || self.grant(*class).is_none() {
                    return None;
                }
                // A member of an enum is a value, a method is a function for whoever gets it.
                if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
                    let full = format!("{}.{name}", self.names.get(*class as usize)?.dotted());
                    let what = format!("it looks up {full}, which may be a method, and hands it on");
                    self.event("pickle-global", Verdict::Unknown, Some(full), what);
                }
                self.node(Kind::Attribute, Value::Global(*class), args)
            }
            (Shape::TypeOf, [Value::Nothing | Value::Plain | Value::Int(_) | Value::Text(_)]) => {
                self.node(Kind::Attribute, callable, args)
            }
            (Shape::TypeOf, [Value::Global(of)]) => {
                // The type of a constant such as Ellipsis; the type of a class is one that makes classes.
                let of = self.names.get(*of as usize)?;
                if !matches!(of.name.as_str(), "Ellipsis" | "NotImplemented" | "None") {
                    return None;
                }
                self.node(Kind::Attribute, callable, args)
            }
            (Shape::Latin1, [text @ Value::Text(_), encoding @ Value::Text(_)]) => {
                if !matches!(self.text(*encoding)?.as_str(), "latin1" | "latin-1") {
                    return None;
                }
                self.look_inside_text(*text);
                self.node(Kind::Object, callable, args)
            }
            (Shape::Ufunc, [module @ Value::Text(_), name @ Value::Text(_)]) => {
                let (module, name) = (self.text(*module)?, self.text(*name)?);
                let numpys = matches!(
                    module.as_str(),
                    "numpy" | "numpy.core" | "numpy.core.umath" | "numpy.core._multiarray_umath"
                ) || module.starts_with("numpy._core");
                let own = (numpys && super::known::is_ufunc(&name))
                    || module == "scipy.special"
                    || module.starts_with("scipy.special.");
                if !own || !is_identifier(&name) || stdlib::is_module(&name) {
                    return None;
                }
                self.node(Kind::Attribute, callable, args)
            }
            (Shape::Random, items) => {
                let random = |v: &Value| match v {
                    // A class, or one of the functions that make one: they are called in turn.
                    Value::Global(n) => self.names.get(*n as usize).is_some_and(|n| {
                        let own = n.module == "numpy.random" || n.module.starts_with("numpy.random.");
                        own && (!n.is_function() || n.name.ends_with("_ctor"))
                    }),
                    Value::Node(_) => self.nodes.get(*v).is_some_and(|n| n.kind == Kind::Object),
                    other => plain(other),
                };
                if !items.iter().all(random) {
                    return None;
                }
                self.node(Kind::Object, callable, args)
            }
            (Shape::Rebuild, [Value::Global(function), Value::Global(_), inner, ..]) => {
                let depth = depth.checked_sub(1)?;
                self.call_of(*function, *inner, depth)?
            }
            (Shape::TorchFile, [bytes @ Value::Bytes(_)]) => {
                self.torch_inside(*bytes);
                self.node(Kind::Object, callable, args)
            }
            // Protocol 2 has bytes as a call, which was looked into there.
            (Shape::TorchFile, [value @ Value::Node(_)]) => {
                let encoded = self.nodes.get(*value).is_some_and(|n| {
                    n.kind == Kind::Object
                        && matches!(n.class.value(), Value::Global(c) if self.grant(c) == Some(Grant::Call(Shape::Latin1)))
                });
                if !encoded {
                    return None;
                }
                self.node(Kind::Object, callable, args)
            }
            (Shape::Member, [value])
                if plain(value) && self.names.get(n as usize).is_some_and(|n| !n.is_function()) =>
            {
                self.node(Kind::Object, callable, args)
            }
            (Shape::Shared, items) if items.iter().all(plain) => self.node(Kind::Attribute, callable, args),
            (Shape::Plain, items) if items.iter().all(plain) => self.node(Kind::Object, callable, args),
            _ => return None,
        };
        self.names.get_mut(n as usize)?.used = true;
        Some(made)
    }

    /// Whether a container is made of an object's items: whatever the object's class gives for these runs.
    fn walks(&mut self, n: u32, args: Value) {
        let Some(name) = self.names.get(n as usize) else { return };
        let gathers = matches!(
            name.module.as_str(),
            "builtins" | "__builtin__" | "collections" | "array" | "io" | "_io"
        );
        if !gathers {
            return;
        }
        let Some(items) = self.nodes.get(args).map(|node| node.items().to_vec()) else { return };
        let class_of = |slot: &Slot| match self
            .nodes
            .get(slot.value())
            .filter(|n| n.kind == Kind::Object)?
            .class
            .value()
        {
            Value::Global(class) => Some(class),
            _ => None,
        };
        let strange =
            items.iter().filter_map(class_of).find(|class| self.grant(*class) == Some(Grant::Class));
        if let Some(class) = strange {
            let (dotted, of, shown) = (name.dotted(), self.names[class as usize].dotted(), self.render(args));
            let what = format!("{dotted} asks an object of {of} for its items, which runs that class");
            self.event_with("pickle-unknown-class", Verdict::Unknown, Some(dotted), Some(shown), what);
        }
    }

    /// Whether a harmless callable is asked for more elements than a pickle of honest make would have it allocate.
    fn asks_for_much(&mut self, n: u32, args: Value) {
        let Some(name) = self.names.get(n as usize) else { return };
        let counts = match name.module.as_str() {
            "builtins" | "__builtin__" => {
                matches!(
                    name.name.as_str(),
                    "bytes" | "bytearray" | "list" | "tuple" | "range" | "xrange" | "set"
                )
            }
            module => {
                module.starts_with("numpy")
                    && matches!(name.name.as_str(), "ndarray" | "_reconstruct" | "_mareconstruct")
            }
        };
        if !counts {
            return;
        }
        let Some(items) = self.nodes.get(args).map(|node| node.items().to_vec()) else { return };
        let product = |slots: &[Slot]| {
            slots.iter().fold(1u64, |product, slot| match slot.value() {
                Value::Int(n) => product.saturating_mul(u64::try_from(n).unwrap_or(1).max(1)),
                _ => product,
            })
        };
        let shapes =
            items.iter().filter_map(|slot| self.nodes.get(slot.value())).filter(|n| n.kind == Kind::Tuple);
        let most = shapes.map(|n| product(n.items())).chain([product(&items)]).max().unwrap_or(1);
        if most > MOST_ELEMENTS {
            let (dotted, shown) = (self.names[n as usize].dotted(), self.render(args));
            let what = format!("loading it has {dotted} allocate {most} elements");
            self.event_with("pickle-allocates", Verdict::Unknown, Some(dotted), Some(shown), what);
        }
    }

    /// A use of a name that nobody vouches for.
    fn stranger(&mut self, n: u32, how: Use, args: Value) {
        let shown = self.render(args);
        let Some(name) = self.names.get_mut(n as usize) else { return };
        name.told = true;
        let Some(name) = self.names.get(n as usize) else { return };
        let (dotted, pythons, function) = (name.dotted(), name.is_pythons(), name.is_function());
        let top = name.module.split('.').next().unwrap_or_default();
        let member = |t: &Self| {
            let items = t.nodes.get(args).and_then(Node::all);
            matches!(items, Some([one]) if matches!(one.value(), Value::Int(_)))
        };
        let closed = name.grant.is_none() && CLOSED.contains(&top);
        let cython = name.name.starts_with("__pyx_unpickle_");
        let (rule, verdict, what) = match how {
            Use::Called if pythons || (function && !cython) || (closed && !cython && !member(self)) => {
                ("pickle-call", Verdict::Dangerous, format!("loading it calls {dotted}"))
            }
            Use::Built if pythons => {
                ("pickle-call", Verdict::Dangerous, format!("loading it builds an object of {dotted}"))
            }
            Use::Called => {
                let what = format!("loading it calls {dotted}, a class that is not known to be harmless");
                ("pickle-unknown-class", Verdict::Unknown, what)
            }
            Use::Built => {
                let what =
                    format!("it holds an object of {dotted}, a class that is not known to be harmless");
                ("pickle-unknown-class", Verdict::Unknown, what)
            }
        };
        self.event_with(rule, verdict, Some(dotted), Some(shown), what);
    }

    /// What is named and never used, at the end of the pickle.
    pub(super) fn settle_names(&mut self) {
        for at in 0..self.names.len() {
            let Some(name) = self.names.get(at) else { break };
            if name.told {
                continue;
            }
            let (dotted, function) = (name.dotted(), name.is_function());
            let (rule, verdict, what) = match name.grant {
                Some(Grant::Class) if function && !name.used => (
                    "pickle-global",
                    Verdict::Unknown,
                    format!("it names {dotted}, a function that is not known to be harmless"),
                ),
                Some(_) => continue,
                None if name.is_pythons() => {
                    ("pickle-global", Verdict::Dangerous, format!("it names {dotted}, and hands it on"))
                }
                None if function => (
                    "pickle-global",
                    Verdict::Unknown,
                    format!("it names {dotted}, a function that is not known to be harmless"),
                ),
                None => (
                    "pickle-unknown-class",
                    Verdict::Unknown,
                    format!("it names {dotted}, a class that is not known to be harmless"),
                ),
            };
            (self.start, self.opcode) = (name.offset, name.opcode);
            self.event(rule, verdict, Some(dotted), what);
        }
    }

    /// BUILD.
    pub(super) fn built(&mut self, target: Value, state: Value) {
        self.uses += 1;
        let imported = match target {
            Value::Global(n) => self.names.get(n as usize).map(Name::dotted),
            Value::Node(_) => match self.nodes.get_mut(target) {
                Some(node) if node.kind == Kind::Attribute => Some(self.render(target)),
                Some(node) => {
                    node.state = state.into();
                    None
                }
                None => self.nodes.was_attribute(target).then(|| "something it looked up".to_owned()),
            },
            _ => None,
        };
        if let Some(name) = imported {
            let shown = self.render(state);
            let what = format!("BUILD changes {name}, which it imported, and no object of its own");
            self.event_with("pickle-build", Verdict::Dangerous, Some(name), Some(shown), what);
        }
    }

    /// APPEND, SETITEM and the like: why Python could not go on, if it could not.
    pub(super) fn added(&mut self, target: Value) -> Option<&'static str> {
        match target {
            Value::Global(n) => {
                self.uses += 1;
                let name = self.names.get(n as usize).map(Name::dotted).unwrap_or_default();
                let what =
                    format!("it puts items into {name}, which it imported, and into no container of its own");
                self.event("pickle-build", Verdict::Dangerous, Some(name), what);
                None
            }
            Value::Node(_) => {
                let kind = self.nodes.get(target)?.kind;
                let fits = match kind {
                    Kind::Tuple => false,
                    Kind::List => matches!(self.opcode, b'a' | b'e'),
                    Kind::Dict => matches!(self.opcode, b's' | b'u'),
                    Kind::Set => self.opcode == 0x90,
                    Kind::Object | Kind::Called | Kind::Attribute | Kind::Persistent => true,
                };
                (!fits).then_some("puts items into what cannot take them")
            }
            Value::Opaque => None,
            _ => Some("puts items into what is no container"),
        }
    }

    /// A persistent id: torch's name a storage; of any other only the loader knows what it stands for.
    pub(super) fn persistent(&mut self, id: Value) -> Value {
        let items: Vec<Value> = match self.nodes.get(id) {
            Some(node) if node.kind == Kind::Tuple => node.items().iter().map(|s| s.value()).collect(),
            _ => Vec::new(),
        };
        let kind = items.first().and_then(|first| self.text(*first));
        match (kind.as_deref(), items.get(1)) {
            (Some("storage"), Some(Value::Global(_))) => {
                if let Some(Value::Int(count)) = items.get(4)
                    && *count < 0
                {
                    let what = format!("a storage has {count} elements");
                    self.event("torch-lies", Verdict::Unknown, None, what);
                }
                return self.node(Kind::Persistent, Value::Nothing, id);
            }
            // Legacy files have the source text of a module's class beside the class, which is what comes out.
            (Some("module"), Some(class @ Value::Global(_))) => return *class,
            _ => {}
        }
        // The tar of torch's first files has numbers.
        let number = self.text(id).is_some_and(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
        if number && self.mode.tar {
            return self.node(Kind::Persistent, Value::Nothing, id);
        }
        let shown = self.render(id);
        let what = "a persistent id: what it stands for is up to the program that loads the file".to_owned();
        self.event_with("pickle-persistent-id", Verdict::Unknown, None, Some(shown), what);
        self.node(Kind::Persistent, Value::Nothing, id)
    }

    pub(super) fn nest(&mut self, nested: Nested) {
        if self.nested.len() < NESTED {
            self.nested.push(nested);
        } else {
            let what = format!(
                "more than {NESTED} of its parts may be files of their own; the rest was not looked at"
            );
            self.event("unreadable", Verdict::Unknown, None, what);
        }
    }
}
