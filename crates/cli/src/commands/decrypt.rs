//! `weighbridge decrypt`: what an age file holds, as a file or folder again.

use std::path::PathBuf;
use std::time::Instant;

use weighbridge::Result;
use weighbridge::trust::encrypt::{DecryptOptions, decrypt};

use super::keys::{self, Keys};
use crate::exit::Exit;
use crate::output::{self, count, one_line, size};
use crate::writing::Writing;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge decrypt bert-base.age bert-base/ -i key.txt
  weighbridge decrypt model.safetensors.age model.safetensors -i ~/.ssh/id_ed25519
  WEIGHBRIDGE_PASSPHRASE=… weighbridge decrypt model.safetensors.age model.safetensors

What is written is the owner's alone (600, folders 700) unless --mode says otherwise. It appears after all of it was \
found to be what was encrypted. `inspect`, `convert`, `diff` and `hash` read an encrypted file as it is: `-i key.txt`.")]
pub(crate) struct Args {
    /// The encrypted file
    path: PathBuf,
    /// The file to write, or the folder where a folder was encrypted
    out: PathBuf,
    #[command(flatten)]
    keys: Keys,
    /// Unpack a tar that another program encrypted
    #[arg(long, conflicts_with = "file")]
    folder: bool,
    /// Write one file, of a folder its tar
    #[arg(long)]
    file: bool,
    /// Permissions of the files, in octal. Default: 600
    #[arg(long, value_name = "MODE", value_parser = keys::parse_mode)]
    mode: Option<u32>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let began = Instant::now();
    let identities = args.keys.identities(&args.path)?;
    let progress = args.writing.progress();
    let mut options = DecryptOptions::default();
    options.unpack = if args.folder || args.file { Some(args.folder) } else { None };
    args.writing.apply(&mut options.execute);
    options.execute.mode = args.mode;
    options.execute.observer = Some(&progress);
    let done = decrypt(&args.path, &args.out, &identities, &options)?;
    drop(progress);
    let seconds = began.elapsed().as_secs_f64();
    if args.writing.json {
        let files = done.written.files.iter().map(|f| f.to_string_lossy()).collect::<Vec<_>>();
        let report = serde_json::json!({
            "source": args.path.to_string_lossy(),
            "folder": done.folder,
            "files": files,
            "bytes": done.written.bytes,
            "seconds": seconds,
        });
        output::emit(format!("{report}\n").as_bytes())?;
    } else if !args.writing.quiet {
        let files =
            if done.folder { count(done.written.files.len() as u64, "file") } else { "a file".into() };
        let line = format!(
            "decrypted {} to {}: {files}, {} in {seconds:.2} s\n",
            one_line(&args.path.to_string_lossy()),
            one_line(&args.out.to_string_lossy()),
            size(done.written.bytes)
        );
        output::emit(line.as_bytes())?;
    }
    Ok(Exit::Success)
}
