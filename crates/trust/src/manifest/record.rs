//! `weighbridge.json`: what it says, written the same way each time and read strictly.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use weighbridge_formats::logical::{Digest, model_hash};
use weighbridge_formats::write::{ExecuteOptions, FilePlan, WritePlan, execute};
use weighbridge_formats::{DType, Error, Limits, Result, Source};

use super::text::{from_hex, hex};

/// The name of the manifest in a folder.
pub const NAME: &str = "weighbridge.json";
/// What the name of a single file's manifest ends with: `model.safetensors.weighbridge.json`.
pub const SUFFIX: &str = ".weighbridge.json";
/// The longest manifest that is read or written, in bytes: some 130,000 tensors.
pub const LONGEST: u64 = 20 << 20;
/// The version that is written and read.
const VERSION: u64 = 1;
/// What stands before the digest of the manifest itself, at its end.
const SEAL: &str = ",\n  \"digest\": \"";
/// What stands after it.
const END: &str = "\"\n}\n";

/// The most dimensions of a tensor.
const DIMS: usize = 64;
/// The most files, models, and options.
const FILES: usize = 100_000;
/// The most tensors of a model.
const TENSORS: usize = 1_000_000;
/// The most items of all lists together, sizes of dimensions included: a text of so many bytes must not become many times as
/// many in memory.
const ITEMS: usize = 600_000;

thread_local! {
    /// How many items the manifest that is being read may still have.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Where the manifest of a folder or file lies.
pub fn manifest_path(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.join(NAME);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of the schema: 1.
    pub version: u64,
    /// The program that wrote it, with its version.
    pub tool: String,
    /// Whether it speaks of a whole folder, in which no other file may be, or of some files.
    pub covers: Covers,
    /// The files, in the order of their paths as bytes.
    pub files: Vec<FileEntry>,
    /// What the files hold: an entry for each file or set of weights, in the order of their paths.
    pub models: Vec<ModelEntry>,
    /// What it was made from; `None` where that is not known.
    pub provenance: Option<Provenance>,
}

/// A manifest's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    weighbridge_manifest: u64,
    tool: String,
    covers: Covers,
    #[serde(deserialize_with = "bounded::<_, _, FILES>")]
    files: Vec<FileEntry>,
    #[serde(deserialize_with = "bounded::<_, _, FILES>")]
    models: Vec<ModelEntry>,
    #[serde(deserialize_with = "present")]
    provenance: Option<Provenance>,
    /// Checked before anything else.
    #[serde(rename = "digest")]
    _digest: serde::de::IgnoredAny,
}

/// Which files a manifest speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Covers {
    /// All files of the folder and its subfolders, hidden ones and records of this program excepted.
    Folder,
    /// Those that it lists; others may lie beside them.
    Files,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileEntry {
    /// Its path below the folder, with `/` between the parts.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    #[serde(with = "digits")]
    pub sha256: Digest,
    /// Its BLAKE3.
    #[serde(with = "digits")]
    pub blake3: Digest,
}

/// What a file or a sharded set of weights holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelEntry {
    /// The file that is opened: the weights, or the index of a sharded set.
    pub path: String,
    /// All files that it is read from.
    #[serde(deserialize_with = "bounded::<_, _, FILES>")]
    pub files: Vec<String>,
    /// The id of the format.
    pub format: String,
    /// Its version and variety in words.
    pub variety: String,
    /// The logical hash.
    #[serde(with = "digits")]
    pub logical: Digest,
    /// The tensors, in the order of their names as bytes.
    #[serde(deserialize_with = "bounded::<_, _, TENSORS>")]
    pub tensors: Vec<TensorEntry>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its dtype, by name.
    #[serde(with = "dtype_name")]
    pub dtype: DType,
    /// The sizes of its dimensions.
    #[serde(deserialize_with = "bounded::<_, _, DIMS>")]
    pub shape: Vec<u64>,
    /// Its hash.
    #[serde(with = "digits")]
    pub hash: Digest,
    /// Which of [`ModelEntry::files`] it is in, counted from 0, where the model has several files of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u32>,
}

