//! What files may cost: the limits of every command that reads, raised by `--memory`.

use std::sync::OnceLock;

use weighbridge::{Limits, ReadOptions};

/// What `--memory` gives, in bytes. It is set once, from the command line.
static MEMORY: OnceLock<u64> = OnceLock::new();

/// Sets what files may take.
pub(crate) fn allow(memory: Option<u64>) {
    if let Some(memory) = memory {
        let _ = MEMORY.set(memory);
    }
}

/// The limits for files that are read.
pub(crate) fn limits() -> Limits {
    MEMORY.get().map_or_else(Limits::default, |&memory| Limits::within(memory))
}

/// The choices for opening files.
pub(crate) fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.limits = limits();
    options
}

/// Opens a model.
pub(crate) fn open(path: &std::path::Path) -> weighbridge::Result<Box<dyn weighbridge::Archive>> {
    weighbridge::registry().open_path(path, &read_options())
}
