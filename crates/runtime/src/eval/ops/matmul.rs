//! Products of matrices: MatMul, Gemm, Einsum, and those of integers.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, LinalgScalar, ShapeBuilder as _};
use weighbridge_formats::{Error, Result};

use crate::eval::elem::Elem;
use crate::eval::node::Call;
use crate::eval::tensor::{Cx, Data, Held, Tensor, count};
use crate::eval::walk::{broadcast, signed, stretched, strides};

/// A matrix in memory: its elements, and the distances between rows and between columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T>(pub(super) &'a [T], pub(super) usize, pub(super) usize);

/// Products of fewer multiplications are not worth a thread.
const WORTH: usize = 1 << 21;

/// `out` = `a` (m × k) · `b` (k × n), by several threads where that is worth it.
pub(super) fn product<T: LinalgScalar + Send + Sync>(
    cx: &Cx,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    (m, k, n): (usize, usize, usize),
    out: &mut [T],
) -> Result<()> {
    cx.work(m.saturating_mul(k).saturating_mul(n))?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        out.fill(T::zero());
        return Ok(());
    }
    let wrong = |_| Error::malformed("a matrix that is no part of its tensor");
    let a = ArrayView2::from_shape((m, k).strides((a.1, a.2)), a.0).map_err(wrong)?;
    let b = ArrayView2::from_shape((k, n).strides((b.1, b.2)), b.0).map_err(wrong)?;
    let mut out = ArrayViewMut2::from_shape((m, n), out).map_err(wrong)?;
    let (one, zero) = (T::one(), T::zero());
    if cx.threads < 2 || m.saturating_mul(k).saturating_mul(n) < WORTH {
        general_mat_mul(one, &a, &b, zero, &mut out);
        return Ok(());
    }
    // By rows or by columns, whichever there are more of; the parts are multiples of what a kernel takes at once.
    let by = if m >= n { Axis(0) } else { Axis(1) };
    let size = m.max(n).div_ceil(cx.threads).next_multiple_of(16);
    std::thread::scope(|scope| {
        for (i, mut part) in out.axis_chunks_iter_mut(by, size).enumerate() {
            scope.spawn(move || {
                let range = ndarray::Slice::from(i * size..i * size + part.len_of(by));
                let (a, b) = match by {
                    Axis(0) => (a.slice_axis_move(by, range), b),
                    _ => (a, b.slice_axis_move(by, range)),
                };
                general_mat_mul(one, &a, &b, zero, &mut part);
            });
        }
    });
    Ok(())
}

/// The sizes of a product as NumPy's `matmul` has them: batches broadcast, vectors count as matrices.
pub(super) struct Sizes {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) batch: Vec<usize>,
    /// For each input: the strides of its batches, in elements.
    pub(super) steps: [Vec<isize>; 2],
    pub(super) out: Vec<usize>,
}

pub(super) fn sizes(a: &[usize], b: &[usize]) -> Result<Sizes> {
    let wrong = || Error::malformed(format!("a product of {a:?} and {b:?}"));
    let (first, last) = (a.len() == 1, b.len() == 1);
    let (wide_a, wide_b);
    let a = if first {
        wide_a = [1, a[0]];
        &wide_a[..]
    } else {
        a
    };
    let b = if last {
        wide_b = [b[0], 1];
        &wide_b[..]
    } else {
        b
    };
    let ([batch_a @ .., m, k], [batch_b @ .., kb, n]) = (a, b) else { return Err(wrong()) };
    if k != kb {
        return Err(wrong());
    }
    let batch = broadcast(&[batch_a, batch_b])?;
    let mut out = batch.clone();
    if !first {
        out.push(*m);
    }
    if !last {
        out.push(*n);
    }
    count(&out)?;
    let steps = |own: &[usize], size: usize| -> Vec<isize> {
        signed(&stretched(own, &batch)).into_iter().map(|s| s * size as isize).collect()
    };
    let steps = [steps(batch_a, m * k), steps(batch_b, k * n)];
    Ok(Sizes { m: *m, k: *k, n: *n, batch, steps, out })
}

