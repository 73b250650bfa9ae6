//! The key of one file, unwrapped once: several readers of a file cost one scrypt.

use std::sync::{Mutex, PoisonError};

use age::DecryptError;
use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use zeroize::Zeroizing;

use super::Identities;

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
                    let mut kept = Zeroizing::new([0; 16]);
                    kept.copy_from_slice(key.expose_secret());
                    *self.key.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                    return Some(Ok(key));
                }
                Some(Err(e)) => failed = failed.or(Some(e)),
                None => {}
            }
        }
        failed.map(Err)
    }
}
