//! The front matter of a README, edited as text: keys are added, and what is there stays as it is.
//!
//! The hub finds the block by an expression that is followed here to the letter: white space, a line `---`, and
//! everything up to the next line `---`. What it holds is YAML. It is not parsed and written again, which would lose
//! comments, order and spelling. Keys at the left margin are found, and a line is added before the closing `---` only
//! where every line of the block is understood so far that no key can be overlooked.

use std::collections::BTreeSet;
use std::ops::Range;

/// What begins a README in some editors, and is passed over.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The front matter of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// There is none; one would be put in here.
    Absent(usize),
    /// Its keys, and where lines are added: at the end of its content, or at the beginning.
    Block { keys: BTreeSet<String>, at: usize, first: bool, ending: &'static str },
    /// There is one that is not understood, for this reason.
    Strange(String),
}

impl Front {
    pub(super) fn of(text: &[u8]) -> Self {
        let start = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let Some((content, ending)) = block(text, start) else { return Self::Absent(start) };
        let inside = text.get(content.clone()).unwrap_or_default();
        match keys(inside) {
            Ok(keys) => {
                let first = ends_in_scalar(inside);
                Self::Block { keys, at: if first { content.start } else { content.end }, first, ending }
            }
            Err(line) => Self::Strange(line),
        }
    }

    /// Whether a person, or an earlier call, has set a key.
    pub(super) fn has(&self, key: &str) -> bool {
        matches!(self, Self::Block { keys, .. } if keys.contains(key))
    }
}

/// Where the content of the block is, and how its lines end: the expression of the hub,
/// `^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))`.
fn block(text: &[u8], start: usize) -> Option<(Range<usize>, &'static str)> {
    let rest = text.get(start..)?;
    // The byte-order mark is white space to nobody but the hub's reader has taken it off by then.
    let dashes = start + rest.iter().position(|b| !matches!(b, b' ' | b'\t'..=b'\r' | 0x1c..=0x1f))?;
    let rest = text.get(dashes..)?.strip_prefix(b"---")?;
    let (first, ending) = line_break(rest)?;
    let content = dashes + 3 + first;
    let mut at = content;
    while at < text.len() {
        let here = text.get(at..)?;
        if let Some((length, _)) = line_break(here)
            && let Some(after) = here.get(length..)?.strip_prefix(b"---")
        {
            let blanks = after.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            let after = after.get(blanks..)?;
            if after.is_empty() || after.starts_with(b"\n") || after.starts_with(b"\r\n") {
                return Some((content..at, ending));
            }
        }
        at += 1;
    }
    None
}

/// The length of a line break at the beginning of the text, and the one to write.
fn line_break(text: &[u8]) -> Option<(usize, &'static str)> {
    match text {
        [b'\r', b'\n', ..] => Some((2, "\r\n")),
        [b'\n', ..] => Some((1, "\n")),
        [b'\r', ..] => Some((1, "\r")),
        _ => None,
    }
}

/// The keys at the left margin, or the first line that is not understood.
fn keys(content: &[u8]) -> Result<BTreeSet<String>, String> {
    let mut keys = BTreeSet::new();
    for line in content.split(|b| matches!(b, b'\r' | b'\n')) {
        let strange =
            || String::from_utf8_lossy(line.get(..line.len().min(80)).unwrap_or_default()).into_owned();
        let text = std::str::from_utf8(line).map_err(|_| strange())?;
        // Breaks that only YAML knows would make one line two.
        if text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
            return Err(strange());
        }
        let in_value = text.starts_with([' ', '\t']) || text.starts_with("- ") || text == "-";
        if text.is_empty()
            || text.starts_with('#')
            || (in_value && !keys.is_empty())
            || text.trim().is_empty()
        {
            continue;
        }
        keys.insert(key(text).ok_or_else(strange)?);
    }
    Ok(keys)
}

