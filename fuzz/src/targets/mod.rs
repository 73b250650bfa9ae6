//! The targets: each a function of any bytes, which the fuzzer and the short run of the tests call.

pub mod archives;
pub mod bertopic;
pub mod bundle;
pub mod checkpoint;
pub mod config;
pub mod configs;
pub mod encrypted;
pub mod evaluate;
pub mod hdf5;
pub mod joblib;
pub mod manifest;
pub mod onnx;
pub mod open;
pub mod pickle;
pub mod rewrite;
pub mod safetensors;
pub mod scan;
pub mod shard_index;
pub mod sniff;
pub mod tokenizer;
pub mod torch;
pub mod values_json;
pub mod versions;
pub mod write_plan;

/// A target: it panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its file in `fuzz_targets` and of its folder in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("archives", archives::run),
    ("bertopic", bertopic::run),
    ("bundle", bundle::run),
    ("checkpoint", checkpoint::run),
    ("config", config::run),
    ("configs", configs::run),
    ("encrypted", encrypted::run),
    ("evaluate", evaluate::run),
    ("hdf5", hdf5::run),
    ("joblib", joblib::run),
    ("manifest", manifest::run),
    ("onnx", onnx::run),
    ("open", open::run),
    ("pickle", pickle::run),
    ("rewrite", rewrite::run),
    ("safetensors", safetensors::run),
    ("scan", scan::run),
    ("shard_index", shard_index::run),
    ("sniff", sniff::run),
    ("tokenizer", tokenizer::run),
    ("torch", torch::run),
    ("values_json", values_json::run),
    ("versions", versions::run),
    ("write_plan", write_plan::run),
];
