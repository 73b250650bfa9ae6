//! A pickle that is decoded piece by piece, out of a stream in which other bytes stand between its parts.
//!
//! The machine stops behind a BUILD that the caller asked to know of; the caller says what follows: raw bytes,
//! which are passed over and not read, or a pickle of its own. Everything happens in one loop.

use std::ops::Range;

use super::machine::{Done, Machine, Stop};
use crate::account::Account;
use crate::memory::zeroed_box;
use crate::source::ReadAt;
use crate::value::Global;
use crate::{Error, Limits, Result, ValueId, Values};

/// The first window on the stream, and the one behind raw bytes that reach past a window.
const FIRST: u64 = 64 << 10;
/// The largest window, unless one opcode or frame needs more.
const LARGEST: u64 = 1 << 20;

/// What stands in the stream behind an object.
pub(crate) enum Behind {
    /// This many bytes that are no part of the pickle.
    Raw(u64),
    /// A whole pickle, whose value takes the object's place.
    Pickle,
    /// The rest of the pickle.
    Nothing,
}

/// What is decoded, and within which bounds.
pub(crate) struct Stream<'a> {
    pub(crate) reader: &'a dyn ReadAt,
    /// Where the pickle begins.
    pub(crate) at: u64,
    pub(crate) limits: &'a Limits,
    pub(crate) account: Account,
    /// Bytes objects of this length stay in the stream: the values have empty ones in their place.
    pub(crate) least: usize,
    /// How many bytes are read first.
    pub(crate) window: u64,
}

impl<'a> Stream<'a> {
    /// The pickle at the beginning of a reader, all of whose bytes objects are copied.
    pub(crate) fn new(reader: &'a dyn ReadAt, limits: &'a Limits) -> Self {
        Self {
            reader,
            at: 0,
            limits,
            account: Account::of(limits, reader.len()),
            least: usize::MAX,
            window: FIRST,
        }
    }

    /// Decodes a pickle behind which nothing stands that belongs to it.
    pub(crate) fn decode(self) -> Result<Done> {
        decode_stream(self, |_| false, &mut |_, _, _, _| Ok(Behind::Nothing))
    }
}

/// What stands behind an object: of the values, the account that pays for more of them, the object, and the offset
/// behind it.
pub(crate) type AskBehind<'a> = dyn FnMut(&mut Values, &mut Account, ValueId, u64) -> Result<Behind> + 'a;

/// Decodes the pickle at an offset of a stream. `behind` is asked at each BUILD of a class that `stop_at` knows, and may
/// change the object. Returns where the bytes are that stayed in the stream, and what is left of the account.
///
/// Read is what the pickle takes, in windows, and nothing of raw bytes and bytes objects that stay but what stands in a
/// window with the rest. That and the values are held to the limits as [`super::decode`] holds them; what is passed
/// over is not counted.
///
/// # Errors
/// As [`super::decode`]; `Malformed` if raw bytes begin inside a frame or pass the end; and what `behind` says. Offsets
/// count from where the pickle begins.
pub(crate) fn decode_stream(
    stream: Stream<'_>,
    stop_at: fn(&Global) -> bool,
    behind: &mut AskBehind<'_>,
) -> Result<Done> {
    let (done, fault) = pieces(stream, |machine| machine, stop_at, behind, false)?;
    fault.map_or(Ok(done), Err)
}

/// As [`decode_stream`], and where the stream cannot be followed to its end what was built until then, with the error.
///
/// # Errors
/// What the stream's reader says, and `LimitExceeded` where what was built is too much.
#[cfg(feature = "joblib")]
pub(crate) fn decode_stream_leniently(
    stream: Stream<'_>,
    stop_at: fn(&Global) -> bool,
    behind: &mut AskBehind<'_>,
) -> Result<(Done, Option<Error>)> {
    pieces(stream, Machine::without_frames, stop_at, behind, true)
}

/// Decodes a stream; with `keep`, an error comes beside what was built before it.
fn pieces(
    stream: Stream<'_>,
    prepare: fn(Machine<'static>) -> Machine<'static>,
    stop_at: fn(&Global) -> bool,
    behind: &mut AskBehind<'_>,
    keep: bool,
) -> Result<(Done, Option<Error>)> {
    let Stream { reader, at: start, limits, account, least, mut window } = stream;
    let end = reader.len().saturating_sub(start);
    let (mut at, mut passed) = (0u64, 0u64);
    let mut idle = prepare(Machine::in_pieces((limits, account), end, least, stop_at));
    let mut held: (u64, Box<[u8]>) = (0, Box::default());
    // Of bytes that stayed in the stream and are keys.
    let mut read = |span: Range<u64>| {
        let mut bytes = zeroed_box(span.end - span.start)?.into_vec();
        reader.read_at(start + span.start, &mut bytes)?;
        Ok(bytes)
    };
    loop {
        // What may be taken in all, less what was; an opcode that needs more has met the limit.
        let allowed = limits.header_bytes.saturating_sub(at - passed);
        let size = window.min(end - at).min(allowed);
        let mut bytes = zeroed_box(size)?;
        // What is there of the window before is not read again: a compressed stream would begin anew.
        let known = usize::try_from(at - held.0).ok().and_then(|from| held.1.get(from..)).unwrap_or_default();
        let (front, rest) = bytes.split_at_mut(known.len().min(size as usize));
        front.copy_from_slice(&known[..front.len()]);
        reader.read_at(start + at + front.len() as u64, rest)?;
        held = (at, bytes);
        let bytes = &held.1;
        let (from, to) = (at, at + size);
        let mut machine = idle.resume(bytes, at);
        // An error ends it, with what there is or without.
        macro_rules! checked {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(error) if keep => return Ok((machine.rest(&mut read)?, Some(error))),
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
                Ok(Stop::End) => return Ok((machine.stop(&mut read)?, None)),
                Ok(Stop::Built(object)) => {
                    let here = machine.offset();
                    let (values, account) = machine.account_mut();
                    let found = behind(values, account, object, start + here).map_err(|e| e.at_offset(here));
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
                    if at >= end || to == end || needs > end - at {
                        checked!(Err(error));
                    }
                    if needs > limits.header_bytes.saturating_sub(at - passed)
                        || (idle_here && size == allowed)
                    {
                        checked!(Err(too_large(limits, at)));
                    }
                    // It would stand in the window and in the values.
                    let left = machine.account_mut().1.left();
                    if needs.max(if idle_here { size } else { 0 }).saturating_mul(2) > left {
                        let error = machine.account_mut().1.exceeded().at_offset(at);
                        checked!(Err(error));
                    }
                    // Bytes that stayed in the stream were passed over.
                    passed += at.saturating_sub(to);
                    // Progress makes a window twice as large up to a bound; an opcode may need one past it.
                    let twice = window.saturating_mul(2);
                    window = match at > to {
                        true => FIRST,
                        false => needs.max(if idle_here { twice } else { twice.min(LARGEST) }),
                    };
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
