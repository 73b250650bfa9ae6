//! The values of an archive in formats that hold tensors and text alone: an entry of the metadata, and back.

use std::collections::HashMap;

use crate::account::Account;
use crate::archive::{Archive, Metadata, Note};
use crate::error::{Error, Result};
use crate::flat;
use crate::limits::Limits;
use crate::shards::{MAX_VALUES, VALUES_KEY};
use crate::tensor::TensorInfo;
use crate::traits::{ValuesPolicy, WriteOptions};
use crate::value::Values;
use crate::values_json;

/// The values that are to be kept, as text: all but those that names and tensors say already. `written` says which
/// tensors the file will have.
pub(crate) fn to_text(
    archive: &dyn Archive,
    written: impl Fn(usize) -> bool,
    options: &WriteOptions,
    notes: &mut Vec<Note>,
) -> Result<Option<String>> {
    let tensors = archive.tensors();
    let Some(values) = archive.values().filter(|v| !flat::is_plain(v, tensors)) else { return Ok(None) };
    let left = flat::left_out(values);
    let named = flat::listed(left.paths);
    if options.values == ValuesPolicy::Drop {
        notes.push(Note::changed(match left.count {
            0 => "tensors stand under their dotted names, without the containers around them".to_owned(),
            n => format!("left out, as asked, {}: {named}", flat::others(n)),
        }));
        return Ok(None);
    }
    let name = |i: u32| tensors.get(i as usize).filter(|_| written(i as usize)).map(|t| t.name());
    // Values and their text are in memory side by side.
    let most = MAX_VALUES.min(usize::try_from(options.limits.memory / 12).unwrap_or(MAX_VALUES));
    if let Some(text) = values_json::encode(values, name, most) {
        notes.push(Note::changed(format!(
            "{}, and the containers around, are kept as text under {VALUES_KEY:?}",
            flat::others(left.count)
        )));
        return Ok(Some(text));
    }
    let what = format!("more than {most} bytes would be needed for {}: {named}", flat::others(left.count));
    if !options.allow_loss {
        return Err(Error::invalid_options(what).with_hint(
            "select the part that is wanted, ask for the values to be dropped, or allow the loss",
        ));
    }
    notes.push(Note::lost(what));
    Ok(None)
}

/// Takes the entry that keeps values out of the metadata. One that cannot be read stays there as it is.
pub(crate) fn from_text(
    infos: &[TensorInfo],
    metadata: &mut Metadata,
    (limits, account): (&Limits, &mut Account),
    notes: &mut Vec<Note>,
) -> Option<Values> {
    let at = metadata.iter().position(|(key, _)| key == VALUES_KEY)?;
    let numbers: HashMap<&str, u32> = infos.iter().map(TensorInfo::name).zip(0..).collect();
    match values_json::decode(&metadata[at].1, |name| numbers.get(name).copied(), limits, account) {
        Ok(values) => {
            metadata.remove(at);
            Some(values)
        }
        Err(e) => {
            notes.push(Note::warning(format!(
                "the values kept under {VALUES_KEY:?} cannot be restored, and stay text: {e}"
            )));
            None
        }
    }
}
