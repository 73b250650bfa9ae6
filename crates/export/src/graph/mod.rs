//! A typed builder of ONNX graphs: one method an operator, each of which checks dtypes and shapes and says what the
//! result's are.
//!
//! Nodes are named by scopes, as modules are in the framework that a model comes from
//! (`/encoder/layer.0/attention/MatMul`). Weights come from an archive under the names that they have there, and are
//! not read: the graph only refers to them. What an operator is lowered to depends on the opset in `nn.rs` alone.

mod conv;
mod emit;
mod layers;
mod nn;
mod ops;
mod quantized;
mod shape;
mod shaping;
mod value;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use weighbridge_formats::{Archive, DType, Error, Kind, Result};

pub use conv::Window;
pub use layers::Layout;
pub use nn::AttentionHeads;
pub use value::{Attribute, Dim, Value};

/// A node before it is spelled as protobuf.
struct Node {
    name: String,
    op: &'static str,
    domain: &'static str,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<(&'static str, Attribute)>,
}

/// A small tensor that is part of the graph itself.
struct Constant {
    name: Arc<str>,
    dtype: DType,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

/// An ONNX graph in the making.
///
/// ```
/// use weighbridge_export::graph::{Dim, GraphBuilder};
/// use weighbridge_formats::{DType, Data, MemoryArchive, Tensor};
///
/// let weight = Tensor::new("fc.weight", DType::F32, [3, 2].as_slice(), Data::Borrowed(&[0; 24]))?;
/// let weights = MemoryArchive::new([weight])?;
/// let mut graph = GraphBuilder::new(&weights, 17, DType::F32)?;
/// let x = graph.input("x", DType::F32, &["batch".into(), Dim::Fixed(2)])?;
/// let y = graph.linear(&x, "fc.weight", None, 3)?;
/// assert_eq!(y.shape(), ["batch".into(), Dim::Fixed(3)]);
/// graph.output("y", &y)?;
/// let model = graph.finish("example")?;
/// assert_eq!(model.graph.unwrap().node.len(), 2);
/// # Ok::<(), weighbridge_formats::Error>(())
/// ```
pub struct GraphBuilder<'a> {
    archive: &'a dyn Archive,
    by_name: HashMap<Arc<str>, usize>,
    aliases: HashMap<Arc<str>, Arc<str>>,
    opset: u32,
    compute: DType,
    scope: Vec<String>,
    names: HashMap<String, u32>,
    taken: HashSet<String>,
    inputs: Vec<Value>,
    outputs: Vec<(String, Value)>,
    nodes: Vec<Node>,
    infos: Vec<Value>,
    constants: Vec<Constant>,
    constant_index: HashMap<(DType, Vec<u64>, Vec<u8>), usize>,
    used: BTreeSet<usize>,
    cast_weights: HashMap<usize, Value>,
    transposed: HashMap<String, Value>,
    domains: BTreeMap<&'static str, i64>,
    metadata: Vec<(String, String)>,
    narrowed: quantized::Narrowed,
}

impl<'a> GraphBuilder<'a> {
    /// The lowest opset that graphs are built for.
    pub const MIN_OPSET: u32 = 17;
    /// The highest opset that graphs are built for: the newest that ONNX Runtime 1.31 takes.
    pub const MAX_OPSET: u32 = 26;

