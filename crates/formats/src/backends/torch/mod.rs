//! PyTorch's own files: what `torch.save` writes and has ever written.
//!
//! - the zip container of torch 1.6 and later, TorchScript archives included (`container`),
//! - the stream of pickles before that (`legacy`), and the tar of 0.1 (`tar`),
//! - the values and tensors that their pickles describe (`rebuild`, `crate::naming`, `archive`),
//! - a writer of the zip container, to the byte as torch lays it out (`write`).
//!
//! No code is run: a pickle is read by [`crate::pickle`], which builds nothing, and `code/` of a TorchScript
//! archive is text that `script` lists on request.

#[cfg(feature = "torch")]
mod archive;
#[cfg(feature = "torch")]
mod container;
#[cfg(feature = "torch")]
mod dtypes;
#[cfg(feature = "torch")]
mod emit;
#[cfg(feature = "torch")]
mod layout;
#[cfg(feature = "torch")]
mod lazy;
#[cfg(feature = "torch")]
mod legacy;
#[cfg(feature = "torch")]
mod read;
#[cfg(feature = "torch")]
mod rebuild;
#[cfg(feature = "torch")]
pub mod salvage;
#[cfg(feature = "torch")]
pub mod script;
#[cfg(feature = "torch")]
mod tar;
#[cfg(feature = "torch")]
mod write;

use crate::traits::FormatInfo;

#[cfg(feature = "torch")]
pub use read::TorchReader;
#[cfg(feature = "torch")]
pub use write::TorchWriter;

/// The format's id.
pub(crate) const ID: &str = "torch";

/// The row of the table.
pub(crate) static INFO: FormatInfo = FormatInfo {
    id: ID,
    name: "PyTorch",
    extensions: &["bin", "pt", "pth", "ckpt"],
    index_name: Some("pytorch_model.bin.index.json"),
    default_name: Some("pytorch_model.bin"),
    feature: "torch",
    holds_sharing: true,
    holds_values: true,
    reads: true,
    writes: true,
    about: "torch.save files: zip, legacy stream and tar, TorchScript weights, whole modules; written as zip",
};
