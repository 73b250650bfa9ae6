//! The manifest of what `convert` writes, and what it says of where that came from.

use std::path::{Path, PathBuf};

use weighbridge::trust::manifest::{HashOptions, NAME, Provenance, hash, hash_files, manifest_path};
use weighbridge::{Error, Observer, Result};

use super::{Args, ExternalData, Overflow, Values};

/// The name of the source and the options that were given; with `--manifest` also the hashes of the source.
pub(crate) fn provenance(args: &Args, observer: &dyn Observer) -> Result<Provenance> {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    let whole = || name(&std::fs::canonicalize(&args.src).ok()?);
    let mut out = Provenance::new(name(&args.src).or_else(whole).unwrap_or_default());
    out.options = options(args);
    if args.manifest {
        let mut options = HashOptions::default();
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

/// Writes the manifest of what was written, read back from where it is: in a folder that was the target
/// `weighbridge.json`, else a file beside the target. `files` are those that were written; none for all of a folder.
pub(crate) fn write(
    args: &Args,
    files: &[PathBuf],
    provenance: Provenance,
    observer: &dyn Observer,
) -> Result<PathBuf> {
    let mut options = HashOptions::default();
    options.threads = args.threads.map(usize::from);
    options.observer = Some(observer);
    let (hashes, path) = if args.dst.is_dir() && !files.is_empty() {
        let names = files.iter().filter_map(|f| f.strip_prefix(&args.dst).ok()?.to_str());
        let names: Vec<String> = names.map(str::to_owned).collect();
        (hash_files(&args.dst, &names, &options)?, args.dst.join(NAME))
    } else {
        let index = files.iter().find(|f| f.to_string_lossy().ends_with(".index.json"));
        let main = index.unwrap_or(&args.dst);
        (hash(main, &options)?, manifest_path(main))
    };
    hashes.into_manifest()?.with_provenance(Some(provenance)).write(&path, args.force)?;
    Ok(path)
}
