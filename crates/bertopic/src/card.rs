//! The model card that a hub shows: front matter, how to use the model, its topics and how it was made.

use std::fmt::Write as _;

use crate::json::Number;
use crate::json::{Json, Writer, float};
use crate::model::{Aspect, TopicModel};

/// A model card for `README.md`. `name` is the model's, or that of its repository (`owner/name`).
///
/// It has the parts that BERTopic's has: front matter, usage, an overview of the topics with their first five words,
/// how many documents each has and what it is called, and the parameters. A topic's frequency is looked up by its
/// number, so that it is right with outliers too.
pub fn model_card(model: &TopicModel, name: &str) -> String {
    let title = line(name.rsplit('/').next().unwrap_or(name));
    let visual = model.aspects.iter().any(|(_, aspect)| *aspect == Aspect::Images);
    let mut out = String::from("---\ntags:\n- bertopic\nlibrary_name: bertopic\n");
    if !visual {
        out.push_str("pipeline_tag: text-classification\n");
    }
    let documents = model.sizes.iter().fold(0u64, |n, (_, size)| n.saturating_add(*size));
    let path = serde_json::Value::from(name).to_string();
    let ids = model.topic_ids();
    let _ = write!(
        out,
        "---\n\n# {title}\n\n\
         A [BERTopic](https://github.com/MaartenGr/BERTopic) model: it finds topics in documents and says in words \
         what each is about.\n\n\
         ## Usage\n\n\
         ```\npip install -U bertopic\n```\n\n\
         ```python\nfrom bertopic import BERTopic\ntopic_model = BERTopic.load({path})\n\n\
         topic_model.get_topic_info()\n```\n\n\
         ## Topic overview\n\n\
         * Number of topics: {}\n* Number of training documents: {documents}\n\n\
         <details>\n  <summary>All topics</summary>\n\n\
         | Topic ID | Topic Keywords | Topic Frequency | Label |\n\
         |----------|----------------|-----------------|-------|\n",
        ids.len()
    );
    let labels = model.topic_labels();
    for (place, id) in ids.iter().enumerate() {
        let words = model.representation(*id).unwrap_or_default().iter().take(5);
        let words: Vec<&str> = words.map(|t| &*t.word).collect();
        let own = model.custom_labels.as_ref().and_then(|own| own.get(place));
        let label = own.or_else(|| labels.iter().find(|(topic, _)| topic == id).map(|(_, text)| text));
        let size = model.size(*id).unwrap_or(0);
        let label = label.map(|l| cell(l)).unwrap_or_default();
        let _ = writeln!(out, "| {id} | {} | {size} | {label} |", cell(&words.join(" - ")));
    }
    out.push_str("\n</details>\n\n## Training hyperparameters\n\n");
    for (key, value) in model.config.params() {
        if key != "embedding_model" {
            let _ = writeln!(out, "* {key}: {}", python(&value));
        }
    }
    if let Some(embedder) = &model.config.embedding_model {
        let _ = writeln!(out, "* embedding model: {}", line(embedder));
    }
    let _ = write!(out, "\n## Framework versions\n\n* Weighbridge: {}\n", env!("CARGO_PKG_VERSION"));
    out
}

/// Text on one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    line(text).replace('|', "\\|")
}

/// A value as Python prints it, near enough for people.
fn python(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Number(Number::Int(n)) => n.to_string(),
        Json::Number(Number::Float(x)) => float(*x),
        Json::Str(text) => line(text),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(python).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(_) => {
            let mut out = Writer::default();
            out.value(value);
            line(&String::from_utf8_lossy(&out.finish()))
        }
    }
}
