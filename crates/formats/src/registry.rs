//! The formats that a program knows: those of this crate, and those it adds.

use std::path::Path;
use std::sync::Arc;

use crate::archive::Archive;
use crate::backends;
use crate::error::{Error, ErrorKind, Result};
use crate::folder;
use crate::probe::{Confidence, Probe};
use crate::shards;
use crate::sniff;
use crate::source::{Files, Source};
use crate::traits::{Deserializer, FormatInfo, ReadOptions, Serializer};

/// A format with what this build can do with it.
#[derive(Clone)]
pub struct Format {
    /// What the format is.
    pub info: &'static FormatInfo,
    /// Whether its feature is on.
    pub compiled: bool,
    reader: Option<Arc<dyn Deserializer>>,
    writer: Option<Arc<dyn Serializer>>,
}

impl Format {
    /// Whether this build reads it.
    pub fn reads(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether this build writes it.
    pub fn writes(&self) -> bool {
        self.writer.is_some()
    }

    fn disabled(&self) -> Error {
        Error::new(ErrorKind::FormatDisabled, format!("this is {}", self.info.name))
            .with_hint(format!("enable the feature `{}`", self.info.feature))
    }
}

/// One line a format: its module in `backends`, its feature, its reader and its writer.
macro_rules! table {
    ($($module:ident $feature:tt $(reads $reader:ident)? $(writes $writer:ident)?;)*) => {
        fn builtin_formats() -> Vec<Format> {
            vec![$({
                #[allow(unused_mut)]
                let mut format =
                    Format { info: &backends::$module::INFO, compiled: false, reader: None, writer: None };
                #[cfg(feature = $feature)]
                {
                    format.compiled = true;
                    $(format.reader = Some(Arc::new(backends::$module::$reader));)?
                    $(format.writer = Some(Arc::new(backends::$module::$writer));)?
                }
                format
            }),*]
        }
    };
}

table! {
    safetensors "safetensors" reads SafetensorsReader writes SafetensorsWriter;
    pickle "pickle" reads PickleReader writes PickleWriter;
    joblib "joblib" reads JoblibReader;
    torch "torch" reads TorchReader writes TorchWriter;
    onnx "onnx" reads OnnxReader writes OnnxWriter;
}

/// The formats that a program knows. A value, never a global: two parts of a program can know different ones.
#[derive(Clone)]
pub struct Registry {
    formats: Vec<Format>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// Every format of this crate, those whose feature is off included.
    pub fn builtin() -> Self {
        Self { formats: builtin_formats() }
    }

    /// No format at all, to register chosen ones.
    pub fn empty() -> Self {
        Self { formats: Vec::new() }
    }

    /// Adds a format, or replaces the one with the same id.
    ///
    /// # Errors
    /// `InvalidOptions` if reader or writer say that they are of another format.
    pub fn register(
        &mut self,
        info: &'static FormatInfo,
        reader: Option<Arc<dyn Deserializer>>,
        writer: Option<Arc<dyn Serializer>>,
    ) -> Result<()> {
        let ids = [reader.as_ref().map(|r| r.info().id), writer.as_ref().map(|w| w.info().id)];
        if let Some(other) = ids.into_iter().flatten().find(|&id| id != info.id) {
            let what = format!("a backend of {other:?} cannot be registered as {:?}", info.id);
            return Err(Error::invalid_options(what));
        }
        let format = Format { info, compiled: true, reader, writer };
        match self.formats.iter_mut().find(|f| f.info.id == info.id) {
            Some(known) => *known = format,
            None => self.formats.push(format),
        }
        Ok(())
    }

    /// Every format, compiled in or not.
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// The format of an id.
    ///
    /// # Errors
    /// `NotFound` if there is none, with the ids that there are.
    pub fn format(&self, id: &str) -> Result<&Format> {
        self.formats.iter().find(|f| f.info.id == id).ok_or_else(|| {
            let known: Vec<_> = self.formats.iter().map(|f| f.info.id).collect();
            Error::not_found(format!("there is no format {id:?}"))
                .with_hint(format!("the formats are {}", known.join(", ")))
        })
    }

    /// The reader of a format.
    ///
    /// # Errors
    /// `NotFound` for an unknown id, `FormatDisabled`, or `Unsupported` if the format is only written.
    pub fn deserializer(&self, id: &str) -> Result<&dyn Deserializer> {
        let format = self.format(id)?;
        match &format.reader {
            Some(reader) => Ok(&**reader),
            None if format.compiled => Err(Error::unsupported(format!("{id} is not read"))),
            None => Err(format.disabled()),
        }
    }

    /// The writer of a format.
    ///
    /// # Errors
    /// As [`Registry::deserializer`].
    pub fn serializer(&self, id: &str) -> Result<&dyn Serializer> {
        let format = self.format(id)?;
        match &format.writer {
            Some(writer) => Ok(&**writer),
            None if format.compiled => Err(Error::unsupported(format!("{id} is not written"))),
            None => Err(format.disabled()),
        }
    }

    /// The format that a file's name asks for, by its extension or as the index of a sharded set.
    pub fn for_extension(&self, file_name: &str) -> Option<&Format> {
        let lower = file_name.to_lowercase();
        let name = lower.strip_suffix(".index.json").unwrap_or(&lower);
        let fits = |e: &&str| name.strip_suffix(*e).is_some_and(|rest| rest.ends_with('.'));
        self.formats.iter().find(|f| f.info.extensions.iter().any(fits))
    }

