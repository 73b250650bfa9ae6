//! Names that a file gives to other files: which of them may be followed.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The longest name of a file or folder, in bytes: what the usual file systems allow.
const COMPONENT: usize = 255;
/// The longest name with its folders.
const WHOLE: usize = 4096;
/// Names that Windows gives to devices, with any extension.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Whether a name that came out of a file stays below the folder it is resolved in, on every system, by its spelling
/// alone. It has `/` between its parts, and is no absolute path; no part is empty, `.` or `..`, has a drive, a
/// backslash (a separator elsewhere) or a control character, ends with a dot or space (which Windows takes off), is a
/// device there, or is longer than 255 bytes.
pub fn is_plain_relative(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.len() <= COMPONENT && !part.ends_with(['.', ' ']) && !is_device(part)
    };
    name.len() <= WHOLE
        && !name.contains(|c: char| matches!(c, '\\' | ':') || c.is_control())
        && name.split('/').all(plain)
}

/// Whether Windows takes a file of this name for a device.
pub fn is_device(name: &str) -> bool {
    let lower = name.to_lowercase();
    let stem = lower.split('.').next().unwrap_or_default().trim_end();
    let numbered = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
    DEVICES.contains(&stem)
        || numbered.is_some_and(|n| {
            matches!(n, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "\u{b9}" | "\u{b2}" | "\u{b3}")
        })
}

/// A name in the form in which two that some system takes for one are equal: where case does not count they would be
/// one file.
pub fn fold(name: &str) -> String {
    // Through upper case, since some letters have two forms in lower case (ς and σ) and one above them.
    name.to_uppercase().to_lowercase()
}

/// The path of `name` beside the file `index`, if that is inside the model's folder.
///
/// A link may lead elsewhere: caches keep a model as a folder of links into a folder of blobs. So the target
/// must lie in the folder itself, or, where the index is such a link, in the folder that the index's target
/// lies in.
pub(super) fn resolve_sibling(index: &Path, name: &str) -> Result<PathBuf> {
    let escape = |why: &str| {
        Error::unsafe_content(format!("{name:?} {why}"))
            .with_path(index)
            .with_hint("a model's parts must lie in its own folder; do not trust this file")
    };
    if !is_plain_relative(name) {
        return Err(escape("is no plain relative name"));
    }
    let folder = match index.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let path = folder.join(name);
    let real =
        |p: &Path| std::fs::canonicalize(p).map_err(|e| Error::io("resolving the path", e).with_path(p));
    let (target, home) = (real(&path)?, real(folder)?);
    let blobs = real(index)?.parent().map(Path::to_owned);
    if target.starts_with(&home) || blobs.is_some_and(|b| target.parent() == Some(&*b)) {
        Ok(path)
    } else {
        Err(escape("is a link that leads out of the model's folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_not_plain() {
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../b",
            "a\0b",
            "..\\x",
            "C:x",
            "./../x",
            ".",
            "..",
            "a/.",
            "a//b",
            "a/",
            "//server/share",
            "a\nb",
            "\u{9b}2J",
            "con",
            "NUL.txt",
            "Com1.safetensors",
            "sub/aux",
            "name.",
            "name ",
            &*"x".repeat(256),
            &*"x/".repeat(3000),
        ] {
            assert!(!is_plain_relative(bad), "{bad:?}");
        }
        for good in
            ["model-00001-of-00002.safetensors", "sub/part.bin", "ü.bin", "..x", "console", "com0", ".hidden"]
        {
            assert!(is_plain_relative(good), "{good:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_may_not_leave_the_folder_unless_the_index_is_one_too() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (model, blobs) = (dir.path().join("model"), dir.path().join("blobs"));
        std::fs::create_dir(&model).unwrap();
        std::fs::create_dir(&blobs).unwrap();
        for blob in ["aa", "bb"] {
            std::fs::write(blobs.join(blob), blob).unwrap();
        }
        symlink(blobs.join("bb"), model.join("shard")).unwrap();
        let index = model.join("index.json");
        std::fs::write(&index, "{}").unwrap();
        let refused = resolve_sibling(&index, "shard").unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::UnsafeContent);
        std::fs::remove_file(&index).unwrap();
        symlink(blobs.join("aa"), &index).unwrap();
        assert_eq!(resolve_sibling(&index, "shard").unwrap(), model.join("shard"));
    }
}
