//! Sparse initializers, read as the dense tensors that they stand for: zeros, and the values where the indices say.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::source::{ReadAt, check_range};
use crate::tensor::{Data, Shape};

/// A dense tensor that is put together when it is read.
pub(super) struct Dense {
    pub(super) values: Data<'static>,
    /// Of I64: a position in row-major order each, or with `coordinates`, an index a dimension.
    pub(super) indices: Data<'static>,
    pub(super) coordinates: bool,
    pub(super) shape: Shape,
    /// The bytes of an element, and of the whole.
    pub(super) size: u64,
    pub(super) bytes: u64,
    loaded: Mutex<Option<Arc<Loaded>>>,
}

/// Positions in ascending order, and the values' bytes.
struct Loaded {
    positions: Vec<u64>,
    values: Vec<u8>,
}

impl Dense {
    pub(super) fn new(
        values: Data<'static>,
        indices: Data<'static>,
        coordinates: bool,
        shape: Shape,
        size: u64,
        bytes: u64,
    ) -> Self {
        Self { values, indices, coordinates, shape, size, bytes, loaded: Mutex::new(None) }
    }

    /// Reads values and indices; both are as large as the file has them.
    fn load(&self) -> Result<Arc<Loaded>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*loaded {
            return Ok(loaded.clone());
        }
        let indices = self.indices.read_all()?;
        let values = self.values.read_all()?;
        let numbers = indices.as_chunks::<8>().0;
        let rank = if self.coordinates { self.shape.len() } else { 1 };
        let mut positions = Vec::with_capacity(numbers.len() / rank.max(1));
        let elements = self.bytes / self.size.max(1);
        let outside = |what: String| Error::malformed(format!("an index of the sparse tensor {what}"));
        for index in numbers.chunks(rank.max(1)) {
            let mut position = 0u64;
            for (i, number) in index.iter().enumerate() {
                let number = i64::from_le_bytes(*number);
                let size = if self.coordinates { self.shape.get(i).copied().unwrap_or(0) } else { elements };
                let inside = u64::try_from(number).ok().filter(|&n| n < size);
                let Some(inside) = inside else {
                    return Err(outside(format!("is {number}, and the size is {size}")));
                };
                // The product of the shape fits, so this does.
                position = position.wrapping_mul(size).wrapping_add(inside);
            }
            if positions.last().is_some_and(|&last| last >= position) {
                return Err(outside(format!("is not behind the one before: position {position}")));
            }
            positions.push(position);
        }
        let new = Arc::new(Loaded { positions, values });
        *loaded = Some(new.clone());
        Ok(new)
    }
}

impl ReadAt for Dense {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.bytes)?;
        let loaded = self.load()?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let first = loaded.positions.partition_point(|&p| (p + 1) * self.size <= offset);
        let values = loaded.values.chunks_exact(self.size.max(1) as usize);
        for (&position, value) in loaded.positions.iter().zip(values).skip(first) {
            let start = position * self.size;
            if start >= end {
                break;
            }
            for (at, byte) in (start..).zip(value) {
                if (offset..end).contains(&at) {
                    buf[(at - offset) as usize] = *byte;
                }
            }
        }
        Ok(())
    }
}
