//! From a graph to the text of a program: libtorch runs the graph under a trace and prints what it saw.
//!
//! While it does so, each weight is one element that is repeated to the weight's shape, and that element's bits are the
//! weight's number. So a trace costs no memory for weights; and where the printed program says `CONSTANTS.c7`, the bits
//! of that constant say which weight stands there, and its name is put in that place.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};
use tch::{CModule, Device, TchError, Tensor, no_grad};
use weighbridge_formats::backends::onnx::proto::{
    DataType, DimensionValue, GraphProto, NodeProto, TensorProto, TypeValue, ValueInfoProto,
};
use weighbridge_formats::backends::torch::script::{Program, Script, attribute};
use weighbridge_formats::{
    Archive, DType, Data, Error, MemoryArchive, ReadOptions, Result, Source, Tensor as Stored, TensorInfo,
};
use weighbridge_model::state_dict::tch::kind_of;

use super::run::Runner;
use super::values::Held;
use crate::Export;

/// A program, and the tensors that it holds beside the weights.
pub(super) struct Traced {
    pub(super) program: Program,
    pub(super) constants: MemoryArchive<'static>,
    /// Of each input its name, argument, dtype and shape.
    pub(super) inputs: Vec<Value>,
    pub(super) outputs: Vec<String>,
}

/// An error of libtorch's.
pub(super) fn failed(doing: &str, error: &TchError) -> Error {
    Error::unsupported(format!("libtorch: {doing}: {}", plain(error)))
}

/// What libtorch says, without the list of addresses behind it.
pub(super) fn plain(error: &TchError) -> String {
    let text = error.to_string();
    text.split("\nException raised from").next().unwrap_or_default().to_owned()
}

/// Traces the graph of an export.
pub(super) fn trace(export: &Export<'_>, class: &str) -> Result<Traced> {
    let graph = export.model.graph.as_ref().ok_or_else(|| Error::mismatch("a model without a graph"))?;
    let folder = tempfile::tempdir()
        .map_err(|e| Error::io("making a folder for the trace", e).with_path(std::env::temp_dir()))?;
    let path = folder.path().join("trace.pt");
    // Of a batch without rows nothing is computed, and placeholders are never written out as the weights that they stand
    // for. A maximum over the batch needs a row, which rotary embeddings take that grow with the text.
    save(graph, &*export.weights, &path, 0).or_else(|_| save(graph, &*export.weights, &path, 2))?;
    // Placeholders stand for as many bytes as the weights have; their bytes are never read.
    let mut options = ReadOptions::default();
    (options.limits.expanded_bytes, options.limits.declared_bytes) = (u64::MAX, u64::MAX);
    let script = Script::open(Source::open(&path)?, &options)?;
    let script = script.ok_or_else(|| Error::mismatch("libtorch wrote no program"))?;
    rewrite(&script, graph, &*export.weights, class)
}

/// Runs the graph under a trace on a batch of so many rows, where it may have any, and lets libtorch write what it saw.
fn save(graph: &GraphProto, weights: &dyn Archive, path: &Path, rows: i64) -> Result<()> {
    let mut runner = Runner::default();
    for (index, info) in weights.tensors().iter().enumerate() {
        runner.set(info.name(), Held::new(placeholder(index, info)?));
    }
    for constant in &graph.initializer {
        runner.set(constant.name.as_deref().unwrap_or_default(), held(constant)?);
    }
    // What is made while a trace goes on stands in it as it was made, and not with its numbers.
    for node in graph.node.iter().filter(|node| is_constant(node)) {
        let value = node.attribute.iter().find(|a| a.name.as_deref() == Some("value"));
        let value = value.and_then(|a| a.t.as_deref()).zip(node.output.first());
        let (tensor, name) = value.ok_or_else(|| Error::unsupported("a constant that is no tensor"))?;
        runner.set(name, held(tensor)?);
    }
    let mut sizes = BTreeMap::new();
    let inputs =
        graph.input.iter().map(|info| example(info, rows, &mut sizes)).collect::<Result<Vec<_>>>()?;
    let mut outcome = Ok(());
    let module = no_grad(|| {
        CModule::create_by_tracing("Traced", "forward", &inputs, &mut |given| {
            let made = follow(graph, &mut runner, given);
            made.unwrap_or_else(|error| {
                outcome = Err(error);
                // A trace must end in a tensor that it knows.
                given.iter().take(1).map(Tensor::shallow_clone).collect()
            })
        })
    });
    outcome?;
    let module = module.map_err(|e| failed("tracing", &e))?;
    // Each constant is compared with each of its shape, and the first element differs. That takes no time, but handing
    // it to the threads of a pool does: seconds for a thousand pairs.
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let saved = module.save(path);
    tch::set_num_threads(threads);
    saved.map_err(|e| failed("writing the trace", &e))
}

