//! The manager: when to save, where to, what stays, and from where to go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weighbridge_formats::{Error, ReadOptions, Result};

use crate::background::{Background, Worker};
use crate::layout::is_plain_name;
use crate::list::{Resume, list, resume};
use crate::retention::{Goal, Retention};
use crate::save::{SaveOptions, Saved};
use crate::stage;
use crate::state::State;
use crate::writer::Writer;

/// Default of [`Builder::incremental`]'s group: small enough that a frozen layer is a file of its own, large enough
/// that a model is some hundred files.
const GROUP: u64 = 16 << 20;

/// Choices for a [`CheckpointManager`].
#[derive(Clone, Debug)]
pub struct Builder {
    root: PathBuf,
    prefix: String,
    steps: Option<u64>,
    time: Option<Duration>,
    rules: Retention,
    background: Option<Background>,
    options: SaveOptions,
    read: ReadOptions,
}

impl Builder {
    /// What names begin with; `checkpoint` by default, for `checkpoint_epoch10_step1000`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Save at every multiple of so many steps.
    pub fn every_steps(mut self, steps: u64) -> Self {
        self.steps = Some(steps);
        self
    }

    /// Save when so much time has passed since the last save.
    pub fn every(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// Keep the newest so many.
    pub fn keep_last(mut self, count: usize) -> Self {
        self.rules.last = Some(count);
        self
    }

    /// Keep the best so many by a metric. May be called for several metrics.
    pub fn keep_best(mut self, metric: impl Into<String>, goal: Goal, count: usize) -> Self {
        self.rules.best.push((metric.into(), goal, count));
        self
    }

    /// Keep one of every so many saves, for good.
    pub fn keep_every(mut self, saves: u64) -> Self {
        self.rules.every = Some(saves);
        self
    }

    /// Save in a thread of its own: [`CheckpointManager::save`] then returns when the state is copied.
    pub fn background(mut self, background: Background) -> Self {
        self.background = Some(background);
        self
    }

    /// Write again only what has changed: the tensors go to files of some 16 MiB named by the hash of their content,
    /// and a file that is in the checkpoint before is a hard link to it. Such a checkpoint is a sharded set with its
    /// index, which any reader of safetensors opens, and it stays whole when the one before is deleted.
    ///
    /// The hash (BLAKE3) is computed before anything is written, and a file is linked only after its content was
    /// checked. A file system without hard links gets everything written.
    pub fn incremental(self) -> Self {
        self.incremental_by(GROUP)
    }

    /// As [`Builder::incremental`], with the most bytes of tensors in one file; a larger tensor is a file alone.
    pub fn incremental_by(mut self, bytes: u64) -> Self {
        self.options.incremental = Some(bytes.max(1));
        self
    }

    /// Wait until files and names are on the disk. Default: yes. Without it a checkpoint survives a kill, and not a
    /// power cut.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.options.fsync = fsync;
        self
    }

    /// How many threads copy and write; as many as there are processors, at most four, by default.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Bounds for reading checkpoints.
    pub fn read_options(mut self, read: ReadOptions) -> Self {
        self.read = read;
        self
    }

    /// Makes the manager: creates the folder, and removes what processes that are gone left unfinished in it.
    ///
    /// # Errors
    /// `InvalidOptions` for a prefix that is no name, and for a rule of 0; `Io` for what the system refuses.
    pub fn build(self) -> Result<CheckpointManager> {
        if !is_plain_name(&self.prefix) {
            return Err(Error::invalid_options(format!("{:?} cannot begin a folder's name", self.prefix)));
        }
        if self.steps == Some(0) || self.rules.every == Some(0) || self.rules.last == Some(0) {
            return Err(Error::invalid_options("a rule of 0 would never save, or keep nothing"));
        }
        let root = if self.root.as_os_str().is_empty() { PathBuf::from(".") } else { self.root };
        weighbridge_formats::write::uninterrupted(|| std::fs::create_dir_all(&root))
            .map_err(|e| Error::io("creating the folder of the checkpoints", e).with_path(&root))?;
        let cleaned = stage::clean(&root)?;
        let found = list(&root, &self.read)?;
        let number = found.iter().filter_map(|f| f.number).max().unwrap_or(0).saturating_add(1);
        let threads = self
            .options
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(4)));
        let mut writer = Writer::new(root.clone(), self.prefix, self.options, self.rules);
        writer.number = number;
        Ok(CheckpointManager {
            root,
            steps: self.steps,
            time: self.time,
            read: self.read,
            last_step: 0,
            last_time: Instant::now(),
            log: Vec::new(),
            cleaned,
            threads,
            background: self.background,
            writer: Some(writer),
            worker: None,
        })
    }
}

