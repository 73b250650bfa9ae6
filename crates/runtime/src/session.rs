//! ONNX Runtime, by the crate `ort`: its library is loaded when the first session is made.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};
use weighbridge_formats::backends::onnx::read_model;
use weighbridge_formats::{DType, Error, ErrorKind, ReadOptions, Result, Source};

use crate::array::{Array, Element};
use crate::eval::{Arrays, Port, Size, check_inputs};

/// How much a model is changed before it runs.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimization {
    /// Not at all: each node runs as the file has it.
    None,
    /// Constants are folded and what is not needed is removed.
    Basic,
    /// Nodes are fused as well.
    Extended,
    /// Everything that the runtime has, layouts of memory included.
    #[default]
    All,
}

/// Choices for a session.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The file of ONNX Runtime's library. Without it, what the variable `ORT_DYLIB_PATH` names, else the name that the
    /// system's loader looks for.
    pub library: Option<PathBuf>,
    /// How many threads compute; `None` leaves it to the runtime.
    pub threads: Option<usize>,
    /// How much the model is changed first.
    pub optimization: Optimization,
}

/// The oldest release that the crate `ort` is built for here.
const OLDEST: &str = "1.22";

/// What is loaded in this process: the library's name, and its environment.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Where the library is looked for, in order.
fn candidates(asked: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = asked {
        return vec![path.to_owned()];
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return vec![path.into()];
    }
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let mut names = vec![format!("{prefix}onnxruntime{suffix}")];
    if cfg!(target_os = "linux") {
        names.push("libonnxruntime.so.1".into());
    }
    names.into_iter().map(PathBuf::from).collect()
}

/// What to do about a library that is not there.
fn hint() -> String {
    format!(
        "take the library of ONNX Runtime {OLDEST} or newer, from its releases or out of PyPI's package onnxruntime \
         (onnxruntime/capi/), and set ORT_DYLIB_PATH to the file"
    )
}

/// The runtime's environment, with the library loaded unless this process has one. A process may have one environment
/// alone, so a program that uses the crate `ort` beside this one takes it from here.
///
/// # Errors
/// As [`load`].
pub fn environment(asked: Option<&Path>) -> Result<Environment> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let candidates = candidates(asked);
    if let Some((name, environment)) = &*loaded {
        if asked.is_some() && !candidates.contains(name) {
            let what = format!("this process has loaded {} already", name.display());
            return Err(Error::invalid_options(what).with_hint("one process runs one library"));
        }
        return Ok(environment.clone());
    }
    let mut refused = Vec::new();
    for name in candidates {
        // A path that is written out is looked for first: the loader's own words for it are many.
        if name.components().count() > 1 && !name.is_file() {
            refused.push(format!("{} is no file", name.display()));
            continue;
        }
        match ort::init_from(&name) {
            Ok(builder) => {
                let environment =
                    builder.with_name("weighbridge").with_telemetry(false).build().map_err(told)?;
                environment.set_log_level(ort::logging::LogLevel::Fatal);
                *loaded = Some((name, environment.clone()));
                return Ok(environment);
            }
            Err(ort::LoadDynamicError::BadVersion { version_str, path }) => {
                let what =
                    format!("{} is ONNX Runtime {version_str}, and {OLDEST} is wanted", path.display());
                return Err(Error::unsupported(what).with_hint(hint()));
            }
            Err(ort::LoadDynamicError::MissingApi { path }) => {
                let what = format!("{} is a library, and not that of ONNX Runtime", path.display());
                return Err(Error::unsupported(what).with_hint(hint()));
            }
            Err(other) => refused.push(other.to_string()),
        }
    }
    let what = format!("ONNX Runtime is not here: {}", refused.join("; "));
    Err(Error::not_found(what).with_hint(hint()))
}

/// Whether a session could be made: loads the library.
///
/// # Errors
/// `NotFound` where there is no library, `Unsupported` for one that is too old or something else, each with a hint that
/// says how to get it.
pub fn load(library: Option<&Path>) -> Result<()> {
    environment(library).map(|_| ())
}

/// The runtime's errors in our terms.
#[allow(clippy::needless_pass_by_value)] // It stands where `map_err` hands errors over.
fn told<R>(error: ort::Error<R>) -> Error {
    let kind = match error.code() {
        ort::ErrorCode::NoSuchFile | ort::ErrorCode::NotFound => ErrorKind::NotFound,
        ort::ErrorCode::NotImplemented => ErrorKind::Unsupported,
        ort::ErrorCode::InvalidArgument => ErrorKind::Mismatch,
        _ => ErrorKind::Malformed,
    };
    Error::new(kind, format!("ONNX Runtime: {}", error.message().trim())).with_format("onnx")
}

