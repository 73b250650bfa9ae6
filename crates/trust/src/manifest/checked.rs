//! An archive whose tensors are held against a manifest when they are read.

use std::path::PathBuf;
use std::sync::Mutex;

use weighbridge_formats::logical::{Digest, hex, tensor_hash};
use weighbridge_formats::{
    Access, Archive, Companion, Data, Error, Note, ReadAt, Result, StorageInfo, TensorInfo, Values,
};

use super::record::ModelEntry;

/// What is read at a time to check a tensor.
const CHUNK: u64 = 256 << 10;

/// An archive that gives no byte of a tensor before all of the tensor had the recorded hash.
///
/// A tensor is checked when it is first read, and not again: a program that changes the file meanwhile is not noticed. Values
/// and metadata are not covered by tensor hashes.
pub struct Checked<'a> {
    inner: Box<dyn Archive + 'a>,
    expected: Vec<Digest>,
    /// The tensors that have been found to be as recorded.
    good: Mutex<Vec<bool>>,
}

impl<'a> Checked<'a> {
    /// Holds an archive against a model of a manifest, as far as that goes without reading tensors.
    ///
    /// # Errors
    /// `Mismatch` with the tensor if names, dtypes or shapes are not as recorded.
    pub fn new(inner: Box<dyn Archive + 'a>, model: &ModelEntry) -> Result<Self> {
        let mut expected = Vec::with_capacity(inner.tensors().len());
        for info in inner.tensors() {
            let other = |what: String| Error::mismatch(what).with_tensor(info.name());
            let Some(entry) = model.tensor(info.name()) else {
                return Err(other("the manifest has no such tensor".into()));
            };
            if (entry.dtype, &entry.shape[..]) != (info.dtype(), info.shape()) {
                let (dtype, shape) = (info.dtype().name(), info.shape());
                let what = format!("{dtype} {shape:?}, and {} {:?} is recorded", entry.dtype, entry.shape);
                return Err(other(what));
            }
            expected.push(entry.hash);
        }
        if expected.len() != model.tensors.len() {
            let names: std::collections::HashSet<&str> =
                inner.tensors().iter().map(TensorInfo::name).collect();
            let lost = model.tensors.iter().find(|t| !names.contains(&*t.name)).map(|t| t.name.clone());
            let error = Error::mismatch("a tensor is recorded, and is not there");
            return Err(error.with_tensor(lost.unwrap_or_default()));
        }
        let good = Mutex::new(vec![false; expected.len()]);
        Ok(Self { inner, expected, good })
    }

    fn is_good(&self, index: usize) -> bool {
        self.good.lock().is_ok_and(|good| good.get(index) == Some(&true))
    }

    /// Compares the hash of a tensor's bytes.
    fn judge(&self, index: usize, digest: &Digest) -> Result<()> {
        let info = &self.inner.tensors()[index];
        let found = tensor_hash(info, digest);
        if found == self.expected[index] {
            if let Ok(mut good) = self.good.lock() {
                good[index] = true;
            }
            return Ok(());
        }
        let what =
            format!("the tensor's hash is {}, and {} is recorded", hex(&found), hex(&self.expected[index]));
        Err(Error::mismatch(what)
            .with_tensor(info.name())
            .with_hint("see what changed (`weighbridge verify`), and fetch the model again or repair it"))
    }

    /// Reads a tensor whole, unless it is known to be good.
    fn check(&self, index: usize, data: &Data<'_>) -> Result<()> {
        if self.is_good(index) {
            return Ok(());
        }
        let (mut hasher, mut at, len) = (blake3::Hasher::new(), 0, data.len());
        let mut buffer = vec![0; CHUNK.min(len) as usize];
        while at < len {
            let part = &mut buffer[..(len - at).min(CHUNK) as usize];
            data.read_at(at, part)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        data.finish()?;
        self.judge(index, &hasher.finalize().into())
    }
}

/// A tensor's bytes, behind the check.
struct CheckedData<'a> {
    archive: &'a Checked<'a>,
    index: usize,
    data: Data<'a>,
}

impl ReadAt for CheckedData<'_> {
    fn len(&self) -> u64 {
        self.data.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset == 0 && buf.len() as u64 == self.data.len() && !self.archive.is_good(self.index) {
            // All of it at once: it is hashed where it is.
            self.data.read_at(0, buf)?;
            let judged = self.archive.judge(self.index, &blake3::hash(buf).into());
            if judged.is_err() {
                buf.fill(0);
            }
            return judged;
        }
        self.archive.check(self.index, &self.data)?;
        self.data.read_at(offset, buf)
    }

    fn access(&self) -> Access {
        self.data.access()
    }

    fn finish(&self) -> Result<()> {
        self.archive.check(self.index, &self.data)?;
        self.data.finish()
    }
}

impl Archive for Checked<'_> {
    fn format(&self) -> &'static str {
        self.inner.format()
    }

    fn variety(&self) -> String {
        self.inner.variety()
    }

    fn tensors(&self) -> &[TensorInfo] {
        self.inner.tensors()
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        let data = self.inner.data(index)?;
        Ok(Data::lazy(CheckedData { archive: self, index, data }))
    }

    fn storages(&self) -> &[StorageInfo] {
        self.inner.storages()
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        for (i, info) in self.inner.tensors().iter().enumerate() {
            if info.view().is_some_and(|v| v.storage as usize == index) {
                self.check(i, &self.inner.data(i)?)?;
            }
        }
        self.inner.storage_data(index)
    }

    fn metadata(&self) -> &[(String, String)] {
        self.inner.metadata()
    }

    fn values(&self) -> Option<&Values> {
        self.inner.values()
    }

    fn notes(&self) -> &[Note] {
        self.inner.notes()
    }

    fn companion(&self) -> Option<&dyn Companion> {
        self.inner.companion()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.inner.files()
    }
}
