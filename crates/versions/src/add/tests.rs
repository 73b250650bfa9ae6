//! Tests of adding: what becomes of a change, a kill, a second process, and a hostile folder.

use std::fs;

use weighbridge_formats::ErrorKind;

use super::*;
use crate::testing::{bert, contents, safetensors};
use crate::version::parse_version;

struct Bench {
    dir: tempfile::TempDir,
    model: VersionedModel,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = VersionedModel::at(dir.path().join("registry/bert")).unwrap();
        bert(&dir.path().join("source"), 0.0);
        Self { dir, model }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.source().join(name), bytes).unwrap();
    }

    fn add(&self) -> Result<Added> {
        self.add_with(|_| {})
    }

    fn add_with(&self, choose: impl FnOnce(&mut AddOptions<'_>)) -> Result<Added> {
        let mut options = AddOptions { fsync: false, ..AddOptions::default() };
        choose(&mut options);
        self.model.add(&self.source(), &options)
    }

    fn changelog(&self) -> String {
        fs::read_to_string(self.model.folder.join("CHANGELOG.md")).unwrap()
    }

    /// What is in the model's folder, by name.
    fn names(&self) -> Vec<String> {
        entries(&self.model.folder).unwrap().into_iter().map(|(name, _)| name).collect()
    }
}

/// The files of a version are those of the source, and its record.
fn assert_whole(version: &Path, source: &[(String, Vec<u8>)]) {
    let mut found = contents(version);
    found.retain(|(name, _)| name != crate::RECORD && name != "README.md");
    assert_eq!(found, source, "{}", version.display());
    assert!(VersionRecord::read(version).unwrap().is_some());
}

#[test]
fn versions_follow_what_changed() {
    let bench = Bench::new();
    let first = bench.add().unwrap();
    assert_eq!((first.version.to_string(), first.previous.is_none()), ("1.0.0".into(), true));
    assert_whole(&first.folder, &contents(&bench.source()));
    assert_eq!(first.record.parameters, Some(8));
    assert!(first.entry.contains("8 parameters in 2 tensors"), "{}", first.entry);

    let same = bench.add().unwrap_err();
    assert!(
        same.kind() == ErrorKind::InvalidOptions
            && same.message().contains("nothing changed since version 1.0.0")
    );

    bert(&bench.source(), 0.5);
    let minor = bench.add().unwrap();
    assert_eq!(minor.version.to_string(), "1.1.0");
    assert!(minor.entry.contains("1 of 2 tensors changed"), "{}", minor.entry);
    assert!(minor.entry.contains("`pooler.dense.bias` 1.00e0 (5.00e-1 absolute)"), "{}", minor.entry);

    bench.write("README.md", "# Card");
    assert_eq!(bench.add().unwrap().version.to_string(), "1.1.1");

    bench.write("vocab.txt", "[PAD]\n[UNK]\na\nb\n");
    let major = bench.add().unwrap();
    assert_eq!(major.version.to_string(), "2.0.0");
    assert!(
        major.entry.contains("- Vocabulary: 3 tokens before, 4 after.\n  - Added: 1 (`b`)"),
        "{}",
        major.entry
    );

    let text = bench.changelog();
    let order: Vec<_> = text.lines().filter(|l| l.starts_with("## ")).map(|l| &l[3..8]).collect();
    assert_eq!(order, ["2.0.0", "1.1.1", "1.1.0", "1.0.0"]);
    assert_eq!(bench.names(), [".lock", "CHANGELOG.md", "latest", "v1.0.0", "v1.1.0", "v1.1.1", "v2.0.0"]);
}

