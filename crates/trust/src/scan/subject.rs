//! What an inspector gets to see, and where it puts what it finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weighbridge_formats::{Limits, Source};

use super::policy::Policy;
use super::report::{Finding, Place, Verdict};
use super::rules::rule;
use super::unpack::{Packing, SMALL};

/// How much of a subject's beginning is read before anything looks at it.
pub(crate) const HEAD: u64 = 4096;

/// What is known of a part before it is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// A file or a member: it may be anything, and is looked at in full.
    #[default]
    Anything,
    /// A loader will unpickle it.
    Pickle,
    /// Bytes of another format that may happen to look like something: what turns out to be nothing is no finding.
    Guess,
    /// The numbers of tensors: only the beginning is looked at.
    Numbers,
    /// A pickle, object or code of a TorchScript program, whose own loader resolves names in the program.
    Script,
}

/// Something to look at: a file, a member of one, bytes in a pickle.
pub(crate) struct Subject<'a> {
    /// Its bytes.
    pub(crate) source: &'a Source,
    /// The name of the file or member.
    pub(crate) name: &'a str,
    /// Where it stands.
    pub(crate) place: &'a Place,
    /// The first bytes, at most [`HEAD`].
    pub(crate) head: &'a [u8],
    /// What is known of it.
    pub(crate) role: Role,
}

impl Subject<'_> {
    /// The last part of the name, in lower case.
    pub(crate) fn file_name(&self) -> String {
        self.name.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase()
    }

    /// Whether the name ends in one of these extensions.
    pub(crate) fn has_extension(&self, extensions: &[&str]) -> bool {
        let name = self.file_name();
        extensions.iter().any(|e| name.strip_suffix(e).is_some_and(|rest| rest.ends_with('.')))
    }

    /// A finding in this subject, with what its rule says of such.
    pub(crate) fn finding(&self, id: &str, verdict: Verdict, what: impl Into<String>) -> Finding {
        finding(self.place, id, verdict, what)
    }

    /// The place of a part of this subject.
    pub(crate) fn inside(&self, part: impl Into<String>) -> Place {
        let mut place = self.place.clone();
        place.members.push(part.into());
        place.offset = None;
        place
    }
}

/// A finding at a place, with what its rule says of such.
pub(crate) fn finding(place: &Place, id: &str, verdict: Verdict, what: impl Into<String>) -> Finding {
    let rule = rule(id);
    Finding {
        rule: rule.id,
        verdict,
        severity: rule.severity,
        place: place.clone(),
        opcode: None,
        callable: None,
        arguments: None,
        what: what.into(),
        why: rule.why.to_owned(),
        fix: rule.help.to_owned(),
    }
}

impl Finding {
    /// States where it stands in the innermost part.
    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.place.offset = Some(offset);
        self
    }

    /// States another severity than the rule's.
    pub(crate) fn severity(mut self, severity: super::Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Names the callable, class or operator.
    pub(crate) fn callable(mut self, name: impl Into<String>) -> Self {
        self.callable = Some(name.into());
        self
    }
}

/// What one file may cost, whatever it says.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How deep containers may stand in each other.
    pub depth: usize,
    /// The most parts (members, pickles, bytes in pickles) that are looked at.
    pub parts: u64,
    /// The bytes that may be unpacked, whatever the file's size.
    pub unpacked: u64,
    /// How many more for each byte of the file.
    pub unpacked_per_byte: u64,
    /// The most findings that are kept.
    pub findings: usize,
    /// How long pickles of a file may be traced, in units of about a nanosecond, and an eighth of one more for each byte of
    /// the file; unpacking it and searching it for pickles has five of its own for each byte. What is left then is not
    /// looked at, and that is a finding.
    pub work: u64,
}

/// The work of unpacking and searching that each byte of a file may cost.
const BULK_PER_BYTE: u64 = 5;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            depth: 8,
            parts: 1_000_000,
            unpacked: 128 << 20,
            unpacked_per_byte: 24,
            findings: 1000,
            work: 330_000_000,
        }
    }
}

/// What is left of a file's allowance of unpacked bytes; readers that unpack lazily share it.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: AtomicU64,
}

impl Allowance {
    pub(crate) fn new(bounds: &Bounds, length: u64) -> Arc<Self> {
        let bytes = bounds.unpacked.saturating_add(length.saturating_mul(bounds.unpacked_per_byte));
        Arc::new(Self { left: AtomicU64::new(bytes) })
    }

    /// Takes some of it; whether so much was left.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let took =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        took.is_ok()
    }
}

/// A part that waits to be looked at.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) place: Place,
    pub(crate) role: Role,
    /// How its bytes are packed, if they are: they are unpacked when its turn comes.
    pub(crate) packing: Option<Packing>,
}

