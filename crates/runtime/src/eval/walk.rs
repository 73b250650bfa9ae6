//! Walks over the elements of several dimensions: strides, broadcasting, gathering.

use weighbridge_formats::{Error, Result};

use super::tensor::{Cx, Held, count};

/// Row-major strides, in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i].saturating_mul(shape[i].max(1));
    }
    out
}

/// The shape that several broadcast to, by NumPy's rules.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        for (o, &d) in out[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*o, d) {
                (a, b) if a == b => {}
                (1, b) => *o = b,
                (_, 1) => {}
                _ => return Err(Error::malformed(format!("shapes {shapes:?} do not broadcast"))),
            }
        }
    }
    count(&out)?;
    Ok(out)
}

/// The strides with which a tensor of `shape` is read while `out` is walked: 0 where it is stretched.
pub(crate) fn stretched(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let mut result = vec![0; out.len()];
    let lead = out.len() - shape.len().min(out.len());
    for i in 0..shape.len().min(out.len()) {
        if shape[i] != 1 {
            result[lead + i] = own[i];
        }
    }
    result
}

/// Calls `row(offsets)` for every run of the last dimension, with the offset of its first element in each of `N` tensors.
pub(crate) fn rows<const N: usize>(
    shape: &[usize],
    strides: [&[isize]; N],
    mut offsets: [isize; N],
    mut row: impl FnMut([isize; N]) -> Result<()>,
) -> Result<()> {
    if shape.contains(&0) {
        return Ok(());
    }
    let outer = shape.len().saturating_sub(1);
    let mut index = vec![0usize; outer];
    loop {
        row(offsets)?;
        let mut d = outer;
        loop {
            if d == 0 {
                return Ok(());
            }
            d -= 1;
            index[d] += 1;
            if index[d] < shape[d] {
                for (o, s) in offsets.iter_mut().zip(&strides) {
                    *o += s[d];
                }
                break;
            }
            for (o, s) in offsets.iter_mut().zip(&strides) {
                *o -= s[d] * (shape[d] as isize - 1);
            }
            index[d] = 0;
        }
    }
}

/// Reads a tensor with strides of any sign into a contiguous one. What is read lies inside `from`, or it is an error.
pub(crate) fn gather<T: Held>(
    cx: &Cx,
    from: &[T],
    start: isize,
    shape: &[usize],
    strides: &[isize],
) -> Result<Vec<T>> {
    let mut out = cx.reserved(count(shape)?)?;
    cx.work(count(shape)?)?;
    let (n, step) = (shape.last().copied().unwrap_or(1), strides.last().copied().unwrap_or(0));
    let outside = || Error::malformed("a view reaches past its tensor");
    rows(shape, [strides], [start], |[at]| {
        if step == 1 {
            let at = usize::try_from(at).map_err(|_| outside())?;
            out.extend_from_slice(from.get(at..at + n).ok_or_else(outside)?);
        } else {
            for i in 0..n as isize {
                let at = usize::try_from(at + i * step).map_err(|_| outside())?;
                out.push(*from.get(at).ok_or_else(outside)?);
            }
        }
        Ok(())
    })?;
    Ok(out)
}

pub(crate) fn signed(strides: &[usize]) -> Vec<isize> {
    strides.iter().map(|&s| s as isize).collect()
}

/// Stretches a tensor to a shape that it broadcasts to.
pub(crate) fn expand<T: Held>(cx: &Cx, from: &[T], shape: &[usize], out: &[usize]) -> Result<Vec<T>> {
    gather(cx, from, 0, out, &signed(&stretched(shape, out)))
}

/// Applies `f` to pairs of elements of two tensors, broadcast to `out`.
pub(crate) fn zip<A: Held, B: Held, O>(
    cx: &Cx,
    a: (&[A], &[usize]),
    b: (&[B], &[usize]),
    out: &[usize],
    f: impl Fn(A, B) -> O,
) -> Result<Vec<O>> {
    let n = count(out)?;
    cx.work(n)?;
    let mut result = cx.reserved(n)?;
    if a.1 == b.1 {
        result.extend(a.0.iter().zip(b.0).map(|(&a, &b)| f(a, b)));
        return Ok(result);
    }
    if let [b] = *b.0
        && a.1 == out
    {
        result.extend(a.0.iter().map(|&a| f(a, b)));
        return Ok(result);
    }
    let (sa, sb) = (signed(&stretched(a.1, out)), signed(&stretched(b.1, out)));
    let run = out.last().copied().unwrap_or(1);
    let last = |s: &[isize]| s.last().copied().unwrap_or(0) as usize;
    let (la, lb) = (last(&sa), last(&sb));
    rows(out, [&sa, &sb], [0, 0], |[oa, ob]| {
        let (oa, ob) = (oa as usize, ob as usize);
        match (la, lb) {
            (1, 1) => {
                let pairs = a.0[oa..oa + run].iter().zip(&b.0[ob..ob + run]);
                result.extend(pairs.map(|(&a, &b)| f(a, b)));
            }
            (1, 0) => {
                let b = b.0[ob];
                result.extend(a.0[oa..oa + run].iter().map(|&a| f(a, b)));
            }
            (0, 1) => {
                let a = a.0[oa];
                result.extend(b.0[ob..ob + run].iter().map(|&b| f(a, b)));
            }
            _ => result.extend((0..run).map(|i| f(a.0[oa + i * la], b.0[ob + i * lb]))),
        }
        Ok(())
    })?;
    Ok(result)
}

/// Sizes around an axis: the product before it, its own, the product behind it.
pub(crate) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let before = shape[..axis].iter().product();
    let behind = shape[axis + 1..].iter().product();
    (before, shape[axis], behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::tensor::Budget;
    use std::sync::Arc;

    #[test]
    fn shapes_broadcast_as_numpy_has_it() {
        assert_eq!(broadcast(&[&[2, 1, 3], &[4, 1]]).unwrap(), [2, 4, 3]);
        assert_eq!(broadcast(&[&[], &[0]]).unwrap(), [0]);
        assert!(broadcast(&[&[2], &[3]]).is_err());
        assert!(broadcast(&[&[1 << 40, 1], &[1, 1 << 40]]).is_err());
    }

    #[test]
    fn pairs_and_views_are_walked() {
        let cx = Cx { budget: Arc::new(Budget::new(10_000, 10, 10_000)), threads: 1 };
        let a = [1i64, 2, 3, 4, 5, 6];
        let sum = |b: &[i64], shape: &[usize], out: &[usize]| {
            zip(&cx, (&a, &[2, 3]), (b, shape), out, |a, b| a * 10 + b).unwrap()
        };
        assert_eq!(sum(&[1, 2, 3], &[3], &[2, 3]), [11, 22, 33, 41, 52, 63]);
        assert_eq!(sum(&[1, 2], &[2, 1], &[2, 3]), [11, 21, 31, 42, 52, 62]);
        assert_eq!(sum(&[1, 2], &[2, 1, 1], &[2, 2, 3])[..7], [11, 21, 31, 41, 51, 61, 12]);
        let transposed = gather(&cx, &a, 0, &[3, 2], &[1, 3]).unwrap();
        assert_eq!(transposed, [1, 4, 2, 5, 3, 6]);
        assert_eq!(gather(&cx, &a, 5, &[3], &[-2]).unwrap(), [6, 4, 2]);
        assert!(gather(&cx, &a, 5, &[4], &[-2]).is_err());
    }
}
