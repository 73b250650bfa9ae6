//! One X.509 certificate (RFC 5280): what is read of it, and what it may be used for.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use weighbridge_formats::{Error, Result};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};

use super::hex;
use super::key::{Hash, KEY_RSA, PublicKey};
use super::pem;
use super::rsa::RsaKey;
use super::secret::{KEY_FILE, read_bounded};

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const CODE_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.3");
const ANY_USAGE: ObjectIdentifier = oid("2.5.29.37.0");
const NAME_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.30");

/// Extensions that are understood, or that say nothing about whether a chain holds: key identifiers, key usage, names,
/// basic constraints, policies, extended key usage.
const KNOWN: [ObjectIdentifier; 8] = [
    oid("2.5.29.14"),
    oid("2.5.29.15"),
    oid("2.5.29.17"),
    oid("2.5.29.18"),
    oid("2.5.29.19"),
    oid("2.5.29.32"),
    oid("2.5.29.35"),
    oid("2.5.29.37"),
];

/// A certificate.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    /// The part that is signed, as it is in `der`.
    tbs: Vec<u8>,
    parsed: x509_cert::Certificate,
    constraints: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
    extended: Option<ExtendedKeyUsage>,
    /// An identifier of its key, and of the key that signed it.
    key_ids: (Option<Vec<u8>>, Option<Vec<u8>>),
}

