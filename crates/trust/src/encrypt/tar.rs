//! The tar inside an encrypted folder: written the same for the same folder each time, and read without unpacking.
//!
//! Written are the folder itself, its subfolders and its files in the order of their names, as ustar with pax records
//! where a name or a length does not fit. Owners and times are zero, modes 0600 and 0700: who unpacks it by `tar x` has
//! private files. In front stands a pax header with a comment, by which our own reader knows a folder from a file that
//! happens to be a tar.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ::tar::{EntryType, Header};
use weighbridge_formats::source::{fold, is_plain_relative};
use weighbridge_formats::{Error, ReadAt, Result, Source};

/// The unit of tar.
const BLOCK: u64 = 512;
/// The most members of a tar, folders included.
const MEMBERS: usize = 100_000;
/// The longest records of one member, in bytes.
const RECORDS: u64 = 64 << 10;
/// What the comment says.
const MARK: &str = "weighbridge folder 1";
/// The largest length that a ustar header states in octal.
const OCTAL: u64 = 0o77_777_777_777;

/// A file or folder to be packed, by its name in the tar.
pub(super) struct Entry {
    /// With `/` between folders, and none at the end.
    pub(super) name: String,
    /// Where its bytes are; `None` for a folder.
    pub(super) file: Option<(PathBuf, u64)>,
}

/// A tar to be, read at any offset.
pub(super) struct Packed {
    parts: Vec<(u64, Part)>,
    len: u64,
    /// The file that was read last, which the next bytes are likely of.
    open: Mutex<Option<(usize, Source)>>,
}

enum Part {
    Fixed(Vec<u8>),
    File(PathBuf, u64),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Fixed(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }
}

impl Packed {
    pub(super) fn new(entries: Vec<Entry>) -> Result<Self> {
        let mut packed = Self { parts: Vec::new(), len: 0, open: Mutex::default() };
        let record = pax("comment", MARK);
        let mut head = header("pax_global_header", EntryType::XGlobalHeader, record.len() as u64)?;
        push_padded(&mut head, &record);
        for entry in entries {
            let kind = if entry.file.is_some() { EntryType::Regular } else { EntryType::Directory };
            let name = if entry.file.is_some() { entry.name } else { format!("{}/", entry.name) };
            let len = entry.file.as_ref().map_or(0, |(_, len)| *len);
            let mut records = Vec::new();
            let fits = name.is_ascii() && Header::new_ustar().set_path(&name).is_ok();
            if !fits {
                records.extend(pax("path", &name));
            }
            if len > OCTAL {
                records.extend(pax("size", &len.to_string()));
            }
            if !records.is_empty() {
                head.extend(header("pax_header", EntryType::XHeader, records.len() as u64)?);
                push_padded(&mut head, &records);
            }
            // A reader that knows no pax sees a name that is cut, and a length that is too small for its bytes.
            let short = if fits { &*name } else { "pax_named" };
            head.extend(header(short, kind, len.min(OCTAL))?);
            if let Some((path, len)) = entry.file {
                packed.push(Part::Fixed(std::mem::take(&mut head)))?;
                packed.push(Part::File(path, len))?;
                head.resize((len.next_multiple_of(BLOCK) - len) as usize, 0);
            }
        }
        head.resize(head.len() + 2 * BLOCK as usize, 0);
        packed.push(Part::Fixed(head))?;
        Ok(packed)
    }

    fn push(&mut self, part: Part) -> Result<()> {
        let len = part.len();
        self.parts.push((self.len, part));
        let end = self.len.checked_add(len).filter(|&end| end <= i64::MAX as u64);
        self.len = end.ok_or_else(|| Error::limit("the folder is larger than a file can be"))?;
        Ok(())
    }

    /// Reads a part of a file, which must be as long as when the folder was listed.
    fn read_file(&self, part: usize, path: &PathBuf, len: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match &*open {
            Some((number, source)) if *number == part => source.clone(),
            _ => Source::open(path)?,
        };
        if source.len() != len {
            let what = format!("the file had {len} bytes, and has {} now", source.len());
            return Err(Error::invalid_options(what)
                .with_path(path)
                .with_hint("something writes to the folder; wait for it to end"));
        }
        *open = Some((part, source.clone()));
        drop(open);
        source.reader().read_at(at, buf).map_err(|e| e.with_path(path))
    }
}

