//! Encryption held against damage, tricks and its own promises.

use std::fs;
use std::path::Path;

use weighbridge_formats::{DType, Data, ErrorKind, MemoryArchive, ReadOptions, Registry, Source, Tensor};

use super::*;

/// A key pair in files; returns the recipients, and the identities.
fn keys(dir: &Path) -> (Recipients, Identities) {
    let path = dir.join("key.txt");
    let public = generate_identity(&path).unwrap();
    let mut recipients = Recipients::new();
    recipients.add(&public).unwrap();
    (recipients, identities(&path))
}

fn identities(path: &Path) -> Identities {
    let mut identities = Identities::new();
    identities.add_file(path, &mut |_| panic!("no passphrase is needed")).unwrap();
    identities
}

/// Bytes that show where they are from.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[1]).collect()
}

fn quick() -> EncryptOptions<'static> {
    let mut options = EncryptOptions::default();
    options.execute.fsync = false;
    options
}

#[test]
fn every_length_comes_back_at_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (recipients, identities) = keys(dir.path());
    let (input, sealed, output) = (dir.path().join("in"), dir.path().join("in.age"), dir.path().join("out"));
    for armor in [false, true] {
        for len in [0, 1, 47, 48, 65_535, 65_536, 65_537, 131_072, 131_073, 262_144, 1_000_003] {
            let plain = pattern(len);
            fs::write(&input, &plain).unwrap();
            let mut options = quick();
            options.armor = armor;
            options.execute.overwrite = true;
            encrypt(&input, &sealed, &recipients, &options).unwrap();
            let text = fs::read(&sealed).unwrap();
            assert_eq!(text.starts_with(b"-----BEGIN AGE"), armor);
            let opened = Encrypted::open(&sealed, &identities).unwrap();
            let reader = opened.reader();
            assert_eq!(reader.len(), len as u64);
            for offset in [0, len / 2, len.saturating_sub(1), 65_536.min(len), 65_535.min(len), 0] {
                for count in [0, 1, 100, 65_536, 200_000, len] {
                    let count = count.min(len - offset);
                    let mut part = vec![0; count];
                    reader.read_at(offset as u64, &mut part).unwrap();
                    assert_eq!(part, plain[offset..offset + count], "{armor} {len} {offset} {count}");
                }
            }
            assert!(reader.read_at(len as u64, &mut [0]).is_err());
            let mut options = DecryptOptions::default();
            options.execute.overwrite = true;
            decrypt(&sealed, &output, &identities, &options).unwrap();
            assert_eq!(fs::read(&output).unwrap(), plain, "{armor} {len}");
        }
    }
}

#[test]
fn armor_has_the_lines_of_any_system_and_of_one_length() {
    let dir = tempfile::tempdir().unwrap();
    let (recipients, identities) = keys(dir.path());
    let (input, sealed) = (dir.path().join("in"), dir.path().join("in.age"));
    let plain = pattern(100_000);
    fs::write(&input, &plain).unwrap();
    let mut options = quick();
    options.armor = true;
    encrypt(&input, &sealed, &recipients, &options).unwrap();
    let text = fs::read_to_string(&sealed).unwrap();
    let open =
        |text: &str| Encrypted::from_source(&Source::from_bytes(text), Path::new("x.age"), &identities);
    let read = |text: &str| {
        let opened = open(text)?;
        Data::Lazy(opened.reader()).read_all()
    };
    assert!(read(&text.replace('\n', "\r\n")).unwrap() == plain);
    assert!(read(&format!("  \n{text}\n \n")).unwrap() == plain);
    assert!(read(text.trim_end()).unwrap() == plain);
    let mut lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines[40].split_at(32);
    let short = [&lines[..40], &[first, rest], &lines[41..]].concat().join("\n");
    let cut = text.replace("-----END AGE ENCRYPTED FILE-----", "");
    let more = text.replace("FILE-----\n", "FILE----- \n");
    let other = text.replace(lines[40], &"*".repeat(64));
    lines.remove(40);
    for bad in [short, cut, more, other, lines.join("\n")] {
        assert!(read(&bad).is_err());
    }
}

