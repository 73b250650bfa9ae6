//! Whole folders: staged beside their place, then renamed or exchanged in one step.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::digest::FileDigests;
use super::execute::{ExecuteOptions, Names, Written, added, begin, end, execute, write_files};
use super::leftover::{Claim, uninterrupted};
use super::stage::{self, Temporary};
use super::{WritePlan, kernel};
use crate::error::{Error, ErrorKind, Result};

/// The most files and folders that are carried over from a folder that is replaced.
const KEPT: usize = 100_000;
/// How deep folders that are carried over may nest.
const DEPTH: usize = 32;

/// Writes a plan's files into a folder that does not exist yet, and appears with all of them in it. Names may have
/// subfolders, with `/` between: `images/0.jpg`.
///
/// # Errors
/// As [`execute`](super::execute); `InvalidOptions` if the folder exists, even with leave to overwrite: replacing
/// would remove whatever else is in it ([`replace_folder`] says what stays).
pub fn execute_folder(
    plan: WritePlan<'_>,
    folder: impl AsRef<Path>,
    options: &ExecuteOptions<'_>,
) -> Result<Written> {
    let (folder, parent) = place(folder.as_ref())?;
    let taken = || {
        Error::invalid_options("the folder exists already")
            .with_path(&folder)
            .with_hint("choose another name, or move the old folder away")
    };
    if fs::symlink_metadata(&folder).is_ok() {
        return Err(taken());
    }
    let bytes = begin(&plan, Names::Nested, &folder, &parent, options)?;
    let _claim = Claim::take(&parent);
    let (staged, mut files, digests) = stage_plan(plan, &folder, options)?;
    complete(staged.path(), &folder, &digests, options, &mut files)?;
    // The folder is new, so what it replaces cannot be meant.
    let fresh = ExecuteOptions { overwrite: false, ..options.clone() };
    stage::commit(vec![staged], &parent, &fresh).map_err(|e| match e.kind() {
        ErrorKind::InvalidOptions => taken(),
        _ => e,
    })?;
    end(options);
    Ok(Written { files, bytes, digests })
}

/// Writes a plan's files into a folder that takes the place of one that may exist, in one step.
///
/// `keep` is asked for every entry of the old folder, by its name and the plan's files left out: what it says yes
/// to is in the new folder too, folders with all that is in them. Files are carried over as hard links, so they
/// cost no room and keep what other programs write into them meanwhile. The rest of the old folder is removed after
/// the exchange. A link to a folder is followed: what it leads to is replaced.
///
/// # Errors
/// As [`execute_folder`]; `InvalidOptions` if the folder exists and [`ExecuteOptions::overwrite`] is not set;
/// `Unsupported` if it holds what cannot be carried over (a device, pipe or socket); `Io` if it is a mount point.
/// After an error the old folder is as it was.
pub fn replace_folder(
    plan: WritePlan<'_>,
    folder: impl AsRef<Path>,
    keep: &dyn Fn(&str) -> bool,
    options: &ExecuteOptions<'_>,
) -> Result<Written> {
    let given = folder.as_ref();
    let real = match fs::canonicalize(given) {
        Ok(real) => real,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return execute_folder(plan, given, options),
        Err(e) => return Err(Error::io("resolving the folder", e).with_path(given)),
    };
    let meta = fs::metadata(&real).map_err(|e| Error::io("looking for the folder", e).with_path(given))?;
    if !meta.is_dir() {
        let what = "a file has the name of the folder that is to be written";
        return Err(Error::invalid_options(what).with_path(given).with_hint("choose another name"));
    }
    if !options.overwrite {
        return execute_folder(plan, given, options);
    }
    let (folder, parent) = place(&real)?;
    // What is in place is checked by the exchange; no single file of it is replaced.
    let fresh = ExecuteOptions { overwrite: true, ..options.clone() };
    let bytes = begin(&plan, Names::Nested, &folder, &parent, &fresh)?;
    let _claim = Claim::take(&parent);
    let mut replaced: BTreeSet<String> = BTreeSet::new();
    for file in &plan.files {
        replaced.insert(file.name.split('/').next().unwrap_or_default().to_lowercase());
    }
    let (mut staged, mut files, digests) = stage_plan(plan, &folder, options)?;
    carry_over(&folder, staged.path(), &|name| !replaced.contains(&name.to_lowercase()) && keep(name))?;
    complete(staged.path(), &folder, &digests, options, &mut files)?;
    if options.mode.is_none() {
        let _ = fs::set_permissions(staged.path(), meta.permissions());
    }
    if options.fsync {
        stage::sync_folder(staged.path())?;
    }
    staged.exchange()?;
    if options.fsync {
        stage::sync_folder(&parent)?;
    }
    end(options);
    Ok(Written { files: files.iter().map(|f| rebased(f, &folder, given)).collect(), bytes, digests })
}

