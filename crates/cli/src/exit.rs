//! Exit codes: the one table, which the help, the manual and the tests go by.

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done; for `diff`, `check` and `verify`: no difference; for `scan`: clean.
    Success,
    /// `diff`, `check` or `verify` found a difference; `checkpoint resume` no checkpoint, or `checkpoint verify` a damaged one.
    Different,
    /// An error, a wrong command line included.
    Error,
    /// `scan` found what would run code or mislead a loader.
    Dangerous,
    /// `scan` found nothing dangerous, and something that it does not know.
    Unknown,
    /// An error of `scan`, whose other codes take that of errors.
    ScanError,
    /// Stopped by the user; nothing half-written is left.
    Interrupted,
}

impl Exit {
    /// The number that the process ends with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Different | Self::Dangerous => 1,
            Self::Error | Self::Unknown => 2,
            Self::ScanError => 3,
            Self::Interrupted => 130,
        }
    }

    /// What errors end with: those of `scan` must not be taken for its verdicts. By the command line as it stands,
    /// since a wrong one, or a fault, has nothing better.
    pub(crate) fn of_error() -> Self {
        let scans = std::env::args_os().nth(1).is_some_and(|first| first == "scan");
        if scans { Self::ScanError } else { Self::Error }
    }
}

/// The table as the help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    success; for `diff`, `check` and `verify`: no difference; for `scan`: clean
  1    `diff`, `check` or `verify` found a difference; `scan` found danger;
       `checkpoint` found none to resume, or a damaged one
  2    an error, a wrong command line included; for `scan`: something unknown, and no danger
  3    an error of `scan`
  130  stopped by Ctrl-C or SIGTERM; nothing half-written is left";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
