//! The target `versions` for the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weighbridge_fuzz::targets::versions::run(bytes));
