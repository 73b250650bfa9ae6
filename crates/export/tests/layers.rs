//! Lists of layers whose configs say odd things: an error each time, or a graph, and never more than that.

use serde_json::{Value, json};
use weighbridge_export::{ExportOptions, export_layers, known_layers};
use weighbridge_formats::{DType, Data, MemoryArchive, Tensor};

fn weights() -> MemoryArchive<'static> {
    let tensor = |name: &str, shape: &[u64]| {
        let bytes = vec![0; shape.iter().product::<u64>() as usize * 4];
        Tensor::new(name, DType::F32, shape, Data::Owned(bytes.into())).unwrap()
    };
    MemoryArchive::new([
        tensor("linear.weight", &[4, 4]),
        tensor("norm.weight", &[4]),
        tensor("norm.bias", &[4]),
        tensor("norm.running_mean", &[4]),
        tensor("norm.running_var", &[4]),
        tensor("1.weight", &[4, 4, 1]),
        tensor("2.weight", &[4, 4, 3, 3]),
        tensor("3.weight", &[4, 4, 2, 2, 2]),
    ])
    .unwrap()
}

/// The input and the name of weights that a layer takes.
fn setting(kind: &str) -> (Value, &'static str) {
    let rank = kind.strip_suffix('d').and_then(|k| k.chars().last()).filter(char::is_ascii_digit);
    let (shape, conv) = match rank {
        Some('1') => (json!(["batch", 4, 9]), "1"),
        Some('3') => (json!(["batch", 4, 9, 9, 9]), "3"),
        Some(_) => (json!(["batch", 4, 9, "width"]), "2"),
        None => (json!(["batch", 4]), "linear"),
    };
    (shape, if kind.contains("Norm") { "norm" } else { conv })
}

fn build(layers: &Value, shape: &Value) -> Result<(), String> {
    let config = json!({ "inputs": [{ "name": "x", "shape": shape }], "layers": layers });
    let weights = weights();
    match export_layers(&weights, config.as_object().unwrap(), &ExportOptions::default()) {
        Ok(export) => {
            assert!(!export.outputs.is_empty());
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn odd_arguments_are_errors_or_graphs() {
    let odd = [
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(2_147_483_648_u64),
        json!(u64::MAX),
        json!(1.5),
        json!(1e300),
        json!("x"),
        json!(null),
        json!([]),
        json!([1, 2, 3, 4, 5]),
        json!([u64::MAX, 0, -1]),
        json!(true),
        json!({}),
    ];
    let arguments = [
        "stride",
        "padding",
        "dilation",
        "groups",
        "output_padding",
        "kernel_size",
        "ceil_mode",
        "count_include_pad",
        "output_size",
        "eps",
        "num_groups",
        "dim",
        "keepdim",
        "start_dim",
        "approximate",
        "negative_slope",
        "alpha",
        "p",
        "with",
        "from",
        "as",
        "name",
        "surprise",
    ];
    let (mut built, mut refused) = (0, 0);
    for kind in known_layers() {
        let (shape, name) = setting(kind);
        for argument in arguments {
            for value in &odd {
                let mut layer = json!({ "type": kind });
                let takes_name = name != "linear" || kind == "Linear";
                if takes_name && !kind.contains("Pool") {
                    layer["name"] = name.into();
                }
                if kind.contains("Pool") {
                    layer[if kind.starts_with("Adaptive") { "output_size" } else { "kernel_size" }] =
                        json!(1);
                }
                if kind == "GroupNorm" {
                    layer["num_groups"] = json!(2);
                }
                layer[argument] = value.clone();
                match build(&json!([layer]), &shape) {
                    Ok(()) => built += 1,
                    Err(error) => {
                        assert!(
                            error.contains("layer 0") || error.contains("value is called"),
                            "{layer}: {error}"
                        );
                        refused += 1;
                    }
                }
            }
        }
    }
    // Both happen, and often: neither side of the test is empty.
    assert!(built > 400 && refused > 10_000, "{built} graphs, {refused} errors");
}

#[test]
fn odd_configs_are_errors() {
    let linear = json!([{ "type": "Linear", "name": "linear" }]);
    build(&linear, &json!(["n", 4])).unwrap();
    for shape in [
        json!([]),
        json!([4, 0]),
        json!([-1, 4]),
        json!("n"),
        json!(null),
        json!([["n"], 4]),
        json!(["n", 5]),
    ] {
        build(&linear, &shape).unwrap_err();
    }
    for layers in [
        json!(null),
        json!({}),
        json!([1]),
        json!([{}]),
        json!([{ "type": 5 }]),
        json!([{ "type": "Add", "with": "y" }]),
    ] {
        build(&layers, &json!(["n", 4])).unwrap_err();
    }
    let error = build(&json!([{ "type": "Linear", "name": "absent" }]), &json!(["n", 4])).unwrap_err();
    assert!(error.contains("absent.weight") && error.contains("layer 0 (Linear)"), "{error}");
}