/// Whether the last entry may have a block scalar (`|`, `>`), whose text ends as the content does: the line break that
/// stands before an added line would become part of it.
fn ends_in_scalar(content: &[u8]) -> bool {
    let is_indicator = |line: &[u8]| {
        let code = line.split(|&b| b == b'#').next().unwrap_or_default().trim_ascii_end();
        let code =
            code.iter().rposition(|b| !matches!(b, b'0'..=b'9' | b'+' | b'-')).and_then(|at| code.get(at));
        matches!(code, Some(b'|' | b'>'))
    };
    let mut last = false;
    for line in content.split(|b| matches!(b, b'\r' | b'\n')) {
        let begins = line.first().is_some_and(|b| !matches!(b, b' ' | b'\t' | b'#' | b'-'));
        last = (last && !begins) || is_indicator(line);
    }
    last
}

/// The key that a line at the left margin begins with.
fn key(line: &str) -> Option<String> {
    let (name, rest) = match line.as_bytes().first()? {
        quote @ (b'"' | b'\'') => {
            let (name, rest) = line.get(1..)?.split_once(char::from(*quote))?;
            // An escape could spell any key, and a doubled quote goes on.
            if name.contains('\\') || rest.starts_with(char::from(*quote)) {
                return None;
            }
            (name, rest)
        }
        _ => {
            let end = line.find(':')?;
            (line.get(..end)?, line.get(end..)?)
        }
    };
    let after = rest.trim_start_matches([' ', '\t']).strip_prefix(':')?;
    let name = name.trim_end_matches([' ', '\t']);
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b' '))
        && !name.starts_with(['-', ' ']);
    (plain && (after.is_empty() || after.starts_with([' ', '\t']))).then(|| name.to_owned())
}

/// A value of the front matter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Text(String),
    List(Vec<String>),
    /// Lines of YAML below the key.
    Lines(Vec<String>),
}

/// One key with its value as lines that end with `\n`.
pub(super) fn entry(key: &str, value: &Yaml) -> String {
    match value {
        Yaml::Text(text) => format!("{key}: {}\n", scalar(text)),
        Yaml::List(items) => {
            items.iter().fold(format!("{key}:\n"), |out, item| out + &format!("- {}\n", scalar(item)))
        }
        Yaml::Lines(lines) => lines.iter().fold(format!("{key}:\n"), |out, line| out + line + "\n"),
    }
}

