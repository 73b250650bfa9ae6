//! What a model's own files say of it, for its card.

use serde_json::Value;
use weighbridge_formats::{Note, Result};

use super::CardOptions;
use super::front::Yaml;
use crate::diff::{Tokenizer, Weights};
use crate::folder::ModelFolder;
use crate::markdown::{cell, code, count, grouped, plain, size};

/// The longest text of a licence that is looked at.
const LICENCE_BYTES: u64 = 1 << 20;

/// What is known of a model.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Keys and values for the front matter, in the order in which they are written.
    pub(super) front: Vec<(String, Yaml)>,
    /// Rows of the table: what, and Markdown that says it.
    pub(super) rows: Vec<(&'static str, String)>,
    /// Metrics with their values, as the training left them.
    pub(super) results: Vec<(String, f64)>,
    pub(super) notes: Vec<Note>,
}

impl Facts {
    pub(super) fn of(folder: &ModelFolder, options: &CardOptions, name: &str) -> Result<Self> {
        let mut facts = Self::default();
        let config = folder.json("config.json")?.unwrap_or_default();
        let adapter = folder.json("adapter_config.json")?.unwrap_or_default();
        let library = options.library_name.clone().or_else(|| library(folder, &config));
        let pipeline = options.pipeline_tag.clone().or_else(|| pipeline(&config, library.as_deref()));
        facts.rows_of_config(&config, &adapter);
        let weights = Weights::open(folder)?;
        facts.rows_of_weights(&weights);
        facts.row_of_tokenizer(folder)?;
        facts.results = results(folder)?;

        let mut put = |key: &str, value: Option<Yaml>| {
            if let Some(value) = value {
                facts.front.push((key.to_owned(), value));
            }
        };
        let texts = |list: &[String]| match list {
            [] => None,
            [one] => Some(Yaml::Text(one.clone())),
            many => Some(Yaml::List(many.to_vec())),
        };
        put("library_name", library.clone().map(Yaml::Text));
        put("pipeline_tag", pipeline.clone().map(Yaml::Text));
        put("license", options.license.clone().or(licence(folder)?).map(Yaml::Text));
        put("language", texts(&options.languages));
        let base = options.base_models.clone();
        let base = if base.is_empty() {
            hub_id(&adapter["base_model_name_or_path"]).into_iter().collect()
        } else {
            base
        };
        put("base_model", texts(&base));
        put("datasets", (!options.datasets.is_empty()).then(|| Yaml::List(options.datasets.clone())));
        let mut tags = options.tags.clone();
        let model_type = config["model_type"].as_str().filter(|t| is_word(t)).map(str::to_owned);
        let special = library.filter(|l| l == "sentence-transformers" || l == "bertopic");
        let format = weights.parts.first().map(|(_, a)| match a.format() {
            "torch" => "pytorch".to_owned(),
            other => other.to_owned(),
        });
        for tag in special.into_iter().chain(model_type).chain(format) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        put("tags", (!tags.is_empty()).then_some(Yaml::List(tags)));
        let metrics: Vec<_> = facts.results.iter().map(|(m, _)| m.clone()).filter(|m| m != "loss").collect();
        put("metrics", (!metrics.is_empty()).then_some(Yaml::List(metrics)));
        if let (Some(task), [dataset], false) = (&pipeline, &options.datasets[..], facts.results.is_empty()) {
            put("model-index", Some(model_index(name, task, dataset, &facts.results)));
        }
        Ok(facts)
    }

