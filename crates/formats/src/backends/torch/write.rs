//! The writer: a pickle of the value tree, and each storage once, in torch's own zip layout.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::emit::{Emit, StorageTable, emit_values};
use super::layout::Layout;
use super::{ID, INFO};
use crate::archive::{Archive, Note};
use crate::error::{Error, Result};
use crate::flat;
use crate::shards::{ShardIndex, Split, shard_names};
use crate::tensor::TensorInfo;
use crate::traits::{FormatInfo, Serializer, ValuesPolicy, WriteOptions};
use crate::value::{Dict, Value, Values};
use crate::write::{FilePlan, WritePlan};

/// Writes PyTorch files: the zip container of torch 1.6 and later, which `torch.load` reads with
/// `weights_only=True` and with `mmap=True`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TorchWriter;

/// The protocol that `torch.load(weights_only=True)` takes.
const PROTOCOL: u8 = 2;

impl Serializer for TorchWriter {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn plan<'a>(&self, archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
        plan(archive, options).map_err(|e| e.with_format(ID))
    }
}

fn plan<'a>(archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
    let mut plan = WritePlan::default();
    refuse_dtypes(archive)?;
    let metadata: Vec<&str> = archive.metadata().iter().chain(&options.metadata).map(|(k, _)| &**k).collect();
    if !metadata.is_empty() && metadata != ["format"] {
        plan.notes.push(Note::changed(format!(
            "text metadata has no place in a torch file; left out: {}",
            metadata.join(", ")
        )));
    }
    let tensors = archive.tensors();
    let tree = archive.values().filter(|v| v.root().is_some());
    let nested = tree.filter(|v| !flat::is_plain(v, tensors));
    let kept = tree.filter(|_| options.values == ValuesPolicy::Keep);
    if let Some(values) = nested.filter(|_| options.values == ValuesPolicy::Drop) {
        let left = flat::left_out(values);
        plan.notes.push(Note::changed(match left.count {
            0 => "tensors stand under their dotted names, without the containers around them".to_owned(),
            n => {
                format!("left out, as asked, {}: {}", flat::others(n), flat::listed(left.paths))
            }
        }));
    }
    let all: Vec<usize> = (0..tensors.len()).collect();
    let mut shards = vec![all];
    if let Some(max) = options.max_shard_size {
        shards = split(archive, max, &shards[0], root_of(&options.file_name).len() as u64)?;
    }
    if shards.len() <= 1 {
        let values = match kept {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(flat_dict(archive, &shards.concat())?),
        };
        plan.files.push(plan_file(archive, &values, &options.file_name, options)?);
        return Ok(plan);
    }
    if let Some(values) = nested.filter(|_| options.values == ValuesPolicy::Keep) {
        let left = flat::left_out(values);
        let what = format!(
            "shards hold tensors alone, and here are {} values beside them: {}",
            left.count,
            flat::listed(left.paths)
        );
        return Err(Error::invalid_options(what).with_hint(
            "--values drop leaves them out, --select takes the part that is the weights, and without --max-shard-size one file holds all",
        ));
    }
    let (names, index_name) = shard_names(&options.file_name, shards.len());
    let mut weight_map = BTreeMap::new();
    for (shard, name) in shards.iter().zip(&names) {
        weight_map.extend(shard.iter().map(|&i| (tensors[i].name(), &**name)));
        plan.files.push(plan_file(archive, &flat_dict(archive, shard)?, name, options)?);
    }
    let total = tensors.iter().fold(0u64, |n, t| n.saturating_add(t.bytes()));
    let mut index = FilePlan::new(index_name);
    index.push_fixed(ShardIndex::render(&weight_map, total, None).into_bytes())?;
    plan.files.push(index);
    Ok(plan)
}

/// Fills shards so that no file is longer than `max`, unless one storage alone is.
fn split(archive: &dyn Archive, max: u64, order: &[usize], root: u64) -> Result<Vec<Vec<usize>>> {
    if max == 0 {
        return Err(Error::invalid_options("the largest shard size is 0"));
    }
    let tensors = archive.tensors();
    // At most: two headers of a member with its name, zip64 fields and padding, and the tensor in the pickle.
    let overhead = |i: usize| {
        let info: &TensorInfo = &tensors[i];
        600 + 2 * root + info.name().len() as u64 + 18 * info.shape().len() as u64
    };
    Ok(Split { max, fixed: 4096 + 20 * root, overhead, together: true }.fill(archive, order))
}

/// One zip of a value tree and its storages.
fn plan_file<'a>(
    archive: &'a dyn Archive,
    values: &Values,
    file_name: &str,
    options: &WriteOptions,
) -> Result<FilePlan<'a>> {
    let mut table = StorageTable::new(archive)?;
    let protocol = options.pickle_protocol.unwrap_or(PROTOCOL);
    let pickle = emit_values(values, protocol, &mut Emit::new(archive, &mut table))?;
    let mut zip = Layout::new(file_name, root_of(file_name));
    zip.fixed("data.pkl", &pickle)?;
    zip.fixed(".format_version", b"1")?;
    zip.fixed(".storage_alignment", b"64")?;
    zip.fixed("byteorder", b"little")?;
    let mut name = String::new();
    for (key, content) in table.into_contents().into_iter().enumerate() {
        use std::fmt::Write as _;
        name.clear();
        let _ = write!(name, "data/{key}");
        zip.data(&name, content)?;
    }
    zip.fixed("version", b"3\n")?;
    zip.finish()
}

/// The folder in the zip: the file's stem, as torch has it; `archive` where the name has other than ASCII.
pub(super) fn root_of(file_name: &str) -> &str {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    let plain =
        !stem.is_empty() && stem.len() < 1024 && stem.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if plain { stem } else { "archive" }
}

fn refuse_dtypes(archive: &dyn Archive) -> Result<()> {
    match archive.tensors().iter().find(|t| t.dtype().torch_name().is_empty()) {
        Some(t) => Err(Error::invalid_options(format!("torch has no dtype {}", t.dtype()))
            .with_tensor(t.name())
            .with_hint("cast it (--dtype f16), or leave it out (--drop)")),
        None => Ok(()),
    }
}

/// A dict of these tensors by their names: what a state dict is.
fn flat_dict(archive: &dyn Archive, tensors: &[usize]) -> Result<Values> {
    let mut values = Values::new();
    let mut dict = Dict::default();
    for &i in tensors {
        let info = &archive.tensors()[i];
        let index = u32::try_from(i).map_err(|_| Error::limit("more than 4,294,967,295 tensors"))?;
        let key = values.push(Value::Str(info.name().into()))?;
        dict.entries.push((key, values.push(Value::Tensor(index))?));
    }
    let root = values.push(Value::Dict(Box::new(dict)))?;
    values.set_root(root);
    Ok(values)
}
