//! A model in ONNX Runtime, held against a reference: the evaluator, or outputs that are given.

use std::path::Path;
use std::time::Instant;

use weighbridge_formats::{DType, Error, Result};

use crate::array::Array;
use crate::compare::{Difference, Tolerance, compare};
use crate::eval::{Arrays, EvaluateOptions, Graph, Port, Size};
use crate::generate::{GenerateOptions, Sizes, generate};
use crate::session::{Session, SessionOptions};

/// Choices for a check.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Where the row of random numbers begins.
    pub seed: u64,
    /// The sizes of named dimensions in each round; empty for three rounds of small sizes (one where all are fixed).
    pub rounds: Vec<Sizes>,
    /// How many tokens there are; `None` for the rows of the embedding.
    pub vocabulary: Option<u64>,
    /// Inputs to use in place of those that are made up; then there is one round.
    pub inputs: Option<Arrays>,
    /// Outputs to compare with in place of the evaluator's. They need `inputs`.
    pub outputs: Option<Arrays>,
    /// What difference is allowed; `None` for what the narrowest type of the model's weights and outputs explains.
    pub tolerance: Option<Tolerance>,
    /// Choices for ONNX Runtime.
    pub session: SessionOptions,
    /// Bounds for the evaluator.
    pub evaluate: EvaluateOptions,
}

/// One output in one round.
#[derive(Clone, Debug)]
pub struct OutputCheck {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape in this round.
    pub shape: Vec<u64>,
    /// How far it is from the reference.
    pub difference: Difference,
}

/// One run of both.
#[derive(Clone, Debug)]
pub struct Round {
    /// The shape of every input.
    pub inputs: Vec<(String, Vec<u64>)>,
    /// The outputs, in the model's order.
    pub outputs: Vec<OutputCheck>,
    /// The seconds that ONNX Runtime took.
    pub runtime_seconds: f64,
    /// The seconds that the evaluator took, where it was asked.
    pub evaluator_seconds: Option<f64>,
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// What was allowed.
    pub tolerance: Tolerance,
    /// The rounds; never empty.
    pub rounds: Vec<Round>,
}

impl CheckReport {
    /// Whether every output of every round was within the tolerance.
    pub fn passed(&self) -> bool {
        self.outputs().all(|o| o.difference.within) && self.outputs().next().is_some()
    }

    /// All outputs of all rounds.
    pub fn outputs(&self) -> impl Iterator<Item = &OutputCheck> {
        self.rounds.iter().flat_map(|r| &r.outputs)
    }

    /// The largest difference of two elements.
    pub fn absolute(&self) -> f64 {
        self.outputs().map(|o| o.difference.absolute).fold(0.0, f64::max)
    }

    /// The smallest cosine.
    pub fn cosine(&self) -> f64 {
        self.outputs().map(|o| o.difference.cosine).fold(1.0, f64::min)
    }
}

/// Rounds of different sizes, so that a dimension that was frozen by mistake is found.
fn rounds_of(ports: &[Port]) -> Vec<Sizes> {
    let mut names: Vec<&str> = Vec::new();
    for size in ports.iter().filter_map(|p| p.shape.as_ref()).flatten() {
        if let Size::Named(name) = size
            && !name.contains('+')
        {
            names.push(name);
        }
    }
    if names.is_empty() {
        return vec![Sizes::new()];
    }
    let sizes = |batch: u64, length: u64, past: u64| {
        let size = |name: &&str| {
            let lower = name.to_ascii_lowercase();
            let n = match () {
                () if lower.contains("batch") => batch,
                () if lower.contains("total") => past + length,
                () if lower.contains("past") => past,
                () if lower.contains("seq") || lower.contains("len") => length,
                // What the name does not say stays as `generate` has it.
                () => return None,
            };
            Some(((*name).to_owned(), n))
        };
        names.iter().filter_map(size).collect::<Sizes>()
    };
    vec![sizes(2, 6, 3), sizes(1, 1, 7), sizes(3, 17, 0)]
}

/// Runs a model by ONNX Runtime, and compares what it gives with the reference.
///
/// # Errors
/// Those of [`Session::open`] and [`Graph::open`]; `InvalidOptions` for outputs without inputs; `Mismatch` where an
/// output has another shape or type than the reference. A difference beyond the tolerance is no error: the report says it.
pub fn check(path: impl AsRef<Path>, options: &CheckOptions) -> Result<CheckReport> {
    let path = path.as_ref();
    if options.outputs.is_some() && options.inputs.is_none() {
        return Err(Error::invalid_options("outputs to compare with need the inputs that they belong to"));
    }
    let mut session = Session::open(path, &options.session)?;
    let graph = match (&options.outputs, &options.inputs) {
        (Some(_), Some(_)) => None,
        _ => Some(Graph::open(path).map_err(|e| {
            e.with_better_hint(
                "give inputs and outputs to compare with, since the evaluator does not take this model",
            )
        })?),
    };
    let inputs = inputs_of(graph.as_ref(), &session, options)?;
    let tolerance = options.tolerance.unwrap_or_else(|| tolerance_of(graph.as_ref(), &session));
    let mut rounds = Vec::with_capacity(inputs.len());
    for inputs in inputs {
        let begin = Instant::now();
        let got = session.run(&inputs)?;
        let runtime_seconds = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let (wanted, evaluator_seconds) = match (&graph, &options.outputs) {
            (Some(graph), _) => {
                let outputs = graph.run(&inputs, &options.evaluate)?;
                (outputs, Some(begin.elapsed().as_secs_f64()))
            }
            (None, Some(outputs)) => (outputs.clone(), None),
            (None, None) => return Err(Error::invalid_options("nothing to compare with")),
        };
        let outputs = compared(&session, &got, &wanted, tolerance)?;
        let inputs = inputs.into_iter().map(|(name, array)| (name, array.shape)).collect();
        rounds.push(Round { inputs, outputs, runtime_seconds, evaluator_seconds });
    }
    Ok(CheckReport { tolerance, rounds })
}

