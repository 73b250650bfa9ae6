//! `encrypt`, `decrypt`, and encrypted files as the input of other commands.

use std::process::Stdio;

use crate::{Folder, Run, command, golden, run};

/// Runs with variables of the environment.
fn with_env(args: &[&str], env: &[(&str, &str)]) -> Run {
    let output = command(args).envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn checkpoint() -> String {
    golden("torch").join("checkpoint.pt").to_str().unwrap().to_owned()
}

/// A key in a folder, and its public part.
fn key(folder: &Folder) -> (String, String) {
    let path = folder.path("key.txt");
    let public = run(&["encrypt", "--generate-identity", &path]).expect(0).stdout.trim().to_owned();
    assert!(public.starts_with("age1"), "{public}");
    (path, public)
}

#[test]
fn a_file_goes_and_comes_back() {
    let folder = Folder::new();
    let (key, public) = key(&folder);
    let source = checkpoint();
    let (sealed, back) = (folder.path("c.pt.age"), folder.path("c.pt"));
    let report = run(&["encrypt", &source, &sealed, "-r", &public, "--json"]).expect(0).json();
    assert_eq!((report["folder"].as_bool(), report["armor"].as_bool()), (Some(false), Some(false)));
    let refused = run(&["encrypt", &source, &sealed, "-r", &public]).expect(2);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    run(&["encrypt", &source, &sealed, "-r", &public, "--armor", "--force", "--quiet"]).expect(0);
    assert!(std::fs::read(&sealed).unwrap().starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
    let report = run(&["decrypt", &sealed, &back, "-i", &key, "--json"]).expect(0).json();
    assert_eq!(report["files"][0], *back);
    assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&source).unwrap());
    run(&["decrypt", &sealed, &back, "-i", &key]).expect(2);
    // A key is never replaced.
    let before = std::fs::read(&key).unwrap();
    run(&["encrypt", "--generate-identity", &key]).expect(2);
    assert_eq!(std::fs::read(&key).unwrap(), before);
}

