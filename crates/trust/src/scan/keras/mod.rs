//! Keras configurations, in `.keras` files, HDF5 attributes and bare JSON: what loading one would import, call or read.
//!
//! A configuration is a tree of objects with a `class_name` and a `config`. Loading makes each by its name, so what
//! matters is which names these are: those of Keras' own namespaces are known, functions from elsewhere are calls of the
//! sender's choice, and classes from elsewhere are unknown. Nothing here depends on which release fixed which hole.

mod known;

use weighbridge_formats::Result;

use super::jsontree::{Document, Json, Kind};
use super::report::{Finding, Place, Severity, Verdict};
use super::subject::{Role, Sink, finding};
use super::{base64, modules, tensorflow};

/// The longest text of a finding that comes out of the file.
const MOST_SHOWN: usize = 120;

/// Whether a document is, or holds, a Keras configuration.
pub(crate) fn fits(document: &Document<'_>) -> bool {
    document.all().any(|v| v.text("class_name").is_some())
}

/// Looks at a configuration's text.
///
/// # Errors
/// What is no JSON, or more of it than a configuration can be.
pub(crate) fn inspect_text(text: &[u8], place: &Place, sink: &mut Sink<'_>) -> Result<()> {
    inspect_document(&Document::parse(text)?, place, sink);
    Ok(())
}

/// Looks at every object of a configuration, however deep.
pub(crate) fn inspect_document(document: &Document<'_>, place: &Place, sink: &mut Sink<'_>) {
    for value in document.all().filter(|v| v.kind() == Kind::Object) {
        Object { value, place, sink: &mut *sink }.inspect();
    }
}

/// A text out of the file, cut where it is long.
fn cut(text: &str) -> String {
    if text.chars().count() <= MOST_SHOWN {
        return text.to_owned();
    }
    text.chars().take(MOST_SHOWN).chain("…".chars()).collect()
}

struct Object<'a, 'k, 's> {
    value: Json<'a>,
    place: &'a Place,
    sink: &'k mut Sink<'s>,
}

