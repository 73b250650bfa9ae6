//! Operators that move elements about and compute none.

use weighbridge_formats::{DType, Kind, Result};

use super::shape::reshaped;
use super::value::{Dim, Value, spell};
use super::{Attribute, GraphBuilder};

impl GraphBuilder<'_> {
    /// The same elements in another shape: 0 keeps the size at its place, one -1 takes what is left.
    ///
    /// # Errors
    /// `Mismatch` where the numbers of elements differ.
    pub fn reshape(&mut self, x: &Value, to: &[i64]) -> Result<Value> {
        let shape = reshaped(x.shape(), to).map_err(|what| self.error(what))?;
        let to = self.ints(to);
        self.node("Reshape", &[x, &to], vec![], x.dtype(), shape)
    }

    /// The dimensions in another order: the first of the result is `order[0]` of the input.
    ///
    /// # Errors
    /// `Mismatch` for what is no order of the dimensions.
    pub fn transpose(&mut self, x: &Value, order: &[usize]) -> Result<Value> {
        let mut seen: Vec<usize> = order.to_vec();
        seen.sort_unstable();
        if seen.into_iter().ne(0..x.rank()) {
            return Err(self.error(format!("{order:?} is no order of {}", spell(x.shape()))));
        }
        let shape = order.iter().map(|&i| x.shape()[i].clone()).collect();
        let perm: Vec<i64> = order.iter().map(|&i| i as i64).collect();
        self.node("Transpose", &[x], vec![("perm", Attribute::Ints(perm))], x.dtype(), shape)
    }

    /// Elements of `x` along an axis, by index: the axis is replaced by the shape of `indices`, which are of I64.
    ///
    /// # Errors
    /// `Mismatch` for an axis that is not there and indices that are none.
    pub fn gather(&mut self, x: &Value, indices: &Value, along: i64) -> Result<Value> {
        let at = self.axis("Gather", x, along)?;
        if !matches!(indices.dtype(), DType::I64 | DType::I32) {
            return Err(self.error(format!("Gather by {}", indices.describe())));
        }
        let mut shape = x.shape().to_vec();
        shape.splice(at..=at, indices.shape().iter().cloned());
        self.node("Gather", &[x, indices], vec![("axis", Attribute::Int(at as i64))], x.dtype(), shape)
    }

    /// One slice of an axis, which goes.
    ///
    /// # Errors
    /// `Mismatch` for an axis or index that is not there.
    pub fn pick(&mut self, x: &Value, along: i64, index: i64) -> Result<Value> {
        let at = self.axis("Gather", x, along)?;
        if let Some(size) = x.shape()[at].fixed()
            && i64::try_from(size).is_ok_and(|size| !(-size..size).contains(&index))
        {
            return Err(self.error(format!("{} has no index {index} at {along}", spell(x.shape()))));
        }
        let index = self.int(index);
        self.gather(x, &index, along)
    }

    /// New dimensions of size 1 at these places of the result.
    ///
    /// # Errors
    /// `Mismatch` for a place that is not there.
    pub fn unsqueeze(&mut self, x: &Value, places: &[usize]) -> Result<Value> {
        let mut shape = x.shape().to_vec();
        for &at in places {
            if at > shape.len() {
                return Err(self.error(format!("no dimension can be put at {at} of {}", spell(&shape))));
            }
            shape.insert(at, Dim::Fixed(1));
        }
        let places: Vec<i64> = places.iter().map(|&p| p as i64).collect();
        let axes = self.ints(&places);
        self.node("Unsqueeze", &[x, &axes], vec![], x.dtype(), shape)
    }

    /// Without a dimension of size 1.
    ///
    /// # Errors
    /// `Mismatch` for a dimension that is not of size 1.
    pub fn squeeze(&mut self, x: &Value, along: i64) -> Result<Value> {
        let at = self.axis("Squeeze", x, along)?;
        if x.shape()[at] != Dim::Fixed(1) {
            return Err(self.error(format!("{} has more than one element at {along}", spell(x.shape()))));
        }
        let mut shape = x.shape().to_vec();
        shape.remove(at);
        let axes = self.ints(&[at as i64]);
        self.node("Squeeze", &[x, &axes], vec![], x.dtype(), shape)
    }

    /// Values one after another along an axis.
    ///
    /// # Errors
    /// `Mismatch` for values that differ in dtype or in another dimension, and for none.
    pub fn concat(&mut self, parts: &[&Value], along: i64) -> Result<Value> {
        let Some((first, rest)) = parts.split_first() else {
            return Err(self.error("Concat of nothing"));
        };
        let at = self.axis("Concat", first, along)?;
        let mut shape = first.shape().to_vec();
        for part in rest {
            let fits = part.dtype() == first.dtype()
                && part.rank() == shape.len()
                && (0..shape.len()).all(|i| i == at || part.shape()[i] == shape[i]);
            if !fits {
                return Err(self.error(format!("Concat of {} and {}", first.describe(), part.describe())));
            }
            shape[at] = shape[at].plus(&part.shape()[at]);
        }
        self.node("Concat", parts, vec![("axis", Attribute::Int(at as i64))], first.dtype(), shape)
    }

    /// The parts of an axis of these sizes.
    ///
    /// # Errors
    /// `Mismatch` for an axis of another size than their sum.
    pub fn split(&mut self, x: &Value, sizes: &[u64], along: i64) -> Result<Vec<Value>> {
        let at = self.axis("Split", x, along)?;
        let sum = sizes.iter().try_fold(0u64, |n, &s| n.checked_add(s));
        if sum.map(Dim::Fixed).as_ref() != Some(&x.shape()[at]) {
            return Err(self.error(format!("{} cannot be split into {sizes:?} at {along}", spell(x.shape()))));
        }
        let outputs: Vec<(DType, Vec<Dim>)> = sizes
            .iter()
            .map(|&size| {
                let mut shape = x.shape().to_vec();
                shape[at] = Dim::Fixed(size);
                (x.dtype(), shape)
            })
            .collect();
        let signed: Vec<i64> = sizes.iter().map(|&s| i64::try_from(s).unwrap_or(i64::MAX)).collect();
        let sizes = self.ints(&signed);
        let attributes = vec![("axis", Attribute::Int(at as i64))];
        self.nodes("", "Split", &[Some(x), Some(&sizes)], attributes, &outputs)
    }

    /// The elements `from..to` of an axis whose size is a number.
    ///
    /// # Errors
    /// `Mismatch` for a range that is not there.
    pub fn slice(&mut self, x: &Value, along: i64, from: u64, to: u64) -> Result<Value> {
        let at = self.axis("Slice", x, along)?;
        let size = x.shape()[at].fixed();
        if size.is_none_or(|size| from > to || to > size) {
            return Err(self.error(format!("{} has no {from}..{to} at {along}", spell(x.shape()))));
        }
        let mut shape = x.shape().to_vec();
        shape[at] = Dim::Fixed(to - from);
        let clamp = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (from, to, axes) = (self.ints(&[clamp(from)]), self.ints(&[clamp(to)]), self.ints(&[at as i64]));
        self.node("Slice", &[x, &from, &to, &axes], vec![], x.dtype(), shape)
    }

    /// The size of a dimension as a vector of one integer.
    ///
    /// # Errors
    /// `Mismatch` for an axis that is not there.
    pub fn size(&mut self, x: &Value, along: i64) -> Result<Value> {
        let at = self.axis("Shape", x, along)? as i64;
        if let Some(size) = x.shape()[at as usize].fixed() {
            return Ok(self.ints(&[i64::try_from(size).unwrap_or(i64::MAX)]));
        }
        let attributes = vec![("start", Attribute::Int(at)), ("end", Attribute::Int(at + 1))];
        self.node("Shape", &[x], attributes, DType::I64, vec![Dim::Fixed(1)])
    }

    /// The integers from `from` up to and without `to`, both without dimensions; there are `size` of them.
    ///
    /// # Errors
    /// `Mismatch` for bounds that are no I64.
    pub fn range(&mut self, from: &Value, to: &Value, size: Dim) -> Result<Value> {
        for bound in [from, to] {
            if bound.dtype() != DType::I64 || bound.rank() != 0 {
                return Err(self.error(format!("Range from or to {}", bound.describe())));
            }
        }
        let one = self.int(1);
        self.node("Range", &[from, to, &one], vec![], DType::I64, vec![size])
    }

    /// Repeats dimensions of size 1 to a shape that is computed: `to` holds its sizes, `shape` describes it.
    ///
    /// # Errors
    /// `Mismatch` for sizes that are no I64.
    pub fn expand(&mut self, x: &Value, to: &Value, shape: &[Dim]) -> Result<Value> {
        self.want_kind("Expand", to, &[Kind::Signed])?;
        self.node("Expand", &[x, to], vec![], x.dtype(), shape.to_vec())
    }

    /// For each row of a batch, the slice of dimension 1 that an index of that row names: from [b, s, …] and indices
    /// [b, 1] to [b, …].
    ///
    /// # Errors
    /// `Mismatch` for shapes that do not fit.
    pub fn pick_by_row(&mut self, x: &Value, indices: &Value) -> Result<Value> {
        if x.rank() < 2 || indices.rank() != 2 || indices.shape()[1] != Dim::Fixed(1) {
            return Err(self.error(format!("rows of {} by {}", x.describe(), indices.describe())));
        }
        let mut shape = x.shape().to_vec();
        shape.remove(1);
        self.node("GatherND", &[x, indices], vec![("batch_dims", Attribute::Int(1))], x.dtype(), shape)
    }
}
