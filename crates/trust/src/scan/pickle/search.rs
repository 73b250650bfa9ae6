//! Pickles among other bytes: behind garbage, between the members of an archive, in a file of no known format.
//!
//! Weights are as good as random, so a mark alone means nothing. What begins like a pickle is tried for a few opcodes;
//! it counts if it calls, builds or changes something, or goes on for so long that no chance explains it.

use weighbridge_formats::{Result, Source};

use super::judge::Event;
use super::trace::{End, Mode, Trace};
use crate::scan::report::Verdict;
use crate::scan::subject::{Role, Sink, Subject};

/// How much is read at once, and how much of the next such part is seen with it.
const BLOCK: usize = 1 << 20;
const OVERLAP: usize = 4096;
/// How many opcodes a trial takes, and how many well-formed ones are no chance.
const TRIAL: u64 = 512;
const NO_CHANCE: u64 = 48;
/// The longest name that a trial looks for in the text of protocol 0.
const NAME: usize = 128;

/// Whether bytes may begin a pickle, or a container that may hold one.
pub(crate) fn may_begin(head: &[u8]) -> bool {
    begins(head)
        || matches!(
            head,
            [b'P', b'K', 3, 4, ..]
                | [0x1f, 0x8b, 8, ..]
                | [b'B', b'Z', b'h', b'1'..=b'9', 0x31, ..]
                | [0xfd, b'7', b'z', b'X', b'Z', 0, ..]
                | [0x28, 0xb5, 0x2f, 0xfd, ..]
                | [0x93, b'N', b'U', b'M', b'P', b'Y', ..]
        )
        || begins_as_text(head)
}

/// PROTO, a protocol, and an opcode that a pickle can go on with.
pub(crate) fn begins(head: &[u8]) -> bool {
    matches!(head, [0x80, 0..=5, op, ..] if opens(*op))
}

/// Whether an opcode can be the first after PROTO: it pushes something, or frames what does.
fn opens(op: u8) -> bool {
    matches!(
        op,
        b'(' | b')' | b']' | b'}' | b'c' | b'N' | b'I' | b'L' | b'F' | b'S' | b'T' | b'U' | b'V' | b'X' | b'K' | b'M'
            | b'J' | b'G' | b'B' | b'C' | b'P' | 0x95 | 0x88..=0x8f | 0x96 | 0x82..=0x84 | 0x80
    )
}

/// A pickle of protocol 0 or 1 that begins with a name, or a mark and something that such a pickle has.
fn begins_as_text(head: &[u8]) -> bool {
    match head {
        [b'c', rest @ ..] => two_names(rest),
        [b'(', b'c' | b'i', rest @ ..] => two_names(rest),
        [b'(', b'S' | b'V', ..] | [b'(', b'l' | b'd', b'p', ..] => true,
        _ => false,
    }
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')
}

/// Two lines that are dotted names.
fn two_names(bytes: &[u8]) -> bool {
    let line = |bytes: &[u8]| {
        let end = bytes.iter().take(NAME).position(|b| !in_name(*b))?;
        (end > 0 && bytes.get(end) == Some(&b'\n')).then_some(end + 1)
    };
    line(bytes).is_some_and(|next| bytes.get(next..).and_then(line).is_some())
}

/// What a trial says.
enum Tried {
    No,
    /// A pickle that does something, and where it ended.
    Found(u64),
    /// One that does nothing but what is known to be harmless.
    Harmless(u64),
}

/// Where the bytes that are tried come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The beginning of a file or member: nothing else stands before it.
    First,
    /// Somewhere in it, with PROTO or without.
    Marked,
    Unmarked,
}

/// Tries the bytes as the beginning of a pickle.
fn try_pickle(bytes: &[u8], from: Start) -> Tried {
    let mut work = 0;
    tried(bytes, from, &mut work)
}

