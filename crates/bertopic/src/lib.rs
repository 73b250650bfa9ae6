//! BERTopic's models: directories in all three serializations, read and written without Python.
//!
//! [`load`] takes a directory (safetensors or pytorch) or a pickle of a whole model and makes a [`TopicModel`] of
//! it; [`save`] writes one in any of the three ways, and BERTopic 0.17 loads it. A pickle is read as data: nothing
//! in it is run, and what only Python could build of it (UMAP, HDBSCAN, the embedder) is named and left out.
//!
//! ```no_run
//! use weighbridge_bertopic::{LoadOptions, SaveOptions, load, save};
//!
//! // A pickle becomes a directory that is safe to load.
//! let loaded = load("model.pickle", &LoadOptions::default())?;
//! for note in &loaded.notes {
//!     println!("{}: {}", note.kind.as_str(), note.text);
//! }
//! save(&loaded.model, "model", &SaveOptions::default())?;
//! # Ok::<(), weighbridge_formats::Error>(())
//! ```
//!
//! Source of the facts: what BERTopic 0.17.4 writes and how it loads it.

mod card;
mod check;
mod config;
mod ctfidf;
mod directory;
mod json;
mod model;
mod numbers;
mod pickle;
mod save;
mod topics_json;
mod transform;

pub use card::model_card;
pub use config::{Config, NrTopics};
pub use ctfidf::{Csr, Ctfidf, Vectorizer};
pub use directory::is_directory;
pub use json::{Json, Number};
pub use model::{Aspect, AspectValue, Asset, ByTopic, Embeddings, Term, TopicModel, VISUAL_ASPECT};
pub use pickle::is_pickle;
pub use save::{LoadOptions, Loaded, Pointer, SaveOptions, Saved, Serialization, load, load_archive, save};
pub use transform::{Assignments, Documents};
