//! Operators on single elements, and reductions.

use weighbridge_formats::{DType, Kind, Result};

use super::shape::{axis, broadcast};
use super::value::{Dim, Value, spell};
use super::{Attribute, GraphBuilder, emit};

/// Element-wise operators of one input, whose output is of the same dtype and shape.
macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident $op:literal $kind:ident;)*) => {
        impl GraphBuilder<'_> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// `Mismatch` for a dtype that the operator does not take.
                pub fn $method(&mut self, x: &Value) -> Result<Value> {
                    self.want_kind($op, x, &[Kind::$kind])?;
                    self.node($op, &[x], vec![], x.dtype(), x.shape().to_vec())
                }
            )*
        }
    };
}

/// Element-wise operators of two numbers of one dtype, with the shape that they broadcast to.
macro_rules! binary {
    ($($(#[$doc:meta])* $method:ident $op:literal;)*) => {
        impl GraphBuilder<'_> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// `Mismatch` for dtypes that differ and shapes that do not broadcast.
                pub fn $method(&mut self, a: &Value, b: &Value) -> Result<Value> {
                    let shape = self.same_dtype($op, a, b)?;
                    self.node($op, &[a, b], vec![], a.dtype(), shape)
                }
            )*
        }
    };
}

/// Comparisons: two numbers of one dtype to a boolean.
macro_rules! comparison {
    ($($(#[$doc:meta])* $method:ident $op:literal;)*) => {
        impl GraphBuilder<'_> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// `Mismatch` for dtypes that differ and shapes that do not broadcast.
                pub fn $method(&mut self, a: &Value, b: &Value) -> Result<Value> {
                    let shape = self.same_dtype($op, a, b)?;
                    self.node($op, &[a, b], vec![], DType::Bool, shape)
                }
            )*
        }
    };
}

/// Reductions along axes.
macro_rules! reduction {
    ($($(#[$doc:meta])* $method:ident $op:literal $axes_input_since:literal;)*) => {
        impl GraphBuilder<'_> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// `Mismatch` for an axis that is not there.
                pub fn $method(&mut self, x: &Value, axes: &[i64], keep: bool) -> Result<Value> {
                    self.reduce($op, $axes_input_since, x, axes, keep)
                }
            )*
        }
    };
}

unary! {
    /// The square root.
    sqrt "Sqrt" Float;
    /// One over each element.
    reciprocal "Reciprocal" Float;
    /// The Gauss error function.
    erf "Erf" Float;
    /// The hyperbolic tangent.
    tanh "Tanh" Float;
    /// The logistic function.
    sigmoid "Sigmoid" Float;
    /// The larger of each element and 0.
    relu "Relu" Float;
    /// The exponential.
    exp "Exp" Float;
    /// The natural logarithm.
    log "Log" Float;
    /// The cosine of radians.
    cos "Cos" Float;
    /// The sine of radians.
    sin "Sin" Float;
    /// The magnitude.
    abs "Abs" Float;
    /// The largest integer that is not above.
    floor "Floor" Float;
    /// True for false.
    not "Not" Bool;
}

binary! {
    /// The sum.
    add "Add";
    /// The difference.
    sub "Sub";
    /// The product.
    mul "Mul";
    /// The quotient.
    div "Div";
    /// The first to the power of the second.
    pow "Pow";
}

comparison! {
    /// Whether both are equal.
    equal "Equal";
    /// Whether the first is smaller.
    less "Less";
    /// Whether the first is no larger.
    less_or_equal "LessOrEqual";
    /// Whether the first is larger.
    greater "Greater";
    /// Whether the first is no smaller.
    greater_or_equal "GreaterOrEqual";
}

reduction! {
    /// The sum along axes.
    reduce_sum "ReduceSum" 13;
    /// The mean along axes.
    reduce_mean "ReduceMean" 18;
    /// The largest along axes.
    reduce_max "ReduceMax" 18;
}