/// The same, with the work that it was.
fn tried(bytes: &[u8], from: Start, work: &mut u64) -> Tried {
    let source = Source::from_bytes(bytes);
    let mut trace = Trace::new(&source, 0, Mode { opcodes: TRIAL, work: u64::MAX, ..Mode::default() });
    let end = trace.run();
    *work = trace.work + super::BEGUN;
    let Ok(end) = end else { return Tried::No };
    let stopped = end == End::Stop;
    trace.settle_names();
    let acts = if from == Start::First { is_use } else { does_something };
    let does = trace.events.iter().any(acts);
    // An extension's number is no name.
    let dotted = |e: &Event| e.callable.as_ref().is_some_and(|name| name.contains('.'));
    let named = stopped && trace.events.iter().any(|e| e.rule != "pickle-broken" && is_named(e) && dotted(e));
    // A pickle that is longer than the trial: broken off where the bytes end, or after so many opcodes.
    let cut = end == End::Enough || trace.input.offset() >= bytes.len() as u64;
    let long = from != Start::Unmarked && trace.count >= NO_CHANCE && cut;
    if does || (named && from != Start::Unmarked) || long {
        Tried::Found(trace.input.offset())
    } else if trace.uses > 0 {
        Tried::Harmless(trace.start)
    } else {
        Tried::No
    }
}

/// Whether an event is a call, an object or a change.
fn is_use(event: &Event) -> bool {
    matches!(event.rule, "pickle-call" | "pickle-build")
        || (event.rule == "pickle-unknown-class" && event.arguments.is_some())
}

/// Whether it is one of something that looks like a name.
pub(super) fn does_something(event: &Event) -> bool {
    is_use(event) && is_named(event)
}

/// Whether an event is about something that looks like a name. In a gigabyte of noise a mark is followed some times by an
/// extension's code, or by two lines of any bytes, and a STOP.
fn is_named(event: &Event) -> bool {
    let graphic = |name: &String| name.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    event.callable.as_ref().is_some_and(graphic)
}

/// Whether the beginning of a subject is a pickle of protocol 0 or 1, which have no mark.
pub(crate) fn begins_unmarked(head: &[u8]) -> bool {
    // A zip's mark reads as a persistent id, and no loader takes a zip for that.
    let zip = head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06");
    let first = !zip && head.first().is_some_and(|op| opens(*op) && *op != 0x80);
    first && matches!(try_pickle(head, Start::First), Tried::Found(_))
}

/// Searches a range of a subject, and has what is found looked at as a part.
pub(crate) fn search(subject: &Subject<'_>, sink: &mut Sink<'_>, from: u64, to: u64) -> Result<()> {
    let reader = subject.source.reader();
    let text = is_text(subject.head);
    let mut at = from;
    let mut block = Vec::new();
    while at < to {
        let length = (to - at).min(BLOCK as u64) as usize;
        block.resize(length, 0);
        reader.read_at(at, &mut block)?;
        sink.worked_in_bulk(length as u64);
        if sink.work_left() == 0 {
            let mut place = subject.place.clone();
            place.offset = Some(at);
            sink.stopped(&place);
            return Ok(());
        }
        let last = at + length as u64 >= to;
        // What begins in the overlap is looked at with the next block.
        let own = if last { length } else { length - OVERLAP };
        let mut skip_to = 0;
        for start in candidates(&block, own, text) {
            if start < skip_to {
                continue;
            }
            if !sink.effort(64) {
                let what = "so much of it looks like pickles that not all of that was looked at".to_owned();
                let found = subject.finding("unreadable", Verdict::Unknown, what).at(at + start as u64);
                sink.finding(found);
                return Ok(());
            }
            let window = &block[start..length.min(start + OVERLAP)];
            let from = if window.first() == Some(&0x80) { Start::Marked } else { Start::Unmarked };
            if sink.work_left() == 0 {
                let mut place = subject.place.clone();
                place.offset = Some(at + start as u64);
                sink.stopped(&place);
                return Ok(());
            }
            let mut work = 0;
            let tried = tried(window, from, &mut work);
            sink.worked_in_bulk(work);
            if let Tried::Harmless(took) = tried {
                // Its names without their first letters are no names.
                skip_to = start + took as usize;
            }
            if let Tried::Found(took) = tried {
                skip_to = start + (took as usize).max(1);
                let begin = at + start as u64;
                let rest = subject.source.slice(begin, to - begin)?;
                let source = Source::from_reader(std::sync::Arc::new(rest));
                let mut place = subject.inside(format!("bytes at {begin}"));
                place.offset = None;
                sink.nested_as(Role::Guess, subject.name, source, place);
            }
        }
        at += own.max(1) as u64;
    }
    Ok(())
}

