//! Models for the tests: small folders with weights, a config and a tokenizer.

use std::fs;
use std::path::Path;

use serde_json::json;

/// A safetensors file, laid out by hand: names, shapes, and numbers of f32.
pub(crate) fn safetensors(tensors: &[(&str, &[u64], &[f32])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, numbers) in tensors {
        let start = data.len();
        data.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let mut text = serde_json::Value::from(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    file.extend(data);
    file
}

/// Writes a small BERT, whose bias is `bias`.
pub(crate) fn bert(folder: &Path, bias: f32) {
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    let weights = safetensors(&[
        ("embeddings.word_embeddings.weight", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ("pooler.dense.bias", &[2], &[bias, 1.0]),
    ]);
    write("model.safetensors", &weights);
    let config = json!({
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 2,
        "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 3, "max_position_embeddings": 16,
        "id2label": {"0": "bad", "1": "good"}, "torch_dtype": "float32",
    });
    write("config.json", config.to_string().as_bytes());
    write("vocab.txt", b"[PAD]\n[UNK]\na\n");
    write("tokenizer_config.json", br#"{"tokenizer_class": "BertTokenizer", "model_max_length": 16}"#);
    write("1_Pooling/config.json", b"{}");
}

/// Every file of a folder with its bytes, by name.
pub(crate) fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = crate::folder::ModelFolder::scan(folder, true).unwrap();
    files.files.iter().map(|f| (f.name.clone(), fs::read(&f.path).unwrap())).collect()
}
