//! Save, load, convert and compare machine-learning models in the formats that people use, without Python and
//! without running what a file says.
//!
//! A file becomes an [`Archive`]: tensors in order, whose bytes are read only when asked for, text metadata, and
//! the values that are no tensors. What can be opened can be written in any other format.
//!
//! ```
//! use weighbridge::{Archive, DType, Data, MemoryArchive, Tensor};
//!
//! # fn main() -> weighbridge::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("weighbridge-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! let path = folder.join("model.safetensors");
//!
//! // Two rows of three numbers, saved under a name.
//! let numbers: Vec<u8> = [0.5f32, 1.0, 1.5, 2.0, 2.5, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let weight = Tensor::new("layer.weight", DType::F32, [2, 3].as_slice(), Data::Borrowed(&numbers))?;
//! weighbridge::save(&path, &MemoryArchive::new([weight])?)?;
//!
//! // Opening reads the header only.
//! let model = weighbridge::open(&path)?;
//! assert_eq!(model.format(), "safetensors");
//! let weight = model.tensor("layer.weight")?;
//! assert_eq!(weight.info.shape(), [2, 3]);
//! assert_eq!(weight.data.read_all()?, numbers);
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! One feature a format: `safetensors`, `torch`, `pickle`, `joblib`, `onnx`; `all-formats` is all of them. `pickle-serde` adds any
//! type with serde as a pickle. `parallel` lets a write
//! use several threads, `mmap` adds opening by memory map. `model` adds [`model`], whole directories with config and
//! tokenizer; with it `tokenizers` encodes, and `derive`, `ndarray`, `candle` and `tch` save and load a program's own
//! tensors (`model::state_dict`); `runtime` runs ONNX models, and `ort` runs them by ONNX Runtime; `bertopic`, `checkpoint` and `versions` add the modules of these names; `scan`, `manifest`, `sign` and `encrypt` are the parts of `trust`. The default is `safetensors`,
//! `torch`, `parallel`, `model`.

use std::path::Path;

use weighbridge_formats as formats;

#[cfg(feature = "onnx")]
pub use formats::backends::onnx;
#[cfg(feature = "torch")]
pub use formats::backends::torch::script as torchscript;
pub use formats::logical;
#[cfg(feature = "pickle")]
pub use formats::pickle;
pub use formats::transform::{self, CastStats, KeptWide, OnOverflow, Precision, TensorCast};
pub use formats::value;
pub use formats::words;
pub use formats::write;
pub use formats::{
    Archive, Companion, Confidence, ConvertOptions, ConvertReport, DType, Data, Deserializer, DiffOptions,
    DiffReport, Error, ErrorKind, Format, FormatInfo, Limits, MemoryArchive, Metadata, Note, NoteKind, Probe,
    ReadAt, ReadOptions, Registry, Result, Serializer, Shape, Source, StorageInfo, Tensor, TensorDiff,
    TensorInfo, Value, ValueDiff, ValueId, Values, ValuesPolicy, View, WriteOptions, diff,
};
pub use write::Observer;

#[cfg(feature = "bertopic")]
pub use weighbridge_bertopic as bertopic;
#[cfg(feature = "checkpoint")]
pub use weighbridge_checkpoint as checkpoint;
#[cfg(feature = "export")]
pub use weighbridge_export as export;
#[cfg(feature = "model")]
pub use weighbridge_model as model;
#[cfg(feature = "runtime")]
pub use weighbridge_runtime as runtime;
#[cfg(any(feature = "manifest", feature = "scan", feature = "encrypt"))]
pub use weighbridge_trust as trust;
#[cfg(feature = "versions")]
pub use weighbridge_versions as versions;

/// The formats of this build: what [`open`], [`save`] and [`convert`] know.
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

/// Writes an archive in the format that the path's name asks for. A file that exists is not replaced; for choices,
/// see [`convert_with`].
///
/// # Errors
/// `InvalidOptions` for a name that asks for no format, for a file that exists, and for what the format cannot
/// hold; `Io` for what the system says. Nothing is half-written.
pub fn save(path: impl AsRef<Path>, archive: &dyn Archive) -> Result<ConvertReport> {
    formats::save(&registry(), archive, path.as_ref(), &ConvertOptions::default())
}

/// As [`save`], with the choices of [`convert_with`].
///
/// # Errors
/// As [`convert_with`].
pub fn save_with(
    path: impl AsRef<Path>,
    archive: &dyn Archive,
    options: &ConvertOptions<'_>,
) -> Result<ConvertReport> {
    formats::save(&registry(), archive, path.as_ref(), options)
}

/// Writes a model in the format that the target's name asks for.
///
/// ```no_run
/// let report = weighbridge::convert("pytorch_model.bin", "model.safetensors")?;
/// for note in &report.notes {
///     println!("{}: {}", note.kind.as_str(), note.text);
/// }
/// # Ok::<(), weighbridge::Error>(())
/// ```
///
/// # Errors
/// As [`open`] and [`save`].
pub fn convert(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<ConvertReport> {
    convert_with(source, target, &ConvertOptions::default())
}

/// Writes a model with choices: format, dtype, which tensors, their names, the size of shards.
///
/// ```no_run
/// use weighbridge::{ConvertOptions, DType, Precision};
///
/// let mut options = ConvertOptions::default();
/// options.precision = Precision::to(DType::Bf16);
/// options.write.max_shard_size = Some(5_000_000_000);
/// weighbridge::convert_with("model.safetensors", "small.safetensors", &options)?;
/// # Ok::<(), weighbridge::Error>(())
/// ```
///
/// # Errors
/// As [`convert`]; `InvalidOptions` for choices that contradict each other or the source.
pub fn convert_with(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &ConvertOptions<'_>,
) -> Result<ConvertReport> {
    formats::convert(&registry(), source.as_ref(), target.as_ref(), options)
}

/// The examples of the README, compiled and run.
#[cfg(all(doctest, feature = "safetensors", feature = "torch"))]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
