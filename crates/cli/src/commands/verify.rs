//! `weighbridge verify`: a model held against its manifest, and repaired from a good copy, or held against a signature.

mod signature;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use weighbridge::Result;
use weighbridge::logical::hex;
use weighbridge::trust::manifest::{
    Change, Difference, Manifest, Recorded, Repair, TensorChanges, Verification, VerifyOptions, repair,
    verify, verify_tensors,
};

use crate::exit::Exit;
use crate::output::{self, count, grouped, one_line, size};
use crate::progress::Progress;

/// How many tensors of a file are listed for people.
const SHOWN: usize = 20;

#[derive(clap::Args)]
#[command(after_help = "\
PATH is a folder with weighbridge.json in it, a file with FILE.weighbridge.json beside it or the manifest of its folder, \
or the manifest itself. Every byte of every file is read; of changed weights it says which tensors changed.

--repair takes what differs from a good copy, a folder or file, and only that: of a large file the tensors that are still \
as recorded stay. Nothing is replaced before it has the recorded digests. Files that were added stay.

With --signature the model is held against a signature instead, of weighbridge or model-signing: the signature must be by the \
key, or lead to a root, that is given, and every file must be as it was signed.

Exit codes: 0 as recorded or signed, 1 different, 2 not readable.

Examples:
  weighbridge verify model/
  weighbridge verify model/model.safetensors --json
  weighbridge verify model/ --repair /backup/model
  weighbridge verify exported.onnx --manifest model/weighbridge.json --tensors-only
  weighbridge verify model/ --signature model.sig --public-key key.pub.pem
  weighbridge verify model/ --signature model.sig --certificate-roots root.pem")]
pub(crate) struct Args {
    /// A model's folder, a file, or a manifest
    path: PathBuf,
    /// The manifest, where it does not lie beside the model
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Compare names and sizes of files alone, and read none
    #[arg(long, conflicts_with_all = ["repair", "tensors_only", "sha256"])]
    quick: bool,
    /// Check the SHA-256 of files too; BLAKE3 alone finds as much, and is several times faster
    #[arg(long)]
    sha256: bool,
    /// Compare the tensors alone, whatever file and format they are in
    #[arg(long, requires = "manifest", conflicts_with_all = ["repair", "sha256"])]
    tensors_only: bool,
    /// Take what differs from this good copy, a folder or a file
    #[arg(long, value_name = "FROM")]
    repair: Option<PathBuf>,
    #[command(flatten)]
    signature: signature::SignatureArgs,
    /// Threads that hash
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if let Some(signature) = &args.signature.signature {
        return signature::run(args, signature);
    }
    let progress = Progress::new(args.json);
    let mut options = VerifyOptions::default();
    options.read = crate::limits::read_options();
    options.threads = args.threads.map(usize::from);
    options.observer = Some(&progress);
    options.quick = args.quick;
    options.sha256 = args.sha256;
    if let (true, Some(manifest)) = (args.tensors_only, &args.manifest) {
        let changes = verify_tensors(&args.path, &Manifest::read(manifest)?, &options)?;
        drop(progress);
        return told_tensors(&changes, args);
    }
    let recorded = Recorded::find(&args.path, args.manifest.as_deref())?;
    let mut found = verify(&recorded, &options)?;
    let mut repaired = None;
    if let Some(from) = &args.repair {
        let before = found.clone();
        let done = repair(&recorded, &before, from, &options)?;
        if !done.repaired.is_empty() {
            found = verify(&recorded, &options)?;
        }
        repaired = Some((before, done));
    }
    drop(progress);
    if args.json {
        output::emit(format!("{}\n", json_of(&recorded, &found, repaired.as_ref())).as_bytes())?;
    } else {
        output::emit(text(&recorded, &found, repaired.as_ref(), args.quick).as_bytes())?;
    }
    Ok(if found.is_unreadable() {
        Exit::Error
    } else if found.is_same() {
        Exit::Success
    } else {
        Exit::Different
    })
}

fn text(
    recorded: &Recorded,
    found: &Verification,
    repaired: Option<&(Verification, Repair)>,
    quick: bool,
) -> String {
    let mut out = String::new();
    if let Some((before, repair)) = repaired {
        before.differences.iter().for_each(|d| push_difference(&mut out, d));
        for file in &repair.repaired {
            let (taken, all) = (grouped(file.taken), grouped(file.size));
            let _ =
                writeln!(out, "repaired   {}: {taken} of {all} bytes from the copy", one_line(&file.path));
        }
        for (path, why) in &repair.failed {
            let _ = writeln!(out, "failed     {}: {}", one_line(path), one_line(why));
        }
    }
    if repaired.is_none_or(|(_, repair)| !repair.repaired.is_empty()) {
        found.differences.iter().for_each(|d| push_difference(&mut out, d));
    }
    let how = if quick { "by name and size" } else { "as recorded" };
    let files = count(found.intact, "file");
    let manifest = recorded.path.to_string_lossy();
    if found.is_same() {
        let bytes = if quick { String::new() } else { format!(", {}", size(found.bytes)) };
        let _ = writeln!(out, "ok         {files} {how}{bytes} ({})", one_line(&manifest));
    } else {
        let different = count(found.differences.len() as u64, "difference");
        let _ = writeln!(out, "different  {different}; {files} {how} ({})", one_line(&manifest));
    }
    out
}

