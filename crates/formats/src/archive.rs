//! What a reader yields and a writer takes: tensors in order, metadata, values, and what shares storage.

use std::any::Any;
use std::path::PathBuf;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Data, Tensor, TensorInfo};
use crate::value::Values;

/// The text metadata of a file, in order.
pub type Metadata = Vec<(String, String)>;

/// How much a [`Note`] matters.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    /// Something worth knowing about the input.
    Info,
    /// Something that looks wrong and was read all the same.
    Warning,
    /// Something that is written otherwise than it was, with nothing lost: renamed, flattened, stored twice.
    Changed,
    /// Something that the target cannot hold. An error unless the caller gave leave.
    Lost,
}

impl NoteKind {
    /// The word that a report begins its line with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "note",
            Self::Warning => "warning",
            Self::Changed => "changed",
            Self::Lost => "lost",
        }
    }
}

/// One line of what a reader, transform or writer has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub kind: NoteKind,
    /// The line, a sentence without its full stop.
    pub text: String,
}

impl Note {
    /// Something worth knowing.
    pub fn info(text: impl Into<String>) -> Self {
        Self { kind: NoteKind::Info, text: text.into() }
    }

    /// Something that looks wrong.
    pub fn warning(text: impl Into<String>) -> Self {
        Self { kind: NoteKind::Warning, text: text.into() }
    }

    /// Something that is written otherwise.
    pub fn changed(text: impl Into<String>) -> Self {
        Self { kind: NoteKind::Changed, text: text.into() }
    }

    /// Something that is lost.
    pub fn lost(text: impl Into<String>) -> Self {
        Self { kind: NoteKind::Lost, text: text.into() }
    }
}

/// A run of bytes that tensors share, as the file stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageInfo {
    /// The dtype that the file gives the storage; `None` where it is untyped and only its tensors have one.
    pub dtype: Option<DType>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a file holds beside tensors, metadata and values, in the form of its own format: the graph of an ONNX model.
///
/// Only the writer of that format takes it back; no other looks inside. A transform that renames tensors, leaves some
/// out or changes them would make it untrue, so none passes it on.
pub trait Companion: Any + Send + Sync {
    /// The id of the format whose writer takes it.
    fn format(&self) -> &'static str;

    /// Whether it says no more than tensors and metadata say, so that nothing is lost without it.
    fn is_plain(&self) -> bool;

    /// What it is, in a few words: `a graph of 120 nodes`.
    fn summary(&self) -> String;

    /// Facts about it for people: a word and a text each, in order.
    fn details(&self) -> Vec<(String, String)>;

    /// Whether another of the same format says the same.
    fn same_as(&self, other: &dyn Companion) -> bool;
}

/// An opened model file, or anything that looks like one.
///
/// Everything but [`Archive::data`] and [`Archive::storage_data`] is known from the header: asking costs no
/// reading. An archive is immutable and may be read from many threads.
pub trait Archive: Send + Sync {
    /// The id of the format, such as `safetensors`.
    fn format(&self) -> &'static str;

    /// The version and variety in words, such as `zip container, version 3`.
    fn variety(&self) -> String;

    /// The tensors, in the order of the file.
    fn tensors(&self) -> &[TensorInfo];

    /// A tensor's bytes: contiguous in row-major order, little-endian.
    ///
    /// # Errors
    /// `NotFound` for an index past the end; what the source says.
    fn data(&self, index: usize) -> Result<Data<'_>>;

    /// The storages that [`TensorInfo::view`] refers to; empty where no two tensors can share one.
    fn storages(&self) -> &[StorageInfo] {
        &[]
    }

