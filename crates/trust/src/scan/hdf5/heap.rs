//! Where names, variable-length values and many small things are kept: local, global and fractal heaps.

use std::collections::HashMap;

use weighbridge_formats::{Error, Result};

use super::file::{Cursor, File};

/// The most objects that are remembered of all global heaps together.
const MOST_OBJECTS: usize = 400_000;

/// The names of a group of the old kind, or of external files.
pub(super) struct LocalHeap {
    data: Vec<u8>,
    address: u64,
}

impl LocalHeap {
    /// Reads the heap at an address.
    pub(super) fn open(file: &mut File<'_>, address: u64) -> Result<Self> {
        let head = file.read_up_to(address, 64)?;
        let mut c = Cursor::new(&head, address);
        c.mark(b"HEAP")?;
        c.skip(4)?;
        let size = c.number(file.length_size)?;
        c.skip(file.length_size)?;
        let data = c.number(file.offset_size)?;
        Ok(Self { data: file.read(data, size)?, address: data })
    }

    /// The text at an offset.
    pub(super) fn text(&self, offset: u64) -> Result<String> {
        let from = usize::try_from(offset).ok().filter(|&o| o < self.data.len());
        let from = from.ok_or_else(|| {
            Error::malformed(format!("a name at {offset} of a heap of {} bytes", self.data.len()))
                .at_offset(self.address)
        })?;
        let rest = self.data.get(from..).unwrap_or_default();
        Ok(String::from_utf8_lossy(rest.split(|&b| b == 0).next().unwrap_or_default()).into_owned())
    }
}

/// An object of a collection: its number, its address and its length.
pub(super) type Stored = (u32, u64, u64);

/// The objects of global heaps, by the address of their collection, in the order of their numbers.
#[derive(Default)]
pub(super) struct GlobalHeap {
    collections: HashMap<u64, Vec<Stored>>,
    objects: usize,
}

impl GlobalHeap {
    /// An object's bytes.
    pub(super) fn object(&mut self, file: &mut File<'_>, address: u64, index: u32) -> Result<Vec<u8>> {
        let stored = self.list(file, address)?;
        let found = stored.binary_search_by_key(&index, |s| s.0).ok().and_then(|i| stored.get(i)).copied();
        let Some((_, at, len)) = found else {
            return Err(Error::malformed(format!("no object {index} in the global heap")).at_offset(address));
        };
        file.read(at, len)
    }

    /// The objects of the collection at an address.
    pub(super) fn list(&mut self, file: &mut File<'_>, address: u64) -> Result<&[Stored]> {
        if !self.collections.contains_key(&address) {
            // One that cannot be read has no objects, the second time too.
            self.collections.insert(address, Vec::new());
            let found = self.collect(file, address)?;
            self.collections.insert(address, found);
        }
        Ok(self.collections.get(&address).map(Vec::as_slice).unwrap_or_default())
    }

    fn collect(&mut self, file: &mut File<'_>, address: u64) -> Result<Vec<Stored>> {
        let head = file.read(address, 8 + file.length_size as u64)?;
        let mut c = Cursor::new(&head, address);
        c.mark(b"GCOL")?;
        c.skip(4)?;
        let size = c.number(file.length_size)?;
        let body = file.read(address, size)?;
        let mut c = Cursor::new(&body, address);
        c.skip(head.len())?;
        let mut found = Vec::new();
        while c.left() >= 8 + file.length_size {
            let index = c.u16()?;
            c.skip(6)?;
            let len = c.number(file.length_size)?;
            // Number zero is the free space behind the objects.
            if index == 0 {
                break;
            }
            self.objects += 1;
            if self.objects > MOST_OBJECTS {
                return Err(Error::limit(format!("global heaps of more than {MOST_OBJECTS} objects")));
            }
            found.push((index.into(), address.saturating_add(c.at as u64), len));
            let padded = usize::try_from(len).ok().and_then(|n| n.checked_next_multiple_of(8));
            match padded.filter(|&n| n <= c.left()) {
                Some(padded) => c.skip(padded)?,
                None => break,
            }
        }
        found.sort_unstable();
        found.dedup_by_key(|s| s.0);
        Ok(found)
    }
}

