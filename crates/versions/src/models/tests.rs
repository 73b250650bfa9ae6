//! Tests of finding versions, aliases and references.

use std::fs;

use weighbridge_formats::ErrorKind;

use super::*;
use crate::AddOptions;
use crate::testing::bert;

fn quick() -> AddOptions<'static> {
    AddOptions { fsync: false, ..AddOptions::default() }
}

/// A registry with the versions 1.0.0, 1.0.1 and 2.0.0-rc.1 of a model.
fn registry() -> (tempfile::TempDir, VersionedModel) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    bert(&source, 0.0);
    let model = VersionedModel::at(dir.path().join("registry/bert")).unwrap();
    for version in ["1.0.0", "1.0.1", "2.0.0-rc.1"] {
        let version = crate::Choice::Exact(parse_version(version).unwrap());
        model.add(&source, &AddOptions { version, ..quick() }).unwrap();
    }
    (dir, model)
}

#[test]
fn versions_are_found_by_selector_and_alias() {
    let (_dir, model) = registry();
    let versions: Vec<_> = model.versions().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(versions, ["1.0.0", "1.0.1", "2.0.0-rc.1"]);
    let resolve = |text: &str| model.resolve(&Selector::parse(text).unwrap()).map(|v| v.to_string());
    for (text, wanted) in
        [("latest", "1.0.1"), ("1.0", "1.0.1"), ("^1", "1.0.1"), ("2.0.0-rc.1", "2.0.0-rc.1")]
    {
        assert_eq!(resolve(text).unwrap(), wanted);
    }
    let error = resolve("production").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("the versions are 2.0.0-rc.1, 1.0.1, 1.0.0"), "{error}");

    let version = parse_version("1.0.0").unwrap();
    model.set_alias("production", &version).unwrap();
    assert_eq!(resolve("production").unwrap(), "1.0.0");
    assert_eq!(fs::read_to_string(model.folder().join("production")).unwrap(), "1.0.0\n");
    assert_eq!(fs::read_to_string(model.folder().join("latest")).unwrap(), "1.0.1\n");
    assert_eq!(
        model.aliases().unwrap().into_iter().collect::<Vec<_>>(),
        [("production".to_owned(), version)]
    );
    assert!(model.remove_alias("production").unwrap() && !model.remove_alias("production").unwrap());
    assert!(resolve("production").is_err());
    for bad in ["latest", "../x", "V"] {
        assert!(model.set_alias(bad, &Version::new(1, 0, 0)).is_err(), "{bad}");
    }
    assert_eq!(model.set_alias("x", &Version::new(9, 0, 0)).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_others_put_into_the_folder_is_no_version_and_no_alias() {
    let (dir, model) = registry();
    fs::write(model.folder().join("notes"), "not a version").unwrap();
    fs::write(model.folder().join("v7.0.0"), "a file").unwrap();
    fs::create_dir(model.folder().join("v1.0")).unwrap();
    fs::write(model.folder().join("gone"), "5.0.0").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(dir.path().join("source"), model.folder().join("v8.0.0")).unwrap();
        symlink("latest", model.folder().join("linked")).unwrap();
        let linked = Selector::Alias("linked".into());
        assert_eq!(model.resolve(&linked).unwrap_err().kind(), ErrorKind::UnsafeContent);
    }
    assert_eq!(model.versions().unwrap().len(), 3);
    assert_eq!(model.aliases().unwrap().keys().collect::<Vec<_>>(), ["gone"]);
    assert_eq!(model.resolve(&Selector::Alias("gone".into())).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(model.resolve(&Selector::Alias("notes".into())).unwrap_err().kind(), ErrorKind::Malformed);
    fs::File::create(model.folder().join("huge")).unwrap().set_len(1 << 30).unwrap();
    assert_eq!(model.resolve(&Selector::Alias("huge".into())).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let names: Vec<_> =
        VersionedModel::all(&dir.path().join("registry")).unwrap().into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["bert"]);
}

#[test]
fn references_find_versions_and_folders() {
    let (dir, model) = registry();
    let path = |tail: &str| format!("{}/{tail}", dir.path().display());
    let find = |tail: &str| Reference::find(&path(tail)).map(|r| r.to_string());
    for (tail, wanted) in [
        ("registry/bert", "bert@1.0.1"),
        ("registry/bert/", "bert@1.0.1"),
        ("registry/bert@1.0.0", "bert@1.0.0"),
        ("registry/bert@v2.0.0-rc.1", "bert@2.0.0-rc.1"),
        ("registry/bert/v1.0.0", "bert@1.0.0"),
    ] {
        assert_eq!(find(tail).unwrap(), wanted);
    }
    let found = Reference::find(&path("registry/bert@^1")).unwrap();
    assert_eq!(found.folder(), model.folder().join("v1.0.1"));
    let source = Reference::find(&path("source")).unwrap();
    assert_eq!(source, Reference::Folder(dir.path().join("source")));
    for absent in
        ["registry/absent", "registry/bert@3", "registry/absent@1", "registry/bert@", "registry/b\0d@1"]
    {
        assert!(find(absent).is_err(), "{absent}");
    }
    // An `@` in a folder further up is part of its name.
    let odd = dir.path().join("a@b/model");
    bert(&odd, 0.0);
    assert_eq!(Reference::find(odd.to_str().unwrap()).unwrap(), Reference::Folder(odd));
}
