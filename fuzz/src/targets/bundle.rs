//! Signature bundles, statements, PEM and certificates; the first byte says which of them the others are.

use std::path::PathBuf;
use std::sync::LazyLock;

use weighbridge_trust::sign::{
    Certificate, KeyKind, PrivateKey, PublicKey, Roots, Signer, Trust, VerifyOptions, sign_payload, verify,
};

/// A model of two files, and a key of its own for each run.
static MODEL: LazyLock<(tempfile::TempDir, PathBuf, PrivateKey)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).expect("a folder");
    for name in ["a", "b"] {
        std::fs::write(model.join(name), name).expect("a file");
    }
    (dir, model, PrivateKey::generate(KeyKind::Ed25519))
});

/// The target.
pub fn run(bytes: &[u8]) {
    let (_, model, key) = &*MODEL;
    let Some((which, rest)) = bytes.split_first() else { return };
    let options = VerifyOptions::default();
    match which % 4 {
        0 => {
            let found = verify(model, rest, &Trust::Key(key.public()), &options);
            assert!(found.is_err(), "nobody has the key");
        }
        1 => {
            let bundle = sign_payload(rest, &Signer::Key(key)).expect("any statement can be signed");
            if let Ok(found) = verify(model, &bundle, &Trust::Key(key.public()), &options) {
                assert!(!found.holds() || found.files <= 2);
            }
        }
        2 => {
            if let Ok(key) = PublicKey::from_pem(rest) {
                let again = PublicKey::from_pem(key.to_pem().expect("a key has a PEM").as_bytes());
                assert_eq!(again.expect("what was written is read"), key);
            }
            if let Ok(key) = PrivateKey::from_pem(rest, None) {
                let again = PrivateKey::from_pem(key.to_pem(None).expect("a key has a PEM").as_bytes(), None);
                assert_eq!(again.expect("what was written is read").public(), key.public());
            }
            if let Ok(roots) = Certificate::all_from_pem(rest).and_then(Roots::new) {
                let found = verify(model, rest, &Trust::Roots(roots), &options);
                assert!(found.is_err(), "PEM is no bundle");
            }
        }
        _ => {
            let Ok(certificate) = Certificate::from_der(rest) else { return };
            let _ = (certificate.subject(), certificate.validity_text(), certificate.public_key().is_ok());
            let Ok(roots) = Roots::new(vec![certificate.clone()]) else { return };
            let signer = Signer::Certificate { key, certificate: &certificate, chain: &[] };
            assert!(sign_payload(b"{}", &signer).is_err(), "nobody has the key");
            drop(roots);
        }
    }
}
