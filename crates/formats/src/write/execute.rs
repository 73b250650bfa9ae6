//! Executing a plan: from the checks before the first byte to the renames after the last.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::copy::Copier;
use super::digest::{Digesting, FileDigests};
use super::leftover::{Claim, uninterrupted};
use super::stage::{self, Temporary};
use super::{FilePlan, WritePlan, kernel};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{fold, is_plain_relative};

/// Who watches a write, from several threads.
///
/// The methods are called while bytes are being copied, so they must be quick.
pub trait Observer: Sync {
    /// The write begins, after everything that can be checked before it was; the bytes of all files.
    fn started(&self, total_bytes: u64) {
        let _ = total_bytes;
    }

    /// So many more bytes are written; these add up to the total.
    fn advanced(&self, bytes: u64) {
        let _ = bytes;
    }

    /// All files are in place. Not called when the write fails.
    fn finished(&self) {}

    /// Whether to give up; asked before each chunk.
    fn cancelled(&self) -> bool {
        false
    }
}

/// When untouched spans of a file are copied by the kernel (`copy_file_range`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelCopy {
    /// Where the target's file system can share blocks or copy on its server.
    #[default]
    Auto,
    /// Wherever the kernel can.
    Always,
    /// Nowhere: read and write.
    Never,
}

/// Choices for executing a plan.
#[non_exhaustive]
#[derive(Clone)]
pub struct ExecuteOptions<'a> {
    /// Wait until files and folder are on the disk, so that a power cut leaves the old or the new. Without it,
    /// a power cut soon after may leave an empty or incomplete file under the new name. Default: yes.
    pub fsync: bool,
    /// How many threads copy; `None` takes as many as there are processors, at most four. Without the feature
    /// `parallel` it is always one.
    pub threads: Option<usize>,
    /// Leave to replace files that exist. Default: no.
    pub overwrite: bool,
    /// The permissions of new files, less the umask (Unix only); new folders can be entered by whom these let read.
    /// `None` keeps those of a file that is replaced, and takes `0o666` for others.
    pub mode: Option<u32>,
    /// The bytes that a thread copies at a time, which is the memory that it takes. At least 1.
    pub chunk_bytes: usize,
    /// When the kernel copies.
    pub kernel_copy: KernelCopy,
    /// Who is told of progress and may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// Who looks at files that are complete, before any is put in place, may refuse them, and may add others: a manifest
    /// of them, for one. Those are put in place after the others.
    pub complete: Option<&'a Complete<'a>>,
    /// Which digests are made of the files while they are written. Default: none.
    pub digests: Option<Digesting>,
}

/// Is called with the folder under its temporary name, or with a temporary folder in which the files have their names, and
/// with the digests that were asked for; returns names and contents of the files to add.
pub type Complete<'a> = dyn Fn(&Path, &[FileDigests]) -> Result<Vec<(String, Vec<u8>)>> + Sync + 'a;

/// Default of [`ExecuteOptions::chunk_bytes`]: what was read is still in the processor's second-level cache when
/// it is checksummed and written, and a system call is paid for.
const CHUNK: usize = 256 << 10;

impl Default for ExecuteOptions<'_> {
    fn default() -> Self {
        Self {
            fsync: true,
            threads: None,
            overwrite: false,
            mode: None,
            chunk_bytes: CHUNK,
            kernel_copy: KernelCopy::Auto,
            observer: None,
            complete: None,
            digests: None,
        }
    }
}

impl std::fmt::Debug for ExecuteOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecuteOptions")
            .field("fsync", &self.fsync)
            .field("threads", &self.threads)
            .field("overwrite", &self.overwrite)
            .field("mode", &self.mode)
            .field("chunk_bytes", &self.chunk_bytes)
            .field("kernel_copy", &self.kernel_copy)
            .field("observer", &self.observer.is_some())
            .field("complete", &self.complete.is_some())
            .field("digests", &self.digests.is_some())
            .finish()
    }
}

/// What a write made.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The files, in the plan's order.
    pub files: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
    /// Their digests, where [`ExecuteOptions::digests`] asked for them.
    pub digests: Vec<FileDigests>,
}

