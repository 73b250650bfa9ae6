//! Names out of files, and whether one of them leads out of the model's folder: each trick at each place where such a
//! name becomes a path. Outside lies a canary, which is what each trick is after. It is a good file of the kind that is
//! looked for, so where it were read nothing would fail.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weighbridge::checkpoint::{Checkpoint, CheckpointManager, State};
use weighbridge::model::{ModelLoader, ModelSaver};
use weighbridge::trust::encrypt::{
    DecryptOptions, EncryptOptions, Identities, Recipients, decrypt, encrypt, generate_identity,
};
use weighbridge::trust::manifest::{HashOptions, Recorded, VerifyOptions, hash, repair, verify};
use weighbridge::trust::sign::{self, KeyKind, PrivateKey, Signer, Trust, sign_payload};
use weighbridge::versions::{AddOptions, VersionedModel};
use weighbridge::write::{ExecuteOptions, FilePlan, WritePlan, execute, execute_folder};
use weighbridge::{Error, ErrorKind, ReadOptions, Registry, Result, Source, logical};
use weighbridge_testkit::archives::named;
use weighbridge_testkit::write::save;

/// The folder `outer/model` with good files, and `outer/canary.safetensors` beside it.
struct Place {
    outer: tempfile::TempDir,
    canary: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let registry = Registry::builtin();
        fs::create_dir(outer.path().join("model")).unwrap();
        for (folder, stem) in [("model", "good"), ("", "canary")] {
            save(&registry, "safetensors", &named(&["a".into()]), &outer.path().join(folder), stem).unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            let model = outer.path().join("model");
            symlink("../canary.safetensors", model.join("link.safetensors")).unwrap();
            symlink("link.safetensors", model.join("chain.safetensors")).unwrap();
            symlink("..", model.join("up")).unwrap();
            let made = std::process::Command::new("mkfifo").arg(model.join("fifo")).status().unwrap();
            assert!(made.success());
        }
        let canary = fs::read(outer.path().join("canary.safetensors")).unwrap();
        Self { outer, canary }
    }

    fn model(&self) -> PathBuf {
        self.outer.path().join("model")
    }

    /// Names that no place may follow, each with what it is.
    fn tricks(&self) -> Vec<(&'static str, String)> {
        let absolute = self.outer.path().join("canary.safetensors").display().to_string();
        let mut tricks = spelled();
        tricks.push(("absolute", absolute.clone()));
        tricks.push(("absolute with a host", format!("/{absolute}")));
        tricks.push(("URL", format!("file://{absolute}")));
        if cfg!(unix) {
            tricks.extend([
                ("link", "link.safetensors".to_owned()),
                ("link to a link", "chain.safetensors".to_owned()),
                ("folder that is a link", "up/canary.safetensors".to_owned()),
                ("pipe", "fifo".to_owned()),
                ("device", "/dev/zero".to_owned()),
                ("standard input", "/dev/stdin".to_owned()),
            ]);
        }
        tricks
    }

    /// What the tricks must have left as it was.
    fn check(&self, what: &str) {
        assert_eq!(fs::read(self.outer.path().join("canary.safetensors")).unwrap(), self.canary, "{what}");
        let mut names: Vec<_> = fs::read_dir(&self.outer)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|n| !n.starts_with("own-"));
        names.sort();
        assert_eq!(names, ["canary.safetensors", "model"], "{what}");
    }
}