/// What a model was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Provenance {
    /// The source's name, without the folders above it.
    pub source: String,
    /// The id of the source's format; null where it is not known.
    #[serde(deserialize_with = "present")]
    pub format: Option<String>,
    /// The source's logical hash; null where it is not known.
    #[serde(with = "maybe_digits")]
    pub logical: Option<Digest>,
    /// The source's files that were read.
    #[serde(deserialize_with = "bounded::<_, _, FILES>")]
    pub files: Vec<FileEntry>,
    /// What was asked for: names of options and their values, in order.
    #[serde(deserialize_with = "bounded::<_, _, FILES>")]
    pub options: Vec<(String, String)>,
}

impl Provenance {
    /// A source of this name.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }
}

impl ModelEntry {
    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        let at = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok()?;
        self.tensors.get(at)
    }

    /// The file that a tensor is in, where the model has several files of weights.
    pub fn file_of(&self, tensor: &TensorEntry) -> Option<&str> {
        self.files.get(tensor.file? as usize).map(String::as_str)
    }
}

impl Manifest {
    pub(super) fn new(covers: Covers, files: Vec<FileEntry>, models: Vec<ModelEntry>) -> Self {
        let tool = format!("weighbridge {}", env!("CARGO_PKG_VERSION"));
        let mut out = Self { version: VERSION, tool, covers, files, models, provenance: None };
        out.files.sort_by(|a, b| a.path.cmp(&b.path));
        out.models.sort_by(|a, b| a.path.cmp(&b.path));
        out
    }

    /// Says what the model was made from.
    pub fn with_provenance(mut self, provenance: Option<Provenance>) -> Self {
        self.provenance = provenance;
        self
    }

