//! The record of what a model is made of: `weighbridge.json`, made of files and held against them.
//!
//! A [`Manifest`] has each file's size, SHA-256 and BLAKE3, each tensor's hash and the logical hash of the model. It is
//! [made](fn@hash) of what is on disk, [verified](fn@verify) against it, and what differs is [repaired](fn@repair) from a good copy,
//! of which only that is read.

mod cache;
mod checked;
pub mod files;
mod hashes;
mod listing;
mod record;
mod repair;
mod text;
mod verify;

pub use checked::Checked;
pub use files::{Cache, DigestOptions, FileDigest, IN_PASS, digest_files};
pub use hashes::{FileHashes, HashOptions, Hashes, hash, hash_files};
pub use record::{
    Covers, FileEntry, LONGEST, Manifest, ModelEntry, NAME, Provenance, SUFFIX, TensorEntry, manifest_path,
};
pub use repair::{Repair, RepairedFile, repair};
pub use verify::{
    Change, ChangedTensor, Difference, Recorded, TensorChanges, Verification, VerifyOptions, verify,
    verify_tensors,
};