/// The offset of batch number `i` in a tensor with these steps.
pub(super) fn batch_offset(i: usize, batch: &[usize], steps: &[isize]) -> usize {
    let (mut rest, mut at) = (i, 0);
    for (&d, &s) in batch.iter().zip(steps).rev() {
        at += (rest % d.max(1)) * s as usize;
        rest /= d.max(1);
    }
    at
}

fn multiply<T: LinalgScalar + Held>(cx: &Cx, a: &[T], b: &[T], s: &Sizes) -> Result<Vec<T>> {
    let mut out = cx.filled(count(&s.out)?, T::default())?;
    let (m, k, n) = (s.m, s.k, s.n);
    // One matrix for all batches is one product with more rows.
    if s.steps[1].iter().all(|&x| x == 0) && a.len() == out.len() / n.max(1) * k && n > 0 {
        let rows = out.len() / n;
        product(cx, Matrix(a, k.max(1), 1), Matrix(b, n, 1), (rows, k, n), &mut out)?;
        return Ok(out);
    }
    for (i, part) in out.chunks_exact_mut((m * n).max(1)).enumerate() {
        let x = batch_offset(i, &s.batch, &s.steps[0]);
        let y = batch_offset(i, &s.batch, &s.steps[1]);
        let (x, y) = (&a[x..x + m * k], &b[y..y + k * n]);
        product(cx, Matrix(x, k.max(1), 1), Matrix(y, n.max(1), 1), (m, k, n), part)?;
    }
    Ok(out)
}

/// Integers wrap, so that they go by a plain loop.
macro_rules! wrapping {
    ($cx:expr, $a:expr, $b:expr, $s:expr, $type:ty) => {{
        let s = $s;
        let mut out = $cx.filled(count(&s.out)?, <$type>::default())?;
        $cx.work(out.len().saturating_mul(s.k))?;
        for (i, part) in out.chunks_exact_mut((s.m * s.n).max(1)).enumerate() {
            let x = batch_offset(i, &s.batch, &s.steps[0]);
            let y = batch_offset(i, &s.batch, &s.steps[1]);
            for r in 0..s.m {
                for c in 0..s.k {
                    let a = $a[x + r * s.k + c];
                    let row = &$b[y + c * s.n..y + (c + 1) * s.n];
                    for (o, &b) in part[r * s.n..(r + 1) * s.n].iter_mut().zip(row) {
                        *o = o.wrapping_add(a.wrapping_mul(b));
                    }
                }
            }
        }
        out
    }};
}

pub(super) fn matmul(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    Ok(vec![matmul_of(cx, a, b)?])
}

pub(super) fn matmul_of(cx: &Cx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let s = sizes(a.shape(), b.shape())?;
    let data = match (a.data(), b.data()) {
        (Data::F32(x), Data::F32(y)) => Data::F32(multiply(cx, x, y, &s)?),
        (Data::F64(x), Data::F64(y)) => Data::F64(multiply(cx, x, y, &s)?),
        (Data::I32(x), Data::I32(y)) => Data::I32(wrapping!(cx, x, y, &s, i32)),
        (Data::I64(x), Data::I64(y)) => Data::I64(wrapping!(cx, x, y, &s, i64)),
        (Data::U32(x), Data::U32(y)) => Data::U32(wrapping!(cx, x, y, &s, u32)),
        (Data::U64(x), Data::U64(y)) => Data::U64(wrapping!(cx, x, y, &s, u64)),
        _ => {
            let (a, b) = (a.elem().name(), b.elem().name());
            return Err(Error::malformed(format!("a product of {a} and {b}")));
        }
    };
    Tensor::new(cx, a.elem(), s.out, data)
}

