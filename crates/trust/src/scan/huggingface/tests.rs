//! The files of a model's folder, made by hand.

use weighbridge_formats::Source;

use crate::scan::{FileReport, ScanOptions, Severity, Verdict, scan, scan_source};

fn look(name: &str, text: &str) -> FileReport {
    scan_source(name, Source::from_bytes(text), &ScanOptions::default())
}

fn verdict(name: &str, text: &str) -> (Verdict, Vec<&'static str>) {
    let report = look(name, text);
    (report.verdict, report.findings.iter().map(|f| f.rule).collect())
}

#[test]
fn the_configs_of_ordinary_models_are_clean() {
    let clean = [
        (
            "config.json",
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "_name_or_path": "meta/llama", "rope_scaling": null, "attn_implementation": "sdpa", "eps": 1e-6, "x": NaN}"#,
        ),
        ("config.json", "{}"),
        ("generation_config.json", r#"{"do_sample": true, "trust_remote_code": false}"#),
        (
            "model_index.json",
            r#"{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30", "unet": ["diffusers", "UNet2DConditionModel"], "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "text_encoder": ["transformers", "CLIPTextModel"], "image_encoder": [null, null]}"#,
        ),
        (
            "modules.json",
            r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#,
        ),
        (
            "1_Dense/config.json",
            r#"{"in_features": 4, "activation_function": "torch.nn.modules.activation.Tanh"}"#,
        ),
        (
            "adapter_config.json",
            r#"{"peft_type": "LORA", "base_model_name_or_path": "x/y", "auto_mapping": null}"#,
        ),
        (
            "adapter_config.json",
            r#"{"auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}}"#,
        ),
        (
            "model.safetensors.index.json",
            r#"{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "sub/x.safetensors"}}"#,
        ),
        (
            "tokenizer_config.json",
            r#"{"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{% for m in messages %}{{ m['role'] }}{% endfor %}"}"#,
        ),
        (
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "{{ tools|tojson }}"}]}"#,
        ),
        (
            "schema.json",
            r#"{"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {"a": {"__class__": "LogisticRegression", "__module__": "sklearn.linear_model._logistic", "__loader__": "ObjectNode"}}}"#,
        ),
    ];
    for (name, text) in clean {
        assert_eq!(verdict(name, text), (Verdict::Clean, vec![]), "{name}: {text}");
    }
}

