//! Operators along dimensions: sums and their kin, largest and smallest, running sums, softmax.

use std::cmp::Ordering;

use weighbridge_formats::{Error, Result};

use crate::eval::elem::Elem;
use crate::eval::node::{Call, axes, axis, small};
use crate::eval::tensor::{Cx, Data, Held, Tensor, count, each};
use crate::eval::walk::{around, rows, signed, strides};

/// Which version of each reduction takes its axes as an input.
fn axes_of(call: &Call<'_>) -> Result<Option<Vec<i64>>> {
    call.listed("axes", 1)
}

pub(super) fn reduce(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let listed = axes_of(call)?.filter(|a| !a.is_empty());
    let over = match listed {
        Some(list) => axes(&list, x.rank())?,
        None if call.flag("noop_with_empty_axes", false)? => return Ok(vec![pointwise(cx, call, x)?]),
        None => (0..x.rank()).collect(),
    };
    let keep = call.flag("keepdims", true)?;
    let mut folded = x.shape().to_vec();
    over.iter().for_each(|&a| folded[a] = 1);
    let mut shape = folded.clone();
    if !keep {
        shape = (0..x.rank()).filter(|a| !over.contains(a)).map(|a| folded[a]).collect();
    }
    let n = count(&folded)?;
    // The output is walked with a stride of 0 where it is folded.
    let mut steps = strides(&folded);
    over.iter().for_each(|&a| steps[a] = 0);
    let each_sums: usize = over.iter().map(|&a| x.shape()[a]).product();
    cx.work(x.len().saturating_mul(2))?;
    let op = call.node.op.strip_prefix("Reduce").unwrap_or(&call.node.op);
    let data = match (op, x.data()) {
        ("Max" | "Min", _) => extreme(cx, x, op == "Max", &steps, n, each_sums)?,
        (_, Data::F32(v)) => {
            let out = fold(cx, v, x.shape(), &steps, n, op, each_sums)?;
            Data::F32(out.into_iter().map(|x| x as f32).collect())
        }
        (_, Data::F64(v)) => Data::F64(fold(cx, v, x.shape(), &steps, n, op, each_sums)?),
        ("Sum" | "Prod" | "SumSquare" | "L1", _) => integers(cx, x, &steps, n, op)?,
        ("Mean", Data::I32(_) | Data::I64(_)) => {
            let Data::I64(sums) =
                integers(cx, &super::unary::cast_to(cx, x, Elem::I64, true)?, &steps, n, "Sum")?
            else {
                return Err(Error::malformed("a sum"));
            };
            let means = sums.into_iter().map(|s| s.checked_div(each_sums as i64).unwrap_or(0));
            match x.elem() {
                Elem::I32 => Data::I32(means.map(|m| m as i32).collect()),
                _ => Data::I64(means.collect()),
            }
        }
        _ => return Err(Error::unsupported(format!("{} of {}", call.node.op, x.elem().name()))),
    };
    Ok(vec![Tensor::new(cx, x.elem(), shape, data)?])
}

/// A reduction over no axis at all: what it does to each element.
fn pointwise(cx: &Cx, call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    match &*call.node.op {
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" => Ok(x.clone()),
        other => {
            let _ = cx;
            Err(Error::unsupported(format!("{other} over no axes")))
        }
    }
}

