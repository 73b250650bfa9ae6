//! The writer of TorchScript files: a program's text, and weights that stand in modules by their dotted names.
//!
//! The layout is that of every torch file, so that tensors are streamed and a file is the same each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::emit::{Emit, StorageTable};
use super::super::layout::Layout;
use super::super::{ID, write::root_of};
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::pickle::{self, EncodeOptions, Encoder, TensorEncoder};
use crate::tensor::Data;
use crate::traits::WriteOptions;
use crate::value::{Construct, Dict, Global, Object, Value, ValueId, Values};
use crate::write::WritePlan;

/// How deep modules may nest.
const DEPTH: usize = 64;

/// Words that the language has for itself, so that no attribute can be written as one.
const KEYWORDS: &[&str] = &[
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "inf", "is",
    "lambda", "nan", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// A program with one method, `forward`, which takes and gives tensors.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The name of the root's class, an identifier.
    pub class: String,
    /// The names of the arguments, identifiers.
    pub arguments: Vec<String>,
    /// How many tensors it returns: one by itself, more as a tuple.
    pub outputs: usize,
    /// The lines of `forward`, without indentation. Weights stand there as [`attribute`] spells them, and the tensors
    /// of the archive of constants as `CONSTANTS.c0` and so on.
    pub body: Vec<String>,
    /// The version of the operators that the lines use, as torch's file `version` has it.
    pub version: String,
    /// Files beside the program, by name.
    pub extra: Vec<(String, Vec<u8>)>,
}

/// How a program spells the weight of a dotted name: `getattr(self.layer, "0").weight`.
///
/// # Errors
/// `InvalidOptions` for a name of other characters than letters, digits, underscores and dots.
pub fn attribute(name: &str) -> Result<String> {
    let mut out = "self".to_owned();
    for part in name.split('.') {
        check(part).map_err(|e| e.with_tensor(name))?;
        out =
            if is_identifier(part) { format!("{out}.{part}") } else { format!("getattr({out}, \"{part}\")") };
    }
    Ok(out)
}

/// Lays out a TorchScript file: the weights as parameters of modules, named as they are in the archive, and the program
/// over them.
///
/// # Errors
/// `InvalidOptions` for names that cannot be attributes, for a name that is a tensor's and a module's, and for a
/// program whose names are no identifiers; those of the archives.
pub fn plan<'a>(
    program: &Program,
    weights: &'a dyn Archive,
    constants: &'a dyn Archive,
    options: &WriteOptions,
) -> Result<WritePlan<'a>> {
    lay_out(program, weights, constants, options).map_err(|e| e.with_format(ID))
}

fn lay_out<'a>(
    program: &Program,
    weights: &'a dyn Archive,
    constants: &'a dyn Archive,
    options: &WriteOptions,
) -> Result<WritePlan<'a>> {
    for name in program.arguments.iter().chain([&program.class]) {
        if !is_identifier(name) {
            return Err(Error::invalid_options(format!("{name:?} is no name of a class or argument")));
        }
    }
    let tree = tree(weights)?;
    let classes = name_classes(&tree, &program.class);
    let mut zip = Layout::new(&options.file_name, root_of(&options.file_name));
    for (name, content) in &program.extra {
        if name.is_empty() || name.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::invalid_options(format!("the name {name:?} for a file beside the program")));
        }
        zip.fixed(&format!("extra/{name}"), content)?;
    }
    let (pickle, contents) = state(&tree, &classes, weights)?;
    let storages = |folder: &str, contents: Vec<Data<'a>>, zip: &mut Layout<'a>| -> Result<()> {
        contents
            .into_iter()
            .enumerate()
            .try_for_each(|(key, data)| zip.data(&format!("{folder}/{key}"), data))
    };
    zip.fixed("data.pkl", &pickle)?;
    storages("data", contents, &mut zip)?;
    zip.fixed("code/__torch__.py", code(program, &tree, &classes).as_bytes())?;
    let (pickle, contents) = constant_tuple(constants)?;
    zip.fixed("constants.pkl", &pickle)?;
    storages("constants", contents, &mut zip)?;
    zip.fixed("version", format!("{}\n", program.version).as_bytes())?;
    zip.fixed("byteorder", b"little")?;
    let mut plan = WritePlan::default();
    plan.files.push(zip.finish()?);
    Ok(plan)
}

fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !KEYWORDS.contains(&name)
}

fn check(part: &str) -> Result<()> {
    let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    // `forward` and `training` are the root's own, and what begins so is the language's.
    if plain && !part.starts_with("__") && !matches!(part, "forward" | "training") {
        return Ok(());
    }
    Err(Error::invalid_options(format!("TorchScript has no attribute of the name {part:?}"))
        .with_hint("rename the tensor"))
}

/// A module to be: tensors and modules by their attributes, in the order of the archive.
#[derive(Default)]
struct Node {
    name: String,
    parts: Vec<(String, Part)>,
    places: BTreeMap<String, usize>,
}

enum Part {
    Tensor(u32),
    Module(usize),
}

/// The modules that names make, the root first.
fn tree(weights: &dyn Archive) -> Result<Vec<Node>> {
    let mut nodes = vec![Node::default()];
    for (index, info) in weights.tensors().iter().enumerate() {
        let at = |what: String| Error::invalid_options(what).with_tensor(info.name());
        let parts: Vec<&str> = info.name().split('.').collect();
        if parts.len() > DEPTH {
            return Err(at(format!("{} levels of modules; the limit is {DEPTH}", parts.len())));
        }
        let index = u32::try_from(index).map_err(|_| Error::limit("more than 4,294,967,295 tensors"))?;
        let mut node = 0;
        for (level, part) in parts.iter().enumerate() {
            check(part).map_err(|e| e.with_tensor(info.name()))?;
            let is_last = level + 1 == parts.len();
            node = match nodes[node].places.get(*part).map(|&place| &nodes[node].parts[place].1) {
                Some(Part::Module(below)) if !is_last => *below,
                Some(_) => return Err(at("another tensor or module has this name".into())),
                None => {
                    let below = nodes.len();
                    let new = if is_last { Part::Tensor(index) } else { Part::Module(below) };
                    let place = nodes[node].parts.len();
                    nodes[node].places.insert((*part).to_owned(), place);
                    nodes[node].parts.push(((*part).to_owned(), new));
                    if is_last {
                        break;
                    }
                    nodes.push(Node { name: (*part).to_owned(), ..Node::default() });
                    below
                }
            };
        }
    }
    Ok(nodes)
}

/// A name for each class, told apart by numbers.
fn name_classes(nodes: &[Node], root: &str) -> Vec<String> {
    let name = |(i, node): (usize, &Node)| {
        if i == 0 {
            return root.to_owned();
        }
        let words = node.name.split('_').filter(|w| !w.is_empty());
        let camel: String = words.map(|w| w[..1].to_ascii_uppercase() + &w[1..]).collect();
        let start = if camel.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "Module" };
        format!("{start}{camel}_{i}")
    };
    nodes.iter().enumerate().map(name).collect()
}

