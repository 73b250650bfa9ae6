//! Tests of cards: what is written, and what a person wrote and keeps.

use std::fs;

use weighbridge_formats::ErrorKind;

use super::*;
use crate::testing::bert;

fn text(card: &Card) -> &str {
    std::str::from_utf8(&card.text).unwrap()
}

#[test]
fn a_new_card_says_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tiny-bert");
    bert(&folder, 0.0);
    fs::write(
        folder.join("eval_results.json"),
        r#"{"eval_accuracy": 0.75, "eval_loss": 0.5, "eval_runtime": 3}"#,
    )
    .unwrap();
    let options = CardOptions {
        license: Some("mit".into()),
        languages: vec!["no".into()],
        datasets: vec!["imdb".into()],
        ..CardOptions::default()
    };
    let made = write_card(&folder, &options).unwrap();
    assert_eq!(made.old, None);
    let card = text(&made);
    assert!(
        card.starts_with(
            "---\nlibrary_name: transformers\npipeline_tag: text-classification\nlicense: mit\n"
        ),
        "{card}"
    );
    for wanted in [
        "language: \"no\"\n",
        "tags:\n- bert\n- safetensors\n",
        "metrics:\n- accuracy\n",
        "model-index:\n- name: tiny-bert\n",
        "\n---\n\n# tiny-bert\n\n<!-- weighbridge:begin sha256=",
        "| Architecture | `BertForSequenceClassification` (`bert`) |\n",
        "| Parameters | 8 |\n| Dtypes | F32: 8 |\n",
        "| Labels | `bad`, `good` |\n",
        "| Tokenizer | `BertTokenizer`, 3 tokens, at most 16 at once |\n",
        "| `accuracy` | 0.75 |\n",
    ] {
        assert!(card.contains(wanted), "{wanted}\n{card}");
    }
    assert!(card.ends_with("<!-- weighbridge:end -->\n"));
    let again = write_card(&folder, &options).unwrap();
    assert!(!again.changed() && again.added_keys.is_empty() && again.notes.is_empty(), "{:?}", again.notes);
}

#[test]
fn what_a_person_wrote_stays() {
    let dir = tempfile::tempdir().unwrap();
    bert(dir.path(), 0.0);
    let mine = "---\n# chosen with care\nlicense:   \"mit\"   # ours\npipeline_tag: fill-mask\n---\nMy text.  \n\nMore.";
    fs::write(dir.path().join(README), mine).unwrap();
    let made =
        write_card(dir.path(), &CardOptions { license: Some("gpl-3.0".into()), ..CardOptions::default() })
            .unwrap();
    let card = text(&made);
    assert!(card.starts_with("---\n# chosen with care\nlicense:   \"mit\"   # ours\npipeline_tag: fill-mask\nlibrary_name: transformers\ntags:\n"), "{card}");
    assert!(card.contains("\n---\nMy text.  \n\nMore.\n\n<!-- weighbridge:begin"), "{card}");
    assert_eq!(made.added_keys, ["library_name", "tags"]);

    // A key that is removed by hand is not added again.
    let without = card.replace("library_name: transformers\n", "");
    fs::write(dir.path().join(README), &without).unwrap();
    let made = card_of(dir.path());
    assert_eq!(text(&made), without);
    assert!(made.notes.iter().any(|n| n.text.contains("library_name was removed")), "{:?}", made.notes);

    // A generated part that was edited is a person's.
    let edited = without.replace("| Layers | 1 |", "| Layers | one, and a half |");
    fs::write(dir.path().join(README), &edited).unwrap();
    let made = card_of(dir.path());
    assert_eq!(text(&made), edited);
    assert!(made.notes.iter().any(|n| n.text.contains("edited by hand")), "{:?}", made.notes);
}

fn card_of(folder: &Path) -> Card {
    card(folder, &CardOptions::default()).unwrap()
}

#[test]
fn a_card_follows_the_model_and_its_version() {
    let dir = tempfile::tempdir().unwrap();
    bert(dir.path(), 0.0);
    write_card(dir.path(), &CardOptions::default()).unwrap();
    VersionRecord::new(Version::new(1, 2, 0)).write(dir.path()).unwrap();
    let changes = "## 1.2.0\n\nBetter.\n<!-- weighbridge:end -->\n---\n<!-- weighbridge:begin x -->\n\n## 1.1.0\n\nOld.\n";
    fs::write(dir.path().join("CHANGELOG.md"), changes).unwrap();
    let made = write_card(dir.path(), &CardOptions::default()).unwrap();
    let card = text(&made);
    assert!(
        card.contains("Version 1.2.0.\n")
            && card.contains("### Changes in 1.2.0\n\nBetter.\n----\n<!-- weigh"),
        "{card}"
    );
    assert!(!card.contains("Old.") && card.matches("weighbridge:end").count() == 1, "{card}");
    assert!(!card_of(dir.path()).changed());
}

