//! ONNX: a protobuf message with a graph of operators, whose constants (initializers) are tensors.
//!
//! [`proto`] has the messages; [`plan_model`] writes one whose weights are streamed.

#[cfg(feature = "onnx")]
mod dtypes;
#[cfg(feature = "onnx")]
mod plan;
#[cfg(feature = "onnx")]
pub mod proto;
#[cfg(feature = "onnx")]
mod wire;

#[cfg(feature = "onnx")]
pub use plan::{INSIDE, plan_model};

use crate::traits::FormatInfo;

/// What the format is.
pub static INFO: FormatInfo = FormatInfo {
    id: "onnx",
    name: "ONNX",
    extensions: &["onnx"],
    index_name: None,
    default_name: Some("model.onnx"),
    feature: "onnx",
    holds_sharing: false,
    holds_values: false,
    reads: false,
    writes: false,
    about: "reads and writes models: initializers of every data type, external data, the graph around them",
};