/// Runs the graph on the inputs of a trace. Several outputs are joined to one, which is all that a trace may have;
/// [`outputs`] takes them apart again.
fn follow(graph: &GraphProto, runner: &mut Runner, given: &[Tensor]) -> Result<Vec<Tensor>> {
    for (info, tensor) in graph.input.iter().zip(given) {
        runner.set(name(info)?, Held::new(tensor.shallow_clone()));
    }
    graph.node.iter().filter(|node| !is_constant(node)).try_for_each(|node| runner.run(node))?;
    let outputs: Vec<Rc<Tensor>> =
        graph.output.iter().map(|info| runner.tensor(name(info)?)).collect::<Result<_>>()?;
    let joined = match &outputs[..] {
        [] => return Err(Error::mismatch("a graph without outputs")),
        [only] => Tensor::shallow_clone(only),
        several => {
            let flat: std::result::Result<Vec<Tensor>, TchError> =
                several.iter().map(|t| t.f_flatten(0, -1)).collect();
            flat.and_then(|flat| Tensor::f_cat(&flat, 0)).map_err(|e| failed("joining the outputs", &e))?
        }
    };
    Ok(vec![joined])
}

fn is_constant(node: &NodeProto) -> bool {
    node.op_type.as_deref() == Some("Constant")
}

fn name(info: &ValueInfoProto) -> Result<&str> {
    info.name.as_deref().ok_or_else(|| Error::mismatch("an input or output without a name"))
}

/// The bits of the first weight's element: a small number that is no denormal, in each dtype.
fn tag(dtype: DType, index: usize) -> Option<Vec<u8>> {
    let index = u32::try_from(index).ok()?;
    let narrow = u16::try_from(index).ok().filter(|&i| i < 0x4000);
    match dtype {
        DType::F32 if index < 0x0800_0000 => Some((0x3000_0000 + index).to_le_bytes().to_vec()),
        DType::F16 => Some((0x1000 + narrow?).to_le_bytes().to_vec()),
        DType::Bf16 => Some((0x3000 + narrow?).to_le_bytes().to_vec()),
        DType::F64 => Some((0x3000_0000_0000_0000 + u64::from(index)).to_le_bytes().to_vec()),
        _ => None,
    }
}

/// What stands for a weight.
fn placeholder(index: usize, info: &TensorInfo) -> Result<Tensor> {
    let tagged = tag(info.dtype(), index).zip(kind_of(info.dtype()));
    let (bytes, kind) = tagged.ok_or_else(|| {
        let what = format!("a program of {index} weights before one of {}", info.dtype());
        Error::unsupported(what).with_tensor(info.name())
    })?;
    let shape: Vec<i64> = info.shape().iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect();
    Tensor::f_from_data_size(&bytes, &[], kind)
        .and_then(|element| element.f_expand(&shape[..], false))
        .map_err(|e| failed("making a place for a weight", &e).with_tensor(info.name()))
}

