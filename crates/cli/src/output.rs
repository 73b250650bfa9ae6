//! What is printed: numbers and sizes for people, JSON for programs, and standard output itself.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

pub(crate) use weighbridge::words::{count, grouped, size};
use weighbridge::{Error, Note, NoteKind, Result};

/// Writes everything to standard output at once. A reader that has gone away (`| head`) is no error.
pub(crate) fn emit(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("writing to standard output", e))
        }
        _ => Ok(()),
    }
}

/// Whether a person sees the output, so that long lists are shortened.
pub(crate) fn for_people() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints an error and its hint, as text or as one JSON object, to standard error.
pub(crate) fn print_error(error: &Error, json: bool) {
    let mut text = String::new();
    if json {
        text = error_json(error).to_string();
        text.push('\n');
    } else {
        // A message may quote what a file says: one line stays one line.
        let _ = writeln!(text, "error: {}", one_line(&error.to_string()));
        if let Some(hint) = hint(error) {
            let _ = writeln!(text, "  hint: {}", one_line(&hint));
        }
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// What the hints of the libraries ask for, and the option of the command that does it.
const OPTIONS: &[(&str, &str)] = &[
    ("allow the loss", "--allow-loss"),
    ("ask for the values to be dropped", "--values drop"),
    ("select the part that is wanted", "--select PATH"),
    ("leave them out by name", "--drop GLOB"),
    ("cast them to", "--dtype DTYPE"),
    ("set a largest shard size", "--max-shard-size SIZE"),
    ("rename it", "--rename RE=TO"),
];

/// An error's hint, with the options that it takes here.
fn hint(error: &Error) -> Option<String> {
    let hint = error.hint()?;
    let fits = OPTIONS.iter().filter(|(words, option)| hint.contains(words) && !hint.contains(option));
    let options: Vec<_> = fits.map(|(_, option)| format!("`{option}`")).collect();
    Some(if options.is_empty() { hint.to_owned() } else { format!("{hint} ({})", options.join(", ")) })
}

/// `{"error": {"kind", "message", "path", "tensor", "offset", "hint"}}`; what is not known is null.
fn error_json(error: &Error) -> serde_json::Value {
    let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
    serde_json::json!({ "error": {
        "kind": snake_case(&format!("{:?}", error.kind())),
        "message": format!("{}{cause}", error.message()),
        "path": error.path().map(Path::to_string_lossy),
        "tensor": error.tensor(),
        "offset": error.offset(),
        "hint": hint(error),
    }})
}

/// `InvalidOptions` as `invalid_options`.
fn snake_case(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Text without control characters, so that what a file says cannot move the cursor or hide a line.
pub(crate) fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(drives_terminal) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if drives_terminal(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// Control characters, and those that change the direction of writing.
fn drives_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first `limit` characters of one line, with `…` for the rest.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    let line = one_line(text);
    match line.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into_owned(),
    }
}

/// Reads `5GB`, `5GiB`, `1.5 MB` or a plain number of bytes.
///
/// # Errors
/// A sentence on what is accepted.
pub(crate) fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        other => return Err(format!("{other:?} is no unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")),
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let value: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
            let bytes = value * factor as f64;
            (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
        }
    };
    match bytes {
        Some(0) => Err("a size of 0 holds nothing".into()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{text} is more bytes than 64 bits count")),
    }
}

/// Adds a JSON string, quotes included.
pub(crate) fn push_json_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let short = match b {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\t' => b't',
            b'\r' => b'r',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        if short == 0 {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Adds a number in decimal.
pub(crate) fn push_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Adds an array whose items `each` writes.
pub(crate) fn push_array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

/// Notes as JSON: objects with `kind` and `text`.
pub(crate) fn notes_json(notes: &[Note]) -> serde_json::Value {
    notes.iter().map(|n| serde_json::json!({ "kind": n.kind.as_str(), "text": n.text })).collect()
}

/// Adds notes as lines, what matters most last.
pub(crate) fn push_notes(out: &mut String, notes: &[Note]) {
    for kind in [NoteKind::Info, NoteKind::Warning, NoteKind::Changed, NoteKind::Lost] {
        for note in notes.iter().filter(|n| n.kind == kind) {
            let _ = writeln!(out, "{}: {}", kind.as_str(), one_line(&note.text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary_as_their_unit_says() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("5GiB"), Ok(5 << 30));
        assert_eq!(parse_size("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "GB", "5XB", "-1", "0", "1e3", "99999999999999999999", "20000000000TB", "1.2.3"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (size(999), size(1000), size(999_960)),
            ("999 B".into(), "1.0 kB".into(), "1.0 MB".into())
        );
        assert_eq!(size(u64::MAX), "18.4 EB");
    }

    #[test]
    fn json_strings_agree_with_serde_json() {
        for text in ["", "plain", "q\"b\\n\n\t\r\u{1}\u{1f}\u{7f}ü🦀", "\u{0}"] {
            let mut out = Vec::new();
            push_json_str(&mut out, text);
            let back: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(back, text);
        }
        let mut out = Vec::new();
        push_array(&mut out, [0, 7, u64::MAX], push_u64);
        assert_eq!(out, b"[0,7,18446744073709551615]");
    }

    #[test]
    fn what_a_file_says_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(shortened("abcdef", 3), "abc…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
