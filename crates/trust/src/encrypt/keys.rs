//! Keys: who may read a file, and what opens it. They come out of files and variables, and never into a message.

use std::fmt;
use std::path::Path;

use age::secrecy::{ExposeSecret as _, SecretString};
use age::{scrypt, ssh, x25519};
use weighbridge_formats::{Error, Note, Result, Source};
use zeroize::Zeroizing;

use super::key::{Overhearing, Remembered};
use super::payload::Payload;

/// The longest file of keys that is read, in bytes.
const KEY_BYTES: u64 = 1 << 20;
/// The work factor of scrypt for passphrases, as a power of two: what the tool age takes. It needs 256 MiB.
const WORK: u8 = 18;
/// The largest work factor that a file may ask for: 1 GiB, and some seconds.
const MAX_WORK: u8 = 20;

/// A passphrase, which is zeroed when it goes and which no message shows.
#[derive(Clone)]
pub struct Passphrase(SecretString);

impl Passphrase {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// `InvalidOptions` if it is empty.
    pub fn new(text: String) -> Result<Self> {
        let text = SecretString::from(text);
        if text.expose_secret().is_empty() {
            return Err(Error::invalid_options("the passphrase is empty"));
        }
        Ok(Self(text))
    }

    /// Reads a passphrase: the first line of a file.
    ///
    /// # Errors
    /// What reading the file says; `InvalidOptions` if the line is empty or no UTF-8.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = read_secret(path)?;
        let line = text.lines().next().unwrap_or_default();
        Self::new(line.to_owned()).map_err(|e| e.with_path(path))
    }

    /// Reads a passphrase from a variable of the environment; `None` if it is not set or empty.
    ///
    /// # Errors
    /// `InvalidOptions` if it is no UTF-8.
    pub fn from_env(variable: &str) -> Result<Option<Self>> {
        match std::env::var(variable) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Self::new(text).map(Some),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Error::invalid_options(format!("the variable {variable} is not UTF-8")))
            }
        }
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Who may read a file that is encrypted: public keys, or a passphrase alone.
#[derive(Default)]
pub struct Recipients {
    keys: Vec<Box<dyn age::Recipient + Send + Sync>>,
    passphrase: bool,
}

impl Recipients {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whoever knows the passphrase, and nobody else.
    pub fn passphrase(passphrase: &Passphrase) -> Self {
        Self::passphrase_with_work(passphrase, WORK)
    }

    /// As [`Recipients::passphrase`] with scrypt's work factor as a power of two, 1 to 20: each step doubles the time
    /// and memory that a guess costs. 18 is usual.
    pub fn passphrase_with_work(passphrase: &Passphrase, log2: u8) -> Self {
        let mut recipient = scrypt::Recipient::new(passphrase.0.clone());
        recipient.set_work_factor(log2.clamp(1, MAX_WORK));
        Self { keys: vec![Box::new(recipient)], passphrase: true }
    }

    /// Adds a public key: `age1…`, or a line of `ssh-ed25519` or `ssh-rsa`.
    ///
    /// # Errors
    /// `InvalidOptions` if it is none, a secret key included, or there is a passphrase.
    pub fn add(&mut self, key: &str) -> Result<()> {
        if self.passphrase {
            return Err(Error::invalid_options("a file is for keys or for a passphrase, not for both"));
        }
        let key = key.trim();
        // What stands here may be a secret by mistake, so it is not shown.
        if let Ok(recipient) = key.parse::<x25519::Recipient>() {
            self.keys.push(Box::new(recipient));
        } else if key.starts_with("ssh-") || key.starts_with("ecdsa-") || key.starts_with("sk-") {
            let recipient: ssh::Recipient = key.parse().map_err(|_| {
                Error::invalid_options("this is no SSH key that a file can be encrypted to")
                    .with_hint("ssh-ed25519 keys and ssh-rsa keys of 2048 to 4096 bits are supported")
            })?;
            self.keys.push(Box::new(recipient));
        } else if key.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(Error::invalid_options("this is a secret key, and a recipient is a public one")
                .with_hint("take the `age1…` that stands in a comment above it; and make a new key if others saw this one"));
        } else {
            return Err(Error::invalid_options("this is no public key: neither age1… nor ssh-…"));
        }
        Ok(())
    }

    /// Adds the public keys of a file, one a line; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// As [`Recipients::add`], with the line; `InvalidOptions` if there is none; what reading the file says.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let text = read_secret(path)?;
        let before = self.keys.len();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            self.add(line).map_err(|e| {
                Error::invalid_options(format!("line {}: {}", i + 1, e.message())).with_path(path)
            })?;
        }
        if self.keys.len() == before {
            return Err(Error::invalid_options("there is no public key in this file").with_path(path));
        }
        Ok(())
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Makes a file's key for all of them: the header with the nonce behind it, and what seals the chunks.
    pub(super) fn begin(&self) -> Result<(Vec<u8>, Payload)> {
        if self.keys.is_empty() {
            return Err(Error::invalid_options("nobody is named who may read the file")
                .with_hint("give a recipient (`-r age1…`, `-R FILE`) or a passphrase"));
        }
        let file_key = Remembered::default();
        let keys: Vec<_> = self.keys.iter().map(|k| Overhearing::new(&**k, &file_key)).collect();
        let encryptor = age::Encryptor::with_recipients(keys.iter().map(|k| k as &dyn age::Recipient))
            .map_err(|_| Error::invalid_options("a file cannot be encrypted to these keys together"))?;
        let mut head = Vec::new();
        encryptor.wrap_output(&mut head).map_err(|e| Error::io("preparing the header", e))?;
        let nonce = head.last_chunk().ok_or_else(|| Error::invalid_options("the header has no nonce"))?;
        let payload = file_key.payload(nonce);
        let payload = payload.ok_or_else(|| Error::invalid_options("the file has no key"))?;
        Ok((head, payload))
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({} keys, passphrase: {})", self.keys.len(), self.passphrase)
    }
}

