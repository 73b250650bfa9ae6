//! `weighbridge sign`: a model's files signed by a key, or by a key with certificates; and new keys.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use weighbridge::trust::manifest::Cache;
use weighbridge::trust::sign::{
    Certificate, HashType, KeyKind, Password, PrivateKey, SignOptions, Signed, Signer, sign,
};
use weighbridge::{Error, Result};

use crate::exit::Exit;
use crate::output::{self, count, one_line, size};
use crate::progress::Progress;

/// Where the password of a key may be, besides in a file.
const VARIABLE: &str = "WEIGHBRIDGE_KEY_PASSWORD";

#[derive(clap::Args)]
#[command(after_help = "\
Every file of the folder is signed by its name and SHA-256, in the form of OpenSSF model signing, which the tool \
model_signing verifies too. What git keeps (.git, .gitignore, .gitattributes, .github) is left out, and so is the signature \
if it lies in the folder. Signing again reads only what changed since files were hashed before; --no-cache reads all.

Keys are PEM files: EC on P-256, P-384 or P-521, or Ed25519 (which model_signing 1.1.1 does not verify). The password of an \
encrypted one is the first line of --password-file, or in the environment as WEIGHBRIDGE_KEY_PASSWORD.

Examples:
  weighbridge sign --generate-key key.pem
  weighbridge sign model/ --key key.pem --signature model.sig
  weighbridge sign model/ --key key.pem --certificate me.pem --certificate-chain ca.pem \\
    --signature model.sig
  weighbridge verify model/ --signature model.sig --public-key key.pub.pem")]
