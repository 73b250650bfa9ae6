//! The central directory of a zip, and its members as readers.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;

use super::{
    CENTRAL, CENTRAL_LEN, Checked, END, END64, LOCAL, LOCAL_LEN, LOCATOR64, inflate::Inflate, u16_at, u32_at,
    u64_at,
};
use crate::account::{Account, RAISE};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::source::{ReadAt, Source, TRUNCATED};

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    name: Range<u32>,
    /// 0 stored, 8 deflated; nothing else can be read.
    pub method: u16,
    /// The CRC-32 of the content.
    pub crc32: u32,
    /// The length in the file.
    pub compressed: u64,
    /// The length of the content.
    pub size: u64,
    /// Where its local header begins.
    pub header: u64,
}

/// An opened zip.
pub(crate) struct ZipArchive {
    source: Source,
    directory: Vec<u8>,
    entries: Vec<Entry>,
    /// Numbers of entries by the hash of their names, which stand in the directory.
    by_name: HashTable<u32>,
    hasher: RandomState,
}

/// Flag bits that make a member unreadable here: encryption, patch data, strong encryption, masked headers.
const REFUSED_FLAGS: u16 = 0x1 | 0x20 | 0x40 | 0x2000;
/// What a member takes in memory beside its record in the directory: its entry, and its place in the table of names.
const EACH: u64 = size_of::<Entry>() as u64 + 10;
/// The longest comment, and the record before it.
const END_SEARCH: u64 = 65_535 + 22;

impl ZipArchive {
    pub(crate) fn open(source: &Source, limits: &Limits) -> Result<Self> {
        let place = locate(source, limits)?;
        if place.entries > limits.entries {
            let what = format!("the zip declares {} members; the limit is {}", place.entries, limits.entries);
            return Err(Error::limit(what));
        }
        Account::of(limits, source.len())
            .charge(place.size.saturating_add(place.entries.saturating_mul(EACH)))?;
        let directory = source.read_vec(place.offset, place.size, limits)?;
        if directory.len() > u32::MAX as usize {
            return Err(Error::limit("the zip's directory is longer than 4 GiB"));
        }
        let entries = parse(&directory, &place)?;
        check_overlaps(&entries, place.offset)?;
        let mut zip = Self {
            source: source.clone(),
            directory,
            entries,
            by_name: HashTable::new(),
            hasher: RandomState::new(),
        };
        zip.index()?;
        Ok(zip)
    }

    fn index(&mut self) -> Result<()> {
        let mut by_name = HashTable::with_capacity(self.entries.len());
        for (i, entry) in self.entries.iter().enumerate() {
            let name = self.checked_name(entry)?;
            let same = |&other: &u32| self.name(&self.entries[other as usize]) == name;
            let hash = |&other: &u32| self.hasher.hash_one(self.name(&self.entries[other as usize]));
            match by_name.entry(self.hasher.hash_one(name), same, hash) {
                hashbrown::hash_table::Entry::Vacant(place) => _ = place.insert(i as u32),
                hashbrown::hash_table::Entry::Occupied(_) => {
                    let what = format!(
                        "the zip has two members named {name:?}: readers would disagree which one counts"
                    );
                    return Err(Error::unsafe_content(what).at_offset(entry.header));
                }
            }
        }
        self.by_name = by_name;
        Ok(())
    }

    fn checked_name(&self, entry: &Entry) -> Result<&str> {
        let bytes = self.name_bytes(entry);
        let name = std::str::from_utf8(bytes).map_err(|_| {
            Error::unsupported(format!("the member name {:?} is not UTF-8", String::from_utf8_lossy(bytes)))
                .at_offset(entry.header)
        })?;
        let escapes =
            name.starts_with('/') || name.contains(['\\', '\0']) || name.split('/').any(|part| part == "..");
        if escapes {
            let what = format!("the zip member {name:?} would lie outside the archive");
            return Err(Error::unsafe_content(what).at_offset(entry.header));
        }
        Ok(name)
    }

