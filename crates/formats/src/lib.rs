//! The file formats of machine-learning models, read and written without running what a file says.
//!
//! A file becomes an [`Archive`]: tensors in order, whose bytes are read only when asked for, metadata, and a
//! graph of the values that are no tensors. Transforms wrap an archive in an archive. A [`Serializer`] plans the
//! exact bytes of its files, and the write engine puts them on disk, completely or not at all.

// What the formats share is all there in every build; a build without some of them leaves parts of it unused.
#![cfg_attr(
    not(all(feature = "safetensors", feature = "torch", feature = "joblib")),
    allow(dead_code, unused_imports)
)]

mod account;
mod archive;
pub mod backends;
mod convert;
mod diff;
mod dtype;
mod error;
// Four modules serve readers of every build and writers of some: not all of them is used in each.
#[cfg_attr(not(feature = "safetensors"), allow(dead_code, unused_imports))]
mod flat;
mod folder;
#[cfg_attr(not(feature = "safetensors"), allow(dead_code, unused_imports))]
mod json;
#[cfg_attr(not(any(feature = "safetensors", feature = "onnx")), allow(dead_code, unused_imports))]
mod kept_values;
mod limits;
mod load;
pub mod logical;
mod memory;
#[cfg(feature = "pickle")]
mod naming;
#[cfg(feature = "pickle")]
pub mod pickle;
mod probe;
mod registry;
#[cfg_attr(not(feature = "safetensors"), allow(dead_code, unused_imports))]
mod shards;
mod sniff;
pub mod source;
mod tensor;
mod traits;
pub mod transform;
pub mod value;
#[cfg_attr(not(feature = "safetensors"), allow(dead_code, unused_imports))]
mod values_json;
pub mod words;
mod workers;
pub mod write;
#[cfg(feature = "torch")]
mod zip;

pub use archive::{Archive, Companion, MemoryArchive, Metadata, Note, NoteKind, StorageInfo};
pub use convert::{ConvertOptions, ConvertReport, convert, save};
pub use diff::{DiffOptions, DiffReport, OtherDiff, TensorDiff, ValueDiff, diff};
pub use dtype::{DType, FloatLayout, Kind, Special};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use load::read_all;
pub use probe::{Confidence, Probe};
pub use registry::{Format, Registry};
pub use source::{Access, FileSpan, ReadAt, Source};
pub use tensor::{Data, Shape, Tensor, TensorInfo, View, contiguous_strides, element_count};
pub use traits::{Deserializer, FormatInfo, ReadOptions, Serializer, ValuesPolicy, WriteOptions};
pub use value::{Value, ValueId, Values};
pub use workers::{on_workers, worker_count};
