//! The tensors of a file that nobody should load, as safetensors.
//!
//! Read are the file itself, and where no reader of tensors takes it what it holds: members of archives, compressed
//! streams, bytes in pickles. The readers describe and run nothing, so what a file would do does not matter to them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use weighbridge_formats::write::Observer;
use weighbridge_formats::{
    Archive, ConvertOptions, Data, Error, Limits, MemoryArchive, ReadAt, ReadOptions, Registry, Result,
    Source, Tensor, save,
};

use super::engine::each_part;
use super::policy::Policy;
use super::subject::{Bounds, Role, Sink, Subject};

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
    /// What was not rescued: a tensor or part, and why.
    pub lost: Vec<(String, String)>,
}

/// The most parts whose tensors are taken together, and the most losses that are listed.
const PARTS: usize = 10_000;
const LOSSES: usize = 1000;

/// Writes the tensors of a file to a file of safetensors, streaming, complete or not at all. Nothing else of the file is
/// written. A tensor that cannot be read in full is left out, and said.
///
/// # Errors
/// `NotFound` or `Io` for the file, `Unsupported` where no tensor could be read, and what the write engine says.
pub fn rescue(path: &Path, out: &Path, options: &RescueOptions<'_>) -> Result<Rescued> {
    let source = Source::open(path)?;
    let mut rescued = Rescued::default();
    let (archives, refusals) = archives(path, source, options);
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for (part, archive) in &archives {
        rescued.parts.push(part.clone());
        for (index, info) in archive.tensors().iter().enumerate() {
            // The names of several parts are told apart by where these stand.
            let name =
                if archives.len() > 1 { format!("{part}/{}", info.name()) } else { info.name().to_owned() };
            if !info.dtype().in_safetensors() {
                rescued.lose(name, format!("safetensors has no dtype for {}", info.dtype()));
                continue;
            }
            let data = archive.data(index).and_then(|data| readable(&data).map(|()| data));
            match data {
                Ok(data) if names.insert(name.clone()) => {
                    rescued.tensors += 1;
                    rescued.bytes = rescued.bytes.saturating_add(info.bytes());
                    tensors.push(Tensor { info: info.clone().without_view().with_name(name), data });
                }
                Ok(_) => rescued.lose(name, "another tensor has the same name".to_owned()),
                Err(error) => rescued.lose(name, error.to_string()),
            }
        }
    }
    for (part, why) in refusals {
        rescued.lose(part, why);
    }
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
    let report = save(&registry, &MemoryArchive::new(tensors)?, out, &choices)?;
    rescued.files = report.files;
    Ok(rescued)
}

impl Rescued {
    fn lose(&mut self, what: String, why: String) {
        if self.lost.len() < LOSSES {
            self.lost.push((what, why));
        }
    }
}

/// Archives with the members that lead to each, and what could not be opened.
type Opened = (Vec<(String, Box<dyn Archive>)>, Vec<(String, String)>);

/// Opens the file, or what in it holds tensors.
fn archives(path: &Path, source: Source, options: &RescueOptions<'_>) -> Opened {
    let registry = Registry::builtin();
    let mut read = ReadOptions::default();
    read.limits = options.limits.clone();
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let policy = Policy::default();
    let mut sink = Sink::new(&options.limits, &options.bounds, &policy, source.len());
    each_part(path, source, &mut sink, |subject| {
        if found.len() >= PARTS || subject.role == Role::Numbers {
            return false;
        }
        let part = subject.place.members.join("/");
        match open(&registry, subject, &read) {
            Ok(archive) if !archive.tensors().is_empty() => {
                found.push((part, archive));
                false
            }
            Ok(_) => true,
            Err(error) => {
                let may = super::pickle::begins(subject.head) || subject.place.members.is_empty();
                if may && refused.len() < LOSSES {
                    let name = if part.is_empty() { "the file".to_owned() } else { part };
                    refused.push((name, error.message().to_owned()));
                }
                true
            }
        }
    });
    (found, refused)
}

/// Opens a part by its content, or as a pickle where a loader would take it for one.
fn open(registry: &Registry, subject: &Subject<'_>, read: &ReadOptions) -> Result<Box<dyn Archive>> {
    let opened = registry.open(subject.source.clone(), read);
    if opened.is_err() && super::pickle::begins_unmarked(subject.head) {
        return registry.deserializer("pickle")?.open(subject.source.clone(), read);
    }
    opened
}

/// Reads a tensor to its end, so that what is written will not fail for it.
fn readable(data: &Data<'_>) -> Result<()> {
    let (mut at, mut piece) = (0, vec![0; 256 << 10]);
    while at < data.len() {
        let step = (data.len() - at).min(piece.len() as u64);
        data.read_at(at, &mut piece[..step as usize])?;
        at += step;
    }
    data.finish()
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
