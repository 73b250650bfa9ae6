//! TorchScript programs, listed without running them: modules, classes, methods, constants. And a writer of programs.
//!
//! A program is text in `code/`, the tensors that the text names as `CONSTANTS.cN`, and the pickle of a module whose
//! classes the text defines. The text is split into definitions and handed out; nothing compiles or interprets it. The
//! weights are the archive that [`TorchReader`](super::TorchReader) opens.
//!
//! Source: files that torch 2.13 wrote, and its `torch/csrc/jit/serialization/python_print.cpp`.

mod code;
mod write;

use std::collections::HashSet;

use super::ID;
use super::container::Container;
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::source::Source;
use crate::traits::ReadOptions;
use crate::value::{Dict, Value, ValueId, Values};
use crate::zip::ZipArchive;

pub use code::{Argument, Attribute, Class, Function};
pub use write::{Program, attribute, plan};

/// The most bytes that the paths of all modules may take: each nested one repeats those around it.
const PATH_BYTES: usize = 64 << 20;

/// A module of the program: a place in the tree, and the class of what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The dotted path from the root; empty for the root.
    pub path: String,
    /// The qualified name of its class, one of [`Script::classes`] in an honest file.
    pub class: String,
}

/// A file that was saved beside the program (`_extra_files`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraFile {
    /// Its name below `extra/`.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A TorchScript file, read and not run.
#[non_exhaustive]
pub struct Script {
    /// The modules, from the root down in the order of the file. One that stands at several places is listed at each,
    /// and what is below it only at the first.
    pub modules: Vec<Module>,
    /// The classes that the code defines, with their methods.
    pub classes: Vec<Class>,
    /// The functions outside classes.
    pub functions: Vec<Function>,
    /// The files beside the program.
    pub extra: Vec<ExtraFile>,
    /// The version of the operators that the code uses.
    pub version: Option<String>,
    constants: Box<dyn Archive>,
    zip: ZipArchive,
    root: String,
    limits: Limits,
}

impl Script {
    /// Reads a TorchScript file; `None` if the source is no such file.
    ///
    /// # Errors
    /// As opening a torch file; `Malformed` for code that is no text; `LimitExceeded` for more code than
    /// [`Limits::header_bytes`].
    pub fn open(source: Source, options: &ReadOptions) -> Result<Option<Self>> {
        let path = source.path().map(ToOwned::to_owned);
        open(source, &options.limits).map_err(|error| {
            let error = error.with_format(ID);
            match path {
                Some(path) => error.with_path(path),
                None => error,
            }
        })
    }

    /// The constants of the code as an archive: the tensor that it calls `CONSTANTS.c0` has the name `c0`. Constants
    /// that are no tensors are among its values.
    pub fn constants(&self) -> &dyn Archive {
        &*self.constants
    }

    /// The content of a file beside the program.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; what the source says.
    pub fn extra_file(&self, name: &str) -> Result<Vec<u8>> {
        match self.zip.find(&format!("{}extra/{name}", self.root)) {
            Some(entry) => self.zip.read(entry, &self.limits),
            None => Err(Error::not_found(format!("no extra file {name:?} is in the program"))),
        }
    }

    /// The class of a qualified name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({} modules, {} classes)", self.modules.len(), self.classes.len())
    }
}

fn open(source: Source, limits: &Limits) -> Result<Option<Script>> {
    let mut head = [0; 4];
    if source.len() < 4 {
        return Ok(None);
    }
    source.reader().read_at(0, &mut head)?;
    if head != *b"PK\x03\x04" {
        return Ok(None);
    }
    let container = Container::open(&source, limits)?;
    if !container.is_script() {
        return Ok(None);
    }
    let Some(data) = container.pickle("data", limits)? else {
        return Err(Error::malformed("the zip has no data.pkl"));
    };
    let modules = modules(&data.0.values, limits)?;
    drop(data);
    let (classes, functions) = read_code(&container, limits)?;
    let extra = extra_files(&container);
    let (root, version) = (container.root.clone(), container.version.clone());
    let zip = ZipArchive::open(&source, limits)?;
    let Some(mut decoded) = container.pickle("constants", limits)? else {
        return Err(Error::malformed("the zip has no constants.pkl"));
    };
    name_constants(&mut decoded.0.values, limits)?;
    let constants = Box::new(container.archive(source, decoded, "constants", limits)?);
    Ok(Some(Script {
        modules,
        classes,
        functions,
        extra,
        version,
        constants,
        zip,
        root,
        limits: limits.clone(),
    }))
}

/// Makes the tuple of constants a dict from the names that the code has for them.
fn name_constants(values: &mut Values, limits: &Limits) -> Result<()> {
    let parts = match values.root().map(|root| values.get(root)) {
        Some(Value::Tuple(parts) | Value::List(parts)) => parts.clone(),
        _ => return Err(Error::malformed("constants.pkl holds no tuple")),
    };
    if parts.len() as u64 > limits.entries || values.len().saturating_add(parts.len()) as u64 > limits.values
    {
        return Err(Error::limit(format!("{} constants", parts.len())));
    }
    let mut dict = Dict::default();
    for (i, part) in parts.into_iter().enumerate() {
        dict.entries.push((values.push(Value::Str(format!("c{i}").into()))?, part));
    }
    let root = values.push(Value::Dict(Box::new(dict)))?;
    values.set_root(root);
    Ok(())
}