/// Writes a plan's files into a folder that exists: each appears complete, and the first only after all are.
///
/// # Errors
/// `InvalidOptions` if a file is there already without leave to replace it, or the plan contradicts itself;
/// `NotFound` if the folder is not there; `Cancelled` if the observer said so; `Io` for what the system refuses,
/// a full disk for one; and whatever reading the data meets. After an error every temporary is removed and every
/// target is as it was, unless the message says that a rename could not be undone and which files are in place, or
/// that it was the folder that could not be synchronised: all files are in place then.
pub fn execute(
    plan: WritePlan<'_>,
    folder: impl AsRef<Path>,
    options: &ExecuteOptions<'_>,
) -> Result<Written> {
    let folder = match folder.as_ref() {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let bytes = begin(&plan, Names::Plain, folder, folder, options)?;
    let _claim = Claim::take(folder);
    let Some(complete) = options.complete else {
        let (temporaries, files, digests) = write_files(plan, folder, None, options)?;
        stage::commit(temporaries, folder, options)?;
        end(options);
        return Ok(Written { files, bytes, digests });
    };
    // In a folder of their own the files have their names already, so that what refers to another finds it.
    let name = plan.files.last().map_or("files", |f| &*f.name);
    let staged = Temporary::folder(&folder.join(name), options)?;
    let (mut temporaries, mut files, digests) = write_files(plan, folder, Some(staged.path()), options)?;
    let more = ExecuteOptions { observer: None, complete: None, digests: None, ..options.clone() };
    let added = added(complete(staged.path(), &digests)?)?;
    check_plan(&added, Names::Plain)?;
    let (new, targets, _) = write_files(added, folder, Some(staged.path()), &more)?;
    temporaries.extend(new);
    files.extend(targets);
    stage::commit(temporaries, folder, options)?;
    end(options);
    Ok(Written { files, bytes, digests })
}

/// The plan of files that are added to complete ones.
pub(super) fn added(files: Vec<(String, Vec<u8>)>) -> Result<WritePlan<'static>> {
    let mut plan = WritePlan::default();
    for (name, bytes) in files {
        let mut file = FilePlan::new(name);
        file.push_fixed(bytes)?;
        plan.files.push(file);
    }
    Ok(plan)
}

/// Checks all that can be checked before a byte is written, and tells the observer; returns the plan's bytes.
/// `room` is a folder that exists and is on the target's file system.
pub(super) fn begin(
    plan: &WritePlan<'_>,
    names: Names,
    folder: &Path,
    room: &Path,
    options: &ExecuteOptions<'_>,
) -> Result<u64> {
    check_plan(plan, names)?;
    for file in &plan.files {
        stage::check_target(&folder.join(&file.name), options.overwrite)?;
    }
    let bytes = plan.bytes();
    if let Some(free) = kernel::file_system(room).free.filter(|&free| free < bytes) {
        let what = format!("the disk is full: {bytes} bytes are to be written, and {free} are free");
        let full = Error::new(ErrorKind::Io, what).with_path(folder);
        return Err(full.with_hint("make room, or write to another disk"));
    }
    if let Some(observer) = options.observer {
        observer.started(bytes);
    }
    Ok(bytes)
}

pub(super) fn end(options: &ExecuteOptions<'_>) {
    if let Some(observer) = options.observer {
        observer.finished();
    }
}

/// Which names the files of a plan may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Of files in the folder itself.
    Plain,
    /// Of files in subfolders too, with `/` between.
    Nested,
}

/// Holds a plan against its own rules. Segments are laid end to end by construction; what they hold is the
/// backends' word, which is checked.
fn check_plan(plan: &WritePlan<'_>, allowed: Names) -> Result<()> {
    let mut names = HashSet::new();
    for file in &plan.files {
        let name = &*file.name;
        if !is_plain_relative(name) || allowed == Names::Plain && name.contains('/') {
            let what = format!("{name:?} is no plain file name");
            return Err(Error::invalid_options(what));
        }
        // Names that differ by case alone are one file on some systems.
        if !names.insert(fold(name)) {
            return Err(Error::invalid_options(format!("two files of the plan are called {name:?}")));
        }
        file.check()?;
    }
    Ok(())
}

/// Files under temporary names, their targets, and their digests.
pub(super) type Staged = (Vec<Temporary>, Vec<PathBuf>, Vec<FileDigests>);

/// Writes every file under a temporary name, or under its own in a folder that is temporary.
pub(super) fn write_files(
    plan: WritePlan<'_>,
    folder: &Path,
    staged: Option<&Path>,
    options: &ExecuteOptions<'_>,
) -> Result<Staged> {
    let mut copier = Copier::new(options, kernel::file_system(folder))?;
    let (mut temporaries, mut targets, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    // One after another, so that a set of a thousand shards takes one descriptor and not a thousand.
    for file in plan.files {
        let target = folder.join(&file.name);
        let replaced = stage::check_target(&target, options.overwrite)?;
        let own = staged.map(|staged| staged.join(&file.name));
        let (temporary, open) = Temporary::file(&target, own, replaced.as_ref(), options)?;
        temporaries.push(temporary);
        let needed = file.len();
        let refused = |doing, e| stage::refused(doing, e, &target, needed);
        open.set_len(needed).map_err(|e| refused("setting the length of the temporary", e))?;
        let sync = || match options.fsync {
            true => uninterrupted(|| open.sync_all())
                .map_err(|e| refused("synchronising the file to the disk", e)),
            false => Ok(()),
        };
        digests.extend(copier.copy(file, &open, &target, &sync)?);
        targets.push(target);
    }
    Ok((temporaries, targets, digests))
}
