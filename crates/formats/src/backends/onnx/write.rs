//! Writing an archive: a model that was read comes out as it was, plain tensors become a model of initializers alone.

use super::INFO;
use super::plan::{data_type, plan_model};
use super::proto::{DataType, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use super::rewrite::rewrite;
use super::skeleton::Skeleton;
use crate::archive::{Archive, Note};
use crate::error::Result;
use crate::flat;
use crate::kept_values;
use crate::shards::VALUES_KEY;
use crate::traits::{FormatInfo, Serializer, WriteOptions};
use crate::write::WritePlan;

/// Writes ONNX models.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxWriter;

impl Serializer for OnnxWriter {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn plan<'a>(&self, archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
        plan(archive, options).map_err(|e| e.with_format(INFO.id))
    }
}

fn plan<'a>(archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
    let known = archive.companion().and_then(|c| (c as &dyn std::any::Any).downcast_ref::<Skeleton>());
    match known.filter(|s| s.infos == archive.tensors()) {
        Some(skeleton) => rewrite(skeleton, options, &|_| Ok(None)),
        None => plain(archive, options),
    }
}

/// A model of initializers alone, with metadata, and values as text in it.
fn plain<'a>(archive: &'a dyn Archive, options: &WriteOptions) -> Result<WritePlan<'a>> {
    let types: Vec<DataType> = archive.tensors().iter().map(data_type).collect::<Result<_>>()?;
    let (ir_version, opset) = versions(&types);
    let what = "the model has the tensors as initializers, and no nodes that compute with them: \
                `weighbridge export` makes a graph from a config and weights";
    let mut notes = vec![Note::info(what)];
    notes.extend(flat::stored_twice(archive).map(Note::changed));
    notes.extend(flat::flags_left_out(archive.tensors()).map(Note::info));
    let entry =
        |(key, value): (String, String)| StringStringEntryProto { key: Some(key), value: Some(value) };
    let mut metadata: Vec<_> = archive.metadata().iter().cloned().map(entry).collect();
    metadata.extend(
        kept_values::to_text(archive, |_| true, options, &mut notes)?
            .map(|text| entry((VALUES_KEY.to_owned(), text))),
    );
    let graph = GraphProto { name: Some("weights".into()), ..GraphProto::default() };
    let model = ModelProto {
        ir_version: Some(ir_version),
        producer_name: Some("weighbridge".into()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
        metadata_props: metadata,
        ..ModelProto::default()
    };
    let mut plan = plan_model(&model, archive, options)?;
    notes.append(&mut plan.notes);
    plan.notes = notes;
    Ok(plan)
}

/// The oldest IR version that has all the data types, from 8 on, and the opset that came with it.
fn versions(types: &[DataType]) -> (i64, i64) {
    let since = |d: &DataType| match d {
        DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz => 9,
        DataType::Uint4 | DataType::Int4 => 10,
        DataType::Float4e2m1 => 11,
        DataType::Float8e8m0 => 12,
        DataType::Uint2 | DataType::Int2 => 13,
        DataType::Float6e2m3 | DataType::Float6e3m2 => 14,
        _ => 8,
    };
    let ir = types.iter().map(since).max().unwrap_or(8);
    let opset = match ir {
        8 => 17,
        9 => 19,
        10 => 21,
        11 => 23,
        12 => 24,
        13 => 25,
        _ => 26,
    };
    (ir, opset)
}
