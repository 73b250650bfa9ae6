//! Writing a model that is in memory but for its weights, which are streamed from an archive.
//!
//! Fields are written by number, as protobuf's own writers do, the initializers in the order of the archive: the same
//! model gives the same bytes. Weights are inside the model's file while that stays small, or else in one file beside
//! it, the way `onnx.external_data_helper` lays them out.

use std::collections::HashSet;

use super::proto::{DataType, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use super::wire::{Wire, put_bytes, put_key, put_len, put_message, put_number, put_varint};
use crate::archive::{Archive, Note};
use crate::error::{Error, Result};
use crate::source::{ReadAt, is_plain_relative};
use crate::tensor::TensorInfo;
use crate::traits::WriteOptions;
use crate::write::{FilePlan, WritePlan};

/// The largest file that weights are put into without being asked for: programs parse a model's file in memory,
/// and map external data.
pub const INSIDE: u64 = 1 << 30;

/// The largest message that protobuf's parsers take.
pub(super) const MAX_MESSAGE: u64 = i32::MAX as u64;

/// Tensors of fewer bytes stay in the model: shapes and axes, which graph checks want to see.
pub(super) const SMALL: u64 = 1024;

/// Tensors of at least so many bytes begin at a multiple of a page in the external data, so that they can be mapped.
const PAGED: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// Where the others begin: at a multiple that suits every vector load.
const ALIGNED: u64 = 64;

/// Lays out a model whose weights are the tensors of an archive: each becomes an initializer of the main graph under
/// its own name, behind those that the model has already.
///
/// The file is `options.file_name`; where the weights are external (see [`WriteOptions::external_data`]), a file of
/// that name with `.data` behind stands beside it. `options.metadata` is added to the model's metadata.
///
/// # Errors
/// `InvalidOptions` for a tensor whose dtype ONNX lacks, a name given twice, a model without graph, options that ONNX
/// has no place for, and weights that were asked to be inside and would make a file of 2 GiB; `Mismatch` for
/// a tensor whose bytes are not as many as its shape takes.
pub fn plan_model<'a>(
    model: &ModelProto,
    weights: &'a dyn Archive,
    options: &WriteOptions,
) -> Result<WritePlan<'a>> {
    plan(model, weights, options).map_err(|e| e.with_format(super::INFO.id))
}

