//! The engine: files in parallel, and the parts of each from a queue.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use weighbridge_formats::write::Observer;
use weighbridge_formats::{Error, Limits, Result, Source, on_workers, worker_count};

use super::inspectors;
use super::policy::Policy;
use super::report::{FileReport, Place, Report, Verdict};
use super::subject::{Bounds, HEAD, Part, Role, Sink, Subject, finding};
use super::unpack::{Fault, unpack};
use super::walk::{Found, walk};

/// How to scan.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ScanOptions<'a> {
    /// What a format's reader may allocate or do.
    pub limits: Limits,
    /// What one file may cost.
    pub bounds: Bounds,
    /// How many files are looked at side by side; as many as there are processors where it is left open.
    pub threads: Option<usize>,
    /// Told of the bytes of the files as these are done; may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// What a team vouches for, and what it will not have.
    pub policy: Policy,
    /// Opens files that are not looked at by the bytes that they have, such as encrypted ones.
    pub open: Option<Opener<'a>>,
}

/// Opens a file as something else than the bytes that it has; `None` for one that is what it is. What it gives is called
/// by the file's name without `.age`.
pub type Opener<'a> = &'a (dyn Fn(&Path) -> Result<Option<Source>> + Sync);

/// A file's bytes, or what the opener has in their place, with the name that it is known by.
pub(super) fn open(path: &Path, opener: Option<Opener<'_>>) -> Result<(Source, PathBuf)> {
    let inside = match opener {
        Some(opener) => opener(path)?,
        None => None,
    };
    Ok(match inside {
        None => (Source::open(path)?, path.to_owned()),
        Some(source) if path.extension().is_some_and(|e| e == "age") => (source, path.with_extension("")),
        Some(source) => (source, path.to_owned()),
    })
}

