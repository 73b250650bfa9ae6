//! Any bytes as the index of a sharded set, beside one shard and below something that it must not reach.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{exhaust, options};
use weighbridge_formats::Registry;

/// A shard of one tensor `a` of two bytes.
pub(crate) const SHARD: &[u8] =
    b"\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}  \x01\x02";

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let outer = tempfile::tempdir().expect("a folder").keep();
        let inner = outer.join("model");
        std::fs::create_dir(&inner).expect("a folder");
        std::fs::write(inner.join("s"), SHARD).expect("a shard");
        std::fs::write(outer.join("s"), SHARD).expect("something outside");
        inner
    })
}

/// The target.
pub fn run(bytes: &[u8]) {
    let inner = folder();
    let path = inner.join("model.safetensors.index.json");
    std::fs::write(&path, bytes).expect("an index");
    if let Ok(archive) = Registry::builtin().open_path(&path, &options()) {
        exhaust(&*archive);
        let outside =
            archive.files().into_iter().find(|f| f.canonicalize().is_ok_and(|f| !f.starts_with(inner)));
        assert_eq!(outside, None);
    }
}
