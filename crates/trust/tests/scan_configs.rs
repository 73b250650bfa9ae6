//! What the scanner says of files that real tools wrote: HDF5 and Keras, harmless and hostile.
//!
//! Each file of `golden/<name>` has a dump beside it of the verdict, the rules and the kinds that must be found.
#![cfg(feature = "scan")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weighbridge_trust::scan::{FileReport, ScanOptions, Severity, Verdict, scan};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn report(path: &Path) -> FileReport {
    let report = scan(&[path.to_owned()], &ScanOptions::default()).unwrap();
    assert_eq!(report.files.len(), 1, "{}", path.display());
    report.files.into_iter().next().unwrap()
}

fn judge(folder: &str) -> usize {
    let (mut judged, mut faults) = (0, Vec::new());
    let mut paths: Vec<_> = std::fs::read_dir(golden(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let mut dump = path.clone().into_os_string();
        dump.push(".json");
        let Ok(dump) = std::fs::read(&dump) else { continue };
        let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
        let report = report(&path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let verdict = serde_json::to_value(report.verdict).unwrap();
        if verdict != dump["verdict"] {
            faults.push(format!("{name}: {verdict}, not {}: {:#?}", dump["verdict"], report.findings));
        }
        let telling = report.findings.iter().filter(|f| f.verdict != Verdict::Clean);
        let rules: BTreeSet<_> = telling.map(|f| f.rule).collect();
        let wanted: BTreeSet<_> =
            dump["rules"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        if rules != wanted {
            faults.push(format!("{name}: rules {rules:?}, not {wanted:?}: {:#?}", report.findings));
        }
        for kind in dump["kinds"].as_array().unwrap() {
            if !report.kinds.iter().any(|k| k == kind.as_str().unwrap()) {
                faults.push(format!("{name}: kinds {:?}, without {kind}", report.kinds));
            }
        }
        judged += 1;
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    judged
}

#[test]
fn hdf5_files_of_h5py_and_pytables_are_judged_as_their_dumps_say() {
    assert!(judge("hdf5") >= 20);
}

#[test]
fn models_and_graphs_of_keras_and_tensorflow_are_judged_as_their_dumps_say() {
    assert!(judge("keras") >= 10);
}

#[test]
fn nothing_in_a_harmless_file_is_worth_more_than_information() {
    for name in ["old.h5", "new.h5", "user_block.h5"] {
        let report = report(&golden("hdf5").join(name));
        assert!(report.findings.iter().all(|f| f.severity == Severity::Info), "{:#?}", report.findings);
    }
}
