//! Checkpoints of others: torch files with model and optimizer, Lightning's `.ckpt`, and Trainer's folders.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use weighbridge_formats::transform::Select;
use weighbridge_formats::{
    Archive, Error, ErrorKind, Limits, ReadOptions, Registry, Result, Source, Value, ValueId, Values,
};

use crate::checkpoint::{Checkpoint, Kind, read_json};
use crate::json::{archive_to_json, values_to_json};
use crate::layout::step_of;
use crate::manifest::number_of;

/// Where training scripts keep the model's state dict.
const MODEL_KEYS: &[&str] =
    &["model", "model_state_dict", "state_dict", "model_state", "module", "net", "network", "weights"];
const OPTIMIZER_KEYS: &[&str] = &[
    "optimizer",
    "optimizer_state_dict",
    "optim_state_dict",
    "optimizer_states",
    "optimizer_state",
    "optim",
];
const SCHEDULER_KEYS: &[&str] =
    &["scheduler", "lr_scheduler", "scheduler_state_dict", "lr_scheduler_state_dict", "lr_schedulers"];
const RANDOM_KEYS: &[&str] = &["random", "rng_state", "rng_states", "rng"];
const STEP_KEYS: &[&str] = &["step", "global_step", "iteration", "iter", "steps"];

/// What Trainer calls the optimizer's file; the second is a FairScale or DeepSpeed run's.
pub(crate) const OPTIMIZER_FILES: &[&str] = &["optimizer.pt", "optimizer.bin"];
/// The random state of a lone process, or of the first.
pub(crate) const RANDOM_FILES: &[&str] = &["rng_state.pth", "rng_state_0.pth"];
const TRAINER_STATE: &str = "trainer_state.json";

/// The paths of the parts in a torch file.
#[derive(Clone, Debug, Default)]
pub(crate) struct TorchParts {
    pub(crate) model: Option<String>,
    pub(crate) optimizer: Option<String>,
    pub(crate) scheduler: Option<String>,
    pub(crate) random: Option<String>,
    /// The file is a state dict and nothing else.
    pub(crate) bare: bool,
}

/// Opens a torch file and finds its parts.
pub(crate) fn open_torch(path: &Path, options: &ReadOptions) -> Result<Checkpoint> {
    let archive = Registry::builtin().open(Source::open(path)?, options)?;
    let mut checkpoint = Checkpoint {
        path: path.to_owned(),
        kind: Kind::Torch,
        step: None,
        epoch: None,
        metrics: Vec::new(),
        manifest: None,
        parts: TorchParts::default(),
        options: options.clone(),
    };
    let root = archive.values().and_then(|v| Some((v, v.root()?)));
    let Some((values, root)) = root.filter(|(v, root)| v.dict(*root).is_some()) else {
        if archive.tensors().is_empty() {
            return Err(Error::malformed("this file is no checkpoint: it holds no dict and no tensor")
                .with_path(path));
        }
        checkpoint.parts = TorchParts { model: None, bare: true, ..TorchParts::default() };
        return Ok(checkpoint);
    };
    let is_container =
        |id: ValueId| matches!(values.get(id), Value::Dict(_) | Value::List(_) | Value::Object(_));
    let find = |keys: &[&str]| {
        let fits = |key: &&&str| values.entry(root, key).is_some_and(is_container);
        keys.iter().find(fits).map(|key| (*key).to_owned())
    };
    // Lightning keeps a list, which mostly has one member.
    let only = |key: String| match values.entry(root, &key).and_then(|id| values.sequence(id)) {
        Some([_]) => format!("{key}.0"),
        _ => key,
    };
    let parts = &mut checkpoint.parts;
    parts.model = find(MODEL_KEYS);
    parts.optimizer = find(OPTIMIZER_KEYS).map(only).filter(|key| !is_empty(values, root, key));
    parts.scheduler = find(SCHEDULER_KEYS).map(only).filter(|key| !is_empty(values, root, key));
    parts.random = RANDOM_KEYS.iter().find(|k| values.entry(root, k).is_some()).map(|k| (*k).to_owned());
    parts.bare = parts.model.is_none() && parts.optimizer.is_none();
    if values.entry(root, "pytorch-lightning_version").is_some() {
        checkpoint.kind = Kind::Lightning;
    }
    let number = |id: ValueId| match values.get(id) {
        Value::Int(i) => Some(*i as f64),
        Value::Float(x) => Some(*x),
        _ => None,
    };
    checkpoint.epoch = values.entry(root, "epoch").and_then(number);
    let steps = STEP_KEYS.iter().filter_map(|key| values.entry(root, key));
    checkpoint.step = steps.filter_map(|id| values.int(id)).find_map(|i| u64::try_from(i).ok());
    if let Some(metrics) = values.entry(root, "metrics").and_then(|id| values.dict(id)) {
        for &(key, value) in &metrics.entries {
            let x = number(value).or_else(|| number_of(&Json::String(values.str(value)?.to_owned())));
            if let (Some(name), Some(x)) = (values.str(key), x) {
                checkpoint.metrics.push((name.to_owned(), x));
            }
        }
    }
    if checkpoint.metrics.is_empty()
        && let Some(loss) = values.entry(root, "loss").and_then(number)
    {
        checkpoint.metrics.push(("loss".into(), loss));
    }
    Ok(checkpoint)
}

