//! Adding a version: staged aside, put in place by one rename, and finished by whoever comes next if this process is
//! killed.
//!
//! 1. The model's folder is locked, and what a killed process left is finished or removed ([`recover`]).
//! 2. The files are copied (or linked) into a folder with a temporary name; the copy is compared with the version
//!    before it, so that what is recorded is what is kept.
//! 3. What is to be done after the rename is written into a journal, `.adding.json`.
//! 4. The staged folder is renamed to `v1.2.0`. From here on the version is there.
//! 5. The changelog, `latest` and the aliases are written, each replaced by a rename, and the journal is removed.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};
use weighbridge_formats::write::{ExecuteOptions, FilePlan, Observer, WritePlan, execute, uninterrupted};
use weighbridge_formats::{Data, Error, ErrorKind, Note, Result};

use crate::card::{CardOptions, CardVersion};
use crate::diff::{ModelDiff, Weights};
use crate::folder::{ModelFolder, canonical, read_if_there};
use crate::lock::{Lock, remove_temporaries, sync_folder};
use crate::models::{VersionedModel, entries};
use crate::names::check_alias;
use crate::record::{VersionRecord, write_file};
use crate::version::{Bump, Selector, Version, folder_name};
use crate::{card, changelog, draft, time};

/// What is still to be done for a version that is in place.
const JOURNAL: &str = ".adding.json";
/// The longest journal: it holds one entry of a changelog.
const JOURNAL_BYTES: u64 = 64 << 20;
/// The longest text that a person may give a version.
const NOTES_BYTES: usize = 256 << 10;
/// Files that are open at a time.
const BATCH: usize = 64;

/// Which version a new one becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The one that the folder carries, if the registry does not have it yet; else what the changes since the latest
    /// version suggest; 1.0.0 for the first.
    #[default]
    Suggested,
    /// The latest with this part of it one higher.
    Bump(Bump),
    /// This one.
    Exact(Version),
}

/// Choices for adding a version.
#[derive(Clone)]
#[non_exhaustive]
pub struct AddOptions<'a> {
    /// Which version it becomes.
    pub version: Choice,
    /// Aliases that are to name it.
    pub aliases: Vec<String>,
    /// What is said of it, at the head of its changelog entry.
    pub notes: Option<String>,
    /// Files are hard links to the source's and no copies. It takes no room and no time, and whoever changes such a
    /// file in place changes the version: for sources that are replaced and never written to.
    pub hard_links: bool,
    /// A model card is written into the version, with these choices.
    pub card: Option<CardOptions>,
    /// Links of the source may lead out of its folder.
    pub follow_links: bool,
    /// Wait until everything is on the disk. Default: yes.
    pub fsync: bool,
    /// When the version is added; `None` is now.
    pub time: Option<SystemTime>,
    /// Who is told of progress (bytes copied) and may cancel.
    pub observer: Option<&'a dyn Observer>,
}

impl Default for AddOptions<'_> {
    fn default() -> Self {
        Self {
            version: Choice::Suggested,
            aliases: Vec::new(),
            notes: None,
            hard_links: false,
            card: None,
            follow_links: false,
            fsync: true,
            time: None,
            observer: None,
        }
    }
}

/// What was added.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Added {
    /// The version.
    pub version: Version,
    /// The version it was compared with; `None` for the first.
    pub previous: Option<Version>,
    /// Its folder.
    pub folder: PathBuf,
    /// What changed; `None` for the first version, and where the one before cannot be read.
    pub diff: Option<ModelDiff>,
    /// The drafted entry of the changelog, without its heading.
    pub entry: String,
    /// What is written of the version.
    pub record: VersionRecord,
    /// What else is to be said.
    pub notes: Vec<Note>,
}

/// The moments of an addition at which a test stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Copied,
    Compared,
    Staged,
    Journalled,
    Renamed,
    Changelog,
    Latest,
    Aliases,
}

type Hook<'h> = &'h mut dyn FnMut(Step) -> Result<()>;

impl VersionedModel {
    /// Adds the model of a folder as a new version. The folder stays as it is.
    ///
    /// # Errors
    /// `InvalidOptions` if the version is there already, if nothing changed and no version was asked for, and for
    /// names that cannot be; `UnsafeContent` for links that lead out of the folder; what is wrong with the model's
    /// files; `Cancelled` if the observer said so. Nothing is added then. After an error whose message says that the
    /// version is in place, the next change of the model finishes what is left.
    pub fn add(&self, source: &Path, options: &AddOptions<'_>) -> Result<Added> {
        add(self, source, options, &mut |_| Ok(()))
    }
}

