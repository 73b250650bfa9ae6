//! Writing an archive for a test: into a folder, without waiting for the disk.

use std::path::{Path, PathBuf};

use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{
    Archive, FormatInfo, Note, ReadOptions, Registry, Result, ValuesPolicy, WriteOptions,
};

/// The file name that a format would give `stem`.
pub fn file_name(info: &FormatInfo, stem: &str) -> String {
    format!("{stem}.{}", info.extensions.first().copied().unwrap_or("bin"))
}

/// Choices for a test's file.
pub fn options(info: &FormatInfo, stem: &str) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.file_name = file_name(info, stem);
    options
}

/// How tests execute a plan.
pub fn quick() -> ExecuteOptions<'static> {
    let mut how = ExecuteOptions::default();
    how.fsync = false;
    how.overwrite = true;
    how
}

/// A file that was written, and what was said of it.
pub struct Saved {
    /// The file to open: a set's index, or the only file.
    pub path: PathBuf,
    /// The plan's notes.
    pub notes: Vec<Note>,
}

/// Writes an archive in a format, without leave to lose anything.
///
/// # Errors
/// What planning and writing say.
pub fn save(
    registry: &Registry,
    format: &str,
    archive: &dyn Archive,
    folder: &Path,
    stem: &str,
) -> Result<Saved> {
    let writer = registry.serializer(format)?;
    save_with(registry, format, archive, folder, &options(writer.info(), stem))
}

/// As [`save`], with choices.
///
/// # Errors
/// As [`save`].
pub fn save_with(
    registry: &Registry,
    format: &str,
    archive: &dyn Archive,
    folder: &Path,
    options: &WriteOptions,
) -> Result<Saved> {
    let plan = registry.serializer(format)?.plan(archive, options)?;
    let notes = plan.notes.clone();
    let written = execute(plan, folder, &quick())?;
    let path = written.files.last().cloned().unwrap_or_default();
    Ok(Saved { path, notes })
}

/// Writes an archive and drops the values around its tensors if they cannot be kept.
///
/// # Errors
/// As [`save`].
pub fn save_any(
    registry: &Registry,
    format: &str,
    archive: &dyn Archive,
    folder: &Path,
    stem: &str,
) -> Result<Saved> {
    save(registry, format, archive, folder, stem).or_else(|_| {
        let mut options = options(registry.serializer(format)?.info(), stem);
        options.values = ValuesPolicy::Drop;
        options.allow_loss = true;
        save_with(registry, format, archive, folder, &options)
    })
}

/// Opens a file that a test wrote in `format`.
///
/// # Panics
/// If it is taken for a file of another format.
///
/// # Errors
/// What opening says.
pub fn reopen(registry: &Registry, format: &str, path: &Path) -> Result<Box<dyn Archive>> {
    let archive = registry.open_path(path, &ReadOptions::default())?;
    assert_eq!(archive.format(), format, "{}", path.display());
    Ok(archive)
}
