//! Any bytes as an ONNX model, evaluated on inputs that are made up, within narrow bounds.

use weighbridge_runtime::{EvaluateOptions, GenerateOptions, Graph, generate};

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok(graph) = Graph::from_bytes(bytes.to_vec()) else { return };
    let sizes = graph.inputs().iter().filter_map(|p| p.shape.as_ref()).flatten();
    let elements = sizes.filter_map(|s| match s {
        weighbridge_runtime::Size::Fixed(n) => Some(*n),
        _ => None,
    });
    // Inputs are the caller's, whose size no bound of a run covers.
    if elements.fold(1u64, |n, d| n.saturating_mul(d.max(1))) > 1 << 16 {
        return;
    }
    let Ok(inputs) = generate(Some(&graph), graph.inputs(), &GenerateOptions::default()) else { return };
    let mut options = EvaluateOptions::default();
    (options.memory, options.steps, options.operations, options.threads) = (4 << 20, 1000, 1 << 22, Some(1));
    let _ = graph.run(&inputs, &options);
}
