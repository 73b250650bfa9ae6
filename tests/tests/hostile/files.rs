//! What is saved under a model's name and is none: each is called what it is, with what to do.

use weighbridge::{ErrorKind, ReadOptions, Registry};

use super::open;

/// The error of bytes under a name that every reader would want, text and hint as one.
fn told(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let error = Registry::builtin().open_path(&path, &ReadOptions::default()).err();
    let error = error.unwrap_or_else(|| panic!("{name} was opened"));
    assert!(error.hint().is_some(), "{name}: no hint: {error:?}");
    assert_eq!(error.path(), Some(&*path), "{error:?}");
    format!("{error} {}", error.hint().unwrap_or_default())
}

#[test]
fn files_that_are_no_models_are_called_by_name() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 438012727\n";
    let cases: &[(&[u8], &str)] = &[
        (pointer, "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML page"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b"{\"error\": \"Repository not found\"}", "JSON"),
        (b"Not Found", "Not Found"),
        (b"", "empty"),
        (&[0; 9000], "zeros"),
        (b"7z\xBC\xAF\x27\x1C\x00\x04rest", "7z"),
        (b"Rar!\x1A\x07\x01\x00", "RAR"),
        (b"\x1F\x8B\x08\x00rest", "gunzip"),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00rest of a download", "download"),
        (b"%PDF-1.7", "PDF"),
    ];
    for name in ["model.safetensors", "pytorch_model.bin", "model.pt", "model.pkl", "model"] {
        for (bytes, words) in cases {
            let text = told(name, bytes);
            assert!(text.contains(words), "{name}: {text:?} does not say {words:?}");
        }
    }
}

#[test]
fn a_pickle_under_any_name_is_data() {
    let pickle = b"\x80\x02}Vx\ncos\nsystem\n(VWEIGHBRIDGE\ntRs.";
    for name in ["model.bin", "model.pt", "config.json", "model.safetensors", "readme", "x.html"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, pickle).unwrap();
        match Registry::builtin().open_path(&path, &ReadOptions::default()) {
            Ok(archive) => {
                assert_eq!(archive.format(), "pickle", "{name}");
                assert!(super::holds_inert_object(archive.values().unwrap()), "{name}");
            }
            Err(e) => assert!(!format!("{e}").is_empty(), "{name}: {e:?}"),
        }
    }
}

#[test]
fn a_file_cut_off_says_so() {
    let text = told("model.safetensors", b"\x00\x01\x00\x00\x00\x00\x00\x00{\"a\":{\"dtype\":\"F32\"");
    assert!(text.contains("download"), "{text}");
}

#[test]
fn formats_that_are_not_read_are_named() {
    for (bytes, name) in [(&b"GGUF\x03\0\0\0\0\0\0\0"[..], "GGUF"), (b"\x89HDF\r\n\x1a\n\0\0\0\0", "HDF5")] {
        let error = open(bytes).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::FormatDisabled), "{error:?}");
        assert!(format!("{error}").contains(name), "{error:?}");
    }
}