    /// An empty graph over these weights, whose floats are computed in `compute`: f32, f16 or bf16.
    ///
    /// # Errors
    /// `InvalidOptions` for an opset or dtype that is not known.
    pub fn new(archive: &'a dyn Archive, opset: u32, compute: DType) -> Result<Self> {
        if !(Self::MIN_OPSET..=Self::MAX_OPSET).contains(&opset) {
            let what = format!("opset {opset}: known are {} to {}", Self::MIN_OPSET, Self::MAX_OPSET);
            return Err(Error::invalid_options(what));
        }
        if !matches!(compute, DType::F32 | DType::F16 | DType::Bf16) {
            return Err(Error::invalid_options(format!("a graph in {compute}: known are F32, F16 and BF16")));
        }
        let names = archive.tensors().iter().enumerate();
        Ok(Self {
            archive,
            by_name: names.map(|(i, t)| (t.shared_name(), i)).collect(),
            aliases: HashMap::new(),
            opset,
            compute,
            scope: Vec::new(),
            names: HashMap::new(),
            taken: HashSet::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            nodes: Vec::new(),
            infos: Vec::new(),
            constants: Vec::new(),
            constant_index: HashMap::new(),
            used: BTreeSet::new(),
            cast_weights: HashMap::new(),
            transposed: HashMap::new(),
            domains: BTreeMap::new(),
            metadata: Vec::new(),
            narrowed: quantized::Narrowed::default(),
        })
    }

    /// Says that a weight's name stands for another's, so that the graph has it once.
    pub fn alias(&mut self, alias: impl Into<Arc<str>>, tensor: impl Into<Arc<str>>) {
        self.aliases.insert(alias.into(), tensor.into());
    }

    /// The opset that the graph is for.
    pub fn opset(&self) -> u32 {
        self.opset
    }

