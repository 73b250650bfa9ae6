//! From ONNX's messages to the graph that is run: names become numbers, bodies know what they capture, and every value
//! knows its last reader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weighbridge_formats::backends::onnx::proto::{
    AttributeProto, AttributeType, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};
use weighbridge_formats::{Error, Result};

use super::node::{Attribute, Body, Node};
use super::tensor::{Cx, Tensor};
use super::{CALL, ops};
use crate::proto::to_array;

/// How deep bodies may nest, functions included.
const DEPTH: usize = 24;
/// The most nodes, with those of functions at each place where one is called.
const NODES: usize = 2_000_000;

/// What is compiled, and the counters on the way.
pub(crate) struct Compiler<'m> {
    cx: Cx,
    versions: HashMap<String, i64>,
    functions: HashMap<(String, String), &'m FunctionProto>,
    scopes: Vec<Scope>,
    nodes: usize,
    /// Operators that are not known here.
    unknown: BTreeSet<String>,
}

#[derive(Default)]
struct Scope {
    names: HashMap<String, usize>,
    values: usize,
    captures: Vec<(usize, usize)>,
    /// A function sees nothing of what is around its call.
    closed: bool,
}

impl Scope {
    fn define(&mut self, name: &str) -> usize {
        let number = self.values;
        self.values += 1;
        self.names.insert(name.to_owned(), number);
        number
    }
}

/// The main graph: its body, and the numbers of inputs and initializers by their names.
pub(crate) struct Compiled {
    pub(crate) body: Body,
    pub(crate) names: HashMap<String, usize>,
}

fn versions(list: &[OperatorSetIdProto]) -> HashMap<String, i64> {
    let domain = |d: &OperatorSetIdProto| match d.domain.as_deref() {
        None | Some("ai.onnx") => String::new(),
        Some(other) => other.to_owned(),
    };
    list.iter().map(|d| (domain(d), d.version.unwrap_or(1))).collect()
}

impl<'m> Compiler<'m> {
    pub(crate) fn new(cx: Cx, model: &'m ModelProto) -> Self {
        let key =
            |f: &FunctionProto| (f.domain.clone().unwrap_or_default(), f.name.clone().unwrap_or_default());
        Self {
            cx,
            versions: versions(&model.opset_import),
            functions: model.functions.iter().map(|f| (key(f), f)).collect(),
            scopes: Vec::new(),
            nodes: 0,
            unknown: BTreeSet::new(),
        }
    }

