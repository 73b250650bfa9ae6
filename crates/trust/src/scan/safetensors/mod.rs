//! safetensors files: whether the format's reader takes them, and what hides in what it does not judge.

use weighbridge_formats::{ErrorKind, ReadOptions, Registry, Result, Source};

use super::report::{Severity, Verdict};
use super::subject::{Role, Sink, Subject};
use super::{base64, template};

/// The longest value of the metadata that is nothing to speak of.
const LARGE: usize = 1 << 20;
/// The shortest base64 text that is looked into.
const SHORTEST: usize = 24;
/// How far from the end the end of a zip may begin.
const END_SEARCH: u64 = 65_535 + 22;

/// Whether a subject is a safetensors file, by its name or its beginning.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    let header = subject.head.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let opens = subject.head.get(8..).is_some_and(|h| h.trim_ascii_start().starts_with(b"{"));
    let own = subject.has_extension(&["safetensors"]);
    subject.role == Role::Anything && opens && (own || (2..=100_000_000).contains(&header))
        || own && subject.role == Role::Anything && !is_text(subject.head)
}

/// A pointer or page that was saved under the name: whoever knows such says so.
fn is_text(head: &[u8]) -> bool {
    let start = head.get(..head.len().min(64)).unwrap_or_default();
    start.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

/// Looks at a file.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    zip_at_end(subject, sink);
    let mut options = ReadOptions::default();
    options.limits = sink.limits.clone();
    let opened = Registry::builtin()
        .deserializer("safetensors")
        .and_then(|reader| reader.open(subject.source.clone(), &options));
    let archive = match opened {
        Ok(archive) => archive,
        Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::LimitExceeded) => return Err(error),
        Err(error) => {
            let tensor = error.tensor().map(|t| format!(" (tensor {:?})", cut(t))).unwrap_or_default();
            let what = format!("{}{tensor}", error.message());
            let mut found = subject.finding("safetensors-lies", Verdict::Dangerous, what);
            found.place.offset = error.offset();
            sink.finding(found);
            return Ok(());
        }
    };
    for (key, value) in archive.metadata() {
        metadata(subject, sink, key, value);
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

fn metadata(subject: &Subject<'_>, sink: &mut Sink<'_>, key: &str, value: &str) {
    let name = format!("metadata {}", cut(key));
    if key.contains("chat_template") {
        template::inspect(value, &subject.inside(name.clone()), 0, sink);
    }
    if value.len() > LARGE {
        let what = format!("the metadata {:?} has {} bytes", cut(key), value.len());
        sink.finding(subject.finding("safetensors-lies", Verdict::Clean, what).severity(Severity::Info));
    }
    let head: String = value.chars().take(4096).collect::<String>().to_ascii_lowercase();
    if head.contains("<script") || head.contains("javascript:") || head.contains("<iframe") {
        let what = format!("the metadata {:?} holds a web page's code", cut(key));
        let mut found = subject.finding("safetensors-lies", Verdict::Clean, what).severity(Severity::Low);
        found.why = "a viewer that shows metadata without escaping it runs this".into();
        sink.finding(found);
    }
    // Text that is bytes again: whoever reads it so decides what to do with them, and a pickle would be run.
    if value.len() >= SHORTEST && value.len() <= 16 << 20 {
        let bytes = base64::decode(value).filter(|b| begins_something(b));
        if let Some(bytes) = bytes {
            let place = subject.inside(name.clone());
            sink.nested_as(Role::Guess, name, Source::from_bytes(bytes), place);
        }
    }
}

/// Whether bytes begin as a pickle, an archive or a program does.
fn begins_something(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
        || [
            &b"PK\x03\x04"[..],
            b"\x7fELF",
            b"MZ\x90",
            b"\x1f\x8b",
            b"cos\n",
            b"cposix\n",
            b"c__builtin__\n",
            b"cbuiltins\n",
        ]
        .iter()
        .any(|m| bytes.starts_with(m))
}

/// Whether the file is a zip too, whose directory stands at its end: `torch.load` and Python would run that one.
fn zip_at_end(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let length = subject.source.len();
    let span = length.min(END_SEARCH);
    let mut tail = vec![0; span as usize];
    if subject.source.reader().read_at(length - span, &mut tail).is_err() {
        return;
    }
    let ends = tail.windows(4).enumerate().filter(|(_, w)| *w == b"PK\x05\x06");
    let found = ends.map(|(i, _)| i).find(|&i| {
        let comment = tail.get(i + 20..i + 22).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
        comment.is_some_and(|c| i + 22 + usize::from(c) == tail.len())
    });
    if let Some(at) = found {
        let what = "it is a zip archive too, whose directory stands at its end".to_owned();
        sink.finding(
            subject.finding("safetensors-lies", Verdict::Dangerous, what).at(length - span + at as u64),
        );
    }
}

#[cfg(test)]
mod tests;
