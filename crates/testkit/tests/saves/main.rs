//! Saves of every kind that fail, are killed, or meet: what is visible is the whole old or the whole new, and nothing
//! else stays.
//!
//! Each scenario is a save in a child process, which is this test binary again. `faults` makes each of its system calls
//! fail in turn, `kills` kills it at random moments, `rivals` runs several at a time.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod faults;
mod kills;
mod rivals;
mod trust;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use weighbridge::checkpoint::{Checkpoint, CheckpointManager, State, list};
use weighbridge::model::{Config, ModelLoader, ModelSaver};
use weighbridge::trust::manifest::{HashOptions, IN_PASS, Recorded, VerifyOptions, hash, verify};
use weighbridge::versions::{AddOptions, VersionedModel};
use weighbridge::write::{ExecuteOptions, FileDigests, KernelCopy, execute};
use weighbridge::{
    Archive, ConvertOptions, DType, Data, Error, MemoryArchive, Precision, ReadOptions, Registry, Result,
    Tensor, WriteOptions,
};
use weighbridge_formats::save as save_archive;
use weighbridge_testkit::faults::traced;
use weighbridge_testkit::random::Random;

/// Tells a child what to do: a scenario and a folder.
const CHILD: &str = "WEIGHBRIDGE_FAULTS_CHILD";

/// A save that is to be whole at every fault.
struct Scenario {
    name: &'static str,
    /// Makes what is there before.
    before: fn(&Path) -> Result<()>,
    /// What is tested.
    save: fn(&Path) -> Result<()>,
    /// What is visible, as text that is the same for the same content. An error is a torn state.
    state: fn(&Path) -> std::result::Result<String, String>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "safetensors",
        before: |f| save(f, "m.safetensors", 1, None),
        save: |f| save(f, "m.safetensors", 2, None),
        state: files,
    },
    Scenario { name: "new", before: |_| Ok(()), save: |f| save(f, "m.safetensors", 2, None), state: files },
    Scenario {
        name: "torch",
        before: |f| save(f, "m.pt", 1, None),
        save: |f| save(f, "m.pt", 2, None),
        state: files,
    },
    Scenario {
        name: "shards",
        before: |f| save(f, "m.safetensors", 1, Some(100_000)),
        save: |f| save(f, "m.safetensors", 2, Some(100_000)),
        state: files,
    },
    Scenario { name: "onnx", before: |f| onnx(f, 1), save: |f| onnx(f, 2), state: files },
    Scenario {
        name: "in_place",
        before: |f| save(f, "m.safetensors", 1, None),
        save: |f| {
            let mut options = replacing();
            options.precision = Precision::to(DType::F16);
            weighbridge::convert_with(f.join("m.safetensors"), f.join("m.safetensors"), &options).map(drop)
        },
        state: files,
    },
    Scenario { name: "kernel", before: |f| save(f, "a.safetensors", 1, None), save: kernel, state: files },
    Scenario { name: "folder", before: |f| model(f, 1), save: |f| model(f, 2), state: manifested },
    Scenario {
        name: "checkpoint",
        before: |f| (1..=3).try_for_each(|step| checkpoint(f, step)),
        save: |f| checkpoint(f, 4),
        state: checkpoints,
    },
    Scenario {
        name: "version",
        before: |f| {
            std::fs::create_dir(f.join("source")).unwrap();
            model(&f.join("source"), 1)?;
            add(f)?;
            model(&f.join("source"), 2)
        },
        save: add,
        state: versions,
    },
    Scenario {
        name: "manifest",
        before: |f| recorded(f, 1),
        save: |f| recorded(f, 2),
        state: trust::recorded,
    },
    Scenario { name: "sign", before: trust::signed, save: trust::sign_again, state: trust::signature },
    Scenario {
        name: "encrypt",
        before: |f| trust::encrypted(f, "m.safetensors", 1),
        save: |f| trust::encrypt_again(f, "m.safetensors"),
        state: trust::inside,
    },
    Scenario {
        name: "encrypt_folder",
        before: |f| trust::encrypted(f, "plain", 1),
        save: |f| trust::encrypt_again(f, "plain"),
        state: trust::inside,
    },
    Scenario {
        name: "decrypt",
        before: trust::file_to_decrypt,
        save: |f| trust::decrypt_to(f, "m.safetensors"),
        state: files,
    },
    Scenario {
        name: "decrypt_folder",
        before: |f| trust::encrypted(f, "plain", 1),
        save: |f| trust::decrypt_to(f, "out"),
        state: files,
    },
    Scenario { name: "repair", before: trust::damaged, save: trust::repaired, state: files },
];