/// What opens encrypted files: secret keys and passphrases. No message and no `Debug` shows them.
#[derive(Default)]
pub struct Identities {
    keys: Vec<Box<dyn age::Identity + Send + Sync>>,
    notes: Vec<Note>,
}

impl Identities {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a passphrase.
    pub fn add_passphrase(&mut self, passphrase: &Passphrase) {
        let mut identity = scrypt::Identity::new(passphrase.0.clone());
        identity.set_max_work_factor(MAX_WORK);
        self.keys.push(Box::new(identity));
    }

    /// Adds the keys of a file: age identities, one a line; a private SSH key (Ed25519, RSA); or an identity file that
    /// is itself encrypted with a passphrase. Where a passphrase is needed `ask` is called.
    ///
    /// # Errors
    /// What reading the file and `ask` say; `InvalidOptions` where there is no key in it, or the passphrase is wrong;
    /// `Unsupported` for SSH keys of other kinds. No message has a part of the file in it.
    pub fn add_file(&mut self, path: &Path, ask: &mut dyn FnMut(&Path) -> Result<Passphrase>) -> Result<()> {
        self.notes.extend(exposed(path));
        let bytes = read_bytes(path)?;
        self.add_bytes(&bytes, path, ask).map_err(|e| e.with_path(path))
    }

    fn add_bytes(
        &mut self,
        bytes: &[u8],
        path: &Path,
        ask: &mut dyn FnMut(&Path) -> Result<Passphrase>,
    ) -> Result<()> {
        if super::container::begins_age(bytes) {
            let mut locks = Self::new();
            locks.add_passphrase(&ask(path)?);
            let sealed = Source::from_bytes(bytes);
            let reader = super::reader::Reader::open(sealed.reader().clone(), locks)?;
            let inner = Zeroizing::new(weighbridge_formats::Data::lazy(reader).read_all()?);
            let inner = std::str::from_utf8(&inner)
                .map_err(|_| Error::invalid_options("what is encrypted here is no identity file"))?;
            return self.add_lines(inner);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::invalid_options("this file is no text, and keys are"))?;
        if text.trim_start().starts_with("-----BEGIN") {
            return self.add_ssh(text, path, ask);
        }
        self.add_lines(text)
    }

    fn add_lines(&mut self, text: &str) -> Result<()> {
        let before = self.keys.len();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity: x25519::Identity = line.parse().map_err(|_| {
                Error::invalid_options(format!("line {} is no secret key of age", i + 1))
                    .with_hint("an identity file has lines `AGE-SECRET-KEY-1…`, as `weighbridge encrypt --generate-identity` writes")
            })?;
            self.keys.push(Box::new(identity));
        }
        if self.keys.len() == before {
            return Err(Error::invalid_options("there is no secret key in this file"));
        }
        Ok(())
    }

    fn add_ssh(
        &mut self,
        text: &str,
        path: &Path,
        ask: &mut dyn FnMut(&Path) -> Result<Passphrase>,
    ) -> Result<()> {
        let identity = ssh::Identity::from_buffer(text.as_bytes(), None)
            .map_err(|_| Error::invalid_options("this is no private SSH key that can be read"))?;
        let identity = match identity {
            ssh::Identity::Unencrypted(_) => identity,
            ssh::Identity::Encrypted(key) => {
                let passphrase = ask(path)?;
                let open = key.decrypt(passphrase.0);
                open.map_err(|_| Error::invalid_options("the passphrase does not open this SSH key"))?.into()
            }
            ssh::Identity::Unsupported(_) => {
                return Err(Error::unsupported("age does not use SSH keys of this kind")
                    .with_hint("Ed25519 and RSA keys are supported"));
            }
        };
        self.keys.push(Box::new(identity));
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is to be said of the files that the keys came from: that others can read one.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|k| &**k as &dyn age::Identity)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({} keys)", self.keys.len())
    }
}

/// Makes a new secret key in a file that only its owner reads (mode 0600), in the form of `age-keygen`; returns the
/// public key.
///
/// # Errors
/// `InvalidOptions` if the file exists: a key is never replaced; what the system says.
pub fn generate_identity(path: &Path) -> Result<String> {
    let identity = x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let secret = identity.to_string();
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str("# public key: ");
    text.push_str(&public);
    text.push('\n');
    text.push_str(secret.expose_secret());
    text.push('\n');
    crate::keyfile::write_new(path, text.as_bytes())?;
    Ok(public)
}

/// A file of keys as text that is zeroed.
fn read_secret(path: &Path) -> Result<Zeroizing<String>> {
    let bytes = read_bytes(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Error::invalid_options("this file is no text, and keys are").with_path(path))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A file of keys as bytes that are zeroed.
fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let source = Source::open(path)?;
    if source.len() > KEY_BYTES {
        let what = format!("the file has {} bytes, and files of keys have at most {KEY_BYTES}", source.len());
        return Err(Error::limit(what).with_path(path));
    }
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(source.len()).unwrap_or(0)]);
    source.reader().read_at(0, &mut bytes).map_err(|e| e.with_path(path))?;
    Ok(bytes)
}

/// A warning for a file with a secret in it that others can read.
pub fn exposed(path: &Path) -> Option<Note> {
    mode_note(path)
}

#[cfg(unix)]
fn mode_note(path: &Path) -> Option<Note> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let path = path.display();
        Note::warning(format!("{path} holds a secret, and others may read it (mode {mode:03o}): `chmod 600`"))
    })
}

#[cfg(not(unix))]
fn mode_note(_: &Path) -> Option<Note> {
    None
}
