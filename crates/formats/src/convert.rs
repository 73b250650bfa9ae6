//! Conversion: open, transform, plan, execute.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use regex::Regex;

use crate::archive::{Archive, Note, NoteKind};
use crate::error::{Error, Result};
use crate::registry::{Format, Registry};
use crate::tensor::TensorInfo;
use crate::traits::{ReadOptions, WriteOptions};
use crate::transform::{Cast, CastStats, Drop, KeptWide, Precision, Rename, Select, StripPrefix, TensorCast};
use crate::value::Value;
use crate::write::{Complete, Digesting, ExecuteOptions, Observer, execute};

/// Choices for a conversion. The transforms are applied in the order of the fields.
#[non_exhaustive]
#[derive(Clone)]
pub struct ConvertOptions<'a> {
    /// How to read.
    pub read: ReadOptions,
    /// The id of the format to write; `None` takes it from the target's name.
    pub format: Option<String>,
    /// The part to take, by its path or a pattern; `None` takes everything.
    pub select: Option<String>,
    /// The tensors to leave out, by glob.
    pub drop: Vec<String>,
    /// What to remove from the beginning of names, such as `module.`.
    pub strip_prefixes: Vec<String>,
    /// Regular expressions and what replaces their matches in a name; `$1` is the first group.
    pub renames: Vec<(String, String)>,
    /// Which floating-point tensors are cast to which dtype, and what becomes of numbers that do not fit.
    pub precision: Precision,
    /// The ONNX model whose initializers of the same names get the tensors; it is written with all else that it has.
    /// `None` writes the tensors themselves.
    pub into: Option<PathBuf>,
    /// Leave to cast floats to the dtypes that the initializers of [`ConvertOptions::into`] have.
    pub cast_into: bool,
    /// How to write; `file_name` is set from the target.
    pub write: WriteOptions,
    /// Wait until the files are on the disk. Default: yes.
    pub fsync: bool,
    /// How many threads copy and cast; `None` leaves it to the write engine.
    pub threads: Option<usize>,
    /// Leave to replace files that exist.
    pub overwrite: bool,
    /// The permissions of the files, as [`ExecuteOptions::mode`] has them.
    pub mode: Option<u32>,
    /// Who is told of progress and may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// Who adds files to those that are written, as [`ExecuteOptions::complete`] says: a manifest, for one.
    pub complete: Option<&'a Complete<'a>>,
    /// Which digests are made of the files while they are written.
    pub digests: Option<Digesting>,
}

impl Default for ConvertOptions<'_> {
    fn default() -> Self {
        Self {
            read: ReadOptions::default(),
            format: None,
            select: None,
            drop: Vec::new(),
            strip_prefixes: Vec::new(),
            renames: Vec::new(),
            precision: Precision::unchanged(),
            into: None,
            cast_into: false,
            write: WriteOptions::default(),
            fsync: true,
            threads: None,
            overwrite: false,
            mode: None,
            observer: None,
            complete: None,
            digests: None,
        }
    }
}

/// What a conversion did.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct ConvertReport {
    /// The id of the source's format.
    pub source_format: &'static str,
    /// Its version and variety in words.
    pub source_variety: String,
    /// The files that were read, shards included.
    pub source_files: Vec<PathBuf>,
    /// The id of the target's format.
    pub target_format: &'static str,
    /// The files that were written, each with its length in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// How many tensors were written.
    pub tensors: u64,
    /// Their elements.
    pub parameters: u64,
    /// The bytes of the files that were read.
    pub bytes_in: u64,
    /// The bytes of the files that were written.
    pub bytes_out: u64,
    /// What the reader, the transforms and the writer have to say, from information to loss.
    pub notes: Vec<Note>,
    /// The parts of the source, where it is no plain state dict but holds some: the name of each, which
    /// [`ConvertOptions::select`] takes, and its number of tensors. Empty where a part was selected.
    pub parts: Vec<(String, u64)>,
    /// The casts in which more than rounding happened, by tensor.
    pub casts: Vec<TensorCast>,
    /// What all casts met together.
    pub cast_total: CastStats,
    /// The tensors that kept their dtype, since it alone holds their numbers.
    pub kept_wide: Vec<KeptWide>,
    /// How long it took.
    pub seconds: f64,
}

/// Converts a model.
///
/// The target may be a file, or a folder (one that exists, a path that ends with a separator, or one without an
/// extension where the format is chosen): then the format's usual name is written in it. The source may be the
/// target, with leave to replace it.
///
/// # Errors
/// Before anything is written: what opening says; `InvalidOptions` for a target that exists without leave to
/// replace it, for a loss without leave, and for choices that fit nothing in the source. While writing: as
/// [`execute`]; the target is then as it was.
pub fn convert(
    registry: &Registry,
    source: &Path,
    target: &Path,
    options: &ConvertOptions<'_>,
) -> Result<ConvertReport> {
    let start = Instant::now();
    // What is wrong with the target is said before time is spent on the source.
    let target = Target::new(registry, target, options)?;
    let archive = registry.open_path(source, &options.read)?;
    write(registry, &*archive, &target, options, start)
}

