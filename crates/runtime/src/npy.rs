//! NumPy's `.npy` files: one array each, in either byte order and either order of the dimensions.
//!
//! Source of the facts: the description of the format in NumPy's documentation (`numpy.lib.format`), versions 1 to 3.
//! Types that NumPy lacks: bfloat16 and the 8-bit floats have no descriptor that NumPy itself reads, so they are
//! refused for writing; a caller casts them to f32 first.

use std::path::Path;

use weighbridge_formats::write::{FilePlan, WritePlan};
use weighbridge_formats::{DType, Data, Error, Limits, Result, Source};

use crate::array::Array;

/// The longest header that is read: the shape of a plain array takes under a hundred bytes.
const HEADER: usize = 64 << 10;
/// The most dimensions that NumPy's arrays have.
const RANK: usize = 64;

/// Reads a file.
///
/// # Errors
/// `Malformed` for what is no `.npy` file, `Unsupported` for objects, text, records and other types that are no
/// numbers, `LimitExceeded` beyond `limits.declared_bytes`, `Io` for what the system says.
pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<Array> {
    let path = path.as_ref();
    let source = Source::open(path)?;
    read_source(&source, limits).map_err(|e| e.with_format("npy").with_path(path))
}

/// What a header says.
#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    big_endian: bool,
    fortran: bool,
    shape: Vec<u64>,
}