fn push_difference(out: &mut String, difference: &Difference) {
    let path = one_line(&difference.path);
    let (word, what) = match &difference.change {
        Change::Missing => ("missing", String::new()),
        Change::Added => ("added", String::new()),
        Change::Size { recorded, found } => {
            ("changed", format!(": {} bytes, and {} are recorded", grouped(*found), grouped(*recorded)))
        }
        Change::Content { algorithm, recorded, found } => {
            ("changed", format!(": {algorithm} {}, and {} is recorded", hex(found), hex(recorded)))
        }
        Change::Unreadable(why) => ("unreadable", format!(": {}", one_line(why))),
        _ => (difference.change.as_str(), String::new()),
    };
    let _ = writeln!(out, "{word:<10} {path}{what}");
    if let Some(tensors) = &difference.tensors {
        push_tensors(out, tensors);
        if tensors.is_same() {
            let _ =
                writeln!(out, "  what changed is no tensor: the header, the metadata or what lies between");
        }
    }
}

fn push_tensors(out: &mut String, tensors: &TensorChanges) {
    if let Some(why) = &tensors.unreadable {
        let _ = writeln!(out, "  it cannot be opened as a model: {}", one_line(why));
        return;
    }
    let limit = if output::for_people() { SHOWN } else { usize::MAX };
    for tensor in tensors.changed.iter().take(limit) {
        let place = tensor.place.map(|(at, len)| format!(", bytes {at} to {}", at + len)).unwrap_or_default();
        let why = tensor.why.as_deref().map(|w| format!(": {}", one_line(w))).unwrap_or_default();
        let _ = writeln!(out, "  tensor {} changed{place}{why}", one_line(&tensor.name));
    }
    for (names, word) in [(&tensors.missing, "missing"), (&tensors.added, "added")] {
        for name in names.iter().take(limit) {
            let _ = writeln!(out, "  tensor {} {word}", one_line(name));
        }
    }
    let lists = [tensors.changed.len(), tensors.missing.len(), tensors.added.len()];
    let hidden: usize = lists.iter().map(|n| n.saturating_sub(limit)).sum();
    if hidden > 0 {
        let _ = writeln!(out, "  … {} more", grouped(hidden as u64));
    }
    let _ = writeln!(out, "  {} as recorded", count(tensors.intact, "tensor"));
}

fn told_tensors(tensors: &TensorChanges, args: &Args) -> Result<Exit> {
    if args.json {
        let value = json!({ "same": tensors.is_same(), "tensors": tensors_json(tensors) });
        output::emit(format!("{value}\n").as_bytes())?;
    } else {
        let mut out = String::new();
        let word = if tensors.is_same() { "ok" } else { "different" };
        let _ = writeln!(out, "{word:<10} {}", one_line(&args.path.to_string_lossy()));
        push_tensors(&mut out, tensors);
        output::emit(out.as_bytes())?;
    }
    Ok(if tensors.is_same() { Exit::Success } else { Exit::Different })
}

fn json_of(recorded: &Recorded, found: &Verification, repaired: Option<&(Verification, Repair)>) -> Value {
    let repair = repaired.map(|(before, repair)| {
        json!({
            "before": before.differences.iter().map(difference_json).collect::<Vec<_>>(),
            "taken": repair.taken,
            "repaired": repair.repaired.iter()
                .map(|f| json!({ "path": f.path, "size": f.size, "taken": f.taken }))
                .collect::<Vec<_>>(),
            "failed": repair.failed.iter()
                .map(|(path, why)| json!({ "path": path, "why": why }))
                .collect::<Vec<_>>(),
        })
    });
    json!({
        "manifest": recorded.path.to_string_lossy(),
        "folder": recorded.folder.to_string_lossy(),
        "same": found.is_same(),
        "intact": found.intact,
        "bytes": found.bytes,
        "differences": found.differences.iter().map(difference_json).collect::<Vec<_>>(),
        "repair": repair,
    })
}

fn difference_json(difference: &Difference) -> Value {
    let (recorded, found, why) = match &difference.change {
        Change::Size { recorded, found } => (json!(recorded), json!(found), Value::Null),
        Change::Content { recorded, found, .. } => (json!(hex(recorded)), json!(hex(found)), Value::Null),
        Change::Unreadable(why) => (Value::Null, Value::Null, json!(why)),
        _ => (Value::Null, Value::Null, Value::Null),
    };
    json!({
        "path": difference.path,
        "change": difference.change.as_str(),
        "recorded": recorded,
        "found": found,
        "why": why,
        "tensors": difference.tensors.as_ref().map(tensors_json),
    })
}

fn tensors_json(tensors: &TensorChanges) -> Value {
    json!({
        "intact": tensors.intact,
        "changed": tensors.changed.iter()
            .map(|t| json!({
                "name": t.name, "offset": t.place.map(|p| p.0), "bytes": t.place.map(|p| p.1), "why": t.why,
            }))
            .collect::<Vec<_>>(),
        "missing": tensors.missing,
        "added": tensors.added,
        "unreadable": tensors.unreadable,
    })
}