/// Writes an archive, with the same choices as a conversion.
///
/// # Errors
/// As [`convert`].
pub fn save(
    registry: &Registry,
    archive: &dyn Archive,
    target: &Path,
    options: &ConvertOptions<'_>,
) -> Result<ConvertReport> {
    let start = Instant::now();
    write(registry, archive, &Target::new(registry, target, options)?, options, start)
}

fn write(
    registry: &Registry,
    source: &dyn Archive,
    target: &Target<'_>,
    options: &ConvertOptions<'_>,
    start: Instant,
) -> Result<ConvertReport> {
    let serializer = registry.serializer(target.format.info.id)?;
    let transformed = Transformed::new(source, options)?;
    let archive = transformed.archive();
    let mut choices = options.write.clone();
    choices.file_name.clone_from(&target.file_name);
    let base = options.into.as_ref().map(|path| Into::open(registry, path, archive, options)).transpose()?;
    let companion = companion_note(source, archive, target.format.info.id, options)?;
    let plan = match &base {
        Some(base) => base.plan(target.format.info.id, archive, &choices),
        None => serializer.plan(archive, &choices),
    };
    let plan = plan
        .map_err(|e| e.with_format(target.format.info.id).with_path(target.folder.join(&target.file_name)))?;
    let mut notes = archive.notes().to_vec();
    notes.extend(plan.notes.iter().cloned());
    notes.extend(companion);
    notes.sort_by_key(|n| n.kind);
    if !options.write.allow_loss
        && let Some(lost) = notes.iter().find(|n| n.kind == NoteKind::Lost)
    {
        return Err(Error::invalid_options(format!("this would be lost: {}", lost.text)));
    }
    let mut files: Vec<_> = plan.files.iter().map(|f| (target.folder.join(&f.name), f.len())).collect();
    let execution = ExecuteOptions {
        fsync: options.fsync,
        threads: options.threads,
        overwrite: options.overwrite,
        mode: options.mode,
        observer: options.observer,
        complete: options.complete,
        digests: options.digests,
        ..ExecuteOptions::default()
    };
    let made = target.create_folder()?;
    let written = execute(plan, &target.folder, &execution).map_err(|e| {
        if let Some(made) = made {
            let _ = std::fs::remove_dir(made);
        }
        match source.files().first() {
            // What is wrong with a tensor is wrong in the source.
            Some(file) if e.tensor().is_some() => e.with_path(file),
            _ => e,
        }
    })?;
    let size = |path: &PathBuf| std::fs::metadata(path).map(|m| m.len()).ok();
    let added = written.files.iter().skip(files.len());
    let added: Vec<_> = added.map(|path| (path.clone(), size(path).unwrap_or_default())).collect();
    files.extend(added);
    let source_files = source.files();
    // Of files in a container the tensors are counted: nothing else says how much of it was read.
    let bytes_in = source_files.iter().map(size).try_fold(0u64, |sum, n| Some(sum.saturating_add(n?)));
    let (mut casts, kept_wide) = transformed.report();
    let mut cast_total = CastStats::default();
    casts.iter().for_each(|c| cast_total.merge(&c.stats));
    casts.retain(|c| !c.stats.is_clean());
    Ok(ConvertReport {
        source_format: source.format(),
        source_variety: source.variety(),
        bytes_in: bytes_in.unwrap_or_else(|| source.bytes()),
        source_files,
        target_format: target.format.info.id,
        files,
        tensors: archive.tensors().len() as u64,
        parameters: archive.parameters(),
        bytes_out: written.bytes,
        notes,
        parts: if options.select.is_some() { Vec::new() } else { parts(source) },
        casts,
        cast_total,
        kept_wide,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What becomes of the source's companion (the graph of an ONNX model), if that is not written.
fn companion_note(
    source: &dyn Archive,
    archive: &dyn Archive,
    target: &str,
    options: &ConvertOptions<'_>,
) -> Result<Option<Note>> {
    let Some(companion) = source.companion().filter(|c| !c.is_plain() && options.into.is_none()) else {
        return Ok(None);
    };
    let summary = companion.summary();
    if companion.format() != target {
        return Ok(Some(Note::info(format!("{summary} is not written: {target} holds its tensors"))));
    }
    if archive.companion().is_some() {
        return Ok(None);
    }
    let what = format!("{summary} does not fit tensors that are renamed, left out or cast");
    if options.write.allow_loss {
        return Ok(Some(Note::lost(what)));
    }
    Err(Error::invalid_options(what).with_hint(
        "write the tensors to another format, or export the model anew in the precision that is wanted \
         (`weighbridge export`), or allow the loss of the graph",
    ))
}

/// The model that the tensors are put into.
#[cfg(feature = "onnx")]
struct Into<'a> {
    model: Box<dyn Archive>,
    cast: Option<Cast<'a>>,
}

#[cfg(feature = "onnx")]
impl<'a> Into<'a> {
    fn open(
        registry: &Registry,
        path: &Path,
        weights: &'a dyn Archive,
        options: &ConvertOptions<'_>,
    ) -> Result<Self> {
        let model = registry.open_path(path, &options.read)?;
        let cast = options.cast_into.then(|| {
            let weights: Box<dyn Archive + 'a> = Box::new(weights);
            crate::backends::onnx::weights_for(&*model, weights, options.precision.overflow())
        });
        let cast = cast.transpose().map_err(|e| e.with_path(path))?;
        Ok(Self { model, cast })
    }

    fn plan<'p>(
        &'p self,
        target: &str,
        weights: &'p dyn Archive,
        choices: &WriteOptions,
    ) -> Result<crate::write::WritePlan<'p>> {
        if target != crate::backends::onnx::INFO.id {
            return Err(Error::invalid_options(format!(
                "tensors are put into an ONNX model, not into {target}"
            ))
            .with_hint("give the target the extension .onnx"));
        }
        let weights = self.cast.as_ref().map_or(weights, |c| c as &dyn Archive);
        crate::backends::onnx::plan_into(&*self.model, weights, choices)
    }
}

