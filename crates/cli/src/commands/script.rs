//! What `inspect` says of a TorchScript program beside its weights. The program is read as text and never run.

use std::fmt::Write as _;

use serde_json::{Value, json};
use weighbridge::torchscript::{Class, Function, Script};
use weighbridge::{Archive, Result, Source};

use crate::output::{one_line, shortened, size};

/// How many modules, methods and constants are shown of longer lists, unless all are asked for.
const SHOWN: usize = 40;

/// The program of an archive, where it is one.
pub(super) fn read(archive: &dyn Archive) -> Result<Option<Script>> {
    let files = archive.files();
    match &files[..] {
        [path] if archive.format() == "torch" && archive.variety().starts_with("TorchScript") => {
            Script::open(Source::open(path)?, &crate::limits::read_options())
        }
        _ => Ok(None),
    }
}

/// The lines for people.
pub(super) fn text(script: &Script, all: bool) -> String {
    let mut out = String::new();
    let most = if all { usize::MAX } else { SHOWN };
    out.push_str("\nprogram (TorchScript, listed and not run)\n");
    let width =
        script.modules.iter().take(most).map(|m| m.path.chars().count()).max().unwrap_or(0).clamp(6, 60);
    list(&mut out, "modules", script.modules.len(), most, |out, i| {
        let module = &script.modules[i];
        let path = if module.path.is_empty() { "(root)" } else { &module.path };
        let _ = writeln!(out, "    {:<width$}  {}", one_line(path), one_line(&module.class));
    });
    let methods: Vec<(&Class, &Function)> =
        script.classes.iter().flat_map(|class| class.methods.iter().map(move |m| (class, m))).collect();
    list(&mut out, "methods", methods.len(), most, |out, i| {
        let (class, method) = methods[i];
        let line = format!("{}.{}{}", class.name, method.name, method.signature(true));
        let _ =
            writeln!(out, "    {}", if all { one_line(&line).into_owned() } else { shortened(&line, 160) });
    });
    list(&mut out, "functions", script.functions.len(), most, |out, i| {
        let function = &script.functions[i];
        let line = format!("{}{}", function.name, function.signature(false));
        let _ =
            writeln!(out, "    {}", if all { one_line(&line).into_owned() } else { shortened(&line, 160) });
    });
    let constants = script.constants().tensors();
    list(&mut out, "constants", constants.len(), most, |out, i| {
        let constant = &constants[i];
        let _ = writeln!(
            out,
            "    {:<6}  {}  {:?}  {}",
            one_line(constant.name()),
            constant.dtype(),
            constant.shape(),
            size(constant.bytes())
        );
    });
    list(&mut out, "extra files", script.extra.len(), most, |out, i| {
        let _ = writeln!(out, "    {}  {}", one_line(&script.extra[i].name), size(script.extra[i].bytes));
    });
    out
}

fn list(out: &mut String, title: &str, count: usize, most: usize, mut line: impl FnMut(&mut String, usize)) {
    if count == 0 {
        return;
    }
    let _ = writeln!(out, "  {title}: {count}");
    (0..count.min(most)).for_each(|i| line(out, i));
    if count > most {
        let _ = writeln!(out, "    … {} more (--all shows them)", count - most);
    }
}

/// The object for programs; the text of methods only where all is asked for.
pub(super) fn json(script: &Script, all: bool) -> Value {
    let function = |f: &Function| {
        let arguments: Vec<Value> = f
            .arguments
            .iter()
            .map(|a| json!({ "name": a.name, "type": a.of, "default": a.default }))
            .collect();
        let mut out = json!({ "name": f.name, "arguments": arguments, "returns": f.returns });
        if all {
            out["source"] = f.source.clone().into();
        }
        out
    };
    let classes: Vec<Value> = script
        .classes
        .iter()
        .map(|class| {
            let attributes: Vec<Value> = class
                .attributes
                .iter()
                .map(|a| json!({ "name": a.name, "type": a.of, "value": a.value }))
                .collect();
            json!({
                "name": class.name,
                "base": class.base,
                "parameters": class.parameters,
                "buffers": class.buffers,
                "attributes": attributes,
                "methods": class.methods.iter().map(function).collect::<Vec<_>>(),
            })
        })
        .collect();
    let constants: Vec<Value> = script
        .constants()
        .tensors()
        .iter()
        .map(|t| {
            json!({ "name": t.name(), "dtype": t.dtype().name(), "shape": t.shape(), "bytes": t.bytes() })
        })
        .collect();
    json!({
        "modules": script.modules.iter().map(|m| json!({ "path": m.path, "class": m.class })).collect::<Vec<_>>(),
        "classes": classes,
        "functions": script.functions.iter().map(function).collect::<Vec<_>>(),
        "constants": constants,
        "extra_files": script.extra.iter().map(|e| json!({ "name": e.name, "bytes": e.bytes })).collect::<Vec<_>>(),
    })
}
