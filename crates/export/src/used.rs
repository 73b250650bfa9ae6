//! The tensors of an archive that a graph refers to, and those that are made of others.

use std::path::PathBuf;
use std::sync::Arc;

use weighbridge_formats::transform::Cast;
use weighbridge_formats::{Archive, Data, Error, Note, Result, TensorInfo};

use crate::quantize::Derived;

/// Some of the tensors of a cast archive, each for itself, and narrow forms of others.
pub(crate) struct Used<'a> {
    archive: Arc<Cast<'a>>,
    indices: Vec<usize>,
    derived: Vec<Derived>,
    infos: Vec<TensorInfo>,
}

impl<'a> Used<'a> {
    /// The tensors of these indices, in the order given, and then those that are made of tensors.
    pub(crate) fn new(archive: Arc<Cast<'a>>, indices: Vec<usize>, derived: Vec<Derived>) -> Self {
        let own = indices.iter().map(|&i| archive.tensors()[i].clone().without_view());
        let infos = own.chain(derived.iter().map(|d| d.info.clone())).collect();
        Self { archive, indices, derived, infos }
    }
}

impl Archive for Used<'_> {
    fn format(&self) -> &'static str {
        self.archive.format()
    }

    fn variety(&self) -> String {
        self.archive.variety()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        if let Some(&at) = self.indices.get(index) {
            return self.archive.data(at);
        }
        match self.derived.get(index - self.indices.len()) {
            Some(derived) => derived.data(&*self.archive),
            None => Err(Error::not_found(format!("there is no tensor number {index}"))),
        }
    }

    fn notes(&self) -> &[Note] {
        self.archive.notes()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.archive.files()
    }
}
