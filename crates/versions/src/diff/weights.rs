//! What changed in the weights of two versions: tensors, dtypes, sizes.

use std::collections::{BTreeMap, BTreeSet};

use weighbridge_formats::write::Observer;
use weighbridge_formats::{
    Archive, DType, DiffOptions, Error, ErrorKind, Note, OtherDiff, ReadOptions, Registry, Result,
    TensorDiff, diff,
};

use crate::folder::ModelFolder;

/// The weights of a model: one archive, or several where a folder holds weights of several purposes.
pub(crate) struct Weights {
    /// Each with what goes before the names of its tensors: nothing, or its file's name and `/`.
    pub(crate) parts: Vec<(String, Box<dyn Archive>)>,
    /// Why there is no archive, where there is none.
    pub(crate) absent: Option<String>,
    /// The names of the files that were opened, as the folder has them.
    pub(crate) files: BTreeSet<String>,
    /// What the readers have to say of the choice.
    pub(crate) notes: Vec<Note>,
}

/// Endings of files that hold weights, whether they can be opened here or not.
const ENDINGS: &[&str] = &[
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
    ".onnx_data",
    ".ot",
    ".npz",
];

/// Whether a file by its name holds weights, or is the index of a sharded set.
pub(crate) fn is_weights_name(name: &str) -> bool {
    let lower = name.to_lowercase();
    let name = lower.strip_suffix(".index.json").unwrap_or(&lower);
    ENDINGS.iter().any(|e| name.ends_with(e))
}

impl Weights {
    /// Opens the weights of a folder: headers only.
    ///
    /// # Errors
    /// What the readers say of weights that are broken; that there are none, or in a format that is not read, is no
    /// error.
    pub(crate) fn open(folder: &ModelFolder) -> Result<Self> {
        let registry = Registry::builtin();
        let mut weights = Self { parts: Vec::new(), absent: None, files: BTreeSet::new(), notes: Vec::new() };
        match registry.open_path(&folder.root, &ReadOptions::default()) {
            Ok(archive) => weights.push(folder, String::new(), archive),
            Err(e) if e.kind() == ErrorKind::InvalidOptions => weights.open_each(folder, &registry)?,
            // That there are no weights is said of the folder; of a file, that a part of it is missing.
            Err(e)
                if tolerable(&e)
                    && (e.kind() != ErrorKind::NotFound || e.path() == Some(folder.root.as_path())) =>
            {
                weights.absent = Some(e.message().to_owned());
            }
            Err(e) => return Err(e),
        }
        Ok(weights)
    }

    /// Several files could be meant, so each of them is.
    fn open_each(&mut self, folder: &ModelFolder, registry: &Registry) -> Result<()> {
        for file in &folder.files {
            if file.name.contains('/') || !is_weights_name(&file.name) || file.name.ends_with(".json") {
                continue;
            }
            match registry.open(file.open()?, &ReadOptions::default()) {
                Ok(archive) => {
                    self.push(folder, format!("{}/", file.name), archive);
                    self.files.insert(file.name.clone());
                }
                Err(e) if tolerable(&e) && e.kind() != ErrorKind::NotFound => {
                    self.notes.push(Note::info(format!(
                        "{} is not compared by tensors: {}",
                        file.name,
                        e.message()
                    )));
                }
                Err(e) => return Err(e),
            }
        }
        if self.parts.is_empty() {
            self.absent = Some("none of the files that could be weights is in a format that is read".into());
        }
        Ok(())
    }

    fn push(&mut self, folder: &ModelFolder, prefix: String, archive: Box<dyn Archive>) {
        let opened: Vec<_> = archive.files();
        for file in &folder.files {
            let path = folder.root.join(&file.name);
            if opened.iter().any(|o| *o == path || *o == file.path) {
                self.files.insert(file.name.clone());
            }
        }
        self.parts.push((prefix, archive));
    }

    /// The number of elements of all tensors.
    pub(crate) fn parameters(&self) -> u64 {
        self.parts.iter().fold(0, |n, (_, a)| n.saturating_add(a.parameters()))
    }

    /// The bytes of all tensors.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |n, (_, a)| n.saturating_add(a.bytes()))
    }

    /// The number of tensors.
    pub(crate) fn tensors(&self) -> u64 {
        self.parts.iter().map(|(_, a)| a.tensors().len() as u64).sum()
    }

    /// Parameters by dtype.
    pub(crate) fn dtypes(&self) -> BTreeMap<&'static str, u64> {
        let mut dtypes = BTreeMap::new();
        for tensor in self.parts.iter().flat_map(|(_, a)| a.tensors()) {
            let count = dtypes.entry(tensor.dtype().name()).or_insert(0u64);
            *count = count.saturating_add(tensor.elements());
        }
        dtypes
    }
}

/// Whether an error only says that there is nothing that this build can open. A file with the name of weights that is
/// in no known format is broken, or stands for one that was not fetched.
fn tolerable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::FormatDisabled)
}

