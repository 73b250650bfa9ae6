//! The evaluator: a small interpreter of ONNX graphs on the processor, made to be right rather than fast.
//!
//! Floats are computed in f32 (f64 where they are doubles); f16, bf16 and 8-bit floats are held as f32 values that are
//! rounded to their type at each node's output, so that a chain of nodes loses what it loses elsewhere, while the inside
//! of a node is as exact as f32 is. Sums of normalizations and reductions are taken in f64. Integers wrap.

mod elem;
mod graph;
mod node;
mod ops;
mod run;
mod tensor;
mod walk;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use weighbridge_formats::backends::onnx::proto::{
    DimensionValue, ModelProto, SparseTensorProto, TypeValue, ValueInfoProto,
};
use weighbridge_formats::backends::onnx::read_model;
use weighbridge_formats::{Archive, DType, Error, ReadOptions, Result, Source, TensorInfo};

use self::elem::Elem;
use self::tensor::{Budget, Cx, Tensor};
use crate::array::Array;
use crate::proto::to_array;

/// The operator that stands for a call of a model's own function. No name in a file has a space in it.
const CALL: &str = "function call";

/// Named arrays: what a model is given, and what it gives.
pub type Arrays = BTreeMap<String, Array>;

/// Bounds on what a model may use while it is evaluated.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// The most bytes of values that live at a time, weights that are in use included.
    pub memory: u64,
    /// The most nodes that are run, each turn of a loop counted.
    pub steps: u64,
    /// The most elementary operations, roughly: multiplications of matrices and elements that are touched.
    pub operations: u64,
    /// How many threads multiply matrices; `None` for as many as there are processors, at most four.
    pub threads: Option<usize>,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { memory: 16 << 30, steps: 100_000_000, operations: 1 << 56, threads: None }
    }
}

impl EvaluateOptions {
    fn cx(&self) -> Cx {
        let budget = Budget::new(self.memory, self.steps, self.operations);
        Cx { budget: Arc::new(budget), threads: weighbridge_formats::worker_count(self.threads) }
    }
}

/// The size of a dimension as a model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many elements.
    Fixed(u64),
    /// Any size, the same wherever the name stands.
    Named(String),
    /// Any size.
    Any,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The type of its elements; `None` if it is no tensor of numbers.
    pub dtype: Option<DType>,
    /// The sizes of its dimensions; `None` where not even their number is declared.
    pub shape: Option<Vec<Size>>,
}

impl Port {
    fn of(value: &ValueInfoProto) -> Self {
        let name = value.name.clone().unwrap_or_default();
        let tensor = match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            Some(TypeValue::TensorType(t)) => t,
            _ => return Self { name, dtype: None, shape: None },
        };
        let dtype = tensor.elem_type.and_then(|n| Elem::from_onnx(i64::from(n)).ok()).and_then(Elem::dtype);
        let size = |value: &Option<DimensionValue>| match value {
            Some(DimensionValue::DimValue(n)) => u64::try_from(*n).map_or(Size::Any, Size::Fixed),
            Some(DimensionValue::DimParam(name)) if !name.is_empty() => Size::Named(name.clone()),
            _ => Size::Any,
        };
        let shape = tensor.shape.as_ref().map(|s| s.dim.iter().map(|d| size(&d.value)).collect());
        Self { name, dtype, shape }
    }
}

/// Where a weight is.
enum Weight {
    Here(Array),
    Archive(usize),
}

/// A model that is ready to be evaluated. Its weights are read from their archive while it runs, each when a node first
/// wants it, and freed after the last that does.
pub struct Graph<'a> {
    body: node::Body,
    names: HashMap<String, usize>,
    weights: HashMap<usize, Weight>,
    archive: Box<dyn Archive + 'a>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Constants of the graph are counted here as long as it lives.
    _constants: Cx,
}

impl std::fmt::Debug for Graph<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({} nodes, {} weights)", self.body.nodes.len(), self.weights.len())
    }
}

impl Graph<'static> {
    /// Opens a file, with the external data that it names.
    ///
    /// # Errors
    /// Those of the format's reader; those of [`Graph::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (model, weights) = read_model(&Source::open(path)?, &ReadOptions::default())?;
        Self::new(&model, weights)
    }

    /// Reads a model from memory. Its weights must be inside.
    ///
    /// # Errors
    /// As [`Graph::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let (model, weights) = read_model(&Source::from_bytes(bytes), &ReadOptions::default())?;
        Self::new(&model, weights)
    }
}

