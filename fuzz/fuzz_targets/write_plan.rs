//! The target `write_plan` for the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weighbridge_fuzz::targets::write_plan::run(bytes));
