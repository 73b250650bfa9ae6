//! A manifest that is made in the pass that writes is, byte for byte, the one that is made by reading.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use weighbridge_formats::write::{FileDigests, Observer};
use weighbridge_formats::{
    ConvertOptions, DType, Data, MemoryArchive, ReadOptions, Registry, Result, Tensor, convert, save,
};
use weighbridge_trust::manifest::{HashOptions, IN_PASS, hash, hash_files};

/// Tensors of no chunk, of one and of several.
fn weights(seed: usize) -> MemoryArchive<'static> {
    let lengths = [("a", 200), ("b", 0), ("c", 1), ("d", 300_004), ("e", 77), ("f", 150_000)];
    let tensor = |(name, len): (&str, usize)| {
        let bytes: Vec<u8> = (0..len * 4).map(|i| ((i + seed) * 31 + i / 251 + len) as u8 & 0x3f).collect();
        Tensor::new(name, DType::F32, [len as u64].as_slice(), Data::Owned(bytes.into())).unwrap()
    };
    MemoryArchive::new(lengths.map(tensor)).unwrap()
}

/// Counts what hashing reads.
#[derive(Default)]
struct Read(AtomicU64);

impl Observer for Read {
    fn started(&self, total: u64) {
        self.0.store(total, Ordering::SeqCst);
    }
}

/// Converts what `write` says and has the manifest of it made in the pass; asserts that the one by reading is the same.
/// Returns how many bytes were read for the first.
fn same(
    folder: &Path,
    main: Option<&str>,
    write: impl FnOnce(&ConvertOptions<'_>) -> Result<weighbridge_formats::ConvertReport>,
) -> u64 {
    let made = Mutex::new(None);
    let complete = |staged: &Path, digests: &[FileDigests]| {
        let read = Read::default();
        let mut options = HashOptions::default();
        options.written = digests;
        options.observer = Some(&read);
        let names: Vec<String> = digests.iter().map(|d| d.name.clone()).collect();
        let hashes = match main {
            Some(main) => hash(&staged.join(main), &options)?,
            None => hash_files(staged, &names, &options)?,
        };
        let text = hashes.into_manifest()?.to_text()?;
        *made.lock().unwrap() = Some((text.clone(), read.0.load(Ordering::SeqCst), names));
        Ok(vec![("m.json".to_owned(), text.into_bytes())])
    };
    let mut options = ConvertOptions::default();
    options.fsync = false;
    options.overwrite = true;
    options.complete = Some(&complete);
    options.digests = Some(IN_PASS);
    let report = write(&options).unwrap();
    let (text, read, names) = made.into_inner().unwrap().expect("a manifest");
    assert_eq!(fs::read_to_string(folder.join("m.json")).unwrap(), text);
    assert_eq!(report.files.len(), names.len() + 1);
    let hashes = match main {
        Some(main) => hash(&folder.join(main), &HashOptions::default()),
        None => hash_files(folder, &names, &HashOptions::default()),
    };
    let again = hashes.unwrap().into_manifest().unwrap();
    assert!(again.models.len() == 1 && again.models[0].tensors.len() == 6, "{:?}", again.models);
    assert_eq!(again.to_text().unwrap(), text);
    read
}

#[test]
fn a_manifest_of_the_pass_is_that_of_reading() {
    let registry = Registry::builtin();
    for (target, main, shard, external) in [
        ("m.safetensors", "m.safetensors", None, None),
        ("m.safetensors", "m.safetensors.index.json", Some(700_000), None),
        ("m.pt", "m.pt", None, None),
        ("m.pkl", "m.pkl", None, None),
        ("m.onnx", "m.onnx", None, Some(true)),
        ("m.onnx", "m.onnx", None, Some(false)),
    ] {
        for in_folder in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join(target);
            let read = same(dir.path(), (!in_folder).then_some(main), |options| {
                let mut options = options.clone();
                options.write.max_shard_size = shard;
                options.write.external_data = external;
                save(&registry, &weights(1), &target, &options)
            });
            // A tensor that is a part of the file is not read again; a pickle has its arrays inside of the stream.
            let most = if main == "m.pkl" { 1_900_000 } else { 0 };
            assert!(read <= most, "{read} bytes of {main} were read again");
        }
    }
}

#[test]
fn a_conversion_in_place_has_the_manifest_of_the_new_file() {
    let registry = Registry::builtin();
    let dir = tempfile::tempdir().unwrap();
    for (name, to) in [("m.safetensors", DType::F16), ("m.pt", DType::Bf16)] {
        let file = dir.path().join(name);
        let mut first = ConvertOptions::default();
        first.fsync = false;
        save(&registry, &weights(2), &file, &first).unwrap();
        let before = hash(&file, &HashOptions::default()).unwrap().logical();
        let read = same(dir.path(), Some(name), |options| {
            let mut options = options.clone();
            options.precision = weighbridge_formats::transform::Precision::to(to);
            convert(&registry, &file, &file, &options)
        });
        assert_eq!(read, 0);
        assert_ne!(hash(&file, &HashOptions::default()).unwrap().logical(), before);
        assert_eq!(registry.open_path(&file, &ReadOptions::default()).unwrap().tensors()[0].dtype(), to);
    }
}

#[test]
fn digests_of_another_file_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.safetensors");
    let mut options = ConvertOptions::default();
    options.fsync = false;
    save(&Registry::builtin(), &weights(3), &file, &options).unwrap();
    let honest = hash(&file, &HashOptions::default()).unwrap().into_manifest().unwrap().to_text().unwrap();
    let size = fs::metadata(&file).unwrap().len();
    for (name, size) in [("m.safetensors", size + 1), ("other.safetensors", size)] {
        let wrong = FileDigests {
            name: name.into(),
            size,
            blake3: [1; 32],
            in_order: [2; 32],
            data: vec![(0, 5, [3; 32])],
        };
        let (mut options, written) = (HashOptions::default(), [wrong]);
        options.written = &written;
        let found = hash(&file, &options).unwrap().into_manifest().unwrap();
        assert_eq!(found.to_text().unwrap(), honest);
    }
}
