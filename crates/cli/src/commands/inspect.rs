//! `weighbridge inspect`: what a model file holds, from its header.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use weighbridge::model::Model;
use weighbridge::torchscript::Script;
use weighbridge::transform::Select;
use weighbridge::{Archive, DType, Result, TensorInfo};

use super::keys::Keys;
use super::{model, script, topics};
use crate::exit::Exit;
use crate::output::{self, count, grouped, one_line, push_array, push_json_str, push_u64, shortened, size};
use crate::values::{Bounds, Tree};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge inspect model.safetensors
  weighbridge inspect pytorch_model.bin --json | jq '.tensors[].name'
  weighbridge inspect checkpoint.pt --tree
  weighbridge inspect my_topics.pickle
  weighbridge inspect bert-base/
  weighbridge inspect bert-base.age -i key.txt
  weighbridge inspect checkpoint.pt --select model_state_dict")]
pub(crate) struct Args {
    /// The file, the index of a sharded set, or a folder that holds a model
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the names as a tree
    #[arg(long)]
    tree: bool,
    /// Shorten nothing
    #[arg(long)]
    all: bool,
    /// Only this part: a path such as `model.state_dict`, which is taken off the names, or a pattern with `*`
    #[arg(long, value_name = "PATH")]
    select: Option<String>,
    #[command(flatten)]
    keys: Keys,
}

/// On a terminal, how many tensors of a longer list are shown from its beginning and from its end.
const HEAD: usize = 30;
const TAIL: usize = 10;

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let plain = args.select.is_none() && !args.tree;
    if plain && let Some(exit) = topics::inspect_directory(&args.path, args.json, args.all)? {
        return Ok(exit);
    }
    crate::heap::prepare(&args.path);
    let whole = args.select.is_none() && model::is_model(&args.path);
    if whole {
        // As below, for whole models.
        let model: &Model = Box::leak(Box::new(model::open(&args.path)?));
        return show(model.weights(), Some(model), args);
    }
    let mut archive = args.keys.open(&args.path)?;
    if plain && let Some(exit) = topics::inspect_archive(&*archive, args.json, args.all)? {
        return Ok(exit);
    }
    if let Some(part) = &args.select {
        archive = Box::new(Select::new(archive, part).map_err(|e| e.with_path(&args.path))?);
    }
    // The process ends with this, so taking a large archive apart would be a tenth of the work for nothing.
    show(Box::leak(archive), None, args)
}

