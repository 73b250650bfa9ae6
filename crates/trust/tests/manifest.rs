//! Manifests made of real files, held against every kind of change, and repaired.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use weighbridge_formats::logical::hash_archive;
use weighbridge_formats::{ConvertOptions, DType, Data, ErrorKind, MemoryArchive, Registry, Tensor, save};
use weighbridge_trust::manifest::{
    Change, Covers, HashOptions, Manifest, Recorded, Verification, VerifyOptions, hash, manifest_path,
    repair, verify, verify_tensors,
};

/// A model of some tensors, one of which has several chunks; the bytes depend on `seed`.
struct Model(Vec<(String, Vec<u8>)>);

impl Model {
    fn new(seed: usize) -> Self {
        let bytes =
            |len: usize, salt: usize| (0..len).map(|i| ((i + seed) * 31 + i / 251 + salt) as u8).collect();
        Self(vec![
            ("big".into(), bytes(800_000, 0)),
            ("empty".into(), Vec::new()),
            ("large".into(), bytes(300_004, 1)),
            ("small".into(), bytes(12, 2)),
        ])
    }

    fn save(&self, path: &Path, shard: Option<u64>) {
        let tensor = |(name, bytes): &'_ (String, Vec<u8>)| {
            let data = Data::Owned(bytes.clone().into());
            Tensor::new(name.clone(), DType::F32, [bytes.len() as u64 / 4].as_slice(), data).unwrap()
        };
        let archive = MemoryArchive::new(self.0.iter().map(tensor)).unwrap();
        let mut options = ConvertOptions::default();
        options.write.max_shard_size = shard;
        options.fsync = false;
        save(&Registry::builtin(), &archive, path, &options).unwrap();
    }
}