    /// The members, in the order of the directory.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A member's name.
    pub(crate) fn name(&self, entry: &Entry) -> &str {
        let bytes = self.name_bytes(entry);
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The member of a name.
    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        let mut nowhere = self.entries.len();
        self.find_near(name, &mut nowhere)
    }

    /// As [`ZipArchive::find`], where the member is likely to be the one with the number in `next`; that is set to
    /// the number behind the one found.
    pub(crate) fn find_near(&self, name: &str, next: &mut usize) -> Option<&Entry> {
        let likely = self.entries.get(*next).filter(|e| self.name_bytes(e) == name.as_bytes());
        let found = match likely {
            Some(entry) => entry,
            None => {
                let same = |&i: &u32| self.name(&self.entries[i as usize]) == name;
                *next = *self.by_name.find(self.hasher.hash_one(name), same)? as usize;
                self.entries.get(*next)?
            }
        };
        *next += 1;
        Some(found)
    }

    fn name_bytes(&self, entry: &Entry) -> &[u8] {
        &self.directory[entry.name.start as usize..entry.name.end as usize]
    }

    /// A member's content as a reader that checks the CRC-32 once all of it has been read.
    pub(crate) fn reader(&self, entry: &Entry) -> Result<Arc<dyn ReadAt>> {
        let at = |e: Error| e.at_offset(entry.header);
        let name = self.name_bytes(entry);
        let mut local = vec![0; LOCAL_LEN as usize + name.len()];
        self.source.reader().read_at(entry.header, &mut local).map_err(at)?;
        if u32_at(&local, 0) != LOCAL {
            return Err(at(Error::malformed(format!(
                "no local header where member {:?} should begin",
                self.name(entry)
            ))));
        }
        if usize::from(u16_at(&local, 26)) != name.len() || &local[LOCAL_LEN as usize..] != name {
            let what = format!("member {:?} has another name in its local header", self.name(entry));
            return Err(at(Error::unsafe_content(what)));
        }
        if u16_at(&local, 8) != entry.method || u16_at(&local, 6) & REFUSED_FLAGS != 0 {
            let what = format!("the local header of member {:?} contradicts the directory", self.name(entry));
            return Err(at(Error::malformed(what)));
        }
        let start = entry.header + LOCAL_LEN + name.len() as u64 + u64::from(u16_at(&local, 28));
        let slice = self.source.slice(start, entry.compressed).map_err(at)?;
        let label = self.name(entry);
        Ok(match entry.method {
            0 => Arc::new(Checked::new(slice, entry.crc32, label)),
            _ => Arc::new(Inflate::new(slice, entry.size, entry.crc32, label)),
        })
    }

    /// The account of the file.
    pub(crate) fn account(&self, limits: &Limits) -> Account {
        Account::of(limits, self.source.len())
    }

    /// What the directory takes in memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.directory.len() as u64 + self.entries.len() as u64 * EACH
    }

    /// Checks that the members together are not deflated to next to nothing.
    ///
    /// # Errors
    /// `LimitExceeded` if they inflate to more than [`Limits::inflated_bytes`], and [`Limits::INFLATION`] times their
    /// length.
    pub(crate) fn check_inflation(&self, limits: &Limits) -> Result<()> {
        let deflated = self.entries.iter().filter(|e| e.method != 0);
        let (length, size) = deflated.fold((0u64, 0u64), |(length, size), e| {
            (length.saturating_add(e.compressed), size.saturating_add(e.size))
        });
        let most = limits.inflated_bytes.max(length.saturating_mul(Limits::INFLATION));
        if size <= most {
            return Ok(());
        }
        let what = format!("{length} bytes of the zip inflate to {size}; the limit is {most}");
        Err(Error::limit(what).with_hint(RAISE))
    }

    /// Checks that a member's content is no longer than what may be read of one.
    pub(crate) fn check_size(&self, entry: &Entry, limits: &Limits) -> Result<()> {
        // What is stored is no longer than the file; what is deflated may be a thousand times as long.
        let most = match entry.method {
            0 => limits.header_bytes,
            _ => limits.header_bytes.min(limits.inflated_bytes.max(entry.compressed)),
        };
        if entry.size > most {
            let what = format!("member {:?} has {} bytes; the limit is {most}", self.name(entry), entry.size);
            return Err(Error::limit(what).at_offset(entry.header).with_hint(RAISE));
        }
        Ok(())
    }

    /// A member's content in memory, checked.
    pub(crate) fn read(&self, entry: &Entry, limits: &Limits) -> Result<Vec<u8>> {
        self.check_size(entry, limits)?;
        if entry.size > limits.memory / 2 {
            let what = format!("member {:?} has {} bytes", self.name(entry), entry.size);
            return Err(Error::limit(what).at_offset(entry.header).with_hint(RAISE));
        }
        let reader = self.reader(entry)?;
        crate::tensor::Data::Lazy(reader).read_all()
    }
}

