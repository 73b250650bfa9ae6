//! The writer: the archive's values as one pickle, its tensors as NumPy arrays.
//!
//! An array is `numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b'b')` with the state `(1, shape, dtype,
//! False, bytes)`, in every protocol: every NumPy reads that, and `numpy.core` is the name that all of them know.

use std::collections::HashMap;

use super::{ID, INFO};
use crate::archive::{Archive, Note};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::flat;
use crate::pickle::{EncodeOptions, Encoder, TensorEncoder, encode_with_payloads, is_harmless};
use crate::source::ReadAt;
use crate::traits::{FormatInfo, Serializer, ValuesPolicy, WriteOptions};
use crate::value::{Dict, Global, Value, Values};
use crate::write::{FilePlan, WritePlan};

/// The protocol where the caller names none: every Python since 3.4 reads it.
const PROTOCOL: u8 = 4;

/// Writes plain pickles.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickleWriter;

impl Serializer for PickleWriter {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn plan<'a>(&self, archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
        plan(archive, options, &is_harmless).map_err(|e| e.with_format(ID))
    }
}

/// As the plan of [`PickleWriter`], where the values may also name the globals that `allow` says yes to: classes of
/// a library whose objects are to be written, such as `sklearn.feature_extraction.text.CountVectorizer`.
///
/// Whoever loads such a pickle with Python imports those modules and calls what is named, with the arguments and
/// state that the values have. So `allow` should know a few names by heart, and never ask the file that the values
/// were read from. [`is_harmless`] globals need no leave. [`new_object`](super::new_object),
/// [`numpy_dtype`](super::numpy_dtype) and [`numpy_scalar`](super::numpy_scalar) build what such objects are made
/// of; [`NUMPY_GLOBALS`](super::NUMPY_GLOBALS) is what the last two name.
///
/// # Errors
/// As [`Serializer::plan`]; `UnsafeContent` names the first global that is neither harmless nor allowed.
pub fn plan_objects<'a>(
    archive: &'a dyn Archive,
    options: &WriteOptions,
    allow: &dyn Fn(&Global) -> bool,
) -> Result<WritePlan<'a>> {
    plan(archive, options, &|global| is_harmless(global) || allow(global)).map_err(|e| e.with_format(ID))
}

fn plan<'a>(
    archive: &'a dyn Archive,
    options: &WriteOptions,
    allow_global: &dyn Fn(&Global) -> bool,
) -> Result<WritePlan<'a>> {
    if options.max_shard_size.is_some_and(|most| archive.bytes() > most) {
        return Err(Error::invalid_options("a pickle is one file and has no shards")
            .with_hint("leave the shard size out, or choose a format with shards"));
    }
    let mut notes = Vec::new();
    check_metadata(archive, options, &mut notes)?;
    notes.extend(flat::stored_twice(archive).map(Note::changed));
    notes.extend(flat::flags_left_out(archive.tensors()).map(Note::info));
    let by_names;
    let protocol = options.pickle_protocol.unwrap_or(PROTOCOL);
    let values = match archive.values() {
        Some(values) if options.values == ValuesPolicy::Keep => values,
        known => {
            if known.is_some() {
                notes.push(Note::lost("values that are no tensors, and how they were nested"));
            }
            by_names = by_name(archive)?;
            &by_names
        }
    };
    let Some(root) = values.root() else {
        return Err(Error::invalid_options("the archive's values have no root"));
    };
    check_all_held(archive, values, options, &mut notes)?;
    let mut arrays =
        Arrays { archive, dtypes: HashMap::new(), in_memory: 0, most: options.limits.header_bytes };
    let encode = EncodeOptions { protocol, allow_global, ..EncodeOptions::default() };
    let encoded = encode_with_payloads(values, root, &encode, &mut arrays).map_err(|e| {
        e.with_hint("leave out the values that are no tensors, or choose a format that holds them")
    })?;
    let mut file = FilePlan::new(options.file_name.clone());
    let mut done = 0;
    for payload in &encoded.payloads {
        let index = payload.tag as usize;
        let name = archive.tensors()[index].shared_name();
        file.push_fixed(encoded.bytes[done..payload.at].to_vec())?;
        file.push_data(archive.data(index).map_err(|e| e.with_tensor(&*name))?, name, false)?;
        done = payload.at;
    }
    file.push_fixed(encoded.bytes[done..].to_vec())?;
    Ok(WritePlan { files: vec![file], notes })
}

/// A dict of every tensor by its name.
fn by_name(archive: &dyn Archive) -> Result<Values> {
    let mut values = Values::new();
    let mut entries = Vec::with_capacity(archive.tensors().len());
    for (i, info) in archive.tensors().iter().enumerate() {
        let index = u32::try_from(i).map_err(|_| Error::limit("more than 4,294,967,295 tensors"))?;
        let name = values.push(Value::Str(info.name().into()))?;
        entries.push((name, values.push(Value::Tensor(index))?));
    }
    let root = values.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() })))?;
    values.set_root(root);
    Ok(values)
}