impl Certificate {
    /// From DER.
    ///
    /// # Errors
    /// `Malformed` for what is no certificate, or has an extension twice.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let broken = || Error::malformed("what should be a certificate is none");
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| broken())?;
        if parsed.tbs_certificate.signature != parsed.signature_algorithm {
            return Err(Error::malformed("a certificate names two algorithms for its signature"));
        }
        let mut reader = SliceReader::new(der).map_err(|_| broken())?;
        let mut tbs = Vec::new();
        reader
            .sequence(|r| {
                tbs = r.tlv_bytes()?.to_vec();
                r.tlv_bytes().and_then(|_| r.tlv_bytes()).map(|_| ())
            })
            .map_err(|_| broken())?;
        let inner = &parsed.tbs_certificate;
        let twice = |_| Error::malformed("an extension of a certificate is broken or there twice");
        let constraints = inner.get::<BasicConstraints>().map_err(twice)?.map(|(_, c)| c);
        let usage = inner.get::<KeyUsage>().map_err(twice)?.map(|(_, u)| u);
        let extended = inner.get::<ExtendedKeyUsage>().map_err(twice)?.map(|(_, e)| e);
        let own = inner.get::<SubjectKeyIdentifier>().map_err(twice)?.map(|(_, id)| id.0.as_bytes().to_vec());
        let issuer =
            inner.get::<AuthorityKeyIdentifier>().map_err(twice)?.and_then(|(_, id)| id.key_identifier);
        let key_ids = (own, issuer.map(|id| id.as_bytes().to_vec()));
        Ok(Self { der: der.to_vec(), tbs, constraints, usage, extended, key_ids, parsed })
    }

    /// Every certificate of a PEM file, in order.
    ///
    /// # Errors
    /// `Io` and `NotFound` as the system says; `InvalidOptions` if there is none; `Malformed`, `LimitExceeded`.
    pub fn all_from_file(path: &Path) -> Result<Vec<Self>> {
        let text = read_bounded(path, KEY_FILE, "certificates")?;
        Self::all_from_pem(&text).map_err(|e| e.with_path(path))
    }

    /// As [`Certificate::all_from_file`], from the text.
    ///
    /// # Errors
    /// As there.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>> {
        let blocks = pem::blocks(text)?;
        let blocks = blocks.iter().filter(|b| b.label == "CERTIFICATE");
        let found: Vec<Self> = blocks.map(|b| Self::from_der(&b.der)).collect::<Result<_>>()?;
        if found.is_empty() {
            return Err(Error::invalid_options("there is no certificate in PEM in this file"));
        }
        Ok(found)
    }

    /// The bytes of the certificate.
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's name, as RFC 4514 writes it.
    pub fn subject(&self) -> String {
        super::brief(&self.parsed.tbs_certificate.subject.to_string())
    }

    /// The issuer's name.
    pub fn issuer(&self) -> String {
        super::brief(&self.parsed.tbs_certificate.issuer.to_string())
    }

    /// When it begins and ends to be valid, in time since 1970.
    pub fn validity(&self) -> (Duration, Duration) {
        let validity = &self.parsed.tbs_certificate.validity;
        (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration())
    }

    /// The same as text, such as `2026-01-31T00:00:00Z`.
    pub fn validity_text(&self) -> (String, String) {
        let validity = &self.parsed.tbs_certificate.validity;
        (validity.not_before.to_date_time().to_string(), validity.not_after.to_date_time().to_string())
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }

    /// The key of the subject, where it is one that signs models.
    ///
    /// # Errors
    /// `Unsupported` and `Malformed` for other keys.
    pub fn public_key(&self) -> Result<PublicKey> {
        PublicKey::from_spki(&self.spki()?)
    }

    fn spki(&self) -> Result<Vec<u8>> {
        let info = &self.parsed.tbs_certificate.subject_public_key_info;
        info.to_der().map_err(|_| Error::malformed("the key of a certificate is none"))
    }

    /// Whether it names itself as its issuer.
    pub(super) fn is_self_issued(&self) -> bool {
        self.parsed.tbs_certificate.subject == self.parsed.tbs_certificate.issuer
    }

    /// Whether `issuer` may have signed this one, by names and identifiers.
    pub(super) fn names(&self, issuer: &Self) -> bool {
        let same_key = match (&self.key_ids.1, &issuer.key_ids.0) {
            (Some(wanted), Some(has)) => wanted == has,
            _ => true,
        };
        same_key && self.parsed.tbs_certificate.issuer == issuer.parsed.tbs_certificate.subject
    }

    /// Whether `issuer`'s key has signed this one.
    pub(super) fn is_signed_by(&self, issuer: &Self) -> Result<bool> {
        let algorithm = self.parsed.signature_algorithm.oid;
        let signature = self.parsed.signature.as_bytes().unwrap_or_default();
        let dotted = algorithm.to_string();
        let (ecdsa, hash) = match dotted.as_str() {
            "1.2.840.10045.4.3.2" => (true, Hash::Sha256),
            "1.2.840.10045.4.3.3" => (true, Hash::Sha384),
            "1.2.840.10045.4.3.4" => (true, Hash::Sha512),
            "1.2.840.113549.1.1.11" => (false, Hash::Sha256),
            "1.2.840.113549.1.1.12" => (false, Hash::Sha384),
            "1.2.840.113549.1.1.13" => (false, Hash::Sha512),
            "1.3.101.112" => {
                let key = issuer.public_key()?;
                return Ok(key.kind() == super::KeyKind::Ed25519 && key.verify(&self.tbs, signature));
            }
            other => {
                return Err(Error::unsupported(format!("a certificate signed by the algorithm {other}"))
                    .with_hint("ECDSA, Ed25519 and RSA (PKCS#1 v1.5), with SHA-256 or longer, are known"));
            }
        };
        if ecdsa {
            return Ok(issuer.public_key()?.verify_ecdsa(hash, &self.tbs, signature));
        }
        let info = &issuer.parsed.tbs_certificate.subject_public_key_info;
        if info.algorithm.oid != KEY_RSA {
            return Ok(false);
        }
        let key = RsaKey::from_der(info.subject_public_key.as_bytes().unwrap_or_default())?;
        Ok(key.verify(hash, &self.tbs, signature))
    }

    /// Why it may not be used at that time, whatever it is used for.
    pub(super) fn fault_at(&self, time: Duration) -> Option<String> {
        let (begin, end) = self.validity();
        if time < begin || time > end {
            return Some("it is not valid at that time".into());
        }
        let extensions = self.parsed.tbs_certificate.extensions.iter().flatten();
        for extension in extensions {
            if extension.critical && !KNOWN.contains(&extension.extn_id)
                || extension.extn_id == NAME_CONSTRAINTS
            {
                return Some(format!("it has the extension {}, which is not understood", extension.extn_id));
            }
        }
        None
    }

    /// Why it may not issue others, with so many between it and the signer's.
    pub(super) fn fault_as_issuer(&self, below: usize) -> Option<String> {
        let Some(constraints) = self.constraints.as_ref().filter(|c| c.ca) else {
            return Some("it is not one of an authority".into());
        };
        if constraints.path_len_constraint.is_some_and(|most| below > usize::from(most)) {
            return Some("more authorities are below it than it allows".into());
        }
        if self.usage.as_ref().is_some_and(|u| !u.key_cert_sign()) {
            return Some("its key may not sign certificates".into());
        }
        self.fault_of_extended()
    }

    /// Why it may not sign models: it must be made for digital signatures or for code signing, and for neither not.
    pub(super) fn fault_as_signer(&self) -> Option<String> {
        if self.usage.is_none() && self.extended.is_none() {
            return Some("it does not say what its key may be used for".into());
        }
        if self.usage.as_ref().is_some_and(|u| !u.digital_signature()) {
            return Some("its key usage has no digital signatures".into());
        }
        self.fault_of_extended()
    }

    fn fault_of_extended(&self) -> Option<String> {
        let extended = self.extended.as_ref()?;
        let allowed = extended.0.iter().any(|usage| *usage == CODE_SIGNING || *usage == ANY_USAGE);
        (!allowed).then(|| "its extended key usage has no code signing".into())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), self.fingerprint())
    }
}
