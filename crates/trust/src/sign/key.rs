//! Keys: private ones that sign and public ones that verify, on the curves that model signing knows.
//!
//! ECDSA on P-256 hashes with SHA-256, on P-384 with SHA-384, on P-521 with SHA-512, and a signature is the DER of
//! both numbers, either of the two values of `s`. Ed25519 signs the message itself.

use std::fmt;
use std::path::Path;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::elliptic_curve::rand_core::OsRng;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use pkcs8::der::Decode;
use pkcs8::der::asn1::ObjectIdentifier;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::spki::SubjectPublicKeyInfoRef;
use pkcs8::{
    DecodePrivateKey, EncodePrivateKey, EncodePublicKey, EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo,
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use weighbridge_formats::{Error, Result};
use zeroize::Zeroizing;

use super::pem::{self, Block};
use super::secret::{KEY_FILE, Password, read_bounded};

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
pub(super) const KEY_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// What deriving a key from a password may cost: rounds of PBKDF2, and bytes of memory of scrypt. OpenSSL writes
/// 2,048 rounds or 16 MiB.
const ROUNDS: u32 = 4_000_000;
const MEMORY: u64 = 256 << 20;

/// Which kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on NIST P-256 with SHA-256.
    P256,
    /// ECDSA on NIST P-384 with SHA-384.
    P384,
    /// ECDSA on NIST P-521 with SHA-512.
    P521,
    /// Ed25519. The format has a name for it, and `model-signing` 1.1.1 refuses it.
    Ed25519,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::P521, Self::Ed25519];

    /// The name: `p256`, `p384`, `p521` or `ed25519`.
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Ed25519 => "ed25519",
        }
    }
}

enum Secret {
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
    Ed25519(ed25519_dalek::SigningKey),
}

/// A private key. Its memory is overwritten when it is dropped, and `Debug` shows its kind only.
pub struct PrivateKey(Box<Secret>);

