//! The files of a folder, and what in it is no file.

use std::path::{Path, PathBuf};

use weighbridge_formats::{Error, Result};

use super::report::{Finding, Place, Verdict};
use super::subject::finding;

/// The most files of one folder, and how deep folders may stand in each other.
const MOST: usize = 10_000_000;
const DEEPEST: usize = 64;

/// What is to be looked at, and what was found on the way.
#[derive(Default)]
pub(crate) struct Found {
    /// The files, in the order of their paths.
    pub(crate) files: Vec<PathBuf>,
    /// Links and special files, with the path of each.
    pub(crate) findings: Vec<(PathBuf, Finding)>,
}

/// Finds the files at and below a path. A link that was given is followed; one below a folder only where it stays in
/// the folder, or leads from a snapshot of a cache to the blobs beside it.
pub(crate) fn walk(path: &Path, found: &mut Found) -> Result<()> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io("looking at it", e).with_path(path))?;
    if !meta.is_dir() {
        if meta.is_file() {
            found.files.push(path.to_owned());
        } else {
            found.special(path);
        }
        return Ok(());
    }
    let real = std::fs::canonicalize(path).map_err(|e| Error::io("resolving the path", e).with_path(path))?;
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let reading = |e| Error::io("reading the folder", e).with_path(&folder);
        for entry in std::fs::read_dir(&folder).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(reading)?);
            if kind.is_symlink() {
                found.link(&path, &real);
            } else if kind.is_dir() {
                // What version control keeps of old versions is no part of the model.
                if entry.file_name() == ".git" {
                    continue;
                }
                if depth + 1 >= DEEPEST {
                    let what = format!("folders stand in each other more than {DEEPEST} deep");
                    found.say(&path, "unreadable", Verdict::Unknown, what);
                } else {
                    folders.push((path, depth + 1));
                }
            } else if kind.is_file() {
                found.files.push(path);
            } else {
                found.special(&path);
            }
            if found.files.len() > MOST {
                return Err(Error::limit(format!("more than {MOST} files")).with_path(real));
            }
        }
    }
    found.files.sort();
    found.findings.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(())
}

impl Found {
    fn say(&mut self, path: &Path, id: &str, verdict: Verdict, what: String) {
        let place = Place { file: path.to_owned(), ..Place::default() };
        self.findings.push((path.to_owned(), finding(&place, id, verdict, what)));
    }

    fn special(&mut self, path: &Path) {
        let what = "this is a device, pipe or socket, and no file".to_owned();
        self.say(path, "path-escape", Verdict::Dangerous, what);
    }

    fn link(&mut self, path: &Path, root: &Path) {
        let shown = std::fs::read_link(path).unwrap_or_default();
        let Ok(target) = std::fs::canonicalize(path) else {
            let what = format!("a link to {shown:?}, which is not there");
            return self.say(path, "path-escape", Verdict::Unknown, what);
        };
        if target.starts_with(root) {
            // What it leads to is looked at where it stands, unless it stands around the link: then there is no end.
            return;
        }
        if target.is_file() && is_blob_of(root, &target) {
            return self.files.push(path.to_owned());
        }
        let what = format!("a link that leads out of the folder, to {shown:?}; it was not followed");
        self.say(path, "path-escape", Verdict::Dangerous, what);
    }
}

/// Whether a link of a snapshot leads where caches of models have the contents: `blobs` beside `snapshots`.
fn is_blob_of(root: &Path, target: &Path) -> bool {
    let home =
        root.ancestors().find(|p| p.file_name().is_some_and(|n| n == "snapshots")).and_then(Path::parent);
    home.is_some_and(|home| target.parent() == Some(&*home.join("blobs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_out_and_pipes_are_findings_and_never_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        std::fs::create_dir_all(model.join("sub")).unwrap();
        std::fs::write(model.join("sub/a.bin"), "a").unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        symlink("../secret", model.join("out")).unwrap();
        symlink("sub/a.bin", model.join("inside")).unwrap();
        symlink("..", model.join("up")).unwrap();
        symlink("nowhere", model.join("dangling")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(model.join("socket")).unwrap();
        let mut found = Found::default();
        walk(&model, &mut found).unwrap();
        drop(socket);
        assert_eq!(found.files, [model.join("sub/a.bin")]);
        let said: Vec<_> = found
            .findings
            .iter()
            .map(|(p, f)| (p.file_name().unwrap().to_str().unwrap(), f.rule, f.verdict))
            .collect();
        assert_eq!(
            said,
            [
                ("dangling", "path-escape", Verdict::Unknown),
                ("out", "path-escape", Verdict::Dangerous),
                ("socket", "path-escape", Verdict::Dangerous),
                ("up", "path-escape", Verdict::Dangerous),
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn snapshots_of_a_cache_are_links_to_its_blobs() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (blobs, snapshot) = (dir.path().join("m/blobs"), dir.path().join("m/snapshots/abc"));
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(blobs.join("1234"), "a").unwrap();
        symlink("../../blobs/1234", snapshot.join("model.safetensors")).unwrap();
        let mut found = Found::default();
        walk(&snapshot, &mut found).unwrap();
        assert_eq!(found.files, [snapshot.join("model.safetensors")]);
        assert!(found.findings.is_empty());
    }
}
