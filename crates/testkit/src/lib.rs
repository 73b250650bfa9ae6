//! The conformance suite that every backend passes, and what the tests of hostile and damaged files are made of.
//!
//! The crate is not published: it is a library of test code, which the member `tests` and the program `roundtrip`
//! run. Its functions panic where a backend is wrong.

pub mod alloc;
pub mod archives;
pub mod compare;
pub mod conformance;
pub mod damage;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod faults;
pub mod random;
pub mod readers;
pub mod write;
pub mod zip;

/// Decodes a pickle under the default limits.
///
/// # Errors
/// What the machine says.
pub fn decode(bytes: &[u8]) -> weighbridge_formats::Result<weighbridge_formats::pickle::Decoded> {
    weighbridge_formats::pickle::decode(bytes, &weighbridge_formats::Limits::default())
}
