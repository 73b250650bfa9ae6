//! `CHANGELOG.md`: entries are put in, and nothing that is there is changed.
//!
//! An entry is a heading of the second level that begins with a version (`## 1.2.0`, `## [v1.2.0] - 2026-11-22`), with
//! everything up to the next such heading. The newest version is first. Whatever else is in the file stays byte for
//! byte where it is.

use std::path::Path;

use weighbridge_formats::{Error, Result};

use crate::folder::read_if_there;
use crate::markdown::line_ending;
use crate::version::{Version, parse_version};

/// The file's name.
pub const CHANGELOG: &str = "CHANGELOG.md";
/// The longest changelog that is read.
const LONGEST: u64 = 64 << 20;

/// A heading of a version.
#[derive(Debug, PartialEq, Eq)]
struct Heading {
    version: Version,
    /// Where its line begins, and where the line after it does.
    start: usize,
    end: usize,
}

/// The changelog of a folder, empty where there is none.
///
/// # Errors
/// `LimitExceeded` for more than 64 MiB, and what the system says.
pub(crate) fn read(folder: &Path) -> Result<Vec<u8>> {
    Ok(read_if_there(&folder.join(CHANGELOG), LONGEST)?.unwrap_or_default())
}

/// What a changelog says of a version, without the heading; `None` if there is no entry.
pub(crate) fn entry<'t>(text: &'t [u8], version: &Version) -> Option<&'t [u8]> {
    let headings = headings(text);
    let at = headings.iter().position(|h| h.version == *version)?;
    let end = headings.get(at + 1).map_or(text.len(), |next| next.start);
    text.get(headings.get(at)?.end..end).map(<[u8]>::trim_ascii)
}

/// Puts an entry in before that of the next lower version, or at the end. `None` if the version has an entry already,
/// which a person may have written.
///
/// `date` is of the form `2026-11-22`. Lines end as they do in the text.
pub(crate) fn insert(text: &[u8], name: &str, version: &Version, date: &str, body: &str) -> Option<Vec<u8>> {
    let headings = headings(text);
    if headings.iter().any(|h| h.version == *version) {
        return None;
    }
    let at = headings.iter().find(|h| h.version < *version).map_or(text.len(), |h| h.start);
    let out = insert_at(text, at, name, &format!("## {version} - {date}\n\n{}\n", body.trim_end()));
    if entry(&out, version).is_some() {
        return Some(out);
    }
    // The text ends amid a comment or a block of code; before all of it is where an entry still is one.
    let start = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    Some(insert_at(text, start, name, &format!("## {version} - {date}\n\n{}\n", body.trim_end())))
}

fn insert_at(text: &[u8], at: usize, name: &str, entry: &str) -> Vec<u8> {
    let mut added = String::new();
    if text.is_empty() {
        added.push_str(&format!(
            "# Changelog of {name}\n\nDrafted from what changed; edit freely, nothing is rewritten.\n"
        ));
    }
    let before = text.get(..at).unwrap_or_default();
    let at_start = before.is_empty() || before == b"\xef\xbb\xbf";
    // A blank line before the heading, whatever the text before it ends with.
    if !at_start && !before.ends_with(b"\n") {
        added.push('\n');
    }
    let blank =
        (at_start && !text.is_empty()) || [&b"\n\n"[..], b"\n\r\n"].iter().any(|end| before.ends_with(end));
    if !blank {
        added.push('\n');
    }
    added.push_str(entry);
    if at < text.len() {
        added.push('\n');
    }
    if line_ending(text) == "\r\n" {
        added = added.replace("\r\n", "\n").replace('\n', "\r\n");
    }
    let mut out = Vec::with_capacity(text.len() + added.len());
    out.extend_from_slice(before);
    out.extend_from_slice(added.as_bytes());
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

/// Checks that an entry's own text has no heading that would be taken for another version's.
///
/// # Errors
/// `InvalidOptions` with the heading.
pub(crate) fn check_body(body: &str) -> Result<()> {
    match headings(body.as_bytes()).first() {
        None => Ok(()),
        Some(heading) => {
            let what = format!(
                "the notes have a heading of version {}, as the changelog's own entries do",
                heading.version
            );
            Err(Error::invalid_options(what).with_hint("use a heading of the third level, `###`"))
        }
    }
}

/// The headings of versions, in the order of the text. Headings in fenced code and in comments are none.
fn headings(text: &[u8]) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut fence: Option<(u8, usize)> = None;
    let mut comment = false;
    let mut start = 0;
    for line in text.split_inclusive(|&b| b == b'\n') {
        let end = start + line.len();
        // What begins a text in some editors is no part of its first line.
        let line = if start == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let content = line.trim_ascii_end();
        let indent = content.len() - content.trim_ascii_start().len();
        let trimmed = content.trim_ascii_start();
        if comment {
            comment = !contains(content, b"-->");
        } else if let Some((mark, length)) = fence {
            let run = trimmed.iter().take_while(|&&b| b == mark).count();
            if indent < 4 && run >= length && run == trimmed.len() {
                fence = None;
            }
        } else if let Some(opened) = opens_fence(trimmed).filter(|_| indent < 4) {
            fence = Some(opened);
        } else if trimmed.starts_with(b"<!--") {
            comment = !contains(content, b"-->");
        } else if let Some(version) = heading_version(trimmed).filter(|_| indent < 4) {
            found.push(Heading { version, start, end });
        }
        start = end;
    }
    found
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|w| w == wanted)
}