/// A constant of the graph.
fn held(constant: &TensorProto) -> Result<Held> {
    let label = constant.name.as_deref().unwrap_or_default();
    let unknown =
        || Error::unsupported(format!("the constant {label:?} of a dtype or form that is not known"));
    let dtype = constant.data_type.and_then(|d| DataType::try_from(d).ok()).and_then(DataType::dtype);
    let (Some(dtype), Some(bytes)) = (dtype, &constant.raw_data) else { return Err(unknown()) };
    let kind = kind_of(dtype).ok_or_else(unknown)?;
    let shape = constant.dims.iter().map(|&n| u64::try_from(n).unwrap_or(u64::MAX));
    let info = TensorInfo::new(label, dtype, shape.collect::<weighbridge_formats::Shape>())?;
    if info.bytes() != bytes.len() as u64 {
        return Err(unknown());
    }
    let tensor = Tensor::f_from_data_size(bytes, &constant.dims, kind);
    let tensor = Rc::new(tensor.map_err(|e| failed("making a constant", &e))?);
    if dtype == DType::I64 {
        let ints = bytes.chunks_exact(8).filter_map(|b| b.try_into().ok().map(i64::from_le_bytes));
        return Ok(Held::Ints(ints.collect(), tensor));
    }
    if constant.dims.is_empty() && matches!(dtype, DType::F32 | DType::F16 | DType::Bf16 | DType::F64) {
        return Ok(Held::Float(tensor.double_value(&[]), tensor));
    }
    Ok(Held::Tensor(tensor))
}

/// An input to trace with. What a dimension is called decides its size, which stands nowhere in the program; the first
/// is the batch.
fn example(info: &ValueInfoProto, rows: i64, sizes: &mut BTreeMap<String, i64>) -> Result<Tensor> {
    let label = name(info)?;
    let unknown = || Error::unsupported(format!("the input {label:?} is no tensor of a known type"));
    let Some(TypeValue::TensorType(of)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(unknown());
    };
    let dtype = of.elem_type.and_then(|d| DataType::try_from(d).ok()).and_then(DataType::dtype);
    let kind = dtype.and_then(kind_of).ok_or_else(unknown)?;
    let dims = &of.shape.as_ref().ok_or_else(unknown)?.dim;
    let mut shape = Vec::with_capacity(dims.len());
    for dim in dims {
        let first = shape.is_empty();
        shape.push(match &dim.value {
            Some(DimensionValue::DimParam(_)) if first => rows,
            Some(DimensionValue::DimValue(n)) => *n,
            Some(DimensionValue::DimParam(text)) => text
                .split(" + ")
                .map(|part| {
                    let next = sizes.len() as i64 + 2;
                    part.parse().unwrap_or_else(|_| *sizes.entry(part.to_owned()).or_insert(next))
                })
                .sum(),
            None => return Err(unknown()),
        });
    }
    Tensor::f_ones(&shape[..], (kind, Device::Cpu)).map_err(|e| failed("making an input", &e))
}

/// An input for the file that says what a program takes.
fn described(info: &ValueInfoProto) -> Result<Value> {
    let label = name(info)?;
    let Some(TypeValue::TensorType(of)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(Error::unsupported(format!("the input {label:?} is no tensor")));
    };
    let dtype = of.elem_type.and_then(|d| DataType::try_from(d).ok()).and_then(DataType::dtype);
    let dims = of.shape.iter().flat_map(|shape| &shape.dim);
    let shape: Vec<Value> = dims
        .map(|dim| match &dim.value {
            Some(DimensionValue::DimValue(n)) => (*n).into(),
            Some(DimensionValue::DimParam(text)) => text.as_str().into(),
            None => Value::Null,
        })
        .collect();
    Ok(json!({
        "name": label,
        "argument": identifier(label),
        "dtype": dtype.map(DType::torch_name),
        "shape": shape,
    }))
}

