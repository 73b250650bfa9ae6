//! The statement that is signed: in-toto's form, with the names and digests of a model's files.
//!
//! The subject is the model's name with the SHA-256 of all digests in their order; the predicate
//! `https://model_signing/signature/v1.0` has how the files were hashed, and every file or shard with its digest.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weighbridge_formats::source::is_plain_relative;
use weighbridge_formats::{Error, Result};

use super::{brief, hex};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
/// What releases before 1.0 wrote: without how files were hashed, or that none is missing.
const BEFORE_1_0: &str = "https://model_signing/Digests/v0.1";

/// The name of the one file where a model is a single file.
pub(super) const SINGLE: &str = ".";
/// The largest size of a shard, and of a file: what a JSON number holds exactly.
const MAX_SIZE: u64 = 1 << 53;

/// The hash of files or shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashType {
    /// SHA-256, the default of `model-signing` too.
    #[default]
    Sha256,
    /// BLAKE2b with 64 bytes. `model-signing` 1.1.1 verifies such a signature only if its caller names the hash.
    Blake2b,
    /// BLAKE3 with 32 bytes.
    Blake3,
}

impl HashType {
    /// Every hash.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Blake2b, Self::Blake3];

    /// The name in a statement.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake2b => "blake2b",
            Self::Blake3 => "blake3",
        }
    }

    fn len(self) -> usize {
        if self == Self::Blake2b { 64 } else { 32 }
    }
}

/// How a model's files become digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Serialization {
    pub(super) hash: HashType,
    /// The size of a shard; `None`: a digest a file.
    pub(super) shard_size: Option<u64>,
    pub(super) allow_symlinks: bool,
    /// Paths that are left out, with everything below them.
    pub(super) ignore: Vec<String>,
}

impl Serialization {
    /// The name of the algorithm of each resource.
    fn algorithm(&self) -> String {
        match self.shard_size {
            None => self.hash.name().to_owned(),
            Some(size) => format!("{}-sharded-{size}", self.hash.name()),
        }
    }

    /// Whether a path is left out.
    pub(super) fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|path| is_below(name, path))
    }

    /// Where the shards of a file of that size begin and end.
    pub(super) fn shards(&self, size: u64) -> Vec<(u64, u64)> {
        let step = self.shard_size.unwrap_or(size).max(1);
        (0..size.div_ceil(step)).map(|i| (i * step, size.min((i + 1).saturating_mul(step)))).collect()
    }
}

/// Whether `name` is `path` or below it.
pub(super) fn is_below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The digests of a file: one, or one for each shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileDigests {
    /// The length, which only shards tell.
    pub(super) size: Option<u64>,
    pub(super) digests: Vec<Vec<u8>>,
}

