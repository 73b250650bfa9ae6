//! Signing a model: its files are hashed, a statement is made of the digests, and a key signs it.

use std::path::{Path, PathBuf};

use weighbridge_formats::write::{ExecuteOptions, FilePlan, Observer, WritePlan, execute};
use weighbridge_formats::{Error, Result};

use super::bundle::{self, MAX_CERTIFICATES, Material};
use super::certificate::Certificate;
use super::digest::{Hashing, digest};
use super::key::{KeyKind, PrivateKey};
use super::statement::{HashType, Serialization, Statement, colliding, is_model_name};
use super::tree::{Tree, name_inside};
use crate::manifest::files::Cache;

/// What git keeps beside a model and `model-signing` leaves out by default.
const GIT: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// Who signs.
#[derive(Debug)]
pub enum Signer<'a> {
    /// A key that verifiers have the public half of.
    Key(&'a PrivateKey),
    /// A key with a certificate, and those that lead from it to a root.
    Certificate {
        /// The private key.
        key: &'a PrivateKey,
        /// The certificate of its public half.
        certificate: &'a Certificate,
        /// The certificates of the authorities between it and the root, the root if wanted.
        chain: &'a [Certificate],
    },
}

impl Signer<'_> {
    fn key(&self) -> &PrivateKey {
        match self {
            Self::Key(key) | Self::Certificate { key, .. } => key,
        }
    }

    fn material(&self) -> Result<Material> {
        match self {
            Self::Key(key) => Ok(Material::PublicKey(Some(key.public().hint()?))),
            Self::Certificate { key, certificate, chain } => {
                if certificate.public_key()? != key.public() {
                    let what = "the certificate is of another key than the private one";
                    return Err(Error::invalid_options(what));
                }
                if let Some(fault) = certificate.fault_as_signer() {
                    return Err(Error::invalid_options(format!(
                        "the certificate cannot sign models: {fault}"
                    ))
                    .with_hint(
                        "its extensions are to have the key usage digitalSignature, or code signing",
                    ));
                }
                if chain.len() >= MAX_CERTIFICATES {
                    let what = format!("there are more than {MAX_CERTIFICATES} certificates");
                    return Err(Error::invalid_options(what));
                }
                let all = std::iter::once(*certificate).chain(*chain);
                Ok(Material::Chain(all.map(|c| c.der().to_vec()).collect()))
            }
        }
    }
}

/// Choices for signing.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SignOptions<'a> {
    /// The hash of files.
    pub hash: HashType,
    /// A digest for every so many bytes of a file, in place of one for each file. Empty files are then not covered, as the
    /// format has it.
    pub shard_size: Option<u64>,
    /// Take files that symbolic links lead to for what they are. Without leave, a link is an error.
    pub allow_symlinks: bool,
    /// Paths in the model's folder, with `/`, that are left out with everything below them.
    pub ignore: Vec<String>,
    /// Sign what git keeps (`.git`, `.gitignore`, `.gitattributes`, `.github`) too.
    pub include_git: bool,
    /// How many threads hash; `None`: as many as there are processors, at most four.
    pub threads: Option<usize>,
    /// Who is told of the bytes that are done, and may cancel.
    pub observer: Option<&'a dyn Observer>,
    /// Digests of files that have not changed since they were hashed before, so that only the others are read.
    pub cache: Option<&'a Cache>,
}

/// What was signed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Signed {
    /// The bundle, as it is in the file.
    pub bundle: Vec<u8>,
    /// The model's name.
    pub model: String,
    /// The SHA-256 of all digests, in hexadecimal.
    pub root: String,
    /// The kind of the key.
    pub key: KeyKind,
    /// How many files are covered.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many bytes were read for it; the others had not changed since they were hashed before.
    pub hashed: u64,
    /// What is in the folder and not covered.
    pub ignored: Vec<String>,
}