/// Without ONNX there is nothing to put tensors into.
#[cfg(not(feature = "onnx"))]
struct Into;

#[cfg(not(feature = "onnx"))]
impl Into {
    fn open(_: &Registry, path: &Path, _: &dyn Archive, _: &ConvertOptions<'_>) -> Result<Self> {
        let error =
            Error::new(crate::error::ErrorKind::FormatDisabled, "tensors are put into ONNX models only");
        Err(error.with_path(path).with_hint("enable the feature `onnx`"))
    }

    fn plan<'p>(&self, _: &str, _: &'p dyn Archive, _: &WriteOptions) -> Result<crate::write::WritePlan<'p>> {
        Err(Error::unsupported("tensors are put into ONNX models only"))
    }
}

/// The source under its transforms. The cast is the last of them, and is asked for its report in the end.
enum Transformed<'a> {
    Plain(Box<dyn Archive + 'a>),
    Cast(Box<Cast<'a>>, Vec<KeptWide>),
}

impl<'a> Transformed<'a> {
    fn new(source: &'a dyn Archive, options: &ConvertOptions<'_>) -> Result<Self> {
        let wanted = chosen(source, options)?;
        if options.precision.is_unchanged() {
            return Ok(Self::Plain(wanted));
        }
        let (cast, kept) = options.precision.apply(wanted, options.threads)?;
        Ok(Self::Cast(Box::new(cast), kept))
    }

    fn archive(&self) -> &dyn Archive {
        match self {
            Self::Plain(archive) => &**archive,
            Self::Cast(cast, _) => &**cast,
        }
    }

    fn report(&self) -> (Vec<TensorCast>, Vec<KeptWide>) {
        match self {
            Self::Plain(_) => (Vec::new(), Vec::new()),
            Self::Cast(cast, kept) => (cast.report(), kept.clone()),
        }
    }
}

impl ConvertOptions<'_> {
    /// The source with the tensors and names that these choices ask for: everything that comes before the cast.
    ///
    /// # Errors
    /// `NotFound` and `InvalidOptions` for choices that fit nothing in the source, or give two tensors one name.
    pub fn chosen<'a>(&self, source: &'a dyn Archive) -> Result<Box<dyn Archive + 'a>> {
        chosen(source, self)
    }
}

/// The source with the tensors and names that are wanted; casting comes after.
fn chosen<'a>(source: &'a dyn Archive, options: &ConvertOptions<'_>) -> Result<Box<dyn Archive + 'a>> {
    let mut archive: Box<dyn Archive + 'a> = Box::new(source);
    if let Some(part) = &options.select {
        archive = Box::new(Select::new(archive, part)?);
    }
    for pattern in &options.drop {
        archive = Box::new(Drop::new(archive, pattern)?);
    }
    for prefix in &options.strip_prefixes {
        archive = Box::new(StripPrefix::new(archive, prefix)?);
    }
    if !options.renames.is_empty() {
        let rule = |(expression, to): &(String, String)| match Regex::new(expression) {
            Ok(expression) => Ok((expression, to.clone())),
            Err(e) => Err(Error::invalid_options(format!("{expression:?} is no regular expression: {e}"))),
        };
        let rules: Vec<_> = options.renames.iter().map(rule).collect::<Result<_>>()?;
        archive = Box::new(Rename::new(archive, &rules)?);
    }
    Ok(archive)
}

