//! Settings beside a model: YAML files that construct objects, and Keras's metadata of a SavedModel.

use weighbridge_formats::Result;

use super::modules::{foreign, is_below};
use super::report::Verdict;
use super::subject::{Sink, Subject};

/// The most of a YAML file, and of one layer's metadata, that is looked at.
const MOST: u64 = 8 << 20;
/// Packages whose classes such settings usually name.
const USUAL: &[&str] = &[
    "torch.nn",
    "torch.optim",
    "transformers",
    "pytorch_lightning",
    "lightning",
    "torchmetrics",
    "nemo.collections",
];

pub(crate) fn fits_yaml(subject: &Subject<'_>) -> bool {
    subject.has_extension(&["yaml", "yml"]) && !subject.head.contains(&0)
}

/// Looks for what a loader would import and call: the tags of Python's YAML, and the `_target_` of Hydra. A line is
/// enough for both, whatever the rest of the file is.
pub(crate) fn inspect_yaml(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let length = subject.source.len();
    if length > MOST {
        let what = format!("{length} bytes of YAML, of which {MOST} are looked at");
        sink.finding(subject.finding("archive-unread", Verdict::Unknown, what));
    }
    let mut bytes = vec![0; length.min(MOST) as usize];
    subject.source.reader().read_at(0, &mut bytes)?;
    let mut at = 0u64;
    for line in bytes.split(|b| *b == b'\n') {
        let offset = at;
        at += line.len() as u64 + 1;
        let text = String::from_utf8_lossy(line);
        let content = text.trim_start();
        if content.starts_with('#') {
            continue;
        }
        for mark in ["!!python/", "tag:yaml.org,2002:python/"] {
            if let Some((_, tag)) = text.split_once(mark) {
                let name = tag.rsplit_once(':').map_or(tag, |(_, name)| name);
                let name: String = name.chars().take_while(|c| !c.is_whitespace()).take(200).collect();
                let plain = [
                    "tuple", "none", "bool", "str", "unicode", "int", "long", "float", "complex", "list",
                    "dict",
                ];
                if !plain.contains(&name.as_str()) {
                    let what = format!("a tag has a loader construct {name}");
                    named(subject, Verdict::Dangerous, offset, &name, what, sink);
                }
            }
        }
        if let Some(name) = content.trim_start_matches("- ").strip_prefix("_target_:") {
            let name = name.trim().trim_matches(['"', '\'']);
            let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
            if !is_below(module, USUAL) {
                let what = format!("a `_target_` has a loader call {name}");
                named(subject, foreign(module), offset, name, what, sink);
            }
        }
    }
    Ok(())
}

fn named(subject: &Subject<'_>, verdict: Verdict, at: u64, name: &str, what: String, sink: &mut Sink<'_>) {
    let mut finding = subject.finding("yaml-callable", verdict, what);
    finding.place.offset = Some(at);
    finding.callable = Some(name.chars().take(200).collect());
    sink.finding(finding);
}
