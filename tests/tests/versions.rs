//! huggingface_hub reads the cards that are written, whatever a person made of them; transformers loads the versions.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use weighbridge::versions::{AddOptions, CardOptions, Selector, VersionedModel, card, write_card};
use weighbridge_tests::{faults, python, workspace};

/// `tests/interop/card_judge.py`, which answers one task after the other.
struct Judge {
    child: Child,
    tasks: ChildStdin,
    answers: std::io::Lines<BufReader<ChildStdout>>,
}

impl Judge {
    fn new() -> Self {
        let mut child = Command::new(python())
            .arg(workspace().join("tests/interop/card_judge.py"))
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let tasks = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, tasks, answers }
    }

    /// What the real tools say of a task.
    fn ask(&mut self, task: &Value) -> Value {
        writeln!(self.tasks, "{task}").expect("python reads");
        let line = self.answers.next().expect("an answer").expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The same, where they must have nothing to say against it.
    #[track_caller]
    fn passes(&mut self, task: &Value) -> Value {
        let answer = self.ask(task);
        assert_eq!(faults(std::slice::from_ref(&answer)), [""; 0]);
        answer
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &Path) {
    let config =
        json!({"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 3});
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// What people write into front matter, well or badly.
const PIECES: &[&str] = &[
    "license: mit",
    "license:   \"mit\"   # chosen",
    "license : mit",
    "'license': mit",
    "\"lic\\u0065nse\": mit",
    "language:\n- en\n- \"no\"",
    "language:\n  - en",
    "language: no",
    "tags: [a, b]",
    "tags: [a,\n  b]",
    "tags: [a,\nb]",
    "tags:\n\n- a\n# between\n- b",
    "tags: &t\n- x",
    "base_model: *t",
    "pipeline_tag: !!str fill-mask",
    "description: |\n  license: x\n  ---\n",
    "description: |+\n  kept\n\n\n",
    "description: |\n  no blank line",
    "description: >+\n  none",
    "list:\n- text: |2-\n    deep",
    "description: >-\n  folded\n\n  more",
    "text: \"a\n  b\"",
    "text: \"a\nlicense: b\"",
    "text: 'it''s'",
    "text: plain\n  goes on",
    "? complex\n: v",
    "? library_name\n: v",
    "<<: {license: a}",
    "{license: mit}",
    "model-index:\n- name: x\n  results: []",
    "model-index:\n- name: x\n  results:\n  - task:\n      type: t\n    dataset:\n      name: d\n      type: d\n    metrics:\n    - type: m\n      value: 1",
    "# a comment",
    "",
    "   ",
    "extra: {a: 1, b: [1, 2]}",
    "number: 1.0",
    "date: 2026-11-22",
    "empty:",
    "ü: x",
    "url: https://example.org/a#b",
    "- item",
    "word",
    "library_name: other",
    "key with spaces: 1",
    "..",
    "...",
    "%TAG",
    "\ttab: 1",
    "unfinished: \"",
];

const BODIES: &[&str] = &[
    "",
    "\n# Title\n\nText.\n",
    "Text without an end",
    "---\nrule\n---\n",
    "\n\n\n```\n---\n```\n",
    "a\tb  \n\n",
];

#[test]
fn the_hub_reads_what_it_read_and_what_was_added() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    config(&model);
    let mut options = CardOptions::default();
    options.license = Some("apache-2.0".into());
    options.languages = vec!["no".into(), "en".into()];
    let mut state = 99u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut tasks = Vec::new();
    let mut added = 0;
    for i in 0..1500 {
        let front: String = (0..next(5)).map(|_| format!("{}\n", PIECES[next(PIECES.len())])).collect();
        let begin = ["---\n", "---\n", "---\n", "\n ---\n", "--- \n", ""][next(6)];
        let end = ["---\n", "---\n", "---  \n", "---", ""][next(5)];
        let mut old = format!("{begin}{front}{end}{}", BODIES[next(BODIES.len())]);
        if next(4) == 0 {
            old = old.replace('\n', "\r\n");
        }
        if next(8) == 0 {
            old.insert(0, '\u{feff}');
        }
        fs::write(model.join("README.md"), &old).unwrap();
        let made = card(&model, &options).unwrap();
        let [old_path, new_path] = ["old", "new"].map(|side| folder.path().join(format!("{i}-{side}.md")));
        fs::write(&old_path, &old).unwrap();
        fs::write(&new_path, &made.text).unwrap();
        added += usize::from(!made.added_keys.is_empty());
        tasks.push(json!({"edited": [old_path, new_path], "added": made.added_keys}));
    }
    let mut judge = Judge::new();
    let answers: Vec<_> = tasks.iter().map(|task| judge.ask(task)).collect();
    let found: Vec<_> = answers
        .iter()
        .enumerate()
        .filter(|(_, a)| a["faults"].as_array().is_none_or(|f| !f.is_empty()))
        .map(|(i, a)| {
            format!("{a}\n{}", fs::read_to_string(folder.path().join(format!("{i}-new.md"))).unwrap())
        })
        .collect();
    assert!(found.is_empty(), "{} of them\n{}", found.len(), found[..found.len().min(3)].join("\n\n"));
    let read = answers.iter().filter(|a| a["read"] == true).count();
    assert!(read > 700 && added > 500, "{read} read, {added} added to");
}

#[test]
fn a_card_is_what_the_hub_reads_and_survives_its_editor() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path();
    config(model);
    fs::write(
        model.join("eval_results.json"),
        r#"{"eval_accuracy": 0.875, "eval_f1": 1e-7, "eval_loss": 0.25}"#,
    )
    .unwrap();
    let mut options = CardOptions::default();
    options.name = Some("tiny".into());
    options.license = Some("mit".into());
    options.languages = vec!["no".into()];
    options.datasets = vec!["org/data".into()];
    options.base_models = vec!["org/base".into()];
    options.tags = vec!["yes".into(), "ä: [b]".into()];
    write_card(model, &options).unwrap();
    let path = model.join("README.md");
    let first = fs::read_to_string(&path).unwrap();
    let result = |metric: &str, value: f64| json!({"type": metric, "value": value});
    let index = json!([{"name": "tiny", "results": [{
        "task": {"type": "text-classification"}, "dataset": {"name": "org/data", "type": "org/data"},
        "metrics": [result("accuracy", 0.875), result("f1", 1e-7), result("loss", 0.25)],
    }]}]);
    let mut data = json!({
        "library_name": "transformers", "pipeline_tag": "text-classification", "license": "mit", "language": "no",
        "base_model": "org/base", "datasets": ["org/data"], "tags": ["yes", "ä: [b]", "bert"],
        "metrics": ["accuracy", "f1"], "model-index": index,
    });
    let mut judge = Judge::new();
    let read = judge.passes(&json!({"card": path, "data": data}));
    judge.passes(&json!({"resave": path, "license": "gpl-3.0", "tag": "edited", "text": "\nMine.\n"}));
    assert_eq!(read["results"].as_array().unwrap().len(), 3);
    assert!(
        first.ends_with(read["text"].as_str().unwrap()),
        "the text of the card is the text behind its front matter"
    );

    // The hub's own library has written the front matter anew, with a person's changes: they stay.
    let edited = fs::read_to_string(&path).unwrap();
    assert!(edited != first && edited.ends_with("Mine.\n"));
    fs::write(
        model.join("config.json"),
        r#"{"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}"#,
    )
    .unwrap();
    let again = write_card(model, &options).unwrap();
    assert!(again.added_keys.is_empty(), "{:?}", again.added_keys);
    let text = String::from_utf8(again.text).unwrap();
    let front = |text: &str| text.split("<!-- weighbridge:begin").next().unwrap().to_owned();
    assert_eq!(front(&text), front(&edited));
    assert!(text.contains("RobertaForMaskedLM") && text.ends_with("Mine.\n"), "{text}");
    data["license"] = "gpl-3.0".into();
    data["tags"] = json!(["yes", "ä: [b]", "bert", "edited"]);
    judge.passes(&json!({"card": path, "data": data}));
}

#[test]
fn transformers_loads_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let sources = ["first", "second"].map(|name| folder.path().join(name));
    let mut judge = Judge::new();
    judge.passes(&json!({"model": sources[0]}));
    judge.passes(&json!({"model": sources[1], "seed": 1}));
    let model = VersionedModel::at(folder.path().join("registry/bert")).unwrap();
    let mut options = AddOptions::default();
    options.card = Some(CardOptions::default());
    let first = model.add(&sources[0], &options).unwrap();
    options.aliases = vec!["production".into()];
    let second = model.add(&sources[1], &options).unwrap();
    assert_eq!((first.version.to_string(), second.version.to_string()), ("1.0.0".into(), "1.1.0".into()));
    let diff = second.diff.unwrap();
    assert!(diff.configs.is_empty() && diff.tokenizer.is_empty() && !diff.weights.is_equal());
    assert_eq!(diff.weights.parameters[0], first.record.parameters.unwrap());
    let production = model.folder_of(&model.resolve(&Selector::parse("production").unwrap()).unwrap());
    let data = json!({"library_name": "transformers", "pipeline_tag": "text-classification", "tags": ["bert", "safetensors"]});
    judge.passes(&json!({"loads": first.folder, "like": sources[0]}));
    judge.passes(&json!({"loads": production, "like": sources[1]}));
    judge.passes(&json!({"card": production.join("README.md"), "data": data}));
}