fn plan<'a>(model: &ModelProto, weights: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
    check_options(options)?;
    let Some(graph) = &model.graph else {
        return Err(Error::invalid_options("the model has no graph"));
    };
    check_names(graph, weights.tensors())?;
    let types: Vec<DataType> = weights.tensors().iter().map(data_type).collect::<Result<_>>()?;
    let (before, after) = around_graph(model, options);
    let (head, tail) = around_initializers(graph);
    let own = (before.len() + after.len() + head.len() + tail.len()) as u64;
    // What an initializer takes beside its name, dimensions and bytes.
    let entries = weights.tensors().iter().map(|t| {
        let rank = t.shape().len() as u64;
        (t.name().len() as u64).saturating_add(rank * 11 + 48).saturating_add(t.bytes())
    });
    let inside = entries.fold(own.saturating_add(32), u64::saturating_add);
    let external = options.external_data.unwrap_or(inside > INSIDE);
    let mut store = external.then(|| External::new(&options.file_name));
    let mut entries = Vec::with_capacity(types.len());
    for (info, data_type) in weights.tensors().iter().zip(&types) {
        let place = match &mut store {
            Some(store) if info.bytes() >= SMALL => Some(store.place(info.bytes())?),
            _ => None,
        };
        entries.push(Entry::new(info, *data_type, place.map(|p| (&*options.file_name, p))));
    }
    let graph_len = entries.iter().try_fold((head.len() + tail.len()) as u64, |n, e| {
        n.checked_add(e.prefix.len() as u64)?.checked_add(e.inside)
    });
    let message = |n: u64| n.checked_add((before.len() + after.len()) as u64 + 11);
    let Some(graph_len) = graph_len.filter(|n| message(*n).is_some_and(|n| n <= MAX_MESSAGE)) else {
        let what = "the model's file would be longer than the 2 GiB that protobuf's parsers take";
        let error = Error::invalid_options(what);
        return Err(if external { error } else { error.with_hint("let the weights be external data") });
    };
    let mut file = FilePlan::new(&*options.file_name);
    let mut fixed = before;
    put_len(&mut fixed, 7, graph_len);
    fixed.extend_from_slice(&head);
    let mut data = store.as_ref().map(|s| FilePlan::new(&*s.name));
    for (index, (entry, info)) in entries.into_iter().zip(weights.tensors()).enumerate() {
        fixed.extend_from_slice(&entry.prefix);
        let bytes = weights.data(index).map_err(|e| e.with_tensor(info.name()))?;
        let len = ReadAt::len(&bytes);
        if len != info.bytes() {
            let what = format!("{len} bytes are given where dtype and shape take {}", info.bytes());
            return Err(Error::mismatch(what).with_tensor(info.name()));
        }
        match (entry.offset, &mut data) {
            (Some(offset), Some(data)) => {
                pad(data, offset)?;
                data.push_data(bytes, info.shared_name(), false)?;
            }
            _ => {
                file.push_fixed(std::mem::take(&mut fixed))?;
                file.push_data(bytes, info.shared_name(), false)?;
            }
        }
    }
    fixed.extend_from_slice(&tail);
    fixed.extend_from_slice(&after);
    file.push_fixed(fixed)?;
    let mut notes = Vec::new();
    if let Some(data) = data.as_ref().filter(|d| d.len() > 0) {
        notes.push(Note::info(format!("the tensors' bytes are in {:?} beside the model", data.name)));
    }
    // The model names the data, so it appears last.
    let files = data.into_iter().filter(|d| d.len() > 0).chain(Some(file)).collect();
    Ok(WritePlan { files, notes })
}

/// Fills the data file up to an offset.
pub(super) fn pad(file: &mut FilePlan<'_>, offset: u64) -> Result<()> {
    let gap = offset.saturating_sub(file.len());
    if gap > 0 {
        file.push_fixed(vec![0; gap as usize])?;
    }
    Ok(())
}

/// Refuses what ONNX has no place for.
pub(super) fn check_options(options: &WriteOptions) -> Result<()> {
    if options.max_shard_size.is_some() {
        return Err(Error::invalid_options("ONNX has no sharded sets")
            .with_hint("external data (`WriteOptions::external_data`) is how a large model is written"));
    }
    if !is_plain_relative(&options.file_name) || options.file_name.contains('/') {
        return Err(Error::invalid_options(format!("{:?} is no file name", options.file_name)));
    }
    Ok(())
}

/// Refuses names that a graph cannot tell apart.
fn check_names(graph: &GraphProto, tensors: &[TensorInfo]) -> Result<()> {
    let own = graph.initializer.iter().map(TensorProto::name);
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(TensorProto::name);
    let mut names: HashSet<&str> = HashSet::new();
    for name in own.chain(sparse).chain(tensors.iter().map(TensorInfo::name)) {
        if name.is_empty() {
            return Err(Error::invalid_options("an initializer has no name"));
        }
        if !names.insert(name) {
            return Err(Error::invalid_options("two initializers have this name").with_tensor(name));
        }
    }
    Ok(())
}

/// The data type of a tensor.
pub(super) fn data_type(info: &TensorInfo) -> Result<DataType> {
    DataType::from_dtype(info.dtype()).ok_or_else(|| {
        Error::invalid_options(format!("ONNX has no data type for {}", info.dtype()))
            .with_tensor(info.name())
            .with_hint("cast it, or leave it out by name")
    })
}

