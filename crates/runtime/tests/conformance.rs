//! The evaluator against the official conformance models of ONNX: each either gives the outputs that stand beside it, or
//! is refused as unsupported. How many of each is asserted, so that nothing is lost without a word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message as _;
use weighbridge_formats::backends::onnx::proto::{ModelProto, TensorProto, TypeValue};
use weighbridge_formats::{DType, ErrorKind};
use weighbridge_runtime::{Array, Arrays, EvaluateOptions, Graph, proto};

/// The folder of the models, which `cargo xtask setup` fetches.
fn fixtures() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures/onnx");
    assert!(folder.is_dir(), "{} is missing: run `cargo xtask setup`", folder.display());
    folder
}

/// What became of a case.
#[derive(Debug)]
enum Outcome {
    Passed,
    Refused(String),
    Wrong(String),
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The arrays `input_0.pb`, `input_1.pb`, … or an explanation why they are none.
fn arrays(folder: &Path, kind: &str) -> Result<Vec<Array>, String> {
    let mut out = Vec::new();
    for i in 0.. {
        let path = folder.join(format!("{kind}_{i}.pb"));
        if !path.is_file() {
            break;
        }
        let tensor =
            TensorProto::decode(&*read(&path)).map_err(|_| "values that are no tensors".to_owned())?;
        out.push(proto::to_array(&tensor).map_err(|e| e.message().to_owned())?);
    }
    Ok(out)
}

/// Whether numbers agree as the official runner wants it: 1e-3 relative and 1e-7 absolute.
fn differ(name: &str, got: &Array, wanted: &Array) -> Option<String> {
    if got.dtype != wanted.dtype || got.shape != wanted.shape {
        let (gd, gs, wd, ws) = (got.dtype, &got.shape, wanted.dtype, &wanted.shape);
        return Some(format!("{name}: {gd} {gs:?}, and {wd} {ws:?} is wanted"));
    }
    let exact = got.bytes == wanted.bytes;
    let (Ok(a), Ok(b)) = (got.to_f64(), wanted.to_f64()) else {
        return (!exact).then(|| format!("{name}: other bytes"));
    };
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        let near = (x - y).abs() <= 1e-7 + 1e-3 * y.abs();
        if !(near || x == y || x.is_nan() && y.is_nan()) {
            return Some(format!("{name}[{i}]: {x}, and {y} is wanted"));
        }
    }
    None
}

/// Files of onnx 1.16 hold bfloat16 as uint16, which NumPy has.
fn as_declared(mut array: Array, dtype: Option<DType>) -> Array {
    if array.dtype == DType::U16 && dtype == Some(DType::Bf16) {
        array.dtype = DType::Bf16;
    }
    array
}

/// Cases of onnx 1.16 whose outputs are wrong: sums of int8 products wrapped where they saturate, windows past the
/// margin counted, bfloat16 cut off where it is rounded, and floats past 4 bits clipped where the low bits stay. ONNX
/// Runtime 1.31, and for what it covers onnx 1.23, give what is given here.
const MISTAKEN: &[&str] = &[
    "test_cast_FLOAT16_to_INT4",
    "test_cast_FLOAT16_to_UINT4",
    "test_cast_FLOAT_to_INT4",
    "test_cast_FLOAT_to_UINT4",
    "test_cast_FLOAT_to_BFLOAT16",
    "test_castlike_FLOAT_to_BFLOAT16",
    "test_castlike_FLOAT_to_BFLOAT16_expanded",
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",
    "test_qlinearmatmul_2D_int8_float16",
    "test_qlinearmatmul_2D_int8_float32",
    "test_qlinearmatmul_3D_int8_float16",
    "test_qlinearmatmul_3D_int8_float32",
];

fn case(folder: &Path) -> Outcome {
    let model = match ModelProto::decode(&*read(&folder.join("model.onnx"))) {
        Ok(model) => model,
        Err(e) => return Outcome::Wrong(format!("no message: {e}")),
    };
    let graph = model.graph.unwrap_or_default();
    let mut values = graph.input.iter().chain(&graph.output);
    let plain = |v: &weighbridge_formats::backends::onnx::proto::ValueInfoProto| {
        matches!(v.r#type.as_ref().and_then(|t| t.value.as_ref()), Some(TypeValue::TensorType(_)))
    };
    if !values.all(plain) {
        return Outcome::Refused("sequences and optional values".into());
    }
    let compiled = match Graph::open(folder.join("model.onnx")) {
        Ok(compiled) => compiled,
        Err(e) if e.kind() == ErrorKind::Unsupported => return Outcome::Refused(e.message().to_owned()),
        Err(e) => return Outcome::Wrong(e.to_string()),
    };
    let mut sets = 0;
    for set in 0.. {
        let data = folder.join(format!("test_data_set_{set}"));
        if !data.is_dir() {
            break;
        }
        sets += 1;
        let (inputs, wanted) = match (arrays(&data, "input"), arrays(&data, "output")) {
            (Ok(i), Ok(o)) => (i, o),
            (Err(e), _) | (_, Err(e)) => return Outcome::Refused(e),
        };
        let named = compiled.inputs().iter().zip(inputs);
        let inputs: Arrays = named.map(|(p, a)| (p.name.clone(), as_declared(a, p.dtype))).collect();
        let outputs = match compiled.run(&inputs, &EvaluateOptions::default()) {
            Ok(outputs) => outputs,
            Err(e) if e.kind() == ErrorKind::Unsupported => return Outcome::Refused(e.message().to_owned()),
            Err(e) => return Outcome::Wrong(e.to_string()),
        };
        for (port, wanted) in compiled.outputs().iter().zip(wanted) {
            let wanted = as_declared(wanted, port.dtype);
            if let Some(what) = differ(&port.name, &outputs[&port.name], &wanted) {
                return Outcome::Wrong(what);
            }
        }
    }
    if sets == 0 { Outcome::Wrong("no data".into()) } else { Outcome::Passed }
}

fn run(kind: &str) -> (usize, usize) {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures().join(kind))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    let (mut passed, mut mistaken) = (0, 0);
    let (mut refused, mut wrong) = (BTreeMap::<String, usize>::new(), Vec::new());
    for folder in &folders {
        match case(folder) {
            Outcome::Passed => passed += 1,
            Outcome::Refused(why) => *refused.entry(why).or_default() += 1,
            Outcome::Wrong(what) => {
                let name = folder.file_name().unwrap().to_str().unwrap();
                if MISTAKEN.contains(&name) { mistaken += 1 } else { wrong.push(format!("{name}: {what}")) }
            }
        }
    }
    let left: usize = refused.values().sum();
    println!("{kind}: {passed} pass, {left} are refused, {} are wrong", wrong.len());
    for (why, n) in refused {
        println!("  {n:>4} {why}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(mistaken, if kind == "node" { MISTAKEN.len() } else { 0 });
    (passed, left)
}

#[test]
fn every_operator_gives_what_the_standard_says_or_is_refused() {
    assert_eq!(run("node"), (954, 316));
}

#[test]
fn models_that_torch_wrote_give_what_torch_computed() {
    assert_eq!(run("pytorch-converted"), (82, 0));
    assert_eq!(run("pytorch-operator"), (35, 0));
    assert_eq!(run("simple"), (7, 16));
}
