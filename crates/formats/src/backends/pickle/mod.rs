//! Plain pickles: Python values with NumPy arrays among them, as `pickle.dump` writes them.
//!
//! The machine and the encoder are [`crate::pickle`](mod@crate::pickle)'s; here is what NumPy's pickles mean
//! (`numpy`), the reader (`read`) and the writer (`write`). `docs/formats/pickle.md` says what is read and written.

#[cfg(feature = "pickle")]
pub(super) mod archive;
#[cfg(feature = "pickle")]
pub(super) mod dtypes;
#[cfg(feature = "pickle")]
pub(super) mod numpy;
#[cfg(feature = "pickle")]
mod objects;
#[cfg(feature = "pickle")]
pub(super) mod read;
#[cfg(all(feature = "pickle", feature = "joblib"))]
pub mod salvage;
#[cfg(all(test, feature = "pickle"))]
mod tests;
#[cfg(feature = "pickle")]
mod write;

#[cfg(feature = "pickle")]
pub use objects::{NUMPY_GLOBALS, new_object, numpy_dtype, numpy_scalar};
#[cfg(feature = "pickle")]
pub use read::PickleReader;
#[cfg(feature = "pickle")]
pub use write::{PickleWriter, plan_objects};

use crate::traits::FormatInfo;

/// The format's id.
#[cfg(feature = "pickle")]
const ID: &str = "pickle";

/// The row of the table.
pub static INFO: FormatInfo = FormatInfo {
    id: "pickle",
    name: "Python pickle",
    extensions: &["pkl", "pickle"],
    index_name: None,
    default_name: Some("model.pkl"),
    feature: "pickle",
    holds_sharing: false,
    holds_values: true,
    reads: true,
    writes: true,
    about: "plain values and NumPy arrays of every protocol, read as data; written in protocols 2 to 5",
};
