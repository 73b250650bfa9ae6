//! The zip container: torch 1.6 and later, and TorchScript archives.
//!
//! Source: files that torch 2.13 wrote; `caffe2/serialize/inline_container.h` for the versions (1 to 10).

use std::sync::Arc;

use super::archive::{Storages, TorchArchive};
use crate::account::Account;
use crate::archive::Note;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Decoded, Stream};
use crate::probe::Confidence;
use crate::source::{ReadAt, Source};
use crate::zip::ZipArchive;

/// The newest container version that torch reads and writes today.
const NEWEST: u32 = 10;

/// Whether member names are those of a torch file: a pickle and what stands beside it, below one folder.
pub(super) fn sniff(names: &[String]) -> Confidence {
    let Some(root) = names.iter().find_map(|n| n.strip_suffix("data.pkl")) else { return Confidence::No };
    let beside = ["version", ".data/version", "byteorder", "data/", "constants.pkl", "code/"];
    let known = names
        .iter()
        .any(|n| n.strip_prefix(root).is_some_and(|rest| beside.iter().any(|b| rest.starts_with(b))));
    if known { Confidence::Certain } else { Confidence::Likely }
}

/// The members that hold the storages.
struct Members {
    zip: ZipArchive,
    /// Numbers of the members in the zip's directory.
    entries: Vec<u32>,
}

impl Storages for Members {
    fn reader(&self, index: usize) -> Result<Arc<dyn ReadAt>> {
        match self.entries.get(index).and_then(|&i| self.zip.entries().get(i as usize)) {
            Some(entry) => self.zip.reader(entry),
            None => Err(Error::not_found(format!("there is no storage number {index}"))),
        }
    }
}

/// A zip whose few members beside the storages have been looked at.
pub(super) struct Container {
    pub zip: ZipArchive,
    /// The folder that everything lies in, with its slash.
    pub root: String,
    pub version: Option<String>,
    big_endian: bool,
    notes: Vec<Note>,
}

impl Container {
    /// Reads the directory, the version and the byte order.
    pub(super) fn open(source: &Source, limits: &Limits) -> Result<Self> {
        let zip = ZipArchive::open(source, limits)?;
        zip.check_inflation(limits)?;
        let root = find_root(&zip)?;
        // A storage's header is checked when the storage is read. The others are few, and which of them are there
        // counts: without its `byteorder`, a big-endian file would be read as little-endian.
        let data = format!("{root}data/");
        for entry in zip.entries().iter().filter(|e| !zip.name(e).starts_with(&data)) {
            zip.reader(entry)?;
        }
        let member = |name: &str| zip.find(&format!("{root}{name}"));
        let small = |name: &str| -> Result<Option<String>> {
            let Some(entry) = member(name) else { return Ok(None) };
            if entry.size > 64 {
                return Err(Error::malformed(format!("member {name:?} has {} bytes", entry.size))
                    .at_offset(entry.header));
            }
            Ok(Some(String::from_utf8_lossy(&zip.read(entry, limits)?).trim().to_owned()))
        };
        let mut notes = Vec::new();
        let version = match small("version")? {
            Some(v) => Some(v),
            None => small(".data/version")?,
        };
        if let Some(v) = version.as_deref().and_then(|v| v.parse::<u32>().ok()).filter(|&v| v > NEWEST) {
            notes.push(Note::warning(format!(
                "container version {v} is newer than the newest known, {NEWEST}"
            )));
        }
        let big_endian = match small("byteorder")?.as_deref() {
            None | Some("little") => false,
            Some("big") => true,
            Some(other) => {
                return Err(Error::malformed(format!("byte order {other:?} is neither little nor big")));
            }
        };
        Ok(Self { zip, root, version, big_endian, notes })
    }

    /// Whether this is a TorchScript program.
    pub(super) fn is_script(&self) -> bool {
        self.zip.find(&format!("{}constants.pkl", self.root)).is_some()
    }

    /// The pickle of a name such as `data`, and what it leaves of the account.
    pub(super) fn pickle(&self, name: &str, limits: &Limits) -> Result<Option<(Decoded, Account)>> {
        let Some(entry) = self.zip.find(&format!("{}{name}.pkl", self.root)) else { return Ok(None) };
        self.zip.check_size(entry, limits)?;
        let reader = self.zip.reader(entry)?;
        let mut account = self.zip.account(limits);
        account.charge(self.zip.memory())?;
        let stream = Stream { account, ..Stream::new(&*reader, limits) };
        let (decoded, _, account) = stream.decode().map_err(|e| in_pickle(e, entry.header))?;
        // Its checksum counts also where the pickle ends before the member does.
        reader.finish()?;
        Ok(Some((decoded, account)))
    }

