//! The dotted names of tensors: the path to each through dicts, sequences, modules and what torch builds.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::account::{Account, block};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::value::{Object, Value, ValueId, Values};

/// One component of a path.
#[derive(Clone, Copy)]
enum Component {
    Key(ValueId),
    Index(usize),
    Name(&'static str),
    /// Nothing: what is below has the name of what is above.
    Same,
}

enum Step {
    Visit { id: ValueId, parent: u32, component: Component, slot: Slot },
    Leave(ValueId),
}

/// Where the reference to a tensor stands, so that a second one can be given a value of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Slot {
    holder: ValueId,
    index: u32,
}

/// A tensor's name, with its index in the raw tensors.
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    pub(crate) raw: u32,
}

/// Names every tensor that can be reached from the root, in the order of the file, and renumbers
/// [`Value::Tensor`] so that it counts the names. A tensor under several names appears under each.
///
/// The second result says whether names had to be told apart by a number, because two paths read the same.
pub(crate) fn name_tensors(
    values: &mut Values,
    limits: &Limits,
    account: &mut Account,
) -> Result<(Vec<Named>, bool)> {
    let Some(root) = values.root() else { return Ok((Vec::new(), false)) };
    if let Value::Tensor(raw) = *values.get(root) {
        *values.get_mut(root) = Value::Tensor(0);
        return Ok((vec![Named { name: "tensor".into(), raw }], false));
    }
    // Most files are trees with a tensor nearly everywhere. Where walking them costs more than that, parts
    // without tensors are left out: such are the files in which ten lists stand for a billion.
    let cheap = values.len() as u64 * 4 + 1000;
    // One tensor that many paths lead to has as many names, so two kilobytes could have billions of them: what naming
    // costs is held to a multiple of the values.
    let most = (values.len() as u64).saturating_mul(16).saturating_add(20_000).min(limits.values);
    let before = account.left();
    let walked = match Walk::new(values, limits, None, cheap, account)?.run(root)? {
        Some(walked) => Some(walked),
        None => {
            account.refund(before - account.left());
            let leads = leads_to_tensor(values, account)?;
            Walk::new(values, limits, Some(&leads), most, account)?.run(root)?
        }
    };
    let Some((named, renamed, slots)) = walked else {
        let what = format!("naming the tensors takes more than {most} steps or {} levels", limits.depth);
        return Err(Error::limit(what).with_hint("raise Limits::values and Limits::depth"));
    };
    renumber(values, &named, &slots)?;
    Ok((named, renamed))
}

/// Which values have a tensor at or below them, by walking the references backwards.
fn leads_to_tensor(values: &Values, account: &mut Account) -> Result<Vec<bool>> {
    let before = account.left();
    account.charge_items::<[u32; 4]>(values.len())?;
    let mut starts = vec![0u32; values.len() + 1];
    for id in values.ids() {
        values.parts(id, |part| starts[part.index() + 1] += 1);
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    account.charge_items::<u32>(starts[values.len()] as usize)?;
    let mut parents = vec![0u32; starts[values.len()] as usize];
    let mut next = starts.clone();
    for id in values.ids() {
        values.parts(id, |part| {
            let at = &mut next[part.index()];
            parents[*at as usize] = id.index() as u32;
            *at += 1;
        });
    }
    let mut leads = vec![false; values.len()];
    let mut stack: Vec<u32> = values
        .iter()
        .filter(|(_, v)| matches!(v, Value::Tensor(_)))
        .map(|(id, _)| id.index() as u32)
        .collect();
    stack.iter().for_each(|&i| leads[i as usize] = true);
    while let Some(i) = stack.pop() {
        for &parent in &parents[starts[i as usize] as usize..starts[i as usize + 1] as usize] {
            if !std::mem::replace(&mut leads[parent as usize], true) {
                stack.push(parent);
            }
        }
    }
    account.refund(before - account.left());
    Ok(leads)
}

struct Walk<'a> {
    values: &'a Values,
    account: &'a mut Account,
    /// What stack and children took at most.
    held: u64,
    leads: Option<&'a [bool]>,
    budget: u64,
    depth: u32,
    stack: Vec<Step>,
    children: Vec<(Component, ValueId, u32)>,
    on_path: Vec<bool>,
    path: String,
    seen: HashSet<Arc<str>>,
    /// The next number for a path that several tensors have.
    numbers: HashMap<Arc<str>, u32>,
    /// How many more bytes all names may have together.
    text: usize,
    named: Vec<Named>,
    slots: Vec<Slot>,
    renamed: bool,
}

/// Names, whether some were told apart by a number, and where each tensor stands.
type Walked = (Vec<Named>, bool, Vec<Slot>);

