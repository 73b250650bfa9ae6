//! The text arguments of protocol 0: decimal numbers, quoted strings, escaped Unicode; and the text of the
//! binary protocols, UTF-8 in which Python lets lone surrogates stand.

use crate::value::Value;

/// The most digits of a decimal integer. Python's own `int()` stops here too: the conversion is quadratic.
pub(super) const MAX_DIGITS: usize = 4300;

/// A decimal integer with an optional sign; `None` if it is none, or has over [`MAX_DIGITS`] digits.
pub(super) fn integer(text: &[u8]) -> Option<Value> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if let Some(small) = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()) {
        return Some(Value::Int(small));
    }
    // Limbs of 32 bits, least significant first, multiplied up nine digits at a time.
    let mut limbs: Vec<u32> = Vec::with_capacity(digits.len() / 9 + 2);
    for chunk in digits.chunks(9) {
        let mut carry = chunk.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
        let scale = 10u64.pow(chunk.len() as u32);
        for limb in &mut limbs {
            let n = u64::from(*limb) * scale + carry;
            *limb = n as u32;
            carry = n >> 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|l| l.to_le_bytes()).collect();
    bytes.push(0);
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            let (flipped, over) = (!*byte).overflowing_add(u8::from(carry));
            *byte = flipped;
            carry = over;
        }
    }
    Some(long(&bytes))
}

/// An integer from little-endian two's complement of any length, in its shortest form.
pub(super) fn long(mut bytes: &[u8]) -> Value {
    while let [head @ .., below, last] = bytes {
        // The last byte says nothing if it only repeats the sign of the one below.
        let redundant = (*last == 0 && *below < 0x80) || (*last == 0xff && *below >= 0x80);
        if !redundant {
            break;
        }
        bytes = &bytes[..=head.len()];
    }
    if bytes.len() > 8 {
        return Value::BigInt(bytes.into());
    }
    let fill = if bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// A float as Python's `repr` writes it.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// What stands between the quotes of a Python 2 string's `repr`, with its escapes undone.
pub(super) fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let inner = match text {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return None,
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let [escape, tail @ ..] = rest else { return None };
        rest = tail;
        match escape {
            b'\\' | b'\'' | b'"' => out.push(*escape),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b't' => out.push(9),
            b'n' => out.push(10),
            b'v' => out.push(11),
            b'f' => out.push(12),
            b'r' => out.push(13),
            b'\n' => {}
            b'0'..=b'7' => {
                let mut n = u32::from(escape - b'0');
                for _ in 0..2 {
                    let [digit @ b'0'..=b'7', tail @ ..] = rest else { break };
                    n = n * 8 + u32::from(digit - b'0');
                    rest = tail;
                }
                out.push(n as u8);
            }
            b'x' => {
                out.push(hex(rest.get(..2)?)? as u8);
                rest = &rest[2..];
            }
            other => out.extend([b'\\', *other]),
        }
    }
    Some(out)
}

/// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`; a surrogate becomes U+FFFD.
pub(super) fn raw_unicode_escape(text: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            out.push(char::from(*byte));
            continue;
        }
        let digits = match rest {
            [b'u', ..] => 4,
            [b'U', ..] => 8,
            // Nothing else is an escape; the pair stands for itself, so `\\u` is no escape either.
            [other, tail @ ..] => {
                out.extend(['\\', char::from(*other)]);
                rest = tail;
                continue;
            }
            [] => {
                out.push('\\');
                continue;
            }
        };
        let code = hex(rest.get(1..=digits)?)?;
        rest = &rest[digits + 1..];
        match char::from_u32(code) {
            Some(c) => out.push(c),
            None if code < 0x11_0000 => out.push(char::REPLACEMENT_CHARACTER),
            None => return None,
        }
    }
    Some(out)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, d| Some(n << 4 | char::from(*d).to_digit(16)?))
}

/// UTF-8 as Python's `surrogatepass` writes it: three bytes that encode a surrogate become U+FFFD, any other
/// invalid byte is `None`.
pub(super) fn utf8(bytes: &[u8]) -> Option<Box<str>> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Some(text.into());
    }
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return Some(out.into());
            }
            Err(e) => {
                let (valid, tail) = rest.split_at(e.valid_up_to());
                out.push_str(std::str::from_utf8(valid).ok()?);
                let [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] = tail else { return None };
                out.push(char::REPLACEMENT_CHARACTER);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        assert_eq!(integer(b"-17"), Some(Value::Int(-17)));
        assert_eq!(integer(b"9223372036854775807"), Some(Value::Int(i64::MAX)));
        assert_eq!(integer(b"-9223372036854775808"), Some(Value::Int(i64::MIN)));
        // (2**63).to_bytes(9, "little", signed=True), and the same of -2**63 - 1
        assert_eq!(
            integer(b"9223372036854775808"),
            Some(Value::BigInt([0, 0, 0, 0, 0, 0, 0, 128, 0].into()))
        );
        assert_eq!(
            integer(b"-9223372036854775809"),
            Some(Value::BigInt([255, 255, 255, 255, 255, 255, 255, 127, 255].into()))
        );
        // (10**30).to_bytes(13, "little", signed=True)
        assert_eq!(
            integer(b"1000000000000000000000000000000"),
            Some(Value::BigInt([0, 0, 0, 64, 234, 237, 116, 70, 208, 156, 44, 159, 12].into()))
        );
        assert_eq!(integer(b"-0"), Some(Value::Int(0)));
        for bad in [&b""[..], b"-", b"1x", b"0x10", b" 1", &[b'9'; MAX_DIGITS + 1]] {
            assert_eq!(integer(bad), None, "{bad:?}");
        }
        assert!(integer(&[b'9'; MAX_DIGITS]).is_some());
    }

    #[test]
    fn longs_take_their_shortest_form() {
        assert_eq!(long(b""), Value::Int(0));
        assert_eq!(long(&[0xff; 20]), Value::Int(-1));
        assert_eq!(long(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Value::Int(128));
        assert_eq!(
            long(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0]),
            Value::BigInt([0, 0, 0, 0, 0, 0, 0, 0x80, 0].into())
        );
    }

    #[test]
    fn quoted_strings() {
        // Python 2: repr of 'a\'"\\\n\t\r\x00\xff'
        assert_eq!(quoted(br#"'a\'"\\\n\t\r\x00\xff'"#).as_deref(), Some(&b"a'\"\\\n\t\r\x00\xff"[..]));
        assert_eq!(quoted(br#""\101\7q\q""#).as_deref(), Some(&b"A\x07q\\q"[..]));
        for bad in [&b""[..], b"'", b"'a", b"a'", br"'\x1'", br"'\'", b"'a\""] {
            assert_eq!(quoted(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn escaped_unicode() {
        assert_eq!(raw_unicode_escape(b"\xe9\\u20ac\\U0001f600\\n").as_deref(), Some("é€😀\\n"));
        assert_eq!(raw_unicode_escape(br"\\u20ac").as_deref(), Some(r"\\u20ac"));
        assert_eq!(raw_unicode_escape(br"\ud800").as_deref(), Some("\u{fffd}"));
        for bad in [&br"\u12"[..], br"\u12xy", br"\U00110000"] {
            assert_eq!(raw_unicode_escape(bad), None);
        }
    }

    #[test]
    fn surrogates_in_utf8() {
        assert_eq!(utf8(b"a\xed\xa0\x80b").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(utf8(b"a\xff"), None);
        assert_eq!(utf8(b"\xed\xa0"), None);
    }
}