/// 16 MiB, which are killed and not traced: their system calls are those of a small file, many times.
const LARGE: Scenario =
    Scenario { name: "large", before: |f| large(f, 1.0), save: |f| large(f, 2.0), state: files };

fn large(folder: &Path, fill: f32) -> Result<()> {
    let bytes = fill.to_le_bytes().repeat(4 << 20);
    let weights =
        MemoryArchive::new([Tensor::new("w", DType::F32, [4 << 20].as_slice(), Data::Owned(bytes.into()))?])?;
    save_archive(&Registry::builtin(), &weights, &folder.join("m.safetensors"), &replacing()).map(drop)
}

fn quick() -> ConvertOptions<'static> {
    let mut options = ConvertOptions::default();
    options.threads = Some(2);
    options
}

fn replacing() -> ConvertOptions<'static> {
    let mut options = quick();
    options.overwrite = true;
    options
}

/// Three tensors, one of them larger than what a worker copies at a time.
fn weights(seed: u64) -> MemoryArchive<'static> {
    let mut random = Random::new(seed);
    let mut tensor = |name: &str, rows: u64| {
        let values = (0..rows * 64).flat_map(|_| (random.below(1000) as f32 / 8.0).to_le_bytes());
        Tensor::new(name, DType::F32, [rows, 64].as_slice(), Data::Owned(values.collect::<Vec<u8>>().into()))
            .expect("a tensor")
    };
    MemoryArchive::new([tensor("a", 200), tensor("b", 1300), tensor("c", 100)]).expect("names that differ")
}

fn save(folder: &Path, name: &str, seed: u64, shard: Option<u64>) -> Result<()> {
    let mut options = replacing();
    options.write.max_shard_size = shard;
    save_archive(&Registry::builtin(), &weights(seed), &folder.join(name), &options).map(drop)
}

/// A file with the manifest of it, both made in one pass.
fn recorded(folder: &Path, seed: u64) -> Result<()> {
    let complete = |staged: &Path, digests: &[FileDigests]| {
        let mut options = HashOptions::default();
        options.written = digests;
        let manifest = hash(&staged.join("m.safetensors"), &options)?.into_manifest()?;
        Ok(vec![("m.safetensors.weighbridge.json".to_owned(), manifest.to_text()?.into_bytes())])
    };
    let mut options = replacing();
    options.complete = Some(&complete);
    options.digests = Some(IN_PASS);
    save_archive(&Registry::builtin(), &weights(seed), &folder.join("m.safetensors"), &options).map(drop)
}

fn onnx(folder: &Path, seed: u64) -> Result<()> {
    let mut options = replacing();
    options.write.external_data = Some(true);
    let path = folder.join("m.onnx");
    save_archive(&Registry::builtin(), &weights(seed), &path, &options).map(drop)
}

/// Copies a file's tensors to another by the kernel.
fn kernel(folder: &Path) -> Result<()> {
    let registry = Registry::builtin();
    let source = registry.open_path(folder.join("a.safetensors"), &ReadOptions::default())?;
    let mut write = WriteOptions::default();
    write.file_name = "b.safetensors".into();
    let mut how = ExecuteOptions::default();
    (how.kernel_copy, how.threads) = (KernelCopy::Always, Some(2));
    execute(registry.serializer("safetensors")?.plan(&*source, &write)?, folder, &how).map(drop)
}