fn is_empty(values: &Values, root: ValueId, key: &str) -> bool {
    match values.entry(root, key).map(|id| values.get(id)) {
        Some(Value::List(p)) => p.is_empty(),
        Some(Value::Dict(d)) => d.entries.is_empty(),
        _ => false,
    }
}

/// The whole of a torch file.
pub(crate) fn whole(checkpoint: &Checkpoint) -> Result<Box<dyn Archive>> {
    Registry::builtin().open(Source::open(&checkpoint.path)?, &checkpoint.options)
}

/// The archive of a part; `None` where there is no such part.
pub(crate) fn part(checkpoint: &Checkpoint, path: Option<&str>) -> Result<Option<Box<dyn Archive>>> {
    let Some(path) = path else { return Ok(None) };
    let part = Select::new(whole(checkpoint)?, path).map_err(|e| e.with_path(&checkpoint.path))?;
    Ok(Some(Box::new(part)))
}

/// A small archive as JSON.
pub(crate) fn json_of(archive: Option<Box<dyn Archive>>) -> Result<Option<Json>> {
    archive.map(|a| archive_to_json(&*a)).transpose()
}

/// The entries of a torch file that are none of its parts.
pub(crate) fn rest(checkpoint: &Checkpoint) -> Result<Option<Json>> {
    let parts = &checkpoint.parts;
    if parts.bare {
        return Ok(None);
    }
    let archive = whole(checkpoint)?;
    let Some((values, root)) = archive.values().and_then(|v| Some((v, v.root()?))) else { return Ok(None) };
    let found = [&parts.model, &parts.optimizer, &parts.scheduler, &parts.random];
    let mut skip: Vec<&str> = found
        .into_iter()
        .flatten()
        .map(|path| path.strip_suffix(".0").unwrap_or(path))
        .chain(["epoch", "metrics"])
        .collect();
    skip.extend(STEP_KEYS);
    let json = values_to_json(&*archive, values, root, &skip)?;
    Ok(Some(json).filter(|j| j.as_object().is_none_or(|map| !map.is_empty())))
}

/// Whether a folder is one of Trainer's: it has the trainer's state, or its name and an optimizer.
pub(crate) fn is_trainer(path: &Path) -> bool {
    let named = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| {
        n.strip_prefix("checkpoint-").is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    });
    path.join(TRAINER_STATE).is_file() || named
}

/// Opens a folder of Trainer.
pub(crate) fn open_trainer(path: &Path, options: &ReadOptions) -> Result<Checkpoint> {
    let state = trainer_state(path, &options.limits).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::not_found("trainer_state.json is missing, which Trainer writes last")
            .with_path(path)
            .with_hint("the checkpoint was not finished"),
        _ => e,
    })?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let checkpoint = Checkpoint {
        path: path.to_owned(),
        kind: Kind::Trainer,
        step: state["global_step"].as_u64().or_else(|| step_of(name)),
        epoch: state["epoch"].as_f64(),
        metrics: trainer_metrics(&state),
        manifest: None,
        parts: TorchParts::default(),
        options: options.clone(),
    };
    checkpoint.weights()?;
    Ok(checkpoint)
}

/// The last numbers that Trainer logged, each under its name.
fn trainer_metrics(state: &Json) -> Vec<(String, f64)> {
    let mut metrics: Vec<(String, f64)> = Vec::new();
    for line in state["log_history"].as_array().into_iter().flatten() {
        for (name, value) in line.as_object().into_iter().flatten() {
            let Some(x) = value.as_f64().filter(|_| !matches!(name.as_str(), "step" | "epoch")) else {
                continue;
            };
            // What a log can hold of names is small; a file that has more is not read for them.
            let full = metrics.len() >= 256;
            match metrics.iter_mut().find(|(n, _)| n == name) {
                Some((_, old)) => *old = x,
                None if full => {}
                None => metrics.push((name.clone(), x)),
            }
        }
    }
    metrics
}

pub(crate) fn trainer_state(path: &Path, limits: &Limits) -> Result<Json> {
    read_json(&path.join(TRAINER_STATE), limits)
}

/// The first of these files that is there.
pub(crate) fn trainer_file(checkpoint: &Checkpoint, names: &[&str]) -> Result<Option<Box<dyn Archive>>> {
    let found = names.iter().map(|n| checkpoint.path.join(n)).find(|p| p.is_file());
    found.map(|p| Registry::builtin().open(Source::open(p)?, &checkpoint.options)).transpose()
}

/// The files right in a folder.
pub(crate) fn folder_files(path: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let fail = |e| Error::io("listing the checkpoint", e).with_path(path);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if let Ok(meta) = entry.metadata()
            && meta.is_file()
        {
            files.push((entry.path(), meta.len()));
        }
    }
    files.sort();
    Ok(files)
}