/// The model's fields before the graph, and those behind it.
fn around_graph(model: &ModelProto, options: &WriteOptions) -> (Vec<u8>, Vec<u8>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let number = |out: &mut Vec<u8>, field, value: Option<i64>| {
        if let Some(value) = value {
            put_number(out, field, value as u64);
        }
    };
    let text = |out: &mut Vec<u8>, field, value: &Option<String>| {
        if let Some(value) = value {
            put_bytes(out, field, value.as_bytes());
        }
    };
    number(&mut before, 1, model.ir_version);
    text(&mut before, 2, &model.producer_name);
    text(&mut before, 3, &model.producer_version);
    text(&mut before, 4, &model.domain);
    number(&mut before, 5, model.model_version);
    text(&mut before, 6, &model.doc_string);
    model.opset_import.iter().for_each(|m| put_message(&mut after, 8, m));
    metadata(&model.metadata_props, options).iter().for_each(|m| put_message(&mut after, 14, m));
    model.training_info.iter().for_each(|m| put_message(&mut after, 20, m));
    model.functions.iter().for_each(|m| put_message(&mut after, 25, m));
    model.configuration.iter().for_each(|m| put_message(&mut after, 26, m));
    (before, after)
}

/// The model's metadata with the caller's over it.
fn metadata(own: &[StringStringEntryProto], options: &WriteOptions) -> Vec<StringStringEntryProto> {
    let mut out = own.to_vec();
    for (key, value) in &options.metadata {
        match out.iter_mut().find(|e| e.key() == key) {
            Some(entry) => entry.value = Some(value.clone()),
            None => out.push(StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) }),
        }
    }
    out
}

/// The graph's fields before the new initializers, those that it has included, and those behind.
fn around_initializers(graph: &GraphProto) -> (Vec<u8>, Vec<u8>) {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    graph.node.iter().for_each(|m| put_message(&mut head, 1, m));
    if let Some(name) = &graph.name {
        put_bytes(&mut head, 2, name.as_bytes());
    }
    graph.initializer.iter().for_each(|m| put_message(&mut head, 5, m));
    if let Some(text) = &graph.doc_string {
        put_bytes(&mut tail, 10, text.as_bytes());
    }
    graph.input.iter().for_each(|m| put_message(&mut tail, 11, m));
    graph.output.iter().for_each(|m| put_message(&mut tail, 12, m));
    graph.value_info.iter().for_each(|m| put_message(&mut tail, 13, m));
    graph.quantization_annotation.iter().for_each(|m| put_message(&mut tail, 14, m));
    graph.sparse_initializer.iter().for_each(|m| put_message(&mut tail, 15, m));
    graph.metadata_props.iter().for_each(|m| put_message(&mut tail, 16, m));
    (head, tail)
}

/// The file of external data, while it is laid out.
pub(super) struct External {
    pub(super) name: String,
    end: u64,
}

impl External {
    pub(super) fn new(file_name: &str) -> Self {
        Self { name: format!("{file_name}.data"), end: 0 }
    }

    /// Where the next tensor begins.
    pub(super) fn place(&mut self, len: u64) -> Result<Place> {
        let step = if len >= PAGED { PAGE } else { ALIGNED };
        let begin = self.end.checked_next_multiple_of(step);
        let end = begin.and_then(|b| b.checked_add(len)).filter(|&e| e <= i64::MAX as u64);
        let (Some(offset), Some(end)) = (begin, end) else {
            return Err(Error::invalid_options("the external data would be longer than any file can be"));
        };
        self.end = end;
        Ok(Place { offset, len })
    }
}

/// A span of the external data.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// An initializer to be: its field up to where its bytes begin.
struct Entry {
    prefix: Vec<u8>,
    /// How many bytes follow in the model's file.
    inside: u64,
    /// Where its bytes begin in the external data.
    offset: Option<u64>,
}