    /// The entry of a file.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|f| f.path.as_str().cmp(path)).ok().and_then(|at| self.files.get(at))
    }

    /// The logical hash, where there is one model.
    pub fn logical(&self) -> Option<Digest> {
        match &self.models[..] {
            [one] => Some(one.logical),
            _ => None,
        }
    }

    /// The manifest as its file has it: the same for the same content, a file and a tensor a line, and at the end the
    /// BLAKE3 of everything before it.
    ///
    /// # Errors
    /// `LimitExceeded` if it is longer than [`LONGEST`].
    pub fn to_text(&self) -> Result<String> {
        let json = |value: &dyn Fn() -> serde_json::Result<String>| {
            value().map_err(|e| Error::invalid_options("the manifest cannot be written").with_source(e))
        };
        let mut out = String::new();
        let _ = writeln!(out, "{{\n  \"weighbridge_manifest\": {},", self.version);
        let _ = writeln!(out, "  \"tool\": {},", json(&|| serde_json::to_string(&self.tool))?);
        let _ = writeln!(out, "  \"covers\": {},", json(&|| serde_json::to_string(&self.covers))?);
        out += "  \"files\": [";
        for (i, file) in self.files.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(out, "{comma}\n    {}", json(&|| serde_json::to_string(file))?);
        }
        out += "\n  ],\n  \"models\": [";
        for (i, model) in self.models.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ =
                write!(out, "{comma}\n    {{\"path\": {},", json(&|| serde_json::to_string(&model.path))?);
            let _ = write!(out, " \"files\": {},", json(&|| serde_json::to_string(&model.files))?);
            let _ = write!(out, " \"format\": {},", json(&|| serde_json::to_string(&model.format))?);
            let _ = write!(out, " \"variety\": {},", json(&|| serde_json::to_string(&model.variety))?);
            let _ = write!(out, "\n     \"logical\": \"{}\",\n     \"tensors\": [", hex(&model.logical));
            for (i, tensor) in model.tensors.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let _ = write!(out, "{comma}\n      {}", json(&|| serde_json::to_string(tensor))?);
                if out.len() as u64 > LONGEST {
                    break;
                }
            }
            out += "\n     ]}";
        }
        let provenance = json(&|| serde_json::to_string(&self.provenance))?;
        let _ = write!(out, "\n  ],\n  \"provenance\": {provenance}");
        let digest = blake3::hash(out.as_bytes()).to_hex();
        out += &format!("{SEAL}{digest}{END}");
        if out.len() as u64 > LONGEST {
            let what = format!("the manifest would be longer than the {LONGEST} bytes that are read of one");
            return Err(Error::limit(what));
        }
        Ok(out)
    }

    /// Reads a manifest, and checks it against itself: its own digest, the logical hashes, and that every path stays in
    /// the folder.
    ///
    /// # Errors
    /// `Malformed` for what is no manifest, `Mismatch` if it was changed after it was written, `Unsupported` for
    /// another version, `UnsafeContent` for a path that is not plain, `LimitExceeded` for more than [`LONGEST`] bytes.
    pub fn from_text(text: &[u8]) -> Result<Self> {
        if text.len() as u64 > LONGEST {
            let what = format!("{} bytes, and a manifest has at most {LONGEST}", text.len());
            return Err(Error::limit(what));
        }
        let text = std::str::from_utf8(text).map_err(|e| {
            Error::malformed("this is no manifest: it is no UTF-8").at_offset(e.valid_up_to() as u64)
        })?;
        let changed = || {
            Error::mismatch("the manifest is not as it was written: its own digest does not agree").with_hint(
                "fetch it again; one that was meant to change is made anew (`weighbridge hash PATH --write`)",
            )
        };
        let Some((body, digest)) = text.strip_suffix(END).and_then(|t| t.rsplit_once(SEAL)) else {
            return Err(unsealed(text).unwrap_or_else(changed));
        };
        if from_hex(digest) != Some(blake3::hash(body.as_bytes()).into()) {
            return Err(unsealed(text).unwrap_or_else(changed));
        }
        LEFT.set(ITEMS);
        let raw: Raw = match serde_json::from_str(text) {
            Ok(raw) => raw,
            Err(e) => return Err(unsealed(text).unwrap_or_else(|| no_manifest(&e))),
        };
        let Raw { weighbridge_manifest: version, tool, covers, files, models, provenance, .. } = raw;
        let manifest = Self { version, tool, covers, files, models, provenance };
        if manifest.version != VERSION {
            return Err(other_version(manifest.version));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads a manifest's file.
    ///
    /// # Errors
    /// As [`Manifest::from_text`], and what the system says.
    pub fn read(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        if source.len() > LONGEST {
            let what = format!("the file has {} bytes, and a manifest at most {LONGEST}", source.len());
            let error = Error::limit(what).with_path(path);
            return Err(
                error.with_hint("make it again with `weighbridge hash --write`, from files that you trust")
            );
        }
        let text = source.read_vec(0, source.len(), &Limits::default()).map_err(|e| e.with_path(path))?;
        Self::from_text(&text).map_err(|e| e.with_path(path))
    }

    /// Writes the manifest's file, in place of one that is there if `overwrite` says so.
    ///
    /// # Errors
    /// As [`Manifest::to_text`]; `InvalidOptions` for a file that is there; what the system says.
    pub fn write(&self, path: &Path, overwrite: bool) -> Result<()> {
        let (folder, name) = super::hashes::split(path)?;
        let mut file = FilePlan::new(name);
        file.push_fixed(self.to_text()?.into_bytes())?;
        let mut options = ExecuteOptions::default();
        options.overwrite = overwrite;
        options.threads = Some(1);
        execute(WritePlan { files: vec![file], notes: Vec::new() }, folder, &options).map(drop)
    }

    /// Whatever a manifest says of paths and hashes that can be checked without the files.
    fn check(&self) -> Result<()> {
        let mut folded = HashSet::new();
        for pair in self.files.windows(2) {
            if pair[0].path >= pair[1].path {
                return Err(Error::malformed(format!("{:?} is not in its order", pair[1].path)));
            }
        }
        for file in &self.files {
            check_path(&file.path)?;
            if !folded.insert(file.path.to_lowercase()) {
                let what = format!("two files are called {:?} where case does not count", file.path);
                return Err(Error::unsafe_content(what));
            }
        }
        for pair in self.models.windows(2) {
            if pair[0].path >= pair[1].path {
                return Err(Error::malformed(format!("{:?} is not in its order", pair[1].path)));
            }
        }
        for model in &self.models {
            for path in std::iter::once(&model.path).chain(&model.files) {
                if self.file(path).is_none() {
                    return Err(Error::malformed(format!(
                        "{path:?} is a file of a model and not among the files"
                    )));
                }
            }
            let nowhere = |t: &&TensorEntry| t.file.is_some_and(|f| f as usize >= model.files.len());
            if let Some(tensor) = model.tensors.iter().find(nowhere) {
                let what = "the tensor is in a file that the model does not have";
                return Err(Error::malformed(what).with_tensor(&*tensor.name));
            }
            for pair in model.tensors.windows(2) {
                if pair[0].name >= pair[1].name {
                    let what = "the tensor is not in its order, or is there twice";
                    return Err(Error::malformed(what).with_tensor(&*pair[1].name));
                }
            }
            if model_hash(model.tensors.iter().map(|t| (&*t.name, t.hash))) != model.logical {
                let what = format!("the logical hash of {:?} is not that of its tensors", model.path);
                return Err(Error::mismatch(what));
            }
        }
        Ok(())
    }
}

/// What is wrong with a text that carries no digest of a manifest that this version reads, where that can be said.
fn unsealed(text: &str) -> Option<Error> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "weighbridge_manifest")]
        version: Option<u64>,
    }
    match serde_json::from_str::<Head>(text) {
        Ok(Head { version: Some(VERSION) }) => None,
        Ok(Head { version: Some(other) }) => Some(other_version(other)),
        Ok(Head { version: None }) => Some(Error::malformed("this is JSON, and no manifest of a model")),
        // A flipped bit can break the JSON of what was a manifest.
        Err(_) if text.contains("\"weighbridge_manifest\"") => None,
        Err(e) => Some(no_manifest(&e)),
    }
}

