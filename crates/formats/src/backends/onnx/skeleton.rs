//! A model without its tensors: the graph, and where in the file everything is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;

use super::external::External;
use super::proto::{
    DataType, DimensionValue, GraphProto, ModelProto, NodeProto, TensorType, TypeProto, TypeValue,
    ValueInfoProto,
};
use crate::archive::Companion;
use crate::source::Source;
use crate::tensor::{Data, TensorInfo};

/// A model without its tensors: what [`Archive::companion`](crate::Archive::companion) of an opened model is.
///
/// The writer of this format takes it back, so that a model comes out as it was, but for the tensors that were to be
/// changed.
pub struct Skeleton {
    pub(super) model: ModelProto,
    pub(super) source: Source,
    /// The graph's field in the file: where it begins, its content, its end.
    pub(super) graph: (u64, u64, u64),
    /// Every initializer of the main graph, in the order of the file.
    pub(super) initializers: Vec<Initializer>,
    /// The fields of the metadata, with their keys.
    pub(super) metadata: Vec<(String, u64, u64)>,
    pub(super) infos: Vec<TensorInfo>,
    pub(super) data: Vec<Data<'static>>,
    /// Tensors in attributes, subgraphs and functions.
    pub(super) constants: u64,
    /// Whether any of those are external data.
    pub(super) external_constants: bool,
}

/// An initializer: where it is in the file.
pub(super) struct Initializer {
    pub(super) name: String,
    /// Its field: where it begins, its content, its end.
    pub(super) field: (u64, u64, u64),
    /// Which tensor of the archive it is; `None` for strings and the like.
    pub(super) tensor: Option<usize>,
    pub(super) sparse: bool,
    /// The bytes of `raw_data`, where it has them.
    pub(super) raw: Option<(u64, u64)>,
    /// The fields that hold the elements or say where they are.
    pub(super) data_fields: Vec<(u64, u64)>,
    pub(super) external: Option<External>,
}

impl Skeleton {
    /// The model. Of its initializers only those are in it that are no tensors of the archive: strings.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }
}

impl Companion for Skeleton {
    fn format(&self) -> &'static str {
        super::INFO.id
    }

    fn is_plain(&self) -> bool {
        let empty = |g: &GraphProto| {
            let values = g.input.is_empty() && g.output.is_empty() && g.value_info.is_empty();
            g.node.is_empty() && values && g.initializer.is_empty() && g.quantization_annotation.is_empty()
        };
        self.model.graph.as_ref().is_none_or(empty)
            && self.model.functions.is_empty()
            && self.model.training_info.is_empty()
    }

    fn summary(&self) -> String {
        let nodes = self.model.graph.as_ref().map_or(0, |g| g.node.len());
        if nodes == 1 { "a graph of 1 node".into() } else { format!("a graph of {nodes} nodes") }
    }

    fn same_as(&self, other: &dyn Companion) -> bool {
        // As bytes, in which a NaN is like itself.
        let other = (other as &dyn std::any::Any).downcast_ref::<Self>();
        other.is_some_and(|o| o.model.encode_to_vec() == self.model.encode_to_vec())
    }

    fn details(&self) -> Vec<(String, String)> {
        let model = &self.model;
        let mut out = Vec::new();
        let mut add = |name: &str, text: String| out.push((name.to_owned(), text));
        if let Some(version) = model.ir_version {
            add("ir version", version.to_string());
        }
        add("opsets", opsets(model));
        let producer = [model.producer_name(), model.producer_version()].join(" ");
        if !producer.trim().is_empty() {
            add("producer", producer.trim().to_owned());
        }
        if !model.domain().is_empty() {
            add("domain", model.domain().to_owned());
        }
        if let Some(version) = model.model_version.filter(|&v| v != 0) {
            add("version", version.to_string());
        }
        let Some(graph) = &model.graph else { return out };
        add("graph", graph.name().to_owned());
        let initial: std::collections::HashSet<&str> = self.initializers.iter().map(|i| &*i.name).collect();
        // Old models list the initializers among the inputs.
        let inputs = graph.input.iter().filter(|v| !initial.contains(v.name()));
        for input in inputs {
            add("input", value(input));
        }
        for output in &graph.output {
            add("output", value(output));
        }
        add("nodes", counted(graph.node.len() as u64, &graph.node));
        if self.constants > 0 {
            add("constants", format!("{} tensors in attributes, subgraphs and functions", self.constants));
        }
        for function in &model.functions {
            let name = format!("{}.{}", domain(function.domain()), function.name());
            add("function", format!("{name}: {}", counted(function.node.len() as u64, &function.node)));
        }
        if !model.training_info.is_empty() {
            add("training", format!("{} ways to train it", model.training_info.len()));
        }
        out
    }
}

