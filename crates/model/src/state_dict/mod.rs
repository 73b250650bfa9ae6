//! State dicts: a program's own tensors by dotted name, saved to and loaded from any format.
//!
//! Whatever holds tensors says their names, dtypes and shapes ([`StateDict::tensors`]) and takes new numbers for
//! them ([`StateDict::assign`]). From that come an archive that borrows the memory, for every writer; what a file
//! must hold ([`expected`]); and loading that compares before it changes anything ([`load`]).
//!
//! ```
//! use std::collections::BTreeMap;
//! use weighbridge_model::state_dict::{LoadOptions, OwnedTensor, archive, load};
//!
//! # fn main() -> weighbridge_formats::Result<()> {
//! let mut model = BTreeMap::from([("layer.weight".to_owned(), OwnedTensor::from_slice([2, 2], &[1f32, 2.0, 3.0, 4.0])?)]);
//! let saved = BTreeMap::from([("layer.weight".to_owned(), OwnedTensor::from_slice([2, 2], &[5f32, 6.0, 7.0, 8.0])?)]);
//!
//! // `archive(&saved)` goes to any writer; here it is loaded from at once.
//! let report = load(&mut model, &archive(&saved)?, &LoadOptions::default())?;
//! assert_eq!(report.matched, ["layer.weight"]);
//! assert_eq!(model["layer.weight"].to_vec::<f32>()?, [5.0, 6.0, 7.0, 8.0]);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "candle")]
mod candle;
mod containers;
mod element;
mod load;
#[cfg(feature = "ndarray")]
mod ndarray;
mod owned;
#[cfg(feature = "tch")]
pub mod tch;

pub use element::Element;
pub use load::{LoadOptions, archive, expected, load};
pub use owned::{OwnedTensor, read_all};

// The derived code names these.
#[doc(no_inline)]
pub use weighbridge_formats::{Result, Tensor};
#[cfg(feature = "derive")]
pub use weighbridge_model_derive::StateDict;

use weighbridge_formats::{Data, TensorInfo};

/// A program's tensors by dotted name.
///
/// Implementations hand each tensor out under `prefix` joined with a name of their own ([`join`]); a single
/// tensor takes `prefix` itself as its name.
pub trait StateDict {
    /// Hands out every tensor, in an order that is always the same.
    ///
    /// # Errors
    /// Those of `visit`, and whatever keeps a tensor from being read.
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()>;

    /// Asks `source` for each tensor and takes the numbers that it gives. Where it gives none, a tensor stays as
    /// it is.
    ///
    /// # Errors
    /// Those of the source, and of reading what it gives.
    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()>;
}

/// Where [`StateDict::assign`] takes numbers from.
pub trait TensorSource {
    /// The bytes of the tensor of this name, in exactly this dtype and shape, little-endian; `None` where there
    /// is none.
    ///
    /// # Errors
    /// Those of the archive behind it.
    fn find(&self, wanted: &TensorInfo) -> Result<Option<Data<'_>>>;
}

/// `prefix.name`, or the one of the two that is not empty.
pub fn join(prefix: &str, name: &str) -> String {
    match (prefix.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}.{name}"),
    }
}