fn other_version(version: u64) -> Error {
    Error::unsupported(format!("this is a manifest of version {version}, and {VERSION} is read"))
        .with_hint("a later version of weighbridge wrote it: use that one")
}

fn no_manifest(error: &serde_json::Error) -> Error {
    Error::malformed(format!("this is no manifest: {error}"))
}

/// Refuses a path that could lead out of the folder, or is spelt in a way that another path is spelt too.
pub(super) fn check_path(path: &str) -> Result<()> {
    let plain = weighbridge_formats::source::is_plain_relative(path);
    let parts = |path: &str| path.split('/').all(|p| !p.is_empty() && p != "." && !p.ends_with(['.', ' ']));
    if plain && parts(path) && path.len() <= 4096 {
        return Ok(());
    }
    Err(Error::unsafe_content(format!("{path:?} is no plain path below the model's folder"))
        .with_hint("do not trust this manifest"))
}

/// A sequence of at most `MOST` items.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> std::result::Result<Vec<T>, D::Error> {
    struct Items<T, const MOST: usize>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MOST} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<T>, A::Error> {
            let mut out = Vec::new();
            while let Some(item) = seq.next_element()? {
                let left = LEFT.get();
                if out.len() == MOST || left == 0 {
                    let most = if left == 0 { ITEMS } else { MOST };
                    return Err(A::Error::custom(format!("more than {most} items")));
                }
                LEFT.set(left - 1);
                out.push(item);
            }
            Ok(out)
        }
    }
    deserializer.deserialize_seq(Items::<T, MOST>(std::marker::PhantomData))
}