/// Saves checkpoints into a folder, and finds the one to go on from.
///
/// ```
/// use weighbridge_checkpoint::{CheckpointManager, Goal, State};
/// use weighbridge_formats::{DType, Data, MemoryArchive, Tensor};
///
/// # fn main() -> weighbridge_formats::Result<()> {
/// # let folder = std::env::temp_dir().join(format!("weighbridge-checkpoint-doc-{}", std::process::id()));
/// let mut manager = CheckpointManager::builder(&folder)
///     .every_steps(100)
///     .keep_last(3)
///     .keep_best("loss", Goal::Min, 1)
///     .build()?;
/// let mut weight = vec![0u8; 24];
/// let mut step = 0;
/// if let Some(checkpoint) = manager.resume()?.checkpoint {
///     weight = checkpoint.weights()?.tensor("fc.weight")?.data.read_all()?;
///     step = checkpoint.step().unwrap_or(0);
/// }
/// while step < 300 {
///     step += 1; // … and train …
///     if manager.should_save(step) {
///         let tensor = Tensor::new("fc.weight", DType::F32, [2, 3].as_slice(), Data::Borrowed(&weight))?;
///         let weights = MemoryArchive::new([tensor])?;
///         manager.save(&State::new(&weights).at(0, step).metric("loss", 1.0 / step as f64))?;
///     }
/// }
/// manager.finish()?;
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok(())
/// # }
/// ```
pub struct CheckpointManager {
    root: PathBuf,
    steps: Option<u64>,
    time: Option<Duration>,
    read: ReadOptions,
    /// The step of the last save, or of the checkpoint that was resumed.
    last_step: u64,
    last_time: Instant,
    /// Lines since the last save.
    log: Vec<u8>,
    cleaned: Vec<PathBuf>,
    threads: usize,
    background: Option<Background>,
    /// Here until the thread takes it.
    writer: Option<Writer>,
    worker: Option<Worker>,
}

impl std::fmt::Debug for CheckpointManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointManager").field("root", &self.root).finish_non_exhaustive()
    }
}

