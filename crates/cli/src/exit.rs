//! Exit codes: the one table, which the help, the manual and the tests go by.

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Success = 0,
    /// An error, a wrong command line included.
    Error = 2,
}

/// The table as the help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    success
  2    an error, a wrong command line included";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