#[test]
fn a_version_in_a_registry_gets_no_other_card() {
    let dir = tempfile::tempdir().unwrap();
    bert(&dir.path().join("source"), 0.0);
    let model = crate::VersionedModel::at(dir.path().join("registry/bert")).unwrap();
    let added = model.add(&dir.path().join("source"), &crate::AddOptions::default()).unwrap();
    let error = write_card(&added.folder, &CardOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(card(&added.folder, &CardOptions::default()).unwrap().changed());
    // Any other folder may be called so.
    let by_chance = dir.path().join("runs/v1.0.0");
    bert(&by_chance, 0.0);
    write_card(&by_chance, &CardOptions::default()).unwrap();
    fs::rename(by_chance.join(README), by_chance.join("Readme.md")).unwrap();
    let error = write_card(&by_chance, &CardOptions::default()).unwrap_err();
    assert!(error.message().contains("Readme.md"), "{error}");
}

#[test]
fn hostile_models_write_no_markup() {
    let dir = tempfile::tempdir().unwrap();
    let evil = r#"{"model_type": "x\n---\nlicense: stolen", "architectures": ["A|B`\n# Head"], "_name_or_path": "/home/me/x",
        "id2label": {"0": "<!-- weighbridge:end -->\n<script>"}}"#;
    fs::write(dir.path().join("config.json"), evil).unwrap();
    let made = card_of(dir.path());
    let card = text(&made);
    assert!(!card.contains("\nlicense") && !card.contains("\n# Head") && !card.contains("/home"), "{card}");
    assert!(card.contains("``A\\|B`\\n# Head``"), "{card}");
    fs::write(dir.path().join(README), &made.text).unwrap();
    assert!(!card_of(dir.path()).changed(), "the part is found whole");
}

/// Whatever stands in a README, no byte of it is lost, and the second card is the first.
#[test]
fn random_texts_survive() {
    let dir = tempfile::tempdir().unwrap();
    bert(dir.path(), 0.0);
    let folder = ModelFolder::scan(dir.path(), false).unwrap();
    let options = CardOptions { license: Some("mit".into()), ..CardOptions::default() };
    let pieces: &[&[u8]] = &[
        b"---\n",
        b"---\r\n",
        b"---",
        b"license: x\n",
        b"tags:\n- a\n",
        b"- b\n",
        b"{a: 1}\n",
        b"# Title\n",
        b"text",
        b"\n",
        b"\r\n",
        b"\xff",
        b"<!-- weighbridge:begin x -->\n",
        b"<!-- weighbridge:end -->\n",
        b"'q: 1\n",
        b"k: |\n  x\n",
        b"\xef\xbb\xbf",
        b"```\n",
        b"\r",
        b" ",
    ];
    let mut state = 1u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let facts = Facts::of(&folder, &options, "m").unwrap();
    let mut with_part = 0;
    for _ in 0..3000 {
        let old: Vec<u8> = (0..next(10)).flat_map(|_| pieces[next(pieces.len())].to_vec()).collect();
        let first = edit(Some(old.clone()), "m", &facts, None);
        // What was put in, in two places at most, is taken out again: the old text is left.
        let mut rest = &old[..];
        for &byte in &first.text {
            if rest.first() == Some(&byte) {
                rest = &rest[1..];
            }
        }
        assert!(rest.is_empty(), "{}\n{}", old.escape_ascii(), first.text.escape_ascii());
        let pristine = first.notes.iter().all(|n| !n.text.contains("stays as it is"));
        with_part += usize::from(pristine);
        let second = edit(Some(first.text.clone()), "m", &facts, None);
        assert!(second.text == first.text, "{}\n{}", first.text.escape_ascii(), second.text.escape_ascii());
    }
    assert!(with_part > 500, "{with_part}");
}

#[test]
fn a_text_that_ends_in_a_carriage_return_gets_one_kind_of_breaks() {
    // Of this model nothing goes into the front matter, so the part is what brings the first line break.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    fs::write(dir.path().join(README), "mine\r").unwrap();
    let made = write_card(dir.path(), &CardOptions::default()).unwrap();
    assert!(
        made.changed() && text(&made).starts_with("mine\r\r\n\r\n<!-- weighbridge:begin"),
        "{:?}",
        made.text
    );
    assert!(!text(&made).replace("\r\n", "").contains('\n'));
    assert!(!write_card(dir.path(), &CardOptions::default()).unwrap().changed());
}
