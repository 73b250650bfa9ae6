//! A difference and an addition as text for people.

use std::fmt::Write as _;

use serde_json::Value;
use weighbridge::versions::{Added, Bump, FilesDiff, JsonDiff, ModelDiff, WeightsDiff};

use crate::output::{self, count, grouped, one_line, shortened, size};

/// The lines of a list that a person is shown.
const SHOWN: usize = 20;

/// What was added: where it is, what suggested its number, and its entry.
pub(super) fn added(added: &Added, aliases: &[String]) -> String {
    let mut out = format!("added version {}", added.version);
    if let Some(previous) = &added.previous {
        let _ = write!(out, ", after {previous}");
    }
    let names = if aliases.is_empty() { String::new() } else { format!(" ({})", aliases.join(", ")) };
    let _ = writeln!(out, "{names}: {}", added.folder.display());
    out.push('\n');
    for line in added.entry.lines() {
        let _ = writeln!(out, "{}", one_line(line));
    }
    if !added.notes.is_empty() {
        out.push('\n');
    }
    output::push_notes(&mut out, &added.notes);
    out
}

pub(super) fn diff(diff: &ModelDiff, all: bool) -> String {
    let mut out = String::new();
    let limit = if all { usize::MAX } else { SHOWN };
    push_weights(&mut out, &diff.weights, limit);
    for config in diff.configs.iter().chain(&diff.tokenizer.configs) {
        push_config(&mut out, config, limit);
    }
    let tokenizer = &diff.tokenizer;
    if let Some(vocabulary) = tokenizer.vocabulary.as_ref().filter(|v| !v.is_equal()) {
        let [before, after] = vocabulary.sizes.map(grouped);
        let _ = writeln!(out, "vocabulary: {before} tokens -> {after}");
        for (word, (number, tokens)) in
            [("added", &vocabulary.added), ("removed", &vocabulary.removed), ("other id", &vocabulary.moved)]
        {
            if *number > 0 {
                let shown: Vec<_> = tokens.iter().map(|t| format!("{:?}", shortened(t, 40))).collect();
                let more = if *number > tokens.len() as u64 { ", …" } else { "" };
                let _ = writeln!(out, "  {word}: {} ({}{more})", grouped(*number), shown.join(", "));
            }
        }
    }
    for part in &tokenizer.parts {
        let _ = writeln!(out, "tokenizer.json: {} differs", shortened(part, 80));
    }
    push_files(&mut out, &tokenizer.files, limit);
    push_files(&mut out, &diff.files, limit);
    output::push_notes(&mut out, &diff.notes);
    match diff.bump() {
        None => out.push_str("equal\n"),
        Some(bump) => {
            let reasons: Vec<_> =
                diff.reasons.iter().filter(|r| r.bump == bump).map(|r| one_line(&r.text)).collect();
            let shown = reasons.iter().take(3).map(|r| r.as_ref()).collect::<Vec<_>>().join("; ");
            let more = if reasons.len() > 3 { "; …" } else { "" };
            let _ = writeln!(out, "different: a {} change ({shown}{more})", Bump::as_str(bump));
        }
    }
    out
}

fn push_weights(out: &mut String, weights: &WeightsDiff, limit: usize) {
    if let Some(why) = &weights.not_compared {
        let _ = writeln!(out, "weights: not compared by tensors: {}", one_line(why));
        return;
    }
    let _ = writeln!(
        out,
        "weights: {} of {} differ, {} added, {} removed",
        grouped(weights.changed.len() as u64),
        count(weights.compared, "tensor"),
        grouped(weights.added.len() as u64),
        grouped(weights.removed.len() as u64)
    );
    let mut lines = Vec::new();
    lines.extend(weights.removed.iter().map(|n| format!("removed: {}", one_line(n))));
    lines.extend(weights.added.iter().map(|n| format!("added: {}", one_line(n))));
    for tensor in &weights.changed {
        let mut parts = Vec::new();
        let ([a, b], [from, to]) = (&tensor.shapes, tensor.dtypes);
        if a != b {
            parts.push(format!("shape {:?} -> {:?}", &a[..], &b[..]));
        }
        if from != to {
            parts.push(format!("dtype {from} -> {to}"));
        }
        if let Some(values) = tensor.values.as_ref().filter(|v| v.differing > 0) {
            let relative = values.max_relative.map_or("?".to_owned(), |r| format!("{r:.2e}"));
            let absolute = values.max_absolute.map_or("?".to_owned(), |r| format!("{r:.2e}"));
            let number = count(values.differing, "element");
            parts.push(format!("{number} differ, by up to {relative} relative, {absolute} absolute"));
        }
        if parts.is_empty() {
            parts.push("equal as numbers, other bits".to_owned());
        }
        lines.push(format!("differs: {}: {}", one_line(&tensor.name), parts.join("; ")));
    }
    lines.extend(weights.other_bits.iter().map(|n| format!("equal as numbers, other bits: {}", one_line(n))));
    let side = |text: &Option<String>| {
        text.as_deref().map_or("absent".into(), |t| format!("{:?}", shortened(t, 80)))
    };
    for (key, [a, b]) in &weights.other.metadata {
        lines.push(format!("metadata {}: {} -> {}", shortened(key, 200), side(a), side(b)));
    }
    for (path, [a, b]) in &weights.other.values {
        lines.push(format!("value {}: {} -> {}", shortened(path, 200), shortened(a, 80), shortened(b, 80)));
    }
    push_lines(out, &lines, limit);
    let [before, after] = weights.parameters;
    if before != after || weights.bytes[0] != weights.bytes[1] {
        let [bytes_before, bytes_after] = weights.bytes.map(size);
        let (before, after) = (grouped(before), grouped(after));
        let _ = writeln!(out, "  parameters: {before} ({bytes_before}) -> {after} ({bytes_after})");
    }
}

fn push_lines(out: &mut String, lines: &[String], limit: usize) {
    for line in lines.iter().take(limit) {
        let _ = writeln!(out, "  {line}");
    }
    if lines.len() > limit {
        let _ = writeln!(out, "  … {} more (--all shows them)", grouped((lines.len() - limit) as u64));
    }
}

fn push_config(out: &mut String, config: &JsonDiff, limit: usize) {
    let _ = writeln!(out, "{}:", config.file);
    let value = |value: &Value| shortened(&value.to_string(), 80);
    let key = |path: &str| shortened(path, 120);
    let mut lines = Vec::new();
    lines.extend(config.removed.iter().map(|(path, v)| format!("removed: {} = {}", key(path), value(v))));
    lines.extend(config.added.iter().map(|(path, v)| format!("added: {} = {}", key(path), value(v))));
    lines.extend(
        config.changed.iter().map(|(path, [a, b])| format!("{}: {} -> {}", key(path), value(a), value(b))),
    );
    push_lines(out, &lines, limit);
}

fn push_files(out: &mut String, files: &FilesDiff, limit: usize) {
    let mut lines = Vec::new();
    for (word, list) in [("removed", &files.removed), ("added", &files.added), ("differs", &files.changed)] {
        lines.extend(list.iter().map(|name| format!("{word}: {}", one_line(name))));
    }
    if !lines.is_empty() {
        out.push_str("files:\n");
        push_lines(out, &lines, limit);
    }
}
