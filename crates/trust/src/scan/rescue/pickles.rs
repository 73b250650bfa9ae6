//! Pickles in a row, plain and joblib's, and the streams that torch wrote first.

use weighbridge_formats::backends::pickle::salvage::salvage;
use weighbridge_formats::backends::torch::salvage::salvage_old;
use weighbridge_formats::{Limits, Result, Source};

use super::{Found, Losses};
use crate::scan::pickle::{begins, begins_unmarked};

/// The most pickles in a row.
const ROW: u32 = 10_000;

/// Whether this may be a stream of torch's: its protocol version stands in the second of its pickles, whatever makes
/// the number in the first.
pub(super) fn may_be_torch(head: &[u8]) -> bool {
    let has = |needle: &[u8]| memchr::memmem::find(head, needle).is_some();
    has(b"M\xe9\x03.") || has(b"I1001\n.") || has(b"J\xe9\x03\0\0.") || has(b"L1001L\n.")
}

/// The tensors of a stream or tar as torch wrote it first.
pub(super) fn rescue_old(source: &Source, part: &str, limits: &Limits) -> Result<Found> {
    let salvaged = salvage_old(source.clone(), limits)?;
    Ok(Found { part: part.to_owned(), archive: salvaged.archive })
}

/// The arrays of the pickles that a source begins with.
pub(super) fn rescue(
    source: &Source,
    part: &str,
    limits: &Limits,
    losses: &mut Losses,
) -> Result<Vec<Found>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for number in 1..=ROW {
        let salvaged = salvage(source, at, limits)?;
        let place = match (number, part) {
            (1, part) => part.to_owned(),
            (n, "") => format!("pickle {n}"),
            (n, part) => format!("{part}/pickle {n}"),
        };
        for why in salvaged.lost {
            losses.lost(place.clone(), format!("an array: {why}"));
        }
        let tensors = !salvaged.archive.tensors().is_empty();
        if tensors && let Some(fault) = &salvaged.fault {
            losses.lost(place.clone(), format!("the rest of the pickle, which breaks: {}", fault.message()));
        }
        if tensors {
            found.push(Found { part: place, archive: salvaged.archive });
        }
        let Some(end) = salvaged.end.filter(|end| *end > at && *end < source.len()) else { break };
        let mut next = vec![0; (source.len() - end).min(4096) as usize];
        source.reader().read_at(end, &mut next)?;
        if !begins(&next) && !begins_unmarked(&next) {
            break;
        }
        at = end;
    }
    Ok(found)
}
