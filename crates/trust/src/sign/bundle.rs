//! Sigstore bundles (v0.3, JSON) with a DSSE envelope: parsed strictly, written as `model-signing` writes them.
//!
//! A bundle is parsed once, and everything later works on what came out: the payload that the signature is over is the
//! very buffer that the statement is read from, and only after the signature was found good.

use std::borrow::Cow;

use base64ct::{Base64, Encoding};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use weighbridge_formats::{Error, Result};

/// The longest bundle. It has room for the names and digests of some 80,000 files, and bounds what a signature that
/// nobody has checked yet can take up in memory.
pub const MAX_BUNDLE: usize = 24 << 20;
/// The most certificates that a bundle may bring.
pub(super) const MAX_CERTIFICATES: usize = 16;
/// The longest certificate, in bytes of DER.
const MAX_CERTIFICATE: usize = 64 << 10;
/// The longest signature: ECDSA on P-521 has up to 139 bytes.
const MAX_SIGNATURE: usize = 256;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A bundle whose form is right. Nothing in it is trusted yet.
pub(super) struct Bundle {
    /// What the signature is over: DSSE's pre-authentication encoding, the payload at its end.
    pae: Vec<u8>,
    payload_at: usize,
    pub(super) signature: Vec<u8>,
    pub(super) material: Material,
}

/// What a bundle says about the key that signed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Material {
    /// A public key that the verifier must have, named by the digest of its PEM or not at all.
    PublicKey(Option<String>),
    /// Certificates in DER, that of the signer first.
    Chain(Vec<Vec<u8>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    verification_material: WireMaterial<'a>,
    #[serde(borrow)]
    dsse_envelope: Option<WireEnvelope<'a>>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireMaterial<'a> {
    public_key: Option<WireKey>,
    #[serde(borrow)]
    x509_certificate_chain: Option<WireChain<'a>>,
    certificate: Option<IgnoredAny>,
    // Evidence of a transparency log or a time stamp. A key or a root that the user gives needs neither.
    #[serde(rename = "tlogEntries")]
    _tlog_entries: Option<IgnoredAny>,
    #[serde(rename = "timestampVerificationData")]
    _timestamps: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireKey {
    hint: Option<String>,
    // Releases before 1.1 wrote the key itself here. It says nothing that the user's own key does not.
    #[serde(rename = "rawBytes")]
    _raw_bytes: Option<IgnoredAny>,
    #[serde(rename = "keyDetails")]
    _key_details: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireChain<'a> {
    #[serde(borrow)]
    certificates: Vec<WireCertificate<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireCertificate<'a> {
    #[serde(borrow)]
    raw_bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireEnvelope<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<WireSignature<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature<'a> {
    #[serde(borrow)]
    sig: Cow<'a, str>,
    // A name for the key that nothing vouches for.
    #[serde(rename = "keyid")]
    _keyid: Option<IgnoredAny>,
}

impl Bundle {
    /// Parses a bundle.
    ///
    /// # Errors
    /// `Malformed` for what is no bundle, for unknown and repeated keys, and for anything but one signature;
    /// `Unsupported`, by name, for keyless signatures, other versions and other contents; `LimitExceeded`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BUNDLE {
            let what = format!("the signature has {} bytes; at most {MAX_BUNDLE} are read", bytes.len());
            return Err(Error::limit(what));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::malformed("the signature is no UTF-8, and a Sigstore bundle is JSON"))?;
        let wire: Wire<'_> = match serde_json::from_str(text) {
            Ok(wire) => wire,
            // Other versions may have other fields, and their name says more than the first field that is not known.
            Err(e) => return Err(media_type_of(text).unwrap_or_else(|| super::bad_json("the signature", &e))),
        };
        if wire.media_type != MEDIA_TYPE {
            return Err(other_version(&wire.media_type));
        }
        let material = wire.verification_material;
        let material = match (material.public_key, material.x509_certificate_chain, material.certificate) {
            (Some(key), None, None) => Material::PublicKey(key.hint.filter(|h| !h.is_empty())),
            (None, Some(chain), None) => Material::Chain(certificates(&chain)?),
            (None, None, Some(_)) => return Err(keyless()),
            (None, None, None) => {
                return Err(Error::malformed("the signature names neither a key nor certificates"));
            }
            _ => return Err(Error::malformed("the signature names more than one kind of key")),
        };
        if wire.message_signature.is_some() {
            return Err(Error::unsupported(
                "a signature over the digest of one file, not over a statement about a model",
            )
            .with_hint("`weighbridge sign` and `model_signing sign` make signatures of models"));
        }
        let envelope =
            wire.dsse_envelope.ok_or_else(|| Error::malformed("the signature has no DSSE envelope"))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let what = format!(
                "the envelope holds {:?}, and {PAYLOAD_TYPE} is wanted",
                super::brief(&envelope.payload_type)
            );
            return Err(Error::unsupported(what));
        }
        let [signature] = envelope.signatures.as_slice() else {
            let count = envelope.signatures.len();
            return Err(Error::malformed(format!("the envelope has {count} signatures, and one is wanted")));
        };
        let signature = base64(&signature.sig, "the signature's bytes", MAX_SIGNATURE)?;
        let (pae, payload_at) = pae_of_base64(&envelope.payload)?;
        Ok(Self { pae, payload_at, signature, material })
    }

    /// What the signature is over.
    pub(super) fn signed(&self) -> &[u8] {
        &self.pae
    }

    /// The payload. It may be read when the signature is good.
    pub(super) fn payload(&self) -> &[u8] {
        self.pae.get(self.payload_at..).unwrap_or_default()
    }
}

