//! The elements of a strided view, in row-major order.
//!
//! A view's dimensions are merged where they lie one after another, and an innermost dimension of stride 1
//! becomes the unit that is copied. What is then left to decide is how to read a source that is no memory:
//!
//! - Where the output's order is the source's (a slice of columns, every second row), each chunk reads its span
//!   in windows of up to [`WINDOW`] bytes, and skips gaps of more than [`GAP`] bytes.
//! - Where it is not (a transposed matrix), a chunk of a few output rows is a few source columns: a short run of
//!   bytes in every source row. One read for each element would be slow and reading the whole source for every
//!   chunk quadratic, so the reader makes tiles of up to [`TILE`] output bytes, which serve several chunks. A
//!   tile of k whole output rows costs one read of k elements for each source row. A transposed f32 matrix of
//!   20,000 × 20,000 (1.5 GiB) is 96 tiles with 20,000 reads of 800 bytes each. The longer the output rows, the
//!   shorter the runs: with rows that exceed a tile, a run is one element and costs a read of its own, or a
//!   share of a read-through window where source rows are shorter than [`GAP`].
//! - A source in memory is gathered from directly.
//!
//! Two tiles at most are kept, so that two workers on either side of a tile's border do not make each other's
//! tile again; a tile is dropped when all of it has been handed out, and both when the reader is finished.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::source::{Access, FileSpan, ReadAt, check_range};
use crate::tensor::{Data, element_count, zeroed};

/// The most bytes of a tile. Two are kept at most.
const TILE: u64 = 16 << 20;
/// The most bytes that one read-through takes into scratch memory.
const WINDOW: u64 = 1 << 20;
/// The gap that is read through rather than skipped: a read call costs about as much as copying this many bytes.
const GAP: u64 = 4096;
/// Units of at least this many bytes are worth a read each, in any order.
const LARGE_UNIT: u64 = 32 << 10;
/// How many separate runs are read before they are scattered together.
const PACK: u64 = 64;

/// The elements of a strided view of a storage, contiguous in row-major order.
///
/// Strides may be 0 (expanded dimensions) and views may overlap themselves. Chunks may begin and end anywhere.
/// Reading takes at most two tiles of 16 MiB and 1 MiB of scratch memory for each thread; see the source's module
/// documentation for the number of reads.
///
/// ```
/// use weighbridge_formats::transform::Strided;
/// use weighbridge_formats::{Data, ReadAt};
///
/// // The transpose of a 2 × 3 matrix of bytes.
/// let transposed = Strided::new(Data::Borrowed(&[1, 2, 3, 4, 5, 6]), 1, &[3, 2], &[1, 3], 0)?;
/// let mut out = [0; 6];
/// transposed.read_at(0, &mut out)?;
/// assert_eq!(out, [1, 4, 2, 5, 3, 6]);
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
pub struct Strided<'a> {
    storage: Data<'a>,
    /// The first element's first byte.
    base: u64,
    /// The bytes that are copied together.
    unit: u64,
    /// The dimensions of units, outermost first; each has at least two.
    dims: Dims,
    len: u64,
    /// Whether chunks are gathered without tiles.
    direct: bool,
    /// The bytes of a tile: whole rows of some dimension.
    tile: u64,
    tiles: Mutex<[Option<Arc<Tile>>; 2]>,
}

type Dims = SmallVec<[Dim; 6]>;

/// A dimension of a box of units; distances in bytes.
#[derive(Clone, Copy, Debug)]
struct Dim {
    count: u64,
    /// The distance of neighbours in the source.
    from: u64,
    /// The distance of neighbours in the output.
    to: u64,
}

struct Tile {
    index: u64,
    content: Mutex<TileContent>,
}

#[derive(Default)]
struct TileContent {
    bytes: Option<Arc<Vec<u8>>>,
    /// How many bytes were handed out.
    served: u64,
}