/// Runs a model whose weights were narrowed by ONNX Runtime, and says how far what it gives is from what the evaluator
/// makes of the wide model. Nothing is a failure here: the tolerance of the report is infinite.
///
/// Inputs and outputs of the two have the same names and shapes; floats may be narrower in the narrowed model.
///
/// # Errors
/// As [`check`]; those of [`Graph::run`] for the wide model.
pub fn check_narrowed(
    path: impl AsRef<Path>,
    wide: &Graph<'_>,
    options: &CheckOptions,
) -> Result<CheckReport> {
    let mut session = Session::open(path, &options.session)?;
    let tolerance = Tolerance { absolute: f64::INFINITY, relative: f64::INFINITY };
    let mut rounds = Vec::new();
    for inputs in inputs_of(Some(wide), &session, options)? {
        let begin = Instant::now();
        let got = widened(session.run(&inputs)?)?;
        let runtime_seconds = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let wanted = widened(wide.run(&widened(inputs.clone())?, &options.evaluate)?)?;
        let evaluator_seconds = Some(begin.elapsed().as_secs_f64());
        let outputs = compared(&session, &got, &wanted, tolerance)?;
        let inputs = inputs.into_iter().map(|(name, array)| (name, array.shape)).collect();
        rounds.push(Round { inputs, outputs, runtime_seconds, evaluator_seconds });
    }
    Ok(CheckReport { tolerance, rounds })
}

/// The inputs that the caller gave, or made-up ones for several rounds.
fn inputs_of(graph: Option<&Graph<'_>>, session: &Session, options: &CheckOptions) -> Result<Vec<Arrays>> {
    if let Some(inputs) = &options.inputs {
        return Ok(vec![inputs.clone()]);
    }
    let rounds = if options.rounds.is_empty() { rounds_of(session.inputs()) } else { options.rounds.clone() };
    let made = rounds.into_iter().zip(options.seed..).map(|(sizes, seed)| {
        let generate_options = GenerateOptions { seed, sizes, vocabulary: options.vocabulary };
        generate(graph, session.inputs(), &generate_options)
    });
    made.collect()
}

/// Half-precision floats as f32; everything else as it is.
fn widened(arrays: Arrays) -> Result<Arrays> {
    let widen = |(name, array): (String, Array)| {
        if !matches!(array.dtype, DType::F16 | DType::Bf16) {
            return Ok((name, array));
        }
        let floats: Vec<f32> = array.to_f64()?.into_iter().map(|x| x as f32).collect();
        Ok((name, Array::of(array.shape, &floats)?))
    };
    arrays.into_iter().map(widen).collect()
}

/// Each of the session's outputs that the reference has too.
fn compared(
    session: &Session,
    got: &Arrays,
    wanted: &Arrays,
    tolerance: Tolerance,
) -> Result<Vec<OutputCheck>> {
    let mut outputs = Vec::new();
    for port in session.outputs() {
        let Some(reference) = wanted.get(&port.name) else { continue };
        let array = got.get(&port.name);
        let array = array.ok_or_else(|| Error::not_found("the output").with_tensor(&port.name))?;
        let difference = compare(array, reference, tolerance).map_err(|e| e.with_tensor(&port.name))?;
        let (name, shape) = (port.name.clone(), array.shape.clone());
        outputs.push(OutputCheck { name, dtype: array.dtype, shape, difference });
    }
    if outputs.is_empty() {
        return Err(Error::mismatch("none of the given outputs is one of the model's"));
    }
    Ok(outputs)
}

/// What the narrowest float among the weights and outputs explains.
fn tolerance_of(graph: Option<&Graph<'_>>, session: &Session) -> Tolerance {
    let weights = graph.into_iter().flat_map(Graph::weight_dtypes);
    let outputs = session.outputs().iter().filter_map(|p| p.dtype);
    let all: Vec<DType> = weights.chain(outputs).collect();
    let narrowest = [DType::Bf16, DType::F16].into_iter().find(|d| all.contains(d)).unwrap_or(DType::F32);
    Tolerance::of(narrowest)
}
