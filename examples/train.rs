//! Trains a small network for real and saves checkpoints, so that it can be killed at any moment and goes on.
//!
//! A multilayer perceptron learns a function of two numbers by gradient descent with Adam, written by hand. Everything
//! is deterministic: the batch of a step depends on the random state alone, which is saved with the rest. So a
//! training that was killed any number of times ends with the same weights, bit for bit, as one that never was.
//!
//! ```sh
//! cargo run -p weighbridge-examples --bin train -- runs/mlp --steps 2000 --save-every 100
//! ```
//!
//! It prints one line for each thing that happens: `resumed STEP`, `saving STEP`, `saved STEP`, `done STEP`. A line
//! `saved` is an acknowledgement: that checkpoint is on the disk.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use weighbridge::checkpoint::{
    Background, Checkpoint, CheckpointManager, Goal, OptimizerState, OptimizerView, Saved, State,
};
use weighbridge::{DType, Data, Error, MemoryArchive, Result, Tensor};

const INPUTS: usize = 2;
const BATCH: usize = 16;
const LEARNING_RATE: f32 = 1e-3;

/// A matrix of parameters with its gradient and Adam's moments.
struct Param {
    name: &'static str,
    shape: Vec<u64>,
    value: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
}

impl Param {
    fn new(name: &'static str, shape: &[u64], random: &mut Random) -> Self {
        let len = shape.iter().product::<u64>() as usize;
        let scale = 1.0 / (*shape.last().unwrap_or(&1) as f32).sqrt();
        let value = (0..len).map(|_| (random.unit() * 2.0 - 1.0) * scale).collect();
        let zeros = || vec![0.0; len];
        Self { name, shape: shape.to_vec(), value, gradient: zeros(), moments: [zeros(), zeros()] }
    }
}

/// A generator of numbers whose state is one integer.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1u64 << 24) as f32
    }
}

/// Two layers with a rectifier between them.
struct Training {
    hidden: usize,
    params: [Param; 4],
    random: Random,
    step: u64,
}

impl Training {
    fn new(hidden: usize) -> Self {
        let mut random = Random(7);
        let h = hidden as u64;
        let params = [
            Param::new("0.weight", &[h, INPUTS as u64], &mut random),
            Param::new("0.bias", &[h], &mut random),
            Param::new("2.weight", &[1, h], &mut random),
            Param::new("2.bias", &[1], &mut random),
        ];
        Self { hidden, params, random, step: 0 }
    }

    /// One batch forward and backward, and a step of Adam; returns the loss.
    fn step(&mut self) -> f32 {
        let mut loss = 0.0;
        let mut active = vec![0.0; self.hidden];
        self.params.iter_mut().for_each(|p| p.gradient.fill(0.0));
        for _ in 0..BATCH {
            let x = [self.random.unit() * 2.0 - 1.0, self.random.unit() * 2.0 - 1.0];
            let wanted = (3.0 * x[0]).sin() * x[1];
            let [w1, b1, w2, b2] = &mut self.params;
            let mut y = b2.value[0];
            for (i, a) in active.iter_mut().enumerate() {
                let sum = b1.value[i] + w1.value[2 * i] * x[0] + w1.value[2 * i + 1] * x[1];
                *a = sum.max(0.0);
                y += w2.value[i] * *a;
            }
            let error = y - wanted;
            loss += error * error / BATCH as f32;
            let slope = 2.0 * error / BATCH as f32;
            b2.gradient[0] += slope;
            for (i, a) in active.iter().enumerate() {
                w2.gradient[i] += slope * a;
                if *a > 0.0 {
                    let back = slope * w2.value[i];
                    b1.gradient[i] += back;
                    w1.gradient[2 * i] += back * x[0];
                    w1.gradient[2 * i + 1] += back * x[1];
                }
            }
        }
        self.step += 1;
        let correction = |beta: f32| 1.0 - beta.powi(self.step.min(100_000) as i32);
        let (first, second) = (correction(0.9), correction(0.999));
        for p in &mut self.params {
            let [m, v] = &mut p.moments;
            for (((w, g), m), v) in p.value.iter_mut().zip(&p.gradient).zip(m).zip(v) {
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                *w -= LEARNING_RATE * (*m / first) / ((*v / second).sqrt() + 1e-8);
            }
        }
        loss
    }