/// Text metadata has no place in a pickle. `format` alone says only which framework wrote a safetensors file.
fn check_metadata(archive: &dyn Archive, options: &WriteOptions, notes: &mut Vec<Note>) -> Result<()> {
    let all = archive.metadata().iter().chain(&options.metadata);
    let lost: Vec<&str> = all.map(|(key, _)| key.as_str()).filter(|key| *key != "format").collect();
    if lost.is_empty() {
        return Ok(());
    }
    let what = format!("{} entries of text metadata: {}", lost.len(), lost[..lost.len().min(5)].join(", "));
    if !options.allow_loss {
        return Err(Error::invalid_options(format!("a pickle has no place for {what}"))
            .with_hint("allow the loss, or choose a format with metadata"));
    }
    notes.push(Note::lost(what));
    Ok(())
}

/// Whether the values lead to every tensor.
fn check_all_held(
    archive: &dyn Archive,
    values: &Values,
    options: &WriteOptions,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let mut held = vec![false; archive.tensors().len()];
    let reachable = values.root().map(|root| values.reachable(root)).unwrap_or_default();
    for (id, value) in values.iter() {
        if let (Value::Tensor(i), Some(true)) = (value, reachable.get(id.index())) {
            match held.get_mut(*i as usize) {
                Some(held) => *held = true,
                None => {
                    return Err(Error::not_found(format!("tensor {i} of the values is not in the archive")));
                }
            }
        }
    }
    let names = archive.tensors().iter().zip(&held).filter(|(_, held)| !**held);
    let names: Vec<&str> = names.map(|(info, _)| info.name()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{} tensors that the values do not lead to: {}",
        names.len(),
        names[..names.len().min(5)].join(", ")
    );
    if !options.allow_loss {
        return Err(Error::invalid_options(format!("a pickle would lose {what}"))
            .with_hint("leave out the values that are no tensors, and every tensor is kept by its name"));
    }
    notes.push(Note::lost(what));
    Ok(())
}

/// Writes tensors as NumPy arrays.
struct Arrays<'a> {
    archive: &'a dyn Archive,
    /// The memo places of the dtypes.
    dtypes: HashMap<DType, u32>,
    /// Bytes that protocol 2 made us take into memory, and the most that may be.
    in_memory: u64,
    most: u64,
}

impl TensorEncoder for Arrays<'_> {
    fn encode(&mut self, tensor: u32, out: &mut Encoder) -> Result<()> {
        let Some(info) = self.archive.tensors().get(tensor as usize) else {
            return Err(Error::not_found(format!("there is no tensor number {tensor}")));
        };
        out.global("numpy.core.multiarray", "_reconstruct")?;
        out.global("numpy", "ndarray")?;
        out.int(0);
        out.tuple1();
        out.bytes(b"b")?;
        out.tuple3();
        out.reduce();
        out.mark();
        out.int(1);
        out.mark();
        for &size in info.shape() {
            out.int(i64::try_from(size).map_err(|_| too_large(info.name()))?);
        }
        out.tuple();
        self.dtype(info.dtype(), info.name(), out)?;
        out.bool(false);
        if out.protocol() == 2 {
            self.in_memory = self.in_memory.saturating_add(info.bytes());
            if self.in_memory > self.most {
                return Err(Error::limit(
                    "protocol 2 holds bytes as text, which takes memory for all of them",
                )
                .with_tensor(info.name())
                .with_hint("choose protocol 3 or later"));
            }
            let data = self.archive.data(tensor as usize).map_err(|e| e.with_tensor(info.name()))?;
            out.bytes(&data.read_all()?)?;
        } else {
            let length = self.archive.data(tensor as usize)?.len();
            if length != info.bytes() {
                let what = format!("{length} bytes are given where dtype and shape take {}", info.bytes());
                return Err(Error::mismatch(what).with_tensor(info.name()));
            }
            out.payload(length, tensor)?;
        }
        out.tuple();
        out.build();
        Ok(())
    }
}

impl Arrays<'_> {
    fn dtype(&mut self, dtype: DType, name: &str, out: &mut Encoder) -> Result<()> {
        if let Some(memo) = self.dtypes.get(&dtype) {
            out.get(*memo);
            return Ok(());
        }
        let Some(code) = dtype.numpy_code() else {
            return Err(Error::unsupported(format!("NumPy has no dtype {dtype}"))
                .with_tensor(name)
                .with_hint("cast it, for example to f32"));
        };
        out.global("numpy", "dtype")?;
        out.string(code)?;
        out.bool(false);
        out.bool(true);
        out.tuple3();
        out.reduce();
        self.dtypes.insert(dtype, out.put()?);
        // (version, byte order, subarray, names, fields, item size, alignment, flags)
        out.mark();
        out.int(3);
        out.string(if dtype.size() == Some(1) { "|" } else { "<" })?;
        out.none();
        out.none();
        out.none();
        out.int(-1);
        out.int(-1);
        out.int(0);
        out.tuple();
        out.build();
        Ok(())
    }
}

fn too_large(name: &str) -> Error {
    Error::unsupported("a dimension does not fit NumPy's sizes").with_tensor(name)
}