/// A model's folder with a config, a subfolder and hidden files; returns it with its manifest written.
fn folder(shard: Option<u64>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Model::new(0).save(&dir.path().join("model.safetensors"), shard);
    fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    for (name, text) in [("config.json", "{\"a\": 1}"), ("1_Pooling/config.json", "{}"), (".hidden", "x")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    write(dir.path());
    dir
}

fn write(path: &Path) {
    let manifest = hash(path, &HashOptions::default()).unwrap().into_manifest().unwrap();
    manifest.write(&manifest_path(path), true).unwrap();
}

fn check(path: &Path) -> Verification {
    let recorded = Recorded::find(path, None).unwrap();
    let mut options = VerifyOptions::default();
    options.sha256 = true;
    let both = verify(&recorded, &options).unwrap();
    let one = verify(&recorded, &VerifyOptions::default()).unwrap();
    assert_eq!(both.is_same(), one.is_same());
    one
}

/// What differs, in words.
fn words(found: &Verification) -> Vec<String> {
    found.differences.iter().map(|d| format!("{} {}", d.change.as_str(), d.path)).collect()
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn hashes_are_those_of_the_logical_hash_and_equal_models_have_equal_manifests() {
    let dir = folder(None);
    let path = dir.path().join("model.safetensors");
    let archive = Registry::builtin().open_path(&path, &Default::default()).unwrap();
    let (logical, tensors) = hash_archive(&*archive, None).unwrap();
    let hashes = hash(dir.path(), &HashOptions::default()).unwrap();
    assert_eq!(hashes.logical(), Some(logical));
    let names: Vec<_> = hashes.models[0].tensors.iter().map(|t| &*t.name).collect();
    assert_eq!(names, ["big", "empty", "large", "small"]);
    for (info, hash) in archive.tensors().iter().zip(tensors) {
        assert_eq!(hashes.models[0].tensor(info.name()).unwrap().hash, hash);
    }
    let text = fs::read(dir.path().join("weighbridge.json")).unwrap();
    let again = folder(None);
    assert_eq!(fs::read(again.path().join("weighbridge.json")).unwrap(), text);
    let manifest = Manifest::from_text(&text).unwrap();
    assert_eq!((manifest.covers, manifest.logical()), (Covers::Folder, Some(logical)));
    let paths: Vec<_> = manifest.files.iter().map(|f| &*f.path).collect();
    assert_eq!(paths, ["1_Pooling/config.json", "config.json", "model.safetensors"]);
    // Only what is wanted is made.
    let mut options = HashOptions::default();
    (options.sha256, options.blake3) = (false, false);
    let only = hash(&path, &options).unwrap();
    assert_eq!(only.logical(), Some(logical));
    assert!(only.files[0].sha256.is_none() && only.into_manifest().is_err());
    (options.sha256, options.logical) = (true, false);
    let only = hash(&path, &options).unwrap();
    assert!(only.models.is_empty() && only.files[0].sha256 == hashes.files[2].sha256);
}

#[test]
fn the_same_tensors_have_the_same_hash_in_every_format_and_sharding() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::new(0);
    let mut found = BTreeSet::new();
    for (name, shard) in [
        ("a.safetensors", None),
        ("b.pt", None),
        ("d.onnx", None),
        ("set/model.safetensors", Some(500_000)),
        ("old/pytorch_model.bin", Some(500_000)),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        model.save(&path, shard);
        let path = if shard.is_some() { path.parent().unwrap().to_owned() } else { path };
        let hashes = hash(&path, &HashOptions::default()).unwrap();
        assert_eq!(hashes.models.len(), 1, "{name}: {:?}", hashes.notes);
        found.insert(hashes.models[0].logical);
        if shard.is_some() {
            let files: BTreeSet<_> = hashes.models[0].tensors.iter().map(|t| t.file.unwrap()).collect();
            assert_eq!(files.len(), hashes.files.len() - 1, "{files:?}");
        }
        write(&path);
        assert!(check(&path).is_same(), "{name}");
    }
    assert_eq!(found.len(), 1);
}

#[test]
fn every_flipped_bit_of_every_file_is_found_and_its_tensor_named() {
    let dir = folder(None);
    for name in ["config.json", "1_Pooling/config.json"] {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            assert_eq!(words(&check(dir.path())), [format!("content {name}")], "bit {bit}");
        }
        fs::write(&path, good).unwrap();
    }
    let path = dir.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let archive = Registry::builtin().open_path(&path, &Default::default()).unwrap();
    let data = good.len() - 1_100_016;
    // The order of the file is that of its tensors.
    let mut at = data;
    for info in archive.tensors() {
        let len = info.bytes() as usize;
        for byte in [at, at + len / 2, (at + len).saturating_sub(1)].into_iter().filter(|_| len > 0) {
            flip(&path, byte);
            let found = check(dir.path());
            assert_eq!(words(&found), ["content model.safetensors"]);
            let tensors = found.differences[0].tensors.as_ref().unwrap();
            assert_eq!((tensors.changed.len(), tensors.intact), (1, 3));
            assert_eq!(tensors.changed[0].name, info.name());
            assert_eq!(tensors.changed[0].place, Some((at as u64, len as u64)));
            flip(&path, byte);
        }
        at += len;
    }
    // In the header: no tensor, other tensors, or no model at all; never nothing.
    for byte in 0..data {
        flip(&path, byte);
        let found = check(dir.path());
        assert_eq!(words(&found), ["content model.safetensors"], "byte {byte}");
        flip(&path, byte);
    }
    assert!(check(dir.path()).is_same());
}

