//! Transforms: readers that wrap readers, and archives that wrap archives. Nothing is materialised; each chunk is
//! made when somebody reads it.

mod strided;
mod swap;

pub use strided::Strided;
pub use swap::{SwapBytes, Window};