pub(crate) struct Args {
    /// A model's folder, or a file
    #[arg(required_unless_present = "generate_key", requires_all = ["key", "signature"])]
    path: Option<PathBuf>,
    /// The private key (PEM)
    #[arg(long, value_name = "FILE", requires = "path")]
    key: Option<PathBuf>,
    /// The file to write the signature to; one that is there is replaced
    #[arg(long, value_name = "FILE", requires = "path")]
    signature: Option<PathBuf>,
    /// The certificate of the key (PEM)
    #[arg(long, value_name = "FILE", requires = "path")]
    certificate: Option<PathBuf>,
    /// The certificates between that one and the root (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate", num_args = 1..)]
    certificate_chain: Vec<PathBuf>,
    /// The file whose first line is the key's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Leave out this path in the model's folder, and what is below it
    #[arg(long, value_name = "PATH", requires = "path")]
    ignore: Vec<String>,
    /// Sign what git keeps too
    #[arg(long, requires = "path")]
    include_git: bool,
    /// Sign what symbolic links to files lead to
    #[arg(long, requires = "path")]
    allow_symlinks: bool,
    /// The hash of files
    #[arg(long, value_name = "HASH", default_value = "sha256", value_parser = parse_hash)]
    hash: HashType,
    /// A digest for every so many bytes of a file
    #[arg(long, value_name = "SIZE", value_parser = output::parse_size)]
    shard_size: Option<u64>,
    /// Read every file, whether it changed or not
    #[arg(long)]
    no_cache: bool,
    /// Make a key: FILE, which only you can read, and its public half beside it
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    generate_key: Option<PathBuf>,
    /// The kind of the new key: p256, p384, p521 or ed25519
    #[arg(long, value_name = "KIND", default_value = "p256", value_parser = parse_kind)]
    key_kind: KeyKind,
    /// Threads that hash
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_hash(text: &str) -> std::result::Result<HashType, String> {
    HashType::ALL
        .into_iter()
        .find(|h| h.name() == text)
        .ok_or_else(|| "one of sha256, blake2b, blake3 is wanted".into())
}

fn parse_kind(text: &str) -> std::result::Result<KeyKind, String> {
    KeyKind::ALL
        .into_iter()
        .find(|k| k.name() == text)
        .ok_or_else(|| "one of p256, p384, p521, ed25519 is wanted".into())
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let password = match &args.password_file {
        Some(path) => Some(Password::from_file(path)?),
        None => Password::from_environment(VARIABLE),
    };
    if let Some(path) = &args.generate_key {
        return generate(path, args, password.as_ref());
    }
    let (Some(path), Some(key), Some(signature)) = (&args.path, &args.key, &args.signature) else {
        return Err(Error::invalid_options("a model, --key and --signature are wanted"));
    };
    let key = PrivateKey::from_file(key, password.as_ref())?;
    let certificate = args.certificate.as_ref().map(|path| one_certificate(path)).transpose()?;
    let mut chain = Vec::new();
    for path in &args.certificate_chain {
        chain.extend(Certificate::all_from_file(path)?);
    }
    let signer = match &certificate {
        Some(certificate) => Signer::Certificate { key: &key, certificate, chain: &chain },
        None => Signer::Key(&key),
    };
    let cache = if args.no_cache { None } else { Cache::user() };
    let progress = Progress::new(args.quiet || args.json);
    let mut options = SignOptions::default();
    options.hash = args.hash;
    options.shard_size = args.shard_size;
    options.allow_symlinks = args.allow_symlinks;
    options.ignore.clone_from(&args.ignore);
    options.include_git = args.include_git;
    options.threads = args.threads.map(usize::from);
    options.observer = Some(&progress);
    options.cache = cache.as_ref();
    let signed = sign(path, signature, &signer, &options)?;
    drop(progress);
    if let Some(cache) = &cache {
        // A cache that cannot be saved costs time at the next signing, and nothing else.
        let _ = cache.save();
    }
    told(&signed, signature, args.json)
}

fn one_certificate(path: &Path) -> Result<Certificate> {
    let all = Certificate::all_from_file(path)?;
    match <[Certificate; 1]>::try_from(all) {
        Ok([one]) => Ok(one),
        Err(all) => {
            Err(Error::invalid_options(format!("the file has {} certificates, and one is wanted", all.len()))
                .with_path(path)
                .with_hint("those that lead from it to the root are given by --certificate-chain"))
        }
    }
}

fn told(signed: &Signed, signature: &Path, as_json: bool) -> Result<Exit> {
    let mut out = String::new();
    if as_json {
        let value = json!({
            "signature": signature.to_string_lossy(),
            "model": signed.model,
            "root": signed.root,
            "key": signed.key.name(),
            "files": signed.files,
            "bytes": signed.bytes,
            "hashed": signed.hashed,
            "ignored": signed.ignored,
        });
        let _ = writeln!(out, "{value}");
    } else {
        let (files, hashed, all) =
            (count(signed.files as u64, "file"), size(signed.hashed), size(signed.bytes));
        let path = signature.to_string_lossy();
        let _ = writeln!(out, "signed     {files}, {all}, of which {hashed} were read ({})", one_line(&path));
        for name in &signed.ignored {
            let _ = writeln!(out, "left out   {}", one_line(name));
        }
        if signed.key == KeyKind::Ed25519 {
            let _ = writeln!(out, "note       weighbridge verifies Ed25519; model_signing 1.1.1 does not");
        }
    }
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

/// A private key into a file of its own, and the public half beside it.
fn generate(path: &Path, args: &Args, password: Option<&Password>) -> Result<Exit> {
    let public = path.with_extension("pub.pem");
    if public == path {
        return Err(Error::invalid_options("the private key needs a name of its own").with_path(path));
    }
    let key = PrivateKey::generate(args.key_kind);
    let text = key.public().to_pem()?;
    let fail = |what: &'static str| {
        let public = &public;
        move |e| Error::io(what, e).with_path(public)
    };
    if [path, &public].iter().any(|file| std::fs::symlink_metadata(file).is_ok()) {
        let what = "there is a key of this name already, and a key is never replaced";
        return Err(Error::invalid_options(what).with_path(path));
    }
    let mut file = std::fs::File::create_new(&public).map_err(fail("creating the file of the public key"))?;
    let written = key.write_new(path, password);
    if let Err(e) = written {
        let _ = std::fs::remove_file(&public);
        return Err(e);
    }
    file.write_all(text.as_bytes()).map_err(fail("writing the public key"))?;
    let (private, shared, hint) = (path.to_string_lossy(), public.to_string_lossy(), key.public().hint()?);
    let kind = key.kind().name();
    let out = if args.json {
        let encrypted = password.is_some();
        format!(
            "{}\n",
            json!({ "private": private, "public": shared, "key": kind, "sha256": hint, "encrypted": encrypted })
        )
    } else {
        let how = if password.is_some() { "encrypted" } else { "not encrypted: keep it safe" };
        format!(
            "private    {} ({kind}, {how})\npublic     {} ({hint})\n",
            one_line(&private),
            one_line(&shared)
        )
    };
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}
