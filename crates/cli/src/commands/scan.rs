//! `weighbridge scan`: what a file would do if something loaded it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use weighbridge::trust::encrypt::{Encrypted, Identities, is_encrypted};
use weighbridge::trust::scan::{
    self, FileReport, Finding, Opener, Policy, Report, RescueOptions, Rescued, ScanOptions, Severity, Verdict,
};
use weighbridge::write::{ExecuteOptions, FilePlan, WritePlan, execute};
use weighbridge::{Error, Result, Source};

use super::keys::Keys;
use crate::exit::Exit;
use crate::output::{self, count, one_line, shortened, size};
use crate::progress::Progress;

/// The longest arguments that are shown in a terminal, in characters.
const LONGEST: usize = 160;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge scan pytorch_model.bin
  weighbridge scan models/ --policy scan.toml
  weighbridge scan downloads/ --json | jq '.findings[] | {file, callable}'
  weighbridge scan . --sarif scan.sarif --fail-at high
  weighbridge scan suspicious.bin --rescue tensors.safetensors
  weighbridge scan bert-base.age -i key.txt

Exit codes: 0 clean, 1 dangerous, 2 unknown only, 3 error.
Nothing that is scanned is run: what a file would construct is decided by reading it.")]
pub(crate) struct Args {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a SARIF 2.1 log to a file, or with `-` to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    sarif: Option<PathBuf>,
    /// What is allowed and refused by name, and the severity at which the scan fails (TOML)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Fail from this severity on; what is below is reported only
    #[arg(long, value_name = "SEVERITY", value_enum)]
    fail_at: Option<Level>,
    /// Write the tensors of the file or folder, and nothing else of it, to a safetensors file
    #[arg(long, value_name = "OUT")]
    rescue: Option<PathBuf>,
    /// Let --rescue and --sarif replace files that exist
    #[arg(long, alias = "overwrite")]
    force: bool,
    /// List clean files too, and shorten nothing
    #[arg(long)]
    all: bool,
    /// Files that are scanned at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Colours
    #[arg(long, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    color: When,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Level {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
            Level::Critical => Self::Critical,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut policy = args.policy.as_ref().map(Policy::open).transpose()?.unwrap_or_default();
    if let Some(level) = args.fail_at {
        policy = policy.failing_at(level.into());
    }
    if args.rescue.is_some() && args.paths.len() != 1 {
        return Err(Error::invalid_options("--rescue takes one file or folder")
            .with_hint("scan the others first, then rescue what matters one by one"));
    }
    let progress = Progress::new(args.quiet || args.json);
    let mut options = ScanOptions::default();
    options.limits = crate::limits::limits();
    options.policy = policy;
    options.threads = args.threads.map(usize::from);
    options.observer = Some(&progress);
    let identities = args.keys.given()?;
    let decrypted = |path: &Path| decrypted(path, identities.as_ref());
    options.open = Some(&decrypted);
    let report = scan::scan(&args.paths, &options)?;
    let verdict = options.policy.outcome(&report);
    drop(progress);
    let rescued =
        args.rescue.as_ref().map(|out| rescue(&args.paths[0], out, args, &decrypted, identities.is_some()));
    match &args.sarif {
        Some(path) if path == Path::new("-") => {
            output::emit(format!("{:#}\n", report.to_sarif()).as_bytes())?;
        }
        Some(path) => write_log(path, &report, args.force)?,
        None => {}
    }
    if args.json {
        let mut json = report.to_json();
        if let Some(Ok(rescued)) = &rescued {
            json["rescued"] = rescued_json(rescued);
        }
        output::emit(format!("{json}\n").as_bytes())?;
    } else if args.sarif.as_deref() != Some(Path::new("-")) {
        let mut text = text(&report, args);
        if let Some(Ok(rescued)) = &rescued {
            push_rescued(&mut text, rescued);
        }
        output::emit(text.as_bytes())?;
    }
    // The report comes first, whatever became of the tensors.
    rescued.transpose()?;
    Ok(match verdict {
        Verdict::Clean => Exit::Success,
        Verdict::Unknown => Exit::Unknown,
        Verdict::Dangerous => Exit::Dangerous,
    })
}

/// What is inside an encrypted file, for whoever has its key. Without one, the file is looked at as it is.
fn decrypted(path: &Path, identities: Option<&Identities>) -> Result<Option<Source>> {
    match identities {
        Some(identities) if is_encrypted(path)? => {
            Ok(Some(Source::from_reader(Encrypted::open(path, identities)?.reader())))
        }
        _ => Ok(None),
    }
}

fn rescue(path: &Path, out: &Path, args: &Args, open: Opener<'_>, secret: bool) -> Result<Rescued> {
    let progress = Progress::new(args.quiet || args.json);
    let mut options = RescueOptions::default();
    options.limits = crate::limits::limits();
    options.overwrite = args.force;
    options.observer = Some(&progress);
    options.open = Some(open);
    // What was secret is written for its owner alone.
    options.mode = secret.then_some(0o600);
    scan::rescue(path, out, &options)
}

fn rescued_json(rescued: &Rescued) -> serde_json::Value {
    serde_json::json!({
        "tensors": rescued.tensors,
        "bytes": rescued.bytes,
        "files": rescued.files.iter()
            .map(|(path, bytes)| serde_json::json!({ "path": path.to_string_lossy(), "bytes": bytes }))
            .collect::<serde_json::Value>(),
        "parts": rescued.parts,
        "doubts": listed(&rescued.doubts),
        "lost": listed(&rescued.lost),
    })
}

fn listed(said: &[(String, String)]) -> serde_json::Value {
    said.iter().map(|(name, why)| serde_json::json!({ "name": name, "why": why })).collect()
}