/// Text as YAML: bare where nothing else can be read from it, or in double quotes with everything escaped that is not
/// printable ASCII.
pub(super) fn scalar(text: &str) -> String {
    // `no` is a language, and false to YAML 1.1.
    const WORDS: &[&str] = &["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"];
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if bare {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            _ if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// The text with keys added that it has not: before the closing line of its front matter, or in a new one.
///
/// `Front::Strange` is left alone.
pub(super) fn add(text: &[u8], front: &Front, entries: &[(String, Yaml)]) -> Vec<u8> {
    let lines: String = entries.iter().map(|(key, value)| entry(key, value)).collect();
    let (at, added) = match front {
        _ if lines.is_empty() => return text.to_vec(),
        Front::Strange(_) => return text.to_vec(),
        Front::Absent(at) => {
            let ending = crate::markdown::line_ending(text);
            let blank = if text.get(*at..).is_none_or(<[u8]>::is_empty) { "" } else { "\n" };
            (*at, format!("---\n{lines}---\n{blank}").replace('\n', ending))
        }
        Front::Block { at, first: true, ending, .. } => (*at, lines.replace('\n', ending)),
        // The last line's break belongs to the closing `---`, so the added lines begin with one and do not end so.
        Front::Block { keys, at, ending, .. } => {
            let lines = lines.trim_end_matches('\n');
            let first = if keys.is_empty() && is_blank_block(text, *at) { "" } else { "\n" };
            (*at, format!("{first}{lines}").replace('\n', ending))
        }
    };
    let mut out = Vec::with_capacity(text.len() + added.len());
    out.extend_from_slice(text.get(..at).unwrap_or_default());
    out.extend_from_slice(added.as_bytes());
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

/// Whether the content that ends here is empty, so that the line it would stand on is there already.
fn is_blank_block(text: &[u8], end: usize) -> bool {
    text.get(..end).is_some_and(|before| before.ends_with(b"\n") || before.ends_with(b"\r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<Vec<String>> {
        match Front::of(text.as_bytes()) {
            Front::Block { keys, .. } => Some(keys.into_iter().collect()),
            _ => None,
        }
    }

    #[test]
    fn keys_at_the_margin_are_found_however_they_are_spelled() {
        let text = "---\nlicense: mit # chosen\n# note: not a key\n\"tags\":\n- a\n-  b: c\n'x y' : 1\nlanguage :\n  - en\ntext: |\n  key: no\n\nurl: http://x\n---\nbody: x\n---\n";
        assert_eq!(found(text).unwrap(), ["language", "license", "tags", "text", "url", "x y"]);
        assert_eq!(found("\n \n---\r\na: 1\r\n---").unwrap(), ["a"]);
        assert_eq!(found("---\n\n---\n").unwrap(), [""; 0]);
        for strange in [
            "{a: 1}",
            "? a\n: 1",
            "<<: *x",
            "&a b: 1",
            "!!map",
            "%x",
            "a:1",
            "\"a\\u0062\": 1",
            "plain",
            "- a",
            "  a: 1",
        ] {
            let text = format!("---\n{strange}\n---\n");
            assert!(matches!(Front::of(text.as_bytes()), Front::Strange(_)), "{strange}");
        }
        for none in ["", "# Title\n---\na: 1\n---\n", "--- \na: 1\n---\n", "---\na: 1\n", "---"] {
            assert!(matches!(Front::of(none.as_bytes()), Front::Absent(0)), "{none:?}");
        }
        assert_eq!(Front::of(b"\xef\xbb\xbf# T"), Front::Absent(3));
    }

    #[test]
    fn keys_are_added_and_nothing_else_changes() {
        let add = |text: &str| {
            let front = Front::of(text.as_bytes());
            let entries = [("new".to_owned(), Yaml::List(vec!["no".into(), "x".into()]))];
            String::from_utf8(add(text.as_bytes(), &front, &entries)).unwrap()
        };
        assert_eq!(add("---\na:   1 # c\n---\nB"), "---\na:   1 # c\nnew:\n- \"no\"\n- x\n---\nB");
        assert_eq!(add("---\r\na: 1\r\n---\r\nB"), "---\r\na: 1\r\nnew:\r\n- \"no\"\r\n- x\r\n---\r\nB");
        assert_eq!(add("---\n\n---\nB"), "---\nnew:\n- \"no\"\n- x\n---\nB");
        assert_eq!(add("# T\r\n"), "---\r\nnew:\r\n- \"no\"\r\n- x\r\n---\r\n\r\n# T\r\n");
        assert_eq!(add(""), "---\nnew:\n- \"no\"\n- x\n---\n");
        // The text of a block scalar would grow by a line break.
        for scalar in ["a: |\n  x", "a: >+ # y\n  x\n\n", "a:\n- b: |2-\n    x"] {
            assert_eq!(
                add(&format!("---\n{scalar}\n---\nB")),
                format!("---\nnew:\n- \"no\"\n- x\n{scalar}\n---\nB")
            );
        }
        assert!(add("---\na: |\n  x\nb: 1\n---\n").contains("b: 1\nnew:"));
        assert_eq!(add("---\n{a: 1}\n---\n"), "---\n{a: 1}\n---\n");
    }

    #[test]
    fn scalars_are_read_as_the_text_they_are() {
        for (text, wanted) in [
            ("apache-2.0", "apache-2.0"),
            ("org/name", "org/name"),
            ("no", "\"no\""),
            ("True", "\"True\""),
            ("1.0", "\"1.0\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a\n---\nb", "\"a\\x0a---\\x0ab\""),
            ("ü\u{2028}🦀\"\\", "\"\\xfc\\u2028\\U0001f980\\\"\\\\\""),
        ] {
            assert_eq!(scalar(text), wanted);
        }
    }
}
