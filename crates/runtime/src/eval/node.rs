//! A graph as the evaluator runs it: values are numbers, nodes name them, attributes are by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use weighbridge_formats::{Error, Result};

use super::tensor::{Cx, Tensor};

/// What a node's attribute holds.
#[derive(Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Tensor),
    Graph(Arc<Body>),
    /// Something that no operator here takes; asking for it is an error, carrying it is none.
    Other(&'static str),
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name, or one made of its place.
    pub(crate) name: String,
    pub(crate) op: String,
    /// Empty for the operators of the standard itself.
    pub(crate) domain: String,
    /// Numbers of values; `None` where an input is left out.
    pub(crate) inputs: Vec<Option<usize>>,
    /// Numbers of values; `None` where an output is not wanted.
    pub(crate) outputs: Vec<Option<usize>>,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    /// The version of the operator set that the node is of.
    pub(crate) version: i64,
    /// The values that are not read after this node.
    pub(crate) last_uses: Vec<usize>,
}

/// A graph, or the body of a loop or branch. A body's first values are its inputs.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// How many values there are, captured ones included.
    pub(crate) values: usize,
    pub(crate) inputs: Vec<usize>,
    /// Initializers of the body, by the number of their value.
    pub(crate) constants: Vec<(usize, Tensor)>,
    /// Values of the graph around it: its number there, and here.
    pub(crate) captures: Vec<(usize, usize)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<usize>,
}

/// A node with its inputs, as an operator sees it.
pub(crate) struct Call<'a> {
    pub(crate) node: &'a Node,
    pub(crate) inputs: Vec<Option<Tensor>>,
    /// What the bodies of the node read of the graph around it: the attribute's name, and values in the order of
    /// [`Body::captures`].
    pub(crate) captured: Vec<(String, Vec<Tensor>)>,
}

impl Call<'_> {
    /// An input that must be there.
    pub(crate) fn input(&self, i: usize) -> Result<&Tensor> {
        self.optional(i).ok_or_else(|| Error::malformed(format!("input {i} is missing")))
    }

    pub(crate) fn optional(&self, i: usize) -> Option<&Tensor> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    pub(crate) fn version(&self) -> i64 {
        self.node.version
    }

    fn wrong(name: &str, wanted: &str) -> Error {
        Error::malformed(format!("attribute {name} is no {wanted}"))
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.node.attributes.get(name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Int(i)) => Ok(*i),
            Some(_) => Err(Self::wrong(name, "integer")),
        }
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f32> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Float(x)) => Ok(*x),
            Some(_) => Err(Self::wrong(name, "float")),
        }
    }

    pub(crate) fn text<'b>(&'b self, name: &str, default: &'b str) -> Result<&'b str> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Text(t)) => Ok(t),
            Some(_) => Err(Self::wrong(name, "text")),
        }
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(v)) => Ok(Some(v)),
            Some(_) => Err(Self::wrong(name, "list of integers")),
        }
    }

    /// A list of sizes, offsets or steps, each from `least` to 2³¹, as many as `n`; `default` where it is absent.
    pub(crate) fn sizes(&self, name: &str, n: usize, default: usize, least: i64) -> Result<Vec<usize>> {
        let Some(list) = self.ints(name)? else { return Ok(vec![default; n]) };
        if list.len() != n {
            return Err(Error::malformed(format!("{name} has {} numbers, and {n} are wanted", list.len())));
        }
        list.iter().map(|&i| small(i, least, name)).collect()
    }

    pub(crate) fn body(&self, name: &str) -> Result<&Arc<Body>> {
        match self.attribute(name) {
            Some(Attribute::Graph(body)) => Ok(body),
            Some(_) => Err(Self::wrong(name, "graph")),
            None => Err(Error::malformed(format!("attribute {name} is missing"))),
        }
    }

    /// The values that a body reads of the graph around it.
    pub(crate) fn captured(&self, name: &str) -> Vec<Tensor> {
        self.captured.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    /// A list that is an attribute in old versions of an operator and an input in new ones.
    pub(crate) fn listed(&self, name: &str, input: usize) -> Result<Option<Vec<i64>>> {
        match self.optional(input) {
            Some(t) => Ok(Some(t.integers()?)),
            None => Ok(self.ints(name)?.map(<[i64]>::to_vec)),
        }
    }
}

/// A number that is a size, in bounds that later sums of a few of them cannot overflow.
pub(crate) fn small(i: i64, least: i64, what: &str) -> Result<usize> {
    if (least..=i64::from(i32::MAX)).contains(&i) {
        usize::try_from(i).map_err(|_| Error::malformed(format!("{what} of {i}")))
    } else {
        Err(Error::malformed(format!("{what} of {i}")))
    }
}

/// A dimension's number, counted from the back where it is negative.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    from_front
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| Error::malformed(format!("axis {axis} of {rank} dimensions")))
}

/// Several dimensions, each at most once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut seen = vec![false; rank];
    let mut out = Vec::with_capacity(list.len().min(rank));
    for &a in list {
        let a = axis(a, rank)?;
        if std::mem::replace(&mut seen[a], true) {
            return Err(Error::malformed(format!("axis {a} is named twice")));
        }
        out.push(a);
    }
    Ok(out)
}

/// An operator: from the inputs of a node to its outputs.
pub(crate) type Kernel = fn(&Cx, &Call<'_>) -> Result<Vec<Tensor>>;
