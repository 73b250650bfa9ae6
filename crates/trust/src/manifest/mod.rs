//! The record of what a model is made of.

mod cache;
// Parts of files are hashed for the manifest.
#[allow(dead_code)]
pub mod files;
mod text;
