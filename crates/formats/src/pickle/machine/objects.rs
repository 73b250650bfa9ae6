//! Names of modules, extension codes, and the state of objects.

use super::{COPIES_PER_BYTE, FREE_COPIES, MAX_NAME, Machine};
use crate::value::{Construct, Global};
use crate::{ErrorKind, Result, Value, ValueId};

impl<'a> Machine<'a> {
    /// Charges copies of what the file holds once, in bytes.
    pub(in crate::pickle) fn charge(&mut self, n: usize) -> Result<()> {
        self.copied = self.copied.saturating_add(n as u64);
        if self.copied > FREE_COPIES + COPIES_PER_BYTE * self.offset() {
            return Err(self
                .fail(ErrorKind::LimitExceeded, "the pickle copies the same values again and again".into()));
        }
        Ok(())
    }

    pub(super) fn named(&self, module: &str, name: &str) -> Result<Value> {
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
    pub(super) fn global_lines(&mut self) -> Result<ValueId> {
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
        // Once for the global, once for the lines that find it again.
        self.take_part(2 * both.len() + 96)?;
        let id = self.values.push(global)?;
        self.lines.insert(both.into(), id);
        Ok(id)
    }

    pub(super) fn stack_global(&mut self) -> Result<()> {
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
                self.take_part(copied + 96)?;
                let id = self.values.push(global)?;
                self.pairs.insert(pair, id);
                id
            }
        };
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn extension(&mut self, code: i32) -> Result<()> {
        if code <= 0 {
            return Err(self.bad("has a code that is not positive"));
        }
        self.room(3)?;
        let none = self.values.push(Value::None)?;
        let code = self.values.push(Value::Int(code.into()))?;
        self.push_object(Construct::Extension, none, code, None)
    }

    /// BUILD. Returns what was given a state.
    pub(super) fn build(&mut self) -> Result<ValueId> {
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
                self.take_ids(2)?;
                self.values.push(Value::List(vec![before, state]))?
            }
        };
        match self.values.get_mut(target) {
            Value::Dict(dict) => dict.attributes = Some(state),
            Value::Object(object) => object.state = Some(state),
            _ => {}
        }
        Ok(target)
    }
}
