//! Writing: a header that is known before a byte is written, then each tensor's bytes.
//!
//! The order and the spelling are the reference's: the widest dtypes first, then by name, the header padded with
//! spaces to a multiple of 8. So every tensor of whole-byte elements is aligned, and the same tensors give the same
//! file that the reference gives. Metadata is sorted by key, where the reference leaves it to chance.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::header::overflows;
use super::{INFO, MAX_HEADER};
use crate::archive::{Archive, Note};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::flat;
use crate::json::push_string;
use crate::kept_values;
use crate::shards::{ShardIndex, Split, VALUES_KEY, shard_names};
use crate::tensor::TensorInfo;
use crate::traits::{FormatInfo, Serializer, WriteOptions};
use crate::write::{FilePlan, WritePlan};

/// Writes safetensors files.
#[derive(Clone, Copy, Debug, Default)]
pub struct SafetensorsWriter;

impl Serializer for SafetensorsWriter {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn plan<'a>(&self, archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
        plan(archive, options).map_err(|e| e.with_format(INFO.id))
    }
}

fn plan<'a>(archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
    let mut notes = Vec::new();
    let tensors = archive.tensors();
    let chosen = choose(tensors, options, &mut notes)?;
    check(tensors, &chosen)?;
    notes.extend(flat::stored_twice(archive).map(Note::changed));
    notes.extend(flat::flags_left_out(tensors).map(Note::info));
    let mut metadata = metadata(archive, options);
    let mut written = vec![false; archive.tensors().len()];
    chosen.iter().for_each(|&i| written[i] = true);
    let values = kept_values::to_text(archive, |i| written[i], options, &mut notes)?;
    if let Some(max) = options.max_shard_size {
        if max == 0 {
            return Err(Error::invalid_options("the largest shard size is 0"));
        }
        let split = Split {
            max,
            fixed: fixed_bytes(&metadata),
            overhead: |i: usize| entry_bytes(&tensors[i]),
            together: false,
        };
        let shards = split.fill(archive, &chosen);
        // The split reckons with the longest header there could be; this is the header that there is.
        let mut all = metadata.clone();
        all.extend(values.iter().map(|v| (VALUES_KEY.to_owned(), v.clone())));
        let header = header(tensors, &sorted(tensors, &chosen), &all);
        let bytes = chosen.iter().fold(0u64, |n, &i| n.saturating_add(tensors[i].bytes()));
        let fits = header.is_ok_and(|h| bytes.saturating_add(h.len() as u64) <= max);
        // A lone tensor that is too large gains nothing by an index.
        let whole = fits || shards.len() <= 1 && values.is_none();
        if !whole {
            let files = sharded(archive, &options.file_name, &shards, &metadata, values.as_deref())?;
            return Ok(WritePlan { files, notes });
        }
    }
    metadata.extend(values.map(|v| (VALUES_KEY.to_owned(), v)));
    let name = options.file_name.strip_suffix(".index.json").unwrap_or(&options.file_name);
    let file = file(archive, name.to_owned(), &chosen, &metadata)?;
    Ok(WritePlan { files: vec![file], notes })
}

/// The shards and their index, which is last and so makes a complete set visible.
fn sharded<'a>(
    archive: &'a dyn Archive,
    file_name: &str,
    shards: &[Vec<usize>],
    metadata: &BTreeMap<String, String>,
    values: Option<&str>,
) -> Result<Vec<FilePlan<'a>>> {
    let (names, index_name) = shard_names(file_name, shards.len());
    let tensors = archive.tensors();
    let (mut files, mut weight_map, mut bytes) = (Vec::new(), BTreeMap::new(), 0u64);
    for (shard, name) in shards.iter().zip(&names) {
        files.push(file(archive, name.clone(), shard, metadata)?);
        for &i in shard {
            weight_map.insert(tensors[i].name(), name.as_str());
            bytes = bytes.saturating_add(tensors[i].bytes());
        }
    }
    let mut index = FilePlan::new(index_name);
    index.push_fixed(ShardIndex::render(&weight_map, bytes, values).into_bytes())?;
    files.push(index);
    Ok(files)
}

/// Where the reference sorts a dtype: its declaration has them by alignment, and it writes from the end.
fn rank(dtype: DType) -> usize {
    use DType::*;
    const ORDER: [DType; 22] = [
        Bool, F4, F6E2M3, F6E3M2, U8, I8, F8E5M2, F8E4M3, F8E8M0, F8E4M3Fnuz, F8E5M2Fnuz, I16, U16, F16,
        Bf16, I32, U32, F32, C64, F64, I64, U64,
    ];
    ORDER.iter().position(|&d| d == dtype).unwrap_or_default()
}

/// The tensors that the format can hold; the others are an error, or lost with leave.
fn choose(tensors: &[TensorInfo], options: &WriteOptions, notes: &mut Vec<Note>) -> Result<Vec<usize>> {
    let (chosen, foreign): (Vec<_>, Vec<_>) =
        (0..tensors.len()).partition(|&i| tensors[i].dtype().in_safetensors());
    if foreign.is_empty() {
        return Ok(chosen);
    }
    let named =
        flat::listed(foreign.iter().map(|&i| format!("{} ({})", tensors[i].name(), tensors[i].dtype())));
    if !options.allow_loss {
        let what = format!("safetensors has no dtype for {} tensors: {named}", foreign.len());
        return Err(Error::invalid_options(what).with_hint(
            "cast them to a dtype that safetensors has, leave them out by name, or allow the loss",
        ));
    }
    notes.push(Note::lost(format!(
        "{} tensors are left out, whose dtype safetensors does not have: {named}",
        foreign.len()
    )));
    Ok(chosen)
}