impl Object<'_, '_, '_> {
    fn report(&mut self, id: &str, verdict: Verdict, name: &str, what: String) {
        let found = self.finding(id, verdict, name, what);
        self.sink.finding(found);
    }

    fn finding(&self, id: &str, verdict: Verdict, name: &str, what: String) -> Finding {
        let mut found = finding(self.place, id, verdict, what).at(self.value.offset()).callable(cut(name));
        if let Some(config) = self.value.get("config") {
            found.arguments = Some(cut(config.source()));
        }
        if verdict == Verdict::Unknown {
            found.severity = Severity::Medium;
        }
        found
    }

    fn inspect(&mut self) {
        if let Some(key) =
            self.value.twice().filter(|k| ["class_name", "config", "module"].contains(&k.as_str()))
        {
            let what = format!("{key:?} is there twice in one object, and readers disagree which one counts");
            self.report("keras-callable", Verdict::Dangerous, &key, what);
        }
        self.marshalled();
        let Some(name) = self.value.text("class_name") else { return };
        let module = self.value.text("module").unwrap_or_default();
        let config = self.value.get("config");
        let in_config = |key: &str| config.and_then(|c| c.get(key)).filter(|v| !v.is_null());
        match name.as_ref() {
            "__lambda__" => {
                let what = "a lambda: Python bytecode that Keras makes a function of".to_owned();
                self.report("keras-lambda", Verdict::Dangerous, "__lambda__", what);
            }
            "__keras_tensor__" | "__tensor__" | "__numpy__" | "__bytes__" | "__ellipsis__" | "__slice__"
            | "__tuple__" | "__dtype__" | "__complex__" => {}
            "__typespec__" => {
                let spec = self.value.text("spec_name").unwrap_or_default();
                let home = module.starts_with("tensorflow.") || module.starts_with("keras.");
                if !home || !known::is_class(&spec) {
                    let full = dotted(&module, &spec);
                    let what = format!("a type specification is made by {full}, which is not known");
                    self.report("keras-callable", modules::foreign(&module), &full, what);
                }
            }
            // Shapes and specifications of tensors, as Keras 2 keeps them beside a SavedModel.
            "TensorShape" | "InputSpec" if module.is_empty() => {}
            "TypeSpec"
                if module.is_empty()
                    && self.value.text("type_spec").is_some_and(|t| t.starts_with("tf.")) => {}
            "function" => {
                let function = config.and_then(|c| c.string()).unwrap_or_default();
                self.function(&module, &function);
            }
            "Lambda" => self.lambda(config),
            "TorchModuleWrapper" => self.torch_module(in_config("module")),
            "TFSMLayer" => {
                let path = in_config("filepath").and_then(|p| p.string()).unwrap_or_default();
                let what = format!("a TFSMLayer loads and runs the TensorFlow program at {:?}", cut(&path));
                self.report("keras-callable", Verdict::Dangerous, "keras.layers.TFSMLayer", what);
            }
            "TFOpLambda" | "SlicingOpLambda" | "ClassMethod" | "InstanceMethod" | "InstanceProperty" => {
                self.symbol(&name, config);
            }
            "TensorFlowOpLayer" => self.operator(in_config("node_def")),
            "JaxLayer" | "FlaxLayer" => {
                let what = format!("a {name} calls a function or module of JAX that comes from elsewhere");
                self.report("keras-callable", Verdict::Unknown, &format!("keras.layers.{name}"), what);
            }
            _ => self.class(&module, &name),
        }
        if let Some(vocabulary) = in_config("vocabulary").and_then(|v| v.string()) {
            self.file(&name, "vocabulary", &vocabulary);
        }
        for key in ["fn", "function"] {
            let function = in_config(key).and_then(|f| f.string());
            if let Some(function) =
                function.filter(|f| name != "Lambda" && !name.ends_with("OpLambda") && !known_name(f))
            {
                let what = format!(
                    "the {name} computes by the function {:?}, which is not Keras' own",
                    cut(&function)
                );
                self.report("keras-callable", Verdict::Unknown, &function, what);
            }
        }
    }

    /// Code that is marked as such by a key beside it: `"function_type": "lambda"`, in Keras 1 `"mode_type"` too.
    fn marshalled(&mut self) {
        let marks: Vec<_> = self
            .value
            .entries()
            .filter(|(k, v)| k.ends_with("_type") && v.kind() == Kind::String && v.source() == "lambda")
            .map(|(k, _)| k.trim_end_matches("_type").to_owned())
            .collect();
        for key in marks {
            let code = self.value.get(&key);
            // Beside the code stand defaults and a closure, in an array or in what stands for a tuple.
            let code = code.map(|c| c.get("items").unwrap_or(c).items().next().unwrap_or(c));
            let text = code.and_then(|c| c.string()).unwrap_or_default();
            let bytes = base64::decode(&text).map_or(0, |b| b.len());
            let what = format!("the {key} of a layer is {bytes} bytes of Python bytecode");
            let mut found = finding(self.place, "keras-lambda", Verdict::Dangerous, what);
            found = found.at(self.value.offset()).callable("keras.layers.Lambda");
            found.arguments = Some(cut(&text));
            self.sink.finding(found);
        }
    }

    fn lambda(&mut self, config: Option<Json<'_>>) {
        let Some(function) = config.and_then(|c| c.get("function")) else {
            let what =
                "a Lambda layer without its function: it calls what the program that loads it gives it"
                    .to_owned();
            return self.report("keras-lambda", Verdict::Unknown, "keras.layers.Lambda", what);
        };
        // A function that is an object is looked at by itself; one with marshalled code has been found already.
        let typed = config.and_then(|c| c.text("function_type"));
        match function.kind() {
            Kind::Object => {}
            Kind::String if typed.as_deref() != Some("lambda") && known_name(function.source()) => {}
            Kind::String if typed.as_deref() != Some("lambda") => {
                let name = function.string().unwrap_or_default().into_owned();
                let module = config.and_then(|c| c.text("module")).unwrap_or_default();
                let full = dotted(&module, &name);
                let what = format!("a Lambda layer calls {:?} by name", cut(&full));
                self.report("keras-callable", modules::foreign(&module), &full, what);
            }
            _ if typed.as_deref() == Some("lambda") => {}
            _ => {
                let what = "a Lambda layer with Python bytecode".to_owned();
                self.report("keras-lambda", Verdict::Dangerous, "keras.layers.Lambda", what);
            }
        }
    }

    fn function(&mut self, module: &str, name: &str) {
        let full = dotted(module, name);
        let builtin = matches!(module, "builtins" | "");
        if known::is_function(name) && (builtin || is_keras(module)) {
            return;
        }
        let (verdict, what) = match () {
            () if module.is_empty() => {
                let what = format!(
                    "it asks for the function {:?}, which the program that loads it must know",
                    cut(name)
                );
                (Verdict::Unknown, what)
            }
            () if is_keras(module) || builtin => {
                (Verdict::Dangerous, format!("it names {full}, which is no function of tensors"))
            }
            // What a user registers has the package's name before its own.
            () if self.registered() && !modules::is_standard(module) => {
                (Verdict::Unknown, format!("it names the function {full}, which is not Keras' own"))
            }
            () => (
                Verdict::Dangerous,
                format!("it names the function {full}, which a loader imports and calls"),
            ),
        };
        self.report("keras-callable", verdict, &full, what);
    }

    /// Whether the object has a name under which a program registered it.
    fn registered(&self) -> bool {
        self.value.text("registered_name").is_some_and(|n| !n.is_empty())
    }

    fn class(&mut self, module: &str, name: &str) {
        if known::is_class(name) && (module.is_empty() || is_keras(module)) {
            let registered =
                self.value.text("registered_name").filter(|n| n.contains('>') && !n.ends_with(name));
            if let Some(registered) = registered {
                let what = format!(
                    "the class {name} is registered as {registered:?}, which counts before Keras' own"
                );
                self.report("keras-callable", Verdict::Unknown, &registered, what);
            }
            return;
        }
        let full = dotted(module, name);
        let (verdict, what) = if module.is_empty() || self.registered() && !modules::is_standard(module) {
            (Verdict::Unknown, format!("the class {full} is not Keras' own"))
        } else if is_keras(module) || module.starts_with("keras_") {
            (
                Verdict::Unknown,
                format!("{full} is not known as a class that does no more than its config says"),
            )
        } else {
            (Verdict::Dangerous, format!("it names {full}, which a loader imports and calls"))
        };
        self.report("keras-callable", verdict, &full, what);
    }

    /// A module of torch, pickled.
    fn torch_module(&mut self, module: Option<Json<'_>>) {
        let what = "a TorchModuleWrapper holds a pickled PyTorch module, which Keras unpickles".to_owned();
        self.report("keras-lambda", Verdict::Dangerous, "keras.layers.TorchModuleWrapper", what);
        let text = module.and_then(|m| m.string().or_else(|| m.get("config")?.text("value")));
        if let Some(bytes) = text.and_then(|t| base64::decode(&t)) {
            let mut place = self.place.clone();
            place.members.push("pickled module".into());
            let source = weighbridge_formats::Source::from_bytes(bytes);
            self.sink.nested_as(Role::Anything, "pickled module", source, place);
        }
    }

    /// A function of TensorFlow by its public name.
    fn symbol(&mut self, layer: &str, config: Option<Json<'_>>) {
        let text = |key: &str| config.and_then(|c| c.text(key)).map(|t| t.into_owned());
        let symbol = text("function").or_else(|| text("symbol")).or_else(|| text("name")).unwrap_or_default();
        if !tensorflow::is_known_symbol(&symbol) && layer != "SlicingOpLambda" {
            let what = format!(
                "a {layer} calls {:?} of TensorFlow, which is not known to do no more than compute",
                cut(&symbol)
            );
            self.report("keras-callable", Verdict::Unknown, &format!("tensorflow.{symbol}"), what);
        }
    }

    /// An operator of TensorFlow, as the node of a graph.
    fn operator(&mut self, node: Option<Json<'_>>) {
        let parsed = node.and_then(|n| n.string()).map(|t| t.into_owned());
        let inner = parsed.as_ref().and_then(|t| Document::parse(t.as_bytes()).ok());
        let operator = match &inner {
            Some(document) => document.root().text("op").map(|t| t.into_owned()),
            None => node.and_then(|n| n.text("op")).map(|t| t.into_owned()),
        };
        let operator = operator.unwrap_or_default();
        if let Some((verdict, why)) = tensorflow::judge(&operator) {
            let what = format!("a TensorFlowOpLayer runs the operator {:?}: {why}", cut(&operator));
            self.report("tensorflow-operator", verdict, &operator, what);
        }
    }

    /// A file that is read when the layer is made.
    fn file(&mut self, layer: &str, key: &str, path: &str) {
        let plain = weighbridge_formats::source::is_plain_relative(path);
        let verdict = if plain { Verdict::Unknown } else { Verdict::Dangerous };
        let what = format!(
            "the {key} of a {layer} is the file or address {:?}, which is read when it is loaded",
            cut(path)
        );
        let mut found = self.finding("keras-callable", verdict, layer, what);
        found.arguments = Some(cut(path));
        found.severity = if plain { Severity::Medium } else { Severity::High };
        found.why =
            "loading the config reads a file of the sender's choice from this machine or the network".into();
        self.sink.finding(found);
    }
}

/// Whether a module is one of Keras' own, in any of its releases.
fn is_keras(module: &str) -> bool {
    let below =
        |root: &str| module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    ["keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras"].into_iter().any(below)
}

/// Whether a string is the name of a function or class of Keras, with its package or without.
fn known_name(name: &str) -> bool {
    let (module, name) = name.rsplit_once('.').unwrap_or(("", name));
    (module.is_empty() || is_keras(module)) && known::is_function(name)
}

fn dotted(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}.{name}") }
}

#[cfg(test)]
mod tests;