/// A fractal heap: many small things in blocks whose sizes double from row to row.
pub(super) struct FractalHeap {
    flags_filtered: bool,
    offset_bytes: usize,
    length_bytes: usize,
    width: u64,
    start: u64,
    max_direct: u64,
    root: u64,
    rows: u32,
    huge_tree: u64,
    huge_direct: bool,
    /// Blocks that were read, by address.
    blocks: HashMap<u64, Vec<u8>>,
    huge: Option<HashMap<u64, (u64, u64)>>,
}

/// The bits that a number takes, less one.
fn log2(n: u64) -> u32 {
    63 - (n | 1).leading_zeros()
}

impl FractalHeap {
    /// Reads the heap's header.
    pub(super) fn open(file: &mut File<'_>, address: u64) -> Result<Self> {
        let head = file.read_up_to(address, 256)?;
        let mut c = Cursor::new(&head, address);
        let (o, l) = (file.offset_size, file.length_size);
        c.mark(b"FRHP")?;
        c.skip(1)?;
        let id_len = usize::from(c.u16()?);
        let filters = c.u16()?;
        c.skip(1)?;
        let max_managed = u64::from(c.u32()?);
        c.skip(l)?;
        let huge_tree = c.number(o)?;
        c.skip(l + o + 8 * l)?;
        let width = u64::from(c.u16()?);
        let (start, max_direct) = (c.number(l)?, c.number(l)?);
        let bits = u32::from(c.u16()?);
        c.skip(2)?;
        let root = c.number(o)?;
        let rows = u32::from(c.u16()?);
        let sound = width.is_power_of_two()
            && start.is_power_of_two()
            && max_direct.is_power_of_two()
            && start <= max_direct
            && (1..=64).contains(&bits)
            && max_direct <= 1 << 26;
        if !sound {
            let what =
                format!("a fractal heap of {width} blocks of {start} to {max_direct} bytes in {bits} bits");
            return Err(Error::malformed(what).at_offset(address));
        }
        let direct_bytes = log2(max_direct).div_ceil(8) as usize;
        let managed_bytes = (log2(max_managed) / 8 + 1) as usize;
        Ok(Self {
            flags_filtered: filters != 0,
            offset_bytes: bits.div_ceil(8) as usize,
            length_bytes: direct_bytes.min(managed_bytes),
            width,
            start,
            max_direct,
            root,
            rows,
            huge_tree,
            huge_direct: id_len > o + l,
            blocks: HashMap::new(),
            huge: None,
        })
    }

    /// The object of a heap id: its address where it has one, and its bytes.
    pub(super) fn object(&mut self, file: &mut File<'_>, id: &[u8]) -> Result<(u64, Vec<u8>)> {
        let mut c = Cursor::new(id, 0);
        let first = c.u8()?;
        match first >> 4 & 3 {
            0 => {
                let (offset, len) = (c.number(self.offset_bytes)?, c.number(self.length_bytes)?);
                self.managed(file, offset, len)
            }
            1 => self.huge(file, &mut c),
            2 => {
                let len = usize::from(first & 15) + 1;
                Ok((0, c.take(len.min(c.left()))?.to_vec()))
            }
            _ => Err(Error::malformed("an object of a heap that is of no kind")),
        }
    }

