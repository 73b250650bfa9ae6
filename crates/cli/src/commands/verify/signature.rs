//! `weighbridge verify --signature`: a model held against a signature.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weighbridge::trust::sign::{
    Certificate, Change, Difference, PublicKey, Roots, Trust, Verification, VerifyOptions, verify_file,
};
use weighbridge::{Error, ErrorKind, Result};

use crate::exit::Exit;
use crate::output::{self, count, one_line, size};
use crate::progress::Progress;

/// How many files that are not covered are listed for people.
const SHOWN: usize = 10;

#[derive(clap::Args)]
pub(crate) struct SignatureArgs {
    /// Hold the model against this signature
    #[arg(long, value_name = "FILE", requires = "trust",
          conflicts_with_all = ["manifest", "quick", "sha256", "tensors_only", "repair"])]
    pub(super) signature: Option<PathBuf>,
    /// The public key (PEM) that must have signed
    #[arg(long, value_name = "FILE", group = "trust", requires = "signature")]
    public_key: Option<PathBuf>,
    /// Root certificates (PEM) that are trusted, and others that help to lead there
    #[arg(long, value_name = "FILE", group = "trust", requires = "signature", num_args = 1..)]
    certificate_roots: Vec<PathBuf>,
    /// The certificates must be valid today, not only when the signer's began to be
    #[arg(long, requires = "certificate_roots")]
    valid_now: bool,
    /// Files below this path in the model's folder may be there without being signed
    #[arg(long, value_name = "PATH", requires = "signature")]
    ignore: Vec<String>,
    /// Any file may be there without being signed
    #[arg(long, requires = "signature")]
    ignore_unsigned: bool,
}

pub(super) fn run(args: &super::Args, signature: &Path) -> Result<Exit> {
    let given = &args.signature;
    let trust = match &given.public_key {
        Some(path) => Trust::Key(PublicKey::from_file(path)?),
        None => Trust::Roots(Roots::from_files(&given.certificate_roots)?),
    };
    let progress = Progress::new(args.json);
    let mut options = VerifyOptions::default();
    options.ignore.clone_from(&given.ignore);
    options.ignore_unsigned = given.ignore_unsigned;
    options.valid_now = given.valid_now;
    options.threads = args.threads.map(usize::from);
    options.observer = Some(&progress);
    let found = verify_file(&args.path, signature, &trust, &options);
    drop(progress);
    match found {
        Ok(found) => {
            let text =
                if args.json { format!("{}\n", json_of(signature, &found)) } else { text(signature, &found) };
            output::emit(text.as_bytes())?;
            Ok(if found.holds() { Exit::Success } else { Exit::Different })
        }
        Err(e) if e.kind() == ErrorKind::Mismatch => refused(signature, &e, args.json),
        Err(e) => Err(e),
    }
}

/// The signature itself does not hold: an answer, not an error.
fn refused(signature: &Path, error: &Error, as_json: bool) -> Result<Exit> {
    if as_json {
        let value = json!({
            "holds": false,
            "signature": signature.to_string_lossy(),
            "reason": error.message(),
            "differences": [],
            "uncovered": [],
        });
        output::emit(format!("{value}\n").as_bytes())?;
    } else {
        output::print_error(error, false);
    }
    Ok(Exit::Different)
}

fn text(signature: &Path, found: &Verification) -> String {
    let mut out = String::new();
    for difference in &found.differences {
        let (name, word) = (one_line(&difference.name), difference.word());
        let what = match &difference.change {
            Change::Renamed { to } => format!(": it is now {}", one_line(to)),
            Change::Swapped { with } => format!(": it has the content of {}", one_line(with)),
            Change::NoFile { is, signed: true } => format!(": it is {is} now"),
            Change::NoFile { is, signed: false } => format!(": it was not signed, and is {is}"),
            _ => String::new(),
        };
        let _ = writeln!(out, "{word:<10} {name}{what}");
    }
    for name in found.uncovered.iter().take(SHOWN) {
        let _ = writeln!(out, "unsigned   {}: the signature does not cover it", one_line(name));
    }
    if found.uncovered.len() > SHOWN {
        let _ = writeln!(out, "unsigned   … {} more", found.uncovered.len() - SHOWN);
    }
    let by = match &found.signed_by.certificate {
        Some(certificate) => {
            let (_, end) = certificate.validity_text();
            let expired =
                if is_expired(certificate) { format!(", which expired at {end}") } else { String::new() };
            format!("the certificate of {}{expired}", one_line(&certificate.subject()))
        }
        None => format!(
            "the {} key {}",
            found.signed_by.kind.name(),
            output::shortened(&found.signed_by.hint, 16)
        ),
    };
    let signed = format!(
        "{} signed by {by} ({})",
        count(found.files as u64, "file"),
        one_line(&signature.to_string_lossy())
    );
    let _ = if found.holds() {
        writeln!(out, "ok         {signed}, {}", size(found.bytes))
    } else {
        writeln!(out, "different  {} in {signed}", count(found.differences.len() as u64, "difference"))
    };
    out
}

fn is_expired(certificate: &Certificate) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    certificate.validity().1 < now
}

fn json_of(signature: &Path, found: &Verification) -> Value {
    let certificate = found.signed_by.certificate.as_ref().map(|c| {
        let (begin, end) = c.validity_text();
        json!({
            "subject": c.subject(),
            "issuer": c.issuer(),
            "sha256": c.fingerprint(),
            "not_before": begin,
            "not_after": end,
            "expired": is_expired(c),
        })
    });
    json!({
        "holds": found.holds(),
        "signature": signature.to_string_lossy(),
        "reason": Value::Null,
        "model": found.model,
        "root": found.root,
        "hash": found.hash.name(),
        "shard_size": found.shard_size,
        "files": found.files,
        "bytes": found.bytes,
        "signed_by": { "key": found.signed_by.kind.name(), "sha256": found.signed_by.hint, "certificate": certificate },
        "differences": found.differences.iter().map(difference_json).collect::<Vec<_>>(),
        "uncovered": found.uncovered,
    })
}

fn difference_json(difference: &Difference) -> Value {
    let (other, is) = match &difference.change {
        Change::Renamed { to: other } | Change::Swapped { with: other } => (Some(other), None),
        Change::NoFile { is, .. } => (None, Some(is)),
        _ => (None, None),
    };
    json!({ "name": difference.name, "change": difference.word(), "other": other, "is": is })
}
