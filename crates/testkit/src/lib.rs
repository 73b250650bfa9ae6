//! The conformance suite that every backend passes, and what the tests of hostile and damaged files are made of.
//!
//! The crate is not published: it is a library of test code, which the member `tests` and the program `roundtrip`
//! run. Its functions panic where a backend is wrong.

pub mod alloc;
pub mod archives;
pub mod compare;
pub mod conformance;
pub mod damage;
pub mod random;
pub mod readers;
pub mod write;
pub mod zip;
