//! RSA signatures of certificates (PKCS#1 v1.5): verified only, since models are not signed by RSA keys.
//!
//! Many roots of companies have RSA keys. Everything here is public, so nothing has to take the same time.

use p256::elliptic_curve::bigint::modular::runtime_mod::{DynResidue, DynResidueParams};
use p256::elliptic_curve::bigint::{Encoding, U64, U4096};
use weighbridge_formats::{Error, Result};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Reader, SliceReader};

use super::key::Hash;

/// The sizes of keys, in bytes. NIST asks for 2,048 bits at least.
const SMALLEST: usize = 256;
const LARGEST: usize = 512;

/// A public RSA key.
pub(super) struct RsaKey {
    modulus: U4096,
    exponent: u64,
    /// The length of the modulus, which is that of signatures.
    len: usize,
}

impl RsaKey {
    /// From the DER of an RSAPublicKey.
    pub(super) fn from_der(der: &[u8]) -> Result<Self> {
        let broken = || Error::malformed("the RSA key of a certificate is none");
        let mut reader = SliceReader::new(der).map_err(|_| broken())?;
        let (modulus, exponent) =
            reader.sequence(|r| Ok((UintRef::decode(r)?, UintRef::decode(r)?))).map_err(|_| broken())?;
        reader.finish(()).map_err(|_| broken())?;
        let (modulus, exponent) = (modulus.as_bytes(), exponent.as_bytes());
        let len = modulus.len();
        if !(SMALLEST..=LARGEST).contains(&len) {
            return Err(Error::unsupported(format!(
                "an RSA key of {} bits; 2048 to 4096 are known",
                len * 8
            )));
        }
        let exponent =
            exponent.iter().fold(0u64, |n, &b| n << 8 | u64::from(b)) * u64::from(exponent.len() <= 4);
        if exponent < 3 || exponent % 2 == 0 || modulus.last().is_none_or(|b| b % 2 == 0) {
            return Err(broken());
        }
        Ok(Self { modulus: wide(modulus), exponent, len })
    }

    /// Whether `signature` is by this key over `message`.
    pub(super) fn verify(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        if signature.len() != self.len {
            return false;
        }
        let number = wide(signature);
        if number >= self.modulus {
            return false;
        }
        let power = DynResidue::new(&number, DynResidueParams::new(&self.modulus))
            .pow_bounded_exp(&U64::from(self.exponent), 33)
            .retrieve()
            .to_be_bytes();
        let (head, encoded) = power.split_at(LARGEST - self.len);
        head.iter().all(|&b| b == 0) && encoded == encode(hash, message, self.len)
    }
}

/// The number of big-endian bytes, of which there are no more than it has.
fn wide(bytes: &[u8]) -> U4096 {
    let mut full = [0; LARGEST];
    let from = LARGEST.saturating_sub(bytes.len());
    full.iter_mut().skip(from).zip(bytes).for_each(|(to, b)| *to = *b);
    U4096::from_be_slice(&full)
}

/// EMSA-PKCS1-v1_5 of RFC 8017: the one right encoding, which is compared as a whole and never parsed.
fn encode(hash: Hash, message: &[u8], len: usize) -> Vec<u8> {
    // DigestInfo up to the digest: the last byte of the OID and two lengths are the hash's own.
    let (oid, digest) = match hash {
        Hash::Sha256 => (1, hash.digest(message)),
        Hash::Sha384 => (2, hash.digest(message)),
        Hash::Sha512 => (3, hash.digest(message)),
    };
    let n = digest.len() as u8;
    let info =
        [0x30, 17 + n, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, oid, 5, 0, 4, n];
    let padding = len.saturating_sub(3 + info.len() + digest.len());
    let mut out = vec![0, 1];
    out.resize(2 + padding, 0xff);
    out.push(0);
    out.extend(info);
    out.extend(digest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_rfc_8017() {
        let encoded = encode(Hash::Sha256, b"", 256);
        assert_eq!(encoded.len(), 256);
        assert_eq!(encoded[..3], [0, 1, 0xff]);
        assert_eq!(super::super::hex(&encoded[204..224]), "003031300d060960864801650304020105000420");
        assert_eq!(super::super::hex(&encoded[224..228]), "e3b0c442");
    }

    #[test]
    fn small_and_even_keys_are_refused() {
        let key = |modulus: &[u8], exponent: &[u8]| {
            let body = [
                &[2, 0x82, (modulus.len() >> 8) as u8, modulus.len() as u8],
                modulus,
                &[2, exponent.len() as u8],
                exponent,
            ];
            let body = body.concat();
            RsaKey::from_der(&[&[0x30, 0x82, (body.len() >> 8) as u8, body.len() as u8], &body[..]].concat())
                .is_ok()
        };
        let mut modulus = vec![0x55; 257];
        modulus[0] = 0;
        assert!(!key(&modulus[..1 + 255], &[3]));
        modulus[1] = 0xff;
        assert!(key(&modulus, &[1, 0, 1]));
        assert!(!key(&modulus, &[1]) && !key(&modulus, &[4]) && !key(&modulus, &[1, 0, 0, 0, 1]));
        *modulus.last_mut().unwrap() = 0x54;
        assert!(!key(&modulus, &[3]));
    }
}