/// Where a conversion writes, and in which format.
struct Target<'a> {
    folder: PathBuf,
    file_name: String,
    format: &'a Format,
    /// Whether the folder is the target itself, and so is made where it is not there.
    may_create: bool,
}

impl<'a> Target<'a> {
    fn new(registry: &'a Registry, path: &Path, options: &ConvertOptions<'_>) -> Result<Self> {
        let chosen = options.format.as_deref().map(|id| registry.format(id)).transpose()?;
        let text = path.to_string_lossy();
        let is_folder = text.ends_with(std::path::is_separator)
            || path.is_dir()
            || (chosen.is_some() && path.extension().is_none() && path.symlink_metadata().is_err());
        let this = if is_folder {
            let Some(format) = chosen else {
                return Err(Error::invalid_options("the target is a folder, and no format is chosen")
                    .with_path(path)
                    .with_hint("choose the format (`--to`), or name a file whose extension says it"));
            };
            let Some(name) = format.info.default_name else {
                let what = format!("{} has no usual file name", format.info.name);
                return Err(Error::invalid_options(what).with_path(path).with_hint("name the file"));
            };
            Self { folder: path.to_owned(), file_name: name.to_owned(), format, may_create: true }
        } else {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
                return Err(Error::invalid_options("the target's name is no text").with_path(path));
            };
            let Some(format) = chosen.or_else(|| registry.for_extension(name)) else {
                let known: Vec<_> =
                    registry.formats().iter().flat_map(|f| f.info.extensions).copied().collect();
                return Err(Error::invalid_options("the target's name asks for no known format")
                    .with_path(path)
                    .with_hint(format!(
                        "choose the format (`--to`), or one of the extensions {}",
                        known.join(", ")
                    )));
            };
            let folder = path.parent().map(Path::to_owned).unwrap_or_default();
            Self { folder, file_name: name.to_owned(), format, may_create: false }
        };
        registry.serializer(this.format.info.id).map_err(|e| e.with_path(path))?;
        if !options.overwrite && this.folder.join(&this.file_name).is_file() {
            return Err(Error::invalid_options("the target exists already")
                .with_path(this.folder.join(&this.file_name))
                .with_hint("choose another name, or give leave to replace it (`--force`)"));
        }
        Ok(this)
    }

    /// Creates the folder if it is the target itself and not there; returns what was created.
    fn create_folder(&self) -> Result<Option<&Path>> {
        if !self.may_create || self.folder.is_dir() {
            return Ok(None);
        }
        crate::write::uninterrupted(|| std::fs::create_dir(&self.folder)).map_err(|e| {
            Error::io("creating the target's folder", e)
                .with_path(&self.folder)
                .with_hint("create the folder above it first")
        })?;
        Ok(Some(&self.folder))
    }
}

/// The parts of a file in which most of its tensors lie, if it is a mapping to containers, as checkpoints are: each
/// with its number of tensors.
fn parts(archive: &dyn Archive) -> Vec<(String, u64)> {
    let Some((values, root)) = archive.values().and_then(|v| Some((v, v.root()?))) else { return Vec::new() };
    let Some(dict) = values.dict(root) else { return Vec::new() };
    // A tuple is how a quantised module keeps one weight, and no part of its own.
    let container = |v: &Value| matches!(v, Value::Dict(_) | Value::List(_) | Value::Object(_));
    let containers = dict.entries.iter().filter(|(_, value)| container(values.get(*value)));
    let mut counts: HashMap<&str, u64> =
        containers.filter_map(|(key, _)| values.str(*key)).map(|key| (key, 0)).collect();
    let mut inside = 0;
    for name in archive.tensors().iter().map(TensorInfo::name) {
        // A key may have dots of its own; some are enough, since a file decides how many there are.
        let prefixes = name.match_indices('.').take(8).map(|(dot, _)| &name[..dot]);
        if let Some(count) =
            prefixes.filter(|p| counts.contains_key(p)).last().and_then(|p| counts.get_mut(p))
        {
            *count += 1;
            inside += 1;
        }
    }
    if inside * 2 <= archive.tensors().len() {
        return Vec::new();
    }
    let keys = dict.entries.iter().filter_map(|(key, _)| values.str(*key));
    keys.filter_map(|key| Some((key.to_owned(), *counts.get(key)?))).filter(|(_, n)| *n > 0).collect()
}
