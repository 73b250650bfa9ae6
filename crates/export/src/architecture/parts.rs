//! Parts that architectures share: activations by their names in configs, and attention over heads.

use weighbridge_formats::{DType, Error, Result};

use crate::graph::{AttentionHeads, GraphBuilder, Value};

/// An activation function, by the names that transformers has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Gelu,
    GeluTanh,
    QuickGelu,
    Relu,
    Silu,
    Tanh,
    Sigmoid,
    Identity,
}

const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("linear", Activation::Identity),
];

impl Activation {
    /// The activation of a name in a config.
    pub(crate) fn of(name: &str) -> Result<Self> {
        ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|(_, a)| *a).ok_or_else(|| {
            let known: Vec<&str> = ACTIVATIONS.iter().map(|(n, _)| *n).collect();
            Error::unsupported(format!(
                "the activation {name:?} is not known: known are {}",
                known.join(", ")
            ))
        })
    }

    /// Applies it.
    pub(crate) fn apply(self, graph: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        match self {
            Self::Gelu => graph.gelu(x),
            Self::GeluTanh => graph.gelu_tanh(x),
            Self::QuickGelu => {
                let gate = graph.scale(x, 1.702)?;
                let gate = graph.sigmoid(&gate)?;
                graph.mul(x, &gate)
            }
            Self::Relu => graph.relu(x),
            Self::Silu => graph.silu(x),
            Self::Tanh => graph.tanh(x),
            Self::Sigmoid => graph.sigmoid(x),
            Self::Identity => Ok(x.clone()),
        }
    }
}

/// How a layer's attention is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// The number of heads.
    pub(crate) count: u64,
    /// The elements of one head.
    pub(crate) size: u64,
}

impl Heads {
    /// The heads of a hidden size.
    ///
    /// # Errors
    /// `Malformed` where they do not divide it.
    pub(crate) fn of(hidden: u64, count: u64) -> Result<Self> {
        if count == 0 || !hidden.is_multiple_of(count) {
            return Err(Error::malformed(format!("{count} heads do not divide a hidden size of {hidden}")));
        }
        Ok(Self { count, size: hidden / count })
    }

    /// The shape `[batch, sequence, heads, size]` for a reshape.
    fn split(self) -> [i64; 4] {
        [0, 0, self.count as i64, self.size as i64]
    }

    /// From `[batch, sequence, heads · size]` to `[batch, heads, sequence, size]`.
    pub(crate) fn divide(self, graph: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let x = graph.reshape(x, &self.split())?;
        graph.transpose(&x, &[0, 2, 1, 3])
    }

    /// From `[batch, sequence, heads · size]` to `[batch, heads, size, sequence]`: keys, as a product wants them.
    pub(crate) fn divide_turned(self, graph: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let x = graph.reshape(x, &self.split())?;
        graph.transpose(&x, &[0, 2, 3, 1])
    }

    /// From `[batch, heads, sequence, size]` back to `[batch, sequence, heads · size]`.
    pub(crate) fn merge(self, graph: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let x = graph.transpose(x, &[0, 2, 1, 3])?;
        graph.reshape(&x, &[0, 0, (self.count * self.size) as i64])
    }
}

/// Attention of an encoder: from projected queries, keys and values `[batch, sequence, hidden]` to the same shape.
pub(crate) fn encoder_attention(
    g: &mut GraphBuilder<'_>,
    heads: Heads,
    [query, key, value]: [&Value; 3],
    mask: &Value,
) -> Result<Value> {
    let root = (heads.size as f64).sqrt();
    if g.has_attention() {
        let heads =
            AttentionHeads { queries: heads.count, shared: heads.count, size: heads.size, scale: 1.0 / root };
        return Ok(g.attention([query, key, value], mask, None, &heads)?.0);
    }
    let query = heads.divide(g, query)?;
    let key = heads.divide_turned(g, key)?;
    let value = heads.divide(g, value)?;
    let scores = if g.compute() == DType::F32 {
        let scores = g.matmul(&query, &key)?;
        let root = g.float(scores.dtype(), root)?;
        g.div(&scores, &root)?
    } else {
        // Scaled before the product, f16 holds what would leave its range.
        let query = g.scale(&query, 1.0 / root)?;
        g.matmul(&query, &key)?
    };
    let context = attend(g, &scores, Some(mask), &value)?;
    heads.merge(g, &context)
}

/// softmax(scores + mask) · values, where scores are `[…, queries, keys]`.
pub(crate) fn attend(
    graph: &mut GraphBuilder<'_>,
    scores: &Value,
    mask: Option<&Value>,
    values: &Value,
) -> Result<Value> {
    let scores = match mask {
        Some(mask) => graph.add(scores, mask)?,
        None => scores.clone(),
    };
    let weights = graph.softmax(&scores, -1)?;
    graph.matmul(&weights, values)
}
