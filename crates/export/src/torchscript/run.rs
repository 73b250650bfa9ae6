//! The operators that graphs are built of, as libtorch's: running a graph through them under a trace makes the program.
//!
//! No operator here takes a size that was read of a tensor; what is written into the trace is in the config.

use std::collections::HashMap;
use std::rc::Rc;

use tch::{Kind, TchError, Tensor};
use weighbridge_formats::backends::onnx::proto::{DataType, NodeProto};
use weighbridge_formats::{Error, Result};
use weighbridge_model::state_dict::tch::kind_of;

use super::trace::plain;
use super::values::{DimOf, Held, Number, Size};

/// The values of a graph that is being run, by name.
#[derive(Default)]
pub(super) struct Runner {
    values: HashMap<String, Held>,
}

/// What an operator makes: its outputs, or what libtorch says.
type Made = std::result::Result<Held, Fault>;

/// Why an operator was not run.
enum Fault {
    Torch(TchError),
    /// What of it is not known here.
    Unknown(&'static str),
}

impl From<TchError> for Fault {
    fn from(error: TchError) -> Self {
        Self::Torch(error)
    }
}

impl Runner {
    /// Gives a value its content.
    pub(super) fn set(&mut self, name: &str, value: Held) {
        self.values.insert(name.to_owned(), value);
    }

    /// The value of a name, as a tensor.
    pub(super) fn tensor(&self, name: &str) -> Result<Rc<Tensor>> {
        let value = self.values.get(name);
        let value = value.ok_or_else(|| Error::mismatch(format!("the graph has no value {name:?}")))?;
        value.tensor().map_err(|e| Error::unsupported(format!("libtorch: {name}: {}", plain(&e))))
    }

    /// Runs a node.
    ///
    /// # Errors
    /// `Unsupported` for an operator that is not known here, and for what libtorch says.
    pub(super) fn run(&mut self, node: &NodeProto) -> Result<()> {
        let at = |what: String| {
            let (op, name) =
                (node.op_type.as_deref().unwrap_or_default(), node.name.as_deref().unwrap_or_default());
            Error::unsupported(format!("{name} ({op}): {what}"))
        };
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            let value = self.values.get(name).cloned();
            if value.is_none() && !name.is_empty() {
                return Err(at(format!("there is no value {name:?}")));
            }
            inputs.push(value);
        }
        let call = Call { node, inputs };
        let made =
            if node.op_type.as_deref() == Some("Split") { call.split() } else { call.one().map(|v| vec![v]) };
        let made = made.map_err(|fault| {
            at(match fault {
                Fault::Torch(error) => format!("libtorch: {}", plain(&error)),
                Fault::Unknown(what) => format!("{what} is not known for TorchScript"),
            })
        })?;
        for (name, value) in node.output.iter().zip(made) {
            self.values.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// A node with its inputs.
struct Call<'n> {
    node: &'n NodeProto,
    inputs: Vec<Option<Held>>,
}

impl Call<'_> {
    fn held(&self, at: usize) -> std::result::Result<&Held, Fault> {
        self.inputs.get(at).and_then(Option::as_ref).ok_or(Fault::Unknown("a missing input"))
    }

    fn input(&self, at: usize) -> std::result::Result<Rc<Tensor>, Fault> {
        Ok(self.held(at)?.tensor()?)
    }

    /// Integers that are an input or, in older operators, an attribute.
    fn ints(&self, at: usize, attribute: &str) -> std::result::Result<Vec<i64>, Fault> {
        if let Some(value) = self.inputs.get(at).and_then(Option::as_ref) {
            return value
                .ints()
                .map(<[i64]>::to_vec)
                .ok_or(Fault::Unknown("axes or sizes that are computed"));
        }
        let found = self.node.attribute.iter().find(|a| a.name.as_deref() == Some(attribute));
        found.map(|a| a.ints.clone()).ok_or(Fault::Unknown("an operator without axes"))
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        let found = self.node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
        found.and_then(|a| a.i).unwrap_or(default)
    }

    fn float(&self, name: &str, default: f32) -> f64 {
        let found = self.node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
        f64::from(found.and_then(|a| a.f).unwrap_or(default))
    }

    fn text(&self, name: &str) -> &[u8] {
        let found = self.node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
        found.and_then(|a| a.s.as_deref()).unwrap_or_default()
    }

