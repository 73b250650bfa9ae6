//! The evaluator of ONNX graphs, judged by the conformance cases of the onnx package that is installed: operators that are
//! newer than the fixtures, or have changed since.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use prost::Message as _;
use weighbridge::onnx::proto::TensorProto;
use weighbridge::runtime::{Array, Arrays, EvaluateOptions, Graph, proto};
use weighbridge::{DType, ErrorKind, Result};
use weighbridge_tests::{python, workspace};

/// The arrays of one kind; an error of kind `Unsupported` for text, sequences and the like.
fn arrays(folder: &Path, kind: &str) -> Result<Vec<Array>> {
    let mut out = Vec::new();
    while let Ok(bytes) = std::fs::read(folder.join(format!("{kind}_{}.pb", out.len()))) {
        out.push(proto::to_array(&TensorProto::decode(&*bytes).unwrap())?);
    }
    Ok(out)
}

/// Whether every number is within what the dtype's rounding explains.
fn differs(got: &Array, wanted: &Array) -> Option<String> {
    if (got.dtype, &got.shape) != (wanted.dtype, &wanted.shape) {
        return Some(format!(
            "{} {:?}, and {} {:?} is wanted",
            got.dtype, got.shape, wanted.dtype, wanted.shape
        ));
    }
    let (Ok(a), Ok(b)) = (got.to_f64(), wanted.to_f64()) else {
        return (got.bytes != wanted.bytes).then(|| "other bytes".into());
    };
    let allowed = match wanted.dtype {
        DType::Bf16 => 1.6e-2,
        DType::F16 => 2e-3,
        _ => 1e-3,
    };
    let far = |(x, y): &(&f64, &f64)| {
        !((*x - *y).abs() <= 1e-7 + allowed * y.abs() || x == y || x.is_nan() && y.is_nan())
    };
    a.iter().zip(&b).find(far).map(|(x, y)| format!("{x}, and {y} is wanted"))
}

fn case(folder: &Path) -> Result<Option<String>> {
    let graph = Graph::open(folder.join("model.onnx"))?;
    let data = folder.join("test_data_set_0");
    let (inputs, wanted) = (arrays(&data, "input")?, arrays(&data, "output")?);
    let inputs: Arrays = graph.inputs().iter().map(|p| p.name.clone()).zip(inputs).collect();
    let outputs = graph.run(&inputs, &EvaluateOptions::default())?;
    assert!(!wanted.is_empty() && wanted.len() == graph.outputs().len(), "{}", folder.display());
    let pairs = graph.outputs().iter().zip(&wanted);
    Ok(pairs.filter_map(|(p, w)| differs(&outputs[&p.name], w)).next())
}

#[test]
fn operators_of_the_newest_onnx_give_what_its_reference_gives() {
    let target = tempfile::tempdir().unwrap();
    let script = workspace().join("tests/interop/onnx_cases.py");
    let written = Command::new(python()).arg(script).arg(target.path()).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let mut folders: Vec<_> = std::fs::read_dir(target.path()).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    let (mut passed, mut refused, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for folder in &folders {
        match case(folder) {
            Ok(None) => passed += 1,
            Ok(Some(what)) => wrong.push(format!("{}: {what}", folder.display())),
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                *refused.entry(e.message().to_owned()).or_default() += 1;
            }
            // An odd number of 4-bit floats fills no whole bytes, which our dtypes ask for.
            Err(e) if e.message().contains(" of F4 ") => {
                *refused.entry("4-bit floats".into()).or_default() += 1;
            }
            Err(e) => wrong.push(format!("{}: {e}", folder.display())),
        }
    }
    println!("{passed} pass, {} are wrong; refused: {refused:#?}", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((passed, refused.values().sum::<usize>()), (589, 41));
}
