//! What a training run hands over to be saved.

use std::path::Path;

use serde_json::Value as Json;
use weighbridge_formats::write::{ExecuteOptions, Written, execute};
use weighbridge_formats::{Archive, Error, Registry, Result, WriteOptions};

use crate::bundle::Bundle;
use crate::manifest::number;

/// A moment of a training run. Nothing of it is copied until it is saved.
///
/// The fields may be set one by one on [`State::new`].
#[non_exhaustive]
#[derive(Clone)]
pub struct State<'a> {
    /// The training step.
    pub step: u64,
    /// The epoch.
    pub epoch: u64,
    /// The model's tensors by name.
    pub weights: &'a dyn Archive,
    /// The optimizer's tensors with what is no tensor beside them; see
    /// [`OptimizerState`](crate::OptimizerState).
    pub optimizer: Option<&'a dyn Archive>,
    /// The learning-rate scheduler's state.
    pub scheduler: Option<&'a Json>,
    /// The state of the random number generators.
    pub random: Option<&'a Json>,
    /// Anything else.
    pub extra: Option<&'a Json>,
    /// Metrics by name, such as the loss of a validation.
    pub metrics: Vec<(String, f64)>,
}

impl<'a> State<'a> {
    /// The weights alone, at epoch and step 0.
    pub fn new(weights: &'a dyn Archive) -> Self {
        Self {
            step: 0,
            epoch: 0,
            weights,
            optimizer: None,
            scheduler: None,
            random: None,
            extra: None,
            metrics: Vec::new(),
        }
    }

    /// Sets epoch and step.
    pub fn at(mut self, epoch: u64, step: u64) -> Self {
        (self.epoch, self.step) = (epoch, step);
        self
    }

    /// Adds the optimizer's state.
    pub fn optimizer(mut self, optimizer: &'a dyn Archive) -> Self {
        self.optimizer = Some(optimizer);
        self
    }

    /// Adds the scheduler's state.
    pub fn scheduler(mut self, scheduler: &'a Json) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// Adds the random state.
    pub fn random(mut self, random: &'a Json) -> Self {
        self.random = Some(random);
        self
    }

    /// Adds anything else.
    pub fn extra(mut self, extra: &'a Json) -> Self {
        self.extra = Some(extra);
        self
    }

    /// Adds a metric.
    pub fn metric(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.push((name.into(), value));
        self
    }
}

/// The keys of a torch checkpoint file. The default is `model`, `optimizer`, `scheduler`, `random`, `extra`.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TorchKeys {
    /// Where the model's state dict stands.
    pub model: String,
    /// Where the optimizer's state dict stands.
    pub optimizer: String,
    /// Where the scheduler's stands.
    pub scheduler: String,
    /// Where the random state stands.
    pub random: String,
    /// Where anything else stands.
    pub extra: String,
}

impl Default for TorchKeys {
    fn default() -> Self {
        Self {
            model: "model".into(),
            optimizer: "optimizer".into(),
            scheduler: "scheduler".into(),
            random: "random".into(),
            extra: "extra".into(),
        }
    }
}

/// Writes a state as one torch file, which `torch.load` reads with `weights_only=True`.
///
/// It is a dict: the state dicts of model and optimizer under their keys, `epoch`, `step`, and `metrics` where there
/// are some. `load_state_dict` of the same model and the same class of optimizer takes them. A file that is there is
/// replaced if `overwrite` says so, completely or not at all.
///
/// # Errors
/// What the torch writer and the write engine say; `InvalidOptions` for a path without a file name.
pub fn write_torch(path: &Path, state: &State<'_>, keys: &TorchKeys, overwrite: bool) -> Result<Written> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Err(Error::invalid_options("the target has no file name that is text").with_path(path));
    };
    let mut bundle = Bundle::new();
    bundle.push_archive(&keys.model, state.weights)?;
    if let Some(optimizer) = state.optimizer {
        bundle.push_archive(&keys.optimizer, optimizer)?;
    }
    let parts =
        [(&keys.scheduler, state.scheduler), (&keys.random, state.random), (&keys.extra, state.extra)];
    for (key, part) in parts {
        if let Some(json) = part {
            bundle.push_json(key, json)?;
        }
    }
    bundle.push_json("epoch", &state.epoch.into())?;
    bundle.push_json("step", &state.step.into())?;
    if !state.metrics.is_empty() {
        let metrics: serde_json::Map<String, Json> =
            state.metrics.iter().map(|(name, x)| (name.clone(), number(*x))).collect();
        bundle.push_json("metrics", &metrics.into())?;
    }
    let bundle = bundle.finish()?;
    let mut options = WriteOptions::default();
    options.file_name = name.to_owned();
    let plan = Registry::builtin().serializer("torch")?.plan(&bundle, &options)?;
    let mut how = ExecuteOptions::default();
    how.overwrite = overwrite;
    execute(plan, path.parent().unwrap_or(Path::new("")), &how)
}
