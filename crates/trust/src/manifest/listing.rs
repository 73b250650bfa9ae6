//! The files of a folder that a manifest speaks of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use weighbridge_formats::write::uninterrupted;
use weighbridge_formats::{Error, Result};

use super::record::{NAME, SUFFIX, check_path};

/// The most entries of a folder and its subfolders.
const ENTRIES: usize = 100_000;
/// How deep subfolders may nest.
const DEPTH: usize = 32;

/// Whether a manifest leaves a file out: hidden ones, which no loader reads, and the records of this program, which are
/// written after it.
pub(super) fn is_left_out(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.'))
        || name == NAME
        || name.ends_with(SUFFIX)
        || name == "weighbridge.version.json"
        || name == "model.sig"
}

/// The files of a folder and its subfolders by their paths below it, each with the place where its bytes are.
///
/// # Errors
/// What the system says; `UnsafeContent` for a link that leads out of the folder (in a snapshot of the hub's cache it may
/// lead to one of its blobs), to a folder, and for devices, pipes and sockets; `InvalidOptions` for names that not every
/// system can have; `LimitExceeded` for more than 100,000 entries or 32 levels.
pub(super) fn list(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let real = real(root)?;
    let mut out = BTreeMap::new();
    let mut todo = vec![(String::new(), 0)];
    let mut seen = 0;
    while let Some((prefix, depth)) = todo.pop() {
        let folder = root.join(&prefix);
        let fail = |e| Error::io("listing the folder", e).with_path(&folder);
        for entry in uninterrupted(|| fs::read_dir(&folder)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            seen += 1;
            if seen > ENTRIES {
                let what = format!("the folder has more than {ENTRIES} entries, and so is no model's");
                return Err(Error::limit(what).with_path(root));
            }
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::invalid_options("the name of a file is not UTF-8").with_path(path));
            };
            let full = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if is_left_out(&full) {
                continue;
            }
            if check_path(&full).is_err() {
                let what = format!("{full:?} is a name that not every system can have");
                return Err(Error::invalid_options(what).with_path(root).with_hint("rename the file"));
            }
            let kind = entry.file_type().map_err(|e| Error::io("looking at a file", e).with_path(&path))?;
            if kind.is_dir() {
                if depth == DEPTH {
                    let what = format!("subfolders nest deeper than {DEPTH} levels");
                    return Err(Error::limit(what).with_path(path));
                }
                todo.push((full, depth + 1));
                continue;
            }
            let path = inside(&real, &path)?;
            out.insert(full, path);
        }
    }
    Ok(out)
}

/// A path without links.
pub(super) fn real(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io("opening", e).with_path(path))
}

/// Where a file's bytes are, if that is in the folder `root`, a path without links.
pub(super) fn inside(root: &Path, path: &Path) -> Result<PathBuf> {
    let target = real(path)?;
    let allowed = target.starts_with(root) || target.parent() == hub_blobs(root).as_deref();
    if !allowed {
        return Err(Error::unsafe_content("this link leads out of the model's folder")
            .with_path(path)
            .with_hint("put the file itself in its place"));
    }
    let meta = fs::metadata(&target).map_err(|e| Error::io("opening", e).with_path(path))?;
    if meta.is_dir() {
        let what = "this is a link to a folder, or a folder where a file is recorded";
        return Err(Error::unsafe_content(what).with_path(path));
    }
    if !meta.is_file() {
        let what = "this is a device, pipe or socket, and no part of a model";
        return Err(Error::unsafe_content(what).with_path(path));
    }
    // A file that is no link is named as the caller names it.
    let link = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink());
    Ok(if link { target } else { path.to_owned() })
}

/// The folder of blobs beside a snapshot of the hub's cache: `models--x/snapshots/REVISION` has links into
/// `models--x/blobs`.
fn hub_blobs(root: &Path) -> Option<PathBuf> {
    let snapshots = root.parent()?;
    (snapshots.file_name()? == "snapshots").then(|| snapshots.with_file_name("blobs"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use weighbridge_formats::ErrorKind;

    #[test]
    fn subfolders_count_and_hidden_files_and_records_do_not() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["1_Pooling", ".git"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in [
            "config.json",
            "1_Pooling/config.json",
            ".git/HEAD",
            ".gitattributes",
            "weighbridge.json",
            "m.weighbridge.json",
            "weighbridge.version.json",
            "model.sig",
            "1_Pooling/weighbridge.json",
        ] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        let names: Vec<_> = list(dir.path()).unwrap().into_keys().collect();
        assert_eq!(names, ["1_Pooling/config.json", "1_Pooling/weighbridge.json", "config.json"]);
    }

    #[test]
    fn links_stay_in_the_folder_or_in_the_hubs_cache() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("models--x/snapshots/abc");
        let blobs = dir.path().join("models--x/blobs");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("aa"), "x").unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        fs::write(root.join("real"), "x").unwrap();
        symlink("../../blobs/aa", root.join("model.safetensors")).unwrap();
        symlink("real", root.join("link")).unwrap();
        assert_eq!(list(&root).unwrap().len(), 3);
        for target in ["../../../secret", "/dev/null", "..", "nowhere"] {
            symlink(target, root.join("bad")).unwrap();
            assert!(list(&root).is_err(), "{target}");
            fs::remove_file(root.join("bad")).unwrap();
        }
        symlink(".", root.join("loop")).unwrap();
        assert_eq!(list(&root).unwrap_err().kind(), ErrorKind::UnsafeContent);
    }
}