#[test]
fn threads_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (recipients, identities) = keys(dir.path());
    let plain = pattern(3_000_000);
    fs::write(dir.path().join("in"), &plain).unwrap();
    let sealed = dir.path().join("in.age");
    encrypt(&dir.path().join("in"), &sealed, &recipients, &quick()).unwrap();
    let reader = Encrypted::open(&sealed, &identities).unwrap().reader();
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (reader, plain) = (&reader, &plain);
            scope.spawn(move || {
                let mut at = thread * 31_337;
                for _ in 0..50 {
                    at = (at * 7 + 12_345) % 2_900_000;
                    let mut part = vec![0; 70_000];
                    reader.read_at(at as u64, &mut part).unwrap();
                    assert!(part == plain[at..at + 70_000]);
                }
            });
        }
    });
}

#[test]
fn one_tensor_costs_its_chunks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (recipients, identities) = keys(dir.path());
    let bytes: Vec<Vec<u8>> = (0..64).map(|i| vec![i; 1 << 20]).collect();
    let tensor = |(i, b): (usize, &Vec<u8>)| {
        Tensor::new(format!("t{i:02}"), DType::U8, [1u64 << 20].as_slice(), Data::Owned(b.clone().into()))
            .unwrap()
    };
    let archive = MemoryArchive::new(bytes.iter().enumerate().map(tensor)).unwrap();
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), "{}").unwrap();
    let registry = Registry::builtin();
    weighbridge_formats::save(&registry, &archive, &folder.join("model.safetensors"), &Default::default())
        .unwrap();
    let sealed = dir.path().join("model.age");
    encrypt(&folder, &sealed, &recipients, &quick()).unwrap();
    let whole = fs::metadata(&sealed).unwrap().len();
    assert!(whole > 64 << 20);
    let opened = Encrypted::open(&sealed, &identities).unwrap();
    let names: Vec<_> = opened.members().map(|(n, _)| n.to_owned()).collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    let model = opened.archive(&registry, &ReadOptions::default()).unwrap();
    assert_eq!(model.tensors().len(), 64);
    let listed = opened.fetched();
    assert!(listed < 1 << 20, "{listed} of {whole} bytes were read for the names");
    let one = model.tensor("t33").unwrap().data.read_all().unwrap();
    assert_eq!(one, bytes[33]);
    // A tensor of 16 chunks lies in at most 17.
    let read = opened.fetched() - listed;
    assert!(read <= 17 * (CHUNK + TAG) + (32 << 10), "{read} bytes were read for a tensor of 1 MiB");
}

#[test]
fn whatever_is_changed_cut_or_moved_is_found_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (recipients, identities) = keys(dir.path());
    let input = dir.path().join("in");
    fs::write(&input, pattern(200_000)).unwrap();
    let sealed = dir.path().join("in.age");
    encrypt(&input, &sealed, &recipients, &quick()).unwrap();
    let good = fs::read(&sealed).unwrap();
    let begin = good.len() - (200_000 + 4 * 16);
    let chunk = 65_552;
    let bad = dir.path().join("bad.age");
    let output = dir.path().join("out");
    let try_it = |what: &str, bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        let error =
            decrypt(&bad, &output, &identities, &DecryptOptions::default()).map(|_| ()).expect_err(what);
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::Mismatch | ErrorKind::Malformed | ErrorKind::InvalidOptions),
            "{what}: {error}"
        );
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bad.age", "in", "in.age", "key.txt"], "{what}");
    };
    for at in (0..good.len()).step_by(1_009).chain([begin, begin - 1, good.len() - 1]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        // The first line names the format; a file of another format is no age file.
        try_it(&format!("bit {at}"), &bytes);
    }
    for len in [
        good.len() - 1,
        good.len() - 16,
        begin + 3 * chunk,
        begin + chunk,
        begin + 1,
        begin,
        begin - 1,
        30,
        0,
    ] {
        try_it(&format!("cut to {len}"), &good[..len]);
    }
    for len in [1, 16, 65_552] {
        let mut bytes = good.clone();
        bytes.resize(good.len() + len, 0);
        try_it(&format!("{len} more"), &bytes);
    }
    let mut swapped = good.clone();
    swapped[begin..begin + 2 * chunk].rotate_left(chunk);
    try_it("two chunks swapped", &swapped);
    let without = [&good[..begin], &good[begin + chunk..]].concat();
    try_it("the first chunk left out", &without);
    let twice = [&good[..begin + chunk], &good[begin..]].concat();
    try_it("the first chunk twice", &twice);
    // Chunks of another file to the same key.
    encrypt(&input, &dir.path().join("second"), &recipients, &quick()).unwrap();
    let second = fs::read(dir.path().join("second")).unwrap();
    fs::remove_file(dir.path().join("second")).unwrap();
    let mixed = [&good[..begin + chunk], &second[begin + chunk..]].concat();
    try_it("chunks of another file", &mixed);
}

