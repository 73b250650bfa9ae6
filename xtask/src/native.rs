//! The native libraries, laid out from the Python environment by links: libtorch for the feature `tch`, ONNX Runtime for
//! the feature `ort`.
//!
//! The wheel's own `libtorch.so` wants CUDA's libraries, which the tests do without: a stub of that name takes its
//! place, linked to the part for the processor alone. Nothing is downloaded, and nothing is copied.

use crate::Outcome;
use crate::command::{command, run as run_command, target};
use crate::setup::point;
use std::fs;
use std::path::{Path, PathBuf};

/// The release that tch 0.26 is made for; `xtask/requirements.txt` pins the same.
const VERSION: &str = "2.13.0";

/// Which libraries are linked, by their folders in the environment's `site-packages`, and their SHA-256.
const LIBRARIES: &[(&str, &str, &str)] = &[
    ("torch/lib", "libtorch_cpu.so", "096eed6e217377ccda4d50693b680e2771709c01f58fe52717835b017fed9c58"),
    ("torch/lib", "libc10.so", "b83ea50e9171c7e3455c19f9ff2c7d21d457a7b8231e9c4ea1b6e032ae1156d5"),
    ("torch/lib", "libgomp.so.1", "e28fb2896a3d612b46a27d7f8ef840d34c9efbc29b70a044c42095fb94856890"),
    (
        "nvidia/cu13/lib",
        "libcudart.so.13",
        "96c42e418cec19054186b9429c321603cc190bf26a18104e19408117a2a817b0",
    ),
    ("nvidia/cu13/lib", "libcupti.so.13", "e2f9ed861fe27c492b8bb52b5e3220ef5120f3edcda36312e96b7fd8a186be3e"),
];

/// The SHA-256 of ONNX Runtime's library.
const RUNTIME_SHA256: &str = "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3";

/// The hashes are those of the wheels for this Python on Linux and x86-64. Other wheels have other libraries.
const HASHED_FOR: &str = "python3.11";

/// Holds a library against its hash, where the environment is made of the wheels that the hashes are of.
fn verify(library: &Path, sha256: &str) -> Outcome {
    if !HERE || !library.components().any(|c| c.as_os_str() == HASHED_FOR) {
        println!(
            "setup: {} is NOT held against a hash: those are of wheels for {HASHED_FOR}",
            library.display()
        );
        return Ok(());
    }
    let found = crate::setup::sha256(library)?;
    if found == sha256 {
        return Ok(());
    }
    let what = format!("{}: its SHA-256 is {found}, not {sha256} as pinned", library.display());
    Err(format!("{what}\n  delete the environment's folder and run `cargo xtask setup` again").into())
}

/// The release of ONNX Runtime; `xtask/requirements.txt` pins the same.
const RUNTIME: &str = "1.31.1";

/// Whether the feature `tch` can be built here: the layout is that of the wheels for Linux on x86-64.
pub(crate) const HERE: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// The folder of the libraries, for `LD_LIBRARY_PATH`.
pub(crate) fn libraries() -> PathBuf {
    target().join("native/libtorch/lib")
}

/// ONNX Runtime's library, for `ORT_DYLIB_PATH`.
pub(crate) fn runtime() -> PathBuf {
    target().join("native").join(RUNTIME_NAME)
}

/// What the link to it is called, as each system names libraries.
const RUNTIME_NAME: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// Points `target/native/libonnxruntime.so` at the library of the environment's onnxruntime.
pub(crate) fn ensure_runtime(venv: &Path) -> Outcome {
    let folder = packages(venv)?.join("onnxruntime/capi");
    let name = if cfg!(windows) {
        RUNTIME_NAME.to_owned()
    } else if cfg!(target_os = "macos") {
        format!("libonnxruntime.{RUNTIME}.dylib")
    } else {
        format!("libonnxruntime.so.{RUNTIME}")
    };
    let library = folder.join(name);
    if !library.is_file() {
        return Err(format!("{} is missing; the feature ort needs it", library.display()).into());
    }
    fs::create_dir_all(target().join("native"))?;
    if !fs::read_link(runtime()).is_ok_and(|now| now == library) {
        verify(&library, RUNTIME_SHA256)?;
    }
    point(&runtime(), &library)
}

/// Makes the layout of libtorch, unless it is there, and points `target/native/libtorch` at it.
pub(crate) fn ensure(cache: &Path, venv: &Path) -> Outcome {
    if !HERE {
        return Ok(());
    }
    let name = venv
        .file_name()
        .ok_or("the environment's folder has no name")?
        .to_string_lossy()
        .replace("venv", "libtorch");
    let folder = cache.join(name);
    let done = folder.join("build-version");
    if !fs::read_to_string(&done).is_ok_and(|v| v == VERSION) {
        lay_out(&folder, &packages(venv)?)?;
        fs::write(done, VERSION)?;
    }
    fs::create_dir_all(target().join("native"))?;
    point(&target().join("native/libtorch"), &folder)
}

/// The environment's `site-packages`.
fn packages(venv: &Path) -> Outcome<PathBuf> {
    for entry in fs::read_dir(venv.join("lib"))? {
        let folder = entry?.path().join("site-packages");
        if folder.join("torch/lib").is_dir() {
            return Ok(folder);
        }
    }
    Err(format!("{} has no torch in it", venv.display()).into())
}

fn lay_out(folder: &Path, packages: &Path) -> Outcome {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let lib = folder.join("lib");
    fs::create_dir_all(&lib)?;
    point(&folder.join("include"), &packages.join("torch/include"))?;
    for (from, name, sha256) in LIBRARIES {
        let library = packages.join(from).join(name);
        if !library.is_file() {
            return Err(format!("{} is missing; the feature tch needs it", library.display()).into());
        }
        verify(&library, sha256)?;
        point(&lib.join(name), &library)?;
    }
    point(&lib.join("libgomp.so"), &lib.join("libgomp.so.1"))?;
    let at = |path: &Path| path.to_str().map(str::to_owned).ok_or("the cache folder's path is not UTF-8");
    let (stub, search) = (at(&lib.join("libtorch.so"))?, format!("-L{}", at(&lib)?));
    run_command(command(
        "cc",
        &[
            "-shared",
            "-o",
            &stub,
            "-Wl,-soname,libtorch.so",
            "-Wl,--no-as-needed",
            &search,
            "-ltorch_cpu",
            "-Wl,--allow-shlib-undefined",
            "-Wl,-rpath,$ORIGIN",
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn the_releases_are_the_pinned_ones() {
        let list = fs::read_to_string(root().join("xtask/requirements.txt")).unwrap();
        for pin in [format!("torch=={VERSION}"), format!("onnxruntime=={RUNTIME}")] {
            assert!(list.lines().any(|l| l == pin), "{list}");
        }
    }

    #[test]
    fn a_library_with_another_hash_is_refused() {
        if !HERE {
            return;
        }
        let folder = std::env::temp_dir().join(format!("xtask-hash-{}", std::process::id())).join(HASHED_FOR);
        fs::create_dir_all(&folder).unwrap();
        let library = folder.join("libc10.so");
        fs::write(&library, "").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        verify(&library, empty).unwrap();
        fs::write(&library, "x").unwrap();
        assert!(verify(&library, empty).unwrap_err().to_string().contains("as pinned"));
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }

    #[test]
    fn an_environment_without_torch_is_told() {
        let folder = std::env::temp_dir().join(format!("xtask-native-{}", std::process::id()));
        fs::create_dir_all(folder.join("lib/python3/site-packages")).unwrap();
        assert!(packages(&folder).unwrap_err().to_string().contains("no torch"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
