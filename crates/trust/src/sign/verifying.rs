//! Verifying a model: the signature first, then every file against what was signed.

use std::collections::BTreeMap;
use std::path::Path;

use weighbridge_formats::write::Observer;
use weighbridge_formats::{Error, Result};

use super::bundle::{Bundle, MAX_BUNDLE, Material};
use super::certificate::Certificate;
use super::chain::Roots;
use super::compare::{Difference, compare};
use super::digest::{Hashing, digest};
use super::key::{KeyKind, PublicKey};
use super::statement::{HashType, SINGLE, Statement, is_below, is_model_name};
use super::tree::{Odd, Tree, TreeFile, name_inside};

/// Whom a verifier trusts.
#[derive(Debug)]
pub enum Trust {
    /// The key that must have signed.
    Key(PublicKey),
    /// The roots, to one of which the signer's certificates must lead.
    Roots(Roots),
}

/// Choices for verifying.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct VerifyOptions<'a> {
    /// Paths in the model's folder, with `/`, below which files that were not signed do not count. Signed ones do.
    pub ignore: Vec<String>,
    /// Files that were not signed do not count, wherever they are. They are listed as not covered.
    pub ignore_unsigned: bool,
    /// The certificates must be valid now, not only when the signer's began to be.
    pub valid_now: bool,
    /// How many threads hash; `None`: as many as there are processors, at most four.
    pub threads: Option<usize>,
    /// Who is told of the bytes that are done, and may cancel.
    pub observer: Option<&'a dyn Observer>,
}

/// The key that made a good signature.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignedBy {
    /// Its kind.
    pub kind: KeyKind,
    /// SHA-256 of its PEM, in hexadecimal.
    pub hint: String,
    /// The certificate that led to it.
    pub certificate: Option<Certificate>,
}

/// What verifying found, the signature itself being good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verification {
    /// The name that the model had when it was signed.
    pub model: String,
    /// The SHA-256 of all digests, in hexadecimal.
    pub root: String,
    /// The hash of files.
    pub hash: HashType,
    /// The size of shards, where files were hashed in shards.
    pub shard_size: Option<u64>,
    /// Whose signature it is.
    pub signed_by: SignedBy,
    /// How many files were signed.
    pub files: usize,
    /// The bytes of those that are there, all of which were read.
    pub bytes: u64,
    /// Every file that is not as it was signed.
    pub differences: Vec<Difference>,
    /// What is in the folder and says nothing about the model, since the signature does not cover it.
    pub uncovered: Vec<String>,
}

