//! Any bytes as each file of a tokenizer; what is read is written in every layout and read again.

use weighbridge_model::tokenizer::{Layout, Tokenizer};

use crate::folder::Folder;

/// The first byte chooses the file.
pub fn run(bytes: &[u8]) {
    static FOLDER: Folder = Folder::new();
    let Some((&which, content)) = bytes.split_first() else { return };
    let opened = match which % 8 {
        0 => Tokenizer::from_json(content),
        which => FOLDER.with(|root| {
            let path = match which {
                1 => "tokenizer.json",
                2 => "vocab.txt",
                3 => "tokenizer_config.json",
                4 => "special_tokens_map.json",
                5 => "added_tokens.json",
                6 => "vocab.json",
                _ => "merges.txt",
            };
            // What the chosen file is read with.
            if which == 3 || which == 4 || which == 5 {
                std::fs::write(root.join("vocab.txt"), "[PAD]\n[UNK]\na\nb\n").expect("a file");
            }
            if which == 6 {
                std::fs::write(root.join("merges.txt"), "#version: 0.2\na b\n").expect("a file");
            }
            if which == 7 {
                std::fs::write(root.join("vocab.json"), "{\"a\":0,\"b\":1,\"ab\":2}").expect("a file");
            }
            std::fs::write(root.join(path), content).expect("a file");
            Tokenizer::open(root)
        }),
    };
    let Ok(tokenizer) = opened else { return };
    let _ = (tokenizer.vocab_size(), tokenizer.class().map(str::len), tokenizer.notes().len());
    let _ = tokenizer.token_to_id("a");
    for layout in [Layout::TokenizerJson, Layout::WordPiece, Layout::Gpt, Layout::Gpt2, Layout::Roberta] {
        let _ = tokenizer.files(layout, true).map(|saved| saved.files.len());
    }
}
