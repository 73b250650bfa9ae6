//! BERTopic loads what is written, and what it wrote is read: models that it has just fitted, in all three ways.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weighbridge::bertopic::{
    Documents, LoadOptions, Pointer, SaveOptions, Serialization, TopicModel, load, save,
};
use weighbridge_tests::{python, workspace};

const MODELS: [&str; 3] = ["given", "kmeans", "outliers"];
/// What BERTopic's and joblib's writers make of each.
const SOURCES: [&str; 6] =
    ["safetensors", "pytorch", "model.pickle", "model.plain.pickle", "model.pickle.gz", "model.pickle.lz4"];
const WAYS: [Serialization; 3] = [Serialization::Safetensors, Serialization::Pytorch, Serialization::Pickle];

fn judge(args: &[&str], tasks: &[Value]) -> Vec<Value> {
    let mut child = Command::new(python())
        .arg("-B")
        .arg(workspace().join("tests/interop/bertopic_judge.py"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let text: String = tasks.iter().map(|t| format!("{t}\n")).collect();
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output().expect("python ends");
    writer.join().expect("a thread").expect("python reads");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect()
}

fn write(model: &TopicModel, target: &Path, way: Serialization, change: impl FnOnce(&mut SaveOptions<'_>)) {
    let mut options = SaveOptions::default();
    options.serialization = way;
    options.fsync = false;
    change(&mut options);
    save(model, target, &options).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
}

/// The bytes of a folder's files by name, subfolders included.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn documents(home: &Path) -> (Vec<f32>, usize) {
    let archive = weighbridge::open(home.join("documents.safetensors")).unwrap();
    let bytes = archive.data(0).unwrap().read_all().unwrap();
    let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (numbers, archive.tensors()[0].shape()[1] as usize)
}

/// Holds our assignment against BERTopic's: the same topics, and cosines within what summing in another order makes.
fn check_transform(model: &TopicModel, home: &Path, theirs: &Value) {
    let (numbers, dim) = documents(home);
    let wide: Vec<f64> = numbers.iter().map(|x| f64::from(*x)).collect();
    for (name, input, tolerance) in
        [("f32", Documents::F32(&numbers), 1e-6), ("f64", Documents::F64(&wide), 1e-13)]
    {
        let found = model.transform(input, dim).unwrap();
        assert_eq!(json!(found.topics), theirs[name]["topics"], "{}: {name}", home.display());
        let all = model.config.calculate_probabilities;
        let ours = if all { &found.similarities } else { &found.probabilities };
        let wanted = theirs[name]["probabilities"].as_array().unwrap();
        assert_eq!(ours.len(), wanted.len());
        for (ours, wanted) in ours.iter().zip(wanted) {
            let wanted = wanted.as_f64().unwrap();
            assert!((ours - wanted).abs() <= tolerance, "{}: {name}: {ours} for {wanted}", home.display());
        }
    }
}

#[test]
fn bertopic_and_weighbridge_read_each_other_in_all_three_ways() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    judge(&["fit", folder.path().to_str().unwrap()], &[]);
    let mut tasks = Vec::new();
    let mut models = Vec::new();
    for name in MODELS {
        let home = at(name);
        let original = files(&home.join("safetensors"));
        for source in SOURCES {
            let loaded = load(home.join(source), &LoadOptions::default());
            let loaded = loaded.unwrap_or_else(|e| panic!("{name}/{source}: {e}"));
            let pickle = source.starts_with("model");
            // Of a pickle, what a light model is without is said.
            assert_eq!(loaded.notes.is_empty(), !pickle, "{name}/{source}: {:?}", loaded.notes);
            for way in WAYS {
                let target = at(&format!("{name}-{source}-{}", way.as_str()));
                // A whole model has no embedder here to take the name from.
                let pointer = json!((name == "outliers").then_some("sentence-transformers/all-MiniLM-L6-v2"));
                write(&loaded.model, &target, way, |options| {
                    if pickle && let Some(name) = pointer.as_str() {
                        options.embedding_model = Pointer::Name(name.to_owned());
                    }
                });
                if way == Serialization::Safetensors {
                    let written = files(&target);
                    let names = |files: &[(String, Vec<u8>)]| {
                        files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
                    };
                    assert_eq!(names(&written), names(&original), "{name}/{source}");
                    for ((file, ours), (_, theirs)) in written.iter().zip(&original) {
                        assert!(ours == theirs, "{name}/{source}: {file} is not what BERTopic writes");
                    }
                }
                tasks.push(json!({
                    "written": target,
                    "reference": home.join("safetensors"),
                    "home": home,
                    "pointer": pointer,
                }));
            }
            if source == "safetensors" {
                models.push((name, loaded.model));
            }
        }
        // Without c-TF-IDF; with images; with another embedder.
        let bare = load(home.join("bare"), &LoadOptions::default()).unwrap().model;
        for way in WAYS {
            let target = at(&format!("{name}-bare-{}", way.as_str()));
            write(&bare, &target, way, |_| {});
            tasks.push(
                json!({ "written": target, "reference": home.join("bare"), "home": home, "pointer": null }),
            );
        }
        let mut options = LoadOptions::default();
        options.embedding_model = Some("someone/another".to_owned());
        let pictured = load(home.join("images"), &options).unwrap();
        assert_eq!(pictured.notes, [], "{name}");
        assert_eq!(pictured.model.images.len(), pictured.model.representations.len());
        let target = at(&format!("{name}-images"));
        write(&pictured.model, &target, Serialization::Safetensors, |options| {
            options.model_card = Some(format!("someone/{name}"));
        });
        check_images(&files(&target), &files(&home.join("images")));
        tasks.push(
            json!({ "written": target, "reference": home.join("images"), "home": home, "pointer": null }),
        );
    }
    let checks = tasks.len();
    assert_eq!(checks, MODELS.len() * (SOURCES.len() * WAYS.len() + WAYS.len() + 1));
    tasks.extend(
        models.iter().map(|(name, _)| json!({ "transform": at(name).join("safetensors"), "home": at(name) })),
    );
    // A model with two words exchanged: the judge must find it.
    let wrong = at("wrong");
    let mut model = models.first().expect("a model").1.clone();
    model.representations[0].1.swap(0, 1);
    write(&model, &wrong, Serialization::Safetensors, |_| {});
    let home = at(models[0].0);
    tasks.push(
        json!({ "written": wrong, "reference": home.join("safetensors"), "home": home, "pointer": null }),
    );
    let lines = judge(&["check"], &tasks);
    assert_eq!(lines.len(), tasks.len());
    let found = lines[tasks.len() - 1]["faults"].to_string();
    assert!(found.contains("topic_representations_ differs"), "{found}");
    let faults: Vec<String> = lines[..checks]
        .iter()
        .filter(|l| l["faults"].as_array().is_none_or(|f| !f.is_empty()))
        .map(ToString::to_string)
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for ((name, model), theirs) in models.iter().zip(&lines[checks..]) {
        check_transform(model, &at(name), theirs);
    }
}

/// The images and everything beside them are as they were, but for the embedder and the model card.
fn check_images(written: &[(String, Vec<u8>)], original: &[(String, Vec<u8>)]) {
    let mut images = 0;
    for (name, theirs) in original.iter().filter(|(name, _)| name != "config.json") {
        let ours = written.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(&ours.1 == theirs, "{name} differs");
        images += usize::from(name.starts_with("images/"));
    }
    assert!(images >= 2, "{images} images");
    let text = |name: &str| {
        let (_, bytes) = written.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8(bytes.clone()).unwrap()
    };
    let config: Value = serde_json::from_str(&text("config.json")).unwrap();
    assert_eq!(config["embedding_model"], "someone/another");
    let card = text("README.md");
    // What images say is no text, so there is no pipeline tag.
    assert!(card.starts_with("---\ntags:\n- bertopic\nlibrary_name: bertopic\n---\n"), "{card}");
    assert!(card.contains("BERTopic.load(\"someone/"), "{card}");
}
