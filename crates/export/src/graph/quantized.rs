//! Linear layers whose weights are quantized: the tensors that take a weight's place, and the operators that use them.

use std::sync::Arc;

use weighbridge_formats::{DType, Result};

use super::value::{Dim, Value};
use super::{Attribute, GraphBuilder, Layout};
use crate::quantize::{Derived, Quantization};

/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

/// A vector or matrix that was quantized while the graph runs: codes, scale and zero point.
type Codes = [Value; 3];

/// What a graph has narrowed so far.
#[derive(Default)]
pub(super) struct Narrowed {
    pub(super) choice: Option<Quantization>,
    /// The tensors to be made, in the order in which layers asked for them.
    pub(super) derived: Vec<Derived>,
    /// The values of weights that are narrowed, by the tensor's number and layout.
    weights: std::collections::HashMap<(usize, Layout), [Value; 2]>,
    /// The inputs that are quantized, by name: a layer's queries, keys and values share theirs.
    inputs: std::collections::HashMap<String, Codes>,
}

impl GraphBuilder<'_> {
    /// Has linear layers quantize their weights from here on, where they are not too narrow to gain by it.
    ///
    /// # Errors
    /// `InvalidOptions` for a size of blocks that the runtime does not know.
    pub fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        quantization.check()?;
        self.narrowed.choice = Some(quantization);
        Ok(())
    }

    /// How many weights were quantized.
    pub fn quantized(&self) -> usize {
        self.narrowed.derived.len() / 2
    }

    /// The tensors that are made of weights.
    pub(crate) fn take_derived(&mut self) -> Vec<Derived> {
        std::mem::take(&mut self.narrowed.derived)
    }

    /// The product with a quantized weight; `None` where the layer is to have a wide one.
    pub(super) fn quantized_product(
        &mut self,
        x: &Value,
        weight: &str,
        [outputs, inputs]: [u64; 2],
        layout: Layout,
    ) -> Result<Option<Value>> {
        let Some(choice) = self.narrowed.choice.filter(|c| c.takes(inputs, outputs)) else { return Ok(None) };
        let index = match layout {
            Layout::OutIn => self.find(weight, &[outputs, inputs])?,
            Layout::InOut => self.find(weight, &[inputs, outputs])?,
        };
        // The runtime multiplies bytes for f32 alone; products of half bytes are for either.
        let compute = match choice {
            Quantization::Int4 { .. } if x.dtype() != DType::Bf16 => x.dtype(),
            _ => DType::F32,
        };
        let [codes, scale] = match self.narrowed.weights.get(&(index, layout)) {
            Some(known) => known.clone(),
            None => {
                let name: Arc<str> = self.archive.tensors()[index].shared_name();
                let source = (&name, index, layout == Layout::InOut);
                let pair = Derived::pair(choice, source, [outputs, inputs], compute)?;
                for derived in &pair {
                    let name = derived.info.name();
                    if self.by_name.contains_key(name) || !self.taken.insert(name.to_owned()) {
                        return Err(self.error(format!("the name {name:?} is taken")));
                    }
                }
                let value = |derived: &Derived| {
                    let dims: Vec<Dim> = derived.info.shape().iter().map(|&n| Dim::Fixed(n)).collect();
                    Value::new(derived.info.shared_name(), derived.info.dtype(), dims)
                };
                let values = [value(&pair[0]), value(&pair[1])];
                self.narrowed.derived.extend(pair);
                self.narrowed.weights.insert((index, layout), values.clone());
                values
            }
        };
        let wide = self.cast(x, compute)?;
        let mut shape = x.shape().to_vec();
        shape.pop();
        shape.push(Dim::Fixed(outputs));
        let y = match choice {
            Quantization::Int8 => self.integer_product(&wide, &codes, &scale, shape)?,
            Quantization::Int8Weights => {
                let axis = vec![("axis", Attribute::Int(0))];
                let dims = codes.shape().to_vec();
                let back = self.node("DequantizeLinear", &[&codes, &scale], axis, DType::F32, dims)?;
                let turned = self.transpose(&back, &[1, 0])?;
                self.matmul(&wide, &turned)?
            }
            Quantization::Int4 { block } => {
                let int = |n: u64| Attribute::Int(n as i64);
                let attributes = vec![
                    ("K", int(inputs)),
                    ("N", int(outputs)),
                    ("bits", Attribute::Int(4)),
                    ("block_size", int(block.into())),
                ];
                let inputs = [Some(&wide), Some(&codes), Some(&scale)];
                let mut made =
                    self.nodes(MICROSOFT, "MatMulNBits", &inputs, attributes, &[(compute, shape)])?;
                made.pop().ok_or_else(|| self.error("a node without outputs"))?
            }
        };
        self.cast(&y, x.dtype()).map(Some)
    }

    /// A product of bytes, in the form that ONNX Runtime's own tools write and its optimizer knows.
    fn integer_product(&mut self, x: &Value, codes: &Value, scale: &Value, shape: Vec<Dim>) -> Result<Value> {
        let [quantized, input_scale, zero] = match self.narrowed.inputs.get(x.name()) {
            Some(known) => known.clone(),
            None => {
                let outputs =
                    [(DType::U8, x.shape().to_vec()), (DType::F32, Vec::new()), (DType::U8, Vec::new())];
                let made = self.nodes("", "DynamicQuantizeLinear", &[Some(x)], vec![], &outputs)?;
                let made = <Codes>::try_from(made).map_err(|_| self.error("a node without its outputs"))?;
                self.narrowed.inputs.insert(x.name().to_owned(), made.clone());
                made
            }
        };
        let turned = self.transpose(codes, &[1, 0])?;
        let product = self.node("MatMulInteger", &[&quantized, &turned, &zero], vec![], DType::I32, shape)?;
        let product = self.cast(&product, DType::F32)?;
        let scale = self.mul(&input_scale, scale)?;
        self.mul(&product, &scale)
    }
}