pub(crate) fn add(
    model: &VersionedModel,
    source: &Path,
    options: &AddOptions<'_>,
    hook: Hook<'_>,
) -> Result<Added> {
    for alias in &options.aliases {
        check_alias(alias)?;
    }
    if let Some(notes) = &options.notes {
        if notes.len() > NOTES_BYTES {
            let what = format!("the notes have {} bytes, and {NOTES_BYTES} are allowed", notes.len());
            return Err(Error::invalid_options(what));
        }
        changelog::check_body(notes)?;
    }
    let files = ModelFolder::scan(source, options.follow_links)?;
    if files.files.iter().all(|f| f.name == crate::RECORD) {
        return Err(Error::not_found("the folder has no file that could be of a model").with_path(source));
    }
    make_folder(model, source)?;
    let lock = Lock::acquire(&model.folder, options.observer)?;
    let mut notes: Vec<_> = recover(model, &lock, options.fsync)?.into_iter().collect();
    notes.extend(files.skipped_note());

    for (name, path) in entries(&model.folder)? {
        if name != changelog::CHANGELOG && name.to_lowercase() == changelog::CHANGELOG.to_lowercase() {
            let what = format!(
                "the file is called {name:?}, and {:?} is what is read and written",
                changelog::CHANGELOG
            );
            return Err(Error::invalid_options(what).with_path(path).with_hint("rename the file"));
        }
    }
    let there = model.versions()?;
    let exact = exact(model, source, options, &there)?;
    let previous = match &exact {
        Some(version) => there.iter().filter(|v| *v < version).max().cloned(),
        None => Selector::Latest.choose(there.iter()).cloned(),
    };

    let mut stage = Stage::new(&model.folder)?;
    copy(&files, &stage.path, options)?;
    stage.step(hook, Step::Copied)?;
    let staged = ModelFolder::scan(&stage.path, false)?;
    let weights = Weights::open(&staged).map_err(|e| in_source(e, &stage.path, source))?;
    let diff = match &previous {
        Some(previous) => compare(model, previous, &staged, options, &mut notes)?,
        None => None,
    };
    stage.step(hook, Step::Compared)?;

    let bump = diff.as_ref().and_then(ModelDiff::bump);
    let version = match (exact, &previous, &options.version) {
        (Some(version), ..) => version,
        (None, None, _) => Version::new(1, 0, 0),
        (None, Some(previous), Choice::Bump(bump)) => bump.after(previous)?,
        (None, Some(previous), _) => {
            // A version before this one that cannot be compared may have been anything.
            let bump = if diff.is_some() { bump } else { Some(Bump::Major) };
            bump.ok_or_else(|| unchanged(previous))?.suggested_after(previous)?
        }
    };
    check_free(model, &version)?;

    let parameters = weights.absent.is_none().then(|| weights.parameters());
    let drafted = match (&diff, &previous) {
        (Some(diff), Some(previous)) => draft::of_change(diff, previous, bump),
        (None, Some(previous)) => format!("Not compared with {previous}, which cannot be read.\n"),
        _ => draft::of_first(parameters, weights.tensors(), staged.files.len() as u64, staged.bytes()),
    };
    let entry = match &options.notes {
        Some(text) => format!("{}\n\n{drafted}", text.trim()),
        None => drafted,
    };
    let created = time::timestamp(options.time.unwrap_or_else(SystemTime::now));
    let record = VersionRecord {
        name: Some(model.name.clone()),
        version: version.clone(),
        previous: previous.clone(),
        created: Some(created.clone()),
        notes: options.notes.clone(),
        parameters,
        files: Some(staged.files.len() as u64),
        bytes: Some(staged.bytes()),
    };
    drop(weights);
    if let Some(choices) = &options.card {
        let of = CardVersion { name: &model.name, version: &version, changes: Some(&entry) };
        let made = card::of_folder(&staged, choices, Some(of))?;
        notes.extend(made.notes.iter().cloned());
        if made.changed() {
            write_file(&stage.path, card::README, made.text, options.fsync)?;
        }
    }
    record.write_with(&stage.path, options.fsync)?;
    if options.fsync {
        sync_folder(&stage.path)?;
    }
    stage.step(hook, Step::Staged)?;

    let date = created.get(..10).unwrap_or_default().to_owned();
    let journal =
        Journal { version: version.clone(), date, entry: entry.clone(), aliases: options.aliases.clone() };
    // What the changelog has to say against an entry is to be heard before anything is in place.
    changelog::read(&model.folder)?;
    journal.write(model, options.fsync)?;
    stage.step(hook, Step::Journalled)?;
    stage.place(&model.folder_of(&version)).inspect_err(|_| {
        // Without the version there is nothing to finish; a journal that stays is found to be so by the next.
        let _ = uninterrupted(|| fs::remove_file(model.folder.join(JOURNAL)));
    })?;
    if options.fsync {
        sync_folder(&model.folder)?;
    }
    hook(Step::Renamed)?;
    let finished = journal.finish(model, options.fsync, hook);
    notes.extend(finished.map_err(|e| {
        let hint = format!(
            "version {version} is in place; the next change of the model finishes its changelog and aliases"
        );
        e.with_better_hint(hint)
    })?);
    let folder = model.folder_of(&version);
    Ok(Added { version, previous, folder, diff, entry, record, notes })
}

