//! The two traits that a format implements, and what their callers can choose.
//!
//! serde has traits of the same names; where both are in scope, say `formats::Serializer`.

use crate::archive::{Archive, Metadata};
use crate::error::Result;
use crate::limits::Limits;
use crate::probe::{Confidence, Probe};
use crate::source::Source;
use crate::write::WritePlan;

/// What a format is and what it can hold: a row of the table that `weighbridge formats` prints.
#[non_exhaustive]
#[derive(Debug)]
pub struct FormatInfo {
    /// The short name in options and reports.
    pub id: &'static str,
    /// The name for people.
    pub name: &'static str,
    /// Extensions without the dot, the usual one first.
    pub extensions: &'static [&'static str],
    /// The name of a sharded set's index file, where the format has such sets.
    pub index_name: Option<&'static str>,
    /// The usual name of a model's weights in a folder.
    pub default_name: Option<&'static str>,
    /// The cargo feature that compiles it in.
    pub feature: &'static str,
    /// Whether several tensors can share one storage.
    pub holds_sharing: bool,
    /// Whether it holds values that are no tensors, nested as they are.
    pub holds_values: bool,
    /// Whether a reader is here in some build.
    pub reads: bool,
    /// Whether a writer is here in some build.
    pub writes: bool,
    /// One sentence on what is read and written.
    pub about: &'static str,
}

impl FormatInfo {
    /// A format that neither reads nor writes yet; set the other fields on it, in a `const` block for a static.
    pub const fn new(id: &'static str, name: &'static str) -> Self {
        Self {
            id,
            name,
            extensions: &[],
            index_name: None,
            default_name: None,
            feature: "",
            holds_sharing: false,
            holds_values: false,
            reads: false,
            writes: false,
            about: "",
        }
    }
}

/// Choices for opening a file.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Bounds on what the file may cause.
    pub limits: Limits,
}

/// What to do with values that are no tensors where the target has no place for them.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValuesPolicy {
    /// Keep them, in a form that reading restores (safetensors: a metadata entry); an error where that is
    /// impossible.
    #[default]
    Keep,
    /// Leave them out, and say so. What remains is tensors under their dotted names.
    Drop,
}

/// Choices for writing a file.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The name of the file to be, without its folder; a sharded set's names derive from it.
    pub file_name: String,
    /// The most bytes of tensors in one file; more make a sharded set.
    pub max_shard_size: Option<u64>,
    /// What to do with values that are no tensors.
    pub values: ValuesPolicy,
    /// Leave to lose what the format cannot hold; each loss is a note all the same.
    pub allow_loss: bool,
    /// Whether tensors are put into a file beside the model (ONNX); `None` decides by size.
    pub external_data: Option<bool>,
    /// Text metadata to add, over what the archive has.
    pub metadata: Metadata,
    /// The pickle protocol, where the format has pickles.
    pub pickle_protocol: Option<u8>,
    /// Bounds, as for reading.
    pub limits: Limits,
}

/// Reads a format.
pub trait Deserializer: Send + Sync {
    /// What the format is.
    fn info(&self) -> &'static FormatInfo;

    /// How sure this reader is that the input is its own. Reads a bounded amount and cannot fail.
    fn sniff(&self, probe: &Probe<'_>) -> Confidence;

    /// Reads the header and hands out an archive.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `LimitExceeded` and `UnsafeContent` for what the file says, `Io` for what the
    /// system says.
    fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>>;
}

/// Writes a format.
pub trait Serializer: Send + Sync {
    /// What the format is.
    fn info(&self) -> &'static FormatInfo;

    /// Lays out the files to the byte, before one is written.
    ///
    /// # Errors
    /// `InvalidOptions` for a loss without leave, `UnsafeContent` for values that would run code where they are
    /// loaded, `Unsupported` for what the format cannot say.
    fn plan<'a>(&self, archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>>;
}
