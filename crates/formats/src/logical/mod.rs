//! The logical hash: the same for the same tensors, whatever file they stand in.
//!
//! It depends on the names, dtypes, shapes and values of the tensors, and on nothing else: not on the format, the order,
//! the sharding, the alignment or the metadata. So that anyone can compute it:
//!
//! - The *data digest* of a tensor is plain BLAKE3 (32 bytes) of its elements: contiguous, row-major, little-endian; types
//!   below a byte packed, the first element in the lowest bits, the last byte filled with zeros.
//! - The *tensor hash* is BLAKE3 in derive-key mode, context `weighbridge logical hash 1: tensor`, of: the length of the
//!   name in UTF-8 (u64), the name, the length of the dtype's name (u64), that name ([`DType::name`](crate::DType::name),
//!   such as `BF16`), the number of dimensions (u64), each dimension (u64), the data digest. Numbers are little-endian.
//! - The *logical hash* of a model is BLAKE3 in derive-key mode, context `weighbridge logical hash 1: model`, of the
//!   number of tensors (u64) and the tensor hashes, in the order of the names' bytes.
//!
//! A tensor that changed is hashed again, and the model's hash made anew of 32 bytes a tensor.

mod archive;
mod plan;
mod tree;

pub use archive::{hash_archive, hash_tensors};
pub use plan::push_logical_hash;
pub(crate) use tree::join;
pub use tree::{Digest, Joiner, Piece};

use crate::tensor::TensorInfo;

const TENSOR: &str = "weighbridge logical hash 1: tensor";
const MODEL: &str = "weighbridge logical hash 1: model";

/// The hash of a tensor, from what it is and the BLAKE3 of its bytes.
pub fn tensor_hash(info: &TensorInfo, data: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(TENSOR);
    for text in [info.name(), info.dtype().name()] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.update(&(info.shape().len() as u64).to_le_bytes());
    for dim in info.shape() {
        hasher.update(&dim.to_le_bytes());
    }
    hasher.update(data).finalize().into()
}

/// The hash of a model, from the names and hashes of its tensors in any order.
pub fn model_hash<'n>(tensors: impl IntoIterator<Item = (&'n str, Digest)>) -> Digest {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key(MODEL);
    hasher.update(&(tensors.len() as u64).to_le_bytes());
    for (_, hash) in &tensors {
        hasher.update(hash);
    }
    hasher.finalize().into()
}

/// A digest in 64 hexadecimal digits.
pub fn hex(digest: &Digest) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}