pub(super) fn gemm(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (ta, tb) = (call.flag("transA", false)?, call.flag("transB", false)?);
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let wrong = || Error::malformed(format!("Gemm of {:?} and {:?}", a.shape(), b.shape()));
    let (&[ra, ca], &[rb, cb]) = (a.shape(), b.shape()) else { return Err(wrong()) };
    let (m, k, k_b, n) = (
        if ta { ca } else { ra },
        if ta { ra } else { ca },
        if tb { cb } else { rb },
        if tb { rb } else { cb },
    );
    if k != k_b {
        return Err(wrong());
    }
    let shape = vec![m, n];
    if let Some(c) = call.optional(2)
        && broadcast(&[c.shape(), &shape])? != shape
    {
        return Err(Error::malformed(format!("Gemm adds {:?} to {shape:?}", c.shape())));
    }
    macro_rules! run {
        ($type:ty, $x:expr, $y:expr) => {{
            let mut out = cx.filled(count(&shape)?, <$type>::default())?;
            let view = |t: bool, v: &[$type], cols: usize| -> (usize, usize) {
                let _ = v;
                if t { (1, cols.max(1)) } else { (cols.max(1), 1) }
            };
            let (sa, sb) = (view(ta, $x, ca), view(tb, $y, cb));
            product(cx, Matrix($x, sa.0, sa.1), Matrix($y, sb.0, sb.1), (m, k, n), &mut out)?;
            if alpha != 1.0 {
                out.iter_mut().for_each(|x| *x *= alpha as $type);
            }
            if let Some(c) = call.optional(2) {
                let c = crate::eval::walk::expand(cx, c.values::<$type>()?, c.shape(), &shape)?;
                out.iter_mut().zip(c).for_each(|(x, c)| *x += beta as $type * c);
            }
            out
        }};
    }
    #[allow(clippy::cast_lossless)]
    let data = match (a.data(), b.data()) {
        (Data::F32(x), Data::F32(y)) => Data::F32(run!(f32, x, y)),
        (Data::F64(x), Data::F64(y)) => Data::F64(run!(f64, x, y)),
        _ => return Err(Error::unsupported("Gemm of integers")),
    };
    Ok(vec![Tensor::new(cx, a.elem(), shape, data)?])
}

/// How many products of two 8-bit numbers an f32 sums exactly: 258 · 255² < 2²⁴.
const EXACT: usize = 256;

/// The product of matrices of small integers (below 256 in size), exact in i32: by f32 products of a few columns each.
pub(super) fn integer_product(
    cx: &Cx,
    a: Matrix<'_, f32>,
    b: Matrix<'_, f32>,
    (m, k, n): (usize, usize, usize),
    out: &mut [i32],
) -> Result<()> {
    let mut part = cx.filled(out.len(), 0f32)?;
    for start in (0..k).step_by(EXACT) {
        let size = EXACT.min(k - start);
        let a = Matrix(a.0.get(start * a.2..).unwrap_or_default(), a.1, a.2);
        let b = Matrix(b.0.get(start * b.1..).unwrap_or_default(), b.1, b.2);
        product(cx, a, b, (m, size, n), &mut part)?;
        out.iter_mut().zip(&part).for_each(|(o, &p)| *o = o.wrapping_add(p as i32));
    }
    Ok(())
}

