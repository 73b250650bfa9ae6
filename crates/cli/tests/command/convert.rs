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
        "source target tensors parameters parts casts cast_total kept_wide notes seconds".split(' ');
    assert_eq!(keys, documented.collect::<Vec<_>>());
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
        &["convert", &from, &folder.path("absent/out.safetensors")],
        &["convert", &from, &folder.path("absent/below/"), "--to", "safetensors"],
        &["convert", &from, "/dev/null", "--to", "safetensors", "--force"],
        &["convert", &folder.path("absent"), &out],
    ];
    for args in cases {
        let refused = run(args).expect(2);
        assert!(refused.stderr.starts_with("error: "), "{args:?}: {}", refused.stderr);
        assert_eq!(listing(&folder), ["in.safetensors"], "{args:?}");
    }
}

/// A file with one tensor that is a hole of zeros.
fn huge(folder: &Folder, dtype: &str, len: u64) -> String {
    let path = folder.path("huge.safetensors");
    let elements = len / if dtype == "F32" { 4 } else { 1 };
    let mut header =
        format!("{{\"t\":{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[0,{len}]}}}}")
            .into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    let total = bytes.len() as u64 + len;
    std::fs::write(&path, bytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(total).unwrap();
    path
}

/// The file is so large that the signal comes amid the work.
#[cfg(unix)]
#[test]
fn a_signal_removes_what_was_begun() {
    let folder = Folder::new();
    let path = huge(&folder, "U8", 64 << 30);
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

#[test]
fn names_and_dtypes_change_in_the_stated_order() {
    let folder = Folder::new();
    let (from, to) = (source(&folder), folder.path("out.safetensors"));
    let args = [
        "convert",
        &from,
        &to,
        "--json",
        "--drop",
        "*.steps",
        "--strip-prefix",
        "module.",
        "--rename",
        r"^a\.=layer_${0}",
        "--dtype",
        "f16",
        "--overflow",
        "saturate",
        "--metadata",
        "made=by hand",
    ];
    let report = run(&args).expect(0).json();
    let stats = &report["casts"][0]["stats"];
    assert_eq!((&report["casts"][0]["name"], &stats["overflow"]), (&"layer_a.weight".into(), &1.into()));
    assert_eq!((&report["cast_total"]["elements"], &report["tensors"]), (&4.into(), &1.into()));
    let json = run(&["inspect", &to, "--json"]).expect(0).json();
    assert_eq!(
        json["tensors"],
        serde_json::json!([{ "name": "layer_a.weight", "dtype": "F16", "shape": [2, 2], "bytes": 8 }])
    );
    assert_eq!(json["metadata"]["made"], "by hand");
    let file = std::fs::read(&to).unwrap();
    // 1, -2.5, the f16 next to 0.001, and the largest f16 in place of 65536.
    assert!(
        file.ends_with(&[0x00, 0x3c, 0x00, 0xc1, 0x19, 0x14, 0xff, 0x7b]),
        "{:x?}",
        &file[file.len() - 8..]
    );
}

#[test]
fn an_overflow_is_an_error_by_default_and_leaves_nothing() {
    let folder = Folder::new();
    let (from, to) = (source(&folder), folder.path("out.safetensors"));
    let refused = run(&["convert", &from, &to, "--dtype", "f16"]).expect(2);
    let said = &refused.stderr;
    assert!(
        said.contains("module.a.weight")
            && said.contains("6.5536e4")
            && said.contains(&from)
            && said.contains("--overflow"),
        "{said}"
    );
    assert_eq!(listing(&folder), ["in.safetensors"]);
    run(&["convert", &from, &to, "--dtype", "bf16"]).expect(0);
    let near = run(&["diff", &from, &to, "--ignore-dtype", "--tolerance", "0.00001"]).expect(0);
    assert!(near.stdout.contains("dtype F32 -> BF16"), "{}", near.stdout);
}

#[test]
fn choices_that_fit_nothing_are_errors() {
    let folder = Folder::new();
    let (from, to) = (source(&folder), folder.path("out.safetensors"));
    let cases: &[&[&str]] = &[
        &["--select", "no.such.part"],
        &["--drop", "no.such.tensor"],
        &["--strip-prefix", "absent."],
        &["--rename", "(=x"],
        &["--rename", ".*=same"],
        &["--dtype", "i32"],
    ];
    for choice in cases {
        let refused = run(&[&["convert", &from, &to], *choice].concat()).expect(2);
        assert!(refused.stderr.starts_with("error: "), "{choice:?}: {}", refused.stderr);
        assert_eq!(listing(&folder), ["in.safetensors"], "{choice:?}");
    }
}

#[test]
fn shards_stay_below_their_size_and_read_as_one() {
    let folder = Folder::new();
    let numbers = f32s(&[1.0; 256]);
    let names: Vec<String> = (0..10).map(|i| format!("t{i}")).collect();
    let tensors: Vec<Entry<'_>> =
        names.iter().map(|n| (n.as_str(), "F32", &[256][..], &numbers[..])).collect();
    let from = folder.write("in.safetensors", safetensors(&tensors, &[]));
    let args =
        ["convert", &from, &folder.path("out"), "--to", "safetensors", "--max-shard-size", "3kB", "--json"];
    let report = run(&args).expect(0).json();
    // Two tensors of 1024 bytes fit 3000, so five shards and their index.
    assert_eq!(report["target"]["files"].as_array().unwrap().len(), 6);
    run(&["diff", &from, &folder.path("out/model.safetensors.index.json")]).expect(0);
    run(&["diff", &from, &folder.path("out")]).expect(0);
}

#[test]
fn a_checkpoint_tells_its_parts_and_gives_one() {
    let folder = Folder::new();
    let checkpoint = crate::golden("torch").join("checkpoint.pt");
    let checkpoint = checkpoint.to_str().unwrap();
    let whole = run(&["convert", checkpoint, &folder.path("whole.bin")]).expect(0);
    assert!(whole.stdout.contains("model (4 tensors)"), "{}", whole.stdout);
    assert!(
        whole.stdout.contains("optimizer (12 tensors)") && whole.stdout.contains("--select"),
        "{}",
        whole.stdout
    );
    run(&["diff", checkpoint, &folder.path("whole.bin"), "--values"]).expect(0);
    let part = folder.path("part.safetensors");
    run(&["convert", checkpoint, &part, "--select", "model"]).expect(0);
    let json = run(&["inspect", &part, "--json"]).expect(0).json();
    let names: Vec<_> =
        json["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 4);
    assert!(names.contains(&"0.weight"), "{names:?}");
    let same = run(&["inspect", checkpoint, "--select", "model", "--json"]).expect(0).json();
    assert_eq!(same["parameters"], json["parameters"]);
}

#[test]
fn every_array_of_a_joblib_dump_is_rescued() {
    let folder = Folder::new();
    for (name, array) in [("forest.joblib", "estimators_.1.tree_.nodes.threshold"), ("xz.joblib", "fortran")]
    {
        let dump = crate::golden("joblib").join(name);
        let dump = dump.to_str().unwrap();
        let rescued = folder.path(&format!("{name}.safetensors"));
        run(&["convert", dump, &rescued, "--values", "drop"]).expect(0);
        // All that the dump beside it lists is there, and equal.
        run(&["diff", dump, &rescued]).expect(0);
        let json = run(&["inspect", &rescued, "--json"]).expect(0).json();
        let tensors = json["tensors"].as_array().unwrap();
        let listed = std::fs::read_to_string(format!("{dump}.json")).unwrap();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(tensors.len(), listed.as_object().unwrap().len(), "{name}");
        assert!(tensors.iter().any(|t| t["name"] == array), "{name}: no {array}");
    }
}

#[test]
fn a_loss_without_leave_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    let dtypes = crate::golden("torch").join("dtypes.pt");
    let (dtypes, to) = (dtypes.to_str().unwrap(), folder.path("out.safetensors"));
    let refused = run(&["convert", dtypes, &to]).expect(2);
    assert!(refused.stderr.contains("C128") && refused.stderr.contains("--allow-loss"), "{}", refused.stderr);
    assert_eq!(listing(&folder), [] as [&str; 0]);
    let allowed = run(&["convert", dtypes, &to, "--allow-loss"]).expect(0);
    assert!(allowed.stdout.contains("lost: "), "{}", allowed.stdout);
    let quiet = run(&["convert", dtypes, &to, "--allow-loss", "--force", "--quiet"]).expect(0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.contains("lost: "), "{}", quiet.stderr);
}

/// The command under a limit on private memory, smaller than the tensor that it casts, writes with checksums and
/// compares.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded_whatever_the_size() {
    let folder = Folder::new();
    let from = huge(&folder, "F32", 144 << 20);
    let (cast, bin) = (folder.path("cast.safetensors"), folder.path("out.bin"));
    let limited = |args: &[&str]| {
        let mut command = std::process::Command::new("sh");
        let script = "ulimit -d 131072 && exec \"$0\" \"$@\"";
        let output =
            command.args(["-c", script, env!("CARGO_BIN_EXE_weighbridge")]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    limited(&["convert", &from, &cast, "--dtype", "bf16", "--no-fsync"]);
    limited(&["convert", &from, &bin, "--no-fsync"]);
    limited(&["diff", &from, &bin]);
    limited(&["diff", &from, &cast, "--ignore-dtype"]);
}
