//! Models made field by field: operators of every origin, and external data that leads astray.

use weighbridge_formats::Source;

use super::super::protobuf::make::{bytes, number};
use crate::scan::{FileReport, ScanOptions, Verdict, scan, scan_source};

fn node(domain: &str, operator: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = bytes(1, b"x");
    out.extend(bytes(3, b"the_node"));
    out.extend(bytes(4, operator.as_bytes()));
    attributes.iter().for_each(|a| out.extend(bytes(5, a)));
    out.extend(bytes(7, domain.as_bytes()));
    out
}

fn graph(nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    nodes.iter().for_each(|n| out.extend(bytes(1, n)));
    out.extend(bytes(2, b"g"));
    tensors.iter().for_each(|t| out.extend(bytes(5, t)));
    out
}

fn model(graph: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = number(1, 9);
    out.extend(bytes(2, b"producer"));
    out.extend(bytes(7, graph));
    out.extend(rest);
    out
}

fn external(name: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    let mut out = number(1, 4);
    out.extend(number(2, 1));
    out.extend(bytes(8, name.as_bytes()));
    for (key, value) in entries {
        let mut entry = bytes(1, key.as_bytes());
        entry.extend(bytes(2, value.as_bytes()));
        out.extend(bytes(13, &entry));
    }
    out.extend(number(14, 1));
    out
}

fn look(bytes: Vec<u8>) -> FileReport {
    let report = scan_source("model.onnx", Source::from_bytes(bytes), &ScanOptions::default());
    assert!(report.kinds.iter().any(|k| k == "onnx"), "{:?}", report.kinds);
    report
}

#[test]
fn operators_are_named_unless_they_are_known_or_the_models_own() {
    let own = [bytes(1, b"Mine"), bytes(10, b"mine"), bytes(7, &node("", "Relu", &[]))].concat();
    let plain = graph(
        &[
            node("", "MatMul", &[]),
            node("ai.onnx.ml", "Scaler", &[]),
            node("com.microsoft", "Gelu", &[]),
            node("mine", "Mine", &[]),
        ],
        &[],
    );
    let report = look(model(&plain, &bytes(25, &own)));
    assert_eq!((report.verdict, report.findings.len()), (Verdict::Clean, 0), "{:#?}", report.findings);
    let odd = [
        ("other.domain", "Thing", Verdict::Unknown),
        ("", "Thing", Verdict::Unknown),
        ("ai.onnx.contrib", "PyOp", Verdict::Dangerous),
        ("ai.onnx.contrib", "PyCustomOpDef", Verdict::Dangerous),
        ("com.microsoft", "PythonOp", Verdict::Dangerous),
    ];
    for (domain, name, verdict) in odd {
        let inner = graph(&[node(domain, name, &[])], &[]);
        let attribute = [bytes(1, b"then_branch"), bytes(6, &inner)].concat();
        let function = [bytes(1, b"F"), bytes(7, &node(domain, name, &[]))].concat();
        let training = bytes(20, &bytes(2, &inner));
        for bytes in [
            model(&inner, b""),
            model(&graph(&[node("", "If", &[attribute])], &[]), b""),
            model(&graph(&[], &[]), &bytes(25, &function)),
            model(&graph(&[], &[]), &training),
        ] {
            let report = look(bytes);
            assert_eq!(report.verdict, verdict, "{domain}.{name}: {:#?}", report.findings);
            assert_eq!(report.findings.len(), 1);
            assert!(report.findings[0].callable.as_deref().is_some_and(|c| c.ends_with(name)));
        }
    }
}

#[test]
fn external_data_outside_of_the_folder_is_dangerous_by_its_spelling() {
    let locations =
        ["../weights", "/etc/passwd", "a/../../b", "*/_ORT_MEM_ADDR_/*", "..\\b", "C:\\x", "a\0b", ""];
    for location in locations {
        let tensor = external("w", &[("location", location), ("offset", "0"), ("length", "16")]);
        let sparse = bytes(15, &bytes(1, &tensor));
        let in_node =
            graph(&[node("", "Constant", &[[bytes(1, b"value"), bytes(5, &tensor)].concat()])], &[]);
        for bytes in [
            model(&graph(&[], std::slice::from_ref(&tensor)), b""),
            model(&[graph(&[], &[]), sparse].concat(), b""),
            model(&in_node, b""),
        ] {
            let report = look(bytes);
            assert_eq!(report.verdict, Verdict::Dangerous, "{location:?}: {:#?}", report.findings);
            let found = &report.findings[0];
            assert_eq!((found.rule, found.arguments.as_deref()), ("onnx-external-path", Some(location)));
            assert!(found.what.contains("\"w\""), "{}", found.what);
        }
    }
}

#[cfg(unix)]
#[test]
fn files_of_external_data_are_looked_at_where_they_are() {
    use std::os::unix::fs::symlink;
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(outer.path().join("secret"), [0; 64]).unwrap();
    std::fs::write(folder.join("data"), [0; 64]).unwrap();
    symlink("../secret", folder.join("link")).unwrap();
    std::fs::hard_link(outer.path().join("secret"), folder.join("hard")).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    let judge = |location: &str, offset: &str, length: &str| {
        let tensor = external("w", &[("location", location), ("offset", offset), ("length", length)]);
        let path = folder.join("model.onnx");
        std::fs::write(&path, model(&graph(&[], &[tensor]), b"")).unwrap();
        let report = scan(&[path], &ScanOptions::default()).unwrap();
        (report.verdict, report.findings().map(|f| f.what.clone()).collect::<Vec<_>>().join("; "))
    };
    assert_eq!(judge("data", "0", "64"), (Verdict::Clean, String::new()));
    let cases = [
        ("data", "1", "64", Verdict::Dangerous, "ends at 64"),
        ("data", "18446744073709551615", "64", Verdict::Dangerous, "ends at 64"),
        ("data", "-1", "64", Verdict::Dangerous, "ends at 64"),
        ("link", "0", "64", Verdict::Dangerous, "a link"),
        ("hard", "0", "64", Verdict::Unknown, "2 names"),
        ("folder", "0", "64", Verdict::Dangerous, "no regular file"),
        ("missing", "0", "64", Verdict::Clean, "not here"),
    ];
    for (location, offset, length, verdict, words) in cases {
        let (found, what) = judge(location, offset, length);
        assert_eq!(found, verdict, "{location}: {what}");
        assert!(what.contains(words), "{location}: {what}");
    }
}

#[test]
fn broken_models_and_deep_ones_are_not_clean_and_cost_little() {
    let whole = model(&graph(&[node("", "Relu", &[])], &[]), b"");
    for len in 4..whole.len() - 1 {
        let report = scan_source("model.onnx", Source::from_bytes(&whole[..len]), &ScanOptions::default());
        assert!(report.verdict != Verdict::Clean || report.findings.is_empty(), "{len}");
    }
    let mut inner = graph(&[node("", "Relu", &[])], &[]);
    for _ in 0..2000 {
        inner = graph(&[node("", "If", &[bytes(6, &inner)])], &[]);
    }
    assert_eq!(look(model(&inner, b"")).verdict, Verdict::Clean);
}
