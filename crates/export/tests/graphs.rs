//! Exports without a runtime: what a graph looks like, and what is refused with which words.

use std::path::Path;

use serde_json::{Value as Json, json};
use weighbridge_export::graph::{AttentionHeads, Dim, GraphBuilder};
use weighbridge_export::{Export, ExportOptions, Task, export, known_architectures};
use weighbridge_formats::backends::onnx::proto::{DimensionValue, NodeProto, TypeValue, ValueInfoProto};
use weighbridge_formats::transform::OnOverflow;
use weighbridge_formats::{
    ConvertOptions, DType, Data, Error, ErrorKind, MemoryArchive, Registry, Result, Tensor, save,
};
use weighbridge_model::{Config, Model, ModelLoader, architecture};

/// A folder with a config, and with the weights that it asks for, all of this number.
fn folder(config: &Json, number: f32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let known = architecture(&Config::parse(config.to_string()).unwrap()).expect("a known class");
    let alias = |name: &str| known.ties.iter().any(|t| &*t.alias == name);
    let tensors = known.expected.iter().filter(|(name, t)| t.required && !alias(name)).map(|(name, t)| {
        let shape = t.shape.clone().expect("a shape");
        let elements: u64 = shape.iter().product();
        let bytes: Vec<u8> = (0..elements).flat_map(|_| number.to_le_bytes()).collect();
        Tensor::new(name, DType::F32, shape, Data::Owned(bytes.into())).unwrap()
    });
    let archive = MemoryArchive::new(tensors).unwrap();
    let path = folder.path().join("model.safetensors");
    save(&Registry::builtin(), &archive, &path, &ConvertOptions::default()).unwrap();
    folder
}

fn load(folder: &Path) -> Model {
    ModelLoader::new(folder).report_only().load().unwrap()
}

/// Puts fields over those of a config.
fn extend(config: &mut Json, over: Json) {
    let (Json::Object(config), Json::Object(over)) = (config, over) else { panic!("objects") };
    config.extend(over);
}

fn bert(class: &str, over: Json) -> Json {
    let mut config = json!({
        "model_type": "bert", "architectures": [class], "vocab_size": 20, "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
        "max_position_embeddings": 16, "type_vocab_size": 2, "pad_token_id": 0,
    });
    extend(&mut config, over);
    config
}

fn llama(over: Json) -> Json {
    let mut config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 20, "hidden_size": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    });
    extend(&mut config, over);
    config
}

fn with(change: impl FnOnce(&mut ExportOptions)) -> ExportOptions {
    let mut options = ExportOptions::default();
    change(&mut options);
    options
}

/// A value's shape as text.
fn shape(info: &ValueInfoProto) -> String {
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        panic!("no tensor")
    };
    let dims = tensor.shape.as_ref().unwrap().dim.iter().map(|d| match d.value.as_ref().unwrap() {
        DimensionValue::DimValue(n) => n.to_string(),
        DimensionValue::DimParam(s) => s.clone(),
    });
    dims.collect::<Vec<_>>().join(", ")
}

fn signature(infos: &[ValueInfoProto]) -> Vec<String> {
    infos.iter().map(|i| format!("{} [{}]", i.name.as_deref().unwrap(), shape(i))).collect()
}

fn nodes<'e>(export: &'e Export<'_>, op: &str) -> Vec<&'e NodeProto> {
    let nodes = &export.model.graph.as_ref().unwrap().node;
    nodes.iter().filter(|n| n.op_type.as_deref() == Some(op)).collect()
}

fn refused(config: &Json, options: &ExportOptions) -> Error {
    let folder = folder(config, 0.1);
    let model = load(folder.path());
    export(&model, options).err().expect("an error")
}

#[test]
fn inputs_and_outputs_have_the_names_and_shapes_that_users_know() {
    let made = folder(&bert("BertForQuestionAnswering", json!({})), 0.1);
    let model = load(made.path());
    let export = export(&model, &ExportOptions::default()).unwrap();
    let graph = export.model.graph.as_ref().unwrap();
    let inputs = ["input_ids", "attention_mask", "token_type_ids"];
    assert_eq!(signature(&graph.input), inputs.map(|i| format!("{i} [batch_size, sequence_length]")));
    let outputs = ["start_logits", "end_logits"];
    assert_eq!(signature(&graph.output), outputs.map(|o| format!("{o} [batch_size, sequence_length]")));
    assert_eq!(export.task, Task::QuestionAnswering, "by the class");
    let first = &nodes(&export, "MatMul")[0];
    assert_eq!(first.name.as_deref(), Some("/encoder/layer.0/attention/query/MatMul"));
    let weights: Vec<&str> = export.weights.tensors().iter().map(|t| t.name()).collect();
    assert!(weights.contains(&"bert.encoder.layer.0.attention.self.query.weight"));
}

