//! The files of a model's folder, found once, with what may not be among them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use weighbridge_formats::source::{fold, is_plain_relative};
use weighbridge_formats::{Error, ErrorKind, Limits, Note, Result, Source};

/// The most entries of a folder and its subfolders.
const ENTRIES: usize = 100_000;
/// How deep subfolders may nest.
const DEPTH: usize = 32;
/// The longest JSON file that is read as a whole: configs have kilobytes.
pub(crate) const JSON_BYTES: u64 = 16 << 20;

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelFile {
    /// Its name in the folder, with `/` between the parts.
    pub(crate) name: String,
    /// Where its bytes are: links are followed already.
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
}

impl ModelFile {
    pub(crate) fn open(&self) -> Result<Source> {
        Source::open(&self.path)
    }
}

/// A model's folder. Hidden files and folders, which no loader reads, are no part of it.
#[derive(Debug)]
pub(crate) struct ModelFolder {
    pub(crate) root: PathBuf,
    /// In the order of their names.
    pub(crate) files: Vec<ModelFile>,
    /// What is in the folder and no part of the model.
    pub(crate) skipped: Vec<String>,
}

impl ModelFolder {
    /// Lists a folder.
    ///
    /// A link may lead to a file inside the folder, or, in a snapshot of the hub's cache, to one of its blobs. Where
    /// `follow_links` is given it may lead to any file. A link to a folder is never followed.
    ///
    /// # Errors
    /// `NotFound` and `Io` as the system says; `UnsafeContent` for a link that leads elsewhere, and for devices, pipes
    /// and sockets; `InvalidOptions` for names that some system cannot have; `LimitExceeded` for more than 100,000
    /// entries or 32 levels.
    pub(crate) fn scan(root: &Path, follow_links: bool) -> Result<Self> {
        let meta =
            fs::metadata(root).map_err(|e| Error::io("opening the model's folder", e).with_path(root))?;
        if !meta.is_dir() {
            return Err(
                Error::invalid_options("this is a file, and a model's folder is wanted").with_path(root)
            );
        }
        let real = canonical(root)?;
        let (mut files, mut skipped) = (Vec::new(), Vec::new());
        let mut folded: HashMap<String, String> = HashMap::new();
        let mut waiting = vec![(String::new(), 0)];
        let mut seen = 0;
        while let Some((prefix, depth)) = waiting.pop() {
            let folder = root.join(&prefix);
            let fail = |e| Error::io("listing the folder", e).with_path(&folder);
            for entry in weighbridge_formats::write::uninterrupted(|| fs::read_dir(&folder)).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let path = entry.path();
                seen += 1;
                if seen > ENTRIES {
                    let what = format!("the folder has more than {ENTRIES} entries");
                    return Err(Error::limit(what).with_path(root));
                }
                let Ok(name) = entry.file_name().into_string() else {
                    return Err(Error::invalid_options("the name of a file is not UTF-8").with_path(path));
                };
                let full = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
                if name.starts_with('.') {
                    skipped.push(full);
                    continue;
                }
                if !is_plain_relative(&name) {
                    let what = format!("{full:?} is a name that not every system can have");
                    return Err(Error::invalid_options(what).with_path(root).with_hint("rename the file"));
                }
                if let Some(other) = folded.insert(fold(&full), full.clone()) {
                    let what = format!("{full:?} and {other:?} are one name where case does not count");
                    return Err(Error::invalid_options(what).with_path(root).with_hint("rename one of them"));
                }
                let kind = fs::symlink_metadata(&path)
                    .map_err(|e| Error::io("opening", e).with_path(&path))?
                    .file_type();
                if kind.is_dir() {
                    if depth + 1 > DEPTH {
                        let what = format!("subfolders nest deeper than {DEPTH} levels");
                        return Err(Error::limit(what).with_path(path));
                    }
                    waiting.push((full, depth + 1));
                    continue;
                }
                let target = if kind.is_symlink() { linked(&path, &real, follow_links)? } else { path };
                let meta = fs::metadata(&target).map_err(|e| Error::io("opening", e).with_path(&target))?;
                if !meta.is_file() {
                    let what = "this is a device, pipe or socket, and no part of a model";
                    return Err(Error::unsafe_content(what).with_path(target));
                }
                files.push(ModelFile { name: full, path: target, bytes: meta.len() });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        skipped.sort();
        Ok(Self { root: root.to_owned(), files, skipped })
    }

    pub(crate) fn file(&self, name: &str) -> Option<&ModelFile> {
        self.files.binary_search_by(|f| f.name.as_str().cmp(name)).ok().and_then(|i| self.files.get(i))
    }

    /// Checks that a file which is to be written is not there in another spelling: where case does not count it would
    /// be overwritten.
    ///
    /// # Errors
    /// `InvalidOptions` with the other spelling.
    pub(crate) fn check_spelling(&self, name: &str) -> Result<()> {
        let lower = name.to_lowercase();
        match self.files.iter().find(|f| f.name != name && f.name.to_lowercase() == lower) {
            None => Ok(()),
            Some(other) => {
                let what =
                    format!("the file is called {:?}, and {name:?} is what is read and written", other.name);
                Err(Error::invalid_options(what).with_path(&self.root).with_hint("rename the file"))
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file(name).is_some()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |n, f| n.saturating_add(f.bytes))
    }

    /// A whole file; `None` if there is none of that name.
    ///
    /// # Errors
    /// `LimitExceeded` if it is longer than `limit`; what the system says.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.file(name).map(|f| read_file(&f.path, limit)).transpose()
    }

    /// A JSON file as a tree; `None` if there is none of that name.
    ///
    /// # Errors
    /// As [`ModelFolder::read`]; `Malformed` for what is no JSON or nests deeper than 127 levels.
    pub(crate) fn json(&self, name: &str) -> Result<Option<serde_json::Value>> {
        let Some(bytes) = self.read(name, JSON_BYTES)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(e) => Err(Error::malformed(format!("this is no JSON: {e}")).with_path(self.root.join(name))),
        }
    }

