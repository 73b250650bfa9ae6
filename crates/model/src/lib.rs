//! Whole models: weights, config, tokenizer and precision, as the directories that people know.

mod report;

pub use report::{DTypeMismatch, Expected, ExpectedTensor, LoadReport, ShapeMismatch, compare};