    fn rows_of_config(&mut self, config: &Value, adapter: &Value) {
        let mut row = |what, value: Option<String>| self.rows.extend(value.map(|v| (what, v)));
        let names: Vec<_> =
            config["architectures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let kind = config["model_type"].as_str();
        row(
            "Architecture",
            match (names.as_slice(), kind) {
                ([], None) => None,
                ([], Some(kind)) => Some(cell(kind)),
                (names, kind) => {
                    let names: Vec<_> = names.iter().take(4).map(|n| cell(n)).collect();
                    Some(names.join(", ") + &kind.map(|k| format!(" ({})", cell(k))).unwrap_or_default())
                }
            },
        );
        let first = |keys: &[&str]| keys.iter().find_map(|k| config[*k].as_u64()).map(grouped);
        row("Hidden size", first(&["hidden_size", "n_embd", "d_model", "dim"]));
        row("Layers", first(&["num_hidden_layers", "n_layer", "num_layers", "n_layers"]));
        row("Attention heads", first(&["num_attention_heads", "n_head", "num_heads", "n_heads"]));
        row(
            "Longest input",
            first(&["max_position_embeddings", "n_positions", "n_ctx"]).map(|n| format!("{n} tokens")),
        );
        let labels = config["id2label"].as_object();
        row(
            "Labels",
            labels.filter(|l| !l.is_empty()).map(|labels| {
                let shown: Vec<_> = labels.values().filter_map(Value::as_str).take(10).map(cell).collect();
                let more = if labels.len() > 10 {
                    format!(" and {} more", grouped(labels.len() as u64 - 10))
                } else {
                    String::new()
                };
                format!("{}{more}", shown.join(", "))
            }),
        );
        row("Adapter of", hub_id(&adapter["base_model_name_or_path"]).map(|b| cell(&b)));
        row("Adapter", adapter["peft_type"].as_str().map(cell));
        row("Loaded from", hub_id(&config["_name_or_path"]).map(|b| cell(&b)));
    }

    fn rows_of_weights(&mut self, weights: &Weights) {
        self.notes.extend(weights.notes.iter().cloned());
        if let Some(why) = &weights.absent {
            self.notes.push(Note::info(format!("the card says nothing of the weights: {why}")));
            return;
        }
        self.rows.push(("Parameters", grouped(weights.parameters())));
        let dtypes: Vec<_> = weights.dtypes().iter().map(|(d, n)| format!("{d}: {}", grouped(*n))).collect();
        self.rows.push(("Dtypes", dtypes.join(", ")));
        let files = weights.files.len() as u64;
        let format = weights.parts.first().map(|(_, a)| a.format()).unwrap_or_default();
        self.rows.push((
            "Weights",
            format!(
                "{format}, {}, {} in {}",
                count(weights.tensors(), "tensor"),
                size(weights.bytes()),
                count(files, "file")
            ),
        ));
    }

    fn row_of_tokenizer(&mut self, folder: &ModelFolder) -> Result<()> {
        let tokenizer = Tokenizer::read(folder, &mut self.notes)?;
        let config = folder.json("tokenizer_config.json")?.unwrap_or_default();
        let mut parts = Vec::new();
        parts.extend(config["tokenizer_class"].as_str().map(cell));
        parts.extend(tokenizer.size().map(|n| count(n, "token")));
        // Where no limit is known, the field writes a number of thirty digits.
        let longest = config["model_max_length"].as_u64().filter(|n| *n < 1 << 40);
        parts.extend(longest.map(|n| format!("at most {} at once", grouped(n))));
        if !parts.is_empty() {
            self.rows.push(("Tokenizer", parts.join(", ")));
        }
        Ok(())
    }

    /// The table, and the one of the results.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        if !self.rows.is_empty() {
            out.push_str("| | |\n|---|---|\n");
            for (what, value) in &self.rows {
                out.push_str(&format!("| {what} | {value} |\n"));
            }
        }
        if !self.results.is_empty() {
            out.push_str("\nResults of the evaluation after training:\n\n| Metric | Value |\n|---|---:|\n");
            for (metric, value) in &self.results {
                out.push_str(&format!("| {} | {value} |\n", cell(metric)));
            }
        }
        out
    }
}

/// Which library loads the folder, by the files that only this one writes.
fn library(folder: &ModelFolder, config: &Value) -> Option<String> {
    let name = if folder.has("modules.json") || folder.has("config_sentence_transformers.json") {
        "sentence-transformers"
    } else if folder.has("adapter_config.json") {
        "peft"
    } else if folder.has("model_index.json") {
        "diffusers"
    } else if folder.has("topics.json")
        && (folder.has("ctfidf_config.json") || config.get("nr_topics").is_some())
    {
        "bertopic"
    } else if config["architecture"].is_string() && config["pretrained_cfg"].is_object() {
        "timm"
    } else if config["model_type"].is_string() || config["architectures"].is_array() {
        "transformers"
    } else {
        return None;
    };
    Some(name.to_owned())
}

