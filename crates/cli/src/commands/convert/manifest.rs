//! The manifest of what `convert` writes, and what it says of where that came from.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use weighbridge::trust::manifest::{
    HashOptions, IN_PASS, NAME, Provenance, SUFFIX, hash, hash_files, manifest_path,
};
use weighbridge::write::FileDigests;
use weighbridge::{ConvertOptions, Error, Observer, Result};

use super::{Args, ExternalData, Overflow, Values};
use crate::progress::Progress;

/// The name of the source and the options that were given; with `--manifest` also the hashes of the source.
pub(crate) fn provenance(args: &Args, observer: &dyn Observer) -> Result<Provenance> {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    let whole = || name(&std::fs::canonicalize(&args.src).ok()?);
    let mut out = Provenance::new(name(&args.src).or_else(whole).unwrap_or_default());
    out.options = options(args);
    if args.manifest {
        let mut options = HashOptions::default();
        options.read = crate::limits::read_options();
        options.threads = args.threads.map(usize::from);
        options.observer = Some(observer);
        let hashes = hash(&args.src, &options)?;
        out.logical = hashes.logical();
        if let [model] = &hashes.models[..] {
            out.format = Some(model.format.clone());
        }
        out.files = hashes.into_manifest()?.files;
    }
    Ok(out)
}

/// The options that change what is written, by their names, as far as they were given.
fn options(args: &Args) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| out.push((name.into(), value));
    let pair = |(a, b): &(String, String)| format!("{a}={b}");
    args.to.iter().for_each(|v| put("to", v.clone()));
    args.dtype.iter().for_each(|v| put("dtype", v.name().into()));
    for (pattern, dtype) in &args.dtype_for {
        put("dtype-for", format!("{pattern}={}", dtype.map_or("keep", |d| d.name())));
    }
    match args.overflow {
        Overflow::Error => {}
        Overflow::Saturate => put("overflow", "saturate".into()),
        Overflow::Infinity => put("overflow", "infinity".into()),
        Overflow::KeepWide => put("overflow", "keep-wide".into()),
    }
    args.select.iter().for_each(|v| put("select", v.clone()));
    args.drop.iter().for_each(|v| put("drop", v.clone()));
    args.strip_prefix.iter().for_each(|v| put("strip-prefix", v.clone()));
    args.rename.iter().for_each(|v| put("rename", pair(v)));
    let file_name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
    args.into.iter().for_each(|p| put("into", file_name(p).unwrap_or_default()));
    if args.cast {
        put("cast", "true".into());
    }
    match args.external_data {
        Some(ExternalData::Always) => put("external-data", "always".into()),
        Some(ExternalData::Never) => put("external-data", "never".into()),
        None => {}
    }
    args.max_shard_size.iter().for_each(|v| put("max-shard-size", v.to_string()));
    if matches!(args.values, Values::Drop) {
        put("values", "drop".into());
    }
    args.metadata.iter().for_each(|v| put("metadata", pair(v)));
    args.pickle_protocol.iter().for_each(|v| put("pickle-protocol", v.to_string()));
    out
}

/// Refuses a conversion whose manifest would take another's place.
pub(crate) fn check_free(args: &Args) -> Result<()> {
    if args.force {
        return Ok(());
    }
    let mut index = args.dst.as_os_str().to_owned();
    index.push(".index.json");
    let places = [args.dst.join(NAME), manifest_path(&args.dst), manifest_path(Path::new(&index))];
    match places.iter().find(|p| p.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(there) => Err(Error::invalid_options("the manifest exists already")
            .with_path(there)
            .with_hint("choose another name, or give leave to replace it (`--force`)")),
    }
}

/// Converts, and puts the manifest in place with what is written: in a folder that is the target `weighbridge.json`, else a
/// file beside the target. Its hashes are made in the pass that writes, and those of the source beside it.
pub(crate) fn convert(
    args: &Args,
    options: &ConvertOptions<'_>,
    progress: &Progress,
) -> Result<weighbridge::ConvertReport> {
    let watch = Watch { observer: progress, stop: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        let work = || provenance(args, &watch);
        // A system that gives no more threads gives a slower conversion.
        let source = match std::thread::Builder::new().name("provenance".into()).spawn_scoped(scope, work) {
            Ok(running) => Mutex::new(Some(Source::Running(running))),
            Err(_) => Mutex::new(Some(Source::Known(work()?))),
        };
        let complete = |staged: &Path, digests: &[FileDigests]| {
            let source = source.lock().unwrap_or_else(PoisonError::into_inner).take();
            let provenance = match source {
                Some(Source::Running(running)) => running.join().unwrap_or_else(|p| resume_unwind(p))?,
                Some(Source::Known(provenance)) => provenance,
                None => return Err(Error::invalid_options("the source was hashed for another write")),
            };
            let (name, text) = of(args, staged, digests, provenance, &watch)?;
            Ok(vec![(name, text.into_bytes())])
        };
        let mut options = options.clone();
        options.complete = Some(&complete);
        options.digests = Some(IN_PASS);
        weighbridge::convert_with(&args.src, &args.dst, &options)
            .inspect_err(|_| watch.stop.store(true, Ordering::Relaxed))
    })
}

/// What the source is: its hashes while they are made, or after.
enum Source<'s> {
    Running(ScopedJoinHandle<'s, Result<Provenance>>),
    Known(Provenance),
}

/// Hands on that somebody cancels, and ends when the conversion has failed. Progress is the writer's.
struct Watch<'a> {
    observer: &'a dyn Observer,
    stop: AtomicBool,
}

impl Observer for Watch<'_> {
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.observer.cancelled()
    }
}

/// The name and the text of the manifest of files in a folder that is to be the target's.
fn of(
    args: &Args,
    staged: &Path,
    digests: &[FileDigests],
    provenance: Provenance,
    observer: &dyn Observer,
) -> Result<(String, String)> {
    let mut options = HashOptions::default();
    options.read = crate::limits::read_options();
    options.threads = args.threads.map(usize::from);
    options.observer = Some(observer);
    options.written = digests;
    let names: Vec<String> = digests.iter().map(|d| d.name.clone()).collect();
    let (hashes, name) = if args.dst.is_dir() {
        (hash_files(staged, &names, &options)?, NAME.to_owned())
    } else {
        let index = names.iter().find(|name| name.ends_with(".index.json"));
        let target = args.dst.file_name().and_then(|name| name.to_str());
        let main = index.map(|name| &**name).or(target).unwrap_or_default();
        (hash(&staged.join(main), &options)?, format!("{main}{SUFFIX}"))
    };
    Ok((name, hashes.into_manifest()?.with_provenance(Some(provenance)).to_text()?))
}

/// Writes the manifest of all of a folder that was written, which is read for it.
pub(crate) fn write(args: &Args, provenance: Provenance, observer: &dyn Observer) -> Result<PathBuf> {
    let mut options = HashOptions::default();
    options.threads = args.threads.map(usize::from);
    options.observer = Some(observer);
    let path = manifest_path(&args.dst);
    let hashes = hash(&args.dst, &options)?;
    hashes.into_manifest()?.with_provenance(Some(provenance)).write(&path, args.force)?;
    Ok(path)
}