/// Where the central directory lies.
struct Place {
    entries: u64,
    offset: u64,
    size: u64,
}

fn locate(source: &Source, limits: &Limits) -> Result<Place> {
    let len = source.len();
    let tail_len = len.min(END_SEARCH);
    let tail_at = len - tail_len;
    let tail = source.read_vec(tail_at, tail_len, limits)?;
    // The comment must reach exactly to the end of the file, so that no second directory hides in it.
    let end = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&i| u32_at(&tail, i) == END && i + 22 + usize::from(u16_at(&tail, i + 20)) == tail.len());
    let Some(end) = end else {
        let what = format!("the zip's directory is missing from the end of the file ({len} bytes)");
        return Err(Error::malformed(what).at_offset(len).with_hint(TRUNCATED));
    };
    let end_at = tail_at + end as u64;
    let bad = |what: &str| Error::malformed(what.to_owned()).at_offset(end_at);
    let (disk, start_disk, here) = (u16_at(&tail, end + 4), u16_at(&tail, end + 6), u16_at(&tail, end + 8));
    let mut place = Place {
        entries: u64::from(u16_at(&tail, end + 10)),
        size: u64::from(u32_at(&tail, end + 12)),
        offset: u64::from(u32_at(&tail, end + 16)),
    };
    let mut limit_at = end_at;
    let locator = end.checked_sub(20).filter(|&l| u32_at(&tail, l) == LOCATOR64);
    if let Some(locator) = locator {
        let record_at = u64_at(&tail, locator + 8);
        if record_at.checked_add(56).is_none_or(|e| e > end_at) {
            return Err(bad("the zip64 locator points past the end"));
        }
        let record = source.read_vec(record_at, 56, limits)?;
        if u32_at(&record, 0) != END64 {
            return Err(bad("there is no zip64 record where its locator points"));
        }
        let wide =
            Place { entries: u64_at(&record, 32), size: u64_at(&record, 40), offset: u64_at(&record, 48) };
        // A narrow field either agrees or says "see zip64"; anything else would show two readers two files.
        let agrees = |narrow: u64, max: u64, wide: u64| narrow == wide || narrow == max;
        if !agrees(place.entries, 0xffff, wide.entries)
            || !agrees(place.size, 0xffff_ffff, wide.size)
            || !agrees(place.offset, 0xffff_ffff, wide.offset)
        {
            return Err(bad("the zip64 record contradicts the end record"));
        }
        place = wide;
        limit_at = record_at;
    } else if u64::from(here) != place.entries || disk != 0 || start_disk != 0 {
        return Err(bad("the zip spans several disks"));
    }
    match place.offset.checked_add(place.size) {
        Some(e) if e <= limit_at && place.entries <= place.size / CENTRAL_LEN as u64 => Ok(place),
        _ => Err(bad("the zip's directory does not fit where its end record puts it")),
    }
}

