//! Zip archives, as the most lenient of their readers sees them: every member of the directory, and what lies between.
//!
//! Python's `zipfile`, torch's reader in C++ and unpacking tools differ in what they refuse. A member that any of them
//! would read is looked at here, and where two of them would see different things that is a finding.

use std::collections::HashMap;
use std::sync::Arc;

use weighbridge_formats::backends::torch::TorchReader;
use weighbridge_formats::{Deserializer, Error, ErrorKind, Limits, ReadOptions, Result, Source};

use super::containers::{check_name, has_member, is_tar};
use super::report::Verdict;
use super::subject::{Role, Sink, Subject};
use super::unpack::Packing;

/// The longest directory that is read, in bytes, and the longest comment with the record before it.
const DIRECTORY: u64 = 16 << 20;
const TAIL: u64 = 65_535 + 22;
/// Members up to this size are held against their CRC-32.
const CHECKED: u64 = 8 << 20;
/// Bytes between members that a writer may leave: a descriptor, padding.
const SLACK: u64 = 64;

/// Whether a subject is a zip: by its first bytes, or by a directory at its end, which is all that Python asks for.
pub(super) fn fits(subject: &Subject<'_>) -> bool {
    if subject.head.starts_with(b"PK\x03\x04") || subject.head.starts_with(b"PK\x05\x06") {
        return true;
    }
    // What is unpacked from front to back is not read to its end for this, nor are the numbers of a tensor.
    let random = subject.source.reader().access() == weighbridge_formats::Access::Random;
    random
        && subject.role == Role::Anything
        && subject.source.len() >= 22
        && locate(subject.source).is_ok_and(|found| {
            found.is_some_and(|place| place.plausible(subject.source) && !place.is_member(subject))
        })
}

/// One member by the directory.
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc32: u32,
    packed: u64,
    size: u64,
    header: u64,
    symlink: bool,
    directory_at: u64,
}

/// Where the directory lies by the last end record.
struct Place {
    end_at: u64,
    /// Where the record says that the directory begins, and where it must begin to end at the record.
    stated: u64,
    computed: u64,
    size: u64,
    exact: bool,
}

impl Place {
    fn plausible(&self, source: &Source) -> bool {
        let begins = |at: u64| {
            let mut mark = [0; 4];
            source.reader().read_at(at, &mut mark).is_ok() && &mark == b"PK\x01\x02"
        };
        self.size > 0 && (begins(self.computed) || begins(self.stated))
    }

    /// Whether all of it is a member of a tar, which is looked at by itself: a reader of zips finds that one there, and
    /// nothing else.
    fn is_member(&self, subject: &Subject<'_>) -> bool {
        let begin = self.computed.checked_sub(self.stated);
        is_tar(subject.head) && begin.is_some_and(|at| has_member(subject.source, at, self.end_at + 22))
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn read(source: &Source, at: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Error::limit("too long"))?];
    source.reader().read_at(at, &mut bytes)?;
    Ok(bytes)
}

fn locate(source: &Source) -> Result<Option<Place>> {
    let len = source.len();
    let tail_at = len.saturating_sub(TAIL);
    let tail = read(source, tail_at, len - tail_at)?;
    let Some(end) = memchr::memmem::rfind(&tail, b"PK\x05\x06").filter(|end| end + 22 <= tail.len()) else {
        return Ok(None);
    };
    let end_at = tail_at + end as u64;
    let exact = end + 22 + usize::from(u16_at(&tail, end + 20)) == tail.len();
    let (mut size, mut stated) = (u64::from(u32_at(&tail, end + 12)), u64::from(u32_at(&tail, end + 16)));
    let mut limit = end_at;
    if let Some(locator) = end.checked_sub(20).filter(|l| tail[*l..].starts_with(b"PK\x06\x07")) {
        let record_at = u64_at(&tail, locator + 8);
        // The record stands before its locator; Python looks there, whatever the locator says.
        let before = (tail_at + locator as u64).checked_sub(56);
        for at in [Some(record_at), before].into_iter().flatten() {
            let Some(record) =
                at.checked_add(56).filter(|e| *e <= end_at).and_then(|_| read(source, at, 56).ok())
            else {
                continue;
            };
            if record.starts_with(b"PK\x06\x06") {
                (size, stated, limit) = (u64_at(&record, 40), u64_at(&record, 48), at);
                break;
            }
        }
    }
    Ok(limit.checked_sub(size).map(|computed| Place { end_at, stated, computed, size, exact }))
}