/// The task on the hub, where the architecture leaves no doubt.
fn pipeline(config: &Value, library: Option<&str>) -> Option<String> {
    const BY_HEAD: &[(&str, &str)] = &[
        ("ForSequenceClassification", "text-classification"),
        ("ForTokenClassification", "token-classification"),
        ("ForQuestionAnswering", "question-answering"),
        ("ForMaskedLM", "fill-mask"),
        ("ForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("ForImageClassification", "image-classification"),
        ("ForObjectDetection", "object-detection"),
        ("ForSemanticSegmentation", "image-segmentation"),
        ("ForAudioClassification", "audio-classification"),
        ("ForCTC", "automatic-speech-recognition"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
    ];
    match library? {
        "sentence-transformers" => Some("sentence-similarity".to_owned()),
        "bertopic" => Some("text-classification".to_owned()),
        "timm" => Some("image-classification".to_owned()),
        "transformers" => {
            let head = config["architectures"].get(0)?.as_str()?;
            let found = BY_HEAD.iter().find(|(ending, _)| head.ends_with(ending)).map(|(_, task)| *task);
            // Without a head, what comes out are hidden states.
            let bare =
                head.ends_with("Model") && !head.contains("LMHead") && !head.contains("ForPreTraining");
            let text = folder_of_text(config);
            found.or((bare && text).then_some("feature-extraction")).map(str::to_owned)
        }
        _ => None,
    }
}

/// Whether a model reads text, by its vocabulary.
fn folder_of_text(config: &Value) -> bool {
    config["vocab_size"].is_u64()
}

/// A name of the hub, `owner/name`; paths of somebody's disk are none of the card's business.
fn hub_id(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let (owner, name) = text.split_once('/')?;
    let fits = |part: &str| {
        (1..=96).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    (fits(owner) && fits(name)).then(|| text.to_owned())
}

/// Whether a text is short and plain enough to be a tag.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The metrics that transformers' Trainer leaves beside a model.
fn results(folder: &ModelFolder) -> Result<Vec<(String, f64)>> {
    const NO_METRICS: &[&str] = &["runtime", "samples", "samples_per_second", "steps_per_second"];
    for file in ["eval_results.json", "all_results.json"] {
        let Some(json) = folder.json(file)? else { continue };
        let found: Vec<_> = json
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix("eval_")?, value.as_f64().filter(|v| v.is_finite())?))
            })
            .filter(|(key, _)| is_word(key) && !NO_METRICS.contains(key))
            .take(50)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The results in the form that the hub reads them in.
fn model_index(name: &str, task: &str, dataset: &str, results: &[(String, f64)]) -> Yaml {
    use super::front::scalar;
    let mut lines = vec![
        format!("- name: {}", scalar(name)),
        "  results:".to_owned(),
        "  - task:".to_owned(),
        format!("      type: {}", scalar(task)),
        "    dataset:".to_owned(),
        format!("      name: {}", scalar(dataset)),
        format!("      type: {}", scalar(dataset)),
        "    metrics:".to_owned(),
    ];
    for (metric, value) in results {
        lines.push(format!("    - type: {}", scalar(metric)));
        // With a point or an exponent that YAML 1.1 knows, so that it is read as a number everywhere.
        let number = serde_json::Number::from_f64(*value).map(|n| n.to_string()).unwrap_or_default();
        let number = match number.split_once('e') {
            Some((digits, exponent)) => {
                let digits = if digits.contains('.') { digits.to_owned() } else { format!("{digits}.0") };
                let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
                format!("{digits}e{sign}{exponent}")
            }
            None => number,
        };
        lines.push(format!("      value: {number}"));
    }
    Yaml::Lines(lines)
}

/// The hub's name of the licence whose text the folder has, where it is one of the common ones.
fn licence(folder: &ModelFolder) -> Result<Option<String>> {
    for name in ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"] {
        if folder.file(name).is_some_and(|f| f.bytes <= LICENCE_BYTES)
            && let Some(bytes) = folder.read(name, LICENCE_BYTES)?
        {
            return Ok(licence_of(&String::from_utf8_lossy(&bytes)).map(str::to_owned));
        }
    }
    Ok(None)
}

