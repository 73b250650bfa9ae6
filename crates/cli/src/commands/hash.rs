//! `weighbridge hash`: the hashes of a model's tensors and files, and its manifest.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use weighbridge::logical::hex;
use weighbridge::trust::manifest::{Cache, HashOptions, Hashes, ModelEntry, hash, manifest_path};
use weighbridge::{Error, Result};

use super::keys::Keys;
use crate::exit::Exit;
use crate::output::{self, count, one_line};
use crate::progress::Progress;

#[derive(clap::Args)]
#[command(after_help = "\
The logical hash depends on the names, dtypes, shapes and values of the tensors and on nothing else: it is the same for \
the same model in another format, sharding or order. Of a folder, every file is hashed but hidden ones and records of \
this program.

--write makes a manifest, which `weighbridge verify` holds the model against: weighbridge.json in a folder, or \
FILE.weighbridge.json beside a file.

Examples:
  weighbridge hash model.safetensors
  weighbridge hash model/ --tensors
  weighbridge hash model/ --json --algorithm logical
  weighbridge hash model/ --write
  weighbridge hash model.age -i key.txt")]
pub(crate) struct Args {
    /// A file, the index of a sharded set, or a model's folder
    path: PathBuf,
    /// List the hash of every tensor
    #[arg(long)]
    tensors: bool,
    /// Only these hashes; may be given several times
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "write")]
    algorithm: Vec<Algorithm>,
    /// Write the manifest
    #[arg(long)]
    write: bool,
    /// Replace a manifest that exists
    #[arg(long, requires = "write")]
    force: bool,
    /// With `--algorithm sha256` or `blake3`: take the digests of files that have not changed from the user's cache
    #[arg(long)]
    cached: bool,
    /// Threads that hash
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    #[command(flatten)]
    keys: Keys,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Algorithm {
    /// The hashes of tensors, and of the model
    Logical,
    /// The SHA-256 of files
    Sha256,
    /// The BLAKE3 of files
    Blake3,
}

/// The hashes of the tensors in an encrypted file, which is read where it is. Those of its own bytes say nothing of the
/// model: a file that is encrypted twice has other bytes.
fn encrypted(args: &Args) -> Result<Exit> {
    if args.write || args.algorithm.iter().any(|a| *a != Algorithm::Logical) {
        let what = "of an encrypted file only the hashes of its tensors are made";
        return Err(Error::invalid_options(what)
            .with_path(&args.path)
            .with_hint("decrypt it first (`weighbridge decrypt`), and hash what comes out"));
    }
    let archive = args.keys.open(&args.path)?;
    let (logical, hashes) = weighbridge::logical::hash_archive(&*archive, args.threads.map(usize::from))?;
    let (path, tensors) = (args.path.to_string_lossy(), archive.tensors().iter().zip(&hashes));
    if args.json {
        let tensors = tensors.map(|(t, hash)| {
            json!({
                "model": path, "name": t.name(), "dtype": t.dtype().name(), "shape": t.shape(),
                "hash": hex(hash), "file": path,
            })
        });
        let report = json!({
            "logical": hex(&logical),
            "files": [],
            "models": [{
                "path": path, "files": [path], "format": archive.format(), "variety": archive.variety(),
                "logical": hex(&logical), "tensors": hashes.len(),
            }],
            "tensors": tensors.collect::<Vec<_>>(),
            "manifest": Value::Null,
            "notes": output::notes_json(archive.notes()),
        });
        output::emit(format!("{report}\n").as_bytes())?;
        return Ok(Exit::Success);
    }
    let mut out = String::new();
    let number = count(hashes.len() as u64, "tensor");
    let _ = writeln!(out, "logical  {}  {} ({}, {number})", hex(&logical), one_line(&path), archive.format());
    for (t, hash) in tensors.filter(|_| args.tensors) {
        let (name, dtype, shape) = (one_line(t.name()), t.dtype(), t.shape());
        let _ = writeln!(out, "tensor   {}  {name}  {dtype} {shape:?}", hex(hash));
    }
    output::push_notes(&mut out, archive.notes());
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if args.keys.apply_to(&args.path) {
        return encrypted(args);
    }
    let progress = Progress::new(args.json);
    let wanted = |a: Algorithm| args.algorithm.is_empty() || args.algorithm.contains(&a);
    let cache = if args.cached { Cache::user() } else { None };
    let mut options = HashOptions::default();
    options.read = crate::limits::read_options();
    options.threads = args.threads.map(usize::from);
    options.observer = Some(&progress);
    options.cache = cache.as_ref();
    options.logical = wanted(Algorithm::Logical);
    options.sha256 = wanted(Algorithm::Sha256);
    options.blake3 = wanted(Algorithm::Blake3);
    let manifest = args.write.then(|| manifest_path(&args.path));
    if let Some(path) = manifest.as_ref().filter(|p| !args.force && p.symlink_metadata().is_ok()) {
        return Err(Error::invalid_options("the manifest exists already").with_path(path).with_hint(
            "hold the model against it (`weighbridge verify`), or give leave to replace it (`--force`)",
        ));
    }
    let hashes = hash(&args.path, &options)?;
    drop(progress);
    if let Some(cache) = &cache {
        // Without it the next run takes longer, and nothing else.
        let _ = cache.save();
    }
    if let Some(path) = &manifest {
        hashes.clone().into_manifest()?.write(path, args.force)?;
    }
    if args.json {
        output::emit(format!("{}\n", json_of(&hashes, manifest.as_ref())).as_bytes())?;
    } else {
        output::emit(text(&hashes, args, manifest.as_ref()).as_bytes())?;
    }
    Ok(Exit::Success)
}

