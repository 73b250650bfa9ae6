//! Any bytes as each file of a topic model, and as a pickle of one.

use weighbridge_bertopic::{LoadOptions, SaveOptions, Serialization, load, save};

use crate::folder::Folder;
use crate::options;

const TOPICS: &str = r#"{"topic_representations": {"0": [["a", 0.5]], "1": [["b", 0.25]]}, "topics": [0, 1, 0],
"topic_sizes": {"0": 2, "1": 1}, "topic_mapper": [[0, 0], [1, 1]], "topic_labels": {"0": "0_a", "1": "1_b"},
"custom_labels": null, "_outliers": 0, "topic_aspects": {}}"#;

/// The first byte chooses the file.
pub fn run(bytes: &[u8]) {
    static FOLDER: Folder = Folder::new();
    let Some((&which, content)) = bytes.split_first() else { return };
    FOLDER.with(|root| {
        let mut header =
            b"{\"topic_embeddings\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}".to_vec();
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.append(&mut header);
        weights.extend([0; 16]);
        std::fs::write(root.join("topics.json"), TOPICS).expect("a file");
        std::fs::write(root.join("config.json"), "{}").expect("a file");
        std::fs::write(root.join("topic_embeddings.safetensors"), weights).expect("a file");
        let path = match which % 5 {
            0 => "topics.json",
            1 => "config.json",
            2 => "topic_embeddings.safetensors",
            3 => "ctfidf_config.json",
            _ => "model.pickle",
        };
        std::fs::write(root.join(path), content).expect("a file");
        let mut choices = LoadOptions::default();
        choices.read = options();
        let at = if which % 5 == 4 { root.join(path) } else { root.to_owned() };
        let Ok(loaded) = load(&at, &choices) else { return };
        let mut how = SaveOptions::default();
        how.fsync = false;
        let target = root.join("out");
        for serialization in [Serialization::Safetensors, Serialization::Pytorch] {
            how.serialization = serialization;
            if save(&loaded.model, &target, &how).is_ok() {
                let again = load(&target, &choices).unwrap_or_else(|e| panic!("saved and not read: {e:?}"));
                assert_eq!(again.model.topics, loaded.model.topics);
                std::fs::remove_dir_all(&target).expect("a folder");
            }
        }
    });
}
