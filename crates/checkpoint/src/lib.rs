//! Training checkpoints that survive a crash: names, rotation, resume, background saves.
//!
//! A [`CheckpointManager`] saves a [`State`] into a folder of checkpoints. Each is a folder with the weights and the
//! optimizer's state in safetensors, small states as JSON, the training log, and a manifest with the size and
//! checksum of every file. It is written under another name and renamed when it is complete, so that a kill at any
//! moment leaves it whole or absent. [`resume`] takes the newest that verifies, every byte of it read, and says which
//! newer ones do not and why. Rotation deletes only after the new checkpoint was read back, never the last good one,
//! and so that a kill leaves no part of a deleted one visible.
//!
//! The checksum is CRC-32, which the write engine computes while the bytes pass through it; a second pass would read
//! everything again. Damage is what it is there to find: a manifest is no signature. Where content decides what is
//! written ([`Builder::incremental`]) the hash is BLAKE3, which cannot be made to collide.
//!
//! [`Checkpoint`] reads these folders, torch files with the state dicts of model and optimizer, Lightning's `.ckpt`
//! and Trainer's folders alike, and [`write_torch`] writes a file that `torch.load` and `load_state_dict` resume from.

mod background;
mod bundle;
mod checkpoint;
mod foreign;
mod json;
mod layout;
mod list;
mod manager;
mod manifest;
mod optimizer;
mod retention;
mod save;
mod snapshot;
mod stage;
mod state;
mod sums;
mod verify;
mod writer;

pub use background::{Background, WhenFull};
pub use checkpoint::{Checkpoint, Kind};
pub use list::{Found, Resume, Skipped, list, resume};
pub use manager::{Builder, CheckpointManager};
pub use manifest::{FileEntry, Manifest};
pub use optimizer::{OptimizerState, OptimizerView, ParamState};
pub use retention::{Goal, Pruned, Retention, prune};
pub use save::Saved;
pub use stage::clean;
pub use state::{State, TorchKeys, write_torch};