    /// Operators with one output.
    fn one(&self) -> Made {
        if self.node.domain.as_deref().is_some_and(|d| !d.is_empty()) {
            return Err(Fault::Unknown("an operator of another domain"));
        }
        let x = || self.input(0);
        let made = match self.node.op_type.as_deref().unwrap_or_default() {
            "Identity" => return self.held(0).cloned(),
            "Add" => return self.sum(false),
            "Sub" => return self.sum(true),
            "Mul" => self.binary(Tensor::f_mul, |x, n| x.f_mul_scalar(n), true)?,
            "Div" => self.binary(Tensor::f_div, |x, n| x.f_div_scalar(n), false)?,
            "Pow" => self.binary(Tensor::f_pow, |x, n| x.f_pow_tensor_scalar(n), false)?,
            "Equal" => self.binary(Tensor::f_eq_tensor, |x, n| x.f_eq(n), true)?,
            "Less" => self.binary(Tensor::f_lt_tensor, |x, n| x.f_lt(n), false)?,
            "LessOrEqual" => self.binary(Tensor::f_le_tensor, |x, n| x.f_le(n), false)?,
            "Greater" => self.binary(Tensor::f_gt_tensor, |x, n| x.f_gt(n), false)?,
            "GreaterOrEqual" => self.binary(Tensor::f_ge_tensor, |x, n| x.f_ge(n), false)?,
            "And" => x()?.f_logical_and(&*self.input(1)?)?,
            "Or" => x()?.f_logical_or(&*self.input(1)?)?,
            "Not" => x()?.f_logical_not()?,
            "Max" => x()?.f_maximum(&*self.input(1)?)?,
            "Where" => self.input(1)?.f_where_self(&*x()?, &*self.input(2)?)?,
            "Clip" => self.clip()?,
            "Sqrt" => x()?.f_sqrt()?,
            "Reciprocal" => x()?.f_reciprocal()?,
            "Erf" => x()?.f_erf()?,
            "Tanh" => x()?.f_tanh()?,
            "Sigmoid" => x()?.f_sigmoid()?,
            "Relu" => x()?.f_relu()?,
            "Exp" => x()?.f_exp()?,
            "Log" => x()?.f_log()?,
            "Cos" => x()?.f_cos()?,
            "Sin" => x()?.f_sin()?,
            "Abs" => x()?.f_abs()?,
            "Floor" => x()?.f_floor()?,
            "Gelu" => x()?.f_gelu(if self.text("approximate") == b"tanh" { "tanh" } else { "none" })?,
            "Softmax" => x()?.f_softmax(self.int("axis", -1), None::<Kind>)?,
            "LayerNormalization" => self.layer_norm()?,
            "MatMul" => self.matmul()?,
            "Cast" => self.cast()?,
            "CumSum" => match self.held(1)?.ints() {
                Some(&[axis]) => x()?.f_cumsum(axis, None::<Kind>)?,
                _ => return Err(Fault::Unknown("an axis that is computed")),
            },
            "ReduceSum" => x()?.f_sum_dim_intlist(&self.ints(1, "axes")?[..], self.keep(), None::<Kind>)?,
            "ReduceMean" => x()?.f_mean_dim(&self.ints(1, "axes")?[..], self.keep(), None::<Kind>)?,
            "ReduceMax" => x()?.f_amax(&self.ints(1, "axes")?[..], self.keep())?,
            "Reshape" => self.reshape()?,
            "Transpose" => return self.transpose(),
            "Unsqueeze" => return self.unsqueeze(),
            "Squeeze" => return self.squeeze(),
            "Concat" => return self.concat(),
            "Expand" => self.expand()?,
            "Slice" => self.slice()?,
            "Gather" => self.gather()?,
            "GatherND" => self.pick_by_row()?,
            "Shape" => return self.shape(),
            "Range" => match self.held(0)?.range(self.held(1)?) {
                Some(range) if self.held(2)?.ints() == Some(&[1]) => range?,
                _ => return Err(Fault::Unknown("a range whose length is no dimension")),
            },
            _ => return Err(Fault::Unknown("the operator")),
        };
        Ok(Held::new(made))
    }

    fn keep(&self) -> bool {
        self.int("keepdims", 1) != 0
    }

    /// An operator of two tensors, or of a tensor and a number.
    fn binary(
        &self,
        tensors: impl Fn(&Tensor, &Tensor) -> std::result::Result<Tensor, TchError>,
        number: impl Fn(&Tensor, Number) -> std::result::Result<Tensor, TchError>,
        commutes: bool,
    ) -> std::result::Result<Tensor, Fault> {
        let (a, b) = (self.held(0)?, self.held(1)?);
        // A constant float beside integers would make floats of them, but no graph has such.
        Ok(match (a.number(), b.number()) {
            (_, Some(n)) => number(&*a.tensor()?, n)?,
            (Some(n), None) if commutes => number(&*b.tensor()?, n)?,
            _ => tensors(&*a.tensor()?, &*b.tensor()?)?,
        })
    }