/// Names that are tricks by their spelling alone.
fn spelled() -> Vec<(&'static str, String)> {
    [
        ("parent", "../canary.safetensors"),
        ("parent by a detour", "sub/../../canary.safetensors"),
        ("parent after the folder itself", "./../canary.safetensors"),
        ("backslashes", "..\\canary.safetensors"),
        ("backslashes below", "sub\\..\\..\\canary.safetensors"),
        ("drive", "C:\\canary.safetensors"),
        ("drive's own folder", "C:canary.safetensors"),
        ("stream", "good.safetensors:x"),
        ("server", "//server/share/canary.safetensors"),
        ("server by backslashes", "\\\\server\\share\\x"),
        ("NUL", "good.safetensors\0"),
        ("NUL inside", "..\0/canary.safetensors"),
        ("line", "good.safetensors\n"),
        ("nothing", ""),
        ("folder itself", "."),
        ("folder above", ".."),
        ("empty part", "sub//good.safetensors"),
        ("ends as a folder", "good.safetensors/"),
        ("a dot between", "./good.safetensors"),
        ("device of Windows", "NUL"),
        ("device with an extension", "con.safetensors"),
        ("device below", "sub/COM1.txt"),
        ("dot at the end", "good.safetensors."),
        ("space at the end", "good.safetensors "),
    ]
    .into_iter()
    .map(|(what, name)| (what, name.to_owned()))
    .chain([("long", "x".repeat(300)), ("long with folders", "x/".repeat(4000) + "x")])
    .collect()
}

/// A place where a name becomes a path: what it does with one.
type Entry = fn(&Place, &str) -> Result<()>;

/// Reads all tensors of what opens.
fn read_all(path: &Path) -> Result<()> {
    let archive = Registry::builtin().open_path(path, &ReadOptions::default())?;
    assert!(!archive.tensors().is_empty());
    (0..archive.tensors().len()).try_for_each(|i| archive.data(i)?.read_all().map(drop))
}

fn sibling(place: &Place, name: &str) -> Result<()> {
    Source::open(place.model().join("good.safetensors"))?.sibling(name).map(drop)
}

fn index(place: &Place, file: &str, name: &str) -> Result<()> {
    let path = place.model().join(file);
    fs::write(&path, json!({"metadata": {}, "weight_map": {"a": name}}).to_string()).unwrap();
    let read = read_all(&path);
    fs::remove_file(path).unwrap();
    read
}

fn safetensors_index(place: &Place, name: &str) -> Result<()> {
    index(place, "model.safetensors.index.json", name)
}

fn torch_index(place: &Place, name: &str) -> Result<()> {
    index(place, "pytorch_model.bin.index.json", name)
}

/// A field of a protobuf message that has bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 128 {
        out.push(len as u8 | 128);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
    out
}

fn onnx_external(place: &Place, name: &str) -> Result<()> {
    let entry =
        |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    // One f32 in a file elsewhere: dims, data_type, name, external_data, data_location.
    let tensor = [
        vec![8, 1, 16, 1],
        field(8, b"a"),
        entry("location", name),
        entry("offset", "0"),
        entry("length", "4"),
        vec![14 << 3, 1],
    ]
    .concat();
    let graph = [field(2, b"g"), field(5, &tensor)].concat();
    let model = [vec![8, 8], field(8, &[16, 17]), field(7, &graph)].concat();
    let path = place.model().join("m.onnx");
    fs::write(&path, model).unwrap();
    let read = read_all(&path);
    fs::remove_file(path).unwrap();
    read
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 })
    })
}