    /// A storage's bytes, little-endian.
    ///
    /// # Errors
    /// As [`Archive::data`].
    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        Err(Error::not_found(format!("storage {index}: this archive has none")))
    }

    /// The text metadata.
    fn metadata(&self) -> &[(String, String)] {
        &[]
    }

    /// The values around the tensors, whose [`Value::Tensor`](crate::Value::Tensor) are indices into
    /// [`Archive::tensors`]. `None` where the file is nothing but named tensors.
    fn values(&self) -> Option<&Values> {
        None
    }

    /// What the reader has to say.
    fn notes(&self) -> &[Note] {
        &[]
    }

    /// What belongs to the tensors in this format and no other; `None` for most formats, and behind a transform.
    fn companion(&self) -> Option<&dyn Companion> {
        None
    }

    /// The files that this archive reads from, shards included.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// A borrowed archive is one too, so that what wants to own an archive can be given a reference.
impl<A: Archive + ?Sized> Archive for &A {
    fn format(&self) -> &'static str {
        (**self).format()
    }

    fn variety(&self) -> String {
        (**self).variety()
    }

    fn tensors(&self) -> &[TensorInfo] {
        (**self).tensors()
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        (**self).data(index)
    }

    fn storages(&self) -> &[StorageInfo] {
        (**self).storages()
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        (**self).storage_data(index)
    }

    fn metadata(&self) -> &[(String, String)] {
        (**self).metadata()
    }

    fn values(&self) -> Option<&Values> {
        (**self).values()
    }

    fn notes(&self) -> &[Note] {
        (**self).notes()
    }

    fn companion(&self) -> Option<&dyn Companion> {
        (**self).companion()
    }

    fn files(&self) -> Vec<PathBuf> {
        (**self).files()
    }
}

impl dyn Archive + '_ {
    /// The tensor of a name, by a walk over all names.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tensors().iter().position(|t| t.name() == name)
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; what the source says.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let index = self
            .position(name)
            .ok_or_else(|| Error::not_found("no tensor of that name").with_tensor(name))?;
        Ok(Tensor { info: self.tensors()[index].clone(), data: self.data(index)? })
    }

    /// The number of elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().fold(0, |n, t| n.saturating_add(t.elements()))
    }

    /// The bytes of all tensors, each counted in full even where they share storage.
    pub fn bytes(&self) -> u64 {
        self.tensors().iter().fold(0, |n, t| n.saturating_add(t.bytes()))
    }
}

impl std::fmt::Debug for dyn Archive + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({}, {} tensors)", self.format(), self.tensors().len())
    }
}

/// The error for an index past the end.
pub(crate) fn no_such_tensor(index: usize) -> Error {
    Error::not_found(format!("there is no tensor number {index}"))
}

/// An archive over tensors that the caller has in memory, or anywhere else.
#[derive(Default)]
pub struct MemoryArchive<'a> {
    infos: Vec<TensorInfo>,
    data: Vec<Data<'a>>,
    metadata: Metadata,
    values: Option<Values>,
}

impl<'a> MemoryArchive<'a> {
    /// An archive of these tensors.
    ///
    /// # Errors
    /// `InvalidOptions` if two have the same name.
    pub fn new(tensors: impl IntoIterator<Item = Tensor<'a>>) -> Result<Self> {
        let (infos, data): (Vec<_>, Vec<_>) = tensors.into_iter().map(|t| (t.info, t.data)).unzip();
        let mut names = std::collections::HashSet::with_capacity(infos.len());
        if let Some(twice) = infos.iter().find(|t| !names.insert(t.name())) {
            return Err(Error::invalid_options("two tensors have the same name").with_tensor(twice.name()));
        }
        Ok(Self { infos, data, metadata: Metadata::new(), values: None })
    }

    /// Adds text metadata.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Adds values; their tensors are indices in the order given to [`MemoryArchive::new`].
    pub fn with_values(mut self, values: Values) -> Self {
        self.values = Some(values);
        self
    }
}

impl Archive for MemoryArchive<'_> {
    fn format(&self) -> &'static str {
        "memory"
    }

    fn variety(&self) -> String {
        "tensors in memory".into()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        self.data.get(index).cloned().ok_or_else(|| no_such_tensor(index))
    }

    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }
}
