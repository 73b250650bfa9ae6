//! ONNX Runtime, and the evaluator held against it where the official models do not reach: the operators of com.microsoft,
//! and those of opset 23. They need the library, which `cargo xtask setup` lays out: `ORT_DYLIB_PATH`.

#![cfg(feature = "ort")]

use prost::Message as _;
use weighbridge_formats::backends::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use weighbridge_formats::{DType, ErrorKind};
use weighbridge_runtime::{
    Array, Arrays, CheckOptions, EvaluateOptions, Graph, Session, SessionOptions, Tolerance, check, compare,
    proto,
};

fn value(name: &str, elem: i32, shape: Option<&[&str]>) -> ValueInfoProto {
    let dim = |d: &&str| Dimension {
        value: Some(d.parse().map_or(DimensionValue::DimParam((*d).into()), DimensionValue::DimValue)),
        ..Dimension::default()
    };
    let shape = shape.map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() });
    let tensor = TensorType { elem_type: Some(elem), shape };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

enum A<'a> {
    I(i64),
    F(f32),
    L(&'a [i64]),
}

fn node(
    domain: &str,
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[(&str, A<'_>)],
) -> NodeProto {
    let attribute = |(name, value): &(&str, A<'_>)| {
        let mut a = AttributeProto { name: Some((*name).into()), ..AttributeProto::default() };
        let kind = match value {
            A::I(i) => (a.i = Some(*i), AttributeType::Int).1,
            A::F(x) => (a.f = Some(*x), AttributeType::Float).1,
            A::L(v) => (a.ints = v.to_vec(), AttributeType::Ints).1,
        };
        a.r#type = Some(kind as i32);
        a
    };
    NodeProto {
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: outputs.iter().map(|s| (*s).into()).collect(),
        name: Some(format!("the {op}")),
        op_type: Some(op.into()),
        domain: Some(domain.into()),
        attribute: attributes.iter().map(attribute).collect(),
        ..NodeProto::default()
    }
}

fn model(graph: GraphProto, opset: i64) -> ModelProto {
    let set =
        |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![set("", opset), set("com.microsoft", 1)],
        graph: Some(GraphProto { name: Some("test".into()), ..graph }),
        ..ModelProto::default()
    }
}

/// Numbers that look random, around zero.
fn floats(n: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn array(shape: &[u64], seed: u64) -> Array {
    Array::of(shape, &floats(shape.iter().product::<u64>() as usize, seed)).unwrap()
}

fn bytes_array(shape: &[u64], seed: u64) -> Array {
    let n = shape.iter().product::<u64>() as usize;
    Array::of(shape, &floats(n, seed).iter().map(|x| (x * 128.0 + 128.0) as u8).collect::<Vec<u8>>()).unwrap()
}

/// Runs one node by both, with inputs of these names; the first `constants` from the end are initializers.
fn both(
    opset: i64,
    node: NodeProto,
    inputs: &[(&str, Array)],
    constants: usize,
    outputs: &[&str],
) -> (Arrays, Arrays) {
    let (given, fixed) = inputs.split_at(inputs.len() - constants);
    let kind = |a: &Array| proto::from_array("x", a).unwrap().data_type.unwrap();
    let sizes = |a: &Array| a.shape.iter().map(u64::to_string).collect::<Vec<_>>();
    let declared = |(name, a): &(&str, Array)| {
        let sizes = sizes(a);
        value(name, kind(a), Some(&sizes.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let graph = GraphProto {
        node: vec![node],
        input: given.iter().map(declared).collect(),
        // The type is what inference finds; a wrong one would be refused.
        output: outputs.iter().map(|o| value(o, 1, None)).collect(),
        initializer: fixed.iter().map(|(n, a)| proto::from_array(n, a).unwrap()).collect(),
        ..GraphProto::default()
    };
    let bytes = model(graph, opset).encode_to_vec();
    let arrays: Arrays = given.iter().map(|(n, a)| ((*n).to_owned(), a.clone())).collect();
    let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let theirs = session.run(&arrays).unwrap();
    let ours = Graph::from_bytes(bytes).unwrap().run(&arrays, &EvaluateOptions::default()).unwrap();
    (theirs, ours)
}

fn agree(what: &str, (theirs, ours): &(Arrays, Arrays), allowed: f64) {
    assert!(!theirs.is_empty() && theirs.len() == ours.len(), "{what}");
    for (name, a) in theirs {
        let tolerance = Tolerance { absolute: allowed, relative: allowed };
        let found = compare(&ours[name], a, tolerance).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(found.within, "{what}, {name}: {found:?}\n{:?}\n{:?}", a.to_f64(), ours[name].to_f64());
    }
}

#[test]
fn arrays_of_every_type_pass_through_the_runtime() {
    let numbers = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    macro_rules! of {
        ($type:ty) => {
            Array::of([2, 3], &numbers.map(|x: f64| x as $type)).unwrap()
        };
    }
    let half = |x: f64| half::f16::from_f64(x * 0.5);
    let brain = |x: f64| half::bf16::from_f64(x * 0.5);
    let all = [
        of!(f32),
        of!(f64),
        of!(i8),
        of!(i16),
        of!(i32),
        of!(i64),
        of!(u8),
        of!(u16),
        of!(u32),
        of!(u64),
        Array::of([2, 3], &numbers.map(half)).unwrap(),
        Array::of([2, 3], &numbers.map(brain)).unwrap(),
        Array::new(DType::Bool, [2, 3], vec![0, 1, 1, 0, 1, 1]).unwrap(),
    ];
    for array in all {
        let kind = proto::from_array("x", &array).unwrap().data_type.unwrap();
        let graph = GraphProto {
            node: vec![node("", "Identity", &["x"], &["y"], &[])],
            input: vec![value("x", kind, Some(&["a", "3"]))],
            output: vec![value("y", kind, Some(&["a", "3"]))],
            ..GraphProto::default()
        };
        let bytes = model(graph, 17).encode_to_vec();
        let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
        assert_eq!(session.inputs(), Graph::from_bytes(bytes).unwrap().inputs());
        let outputs = session.run(&Arrays::from([("x".into(), array.clone())])).unwrap();
        assert_eq!(outputs["y"], array);
    }
    let graph = GraphProto {
        node: vec![node("", "Identity", &["x"], &["y"], &[])],
        input: vec![value("x", 8, Some(&["1"]))],
        output: vec![value("y", 8, Some(&["1"]))],
        ..GraphProto::default()
    };
    let bytes = model(graph, 17).encode_to_vec();
    let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let text = session.run(&Arrays::from([("x".into(), array(&[1], 1))])).unwrap_err();
    assert_eq!(text.kind(), ErrorKind::Unsupported, "{text}");
}

#[test]
fn wrong_inputs_and_models_are_errors_of_ours() {
    let graph = GraphProto {
        node: vec![node("", "Add", &["a", "b"], &["y"], &[])],
        input: vec![value("a", 1, Some(&["n", "2"])), value("b", 1, Some(&["n", "2"]))],
        output: vec![value("y", 1, Some(&["n", "2"]))],
        ..GraphProto::default()
    };
    let bytes = model(graph, 17).encode_to_vec();
    let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let evaluator = Graph::from_bytes(bytes).unwrap();
    let (small, large) = (array(&[1, 2], 1), array(&[3, 2], 2));
    let mut refused = |inputs: &[(&str, &Array)], words: &str| {
        let inputs: Arrays = inputs.iter().map(|(n, a)| ((*n).to_owned(), (*a).clone())).collect();
        for error in [
            session.run(&inputs).unwrap_err(),
            evaluator.run(&inputs, &EvaluateOptions::default()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            assert!(error.to_string().contains(words), "{error}");
        }
    };
    refused(&[("a", &small)], "\"b\" is not given");
    refused(&[("a", &small), ("b", &small), ("c", &small)], "no input \"c\"");
    refused(&[("a", &small), ("b", &large)], "n is 3 here, and 1 in \"a\"");
    refused(&[("a", &small), ("b", &array(&[2], 1))], "[n, 2]");
    refused(&[("a", &small), ("b", &Array::of([1, 2], &[1i64, 2]).unwrap())], "declared as F32");
    let error = Session::from_bytes(b"nothing of the kind", &SessionOptions::default()).unwrap_err();
    assert!(error.message().starts_with("ONNX Runtime: "), "{error}");
}

#[test]
fn operators_of_com_microsoft_agree_with_the_runtime() {
    let ms = "com.microsoft";
    // 4-bit blocks, with and without zero points, and a last block that is not full.
    for (k, bits, zeros) in [(64u64, 4i64, false), (64, 4, true), (80, 4, false), (64, 8, true)] {
        let (n, block) = (6u64, 32u64);
        let blocks = k.div_ceil(block);
        let mut inputs = vec![
            ("a", array(&[2, 3, k], 1)),
            ("b", bytes_array(&[n, blocks, block * bits as u64 / 8], 2)),
            ("s", array(&[n * blocks], 3)),
        ];
        let mut names = vec!["a", "b", "s"];
        if zeros {
            inputs.push(("z", bytes_array(&[n * (blocks * bits as u64).div_ceil(8)], 4)));
            names.push("z");
        }
        let constants = inputs.len() - 1;
        let attributes = [
            ("K", A::I(k as i64)),
            ("N", A::I(n as i64)),
            ("bits", A::I(bits)),
            ("block_size", A::I(block as i64)),
        ];
        let both = both(17, node(ms, "MatMulNBits", &names, &["y"], &attributes), &inputs, constants, &["y"]);
        agree(&format!("MatMulNBits of {k}, {bits} bits, {zeros}"), &both, 1e-4);
    }
    let scalar = |x: f32| Array::of([], &[x]).unwrap();
    let byte = |x: u8| Array::of([], &[x]).unwrap();
    let inputs = [
        ("a", bytes_array(&[4, 8], 1)),
        ("b", bytes_array(&[8, 5], 2)),
        ("as", scalar(0.02)),
        ("bs", array(&[5], 3)),
        ("az", byte(120)),
        ("bz", byte(130)),
        ("bias", array(&[5], 4)),
    ];
    let names: Vec<&str> = inputs.iter().map(|i| i.0).collect();
    agree(
        "MatMulIntegerToFloat",
        &both(17, node(ms, "MatMulIntegerToFloat", &names, &["y"], &[]), &inputs, 0, &["y"]),
        1e-4,
    );
    let inputs = [
        ("a", array(&[4, 8], 1)),
        ("b", bytes_array(&[8, 5], 2)),
        ("bs", scalar(0.03)),
        ("bz", byte(130)),
        ("bias", array(&[5], 4)),
    ];
    let names: Vec<&str> = inputs.iter().map(|i| i.0).collect();
    agree(
        "DynamicQuantizeMatMul",
        &both(17, node(ms, "DynamicQuantizeMatMul", &names, &["y"], &[]), &inputs, 3, &["y"]),
        1e-4,
    );
    let x = ("x", array(&[2, 3, 8], 5));
    agree(
        "FastGelu",
        &both(
            17,
            node(ms, "FastGelu", &["x", "b"], &["y"], &[]),
            &[x.clone(), ("b", array(&[8], 6))],
            0,
            &["y"],
        ),
        1e-4,
    );
    agree(
        "BiasGelu",
        &both(
            17,
            node(ms, "BiasGelu", &["x", "b"], &["y"], &[]),
            &[x.clone(), ("b", array(&[8], 6))],
            0,
            &["y"],
        ),
        1e-4,
    );
    agree(
        "Gelu",
        &both(17, node(ms, "Gelu", &["x"], &["y"], &[]), std::slice::from_ref(&x), 0, &["y"]),
        1e-4,
    );
    agree(
        "QuickGelu",
        &both(
            17,
            node(ms, "QuickGelu", &["x"], &["y"], &[("alpha", A::F(1.702))]),
            std::slice::from_ref(&x),
            0,
            &["y"],
        ),
        1e-4,
    );
    let skip = [
        x.clone(),
        ("s", array(&[2, 3, 8], 7)),
        ("g", array(&[8], 8)),
        ("b", array(&[8], 9)),
        ("e", array(&[8], 10)),
    ];
    let names = ["x", "s", "g", "b", "e"];
    agree(
        "SkipLayerNormalization",
        &both(
            17,
            node(ms, "SkipLayerNormalization", &names, &["y"], &[("epsilon", A::F(1e-5))]),
            &skip,
            0,
            &["y"],
        ),
        1e-4,
    );
    agree(
        "SkipSimplifiedLayerNormalization",
        &both(
            17,
            node(
                ms,
                "SkipSimplifiedLayerNormalization",
                &names[..3],
                &["y", "", "", "sum"],
                &[("epsilon", A::F(1e-5))],
            ),
            &skip[..3],
            0,
            &["y", "sum"],
        ),
        1e-4,
    );
    let positions = Array::of([2, 3], &[0i64, 1, 2, 4, 5, 6]).unwrap();
    for interleaved in [0, 1] {
        let inputs = [
            ("x", array(&[2, 3, 16], 1)),
            ("p", positions.clone()),
            ("c", array(&[8, 4], 2)),
            ("s", array(&[8, 4], 3)),
        ];
        let rotary =
            node(ms, "RotaryEmbedding", &["x", "p", "c", "s"], &["y"], &[("interleaved", A::I(interleaved))]);
        agree("RotaryEmbedding", &both(17, rotary, &inputs, 0, &["y"]), 1e-4);
    }
}

#[test]
fn operators_of_opset_23_agree_with_the_runtime() {
    let x = ("x", array(&[2, 3, 8], 5));
    let norm = node("", "RMSNormalization", &["x", "g"], &["y"], &[("epsilon", A::F(1e-5))]);
    agree("RMSNormalization", &both(23, norm, &[x, ("g", array(&[8], 8))], 0, &["y"]), 1e-4);
    for interleaved in [0, 1] {
        let positions = Array::of([2, 3], &[0i64, 1, 2, 4, 5, 6]).unwrap();
        let inputs = [
            ("x", array(&[2, 4, 3, 8], 1)),
            ("c", array(&[8, 4], 2)),
            ("s", array(&[8, 4], 3)),
            ("p", positions),
        ];
        let rotary =
            node("", "RotaryEmbedding", &["x", "c", "s", "p"], &["y"], &[("interleaved", A::I(interleaved))]);
        agree("RotaryEmbedding", &both(23, rotary, &inputs, 0, &["y"]), 1e-4);
    }
    let (q, k, v) =
        (("q", array(&[2, 4, 3, 8], 1)), ("k", array(&[2, 2, 5, 8], 2)), ("v", array(&[2, 2, 5, 6], 3)));
    let plain = node("", "Attention", &["q", "k", "v"], &["y"], &[]);
    agree("Attention", &both(23, plain, &[q.clone(), k.clone(), v.clone()], 0, &["y"]), 1e-4);
    let mask =
        ("m", Array::new(DType::Bool, [3, 5], vec![1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1]).unwrap());
    let masked = node("", "Attention", &["q", "k", "v", "m"], &["y"], &[("scale", A::F(0.3))]);
    agree("Attention, masked", &both(23, masked, &[q.clone(), k.clone(), v.clone(), mask], 0, &["y"]), 1e-4);
    let cached = node("", "Attention", &["q", "k", "v", "m", "pk", "pv"], &["y", "a", "b"], &[]);
    let inputs = [
        q.clone(),
        k,
        v,
        ("m", array(&[2, 1, 3, 9], 6)),
        ("pk", array(&[2, 2, 4, 8], 7)),
        ("pv", array(&[2, 2, 4, 6], 8)),
    ];
    agree("Attention with a cache", &both(23, cached, &inputs, 0, &["y", "a", "b"]), 1e-4);
    let flat = [("q", array(&[2, 5, 32], 1)), ("k", array(&[2, 5, 16], 2)), ("v", array(&[2, 5, 16], 3))];
    let heads = [("q_num_heads", A::I(4)), ("kv_num_heads", A::I(2)), ("is_causal", A::I(1))];
    let causal = node("", "Attention", &["q", "k", "v"], &["y"], &heads);
    agree("Attention, causal", &both(23, causal, &flat, 0, &["y"]), 1e-4);
}

#[test]
fn a_graph_of_the_editor_gives_what_its_messages_give() -> ort::Result<()> {
    use ort::editor::{Graph as Edited, Model, Node, ONNX_DOMAIN, Opset};
    use ort::memory::Allocator;
    use ort::session::builder::SessionBuilder;
    use ort::value::{Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType};

    // y = relu(x · w + b), once by the runtime's editor and once by our own messages.
    let (w, b) = (array(&[4, 3], 11), array(&[3], 12));
    let x = array(&[2, 4], 13);
    let environment = weighbridge_runtime::environment(None).unwrap();
    let outlet = |name: &str, shape: [i64; 2]| {
        let dimension_symbols = SymbolicDimensions::empty(2);
        Outlet::new(
            name,
            ValueType::Tensor { ty: TensorElementType::Float32, shape: Shape::new(shape), dimension_symbols },
        )
    };
    let mut graph = Edited::new()?;
    graph.set_inputs([outlet("x", [2, 4])])?;
    graph.set_outputs([outlet("y", [2, 3])])?;
    for (name, array) in [("w", &w), ("b", &b)] {
        let shape: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
        let mut tensor = Tensor::<f32>::new(&Allocator::default(), shape)?;
        tensor.extract_tensor_mut().1.copy_from_slice(&array.to_vec::<f32>().unwrap());
        graph.add_initializer(name, tensor, false)?;
    }
    graph.add_node(Node::new("MatMul", ONNX_DOMAIN, "product", ["x", "w"], ["p"], [])?)?;
    graph.add_node(Node::new("Add", ONNX_DOMAIN, "sum", ["p", "b"], ["s"], [])?)?;
    graph.add_node(Node::new("Relu", ONNX_DOMAIN, "relu", ["s"], ["y"], [])?)?;
    let mut edited = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    edited.set_graph(graph)?;
    let mut session = edited.into_session(&SessionBuilder::new(&environment)?)?;
    let input = Tensor::from_array(([2i64, 4], x.to_vec::<f32>().unwrap()))?;
    let outputs = session.run(ort::inputs!["x" => input])?;
    let theirs = Array::of([2, 3], outputs["y"].try_extract_tensor::<f32>()?.1).unwrap();

    let graph = GraphProto {
        node: vec![
            node("", "MatMul", &["x", "w"], &["p"], &[]),
            node("", "Add", &["p", "b"], &["s"], &[]),
            node("", "Relu", &["s"], &["y"], &[]),
        ],
        input: vec![value("x", 1, Some(&["2", "4"]))],
        output: vec![value("y", 1, Some(&["2", "3"]))],
        initializer: vec![proto::from_array("w", &w).unwrap(), proto::from_array("b", &b).unwrap()],
        ..GraphProto::default()
    };
    let bytes = model(graph, 17).encode_to_vec();
    let inputs = Arrays::from([("x".to_owned(), x)]);
    let same = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap().run(&inputs).unwrap();
    assert_eq!(same["y"], theirs);
    let ours = Graph::from_bytes(bytes).unwrap().run(&inputs, &EvaluateOptions::default()).unwrap();
    assert!(compare(&ours["y"], &theirs, Tolerance::of(DType::F32)).unwrap().within);
    Ok(())
}

/// Embeddings, a mask of what is padded, and a linear layer.
fn small_model() -> ModelProto {
    let constant = |name: &str, a: &Array| -> TensorProto { proto::from_array(name, a).unwrap() };
    let graph = GraphProto {
        node: vec![
            node("", "Gather", &["table", "input_ids"], &["e"], &[]),
            node("", "Cast", &["attention_mask"], &["m"], &[("to", A::I(1))]),
            node("", "Unsqueeze", &["m", "last"], &["m1"], &[]),
            node("", "Mul", &["e", "m1"], &["masked"], &[]),
            node("", "Transpose", &["w"], &["wt"], &[("perm", A::L(&[1, 0]))]),
            node("", "MatMul", &["masked", "wt"], &["y"], &[]),
        ],
        input: vec![
            value("input_ids", 7, Some(&["batch_size", "sequence_length"])),
            value("attention_mask", 7, Some(&["batch_size", "sequence_length"])),
        ],
        output: vec![value("y", 1, Some(&["batch_size", "sequence_length", "5"]))],
        initializer: vec![
            constant("table", &array(&[30, 8], 1)),
            constant("w", &array(&[5, 8], 2)),
            constant("last", &Array::of([1], &[-1i64]).unwrap()),
        ],
        ..GraphProto::default()
    };
    model(graph, 17)
}

#[test]
fn a_check_passes_what_is_right_and_finds_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, small_model().encode_to_vec()).unwrap();
    let report = check(&path, &CheckOptions::default()).unwrap();
    assert!(report.passed() && report.absolute() < 1e-5 && report.cosine() > 0.999_999, "{report:?}");
    assert_eq!(report.rounds.len(), 3);
    let shapes: Vec<_> = report.outputs().map(|o| o.shape.clone()).collect();
    assert_eq!(shapes, [[2, 6, 5], [1, 1, 5], [3, 17, 5]]);

    let mut options = CheckOptions::default();
    options.outputs = Some(Arrays::new());
    assert_eq!(check(&path, &options).unwrap_err().kind(), ErrorKind::InvalidOptions);
    let ones = Array::of([1, 2], &[1i64, 1]).unwrap();
    let inputs = Arrays::from([("input_ids".into(), ones.clone()), ("attention_mask".into(), ones)]);
    let right = Graph::open(&path).unwrap().run(&inputs, &EvaluateOptions::default()).unwrap();
    options.inputs = Some(inputs);
    options.outputs = Some(right.clone());
    assert!(check(&path, &options).unwrap().passed());
    let mut wrong = right["y"].to_vec::<f32>().unwrap();
    wrong[3] += 0.01;
    options.outputs = Some(Arrays::from([("y".into(), Array::of([1, 2, 5], &wrong).unwrap())]));
    let report = check(&path, &options).unwrap();
    assert!(!report.passed() && (report.absolute() - 0.01).abs() < 1e-4, "{report:?}");
    // Ids past the table are an error of both, and not a difference.
    let mut options = CheckOptions::default();
    options.vocabulary = Some(1000);
    assert!(check(&path, &options).is_err());
}

#[test]
fn models_that_reach_outside_their_folder_are_refused_before_the_runtime_sees_them() {
    use weighbridge_formats::backends::onnx::proto::StringStringEntryProto;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), [0u8; 960]).unwrap();
    std::fs::create_dir(folder.path().join("inner")).unwrap();
    let mut model = small_model();
    let entry =
        |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    let table = &mut model.graph.as_mut().unwrap().initializer[0];
    table.raw_data = None;
    table.data_location = Some(1);
    table.external_data = vec![entry("location", "../secret"), entry("offset", "0"), entry("length", "960")];
    let path = folder.path().join("inner/model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let error = Session::open(&path, &SessionOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{error}");
}
