//! Any bytes as a config.json: what it asks of a model, changes to it, and a folder that is loaded by it.

use weighbridge_formats::DType;
use weighbridge_model::{Config, ModelLoader, architecture};

use crate::folder::Folder;
use crate::options;

/// The target.
pub fn run(bytes: &[u8]) {
    static FOLDER: Folder = Folder::new();
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(mut config) = Config::parse(text) else { return };
    let _ = (config.model_type(), config.dtype(), config.architectures().len());
    let _ = architecture(&config);
    FOLDER.with(|root| {
        std::fs::write(root.join("config.json"), bytes).expect("a file");
        std::fs::write(root.join("model.safetensors"), super::shard_index::SHARD).expect("a file");
        if let Ok(model) = ModelLoader::new(root).read_options(options()).report_only().load() {
            crate::exhaust(model.weights());
        }
    });
    if config.set_dtype(DType::F16).is_ok() {
        let again = Config::parse(config.text()).expect("a config that was changed");
        assert_eq!(again.dtype(), Some(DType::F16));
        assert_eq!(again.fields(), config.fields());
    }
}
