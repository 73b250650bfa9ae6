//! One module a subcommand: its arguments, and what it does.

pub(crate) mod card;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod decrypt;
pub(crate) mod diff;
pub(crate) mod encrypt;
pub(crate) mod export;
pub(crate) mod formats;
pub(crate) mod hash;
pub(crate) mod inspect;
mod keys;
pub(crate) mod man;
pub(crate) mod model;
pub(crate) mod run;
pub(crate) mod scan;
mod script;
pub(crate) mod sign;
pub(crate) mod topics;
pub(crate) mod verify;
pub(crate) mod version;