impl<'a> Strided<'a> {
    /// A view of `storage` with elements of `element_bytes` bytes. `strides` and `offset` are in elements.
    ///
    /// # Errors
    /// `Malformed` if shape and strides differ in length, if a product overflows, or if an element lies outside
    /// the storage.
    pub fn new(
        storage: Data<'a>,
        element_bytes: u64,
        shape: &[u64],
        strides: &[u64],
        offset: u64,
    ) -> Result<Self> {
        if shape.len() != strides.len() {
            let what = format!("{} dimensions with {} strides", shape.len(), strides.len());
            return Err(Error::malformed(what));
        }
        let too_large = || Error::malformed(format!("shape {shape:?} with strides {strides:?} overflows"));
        let elements = element_count(shape).ok_or_else(too_large)?;
        let len = elements.checked_mul(element_bytes).ok_or_else(too_large)?;
        let mut view = Self {
            storage,
            base: 0,
            unit: element_bytes,
            dims: Dims::new(),
            len,
            direct: true,
            tile: TILE,
            tiles: Mutex::default(),
        };
        if len == 0 {
            return Ok(view);
        }
        let mut last = offset;
        for (&count, &stride) in shape.iter().zip(strides) {
            let reach = (count - 1).checked_mul(stride).and_then(|r| last.checked_add(r));
            last = reach.ok_or_else(too_large)?;
        }
        let end = last.checked_add(1).and_then(|n| n.checked_mul(element_bytes)).ok_or_else(too_large)?;
        if end > view.storage.len() {
            return Err(Error::malformed(format!(
                "shape {shape:?} with strides {strides:?} and offset {offset} reaches byte {end} of a storage of {}",
                view.storage.len()
            )));
        }
        // No product below overflows: each dimension of at least two units reaches no further than `end`.
        view.base = offset * element_bytes;
        for (&count, &stride) in shape.iter().zip(strides).filter(|&(&count, _)| count > 1) {
            let from = stride * element_bytes;
            match view.dims.last_mut() {
                Some(outer) if Some(outer.from) == from.checked_mul(count) => {
                    *outer = Dim { count: outer.count * count, from, to: 0 };
                }
                _ => view.dims.push(Dim { count, from, to: 0 }),
            }
        }
        if let Some(&inner) = view.dims.last().filter(|inner| inner.from == element_bytes) {
            view.unit = inner.count * element_bytes;
            view.dims.pop();
        }
        let mut inner = view.unit;
        let mut rows = view.unit;
        for dim in view.dims.iter_mut().rev() {
            if inner <= TILE {
                rows = inner;
            }
            dim.to = inner;
            inner *= dim.count;
        }
        view.tile = (TILE / rows).max(1) * rows;
        let ordered = view.dims.windows(2).all(|pair| pair[0].from >= pair[1].from);
        view.direct = ordered || view.unit >= LARGE_UNIT || view.storage.as_slice().is_some();
        Ok(view)
    }

    /// Where in the source the unit of this number begins.
    fn source_of(&self, unit: u64) -> u64 {
        let mut output = unit * self.unit;
        let mut at = self.base;
        for dim in &self.dims {
            at += output / dim.to * dim.from;
            output %= dim.to;
        }
        at
    }

    /// Gathers the output bytes from `offset`.
    fn gather(&self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let mut unit = offset / self.unit;
        let within = offset % self.unit;
        if within != 0 {
            let head = (self.unit - within).min(buf.len() as u64) as usize;
            let (head, rest) = buf.split_at_mut(head);
            self.storage.read_at(self.source_of(unit) + within, head)?;
            buf = rest;
            unit += 1;
        }
        let whole = buf.len() as u64 / self.unit * self.unit;
        let (whole, tail) = buf.split_at_mut(whole as usize);
        self.gather_units(unit, whole)?;
        if !tail.is_empty() {
            self.storage.read_at(self.source_of(unit + whole.len() as u64 / self.unit), tail)?;
        }
        Ok(())
    }

