//! The rows of a matrix of floats, as f32, some at a time.

use weighbridge_formats::transform::{CastKernel, CastStats, Overflow};
use weighbridge_formats::{DType, Data, Error, ReadAt, Result};

/// The bytes that are read in one call, unless a row has more.
const BATCH: u64 = 128 << 10;

/// A matrix, row-major.
pub(crate) struct Rows<'a> {
    data: Data<'a>,
    dtype: DType,
    kernel: Option<CastKernel>,
    pub(crate) count: u64,
    pub(crate) columns: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(data: Data<'a>, dtype: DType, count: u64, columns: u64) -> Result<Self> {
        let kernel = CastKernel::new(dtype, DType::F32, Overflow::Infinity);
        if !matches!(dtype, DType::F32 | DType::F16 | DType::Bf16) {
            return Err(Error::unsupported(format!("quantizing {dtype}: known are F32, F16 and BF16")));
        }
        let row = columns.checked_mul(dtype.bits() / 8);
        if row.and_then(|r| r.checked_mul(count)) != Some(data.len()) || columns == 0 {
            return Err(Error::malformed(format!("{} bytes for {count} rows of {columns}", data.len())));
        }
        Ok(Self { data, dtype, kernel, count, columns })
    }

    /// Calls `take` with the rows from `first` up to `end`, in their order.
    pub(crate) fn each(
        &self,
        first: u64,
        end: u64,
        mut take: impl FnMut(u64, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let width = self.columns * (self.dtype.bits() / 8);
        let at_once = (BATCH / width).max(1);
        let (mut bytes, mut floats) = (Vec::new(), Vec::new());
        let mut at = first;
        while at < end {
            let rows = at_once.min(end - at);
            bytes.resize((rows * width) as usize, 0);
            self.data.read_at(at * width, &mut bytes)?;
            let elements = (rows * self.columns) as usize;
            floats.resize(elements, 0.0_f32);
            match &self.kernel {
                None => {
                    for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks().0) {
                        *float = f32::from_le_bytes(*bytes);
                    }
                }
                Some(kernel) => {
                    let out = bytemuck::cast_slice_mut(&mut floats);
                    let done = kernel.cast(&bytes, out, &mut CastStats::default());
                    done.map_err(|_| Error::unsupported(format!("widening {}", self.dtype)))?;
                    // The kernel writes little-endian.
                    floats.iter_mut().for_each(|f| *f = f32::from_bits(u32::from_le(f.to_bits())));
                }
            }
            for (i, row) in floats.chunks_exact(self.columns as usize).enumerate() {
                take(at + i as u64, row)?;
            }
            at += rows;
        }
        Ok(())
    }

    /// The last checks of what was read.
    pub(crate) fn finish(&self) -> Result<()> {
        self.data.finish()
    }
}
