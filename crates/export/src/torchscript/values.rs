//! What flows through a graph while libtorch runs it: tensors, constants whose numbers are known, and sizes.
//!
//! A size that Rust reads of a tensor would stand as a number in the trace, and the program would be for texts of one
//! length. So sizes stay descriptions, "dimension 1 of that tensor", until an operator needs one; then libtorch computes
//! it of the tensor itself.

use std::rc::Rc;

use tch::{Kind, TchError, Tensor};

/// A tensor's dimension.
#[derive(Clone)]
pub(super) struct DimOf {
    /// The name of the value in the graph, which says whether two are the same.
    pub(super) name: Rc<str>,
    pub(super) tensor: Rc<Tensor>,
    pub(super) dim: i64,
}

impl DimOf {
    fn same(&self, other: &Self) -> bool {
        self.name == other.name && self.dim == other.dim
    }

    /// The dimension's size as a tensor without dimensions.
    fn size(&self) -> Result<Tensor, TchError> {
        self.tensor.f_internal_shape_as_tensor()?.f_select(0, self.dim)
    }

    /// As many ones. Products of ones are ones, over a dimension of no elements too.
    fn ones(&self) -> Result<Tensor, TchError> {
        let mut ones = self.tensor.f_ones_like()?;
        if ones.kind() != Kind::Int64 {
            ones = ones.f_to_dtype(Kind::Int64, false, false)?;
        }
        for dim in (0..self.tensor.dim() as i64).rev().filter(|&dim| dim != self.dim) {
            ones = ones.f_prod_dim_int(dim, false, None::<Kind>)?;
        }
        Ok(ones)
    }

    /// As many integers, from 0 on.
    fn places(&self) -> Result<Tensor, TchError> {
        self.ones()?.f_cumsum(0, None::<Kind>)?.f_sub_scalar(1)
    }
}

/// A number of elements: one dimension, less another, and a constant.
#[derive(Clone)]
pub(super) struct Size {
    pub(super) plus: DimOf,
    pub(super) minus: Option<DimOf>,
    pub(super) add: i64,
    /// Whether it is a vector of one integer rather than a number.
    pub(super) vector: bool,
}

impl Size {
    /// What it comes to.
    fn tensor(&self) -> Result<Tensor, TchError> {
        let mut out = self.plus.size()?;
        if let Some(minus) = &self.minus {
            out = out.f_sub(&minus.size()?)?;
        }
        if self.add != 0 {
            out = out.f_add_scalar(self.add)?;
        }
        if self.vector { out.f_unsqueeze(0) } else { Ok(out) }
    }
}

/// A value.
#[derive(Clone)]
pub(super) enum Held {
    /// What was computed, or is given.
    Tensor(Rc<Tensor>),
    /// Integers that are constants of the graph, and the tensor of them.
    Ints(Rc<[i64]>, Rc<Tensor>),
    /// A float without dimensions that is a constant, and the tensor of it.
    Float(f64, Rc<Tensor>),
    /// A size that nobody has asked for yet.
    Size(Size),
    /// Sizes one after another, each a dimension or a number.
    Shape(Vec<Held>),
    /// A matrix whose turned form nobody has asked for: what linear layers multiply with.
    Turned(Rc<Tensor>),
}

impl Held {
    pub(super) fn new(tensor: Tensor) -> Self {
        Self::Tensor(Rc::new(tensor))
    }

    /// As a tensor.
    pub(super) fn tensor(&self) -> Result<Rc<Tensor>, TchError> {
        match self {
            Self::Tensor(tensor) | Self::Ints(_, tensor) | Self::Float(_, tensor) => Ok(tensor.clone()),
            Self::Size(size) => size.tensor().map(Rc::new),
            Self::Shape(parts) => {
                let parts: Vec<Rc<Tensor>> = parts.iter().map(Self::tensor).collect::<Result<_, _>>()?;
                Tensor::f_cat(&parts.iter().map(|part| &**part).collect::<Vec<_>>(), 0).map(Rc::new)
            }
            Self::Turned(matrix) => matrix.f_transpose(0, 1).map(Rc::new),
        }
    }

