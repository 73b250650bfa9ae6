//! What flows through a graph: values with a name, a dtype and a shape of which some sizes are only names.

use std::fmt;
use std::sync::Arc;

use weighbridge_formats::DType;

/// The size of one dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Fixed(u64),
    /// A name: equal names are equal sizes, whatever they are when the graph runs.
    Symbol(Arc<str>),
}

impl Dim {
    /// A size with a name.
    pub fn symbol(name: impl Into<Arc<str>>) -> Self {
        Self::Symbol(name.into())
    }

    /// The number, where it is one.
    pub fn fixed(&self) -> Option<u64> {
        match self {
            Self::Fixed(n) => Some(*n),
            Self::Symbol(_) => None,
        }
    }

    /// The size of two dimensions one after the other: a number, or a name such as `past + sequence`.
    pub fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Fixed(a), Self::Fixed(b)) => Self::Fixed(a.saturating_add(*b)),
            (Self::Fixed(0), d) | (d, Self::Fixed(0)) => d.clone(),
            (a, b) => Self::symbol(format!("{a} + {b}")),
        }
    }
}

impl From<u64> for Dim {
    fn from(n: u64) -> Self {
        Self::Fixed(n)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Self::symbol(name)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Symbol(s) => f.write_str(s),
        }
    }
}

/// A value of a graph: an input, a weight, a constant or what a node computes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    name: Arc<str>,
    dtype: DType,
    shape: Arc<[Dim]>,
}

impl Value {
    pub(crate) fn new(name: impl Into<Arc<str>>, dtype: DType, shape: impl Into<Arc<[Dim]>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    /// The name, by which nodes refer to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[Dim] {
        &self.shape
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The shape as errors spell it.
    pub fn describe(&self) -> String {
        format!("{} of {}", spell(&self.shape), self.dtype)
    }
}

/// A shape as people write it.
pub(crate) fn spell(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// A constant argument of an operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// A text.
    Text(String),
}

impl From<i64> for Attribute {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}

impl From<f32> for Attribute {
    fn from(f: f32) -> Self {
        Self::Float(f)
    }
}

impl From<&[i64]> for Attribute {
    fn from(ints: &[i64]) -> Self {
        Self::Ints(ints.to_vec())
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
