//! An encrypted model that is read in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weighbridge_formats::source::Files;
use weighbridge_formats::{Archive, ReadAt, ReadOptions, Registry, Result, Source};

use super::Identities;
use super::armor::Armored;
use super::reader::{Reader, head_of};
use super::tar::{self, Listing, Member};

/// The first bytes of an age file that is no armor.
const BINARY: &[u8] = b"age-encryption.org/";

/// Whether a file is an age file, by its first bytes.
///
/// # Errors
/// What opening it says. A folder is none.
pub fn is_encrypted(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    let source = Source::open(path)?;
    Ok(begins_age(&head_of(&**source.reader()).map_err(|e| e.with_path(path))?))
}

/// Whether an age file is encrypted with a passphrase, and not to keys, by its header.
///
/// # Errors
/// What opening it says.
pub fn is_for_passphrase(path: &Path) -> Result<bool> {
    let source = Source::open(path)?;
    let mut head = head_of(&**source.reader()).map_err(|e| e.with_path(path))?;
    if is_armored(&head) {
        head = head_of(&Armored::new(source.reader().clone())?).map_err(|e| e.with_path(path))?;
    }
    Ok(head.windows(10).any(|w| w == b"\n-> scrypt"))
}

pub(super) fn begins_age(head: &[u8]) -> bool {
    head.starts_with(BINARY) || is_armored(head)
}

pub(super) fn is_armored(head: &[u8]) -> bool {
    head.trim_ascii_start().starts_with(super::armor::BEGIN)
}

/// An encrypted file or folder that is open for reading. Nothing is written anywhere, and of the weights only the chunks
/// are decrypted that a tensor lies in.
///
/// ```no_run
/// use weighbridge_formats::{ReadOptions, Registry};
/// use weighbridge_trust::encrypt::{Encrypted, Identities};
///
/// let mut keys = Identities::new();
/// keys.add_file("key.txt".as_ref(), &mut |_| unreachable!("this key has no passphrase"))?;
/// let model = Encrypted::open("model.age", &keys)?;
/// let weights = model.archive(&Registry::builtin(), &ReadOptions::default())?;
/// let embedding = weights.tensor("embeddings.weight")?.data.read_all()?;
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
pub struct Encrypted {
    inner: Arc<Inner>,
    folder: bool,
    marked: bool,
}

struct Inner {
    path: PathBuf,
    reader: Arc<Reader>,
    /// Of a folder its files, of a file itself under its name.
    members: Vec<Member>,
}

impl Encrypted {
    /// Opens an age file: finds a key that fits, and checks that its end is authentic. Of a folder the names are read.
    ///
    /// # Errors
    /// `InvalidOptions` where no key fits; `Mismatch` for a file that was cut short or changed; `Malformed` for what is
    /// no age file; for a folder also what a name in it may be refused for (`UnsafeContent`).
    pub fn open(path: impl AsRef<Path>, identities: &Identities) -> Result<Self> {
        let path = path.as_ref();
        Self::from_source(&Source::open(path)?, path, identities).map_err(|e| e.with_path(path))
    }

    /// As [`Encrypted::open`], from anything that can be read; `path` is what messages call it.
    ///
    /// # Errors
    /// As [`Encrypted::open`].
    pub fn from_source(source: &Source, path: &Path, identities: &Identities) -> Result<Self> {
        let reader = Reader::open(source.reader().clone(), identities)?;
        let head = head_of(&reader)?;
        let listing = if tar::is_tar(&head) { folder_in(&reader)? } else { None };
        let (members, folder, marked) = match listing {
            Some(listing) => (listing.members, true, listing.marked),
            None => (vec![Member { name: plain_name(path), offset: 0, len: reader.len() }], false, false),
        };
        let inner = Inner { path: path.to_owned(), reader: Arc::new(reader), members };
        Ok(Self { inner: Arc::new(inner), folder, marked })
    }

    /// Whether a folder is inside.
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// Whether the folder was encrypted by this crate, and not a tar by somebody else.
    pub(super) fn is_marked(&self) -> bool {
        self.marked
    }

    /// The names of the files inside with their lengths, in order; of a file, its name without `.age`.
    pub fn members(&self) -> impl Iterator<Item = (&str, u64)> {
        self.inner.members.iter().map(|m| (&*m.name, m.len))
    }

    /// The plaintext as one: the file, or the tar of the folder.
    pub fn reader(&self) -> Arc<dyn ReadAt> {
        self.inner.reader.clone()
    }

    /// The files inside.
    pub fn files(&self) -> Arc<dyn Files> {
        self.inner.clone()
    }

    /// One file as a source, which finds its shards and external data inside too.
    ///
    /// # Errors
    /// `NotFound` where there is none of that name.
    pub fn source(&self, name: &str) -> Result<Source> {
        Source::inside(&self.files(), name)
    }

    /// Opens the weights inside: of a file itself, of a folder those that
    /// [`open_path`](Registry::open_path) would choose.
    ///
    /// # Errors
    /// As [`Registry::open_path`]; `Mismatch` for chunks that were changed.
    pub fn archive(&self, registry: &Registry, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        match self.inner.members.first() {
            Some(only) if !self.folder => registry.open(self.source(&only.name)?, options),
            _ => registry.open_files(&self.files(), options),
        }
    }

    /// How many bytes of the encrypted file were read so far: header, end, and the chunks that were asked for.
    pub fn fetched(&self) -> u64 {
        self.inner.reader.fetched()
    }
}

impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encrypted").field("path", &self.inner.path).field("folder", &self.folder).finish()
    }
}

/// The files of a folder; `None` where the tar is a model itself, in torch's oldest form.
fn folder_in(reader: &Reader) -> Result<Option<Listing>> {
    let listing = tar::list(reader)?;
    let torch = ["pickle", "storages", "tensors"];
    let is_model = !listing.marked && torch.iter().all(|n| listing.members.iter().any(|m| m.name == *n));
    Ok((!is_model).then_some(listing))
}

/// The name of the file inside: `model.safetensors` of `model.safetensors.age`.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".age").unwrap_or(&name);
    if stem.is_empty() { "model".into() } else { stem.into() }
}

impl Files for Inner {
    fn container(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.members.iter().map(|m| &*m.name).collect()
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn ReadAt>>> {
        let Some(member) = self.members.iter().find(|m| m.name == name) else { return Ok(None) };
        let whole = Source::from_reader(self.reader.clone());
        Ok(Some(Arc::new(whole.slice(member.offset, member.len)?)))
    }
}
