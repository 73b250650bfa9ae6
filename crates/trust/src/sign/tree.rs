//! The files of a model as they lie on the disk, with what is no plain file named.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use weighbridge_formats::write::uninterrupted;
use weighbridge_formats::{Error, Result};

use super::statement::SINGLE;

/// The most entries of a model's folder and its subfolders.
const ENTRIES: usize = 200_000;
/// How deep subfolders may nest.
const DEPTH: usize = 64;

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
}

/// What tells whether a file is the one that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    modified: Option<std::time::SystemTime>,
    /// Device, inode, and the change time in nanoseconds.
    place: (u64, u64, i128),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            (meta.dev(), meta.ino(), i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let place = (0, 0, 0);
        Self { size: meta.len(), modified: meta.modified().ok(), place }
    }
}

/// Why an entry is no file whose bytes can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    /// A link, where links are not allowed, or one that leads nowhere.
    Link,
    /// A link to a folder, whose files nobody would find.
    LinkToFolder,
    /// A device, a pipe, a socket.
    Special,
    /// A name that is no UTF-8 or has a character that no name may have everywhere.
    Name,
}

impl Odd {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Link => "a symbolic link",
            Self::LinkToFolder => "a symbolic link to a folder",
            Self::Special => "a device, pipe or socket",
            Self::Name => "a name that not every system can have",
        }
    }
}

/// What is in a model's folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// The model is one file, named [`SINGLE`].
    pub(super) single: bool,
    /// In the order of their names.
    pub(super) files: Vec<TreeFile>,
    /// What is no plain file, with its name.
    pub(super) odd: Vec<(String, Odd)>,
    /// What was left out.
    pub(super) ignored: Vec<String>,
}

impl Tree {
    /// Lists a model. `ignored` says which paths are left out, and neither they nor what is below them is looked at.
    ///
    /// # Errors
    /// `Io` and `NotFound` as the system says; `LimitExceeded` for too many entries or levels; `InvalidOptions` if the
    /// model itself is a device or a pipe.
    pub(super) fn list(root: &Path, allow_symlinks: bool, ignored: &dyn Fn(&str) -> bool) -> Result<Self> {
        // A link that the caller names is the caller's word, not the model's.
        let meta = std::fs::metadata(root).map_err(|e| Error::io("opening the model", e).with_path(root))?;
        let mut tree =
            Self { single: !meta.is_dir(), files: Vec::new(), odd: Vec::new(), ignored: Vec::new() };
        if meta.is_file() {
            let (name, path, stamp) = (SINGLE.to_owned(), root.to_owned(), Stamp::of(&meta));
            tree.files.push(TreeFile { name, path, stamp });
            return Ok(tree);
        }
        if !meta.is_dir() {
            return Err(Error::invalid_options("this is neither a file nor a folder").with_path(root));
        }
        let mut waiting = vec![(String::new(), 0)];
        let mut seen = 0usize;
        while let Some((prefix, depth)) = waiting.pop() {
            let folder = if prefix.is_empty() { root.to_owned() } else { root.join(&prefix) };
            let fail = |e| Error::io("listing the folder", e).with_path(&folder);
            for entry in uninterrupted(|| std::fs::read_dir(&folder)).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                seen += 1;
                if seen > ENTRIES {
                    let what = format!("the folder has more than {ENTRIES} entries");
                    return Err(Error::limit(what).with_path(root));
                }
                let (path, file_name) = (entry.path(), entry.file_name());
                let text = file_name.to_string_lossy();
                let name = if prefix.is_empty() { text.to_string() } else { format!("{prefix}/{text}") };
                if file_name.to_str().is_none() || text.contains('\\') {
                    tree.odd.push((name, Odd::Name));
                    continue;
                }
                if ignored(&name) {
                    tree.ignored.push(name);
                    continue;
                }
                let fail = |e| Error::io("looking at the file", e).with_path(&path);
                let mut meta = std::fs::symlink_metadata(&path).map_err(fail)?;
                if meta.is_symlink() {
                    match std::fs::metadata(&path) {
                        Ok(target) if allow_symlinks && !target.is_dir() => meta = target,
                        Ok(target) if allow_symlinks && target.is_dir() => {
                            tree.odd.push((name, Odd::LinkToFolder));
                            continue;
                        }
                        _ => {
                            tree.odd.push((name, Odd::Link));
                            continue;
                        }
                    }
                }
                if meta.is_dir() {
                    if depth == DEPTH {
                        let what = format!("folders nest deeper than {DEPTH} levels");
                        return Err(Error::limit(what).with_path(path));
                    }
                    waiting.push((name, depth + 1));
                } else if meta.is_file() {
                    tree.files.push(TreeFile { name, path, stamp: Stamp::of(&meta) });
                } else {
                    tree.odd.push((name, Odd::Special));
                }
            }
        }
        tree.files.sort_by(|a, b| a.name.cmp(&b.name));
        tree.odd.sort_by(|a, b| a.0.cmp(&b.0));
        tree.ignored.sort();
        Ok(tree)
    }
}

/// The name that a path has in a model's folder, if it lies there. The path need not exist, its folder must.
pub(super) fn name_inside(root: &Path, path: &Path) -> Option<String> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (root, folder) = (std::fs::canonicalize(root).ok()?, std::fs::canonicalize(folder).ok()?);
    let inside = folder.join(path.file_name()?);
    let name = inside.strip_prefix(root).ok()?;
    let parts: Option<Vec<&str>> = name.components().map(|c| c.as_os_str().to_str()).collect();
    parts.map(|parts| parts.join("/")).filter(|name| !name.is_empty())
}