fn model(folder: &Path, seed: u64) -> Result<()> {
    let weights = weights(seed);
    ModelSaver::new(&weights)
        .config(Config::parse(format!(r#"{{"model_type": "mine", "seed": {seed}}}"#))?)
        .bytes("assets/labels.txt", format!("labels {seed}"))?
        .threads(2)
        .overwrite(true)
        .save(folder.join("model"))
        .map(drop)
}

fn checkpoint(folder: &Path, step: u64) -> Result<()> {
    let weights = weights(step);
    let mut manager = CheckpointManager::builder(folder.join("run")).keep_last(2).every_steps(1).build()?;
    manager.resume()?;
    manager.save(&State::new(&weights).at(0, step))?;
    manager.finish().map(drop)
}

fn add(folder: &Path) -> Result<()> {
    let model = VersionedModel::at(folder.join("registry/m"))?;
    model.add(&folder.join("source/model"), &AddOptions::default()).map(drop)
}

/// What the files hold.
fn files(folder: &Path) -> std::result::Result<String, String> {
    Ok(listing(folder, &|_| true))
}

/// What the files of a model hold, but its manifest, which has the time; it must fit them.
fn manifested(folder: &Path) -> std::result::Result<String, String> {
    let recorded = Recorded::find(&folder.join("model"), None).map_err(|e| e.to_string())?;
    let found = verify(&recorded, &VerifyOptions::default()).map_err(|e| e.to_string())?;
    if !found.is_same() {
        return Err(format!("the manifest does not fit: {found:?}"));
    }
    Ok(listing(folder, &|name| !name.ends_with("weighbridge.json")))
}

fn listing(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> String {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()) {
            let name = entry.strip_prefix(folder).unwrap().display().to_string();
            if entry.is_dir() {
                if !is_temporary(&entry) {
                    todo.push(entry);
                }
            } else if !is_temporary(&entry) && wanted(&name) {
                let bytes = std::fs::read(&entry).unwrap();
                let mut sum = DefaultHasher::new();
                sum.write(&bytes);
                let sum = sum.finish();
                found.insert(name, (bytes.len(), sum));
            }
        }
    }
    format!("{found:?}")
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with('.') && [".tmp", ".trash", ".old"].iter().any(|end| name.ends_with(end))
}

/// The newest checkpoint, where two or more are there and each verifies to the last bit. They hold the time, so bytes
/// differ between runs; and older ones go only after the new one is there, so there may be one more.
fn checkpoints(folder: &Path) -> std::result::Result<String, String> {
    let found = list(&folder.join("run"), &ReadOptions::default()).map_err(|e| e.to_string())?;
    let mut shown = Vec::new();
    for f in &found {
        if let Some(damage) = &f.damage {
            return Err(format!("{}: {damage}", f.path.display()));
        }
        let opened = Checkpoint::open(&f.path).and_then(|c| {
            c.verify()?;
            let read = c.weights()?;
            let same = same_tensors(&*read, &weights(f.step.unwrap_or_default()))?;
            Ok(same.then_some(f.step))
        });
        shown.push(opened.map_err(|e| format!("{}: {e}", f.path.display()))?);
    }
    let whole = shown.iter().all(Option::is_some) && shown.len() >= 2;
    let newest = shown.into_iter().max().flatten().flatten();
    if whole { Ok(format!("{newest:?}")) } else { Err("checkpoints are gone, or have other weights".into()) }
}

fn same_tensors(a: &dyn Archive, b: &dyn Archive) -> Result<bool> {
    for info in b.tensors() {
        if a.tensor(info.name())?.data.read_all()? != b.tensor(info.name())?.data.read_all()? {
            return Ok(false);
        }
    }
    Ok(a.tensors().len() == b.tensors().len())
}

/// The files of each version but the record, which has the time. Their numbers are no part of it: where the version
/// before cannot be read, nothing is compared with it, and the next is a major one.
fn versions(folder: &Path) -> std::result::Result<String, String> {
    let model = VersionedModel::at(folder.join("registry/m")).map_err(|e| e.to_string())?;
    let mut shown = Vec::new();
    for version in model.versions().map_err(|e| e.to_string())? {
        let at = model.folder_of(&version);
        let loaded = ModelLoader::new(&at).load().map_err(|e| format!("{version}: {e}"))?;
        let seed = shown.len() as u64 + 1;
        if !same_tensors(loaded.weights(), &weights(seed)).map_err(|e| e.to_string())? {
            return Err(format!("{version} has other weights"));
        }
        shown.push(format!("version {seed}: {}", listing(&at, &|name| !name.contains("weighbridge."))));
    }
    Ok(format!("{shown:?}"))
}

/// What the children do: the save once, under a tracer where the folder says so, or again and again.
#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    let task = std::env::var(CHILD).expect("only the other tests of this file run this one");
    let mut words = task.splitn(3, ' ');
    let mut next = || words.next().expect("three words");
    let (name, mode, folder) = (next(), next(), Path::new(next()));
    let save = scenario(name).save;
    let outcome = match mode {
        "traced" => traced(|| save(folder)),
        "once" => save(folder),
        other => panic!("unknown mode {other:?}"),
    };
    match outcome {
        Ok(()) => println!("OUTCOME saved"),
        Err(e) => println!("OUTCOME {}: {}", e.kind().as_str(), told(&e)),
    }
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text.replace('\n', " ")
}

fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS
        .iter()
        .chain([&LARGE])
        .find(|s| s.name == name)
        .unwrap_or_else(|| panic!("no scenario {name:?}"))
}

fn command(scenario: &Scenario, mode: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, format!("{} {mode} {}", scenario.name, folder.display()));
    command
}

/// A folder in memory where the system has one: thousands of saves wait for no disk then.
fn folder(on_disk: bool) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = (!on_disk && memory.is_dir()).then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
        let to = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy_folder(&entry, &to);
        } else {
            std::fs::copy(&entry, to).unwrap();
        }
    }
}

/// Temporaries in a folder and below.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()) {
            if is_temporary(&entry) {
                found.push(entry);
            } else if entry.is_dir() {
                todo.push(entry);
            }
        }
    }
    found
}
