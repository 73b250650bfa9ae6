//! What arrays there are in a pickle or dump that cannot be followed to its end, or that stands among other bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::INFO;
use super::archive::Parts;
use super::numpy::{Found, explain_each};
use super::read::{LEFT_IN_FILE, fill, is_joblib};
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::decode_leniently;
use crate::source::Source;

/// What there is of a pickle.
#[non_exhaustive]
pub struct Salvaged {
    /// Its NumPy arrays. Those that were made and thrown away are named `unreached.0` and so on.
    pub archive: Box<dyn Archive>,
    /// Where it ends by STOP, in the source; `None` if it breaks.
    pub end: Option<u64>,
    /// Why it could not be followed to its end, if it could not.
    pub fault: Option<Error>,
    /// What is wrong with arrays that are described and cannot be such.
    pub lost: Vec<String>,
}

/// The most faults that are kept.
const LOSSES: usize = 1000;

/// The arrays of the pickle that begins at an offset of a source, plain or a dump of joblib's.
///
/// # Errors
/// What the source says, and `LimitExceeded` where the pickle describes more than the limits allow.
pub fn salvage(source: &Source, from: u64, limits: &Limits) -> Result<Salvaged> {
    let length = source.len().saturating_sub(from);
    let source = Source::from_reader(Arc::new(source.slice(from, length)?));
    let bytes = source.read_vec(0, length.min(limits.header_bytes), limits)?;
    let plain = decode_leniently(&bytes, limits, LEFT_IN_FILE, Some(is_joblib))?;
    drop(bytes);
    let (decoded, fault, mut found, spans, mut account) = match plain {
        Some(((decoded, spans, account), fault)) => (decoded, fault, Found::default(), spans, account),
        None => {
            let (decoded, fault, found, account) = crate::backends::joblib::salvage(&source, limits)?;
            (decoded, fault, found, HashMap::new(), account)
        }
    };
    let (mut values, mut lost) = (decoded.values, Vec::new());
    explain_each(&mut values, &spans, &mut found, &mut account, &mut |_, error| {
        if lost.len() < LOSSES {
            lost.push(error.message().to_owned());
        }
        Ok(())
    })?;
    fill(&mut values, &spans, &source, &mut account)?;
    let variety = format!("protocol {}", decoded.protocol);
    let end = fault.is_none().then_some(from + decoded.consumed);
    let parts = Parts { info: &INFO, variety, source, files: Vec::new(), values, found, notes: Vec::new() };
    Ok(Salvaged { archive: Box::new(parts.assemble_all(limits, account)?), end, fault, lost })
}
