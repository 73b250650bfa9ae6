//! TorchScript code: which operators and classes a program uses.
//!
//! The language has no way to the interpreter of Python or to the system but its operators. torch's own operators
//! compute on tensors, but for a few that open files; operators of other namespaces are in libraries that the loading
//! program must have loaded, and nobody knows what they do. A program is run by `forward`, but `torch.load` hands such a
//! file to torch's own loader whatever `weights_only` says, and that runs `__setstate__` while it loads.

use std::collections::BTreeSet;

use weighbridge_formats::Result;

use super::report::{Severity, Verdict};
use super::subject::{Sink, Subject};

/// The longest program text that is looked at.
const LONGEST: u64 = 32 << 20;

/// Operators of torch's own that reach beyond the program's tensors: they read or write files, or wait for others.
static BEYOND: &[&str] = &[
    "from_file",
    "save",
    "load",
    "_load",
    "_save",
    "open",
    "device_guard",
    "warn",
    "get_custom_class_method",
    "fork",
    "rpc_async",
    "rpc_sync",
    "rpc_remote",
    "set_grad_enabled",
];

/// Namespaces of operators that come with torch and compute.
static NAMESPACES: &[&str] = &[
    "aten",
    "prim",
    "prims",
    "prepacked",
    "quantized",
    "sparse",
    "mkldnn",
    "cuda",
    "cudnn",
    "inductor",
    "profiler",
    "torchvision",
    "torchaudio",
    "xnnpack",
    "quantized_decomposed",
    "_quantized",
    "mkl",
    "image",
];

/// Of those that reach beyond, the ones that only tell or schedule.
static QUIET: &[&str] = &["warn", "fork", "device_guard", "set_grad_enabled"];

/// Whether a member is a program's text.
pub(super) fn fits(subject: &Subject<'_>) -> bool {
    let in_code = subject.name.starts_with("code/") || subject.name.contains("/code/");
    in_code && subject.has_extension(&["py"]) && !subject.place.members.is_empty()
}

/// Lists the operators of a program's text that are not known to compute only.
pub(super) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    sink.kind("torchscript code");
    let length = subject.source.len();
    if length > LONGEST {
        let what = format!("the program's text has {length} bytes; {LONGEST} are looked at");
        sink.finding(subject.finding("unreadable", Verdict::Unknown, what));
    }
    let mut bytes = vec![0; length.min(LONGEST) as usize];
    subject.source.reader().read_at(0, &mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut told = BTreeSet::new();
    if let Some(at) = memchr::memmem::find(text.as_bytes(), b"while True:") {
        let what = "the program has a loop whose condition is always true";
        let finding = subject.finding("torchscript-code", Verdict::Unknown, what).at(at as u64);
        sink.finding(finding.severity(Severity::Low));
    }
    for (at, name) in operators(&text) {
        if told.len() >= 100 || told.contains(name) {
            continue;
        }
        let (namespace, operator) =
            match name.strip_prefix("ops.").or_else(|| name.strip_prefix("torch.ops.")) {
                Some(rest) => rest.split_once('.').unwrap_or((rest, "")),
                None => ("aten", name.strip_prefix("torch.").unwrap_or(name)),
            };
        let (verdict, severity, what) = if name.starts_with("__torch__.torch.classes.") {
            let what = format!("the program uses the class {name} of a library in C++");
            (Verdict::Unknown, Severity::Medium, what)
        } else if !NAMESPACES.contains(&namespace) {
            let what = format!("the program uses {name}, an operator that is not torch's own");
            (Verdict::Unknown, Severity::Medium, what)
        } else if namespace == "image" {
            let what = format!("the program uses {name}, which reads or writes files");
            (Verdict::Dangerous, Severity::High, what)
        } else if BEYOND.contains(&operator) && !QUIET.contains(&operator) {
            let what = format!("the program uses {name}, which reaches files or other machines");
            (Verdict::Dangerous, Severity::High, what)
        } else {
            continue;
        };
        told.insert(name);
        let finding = subject.finding("torchscript-code", verdict, what).at(at as u64);
        sink.finding(finding.callable(name).severity(severity));
    }
    Ok(())
}

/// The dotted names of operators and foreign classes in a program's text, strings left out.
fn operators(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        while at < bytes.len() {
            match bytes[at] {
                quote @ (b'"' | b'\'') => {
                    at += 1;
                    while at < bytes.len() && bytes[at] != quote && bytes[at] != b'\n' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b if b.is_ascii_alphabetic() || b == b'_' => {
                    let start = at;
                    while at < bytes.len()
                        && (bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'_' | b'.'))
                    {
                        at += 1;
                    }
                    let name = &text[start..at];
                    let wanted = name.starts_with("torch.") || name.starts_with("ops.");
                    if wanted || name.starts_with("__torch__.torch.classes.") {
                        return Some((start, name));
                    }
                }
                _ => at += 1,
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_found_and_strings_are_not() {
        let text = "class M(Module):\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n    \
                    y = torch.add(x, 1)\n    z = ops.my.op(y, \"torch.save(\")\n    \
                    _0 = torch.from_file(\"/etc/passwd\", False, 10)\n    return z\n";
        let names: Vec<&str> = operators(text).map(|(_, name)| name).collect();
        assert_eq!(names, ["torch.add", "ops.my.op", "torch.from_file"]);
        let odd = "'\\";
        assert_eq!(operators(odd).count(), 0);
    }
}
