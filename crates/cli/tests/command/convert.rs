//! `convert`: what is written, and what is refused before anything is.

use crate::{Entry, Folder, f32s, run, safetensors};

fn source(folder: &Folder) -> String {
    let weight = f32s(&[1.0, -2.5, 1e-3, 65536.0]);
    let tensors: &[Entry<'_>] = &[
        ("module.a.weight", "F32", &[2, 2], &weight),
        ("module.a.steps", "I64", &[], &[7, 0, 0, 0, 0, 0, 0, 0]),
    ];
    folder.write("in.safetensors", safetensors(tensors, &[("format", "pt")]))
}

/// The names in a folder.
fn listing(folder: &Folder) -> Vec<String> {
    let names = std::fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = names.map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_is_equal_and_reported() {
    let folder = Folder::new();
    let (from, to) = (source(&folder), folder.path("out.safetensors"));
    let report = run(&["convert", &from, &to, "--json"]).expect(0).json();
    let keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let documented =
        ["source", "target", "tensors", "parameters", "parts", "casts", "cast_total", "notes", "seconds"];
    assert_eq!(keys, documented);
    let written = std::fs::metadata(&to).unwrap().len();
    assert_eq!(report["target"]["files"], serde_json::json!([{ "path": to, "bytes": written }]));
    assert_eq!((&report["tensors"], &report["parameters"]), (&2.into(), &5.into()));
    run(&["diff", &from, &to, "--values"]).expect(0);
}

#[test]
fn an_existing_target_is_kept_without_force() {
    let folder = Folder::new();
    let (from, to) = (source(&folder), folder.write("out.safetensors", "precious"));
    let refused = run(&["convert", &from, &to]).expect(2);
    assert!(refused.stderr.contains("exists") && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(std::fs::read(&to).unwrap(), b"precious");
    assert_eq!(listing(&folder), ["in.safetensors", "out.safetensors"]);
    let forced = run(&["convert", &from, &to, "--force", "--quiet"]).expect(0);
    assert_eq!((forced.stdout.as_str(), forced.stderr.as_str()), ("", ""));
    run(&["diff", &from, &to]).expect(0);
}

#[test]
fn the_source_may_be_the_target() {
    let folder = Folder::new();
    let from = source(&folder);
    let copy = folder.path("copy.safetensors");
    std::fs::copy(&from, &copy).unwrap();
    run(&["convert", &from, &from]).expect(2);
    run(&["convert", &from, &from, "--force"]).expect(0);
    run(&["diff", &from, &copy]).expect(0);
    assert_eq!(listing(&folder), ["copy.safetensors", "in.safetensors"]);
}

#[test]
fn a_folder_gets_the_usual_name() {
    let folder = Folder::new();
    let from = source(&folder);
    let missing = run(&["convert", &from, &folder.path("out/")]).expect(2);
    assert!(missing.stderr.contains("--to"), "{}", missing.stderr);
    run(&["convert", &from, &folder.path("out/"), "--to", "safetensors"]).expect(0);
    run(&["convert", &from, &folder.path("bare"), "--to", "safetensors"]).expect(0);
    for made in ["out/model.safetensors", "bare/model.safetensors"] {
        run(&["diff", &from, &folder.path(made)]).expect(0);
    }
}

#[test]
fn wrong_targets_and_options_write_nothing() {
    let folder = Folder::new();
    let from = source(&folder);
    let out = folder.path("out.safetensors");
    let cases: &[&[&str]] = &[
        &["convert", &from, &folder.path("out.xyz")],
        &["convert", &from, &out, "--to", "no-such-format"],
        &["convert", &from, &out, "--dtype", "f33"],
        &["convert", &from, &out, "--rename", "no-equals-sign"],
        &["convert", &from, &out, "--max-shard-size", "5 parsecs"],
        &["convert", &from, &folder.path("absent/below/out.safetensors")],
        &["convert", &folder.path("absent"), &out],
    ];
    for args in cases {
        let refused = run(args).expect(2);
        assert!(refused.stderr.starts_with("error: "), "{args:?}: {}", refused.stderr);
        assert_eq!(listing(&folder), ["in.safetensors"], "{args:?}");
    }
}

/// A file with a hole, so large that the signal comes amid the work.
#[cfg(unix)]
#[test]
fn a_signal_removes_what_was_begun() {
    let folder = Folder::new();
    let path = folder.path("huge.safetensors");
    let len: u64 = 64 << 30;
    let mut header =
        format!("{{\"t\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[0,{len}]}}}}").into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    let total = bytes.len() as u64 + len;
    std::fs::write(&path, bytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(total).unwrap();
    let child = crate::command(&["convert", &path, &folder.path("out.safetensors"), "--no-fsync"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = || listing(&folder).len() > 1;
    let start = std::time::Instant::now();
    while !begun() && start.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(begun(), "nothing was begun");
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.starts_with("error: "), "{said}");
    assert_eq!(listing(&folder), ["huge.safetensors"]);
}