#[test]
fn a_passphrase_opens_and_another_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::write(&input, "text").unwrap();
    let passphrase = Passphrase::new("correct horse".into()).unwrap();
    let sealed = dir.path().join("in.age");
    encrypt(&input, &sealed, &Recipients::passphrase_with_work(&passphrase, 10), &quick()).unwrap();
    let with = |text: &str| {
        let mut identities = Identities::new();
        identities.add_passphrase(&Passphrase::new(text.into()).unwrap());
        Encrypted::open(&sealed, &identities)
    };
    assert_eq!(with("correct horse").unwrap().reader().len(), 4);
    let error = with("battery staple").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(!format!("{error:?}").contains("battery"), "{error:?}");
    assert!(Passphrase::new(String::new()).is_err());
    let mut mixed = Recipients::passphrase(&passphrase);
    assert!(mixed.add("age1").unwrap_err().to_string().contains("not for both"));
    // Work that would take 64 GiB is refused before it begins.
    let text = fs::read(&sealed).unwrap();
    let header = String::from_utf8_lossy(&text[..120]).into_owned();
    let at = header.find(" 10\n").unwrap();
    let greedy = [&text[..at], b" 26\n", &text[at + 4..]].concat();
    fs::write(&sealed, greedy).unwrap();
    assert_eq!(with("correct horse").unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn headers_without_end_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let (_, identities) = keys(dir.path());
    let file = dir.path().join("x.age");
    let began = std::time::Instant::now();
    let stanza = "-> X25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAA\n";
    let long = format!("age-encryption.org/v1\n{}", "-> a\n\n".repeat(2_000_000));
    let many = format!("age-encryption.org/v1\n{}--- AAAA\n", "-> a\n\n".repeat(5_000));
    let stanzas = format!("age-encryption.org/v1\n{}--- AAAA\n", stanza.repeat(900));
    let armor = format!("-----BEGIN AGE ENCRYPTED FILE-----\n{}", "A".repeat(9_000_000));
    let spaces = format!("{}-----BEGIN AGE ENCRYPTED FILE-----\n", " ".repeat(3000));
    for text in [
        &*long,
        &many,
        &stanzas,
        &armor,
        &spaces,
        "age-encryption.org/v1\n",
        "age-encryption.org/v2\n--- x\n",
    ] {
        fs::write(&file, text).unwrap();
        let error = Encrypted::open(&file, &identities).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::LimitExceeded
                    | ErrorKind::Malformed
                    | ErrorKind::Mismatch
                    | ErrorKind::Unsupported
            ),
            "{error}"
        );
    }
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

#[test]
fn no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.txt");
    let public = generate_identity(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let secret = text.lines().nth(1).unwrap().to_owned();
    assert!(secret.starts_with("AGE-SECRET-KEY-1") && !public.contains(&secret[20..40]));
    let identities = identities(&path);
    let passphrase = Passphrase::new(secret.clone()).unwrap();
    let mut recipients = Recipients::new();
    let mut said = format!("{identities:?} {passphrase:?} {recipients:?}");
    for wrong in
        [secret.clone(), secret.to_lowercase(), format!("{secret}x"), format!("ssh-ed25519 {secret}")]
    {
        let error = recipients.add(&wrong).unwrap_err();
        said.push_str(&format!("{error} {error:?} {:?}", error.hint()));
    }
    let bad = dir.path().join("bad.txt");
    for content in [
        format!("{secret}x\n"),
        format!("x{secret}"),
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n"),
    ] {
        fs::write(&bad, content).unwrap();
        let error = Identities::new().add_file(&bad, &mut |_| panic!()).unwrap_err();
        said.push_str(&format!("{error} {error:?}"));
        let error = recipients.add_file(&bad).unwrap_err();
        said.push_str(&format!("{error} {error:?}"));
    }
    assert!(!said.to_uppercase().contains(&secret[20..40]), "{said}");
}