/// What changed in the weights.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WeightsDiff {
    /// How many tensors both versions have.
    pub compared: u64,
    /// The names of the tensors that only the newer version has.
    pub added: Vec<String>,
    /// The names of the tensors that only the older version has.
    pub removed: Vec<String>,
    /// The tensors that both have and that differ in shape, dtype or numbers.
    pub changed: Vec<TensorDiff>,
    /// The tensors whose numbers are equal and whose bits are not: -0 and 0, two NaNs.
    pub other_bits: Vec<String>,
    /// What differs beside the tensors: text metadata, and values such as a step count.
    pub other: OtherDiff,
    /// The number of elements of all tensors, before and after.
    pub parameters: [u64; 2],
    /// The bytes of all tensors, before and after.
    pub bytes: [u64; 2],
    /// Parameters by dtype, before and after.
    pub dtypes: [BTreeMap<&'static str, u64>; 2],
    /// Why the tensors were not compared: one side has none that can be read.
    pub not_compared: Option<String>,
}

impl WeightsDiff {
    /// Whether every tensor is the same, and what is beside them. Not so where the tensors were not compared.
    pub fn is_equal(&self) -> bool {
        let names = [&self.added, &self.removed, &self.other_bits];
        self.not_compared.is_none()
            && names.iter().all(|n| n.is_empty())
            && self.changed.is_empty()
            && self.other.is_empty()
    }

    /// The tensors whose shape changed.
    pub fn reshaped(&self) -> impl Iterator<Item = &TensorDiff> {
        self.changed.iter().filter(|t| t.shapes[0] != t.shapes[1])
    }

    /// How many tensors went from which dtype to which.
    pub fn recast(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut recast = BTreeMap::new();
        for [a, b] in self.changed.iter().map(|t| t.dtypes).filter(|[a, b]| a != b) {
            *recast.entry((DType::name(a), DType::name(b))).or_insert(0) += 1;
        }
        recast
    }

    /// The tensors whose numbers changed, the largest relative change first; it is that of the element that changed
    /// most in proportion to its magnitude.
    pub fn largest(&self) -> Vec<(&TensorDiff, f64)> {
        let change = |t: &TensorDiff| {
            let values = t.values.as_ref()?;
            let nan = if values.nan_on_one_side > 0 { Some(f64::INFINITY) } else { None };
            nan.or(values.max_relative).filter(|_| values.differing > 0)
        };
        let mut found: Vec<_> = self.changed.iter().filter_map(|t| Some((t, change(t)?))).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.name.cmp(&b.0.name)));
        found
    }
}

/// Compares the weights of two versions, element by element.
pub(super) fn compare(a: &Weights, b: &Weights, observer: Option<&dyn Observer>) -> Result<WeightsDiff> {
    let mut out = WeightsDiff {
        parameters: [a.parameters(), b.parameters()],
        bytes: [a.bytes(), b.bytes()],
        dtypes: [a.dtypes(), b.dtypes()],
        ..WeightsDiff::default()
    };
    for (side, weights) in [("older", a), ("newer", b)] {
        if let Some(why) = &weights.absent {
            out.not_compared = Some(format!("the {side} version: {why}"));
            return Ok(out);
        }
    }
    let named = |prefix: &str, archive: &dyn Archive| -> Vec<String> {
        archive.tensors().iter().map(|t| format!("{prefix}{}", t.name())).collect()
    };
    let mut options = DiffOptions::default();
    options.observer = observer;
    for (prefix, old) in &a.parts {
        // One archive on each side is a pair, whatever their files are called.
        let alone = a.parts.len() == 1 && b.parts.len() == 1;
        let Some((_, new)) = b.parts.iter().find(|(p, _)| alone || p == prefix) else {
            out.removed.extend(named(prefix, &**old));
            continue;
        };
        let report = diff(&**old, &**new, &options)?;
        let full = |name: String| if prefix.is_empty() { name } else { format!("{prefix}{name}") };
        out.compared += report.compared;
        out.removed.extend(report.only_in_a.into_iter().map(full));
        out.added.extend(report.only_in_b.into_iter().map(full));
        out.other_bits.extend(report.nearly_equal.into_iter().map(|t| full(t.name)));
        out.other.metadata.extend(report.other.metadata);
        out.other.values.extend(report.other.values.into_iter().map(|(path, sides)| (full(path), sides)));
        out.other.more_values |= report.other.more_values;
        out.changed.extend(report.different.into_iter().map(|mut t| {
            t.name = full(t.name);
            t
        }));
    }
    for (prefix, new) in &b.parts {
        if a.parts.len() + b.parts.len() > 2 && !a.parts.iter().any(|(p, _)| p == prefix) {
            out.added.extend(named(prefix, &**new));
        }
    }
    Ok(out)
}