#[test]
fn shapes_configs_and_dtypes_are_told() {
    let bench = Bench::new();
    bench.add().unwrap();
    bench.write(
        "model.safetensors",
        safetensors(&[("pooler.dense.bias", &[1], &[0.0]), ("new\n## 9.9.9", &[1], &[0.0])]),
    );
    bench.write("config.json", r#"{"model_type": "bert", "hidden_size": 4, "rope_theta": 1e4}"#);
    let added = bench.add().unwrap();
    assert_eq!(added.version.to_string(), "2.0.0");
    let diff = added.diff.unwrap();
    assert_eq!(diff.weights.parameters, [8, 2]);
    assert_eq!(diff.weights.removed, ["embeddings.word_embeddings.weight"]);
    for wanted in [
        "Shape of `pooler.dense.bias`: [2] to [1].",
        "`hidden_size`: `2` to `4`.",
        "`rope_theta` added: `10000.0`.",
        "`architectures` removed:",
        "Parameters: 8 before, 2 after;",
        "`new\\n## 9.9.9`",
    ] {
        assert!(added.entry.contains(wanted), "{wanted}\n{}", added.entry);
    }
    assert!(!bench.changelog().contains("\n## 9.9.9"));
}

/// Whatever differs in a byte of the weights is told, if only as a patch.
#[test]
fn zeros_and_metadata_that_differ_are_patches() {
    let bench = Bench::new();
    bench.add().unwrap();
    bert(&bench.source(), -0.0);
    let bits = bench.add().unwrap();
    assert_eq!(bits.version, Version::new(1, 0, 1));
    assert!(bits.entry.contains("Equal as numbers, with other bits: `pooler.dense.bias`."), "{}", bits.entry);
    let plain = safetensors(&[("w", &[1], &[1.0])]);
    bench.write("model.safetensors", &plain);
    bench.add().unwrap();
    let header = String::from_utf8(plain[8..plain.len() - 4].to_vec()).unwrap();
    let header = header.trim_end().replacen('{', r#"{"__metadata__":{"epoch":"3"},"#, 1);
    let mut with = (header.len() as u64).to_le_bytes().to_vec();
    with.extend(header.as_bytes());
    with.extend(&plain[plain.len() - 4..]);
    bench.write("model.safetensors", with);
    let metadata = bench.add().unwrap();
    assert_eq!(metadata.diff.unwrap().bump(), Some(Bump::Patch));
    assert!(metadata.entry.contains("Metadata: `epoch` changed."), "{}", metadata.entry);
}

#[test]
fn a_version_may_be_chosen_carried_or_bumped() {
    let bench = Bench::new();
    let exact = |text: &str| Choice::Exact(parse_version(text).unwrap());
    bench.add_with(|o| o.version = exact("1.2.0")).unwrap();
    let taken = bench.add_with(|o| o.version = exact("1.2.0")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::InvalidOptions);
    assert_eq!(
        bench.add_with(|o| o.version = Choice::Bump(Bump::Patch)).unwrap().version.to_string(),
        "1.2.1"
    );
    bench.add_with(|o| o.version = exact("2.0.0-rc.1")).unwrap();
    let folded = bench.add_with(|o| o.version = exact("2.0.0-RC.1")).unwrap_err();
    assert!(folded.message().contains("v2.0.0-rc.1 already"), "{folded}");
    // A backport is compared with the version that it follows.
    let port = bench.add_with(|o| o.version = exact("1.1.0")).unwrap();
    assert_eq!(port.previous, None);
    let port = bench.add_with(|o| o.version = exact("1.2.0-x")).unwrap();
    assert_eq!(port.previous, Some(Version::new(1, 1, 0)));
    // The version that the folder carries is taken once.
    VersionRecord::new(Version::new(3, 1, 4)).write(&bench.source()).unwrap();
    assert_eq!(bench.add().unwrap().version, Version::new(3, 1, 4));
    assert!(bench.add().unwrap_err().message().contains("nothing changed"));
    let mut of_another = VersionRecord::new(Version::new(9, 0, 0));
    of_another.name = Some("other".into());
    of_another.write(&bench.source()).unwrap();
    bench.write("README.md", "x");
    assert_eq!(bench.add().unwrap().version, Version::new(3, 1, 5));
}

#[test]
fn aliases_notes_and_cards_come_with_a_version() {
    let bench = Bench::new();
    bench.write("README.md", "# Mine\n");
    let added = bench.add_with(|o| {
        o.aliases = vec!["production".into(), "best".into()];
        o.notes = Some("Trained longer.\n\n### Why\n".into());
        o.card = Some(CardOptions { license: Some("mit".into()), ..CardOptions::default() });
    });
    let added = added.unwrap();
    assert!(added.entry.starts_with("Trained longer.\n\n### Why\n\nThe first version."), "{}", added.entry);
    let card = fs::read_to_string(added.folder.join("README.md")).unwrap();
    assert!(
        card.contains("license: mit") && card.contains("\n# Mine\n") && card.contains("Version 1.0.0."),
        "{card}"
    );
    assert!(card.contains("### Changes in 1.0.0\n\nTrained longer."), "{card}");
    assert_eq!(fs::read_to_string(bench.source().join("README.md")).unwrap(), "# Mine\n");
    assert_eq!(bench.model.aliases().unwrap().len(), 2);
    for (what, options) in [
        ("alias", AddOptions { aliases: vec!["latest".into()], ..AddOptions::default() }),
        ("notes", AddOptions { notes: Some("## 7.0.0\n".into()), ..AddOptions::default() }),
    ] {
        let error = bench.model.add(&bench.source(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{what}");
    }
}

#[test]
fn a_persons_changelog_is_only_added_to() {
    let bench = Bench::new();
    bench.add().unwrap();
    let mine = "My changes\r\n==========\r\n\r\n## 1.1.0 - soon\r\n\r\nI wrote this first.\r\n\r\n## 1.0.0\r\n\r\nrewritten  \r\n";
    fs::write(bench.model.folder.join("CHANGELOG.md"), mine).unwrap();
    bert(&bench.source(), 1.0);
    let added = bench.add().unwrap();
    assert_eq!(bench.changelog(), mine);
    assert!(
        added.notes.iter().any(|n| n.text.contains("has an entry of 1.1.0 already")),
        "{:?}",
        added.notes
    );
    bert(&bench.source(), 2.0);
    bench.add().unwrap();
    let text = bench.changelog();
    let (before, after) = text.split_once("## 1.2.0").unwrap();
    assert!(
        mine.starts_with(before)
            && text.ends_with(&mine[before.len()..])
            && after.contains("\r\n\r\n- Weights")
    );
}

/// A process that is killed at any step leaves each version whole, and the next change finishes what was left.
#[test]
fn a_kill_at_any_step_leaves_the_registry_whole() {
    use Step::*;
    for stop in [Copied, Compared, Staged, Journalled, Renamed, Changelog, Latest, Aliases] {
        let bench = Bench::new();
        let first = contents(&bench.source());
        bench.add().unwrap();
        bert(&bench.source(), 0.5);
        let second = contents(&bench.source());
        let options =
            AddOptions { fsync: false, aliases: vec!["production".into()], ..AddOptions::default() };
        let mut seen = false;
        let killed = add(&bench.model, &bench.source(), &options, &mut |step| {
            seen |= step == stop;
            if step == stop { Err(Error::cancelled("killed")) } else { Ok(()) }
        });
        assert!(killed.is_err() && seen, "{stop:?}");

        let there = bench.model.versions().unwrap();
        let placed = [Renamed, Changelog, Latest, Aliases].contains(&stop);
        assert_eq!(there.len(), if placed { 2 } else { 1 }, "{stop:?}");
        assert_whole(&bench.model.folder_of(&there[0]), &first);
        if placed {
            assert_whole(&bench.model.folder_of(&there[1]), &second);
        }

        bert(&bench.source(), 2.0);
        let next = bench.add().unwrap();
        assert_eq!(next.version, Version::new(1, if placed { 2 } else { 1 }, 0), "{stop:?}");
        assert_eq!(next.notes.iter().any(|n| n.text.contains("was stopped")), placed, "{stop:?}");
        let text = bench.changelog();
        for version in bench.model.versions().unwrap() {
            assert_eq!(text.matches(&format!("\n## {version} - ")).count(), 1, "{stop:?}\n{text}");
        }
        assert_eq!(bench.model.aliases().unwrap().contains_key("production"), placed, "{stop:?}");
        let latest = fs::read_to_string(bench.model.folder.join("latest")).unwrap();
        assert_eq!(latest.trim(), next.version.to_string());
        let left: Vec<_> = bench.names().into_iter().filter(|n| n.starts_with('.')).collect();
        assert_eq!(left, [".lock"], "{stop:?}");
    }
}

#[test]
fn additions_at_the_same_time_do_not_lose_each_other() {
    let bench = Bench::new();
    let sources: Vec<_> = (0..6).map(|i| bench.dir.path().join(format!("source-{i}"))).collect();
    for (i, source) in sources.iter().enumerate() {
        bert(source, i as f32 + 1.0);
    }
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(|| {
                let options = AddOptions { fsync: false, ..AddOptions::default() };
                bench.model.add(source, &options).unwrap();
            });
        }
    });
    let versions = bench.model.versions().unwrap();
    assert_eq!(versions, (0..6).map(|i| Version::new(1, i, 0)).collect::<Vec<_>>());
    let mut found: Vec<_> = versions
        .iter()
        .map(|v| fs::read(bench.model.folder_of(v).join("model.safetensors")).unwrap())
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 6);
    let text = bench.changelog();
    assert!(versions.iter().all(|v| text.contains(&format!("\n## {v} - "))), "{text}");
}

