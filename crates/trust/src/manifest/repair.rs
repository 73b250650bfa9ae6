//! Repairing what differs from a manifest out of a good copy, of which only what is needed is read.
//!
//! Of a large file of weights the tensors that are still as recorded stay, and the rest is taken from the copy: the copy's
//! header says where each tensor lies, and a tensor of the damaged file that has the recorded hash is good wherever the
//! damage is. The new file is complete and has the recorded digests before it takes the old one's place.

use std::path::{Path, PathBuf};

use weighbridge_formats::logical::tensor_hash;
use weighbridge_formats::write::{ExecuteOptions, FileDigests, FilePlan, Observer, WritePlan, execute};
use weighbridge_formats::{Data, Error, Result, Source};

use super::files::{DigestOptions, IN_PASS, Job, Wanted, run};
use super::hashes::{identity, spans};
use super::listing;
use super::record::{FileEntry, Manifest, check_path};
use super::verify::{Change, Recorded, Verification, VerifyOptions};
use crate::look::{is_folder, is_there};

/// Files up to this size are taken whole: reading them costs no more than looking for what is good in them.
const SMALL: u64 = 256 << 10;

/// What a repair did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// The files that are now as recorded.
    pub repaired: Vec<RepairedFile>,
    /// The files that are not, each with the reason.
    pub failed: Vec<(String, String)>,
    /// The bytes that were read of the good copy.
    pub taken: u64,
}

/// A file that was repaired.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairedFile {
    /// Its path below the folder.
    pub path: String,
    /// Its length.
    pub size: u64,
    /// How many of its bytes are from the good copy.
    pub taken: u64,
}

/// Puts files that are missing or changed in order, from a copy: a folder with files of the same paths, or, where one file
/// is to be repaired, a file. Files that were added stay.
///
/// # Errors
/// `Cancelled`, and what opening the copy's folder says. What could not be done for single files is in the result: each of
/// them is as it was.
pub fn repair(
    recorded: &Recorded,
    found: &Verification,
    from: &Path,
    options: &VerifyOptions<'_>,
) -> Result<Repair> {
    let root = listing::real(&recorded.folder)?;
    let todo = found.differences.iter().filter(|d| !matches!(d.change, Change::Added));
    let todo: Vec<&FileEntry> = todo.filter_map(|d| recorded.manifest.file(&d.path)).collect();
    let mut out = Repair::default();
    for entry in &todo {
        if options.observer.is_some_and(Observer::cancelled) {
            return Err(Error::cancelled("the repair was cancelled"));
        }
        let copy = copy_of(entry, from, todo.len() == 1);
        let done = copy.and_then(|copy| one(recorded, &root, entry, from, &copy, options));
        match done {
            Ok(taken) => {
                out.taken = out.taken.saturating_add(taken);
                out.repaired.push(RepairedFile { path: entry.path.clone(), size: entry.size, taken });
            }
            Err(e) if e.kind() == weighbridge_formats::ErrorKind::Cancelled => return Err(e),
            Err(e) => out.failed.push((entry.path.clone(), e.to_string())),
        }
    }
    Ok(out)
}

/// The good copy of a file.
fn copy_of(entry: &FileEntry, from: &Path, only: bool) -> Result<PathBuf> {
    if is_folder(from)? {
        return listing::inside(&listing::real(from)?, &from.join(&entry.path));
    }
    let name = entry.path.rsplit('/').next();
    if only || from.file_name().and_then(|n| n.to_str()) == name {
        return Ok(from.to_owned());
    }
    Err(Error::not_found("the good copy is another file").with_path(from))
}