/// The start of DSSE's pre-authentication encoding of a payload of that length.
fn pae_head(len: usize) -> String {
    format!("DSSEv1 {} {PAYLOAD_TYPE} {len} ", PAYLOAD_TYPE.len())
}

/// DSSE's pre-authentication encoding.
pub(super) fn pae(payload: &[u8]) -> Vec<u8> {
    [pae_head(payload.len()).as_bytes(), payload].concat()
}

/// The same of a payload in Base64, decoded behind its head so that there is one buffer of it.
fn pae_of_base64(text: &str) -> Result<(Vec<u8>, usize)> {
    let bad = || Error::malformed("the payload is no Base64");
    let padding = text.bytes().rev().take(2).filter(|&b| b == b'=').count();
    let len = (text.len() / 4 * 3).checked_sub(padding).ok_or_else(bad)?;
    let mut buffer = pae_head(len).into_bytes();
    let payload_at = buffer.len();
    buffer.resize(payload_at + len, 0);
    let decoded =
        Base64::decode(text, buffer.get_mut(payload_at..).unwrap_or_default()).map_err(|_| bad())?;
    if decoded.len() != len {
        return Err(bad());
    }
    Ok((buffer, payload_at))
}

fn base64(text: &str, what: &str, most: usize) -> Result<Vec<u8>> {
    if text.len() > most.div_ceil(3) * 4 {
        return Err(Error::limit(format!("{what} are more than {most}")));
    }
    Base64::decode_vec(text).map_err(|_| Error::malformed(format!("{what} are no Base64")))
}

fn certificates(chain: &WireChain<'_>) -> Result<Vec<Vec<u8>>> {
    match chain.certificates.len() {
        0 => Err(Error::malformed("the signature has an empty chain of certificates")),
        n if n > MAX_CERTIFICATES => Err(Error::limit(format!(
            "the signature has {n} certificates; at most {MAX_CERTIFICATES} are read"
        ))),
        _ => chain
            .certificates
            .iter()
            .map(|c| base64(&c.raw_bytes, "a certificate's bytes", MAX_CERTIFICATE))
            .collect(),
    }
}

/// The error for a bundle of another version, if it is a bundle at all.
fn media_type_of(text: &str) -> Option<Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed<'a> {
        #[serde(borrow)]
        media_type: Cow<'a, str>,
    }
    let typed: Typed<'_> = serde_json::from_str(text).ok()?;
    (typed.media_type != MEDIA_TYPE).then(|| other_version(&typed.media_type))
}

fn other_version(media_type: &str) -> Error {
    let what = format!("a signature of the type {:?}; {MEDIA_TYPE} is read", super::brief(media_type));
    Error::unsupported(what)
        .with_hint("have the model signed again by `weighbridge sign` or model-signing 1.0 or later")
}

fn keyless() -> Error {
    Error::unsupported(
        "a keyless Sigstore signature: its certificate lived for minutes, and only the transparency log and \
                        the trusted root, both from the network, tell whether it was good then",
    )
    .with_hint(
        "verify it by `model_signing verify sigstore --identity … --identity_provider …`, or have the model \
                    signed with a key or a certificate",
    )
}