fn text(hashes: &Hashes, args: &Args, manifest: Option<&PathBuf>) -> String {
    let mut out = String::new();
    for model in &hashes.models {
        let tensors = count(model.tensors.len() as u64, "tensor");
        let (hash, path) = (hex(&model.logical), one_line(&model.path));
        let _ = writeln!(out, "logical  {hash}  {path} ({}, {tensors})", one_line(&model.format));
        for tensor in model.tensors.iter().filter(|_| args.tensors) {
            let name = one_line(&tensor.name);
            let _ =
                writeln!(out, "tensor   {}  {name}  {} {:?}", hex(&tensor.hash), tensor.dtype, tensor.shape);
        }
    }
    for file in &hashes.files {
        for (name, digest) in [("sha256", file.sha256), ("blake3", file.blake3)] {
            if let Some(digest) = digest {
                let _ = writeln!(out, "{name}   {}  {}", hex(&digest), one_line(&file.path));
            }
        }
    }
    if let Some(path) = manifest {
        let _ = writeln!(out, "wrote    {}", one_line(&path.to_string_lossy()));
    }
    output::push_notes(&mut out, &hashes.notes);
    out
}

fn json_of(hashes: &Hashes, manifest: Option<&PathBuf>) -> Value {
    let digest = |d: Option<weighbridge::logical::Digest>| d.map(|d| hex(&d));
    let file = |f: &weighbridge::trust::manifest::FileHashes| json!({ "path": f.path, "size": f.size, "sha256": digest(f.sha256), "blake3": digest(f.blake3) });
    let model = |m: &ModelEntry| {
        json!({
            "path": m.path, "files": m.files, "format": m.format, "variety": m.variety,
            "logical": hex(&m.logical), "tensors": m.tensors.len(),
        })
    };
    let tensors = hashes.models.iter().flat_map(|m| {
        m.tensors.iter().map(|t| {
            json!({
                "model": m.path, "name": t.name, "dtype": t.dtype.name(), "shape": t.shape, "hash": hex(&t.hash),
                "file": m.file_of(t),
            })
        })
    });
    json!({
        "logical": digest(hashes.logical()),
        "files": hashes.files.iter().map(file).collect::<Vec<_>>(),
        "models": hashes.models.iter().map(model).collect::<Vec<_>>(),
        "tensors": tensors.collect::<Vec<_>>(),
        "manifest": manifest.map(|p| p.to_string_lossy()),
        "notes": output::notes_json(&hashes.notes),
    })
}
