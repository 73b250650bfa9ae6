//! One TensorProto in a file: its description is read, its elements are found.

use super::cursor::{Cursor, Field};
use super::proto::DataType;
use super::typed::{
    DOUBLE_DATA, FLOAT_DATA, INT32_DATA, INT64_DATA, Numbers, RAW_DATA, STRING_DATA, UINT64_DATA, field_of,
    name_of,
};
use super::wire::Wire;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Shape, element_count};

/// The most dimensions of a tensor, and the most entries that say where its elements are.
const RANK: usize = 1024;
const ENTRIES: usize = 64;
/// The longest text of an entry.
const TEXT: u64 = 64 << 10;

/// A tensor's fields.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) dims: Vec<i64>,
    pub(super) data_type: Option<DataType>,
    /// The span of `raw_data`.
    pub(super) raw: Option<(u64, u64)>,
    pub(super) numbers: Option<Numbers>,
    pub(super) external: Vec<(String, String)>,
    pub(super) is_external: bool,
    /// The spans of all fields that hold the elements or say where they are: those that another content replaces.
    pub(super) data_fields: Vec<(u64, u64)>,
}

impl Parts {
    /// Reads the message between two places. `left` is what may yet be read into memory.
    pub(super) fn read(cursor: &mut Cursor<'_>, start: u64, end: u64, left: &mut u64) -> Result<Self> {
        let mut parts = Self::default();
        let (mut at, mut named, mut typed) = (start, false, false);
        while let Some(field) = cursor.field(at, end)? {
            at = field.end;
            let twice = match field.number {
                1 => {
                    parts.dims(cursor, &field)?;
                    false
                }
                2 => {
                    field.expect(Wire::Varint, "data_type")?;
                    let known =
                        i32::try_from(field.value as i64).ok().and_then(|n| DataType::try_from(n).ok());
                    let Some(known) = known else {
                        let what = format!("data type {} is none that is known here", field.value as i64);
                        return Err(Error::unsupported(what).at_offset(field.start));
                    };
                    parts.data_type = Some(known);
                    std::mem::replace(&mut typed, true)
                }
                3 => {
                    let what =
                        "the tensor is a segment of a larger one, which no version of ONNX has described";
                    return Err(Error::unsupported(what).at_offset(field.start));
                }
                8 => {
                    parts.name = cursor.text(&field, "name", *left)?;
                    *left -= field.len().min(*left);
                    std::mem::replace(&mut named, true)
                }
                RAW_DATA => {
                    field.expect(Wire::Bytes, "raw_data")?;
                    parts.owns(&field);
                    parts.raw.replace((field.content, field.len())).is_some()
                }
                FLOAT_DATA | INT32_DATA | STRING_DATA | INT64_DATA | DOUBLE_DATA | UINT64_DATA => {
                    parts.run(&field)?;
                    false
                }
                13 => {
                    field.expect(Wire::Bytes, "external_data")?;
                    parts.owns(&field);
                    parts.entry(cursor, &field)?;
                    false
                }
                14 => {
                    field.expect(Wire::Varint, "data_location")?;
                    parts.owns(&field);
                    parts.is_external = match field.value {
                        0 => false,
                        1 => true,
                        other => {
                            let what = format!("data location {other} is unknown");
                            return Err(Error::malformed(what).at_offset(field.start));
                        }
                    };
                    false
                }
                _ => false,
            };
            if twice {
                let what = format!("field {} of a tensor is given twice", field.number);
                return Err(Error::malformed(what).at_offset(field.start));
            }
        }
        Ok(parts)
    }

    /// Keeps the span of a field that another content replaces.
    fn owns(&mut self, field: &Field) {
        match self.data_fields.last_mut() {
            Some(last) if last.1 == field.start => last.1 = field.end,
            _ => self.data_fields.push((field.start, field.end)),
        }
    }

    fn dims(&mut self, cursor: &mut Cursor<'_>, field: &Field) -> Result<()> {
        let add = |dims: &mut Vec<i64>, dim: u64| {
            if dims.len() >= RANK {
                return Err(Error::limit(format!("a tensor has more than {RANK} dimensions"))
                    .at_offset(field.start)
                    .with_hint("no tensor has so many: do not trust this file"));
            }
            dims.push(dim as i64);
            Ok(())
        };
        if field.wire == Wire::Bytes {
            let mut at = field.content;
            while at < field.end {
                let (dim, behind) = cursor.varint(at, field.end)?;
                add(&mut self.dims, dim)?;
                at = behind;
            }
            return Ok(());
        }
        field.expect(Wire::Varint, "dims")?;
        add(&mut self.dims, field.value)
    }