/// The version that is asked for, or that the source carries, if either.
fn exact(
    model: &VersionedModel,
    source: &Path,
    options: &AddOptions<'_>,
    there: &[Version],
) -> Result<Option<Version>> {
    match &options.version {
        Choice::Bump(_) => Ok(None),
        Choice::Exact(version) => {
            check_free(model, version)?;
            Ok(Some(version.clone()))
        }
        Choice::Suggested => {
            let carried = VersionRecord::read(source)?;
            let ours = carried.filter(|r| r.name.as_ref().is_none_or(|n| *n == model.name));
            Ok(ours.map(|r| r.version).filter(|v| !there.contains(v)))
        }
    }
}

/// Compares with the version before. One that cannot be read stops nobody from adding a better one.
fn compare(
    model: &VersionedModel,
    previous: &Version,
    staged: &ModelFolder,
    options: &AddOptions<'_>,
    notes: &mut Vec<Note>,
) -> Result<Option<ModelDiff>> {
    let older = ModelFolder::scan(&model.folder_of(previous), false);
    let readable = older.and_then(|older| Weights::open(&older).map(|_| older));
    let older = match readable {
        Ok(older) => older,
        Err(e) => {
            notes.push(Note::warning(format!(
                "version {previous} cannot be read, so nothing was compared with it: {e}"
            )));
            return Ok(None);
        }
    };
    let part = options.observer.map(|observer| Part { observer, counts: false });
    let observer = part.as_ref().map(|p| p as &dyn Observer);
    let diff = ModelDiff::between_folders(&older, staged, observer)?;
    notes.extend(diff.notes.iter().cloned());
    Ok(Some(diff))
}

fn unchanged(previous: &Version) -> Error {
    Error::invalid_options(format!("nothing changed since version {previous}"))
        .with_hint("choose a version or a bump to add it all the same")
}

/// Names the source's file in an error about its copy.
fn in_source(error: Error, stage: &Path, source: &Path) -> Error {
    if std::error::Error::source(&error).is_some() {
        return error;
    }
    let relative = error.path().and_then(|p| p.strip_prefix(stage).ok()).map(Path::to_owned);
    let mut named = Error::new(error.kind(), error.message().to_owned());
    if let Some(offset) = error.offset() {
        named = named.at_offset(offset);
    }
    if let Some(hint) = error.hint() {
        named = named.with_hint(hint.to_owned());
    }
    named.with_path(relative.map_or_else(|| source.to_owned(), |r| source.join(r)))
}

/// Makes the model's folder, if it is not there.
fn make_folder(model: &VersionedModel, source: &Path) -> Result<()> {
    let registry = match model.folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let made = |e, path: &Path| Error::io("making the registry's folder", e).with_path(path);
    if !model.folder.is_dir() {
        uninterrupted(|| fs::create_dir_all(&registry)).map_err(|e| made(e, &registry))?;
        let lower = model.name.to_lowercase();
        if let Some((other, _)) =
            entries(&registry)?.iter().find(|(n, _)| n.to_lowercase() == lower && *n != model.name)
        {
            let what =
                format!("the registry has {other:?}, which is the same name where case does not count");
            return Err(Error::invalid_options(what).with_path(&registry));
        }
    }
    let (inside, outside) = (canonical(&registry)?, canonical(source)?);
    if inside.starts_with(&outside) {
        return Err(Error::invalid_options("the registry lies in the folder that is to be added to it")
            .with_path(&model.folder)
            .with_hint("keep the registry outside the model's folder"));
    }
    match uninterrupted(|| fs::create_dir(&model.folder)) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(made(e, &model.folder)),
        _ => Ok(()),
    }
}