/// Looks at files and folders. The policy is applied.
///
/// # Errors
/// `NotFound` or `Io` for a path that cannot be looked at at all, `Cancelled` by the observer. What cannot be read
/// below a folder, or in a file, is a finding.
pub fn scan(paths: &[PathBuf], options: &ScanOptions<'_>) -> Result<Report> {
    let started = Instant::now();
    let mut found = Found::default();
    for path in paths {
        walk(path, &mut found)?;
    }
    found.files.sort();
    found.files.dedup();
    let lengths = found.files.iter().map(|f| std::fs::metadata(f).map_or(0, |m| m.len()));
    let total = lengths.sum();
    if let Some(observer) = options.observer {
        observer.started(total);
    }
    let (next, files) = (AtomicUsize::new(0), &found.files);
    let done: Mutex<Vec<(usize, FileReport)>> = Mutex::default();
    on_workers(worker_count(options.threads).min(files.len().max(1)), || {
        loop {
            if options.observer.is_some_and(Observer::cancelled) {
                return Err(Error::cancelled("the scan was cancelled"));
            }
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = files.get(number) else { return Ok(()) };
            let report = scan_file(path, options);
            if let Some(observer) = options.observer {
                observer.advanced(report.bytes);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, report));
        }
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    let mut report = Report { files: done.into_iter().map(|(_, r)| r).collect(), ..Report::default() };
    for (path, finding) in found.findings {
        let (verdict, findings) = (finding.verdict, vec![finding]);
        report.files.push(FileReport { path, bytes: 0, verdict, kinds: Vec::new(), findings });
    }
    report.files.sort_by(|a, b| a.path.cmp(&b.path));
    report.bytes = report.files.iter().map(|f| f.bytes).sum();
    report.verdict = report.files.iter().map(|f| f.verdict).max().unwrap_or_default();
    options.policy.apply(&mut report);
    report.seconds = started.elapsed().as_secs_f64();
    if let Some(observer) = options.observer {
        observer.finished();
    }
    Ok(report)
}

fn scan_file(path: &Path, options: &ScanOptions<'_>) -> FileReport {
    match open(path, options.open) {
        Ok((source, name)) => look(path, &name, source, options),
        Err(error) => {
            let place = Place { file: path.to_owned(), ..Place::default() };
            let what = format!("it cannot be opened: {error}");
            let findings = vec![finding(&place, "unreadable", Verdict::Unknown, what)];
            FileReport {
                path: path.to_owned(),
                bytes: 0,
                verdict: Verdict::Unknown,
                kinds: Vec::new(),
                findings,
            }
        }
    }
}

/// Looks at one source, whatever it comes from. The name stands for its path, and what it ends in counts where the
/// content does not tell. The policy is applied.
pub fn scan_source(name: &str, source: Source, options: &ScanOptions<'_>) -> FileReport {
    let report = look(Path::new(name), Path::new(name), source, options);
    let mut report = Report { verdict: report.verdict, files: vec![report], ..Report::default() };
    options.policy.apply(&mut report);
    report.files.swap_remove(0)
}

fn look(path: &Path, name: &Path, source: Source, options: &ScanOptions<'_>) -> FileReport {
    let bytes = source.len();
    let place = Place { file: path.to_owned(), ..Place::default() };
    let mut sink = Sink::new(&options.limits, &options.bounds, &options.policy, bytes);
    each_part(path, name, source, &mut sink, |_| true);
    let (findings, kinds) = sink.close(&place);
    let verdict = findings.iter().map(|f| f.verdict).max().unwrap_or_default();
    FileReport { path: path.to_owned(), bytes, verdict, kinds, findings }
}

/// Looks at a source and at everything that it leads to. `visit` sees each part first, and says whether it is looked into.
/// The path is what findings give, and the name what the source is known by.
pub(super) fn each_part(
    path: &Path,
    name: &Path,
    source: Source,
    sink: &mut Sink<'_>,
    mut visit: impl FnMut(&Subject<'_>) -> bool,
) {
    let place = Place { file: path.to_owned(), ..Place::default() };
    let name = name.to_string_lossy().into_owned();
    // The last that was found is looked at first: what a container holds is unpacked, looked at and let go before the
    // next of its members, so that only one of each depth is in memory.
    let mut waiting = vec![Part { name, source, place, role: Role::Anything, packing: None }];
    while let Some(part) = waiting.pop() {
        let Some(part) = unpacked(part, sink) else { continue };
        let mut head = vec![0; part.source.len().min(HEAD) as usize];
        let read = part.source.reader().read_at(0, &mut head);
        let (source, name, place, role) = (&part.source, part.name.as_str(), &part.place, part.role);
        if let Err(error) = read {
            let what = format!("it cannot be read: {}", error.message());
            sink.finding(finding(place, "unreadable", Verdict::Unknown, what));
            head.clear();
        }
        let subject = Subject { source, name, place, head: &head, role };
        if sink.work_left() == 0 {
            sink.stopped(place);
            break;
        }
        if visit(&subject) {
            inspectors::inspect(&subject, sink);
            waiting.extend(sink.take_pending().into_iter().rev());
        }
    }
}

/// The work of unpacking a byte twice, by the slower of the packings.
const UNPACKED: u64 = 4;

/// A part with its bytes unpacked, as far as they can be; what stands in the way is a finding, unless the part is a guess
/// that turns out to be wrong.
fn unpacked(mut part: Part, sink: &mut Sink<'_>) -> Option<Part> {
    let Some(packing) = part.packing.take() else { return Some(part) };
    let result = unpack(&part.source, packing, &sink.allowance, sink.keep);
    // It is unpacked once to know its length, and once more to be looked at.
    sink.worked_in_bulk(result.source.len().saturating_mul(UNPACKED));
    let guess = part.role == Role::Guess;
    match result.fault {
        Some(Fault::Broken(_)) if guess && result.source.len() == 0 => return None,
        Some(Fault::Broken(why)) if !guess => {
            let name = packing.name();
            let what =
                format!("the {name} stream is broken after {} unpacked bytes: {why}", result.source.len());
            sink.finding(finding(&part.place, "archive-unread", Verdict::Unknown, what));
        }
        Some(Fault::Bomb) => {
            let (bytes, most) = (part.source.len(), sink.bounds.unpacked);
            let what = format!(
                "{bytes} bytes unpack to {} and more: all of the file's parts together may take {most} and {} for each \
                 of its own",
                result.source.len(),
                sink.bounds.unpacked_per_byte
            );
            sink.finding(finding(&part.place, "zip-bomb", Verdict::Unknown, what));
        }
        _ => {}
    }
    part.source = result.source;
    Some(part)
}
