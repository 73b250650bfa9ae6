//! Signatures against model-signing 1.1.1 and OpenSSL: each verifies what the other signs, and refuses what was changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weighbridge::ErrorKind;
use weighbridge::trust::sign::{
    Certificate, HashType, KeyKind, Password, PrivateKey, PublicKey, Roots, SignOptions, Signer, Trust,
    Verification, VerifyOptions, sign, verify_file,
};
use weighbridge_tests::{lines_by, signing_python};

/// Has the tools do tasks; every one of them must be answered.
fn ask(tasks: &[Value]) -> Vec<Result<(), String>> {
    let answers = lines_by(&signing_python(), "sign.py", "batch", tasks);
    assert_eq!(answers.len(), tasks.len(), "{answers:?}");
    let text = |a: &Value| a["message"].as_str().unwrap_or_default().to_owned();
    answers.iter().map(|a| if a["ok"] == true { Ok(()) } else { Err(text(a)) }).collect()
}

fn all_ok(tasks: &[Value]) {
    for (task, answer) in tasks.iter().zip(ask(tasks)) {
        assert_eq!(answer, Ok(()), "{task}");
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A folder with a model of several files, some of which git keeps.
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["model/sub/deep", "model/.git", "model/.github"] {
            fs::create_dir_all(place.path(folder)).unwrap();
        }
        for (name, bytes) in [
            ("config.json", "{}"),
            ("model.safetensors", "0123456789abcdef"),
            ("sub/a", "one"),
            ("sub/deep/b", "other"),
            ("sub.txt", "dot"),
            ("sub-1", "dash"),
            ("Ünï cöde", "u"),
            ("empty", ""),
            (".gitattributes", "git"),
            (".git/HEAD", "git"),
        ] {
            fs::write(place.path("model").join(name), bytes).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn model(&self) -> PathBuf {
        self.path("model")
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.pem"))
    }

    fn roots(&self, names: &[&str]) -> Trust {
        let paths: Vec<PathBuf> = names.iter().map(|n| self.certificate(n)).collect();
        Trust::Roots(Roots::from_files(&paths).unwrap())
    }
}

fn verify(model: &Path, signature: &Path, trust: &Trust) -> weighbridge::Result<Verification> {
    verify_file(model, signature, trust, &VerifyOptions::default())
}

/// The model signed with a new key: the files of the public key and of the signature.
fn signed(place: &Place, model: &Path) -> (PathBuf, PathBuf) {
    let key = PrivateKey::generate(KeyKind::P256);
    let (shared, signature) = (place.path("key.pub"), place.path("model.sig"));
    fs::write(&shared, key.public().to_pem().unwrap()).unwrap();
    sign(model, &signature, &Signer::Key(&key), &SignOptions::default()).unwrap();
    (shared, signature)
}

fn public(path: &Path) -> Trust {
    Trust::Key(PublicKey::from_file(path).unwrap())
}

#[test]
fn keys_of_other_tools_are_read_and_ours_by_them() {
    let place = Place::new();
    let password = Password::new(*b"a pass phrase");
    let mut tasks = Vec::new();
    let mut made = Vec::new();
    for kind in KeyKind::ALL {
        for form in ["pkcs8", "encrypted", "sec1"] {
            if (kind, form) == (KeyKind::Ed25519, "sec1") {
                continue;
            }
            let name = format!("{}-{form}", kind.name());
            let (private, shared) = (place.path(&name), place.path(&format!("{name}.pub")));
            tasks.push(json!({
                "do": "key", "kind": kind.name(), "form": form, "password": "a pass phrase",
                "private": private, "public": shared,
            }));
            made.push((kind, form, private, shared));
        }
    }
    all_ok(&tasks);
    for (kind, form, private, shared) in &made {
        let key = PrivateKey::from_file(private, (*form == "encrypted").then_some(&password)).unwrap();
        assert_eq!(key.kind(), *kind);
        assert_eq!(key.public(), PublicKey::from_file(shared).unwrap(), "{form}");
        assert_eq!(key.public().to_pem().unwrap(), fs::read_to_string(shared).unwrap());
    }
    let mut tasks = Vec::new();
    for kind in KeyKind::ALL {
        for encrypted in [false, true] {
            let key = PrivateKey::generate(kind);
            let private = place.path(&format!("own-{}-{encrypted}", kind.name()));
            let shared = private.with_extension("pub");
            key.write_new(&private, encrypted.then_some(&password)).unwrap();
            fs::write(&shared, key.public().to_pem().unwrap()).unwrap();
            tasks.push(json!({
                "do": "check-key", "private": private, "public": shared, "hint": key.public().hint().unwrap(),
                "password": encrypted.then_some("a pass phrase"),
            }));
        }
    }
    all_ok(&tasks);
}

#[test]
fn model_signing_verifies_what_we_sign() {
    let place = Place::new();
    let model = place.model();
    let mut tasks = Vec::new();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521] {
        let key = PrivateKey::generate(kind);
        let shared = place.path(&format!("{}.pub", kind.name()));
        fs::write(&shared, key.public().to_pem().unwrap()).unwrap();
        for (way, hash, shard_size, python) in [
            ("sha256", HashType::Sha256, None, json!(null)),
            ("blake3", HashType::Blake3, None, json!(null)),
            // It does not know again the name that it writes for this hash, unless it is told.
            ("blake2b", HashType::Blake2b, None, json!({ "explicit": true, "hash": "blake2" })),
            ("shards", HashType::Sha256, Some(7), json!(null)),
            (
                "blake2b-shards",
                HashType::Blake2b,
                Some(5),
                json!({ "explicit": true, "hash": "blake2", "shard_size": 5 }),
            ),
        ] {
            // One inside of the folder, where it must leave itself out.
            let signature = model.join(format!("{}-{way}.sig", kind.name()));
            let mut options = SignOptions::default();
            (options.hash, options.shard_size) = (hash, shard_size);
            options.ignore = vec!["sub/deep".into()];
            for other in fs::read_dir(&model).unwrap() {
                let name = other.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".sig") {
                    options.ignore.push(name);
                }
            }
            let signed = sign(&model, &signature, &Signer::Key(&key), &options).unwrap();
            assert_eq!(signed.files, if shard_size.is_some() { 6 } else { 7 });
            assert!(verify(&model, &signature, &public(&shared)).is_ok());
            let mut task =
                json!({ "do": "verify", "model": model, "signature": signature, "public": shared });
            for (key, value) in python.as_object().into_iter().flatten() {
                task[key] = value.clone();
            }
            tasks.push((task, signature));
        }
    }
    // Each is verified while it is the only one that was not there when it was signed.
    let away: Vec<_> = tasks.iter().map(|(_, path)| (path.clone(), fs::read(path).unwrap())).collect();
    away.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    for ((task, path), (_, bytes)) in tasks.iter().zip(&away) {
        fs::write(path, bytes).unwrap();
        assert!(verify(&model, path, &public(Path::new(task["public"].as_str().unwrap()))).unwrap().holds());
        all_ok(std::slice::from_ref(task));
        fs::remove_file(path).unwrap();
    }
    // One file, and a folder whose links are taken for files.
    let key = PrivateKey::generate(KeyKind::P256);
    let shared = place.path("shared.pub");
    fs::write(&shared, key.public().to_pem().unwrap()).unwrap();
    let (file, one, links) = (model.join("config.json"), place.path("one.sig"), place.path("links.sig"));
    sign(&file, &one, &Signer::Key(&key), &SignOptions::default()).unwrap();
    std::os::unix::fs::symlink("../outside", model.join("link")).unwrap();
    fs::write(place.path("outside"), "outside").unwrap();
    let mut options = SignOptions::default();
    options.allow_symlinks = true;
    sign(&model, &links, &Signer::Key(&key), &options).unwrap();
    all_ok(&[
        json!({ "do": "verify", "model": file, "signature": one, "public": shared }),
        // It does not take the leave from the signature.
        json!({
            "do": "verify", "model": model, "signature": links, "public": shared, "explicit": true, "allow_symlinks": true,
        }),
    ]);
}