/// Sums and their kin in f64.
fn fold<T: Held>(
    cx: &Cx,
    v: &[T],
    shape: &[usize],
    steps: &[usize],
    n: usize,
    op: &str,
    each_sums: usize,
) -> Result<Vec<f64>> {
    let start = if op == "Prod" { 1.0 } else { 0.0 };
    let mut out = cx.filled(n, start)?;
    // LogSumExp is taken relative to the largest, so that nothing overflows.
    let mut largest = Vec::new();
    if op == "LogSumExp" {
        largest = cx.filled(n, f64::NEG_INFINITY)?;
        walk(v, shape, steps, &mut largest, |m, x| {
            if x > *m {
                *m = x;
            }
        })?;
        largest.iter_mut().filter(|m| !m.is_finite()).for_each(|m| *m = 0.0);
        let mut at = 0;
        let (own, to) = (signed(&strides(shape)), signed(steps));
        let run = shape.last().copied().unwrap_or(1);
        let step = steps.last().copied().unwrap_or(0);
        rows(shape, [&own, &to], [0, 0], |[_, o]| {
            for i in 0..run {
                let o = o as usize + i * step;
                out[o] += (v[at].to_f64() - largest[o]).exp();
                at += 1;
            }
            Ok(())
        })?;
    } else {
        let f: fn(&mut f64, f64) = match op {
            "Sum" | "Mean" | "LogSum" => |o, x| *o += x,
            "Prod" => |o, x| *o *= x,
            "SumSquare" | "L2" => |o, x| *o += x * x,
            "L1" => |o, x| *o += x.abs(),
            _ => return Err(Error::unsupported("no reduction of this name")),
        };
        walk(v, shape, steps, &mut out, f)?;
    }
    match op {
        "Mean" => out.iter_mut().for_each(|o| *o /= each_sums as f64),
        "L2" => out.iter_mut().for_each(|o| *o = o.sqrt()),
        "LogSum" => out.iter_mut().for_each(|o| *o = o.ln()),
        "LogSumExp" => out.iter_mut().zip(&largest).for_each(|(o, m)| *o = o.ln() + m),
        _ => {}
    }
    Ok(out)
}

/// Calls `f` for each element with the place in `out` that it folds into.
fn walk<T: Held, O>(
    v: &[T],
    shape: &[usize],
    steps: &[usize],
    out: &mut [O],
    mut f: impl FnMut(&mut O, f64),
) -> Result<()> {
    let (own, to) = (signed(&strides(shape)), signed(steps));
    let run = shape.last().copied().unwrap_or(1);
    let step = steps.last().copied().unwrap_or(0);
    rows(shape, [&own, &to], [0, 0], |[at, o]| {
        for (i, x) in v[at as usize..at as usize + run].iter().enumerate() {
            f(&mut out[o as usize + i * step], x.to_f64());
        }
        Ok(())
    })
}

fn extreme(cx: &Cx, x: &Tensor, largest: bool, steps: &[usize], n: usize, each: usize) -> Result<Data> {
    fn of<T: Held>(
        cx: &Cx,
        v: &[T],
        shape: &[usize],
        steps: &[usize],
        n: usize,
        largest: bool,
    ) -> Result<Vec<T>> {
        let mut out: Vec<Option<T>> = cx.filled(n, None)?;
        let (own, to) = (signed(&strides(shape)), signed(steps));
        let run = shape.last().copied().unwrap_or(1);
        let step = steps.last().copied().unwrap_or(0);
        rows(shape, [&own, &to], [0, 0], |[at, o]| {
            for (i, &x) in v[at as usize..at as usize + run].iter().enumerate() {
                let o = &mut out[o as usize + i * step];
                // The second comparison is true where x is NaN, which wins.
                let better =
                    o.is_none_or(|o| if largest { x > o } else { x < o } || x.partial_cmp(&x).is_none());
                if better {
                    *o = Some(x);
                }
            }
            Ok(())
        })?;
        Ok(out.into_iter().map(Option::unwrap_or_default).collect())
    }
    if each == 0 && n > 0 {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        let edge = if largest { low } else { high };
        return match x.data() {
            Data::F32(_) => Ok(Data::F32(cx.filled(n, edge as f32)?)),
            Data::F64(_) => Ok(Data::F64(cx.filled(n, edge)?)),
            Data::Bool(_) => Ok(Data::Bool(cx.filled(n, !largest)?)),
            _ => {
                let (low, high) = x.elem().range().unwrap_or((0, 0));
                let edge = Tensor::of(cx, vec![n], cx.filled(n, if largest { low } else { high })?)?;
                Ok(super::unary::cast_to(cx, &edge, x.elem(), true)?.data().clone())
            }
        };
    }
    Ok(crate::eval::tensor::same!(x.data(), v => of(cx, v, x.shape(), steps, n, largest)?))
}