fn push_rescued(out: &mut String, rescued: &Rescued) {
    for (path, bytes) in &rescued.files {
        let path = path.to_string_lossy();
        let _ = writeln!(
            out,
            "rescued {}, {}: {} ({})",
            count(rescued.tensors, "tensor"),
            size(rescued.bytes),
            one_line(&path),
            size(*bytes)
        );
    }
    for (name, why) in &rescued.doubts {
        let _ = writeln!(out, "doubtful {}: {}", one_line(name), one_line(why));
    }
    for (name, why) in &rescued.lost {
        let _ = writeln!(out, "lost    {}: {}", one_line(name), one_line(why));
    }
}

/// A log appears complete or not at all, as everything that is written.
fn write_log(path: &Path, report: &Report, overwrite: bool) -> Result<()> {
    let name =
        path.file_name().ok_or_else(|| Error::invalid_options("--sarif takes a file").with_path(path))?;
    let mut file = FilePlan::new(name.to_string_lossy());
    file.push_fixed(format!("{:#}\n", report.to_sarif()).into_bytes())?;
    let mut options = ExecuteOptions::default();
    options.overwrite = overwrite;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    execute(WritePlan { files: vec![file], notes: Vec::new() }, folder, &options)?;
    Ok(())
}

fn text(report: &Report, args: &Args) -> String {
    let paint = Paint::new(args.color);
    let mut out = String::new();
    for file in &report.files {
        if args.all || !file.findings.is_empty() {
            push_file(&mut out, file, args, paint);
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let of = |verdict| report.files.iter().filter(|f| f.verdict == verdict).count();
    let each = [Verdict::Dangerous, Verdict::Unknown, Verdict::Clean]
        .into_iter()
        .filter(|&v| of(v) > 0)
        .map(|v| paint.verdict(v, &format!("{} {}", of(v), word(v))))
        .collect::<Vec<_>>()
        .join(", ");
    let speed = (report.bytes as f64 / report.seconds.max(1e-9)) as u64;
    let files = count(report.files.len() as u64, "file");
    let _ = writeln!(
        out,
        "{files}, {} in {:.2} s ({}/s): {}",
        size(report.bytes),
        report.seconds,
        size(speed),
        if each.is_empty() { "nothing to scan" } else { &each },
    );
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "clean",
        Verdict::Unknown => "unknown",
        Verdict::Dangerous => "dangerous",
    }
}

fn push_file(out: &mut String, file: &FileReport, args: &Args, paint: Paint) {
    let verdict = paint.verdict(file.verdict, &format!("{:<9}", word(file.verdict)));
    let path = file.path.to_string_lossy();
    let kinds = if file.kinds.is_empty() { String::new() } else { format!("{}; ", file.kinds.join(", ")) };
    let _ = writeln!(out, "{verdict}  {} ({kinds}{})", one_line(&path), size(file.bytes));
    // The worst first, and what is alike said once.
    let mut findings: Vec<&Finding> = file.findings.iter().collect();
    findings.sort_by_key(|f| std::cmp::Reverse((f.verdict, f.severity)));
    let most = if args.all || !output::for_people() { usize::MAX } else { 20 };
    let mut told: Vec<(&str, &str, &str)> = Vec::new();
    for finding in findings.iter().take(most) {
        let first = !told.contains(&(finding.rule, &finding.why, &finding.fix));
        told.push((finding.rule, &finding.why, &finding.fix));
        push_finding(out, finding, first, args.all, paint);
    }
    if findings.len() > most {
        let _ = writeln!(out, "  … and {} more (--all, --json)", findings.len() - most);
    }
}

fn push_finding(out: &mut String, finding: &Finding, first: bool, all: bool, paint: Paint) {
    let severity = match finding.severity {
        Severity::Info => "info",
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    };
    let mut place = finding.place.members.join(" / ");
    if let Some(offset) = finding.place.offset {
        let _ = write!(place, "{}byte {offset}", if place.is_empty() { "" } else { ", " });
    }
    if let Some(opcode) = finding.opcode {
        let _ = write!(place, "{}{opcode}", if place.is_empty() { "" } else { ", " });
    }
    let severity = paint.verdict(finding.verdict, &format!("{severity:<9}"));
    let _ = writeln!(out, "  {severity}{}  [{}]", one_line(&finding.what), finding.rule);
    let indent = " ".repeat(11);
    if !place.is_empty() {
        let _ = writeln!(out, "{indent}at {}", one_line(&place));
    }
    if let (Some(callable), Some(arguments)) = (&finding.callable, &finding.arguments) {
        let longest = if all { usize::MAX } else { LONGEST };
        // A tuple of one ends in a comma, which a call has not.
        let call = match arguments.strip_suffix(",)") {
            Some(one) => format!("{callable}{one})"),
            None => format!("{callable}{arguments}"),
        };
        let call = shortened(&call, longest);
        let _ = writeln!(out, "{indent}{}", paint.bold(&call));
    }
    if first {
        for line in [&finding.why, &finding.fix].into_iter().filter(|l| !l.is_empty()) {
            let _ = writeln!(out, "{indent}{}", paint.faint(&one_line(line)));
        }
    }
}

/// Colours where they are seen and wanted: in a terminal, unless NO_COLOR is set.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn new(when: When) -> Self {
        Self(match when {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                std::io::stdout().is_terminal() && !unwanted
            }
        })
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn verdict(self, verdict: Verdict, text: &str) -> String {
        self.with(
            match verdict {
                Verdict::Clean => "32",
                Verdict::Unknown => "33",
                Verdict::Dangerous => "1;31",
            },
            text,
        )
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }
}