impl CheckpointManager {
    /// Choices for a manager of a folder. Without more it saves when told to, and keeps everything.
    pub fn builder(root: impl Into<PathBuf>) -> Builder {
        Builder {
            root: root.into(),
            prefix: "checkpoint".into(),
            steps: None,
            time: None,
            rules: Retention::default(),
            background: None,
            options: SaveOptions { fsync: true, threads: None, incremental: None },
            read: ReadOptions::default(),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What processes that are gone had left in the folder, and [`Builder::build`] removed.
    pub fn cleaned(&self) -> &[PathBuf] {
        &self.cleaned
    }

    /// The newest checkpoint that verifies, every byte of it read, with the newer ones that do not and why.
    ///
    /// The training log goes on from that of the checkpoint, and the steps are counted from its step.
    ///
    /// # Errors
    /// `InvalidOptions` after the first save; `Io` if the folder cannot be read.
    pub fn resume(&mut self) -> Result<Resume> {
        let Some(writer) = &mut self.writer else {
            return Err(Error::invalid_options("a training resumes before its first save"));
        };
        let found = resume(&self.root, &self.read)?;
        if let Some(checkpoint) = &found.checkpoint {
            self.last_step = checkpoint.step().unwrap_or(0);
            writer.log = checkpoint.log()?.unwrap_or_default();
            if let Some(manifest) = checkpoint.manifest() {
                writer.know(checkpoint.path(), manifest);
            }
        }
        self.last_time = Instant::now();
        Ok(found)
    }

    /// Whether this step is one to save at: a multiple of the steps has been reached since the last save, or the
    /// time has passed.
    pub fn should_save(&self, step: u64) -> bool {
        let by_steps = self.steps.is_some_and(|n| step / n > self.last_step / n);
        by_steps || step > self.last_step && self.time.is_some_and(|t| self.last_time.elapsed() >= t)
    }

    /// Adds a line to the training log, which is a file in every checkpoint.
    pub fn log(&mut self, line: &str) {
        self.log.extend_from_slice(line.as_bytes());
        self.log.push(b'\n');
    }

    /// Makes the memory for background copies of a state of this size, so that the first save is as fast as the
    /// later ones. In the foreground there is nothing to make.
    ///
    /// # Errors
    /// `LimitExceeded` if the memory is not to be had.
    pub fn reserve(&mut self, state: &State<'_>) -> Result<()> {
        match self.background {
            Some(background) => self.worker(background)?.reserve(state),
            None => Ok(()),
        }
    }

    fn worker(&mut self, background: Background) -> Result<&Worker> {
        if self.worker.is_none() {
            let writer = self.writer.take().ok_or_else(|| Error::invalid_options("the saves have ended"))?;
            self.worker = Some(Worker::start(writer, background, self.threads)?);
        }
        self.worker.as_ref().ok_or_else(|| Error::invalid_options("the saves have ended"))
    }

    /// Saves a state.
    ///
    /// In the foreground it returns the checkpoint once it is on the disk and older ones are rotated away. In the
    /// background it returns `None` once the state is copied; the checkpoint is acknowledged by
    /// [`CheckpointManager::take_saved`] or [`CheckpointManager::finish`].
    ///
    /// # Errors
    /// In the background, the error of an earlier save, which is told once: this state is then not saved, and the
    /// next call is as good as new. `LimitExceeded` as [`WhenFull`](crate::WhenFull) says. In the foreground, what
    /// the write engine says, a full disk for one: the earlier checkpoints are whole.
    pub fn save(&mut self, state: &State<'_>) -> Result<Option<Saved>> {
        let saved = match self.background {
            Some(background) => {
                let mut log = std::mem::take(&mut self.log);
                let outcome = self.worker(background).and_then(|worker| worker.save(state, &mut log));
                // What was not handed over goes with the next save.
                self.log = log;
                outcome?;
                None
            }
            None => {
                let Some(writer) = &mut self.writer else {
                    return Err(Error::invalid_options("the saves have ended"));
                };
                writer.log.append(&mut self.log);
                Some(writer.save(state)?)
            }
        };
        (self.last_step, self.last_time) = (state.step, Instant::now());
        Ok(saved)
    }

    /// The background saves that are on the disk and were not told of yet.
    pub fn take_saved(&mut self) -> Vec<Saved> {
        self.worker.as_ref().map(Worker::take_done).unwrap_or_default()
    }

    /// Waits until no background save is in flight.
    ///
    /// # Errors
    /// The first error of a save that was not told yet.
    pub fn wait(&mut self) -> Result<()> {
        let Some(worker) = &self.worker else { return Ok(()) };
        worker.wait();
        worker.take_error()
    }

    /// Waits for what is in flight and ends the thread. Returns the background saves that were not told of yet.
    ///
    /// A manager that is dropped waits too, and has nobody to tell of an error.
    ///
    /// # Errors
    /// As [`CheckpointManager::wait`].
    pub fn finish(mut self) -> Result<Vec<Saved>> {
        self.wait()?;
        Ok(self.take_saved())
    }
}