impl PrivateKey {
    /// A new key from the operating system's random numbers.
    pub fn generate(kind: KeyKind) -> Self {
        let secret = match kind {
            KeyKind::P256 => Secret::P256(p256::SecretKey::random(&mut OsRng)),
            KeyKind::P384 => Secret::P384(p384::SecretKey::random(&mut OsRng)),
            KeyKind::P521 => Secret::P521(p521::SecretKey::random(&mut OsRng)),
            KeyKind::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                p256::elliptic_curve::rand_core::RngCore::fill_bytes(&mut OsRng, &mut *seed);
                Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))
            }
        };
        Self(Box::new(secret))
    }

    /// Reads a PEM file: `EC PRIVATE KEY` (SEC 1), `PRIVATE KEY` (PKCS#8), or `ENCRYPTED PRIVATE KEY` with its password.
    ///
    /// # Errors
    /// `Io` and `NotFound` as the system says; `InvalidOptions` where the password is missing, wrong or not needed, or
    /// the file has no private key; `Unsupported` for other kinds of key; `Malformed`, `LimitExceeded`.
    pub fn from_file(path: &Path, password: Option<&Password>) -> Result<Self> {
        let text = read_bounded(path, KEY_FILE, "private key")?;
        Self::from_pem(&text, password).map_err(|e| e.with_path(path))
    }

    /// As [`PrivateKey::from_file`], from the text.
    ///
    /// # Errors
    /// As there.
    pub fn from_pem(text: &[u8], password: Option<&Password>) -> Result<Self> {
        let blocks = pem::blocks(text)?;
        let mut keys = blocks.iter().filter(|b| b.label.ends_with("PRIVATE KEY"));
        let Some(block) = keys.next() else {
            let labels: Vec<&str> = blocks.iter().map(|b| b.label.as_str()).collect();
            let found = if labels.is_empty() { "nothing in PEM".into() } else { labels.join(", ") };
            return Err(Error::invalid_options(format!("a private key is wanted, and the file has {found}"))
                .with_hint(
                    "make one with `weighbridge sign --generate-key key.pem`, or openssl: docs/signing.md",
                ));
        };
        if keys.next().is_some() {
            return Err(Error::invalid_options("the file has more than one private key"));
        }
        let encrypted = block.label == "ENCRYPTED PRIVATE KEY";
        match password {
            None if encrypted => {
                return Err(Error::invalid_options("the private key is encrypted, and there is no password")
                    .with_hint("give --password-file, or the variable WEIGHBRIDGE_KEY_PASSWORD"));
            }
            Some(password) if !encrypted && !password.in_case => {
                return Err(Error::invalid_options(
                    "a password is given, and the private key is not encrypted",
                ));
            }
            _ => {}
        }
        let secret = match block.label.as_str() {
            "PRIVATE KEY" => from_pkcs8(&block.der)?,
            "EC PRIVATE KEY" => from_sec1(&block.der)?,
            "ENCRYPTED PRIVATE KEY" => decrypt(block, password)?,
            other => return Err(Error::unsupported(format!("a private key as {other:?}")).with_hint(KINDS)),
        };
        Ok(Self(Box::new(secret)))
    }

    /// The key as PKCS#8 in PEM; with a password encrypted by scrypt and AES-256, which OpenSSL reads.
    ///
    /// # Errors
    /// `Unsupported` should the encoding fail.
    pub fn to_pem(&self, password: Option<&Password>) -> Result<Zeroizing<String>> {
        let fail = |_| Error::unsupported("the key cannot be encoded");
        match password {
            None => self.pkcs8()?.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| fail(())),
            Some(password) => {
                let der = self.pkcs8()?;
                let info = PrivateKeyInfo::try_from(der.as_bytes()).map_err(|_| fail(()))?;
                let der = info.encrypt(OsRng, password.as_bytes()).map_err(|_| fail(()))?;
                der.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|_| fail(()))
            }
        }
    }

    fn pkcs8(&self) -> Result<pkcs8::SecretDocument> {
        let der = match &*self.0 {
            Secret::P256(k) => k.to_pkcs8_der(),
            Secret::P384(k) => k.to_pkcs8_der(),
            Secret::P521(k) => k.to_pkcs8_der(),
            // The seed alone: OpenSSL and cryptography do not read the form that carries the public key.
            Secret::Ed25519(k) => {
                ed25519_dalek::pkcs8::KeypairBytes { secret_key: k.to_bytes(), public_key: None }
                    .to_pkcs8_der()
            }
        };
        der.map_err(|_| Error::unsupported("the key cannot be encoded"))
    }

    /// Writes the key into a new file that nobody but its owner can read (mode 0600).
    ///
    /// # Errors
    /// `InvalidOptions` if there is a file of that name already; `Io` as the system says.
    pub fn write_new(&self, path: &Path, password: Option<&Password>) -> Result<()> {
        let text = self.to_pem(password)?;
        crate::keyfile::write_new(path, text.as_bytes())
    }

    /// Which kind of key.
    pub fn kind(&self) -> KeyKind {
        match &*self.0 {
            Secret::P256(_) => KeyKind::P256,
            Secret::P384(_) => KeyKind::P384,
            Secret::P521(_) => KeyKind::P521,
            Secret::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &*self.0 {
            Secret::P256(k) => Point::P256(k.public_key()),
            Secret::P384(k) => Point::P384(k.public_key()),
            Secret::P521(k) => Point::P521(k.public_key()),
            Secret::Ed25519(k) => Point::Ed25519(k.verifying_key()),
        })
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let fail = |_| Error::unsupported("the key cannot sign");
        match &*self.0 {
            Secret::P256(k) => {
                let key = p256::ecdsa::SigningKey::from(k);
                let signature: p256::ecdsa::Signature =
                    key.sign_prehash(&Sha256::digest(message)).map_err(fail)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Secret::P384(k) => {
                let key = p384::ecdsa::SigningKey::from(k);
                let signature: p384::ecdsa::Signature =
                    key.sign_prehash(&Sha384::digest(message)).map_err(fail)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Secret::P521(k) => {
                let key = p521::ecdsa::SigningKey::from_bytes(&Zeroizing::new(k.to_bytes())).map_err(fail)?;
                let signature: p521::ecdsa::Signature =
                    key.sign_prehash(&Sha512::digest(message)).map_err(fail)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Secret::Ed25519(k) => Ok(k.try_sign(message).map_err(fail)?.to_bytes().to_vec()),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, …)", self.kind().name())
    }
}

const KINDS: &str =
    "keys on P-256, P-384 or P-521, and Ed25519, can sign; docs/signing.md shows how to make one";

fn decrypt(block: &Block, password: Option<&Password>) -> Result<Secret> {
    let info = EncryptedPrivateKeyInfo::from_der(&block.der)
        .map_err(|_| Error::malformed("the encrypted private key is no PKCS#8"))?;
    let EncryptionScheme::Pbes2(scheme) = &info.encryption_algorithm else {
        return Err(Error::unsupported("a private key encrypted by PBES1")
            .with_hint("encrypt it anew: `openssl pkcs8 -topk8 -v2 aes256 -in old.pem -out key.pem`"));
    };
    let bounded = match &scheme.kdf {
        Kdf::Pbkdf2(k) => k.iteration_count <= ROUNDS,
        Kdf::Scrypt(k) => {
            let memory =
                k.cost_parameter.checked_mul(u64::from(k.block_size)).and_then(|x| x.checked_mul(128));
            memory.is_some_and(|m| m <= MEMORY) && k.parallelization <= 16
        }
        _ => false,
    };
    if !bounded {
        return Err(Error::limit(
            "deriving the key from the password would cost too much, by the file's numbers",
        ));
    }
    let bytes = password.map(Password::as_bytes).unwrap_or_default();
    // A wrong password and a damaged file look alike: both give a wrong padding, or DER that is none.
    let der = info.decrypt(bytes).map_err(|_| wrong_password())?;
    from_pkcs8(der.as_bytes()).map_err(|e| match e.kind() {
        weighbridge_formats::ErrorKind::Malformed => wrong_password(),
        _ => e,
    })
}

fn wrong_password() -> Error {
    Error::invalid_options(
        "the password does not open the private key, or its encryption is one that is not known",
    )
    .with_hint("AES in CBC mode after PBKDF2 or scrypt is: `openssl pkcs8 -topk8 -v2 aes256`")
}

fn from_pkcs8(der: &[u8]) -> Result<Secret> {
    let broken = || Error::malformed("the private key is no PKCS#8, or its numbers are out of range");
    let info = PrivateKeyInfo::from_der(der).map_err(|_| broken())?;
    let algorithm = info.algorithm.oid;
    if algorithm == ED25519 {
        return ed25519_dalek::SigningKey::from_pkcs8_der(der).map(Secret::Ed25519).map_err(|_| broken());
    }
    match curve(algorithm, info.algorithm.parameters_oid().ok())? {
        KeyKind::P256 => p256::SecretKey::from_pkcs8_der(der).map(Secret::P256).map_err(|_| broken()),
        KeyKind::P384 => p384::SecretKey::from_pkcs8_der(der).map(Secret::P384).map_err(|_| broken()),
        KeyKind::P521 => p521::SecretKey::from_pkcs8_der(der).map(Secret::P521).map_err(|_| broken()),
        KeyKind::Ed25519 => Err(broken()),
    }
}

/// The curve of a key by its algorithm and parameters, with words for those that cannot be used.
fn curve(algorithm: ObjectIdentifier, parameters: Option<ObjectIdentifier>) -> Result<KeyKind> {
    match (algorithm, parameters) {
        (EC, Some(P256)) => Ok(KeyKind::P256),
        (EC, Some(P384)) => Ok(KeyKind::P384),
        (EC, Some(P521)) => Ok(KeyKind::P521),
        (EC, Some(other)) => Err(Error::unsupported(format!("a key on the curve {other}")).with_hint(KINDS)),
        (EC, None) => {
            Err(Error::unsupported("a key whose curve is given by numbers or not at all").with_hint(KINDS))
        }
        (KEY_RSA, _) => {
            Err(Error::unsupported("an RSA key, which model signing does not sign with").with_hint(KINDS))
        }
        (other, _) => Err(Error::unsupported(format!("a key of the algorithm {other}")).with_hint(KINDS)),
    }
}

fn from_sec1(der: &[u8]) -> Result<Secret> {
    let broken =
        || Error::malformed("the private key is no SEC 1 structure, or its numbers are out of range");
    let key = sec1::EcPrivateKey::from_der(der).map_err(|_| broken())?;
    let named = key.parameters.and_then(|p| p.named_curve());
    match curve(EC, named)? {
        KeyKind::P256 => p256::SecretKey::from_sec1_der(der).map(Secret::P256).map_err(|_| broken()),
        KeyKind::P384 => p384::SecretKey::from_sec1_der(der).map(Secret::P384).map_err(|_| broken()),
        KeyKind::P521 => p521::SecretKey::from_sec1_der(der).map(Secret::P521).map_err(|_| broken()),
        KeyKind::Ed25519 => Err(broken()),
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Point {
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    P521(p521::PublicKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Point);

/// The hash that an ECDSA signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

impl PublicKey {
    /// Reads a PEM file with a `PUBLIC KEY` (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// `Io` and `NotFound` as the system says; `InvalidOptions` if there is no public key or more than one;
    /// `Unsupported` for other kinds of key; `Malformed`, also for points that are not on their curve or of low order.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = read_bounded(path, KEY_FILE, "public key")?;
        Self::from_pem(&text).map_err(|e| e.with_path(path))
    }

    /// As [`PublicKey::from_file`], from the text.
    ///
    /// # Errors
    /// As there.
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        let blocks = pem::blocks(text)?;
        let labels: Vec<&str> = blocks.iter().map(|b| b.label.as_str()).collect();
        match (labels.as_slice(), blocks.first()) {
            (["PUBLIC KEY"], Some(block)) => Self::from_spki(&block.der),
            (labels, _) => {
                let found = if labels.is_empty() { "nothing in PEM".into() } else { labels.join(", ") };
                let hint = if labels.iter().any(|l| l.ends_with("PRIVATE KEY")) {
                    "write the public half: `openssl pkey -in key.pem -pubout -out key.pub.pem`"
                } else if labels.contains(&"CERTIFICATE") {
                    "a certificate that is trusted is given by --certificate-roots"
                } else {
                    "one block `PUBLIC KEY` in PEM, as `openssl pkey -pubout` writes it"
                };
                Err(Error::invalid_options(format!("a public key is wanted, and the file has {found}"))
                    .with_hint(hint))
            }
        }
    }

    /// From the DER of a SubjectPublicKeyInfo.
    pub(super) fn from_spki(der: &[u8]) -> Result<Self> {
        let broken = |what: &'static str| Error::malformed(what);
        let info = SubjectPublicKeyInfoRef::from_der(der)
            .map_err(|_| broken("the public key is no SubjectPublicKeyInfo"))?;
        let algorithm = info.algorithm.oid;
        let off = |_| broken("the public key is no point of its curve");
        let point = if algorithm == ED25519 {
            let key = ed25519_dalek::VerifyingKey::try_from(info).map_err(off)?;
            if key.is_weak() {
                return Err(broken("the public key is a point of low order, which any signature would fit"));
            }
            Point::Ed25519(key)
        } else {
            match curve(algorithm, info.algorithm.parameters_oid().ok())? {
                KeyKind::P256 => Point::P256(p256::PublicKey::try_from(info).map_err(off)?),
                KeyKind::P384 => Point::P384(p384::PublicKey::try_from(info).map_err(off)?),
                KeyKind::P521 => Point::P521(p521::PublicKey::try_from(info).map_err(off)?),
                KeyKind::Ed25519 => return Err(broken("the public key is no point of its curve")),
            }
        };
        Ok(Self(point))
    }

    /// Which kind of key.
    pub fn kind(&self) -> KeyKind {
        match self.0 {
            Point::P256(_) => KeyKind::P256,
            Point::P384(_) => KeyKind::P384,
            Point::P521(_) => KeyKind::P521,
            Point::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// The key as SubjectPublicKeyInfo in PEM, with the point uncompressed and lines of 64 characters.
    ///
    /// # Errors
    /// `Unsupported` should the encoding fail.
    pub fn to_pem(&self) -> Result<String> {
        let text = match &self.0 {
            Point::P256(k) => k.to_public_key_pem(LineEnding::LF),
            Point::P384(k) => k.to_public_key_pem(LineEnding::LF),
            Point::P521(k) => k.to_public_key_pem(LineEnding::LF),
            Point::Ed25519(k) => k.to_public_key_pem(LineEnding::LF),
        };
        text.map_err(|_| Error::unsupported("the public key cannot be encoded"))
    }

    /// What a bundle calls the key by: SHA-256 of [`PublicKey::to_pem`], in hexadecimal.
    ///
    /// # Errors
    /// As [`PublicKey::to_pem`].
    pub fn hint(&self) -> Result<String> {
        Ok(super::hex(&Sha256::digest(self.to_pem()?)))
    }

    /// Whether `signature` is by this key over `message`, with the hash that goes with the curve.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Point::P256(_) => self.verify_ecdsa(Hash::Sha256, message, signature),
            Point::P384(_) => self.verify_ecdsa(Hash::Sha384, message, signature),
            Point::P521(_) => self.verify_ecdsa(Hash::Sha512, message, signature),
            Point::Ed25519(k) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| k.verify_strict(message, &signature).is_ok()),
        }
    }

    /// Whether `signature`, in DER, is by this key over `message` by ECDSA with the given hash, which certificates choose.
    pub(super) fn verify_ecdsa(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let digest = hash.digest(message);
        match &self.0 {
            Point::P256(k) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|s| p256::ecdsa::VerifyingKey::from(k).verify_prehash(&digest, &s).is_ok()),
            Point::P384(k) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|s| p384::ecdsa::VerifyingKey::from(k).verify_prehash(&digest, &s).is_ok()),
            Point::P521(k) => p521::ecdsa::Signature::from_der(signature).is_ok_and(|s| {
                p521::ecdsa::VerifyingKey::from_encoded_point(&k.to_encoded_point(false))
                    .is_ok_and(|k| k.verify_prehash(&digest, &s).is_ok())
            }),
            Point::Ed25519(_) => false,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.kind().name(), self.hint().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    #[test]
    fn keys_survive_their_files_and_stay_secret() {
        let dir = tempfile::tempdir().unwrap();
        let password = Password::new(*b"correct horse");
        for kind in KeyKind::ALL {
            let key = PrivateKey::generate(kind);
            assert_eq!(format!("{key:?}"), format!("PrivateKey({}, …)", kind.name()));
            let public = PublicKey::from_pem(key.public().to_pem().unwrap().as_bytes()).unwrap();
            assert_eq!((public.kind(), &public), (kind, &key.public()));
            for password in [None, Some(&password)] {
                let path = dir.path().join(format!("{}-{}", kind.name(), password.is_some()));
                key.write_new(&path, password).unwrap();
                #[cfg(unix)]
                {
                    use std::os::unix::fs::PermissionsExt;
                    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                }
                let again = PrivateKey::from_file(&path, password).unwrap();
                assert!(public.verify(b"message", &again.sign(b"message").unwrap()));
                let taken = key.write_new(&path, password).unwrap_err();
                assert_eq!(taken.kind(), ErrorKind::InvalidOptions);
            }
            let path = dir.path().join(format!("{}-true", kind.name()));
            for wrong in [None, Some(Password::new(*b"wrong"))] {
                let error = PrivateKey::from_file(&path, wrong.as_ref()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidOptions);
            }
            let plain = dir.path().join(format!("{}-false", kind.name()));
            let error = PrivateKey::from_file(&plain, Some(&password)).unwrap_err();
            assert!(error.message().contains("not encrypted"));
        }
    }

    #[test]
    fn a_signature_is_of_one_message_one_key_and_one_spelling() {
        for kind in KeyKind::ALL {
            let key = PrivateKey::generate(kind);
            let (public, signature) = (key.public(), key.sign(b"message").unwrap());
            assert!(public.verify(b"message", &signature));
            assert!(!public.verify(b"massage", &signature));
            assert!(!PrivateKey::generate(kind).public().verify(b"message", &signature));
            for i in 0..signature.len() {
                let mut bad = signature.clone();
                bad[i] ^= 1 << (i % 8);
                assert!(!public.verify(b"message", &bad), "{kind:?} byte {i}");
            }
            for bad in
                [&signature[1..], &signature[..signature.len() - 1], &[&signature[..], &[0]].concat(), &[]]
            {
                assert!(!public.verify(b"message", bad), "{kind:?}");
            }
        }
    }

    #[test]
    fn raw_signatures_are_refused_and_either_s_is_taken() {
        let key = PrivateKey::generate(KeyKind::P256);
        let (public, der) = (key.public(), key.sign(b"message").unwrap());
        let signature = p256::ecdsa::Signature::from_der(&der).unwrap();
        assert!(!public.verify(b"message", &signature.to_bytes()));
        let (r, s) = signature.split_scalars();
        let other = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        assert_ne!(other, signature);
        // OpenSSL makes both, so both must hold.
        assert!(public.verify(b"message", other.to_der().as_bytes()));
    }

    #[test]
    fn keys_that_prove_nothing_are_refused() {
        // The points of small order of Ed25519 that have an encoding in the order of their y: 1 and 0.
        for y in [0u8, 1] {
            let mut der = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
            der.push(y);
            der.resize(der.len() + 31, 0);
            let error = PublicKey::from_spki(&der).unwrap_err();
            assert!(error.message().contains("low order"), "{error}");
        }
        // A point that is not on the curve.
        let good = PrivateKey::generate(KeyKind::P256).public().to_pem().unwrap();
        let mut der = pem::blocks(good.as_bytes()).unwrap()[0].der.to_vec();
        PublicKey::from_spki(&der).unwrap();
        *der.last_mut().unwrap() ^= 1;
        assert!(PublicKey::from_spki(&der).unwrap_err().message().contains("no point"));
    }

    #[test]
    fn files_of_something_else_are_refused_with_what_to_do() {
        let private = PrivateKey::generate(KeyKind::P256).to_pem(None).unwrap();
        let error = PublicKey::from_pem(private.as_bytes()).unwrap_err();
        assert!(error.hint().unwrap().contains("-pubout"), "{error}");
        let public = PrivateKey::generate(KeyKind::P256).public().to_pem().unwrap();
        let error = PrivateKey::from_pem(public.as_bytes(), None).unwrap_err();
        assert!(error.message().contains("PUBLIC KEY"), "{error}");
        assert!(PrivateKey::from_pem(b"nothing", None).unwrap_err().message().contains("nothing in PEM"));
        let twice = format!("{}{}", *private, *private);
        assert!(
            PrivateKey::from_pem(twice.as_bytes(), None).unwrap_err().message().contains("more than one")
        );
        for i in 0..private.len() {
            let mut bad = private.as_bytes().to_vec();
            bad[i] ^= 1;
            // Whatever it says, no byte of a key is in it.
            if let Err(error) = PrivateKey::from_pem(&bad, None) {
                let body: String = private.lines().skip(1).take(2).collect();
                assert!(!format!("{error} {error:?}").contains(&body[60..80]), "{error}");
            }
        }
    }
}