/// The program that a trace's file holds, with weights in the place of the constants that stand for them.
fn rewrite(script: &Script, graph: &GraphProto, weights: &dyn Archive, class: &str) -> Result<Traced> {
    let odd = |what: &str| Error::mismatch(format!("the trace that libtorch wrote: {what}"));
    let root = script.modules.first().and_then(|root| script.class(&root.class));
    let forward = root.and_then(|root| root.methods.iter().find(|m| m.name == "forward"));
    let forward = forward.ok_or_else(|| odd("no method forward"))?;
    let mut arguments = Vec::new();
    let mut body = Vec::new();
    for (given, info) in forward.arguments.iter().skip(1).zip(&graph.input) {
        let argument = identifier(name(info)?);
        if argument != given.name {
            body.push(format!("{} = {argument}", given.name));
        }
        arguments.push(argument);
    }
    if arguments.len() != graph.input.len() || forward.arguments.len() != arguments.len() + 1 {
        return Err(odd("other arguments than inputs"));
    }
    let text = forward.source.split_once(":\n").map(|(_, text)| text).ok_or_else(|| odd("no body"))?;
    // The signature has colons before its last one, all of them before a type.
    let text = match text.rfind("-> Tensor:\n") {
        Some(at) => text.get(at + "-> Tensor:\n".len()..).unwrap_or_default(),
        None => text,
    };
    let (names, constants) = constants(script, weights)?;
    for line in text.lines() {
        let line = line.strip_prefix("    ").ok_or_else(|| odd("lines that are not indented"))?;
        body.push(replaced(line, &names).ok_or_else(|| odd("a constant that is not there"))?);
    }
    let wanted: Vec<String> =
        graph.output.iter().map(|o| name(o).map(str::to_owned)).collect::<Result<_>>()?;
    if wanted.len() > 1 {
        let parts = outputs(&mut body, wanted.len());
        let parts = parts.ok_or_else(|| odd("outputs that cannot be told apart"))?;
        body.push(format!("return ({})", parts.join(", ")));
    }
    let program = Program {
        class: class.to_owned(),
        arguments,
        outputs: wanted.len(),
        body,
        version: script.version.clone().unwrap_or_else(|| "3".into()),
        extra: Vec::new(),
    };
    let inputs = graph.input.iter().map(described).collect::<Result<_>>()?;
    Ok(Traced { program, constants, inputs, outputs: wanted })
}

/// A name as an identifier.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// What the program says for each constant of the trace, and the constants that are no weights.
fn constants(script: &Script, weights: &dyn Archive) -> Result<(Vec<String>, MemoryArchive<'static>)> {
    let found = script.constants();
    let (mut names, mut kept) = (Vec::new(), Vec::new());
    for (i, info) in found.tensors().iter().enumerate() {
        if let Some(weight) = weight_of(found, i, weights)? {
            names.push(attribute(weight)?);
            continue;
        }
        let bytes = found.data(i)?.read_all()?;
        let name = format!("c{}", kept.len());
        names.push(format!("CONSTANTS.{name}"));
        kept.push(Stored::new(name, info.dtype(), info.shape(), Data::Owned(bytes.into()))?);
    }
    Ok((names, MemoryArchive::new(kept)?))
}

/// The name of the weight that a constant stands for.
fn weight_of<'w>(found: &dyn Archive, index: usize, weights: &'w dyn Archive) -> Result<Option<&'w str>> {
    let Some(info) = found.tensors().get(index) else { return Ok(None) };
    let stored = info.view().and_then(|v| found.storages().get(v.storage as usize));
    let (Some(view), Some(stored)) = (info.view(), stored) else { return Ok(None) };
    if info.dtype().size() != Some(stored.bytes) || info.elements() == 0 {
        return Ok(None);
    }
    let bits = found.storage_data(view.storage as usize)?.read_all()?;
    let mut weights = weights.tensors().iter().enumerate();
    let same = weights.find(|(i, w)| {
        w.dtype() == info.dtype() && w.shape() == info.shape() && tag(w.dtype(), *i).as_ref() == Some(&bits)
    });
    Ok(same.map(|(_, weight)| weight.name()))
}

