//! What is said about files that are no models, and how.

use crate::{Folder, run, safetensors};

#[test]
fn what_is_no_model_is_called_by_name_with_a_hint() {
    let folder = Folder::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 438012727\n";
    let cases: &[(&[u8], &str)] = &[
        (pointer.as_bytes(), "Git-LFS pointer"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"", "empty"),
        (b"7z\xBC\xAF\x27\x1C\0\x04rest", "7z archive"),
        (b"PK\x03\x04\x14\0\0\0and no directory", "directory at its end"),
    ];
    for (bytes, wanted) in cases {
        let path = folder.write("model.bin", bytes);
        let failed = run(&["inspect", &path]).expect(2);
        let mut lines = failed.stderr.lines();
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("error: ") && first.contains(wanted) && first.contains(&path), "{first}");
        assert!(lines.next().is_some_and(|l| l.starts_with("  hint: ")), "{}", failed.stderr);
        assert_eq!(failed.stdout, "");
    }
}

#[test]
fn a_truncated_file_is_called_so() {
    let folder = Folder::new();
    let whole = safetensors(&[("t", "U8", &[8], &[0; 8])], &[]);
    let path = folder.write("cut.safetensors", &whole[..whole.len() - 3]);
    let failed = run(&["inspect", &path]).expect(2);
    assert!(failed.stderr.contains("hint: ") && failed.stderr.contains("cut off"), "{}", failed.stderr);
}

#[test]
fn json_errors_are_one_object_on_standard_error() {
    let folder = Folder::new();
    let path = folder.write("model.bin", "");
    let check = |run: crate::Run, kind: &str| {
        let run = run.expect(2);
        assert_eq!(run.stdout, "");
        let json: serde_json::Value = serde_json::from_str(&run.stderr).expect(&run.stderr);
        let error = json["error"].as_object().unwrap();
        let keys: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["kind", "message", "path", "tensor", "offset", "hint"]);
        assert_eq!(error["kind"], kind);
        json
    };
    let empty = check(run(&["inspect", &path, "--json"]), "malformed");
    assert_eq!(empty["error"]["path"], path);
    check(run(&["inspect", &folder.path("absent"), "--json"]), "not_found");
    check(run(&["inspect", "--json"]), "invalid_options");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for args in [&["weigh"][..], &["inspect"], &[], &["inspect", "x", "--no-such-option"]] {
        let failed = run(args).expect(2);
        assert!(failed.stderr.contains("Usage"), "{}", failed.stderr);
    }
}
