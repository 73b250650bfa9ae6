//! `weighbridge run`: an ONNX model, run on arrays.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use weighbridge::runtime::{
    Array, Arrays, EvaluateOptions, GenerateOptions, Graph, Port, Session, SessionOptions, Sizes, generate,
    npy,
};
use weighbridge::write::{ExecuteOptions, execute, execute_folder};
use weighbridge::{Error, Limits, Result};

use crate::exit::Exit;
use crate::output::{self, one_line};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge run model.onnx --input input_ids=ids.npy --input attention_mask=mask.npy
  weighbridge run model.onnx --random --size batch_size=1 --size sequence_length=128 \\
    --repeat 50 --threads 2
  weighbridge run model.onnx --input x=x.npy --output y=y.npy
  weighbridge run model.onnx --random --evaluator --save outputs/

ONNX Runtime's library is found by --library, by the variable ORT_DYLIB_PATH, or by the system; --evaluator needs none.")]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// An input from a .npy file
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_file)]
    input: Vec<(String, PathBuf)>,
    /// Make up the inputs that are not given, by their names and types
    #[arg(long)]
    random: bool,
    /// The size of a named dimension of inputs that are made up
    #[arg(long, value_name = "NAME=N", value_parser = parse_size, requires = "random")]
    size: Vec<(String, u64)>,
    /// Where the row of random numbers begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write an output to a .npy file
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_file)]
    output: Vec<(String, PathBuf)>,
    /// Write every output into a new folder, as NAME.npy
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Run so many times more, and print the times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: Option<u32>,
    /// Threads that compute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Run it by weighbridge's own evaluator, which is exact and slow
    #[arg(long, conflicts_with = "library")]
    evaluator: bool,
    /// The file of ONNX Runtime's library
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Splits `NAME=FILE`. Names of values have no `=` in them where anybody writes them by hand.
pub(super) fn parse_file(text: &str) -> std::result::Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("NAME=FILE is wanted".into()),
    }
}

pub(super) fn parse_size(text: &str) -> std::result::Result<(String, u64), String> {
    let wanted = || "NAME=N is wanted".to_owned();
    let (name, size) = text.split_once('=').ok_or_else(wanted)?;
    Ok((name.to_owned(), size.parse().map_err(|_| wanted())?))
}

/// Arrays from .npy files.
pub(super) fn read_arrays(files: &[(String, PathBuf)]) -> Result<Arrays> {
    let mut arrays = Arrays::new();
    for (name, path) in files {
        if arrays.insert(name.clone(), npy::read(path, &Limits::default())?).is_some() {
            return Err(Error::invalid_options(format!("{name:?} is given twice")));
        }
    }
    Ok(arrays)
}

/// What runs the model.
enum Engine {
    Runtime(Session),
    Evaluator(Box<Graph<'static>>, EvaluateOptions),
}

impl Engine {
    fn open(args: &Args) -> Result<Self> {
        let threads = args.threads.map(usize::from);
        if args.evaluator {
            let mut options = EvaluateOptions::default();
            options.threads = threads;
            return Ok(Self::Evaluator(Box::new(Graph::open(&args.model)?), options));
        }
        let mut options = SessionOptions::default();
        (options.library, options.threads) = (args.library.clone(), threads);
        let hint = |e: Error| match (e.kind(), e.hint().map(str::to_owned)) {
            (weighbridge::ErrorKind::NotFound, Some(hint)) if hint.contains("ORT_DYLIB_PATH") => {
                e.with_better_hint(format!("{hint}; or run the model by --evaluator"))
            }
            _ => e,
        };
        Ok(Self::Runtime(Session::open(&args.model, &options).map_err(hint)?))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Runtime(_) => "onnxruntime",
            Self::Evaluator(..) => "evaluator",
        }
    }

    fn inputs(&self) -> &[Port] {
        match self {
            Self::Runtime(session) => session.inputs(),
            Self::Evaluator(graph, _) => graph.inputs(),
        }
    }

    fn outputs(&self) -> &[Port] {
        match self {
            Self::Runtime(session) => session.outputs(),
            Self::Evaluator(graph, _) => graph.outputs(),
        }
    }

