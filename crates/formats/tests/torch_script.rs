//! TorchScript programs that Python's torch wrote, listed without running them; and damaged ones.

#![cfg(feature = "torch")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use weighbridge_formats::backends::torch::script::Script;
use weighbridge_formats::{ReadOptions, Source};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn open(name: &str) -> Script {
    Script::open(Source::open(golden(name)).unwrap(), &ReadOptions::default()).unwrap().unwrap()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect()
}

#[test]
fn programs_are_listed_as_torch_lists_them() {
    for name in ["scripted.pt", "traced.pt", "frozen.pt", "lite.ptl"] {
        let script = open(&format!("torchscript/{name}"));
        let dump = std::fs::read(golden(&format!("torchscript/{name}.json"))).unwrap();
        let dump: Value = serde_json::from_slice(&dump).unwrap();
        // torch numbers classes of one name when it loads a file; the file's own numbers may be others.
        let plain = |class: &str| {
            class.split('.').filter(|p| !p.starts_with("___torch_mangle")).collect::<Vec<_>>().join(".")
        };
        let found: BTreeSet<(String, String)> =
            script.modules.iter().map(|m| (m.path.clone(), plain(&m.class))).collect();
        // torch lists what stands at several places below each of them.
        let want: BTreeSet<(String, String)> = dump["modules"]
            .as_array()
            .unwrap()
            .iter()
            .map(strings)
            .map(|pair| (pair[0].to_owned(), plain(pair[1])))
            .collect();
        let missing: Vec<_> =
            want.difference(&found).filter(|(path, _)| !path.starts_with("again.")).collect();
        assert!(missing.is_empty() && found.is_subset(&want), "{name}: {missing:?} of {found:?}");
        assert!(script.modules.iter().all(|m| script.class(&m.class).is_some()), "{name}");

        let methods: BTreeMap<String, Vec<&str>> = script
            .classes
            .iter()
            .flat_map(|class| {
                class.methods.iter().map(|m| {
                    let arguments = m.arguments.iter().map(|a| &*a.name).collect();
                    (format!("{}.{}", plain(&class.name), m.name), arguments)
                })
            })
            .collect();
        for (method, arguments) in dump["methods"].as_object().unwrap() {
            let found =
                methods.get(&plain(method)).unwrap_or_else(|| panic!("{name}: {method} of {methods:?}"));
            // A trace may give several classes of one name different arguments.
            assert!(name == "traced.pt" || *found == strings(arguments), "{name}: {method}: {found:?}");
        }

        let constants = script.constants();
        let found: Vec<String> = (0..constants.tensors().len())
            .map(|i| {
                constants.data(i).unwrap().read_all().unwrap().iter().map(|b| format!("{b:02x}")).collect()
            })
            .collect();
        assert_eq!(found, strings(&dump["constants"]), "{name}");
        for (i, info) in constants.tensors().iter().enumerate() {
            assert_eq!(info.name(), format!("c{i}"));
        }
        let extra: Vec<&str> = script.extra.iter().map(|e| &*e.name).collect();
        assert_eq!(extra, strings(&dump["extra"]), "{name}");
    }
}

#[test]
fn methods_have_their_signature_and_text() {
    let script = open("torchscript/scripted.pt");
    let model = script.class(&script.modules[0].class).unwrap();
    assert_eq!((&*model.name, &*model.base), ("__torch__.programs.Model", "Module"));
    let describe = model.methods.iter().find(|m| m.name == "describe").unwrap();
    assert_eq!(
        describe.signature(true),
        "(x: Tensor, names: Dict[str, int], strict: bool=True) -> Tuple[Tensor, str]"
    );
    assert!(describe.source.contains("lenient: (x"));
    let block = script.class("__torch__.programs.Block").unwrap();
    assert_eq!(block.buffers, ["scale"]);
    assert!(block.attributes.iter().any(|a| a.name == "labels" && a.of == "List[str]"));
    assert_eq!(script.extra_file("labels.json").unwrap(), b"[\"a\", \"b\"]");
    assert!(script.extra_file("../data.pkl").is_err());
    let embedding =
        script.functions.iter().find(|f| f.name == "__torch__.torch.nn.functional.embedding").unwrap();
    assert_eq!(embedding.arguments.len(), 7);
}

#[test]
fn what_is_no_program_is_none() {
    for name in ["torch/state_dict.pt", "torch/legacy_state_dict.pt", "torch/tar.pt"] {
        let source = Source::open(golden(name)).unwrap();
        assert!(Script::open(source, &ReadOptions::default()).unwrap().is_none(), "{name}");
    }
    let empty = Source::from_bytes(Vec::new());
    assert!(Script::open(empty, &ReadOptions::default()).unwrap().is_none());
}

#[test]
fn limits_hold_and_damage_is_an_error_or_nothing() {
    let bytes = std::fs::read(golden("torchscript/scripted.pt")).unwrap();
    let mut tight = ReadOptions::default();
    tight.limits.header_bytes = 3000;
    let error = Script::open(Source::from_bytes(bytes.clone()), &tight).unwrap_err();
    assert_eq!(error.kind(), weighbridge_formats::ErrorKind::LimitExceeded);
    let mut few = ReadOptions::default();
    few.limits.entries = 4;
    assert!(Script::open(Source::from_bytes(bytes.clone()), &few).is_err());
    let mut failed = 0;
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        match Script::open(Source::from_bytes(damaged), &ReadOptions::default()) {
            Ok(Some(script)) => {
                let constants = script.constants();
                (0..constants.tensors().len()).for_each(|i| drop(constants.data(i).map(|d| d.read_all())));
            }
            Ok(None) => {}
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 100, "{failed}");
    for end in (0..bytes.len()).step_by(97) {
        let cut = Script::open(Source::from_bytes(bytes[..end].to_vec()), &ReadOptions::default());
        assert!(!matches!(cut, Ok(Some(_))), "{end}");
    }
}