/// Types of elements, by the runtime's names and ours.
const TYPES: &[(TensorElementType, DType)] = &[
    (TensorElementType::Float32, DType::F32),
    (TensorElementType::Float64, DType::F64),
    (TensorElementType::Float16, DType::F16),
    (TensorElementType::Bfloat16, DType::Bf16),
    (TensorElementType::Int8, DType::I8),
    (TensorElementType::Int16, DType::I16),
    (TensorElementType::Int32, DType::I32),
    (TensorElementType::Int64, DType::I64),
    (TensorElementType::Uint8, DType::U8),
    (TensorElementType::Uint16, DType::U16),
    (TensorElementType::Uint32, DType::U32),
    (TensorElementType::Uint64, DType::U64),
    (TensorElementType::Bool, DType::Bool),
];

fn dtype_of(kind: TensorElementType) -> Option<DType> {
    TYPES.iter().find(|(t, _)| *t == kind).map(|(_, d)| *d)
}

fn port(outlet: &ort::value::Outlet) -> Port {
    let name = outlet.name().to_owned();
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let size = |(d, symbol): (&i64, &String)| match u64::try_from(*d) {
                Ok(n) => Size::Fixed(n),
                Err(_) if symbol.is_empty() => Size::Any,
                Err(_) => Size::Named(symbol.clone()),
            };
            let shape = shape.iter().zip(dimension_symbols.iter()).map(size).collect();
            Port { name, dtype: dtype_of(*ty), shape: Some(shape) }
        }
        _ => Port { name, dtype: None, shape: None },
    }
}

/// A model that ONNX Runtime has loaded.
pub struct Session {
    inner: ort::session::Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} inputs, {} outputs)", self.inputs.len(), self.outputs.len())
    }
}

impl Session {
    /// Loads a file, with the external data that it names. Our own reader looks at it first, so that a model which names
    /// files outside its folder is refused before the runtime sees it.
    ///
    /// # Errors
    /// `NotFound` and `Unsupported` for the library, as [`load`]; those of the format's reader; `Malformed` and
    /// `Unsupported`, in the runtime's words, for a model that it does not take.
    pub fn open(path: impl AsRef<Path>, options: &SessionOptions) -> Result<Self> {
        let path = path.as_ref();
        let mut builder = builder(options)?;
        read_model(&Source::open(path)?, &ReadOptions::default())?;
        let inner = builder.commit_from_file(path).map_err(|e| told(e).with_path(path))?;
        Ok(Self::of(inner))
    }

    /// Loads a model from memory. Its weights must be inside.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_bytes(bytes: &[u8], options: &SessionOptions) -> Result<Self> {
        let mut builder = builder(options)?;
        Ok(Self::of(builder.commit_from_memory(bytes).map_err(told)?))
    }

    fn of(inner: ort::session::Session) -> Self {
        let inputs = inner.inputs().iter().map(port).collect();
        let outputs = inner.outputs().iter().map(port).collect();
        Self { inner, inputs, outputs }
    }

    /// What the model must be given.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What it gives.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Runs the model.
    ///
    /// # Errors
    /// `Mismatch` for inputs that are missing, unknown, or not of the type and shape that the model declares;
    /// `Unsupported` for text and types that arrays do not hold; `Malformed`, in the runtime's words, for what fails.
    pub fn run(&mut self, inputs: &Arrays) -> Result<Arrays> {
        let prepared = self.prepare(inputs)?;
        self.run_prepared(&prepared)
    }

    /// Checks inputs and hands them to the runtime, for several runs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn prepare(&self, inputs: &Arrays) -> Result<Prepared> {
        check_inputs(&self.inputs, inputs)?;
        let value = |(name, array): (&String, &Array)| {
            Ok((name.clone(), to_value(array).map_err(|e| e.with_tensor(name))?))
        };
        Ok(Prepared(inputs.iter().map(value).collect::<Result<_>>()?))
    }

    /// Runs the model on inputs that are with the runtime already.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_prepared(&mut self, inputs: &Prepared) -> Result<Arrays> {
        let given: Vec<(&str, &DynValue)> = inputs.0.iter().map(|(n, v)| (n.as_str(), v)).collect();
        let outputs = self.inner.run(given).map_err(told)?;
        let mut out = Arrays::new();
        for (name, value) in &outputs {
            out.insert(name.to_owned(), from_value(&value).map_err(|e| e.with_tensor(name))?);
        }
        Ok(out)
    }

    /// The seconds of each of so many runs, without the copying of inputs and outputs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn time(&mut self, inputs: &Prepared, runs: usize) -> Result<Vec<f64>> {
        let mut out = Vec::with_capacity(runs.min(1 << 20));
        for _ in 0..runs {
            let given: Vec<(&str, &DynValue)> = inputs.0.iter().map(|(n, v)| (n.as_str(), v)).collect();
            let begin = std::time::Instant::now();
            let outputs = self.inner.run(given).map_err(told)?;
            out.push(begin.elapsed().as_secs_f64());
            drop(outputs);
        }
        Ok(out)
    }
}