impl<'a> Graph<'a> {
    /// Makes a graph of a model whose weights are in an archive under the names of its initializers. Initializers that
    /// the model holds itself are taken from there; a name that is in neither is a value like any other.
    ///
    /// # Errors
    /// `Unsupported` with the names of all operators that the evaluator lacks, and for weights that are no numbers;
    /// `Malformed` for a graph that contradicts itself; `LimitExceeded` for one beyond all bounds.
    pub fn new(model: &ModelProto, weights: Box<dyn Archive + 'a>) -> Result<Self> {
        Self::compile(model, weights).map_err(|e| e.with_format("onnx"))
    }

    fn compile(model: &ModelProto, archive: Box<dyn Archive + 'a>) -> Result<Self> {
        let graph = model.graph.as_ref().ok_or_else(|| Error::malformed("the model has no graph"))?;
        let cx = EvaluateOptions::default().cx();
        let mut by_name: HashMap<String, Weight> = HashMap::new();
        for (i, tensor) in archive.tensors().iter().enumerate() {
            by_name.insert(tensor.name().to_owned(), Weight::Archive(i));
        }
        let sparse =
            |s: &SparseTensorProto| s.values.as_ref().and_then(|v| v.name.clone()).unwrap_or_default();
        if let Some(name) = graph.sparse_initializer.iter().map(sparse).find(|n| !by_name.contains_key(n)) {
            return Err(Error::unsupported("a sparse initializer that is in no archive").with_tensor(name));
        }
        for tensor in &graph.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            if let Entry::Vacant(free) = by_name.entry(name) {
                free.insert(Weight::Here(to_array(tensor)?));
            }
        }
        let compiler = graph::Compiler::new(cx.clone(), model);
        let compiled = compiler.main(graph, by_name.keys().map(String::as_str))?;
        // In files of the first versions every initializer is listed as an input too.
        let inputs = graph.input.iter().map(Port::of).filter(|p| !by_name.contains_key(&p.name)).collect();
        let names = compiled.names;
        let weights = by_name.into_iter().filter_map(|(name, w)| names.get(&name).map(|&v| (v, w))).collect();
        Ok(Self {
            body: compiled.body,
            names,
            weights,
            archive,
            inputs,
            outputs: graph.output.iter().map(Port::of).collect(),
            _constants: cx,
        })
    }

    /// What the model must be given.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What it gives.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The operators of the model's nodes, each once, with the number of nodes; those of bodies are not counted.
    pub fn operators(&self) -> BTreeMap<String, usize> {
        let mut out = BTreeMap::new();
        for node in &self.body.nodes {
            *out.entry(node.op.clone()).or_default() += 1;
        }
        out
    }

    /// The shape of a weight.
    pub fn weight_shape(&self, name: &str) -> Option<Vec<u64>> {
        match self.weights.get(self.names.get(name)?)? {
            Weight::Here(array) => Some(array.shape.clone()),
            Weight::Archive(i) => self.archive.tensors().get(*i).map(|t| t.shape().to_vec()),
        }
    }

    /// The types of the weights, each once.
    pub fn weight_dtypes(&self) -> Vec<DType> {
        let dtype = |w: &Weight| match w {
            Weight::Here(array) => Some(array.dtype),
            Weight::Archive(i) => self.archive.tensors().get(*i).map(TensorInfo::dtype),
        };
        let all: std::collections::BTreeSet<DType> = self.weights.values().filter_map(dtype).collect();
        all.into_iter().collect()
    }

    /// The weights that `Gather` reads by an index that comes straight from this input: embedding tables.
    pub fn tables_of(&self, input: &str) -> Vec<Vec<u64>> {
        let Some(&value) = self.names.get(input) else { return Vec::new() };
        let by_value: HashMap<usize, &str> = self.names.iter().map(|(n, v)| (*v, n.as_str())).collect();
        let gathers =
            self.body.nodes.iter().filter(|n| n.op == "Gather" && n.inputs.get(1) == Some(&Some(value)));
        let tables = gathers.filter_map(|n| by_value.get(&n.inputs.first().copied().flatten()?).copied());
        tables.filter_map(|name| self.weight_shape(name)).collect()
    }

    /// Runs the model.
    ///
    /// # Errors
    /// `Mismatch` for inputs that are missing, unknown, or not of the type and shape that the model declares;
    /// `LimitExceeded` for what passes the options' bounds; `Unsupported` and `Malformed`, with the node's name, for
    /// what an operator does not take.
    pub fn run(&self, inputs: &Arrays, options: &EvaluateOptions) -> Result<Arrays> {
        self.run_measured(inputs, options).map(|(outputs, _)| outputs)
    }

    /// As [`Graph::run`]; and the most bytes of values that lived at a time.
    ///
    /// # Errors
    /// As [`Graph::run`].
    pub fn run_measured(&self, inputs: &Arrays, options: &EvaluateOptions) -> Result<(Arrays, u64)> {
        self.evaluate(inputs, options).map_err(|e| e.with_format("onnx"))
    }

    fn evaluate(&self, inputs: &Arrays, options: &EvaluateOptions) -> Result<(Arrays, u64)> {
        check_inputs(&self.inputs, inputs)?;
        let cx = options.cx();
        let mut values: Vec<Option<Tensor>> = vec![None; self.body.values];
        for (name, array) in inputs {
            if let Some(&v) = self.names.get(name) {
                values[v] = Some(Tensor::from_array(&cx, array).map_err(|e| e.with_tensor(name))?);
            }
        }
        run::run_values(&cx, &self.body, &mut values, self)?;
        let mut outputs = Arrays::new();
        for (port, &v) in self.outputs.iter().zip(&self.body.outputs) {
            let tensor = match values[v].clone() {
                Some(t) => Some(t),
                None => run::Weights::weight(self, &cx, v)?,
            };
            let tensor = tensor
                .ok_or_else(|| Error::malformed(format!("output {:?} is made by nothing", port.name)))?;
            outputs.insert(port.name.clone(), tensor.to_array()?);
        }
        Ok((outputs, cx.budget.peak()))
    }
}