/// A line with what stands for its constants.
fn replaced(line: &str, names: &[String]) -> Option<String> {
    const MARK: &str = "CONSTANTS.c";
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(MARK) {
        let (before, behind) = rest.split_at(at);
        let behind = &behind[MARK.len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = behind.split_at(digits);
        out.push_str(before);
        out.push_str(names.get(number.parse::<usize>().ok()?)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// The outputs that the last line joins: `return torch.cat([torch.flatten(a), torch.flatten(b)])`, where each part may
/// have a name that an earlier line gives it. Takes those lines away.
fn outputs(body: &mut Vec<String>, count: usize) -> Option<Vec<String>> {
    let last = body.pop()?;
    let mut take = |text: &str| -> String {
        let is_name = text.starts_with('_') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let given = |line: &String| line.strip_prefix(text).is_some_and(|rest| rest.starts_with(" = "));
        let joins =
            |line: &String| [" = [", " = torch.cat(", " = torch.flatten("].iter().any(|j| line.contains(j));
        match body.iter().rposition(|line| is_name && given(line) && joins(line)) {
            Some(at) => body.remove(at).get(text.len() + 3..).unwrap_or_default().to_owned(),
            None => text.to_owned(),
        }
    };
    let joined = take(last.strip_prefix("return ")?.trim());
    let list = take(first_argument(joined.strip_prefix("torch.cat(")?)?.trim());
    let mut rest = list.strip_prefix('[')?.strip_suffix(']')?;
    let mut parts = Vec::new();
    while !rest.trim().is_empty() {
        let part = first_argument(rest)?;
        rest = rest.get(part.len()..)?.trim_start_matches(',').trim_start();
        let flat = take(part.trim());
        parts.push(first_argument(flat.strip_prefix("torch.flatten(")?)?.trim().to_owned());
    }
    (parts.len() == count).then_some(parts)
}

/// The text up to a comma or closing bracket that belongs to no bracket within.
fn first_argument(text: &str) -> Option<&str> {
    let mut depth = 0u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' if depth == 0 => return text.get(..at),
            b')' | b']' => depth -= 1,
            b',' if depth == 0 => return text.get(..at),
            _ => {}
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_outputs_are_taken_apart_in_every_form() {
        let forms: [&[&str]; 4] = [
            &["return torch.cat([torch.flatten(_1), torch.flatten(f(a, [2, 3]))])"],
            &["_9 = [torch.flatten(_1), torch.flatten(f(a, [2, 3]))]", "return torch.cat(_9)"],
            &["_7 = torch.flatten(_1)", "_8 = torch.cat([_7, torch.flatten(f(a, [2, 3]))], 0)", "return _8"],
            &[
                "_7 = torch.flatten(f(a, [2, 3]), 0, -1)",
                "_9 = [torch.flatten(_1), _7]",
                "return torch.cat(_9, 0)",
            ],
        ];
        for form in forms {
            let mut lines: Vec<String> = form.iter().map(|l| (*l).to_owned()).collect();
            lines.insert(0, "_1 = torch.flatten(g(x), 2)".into());
            assert_eq!(outputs(&mut lines.clone(), 3), None);
            assert_eq!(outputs(&mut lines, 2).unwrap(), ["_1", "f(a, [2, 3])"], "{form:?}");
            assert_eq!(lines, ["_1 = torch.flatten(g(x), 2)"]);
        }
    }

    #[test]
    fn weights_stand_where_their_constants_stood() {
        let names = ["self.a".to_owned(), "CONSTANTS.c0".to_owned()];
        let line = "_0 = f(CONSTANTS.c1, CONSTANTS.c0)";
        assert_eq!(replaced(line, &names).unwrap(), "_0 = f(CONSTANTS.c0, self.a)");
        assert_eq!(replaced("CONSTANTS.c12", &names), None);
    }
}
