//! Narrow weights: which forms there are, and the tensors that take the place of a wide one.
//!
//! A weight is quantized while it is written: its codes and its scales are read from the wide weight row by row, so that
//! no more than a few rows of it are in memory.

mod code;
mod rows;

use std::str::FromStr;
use std::sync::Arc;

use weighbridge_formats::transform::Strided;
use weighbridge_formats::{Archive, DType, Data, Error, Result, TensorInfo};

pub(crate) use code::Code;
use rows::Rows;

/// How the weights of linear layers are quantized. Embeddings, norms, biases and narrow layers stay as they are.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// Codes of eight bits with a scale for each output, and inputs that are quantized while the graph runs:
    /// `DynamicQuantizeLinear` and `MatMulInteger`.
    Int8,
    /// Codes of eight bits with a scale for each output, widened before a product of floats: `DequantizeLinear`.
    Int8Weights,
    /// Codes of four bits with a scale for each block of so many inputs: ONNX Runtime's `MatMulNBits`. The size is a
    /// power of two from 16 to 256.
    Int4 {
        /// Inputs in a block.
        block: u32,
    },
}

/// The block of [`Quantization::Int4`] where none is said, which is what the runtime's own tools take.
const BLOCK: u32 = 32;

/// A layer is quantized where both sides of its weight have at least so many elements: below that little is gained, and
/// the heads of classifiers have the fewest.
const LEAST: u64 = 16;

impl FromStr for Quantization {
    type Err = Error;

    /// `int8`, `int8-weights`, `int4`, or `int4:64` with the block's size.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            let what = format!(
                "{text:?}: known are int8, int8-weights, int4, and int4:16 to int4:256 by the block's size"
            );
            Error::invalid_options(what)
        };
        match text.split_once(':') {
            None => match text {
                "int8" => Ok(Self::Int8),
                "int8-weights" => Ok(Self::Int8Weights),
                "int4" => Ok(Self::Int4 { block: BLOCK }),
                _ => Err(unknown()),
            },
            Some(("int4", block)) => {
                let block = Self::Int4 { block: block.parse().map_err(|_| unknown())? };
                block.check().map(|()| block)
            }
            Some(_) => Err(unknown()),
        }
    }
}

impl std::fmt::Display for Quantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int8 => f.write_str("int8"),
            Self::Int8Weights => f.write_str("int8-weights"),
            Self::Int4 { block: BLOCK } => f.write_str("int4"),
            Self::Int4 { block } => write!(f, "int4:{block}"),
        }
    }
}

impl Quantization {
    /// Refuses a size of blocks that the runtime does not know.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Int4 { block } if !block.is_power_of_two() || !(16..=256).contains(&block) => Err(
                Error::invalid_options(format!("blocks of {block}: known are powers of two from 16 to 256")),
            ),
            _ => Ok(()),
        }
    }

    /// Whether a layer's weight is narrowed.
    pub(crate) fn takes(self, inputs: u64, outputs: u64) -> bool {
        inputs.min(outputs) >= LEAST
    }
}

/// A tensor that is made of another one.
#[derive(Clone, Debug)]
pub(crate) struct Derived {
    /// What it is called, and how large it is.
    pub(crate) info: TensorInfo,
    /// The number of the wide tensor in its archive.
    pub(crate) source: usize,
    /// Whether that one is `[in, out]`, and so is turned first.
    pub(crate) turned: bool,
    /// What is made of it.
    pub(crate) code: Code,
}

impl Derived {
    /// The two tensors of a weight: its codes, and its scales in `scale`.
    pub(crate) fn pair(
        quantization: Quantization,
        (name, source, turned): (&Arc<str>, usize, bool),
        [outputs, inputs]: [u64; 2],
        scale: DType,
    ) -> Result<[Self; 2]> {
        let derived = |suffix: &str, code: Code, dtype: DType, shape: &[u64]| -> Result<Self> {
            Ok(Self {
                info: TensorInfo::new(format!("{name}.{suffix}"), dtype, shape)?,
                source,
                turned,
                code,
            })
        };
        Ok(match quantization {
            Quantization::Int8 | Quantization::Int8Weights => [
                derived("int8", Code::Int8, DType::I8, &[outputs, inputs])?,
                derived("scale", Code::Int8Scale(scale), scale, &[outputs])?,
            ],
            Quantization::Int4 { block } => {
                let (block, blocks) = (u64::from(block), inputs.div_ceil(block.into()));
                [
                    derived("int4", Code::Int4 { block }, DType::U8, &[outputs, blocks, block / 2])?,
                    derived("scale", Code::Int4Scale { block, scale }, scale, &[outputs, blocks])?,
                ]
            }
        })
    }

    /// Its bytes, which are made when they are read.
    pub(crate) fn data<'a>(&self, archive: &'a dyn Archive) -> Result<Data<'a>> {
        let info = archive.tensors().get(self.source);
        let info = info.ok_or_else(|| Error::not_found("the weight to quantize is not there"))?;
        let (mut data, dtype) = (archive.data(self.source)?, info.dtype());
        let &[mut outputs, mut inputs] = info.shape() else {
            return Err(Error::mismatch("only matrices are quantized").with_tensor(info.name()));
        };
        if self.turned {
            (outputs, inputs) = (inputs, outputs);
            data = Data::lazy(Strided::new(data, dtype.bits() / 8, &[outputs, inputs], &[1, outputs], 0)?);
        }
        let rows = Rows::new(data, dtype, outputs, inputs).map_err(|e| e.with_tensor(info.name()))?;
        Ok(Data::lazy(code::Coded::new(rows, self.code, self.info.bytes())))
    }
}

#[cfg(test)]
mod tests;