    /// The tensors that a pickle describes, whose storages are the members of the folder of a name.
    pub(super) fn archive(
        self,
        source: Source,
        (decoded, account): (Decoded, Account),
        name: &str,
        limits: &Limits,
    ) -> Result<TorchArchive> {
        let kind = if self.is_script() { "TorchScript archive" } else { "zip container" };
        let order = if self.big_endian { ", big-endian" } else { "" };
        let version = self.version.map_or_else(String::new, |v| format!(", version {v}"));
        let variety = format!("{kind}{version}{order}, pickle protocol {}", decoded.protocol);
        let mut name = format!("{}{name}/", self.root);
        let zip = self.zip;
        TorchArchive::new(
            source,
            variety,
            decoded.values,
            self.big_endian,
            self.notes,
            (limits, account),
            Box::new(move |wanted| {
                let mut entries = Vec::with_capacity(wanted.len());
                let (prefix, mut next) = (name.len(), 0);
                for &(key, bytes) in wanted {
                    name.truncate(prefix);
                    name.push_str(key);
                    let Some(entry) = zip.find_near(&name, &mut next) else {
                        return Err(Error::malformed(format!(
                            "the pickle names storage {key:?}, and there is no member {name:?}"
                        )));
                    };
                    if entry.size < bytes {
                        let what =
                            format!("member {name:?} has {} bytes, and the pickle says {bytes}", entry.size);
                        return Err(Error::malformed(what).at_offset(entry.header));
                    }
                    entries.push((next - 1) as u32);
                }
                Ok(Box::new(Members { zip, entries }))
            }),
        )
    }
}

/// Opens a zip.
pub(super) fn open(source: Source, limits: &Limits) -> Result<TorchArchive> {
    let mut container = Container::open(&source, limits)?;
    let Some(decoded) = container.pickle("data", limits)? else { return Err(no_pickle()) };
    if container.is_script() {
        note_constants(&container.zip, &container.root, &mut container.notes);
    }
    container.archive(source, decoded, "data", limits)
}

/// The folder that everything lies in: that of the only `data.pkl`, or of the one nearest to the top.
fn find_root(zip: &ZipArchive) -> Result<String> {
    let pickles = zip.entries().iter().filter_map(|e| zip.name(e).strip_suffix("data.pkl"));
    let roots = pickles.filter(|r| r.is_empty() || r.ends_with('/'));
    roots.min_by_key(|r| r.matches('/').count()).map(ToOwned::to_owned).ok_or_else(|| {
        let old = zip.entries().iter().any(|e| zip.name(e).ends_with("/model.json"));
        if old {
            Error::unsupported("a TorchScript file of torch before 1.4 (model.json)")
                .with_hint("load and save it with torch 1.4 or later, which writes data.pkl")
        } else {
            no_pickle()
        }
    })
}

fn no_pickle() -> Error {
    Error::malformed("the zip has no data.pkl, so torch.save did not write it")
}

/// Says where in the file a pickle's error lies: the member, and the offset in it.
fn in_pickle(error: Error, member: u64) -> Error {
    match error.offset() {
        Some(_) => error,
        None => error.at_offset(member),
    }
}

/// TorchScript keeps tensors that its code uses apart from the weights. They are not read, and that is said.
fn note_constants(zip: &ZipArchive, root: &str, notes: &mut Vec<Note>) {
    let prefix = format!("{root}constants/");
    let count = zip.entries().iter().filter(|e| zip.name(e).starts_with(&prefix)).count();
    let code = zip.entries().iter().filter(|e| zip.name(e)[..].starts_with(&format!("{root}code/"))).count();
    notes.push(Note::info(format!(
        "this is a TorchScript program: its weights are read, its code ({code} members) is never run or converted"
    )));
    if count > 0 {
        notes.push(Note::warning(format!(
            "{count} constant tensor(s) belong to the program's code (constants/), not to its weights; they are left out here, and `inspect` lists them"
        )));
    }
}