fn parse(directory: &[u8], place: &Place) -> Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(place.entries as usize);
    let mut at = 0usize;
    for _ in 0..place.entries {
        let bad = |what: &str| Error::malformed(what.to_owned()).at_offset(place.offset + at as u64);
        let Some(record) = directory.get(at..).filter(|r| r.len() >= CENTRAL_LEN && u32_at(r, 0) == CENTRAL)
        else {
            return Err(bad("the zip's directory ends early"));
        };
        let [name, extra, comment] = [28, 30, 32].map(|o| usize::from(u16_at(record, o)));
        let end = CENTRAL_LEN + name + extra + comment;
        let Some(record) = record.get(..end) else {
            return Err(bad("an entry passes the end of the zip's directory"));
        };
        let (flags, method) = (u16_at(record, 8), u16_at(record, 10));
        if flags & REFUSED_FLAGS != 0 {
            return Err(
                bad("a member is encrypted or patched").with_hint("unpack it with the tool that made it")
            );
        }
        if method != 0 && method != 8 {
            let what =
                format!("a member is compressed by method {method}; stored and deflated members can be read");
            return Err(Error::unsupported(what).at_offset(place.offset + at as u64));
        }
        let mut entry = Entry {
            name: (at + CENTRAL_LEN) as u32..(at + CENTRAL_LEN + name) as u32,
            method,
            crc32: u32_at(record, 16),
            compressed: u64::from(u32_at(record, 20)),
            size: u64::from(u32_at(record, 24)),
            header: u64::from(u32_at(record, 42)),
        };
        let extra = &record[CENTRAL_LEN + name..CENTRAL_LEN + name + extra];
        widen(&mut entry, extra).ok_or_else(|| bad("a zip64 field is missing or cut short"))?;
        if method == 0 && entry.compressed != entry.size {
            return Err(bad("a stored member has two lengths"));
        }
        // Deflate makes at most 1032 bytes of one.
        if entry.size / 1032 > entry.compressed {
            return Err(bad("a member claims to expand further than deflate can"));
        }
        entries.push(entry);
        at += end;
    }
    if at != directory.len() {
        let what = "the zip's directory goes on after its last entry";
        return Err(Error::malformed(what).at_offset(place.offset + at as u64));
    }
    Ok(entries)
}

/// Takes 64-bit values from the zip64 extra field, for each 32-bit field that says so.
fn widen(entry: &mut Entry, mut extra: &[u8]) -> Option<()> {
    const MAX: u64 = 0xffff_ffff;
    if entry.size != MAX && entry.compressed != MAX && entry.header != MAX {
        return Some(());
    }
    while extra.len() >= 4 {
        let len = usize::from(u16_at(extra, 2));
        let field = extra.get(4..4 + len)?;
        if u16_at(extra, 0) == 1 {
            let mut at = 0;
            for value in [&mut entry.size, &mut entry.compressed, &mut entry.header] {
                if *value == MAX {
                    field.get(at..at + 8)?;
                    *value = u64_at(field, at);
                    at += 8;
                }
            }
            return Some(());
        }
        extra = &extra[4 + len..];
    }
    // Without the field the values stand for themselves, exactly 4 GiB - 1.
    Some(())
}

fn check_overlaps(entries: &[Entry], directory: u64) -> Result<()> {
    let mut previous_end = 0u64;
    let mut check = |entry: &Entry| {
        let end = (LOCAL_LEN + u64::from(entry.name.end - entry.name.start))
            .checked_add(entry.compressed)
            .and_then(|n| n.checked_add(entry.header));
        let fits = entry.header >= previous_end && end.is_some_and(|e| e <= directory);
        previous_end = end.unwrap_or(u64::MAX);
        fits
    };
    let ordered = entries.is_sorted_by_key(|e| e.header);
    let fit = if ordered {
        entries.iter().all(&mut check)
    } else {
        let mut by_place: Vec<&Entry> = entries.iter().collect();
        by_place.sort_unstable_by_key(|e| e.header);
        by_place.into_iter().all(&mut check)
    };
    if fit {
        Ok(())
    } else {
        Err(Error::unsafe_content("members of the zip overlap each other or its directory")
            .at_offset(directory))
    }
}