#[test]
fn missing_added_cut_and_swapped_files_are_found() {
    let dir = folder(None);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("modeling_evil.py"), "x").unwrap();
    fs::remove_file(path("1_Pooling/config.json")).unwrap();
    fs::write(path("config.json"), "{}").unwrap();
    let found = check(dir.path());
    assert_eq!(
        words(&found),
        ["missing 1_Pooling/config.json", "size config.json", "added modeling_evil.py"]
    );
    assert_eq!(found.intact, 1);
    let mut quick = VerifyOptions::default();
    quick.quick = true;
    let recorded = Recorded::find(dir.path(), None).unwrap();
    assert_eq!(words(&verify(&recorded, &quick).unwrap()), words(&found));
    // Of one file nobody asks what is beside it.
    assert!(check(&path("model.safetensors")).is_same());
    // Another model of the same size.
    Model::new(9).save(&path("other.safetensors"), None);
    fs::rename(path("other.safetensors"), path("model.safetensors")).unwrap();
    let found = check(&path("model.safetensors"));
    assert!(matches!(found.differences[0].change, Change::Content { .. }));
    assert_eq!(found.differences[0].tensors.as_ref().unwrap().changed.len(), 3);
    // Cut off: nothing can be opened, and that is said.
    let bytes = fs::read(path("model.safetensors")).unwrap();
    fs::write(path("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let found = check(&path("model.safetensors"));
    assert!(matches!(found.differences[0].change, Change::Size { .. }));
    assert!(found.differences[0].tensors.as_ref().unwrap().unreadable.is_some());
}

#[test]
fn a_manifest_is_found_beside_its_file_or_in_its_folder() {
    let dir = folder(None);
    let file = dir.path().join("model.safetensors");
    write(&file);
    let own = dir.path().join("model.safetensors.weighbridge.json");
    let recorded = Recorded::find(&file, None).unwrap();
    assert_eq!((&recorded.path, recorded.manifest.covers), (&own, Covers::Files));
    assert_eq!(Recorded::find(&own, None).unwrap().folder, dir.path());
    // What lies beside a single file is nothing to its manifest, and its manifest nothing to the folder's.
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    assert!(check(&file).is_same() && check(&own).is_same());
    assert_eq!(words(&check(dir.path())), ["added notes.txt"]);
    fs::remove_file(&own).unwrap();
    assert_eq!(Recorded::find(&file, None).unwrap().path, dir.path().join("weighbridge.json"));
    let none = Recorded::find(&dir.path().join("notes.txt"), None).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    fs::remove_file(dir.path().join("weighbridge.json")).unwrap();
    for path in [dir.path(), &file, &dir.path().join("nothing")] {
        assert_eq!(Recorded::find(path, None).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// The file of a tensor of a set.
fn shard_of(recorded: &Recorded, tensor: &str) -> String {
    let model = &recorded.manifest.models[0];
    model.file_of(model.tensor(tensor).unwrap()).unwrap().to_owned()
}

#[test]
fn a_set_is_held_shard_by_shard() {
    let dir = folder(Some(500_000));
    let recorded = Recorded::find(&dir.path().join("model.safetensors.index.json"), None).unwrap();
    assert!(recorded.only.as_ref().unwrap().len() >= 3);
    let shard = shard_of(&recorded, "large");
    let path = dir.path().join(&shard);
    let last = fs::read(&path).unwrap().len() - 1;
    flip(&path, last);
    let found = check(dir.path());
    assert_eq!(words(&found), [format!("content {shard}")]);
    let tensors = found.differences[0].tensors.as_ref().unwrap();
    assert_eq!(tensors.changed.len(), 1);
    assert!(tensors.missing.is_empty() && tensors.added.is_empty(), "{tensors:?}");
    // Another shard missing keeps nobody from looking into this one.
    let other = shard_of(&recorded, "big");
    fs::remove_file(dir.path().join(&other)).unwrap();
    let found = check(dir.path());
    assert_eq!(found.differences.len(), 2);
    assert!(found.differences.iter().any(|d| d.tensors.as_ref().is_some_and(|t| t.changed.len() == 1)));
}

#[test]
fn tensors_are_compared_across_formats() {
    let dir = folder(None);
    let manifest = Manifest::read(&dir.path().join("weighbridge.json")).unwrap();
    let options = VerifyOptions::default();
    for name in ["x.onnx", "x.pt"] {
        let path = dir.path().join(name);
        Model::new(0).save(&path, None);
        assert!(verify_tensors(&path, &manifest, &options).unwrap().is_same(), "{name}");
    }
    let path = dir.path().join("y.pt");
    let mut other = Model::new(0);
    other.0[0].1[5] ^= 1;
    other.0[3].0 = "renamed".into();
    other.0[2].1.truncate(300_000);
    other.save(&path, None);
    let found = verify_tensors(&path, &manifest, &options).unwrap();
    let changed: Vec<_> = found.changed.iter().map(|t| (&*t.name, t.why.is_some())).collect();
    assert_eq!(changed, [("big", false), ("large", true)]);
    assert_eq!(
        (found.intact, &found.missing[..], &found.added[..]),
        (1, &["small".into()][..], &["renamed".into()][..])
    );
}

#[test]
fn a_repair_takes_what_differs_and_no_more() {
    let good = folder(None);
    let copy = |name: &str| fs::read(good.path().join(name)).unwrap();
    let bytes = copy("model.safetensors");
    let data = bytes.len() - 1_100_016;
    let (all, header) = (bytes.len() as u64, data as u64);
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path), u64);
    let damages: [Damage<'_>; 8] = [
        ("a bit of a tensor", &|d| flip(&d.join("model.safetensors"), data + 800_000), 300_004 + header),
        ("a bit of the header", &|d| flip(&d.join("model.safetensors"), 20), header),
        ("the length of the header", &|d| flip(&d.join("model.safetensors"), 1), header),
        (
            "a cut",
            &|d| fs::write(d.join("model.safetensors"), &bytes[..data + 900_000]).unwrap(),
            300_016 + header,
        ),
        (
            "more at the end",
            &|d| fs::write(d.join("model.safetensors"), [&bytes[..], b"xx"].concat()).unwrap(),
            header,
        ),
        ("a file that is gone", &|d| fs::remove_file(d.join("model.safetensors")).unwrap(), all),
        ("a small file", &|d| fs::write(d.join("config.json"), "{\"a\": 2}").unwrap(), 8),
        ("a folder that is gone", &|d| fs::remove_dir_all(d.join("1_Pooling")).unwrap(), 2),
    ];
    for (what, damage, most) in damages {
        let dir = folder(None);
        damage(dir.path());
        let recorded = Recorded::find(dir.path(), None).unwrap();
        let options = VerifyOptions::default();
        let found = verify(&recorded, &options).unwrap();
        assert_eq!(found.differences.len(), 1, "{what}");
        let done = repair(&recorded, &found, good.path(), &options).unwrap();
        assert_eq!((done.repaired.len(), done.failed.len()), (1, 0), "{what}: {done:?}");
        // A tensor below the size of a chunk may go with its neighbours.
        assert!(done.taken <= most + 16 && done.taken > 0, "{what}: {} bytes were taken", done.taken);
        assert!(check(dir.path()).is_same(), "{what}");
        for name in ["model.safetensors", "config.json", "1_Pooling/config.json"] {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), copy(name), "{what}");
        }
    }
}

