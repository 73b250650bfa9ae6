//! PEM (RFC 7468): the blocks of a file, whatever text stands between them.

use base64ct::{Base64, Encoding};
use weighbridge_formats::{Error, Result};
use zeroize::Zeroizing;

/// The most blocks of one file: bundles of root certificates have some hundreds.
const BLOCKS: usize = 1024;

/// One block: its label, and the bytes between the lines, which are overwritten when it is dropped.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// The blocks of a file in order. Text before, between and after them is skipped, as OpenSSL does.
///
/// # Errors
/// `Malformed` for a block without its end, with another label at its end, or whose content is no Base64;
/// `Unsupported` for the encryption that OpenSSL once wrote into headers of the block.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block>> {
    let mut out = Vec::new();
    let mut lines = text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let Some(label) = label_of(line, "BEGIN") else { continue };
        let mut body = Zeroizing::new(Vec::with_capacity(text.len()));
        loop {
            let Some(line) = lines.next() else {
                return Err(Error::malformed(format!("the PEM block {label:?} has no end")));
            };
            if line.starts_with(b"-----") {
                if label_of(line, "END").as_ref() != Some(&label) {
                    return Err(Error::malformed(format!("the PEM block {label:?} ends with another line")));
                }
                break;
            }
            if line.contains(&b':') {
                let what =
                    format!("the PEM block {label:?} has headers, as keys encrypted in OpenSSL's old way");
                return Err(Error::unsupported(what)
                    .with_hint("write it as PKCS#8: `openssl pkcs8 -topk8 -in old.pem -out key.pem`"));
            }
            body.extend_from_slice(line);
        }
        let mut der = Zeroizing::new(vec![0; body.len() / 4 * 3 + 3]);
        let len = Base64::decode(&*body, &mut der)
            .map_err(|_| Error::malformed(format!("the PEM block {label:?} is no Base64")))?
            .len();
        der.truncate(len);
        out.push(Block { label, der });
        if out.len() > BLOCKS {
            return Err(Error::limit(format!("there are more than {BLOCKS} PEM blocks")));
        }
    }
    Ok(out)
}

/// The label of a line `-----BEGIN label-----`; only what RFC 7468 lets a label be.
fn label_of(line: &[u8], word: &str) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let label = text.strip_prefix("-----")?.strip_prefix(word)?.strip_prefix(' ')?.strip_suffix("-----")?;
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
    (!label.is_empty() && label.len() <= 64 && label.bytes().all(plain)).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_around_blocks_is_skipped() {
        let text = b"note\r\n-----BEGIN A B-----\r\nAQID\r\nBA==\r\n-----END A B-----\r\nx\n-----BEGIN C-----\n-----END C-----";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), &found[0].der[..]), ("A B", &[1, 2, 3, 4][..]));
        assert_eq!((found[1].label.as_str(), &found[1].der[..]), ("C", &[][..]));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for (text, what) in [
            ("-----BEGIN A-----\nAQID\n", "no end"),
            ("-----BEGIN A-----\nAQID\n-----END B-----\n", "another line"),
            ("-----BEGIN A-----\nAQI\n-----END A-----\n", "no Base64"),
            ("-----BEGIN A-----\nAQI=AQID\n-----END A-----\n", "no Base64"),
            ("-----BEGIN A-----\nAQJ=\n-----END A-----\n", "no Base64"),
            ("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAQID\n-----END A-----\n", "old way"),
        ] {
            let error = blocks(text.as_bytes()).map(|b| b.len()).unwrap_err();
            assert!(error.message().contains(what), "{text:?}: {error}");
        }
    }
}
