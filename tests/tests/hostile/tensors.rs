//! Tensors whose numbers lie: sizes, strides, offsets and lengths that do not fit what is stored.

use std::time::{Duration, Instant};

use weighbridge::{DType, ErrorKind};
use weighbridge_testkit::archives::named;
use weighbridge_testkit::readers::Counted;
use weighbridge_testkit::write::save;
use weighbridge_testkit::zip;

use super::{STORAGE, open, refused, state_dict, tensor, torch, unreadable};

/// A torch file of one tensor over a storage of four floats.
fn lying(offset: &str, size: &str, stride: &str) -> Vec<u8> {
    torch(&state_dict(&tensor(STORAGE, offset, size, stride)))
}

#[test]
fn an_honest_tensor_of_the_same_making_is_read() {
    let archive = open(&lying("I0\n", "(I2\nI2\nt", "(I2\nI1\nt")).unwrap();
    assert_eq!((archive.tensors()[0].dtype(), archive.tensors()[0].shape()), (DType::F32, &[2, 2][..]));
    assert_eq!(archive.data(0).unwrap().read_all().unwrap(), [7; 16]);
}

#[test]
fn an_expanded_tensor_of_two_billion_elements_is_over_the_limit_at_once() {
    let start = Instant::now();
    refused(&lying("I0\n", "(I2000000000\nt", "(I0\nt"), ErrorKind::LimitExceeded, "written out");
    // Many that are each below the limit count together.
    let one = tensor(STORAGE, "I0\n", "(I100000000\nt", "(I0\nt");
    let many: String = (0..10).map(|i| format!("Vw{i}\n{one}s")).collect();
    refused(&torch(&[b"\x80\x02}", many.as_bytes(), b"."].concat()), ErrorKind::LimitExceeded, "written out");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn strides_and_offsets_past_the_storage_are_refused() {
    for (offset, size, stride) in [
        ("I1\n", "(I4\nt", "(I1\nt"),
        ("I4\n", "(I1\nt", "(I1\nt"),
        ("I0\n", "(I2\nI2\nt", "(I3\nI1\nt"),
        ("I0\n", "(I2\nt", "(I4\nt"),
        ("I9223372036854775807\n", "(I1\nt", "(I1\nt"),
        ("I0\n", "(I2\nt", "(I9223372036854775807\nt"),
        ("I0\n", "(I4294967296\nI4294967296\nt", "(I4294967296\nI1\nt"),
    ] {
        refused(&lying(offset, size, stride), ErrorKind::Malformed, "");
    }
}

#[test]
fn negative_sizes_strides_and_offsets_are_refused() {
    for (offset, size, stride) in [
        ("I-1\n", "(I2\nt", "(I1\nt"),
        ("I0\n", "(I-2\nt", "(I1\nt"),
        ("I3\n", "(I2\nt", "(I-1\nt"),
        ("I0\n", "(I-9223372036854775808\nt", "(I1\nt"),
    ] {
        refused(&lying(offset, size, stride), ErrorKind::Malformed, "negative");
    }
}

#[test]
fn products_that_overflow_are_refused() {
    let side = "I6074001000\n"; // Its square passes 64 bits when it is counted in bytes.
    for size in [
        format!("({side}{side}{side}t"),
        "(I9223372036854775807\nI9223372036854775807\nt".into(),
        "(L99999999999999999999999L\nt".into(),
    ] {
        let zeros = "(I0\nI0\nI0\nt";
        let error = open(&lying("I0\n", &size, zeros)).expect_err("an error");
        assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::LimitExceeded), "{size}: {error:?}");
    }
    // As many strides as sizes, and yet too many elements for any number.
    refused(
        &lying("I0\n", "(I9223372036854775807\nI9223372036854775807\nt", "(I0\nI0\nt"),
        ErrorKind::Malformed,
        "overflow",
    );
}

#[test]
fn shapes_of_other_types_and_lengths_are_refused() {
    for (size, stride) in [
        ("(I4\nt", "(t"),
        ("(I4\nt", "(I1\nI1\nt"),
        ("N", "(I1\nt"),
        ("(Vfour\nt", "(I1\nt"),
        ("(F4.0\nt", "(I1\nt"),
        ("cos\nsystem\n", "(I1\nt"),
    ] {
        refused(&lying("I0\n", size, stride), ErrorKind::Malformed, "");
    }
}

#[test]
fn a_storage_that_does_not_fit_its_bytes_is_refused() {
    for numel in ["I5\n", "I1000000000\n", "I9223372036854775807\n"] {
        let storage = format!("(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n{numel}tQ");
        let pickle = state_dict(&tensor(&storage, "I0\n", "(I4\nt", "(I1\nt"));
        refused(&torch(&pickle), ErrorKind::Malformed, "");
    }
    let absent = STORAGE.replace("V0\n", "V9\n");
    refused(
        &torch(&state_dict(&tensor(&absent, "I0\n", "(I4\nt", "(I1\nt"))),
        ErrorKind::Malformed,
        "storage \"9\"",
    );
}

#[test]
fn a_storage_whose_checksum_does_not_agree_is_not_handed_out() {
    let pickle = state_dict(&tensor(STORAGE, "I0\n", "(I4\nt", "(I1\nt"));
    let mut members = zip::torch(&pickle, &[("0", &[7; 16])]);
    members[1].crc32 = Some(0xdead_beef);
    unreadable(&zip::build(&members), ErrorKind::Mismatch, "CRC-32");
    // One element of four, and the checksum is still that of all.
    let pickle = state_dict(&tensor(STORAGE, "I2\n", "(I1\nt", "(I1\nt"));
    let mut members = zip::torch(&pickle, &[("0", &[7; 16])]);
    members[1].crc32 = Some(0xdead_beef);
    unreadable(&zip::build(&members), ErrorKind::Mismatch, "CRC-32");
}

#[test]
fn twenty_thousand_storages_cost_a_read_or_two_each() {
    let registry = weighbridge::Registry::builtin();
    let folder = tempfile::tempdir().unwrap();
    let mut calls = Vec::new();
    for count in [5_000, 20_000] {
        let names: Vec<String> = (0..count).map(|i| format!("layer.{i}.weight")).collect();
        let saved = save(&registry, "torch", &named(&names), folder.path(), "many").unwrap();
        let file = Counted::new(std::fs::read(&saved.path).unwrap());
        let archive = registry.open(file.source(), &weighbridge::ReadOptions::default()).unwrap();
        assert_eq!(archive.tensors().len(), count);
        let (opening, bytes) = file.take();
        assert!(opening < 60, "{opening} reads to open {count} tensors");
        assert!(bytes < 400 * count as u64 + (1 << 20), "{bytes} bytes to open {count} tensors");
        for i in 0..count {
            archive.data(i).unwrap().read_all().unwrap();
        }
        let (reading, _) = file.take();
        assert!(reading <= 2 * count as u64, "{reading} reads of {count} tensors");
        calls.push(opening);
    }
    assert!(calls[1] <= calls[0] + 8, "opening takes {calls:?} reads: more with more tensors");
}