#[test]
fn a_bad_copy_repairs_nothing_and_changes_nothing() {
    let (good, dir) = (folder(None), folder(None));
    let path = dir.path().join("model.safetensors");
    let last = fs::read(&path).unwrap().len() - 20;
    flip(&path, last);
    let damaged = fs::read(&path).unwrap();
    let recorded = Recorded::find(dir.path(), None).unwrap();
    let options = VerifyOptions::default();
    let found = verify(&recorded, &options).unwrap();
    // Damaged at the same place, of another size, and not there.
    flip(&good.path().join("model.safetensors"), last);
    let attempt = |from: &Path| {
        let done = repair(&recorded, &found, from, &options).unwrap();
        assert_eq!((done.repaired.len(), done.failed.len(), done.taken), (0, 1, 0), "{done:?}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
        let left: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(!left.iter().any(|p| p.extension().is_some_and(|e| e == "tmp")), "{left:?}");
    };
    attempt(good.path());
    fs::write(good.path().join("model.safetensors"), "short").unwrap();
    attempt(good.path());
    fs::remove_file(good.path().join("model.safetensors")).unwrap();
    attempt(good.path());
    // A file may be the copy of a file.
    let single = tempfile::tempdir().unwrap();
    let other = single.path().join("another-name.safetensors");
    Model::new(0).save(&other, None);
    let done = repair(&recorded, &found, &other, &options).unwrap();
    assert_eq!(done.repaired.len(), 1, "{done:?}");
    assert!(check(dir.path()).is_same());
}

#[cfg(unix)]
#[test]
fn nothing_outside_of_the_folder_is_read_or_written() {
    use std::os::unix::fs::symlink;
    let (good, dir) = (folder(None), folder(None));
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "{\"a\": 1}").unwrap();
    let config = dir.path().join("config.json");
    fs::remove_file(&config).unwrap();
    symlink(&secret, &config).unwrap();
    let recorded = Recorded::find(dir.path(), None).unwrap();
    let options = VerifyOptions::default();
    // The folder holds a link that leads out: listing it says so.
    let error = verify(&recorded, &options).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::UnsafeContent, Some(&*config)));
    assert!(hash(dir.path(), &HashOptions::default()).is_err());
    // By the file, the difference is that it cannot be read, and a repair leaves the target of the link alone.
    let one = Recorded::find(&config, None).unwrap();
    let found = verify(&one, &options).unwrap();
    assert!(found.is_unreadable() && !found.is_same());
    let done = repair(&one, &found, good.path(), &options).unwrap();
    assert_eq!((done.repaired.len(), done.failed.len()), (0, 1));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "{\"a\": 1}");
    // A subfolder that is a link is not written through.
    fs::remove_file(&config).unwrap();
    fs::remove_dir_all(dir.path().join("1_Pooling")).unwrap();
    symlink(outside.path(), dir.path().join("1_Pooling")).unwrap();
    let mut inner = recorded.clone();
    inner.only = Some(BTreeSet::from(["1_Pooling/config.json".into()]));
    let found = verify(&inner, &options).unwrap();
    assert!(!found.is_same());
    let done = repair(&inner, &found, good.path(), &options).unwrap();
    assert_eq!((done.repaired.len(), done.failed.len()), (0, 1), "{done:?}");
    assert!(!outside.path().join("config.json").exists());
    // A hard link into the folder is replaced, and never written through.
    fs::remove_file(dir.path().join("1_Pooling")).unwrap();
    fs::write(&secret, "{\"b\": 1}").unwrap();
    fs::hard_link(&secret, &config).unwrap();
    let found = verify(&recorded, &options).unwrap();
    repair(&recorded, &found, good.path(), &options).unwrap();
    assert!(check(dir.path()).is_same());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "{\"b\": 1}");
}

