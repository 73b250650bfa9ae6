//! Between tensors and numbers: of an archive into vectors, and back into little-endian bytes.

use weighbridge_formats::{Archive, DType, Error, Limits, ReadAt as _, Result};

/// Floats as wide as they are stored; narrower ones widened to 32 bits, which is exact.
pub(crate) enum Floats {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// The place of a tensor.
///
/// # Errors
/// `NotFound`, with the names that there are.
pub(crate) fn position(archive: &dyn Archive, name: &str) -> Result<usize> {
    archive.position(name).ok_or_else(|| {
        let names: Vec<&str> = archive.tensors().iter().take(8).map(|t| t.name()).collect();
        Error::not_found(format!("no tensor {name:?} among {names:?}")).with_tensor(name)
    })
}

/// A tensor's bytes, if they are no more than the limits allow in memory.
fn bytes(archive: &dyn Archive, index: usize, limits: &Limits) -> Result<Vec<u8>> {
    let data = archive.data(index)?;
    if data.len() > limits.header_bytes {
        let what =
            format!("{} bytes would be read at once; the limit is {}", data.len(), limits.header_bytes);
        return Err(Error::limit(what));
    }
    data.read_all()
}

/// A tensor of floats.
///
/// # Errors
/// `Unsupported` for any other dtype; what reading says.
pub(crate) fn floats(archive: &dyn Archive, index: usize, limits: &Limits) -> Result<Floats> {
    let info = archive.tensors().get(index).ok_or_else(|| Error::not_found("no such tensor"))?;
    let read = || bytes(archive, index, limits);
    let values = match info.dtype() {
        DType::F32 => read().map(|b| Floats::F32(chunks(&b, f32::from_le_bytes))),
        DType::F64 => read().map(|b| Floats::F64(chunks(&b, f64::from_le_bytes))),
        other => {
            Err(Error::unsupported(format!("a tensor of {other} where floats of 32 or 64 bits are wanted")))
        }
    };
    values.map_err(|e| e.with_tensor(info.name()))
}

/// A tensor of integers.
///
/// # Errors
/// As [`floats`].
pub(crate) fn integers(archive: &dyn Archive, index: usize, limits: &Limits) -> Result<Vec<i64>> {
    let info = archive.tensors().get(index).ok_or_else(|| Error::not_found("no such tensor"))?;
    let read = || bytes(archive, index, limits);
    let values = match info.dtype() {
        DType::I32 => read().map(|b| chunks(&b, |c| i64::from(i32::from_le_bytes(c)))),
        DType::I64 => read().map(|b| chunks(&b, i64::from_le_bytes)),
        other => {
            Err(Error::unsupported(format!("a tensor of {other} where integers of 32 or 64 bits are wanted")))
        }
    };
    values.map_err(|e| e.with_tensor(info.name()))
}

fn chunks<const N: usize, T>(bytes: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).filter_map(|c| c.try_into().ok()).map(of).collect()
}

/// The bytes of 32-bit floats.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The bytes of 64-bit floats.
pub(crate) fn f64_bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The bytes of indices, as I32 or I64.
///
/// # Errors
/// `Unsupported` for one that does not fit.
pub(crate) fn index_bytes(values: impl IntoIterator<Item = u64>, dtype: DType) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for n in values {
        let refused = |_| Error::unsupported(format!("an index of {n} does not fit {dtype}"));
        match dtype {
            DType::I32 => out.extend(i32::try_from(n).map_err(refused)?.to_le_bytes()),
            _ => out.extend(i64::try_from(n).map_err(refused)?.to_le_bytes()),
        }
    }
    Ok(out)
}