/// Signs a file or folder, and writes the bundle to `signature`, over one that is there.
///
/// # Errors
/// `UnsafeContent` for links and special files; `InvalidOptions` for names that not every system can have, a key that does
/// not fit its certificate, and paths to leave out that are none; `Mismatch` for files that change meanwhile; `Io`,
/// `NotFound`, `LimitExceeded`, `Cancelled`.
pub fn sign(path: &Path, signature: &Path, signer: &Signer<'_>, options: &SignOptions<'_>) -> Result<Signed> {
    let material = signer.material()?;
    let own = name_inside(path, signature);
    let serialization = serialization(own.as_deref(), options)?;
    let ignored = |name: &str| serialization.ignores(name);
    let tree = Tree::list(path, options.allow_symlinks, &ignored)?;
    if tree.single && std::fs::canonicalize(signature).ok() == std::fs::canonicalize(path).ok() {
        return Err(Error::invalid_options("the signature would replace the model").with_path(signature));
    }
    check(&tree, path, &serialization)?;
    let files: Vec<_> = tree.files.iter().collect();
    let hashing = Hashing { threads: options.threads, observer: options.observer, cache: options.cache };
    let (mut digests, hashed) = digest(&files, &serialization, &hashing)?;
    if Tree::list(path, options.allow_symlinks, &ignored)? != tree {
        return Err(super::changed_meanwhile(path));
    }
    digests.retain(|_, file| !file.digests.is_empty());
    let count = digests.len();
    if count == 0 {
        return Err(Error::invalid_options("there is nothing to sign").with_path(path));
    }
    let statement = Statement::new(model_name(path)?, serialization, digests);
    let payload = statement.to_payload()?;
    let key = signer.key();
    let bundle = bundle::write(&payload, &key.sign(&bundle::pae(&payload))?, &material)?;
    write(signature, &bundle)?;
    Ok(Signed {
        bundle,
        model: statement.model,
        root: super::hex(&statement.root),
        key: key.kind(),
        files: count,
        bytes: files.iter().map(|f| f.stamp.size).fold(0, u64::saturating_add),
        hashed,
        ignored: tree.ignored.into_iter().filter(|name| own.as_ref() != Some(name)).collect(),
    })
}

/// Signs a statement that was made elsewhere, and gives the bundle. Nothing is asked of the statement; verifying asks.
///
/// # Errors
/// `InvalidOptions` for a key that does not fit its certificate; `LimitExceeded` for a statement that is too long.
pub fn sign_payload(payload: &[u8], signer: &Signer<'_>) -> Result<Vec<u8>> {
    bundle::write(payload, &signer.key().sign(&bundle::pae(payload))?, &signer.material()?)
}

fn serialization(own: Option<&str>, options: &SignOptions<'_>) -> Result<Serialization> {
    let git = GIT.iter().filter(|_| !options.include_git).map(|name| (*name).to_owned());
    let mut ignore: Vec<String> =
        options.ignore.iter().cloned().chain(own.map(str::to_owned)).chain(git).collect();
    ignore.sort();
    ignore.dedup();
    if let Some(bad) = ignore.iter().find(|path| !is_model_name(path)) {
        return Err(Error::invalid_options(format!(
            "{bad:?} cannot be left out: it is no plain path in the model's folder"
        ))
        .with_hint("paths are relative to the model's folder, such as README.md or runs/old"));
    }
    if options.shard_size == Some(0) {
        return Err(Error::invalid_options("shards have at least one byte"));
    }
    let (hash, shard_size) = (options.hash, options.shard_size);
    Ok(Serialization { hash, shard_size, allow_symlinks: options.allow_symlinks, ignore })
}

/// Whether every file can be signed under its name.
fn check(tree: &Tree, root: &Path, serialization: &Serialization) -> Result<()> {
    if let Some((name, odd)) = tree.odd.first() {
        let what = format!("this is {}, and only plain files can be signed", odd.describe());
        return Err(Error::unsafe_content(what)
            .with_path(root.join(name))
            .with_hint("leave it out by --ignore; --allow-symlinks takes links to files for the files"));
    }
    for file in tree.files.iter().filter(|_| !tree.single) {
        if !is_model_name(&file.name) || serialization.shard_size.is_some() && file.name.contains(':') {
            let what =
                "the file's name is one that not every system can have, or that shards cannot be named by";
            return Err(Error::invalid_options(what).with_path(&file.path));
        }
    }
    let names: Vec<&str> = tree.files.iter().map(|f| f.name.as_str()).collect();
    if let Some((a, b)) = colliding(&names) {
        let what = format!("{a:?} and {b:?} would be one file on some systems");
        return Err(Error::invalid_options(what).with_path(root));
    }
    Ok(())
}

/// The last part of a path, which names the model and only informs.
fn model_name(path: &Path) -> Result<String> {
    let named = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    match named(path) {
        Some(name) => Ok(name),
        None => {
            let full = std::fs::canonicalize(path)
                .map_err(|e| Error::io("resolving the path", e).with_path(path))?;
            Ok(named(&full).unwrap_or_default())
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let wrong = || Error::invalid_options("this is no name for a signature").with_path(path);
    let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(wrong)?;
    let folder =
        path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(PathBuf::from("."), Path::to_owned);
    let mut file = FilePlan::new(name);
    file.push_fixed(bytes.to_vec())?;
    let mut options = ExecuteOptions::default();
    options.overwrite = true;
    options.threads = Some(1);
    execute(WritePlan { files: vec![file], notes: Vec::new() }, &folder, &options).map(drop)
}
