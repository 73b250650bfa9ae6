//! Signatures of models, in the form of OpenSSF model signing: what `model-signing` 1.x signs is verified here, and what
//! is signed here it verifies.
//!
//! [`sign`] hashes the files of a model and signs the list of names and digests; [`fn@verify`] checks the signature first,
//! then every file. The signature is a Sigstore bundle (v0.3) with a DSSE envelope. Keys are EC keys on P-256, P-384 and
//! P-521, and Ed25519, which `model-signing` 1.1.1 does not read; a key can stand for itself or come with certificates.
//! Keyless signatures need the network and are refused by name.

mod bundle;
mod certificate;
mod chain;
mod compare;
mod digest;
mod key;
mod pem;
mod rsa;
mod secret;
mod signing;
mod statement;
mod tree;
mod verifying;

pub use bundle::MAX_BUNDLE;
pub use certificate::Certificate;
pub use chain::Roots;
pub use compare::{Change, Difference};
pub use key::{KeyKind, PrivateKey, PublicKey};
pub use secret::Password;
pub use signing::{SignOptions, Signed, Signer, sign, sign_payload};
pub use statement::HashType;
pub use verifying::{SignedBy, Trust, Verification, VerifyOptions, verify, verify_file};

use std::path::Path;

use weighbridge_formats::Error;

/// Bytes in lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Text out of a file, cut short for a message.
fn brief(text: &str) -> String {
    let mut out: String = text.chars().take(120).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

/// What is wrong with JSON, without more than a glimpse of it.
fn bad_json(what: &str, error: &serde_json::Error) -> Error {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text: String = brief(&error.to_string()).chars().map(plain).collect();
    Error::malformed(format!("{what} has not the form it should have: {text}"))
}

/// The error for a file that another program changes under our eyes.
fn changed_meanwhile(path: &Path) -> Error {
    Error::mismatch("the file changed while it was looked at")
        .with_path(path)
        .with_hint("another program is writing it: wait until it is done")
}