/// Looks at a zip.
pub(super) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let source = subject.source;
    let Some(place) = locate(source)? else {
        let what = "the zip has no directory at its end: it is cut off, or what looks like one is none";
        sink.finding(subject.finding("archive-lies", Verdict::Unknown, what));
        return super::pickle::search(subject, sink, 0, source.len());
    };
    if place.size > DIRECTORY {
        return Err(Error::limit(format!("its directory has {} bytes; {DIRECTORY} are read", place.size)));
    }
    let directory = read(source, place.computed, place.size)?;
    // Python takes what stands before the archive for a prefix, and adds its length to every offset; torch does not.
    let shift = place.computed.checked_sub(place.stated);
    let mut lies = Vec::new();
    if shift != Some(0) {
        lies.push((
            place.end_at,
            Verdict::Unknown,
            format!("the directory stands at {} and the end record says {}", place.computed, place.stated),
        ));
    }
    if !place.exact {
        lies.push((place.end_at, Verdict::Unknown, "bytes follow the end of the archive".to_owned()));
    }
    let mut entries = parse(&directory, &place, &mut lies);
    if directory.is_empty() && source.len() > 22 + SLACK {
        lies.push((place.end_at, Verdict::Unknown, "the directory is empty, and the file is not".to_owned()));
    }
    check(subject, &entries, &mut lies, sink);
    let root = entries.iter().find_map(|e| e.name.strip_suffix("data.pkl")).unwrap_or_default().to_owned();
    let has_pickle = entries.iter().any(|e| e.name.strip_prefix(&*root) == Some("data.pkl"));
    let script = entries.iter().any(|e| e.name.strip_prefix(&*root) == Some("constants.pkl"));
    if script {
        sink.kind("torchscript");
    } else if has_pickle {
        sink.kind("torch");
    }
    let code = has_pickle
        && entries
            .iter()
            .any(|e| e.name.strip_prefix(&*root).is_some_and(|below| below.starts_with("code/")));
    if code && !script {
        let what =
            "it has a folder for code, and is otherwise no TorchScript program: loaders disagree what it is";
        sink.finding(subject.finding("torchscript-code", Verdict::Unknown, what));
    }
    let written = |e: &&Entry| {
        e.size > 0
            && e.name.strip_prefix(&*root).is_some_and(|n| n.starts_with("code/") && n.ends_with(".py"))
    };
    if script && has_pickle && !entries.iter().any(|e| written(&e)) {
        let what = "a TorchScript program without code: loaders are told that it is one, and nothing else is";
        sink.finding(subject.finding("torchscript-code", Verdict::Unknown, what));
    }
    if has_pickle && subject.role != Role::Guess {
        hold_tensors(subject, sink);
    }
    entries.sort_by_key(|e| e.header);
    let mut covered = 0u64;
    let mut gaps = Vec::new();
    for entry in &entries {
        let shift = shift.unwrap_or(0);
        let at = entry.header.saturating_add(shift);
        let Some(content) = content_of(source, entry, at, &mut lies) else {
            // Where torch looks, which adds nothing.
            continue;
        };
        if at > covered.saturating_add(SLACK) {
            gaps.push((covered, at));
        }
        if at < covered {
            let what = format!("the member {:?} overlaps another", entry.name);
            lies.push((entry.directory_at, Verdict::Dangerous, what));
        }
        let end = content.saturating_add(entry.packed);
        covered = covered.max(end);
        if entry.packed == 0 || entry.name.ends_with('/') && entry.size == 0 {
            continue;
        }
        let available = source.len().saturating_sub(content);
        if entry.packed > available {
            let what = format!("the member {:?} passes the end of the file", entry.name);
            lies.push((entry.directory_at, Verdict::Unknown, what));
        }
        let part = Source::from_reader(Arc::new(source.slice(content, entry.packed.min(available))?));
        let role = role_of(&entry.name, &root, has_pickle, script, subject.role);
        member(subject, sink, entry, part, role, &mut lies)?;
    }
    if place.computed > covered.saturating_add(SLACK) && !entries.is_empty() {
        gaps.push((covered, place.computed));
    }
    for (verdict_at, verdict, what) in lies {
        let id = if what.contains("encrypted") { "archive-encrypted" } else { "archive-lies" };
        sink.finding(subject.finding(id, verdict, what).at(verdict_at));
    }
    // The comment, which nobody reads.
    if source.len() > place.end_at.saturating_add(30) {
        gaps.push((place.end_at + 22, source.len()));
    }
    for (from, to) in gaps {
        gap(subject, sink, from, to)?;
    }
    Ok(())
}

