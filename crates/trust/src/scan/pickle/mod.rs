//! Pickles: what a stream would do, by what it constructs.
//!
//! The machine ([`trace`]) runs every opcode on values of which it knows where they stand in the file, and nothing more;
//! it builds nothing and looks nothing up. Each name, call, object and change it meets is judged ([`judge`]) by one table
//! of what is known to be harmless, and for which use ([`known`]). The rule for everything else stands in [`judge`], and
//! in `docs/scan.md` for those who want to know why a file is called what it is.
//!
//! What stands before the point where a stream breaks has run by then, so it is judged like the rest. Several pickles in
//! a row, bytes in a pickle that are one, raw arrays between the parts of a dump and pickles behind garbage are followed.

mod input;
mod inside;
mod judge;
mod known;
mod literal;
mod opcode;
mod render;
mod search;
pub(super) mod stdlib;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod value;

use std::sync::Arc;

use weighbridge_formats::{Result, Source};

pub(super) use search::{begins, begins_unmarked, search};

use self::judge::{Event, Nested};
use self::trace::{End, Mode, Trace};
use super::report::{Finding, Place, Severity, Verdict};
use super::subject::{Role, Sink, Subject, finding};

/// The most pickles in a row.
const ROW: u32 = 10_000;
/// The number that a legacy torch file begins with, as it stands in its first pickle.
const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// The same in decimal digits, as protocols 0 and 1 have it.
const MAGIC_TEXT: &[u8] = b"L119547037146038801333356L\n.";
/// The work of beginning a trace.
const BEGUN: u64 = 3000;
/// Opcodes that a broken stream must have had to count as a pickle where nothing else says that it is one.
const PLAUSIBLE: u64 = 12;

/// Whether a name is that of a pickle.
pub(super) fn is_named(subject: &Subject<'_>) -> bool {
    subject.has_extension(&["pkl", "pickle", "p", "pck", "dill", "joblib"])
}

/// Looks at the pickles that a subject begins with, and searches what stands behind them.
pub(super) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let end = subject.source.len();
    let legacy = subject.head.get(..32).unwrap_or(subject.head).windows(MAGIC.len()).any(|w| w == MAGIC)
        || subject.head.starts_with(MAGIC_TEXT);
    let (mut at, mut number) = (0, 0);
    while at < end {
        number += 1;
        if sink.work_left() == 0 {
            sink.stopped(subject.place);
            return Ok(());
        }
        if number > ROW {
            let what = format!("more than {ROW} pickles stand in a row");
            sink.finding(subject.finding("unreadable", Verdict::Unknown, what).at(at));
            return Ok(());
        }
        let stream = Stream { subject, number, expected: number == 1 && is_expected(subject), from: at };
        match stream.inspect(sink)? {
            Some(next) => at = next.max(at + 1),
            None => {
                at += 1;
                break;
            }
        }
        if legacy && number == 5 {
            // The storages, which are read as numbers.
            return Ok(());
        }
        let next = read(subject.source, at, 4096)?;
        let more = begins(&next) || begins_unmarked(&next) || (legacy && number < 5);
        if at < end && !more {
            break;
        }
    }
    if at < end && subject.role != Role::Guess { search(subject, sink, at, end) } else { Ok(()) }
}

fn is_expected(subject: &Subject<'_>) -> bool {
    matches!(subject.role, Role::Pickle | Role::Script) || is_named(subject)
}

fn read(source: &Source, at: u64, most: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; source.len().saturating_sub(at).min(most) as usize];
    source.reader().read_at(at, &mut bytes)?;
    Ok(bytes)
}

/// One pickle of a subject.
struct Stream<'a> {
    subject: &'a Subject<'a>,
    number: u32,
    /// Whether something says that it is a pickle, beside its bytes.
    expected: bool,
    from: u64,
}

