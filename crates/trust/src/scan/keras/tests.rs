//! Configurations made by hand, as Keras 1 to 3 write them and as attackers have.

use serde_json::{Value, json};
use weighbridge_formats::Source;

use crate::scan::{FileReport, ScanOptions, Verdict, scan_source};

fn look(config: &Value) -> FileReport {
    let text = serde_json::to_vec(config).unwrap();
    scan_source("config.json", Source::from_bytes(text), &ScanOptions::default())
}

/// The worst verdict of a configuration, and the rules and names of its findings.
fn verdict(config: &Value) -> (Verdict, Vec<(&'static str, String)>) {
    let report = look(config);
    assert!(report.kinds.iter().any(|k| k == "keras"), "{:?}", report.kinds);
    (
        report.verdict,
        report.findings.iter().map(|f| (f.rule, f.callable.clone().unwrap_or_default())).collect(),
    )
}

fn layer(class: &str, config: &Value) -> Value {
    json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null})
}

fn model(layer: &Value) -> Value {
    json!({"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [layer]}, "registered_name": null})
}

#[test]
fn models_of_keras_own_parts_are_clean() {
    let dense = layer(
        "Dense",
        &json!({
            "units": 3, "activation": "relu", "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": null},
            "kernel_initializer": {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": null}, "registered_name": null},
            "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        }),
    );
    assert_eq!(verdict(&model(&dense)), (Verdict::Clean, vec![]));
    let compiled = json!({"class_name": "Functional", "config": {"layers": []}, "compile_config": {
        "optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {"learning_rate": 0.001}},
        "loss": {"module": "keras.losses", "class_name": "MeanSquaredError", "config": {}},
        "metrics": [{"class_name": "MeanMetricWrapper", "config": {"fn": "mean_absolute_error"}},
                    {"module": "builtins", "class_name": "function", "config": "sparse_categorical_accuracy"}],
        "slice": {"class_name": "__slice__", "config": {"start": 0, "stop": null, "step": 1}},
        "value": {"class_name": "__numpy__", "config": {"value": [1], "dtype": "int64"}},
        "spec": {"class_name": "__typespec__", "spec_name": "TensorSpec", "module": "tensorflow.python.framework.tensor", "config": [[1], "float32"], "registered_name": null}}});
    assert_eq!(verdict(&compiled), (Verdict::Clean, vec![]));
    let old = json!({"class_name": "Model", "config": {"layers": [
        {"class_name": "TFOpLambda", "config": {"function": "math.add"}}, {"class_name": "LSTM", "config": {"units": 1}},
        {"class_name": "TensorFlowOpLayer", "config": {"node_def": "{\"name\": \"x\", \"op\": \"AddV2\"}"}}]}});
    assert_eq!(verdict(&old), (Verdict::Clean, vec![]));
}

#[test]
fn lambdas_are_code_in_every_spelling() {
    let code = "4wEAAAAAAAAAAAAAAAEAAAABAAAAUwAAAHMEAAAA\n";
    let cases = [
        model(&layer(
            "Lambda",
            &json!({"function": [code, null, null], "function_type": "lambda", "module": "__main__"}),
        )),
        model(&layer(
            "Lambda",
            &json!({"function": {"class_name": "__lambda__", "config": {"code": code, "defaults": null, "closure": null}}}),
        )),
        model(&layer(
            "Dense",
            &json!({"activation": {"class_name": "__lambda__", "config": {"value": code}}}),
        )),
        json!({"class_name": "Merge", "config": {"mode": code, "mode_type": "lambda"}}),
        model(&layer(
            "Lambda",
            &json!({"function": {"class_name": "function", "module": "builtins", "config": "relu"}, "output_shape": [code], "output_shape_type": "lambda"}),
        )),
        json!([{"class_name": "Lambda", "config": {"function": [code, null, null]}}]),
        json!({"modelTopology": {"model_config": {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": {"function": code, "function_type": "lambda"}}]}}}),
    ];
    for config in cases {
        let (worst, found) = verdict(&config);
        assert_eq!(worst, Verdict::Dangerous, "{config}");
        assert!(found.iter().any(|(rule, _)| *rule == "keras-lambda"), "{config}: {found:?}");
    }
}

#[test]
fn callables_from_elsewhere_are_dangerous_and_named() {
    let function = |module: &str, name: &str| json!({"module": module, "class_name": "function", "config": name, "registered_name": name});
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("subprocess", "run"),
        ("keras.utils", "get_file"),
        ("keras.models", "load_model"),
        ("keras.saving", "deserialize_keras_object"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("posix", "system"),
    ] {
        let (worst, found) = verdict(&model(&layer(
            "Lambda",
            &json!({"function": function(module, name), "arguments": {"command": "id"}}),
        )));
        assert_eq!(
            (worst, found),
            (Verdict::Dangerous, vec![("keras-callable", format!("{module}.{name}"))])
        );
    }
    let class = json!({"module": "subprocess", "class_name": "Popen", "config": {"args": ["echo"]}, "registered_name": "x>Popen"});
    assert_eq!(
        verdict(&model(&class)),
        (Verdict::Dangerous, vec![("keras-callable", "subprocess.Popen".into())])
    );
    let loads = [
        layer("TFSMLayer", &json!({"filepath": "/srv/model"})),
        layer("TorchModuleWrapper", &json!({"module": "gAJ9cQAu"})),
        layer("StringLookup", &json!({"vocabulary": "/etc/passwd"})),
        layer("TextVectorization", &json!({"vocabulary": "https://example.com/v.txt"})),
        json!({"class_name": "TensorFlowOpLayer", "config": {"node_def": {"op": "ReadFile"}}}),
    ];
    for config in &loads {
        assert_eq!(verdict(&model(config)).0, Verdict::Dangerous, "{config}");
    }
    let twice = br#"{"class_name": "Dense", "config": {}, "class_name": "Lambda"}"#;
    let report = scan_source("config.json", Source::from_bytes(&twice[..]), &ScanOptions::default());
    assert_eq!(report.verdict, Verdict::Dangerous, "{:?}", report.findings);
}

#[test]
fn what_a_user_made_is_unknown_and_named() {
    let cases = [
        (json!({"module": null, "class_name": "Mine", "config": {}, "registered_name": "pkg>Mine"}), "Mine"),
        (
            json!({"module": "mine.layers", "class_name": "Mine", "config": {}, "registered_name": "Mine"}),
            "mine.layers.Mine",
        ),
        (json!({"class_name": "Mine", "config": {}}), "Mine"),
        (
            json!({"module": "keras_hub.layers", "class_name": "Rotary", "config": {}, "registered_name": null}),
            "keras_hub.layers.Rotary",
        ),
        (
            json!({"module": "mine", "class_name": "function", "config": "loss", "registered_name": "loss"}),
            "mine.loss",
        ),
        (layer("TFOpLambda", &json!({"function": "io.read_file"})), "tensorflow.io.read_file"),
        (layer("StringLookup", &json!({"vocabulary": "vocab.txt"})), "StringLookup"),
        (layer("MeanMetricWrapper", &json!({"fn": "my_metric"})), "my_metric"),
        (layer("Lambda", &json!({"function": "my_function", "function_type": "function"})), "my_function"),
    ];
    for (config, name) in cases {
        assert_eq!(
            verdict(&model(&config)),
            (Verdict::Unknown, vec![("keras-callable", name.into())]),
            "{config}"
        );
    }
    let foreign = json!({"module": "mine.layers", "class_name": "Mine", "config": {}});
    assert_eq!(verdict(&model(&foreign)).0, Verdict::Dangerous, "imported though nobody registered it");
}

#[test]
fn json_bombs_cost_nothing_and_are_not_clean() {
    for text in [format!("{{\"class_name\": {}", "[".repeat(5 << 20)), "{\"a\":".repeat(1 << 20)] {
        let report = scan_source("config.json", Source::from_bytes(text), &ScanOptions::default());
        assert_eq!(report.verdict, Verdict::Unknown, "{:?}", report.findings);
    }
}
