//! Operators that run graphs: If, Loop, Scan, and calls of a model's own functions.

use weighbridge_formats::{Error, Result};

use super::shape::{joined, part};
use crate::eval::node::{Call, axis, small};
use crate::eval::run::run_body;
use crate::eval::tensor::{Cx, Tensor};

pub(super) fn choose(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let branch = if call.input(0)?.truth()? { "then_branch" } else { "else_branch" };
    run_body(cx, call.body(branch)?, Vec::new(), call.captured(branch))
}

/// A function of the model's own, whose body was put in place when the graph was read.
pub(super) fn call(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let body = call.body("body")?;
    let inputs = (0..body.inputs.len()).map(|i| call.input(i).cloned()).collect::<Result<_>>()?;
    run_body(cx, body, inputs, Vec::new())
}

/// Values of one output over all turns, along a new first dimension.
fn stacked(cx: &Cx, turns: &[Tensor], along: i64, reverse: bool) -> Result<Tensor> {
    let Some(first) = turns.first() else {
        return Err(Error::unsupported(
            "an output of no turns, whose shape and type only the types of the body say",
        ));
    };
    let along = axis(along, first.rank() + 1)?;
    let lifted = turns
        .iter()
        .map(|t| {
            let mut shape = t.shape().to_vec();
            shape.insert(along.min(shape.len()), 1);
            t.reshaped(shape)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut parts: Vec<&Tensor> = lifted.iter().collect();
    if reverse {
        parts.reverse();
    }
    joined(cx, &parts, along)
}

pub(super) fn repeat(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let body = call.body("body")?;
    let most = call.optional(0).map(Tensor::integer).transpose()?.unwrap_or(i64::MAX);
    let mut go_on = call.optional(1).map(Tensor::truth).transpose()?.unwrap_or(true);
    let mut carried = (2..call.inputs.len()).map(|i| call.input(i).cloned()).collect::<Result<Vec<_>>>()?;
    let n = carried.len();
    let Some(scans) = body.outputs.len().checked_sub(n + 1) else {
        return Err(Error::malformed("a loop body with too few outputs"));
    };
    let mut turns: Vec<Vec<Tensor>> = vec![Vec::new(); scans];
    let mut turn = 0i64;
    while go_on && turn < most {
        cx.step()?;
        let mut inputs = vec![Tensor::scalar(cx, turn)?, Tensor::scalar(cx, go_on)?];
        inputs.append(&mut carried);
        let mut outputs = run_body(cx, body, inputs, call.captured("body"))?.into_iter();
        go_on = outputs.next().ok_or_else(|| Error::malformed("a loop body without a condition"))?.truth()?;
        carried = outputs.by_ref().take(n).collect();
        turns.iter_mut().zip(outputs).for_each(|(list, t)| list.push(t));
        turn += 1;
    }
    for list in &turns {
        carried.push(stacked(cx, list, 0, false)?);
    }
    Ok(carried)
}

/// Scan as it is from version 9 on.
pub(super) fn scan(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    if call.version() < 9 {
        return Err(Error::unsupported("Scan before version 9"));
    }
    let body = call.body("body")?;
    let scanned = small(call.int("num_scan_inputs", 0)?, 1, "num_scan_inputs")?;
    let wrong = || Error::malformed("a scan whose inputs and outputs do not fit its body");
    let n = call.inputs.len().checked_sub(scanned).ok_or_else(wrong)?;
    let scans = body.outputs.len().checked_sub(n).ok_or_else(wrong)?;
    let listed = |name: &str, len: usize| -> Result<Vec<i64>> {
        let list = call.ints(name)?.map_or_else(|| vec![0; len], <[i64]>::to_vec);
        if list.len() == len { Ok(list) } else { Err(wrong()) }
    };
    let (in_axes, in_back) = (listed("scan_input_axes", scanned)?, listed("scan_input_directions", scanned)?);
    let (out_axes, out_back) = (listed("scan_output_axes", scans)?, listed("scan_output_directions", scans)?);
    let mut carried = (0..n).map(|i| call.input(i).cloned()).collect::<Result<Vec<_>>>()?;
    let mut length = None;
    let mut axes = Vec::with_capacity(scanned);
    for (i, &a) in in_axes.iter().enumerate() {
        let x = call.input(n + i)?;
        let a = axis(a, x.rank())?;
        if *length.get_or_insert(x.shape()[a]) != x.shape()[a] {
            return Err(wrong());
        }
        axes.push(a);
    }
    let length = length.unwrap_or(0);
    let mut turns: Vec<Vec<Tensor>> = vec![Vec::new(); scans];
    for turn in 0..length {
        cx.step()?;
        let mut inputs = std::mem::take(&mut carried);
        for (i, &a) in axes.iter().enumerate() {
            let x = call.input(n + i)?;
            let at = if in_back[i] == 0 { turn } else { length - 1 - turn };
            let one = part(cx, x, a, at, 1)?;
            let mut shape = x.shape().to_vec();
            shape.remove(a);
            inputs.push(one.reshaped(shape)?);
        }
        let mut outputs = run_body(cx, body, inputs, call.captured("body"))?.into_iter();
        carried = outputs.by_ref().take(n).collect();
        turns.iter_mut().zip(outputs).for_each(|(list, t)| list.push(t));
    }
    for (i, list) in turns.iter().enumerate() {
        carried.push(stacked(cx, list, out_axes[i], out_back[i] != 0)?);
    }
    Ok(carried)
}
