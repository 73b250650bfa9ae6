//! Zips that show different files to different readers, lie about their lengths, or reach outside.

use weighbridge::{ErrorKind, ReadAt};
use weighbridge_testkit::alloc::peak_of;
use weighbridge_testkit::zip::{End, Member, build, build_with, torch as members, zip64};

use super::{STORAGE, open, refused, state_dict, tensor, unreadable};

/// The members of an honest file of one tensor: pickle, storage, version.
fn honest() -> Vec<Member> {
    members(&state_dict(&tensor(STORAGE, "I0\n", "(I4\nt", "(I1\nt")), &[("0", &[7; 16])])
}

#[test]
fn the_honest_file_is_read() {
    let archive = open(&build(&honest())).unwrap();
    assert_eq!(archive.data(0).unwrap().read_all().unwrap(), [7; 16]);
}

#[test]
fn two_members_of_one_name_are_refused() {
    for name in ["archive/data.pkl", "archive/data/0", "archive/version"] {
        let mut all = honest();
        all.push(Member::new(name, "other"));
        refused(&build(&all), ErrorKind::UnsafeContent, "two members");
    }
}

#[test]
fn members_that_overlap_are_refused() {
    // Two names for the same bytes; a member that begins inside another; one that reaches into the directory.
    let mut same = honest();
    same.push(Member { header: Some(0), ..Member::new("archive/again", same[0].stored.clone()) });
    refused(&build(&same), ErrorKind::UnsafeContent, "overlap");
    let mut inside = honest();
    inside[1].header = Some(20);
    refused(&build(&inside), ErrorKind::UnsafeContent, "overlap");
    let mut long = honest();
    (long[2].size, long[2].compressed) = (Some(10_000), Some(10_000));
    refused(&build(&long), ErrorKind::UnsafeContent, "overlap");
}

#[test]
fn a_local_name_that_differs_is_refused() {
    for i in 0..3 {
        let mut all = honest();
        all[i].local_name = Some(all[i].name.replace("archive", "another"));
        unreadable(&build(&all), ErrorKind::UnsafeContent, "another name");
        all[i].local_name = Some("x".into());
        unreadable(&build(&all), ErrorKind::UnsafeContent, "");
    }
}

#[test]
fn encrypted_and_patched_members_are_refused() {
    for flags in [0x1, 0x20, 0x40, 0x2000, 0x41] {
        for i in 0..3 {
            let mut all = honest();
            all[i].flags = flags;
            let error = refused(&build(&all), ErrorKind::Malformed, "encrypted");
            assert!(error.hint().is_some());
        }
    }
}

#[test]
fn other_compressions_are_named() {
    for method in [1, 9, 12, 14, 93, 99] {
        let mut all = honest();
        all[1].method = method;
        refused(&build(&all), ErrorKind::Unsupported, &format!("method {method}"));
    }
}

#[test]
fn a_wrong_checksum_is_an_error_where_the_member_is_used() {
    let mut all = honest();
    all[0].crc32 = Some(1);
    refused(&build(&all), ErrorKind::Mismatch, "data.pkl");
    let mut all = honest();
    all[1].crc32 = Some(1);
    unreadable(&build(&all), ErrorKind::Mismatch, "data/0");
}

#[test]
fn names_that_leave_the_archive_are_refused() {
    for name in ["../x", "archive/../../x", "/etc/passwd", "..", "archive\\..\\x", "archive/\0x"] {
        let mut all = honest();
        all.push(Member::new(name, "x"));
        refused(&build(&all), ErrorKind::UnsafeContent, "outside");
    }
}

#[test]
fn a_symlink_member_is_bytes_like_any_other() {
    let mut all = honest();
    let link = Member { attributes: 0o120_777 << 16, ..Member::new("archive/data/link", "/etc/passwd") };
    all.push(link);
    // It is never followed; nothing is unpacked. A storage that is one has the link's text for its bytes.
    assert_eq!(open(&build(&all)).unwrap().tensors().len(), 1);
    let mut all = honest();
    all[1].attributes = 0o120_777 << 16;
    assert_eq!(open(&build(&all)).unwrap().data(0).unwrap().read_all().unwrap(), [7; 16]);
}

/// Deflated zeros: stored blocks would not be small, so one block with the fixed codes repeats a zero.
fn deflated_zeros(bits_of_run: usize) -> Vec<u8> {
    // A final block with fixed codes: a literal 0 (00110000), then pairs of length 258 (11000101) and distance 1 (00000).
    let mut bits: Vec<u8> = vec![1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    for _ in 0..bits_of_run {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    bits.extend([0; 7]); // The end of the block.
    bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |b, (i, bit)| b | bit << i)).collect()
}

