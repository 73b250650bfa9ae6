//! Executing a plan: from the checks before the first byte to the renames after the last.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::copy::Copier;
use super::leftover::{Claim, uninterrupted};
use super::stage::{self, Temporary};
use super::{WritePlan, kernel};
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
    /// Who looks at each complete file before any is put in place, and may refuse it.
    pub check: Option<&'a Check<'a>>,
    /// Who adds files to a folder that is complete but for them, before it is put in place. Used by
    /// [`execute_folder`](super::execute_folder) and [`replace_folder`](super::replace_folder).
    pub complete: Option<&'a Complete<'a>>,
}

/// Is called with a file's name in the plan, and the path that its bytes are at meanwhile.
pub type Check<'a> = dyn Fn(&str, &Path) -> Result<()> + Sync + 'a;

/// Is called with the folder under its temporary name; returns names and contents of the files to add.
pub type Complete<'a> = dyn Fn(&Path) -> Result<Vec<(String, Vec<u8>)>> + Sync + 'a;

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
            check: None,
            complete: None,
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
            .field("check", &self.check.is_some())
            .field("complete", &self.complete.is_some())
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
    let (temporaries, files) = write_files(plan, folder, options)?;
    stage::commit(temporaries, folder, options)?;
    end(options);
    Ok(Written { files, bytes })
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

/// Writes every file under a temporary name; returns the temporaries and the targets.
pub(super) fn write_files(
    plan: WritePlan<'_>,
    folder: &Path,
    options: &ExecuteOptions<'_>,
) -> Result<(Vec<Temporary>, Vec<PathBuf>)> {
    let mut copier = Copier::new(options, kernel::file_system(folder))?;
    let (mut temporaries, mut targets) = (Vec::new(), Vec::new());
    // One after another, so that a set of a thousand shards takes one descriptor and not a thousand.
    for file in plan.files {
        let target = folder.join(&file.name);
        let replaced = stage::check_target(&target, options.overwrite)?;
        let (temporary, open) = Temporary::file(&target, replaced.as_ref(), options)?;
        temporaries.push(temporary);
        let needed = file.len();
        let refused = |doing, e| stage::refused(doing, e, &target, needed);
        open.set_len(needed).map_err(|e| refused("setting the length of the temporary", e))?;
        let name = options.check.map(|_| file.name.clone()).unwrap_or_default();
        copier.copy(file, &open, &target)?;
        if let (Some(check), Some(temporary)) = (options.check, temporaries.last()) {
            check(&name, temporary.path())?;
        }
        if options.fsync {
            uninterrupted(|| open.sync_all())
                .map_err(|e| refused("synchronising the file to the disk", e))?;
        }
        targets.push(target);
    }
    Ok((temporaries, targets))
}