impl Stream<'_> {
    /// Looks at it; where it ends, if it ends by STOP.
    fn inspect(&self, sink: &mut Sink<'_>) -> Result<Option<u64>> {
        let guess = self.subject.role == Role::Guess;
        let script = self.subject.role == Role::Script;
        let tar = self.subject.name == "pickle" && !self.subject.place.members.is_empty();
        let work = sink.work_left();
        let opcodes = if guess { sink.effort_left().max(1) } else { 0 };
        let mut trace =
            Trace::new(self.subject.source, self.from, Mode { joblib: true, script, tar, opcodes, work });
        let end = trace.run()?;
        sink.worked(trace.work + BEGUN);
        let (stopped, fault_at) = (trace.input.offset(), trace.start);
        trace.settle_names();
        if guess {
            sink.effort(trace.count);
        }
        let does = trace.events.iter().any(search::does_something);
        let named = trace.events.iter().any(|e| e.callable.is_some());
        let is_pickle = match (&end, guess) {
            (End::Stop, true) => does || named,
            (_, true) => does,
            (End::Stop | End::Weary, false) => true,
            (_, false) => self.expected || does || trace.count >= PLAUSIBLE,
        };
        // What a pickle holds is followed whether or not anything else was found in it.
        if is_pickle || end == End::Stop {
            for nested in std::mem::take(&mut trace.nested) {
                self.follow(nested, sink)?;
            }
        }
        if !is_pickle {
            return Ok((end == End::Stop).then_some(stopped));
        }
        let place = self.place();
        for name in trace.names.iter().map(judge::Name::dotted) {
            if let Some(reason) = sink.policy.denies(&name, &place.file) {
                let what = format!("it names {name}");
                let mut found = finding(&place, "pickle-global", Verdict::Dangerous, what).callable(name);
                found.why = format!("refused by the policy: {reason}");
                sink.finding(found);
            }
        }
        let wrappers = trace.wrappers;
        for event in std::mem::take(&mut trace.events) {
            sink.finding(self.finding(&place, event));
        }
        drop(trace);
        if wrappers {
            self.inspect_plain(&place, sink)?;
        }
        match end {
            End::Stop => Ok(Some(stopped)),
            End::Enough => Ok(None),
            End::Weary => {
                let mut place = place;
                place.offset = Some(fault_at);
                sink.stopped(&place);
                Ok(None)
            }
            End::Broken(why) => {
                let what = format!("the pickle breaks at byte {fault_at}: {why}");
                sink.finding(finding(&place, "pickle-broken", Verdict::Unknown, what).at(fault_at));
                Ok(None)
            }
        }
    }

    /// Looks at a dump of joblib's as Python's own pickle would read it, which takes its arrays for opcodes. That breaks
    /// soon, unless somebody put opcodes there.
    fn inspect_plain(&self, place: &Place, sink: &mut Sink<'_>) -> Result<()> {
        let mode = Mode { work: sink.work_left(), ..Mode::default() };
        let mut trace = Trace::new(self.subject.source, self.from, mode);
        let end = trace.run()?;
        sink.worked(trace.work + BEGUN);
        if end == End::Weary {
            sink.stopped(place);
        }
        for event in trace.events {
            if event.verdict == Verdict::Dangerous && search::does_something(&event) {
                sink.finding(self.finding(place, event));
            }
        }
        Ok(())
    }

    fn follow(&self, nested: Nested, sink: &mut Sink<'_>) -> Result<()> {
        let source = match nested.bytes {
            Some(bytes) => Source::from_bytes(bytes),
            None => Source::from_reader(Arc::new(self.subject.source.slice(nested.at, nested.length)?)),
        };
        let mut place = self.place();
        place.members.push(nested.label);
        sink.nested_as(nested.role, "", source, place);
        Ok(())
    }

    fn place(&self) -> Place {
        match self.number {
            1 => self.subject.place.clone(),
            n => self.subject.inside(format!("pickle {n}")),
        }
    }

    fn finding(&self, place: &Place, event: Event) -> Finding {
        let mut found = finding(place, event.rule, event.verdict, event.what).at(event.offset);
        if event.times > 1 {
            found.what = format!("{} ({} times)", found.what, event.times);
        }
        // What was named and not called does harm only by whoever calls it.
        if event.verdict == Verdict::Unknown {
            found.severity = found.severity.min(Severity::Medium);
        }
        found.opcode = opcode::name(event.opcode);
        found.callable = event.callable;
        found.arguments = event.arguments;
        found
    }
}
