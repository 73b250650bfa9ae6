//! From the builder's graph to ONNX's messages.

use std::collections::HashMap;

use weighbridge_formats::backends::onnx::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorType, TypeProto,
    TypeValue, ValueInfoProto,
};
use weighbridge_formats::{DType, Error, Result};

use super::value::{Dim, Value};
use super::{Attribute, Constant, GraphBuilder, Node};

/// The number that ONNX gives a dtype.
pub(super) fn onnx_dtype(dtype: DType) -> Result<i64> {
    let found = match dtype {
        DType::F32 => DataType::Float,
        DType::F16 => DataType::Float16,
        DType::Bf16 => DataType::Bfloat16,
        DType::F64 => DataType::Double,
        DType::Bool => DataType::Bool,
        DType::I8 => DataType::Int8,
        DType::U8 => DataType::Uint8,
        DType::I16 => DataType::Int16,
        DType::U16 => DataType::Uint16,
        DType::I32 => DataType::Int32,
        DType::U32 => DataType::Uint32,
        DType::I64 => DataType::Int64,
        DType::U64 => DataType::Uint64,
        other => return Err(Error::unsupported(format!("a graph has no values of {other}"))),
    };
    Ok(found as i64)
}

/// The IR version that came with an opset: the lowest that a model of it may state.
fn ir_version(opset: u32) -> i64 {
    match opset {
        ..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

impl GraphBuilder<'_> {
    /// The model: the graph under a name, without the bytes of its weights.
    ///
    /// # Errors
    /// `Mismatch` for a graph without outputs, and an output that is given twice under two names by an input.
    pub fn finish(mut self, name: &str) -> Result<ModelProto> {
        if self.outputs.is_empty() {
            return Err(self.error("a graph without outputs"));
        }
        let renamed = self.name_outputs()?;
        let spelled = |name: &String| renamed.get(name).unwrap_or(name).clone();
        let mut value_info = Vec::new();
        for value in &self.infos {
            if !renamed.contains_key(value.name()) {
                value_info.push(info(value.name(), value)?);
            }
        }
        let mut opset_import =
            vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(i64::from(self.opset)) }];
        for (domain, version) in &self.domains {
            let entry = OperatorSetIdProto { domain: Some((*domain).to_owned()), version: Some(*version) };
            opset_import.push(entry);
        }
        // Constants are nodes, so that a model's initializers are its weights and nothing else.
        let mut nodes = self.constants.iter().map(constant).collect::<Result<Vec<_>>>()?;
        nodes.extend(self.nodes.iter().map(|n| node(n, &spelled)));
        let inputs: Result<Vec<_>> = self.inputs.iter().map(|v| info(v.name(), v)).collect();
        let outputs: Result<Vec<_>> = self.outputs.iter().map(|(name, v)| info(name, v)).collect();
        let graph = GraphProto {
            node: nodes,
            name: Some(name.to_owned()),
            input: inputs?,
            output: outputs?,
            value_info,
            ..GraphProto::default()
        };
        let entry = |(key, value): &(String, String)| StringStringEntryProto {
            key: Some(key.clone()),
            value: Some(value.clone()),
        };
        Ok(ModelProto {
            ir_version: Some(ir_version(self.opset)),
            producer_name: Some("weighbridge".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(graph),
            opset_import,
            metadata_props: self.metadata.iter().map(entry).collect(),
            ..ModelProto::default()
        })
    }

    /// The names that values get as outputs. What is an output already, an input, a weight or a constant gets an
    /// Identity node, since it has a name that it needs.
    fn name_outputs(&mut self) -> Result<HashMap<String, String>> {
        let made: std::collections::HashSet<String> =
            self.nodes.iter().flat_map(|n| n.outputs.iter().cloned()).collect();
        let mut renamed = HashMap::new();
        for (name, value) in self.outputs.clone() {
            let own = value.name().to_owned();
            if made.contains(&own) && !renamed.contains_key(&own) {
                renamed.insert(own, name);
                continue;
            }
            let copy = self.node("Identity", &[&value], vec![], value.dtype(), value.shape().to_vec())?;
            renamed.insert(copy.name().to_owned(), name);
        }
        Ok(renamed)
    }
}

fn node(node: &Node, spelled: &dyn Fn(&String) -> String) -> NodeProto {
    NodeProto {
        input: node.inputs.iter().map(spelled).collect(),
        output: node.outputs.iter().map(spelled).collect(),
        name: Some(node.name.clone()),
        op_type: Some(node.op.to_owned()),
        domain: (!node.domain.is_empty()).then(|| node.domain.to_owned()),
        attribute: node.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        ..NodeProto::default()
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut out = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match value {
        Attribute::Int(i) => {
            out.i = Some(*i);
            AttributeType::Int
        }
        Attribute::Float(f) => {
            out.f = Some(*f);
            AttributeType::Float
        }
        Attribute::Ints(ints) => {
            out.ints.clone_from(ints);
            AttributeType::Ints
        }
        Attribute::Floats(floats) => {
            out.floats.clone_from(floats);
            AttributeType::Floats
        }
        Attribute::Text(text) => {
            out.s = Some(text.clone().into_bytes());
            AttributeType::String
        }
    };
    out.r#type = Some(kind as i32);
    out
}

fn constant(constant: &Constant) -> Result<NodeProto> {
    let tensor = TensorProto {
        dims: constant.shape.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect(),
        data_type: Some(onnx_dtype(constant.dtype)? as i32),
        name: Some(constant.name.to_string()),
        raw_data: Some(constant.bytes.clone()),
        ..TensorProto::default()
    };
    let value = AttributeProto {
        name: Some("value".into()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(Box::new(tensor)),
        ..AttributeProto::default()
    };
    Ok(NodeProto {
        output: vec![constant.name.to_string()],
        name: Some(constant.name.to_string()),
        op_type: Some("Constant".into()),
        attribute: vec![value],
        ..NodeProto::default()
    })
}

fn info(name: &str, value: &Value) -> Result<ValueInfoProto> {
    let dim = |dim: &Dim| Dimension {
        value: Some(match dim {
            Dim::Fixed(n) => DimensionValue::DimValue(i64::try_from(*n).unwrap_or(i64::MAX)),
            Dim::Symbol(s) => DimensionValue::DimParam(s.to_string()),
        }),
        denotation: None,
    };
    let shape = TensorShapeProto { dim: value.shape().iter().map(dim).collect() };
    let tensor = TensorType { elem_type: Some(onnx_dtype(value.dtype())? as i32), shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: None };
    Ok(ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() })
}