/// The class of an object of the program; `None` for everything else.
fn class_of(values: &Values, id: ValueId) -> Option<String> {
    let Value::Object(object) = values.get(id) else { return None };
    let class = values.global(object.class)?;
    let own = class.module.split('.').next() == Some("__torch__");
    own.then(|| class.to_string())
}

/// The tree of objects below the root, by what their states say.
fn modules(values: &Values, limits: &Limits) -> Result<Vec<Module>> {
    let Some(root) = values.root() else { return Ok(Vec::new()) };
    let Some(class) = class_of(values, root) else {
        return Err(Error::malformed("data.pkl holds no object of the program's classes"));
    };
    let mut found = Vec::new();
    let (mut seen, mut bytes) = (HashSet::new(), 0usize);
    let mut pending = vec![(root, String::new(), class)];
    while let Some((id, path, class)) = pending.pop() {
        bytes = bytes.saturating_add(path.len() + class.len());
        if found.len() as u64 >= limits.entries || bytes > PATH_BYTES {
            return Err(Error::limit(format!("the paths of more than {} modules", found.len())));
        }
        let first = seen.insert(id);
        let Value::Object(object) = values.get(id) else { continue };
        let state = object.state.filter(|_| first).and_then(|state| values.dict(state));
        let at = pending.len();
        for &(key, value) in state.iter().flat_map(|dict| &dict.entries) {
            let (Some(name), Some(class)) = (values.str(key), class_of(values, value)) else { continue };
            bytes = bytes.saturating_add(path.len() + name.len());
            if bytes > PATH_BYTES || (pending.len() + found.len()) as u64 >= limits.entries {
                return Err(Error::limit(format!("the paths of more than {} modules", found.len())));
            }
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            pending.push((value, below, class));
        }
        if let Some(added) = pending.get_mut(at..) {
            added.reverse();
        }
        found.push(Module { path, class });
    }
    Ok(found)
}

fn read_code(container: &Container, limits: &Limits) -> Result<(Vec<Class>, Vec<Function>)> {
    let prefix = format!("{}code/", container.root);
    let (mut classes, mut functions, mut total) = (Vec::new(), Vec::new(), 0u64);
    for entry in container.zip.entries() {
        let name = container.zip.name(entry);
        let Some(file) = name.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".py")) else {
            continue;
        };
        total = total.saturating_add(entry.size);
        // Twice: as text, and as what it is split to.
        if total > limits.header_bytes.min(limits.memory / 3) {
            let what = format!("{total} bytes of code would take more than {} of memory", limits.memory);
            return Err(Error::limit(what).with_hint(crate::account::RAISE));
        }
        let text = String::from_utf8(container.zip.read(entry, limits)?).map_err(|_| {
            Error::malformed(format!("member {name:?} is no UTF-8 text")).at_offset(entry.header)
        })?;
        code::split(&file.replace('/', "."), &text, &mut classes, &mut functions);
    }
    Ok((classes, functions))
}

fn extra_files(container: &Container) -> Vec<ExtraFile> {
    let prefix = format!("{}extra/", container.root);
    let entries = container.zip.entries().iter();
    let extra = entries.filter_map(|entry| {
        let name = container.zip.name(entry).strip_prefix(&prefix)?.to_owned();
        Some(ExtraFile { name, bytes: entry.size })
    });
    extra.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Construct, Global, Object};

    /// An object of the program whose state has these parts.
    fn object(values: &mut Values, parts: &[(&str, ValueId)]) -> ValueId {
        let mut dict = Dict::default();
        for (name, part) in parts {
            let key = values.push(Value::Str((*name).into())).unwrap();
            dict.entries.push((key, *part));
        }
        let state = Some(values.push(Value::Dict(Box::new(dict))).unwrap());
        let class = values.push(Value::Global(Box::new(Global::new("__torch__", "M")))).unwrap();
        let args = values.push(Value::Tuple(Vec::new())).unwrap();
        let (items, entries) = (Vec::new(), Vec::new());
        let object = Object { construct: Construct::New, class, args, kwargs: None, state, items, entries };
        values.push(Value::Object(Box::new(object))).unwrap()
    }

    #[test]
    fn modules_that_nest_or_share_without_end_cost_little() {
        let mut values = Values::new();
        let mut inner = object(&mut values, &[]);
        for _ in 0..100_000 {
            inner = object(&mut values, &[("a", inner)]);
        }
        values.set_root(inner);
        assert_eq!(modules(&values, &Limits::default()).unwrap_err().kind(), crate::ErrorKind::LimitExceeded);

        let mut values = Values::new();
        let mut inner = object(&mut values, &[]);
        for _ in 0..60 {
            inner = object(&mut values, &[("a", inner), ("b", inner)]);
        }
        values.set_root(inner);
        let found = modules(&values, &Limits::default()).unwrap();
        assert_eq!(found.len(), 121, "each module's parts once");

        // One that contains itself.
        let mut values = Values::new();
        let root = object(&mut values, &[]);
        let around = object(&mut values, &[("root", root)]);
        let Value::Object(outer) = values.get(around) else { panic!() };
        let state = outer.state;
        if let Value::Object(object) = values.get_mut(root) {
            object.state = state;
        }
        values.set_root(root);
        let paths: Vec<String> =
            modules(&values, &Limits::default()).unwrap().into_iter().map(|m| m.path).collect();
        assert_eq!(paths, ["", "root"]);
    }
}