/// The definitions of the classes.
fn code(program: &Program, nodes: &[Node], classes: &[String]) -> String {
    let mut out = String::new();
    for (i, (node, class)) in nodes.iter().zip(classes).enumerate() {
        let tensors = node.parts.iter().filter(|(_, part)| matches!(part, Part::Tensor(_)));
        let names: String = tensors.map(|(name, _)| format!("\"{name}\", ")).collect();
        let _ = write!(out, "class {class}(Module):\n  __parameters__ = [{names}]\n  __buffers__ = []\n");
        for (name, part) in &node.parts {
            let of = match part {
                Part::Tensor(_) => "Tensor".to_owned(),
                Part::Module(below) => format!("__torch__.{}", classes[*below]),
            };
            let _ = if is_identifier(name) {
                writeln!(out, "  {name} : {of}")
            } else {
                writeln!(out, "  __annotations__[\"{name}\"] = {of}")
            };
        }
        out.push_str("  training : bool\n");
        if i == 0 {
            let _ = write!(out, "  def forward(self: __torch__.{class}");
            for name in &program.arguments {
                let _ = write!(out, ",\n    {name}: Tensor");
            }
            let returns = match program.outputs {
                1 => "Tensor".to_owned(),
                n => format!("Tuple[{}]", vec!["Tensor"; n].join(", ")),
            };
            let _ = writeln!(out, ") -> {returns}:");
            for line in &program.body {
                let _ = writeln!(out, "    {line}");
            }
        }
    }
    out
}

/// Tensors of an archive as plain ones: a module says itself which of its tensors are parameters.
struct Plain<'t, 'a> {
    archive: &'a dyn Archive,
    emit: Emit<'t, 'a>,
}

impl TensorEncoder for Plain<'_, '_> {
    fn encode(&mut self, tensor: u32, out: &mut Encoder) -> Result<()> {
        let info = self.archive.tensors().get(tensor as usize).cloned();
        let info = info.ok_or_else(|| Error::invalid_options(format!("there is no tensor {tensor}")))?;
        let info = info.with_flags(false, false);
        self.emit.tensor(tensor, &info, out).map_err(|e| e.with_tensor(info.name()))
    }
}

/// A pickle of values over an archive, and the storages that it names, in order.
fn encoded<'a>(archive: &'a dyn Archive, values: &Values, root: ValueId) -> Result<(Vec<u8>, Vec<Data<'a>>)> {
    let mut table = StorageTable::new(archive)?;
    let own = |global: &Global| &*global.module == "__torch__";
    let options = EncodeOptions { protocol: 2, allow_global: &own, allow_persistent: false };
    let mut tensors = Plain { archive, emit: Emit::new(archive, &mut table) };
    let pickle = pickle::encode(values, root, &options, &mut tensors)?;
    Ok((pickle, table.into_contents()))
}

/// The module as a pickle: objects of the classes, each with its attributes as state.
fn state<'a>(
    nodes: &[Node],
    classes: &[String],
    weights: &'a dyn Archive,
) -> Result<(Vec<u8>, Vec<Data<'a>>)> {
    let mut values = Values::new();
    let empty = values.push(Value::Tuple(Vec::new()))?;
    let mut objects: Vec<Option<ValueId>> = vec![None; nodes.len()];
    // A module's number is above that of what it stands in, so those below are made first.
    for (i, node) in nodes.iter().enumerate().rev() {
        let mut dict = Dict::default();
        for (name, part) in &node.parts {
            let value = match part {
                Part::Tensor(index) => values.push(Value::Tensor(*index))?,
                Part::Module(below) => objects
                    .get(*below)
                    .copied()
                    .flatten()
                    .ok_or_else(|| Error::invalid_options("a module within itself"))?,
            };
            dict.entries.push((values.push(Value::Str(name.as_str().into()))?, value));
        }
        let training = values.push(Value::Str("training".into()))?;
        dict.entries.push((training, values.push(Value::Bool(false))?));
        let state = values.push(Value::Dict(Box::new(dict)))?;
        let class = values.push(Value::Global(Box::new(Global::new("__torch__", classes[i].as_str()))))?;
        let object = Object {
            construct: Construct::New,
            class,
            args: empty,
            kwargs: None,
            state: Some(state),
            items: Vec::new(),
            entries: Vec::new(),
        };
        objects[i] = Some(values.push(Value::Object(Box::new(object)))?);
    }
    let root = objects.first().copied().flatten();
    let root = root.ok_or_else(|| Error::invalid_options("a program without a root"))?;
    encoded(weights, &values, root)
}

