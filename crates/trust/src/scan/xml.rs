//! XML, as PMML and OpenVINO have models in: what it declares for its reader to fetch or to expand.

use weighbridge_formats::Result;

use super::report::Verdict;
use super::subject::{Role, Sink, Subject};

/// How much of the beginning is looked at: declarations stand before the first element.
const MOST: u64 = 1 << 20;

/// Whether a subject is a text that begins as XML.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    let text = narrow(subject.head);
    let text = text.strip_prefix("\u{feff}").unwrap_or(&text).trim_start();
    subject.role == Role::Anything && (text.starts_with("<?xml") || text.starts_with("<!DOCTYPE "))
}

/// Text of one or two bytes a letter, the latter without the zeros.
fn narrow(bytes: &[u8]) -> String {
    let bytes: Vec<u8> = match bytes {
        [0xff, 0xfe, rest @ ..] | [0xfe, 0xff, rest @ ..] => {
            rest.iter().copied().filter(|b| *b != 0).collect()
        }
        other => other.iter().copied().filter(|b| *b != 0).collect(),
    };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Looks for entities: external ones have the reader open files and addresses, others may double without end.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut bytes = vec![0; subject.source.len().min(MOST) as usize];
    subject.source.reader().read_at(0, &mut bytes)?;
    let text = narrow(&bytes);
    let Some(at) = text.find("<!ENTITY") else { return Ok(()) };
    let declared = text[at..].split('>').next().unwrap_or_default();
    let shown: String = declared.chars().take(120).collect();
    let what = format!("it declares an entity: {shown}>");
    sink.finding(subject.finding("xml-entity", Verdict::Unknown, what).at(at as u64));
    Ok(())
}
