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
    (subject.has_extension(&["yaml", "yml"]) || subject.file_name() == "mlmodel")
        && !subject.head.contains(&0)
}

/// Whether a subject tells Triton how to serve a model.
pub(crate) fn fits_triton(subject: &Subject<'_>) -> bool {
    subject.file_name() == "config.pbtxt"
}

/// Looks for a backend that is code of the model's own.
pub(crate) fn inspect_triton(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut bytes = vec![0; subject.source.len().min(MOST) as usize];
    subject.source.reader().read_at(0, &mut bytes)?;
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Some((key, backend)) = line.split_once(':') else { continue };
        let backend = backend.trim().trim_matches(['"', '\'', ',']);
        if key.trim() == "backend" && backend == "python" {
            let what = "Triton's Python backend runs the file model.py beside the model";
            sink.finding(subject.finding("remote-code", Verdict::Unknown, what));
        }
    }
    Ok(())
}

/// A line of settings of MLflow's or BentoML's that names code which comes along.
fn served(file: &str, content: &str) -> Option<String> {
    let (key, value) = content.split_once(':')?;
    let value = value.trim().trim_matches(['"', '\'']);
    match (file, key.trim()) {
        ("mlmodel", "loader_module") if !is_below(value, &["mlflow"]) => {
            Some(format!("MLflow loads the model by the module {value}"))
        }
        ("mlmodel", "code") if !value.is_empty() && value != "null" => {
            Some(format!("MLflow puts the folder {value:?} on Python's path"))
        }
        ("bento.yaml", "service") => Some(format!("BentoML runs {value}, which comes with the model")),
        _ => None,
    }
}

/// The name that a YAML text gives Hydra to call, by a key that may stand in quotes and in braces.
fn target(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("_target_")?;
    let rest = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':')?;
    let name = rest.trim_start().trim_start_matches(['"', '\'']);
    name.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}'))
        .next()
        .filter(|n| !n.is_empty())
}

/// A tag with its escapes undone.
fn unescaped(text: &str) -> String {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [byte, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *byte == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(code) => {
                out.push(code);
                rest = &tail[2..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
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
        let text = unescaped(&String::from_utf8_lossy(line));
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
        if let Some(what) = served(&subject.file_name(), content) {
            sink.finding(subject.finding("remote-code", Verdict::Unknown, what).at(offset));
        }
        if let Some(name) = target(content) {
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