impl run::Weights for Graph<'_> {
    fn weight(&self, cx: &Cx, value: usize) -> Result<Option<Tensor>> {
        match self.weights.get(&value) {
            None => Ok(None),
            Some(Weight::Here(array)) => Tensor::from_array(cx, array).map(Some),
            Some(Weight::Archive(i)) => {
                let info = self.archive.tensors().get(*i).ok_or_else(|| Error::not_found("a weight"))?;
                let read = || {
                    let room = usize::try_from(info.bytes()).unwrap_or(usize::MAX);
                    cx.room(room, 1)?;
                    let bytes = self.archive.data(*i)?.read_all()?;
                    Tensor::from_array(cx, &Array::new(info.dtype(), info.shape(), bytes)?)
                };
                read().map(Some).map_err(|e| e.with_tensor(info.name()))
            }
        }
    }
}

/// Holds arrays against what a model declares.
pub(crate) fn check_inputs(ports: &[Port], given: &Arrays) -> Result<()> {
    let names = || ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = given.keys().find(|n| !ports.iter().any(|p| p.name == **n)) {
        let error = Error::mismatch(format!("the model has no input {unknown:?}"));
        return Err(error.with_hint(format!("its inputs are: {}", names())));
    }
    let mut sizes: HashMap<&str, (u64, &str)> = HashMap::new();
    for port in ports {
        let Some(array) = given.get(&port.name) else {
            let error = Error::mismatch(format!("input {:?} is not given", port.name));
            return Err(error.with_hint(format!("the inputs are: {}", names())));
        };
        array.elements().map_err(|e| e.with_tensor(&port.name))?;
        let wrong = |what: String| Err(Error::mismatch(what).with_tensor(&port.name));
        match port.dtype {
            Some(dtype) if dtype != array.dtype => {
                return wrong(format!("the input is declared as {dtype}, and {} is given", array.dtype));
            }
            None => {
                return Err(
                    Error::unsupported("an input that is no tensor of numbers").with_tensor(&port.name)
                );
            }
            _ => {}
        }
        let Some(shape) = &port.shape else { continue };
        let fits = |(size, &d): (&Size, &u64)| !matches!(size, Size::Fixed(n) if *n != d);
        if shape.len() != array.shape.len() || !shape.iter().zip(&array.shape).all(fits) {
            return wrong(format!(
                "the input is declared as {}, and {:?} is given",
                shown(shape),
                array.shape
            ));
        }
        for (size, &d) in shape.iter().zip(&array.shape) {
            if let Size::Named(name) = size {
                let (first, of) = *sizes.entry(name).or_insert((d, &port.name));
                if first != d {
                    return wrong(format!("{name} is {d} here, and {first} in {of:?}"));
                }
            }
        }
    }
    Ok(())
}

/// A declared shape as text: `[batch, 3, ?]`.
pub fn shown(shape: &[Size]) -> String {
    let sizes: Vec<String> = shape
        .iter()
        .map(|s| match s {
            Size::Fixed(n) => n.to_string(),
            Size::Named(name) => name.clone(),
            Size::Any => "?".into(),
        })
        .collect();
    format!("[{}]", sizes.join(", "))
}

/// The operators that the evaluator has, of the standard and of com.microsoft.
pub fn operators() -> (Vec<&'static str>, Vec<&'static str>) {
    (ops::names("").collect(), ops::names("com.microsoft").collect())
}