#[test]
fn configs_that_ask_for_code_are_not_clean() {
    let cases = [
        (
            "config.json",
            r#"{"auto_map": {"AutoConfig": "configuration_x.XConfig"}}"#,
            Verdict::Dangerous,
            "configuration_x.XConfig",
        ),
        (
            "config.json",
            r#"{"auto_map": {"AutoModel": "user/repo--modeling_x.XModel"}}"#,
            Verdict::Dangerous,
            "user/repo--modeling_x.XModel",
        ),
        (
            "tokenizer_config.json",
            r#"{"auto_map": {"AutoTokenizer": ["tok.Slow", null]}}"#,
            Verdict::Dangerous,
            "tok.Slow",
        ),
        (
            "config.json",
            r#"{"vision_config": {"auto_map": {"AutoModel": "a.B"}}}"#,
            Verdict::Dangerous,
            "a.B",
        ),
        (
            "config.json",
            r#"{"custom_pipelines": {"text": {"impl": "pipe.Pipe", "pt": ["AutoModel"]}}}"#,
            Verdict::Dangerous,
            "pipe.Pipe",
        ),
        ("config.json", r#"{"trust_remote_code": true}"#, Verdict::Unknown, "trust_remote_code"),
        ("generation_config.json", r#"{"custom_generate": "user/repo"}"#, Verdict::Dangerous, "user/repo"),
        (
            "config.json",
            r#"{"_attn_implementation": "kernels-community/attn"}"#,
            Verdict::Unknown,
            "kernels-community/attn",
        ),
        ("model_index.json", r#"{"_class_name": ["pipeline", "Mine"]}"#, Verdict::Dangerous, "pipeline.Mine"),
        ("model_index.json", r#"{"unet": ["my_package", "Unet"]}"#, Verdict::Unknown, "my_package.Unet"),
        ("model_index.json", r#"{"unet": ["os", "system"]}"#, Verdict::Dangerous, "os.system"),
        (
            "modules.json",
            r#"[{"idx": 0, "path": "", "type": "modeling.Mine"}]"#,
            Verdict::Unknown,
            "modeling.Mine",
        ),
        (
            "modules.json",
            r#"[{"idx": 0, "path": "", "type": "subprocess.Popen"}]"#,
            Verdict::Dangerous,
            "subprocess.Popen",
        ),
        ("2_Dense/config.json", r#"{"activation_function": "os.system"}"#, Verdict::Dangerous, "os.system"),
        (
            "adapter_config.json",
            r#"{"auto_mapping": {"base_model_class": "X", "parent_library": "pty"}}"#,
            Verdict::Dangerous,
            "pty.X",
        ),
    ];
    for (name, text, wanted, callable) in cases {
        let report = look(name, text);
        assert_eq!(report.verdict, wanted, "{text}: {:#?}", report.findings);
        let found = &report.findings[0];
        assert_eq!((found.rule, found.callable.as_deref()), ("remote-code", Some(callable)), "{text}");
        assert!(found.place.offset.is_some());
    }
    let skops =
        look("schema.json", r#"{"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}"#);
    assert_eq!(
        (skops.verdict, skops.findings[0].callable.as_deref()),
        (Verdict::Dangerous, Some("os.system"))
    );
}

#[test]
fn names_that_leave_the_folder_are_found() {
    for (name, text) in [
        ("model.safetensors.index.json", r#"{"weight_map": {"a": "a/../../secret"}}"#),
        ("pytorch_model.bin.index.json", r#"{"weight_map": {"a": "/etc/passwd"}}"#),
        ("any.json", r#"{"weight_map": {"a": "x\u0000y"}}"#),
        ("modules.json", r#"[{"path": "../other", "type": "sentence_transformers.models.Transformer"}]"#),
        ("config.json", r#"{"auto_map": {"AutoModel": "../../x.Model"}}"#),
    ] {
        let (worst, rules) = verdict(name, text);
        assert_eq!(worst, Verdict::Dangerous, "{text}");
        assert!(rules.contains(&"path-escape"), "{text}: {rules:?}");
    }
}

#[test]
fn templates_are_looked_at_wherever_they_stand() {
    let text = "{{ x.__class__ }}";
    let cases = [
        ("tokenizer_config.json", format!("{{\"chat_template\": \"{text}\"}}")),
        (
            "processor_config.json",
            format!("{{\"chat_template\": [{{\"name\": \"a\", \"template\": \"{text}\"}}]}}"),
        ),
        ("chat_template.json", format!("{{\"chat_template\": {{\"default\": \"{text}\"}}}}")),
        ("chat_template.jinja", text.to_owned()),
    ];
    for (name, content) in cases {
        assert_eq!(verdict(name, &content), (Verdict::Dangerous, vec!["template"]), "{name}");
    }
}

#[test]
fn code_beside_a_model_is_named_and_its_file_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("config.json", r#"{"auto_map": {"AutoModel": "modeling.Model", "AutoConfig": "missing.Config"}}"#);
    write("modeling.py", "class Model: pass\n");
    write("requirements.txt", "numpy\n");
    write("modules.json", r#"[{"type": "modeling.Model", "path": ""}]"#);
    let report = scan(&[folder.path().to_owned()], &ScanOptions::default()).unwrap();
    let told: Vec<_> = report.findings().map(|f| f.what.as_str()).collect::<Vec<_>>();
    assert!(told.iter().any(|t| t.contains("in modeling.py beside this file")), "{told:#?}");
    assert!(told.iter().any(|t| t.contains("missing.py is not here")), "{told:#?}");
    let worst = |name: &str| report.files.iter().find(|f| f.path.ends_with(name)).map(|f| f.verdict);
    assert_eq!(worst("modules.json"), Some(Verdict::Dangerous));
    for name in ["modeling.py", "requirements.txt"] {
        let file = report.files.iter().find(|f| f.path.ends_with(name)).unwrap();
        assert_eq!((file.verdict, file.findings[0].severity), (Verdict::Clean, Severity::Info), "{name}");
    }
}