    fn sum(&self, subtract: bool) -> Made {
        if let Some(size) = self.held(0)?.combined(self.held(1)?, subtract) {
            return Ok(size);
        }
        let made = if let (true, Some(n), false) =
            (subtract, self.held(0)?.number(), self.held(1)?.number().is_some())
        {
            self.input(1)?.f_rsub_scalar(n)?
        } else if subtract {
            self.binary(Tensor::f_sub, |x, n| x.f_sub_scalar(n), false)?
        } else {
            self.binary(Tensor::f_add, |x, n| x.f_add_scalar(n), true)?
        };
        Ok(Held::new(made))
    }

    fn clip(&self) -> std::result::Result<Tensor, Fault> {
        match (self.held(1)?.number(), self.inputs.get(2)) {
            (Some(least), None) => Ok(self.input(0)?.f_clamp_min(least)?),
            _ => Err(Fault::Unknown("a bound that is computed, or one above")),
        }
    }

    fn layer_norm(&self) -> std::result::Result<Tensor, Fault> {
        let (x, scale) = (self.input(0)?, self.input(1)?);
        if !matches!(self.int("axis", -1), -1) {
            return Err(Fault::Unknown("a norm of several axes"));
        }
        let shift = if self.inputs.len() > 2 { Some(self.input(2)?) } else { None };
        let epsilon = self.float("epsilon", 1e-5);
        Ok(x.f_layer_norm(&scale.size()[..], Some(&*scale), shift.as_deref(), epsilon, true)?)
    }

    fn matmul(&self) -> std::result::Result<Tensor, Fault> {
        match self.held(1)? {
            Held::Turned(matrix) => Ok(self.input(0)?.f_linear(matrix, None::<&Tensor>)?),
            other => Ok(self.input(0)?.f_matmul(&*other.tensor()?)?),
        }
    }

    fn cast(&self) -> std::result::Result<Tensor, Fault> {
        let to = i32::try_from(self.int("to", 0)).ok().and_then(|to| DataType::try_from(to).ok());
        let kind = to.and_then(DataType::dtype).and_then(kind_of);
        let kind = kind.ok_or(Fault::Unknown("the dtype"))?;
        Ok(self.input(0)?.f_to_dtype(kind, false, false)?)
    }

    /// Sizes that are kept stand first; what follows is made flat and divided, so that no size of an input is needed.
    fn reshape(&self) -> std::result::Result<Tensor, Fault> {
        let (mut x, to) = (Tensor::shallow_clone(&*self.input(0)?), self.ints(1, "shape")?);
        let kept = to.iter().take_while(|&&n| n == 0).count();
        let rest = to.get(kept..).unwrap_or_default();
        if rest.contains(&0) || x.dim() < kept || (x.dim() == kept) != rest.is_empty() {
            return Err(Fault::Unknown("a size of 0 behind others"));
        }
        let at = kept as i64;
        if x.dim() > kept + 1 {
            x = x.f_flatten(at, -1)?;
        }
        if rest.len() > 1 {
            x = x.f_unflatten(at, rest)?;
        }
        Ok(x)
    }

    fn transpose(&self) -> Made {
        let order = self.node.attribute.iter().find(|a| a.name.as_deref() == Some("perm"));
        let order = order.map(|a| &a.ints[..]).ok_or(Fault::Unknown("an order that is not stated"))?;
        let x = self.input(0)?;
        if order == [1, 0] {
            return Ok(Held::Turned(x));
        }
        // The commonest two, as a swap of neighbours, read better in the program.
        let moved: Vec<usize> = (0..order.len()).filter(|&i| order.get(i) != Some(&(i as i64))).collect();
        Ok(Held::new(match moved[..] {
            [a, b] => x.f_transpose(a as i64, b as i64)?,
            _ => x.f_permute(order)?,
        }))
    }

    fn unsqueeze(&self) -> Made {
        let axes = self.ints(1, "axes")?;
        let mut x = Tensor::shallow_clone(&*self.input(0)?);
        for &axis in &axes {
            x = x.f_unsqueeze(axis)?;
        }
        Ok(Held::new(x))
    }

