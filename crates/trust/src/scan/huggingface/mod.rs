//! The JSON files of a model's folder, and what stands beside them: what a loader imports, renders or follows because a
//! file says so.
//!
//! `auto_map` and `custom_pipelines` name Python code of the model, `model_index.json` and `modules.json` name packages,
//! tokenizer configs have templates, and an index names shards. Keras configurations are JSON too, and go to `keras`.

use std::path::Path;

use weighbridge_formats::source::is_plain_relative;
use weighbridge_formats::{Error, Result};

use super::jsontree::{Document, Json, Kind, MOST_TEXT};
use super::report::{Finding, Severity, Verdict};
use super::subject::{Role, Sink, Subject};
use super::{keras, modules, template};

/// The longest text of a finding that comes out of the file.
const MOST_SHOWN: usize = 120;
/// Files that hold a vocabulary and nothing that a loader follows.
const VOCABULARIES: &[&str] = &["tokenizer.json", "vocab.json", "added_tokens.json"];

/// Whether a subject is a JSON text.
pub(crate) fn fits_json(subject: &Subject<'_>) -> bool {
    let head = subject.head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(subject.head).trim_ascii_start();
    let opens = matches!(head.first(), Some(b'{' | b'['));
    subject.role == Role::Anything && opens && (subject.has_extension(&["json"]) || is_json_text(head))
}

/// A text under another name that begins as an object with a key, or a list of such.
fn is_json_text(head: &[u8]) -> bool {
    let inner = head.get(1..).unwrap_or_default().trim_ascii_start();
    match head.first() {
        Some(b'{') => {
            let key = inner
                .strip_prefix(b"\"")
                .and_then(|k| k.iter().position(|&b| b == b'"').map(|end| k.get(end + 1..)));
            key.flatten().is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
        }
        Some(b'[') => inner.starts_with(b"{\"") || inner.starts_with(b"[[") || inner.starts_with(b"{\n"),
        _ => false,
    }
}

/// Looks at a JSON text.
pub(crate) fn inspect_json(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let name = subject.file_name();
    if VOCABULARIES.contains(&name.as_str()) && subject.source.len() > 2 << 20 {
        return Ok(());
    }
    if subject.source.len() > MOST_TEXT {
        return Err(Error::limit(format!("a JSON text of {} bytes", subject.source.len())));
    }
    let bytes = subject.source.read_vec(0, subject.source.len(), sink.limits)?;
    let document = Document::parse(&bytes)?;
    if keras::fits(&document) {
        sink.kind("keras");
        keras::inspect_document(&document, subject.place, sink);
    }
    let mut config = Config { subject, sink };
    config.values(&document);
    match name.as_str() {
        "model_index.json" => config.pipeline(&document.root()),
        "modules.json" => config.modules(&document.root()),
        _ => {}
    }
    Ok(())
}

/// Whether a subject is a template by its name.
pub(crate) fn fits_template(subject: &Subject<'_>) -> bool {
    subject.has_extension(&["jinja", "jinja2", "j2"])
}

/// Looks at a template.
pub(crate) fn inspect_template(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let bytes = subject.source.read_vec(0, subject.source.len().min(2 << 20), sink.limits)?;
    template::inspect(&String::from_utf8_lossy(&bytes), subject.place, 0, sink);
    Ok(())
}

/// Whether a subject is code that stands in a model's folder.
pub(crate) fn fits_code(subject: &Subject<'_>) -> bool {
    subject.place.members.is_empty()
        && (subject.has_extension(&["py", "pyc", "pyx"]) || subject.file_name() == "requirements.txt")
}

/// Names the code that stands in a model's folder.
pub(crate) fn inspect_code(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let name = subject.file_name();
    let what = match name.as_str() {
        "requirements.txt" => "a list of packages, which code is installed by".to_owned(),
        "setup.py" => "a script that installing the folder as a package runs".to_owned(),
        _ => format!("Python code beside the model: {name}, which runs where a loader is told to trust it"),
    };
    // transformers finds this one by its name alone, where other code must be named by a config.
    let generates = subject.place.file.ends_with("custom_generate/generate.py");
    let finding = if generates {
        subject.finding("remote-code", Verdict::Unknown, what)
    } else {
        subject.finding("remote-code", Verdict::Clean, what).severity(Severity::Info)
    };
    sink.finding(finding);
    Ok(())
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MOST_SHOWN {
        return text.to_owned();
    }
    text.chars().take(MOST_SHOWN).chain("…".chars()).collect()
}

struct Config<'a, 's, 'k> {
    subject: &'a Subject<'s>,
    sink: &'a mut Sink<'k>,
}

