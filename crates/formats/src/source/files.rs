//! Files that lie beside each other somewhere else than in a folder of the system: the members of a container.

use std::sync::Arc;

use super::{ReadAt, Source, is_plain_relative};
use crate::error::{Error, Result};

/// The files of a container, found by their names below its root, with `/` between folders.
///
/// A source made of one ([`Source::inside`]) finds its shards and external data here and never in the file system.
pub trait Files: Send + Sync {
    /// The path of the container, which names of members are told behind.
    fn container(&self) -> &std::path::Path;

    /// The names of all files, in order.
    fn names(&self) -> Vec<&str>;

    /// A file by its name; `None` where there is none.
    ///
    /// # Errors
    /// What opening it says.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn ReadAt>>>;
}

/// Where a source lies in a container.
#[derive(Clone)]
pub(super) struct Inside {
    files: Arc<dyn Files>,
    name: Arc<str>,
}

impl Source {
    /// Opens a file of a container. Its path, for messages, is the container's with the name behind it.
    ///
    /// # Errors
    /// `NotFound` where there is none of that name; what opening it says.
    pub fn inside(files: &Arc<dyn Files>, name: &str) -> Result<Self> {
        let path = files.container().join(name);
        let Some(reader) = files.open(name).map_err(|e| e.with_path(&path))? else {
            return Err(Error::not_found("the container has no such file").with_path(path));
        };
        let inside = Inside { files: files.clone(), name: name.into() };
        Ok(Self { path: Some(path), reader, inside: Some(inside) })
    }
}

impl Inside {
    /// A file beside this one.
    pub(super) fn sibling(&self, name: &str) -> Result<Source> {
        if !is_plain_relative(name) {
            return Err(Error::unsafe_content(format!("{name:?} is no plain relative name"))
                .with_path(self.files.container().join(&*self.name))
                .with_hint("a model's parts must lie in its own folder; do not trust this file"));
        }
        match self.name.rsplit_once('/') {
            Some((folder, _)) => Source::inside(&self.files, &format!("{folder}/{name}")),
            None => Source::inside(&self.files, name),
        }
    }
}
