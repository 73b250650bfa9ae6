//! `weighbridge sign` and `weighbridge verify --signature`.

use super::*;

/// A model of three files, a key and a signature.
struct Signed {
    folder: Folder,
    model: String,
    signature: String,
    public: String,
}

fn signed() -> Signed {
    let folder = Folder::new();
    let model = folder.path("model");
    std::fs::create_dir_all(folder.path("model/sub")).expect("a folder");
    for (name, text) in [("model/a", "aaaa"), ("model/b", "bbbb"), ("model/sub/c", "cc")] {
        folder.write(name, text);
    }
    let (key, signature) = (folder.path("key.pem"), folder.path("model/model.sig"));
    let made = run(&["sign", "--generate-key", &key, "--json"]).expect(0).json();
    let public = folder.path("key.pub.pem");
    assert_eq!((made["public"].as_str(), made["key"].as_str()), (Some(public.as_str()), Some("p256")));
    assert_eq!(made["encrypted"], false);
    let json = run(&["sign", &model, "--key", &key, "--signature", &signature, "--json", "--no-cache"])
        .expect(0)
        .json();
    assert_eq!((&json["files"], &json["bytes"], &json["hashed"]), (&3.into(), &10.into(), &10.into()));
    assert_eq!(json["root"].as_str().map(str::len), Some(64));
    Signed { folder, model, signature, public }
}

impl Signed {
    fn verify(&self, more: &[&str]) -> Run {
        let args = ["verify", &self.model, "--signature", &self.signature, "--public-key", &self.public];
        run(&[&args[..], more].concat())
    }
}