impl Config<'_, '_, '_> {
    fn report(&mut self, at: &Json<'_>, verdict: Verdict, name: &str, what: String) {
        let found = self.finding(at, verdict, name, what);
        self.sink.finding(found);
    }

    fn finding(&self, at: &Json<'_>, verdict: Verdict, name: &str, what: String) -> Finding {
        let mut found =
            self.subject.finding("remote-code", verdict, what).at(at.offset()).callable(cut(name));
        if verdict == Verdict::Unknown {
            found.severity = Severity::Medium;
        }
        found
    }

    /// Whether a file stands beside this one.
    fn beside(&self, name: &str) -> Option<bool> {
        let folder = self.subject.source.path()?.parent()?;
        is_plain_relative(name).then(|| std::fs::symlink_metadata(folder.join(Path::new(name))).is_ok())
    }

    /// Keys that mean the same in whichever file and at whichever depth they stand.
    fn values(&mut self, document: &Document<'_>) {
        for object in document.all().filter(|v| v.kind() == Kind::Object) {
            for (key, value) in object.entries() {
                match key.as_ref() {
                    "auto_map" => self.auto_map(&value),
                    "custom_pipelines" => self.custom_pipelines(&value),
                    "trust_remote_code" if value.is_true() => {
                        let what = "it asks loaders to trust code that comes with a model".to_owned();
                        self.report(&value, Verdict::Unknown, "trust_remote_code", what);
                    }
                    "chat_template" | "chat_templates" => self.templates(&value),
                    "weight_map" => self.shards(&value),
                    "activation_function" | "custom_generate" => self.dotted(&key, &value),
                    "auto_mapping" => self.parent_library(&value),
                    "attn_implementation" | "_attn_implementation" => self.kernel(&value),
                    "_name_or_path" | "base_model_name_or_path" => self.address(&key, &value),
                    "__module__" => self.skops(&object, &value),
                    _ => {}
                }
            }
        }
    }

    /// `auto_map`: classes of a file in the folder (`modeling.Model`) or in another repository (`name--modeling.Model`).
    fn auto_map(&mut self, map: &Json<'_>) {
        let single = (map.kind() == Kind::String).then_some(("auto_map".into(), *map));
        let entries: Vec<_> = map.entries().chain(single).take(1000).collect();
        for (class, value) in entries {
            let lone = (value.kind() == Kind::String).then_some(value);
            for reference in value.items().chain(lone).take(16) {
                let Some(text) = reference.string() else { continue };
                self.code_reference(&reference, &class, &text);
            }
        }
    }

    fn code_reference(&mut self, at: &Json<'_>, class: &str, text: &str) {
        let (repository, name) = text.split_once("--").map_or((None, text), |(r, n)| (Some(r), n));
        let module = name.rsplit_once('.').map_or(name, |(m, _)| m);
        let file = format!("{}.py", module.replace('.', "/"));
        let what = match repository {
            Some(repository) => {
                format!("{class} is the code {name:?} of another repository, {:?}", cut(repository))
            }
            None => match self.beside(&file) {
                Some(true) => format!("{class} is the code {name:?}, in {file} beside this file"),
                Some(false) => format!("{class} is the code {name:?}, and {file} is not here"),
                None => format!("{class} is the code {name:?}"),
            },
        };
        self.report(at, Verdict::Dangerous, text, what);
        let escapes = text.contains("..") || text.contains(['\\', '\0']) || module.starts_with('/');
        if escapes {
            let what = format!("{:?} names code outside of the folder", cut(text));
            let found = self.subject.finding("path-escape", Verdict::Dangerous, what).at(at.offset());
            self.sink.finding(found);
        }
    }

    /// Pipelines of transformers whose code is the model's.
    fn custom_pipelines(&mut self, map: &Json<'_>) {
        for (task, pipeline) in map.entries() {
            let code = pipeline.text("impl").unwrap_or_default();
            let what = format!("the pipeline {task:?} is the code {:?}", cut(&code));
            self.report(&pipeline, Verdict::Dangerous, &code, what);
        }
    }

    /// A template, or several with names.
    fn templates(&mut self, value: &Json<'_>) {
        if let Some(text) = value.string() {
            return self.template(&text, value);
        }
        for item in value.items() {
            if let Some(template) = item.get("template") {
                self.template(&template.string().unwrap_or_default(), &template);
            }
        }
        for (_, template) in value.entries() {
            self.template(&template.string().unwrap_or_default(), &template);
        }
    }

    fn template(&mut self, text: &str, at: &Json<'_>) {
        let mut place = self.subject.place.clone();
        place.members.push(format!("chat template at {}", at.offset()));
        template::inspect(text, &place, 0, self.sink);
    }

    /// The files of a sharded set.
    fn shards(&mut self, map: &Json<'_>) {
        let mut names: Vec<_> =
            map.entries().filter_map(|(_, file)| Some((file.string()?, file.offset()))).collect();
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        for (name, at) in names {
            if !is_plain_relative(&name) {
                let what =
                    format!("the index names the shard {:?}, outside of the model's folder", cut(&name));
                let mut found = self.subject.finding("path-escape", Verdict::Dangerous, what).at(at);
                found.arguments = Some(cut(&name));
                self.sink.finding(found);
            }
        }
    }

    /// A class by its full name, which sentence-transformers imports; or a repository of generation code.
    fn dotted(&mut self, key: &str, value: &Json<'_>) {
        let Some(name) = value.string() else { return };
        if key == "custom_generate" {
            let what = format!("text is generated by the code of {:?}", cut(&name));
            return self.report(value, Verdict::Dangerous, &name, what);
        }
        let Some((module, _)) = name.rsplit_once('.') else { return };
        if modules::is_below(module, &["torch.nn", "sentence_transformers", "transformers.activations"]) {
            return;
        }
        let what = format!("the activation function is {:?}, which a loader imports and calls", cut(&name));
        self.report(value, modules::foreign(module), &name, what);
    }

    /// The package that an adapter's base model is a class of.
    fn parent_library(&mut self, value: &Json<'_>) {
        let Some(library) = value.text("parent_library") else { return };
        if !modules::is_below(&library, modules::LIBRARIES) {
            let class = value.text("base_model_class").unwrap_or_default();
            let name = format!("{library}.{class}");
            let what = format!("the adapter's base model is {:?}, which a loader imports", cut(&name));
            self.report(value, modules::foreign(&library), &name, what);
        }
    }

    /// Attention that is a kernel from a repository is machine code that is fetched and loaded.
    fn kernel(&mut self, value: &Json<'_>) {
        if let Some(name) = value.string().filter(|n| n.contains('/')) {
            let what = format!(
                "attention is the kernel of the repository {:?}, which is fetched and loaded",
                cut(&name)
            );
            self.report(value, Verdict::Unknown, &name, what);
        }
    }

    fn address(&mut self, key: &str, value: &Json<'_>) {
        if let Some(name) = value.string().filter(|n| n.contains("://")) {
            let what = format!("{key} is the address {:?}", cut(&name));
            let found = self.finding(value, Verdict::Clean, &name, what).severity(Severity::Info);
            self.sink.finding(found);
        }
    }

    /// `model_index.json`: the parts of a pipeline, each a package and a class of it.
    fn pipeline(&mut self, root: &Json<'_>) {
        for (part, value) in root.entries() {
            if value.kind() != Kind::Array {
                continue;
            }
            let names: Vec<_> =
                value.items().take(3).map(|v| v.string().unwrap_or_default().into_owned()).collect();
            let [library, class] = names.as_slice() else { continue };
            if library.is_empty()
                || modules::is_below(library, modules::LIBRARIES)
                || modules::is_pipeline(library)
            {
                continue;
            }
            let name = format!("{library}.{class}");
            let here = [format!("{library}.py"), format!("{part}/{library}.py")];
            let (verdict, what) = if here.iter().any(|f| self.beside(f) == Some(true)) {
                (
                    Verdict::Dangerous,
                    format!("{part:?} is the class {class:?} of the code {library}.py beside it"),
                )
            } else if part == "_class_name" {
                (Verdict::Dangerous, format!("the pipeline is the code {:?}", cut(&name)))
            } else {
                (
                    modules::foreign(library),
                    format!("{part:?} is {:?}, whose package a loader imports", cut(&name)),
                )
            };
            self.report(&value, verdict, &name, what);
        }
    }

    /// `modules.json` of sentence-transformers: the layers of a model, by their full names.
    fn modules(&mut self, root: &Json<'_>) {
        for item in root.items() {
            let kind = item.text("type").unwrap_or_default();
            let module = kind.rsplit_once('.').map_or("", |(m, _)| m);
            if !modules::is_below(module, &["sentence_transformers", "torch.nn"]) {
                let file = format!("{}.py", module.replace('.', "/"));
                let here = self.beside(&file) == Some(true);
                let verdict = if here { Verdict::Dangerous } else { modules::foreign(module) };
                let what = format!("a layer is {:?}, which a loader imports", cut(&kind));
                self.report(&item, verdict, &kind, what);
            }
            let path = item.text("path").unwrap_or_default();
            if !path.is_empty() && !is_plain_relative(&path) {
                let what = format!("a layer's folder {:?} is outside of the model's", cut(&path));
                let found = self.subject.finding("path-escape", Verdict::Dangerous, what).at(item.offset());
                self.sink.finding(found);
            }
        }
    }

    /// `schema.json` of skops: objects by their class and module.
    fn skops(&mut self, object: &Json<'_>, module: &Json<'_>) {
        let (Some(module), Some(class)) = (module.string(), object.text("__class__")) else { return };
        let loader = object.text("__loader__").unwrap_or_default();
        if loader.is_empty() {
            return;
        }
        self.sink.kind("skops");
        let name = format!("{module}.{class}");
        if modules::is_below(&module, &["sklearn", "numpy", "scipy"])
            || modules::is_plain_type(&module, &class)
        {
            return;
        }
        let what = format!("it builds {:?} by skops' {loader}", cut(&name));
        let id = "pickle-unknown-class";
        let mut found = self.subject.finding(id, modules::foreign(&module), what).at(object.offset());
        found.why = "skops imports the class and calls it, where its name is trusted".into();
        self.sink.finding(found.callable(cut(&name)));
    }
}

#[cfg(test)]
mod tests;
