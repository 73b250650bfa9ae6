//! Protobuf's wire format: varints, keys and lengths, read within bounds and written.
//!
//! After the encoding page of the protobuf documentation. Groups (wire types 3 and 4), which ONNX does not use, are
//! refused.

use crate::error::{Error, Result};

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// The longest varint, in bytes.
pub(super) const MAX_VARINT: usize = 10;

/// Reads a varint from the front of `bytes`: the number, and how many bytes it takes. `None` if it does not end, or
/// says more than 64 bits.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(MAX_VARINT) {
        if i == MAX_VARINT - 1 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, i + 1));
        }
    }
    None
}

/// Splits a key into the field's number and its wire type.
pub(super) fn split_key(key: u64) -> Result<(u32, Wire)> {
    let field = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
    let Some(field) = field else {
        return Err(Error::malformed(format!("{} is no number of a protobuf field", key >> 3)));
    };
    let wire = match key & 7 {
        0 => Wire::Varint,
        1 => Wire::Fixed64,
        2 => Wire::Bytes,
        5 => Wire::Fixed32,
        3 | 4 => return Err(Error::malformed(format!("field {field} is a group, which ONNX does not use"))),
        other => return Err(Error::malformed(format!("field {field} has the unknown wire type {other}"))),
    };
    Ok((field, wire))
}

/// The bytes that a varint takes.
pub(super) fn varint_len(number: u64) -> u64 {
    u64::from((64 - (number | 1).leading_zeros()).div_ceil(7))
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a field's key.
pub(super) fn put_key(out: &mut Vec<u8>, field: u32, wire: Wire) {
    put_varint(out, u64::from(field) << 3 | wire as u64);
}

/// Appends the key and length of a field whose content follows.
pub(super) fn put_len(out: &mut Vec<u8>, field: u32, len: u64) {
    put_key(out, field, Wire::Bytes);
    put_varint(out, len);
}

/// Appends bytes or a string.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_len(out, field, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_key(out, field, Wire::Varint);
    put_varint(out, number);
}

/// Appends a message.
pub(super) fn put_message(out: &mut Vec<u8>, field: u32, message: &impl prost::Message) {
    put_len(out, field, message.encoded_len() as u64);
    message.encode_raw(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_bad_ones_are_none() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, n);
            assert_eq!(varint(&bytes), Some((n, bytes.len())));
            assert_eq!(varint_len(n), bytes.len() as u64);
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None, "{n} cut short");
        }
        assert_eq!(varint(&[0xff; 11]), None, "no end");
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None, "65 bits");
        assert_eq!(varint(&[0x80, 0x00]), Some((0, 2)), "longer than needed is allowed");
    }

    #[test]
    fn keys_that_onnx_cannot_have_are_refused() {
        assert_eq!(split_key(7 << 3 | 2).unwrap(), (7, Wire::Bytes));
        for bad in [2, 7 << 3 | 3, 7 << 3 | 4, 7 << 3 | 6, 1 << 32 | 2, u64::MAX] {
            assert!(split_key(bad).is_err(), "{bad:#x}");
        }
    }
}