fn show(archive: &dyn Archive, model: Option<&Model>, args: &Args) -> Result<Exit> {
    let program = if args.select.is_none() { script::read(archive)? } else { None };
    if args.json {
        print_json(archive, model, program.as_ref(), args)?;
    } else {
        output::emit(text(archive, model, program.as_ref(), args).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// Tensors, parameters and bytes of one dtype.
#[derive(Default)]
struct Total {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

fn totals(archive: &dyn Archive) -> BTreeMap<DType, Total> {
    let mut totals = BTreeMap::<DType, Total>::new();
    for tensor in archive.tensors() {
        let total = totals.entry(tensor.dtype()).or_default();
        total.tensors += 1;
        total.parameters = total.parameters.saturating_add(tensor.elements());
        total.bytes = total.bytes.saturating_add(tensor.bytes());
    }
    totals
}

/// The names of the tensors that share a storage, for each storage with more than one.
fn shared(archive: &dyn Archive) -> Vec<Vec<&str>> {
    const NONE: u32 = u32::MAX;
    let mut first = vec![NONE; archive.storages().len()];
    let mut groups = BTreeMap::<u32, Vec<&str>>::new();
    for (i, tensor) in archive.tensors().iter().enumerate() {
        let Some(storage) = tensor.view().map(|v| v.storage) else { continue };
        let Some(first) = first.get_mut(storage as usize) else { continue };
        if *first == NONE {
            *first = i as u32;
        } else {
            let opener = archive.tensors()[*first as usize].name();
            groups.entry(storage).or_insert_with(|| vec![opener]).push(tensor.name());
        }
    }
    groups.into_values().collect()
}

/// How much is gathered before it is written: a million tensors make a hundred megabytes of text.
const PIECE: usize = 64 << 10;

/// Prints the JSON object in pieces. Everything that can fail has been done when the first is printed.
fn print_json(
    archive: &dyn Archive,
    model: Option<&Model>,
    program: Option<&Script>,
    args: &Args,
) -> Result<()> {
    let mut out = Vec::with_capacity(2 * PIECE);
    out.extend_from_slice(b"{\"format\":");
    push_json_str(&mut out, archive.format());
    out.extend_from_slice(b",\"variety\":");
    push_json_str(&mut out, &archive.variety());
    out.extend_from_slice(b",\"files\":");
    push_array(&mut out, archive.files(), |out, f| push_json_str(out, &f.to_string_lossy()));
    out.extend_from_slice(b",\"tensors\":");
    for (i, t) in archive.tensors().iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"[" } else { b"," });
        out.extend_from_slice(b"{\"name\":");
        push_json_str(&mut out, t.name());
        out.extend_from_slice(b",\"dtype\":\"");
        out.extend_from_slice(t.dtype().name().as_bytes());
        out.extend_from_slice(b"\",\"shape\":");
        push_array(&mut out, t.shape(), |out, d| push_u64(out, *d));
        out.extend_from_slice(b",\"bytes\":");
        push_u64(&mut out, t.bytes());
        out.push(b'}');
        if out.len() >= PIECE {
            output::emit(&out)?;
            out.clear();
        }
    }
    out.extend_from_slice(if archive.tensors().is_empty() { &b"[]"[..] } else { b"]" });
    out.extend_from_slice(b",\"parameters\":");
    push_u64(&mut out, archive.parameters());
    out.extend_from_slice(b",\"bytes\":");
    push_u64(&mut out, archive.bytes());
    let dtypes: serde_json::Map<_, _> = totals(archive)
        .into_iter()
        .map(|(dtype, t)| {
            let total =
                serde_json::json!({ "tensors": t.tensors, "parameters": t.parameters, "bytes": t.bytes });
            (dtype.name().to_owned(), total)
        })
        .collect();
    out.extend_from_slice(format!(",\"dtypes\":{}", serde_json::Value::Object(dtypes)).as_bytes());
    // Through a map, so that a key that a file gives twice is one key.
    let metadata: serde_json::Map<_, _> =
        archive.metadata().iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    out.extend_from_slice(format!(",\"metadata\":{}", serde_json::Value::Object(metadata)).as_bytes());
    out.extend_from_slice(b",\"values\":");
    match archive.values() {
        Some(values) => {
            let some = Bounds { depth: 32, entries: 256, total: 10_000, tensors: true };
            Tree::new(archive, values, if args.all { Bounds::ALL } else { some }).push_json(&mut out);
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"shared\":");
    push_array(&mut out, shared(archive), |out, group| push_array(out, group, push_json_str));
    if let Some(companion) = archive.companion() {
        out.extend_from_slice(b",\"details\":");
        push_array(&mut out, companion.details(), |out, (name, text)| {
            out.extend_from_slice(b"{\"name\":");
            push_json_str(out, &name);
            out.extend_from_slice(b",\"text\":");
            push_json_str(out, &text);
            out.push(b'}');
        });
    }
    if let Some(model) = model {
        out.extend_from_slice(format!(",\"model\":{}", model::json(model)).as_bytes());
    }
    if let Some(program) = program {
        out.extend_from_slice(format!(",\"program\":{}", script::json(program, args.all)).as_bytes());
    }
    out.extend_from_slice(format!(",\"notes\":{}}}\n", output::notes_json(archive.notes())).as_bytes());
    output::emit(&out)
}

fn text(archive: &dyn Archive, model: Option<&Model>, program: Option<&Script>, args: &Args) -> String {
    let brief = !args.all && output::for_people();
    let mut out = String::with_capacity(1024 + archive.tensors().len() * 100);
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<11} {}", one_line(value));
    };
    field("path", &args.path.to_string_lossy());
    field("format", &format!("{}, {}", archive.format(), archive.variety()));
    let files = archive.files();
    if files.len() > 1 {
        field("files", &file_names(&files, brief));
    }
    field("tensors", &grouped(archive.tensors().len() as u64));
    field("parameters", &grouped(archive.parameters()));
    field("bytes", &with_exact(archive.bytes()));
    for (i, (dtype, total)) in totals(archive).iter().enumerate() {
        let line = format!(
            "{dtype}: {}, {}, {}",
            count(total.tensors, "tensor"),
            count(total.parameters, "parameter"),
            size(total.bytes)
        );
        field(if i == 0 { "dtypes" } else { "" }, &line);
    }
    let details = archive.companion().map(|c| c.details()).unwrap_or_default();
    let mut before = "";
    for (name, text) in &details {
        // Of several inputs or outputs the first has the word before it.
        let label = if name == before { "" } else { name };
        let text = if brief { shortened(text, 160) } else { one_line(text).into_owned() };
        let _ = writeln!(out, "{label:<11} {text}");
        before = name;
    }
    if let Some(model) = model {
        out.push_str(&model::text(model));
    }
    push_metadata(&mut out, archive.metadata(), brief);
    if let Some(values) = archive.values() {
        out.push_str("\nvalues\n");
        let some = Bounds { depth: 16, entries: 24, total: 200, tensors: args.tree };
        let bounds = match (args.all, brief) {
            (true, _) => Bounds { tensors: args.tree, ..Bounds::ALL },
            (false, true) => some,
            (false, false) => Bounds { entries: 256, total: 10_000, ..some },
        };
        Tree::new(archive, values, bounds).push_text(&mut out);
    }
    push_shared(&mut out, &shared(archive), brief);
    let names: Vec<&TensorInfo> = archive.tensors().iter().collect();
    if !names.is_empty() {
        out.push_str("\ntensors\n");
        if args.tree { push_name_tree(&mut out, &names, 0, 1) } else { push_table(&mut out, &names, brief) }
    }
    if let Some(program) = program {
        out.push_str(&script::text(program, args.all));
    }
    if !archive.notes().is_empty() {
        out.push('\n');
        output::push_notes(&mut out, archive.notes());
    }
    out
}

