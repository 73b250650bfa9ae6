//! Graphs made field by field.

use weighbridge_formats::Source;

use super::super::protobuf::make::{bytes, number};
use crate::scan::{FileReport, ScanOptions, Verdict, scan_source};

fn node(name: &str, operator: &str, inputs: &[&str]) -> Vec<u8> {
    let mut out = bytes(1, name.as_bytes());
    out.extend(bytes(2, operator.as_bytes()));
    inputs.iter().for_each(|i| out.extend(bytes(3, i.as_bytes())));
    out
}

fn graph(nodes: &[Vec<u8>], in_function: bool) -> Vec<u8> {
    if in_function {
        let mut function = bytes(1, &bytes(1, b"f"));
        nodes.iter().for_each(|n| function.extend(bytes(3, n)));
        return [bytes(1, &node("x", "NoOp", &[])), bytes(2, &bytes(1, &function))].concat();
    }
    nodes.iter().flat_map(|n| bytes(1, n)).collect()
}

fn saved(graph: &[u8], rest: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, b""), bytes(2, graph), rest.to_vec()].concat();
    [number(1, 1), bytes(2, &meta)].concat()
}

fn look(name: &str, bytes: Vec<u8>) -> FileReport {
    scan_source(name, Source::from_bytes(bytes), &ScanOptions::default())
}

#[test]
fn operators_are_found_in_graphs_and_functions_of_every_kind_of_file() {
    let cases = [
        ("MatMul", Verdict::Clean),
        ("ReadFile", Verdict::Dangerous),
        ("WriteFile", Verdict::Dangerous),
        ("PyFunc", Verdict::Dangerous),
        ("MyOwnOp", Verdict::Unknown),
    ];
    for (operator, verdict) in cases {
        for in_function in [false, true] {
            let graph = graph(&[node("c", "Const", &[]), node("n", operator, &["c"])], in_function);
            let files = [
                ("saved_model.pb", saved(&graph, b"")),
                ("model.bin", saved(&graph, b"")),
                ("frozen.pb", graph.clone()),
                ("model.meta", [bytes(1, b""), bytes(2, &graph)].concat()),
            ];
            for (name, bytes) in files {
                let report = look(name, bytes);
                assert_eq!(report.verdict, verdict, "{operator} in {name}: {:#?}", report.findings);
                if verdict != Verdict::Clean {
                    assert_eq!(report.findings[0].callable.as_deref(), Some(operator));
                }
            }
        }
        let report =
            look("graph.pbtxt", format!("node {{\n  name: \"n\"\n  op : '{operator}'\n}}").into_bytes());
        assert_eq!(report.verdict, verdict, "{operator} as text: {:#?}", report.findings);
    }
}

#[test]
fn saving_its_own_variables_is_part_of_every_model() {
    let given = [
        node("prefix", "Placeholder", &[]),
        node("save", "SaveV2", &["prefix"]),
        node("back", "RestoreV2", &["prefix:0"]),
    ];
    assert_eq!(look("saved_model.pb", saved(&graph(&given, true), b"")).verdict, Verdict::Clean);
    let fixed = [node("prefix", "Const", &[]), node("back", "RestoreV2", &["prefix:output:0"])];
    assert_eq!(look("saved_model.pb", saved(&graph(&fixed, true), b"")).verdict, Verdict::Unknown);
}

#[test]
fn assets_stay_in_the_folder_and_descriptions_are_read() {
    let asset = |name: &str| bytes(6, &[bytes(1, b""), bytes(2, name.as_bytes())].concat());
    assert_eq!(look("saved_model.pb", saved(b"", &asset("vocab.txt"))).verdict, Verdict::Clean);
    let report = look("saved_model.pb", saved(b"", &asset("../../etc/passwd")));
    assert_eq!((report.verdict, report.findings[0].rule), (Verdict::Dangerous, "path-escape"));
    let lambda = br#"{"class_name": "Lambda", "config": {"function": ["4w=="], "function_type": "lambda"}}"#;
    let object = bytes(1, &bytes(5, lambda));
    assert_eq!(look("keras_metadata.pb", object).findings[0].rule, "keras-lambda");
    let older = bytes(7, &bytes(1, &bytes(4, &bytes(3, lambda))));
    assert_eq!(look("saved_model.pb", saved(b"", &older)).verdict, Verdict::Dangerous);
}

#[test]
fn cut_graphs_are_not_clean() {
    let whole = saved(&graph(&[node("n", "ReadFile", &[])], true), b"");
    for len in 3..whole.len() {
        assert_ne!(look("saved_model.pb", whole[..len].to_vec()).verdict, Verdict::Clean, "{len}");
    }
}

/// A file with one operator, which has a number and a name.
fn lite(code: u8, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&16u32.to_le_bytes()); // 0: the model is at 16.
    put(b"TFL3");
    put(&[8, 0, 8, 0, 0, 0, 4, 0]); // 8: its fields: no version, the codes at 4.
    put(&8i32.to_le_bytes()); // 16: the model; its fields are 8 bytes back.
    put(&4u32.to_le_bytes()); // 20: the codes are at 24.
    put(&1u32.to_le_bytes()); // 24: one of them,
    put(&12u32.to_le_bytes()); // 28: at 40.
    put(&[8, 0, 12, 0, 8, 0, 4, 0]); // 32: its fields: the number at 8, the name at 4.
    put(&8i32.to_le_bytes()); // 40: the code.
    put(&8u32.to_le_bytes()); // 44: the name is at 52.
    put(&[code, 0, 0, 0]); // 48: the number.
    put(&(name.len() as u32).to_le_bytes());
    put(name.as_bytes());
    put(&[0]);
    out
}

#[test]
fn operators_of_tensorflow_lite_are_known_or_named() {
    let cases = [
        ("TFLite_Detection_PostProcess", Verdict::Clean),
        ("FlexMatMul", Verdict::Clean),
        ("FlexReadFile", Verdict::Dangerous),
        ("Mine", Verdict::Unknown),
    ];
    for (name, verdict) in cases {
        let report = look("model.tflite", lite(32, name));
        assert_eq!(report.verdict, verdict, "{name}: {:#?}", report.findings);
        assert!(report.kinds.iter().any(|k| k == "tflite"));
    }
    let whole = lite(32, "Mine");
    for len in 8..whole.len() - 2 {
        assert_ne!(look("model.tflite", whole[..len].to_vec()).verdict, Verdict::Clean, "{len}");
    }
}
