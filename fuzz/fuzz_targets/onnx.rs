//! The target `onnx` for the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weighbridge_fuzz::targets::onnx::run(bytes));
