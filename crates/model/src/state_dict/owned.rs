//! A tensor that owns its bytes, for programs without an array library.

use std::collections::BTreeMap;

use weighbridge_formats::{
    Archive, DType, Data, Error, ReadAt, Result, Shape, Tensor, TensorInfo, element_count,
};

use super::element::{Element, check_len};
use super::{StateDict, TensorSource};

/// Dtype, shape and bytes: contiguous in row-major order, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTensor {
    dtype: DType,
    shape: Shape,
    bytes: Vec<u8>,
}

impl OwnedTensor {
    /// Takes bytes.
    ///
    /// # Errors
    /// `Mismatch` if they are not as many as dtype and shape say; else as [`TensorInfo::new`].
    pub fn new(dtype: DType, shape: impl AsRef<[u64]>, bytes: Vec<u8>) -> Result<Self> {
        let info = TensorInfo::new("", dtype, shape.as_ref())?;
        check_len(&Data::Borrowed(&bytes), info.bytes())?;
        Ok(Self { dtype, shape: shape.as_ref().into(), bytes })
    }

    /// Copies elements.
    ///
    /// # Errors
    /// `Mismatch` if they are not as many as the shape says.
    pub fn from_slice<E: Element>(shape: impl AsRef<[u64]>, elements: &[E]) -> Result<Self> {
        Self::new(E::DTYPE, shape, E::to_bytes(elements).into_owned())
    }

    /// All zeros.
    ///
    /// # Errors
    /// As [`TensorInfo::new`]; `LimitExceeded` if they do not fit in memory.
    pub fn zeros(dtype: DType, shape: impl AsRef<[u64]>) -> Result<Self> {
        let bytes = TensorInfo::new("", dtype, shape.as_ref())?.bytes();
        Ok(Self { dtype, shape: shape.as_ref().into(), bytes: buffer(bytes)? })
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The elements, copied.
    ///
    /// # Errors
    /// `Mismatch` if they are of another dtype.
    pub fn to_vec<E: Element>(&self) -> Result<Vec<E>> {
        if self.dtype != E::DTYPE {
            return Err(Error::mismatch(format!("the tensor is {}, not {}", self.dtype, E::DTYPE)));
        }
        let elements = element_count(&self.shape).and_then(|n| usize::try_from(n).ok());
        let mut out = vec![E::default(); elements.unwrap_or_default()];
        E::fill(&mut out, &Data::Borrowed(&self.bytes))?;
        Ok(out)
    }
}

/// A zeroed buffer whose allocation may fail without ending the process.
pub(super) fn buffer(bytes: u64) -> Result<Vec<u8>> {
    let too_long = |_| Error::limit(format!("{bytes} bytes do not fit in memory"));
    let len = usize::try_from(bytes).map_err(too_long)?;
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::limit(format!("{bytes} bytes do not fit in memory")))?;
    out.resize(len, 0);
    Ok(out)
}

/// Reads every tensor of an archive into memory.
///
/// # Errors
/// Those of the archive; `Malformed` if two tensors have the same name.
pub fn read_all(archive: &dyn Archive) -> Result<BTreeMap<String, OwnedTensor>> {
    let mut out = BTreeMap::new();
    for (index, info) in archive.tensors().iter().enumerate() {
        let named = |e: Error| e.with_tensor(info.name());
        let bytes = archive.data(index).and_then(|d| d.read_all()).map_err(named)?;
        let tensor = OwnedTensor::new(info.dtype(), info.shape(), bytes).map_err(named)?;
        if out.insert(info.name().to_owned(), tensor).is_some() {
            return Err(named(Error::malformed("two tensors have the same name")));
        }
    }
    Ok(out)
}

impl StateDict for OwnedTensor {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        visit(Tensor::new(prefix, self.dtype, self.shape.clone(), Data::Borrowed(&self.bytes))?)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        let info = TensorInfo::new(prefix, self.dtype, self.shape.clone())?;
        if let Some(data) = source.find(&info)? {
            check_len(&data, info.bytes())?;
            data.read_at(0, &mut self.bytes)?;
            data.finish()?;
        }
        Ok(())
    }
}