    /// Gathers whole units. A run of the output is at most two boxes for each dimension: the end of a row, whole
    /// rows, and the beginning of a row.
    fn gather_units(&self, mut unit: u64, mut buf: &mut [u8]) -> Result<()> {
        let mut scratch = Vec::new();
        while !buf.is_empty() {
            let at = unit * self.unit;
            let left = buf.len() as u64;
            // The outermost dimension that stands at the beginning of a row of its own, whole rows of which are left.
            let level = self.dims.iter().position(|d| at.is_multiple_of(d.to) && d.to <= left);
            let Some(level) = level else {
                return self.storage.read_at(self.source_of(unit), buf); // No dimensions: one unit.
            };
            let dim = self.dims[level];
            let index = at / dim.to % dim.count;
            let take = (dim.count - index).min(left / dim.to);
            let (part, rest) = buf.split_at_mut((take * dim.to) as usize);
            let mut dims: Dims = self.dims[level..].into();
            dims[0].count = take;
            dims.retain(|d| d.count > 1);
            // In the order of the source, so that reads go forward and neighbours are read together.
            dims.sort_by_key(|d| std::cmp::Reverse(d.from));
            self.gather_box(self.source_of(unit), &dims, part, &mut scratch)?;
            unit += part.len() as u64 / self.unit;
            buf = rest;
        }
        Ok(())
    }

