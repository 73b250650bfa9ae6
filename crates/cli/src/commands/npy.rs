//! NumPy's `.npy` files: one array of floats in row-major order.
//!
//! Source of the facts: the description of the format in NumPy's documentation (`numpy.lib.format`), versions 1 to 3.

use std::path::Path;

use weighbridge::{DType, Error, Limits, Result, Source};

/// The longest header that is read: a shape of two sizes takes under a hundred bytes.
const HEADER: usize = 64 << 10;

/// The dtype, shape and bytes of an array, little-endian.
pub(super) fn read(path: &Path) -> Result<(DType, Vec<u64>, Vec<u8>)> {
    let source = Source::open(path)?;
    let limits = Limits::default();
    let head = source.read_vec(0, source.len().min(12), &limits)?;
    let size = match *head {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([a, b]))),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d] => {
            (12, usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX))
        }
        _ => return Err(Error::malformed("this is no .npy file of version 1 to 3")),
    };
    let (start, length) = size;
    if length > HEADER {
        return Err(Error::limit(format!("a header of {length} bytes; at most {HEADER} are read")));
    }
    let header = source.read_vec(start, length as u64, &limits)?;
    let header = String::from_utf8(header).map_err(|_| Error::malformed("the header is no text"))?;
    let (dtype, shape) = parse(&header)?;
    let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let bytes = elements.and_then(|n| dtype.bytes(n));
    let begin = start + length as u64;
    match bytes {
        Some(bytes) if begin.checked_add(bytes) == Some(source.len()) => {}
        _ => {
            let what = format!("shape {shape:?} of {dtype} in a file of {} bytes", source.len());
            return Err(Error::malformed(what));
        }
    }
    Ok((
        dtype,
        shape,
        source.slice(begin, source.len() - begin).and_then(|s| weighbridge::Data::lazy(s).read_all())?,
    ))
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8), }`.
fn parse(header: &str) -> Result<(DType, Vec<u64>)> {
    let after = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let malformed = || Error::malformed("the header lacks descr, fortran_order or shape");
    let descr = after("descr").ok_or_else(malformed)?;
    let dtype = match descr.get(..5) {
        Some("'<f4'") => DType::F32,
        Some("'<f8'") => DType::F64,
        _ => {
            let found: String = descr.chars().take(12).collect();
            return Err(Error::unsupported(format!("an array of {found:?}"))
                .with_hint("little-endian floats of 32 or 64 bits are wanted"));
        }
    };
    if !after("fortran_order").ok_or_else(malformed)?.starts_with("False") {
        return Err(Error::unsupported("an array in column-major order")
            .with_hint("save `numpy.ascontiguousarray(array)`"));
    }
    let shape = after("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')'));
    let (shape, _) = shape.ok_or_else(malformed)?;
    let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
    let sizes = sizes.map(|s| s.parse().map_err(|_| Error::malformed(format!("a size of {s:?}"))));
    Ok((dtype, sizes.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_others_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8), }          \n";
        assert_eq!(parse(header).unwrap(), (DType::F32, vec![3, 8]));
        assert_eq!(
            parse(&header.replace("<f4", "<f8").replace("3, 8", "5,")).unwrap(),
            (DType::F64, vec![5])
        );
        for (from, to) in
            [("<f4", ">f4"), ("<f4", "|O"), ("False", "True"), ("3, 8", "x"), ("shape", "form"), ("(3", "3")]
        {
            assert!(parse(&header.replace(from, to)).is_err(), "{to}");
        }
    }
}
