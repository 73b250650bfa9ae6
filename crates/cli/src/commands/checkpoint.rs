//! `weighbridge checkpoint`: the checkpoints of a training, listed, shown, verified, pruned, and the one to resume.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use weighbridge::checkpoint::{
    Checkpoint, Found, Goal, OptimizerView, Retention, Skipped, list, prune, resume,
};
use weighbridge::{Archive, Error, Result};

use crate::exit::Exit;
use crate::limits::read_options;
use crate::output::{self, count, grouped, one_line, shortened, size};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge checkpoint list runs/mlp
  weighbridge checkpoint show runs/mlp/checkpoint_epoch10_step1000
  weighbridge checkpoint verify runs/mlp
  weighbridge checkpoint prune runs/mlp --keep-last 3 --keep-best loss:min:2 --dry-run
  python train.py --from \"$(weighbridge checkpoint resume runs/mlp)\"

Folders of weighbridge and of transformers' Trainer are found, and torch files with model and optimizer, Lightning's \
.ckpt among them.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the checkpoints of a folder, the oldest first, with what is wrong with those that are not complete
    List(Folder),
    /// Show what one checkpoint holds; reads headers and small states only
    Show(Folder),
    /// Delete the checkpoints that no rule keeps; never the newest that verifies
    Prune(Prune),
    /// Print the path of the newest checkpoint that verifies, and which newer ones were skipped and why
    Resume(Folder),
    /// Read every byte of one checkpoint, or of all in a folder, and check it
    Verify(Folder),
}

#[derive(clap::Args)]
struct Folder {
    /// A folder of checkpoints; for `show` and `verify` also one checkpoint
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Prune {
    /// The folder of checkpoints
    path: PathBuf,
    /// Keep the newest K
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    keep_last: Option<u64>,
    /// Keep the best K by a metric, where smaller or larger is better; may be given several times
    #[arg(long, value_name = "METRIC:min|max[:K]", value_parser = parse_best)]
    keep_best: Vec<Best>,
    /// Keep one of every M saves
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..))]
    keep_every: Option<u64>,
    /// Delete nothing, and say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A rule of `--keep-best`.
type Best = (String, Goal, usize);

/// Reads `loss:min:2`; without the count it is 1.
fn parse_best(text: &str) -> std::result::Result<Best, String> {
    let wrong = || format!("{text:?} is no rule: METRIC:min or METRIC:max, with :K after it for the best K");
    let (rest, count) = match text.rsplit_once(':') {
        Some((rest, last)) if last != "min" && last != "max" => {
            (rest, last.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(wrong)?)
        }
        _ => (text, 1),
    };
    let (metric, goal) = match rest.rsplit_once(':') {
        Some((metric, "min")) => (metric, Goal::Min),
        Some((metric, "max")) => (metric, Goal::Max),
        _ => return Err(wrong()),
    };
    if metric.is_empty() { Err(wrong()) } else { Ok((metric.to_owned(), goal, count)) }
}

impl Args {
    /// Whether the output is for a program.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::List(a) | Command::Show(a) | Command::Resume(a) | Command::Verify(a) => a.json,
            Command::Prune(a) => a.json,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    match &args.command {
        Command::List(args) => run_list(args),
        Command::Show(args) => run_show(args),
        Command::Prune(args) => run_prune(args),
        Command::Resume(args) => run_resume(args),
        Command::Verify(args) => run_verify(args),
    }
}

fn emit_json(json: &Json) -> Result<()> {
    output::emit(format!("{json}\n").as_bytes())
}

