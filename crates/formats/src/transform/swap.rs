//! A part of some bytes, and bytes in the other byte order.

use crate::error::{Error, Result};
use crate::source::{Access, FileSpan, ReadAt, check_range};
use crate::tensor::Data;

/// A range of some bytes.
pub struct Window<'a> {
    data: Data<'a>,
    offset: u64,
    len: u64,
}

impl<'a> Window<'a> {
    /// The `len` bytes at `offset`.
    ///
    /// # Errors
    /// `Malformed` if they pass the end of `data`.
    pub fn new(data: Data<'a>, offset: u64, len: u64) -> Result<Self> {
        match offset.checked_add(len) {
            Some(end) if end <= data.len() => Ok(Self { data, offset, len }),
            _ => {
                let what = format!("{len} bytes at {offset} pass the end of a storage of {}", data.len());
                Err(Error::malformed(what))
            }
        }
    }
}

impl ReadAt for Window<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.data.read_at(self.offset + offset, buf)
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        self.data.span(self.offset + offset, len)
    }

    fn place(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        self.data.place(self.offset + offset, len)
    }

    fn access(&self) -> Access {
        self.data.access()
    }

    fn finish(&self) -> Result<()> {
        self.data.finish()
    }
}

/// Bytes whose units have their bytes reversed: a big-endian file read as little-endian.
///
/// A chunk may begin and end anywhere; one that begins inside a unit reads that unit's earlier bytes again, which
/// a [sequential](Access::Sequential) source answers slowly.
pub struct SwapBytes<'a> {
    data: Data<'a>,
    unit: usize,
}

impl<'a> SwapBytes<'a> {
    /// Reverses the bytes of each unit of `unit` bytes: 2, 4 or 8; 1 changes nothing
    /// (see [`DType::swap_unit`](crate::DType::swap_unit)).
    ///
    /// # Errors
    /// `InvalidOptions` for another unit, `Malformed` if `data` is no whole number of units.
    pub fn new(data: Data<'a>, unit: u64) -> Result<Self> {
        if !matches!(unit, 1 | 2 | 4 | 8) {
            return Err(Error::invalid_options(format!("bytes swap in units of 2, 4 or 8, not {unit}")));
        }
        if !data.len().is_multiple_of(unit) {
            let what = format!("{} bytes are no whole number of units of {unit}", data.len());
            return Err(Error::malformed(what));
        }
        Ok(Self { data, unit: unit as usize })
    }

    /// Fills `buf` with a part of the unit that holds the byte at `offset`.
    fn read_part(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let within = (offset % self.unit as u64) as usize;
        let mut unit = [0; 8];
        let unit = &mut unit[..self.unit];
        self.data.read_at(offset - within as u64, unit)?;
        unit.reverse();
        buf.copy_from_slice(&unit[within..within + buf.len()]);
        Ok(())
    }
}

impl ReadAt for SwapBytes<'_> {
    fn len(&self) -> u64 {
        self.data.len()
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.data.len())?;
        let within = (offset % self.unit as u64) as usize;
        if within != 0 {
            let (head, rest) = buf.split_at_mut(buf.len().min(self.unit - within));
            self.read_part(offset, head)?;
            offset += head.len() as u64;
            buf = rest;
        }
        let (whole, tail) = buf.split_at_mut(buf.len() - buf.len() % self.unit);
        self.data.read_at(offset, whole)?;
        match self.unit {
            2 => reverse_each::<2>(whole),
            4 => reverse_each::<4>(whole),
            8 => reverse_each::<8>(whole),
            _ => {}
        }
        if !tail.is_empty() {
            self.read_part(offset + whole.len() as u64, tail)?;
        }
        Ok(())
    }

    fn access(&self) -> Access {
        self.data.access()
    }

    fn finish(&self) -> Result<()> {
        self.data.finish()
    }
}

/// Reverses each `N` bytes, where they lie.
fn reverse_each<const N: usize>(bytes: &mut [u8]) {
    for unit in bytes.as_chunks_mut::<N>().0 {
        unit.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_its_range_and_nothing_else() {
        let bytes: Vec<u8> = (0..100).collect();
        let window = Window::new(Data::Borrowed(&bytes), 10, 20).unwrap();
        assert_eq!(window.len(), 20);
        let mut buf = [0; 5];
        window.read_at(15, &mut buf).unwrap();
        assert_eq!(buf, [25, 26, 27, 28, 29]);
        assert!(window.read_at(16, &mut buf).is_err(), "past the window, though not past the bytes");
        assert!(Window::new(Data::Borrowed(&bytes), 90, 11).is_err());
        assert!(Window::new(Data::Borrowed(&bytes), u64::MAX, 2).is_err());
        assert_eq!(Window::new(Data::Borrowed(&bytes), 100, 0).unwrap().len(), 0);
    }

    #[test]
    fn every_range_of_swapped_bytes_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..48).collect();
        for unit in [1usize, 2, 4, 8] {
            let swapped = SwapBytes::new(Data::Borrowed(&bytes), unit as u64).unwrap();
            let whole: Vec<u8> = bytes.chunks(unit).flat_map(|c| c.iter().rev().copied()).collect();
            for start in 0..=48 {
                for end in start..=48 {
                    let mut buf = vec![0; end - start];
                    swapped.read_at(start as u64, &mut buf).unwrap();
                    assert_eq!(buf, whole[start..end], "unit {unit}, {start}..{end}");
                }
            }
            assert!(swapped.read_at(48, &mut [0]).is_err());
        }
    }

    #[test]
    fn odd_lengths_and_units_are_refused() {
        assert!(SwapBytes::new(Data::Borrowed(&[0; 6]), 4).is_err());
        assert!(SwapBytes::new(Data::Borrowed(&[0; 6]), 3).is_err());
        assert!(SwapBytes::new(Data::Borrowed(&[0; 6]), 0).is_err());
    }
}