impl ReadAt for Packed {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Error::malformed(format!("{} bytes at {offset} pass the end", buf.len())));
        }
        let mut at = offset;
        let mut number = self.parts.partition_point(|(begin, _)| *begin <= at).saturating_sub(1);
        while !buf.is_empty() {
            let Some((begin, part)) = self.parts.get(number) else {
                return Err(Error::malformed("the tar is shorter than its parts"));
            };
            let within = at - begin;
            let count = (part.len() - within).min(buf.len() as u64) as usize;
            let (now, later) = buf.split_at_mut(count);
            match part {
                Part::Fixed(bytes) => now.copy_from_slice(&bytes[within as usize..within as usize + count]),
                Part::File(..) if count == 0 => {}
                Part::File(path, len) => self.read_file(number, path, *len, within, now)?,
            }
            buf = later;
            at += count as u64;
            number += 1;
        }
        Ok(())
    }
}

/// A record of pax: its own length, the key and the value.
fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    // The length counts its own digits.
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}").into_bytes()
}

fn header(name: &str, kind: EntryType, len: u64) -> Result<Vec<u8>> {
    let mut header = Header::new_ustar();
    header.set_path(name).map_err(|_| Error::invalid_options(format!("{name:?} is no name in a tar")))?;
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o700 } else { 0o600 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(len);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

fn push_padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len() - bytes.len() + bytes.len().next_multiple_of(BLOCK as usize), 0);
}

/// A file in a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name below the folder that all members share, with `/` between.
    pub(super) name: String,
    /// Where its bytes begin.
    pub(super) offset: u64,
    /// Their number.
    pub(super) len: u64,
}

/// What a tar holds.
#[derive(Debug)]
pub(super) struct Listing {
    /// The files in the order of their names.
    pub(super) members: Vec<Member>,
    /// Whether the comment says that this is a folder of ours.
    pub(super) marked: bool,
}

/// Whether bytes begin as a tar does.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(..BLOCK as usize).is_some_and(|block| checked(block).is_some())
        && head.get(257..262) == Some(b"ustar")
}

/// Lists a tar without reading its files.
///
/// # Errors
/// `UnsafeContent` for names that leave the folder, that another system takes for something else, or that are one name
/// where case does not count; for links, devices and pipes. `Malformed` for what is no tar; `LimitExceeded`.
pub(super) fn list(tar: &dyn ReadAt) -> Result<Listing> {
    let mut walk = Walk { marked: false, members: Vec::new(), folders: Vec::new() };
    let (mut at, mut seen) = (0, 0usize);
    let (mut path, mut size): (Option<String>, Option<u64>) = (None, None);
    loop {
        let mut block = [0; BLOCK as usize];
        if at + BLOCK > tar.len() {
            return Err(Error::malformed("the tar ends without its mark").at_offset(at));
        }
        tar.read_at(at, &mut block)?;
        if block.iter().all(|&b| b == 0) {
            break;
        }
        let broken = |what: &str| Error::malformed(what.to_owned()).at_offset(at);
        let header = checked(&block).ok_or_else(|| broken("the checksum of a tar header does not agree"))?;
        seen += 1;
        if seen > MEMBERS {
            return Err(Error::limit(format!("the tar has more than {MEMBERS} members")));
        }
        let kind = header.entry_type();
        let stated = header.entry_size().map_err(|_| broken("the length in a tar header is no number"))?;
        let extra = matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        );
        let len = if extra { stated } else { size.take().unwrap_or(stated) };
        let begin = at + BLOCK;
        let end = begin.checked_add(len).filter(|&end| end <= tar.len());
        let end = end.ok_or_else(|| broken("a member passes the end of the tar"))?;
        if extra {
            if len > RECORDS {
                return Err(Error::limit(format!("the records of a member have {len} bytes")).at_offset(at));
            }
            let mut records = vec![0; len as usize];
            tar.read_at(begin, &mut records)?;
            match kind {
                EntryType::GNULongName => {
                    let name = records.split(|&b| b == 0).next().unwrap_or_default();
                    path = Some(text(name).ok_or_else(|| broken("a name in the tar is not UTF-8"))?);
                }
                EntryType::GNULongLink => return Err(link(at)),
                _ => {
                    for (key, value) in
                        pax_records(&records).ok_or_else(|| broken("a pax record is broken"))?
                    {
                        match (kind, &*key) {
                            (EntryType::XGlobalHeader, "comment") => walk.marked |= value == MARK,
                            (_, "path") => path = Some(value),
                            (_, "size") => {
                                size =
                                    Some(value.parse().map_err(|_| broken("a length in pax is no number"))?);
                            }
                            (_, "linkpath") => return Err(link(at)),
                            (_, key) if key.starts_with("GNU.sparse") => {
                                return Err(Error::unsupported("the tar has a sparse file").at_offset(at));
                            }
                            _ => {}
                        }
                    }
                }
            }
        } else {
            let name = match path.take() {
                Some(name) => name,
                None => text(&header.path_bytes()).ok_or_else(|| broken("a name in the tar is not UTF-8"))?,
            };
            match kind {
                EntryType::Regular | EntryType::Continuous => walk.file(&name, begin, len)?,
                EntryType::Directory => walk.folder(&name)?,
                EntryType::Link | EntryType::Symlink => return Err(link(at)),
                EntryType::Char | EntryType::Block | EntryType::Fifo => {
                    return Err(Error::unsafe_content(format!("{name:?} in the tar is a device or pipe"))
                        .at_offset(at));
                }
                _ => {
                    let kind = char::from(kind.as_byte()).escape_default();
                    return Err(Error::unsupported(format!("{name:?} in the tar is of the kind '{kind}'"))
                        .at_offset(at));
                }
            }
        }
        at = end
            .checked_next_multiple_of(BLOCK)
            .ok_or_else(|| broken("a member passes the end of the tar"))?;
    }
    walk.finish()
}