/// The bytes that all names may have together: so many, and so many for each value.
const FREE_NAME_BYTES: usize = 16 << 20;
const NAME_BYTES: usize = 512;

/// What a name takes beside its text: in the list, in the table of names that are there, and its place.
const NAMED: u64 = (size_of::<Named>() + size_of::<Slot>() + 2 * size_of::<Arc<str>>()) as u64;

/// The longest name, in bytes.
const LONGEST: usize = 1 << 16;

impl<'a> Walk<'a> {
    fn new(
        values: &'a Values,
        limits: &Limits,
        leads: Option<&'a [bool]>,
        budget: u64,
        account: &'a mut Account,
    ) -> Result<Self> {
        account.charge_items::<u16>(values.len())?;
        Ok(Self {
            values,
            account,
            held: 0,
            leads,
            budget,
            depth: limits.depth,
            stack: Vec::new(),
            children: Vec::new(),
            on_path: vec![false; values.len()],
            path: String::new(),
            seen: HashSet::with_capacity(values.len() / 16),
            numbers: HashMap::new(),
            text: values.len().saturating_mul(NAME_BYTES).saturating_add(FREE_NAME_BYTES),
            named: Vec::new(),
            slots: Vec::new(),
            renamed: false,
        })
    }

    /// `None` if the budget or the depth does not suffice.
    fn run(mut self, root: ValueId) -> Result<Option<Walked>> {
        let slot = Slot { holder: root, index: 0 };
        // What torch builds of several tensors is one tensor to its users: it is named as a bare one is.
        let component = match self.values.get(root) {
            Value::Object(o)
                if self.values.global(o.class).is_some_and(|g| g.name.starts_with("_rebuild_")) =>
            {
                Component::Name("tensor")
            }
            _ => Component::Same,
        };
        self.stack.push(Step::Visit { id: root, parent: 0, component, slot });
        let mut depth = 0u32;
        while let Some(step) = self.stack.pop() {
            let (id, parent, component, slot) = match step {
                Step::Leave(id) => {
                    self.on_path[id.index()] = false;
                    depth -= 1;
                    continue;
                }
                Step::Visit { id, parent, component, slot } => (id, parent, component, slot),
            };
            let Some(rest) = self.budget.checked_sub(1) else { return Ok(None) };
            self.budget = rest;
            self.path.truncate(parent as usize);
            self.enter(component);
            if self.path.len() > LONGEST {
                return Ok(None);
            }
            if let Value::Tensor(raw) = *self.values.get(id) {
                let Some(left) = self.text.checked_sub(self.path.len()) else { return Ok(None) };
                self.text = left;
                self.account.charge(NAMED + block(16 + self.path.len()))?;
                let name = self.unique();
                self.named.push(Named { name, raw });
                self.slots.push(slot);
                continue;
            }
            if depth >= self.depth {
                return Ok(None);
            }
            self.on_path[id.index()] = true;
            depth += 1;
            self.stack.push(Step::Leave(id));
            self.children(id);
            let parent = self.path.len() as u32;
            let children = std::mem::take(&mut self.children);
            for &(component, child, index) in children.iter().rev() {
                if self.wanted(child) {
                    let slot = Slot { holder: id, index };
                    self.stack.push(Step::Visit { id: child, parent, component, slot });
                }
            }
            self.children = children;
            self.children.clear();
            let held = self.stack.capacity() * size_of::<Step>()
                + self.children.capacity() * size_of::<(Component, ValueId, u32)>();
            self.account.charge((held as u64).saturating_sub(self.held))?;
            self.held = self.held.max(held as u64);
        }
        Ok(Some((self.named, self.renamed, self.slots)))
    }

    fn wanted(&self, id: ValueId) -> bool {
        match self.values.get(id) {
            Value::Tensor(_) => true,
            Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Object(_) => {
                !self.on_path[id.index()] && self.leads.is_none_or(|l| l[id.index()])
            }
            _ => false,
        }
    }

    fn enter(&mut self, component: Component) {
        if !matches!(component, Component::Same) && !self.path.is_empty() {
            self.path.push('.');
        }
        match component {
            Component::Key(key) => write_key(self.values, key, &mut self.path),
            Component::Index(i) => _ = write!(self.path, "{i}"),
            Component::Name(name) => self.path.push_str(name),
            Component::Same => {}
        }
    }

    fn unique(&mut self) -> Arc<str> {
        let mut name: Arc<str> = self.path.as_str().into();
        if self.seen.insert(name.clone()) {
            return name;
        }
        // Each path counts on from its last number: trying them all for each tensor would be quadratic.
        self.renamed = true;
        let next = self.numbers.entry(name.clone()).or_insert(2);
        while !self.seen.insert(name.clone()) {
            name = format!("{}#{next}", self.path).into();
            *next += 1;
        }
        name
    }