#[test]
fn what_cannot_be_added_leaves_nothing() {
    let bench = Bench::new();
    bench.add().unwrap();
    let before = bench.names();
    let refused = |kind: ErrorKind, part: &str| {
        let error = bench.add().unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(part), "{error}");
        assert_eq!(bench.names(), before);
    };
    bench.write("model.safetensors", b"\x10\0\0\0\0\0\0\0{\"a\":");
    refused(ErrorKind::Malformed, "source/model.safetensors");
    fs::remove_file(bench.source().join("model.safetensors")).unwrap();
    bench.write("model.safetensors.index.json", r#"{"weight_map": {"a": "model-1.safetensors"}}"#);
    refused(ErrorKind::NotFound, "model-1.safetensors");
    fs::remove_file(bench.source().join("model.safetensors.index.json")).unwrap();
    bert(&bench.source(), 0.5);
    fs::write(bench.model.folder.join("Changelog.md"), "mine").unwrap();
    assert!(bench.add().unwrap_err().message().contains("Changelog.md"));
    fs::remove_file(bench.model.folder.join("Changelog.md")).unwrap();
    bench.write("config.json", "[".repeat(1 << 20));
    refused(ErrorKind::Malformed, "config.json");
    fs::File::create(bench.source().join("config.json")).unwrap().set_len(1 << 34).unwrap();
    #[cfg(unix)]
    {
        fs::remove_file(bench.source().join("config.json")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", bench.source().join("config.json")).unwrap();
        refused(ErrorKind::UnsafeContent, "leads out of");
    }
    let empty = bench.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let other = VersionedModel::at(bench.dir.path().join("registry/other")).unwrap();
    assert_eq!(other.add(&empty, &AddOptions::default()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!other.folder.exists());
    let inside = VersionedModel::at(bench.source().join("registry/bert")).unwrap();
    bert(&bench.source(), 0.5);
    let _ = fs::remove_file(bench.source().join("config.json"));
    let error = inside.add(&bench.source(), &AddOptions::default()).unwrap_err();
    assert!(error.message().contains("lies in the folder"), "{error}");
    let folded = VersionedModel::at(bench.dir.path().join("registry/BERT")).unwrap();
    if !folded.folder.exists() {
        let error = folded.add(&bench.source(), &AddOptions::default()).unwrap_err();
        assert!(error.message().contains("same name where case does not count"), "{error}");
    }
}

#[test]
fn a_broken_version_does_not_stop_the_next() {
    let bench = Bench::new();
    let first = bench.add().unwrap();
    let weights = first.folder.join("model.safetensors");
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, "broken").unwrap();
    let next = bench.add().unwrap();
    assert_eq!((next.version.to_string(), next.diff.is_none()), ("2.0.0".into(), true));
    assert!(next.notes.iter().any(|n| n.text.contains("cannot be read")), "{:?}", next.notes);
    assert!(next.entry.contains("Not compared with 1.0.0"));
}

#[test]
fn a_journal_that_lies_is_refused() {
    let bench = Bench::new();
    bench.add().unwrap();
    bert(&bench.source(), 0.5);
    let journal = bench.model.folder.join(JOURNAL);
    for bad in [
        "",
        r#"{"version": "1.0.0", "date": "d\n## 9.0.0", "entry": "", "aliases": []}"#,
        r#"{"version": "1.0.0", "date": "2026-01-01", "entry": "", "aliases": ["../../x"]}"#,
        r#"{"version": "../../x", "date": "2026-01-01", "entry": "", "aliases": []}"#,
        r###"{"version": "1.0.0", "date": "2026-01-01", "entry": "x\n## 2.0.0", "aliases": []}"###,
    ] {
        fs::write(&journal, bad).unwrap();
        assert_eq!(bench.add().unwrap_err().kind(), ErrorKind::Malformed, "{bad}");
    }
    // One of a version that never came is forgotten.
    fs::write(&journal, r#"{"version": "7.0.0", "date": "2026-01-01", "entry": "x", "aliases": ["a"]}"#)
        .unwrap();
    bench.add().unwrap();
    assert!(!journal.exists() && !bench.changelog().contains("7.0.0"));
    assert!(bench.model.aliases().unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn files_are_copied_read_only_or_linked() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let source = inode(bench.source().join("model.safetensors"));
    let copied = bench.add().unwrap();
    let path = copied.folder.join("model.safetensors");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o222, 0);
    assert_ne!(inode(path), source);
    let linked = bench.add_with(|o| {
        o.hard_links = true;
        o.version = Choice::Bump(Bump::Patch);
        o.card = Some(CardOptions::default());
    });
    let linked = linked.unwrap();
    assert_eq!(inode(linked.folder.join("model.safetensors")), source);
    assert!(linked.folder.join("README.md").exists() && !bench.source().join("README.md").exists());
    assert!(!bench.source().join(crate::RECORD).exists());
    assert_whole(&linked.folder, &contents(&bench.source()));
}

#[test]
fn an_observer_hears_of_every_byte_and_may_stop() {
    use std::sync::atomic::{AtomicU64, Ordering};
    #[derive(Default)]
    struct Watch {
        total: AtomicU64,
        done: AtomicU64,
        stop: bool,
    }
    impl Observer for Watch {
        fn started(&self, total: u64) {
            self.total.fetch_add(total, Ordering::Relaxed);
        }
        fn advanced(&self, bytes: u64) {
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }
        fn cancelled(&self) -> bool {
            self.stop
        }
    }
    let bench = Bench::new();
    let watch = Watch::default();
    let options = AddOptions { observer: Some(&watch), fsync: false, ..AddOptions::default() };
    bench.model.add(&bench.source(), &options).unwrap();
    let total = contents(&bench.source()).iter().map(|(_, b)| b.len() as u64).sum::<u64>();
    assert_eq!((watch.total.into_inner(), watch.done.into_inner()), (total, total));
    bert(&bench.source(), 0.5);
    let stop = Watch { stop: true, ..Watch::default() };
    let options = AddOptions { observer: Some(&stop), ..AddOptions::default() };
    assert_eq!(bench.model.add(&bench.source(), &options).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(bench.names(), [".lock", "CHANGELOG.md", "latest", "v1.0.0"]);
}
