//! joblib's dumps: a pickle in which the bytes of each NumPy array stand behind the object that describes it, plain
//! or compressed as a whole. scikit-learn's models are such files, and BERTopic's.
//!
//! The machine is [`crate::pickle`](mod@crate::pickle)'s, which stops where an array begins (`wrapper`); what arrays
//! of every kind become is the pickle backend's. `docs/formats/joblib.md` says what is read.

#[cfg(feature = "joblib")]
mod read;
#[cfg(all(test, feature = "joblib"))]
mod tests;
#[cfg(feature = "joblib")]
mod unpack;
#[cfg(feature = "joblib")]
mod wrapper;
#[cfg(feature = "joblib")]
mod xz;

#[cfg(feature = "joblib")]
pub use read::JoblibReader;
#[cfg(feature = "joblib")]
pub(super) use read::{open_as, salvage};

use crate::traits::FormatInfo;

/// The row of the table.
pub static INFO: FormatInfo = FormatInfo {
    id: "joblib",
    name: "joblib dump",
    extensions: &["joblib"],
    index_name: None,
    default_name: Some("model.joblib"),
    feature: "joblib",
    holds_sharing: false,
    holds_values: true,
    reads: true,
    writes: false,
    about: "scikit-learn's and BERTopic's models, plain or compressed, read as data with every array; not written",
};
