//! The draft of a changelog's entry, from what changed.

use std::fmt::Write as _;

use serde_json::Value;

use crate::diff::{FilesDiff, JsonDiff, ModelDiff, TokenizerDiff, WeightsDiff};
use crate::markdown::{code, count, grouped, names, plain, size};
use crate::version::{Bump, Version};

/// How many names a line gives.
const NAMED: usize = 5;
/// How many keys of a config have a line.
const KEYS: usize = 20;

/// The lines of an entry for a version that follows another.
pub(crate) fn of_change(diff: &ModelDiff, previous: &Version, bump: Option<Bump>) -> String {
    let mut out = String::new();
    let suggested = bump.map_or("nothing that is compared".into(), |b| format!("a {b} change"));
    let _ = writeln!(out, "Since {previous}: {suggested}.\n");
    push_weights(&mut out, &diff.weights);
    for config in &diff.configs {
        push_config(&mut out, config);
    }
    push_tokenizer(&mut out, &diff.tokenizer);
    push_files(&mut out, "Other files", &diff.files);
    out
}

/// The lines of a first version's entry.
pub(crate) fn of_first(parameters: Option<u64>, tensors: u64, files: u64, bytes: u64) -> String {
    let mut out = "The first version.\n\n".to_owned();
    if let Some(parameters) = parameters {
        let _ =
            writeln!(out, "- Weights: {} parameters in {}.", grouped(parameters), count(tensors, "tensor"));
    }
    let _ = writeln!(out, "- Files: {}, {}.", grouped(files), size(bytes));
    out
}

fn push_weights(out: &mut String, weights: &WeightsDiff) {
    if let Some(why) = &weights.not_compared {
        let _ = writeln!(out, "- Weights: not compared tensor by tensor ({}).", plain(why, 300));
        return;
    }
    if weights.is_equal() {
        if weights.compared > 0 {
            let _ = writeln!(out, "- Weights: unchanged, {}.", count(weights.compared, "tensor"));
        }
        return;
    }
    let changed = weights.changed.len() as u64;
    let keys: Vec<_> = weights.other.metadata.iter().map(|(key, _)| key.as_str()).collect();
    let _ = writeln!(
        out,
        "- Weights: {} of {} changed, {} added, {} removed.",
        grouped(changed),
        count(weights.compared, "tensor"),
        grouped(weights.added.len() as u64),
        grouped(weights.removed.len() as u64)
    );
    let largest = weights.largest();
    let shown: Vec<_> = largest
        .iter()
        .take(NAMED)
        .map(|(t, change)| {
            let absolute = t.values.as_ref().and_then(|v| v.max_absolute).unwrap_or(f64::NAN);
            format!("{} {change:.2e} ({absolute:.2e} absolute)", code(&t.name))
        })
        .collect();
    if !shown.is_empty() {
        let _ = writeln!(out, "  - Largest relative change of an element: {}.", shown.join(", "));
    }
    let reshaped: Vec<_> = weights.reshaped().collect();
    for tensor in reshaped.iter().take(NAMED) {
        let [a, b] = &tensor.shapes;
        let _ = writeln!(out, "  - Shape of {}: {:?} to {:?}.", code(&tensor.name), &a[..], &b[..]);
    }
    if reshaped.len() > NAMED {
        let _ = writeln!(out, "  - Shapes of {} more changed.", grouped((reshaped.len() - NAMED) as u64));
    }
    for ((from, to), number) in weights.recast() {
        let _ = writeln!(out, "  - Dtype: {} from {from} to {to}.", count(number, "tensor"));
    }
    for (word, list) in [("Added", &weights.added), ("Removed", &weights.removed)] {
        if !list.is_empty() {
            let _ = writeln!(out, "  - {word}: {}.", names(list.iter().map(String::as_str), NAMED));
        }
    }
    if !weights.other_bits.is_empty() {
        let list = names(weights.other_bits.iter().map(String::as_str), NAMED);
        let _ = writeln!(out, "  - Equal as numbers, with other bits: {list}.");
    }
    if !keys.is_empty() {
        let _ = writeln!(out, "  - Metadata: {} changed.", names(keys.into_iter(), NAMED));
    }
    if !weights.other.values.is_empty() {
        let paths = weights.other.values.iter().map(|(path, _)| path.as_str());
        let _ = writeln!(out, "  - Values beside the tensors: {} changed.", names(paths, NAMED));
    }
    let [before, after] = weights.parameters;
    let [bytes_before, bytes_after] = weights.bytes.map(size);
    if before != after || weights.bytes[0] != weights.bytes[1] {
        let _ = writeln!(
            out,
            "  - Parameters: {} before, {} after; {bytes_before} before, {bytes_after} after.",
            grouped(before),
            grouped(after)
        );
    }
}

fn push_config(out: &mut String, config: &JsonDiff) {
    let total = config.paths().count() as u64;
    let _ = writeln!(out, "- {}: {} changed.", code(&config.file), count(total, "key"));
    let value = |value: &Value| code(&value.to_string());
    let changed =
        config.changed.iter().map(|(path, [a, b])| format!("{}: {} to {}", code(path), value(a), value(b)));
    let added = config.added.iter().map(|(path, v)| format!("{} added: {}", code(path), value(v)));
    let removed = config.removed.iter().map(|(path, v)| format!("{} removed: {}", code(path), value(v)));
    for line in changed.chain(added).chain(removed).take(KEYS) {
        let _ = writeln!(out, "  - {line}.");
    }
    if total > KEYS as u64 {
        let _ = writeln!(out, "  - and {} more.", grouped(total - KEYS as u64));
    }
}

fn push_tokenizer(out: &mut String, tokenizer: &TokenizerDiff) {
    if let Some(vocabulary) = tokenizer.vocabulary.as_ref().filter(|v| !v.is_equal()) {
        let [before, after] = vocabulary.sizes;
        let _ = writeln!(out, "- Vocabulary: {} before, {} after.", count(before, "token"), grouped(after));
        let lists = [
            ("Added", &vocabulary.added),
            ("Removed", &vocabulary.removed),
            ("With another id", &vocabulary.moved),
        ];
        for (word, (number, tokens)) in lists {
            if *number > 0 {
                let shown = names(tokens.iter().map(String::as_str), tokens.len());
                let more = if *number > tokens.len() as u64 { ", …" } else { "" };
                let _ = writeln!(out, "  - {word}: {} ({shown}{more}).", grouped(*number));
            }
        }
    }
    if !tokenizer.parts.is_empty() {
        let parts = names(tokenizer.parts.iter().map(String::as_str), NAMED);
        let _ = writeln!(out, "- Tokenizer: {parts} changed.");
    }
    for config in &tokenizer.configs {
        push_config(out, config);
    }
    push_files(out, "Tokenizer files", &tokenizer.files);
}

fn push_files(out: &mut String, what: &str, files: &FilesDiff) {
    let mut parts = Vec::new();
    for (word, list) in [("added", &files.added), ("removed", &files.removed), ("changed", &files.changed)] {
        if !list.is_empty() {
            parts.push(format!("{word} {}", names(list.iter().map(String::as_str), NAMED)));
        }
    }
    if !parts.is_empty() {
        let _ = writeln!(out, "- {what}: {}.", parts.join("; "));
    }
}