/// Where in the first `own` bytes of a block a pickle may begin, in order.
fn candidates(block: &[u8], own: usize, text: bool) -> Vec<usize> {
    let mut found = Vec::new();
    for at in memchr::memchr_iter(0x80, &block[..own]) {
        if begins(&block[at..]) {
            found.push(at);
        }
    }
    // In a text, words on lines are nothing but words.
    if !text {
        for at in memchr::memchr_iter(b'\n', block) {
            let (before, after) = block.split_at(at);
            if !before.last().is_some_and(|b| in_name(*b)) || !after.get(1).is_some_and(|b| in_name(*b)) {
                continue;
            }
            unmarked(block, at, own, &mut found);
        }
        found.sort_unstable();
        found.dedup();
    }
    found
}

/// Where a pickle of protocol 0 may begin that has a module's name in the line that ends at `end`.
fn unmarked(block: &[u8], end: usize, own: usize, found: &mut Vec<usize>) {
    let back = block[..end].iter().rev().take(NAME).take_while(|b| in_name(**b)).count();
    for start in end - back..end {
        let opcode = block[start];
        if !matches!(opcode, b'c' | b'i')
            || start + 1 == end
            || start >= own
            || !two_names(&block[start + 1..])
        {
            continue;
        }
        let mut push = |at: usize| {
            if found.last() != Some(&at) {
                found.push(at);
            }
        };
        // The mark of INST and OBJ stands before the name, and what INST calls its class with in between.
        if opcode == b'i' {
            let near = start.saturating_sub(256);
            block[near..start]
                .iter()
                .enumerate()
                .filter(|(_, b)| **b == b'(')
                .take(8)
                .for_each(|(n, _)| push(near + n));
        } else {
            if start > 0 && block[start - 1] == b'(' {
                push(start - 1);
            }
            push(start);
        }
    }
}

fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    valid.chars().all(|c| !c.is_control() || c.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_known_and_words_are_not_pickles() {
        assert!(may_begin(b"\x80\x04\x95\0\0"));
        assert!(may_begin(b"cos\nsystem\n(S'id'\ntR."));
        assert!(may_begin(b"(S'id'\nios\nsystem\n."));
        assert!(!may_begin(b"\x80\x09\x95\0\0"));
        assert!(begins_unmarked(b"cos\nsystem\n(S'id'\ntR."));
        assert!(begins_unmarked(b"(S'id'\nios\nsystem\n."));
        assert!(!begins_unmarked(b"cat\ndog\nbird\nfish\n"));
        assert!(!begins_unmarked(b"class Foo:\n    pass\n"));
        assert!(!begins_unmarked(b"import os\n"));
    }

    #[test]
    fn what_noise_begins_like_is_no_pickle() {
        for chance in [
            &b"\x80\x02\x84\xaa\x7c\x55\xcd."[..],
            b"\x80\x02\x83\x90\xa2.",
            b"\x80\x02\x82\x07.",
            b"\x80\x02c\xe1\x11+\xf0\nJ\xc5\x07\x1e\n.",
        ] {
            assert!(begins(chance), "{chance:?}");
            assert!(matches!(try_pickle(chance, Start::Marked), Tried::No), "{chance:?}");
        }
        assert!(matches!(try_pickle(b"\x80\x02cos\nsystem\n.", Start::Marked), Tried::Found(_)));
    }

    #[test]
    fn a_pickle_is_found_wherever_it_begins() {
        let mut noise: Vec<u8> =
            (0..10_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for payload in [
            &b"\x80\x04cposix\nsystem\n(S'id'\ntR."[..],
            b"cos\nsystem\n(S'id'\ntR.",
            b"(S'id'\nios\nsystem\n.",
        ] {
            let before = candidates(&noise, noise.len(), false);
            assert!(before.iter().all(|at| matches!(try_pickle(&noise[*at..], Start::Marked), Tried::No)));
            let at = noise.len() - 5000;
            noise.splice(at..at, payload.iter().copied());
            let found = candidates(&noise, noise.len(), false);
            assert!(found.contains(&at), "{payload:?}");
            assert!(matches!(
                try_pickle(&noise[at..at + payload.len() + 100], Start::Unmarked),
                Tried::Found(_)
            ));
            noise.drain(at..at + payload.len());
        }
    }
}