/// A member as whoever wants its content takes it, whatever else the archive says.
pub(super) struct Member {
    pub(super) name: String,
    /// Its bytes as they stand in the file.
    pub(super) packed: Source,
    /// How they are packed; `None` as they are, and the number of a method that is not known.
    pub(super) packing: std::result::Result<Option<Packing>, u16>,
    /// The checksum that its content should have, if one is stated.
    pub(super) crc32: Option<u32>,
}

/// The members of a zip: those of its directory, and where that is missing or leads nowhere those that headers in the
/// file begin.
pub(super) fn members(source: &Source) -> Result<Vec<Member>> {
    let mut found = Vec::new();
    let mut whole = false;
    // What may be read to find out which of several lengths is true.
    let mut effort = source.len().saturating_mul(8);
    if let Some(place) = locate(source)?.filter(|place| place.size <= DIRECTORY) {
        let directory = read(source, place.computed, place.size)?;
        let shift = place.computed.saturating_sub(place.stated);
        let entries = parse(&directory, &place, &mut Vec::new());
        whole = !entries.is_empty();
        for entry in &entries {
            let places = [entry.header.saturating_add(shift), entry.header];
            let content =
                places.into_iter().find_map(|at| Some((at, content_of(source, entry, at, &mut Vec::new())?)));
            match content {
                Some((at, content)) => found.push(listed(source, entry, at, content, &mut effort)?),
                None => whole = false,
            }
        }
    }
    if !whole {
        let known: std::collections::HashSet<String> =
            found.iter().map(|m: &Member| m.name.clone()).collect();
        found.extend(super::headers::walk(source)?.into_iter().filter(|m| !known.contains(&m.name)));
    }
    Ok(found)
}

/// A member by its entry. Where its headers disagree how long it is, the length counts that has the checksum.
fn listed(source: &Source, entry: &Entry, at: u64, content: u64, effort: &mut u64) -> Result<Member> {
    let available = source.len().saturating_sub(content);
    let slice = |length: u64| {
        let slice = source.slice(content, length.min(available))?;
        Ok::<_, Error>(Source::from_reader(Arc::new(slice)))
    };
    let mut packed = slice(entry.packed)?;
    if entry.method == 0 {
        let local = read(source, at, 30)?;
        let (local_crc, a, b) = (u32_at(&local, 14), u32_at(&local, 18).into(), u32_at(&local, 22).into());
        let lengths = [entry.packed, entry.size, a, b];
        if lengths.iter().any(|l| *l != entry.packed && *l != 0) {
            for length in lengths {
                let candidate = slice(length)?;
                let Some(left) = effort.checked_sub(candidate.len()) else { break };
                *effort = left;
                let sum = checksum(&candidate)?;
                if length > 0 && (sum == entry.crc32 || sum == local_crc && local_crc != 0) {
                    packed = candidate;
                    break;
                }
            }
        }
    }
    let packing = packing_of(entry.method);
    Ok(Member { name: entry.name.clone(), packed, packing, crc32: Some(entry.crc32) })
}

/// The CRC-32 of a source.
pub(super) fn checksum(source: &Source) -> Result<u32> {
    let (mut hasher, mut at) = (crc32fast::Hasher::new(), 0);
    let mut piece = vec![0; 256 << 10];
    while at < source.len() {
        let step = (source.len() - at).min(piece.len() as u64) as usize;
        source.reader().read_at(at, &mut piece[..step])?;
        hasher.update(&piece[..step]);
        at += step as u64;
    }
    Ok(hasher.finalize())
}

/// How a member of a method is packed.
pub(super) fn packing_of(method: u16) -> std::result::Result<Option<Packing>, u16> {
    Ok(Some(match method {
        0 => return Ok(None),
        8 => Packing::Deflate,
        12 => Packing::Bzip2,
        93 => Packing::Zstd,
        95 => Packing::Xz,
        other => return Err(other),
    }))
}

