//! Transforms: readers that wrap readers, and archives that wrap archives. Nothing is materialised; each chunk is
//! made when somebody reads it.
//!
//! [`Cast`] changes float dtypes, by the policy of a [`Precision`]; [`Select`] and [`Drop`] leave tensors out, [`Rename`] and [`StripPrefix`] change
//! names, [`Contiguous`] and [`SplitShared`] take views apart, [`Untie`] and [`Retie`] names of one tensor. Each
//! owns the archive that it wraps, so they stack.
//! The values around the tensors stay true: indices are those of the new archive, and a tensor's key follows its
//! name.

mod cast;
mod kernels;
mod layer;
mod measure;
mod precision;
mod rename;
mod select;
mod share;
mod strided;
mod swap;
#[cfg(test)]
mod testing;
mod ties;
mod tree;

pub use cast::{Cast, CastOptions, TensorCast, TensorFilter};
pub use kernels::{CastKernel, CastStats, Overflow, Refused};
pub use precision::{KeptWide, OnOverflow, Precision};
pub use rename::{Rename, StripPrefix};
pub use select::{Drop, Select, glob};
pub use share::{Contiguous, SplitShared};
pub use strided::Strided;
pub use swap::{SwapBytes, Window};
pub use ties::{Retie, Tie, Untie, recorded_ties, tied};
