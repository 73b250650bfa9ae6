//! A NumPy array in a file of its own, as one tensor.

use std::sync::Arc;

use weighbridge_formats::transform::{Strided, SwapBytes};
use weighbridge_formats::{Archive, DType, Data, Error, MemoryArchive, Result, Source, Tensor, TensorInfo};

use super::Found;

/// The longest header, and the most dimensions.
const HEADER: u64 = 1 << 20;
const DIMENSIONS: usize = 64;

/// What the header says.
struct Header {
    code: String,
    swap: bool,
    fortran: bool,
    shape: Vec<u64>,
    content: u64,
}

/// The array of a `.npy` file, named as the file is.
pub(super) fn rescue(source: &Source, name: &str, part: &str) -> Result<Found> {
    let header = header(source)?;
    let dtype = DType::from_numpy_code(&header.code).ok_or_else(|| {
        Error::unsupported(format!("an array of dtype {:?}, which no tensor holds", header.code))
    })?;
    let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = stem.strip_suffix(".npy").filter(|s| !s.is_empty()).unwrap_or(stem);
    let info = TensorInfo::new(if stem.is_empty() { "array" } else { stem }, dtype, header.shape.as_slice())?;
    let slice = source.slice(header.content, info.bytes())?;
    let mut data = Data::Lazy(Arc::new(slice));
    if header.swap && dtype.swap_unit() > 1 {
        data = Data::lazy(SwapBytes::new(data, dtype.swap_unit())?);
    }
    if header.fortran && header.shape.len() > 1 {
        let mut strides = Vec::with_capacity(header.shape.len());
        let mut step = 1u64;
        for dim in &header.shape {
            strides.push(step);
            step = step.saturating_mul(*dim);
        }
        data = Data::lazy(Strided::new(data, dtype.size().unwrap_or(1), &header.shape, &strides, 0)?);
    }
    let archive: Box<dyn Archive> = Box::new(MemoryArchive::new([Tensor { info, data }])?);
    Ok(Found { part: part.to_owned(), archive })
}

fn header(source: &Source) -> Result<Header> {
    let bad = |what: &str| Error::malformed(format!("the header of the array {what}"));
    let mut mark = vec![0; source.len().min(12) as usize];
    source.reader().read_at(0, &mut mark)?;
    let (from, length) = match mark[..] {
        [_, _, _, _, _, _, 1, _, a, b, ..] => (10, u64::from(u16::from_le_bytes([a, b]))),
        [_, _, _, _, _, _, 2 | 3, _, a, b, c, d] => (12, u64::from(u32::from_le_bytes([a, b, c, d]))),
        _ => return Err(bad("is cut off or of an unknown version")),
    };
    if length > HEADER || from + length > source.len() {
        return Err(bad(&format!("says that it has {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    source.reader().read_at(from, &mut bytes)?;
    let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_whitespace()).collect();
    let text = text.replace('"', "'");
    let field = |name: &str| text.split_once(&format!("'{name}':")).map(|(_, rest)| rest);
    let descr = field("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\''));
    let Some((descr, _)) = descr else { return Err(bad("has no plain dtype: records are not taken")) };
    let swap = descr.starts_with('>');
    let code = descr.trim_start_matches(['<', '>', '|', '=']).to_owned();
    let fortran = field("fortran_order").is_some_and(|rest| rest.starts_with("True"));
    let dims = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let Some((dims, _)) = dims else { return Err(bad("has no shape")) };
    let shape: Option<Vec<u64>> = dims
        .split(',')
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.trim_end_matches('L').parse().ok())
        .collect();
    let shape =
        shape.filter(|shape| shape.len() <= DIMENSIONS).ok_or_else(|| bad("has a shape of no numbers"))?;
    Ok(Header { code, swap, fortran, shape, content: from + length })
}
