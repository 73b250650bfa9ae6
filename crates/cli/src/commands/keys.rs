//! The options that open encrypted files, which every command that reads has in the same form.
//!
//! No option takes a secret itself, since others can see the arguments of a process: keys come out of files, and
//! passphrases out of files, the environment, or a terminal.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use weighbridge::trust::encrypt::{
    Encrypted, Identities, Passphrase, exposed, is_encrypted, is_for_passphrase,
};
use weighbridge::{Archive, Error, Note, Result};

use crate::{limits, output};

/// The variable that holds the passphrase of encrypted files.
pub(crate) const PASSPHRASE: &str = "WEIGHBRIDGE_PASSPHRASE";
/// The variable that holds the passphrase of keys.
const KEY_PASSPHRASE: &str = "WEIGHBRIDGE_IDENTITY_PASSPHRASE";

#[derive(clap::Args)]
pub(crate) struct Keys {
    /// A file of secret keys that opens encrypted files: age's identities, or a private SSH key
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// The passphrase of encrypted files is the first line of this one; else WEIGHBRIDGE_PASSPHRASE holds it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The passphrase of the keys is the first line of this file; else WEIGHBRIDGE_IDENTITY_PASSPHRASE holds it
    #[arg(long, value_name = "FILE")]
    identity_passphrase_file: Option<PathBuf>,
}

impl Keys {
    /// Opens a model, which may be encrypted.
    pub(crate) fn open(&self, path: &Path) -> Result<Box<dyn Archive>> {
        if !self.apply_to(path) {
            return limits::open(path);
        }
        self.encrypted(path)?.archive(&weighbridge::registry(), &limits::read_options())
    }

    /// Whether a path is an encrypted file. What is wrong with it is said by whoever opens it.
    pub(crate) fn apply_to(&self, path: &Path) -> bool {
        is_encrypted(path).unwrap_or(false)
    }

    /// Opens an encrypted file.
    pub(crate) fn encrypted(&self, path: &Path) -> Result<Encrypted> {
        Encrypted::open(path, &self.identities(path)?)
    }

    /// What the options and the environment give, without a question; `None` where they give nothing.
    pub(crate) fn given(&self) -> Result<Option<Identities>> {
        let (identities, notes, _) = self.known()?;
        warn(&notes);
        Ok(Some(identities).filter(|i| !i.is_empty()))
    }

    /// The same with what is to be said of the files, and whether a passphrase is among it.
    fn known(&self) -> Result<(Identities, Vec<Note>, bool)> {
        let mut identities = Identities::new();
        for file in &self.identity {
            identities.add_file(file, &mut |key| self.key_passphrase(key))?;
        }
        let mut notes = identities.notes().to_vec();
        let passphrase = match &self.passphrase_file {
            Some(file) => {
                notes.extend(exposed(file));
                Some(Passphrase::from_file(file)?)
            }
            None => Passphrase::from_env(PASSPHRASE)?,
        };
        if let Some(passphrase) = &passphrase {
            identities.add_passphrase(passphrase);
        }
        Ok((identities, notes, passphrase.is_some()))
    }

    /// The keys to open a file with; asks at a terminal for a passphrase where nothing else gives it.
    pub(crate) fn identities(&self, path: &Path) -> Result<Identities> {
        let (mut identities, notes, passphrase) = self.known()?;
        if !passphrase && is_for_passphrase(path)? && std::io::stdin().is_terminal() {
            identities.add_passphrase(&ask(&format!("passphrase of {}", path.display()))?);
        }
        warn(&notes);
        if identities.is_empty() {
            return Err(Error::invalid_options("the file is encrypted, and nothing is given that opens it")
                .with_path(path)
                .with_hint(format!(
                    "give a file of keys (`-i KEY`), or a passphrase (`--passphrase-file FILE`, {PASSPHRASE})"
                )));
        }
        Ok(identities)
    }

    fn key_passphrase(&self, key: &Path) -> Result<Passphrase> {
        if let Some(file) = &self.identity_passphrase_file {
            warn(&exposed(file).into_iter().collect::<Vec<_>>());
            return Passphrase::from_file(file);
        }
        if let Some(passphrase) = Passphrase::from_env(KEY_PASSPHRASE)? {
            return Ok(passphrase);
        }
        if std::io::stdin().is_terminal() {
            return ask(&format!("passphrase of the key {}", key.display()));
        }
        Err(Error::invalid_options("the key is encrypted, and its passphrase is not given").with_hint(
            format!("give it in a file (`--identity-passphrase-file FILE`) or in {KEY_PASSPHRASE}"),
        ))
    }
}

/// Asks at the terminal, without showing what is typed.
pub(crate) fn ask(what: &str) -> Result<Passphrase> {
    let text = rpassword::prompt_password(format!("{}: ", output::one_line(what)));
    Passphrase::new(text.map_err(|e| Error::io("reading the passphrase from the terminal", e))?)
}

/// Warnings go to standard error, also where the output is for a program.
pub(crate) fn warn(notes: &[Note]) {
    let mut out = String::new();
    output::push_notes(&mut out, notes);
    eprint!("{out}");
}

/// Reads permissions in octal, as `chmod` takes them.
pub(crate) fn parse_mode(text: &str) -> std::result::Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && text.len() <= 4 => Ok(mode),
        _ => Err("permissions in octal are wanted: 600 is the owner's alone, 644 lets all read".into()),
    }
}