#[test]
fn a_zip_bomb_is_not_inflated_into_memory() {
    // A pickle that would inflate to 300 MB, and one that claims 2 GiB.
    let bomb = deflated_zeros(1_200_000);
    let mut all = honest();
    all[0] = Member {
        method: 8,
        size: Some(1 + 258 * 1_200_000),
        compressed: None,
        ..Member::new("archive/data.pkl", bomb.clone())
    };
    let file = build(&all);
    let (opened, peak) = peak_of(|| {
        weighbridge::Registry::builtin()
            .open(weighbridge::Source::from_bytes(file.as_slice()), &weighbridge::ReadOptions::default())
    });
    let error = opened.expect_err("an error");
    assert!(
        matches!(error.kind(), ErrorKind::LimitExceeded | ErrorKind::Mismatch | ErrorKind::Malformed),
        "{error:?}"
    );
    assert!(peak < 128 << 20, "{peak} bytes of memory for a bomb of {}", file.len());
    // More than deflate can make of so few bytes is refused by the numbers alone.
    all[0].size = Some(0x7fff_0000);
    refused(&build(&all), ErrorKind::Malformed, "deflate");
    // So is a storage; where the limit allows it, it is inflated piece by piece, and only if it is asked for.
    let mut all = honest();
    all[1] = Member { method: 8, size: Some(1 + 258 * 1_200_000), ..Member::new("archive/data/0", bomb) };
    let file = build(&all);
    refused(&file, ErrorKind::LimitExceeded, "inflate");
    let mut options = weighbridge::ReadOptions::default();
    options.limits.inflated_bytes = 1 << 30;
    let source = weighbridge::Source::from_bytes(file.as_slice());
    let archive = weighbridge::Registry::builtin().open(source, &options).unwrap();
    let (_, peak) = peak_of(|| archive.data(0).and_then(|d| d.read_at(0, &mut [0; 16])));
    assert!(peak < 1 << 20, "{peak} bytes of memory for 16");
}

#[test]
fn a_truncated_directory_is_called_a_cut_off_download() {
    let file = build(&honest());
    for cut in [1, 10, 22, 23, 40, 100] {
        let error = refused(&file[..file.len() - cut], ErrorKind::Malformed, "");
        assert!(error.hint().is_some_and(|h| h.contains("download")), "{error:?}");
    }
}

#[test]
fn end_records_that_lie_are_refused() {
    let all = honest();
    type Lie = fn(End) -> End;
    let lies: &[Lie] = &[
        |e| End { entries: 65_000, ..e },
        |e| End { entries: 2, ..e },
        |e| End { size: e.size + 1, ..e },
        |e| End { size: e.size - 1, ..e },
        |e| End { size: u32::MAX - 1, ..e },
        |e| End { offset: e.offset + 1, ..e },
        |e| End { offset: e.offset - 1, ..e },
        |e| End { offset: u32::MAX - 1, ..e },
    ];
    for (i, lie) in lies.iter().enumerate() {
        let kind = open(&build_with(&all, &[], lie)).err().unwrap_or_else(|| panic!("lie {i}")).kind();
        // Where the directory is not found, no reader takes the file for its own.
        let told = [ErrorKind::Malformed, ErrorKind::UnsafeContent, ErrorKind::UnknownFormat];
        assert!(told.contains(&kind), "lie {i}: {kind:?}");
    }
}

#[test]
fn zip64_records_that_lie_are_refused() {
    let all = honest();
    let truth = {
        let mut end = None;
        build_with(&all, &[], |e| *end.insert(e));
        end.unwrap()
    };
    let (n, size, offset) = (u64::from(truth.entries), u64::from(truth.size), u64::from(truth.offset));
    let at = offset + size;
    let narrow = |_: End| End { entries: u16::MAX, size: u32::MAX, offset: u32::MAX };
    let archive = open(&build_with(&all, &zip64(at, n, size, offset), narrow)).unwrap();
    assert_eq!(archive.tensors().len(), 1, "the truth in 64 bits");
    for (what, record) in [
        ("a record past the end", zip64(u64::MAX, n, size, offset)),
        ("a record elsewhere", zip64(at - 1, n, size, offset)),
        ("more entries", zip64(at, u64::MAX, size, offset)),
        ("a longer directory", zip64(at, n, u64::MAX, offset)),
        ("a directory past the end", zip64(at, n, size, u64::MAX)),
        ("a sum that overflows", zip64(at, n, 1 << 63, 1 << 63)),
    ] {
        let kind = open(&build_with(&all, &record, narrow)).err().unwrap_or_else(|| panic!("{what}")).kind();
        assert!(matches!(kind, ErrorKind::Malformed | ErrorKind::LimitExceeded), "{what}: {kind:?}");
    }
    // Two records that disagree would show two files.
    refused(&build_with(&all, &zip64(at, n - 1, size, offset), |e| e), ErrorKind::Malformed, "contradicts");
    // A member's own field.
    for extra in [vec![1, 0, 8, 0], vec![1, 0, 0, 0], vec![1, 0, 4, 0, 1, 2, 3, 4]] {
        let mut all = honest();
        all[1] = Member { size: Some(u32::MAX), compressed: Some(u32::MAX), extra, ..all[1].clone() };
        let kind = open(&build(&all)).expect_err("an error").kind();
        assert!(matches!(kind, ErrorKind::Malformed | ErrorKind::UnsafeContent), "{kind:?}");
    }
}

#[test]
fn a_directory_hidden_in_the_comment_is_not_taken() {
    // Another archive behind the first: its own end record is the one that ends the file, so it is what counts, and
    // its offsets do not fit.
    let (first, second) = (build(&honest()), build(&[Member::new("archive/data.pkl", "\u{2}evil")]));
    let both = [first, second].concat();
    assert!(open(&both).is_err());
}

#[test]
fn a_zip_in_a_zip_is_not_opened_by_itself() {
    let inner = build(&honest());
    let outer = build(&[Member::new("model.pt", inner)]);
    let error = refused(&outer, ErrorKind::UnknownFormat, "zip");
    assert!(error.hint().is_some_and(|h| h.contains("unpack")), "{error:?}");
}
