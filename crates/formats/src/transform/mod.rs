//! Transforms: readers that wrap readers, and archives that wrap archives. Nothing is materialised; each chunk is
//! made when somebody reads it.

mod kernels;
mod strided;
mod swap;

pub use kernels::{CastKernel, CastStats, Overflow, Refused};
pub use strided::Strided;
pub use swap::{SwapBytes, Window};
