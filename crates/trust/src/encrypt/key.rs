//! The key of one file: unwrapped once, so that several readers of a file cost one scrypt, and remembered while a new file
//! is encrypted, so that several threads seal it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use age::DecryptError;
use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use zeroize::Zeroizing;

use super::Identities;
use super::payload::{NONCE, Payload};

/// An identity that remembers the key which the first of the real ones unwrapped. For one file only.
pub(super) struct Remembering<'a> {
    identities: &'a Identities,
    key: &'a Remembered,
}

/// A file's key, once it is known; zeroed when it goes.
#[derive(Default)]
pub(super) struct Remembered(Mutex<Option<Zeroizing<[u8; 16]>>>);

impl Remembered {
    /// The identity to open the file with, the first time by real ones.
    pub(super) fn with<'a>(&'a self, identities: &'a Identities) -> Remembering<'a> {
        Remembering { identities, key: self }
    }

    /// What seals or opens the chunks behind a nonce, if the key is known.
    pub(super) fn payload(&self, nonce: &[u8; NONCE]) -> Option<Payload> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|key| Payload::new(key, nonce))
    }

    fn keep(&self, key: &FileKey) {
        let mut kept = Zeroizing::new([0; 16]);
        kept.copy_from_slice(key.expose_secret());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    fn known(&self) -> Option<FileKey> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|key| FileKey::init_with_mut(|to| to.copy_from_slice(&**key)))
    }
}

impl age::Identity for Remembering<'_> {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        None
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        if let Some(key) = self.key.known() {
            return Some(Ok(key));
        }
        // A broken stanza of one kind says nothing of a key of another kind, so the other keys are tried first.
        let mut failed = None;
        for identity in self.identities.iter() {
            match identity.unwrap_stanzas(stanzas) {
                Some(Ok(key)) => {
                    self.key.keep(&key);
                    return Some(Ok(key));
                }
                Some(Err(e)) => failed = failed.or(Some(e)),
                None => {}
            }
        }
        failed.map(Err)
    }
}

/// A recipient that remembers the key which is wrapped for it.
pub(super) struct Overhearing<'a> {
    recipient: &'a dyn age::Recipient,
    key: &'a Remembered,
}

impl<'a> Overhearing<'a> {
    pub(super) fn new(recipient: &'a dyn age::Recipient, key: &'a Remembered) -> Self {
        Self { recipient, key }
    }
}

impl age::Recipient for Overhearing<'_> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        self.key.keep(key);
        self.recipient.wrap_file_key(key)
    }
}
