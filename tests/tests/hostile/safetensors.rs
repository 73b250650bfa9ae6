//! safetensors files that break a rule of the reference, or one of those that are stricter here on purpose.

use weighbridge::ErrorKind;

use super::{open, refused};

/// A file of this header and so many bytes behind it.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![1; data]].concat()
}

#[test]
fn what_is_allowed_is_read() {
    for (header, data) in [
        ("{}", 0),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"__metadata__":null}"#, 4),
        (r#"{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":[{"x":1}]}}    "#, 1),
        // Entries in another order than their bytes; the second begins unaligned.
        (
            r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            5,
        ),
        (r#"{"a":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]}}"#, 0),
    ] {
        let archive = open(&file(header, data)).unwrap_or_else(|e| panic!("{header}: {e:?}"));
        for i in 0..archive.tensors().len() {
            archive.data(i).unwrap().read_all().unwrap();
        }
    }
}

#[test]
fn what_breaks_a_rule_is_malformed() {
    let cases: &[(&str, usize)] = &[
        // Trailing junk, NUL padding, a byte order mark, white space before the brace.
        ("{} x", 0),
        ("{}\0\0", 0),
        ("\u{feff}{}", 0),
        (" {}", 0),
        // JSON that is none, or another.
        ("[]", 0),
        ("{\"a\":}", 0),
        ("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},}", 8),
        // Dtypes.
        (r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":1,"shape":[2],"data_offsets":[0,8]}}"#, 8),
        // Shapes.
        (r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, 2),
        // Offsets.
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}"#, 9),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,0]}}"#, 8),
        // Holes, overlaps, an end elsewhere.
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
        ),
        // Names given twice, which the reference takes.
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
            2,
        ),
        (r#"{"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}}"#, 0),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0),
        (r#"{"__metadata__":{"a":1}}"#, 0),
        (r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1),
        // Missing parts.
        (r#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":null}"#, 0),
    ];
    for (header, data) in cases {
        let error = open(&file(header, *data)).err().unwrap_or_else(|| panic!("{header} was opened"));
        // By its content, what does not begin as a header is no safetensors file at all.
        let kinds = [ErrorKind::Malformed, ErrorKind::UnknownFormat];
        assert!(kinds.contains(&error.kind()), "{header}: {error:?}");
    }
}

#[test]
fn header_lengths_are_held_against_the_file() {
    for len in [3u64, 1 << 20, 100_000_001, u64::MAX, u64::MAX - 7, 1 << 63] {
        let bytes = [&len.to_le_bytes()[..], b"{}"].concat();
        let error = open(&bytes).err().unwrap_or_else(|| panic!("{len} was opened"));
        assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::UnknownFormat), "{len}: {error:?}");
    }
}

#[test]
fn text_that_is_no_utf8_and_deep_nesting_are_refused() {
    let broken = [&8u64.to_le_bytes()[..], b"{\"\xff\xfe\":1"].concat();
    assert!(open(&broken).is_err());
    let deep = format!(r#"{{"a":{}1{}}}"#, r#"{"x":"#.repeat(100_000), "}".repeat(100_000));
    refused(&file(&deep, 0), ErrorKind::Malformed, "");
    let deep = format!(
        r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":{}{}}}}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert!(open(&file(&deep, 1)).is_err());
}