    /// The main graph. `weights` are names that have a value though the graph's messages have none.
    pub(crate) fn main<'w>(
        mut self,
        graph: &'m GraphProto,
        weights: impl Iterator<Item = &'w str>,
    ) -> Result<Compiled> {
        let mut scope = Scope::default();
        let inputs: Vec<usize> =
            graph.input.iter().map(|i| scope.define(i.name.as_deref().unwrap_or_default())).collect();
        for name in weights {
            if !scope.names.contains_key(name) {
                scope.define(name);
            }
        }
        self.scopes.push(scope);
        let nodes = self.nodes_of(&graph.node, &BTreeMap::new())?;
        let outputs = self.outputs_of(graph.output.iter().map(|o| o.name.as_deref().unwrap_or_default()))?;
        if !self.unknown.is_empty() {
            let list: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
            let error = Error::unsupported(format!("operators that are not here: {}", list.join(", ")));
            return Err(error.with_hint("run it with ONNX Runtime"));
        }
        let scope = self.scopes.pop().unwrap_or_default();
        let mut body = Body { values: scope.values, inputs, nodes, outputs, ..Body::default() };
        last_uses(&mut body);
        Ok(Compiled { body, names: scope.names })
    }

    fn outputs_of<'n>(&mut self, names: impl Iterator<Item = &'n str>) -> Result<Vec<usize>> {
        names
            .map(|name| {
                self.resolve(name)
                    .ok_or_else(|| Error::malformed(format!("output {name:?} is made by nothing")))
            })
            .collect()
    }

    /// The number of a name in the innermost scope; a value of a scope around it is captured through all between.
    fn resolve(&mut self, name: &str) -> Option<usize> {
        let mut found = None;
        for at in (0..self.scopes.len()).rev() {
            if let Some(&number) = self.scopes[at].names.get(name) {
                found = Some((at, number));
                break;
            }
            if self.scopes[at].closed {
                return None;
            }
        }
        let (at, mut number) = found?;
        for scope in &mut self.scopes[at + 1..] {
            let inner = scope.define(name);
            scope.captures.push((number, inner));
            number = inner;
        }
        Some(number)
    }

    fn nodes_of(
        &mut self,
        nodes: &'m [NodeProto],
        given: &BTreeMap<String, &'m AttributeProto>,
    ) -> Result<Vec<Node>> {
        let mut out = Vec::with_capacity(nodes.len().min(1 << 20));
        for (place, node) in nodes.iter().enumerate() {
            self.nodes += 1;
            if self.nodes > NODES {
                return Err(Error::limit(format!("the graph has more than {NODES} nodes")));
            }
            let name = match node.name.as_deref() {
                Some(name) if !name.is_empty() => name.to_owned(),
                _ => format!("#{place}"),
            };
            out.push(self.node(node, &name, given).map_err(|e| {
                if e.message().starts_with("node ") {
                    return e;
                }
                let op = node.op_type.as_deref().unwrap_or_default();
                Error::new(e.kind(), format!("node {name:?} ({op}): {}", e.message()))
            })?);
        }
        Ok(out)
    }

    fn node(
        &mut self,
        node: &'m NodeProto,
        name: &str,
        given: &BTreeMap<String, &'m AttributeProto>,
    ) -> Result<Node> {
        let mut op = node.op_type.clone().unwrap_or_default();
        let domain = match node.domain.as_deref() {
            None | Some("ai.onnx") => "",
            Some(other) => other,
        };
        let mut inputs = Vec::with_capacity(node.input.len());
        for input in &node.input {
            inputs.push(match input.as_str() {
                "" => None,
                input => Some(self.resolve(input).ok_or_else(|| {
                    Error::malformed(format!("input {input:?} is made by nothing before it"))
                })?),
            });
        }
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let function = self.functions.get(&(domain.to_owned(), op.clone())).copied();
        let mut attributes = BTreeMap::new();
        if let (None, Some(function)) = (ops::kernel(domain, &op), function) {
            let body = self.function(function, node, given)?;
            attributes.insert("body".to_owned(), Attribute::Graph(Arc::new(body)));
            op = CALL.to_owned();
        } else {
            if ops::kernel(domain, &op).is_none() {
                self.unknown.insert(if domain.is_empty() { op.clone() } else { format!("{domain}.{op}") });
            }
            for a in &node.attribute {
                let named = a.name.clone().unwrap_or_default();
                // In a function, an attribute may stand for one of the call's.
                let a = match a.ref_attr_name.as_deref().filter(|r| !r.is_empty()) {
                    Some(of) => match given.get(of) {
                        Some(a) => a,
                        None => continue,
                    },
                    None => a,
                };
                attributes.insert(named, self.attribute(a, given)?);
            }
        }
        let scope = self.scopes.last_mut().ok_or_else(|| Error::malformed("a node outside of graphs"))?;
        let outputs =
            node.output.iter().map(|o| if o.is_empty() { None } else { Some(scope.define(o)) }).collect();
        let version = self.versions.get(domain).copied().unwrap_or(1);
        Ok(Node {
            name: name.to_owned(),
            op,
            domain: domain.to_owned(),
            inputs,
            outputs,
            attributes,
            version,
            last_uses: Vec::new(),
        })
    }

    /// The body of a function, with the attributes of one call in their places.
    fn function(
        &mut self,
        function: &'m FunctionProto,
        call: &'m NodeProto,
        given: &BTreeMap<String, &'m AttributeProto>,
    ) -> Result<Body> {
        self.check_depth()?;
        let mut arguments: BTreeMap<String, &'m AttributeProto> =
            function.attribute_proto.iter().map(|a| (a.name.clone().unwrap_or_default(), a)).collect();
        for a in &call.attribute {
            let value = match a.ref_attr_name.as_deref().filter(|r| !r.is_empty()) {
                Some(of) => given.get(of).copied(),
                None => Some(a),
            };
            if let Some(value) = value {
                arguments.insert(a.name.clone().unwrap_or_default(), value);
            }
        }
        let outer = std::mem::replace(&mut self.versions, versions(&function.opset_import));
        self.scopes.push(Scope { closed: true, ..Scope::default() });
        let mut inputs = Vec::new();
        // An input that the call leaves out stays unknown, so that reading it is an error.
        for name in function.input.iter().take(call.input.len()) {
            if let Some(scope) = self.scopes.last_mut() {
                inputs.push(scope.define(name));
            }
        }
        let nodes = self.nodes_of(&function.node, &arguments)?;
        let outputs = self.outputs_of(function.output.iter().map(String::as_str))?;
        self.versions = outer;
        Ok(self.finished(inputs, Vec::new(), nodes, outputs))
    }

    fn check_depth(&self) -> Result<()> {
        if self.scopes.len() > DEPTH {
            return Err(Error::limit(format!("graphs and functions nest more than {DEPTH} deep")));
        }
        Ok(())
    }

    fn finished(
        &mut self,
        inputs: Vec<usize>,
        constants: Vec<(usize, Tensor)>,
        nodes: Vec<Node>,
        outputs: Vec<usize>,
    ) -> Body {
        let scope = self.scopes.pop().unwrap_or_default();
        let (values, captures) = (scope.values, scope.captures);
        let mut body = Body { values, inputs, constants, captures, nodes, outputs };
        last_uses(&mut body);
        body
    }

    /// The body of a branch or loop.
    fn graph(&mut self, graph: &'m GraphProto, given: &BTreeMap<String, &'m AttributeProto>) -> Result<Body> {
        self.check_depth()?;
        let mut scope = Scope::default();
        let inputs: Vec<usize> =
            graph.input.iter().map(|i| scope.define(i.name.as_deref().unwrap_or_default())).collect();
        let mut constants = Vec::new();
        for tensor in &graph.initializer {
            let array = to_array(tensor)?;
            let number = scope.define(tensor.name.as_deref().unwrap_or_default());
            constants.push((number, Tensor::from_array(&self.cx, &array)?));
        }
        self.scopes.push(scope);
        let nodes = self.nodes_of(&graph.node, given)?;
        let outputs = self.outputs_of(graph.output.iter().map(|o| o.name.as_deref().unwrap_or_default()))?;
        Ok(self.finished(inputs, constants, nodes, outputs))
    }

    fn attribute(
        &mut self,
        a: &'m AttributeProto,
        given: &BTreeMap<String, &'m AttributeProto>,
    ) -> Result<Attribute> {
        let kind = a.r#type.and_then(|t| AttributeType::try_from(t).ok()).unwrap_or(AttributeType::Undefined);
        // Files of the first versions do not say which field holds the value.
        let kind = match kind {
            AttributeType::Undefined if a.f.is_some() => AttributeType::Float,
            AttributeType::Undefined if a.i.is_some() => AttributeType::Int,
            AttributeType::Undefined if a.s.is_some() => AttributeType::String,
            AttributeType::Undefined if a.t.is_some() => AttributeType::Tensor,
            AttributeType::Undefined if a.g.is_some() => AttributeType::Graph,
            AttributeType::Undefined if !a.floats.is_empty() => AttributeType::Floats,
            AttributeType::Undefined if !a.ints.is_empty() => AttributeType::Ints,
            kind => kind,
        };
        Ok(match kind {
            AttributeType::Float => Attribute::Float(a.f.unwrap_or_default()),
            AttributeType::Int => Attribute::Int(a.i.unwrap_or_default()),
            AttributeType::String => {
                Attribute::Text(String::from_utf8_lossy(a.s.as_deref().unwrap_or_default()).into_owned())
            }
            AttributeType::Floats => Attribute::Floats(a.floats.clone()),
            AttributeType::Ints => Attribute::Ints(a.ints.clone()),
            AttributeType::Tensor => match &a.t {
                // Types that are not computed with are an error where they are used, and not where they stand.
                Some(t) => match to_array(t).and_then(|array| Tensor::from_array(&self.cx, &array)) {
                    Ok(t) => Attribute::Tensor(t),
                    Err(e) if e.kind() == weighbridge_formats::ErrorKind::Unsupported => {
                        Attribute::Other("a tensor of a type that is not computed with")
                    }
                    Err(e) => return Err(e),
                },
                None => Attribute::Other("no tensor"),
            },
            AttributeType::Graph => match &a.g {
                Some(g) => Attribute::Graph(Arc::new(self.graph(g, given)?)),
                None => Attribute::Other("no graph"),
            },
            AttributeType::Strings => Attribute::Other("texts"),
            AttributeType::SparseTensor | AttributeType::SparseTensors => Attribute::Other("a sparse tensor"),
            _ => Attribute::Other("another type"),
        })
    }
}

/// Notes for each value the last node that reads it. Outputs are kept.
fn last_uses(body: &mut Body) {
    let mut last: Vec<Option<usize>> = vec![None; body.values];
    for (i, node) in body.nodes.iter().enumerate() {
        let captured = node.attributes.values().filter_map(|a| match a {
            Attribute::Graph(body) => Some(body.captures.iter().map(|c| c.0)),
            _ => None,
        });
        for v in node.inputs.iter().flatten().copied().chain(captured.flatten()) {
            last[v] = Some(i);
        }
        // What is made and read by nobody goes at once.
        for &v in node.outputs.iter().flatten() {
            last[v] = Some(i);
        }
    }
    for &v in &body.outputs {
        last[v] = None;
    }
    for (v, i) in last.into_iter().enumerate() {
        if let Some(i) = i {
            body.nodes[i].last_uses.push(v);
        }
    }
}
