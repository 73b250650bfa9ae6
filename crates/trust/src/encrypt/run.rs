//! Encrypting and decrypting files and folders on disk, by the write engine: complete or not at all.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weighbridge_formats::source::{fold, is_plain_relative};
use weighbridge_formats::write::{
    ExecuteOptions, FilePlan, WritePlan, Written, execute, execute_folder, uninterrupted,
};
use weighbridge_formats::{Data, Error, ReadAt, Result, Source};

use super::container::Encrypted;
use super::seal::Sealed;
use super::tar::{Entry, Packed};
use super::{Identities, Recipients};
use crate::look::is_folder;

/// The most entries of a folder that is encrypted, and how deep.
const ENTRIES: usize = 100_000;
const DEPTH: usize = 32;

/// Choices for encrypting.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct EncryptOptions<'a> {
    /// Write text (base64) in place of bytes: a third longer, and it can be pasted.
    pub armor: bool,
    /// How to write.
    pub execute: ExecuteOptions<'a>,
}

/// Choices for decrypting.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct DecryptOptions<'a> {
    /// Whether a tar is unpacked to a folder; `None` unpacks what was a folder when this crate encrypted it.
    pub unpack: Option<bool>,
    /// How to write. Without [`ExecuteOptions::mode`] files get 0600 and folders 0700.
    pub execute: ExecuteOptions<'a>,
}

/// What decrypting wrote.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Decrypted {
    /// Whether a folder came out.
    pub folder: bool,
    /// The files.
    pub written: Written,
}

/// Encrypts a file or folder to a new file.
///
/// Of a folder every file is inside, hidden ones too; links to files of the folder, and in a snapshot of the hub's cache
/// to its blobs, are followed.
///
/// # Errors
/// `UnsafeContent` for links that lead elsewhere, devices and pipes; `InvalidOptions` for names that not every system can
/// have, and where nobody is named who may read it; else as [`execute`].
pub fn encrypt(
    input: &Path,
    output: &Path,
    recipients: &Recipients,
    options: &EncryptOptions<'_>,
) -> Result<Written> {
    let plain: Arc<dyn ReadAt> = if is_folder(input)? {
        Arc::new(Packed::new(entries(input)?)?)
    } else {
        Source::open(input)?.reader().clone()
    };
    let sealed = Sealed::new(plain, recipients, options.armor, options.execute.threads)?;
    let (folder, name) = place(output)?;
    let mut file = FilePlan::new(name);
    file.push_data(Data::lazy(sealed), "the encrypted file", false)?;
    let plan = WritePlan { files: vec![file], notes: Vec::new() };
    execute(plan, folder, &options.execute)
}

/// Decrypts a file to a new file or folder, which appears after the last chunk was found to be what was written.
///
/// # Errors
/// As [`Encrypted::open`] and [`execute`], for a folder as [`execute_folder`].
pub fn decrypt(
    input: &Path,
    output: &Path,
    identities: &Identities,
    options: &DecryptOptions<'_>,
) -> Result<Decrypted> {
    let opened = Encrypted::open(input, identities)?;
    let mut execution = options.execute.clone();
    execution.mode = execution.mode.or(Some(0o600));
    let folder = options.unpack.unwrap_or(opened.is_marked());
    let mut plan = WritePlan::default();
    if folder {
        if !opened.is_folder() {
            return Err(Error::invalid_options(
                "there is no folder in this file, so nothing is to be unpacked",
            )
            .with_path(input));
        }
        for (name, _) in opened.members() {
            let mut file = FilePlan::new(name);
            let source = opened.source(name)?;
            file.push_data(Data::Lazy(source.reader().clone()), name, false)?;
            plan.files.push(file);
        }
        let written = execute_folder(plan, output, &execution).map_err(|e| in_container(e, input))?;
        return Ok(Decrypted { folder, written });
    }
    let (parent, name) = place(output)?;
    let mut file = FilePlan::new(name);
    file.push_data(Data::Lazy(opened.reader()), "the decrypted file", false)?;
    plan.files.push(file);
    let written = execute(plan, parent, &execution).map_err(|e| in_container(e, input))?;
    Ok(Decrypted { folder, written })
}

/// A chunk that was changed is a fault of the input, whatever is written.
fn in_container(error: Error, input: &Path) -> Error {
    match error.kind() {
        weighbridge_formats::ErrorKind::Mismatch => Error::mismatch(error.message().to_owned())
            .with_path(input)
            .at_offset(error.offset().unwrap_or_default())
            .with_hint(error.hint().unwrap_or_default().to_owned()),
        _ => error,
    }
}

/// The folder and the name of a file to be.
fn place(output: &Path) -> Result<(PathBuf, String)> {
    let name = output.file_name().and_then(|n| n.to_str()).filter(|_| !output.is_dir());
    let name = name.ok_or_else(|| {
        let what = if output.is_dir() {
            "this is a folder, and a file is to be written"
        } else {
            "this is no file name in UTF-8"
        };
        Error::invalid_options(what).with_path(output).with_hint("name the file")
    })?;
    Ok((output.parent().unwrap_or(Path::new("")).to_owned(), name.to_owned()))
}

/// What is in a folder, itself first, in the order of names.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let real = canonical(folder)?;
    let root = real.file_name().and_then(|n| n.to_str()).filter(|n| is_plain_relative(n)).unwrap_or("model");
    let mut found = vec![Entry { name: root.to_owned(), file: None }];
    let mut folded: HashMap<String, String> = HashMap::new();
    let mut todo = vec![(folder.to_owned(), root.to_owned(), 0)];
    while let Some((path, prefix, depth)) = todo.pop() {
        let fail = |e| Error::io("listing the folder", e).with_path(&path);
        for entry in uninterrupted(|| fs::read_dir(&path)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::invalid_options("the name of a file is not UTF-8").with_path(path));
            };
            if !is_plain_relative(&name) {
                let what = "not every system can have a file of this name";
                return Err(Error::invalid_options(what).with_path(path).with_hint("rename the file"));
            }
            let full = format!("{prefix}/{name}");
            if let Some(other) = folded.insert(fold(&full), full.clone()) {
                let what = format!("this and {other:?} are one name where case does not count");
                return Err(Error::invalid_options(what).with_path(path).with_hint("rename one of them"));
            }
            if found.len() >= ENTRIES || depth > DEPTH {
                let what =
                    format!("the folder has more than {ENTRIES} entries, or nests deeper than {DEPTH}");
                return Err(Error::limit(what).with_path(folder));
            }
            let kind = entry.file_type().map_err(|e| Error::io("opening", e).with_path(&path))?;
            if kind.is_dir() {
                found.push(Entry { name: full.clone(), file: None });
                todo.push((path, full, depth + 1));
                continue;
            }
            let target = if kind.is_symlink() { linked(&path, &real)? } else { path };
            let len = Source::open(&target)?.len();
            found.push(Entry { name: full, file: Some((target, len)) });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io("resolving the path", e).with_path(path))
}

/// The file that a link leads to, if that is the folder's own, or a blob beside a snapshot of the hub's cache.
fn linked(link: &Path, root: &Path) -> Result<PathBuf> {
    let target = canonical(link)?;
    let snapshots = root.parent().filter(|p| p.file_name().is_some_and(|n| n == "snapshots"));
    let blobs = snapshots.map(|s| s.with_file_name("blobs"));
    if target.is_file() && (target.starts_with(root) || target.parent() == blobs.as_deref()) {
        return Ok(target);
    }
    Err(Error::unsafe_content("this link leads out of the folder, or to no file")
        .with_path(link)
        .with_hint("put the file itself in its place"))
}
