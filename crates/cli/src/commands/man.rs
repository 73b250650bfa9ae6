//! `weighbridge man`: the manual pages, from the same definitions.

use std::path::PathBuf;

use clap::CommandFactory as _;
use weighbridge::{Error, Result};

use crate::{Cli, exit::Exit, output};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge man | man -l -
  weighbridge man --dir ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// Write one page for the command and one for each subcommand into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut command = Cli::command();
    command.build();
    let render = |command: &clap::Command| -> Result<Vec<u8>> {
        let mut page = Vec::new();
        let made = clap_mangen::Man::new(command.clone()).render(&mut page);
        made.map_err(|e| Error::io("making the manual page", e))?;
        Ok(page)
    };
    let Some(dir) = &args.dir else {
        output::emit(&render(&command)?)?;
        return Ok(Exit::Success);
    };
    std::fs::create_dir_all(dir).map_err(|e| Error::io("creating the folder", e).with_path(dir))?;
    // Subcommands have subcommands: every one has its page.
    let mut pages = vec![&command];
    while let Some(page) = pages.pop() {
        pages.extend(page.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help"));
        let name = page.get_display_name().unwrap_or(page.get_name());
        let path = dir.join(format!("{name}.1"));
        std::fs::write(&path, render(page)?).map_err(|e| Error::io("writing", e).with_path(&path))?;
    }
    Ok(Exit::Success)
}
