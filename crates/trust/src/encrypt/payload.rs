//! The payload of an age file: chunks that are sealed each by itself, so that any thread seals or opens any of them.
//!
//! The file's key and the nonce behind the header give the payload's key, by HKDF. Each chunk is sealed by
//! ChaCha20-Poly1305 under its number and, in the last byte of the nonce, whether it is the last. Source: the specification
//! of age, section "Payload" (C2SP, age.md).

use chacha20poly1305::aead::KeyInit as _;
use chacha20poly1305::{AeadInPlace as _, ChaCha20Poly1305, Key, Nonce, Tag};
use zeroize::Zeroizing;

use super::{CHUNK, TAG};

/// The bytes of the nonce between the header and the chunks.
pub(super) const NONCE: usize = 16;

/// What seals and opens the chunks of one file; its key is zeroed when it goes.
pub(super) struct Payload(ChaCha20Poly1305);

impl Payload {
    /// Of a file's key and the nonce behind its header.
    pub(super) fn new(file_key: &[u8; 16], nonce: &[u8; NONCE]) -> Self {
        let key = Zeroizing::new(age_core::primitives::hkdf(nonce, b"payload", file_key));
        Self(ChaCha20Poly1305::new(Key::from_slice(&*key)))
    }

    /// Seals a chunk in its place; returns its tag. `None` if it is too long, which no chunk is.
    pub(super) fn seal(&self, chunk: u64, last: bool, bytes: &mut [u8]) -> Option<[u8; TAG as usize]> {
        self.0.encrypt_in_place_detached(&nonce(chunk, last), b"", bytes).ok().map(Into::into)
    }

    /// Opens a chunk in its place. Unless this returns true, the bytes are still sealed: the tag is checked first.
    #[must_use]
    pub(super) fn open(&self, chunk: u64, last: bool, bytes: &mut [u8], tag: &[u8; TAG as usize]) -> bool {
        self.0.decrypt_in_place_detached(&nonce(chunk, last), b"", bytes, Tag::from_slice(tag)).is_ok()
    }
}

/// Eleven bytes of the chunk's number, the highest first, and one that marks the last.
fn nonce(chunk: u64, last: bool) -> Nonce {
    let mut out = [0; 12];
    out[3..11].copy_from_slice(&chunk.to_be_bytes());
    out[11] = u8::from(last);
    out.into()
}

/// How many chunks hold so many bytes: one at least, which is empty where there are none.
pub(super) fn chunks_of(len: u64) -> u64 {
    len.div_ceil(CHUNK).max(1)
}

/// The bytes of a chunk, of `len` in all.
pub(super) fn len_of(chunk: u64, len: u64) -> usize {
    len.saturating_sub(chunk.saturating_mul(CHUNK)).min(CHUNK) as usize
}
