//! The command `weighbridge`: inspect, convert and compare model files.

mod commands;
mod exit;
mod heap;
mod limits;
mod output;
mod progress;
mod values;
mod writing;

use std::process::ExitCode;

use clap::Parser;
use weighbridge::{Error, ErrorKind, Result};

use crate::commands::{
    card, check, checkpoint, completions, convert, decrypt, diff, encrypt, export, formats, hash, inspect,
    man, run, scan, sign, topics, verify, version,
};
use crate::exit::Exit;

/// Inspect, convert and compare machine-learning model files, without Python and without running what a file says
#[derive(Parser)]
#[command(name = "weighbridge", version, propagate_version = true, after_help = after_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The memory that what is read of a file may take, for files that are trusted to need more than 40 MiB
    #[arg(long, global = true, value_name = "SIZE", value_parser = output::parse_size)]
    memory: Option<u64>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what a model file holds; reads its header only
    Inspect(inspect::Args),
    /// Write a model file in another format, dtype or cut
    Convert(Box<convert::Args>),
    /// Build a graph from a model's config and weights that other runtimes run
    Export(export::Args),
    /// Run an ONNX model on arrays, and print, save or time what it gives
    Run(Box<run::Args>),
    /// Run an ONNX model in ONNX Runtime, and compare what it gives with a reference
    Check(Box<check::Args>),
    /// Say what files would do if something loaded them, without loading them
    Scan(scan::Args),
    /// Compare two model files, tensor by tensor, across formats
    Diff(diff::Args),
    /// Hash a model's tensors and files, and write its manifest
    Hash(hash::Args),
    /// Hold a model against its manifest, and repair it
    Verify(Box<verify::Args>),
    /// Sign a model, so that others can verify whose it is and that no file changed
    Sign(Box<sign::Args>),
    /// Assign documents to the topics of a BERTopic model, by their embeddings
    Topics(topics::Args),
    /// List, show, verify, prune and resume the checkpoints of a training
    Checkpoint(checkpoint::Args),
    /// Keep versions of models in a registry folder, with a changelog from what changed
    Version(version::Args),
    /// Write a model card from what a model's files say
    Card(card::Args),
    /// Put a model into an encrypted file, which the tool age opens too
    Encrypt(Box<encrypt::Args>),
    /// Write what an encrypted file holds
    Decrypt(Box<decrypt::Args>),
    /// List the formats, and what of each is read and written
    Formats(formats::Args),
    /// Print a shell's completion script
    Completions(completions::Args),
    /// Print the manual page, or write all pages into a folder
    Man(man::Args),
}

impl Command {
    fn run(&self) -> Result<Exit> {
        match self {
            Self::Inspect(args) => inspect::run(args),
            Self::Convert(args) => convert::run(args),
            Self::Export(args) => export::run(args),
            Self::Run(args) => run::run(args),
            Self::Check(args) => check::run(args),
            Self::Scan(args) => scan::run(args),
            Self::Diff(args) => diff::run(args),
            Self::Hash(args) => hash::run(args),
            Self::Verify(args) => verify::run(args),
            Self::Sign(args) => sign::run(args),
            Self::Topics(args) => topics::run(args),
            Self::Checkpoint(args) => checkpoint::run(args),
            Self::Version(args) => version::run(args),
            Self::Card(args) => card::run(args),
            Self::Encrypt(args) => encrypt::run(args),
            Self::Decrypt(args) => decrypt::run(args),
            Self::Formats(args) => formats::run(args),
            Self::Completions(args) => completions::run(args),
            Self::Man(args) => man::run(args),
        }
    }

    /// Whether the output is for a program.
    fn json(&self) -> bool {
        match self {
            Self::Inspect(args) => args.json,
            Self::Convert(args) => args.json,
            Self::Export(args) => args.json(),
            Self::Run(args) => args.json,
            Self::Check(args) => args.json,
            Self::Scan(args) => args.json,
            Self::Diff(args) => args.json,
            Self::Hash(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Sign(args) => args.json,
            Self::Topics(args) => args.json,
            Self::Checkpoint(args) => args.json(),
            Self::Version(args) => args.json(),
            Self::Card(args) => args.json,
            Self::Encrypt(args) => args.writing.json,
            Self::Decrypt(args) => args.writing.json,
            Self::Formats(args) => args.json,
            Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

fn after_help() -> String {
    format!(
        "Examples:
  weighbridge inspect pytorch_model.bin
  weighbridge convert pytorch_model.bin model.safetensors
  weighbridge convert model.safetensors small/ --to safetensors --dtype bf16 --max-shard-size 5GB
  weighbridge export onnx bert-base model.onnx
  weighbridge diff pytorch_model.bin model.safetensors

{}",
        exit::TABLE
    )
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_fault));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e).into(),
    };
    limits::allow(cli.memory);
    let exit = cli.command.run().unwrap_or_else(|e| {
        output::print_error(&e, cli.command.json());
        if e.kind() == ErrorKind::Cancelled { Exit::Interrupted } else { Exit::of_error() }
    });
    exit.into()
}

/// Help and version to standard output; a wrong command line to standard error, as JSON if that was asked for.
fn usage(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Success;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line).to_owned();
        output::print_error(&Error::invalid_options(line).with_hint("see `weighbridge --help`"), true);
    } else {
        let _ = error.print();
    }
    Exit::of_error()
}

/// A fault of this program ends it with an error like any other, on whichever thread it happens.
fn report_fault(fault: &std::panic::PanicHookInfo<'_>) {
    let place = fault.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
    let text = fault.payload_as_str().unwrap_or("unknown");
    eprintln!("error: fault in weighbridge itself: {text}{place}");
    eprintln!("  hint: please report it with the command line and, if you can, the file");
    std::process::exit(Exit::of_error().code().into());
}
