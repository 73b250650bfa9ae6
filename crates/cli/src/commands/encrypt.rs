//! `weighbridge encrypt`: a file or folder in an age file.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Instant;

use weighbridge::trust::encrypt::{
    EncryptOptions, Passphrase, Recipients, encrypt, exposed, generate_identity,
};
use weighbridge::{Error, Result};

use super::keys::{self, PASSPHRASE};
use crate::exit::Exit;
use crate::output::{self, one_line, size};
use crate::writing::Writing;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge encrypt --generate-identity key.txt
  weighbridge encrypt bert-base/ bert-base.age \\
    -r age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  weighbridge encrypt model.safetensors model.safetensors.age -R team.txt -R ~/.ssh/id_ed25519.pub
  weighbridge encrypt model.safetensors model.safetensors.age --passphrase-file secret.txt

Of a folder everything is inside: names, shapes, config and tokenizer. The tool age opens it too: \
`age -d -i key.txt bert-base.age | tar x`.")]
pub(crate) struct Args {
    /// The file or folder to encrypt
    #[arg(required_unless_present = "generate_identity")]
    path: Option<PathBuf>,
    /// The file to write
    #[arg(required_unless_present = "generate_identity")]
    out: Option<PathBuf>,
    /// Make a new secret key in this file, which must not exist, and print its public key
    #[arg(long, value_name = "KEY", conflicts_with_all = ["path", "out", "recipient", "recipients_file", "passphrase", "passphrase_file"])]
    generate_identity: Option<PathBuf>,
    /// A public key that may open it: age1…, or a line of ssh-ed25519 or ssh-rsa. May be repeated
    #[arg(short, long, value_name = "KEY")]
    recipient: Vec<String>,
    /// A file of public keys, one a line. May be repeated
    #[arg(short = 'R', long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// Ask for a passphrase at the terminal, unless WEIGHBRIDGE_PASSPHRASE holds it
    #[arg(short, long, conflicts_with_all = ["recipient", "recipients_file"])]
    passphrase: bool,
    /// The passphrase is the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipient", "recipients_file"])]
    passphrase_file: Option<PathBuf>,
    /// Write text in place of bytes: a third longer, and it can be pasted
    #[arg(short, long)]
    armor: bool,
    /// Permissions of the file, in octal; else those that the umask leaves
    #[arg(long, value_name = "MODE", value_parser = keys::parse_mode)]
    mode: Option<u32>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if let Some(path) = &args.generate_identity {
        return generate(path, args.writing.json);
    }
    let (Some(path), Some(out)) = (&args.path, &args.out) else {
        return Err(Error::invalid_options("a file or folder and the file to write are wanted"));
    };
    let began = Instant::now();
    let recipients = recipients(args)?;
    let progress = args.writing.progress();
    let mut options = EncryptOptions::default();
    options.armor = args.armor;
    args.writing.apply(&mut options.execute);
    options.execute.mode = args.mode;
    options.execute.observer = Some(&progress);
    let folder = path.is_dir();
    let written = encrypt(path, out, &recipients, &options)?;
    drop(progress);
    let seconds = began.elapsed().as_secs_f64();
    if args.writing.json {
        let report = serde_json::json!({
            "source": path.to_string_lossy(),
            "folder": folder,
            "path": out.to_string_lossy(),
            "bytes": written.bytes,
            "armor": args.armor,
            "seconds": seconds,
        });
        output::emit(format!("{report}\n").as_bytes())?;
    } else if !args.writing.quiet {
        let line = format!(
            "encrypted {} to {}: {} in {seconds:.2} s\n",
            one_line(&path.to_string_lossy()),
            one_line(&out.to_string_lossy()),
            size(written.bytes)
        );
        output::emit(line.as_bytes())?;
    }
    Ok(Exit::Success)
}

fn generate(path: &std::path::Path, json: bool) -> Result<Exit> {
    let public = generate_identity(path)?;
    let text = match json {
        true => serde_json::json!({ "path": path.to_string_lossy(), "public_key": public }).to_string(),
        false => public,
    };
    output::emit(format!("{text}\n").as_bytes())?;
    Ok(Exit::Success)
}

/// Who may open the file.
fn recipients(args: &Args) -> Result<Recipients> {
    let mut recipients = Recipients::new();
    for key in &args.recipient {
        recipients.add(key)?;
    }
    for file in &args.recipients_file {
        recipients.add_file(file)?;
    }
    if !recipients.is_empty() {
        return Ok(recipients);
    }
    if let Some(file) = &args.passphrase_file {
        keys::warn(&exposed(file).into_iter().collect::<Vec<_>>());
        return Ok(Recipients::passphrase(&Passphrase::from_file(file)?));
    }
    if let Some(passphrase) = Passphrase::from_env(PASSPHRASE)? {
        return Ok(Recipients::passphrase(&passphrase));
    }
    if args.passphrase && std::io::stdin().is_terminal() {
        let first = keys::ask("passphrase")?;
        if keys::ask("the same again")? != first {
            return Err(Error::invalid_options("the two passphrases differ"));
        }
        return Ok(Recipients::passphrase(&first));
    }
    Err(Error::invalid_options("nobody is named who may open the file").with_hint(format!(
        "give public keys (`-r age1…`, `-R FILE`), or a passphrase (`--passphrase-file FILE`, {PASSPHRASE}, or \
         `--passphrase` at a terminal)"
    )))
}