    /// Says what was left out, if anything was.
    pub(crate) fn skipped_note(&self) -> Option<Note> {
        let (shown, more) = self.skipped.split_at(self.skipped.len().min(5));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let shown: Vec<_> = shown.iter().map(|n| format!("{n:?}")).collect();
        (!shown.is_empty())
            .then(|| Note::info(format!("hidden files are no part of the model: {}{more}", shown.join(", "))))
    }
}

/// A file of a known largest size.
///
/// # Errors
/// `LimitExceeded` if it is longer; what the system says.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let source = Source::open(path)?;
    if source.len() > limit {
        let what =
            format!("the file has {} bytes, and at most {limit} are read of such a file", source.len());
        return Err(Error::limit(what).with_path(path));
    }
    source.read_vec(0, source.len(), &Limits::default()).map_err(|e| e.with_path(path))
}

/// As [`read_file`]; `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match read_file(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io("resolving the path", e).with_path(path))
}

/// The file that a link leads to, if it may be followed.
fn linked(link: &Path, root: &Path, follow: bool) -> Result<PathBuf> {
    let target = canonical(link)?;
    let meta = fs::metadata(&target).map_err(|e| Error::io("opening", e).with_path(link))?;
    if meta.is_dir() {
        return Err(Error::unsafe_content("this is a link to a folder; only links to files are followed")
            .with_path(link)
            .with_hint("put the folder itself in its place"));
    }
    if follow || target.starts_with(root) || target.parent() == hub_blobs(root).as_deref() {
        return Ok(target);
    }
    Err(Error::unsafe_content("this link leads out of the model's folder")
        .with_path(link)
        .with_hint("put the file itself in its place, or follow links if you made them (`--follow-links`)"))
}