fn checkpoint_manifest(place: &Place, name: &str) -> Result<()> {
    let root = tempfile::tempdir_in(&place.outer).unwrap();
    let mut manager = CheckpointManager::builder(root.path()).fsync(false).build().unwrap();
    let weights = named(&["a".into()]);
    let saved = manager.save(&State::new(&weights).at(1, 1)).unwrap().unwrap().path;
    Checkpoint::open(&saved).and_then(|c| c.verify()).expect("the honest checkpoint is good");
    // The tricks that are links lead to the same bytes.
    #[cfg(unix)]
    if matches!(name, "link.safetensors" | "chain.safetensors") {
        fs::rename(saved.join("model.safetensors"), root.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", saved.join(name)).unwrap();
    }
    #[cfg(unix)]
    if name == "fifo" {
        assert!(std::process::Command::new("mkfifo").arg(saved.join(name)).status().unwrap().success());
    }
    let path = saved.join("checkpoint.json");
    let text = fs::read_to_string(&path).unwrap();
    let body = text.rsplit_once(",\n  \"manifest_crc32\"").unwrap().0;
    assert!(body.contains("\"model.safetensors\""));
    let body = body.replace("\"model.safetensors\"", &json!(name).to_string());
    fs::write(&path, format!("{body},\n  \"manifest_crc32\": \"{:08x}\"\n}}\n", crc32(body.as_bytes())))
        .unwrap();
    let checkpoint = Checkpoint::open(&saved)?;
    checkpoint.verify()?;
    checkpoint.weights().map(drop)
}

/// A container of our own making with one member.
fn tar_member(place: &Place, name: &str, kind: u8) -> Result<()> {
    let (content, link) = (b"content", b"../canary.safetensors");
    let mut bytes = Vec::new();
    let mut push = |name: &[u8], kind: u8, content: &[u8]| {
        let mut header = [0u8; 512];
        header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    };
    // By a pax record, which holds any name at any length.
    let rest = format!(" path={name}\n");
    let mut len = rest.len() + 1;
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    push(b"pax", b'x', format!("{len}{rest}").as_bytes());
    push(b"member", kind, if kind == b'0' { content } else { b"" });
    bytes.resize(bytes.len() + 1024, 0);
    let dir = tempfile::tempdir_in(&place.outer).unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("x.tar"), bytes).unwrap();
    let public = generate_identity(&at("key")).unwrap();
    let (mut recipients, mut identities) = (Recipients::new(), Identities::new());
    recipients.add(&public).unwrap();
    identities.add_file(&at("key"), &mut |_| unreachable!()).unwrap();
    encrypt(&at("x.tar"), &at("x.age"), &recipients, &EncryptOptions::default()).unwrap();
    let mut options = DecryptOptions::default();
    options.unpack = Some(true);
    let done = decrypt(&at("x.age"), &at("out"), &identities, &options).map(drop);
    assert!(done.is_ok() || !at("out").exists());
    done
}

fn tar_file(place: &Place, name: &str) -> Result<()> {
    tar_member(place, name, b'0')
}

fn plan<'a>(name: &str) -> WritePlan<'a> {
    let mut file = FilePlan::new(name);
    file.push_fixed(b"written by the trick".to_vec()).unwrap();
    WritePlan { files: vec![file], notes: Vec::new() }
}

fn write_plan(place: &Place, name: &str) -> Result<()> {
    let mut options = ExecuteOptions::default();
    options.overwrite = true;
    execute(plan(name), place.model(), &options).map(drop)
}

fn folder_plan(place: &Place, name: &str) -> Result<()> {
    let inner = tempfile::tempdir_in(&place.outer).unwrap();
    execute_folder(plan(name), inner.path().join("new"), &ExecuteOptions::default()).map(drop)
}

fn saver_asset(place: &Place, name: &str) -> Result<()> {
    let weights = named(&["a".into()]);
    let inner = tempfile::tempdir_in(&place.outer).unwrap();
    let saver = ModelSaver::new(&weights).bytes(name, "written by the trick")?;
    saver.save(inner.path().join("new")).map(drop)
}

/// The file that a name is after: what a manifest or signature of it would say fits, if it were followed.
fn meant(place: &Place, name: &str) -> PathBuf {
    match name {
        "good.safetensors" => place.model().join(name),
        _ => place.outer.path().join("canary.safetensors"),
    }
}

/// The BLAKE3 of bytes.
fn blake3(bytes: &[u8]) -> logical::Digest {
    let mut joiner = logical::Joiner::new(bytes.len() as u64);
    joiner.push(logical::Piece::new(0, bytes, bytes.len() as u64));
    joiner.finish().unwrap()
}

/// A manifest with one file of this name, right in all but the name.
fn manifest_text(place: &Place, name: &str) -> String {
    let found = hash(&meant(place, name), &HashOptions::default()).unwrap();
    let file = &found.files[0];
    let hex = |digest: Option<logical::Digest>| logical::hex(&digest.unwrap());
    let body = format!(
        "{{\n  \"weighbridge_manifest\": 1,\n  \"tool\": \"x\",\n  \"covers\": \"files\",\n  \"files\": [\n    {}\n  ],\n  \
         \"models\": [\n  ],\n  \"provenance\": null",
        json!({"path": name, "size": file.size, "sha256": hex(file.sha256), "blake3": hex(file.blake3)}),
    );
    format!("{body},\n  \"digest\": \"{}\"\n}}\n", logical::hex(&blake3(body.as_bytes())))
}

