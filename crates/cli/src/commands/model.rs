//! Whole models: what `inspect` says of a model's folder, and how `convert` writes one.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use weighbridge::model::tokenizer::Layout;
use weighbridge::model::{LoadReport, Model, ModelLoader, ModelSaver, Role, SaveReport};
use weighbridge::{ConvertOptions, Error, Result};

use super::convert::{self, Args};
use crate::exit::Exit;
use crate::limits::read_options;
use crate::output::{self, count, one_line, size};
use crate::progress::Progress;

/// How many names a list of tensors shows.
const SHOWN: usize = 8;

/// Whether a folder holds more than weights, so that there is a model to speak of.
pub(crate) fn is_model(path: &Path) -> bool {
    path.is_dir() && path.join("config.json").is_file()
}

/// Opens a model for a look: differences from what is expected are told, and are no errors.
pub(crate) fn open(path: &Path) -> Result<Model> {
    ModelLoader::new(path).read_options(read_options()).select("").unwrap_names(false).report_only().load()
}

/// The class that the config names first.
fn class(model: &Model) -> Option<&str> {
    model.config()?.architectures().first().copied()
}

/// The names of the files of a role.
fn names(model: &Model, role: Role) -> Vec<&str> {
    model.files_of(role).map(|f| &*f.name).collect()
}

/// What a model of this kind should have and this one has not.
fn missing(model: &Model) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(report) = model.report().filter(|r| !r.missing.is_empty()) {
        out.push(count(report.missing.len() as u64, "tensor"));
    }
    let speaks = model.config().is_some_and(|c| c.u64("vocab_size").is_some());
    if speaks && model.files_of(Role::Tokenizer).next().is_none() {
        out.push("the tokenizer".into());
    }
    out
}

/// What is known of a model's tokenizer.
struct Tokenizer {
    files: Vec<String>,
    layout: Option<&'static str>,
    tokens: Option<u64>,
    findings: Vec<(&'static str, String)>,
}

impl Tokenizer {
    /// A tokenizer that cannot be read is a finding too: the rest of the model is shown all the same.
    fn of(model: &Model) -> Self {
        let files = names(model, Role::Tokenizer).into_iter().map(str::to_owned).collect();
        let mut out = Self { files, layout: None, tokens: None, findings: Vec::new() };
        let found = model.tokenizer_files().and_then(|files| {
            out.layout = files.layout().map(Layout::as_str);
            model.tokenizer()
        });
        match found {
            Ok(Some(tokenizer)) => {
                out.tokens = Some(tokenizer.vocab_size().tokens);
                let findings = model.check_tokenizer(&tokenizer);
                out.findings.extend(findings.iter().map(|f| (f.severity.as_str(), f.to_string())));
            }
            Ok(None) => {}
            Err(e) => out.findings.push(("error", e.to_string())),
        }
        out
    }

    fn lines(&self) -> Vec<String> {
        if self.files.is_empty() {
            return vec!["no file".into()];
        }
        let tokens = self.tokens.map(|n| format!("{}: ", count(n, "token"))).unwrap_or_default();
        let layout = self.layout.map(|l| format!("{l}, ")).unwrap_or_default();
        let mut out = vec![format!("{layout}{tokens}{}", self.files.join(", "))];
        out.extend(self.findings.iter().map(|(severity, text)| format!("{severity}: {text}")));
        out
    }