#[test]
fn a_cache_and_fixed_sizes_show_in_the_shapes() {
    let made = folder(&llama(json!({})), 0.1);
    let model = load(made.path());
    let options = with(|o| {
        o.task = Some(Task::TextGenerationWithPast);
        o.batch_size = Some(2);
    });
    for (opset, past) in [(20, None), (23, None), (17, Some(5))] {
        let mut options = options.clone();
        (options.opset, options.past_sequence_length) = (opset, past);
        let export = export(&model, &options).unwrap();
        let graph = export.model.graph.as_ref().unwrap();
        let past = past.map_or("past_sequence_length".to_owned(), |n| n.to_string());
        let total = format!("{past} + sequence_length");
        let inputs = signature(&graph.input);
        assert_eq!(inputs[1], format!("attention_mask [2, {total}]"));
        assert_eq!(inputs[3], format!("past_key_values.0.key [2, 1, {past}, 4]"));
        assert_eq!(inputs.len(), 7);
        let mut outputs = signature(&graph.output);
        outputs.sort();
        assert_eq!(outputs[0], "logits [2, sequence_length, 20]");
        assert_eq!(outputs[4], format!("present.1.value [2, 1, {total}, 4]"));
        assert_eq!(nodes(&export, "Attention").len(), if opset >= 23 { 2 } else { 0 });
    }
    let short = with(|o| {
        o.task = Some(Task::TextGeneration);
        o.past_sequence_length = Some(3);
    });
    let error = export(&model, &short).err().unwrap().to_string();
    assert!(error.contains("text-generation has none"), "{error}");
}

#[test]
fn tied_weights_are_there_once() {
    for (config, tied) in [
        (llama(json!({ "tie_word_embeddings": true })), "model.embed_tokens.weight"),
        (bert("BertForMaskedLM", json!({})), "bert.embeddings.word_embeddings.weight"),
    ] {
        let made = folder(&config, 0.1);
        let model = load(made.path());
        let export = export(&model, &ExportOptions::default()).unwrap();
        let vocabulary: Vec<&str> =
            export.weights.tensors().iter().filter(|t| t.shape() == [20, 8]).map(|t| t.name()).collect();
        assert_eq!(vocabulary, [tied]);
        assert!(export.notes.iter().all(|n| !n.text.contains("not part")), "{:?}", export.notes);
    }
}

#[test]
fn what_a_graph_leaves_out_is_said() {
    let made = folder(&bert("BertForMaskedLM", json!({})), 0.1);
    let model = load(made.path());
    let export = export(&model, &with(|o| o.task = Some(Task::FeatureExtraction))).unwrap();
    let note = &export.notes.iter().find(|n| n.text.contains("not part of this graph")).unwrap().text;
    assert!(note.contains("cls.predictions.bias") && note.contains("more"), "{note}");
}

#[test]
fn weights_that_do_not_fit_are_an_error_or_stay_wide() {
    let made = folder(&bert("BertModel", json!({})), 1e6);
    let model = load(made.path());
    let narrow = |overflow| {
        with(|o| {
            o.dtype = DType::F16;
            o.on_overflow = overflow;
        })
    };
    let strict = export(&model, &narrow(OnOverflow::Error)).unwrap();
    let error = strict.write(made.path(), Default::default(), &Default::default()).unwrap_err();
    assert!(error.tensor().is_some(), "{error:?}");
    let kept = export(&model, &narrow(OnOverflow::KeepWide)).unwrap();
    assert!(!kept.kept_wide.is_empty());
    assert!(kept.notes.iter().any(|n| n.text.contains("stays F32")), "{:?}", kept.notes);
    assert!(nodes(&kept, "Cast").len() >= kept.kept_wide.len(), "each is cast in the graph");
}

