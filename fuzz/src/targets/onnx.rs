//! Any bytes as an ONNX model: everything is read, and it is written again as it was, with its tensors moved out, and with
//! its own tensors put into it.
use crate::{exhaust, is_refusal, options};
use weighbridge_formats::backends::onnx::{plan_into, read_model};
use weighbridge_formats::write::{Content, WritePlan};
use weighbridge_formats::{Archive, Registry, Source, WriteOptions};

/// The bytes of the model's file, which is the last; `None` where its data cannot be read.
fn model_of(plan: WritePlan<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for segment in plan.files.into_iter().next_back()?.into_segments() {
        match segment.content {
            Content::Fixed(bytes) => out.extend(bytes),
            Content::Data { data, .. } => out.extend(data.read_all().ok()?),
            Content::Late(_) => return None,
        }
    }
    Some(out)
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok((_, archive)) = read_model(&Source::from_bytes(bytes), &options()) else { return };
    exhaust(&*archive);
    let _ = archive.companion().map(|c| (c.details(), c.summary(), c.is_plain()));
    let registry = Registry::builtin();
    let writer = registry.serializer("onnx").expect("onnx is compiled in");
    let mut choices = WriteOptions::default();
    choices.file_name = "m.onnx".into();
    match writer.plan(&*archive, &choices) {
        Ok(plan) => assert!(model_of(plan).is_none_or(|written| written == bytes), "it is written otherwise"),
        Err(e) => assert!(is_refusal(e.kind()), "{e}"),
    }
    let own: &dyn Archive = &*archive;
    for external in [None, Some(true), Some(false)] {
        choices.external_data = external;
        match plan_into(own, own, &choices) {
            Ok(plan) if external != Some(true) => {
                let Some(written) = model_of(plan) else { continue };
                let again =
                    read_model(&Source::from_bytes(written), &options()).expect("what is written is read").1;
                assert_eq!(again.tensors(), own.tensors());
            }
            Ok(plan) => drop(model_of(plan)),
            Err(e) => assert!(is_refusal(e.kind()), "{e}"),
        }
    }
}
