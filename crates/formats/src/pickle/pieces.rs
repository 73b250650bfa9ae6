//! A pickle that is decoded piece by piece, out of a stream in which other bytes stand between its parts.
//!
//! The machine stops behind a BUILD that the caller asked to know of; the caller says what follows: raw bytes,
//! which are passed over and not read, or a pickle of its own. Everything happens in one loop.

use super::Decoded;
use super::machine::{Machine, Stop};
use crate::source::ReadAt;
use crate::tensor::zeroed;
use crate::value::Global;
use crate::{Error, Limits, Result, ValueId, Values};

/// The first window on the stream, and the one behind raw bytes that reach past a window.
const FIRST: u64 = 64 << 10;
/// The largest window, unless one opcode or frame needs more.
const LARGEST: u64 = 8 << 20;

/// What stands in the stream behind an object.
pub(crate) enum Behind {
    /// This many bytes that are no part of the pickle.
    Raw(u64),
    /// A whole pickle, whose value takes the object's place.
    Pickle,
    /// The rest of the pickle.
    Nothing,
}

/// Decodes the pickle that `stream` begins with. `behind` is asked at each BUILD of a class that `stop_at` knows:
/// it gets the values, the object and the offset behind it, and may change the object.
///
/// Read is what the pickle takes, in windows, and nothing of raw bytes but what stands in a window with it. That and
/// the values are held to the limits as [`super::decode`] holds them; what is passed over is not counted.
///
/// # Errors
/// As [`super::decode`]; `Malformed` if raw bytes begin inside a frame or pass the end; and what `behind` says.
pub(crate) fn decode_pieces(
    stream: &dyn ReadAt,
    limits: &Limits,
    stop_at: fn(&Global) -> bool,
    behind: &mut dyn FnMut(&mut Values, ValueId, u64) -> Result<Behind>,
) -> Result<Decoded> {
    let (decoded, fault) = pieces(stream, limits, Machine::in_pieces(limits, stop_at), behind, false)?;
    fault.map_or(Ok(decoded), Err)
}

/// As [`decode_pieces`], and where the stream cannot be followed to its end what was built until then, with the error.
///
/// # Errors
/// What the stream's reader says, and `LimitExceeded` where what was built is too much.
pub(crate) fn decode_pieces_leniently(
    stream: &dyn ReadAt,
    limits: &Limits,
    stop_at: fn(&Global) -> bool,
    behind: &mut dyn FnMut(&mut Values, ValueId, u64) -> Result<Behind>,
) -> Result<(Decoded, Option<Error>)> {
    let machine = Machine::in_pieces(limits, stop_at).without_frames();
    pieces(stream, limits, machine, behind, true)
}

/// Decodes a stream; with `keep`, an error comes beside what was built before it.
fn pieces<'a>(
    stream: &dyn ReadAt,
    limits: &Limits,
    mut idle: Machine<'a>,
    behind: &mut dyn FnMut(&mut Values, ValueId, u64) -> Result<Behind>,
    keep: bool,
) -> Result<(Decoded, Option<Error>)> {
    let end = stream.len();
    let (mut at, mut passed, mut window) = (0u64, 0u64, FIRST);
    loop {
        // What may be taken in all, less what was; an opcode that needs more has met the limit.
        let allowed = limits.header_bytes.saturating_sub(at - passed);
        let size = window.min(end - at).min(allowed);
        let mut bytes = zeroed(size)?;
        stream.read_at(at, &mut bytes)?;
        let (from, to) = (at, at + size);
        let mut machine = idle.resume(&bytes, at);
        // An error ends it, with what there is or without.
        macro_rules! checked {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(error) if keep => return Ok((machine.rest()?.0, Some(error))),
                    Err(error) => return Err(error),
                }
            };
        }
        loop {
            match machine.proceed() {
                Ok(Stop::End) if machine.is_nested() => {
                    checked!(out_of_frame(&machine));
                    checked!(machine.unnest());
                }
                Ok(Stop::End) => return Ok((machine.stop()?.0, None)),
                Ok(Stop::Built(object)) => {
                    let here = machine.offset();
                    let found = behind(machine.values_mut(), object, here).map_err(|e| e.at_offset(here));
                    match checked!(found) {
                        Behind::Nothing => {}
                        Behind::Pickle => {
                            checked!(out_of_frame(&machine));
                            checked!(machine.nest());
                        }
                        Behind::Raw(length) => {
                            checked!(out_of_frame(&machine));
                            let next = here.checked_add(length).filter(|next| *next <= end);
                            at = checked!(next.ok_or_else(|| past_end(here, length, end)));
                            passed += length;
                            match usize::try_from(at - from).ok().and_then(|n| bytes.get(n..)) {
                                Some(rest) if !rest.is_empty() => machine = machine.resume(rest, at),
                                _ => {
                                    window = FIRST;
                                    break;
                                }
                            }
                        }
                    }
                }
                Err(error) if machine.is_starved() => {
                    at = machine.opcode_offset();
                    let (needs, idle_here) = (machine.needs(), at == from);
                    if to == end || needs > end - at {
                        checked!(Err(error));
                    }
                    if needs > limits.header_bytes.saturating_sub(at - passed)
                        || (idle_here && size == allowed)
                    {
                        checked!(Err(too_large(limits, at)));
                    }
                    // Progress makes a window twice as large up to a bound; an opcode may need one past it.
                    let twice = window.saturating_mul(2);
                    window = needs.max(if idle_here { twice } else { twice.min(LARGEST) });
                    break;
                }
                Err(error) => checked!(Err(error)),
            }
        }
        idle = machine.resume(&[], at);
    }
}

fn out_of_frame(machine: &Machine<'_>) -> Result<()> {
    match machine.frame_left() {
        0 => Ok(()),
        left => {
            let what = format!("bytes that are no pickle begin {left} bytes before the end of a frame");
            Err(Error::malformed(what).at_offset(machine.offset()).with_format("pickle"))
        }
    }
}

fn past_end(here: u64, length: u64, end: u64) -> Error {
    Error::malformed(format!("{length} bytes of an array begin at {here} and pass the end at {end}"))
        .at_offset(here)
        .with_hint(crate::source::TRUNCATED)
}

fn too_large(limits: &Limits, at: u64) -> Error {
    Error::limit(format!(
        "the pickle without its arrays is larger than the limit of {} bytes",
        limits.header_bytes
    ))
    .at_offset(at)
    .with_hint("raise Limits::header_bytes")
}
