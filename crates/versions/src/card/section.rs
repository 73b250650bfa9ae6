//! The generated part of a README: what stands between two marks is ours, as long as nobody has changed it.
//!
//! The first mark has a checksum of what follows it. Where that does not agree, a person has edited the part, and it
//! is theirs from then on. It also has the keys that were added to the front matter: one that is gone since was
//! removed by a person, and is not added again.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::markdown::line_ending;

const BEGIN: &str = "<!-- weighbridge:begin";
const END: &str = "<!-- weighbridge:end -->";

/// The generated part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// There is none.
    Absent,
    /// Where it is, both marks with their lines; the keys that were added with it.
    Found { range: Range<usize>, keys: Vec<String> },
    /// It stays as it is, for this reason; the keys that were added with it.
    Kept { why: &'static str, keys: Vec<String> },
}

impl Section {
    pub(super) fn of(text: &[u8]) -> Self {
        let lines: Vec<_> = lines(text).collect();
        let mut begins = lines.iter().enumerate().filter_map(|(i, line)| Some((i, mark(text, line)?)));
        let Some((first, (checksum, keys))) = begins.next() else {
            return if lines.iter().any(|l| is_end(text, l)) {
                Self::Kept {
                    why: "it has the mark of the generated part's end and none of its beginning",
                    keys: vec![],
                }
            } else {
                Self::Absent
            };
        };
        if begins.next().is_some() {
            return Self::Kept { why: "it has more than one generated part", keys };
        }
        let Some(last) = lines.iter().skip(first).position(|l| is_end(text, l)).map(|n| n + first) else {
            return Self::Kept { why: "the mark of the generated part's end is gone", keys };
        };
        let (Some(begin), Some(end)) = (lines.get(first), lines.get(last)) else { return Self::Absent };
        let body = text.get(begin.end..end.start).unwrap_or_default();
        if checksum != digest(body) {
            return Self::Kept { why: "its generated part was edited by hand", keys };
        }
        Self::Found { range: begin.start..end.end, keys }
    }

    /// The keys that were added to the front matter before.
    pub(super) fn keys(&self) -> &[String] {
        match self {
            Self::Absent => &[],
            Self::Found { keys, .. } | Self::Kept { keys, .. } => keys,
        }
    }
}

/// The part with its marks; `body` ends with a line break.
pub(super) fn render(body: &str, keys: &[String]) -> String {
    let keys = if keys.is_empty() { String::new() } else { format!(" keys={}", keys.join(",")) };
    format!("{BEGIN} sha256={}{keys} -->\n{body}{END}\n", digest(body.as_bytes()))
}

/// The text with the part in place of the old one, or at its end.
pub(super) fn put(text: &[u8], section: &Section, part: &str) -> Vec<u8> {
    let ending = line_ending(text);
    let part = part.replace('\n', ending);
    let (range, before) = match section {
        Section::Kept { .. } => return text.to_vec(),
        Section::Found { range, .. } => (range.clone(), ""),
        Section::Absent if text.is_empty() => (0..0, ""),
        Section::Absent if text.ends_with(b"\n\n") || text.ends_with(b"\n\r\n") => {
            (text.len()..text.len(), "")
        }
        Section::Absent if text.ends_with(b"\n") => (text.len()..text.len(), ending),
        Section::Absent => (text.len()..text.len(), if ending == "\n" { "\n\n" } else { "\r\n\r\n" }),
    };
    // The line break after the last mark is the text's own: it may have none.
    let whole_line = range.is_empty() || text.get(..range.end).is_some_and(|t| t.ends_with(b"\n"));
    let part = if whole_line { &part[..] } else { part.trim_end_matches(['\r', '\n']) };
    let mut out = Vec::with_capacity(text.len() + part.len() + 4);
    out.extend_from_slice(text.get(..range.start).unwrap_or_default());
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(part.as_bytes());
    out.extend_from_slice(text.get(range.end..).unwrap_or_default());
    out
}

