//! Whole folders: made new, and exchanged for what was there.

use std::path::Path;

use weighbridge_formats::ErrorKind;
use weighbridge_formats::write::{ExecuteOptions, FilePlan, WritePlan, execute_folder, replace_folder};

fn quick() -> ExecuteOptions<'static> {
    let mut options = ExecuteOptions::default();
    options.fsync = false;
    options
}

fn replacing() -> ExecuteOptions<'static> {
    let mut options = quick();
    options.overwrite = true;
    options
}

fn fixed(name: &str, bytes: &[u8]) -> FilePlan<'static> {
    let mut file = FilePlan::new(name);
    file.push_fixed(bytes.to_vec()).unwrap();
    file
}

fn one(file: FilePlan<'_>) -> WritePlan<'_> {
    WritePlan { files: vec![file], notes: Vec::new() }
}

/// The names in a folder, sorted, temporaries included.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_folder_may_have_subfolders() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new");
    let files = vec![fixed("topics.json", b"{}"), fixed("images/0.jpg", b"0"), fixed("images/a/1.jpg", b"1")];
    let plan = || WritePlan { files: vec![fixed("a", b"a")], notes: Vec::new() };
    let written = execute_folder(WritePlan { files, notes: Vec::new() }, &folder, &quick()).unwrap();
    assert_eq!(written.files[1], folder.join("images/0.jpg"));
    assert_eq!(std::fs::read(folder.join("images/a/1.jpg")).unwrap(), b"1");
    for bad in ["../x", "/x", "a/../../x", "images//..", "a\\b"] {
        let mut bad_plan = plan();
        bad_plan.files.push(fixed(bad, b""));
        let error = execute_folder(bad_plan, dir.path().join("other"), &quick()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{bad}");
    }
    assert_eq!(names(dir.path()), ["new"]);
}

#[test]
fn a_folder_is_replaced_in_one_step_and_what_is_to_stay_stays() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for (name, text) in
        [("README.md", "mine"), ("model.bin", "old"), ("config.json", "old"), ("images/0", "i")]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let plan =
        || WritePlan { files: vec![fixed("config.json", b"new"), fixed("sub/x", b"x")], notes: Vec::new() };
    let keep = |name: &str| name != "model.bin";
    let error = replace_folder(plan(), &folder, &keep, &quick()).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidOptions && names(&folder).contains(&"model.bin".to_owned()));

    let options = replacing();
    let open = std::fs::File::open(folder.join("model.bin")).unwrap();
    let written = replace_folder(plan(), &folder, &keep, &options).unwrap();
    assert_eq!(written.files, [folder.join("config.json"), folder.join("sub/x")]);
    assert_eq!(names(&folder), ["README.md", "config.json", "images", "sub"]);
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"new");
    assert_eq!(std::fs::read(folder.join("images/0")).unwrap(), b"i");
    assert_eq!(std::io::read_to_string(open).unwrap(), "old", "who had it open reads on");
    assert_eq!(names(dir.path()), ["model"], "no temporary is left");

    // What cannot be written leaves the folder as it was.
    let mut bad = plan();
    bad.files.push(fixed("CONFIG.json", b""));
    assert!(replace_folder(bad, &folder, &keep, &options).is_err());
    assert_eq!(names(&folder), ["README.md", "config.json", "images", "sub"]);

    // One that is not there is made.
    replace_folder(plan(), dir.path().join("fresh"), &keep, &options).unwrap();
    assert_eq!(names(&dir.path().join("fresh")), ["config.json", "sub"]);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_stays_a_link_when_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("nowhere", real.join("dangling")).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let options = replacing();
    replace_folder(one(fixed("x", b"x")), &link, &|_| true, &options).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(names(&real), ["dangling", "x"]);
}
