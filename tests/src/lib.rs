//! Helpers of the tests: where things are, and the real tools that judge what Weighbridge writes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python with torch and safetensors in it.
///
/// # Panics
/// If there is none: a test that needs it must not pass without it.
pub fn python() -> PathBuf {
    let path = match std::env::var_os("WEIGHBRIDGE_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("target/venv/bin/python"),
    };
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The tool age, which judges encrypted files.
///
/// # Panics
/// If there is none: a test that needs it must not pass without it.
pub fn age() -> PathBuf {
    let path = match std::env::var_os("WEIGHBRIDGE_AGE") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("target/native/age/age"),
    };
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The Python with model-signing in it, in an environment of its own.
///
/// # Panics
/// If there is none.
pub fn signing_python() -> PathBuf {
    let path = match std::env::var_os("WEIGHBRIDGE_SIGNING_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("target/venv-signing/bin/python"),
    };
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// The golden files of a format, each with its dump.
///
/// # Panics
/// If there is none.
pub fn golden(format: &str) -> Vec<(PathBuf, PathBuf)> {
    let folder = workspace().join("tests/golden").join(format);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> = files
        .map(|e| e.expect("a readable folder").path())
        .filter_map(|path| {
            let dump = PathBuf::from(format!("{}.json", path.display()));
            dump.is_file().then_some((path, dump))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{} has no golden file", folder.display());
    found
}

/// Has the real tools read files and compare them, by `tests/interop/check.py`: a task is an object as that
/// script's documentation has it. Returns its lines.
///
/// # Panics
/// If the script cannot be run.
pub fn judge(tasks: &[Value]) -> Vec<Value> {
    lines_of("check.py", "batch", tasks)
}

/// Has a script of `tests/interop` answer each task, a line of JSON, by a line of JSON.
///
/// # Panics
/// If the script cannot be run, or answers otherwise.
pub fn lines_of(script: &str, mode: &str, tasks: &[Value]) -> Vec<Value> {
    lines_by(&python(), script, mode, tasks)
}

/// The same by another Python.
///
/// # Panics
/// As [`lines_of`].
pub fn lines_by(python: &Path, script: &str, mode: &str, tasks: &[Value]) -> Vec<Value> {
    let mut child = Command::new(python)
        .arg(workspace().join("tests/interop").join(script))
        .arg(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let text: String = tasks.iter().map(|t| format!("{t}\n")).collect();
    // Beside the reading of its answers: where both pipes are full, each side would wait for the other.
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output().expect("python ends");
    writer.join().expect("a thread").expect("python reads");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect()
}

/// The lines of [`judge`] that tell of a fault.
pub fn faults(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .filter(|l| l["faults"].as_array().is_none_or(|f| !f.is_empty()))
        .map(ToString::to_string)
        .collect()
}
