//! Trust: nothing that a model file says is believed, and nothing that was saved is lost.
//!
//! - [`scan`](mod@scan) says what a file would do if something loaded it, by what its streams construct.
//! - [`manifest`] records what a model is made of, and holds the model against the record.
//! - [`sign`] signs models and verifies them, in the form of OpenSSF model signing.
//! - [`encrypt`] keeps models in age files, of which one tensor can be read without the rest.

#[cfg(feature = "encrypt")]
pub mod encrypt;
#[cfg(any(feature = "encrypt", feature = "sign"))]
mod keyfile;
#[cfg(any(feature = "encrypt", feature = "manifest"))]
mod look;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "scan")]
pub mod scan;
#[cfg(feature = "sign")]
pub mod sign;