    /// Which format an input is, and its reader.
    ///
    /// # Errors
    /// `FormatDisabled` and `Unsupported` for a format that this build cannot read, by name; `AmbiguousFormat` if
    /// two readers are equally sure; `UnknownFormat` and `Malformed` for what is no model, saying what it is.
    pub fn detect(&self, source: &Source) -> Result<&dyn Deserializer> {
        self.detect_by(&Probe::new(source)).map_err(|e| located(e, source))
    }

    fn detect_by(&self, probe: &Probe<'_>) -> Result<&dyn Deserializer> {
        let readers = self.formats.iter().filter_map(|f| f.reader.as_deref());
        let asked: Vec<_> = readers.map(|r| (r.sniff(probe), r)).collect();
        let best = asked.iter().map(|(c, _)| *c).max().unwrap_or(Confidence::No);
        if best < Confidence::Certain && sniff::is_truncated_zip(probe) {
            return Err(sniff::non_model(probe).unwrap_or_else(|| unknown(probe)));
        }
        // A format that nothing here reads may fit better than what a reader would make of it.
        if let Some(other) = sniff::recognise(probe).filter(|r| r.confidence > best) {
            match self.formats.iter().find(|f| f.info.id == other.id) {
                Some(format) if !format.compiled => {
                    let named = format!("this is {}", other.name);
                    return Err(Error::new(ErrorKind::FormatDisabled, named)
                        .with_hint(format!("enable the feature `{}`", format.info.feature)));
                }
                // Its reader looked closer than the table of marks did, and is not as sure.
                Some(_) if best > Confidence::No => {}
                _ => {
                    let what = format!("this is {}, which this version does not read", other.name);
                    return Err(Error::unsupported(what));
                }
            }
        }
        if best <= Confidence::Name
            && let Some(error) = sniff::non_model(probe)
        {
            return Err(error);
        }
        let mut fitting = asked.iter().filter(|(c, _)| *c == best && best > Confidence::No).map(|(_, r)| *r);
        match (fitting.next(), fitting.next()) {
            (Some(reader), None) => Ok(reader),
            (Some(a), Some(b)) => {
                let what = format!("this may be {} or {}", a.info().name, b.info().name);
                Err(Error::new(ErrorKind::AmbiguousFormat, what).with_hint("say which format it is"))
            }
            _ => Err(unknown(probe)),
        }
    }

    /// Opens an input in the format that its content shows; the index of a sharded set opens the whole set.
    ///
    /// # Errors
    /// As [`Registry::detect`]; then what the reader says. For a set, `NotFound` with all shards that are missing,
    /// and `Mismatch` where index and shards disagree.
    pub fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        if shards::is_index(&Probe::new(&source)) {
            return shards::open(self, &source, options).map_err(|e| located(e, &source));
        }
        self.open_file(source, options)
    }

    /// Opens a single file, and no index.
    pub(crate) fn open_file(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        let reader = self.detect(&source)?;
        let from = source.clone();
        reader.open(source, options).map_err(|e| located(e.with_format(reader.info().id), &from))
    }

    /// Opens a file, or the weights in a folder.
    ///
    /// Of a folder it opens the first of these that is there, and says so in a note if there was a choice:
    /// `model.safetensors.index.json`, `model.safetensors`, the only `*.safetensors.index.json`, the only
    /// `*.safetensors`, then the same of `pytorch_model.bin`, `*.bin`, with the only `*.pt` or `*.pth` at last, and
    /// then the only file of any other format.
    ///
    /// # Errors
    /// As [`Registry::open`], and what the system says; for a folder, `NotFound` if there are no weights, and
    /// `InvalidOptions` if several files fit equally.
    pub fn open_path(&self, path: impl AsRef<Path>, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        let path = path.as_ref();
        if !path.is_dir() {
            return self.open(Source::open(path)?, options);
        }
        let (file, note) = folder::choose(self, path)?;
        let archive = self.open(Source::open(file)?, options)?;
        Ok(match note {
            Some(note) => Box::new(folder::Noted::new(archive, note)),
            None => archive,
        })
    }

    /// Opens the weights among the files of a container, chosen as [`Registry::open_path`] chooses in a folder.
    ///
    /// # Errors
    /// As [`Registry::open_path`].
    pub fn open_files(&self, files: &Arc<dyn Files>, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        let (name, note) = folder::choose_of(self, &**files)?;
        let archive = self.open(Source::inside(files, &name)?, options)?;
        Ok(match note {
            Some(note) => Box::new(folder::Noted::new(archive, note)),
            None => archive,
        })
    }

    /// Whether a file of a model's folder is weights, by its name: a file of a known format, a shard or an index,
    /// and not what trainers leave beside them (`training_args.bin`, `optimizer.pt`, …).
    pub fn is_weights_name(&self, file_name: &str) -> bool {
        folder::is_weights_name(self, file_name)
    }
}

/// Names the file of an error.
fn located(error: Error, source: &Source) -> Error {
    match source.path() {
        Some(path) => error.with_path(path),
        None => error,
    }
}

fn unknown(probe: &Probe<'_>) -> Error {
    let head: Vec<String> = probe.head().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let what = format!("no known format: {} bytes that begin {}", probe.len(), head.join(" "));
    Error::unknown_format(what).with_hint("say which format it is, if it is one of those that are read")
}
