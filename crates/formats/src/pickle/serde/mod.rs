//! Any type with serde's `Serialize` and `Deserialize` as a pickle, through this crate's own encoder and machine.
//!
//! | Rust | Python |
//! |---|---|
//! | bool, integers of any width, floats | `bool`, `int`, `float` |
//! | `String`, `&str`, `char` | `str` |
//! | bytes (`serde_bytes`, `Serializer::serialize_bytes`) | `bytes` |
//! | `None`, `()`, a unit struct | `None` |
//! | `Some(x)`, a newtype struct | as `x` alone |
//! | `Vec`, sets, any sequence | `list`; `tuple` where it is a key of a dict |
//! | tuples, arrays, tuple structs | `tuple` |
//! | maps with keys of any kind | `dict` |
//! | structs | `dict` with the fields' names |
//! | `Enum::Unit` | `'Unit'` |
//! | `Enum::Newtype(x)`, `Enum::Tuple(x, y)`, `Enum::Struct { a }` | `{'Newtype': x}`, `{'Tuple': (x, y)}`, `{'Struct': {'a': a}}` |
//!
//! Read are these, and whatever Python writes of plain values: lists, tuples and sets as sequences, `bytearray` as
//! bytes, `complex` as a pair of floats, `OrderedDict` and `Counter` as maps. `Some(None)` is written as `None`, and is
//! `None` when it is read.
//!
//! # Who should load a pickle
//!
//! **A pickle is a program: who loads one with Python's `pickle.load` runs what its author wrote.** What [`to_vec`]
//! writes names no class and calls nothing, so it is as harmless as JSON; but whoever gets a file cannot tell by looking
//! whether it is still that one. Give a pickle only to those who would run your code, and load with Python only those
//! whose author's code you would run. For everybody else there are JSON and safetensors.
//!
//! [`from_slice`] runs nothing, whatever the bytes say: a name in them is never looked up, and an object of a class is
//! an error that names it.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use weighbridge_formats::pickle;
//!
//! #[derive(Serialize, Deserialize, Debug, PartialEq)]
//! struct Config {
//!     layers: Vec<u32>,
//!     dropout: Option<f32>,
//! }
//!
//! let config = Config { layers: vec![768, 12], dropout: None };
//! let bytes = pickle::to_vec(&config)?;
//! assert_eq!(pickle::from_slice::<Config>(&bytes)?, config);
//!
//! let error = pickle::from_slice::<Config>(&pickle::to_vec(&[("layers", vec!["wide"])].into_iter().collect::<
//!     std::collections::BTreeMap<_, _>,
//! >())?);
//! assert!(error.unwrap_err().message().starts_with("layers[0]: "));
//! # Ok::<(), weighbridge_formats::Error>(())
//! ```

mod failure;
mod read;
#[cfg(test)]
mod tests;
mod write;

use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;

use super::{EncodeOptions, NoTensors, decode, encode};
use crate::{Error, Limits, Result, Values};

/// How deep a value may nest, written or read: a reader of serde's kind needs stack for each level.
pub const MAX_DEPTH: u32 = 128;

/// A value as a pickle of protocol 4, which every Python since 3.4 reads.
///
/// # Errors
/// As [`to_values`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let values = to_values(value)?;
    let root = values.root().ok_or_else(|| Error::invalid_options("there is no value"))?;
    encode(&values, root, &EncodeOptions::default(), &mut NoTensors)
}

/// A value as values, to be encoded by [`encode`](super::encode) or to stand in an archive.
///
/// # Errors
/// `Unsupported`, with the path to the part that is meant, for a map or a float as a key inside of a key, for more
/// than [`MAX_DEPTH`] levels, and for whatever the type's own `Serialize` refuses.
pub fn to_values<T: Serialize + ?Sized>(value: &T) -> Result<Values> {
    let mut values = Values::new();
    let root = write::write(&mut values, value)?;
    values.set_root(root);
    Ok(values)
}

/// A value out of the pickle that `bytes` begin with, within the default [`Limits`]; nothing is run. With other
/// limits, call [`decode`](super::decode) and [`from_values`].
///
/// # Errors
/// As [`decode`](super::decode) and [`from_values`].
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    from_values(&decode(bytes, &Limits::default())?.values)
}

/// A value out of values. Text and bytes may be borrowed from them.
///
/// # Errors
/// `Mismatch`, with the path to the part that is meant, for a value of another type, a missing field, an object that
/// only Python could build; `LimitExceeded` past [`MAX_DEPTH`] levels, or where values that share their parts would
/// make more than 64 times what they take themselves.
pub fn from_values<'de, T: Deserialize<'de>>(values: &'de Values) -> Result<T> {
    read::read(values)
}