/// Checks that a version has not been added, in any spelling.
fn check_free(model: &VersionedModel, version: &Version) -> Result<()> {
    let wanted = folder_name(version).to_lowercase();
    match entries(&model.folder)?.into_iter().find(|(name, _)| name.to_lowercase() == wanted) {
        None => Ok(()),
        Some((name, path)) => {
            let what = format!("{} has {name} already, and a version is never changed", model.name);
            Err(Error::invalid_options(what).with_path(path).with_hint("choose a version that is not there"))
        }
    }
}

/// A folder with a temporary name, which is removed unless it is put in place.
struct Stage {
    path: PathBuf,
    keep: bool,
    /// Says to the write engine, which removes what killed writers left, that somebody is at work in the model's folder.
    _claim: Option<fs::File>,
}

impl Stage {
    fn new(folder: &Path) -> Result<Self> {
        let claim = fs::File::open(folder).ok();
        if let Some(file) = &claim {
            // Where folders cannot be locked, nobody else has the lock under which it would be removed.
            let _ = uninterrupted(|| file.lock_shared());
        }
        let random = RandomState::new().build_hasher().finish();
        let path = folder.join(format!(".adding.{}-{random:016x}.tmp", std::process::id()));
        uninterrupted(|| fs::create_dir(&path))
            .map_err(|e| Error::io("making a folder to copy into", e).with_path(&path))?;
        Ok(Self { path, keep: false, _claim: claim })
    }

    /// A test stops here as a kill would: nothing is cleaned up.
    fn step(&mut self, hook: Hook<'_>, step: Step) -> Result<()> {
        hook(step).inspect_err(|_| self.keep = true)
    }

    /// Renames to the version's folder, which is not there: the lock is held, and it was looked for. A folder that
    /// has something in it is never replaced by a rename.
    fn place(mut self, target: &Path) -> Result<()> {
        let renamed = uninterrupted(|| fs::rename(&self.path, target));
        renamed.map_err(|e| Error::io("renaming the complete version to its name", e).with_path(target))?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep {
            // Nobody is left to tell of a failure here; the next change removes what stays.
            let _ = uninterrupted(|| fs::remove_dir_all(&self.path));
        }
    }
}

/// An observer of a part of the work: an addition begins and ends once, and only copies count.
struct Part<'o> {
    observer: &'o dyn Observer,
    counts: bool,
}

impl Observer for Part<'_> {
    fn advanced(&self, bytes: u64) {
        if self.counts {
            self.observer.advanced(bytes);
        }
    }

    fn cancelled(&self) -> bool {
        self.observer.cancelled()
    }
}

/// Copies or links the files into the stage.
fn copy(files: &ModelFolder, stage: &Path, options: &AddOptions<'_>) -> Result<()> {
    let wanted = || files.files.iter().filter(|f| f.name != crate::RECORD);
    if let Some(observer) = options.observer {
        observer.started(wanted().fold(0, |n, f| n.saturating_add(f.bytes)));
    }
    let mut by_folder: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for file in wanted() {
        let (folder, name) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
        by_folder.entry(folder).or_default().push((name, file));
    }
    let part = options.observer.map(|observer| Part { observer, counts: true });
    let mut how = ExecuteOptions::default();
    how.fsync = options.fsync;
    // A version does not change: its files are there to be read.
    how.mode = Some(0o444);
    how.observer = part.as_ref().map(|p| p as &dyn Observer);
    let mut made = BTreeSet::new();
    for (folder, list) in by_folder {
        let target = stage.join(folder);
        uninterrupted(|| fs::create_dir_all(&target))
            .map_err(|e| Error::io("making a subfolder", e).with_path(&target))?;
        made.extend(target.ancestors().take_while(|p| p.starts_with(stage)).map(Path::to_owned));
        if options.hard_links {
            for (name, file) in list {
                let link = target.join(name);
                uninterrupted(|| fs::hard_link(&file.path, &link)).map_err(|e| {
                    Error::io("making a hard link", e)
                        .with_path(&file.path)
                        .with_hint("copy instead of linking")
                })?;
                if let Some(observer) = options.observer {
                    observer.advanced(file.bytes);
                    if observer.cancelled() {
                        return Err(Error::new(ErrorKind::Cancelled, "the addition was stopped"));
                    }
                }
            }
            continue;
        }
        for batch in list.chunks(BATCH) {
            let mut plan = WritePlan::default();
            for (name, file) in batch {
                let source = file.open()?;
                let mut planned = FilePlan::new(*name);
                planned.push_data(Data::lazy(source.slice(0, source.len())?), file.name.as_str(), false)?;
                plan.files.push(planned);
            }
            execute(plan, &target, &how)?;
        }
    }
    if options.fsync {
        for folder in &made {
            sync_folder(folder)?;
        }
    }
    if let Some(observer) = options.observer {
        observer.finished();
    }
    Ok(())
}

