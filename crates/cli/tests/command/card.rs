//! `card`: what is printed and written, and what stays.

use crate::{Folder, run};

fn model() -> (Folder, String) {
    let folder = Folder::new();
    folder.write(
        "config.json",
        r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 3}"#,
    );
    let path = folder.path("");
    (folder, path)
}

#[test]
fn a_card_is_printed_and_written_only_when_asked() {
    let (folder, path) = model();
    let printed = run(&["card", &path, "--license", "mit", "--language", "en"]).expect(0);
    assert!(printed.stdout.starts_with(
        "---\nlibrary_name: transformers\npipeline_tag: fill-mask\nlicense: mit\nlanguage: en\n"
    ));
    assert!(printed.stderr.contains("says nothing of the weights"), "{}", printed.stderr);
    assert!(!folder.0.join("README.md").exists());
    let written = run(&["card", &path, "--write", "--name", "tiny"]).expect(0).stdout;
    assert!(
        written.starts_with("wrote ") && written.contains("added to the front matter: library_name"),
        "{written}"
    );
    let text = std::fs::read_to_string(folder.0.join("README.md")).unwrap();
    assert!(text.contains("\n# tiny\n"), "{text}");
    let again = run(&["card", &path, "--write", "--json"]).expect(0).json();
    assert_eq!((&again["written"], &again["changed"]), (&false.into(), &false.into()));
    assert_eq!(again["text"], text);
}

#[test]
fn a_persons_readme_stays() {
    let (folder, path) = model();
    let mine = "---\nlicense: other # mine\n---\n\nMy words.\n";
    folder.write("README.md", mine);
    let json = run(&["card", &path, "--write", "--license", "mit", "--json"]).expect(0).json();
    let text = json["text"].as_str().unwrap();
    assert!(text.starts_with("---\nlicense: other # mine\nlibrary_name: transformers\n"), "{text}");
    assert!(text.contains("\n---\n\nMy words.\n\n<!-- weighbridge:begin"), "{text}");
    run(&["card", &folder.path("absent")]).expect(2);
    folder.write("config.json", "[".repeat(1 << 20));
    run(&["card", &path, "--write"]).expect(2);
    assert_eq!(std::fs::read_to_string(folder.0.join("README.md")).unwrap(), text);
}
