//! The writer: a pickle of the value tree, and each storage once, in torch's own zip layout.

use super::emit::{Emit, StorageTable, emit_values};
use super::layout::Layout;
use super::{ID, INFO};
use crate::archive::{Archive, Note};
use crate::dtype::DType;
use crate::error::{Error, Result};
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
    let kept = match options.values {
        ValuesPolicy::Keep => archive.values().filter(|v| v.root().is_some()),
        ValuesPolicy::Drop => None,
    };
    let flat;
    let values = match kept {
        Some(values) => values,
        None => {
            if archive.values().is_some_and(|v| v.root().is_some()) {
                plan.notes.push(Note::changed("everything but the tensors was left out, as asked for"));
            }
            flat = flat_dict(archive)?;
            &flat
        }
    };
    plan.files.push(plan_file(archive, values, options)?);
    Ok(plan)
}

/// One zip of a value tree and its storages.
fn plan_file<'a>(archive: &'a dyn Archive, values: &Values, options: &WriteOptions) -> Result<FilePlan<'a>> {
    let mut table = StorageTable::new(archive)?;
    let protocol = options.pickle_protocol.unwrap_or(PROTOCOL);
    let pickle = emit_values(values, protocol, &mut Emit::new(archive, &mut table))?;
    let mut zip = Layout::new(&options.file_name, root_of(&options.file_name));
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
fn root_of(file_name: &str) -> &str {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    let plain =
        !stem.is_empty() && stem.len() < 1024 && stem.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if plain { stem } else { "archive" }
}

fn refuse_dtypes(archive: &dyn Archive) -> Result<()> {
    match archive.tensors().iter().find(|t| matches!(t.dtype(), DType::F6E2M3 | DType::F6E3M2)) {
        Some(t) => Err(Error::invalid_options(format!("torch has no dtype {}", t.dtype()))
            .with_tensor(t.name())
            .with_hint("cast it (--dtype f16), or leave it out (--drop)")),
        None => Ok(()),
    }
}

/// A dict of all tensors by their names: what a state dict is.
fn flat_dict(archive: &dyn Archive) -> Result<Values> {
    let mut values = Values::new();
    let mut dict = Dict::default();
    for (i, info) in archive.tensors().iter().enumerate() {
        let index = u32::try_from(i).map_err(|_| Error::limit("more than 4,294,967,295 tensors"))?;
        let key = values.push(Value::Str(info.name().into()))?;
        dict.entries.push((key, values.push(Value::Tensor(index))?));
    }
    let root = values.push(Value::Dict(Box::new(dict)))?;
    values.set_root(root);
    Ok(values)
}
