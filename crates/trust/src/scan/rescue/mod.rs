//! The tensors of a file that nobody should load, as safetensors.
//!
//! Read are the file itself and what it holds: members of archives, compressed streams, pickles in a row, bytes in
//! pickles. The readers describe and run nothing, so what a file would do does not matter to them; and they go on where
//! a file breaks, contradicts itself or holds other objects, so that one part costs no other (`zip`, `pickles`, `npy`).

mod npy;
mod pickles;
mod zip;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use weighbridge_formats::write::Observer;
use weighbridge_formats::{
    Archive, ConvertOptions, Data, Error, Limits, MemoryArchive, ReadAt, ReadOptions, Registry, Result,
    Source, Tensor, save,
};

use super::engine::{self, Opener, each_part};
use super::policy::Policy;
use super::subject::{Bounds, Role, Sink, Subject};
use super::walk;
use super::{containers, pickle, unpack::Packing};

/// How to rescue.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RescueOptions<'a> {
    /// What the readers may allocate or do.
    pub limits: Limits,
    /// What unpacking may cost.
    pub bounds: Bounds,
    /// Leave to replace a file that exists.
    pub overwrite: bool,
    /// Told of the write; may cancel it.
    pub observer: Option<&'a dyn Observer>,
    /// As [`ScanOptions::open`](super::ScanOptions::open).
    pub open: Option<Opener<'a>>,
    /// The permissions of what is written, as [`ConvertOptions::mode`] has them.
    pub mode: Option<u32>,
}

/// What was rescued, and what was not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rescued {
    /// How many tensors were written.
    pub tensors: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The files that were written, each with its length.
    pub files: Vec<(PathBuf, u64)>,
    /// Where the tensors were found, by the members that lead there; empty for the file itself.
    pub parts: Vec<String>,
    /// What was rescued though something speaks against it: a checksum that differs, two members of one name.
    pub doubts: Vec<(String, String)>,
    /// What was not rescued: a tensor or part, and why.
    pub lost: Vec<(String, String)>,
}

/// The most parts whose tensors are taken together, and the most losses and doubts that are listed.
const PARTS: usize = 10_000;
const LOSSES: usize = 1000;

/// Tensors that were found in a part.
struct Found {
    /// The members that lead to it.
    part: String,
    archive: Box<dyn Archive>,
}

/// What stands against the result.
#[derive(Default)]
struct Losses {
    doubts: Vec<(String, String)>,
    lost: Vec<(String, String)>,
}

impl Losses {
    fn lost(&mut self, what: String, why: String) {
        if self.lost.len() < LOSSES {
            self.lost.push((if what.is_empty() { "the file".to_owned() } else { what }, why));
        }
    }

    fn doubted(&mut self, what: String, why: String) {
        if self.doubts.len() < LOSSES {
            self.doubts.push((what, why));
        }
    }
}

/// Writes the tensors of a file, or of all files of a folder, to a file of safetensors, streaming, complete or not at
/// all. Nothing else of them is written. A tensor that cannot be read in full is left out, and said.
///
/// A name that tensors of several parts have gets the part before it.
///
/// # Errors
/// `NotFound` or `Io` for the path, `Unsupported` where no tensor could be read, and what the write engine says.
pub fn rescue(path: &Path, out: &Path, options: &RescueOptions<'_>) -> Result<Rescued> {
    let (mut found, mut losses, mut length) = (Vec::new(), Losses::default(), 0u64);
    if path.is_dir() {
        let mut walked = walk::Found::default();
        walk::walk(path, &mut walked)?;
        for file in walked.files {
            let shown = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
            match engine::open(&file, options.open) {
                Ok((source, name)) => {
                    length = length.saturating_add(source.len());
                    look(&name, source, &shown, options, &mut found, &mut losses);
                }
                Err(error) => losses.lost(shown, error.message().to_owned()),
            }
        }
    } else {
        let (source, name) = engine::open(path, options.open)?;
        length = source.len();
        look(&name, source, "", options, &mut found, &mut losses);
    }
    let mut rescued = Rescued { parts: found.iter().map(|f| f.part.clone()).collect(), ..Rescued::default() };
    let tensors = gather(&found, most_of(length, options), &mut rescued, &mut losses);
    (rescued.lost, rescued.doubts) = (losses.lost, losses.doubts);
    if tensors.is_empty() {
        let why = rescued.lost.first().map_or(String::new(), |(part, why)| format!(" ({part}: {why})"));
        let text = format!("no tensor could be read from it{why}");
        return Err(Error::unsupported(text).with_path(path).with_hint("ask for the weights as safetensors"));
    }
    let registry = Registry::builtin();
    let mut choices = ConvertOptions::default();
    choices.format = Some("safetensors".to_owned());
    choices.overwrite = options.overwrite;
    choices.observer = options.observer;
    choices.mode = options.mode;
    let report = save(&registry, &MemoryArchive::new(tensors)?, out, &choices)?;
    rescued.files = report.files;
    Ok(rescued)
}