    fn json(&self) -> Value {
        json!({
            "files": self.files,
            "layout": self.layout,
            "tokens": self.tokens,
            "findings": self.findings.iter()
                .map(|(severity, text)| json!({ "severity": severity, "text": text }))
                .collect::<Vec<_>>(),
        })
    }
}

/// The lines of `inspect` on the model as a whole.
pub(crate) fn text(model: &Model) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<11} {}", one_line(value));
    };
    let kind = model.config().and_then(|c| c.model_type()).unwrap_or("no model_type");
    field("model", &format!("{} ({kind})", class(model).unwrap_or("no architecture")));
    if let Some(dtype) = model.config().and_then(|c| c.dtype()) {
        field("config", &format!("dtype {}", dtype.torch_name()));
    }
    for (i, tie) in model.ties().iter().take(SHOWN).enumerate() {
        field(if i == 0 { "tied" } else { "" }, &format!("{} = {}", tie.alias, tie.tensor));
    }
    match model.report() {
        Some(report) => field("check", &report.to_string()),
        None => field("check", "the architecture is not one that is known here, so no tensor was expected"),
    }
    let tokenizer = Tokenizer::of(model);
    for (i, line) in tokenizer.lines().iter().enumerate() {
        field(if i == 0 { "tokenizer" } else { "" }, line);
    }
    let kinds = [
        (Role::Weights, "weights"),
        (Role::OtherWeights, "other"),
        (Role::Training, "training"),
        (Role::Code, "code"),
        (Role::Manifest, "manifest"),
        (Role::Asset, "assets"),
    ];
    for (role, label) in kinds {
        let (mut n, mut bytes) = (0u64, 0u64);
        for file in model.files_of(role) {
            (n, bytes) = (n + 1, bytes.saturating_add(file.bytes));
        }
        if n > 0 {
            let mut list = names(model, role);
            let more = list.len().saturating_sub(SHOWN);
            list.truncate(SHOWN);
            let more = if more > 0 { format!(", … {more} more") } else { String::new() };
            field(label, &format!("{}, {}: {}{more}", count(n, "file"), size(bytes), list.join(", ")));
        }
    }
    let missing = missing(model);
    if !missing.is_empty() {
        field("missing", &missing.join(", "));
    }
    output::push_notes(&mut out, model.notes());
    out
}

/// The value `model` of `inspect --json`.
pub(crate) fn json(model: &Model) -> Value {
    let files =
        model.files().iter().map(|f| json!({ "name": f.name, "role": role_name(f.role), "bytes": f.bytes }));
    json!({
        "architecture": class(model),
        "model_type": model.config().and_then(|c| c.model_type()),
        "config_dtype": model.config().and_then(|c| c.dtype()).map(|d| d.torch_name()),
        "known": model.architecture().is_some(),
        "ties": model.ties().iter().map(|t| json!({ "alias": t.alias, "tensor": t.tensor })).collect::<Vec<_>>(),
        "check": model.report().map(report_json),
        "tokenizer": Tokenizer::of(model).json(),
        "files": files.collect::<Vec<_>>(),
        "missing": missing(model),
        "notes": output::notes_json(model.notes()),
    })
}

fn report_json(report: &LoadReport) -> Value {
    json!({
        "matched": report.matched.len(),
        "missing": report.missing,
        "unexpected": report.unexpected,
        "shapes": report.shapes.iter()
            .map(|m| json!({ "name": m.name, "expected": &m.expected[..], "found": &m.found[..] }))
            .collect::<Vec<_>>(),
        "dtypes": report.dtypes.iter()
            .map(|m| json!({ "name": m.name, "expected": m.expected.name(), "found": m.found.name() }))
            .collect::<Vec<_>>(),
    })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Weights => "weights",
        Role::OtherWeights => "other-weights",
        Role::Config => "config",
        Role::GenerationConfig => "generation-config",
        Role::Tokenizer => "tokenizer",
        Role::Training => "training",
        Role::Code => "code",
        Role::Manifest => "manifest",
        _ => "asset",
    }
}

/// Whether a conversion is one of a whole folder into another.
pub(crate) fn is_whole(args: &Args) -> bool {
    let text = args.dst.to_string_lossy();
    let folder = text.ends_with(std::path::is_separator) || args.dst.is_dir();
    let named = args.dst.file_name().and_then(|n| n.to_str());
    let known = named.is_some_and(|n| weighbridge::registry().for_extension(n).is_some());
    is_model(&args.src) && (folder || !known)
}

