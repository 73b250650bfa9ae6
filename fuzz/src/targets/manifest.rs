//! Any bytes as a manifest in a folder, below something that it must not reach; its own digest is made to fit, since no
//! fuzzer would find one.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use weighbridge_trust::manifest::{Manifest, Recorded, VerifyOptions, repair, verify};

const SEAL: &str = ",\n  \"digest\": \"";

/// A folder with one file, in a folder with a secret.
fn folders() -> &'static (PathBuf, PathBuf) {
    static FOLDERS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let outer = tempfile::tempdir().expect("a folder").keep();
        for name in ["model", "copy"] {
            std::fs::create_dir(outer.join(name)).expect("a folder");
            std::fs::write(outer.join(name).join("a"), b"x").expect("a file");
        }
        std::fs::write(outer.join("secret"), b"secret").expect("a file");
        (outer.clone(), outer.join("model"))
    })
}

fn names(folder: &Path) -> Vec<String> {
    let mut out: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    out.sort();
    out
}

/// The target.
pub fn run(bytes: &[u8]) {
    let _ = Manifest::from_text(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let body = text.rsplit_once(SEAL).map_or(text, |(body, _)| body);
    let sealed = format!("{body}{SEAL}{}\"\n}}\n", blake3::hash(body.as_bytes()).to_hex());
    let Ok(manifest) = Manifest::from_text(sealed.as_bytes()) else { return };
    // What was read is written, and read again, as the same.
    if let Ok(again) = manifest.to_text() {
        assert_eq!(Manifest::from_text(again.as_bytes()).expect("its own text"), manifest);
    }
    let (outer, model) = folders();
    std::fs::write(model.join("weighbridge.json"), &sealed).expect("a manifest");
    let options = VerifyOptions::default();
    let recorded = Recorded::find(model, None).expect("what was read before");
    if let Ok(found) = verify(&recorded, &options) {
        let _ = repair(&recorded, &found, &outer.join("copy"), &options);
    }
    assert_eq!(names(outer), ["copy", "model", "secret"]);
    assert_eq!(std::fs::read(outer.join("secret")).expect("a file"), b"secret");
}
