//! A tensor: its description, and its bytes wherever they are.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::source::{Access, FileSpan, ReadAt};

/// The sizes of a tensor's dimensions, outermost first; empty for a scalar.
pub type Shape = SmallVec<[u64; 4]>;

/// A tensor's name, dtype, shape, and where it lies in a shared storage.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    name: Arc<str>,
    dtype: DType,
    shape: Shape,
    bytes: u64,
    view: Option<Box<View>>,
    requires_grad: bool,
    parameter: bool,
}

/// Which part of an archive's storage a tensor is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The index in [`Archive::storages`](crate::Archive::storages).
    pub storage: u32,
    /// Where its first element lies, in elements of the tensor's dtype.
    pub offset: u64,
    /// The distance between neighbours in each dimension, in elements; `None` if the tensor is contiguous.
    pub strides: Option<Shape>,
}

impl TensorInfo {
    /// Describes a contiguous tensor that shares no storage.
    ///
    /// # Errors
    /// `Malformed` if the shape's product or its bytes overflow 64 bits, or do not fill whole bytes.
    pub fn new(name: impl Into<Arc<str>>, dtype: DType, shape: impl Into<Shape>) -> Result<Self> {
        let (name, shape) = (name.into(), shape.into());
        let elements = element_count(&shape);
        let Some(bytes) = elements.and_then(|n| dtype.bytes(n)) else {
            let what =
                format!("shape {:?} of {dtype} is no whole number of bytes that fits 64 bits", &shape[..]);
            return Err(Error::malformed(what).with_tensor(&*name));
        };
        Ok(Self { name, dtype, shape, bytes, view: None, requires_grad: false, parameter: false })
    }

    /// Says which part of which storage this tensor is.
    pub fn with_view(mut self, view: View) -> Self {
        self.view = Some(Box::new(view));
        self
    }

    /// Forgets the storage: the tensor stands for itself.
    pub fn without_view(mut self) -> Self {
        self.view = None;
        self
    }

    /// Says whether training wants a gradient, and whether this is a module's parameter.
    pub fn with_flags(mut self, requires_grad: bool, parameter: bool) -> Self {
        (self.requires_grad, self.parameter) = (requires_grad, parameter);
        self
    }

    /// The same tensor under another name.
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The same shape, storage and flags with another dtype.
    ///
    /// # Errors
    /// As [`TensorInfo::new`].
    pub fn with_dtype(&self, dtype: DType) -> Result<Self> {
        let mut info = Self::new(self.name.clone(), dtype, self.shape.clone())?;
        info.view.clone_from(&self.view);
        Ok(info.with_flags(self.requires_grad, self.parameter))
    }

    /// The dotted name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, to share.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes of the dimensions, in elements.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The number of elements.
    pub fn elements(&self) -> u64 {
        // That it fits was found out when the tensor was described.
        element_count(&self.shape).unwrap_or(0)
    }

    /// The bytes of the elements one after another, whatever the storage holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The part of a storage that this is, where the archive has storages.
    pub fn view(&self) -> Option<&View> {
        self.view.as_deref()
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.view.as_ref().is_none_or(|v| v.strides.is_none())
    }

    /// Whether training wants a gradient for it.
    pub fn requires_grad(&self) -> bool {
        self.requires_grad
    }

    /// Whether it is a module's parameter rather than a plain tensor.
    pub fn is_parameter(&self) -> bool {
        self.parameter
    }
}

/// The product of a shape; `None` if it overflows. A zero anywhere makes it zero.
pub fn element_count(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
}

/// Row-major strides of a shape, in elements, as torch computes them: a size of 0 counts as 1.
pub fn contiguous_strides(shape: &[u64]) -> Shape {
    let mut strides = Shape::from_elem(1, shape.len());
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

/// Bytes that are borrowed, owned, or read when asked for. Always contiguous and little-endian.
#[derive(Clone)]
pub enum Data<'a> {
    /// Somebody else's memory.
    Borrowed(&'a [u8]),
    /// Shared memory.
    Owned(Arc<[u8]>),
    /// Read on demand.
    Lazy(Arc<dyn ReadAt + 'a>),
}

impl<'a> Data<'a> {
    /// Wraps a reader.
    pub fn lazy(reader: impl ReadAt + 'a) -> Self {
        Self::Lazy(Arc::new(reader))
    }

    /// The whole as memory, where it is in memory.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self {
            Self::Borrowed(b) => Some(b),
            Self::Owned(b) => Some(b),
            Self::Lazy(_) => None,
        }
    }

    /// Reads everything into memory, and checks what can be checked (see [`ReadAt::finish`]).
    ///
    /// # Errors
    /// Those of the source; `LimitExceeded` if the bytes do not fit this machine's memory.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        let mut out = zeroed(ReadAt::len(self))?;
        self.read_at(0, &mut out)?;
        self.finish()?;
        Ok(out)
    }
}

/// A zeroed buffer whose allocation may fail without ending the process.
pub(crate) fn zeroed(len: u64) -> Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| Error::limit(format!("{len} bytes do not fit in memory")))?;
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::limit(format!("{len} bytes do not fit in memory")))?;
    out.resize(len, 0);
    Ok(out)
}

impl ReadAt for Data<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Lazy(r) => r.len(),
            other => other.as_slice().map_or(0, |s| s.len() as u64),
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self {
            Self::Borrowed(b) => b.read_at(offset, buf),
            Self::Owned(b) => b.read_at(offset, buf),
            Self::Lazy(r) => r.read_at(offset, buf),
        }
    }

    fn span(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        match self {
            Self::Lazy(r) => r.span(offset, len),
            _ => None,
        }
    }

    fn place(&self, offset: u64, len: u64) -> Option<FileSpan<'_>> {
        match self {
            Self::Lazy(r) => r.place(offset, len),
            _ => None,
        }
    }

    fn access(&self) -> Access {
        match self {
            Self::Lazy(r) => r.access(),
            _ => Access::Random,
        }
    }

    fn finish(&self) -> Result<()> {
        match self {
            Self::Lazy(r) => r.finish(),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self {
            Self::Borrowed(_) => "borrowed",
            Self::Owned(_) => "owned",
            Self::Lazy(_) => "lazy",
        };
        write!(f, "Data({how}, {} bytes)", ReadAt::len(self))
    }
}

/// A tensor with its bytes.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// The description.
    pub info: TensorInfo,
    /// The bytes, contiguous and little-endian.
    pub data: Data<'a>,
}

impl<'a> Tensor<'a> {
    /// A contiguous tensor.
    ///
    /// # Errors
    /// `Mismatch` if the bytes are not as many as dtype and shape say; else as [`TensorInfo::new`].
    pub fn new(
        name: impl Into<Arc<str>>,
        dtype: DType,
        shape: impl Into<Shape>,
        data: Data<'a>,
    ) -> Result<Self> {
        let info = TensorInfo::new(name, dtype, shape)?;
        if info.bytes() != data.len() {
            let what = format!(
                "{} bytes are given, and shape {:?} of {dtype} takes {}",
                data.len(),
                info.shape(),
                info.bytes()
            );
            return Err(Error::mismatch(what).with_tensor(info.name()));
        }
        Ok(Self { info, data })
    }
}