/// A metric as JSON, which has no NaN and no infinity: those are text.
fn number(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

fn metrics_json(metrics: &[(String, f64)]) -> Json {
    metrics.iter().map(|(name, x)| (name.clone(), number(*x))).collect::<serde_json::Map<_, _>>().into()
}

fn metrics_text(metrics: &[(String, f64)]) -> String {
    let each: Vec<_> = metrics.iter().map(|(name, x)| format!("{}={x}", one_line(name))).collect();
    each.join(" ")
}

fn or_dash<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

fn run_list(args: &Folder) -> Result<Exit> {
    let found = list(&args.path, &read_options())?;
    if args.json {
        let rows: Json = found
            .iter()
            .map(|f| {
                json!({
                    "name": f.name(),
                    "path": f.path.to_string_lossy(),
                    "kind": f.kind.as_str(),
                    "number": f.number,
                    "step": f.step,
                    "epoch": f.epoch,
                    "metrics": metrics_json(&f.metrics),
                    "bytes": f.bytes,
                    "complete": f.damage.is_none(),
                    "reason": f.damage,
                })
            })
            .collect();
        emit_json(&rows)?;
        return Ok(Exit::Success);
    }
    let mut rows = vec![["name", "kind", "step", "epoch", "size", "state", "metrics"].map(str::to_owned)];
    rows.extend(found.iter().map(row));
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    if found.is_empty() {
        out = format!("no checkpoint is in {}\n", args.path.display());
    }
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

fn row(f: &Found) -> [String; 7] {
    let state = match &f.damage {
        None => "complete".into(),
        Some(why) => format!("NOT COMPLETE: {}", shortened(why, 120)),
    };
    [
        one_line(&f.name()).into_owned(),
        f.kind.as_str().into(),
        or_dash(f.step),
        or_dash(f.epoch),
        size(f.bytes),
        state,
        shortened(&metrics_text(&f.metrics), 120),
    ]
}

/// What of an archive is told: tensors, parameters, bytes.
fn archive_json(archive: &dyn Archive) -> Json {
    json!({
        "format": archive.format(),
        "tensors": archive.tensors().len(),
        "parameters": archive.parameters(),
        "bytes": archive.bytes(),
    })
}

fn run_show(args: &Folder) -> Result<Exit> {
    let checkpoint = Checkpoint::open(&args.path)?;
    let (weights, optimizer) = (checkpoint.weights()?, checkpoint.optimizer()?);
    // An optimizer that is not of torch's form is no error.
    let view = optimizer.as_deref().and_then(|o| OptimizerView::new(o).ok());
    let (scheduler, random) = (checkpoint.scheduler()?, checkpoint.random()?);
    let (extra, log) = (checkpoint.extra()?, checkpoint.log()?);
    let files = checkpoint.files()?;
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes: u64 = files.iter().map(|(_, len)| len).sum();
    if args.json {
        let mut optimizer = optimizer.as_deref().map(archive_json);
        if let (Some(Json::Object(map)), Some(view)) = (&mut optimizer, &view) {
            map.insert("groups".into(), view.groups.clone().into());
            map.insert("params".into(), view.params.len().into());
        }
        emit_json(&json!({
            "path": checkpoint.path().to_string_lossy(),
            "kind": checkpoint.kind().as_str(),
            "number": checkpoint.manifest().map(|m| m.number),
            "created": checkpoint.manifest().map(|m| m.created),
            "step": checkpoint.step(),
            "epoch": checkpoint.epoch(),
            "metrics": metrics_json(checkpoint.metrics()),
            "bytes": bytes,
            "files": files.iter().map(|(p, len)| json!({"name": name(p), "bytes": len})).collect::<Json>(),
            "weights": archive_json(&*weights),
            "optimizer": optimizer,
            "scheduler": scheduler,
            "random": random.is_some(),
            "extra": extra.as_ref().and_then(Json::as_object).map(|m| m.keys().cloned().collect::<Vec<_>>()),
            "log_lines": log.as_ref().map(|l| lines(l)),
        }))?;
        return Ok(Exit::Success);
    }
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "{key:<11} {value}");
    };
    line("path", one_line(&checkpoint.path().to_string_lossy()).into_owned());
    line("kind", checkpoint.kind().as_str().into());
    line("step", or_dash(checkpoint.step()));
    line("epoch", or_dash(checkpoint.epoch()));
    if !checkpoint.metrics().is_empty() {
        line("metrics", shortened(&metrics_text(checkpoint.metrics()), 400));
    }
    let told = |a: &dyn Archive| {
        let tensors = count(a.tensors().len() as u64, "tensor");
        format!("{tensors}, {}, {}", count(a.parameters(), "number"), size(a.bytes()))
    };
    line("weights", told(&*weights));
    if let Some(optimizer) = &optimizer {
        line("optimizer", told(&**optimizer));
    }
    for (i, group) in view.iter().flat_map(|v| &v.groups).take(32).enumerate() {
        let options = group.as_object().into_iter().flatten();
        let plain = options.filter(|(k, v)| !v.is_null() && *k != "params" && *k != "param_names");
        let options: Vec<_> = plain.map(|(k, v)| format!("{k}={v}")).collect();
        let params = group["params"].as_array().map_or(0, Vec::len);
        line(
            &format!("  group {i}"),
            format!("{}, {}", count(params as u64, "parameter"), shortened(&options.join(" "), 300)),
        );
    }
    if let Some(scheduler) = &scheduler {
        line("scheduler", shortened(&scheduler.to_string(), 300));
    }
    if random.is_some() {
        line("random", "kept".into());
    }
    if let Some(extra) = extra.as_ref().and_then(Json::as_object) {
        line("extra", shortened(&extra.keys().cloned().collect::<Vec<_>>().join(" "), 300));
    }
    if let Some(log) = &log {
        let text = String::from_utf8_lossy(log);
        let last = text.lines().last().unwrap_or_default();
        line("log", format!("{}, the last: {}", count(lines(log) as u64, "line"), shortened(last, 200)));
    }
    line("files", format!("{}, {}", grouped(files.len() as u64), size(bytes)));
    for (path, len) in files.iter().take(64) {
        let _ = writeln!(out, "  {}  {}", one_line(&name(path)), grouped(*len));
    }
    if files.len() > 64 {
        let _ = writeln!(out, "  … {} more", grouped(files.len() as u64 - 64));
    }
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

fn lines(log: &[u8]) -> usize {
    log.iter().filter(|b| **b == b'\n').count()
}

fn skipped_json(skipped: &[Skipped]) -> Json {
    skipped.iter().map(|s| json!({"path": s.path.to_string_lossy(), "reason": s.reason})).collect()
}

fn push_skipped(skipped: &[Skipped]) -> String {
    skipped.iter().fold(String::new(), |mut out, s| {
        let _ = writeln!(out, "skipped {}: {}", one_line(&s.path.to_string_lossy()), one_line(&s.reason));
        out
    })
}

fn run_resume(args: &Folder) -> Result<Exit> {
    let found = resume(&args.path, &read_options())?;
    let exit = if found.checkpoint.is_some() { Exit::Success } else { Exit::Different };
    if args.json {
        let checkpoint = found.checkpoint.as_ref();
        emit_json(&json!({
            "path": checkpoint.map(|c| c.path().to_string_lossy().into_owned()),
            "kind": checkpoint.map(|c| c.kind().as_str()),
            "step": checkpoint.and_then(Checkpoint::step),
            "epoch": checkpoint.and_then(Checkpoint::epoch),
            "skipped": skipped_json(&found.skipped),
        }))?;
        return Ok(exit);
    }
    // The path alone goes to standard output, for a script to take.
    let mut told = push_skipped(&found.skipped);
    match &found.checkpoint {
        Some(c) => output::emit(format!("{}\n", c.path().display()).as_bytes())?,
        None => {
            let _ = writeln!(told, "no checkpoint in {} verifies", args.path.display());
        }
    }
    eprint!("{told}");
    Ok(exit)
}

fn run_verify(args: &Folder) -> Result<Exit> {
    let all: Vec<PathBuf> = match Checkpoint::open(&args.path) {
        Ok(one) => vec![one.path().to_owned()],
        Err(e) => {
            let found = if args.path.is_dir() { list(&args.path, &read_options())? } else { Vec::new() };
            if found.is_empty() || args.path.join("checkpoint.json").exists() {
                // One checkpoint that is damaged is a finding; anything else that cannot be opened is an error.
                if !args.path.join("checkpoint.json").exists() {
                    return Err(e);
                }
                vec![args.path.clone()]
            } else {
                found.into_iter().map(|f| f.path).collect()
            }
        }
    };
    let verify = |path: &PathBuf| Checkpoint::open(path).and_then(|c| c.verify()).err();
    let results: Vec<(PathBuf, Option<Error>)> = all.into_iter().map(|p| (p.clone(), verify(&p))).collect();
    let damaged = results.iter().filter(|(_, e)| e.is_some()).count();
    let exit = if damaged == 0 { Exit::Success } else { Exit::Different };
    if args.json {
        let rows: Json = results
            .iter()
            .map(|(path, error)| {
                json!({
                    "path": path.to_string_lossy(),
                    "verified": error.is_none(),
                    "reason": error.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        emit_json(&rows)?;
        return Ok(exit);
    }
    let mut out = String::new();
    for (path, error) in &results {
        let path = path.to_string_lossy();
        let _ = match error {
            None => writeln!(out, "verified {}", one_line(&path)),
            Some(e) => writeln!(out, "DAMAGED  {}: {}", one_line(&path), one_line(&e.to_string())),
        };
    }
    let whole = count((results.len() - damaged) as u64, "checkpoint");
    let _ = writeln!(out, "{whole} verified, {damaged} damaged");
    output::emit(out.as_bytes())?;
    Ok(exit)
}

fn run_prune(args: &Prune) -> Result<Exit> {
    let rules = Retention {
        last: args.keep_last.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        best: args.keep_best.clone(),
        every: args.keep_every,
    };
    if rules.keeps_all() {
        return Err(Error::invalid_options("no rule says what to keep")
            .with_hint("give --keep-last, --keep-best or --keep-every"));
    }
    let done = prune(&args.path, &rules, args.dry_run)?;
    if args.json {
        emit_json(&json!({
            "dry_run": args.dry_run,
            "kept": done.kept.iter()
                .map(|(path, why)| json!({"path": path.to_string_lossy(), "why": why}))
                .collect::<Json>(),
            "deleted": done.deleted.iter().map(|p| p.to_string_lossy()).collect::<Json>(),
            "skipped": skipped_json(&done.skipped),
            "cleaned": done.cleaned.iter().map(|p| p.to_string_lossy()).collect::<Json>(),
        }))?;
        return Ok(Exit::Success);
    }
    let mut out = String::new();
    for path in &done.cleaned {
        let _ = writeln!(out, "removed an unfinished one, {}", one_line(&path.to_string_lossy()));
    }
    for (path, why) in &done.kept {
        let _ = writeln!(out, "keep    {}: {}", one_line(&path.to_string_lossy()), one_line(why));
    }
    let word = if args.dry_run { "would delete" } else { "deleted" };
    for path in &done.deleted {
        let _ = writeln!(out, "{word} {}", one_line(&path.to_string_lossy()));
    }
    let _ = writeln!(
        out,
        "{} kept, {} {}",
        grouped(done.kept.len() as u64),
        grouped(done.deleted.len() as u64),
        if args.dry_run { "would be deleted" } else { "deleted" }
    );
    output::emit(out.as_bytes())?;
    eprint!("{}", push_skipped(&done.skipped));
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_best_are_read() {
        assert_eq!(parse_best("loss:min"), Ok(("loss".into(), Goal::Min, 1)));
        assert_eq!(parse_best("eval/acc:top5:max:3"), Ok(("eval/acc:top5".into(), Goal::Max, 3)));
        for bad in ["", "loss", "loss:least", "loss:min:0", "loss:min:x", ":min", "loss:2"] {
            assert!(parse_best(bad).is_err(), "{bad:?}");
        }
    }
}
