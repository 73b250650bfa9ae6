//! Save, load, convert and compare machine-learning models in the formats that people use, without Python and
//! without running what a file says.
//!
//! A file becomes an [`Archive`]: tensors in order, whose bytes are read only when asked for, text metadata, and
//! the values that are no tensors. What can be opened can be written in any other format.
//!
//! # Features
//! One feature a format: `safetensors`, `torch`, `pickle`; `all-formats` is all of them. `parallel` lets a write
//! use several threads, `mmap` adds opening by memory map. The default is `safetensors`, `torch`, `parallel`.

use std::path::Path;

use weighbridge_formats as formats;

pub use formats::value;
pub use formats::write;
pub use formats::{
    Archive, Confidence, DType, Data, Deserializer, Error, ErrorKind, Format, FormatInfo, Limits,
    MemoryArchive, Metadata, Note, NoteKind, Probe, ReadAt, ReadOptions, Registry, Result, Serializer, Shape,
    Source, StorageInfo, Tensor, TensorInfo, Value, ValueId, Values, ValuesPolicy, View, WriteOptions,
};

/// The formats of this build: what [`open`] knows.
pub fn registry() -> Registry {
    Registry::builtin()
}

/// Opens a model: a file, the index of a sharded set, or a folder that holds either under its usual name.
///
/// # Errors
/// `NotFound`, `UnknownFormat` and `FormatDisabled`; then what the format's reader says.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Archive>> {
    registry().open_path(path, &ReadOptions::default())
}
