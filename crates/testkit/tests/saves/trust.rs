//! Signatures, encryption, manifests and repairs under faults.

use std::path::Path;

use weighbridge::trust::encrypt::{
    DecryptOptions, EncryptOptions, Encrypted, Identities, Recipients, decrypt, encrypt, generate_identity,
};
use weighbridge::trust::manifest::{Recorded, VerifyOptions, repair, verify};
use weighbridge::trust::sign::{KeyKind, PrivateKey, SignOptions, Signer, sign};
use weighbridge::{Error, Result};

use crate::{files, model, save};

type State = std::result::Result<String, String>;

/// What a new file that stands beside an old manifest is called. `verify` finds that they do not fit.
pub(crate) const BETWEEN: &str = "between two renames";

/// A file that its manifest fits, or one that it does not fit, which verify says.
pub(crate) fn recorded(folder: &Path) -> State {
    let text = |e: Error| e.to_string();
    let recorded = Recorded::find(&folder.join("m.safetensors"), None).map_err(text)?;
    match verify(&recorded, &VerifyOptions::default()).map_err(text)?.is_same() {
        true => files(folder),
        false => Ok(BETWEEN.into()),
    }
}

/// A model that was signed and then changed.
pub(crate) fn signed(folder: &Path) -> Result<()> {
    PrivateKey::generate(KeyKind::Ed25519).write_new(&folder.join("key.pem"), None)?;
    model(folder, 1)?;
    sign_again(folder)?;
    model(folder, 2)
}

pub(crate) fn sign_again(folder: &Path) -> Result<()> {
    let key = PrivateKey::from_file(&folder.join("key.pem"), None)?;
    let mut options = SignOptions::default();
    options.threads = Some(2);
    sign(&folder.join("model"), &folder.join("model.sig"), &Signer::Key(&key), &options).map(drop)
}

/// The signature's bytes: those of a model are the same each time.
pub(crate) fn signature(folder: &Path) -> State {
    files(folder)
}

/// A model's file or folder, encrypted; then it changes.
pub(crate) fn encrypted(folder: &Path, name: &str, seed: u64) -> Result<()> {
    let public = generate_identity(&folder.join("key.txt"))?;
    std::fs::write(folder.join("public.txt"), public).unwrap();
    let write = |seed| match name {
        "plain" => {
            let _ = std::fs::create_dir_all(folder.join("plain/sub"));
            std::fs::write(folder.join("plain/sub/labels.txt"), format!("labels {seed}")).unwrap();
            save(&folder.join("plain"), "m.safetensors", seed, None)
        }
        name => save(folder, name, seed, None),
    };
    write(seed)?;
    encrypt_again(folder, name)?;
    write(seed + 1)
}

pub(crate) fn encrypt_again(folder: &Path, name: &str) -> Result<()> {
    let mut recipients = Recipients::new();
    recipients.add_file(&folder.join("public.txt"))?;
    let mut options = EncryptOptions::default();
    options.execute.overwrite = true;
    options.execute.threads = Some(2);
    encrypt(&folder.join(name), &folder.join("m.age"), &recipients, &options).map(drop)
}

fn identities(folder: &Path) -> Result<Identities> {
    let mut keys = Identities::new();
    keys.add_file(&folder.join("key.txt"), &mut |_| {
        Err(Error::invalid_options("the key has no passphrase"))
    })?;
    Ok(keys)
}

/// What is in the encrypted file, whose own bytes differ each time, and whatever else is there but that.
pub(crate) fn inside(folder: &Path) -> State {
    let text = |e: Error| e.to_string();
    let opened = Encrypted::open(folder.join("m.age"), &identities(folder).map_err(text)?).map_err(text)?;
    let reader = opened.reader();
    let mut bytes = vec![0; reader.len() as usize];
    reader.read_at(0, &mut bytes).map_err(text)?;
    let beside = crate::listing(folder, &|name| name != "m.age");
    Ok(format!("{} {} {beside}", bytes.len(), crc32(&bytes)))
}

fn crc32(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher as _};
    let mut sum = DefaultHasher::new();
    sum.write(bytes);
    sum.finish()
}

/// A file, encrypted, and another one in the place that it is to be decrypted to.
pub(crate) fn file_to_decrypt(folder: &Path) -> Result<()> {
    encrypted(folder, "m.safetensors", 1)
}

pub(crate) fn decrypt_to(folder: &Path, name: &str) -> Result<()> {
    let mut options = DecryptOptions::default();
    options.execute.overwrite = true;
    options.execute.threads = Some(2);
    decrypt(&folder.join("m.age"), &folder.join(name), &identities(folder)?, &options).map(drop)
}

/// A model with its manifest and a good copy; a byte of a large tensor is another.
pub(crate) fn damaged(folder: &Path) -> Result<()> {
    model(folder, 1)?;
    std::fs::rename(folder.join("model"), folder.join("good")).unwrap();
    model(folder, 1)?;
    damage(folder);
    Ok(())
}

fn damage(folder: &Path) {
    let file = folder.join("model/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
}

pub(crate) fn repaired(folder: &Path) -> Result<()> {
    let recorded = Recorded::find(&folder.join("model"), None)?;
    let mut options = VerifyOptions::default();
    options.threads = Some(2);
    let found = verify(&recorded, &options)?;
    if found.is_same() {
        // It was repaired before; so that there is something to do, and what was left is removed by who writes.
        damage(folder);
        return repaired(folder);
    }
    let done = repair(&recorded, &found, &folder.join("good"), &options)?;
    match done.failed.first() {
        None => Ok(()),
        Some((path, reason)) => Err(Error::mismatch(format!("{path} was not repaired: {reason}"))),
    }
}
