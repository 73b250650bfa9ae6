//! Any bytes as a checkpoint's manifest, and in it any file: with the checksum that the manifest needs, since the fuzzer does
//! not find one.
use weighbridge_checkpoint::{Checkpoint, Manifest, list, resume};

use crate::folder::Folder;
use crate::options;

/// The first byte says whether the checksum is made right.
pub fn run(bytes: &[u8]) {
    static FOLDER: Folder = Folder::new();
    let Some((&which, content)) = bytes.split_first() else { return };
    FOLDER.with(|root| {
        let folder = root.join("checkpoint_epoch0_step1");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("model.safetensors"), super::shard_index::SHARD).expect("a file");
        std::fs::write(root.join("secret"), "outside").expect("a file");
        let mut text = content.to_vec();
        if which % 2 == 0 {
            text.extend(
                format!(",\n  \"manifest_crc32\": \"{:08x}\"\n}}\n", super::torch::crc32(content)).bytes(),
            );
        }
        std::fs::write(folder.join("checkpoint.json"), &text).expect("a file");
        let _ = Manifest::read(&folder);
        if let Ok(checkpoint) = Checkpoint::open_with(&folder, &options()) {
            let outside = |p: &std::path::Path| p.canonicalize().is_ok_and(|p| p.ends_with("secret"));
            if let Ok(files) = checkpoint.files() {
                assert!(!files.iter().any(|(p, _)| outside(p)), "{files:?}");
            }
            let _ = (checkpoint.verify(), checkpoint.metrics().len());
            let _ = checkpoint.weights().map(|w| crate::exhaust(&*w));
            let _ = checkpoint.optimizer().map(|o| o.map(|o| crate::exhaust(&*o)));
            let _ = (checkpoint.random(), checkpoint.extra(), checkpoint.log(), checkpoint.scheduler());
        }
        let _ = (list(root, &options()), resume(root, &options()));
    });
}
