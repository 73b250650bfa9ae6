//! Encryption: models as age files, whole, and of which one tensor can be read without the rest.
//!
//! A file becomes an age file of its bytes. A folder becomes an age file of a tar, so that names, shapes, configs and
//! tokenizer are inside with the weights; `age -d model.age | tar x` gives the folder back. [`encrypt`] and [`decrypt`]
//! write files; [`Encrypted`] reads one in place, at any offset, from any thread.
//!
//! age's payload is cut in chunks of 64 KiB, each sealed under its number, and the last one under a mark. So a bit that
//! was changed, and chunks that were moved or left out, are found before a byte of that chunk is used, and a file that
//! was cut short is found when it is opened. Headers, keys and recipients are the crate `age`'s; the chunks are sealed and
//! opened here, by as many threads as there are, with the cipher that age takes.
//!
//! What age promises is secrecy, and that a file is whole. It does not say who wrote it: whoever knows a public key can
//! make a file for it. Signatures are for that, and what comes out of a container is no more trusted than any file.

mod armor;
mod container;
mod key;
mod keys;
mod payload;
mod reader;
mod run;
mod seal;
mod tar;
#[cfg(test)]
mod tests;

pub use container::{Encrypted, is_encrypted, is_for_passphrase};
pub use keys::{Identities, Passphrase, Recipients, exposed, generate_identity};
pub use run::{DecryptOptions, Decrypted, EncryptOptions, decrypt, encrypt};

/// The bytes of plaintext in a chunk of age's payload.
const CHUNK: u64 = 64 << 10;
/// The bytes that sealing adds to a chunk.
const TAG: u64 = 16;
/// The longest header of an age file that is read or written: some hundred recipients. It is parsed anew for every line.
const HEADER_BYTES: usize = 64 << 10;
/// The most lines of such a header.
const HEADER_LINES: usize = 2048;

/// A file that no key opens, by what the crate says of it, in words that name no key.
fn refused(error: &age::DecryptError) -> weighbridge_formats::Error {
    use age::DecryptError as E;
    use weighbridge_formats::Error;
    match error {
        E::NoMatchingKeys => Error::invalid_options("none of the given keys opens this file")
            .with_hint("give the identity (`-i`) of one of its recipients, or the passphrase"),
        E::DecryptionFailed | E::KeyDecryptionFailed => {
            Error::invalid_options("the passphrase or key does not open this file")
                .with_hint("it is another passphrase, or the file's header was changed")
        }
        E::ExcessiveWork { required, target } => {
            let what = format!(
                "the passphrase's work factor is 2^{required}, which would take {} MiB of memory",
                1u64.checked_shl(u32::from(*required)).unwrap_or(u64::MAX) >> 10
            );
            let _ = target;
            Error::limit(what).with_hint("files that age writes have 2^18; do not trust this one")
        }
        E::InvalidHeader => Error::malformed("the header of this age file is broken"),
        E::InvalidMac => Error::mismatch("the header of this age file was changed: its MAC does not agree"),
        E::UnknownFormat => Error::unsupported("this is an age file of another version than 1"),
        E::Io(e) => Error::malformed(format!("the header of this age file cannot be read: {e}")),
        _ => Error::invalid_options("this file cannot be decrypted with the given keys"),
    }
}