    /// Gathers a box of units, whose dimensions are sorted by falling distance in the source.
    fn gather_box(&self, base: u64, dims: &[Dim], out: &mut [u8], scratch: &mut Vec<u8>) -> Result<()> {
        if let Some(storage) = self.storage.as_slice() {
            // `new` has checked that the view lies within the storage.
            copy_box(&storage[base as usize..], dims, self.unit as usize, out);
            return Ok(());
        }
        // As many inner dimensions as one read of at most a window covers without large gaps.
        let (mut inner, mut span) = (dims.len(), self.unit);
        let mut through = 1;
        while let Some(dim) = inner.checked_sub(1).map(|i| dims[i]) {
            if dim.from.saturating_sub(span) > GAP {
                break;
            }
            let reach = (dim.count - 1) * dim.from + span;
            if reach > WINDOW {
                through = WINDOW.saturating_sub(span) / dim.from.max(1) + 1;
                break;
            }
            (inner, span) = (inner - 1, reach);
        }
        if inner == 0 {
            return self.read_box(base, span, dims, out, scratch);
        }
        let (outer, blocks, inner) = (&dims[..inner - 1], dims[inner - 1], &dims[inner..]);
        // Blocks of the next dimension: through their gaps if these are small, else run by run.
        let packed = if through > 1 { 1 } else { (WINDOW / span).clamp(1, PACK) };
        let step = through.max(packed);
        let mut part: Dims = SmallVec::with_capacity(inner.len() + 1);
        let mut counters: SmallVec<[u64; 6]> = SmallVec::from_elem(0, outer.len());
        loop {
            let (from, to) = outer
                .iter()
                .zip(&counters)
                .fold((base, 0), |(from, to), (d, &i)| (from + i * d.from, to + i * d.to));
            let mut first = 0;
            while first < blocks.count {
                let count = step.min(blocks.count - first);
                let (from, to) = (from + first * blocks.from, (to + first * blocks.to) as usize);
                first += count;
                part.clear();
                if through > 1 {
                    part.push(Dim { count, ..blocks });
                    part.extend_from_slice(inner);
                    let span = (count - 1) * blocks.from + span;
                    self.read_box(from, span, &part, &mut out[to..], scratch)?;
                } else if inner.is_empty() && count == 1 {
                    self.storage.read_at(from, &mut out[to..to + self.unit as usize])?;
                } else {
                    let runs = grow(scratch, count * span)?;
                    for (i, run) in runs.chunks_exact_mut(span as usize).enumerate() {
                        self.storage.read_at(from + i as u64 * blocks.from, run)?;
                    }
                    part.push(Dim { count, from: span, to: blocks.to });
                    part.extend_from_slice(inner);
                    copy_box(runs, &part, self.unit as usize, &mut out[to..]);
                }
            }
            // The next index of the outer dimensions, the last one fastest.
            let next = (0..outer.len()).rev().find(|&d| {
                counters[d] += 1;
                if counters[d] == outer[d].count {
                    counters[d] = 0;
                }
                counters[d] != 0
            });
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Gathers a box by one read of its span.
    fn read_box(
        &self,
        base: u64,
        span: u64,
        dims: &[Dim],
        out: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        if dims.is_empty() {
            return self.storage.read_at(base, &mut out[..self.unit as usize]);
        }
        let window = grow(scratch, span)?;
        self.storage.read_at(base, window)?;
        copy_box(window, dims, self.unit as usize, out);
        Ok(())
    }

    /// Reads through tiles.
    fn read_tiled(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let index = offset / self.tile;
            let within = (offset % self.tile) as usize;
            let tile_len = self.tile.min(self.len - index * self.tile);
            let (part, rest) = buf.split_at_mut(buf.len().min(tile_len as usize - within));
            if part.len() as u64 == tile_len {
                self.gather(offset, part)?;
            } else {
                let tile = self.tile_at(index);
                let mut content = lock(&tile.content);
                let bytes = match &content.bytes {
                    Some(bytes) => bytes.clone(),
                    None => {
                        let mut bytes = zeroed(tile_len)?;
                        self.gather(index * self.tile, &mut bytes)?;
                        content.bytes.insert(Arc::new(bytes)).clone()
                    }
                };
                content.served += part.len() as u64;
                if content.served >= tile_len {
                    *content = TileContent::default();
                }
                drop(content);
                part.copy_from_slice(&bytes[within..within + part.len()]);
            }
            offset += part.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    /// The tile of a number, which may have no content yet. The lower of two other tiles makes room for it.
    fn tile_at(&self, index: u64) -> Arc<Tile> {
        let mut tiles = lock(&self.tiles);
        if let Some(tile) = tiles.iter().flatten().find(|t| t.index == index) {
            return tile.clone();
        }
        let tile = Arc::new(Tile { index, content: Mutex::default() });
        let rank = |slot: &Option<Arc<Tile>>| slot.as_ref().map(|t| t.index);
        let slot = if rank(&tiles[0]) <= rank(&tiles[1]) { 0 } else { 1 };
        tiles[slot] = Some(tile.clone());
        tile
    }
}

/// Locks, whatever became of another thread that held the lock: tiles are replaced whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At least `len` bytes of scratch memory.
fn grow(scratch: &mut Vec<u8>, len: u64) -> Result<&mut [u8]> {
    if (scratch.len() as u64) < len {
        *scratch = zeroed(len)?;
    }
    Ok(&mut scratch[..len as usize])
}

/// Copies a box of units from memory to memory.
fn copy_box(from: &[u8], dims: &[Dim], unit: usize, to: &mut [u8]) {
    // A unit of a known width is a register move and no call.
    match unit {
        1 => copy_planes(from, dims, copy_plane::<1>, to),
        2 => copy_planes(from, dims, copy_plane::<2>, to),
        4 => copy_planes(from, dims, copy_plane::<4>, to),
        8 => copy_planes(from, dims, copy_plane::<8>, to),
        16 => copy_planes(from, dims, copy_plane::<16>, to),
        n => copy_planes(from, dims, |f, rows, columns, t| walk(f, rows, columns, n, t), to),
    }
}

/// Copies a box plane by plane: the dimension that is nearest in the source, and the one that is nearest in the
/// output (a dimension of one unit if both are the same).
fn copy_planes(from: &[u8], dims: &[Dim], plane: impl Fn(&[u8], Dim, Dim, &mut [u8]), to: &mut [u8]) {
    let one = Dim { count: 1, from: 0, to: 0 };
    let fast_in = dims.iter().enumerate().min_by_key(|(_, d)| d.from).map(|(i, _)| i);
    let fast_out = dims.iter().enumerate().min_by_key(|(_, d)| d.to).map(|(i, _)| i);
    let columns = fast_out.map_or(one, |i| dims[i]);
    let rows = if fast_in == fast_out { one } else { fast_in.map_or(one, |i| dims[i]) };
    let others = dims.iter().enumerate().filter(|&(i, _)| Some(i) != fast_in && Some(i) != fast_out);
    let others: SmallVec<[Dim; 6]> = others.map(|(_, d)| *d).collect();
    let mut counters: SmallVec<[u64; 6]> = SmallVec::from_elem(0, others.len());
    loop {
        let (source, target) = others
            .iter()
            .zip(&counters)
            .fold((0, 0), |(f, t), (d, &i)| (f + (i * d.from) as usize, t + (i * d.to) as usize));
        plane(&from[source..], rows, columns, &mut to[target..]);
        let next = (0..others.len()).rev().find(|&d| {
            counters[d] += 1;
            if counters[d] == others[d].count {
                counters[d] = 0;
            }
            counters[d] != 0
        });
        if next.is_none() {
            return;
        }
    }
}

/// Copies a plane of units of `N` bytes.
fn copy_plane<const N: usize>(from: &[u8], rows: Dim, columns: Dim, to: &mut [u8]) {
    if rows.from == N as u64 && columns.to == N as u64 && rows.count > 1 {
        transpose::<N>(from, rows, columns, to);
    } else {
        walk(from, rows, columns, N, to);
    }
}

/// A cache line.
const LINE: usize = 64;
/// Lines of a source row that are read in one visit.
const PANEL: usize = 16;

/// Copies a plane whose rows lie together in the source and whose columns lie together in the output: squares of
/// whole lines, each of which is read once and written once. The square between them lies together in memory,
/// because the lines of a matrix of 2^n columns would push each other out of the cache.
fn transpose<const N: usize>(from: &[u8], rows: Dim, columns: Dim, to: &mut [u8]) {
    let side = LINE / N;
    let mut square = [[0u8; LINE]; LINE];
    let (row_count, column_count) = (rows.count as usize, columns.count as usize);
    let (row_to, column_from) = (rows.to as usize, columns.from as usize);
    // Panels of several lines: a visit to a source row, which is a page of its own, reads them one after another.
    for panel in (0..row_count).step_by(PANEL * side) {
        let panel_end = row_count.min(panel + PANEL * side);
        for column in (0..column_count).step_by(side) {
            let width = side.min(column_count - column);
            for row in (panel..panel_end).step_by(side) {
                let height = side.min(panel_end - row);
                for (i, line) in square[..width].iter_mut().enumerate() {
                    let at = (column + i) * column_from + row * N;
                    // A copy of a whole line has a known length.
                    match (height == side).then(|| from[at..].first_chunk::<LINE>()).flatten() {
                        Some(whole) => *line = *whole,
                        None => line[..height * N].copy_from_slice(&from[at..at + height * N]),
                    }
                }
                for i in 0..height {
                    let mut line = [0u8; LINE];
                    for (unit, from) in line.as_chunks_mut::<N>().0.iter_mut().zip(&square[..width]) {
                        *unit = from.as_chunks::<N>().0[i];
                    }
                    let at = (row + i) * row_to + column * N;
                    match (width == side).then(|| to[at..].first_chunk_mut::<LINE>()).flatten() {
                        Some(whole) => *whole = line,
                        None => to[at..at + width * N].copy_from_slice(&line[..width * N]),
                    }
                }
            }
        }
    }
}

/// Copies any plane, unit by unit.
#[inline(always)]
fn walk(from: &[u8], rows: Dim, columns: Dim, unit: usize, to: &mut [u8]) {
    for row in 0..rows.count as usize {
        let (mut f, mut t) = (row * rows.from as usize, row * rows.to as usize);
        for _ in 0..columns.count {
            to[t..t + unit].copy_from_slice(&from[f..f + unit]);
            f += columns.from as usize;
            t += columns.to as usize;
        }
    }
}

impl ReadAt for Strided<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        if buf.is_empty() {
            Ok(())
        } else if self.dims.is_empty() {
            self.storage.read_at(self.base + offset, buf)
        } else if self.direct {
            self.gather(offset, buf)
        } else {
            self.read_tiled(offset, buf)
        }
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        if !self.dims.is_empty() || offset.checked_add(len)? > self.len {
            return None;
        }
        self.storage.span(self.base + offset, len)
    }

    fn place(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        if !self.dims.is_empty() || offset.checked_add(len)? > self.len {
            return None;
        }
        self.storage.place(self.base + offset, len)
    }

    fn access(&self) -> Access {
        self.storage.access()
    }

    fn finish(&self) -> Result<()> {
        *lock(&self.tiles) = Default::default();
        self.storage.finish()
    }
}

#[cfg(test)]
mod tests;