#[test]
fn we_verify_what_model_signing_signs() {
    let place = Place::new();
    let model = place.model();
    let mut tasks = Vec::new();
    let mut expected = Vec::new();
    for kind in ["p256", "p384", "p521"] {
        let (private, shared) = (place.path(kind), place.path(&format!("{kind}.pub")));
        tasks.push(
            json!({ "do": "key", "kind": kind, "form": "pkcs8", "private": private, "public": shared }),
        );
        for (way, more) in [
            ("plain", json!({})),
            ("ignore", json!({ "ignore": ["sub", "empty"] })),
            ("blake2", json!({ "hash": "blake2" })),
            ("blake3", json!({ "hash": "blake3" })),
            ("shards", json!({ "shard_size": 5 })),
            ("blake2-shards", json!({ "shard_size": 1_000_000, "hash": "blake2" })),
        ] {
            let signature = place.path(&format!("{kind}-{way}.sig"));
            let mut task = json!({ "do": "sign", "model": model, "signature": signature, "key": private });
            for (key, value) in more.as_object().into_iter().flatten() {
                task[key] = value.clone();
            }
            tasks.push(task);
            expected.push((model.clone(), signature, shared.clone(), way));
        }
        let (file, signature) = (model.join("sub/a"), place.path(&format!("{kind}-one.sig")));
        tasks.push(json!({ "do": "sign", "model": file, "signature": signature, "key": private }));
        expected.push((file, signature, shared.clone(), "one"));
    }
    all_ok(&tasks);
    for (path, signature, shared, way) in &expected {
        let found = verify(path, signature, &public(shared)).unwrap();
        assert!(found.holds(), "{way}: {found:?}");
        let files = match *way {
            "one" => 1,
            "ignore" => 5,
            // The format has no shards of an empty file.
            "shards" | "blake2-shards" => 7,
            _ => 8,
        };
        assert_eq!(found.files, files, "{way}");
    }
    fs::write(model.join("sub/deep/b"), "OTHER").unwrap();
    for (path, signature, shared, way) in &expected {
        let found = verify(path, signature, &public(shared)).unwrap();
        let names: Vec<_> = found.differences.iter().map(|d| d.name.as_str()).collect();
        match *way {
            "one" | "ignore" => assert!(names.is_empty(), "{way}: {names:?}"),
            _ => assert_eq!(names, ["sub/deep/b"], "{way}"),
        }
    }
}

