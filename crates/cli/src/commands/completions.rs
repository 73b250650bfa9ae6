//! `weighbridge completions`: what a shell needs to complete the command, from the same definitions.

use clap::CommandFactory as _;
use clap_complete::Shell;
use weighbridge::Result;

use crate::{Cli, exit::Exit, output};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge completions bash > ~/.local/share/bash-completion/completions/weighbridge
  weighbridge completions zsh > \"${fpath[1]}/_weighbridge\"")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weighbridge", &mut script);
    output::emit(&script)?;
    Ok(Exit::Success)
}
