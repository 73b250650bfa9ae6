//! Names that a file gives to other files: which of them may be followed.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Whether a name that came out of a file stays below the folder it is resolved in, by its spelling alone: no
/// absolute path, no `..`, no drive, no NUL, no backslash (a separator elsewhere), nothing empty.
pub fn is_plain_relative(name: &str) -> bool {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    !name.is_empty() && !name.contains(['\0', '\\', ':']) && Path::new(name).components().all(plain)
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
        for bad in ["", "/etc/passwd", "../x", "a/../../b", "a\0b", "..\\x", "C:x", "./../x"] {
            assert!(!is_plain_relative(bad), "{bad:?}");
        }
        for good in ["model-00001-of-00002.safetensors", "sub/part.bin", "ü.bin", "..x"] {
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