    /// The integers, where they are constants.
    pub(super) fn ints(&self) -> Option<&[i64]> {
        match self {
            Self::Ints(ints, _) => Some(ints),
            _ => None,
        }
    }

    /// The number, where it is a constant without dimensions.
    pub(super) fn number(&self) -> Option<Number> {
        match self {
            Self::Float(x, _) => Some(Number::Float(*x)),
            Self::Ints(ints, tensor) if tensor.dim() == 0 => ints.first().map(|&i| Number::Int(i)),
            _ => None,
        }
    }

    /// The sum of sizes and constants, or their difference, where that is one.
    pub(super) fn combined(&self, other: &Self, subtract: bool) -> Option<Self> {
        let one = |ints: &[i64]| if let [n] = ints { Some(*n) } else { None };
        match (self, other) {
            (Self::Size(a), Self::Ints(n, _)) => {
                let n = one(n)?;
                let add = if subtract { a.add.checked_sub(n)? } else { a.add.checked_add(n)? };
                Some(Self::Size(Size { add, ..a.clone() }))
            }
            (Self::Ints(n, _), Self::Size(b)) if !subtract => {
                Some(Self::Size(Size { add: b.add.checked_add(one(n)?)?, ..b.clone() }))
            }
            (Self::Size(a), Self::Size(b)) if subtract && a.minus.is_none() && b.minus.is_none() => {
                let add = a.add.checked_sub(b.add)?;
                Some(Self::Size(Size { minus: Some(b.plus.clone()), add, ..a.clone() }))
            }
            _ => None,
        }
    }

    /// Ones in this shape, without sizes that are the number 1: what broadcasting with makes the shape. `None` where
    /// that is not known.
    pub(super) fn filled(&self) -> Option<Result<Tensor, TchError>> {
        let Self::Shape(parts) = self else { return None };
        let mut filled: Option<Tensor> = None;
        for (at, part) in parts.iter().enumerate() {
            let line = match part {
                Self::Ints(ints, _) if ints[..] == [1] => continue,
                Self::Size(size) if size.minus.is_none() && size.add == 0 => size.plus.ones(),
                _ => return None,
            };
            // One dimension, at its place from the right.
            let behind = parts.len() - at - 1;
            let placed = line.and_then(|line| (0..behind).try_fold(line, |line, _| line.f_unsqueeze(-1)));
            let joined = placed.and_then(|line| match &filled {
                Some(others) => others.f_mul(&line),
                None => Ok(line),
            });
            match joined {
                Ok(joined) => filled = Some(joined),
                Err(error) => return Some(Err(error)),
            }
        }
        filled.map(Ok)
    }

    /// The integers from here up to and without `to`; `None` where their number is not known as a dimension.
    pub(super) fn range(&self, to: &Self) -> Option<Result<Tensor, TchError>> {
        let Self::Size(to) = to else { return None };
        match self {
            Self::Ints(from, _) => {
                let &[from] = &from[..] else { return None };
                // As many as the dimension has, or as many and so many more.
                if to.minus.is_some() || to.add != from {
                    return None;
                }
                Some(to.plus.places().and_then(|p| if from == 0 { Ok(p) } else { p.f_add_scalar(from) }))
            }
            Self::Size(from) if from.plus.same(&to.plus) && to.minus.is_none() && from.add == to.add => {
                let count = from.minus.as_ref()?;
                Some(count.places().and_then(|places| places.f_add(&from.tensor()?)))
            }
            _ => None,
        }
    }
}

/// A constant that operators take as a number.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl From<Number> for tch::Scalar {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(i) => i.into(),
            Number::Float(x) => x.into(),
        }
    }
}
