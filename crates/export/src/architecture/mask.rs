//! Attention masks, as numbers that are added to scores.
//!
//! What is masked gets the most negative number that stays finite when a score is added to it, and each score gets one
//! such number at most: a row that is masked as a whole becomes an even distribution, and never NaN.

use weighbridge_formats::{DType, Result};

use crate::graph::{GraphBuilder, Value};

/// What is added to the score of a place that is masked: half of the range, so that no score takes the sum beyond it, and
/// that no runtime takes it for the lowest number, which ONNX Runtime's attention treats as a place that is not there.
pub(crate) fn masked(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -32_752.0,
        DType::Bf16 => f64::from(half::bf16::MIN) / 2.0,
        _ => f64::from(f32::MIN) / 2.0,
    }
}

/// From a mask of tokens `[batch, keys]`, 1 for those that count, to `[batch, 1, 1, keys]` for scores, or
/// `[batch, 1, keys, keys]` for attention as one operator: ONNX Runtime's does not broadcast it over queries.
pub(crate) fn padding(graph: &mut GraphBuilder<'_>, tokens: &Value) -> Result<Value> {
    let dtype = graph.compute();
    // Two steps, as runtimes that fuse attention expect them.
    let mask = graph.unsqueeze(tokens, &[1])?;
    let mask = graph.unsqueeze(&mask, &[2])?;
    let mask = graph.cast(&mask, dtype)?;
    let one = graph.float(dtype, 1.0)?;
    let mask = graph.sub(&one, &mask)?;
    let mask = graph.scale(&mask, masked(dtype))?;
    if !graph.has_attention() {
        return Ok(mask);
    }
    let (one, queries) = (graph.ints(&[1]), graph.size(tokens, 1)?);
    let to = graph.concat(&[&one, &one, &queries, &one], 0)?;
    let [batch, keys] = tokens.shape() else { return Err(graph.error("a mask of tokens")) };
    let shape = [batch.clone(), 1.into(), keys.clone(), keys.clone()];
    graph.expand(&mask, &to, &shape)
}