/// How many bytes may be written of files of a length: what they may unpack to, and what views may expand to.
fn most_of(length: u64, options: &RescueOptions<'_>) -> u64 {
    let each = length.saturating_mul(options.bounds.unpacked_per_byte);
    each.saturating_add(options.bounds.unpacked).saturating_add(options.limits.expanded_bytes)
}

/// The tensors of all parts under names of their own, each read to its end once. One that two readings of the same bytes
/// gave, or that stands in two files, is taken once.
fn gather<'a>(found: &'a [Found], most: u64, rescued: &mut Rescued, losses: &mut Losses) -> Vec<Tensor<'a>> {
    let (mut kept, mut seen) = (Vec::new(), HashSet::new());
    for Found { part, archive } in found {
        for (index, info) in archive.tensors().iter().enumerate() {
            let name =
                || if part.is_empty() { info.name().to_owned() } else { format!("{part}/{}", info.name()) };
            if !info.dtype().in_safetensors() {
                losses.lost(name(), format!("safetensors has no dtype for {}", info.dtype()));
                continue;
            }
            if rescued.bytes.saturating_add(info.bytes()) > most {
                losses.lost(name(), format!("with it the tensors take more than {most} bytes"));
                continue;
            }
            match archive.data(index).and_then(|data| read_through(&data).map(|hash| (data, hash))) {
                Ok((data, hash)) => {
                    if seen.insert((info.shared_name(), info.dtype(), info.shape().to_vec(), hash)) {
                        rescued.bytes += info.bytes();
                        kept.push((part, info, data));
                    }
                }
                Err(error) => losses.lost(name(), error.message().to_owned()),
            }
        }
    }
    let mut times: HashMap<&str, u32> = HashMap::new();
    for (_, info, _) in &kept {
        *times.entry(info.name()).or_default() += 1;
    }
    let (mut tensors, mut names) = (Vec::with_capacity(kept.len()), HashSet::new());
    for (part, info, data) in kept {
        let plain = info.name();
        let mut name = match times.get(plain) {
            Some(n) if *n > 1 && !part.is_empty() => format!("{part}/{plain}"),
            _ => plain.to_owned(),
        };
        let mut number = 2;
        while !names.insert(name.clone()) {
            name = format!("{plain}#{number}");
            number += 1;
        }
        tensors.push(Tensor { info: info.clone().without_view().with_name(name), data });
    }
    rescued.tensors = tensors.len() as u64;
    tensors
}

/// Finds what holds tensors in a file. `shown` stands before the members that lead there.
fn look(
    path: &Path,
    source: Source,
    shown: &str,
    options: &RescueOptions<'_>,
    found: &mut Vec<Found>,
    losses: &mut Losses,
) {
    let registry = Registry::builtin();
    let mut read = ReadOptions::default();
    read.limits = options.limits.clone();
    let policy = Policy::default();
    let mut sink = Sink::new(&options.limits, &options.bounds, &policy, source.len());
    // Tensors are read in another order than they stand in.
    sink.keep = usize::try_from(options.limits.unpacked_bytes).unwrap_or(usize::MAX);
    let allowance = sink.allowance.clone();
    // Why the file itself is nothing with tensors, which counts if nothing in it has any either.
    let (before, mut own) = (found.len(), None);
    // Zips whose tensors are found: their pickles and storages are not looked at a second time.
    let mut done: HashSet<Vec<String>> = HashSet::new();
    each_part(path, path, source, &mut sink, |subject| {
        let members = &subject.place.members;
        if found.len() >= PARTS || subject.role == Role::Numbers {
            return false;
        }
        let inside_done = members.split_last().is_some_and(|(_, outer)| done.contains(outer));
        if inside_done && matches!(subject.role, Role::Pickle | Role::Script) {
            return true;
        }
        let mut part = members.join("/");
        if !shown.is_empty() {
            part = if part.is_empty() { shown.to_owned() } else { format!("{shown}/{part}") };
        }
        let kind = Kind::of(subject);
        let taken = match kind {
            Kind::Zip => zip::rescue(subject.source, &part, &options.limits, &allowance, losses),
            Kind::Npy => npy::rescue(subject.source, subject.name, &part).map(|f| vec![f]),
            Kind::Pickle => pickles(subject, &part, &options.limits, losses),
            Kind::Packed => return true,
            Kind::Other => open(&registry, subject, &read, &part).map(|f| vec![f]),
        };
        match taken {
            Ok(mut taken) => {
                taken.retain(|found| !found.archive.tensors().is_empty());
                if taken.is_empty() {
                    return true;
                }
                found.extend(taken);
                if kind == Kind::Zip {
                    done.insert(members.clone());
                }
                kind != Kind::Other
            }
            Err(error) => {
                // In a folder, files of other kinds than weights are no loss.
                let asked = members.is_empty()
                    && (shown.is_empty() || registry.is_weights_name(shown) && !shown.ends_with(".json"));
                if asked {
                    own = Some((part, error.message().to_owned()));
                } else if matches!(kind, Kind::Pickle | Kind::Npy) && subject.role != Role::Guess {
                    losses.lost(part, error.message().to_owned());
                }
                true
            }
        }
    });
    if let Some((part, why)) = own.filter(|_| found.len() == before) {
        losses.lost(part, why);
    }
}

