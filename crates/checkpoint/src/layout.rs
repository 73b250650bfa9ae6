//! The names in a folder of checkpoints, and in one checkpoint.
//!
//! ```text
//! runs/                               the root: what a manager saves into
//!   .weighbridge.lock                 held while names in the root change
//!   .NAME.RANDOM.tmp/                 a checkpoint that is being written, locked by who writes it
//!   .NAME.RANDOM.trash/               one that is being deleted
//!   checkpoint_epoch10_step1000/
//!     model.safetensors               the weights; or shards with their index
//!     optimizer.safetensors           the optimizer's tensors, and what is no tensor beside them
//!     scheduler.json, random.json, extra.json, training.log
//!     checkpoint.json                 the manifest, which marks the checkpoint complete
//! ```

/// The manifest, written last.
pub(crate) const MANIFEST: &str = "checkpoint.json";
/// The weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The optimizer's state.
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
/// The learning-rate scheduler's state.
pub(crate) const SCHEDULER: &str = "scheduler.json";
/// The random state.
pub(crate) const RANDOM: &str = "random.json";
/// Whatever else the caller gave.
pub(crate) const EXTRA: &str = "extra.json";
/// The training log up to this checkpoint.
pub(crate) const LOG: &str = "training.log";
/// The lock of a root.
pub(crate) const LOCK: &str = ".weighbridge.lock";
/// How the name of a checkpoint that is being written ends.
pub(crate) const TEMPORARY: &str = ".tmp";
/// How the name of a checkpoint that is being deleted ends.
pub(crate) const TRASH: &str = ".trash";

/// `checkpoint_epoch10_step1000`.
pub(crate) fn checkpoint_name(prefix: &str, epoch: u64, step: u64) -> String {
    format!("{prefix}_epoch{epoch}_step{step}")
}

/// The step that a name tells: after `_step`, or after the last `-` as in `checkpoint-500`.
pub(crate) fn step_of(name: &str) -> Option<u64> {
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end).and_then(|d| d.parse().ok())
    };
    match name.rsplit_once("_step") {
        Some((_, rest)) => digits(rest),
        None => name.rsplit_once("checkpoint-").and_then(|(_, rest)| digits(rest)),
    }
}

/// The epoch that a name tells, after `_epoch`.
pub(crate) fn epoch_of(name: &str) -> Option<u64> {
    let (_, rest) = name.rsplit_once("_epoch")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// Whether `name` is one folder's name and nothing more: no separator, no drive, not hidden.
pub(crate) fn is_plain_name(name: &str) -> bool {
    weighbridge_formats::source::is_plain_relative(name) && !name.contains('/') && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_step_and_epoch() {
        let name = checkpoint_name("checkpoint", 10, 1000);
        assert_eq!(name, "checkpoint_epoch10_step1000");
        assert_eq!((epoch_of(&name), step_of(&name)), (Some(10), Some(1000)));
        assert_eq!(step_of("checkpoint_epoch1_step7_r2"), Some(7));
        assert_eq!(step_of("checkpoint-500"), Some(500));
        assert_eq!(step_of("checkpoint-"), None);
        assert_eq!(step_of("runs"), None);
        assert_eq!(step_of("x_step99999999999999999999"), None);
    }

    #[test]
    fn a_name_is_no_path() {
        assert!(is_plain_name("model.safetensors"));
        for bad in ["", "a/b", "../x", "/x", ".hidden", "a\\b"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