/// Has the caller add files to a complete folder. One that was carried over under the same name is replaced, and not
/// written into.
fn complete(
    staged: &Path,
    folder: &Path,
    digests: &[FileDigests],
    options: &ExecuteOptions<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let Some(complete) = options.complete else { return Ok(()) };
    let plan = added(complete(staged, digests)?)?;
    files.extend(plan.files.iter().map(|f| folder.join(&f.name)));
    let more =
        ExecuteOptions { overwrite: true, observer: None, complete: None, digests: None, ..options.clone() };
    execute(plan, staged, &more).map(drop)
}

/// A path below `from`, as the caller spells the folder.
fn rebased(file: &Path, from: &Path, to: &Path) -> PathBuf {
    file.strip_prefix(from).map_or_else(|_| file.to_owned(), |rest| to.join(rest))
}

/// The folder without trailing slashes (with them, the path of a link is what it leads to), and the one around it.
fn place(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let folder: PathBuf = folder.components().collect();
    if folder.file_name().is_none() {
        let what = "this is no name that a new folder can have";
        return Err(Error::invalid_options(what).with_path(folder));
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((folder, parent))
}

/// Writes the plan into a temporary folder beside `folder`; returns it, the paths that the files will have, and their
/// digests.
fn stage_plan(
    plan: WritePlan<'_>,
    folder: &Path,
    options: &ExecuteOptions<'_>,
) -> Result<(Temporary, Vec<PathBuf>, Vec<FileDigests>)> {
    let staged = Temporary::folder(folder, options)?;
    let mut inner: BTreeSet<PathBuf> = BTreeSet::new();
    for file in &plan.files {
        let ancestors = Path::new(&file.name).ancestors().skip(1);
        inner.extend(ancestors.filter(|a| !a.as_os_str().is_empty()).map(|a| staged.path().join(a)));
    }
    for path in &inner {
        uninterrupted(|| stage::new_folder(path, options))
            .map_err(|e| Error::io("creating a subfolder", e).with_path(path))?;
    }
    let names: Vec<PathBuf> = plan.files.iter().map(|f| folder.join(&f.name)).collect();
    let fresh = ExecuteOptions { overwrite: false, ..options.clone() };
    let (temporaries, _, digests) = write_files(plan, staged.path(), None, &fresh)?;
    stage::commit(temporaries, staged.path(), &fresh)?;
    if options.fsync {
        inner.iter().try_for_each(|path| stage::sync_folder(path))?;
    }
    Ok((staged, names, digests))
}

/// Links what `keep` says yes to from one folder into another, folder by folder.
fn carry_over(from: &Path, to: &Path, keep: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut todo = vec![(from.to_owned(), to.to_owned(), 0usize)];
    let mut seen = 0usize;
    while let Some((from, to, depth)) = todo.pop() {
        let fail = |doing: &'static str, path: &Path| {
            let path = path.to_owned();
            move |e| Error::io(doing, e).with_path(path)
        };
        for entry in uninterrupted(|| fs::read_dir(&from)).map_err(fail("listing the folder", &from))? {
            let entry = entry.map_err(fail("listing the folder", &from))?;
            let name = entry.file_name();
            // A name that is no text is nobody's that is asked for, so it stays.
            if depth == 0 && name.to_str().is_some_and(|n| !keep(n)) {
                continue;
            }
            seen += 1;
            if seen > KEPT || depth > DEPTH {
                let what = format!("the folder holds more than {KEPT} entries, or nests deeper than {DEPTH}");
                return Err(Error::limit(what).with_path(from));
            }
            let (old, new) = (entry.path(), to.join(&name));
            let kind = entry.file_type().map_err(fail("looking at an entry of the folder", &old))?;
            if kind.is_dir() {
                uninterrupted(|| fs::create_dir(&new)).map_err(fail("creating a subfolder", &new))?;
                if let Ok(meta) = entry.metadata() {
                    let _ = fs::set_permissions(&new, meta.permissions());
                }
                todo.push((old, new, depth + 1));
            } else if kind.is_symlink() {
                uninterrupted(|| link_again(&old, &new)).map_err(fail("making a link again", &old))?;
            } else if kind.is_file() {
                // Where the file system has no hard links, or refuses them for this file, a copy serves.
                if uninterrupted(|| fs::hard_link(&old, &new)).is_err() {
                    fs::copy(&old, &new).map_err(fail("copying a file that stays", &old))?;
                }
            } else {
                let what = "a device, pipe or socket is in the folder, and cannot be carried over";
                return Err(Error::unsupported(what).with_path(old).with_hint("move it away first"));
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link_again(old: &Path, new: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(fs::read_link(old)?, new)
}

#[cfg(not(unix))]
fn link_again(old: &Path, new: &Path) -> io::Result<()> {
    fs::copy(old, new).map(|_| ())
}

impl Temporary {
    /// Puts a complete folder in the place of one that exists, and removes the old one.
    fn exchange(&mut self) -> Result<()> {
        let (new, old) = (self.path().to_owned(), self.target().to_owned());
        uninterrupted(|| kernel::exchange(&new, &old)).map_err(|e| {
            Error::io("exchanging the complete new folder for the old one", e)
                .with_path(&old)
                .with_hint("a folder that a file system is mounted on cannot be replaced; write below it")
        })?;
        // The temporary name is now the old folder's, which is removed when `self` is dropped.
        Ok(())
    }
}