fn with_exact(bytes: u64) -> String {
    if bytes < 1000 { size(bytes) } else { format!("{} ({})", size(bytes), grouped(bytes)) }
}

fn file_names(files: &[PathBuf], brief: bool) -> String {
    let name = |p: &PathBuf| p.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let shown = if brief { files.len().min(8) } else { files.len() };
    let mut list = files[..shown].iter().map(name).collect::<Vec<_>>().join(", ");
    if shown < files.len() {
        let _ = write!(list, ", … {} more", files.len() - shown);
    }
    format!("{}: {list}", files.len())
}

fn push_metadata(out: &mut String, metadata: &[(String, String)], brief: bool) {
    if metadata.is_empty() {
        return;
    }
    out.push_str("\nmetadata\n");
    let (entries, chars) = if brief { (24, 100) } else { (usize::MAX, usize::MAX) };
    for (key, value) in metadata.iter().take(entries) {
        let _ = writeln!(out, "  {}: {}", shortened(key, chars), shortened(value, chars));
    }
    if metadata.len() > entries {
        let _ = writeln!(out, "  … {} more (--all shows them)", metadata.len() - entries);
    }
}

fn push_shared(out: &mut String, groups: &[Vec<&str>], brief: bool) {
    if groups.is_empty() {
        return;
    }
    out.push_str("\nshared storage\n");
    let shown = if brief { groups.len().min(16) } else { groups.len() };
    for group in &groups[..shown] {
        let names = if brief { group.len().min(8) } else { group.len() };
        let list = group[..names].iter().map(|n| one_line(n)).collect::<Vec<_>>().join(", ");
        let more =
            if names < group.len() { format!(", … {} more", group.len() - names) } else { String::new() };
        let _ = writeln!(out, "  {list}{more}");
    }
    if shown < groups.len() {
        let _ = writeln!(out, "  … {} more groups (--all shows them)", groups.len() - shown);
    }
}

/// The flat list, in columns.
fn push_table(out: &mut String, tensors: &[&TensorInfo], brief: bool) {
    let elided = if brief && tensors.len() > HEAD + TAIL + 5 { HEAD..tensors.len() - TAIL } else { 0..0 };
    let shown = || tensors.iter().enumerate().filter(|(i, _)| !elided.contains(i));
    let shape = |t: &TensorInfo| format!("{:?}", t.shape());
    // One long name must not push every column off the screen.
    let name_width = shown().map(|(_, t)| t.name().chars().count()).max().unwrap_or(0).min(60);
    let dtype_width = shown().map(|(_, t)| t.dtype().name().len()).max().unwrap_or(0);
    let shape_width = shown().map(|(_, t)| shape(t).len()).max().unwrap_or(0).min(40);
    for (i, tensor) in shown() {
        if i == elided.end && !elided.is_empty() {
            let _ = writeln!(out, "  … {} more (--all shows them)", grouped(elided.len() as u64));
        }
        let _ = writeln!(
            out,
            "  {:<name_width$}  {:<dtype_width$}  {:<shape_width$}  {}",
            one_line(tensor.name()),
            tensor.dtype().name(),
            shape(tensor),
            grouped(tensor.bytes())
        );
    }
}

/// How many segments of a dotted name become levels: a file decides how many there are.
const LEVELS: usize = 24;

/// Neighbours whose names agree up to the same dot, as one branch. `at` is where their names go on.
fn push_name_tree(out: &mut String, tensors: &[&TensorInfo], at: usize, level: usize) {
    let indent = level * 2;
    let segment = |t: &TensorInfo| -> usize {
        let rest = &t.name()[at..];
        if level >= LEVELS { rest.len() } else { rest.find('.').unwrap_or(rest.len()) }
    };
    let mut rest = tensors;
    while let Some(first) = rest.first() {
        let len = segment(first);
        let end = at + len;
        let is_leaf = end == first.name().len();
        let same = |t: &&&TensorInfo| {
            t.name().len() > end
                && t.name().as_bytes()[end] == b'.'
                && t.name()[at..end] == first.name()[at..end]
        };
        let run = if is_leaf { 1 } else { rest.iter().take_while(same).count() };
        let label = one_line(&first.name()[at..end]);
        if is_leaf {
            let t = first;
            let _ =
                writeln!(out, "{:indent$}{label}  {} {:?}  {}", "", t.dtype(), t.shape(), size(t.bytes()));
        } else {
            let bytes = rest[..run].iter().fold(0u64, |n, t| n.saturating_add(t.bytes()));
            let _ = writeln!(out, "{:indent$}{label}  {}, {}", "", count(run as u64, "tensor"), size(bytes));
            push_name_tree(out, &rest[..run], end + 1, level + 1);
        }
        rest = &rest[run..];
    }
}