/// Whether a line of text that goes into the part would be taken for one of the marks.
pub(super) fn is_mark(line: &str) -> bool {
    line.trim().starts_with(BEGIN) || line.trim() == END
}

/// Lines with their breaks.
fn lines(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    text.split_inclusive(|&b| b == b'\n').map(move |line| {
        let range = start..start + line.len();
        start = range.end;
        range
    })
}

fn trimmed<'t>(text: &'t [u8], line: &Range<usize>) -> Option<&'t str> {
    std::str::from_utf8(text.get(line.clone())?.trim_ascii()).ok()
}

fn is_end(text: &[u8], line: &Range<usize>) -> bool {
    trimmed(text, line) == Some(END)
}

/// The checksum and the keys of a line that is the first mark.
fn mark(text: &[u8], line: &Range<usize>) -> Option<(String, Vec<String>)> {
    let inside = trimmed(text, line)?.strip_prefix(BEGIN)?.strip_suffix("-->")?;
    let word = |name: &str| inside.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
    let keys = word("keys").map(|k| k.split(',').map(str::to_owned).collect()).unwrap_or_default();
    Some((word("sha256").unwrap_or_default().to_owned(), keys))
}

/// Half of a SHA-256 in hexadecimal, of the text with its lines ended by `\n`: what changes the ends of lines, as Git
/// may, changes nothing here.
fn digest(body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for line in body.split_inclusive(|&b| b == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(content) => {
                hash.update(content);
                hash.update(b"\n");
            }
            None => hash.update(line),
        }
    }
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_part_is_replaced_and_what_surrounds_it_stays() {
        let old = render("old\n", &["a".into(), "b".into()]);
        for (before, after, ending) in
            [("# T\n\n", "mine\n", "\n"), ("", "", "\n"), ("x\r\n", "\r\ny", "\r\n")]
        {
            let whole = format!("{before}{}{after}", old.replace('\n', ending));
            let section = Section::of(whole.as_bytes());
            assert_eq!(section.keys(), ["a", "b"]);
            let new = text(put(whole.as_bytes(), &section, &render("new\nlines\n", &[])));
            assert_eq!(new, format!("{before}{}{after}", render("new\nlines\n", &[]).replace('\n', ending)));
        }
        let cut = old.trim_end();
        let new = text(put(cut.as_bytes(), &Section::of(cut.as_bytes()), &render("n\n", &[])));
        assert_eq!(new, render("n\n", &[]).trim_end());
    }

    #[test]
    fn without_a_part_it_is_put_at_the_end() {
        let part = render("p\n", &[]);
        for (old, wanted) in
            [("", ""), ("a", "a\n\n"), ("a\n", "a\n\n"), ("a\n\n", "a\n\n"), ("a\r\nb", "a\r\nb\r\n\r\n")]
        {
            let new = text(put(old.as_bytes(), &Section::of(old.as_bytes()), &part));
            assert!(new.starts_with(wanted) && new[wanted.len()..].replace("\r\n", "\n") == part, "{new:?}");
        }
    }

    #[test]
    fn what_a_person_made_of_it_is_kept() {
        let part = render("ours\n", &["k".into()]);
        let cases = [
            (part.replace("ours", "theirs"), "edited"),
            (part.replace(END, ""), "end is gone"),
            (format!("{part}{part}"), "more than one"),
            (END.to_owned(), "none of its beginning"),
            (part.replace("sha256=", "x="), "edited"),
        ];
        for (old, wanted) in cases {
            let section = Section::of(old.as_bytes());
            assert!(
                matches!(&section, Section::Kept { why, .. } if why.contains(wanted)),
                "{old}: {section:?}"
            );
            assert_eq!(put(old.as_bytes(), &section, "new"), old.as_bytes());
        }
        assert!(is_mark(" <!-- weighbridge:begin x -->") && is_mark(END) && !is_mark("x"));
    }
}