/// Refuses what a header cannot say: one name twice, the metadata's own, and shapes that no reader takes.
fn check(tensors: &[TensorInfo], chosen: &[usize]) -> Result<()> {
    let mut names = std::collections::HashSet::with_capacity(chosen.len());
    for &i in chosen {
        let name = tensors[i].name();
        let (what, hint) = match name {
            "__metadata__" => ("no tensor can have the name of the metadata", "rename it"),
            _ if !names.insert(name) => ("two tensors have this name", "rename it"),
            _ if overflows(tensors[i].shape()) => (
                "the product of its shape overflows before the zero in it",
                "leave out the tensor, which is empty",
            ),
            _ => continue,
        };
        return Err(Error::invalid_options(what).with_tensor(name).with_hint(hint));
    }
    Ok(())
}

/// The metadata to write: the archive's, the caller's over it, and what transformers wants to see.
fn metadata(archive: &dyn Archive, options: &WriteOptions) -> BTreeMap<String, String> {
    let mut out: BTreeMap<_, _> = archive.metadata().iter().cloned().collect();
    out.extend(options.metadata.iter().cloned());
    if archive.format() == "torch" {
        out.entry("format".into()).or_insert_with(|| "pt".into());
    }
    out
}

/// In the order of the file: the widest dtypes first, then by name.
fn sorted(tensors: &[TensorInfo], chosen: &[usize]) -> Vec<usize> {
    let mut order = chosen.to_vec();
    order.sort_by(|&a, &b| {
        let (a, b) = (&tensors[a], &tensors[b]);
        rank(b.dtype()).cmp(&rank(a.dtype())).then_with(|| a.name().cmp(b.name()))
    });
    order
}

/// The bytes of a file beside its tensors and their entries, at most.
fn fixed_bytes(metadata: &BTreeMap<String, String>) -> u64 {
    let mut text = String::new();
    for (key, value) in metadata {
        push_string(&mut text, key);
        push_string(&mut text, value);
        text.push_str(":,");
    }
    // The length, the braces, the metadata's key, and the padding.
    text.len() as u64 + 8 + 2 + 20 + 8
}

/// The bytes of a tensor's entry in the header, at most: an offset has up to 20 digits.
fn entry_bytes(info: &TensorInfo) -> u64 {
    let mut text = String::new();
    push_string(&mut text, info.name());
    let fields = r#":{"dtype":"","shape":[],"data_offsets":[,]},"#.len() + info.dtype().name().len();
    let dims: usize = info.shape().iter().map(|d| d.checked_ilog10().unwrap_or(0) as usize + 2).sum();
    (text.len() + fields + dims + 2 * 20) as u64
}

/// The bytes of length and header.
fn header(tensors: &[TensorInfo], chosen: &[usize], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut json = String::with_capacity(chosen.len() * 112 + 64);
    json.push_str("\0\0\0\0\0\0\0\0{");
    if !metadata.is_empty() {
        json.push_str("\"__metadata__\":{");
        for (key, value) in metadata {
            push_string(&mut json, key);
            json.push(':');
            push_string(&mut json, value);
            json.push(',');
        }
        json.pop();
        json.push_str("},");
    }
    let mut offset = 0u64;
    for info in chosen.iter().map(|&i| &tensors[i]) {
        push_string(&mut json, info.name());
        json.push_str(":{\"dtype\":\"");
        json.push_str(info.dtype().name());
        json.push_str("\",\"shape\":[");
        for (i, dim) in info.shape().iter().enumerate() {
            let _ = write!(json, "{}{dim}", if i == 0 { "" } else { "," });
        }
        let end = offset.checked_add(info.bytes()).ok_or_else(|| {
            Error::invalid_options("the file would be longer than any file can be").with_tensor(info.name())
        })?;
        let _ = write!(json, "],\"data_offsets\":[{offset},{end}]}},");
        offset = end;
    }
    if json.ends_with(',') {
        json.pop();
    }
    json.push('}');
    let mut bytes = json.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    let len = bytes.len() as u64 - 8;
    if len > MAX_HEADER {
        let what = format!("the header would take {len} bytes, and readers refuse more than {MAX_HEADER}");
        return Err(Error::invalid_options(what).with_hint("write several shards: set a largest shard size"));
    }
    bytes[..8].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

/// One file of these tensors.
fn file<'a>(
    archive: &'a dyn Archive,
    name: String,
    chosen: &[usize],
    metadata: &BTreeMap<String, String>,
) -> Result<FilePlan<'a>> {
    let tensors = archive.tensors();
    let chosen = sorted(tensors, chosen);
    let mut file = FilePlan::new(name);
    file.push_fixed(header(tensors, &chosen, metadata)?)?;
    for i in chosen {
        let (info, data) = (&tensors[i], archive.data(i).map_err(|e| e.with_tensor(tensors[i].name()))?);
        let len = crate::source::ReadAt::len(&data);
        if len != info.bytes() {
            let what = format!("{len} bytes are given where dtype and shape take {}", info.bytes());
            return Err(Error::mismatch(what).with_tensor(info.name()));
        }
        file.push_data(data, info.shared_name(), false)?;
    }
    Ok(file)
}
