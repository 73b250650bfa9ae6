//! Measures for how long a background save keeps its caller waiting, beside a `memcpy` of the same state.
//!
//! ```sh
//! cargo run --release -p weighbridge-examples --bin blocking -- runs/blocking [MIB] [ROUNDS]
//! ```
//!
//! Both copy the same tensors into memory that is warm: the `memcpy` by one call a tensor in one thread, the save as
//! it does. They take turns, nothing else is in flight while they are measured, and the medians are compared. What
//! was saved is deleted again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use weighbridge::checkpoint::{Background, CheckpointManager, State};
use weighbridge::{DType, Data, Error, MemoryArchive, Result, Tensor};

/// Tensors as a model of that size has them: mostly large ones, and some small.
fn sizes(total: usize) -> Vec<usize> {
    let (mut sizes, mut left) = (Vec::new(), total);
    for size in [64 << 20, 64 << 20, 16 << 20, 16 << 10, 4 << 10].into_iter().cycle() {
        let size = size.min(left);
        if size == 0 {
            break;
        }
        sizes.push(size);
        left -= size;
    }
    sizes
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

fn run(folder: PathBuf, mib: usize, rounds: usize) -> Result<()> {
    let state: Vec<Vec<u8>> = sizes(mib << 20).into_iter().map(|n| vec![0x3c; n]).collect();
    let tensors = state.iter().enumerate().map(|(i, bytes)| {
        Tensor::new(format!("t{i}"), DType::U8, [bytes.len() as u64].as_slice(), Data::Borrowed(bytes))
    });
    let weights = MemoryArchive::new(tensors.collect::<Result<Vec<_>>>()?)?;
    let mut copy: Vec<Vec<u8>> = state.iter().map(|bytes| vec![1; bytes.len()]).collect();
    let mut manager = CheckpointManager::builder(&folder)
        .background(Background::default())
        .keep_last(1)
        .fsync(false)
        .build()?;
    manager.reserve(&State::new(&weights))?;
    let (mut memcpy, mut blocked, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..rounds as u64 {
        let begin = Instant::now();
        copy.iter_mut().zip(&state).for_each(|(to, from)| to.copy_from_slice(from));
        memcpy.push(begin.elapsed().as_secs_f64());
        std::hint::black_box(&mut copy);
        let begin = Instant::now();
        manager.save(&State::new(&weights).at(0, step))?;
        blocked.push(begin.elapsed().as_secs_f64());
        manager.wait()?;
        whole.push(begin.elapsed().as_secs_f64());
    }
    let saved = manager.finish()?;
    if saved.len() != rounds {
        return Err(Error::mismatch(format!("{} of {rounds} saves were acknowledged", saved.len())));
    }
    let (memcpy, blocked, whole) = (median(memcpy), median(blocked), median(whole));
    println!("state      {mib} MiB in {} tensors, {rounds} rounds, medians", state.len());
    println!("memcpy     {memcpy:.3} s");
    println!("blocked    {blocked:.3} s, {:.2} of memcpy", blocked / memcpy);
    println!("on disk    {whole:.3} s, read back and rotated included");
    std::fs::remove_dir_all(&folder).map_err(|e| Error::io("removing what was saved", e).with_path(folder))
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else {
        eprintln!("usage: blocking FOLDER [MIB] [ROUNDS]");
        return ExitCode::FAILURE;
    };
    let mut number = |default| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (mib, rounds) = (number(1536), number(7));
    if std::fs::exists(&folder).unwrap_or(true) {
        eprintln!("error: {folder} exists already; name a new folder, which is removed at the end");
        return ExitCode::FAILURE;
    }
    match run(folder.into(), mib, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
