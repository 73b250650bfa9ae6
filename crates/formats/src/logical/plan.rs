//! The logical hash of what a plan writes, made in the pass that writes it.

use std::collections::HashMap;

use super::{Digest, model_hash, tensor_hash};
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::write::{Content, WritePlan};

/// Adds bytes to the end of the plan's last file that are made of the logical hash of the tensors which the plan writes:
/// `len` of them, by `fill`.
///
/// Every tensor of the archive must be a data segment of its own that is labelled with its name, as backends do that
/// store tensors one by one.
///
/// # Errors
/// `InvalidOptions` if a tensor has no such segment, or the plan has no file.
pub fn push_logical_hash<'a>(
    plan: &mut WritePlan<'a>,
    archive: &'a dyn Archive,
    len: u64,
    fill: impl FnOnce(&Digest) -> Vec<u8> + Send + 'a,
) -> Result<()> {
    let mut places = HashMap::new();
    for (f, file) in plan.files.iter_mut().enumerate() {
        for (s, segment) in file.segments_mut().iter_mut().enumerate() {
            if let Content::Data { label, blake3, .. } = &mut segment.content {
                *blake3 = true;
                places.insert(label.clone(), (f, s));
            }
        }
    }
    let mut found = Vec::with_capacity(archive.tensors().len());
    for info in archive.tensors() {
        let place = places.get(info.name()).copied();
        // What has no bytes needs no segment.
        if place.is_none() && info.bytes() > 0 {
            return Err(
                Error::invalid_options("the plan has no segment of that name").with_tensor(info.name())
            );
        }
        found.push(place);
    }
    let last = plan.files.last_mut().ok_or_else(|| Error::invalid_options("the plan has no file"))?;
    last.push_late(
        len,
        Box::new(move |digests| {
            let mut hashes = Vec::with_capacity(found.len());
            for (info, place) in archive.tensors().iter().zip(found) {
                let data = match place {
                    Some((file, segment)) => digests.blake3(file, segment)?,
                    None => blake3::hash(&[]).into(),
                };
                hashes.push((info.name(), tensor_hash(info, &data)));
            }
            Ok(fill(&model_hash(hashes)))
        }),
    )?;
    Ok(())
}
