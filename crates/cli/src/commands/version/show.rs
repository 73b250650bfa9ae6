//! `weighbridge version list` and `show`, and a difference as JSON.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use weighbridge::versions::{
    Bump, FilesDiff, JsonDiff, ModelDiff, Reference, Version, VersionRecord, VersionedModel,
};
use weighbridge::{ErrorKind, Result};

use super::latest;
use crate::exit::Exit;
use crate::output::{self, count, grouped, one_line, size};

pub(super) fn list(path: &Path, as_json: bool) -> Result<Exit> {
    let model = match VersionedModel::at(path) {
        Ok(model) => Some(model).filter(|m| !m.versions().is_ok_and(|v| v.is_empty())),
        // The name of a registry is not checked as that of a model is.
        Err(e) if e.kind() == ErrorKind::InvalidOptions => None,
        Err(e) => return Err(e),
    };
    match model {
        Some(model) => list_versions(&model, as_json),
        None => list_models(path, as_json),
    }
}

fn list_models(registry: &Path, as_json: bool) -> Result<Exit> {
    let models = VersionedModel::all(registry)?;
    let mut text = String::new();
    let mut rows = Vec::new();
    for model in &models {
        let (versions, latest) = (model.versions()?, latest(model));
        let aliases = model.aliases()?;
        rows.push(json!({
            "name": model.name(),
            "latest": latest.as_ref().map(Version::to_string),
            "versions": versions.iter().map(Version::to_string).collect::<Vec<_>>(),
            "aliases": aliases.iter().map(|(a, v)| (a.clone(), Value::from(v.to_string()))).collect::<serde_json::Map<_, _>>(),
        }));
        let latest = latest.map(|v| v.to_string()).unwrap_or_default();
        let _ = writeln!(text, "{}  {latest}  {}", model.name(), count(versions.len() as u64, "version"));
    }
    if as_json {
        output::emit(format!("{}\n", json!({ "models": rows })).as_bytes())?;
    } else if models.is_empty() {
        output::emit(b"no model has a version here\n")?;
    } else {
        output::emit(text.as_bytes())?;
    }
    Ok(Exit::Success)
}