/// The text of a bundle.
pub(super) fn write(payload: &[u8], signature: &[u8], material: &Material) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Out {
        media_type: &'static str,
        verification_material: serde_json::Value,
        dsse_envelope: serde_json::Value,
    }
    let material = match material {
        Material::PublicKey(hint) => serde_json::json!({ "publicKey": { "hint": hint }, "tlogEntries": [] }),
        Material::Chain(chain) => {
            let chain: Vec<_> = chain
                .iter()
                .map(|der| serde_json::json!({ "rawBytes": Base64::encode_string(der) }))
                .collect();
            serde_json::json!({ "x509CertificateChain": { "certificates": chain }, "tlogEntries": [] })
        }
    };
    let out = Out {
        media_type: MEDIA_TYPE,
        verification_material: material,
        dsse_envelope: serde_json::json!({
            "payload": Base64::encode_string(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": Base64::encode_string(signature), "keyid": "" }],
        }),
    };
    let mut text = serde_json::to_vec(&out).map_err(|e| Error::unsupported(format!("the bundle: {e}")))?;
    text.push(b'\n');
    if text.len() > MAX_BUNDLE {
        return Err(Error::limit(format!(
            "the signature would have {} bytes; at most {MAX_BUNDLE} are read again",
            text.len()
        ))
        .with_hint("leave files out by --ignore, or take larger shards"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    fn text(material: &Material) -> String {
        String::from_utf8(write(b"{\"a\": 1}", b"signature", material).unwrap()).unwrap()
    }

    fn refused(text: &str) -> (ErrorKind, String) {
        let error = Bundle::parse(text.as_bytes()).map(|_| ()).unwrap_err();
        (error.kind(), error.message().to_owned())
    }

    #[test]
    fn what_is_written_is_read() {
        for material in [
            Material::PublicKey(Some("00ff".into())),
            Material::PublicKey(None),
            Material::Chain(vec![vec![1; 100], vec![2]]),
        ] {
            let bundle = Bundle::parse(text(&material).as_bytes()).unwrap();
            assert_eq!(bundle.material, material);
            assert_eq!((bundle.payload(), &bundle.signature[..]), (&b"{\"a\": 1}"[..], &b"signature"[..]));
            assert_eq!(bundle.signed(), b"DSSEv1 28 application/vnd.in-toto+json 8 {\"a\": 1}");
            assert_eq!(bundle.signed(), pae(bundle.payload()));
        }
    }

    #[test]
    fn every_length_of_a_payload_is_decoded() {
        for len in 0..9 {
            let payload = vec![b'x'; len];
            let text = write(&payload, b"s", &Material::PublicKey(None)).unwrap();
            assert_eq!(Bundle::parse(&text).unwrap().payload(), payload);
        }
    }

    #[test]
    fn a_bundle_that_is_not_exactly_right_is_refused_by_name() {
        let good = text(&Material::PublicKey(Some("00ff".into())));
        Bundle::parse(good.as_bytes()).unwrap();
        let cases = [
            ("\"mediaType\":", "\"mediaType\":\"x\",\"mediaType\":", "duplicate field"),
            ("\"hint\":", "\"hint\":\"x\",\"hint\":", "duplicate field"),
            ("\"payload\":", "\"payload\":\"\",\"payload\":", "duplicate field"),
            ("\"tlogEntries\":[]", "\"tlogEntries\":[],\"more\":1", "unknown field"),
            ("bundle.v0.3+json", "bundle.v0.1+json", "of the type"),
            ("vnd.in-toto+json", "octet-stream", "the envelope holds"),
            ("\"keyid\":\"\"}", "\"keyid\":\"\"},{\"sig\":\"YQ==\"}", "2 signatures"),
            ("{\"sig\":\"c2lnbmF0dXJl\",\"keyid\":\"\"}", "", "0 signatures"),
            ("c2lnbmF0dXJl", "c2ln*mF0dXJl", "no Base64"),
            ("c2lnbmF0dXJl", "YR==", "no Base64"),
            ("\"publicKey\":{\"hint\":\"00ff\"}", "\"certificate\":{\"rawBytes\":\"\"}", "keyless"),
            ("\"publicKey\":{\"hint\":\"00ff\"},", "", "neither a key"),
            ("\"publicKey\":", "\"certificate\":{},\"publicKey\":", "more than one kind"),
            ("\"dsseEnvelope\":", "\"messageSignature\":{},\"dsseEnvelope\":", "digest of one file"),
            ("{\"hint\":\"00ff\"}", "[]", "invalid"),
        ];
        for (from, to, what) in cases {
            assert!(good.contains(from), "{from}");
            let (_, message) = refused(&good.replace(from, to));
            assert!(message.contains(what), "{to}: {message}");
        }
        assert_eq!(refused(&format!("{good}x")).0, ErrorKind::Malformed);
        assert_eq!(refused("").0, ErrorKind::Malformed);
        assert_eq!(refused(&"[".repeat(100_000)).0, ErrorKind::Malformed);
        assert_eq!(Bundle::parse(&[0xff]).map(|_| ()).unwrap_err().kind(), ErrorKind::Malformed);
    }

    #[test]
    fn sizes_are_bounded() {
        let long = vec![b' '; MAX_BUNDLE + 1];
        assert_eq!(Bundle::parse(&long).map(|_| ()).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let many = text(&Material::Chain(vec![vec![0]; MAX_CERTIFICATES + 1]));
        assert_eq!(refused(&many).0, ErrorKind::LimitExceeded);
        assert_eq!(refused(&text(&Material::Chain(vec![]))).0, ErrorKind::Malformed);
        let wide = text(&Material::Chain(vec![vec![0; MAX_CERTIFICATE + 3]]));
        assert_eq!(refused(&wide).0, ErrorKind::LimitExceeded);
        let huge = write(&vec![0; MAX_BUNDLE], b"", &Material::PublicKey(None)).unwrap_err();
        assert_eq!(huge.kind(), ErrorKind::LimitExceeded);
    }
}