/// Opens the file as the archive of tensors that it is, whose reader refuses what does not fit.
pub(super) fn hold_tensors(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let mut options = ReadOptions::default();
    options.limits = Limits {
        header_bytes: 8 << 20,
        values: 300_000,
        entries: 200_000,
        inflated_bytes: 8 << 20,
        ..Limits::default()
    };
    let Err(error) = TorchReader.open(subject.source.clone(), &options) else { return };
    let lies = matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Mismatch | ErrorKind::UnsafeContent);
    if lies {
        let what = match error.tensor() {
            Some(tensor) => format!("{} (tensor {tensor:?})", error.message()),
            None => error.message().to_owned(),
        };
        let mut found = subject.finding("torch-lies", Verdict::Unknown, what);
        found.place.offset = error.offset();
        sink.finding(found);
    }
}

/// What is known of a member by its name.
fn role_of(name: &str, root: &str, has_pickle: bool, script: bool, outer: Role) -> Role {
    if outer == Role::Guess {
        return Role::Guess;
    }
    let Some(below) = name.strip_prefix(root).filter(|_| has_pickle) else { return Role::Anything };
    let numbered = |folder: &str| {
        below.strip_prefix(folder).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    match below {
        "data.pkl" | "constants.pkl" if script => Role::Script,
        "data.pkl" => Role::Pickle,
        _ if script && below.starts_with("code/") && below.ends_with(".debug_pkl") => Role::Script,
        _ if script && !below.contains('/') && below.ends_with(".pkl") => Role::Script,
        _ if numbered("data/") || numbered("constants/") => Role::Numbers,
        _ => Role::Anything,
    }
}

/// Has a member looked at, by whatever it is packed.
fn member(
    subject: &Subject<'_>,
    sink: &mut Sink<'_>,
    entry: &Entry,
    part: Source,
    role: Role,
    lies: &mut Vec<(u64, Verdict, String)>,
) -> Result<()> {
    let place = subject.inside(&*entry.name);
    let unread = |what: String, sink: &mut Sink<'_>| {
        sink.finding(subject.finding("archive-unread", Verdict::Unknown, what).at(entry.directory_at));
    };
    match entry.method {
        0 => {
            if entry.packed != entry.size {
                let what = format!("the stored member {:?} has two lengths", entry.name);
                lies.push((entry.directory_at, Verdict::Unknown, what));
            }
            if role != Role::Numbers && entry.packed <= CHECKED && entry.flags & 1 == 0 {
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(&read(&part, 0, part.len())?);
                if hasher.finalize() != entry.crc32 {
                    let what =
                        format!("the member {:?} does not have the checksum of the directory", entry.name);
                    lies.push((entry.directory_at, Verdict::Unknown, what));
                }
            }
            sink.nested_as(role, &*entry.name, part, place);
        }
        method => match packing_of(method) {
            Ok(Some(packing)) => _ = sink.nested_packed(role, &*entry.name, part, place, packing),
            _ => unread(format!("the member {:?} is packed by method {method}", entry.name), sink),
        },
    }
    Ok(())
}

/// Bytes of the file that no member claims.
fn gap(subject: &Subject<'_>, sink: &mut Sink<'_>, from: u64, to: u64) -> Result<()> {
    let head = read(subject.source, from, (to - from).min(64))?;
    if memchr::memmem::find(&head, b"PK\x03\x04").is_some() {
        let what = "a member stands in the file that the directory does not list";
        sink.finding(subject.finding("archive-lies", Verdict::Unknown, what).at(from));
    }
    super::pickle::search(subject, sink, from, to)
}

fn parse(directory: &[u8], place: &Place, lies: &mut Vec<(u64, Verdict, String)>) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some(record) = directory.get(at..).filter(|r| r.len() >= 46 && r.starts_with(b"PK\x01\x02")) {
        let [name, extra, comment] = [28, 30, 32].map(|o| usize::from(u16_at(record, o)));
        let Some(name_bytes) = record.get(46..46 + name) else { break };
        let mut entry = Entry {
            name: String::from_utf8_lossy(name_bytes).into_owned(),
            flags: u16_at(record, 8),
            method: u16_at(record, 10),
            crc32: u32_at(record, 16),
            packed: u32_at(record, 20).into(),
            size: u32_at(record, 24).into(),
            header: u32_at(record, 42).into(),
            symlink: u32_at(record, 38) >> 28 == 0xA,
            directory_at: place.computed + at as u64,
        };
        widen(&mut entry, record.get(46 + name..46 + name + extra).unwrap_or_default());
        entries.push(entry);
        at += 46 + name + extra + comment;
    }
    if at < directory.len() {
        let what = "the directory holds something that is no entry".to_owned();
        lies.push((place.computed + at as u64, Verdict::Unknown, what));
    }
    entries
}

