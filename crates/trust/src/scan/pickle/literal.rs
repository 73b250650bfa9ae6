//! Text and bytes of a pickle, read again from the file when somebody asks for them.

use super::input::Input;

/// A literal's beginning, and how long all of it is in the file.
pub(super) struct Literal {
    pub(super) bytes: Vec<u8>,
    /// Where its content begins, and its length there.
    pub(super) at: u64,
    pub(super) length: u64,
}

impl Literal {
    /// Whether nothing was cut off.
    pub(super) fn is_whole(&self) -> bool {
        // Escapes make a text shorter than what stands in the file, never longer.
        self.bytes.len() as u64 >= self.length || self.cut_at_end()
    }

    fn cut_at_end(&self) -> bool {
        self.length <= 2 * MOST as u64 && self.bytes.len() < MOST
    }
}

/// The most that is read of a literal.
pub(super) const MOST: usize = 4096;

/// The literal whose opcode stands at `at`.
pub(super) fn literal(input: &Input<'_>, at: u64) -> Option<Literal> {
    let raw = input.peek(at, MOST + 16);
    let (&opcode, rest) = raw.split_first()?;
    let number = |n: usize| {
        let mut wide = [0; 8];
        wide[..n].copy_from_slice(rest.get(..n)?);
        Some(u64::from_le_bytes(wide))
    };
    let counted = |n: usize| {
        let length = number(n)?;
        let end = usize::try_from(length).unwrap_or(usize::MAX).min(MOST).saturating_add(n).min(rest.len());
        Some(Literal { bytes: rest.get(n..end)?.to_vec(), at: at + 1 + n as u64, length })
    };
    let line = |decode: fn(&[u8]) -> Vec<u8>| {
        let whole = rest.iter().position(|b| *b == b'\n');
        let bytes = decode(&rest[..whole.unwrap_or(rest.len())]);
        let length = if whole.is_some() { bytes.len() as u64 } else { u64::MAX };
        Some(Literal { bytes, at: at + 1, length })
    };
    match opcode {
        b'U' | b'C' | 0x8c => counted(1),
        b'T' | b'X' | b'B' => counted(4),
        0x8d | 0x8e | 0x96 => counted(8),
        b'S' => line(unquote),
        b'V' => line(unescape),
        _ => None,
    }
}

/// What stands between quotes, with the escapes of Python's `repr` undone as far as they are well-formed.
fn unquote(line: &[u8]) -> Vec<u8> {
    let line = line.trim_ascii();
    let inner = match line {
        [b'\'' | b'"', inner @ .., b'\'' | b'"'] => inner,
        other => other,
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some(escape) = rest.next() else { break };
        let digits = |rest: &mut std::iter::Peekable<_>, first: u32, base: u32, most: usize| {
            let rest: &mut std::iter::Peekable<std::iter::Copied<std::slice::Iter<'_, u8>>> = rest;
            let mut n = first;
            for _ in 0..most {
                let Some(digit) = rest.peek().and_then(|b| char::from(*b).to_digit(base)) else { break };
                n = n * base + digit;
                rest.next();
            }
            n as u8
        };
        match escape {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'x' => out.push(digits(&mut rest, 0, 16, 2)),
            b'0'..=b'7' => out.push(digits(&mut rest, u32::from(escape - b'0'), 8, 2)),
            b'\\' | b'\'' | b'"' => out.push(escape),
            // What is no escape stays as it is.
            other => out.extend([b'\\', other]),
        }
    }
    out
}

/// Latin-1 with `\uXXXX` and `\UXXXXXXXX`, as UTF-8.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let digits = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            // Two backslashes are no beginning of an escape.
            (b'\\', Some(b'\\')) => {
                out.push_str("\\\\");
                rest = &tail[1..];
                continue;
            }
            _ => {
                out.push(char::from(*byte));
                continue;
            }
        };
        let code = tail
            .get(1..=digits)
            .and_then(|hex| hex.iter().try_fold(0u32, |n, d| Some(n << 4 | char::from(*d).to_digit(16)?)));
        match code {
            Some(code) => {
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = &tail[digits + 1..];
            }
            None => out.push('\\'),
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::Source;

    #[test]
    fn every_opcode_of_text_is_read() {
        for (pickle, text) in [
            (&b"S'os'\n"[..], &b"os"[..]),
            (
                br"S'\x6f\163'
",
                b"os",
            ),
            (b"Vo\\u0073\n", b"os"),
            (b"U\x02os", b"os"),
            (b"T\x02\0\0\0os", b"os"),
            (b"X\x02\0\0\0os", b"os"),
            (b"\x8c\x02os", b"os"),
            (b"\x8d\x02\0\0\0\0\0\0\0os", b"os"),
            (b"C\x02os", b"os"),
        ] {
            let source = Source::from_bytes(pickle);
            let found = literal(&Input::new(&source, 0), 0).unwrap();
            assert_eq!(found.bytes, text, "{pickle:?}");
            assert!(found.is_whole());
        }
        let source = Source::from_bytes(&b"X\xff\xff\xff\xffos"[..]);
        assert!(!literal(&Input::new(&source, 0), 0).unwrap().is_whole());
        assert!(literal(&Input::new(&Source::from_bytes(&b"K\x01"[..]), 0), 0).is_none());
    }
}