fn manifest_entry(place: &Place, name: &str) -> Result<()> {
    let path = place.model().join("weighbridge.json");
    fs::write(&path, manifest_text(place, name)).unwrap();
    let recorded = Recorded::find(&place.model(), None);
    fs::remove_file(path).unwrap();
    verify(&recorded?, &VerifyOptions::default())?.into_result()
}

/// A folder that is repaired from the model's, in which the name leads outside.
fn repair_source(place: &Place, name: &str) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("own-").tempdir_in(&place.outer).unwrap();
    fs::write(dir.path().join("weighbridge.json"), manifest_text(place, name)).unwrap();
    let recorded = Recorded::find(dir.path(), None)?;
    let found = verify(&recorded, &VerifyOptions::default())?;
    let done = repair(&recorded, &found, &place.model(), &VerifyOptions::default())?;
    let there = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(there, 1 + done.repaired.len(), "{name:?}");
    match done.failed.first() {
        None => Ok(()),
        Some((_, reason)) => Err(Error::unsafe_content(reason.clone())),
    }
}

/// A signature over a list with one file of this name, by a key that is trusted.
fn signed_list(place: &Place, name: &str) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("own-").tempdir_in(&place.outer).unwrap();
    let sha256 = |path: &Path| hash(path, &HashOptions::default()).unwrap().files[0].sha256.unwrap();
    let digest = sha256(&meant(place, name));
    fs::write(dir.path().join("digests"), digest).unwrap();
    let root = sha256(&dir.path().join("digests"));
    let payload = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": logical::hex(&root)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization":
                {"method": "files", "hash_type": "sha256", "allow_symlinks": false, "ignore_paths": []},
            "resources": [{"name": name, "algorithm": "sha256", "digest": logical::hex(&digest)}],
        },
    });
    let key = PrivateKey::generate(KeyKind::P256);
    let bundle = sign_payload(payload.to_string().as_bytes(), &Signer::Key(&key))?;
    let mut options = sign::VerifyOptions::default();
    // What is not signed, the tricks of the folder among it, is no difference.
    options.ignore_unsigned = true;
    let found = sign::verify(&place.model(), &bundle, &Trust::Key(key.public()), &options)?;
    match found.differences.first() {
        None => Ok(()),
        Some(difference) => Err(Error::mismatch(format!("{difference:?}"))),
    }
}

/// The places that read the file that a name leads to.
const READING: &[(&str, Entry)] = &[
    ("Source::sibling", sibling),
    ("index of safetensors", safetensors_index),
    ("index of torch", torch_index),
    ("external data of ONNX", onnx_external),
    ("manifest of a checkpoint", checkpoint_manifest),
    ("manifest of a model", manifest_entry),
    ("source of a repair", repair_source),
    ("list of a signature", signed_list),
];

/// The places that write to where a name leads.
const WRITING: &[(&str, Entry)] = &[
    ("plan of files", write_plan),
    ("plan of a folder", folder_plan),
    ("asset of a model", saver_asset),
    ("member of an encrypted folder", tar_file),
];

