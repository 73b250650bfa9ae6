//! Model cards: a README.md with the hub's front matter, written from what a model's files say.
//!
//! What a person wrote is never changed. Keys are added to the front matter where they are missing; the generated part
//! of the text stands between two marks; the rest of the file stays byte for byte.

mod facts;
mod front;
mod section;

use std::path::Path;

use weighbridge_formats::{Error, Note, Result};

use crate::folder::ModelFolder;
use crate::models::Reference;
use crate::record::{VersionRecord, write_file};
use crate::version::Version;
use crate::{changelog, markdown};

use facts::Facts;
use front::Front;
use section::Section;

/// The file's name.
pub const README: &str = "README.md";
/// The longest README that is read.
const LONGEST: u64 = 16 << 20;

/// What a person knows of a model and its files do not say. Each goes into the front matter, if it is not there yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CardOptions {
    /// The heading of a new card, and the name in its results; the folder's name otherwise.
    pub name: Option<String>,
    /// The hub's name of the licence, `apache-2.0` say.
    pub license: Option<String>,
    /// The languages, `en` say.
    pub languages: Vec<String>,
    /// The models that this one was made from, as the hub calls them.
    pub base_models: Vec<String>,
    /// The data it was trained on, as the hub calls them.
    pub datasets: Vec<String>,
    /// Tags, before those that are known.
    pub tags: Vec<String>,
    /// The task, where the architecture does not say it or says another.
    pub pipeline_tag: Option<String>,
    /// The library, where the files do not say it or say another.
    pub library_name: Option<String>,
    /// Links of the folder may lead out of it.
    pub follow_links: bool,
}

/// The version that a card is for.
#[derive(Clone, Copy)]
pub(crate) struct CardVersion<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a Version,
    pub(crate) changes: Option<&'a str>,
}

/// A card, and how it differs from the one that is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Card {
    /// The whole file.
    pub text: Vec<u8>,
    /// The file as it is; `None` where there is none.
    pub old: Option<Vec<u8>>,
    /// The keys that are added to the front matter.
    pub added_keys: Vec<String>,
    /// What is left as it is, and why.
    pub notes: Vec<Note>,
}

impl Card {
    /// Whether the file would change.
    pub fn changed(&self) -> bool {
        self.old.as_ref() != Some(&self.text)
    }
}

/// Makes the card of a model's folder, and writes nothing.
///
/// The version is that of the folder's `weighbridge.version.json`, its changes those of the changelog beside it.
///
/// # Errors
/// What is wrong with the folder, its weights or its JSON files; `LimitExceeded` for a README of more than 16 MiB.
pub fn card(folder: &Path, options: &CardOptions) -> Result<Card> {
    let files = ModelFolder::scan(folder, options.follow_links)?;
    let record = VersionRecord::read(folder)?;
    let name = match record.as_ref().and_then(|r| r.name.clone()) {
        Some(name) => name,
        None => name_of(folder),
    };
    let changes = match &record {
        Some(record) => changes(folder, &record.version)?,
        None => None,
    };
    let of = record.as_ref().map(|r| CardVersion {
        name: &name,
        version: &r.version,
        changes: changes.as_deref(),
    });
    of_folder(
        &files,
        &CardOptions { name: options.name.clone().or(Some(name.clone())), ..options.clone() },
        of,
    )
}

/// Makes the card of a model's folder and writes it, if it differs from what is there.
///
/// # Errors
/// As [`card`]; `InvalidOptions` for a version in a registry, which does not change; what the system says.
pub fn write_card(folder: &Path, options: &CardOptions) -> Result<Card> {
    if let Ok(found @ Reference::Version { .. }) = Reference::find(&folder.to_string_lossy()) {
        return Err(Error::invalid_options(format!(
            "{found} is a version in a registry, and does not change"
        ))
        .with_path(folder)
        .with_hint("write the card in the model's own folder, or while adding a version (`--card`)"));
    }
    let card = card(folder, options)?;
    if card.changed() {
        write_file(folder, README, card.text.clone(), true)?;
    }
    Ok(card)
}

/// The entry of the changelog in the folder, or in the model's folder above it.
fn changes(folder: &Path, version: &Version) -> Result<Option<String>> {
    for place in [folder.to_owned(), folder.join("..")] {
        let text = changelog::read(&place)?;
        if let Some(entry) = changelog::entry(&text, version) {
            return Ok(Some(String::from_utf8_lossy(entry).into_owned()));
        }
    }
    Ok(None)
}

fn name_of(folder: &Path) -> String {
    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    real.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// Makes the card of a folder that has been listed.
pub(crate) fn of_folder(
    folder: &ModelFolder,
    options: &CardOptions,
    version: Option<CardVersion<'_>>,
) -> Result<Card> {
    folder.check_spelling(README)?;
    let old = folder.read(README, LONGEST)?;
    let name = options
        .name
        .clone()
        .or_else(|| version.map(|v| v.name.to_owned()))
        .unwrap_or_else(|| name_of(&folder.root));
    let facts = Facts::of(folder, options, &name)?;
    Ok(edit(old, &name, &facts, version))
}

fn edit(old: Option<Vec<u8>>, name: &str, facts: &Facts, version: Option<CardVersion<'_>>) -> Card {
    let mut notes = facts.notes.clone();
    let title = format!("# {}\n", facts::title(name));
    let text = old.clone().unwrap_or_else(|| title.into_bytes());
    let section = Section::of(&text);
    let front = Front::of(&text);
    if let Front::Strange(line) = &front {
        let line = markdown::plain(line, 80);
        notes.push(Note::warning(format!(
            "the front matter of {README} stays as it is: {line:?} is not understood"
        )));
    }
    let mut added_keys = Vec::new();
    let mut entries = Vec::new();
    for (key, value) in &facts.front {
        let removed = section.keys().contains(key) && !front.has(key);
        if removed {
            notes.push(Note::info(format!(
                "{key} was removed from the front matter by hand, and is not added again"
            )));
        } else if !front.has(key) && !matches!(front, Front::Strange(_)) {
            added_keys.push(key.clone());
            entries.push((key.clone(), value.clone()));
        }
    }
    let mut keys = section.keys().to_vec();
    keys.extend(added_keys.iter().filter(|k| !section.keys().contains(k)).cloned());
    let part = section::render(&body(facts, version), &keys);
    if let Section::Kept { why, .. } = &section {
        let what = format!(
            "the text of {README} stays as it is: {why}; remove the part with its marks to have it made anew"
        );
        notes.push(Note::warning(what));
    }
    let text = front::add(&text, &front, &entries);
    let text = section::put(&text, &Section::of(&text), &part);
    Card { text, old, added_keys, notes }
}

/// What stands between the marks.
fn body(facts: &Facts, version: Option<CardVersion<'_>>) -> String {
    let mut out = String::from("## Model details\n\n");
    if let Some(v) = version {
        out.push_str(&format!("Version {}.\n\n", v.version));
    }
    out.push_str(&facts.markdown());
    if let Some((version, changes)) = version.and_then(|v| Some((v.version, v.changes?))) {
        out.push_str(&format!("\n### Changes in {version}\n\n"));
        for line in changes.lines().filter(|l| !section::is_mark(l)) {
            // Three dashes alone would end the front matter of a card that begins with a rule; four are a rule too.
            out.push_str(if line.trim_end() == "---" { "----" } else { line.trim_end() });
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests;