/// Inputs that the runtime has: see [`Session::prepare`].
pub struct Prepared(Vec<(String, DynValue)>);

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({} inputs)", self.0.len())
    }
}

fn builder(options: &SessionOptions) -> Result<SessionBuilder> {
    let environment = environment(options.library.as_deref())?;
    let level = match options.optimization {
        Optimization::None => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    };
    let builder = SessionBuilder::new(&environment).map_err(told)?;
    let builder = builder.with_log_level(ort::logging::LogLevel::Fatal).map_err(told)?;
    let builder = builder.with_optimization_level(level).map_err(told)?;
    match options.threads {
        Some(n) => builder.with_intra_threads(n).map_err(told),
        None => Ok(builder),
    }
}

fn to_value(array: &Array) -> Result<DynValue> {
    let shape: Vec<i64> = array.shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
    macro_rules! tensor {
        ($type:ty) => {
            Tensor::<$type>::from_array((shape, array.to_vec::<$type>()?)).map_err(told)?.into_dyn()
        };
    }
    Ok(match array.dtype {
        DType::F32 => tensor!(f32),
        DType::F64 => tensor!(f64),
        DType::F16 => tensor!(half::f16),
        DType::Bf16 => tensor!(half::bf16),
        DType::I8 => tensor!(i8),
        DType::I16 => tensor!(i16),
        DType::I32 => tensor!(i32),
        DType::I64 => tensor!(i64),
        DType::U8 => tensor!(u8),
        DType::U16 => tensor!(u16),
        DType::U32 => tensor!(u32),
        DType::U64 => tensor!(u64),
        DType::Bool => {
            array.elements()?;
            let values: Vec<bool> = array.bytes.iter().map(|&b| b != 0).collect();
            Tensor::<bool>::from_array((shape, values)).map_err(told)?.into_dyn()
        }
        other => {
            return Err(Error::unsupported(format!("arrays of {other} are not given to ONNX Runtime here")));
        }
    })
}

fn from_value(value: &DynValue) -> Result<Array> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(Error::unsupported("an output that is no tensor"));
    };
    fn of<T: Element + ort::value::PrimitiveTensorElementType>(value: &DynValue) -> Result<Array> {
        let (shape, values) = value.try_extract_tensor::<T>().map_err(told)?;
        Array::of(shape.iter().map(|&d| u64::try_from(d).unwrap_or(0)).collect::<Vec<_>>(), values)
    }
    match dtype_of(*ty) {
        Some(DType::F32) => of::<f32>(value),
        Some(DType::F64) => of::<f64>(value),
        Some(DType::F16) => of::<half::f16>(value),
        Some(DType::Bf16) => of::<half::bf16>(value),
        Some(DType::I8) => of::<i8>(value),
        Some(DType::I16) => of::<i16>(value),
        Some(DType::I32) => of::<i32>(value),
        Some(DType::I64) => of::<i64>(value),
        Some(DType::U8) => of::<u8>(value),
        Some(DType::U16) => of::<u16>(value),
        Some(DType::U32) => of::<u32>(value),
        Some(DType::U64) => of::<u64>(value),
        Some(DType::Bool) => {
            let (shape, values) = value.try_extract_tensor::<bool>().map_err(told)?;
            let shape: Vec<u64> = shape.iter().map(|&d| u64::try_from(d).unwrap_or(0)).collect();
            Array::new(DType::Bool, shape, values.iter().map(|&b| u8::from(b)).collect())
        }
        _ => Err(Error::unsupported(format!("an output of {ty}"))),
    }
}