/// Writes a model's folder as another.
pub(crate) fn run(args: &Args, options: &ConvertOptions<'_>, progress: Progress) -> Result<Exit> {
    let mut loader = ModelLoader::new(&args.src)
        .read_options(read_options())
        .report_only()
        .unwrap_names(args.strip_prefix.is_empty());
    if let Some(part) = &args.select {
        loader = loader.select(part);
    }
    let model = loader.load()?;
    // The part was taken by the loader, and casts are the saver's.
    let mut names = options.clone();
    names.select = None;
    let weights = names.chosen(model.weights())?;
    // An empty folder is no model that could be lost.
    let is_empty = std::fs::read_dir(&args.dst).is_ok_and(|mut entries| entries.next().is_none());
    let mut saver = ModelSaver::of(&model)?
        .weights(&*weights)
        .format(args.to.as_deref().unwrap_or("safetensors"))
        .precision(options.precision.clone())
        .allow_loss(args.allow_loss)
        .fsync(!args.no_fsync)
        .overwrite(args.force || is_empty)
        .manifest(!args.no_manifest)
        .provenance(convert::manifest::provenance(args, &progress)?)
        .observer(&progress);
    if let Some(mode) = args.mode {
        saver = saver.mode(mode);
    }
    if let Some(max) = args.max_shard_size {
        saver = saver.max_shard_size(max);
    }
    if let Some(threads) = args.threads {
        saver = saver.threads(threads.into());
    }
    for (key, value) in &args.metadata {
        saver = saver.metadata(key, value);
    }
    let report = saver.save(&args.dst).map_err(|e| match e.kind() {
        weighbridge::ErrorKind::InvalidOptions if args.dst.is_dir() && !args.force && !is_empty => {
            exists(&args.dst)
        }
        _ => e,
    })?;
    drop(progress);
    if args.json {
        output::emit(format!("{}\n", report_of(&model, &report)).as_bytes())?;
    } else if args.quiet {
        let mut out = String::new();
        output::push_notes(&mut out, &convert::grave(&report.notes));
        eprint!("{out}");
    } else {
        output::emit(report_text(&model, &report).as_bytes())?;
    }
    Ok(Exit::Success)
}

fn exists(folder: &Path) -> Error {
    Error::invalid_options("the folder exists already, and holds files").with_path(folder).with_hint(
        "choose another name, or give leave to replace its weights and what else is written (`--force`)",
    )
}

fn report_of(model: &Model, report: &SaveReport) -> Value {
    json!({
        "source": {
            "format": model.weights().format(),
            "variety": model.weights().variety(),
            "files": model.weights().files().iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>(),
            "architecture": class(model),
            "check": model.report().map(report_json),
        },
        "target": {
            "format": report.format,
            "files": report.files.iter()
                .map(|(p, bytes)| json!({ "path": p.to_string_lossy(), "bytes": bytes }))
                .collect::<Vec<_>>(),
            "bytes": report.files.iter().fold(0u64, |n, (_, b)| n.saturating_add(*b)),
            "config_dtype": report.config_dtype.map(|d| d.torch_name()),
        },
        "tensors": report.tensors,
        "parameters": report.parameters,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "ties": report.ties.iter().map(|t| json!({ "alias": t.alias, "tensor": t.tensor })).collect::<Vec<_>>(),
        "casts": report.casts.iter().map(convert::cast_json).collect::<Vec<_>>(),
        "cast_total": convert::stats_json(&report.cast_total),
        "kept_wide": convert::kept_json(&report.kept_wide),
        "notes": output::notes_json(&report.notes),
        "seconds": report.seconds,
    })
}

fn report_text(model: &Model, report: &SaveReport) -> String {
    let mut out = String::new();
    let source = model.weights();
    let _ = writeln!(
        out,
        "read    {} ({}): {}, {}",
        class(model).map_or("a model".into(), one_line),
        one_line(&source.variety()),
        count(source.tensors().len() as u64, "tensor"),
        size(report.bytes_before)
    );
    if let Some(check) = model.report().filter(|r| !r.is_clean()) {
        let _ = writeln!(out, "check   {}", one_line(&check.to_string()));
    }
    let tensors = (report.tensors, report.parameters, report.bytes_after);
    convert::push_written(&mut out, report.format, tensors, report.seconds, &report.files);
    for tie in report.ties.iter().take(SHOWN) {
        let _ = writeln!(out, "tied    {} = {}", one_line(&tie.alias), one_line(&tie.tensor));
    }
    convert::push_casts(&mut out, &report.casts, &report.cast_total, &report.kept_wide);
    if let Some(dtype) = report.config_dtype {
        let _ = writeln!(out, "config  dtype {}", dtype.torch_name());
    }
    output::push_notes(&mut out, &report.notes);
    out
}