    fn run(&mut self, field: &Field) -> Result<()> {
        self.owns(field);
        match &mut self.numbers {
            Some(numbers) if numbers.field == field.number => numbers.extend(field),
            // An empty run says nothing.
            _ if field.wire == Wire::Bytes && field.len() == 0 && field.number != STRING_DATA => {}
            Some(numbers) => {
                let what = format!(
                    "a tensor has elements in `{}` and `{}`",
                    name_of(numbers.field),
                    name_of(field.number)
                );
                return Err(Error::malformed(what).at_offset(field.start));
            }
            None => self.numbers = Some(Numbers::new(field)),
        }
        Ok(())
    }

    fn entry(&mut self, cursor: &mut Cursor<'_>, field: &Field) -> Result<()> {
        let (mut key, mut value, mut at) = (String::new(), String::new(), field.content);
        while let Some(inner) = cursor.field(at, field.end)? {
            at = inner.end;
            match inner.number {
                1 => key = cursor.text(&inner, "external_data.key", TEXT)?,
                2 => value = cursor.text(&inner, "external_data.value", TEXT)?,
                _ => {}
            }
        }
        let twice = self.external.iter().any(|(k, _)| *k == key);
        if twice || self.external.len() >= ENTRIES {
            let what = if twice {
                format!("the external data have two entries {key:?}")
            } else {
                format!("the external data have more than {ENTRIES} entries")
            };
            return Err(Error::malformed(what).at_offset(field.start));
        }
        self.external.push((key, value));
        Ok(())
    }

    /// The shape: no size may be negative.
    pub(super) fn shape(&self) -> Result<Shape> {
        shape_of(&self.dims)
    }

    /// The data type; `Malformed` if none is said.
    pub(super) fn known_type(&self) -> Result<DataType> {
        self.data_type
            .filter(|d| *d != DataType::Undefined)
            .ok_or_else(|| Error::malformed("the tensor has no data type"))
    }

    /// Where the elements are.
    pub(super) fn place(&self, dtype: DType, bytes: u64) -> Result<Place> {
        if self.is_external {
            if self.raw.is_some_and(|r| r.1 > 0) || self.numbers.is_some() {
                return Err(Error::malformed("the tensor has elements in the model and in another file"));
            }
            return self.external_place(bytes);
        }
        let fits = |found: u64, field: &str| {
            let what =
                format!("`{field}` has {found} bytes, and shape {:?} of {dtype} takes {bytes}", self.dims);
            if found == bytes { Ok(()) } else { Err(Error::malformed(what)) }
        };
        match (self.raw.filter(|r| r.1 > 0 || self.numbers.is_none()), self.numbers) {
            (Some(_), Some(numbers)) => {
                let what = format!("the tensor has elements in `raw_data` and `{}`", name_of(numbers.field));
                Err(Error::malformed(what))
            }
            (Some((start, len)), None) => {
                fits(len, "raw_data")?;
                Ok(Place::Here(start, len))
            }
            (None, Some(numbers)) => {
                let wanted = field_of(dtype);
                if numbers.field != wanted {
                    let (found, wanted) = (name_of(numbers.field), name_of(wanted));
                    let what =
                        format!("the elements are in `{found}`; those of {dtype} belong into `{wanted}`");
                    return Err(Error::malformed(what));
                }
                match numbers.plain() {
                    Some((start, len)) => {
                        fits(len, name_of(wanted))?;
                        Ok(Place::Here(start, len))
                    }
                    None => Ok(Place::Typed(numbers)),
                }
            }
            (None, None) => {
                fits(0, "raw_data")?;
                Ok(Place::Here(0, 0))
            }
        }
    }

    fn external_place(&self, bytes: u64) -> Result<Place> {
        let get = |key: &str| self.external.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let number = |key: &str| {
            let parsed = get(key).map(|text| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<u64>().ok().filter(|_| digits).ok_or_else(|| {
                    Error::malformed(format!("the external data's {key} is {text:?}, which is no number"))
                })
            });
            parsed.transpose()
        };
        let Some(location) = get("location") else {
            return Err(Error::malformed("the elements are in another file, and no location is given"));
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if let Some(length) = length.filter(|&l| l != bytes) {
            let what =
                format!("the external data have {length} bytes, and shape {:?} takes {bytes}", self.dims);
            return Err(Error::malformed(what));
        }
        Ok(Place::External {
            location: location.to_owned(),
            offset,
            checksum: get("checksum").map(str::to_owned),
        })
    }
}

/// Sizes out of a file.
pub(super) fn shape_of(dims: &[i64]) -> Result<Shape> {
    let shape: Option<Shape> = dims.iter().map(|&d| u64::try_from(d).ok()).collect();
    let Some(shape) = shape else {
        return Err(Error::malformed(format!("a size of shape {dims:?} is negative")));
    };
    if element_count(&shape).is_none() {
        return Err(Error::malformed(format!("the product of shape {dims:?} passes 64 bits")));
    }
    Ok(shape)
}

/// Where a tensor's elements are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A span of the model's file.
    Here(u64, u64),
    /// Numbers that are decoded.
    Typed(Numbers),
    /// A span of another file.
    External { location: String, offset: u64, checksum: Option<String> },
}