fn integers(cx: &Cx, x: &Tensor, steps: &[usize], n: usize, op: &str) -> Result<Data> {
    let (own, to) = (signed(&strides(x.shape())), signed(steps));
    let run = x.shape().last().copied().unwrap_or(1);
    let step = steps.last().copied().unwrap_or(0);
    macro_rules! folded {
        ($($variant:ident $type:ty;)*) => {
            match x.data() {
                $(Data::$variant(v) => {
                    let mut out = cx.filled(n, <$type>::from(op == "Prod"))?;
                    rows(x.shape(), [&own, &to], [0, 0], |[at, o]| {
                        for (i, &x) in v[at as usize..at as usize + run].iter().enumerate() {
                            let o = &mut out[o as usize + i * step];
                            *o = match op {
                                "Prod" => o.wrapping_mul(x),
                                "SumSquare" => o.wrapping_add(x.wrapping_mul(x)),
                                #[allow(unused_comparisons)]
                                "L1" => if x < 0 { o.wrapping_sub(x) } else { o.wrapping_add(x) },
                                _ => o.wrapping_add(x),
                            };
                        }
                        Ok(())
                    })?;
                    Ok(Data::$variant(out))
                })*
                _ => Err(Error::malformed("a sum of booleans")),
            }
        };
    }
    folded!(I8 i8; I16 i16; I32 i32; I64 i64; U8 u8; U16 u16; U32 u32; U64 u64;)
}

/// ArgMax and ArgMin.
pub(super) fn arg(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", 0)?, x.rank())?;
    let (before, size, behind) = around(x.shape(), along);
    if size == 0 {
        return Err(Error::malformed("the largest of none"));
    }
    let (largest, last) = (call.node.op == "ArgMax", call.flag("select_last_index", false)?);
    cx.work(x.len())?;
    let mut out: Vec<i64> = cx.reserved(before * behind)?;
    each!(x.data(), v => {
        for i in 0..before {
            for j in 0..behind {
                let at = |k: usize| v[i * size * behind + k * behind + j];
                let mut best = 0;
                for k in 1..size {
                    let order = at(k).partial_cmp(&at(best));
                    let better = if largest { Ordering::Greater } else { Ordering::Less };
                    if order == Some(better) || last && order == Some(Ordering::Equal) {
                        best = k;
                    }
                }
                out.push(best as i64);
            }
        }
    });
    let mut shape = x.shape().to_vec();
    if call.flag("keepdims", true)? {
        shape[along] = 1;
    } else {
        shape.remove(along);
    }
    Ok(vec![Tensor::of(cx, shape, out)?])
}

/// TopK: the number is an attribute before version 10, then an input. Of equal elements the first come first.
pub(super) fn top_k(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", -1)?, x.rank())?;
    let k = match call.optional(1) {
        Some(k) => k.integer()?,
        None => call.int("k", -1)?,
    };
    let k = small(k, 0, "k")?;
    let (before, size, behind) = around(x.shape(), along);
    if k > size {
        return Err(Error::malformed(format!("the first {k} of {size}")));
    }
    let largest = call.flag("largest", true)?;
    let mut shape = x.shape().to_vec();
    shape[along] = k;
    let n = count(&shape)?;
    cx.work(x.len().saturating_mul(20))?;
    let mut places: Vec<i64> = cx.filled(n, 0)?;
    let data = crate::eval::tensor::same!(x.data(), v => {
        let mut values = cx.filled(n, Default::default())?;
        for i in 0..before {
            for j in 0..behind {
                let at = |p: &usize| v[i * size * behind + p * behind + j];
                let mut order: Vec<usize> = (0..size).collect();
                order.sort_by(|a, b| {
                    let (a, b) = (Held::to_f64(at(a)), Held::to_f64(at(b)));
                    if largest { b.total_cmp(&a) } else { a.total_cmp(&b) }
                });
                for (r, p) in order.iter().take(k).enumerate() {
                    let to = i * k * behind + r * behind + j;
                    values[to] = at(p);
                    places[to] = *p as i64;
                }
            }
        }
        values
    });
    Ok(vec![Tensor::exact(cx, x.elem(), shape.clone(), data)?, Tensor::of(cx, shape, places)?])
}

