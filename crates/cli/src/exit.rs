//! Exit codes: the one table, which the help, the manual and the tests go by.

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done; for `diff` and `check`: no difference.
    Success = 0,
    /// `diff` or `check` found a difference; `checkpoint resume` no checkpoint, or `checkpoint verify` a damaged one.
    Different = 1,
    /// An error, a wrong command line included.
    Error = 2,
    /// Stopped by the user; nothing half-written is left.
    Interrupted = 130,
}

/// The table as the help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    success; for `diff` and `check`: no difference
  1    `diff` or `check` found a difference; `checkpoint` found none to resume, or a damaged one
  2    an error, a wrong command line included
  130  stopped by Ctrl-C or SIGTERM; nothing half-written is left";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