#[test]
fn what_is_encrypted_is_scanned_with_its_key_alone() {
    // PROTO 2, then posix.system('echo') by GLOBAL and REDUCE.
    const CALLS: &[u8] = b"\x80\x02cposix\nsystem\n(S'echo'\ntR.";
    let folder = Folder::new();
    let (key, public) = key(&folder);
    std::fs::create_dir(folder.path("model")).unwrap();
    std::fs::write(folder.path("model/weights.pkl"), CALLS).unwrap();
    std::fs::copy(checkpoint(), folder.path("model/checkpoint.pt")).unwrap();
    for (from, to) in [("model", "model.age"), ("model/weights.pkl", "weights.pkl.age")] {
        let (source, sealed) = (folder.path(from), folder.path(to));
        run(&["encrypt", &source, &sealed, "-r", &public]).expect(0);
        let blind = run(&["scan", &sealed, "--json"]).expect(2).json();
        assert_eq!(blind["findings"][0]["rule"], "archive-encrypted");
        assert_eq!(blind["findings"].as_array().unwrap().len(), 1);
        let seen = run(&["scan", &sealed, "--json", "-i", &key]).expect(1).json();
        let finding = &seen["findings"][0];
        assert_eq!((&finding["rule"], &finding["callable"]), (&"pickle-call".into(), &"posix.system".into()));
        assert_eq!(finding["file"], *sealed);
    }
    let harmless = folder.path("harmless.age");
    std::fs::remove_file(folder.path("model/weights.pkl")).unwrap();
    run(&["encrypt", &folder.path("model"), &harmless, "-r", &public]).expect(0);
    // A tar that ends in a zip is no zip with something before it.
    let report = run(&["scan", &harmless, "--json", "-i", &key]).expect(0).json();
    assert_eq!(report["findings"].as_array().unwrap().len(), 0, "{report}");
    run(&["encrypt", &checkpoint(), &folder.path("armored"), "-r", &public, "--armor"]).expect(0);
    run(&["scan", &folder.path("armored")]).expect(2);
    run(&["scan", &folder.path("armored"), "-i", &key]).expect(0);
    // A key that does not fit leaves it unknown.
    let other = folder.path("other.txt");
    run(&["encrypt", "--generate-identity", &other]).expect(0);
    let wrong = run(&["scan", &folder.path("armored"), "-i", &other]).expect(2);
    assert!(wrong.stdout.contains("none of the given keys"), "{}", wrong.stdout);
    let out = folder.path("out.safetensors");
    run(&["scan", &folder.path("model.age"), "-i", &key, "--rescue", &out]).expect(1);
    assert!(run(&["inspect", &out, "--json"]).expect(0).json()["tensors"].as_array().unwrap().len() > 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn encrypted_models_are_read_where_they_are() {
    let folder = Folder::new();
    let (key, public) = key(&folder);
    let source = checkpoint();
    let model = folder.path("model");
    std::fs::create_dir(&model).unwrap();
    let weights = folder.path("model/model.safetensors");
    run(&["convert", &source, &weights, "--select", "model", "--quiet"]).expect(0);
    std::fs::write(folder.path("model/config.json"), "{}").unwrap();
    let sealed = folder.path("model.age");
    run(&["encrypt", &model, &sealed, "-r", &public]).expect(0);

    let plain = run(&["inspect", &weights, "--json"]).expect(0).json();
    let shown = run(&["inspect", &sealed, "-i", &key, "--json"]).expect(0).json();
    assert_eq!((&plain["tensors"], &plain["metadata"]), (&shown["tensors"], &shown["metadata"]));
    run(&["diff", &weights, &sealed, "-i", &key]).expect(0);
    let hash = |args: &[&str]| run(&[&["hash", "--json"], args].concat()).expect(0).json();
    let (plain_hash, sealed_hash) = (hash(&[&weights]), hash(&[&sealed, "-i", &key]));
    assert_eq!((&plain_hash["logical"], plain_hash["logical"].is_string()), (&sealed_hash["logical"], true));
    let hashes = |value: &serde_json::Value| -> Vec<(String, String)> {
        let text = |t: &serde_json::Value, key: &str| t[key].as_str().unwrap().to_owned();
        let mut all: Vec<_> =
            value["tensors"].as_array().unwrap().iter().map(|t| (text(t, "name"), text(t, "hash"))).collect();
        all.sort();
        all
    };
    assert_eq!(hashes(&plain_hash), hashes(&sealed_hash));
    let out = folder.path("out.bin");
    let report = run(&["convert", &sealed, &out, "-i", &key, "--json"]).expect(0).json();
    assert_eq!(report["source"]["format"], "safetensors");
    assert_eq!(report["source"]["bytes"], plain["bytes"]);
    run(&["diff", &weights, &out]).expect(0);

    for args in [
        &["inspect", &sealed][..],
        &["diff", &weights, &sealed],
        &["convert", &sealed, &folder.path("x.bin")],
    ] {
        let refused = run(args).expect(2);
        assert!(refused.stderr.contains("-i KEY"), "{}", refused.stderr);
    }
    let scanned = run(&["inspect", &sealed, "-i", &weights]).expect(2);
    assert!(scanned.stderr.contains("key"), "{}", scanned.stderr);
    // A folder comes back as it was.
    let back = folder.path("back");
    let report = run(&["decrypt", &sealed, &back, "-i", &key, "--json"]).expect(0).json();
    assert_eq!((report["folder"].as_bool(), report["files"].as_array().unwrap().len()), (Some(true), 2));
    assert_eq!(std::fs::read(folder.path("back/config.json")).unwrap(), b"{}");
    // Or as its tar, which is unpacked if that is asked for.
    let tar = folder.path("model.tar");
    run(&["decrypt", &sealed, &tar, "-i", &key, "--file"]).expect(0);
    let sealed_tar = folder.path("tar.age");
    run(&["encrypt", &tar, &sealed_tar, "-r", &public]).expect(0);
    run(&["decrypt", &sealed_tar, &folder.path("again"), "-i", &key, "--folder"]).expect(0);
    assert_eq!(std::fs::read(folder.path("again/config.json")).unwrap(), b"{}");
}

#[cfg(unix)]
#[test]
fn what_was_secret_is_written_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (key, public) = key(&folder);
    let mode = |name: &str| std::fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("key.txt"), 0o600);
    let source = checkpoint();
    let sealed = folder.path("a.pt.age");
    run(&["encrypt", &source, &sealed, "-r", &public]).expect(0);
    run(&["decrypt", &sealed, &folder.path("a.pt"), "-i", &key]).expect(0);
    run(&["convert", &sealed, &folder.path("a.safetensors"), "-i", &key, "--select", "model"]).expect(0);
    assert_eq!((mode("a.pt"), mode("a.safetensors")), (0o600, 0o600));
    run(&["decrypt", &sealed, &folder.path("b.pt"), "-i", &key, "--mode", "640"]).expect(0);
    run(&["convert", &source, &folder.path("b.safetensors"), "--select", "model", "--mode", "600"]).expect(0);
    run(&["encrypt", &source, &folder.path("b.age"), "-r", &public, "--mode", "600"]).expect(0);
    assert_eq!((mode("b.pt"), mode("b.safetensors"), mode("b.age")), (0o640, 0o600, 0o600));
    for wrong in ["1777", "9", "rw", "00600x", "7777"] {
        run(&["decrypt", &sealed, &folder.path("c"), "-i", &key, "--mode", wrong]).expect(2);
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warned = run(&["inspect", &sealed, "-i", &key]).expect(0);
    assert!(warned.stderr.contains("chmod 600"), "{}", warned.stderr);
}

#[test]
fn no_secret_is_in_any_output() {
    let folder = Folder::new();
    let (key, public) = key(&folder);
    let secret = std::fs::read_to_string(&key).unwrap().lines().nth(1).unwrap().to_owned();
    let passphrase = "zebra-passphrase-4711";
    let source = checkpoint();
    let (sealed, words) = (folder.path("k.age"), folder.path("p.age"));
    let file = folder.write("pass.txt", format!("{passphrase}\nanother line\n"));
    let wrong = folder.write("wrong.txt", "another\n");
    let broken = folder.write("broken.txt", format!("{secret}X\n"));
    let mixed = folder.write("mixed.txt", format!("{public}\n{secret}\n"));
    let env = [("WEIGHBRIDGE_PASSPHRASE", passphrase)];
    let mut said = String::new();
    let mut keep = |run: Run, code: i32| {
        let run = run.expect(code);
        said.push_str(&run.stdout);
        said.push_str(&run.stderr);
    };
    let out = |name: &str| folder.path(name);
    keep(run(&["encrypt", &source, &sealed, "-r", &public]), 0);
    // A passphrase costs a second each time, so each way to give one is taken once.
    keep(with_env(&["encrypt", &source, &words, "--json"], &env), 0);
    keep(run(&["inspect", &words, "--passphrase-file", &file, "--json"]), 0);
    keep(run(&["decrypt", &words, &out("3"), "--passphrase-file", &wrong, "--json"]), 2);
    keep(run(&["decrypt", &words, &out("3")]), 2);
    keep(run(&["decrypt", &words, &out("3"), "-i", &key]), 2);
    keep(run(&["decrypt", &sealed, &out("3"), "--passphrase-file", &file]), 2);
    keep(run(&["decrypt", &sealed, &out("3"), "-i", &broken]), 2);
    keep(run(&["decrypt", &sealed, &out("3"), "-i", &broken, "--json"]), 2);
    keep(run(&["encrypt", &source, &out("3"), "-R", &mixed]), 2);
    keep(run(&["encrypt", &source, &out("3"), "-R", &broken, "--json"]), 2);
    keep(run(&["encrypt", &source, &out("3"), "-r", &secret]), 2);
    keep(run(&["encrypt", &source, &out("3"), "-r", &public, "--passphrase-file", &file]), 2);
    keep(run(&["encrypt", &source, &out("3")]), 2);
    keep(run(&["decrypt", &file, &out("3"), "-i", &key]), 2);
    keep(run(&["decrypt", &key, &out("3"), "-i", &key]), 2);
    let lower = said.to_lowercase();
    for hidden in [passphrase, &secret.to_lowercase(), &secret[16..40].to_lowercase(), "another line"] {
        assert!(!lower.contains(hidden), "{hidden} is in {said}");
    }
    assert!(!std::path::Path::new(&out("3")).exists());
}

#[test]
fn damage_leaves_nothing() {
    let folder = Folder::new();
    let (key, public) = key(&folder);
    let source = folder.write("x.bin", vec![7; 300_000]);
    let sealed = folder.path("x.age");
    run(&["encrypt", &source, &sealed, "-r", &public]).expect(0);
    let good = std::fs::read(&sealed).unwrap();
    let mut bad = good.clone();
    bad[150_000] ^= 1;
    std::fs::write(&sealed, &bad).unwrap();
    let error = run(&["decrypt", &sealed, &folder.path("out"), "-i", &key, "--json"]).expect(2);
    let error: serde_json::Value = serde_json::from_str(&error.stderr).unwrap();
    assert_eq!(
        (&error["error"]["kind"], &error["error"]["path"]),
        (&"mismatch".into(), &sealed.as_str().into())
    );
    std::fs::write(&sealed, &good[..good.len() - 20_000]).unwrap();
    let error = run(&["decrypt", &sealed, &folder.path("out"), "-i", &key]).expect(2);
    assert!(error.stderr.contains("cut short"), "{}", error.stderr);
    let mut left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["key.txt", "x.age", "x.bin"]);
}
