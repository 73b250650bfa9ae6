//! Layers that have weights: the places where a weight's own layout, or a narrower form of it, enters the graph.

use weighbridge_formats::Result;

use super::GraphBuilder;
use super::value::{Dim, Value};

/// How the weight of a linear layer lies in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[out, in]`, as torch's `Linear` has it.
    OutIn,
    /// `[in, out]`, as GPT-2's `Conv1D` has it.
    InOut,
}

impl GraphBuilder<'_> {
    /// A linear layer of torch's layout: `x · Wᵀ + b`, over the last dimension of `x`.
    ///
    /// The weight is used as the checkpoint has it, and a Transpose node turns it, which ONNX Runtime does once, when
    /// it loads the model.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`]; `Mismatch` where the last dimension of `x` is no number.
    pub fn linear(&mut self, x: &Value, weight: &str, bias: Option<&str>, out: u64) -> Result<Value> {
        self.linear_of(x, weight, bias, out, Layout::OutIn)
    }

    /// A linear layer of either layout.
    ///
    /// # Errors
    /// As [`GraphBuilder::linear`].
    pub fn linear_of(
        &mut self,
        x: &Value,
        weight: &str,
        bias: Option<&str>,
        out: u64,
        layout: Layout,
    ) -> Result<Value> {
        let Some(input) = x.shape().last().and_then(Dim::fixed) else {
            return Err(self.error(format!("a linear layer over {}", x.describe())));
        };
        if let Some(y) = self.quantized_product(x, weight, [out, input], layout)? {
            return self.with_bias(&y, bias, out);
        }
        let matrix = match layout {
            Layout::InOut => self.weight(weight, &[input, out])?,
            Layout::OutIn => {
                let value = self.weight(weight, &[out, input])?;
                match self.transposed.get(value.name()) {
                    Some(turned) => turned.clone(),
                    None => {
                        let turned = self.transpose(&value, &[1, 0])?;
                        self.transposed.insert(value.name().to_owned(), turned.clone());
                        turned
                    }
                }
            }
        };
        let y = self.matmul(x, &matrix)?;
        self.with_bias(&y, bias, out)
    }

    /// Adds a vector of weights to the last dimension.
    fn with_bias(&mut self, x: &Value, bias: Option<&str>, size: u64) -> Result<Value> {
        match bias {
            Some(bias) => {
                let bias = self.weight(bias, &[size])?;
                self.add(x, &bias)
            }
            None => Ok(x.clone()),
        }
    }

    /// Rows of a table of weights by index: from `[…]` to `[…, size]`.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`].
    pub fn embedding(&mut self, indices: &Value, weight: &str, rows: u64, size: u64) -> Result<Value> {
        let table = self.weight(weight, &[rows, size])?;
        self.gather(&table, indices, 0)
    }

    /// The norm of the last dimension by `NAME.weight` and `NAME.bias`.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`] and [`GraphBuilder::layer_normalization`].
    pub fn layer_norm(&mut self, x: &Value, name: &str, epsilon: f32) -> Result<Value> {
        let size = self.last_size(x)?;
        let scale = self.weight(&format!("{name}.weight"), &[size])?;
        let shift = self.weight(&format!("{name}.bias"), &[size])?;
        self.layer_normalization(x, &scale, Some(&shift), epsilon)
    }

    /// The norm of the last dimension by its root mean square and `NAME.weight`.
    ///
    /// # Errors
    /// As [`GraphBuilder::weight`] and [`GraphBuilder::rms_normalization`].
    pub fn rms_norm(&mut self, x: &Value, name: &str, epsilon: f32) -> Result<Value> {
        let size = self.last_size(x)?;
        let scale = self.weight(&format!("{name}.weight"), &[size])?;
        self.rms_normalization(x, &scale, epsilon)
    }

    fn last_size(&self, x: &Value) -> Result<u64> {
        let size = x.shape().last().and_then(Dim::fixed);
        size.ok_or_else(|| self.error(format!("a layer over {}", x.describe())))
    }
}
