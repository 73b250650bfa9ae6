//! `version`: a registry from the first version on, what is printed, and a process that is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Folder, command, f32s, run, safetensors};

/// Writes a small model, whose bias is `bias`; returns its folder.
fn model(folder: &Folder, name: &str, bias: f32) -> String {
    let path = folder.path(name);
    std::fs::create_dir_all(&path).unwrap();
    let write = |file: &str, bytes: &[u8]| std::fs::write(Path::new(&path).join(file), bytes).unwrap();
    let (bias, weight) = (f32s(&[bias, 1.0]), f32s(&[1.0; 6]));
    let weights =
        safetensors(&[("dense.bias", "F32", &[2], &bias), ("dense.weight", "F32", &[3, 2], &weight)], &[]);
    write("model.safetensors", &weights);
    write(
        "config.json",
        br#"{"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 2, "vocab_size": 3}"#,
    );
    write("vocab.txt", b"a\nb\nc\n");
    path
}

#[test]
fn versions_are_added_listed_compared_and_shown() {
    let folder = Folder::new();
    let source = model(&folder, "source", 0.0);
    let bert = folder.path("registry/bert");
    let first = run(&["version", "new", &bert, &source, "--alias", "production"]).expect(0).stdout;
    assert!(first.starts_with("added version 1.0.0 (production): "), "{first}");
    assert!(first.contains("8 parameters in 2 tensors"), "{first}");

    model(&folder, "source", 0.5);
    let second =
        run(&["version", "new", &bert, &source, "--notes", "Trained longer.", "--json"]).expect(0).json();
    assert_eq!((&second["version"], &second["previous"]), (&"1.1.0".into(), &"1.0.0".into()));
    assert_eq!(second["suggested_bump"], "minor");
    assert!(second["entry"].as_str().unwrap().starts_with("Trained longer.\n"), "{second}");
    assert_eq!(second["diff"]["weights"]["changed"][0]["name"], "dense.bias");

    let list = run(&["version", "list", &bert]).expect(0).stdout;
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("1.1.0 ") && lines[0].ends_with("latest"), "{list}");
    assert!(lines[1].starts_with("1.0.0 ") && lines[1].ends_with("production"), "{list}");
    let json = run(&["version", "list", &bert, "--json"]).expect(0).json();
    assert_eq!(json["versions"][0]["record"]["parameters"], 8);
    let models = run(&["version", "list", &folder.path("registry"), "--json"]).expect(0).json();
    assert_eq!(models["models"][0]["latest"], "1.1.0");

    let [old, new] = ["production", "latest"].map(|which| format!("{bert}@{which}"));
    let diff = run(&["version", "diff", &old, &new]).expect(1).stdout;
    assert!(diff.contains("1 of 2 tensors differ, 0 added, 0 removed"), "{diff}");
    assert!(diff.ends_with("different: a minor change (1 tensor changed)\n"), "{diff}");
    assert!(run(&["version", "diff", &old, &old]).expect(0).stdout.ends_with("equal\n"));
    let json = run(&["version", "diff", &old, &source, "--json"]).expect(1).json();
    assert_eq!((&json["equal"], &json["a"]), (&false.into(), &"bert@1.0.0".into()));

    let shown = run(&["version", "show", &format!("{bert}@^1")]).expect(0).stdout;
    assert!(shown.contains("version     1.1.0\n") && shown.contains("Trained longer."), "{shown}");
    let shown = run(&["version", "show", &old, "--json"]).expect(0).json();
    assert_eq!((&shown["version"], &shown["names"]), (&"1.0.0".into(), &serde_json::json!(["production"])));
    let plain = run(&["version", "show", &source]).expect(0).stdout;
    assert!(plain.contains("the folder carries no version"), "{plain}");
}

#[test]
fn what_cannot_be_is_an_error() {
    let folder = Folder::new();
    let source = model(&folder, "source", 0.0);
    let bert = folder.path("registry/bert");
    run(&["version", "new", &bert, &source, "--version", "1.2.0"]).expect(0);
    let same = run(&["version", "new", &bert, &source]).expect(2).stderr;
    assert!(same.contains("nothing changed since version 1.2.0"), "{same}");
    let taken = run(&["version", "new", &bert, &source, "--version", "v1.2.0", "--json"]).expect(2);
    assert!(taken.stdout.is_empty());
    let error: serde_json::Value = serde_json::from_str(&taken.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "invalid_options");
    for bad in [
        &["version", "new", &bert, &source, "--version", "one"][..],
        &["version", "new", &bert, &source, "--version", "2.0.0", "--bump", "major"],
        &["version", "new", &bert, &source, "--bump", "patch", "--alias", "../x"],
        &["version", "new", &folder.path("registry/.."), &source],
        &["version", "new", &folder.path("registry/a b"), &source],
        &["version", "show", &format!("{bert}@2")],
        &["version", "show", &format!("{bert}@production")],
        &["version", "diff", &bert, &folder.path("absent")],
        &["version", "list", &folder.path("absent")],
        &["version"],
    ] {
        run(bad).expect(2);
    }
    let list = run(&["version", "list", &bert, "--json"]).expect(0).json();
    assert_eq!(list["versions"].as_array().unwrap().len(), 1);
}

