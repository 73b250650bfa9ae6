//! What every transform of an archive is made of: an inner archive, and what differs from it.

use std::path::PathBuf;

use crate::archive::{Archive, Note, StorageInfo, no_such_tensor};
use crate::error::{Error, Result};
use crate::tensor::{Data, TensorInfo, View};
use crate::value::Values;

/// An archive whose tensors are some of another's, described anew.
pub(super) struct Layer<'a> {
    pub(super) inner: Box<dyn Archive + 'a>,
    pub(super) infos: Vec<TensorInfo>,
    /// For each tensor its index in the inner archive.
    pub(super) sources: Vec<usize>,
    pub(super) storages: Vec<StorageInfo>,
    /// For each storage its index in the inner archive.
    pub(super) storage_sources: Vec<usize>,
    /// The values, where they are not those of the inner archive.
    pub(super) values: Option<Values>,
    pub(super) notes: Vec<Note>,
}

impl<'a> Layer<'a> {
    /// The tensors `infos`, whose bytes are those of the inner tensors `sources`. Storages that no tensor views
    /// are left out.
    pub(super) fn new(inner: Box<dyn Archive + 'a>, mut infos: Vec<TensorInfo>, sources: Vec<usize>) -> Self {
        let notes = inner.notes().to_vec();
        let mut numbers: Vec<Option<u32>> = vec![None; inner.storages().len()];
        let (mut storages, mut storage_sources) = (Vec::new(), Vec::new());
        for info in &infos {
            let Some(old) = info.view().map(|v| v.storage as usize) else { continue };
            if let (Some(number), Some(storage)) = (numbers.get_mut(old), inner.storages().get(old))
                && number.is_none()
            {
                // In the order in which tensors view them; there are no more than the inner archive numbers.
                *number = Some(storages.len() as u32);
                storages.push(storage.clone());
                storage_sources.push(old);
            }
        }
        for info in &mut infos {
            let Some(view) = info.view() else { continue };
            let number = numbers.get(view.storage as usize).copied().flatten();
            if number != Some(view.storage) {
                let view = number.map(|storage| View { storage, ..view.clone() });
                let plain = info.clone().without_view();
                *info = match view {
                    Some(view) => plain.with_view(view),
                    None => plain,
                };
            }
        }
        Self { inner, infos, sources, storages, storage_sources, values: None, notes }
    }

    /// The inner archive's tensors, all of them.
    pub(super) fn all(inner: &dyn Archive) -> (Vec<TensorInfo>, Vec<usize>) {
        (inner.tensors().to_vec(), (0..inner.tensors().len()).collect())
    }

    pub(super) fn data(&self, index: usize) -> Result<Data<'_>> {
        let source = self.sources.get(index).ok_or_else(|| no_such_tensor(index))?;
        self.inner.data(*source)
    }

    pub(super) fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        let missing = || Error::not_found(format!("there is no storage number {index}"));
        self.inner.storage_data(*self.storage_sources.get(index).ok_or_else(missing)?)
    }

    pub(super) fn values(&self) -> Option<&Values> {
        self.values.as_ref().or_else(|| self.inner.values())
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.inner.files()
    }
}

/// Implements [`Archive`] for a struct with a field `layer`; `@rest` all of it but `data` and `storage_data`.
macro_rules! archive_of_layer {
    ($name:ident) => {
        impl Archive for $name<'_> {
            fn data(&self, index: usize) -> Result<Data<'_>> {
                self.layer.data(index)
            }

            fn storage_data(&self, index: usize) -> Result<Data<'_>> {
                self.layer.storage_data(index)
            }

            $crate::transform::layer::archive_of_layer!(@rest);
        }
    };
    (@rest) => {
        fn format(&self) -> &'static str {
            self.layer.inner.format()
        }

        fn variety(&self) -> String {
            self.layer.inner.variety()
        }

        fn tensors(&self) -> &[$crate::TensorInfo] {
            &self.layer.infos
        }

        fn storages(&self) -> &[$crate::StorageInfo] {
            &self.layer.storages
        }

        fn metadata(&self) -> &[(String, String)] {
            self.layer.inner.metadata()
        }

        fn values(&self) -> Option<&$crate::Values> {
            self.layer.values()
        }

        fn notes(&self) -> &[$crate::Note] {
            &self.layer.notes
        }

        fn files(&self) -> Vec<std::path::PathBuf> {
            self.layer.files()
        }
    };
}
pub(super) use archive_of_layer;