impl Entry {
    fn new(info: &TensorInfo, data_type: DataType, external: Option<(&str, Place)>) -> Self {
        let mut message = Vec::with_capacity(info.name().len() + 64);
        info.shape().iter().for_each(|&d| put_number(&mut message, 1, d));
        put_number(&mut message, 2, data_type as u64);
        put_bytes(&mut message, 8, info.name().as_bytes());
        let inside = match external {
            Some((file_name, place)) => {
                put_external(&mut message, &format!("{file_name}.data"), place);
                0
            }
            None => {
                put_key(&mut message, 9, Wire::Bytes);
                put_varint(&mut message, info.bytes());
                info.bytes()
            }
        };
        let mut prefix = Vec::with_capacity(message.len() + 8);
        put_len(&mut prefix, 5, message.len() as u64 + inside);
        prefix.extend_from_slice(&message);
        Self { prefix, inside, offset: external.map(|(_, place)| place.offset) }
    }
}

/// Appends the fields of a tensor that say where its bytes are.
pub(super) fn put_external(out: &mut Vec<u8>, location: &str, place: Place) {
    let mut entry = |key: &str, value: String| {
        put_message(out, 13, &StringStringEntryProto { key: Some(key.into()), value: Some(value) });
    };
    entry("location", location.to_owned());
    entry("offset", place.offset.to_string());
    entry("length", place.len.to_string());
    put_number(out, 14, 1);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::archive::MemoryArchive;
    use crate::backends::onnx::proto::{NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto};
    use crate::dtype::DType;
    use crate::error::ErrorKind;
    use crate::tensor::{Data, Tensor};
    use crate::write::Content;

    fn options(external: Option<bool>) -> WriteOptions {
        let metadata = vec![("key".to_owned(), "value".to_owned())];
        WriteOptions {
            file_name: "m.onnx".into(),
            external_data: external,
            metadata,
            ..WriteOptions::default()
        }
    }

    fn model() -> ModelProto {
        let value = |name: &str| ValueInfoProto {
            name: Some(name.into()),
            r#type: Some(TypeProto::default()),
            ..ValueInfoProto::default()
        };
        let own = TensorProto { name: Some("own".into()), int64_data: vec![-1], ..TensorProto::default() };
        let node = NodeProto { op_type: Some("Add".into()), ..NodeProto::default() };
        let graph = GraphProto {
            node: vec![node],
            name: Some("graph".into()),
            initializer: vec![own],
            input: vec![value("x")],
            output: vec![value("y")],
            doc_string: Some(String::new()),
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
        ModelProto {
            ir_version: Some(8),
            producer_name: Some("p".into()),
            graph: Some(graph),
            opset_import: vec![opset],
            ..ModelProto::default()
        }
    }

    fn bytes_of(file: FilePlan<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for segment in file.into_segments() {
            match segment.content {
                Content::Fixed(bytes) => out.extend(bytes),
                Content::Data { data, .. } => out.extend(data.read_all().unwrap()),
                Content::Late(_) => panic!("no late segments here"),
            }
        }
        out
    }

    fn weights<'a>(large: &'a [u8]) -> MemoryArchive<'a> {
        let large =
            Tensor::new("large", DType::F32, [large.len() as u64 / 4].as_slice(), Data::Borrowed(large));
        let small = Tensor::new("small", DType::I4, [3, 1].as_slice(), Data::Borrowed(&[0x21, 0x03]));
        MemoryArchive::new([large.unwrap(), small.unwrap()]).unwrap()
    }

    #[test]
    fn the_file_is_what_prost_would_write() {
        let large = vec![7; 70_000];
        let archive = weights(&large);
        let plan = plan_model(&model(), &archive, &options(None)).unwrap();
        assert_eq!(plan.files.len(), 1);
        let bytes = bytes_of(plan.files.into_iter().next().unwrap());
        let mut wanted = model();
        wanted.metadata_props =
            vec![StringStringEntryProto { key: Some("key".into()), value: Some("value".into()) }];
        let tensor = |name: &str, data_type, dims: &[i64], raw: &[u8]| TensorProto {
            name: Some(name.into()),
            data_type: Some(data_type),
            dims: dims.to_vec(),
            raw_data: Some(raw.to_vec()),
            ..TensorProto::default()
        };
        let graph = wanted.graph.as_mut().unwrap();
        graph.initializer.push(tensor("large", 1, &[17_500], &large));
        graph.initializer.push(tensor("small", 22, &[3, 1], &[0x21, 0x03]));
        assert_eq!(ModelProto::decode(&*bytes).unwrap(), wanted);
        assert_eq!(bytes, wanted.encode_to_vec());
    }

    #[test]
    fn external_data_is_aligned_and_named() {
        let large = vec![7; 70_000];
        let more = Tensor::new("more", DType::U8, [2000].as_slice(), Data::Borrowed(&large[..2000])).unwrap();
        let first =
            Tensor::new("first", DType::U8, [1030].as_slice(), Data::Borrowed(&large[..1030])).unwrap();
        let whole = Tensor::new("whole", DType::U8, [70_000].as_slice(), Data::Borrowed(&large)).unwrap();
        let tiny = Tensor::new("tiny", DType::U8, [3].as_slice(), Data::Borrowed(&large[..3])).unwrap();
        let archive = MemoryArchive::new([first, more, whole, tiny]).unwrap();
        let plan = plan_model(&model(), &archive, &options(Some(true))).unwrap();
        let names: Vec<_> = plan.files.iter().map(|f| f.name.clone()).collect();
        assert_eq!(names, ["m.onnx.data", "m.onnx"]);
        let mut files = plan.files.into_iter();
        let data = bytes_of(files.next().unwrap());
        assert_eq!(data.len(), 4096 + 70_000);
        let model = ModelProto::decode(&*bytes_of(files.next().unwrap())).unwrap();
        let places: Vec<_> = model.graph.unwrap().initializer[1..]
            .iter()
            .map(|t| t.external_data.iter().map(|e| e.value().to_owned()).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(places, ["m.onnx.data 0 1030", "m.onnx.data 1088 2000", "m.onnx.data 4096 70000", ""]);
    }

    #[test]
    fn what_a_graph_cannot_hold_is_refused() {
        let kind = |archive: &MemoryArchive<'_>, options: &WriteOptions| {
            plan_model(&model(), archive, options).err().map(|e| e.kind())
        };
        let one = |name: &str, dtype| {
            MemoryArchive::new([Tensor::new(name, dtype, [2].as_slice(), Data::Borrowed(&[0; 2])).unwrap()])
                .unwrap()
        };
        assert_eq!(kind(&one("own", DType::U8), &options(None)), Some(ErrorKind::InvalidOptions));
        assert_eq!(kind(&one("", DType::U8), &options(None)), Some(ErrorKind::InvalidOptions));
        assert_eq!(kind(&one("x", DType::Bits8), &options(None)), Some(ErrorKind::InvalidOptions));
        assert_eq!(kind(&one("x", DType::U8), &options(None)), None);
        let sharded = WriteOptions { max_shard_size: Some(1), ..options(None) };
        assert_eq!(kind(&one("x", DType::U8), &sharded), Some(ErrorKind::InvalidOptions));
        let elsewhere = WriteOptions { file_name: "../m.onnx".into(), ..options(None) };
        assert_eq!(kind(&one("x", DType::U8), &elsewhere), Some(ErrorKind::InvalidOptions));
    }

    #[test]
    fn what_no_parser_takes_is_external_or_refused() {
        struct Huge;
        impl ReadAt for Huge {
            fn len(&self) -> u64 {
                3 << 30
            }
            fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<()> {
                buf.fill(0);
                Ok(())
            }
        }
        let huge = Tensor::new("huge", DType::U8, [3u64 << 30].as_slice(), Data::lazy(Huge)).unwrap();
        let archive = MemoryArchive::new([huge]).unwrap();
        let refused = plan_model(&model(), &archive, &options(Some(false))).err().unwrap();
        assert!(refused.message().contains("2 GiB"), "{refused}");
        let plan = plan_model(&model(), &archive, &options(None)).unwrap();
        assert_eq!(plan.files[0].len(), 3 << 30);
    }
}