    /// Hands the state to `save`, as archives over this memory.
    fn with_state<T>(&self, loss: f32, save: impl FnOnce(&State<'_>) -> Result<T>) -> Result<T> {
        // Bytes of the parameters: on a little-endian machine this would be a cast.
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensor = |name: &str, p: &Param, values: &[f32]| {
            Tensor::new(name, DType::F32, p.shape.as_slice(), Data::Owned(bytes(values).into()))
        };
        let weights: Vec<Tensor<'_>> =
            self.params.iter().map(|p| tensor(p.name, p, &p.value)).collect::<Result<_>>()?;
        let weights = MemoryArchive::new(weights)?;
        let mut optimizer = OptimizerState::adam(f64::from(LEARNING_RATE));
        for p in &self.params {
            let moments =
                [("exp_avg", tensor("", p, &p.moments[0])?), ("exp_avg_sq", tensor("", p, &p.moments[1])?)];
            optimizer = optimizer.param(p.name, self.step, moments);
        }
        let optimizer = optimizer.build()?;
        let random = json!({ "state": self.random.0 });
        let state = State::new(&weights)
            .at(self.step / 1000, self.step)
            .optimizer(&optimizer)
            .random(&random)
            .metric("loss", f64::from(loss));
        save(&state)
    }

    /// Takes everything from a checkpoint.
    fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let (weights, optimizer) = (checkpoint.weights()?, checkpoint.optimizer()?);
        let missing = |what: &str| Error::not_found(format!("the checkpoint has no {what}"));
        let optimizer = optimizer.ok_or_else(|| missing("optimizer"))?;
        let view = OptimizerView::new(&*optimizer)?;
        for p in &mut self.params {
            p.value = numbers(&weights.tensor(p.name)?.data)?;
            let state = view.param(p.name).ok_or_else(|| missing("state of a parameter"))?;
            for (moment, key) in p.moments.iter_mut().zip(["exp_avg", "exp_avg_sq"]) {
                let tensor = state.tensors.iter().find(|(k, _)| k == key).ok_or_else(|| missing(key))?;
                *moment = numbers(&optimizer.data(tensor.1)?)?;
            }
        }
        let random = checkpoint.random()?.ok_or_else(|| missing("random state"))?;
        self.random = Random(random["state"].as_u64().ok_or_else(|| missing("random state"))?);
        self.step = checkpoint.step().ok_or_else(|| missing("step"))?;
        Ok(())
    }
}

fn numbers(data: &Data<'_>) -> Result<Vec<f32>> {
    let bytes = data.read_all()?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

const USAGE: &str = "usage: train FOLDER [--steps N] [--save-every N] [--hidden N] [--background] [--incremental] \
     [--no-fsync]";

/// What the command line says.
struct Options {
    folder: PathBuf,
    steps: u64,
    save_every: u64,
    hidden: usize,
    background: bool,
    incremental: bool,
    fsync: bool,
}

fn options() -> std::result::Result<Options, String> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or(USAGE)?;
    let mut options = Options {
        folder: folder.into(),
        steps: 2000,
        save_every: 100,
        hidden: 4096,
        background: false,
        incremental: false,
        fsync: true,
    };
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or_else(|| format!("{arg} wants a number"))?;
            text.parse::<u64>().map_err(|e| format!("{arg} {text}: {e}"))
        };
        match arg.as_str() {
            "--steps" => options.steps = number()?,
            "--save-every" => options.save_every = number()?,
            "--hidden" => options.hidden = number()? as usize,
            "--background" => options.background = true,
            "--incremental" => options.incremental = true,
            "--no-fsync" => options.fsync = false,
            other => return Err(format!("{other} is no option")),
        }
    }
    Ok(options)
}

fn say(line: &str) {
    // A line that nobody reads is no reason to stop training.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn acknowledge(saved: impl IntoIterator<Item = Saved>) {
    saved.into_iter().for_each(|s| say(&format!("saved {}", s.manifest.step)));
}

fn run(options: &Options) -> Result<()> {
    let mut builder = CheckpointManager::builder(&options.folder)
        .every_steps(options.save_every)
        .fsync(options.fsync)
        .keep_last(3)
        .keep_best("loss", Goal::Min, 1);
    if options.background {
        builder = builder.background(Background::default());
    }
    if options.incremental {
        builder = builder.incremental_by(16 << 10);
    }
    let mut manager = builder.build()?;
    let mut training = Training::new(options.hidden);
    let found = manager.resume()?;
    for skipped in &found.skipped {
        say(&format!("skipped {}: {}", skipped.path.display(), skipped.reason));
    }
    if let Some(checkpoint) = found.checkpoint {
        training.load(&checkpoint)?;
    }
    say(&format!("resumed {}", training.step));
    while training.step < options.steps {
        let loss = training.step();
        let step = training.step;
        if step.is_multiple_of(10) {
            manager.log(&format!("step {step} loss {loss:.6}"));
        }
        if manager.should_save(step) {
            say(&format!("saving {step}"));
            acknowledge(training.with_state(loss, |state| manager.save(state))?);
        }
        acknowledge(manager.take_saved());
    }
    acknowledge(manager.finish()?);
    say(&format!("done {}", training.step));
    Ok(())
}

fn main() -> ExitCode {
    let outcome = options()
        .map_err(|e| (e, None))
        .and_then(|options| run(&options).map_err(|e| (e.to_string(), e.hint().map(str::to_owned))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, hint)) => {
            eprintln!("error: {error}");
            if let Some(hint) = hint {
                eprintln!("  hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