/// Integers of 8 bits less their zero point, as f32. The zero point is one number, or one for each row or column
/// (`dimension` counts from the back).
pub(super) fn centred(cx: &Cx, x: &Tensor, zero: Option<&Tensor>, dimension: usize) -> Result<Vec<f32>> {
    if !matches!(x.elem(), Elem::U8 | Elem::I8 | Elem::U4 | Elem::I4) {
        return Err(Error::malformed(format!(
            "a tensor of {} stands where 8-bit integers are wanted",
            x.elem().name()
        )));
    }
    cx.room(x.len(), 16)?;
    let mut out: Vec<f32> = match x.data() {
        Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
        Data::I8(v) => v.iter().map(|&x| x.into()).collect(),
        _ => return Err(Error::malformed("8-bit integers are wanted")),
    };
    let Some(zero) = zero else { return Ok(out) };
    if zero.elem() != x.elem() {
        return Err(Error::malformed("a zero point of another type"));
    }
    let points = zero.integers()?;
    if let [one] = points[..] {
        out.iter_mut().for_each(|x| *x -= one as f32);
        return Ok(out);
    }
    let size = x.rank().checked_sub(dimension).and_then(|d| x.shape().get(d)).copied().unwrap_or(1);
    let behind: usize = x.shape()[x.rank() - dimension.min(x.rank()) + 1..].iter().product();
    if points.len() != size {
        return Err(Error::malformed(format!("{} zero points for a dimension of {size}", points.len())));
    }
    for (i, x) in out.iter_mut().enumerate() {
        *x -= points[i / behind.max(1) % size.max(1)] as f32;
    }
    Ok(out)
}

/// The product of two tensors of 8-bit integers.
pub(super) fn integer_matmul(
    cx: &Cx,
    a: &Tensor,
    az: Option<&Tensor>,
    b: &Tensor,
    bz: Option<&Tensor>,
) -> Result<Tensor> {
    let s = sizes(a.shape(), b.shape())?;
    let (x, y) = (centred(cx, a, az, 2)?, centred(cx, b, bz, 1)?);
    let mut out = cx.filled(count(&s.out)?, 0i32)?;
    let (m, k, n) = (s.m, s.k, s.n);
    if s.steps[1].iter().all(|&x| x == 0) && x.len() == out.len() / n.max(1) * k && n > 0 {
        let rows = out.len() / n;
        integer_product(cx, Matrix(&x, k.max(1), 1), Matrix(&y, n, 1), (rows, k, n), &mut out)?;
    } else {
        for (i, part) in out.chunks_exact_mut((m * n).max(1)).enumerate() {
            let ox = batch_offset(i, &s.batch, &s.steps[0]);
            let oy = batch_offset(i, &s.batch, &s.steps[1]);
            let (x, y) = (&x[ox..ox + m * k], &y[oy..oy + k * n]);
            integer_product(cx, Matrix(x, k.max(1), 1), Matrix(y, n.max(1), 1), (m, k, n), part)?;
        }
    }
    Tensor::of(cx, s.out, out)
}

pub(super) fn matmul_integer(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    Ok(vec![integer_matmul(cx, a, call.optional(2), b, call.optional(3))?])
}

/// The letters of one operand of an equation, `...` as digits, for dimensions counted from the back.
fn letters(term: &str, rank: usize) -> Result<Vec<char>> {
    let term: String = term.chars().filter(|c| !c.is_whitespace()).collect();
    let named = term.replace("...", "");
    if !named.chars().all(|c| c.is_ascii_alphabetic()) || named.len() > rank {
        return Err(Error::malformed(format!("an operand {term:?} of {rank} dimensions")));
    }
    let Some(at) = term.find("...") else {
        return if named.len() == rank {
            Ok(named.chars().collect())
        } else {
            Err(Error::malformed(format!("an operand {term:?} of {rank} dimensions")))
        };
    };
    let hidden = rank - named.len();
    if hidden > 9 {
        return Err(Error::unsupported(format!("an ellipsis of {hidden} dimensions")));
    }
    let mut out: Vec<char> = named[..at].chars().collect();
    out.extend((0..hidden).rev().filter_map(|d| char::from_digit(d as u32, 10)));
    out.extend(named[at..].chars());
    Ok(out)
}

