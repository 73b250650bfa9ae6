//! B-trees: version 1 of groups of the old kind, version 2 of everything that is kept in fractal heaps.

use std::collections::HashSet;

use weighbridge_formats::{Error, Result};

use super::file::{Cursor, File};

/// The most records of one tree.
const MOST_RECORDS: usize = 150_000;

/// The addresses of the leaves of a version 1 tree over a group's symbols.
pub(super) fn symbol_nodes(file: &mut File<'_>, address: u64) -> Result<Vec<u64>> {
    let (mut nodes, mut seen, mut leaves) = (vec![address], HashSet::new(), Vec::new());
    let (o, l) = (file.offset_size, file.length_size);
    while let Some(address) = nodes.pop() {
        if !seen.insert(address) {
            return Err(Error::malformed("a B-tree that contains itself").at_offset(address));
        }
        let head = file.read(address, 8 + 2 * o as u64)?;
        let mut c = Cursor::new(&head, address);
        c.mark(b"TREE")?;
        let (kind, level, used) = (c.u8()?, c.u8()?, u64::from(c.u16()?));
        if kind != 0 {
            return Err(
                Error::malformed("a B-tree of chunks where one of a group is wanted").at_offset(address)
            );
        }
        let body = file.read(address, head.len() as u64 + used * (o + l) as u64)?;
        let mut c = Cursor::new(&body, address);
        c.skip(head.len())?;
        for _ in 0..used {
            c.skip(l)?;
            let child = c.number(o)?;
            if level == 0 { leaves.push(child) } else { nodes.push(child) }
        }
        if leaves.len() > MOST_RECORDS {
            return Err(Error::limit(format!("a group of more than {MOST_RECORDS} nodes")));
        }
    }
    Ok(leaves)
}

/// The records of a version 2 tree, in no order.
pub(super) fn records(file: &mut File<'_>, address: u64) -> Result<Vec<Vec<u8>>> {
    if file.is_undefined(address) {
        return Ok(Vec::new());
    }
    let head = file.read(address, 22 + (file.offset_size + file.length_size) as u64)?;
    let mut c = Cursor::new(&head, address);
    c.mark(b"BTHD")?;
    c.skip(2)?;
    let node_size = u64::from(c.u32()?);
    let record_size = u64::from(c.u16()?);
    let depth = usize::from(c.u16()?);
    c.skip(2)?;
    let root = c.number(file.offset_size)?;
    let count = u64::from(c.u16()?);
    if record_size == 0 || node_size < 10 + record_size || depth > 32 || node_size > 1 << 24 {
        let what =
            format!("a B-tree of depth {depth} with nodes of {node_size} and records of {record_size} bytes");
        return Err(Error::malformed(what).at_offset(address));
    }
    let widths = widths(node_size, record_size, depth, file.offset_size as u64);
    let (mut out, mut seen) = (Vec::new(), HashSet::new());
    let mut nodes = if file.is_undefined(root) { Vec::new() } else { vec![(root, count, depth)] };
    while let Some((address, count, level)) = nodes.pop() {
        if !seen.insert(address) {
            return Err(Error::malformed("a B-tree that contains itself").at_offset(address));
        }
        let body = file.read_up_to(address, node_size)?;
        let mut c = Cursor::new(&body, address);
        c.mark(if level == 0 { b"BTLF" } else { b"BTIN" })?;
        c.skip(2)?;
        for _ in 0..count {
            if out.len() >= MOST_RECORDS {
                return Err(Error::limit(format!("a B-tree of more than {MOST_RECORDS} records")));
            }
            out.push(c.take(record_size as usize)?.to_vec());
        }
        if level > 0 {
            let (count_width, total_width) = widths.get(level).copied().unwrap_or_default();
            for _ in 0..=count {
                let child = c.number(file.offset_size)?;
                let records = c.number(count_width)?;
                c.skip(total_width)?;
                nodes.push((child, records, level - 1));
            }
        }
    }
    Ok(out)
}

/// For each level, the bytes of a child's count of records and of the count of all below it.
fn widths(node_size: u64, record_size: u64, depth: usize, offset_size: u64) -> Vec<(usize, usize)> {
    let bytes_for = |n: u64| (u64::from(63 - (n | 1).leading_zeros()) / 8 + 1) as usize;
    let room = node_size - 10;
    let leaf = room / record_size;
    let count_width = bytes_for(leaf);
    // What a node of the level below holds at most with everything under it, and the bytes of such a count.
    let (mut below, mut below_width) = (leaf, 0);
    let mut out = vec![(0, 0)];
    for _ in 0..depth {
        out.push((count_width, below_width));
        let pointer = offset_size + count_width as u64 + below_width as u64;
        let here = room.saturating_sub(pointer) / (record_size + pointer);
        below = here.saturating_add(1).saturating_mul(below).saturating_add(here);
        below_width = bytes_for(below);
    }
    out
}