/// Where inspectors put what they find in a file.
pub(crate) struct Sink<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) bounds: &'a Bounds,
    pub(crate) policy: &'a Policy,
    pub(crate) allowance: Arc<Allowance>,
    /// What unpacks to no more than this is kept in memory.
    pub(crate) keep: usize,
    findings: Vec<Finding>,
    kinds: Vec<String>,
    /// What the subject that is being looked at led to, in the order of the file.
    pending: Vec<Part>,
    parts: u64,
    /// What was found past the bound, and whether that was said.
    dropped: Option<Verdict>,
    full: bool,
    /// How many opcodes may still be spent on what only may be a pickle.
    effort: u64,
    /// What is left of [`Bounds::work`], and whether it was said that nothing is.
    work: u64,
    /// What is left for unpacking and searching beside that.
    bulk: u64,
    weary: bool,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(limits: &'a Limits, bounds: &'a Bounds, policy: &'a Policy, length: u64) -> Self {
        Self {
            limits,
            bounds,
            policy,
            allowance: Allowance::new(bounds, length),
            keep: SMALL,
            findings: Vec::new(),
            kinds: Vec::new(),
            pending: Vec::new(),
            parts: 0,
            dropped: None,
            full: false,
            effort: length.saturating_add(1 << 22),
            work: bounds.work.saturating_add(length / 8),
            // What is searched or unpacked is mostly weights, and takes about that.
            bulk: length.saturating_mul(BULK_PER_BYTE),
            weary: false,
        }
    }

    /// Takes a finding. Past the bound only the worst verdict is kept, and that there were more.
    pub(crate) fn finding(&mut self, finding: Finding) {
        if self.findings.len() < self.bounds.findings {
            self.findings.push(finding);
        } else {
            self.dropped = self.dropped.max(Some(finding.verdict));
        }
    }

    /// Takes from the work that the file may cost.
    pub(crate) fn worked(&mut self, units: u64) {
        self.work = self.work.saturating_sub(units);
    }

    /// The same of what unpacking and searching took, which grows with the file.
    pub(crate) fn worked_in_bulk(&mut self, units: u64) {
        let bulk = units.min(self.bulk);
        self.bulk -= bulk;
        self.worked(units - bulk);
    }

    pub(crate) fn work_left(&self) -> u64 {
        self.work
    }

    /// Says once that the file was not looked at to its end.
    pub(crate) fn stopped(&mut self, place: &Place) {
        if !std::mem::replace(&mut self.weary, true) {
            let what = "the scan stopped here: its pickles take more work than a file may cost".to_owned();
            self.finding(finding(place, "unreadable", Verdict::Unknown, what));
        }
    }

    /// Takes from what may be spent on guesses; whether anything was left.
    pub(crate) fn effort(&mut self, opcodes: u64) -> bool {
        let left = self.effort > 0;
        self.effort = self.effort.saturating_sub(opcodes);
        left
    }

    pub(crate) fn effort_left(&self) -> u64 {
        self.effort
    }

    /// Notes what the file is made of.
    pub(crate) fn kind(&mut self, kind: &str) {
        if self.kinds.len() < 32 && !self.kinds.iter().any(|k| k == kind) {
            self.kinds.push(kind.to_owned());
        }
    }

    /// Has a part looked at, after the subject at hand. Whether it will be: depth and number are bounded, and the
    /// bound is a finding.
    pub(crate) fn nested(&mut self, name: impl Into<String>, source: Source, place: Place) -> bool {
        self.nested_as(Role::Anything, name, source, place)
    }

    /// As [`Sink::nested`], with what is known of the part.
    pub(crate) fn nested_as(
        &mut self,
        role: Role,
        name: impl Into<String>,
        source: Source,
        place: Place,
    ) -> bool {
        self.queue(Part { name: name.into(), source, place, role, packing: None })
    }

    /// As [`Sink::nested_as`], for bytes that are packed.
    pub(crate) fn nested_packed(
        &mut self,
        role: Role,
        name: impl Into<String>,
        source: Source,
        place: Place,
        packing: Packing,
    ) -> bool {
        self.queue(Part { name: name.into(), source, place, role, packing: Some(packing) })
    }

    fn queue(&mut self, part: Part) -> bool {
        let place = &part.place;
        self.parts += 1;
        if self.parts > self.bounds.parts || place.members.len() > self.bounds.depth {
            if !self.full {
                self.full = true;
                let what = format!(
                    "parts stand in each other more than {} deep, or are more than {}: what is further in was not \
                     looked at",
                    self.bounds.depth, self.bounds.parts
                );
                self.finding(finding(place, "zip-bomb", Verdict::Unknown, what));
            }
            return false;
        }
        self.pending.push(part);
        true
    }

    /// What the subject led to.
    pub(crate) fn take_pending(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.pending)
    }

    /// Everything that was found, and what the file is made of.
    pub(crate) fn close(mut self, place: &Place) -> (Vec<Finding>, Vec<String>) {
        if let Some(worst) = self.dropped {
            let what = format!("more was found than the {} findings that are listed", self.bounds.findings);
            self.findings.push(finding(place, "unreadable", worst, what));
        }
        (self.findings, self.kinds)
    }
}
