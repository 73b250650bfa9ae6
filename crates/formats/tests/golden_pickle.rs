//! Pickles that Python wrote: the same values in every protocol, so whatever is read from one is read from all.
#![cfg(feature = "pickle")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weighbridge_formats::pickle::{EncodeOptions, NoTensors, decode, encode};
use weighbridge_formats::value::Global;
use weighbridge_formats::{Limits, ReadOptions, Registry, Value, Values};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pickle")
}

/// Every golden pickle, by its name and protocol.
fn files() -> BTreeMap<String, BTreeMap<u8, Vec<u8>>> {
    let mut out = BTreeMap::<String, BTreeMap<u8, Vec<u8>>>::new();
    for entry in std::fs::read_dir(golden()).expect("the golden files are there") {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((stem, protocol)) = name.strip_suffix(".pkl").and_then(|n| n.rsplit_once('_')) else {
            continue;
        };
        let bytes = std::fs::read(&path).unwrap();
        out.entry(stem.to_owned()).or_default().insert(protocol.parse().unwrap(), bytes);
    }
    assert!(out.len() >= 5, "{:?}", out.keys());
    assert!(out.values().all(|protocols| protocols.keys().copied().eq(0..=5)));
    out
}

/// The values as a pickle of protocol 4, with today's names for Python 2's.
fn normal(mut values: Values) -> Vec<u8> {
    for id in values.ids() {
        if let Value::Global(global) = values.get_mut(id) {
            let module = match &*global.module {
                "__builtin__" => "builtins",
                "copy_reg" => "copyreg",
                other => other,
            };
            let name = match &*global.name {
                "xrange" => "range",
                "long" => "int",
                other => other,
            };
            **global = Global::new(module, name);
        }
    }
    let options = EncodeOptions { allow_global: &|_| true, ..EncodeOptions::default() };
    encode(&values, values.root().unwrap(), &options, &mut NoTensors).unwrap()
}

#[test]
fn every_protocol_holds_the_same() {
    for (name, protocols) in files() {
        let written: Vec<(u8, Vec<u8>)> = protocols
            .into_iter()
            .map(|(protocol, bytes)| {
                let decoded = decode(&bytes, &Limits::default())
                    .unwrap_or_else(|e| panic!("{name}, protocol {protocol}: {e}"));
                assert_eq!(decoded.consumed, bytes.len() as u64);
                (protocol, normal(decoded.values))
            })
            .collect();
        // The protocols 0 and 1 build objects otherwise than the later ones.
        let comparable = if name == "objects" { &written[2..] } else { &written[..] };
        for (protocol, bytes) in comparable {
            assert!(bytes == &comparable[0].1, "{name}: protocol {protocol} differs");
        }
    }
}

#[test]
fn the_registry_opens_them() {
    let mut opened = 0;
    for (name, protocols) in files() {
        for protocol in protocols.keys() {
            let path = golden().join(format!("{name}_{protocol}.pkl"));
            let archive = Registry::builtin().open_path(&path, &ReadOptions::default()).unwrap();
            assert_eq!(archive.format(), "pickle");
            assert!(archive.tensors().is_empty());
            assert!(archive.values().is_some_and(|v| v.root().is_some()));
            opened += 1;
        }
    }
    assert!(opened >= 30);
}
