//! Tensors out of dangerous and broken files: what `tests/corpus/rescue.py` builds with torch, NumPy and joblib, and breaks,
//! comes out as it went in, and what does not is said.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use weighbridge::trust::scan::{RescueOptions, Rescued, rescue};
use weighbridge::{ReadOptions, Registry};
use weighbridge_tests::{python, workspace};

#[derive(Deserialize)]
struct Case {
    name: String,
    /// A word of what is reported as lost; nothing is where there is none.
    lost: Option<String>,
    /// The same for what is rescued with a doubt.
    doubt: Option<String>,
}

/// Each tensor by its name: dtype, shape and bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let archive = Registry::builtin().open_path(path, &ReadOptions::default()).expect("safetensors");
    let all = archive.tensors().iter().enumerate().map(|(index, info)| {
        let bytes = archive.data(index).and_then(|d| d.read_all()).expect("a tensor");
        (info.name().to_owned(), (format!("{} {:?}", info.dtype(), info.shape()), bytes))
    });
    all.collect()
}

/// What is wrong with what came out of a file.
fn faults(case: &Case, rescued: &Rescued, out: &Path, expected: &Path) -> Vec<String> {
    let (found, wanted) = (tensors(out), tensors(expected));
    let mut faults = Vec::new();
    for (name, tensor) in &wanted {
        match found.get(name) {
            None => faults.push(format!("{name} is missing")),
            Some(other) if other != tensor => faults.push(format!("{name} differs")),
            Some(_) => {}
        }
    }
    faults.extend(found.keys().filter(|n| !wanted.contains_key(*n)).map(|n| format!("{n} is too much")));
    for (what, word, said) in
        [("lost", &case.lost, &rescued.lost), ("doubtful", &case.doubt, &rescued.doubts)]
    {
        let fits = match word {
            Some(word) => said.iter().any(|(name, why)| name.contains(word) || why.contains(word)),
            None => said.is_empty(),
        };
        if !fits {
            faults.push(format!("{what} should say {word:?}: {said:?}"));
        }
    }
    faults
}

#[test]
fn tensors_come_out_of_dangerous_and_broken_files_as_they_went_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(python())
        .arg(workspace().join("tests/corpus/rescue.py"))
        .arg(folder.path())
        .output()
        .expect("python starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let list = std::fs::read(folder.path().join("cases.json")).expect("a list");
    let cases: Vec<Case> = serde_json::from_slice(&list).expect("cases");
    assert!(cases.len() > 70, "{} cases", cases.len());
    let mut all = Vec::new();
    for case in &cases {
        let out = folder.path().join("out.safetensors");
        let mut options = RescueOptions::default();
        options.overwrite = true;
        match rescue(&folder.path().join(&case.name), &out, &options) {
            Ok(rescued) => {
                let expected = folder.path().join(format!("{}.expected.safetensors", case.name));
                all.extend(
                    faults(case, &rescued, &out, &expected).iter().map(|f| format!("{}: {f}", case.name)),
                );
            }
            Err(error) => all.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
}