    /// Lists the parts of a container that may lead to tensors, with the number by which `renumber` finds each.
    fn children(&mut self, id: ValueId) {
        let mut children = std::mem::take(&mut self.children);
        // What leads nowhere is left out at once: a vocabulary has a million parts.
        match self.values.get(id) {
            Value::List(parts) | Value::Tuple(parts) => {
                let wanted = parts.iter().enumerate().filter(|(_, p)| self.wanted(**p));
                children.extend(wanted.map(|(i, &p)| (Component::Index(i), p, i as u32)));
            }
            Value::Dict(dict) => {
                let wanted = dict.entries.iter().enumerate().filter(|(_, e)| self.wanted(e.1));
                children.extend(wanted.map(|(i, &(k, v))| (Component::Key(k), v, i as u32)));
                children.extend(dict.attributes.map(|a| (Component::Same, a, u32::MAX)));
            }
            Value::Object(object) => object_children(self.values, object, &mut children),
            _ => {}
        }
        self.children = children;
    }
}

/// The parts of an object by the names that torch's users know them by.
fn object_children(values: &Values, object: &Object, out: &mut Vec<(Component, ValueId, u32)>) {
    use Component::{Index, Key, Name, Same};
    let args = values.sequence(object.args).unwrap_or_default();
    let class = values.global(object.class).map_or(("", ""), |g| (&*g.module, &*g.name));
    match (class, args) {
        (("torch._utils", "_rebuild_qtensor"), &[tensor, params, ..]) => {
            out.push((Same, tensor, 0));
            if let Some(&[_, scales, zero_points, ..]) = values.sequence(params) {
                out.push((Name("scales"), scales, u32::MAX));
                out.push((Name("zero_points"), zero_points, u32::MAX));
            }
        }
        (("torch._utils", "_rebuild_sparse_tensor"), &[layout, data, ..]) => {
            let names = sparse_parts(values, layout);
            for (i, &part) in values.sequence(data).unwrap_or_default().iter().enumerate() {
                out.push((names.get(i).map_or(Index(i), |n| Name(n)), part, u32::MAX));
            }
        }
        (("torch._utils", "_rebuild_nested_tensor"), args) => {
            const PARTS: [&str; 4] = ["values", "sizes", "strides", "offsets"];
            for (i, &part) in args.iter().enumerate() {
                out.push((PARTS.get(i).map_or(Index(i), |n| Name(n)), part, u32::MAX));
            }
        }
        (("torch._tensor", "_rebuild_from_type_v2"), &[tensor, _, state])
        | (("torch._utils", "_rebuild_parameter_with_state"), &[tensor, _, _, state]) => {
            out.push((Same, tensor, u32::MAX));
            out.push((Same, state, u32::MAX));
        }
        (("torch._tensor", "_rebuild_from_type_v2"), &[_, _, inner, state]) => {
            out.push((Same, inner, u32::MAX));
            out.push((Same, state, u32::MAX));
        }
        // A dict with a factory, and whatever else is built from a single part, has the names of that part.
        (_, args) => {
            for (i, &arg) in args.iter().enumerate() {
                out.push((if args.len() == 1 { Same } else { Index(i) }, arg, u32::MAX));
            }
        }
    }
    if let Some(state) = object.state {
        match values.get(state) {
            Value::Dict(dict) => {
                for &(key, value) in &dict.entries {
                    // A module keeps its parts in dicts of these names, which `state_dict()` leaves out too.
                    let hidden = matches!(values.str(key), Some("_parameters" | "_buffers" | "_modules"));
                    out.push((if hidden { Same } else { Key(key) }, value, u32::MAX));
                }
            }
            Value::Tuple(parts) => {
                // (dict, slots): the pickle protocol's own form of a state.
                out.extend(parts.iter().map(|&p| (Same, p, u32::MAX)));
            }
            _ => out.push((Same, state, u32::MAX)),
        }
    }
    out.extend(object.kwargs.map(|k| (Same, k, u32::MAX)));
    out.extend(object.items.iter().enumerate().map(|(i, &p)| (Index(i), p, u32::MAX)));
    out.extend(object.entries.iter().map(|&(k, v)| (Key(k), v, u32::MAX)));
}