pub(super) fn cum_sum(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let along = axis(call.input(1)?.integer()?, x.rank())?;
    let (exclusive, reverse) = (call.flag("exclusive", false)?, call.flag("reverse", false)?);
    let (before, size, behind) = around(x.shape(), along);
    cx.work(x.len())?;
    macro_rules! summed {
        ($($variant:ident $sum:expr;)*) => {
            match x.data() {
                $(Data::$variant(v) => {
                    let mut out = cx.filled(v.len(), Default::default())?;
                    for i in 0..before {
                        for j in 0..behind {
                            let mut sum = Default::default();
                            for k in 0..size {
                                let k = if reverse { size - 1 - k } else { k };
                                let at = (i * size + k) * behind + j;
                                let next = $sum(sum, v[at]);
                                out[at] = if exclusive { sum } else { next };
                                sum = next;
                            }
                        }
                    }
                    Data::$variant(out)
                })*
                _ => return Err(Error::unsupported(format!("CumSum of {}", x.elem().name()))),
            }
        };
    }
    let data = summed! {
        F32 |a: f32, b: f32| a + b; F64 |a: f64, b: f64| a + b;
        I32 i32::wrapping_add; I64 i64::wrapping_add; U32 u32::wrapping_add; U64 u64::wrapping_add;
    };
    Ok(vec![Tensor::new(cx, x.elem(), x.shape().to_vec(), data)?])
}

/// Softmax, LogSoftmax and Hardmax: before version 13 over all dimensions from the axis on.
pub(super) fn softmax(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let old = call.version() < 13;
    let default = if old { 1 } else { -1 };
    let along = call.int("axis", default)?;
    let (before, size, behind) = if old && along == x.rank() as i64 {
        (x.len(), 1, 1)
    } else {
        let along = axis(along, x.rank())?;
        let (before, size, behind) = around(x.shape(), along);
        if old { (before, size * behind, 1) } else { (before, size, behind) }
    };
    cx.work(x.len().saturating_mul(4))?;
    let op = &*call.node.op;
    macro_rules! over {
        ($v:expr, $type:ty) => {{
            let mut out = $v.clone();
            let mut line: Vec<$type> = cx.filled(size, 0.0)?;
            for i in 0..before {
                for j in 0..behind {
                    let at = |k: usize| (i * size + k) * behind + j;
                    for k in 0..size {
                        line[k] = out[at(k)];
                    }
                    match op {
                        "Softmax" => normalize(&mut line),
                        "LogSoftmax" => {
                            let most = line.iter().copied().fold(<$type>::NEG_INFINITY, <$type>::max);
                            let sum: $type = line.iter().map(|x| (x - most).exp()).sum();
                            let log = sum.ln() + most;
                            line.iter_mut().for_each(|x| *x -= log);
                        }
                        _ => {
                            let mut best = 0;
                            for k in 1..size {
                                if line[k] > line[best] {
                                    best = k;
                                }
                            }
                            line.fill(0.0);
                            if let Some(x) = line.get_mut(best) {
                                *x = 1.0;
                            }
                        }
                    }
                    for k in 0..size {
                        out[at(k)] = line[k];
                    }
                }
            }
            out
        }};
    }
    cx.room(x.len(), 16)?;
    let data = match x.data() {
        Data::F32(v) => Data::F32(over!(v, f32)),
        Data::F64(v) => Data::F64(over!(v, f64)),
        _ => return Err(Error::malformed(format!("{op} of {}", x.elem().name()))),
    };
    Ok(vec![Tensor::new(cx, x.elem(), x.shape().to_vec(), data)?])
}

/// Exponentials over their sum, relative to the largest. Where all are -∞ the result is NaN, as the runtime has it.
pub(super) fn normalize<T: num::Real>(line: &mut [T]) {
    let most = line.iter().copied().fold(T::LEAST, T::larger);
    let mut sum = T::ZERO;
    for x in line.iter_mut() {
        *x = x.exp_less(most);
        sum = sum.plus(*x);
    }
    for x in line {
        *x = x.over(sum);
    }
}

/// The little of arithmetic that softmax is generic over.
mod num {
    pub(in super::super) trait Real: Copy {
        const LEAST: Self;
        const ZERO: Self;
        fn larger(self, other: Self) -> Self;
        fn exp_less(self, other: Self) -> Self;
        fn plus(self, other: Self) -> Self;
        fn over(self, other: Self) -> Self;
    }

    macro_rules! real {
        ($($type:ty)*) => { $(
            impl Real for $type {
                const LEAST: Self = <$type>::NEG_INFINITY;
                const ZERO: Self = 0.0;
                fn larger(self, other: Self) -> Self { self.max(other) }
                fn exp_less(self, other: Self) -> Self { (self - other).exp() }
                fn plus(self, other: Self) -> Self { self + other }
                fn over(self, other: Self) -> Self { self / other }
            }
        )* };
    }

    real!(f32 f64);
}
