//! Temporaries beside their targets, and the renames that put them in place.

use std::collections::hash_map::RandomState;
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::execute::ExecuteOptions;
use super::kernel;
use super::leftover::{remove, uninterrupted};
use crate::error::{Error, Result};

/// A file or folder under a temporary name, which is removed unless it is put in place.
pub(super) struct Temporary {
    path: PathBuf,
    target: PathBuf,
    placed: bool,
}

/// A name beside `target` that nobody else uses, and that nobody takes for a model.
fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    // File systems allow 255 bytes; a long name is cut to leave room for what makes it unique.
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let random = RandomState::new().build_hasher().finish();
    target.with_file_name(format!(".{}.{}-{random:016x}.tmp", &name[..end], std::process::id()))
}

/// Tries names until one is free.
fn create<T>(target: &Path, make: impl Fn(&Path) -> io::Result<T>) -> Result<(PathBuf, T)> {
    let mut tries = 0;
    loop {
        let path = temporary_name(target);
        tries += 1;
        match make(&path) {
            Ok(made) => return Ok((path, made)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 16 => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let what = "the folder that the file is to be written to does not exist";
                return Err(Error::not_found(what).with_path(target).with_hint("create the folder first"));
            }
            Err(e) => return Err(Error::io("creating a temporary beside the target", e).with_path(target)),
        }
    }
}

impl Temporary {
    /// Creates a new file, of this path if one is given. `replaced` is what stands at the target: its permissions are kept.
    pub(super) fn file(
        target: &Path,
        path: Option<PathBuf>,
        replaced: Option<&Metadata>,
        options: &ExecuteOptions<'_>,
    ) -> Result<(Self, File)> {
        let mut open = OpenOptions::new();
        // Read access is for file systems that read a page before they change a part of it.
        open.read(true).write(true).create_new(true);
        let kept = replaced.filter(|m| m.is_file() && options.mode.is_none());
        #[cfg(unix)]
        {
            use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
            let old = kept.map(|m| m.permissions().mode() & 0o777);
            open.mode(old.or(options.mode).unwrap_or(0o666));
        }
        let (path, file) = match path {
            None => create(target, |path| open.open(path))?,
            Some(path) => {
                let file = uninterrupted(|| open.open(&path));
                let file = file
                    .map_err(|e| Error::io("creating a file in a temporary folder", e).with_path(target))?;
                (path, file)
            }
        };
        let temporary = Self { path, target: target.to_owned(), placed: false };
        #[cfg(unix)]
        if let Some(old) = kept {
            use std::os::unix::fs::PermissionsExt;
            // Beyond what the umask let through. A file system without permissions refuses, which loses nothing.
            let _ = file.set_permissions(std::fs::Permissions::from_mode(old.permissions().mode() & 0o777));
        }
        let _ = (kept, options);
        Ok((temporary, file))
    }

    /// Creates a new folder.
    pub(super) fn folder(target: &Path, options: &ExecuteOptions<'_>) -> Result<Self> {
        let (path, ()) = create(target, |path| uninterrupted(|| new_folder(path, options)))?;
        Ok(Self { path, target: target.to_owned(), placed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Undoes [`Temporary::place`]. Says whether the target is as it was.
    fn take_back(&mut self, old: &mut Old) -> bool {
        match old {
            Old::Nothing => {
                // It goes with its temporary name.
                self.placed = uninterrupted(|| kernel::rename_new(&self.target, &self.path)).is_err();
                !self.placed
            }
            Old::Named(old) => {
                old.placed = uninterrupted(|| std::fs::rename(&old.path, &old.target)).is_ok();
                old.placed
            }
            Old::Lost => false,
        }
    }

    /// Renames to the target.
    fn place(&mut self, overwrite: bool) -> Result<()> {
        let done = uninterrupted(|| match overwrite {
            true => std::fs::rename(&self.path, &self.target),
            false => kernel::rename_new(&self.path, &self.target),
        });
        match done {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(&self.target)),
            Err(e) => {
                Err(Error::io("renaming the complete temporary to its name", e).with_path(&self.target))
            }
        }
    }
}

/// What stood at a target that is one of several.
enum Old {
    Nothing,
    /// It has a second name, by which it can be put back.
    Named(Temporary),
    /// The file system gives no second name.
    Lost,
}

impl Old {
    fn of(target: &Path) -> Self {
        match uninterrupted(|| std::fs::symlink_metadata(target)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::Nothing,
            Err(_) => return Self::Lost,
        }
        match create(target, |path| uninterrupted(|| std::fs::hard_link(target, path))) {
            Ok((path, ())) => Self::Named(Temporary { path, target: target.to_owned(), placed: false }),
            Err(_) => Self::Lost,
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // Nobody is left to tell of a failure here; the next write into the folder finds what stays.
            remove(&self.path);
        }
    }
}

/// Creates a folder with the permissions that fit those of its files: who may read them may enter it.
pub(super) fn new_folder(path: &Path, options: &ExecuteOptions<'_>) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(mode) = options.mode {
        use std::os::unix::fs::DirBuilderExt;
        let mode = mode & 0o777;
        return std::fs::DirBuilder::new().mode(mode | 0o700 | (mode & 0o444) >> 2).create(path);
    }
    let _ = options;
    std::fs::create_dir(path)
}

/// The error for a write that the system refused: which file, and for a full disk how much is needed.
#[cold]
pub(super) fn refused(doing: &str, error: io::Error, target: &Path, needed: u64) -> Error {
    let (what, hint) = match error.kind() {
        io::ErrorKind::StorageFull => ("the disk is full", "make room, or write to another disk"),
        io::ErrorKind::QuotaExceeded => ("your quota is used up", "make room, or write to another disk"),
        io::ErrorKind::FileTooLarge => (
            "the file would be larger than the system or its limits allow",
            "raise the limit (`ulimit -f`), write to another file system, or write in shards",
        ),
        _ => return Error::io(doing.to_owned(), error).with_path(target),
    };
    let message = format!("{doing}: {what}, and the file needs {needed} bytes");
    Error::io(message, error).with_path(target).with_hint(hint)
}

/// The error for a target that is there already.
pub(super) fn exists(target: &Path) -> Error {
    Error::invalid_options("a file of this name exists already")
        .with_path(target)
        .with_hint("choose another name, or give leave to replace it (`--force`)")
}

/// What stands at a target, if that may be replaced.
///
/// A link is replaced itself; the file it leads to stays.
pub(super) fn check_target(target: &Path, overwrite: bool) -> Result<Option<Metadata>> {
    let meta = match std::fs::symlink_metadata(target) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("looking for the target", e).with_path(target)),
    };
    let kind = meta.file_type();
    if kind.is_dir() {
        let what = "a folder has this name, and a file is to be written";
        return Err(Error::invalid_options(what).with_path(target).with_hint("choose another name"));
    }
    if !kind.is_file() && !kind.is_symlink() {
        let what = "this is a device, pipe or socket; only a regular file is replaced";
        return Err(Error::invalid_options(what).with_path(target).with_hint("choose another name"));
    }
    if overwrite { Ok(Some(meta)) } else { Err(exists(target)) }
}