/// What is to be done once a version is in place.
struct Journal {
    version: Version,
    date: String,
    entry: String,
    aliases: Vec<String>,
}

impl Journal {
    fn write(&self, model: &VersionedModel, fsync: bool) -> Result<()> {
        let value = json!({
            "schema": 1,
            "version": self.version.to_string(),
            "date": self.date,
            "entry": self.entry,
            "aliases": self.aliases,
        });
        write_file(&model.folder, JOURNAL, value.to_string().into_bytes(), fsync)
    }

    fn read(model: &VersionedModel) -> Result<Option<Self>> {
        let path = model.folder.join(JOURNAL);
        let Some(bytes) = read_if_there(&path, JOURNAL_BYTES)? else { return Ok(None) };
        let wrong = |what: &str| {
            Error::malformed(format!("this is no journal of an addition: {what}"))
                .with_path(&path)
                .with_hint("remove the file; the versions that are there are complete")
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e.to_string()))?;
        let text = |key: &str| value[key].as_str().ok_or_else(|| wrong(&format!("{key:?} is no text")));
        let version = crate::version::parse_version(text("version")?).map_err(|e| wrong(e.message()))?;
        let date = text("date")?;
        if !date.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return Err(wrong("its date is none"));
        }
        let entry = text("entry")?.to_owned();
        changelog::check_body(&entry).map_err(|e| wrong(e.message()))?;
        let aliases = value["aliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let aliases: Vec<_> = aliases.map(str::to_owned).collect();
        for alias in &aliases {
            check_alias(alias).map_err(|e| wrong(e.message()))?;
        }
        Ok(Some(Self { version, date: date.to_owned(), entry, aliases }))
    }

    /// Does what is left, as often as need be; says what a person should know.
    fn finish(&self, model: &VersionedModel, fsync: bool, hook: Hook<'_>) -> Result<Option<Note>> {
        let old = changelog::read(&model.folder)?;
        let mut kept = None;
        match changelog::insert(&old, &model.name, &self.version, &self.date, &self.entry) {
            Some(new) => write_file(&model.folder, changelog::CHANGELOG, new, fsync)?,
            None => {
                let what =
                    format!("{} has an entry of {} already, which stays", changelog::CHANGELOG, self.version);
                kept = Some(Note::info(what));
            }
        }
        hook(Step::Changelog)?;
        model.write_latest(fsync)?;
        hook(Step::Latest)?;
        for alias in &self.aliases {
            model.write_alias(alias, &self.version, fsync)?;
        }
        hook(Step::Aliases)?;
        remove_journal(model, fsync)?;
        Ok(kept)
    }
}

fn remove_journal(model: &VersionedModel, fsync: bool) -> Result<()> {
    let path = model.folder.join(JOURNAL);
    uninterrupted(|| fs::remove_file(&path))
        .map_err(|e| Error::io("removing the journal", e).with_path(&path))?;
    if fsync { sync_folder(&model.folder) } else { Ok(()) }
}

/// Finishes what a killed process began, or forgets it where no version came of it; says what was done.
///
/// # Errors
/// `Malformed` for a journal that is none; what the system says.
pub(crate) fn recover(model: &VersionedModel, lock: &Lock, fsync: bool) -> Result<Option<Note>> {
    remove_temporaries(&model.folder, lock)?;
    let Some(journal) = Journal::read(model)? else { return Ok(None) };
    if !model.versions()?.contains(&journal.version) {
        remove_journal(model, fsync)?;
        return Ok(None);
    }
    journal.finish(model, fsync, &mut |_| Ok(()))?;
    let what = format!(
        "version {} had been added by a process that was stopped; what it had left is done",
        journal.version
    );
    Ok(Some(Note::info(what)))
}

#[cfg(test)]
mod tests;