/// By what a part's tensors are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zip,
    Npy,
    Pickle,
    /// Something else stands in it.
    Packed,
    /// A format that the registry knows, or none.
    Other,
}

impl Kind {
    fn of(subject: &Subject<'_>) -> Self {
        let head = subject.head;
        let pickle = || {
            matches!(subject.role, Role::Pickle | Role::Script)
                || pickle::begins(head)
                || pickle::begins_unmarked(head)
                || pickle::is_named(subject)
        };
        if head.starts_with(b"\x93NUMPY") {
            Self::Npy
        } else if containers::is_tar(head) {
            // A zip at its end is a member, which is looked at in turn.
            Self::Other
        } else if super::zip::fits(subject) {
            Self::Zip
        } else if Packing::of(head).is_some() {
            Self::Packed
        } else if pickle() {
            Self::Pickle
        } else {
            Self::Other
        }
    }
}

/// The tensors of pickles: torch's stream where it may be one, else arrays.
fn pickles(subject: &Subject<'_>, part: &str, limits: &Limits, losses: &mut Losses) -> Result<Vec<Found>> {
    if pickles::may_be_torch(subject.head)
        && let Ok(found) = pickles::rescue_old(subject.source, part, limits)
    {
        return Ok(vec![found]);
    }
    pickles::rescue(subject.source, part, limits, losses)
}

/// Opens a part by its content.
fn open(registry: &Registry, subject: &Subject<'_>, read: &ReadOptions, part: &str) -> Result<Found> {
    let archive = match registry.open(subject.source.clone(), read) {
        Err(_) if containers::is_tar(subject.head) => {
            return pickles::rescue_old(subject.source, part, &read.limits);
        }
        opened => opened?,
    };
    Ok(Found { part: part.to_owned(), archive })
}

/// Reads a tensor to its end, so that what is written will not fail for it; the hash of its bytes.
fn read_through(data: &Data<'_>) -> Result<blake3::Hash> {
    let (mut at, mut piece) = (0, vec![0; 256 << 10]);
    let mut hasher = blake3::Hasher::new();
    while at < data.len() {
        let step = (data.len() - at).min(piece.len() as u64);
        data.read_at(at, &mut piece[..step as usize])?;
        hasher.update(&piece[..step as usize]);
        at += step;
    }
    data.finish()?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
    }

    #[test]
    fn tensors_come_out_of_files_archives_and_streams() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.safetensors");
        for name in ["torch/module_sequential.pt", "joblib/arrays.joblib", "joblib/xz.joblib"] {
            let options = RescueOptions { overwrite: true, ..RescueOptions::default() };
            let rescued = rescue(&golden(name), &out, &options).unwrap();
            let written = Registry::builtin().open_path(&out, &ReadOptions::default()).unwrap();
            assert_eq!(written.tensors().len() as u64, rescued.tensors, "{name}");
            assert!(rescued.tensors > 0 && rescued.files.len() == 1);
        }
        // A torch file inside of a tar, behind a call that a loader would have made.
        let inner = std::fs::read(golden("torch/module_sequential.pt")).unwrap();
        let mut header = vec![0u8; 512];
        header[..5].copy_from_slice(b"w.bin");
        header[124..135].copy_from_slice(format!("{:011o}", inner.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut tar = header;
        tar.extend_from_slice(&inner);
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        let path = dir.path().join("a.tar");
        std::fs::write(&path, tar).unwrap();
        let options = RescueOptions { overwrite: true, ..RescueOptions::default() };
        let rescued = rescue(&path, &out, &options).unwrap();
        assert_eq!(rescued.parts, ["w.bin"]);
    }

    #[test]
    fn a_file_without_tensors_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("x.pkl"), dir.path().join("out.safetensors"));
        std::fs::write(&path, b"cos\nsystem\n(S'echo'\ntR.").unwrap();
        let error = rescue(&path, &out, &RescueOptions::default()).unwrap_err();
        assert!(error.to_string().contains("no tensor"), "{error}");
        assert!(!out.exists());
    }
}