    fn huge(&mut self, file: &mut File<'_>, c: &mut Cursor<'_>) -> Result<(u64, Vec<u8>)> {
        if self.flags_filtered {
            return Err(Error::unsupported("a compressed heap"));
        }
        let (o, l) = (file.offset_size, file.length_size);
        let (at, len) = if self.huge_direct {
            (c.number(o)?, c.number(l)?)
        } else {
            if self.huge.is_none() {
                let records = super::tree::records(file, self.huge_tree)?;
                let mut found = HashMap::new();
                for record in records {
                    let mut r = Cursor::new(&record, self.huge_tree);
                    let (at, len) = (r.number(o)?, r.number(l)?);
                    found.insert(r.number(l)?, (at, len));
                }
                self.huge = Some(found);
            }
            let id = c.number(c.left().min(8))?;
            let found = self.huge.as_ref().and_then(|h| h.get(&id)).copied();
            found.ok_or_else(|| Error::malformed(format!("no huge object {id} in the heap")))?
        };
        Ok((at, file.read(at, len)?))
    }

    /// Bytes in the heap's own space, through the rows of its table.
    fn managed(&mut self, file: &mut File<'_>, offset: u64, len: u64) -> Result<(u64, Vec<u8>)> {
        if self.flags_filtered {
            return Err(Error::unsupported("a compressed heap"));
        }
        let outside =
            || Error::malformed(format!("an object at {offset} of a fractal heap, which ends before"));
        let (mut address, mut rows, mut relative) = (self.root, self.rows, offset);
        // The root is a block, or a table of blocks and further tables. Each step down leaves a smaller space.
        let mut size = self.start;
        for _ in 0..64 {
            if file.is_undefined(address) {
                return Err(outside());
            }
            if rows == 0 {
                let end = relative.checked_add(len).filter(|&e| e <= size).ok_or_else(outside)?;
                let block = self.block(file, address, size)?;
                let found = block.get(relative as usize..end as usize).ok_or_else(outside)?;
                return Ok((address.saturating_add(relative), found.to_vec()));
            }
            let row = self.row_of(relative).filter(|r| *r < rows).ok_or_else(outside)?;
            let (row_start, row_size) = self.row(row).ok_or_else(outside)?;
            let column = (relative - row_start) / row_size;
            let entry = self.entry(file, (address, rows), (row, column))?;
            relative = (relative - row_start) % row_size;
            address = entry;
            rows = if row_size <= self.max_direct {
                size = row_size;
                0
            } else {
                let least = self.start.checked_mul(self.width).ok_or_else(outside)?;
                log2(row_size).saturating_sub(log2(least)) + 1
            };
        }
        Err(outside())
    }

    fn block(&mut self, file: &mut File<'_>, address: u64, len: u64) -> Result<&Vec<u8>> {
        Ok(match self.blocks.entry(address) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(file.read_up_to(address, len)?),
        })
    }

    /// The row that an offset is in.
    fn row_of(&self, offset: u64) -> Option<u32> {
        let first = self.width.checked_mul(self.start)?;
        Some(if offset < first { 0 } else { log2(offset / first) + 1 })
    }

    /// Where a row begins, and the size of its blocks.
    fn row(&self, row: u32) -> Option<(u64, u64)> {
        let first = self.width.checked_mul(self.start)?;
        match row {
            0 => Some((0, self.start)),
            r => Some((
                first.checked_mul(1 << (r - 1).min(63))?,
                self.start.checked_mul(1 << (r - 1).min(63))?,
            )),
        }
    }

    /// The address in one place of a table.
    fn entry(
        &mut self,
        file: &mut File<'_>,
        (table, rows): (u64, u32),
        (row, column): (u32, u64),
    ) -> Result<u64> {
        let head = 5 + file.offset_size + self.offset_bytes;
        let o = file.offset_size as u64;
        let len = head as u64 + u64::from(rows) * self.width * o;
        let place = u64::from(row) * self.width + column;
        let bytes = self.block(file, table, len)?;
        let mut c = Cursor::new(bytes, table);
        c.mark(b"FHIB")?;
        c.skip(head - 4)?;
        c.skip((place * o) as usize)?;
        c.number(o as usize)
    }
}