/// The folder of blobs beside a snapshot of the hub's cache: `models--x/snapshots/REVISION` has links into
/// `models--x/blobs`.
fn hub_blobs(root: &Path) -> Option<PathBuf> {
    let snapshots = root.parent()?;
    (snapshots.file_name()? == "snapshots").then(|| snapshots.with_file_name("blobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        for file in ["config.json", "1_Pooling/config.json", ".git/HEAD", ".x"] {
            fs::write(dir.path().join(file), "{}").unwrap();
        }
        dir
    }

    #[test]
    fn subfolders_are_part_and_hidden_files_are_not() {
        let dir = model();
        let folder = ModelFolder::scan(dir.path(), false).unwrap();
        let names: Vec<_> = folder.files.iter().map(|f| &*f.name).collect();
        assert_eq!(names, ["1_Pooling/config.json", "config.json"]);
        assert_eq!(folder.skipped, [".git", ".x"]);
        assert!(folder.skipped_note().unwrap().text.contains(".git"));
        assert_eq!((folder.bytes(), folder.has("config.json")), (4, true));
        assert_eq!(folder.json("config.json").unwrap(), Some(serde_json::json!({})));
        assert_eq!(folder.json("absent.json").unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused() {
        use std::os::unix::fs::symlink;
        let (dir, outside) = (model(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "s").unwrap();
        let link = dir.path().join("vocab.txt");
        symlink(outside.path().join("secret"), &link).unwrap();
        let error = ModelFolder::scan(dir.path(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{error}");
        let followed = ModelFolder::scan(dir.path(), true).unwrap();
        assert_eq!(followed.read("vocab.txt", 9).unwrap().unwrap(), b"s");
        fs::remove_file(&link).unwrap();
        symlink("config.json", &link).unwrap();
        assert!(ModelFolder::scan(dir.path(), false).unwrap().has("vocab.txt"));
        fs::remove_file(&link).unwrap();
        symlink(outside.path(), &link).unwrap();
        assert_eq!(ModelFolder::scan(dir.path(), true).unwrap_err().kind(), ErrorKind::UnsafeContent);
        fs::remove_file(&link).unwrap();
        symlink("absent", &link).unwrap();
        assert_eq!(ModelFolder::scan(dir.path(), true).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn a_snapshot_of_the_hubs_cache_is_a_folder_of_links_to_blobs() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (snapshot, blobs) = (dir.path().join("m/snapshots/abc"), dir.path().join("m/blobs"));
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(&blobs).unwrap();
        fs::write(blobs.join("77"), "{}").unwrap();
        symlink("../../blobs/77", snapshot.join("config.json")).unwrap();
        assert!(ModelFolder::scan(&snapshot, false).unwrap().has("config.json"));
        fs::write(dir.path().join("m/other"), "{}").unwrap();
        symlink("../../other", snapshot.join("x.json")).unwrap();
        assert!(ModelFolder::scan(&snapshot, false).is_err());
    }

    #[test]
    fn configs_that_are_huge_or_deep_are_errors() {
        let dir = model();
        let path = dir.path().join("config.json");
        fs::write(&path, "[".repeat(100_000)).unwrap();
        let read = || ModelFolder::scan(dir.path(), false).unwrap().json("config.json").unwrap_err().kind();
        assert_eq!(read(), ErrorKind::Malformed);
        fs::File::create(&path).unwrap().set_len(JSON_BYTES + 1).unwrap();
        assert_eq!(read(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn a_file_is_no_folder_and_deep_folders_end() {
        let dir = model();
        let error = ModelFolder::scan(&dir.path().join("config.json"), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
        let mut deep = dir.path().to_owned();
        for _ in 0..40 {
            deep.push("d");
        }
        fs::create_dir_all(deep).unwrap();
        assert_eq!(ModelFolder::scan(dir.path(), false).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
