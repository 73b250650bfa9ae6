//! Running a body: node by node, each value freed after it is last read.

use weighbridge_formats::{Error, Result};

use super::node::{Attribute, Body, Call, Node};
use super::ops;
use super::tensor::{Cx, Tensor};

/// Where values come from that are neither inputs nor made by nodes: the weights, read when they are first wanted.
pub(crate) trait Weights {
    /// The value of this number, if it is a weight.
    fn weight(&self, cx: &Cx, value: usize) -> Result<Option<Tensor>>;
}

/// Bodies have all their values from the start.
struct Nowhere;

impl Weights for Nowhere {
    fn weight(&self, _: &Cx, _: usize) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Runs the body of a branch, loop or function.
pub(crate) fn run_body(
    cx: &Cx,
    body: &Body,
    inputs: Vec<Tensor>,
    captured: Vec<Tensor>,
) -> Result<Vec<Tensor>> {
    if inputs.len() != body.inputs.len() || captured.len() != body.captures.len() {
        let (given, wanted) = (inputs.len(), body.inputs.len());
        return Err(Error::malformed(format!("{given} values are given to a body that takes {wanted}")));
    }
    let mut values: Vec<Option<Tensor>> = vec![None; body.values];
    for ((_, to), t) in body.captures.iter().zip(captured) {
        values[*to] = Some(t);
    }
    for (to, t) in &body.constants {
        values[*to] = Some(t.clone());
    }
    for (&to, t) in body.inputs.iter().zip(inputs) {
        values[to] = Some(t);
    }
    run_values(cx, body, &mut values, &Nowhere)?;
    body.outputs.iter().map(|&v| taken(&values, v)).collect()
}

fn taken(values: &[Option<Tensor>], v: usize) -> Result<Tensor> {
    values.get(v).cloned().flatten().ok_or_else(|| Error::malformed("a value is read that nothing makes"))
}

/// Runs all nodes on values whose inputs are in their places.
pub(crate) fn run_values(
    cx: &Cx,
    body: &Body,
    values: &mut [Option<Tensor>],
    weights: &dyn Weights,
) -> Result<()> {
    for node in &body.nodes {
        run_node(cx, node, values, weights).map_err(|e| named(e, node))?;
        for &v in &node.last_uses {
            values[v] = None;
        }
    }
    Ok(())
}

/// The error of a node says which it was.
fn named(error: Error, node: &Node) -> Error {
    // The innermost node of nested bodies has the most to say.
    if error.message().starts_with("node ") {
        return error;
    }
    let mut out =
        Error::new(error.kind(), format!("node {:?} ({}): {}", node.name, node.op, error.message()));
    if let Some(hint) = error.hint() {
        out = out.with_hint(hint.to_owned());
    }
    out
}

fn run_node(cx: &Cx, node: &Node, values: &mut [Option<Tensor>], weights: &dyn Weights) -> Result<()> {
    cx.step()?;
    let Some(kernel) = ops::kernel(&node.domain, &node.op) else {
        return Err(Error::unsupported("no such operator"));
    };
    let mut read = |v: usize| -> Result<Tensor> {
        if values[v].is_none() {
            values[v] = weights.weight(cx, v)?;
        }
        taken(values, v)
    };
    let inputs = node.inputs.iter().map(|v| v.map(&mut read).transpose()).collect::<Result<Vec<_>>>()?;
    let mut captured = Vec::new();
    for (name, attribute) in &node.attributes {
        if let Attribute::Graph(body) = attribute {
            let list = body.captures.iter().map(|&(v, _)| read(v)).collect::<Result<Vec<_>>>()?;
            captured.push((name.clone(), list));
        }
    }
    let outputs = kernel(cx, &Call { node, inputs, captured })?;
    let given = outputs.len();
    let mut outputs = outputs.into_iter();
    for to in &node.outputs {
        match (to, outputs.next()) {
            (Some(to), Some(t)) => values[*to] = Some(t),
            (Some(_), None) => {
                let what =
                    format!("{} outputs are wanted, and {given} are computed here", node.outputs.len());
                return Err(Error::unsupported(what));
            }
            (None, _) => {}
        }
    }
    Ok(())
}
