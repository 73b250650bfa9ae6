//! Encrypted files held against the tool age, in both directions.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weighbridge::trust::encrypt::{
    DecryptOptions, EncryptOptions, Encrypted, Identities, Passphrase, Recipients, decrypt, encrypt,
};
use weighbridge::{Error, ErrorKind};
use weighbridge_tests::{age, faults, lines_of, workspace};

/// What locks the keys and one of the files in `tests/age`; `make.py` there has the same.
const PASSPHRASE: &str = "golden passphrase";

fn golden(name: &str) -> PathBuf {
    workspace().join("tests/age").join(name)
}

fn passphrase() -> Passphrase {
    Passphrase::new(PASSPHRASE.into()).unwrap()
}

fn identities(key: &str) -> Identities {
    let mut identities = Identities::new();
    identities.add_file(&golden(key), &mut |_| Ok(passphrase())).unwrap();
    identities
}

fn recipients(key: &str) -> Recipients {
    let mut recipients = Recipients::new();
    if key == "x25519.key" {
        let text = fs::read_to_string(golden(key)).unwrap();
        let public = text.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap();
        recipients.add(public).unwrap();
    } else {
        recipients.add_file(&golden(&format!("{key}.pub"))).unwrap();
    }
    recipients
}

#[test]
fn what_age_wrote_is_read_with_each_kind_of_key() {
    let (plain, short) = (fs::read(golden("plain")).unwrap(), fs::read(golden("short")).unwrap());
    let cases = [
        ("x25519.age", "x25519.key", &plain),
        ("x25519.age", "x25519_locked.key", &plain),
        ("armor.age", "x25519.key", &plain),
        ("ed25519.age", "ed25519.key", &short),
        ("ed25519_locked.age", "ed25519_locked.key", &short),
        ("rsa.age", "rsa.key", &short),
        ("several.age", "x25519.key", &short),
        ("several.age", "ed25519.key", &short),
        ("several.age", "ed25519_locked.key", &short),
        ("several.age", "rsa.key", &short),
    ];
    for (file, key, expected) in cases {
        let opened = Encrypted::open(golden(file), &identities(key)).unwrap();
        let reader = opened.reader();
        let mut found = vec![0; reader.len() as usize];
        reader.read_at(0, &mut found).unwrap();
        assert_eq!(&found, expected, "{file} with {key}");
    }
    let mut words = Identities::new();
    words.add_passphrase(&passphrase());
    assert_eq!(Encrypted::open(golden("passphrase.age"), &words).unwrap().reader().len(), short.len() as u64);
    // A key that is none of the recipients' opens nothing.
    let error = Encrypted::open(golden("rsa.age"), &identities("ed25519.key")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{error}");
    // A wrong passphrase for a key, and none at all.
    for key in ["ed25519_locked.key", "x25519_locked.key"] {
        let wrong = Passphrase::new("another".into()).unwrap();
        let error = Identities::new().add_file(&golden(key), &mut |_| Ok(wrong.clone())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{error}");
        let mut none = |_: &Path| Err(Error::invalid_options("nobody is asked"));
        assert!(Identities::new().add_file(&golden(key), &mut none).is_err());
    }
}

#[test]
fn a_tar_that_others_encrypted_is_a_folder() {
    let opened = Encrypted::open(golden("tar.age"), &identities("x25519.key")).unwrap();
    assert!(opened.is_folder());
    assert_eq!(opened.members().collect::<Vec<_>>(), [("plain", 66_000), ("short", 19)]);
    let dir = tempfile::tempdir().unwrap();
    let mut options = DecryptOptions::default();
    options.unpack = Some(true);
    decrypt(&golden("tar.age"), &dir.path().join("out"), &identities("x25519.key"), &options).unwrap();
    assert_eq!(fs::read(dir.path().join("out/short")).unwrap(), fs::read(golden("short")).unwrap());
    // Without being asked it stays what it is.
    let file = dir.path().join("x.tar");
    decrypt(&golden("tar.age"), &file, &identities("x25519.key"), &DecryptOptions::default()).unwrap();
    assert!(file.is_file());
}

/// Has age do tasks, and asserts that it did.
fn tasks(list: &[Value]) {
    let lines = lines_of("age_judge.py", "batch", list);
    assert_eq!(lines.len(), list.len());
    assert!(faults(&lines).is_empty(), "{:#?}", faults(&lines));
}

#[test]
fn age_decrypts_what_is_encrypted_here() {
    let (dir, tool) = (tempfile::tempdir().unwrap(), age());
    let mut list = Vec::new();
    let mut expected = Vec::new();
    let mut sealed = |name: String, to: &Recipients, bytes: Vec<u8>, armor: bool, how: Value| {
        let (input, output, back) = (
            dir.path().join(format!("{name}.in")),
            dir.path().join(format!("{name}.age")),
            dir.path().join(format!("{name}.out")),
        );
        fs::write(&input, &bytes).unwrap();
        let mut options = EncryptOptions::default();
        options.armor = armor;
        options.execute.fsync = false;
        encrypt(&input, &output, to, &options).unwrap();
        let mut task = json!({ "age": tool, "do": "decrypt", "input": output, "output": back });
        task.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        list.push(task);
        expected.push((back, bytes));
    };
    let bytes = |len: usize| (0..len).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    let x25519 = recipients("x25519.key");
    for (len, armor) in
        [0, 1, 65_535, 65_536, 65_537, 131_072, 300_001].into_iter().flat_map(|n| [(n, false), (n, true)])
    {
        let name = format!("x{len}{armor}");
        sealed(name, &x25519, bytes(len), armor, json!({ "identity": golden("x25519.key") }));
    }
    // age refuses keys that others can read in no case, but types a passphrase for a locked one only at a terminal.
    for key in ["ed25519.key", "rsa.key"] {
        sealed(key.into(), &recipients(key), bytes(70_000), false, json!({ "identity": golden(key) }));
    }
    let words = Recipients::passphrase(&passphrase());
    sealed("words".into(), &words, bytes(70_000), false, json!({ "passphrase": PASSPHRASE }));
    tasks(&list);
    assert_eq!(expected.len(), 17);
    for (path, bytes) in expected {
        // age makes its file with the first byte, and so none of no bytes.
        let found = if bytes.is_empty() && !path.exists() { Vec::new() } else { fs::read(&path).unwrap() };
        assert!(found == bytes, "{}", path.display());
    }
}

#[test]
fn age_and_tar_give_a_folder_back() {
    let (dir, tool) = (tempfile::tempdir().unwrap(), age());
    let folder = dir.path().join("model");
    let deep = folder.join("part").join("d".repeat(150));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    let files = [
        ("config.json".to_owned(), 100),
        (".hidden".to_owned(), 3),
        ("ü-name.txt".to_owned(), 0),
        ("model.safetensors".to_owned(), 200_000),
        (format!("part/{}/{}", "d".repeat(150), "f".repeat(140)), 513),
    ];
    for (name, len) in &files {
        fs::write(folder.join(name), vec![7; *len]).unwrap();
    }
    let sealed = dir.path().join("model.age");
    encrypt(&folder, &sealed, &recipients("x25519.key"), &EncryptOptions::default()).unwrap();
    let out = dir.path().join("out");
    tasks(&[json!({
        "age": tool, "do": "decrypt", "folder": true, "input": sealed, "output": out,
        "identity": golden("x25519.key"),
    })]);
    for (name, len) in &files {
        assert_eq!(fs::read(out.join("model").join(name)).unwrap(), vec![7; *len], "{name}");
    }
    assert!(out.join("model/empty").is_dir());
    // And here.
    let back = dir.path().join("back");
    let done = decrypt(&sealed, &back, &identities("x25519.key"), &DecryptOptions::default()).unwrap();
    assert_eq!((done.folder, done.written.files.len()), (true, files.len()));
    for (name, len) in &files {
        assert_eq!(fs::read(back.join(name)).unwrap(), vec![7; *len], "{name}");
    }
}

#[test]
fn what_age_encrypts_now_is_read() {
    let (dir, tool) = (tempfile::tempdir().unwrap(), age());
    let text = fs::read_to_string(golden("x25519.key")).unwrap();
    let public = text.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap();
    let out = |name: &str| dir.path().join(name);
    let task = |how: Value, name: &str| {
        let mut task = json!({ "age": tool, "do": "encrypt", "input": golden("plain"), "output": out(name) });
        task.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        task
    };
    tasks(&[
        task(json!({ "recipient": public }), "a"),
        task(json!({ "recipient": public, "armor": true }), "b"),
        task(json!({ "passphrase": "words at a terminal" }), "c"),
    ]);
    let mut words = Identities::new();
    words.add_passphrase(&Passphrase::new("words at a terminal".into()).unwrap());
    let plain = fs::read(golden("plain")).unwrap();
    for (name, keys) in [("a", &identities("x25519.key")), ("b", &identities("x25519.key")), ("c", &words)] {
        let back = out(&format!("{name}.out"));
        decrypt(&out(name), &back, keys, &DecryptOptions::default()).unwrap();
        assert!(fs::read(back).unwrap() == plain, "{name}");
    }
}