#[test]
fn every_change_fails_in_both_with_its_name() {
    let place = Place::new();
    let model = place.model();
    let (shared, signature) = signed(&place, &model);
    let trust = public(&shared);
    let task = json!({ "do": "verify", "model": model, "signature": signature, "public": shared });
    let file = |name: &str| model.join(name);
    type Edit<'a> = (&'a str, &'a [(&'a str, &'a str)], Box<dyn Fn() + 'a>, Box<dyn Fn() + 'a>);
    let edits: Vec<Edit<'_>> = vec![
        (
            "changed",
            &[("config.json", "changed")],
            Box::new(|| fs::write(file("config.json"), "[]").unwrap()),
            Box::new(|| fs::write(file("config.json"), "{}").unwrap()),
        ),
        (
            "emptied",
            &[("sub/a", "emptied")],
            Box::new(|| fs::write(file("sub/a"), "").unwrap()),
            Box::new(|| fs::write(file("sub/a"), "one").unwrap()),
        ),
        (
            "added",
            &[("new", "added")],
            Box::new(|| fs::write(file("new"), "new").unwrap()),
            Box::new(|| fs::remove_file(file("new")).unwrap()),
        ),
        (
            "removed",
            &[("empty", "removed")],
            Box::new(|| fs::remove_file(file("empty")).unwrap()),
            Box::new(|| fs::write(file("empty"), "").unwrap()),
        ),
        (
            "renamed",
            &[("sub/a", "renamed")],
            Box::new(|| fs::rename(file("sub/a"), file("a")).unwrap()),
            Box::new(|| fs::rename(file("a"), file("sub/a")).unwrap()),
        ),
        (
            "swapped",
            &[("sub.txt", "swapped"), ("sub/a", "swapped")],
            Box::new(|| {
                fs::write(file("sub.txt"), "one").unwrap();
                fs::write(file("sub/a"), "dot").unwrap();
            }),
            Box::new(|| {
                fs::write(file("sub.txt"), "dot").unwrap();
                fs::write(file("sub/a"), "one").unwrap();
            }),
        ),
        (
            "linked",
            &[("sub/a", "not-a-file")],
            Box::new(|| {
                fs::rename(file("sub/a"), place.path("a")).unwrap();
                std::os::unix::fs::symlink("../../a", file("sub/a")).unwrap();
            }),
            Box::new(|| {
                fs::remove_file(file("sub/a")).unwrap();
                fs::rename(place.path("a"), file("sub/a")).unwrap();
            }),
        ),
    ];
    let mut runs = 0;
    for (what, expected, edit, undo) in &edits {
        edit();
        let found = verify(&model, &signature, &trust).unwrap();
        let names: Vec<_> = found.differences.iter().map(|d| (d.name.as_str(), d.word())).collect();
        assert_eq!(names, *expected, "{what}");
        let [Err(message)] = &ask(std::slice::from_ref(&task))[..] else { panic!("{what} was not found") };
        assert!(message.contains(expected[0].0), "{what}: {message}");
        undo();
        runs += 1;
    }
    assert_eq!(runs, 7);
    assert!(verify(&model, &signature, &trust).unwrap().holds());
    all_ok(&[task]);
}

