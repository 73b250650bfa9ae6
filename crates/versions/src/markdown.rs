//! Text out of a file in Markdown: whatever it says, it stays one line and no markup.

use std::borrow::Cow;
use std::fmt::Write as _;
pub(crate) use weighbridge_formats::words::{count, grouped, size};

/// A line's worth of text that a file gave: control characters and those that turn the direction of writing are
/// escaped, and what is longer than `limit` characters is cut with `…`.
pub(crate) fn plain(text: &str, limit: usize) -> Cow<'_, str> {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if !text.contains(bad) && text.chars().nth(limit).is_none() {
        return text.into();
    }
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == limit {
            out.push('…');
            break;
        }
        if bad(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// The text as a span of code, in which nothing else is markup.
pub(crate) fn code(text: &str) -> String {
    let text = plain(text, 120);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // A backtick at an end would join the fence, and an empty span is none.
    let pad =
        if text.is_empty() || text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// The same in a cell of a table, where a bar ends the cell even in code.
pub(crate) fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

/// Names as code, the first `limit` of them, and how many more there are.
pub(crate) fn names<'n>(names: impl ExactSizeIterator<Item = &'n str>, limit: usize) -> String {
    let total = names.len();
    let mut out = String::new();
    for (i, name) in names.take(limit).enumerate() {
        let _ = write!(out, "{}{}", if i > 0 { ", " } else { "" }, code(name));
    }
    if total > limit {
        let _ = write!(out, " and {} more", grouped((total - limit) as u64));
    }
    out
}

/// The line ending of a text: that of its first line, `\n` where there is none.
pub(crate) fn line_ending(text: &[u8]) -> &'static str {
    match text.iter().position(|&b| b == b'\n') {
        Some(at) if at > 0 && text.get(at - 1) == Some(&b'\r') => "\r\n",
        // The first one that is put behind it will make one of that kind.
        None if text.ends_with(b"\r") => "\r\n",
        _ => "\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_span_of_code() {
        for (text, wanted) in [
            ("plain", "`plain`"),
            ("a`b", "``a`b``"),
            ("``", "``` `` ```"),
            ("a\n## 9.9.9\r", "`a\\n## 9.9.9\\r`"),
            ("", "`  `"),
            ("\u{202e}x", "`\\u{202e}x`"),
        ] {
            assert_eq!(code(text), wanted);
        }
        assert_eq!(cell("a|b"), "`a\\|b`");
        assert_eq!(code(&"x".repeat(200)).chars().count(), 123);
        assert_eq!(names(["a", "b", "c"].into_iter(), 2), "`a`, `b` and 1 more");
    }

    #[test]
    fn sizes_and_line_endings_read_well() {
        assert_eq!(
            (size(999), size(999_960), size(u64::MAX)),
            ("999 B".into(), "1.0 MB".into(), "18.4 EB".into())
        );
        assert_eq!((count(1, "tensor"), count(1234, "tensor")), ("1 tensor".into(), "1,234 tensors".into()));
        assert_eq!(
            (line_ending(b"a\r\nb\n"), line_ending(b"\n\r\n"), line_ending(b"")),
            ("\r\n", "\n", "\n")
        );
    }
}