    /// The outputs, and the seconds of each of so many further runs.
    fn run(&mut self, inputs: &Arrays, repeat: usize) -> Result<(Arrays, Vec<f64>)> {
        match self {
            Self::Runtime(session) => {
                let prepared = session.prepare(inputs)?;
                let outputs = session.run_prepared(&prepared)?;
                Ok((outputs, session.time(&prepared, repeat)?))
            }
            Self::Evaluator(graph, options) => {
                let outputs = graph.run(inputs, options)?;
                let mut times = Vec::new();
                for _ in 0..repeat {
                    let begin = Instant::now();
                    graph.run(inputs, options)?;
                    times.push(begin.elapsed().as_secs_f64());
                }
                Ok((outputs, times))
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut engine = Engine::open(args)?;
    let inputs = inputs_of(args, &engine)?;
    let known = engine.outputs();
    if let Some((name, _)) = args.output.iter().find(|(n, _)| !known.iter().any(|p| p.name == *n)) {
        let names: Vec<&str> = known.iter().map(|p| p.name.as_str()).collect();
        let error = Error::invalid_options(format!("the model has no output {name:?}"));
        return Err(error.with_hint(format!("its outputs are: {}", names.join(", "))));
    }
    let order: Vec<String> = known.iter().map(|p| p.name.clone()).collect();
    let (outputs, mut times) = engine.run(&inputs, args.repeat.unwrap_or(0) as usize)?;
    times.sort_by(f64::total_cmp);
    let written = save(args, &outputs)?;
    let outputs: Vec<(&String, &Array)> = order.iter().filter_map(|n| outputs.get_key_value(n)).collect();
    if args.json {
        let report = serde_json::json!({
            "engine": engine.name(),
            "inputs": inputs.iter().map(|(n, a)| array_json(n, a)).collect::<Vec<_>>(),
            "outputs": outputs.iter().map(|(n, a)| array_json(n, a)).collect::<Vec<_>>(),
            "seconds": times_json(&times),
            "files": written.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>(),
        });
        output::emit(format!("{report}\n").as_bytes())?;
    } else {
        output::emit(text(&outputs, &times, &written).as_bytes())?;
    }
    Ok(Exit::Success)
}

fn inputs_of(args: &Args, engine: &Engine) -> Result<Arrays> {
    let mut inputs = read_arrays(&args.input)?;
    let ports = engine.inputs();
    let missing: Vec<Port> = ports.iter().filter(|p| !inputs.contains_key(&p.name)).cloned().collect();
    if missing.is_empty() || !args.random {
        if !missing.is_empty() {
            let list: Vec<String> = missing.iter().map(described).collect();
            let error = Error::invalid_options(format!("inputs are not given: {}", list.join(", ")));
            return Err(error.with_hint("give each by --input NAME=FILE.npy, or make them up by --random"));
        }
        return Ok(inputs);
    }
    let mut options = GenerateOptions::default();
    options.seed = args.seed;
    options.sizes = sizes_of(&args.size, ports, &inputs);
    // The tables of embeddings say how many tokens there are; the runtime does not tell, so our reader is asked.
    let other;
    let graph = match engine {
        Engine::Evaluator(graph, _) => Some(&**graph),
        Engine::Runtime(_) => {
            other = Graph::open(&args.model).ok();
            other.as_ref()
        }
    };
    inputs.extend(generate(graph, &missing, &options)?);
    Ok(inputs)
}

/// Sizes that are asked for, and those that the given arrays have.
fn sizes_of(asked: &[(String, u64)], ports: &[Port], given: &Arrays) -> Sizes {
    let mut sizes = Sizes::new();
    for port in ports {
        let (Some(array), Some(shape)) = (given.get(&port.name), &port.shape) else { continue };
        for (size, &d) in shape.iter().zip(&array.shape) {
            if let weighbridge::runtime::Size::Named(name) = size {
                sizes.insert(name.clone(), d);
            }
        }
    }
    sizes.extend(asked.iter().cloned());
    sizes
}

/// An input's name, type and shape in one line.
fn described(port: &Port) -> String {
    let dtype = port.dtype.map_or_else(|| "no numbers".to_owned(), |d| d.to_string());
    let shape = port.shape.as_deref().map_or_else(|| "of any shape".to_owned(), weighbridge::runtime::shown);
    format!("{} ({dtype} {shape})", one_line(&port.name))
}

/// Writes what is to be written; returns the paths.
fn save(args: &Args, outputs: &Arrays) -> Result<Vec<PathBuf>> {
    let mut options = ExecuteOptions::default();
    options.overwrite = args.force;
    let mut written = Vec::new();
    for (name, path) in &args.output {
        let array = outputs.get(name).ok_or_else(|| Error::not_found("the output").with_tensor(name))?;
        let file = path.file_name().and_then(|n| n.to_str());
        let file = file.ok_or_else(|| Error::invalid_options("no name for a file").with_path(path))?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let done = execute(npy::plan([(file.to_owned(), array)])?, folder, &options);
        written.extend(done.map_err(|e| replace_hint(e, args))?.files);
    }
    if let Some(folder) = &args.save {
        // A name out of the model is a file's name only where it is a plain one.
        let named = outputs.iter().map(|(name, array)| (format!("{}.npy", file_name(name)), array));
        let done = execute_folder(npy::plan(named)?, folder, &options);
        written.extend(done.map_err(|e| replace_hint(e, args))?.files);
    }
    Ok(written)
}

fn replace_hint(error: Error, args: &Args) -> Error {
    if error.kind() == weighbridge::ErrorKind::InvalidOptions && !args.force {
        error.with_hint("--force replaces files that exist")
    } else {
        error
    }
}

/// An output's name with everything that could mean something to a file system replaced.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let name: String = name.chars().map(plain).take(200).collect();
    if name.trim_matches('.').is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

/// The least, the largest and the mean of the numbers that are finite, and how many are not.
struct Statistics {
    least: f64,
    largest: f64,
    mean: f64,
    not_finite: usize,
}

fn statistics(values: &[f64]) -> Option<Statistics> {
    let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    if finite.is_empty() {
        return None;
    }
    Some(Statistics {
        least: finite.iter().copied().fold(f64::INFINITY, f64::min),
        largest: finite.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mean: finite.iter().sum::<f64>() / finite.len() as f64,
        not_finite: values.len() - finite.len(),
    })
}

/// How many of an array's numbers are shown.
const SHOWN: usize = 6;

fn array_json(name: &str, array: &Array) -> serde_json::Value {
    let values = array.to_f64().unwrap_or_default();
    let statistics = statistics(&values).map(|s| {
        serde_json::json!({ "min": s.least, "max": s.largest, "mean": s.mean, "not_finite": s.not_finite })
    });
    serde_json::json!({
        "name": name,
        "dtype": array.dtype.name(),
        "shape": array.shape,
        "first": values.iter().take(SHOWN).collect::<Vec<_>>(),
        "statistics": statistics,
    })
}

fn times_json(times: &[f64]) -> serde_json::Value {
    if times.is_empty() {
        return serde_json::Value::Null;
    }
    serde_json::json!({
        "runs": times.len(),
        "min": times[0],
        "median": times[times.len() / 2],
        "mean": times.iter().sum::<f64>() / times.len() as f64,
    })
}

fn text(outputs: &[(&String, &Array)], times: &[f64], written: &[PathBuf]) -> String {
    let mut out = String::new();
    for (name, array) in outputs {
        let values = array.to_f64().unwrap_or_default();
        let _ = writeln!(out, "{}  {} {:?}", one_line(name), array.dtype, array.shape);
        if let Some(s) = statistics(&values) {
            let (least, largest, mean) = (brief(s.least), brief(s.largest), brief(s.mean));
            let _ = write!(out, "  min {least}, max {largest}, mean {mean}");
            if s.not_finite > 0 {
                let _ = write!(out, ", {} not finite", s.not_finite);
            }
            out.push('\n');
        }
        let first: Vec<String> = values.iter().take(SHOWN).map(|x| brief(*x)).collect();
        let more = if values.len() > SHOWN { ", …" } else { "" };
        let _ = writeln!(out, "  [{}{more}]", first.join(", "));
    }
    if let (Some(least), Some(median)) = (times.first(), times.get(times.len() / 2)) {
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let ms = |s: f64| format!("{:.3} ms", s * 1e3);
        let (least, median, mean) = (ms(*least), ms(*median), ms(mean));
        let _ = writeln!(out, "{} runs: min {least}, median {median}, mean {mean}", times.len());
    }
    for path in written {
        let _ = writeln!(out, "wrote {}", one_line(&path.to_string_lossy()));
    }
    out
}

/// A number in few characters.
pub(super) fn brief(x: f64) -> String {
    if x == 0.0 || (1e-3..1e6).contains(&x.abs()) && x.fract() != 0.0 {
        format!("{x:.6}").trim_end_matches('0').trim_end_matches('.').to_owned()
    } else if x.fract() == 0.0 && x.abs() < 1e15 {
        format!("{x:.0}")
    } else {
        format!("{x:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_brief() {
        for (x, shown) in
            [(0.0, "0"), (1.5, "1.5"), (-3.0, "-3"), (1e-9, "1.000e-9"), (0.123_456_78, "0.123457")]
        {
            assert_eq!(brief(x), shown);
        }
    }

    #[test]
    fn names_of_outputs_become_names_of_files() {
        assert_eq!(file_name("last_hidden_state"), "last_hidden_state");
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(file_name(".."), "_..");
        assert_eq!(file_name("a/b:0"), "a_b_0");
    }

    #[test]
    fn pairs_are_split_at_the_first_sign() {
        assert_eq!(parse_file("x=a=b.npy"), Ok(("x".into(), "a=b.npy".into())));
        assert!(parse_file("x").is_err() && parse_file("=f").is_err() && parse_file("x=").is_err());
        assert_eq!(parse_size("n=3"), Ok(("n".into(), 3)));
        assert!(parse_size("n=-1").is_err());
    }
}