impl Verification {
    /// Whether every file is as it was signed, and no other is there.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Verifies a model by the bundle in a file. If that lies in the model's folder, it is no part of the model.
///
/// # Errors
/// As [`fn@verify`]; `Io` and `NotFound` as the system says.
pub fn verify_file(
    path: &Path,
    signature: &Path,
    trust: &Trust,
    options: &VerifyOptions<'_>,
) -> Result<Verification> {
    let bytes = read(signature)?;
    let own = name_inside(path, signature);
    run(path, &bytes, own.as_deref(), trust, options).map_err(|e| match e.path() {
        None => e.with_path(signature),
        Some(_) => e,
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let fail = |e| Error::io("reading the signature", e).with_path(path);
    let mut bytes = Vec::new();
    // One byte more than a bundle may have, which the parser then refuses.
    let file = std::fs::File::open(path).map_err(fail)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BUNDLE as u64 + 1), &mut bytes)
        .map_err(fail)?;
    Ok(bytes)
}

/// Verifies a file or folder by a bundle.
///
/// # Errors
/// `Mismatch` if the signature is not by whom is trusted, or not over what the bundle holds, and for files that change
/// while they are verified; `Malformed`, `Unsupported` and `LimitExceeded` for bundles that cannot be read, keyless ones by
/// name; `InvalidOptions` where key and certificates are not of one kind, or a file stands for a folder; `Io`, `NotFound`,
/// `Cancelled`. A model that is not what was signed is no error.
pub fn verify(
    path: &Path,
    bundle: &[u8],
    trust: &Trust,
    options: &VerifyOptions<'_>,
) -> Result<Verification> {
    run(path, bundle, None, trust, options)
}

fn run(
    path: &Path,
    bundle: &[u8],
    own: Option<&str>,
    trust: &Trust,
    options: &VerifyOptions<'_>,
) -> Result<Verification> {
    if let Some(bad) = options.ignore.iter().find(|path| !is_model_name(path)) {
        let what = format!("{bad:?} cannot be left out: it is no plain path in the model's folder");
        return Err(Error::invalid_options(what));
    }
    let (statement, signed_by) = open(bundle, trust, options.valid_now)?;
    let serialization = &statement.serialization;
    // What was signed is looked at wherever it is; of the rest, what is to be left out is not.
    let signed = |name: &str| {
        let below = format!("{name}/");
        let mut after = statement.files.range(below.clone()..);
        statement.files.contains_key(name) || after.next().is_some_and(|(first, _)| first.starts_with(&below))
    };
    let left_out = |name: &str| {
        let asked = options.ignore.iter().any(|path| is_below(name, path));
        !signed(name) && (own == Some(name) || asked || serialization.ignores(name))
    };
    let tree = Tree::list(path, serialization.allow_symlinks, &left_out)?;
    if tree.single != statement.files.contains_key(SINGLE) {
        let (is, was) = if tree.single { ("a file", "a folder") } else { ("a folder", "a single file") };
        return Err(Error::mismatch(format!("this is {is}, and the signature is of {was}")).with_path(path));
    }
    let mut uncovered: Vec<String> =
        tree.ignored.iter().filter(|name| own != Some(name.as_str())).cloned().collect();
    // A folder that is looked into for what was signed may have files below it that are to be left out.
    let counts = |file: &&TreeFile| {
        let asked = options.ignore.iter().any(|path| is_below(&file.name, path));
        let empty_shard = serialization.shard_size.is_some() && file.stamp.size == 0;
        let known = statement.files.contains_key(&file.name);
        known || !(options.ignore_unsigned || asked || empty_shard || serialization.ignores(&file.name))
    };
    let (files, others): (Vec<&TreeFile>, Vec<&TreeFile>) = tree.files.iter().partition(counts);
    uncovered.extend(others.iter().map(|f| f.name.clone()));
    let known = |name: &str| statement.files.contains_key(name);
    let odd: Vec<(String, &'static str)> = tree
        .odd
        .iter()
        .filter(|(name, _)| known(name) || !options.ignore_unsigned)
        .map(|(name, odd): &(String, Odd)| (name.clone(), odd.describe()))
        .collect();
    if options.ignore_unsigned {
        uncovered.extend(tree.odd.iter().filter(|(name, _)| !known(name)).map(|(name, _)| name.clone()));
    }
    uncovered.sort();
    let there: BTreeMap<&str, u64> = files.iter().map(|f| (f.name.as_str(), f.stamp.size)).collect();
    // Files that were not signed are hashed only where one of them may be another under a new name.
    let missing = statement.files.keys().any(|name| !there.contains_key(name.as_str()));
    let hashed: Vec<&TreeFile> = files.iter().copied().filter(|f| missing || known(&f.name)).collect();
    let hashing = Hashing { threads: options.threads, observer: options.observer, cache: None };
    let (actual, bytes) = digest(&hashed, serialization, &hashing)?;
    if Tree::list(path, serialization.allow_symlinks, &left_out)? != tree {
        return Err(super::changed_meanwhile(path));
    }
    let differences = compare(&statement.files, &actual, &there, &odd);
    Ok(Verification {
        model: statement.model.clone(),
        root: super::hex(&statement.root),
        hash: serialization.hash,
        shard_size: serialization.shard_size,
        signed_by,
        files: statement.files.len(),
        bytes,
        differences,
        uncovered,
    })
}

/// Checks the signature of a bundle, and only then reads what it is over.
fn open(bytes: &[u8], trust: &Trust, valid_now: bool) -> Result<(Statement, SignedBy)> {
    let bundle = Bundle::parse(bytes)?;
    let (key, certificate) = match (&bundle.material, trust) {
        (Material::PublicKey(hint), Trust::Key(key)) => {
            let own = key.hint()?;
            if hint.as_ref().is_some_and(|hint| *hint != own) {
                return Err(Error::mismatch("the signature is by another key than the one that is given")
                    .with_hint(format!(
                        "the SHA-256 of the given key's PEM is {own}; the bundle names another"
                    )));
            }
            (key.clone(), None)
        }
        (Material::Chain(chain), Trust::Roots(roots)) => {
            let chain: Result<Vec<Certificate>> =
                chain.iter().map(|der| Certificate::from_der(der)).collect();
            let chain = chain?;
            roots.verify(&chain, valid_now)?;
            let signer =
                chain.into_iter().next().ok_or_else(|| Error::malformed("there is no certificate"))?;
            (signer.public_key()?, Some(signer))
        }
        (Material::PublicKey(_), Trust::Roots(_)) => {
            return Err(Error::invalid_options("the signature is by a key, and certificates are given")
                .with_hint("give the signer's key by --public-key"));
        }
        (Material::Chain(_), Trust::Key(_)) => {
            return Err(Error::invalid_options("the signature is by a certificate, and a key is given")
                .with_hint("give the root that you trust by --certificate-roots"));
        }
    };
    if !key.verify(bundle.signed(), &bundle.signature) {
        return Err(Error::mismatch(
            "the signature does not fit what it is over: one of them was changed, or another key made it",
        )
        .with_hint("do not trust this model before you have a signature that holds"));
    }
    let statement = Statement::parse(bundle.payload())?;
    Ok((statement, SignedBy { kind: key.kind(), hint: key.hint()?, certificate }))
}

#[cfg(test)]
mod tests {
    use super::super::signing::{SignOptions, Signer, sign};
    use super::super::{Change, PrivateKey};
    use super::*;
    use std::fs;
    use weighbridge_formats::ErrorKind;

    struct Model {
        _dir: tempfile::TempDir,
        root: std::path::PathBuf,
        signature: std::path::PathBuf,
        key: PrivateKey,
    }

    impl Model {
        fn new(kind: KeyKind, options: &SignOptions<'_>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("model");
            fs::create_dir_all(root.join("sub/.git")).unwrap();
            fs::create_dir_all(root.join(".git")).unwrap();
            for (name, bytes) in
                [("a", "aaaa"), ("b", "bbbb"), ("sub/c", "cc"), ("sub/.git/x", "x"), (".git/y", "y")]
            {
                fs::write(root.join(name), bytes).unwrap();
            }
            let signature = root.join("model.sig");
            let key = PrivateKey::generate(kind);
            sign(&root, &signature, &Signer::Key(&key), options).unwrap();
            Self { _dir: dir, root, signature, key }
        }

        fn verify_with(&self, options: &VerifyOptions<'_>) -> Result<Verification> {
            verify_file(&self.root, &self.signature, &Trust::Key(self.key.public()), options)
        }

        fn changes(&self) -> Vec<(String, &'static str)> {
            let found = self.verify_with(&VerifyOptions::default()).unwrap();
            found.differences.iter().map(|d| (d.name.clone(), d.word())).collect()
        }

        fn write(&self, name: &str, bytes: &str) {
            fs::write(self.root.join(name), bytes).unwrap();
        }
    }

    fn every_way() -> Vec<SignOptions<'static>> {
        let mut out = Vec::new();
        for hash in HashType::ALL {
            for shard_size in [None, Some(3)] {
                out.push(SignOptions { hash, shard_size, ..SignOptions::default() });
            }
        }
        out
    }

    #[test]
    fn what_is_signed_verifies_with_every_key_and_hash() {
        for kind in KeyKind::ALL {
            let model = Model::new(kind, &SignOptions::default());
            let found = model.verify_with(&VerifyOptions::default()).unwrap();
            assert!(found.holds(), "{found:?}");
            assert_eq!((found.files, found.bytes, found.signed_by.kind), (4, 11, kind));
            assert_eq!(found.uncovered, [".git"]);
        }
        for options in every_way() {
            let model = Model::new(KeyKind::P256, &options);
            assert!(model.verify_with(&VerifyOptions::default()).unwrap().holds());
            let again = sign(&model.root, &model.signature, &Signer::Key(&model.key), &options).unwrap();
            assert_eq!((again.files, again.bytes, again.hashed), (4, 11, 11));
        }
    }

    #[test]
    fn every_change_is_named() {
        for options in every_way() {
            let model = || Model::new(KeyKind::P256, &options);
            let of = |name: &str, word| vec![(name.to_owned(), word)];
            let m = model();
            m.write("a", "aaab");
            assert_eq!(m.changes(), of("a", "changed"));
            m.write("a", "aaaaa");
            assert_eq!(m.changes(), of("a", "changed"));
            m.write("a", "");
            assert_eq!(m.changes(), of("a", "emptied"));
            m.write("a", "aaaa");
            assert_eq!(m.changes(), []);
            m.write("new", "x");
            assert_eq!(m.changes(), of("new", "added"));
            fs::remove_file(m.root.join("new")).unwrap();
            fs::rename(m.root.join("sub/c"), m.root.join("d")).unwrap();
            let found = m.verify_with(&VerifyOptions::default()).unwrap();
            assert_eq!(found.differences[0].change, Change::Renamed { to: "d".into() });
            fs::remove_file(m.root.join("d")).unwrap();
            assert_eq!(m.changes(), of("sub/c", "removed"));
            m.write("sub/c", "cc");
            m.write("a", "bbbb");
            m.write("b", "aaaa");
            assert_eq!(m.changes(), [of("a", "swapped"), of("b", "swapped")].concat());
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_and_special_files_are_no_files() {
        use std::os::unix::fs::symlink;
        let m = Model::new(KeyKind::P256, &SignOptions::default());
        fs::rename(m.root.join("a"), m.root.parent().unwrap().join("a")).unwrap();
        symlink("../a", m.root.join("a")).unwrap();
        symlink("nowhere", m.root.join("x")).unwrap();
        symlink("..", m.root.join("y")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(m.root.join("z")).unwrap();
        let words = ["a", "x", "y", "z"].map(|n| (n.to_owned(), "not-a-file"));
        assert_eq!(m.changes(), words);
        let refused = sign(&m.root, &m.signature, &Signer::Key(&m.key), &SignOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnsafeContent);
        drop(socket);
        for name in ["x", "y", "z"] {
            fs::remove_file(m.root.join(name)).unwrap();
        }
        let leave = SignOptions { allow_symlinks: true, ..SignOptions::default() };
        sign(&m.root, &m.signature, &Signer::Key(&m.key), &leave).unwrap();
        assert_eq!(m.changes(), []);
        // Leave for links to files is none for links to folders, nor for links to nothing.
        symlink("sub", m.root.join("y")).unwrap();
        symlink("nowhere", m.root.join("z")).unwrap();
        assert_eq!(m.changes(), ["y", "z"].map(|n| (n.to_owned(), "not-a-file")));
        fs::write(m.root.parent().unwrap().join("a"), "other").unwrap();
        assert_eq!(m.changes()[0], ("a".to_owned(), "changed"));
    }

    #[test]
    fn what_is_left_out_is_told_and_never_what_was_signed() {
        let ignore = vec!["b".to_owned()];
        let m = Model::new(KeyKind::P256, &SignOptions { ignore, ..SignOptions::default() });
        m.write("b", "changed");
        m.write(".git/more", "x");
        let found = m.verify_with(&VerifyOptions::default()).unwrap();
        assert!(found.holds() && found.files == 3);
        assert_eq!(found.uncovered, [".git", "b"]);
        m.write("sub/new", "x");
        assert_eq!(m.changes(), [("sub/new".to_owned(), "added")]);
        let asked = VerifyOptions { ignore: vec!["sub".into()], ..VerifyOptions::default() };
        let found = m.verify_with(&asked).unwrap();
        assert!(found.holds());
        assert_eq!(found.uncovered, [".git", "b", "sub/new"]);
        let any = VerifyOptions { ignore_unsigned: true, ..VerifyOptions::default() };
        assert!(m.verify_with(&any).unwrap().holds());
        m.write("sub/c", "xx");
        assert!(!m.verify_with(&asked).unwrap().holds());
        assert!(!m.verify_with(&any).unwrap().holds());
        for bad in ["../x", "/x", ".", "a//b", ""] {
            let options = VerifyOptions { ignore: vec![bad.into()], ..VerifyOptions::default() };
            assert_eq!(m.verify_with(&options).unwrap_err().kind(), ErrorKind::InvalidOptions, "{bad}");
            let options = SignOptions { ignore: vec![bad.into()], ..SignOptions::default() };
            let error = sign(&m.root, &m.signature, &Signer::Key(&m.key), &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{bad}");
        }
    }

    #[test]
    fn a_flipped_bit_of_a_bundle_is_found() {
        for kind in KeyKind::ALL {
            let m = Model::new(kind, &SignOptions::default());
            let good = fs::read(&m.signature).unwrap();
            let trust = Trust::Key(m.key.public());
            let (mut accepted, mut tried) = (0, 0);
            // Every byte with one key; the others hold for the bytes that they are asked about.
            let step = if kind == KeyKind::P256 { 1 } else { 11 };
            for i in (0..good.len()).step_by(step) {
                let mut bad = good.clone();
                bad[i] ^= 1 << (i % 8);
                tried += 1;
                match open(&bad, &trust, false) {
                    Err(_) => {}
                    // What is neither signed nor used: white space, and the key's name that nothing vouches for.
                    Ok((statement, _)) => {
                        accepted += 1;
                        let same = open(&good, &trust, false).unwrap().0;
                        assert_eq!(statement, same, "{kind:?} byte {i}");
                    }
                }
            }
            assert!(tried > 100);
            assert!(accepted < 16, "{kind:?}: {accepted}");
        }
    }

    #[test]
    fn another_key_and_another_kind_of_trust_are_refused() {
        let m = Model::new(KeyKind::P256, &SignOptions::default());
        let bytes = fs::read(&m.signature).unwrap();
        for kind in KeyKind::ALL {
            let other = Trust::Key(PrivateKey::generate(kind).public());
            let error = verify(&m.root, &bytes, &other, &VerifyOptions::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            // The same without the hint, so that the signature itself has to be found wrong.
            let text = String::from_utf8(bytes.clone()).unwrap();
            let hint = m.key.public().hint().unwrap();
            let error =
                verify(&m.root, text.replace(&hint, "").as_bytes(), &other, &VerifyOptions::default())
                    .unwrap_err();
            assert_eq!((error.kind(), error.message().contains("does not fit")), (ErrorKind::Mismatch, true));
        }
        // A single file and a folder do not stand for each other.
        let file = m.root.join("a");
        let signature = m.root.parent().unwrap().join("a.sig");
        sign(&file, &signature, &Signer::Key(&m.key), &SignOptions::default()).unwrap();
        let trust = Trust::Key(m.key.public());
        assert!(verify_file(&file, &signature, &trust, &VerifyOptions::default()).unwrap().holds());
        let error = verify_file(&m.root, &signature, &trust, &VerifyOptions::default()).unwrap_err();
        assert!(error.message().contains("of a single file"), "{error}");
        let error = verify_file(&file, &m.signature, &trust, &VerifyOptions::default()).unwrap_err();
        assert!(error.message().contains("of a folder"), "{error}");
        fs::write(&file, "aaab").unwrap();
        let found = verify_file(&file, &signature, &trust, &VerifyOptions::default()).unwrap();
        assert_eq!((found.differences[0].name.as_str(), found.differences[0].word()), (".", "changed"));
        let over = sign(&file, &file, &Signer::Key(&m.key), &SignOptions::default()).unwrap_err();
        assert_eq!(over.kind(), ErrorKind::InvalidOptions);
    }
}