    fn squeeze(&self) -> Made {
        let axes = self.ints(1, "axes")?;
        let &[axis] = &axes[..] else { return Err(Fault::Unknown("several axes at once")) };
        match self.held(0)? {
            Held::Size(size) if size.vector => Ok(Held::Size(Size { vector: false, ..size.clone() })),
            Held::Ints(ints, tensor) => Ok(Held::Ints(ints.clone(), Rc::new(tensor.f_squeeze_dim(axis)?))),
            other => Ok(Held::new(other.tensor()?.f_squeeze_dim(axis)?)),
        }
    }

    fn concat(&self) -> Made {
        let sizes = self.inputs.iter().flatten();
        let is_size = |held: &Held| match held {
            Held::Size(size) => size.vector,
            Held::Ints(ints, tensor) => ints.len() == 1 && tensor.dim() == 1,
            _ => false,
        };
        if sizes.clone().any(|held| matches!(held, Held::Size(_))) && sizes.clone().all(is_size) {
            return Ok(Held::Shape(sizes.cloned().collect()));
        }
        let parts = (0..self.inputs.len()).map(|i| self.input(i));
        let parts: Vec<Rc<Tensor>> = parts.collect::<std::result::Result<_, _>>()?;
        let parts: Vec<&Tensor> = parts.iter().map(|part| &**part).collect();
        Ok(Held::new(Tensor::f_cat(&parts, self.int("axis", 0))?))
    }

    /// Repeats what broadcasts, by ones of the shape.
    fn expand(&self) -> std::result::Result<Tensor, Fault> {
        let like =
            self.held(1)?.filled().ok_or(Fault::Unknown("a shape that is no list of dimensions"))??;
        let both = Tensor::f_broadcast_tensors(&[&*self.input(0)?, &like])?;
        both.into_iter().next().ok_or(Fault::Unknown("nothing to repeat"))
    }

    fn slice(&self) -> std::result::Result<Tensor, Fault> {
        match (&self.ints(1, "starts")?[..], &self.ints(2, "ends")?[..], &self.ints(3, "axes")?[..]) {
            (&[from], &[to], &[axis]) if self.inputs.len() == 4 => {
                Ok(self.input(0)?.f_slice(axis, from, to, 1)?)
            }
            _ => Err(Fault::Unknown("a slice of several axes or steps")),
        }
    }

    /// The parts of an axis.
    fn split(&self) -> std::result::Result<Vec<Held>, Fault> {
        let (x, axis) = (self.input(0)?, self.int("axis", 0));
        let (mut parts, mut from) = (Vec::new(), 0i64);
        for size in self.ints(1, "split")? {
            let to = from.checked_add(size).ok_or(Fault::Unknown("parts of such sizes"))?;
            parts.push(Held::new(x.f_slice(axis, from, to, 1)?));
            from = to;
        }
        Ok(parts)
    }

    fn gather(&self) -> std::result::Result<Tensor, Fault> {
        let (x, axis) = (self.input(0)?, self.int("axis", 0));
        match self.held(1)?.number() {
            Some(Number::Int(index)) => Ok(x.f_select(axis, index)?),
            _ => {
                let indices = self.input(1)?;
                match (x.dim(), axis, indices.dim()) {
                    (2, 0, _) => Ok(Tensor::f_embedding(&x, &indices, -1, false, false)?),
                    (_, _, 1) => Ok(x.f_index_select(axis, &indices)?),
                    _ => Err(Fault::Unknown("indices of several dimensions")),
                }
            }
        }
    }

    /// For each row of a batch, the slice that an index of that row names.
    fn pick_by_row(&self) -> std::result::Result<Tensor, Fault> {
        if self.int("batch_dims", 0) != 1 {
            return Err(Fault::Unknown("indices of several dimensions"));
        }
        let (x, mut indices) = (self.input(0)?, Tensor::shallow_clone(&*self.input(1)?));
        while indices.dim() < x.dim() {
            indices = indices.f_unsqueeze(-1)?;
        }
        Ok(x.f_take_along_dim(&indices, 1)?.f_select(1, 0)?)
    }

    fn shape(&self) -> Made {
        let (x, start) = (self.input(0)?, self.int("start", 0));
        if self.int("end", i64::MAX) != start + 1 || start < 0 || start >= x.dim() as i64 {
            return Err(Fault::Unknown("a whole shape"));
        }
        let name = self.node.input.first().map_or("", String::as_str);
        let plus = DimOf { name: name.into(), tensor: x, dim: start };
        Ok(Held::Size(Size { plus, minus: None, add: 0, vector: true }))
    }
}
