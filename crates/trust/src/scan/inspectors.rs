//! Which inspectors look at what: by content first, by names second, and every one that fits.
//!
//! A file may be two things at once, and its loader decides which one counts. So each inspector whose mark fits looks
//! at it; where none fits, the bytes are searched for pickles.

use weighbridge_formats::{ErrorKind, Result};

use super::others::OTHERS;
use super::report::Verdict;
use super::subject::{Role, Sink, Subject};
use super::unpack::Packing;
use super::{containers, pickle, script, zip};

/// One kind of thing that is looked at.
pub(super) struct Inspector {
    /// What the report calls it.
    pub(super) kind: &'static str,
    /// Whether a subject is, or may be, such a thing.
    pub(super) fits: fn(&Subject<'_>) -> bool,
    /// Looks at it.
    pub(super) inspect: fn(&Subject<'_>, &mut Sink<'_>) -> Result<()>,
    /// Whether the bytes are claimed by that: nobody searches them for pickles.
    pub(super) claims: bool,
}

/// A new kind is a row here. What is claimed is not searched for pickles.
static INSPECTORS: &[Inspector] = &[
    Inspector { kind: "zip", fits: zip::fits, inspect: zip::inspect, claims: true },
    Inspector {
        kind: "tar",
        fits: |s| containers::is_tar(s.head),
        inspect: containers::inspect_tar,
        claims: true,
    },
    Inspector {
        kind: "compressed",
        fits: |s| Packing::of(s.head).is_some(),
        inspect: containers::inspect_packed,
        claims: true,
    },
    Inspector {
        kind: "npy",
        fits: |s| s.head.starts_with(b"\x93NUMPY"),
        inspect: containers::inspect_npy,
        claims: true,
    },
    Inspector {
        kind: "archive",
        fits: |s| containers::is_unread(s.head),
        inspect: containers::refuse,
        claims: false,
    },
    Inspector {
        kind: "encrypted",
        fits: |s| containers::is_encrypted(s.head),
        inspect: containers::refuse_encrypted,
        claims: false,
    },
    Inspector {
        kind: "program",
        fits: |s| containers::executable(s).is_some(),
        inspect: containers::inspect_executable,
        claims: false,
    },
    Inspector {
        kind: "stand-in",
        fits: |s| containers::stand_in(s).is_some(),
        inspect: containers::inspect_stand_in,
        claims: false,
    },
    Inspector { kind: "torchscript code", fits: script::fits, inspect: script::inspect, claims: true },
    Inspector {
        kind: "pickle",
        fits: |s| {
            matches!(s.role, Role::Pickle | Role::Script)
                || pickle::begins(s.head)
                || pickle::begins_unmarked(s.head)
        },
        inspect: pickle::inspect,
        claims: true,
    },
];

/// Looks at a subject with every inspector that fits it. One that fails leaves a finding: what could not be read was not
/// looked at.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let mut claimed = false;
    for inspector in INSPECTORS.iter().chain(OTHERS).filter(|i| (i.fits)(subject)) {
        claimed |= inspector.claims;
        sink.kind(inspector.kind);
        if let Err(error) = (inspector.inspect)(subject, sink) {
            unreadable(subject, inspector.kind, &error, sink);
        }
    }
    if claimed || subject.role == Role::Numbers || subject.role == Role::Guess {
        return;
    }
    let searched = if pickle::is_named(subject) {
        sink.kind("pickle");
        pickle::inspect(subject, sink)
    } else {
        pickle::search(subject, sink, 0, subject.source.len())
    };
    if let Err(error) = searched {
        unreadable(subject, "bytes", &error, sink);
    }
}

fn unreadable(subject: &Subject<'_>, kind: &str, error: &weighbridge_formats::Error, sink: &mut Sink<'_>) {
    let what = match error.kind() {
        ErrorKind::LimitExceeded => format!("looking at it as {kind} met a limit: {}", error.message()),
        _ => format!("it cannot be read as {kind}: {}", error.message()),
    };
    let mut finding = subject.finding("unreadable", Verdict::Unknown, what);
    finding.place.offset = error.offset();
    if let Some(hint) = error.hint() {
        finding.fix = hint.to_owned();
    }
    sink.finding(finding);
}