#[cfg(unix)]
#[test]
fn keys_and_what_is_decrypted_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (recipients, identities) = keys(dir.path());
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("key.txt"), 0o600);
    assert!(generate_identity(&dir.path().join("key.txt")).is_err());
    assert!(identities.notes().is_empty());
    let folder = dir.path().join("model/sub");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("x"), "x").unwrap();
    let sealed = dir.path().join("m.age");
    encrypt(&dir.path().join("model"), &sealed, &recipients, &quick()).unwrap();
    let result = decrypt(&sealed, &dir.path().join("out"), &identities, &DecryptOptions::default()).unwrap();
    assert!(result.folder);
    assert_eq!((mode("out"), mode("out/sub"), mode("out/sub/x")), (0o700, 0o700, 0o600));
    let mut options = DecryptOptions::default();
    options.execute.mode = Some(0o640);
    decrypt(&sealed, &dir.path().join("out2"), &identities, &options).unwrap();
    assert_eq!((mode("out2"), mode("out2/sub"), mode("out2/sub/x")), (0o750, 0o750, 0o640));
    fs::set_permissions(dir.path().join("key.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = super::tests::identities(&dir.path().join("key.txt"));
    assert!(open.notes()[0].text.contains("chmod 600"), "{:?}", open.notes());
}

/// A member's name, kind and content.
type TarEntry<'a> = (&'a [u8], u8, &'a [u8]);

/// A tar of our own making, sealed and opened.
fn opened_tar(dir: &Path, entries: &[TarEntry<'_>]) -> weighbridge_formats::Result<Encrypted> {
    let (recipients, identities) = {
        let key = dir.join("key.txt");
        if key.exists() {
            fs::remove_file(&key).unwrap();
        }
        keys(dir)
    };
    let mut bytes = Vec::new();
    for (name, kind, content) in entries {
        let mut header = ::tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(::tar::EntryType::new(*kind));
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    let (input, sealed) = (dir.join("x.tar"), dir.join("x.age"));
    fs::write(&input, bytes).unwrap();
    let mut options = quick();
    options.execute.overwrite = true;
    encrypt(&input, &sealed, &recipients, &options).unwrap();
    Encrypted::open(&sealed, &identities)
}

#[test]
fn tars_with_tricks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fine =
        opened_tar(dir.path(), &[(b"./", b'5', b""), (b"./a/b", b'0', b"1"), (b"c", b'0', b"22")]).unwrap();
    assert_eq!(fine.members().collect::<Vec<_>>(), [("a/b", 1), ("c", 2)]);
    let long = b"17 path=../../x\n\0";
    let tricks: &[(&str, &[TarEntry<'_>])] = &[
        ("parent", &[(b"../x", b'0', b"1")]),
        ("inner parent", &[(b"a/../../x", b'0', b"1")]),
        ("absolute", &[(b"/etc/x", b'0', b"1")]),
        ("backslash", &[(b"a\\..\\x", b'0', b"1")]),
        ("drive", &[(b"C:x", b'0', b"1")]),
        ("device name", &[(b"nul.txt", b'0', b"1")]),
        ("trailing dot", &[(b"x.", b'0', b"1")]),
        ("symlink", &[(b"x", b'2', b"")]),
        ("hard link", &[(b"x", b'1', b"")]),
        ("fifo", &[(b"x", b'6', b"")]),
        ("character device", &[(b"x", b'3', b"")]),
        ("block device", &[(b"x", b'4', b"")]),
        ("twice", &[(b"x", b'0', b"1"), (b"x", b'0', b"2")]),
        ("case", &[(b"x", b'0', b"1"), (b"X", b'0', b"2")]),
        ("folder's case", &[(b"a/x", b'0', b"1"), (b"A/y", b'0', b"2")]),
        ("file and folder", &[(b"a", b'0', b"1"), (b"A/y", b'0', b"2")]),
        ("folder outside", &[(b"../d/", b'5', b""), (b"x", b'0', b"1")]),
        ("pax path", &[(b"p", b'x', long), (b"x", b'0', b"1")]),
        ("GNU long name", &[(b"p", b'L', b"../../x\0"), (b"x", b'0', b"1")]),
        ("GNU long link", &[(b"p", b'K', b"target\0"), (b"x", b'2', b"")]),
        ("sparse", &[(b"x", b'S', b"1")]),
        ("empty", &[(b"a//b", b'0', b"1")]),
    ];
    for (what, entries) in tricks {
        let error = opened_tar(dir.path(), entries).map(|_| ()).expect_err(what);
        assert!(
            matches!(error.kind(), ErrorKind::UnsafeContent | ErrorKind::Unsupported | ErrorKind::Malformed),
            "{what}: {error}"
        );
    }
}

#[test]
fn long_names_and_the_same_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mödel");
    let deep = folder.join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(200)), "long").unwrap();
    fs::write(folder.join("ü.bin"), "text").unwrap();
    let pack = || {
        let packed = super::tar::Packed::new(super::run::entries(&folder).unwrap()).unwrap();
        Data::lazy(packed).read_all().unwrap()
    };
    let first = pack();
    assert!(first == pack());
    let listing = super::tar::list(&first).unwrap();
    assert!(listing.marked);
    assert_eq!(listing.members.len(), 2);
    assert_eq!(listing.members[1].name, "ü.bin");
    assert_eq!(listing.members[0].name.len(), 120 + 1 + 120 + 1 + 200);
    let at = listing.members[0].offset as usize;
    assert_eq!(&first[at..at + 4], b"long");
    // Cut at any place, or with any byte changed, it is refused or lists what is there; it never panics.
    for cut in (0..first.len()).step_by(97) {
        let _ = super::tar::list(&first[..cut].to_vec());
        let mut bytes = first.clone();
        bytes[cut] ^= 0x55;
        let _ = super::tar::list(&bytes);
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_a_folder_are_not_packed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let (recipients, _) = keys(dir.path());
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(dir.path().join("secret"), "s").unwrap();
    let sealed = dir.path().join("m.age");
    for target in ["../secret", "..", "absent", "/dev/null"] {
        let _ = fs::remove_file(folder.join("x"));
        symlink(target, folder.join("x")).unwrap();
        assert!(encrypt(&folder, &sealed, &recipients, &quick()).is_err(), "{target}");
        assert!(!sealed.exists());
    }
    fs::remove_file(folder.join("x")).unwrap();
    fs::write(folder.join("real"), "r").unwrap();
    symlink("real", folder.join("x")).unwrap();
    encrypt(&folder, &sealed, &recipients, &quick()).unwrap();
}

#[test]
fn a_file_that_changes_its_length_meanwhile_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("x"), "four").unwrap();
    let packed = super::tar::Packed::new(super::run::entries(&folder).unwrap()).unwrap();
    fs::write(folder.join("x"), "three").unwrap();
    assert!(Data::lazy(packed).read_all().unwrap_err().to_string().contains("has 5 now"));
}

#[test]
fn a_source_in_a_container_never_reaches_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let index = br#"{"weight_map":{"a":"outside.safetensors"}}"#;
    fs::write(dir.path().join("outside.safetensors"), "x").unwrap();
    let opened = opened_tar(dir.path(), &[(b"model.safetensors.index.json", b'0', index)]).unwrap();
    let error = opened.archive(&Registry::builtin(), &ReadOptions::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let source: Source = opened.source("model.safetensors.index.json").unwrap();
    assert_eq!(source.sibling("../outside.safetensors").unwrap_err().kind(), ErrorKind::UnsafeContent);
}
