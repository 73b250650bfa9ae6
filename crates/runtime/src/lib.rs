//! Running ONNX models: by a small evaluator of our own, which needs nothing, and by ONNX Runtime; and holding the results
//! of one against the other.
//!
//! ```
//! use weighbridge_runtime::{Array, Arrays, EvaluateOptions, Graph};
//! use weighbridge_formats::backends::onnx::proto::{
//!     GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
//! };
//!
//! # fn main() -> weighbridge_formats::Result<()> {
//! // y = max(x, 0), for floats of any shape.
//! let float = TypeProto {
//!     value: Some(TypeValue::TensorType(TensorType { elem_type: Some(1), shape: None })),
//!     ..TypeProto::default()
//! };
//! let value = |name: &str| ValueInfoProto {
//!     name: Some(name.into()),
//!     r#type: Some(float.clone()),
//!     ..ValueInfoProto::default()
//! };
//! let relu = NodeProto {
//!     input: vec!["x".into()],
//!     output: vec!["y".into()],
//!     op_type: Some("Relu".into()),
//!     ..NodeProto::default()
//! };
//! let graph = GraphProto { node: vec![relu], input: vec![value("x")], output: vec![value("y")], ..Default::default() };
//! let model = ModelProto {
//!     ir_version: Some(9),
//!     opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
//!     graph: Some(graph),
//!     ..ModelProto::default()
//! };
//!
//! let graph = Graph::new(&model, Box::new(weighbridge_formats::MemoryArchive::default()))?;
//! let inputs = Arrays::from([("x".to_owned(), Array::of([3], &[-1.0f32, 0.5, 2.0])?)]);
//! let outputs = graph.run(&inputs, &EvaluateOptions::default())?;
//! assert_eq!(outputs["y"].to_vec::<f32>()?, [0.0, 0.5, 2.0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! `ort` adds `Session`, which runs models by ONNX Runtime. Its library is looked for when the first session is made, and is
//! not needed to build.

mod array;
#[cfg(feature = "ort")]
mod check;
mod compare;
mod eval;
mod generate;
pub mod npy;
pub mod proto;
#[cfg(feature = "ort")]
mod session;

pub use array::{Array, Element};
#[cfg(feature = "ort")]
pub use check::{CheckOptions, CheckReport, OutputCheck, Round, check, check_narrowed};
pub use compare::{Difference, Tolerance, compare};
pub use eval::{Arrays, EvaluateOptions, Graph, Port, Size, operators, shown};
pub use generate::{GenerateOptions, Sizes, generate};
#[cfg(feature = "ort")]
pub use session::{Optimization, Prepared, Session, SessionOptions, environment, load};
