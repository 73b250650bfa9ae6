//! safetensors: a length, a JSON header, and the tensors' bytes without gaps.
//!
//! The layout is that of the reference implementation, the `safetensors` crate 0.8, and so is what is refused;
//! what this reader refuses beyond it is said in `header`.

#[cfg(feature = "safetensors")]
mod header;
#[cfg(feature = "safetensors")]
mod read;
#[cfg(feature = "safetensors")]
mod write;

#[cfg(feature = "safetensors")]
pub use read::SafetensorsReader;
#[cfg(feature = "safetensors")]
pub use write::SafetensorsWriter;

use crate::traits::FormatInfo;

/// What the format is.
pub static INFO: FormatInfo = FormatInfo {
    id: "safetensors",
    name: "safetensors",
    extensions: &["safetensors"],
    index_name: Some("model.safetensors.index.json"),
    default_name: Some("model.safetensors"),
    feature: "safetensors",
    holds_sharing: false,
    holds_values: false,
    reads: true,
    writes: true,
    about: "reads and writes every dtype of the reference, metadata and sharded sets",
};

/// The longest header that the reference reads, in bytes.
#[cfg(feature = "safetensors")]
const MAX_HEADER: u64 = 100_000_000;