fn link(at: u64) -> Error {
    Error::unsafe_content("the tar has a link, and a model's folder has none")
        .at_offset(at)
        .with_hint("put the file itself in its place (`tar --dereference --hard-dereference`)")
}

/// A header whose checksum agrees.
fn checked(block: &[u8]) -> Option<Header> {
    let header = Header::from_byte_slice(block.get(..BLOCK as usize)?);
    let bytes = block.iter().enumerate();
    let sum: u32 = bytes.map(|(i, &b)| u32::from(if (148..156).contains(&i) { b' ' } else { b })).sum();
    (header.cksum().ok()? == sum).then(|| header.clone())
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// The keys and values of pax records.
fn pax_records(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(12).position(|&b| b == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=')?;
        records.push((text(&record[..equals])?, text(&record[equals + 1..])?));
        bytes = &bytes[len..];
    }
    Some(records)
}

struct Walk {
    marked: bool,
    members: Vec<Member>,
    folders: Vec<String>,
}

impl Walk {
    fn file(&mut self, name: &str, offset: u64, len: u64) -> Result<()> {
        let name = plain(name)?.ok_or_else(|| Error::unsafe_content(format!("{name:?} names no file")))?;
        self.members.push(Member { name, offset, len });
        Ok(())
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        // `./` is the folder that everything is in.
        self.folders.extend(plain(name.trim_end_matches('/'))?);
        Ok(())
    }

    /// Takes off the folder that all are in, and checks that no two names are one.
    fn finish(mut self) -> Result<Listing> {
        let root = self.folders.first().filter(|root| !root.contains('/')).cloned();
        let root = root.map(|root| format!("{root}/"));
        if let Some(root) = root.filter(|root| self.members.iter().all(|m| m.name.starts_with(&**root))) {
            for member in &mut self.members {
                member.name.drain(..root.len());
            }
            self.folders =
                self.folders.iter().filter_map(|f| f.strip_prefix(&*root).map(Into::into)).collect();
        }
        let mut files: HashMap<String, &str> = HashMap::with_capacity(self.members.len());
        for member in &self.members {
            if let Some(other) = files.insert(fold(&member.name), &member.name) {
                return Err(Error::unsafe_content(format!(
                    "{:?} and {other:?} in the tar are one file where case does not count",
                    member.name
                )));
            }
        }
        // Every folder in one spelling, and none that is a file.
        let mut spelled: HashMap<String, &str> = HashMap::new();
        let parents = self.members.iter().map(|m| (&*m.name, false));
        for (name, whole) in parents.chain(self.folders.iter().map(|f| (&**f, true))) {
            let ends = name.match_indices('/').map(|(i, _)| i).chain(whole.then_some(name.len()));
            for folder in ends.filter_map(|end| name.get(..end)) {
                let folded = fold(folder);
                let clash = match spelled.get(&folded) {
                    Some(other) => *other != folder,
                    None => files.contains_key(&folded),
                };
                if clash {
                    let what =
                        format!("{folder:?} in the tar is the name of two things where case does not count");
                    return Err(Error::unsafe_content(what));
                }
                spelled.insert(folded, folder);
            }
        }
        drop((files, spelled));
        self.members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { members: self.members, marked: self.marked })
    }
}

/// A name without `./` before it, if it stays below the folder; `None` for the folder itself.
fn plain(name: &str) -> Result<Option<String>> {
    let mut rest = name;
    while let Some(after) = rest.strip_prefix("./") {
        rest = after;
    }
    if rest == "." || rest.is_empty() && !name.is_empty() {
        return Ok(None);
    }
    if !is_plain_relative(rest) {
        return Err(Error::unsafe_content(format!("{name:?} in the tar is no plain relative name"))
            .with_hint("do not trust this file: it would be written elsewhere"));
    }
    Ok(Some(rest.to_owned()))
}