impl GraphBuilder<'_> {
    /// Refuses a dtype of another kind.
    pub(super) fn want_kind(&self, op: &str, x: &Value, kinds: &[Kind]) -> Result<()> {
        if kinds.contains(&x.dtype().kind()) {
            return Ok(());
        }
        Err(self.error(format!("{op} takes no {} ({:?})", x.dtype(), x.name())))
    }

    /// The shape that two values of one dtype broadcast to.
    fn same_dtype(&self, op: &str, a: &Value, b: &Value) -> Result<Vec<Dim>> {
        if a.dtype() != b.dtype() {
            return Err(self.error(format!("{op} of {} and {}", a.describe(), b.describe())));
        }
        self.want_kind(op, a, &[Kind::Float, Kind::Signed, Kind::Unsigned])?;
        self.broadcast(op, a, b)
    }

    /// The shape that two values broadcast to.
    pub(super) fn broadcast(&self, op: &str, a: &Value, b: &Value) -> Result<Vec<Dim>> {
        broadcast(a.shape(), b.shape()).ok_or_else(|| {
            self.error(format!("{op}: {} and {} do not broadcast", spell(a.shape()), spell(b.shape())))
        })
    }

    /// Whether both are true.
    ///
    /// # Errors
    /// `Mismatch` for what is no boolean, and shapes that do not broadcast; so for the next.
    pub fn and(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.logic("And", a, b)
    }

    /// Whether one is true.
    ///
    /// # Errors
    /// As [`GraphBuilder::and`].
    pub fn or(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.logic("Or", a, b)
    }

    fn logic(&mut self, op: &'static str, a: &Value, b: &Value) -> Result<Value> {
        self.want_kind(op, a, &[Kind::Bool])?;
        self.want_kind(op, b, &[Kind::Bool])?;
        let shape = self.broadcast(op, a, b)?;
        self.node(op, &[a, b], vec![], DType::Bool, shape)
    }

    /// Elements of `yes` where the condition is true, else of `no`.
    ///
    /// # Errors
    /// `Mismatch` for a condition that is no boolean, dtypes that differ and shapes that do not broadcast.
    pub fn select(&mut self, condition: &Value, yes: &Value, no: &Value) -> Result<Value> {
        self.want_kind("Where", condition, &[Kind::Bool])?;
        if yes.dtype() != no.dtype() {
            return Err(self.error(format!("Where of {} and {}", yes.describe(), no.describe())));
        }
        let both = Value::new("", yes.dtype(), self.broadcast("Where", yes, no)?);
        let shape = self.broadcast("Where", condition, &both)?;
        self.node("Where", &[condition, yes, no], vec![], yes.dtype(), shape)
    }

    /// The same numbers in another dtype; the value itself where it has it.
    ///
    /// # Errors
    /// `Unsupported` for a dtype that ONNX has not.
    pub fn cast(&mut self, x: &Value, dtype: DType) -> Result<Value> {
        if x.dtype() == dtype {
            return Ok(x.clone());
        }
        let to = emit::onnx_dtype(dtype)?;
        self.node("Cast", &[x], vec![("to", Attribute::Int(to))], dtype, x.shape().to_vec())
    }

    /// The numbers, no smaller than a bound.
    ///
    /// # Errors
    /// `Mismatch` for what is no float.
    pub fn clip_below(&mut self, x: &Value, bound: f64) -> Result<Value> {
        self.want_kind("Clip", x, &[Kind::Float])?;
        let bound = self.float(x.dtype(), bound)?;
        self.node("Clip", &[x, &bound], vec![], x.dtype(), x.shape().to_vec())
    }

    /// The product with a number.
    ///
    /// # Errors
    /// `Mismatch` for what is no float.
    pub fn scale(&mut self, x: &Value, factor: f64) -> Result<Value> {
        let factor = self.float(x.dtype(), factor)?;
        self.mul(x, &factor)
    }

    /// The larger of two, element by element.
    ///
    /// # Errors
    /// `Mismatch` for dtypes that differ and shapes that do not broadcast.
    pub fn max(&mut self, a: &Value, b: &Value) -> Result<Value> {
        let shape = self.same_dtype("Max", a, b)?;
        self.node("Max", &[a, b], vec![], a.dtype(), shape)
    }

    /// The sums of all elements up to each, along an axis.
    ///
    /// # Errors
    /// `Mismatch` for an axis that is not there.
    pub fn cumsum(&mut self, x: &Value, along: i64) -> Result<Value> {
        let at = self.axis("CumSum", x, along)?;
        let at = self.int(at as i64);
        self.node("CumSum", &[x, &at], vec![], x.dtype(), x.shape().to_vec())
    }

    fn reduce(
        &mut self,
        op: &'static str,
        input_since: u32,
        x: &Value,
        axes: &[i64],
        keep: bool,
    ) -> Result<Value> {
        let mut dims: Vec<Option<Dim>> = x.shape().iter().cloned().map(Some).collect();
        for &a in axes {
            let at = self.axis(op, x, a)?;
            dims[at] = keep.then_some(Dim::Fixed(1));
        }
        let shape: Vec<Dim> = dims.into_iter().flatten().collect();
        let keep = ("keepdims", Attribute::Int(keep.into()));
        // Axes became an input in one opset for each operator.
        if self.opset() >= input_since {
            let axes = self.ints(axes);
            self.node(op, &[x, &axes], vec![keep], x.dtype(), shape)
        } else {
            self.node(op, &[x], vec![("axes", axes.into()), keep], x.dtype(), shape)
        }
    }

    /// An axis as an index, or the error that there is none.
    pub(super) fn axis(&self, op: &str, x: &Value, along: i64) -> Result<usize> {
        axis(along, x.rank())
            .ok_or_else(|| self.error(format!("{op}: {} has no axis {along}", spell(x.shape()))))
    }
}
