//! The tensors of an archive that a graph refers to.

use std::path::PathBuf;
use std::sync::Arc;

use weighbridge_formats::transform::Cast;
use weighbridge_formats::{Archive, Data, Error, Note, Result, TensorInfo};

/// Some of the tensors of a cast archive, each for itself.
pub(crate) struct Used<'a> {
    archive: Arc<Cast<'a>>,
    indices: Vec<usize>,
    infos: Vec<TensorInfo>,
}

impl<'a> Used<'a> {
    /// The tensors of these indices, in the order given.
    pub(crate) fn new(archive: Arc<Cast<'a>>, indices: Vec<usize>) -> Self {
        let infos = indices.iter().map(|&i| archive.tensors()[i].clone().without_view()).collect();
        Self { archive, indices, infos }
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
        let at = self.indices.get(index);
        let at = at.ok_or_else(|| Error::not_found(format!("there is no tensor number {index}")))?;
        self.archive.data(*at)
    }

    fn notes(&self) -> &[Note] {
        self.archive.notes()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.archive.files()
    }
}