#[test]
fn several_models_of_a_folder_and_what_is_none() {
    let dir = folder(None);
    Model::new(1).save(&dir.path().join("adapter.safetensors"), None);
    fs::write(dir.path().join("broken.safetensors"), "no model").unwrap();
    fs::write(dir.path().join("training_args.bin"), "no weights").unwrap();
    let hashes = hash(dir.path(), &HashOptions::default()).unwrap();
    let models: Vec<_> = hashes.models.iter().map(|m| &*m.path).collect();
    assert_eq!(models, ["adapter.safetensors", "model.safetensors"]);
    assert_eq!((hashes.logical(), hashes.notes.len(), hashes.files.len()), (None, 1, 6));
    assert!(hashes.notes[0].text.contains("broken.safetensors"));
    let manifest = hashes.into_manifest().unwrap();
    manifest.write(&dir.path().join("weighbridge.json"), true).unwrap();
    assert!(check(dir.path()).is_same());
    // The tensors of which model are meant must be clear.
    let options = VerifyOptions::default();
    assert!(verify_tensors(&dir.path().join("model.safetensors"), &manifest, &options).unwrap().is_same());
    let other = dir.path().join("x.pt");
    Model::new(1).save(&other, None);
    assert_eq!(verify_tensors(&other, &manifest, &options).unwrap_err().kind(), ErrorKind::InvalidOptions);
    // A broken model by itself is an error, and a text has hashes of the file alone.
    let unknown = hash(&dir.path().join("broken.safetensors"), &HashOptions::default()).unwrap();
    assert_eq!((unknown.models.len(), unknown.notes.len()), (0, 1));
    let cut = dir.path().join("cut.safetensors");
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(hash(&cut, &HashOptions::default()).unwrap_err().kind(), ErrorKind::Malformed);
    let text = hash(&dir.path().join("config.json"), &HashOptions::default()).unwrap();
    assert!(text.models.is_empty() && text.files.len() == 1);
}

#[test]
fn manifests_of_another_writer_are_read_or_refused_for_what_they_say() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/manifest");
    for name in ["good", "changed", "missing", "nested", "model", "files", "provenance"] {
        Manifest::read(&corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, kind) in [
        ("outside", ErrorKind::UnsafeContent),
        ("absolute", ErrorKind::UnsafeContent),
        ("case", ErrorKind::UnsafeContent),
        ("version", ErrorKind::Unsupported),
    ] {
        assert_eq!(Manifest::read(&corpus.join(name)).unwrap_err().kind(), kind, "{name}");
    }
}
