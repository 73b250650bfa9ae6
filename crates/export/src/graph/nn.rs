//! Operators that networks are made of, and what they are lowered to where the opset has them not.

use weighbridge_formats::{DType, Kind, Result};

use super::shape::broadcast;
use super::value::{Dim, Value};
use super::{Attribute, GraphBuilder};

/// How attention is divided.
#[derive(Clone, Copy, Debug)]
pub struct AttentionHeads {
    /// The heads of queries.
    pub queries: u64,
    /// The heads of keys and values, which divide those of queries.
    pub shared: u64,
    /// The elements of one head.
    pub size: u64,
    /// What scores are multiplied by.
    pub scale: f64,
}

impl GraphBuilder<'_> {
    /// The product of matrices: the last two dimensions multiply, those before broadcast.
    ///
    /// # Errors
    /// `Mismatch` for dtypes or inner sizes that differ, and for vectors.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.want_kind("MatMul", a, &[Kind::Float])?;
        let shape = (a.dtype() == b.dtype()).then(|| product(a.shape(), b.shape())).flatten();
        let Some(shape) = shape else {
            return Err(self.error(format!("MatMul of {} and {}", a.describe(), b.describe())));
        };
        self.node("MatMul", &[a, b], vec![], a.dtype(), shape)
    }

    /// Whether the opset has attention, rotary embeddings and the norm by the root mean square as operators. ONNX
    /// Runtime computes them no slower than their parts, attention faster.
    pub fn has_attention(&self) -> bool {
        self.opset() >= 23
    }

    /// Attention over heads, as one operator: of queries `[batch, sequence, heads · size]` to keys and values
    /// `[batch, sequence, shared · size]`, which are joined to those of a cache `[batch, shared, past, size]`. Scores
    /// are multiplied by `scale`, and `mask`, `[batch, 1, sequence, past + sequence]`, is added to them. Returns what
    /// is shaped as the queries, and with a cache the joined keys and values.
    ///
    /// # Errors
    /// `Unsupported` below opset 23; `Mismatch` for shapes that do not fit.
    pub fn attention(
        &mut self,
        [query, key, value]: [&Value; 3],
        mask: &Value,
        past: Option<&[Value; 2]>,
        heads: &AttentionHeads,
    ) -> Result<(Value, Option<[Value; 2]>)> {
        if !self.has_attention() {
            return Err(self.error(format!("Attention is not in opset {}", self.opset())));
        }
        let width = |n: u64| n.checked_mul(heads.size).map(Dim::Fixed);
        let fits = |x: &Value, n: u64| {
            x.rank() == 3 && x.dtype() == mask.dtype() && x.shape().last() == width(n).as_ref()
        };
        if !fits(query, heads.queries) || !fits(key, heads.shared) || !fits(value, heads.shared) {
            let (q, k, v) = (query.describe(), key.describe(), value.describe());
            return Err(self.error(format!("Attention of {q} to {k} and {v} with {heads:?}")));
        }
        let mut attributes = vec![
            ("q_num_heads", Attribute::Int(heads.queries as i64)),
            ("kv_num_heads", Attribute::Int(heads.shared as i64)),
            ("scale", Attribute::Float(heads.scale as f32)),
        ];
        if query.dtype() != DType::F32 {
            attributes.push(("softmax_precision", Attribute::Int(super::emit::onnx_dtype(DType::F32)?)));
        }
        let mut outputs = vec![(query.dtype(), query.shape().to_vec())];
        let mut inputs = vec![Some(query), Some(key), Some(value), Some(mask)];
        if let Some([past_key, past_value]) = past {
            let [batch, shared, before, size] = past_key.shape() else {
                return Err(self.error(format!("a cache of {}", past_key.describe())));
            };
            let total = before.plus(&key.shape()[1]);
            let joined = vec![batch.clone(), shared.clone(), total, size.clone()];
            outputs.extend([(query.dtype(), joined.clone()), (query.dtype(), joined)]);
            inputs.extend([Some(past_key), Some(past_value)]);
        }
        let made = self.nodes("", "Attention", &inputs, attributes, &outputs)?;
        match &made[..] {
            [out, key, value] => Ok((out.clone(), Some([key.clone(), value.clone()]))),
            [out] => Ok((out.clone(), None)),
            _ => Err(self.error("Attention without output")),
        }
    }

    /// Rotates `[batch, sequence, heads · size]` as one operator, by cosines and sines `[batch, sequence, size / 2]`.
    ///
    /// # Errors
    /// `Unsupported` below opset 23.
    pub fn rotary_embedding(&mut self, x: &Value, cos: &Value, sin: &Value, heads: u64) -> Result<Value> {
        if !self.has_attention() {
            return Err(self.error(format!("RotaryEmbedding is not in opset {}", self.opset())));
        }
        let attributes = vec![("num_heads", Attribute::Int(heads as i64))];
        self.node("RotaryEmbedding", &[x, cos, sin], attributes, x.dtype(), x.shape().to_vec())
    }

    /// Exponentials over their sum along an axis.
    ///
    /// # Errors
    /// `Mismatch` for an axis that is not there, and what is no float.
    pub fn softmax(&mut self, x: &Value, along: i64) -> Result<Value> {
        self.want_kind("Softmax", x, &[Kind::Float])?;
        self.axis("Softmax", x, along)?;
        self.node("Softmax", &[x], vec![("axis", Attribute::Int(along))], x.dtype(), x.shape().to_vec())
    }

    /// The norm of the last dimension: mean 0 and variance 1, then scaled and shifted. Means and variances are f32 in
    /// every dtype.
    ///
    /// # Errors
    /// `Mismatch` for scale and shift of another size.
    pub fn layer_normalization(
        &mut self,
        x: &Value,
        scale: &Value,
        shift: Option<&Value>,
        epsilon: f32,
    ) -> Result<Value> {
        self.want_norm("LayerNormalization", x, scale)?;
        let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        let outputs = [(x.dtype(), x.shape().to_vec())];
        let mut made =
            self.nodes("", "LayerNormalization", &[Some(x), Some(scale), shift], attributes, &outputs)?;
        made.pop().ok_or_else(|| self.error("a node without outputs"))
    }

    /// The norm of the last dimension by its root mean square, then scaled. Squares are f32 in every dtype, and the
    /// result is rounded before it is scaled, as Llama does.
    ///
    /// # Errors
    /// As [`GraphBuilder::layer_normalization`].
    pub fn rms_normalization(&mut self, x: &Value, scale: &Value, epsilon: f32) -> Result<Value> {
        self.want_norm("RMSNormalization", x, scale)?;
        if self.has_attention() {
            let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
            return self.node("RMSNormalization", &[x, scale], attributes, x.dtype(), x.shape().to_vec());
        }
        let wide = self.cast(x, DType::F32)?;
        let two = self.float(DType::F32, 2.0)?;
        let squares = self.pow(&wide, &two)?;
        let mean = self.reduce_mean(&squares, &[-1], true)?;
        let epsilon = self.float(DType::F32, epsilon.into())?;
        let mean = self.add(&mean, &epsilon)?;
        let root = self.sqrt(&mean)?;
        let one = self.float(DType::F32, 1.0)?;
        let inverse = self.div(&one, &root)?;
        let normal = self.mul(&wide, &inverse)?;
        let normal = self.cast(&normal, x.dtype())?;
        self.mul(&normal, scale)
    }

    /// x · Φ(x), by the error function.
    ///
    /// # Errors
    /// `Mismatch` for what is no float.
    pub fn gelu(&mut self, x: &Value) -> Result<Value> {
        self.want_kind("Gelu", x, &[Kind::Float])?;
        if self.opset() >= 20 {
            return self.node("Gelu", &[x], vec![], x.dtype(), x.shape().to_vec());
        }
        // The form that exporters of torch write, and that runtimes look for.
        let root = self.float(x.dtype(), std::f64::consts::SQRT_2)?;
        let inner = self.div(x, &root)?;
        let inner = self.erf(&inner)?;
        let one = self.float(x.dtype(), 1.0)?;
        let inner = self.add(&inner, &one)?;
        let outer = self.mul(x, &inner)?;
        self.scale(&outer, 0.5)
    }

    /// The approximation of [`GraphBuilder::gelu`] by a hyperbolic tangent, as GPT-2 has it.
    ///
    /// # Errors
    /// `Mismatch` for what is no float.
    pub fn gelu_tanh(&mut self, x: &Value) -> Result<Value> {
        self.want_kind("Gelu", x, &[Kind::Float])?;
        if self.opset() >= 20 {
            let attributes = vec![("approximate", Attribute::Text("tanh".into()))];
            return self.node("Gelu", &[x], attributes, x.dtype(), x.shape().to_vec());
        }
        let half = self.scale(x, 0.5)?;
        let three = self.float(x.dtype(), 3.0)?;
        let cube = self.pow(x, &three)?;
        let cube = self.scale(&cube, 0.044_715)?;
        let inner = self.add(x, &cube)?;
        let inner = self.scale(&inner, (2.0 / std::f64::consts::PI).sqrt())?;
        let inner = self.tanh(&inner)?;
        let one = self.float(x.dtype(), 1.0)?;
        let inner = self.add(&inner, &one)?;
        self.mul(&half, &inner)
    }

    /// x · σ(x).
    ///
    /// # Errors
    /// `Mismatch` for what is no float.
    pub fn silu(&mut self, x: &Value) -> Result<Value> {
        let gate = self.sigmoid(x)?;
        self.mul(x, &gate)
    }

    fn want_norm(&self, op: &str, x: &Value, scale: &Value) -> Result<()> {
        self.want_kind(op, x, &[Kind::Float])?;
        if scale.dtype() == x.dtype() && scale.rank() == 1 && x.shape().last() == scale.shape().last() {
            return Ok(());
        }
        Err(self.error(format!("{op} of {} by {}", x.describe(), scale.describe())))
    }
}

/// The shape of a product of matrices.
fn product(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let (a_batch, [rows, inner]) = a.split_last_chunk::<2>()?;
    let (b_batch, [other, columns]) = b.split_last_chunk::<2>()?;
    let mut shape = (inner == other).then(|| broadcast(a_batch, b_batch)).flatten()?;
    shape.extend([rows.clone(), columns.clone()]);
    Some(shape)
}