fn list_versions(model: &VersionedModel, as_json: bool) -> Result<Exit> {
    let (versions, aliases, latest) = (model.versions()?, model.aliases()?, latest(model));
    let mut rows = Vec::new();
    let mut text = String::new();
    for version in versions.iter().rev() {
        // A record that cannot be read hides no version.
        let record = model.record(version).ok().flatten();
        let mut names: Vec<_> =
            aliases.iter().filter(|(_, v)| *v == version).map(|(a, _)| a.as_str()).collect();
        if latest.as_ref() == Some(version) {
            names.insert(0, "latest");
        }
        rows.push(json!({
            "version": version.to_string(),
            "names": names,
            "folder": model.folder_of(version).to_string_lossy(),
            "record": record.as_ref().map(VersionRecord::to_json),
        }));
        let day = record.as_ref().and_then(|r| r.created.as_deref()).and_then(|c| c.get(..10)).unwrap_or("-");
        let bytes = record.as_ref().and_then(|r| r.bytes).map_or("-".to_owned(), size);
        let line = format!("{version:<12}  {:<10}  {bytes:>9}  {}", one_line(day), names.join(", "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if as_json {
        let value = json!({ "name": model.name(), "versions": rows });
        output::emit(format!("{value}\n").as_bytes())?;
    } else {
        output::emit(text.as_bytes())?;
    }
    Ok(Exit::Success)
}

pub(super) fn show(reference: &Reference, as_json: bool) -> Result<Exit> {
    let folder = reference.folder();
    let (record, aliases, entry) = match reference {
        Reference::Version { model, version } => {
            let aliases = model.aliases()?.into_iter().filter(|(_, v)| v == version).map(|(a, _)| a);
            let latest = latest(model).filter(|v| v == version).map(|_| "latest".to_owned());
            let names: Vec<_> = latest.into_iter().chain(aliases).collect();
            (model.record(version)?, names, model.changelog_entry(version)?)
        }
        _ => (VersionRecord::read(&folder)?, Vec::new(), None),
    };
    let version = match reference {
        Reference::Version { version, .. } => Some(version.clone()),
        _ => record.as_ref().map(|r| r.version.clone()),
    };
    if as_json {
        let value = json!({
            "what": reference.to_string(),
            "version": version.as_ref().map(Version::to_string),
            "folder": folder.to_string_lossy(),
            "names": aliases,
            "record": record.as_ref().map(VersionRecord::to_json),
            "entry": entry,
        });
        output::emit(format!("{value}\n").as_bytes())?;
        return Ok(Exit::Success);
    }
    let mut out = String::new();
    let mut row = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(out, "{what:<11} {}", one_line(&value));
        }
    };
    let version = version.map(|v| v.to_string());
    row("version", Some(version.unwrap_or_else(|| "none: the folder carries no version".to_owned())));
    row("folder", Some(folder.display().to_string()));
    row("names", (!aliases.is_empty()).then(|| aliases.join(", ")));
    if let Some(record) = &record {
        row("previous", record.previous.as_ref().map(Version::to_string));
        row("created", record.created.clone());
        row("parameters", record.parameters.map(grouped));
        let files = record.files.map(|n| count(n, "file"));
        row("files", files.map(|f| record.bytes.map_or(f.clone(), |b| format!("{f}, {}", size(b)))));
    }
    if let Some(entry) = &entry {
        out.push('\n');
        for line in entry.lines() {
            let _ = writeln!(out, "{}", one_line(line));
        }
    }
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

/// A difference with everything in it.
pub(super) fn diff_json(diff: &ModelDiff) -> Value {
    let number = |x: f64| if x.is_finite() { json!(x) } else { json!(x.to_string()) };
    let weights = &diff.weights;
    let changed: Vec<_> = weights
        .changed
        .iter()
        .map(|t| {
            json!({
                "name": t.name,
                "dtypes": t.dtypes.map(|d| d.name()),
                "shapes": [&t.shapes[0][..], &t.shapes[1][..]],
                "differing": t.values.as_ref().map(|v| v.differing),
                "nan_on_one_side": t.values.as_ref().map(|v| v.nan_on_one_side),
                "max_absolute": t.values.as_ref().and_then(|v| v.max_absolute).map(number),
                "max_relative": t.values.as_ref().and_then(|v| v.max_relative).map(number),
            })
        })
        .collect();
    let vocabulary = diff.tokenizer.vocabulary.as_ref().map(|v| {
        let list = |(number, tokens): &(u64, Vec<String>)| json!({ "count": number, "first": tokens });
        json!({ "sizes": v.sizes, "added": list(&v.added), "removed": list(&v.removed), "moved": list(&v.moved) })
    });
    json!({
        "equal": diff.is_equal(),
        "suggested_bump": diff.bump().map(Bump::as_str),
        "reasons": diff.reasons.iter().map(|r| json!({ "bump": r.bump.as_str(), "text": r.text })).collect::<Vec<_>>(),
        "weights": {
            "equal": weights.is_equal(),
            "not_compared": weights.not_compared,
            "compared": weights.compared,
            "added": weights.added,
            "removed": weights.removed,
            "changed": changed,
            "other_bits": weights.other_bits,
            "metadata": weights.other.metadata.iter()
                .map(|(key, [a, b])| json!({ "key": key, "a": a, "b": b }))
                .collect::<Vec<_>>(),
            "values": weights.other.values.iter()
                .map(|(path, [a, b])| json!({ "path": path, "a": a, "b": b }))
                .collect::<Vec<_>>(),
            "parameters": weights.parameters,
            "bytes": weights.bytes,
            "dtypes": weights.dtypes,
        },
        "configs": configs_json(&diff.configs),
        "tokenizer": {
            "vocabulary": vocabulary,
            "parts": diff.tokenizer.parts,
            "configs": configs_json(&diff.tokenizer.configs),
            "files": files_json(&diff.tokenizer.files),
        },
        "files": files_json(&diff.files),
        "notes": output::notes_json(&diff.notes),
    })
}

fn configs_json(configs: &[JsonDiff]) -> Value {
    let list = |side: &[(String, Value)]| -> Value {
        side.iter().map(|(path, value)| json!({ "key": path, "value": value })).collect()
    };
    let one = |config: &JsonDiff| {
        let changed: Value =
            config.changed.iter().map(|(path, [a, b])| json!({ "key": path, "a": a, "b": b })).collect();
        json!({
            "file": config.file,
            "added": list(&config.added),
            "removed": list(&config.removed),
            "changed": changed,
            "more": config.more,
        })
    };
    configs.iter().map(one).collect()
}

fn files_json(files: &FilesDiff) -> Value {
    json!({ "added": files.added, "removed": files.removed, "changed": files.changed })
}