#[test]
fn honest_names_are_followed() {
    let place = Place::new();
    for (what, entry) in READING {
        // A checkpoint has the name that its own file has.
        let name = if *what == "manifest of a checkpoint" { "model.safetensors" } else { "good.safetensors" };
        entry(&place, name).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    for (what, entry) in WRITING {
        entry(&place, "new.txt").unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    place.check("honest names");
}

#[test]
fn no_trick_reads_a_file_outside() {
    let place = Place::new();
    let tricks = place.tricks();
    assert!(tricks.len() > 25);
    for (what, entry) in READING {
        for (trick, name) in &tricks {
            let Err(error) = entry(&place, name) else { panic!("{what}: {trick}: {name:?} was followed") };
            let kind = error.kind();
            // Malformed is a file of names that says something impossible; NotFound would be a look outside.
            assert!(
                matches!(kind, ErrorKind::UnsafeContent | ErrorKind::Malformed | ErrorKind::Mismatch),
                "{what}: {trick}: {error:?}"
            );
            place.check(&format!("{what}: {trick}"));
        }
    }
}

#[test]
fn no_trick_writes_a_file_outside() {
    let place = Place::new();
    let tricks = spelled();
    for (what, entry) in WRITING {
        for (trick, name) in &tricks {
            // A tar may call what is in it `./name`, as `tar c .` does.
            if *what == "member of an encrypted folder" && *trick == "a dot between" {
                continue;
            }
            let Err(error) = entry(&place, name) else { panic!("{what}: {trick}: {name:?} was written") };
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::UnsafeContent
                        | ErrorKind::InvalidOptions
                        | ErrorKind::Malformed
                        | ErrorKind::LimitExceeded
                ),
                "{what}: {trick}: {error:?}"
            );
            place.check(&format!("{what}: {trick}"));
        }
    }
}

#[test]
fn links_and_devices_in_an_encrypted_folder_are_refused() {
    let place = Place::new();
    for kind in b"123456S" {
        // A folder with nothing in it is no trick.
        if *kind == b'5' {
            continue;
        }
        let Err(error) = tar_member(&place, "x", *kind) else { panic!("kind {}", char::from(*kind)) };
        assert!(matches!(error.kind(), ErrorKind::UnsafeContent | ErrorKind::Unsupported), "{error:?}");
        place.check("a member that is no file");
    }
}

#[test]
fn names_that_are_one_where_case_does_not_count_are_refused() {
    let place = Place::new();
    for (one, other) in
        [("a.bin", "A.bin"), ("straße.bin", "STRASSE.bin"), ("σ.bin", "ς.bin"), ("x.bin", "x.bin")]
    {
        let mut both = plan(one);
        both.files.extend(plan(other).files);
        let error = execute(both, place.model(), &ExecuteOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{one} {other}: {error}");
        assert!(!place.model().join(one).exists());
    }
    place.check("cases");
}

/// The same, where a file names them.
#[test]
fn lists_with_two_names_for_one_file_are_refused() {
    let place = Place::new();
    let text = manifest_text(&place, "good.safetensors");
    for (one, other) in [("A.bin", "a.bin"), ("X/y", "x/Y")] {
        let entry = text.lines().find(|l| l.contains("good.safetensors")).unwrap();
        let named = |name: &str| entry.replace("good.safetensors", name);
        let body = text.replace(entry, &format!("{},\n{}", named(one), named(other)));
        let body = body.rsplit_once(",\n  \"digest\"").unwrap().0;
        let sealed = format!("{body},\n  \"digest\": \"{}\"\n}}\n", logical::hex(&blake3(body.as_bytes())));
        fs::write(place.model().join("weighbridge.json"), sealed).unwrap();
        let error = Recorded::find(&place.model(), None).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{error}");
    }
}

/// A name in the folder that is a second one of a file outside: what is written gets a file of its own.
#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_hard_link() {
    let place = Place::new();
    let canary = place.outer.path().join("canary.safetensors");
    let linked = place.model().join("hard.safetensors");
    fs::hard_link(&canary, &linked).unwrap();
    write_plan(&place, "hard.safetensors").unwrap();
    assert_eq!(fs::read(&linked).unwrap(), b"written by the trick");
    place.check("a plan over a hard link");

    fs::remove_file(&linked).unwrap();
    fs::hard_link(&canary, &linked).unwrap();
    let dir = tempfile::Builder::new().prefix("own-").tempdir_in(&place.outer).unwrap();
    let public = generate_identity(&dir.path().join("key")).unwrap();
    let (mut recipients, mut identities) = (Recipients::new(), Identities::new());
    recipients.add(&public).unwrap();
    identities.add_file(&dir.path().join("key"), &mut |_| unreachable!()).unwrap();
    let sealed = dir.path().join("x.age");
    let good = place.model().join("good.safetensors");
    encrypt(&good, &sealed, &recipients, &EncryptOptions::default()).unwrap();
    let mut options = DecryptOptions::default();
    options.execute.overwrite = true;
    decrypt(&sealed, &linked, &identities, &options).unwrap();
    assert_eq!(fs::read(&linked).unwrap(), fs::read(good).unwrap());
    place.check("decrypting over a hard link");
}

