//! Any bytes, opened by what they show and by every reader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weighbridge_formats::Registry;
use weighbridge_fuzz::{exhaust, open};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(archive) = open(None, bytes) {
        exhaust(&*archive);
    }
    for format in Registry::builtin().formats().iter().filter(|f| f.reads()) {
        if let Ok(archive) = open(Some(format.info.id), bytes) {
            exhaust(&*archive);
        }
    }
});