/// Repairs a file; returns how many bytes were taken from the copy.
fn one(
    recorded: &Recorded,
    root: &Path,
    entry: &FileEntry,
    from: &Path,
    copy: &Path,
    options: &VerifyOptions<'_>,
) -> Result<u64> {
    let good = Source::open(copy)?;
    if good.len() != entry.size {
        let what = format!("the copy has {} bytes, and {} are recorded", good.len(), entry.size);
        return Err(Error::mismatch(what).with_path(copy).with_hint("name a copy that is as recorded"));
    }
    let target = place(&recorded.folder, root, &entry.path)?;
    let damaged = Source::open(&target).ok();
    let kept = match &damaged {
        Some(_) if entry.size > SMALL => kept(&recorded.manifest, entry, &target, from, copy, options)?,
        _ => Vec::new(),
    };
    let (Some(name), Some(parent)) = (target.file_name().and_then(|n| n.to_str()), target.parent()) else {
        return Err(Error::invalid_options("the file has no name").with_path(target));
    };
    let mut plan = FilePlan::new(name);
    let (mut at, mut taken) = (0, 0);
    let take = |plan: &mut FilePlan<'_>, from: u64, to: u64| -> Result<u64> {
        if to > from {
            plan.push_data(Data::lazy(good.slice(from, to - from)?), "good copy", false)?;
        }
        Ok(to - from)
    };
    for (offset, len) in kept {
        taken += take(&mut plan, at, offset)?;
        if let Some(damaged) = &damaged {
            plan.push_data(Data::lazy(damaged.slice(offset, len)?), "damaged file", false)?;
        }
        at = offset + len;
    }
    taken += take(&mut plan, at, entry.size)?;
    let check = |_: &Path, written: &[FileDigests]| {
        let is_recorded =
            |d: &FileDigests| (d.size, d.in_order, d.blake3) == (entry.size, entry.sha256, entry.blake3);
        if matches!(written, [one] if is_recorded(one)) {
            return Ok(Vec::new());
        }
        let what = "with what the copy has, the file would not be as recorded";
        Err(Error::mismatch(what).with_path(copy).with_hint("name a copy that is as recorded"))
    };
    let mut execution = ExecuteOptions::default();
    execution.overwrite = true;
    execution.threads = options.threads;
    execution.observer = options.observer;
    execution.digests = Some(IN_PASS);
    execution.complete = Some(&check);
    execute(WritePlan { files: vec![plan], notes: Vec::new() }, parent, &execution)?;
    Ok(taken)
}

/// Where a file is to be: where it is, or where it belongs in the folder, whose subfolders are made.
fn place(folder: &Path, root: &Path, path: &str) -> Result<PathBuf> {
    check_path(path)?;
    let target = folder.join(path);
    if is_there(&target)? {
        return listing::inside(root, &target);
    }
    let mut at = folder.to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        at.push(part);
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let what = "a link or a file stands where a folder is recorded";
                return Err(Error::unsafe_content(what).with_path(at).with_hint("remove it"));
            }
            Err(_) => {
                std::fs::create_dir(&at).map_err(|e| Error::io("creating a folder", e).with_path(&at))?;
            }
        }
    }
    Ok(target)
}

/// The parts of a damaged file that are tensors as recorded, in their order, none over another.
fn kept(
    manifest: &Manifest,
    entry: &FileEntry,
    damaged: &Path,
    from: &Path,
    copy: &Path,
    options: &VerifyOptions<'_>,
) -> Result<Vec<(u64, u64)>> {
    let Some(model) = manifest.models.iter().find(|m| m.files.contains(&entry.path)) else {
        return Ok(Vec::new());
    };
    // External data is no model by itself, and is opened by what refers to it. What cannot be opened is taken whole.
    let open = |path: &Path| options.registry.open_path(path, &options.read);
    let whole = from.is_dir().then(|| open(&from.join(&model.path)));
    let opened = match whole {
        Some(Ok(archive)) => Ok(archive),
        _ => open(copy),
    };
    let Ok(archive) = opened else { return Ok(Vec::new()) };
    let meta = |path: &Path| std::fs::metadata(path).map_err(|e| Error::io("opening", e).with_path(path));
    let (this, len) = (identity(&meta(copy)?), meta(damaged)?.len());
    let mut parts: Vec<(u64, u64, usize)> = spans(&*archive)
        .into_iter()
        .filter(|(_, (offset, size, id))| Some(*id) == this && offset.saturating_add(*size) <= len)
        .map(|(tensor, (offset, size, _))| (offset, size, tensor))
        .collect();
    parts.sort_unstable();
    let mut end = 0;
    parts.retain(|(offset, size, _)| {
        let free = *offset >= end;
        end = if free { offset + size } else { end };
        free
    });
    let wanted = Wanted { sha256: false, blake3: false };
    let job = Job::new(damaged, wanted).parts(parts.iter().map(|p| (p.0, p.1)).collect());
    let done = run(vec![job], &DigestOptions::default().threads(options.threads))?.pop();
    let done = done.ok_or_else(|| Error::invalid_options("the file was not hashed"))??;
    let good = parts.into_iter().zip(done.parts).filter(|((_, _, tensor), digest)| {
        let info = &archive.tensors()[*tensor];
        model.tensor(info.name()).is_some_and(|t| t.hash == tensor_hash(info, digest))
    });
    Ok(good.map(|((offset, size, _), _)| (offset, size)).collect())
}
