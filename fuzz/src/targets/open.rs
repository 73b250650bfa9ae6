//! Any bytes, opened by what they show and by every reader.

use crate::{exhaust, open};
use weighbridge_formats::Registry;

/// The target.
pub fn run(bytes: &[u8]) {
    if let Ok(archive) = open(None, bytes) {
        exhaust(&*archive);
    }
    for format in Registry::builtin().formats().iter().filter(|f| f.reads()) {
        if let Ok(archive) = open(Some(format.info.id), bytes) {
            exhaust(&*archive);
        }
    }
}