fn read_source(source: &Source, limits: &Limits) -> Result<Array> {
    let head = source.read_vec(0, source.len().min(12), limits)?;
    let (start, length) = match *head {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([a, b]))),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d] => {
            (12, usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX))
        }
        _ => return Err(Error::malformed("this is no .npy file of version 1 to 3")),
    };
    if length > HEADER {
        return Err(Error::limit(format!("a header of {length} bytes; at most {HEADER} are read")));
    }
    let header = source.read_vec(start, length as u64, limits)?;
    let header = String::from_utf8(header).map_err(|_| Error::malformed("the header is no text"))?;
    let header = parse(&header)?;
    let elements = header.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let bytes = elements.and_then(|n| header.dtype.bytes(n));
    let begin = start + length as u64;
    let bytes = match bytes {
        Some(bytes) if begin.checked_add(bytes) == Some(source.len()) => bytes,
        _ => {
            let (shape, dtype, len) = (&header.shape, header.dtype, source.len());
            return Err(Error::malformed(format!("shape {shape:?} of {dtype} in a file of {len} bytes")));
        }
    };
    if bytes > limits.declared_bytes {
        return Err(Error::limit(format!("{bytes} bytes; at most {} are read", limits.declared_bytes)));
    }
    let mut bytes = Data::lazy(source.slice(begin, bytes)?).read_all()?;
    let size = header.dtype.size().unwrap_or(1) as usize;
    if header.big_endian {
        let unit = header.dtype.swap_unit() as usize;
        bytes.chunks_exact_mut(unit.max(1)).for_each(<[u8]>::reverse);
    }
    if header.fortran {
        bytes = row_major(&bytes, &header.shape, size);
    }
    Array::new(header.dtype, header.shape, bytes)
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8), }`.
fn parse(header: &str) -> Result<Header> {
    let after = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let malformed = || Error::malformed("the header lacks descr, fortran_order or shape");
    let descr = after("descr").ok_or_else(malformed)?;
    let inner = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')).map(|(d, _)| d);
    let known = inner.and_then(|d| Some((d.chars().next()?, DType::from_numpy_code(d.get(1..)?)?)));
    let Some((order, dtype)) = known else {
        let found: String = descr.chars().take(12).collect();
        let error = Error::unsupported(format!("an array of {found:?}"));
        return Err(error.with_hint("numbers are wanted: booleans, integers and floats of 16 to 64 bits"));
    };
    let big_endian = match order {
        '<' | '|' => false,
        '>' => true,
        '=' => cfg!(target_endian = "big"),
        other => return Err(Error::malformed(format!("a byte order of {other:?}"))),
    };
    let order = after("fortran_order").ok_or_else(malformed)?;
    let fortran = match (order.starts_with("True"), order.starts_with("False")) {
        (true, _) => true,
        (_, true) => false,
        _ => return Err(malformed()),
    };
    let shape = after("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')'));
    let (shape, _) = shape.ok_or_else(malformed)?;
    let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
    let sizes = sizes.map(|s| s.parse().map_err(|_| Error::malformed(format!("a size of {s:?}"))));
    let shape: Vec<u64> = sizes.collect::<Result<_>>()?;
    if shape.len() > RANK {
        return Err(Error::limit(format!("{} dimensions; at most {RANK} are read", shape.len())));
    }
    Ok(Header { dtype, big_endian, fortran, shape })
}

/// The same elements with the last dimension running fastest, where the first did.
fn row_major(bytes: &[u8], shape: &[u64], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = size;
    for &d in shape {
        strides.push(step);
        step = step.saturating_mul(d as usize);
    }
    let mut index = vec![0u64; shape.len()];
    for _ in 0..bytes.len() / size.max(1) {
        let at: usize = index.iter().zip(&strides).map(|(&i, &s)| i as usize * s).sum();
        out.extend_from_slice(bytes.get(at..at + size).unwrap_or_default());
        for (i, &d) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < d {
                break;
            }
            *i = 0;
        }
    }
    out
}

/// The bytes of a file that holds the array, for a plan of the write engine.
///
/// # Errors
/// `Unsupported` for a dtype that NumPy lacks (bf16, floats of 8 bits and fewer).
pub fn to_bytes(array: &Array) -> Result<Vec<u8>> {
    array.elements()?;
    let Some(kind) = array.dtype.numpy_code() else {
        let error = Error::unsupported(format!("NumPy has no type for {}", array.dtype)).with_format("npy");
        return Err(error.with_hint("cast the output to f32 in the model"));
    };
    let order = if array.dtype.bits() == 8 { '|' } else { '<' };
    let sizes: Vec<String> = array.shape.iter().map(u64::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", sizes.join(", "));
    let mut header = format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take ten bytes, and the elements begin at a multiple of 64.
    let padded = (header.len() + 1 + 10).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(padded - 1 - header.len()));
    header.push('\n');
    let length = u16::try_from(header.len())
        .map_err(|_| Error::limit(format!("a header of {} bytes", header.len())))?;
    let mut out = Vec::with_capacity(10 + header.len() + array.bytes.len());
    out.extend_from_slice(b"\x93NUMPY\x01\x00");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&array.bytes);
    Ok(out)
}

/// A plan of `.npy` files, each an array under a file name, for `write::execute` or `write::execute_folder`.
///
/// # Errors
/// As [`to_bytes`].
pub fn plan<'a>(arrays: impl IntoIterator<Item = (String, &'a Array)>) -> Result<WritePlan<'static>> {
    let mut plan = WritePlan::default();
    for (name, array) in arrays {
        let bytes = to_bytes(array).map_err(|e| e.with_tensor(&*name))?;
        let mut file = FilePlan::new(name);
        file.push_fixed(bytes)?;
        plan.files.push(file);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, body: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend_from_slice(&(header.len() as u16).to_le_bytes());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(body);
        out
    }

    fn parsed(bytes: Vec<u8>) -> Result<Array> {
        read_source(&Source::from_bytes(bytes), &Limits::default())
    }

    #[test]
    fn what_is_written_is_read() {
        let arrays = [
            Array::of([2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap(),
            Array::of([4], &[1i64, -2, 3, -4]).unwrap(),
            Array::of([], &[7.5f64]).unwrap(),
            Array::new(DType::Bool, [0, 3], vec![]).unwrap(),
        ];
        for array in arrays {
            let bytes = to_bytes(&array).unwrap();
            assert_eq!((bytes.len() - array.bytes.len()) % 64, 0);
            assert_eq!(parsed(bytes).unwrap(), array);
        }
        let bf16 = Array::of([1], &[half::bf16::ONE]).unwrap();
        assert!(to_bytes(&bf16).unwrap_err().message().contains("BF16"));
    }

    #[test]
    fn byte_order_and_column_major_order_are_undone() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        // Columns (1, 4), (2, 5), (3, 6).
        let body: Vec<u8> = [1i16, 4, 2, 5, 3, 6].iter().flat_map(|x| x.to_be_bytes()).collect();
        let array = parsed(file(header, &body)).unwrap();
        assert_eq!(array, Array::of([2, 3], &[1i16, 2, 3, 4, 5, 6]).unwrap());
    }

    #[test]
    fn what_is_no_plain_array_is_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, ), }\n";
        assert!(parsed(file(header, &[0; 12])).is_ok());
        assert!(parsed(file(header, &[0; 11])).is_err());
        for (from, to) in [
            ("<f4", "|O"),
            ("<f4", "<U4"),
            ("<f4", "?f4"),
            ("False", "Maybe"),
            ("3, ", "-3, "),
            ("3, ", "99999999999999999999, "),
            ("3, ", "4611686018427387904, 4611686018427387904"),
            ("shape", "form"),
            ("(3", "3"),
        ] {
            assert!(parsed(file(&header.replace(from, to), &[0; 12])).is_err(), "{to}");
        }
        let deep = header.replace("3, ", &"1, ".repeat(100));
        assert!(parsed(file(&deep, &[0; 4])).unwrap_err().message().contains("100 dimensions"));
        assert!(parsed(b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()).is_err());
        assert!(parsed(vec![]).is_err());
    }
}
