//! The options of commands that write: the same in each of them.

use weighbridge::write::ExecuteOptions;

use crate::progress::Progress;

#[derive(clap::Args)]
pub(crate) struct Writing {
    /// Do not wait until the files are on the disk
    #[arg(long)]
    no_fsync: bool,
    /// Threads that do the work
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Print errors, warnings and losses only
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl Writing {
    /// The bar, unless nothing is to be seen of it.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.quiet || self.json)
    }

    /// What the options say of how to write.
    pub(crate) fn apply(&self, execute: &mut ExecuteOptions<'_>) {
        execute.fsync = !self.no_fsync;
        execute.threads = self.threads.map(usize::from);
        execute.overwrite = self.force;
    }
}