#[test]
fn a_signed_model_verifies_until_a_file_changes() {
    let signed = signed();
    let text = signed.verify(&[]).expect(0).stdout;
    assert!(text.starts_with("ok         3 files signed by the p256 key "), "{text}");
    let json = signed.verify(&["--json"]).expect(0).json();
    assert_eq!((&json["holds"], &json["files"], &json["bytes"]), (&true.into(), &3.into(), &10.into()));
    assert_eq!(json["signed_by"]["certificate"], serde_json::Value::Null);
    signed.folder.write("model/a", "bbbb");
    signed.folder.write("model/b", "aaaa");
    signed.folder.write("model/new", "");
    std::fs::rename(signed.folder.path("model/sub/c"), signed.folder.path("model/c")).expect("renamed");
    let text = signed.verify(&[]).expect(1).stdout;
    for line in [
        "swapped    a: it has the content of b",
        "swapped    b: it has the content of a",
        "added      new",
        "renamed    sub/c: it is now c",
        "different  4 differences in 3 files",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let json = signed.verify(&["--json"]).expect(1).json();
    let found: Vec<_> =
        json["differences"].as_array().expect("a list").iter().map(|d| &d["change"]).collect();
    assert_eq!(found, ["swapped", "swapped", "added", "renamed"]);
    assert_eq!(json["differences"][3]["other"], "c");
    let lenient = signed.verify(&["--ignore", "new", "--json"]).expect(1).json();
    assert_eq!(lenient["uncovered"], serde_json::json!(["new"]));
}

#[test]
fn a_signature_that_does_not_hold_is_told_from_one_that_cannot_be_read() {
    let signed = signed();
    let other = signed.folder.path("other.pem");
    run(&["sign", "--generate-key", &other]).expect(0);
    let wrong = ["verify", &signed.model, "--signature", &signed.signature, "--public-key"];
    let public = signed.folder.path("other.pub.pem");
    let refused = run(&[&wrong[..], &[&public]].concat()).expect(1);
    assert!(refused.stderr.contains("by another key"), "{}", refused.stderr);
    let json = run(&[&wrong[..], &[&public, "--json"]].concat()).expect(1).json();
    assert!(json["holds"] == false && json["reason"].as_str().is_some_and(|r| r.contains("another key")));
    let given_private = run(&[&wrong[..], &[&other]].concat()).expect(2);
    assert!(given_private.stderr.contains("-pubout"), "{}", given_private.stderr);
    run(&[&wrong[..], &[&signed.folder.path("nothing")]].concat()).expect(2);
    signed.folder.write("model/model.sig", "{}");
    signed.verify(&[]).expect(2);
    // What belongs together is asked for, and what does not is refused.
    run(&["verify", &signed.model, "--signature", &signed.signature]).expect(2);
    run(&["verify", &signed.model, "--public-key", &signed.public]).expect(2);
    signed.verify(&["--quick"]).expect(2);
    signed.verify(&["--valid-now"]).expect(2);
    run(&["sign", &signed.model, "--key", &other]).expect(2);
    run(&["sign"]).expect(2);
}

#[test]
fn secrets_stay_out_of_what_is_printed() {
    let folder = Folder::new();
    let (key, file) = (folder.path("key.pem"), folder.write("model.bin", "weights"));
    let (password, signature) =
        (folder.write("password", "tr0ub4dor\nsecond line"), folder.path("model.sig"));
    for kind in ["p384", "p521", "ed25519"] {
        let key = folder.path(&format!("{kind}.pem"));
        run(&["sign", "--generate-key", &key, "--key-kind", kind]).expect(0);
        let said = run(&["sign", &file, "--key", &key, "--signature", &signature]).expect(0).stdout;
        assert_eq!(said.contains("Ed25519"), kind == "ed25519", "{said}");
        let public = folder.path(&format!("{kind}.pub.pem"));
        run(&["verify", &file, "--signature", &signature, "--public-key", &public]).expect(0);
    }
    let made = run(&["sign", "--generate-key", &key, "--password-file", &password]).expect(0);
    let text = std::fs::read_to_string(&key).expect("a key");
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(&key), 0o600);
    }
    let args = ["sign", &file, "--key", &key, "--signature", &signature];
    let missing = run(&args).expect(2);
    assert!(missing.stderr.contains("WEIGHBRIDGE_KEY_PASSWORD"), "{}", missing.stderr);
    let given = run(&[&args[..], &["--password-file", &password, "--json"]].concat()).expect(0);
    let from_environment =
        command(&args).env("WEIGHBRIDGE_KEY_PASSWORD", "tr0ub4dor").output().expect("it runs");
    assert!(from_environment.status.success());
    let wrong = folder.write("wrong", "hunter2hunter2");
    let refused = run(&[&args[..], &["--password-file", &wrong]].concat()).expect(2);
    let again = run(&["sign", "--generate-key", &key]).expect(2);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    let body = text.lines().nth(2).expect("a line of the key").to_owned();
    for said in [&made, &missing, &given, &refused, &again] {
        for secret in ["tr0ub4dor", "hunter2", body.as_str()] {
            assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret), "{secret}");
        }
    }
}

#[test]
fn signing_again_reads_only_what_changed() {
    let folder = Folder::new();
    let (model, cache) = (folder.path("model"), folder.path("cache"));
    std::fs::create_dir(&model).expect("a folder");
    folder.write("model/weights", vec![7; 100_000]);
    folder.write("model/config.json", "{}");
    let (key, signature) = (folder.path("key.pem"), folder.path("model.sig"));
    run(&["sign", "--generate-key", &key]).expect(0);
    let hashed = || {
        let mut command = command(&["sign", &model, "--key", &key, "--signature", &signature, "--json"]);
        let out = command
            .env("XDG_CACHE_HOME", &cache)
            .env_remove("WEIGHBRIDGE_NO_CACHE")
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{text}");
        serde_json::from_slice::<serde_json::Value>(&out.stdout).expect("JSON")["hashed"]
            .as_u64()
            .expect("a number")
    };
    // A file that has just been written could change again within one tick of the clock, so it is read again.
    assert_eq!(hashed(), 100_002);
    std::thread::sleep(std::time::Duration::from_millis(2_800));
    assert_eq!(hashed(), 100_002);
    assert_eq!(hashed(), 0);
    folder.write("model/config.json", "{\"a\": 1}");
    assert_eq!(hashed(), 8);
    let public = folder.path("key.pub.pem");
    run(&["verify", &model, "--signature", &signature, "--public-key", &public]).expect(0);
}