/// Takes 64-bit values from the extra field, for each that says so.
fn widen(entry: &mut Entry, mut extra: &[u8]) {
    while extra.len() >= 4 {
        let length = usize::from(u16_at(extra, 2));
        let Some(field) = extra.get(4..4 + length) else { return };
        if u16_at(extra, 0) == 1 {
            let mut at = 0;
            for value in [&mut entry.size, &mut entry.packed, &mut entry.header] {
                if *value == 0xffff_ffff && at + 8 <= field.len() {
                    *value = u64_at(field, at);
                    at += 8;
                }
            }
            return;
        }
        extra = &extra[4 + length..];
    }
}

/// What the directory says against itself.
fn check(
    subject: &Subject<'_>,
    entries: &[Entry],
    lies: &mut Vec<(u64, Verdict, String)>,
    sink: &mut Sink<'_>,
) {
    let mut names: HashMap<&str, u64> = HashMap::with_capacity(entries.len());
    for entry in entries {
        check_name(subject, sink, &entry.name, entry.directory_at);
        if let Some(first) = names.insert(&entry.name, entry.directory_at) {
            let what = format!("two members are named {:?} (entries at {first} and here)", entry.name);
            lies.push((entry.directory_at, Verdict::Dangerous, what));
        }
        if entry.symlink {
            let what = format!("the member {:?} is a link", entry.name);
            sink.finding(subject.finding("path-escape", Verdict::Dangerous, what).at(entry.directory_at));
        }
        if entry.flags & (0x1 | 0x20 | 0x40 | 0x2000) != 0 {
            let what = format!(
                "the member {:?} is marked as encrypted or patched ({:#06x})",
                entry.name, entry.flags
            );
            lies.push((entry.directory_at, Verdict::Unknown, what));
        }
        if entry.method == 8 && entry.size / 1100 > entry.packed {
            let what = format!("the member {:?} claims to expand further than deflate can", entry.name);
            lies.push((entry.directory_at, Verdict::Unknown, what));
        }
    }
}

/// Where a member's content begins, by its local header, which is held against the directory.
fn content_of(
    source: &Source,
    entry: &Entry,
    at: u64,
    lies: &mut Vec<(u64, Verdict, String)>,
) -> Option<u64> {
    let mut lie = |verdict, what: String| lies.push((entry.directory_at, verdict, what));
    let Ok(local) = read(source, at, 30) else {
        lie(Verdict::Unknown, format!("the member {:?} has its header past the end", entry.name));
        return None;
    };
    if !local.starts_with(b"PK\x03\x04") {
        lie(Verdict::Unknown, format!("the member {:?} has no header where the directory says", entry.name));
        return None;
    }
    let (name, extra) = (u64::from(u16_at(&local, 26)), u64::from(u16_at(&local, 28)));
    let local_name = read(source, at + 30, name).unwrap_or_default();
    if local_name != entry.name.as_bytes() && String::from_utf8_lossy(&local_name) != entry.name.as_str() {
        let other = String::from_utf8_lossy(&local_name);
        lie(Verdict::Dangerous, format!("the member {:?} is named {other:?} in its own header", entry.name));
    }
    if u16_at(&local, 8) != entry.method {
        lie(
            Verdict::Dangerous,
            format!("the member {:?} is packed in another way by its own header", entry.name),
        );
    }
    if (u16_at(&local, 6) ^ entry.flags) & 0x1 != 0 {
        lie(Verdict::Unknown, format!("the member {:?} is encrypted by one of its headers only", entry.name));
    }
    let sizes = (u32_at(&local, 18), u32_at(&local, 22));
    let open = u16_at(&local, 6) & 8 != 0 || sizes.0 == u32::MAX || sizes.1 == u32::MAX;
    let (packed, size) = (u64::from(sizes.0), u64::from(sizes.1));
    if !open && (packed, size) != (entry.packed, entry.size) {
        let what = format!(
            "the member {:?} has {packed} bytes by its own header and {} by the directory",
            entry.name, entry.packed
        );
        lie(Verdict::Dangerous, what);
    }
    Some(at + 30 + name + extra)
}
