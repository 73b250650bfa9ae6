//! Plans of any files, names and segments: executed, they are exactly what was planned, below the folder and nowhere else.

use std::collections::BTreeMap;
use std::path::Path;

use weighbridge_formats::write::{
    ExecuteOptions, FilePlan, WritePlan, execute, execute_folder, replace_folder,
};
use weighbridge_formats::{Data, Result};

use crate::bytes::Bytes;
use crate::is_refusal;

/// The input chooses everything.
pub fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("folder");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(outer.path().join("beside"), "beside").expect("a file");
    std::fs::write(folder.join("there"), "old").expect("a file");
    let mut how = ExecuteOptions::default();
    (how.fsync, how.threads, how.overwrite) = (false, Some(1 + input.below(2)), input.below(2) == 1);
    how.chunk_bytes = 1 + input.below(5000);
    let way = input.below(3);
    let mut expected = BTreeMap::new();
    let Ok(plan) = plan(&mut input, &mut expected) else { return };
    let done = match way {
        0 => execute(plan, &folder, &how),
        1 => execute_folder(plan, outer.path().join("new"), &how),
        _ => replace_folder(plan, &folder, &|name| name == "there", &how),
    };
    let at = if way == 1 { outer.path().join("new") } else { folder };
    let mut found = BTreeMap::new();
    list(outer.path(), outer.path(), &mut found);
    assert_eq!(found.remove("beside").as_deref(), Some(&b"beside"[..]));
    let old = found.remove("folder/there");
    match done {
        Ok(written) => {
            assert_eq!(written.bytes, expected.values().map(|f: &Vec<u8>| f.len() as u64).sum::<u64>());
            let there = if way == 1 { None } else { expected.remove("there") };
            assert_eq!(old, Some(there.unwrap_or_else(|| b"old".to_vec())));
            let prefix = at.strip_prefix(outer.path()).expect("a part").display().to_string();
            let expected: BTreeMap<String, Vec<u8>> =
                expected.into_iter().map(|(name, content)| (format!("{prefix}/{name}"), content)).collect();
            assert_eq!(found, expected);
        }
        Err(e) => {
            assert!(is_refusal(e.kind()) || e.kind() == weighbridge_formats::ErrorKind::Io, "{e:?}");
            assert_eq!(old.as_deref(), Some(&b"old"[..]), "{e:?}");
            assert!(found.is_empty(), "{e:?} left {:?}", found.keys());
        }
    }
}

fn list(root: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(at).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            list(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("a part").display().to_string();
            found.insert(name, std::fs::read(&path).expect("a file"));
        }
    }
}

fn plan(input: &mut Bytes<'_>, expected: &mut BTreeMap<String, Vec<u8>>) -> Result<WritePlan<'static>> {
    const NAMES: [&str; 8] = ["a", "there", "b/c", "../x", "/x", "", "A", "model.safetensors"];
    let mut plan = WritePlan::default();
    for _ in 0..1 + input.below(4) {
        let name = match input.below(10) {
            n @ 0..8 => NAMES[n].to_owned(),
            _ => input.text(8),
        };
        let mut file = FilePlan::new(name.clone());
        let mut content = Vec::new();
        for _ in 0..input.below(6) {
            let part = input.long();
            content.extend(&part);
            match input.below(3) {
                0 => drop(file.push_fixed(part)?),
                1 => drop(file.push_data(Data::Owned(part.into()), "t", input.below(2) == 1)?),
                _ => {
                    let len = part.len() as u64;
                    // Now and then it is not as long as was planned.
                    let wrong = u64::from(input.below(8) == 7);
                    file.push_late(len + wrong, Box::new(move |_| Ok(part)))?;
                }
            }
        }
        expected.insert(name, content);
        plan.files.push(file);
    }
    Ok(plan)
}