#[test]
fn bent_signatures_fail_in_both() {
    let place = Place::new();
    let model = place.model();
    let (shared, signature) = signed(&place, &model);
    let good = fs::read_to_string(&signature).unwrap();
    let trust = public(&shared);
    let bundle: Value = serde_json::from_str(&good).unwrap();
    let mut tasks = Vec::new();
    for pointer in [
        "/mediaType",
        "/verificationMaterial/publicKey/hint",
        "/dsseEnvelope/payload",
        "/dsseEnvelope/payloadType",
        "/dsseEnvelope/signatures/0/sig",
    ] {
        let value = bundle.pointer(pointer).unwrap().as_str().unwrap();
        let start = good.find(value).unwrap();
        // Python's Base64 does not look at the last bits before the padding.
        for at in (start..start + value.len() - 4).step_by(value.len() / 5) {
            let mut bent = good.clone().into_bytes();
            bent[at] ^= 1;
            let path = place.path(&format!("bent-{at}"));
            fs::write(&path, &bent).unwrap();
            assert!(verify(&model, &path, &trust).is_err(), "{pointer} byte {at}");
            tasks.push(json!({ "do": "verify", "model": model, "signature": path, "public": shared }));
        }
    }
    assert!(tasks.len() > 20);
    for (task, answer) in tasks.iter().zip(ask(&tasks)) {
        assert!(answer.is_err(), "{task}");
    }
}

#[test]
fn openssl_verifies_the_signature_itself() {
    let place = Place::new();
    for (kind, digest) in [(KeyKind::P256, "-sha256"), (KeyKind::P384, "-sha384"), (KeyKind::P521, "-sha512")]
    {
        let key = PrivateKey::generate(kind);
        let signed =
            sign(&place.model(), &place.path("sig"), &Signer::Key(&key), &SignOptions::default()).unwrap();
        let bundle: Value = serde_json::from_slice(&signed.bundle).unwrap();
        // Decoded by another's Base64, and the encoding of DSSE as its specification has it.
        let decode = |text: &Value, to: &Path| {
            let script = "import base64, sys; open(sys.argv[2], 'wb').write(base64.b64decode(sys.argv[1], validate=True))";
            let status = Command::new(signing_python())
                .args(["-c", script])
                .arg(text.as_str().unwrap())
                .arg(to)
                .status();
            assert!(status.unwrap().success());
        };
        let (payload, signature, pae, shared) =
            (place.path("payload"), place.path("raw"), place.path("pae"), place.path("pub"));
        decode(&bundle["dsseEnvelope"]["payload"], &payload);
        decode(&bundle["dsseEnvelope"]["signatures"][0]["sig"], &signature);
        let body = fs::read(&payload).unwrap();
        let kind_of = "application/vnd.in-toto+json";
        let head = format!("DSSEv1 {} {kind_of} {} ", kind_of.len(), body.len());
        fs::write(&pae, [head.as_bytes(), &body[..]].concat()).unwrap();
        fs::write(&shared, key.public().to_pem().unwrap()).unwrap();
        let check = |of: &Path| {
            let mut openssl = Command::new("openssl");
            openssl.args(["dgst", digest, "-verify"]).arg(&shared).arg("-signature").arg(&signature).arg(of);
            openssl.output().expect("openssl runs").status.success()
        };
        assert!(check(&pae), "{kind:?}");
        assert!(!check(&payload), "{kind:?}");
    }
}

