//! What a pickle holds that is loaded in turn: bytes that are pickles or files, and raw arrays between its parts.

use super::judge::Nested;
use super::literal::literal;
use super::search::may_begin;
use super::trace::{Fault, Step, Trace, broken};
use super::value::{Kind, Node, Value};
use crate::scan::report::Verdict;
use crate::scan::subject::Role;

/// The longest text that is looked at as bytes in disguise.
const LONGEST_TEXT: u64 = 4 << 20;

impl Trace<'_> {
    /// Text, if it is one and is short.
    pub(super) fn text(&self, value: Value) -> Option<String> {
        let Value::Text(at) = value else { return None };
        let literal = literal(&self.input, at)?;
        literal.is_whole().then(|| String::from_utf8_lossy(&literal.bytes).into_owned())
    }

    /// Looks whether bytes that stand at `at` begin as something that may be loaded.
    pub(super) fn look_inside(&mut self, at: u64, length: u64) {
        if length < 4 {
            return;
        }
        let head = self.input.peek(at, length.min(64) as usize);
        if may_begin(&head) {
            let label = format!("bytes at {at}");
            self.nest(Nested { label, role: Role::Guess, at, length, bytes: None });
        }
    }

    /// Text that stands for bytes, as protocol 2 writes these.
    pub(super) fn look_inside_text(&mut self, value: Value) {
        let Value::Text(at) = value else { return };
        let Some(found) = literal(&self.input, at) else { return };
        let bytes = |text: &[u8]| -> Option<Vec<u8>> {
            let text = String::from_utf8_lossy(text);
            Some(text.chars().map_while(|c| u8::try_from(u32::from(c)).ok()).collect())
        };
        let Some(head) = bytes(&found.bytes) else { return };
        if head.len() < 4 || !may_begin(&head) {
            return;
        }
        let label = format!("bytes at {at}");
        let whole = if found.is_whole() {
            head
        } else if found.length <= LONGEST_TEXT {
            bytes(&self.input.peek(found.at, found.length as usize)).unwrap_or_default()
        } else {
            let what = format!("{} bytes of text stand for bytes, which were not looked at", found.length);
            return self.event("unreadable", Verdict::Unknown, None, what);
        };
        let length = whole.len() as u64;
        self.nest(Nested { label, role: Role::Guess, at, length, bytes: Some(whole) });
    }

    /// Bytes that torch loads as a file of its own.
    pub(super) fn torch_inside(&mut self, value: Value) {
        let Value::Bytes(opcode) = value else { return };
        let Some(found) = literal(&self.input, opcode) else { return };
        let (at, length) = (found.at, found.length);
        // It is among them already if it looked like something.
        self.nested.retain(|n| n.at != at);
        self.nest(Nested { label: format!("bytes at {at}"), role: Role::Pickle, at, length, bytes: None });
    }

    /// What stands behind joblib's wrapper of an array: padding and raw elements, or a pickle of objects.
    pub(super) fn raw_array(&mut self, target: Value) -> Result<Step, Fault> {
        let Some(node) = self.nodes.get(target).filter(|n| n.kind == Kind::Object).copied() else {
            return Ok(Step::Next);
        };
        let is_wrapper = match node.class.value() {
            Value::Global(n) => self
                .names
                .get(n as usize)
                .is_some_and(|n| n.name == "NumpyArrayWrapper" && n.module.ends_with("joblib.numpy_pickle")),
            _ => false,
        };
        if !is_wrapper {
            return Ok(Step::Next);
        }
        self.wrappers = true;
        let Some(state) = self.nodes.get(node.state.value()).filter(|n| n.kind == Kind::Dict).copied() else {
            return Err(broken("gives an array's wrapper a state that does not describe it"));
        };
        let entry = |name: &str| {
            let mut found = None;
            for (key, value) in state.pairs() {
                if self.text(key.value()).as_deref() == Some(name) {
                    found = Some(value.value());
                }
            }
            found
        };
        let (shape, dtype) = (entry("shape"), entry("dtype"));
        let padded = entry("numpy_array_alignment_bytes").is_some_and(|v| v != Value::Nothing);
        let elements = shape.and_then(|shape| {
            let dims = self.nodes.get(shape)?.all()?;
            dims.iter().try_fold(1u64, |n, dim| match dim.value() {
                Value::Int(dim) => n.checked_mul(u64::try_from(dim).ok()?),
                _ => None,
            })
        });
        let size = dtype.and_then(|dtype| self.element(dtype));
        let (Some(elements), Some(size)) = (elements, size) else {
            return Err(broken("gives an array's wrapper a shape or dtype that cannot be followed"));
        };
        match size {
            Element::Objects => Ok(Step::Objects),
            Element::Bytes(size) => {
                let length =
                    elements.checked_mul(size).ok_or_else(|| broken("describes an array past all sizes"))?;
                let here = self.input.offset();
                let padding = if padded {
                    u64::from(self.input.peek(here, 1).first().copied().unwrap_or(0)) + 1
                } else {
                    0
                };
                let passed = padding.checked_add(length).is_some_and(|n| self.input.skip(n));
                if passed { Ok(Step::Next) } else { Err(broken("describes an array that passes the end")) }
            }
        }
    }

    /// The size of an element by the call that makes a dtype, and its state.
    fn element(&self, dtype: Value) -> Option<Element> {
        let node: Node = self.nodes.get(dtype).copied()?;
        let code =
            self.nodes.get(node.args.value())?.items().first().and_then(|code| self.text(code.value()))?;
        let code = code.trim_start_matches(['<', '>', '|', '=']);
        let (kind, digits) = code.split_at_checked(1)?;
        let count: u64 = digits.parse().ok()?;
        if kind == "O" {
            return Some(Element::Objects);
        }
        let state = self.nodes.get(node.state.value());
        if kind == "V" {
            // Flags of NumPy's: 0x3f says that objects are inside. Fields whose state was not kept may hold any.
            let flags = state.and_then(|s| s.items().get(7).copied()).map(|flags| flags.value());
            return match flags {
                Some(Value::Int(flags)) if flags & 1 != 0 => Some(Element::Objects),
                Some(Value::Int(_)) => Some(Element::Bytes(count)),
                _ => None,
            };
        }
        Some(Element::Bytes(if kind == "U" { count.checked_mul(4)? } else { count }))
    }
}

enum Element {
    Objects,
    Bytes(u64),
}