/// The constants as a pickled tuple.
fn constant_tuple(constants: &dyn Archive) -> Result<(Vec<u8>, Vec<Data<'_>>)> {
    let mut values = Values::new();
    let count = u32::try_from(constants.tensors().len()).map_err(|_| Error::limit("too many constants"))?;
    let parts = (0..count).map(|i| values.push(Value::Tensor(i))).collect::<Result<_>>()?;
    let root = values.push(Value::Tuple(parts))?;
    encoded(constants, &values, root)
}

#[cfg(test)]
mod tests {
    use super::super::Script;
    use super::*;
    use crate::write::{ExecuteOptions, execute};
    use crate::{DType, MemoryArchive, ReadOptions, Source, Tensor};

    fn archive(names: &[&str]) -> MemoryArchive<'static> {
        let tensors = names.iter().map(|name| {
            Tensor::new(*name, DType::F32, [1].as_slice(), Data::Borrowed(&[0, 0, 128, 63])).unwrap()
        });
        MemoryArchive::new(tensors).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let weights =
            archive(&["layer.0.weight", "layer.0.bias", "layer.1.weight", "attention.self.in.weight", "top"]);
        let constants = archive(&["one", "two"]);
        let program = Program {
            class: "Model".into(),
            arguments: vec!["x".into()],
            outputs: 2,
            body: vec![format!("return (x, {})", attribute("layer.0.weight").unwrap())],
            version: "10".into(),
            extra: vec![("note.txt".into(), b"hi".to_vec())],
        };
        let options = WriteOptions { file_name: "model.pt".into(), ..WriteOptions::default() };
        let plan = plan(&program, &weights, &constants, &options).unwrap();
        execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
        let source = Source::open(folder.path().join("model.pt")).unwrap();
        let script = Script::open(source.clone(), &ReadOptions::default()).unwrap().unwrap();
        let paths: Vec<&str> = script.modules.iter().map(|m| &*m.path).collect();
        assert_eq!(
            paths,
            ["", "layer", "layer.0", "layer.1", "attention", "attention.self", "attention.self.in"]
        );
        let root = script.class("__torch__.Model").unwrap();
        assert_eq!(root.methods[0].signature(true), "(x: Tensor) -> Tuple[Tensor, Tensor]");
        assert!(root.methods[0].source.ends_with("return (x, getattr(self.layer, \"0\").weight)"));
        assert_eq!(script.extra_file("note.txt").unwrap(), b"hi");
        assert_eq!(script.constants().tensors().len(), 2);
        assert_eq!(script.version.as_deref(), Some("10"));
        let read = crate::Registry::builtin().open(source, &ReadOptions::default()).unwrap();
        let names: Vec<&str> = read.tensors().iter().map(|t| t.name()).collect();
        assert_eq!(
            names,
            ["layer.0.weight", "layer.0.bias", "layer.1.weight", "attention.self.in.weight", "top"]
        );
    }

    #[test]
    fn names_that_cannot_be_attributes_are_refused() {
        assert_eq!(attribute("a.self.0.in").unwrap(), "getattr(getattr(self.a.self, \"0\"), \"in\")");
        for name in ["", "a..b", "a b", "a\"b", "training", "x.forward", "__class__", "ä"] {
            assert!(attribute(name).is_err(), "{name:?}");
        }
        let options = WriteOptions::default();
        let program = Program { class: "M".into(), outputs: 1, ..Program::default() };
        for names in [&["a", "a.b"][..], &["a.b", "a"], &["a\nb"]] {
            assert!(plan(&program, &archive(names), &archive(&[]), &options).is_err(), "{names:?}");
        }
        let odd = Program { class: "M(".into(), ..program };
        assert!(plan(&odd, &archive(&["a"]), &archive(&[]), &options).is_err());
        let deep = vec!["a"; 70].join(".");
        assert!(tree(&archive(&[&deep])).is_err());
    }
}