#[test]
fn what_is_not_known_is_refused_with_what_is() {
    let plain = ExportOptions::default();
    let task = |task| with(|o| o.task = Some(task));
    let cases = [
        (bert("BertModel", json!({ "hidden_act": "mish" })), plain.clone(), "known are gelu, "),
        (bert("BertModel", json!({ "num_attention_heads": 3 })), plain.clone(), "3 heads do not divide"),
        (bert("BertModel", json!({ "num_attention_heads": "2" })), plain.clone(), "should be a whole number"),
        (bert("BertModel", json!({ "is_decoder": true })), plain.clone(), "is_decoder is true"),
        (bert("BertModel", json!({ "hidden_size": 16 })), plain.clone(), "the config makes it"),
        (bert("BertModel", json!({})), task(Task::TextGeneration), "known are feature-extraction"),
        (bert("BertModel", json!({})), task(Task::FillMask), "the weights have no tensor of this name"),
        (bert("BertModel", json!({})), with(|o| o.opset = 16), "known are 17 to 26"),
        (bert("BertModel", json!({})), with(|o| o.opset = 27), "known are 17 to 26"),
        (bert("BertModel", json!({})), with(|o| o.dtype = DType::I8), "known are F32, F16 and BF16"),
        (bert("BertModel", json!({})), with(|o| o.sequence_length = Some(0)), "sequence length of 0"),
        (llama(json!({ "rope_scaling": { "type": "spiral" } })), plain.clone(), "known are default, linear"),
        (llama(json!({ "num_hidden_layers": 100_000 })), plain.clone(), "up to 2048"),
        (llama(json!({ "head_dim": 1 << 30 })), plain, "up to 65536 elements"),
    ];
    for (config, options, part) in cases {
        let made = folder(
            &if config["model_type"] == "llama" { llama(json!({})) } else { bert("BertModel", json!({})) },
            0.1,
        );
        std::fs::write(made.path().join("config.json"), config.to_string()).unwrap();
        let model = load(made.path());
        let error = export(&model, &options).err().unwrap_or_else(|| panic!("{config}"));
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let other = bert("BertModel", json!({ "hidden_act": "gelu" }));
    let error = refused(&other, &with(|o| o.task = Some(Task::TextGenerationWithPast)));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let made = folder(&other, 0.1);
    std::fs::write(
        made.path().join("config.json"),
        "{\"model_type\": \"mamba\", \"architectures\": [\"MambaModel\"]}",
    )
    .unwrap();
    let error = export(&load(made.path()), &ExportOptions::default()).err().unwrap().to_string();
    assert!(known_architectures().all(|known| error.contains(known) || known == "layers"), "{error}");
    assert!(Task::parse("summarization").unwrap_err().to_string().contains("known are feature-extraction"));
    for task in Task::ALL {
        assert_eq!(Task::parse(task.as_str()).unwrap(), *task);
    }
}

/// A missing weight is named, with the place that needs it.
#[test]
fn the_builder_says_what_is_wrong_and_where() {
    let weight = Tensor::new("w", DType::F32, [3, 2].as_slice(), Data::Borrowed(&[0; 24])).unwrap();
    let ids = Tensor::new("ids", DType::I64, [1].as_slice(), Data::Borrowed(&[0; 8])).unwrap();
    let weights = MemoryArchive::new([weight, ids]).unwrap();
    let mut g = GraphBuilder::new(&weights, 20, DType::F32).unwrap();
    let x = g.input("x", DType::F32, &["batch".into(), Dim::Fixed(2)]).unwrap();
    let error = g.scoped("encoder", |g| g.linear(&x, "v", None, 3)).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::NotFound, Some("v")));
    assert!(error.to_string().contains("/encoder needs it"), "{error}");
    let int = g.int(1);
    let wide = g.input("wide", DType::F32, &["batch".into(), Dim::Fixed(3)]).unwrap();
    let heads = AttentionHeads { queries: 1, shared: 1, size: 2, scale: 1.0 };
    let refusals: Vec<Result<_>> = vec![
        g.linear(&x, "w", None, 4),
        g.linear(&wide, "w", None, 3),
        g.weight("ids", &[1]),
        g.add(&x, &int),
        g.add(&x, &wide),
        g.matmul(&x, &wide),
        g.transpose(&x, &[0, 0]),
        g.reshape(&x, &[7]),
        g.pick(&x, 1, 2),
        g.softmax(&int, -1),
        g.concat(&[&x, &int], 0),
        g.concat(&[], 0),
        g.squeeze(&x, 1),
        g.slice(&x, 1, 1, 3),
        g.select(&x, &x, &x),
        g.split(&x, &[1, 2], 1).map(|mut parts| parts.remove(0)),
        g.input("x", DType::F32, &[]),
        g.input("w", DType::F32, &[]),
        g.attention([&x, &x, &x], &x, None, &heads).map(|(y, _)| y),
        g.rotary_embedding(&x, &x, &x, 1),
    ];
    for (i, refusal) in refusals.into_iter().enumerate() {
        assert_eq!(refusal.err().map(|e| e.kind()), Some(ErrorKind::Mismatch), "refusal {i}");
    }
    assert!(g.output("x", &x).is_err(), "the name is an input's");
    assert!(GraphBuilder::new(&weights, 20, DType::F32).unwrap().finish("empty").is_err());
    let y = g.linear(&x, "w", None, 3).unwrap();
    g.output("y", &y).unwrap();
    g.output("z", &y).unwrap();
    let graph = g.finish("two names").unwrap().graph.unwrap();
    assert_eq!(signature(&graph.output), ["y [batch, 3]", "z [batch, 3]"]);
    assert_eq!(graph.node.last().unwrap().op_type.as_deref(), Some("Identity"));
}