/// ONNX's own operator set by the name it is known by.
fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

pub(super) fn opsets(model: &ModelProto) -> String {
    let sets: Vec<_> =
        model.opset_import.iter().map(|o| format!("{} {}", domain(o.domain()), o.version())).collect();
    if sets.is_empty() { "none".into() } else { sets.join(", ") }
}

/// How many nodes there are of each operator, the most frequent first.
fn counted(total: u64, nodes: &[NodeProto]) -> String {
    let mut counts = BTreeMap::<(&str, &str), u64>::new();
    for node in nodes {
        *counts.entry((node.domain(), node.op_type())).or_default() += 1;
    }
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    let mut out = total.to_string();
    for (i, ((domain, op), n)) in list.into_iter().enumerate() {
        out.push_str(if i == 0 { ": " } else { ", " });
        if !domain.is_empty() && domain != "ai.onnx" {
            let _ = write!(out, "{domain}.");
        }
        let _ = write!(out, "{op} {n}");
    }
    out
}

/// A value's name and type.
fn value(info: &ValueInfoProto) -> String {
    format!("{}: {}", info.name(), info.r#type.as_ref().map_or_else(|| "?".into(), type_text))
}

/// A type in words: `F32 [batch, 384]`, `sequence of I64 [n]`.
fn type_text(of: &TypeProto) -> String {
    let (mut out, mut next) = (String::new(), Some(of));
    // A type nests no deeper than messages are decoded.
    while let Some(of) = next.take() {
        match &of.value {
            Some(TypeValue::TensorType(tensor)) => push_tensor(&mut out, tensor),
            Some(TypeValue::SparseTensorType(tensor)) => {
                out.push_str("sparse ");
                push_tensor(&mut out, tensor);
            }
            Some(TypeValue::SequenceType(inner)) => {
                out.push_str("sequence of ");
                next = inner.elem_type.as_deref();
            }
            Some(TypeValue::OptionalType(inner)) => {
                out.push_str("optional ");
                next = inner.elem_type.as_deref();
            }
            Some(TypeValue::MapType(inner)) => {
                let _ = write!(out, "map from {} to ", data_type(inner.key_type()));
                next = inner.value_type.as_deref();
            }
            Some(TypeValue::OpaqueType(inner)) => {
                let _ = write!(out, "opaque {}.{}", inner.domain(), inner.name());
            }
            None => out.push('?'),
        }
    }
    out
}

fn data_type(number: i32) -> String {
    match DataType::try_from(number) {
        Ok(known) => known.dtype().map_or_else(|| known.name(), |d| d.name().to_owned()),
        Err(_) => format!("type {number}"),
    }
}

fn push_tensor(out: &mut String, tensor: &TensorType) {
    out.push_str(&data_type(tensor.elem_type()));
    let Some(shape) = &tensor.shape else { return };
    out.push_str(" [");
    for (i, dim) in shape.dim.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        let _ = match &dim.value {
            Some(DimensionValue::DimValue(size)) => write!(out, "{size}"),
            Some(DimensionValue::DimParam(name)) => write!(out, "{name}"),
            None => write!(out, "?"),
        };
    }
    out.push(']');
}
