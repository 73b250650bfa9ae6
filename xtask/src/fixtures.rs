//! `cargo xtask fixtures`: makes the golden files anew with the real tools and holds them against the committed ones.
//!
//! A folder `tests/golden/<format>` holds a script `make.py`, the files that it wrote, and beside each file a dump
//! `<file>.json` of what must be read from it. The tools put serialization ids and addresses into their files, so what
//! is compared are the dumps and the set of files; bytes only where a dump is empty.

use crate::Outcome;
use crate::command::{command, done, files_below, root, run as run_command, take_flag, target};
use crate::setup;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of golden files, by the format's id; an error if there is none.
pub(crate) fn folders() -> Outcome<Vec<PathBuf>> {
    let golden = root().join("tests/golden");
    let mut folders = Vec::new();
    for entry in fs::read_dir(&golden).map_err(|error| format!("{}: {error}", golden.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "__pycache__") {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.is_empty() { Err(format!("{} holds no folder", golden.display()).into()) } else { Ok(folders) }
}

/// The files of a folder that have a dump beside them, sorted.
pub(crate) fn dumped(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let files = files_below(folder)?;
    let set: BTreeSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    Ok(files.iter().filter(|path| set.contains(dump_of(path).as_path())).cloned().collect())
}

/// Where the dump of a file stands.
pub(crate) fn dump_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

fn read_dump(path: &Path) -> Outcome<Map<String, Value>> {
    let dump = dump_of(path);
    let text = fs::read_to_string(&dump).map_err(|error| format!("{}: {error}", dump.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", dump.display()).into())
}

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let write = take_flag(&mut arguments, "--write");
    done(&arguments)?;
    let python = setup::ensure()?.python;
    let mut faults = Vec::new();
    for folder in folders()? {
        let format = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let script = folder.join("make.py");
        if !script.exists() {
            return Err(format!("{} has no make.py", folder.display()).into());
        }
        let fresh = target().join("golden").join(&format);
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        fs::create_dir_all(&fresh)?;
        println!("fixtures: {format}");
        let mut make = command(&python, &[]);
        make.arg("-B").arg(&script).arg(&fresh);
        run_command(make)?;
        let found = compare(&folder, &fresh)?;
        println!("fixtures: {format}: {} files made, {} differ", dumped(&fresh)?.len(), found.len());
        if write && !found.is_empty() {
            replace(&folder, &fresh)?;
        } else {
            faults.extend(found);
        }
    }
    if faults.is_empty() {
        println!("fixtures: the committed files describe the same tensors");
        return Ok(());
    }
    Err(format!("{}\n(`cargo xtask fixtures --write` replaces the committed files)", faults.join("\n"))
        .into())
}

/// What differs between the committed files of a folder and those made anew.
fn compare(committed: &Path, fresh: &Path) -> Outcome<Vec<String>> {
    let relative = |folder: &Path| -> Outcome<BTreeSet<PathBuf>> {
        let below = |path: PathBuf| path.strip_prefix(folder).map(Path::to_path_buf);
        Ok(dumped(folder)?.into_iter().map(below).collect::<Result<_, _>>()?)
    };
    let (old, new) = (relative(committed)?, relative(fresh)?);
    let mut faults = Vec::new();
    if new.is_empty() {
        faults.push(format!("{}: make.py wrote no file", committed.display()));
    }
    for path in old.difference(&new) {
        faults.push(format!("{}: make.py does not write it", committed.join(path).display()));
    }
    for path in new.difference(&old) {
        faults.push(format!("{}: not committed", committed.join(path).display()));
    }
    for path in old.intersection(&new) {
        let (was, is) = (read_dump(&committed.join(path))?, read_dump(&fresh.join(path))?);
        // Without tensors there is nothing but the bytes to compare; such files hold no ids and addresses.
        if was.is_empty() && is.is_empty() && fs::read(committed.join(path))? != fs::read(fresh.join(path))? {
            faults.push(format!("{}: its bytes differ", committed.join(path).display()));
        }
        let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for name in names {
            if was.get(name) != is.get(name) {
                faults.push(format!("{}: tensor {name} differs", committed.join(path).display()));
            }
        }
    }
    Ok(faults)
}

/// Replaces the committed files by those made anew; the scripts stay.
fn replace(committed: &Path, fresh: &Path) -> Outcome {
    for path in files_below(committed)? {
        if path.extension().is_none_or(|extension| extension != "py") {
            fs::remove_file(path)?;
        }
    }
    for path in files_below(fresh)? {
        let to = committed.join(path.strip_prefix(fresh)?);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(path, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-fixtures-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_committed_files_are_found() {
        let folders = folders().unwrap();
        for format in ["safetensors", "torch"] {
            let folder = folders.iter().find(|f| f.ends_with(format)).unwrap();
            let files = dumped(folder).unwrap();
            assert!(files.len() >= 10, "{format}: {}", files.len());
            assert!(files.iter().any(|path| read_dump(path).unwrap().len() > 10), "{format}");
        }
    }

    #[test]
    fn a_change_of_a_tensor_or_of_the_set_of_files_is_told() {
        let dump = r#"{"a": {"dtype": "F32", "shape": [1], "sha256": "00"}}"#;
        let old = folder(
            "old",
            &[
                ("x.pt", ""),
                ("x.pt.json", dump),
                ("d/gone.pt", ""),
                ("d/gone.pt.json", "{}"),
                ("z.pkl", "1"),
                ("z.pkl.json", "{}"),
            ],
        );
        let changed = dump.replace("00", "01");
        let new = folder(
            "new",
            &[
                ("x.pt", "other bytes"),
                ("x.pt.json", &changed),
                ("y.pt", ""),
                ("y.pt.json", "{}"),
                ("z.pkl", "2"),
                ("z.pkl.json", "{}"),
            ],
        );
        let faults = compare(&old, &new).unwrap().join("\n");
        for part in
            ["gone.pt: make.py does not", "y.pt: not committed", "x.pt: tensor a differs", "z.pkl: its bytes"]
        {
            assert!(faults.contains(part), "{faults}");
        }
        assert_eq!(compare(&old, &old).unwrap(), Vec::<String>::new());
        fs::remove_dir_all(old).unwrap();
        fs::remove_dir_all(new).unwrap();
    }

    #[test]
    fn a_script_that_writes_nothing_is_a_fault() {
        let empty = folder("empty", &[("make.py", "")]);
        assert!(compare(&empty, &empty).unwrap()[0].contains("wrote no file"));
        fs::remove_dir_all(empty).unwrap();
    }
}
