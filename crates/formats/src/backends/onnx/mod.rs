//! ONNX: a protobuf message with a graph of operators, whose constants (initializers) are tensors.
//!
//! [`proto`] has the messages; [`plan_model`] writes one whose weights are streamed.

#[cfg(feature = "onnx")]
mod cursor;
#[cfg(feature = "onnx")]
mod dtypes;
#[cfg(feature = "onnx")]
mod external;
#[cfg(feature = "onnx")]
mod plan;
#[cfg(feature = "onnx")]
pub mod proto;
#[cfg(feature = "onnx")]
mod read;
#[cfg(feature = "onnx")]
mod rewrite;
#[cfg(feature = "onnx")]
mod schema;
#[cfg(feature = "onnx")]
mod skeleton;
#[cfg(feature = "onnx")]
mod sparse;
#[cfg(feature = "onnx")]
mod tensor;
#[cfg(feature = "onnx")]
mod typed;
#[cfg(feature = "onnx")]
mod wire;
#[cfg(feature = "onnx")]
mod write;

#[cfg(feature = "onnx")]
pub use plan::{INSIDE, plan_model};
#[cfg(feature = "onnx")]
pub use read::{OnnxReader, read_model};
#[cfg(feature = "onnx")]
pub use rewrite::{plan_into, weights_for};
#[cfg(feature = "onnx")]
pub use skeleton::Skeleton;
#[cfg(feature = "onnx")]
pub use write::OnnxWriter;

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
    reads: true,
    writes: true,
    about: "reads and writes models: initializers of every data type, external data, the graph around them",
};