    /// The dtype that floats are computed in.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// Adds an entry to the model's metadata.
    pub fn metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.push((key.into(), value.into()));
    }

    /// Builds a part of the graph under a name.
    ///
    /// # Errors
    /// Those of the part, which then says where it is.
    pub fn scoped<T>(
        &mut self,
        name: impl Into<String>,
        part: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.enter(name);
        let result = part(self);
        self.leave();
        result
    }

    /// Begins a scope.
    pub(crate) fn enter(&mut self, name: impl Into<String>) {
        self.scope.push(name.into());
    }

    /// Ends a scope.
    pub(crate) fn leave(&mut self) {
        self.scope.pop();
    }

    /// The path of the scope: empty, or `/a/b`.
    fn path(&self) -> String {
        self.scope.iter().flat_map(|s| ["/", s]).collect()
    }

    /// An error of building, with the scope that it is in.
    pub(crate) fn error(&self, what: impl std::fmt::Display) -> Error {
        let path = self.path();
        Error::mismatch(if path.is_empty() { what.to_string() } else { format!("{path}: {what}") })
    }

    /// Adds an input of the graph.
    ///
    /// # Errors
    /// `Mismatch` for a name that is taken.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Result<Value> {
        if !self.taken.insert(name.to_owned()) || self.by_name.contains_key(name) {
            return Err(self.error(format!("the name {name:?} is taken")));
        }
        let value = Value::new(name, dtype, shape);
        self.inputs.push(value.clone());
        Ok(value)
    }

    /// Makes a value an output of the graph, under a name that users know.
    ///
    /// # Errors
    /// `Mismatch` for a name that is taken.
    pub fn output(&mut self, name: &str, value: &Value) -> Result<()> {
        if !self.taken.insert(name.to_owned()) || self.by_name.contains_key(name) {
            return Err(self.error(format!("the name {name:?} is taken")));
        }
        self.outputs.push((name.to_owned(), value.clone()));
        Ok(())
    }

    /// The graph's inputs and its outputs so far, under the names that users know.
    pub fn signature(&self) -> (Vec<Value>, Vec<Value>) {
        let named = |(name, value): &(String, Value)| Value::new(name.as_str(), value.dtype(), value.shape());
        (self.inputs.clone(), self.outputs.iter().map(named).collect())
    }

    /// Whether the archive has a tensor of this name.
    pub fn has_weight(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.aliases.contains_key(name)
    }

    /// The shape that the archive has for a tensor.
    pub fn weight_shape(&self, name: &str) -> Option<&[u64]> {
        self.index_of(name).map(|i| self.archive.tensors()[i].shape())
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        let name = self.aliases.get(name).filter(|t| self.by_name.contains_key(*t)).map_or(name, |t| t);
        self.by_name.get(name).copied()
    }

    /// A weight, under the name that the archive has it by, in the dtype that the graph computes in.
    ///
    /// # Errors
    /// `NotFound` where the archive has none of that name; `Mismatch` for another shape, or numbers that are no
    /// floats.
    pub fn weight(&mut self, name: &str, shape: &[u64]) -> Result<Value> {
        let index = self.find(name, shape)?;
        let info = &self.archive.tensors()[index];
        let dtype = info.dtype();
        self.used.insert(index);
        if let Some(value) = self.cast_weights.get(&index) {
            return Ok(value.clone());
        }
        let dims: Vec<Dim> = shape.iter().map(|&n| Dim::Fixed(n)).collect();
        let name = info.shared_name();
        let mut value = Value::new(name.clone(), dtype, dims.clone());
        if dtype != self.compute {
            // A tensor that kept a wider dtype, or is stored narrower: cast once, at the top of the graph.
            let out = format!("{name}_cast");
            let node = Node {
                name: format!("/weights/{name}/Cast"),
                op: "Cast",
                domain: "",
                inputs: vec![name.to_string()],
                outputs: vec![out.clone()],
                attributes: vec![("to", Attribute::Int(emit::onnx_dtype(self.compute)?))],
            };
            self.taken.insert(out.clone());
            self.nodes.push(node);
            value = Value::new(out, self.compute, dims);
            self.infos.push(value.clone());
        }
        self.cast_weights.insert(index, value.clone());
        Ok(value)
    }

    /// The number of a weight in the archive, which is there in this shape and holds floats.
    fn find(&self, name: &str, shape: &[u64]) -> Result<usize> {
        let Some(index) = self.index_of(name) else {
            let what = format!("the weights have no tensor of this name, and {} needs it", self.place());
            return Err(Error::not_found(what).with_tensor(name));
        };
        let info = &self.archive.tensors()[index];
        if info.shape() != shape {
            let what = format!("its shape is {:?}, and the config makes it {shape:?}", info.shape());
            return Err(Error::mismatch(what).with_tensor(name));
        }
        let dtype = info.dtype();
        if dtype.kind() != Kind::Float {
            return Err(
                Error::mismatch(format!("it is of {dtype}, and weights are floats")).with_tensor(name)
            );
        }
        Ok(index)
    }

    /// The scope as an error names it.
    fn place(&self) -> String {
        if self.scope.is_empty() { "the graph".into() } else { self.path() }
    }

    /// The indices of the archive's tensors that the graph refers to.
    pub fn used_weights(&self) -> impl Iterator<Item = usize> {
        self.used.iter().copied()
    }

    /// The indices of the archive's tensors that the graph does not refer to, those left out that are another's alias.
    pub(crate) fn unused_weights(&self) -> impl Iterator<Item = usize> {
        let names = self.archive.tensors().iter().enumerate();
        let alias = |name: &str| self.aliases.get(name).is_some_and(|t| self.by_name.contains_key(t));
        names.filter(move |(i, t)| !self.used.contains(i) && !alias(t.name())).map(|(i, _)| i)
    }

    /// A constant of raw bytes, little-endian.
    fn constant(&mut self, dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Value {
        let dims: Vec<Dim> = shape.iter().map(|&n| Dim::Fixed(n)).collect();
        let key = (dtype, shape.to_vec(), bytes);
        if let Some(&at) = self.constant_index.get(&key) {
            return Value::new(self.constants[at].name.clone(), dtype, dims);
        }
        let name: Arc<str> =
            format!("/constants/{}_{}", dtype.name().to_lowercase(), self.constants.len()).into();
        self.taken.insert(name.to_string());
        self.constant_index.insert(key.clone(), self.constants.len());
        self.constants.push(Constant { name: name.clone(), dtype, shape: key.1, bytes: key.2 });
        Value::new(name, dtype, dims)
    }

    /// A vector of integers.
    pub fn ints(&mut self, numbers: &[i64]) -> Value {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.constant(DType::I64, &[numbers.len() as u64], bytes)
    }

    /// One integer, without dimensions.
    pub fn int(&mut self, number: i64) -> Value {
        self.constant(DType::I64, &[], number.to_le_bytes().to_vec())
    }

    /// Floats of a shape, rounded to a dtype.
    ///
    /// # Errors
    /// `Mismatch` for a dtype that is none of F32, F16 and BF16, or a shape of another number of elements.
    pub fn floats(&mut self, dtype: DType, shape: &[u64], numbers: &[f64]) -> Result<Value> {
        if weighbridge_formats::element_count(shape) != Some(numbers.len() as u64) {
            return Err(self.error(format!("{} numbers for the shape {shape:?}", numbers.len())));
        }
        let bytes = match dtype {
            DType::F32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            DType::F16 => numbers.iter().flat_map(|&x| half::f16::from_f64(x).to_le_bytes()).collect(),
            DType::Bf16 => numbers.iter().flat_map(|&x| half::bf16::from_f64(x).to_le_bytes()).collect(),
            DType::F64 => numbers.iter().flat_map(|&x| x.to_le_bytes()).collect(),
            other => return Err(self.error(format!("a constant of {other}"))),
        };
        Ok(self.constant(dtype, shape, bytes))
    }

    /// One float, without dimensions.
    ///
    /// # Errors
    /// As [`GraphBuilder::floats`].
    pub fn float(&mut self, dtype: DType, number: f64) -> Result<Value> {
        self.floats(dtype, &[], &[number])
    }

    /// A node of any operator, for what has no method: its one output has this dtype and shape, which nothing checks.
    ///
    /// # Errors
    /// None yet; nodes of several outputs are made by [`GraphBuilder::nodes`].
    pub fn node(
        &mut self,
        op: &'static str,
        inputs: &[&Value],
        attributes: Vec<(&'static str, Attribute)>,
        dtype: DType,
        shape: Vec<Dim>,
    ) -> Result<Value> {
        let inputs: Vec<Option<&Value>> = inputs.iter().map(|v| Some(*v)).collect();
        let mut made = self.nodes("", op, &inputs, attributes, &[(dtype, shape)])?;
        made.pop().ok_or_else(|| self.error("a node without outputs"))
    }

    /// A node of any operator of a domain (empty: ONNX's own), with inputs that may be left out and several outputs.
    ///
    /// # Errors
    /// `Mismatch` for a node without outputs.
    pub fn nodes(
        &mut self,
        domain: &'static str,
        op: &'static str,
        inputs: &[Option<&Value>],
        attributes: Vec<(&'static str, Attribute)>,
        outputs: &[(DType, Vec<Dim>)],
    ) -> Result<Vec<Value>> {
        if outputs.is_empty() {
            return Err(self.error("a node without outputs"));
        }
        if !domain.is_empty() {
            self.domains.insert(domain, 1);
        }
        let base = format!("{}/{op}", self.path());
        let name = loop {
            let count = self.names.entry(base.clone()).or_insert(0);
            let name = if *count == 0 { base.clone() } else { format!("{base}_{count}") };
            *count += 1;
            if self.taken.insert(name.clone()) {
                break name;
            }
        };
        let mut inputs: Vec<String> = inputs.iter().map(|v| v.map_or("", |v| v.name()).to_owned()).collect();
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        let mut values = Vec::with_capacity(outputs.len());
        for (i, (dtype, shape)) in outputs.iter().enumerate() {
            values.push(Value::new(format!("{name}_output_{i}"), *dtype, shape.as_slice()));
        }
        let names = values.iter().map(|v| v.name().to_owned()).collect();
        self.infos.extend(values.iter().cloned());
        self.nodes.push(Node { name, op, domain, inputs, outputs: names, attributes });
        Ok(values)
    }
}
