//! Versions of models: a registry folder, changelogs drafted from diffs, model cards.
//!
//! A registry is a folder of folders, readable without this crate:
//!
//! ```text
//! registry/
//!   minilm/                     a model; its name is checked
//!     v1.0.0/                   a version: a model's folder as it was when it was added
//!       config.json
//!       model.safetensors
//!       weighbridge.version.json    its version, the one before it, when and why
//!     v1.1.0/
//!     CHANGELOG.md              an entry for each version, drafted from what changed and then a person's
//!     latest                    a file that says `1.1.0`, the highest release
//!     production                an alias: a file that says `1.0.0`
//!     .lock                     what is locked while something changes
//! ```
//!
//! A version appears with all of its files or not at all, and is not changed afterwards. Aliases are files and no
//! links: they are replaced in one step everywhere, and survive archives, clouds and Windows. `latest` is computed from
//! the versions; its file is there for other tools.
//!
//! ```
//! use weighbridge_versions::{AddOptions, Selector, VersionedModel};
//!
//! # fn main() -> weighbridge_formats::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let trained = dir.path().join("trained");
//! # std::fs::create_dir(&trained).unwrap();
//! # std::fs::write(trained.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
//! let model = VersionedModel::at(dir.path().join("registry/minilm"))?;
//! let mut options = AddOptions::default();
//! options.aliases.push("production".into());
//! let added = model.add(&trained, &options)?;
//! assert_eq!(added.version.to_string(), "1.0.0");
//! assert_eq!(model.resolve(&Selector::parse("production")?)?, added.version);
//! # Ok(())
//! # }
//! ```

mod add;
mod card;
mod changelog;
mod diff;
mod draft;
mod folder;
mod lock;
mod markdown;
mod models;
mod names;
mod record;
#[cfg(test)]
mod testing;
mod time;
mod version;

pub use add::{AddOptions, Added, Choice};
pub use card::{Card, CardOptions, README, card, write_card};
pub use changelog::CHANGELOG;
pub use diff::{
    FilesDiff, JsonDiff, ModelDiff, ModelDiffOptions, Reason, TokenizerDiff, VocabularyDiff, WeightsDiff,
};
pub use models::{Reference, VersionedModel};
pub use names::{check_alias, check_model_name};
pub use record::VersionRecord;
pub use version::{Bump, Selector, Version, parse_version};

/// The file in a model's folder that says its version.
pub const RECORD: &str = "weighbridge.version.json";
/// The name of the highest release.
pub const LATEST: &str = "latest";