#[test]
fn certificates_of_every_kind_lead_to_their_roots() {
    let place = Place::new();
    let model = place.model();
    all_ok(&[json!({ "do": "certificates", "folder": place.dir.path() })]);
    let mut tasks = Vec::new();
    for kind in ["p256", "p384", "p521", "ed25519", "rsa"] {
        let name = |part: &str| format!("{kind}-{part}");
        let load =
            |part: &str| Certificate::all_from_file(&place.certificate(&name(part))).unwrap().remove(0);
        let key = PrivateKey::from_file(&place.path(&name("signer.key")), None).unwrap();
        let (certificate, chain) = (load("signer"), [load("low"), load("middle")]);
        let ours = place.path(&name("ours.sig"));
        let signer = Signer::Certificate { key: &key, certificate: &certificate, chain: &chain };
        sign(&model, &ours, &signer, &SignOptions::default()).unwrap();
        let theirs = place.path(&name("theirs.sig"));
        let root = place.certificate(&name("root"));
        tasks.push(json!({ "do": "verify", "model": model, "signature": ours, "roots": [root] }));
        tasks.push(json!({
            "do": "sign", "model": model, "signature": theirs, "key": place.path(&name("signer.key")),
            "certificate": place.certificate(&name("signer")),
            "chain": [place.certificate(&name("middle")), place.certificate(&name("low"))],
        }));
    }
    all_ok(&tasks);
    let all = ["p256-root", "p384-root", "p521-root", "ed25519-root", "rsa-root"];
    for kind in ["p256", "p384", "p521", "ed25519", "rsa"] {
        let own = format!("{kind}-root");
        for signature in ["ours", "theirs"] {
            let path = place.path(&format!("{kind}-{signature}.sig"));
            let found = verify(&model, &path, &place.roots(&[&own])).unwrap();
            assert!(found.holds(), "{kind} {signature}");
            let subject = found.signed_by.certificate.unwrap().subject();
            assert!(subject.contains(&format!("CN={kind}-signer")), "{subject}");
            assert!(verify(&model, &path, &place.roots(&all)).is_ok());
            let others: Vec<&str> = all.iter().copied().filter(|n| *n != own).collect();
            let error = verify(&model, &path, &place.roots(&others)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
            // One in the middle is not trusted by itself.
            let middle = place.certificate(&format!("{kind}-middle"));
            assert!(Roots::from_files(&[middle]).is_err());
        }
        // Without the chain in the bundle, the verifier's own files may fill it.
        let key = PrivateKey::from_file(&place.path(&format!("{kind}-signer.key")), None).unwrap();
        let certificate =
            Certificate::all_from_file(&place.certificate(&format!("{kind}-signer"))).unwrap().remove(0);
        let bare = place.path("bare.sig");
        let signer = Signer::Certificate { key: &key, certificate: &certificate, chain: &[] };
        sign(&model, &bare, &signer, &SignOptions::default()).unwrap();
        assert!(verify(&model, &bare, &place.roots(&[&own])).is_err());
        let filled = place.roots(&[&own, &format!("{kind}-low"), &format!("{kind}-middle")]);
        assert!(verify(&model, &bare, &filled).unwrap().holds());
    }
}

#[test]
fn certificates_with_one_thing_wrong_are_refused_by_name() {
    let place = Place::new();
    let model = place.model();
    all_ok(&[json!({ "do": "certificates", "folder": place.dir.path() })]);
    // The signer, the chain, what is wrong with it, and whether model-signing finds that too.
    let cases: [(&str, &[&str], Option<&str>, bool); 18] = [
        ("good", &["middle"], None, true),
        ("good384", &["middle"], None, true),
        ("code", &["middle"], None, true),
        ("own", &[], None, true),
        ("expired", &["middle"], None, true),
        ("good", &["middle", "root"], None, true),
        ("good", &[], Some("leads to none"), true),
        ("before-its-issuer", &["middle"], Some("not valid at that time"), true),
        ("future", &["middle"], Some("not valid yet"), false),
        ("no-usage", &["middle"], Some("does not say"), true),
        ("wrong-usage", &["middle"], Some("no digital signatures"), true),
        ("server", &["middle"], Some("no code signing"), false),
        ("critical", &["middle"], Some("not understood"), true),
        ("forged", &["middle"], Some("not signed by the key"), true),
        ("no-authority", &["no-authority-issuer"], Some("not one of an authority"), true),
        ("no-cert-sign", &["no-cert-sign-issuer"], Some("may not sign certificates"), true),
        ("no-constraints", &["no-constraints-issuer"], Some("not one of an authority"), true),
        ("too-long", &["too-long-issuer", "middle"], Some("more authorities"), true),
    ];
    let mut tasks = Vec::new();
    let trusted = ["root", "own"];
    for (i, (name, chain, _, _)) in cases.iter().enumerate() {
        let chain: Vec<PathBuf> = chain.iter().map(|n| place.certificate(n)).collect();
        tasks.push(json!({
            "do": "sign", "model": model, "signature": place.path(&format!("{i}.sig")),
            "key": place.path(&format!("{name}.key")), "certificate": place.certificate(name), "chain": chain,
        }));
    }
    // model-signing reads no empty list of certificates.
    for task in &mut tasks {
        if task["chain"].as_array().is_some_and(Vec::is_empty) {
            task["chain"] = json!([place.certificate("stranger")]);
        }
    }
    all_ok(&tasks);
    let roots: Vec<PathBuf> = trusted.iter().map(|n| place.certificate(n)).collect();
    let verifying: Vec<Value> = (0..cases.len())
        .map(|i| json!({ "do": "verify", "model": model, "signature": place.path(&format!("{i}.sig")), "roots": roots }))
        .collect();
    let theirs = ask(&verifying);
    for (i, (name, _, fault, both)) in cases.iter().enumerate() {
        let ours = verify(&model, &place.path(&format!("{i}.sig")), &place.roots(&trusted));
        match (fault, ours) {
            (None, ours) => assert!(ours.unwrap().holds(), "{name}"),
            (Some(fault), Err(e)) => {
                assert_eq!(e.kind(), ErrorKind::Mismatch, "{name}: {e}");
                assert!(e.message().contains(fault), "{name}: {e}");
            }
            (Some(fault), Ok(_)) => panic!("{name} was taken, and {fault} was expected"),
        }
        assert_eq!(theirs[i].is_ok(), fault.is_none() || !both, "{name}: {:?}", theirs[i]);
    }
    // Today, an expired certificate is one only if the verifier does not ask.
    let mut options = VerifyOptions::default();
    options.valid_now = true;
    let expired = verify_file(&model, &place.path("4.sig"), &place.roots(&trusted), &options).unwrap_err();
    assert!(expired.message().contains("not valid at that time"), "{expired}");
    assert!(verify_file(&model, &place.path("0.sig"), &place.roots(&trusted), &options).unwrap().holds());
    // A key for a certificate, and the other way round.
    let key = PrivateKey::generate(KeyKind::P256);
    let error = verify(&model, &place.path("0.sig"), &Trust::Key(key.public())).unwrap_err();
    assert!(error.hint().is_some_and(|h| h.contains("--certificate-roots")), "{error}");
    let certificate = Certificate::all_from_file(&place.certificate("good")).unwrap().remove(0);
    let signer = Signer::Certificate { key: &key, certificate: &certificate, chain: &[] };
    let error = sign(&model, &place.path("x.sig"), &signer, &SignOptions::default()).unwrap_err();
    assert!(error.message().contains("another key"), "{error}");
}