/// A statement about a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The name of the model's folder or file when it was signed, which only informs.
    pub(super) model: String,
    /// The SHA-256 of all digests.
    pub(super) root: Vec<u8>,
    pub(super) serialization: Serialization,
    pub(super) files: BTreeMap<String, FileDigests>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(rename = "_type")]
    type_: Cow<'a, str>,
    subject: Vec<WireSubject>,
    predicate_type: Cow<'a, str>,
    predicate: WirePredicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSubject {
    name: String,
    digest: WireDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDigest {
    sha256: String,
}

/// Other fields may come in later versions and are to be ignored, as the format has it.
#[derive(Serialize, Deserialize)]
struct WirePredicate {
    serialization: WireSerialization,
    resources: Vec<WireResource>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSerialization {
    method: String,
    hash_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_size: Option<Number>,
    allow_symlinks: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ignore_paths: Vec<String>,
}

/// A whole number: `model-signing` writes `1000000000.0`, and reads only `1000000000`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl Number {
    fn get(self) -> Option<u64> {
        let number = match self {
            Self::Whole(n) => n,
            Self::Real(x) if x.fract() == 0.0 && (1.0..=MAX_SIZE as f64).contains(&x) => x as u64,
            Self::Real(_) => return None,
        };
        (1..=MAX_SIZE).contains(&number).then_some(number)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireResource {
    name: String,
    algorithm: String,
    digest: String,
}

impl Statement {
    /// Makes a statement.
    pub(super) fn new(
        model: String,
        serialization: Serialization,
        files: BTreeMap<String, FileDigests>,
    ) -> Self {
        let mut statement = Self { model, root: Vec::new(), serialization, files };
        let mut hasher = Sha256::new();
        for (_, file) in statement.in_order() {
            file.digests.iter().for_each(|digest| hasher.update(digest));
        }
        statement.root = hasher.finalize().to_vec();
        statement
    }

    /// The files in the order of the format: by the parts of their paths.
    fn in_order(&self) -> Vec<(&String, &FileDigests)> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
        files
    }

    /// The payload that is signed.
    pub(super) fn to_payload(&self) -> Result<Vec<u8>> {
        let algorithm = self.serialization.algorithm();
        let mut resources = Vec::new();
        for (name, file) in self.in_order() {
            let shards = self.serialization.shards(file.size.unwrap_or_default());
            for (i, digest) in file.digests.iter().enumerate() {
                let name = match (self.serialization.shard_size, shards.get(i)) {
                    (Some(_), Some((start, end))) => format!("{name}:{start}:{end}"),
                    _ => name.clone(),
                };
                resources.push(WireResource { name, algorithm: algorithm.clone(), digest: hex(digest) });
            }
        }
        let method = if self.serialization.shard_size.is_some() { "shards" } else { "files" };
        let wire = Wire {
            type_: STATEMENT.into(),
            subject: vec![WireSubject {
                name: self.model.clone(),
                digest: WireDigest { sha256: hex(&self.root) },
            }],
            predicate_type: PREDICATE.into(),
            predicate: WirePredicate {
                serialization: WireSerialization {
                    method: method.into(),
                    hash_type: self.serialization.hash.name().into(),
                    shard_size: self.serialization.shard_size.map(Number::Whole),
                    allow_symlinks: self.serialization.allow_symlinks,
                    ignore_paths: self.serialization.ignore.clone(),
                },
                resources,
            },
        };
        serde_json::to_vec(&wire).map_err(|e| Error::unsupported(format!("the statement: {e}")))
    }

    /// Reads a payload whose signature is good.
    ///
    /// # Errors
    /// `Malformed` for what breaks the format, for names that are absolute, leave the folder, or mean the same file, and
    /// where the root is not of the digests; `Unsupported` for other statements, methods and hashes.
    pub(super) fn parse(payload: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed<'a> {
            #[serde(rename = "_type", borrow)]
            type_: Cow<'a, str>,
            #[serde(borrow)]
            predicate_type: Cow<'a, str>,
        }
        let bad = |e: serde_json::Error| super::bad_json("the signed statement", &e);
        let typed: Typed<'_> = serde_json::from_slice(payload).map_err(bad)?;
        if typed.type_ != STATEMENT {
            return Err(Error::unsupported(format!("a statement of the type {:?}", brief(&typed.type_))));
        }
        if typed.predicate_type == BEFORE_1_0 {
            let what =
                "a statement of model-signing before 1.0, which does not say whether files are missing";
            return Err(Error::unsupported(what).with_hint("have the model signed again"));
        }
        if typed.predicate_type != PREDICATE {
            let what = format!("a statement about {:?}; {PREDICATE} is read", brief(&typed.predicate_type));
            return Err(Error::unsupported(what));
        }
        let wire: Wire<'_> = serde_json::from_slice(payload).map_err(bad)?;
        let [subject] = wire.subject.as_slice() else {
            let count = wire.subject.len();
            return Err(Error::malformed(format!("the statement has {count} subjects, and one is wanted")));
        };
        let serialization = serialization(wire.predicate.serialization)?;
        let (root, files) = resources(&wire.predicate.resources, &serialization)?;
        if from_hex(&subject.digest.sha256, 32).is_none_or(|stated| stated != root) {
            return Err(Error::malformed("the statement's root digest is not that of its files"));
        }
        Ok(Self { model: subject.name.clone(), root, serialization, files })
    }
}

fn serialization(wire: WireSerialization) -> Result<Serialization> {
    let Some(hash) = HashType::ALL.into_iter().find(|h| h.name() == wire.hash_type) else {
        return Err(Error::unsupported(format!("the hash {:?}", brief(&wire.hash_type)))
            .with_hint("sha256, blake2b and blake3 are known"));
    };
    let shard_size = match (wire.method.as_str(), wire.shard_size) {
        ("files", None) => None,
        ("shards", Some(size)) => {
            let size = size.get().ok_or_else(|| Error::malformed("the size of shards is no length"))?;
            Some(size)
        }
        ("files" | "shards", _) => {
            return Err(Error::malformed("the method and the size of shards disagree"));
        }
        (other, _) => return Err(Error::unsupported(format!("the method {:?}", brief(other)))),
    };
    for path in &wire.ignore_paths {
        if !is_model_name(path) {
            let what = format!("the ignored path {:?} is no plain path in the model's folder", brief(path));
            return Err(Error::malformed(what));
        }
    }
    Ok(Serialization { hash, shard_size, allow_symlinks: wire.allow_symlinks, ignore: wire.ignore_paths })
}

type Files = BTreeMap<String, FileDigests>;
/// Where it begins and ends, and its digest.
type Shard = (u64, u64, Vec<u8>);

fn resources(resources: &[WireResource], serialization: &Serialization) -> Result<(Vec<u8>, Files)> {
    let algorithm = serialization.algorithm();
    let mut hasher = Sha256::new();
    let mut shards: BTreeMap<&str, Vec<Shard>> = BTreeMap::new();
    for resource in resources {
        let bad = |what: &str| Error::malformed(format!("the resource {:?}: {what}", brief(&resource.name)));
        if resource.algorithm != algorithm {
            return Err(bad(&format!("its algorithm is {:?}, not {algorithm}", brief(&resource.algorithm))));
        }
        let digest =
            from_hex(&resource.digest, serialization.hash.len()).ok_or_else(|| bad("its digest is none"))?;
        hasher.update(&digest);
        let (name, start, end) = match serialization.shard_size {
            None => (resource.name.as_str(), 0, 0),
            Some(_) => shard_of(&resource.name).ok_or_else(|| bad("it is no shard of a file"))?,
        };
        if name != SINGLE && !is_model_name(name) {
            return Err(bad("the name is no plain path in the model's folder"));
        }
        shards.entry(name).or_default().push((start, end, digest));
    }
    if shards.contains_key(SINGLE) && shards.len() > 1 {
        return Err(Error::malformed("the statement is about a single file and about others"));
    }
    let names: Vec<&str> = shards.keys().copied().collect();
    if let Some((a, b)) = colliding(&names) {
        let what = format!("the names {:?} and {:?} would be one file on some systems", brief(a), brief(b));
        return Err(Error::malformed(what));
    }
    let mut files = BTreeMap::new();
    for (name, mut parts) in shards {
        let bad = |what: &str| Error::malformed(format!("the file {:?}: {what}", brief(name)));
        parts.sort_by_key(|(start, end, _)| (*start, *end));
        let size = match serialization.shard_size {
            None if parts.len() == 1 => None,
            None => return Err(bad("it is there more than once")),
            Some(_) => {
                let size = parts.last().map_or(0, |(_, end, _)| *end);
                let right =
                    serialization.shard_size.is_some_and(|step| size.div_ceil(step) == parts.len() as u64)
                        && parts.iter().map(|(start, end, _)| (*start, *end)).eq(serialization.shards(size));
                if !right {
                    return Err(bad("its shards are not those of a file"));
                }
                Some(size)
            }
        };
        let digests = parts.into_iter().map(|(_, _, digest)| digest).collect();
        files.insert(name.to_owned(), FileDigests { size, digests });
    }
    Ok((hasher.finalize().to_vec(), files))
}

/// A shard's name: file, start and end.
fn shard_of(name: &str) -> Option<(&str, u64, u64)> {
    let mut parts = name.split(':');
    let (file, start, end) = (parts.next()?, decimal(parts.next()?)?, decimal(parts.next()?)?);
    (parts.next().is_none() && start < end && end <= MAX_SIZE).then_some((file, start, end))
}

/// A decimal as Rust and Python write it.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Whether a name is that of a file in a model's folder, spelled in the one right way.
pub(super) fn is_model_name(name: &str) -> bool {
    // A colon is a drive on Windows, and nothing on other systems.
    let colons: Cow<'_, str> = if cfg!(windows) { name.into() } else { name.replace(':', "_").into() };
    name.len() <= 4096
        && is_plain_relative(&colons)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Two names that differ in case only, or of which one is a folder of the other.
pub(super) fn colliding<'a>(names: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let mut folded: HashMap<String, &str> = HashMap::new();
    for name in names {
        if let Some(other) = folded.insert(name.to_lowercase(), name) {
            return Some((other, name));
        }
    }
    for name in names {
        for (at, _) in name.match_indices('/') {
            let above = name.get(..at).unwrap_or_default();
            if let Some(other) = folded.get(&above.to_lowercase()) {
                return Some((other, name));
            }
        }
    }
    None
}

/// Lower-case hexadecimal of so many bytes.
fn from_hex(text: &str, len: usize) -> Option<Vec<u8>> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?))
        .collect();
    bytes.filter(|b| b.len() == len && text.len() == len * 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    fn files(names: &[&str]) -> Files {
        let digests = |i: usize| FileDigests { size: None, digests: vec![vec![i as u8; 32]] };
        names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), digests(i))).collect()
    }

    fn payload(names: &[&str]) -> String {
        let statement = Statement::new("model".into(), Serialization::default(), files(names));
        String::from_utf8(statement.to_payload().unwrap()).unwrap()
    }

    fn refused(text: &str) -> (ErrorKind, String) {
        let error = Statement::parse(text.as_bytes()).unwrap_err();
        (error.kind(), error.message().to_owned())
    }

    /// The text with its root digest put right after an edit.
    fn rooted(text: &str) -> String {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut hasher = Sha256::new();
        for resource in value["predicate"]["resources"].as_array().unwrap() {
            let digest = resource["digest"].as_str().unwrap_or_default();
            hasher.update(from_hex(digest, digest.len() / 2).unwrap_or_default());
        }
        let old = value["subject"][0]["digest"]["sha256"].as_str().unwrap();
        text.replace(old, &hex(&hasher.finalize()))
    }

    #[test]
    fn statements_are_read_as_they_were_written() {
        let ignore = vec![".git".to_owned(), "model.sig".to_owned()];
        let whole = Serialization { ignore, ..Serialization::default() };
        let statement = Statement::new("m".into(), whole, files(&["a", "b/c", "b.d"]));
        assert_eq!(Statement::parse(&statement.to_payload().unwrap()).unwrap(), statement);

        let sharded =
            Serialization { shard_size: Some(10), hash: HashType::Blake2b, ..Serialization::default() };
        let digests = vec![vec![1; 64], vec![2; 64], vec![3; 64]];
        let two: Files = [("x".to_owned(), FileDigests { size: Some(21), digests })].into();
        let statement = Statement::new("m".into(), sharded, two);
        let text = String::from_utf8(statement.to_payload().unwrap()).unwrap();
        assert!(text.contains("\"x:20:21\"") && text.contains("blake2b-sharded-10"), "{text}");
        assert_eq!(Statement::parse(text.as_bytes()).unwrap(), statement);
        // A size as Python's protobuf writes it.
        let real = text.replace("\"shard_size\":10", "\"shard_size\":10.0");
        assert_eq!(Statement::parse(real.as_bytes()).unwrap(), statement);
        for wrong in ["10.5", "0", "-1", "1e300", "\"10\"", "9007199254740993"] {
            let text = text.replace("\"shard_size\":10", &format!("\"shard_size\":{wrong}"));
            assert_eq!(refused(&text).0, ErrorKind::Malformed, "{wrong}");
        }
    }

    #[test]
    fn order_is_by_the_parts_of_paths() {
        let text = payload(&["a/b", "a.b", "a-b", "B", "a/b.c/d"]);
        let places: Vec<_> =
            ["\"B\"", "\"a/b\"", "\"a/b.c/d\"", "\"a-b\"", "\"a.b\""].map(|n| text.find(n).unwrap()).into();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn names_that_are_not_plain_are_refused() {
        for bad in ["/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a/.", "", "a\\\\b", "a\\u0000"] {
            let (kind, message) =
                refused(&payload(&["name"]).replace("\"name\":\"name\"", &format!("\"name\":\"{bad}\"")));
            assert_eq!(kind, ErrorKind::Malformed);
            assert!(message.contains("no plain path"), "{bad}: {message}");
        }
        for pair in [["a", "A"], ["ä/b", "Ä/b"], ["a", "a/b"], ["A", "a/b"]] {
            assert!(refused(&payload(&pair)).1.contains("one file on some systems"), "{pair:?}");
        }
        assert!(refused(&payload(&[".", "x"])).1.contains("single file"));
        let twice = payload(&["a", "b"]).replace("\"name\":\"b\"", "\"name\":\"a\"");
        assert!(refused(&twice).1.contains("more than once"));
        Statement::parse(payload(&["."]).as_bytes()).unwrap();
        Statement::parse(payload(&[]).as_bytes()).unwrap();
    }

    #[test]
    fn statements_that_are_not_exactly_right_are_refused_by_name() {
        let good = payload(&["a", "b"]);
        let cases = [
            ("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1", "type"),
            ("model_signing/signature/v1.0", "model_signing/signature/v2.0", "about"),
            ("model_signing/signature/v1.0", "model_signing/Digests/v0.1", "before 1.0"),
            ("\"hash_type\":\"sha256\"", "\"hash_type\":\"md5\"", "the hash"),
            ("\"method\":\"files\"", "\"method\":\"chunks\"", "the method"),
            ("\"method\":\"files\"", "\"method\":\"shards\"", "disagree"),
            ("\"allow_symlinks\":false", "\"allow_symlinks\":\"false\"", "invalid type"),
            (
                "\"allow_symlinks\":false",
                "\"allow_symlinks\":false,\"ignore_paths\":[\"../x\"]",
                "ignored path",
            ),
            ("\"allow_symlinks\":false", "\"allow_symlinks\":false,\"ignore_paths\":[\".\"]", "ignored path"),
            ("\"allow_symlinks\":false", "\"allow_symlinks\":false,\"new\":1", "unknown field"),
            ("\"subject\":[", "\"subject\":[{\"name\":\"x\",\"digest\":{\"sha256\":\"\"}},", "2 subjects"),
            ("\"subject\":[", "\"subject\":[],\"subject\":[", "duplicate field"),
            ("\"algorithm\":\"sha256\"", "\"algorithm\":\"sha512\"", "its algorithm"),
            ("\"digest\":\"00", "\"digest\":\"", "its digest"),
            ("\"digest\":\"00", "\"digest\":\"0A", "its digest"),
            ("\"digest\":\"00", "\"digest\":\"01", "root digest"),
            ("\"resources\":[", "\"resources\":[],\"resources\":[", "duplicate field"),
        ];
        for (from, to, what) in cases {
            assert!(good.contains(from), "{from}");
            let (_, message) = refused(&good.replacen(from, to, 1));
            assert!(message.contains(what), "{to}: {message}");
        }
        // What a later version adds to the predicate is passed over.
        Statement::parse(good.replace("\"resources\"", "\"card\":{\"x\":[1]},\"resources\"").as_bytes())
            .unwrap();
    }

    #[test]
    fn shards_must_be_those_of_a_file() {
        let sharded = Serialization { shard_size: Some(10), ..Serialization::default() };
        let two: Files =
            [("x".to_owned(), FileDigests { size: Some(15), digests: vec![vec![1; 32], vec![2; 32]] })]
                .into();
        let good = String::from_utf8(Statement::new("m".into(), sharded, two).to_payload().unwrap()).unwrap();
        Statement::parse(good.as_bytes()).unwrap();
        for (from, to) in [
            ("x:10:15", "x:11:15"),
            ("x:10:15", "x:10:21"),
            ("x:10:15", "x:0:10"),
            ("x:10:15", "x:20:25"),
            ("x:10:15", "x:10:10"),
            ("x:10:15", "x:10"),
            ("x:10:15", "x:010:15"),
            ("x:10:15", "x:+10:15"),
            ("x:10:15", "x:y:10:15"),
            ("x:0:10", "x:0:9"),
            ("x:10:15", "x:10:99999999999999999999"),
        ] {
            let (kind, message) = refused(&rooted(&good.replace(from, to)));
            assert_eq!(kind, ErrorKind::Malformed);
            assert!(message.contains("shard"), "{to}: {message}");
        }
    }
}
