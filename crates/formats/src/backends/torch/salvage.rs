//! What tensors there are in files of torch that its reader refuses: cut off, contradicting themselves, with objects of
//! any kind beside the tensors.
//!
//! Nothing is guessed. A tensor that is described in full, and whose bytes are there, is given; one that is not stands
//! in the archive by its name, and says why when its bytes are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::archive::{Storages, TorchArchive};
use super::{ID, legacy, tar};
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::decode_leniently;
use crate::source::{ReadAt, Source};

/// What there is of a file.
#[non_exhaustive]
pub struct Salvaged {
    /// The tensors. Those that were made and thrown away are named `unreached.0` and so on.
    pub archive: Box<dyn Archive>,
    /// Why the pickle could not be followed to its end, if it could not.
    pub fault: Option<Error>,
}

/// Where the bytes of a storage are, by its key.
pub type FindStorage<'a> = dyn FnMut(&str) -> Result<Arc<dyn ReadAt>> + 'a;

/// The tensors that the `data.pkl` of a torch file describes, whose storages `find` knows by their keys. `source` is what
/// errors name.
///
/// # Errors
/// `LimitExceeded` where the pickle describes more than the limits allow.
pub fn salvage(
    pickle: &[u8],
    source: Source,
    big_endian: bool,
    find: &mut FindStorage<'_>,
    limits: &Limits,
) -> Result<Salvaged> {
    let decoded = decode_leniently(pickle, limits, usize::MAX, None)?;
    let Some(((decoded, _, account), fault)) = decoded else {
        return Err(Error::malformed("the pickle is none of torch's").with_format(ID));
    };
    let variety = format!("pickle protocol {}", decoded.protocol);
    let locate = Box::new(|wanted: &[(&str, u64)]| -> Result<Box<dyn Storages>> {
        let mut found = Found { places: HashMap::new() };
        for (index, (key, _)) in wanted.iter().enumerate() {
            found.places.insert(index, find(key).map_err(|e| e.message().to_owned()));
        }
        Ok(Box::new(found))
    });
    let archive = TorchArchive::open(
        source,
        variety,
        decoded.values,
        big_endian,
        Vec::new(),
        (limits, account),
        locate,
        true,
    )?;
    Ok(Salvaged { archive: Box::new(archive), fault })
}

/// The tensors of a stream of pickles as torch wrote it before 1.6, or of a tar as it wrote first.
///
/// # Errors
/// Where the source is neither, or its parts cannot be told apart.
pub fn salvage_old(source: Source, limits: &Limits) -> Result<Salvaged> {
    let mut head = vec![0; source.len().min(1024) as usize];
    source.reader().read_at(0, &mut head)?;
    let archive = if tar::sniff(&head) {
        tar::open_as(source, limits, true)
    } else {
        legacy::open_as(source, limits, true)
    };
    Ok(Salvaged { archive: Box::new(archive.map_err(|e| e.with_format(ID))?), fault: None })
}

/// Storages that were found, and why others were not.
struct Found {
    places: HashMap<usize, std::result::Result<Arc<dyn ReadAt>, String>>,
}

impl Storages for Found {
    fn reader(&self, index: usize) -> Result<Arc<dyn ReadAt>> {
        match self.places.get(&index) {
            Some(Ok(reader)) => Ok(reader.clone()),
            Some(Err(why)) => Err(Error::malformed(why.clone())),
            None => Err(Error::not_found(format!("there is no storage number {index}"))),
        }
    }
}
