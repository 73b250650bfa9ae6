//! Whole models: weights, config, tokenizer and precision, as the directories that people know.
//!
//! [`ModelLoader`] opens a folder or file with what belongs to it, and says how its weights differ from what the
//! config's architecture expects. [`ModelSaver`] writes such a folder, all of it or nothing, in another format,
//! precision or cut.

pub mod architecture;
mod config;
mod files;
mod loader;
mod names;
mod report;
mod saver;
pub mod state_dict;
pub mod tokenizer;

pub use architecture::{Architecture, architecture};
pub use config::Config;
pub use files::{ModelFile, Role, role};
pub use loader::{Demand, Model, ModelLoader};
pub use report::{DTypeMismatch, Expected, ExpectedTensor, LoadReport, ShapeMismatch, compare};
pub use saver::{ModelSaver, SaveReport};
pub use weighbridge_formats::transform::{KeptWide, OnOverflow, Precision, Tie};
pub use weighbridge_trust::manifest;