/// A model's folder that a stranger made has links in it: to a secret in the place of a vocabulary, say, which would go
/// along into what is saved, encrypted or added.
#[cfg(unix)]
#[test]
fn links_of_a_models_folder_are_not_carried_elsewhere() {
    use std::os::unix::fs::symlink;
    let outer = tempfile::tempdir().unwrap();
    let (model, secret) = (outer.path().join("model"), outer.path().join("secret.txt"));
    fs::create_dir(&model).unwrap();
    save(&Registry::builtin(), "safetensors", &named(&["a".into()]), &model, "model").unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    fs::write(&secret, "what is outside").unwrap();
    symlink("../secret.txt", model.join("notes.txt")).unwrap();
    symlink(&secret, model.join("vocab.txt")).unwrap();
    symlink("..", model.join("folder")).unwrap();

    let loaded = ModelLoader::new(&model).load().unwrap();
    let names: Vec<_> = loaded.files().iter().map(|f| f.name.clone()).collect();
    assert!(names.iter().all(|n| !n.contains("txt") && !n.contains("folder")), "{names:?}");
    let saved = outer.path().join("saved");
    ModelSaver::of(&loaded).unwrap().save(&saved).unwrap();
    for entry in fs::read_dir(&saved).unwrap() {
        let text = fs::read(entry.unwrap().path()).unwrap();
        assert!(!text.windows(15).any(|w| w == b"what is outside"));
    }

    let public = generate_identity(&outer.path().join("key")).unwrap();
    let mut recipients = Recipients::new();
    recipients.add(&public).unwrap();
    let sealed = outer.path().join("model.age");
    let error = encrypt(&model, &sealed, &recipients, &EncryptOptions::default()).unwrap_err();
    assert!(error.kind() == ErrorKind::UnsafeContent && !sealed.exists(), "{error}");

    let registry = outer.path().join("registry");
    fs::create_dir(&registry).unwrap();
    let versions = VersionedModel::at(registry.join("m")).unwrap();
    let error = versions.add(&model, &AddOptions::default()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{error}");
}

/// What an auto_map or a tokenizer's config names is never opened.
#[test]
fn names_of_code_and_files_in_configs_are_not_followed() {
    let outer = tempfile::tempdir().unwrap();
    let model = outer.path().join("model");
    fs::create_dir(&model).unwrap();
    save(&Registry::builtin(), "safetensors", &named(&["a".into()]), &model, "model").unwrap();
    fs::write(outer.path().join("secret.json"), r#"{"what is": "outside"}"#).unwrap();
    let config = json!({
        "auto_map": {"AutoModel": "../secret.json--modeling.Model", "AutoConfig": "/etc/passwd"},
        "_name_or_path": "../secret.json",
    });
    let tokenizer = json!({
        "tokenizer_class": "BertTokenizer", "tokenizer_file": "../secret.json", "vocab_file": "/etc/passwd",
        "special_tokens_map_file": "../secret.json", "name_or_path": "..",
        "auto_map": {"AutoTokenizer": ["../secret.json", null]},
    });
    for (name, value) in [("config.json", &config), ("tokenizer_config.json", &tokenizer)] {
        fs::write(model.join(name), value.to_string()).unwrap();
    }
    let loaded = ModelLoader::new(&model).load().unwrap();
    let saved = outer.path().join("saved");
    ModelSaver::of(&loaded).unwrap().save(&saved).unwrap();
    for entry in fs::read_dir(&saved).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert!(value["what is"].is_null() && !value.to_string().contains("root:"), "{}", path.display());
        }
    }
}
