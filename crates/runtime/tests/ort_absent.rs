//! What is said where ONNX Runtime's library is not there, or is none. A process loads one library, so that this is a
//! program of its own with one test.

#![cfg(feature = "ort")]

use weighbridge_formats::ErrorKind;
use weighbridge_runtime::{Session, SessionOptions, load};

#[test]
fn a_library_that_is_not_there_or_none_is_an_error_that_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("libonnxruntime.so");
    let error = load(Some(&absent)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("is no file"), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("ORT_DYLIB_PATH") && hint.contains("1.22") && hint.contains("onnxruntime"),
        "{hint}"
    );

    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    let error = load(Some(&text)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    #[cfg(target_os = "linux")]
    {
        let error = load(Some(std::path::Path::new("libm.so.6"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("not that of ONNX Runtime"), "{error}");
    }

    let mut options = SessionOptions::default();
    options.library = Some(absent);
    assert_eq!(Session::from_bytes(b"", &options).unwrap_err().kind(), ErrorKind::NotFound);
    // None of this keeps the right one from being loaded.
    load(None).unwrap();
}