fn opens_fence(line: &[u8]) -> Option<(u8, usize)> {
    let mark = *line.first().filter(|b| matches!(b, b'`' | b'~'))?;
    let run = line.iter().take_while(|&&b| b == mark).count();
    // A backtick after the run makes it a span of code in a line of text.
    let rest = line.get(run..).unwrap_or_default();
    (run >= 3 && !(mark == b'`' && rest.contains(&b'`'))).then_some((mark, run))
}

/// The version of a line such as `## [v1.2.0] - 2026-11-22`.
fn heading_version(line: &[u8]) -> Option<Version> {
    let rest = line.strip_prefix(b"##")?;
    if !rest.starts_with(b" ") && !rest.starts_with(b"\t") {
        return None;
    }
    let word = rest.trim_ascii_start().split(|b| b.is_ascii_whitespace()).next()?;
    let word = std::str::from_utf8(word).ok()?;
    let word = word.trim_start_matches('[');
    let word = word.split([']', '(', ':']).next().unwrap_or_default();
    parse_version(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        parse_version(text).unwrap()
    }

    fn text(bytes: Option<Vec<u8>>) -> String {
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[test]
    fn entries_stand_newest_first_and_the_rest_stays() {
        let first = text(insert(b"", "m", &v("1.0.0"), "2026-01-01", "- First.\n"));
        assert!(
            first.starts_with("# Changelog of m\n\n")
                && first.ends_with("\n\n## 1.0.0 - 2026-01-01\n\n- First.\n"),
            "{first}"
        );
        let second = text(insert(first.as_bytes(), "m", &v("1.2.0"), "2026-01-02", "- Second."));
        let backport = text(insert(second.as_bytes(), "m", &v("1.0.1"), "2026-01-03", "- Port."));
        let order: Vec<_> = headings(backport.as_bytes()).into_iter().map(|h| h.version).collect();
        assert_eq!(order, [v("1.2.0"), v("1.0.1"), v("1.0.0")]);
        assert_eq!(entry(backport.as_bytes(), &v("1.0.1")).unwrap(), b"- Port.");
        assert_eq!(entry(backport.as_bytes(), &v("1.0.0")).unwrap(), b"- First.");
        assert_eq!(entry(backport.as_bytes(), &v("3.0.0")), None);
        assert_eq!(insert(backport.as_bytes(), "m", &v("1.0.1"), "2026-01-03", "- Again."), None);
        assert!(!backport.contains("\n\n\n"), "{backport}");
    }

    #[test]
    fn lines_end_as_they_do_in_the_text() {
        let old = b"# Mine\r\n\r\n## [v1.0.0] - then\r\nx";
        let new = text(insert(old, "m", &v("2.0.0"), "d", "a\nb"));
        assert_eq!(new, "# Mine\r\n\r\n## 2.0.0 - d\r\n\r\na\r\nb\r\n\r\n## [v1.0.0] - then\r\nx");
        let last = text(insert(old, "m", &v("0.1.0"), "d", "a"));
        assert!(last.ends_with("then\r\nx\r\n\r\n## 0.1.0 - d\r\n\r\na\r\n"), "{last:?}");
    }

    #[test]
    fn headings_in_code_and_comments_are_none() {
        let tricky = b"intro\n```\n## 9.0.0\n~~~\n```\n<!-- \n## 8.0.0\n-->\n    ## 7.0.0\n##6.0.0\n### 5.0.0\n`` ` ```\n## v1.0.0: name\n## Unreleased\n";
        let found: Vec<_> = headings(tricky).into_iter().map(|h| h.version).collect();
        assert_eq!(found, [v("1.0.0")]);
        assert!(check_body("### 1.0.0\nfine").is_ok() && check_body("x\n## 1.0.0").is_err());
    }

    /// Whatever a person makes of the file, what they wrote is in it afterwards, in order and whole.
    #[test]
    fn no_byte_of_a_persons_text_is_lost() {
        let pieces: &[&[u8]] = &[
            b"## 1.0.0\n",
            b"## 2.0.0 - x\r\n",
            b"text",
            b"\n",
            b"\r\n",
            b"```\n",
            b"<!--",
            b"-->",
            b"\xff\xfe",
            b"# T\n",
            b"## [1.5.0-rc.1]\n",
            b"\xef\xbb\xbf",
            b"- item\n",
            b"   ",
            "ü".as_bytes(),
        ];
        let mut state = 7u64;
        let mut next = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (mut inserted, mut kept) = (0, 0);
        for _ in 0..5000 {
            let old: Vec<u8> = (0..next(12)).flat_map(|_| pieces[next(pieces.len())].to_vec()).collect();
            let version = Version::new(1, next(3) as u64, 0);
            match insert(&old, "m", &version, "d", "body") {
                None => {
                    kept += 1;
                    assert!(entry(&old, &version).is_some());
                }
                Some(new) => {
                    inserted += 1;
                    let front = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
                    let back = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
                    assert!(front + back >= old.len(), "{:?}\n{:?}", old.escape_ascii(), new.escape_ascii());
                    assert_eq!(insert(&new, "m", &version, "d", "body"), None, "{:?}", new.escape_ascii());
                }
            }
        }
        assert!(inserted > 1000 && kept > 100, "{inserted} {kept}");
    }
}
