//! Any bytes as each file that a registry of versions reads: records, changelogs, model cards, aliases, journals.

use weighbridge_versions::{AddOptions, CardOptions, VersionRecord, VersionedModel, write_card};

use crate::folder::Folder;

/// The first byte chooses the file.
pub fn run(bytes: &[u8]) {
    static FOLDER: Folder = Folder::new();
    let Some((&which, content)) = bytes.split_first() else { return };
    FOLDER.with(|root| {
        let model = root.join("registry/m");
        std::fs::create_dir_all(model.join("v1.0.0")).expect("a folder");
        std::fs::write(model.join("v1.0.0/config.json"), "{}").expect("a file");
        let card = model.join("v1.0.0/README.md");
        let path = match which % 5 {
            0 => model.join("v1.0.0/weighbridge.version.json"),
            1 => model.join("CHANGELOG.md"),
            2 => card.clone(),
            3 => model.join("latest"),
            _ => model.join(".adding.json"),
        };
        std::fs::write(&path, content).expect("a file");
        let _ = VersionRecord::read(&model.join("v1.0.0")).map(|r| r.map(|r| r.to_json().to_string()));
        let versioned = VersionedModel::at(&model).expect("a name");
        let versions = versioned.versions().expect("a folder that is listed");
        for version in &versions {
            let _ = versioned.changelog_entry(version);
        }
        let _ = versioned.aliases();
        if which % 5 == 2 && write_card(&model.join("v1.0.0"), &CardOptions::default()).is_ok() {
            // What was made of it is taken as it is the next time.
            let again = write_card(&model.join("v1.0.0"), &CardOptions::default());
            assert!(
                !again.expect("a card of our own").changed(),
                "{}",
                std::fs::read_to_string(&card).unwrap_or_default()
            );
        }
        if which % 5 == 4 {
            let mut options = AddOptions::default();
            options.fsync = false;
            std::fs::create_dir_all(root.join("source")).expect("a folder");
            std::fs::write(root.join("source/config.json"), "{\"a\": 1}").expect("a file");
            let _ = versioned.add(&root.join("source"), &options);
        }
    });
}
