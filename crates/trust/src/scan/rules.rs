//! The rules that findings refer to: one table, which findings, SARIF and the documentation use.

use super::report::Severity;

/// A rule: what kind of thing was found, why it matters, and what to do.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The name, which stays the same.
    pub id: &'static str,
    /// What it finds, in a few words.
    pub short: &'static str,
    /// How much harm it can do, where a finding does not say otherwise.
    pub severity: Severity,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub help: &'static str,
}

const CONVERT: &str = "do not load it; `weighbridge convert FILE OUT.safetensors` reads the tensors without running \
                       anything, and `weighbridge scan --rescue OUT` where that refuses";
const ASK: &str = "find out what the class is and where it comes from before you load the file; or take only the \
                   tensors: `weighbridge convert FILE OUT.safetensors`";
const FETCH: &str = "fetch the file again, compare its checksum, and do not load it before it is whole";
const UNPACK: &str = "unpack it with the tool that made it and scan what comes out";

macro_rules! rules {
    ($($id:literal, $severity:ident, $short:expr, $why:expr, $help:expr;)*) => {
        /// Every rule, in the order of their names.
        pub static RULES: &[Rule] = &[
            $(Rule { id: $id, short: $short, severity: Severity::$severity, why: $why, help: $help },)*
        ];
    };
}

rules! {
    "archive-encrypted", Medium, "a file or archive member is encrypted",
        "what nobody can look at may be anything", UNPACK;
    "archive-lies", High, "an archive contradicts itself",
        "two programs that read it see two different files: one is checked, and the other is loaded", FETCH;
    "archive-unread", Medium, "an archive or stream could not be unpacked",
        "what was not looked at may be anything", UNPACK;
    "executable", Medium, "a program or library stands among the files of a model",
        "a model needs no machine code; something that loads it by name would run it",
        "delete it, unless you know what it is for";
    "gguf-lies", High, "a GGUF file contradicts itself",
        "counts and offsets out of a file have been used to read and write past buffers", FETCH;
    "hdf5-external", High, "an HDF5 file refers to other files",
        "whoever opens it reads files of the sender's choice from this machine",
        "do not load it; ask for the weights as safetensors";
    "hdf5-lies", High, "an HDF5 file declares more than it holds",
        "whoever reads what it declares fills the memory with it, or reads past the file", FETCH;
    "keras-callable", Critical, "a Keras config names a callable",
        "loading the config imports and calls what it names", "do not load it; ask for the weights as safetensors";
    "keras-lambda", Critical, "a Keras model holds code",
        "a Lambda layer is Python bytecode, which runs when the model is loaded or used",
        "do not load it; ask for a model without Lambda layers, or for the weights as safetensors";
    "not-a-model", Medium, "a file is no model, though it stands for one",
        "a pointer, a login page or an error message was saved in place of the model",
        "fetch the file itself (`git lfs pull`, where it is a pointer)";
    "onnx-custom-operator", Medium, "an ONNX graph uses operators that are not ONNX's",
        "a runtime must load a library of the sender's choice to run them",
        "run it only with a library of operators that you have from someone you trust";
    "onnx-external-path", High, "an ONNX file refers to data outside of its folder",
        "whoever loads it reads files of the sender's choice from this machine", "do not load it";
    "path-escape", High, "a name leads out of the folder or archive",
        "whoever follows or unpacks it reads or writes where the sender chose",
        "do not unpack it by a tool that follows such names";
    "pickle-allocates", Medium, "a pickle asks for far more memory than it is long",
        "loading it takes the memory, and may take the machine down", CONVERT;
    "pickle-broken", Medium, "a pickle breaks off or is malformed",
        "what stands before the fault has run by the time a loader meets it", FETCH;
    "pickle-build", Critical, "a pickle changes something that it imported",
        "BUILD and SETITEM on an imported class or module replace parts of the program that loads the file", CONVERT;
    "pickle-call", Critical, "a pickle calls a function when it is loaded",
        "unpickling runs it, with the arguments that stand in the file", CONVERT;
    "pickle-global", High, "a pickle names a function or module",
        "unpickling imports it, and hands it to whoever uses the result", CONVERT;
    "pickle-persistent-id", Medium, "a pickle leaves something to the program that loads it",
        "what a persistent id stands for is decided by that program, and may be read from elsewhere", ASK;
    "pickle-unknown-class", Medium, "a pickle builds an object of a class that is not known to be harmless",
        "unpickling imports the class's module and lets the class make what it wants of the state in the file", ASK;
    "remote-code", High, "a config asks for code that comes with the model",
        "loaders that are told to trust it import and run the file that it names",
        "read that code before you set trust_remote_code, or use a model that needs none";
    "safetensors-lies", High, "a safetensors file contradicts itself",
        "readers disagree about such a file, or read past what is theirs", FETCH;
    "template", High, "a chat template does more than to format text",
        "a template engine that is not sandboxed runs what it reaches",
        "render it in a sandbox, or replace it by the template of the base model";
    "tensorflow-operator", High, "a TensorFlow graph uses operators beyond computation",
        "a graph is a program: these operators read and write files, or run Python, when it is loaded or called",
        "do not load it; ask for the weights as safetensors";
    "torch-lies", Medium, "a torch file contradicts itself",
        "shapes, strides and sizes out of a file have been used to read past buffers", FETCH;
    "torchscript-code", High, "a TorchScript program uses operators beyond computation",
        "torch.load and torch.jit.load hand it to an interpreter; these operators touch files or foreign libraries",
        CONVERT;
    "unreadable", Medium, "a file could not be looked at in full",
        "what was not looked at may be anything", FETCH;
    "xml-entity", High, "an XML file declares entities",
        "a reader that expands them opens files and addresses of the sender's choice, or fills the memory",
        "read it by a parser that refuses entities";
    "yaml-callable", Critical, "a YAML file names what a loader is to call",
        "loaders that construct objects from YAML import it and call it",
        "do not load it; read it by a loader of plain values, such as yaml.safe_load";
    "zip-bomb", Medium, "an archive unpacks to far more than it is",
        "unpacking it fills memory or disk", "do not unpack it";
}

/// The rule of a name; one that is not in the table, which would be a defect here, shows as `unreadable`.
pub fn rule(id: &str) -> &'static Rule {
    let found = RULES.iter().find(|r| r.id == id);
    debug_assert!(found.is_some(), "no rule {id}");
    found.unwrap_or_else(|| RULES.iter().find(|r| r.id == "unreadable").unwrap_or(&RULES[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_rule_as_it_is() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scan.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, section) = page.split_once("\n## Rules\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let found: Vec<&str> = section.lines().filter(|l| l.starts_with("| `")).collect();
        let wanted: Vec<String> = RULES
            .iter()
            .map(|rule| {
                let severity = format!("{:?}", rule.severity).to_lowercase();
                format!("| `{}` | {severity} | {} | {} |", rule.id, rule.short, rule.why)
            })
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn rules_are_in_order_and_say_everything() {
        assert!(RULES.is_sorted_by(|a, b| a.id < b.id));
        for rule in RULES {
            assert!(
                rule.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit()),
                "{}",
                rule.id
            );
            for text in [rule.short, rule.why, rule.help] {
                assert!(text.len() > 10 && !text.ends_with('.'), "{}: {text}", rule.id);
            }
        }
    }
}