fn licence_of(text: &str) -> Option<&'static str> {
    let words = text.to_lowercase();
    let words: String = words.split_whitespace().take(400).collect::<Vec<_>>().join(" ");
    // A title stands at the head; further down a licence may name others.
    let head: String = words.chars().take(400).collect();
    let creative: &[(&str, &str)] = &[
        ("attribution-noncommercial-sharealike 4.0", "cc-by-nc-sa-4.0"),
        ("attribution-noncommercial 4.0", "cc-by-nc-4.0"),
        ("attribution-sharealike 4.0", "cc-by-sa-4.0"),
        ("attribution 4.0 international", "cc-by-4.0"),
        ("cc0 1.0 universal", "cc0-1.0"),
        ("mozilla public license version 2.0", "mpl-2.0"),
        ("mozilla public license, version 2.0", "mpl-2.0"),
    ];
    if let Some((_, id)) = creative.iter().find(|(title, _)| head.contains(title)) {
        return Some(id);
    }
    let version = |n: &str| head.contains(&format!("version {n}"));
    Some(match () {
        () if head.contains("apache license") && version("2.0") => "apache-2.0",
        () if head.contains("gnu affero general public license") && version("3") => "agpl-3.0",
        () if head.contains("gnu lesser general public license") && version("3") => "lgpl-3.0",
        () if head.contains("gnu general public license") && version("3") => "gpl-3.0",
        () if head.contains("gnu general public license") && version("2") => "gpl-2.0",
        () if words.contains("permission is hereby granted, free of charge")
            && words.contains("merge, publish") =>
        {
            "mit"
        }
        () if words.contains("this is free and unencumbered software") => "unlicense",
        () if words.contains("redistribution and use in source and binary forms") => {
            if words.contains("neither the name") { "bsd-3-clause" } else { "bsd-2-clause" }
        }
        () => return None,
    })
}

/// A heading for the name of a model.
pub(super) fn title(name: &str) -> String {
    let plain = plain(name, 120);
    if plain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b' ')) {
        plain.into_owned()
    } else {
        code(&plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn libraries_and_tasks_follow_from_configs() {
        let dir = tempfile::tempdir().unwrap();
        let scan = || ModelFolder::scan(dir.path(), false).unwrap();
        let bert = json!({"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 9});
        assert_eq!(library(&scan(), &bert).as_deref(), Some("transformers"));
        assert_eq!(library(&scan(), &json!({})), None);
        let task =
            |head: &str| pipeline(&json!({"architectures": [head], "vocab_size": 9}), Some("transformers"));
        assert_eq!(task("BertForMaskedLM").as_deref(), Some("fill-mask"));
        assert_eq!(task("BertModel").as_deref(), Some("feature-extraction"));
        assert_eq!(task("BertForPreTraining"), None);
        std::fs::write(dir.path().join("modules.json"), "[]").unwrap();
        assert_eq!(library(&scan(), &bert).as_deref(), Some("sentence-transformers"));
    }

    #[test]
    fn licences_are_known_by_their_text() {
        for (text, wanted) in [
            ("                 Apache License\n           Version 2.0, January 2004\n", Some("apache-2.0")),
            ("GNU LESSER GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", Some("lgpl-3.0")),
            ("Creative Commons Attribution-ShareAlike 4.0 International", Some("cc-by-sa-4.0")),
            (
                "Copyright X\n\nPermission is hereby granted, free of charge, to use, copy, modify, merge, publish",
                Some("mit"),
            ),
            ("Redistribution and use in source and binary forms are permitted", Some("bsd-2-clause")),
            ("All rights reserved.", None),
        ] {
            assert_eq!(licence_of(text), wanted, "{text}");
        }
    }

    #[test]
    fn only_names_of_the_hub_are_told() {
        assert_eq!(hub_id(&json!("org/model-7B")).as_deref(), Some("org/model-7B"));
        for other in ["/home/me/model", "./x/y", "../x", "a/b/c", "bert", "a/ b", "C:\\x/y"] {
            assert_eq!(hub_id(&json!(other)), None, "{other}");
        }
    }

    #[test]
    fn numbers_in_the_index_are_numbers_to_yaml() {
        let Yaml::Lines(lines) =
            model_index("m", "t", "d", &[("a".into(), 1e-7), ("b".into(), 1e30), ("c".into(), 0.5)])
        else {
            panic!("lines")
        };
        let values: Vec<_> = lines.iter().filter_map(|l| l.trim().strip_prefix("value: ")).collect();
        assert_eq!(values, ["1.0e-7", "1.0e+30", "0.5"]);
    }
}
