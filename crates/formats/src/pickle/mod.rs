//! Python's pickle as data: a machine that describes what a pickle would build, and an encoder.
//!
//! [`decode`] runs every opcode of the protocols 0 to 5 on an arena of [`Values`] and nothing else: no name is
//! looked up, nothing is called. What honest pickles write for plain values (`OrderedDict`, `set`, bytes of
//! protocol 2, …) becomes that plain value; every other call stays an inert [`Object`](crate::value::Object).
//!
//! There is no knowledge of tensors here: the torch and NumPy backends explain the objects and the persistent
//! ids that they know.
//!
//! Source of the facts: the documentation of Python's `pickletools` and the behaviour of its `pickle` module.

mod build;
mod encode;
mod encoder;
mod keys;
mod machine;
mod opcodes;
mod pieces;
#[cfg(feature = "pickle-serde")]
pub mod serde;
#[cfg(test)]
mod tests;
mod text;

#[cfg(feature = "pickle-serde")]
pub use self::serde::{from_slice, from_values, to_values, to_vec};
pub use encode::{EncodeOptions, NoTensors, TensorEncoder, encode, encode_with_payloads, is_harmless};
pub use encoder::{Encoded, Encoder, Payload};
#[cfg(feature = "joblib")]
pub(crate) use pieces::decode_stream_leniently;
pub(crate) use pieces::{Behind, Stream, decode_stream};

use std::collections::HashMap;
use std::ops::Range;

use crate::value::Global;
use crate::{Limits, Result, ValueId, Values};

/// What one pickle describes.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The values; the root is what Python's `load` would return.
    pub values: Values,
    /// How many bytes the pickle takes, its STOP included. Legacy torch files hold several in a row.
    pub consumed: u64,
    /// The protocol that the pickle declares; 0 where it declares none, as the protocols 0 and 1 do.
    pub protocol: u8,
}

/// Decodes the pickle that `bytes` begin with. What stands behind it is not looked at.
///
/// Time is linear in the bytes taken, memory bounded by [`Limits::memory`]; nesting costs no stack.
/// At most [`Limits::header_bytes`] are taken.
///
/// - A Python 2 `str` becomes [`Value::Str`](crate::Value::Str) if it is UTF-8, else bytes.
/// - A key that a mapping is given twice stands once, at its first place with its last value. Keys are compared
///   as Python does where they are None, numbers, strings, bytes or tuples of these; any other by identity.
/// - A second BUILD of one object, which no honest pickle has, makes its state a list of both states.
/// - An extension code's object has `None` as its class and the code as its arguments.
///
/// # Errors
/// `Malformed` where Python's machine would stop too (truncation, an empty stack, a missing memo entry, …) and
/// where an opcode is used on what it is not for (SETITEM on a list); `Unsupported` for protocols past 5 and
/// out-of-band buffers; `LimitExceeded`. Each names the opcode and its offset in `bytes`.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded> {
    machine::Machine::new(bytes, limits, usize::MAX).run()
}

/// The name of an opcode as Python's `pickletools` has it, where the byte is one of the protocols 0 to 5.
pub fn opcode_name(byte: u8) -> Option<&'static str> {
    opcodes::name(byte)
}

/// Where in a stream the bytes objects lie that stayed there.
pub(crate) type Spans = HashMap<ValueId, Range<u64>>;

/// As [`decode`], but bytes objects of at least `least` bytes stay where they are, and where the pickle cannot be
/// followed to its end what it had built until then, with the error. Frames are passed over. `None` if the pickle
/// builds an object of a class that `stop_at` knows, for then it is no plain pickle.
pub(crate) fn decode_leniently(
    bytes: &[u8],
    limits: &Limits,
    least: usize,
    stop_at: Option<fn(&Global) -> bool>,
) -> Result<Option<(machine::Done, Option<crate::Error>)>> {
    let mut machine = machine::Machine::new(bytes, limits, least).without_frames();
    if let Some(stop_at) = stop_at {
        machine = machine.stopping_at(stop_at);
    }
    let fault = match machine.proceed() {
        Ok(machine::Stop::End) => None,
        Ok(machine::Stop::Built(_)) => return Ok(None),
        Err(error) => Some(error),
    };
    let mut read = machine::part_of(bytes);
    let done = match fault {
        None => machine.stop(&mut read)?,
        Some(_) => machine.rest(&mut read)?,
    };
    Ok(Some((done, fault)))
}