/// A field that must be there, and may be null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// A dtype by its name.
mod dtype_name {
    use super::{DType, Deserialize, Deserializer};
    use serde::{Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(dtype.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DType, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let dtype = DType::parse(&text).filter(|d| d.name() == text);
        dtype.ok_or_else(|| D::Error::custom(format!("{text:?} is no dtype")))
    }
}

/// A digest as 64 digits.
mod digits {
    use super::{Deserialize, Deserializer, Digest, from_hex, hex};
    use serde::{Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        from_hex(&text).ok_or_else(|| D::Error::custom("a digest is 64 digits, in lower case"))
    }
}

/// A digest as 64 digits, or null.
mod maybe_digits {
    use super::{Deserialize, Deserializer, Digest, from_hex, hex};
    use serde::{Serialize, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        digest: &Option<Digest>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        digest.as_ref().map(|d| hex(d)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Digest>, D::Error> {
        let text = Option::<std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.map(|t| from_hex(&t).ok_or_else(|| D::Error::custom("a digest is 64 digits, in lower case")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    fn file(path: &str) -> FileEntry {
        FileEntry { path: path.into(), size: 7, sha256: [1; 32], blake3: [2; 32] }
    }

    fn sample() -> Manifest {
        let tensor = |name: &str, hash| TensorEntry {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![2, 3],
            hash: [hash; 32],
            file: None,
        };
        let tensors = vec![tensor("a", 3), tensor("b\"ü\n", 4)];
        let model = ModelEntry {
            path: "model.safetensors".into(),
            files: vec!["model.safetensors".into()],
            format: "safetensors".into(),
            variety: "v".into(),
            logical: model_hash(tensors.iter().map(|t| (&*t.name, t.hash))),
            tensors,
        };
        let mut provenance = Provenance::new("pytorch_model.bin");
        provenance.logical = Some([9; 32]);
        provenance.options.push(("dtype".into(), "F16".into()));
        let files = vec![file("model.safetensors"), file("config.json"), file("sub/x.txt")];
        Manifest::new(Covers::Folder, files, vec![model]).with_provenance(Some(provenance))
    }

    /// A text with the digest that belongs to it.
    fn sealed(body: &str) -> Vec<u8> {
        format!("{body}{SEAL}{}{END}", blake3::hash(body.as_bytes()).to_hex()).into_bytes()
    }

    fn body(manifest: &Manifest) -> String {
        let text = manifest.to_text().unwrap();
        text.rsplit_once(SEAL).unwrap().0.to_owned()
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_written() {
        let mut manifest = sample();
        let text = manifest.to_text().unwrap();
        assert_eq!(Manifest::from_text(text.as_bytes()).unwrap(), manifest);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        manifest.models.clear();
        manifest.provenance = None;
        manifest.files.clear();
        let text = manifest.to_text().unwrap();
        assert_eq!(Manifest::from_text(text.as_bytes()).unwrap(), manifest);
        assert_eq!(manifest.logical(), None);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_of_the_manifest_is_an_error() {
        let text = sample().to_text().unwrap().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut bad = text.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::from_text(&bad).is_err(), "bit {bit}");
        }
        for end in 0..text.len() {
            assert!(Manifest::from_text(&text[..end]).is_err(), "{end} bytes");
        }
        let longer = [&text[..], b"\n"].concat();
        assert_eq!(Manifest::from_text(&longer).unwrap_err().kind(), ErrorKind::Mismatch);
    }

    #[test]
    fn what_is_no_manifest_of_this_version_is_refused_by_name() {
        let good = body(&sample());
        for (from, to, kind) in [
            ("\"weighbridge_manifest\": 1", "\"weighbridge_manifest\": 2", ErrorKind::Unsupported),
            ("\"weighbridge_manifest\": 1", "\"weighbridge_manifest\": -1", ErrorKind::Malformed),
            ("\"tool\"", "\"tools\"", ErrorKind::Malformed),
            ("\"covers\": \"folder\"", "\"covers\": \"disk\"", ErrorKind::Malformed),
            ("\"covers\"", "\"tool\": \"x\", \"covers\"", ErrorKind::Malformed),
            ("\"F32\"", "\"F33\"", ErrorKind::Malformed),
            ("\"F32\"", "\"f32\"", ErrorKind::Malformed),
            ("[2,3]", "[2,-3]", ErrorKind::Malformed),
            ("\"name\":\"a\"", "\"file\":1,\"name\":\"a\"", ErrorKind::Malformed),
            ("\"name\":\"a\"", "\"name\":\"z\"", ErrorKind::Malformed),
            ("\"name\":\"a\"", "\"name\":\"b\\\"ü\\n\"", ErrorKind::Malformed),
            ("\"hash\":\"03", "\"hash\":\"13", ErrorKind::Mismatch),
            ("\"hash\":\"03", "\"hash\":\"0", ErrorKind::Malformed),
            ("\"size\":7", "\"size\":-7", ErrorKind::Malformed),
            ("\"size\":7", "\"size\":7,\"mode\":1", ErrorKind::Malformed),
            ("\"files\": [\"model.safetensors\"]", "\"files\": [\"other\"]", ErrorKind::Malformed),
            ("\"files\": [\"model.safetensors\"]", "\"files\": [\"/etc/passwd\"]", ErrorKind::Malformed),
            ("\"path\": \"model.safetensors\"", "\"path\": \"../x\"", ErrorKind::Malformed),
        ] {
            let text = if from.contains("\"files\": [\"model") {
                good.replace(from, to)
            } else {
                good.replacen(from, to, 1)
            };
            // serde writes no blanks inside of lists.
            let text = if text == good {
                good.replace("[\"model.safetensors\"]", &to["\"files\": ".len()..])
            } else {
                text
            };
            assert_ne!(text, good, "{from}");
            let error = Manifest::from_text(&sealed(&text)).unwrap_err();
            assert_eq!(error.kind(), kind, "{to}: {error}");
        }
        // A list in a list: each is short enough, and together they are not.
        let many = format!("[[\"a\",\"b\"]{}]", ",[\"a\",\"b\"]".repeat(FILES));
        let text = good.replace("[[\"dtype\",\"F16\"]]", &many);
        assert_ne!(text, good);
        assert!(Manifest::from_text(&sealed(&text)).unwrap_err().to_string().contains("more than 100000"));
        let models = ", {\"path\":\"a\",\"files\":[".to_owned() + &"\"a\",".repeat(FILES - 1) + "\"a\"]";
        let rest = ",\"format\":\"\",\"variety\":\"\",\"logical\":\"".to_owned()
            + &"0".repeat(64)
            + "\",\"tensors\":[]}";
        let text =
            good.replace("\n  ],\n  \"provenance\"", &((models + &rest).repeat(7) + "],\"provenance\""));
        assert_ne!(text, good);
        assert!(Manifest::from_text(&sealed(&text)).unwrap_err().to_string().contains("more than 600000"));
        let shape = format!("[{}1]", "1,".repeat(DIMS));
        assert!(Manifest::from_text(&sealed(&good.replace("[2,3]", &shape))).is_err());
        for (bad, kind) in [
            (&b"{}"[..], ErrorKind::Malformed),
            (b"", ErrorKind::Malformed),
            (b"\xff", ErrorKind::Malformed),
            (b"{\"weighbridge_manifest\": 7}", ErrorKind::Unsupported),
            (b"{\"weighbridge_manifest\": 1}", ErrorKind::Mismatch),
        ] {
            assert_eq!(Manifest::from_text(bad).unwrap_err().kind(), kind, "{bad:?}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for bad in [
            "../x",
            "/etc/passwd",
            "a/../../b",
            "a\0b",
            "a\\b",
            "C:x",
            "",
            ".",
            "a//b",
            "a/./b",
            "a/",
            "./a",
            "x.",
            "a /b",
        ] {
            let mut manifest = sample();
            manifest.files = vec![file(bad)];
            manifest.models.clear();
            let text = manifest.to_text().unwrap();
            let error = Manifest::from_text(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{bad:?}: {error}");
        }
        for twice in [["A.txt", "a.txt"], ["SUB/x", "sub/x"]] {
            let mut manifest = sample();
            manifest.models.clear();
            manifest.files = twice.iter().map(|p| file(p)).collect();
            let text = manifest.to_text().unwrap();
            assert_eq!(Manifest::from_text(text.as_bytes()).unwrap_err().kind(), ErrorKind::UnsafeContent);
        }
        let mut manifest = sample();
        manifest.files.reverse();
        let text = manifest.to_text().unwrap();
        assert_eq!(Manifest::from_text(text.as_bytes()).unwrap_err().kind(), ErrorKind::Malformed);
    }
}