/// The names of a sparse layout's parts. The layout is `_get_layout("torch.sparse_csr")` in a pickle.
fn sparse_parts(values: &Values, layout: ValueId) -> &'static [&'static str] {
    let text = match values.get(layout) {
        Value::Object(o) => values.sequence(o.args).and_then(|a| a.first()).and_then(|&a| values.str(a)),
        Value::Global(g) => Some(&*g.name),
        _ => None,
    };
    match text.map(|t| t.trim_start_matches("torch.")) {
        Some("sparse_csr" | "sparse_bsr") => &["crow_indices", "col_indices", "values", "size"],
        Some("sparse_csc" | "sparse_bsc") => &["ccol_indices", "row_indices", "values", "size"],
        _ => &["indices", "values", "size", "is_coalesced"],
    }
}

/// Writes a dict's key as a name's component: text as it is, anything else as Python's `repr` has it.
fn write_key(values: &Values, key: ValueId, out: &mut String) {
    if let Value::Str(s) = values.get(key) {
        out.push_str(s);
        return;
    }
    write_repr(values, key, out, 0);
}

fn write_repr(values: &Values, id: ValueId, out: &mut String, depth: u32) {
    if out.len() > LONGEST || depth > 8 {
        out.push('…');
        return;
    }
    match values.get(id) {
        Value::None => out.push_str("None"),
        Value::Bool(b) => out.push_str(if *b { "True" } else { "False" }),
        Value::Int(i) => _ = write!(out, "{i}"),
        Value::BigInt(bytes) if bytes.len() <= 64 => write_decimal(bytes, out),
        Value::Float(f) => _ = write!(out, "{f:?}"),
        Value::Str(s) => {
            let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
            out.push(quote);
            for c in s.chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if c == quote => _ = write!(out, "\\{c}"),
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        Value::Tuple(parts) => {
            out.push('(');
            for (i, &part) in parts.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(values, part, out, depth + 1);
            }
            out.push_str(if parts.len() == 1 { ",)" } else { ")" });
        }
        Value::Global(g) => _ = write!(out, "{g}"),
        _ => _ = write!(out, "<key {}>", id.index()),
    }
}

/// Writes a two's complement, little-endian integer in decimal.
fn write_decimal(bytes: &[u8], out: &mut String) {
    let mut rest = bytes.to_vec();
    if rest.last().is_some_and(|&b| b & 0x80 != 0) {
        out.push('-');
        let mut carry = true;
        for byte in &mut rest {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over);
        }
    }
    let mut digits = Vec::new();
    while rest.iter().any(|&b| b != 0) {
        let mut remainder = 0u32;
        for byte in rest.iter_mut().rev() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 10) as u8;
            remainder = value % 10;
        }
        digits.push(char::from(b'0' + remainder as u8));
    }
    if digits.is_empty() {
        digits.push('0');
    }
    out.extend(digits.iter().rev());
}

/// Makes every [`Value::Tensor`] an index into the names. A tensor that the walk met again gets a value of its
/// own where its place is a list or dict, so that each name has one place.
fn renumber(values: &mut Values, named: &[Named], slots: &[Slot]) -> Result<()> {
    let mut first = vec![u32::MAX; values.len()];
    let (mut own, mut taken) = (Vec::new(), HashSet::new());
    for (i, slot) in slots.iter().enumerate() {
        let id = match (values.get(slot.holder), slot.index) {
            (Value::List(p) | Value::Tuple(p), n) if n != u32::MAX => p.get(n as usize).copied(),
            (Value::Dict(d), n) if n != u32::MAX => d.entries.get(n as usize).map(|e| e.1),
            _ => None,
        };
        match id {
            Some(id) if first[id.index()] == u32::MAX => first[id.index()] = i as u32,
            // A container that is met again on another path has its places already.
            Some(id) if slots[first[id.index()] as usize] == *slot => {}
            Some(_) if taken.insert(*slot) => own.push((i, *slot)),
            _ => {}
        }
    }
    // What stands elsewhere (in an object's arguments) takes the first name of its tensor.
    let count = named.iter().map(|n| n.raw as usize + 1).max().unwrap_or(0);
    let mut first_of_raw = vec![u32::MAX; count];
    for (i, n) in named.iter().enumerate().rev() {
        first_of_raw[n.raw as usize] = i as u32;
    }
    for id in values.ids() {
        if let Value::Tensor(raw) = *values.get(id) {
            let index = match first[id.index()] {
                u32::MAX => first_of_raw.get(raw as usize).copied().filter(|&i| i != u32::MAX),
                index => Some(index),
            };
            // A tensor that no path leads to is no part of the file's object.
            *values.get_mut(id) = index.map_or(Value::None, Value::Tensor);
        }
    }
    for (i, slot) in own {
        let id = values.push(Value::Tensor(i as u32))?;
        match values.get_mut(slot.holder) {
            Value::List(p) | Value::Tuple(p) => p[slot.index as usize] = id,
            Value::Dict(d) => d.entries[slot.index as usize].1 = id,
            _ => {}
        }
    }
    Ok(())
}
