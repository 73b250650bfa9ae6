//! The evaluator on models that are damaged: bytes of the official ones changed, cut and repeated. Whatever they have become,
//! the answer is outputs or an error, within the bounds that were given.

use std::path::Path;

use prost::Message as _;
use weighbridge_formats::ErrorKind;
use weighbridge_formats::backends::onnx::proto::{DimensionValue, ModelProto, TypeValue};
use weighbridge_runtime::{EvaluateOptions, GenerateOptions, Graph, generate, operators};

/// A row of numbers that looks random.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// One kind of damage or another.
fn damaged(bytes: &[u8], state: &mut u64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=next(state) % 3 {
        if out.is_empty() {
            break;
        }
        let at = next(state) as usize % out.len();
        match next(state) % 5 {
            0 => out[at] ^= 1 << (next(state) % 8),
            1 => out[at] = [0, 1, 0x7f, 0x80, 0xff][next(state) as usize % 5],
            2 => out.truncate(at),
            3 => {
                let end = (at + next(state) as usize % 16).min(out.len());
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            _ => {
                let end = (at + next(state) as usize % 8).min(out.len());
                out.drain(at..end);
            }
        }
    }
    out
}

/// Damage that leaves a message: numbers at the edges, other operators, other shapes, inputs exchanged.
fn altered(bytes: &[u8], state: &mut u64) -> Vec<u8> {
    const NUMBERS: &[i64] =
        &[i64::MIN, i64::MAX, i32::MIN as i64, i32::MAX as i64, 1 << 40, -3, -2, -1, 0, 1, 2, 3, 7, 64];
    let Ok(mut model) = ModelProto::decode(bytes) else { return bytes.to_vec() };
    let Some(graph) = &mut model.graph else { return bytes.to_vec() };
    for _ in 0..=next(state) % 3 {
        let mut pick = |n: usize| if n == 0 { None } else { Some(next(state) as usize % n) };
        let number = NUMBERS[pick(NUMBERS.len()).unwrap_or(0)];
        match pick(6) {
            Some(0) => {
                let names = operators().0;
                let (node, name) = (pick(graph.node.len()), pick(names.len()));
                if let (Some(node), Some(name)) = (node, name) {
                    graph.node[node].op_type = Some(names[name].into());
                }
            }
            Some(1 | 2) => {
                let Some(node) = pick(graph.node.len()) else { continue };
                let Some(at) = pick(graph.node[node].attribute.len()) else { continue };
                let attribute = &mut graph.node[node].attribute[at];
                if attribute.i.is_some() {
                    attribute.i = Some(number);
                } else if let Some(i) = pick(attribute.ints.len()) {
                    attribute.ints[i] = number;
                } else if attribute.f.is_some() {
                    attribute.f = Some([f32::NAN, f32::INFINITY, -1.0, 0.0][(number & 3) as usize]);
                } else if let Some(tensor) = &mut attribute.t {
                    tensor.int64_data = vec![number; tensor.int64_data.len()];
                    if tensor.data_type == Some(7) && tensor.raw_data.is_some() {
                        tensor.raw_data =
                            tensor.raw_data.as_ref().map(|r| number.to_le_bytes().repeat(r.len() / 8));
                    }
                }
            }
            Some(3) => {
                let Some(node) = pick(graph.node.len()) else { continue };
                let inputs = graph.node[node].input.len();
                if let (Some(a), Some(b)) = (pick(inputs), pick(inputs)) {
                    graph.node[node].input.swap(a, b);
                }
            }
            _ => {
                let Some(input) = pick(graph.input.len()) else { continue };
                let Some(TypeValue::TensorType(t)) =
                    graph.input[input].r#type.as_mut().and_then(|t| t.value.as_mut())
                else {
                    continue;
                };
                let Some(shape) = &mut t.shape else { continue };
                match (pick(3), pick(shape.dim.len())) {
                    (Some(0), Some(d)) => drop(shape.dim.remove(d)),
                    (Some(1), Some(d)) => {
                        let copy = shape.dim[d].clone();
                        shape.dim.push(copy);
                    }
                    (_, Some(d)) => {
                        let size = number.clamp(0, 64);
                        shape.dim[d].value = Some(DimensionValue::DimValue(size));
                    }
                    _ => {}
                }
            }
        }
    }
    model.encode_to_vec()
}

#[test]
fn damaged_models_are_outputs_or_errors_and_never_more_than_their_bounds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures/onnx/node");
    assert!(folder.is_dir(), "{} is missing: run `cargo xtask setup`", folder.display());
    let mut models: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    models.sort();
    let mut options = EvaluateOptions::default();
    (options.memory, options.steps, options.operations, options.threads) = (4 << 20, 2000, 1 << 20, Some(1));
    let mut state = 0x2545_f491_4f6c_dd1d;
    let (mut opened, mut ran, mut limited) = (0, 0, 0);
    for model in &models {
        let bytes = std::fs::read(model.join("model.onnx")).unwrap();
        for round in 0..8 {
            let changed = match round {
                0 => bytes.clone(),
                1..3 => damaged(&bytes, &mut state),
                _ => altered(&bytes, &mut state),
            };
            let Ok(graph) = Graph::from_bytes(changed) else { continue };
            opened += 1;
            let Ok(inputs) = generate(Some(&graph), graph.inputs(), &GenerateOptions::default()) else {
                continue;
            };
            match graph.run_measured(&inputs, &options) {
                Ok((_, peak)) => {
                    ran += 1;
                    // A result may pass the bound by itself, which is looked at before it is made.
                    assert!(peak <= 2 * options.memory, "{}: {peak} bytes", model.display());
                }
                Err(e) if e.kind() == ErrorKind::LimitExceeded => limited += 1,
                Err(_) => {}
            }
        }
    }
    println!("{} models, {opened} opened, {ran} ran, {limited} were stopped by a bound", models.len());
    assert!(opened > 5_000 && ran > 2_500 && limited > 0, "{opened} opened, {ran} ran, {limited} limited");
}