#[test]
fn aliases_move_and_go() {
    let folder = Folder::new();
    let source = model(&folder, "source", 0.0);
    let bert = folder.path("registry/bert");
    run(&["version", "new", &bert, &source]).expect(0);
    run(&["version", "new", &bert, &source, "--bump", "major", "--hard-links", "--card"]).expect(0);
    assert!(folder.0.join("registry/bert/v2.0.0/README.md").is_file());
    let version = |which: &str| {
        run(&["version", "show", &format!("{bert}@{which}"), "--json"]).expect(0).json()["version"].clone()
    };
    run(&["version", "alias", &format!("{bert}@1"), "production"]).expect(0);
    assert_eq!(version("production"), "1.0.0");
    let moved = run(&["version", "alias", &bert, "production", "--json"]).expect(0).json();
    assert_eq!((&moved["version"], version("production")), (&"2.0.0".into(), "2.0.0".into()));
    run(&["version", "alias", &bert, "production", "--remove"]).expect(0);
    run(&["version", "alias", &bert, "production", "--remove"]).expect(2);
    run(&["version", "alias", &bert, "latest"]).expect(2);
    run(&["version", "alias", &source, "production"]).expect(2);
}

/// The files of a folder and its subfolders with their bytes, by name.
#[cfg(unix)]
fn files(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// SIGKILL at random moments of an addition: what is there is whole, and the next addition finishes what is left.
#[cfg(unix)]
#[test]
fn a_process_that_is_killed_leaves_the_registry_whole() {
    const KILLS: u32 = 24;
    let folder = Folder::new();
    let bert = folder.path("registry/bert");
    let source = model(&folder, "source", 0.0);
    for i in 0..24 {
        let sub = Path::new(&source).join(format!("part-{}", i % 3));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join(format!("{i}.txt")), vec![i as u8; 20_000]).unwrap();
    }
    let start = Instant::now();
    run(&["version", "new", &bert, &source]).expect(0);
    let whole = start.elapsed();
    let registry = folder.0.join("registry/bert");
    let versions = || -> Vec<String> {
        let json = run(&["version", "list", &bert, "--json"]).expect(0).json();
        json["versions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["version"].as_str().unwrap().to_owned())
            .collect()
    };
    // Every version has all files: those of the source, the weights of one of its states, and its record.
    let wanted = files(Path::new(&source));
    let assert_whole = || {
        for version in versions() {
            let mut found = files(&registry.join(format!("v{version}")));
            let record = found.remove("weighbridge.version.json").expect("a record");
            assert!(String::from_utf8(record).unwrap().contains(&version));
            assert!(found.keys().eq(wanted.keys()), "{version}");
            for (name, bytes) in &wanted {
                let same = found[name] == *bytes;
                assert!(
                    same || (name == "model.safetensors" && found[name].len() == bytes.len()),
                    "{version}: {name}"
                );
            }
        }
    };
    let (mut placed, mut seed) = (0, 12345u64);
    for i in 0..KILLS {
        model(&folder, "source", i as f32 + 1.0);
        let before = versions().len();
        let mut child =
            command(&["version", "new", &bert, &source, "--bump", "minor", "--alias", "newest", "--quiet"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = whole.mul_f64((seed >> 40) as f64 / (1u64 << 24) as f64 * 2.0);
        std::thread::sleep(wait.min(Duration::from_secs(2)));
        child.kill().unwrap();
        child.wait().unwrap();
        placed += versions().len() - before;
    }
    // The moments were spread over the whole of it: some came before the version was there, some after.
    assert!(placed > 0 && placed < KILLS as usize, "{placed} of {KILLS}");
    assert_whole();
    run(&["version", "new", &bert, &source, "--bump", "major"]).expect(0);
    let all = versions();
    assert_eq!((all.len(), all[0].as_str()), (placed + 2, "2.0.0"));
    let text = std::fs::read_to_string(registry.join("CHANGELOG.md")).unwrap();
    for version in &all {
        assert_eq!(text.matches(&format!("\n## {version} - ")).count(), 1, "{version}\n{text}");
    }
    assert_eq!(std::fs::read_to_string(registry.join("latest")).unwrap(), "2.0.0\n");
    let hidden: Vec<_> = std::fs::read_dir(&registry)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with('.'))
        .collect();
    assert_eq!(hidden, [".lock"]);
    assert_whole();
}

#[test]
fn additions_by_several_processes_do_not_lose_each_other() {
    let folder = Folder::new();
    let bert = folder.path("registry/bert");
    let children: Vec<_> = (0..5)
        .map(|i| {
            let source = model(&folder, &format!("source-{i}"), i as f32);
            let mut new = command(&["version", "new", &bert, &source, "--bump", "minor", "--json"]);
            new.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let json = run(&["version", "list", &bert, "--json"]).expect(0).json();
    let versions: Vec<_> =
        json["versions"].as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["1.4.0", "1.3.0", "1.2.0", "1.1.0", "1.0.0"]);
    let text = std::fs::read_to_string(folder.0.join("registry/bert/CHANGELOG.md")).unwrap();
    assert_eq!(text.lines().filter(|l| l.starts_with("## ")).count(), 5, "{text}");
}

#[test]
fn every_subcommand_of_version_has_help_and_a_page() {
    let folder = Folder::new();
    run(&["man", "--dir", &folder.path("man1")]).expect(0);
    for name in ["new", "list", "diff", "show", "alias"] {
        let help = run(&["version", name, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:") && help.contains("--json"), "{help}");
        assert!(folder.0.join(format!("man1/weighbridge-version-{name}.1")).is_file(), "{name}");
    }
}