/// Einsum by a walk over all indices: plain, and slow for large operands.
pub(super) fn einsum(cx: &Cx, call: &Call<'_>) -> Result<Vec<Tensor>> {
    let equation = call.text("equation", "")?;
    let (left, right) = equation.split_once("->").map_or((equation, None), |(l, r)| (l, Some(r)));
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.inputs.len() {
        return Err(Error::malformed(format!("equation {equation:?} of {} inputs", call.inputs.len())));
    }
    let mut sizes: Vec<(char, usize)> = Vec::new();
    let mut operands = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let x = call.input(i)?;
        let names = letters(term, x.rank())?;
        for (&c, &d) in names.iter().zip(x.shape()) {
            match sizes.iter_mut().find(|(n, _)| *n == c) {
                Some((_, size)) if *size == d || d == 1 => {}
                Some((_, size)) if *size == 1 => *size = d,
                Some((_, size)) => {
                    return Err(Error::malformed(format!("{c} of {equation:?} is {size} and {d}")));
                }
                None => sizes.push((c, d)),
            }
        }
        operands.push((x.floats()?, names, x.shape()));
    }
    let hidden = sizes.iter().filter(|(c, _)| c.is_ascii_digit()).count();
    let out_names: Vec<char> = match right {
        Some(term) => {
            let named = term.chars().filter(char::is_ascii_alphabetic).count();
            letters(term, named + if term.contains("...") { hidden } else { 0 })?
        }
        None => {
            // Without an arrow: what is hidden, then letters that occur once, in their order.
            let all: Vec<char> = operands.iter().flat_map(|(_, names, _)| names.iter().copied()).collect();
            let once = |c: &char| all.iter().filter(|a| *a == c).count() == 1;
            let mut out: Vec<char> =
                (0..hidden).rev().filter_map(|d| char::from_digit(d as u32, 10)).collect();
            let mut named: Vec<char> =
                all.iter().copied().filter(|c| c.is_ascii_alphabetic() && once(c)).collect();
            named.sort_unstable();
            out.extend(named);
            out
        }
    };
    // The walk's dimensions: those of the output, then those that are summed.
    let mut walk: Vec<(char, usize)> = Vec::new();
    for c in &out_names {
        let Some(found) = sizes.iter().find(|(n, _)| n == c) else {
            return Err(Error::malformed(format!("{c} of {equation:?} is in no input")));
        };
        if walk.contains(found) {
            return Err(Error::malformed(format!("{c} of {equation:?} is twice in the output")));
        }
        walk.push(*found);
    }
    let shape: Vec<usize> = walk.iter().map(|(_, d)| *d).collect();
    walk.extend(sizes.iter().filter(|(c, _)| !out_names.contains(c)));
    let full: Vec<usize> = walk.iter().map(|(_, d)| *d).collect();
    let (total, n) = (count(&full)?, count(&shape)?);
    cx.work(total.saturating_mul(operands.len()))?;
    let steps: Vec<Vec<usize>> = operands
        .iter()
        .map(|(_, names, own)| {
            let s = strides(own);
            let step = |c: char| {
                names
                    .iter()
                    .zip(*own)
                    .zip(&s)
                    .filter(|((n, d), _)| **n == c && **d != 1)
                    .map(|(_, s)| s)
                    .sum()
            };
            walk.iter().map(|(c, _)| step(*c)).collect()
        })
        .collect();
    let mut out = cx.filled(n, 0f64)?;
    let inner = total.checked_div(n).unwrap_or(0);
    let mut index = vec![0usize; walk.len()];
    let mut at = vec![0usize; operands.len()];
    for o in &mut out {
        for _ in 0..inner {
            let mut value = 1.0;
            for ((values, ..), &i) in operands.iter().zip(&at) {
                value *= f64::from(values[i]);
            }
            *o += value;
            for d in (0..index.len()).rev() {
                index[d] += 1;
                if index[d] < full[d] {
                    at.iter_mut().zip(&steps).for_each(|(a, s)| *a += s[d]);
                    break;
                }
                at.iter_mut().zip(&steps).for_each(|(a, s)| *a -= s[d] * (full[d] - 1));
                index[d] = 0;
            }
        }
    }
    let elem = call.input(0)?.elem();
    let data = match elem {
        Elem::F64 => Data::F64(out),
        _ => Data::F32(out.into_iter().map(|x| x as f32).collect()),
    };
    Ok(vec![Tensor::new(cx, elem, shape, data)?])
}
