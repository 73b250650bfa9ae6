//! Sharded sets: several files that an index makes one model, whatever their format.

mod archive;
mod index;
mod split;

pub(crate) use archive::open;
pub(crate) use index::{ShardIndex, is_index};
pub(crate) use split::{Split, shard_names};

/// The entry of an index's metadata that keeps values which are no tensors; in a single safetensors file it is
/// an entry of the header's metadata.
pub(crate) const VALUES_KEY: &str = "weighbridge.values";

/// The most bytes that values may take in that entry.
pub(crate) const MAX_VALUES: usize = 32 << 20;