/// Puts complete temporaries in place, in order; `folder` is what they are all in. If one cannot be, those before it
/// are taken back.
pub(super) fn commit(mut files: Vec<Temporary>, folder: &Path, options: &ExecuteOptions<'_>) -> Result<()> {
    // One file is placed or not; of several, the first may be, and a later one not.
    let old = |file: &Temporary| match options.overwrite {
        true => Old::of(&file.target),
        false => Old::Nothing,
    };
    let mut aside: Vec<Old> = if files.len() > 1 { files.iter().map(old).collect() } else { Vec::new() };
    for i in 0..files.len() {
        if let Err(error) = files[i].place(options.overwrite) {
            let mut back = true;
            for (file, old) in files[..i].iter_mut().zip(&mut aside).rev() {
                back &= file.take_back(old);
            }
            return Err(if back { error } else { partly_placed(&files, i, &error) });
        }
    }
    drop(aside);
    if options.fsync { sync_folder(folder) } else { Ok(()) }
}

/// Says which files are in place when the rename of number `failed` did not work.
fn partly_placed(files: &[Temporary], failed: usize, cause: &Error) -> Error {
    let list = |files: &[Temporary]| {
        let names = files.iter().filter_map(|f| f.target.file_name());
        names.map(|n| format!("{:?}", n.to_string_lossy())).collect::<Vec<_>>().join(", ")
    };
    let (placed, missing) = files.split_at(failed);
    let why = match std::error::Error::source(cause) {
        Some(source) => format!("{}: {source}", cause.message()),
        None => cause.message().to_owned(),
    };
    let (placed, missing) = (list(placed), list(missing));
    let what = format!(
        "all files were complete, and then a rename failed ({why}); in place are {placed}; not in place are {missing}"
    );
    Error::new(cause.kind(), what)
        .with_path(files[failed].target())
        .with_hint("remove the files that are in place, or write the whole again")
}

/// Makes the names in a folder last.
#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some file systems have nothing to synchronise in a folder, and say so in this way.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(|e| Error::io("synchronising the folder", e).with_path(folder)),
    }
}

/// Makes the names in a folder last: where folders cannot be opened, that is the file system's own affair.
#[cfg(not(unix))]
pub(super) fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporaries_of_long_names_fit_a_file_system() {
        for name in ["a".repeat(255), "ü".repeat(127), "x".into()] {
            let path = temporary_name(&Path::new("/dir").join(&name));
            let made = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(made.len() <= 255 && made.starts_with('.') && made.ends_with(".tmp"), "{made}");
            assert_eq!(path.parent(), Some(Path::new("/dir")));
        }
        assert_ne!(temporary_name(Path::new("a")), temporary_name(Path::new("a")));
    }

    /// The files of a folder with their content, sorted.
    fn content(folder: &Path) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut all: Vec<_> = entries
            .map(|p| {
                (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(p).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_failure_between_renames_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ExecuteOptions::default();
        let make =
            |n: &str| Temporary::file(&dir.path().join(n), None, None, &ExecuteOptions::default()).unwrap().0;
        let files = vec![make("a"), make("b"), make("c")];
        std::fs::write(dir.path().join("b"), "taken meanwhile").unwrap();
        let error = commit(files, dir.path(), &options).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        let before = content(dir.path());
        assert_eq!(before, [("b".to_owned(), "taken meanwhile".to_owned())]);

        // Old ones are put back, and new ones go, when a folder has taken the name of the last.
        options.overwrite = true;
        let files = vec![make("b"), make("a"), make("c")];
        std::fs::create_dir(dir.path().join("c")).unwrap();
        commit(files, dir.path(), &options).unwrap_err();
        std::fs::remove_dir(dir.path().join("c")).unwrap();
        assert_eq!(content(dir.path()), before);
        commit(vec![make("b"), make("a"), make("c")], dir.path(), &options).unwrap();
        let names: Vec<_> = content(dir.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn what_cannot_be_undone_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let make =
            |n: &str| Temporary::file(&dir.path().join(n), None, None, &ExecuteOptions::default()).unwrap().0;
        let error = partly_placed(&[make("a"), make("b"), make("c")], 1, &Error::malformed("x")).to_string();
        assert!(error.contains(r#"; in place are "a""#), "{error}");
        assert!(error.contains(r#"not in place are "b", "c""#), "{error}");
    }
}