/// Whatever a config says, there is a graph or an error, and soon.
#[test]
fn no_config_makes_a_panic_or_a_long_wait() {
    let odd = [
        json!(null),
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(0.5),
        json!(1e308),
        json!(u64::MAX),
        json!(1u64 << 31),
        json!(true),
        json!("x"),
        json!([]),
        json!([1, "x"]),
        json!({}),
        json!({ "a": { "b": 1 } }),
    ];
    let llama_like = |family: &str, class: &str, over: Json| {
        let mut config = llama(json!({ "model_type": family, "architectures": [class] }));
        extend(&mut config, over);
        config
    };
    let configs = [
        bert(
            "BertForMaskedLM",
            json!({ "tie_word_embeddings": true, "hidden_act": "gelu", "layer_norm_eps": 1e-5 }),
        ),
        json!({
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 20, "n_embd": 8, "n_layer": 1,
            "n_head": 2, "n_positions": 16, "n_inner": 12, "layer_norm_epsilon": 1e-5, "scale_attn_weights": true,
            "scale_attn_by_inverse_layer_idx": true, "activation_function": "gelu_new",
        }),
        json!({
            "model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": 20,
            "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16, "num_labels": 2,
            "id2label": { "0": "a", "1": "b" },
        }),
        llama_like("mistral", "MistralForCausalLM", json!({ "sliding_window": 4, "head_dim": 4 })),
        llama_like(
            "qwen2",
            "Qwen2ForCausalLM",
            json!({
                "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1,
                "layer_types": ["full_attention", "sliding_attention"], "tie_word_embeddings": true,
            }),
        ),
        llama_like(
            "llama",
            "LlamaForSequenceClassification",
            json!({
                "pad_token_id": 0, "num_labels": 2, "attention_bias": false, "rope_scaling": {
                    "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8, "beta_fast": 32,
                },
            }),
        ),
        llama_like(
            "llama",
            "LlamaForCausalLM",
            json!({ "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10.0, "short_factor": [1.0, 2.0], "long_factor": [1.0, 2.0],
            "original_max_position_embeddings": 8, "attention_factor": 1.0,
        } }),
        ),
        llama_like(
            "llama",
            "LlamaForCausalLM",
            json!({ "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10.0, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        } }),
        ),
        llama_like(
            "llama",
            "LlamaForCausalLM",
            json!({ "rope_parameters": { "rope_type": "dynamic", "factor": 2.0 } }),
        ),
    ];
    let (mut graphs, mut errors) = (0, 0);
    let mut attempt = |folder: &Path, config: &Json| {
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let Ok(model) = ModelLoader::new(folder).report_only().load() else { return };
        for (task, opset) in [(None, 17), (Some(Task::TextGenerationWithPast), 26)] {
            let options = with(|o| (o.task, o.opset) = (task, opset));
            match export(&model, &options) {
                Ok(_) => graphs += 1,
                Err(error) => {
                    assert!(!error.message().is_empty());
                    errors += 1;
                }
            }
        }
    };
    for config in &configs {
        let made = folder(config, 0.1);
        let model = load(made.path());
        export(&model, &ExportOptions::default()).unwrap_or_else(|e| panic!("{config}: {e}"));
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        for (key, value) in keys.iter().flat_map(|k| odd.iter().map(move |v| (k, v))) {
            let mut changed = config.clone();
            changed[key.as_str()] = value.clone();
            attempt(made.path(), &changed);
            for inner in ["rope_scaling", "rope_parameters"] {
                let Some(rope) = config[inner].as_object().filter(|_| key == inner) else { continue };
                for part in rope.keys() {
                    let mut changed = config.clone();
                    changed[inner][part.as_str()] = value.clone();
                    attempt(made.path(), &changed);
                }
            }
        }
    }
    assert!(graphs > 500 && errors > 500, "{graphs} graphs, {errors} errors");
}
