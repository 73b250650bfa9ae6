//! Indices of sharded sets that name what lies elsewhere, and models that are no regular files.

use std::path::Path;

use weighbridge::{Archive, ErrorKind, ReadOptions, Registry, WriteOptions};
use weighbridge_testkit::archives::named;
use weighbridge_testkit::write::{options, quick, save};

fn open(path: &Path) -> weighbridge::Result<Box<dyn Archive>> {
    Registry::builtin().open_path(path, &ReadOptions::default())
}

/// A folder `model` with a shard `good.safetensors` of the tensor `a`, and a whole model beside it, outside.
fn folders() -> tempfile::TempDir {
    let outer = tempfile::tempdir().unwrap();
    let model = outer.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let registry = Registry::builtin();
    for (folder, stem) in [(&model, "good"), (&outer.path().to_owned(), "outside")] {
        save(&registry, "safetensors", &named(&["a".into()]), folder, stem).unwrap();
    }
    outer
}

fn index(folder: &Path, file: &str) -> std::path::PathBuf {
    let path = folder.join("model/model.safetensors.index.json");
    let text = serde_json::json!({"metadata": {}, "weight_map": {"a": file}});
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

#[test]
fn the_honest_index_is_read() {
    let outer = folders();
    assert_eq!(open(&index(outer.path(), "good.safetensors")).unwrap().tensors().len(), 1);
}

#[test]
fn names_that_leave_the_folder_are_refused_though_the_file_is_there() {
    let outer = folders();
    let absolute = outer.path().join("outside.safetensors").display().to_string();
    for name in [
        "../outside.safetensors",
        "x/../../outside.safetensors",
        "./../outside.safetensors",
        absolute.as_str(),
        "..\\outside.safetensors",
        "C:outside.safetensors",
        "good.safetensors\0",
        "",
        "/dev/zero",
        "//server/share/x",
    ] {
        let error = open(&index(outer.path(), name)).err().unwrap_or_else(|| panic!("{name:?} was opened"));
        assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{name:?}: {error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
}

#[test]
fn shards_that_are_missing_are_named_and_folders_are_refused() {
    let outer = folders();
    let error = open(&index(outer.path(), "absent.safetensors")).err().unwrap();
    assert!(error.kind() == ErrorKind::NotFound && format!("{error}").contains("absent.safetensors"));
    std::fs::create_dir(outer.path().join("model/dir")).unwrap();
    assert!(open(&index(outer.path(), "dir")).is_err());
    // An index that names itself does not go round in circles.
    assert!(open(&index(outer.path(), "model.safetensors.index.json")).is_err());
}

#[cfg(unix)]
#[test]
fn a_symlink_out_of_the_folder_is_refused() {
    use std::os::unix::fs::symlink;
    let outer = folders();
    let model = outer.path().join("model");
    symlink("../outside.safetensors", model.join("link.safetensors")).unwrap();
    symlink("..", model.join("up")).unwrap();
    for name in ["link.safetensors", "up/outside.safetensors"] {
        let error = open(&index(outer.path(), name)).err().unwrap_or_else(|| panic!("{name} was followed"));
        assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{error:?}");
    }
    // Within the folder a link is as good as its target; one that leads nowhere is missing.
    symlink("good.safetensors", model.join("inside.safetensors")).unwrap();
    assert!(open(&index(outer.path(), "inside.safetensors")).is_ok());
    symlink("gone.safetensors", model.join("broken.safetensors")).unwrap();
    assert_eq!(open(&index(outer.path(), "broken.safetensors")).err().unwrap().kind(), ErrorKind::NotFound);
    symlink("loop.safetensors", model.join("loop.safetensors")).unwrap();
    assert!(open(&index(outer.path(), "loop.safetensors")).is_err());
}

/// A hard link is a name of the file itself: no system says which of a file's names came first, so one to a file
/// outside cannot be told and is read. Whoever could make it could have read the file.
#[cfg(unix)]
#[test]
fn a_hard_link_is_the_file_itself() {
    let outer = folders();
    std::fs::hard_link(outer.path().join("outside.safetensors"), outer.path().join("model/hard.safetensors"))
        .unwrap();
    assert_eq!(open(&index(outer.path(), "hard.safetensors")).unwrap().tensors().len(), 1);
}

#[cfg(unix)]
#[test]
fn devices_pipes_and_sockets_are_refused_without_waiting() {
    let outer = folders();
    let model = outer.path().join("model");
    let pipe = model.join("pipe.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(model.join("socket.safetensors")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", model.join("zero.safetensors")).unwrap();
    let (sender, answers) = std::sync::mpsc::channel();
    let paths = vec![
        pipe,
        model.join("socket.safetensors"),
        model.join("zero.safetensors"),
        "/dev/zero".into(),
        "/dev/null".into(),
        index(outer.path(), "pipe.safetensors"),
    ];
    let wanted = paths.len();
    std::thread::spawn(move || {
        for path in paths {
            let kind = open(&path).err().map(|e| e.kind());
            let _ = sender.send((path, kind));
        }
    });
    for _ in 0..wanted {
        let (path, kind) = answers
            .recv_timeout(std::time::Duration::from_secs(20))
            .expect("opening waits for somebody to write into the pipe");
        assert_eq!(kind, Some(ErrorKind::UnsafeContent), "{}", path.display());
    }
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_device_or_outside_a_folder() {
    let outer = folders();
    let registry = Registry::builtin();
    let archive = named(&["a".into()]);
    let writer = registry.serializer("safetensors").unwrap();
    for name in ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "a\0b.safetensors", ""] {
        let mut choices = WriteOptions::default();
        choices.file_name = name.into();
        let written = writer
            .plan(&archive, &choices)
            .and_then(|plan| weighbridge::write::execute(plan, outer.path().join("model"), &quick()));
        assert!(written.is_err(), "{name:?} was written");
    }
    let pipe = outer.path().join("model/pipe.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let plan = writer.plan(&archive, &options(writer.info(), "pipe")).unwrap();
    let error = weighbridge::write::execute(plan, outer.path().join("model"), &quick()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{error:?}");
    let mut left: Vec<String> = std::fs::read_dir(outer.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["model", "outside.safetensors"]);
}
